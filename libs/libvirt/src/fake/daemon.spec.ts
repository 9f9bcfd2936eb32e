/** The fake daemon from its client: what it shares with libvirtd is in contract.libvirt.spec.ts; here is what only it can do. */
import { PassThrough } from 'node:stream';
import { afterEach, describe, expect, it } from 'vitest';
import { connect } from '../connection.ts';
import type { ConnectOptions, Libvirt } from '../connection.ts';
import { CallTimeout, Disconnected, isNoDomain, isOperationInvalid, LibvirtError, UnsupportedError } from '../errors.ts';
import { readDomain } from '../domain-xml.ts';
import { programs } from '../procedure.ts';
import { encodePacket, messageStatus, messageType, PacketSplitter } from '../rpc.ts';
import { domainStats } from '../stats.ts';
import { Reader } from '../xdr.ts';
import type { Clock } from './clock.ts';
import { FakeDaemon, targetOf } from './daemon.ts';
import type { FakeDaemonOptions } from './daemon.ts';
import { fleet, populate } from './fleet.ts';
import { crash, powerOff } from './life.ts';

const opened: (Libvirt | FakeDaemon)[] = [];
afterEach(async () => {
  for (const one of opened.splice(0).reverse()) await one.close();
});

function fake(options: FakeDaemonOptions = {}): FakeDaemon {
  const daemon = new FakeDaemon({ guest: { bootMs: 0, shutdownMs: 0 }, jobMs: 0, ...options });
  opened.push(daemon);
  return daemon;
}
async function reach(daemon: FakeDaemon, options?: ConnectOptions): Promise<Libvirt> {
  const libvirt = await connect(targetOf(daemon), options);
  opened.push(libvirt);
  return libvirt;
}

/** A clock that stands still until it is told. */
function handClock(): Clock & { pass(ms: number): void } {
  let now = 1_700_000_000_000;
  let waiting: { at: number; run: () => void }[] = [];
  return {
    now: () => now,
    after: (ms, run) => {
      const one = { at: now + ms, run };
      waiting.push(one);
      return () => {
        waiting = waiting.filter((other) => other !== one);
      };
    },
    pass: (ms) => {
      const end = now + ms;
      for (;;) {
        const [next] = waiting.filter((one) => one.at <= end).sort((left, right) => left.at - right.at);
        if (next === undefined) break;
        waiting = waiting.filter((one) => one !== next);
        now = next.at;
        next.run();
      }
      now = end;
    },
  };
}

const turn = () => new Promise<void>((resolve) => setImmediate(resolve));

describe('a fake node', () => {
  it('comes out the same from the same seed, and otherwise not', async () => {
    const seen = async (seed: number) => {
      const clock = handClock();
      const daemon = fake({ seed, clock });
      populate(daemon.node, { domains: 3, running: true });
      clock.pass(60_000);
      const libvirt = await reach(daemon);
      return (await libvirt.connectGetAllDomainStats({ domains: [], groups: [], flags: [] })).map(domainStats);
    };
    const [first, again, other] = [await seen(7), await seen(7), await seen(8)];
    expect(again).toEqual(first);
    expect(other).not.toEqual(first);
    expect(first.map((one) => one.cpuTimeNs ?? 0n).every((time) => time > 0n && time < 120_000_000_000n)).toBe(true);
  });

  it('counts only while a domain runs, and begins again when it does', async () => {
    const clock = handClock();
    const daemon = fake({ clock });
    populate(daemon.node, { domains: 1, running: true });
    const libvirt = await reach(daemon, { keepalive: false });
    const domain = await libvirt.domainLookupByName({ name: 'vm-0' });
    const used = async () => (await libvirt.domainGetInfo({ domain })).cpuTimeNs;
    clock.pass(10_000);
    const first = await used();
    await libvirt.domainSuspend({ domain });
    clock.pass(60_000);
    expect(await used()).toBe(first);
    await libvirt.domainResume({ domain });
    clock.pass(10_000);
    expect(await used()).toBe(first * 2n);
    await libvirt.domainDestroyFlags({ domain });
    expect(await used()).toBe(0n);
  });

  it('keeps what it does not know in XML, and shows a running domain as libvirt does', async () => {
    const libvirt = await reach(fake());
    const xml = `<domain type='kvm'><name>odd</name><metadata><x:y xmlns:x="urn:x" a="&lt;&amp;&quot;"/></metadata><memory unit='MiB'>1</memory><os><type>hvm</type></os>
      <devices><tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm><disk type='file'><source file='/a'/><target dev='sdb'/></disk><interface type='bridge'><source bridge='br0'/></interface></devices></domain>`;
    const domain = await libvirt.domainDefineXmlFlags({ xml });
    const config = await libvirt.domainGetXmlDesc({ domain });
    expect(config).toContain("<backend type=\"emulator\" version=\"2.0\"/>");
    expect(readDomain(config)).toMatchObject({ id: undefined, memoryKib: 1_024, disks: [{ bus: 'scsi', format: 'raw', device: 'disk' }] });
    await libvirt.domainCreateWithFlags({ domain });
    const live = readDomain(await libvirt.domainGetXmlDesc({ domain }));
    expect(live).toMatchObject({ id: 1, disks: [{ alias: 'scsi0-0-0-1' }], interfaces: [{ device: 'vnet0', alias: 'net0' }] });
    expect(live.interfaces[0]?.mac).toMatch(/^52:54:00(:[0-9a-f]{2}){3}$/);
    expect(await libvirt.domainGetXmlDesc({ domain, flags: ['inactive'] })).toBe(config);
  });

  it('knows by its files what stands on what, and shows where a merge of the layer in use waits to be told to go over', async () => {
    const clock = handClock();
    const libvirt = await reach(fake({ clock, jobMs: 100 }));
    const domain = await libvirt.domainDefineXml({ xml: "<domain type='kvm'><name>a</name><memory>65536</memory><os><type>hvm</type></os><devices><disk type='file'><driver type='qcow2'/><source file='/images/a.qcow2'/><target dev='vda' bus='virtio'/></disk></devices></domain>" });
    await libvirt.domainCreate({ domain });
    const layer = (file: string): Promise<unknown> => libvirt.domainSnapshotCreateXml({ domain, xml: `<domainsnapshot><disks><disk name='vda'><source file='${file}'/></disk></disks></domainsnapshot>`, flags: ['diskOnly', 'atomic', 'noMetadata'] });
    const files = async (): Promise<readonly string[]> => [...(await libvirt.domainGetXmlDesc({ domain })).matchAll(/file="([^"]+)"/g)].map(([, file]) => file ?? '');
    await layer('/images/a.one.qcow2');
    await layer('/images/a.two.qcow2');
    expect(await files()).toEqual(['/images/a.two.qcow2', '/images/a.one.qcow2', '/images/a.qcow2']);
    // Its definition names the file in use; what that stands on is in the file.
    await libvirt.domainDestroy({ domain });
    await libvirt.domainDefineXml({ xml: (await libvirt.domainGetXmlDesc({ domain, flags: ['inactive'] })).replace(/<backingStore.*<\/backingStore>/s, '') });
    await libvirt.domainCreate({ domain });
    expect(await files()).toEqual(['/images/a.two.qcow2', '/images/a.one.qcow2', '/images/a.qcow2']);

    await libvirt.domainBlockCommit({ domain, disk: 'vda', base: '/images/a.one.qcow2', top: '/images/a.two.qcow2', flags: ['active'] });
    const mirror = async (): Promise<string | undefined> => /<mirror[^>]*>/.exec(await libvirt.domainGetXmlDesc({ domain }))?.[0];
    expect(await mirror()).toBe('<mirror type="file" job="active-commit"/>');
    clock.pass(100);
    expect(await mirror()).toBe('<mirror type="file" job="active-commit" ready="yes"/>');
    await libvirt.domainBlockJobAbort({ domain, disk: 'vda', flags: ['pivot'] });
    expect(await mirror()).toBeUndefined();
    expect(await files()).toEqual(['/images/a.one.qcow2', '/images/a.qcow2']);
  });

  it('has many of its kind that do not know each other', async () => {
    const daemons = fleet({ nodes: 3, population: { domains: 2 }, guest: { bootMs: 0 } });
    opened.push(...daemons);
    const libvirts = await Promise.all(daemons.map((daemon) => reach(daemon)));
    const domains = (await Promise.all(libvirts.map((libvirt) => libvirt.connectListAllDomains()))).flat();
    expect(new Set(domains.map((domain) => domain.uuid)).size).toBe(6);
    expect(await Promise.all(libvirts.map((libvirt) => libvirt.connectGetHostname()))).toEqual(['node-0', 'node-1', 'node-2']);
    await expect(libvirts[0]?.domainGetState({ domain: (domains[5] as (typeof domains)[number]) })).rejects.toSatisfy(isNoDomain);
  });
});

describe('what goes wrong on demand', () => {
  it('is time that a call takes, by the clock', async () => {
    const clock = handClock();
    const daemon = fake({ clock });
    const libvirt = await reach(daemon, { keepalive: false });
    const fault = daemon.addFault({ call: 'nodeGetInfo', effect: { kind: 'delay', ms: 500 } });
    let answered = false;
    const call = libvirt.nodeGetInfo().then(() => (answered = true));
    // Another call overtakes it.
    await libvirt.connectGetHostname();
    await turn();
    expect(answered).toBe(false);
    clock.pass(499);
    await libvirt.connectGetHostname();
    expect(answered).toBe(false);
    clock.pass(1);
    await call;
    expect(fault.struck).toBe(1);
    fault.release();
    await libvirt.nodeGetInfo();
    expect(fault.struck).toBe(1);
  });

  it('is a call that hangs, and keeps its place of the daemon\'s five until it is let go', async () => {
    const daemon = fake();
    const libvirt = await reach(daemon, { inFlightMax: 16, keepalive: false });
    const other = await reach(daemon);
    const fault = daemon.addFault({ call: 'nodeGetInfo', effect: { kind: 'hang' } });
    const hung = Array.from({ length: 5 }, () => libvirt.nodeGetInfo());
    await expect.poll(() => daemon.inFlight).toBe(5);
    // The connection is not read any more; another one is.
    await expect(libvirt.connectGetHostname({}, { timeoutMs: 50 })).rejects.toBeInstanceOf(CallTimeout);
    expect(await other.connectGetHostname()).toBe('fake');
    fault.release();
    expect((await Promise.all(hung)).map((info) => info.cpus)).toEqual([16, 16, 16, 16, 16]);
    expect(await libvirt.connectGetHostname()).toBe('fake');
    expect(daemon.inFlight).toBe(0);
  });

  it('is a guest that hangs, which delays what needs its monitor and nothing else', async () => {
    const clock = handClock();
    const daemon = fake({ clock });
    populate(daemon.node, { domains: 2, running: true });
    const libvirt = await reach(daemon, { keepalive: false });
    const [hung, well] = [await libvirt.domainLookupByName({ name: 'vm-0' }), await libvirt.domainLookupByName({ name: 'vm-1' })];
    daemon.node.hang(hung.uuid);
    const suspended = libvirt.domainSuspend({ domain: hung });
    suspended.catch(() => undefined);
    expect(await libvirt.domainGetState({ domain: hung })).toEqual({ state: 'running', reason: 'booted' });
    await libvirt.domainSuspend({ domain: well });
    expect((await libvirt.domainGetControlInfo({ domain: hung })).state).toBe('occupied');
    const stats = await libvirt.connectGetAllDomainStats({ domains: [], groups: [], flags: ['nowait'] });
    expect(stats.map((one) => domainStats(one).blocks[0]?.readBytes === undefined)).toEqual([true, false]);
    // libvirt waits half a minute for the job lock, and then no more.
    const second = libvirt.domainReset({ domain: hung });
    const refused = expect(second).rejects.toMatchObject({ code: 68 });
    await expect.poll(() => daemon.inFlight).toBe(2);
    clock.pass(30_000);
    await refused;
    // Destroying goes past the monitor; whoever waits for it hears so.
    await libvirt.domainDestroyFlags({ domain: hung });
    await expect(suspended).rejects.toMatchObject({ code: 9 });
    expect((await libvirt.domainGetState({ domain: hung })).state).toBe('shutoff');
  });

  it('is an error, as often as the seed says', async () => {
    const failures = async (seed: number) => {
      const daemon = fake({ seed });
      const libvirt = await reach(daemon);
      daemon.addFault({ call: 'nodeGetInfo', probability: 0.3, effect: { kind: 'fail', code: 38, message: 'the disk is on fire' } });
      const outcomes: boolean[] = [];
      for (let index = 0; index < 40; index += 1) outcomes.push(await libvirt.nodeGetInfo().then(() => true, (error: unknown) => !(error instanceof LibvirtError && error.reason === 'the disk is on fire')));
      return outcomes;
    };
    const [first, again, other] = [await failures(1), await failures(1), await failures(2)];
    expect(again).toEqual(first);
    expect(other).not.toEqual(first);
    const struck = first.filter((well) => !well).length;
    expect(struck).toBeGreaterThan(3);
    expect(struck).toBeLessThan(25);
  });

  it.each([{ after: false, state: 'shutoff' }, { after: true, state: 'running' }])('is a connection that breaks in the place of an answer, after the deed: $after', async ({ after, state }) => {
    const daemon = fake();
    populate(daemon.node, { domains: 1 });
    const libvirt = await reach(daemon);
    const domain = await libvirt.domainLookupByName({ name: 'vm-0' });
    daemon.addFault({ call: 'domainCreateWithFlags', times: 1, effect: { kind: 'disconnect', after } });
    await expect(libvirt.domainCreateWithFlags({ domain })).rejects.toMatchObject({ name: 'Disconnected', sent: true });
    const again = await reach(daemon);
    expect((await again.domainGetState({ domain })).state).toBe(state);
  });

  it('is a daemon that dies and comes back, with its guests or without, and events between are lost', async () => {
    const daemon = fake();
    populate(daemon.node, { domains: 2, running: true });
    const libvirt = await reach(daemon, { reconnect: { delayMsMin: 1, delayMsMax: 5 } });
    const events = await libvirt.domainEvents({ kinds: ['lifecycle'] });
    const [first, second] = [await libvirt.domainLookupByName({ name: 'vm-0' }), await libvirt.domainLookupByName({ name: 'vm-1' })];
    daemon.crash();
    await expect(connect(targetOf(daemon))).rejects.toBeInstanceOf(Disconnected);
    crash(daemon.node, daemon.node.find(first), 'process');
    daemon.restart();
    expect((await events.next()).value).toMatchObject({ kind: 'gap', because: 'reconnected' });
    await libvirt.whenConnected();
    expect(await libvirt.domainGetState({ domain: first })).toEqual({ state: 'shutoff', reason: 'crashed' });
    expect(await libvirt.domainGetState({ domain: second })).toMatchObject({ state: 'running' });
    daemon.crash({ losing: 'guests' });
    daemon.restart();
    await expect.poll(() => libvirt.domainGetState({ domain: second }).catch(() => undefined)).toEqual({ state: 'shutoff', reason: 'unknown' });
    daemon.crash({ losing: 'everything' });
    daemon.restart();
    await expect.poll(() => libvirt.connectListAllDomains().catch(() => undefined)).toEqual([]);
  });

  it('is a guest that panics, one whose QEMU dies, and one that does not shut down', async () => {
    const daemon = fake();
    populate(daemon.node, { domains: 3, running: true });
    const libvirt = await reach(daemon);
    const events = await libvirt.domainEvents({ kinds: ['lifecycle'] });
    const [panics, dies, deaf] = await Promise.all(['vm-0', 'vm-1', 'vm-2'].map((name) => libvirt.domainLookupByName({ name })));
    crash(daemon.node, daemon.node.find(panics as { uuid: string }), 'panic');
    crash(daemon.node, daemon.node.find(dies as { uuid: string }), 'process');
    const ignoring = daemon.node.find(deaf as { uuid: string });
    ignoring.behaviour = { shutdownMs: 'never' };
    await libvirt.domainShutdownFlags({ domain: ignoring.handle });
    expect((await libvirt.domainGetState({ domain: ignoring.handle })).state).toBe('running');
    powerOff(daemon.node, ignoring);
    const told: string[] = [];
    for await (const event of events) {
      if (event.kind === 'gap') throw new Error('a gap');
      told.push(`${event.domain.name} ${event.event} ${event.detail}`);
      if (told.length === 5) break;
    }
    expect(told).toEqual(['vm-0 crashed panicked', 'vm-0 stopped crashed', 'vm-1 stopped failed', 'vm-2 shutdown guest', 'vm-2 stopped shutdown']);
  });
});

describe('a fake node that was lost', () => {
  it('starts by itself what should be, and only that', async () => {
    const daemon = fake();
    populate(daemon.node, { domains: 2, running: true });
    const first = await reach(daemon);
    await first.domainSetAutostart({ domain: await first.domainLookupByName({ name: 'vm-1' }), autostart: true });
    daemon.crash({ losing: 'guests' });
    daemon.restart();
    const libvirt = await reach(daemon);
    expect((await libvirt.connectListAllDomains({ filter: ['active'] })).map((domain) => domain.name)).toEqual(['vm-1']);
    expect(await libvirt.networkIsActive({ network: await libvirt.networkLookupByName({ name: 'default' }) })).toBe(true);
  });
});

describe('a client that goes', () => {
  it('takes with it the domains that it started for as long as it is there', async () => {
    const daemon = fake();
    populate(daemon.node, { domains: 2 });
    const [staying, going] = [await reach(daemon), await reach(daemon)];
    const [kept, lost] = [await staying.domainLookupByName({ name: 'vm-0' }), await staying.domainLookupByName({ name: 'vm-1' })];
    await going.domainCreateWithFlags({ domain: kept });
    await going.domainCreateWithFlags({ domain: lost, flags: ['autodestroy'] });
    const events = await staying.domainEvents({ kinds: ['lifecycle'] });
    await going.close();
    const heard = [(await events.next()).value, (await events.next()).value];
    expect(heard).toMatchObject([{ event: 'shutdown', domain: { uuid: lost.uuid } }, { event: 'stopped', domain: { uuid: lost.uuid } }]);
    expect((await staying.domainGetState({ domain: kept })).state).toBe('running');
  });
});

describe('migration', () => {
  const nodes = async (clock: ReturnType<typeof handClock>) => {
    const daemons = fleet({ nodes: 2, population: { domains: 0 }, clock, jobMs: 1_000 }) as [FakeDaemon, FakeDaemon];
    opened.push(...daemons);
    populate(daemons[0].node, { domains: 1, running: true });
    const libvirts = [await reach(daemons[0], { keepalive: false }), await reach(daemons[1], { keepalive: false })] as const;
    return { daemons, libvirts, domain: await libvirts[0].domainLookupByName({ name: 'vm-0' }) };
  };

  it('is under way for a while, can be given up, and then the guest goes on where it was', async () => {
    const clock = handClock();
    const { libvirts: [here, there], domain } = await nodes(clock);
    const migration = here.domainMigratePerform3Params({ domain, destination: 'qemu+tcp://node-1/system', flags: ['live', 'peer2peer'] });
    const given = expect(migration).rejects.toMatchObject({ code: 78 });
    await expect.poll(() => there.domainGetState({ domain }).catch(() => undefined)).toEqual({ state: 'paused', reason: 'migration' });
    clock.pass(500);
    const job = await here.domainGetJobStats({ domain });
    expect([job.type, job.stats.memory_processed]).toEqual(['unbounded', (job.stats.memory_total ?? 0) / 2]);
    await here.domainAbortJob({ domain });
    await given;
    expect(await here.domainGetState({ domain })).toEqual({ state: 'running', reason: 'booted' });
    await expect(there.domainGetState({ domain })).rejects.toSatisfy(isNoDomain);
  });

  it('leaves the guest at its source when the destination dies', async () => {
    const clock = handClock();
    const { daemons, libvirts: [here, there], domain } = await nodes(clock);
    const migration = here.domainMigratePerform3Params({ domain, destination: 'qemu+tcp://node-1/system', flags: ['live', 'peer2peer', 'undefineSource', 'persistDest'] });
    const failed = expect(migration).rejects.toMatchObject({ code: 38 });
    await expect.poll(() => there.domainGetState({ domain }).catch(() => undefined)).toMatchObject({ state: 'paused' });
    daemons[1].crash({ losing: 'guests' });
    clock.pass(1_000);
    await failed;
    expect(await here.domainGetState({ domain })).toEqual({ state: 'running', reason: 'migrationCanceled' });
    expect(await here.domainIsPersistent({ domain })).toBe(true);
    daemons[1].restart();
    const again = await reach(daemons[1], { keepalive: false });
    await expect(again.domainGetState({ domain })).rejects.toSatisfy(isNoDomain);
  });
});

describe('towards bad clients', () => {
  /** A client that says what it likes. */
  function raw(daemon: FakeDaemon) {
    const duplex = daemon.open();
    const packets: Buffer[] = [];
    const splitter = new PacketSplitter();
    duplex.on('error', () => {});
    duplex.on('data', (chunk: Buffer) =>
      splitter.push(chunk, (packet) => {
        packets.push(packet);
        return true;
      }),
    );
    return { duplex, packets };
  }
  const call = (program: number, procedure: number, serial = 1, payload: Uint8Array = new Uint8Array()) =>
    encodePacket({ program, procedure, type: messageType.call, serial, status: messageStatus.ok }, (writer) => writer.fixedBytes(payload));
  const errorCode = (packet: Buffer | undefined) => {
    const reader = new Reader(packet as Buffer, 4);
    const [, , , type, , status] = [reader.u32(), reader.u32(), reader.i32(), reader.i32(), reader.u32(), reader.i32()];
    expect({ type, status }).toEqual({ type: messageType.reply, status: messageStatus.error });
    return { code: reader.i32(), domain: reader.i32(), message: (reader.u32(), reader.string(4_096)) };
  };

  it('says what is unknown, unsupported, undecodable, or not open yet, and goes on', async () => {
    const daemon = fake();
    const { duplex, packets } = raw(daemon);
    duplex.write(call(programs.remote, 9_999));
    duplex.write(call(0x1234, 1));
    duplex.write(call(programs.remote, 135));
    duplex.write(call(programs.remote, 23));
    duplex.write(call(programs.remote, 3));
    await expect.poll(() => packets.length).toBe(5);
    expect(packets.map(errorCode).map(({ code, domain }) => ({ code, domain }))).toEqual([{ code: 39, domain: 7 }, { code: 39, domain: 7 }, { code: 39, domain: 7 }, { code: 39, domain: 7 }, { code: 1, domain: 7 }]);
    const libvirt = await reach(daemon);
    await expect(libvirt.connectDomainXmlFromNative({ format: 'qemu-argv', config: '' })).rejects.toBeInstanceOf(UnsupportedError);
  });

  it('breaks with who breaks the framing, and with nobody else', async () => {
    const daemon = fake();
    const libvirt = await reach(daemon);
    for (const bytes of [Buffer.from([0, 0, 0, 5, 0]), Buffer.from([0xff, 0xff, 0xff, 0xff]), encodePacket({ program: programs.remote, procedure: 1, type: 99, serial: 1, status: 0 }, () => {})]) {
      const { duplex } = raw(daemon);
      const closed = new Promise((resolve) => duplex.once('close', resolve));
      duplex.write(bytes);
      await closed;
    }
    expect(await libvirt.connectGetHostname()).toBe('fake');
    expect(daemon.clients).toBe(1);
  });

  it('lives through thousands of random packets of every kind', async () => {
    const daemon = fake();
    populate(daemon.node, { domains: 1, running: true });
    let state = 12_345;
    const random = (below: number) => {
      state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
      return Math.floor((state / 4_294_967_296) * below);
    };
    for (let round = 0; round < 20; round += 1) {
      const { duplex } = raw(daemon);
      for (let index = 0; index < 200 && !duplex.destroyed; index += 1) {
        const payload = Buffer.from(Array.from({ length: random(256) }, () => (random(3) === 0 ? random(256) : 0)));
        duplex.write(encodePacket({ program: random(8) === 0 ? programs.qemu : programs.remote, procedure: random(450), type: random(20) === 0 ? random(8) : random(6) === 0 ? 3 : 0, serial: index, status: random(10) === 0 ? random(4) : 0 }, (writer) => writer.fixedBytes(payload)));
      }
      await turn();
      duplex.destroy();
    }
    const libvirt = await reach(daemon);
    expect(await libvirt.connectGetHostname()).toBe('fake');
  });

  it('drops who answers no pings, and only who asked for them is sent any', async () => {
    const clock = handClock();
    const daemon = fake({ clock, keepaliveMs: 1_000, keepaliveMisses: 2 });
    const silent = raw(daemon);
    const never = raw(daemon);
    const asked = Buffer.alloc(4);
    asked.writeInt32BE(10);
    silent.duplex.write(call(programs.remote, 60, 1, asked));
    await expect.poll(() => silent.packets.length).toBe(1);
    const closed = new Promise((resolve) => silent.duplex.once('close', resolve));
    for (let second = 0; second < 5; second += 1) {
      clock.pass(1_000);
      await turn();
    }
    await closed;
    expect(silent.packets.length).toBeGreaterThan(1);
    expect(silent.packets.slice(1).every((packet) => packet.readUInt32BE(4) === programs.keepalive)).toBe(true);
    expect(never.packets).toEqual([]);
    expect(daemon.clients).toBe(1);
    never.duplex.destroy();
  });

  it('keeps a read-only client from changing anything', async () => {
    const daemon = fake();
    populate(daemon.node, { domains: 1 });
    const libvirt = await reach(daemon, { readOnly: true });
    const domain = await libvirt.domainLookupByName({ name: 'vm-0' });
    await expect(libvirt.domainCreateWithFlags({ domain })).rejects.toMatchObject({ code: 29 });
    await expect(libvirt.networkDestroy({ network: await libvirt.networkLookupByName({ name: 'default' }) })).rejects.toMatchObject({ code: 29 });
    expect(await libvirt.domainGetState({ domain })).toEqual({ state: 'shutoff', reason: 'unknown' });
    await expect(libvirt.domainResume({ domain })).rejects.not.toSatisfy(isOperationInvalid);
  });

  it('does not let a volume take more than the node has', async () => {
    const daemon = fake({ volumeBytesMax: 262_144 });
    const libvirt = await reach(daemon);
    const pool = await libvirt.storagePoolCreateXml({ xml: `<pool type='dir'><name>p</name><target><path>/p</path></target></pool>`, flags: ['build'] });
    const volume = await libvirt.storageVolCreateXml({ pool, xml: `<volume><name>v</name><capacity unit='GiB'>1</capacity><allocation>0</allocation></volume>` });
    const stream = await libvirt.storageVolUpload({ volume });
    const failed = new Promise<Error>((resolve) => stream.once('error', resolve));
    const source = new PassThrough();
    source.pipe(stream);
    source.end(Buffer.alloc(1_048_576, 1));
    expect(await failed).toMatchObject({ code: 38 });
    await libvirt.storageVolDelete({ volume });
  });
});
