/*
 * What a libvirt does, as far as this package and its users rest on it: a list of behaviours, each a
 * function over the client. The same list runs on the fake daemon, on QEMU and on libvirt's test driver
 * (contract.libvirt.spec.ts), so the fake claims nothing that QEMU does not do. Whoever adds something to
 * the fake adds its behaviour here.
 *
 * Errors are compared by their code, events by their order, XML by what its readers say.
 */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { pipeline } from 'node:stream/promises';
import type { Libvirt } from './connection.ts';
import { readDomain } from './domain-xml.ts';
import { errorCodes, LibvirtError } from './errors.ts';
import type { DomainEvent, DomainEventKind } from './events.ts';
import type { Domain, StorageVolume } from './layouts.ts';
import { procedures, sessionProcedures } from './procedures.ts';
import type { Procedure, ProcedureName } from './procedures.ts';
import { domainStats } from './stats.ts';
import { eventually } from './testing-connections.ts';
import { childrenOf, childOf, parseXml, textOf } from './xml.ts';
import { Reader, Writer, XdrError } from './xdr.ts';
import type { AnyCodec } from './xdr.ts';

/** What a driver needs of its surroundings. */
export interface Bench {
  readonly libvirt: Libvirt;
  /** Of `<domain type=…>`. */
  readonly virtualisation: 'qemu' | 'test';
  readonly arch: string;
  /** A folder in which the daemon may make files. */
  readonly folder: string;
  /** Another daemon of the same kind, for migration, and its URI as this daemon reaches it. */
  readonly other?: { readonly libvirt: Libvirt; readonly uri: string };
  /** The path of a disk from which a guest with an agent and a console boots. */
  readonly bootDisk: (name: string) => Promise<string>;
  /** Something that no other behaviour of this run uses. */
  readonly unique: (word: string) => string;
  /** How long what must come may take, milliseconds. */
  readonly patienceMs: number;
}

export interface Behaviour {
  readonly name: string;
  /** It shows only how a call is refused, of no call what it does. */
  readonly onlyRefusals?: true;
  readonly run: (bench: Bench) => Promise<void>;
}

interface Wanted {
  readonly name: string;
  readonly disks?: readonly { readonly path: string; readonly target: string; readonly format?: string }[];
  readonly devices?: string;
  readonly memory?: string;
  readonly vcpu?: string;
  readonly cpu?: string;
}

function domainXml({ virtualisation, arch }: Bench, { name, disks = [], devices = '', memory = `<memory unit='MiB'>64</memory>`, vcpu = '<vcpu>1</vcpu>', cpu = '' }: Wanted): string {
  const list = disks.map(({ path, target, format = 'qcow2' }) => `<disk type='file' device='disk'><driver name='qemu' type='${format}'/><source file='${path}'/><target dev='${target}' bus='virtio'/></disk>`);
  const processor = virtualisation === 'qemu' ? `<features><acpi/></features><cpu mode='custom' match='exact' check='none'><model fallback='allow'>qemu64</model>${cpu}</cpu>` : '';
  return `<domain type='${virtualisation}'><name>${name}</name>${memory}${vcpu}<os><type arch='${arch}'${virtualisation === 'qemu' ? ` machine='pc'` : ''}>hvm</type></os>${processor}<devices>${list.join('')}${devices}</devices></domain>`;
}

async function refused(code: number, call: Promise<unknown>): Promise<void> {
  const error: unknown = await call.then(
    () => undefined,
    (cause: unknown) => cause,
  );
  assert.ok(error instanceof LibvirtError, `a refusal with code ${code}, not ${String(error)}`);
  assert.equal(error.code, code, `${error.message} (code ${error.code})`);
  assert.equal(error.level, 'error');
}

/** The end of a QEMU that is killed may be heard or not. */
const maybe = (event: string) => event === 'shutdown host';

async function recorded({ patienceMs }: Bench, libvirt: Libvirt, kinds: readonly DomainEventKind[], domain?: Domain) {
  const events = await libvirt.domainEvents({ kinds, ...(domain === undefined ? {} : { domain }) });
  const seen: DomainEvent[] = [];
  const reading = (async () => {
    for await (const event of events) {
      if (event.kind === 'gap') throw new Error('a gap in the events');
      seen.push(event);
    }
  })();
  const words = (event: DomainEvent): string =>
    event.kind === 'lifecycle' ? `${event.event} ${event.detail}` : event.kind === 'blockJob' ? `${event.target} ${event.job} ${event.status}` : event.kind === 'deviceAdded' || event.kind === 'deviceRemoved' ? `${event.kind} ${event.device}` : event.kind;
  const told = () => seen.map(words).filter((event) => !maybe(event));
  return {
    seen,
    told,
    /** Waits for so many. */
    async until(expected: readonly string[]): Promise<void> {
      await eventually(() => told().length >= expected.length, patienceMs).catch(() => undefined);
      assert.deepEqual(told(), expected);
    },
    async close(): Promise<void> {
      await events.close();
      await reading;
    },
  };
}

/** A domain for the time of `use`; whatever is left of it afterwards is removed. */
async function withDomain(bench: Bench, wanted: Omit<Wanted, 'name'>, use: (domain: Domain, name: string) => Promise<void>): Promise<void> {
  const { libvirt } = bench;
  const name = bench.unique('domain');
  const domain = await libvirt.domainDefineXmlFlags({ xml: domainXml(bench, { ...wanted, name }) });
  try {
    await use(domain, name);
  } finally {
    await libvirt.domainDestroyFlags({ domain }).catch(() => undefined);
    await libvirt.domainUndefineFlags({ domain, flags: ['managedSave', 'snapshotsMetadata', 'checkpointsMetadata'] }).catch(() => undefined);
    await libvirt.domainUndefineFlags({ domain }).catch(() => undefined);
  }
}

/** A directory pool for the time of `use`. */
async function withPool(bench: Bench, use: (pool: { readonly name: string; readonly uuid: string }, path: string) => Promise<void>): Promise<void> {
  const { libvirt } = bench;
  const name = bench.unique('pool');
  const path = `${bench.folder}/${name}`;
  const pool = await libvirt.storagePoolDefineXml({ xml: `<pool type='dir'><name>${name}</name><target><path>${path}</path></target></pool>` });
  try {
    await libvirt.storagePoolBuild({ pool });
    await libvirt.storagePoolCreate({ pool });
    await use(pool, path);
  } finally {
    await libvirt.storagePoolDestroy({ pool }).catch(() => undefined);
    await libvirt.storagePoolUndefine({ pool }).catch(() => undefined);
  }
}

const mib = 1_048_576;
const volumeXml = (name: string, sizeMib: number, format = 'raw', more = '') => `<volume><name>${name}</name><capacity unit='MiB'>${sizeMib}</capacity>${more}<target><format type='${format}'/>${format === 'qcow2' ? '<compat>1.1</compat>' : ''}</target></volume>`;

/** A running domain with a qcow2 disk `vda` of 64 MiB. */
async function withDisk(bench: Bench, use: (domain: Domain, path: string) => Promise<void>): Promise<void> {
  await withPool(bench, async (pool) => {
    const { key } = await bench.libvirt.storageVolCreateXml({ pool, xml: volumeXml('base.qcow2', 64, 'qcow2') });
    await withDomain(bench, { disks: [{ path: key, target: 'vda' }] }, async (domain) => {
      await use(await bench.libvirt.domainCreateWithFlags({ domain }), key);
    });
  });
}

const chainOf = async (libvirt: Libvirt, domain: Domain): Promise<string[]> => {
  const chain: string[] = [];
  for (let at = childrenOf(childOf(parseXml(await libvirt.domainGetXmlDesc({ domain })), 'devices'), 'disk')[0]; at !== undefined; at = childOf(at, 'backingStore')) {
    const file = childOf(at, 'source')?.attributes['file'];
    if (file !== undefined) chain.push(file.slice(file.lastIndexOf('/') + 1));
  }
  return chain;
};

/** Codes of libvirt's that errors.ts has no name for. */
const noNodeDevice = 53;
const argumentUnsupported = 74;
const noHostname = 108;

const unknownFlag = 0x0200_0000;
/** With that for the last word of its arguments, which is of flags. */
const withFlags = (word: number) => (procedure: Procedure): Procedure => {
  const args: AnyCodec = {
    ...procedure.args,
    write: (writer, value) => {
      procedure.args.write(writer, value);
      writer.patchU32(writer.bytes - 4, word);
    },
  };
  return { ...procedure, args, countFirst: false, stream: undefined };
};
/** One bit that has no meaning anywhere. */
const withUnknownFlag = withFlags(unknownFlag);

/** A call that the client's own types do not have. */
function raw(libvirt: Libvirt, name: ProcedureName | keyof typeof sessionProcedures, args: object, changed = (procedure: Procedure): Procedure => procedure): Promise<unknown> {
  // The method that each call of the table goes through.
  const through = libvirt as unknown as { call(name: string, procedure: Procedure, args: unknown, options: object): Promise<unknown> };
  return through.call(name, changed({ ...procedures, ...sessionProcedures }[name]), args, {});
}

/** What is nowhere. */
const nobody = { name: 'd', uuid: '00000000-1111-4000-8000-000000000000', id: -1 };
const nothingAt = { pool: 'p', name: 'v', key: '/no/such/volume' };
const nowhere = (name: string) => ({ ...anything(nobody), pool: nobody, volume: nothingAt, from: nothingAt, ...particular[name] });

/** What a daemon says to one flag of a call about what is not there. */
export async function answerToFlag(libvirt: Libvirt, name: (typeof flagged)[number], flag: number): Promise<{ readonly code: number; readonly reason: string }> {
  const error: unknown = await raw(libvirt, name, nowhere(name), withFlags(flag)).catch((cause: unknown) => cause);
  if (error instanceof LibvirtError) return error;
  if (error instanceof Error) throw error;
  return { code: 0, reason: '' };
}

/** Whether the last word of a procedure's arguments is of flags. Its own reading says so. */
export function endsInFlags(name: string): boolean {
  const procedure = ({ ...procedures, ...sessionProcedures } as Readonly<Record<string, Procedure>>)[name];
  if (procedure === undefined) throw new Error(`no procedure ${name}`);
  if (procedure.args.bytesMin === 0) return false;
  const writer = new Writer(65_536);
  withUnknownFlag(procedure).args.write(writer, nowhere(name));
  const reader = new Reader(writer.take());
  try {
    procedure.args.read(reader);
  } catch (error) {
    // The word was the length of something.
    if (error instanceof XdrError) return false;
    throw error;
  }
  return reader.unknownFlags === unknownFlag;
}

/** What a call may be told that comes back before it is done. */
const anything = (domain: Domain): Readonly<Record<string, unknown>> => {
  const point = { name: 'p', domain };
  const { uuid } = domain;
  return {
    domain, domains: [domain], snapshot: point, checkpoint: point, network: { uuid }, secret: { uuid }, uuid, name: 'computer', architecture: 'x86_64', virtualisation: 'qemu', key: 'k', uri: 'urn:k', xml: '<a/>',
    parameters: {}, disk: 'vda', device: 'vda', path: 'vda', alias: 'a', size: 1, bandwidth: 0, vcpus: 1, memoryKib: 65_536, seconds: 1, capacityBytes: mib, value: Buffer.from('x'),
    command: '{}', mibPerSecond: 1, downtimeMs: 1, keys: [28], user: 'u', password: 'p', timeout: 1, destination: 'qemu:///x', feature: 1, eventId: 0, callbackId: 0, id: 1, usage: 'volume', usageId: '/u',
  };
};

/** Where that is of another kind. */
const particular: Readonly<Record<string, Readonly<Record<string, unknown>>>> = {
  networkUpdateOnWire: { command: 1, section: 1, parentIndex: 0 },
  connectNodeDeviceEventRegisterAny: { device: null },
  domainSaveFlags: { to: '/no/such/folder/file' },
  domainRestoreFlags: { from: '/no/such/file' },
  domainSetBlockIoTune: { parameters: { total_bytes_sec: 1 } },
  domainSetInterfaceParameters: { parameters: { 'inbound.average': 1 } },
};

/** The procedures whose last word is of flags. But connectOpen: of its word libvirtd looks at one bit. */
export const flagged = [
  'connectDomainMonitorEventRegister', 'networkUpdateOnWire',
  'connectGetDomainCapabilities', 'connectGetCpuModelNames', 'nodeGetCpuStats', 'nodeGetMemoryStats', 'nodeGetCpuMap', 'connectListAllDomains',
  'domainGetState', 'domainGetXmlDesc', 'domainGetHostname', 'domainGetControlInfo', 'domainGetMetadata', 'domainSetMetadata', 'domainGetMessages',
  'domainInterfaceAddresses', 'domainDefineXmlFlags', 'domainCreateWithFlags', 'domainCreateXml', 'domainUndefineFlags', 'domainRename',
  'domainShutdownFlags', 'domainReboot', 'domainReset', 'domainDestroyFlags', 'domainInjectNmi', 'domainSendKey', 'domainManagedSave',
  'domainSaveFlags', 'domainRestoreFlags',
  'domainHasManagedSaveImage', 'domainManagedSaveRemove', 'domainOpenConsole', 'domainScreenshot', 'domainAttachDeviceFlags',
  'domainDetachDeviceFlags', 'domainDetachDeviceAlias', 'domainUpdateDeviceFlags', 'domainSetVcpusFlags', 'domainGetVcpusFlags',
  'domainSetMemoryFlags', 'domainSetMemoryStatsPeriod', 'domainGetBlockIoTune', 'domainSetBlockIoTune', 'domainGetInterfaceParameters',
  'domainSetInterfaceParameters', 'connectGetAllDomainStats', 'domainMemoryStats', 'domainBlockStatsFlags',
  'domainGetBlockInfo', 'domainGetDiskErrors', 'domainGetJobStats', 'domainAbortJobFlags', 'domainBlockCommit', 'domainBlockPull',
  'domainBlockRebase', 'domainBlockCopy', 'domainBlockJobAbort', 'domainGetBlockJobInfo', 'domainBlockJobSetSpeed', 'domainBlockResize',
  'domainSnapshotCreateXml', 'domainListAllSnapshots', 'domainSnapshotListAllChildren', 'domainSnapshotNum', 'domainSnapshotListNames',
  'domainSnapshotLookupByName', 'domainSnapshotGetXmlDesc', 'domainHasCurrentSnapshot', 'domainSnapshotCurrent', 'domainSnapshotIsCurrent',
  'domainSnapshotHasMetadata', 'domainSnapshotGetParent', 'domainRevertToSnapshot', 'domainSnapshotDelete', 'domainCheckpointCreateXml',
  'domainListAllCheckpoints', 'domainCheckpointListAllChildren', 'domainCheckpointLookupByName', 'domainCheckpointGetXmlDesc',
  'domainCheckpointGetParent', 'domainCheckpointDelete', 'domainBackupBegin', 'domainBackupGetXmlDesc', 'domainSetUserPassword',
  'domainGetGuestInfo', 'domainGetFsinfo', 'domainFsfreeze', 'domainFsthaw', 'domainFstrim', 'domainGetTime', 'domainSetTime',
  'domainAgentSetResponseTimeout', 'domainAgentCommand', 'domainMonitorCommand', 'domainMigrateBegin3Params', 'domainMigratePrepare3Params',
  'domainMigratePerform3Params', 'domainMigrateGetMaxSpeed', 'domainMigrateSetMaxSpeed', 'domainMigrateGetMaxDowntime',
  'domainMigrateSetMaxDowntime', 'connectListAllStoragePools', 'storagePoolDefineXml', 'storagePoolCreateXml', 'storagePoolBuild',
  'storagePoolCreate', 'storagePoolDelete', 'storagePoolRefresh', 'storagePoolGetXmlDesc', 'storagePoolListAllVolumes', 'storageVolCreateXml',
  'storageVolCreateXmlFrom', 'storageVolDelete', 'storageVolWipePattern', 'storageVolWipe', 'storageVolGetInfoFlags', 'storageVolGetXmlDesc',
  'storageVolResize', 'storageVolUpload', 'storageVolDownload', 'connectListAllNetworks', 'networkDefineXmlFlags', 'networkCreateXmlFlags',
  'networkGetXmlDesc', 'networkGetDhcpLeases', 'networkListAllPorts', 'connectListAllInterfaces', 'connectListAllNwfilters',
  'connectListAllNwfilterBindings', 'connectListAllNodeDevices', 'nodeNumOfDevices', 'nodeListDevices', 'nodeDeviceGetXmlDesc',
  'connectListAllSecrets', 'secretDefineXml', 'secretSetValue', 'secretGetValue', 'secretGetXmlDesc',
] as const satisfies readonly (ProcedureName | keyof typeof sessionProcedures)[];

const network = (name: string, third: number) =>
  `<network><name>${name}</name><bridge name='cvc${third}'/><ip address='192.168.${third}.1' netmask='255.255.255.0'><dhcp><range start='192.168.${third}.10' end='192.168.${third}.20'/></dhcp></ip></network>`;

export const behaviours: readonly Behaviour[] = [
  {
    name: 'says what it is',
    run: async ({ libvirt, virtualisation }) => {
      assert.equal(await libvirt.connectGetType(), virtualisation === 'test' ? 'TEST' : 'QEMU');
      assert.ok((await libvirt.connectGetLibVersion()) >= 9_000_000);
      assert.ok((await libvirt.connectGetVersion()) > 0);
      assert.match(await libvirt.connectGetUri(), /^(qemu:\/\/\/(session|system)|test:\/\/\/default)$/);
      assert.equal(await libvirt.connectIsSecure(), true);
      assert.equal(parseXml(await libvirt.connectGetCapabilities()).name, 'capabilities');
      assert.equal(await libvirt.connectSupportsFeature({ feature: 10 }), true);
    },
  },
  {
    name: 'describes its node',
    run: async ({ libvirt }) => {
      const node = await libvirt.nodeGetInfo();
      assert.ok(node.cpus > 0 && node.memoryKib > 0);
      const map = await libvirt.nodeGetCpuMap().catch((error: unknown) => (error instanceof LibvirtError && error.code === errorCodes.noSupport ? undefined : Promise.reject(error as Error)));
      if (map !== undefined) assert.equal(map.online.length, map.onlineCount);
      assert.ok((await libvirt.nodeGetFreeMemory()) > 0);
    },
  },
  {
    name: 'describes its processors and its memory',
    run: async ({ libvirt }) => {
      const cpu = await libvirt.nodeGetCpuStats();
      assert.ok((cpu.stats['idle'] ?? 0n) > 0n);
      assert.equal(Object.keys(cpu.stats).length, cpu.count);
      const memory = await libvirt.nodeGetMemoryStats();
      assert.ok((memory.stats['total'] ?? 0) > (memory.stats['free'] ?? 0));
    },
  },
  {
    name: 'finds a domain by name and UUID, and says what it does not have',
    run: async (bench) => {
      const { libvirt } = bench;
      await withDomain(bench, {}, async (domain, name) => {
        assert.deepEqual(await libvirt.domainLookupByName({ name }), { name, uuid: domain.uuid, id: -1 });
        assert.deepEqual(await libvirt.domainLookupByUuid({ uuid: domain.uuid }), { name, uuid: domain.uuid, id: -1 });
        assert.ok((await libvirt.connectListAllDomains({ filter: ['inactive'] })).some((one) => one.uuid === domain.uuid));
        assert.ok(!(await libvirt.connectListAllDomains({ filter: ['active'] })).some((one) => one.uuid === domain.uuid));
      });
      await refused(errorCodes.noDomain, libvirt.domainLookupByName({ name: bench.unique('nobody') }));
      await refused(errorCodes.noDomain, libvirt.domainLookupByUuid({ uuid: '00000000-1111-4000-8000-000000000000' }));
      await refused(errorCodes.noDomain, libvirt.domainGetState({ domain: { uuid: '00000000-1111-4000-8000-000000000000' } }));
      await refused(errorCodes.noDomain, libvirt.domainLookupById({ id: 999_999 }));
    },
  },
  {
    name: 'fills in what a definition leaves out, and keeps the rest',
    run: async (bench) => {
      const { libvirt } = bench;
      await withDomain(bench, { memory: `<title>a &amp; b</title><memory unit='MiB'>64</memory>`, vcpu: `<vcpu current='1'>2</vcpu>` }, async (domain, name) => {
        const read = readDomain(await libvirt.domainGetXmlDesc({ domain }));
        assert.equal(read.name, name);
        assert.equal(read.uuid, domain.uuid);
        assert.equal(read.id, undefined);
        assert.equal(read.title, 'a & b');
        assert.equal(read.memoryKib, 65_536);
        assert.equal(read.vcpusMax, 2);
        assert.equal(read.vcpus, 1);
        assert.equal(textOf(childOf(read.root, 'on_poweroff')), 'destroy');
        assert.equal(textOf(childOf(read.root, 'on_reboot')), 'restart');
        assert.equal(childOf(read.root, 'clock')?.attributes['offset'], 'utc');
        assert.deepEqual(await libvirt.domainGetState({ domain }), { state: 'shutoff', reason: 'unknown' });
        assert.deepEqual(await libvirt.domainGetInfo({ domain }), { state: 'shutoff', memoryKibMax: 65_536, memoryKib: 65_536, vcpus: 1, cpuTimeNs: 0n });
      });
    },
  },
  {
    name: 'shows the password of a screen only to who asks for it',
    run: async (bench) => {
      const { libvirt } = bench;
      const devices = `<graphics type='vnc' socket='${bench.folder}/${bench.unique('vnc')}' passwd='a &lt; b'/>`;
      await withDomain(bench, { devices }, async (domain) => {
        const password = async (...flags: readonly ('secure' | 'inactive')[]) => childOf(parseXml(await libvirt.domainGetXmlDesc({ domain, flags })), 'devices', 'graphics')?.attributes['passwd'];
        assert.deepEqual([await password(), await password('secure')], [undefined, 'a < b']);
        await libvirt.domainCreateWithFlags({ domain });
        assert.deepEqual([await password(), await password('secure'), await password('inactive'), await password('inactive', 'secure')], [undefined, 'a < b', undefined, 'a < b']);
      });
    },
  },
  {
    name: 'refuses XML that is none, or not a domain, or without a name, or of a name that is taken',
    run: async (bench) => {
      const { libvirt } = bench;
      await refused(errorCodes.xmlSyntax, libvirt.domainDefineXmlFlags({ xml: '<domain' }));
      await refused(errorCodes.xml, libvirt.domainDefineXmlFlags({ xml: '<network/>' }));
      await refused(21, libvirt.domainDefineXmlFlags({ xml: domainXml(bench, { name: 'x' }).replace('<name>x</name>', '') }));
      await withDomain(bench, {}, async (_domain, name) => {
        await refused(errorCodes.operationFailed, libvirt.domainDefineXmlFlags({ xml: domainXml(bench, { name }) }));
      });
    },
  },
  {
    name: 'tells the life of a domain in order',
    run: async (bench) => {
      const { libvirt } = bench;
      const events = await recorded(bench, libvirt, ['lifecycle']);
      const name = bench.unique('domain');
      const xml = domainXml(bench, { name });
      const defined = await libvirt.domainDefineXmlFlags({ xml });
      await libvirt.domainDefineXmlFlags({ xml: xml.replace('<name>', `<uuid>${defined.uuid}</uuid><name>`) });
      const domain = await libvirt.domainCreateWithFlags({ domain: defined });
      assert.ok(domain.id > 0);
      assert.deepEqual(await libvirt.domainGetState({ domain }), { state: 'running', reason: 'booted' });
      assert.equal((await libvirt.domainLookupById({ id: domain.id })).uuid, domain.uuid);
      await libvirt.domainSuspend({ domain });
      assert.deepEqual(await libvirt.domainGetState({ domain }), { state: 'paused', reason: 'user' });
      await libvirt.domainResume({ domain });
      assert.deepEqual(await libvirt.domainGetState({ domain }), { state: 'running', reason: 'unpaused' });
      await libvirt.domainDestroyFlags({ domain });
      assert.deepEqual(await libvirt.domainGetState({ domain }), { state: 'shutoff', reason: 'destroyed' });
      await libvirt.domainUndefineFlags({ domain });
      const started = bench.virtualisation === 'test' ? ['started booted'] : ['resumed unpaused', 'started booted'];
      await events.until(['defined added', 'defined updated', ...started, 'suspended paused', 'resumed unpaused', 'stopped destroyed', 'undefined removed']);
      assert.ok(events.seen.every((event) => 'domain' in event && event.domain.uuid === domain.uuid && event.domain.name === name));
      await events.close();
      await refused(errorCodes.noDomain, libvirt.domainGetState({ domain }));
    },
  },
  {
    name: 'starts a domain that stands still, and forgets a transient one when it stops',
    run: async (bench) => {
      const { libvirt } = bench;
      const events = await recorded(bench, libvirt, ['lifecycle']);
      const domain = await libvirt.domainCreateXml({ xml: domainXml(bench, { name: bench.unique('transient') }), flags: ['paused'] });
      assert.deepEqual(await libvirt.domainGetState({ domain }), { state: 'paused', reason: 'user' });
      assert.equal(await libvirt.domainIsPersistent({ domain }), false);
      assert.equal(await libvirt.domainIsActive({ domain }), true);
      await libvirt.domainResume({ domain });
      await libvirt.domainDestroyFlags({ domain });
      await refused(errorCodes.noDomain, libvirt.domainGetState({ domain }));
      await events.until(['started booted', 'suspended paused', 'resumed unpaused', 'stopped destroyed']);
      await events.close();
    },
  },
  {
    name: 'refuses what does not fit the state',
    run: async (bench) => {
      const { libvirt } = bench;
      await withDomain(bench, {}, async (domain) => {
        await refused(errorCodes.operationInvalid, libvirt.domainDestroyFlags({ domain }));
        await refused(errorCodes.operationInvalid, libvirt.domainSuspend({ domain }));
        await refused(errorCodes.operationInvalid, libvirt.domainShutdownFlags({ domain }));
        await libvirt.domainCreateWithFlags({ domain });
        await refused(errorCodes.operationInvalid, libvirt.domainCreateWithFlags({ domain }));
        await refused(errorCodes.operationInvalid, libvirt.domainRename({ domain, name: bench.unique('never') }));
      });
    },
  },
  {
    name: 'suspends twice without a word, and resumes once',
    run: async (bench) => {
      const { libvirt } = bench;
      await withDomain(bench, {}, async (domain) => {
        await libvirt.domainCreateWithFlags({ domain });
        await libvirt.domainSuspend({ domain });
        await libvirt.domainSuspend({ domain });
        await libvirt.domainResume({ domain });
        await refused(errorCodes.operationInvalid, libvirt.domainResume({ domain }));
      });
    },
  },
  {
    name: 'undefines a domain that runs, which is transient then',
    run: async (bench) => {
      const { libvirt } = bench;
      await withDomain(bench, {}, async (domain) => {
        await libvirt.domainCreateWithFlags({ domain });
        await libvirt.domainUndefineFlags({ domain });
        assert.equal(await libvirt.domainIsPersistent({ domain }), false);
        assert.equal(await libvirt.domainIsActive({ domain }), true);
        await refused(errorCodes.operationInvalid, libvirt.domainSetAutostart({ domain, autostart: true }));
        await libvirt.domainDestroyFlags({ domain });
        await refused(errorCodes.noDomain, libvirt.domainGetState({ domain }));
      });
    },
  },
  {
    name: 'renames a domain that is off, and starts it by itself if it should',
    run: async (bench) => {
      const { libvirt } = bench;
      await withDomain(bench, {}, async (domain) => {
        // Its definition has been told when this is answered.
        assert.equal(await libvirt.domainGetAutostart({ domain }), false);
        const events = await recorded(bench, libvirt, ['lifecycle'], domain);
        const name = bench.unique('renamed');
        await libvirt.domainRename({ domain, name });
        assert.equal((await libvirt.domainLookupByName({ name })).uuid, domain.uuid);
        await events.until(['undefined renamed', 'defined renamed']);
        await events.close();
        await libvirt.domainSetAutostart({ domain, autostart: true });
        assert.equal(await libvirt.domainGetAutostart({ domain }), true);
        assert.ok((await libvirt.connectListAllDomains({ filter: ['autostart'] })).some((one) => one.uuid === domain.uuid));
        await libvirt.domainSetAutostart({ domain, autostart: false });
      });
    },
  },
  {
    name: 'keeps metadata, tells of its change, and says when there is none',
    run: async (bench) => {
      const { libvirt } = bench;
      await withDomain(bench, {}, async (domain) => {
        const events = await recorded(bench, libvirt, ['metadataChange'], domain);
        await refused(errorCodes.noMetadata, libvirt.domainGetMetadata({ domain, kind: 'title' }));
        await libvirt.domainSetMetadata({ domain, kind: 'title', metadata: 'a title', flags: ['config'] });
        assert.equal(await libvirt.domainGetMetadata({ domain, kind: 'title' }), 'a title');
        await libvirt.domainSetMetadata({ domain, kind: 'element', metadata: '<vm id="1"><b>c</b></vm>', key: 'cv', uri: 'urn:cv', flags: ['config'] });
        const metadata = parseXml(await libvirt.domainGetMetadata({ domain, kind: 'element', uri: 'urn:cv' }));
        assert.deepEqual([metadata.name, metadata.attributes['id'], textOf(metadata)], ['vm', '1', 'c']);
        await refused(errorCodes.noMetadata, libvirt.domainGetMetadata({ domain, kind: 'element', uri: 'urn:other' }));
        await libvirt.domainSetMetadata({ domain, kind: 'element', key: 'cv', uri: 'urn:cv', flags: ['config'] });
        await refused(errorCodes.noMetadata, libvirt.domainGetMetadata({ domain, kind: 'element', uri: 'urn:cv' }));
        await events.until(['metadataChange', 'metadataChange', 'metadataChange']);
        await events.close();
      });
    },
  },
  {
    name: 'counts what a running domain uses',
    run: async (bench) => {
      const { libvirt } = bench;
      await withDomain(bench, { vcpu: `<vcpu current='1'>2</vcpu>` }, async (domain) => {
        await libvirt.domainCreateWithFlags({ domain });
        const [found] = await libvirt.connectGetAllDomainStats({ domains: [domain], groups: ['state', 'cpu', 'balloon', 'vcpu'], flags: ['nowait'] });
        assert.ok(found !== undefined);
        const stats = domainStats(found);
        assert.deepEqual([stats.state, stats.reason, stats.vcpus, stats.vcpusMax], ['running', 'booted', 1, 2]);
        assert.deepEqual([stats.balloonKib, stats.balloonKibMax], [65_536, 65_536]);
        await eventually(async () => (await libvirt.domainGetInfo({ domain })).cpuTimeNs > 0n);
        const all = await libvirt.connectGetAllDomainStats({ domains: [], groups: ['state'], flags: ['running'] });
        assert.ok(all.some((one) => one.domain.uuid === domain.uuid));
      });
    },
  },
  {
    name: 'changes vCPUs and memory of what will start, within their limits',
    run: async (bench) => {
      const { libvirt } = bench;
      await withDomain(bench, { vcpu: `<vcpu current='1'>4</vcpu>` }, async (domain) => {
        await libvirt.domainSetVcpusFlags({ domain, vcpus: 3, flags: ['config'] });
        assert.equal(await libvirt.domainGetVcpusFlags({ domain, flags: ['config'] }), 3);
        assert.equal(await libvirt.domainGetVcpusFlags({ domain, flags: ['config', 'maximum'] }), 4);
        await refused(errorCodes.invalidArgument, libvirt.domainSetVcpusFlags({ domain, vcpus: 9, flags: ['config'] }));
        await refused(errorCodes.operationInvalid, libvirt.domainSetVcpusFlags({ domain, vcpus: 2, flags: ['live'] }));
        await libvirt.domainSetMemoryFlags({ domain, memoryKib: 131_072, flags: ['config', 'maximum'] });
        await libvirt.domainSetMemoryFlags({ domain, memoryKib: 98_304, flags: ['config'] });
        assert.equal(await libvirt.domainGetMaxMemory({ domain }), 131_072);
        assert.equal((await libvirt.domainGetInfo({ domain })).memoryKib, 98_304);
        await refused(errorCodes.invalidArgument, libvirt.domainSetMemoryFlags({ domain, memoryKib: 262_144, flags: ['config'] }));
      });
    },
  },
  {
    name: 'plugs vCPUs into a domain that runs',
    run: async (bench) => {
      const { libvirt } = bench;
      await withDomain(bench, { vcpu: `<vcpu current='1'>4</vcpu>` }, async (domain) => {
        await libvirt.domainCreateWithFlags({ domain });
        await libvirt.domainSetVcpusFlags({ domain, vcpus: 3, flags: ['live'] });
        assert.equal(await libvirt.domainGetVcpusFlags({ domain, flags: ['live'] }), 3);
        assert.equal(await libvirt.domainGetVcpusFlags({ domain, flags: ['config'] }), 1);
        assert.equal(readDomain(await libvirt.domainGetXmlDesc({ domain })).vcpus, 3);
        await refused(errorCodes.invalidArgument, libvirt.domainSetVcpusFlags({ domain, vcpus: 9, flags: ['live'] }));
      });
    },
  },
  {
    name: 'saves a domain, and goes on with it where it was',
    run: async (bench) => {
      const { libvirt } = bench;
      await withDomain(bench, {}, async (domain) => {
        await libvirt.domainCreateWithFlags({ domain });
        await libvirt.domainManagedSave({ domain });
        assert.deepEqual(await libvirt.domainGetState({ domain }), { state: 'shutoff', reason: 'saved' });
        assert.equal(await libvirt.domainHasManagedSaveImage({ domain }), true);
        await refused(errorCodes.operationInvalid, libvirt.domainUndefineFlags({ domain }));
        const events = await recorded(bench, libvirt, ['lifecycle'], domain);
        await libvirt.domainCreateWithFlags({ domain });
        assert.equal(await libvirt.domainHasManagedSaveImage({ domain }), false);
        assert.deepEqual(await libvirt.domainGetState({ domain }), { state: 'running', reason: 'restored' });
        await eventually(() => events.told().includes('started restored'));
        await events.close();
      });
    },
  },
  {
    name: 'rests in a file that somebody names, and goes on from it',
    run: async (bench) => {
      const { libvirt } = bench;
      await withDomain(bench, {}, async (domain, name) => {
        const file = `${bench.folder}/${name}.save`;
        await refused(errorCodes.operationInvalid, libvirt.domainSaveFlags({ domain, to: file }));
        await libvirt.domainCreateWithFlags({ domain });
        await libvirt.domainSaveFlags({ domain, to: file });
        assert.deepEqual(await libvirt.domainGetState({ domain }), { state: 'shutoff', reason: 'saved' });
        const events = await recorded(bench, libvirt, ['lifecycle'], domain);
        await libvirt.domainRestoreFlags({ from: file });
        assert.deepEqual(await libvirt.domainGetState({ domain }), { state: 'running', reason: 'restored' });
        await eventually(() => events.told().includes('started restored'));
        await events.close();
      });
    },
  },
  {
    name: 'plugs in a disk, an interface and memory, and takes them out of its XML again',
    run: async (bench) => {
      const { libvirt } = bench;
      await withPool(bench, async (pool) => {
        const { key } = await libvirt.storageVolCreateXml({ pool, xml: volumeXml('b.qcow2', 16, 'qcow2') });
        const memory = `<maxMemory slots='1' unit='MiB'>512</maxMemory><memory unit='MiB'>64</memory>`;
        await withDomain(bench, { memory, cpu: `<numa><cell id='0' cpus='0' memory='64' unit='MiB'/></numa>` }, async (domain) => {
          await libvirt.domainCreateWithFlags({ domain });
          const events = await recorded(bench, libvirt, ['deviceAdded'], domain);
          const disk = `<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='${key}'/><target dev='vdb' bus='virtio'/></disk>`;
          await libvirt.domainAttachDeviceFlags({ domain, xml: disk, flags: ['live', 'config'] });
          await refused(errorCodes.xml, libvirt.domainAttachDeviceFlags({ domain, xml: disk, flags: ['live'] }));
          await libvirt.domainAttachDeviceFlags({ domain, xml: `<interface type='user'><mac address='52:54:00:00:00:77'/><model type='virtio'/></interface>`, flags: ['live'] });
          const dimm = `<memory model='dimm'><target><size unit='MiB'>128</size><node>0</node></target></memory>`;
          await libvirt.domainAttachDeviceFlags({ domain, xml: dimm, flags: ['live'] });
          await refused(errorCodes.configUnsupported, libvirt.domainAttachDeviceFlags({ domain, xml: dimm, flags: ['live'] }));
          await events.until(['deviceAdded virtio-disk1', 'deviceAdded net0', 'deviceAdded memdimm0']);
          await events.close();
          const live = readDomain(await libvirt.domainGetXmlDesc({ domain }));
          assert.deepEqual(live.disks.map(({ target, alias, path }) => ({ target, alias, path })), [{ target: 'vdb', alias: 'virtio-disk1', path: key }]);
          assert.deepEqual(live.interfaces.map(({ mac, alias }) => ({ mac, alias })), [{ mac: '52:54:00:00:00:77', alias: 'net0' }]);
          assert.equal(live.memoryKibMax, 196_608);
          const config = readDomain(await libvirt.domainGetXmlDesc({ domain, flags: ['inactive'] }));
          assert.deepEqual([config.disks.length, config.interfaces.length, config.memoryKibMax], [1, 0, 65_536]);
          await refused(errorCodes.deviceMissing, libvirt.domainDetachDeviceFlags({ domain, xml: disk.replace('vdb', 'vdz'), flags: ['live'] }));
          await libvirt.domainDetachDeviceFlags({ domain, xml: disk, flags: ['config'] });
          assert.equal(readDomain(await libvirt.domainGetXmlDesc({ domain, flags: ['inactive'] })).disks.length, 0);
        });
      });
    },
  },
  {
    name: 'refuses to plug into what is off, live',
    run: async (bench) => {
      const { libvirt } = bench;
      await withDomain(bench, {}, async (domain) => {
        await refused(errorCodes.operationInvalid, libvirt.domainAttachDeviceFlags({ domain, xml: `<interface type='user'/>`, flags: ['live'] }));
      });
    },
  },
  {
    name: 'knows the size of a disk, and what it is asked of a disk that is not there',
    run: (bench) =>
      withDisk(bench, async (domain, path) => {
        const { libvirt } = bench;
        assert.equal((await libvirt.domainGetBlockInfo({ domain, path: 'vda' })).capacityBytes, 64 * mib);
        assert.equal((await libvirt.domainGetBlockInfo({ domain, path })).capacityBytes, 64 * mib);
        await refused(errorCodes.invalidArgument, libvirt.domainGetBlockInfo({ domain, path: 'vdq' }));
        await libvirt.domainBlockResize({ domain, disk: 'vda', size: 128 * mib, flags: ['bytes'] });
        assert.equal((await libvirt.domainGetBlockInfo({ domain, path: 'vda' })).capacityBytes, 128 * mib);
        const stats = await libvirt.domainBlockStats({ domain, path: 'vda' });
        assert.equal(stats.errors, -1n);
        const fields = await libvirt.domainBlockStatsFlags({ domain, path: 'vda' });
        assert.equal(typeof fields.rd_bytes, 'bigint');
        assert.equal(await libvirt.domainGetBlockJobInfo({ domain, disk: 'vda' }), null);
        await refused(errorCodes.invalidArgument, libvirt.domainBlockJobAbort({ domain, disk: 'vda' }));
      }),
  },
  {
    name: 'puts overlays on a disk by external snapshots, and commits them while the guest runs',
    run: (bench) =>
      withDisk(bench, async (domain) => {
        const { libvirt } = bench;
        const snapshot = (name: string) => `<domainsnapshot><name>${name}</name></domainsnapshot>`;
        assert.equal(await libvirt.domainHasCurrentSnapshot({ domain }), false);
        await refused(errorCodes.noDomainSnapshot, libvirt.domainSnapshotCurrent({ domain }));
        await libvirt.domainSnapshotCreateXml({ domain, xml: snapshot('one'), flags: ['diskOnly', 'atomic'] });
        await libvirt.domainSnapshotCreateXml({ domain, xml: snapshot('two'), flags: ['diskOnly', 'atomic'] });
        // The overlay's file is looked at first, and then the name.
        await refused(errorCodes.configUnsupported, libvirt.domainSnapshotCreateXml({ domain, xml: snapshot('two'), flags: ['diskOnly', 'atomic'] }));
        const elsewhere = `<disks><disk name='vda' snapshot='external'><source file='${bench.folder}/${bench.unique('overlay')}'/></disk></disks>`;
        await refused(errorCodes.operationFailed, libvirt.domainSnapshotCreateXml({ domain, xml: snapshot('two').replace('</name>', `</name>${elsewhere}`), flags: ['diskOnly', 'atomic'] }));
        assert.deepEqual(await chainOf(libvirt, domain), ['base.two', 'base.one', 'base.qcow2']);
        assert.deepEqual((await libvirt.domainListAllSnapshots({ domain })).map((one) => one.name).sort(), ['one', 'two']);
        assert.deepEqual((await libvirt.domainListAllSnapshots({ domain, filter: ['roots'] })).map((one) => one.name), ['one']);
        assert.deepEqual((await libvirt.domainListAllSnapshots({ domain, filter: ['leaves'] })).map((one) => one.name), ['two']);
        assert.deepEqual((await libvirt.domainSnapshotListAllChildren({ snapshot: { name: 'one', domain } })).map((one) => one.name), ['two']);
        assert.equal((await libvirt.domainSnapshotCurrent({ domain })).name, 'two');
        assert.equal((await libvirt.domainSnapshotGetParent({ snapshot: { name: 'two', domain } })).name, 'one');
        await refused(errorCodes.noDomainSnapshot, libvirt.domainSnapshotGetParent({ snapshot: { name: 'one', domain } }));
        await refused(errorCodes.noDomainSnapshot, libvirt.domainSnapshotLookupByName({ domain, name: 'three' }));
        const xml = parseXml(await libvirt.domainSnapshotGetXmlDesc({ snapshot: { name: 'two', domain } }));
        assert.deepEqual(['name', 'state'].map((word) => textOf(childOf(xml, word))), ['two', 'disk-snapshot']);
        assert.equal(textOf(childOf(xml, 'parent', 'name')), 'one');
        assert.equal(childOf(xml, 'disks', 'disk')?.attributes['snapshot'], 'external');
        await refused(errorCodes.configUnsupported, libvirt.domainRevertToSnapshot({ snapshot: { name: 'one', domain } }));

        const events = await recorded(bench, libvirt, ['blockJob'], domain);
        await libvirt.domainBlockCommit({ domain, disk: 'vda', flags: ['active', 'shallow'] });
        await events.until(['vda activeCommit ready']);
        const job = await libvirt.domainGetBlockJobInfo({ domain, disk: 'vda' });
        assert.deepEqual([job?.type, job?.current === job?.end], ['activeCommit', true]);
        await libvirt.domainBlockJobAbort({ domain, disk: 'vda', flags: ['pivot'] });
        await events.until(['vda activeCommit ready', 'vda activeCommit completed']);
        assert.deepEqual(await chainOf(libvirt, domain), ['base.one', 'base.qcow2']);
        await libvirt.domainBlockPull({ domain, disk: 'vda' });
        await events.until(['vda activeCommit ready', 'vda activeCommit completed', 'vda pull completed']);
        assert.deepEqual(await chainOf(libvirt, domain), ['base.one']);
        await events.close();

        for (const name of ['two', 'one']) await libvirt.domainSnapshotDelete({ snapshot: { name, domain }, flags: ['metadataOnly'] });
        assert.deepEqual(await libvirt.domainListAllSnapshots({ domain }), []);
      }),
  },
  {
    name: 'does not forget a domain that has snapshots unless told so',
    run: (bench) =>
      withDisk(bench, async (domain) => {
        const { libvirt } = bench;
        await libvirt.domainSnapshotCreateXml({ domain, xml: '<domainsnapshot><name>s</name></domainsnapshot>', flags: ['diskOnly'] });
        await libvirt.domainDestroyFlags({ domain });
        await refused(errorCodes.operationInvalid, libvirt.domainUndefineFlags({ domain }));
        await libvirt.domainUndefineFlags({ domain, flags: ['snapshotsMetadata'] });
        await refused(errorCodes.noDomain, libvirt.domainGetState({ domain }));
      }),
  },
  {
    name: 'returns to an internal snapshot',
    run: (bench) =>
      withDisk(bench, async (domain) => {
        const { libvirt } = bench;
        const events = await recorded(bench, libvirt, ['lifecycle'], domain);
        await libvirt.domainSnapshotCreateXml({ domain, xml: '<domainsnapshot><name>s</name></domainsnapshot>' });
        await events.until(['suspended paused', 'resumed unpaused']);
        await libvirt.domainDestroyFlags({ domain });
        await libvirt.domainRevertToSnapshot({ snapshot: { name: 's', domain } });
        assert.deepEqual(await libvirt.domainGetState({ domain }), { state: 'running', reason: 'fromSnapshot' });
        await eventually(() => events.told().includes('started fromSnapshot'));
        assert.equal((await libvirt.domainSnapshotCurrent({ domain })).name, 's');
        await events.close();
        await libvirt.domainSnapshotDelete({ snapshot: { name: 's', domain } });
        assert.equal(await libvirt.domainHasCurrentSnapshot({ domain }), false);
      }),
  },
  {
    name: 'copies a disk that is in use, and gives the copy up',
    run: (bench) =>
      withDisk(bench, async (domain) => {
        const { libvirt } = bench;
        const events = await recorded(bench, libvirt, ['blockJob'], domain);
        const copy = `${bench.folder}/${bench.unique('copy')}.qcow2`;
        await libvirt.domainBlockCopy({ domain, disk: 'vda', xml: `<disk type='file'><source file='${copy}'/><driver type='qcow2'/></disk>`, flags: ['transientJob'] });
        await events.until(['vda copy ready']);
        await refused(errorCodes.blockCopyActive, libvirt.domainBlockPull({ domain, disk: 'vda' }));
        await libvirt.domainBlockJobAbort({ domain, disk: 'vda' });
        await events.until(['vda copy ready', 'vda copy canceled']);
        assert.deepEqual(await chainOf(libvirt, domain), ['base.qcow2']);
        await events.close();
      }),
  },
  {
    name: 'marks checkpoints, and backs a disk up while the guest runs',
    run: (bench) =>
      withDisk(bench, async (domain) => {
        const { libvirt } = bench;
        await libvirt.domainCheckpointCreateXml({ domain, xml: '<domaincheckpoint><name>one</name></domaincheckpoint>' });
        await refused(errorCodes.operationFailed, libvirt.domainCheckpointCreateXml({ domain, xml: '<domaincheckpoint><name>one</name></domaincheckpoint>' }));
        await refused(errorCodes.noDomainCheckpoint, libvirt.domainCheckpointLookupByName({ domain, name: 'two' }));
        await refused(104, libvirt.domainBackupGetXmlDesc({ domain }));
        await refused(errorCodes.operationInvalid, libvirt.domainAbortJob({ domain }));
        const events = await recorded(bench, libvirt, ['jobCompleted', 'blockJob'], domain);
        const target = `${bench.folder}/${bench.unique('backup')}.qcow2`;
        await libvirt.domainBackupBegin({
          domain,
          xml: `<domainbackup mode='push'><disks><disk name='vda' type='file'><target file='${target}'/><driver type='qcow2'/></disk></disks></domainbackup>`,
          checkpointXml: '<domaincheckpoint><name>two</name></domaincheckpoint>',
        });
        await events.until(['jobCompleted', 'vda backup completed']);
        await events.close();
        const job = await libvirt.domainGetJobStats({ domain, flags: ['completed'] });
        assert.deepEqual([job.type, job.stats.operation, job.stats.disk_total, job.stats.disk_remaining, job.stats.success], ['completed', 9, 64 * mib, 0, true]);
        assert.equal((await libvirt.domainGetJobInfo({ domain })).type, 'none');
        assert.equal((await libvirt.domainCheckpointGetParent({ checkpoint: { name: 'two', domain } })).name, 'one');
        assert.deepEqual((await libvirt.domainListAllCheckpoints({ domain, filter: ['leaves'] })).map((one) => one.name), ['two']);
        const xml = parseXml(await libvirt.domainCheckpointGetXmlDesc({ checkpoint: { name: 'two', domain }, flags: ['noDomain'] }));
        assert.deepEqual(childOf(xml, 'disks', 'disk')?.attributes, { name: 'vda', checkpoint: 'bitmap', bitmap: 'two' });
        for (const name of ['one', 'two']) await libvirt.domainCheckpointDelete({ checkpoint: { name, domain } });
        assert.deepEqual(await libvirt.domainListAllCheckpoints({ domain }), []);
        await libvirt.domainDestroyFlags({ domain });
        await refused(errorCodes.operationUnsupported, libvirt.domainCheckpointCreateXml({ domain, xml: '<domaincheckpoint/>' }));
      }),
  },
  {
    name: 'keeps pools and volumes, and says what it does not have',
    run: async (bench) => {
      const { libvirt } = bench;
      const events = await libvirt.storagePoolEvents();
      const told: string[] = [];
      const reading = (async () => {
        for await (const event of events) if (event.kind === 'lifecycle') told.push(event.event);
      })();
      await withPool(bench, async (pool, path) => {
        assert.deepEqual(await libvirt.storagePoolLookupByName({ name: pool.name }), pool);
        await refused(errorCodes.operationInvalid, libvirt.storagePoolCreate({ pool }));
        await refused(errorCodes.operationInvalid, libvirt.storagePoolUndefine({ pool }));
        const volume = await libvirt.storageVolCreateXml({ pool, xml: volumeXml('v', 4) });
        assert.deepEqual(volume, { pool: pool.name, name: 'v', key: `${path}/v` });
        await refused(errorCodes.storageVolumeExists, libvirt.storageVolCreateXml({ pool, xml: volumeXml('v', 4) }));
        await refused(errorCodes.noStorageVolume, libvirt.storageVolLookupByName({ pool, name: 'w' }));
        await refused(errorCodes.noStorageVolume, libvirt.storageVolLookupByPath({ path: '/no/such/volume' }));
        assert.deepEqual(await libvirt.storagePoolListAllVolumes({ pool }), [volume]);
        assert.equal((await libvirt.storageVolGetInfo({ volume })).capacityBytes, 4 * mib);
        assert.equal(await libvirt.storageVolGetPath({ volume }), `${path}/v`);
        assert.deepEqual(await libvirt.storageVolLookupByPath({ path: `${path}/v` }), volume);
        const info = await libvirt.storagePoolGetInfo({ pool });
        assert.equal(info.state, 'running');
        assert.ok(info.capacityBytes > 0 && info.availableBytes <= info.capacityBytes);
        await libvirt.storageVolDelete({ volume });
        assert.deepEqual(await libvirt.storagePoolListAllVolumes({ pool }), []);
        await libvirt.storagePoolDestroy({ pool });
        await refused(errorCodes.operationInvalid, libvirt.storagePoolListAllVolumes({ pool }));
        await libvirt.storagePoolDelete({ pool });
        await libvirt.storagePoolUndefine({ pool });
        await refused(errorCodes.noStoragePool, libvirt.storagePoolLookupByName({ name: pool.name }));
        await eventually(() => told.length >= 6).catch(() => undefined);
        assert.deepEqual(told, ['defined', 'created', 'started', 'stopped', 'deleted', 'undefined']);
      });
      await events.close();
      await reading;
    },
  },
  {
    name: 'resizes a volume, not below what it holds',
    run: (bench) =>
      withPool(bench, async (pool) => {
        const { libvirt } = bench;
        const volume = await libvirt.storageVolCreateXml({ pool, xml: volumeXml('v', 4) });
        await libvirt.storageVolResize({ volume, capacityBytes: 8 * mib });
        assert.equal((await libvirt.storageVolGetInfo({ volume })).capacityBytes, 8 * mib);
        await refused(errorCodes.invalidArgument, libvirt.storageVolResize({ volume, capacityBytes: mib }));
      }),
  },
  {
    name: 'takes the bytes of a volume and gives them back, holes as holes',
    run: (bench) =>
      withPool(bench, async (pool) => {
        const { libvirt } = bench;
        const volume = await libvirt.storageVolCreateXml({ pool, xml: volumeXml('v', 4, 'raw', '<allocation>0</allocation>') });
        const data = Buffer.alloc(4 * mib);
        for (let at = mib; at < 2 * mib; at += 1) data[at] = (at * 31) % 251;
        await pipeline(Readable.from([data]), await libvirt.storageVolUpload({ volume }));
        const sum = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');
        assert.equal(sum(await buffer(await libvirt.storageVolDownload({ volume }))), sum(data));
        assert.equal(sum(await buffer(await libvirt.storageVolDownload({ volume, offset: mib, length: 65_536 }))), sum(data.subarray(mib, mib + 65_536)));
        const sparse = await libvirt.storageVolCreateXml({ pool, xml: volumeXml('sparse', 4, 'raw', '<allocation>0</allocation>') });
        const upload = await libvirt.storageVolUpload({ volume: sparse, flags: ['sparse'] });
        upload.writeHole(mib);
        upload.write(data.subarray(mib, 2 * mib));
        upload.writeHole(2 * mib);
        await new Promise<void>((resolve, reject) => upload.once('error', reject).end(() => resolve()));
        await closed(upload);
        let holes = 0;
        const parts: Buffer[] = [];
        for await (const segment of (await libvirt.storageVolDownload({ volume: sparse, flags: ['sparse'] })).segments()) {
          if ('holeBytes' in segment) holes += segment.holeBytes;
          parts.push('holeBytes' in segment ? Buffer.alloc(segment.holeBytes) : segment);
        }
        assert.equal(holes, 3 * mib);
        assert.equal(sum(Buffer.concat(parts)), sum(data));
        const over = await libvirt.storageVolUpload({ volume, length: 4 * mib });
        await assert.rejects(pipeline(Readable.from([Buffer.alloc(5 * mib, 1)]), over), (error) => error instanceof LibvirtError && error.code === errorCodes.systemError);
        await cleaned(libvirt, [volume, sparse]);
      }),
  },
  {
    name: 'keeps secrets, and tells of them',
    run: async (bench) => {
      const { libvirt } = bench;
      const usage = `/${bench.unique('secret')}`;
      const events = await libvirt.secretEvents();
      const told: string[] = [];
      const reading = (async () => {
        for await (const event of events) told.push(event.kind === 'lifecycle' ? event.event : event.kind);
      })();
      const secret = await libvirt.secretDefineXml({ xml: `<secret ephemeral='no' private='no'><usage type='volume'><volume>${usage}</volume></usage></secret>` });
      assert.deepEqual([secret.usage, secret.usageId], ['volume', usage]);
      await refused(errorCodes.noSecret, libvirt.secretGetValue({ secret }));
      await libvirt.secretSetValue({ secret, value: Buffer.from('value') });
      assert.equal((await libvirt.secretGetValue({ secret })).toString(), 'value');
      assert.deepEqual(await libvirt.secretLookupByUsage({ usage: 'volume', usageId: usage }), secret);
      const xml = parseXml(await libvirt.secretGetXmlDesc({ secret }));
      assert.deepEqual([xml.attributes, textOf(childOf(xml, 'uuid')), textOf(childOf(xml, 'usage', 'volume'))], [{ ephemeral: 'no', private: 'no' }, secret.uuid, usage]);
      const listed = async (filter: 'private' | 'noPrivate') => (await libvirt.connectListAllSecrets({ filter: [filter] })).some((one) => one.uuid === secret.uuid);
      assert.deepEqual([await listed('private'), await listed('noPrivate')], [false, true]);
      await libvirt.secretUndefine({ secret });
      await refused(errorCodes.noSecret, libvirt.secretLookupByUuid({ uuid: secret.uuid }));
      await eventually(() => told.length >= 3).catch(() => undefined);
      assert.deepEqual(told, ['defined', 'valueChanged', 'undefined']);
      await events.close();
      await reading;
    },
  },
  {
    name: 'keeps networks, starts and stops them, and changes them while they run',
    run: async (bench) => {
      const { libvirt } = bench;
      const events = await libvirt.networkEvents();
      const told: string[] = [];
      const reading = (async () => {
        for await (const event of events) if (event.kind === 'lifecycle') told.push(event.event);
      })();
      const name = bench.unique('net');
      const defined = await libvirt.networkDefineXml({ xml: network(name, 231) });
      assert.deepEqual(await libvirt.networkLookupByName({ name }), defined);
      assert.equal(await libvirt.networkIsActive({ network: defined }), false);
      await libvirt.networkCreate({ network: defined });
      await refused(errorCodes.operationInvalid, libvirt.networkCreate({ network: defined }));
      assert.equal(await libvirt.networkGetBridgeName({ network: defined }), 'cvc231');
      await libvirt.networkUpdate({ network: defined, command: 'addLast', section: 'ipDhcpHost', xml: `<host mac='52:54:00:00:00:09' ip='192.168.231.30'/>`, flags: ['live', 'config'] });
      assert.match(await libvirt.networkGetXmlDesc({ network: defined }), /192\.168\.231\.30/);
      assert.deepEqual(await libvirt.networkGetDhcpLeases({ network: defined }), []);
      await libvirt.networkSetAutostart({ network: defined, autostart: true });
      assert.equal(await libvirt.networkGetAutostart({ network: defined }), true);
      await libvirt.networkDestroy({ network: defined });
      await refused(errorCodes.operationInvalid, libvirt.networkDestroy({ network: defined }));
      await libvirt.networkUndefine({ network: defined });
      await refused(errorCodes.noNetwork, libvirt.networkLookupByName({ name }));
      await eventually(() => told.length >= 4).catch(() => undefined);
      assert.deepEqual(told, ['defined', 'started', 'stopped', 'undefined']);
      await events.close();
      await reading;
    },
  },
  {
    name: 'does not start a domain whose network is off or not there',
    run: async (bench) => {
      const { libvirt } = bench;
      const name = bench.unique('net');
      const defined = await libvirt.networkDefineXml({ xml: network(name, 232) });
      try {
        const nic = (on: string) => `<interface type='network'><source network='${on}'/><model type='virtio'/></interface>`;
        await withDomain(bench, { devices: nic(name) }, async (domain) => refused(errorCodes.operationInvalid, libvirt.domainCreateWithFlags({ domain })));
        await withDomain(bench, { devices: nic(`${name}-none`) }, async (domain) => refused(errorCodes.noNetwork, libvirt.domainCreateWithFlags({ domain })));
      } finally {
        await libvirt.networkUndefine({ network: defined });
      }
    },
  },
  {
    name: 'has no agent to talk to in a guest that is not up',
    run: async (bench) => {
      const { libvirt } = bench;
      await withDomain(bench, { devices: `<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>` }, async (domain) => {
        await libvirt.domainCreateWithFlags({ domain, flags: ['paused'] });
        const calls = [
          () => libvirt.domainAgentCommand({ domain, command: '{"execute":"guest-ping"}', timeout: 1 }),
          () => libvirt.domainFsfreeze({ domain }),
          () => libvirt.domainInterfaceAddresses({ domain, source: 'agent' }),
          () => libvirt.domainGetHostname({ domain, flags: ['agent'] }),
          () => libvirt.domainGetHostname({ domain }),
          () => libvirt.domainGetFsinfo({ domain }),
          () => libvirt.domainFstrim({ domain }),
          () => libvirt.domainSetTime({ domain, seconds: 1_700_000_000 }),
          () => libvirt.domainSetUserPassword({ domain, user: 'root', password: 'x' }),
        ];
        await refused(noHostname, libvirt.domainGetHostname({ domain, flags: ['lease'] }));
        await refused(argumentUnsupported, libvirt.domainFstrim({ domain, mountpoint: '/' }));
        assert.equal(await libvirt.domainAgentSetResponseTimeout({ domain, timeout: 3 }), 0);
        await refused(errorCodes.invalidArgument, libvirt.domainAgentSetResponseTimeout({ domain, timeout: -3 }));
        for (const call of calls) await refused(errorCodes.operationInvalid, call());
        await libvirt.domainResume({ domain });
        for (const call of calls) await refused(errorCodes.agentUnresponsive, call());
      });
    },
  },
  {
    name: 'has no screen and no console where there is none',
    run: async (bench) => {
      const { libvirt } = bench;
      await withDomain(bench, {}, async (domain) => {
        await libvirt.domainCreateWithFlags({ domain });
        await refused(errorCodes.operationInvalid, libvirt.domainScreenshot({ domain }));
        await refused(errorCodes.internal, libvirt.domainOpenConsole({ domain }));
      });
    },
  },
  {
    name: 'boots a guest whose agent answers, with a console and a screen, and shuts it down',
    run: async (bench) => {
      const { libvirt } = bench;
      const disk = await bench.bootDisk(bench.unique('boot'));
      const devices = `<serial type='pty'/><channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
        <graphics type='vnc' socket='${bench.folder}/${bench.unique('vnc')}'/><video><model type='vga'/></video>`;
      await withDomain(bench, { memory: `<memory unit='MiB'>128</memory>`, disks: [{ path: disk, target: 'vda' }], devices }, async (domain) => {
        const events = await recorded(bench, libvirt, ['lifecycle', 'reboot', 'rtcChange'], domain);
        await libvirt.domainCreateWithFlags({ domain });
        const terminal = await libvirt.domainOpenConsole({ domain, flags: ['force'] });
        let said = '';
        terminal.on('data', (bytes: Buffer) => (said += bytes.toString('latin1')));
        await eventually(() => libvirt.domainAgentCommand({ domain, command: '{"execute":"guest-ping"}', timeout: 1 }).then((answer) => answer === '{"return":{}}', () => false), 90_000);
        await eventually(() => {
          terminal.write('\r');
          return /login: /.test(said);
        }, 30_000);
        terminal.destroy();
        await closed(terminal);
        const picture = await libvirt.domainScreenshot({ domain });
        const bytes = await buffer(picture);
        assert.equal(picture.answer, 'image/png');
        assert.deepEqual([...bytes.subarray(1, 4)], [0x50, 0x4e, 0x47]);
        await refused(errorCodes.internal, libvirt.domainAgentCommand({ domain, command: '{"execute":"no-such-command"}', timeout: 5 }));
        assert.ok((await libvirt.domainGetTime({ domain })).seconds > 1_600_000_000);
        assert.ok((await libvirt.domainInterfaceAddresses({ domain, source: 'agent' })).some((one) => one.name === 'lo' && one.addresses.some((address) => address.address === '127.0.0.1')));
        const info = await libvirt.domainGetGuestInfo({ domain, kinds: ['hostname'] });
        assert.equal(typeof info['hostname'], 'string');
        assert.equal(await libvirt.domainGetHostname({ domain, flags: ['agent'] }), info['hostname']);
        const filesystems = await libvirt.domainGetFsinfo({ domain });
        assert.ok(filesystems.length > 0 && filesystems.every((one) => one.mountpoint.startsWith('/') && one.name !== '' && one.type !== '' && one.devices.includes('vda')));
        await libvirt.domainFstrim({ domain });
        const later = 1_900_000_000;
        await libvirt.domainSetTime({ domain, seconds: later });
        await eventually(() => events.told().includes('rtcChange'));
        for (const flags of [[], ['sync']] as const) {
          if (flags.length > 0) await libvirt.domainSetTime({ domain, flags });
          const { seconds } = await libvirt.domainGetTime({ domain });
          assert.ok(seconds >= later && seconds < later + 600, String(seconds));
        }
        await libvirt.domainSetUserPassword({ domain, user: 'root', password: 'x' });
        await refused(errorCodes.internal, libvirt.domainSetUserPassword({ domain, user: 'stranger', password: 'x' }));
        // How many there are is the guest's affair; all of them come back.
        const frozen = await libvirt.domainFsfreeze({ domain });
        assert.equal(await libvirt.domainFsthaw({ domain }), frozen);
        await libvirt.domainReset({ domain });
        await eventually(() => events.told().includes('reboot'));
        await eventually(() => libvirt.domainAgentCommand({ domain, command: '{"execute":"guest-ping"}', timeout: 1 }).then(() => true, () => false), 90_000);
        await libvirt.domainShutdownFlags({ domain });
        await eventually(async () => (await libvirt.domainGetState({ domain })).state === 'shutoff', 60_000);
        assert.deepEqual(await libvirt.domainGetState({ domain }), { state: 'shutoff', reason: 'shutdown' });
        await eventually(() => events.told().includes('stopped shutdown'));
        assert.deepEqual(events.told().slice(-2), ['shutdown guest', 'stopped shutdown']);
        await events.close();
      });
    },
  },
  {
    name: 'migrates a guest to another daemon , which both tell in order',
    run: async (bench) => {
      const { libvirt, other } = bench;
      assert.ok(other !== undefined, 'needs another daemon');
      await withDomain(bench, {}, async (defined) => {
        const domain = await libvirt.domainCreateWithFlags({ domain: defined });
        await refused(errorCodes.systemError, libvirt.domainMigratePerform3Params({ domain, destination: 'qemu+unix:///session?socket=/no/such/socket', flags: ['live', 'peer2peer'] }));
        const here = await recorded(bench, libvirt, ['lifecycle', 'jobCompleted'], domain);
        const there = await recorded(bench, other.libvirt, ['lifecycle', 'jobCompleted'], domain);
        try {
          await libvirt.domainMigratePerform3Params({ domain, destination: other.uri, parameters: { migrate_uri: 'tcp:127.0.0.1' }, flags: ['live', 'peer2peer'] }, { timeoutMs: 60_000 });
          await here.until(['suspended migrated', 'stopped migrated', 'jobCompleted']);
          await there.until(['started migrated', 'resumed migrated']);
          assert.deepEqual(await libvirt.domainGetState({ domain }), { state: 'shutoff', reason: 'migrated' });
          assert.deepEqual(await other.libvirt.domainGetState({ domain }), { state: 'running', reason: 'migrated' });
          assert.equal(await other.libvirt.domainIsPersistent({ domain }), false);
          const arrived = await other.libvirt.domainGetJobStats({ domain, flags: ['completed'] });
          assert.deepEqual([arrived.type, arrived.stats.operation, arrived.stats.memory_remaining], ['completed', 4, 0]);
        } finally {
          await other.libvirt.domainDestroyFlags({ domain }).catch(() => undefined);
          await Promise.all([here.close(), there.close()]);
        }
      });
    },
  },
  {
    name: 'tells more of a domain and of what it could be',
    run: async (bench) => {
      const { libvirt } = bench;
      assert.ok((await libvirt.connectGetHostname()).length > 0);
      assert.ok((await libvirt.connectGetMaxVcpus({ virtualisation: 'qemu' })) > 1);
      assert.ok((await libvirt.connectGetCpuModelNames({ architecture: 'x86_64' })).includes('qemu64'));
      assert.equal(parseXml(await libvirt.connectGetDomainCapabilities({ virtualisation: 'qemu' })).name, 'domainCapabilities');
      assert.ok(((await libvirt.nodeGetCellsFreeMemory())[0] ?? 0) > 0);
      assert.equal(typeof (await libvirt.nodeGetSecurityModel()).model, 'string');
      await withDomain(bench, { vcpu: `<vcpu current='1'>2</vcpu>` }, async (defined) => {
        const domain = await libvirt.domainCreateWithFlags({ domain: defined });
        assert.equal(await libvirt.domainGetOsType({ domain }), 'hvm');
        assert.deepEqual(await libvirt.domainGetControlInfo({ domain }), { state: 'ok', details: 'none', stateTimeMs: 0 });
        assert.equal(await libvirt.domainGetMaxVcpus({ domain }), 2);
        assert.deepEqual((await libvirt.domainGetVcpus({ domain })).map(({ vcpu, state }) => ({ vcpu, state })), [{ vcpu: 0, state: 'running' }]);
        assert.ok(((await libvirt.domainMemoryStats({ domain })).balloonKib ?? 0) > 0);
        assert.deepEqual(await libvirt.domainGetDiskErrors({ domain }), []);
        await libvirt.domainInjectNmi({ domain });
        await libvirt.domainSendKey({ domain, keys: [28] });
        await libvirt.domainReboot({ domain });
        const status = JSON.parse(await libvirt.domainMonitorCommand({ domain, command: '{"execute":"query-status"}' })) as { readonly return: { readonly status: string } };
        assert.equal(status.return.status, 'running');
        await libvirt.domainMigrateSetMaxSpeed({ domain, mibPerSecond: 77 });
        assert.equal(await libvirt.domainMigrateGetMaxSpeed({ domain }), 77);
        await libvirt.domainMigrateSetMaxDowntime({ domain, downtimeMs: 123 });
        assert.equal(await libvirt.domainMigrateGetMaxDowntime({ domain }), 123);
      });
    },
  },
  {
    name: 'understands the older forms of its calls',
    run: async (bench) => {
      const { libvirt } = bench;
      const name = bench.unique('older');
      const off = await libvirt.connectNumOfDefinedDomains();
      const domain = await libvirt.domainDefineXml({ xml: domainXml(bench, { name, vcpu: `<vcpu current='1'>2</vcpu>` }) });
      assert.equal(await libvirt.connectNumOfDefinedDomains(), off + 1);
      assert.ok((await libvirt.connectListDefinedDomains()).includes(name));
      const on = await libvirt.connectNumOfDomains();
      await libvirt.domainCreate({ domain });
      assert.equal(await libvirt.connectNumOfDomains(), on + 1);
      assert.ok((await libvirt.connectListDomains()).includes((await libvirt.domainLookupByName({ name })).id));
      await libvirt.domainAttachDevice({ domain, xml: `<interface type='user'><model type='virtio'/></interface>` });
      assert.equal(readDomain(await libvirt.domainGetXmlDesc({ domain })).interfaces.length, 1);
      await libvirt.domainSetVcpus({ domain, vcpus: 2 });
      assert.equal(await libvirt.domainGetVcpusFlags({ domain, flags: ['live'] }), 2);
      await libvirt.domainSetMemory({ domain, memoryKib: 61_440 });
      await libvirt.domainShutdown({ domain });
      await libvirt.domainDestroy({ domain });
      await libvirt.domainSetMaxMemory({ domain, memoryKib: 131_072 });
      assert.equal(await libvirt.domainGetMaxMemory({ domain }), 131_072);
      await libvirt.domainUndefine({ domain });
      await refused(errorCodes.noDomain, libvirt.domainLookupByName({ name }));
      for (const [count, list] of [
        [await libvirt.connectNumOfStoragePools(), await libvirt.connectListStoragePools()],
        [await libvirt.connectNumOfDefinedStoragePools(), await libvirt.connectListDefinedStoragePools()],
        [await libvirt.connectNumOfNetworks(), await libvirt.connectListNetworks()],
        [await libvirt.connectNumOfDefinedNetworks(), await libvirt.connectListDefinedNetworks()],
        [await libvirt.connectNumOfSecrets(), await libvirt.connectListSecrets()],
      ] as const) assert.equal(list.length, count);
    },
  },
  {
    name: 'finds a pool and a volume in every way, copies a volume and wipes it',
    run: (bench) =>
      withPool(bench, async (pool, path) => {
        const { libvirt } = bench;
        const volume = await libvirt.storageVolCreateXml({ pool, xml: volumeXml('v', 1) });
        await pipeline(Readable.from([Buffer.alloc(mib, 7)]), await libvirt.storageVolUpload({ volume }));
        assert.deepEqual(await libvirt.storagePoolLookupByUuid({ uuid: pool.uuid }), pool);
        assert.deepEqual(await libvirt.storagePoolLookupByTargetPath({ path }), pool);
        assert.deepEqual(await libvirt.storagePoolLookupByVolume({ volume }), pool);
        assert.ok((await libvirt.connectListAllStoragePools({ filter: ['active', 'dir'] })).some((one) => one.uuid === pool.uuid));
        assert.deepEqual([await libvirt.storagePoolIsActive({ pool }), await libvirt.storagePoolIsPersistent({ pool })], [true, true]);
        assert.equal(await libvirt.storagePoolNumOfVolumes({ pool }), 1);
        assert.deepEqual(await libvirt.storagePoolListVolumes({ pool }), ['v']);
        await libvirt.storagePoolSetAutostart({ pool, autostart: true });
        assert.equal(await libvirt.storagePoolGetAutostart({ pool }), true);
        await libvirt.storagePoolSetAutostart({ pool, autostart: false });
        const xml = parseXml(await libvirt.storagePoolGetXmlDesc({ pool }));
        assert.equal(textOf(childOf(xml, 'target', 'path')), path);
        assert.ok(Number(textOf(childOf(xml, 'capacity'))) > 0);
        await libvirt.storagePoolRefresh({ pool });
        assert.deepEqual(await libvirt.storageVolLookupByKey({ key: `${path}/v` }), volume);
        assert.equal((await libvirt.storageVolGetInfoFlags({ volume, flags: ['physical'] })).capacityBytes, mib);
        const described = parseXml(await libvirt.storageVolGetXmlDesc({ volume }));
        assert.deepEqual([textOf(childOf(described, 'name')), textOf(childOf(described, 'capacity')), childOf(described, 'target', 'format')?.attributes['type']], ['v', String(mib), 'raw']);
        const copy = await libvirt.storageVolCreateXmlFrom({ pool, xml: volumeXml('copy', 1), from: volume });
        assert.deepEqual(await buffer(await libvirt.storageVolDownload({ volume: copy })), Buffer.alloc(mib, 7));
        await libvirt.storageVolWipePattern({ volume: copy });
        assert.deepEqual(await buffer(await libvirt.storageVolDownload({ volume: copy })), Buffer.alloc(mib));
        await libvirt.storageVolWipe({ volume });
        assert.deepEqual(await buffer(await libvirt.storageVolDownload({ volume })), Buffer.alloc(mib));
        await cleaned(libvirt, [volume, copy]);
      }),
  },
  {
    name: 'limits a disk while its guest runs, and gives the limits back',
    run: (bench) =>
      withDisk(bench, async (domain) => {
        const { libvirt } = bench;
        assert.equal((await libvirt.domainGetBlockIoTune({ domain, disk: 'vda' })).total_bytes_sec, 0);
        await libvirt.domainSetBlockIoTune({ domain, disk: 'vda', parameters: { total_bytes_sec: mib }, flags: ['live'] });
        assert.equal((await libvirt.domainGetBlockIoTune({ domain, disk: 'vda' })).total_bytes_sec, mib);
        const limit = async (...flags: readonly ('live' | 'config')[]) => {
          const { total_bytes_sec, read_iops_sec, write_iops_sec_max } = await libvirt.domainGetBlockIoTune({ domain, disk: 'vda', flags });
          return [total_bytes_sec, read_iops_sec, write_iops_sec_max];
        };
        assert.deepEqual(await limit('config'), [0, 0, 0]);
        await libvirt.domainSetBlockIoTune({ domain, disk: 'vda', parameters: { read_iops_sec: 50 }, flags: ['config'] });
        assert.deepEqual([await limit(), await limit('config')], [[mib, 0, 0], [0, 50, 0]]);
        await refused(errorCodes.invalidArgument, libvirt.domainSetBlockIoTune({ domain, disk: 'vda', parameters: { total_bytes_sec: mib, read_bytes_sec: mib }, flags: ['live'] }));
        await refused(argumentUnsupported, libvirt.domainSetBlockIoTune({ domain, disk: 'vda', parameters: { more: { no_such_limit: { u32: 1 } } }, flags: ['live'] }));
        await refused(errorCodes.invalidArgument, libvirt.domainSetBlockIoTune({ domain, disk: 'vdq', parameters: { total_bytes_sec: 1 }, flags: ['live'] }));
        await libvirt.domainSetBlockIoTune({ domain, disk: 'vda', parameters: { total_bytes_sec: 0 }, flags: ['live'] });
        assert.deepEqual(await limit(), [0, 0, 0]);
        await libvirt.domainDestroyFlags({ domain });
        await libvirt.domainCreateWithFlags({ domain });
        assert.deepEqual(await limit(), [0, 50, 0]);
      }),
  },
  {
    name: 'migrates a guest by five calls with a client between',
    run: async (bench) => {
      const { libvirt, other } = bench;
      assert.ok(other !== undefined, 'needs another daemon');
      await withDomain(bench, {}, async (defined, name) => {
        const domain = await libvirt.domainCreateWithFlags({ domain: defined });
        // The destination goes by the name.
        const parameters = { migrate_uri: 'tcp:127.0.0.1', destination_name: name };
        const flags = ['live'] as const;
        try {
          const begun = await libvirt.domainMigrateBegin3Params({ domain, parameters, flags });
          assert.equal(readDomain(begun.xml).uuid, domain.uuid);
          const prepared = await other.libvirt.domainMigratePrepare3Params({ parameters: { ...parameters, destination_xml: begun.xml }, cookie: begun.cookie, flags });
          const performed = await libvirt.domainMigratePerform3Params({ domain, parameters: { ...parameters, migrate_uri: prepared.uri ?? parameters.migrate_uri }, cookie: prepared.cookie, flags }, { timeoutMs: 60_000 });
          const finished = await other.libvirt.domainMigrateFinish3Params({ parameters: { ...parameters, destination_xml: begun.xml }, cookie: performed.cookie, flags });
          assert.equal(finished.domain.uuid, domain.uuid);
          await libvirt.domainMigrateConfirm3Params({ domain, cookie: finished.cookie, flags });
          assert.deepEqual(await libvirt.domainGetState({ domain }), { state: 'shutoff', reason: 'migrated' });
          assert.deepEqual(await other.libvirt.domainGetState({ domain }), { state: 'running', reason: 'migrated' });
        } finally {
          await other.libvirt.domainDestroyFlags({ domain }).catch(() => undefined);
        }
      });
    },
  },
  {
    name: 'lists what there is of networks, filters, secrets and devices, in every form',
    run: async ({ libvirt }) => {
      const networks = await libvirt.connectListAllNetworks();
      assert.deepEqual(networks.map(({ name }) => name).sort(), [...(await libvirt.connectListNetworks()), ...(await libvirt.connectListDefinedNetworks())].sort());
      assert.deepEqual((await libvirt.connectListAllNetworks({ filter: ['active'] })).map(({ name }) => name).sort(), (await libvirt.connectListNetworks()).sort());
      const filters = await libvirt.connectListAllNwfilters();
      assert.deepEqual(filters.map(({ name }) => name).sort(), (await libvirt.connectListNwfilters()).sort());
      assert.equal(await libvirt.connectNumOfNwfilters(), filters.length);
      assert.deepEqual(await libvirt.connectListAllNwfilterBindings(), []);
      const devices = (await libvirt.connectListAllNodeDevices()).map(({ name }) => name);
      assert.deepEqual(devices.toSorted(), (await libvirt.nodeListDevices({})).toSorted());
      assert.equal(await libvirt.nodeNumOfDevices({}), devices.length);
      assert.deepEqual((await libvirt.connectListAllNodeDevices({ filter: ['system'] })).map(({ name }) => name), ['computer']);
      assert.deepEqual(await libvirt.nodeListDevices({ capability: 'system' }), ['computer']);
      assert.deepEqual(await libvirt.nodeDeviceLookupByName({ name: 'computer' }), { name: 'computer' });
      assert.equal(await libvirt.nodeDeviceGetParent({ name: 'computer' }), null);
      assert.equal(await libvirt.nodeDeviceIsActive({ name: 'computer' }), true);
      const computer = parseXml(await libvirt.nodeDeviceGetXmlDesc({ name: 'computer' }));
      assert.deepEqual([computer.name, textOf(childOf(computer, 'name')), childOf(computer, 'capability')?.attributes['type']], ['device', 'computer', 'system']);
      const name = 'no-such-device';
      for (const call of [() => libvirt.nodeDeviceLookupByName({ name }), () => libvirt.nodeDeviceGetXmlDesc({ name }), () => libvirt.nodeDeviceGetParent({ name }), () => libvirt.nodeDeviceIsActive({ name })]) await refused(noNodeDevice, call());
    },
  },
  {
    name: 'knows the loopback as a device and as an interface',
    run: async ({ libvirt }) => {
      const name = 'net_lo_00_00_00_00_00_00';
      const devices = (await libvirt.connectListAllNodeDevices({ filter: ['net'] })).map((one) => one.name);
      assert.ok(devices.includes(name) && devices.every((one) => one.startsWith('net_')), devices.join());
      assert.equal(await libvirt.nodeNumOfDevices({ capability: 'net' }), devices.length);
      assert.equal(await libvirt.nodeDeviceGetParent({ name }), 'computer');
      const xml = parseXml(await libvirt.nodeDeviceGetXmlDesc({ name }));
      assert.deepEqual([textOf(childOf(xml, 'parent')), childOf(xml, 'capability')?.attributes['type'], textOf(childOf(xml, 'capability', 'interface'))], ['computer', 'net', 'lo']);
      // It is among the interfaces, but not among their names.
      const interfaces = await libvirt.connectListAllInterfaces();
      assert.deepEqual(interfaces.find((one) => one.name === 'lo'), { name: 'lo', mac: '00:00:00:00:00:00' });
      const [on, off] = [await libvirt.connectListInterfaces(), await libvirt.connectListDefinedInterfaces()];
      assert.deepEqual([await libvirt.connectNumOfInterfaces(), await libvirt.connectNumOfDefinedInterfaces()], [on.length, off.length]);
      assert.deepEqual([...on, ...off].sort(), interfaces.map((one) => one.name).filter((one) => one !== 'lo').sort());
    },
  },
  {
    name: 'registers who listens, and does not know who does not',
    run: async ({ libvirt }) => {
      const events = await libvirt.nodeDeviceEvents();
      await events.close();
      const unknown = 9_999;
      for (const call of [
        () => raw(libvirt, 'connectDomainEventCallbackRegisterAny', { eventId: unknown }),
        () => raw(libvirt, 'connectNetworkEventRegisterAny', { eventId: unknown }),
        () => raw(libvirt, 'connectStoragePoolEventRegisterAny', { eventId: unknown }),
        () => raw(libvirt, 'connectSecretEventRegisterAny', { eventId: unknown }),
        () => raw(libvirt, 'connectNodeDeviceEventRegisterAny', { eventId: unknown }),
        () => raw(libvirt, 'connectDomainEventCallbackDeregisterAny', { callbackId: unknown }),
        () => raw(libvirt, 'connectNetworkEventDeregisterAny', { callbackId: unknown }),
        () => raw(libvirt, 'connectStoragePoolEventDeregisterAny', { callbackId: unknown }),
        () => raw(libvirt, 'connectSecretEventDeregisterAny', { callbackId: unknown }),
        () => raw(libvirt, 'connectNodeDeviceEventDeregisterAny', { callbackId: unknown }),
      ]) await refused(errorCodes.internal, call());
      // The client has asked for the close reason when it came. To ask for less than nothing is no mistake.
      await raw(libvirt, 'connectUnregisterCloseCallback', {});
      await raw(libvirt, 'connectUnregisterCloseCallback', {});
      await raw(libvirt, 'connectRegisterCloseCallback', {});
    },
  },
  {
    name: 'tells what QEMU says on its monitor, and that somebody spoke there',
    run: async (bench) => {
      const { libvirt } = bench;
      await withDomain(bench, {}, async (defined) => {
        const domain = await libvirt.domainCreateWithFlags({ domain: defined });
        const events = await libvirt.monitorEvents({ domain });
        const told: string[] = [];
        const reading = (async () => {
          for await (const event of events) if (event.kind === 'monitor') told.push(event.event);
        })();
        await libvirt.domainSuspend({ domain });
        await libvirt.domainResume({ domain });
        await libvirt.domainReset({ domain });
        await eventually(() => told.length >= 3, bench.patienceMs).catch(() => undefined);
        assert.deepEqual(told, ['STOP', 'RESUME', 'RESET']);
        await events.close();
        await reading;
        await refused(errorCodes.internal, raw(libvirt, 'connectDomainMonitorEventDeregister', { callbackId: 9_999 }));
        assert.deepEqual(await libvirt.domainGetMessages({ domain }), []);
        await libvirt.domainMonitorCommand({ domain, command: '{"execute":"query-status"}' });
        assert.deepEqual(await libvirt.domainGetMessages({ domain, kinds: ['tainting'] }), ['tainted: custom monitor control commands issued']);
        assert.deepEqual(await libvirt.domainGetMessages({ domain, kinds: ['deprecation'] }), []);
        await libvirt.domainDestroyFlags({ domain });
        assert.deepEqual(await libvirt.domainGetMessages({ domain }), []);
      });
    },
  },
  {
    name: 'changes a medium and a link of what is started, and not what is soldered in',
    run: (bench) =>
      withPool(bench, async (pool) => {
        const { libvirt } = bench;
        const { key } = await libvirt.storageVolCreateXml({ pool, xml: volumeXml('cd.iso', 1) });
        const drive = (file?: string) => `<disk type='file' device='cdrom'><driver name='qemu' type='raw'/>${file === undefined ? '' : `<source file='${file}'/>`}<target dev='hdc' bus='ide'/><readonly/></disk>`;
        const nic = (model: string, link: string, mac = '52:54:00:00:00:78') => `<interface type='user'><mac address='${mac}'/><model type='${model}'/><link state='${link}'/></interface>`;
        const rng = `<rng model='virtio'><backend model='random'>/dev/urandom</backend><alias name='ua-rng'/></rng>`;
        await withDomain(bench, { devices: `${drive()}${nic('virtio', 'up')}${rng}` }, async (domain) => {
          const update = (xml: string, ...flags: readonly ('live' | 'config')[]) => libvirt.domainUpdateDeviceFlags({ domain, xml, flags });
          const seen = async (...flags: readonly 'inactive'[]) => {
            const { disks, root } = readDomain(await libvirt.domainGetXmlDesc({ domain, flags }));
            const link = childOf(root, 'devices', 'interface', 'link');
            return [disks.find((disk) => disk.target === 'hdc')?.path, link?.attributes['state']];
          };
          await refused(errorCodes.operationInvalid, update(drive(key), 'live'));
          // A firmware that looks for a medium shuts the tray again.
          await libvirt.domainCreateWithFlags({ domain, flags: ['paused'] });
          await update(drive(key), 'live');
          await update(nic('virtio', 'down'), 'live', 'config');
          assert.deepEqual([await seen(), await seen('inactive')], [[key, 'down'], [undefined, 'down']]);
          await update(drive(), 'live');
          assert.deepEqual(await seen(), [undefined, 'down']);
          await refused(errorCodes.operationUnsupported, update(nic('e1000', 'down'), 'live'));
          await refused(errorCodes.deviceMissing, update(nic('virtio', 'down', '52:54:00:00:00:79'), 'live'));
          await refused(errorCodes.configUnsupported, update(rng, 'live'));
          await refused(errorCodes.operationUnsupported, update(rng, 'config'));
          await refused(errorCodes.operationUnsupported, libvirt.domainDetachDevice({ domain, xml: drive() }));
          await refused(errorCodes.deviceMissing, libvirt.domainDetachDevice({ domain, xml: drive().replace("'cdrom'", "'disk'").replace('hdc', 'vdq').replace('ide', 'virtio') }));
          // What a guest is asked to let go, it keeps until it says so: only of what will start is the answer known at once.
          await libvirt.domainDetachDeviceAlias({ domain, alias: 'ua-rng', flags: ['config'] });
          assert.equal(childOf(parseXml(await libvirt.domainGetXmlDesc({ domain, flags: ['inactive'] })), 'devices', 'rng'), undefined);
          for (const alias of ['ua-rng', 'net0']) await refused(errorCodes.internal, libvirt.domainDetachDeviceAlias({ domain, alias, flags: ['config'] }));
          // Whatever was changed.
          assert.equal(await libvirt.domainIsUpdated({ domain }), false);
        });
      }),
  },
  {
    name: 'forgets a saved state when told so',
    run: async (bench) => {
      const { libvirt } = bench;
      await withDomain(bench, {}, async (domain) => {
        await refused(errorCodes.systemError, libvirt.domainManagedSaveRemove({ domain }));
        await libvirt.domainCreateWithFlags({ domain });
        await libvirt.domainManagedSave({ domain });
        await libvirt.domainManagedSaveRemove({ domain });
        assert.equal(await libvirt.domainHasManagedSaveImage({ domain }), false);
        assert.deepEqual(await libvirt.domainGetState({ domain }), { state: 'shutoff', reason: 'saved' });
        await libvirt.domainCreateWithFlags({ domain });
        assert.deepEqual(await libvirt.domainGetState({ domain }), { state: 'running', reason: 'booted' });
      });
    },
  },
  {
    name: 'counts and names snapshots, and pulls the images between into the disk',
    run: (bench) =>
      withDisk(bench, async (domain, path) => {
        const { libvirt } = bench;
        for (const name of ['one', 'two', 'three']) await libvirt.domainSnapshotCreateXml({ domain, xml: `<domainsnapshot><name>${name}</name></domainsnapshot>`, flags: ['diskOnly', 'atomic'] });
        const expected = [
          [[], ['one', 'three', 'two']],
          [['roots'], ['one']],
          [['leaves'], ['three']],
          [['noLeaves'], ['one', 'two']],
          [['metadata'], ['one', 'three', 'two']],
          [['noMetadata'], []],
          [['diskOnly'], ['one', 'three', 'two']],
          [['active'], []],
          [['external'], ['one', 'three', 'two']],
          [['internal'], []],
        ] as const;
        for (const [filter, names] of expected) {
          assert.deepEqual((await libvirt.domainSnapshotListNames({ domain, filter })).sort(), names, filter.join());
          assert.equal(await libvirt.domainSnapshotNum({ domain, filter }), names.length, filter.join());
        }
        assert.deepEqual(await libvirt.domainSnapshotListNames({ domain, filter: ['topological'] }), ['one', 'two', 'three']);
        const at = (name: string) => ({ snapshot: { name, domain } });
        assert.deepEqual([await libvirt.domainSnapshotIsCurrent(at('two')), await libvirt.domainSnapshotIsCurrent(at('three'))], [false, true]);
        assert.equal(await libvirt.domainSnapshotHasMetadata(at('one')), true);
        for (const call of [() => libvirt.domainSnapshotHasMetadata(at('none')), () => libvirt.domainSnapshotIsCurrent(at('none'))]) await refused(errorCodes.noDomainSnapshot, call());
        await refused(errorCodes.invalidArgument, libvirt.domainBlockRebase({ domain, disk: 'vda', base: '/no/such/image' }));
        const events = await recorded(bench, libvirt, ['blockJob'], domain);
        await libvirt.domainBlockRebase({ domain, disk: 'vda', base: path.replace('base.qcow2', 'base.one') });
        await events.until(['vda pull completed']);
        assert.deepEqual(await chainOf(libvirt, domain), ['base.three', 'base.one', 'base.qcow2']);
        await events.close();
      }),
  },
  {
    name: 'copies the disk of a transient domain in the older form, at the speed that it is told, and goes on with the copy',
    run: (bench) =>
      withDisk(bench, async (domain) => {
        const { libvirt } = bench;
        const disk = 'vda';
        const copy = { domain, disk, base: `${bench.folder}/${bench.unique('copy')}.qcow2`, flags: ['copy'] } as const;
        await refused(errorCodes.operationInvalid, libvirt.domainBlockRebase(copy));
        await libvirt.domainUndefineFlags({ domain });
        await refused(errorCodes.invalidArgument, libvirt.domainBlockJobSetSpeed({ domain, disk, bandwidth: 5 }));
        const events = await recorded(bench, libvirt, ['blockJob'], domain);
        await libvirt.domainBlockRebase(copy);
        await events.until(['vda copy ready']);
        await libvirt.domainBlockJobSetSpeed({ domain, disk, bandwidth: 5 });
        assert.equal((await libvirt.domainGetBlockJobInfo({ domain, disk }))?.bandwidth, 5);
        assert.equal((await libvirt.domainGetBlockJobInfo({ domain, disk, flags: ['bandwidthBytes'] }))?.bandwidth, 5 * mib);
        await libvirt.domainBlockJobSetSpeed({ domain, disk, bandwidth: mib, flags: ['bandwidthBytes'] });
        assert.equal((await libvirt.domainGetBlockJobInfo({ domain, disk }))?.bandwidth, 1);
        await libvirt.domainBlockJobAbort({ domain, disk, flags: ['pivot'] });
        await events.until(['vda copy ready', 'vda copy completed']);
        assert.deepEqual(await chainOf(libvirt, domain), [copy.base.slice(bench.folder.length + 1)]);
        await events.close();
      }),
  },
  {
    name: 'knows what came of a checkpoint',
    run: (bench) =>
      withDisk(bench, async (domain) => {
        const { libvirt } = bench;
        for (const name of ['one', 'two', 'three']) await libvirt.domainCheckpointCreateXml({ domain, xml: `<domaincheckpoint><name>${name}</name></domaincheckpoint>` });
        const children = async (name: string, filter: readonly 'descendants'[] = []) => (await libvirt.domainCheckpointListAllChildren({ checkpoint: { name, domain }, filter })).map((one) => one.name).sort();
        assert.deepEqual([await children('one'), await children('one', ['descendants']), await children('three')], [['two'], ['three', 'two'], []]);
        await refused(errorCodes.noDomainCheckpoint, children('four'));
        await libvirt.domainCheckpointDelete({ checkpoint: { name: 'two', domain } });
        assert.deepEqual(await children('one'), ['three']);
        for (const name of ['one', 'three']) await libvirt.domainCheckpointDelete({ checkpoint: { name, domain } });
      }),
  },
  {
    name: 'is told how often to ask the balloon, and says what it has of labels, jobs and traffic',
    run: async (bench) => {
      const { libvirt } = bench;
      const device = '52:54:00:00:00:7a';
      await withDomain(bench, { devices: `<interface type='user'><mac address='${device}'/><model type='virtio'/></interface>` }, async (domain) => {
        const period = async (...flags: readonly 'inactive'[]) => childOf(parseXml(await libvirt.domainGetXmlDesc({ domain, flags })), 'devices', 'memballoon', 'stats')?.attributes['period'];
        await refused(errorCodes.invalidArgument, libvirt.domainSetMemoryStatsPeriod({ domain, seconds: -1 }));
        await refused(errorCodes.operationInvalid, libvirt.domainSetMemoryStatsPeriod({ domain, seconds: 5, flags: ['live'] }));
        await libvirt.domainSetMemoryStatsPeriod({ domain, seconds: 5 });
        assert.equal(await period(), '5');
        assert.deepEqual(await libvirt.domainGetSecurityLabelList({ domain }), []);
        await refused(errorCodes.operationInvalid, libvirt.domainAbortJobFlags({ domain }));
        await refused(errorCodes.operationInvalid, libvirt.domainInterfaceStats({ domain, device }));
        await libvirt.domainCreateWithFlags({ domain });
        await libvirt.domainSetMemoryStatsPeriod({ domain, seconds: 7, flags: ['live'] });
        assert.deepEqual([await period(), await period('inactive')], ['7', '5']);
        await libvirt.domainSetMemoryStatsPeriod({ domain, seconds: 0, flags: ['live'] });
        assert.equal(await period(), undefined);
        assert.deepEqual((await libvirt.domainGetSecurityLabelList({ domain }))[0], { label: '', enforcing: false });
        for (const flags of [[], ['postcopy']] as const) await refused(errorCodes.operationInvalid, libvirt.domainAbortJobFlags({ domain, flags }));
        // QEMU's own network has no end on the node at which somebody could count or limit.
        await refused(errorCodes.internal, libvirt.domainInterfaceStats({ domain, device }));
        await refused(errorCodes.invalidArgument, libvirt.domainInterfaceStats({ domain, device: '52:54:00:00:00:7b' }));
        await refused(errorCodes.configUnsupported, libvirt.domainSetInterfaceParameters({ domain, device, parameters: { 'inbound.average': 1 } }));
        assert.equal((await libvirt.domainGetInterfaceParameters({ domain, device }))['inbound.average'], 0);
        await refused(errorCodes.invalidArgument, libvirt.domainGetInterfaceParameters({ domain, device: '52:54:00:00:00:7b' }));
      });
    },
  },
  {
    name: 'counts at the node\'s end of an interface, and keeps the limits for what will start',
    run: async (bench) => {
      const { libvirt } = bench;
      const name = bench.unique('net');
      const network_ = await libvirt.networkCreateXml({ xml: network(name, 233) });
      const device = '52:54:00:00:00:7c';
      try {
        await withDomain(bench, { devices: `<interface type='network'><mac address='${device}'/><source network='${name}'/><model type='virtio'/></interface>` }, async (domain) => {
          await libvirt.domainSetInterfaceParameters({ domain, device, parameters: { 'inbound.average': 128, 'inbound.peak': 256 }, flags: ['config'] });
          const limits = await libvirt.domainGetInterfaceParameters({ domain, device });
          assert.deepEqual([limits['inbound.average'], limits['inbound.peak'], limits['outbound.average']], [128, 256, 0]);
          await libvirt.domainSetInterfaceParameters({ domain, device, parameters: { 'inbound.average': 0 }, flags: ['config'] });
          assert.equal((await libvirt.domainGetInterfaceParameters({ domain, device, flags: ['config'] }))['inbound.average'], 0);
          await libvirt.domainCreateWithFlags({ domain });
          const end = readDomain(await libvirt.domainGetXmlDesc({ domain })).interfaces[0]?.device;
          assert.match(end ?? '', /net\d+$/);
          for (const one of [device, end as string]) {
            const counted = await libvirt.domainInterfaceStats({ domain, device: one });
            assert.ok(Object.values(counted).every((count) => count >= 0n), one);
            assert.deepEqual([counted.rxErrors, counted.txErrors], [0n, 0n]);
          }
          await refused(errorCodes.invalidArgument, libvirt.domainInterfaceStats({ domain, device: 'vnet9999' }));
        });
      } finally {
        await libvirt.networkDestroy({ network: network_ });
      }
    },
  },
  {
    name: 'keeps a network that is gone when it stops, until it is defined',
    run: async (bench) => {
      const { libvirt } = bench;
      const name = bench.unique('net');
      const xml = network(name, 234);
      const transient = await libvirt.networkCreateXmlFlags({ xml });
      assert.deepEqual(await libvirt.networkLookupByUuid({ uuid: transient.uuid }), transient);
      assert.equal(await libvirt.networkIsPersistent({ network: transient }), false);
      assert.deepEqual(await libvirt.networkListAllPorts({ network: transient }), []);
      const listed = async (filter: 'transient' | 'persistent') => (await libvirt.connectListAllNetworks({ filter: [filter] })).some((one) => one.uuid === transient.uuid);
      assert.deepEqual([await listed('transient'), await listed('persistent')], [true, false]);
      await refused(errorCodes.operationFailed, libvirt.networkCreateXml({ xml }));
      await refused(errorCodes.operationInvalid, libvirt.networkSetAutostart({ network: transient, autostart: true }));
      await refused(errorCodes.operationInvalid, libvirt.networkUndefine({ network: transient }));
      await libvirt.networkDefineXmlFlags({ xml: xml.replace('<name>', `<uuid>${transient.uuid}</uuid><name>`), flags: ['validate'] });
      assert.equal(await libvirt.networkIsPersistent({ network: transient }), true);
      await libvirt.networkUndefine({ network: transient });
      await libvirt.networkDestroy({ network: transient });
      await refused(errorCodes.noNetwork, libvirt.networkLookupByUuid({ uuid: transient.uuid }));
      const again = await libvirt.networkCreateXml({ xml });
      await libvirt.networkDestroy({ network: again });
      await refused(errorCodes.noNetwork, libvirt.networkGetXmlDesc({ network: again }));
    },
  },
  {
    name: 'starts a pool that nobody defined, and forgets it when it stops',
    run: async (bench) => {
      const { libvirt } = bench;
      const name = bench.unique('pool');
      const path = `${bench.folder}/${name}`;
      const xml = `<pool type='dir'><name>${name}</name><target><path>${path}</path></target></pool>`;
      await refused(errorCodes.systemError, libvirt.storagePoolCreateXml({ xml }));
      const pool = await libvirt.storagePoolCreateXml({ xml, flags: ['build'] });
      assert.deepEqual([await libvirt.storagePoolIsActive({ pool }), await libvirt.storagePoolIsPersistent({ pool })], [true, false]);
      await refused(errorCodes.operationFailed, libvirt.storagePoolCreateXml({ xml }));
      await refused(errorCodes.internal, libvirt.storagePoolSetAutostart({ pool, autostart: true }));
      await libvirt.storagePoolDestroy({ pool });
      await refused(errorCodes.noStoragePool, libvirt.storagePoolLookupByName({ name }));
    },
  },
  {
    name: 'refuses flags that nobody knows, whatever it is asked',
    onlyRefusals: true,
    run: (bench) =>
      withPool(bench, async (pool) =>
        withDomain(bench, {}, async (domain) => {
          const { libvirt } = bench;
          const volume = await libvirt.storageVolCreateXml({ pool, xml: volumeXml('v', 1) });
          const off = await libvirt.storagePoolDefineXml({ xml: `<pool type='dir'><name>${bench.unique('pool')}</name><target><path>${bench.folder}/${bench.unique('off')}</path></target></pool>` });
          try {
            for (const name of flagged) {
              // What is done to a pool that is off is refused to one that is on before its flags are looked at.
              const args = { ...anything(domain), volume, from: volume, ...particular[name], pool: ['storagePoolBuild', 'storagePoolDelete'].includes(name) ? off : pool };
              await refused(errorCodes.invalidArgument, raw(libvirt, name, args, withUnknownFlag)).catch((cause: unknown) => assert.fail(`${name}: ${String(cause)}`));
            }
          } finally {
            await libvirt.storagePoolUndefine({ pool: off });
          }
          assert.deepEqual(await libvirt.domainGetState({ domain }), { state: 'shutoff', reason: 'unknown' });
        }),
      ),
  },
  {
    name: 'refuses flags that others know',
    onlyRefusals: true,
    run: (bench) =>
      withPool(bench, async (pool) => {
        const { libvirt } = bench;
        const volume = await libvirt.storageVolCreateXml({ pool, xml: volumeXml('v', 1) });
        await withDisk(bench, async (domain) => {
          const xml = `<interface type='user'/>`;
          for (const call of [
            () => libvirt.domainShutdownFlags({ domain, modes: ['initctl'] }),
            () => libvirt.domainReboot({ domain, modes: ['signal'] }),
            () => libvirt.domainAttachDeviceFlags({ domain, xml, flags: ['force'] }),
            () => libvirt.domainDetachDeviceFlags({ domain, xml, flags: ['force'] }),
            () => libvirt.domainGetVcpusFlags({ domain, flags: ['hotpluggable'] }),
            () => libvirt.domainGetHostname({ domain, flags: ['lease', 'agent'] }),
            () => libvirt.domainSnapshotCreateXml({ domain, xml: '<domainsnapshot/>', flags: ['quiesce'] }),
            () => libvirt.domainBackupBegin({ domain, xml: '<domainbackup/>', flags: ['preserveShutdownDomain'] }),
            () => libvirt.storageVolDelete({ volume, flags: ['zeroed'] }),
            () => libvirt.storageVolCreateXml({ pool, xml: volumeXml('w', 1), flags: ['reflink'] }),
          ]) await refused(errorCodes.invalidArgument, call()).catch((cause: unknown) => assert.fail(`${call.toString()}: ${String(cause)}`));
          // Without an agent in its definition nothing can be quiet.
          await refused(argumentUnsupported, libvirt.domainSnapshotCreateXml({ domain, xml: '<domainsnapshot/>', flags: ['quiesce', 'diskOnly'] }));
        });
      }),
  },
];

const closed = (stream: { readonly closed: boolean; once(event: 'close', listener: () => void): unknown }): Promise<void> => new Promise((resolve) => (stream.closed ? resolve() : void stream.once('close', resolve)));

/** A volume may be busy for a moment after its stream. */
async function cleaned(libvirt: Libvirt, volumes: readonly StorageVolume[]): Promise<void> {
  for (const volume of volumes) await eventually(() => libvirt.storageVolDelete({ volume }).then(() => true, () => false));
}
