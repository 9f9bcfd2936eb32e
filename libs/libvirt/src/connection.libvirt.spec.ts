/*
 * The client against a real libvirtd of its own: the test driver for calls, errors and events, QEMU
 * (emulated, no disk, only its BIOS) for a guest's life and console, and peers that misbehave.
 */
import { createServer } from 'node:net';
import type { Server, Socket } from 'node:net';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { connect } from './connection.ts';
import type { ConnectionState, ConnectOptions, Libvirt } from './connection.ts';
import { readDomain } from './domain-xml.ts';
import { isAgentUnresponsive, isNoDomain, isNoMetadata, isNoNetwork, isOperationInvalid, isXmlRefused, LibvirtError, UnsupportedError } from './errors.ts';
import type { EventStream } from './events.ts';
import { readNetwork } from './network-xml.ts';
import { domainStats } from './stats.ts';
import type { Target } from './target.ts';
import { startLibvirtd, startSystemLibvirtd } from './testing-libvirtd.os.ts';
import type { OwnLibvirtd } from './testing-libvirtd.os.ts';

let daemon: OwnLibvirtd;
/** The test driver's state lasts as long as someone is connected. */
let anchor: Libvirt;
const opened: Libvirt[] = [];

async function reach(target: Target, options?: ConnectOptions): Promise<Libvirt> {
  const libvirt = await connect(target, options);
  opened.push(libvirt);
  return libvirt;
}

beforeAll(async () => {
  daemon = await startLibvirtd();
  anchor = await connect(daemon.testDriver, { reconnect: { delayMsMin: 20 } });
}, 60_000);

afterEach(async () => {
  await Promise.all(opened.splice(0).map((libvirt) => libvirt.close()));
});

afterAll(async () => {
  await anchor?.close();
  await daemon?.stop();
});

const testGuest = (name: string) => `<domain type='test'><name>${name}</name><memory unit='MiB'>64</memory><os><type>hvm</type></os></domain>`;

/** Reads until `done`, at most as long as a test may take. */
async function collect<E>(stream: EventStream<E>, done: (events: readonly E[]) => boolean): Promise<E[]> {
  const events: E[] = [];
  for await (const event of stream) {
    // No test of this file that collects may lose an event.
    expect(event).not.toMatchObject({ kind: 'gap' });
    events.push(event as E);
    if (done(events)) break;
  }
  return events;
}

async function until(condition: () => boolean, msMax = 10_000): Promise<void> {
  const deadline = Date.now() + msMax;
  while (!condition()) {
    if (Date.now() > deadline) throw new Error(`not so within ${msMax} ms`);
    await delay(5);
  }
}

describe('calls on the test driver', () => {
  it('describe the connection and the node', async () => {
    const libvirt = await reach(daemon.testDriver);
    expect(await libvirt.connectGetType()).toBe('TEST');
    expect(await libvirt.connectGetLibVersion()).toBeGreaterThanOrEqual(9_000_000);
    expect(await libvirt.connectGetVersion()).toBe(2);
    expect(await libvirt.connectGetHostname()).not.toBe('');
    expect(await libvirt.connectGetUri()).toBe('test:///default');
    expect(await libvirt.connectGetCapabilities()).toMatch(/^<capabilities>/);
    expect(await libvirt.nodeGetInfo()).toEqual({ model: 'i686', memoryKib: 3_145_728, cpus: 16, mhz: 1_400, numaNodes: 2, sockets: 2, cores: 2, threads: 2 });
    expect(await libvirt.nodeGetFreeMemory()).toBeGreaterThan(0);
    expect(await libvirt.connectSupportsFeature({ feature: 10 })).toBe(true);
    expect(await libvirt.connectSupportsFeature({ feature: 9_999 })).toBe(false);
  });

  it('carry a domain through its life', async () => {
    const libvirt = await reach(daemon.testDriver);
    const domain = await libvirt.domainDefineXmlFlags({ xml: testGuest('life') });
    expect(domain).toMatchObject({ name: 'life', id: -1 });
    expect(await libvirt.domainGetState({ domain })).toEqual({ state: 'shutoff', reason: 'unknown' });
    const started = await libvirt.domainCreateWithFlags({ domain });
    expect(started.id).toBeGreaterThan(0);
    // A UUID alone will do.
    expect(await libvirt.domainGetState({ domain: { uuid: domain.uuid } })).toEqual({ state: 'running', reason: 'booted' });
    expect(await libvirt.domainLookupById({ id: started.id })).toEqual(started);
    expect(await libvirt.domainLookupByName({ name: 'life' })).toEqual(started);
    expect(await libvirt.domainLookupByUuid({ uuid: domain.uuid })).toEqual(started);
    expect(await libvirt.domainIsActive({ domain })).toBe(true);
    expect(await libvirt.domainIsPersistent({ domain })).toBe(true);
    const info = await libvirt.domainGetInfo({ domain });
    expect(info).toMatchObject({ state: 'running', memoryKib: 65_536, memoryKibMax: 65_536, vcpus: 1 });
    // The test driver's clock: beyond what a number can hold.
    expect(info.cpuTimeNs).toBeGreaterThan(2n ** 53n);
    await libvirt.domainSuspend({ domain });
    expect(await libvirt.domainGetState({ domain })).toEqual({ state: 'paused', reason: 'user' });
    await libvirt.domainResume({ domain });
    await libvirt.domainReboot({ domain, modes: ['acpi'] });
    await libvirt.domainReset({ domain });
    await libvirt.domainSetAutostart({ domain, autostart: true });
    expect(await libvirt.domainGetAutostart({ domain })).toBe(true);
    await libvirt.domainShutdownFlags({ domain });
    expect(await libvirt.domainGetState({ domain })).toEqual({ state: 'shutoff', reason: 'shutdown' });
    await libvirt.domainCreateWithFlags({ domain });
    await libvirt.domainDestroyFlags({ domain, flags: ['graceful'] });
    expect(await libvirt.domainGetState({ domain })).toEqual({ state: 'shutoff', reason: 'destroyed' });
    await libvirt.domainUndefineFlags({ domain });
    const error: unknown = await libvirt.domainGetState({ domain }).catch((caught: unknown) => caught);
    expect(isNoDomain(error)).toBe(true);
    expect((error as LibvirtError).message).toMatch(/^domainGetState life: /);
  });

  it('tell the addresses of a domain', async () => {
    const libvirt = await reach(daemon.testDriver);
    const nic = `<interface type='network'><mac address='52:54:0a:00:00:09'/><source network='default'/><target dev='nic9'/></interface>`;
    const domain = await libvirt.domainCreateXml({ xml: testGuest('addressed').replace('</domain>', `<devices>${nic}</devices></domain>`) });
    const [only, ...others] = await libvirt.domainInterfaceAddresses({ domain });
    expect(others).toEqual([]);
    expect(only).toMatchObject({ name: 'nic9', mac: '52:54:0a:00:00:09', addresses: [{ kind: 'ipv4', prefix: 24 }] });
    expect(only?.addresses[0]?.address).toMatch(/^192\.168\.122\./);
    await libvirt.domainDestroyFlags({ domain });
  });

  it('find, filter and count domains', async () => {
    const libvirt = await reach(daemon.testDriver);
    const off = await libvirt.domainDefineXmlFlags({ xml: testGuest('listed-off') });
    const on = await libvirt.domainCreateXml({ xml: testGuest('listed-on') });
    const names = (domains: readonly { readonly name: string }[]) => domains.map((domain) => domain.name);
    expect(names(await libvirt.connectListAllDomains())).toEqual(expect.arrayContaining(['listed-off', 'listed-on']));
    expect(names(await libvirt.connectListAllDomains({ filter: ['inactive'] }))).toEqual(['listed-off']);
    expect(names(await libvirt.connectListAllDomains({ filter: ['transient'] }))).toEqual(['listed-on']);
    const all = await libvirt.connectGetAllDomainStats({ domains: [], groups: ['state'], flags: ['nowait'] });
    expect(all.map(domainStats).find((stats) => stats.domain.uuid === on.uuid)).toMatchObject({ state: 'running', reason: 'booted' });
    const two = await libvirt.connectGetAllDomainStats({ domains: [on, off], groups: ['state'] });
    expect(two.map(domainStats).map((stats) => stats.state)).toEqual(['running', 'shutoff']);
    await libvirt.domainDestroyFlags({ domain: on });
    await libvirt.domainUndefineFlags({ domain: off });
  });

  it('keep metadata', async () => {
    const libvirt = await reach(daemon.testDriver);
    const domain = await libvirt.domainDefineXmlFlags({ xml: testGuest('described') });
    const element = { domain, kind: 'element' as const, uri: 'urn:chronovirt', flags: ['config'] as const };
    await expect(libvirt.domainGetMetadata(element)).rejects.toSatisfy(isNoMetadata);
    await libvirt.domainSetMetadata({ ...element, metadata: '<vm id="vm_0192">ä &amp; ö</vm>', key: 'cv' });
    expect(await libvirt.domainGetMetadata(element)).toBe('<vm id="vm_0192">ä &amp; ö</vm>');
    await libvirt.domainSetMetadata({ domain, kind: 'title', metadata: 'a title', flags: ['config'] });
    const description = readDomain(await libvirt.domainGetXmlDesc({ domain, flags: ['inactive'] }));
    expect(description).toMatchObject({ name: 'described', title: 'a title', memoryKib: 65_536 });
    await libvirt.domainSetMetadata({ ...element, key: 'cv' });
    await expect(libvirt.domainGetMetadata(element)).rejects.toSatisfy(isNoMetadata);
    await libvirt.domainUndefineFlags({ domain });
  });

  it('carry a network through its life', async () => {
    const libvirt = await reach(daemon.testDriver);
    const xml = `<network><name>net-1</name><forward mode='nat'/><bridge name='virbr77'/><ip address='10.77.0.1' prefix='24'><dhcp><range start='10.77.0.2' end='10.77.0.9'/></dhcp></ip></network>`;
    const events = await libvirt.networkEvents();
    const network = await libvirt.networkDefineXml({ xml });
    await libvirt.networkCreate({ network });
    expect(await libvirt.connectListAllNetworks({ filter: ['active'] })).toContainEqual(network);
    expect(await libvirt.networkLookupByName({ name: 'net-1' })).toEqual(network);
    expect(await libvirt.networkLookupByUuid({ uuid: network.uuid })).toEqual(network);
    expect(await libvirt.networkGetBridgeName({ network })).toBe('virbr77');
    await libvirt.networkUpdate({ network, command: 'addLast', section: 'ipDhcpHost', xml: "<host mac='52:54:0a:4d:00:02' ip='10.77.0.2'/>", flags: ['live', 'config'] });
    expect(readNetwork(await libvirt.networkGetXmlDesc({ network })).addresses[0]?.dhcpHosts).toEqual([{ mac: '52:54:0a:4d:00:02', address: '10.77.0.2', name: undefined }]);
    // A host that is there already cannot be added; were two of the words swapped, the daemon would say something else.
    await expect(libvirt.networkUpdate({ network, command: 'addLast', section: 'ipDhcpHost', xml: "<host mac='52:54:0a:4d:00:02' ip='10.77.0.3'/>" })).rejects.toThrow(/existing dhcp host entry/);
    await libvirt.networkUpdate({ network, command: 'delete', section: 'ipDhcpHost', xml: "<host mac='52:54:0a:4d:00:02'/>", flags: ['live', 'config'] });
    expect(readNetwork(await libvirt.networkGetXmlDesc({ network })).addresses[0]?.dhcpHosts).toEqual([]);
    await libvirt.networkSetAutostart({ network, autostart: true });
    expect(await libvirt.networkGetAutostart({ network })).toBe(true);
    expect(await libvirt.networkIsActive({ network })).toBe(true);
    expect(await libvirt.networkIsPersistent({ network })).toBe(true);
    await expect(libvirt.networkGetDhcpLeases({ network })).rejects.toBeInstanceOf(UnsupportedError);
    await libvirt.networkDestroy({ network });
    await libvirt.networkUndefine({ network });
    await expect(libvirt.networkLookupByName({ name: 'net-1' })).rejects.toSatisfy(isNoNetwork);
    const seen = await collect(events, (all) => all.length === 4);
    expect(seen.map((event) => [event.network.name, event.event])).toEqual(['defined', 'started', 'stopped', 'undefined'].map((event) => ['net-1', event]));
  });

  it('describe storage', async () => {
    const libvirt = await reach(daemon.testDriver);
    const xml = `<pool type='dir'><name>pool-1</name><target><path>/pool-1</path></target></pool>`;
    const pool = await libvirt.storagePoolDefineXml({ xml });
    await libvirt.storagePoolBuild({ pool });
    await libvirt.storagePoolCreate({ pool });
    await libvirt.storagePoolRefresh({ pool });
    expect(await libvirt.connectListAllStoragePools({ filter: ['active'] })).toContainEqual(pool);
    expect(await libvirt.storagePoolLookupByName({ name: 'pool-1' })).toEqual(pool);
    expect(await libvirt.storagePoolLookupByUuid({ uuid: pool.uuid })).toEqual(pool);
    expect((await libvirt.storagePoolGetInfo({ pool })).state).toBe('running');
    expect(await libvirt.storagePoolGetXmlDesc({ pool })).toContain('<name>pool-1</name>');
    const volume = await libvirt.storageVolCreateXml({ pool, xml: `<volume><name>a.img</name><capacity unit='MiB'>8</capacity></volume>` });
    expect(await libvirt.storagePoolListAllVolumes({ pool })).toEqual([volume]);
    expect(await libvirt.storageVolLookupByName({ pool, name: 'a.img' })).toEqual(volume);
    const path = await libvirt.storageVolGetPath({ volume });
    expect(await libvirt.storageVolLookupByPath({ path })).toEqual(volume);
    expect((await libvirt.storageVolGetInfo({ volume })).capacityBytes).toBe(8 * 1_048_576);
    expect(await libvirt.storageVolGetXmlDesc({ volume })).toContain('a.img');
    await libvirt.storageVolDelete({ volume });
    await libvirt.storagePoolDestroy({ pool });
    await libvirt.storagePoolDelete({ pool });
    await libvirt.storagePoolUndefine({ pool });
  });

  it('fail with the daemon’s error, each of its kind', async () => {
    const libvirt = await reach(daemon.testDriver);
    const domain = await libvirt.domainLookupByName({ name: 'test' });
    await expect(libvirt.domainLookupByName({ name: 'nobody' })).rejects.toSatisfy(isNoDomain);
    await expect(libvirt.networkLookupByName({ name: 'nobody' })).rejects.toSatisfy(isNoNetwork);
    await expect(libvirt.domainDefineXmlFlags({ xml: '<domain' })).rejects.toSatisfy(isXmlRefused);
    await expect(libvirt.domainMonitorCommand({ domain, command: '{}' })).rejects.toBeInstanceOf(UnsupportedError);
    await expect(libvirt.domainGetState({ domain: { uuid: 'test' } })).rejects.toBeInstanceOf(TypeError);
    await expect(libvirt.domainOpenConsole({ domain })).rejects.toBeInstanceOf(UnsupportedError);
    expect(libvirt.state.status).toBe('connected');
  });

  it('go out 64 at a time on one connection, and come back each to its own', async () => {
    const libvirt = await reach(daemon.testDriver, { inFlightMax: 64 });
    const names = Array.from({ length: 64 }, (_, index) => `deep-${index}`);
    const domains = await Promise.all(names.map((name) => libvirt.domainDefineXmlFlags({ xml: testGuest(name) })));
    expect(domains.map((domain) => domain.name)).toEqual(names);
    for (let round = 0; round < 10; round += 1) {
      const found = await Promise.all(names.map((name) => libvirt.domainLookupByName({ name })));
      expect(found).toEqual(domains);
    }
    await Promise.all(domains.map((domain) => libvirt.domainUndefineFlags({ domain })));
    expect(libvirt.load).toEqual({ inFlight: 0, abandoned: 0, queued: 0 });
  });

  it('are refused where the connection may only read', async () => {
    const libvirt = await reach(daemon.testDriver, { readOnly: true });
    expect((await libvirt.connectListAllDomains()).length).toBeGreaterThan(0);
    await expect(libvirt.domainDefineXmlFlags({ xml: testGuest('never') })).rejects.toBeInstanceOf(LibvirtError);
  });
});

describe('events of the test driver', () => {
  it('tell the whole life, of all domains or of one', async () => {
    const libvirt = await reach(daemon.testDriver);
    const other = await anchor.domainDefineXmlFlags({ xml: testGuest('other') });
    const all = await libvirt.domainEvents({ kinds: ['lifecycle', 'metadataChange', 'reboot', 'watchdog', 'agentLifecycle'] });
    const one = await libvirt.domainEvents({ kinds: ['lifecycle'], domain: other });
    const domain = await anchor.domainDefineXmlFlags({ xml: testGuest('told') });
    await anchor.domainCreateWithFlags({ domain });
    await anchor.domainSetMetadata({ domain, kind: 'title', metadata: 'x', flags: ['live'] });
    await anchor.domainSuspend({ domain });
    await anchor.domainResume({ domain });
    await anchor.domainDestroyFlags({ domain });
    await anchor.domainUndefineFlags({ domain });
    await anchor.domainUndefineFlags({ domain: other });
    const told = await collect(all, (events) => events.length === 8);
    expect(told.map((event) => [event.domain.name, event.kind === 'lifecycle' ? `${event.event} ${event.detail}` : event.kind])).toEqual([
      ['told', 'defined added'],
      ['told', 'started booted'],
      ['told', 'metadataChange'],
      ['told', 'suspended paused'],
      ['told', 'resumed unpaused'],
      ['told', 'stopped destroyed'],
      ['told', 'undefined removed'],
      ['other', 'undefined removed'],
    ]);
    const alone = await collect(one, (events) => events.length === 1);
    expect(alone).toMatchObject([{ kind: 'lifecycle', event: 'undefined', domain: { uuid: other.uuid } }]);
  });

  it('reach every listener once, and none that has left', async () => {
    const libvirt = await reach(daemon.testDriver);
    const first = await libvirt.domainEvents({ kinds: ['lifecycle'] });
    const second = await libvirt.domainEvents({ kinds: ['lifecycle'] });
    await first.close();
    const third = await libvirt.domainEvents({ kinds: ['lifecycle'] });
    await second.close();
    await third.close();
    const fourth = await libvirt.domainEvents({ kinds: ['lifecycle'] });
    const domain = await libvirt.domainDefineXmlFlags({ xml: testGuest('once') });
    await libvirt.domainUndefineFlags({ domain });
    const seen = await collect(fourth, (events) => events.length === 2);
    expect(seen.map((event) => event.event)).toEqual(['defined', 'undefined']);
    for (const left of [first, second, third]) expect((await left.next()).done).toBe(true);
  });

  it('arrive all, 1,000 of them, while many calls are under way', async () => {
    const libvirt = await reach(daemon.testDriver, { inFlightMax: 32 });
    const events = await libvirt.domainEvents({ kinds: ['lifecycle'], queuedMax: 4_096 });
    const names = Array.from({ length: 500 }, (_, index) => `many-${index}`);
    await Promise.all(
      names.map(async (name) => {
        const domain = await libvirt.domainDefineXmlFlags({ xml: testGuest(name) });
        await libvirt.domainUndefineFlags({ domain });
      }),
    );
    const seen = await collect(events, (all) => all.length === 1_000);
    for (const name of names) expect(seen.filter((event) => event.domain.name === name).map((event) => event.event)).toEqual(['defined', 'undefined']);
  });

  it('that find no room are counted in a gap', async () => {
    const libvirt = await reach(daemon.testDriver);
    const events = await libvirt.domainEvents({ kinds: ['lifecycle'], queuedMax: 2 });
    const witness = await libvirt.domainEvents({ kinds: ['lifecycle'] });
    const domain = await libvirt.domainDefineXmlFlags({ xml: testGuest('crowd') });
    for (let round = 0; round < 5; round += 1) {
      await libvirt.domainCreateWithFlags({ domain });
      await libvirt.domainDestroyFlags({ domain });
    }
    await libvirt.domainUndefineFlags({ domain });
    await collect(witness, (all) => all.length === 12);
    expect((await events.next()).value).toMatchObject({ event: 'defined' });
    expect((await events.next()).value).toMatchObject({ event: 'started' });
    expect((await events.next()).value).toEqual({ kind: 'gap', because: 'overflow', lost: 10 });
    await events.close();
  });

  it('end with their signal', async () => {
    const libvirt = await reach(daemon.testDriver);
    const stop = new AbortController();
    const events = await libvirt.domainEvents({ kinds: ['lifecycle'], signal: stop.signal });
    const next = events.next();
    stop.abort();
    expect((await next).done).toBe(true);
  });
});

describe('a guest under QEMU', () => {
  const bootUuid = '0192c0de-0000-7000-8000-000000000001';
  // Without a disk the BIOS says so on the serial line, and asks which device to boot when ESC is pressed.
  const guest = `<domain type='qemu'><name>bios</name><uuid>${bootUuid}</uuid><memory unit='MiB'>32</memory><vcpu>1</vcpu>
    <os><type arch='x86_64' machine='pc'>hvm</type><boot dev='hd'/><bootmenu enable='yes' timeout='60000'/><bios useserial='yes'/></os><features><acpi/></features>
    <on_reboot>restart</on_reboot>
    <devices><emulator>/usr/bin/qemu-system-x86_64</emulator><controller type='usb' model='none'/><memballoon model='none'/>
      <serial type='pty'><target port='0'/></serial>
      <interface type='user'><mac address='52:54:0a:00:00:02'/><model type='virtio'/></interface>
      <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel></devices></domain>`;

  it('is defined, started, seen, talked to, stopped and undefined', async () => {
    const libvirt = await reach(daemon.qemuSession);
    expect(await libvirt.connectGetType()).toBe('QEMU');
    expect(await libvirt.connectGetDomainCapabilities({ virtualisation: 'qemu', architecture: 'x86_64' })).toContain('<domainCapabilities>');
    const events = await libvirt.domainEvents({ kinds: ['lifecycle', 'reboot'] });
    const domain = await libvirt.domainDefineXmlFlags({ xml: guest, flags: ['validate'] });
    try {
      const started = await libvirt.domainCreateWithFlags({ domain, flags: ['paused'] });
      expect(await libvirt.domainGetState({ domain: started })).toEqual({ state: 'paused', reason: 'user' });
      await expect(libvirt.domainCreateWithFlags({ domain })).rejects.toSatisfy(isOperationInvalid);

      const line = await reach(daemon.qemuSession, { keepalive: false });
      const console = await line.domainOpenConsole({ domain, flags: ['force'] });
      let screen = '';
      console.on('data', (data: Buffer) => (screen += data.toString('latin1')));
      await libvirt.domainResume({ domain });
      expect(await libvirt.domainGetState({ domain })).toEqual({ state: 'running', reason: 'unpaused' });
      await until(() => screen.includes('Press ESC for boot menu'), 30_000);
      console.write('\u001b');
      await until(() => screen.includes('Select boot device'), 30_000);
      console.end();
      await new Promise((resolve) => console.once('close', resolve));
      expect(console.errored).toBeNull();
      // The same connection opens it again.
      const again = await line.domainOpenConsole({ domain });
      again.destroy();

      const status = JSON.parse(await libvirt.domainMonitorCommand({ domain, command: '{"execute":"query-status"}' })) as unknown;
      expect(status).toMatchObject({ return: { status: 'running' } });
      expect(await libvirt.domainMonitorCommand({ domain, command: 'info version', flags: ['hmp'] })).toMatch(/^\d+\.\d+/);
      await expect(libvirt.domainAgentCommand({ domain, command: '{"execute":"guest-ping"}', timeout: 1 })).rejects.toSatisfy(isAgentUnresponsive);
      expect(await libvirt.domainInterfaceAddresses({ domain })).toEqual([]);

      const [stats] = await libvirt.connectGetAllDomainStats({ domains: [domain], groups: ['state', 'cpu', 'balloon', 'vcpu', 'interface', 'block'], flags: ['nowait'] });
      const read = domainStats(stats as NonNullable<typeof stats>);
      expect(read).toMatchObject({ state: 'running', vcpus: 1, balloonKib: 32_768 });
      expect(read.cpuTimeNs).toBeGreaterThan(0n);
      expect(read.vcpuStats[0]?.timeNs).toBeGreaterThan(0n);

      const description = readDomain(await libvirt.domainGetXmlDesc({ domain }));
      expect(description).toMatchObject({ uuid: bootUuid, virtualisation: 'qemu', interfaces: [{ kind: 'user', mac: '52:54:0a:00:00:02' }] });
      await libvirt.domainReset({ domain });
      await libvirt.domainSuspend({ domain });
      expect(await libvirt.domainGetState({ domain })).toEqual({ state: 'paused', reason: 'user' });
    } finally {
      await libvirt.domainDestroyFlags({ domain }).catch(() => undefined);
      await libvirt.domainUndefineFlags({ domain, flags: ['nvram'] });
    }
    const seen = await collect(events, (all) => all.some((event) => event.kind === 'lifecycle' && event.event === 'undefined'));
    // QEMU may or may not still say that it is told to shut down.
    const life = seen.filter((event) => event.kind === 'lifecycle').filter((event) => event.event !== 'shutdown').map((event) => `${event.event} ${event.detail}`);
    expect(life).toEqual(['defined added', 'started booted', 'suspended paused', 'resumed unpaused', 'suspended paused', 'stopped destroyed', 'undefined removed']);
    await expect(libvirt.domainCreateWithFlags({ domain })).rejects.toSatisfy(isNoDomain);
  });

  it('that hangs holds up no call about another', async () => {
    const libvirt = await reach(daemon.qemuSession, { callTimeoutMs: 30_000 });
    const domain = await libvirt.domainCreateXml({ xml: guest });
    const pids = await processesOf(bootUuid);
    expect(pids.length).toBe(1);
    try {
      for (const pid of pids) process.kill(pid, 'SIGSTOP');
      const stuck = Array.from({ length: 8 }, () => libvirt.domainMonitorCommand({ domain, command: '{"execute":"query-status"}' }, { timeoutMs: 3_000 }));
      let over = false;
      const settled = Promise.allSettled(stuck).finally(() => { over = true; });
      for (let round = 0; round < 20; round += 1) await libvirt.domainGetState({ domain });
      expect(over).toBe(false);
      const outcomes = await settled;
      for (const outcome of outcomes) expect(outcome).toMatchObject({ status: 'rejected', reason: { name: 'CallTimeout' } });
      // Only those that had a place were sent; the others can no longer happen.
      expect(outcomes.filter((outcome) => outcome.status === 'rejected' && (outcome.reason as { sent: boolean }).sent).length).toBe(3);
      expect(libvirt.load).toEqual({ inFlight: 3, abandoned: 3, queued: 0 });
      for (const pid of pids) process.kill(pid, 'SIGCONT');
      // The late answers come and free their places.
      await until(() => libvirt.load.inFlight === 0);
    } finally {
      for (const pid of pids) process.kill(pid, 'SIGCONT');
      await libvirt.domainDestroyFlags({ domain });
    }
  });
});

describe('a system libvirtd', () => {
  it('leases to a guest the address that was reserved for it', async () => {
    const own = await startSystemLibvirtd();
    try {
      const libvirt = await reach(own.qemuSystem);
      const events = await libvirt.networkEvents();
      const network = await libvirt.networkDefineXmlFlags({
        xml: `<network><name>net-1</name><forward mode='nat'/><bridge name='virbr77'/><ip address='10.77.0.1' prefix='24'><dhcp><range start='10.77.0.2' end='10.77.0.9'/></dhcp></ip></network>`,
        flags: ['validate'],
      });
      await libvirt.networkCreate({ network });
      await libvirt.networkUpdate({ network, command: 'addLast', section: 'ipDhcpHost', xml: "<host mac='52:54:0a:4d:00:05' ip='10.77.0.5' name='web'/>", flags: ['live', 'config'] });
      for (const flags of [[], ['inactive']] as const) {
        expect(readNetwork(await libvirt.networkGetXmlDesc({ network, flags })).addresses[0]?.dhcpHosts).toEqual([{ mac: '52:54:0a:4d:00:05', address: '10.77.0.5', name: 'web' }]);
      }
      // Its BIOS asks for an address before it finds that there is nothing to boot.
      const domain = await libvirt.domainCreateXml({
        xml: `<domain type='qemu'><name>asks</name><memory unit='MiB'>64</memory><os><type arch='x86_64' machine='pc'>hvm</type><boot dev='network'/></os>
          <devices><emulator>/usr/bin/qemu-system-x86_64</emulator><controller type='usb' model='none'/><memballoon model='none'/>
          <interface type='network'><mac address='52:54:0a:4d:00:05'/><source network='net-1'/><model type='virtio'/></interface></devices></domain>`,
      });
      const lease = async () => (await libvirt.networkGetDhcpLeases({ network, mac: '52:54:0a:4d:00:05' }))[0];
      const deadline = Date.now() + 60_000;
      let leased = await lease();
      for (; leased === undefined; leased = await lease()) {
        if (Date.now() > deadline) throw new Error('the guest has no address after a minute');
        await delay(200);
      }
      expect(leased).toMatchObject({ interface: 'virbr77', kind: 'ipv4', mac: '52:54:0a:4d:00:05', address: '10.77.0.5', prefix: 24, hostname: 'web' });
      expect(leased.expiresAt * 1_000).toBeGreaterThan(Date.now());
      expect(await libvirt.domainInterfaceAddresses({ domain, source: 'lease' })).toEqual([{ name: 'vnet0', mac: '52:54:0a:4d:00:05', addresses: [{ kind: 'ipv4', address: '10.77.0.5', prefix: 24 }] }]);
      const [stats] = await libvirt.connectGetAllDomainStats({ domains: [domain], groups: ['interface'], flags: ['nowait'] });
      const [nic] = domainStats(stats as NonNullable<typeof stats>).interfaces;
      expect(nic).toMatchObject({ name: 'vnet0' });
      expect(nic?.txBytes).toBeGreaterThan(0n);
      await libvirt.domainDestroyFlags({ domain });
      await libvirt.networkDestroy({ network });
      await libvirt.networkUndefine({ network });
      const seen = await collect(events, (all) => all.length === 4);
      expect(seen.map((event) => event.event)).toEqual(['defined', 'started', 'stopped', 'undefined']);
    } finally {
      await own.stop();
    }
  });
});

async function processesOf(uuid: string): Promise<number[]> {
  const { readdir, readFile } = await import('node:fs/promises');
  const found: number[] = [];
  for (const pid of (await readdir('/proc')).filter((name) => /^\d+$/.test(name))) {
    const words = (await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')).split('\0');
    if (words[0]?.includes('qemu-system') === true && words.includes(uuid)) found.push(Number(pid));
  }
  return found;
}

describe('a connection that is lost', () => {
  it('without reconnect fails what is under way, and its readers', async () => {
    const own = await startLibvirtd();
    try {
      const libvirt = await reach(own.testDriver);
      const events = await libvirt.domainEvents({ kinds: ['lifecycle'] });
      const next = events.next();
      next.catch(() => undefined);
      await own.kill();
      await expect(next).rejects.toMatchObject({ name: 'Disconnected' });
      expect((await libvirt.closed).kind).toMatch(/closedByPeer|socketError/);
      await expect(libvirt.connectGetType()).rejects.toMatchObject({ name: 'Disconnected', sent: false });
      await expect(libvirt.whenConnected()).rejects.toMatchObject({ name: 'Disconnected' });
    } finally {
      await own.stop();
    }
  });

  it('with reconnect comes back, registers its events again and tells of the gap', async () => {
    const own = await startLibvirtd();
    try {
      const states: ConnectionState['status'][] = [];
      const libvirt = await reach(own.testDriver, { reconnect: { delayMsMin: 20, delayMsMax: 100 }, onState: (state) => states.push(state.status) });
      const events = await libvirt.domainEvents({ kinds: ['lifecycle'] });
      await libvirt.domainDefineXmlFlags({ xml: testGuest('before') });
      expect((await events.next()).value).toMatchObject({ event: 'defined' });
      await own.kill();
      await until(() => libvirt.state.status === 'disconnected');
      await expect(libvirt.connectGetType()).rejects.toMatchObject({ name: 'Disconnected', sent: false });
      await own.start();
      await libvirt.whenConnected({ signal: AbortSignal.timeout(10_000) });
      await libvirt.domainDefineXmlFlags({ xml: testGuest('after') });
      expect((await events.next()).value).toEqual({ kind: 'gap', because: 'reconnected', lost: undefined });
      expect((await events.next()).value).toMatchObject({ event: 'defined', domain: { name: 'after' } });
      await events.close();
      expect(states[0]).toBe('connected');
      expect(states.at(-1)).toBe('connected');
      expect(new Set(states.slice(1, -1))).toEqual(new Set(['disconnected']));
      await libvirt.close();
      expect(await libvirt.closed).toMatchObject({ kind: 'closedByCaller' });
    } finally {
      await own.stop();
    }
  });
});

describe('a peer that is not libvirtd', () => {
  let folder: string;
  let server: Server | undefined;
  const sockets = new Set<Socket>();

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'cvpeer-'));
  });
  afterEach(async () => {
    for (const socket of sockets) socket.destroy();
    await new Promise((resolve) => (server === undefined ? resolve(undefined) : server.close(resolve)));
    server = undefined;
  });
  afterAll(() => rm(folder, { recursive: true, force: true }));

  async function listen(onConnection: (socket: Socket) => void): Promise<Target> {
    const path = join(folder, 'sock');
    server = createServer((socket) => {
      sockets.add(socket);
      socket.on('error', () => undefined);
      onConnection(socket);
    });
    await new Promise<void>((resolve) => server?.listen(path, resolve));
    return { socket: path, driver: 'test:///default' };
  }

  it('and says nothing is given up in time', async () => {
    const target = await listen(() => undefined);
    await expect(connect(target, { connectTimeoutMs: 100 })).rejects.toMatchObject({ name: 'Disconnected', message: expect.stringContaining('100 ms') as string });
    await expect(connect(target, { signal: AbortSignal.timeout(50) })).rejects.toMatchObject({ name: 'TimeoutError' });
  });

  it('and sends garbage is left with a reason', async () => {
    const target = await listen((socket) => socket.write(Buffer.alloc(100, 0xff)));
    await expect(connect(target)).rejects.toMatchObject({ name: 'Disconnected', reason: { kind: 'protocolViolation' } });
  });

  it('and sends without end costs no memory', async () => {
    const target = await listen((socket) => {
      // The largest packet there is, byte by byte in effect, and never whole.
      const head = Buffer.alloc(1_048_576);
      head.writeUInt32BE(33_554_436);
      socket.write(head);
      socket.once('data', () => undefined);
      const more = () => {
        while (socket.writable && socket.write(Buffer.alloc(65_536)));
      };
      socket.on('drain', more);
      more();
    });
    const before = process.memoryUsage().arrayBuffers;
    await expect(connect(target, { connectTimeoutMs: 3_000 })).rejects.toMatchObject({ name: 'Disconnected' });
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(128 * 1_048_576);
  });

  it('and is not there at all is said in plain words', async () => {
    await expect(connect({ socket: join(folder, 'nothing'), driver: 'test:///default' })).rejects.toMatchObject({ name: 'Disconnected', sent: false, message: expect.stringContaining('cannot be reached') as string });
  });

  it('or has no such driver is told apart from one that cannot be reached', async () => {
    await expect(connect({ ...daemon.testDriver, driver: 'vbox:///nowhere' })).rejects.toBeInstanceOf(LibvirtError);
  });
});
