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
import { domainStats } from './stats.ts';
import { eventually } from './testing-connections.ts';
import { childrenOf, childOf, parseXml, textOf } from './xml.ts';

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
        const events = await recorded(bench, libvirt, ['lifecycle'], domain);
        const name = bench.unique('renamed');
        await libvirt.domainRename({ domain, name });
        assert.equal((await libvirt.domainLookupByName({ name })).uuid, domain.uuid);
        await events.until(['undefined renamed', 'defined renamed']);
        await events.close();
        assert.equal(await libvirt.domainGetAutostart({ domain }), false);
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
        ];
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
        const events = await recorded(bench, libvirt, ['lifecycle', 'reboot'], domain);
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
];

const closed = (stream: { readonly closed: boolean; once(event: 'close', listener: () => void): unknown }): Promise<void> => new Promise((resolve) => (stream.closed ? resolve() : void stream.once('close', resolve)));

/** A volume may be busy for a moment after its stream. */
async function cleaned(libvirt: Libvirt, volumes: readonly StorageVolume[]): Promise<void> {
  for (const volume of volumes) await eventually(() => libvirt.storageVolDelete({ volume }).then(() => true, () => false));
}
