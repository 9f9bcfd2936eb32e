/*
 * What came after libvirt 9.0.0, against a newer libvirtd: the one of the system whose folder
 * CV_LIBVIRT_SYSTEM names (the README says how to make it). Without that there is nothing to run
 * against, and newer.spec.ts and procedures.libvirt.spec.ts have to do.
 */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Call, Libvirt } from './connection.ts';
import { CallTimeout, errorCodes, isNoMetadata, LibvirtError, UnsupportedError } from './errors.ts';
import type { DomainEvent } from './events.ts';
import type { Domain, Network } from './layouts.ts';
import { remote } from './procedure.ts';
import { procedures } from './procedures.ts';
import type { Procedure, ProcedureName } from './procedures.ts';
import { connections, eventually } from './testing-connections.ts';
import { agentAnswers, bootDisk, guestImageFolders, guestXml } from './testing-guest.os.ts';
import { startLibvirtd } from './testing-libvirtd.os.ts';
import type { OwnLibvirtd } from './testing-libvirtd.os.ts';
import { nothing } from './xdr.ts';
import { guestImage } from '../../../tools/guest-image.ts';

const system = process.env['CV_LIBVIRT_SYSTEM'];
const uuid = '7f0c0de0-0000-4000-8000-000000000c01';
const { reach, closeAll } = connections();
let daemon: OwnLibvirtd;
let libvirt: Libvirt;

describe.skipIf(system === undefined)('a newer libvirtd and its test driver', () => {
  beforeAll(async () => {
    daemon = await startLibvirtd({}, { system: system as string });
    libvirt = await reach(daemon.testDriver);
  }, 60_000);
  afterAll(async () => {
    await closeAll();
    await daemon.stop();
  });

  it('is as new as the table, which ends where it ends', async () => {
    expect(await libvirt.connectGetLibVersion()).toBeGreaterThanOrEqual(12_008_000);
    const last = Math.max(...Object.values<Procedure>(procedures).map(({ program, number }) => (program === 'remote' ? number : 0)));
    // Of any type with the method that each call of the table goes through.
    const through = libvirt as unknown as { call(name: string, procedure: Procedure, args: unknown, options: object): Promise<unknown> };
    await expect(through.call('next', remote(last + 1, '99.0.0', {}, nothing), {}, {})).rejects.toBeInstanceOf(UnsupportedError);
  });

  it('keeps words about a network, and tells of them', async () => {
    const [network] = (await libvirt.connectListAllNetworks()) as [Network];
    const events = await libvirt.networkEvents({ kinds: ['lifecycle', 'metadataChange'], network });
    await libvirt.networkSetMetadata({ network, metadata: '<a/>', key: 'k', uri: 'urn:a' });
    expect((await events.next()).value).toEqual({ kind: 'metadataChange', network, metadata: 'element', uri: 'urn:a' });
    expect(await libvirt.networkGetMetadata({ network, uri: 'urn:a' })).toBe('<a/>');
    await libvirt.networkSetMetadata({ network, kind: 'title', metadata: 'LAN', flags: ['live', 'config'] });
    expect((await events.next()).value).toMatchObject({ kind: 'metadataChange', metadata: 'title' });
    expect(await libvirt.networkGetXmlDesc({ network })).toMatch(/<title>LAN<\/title>/);
    await libvirt.networkSetMetadata({ network, uri: 'urn:a', key: 'k' });
    expect(isNoMetadata(await libvirt.networkGetMetadata({ network, uri: 'urn:a' }).catch((error: unknown) => error))).toBe(true);
  });
});

describe.skipIf(system === undefined)('a newer libvirtd whose only worker waits for a guest of QEMU that hangs', () => {
  let pid: number | undefined;
  afterAll(async () => {
    if (pid !== undefined) process.kill(pid, 'SIGKILL');
    await closeAll();
    await daemon.stop();
  });

  it('answers what is in its lane for that, and nothing else', async () => {
    daemon = await startLibvirtd({ min_workers: 1, max_workers: 1, prio_workers: 2, max_client_requests: 40 }, { system: system as string });
    libvirt = await reach(daemon.qemuSession, { inFlightMax: 30, keepalive: false });
    const bare = (name: string) =>
      `<domain type='qemu'><name>${name}</name><memory unit='MiB'>32</memory><os><type arch='x86_64' machine='pc'>hvm</type></os>
       <devices><emulator>/usr/bin/qemu-system-x86_64</emulator><controller type='usb' model='none'/></devices></domain>`;
    const hung = await libvirt.domainCreateXml({ xml: bare('hung') });
    const domain = await libvirt.domainDefineXmlFlags({ xml: bare('other') });
    pid = Number(await readFile(join(daemon.directory, 'run/libvirt/qemu/run/hung.pid'), 'utf8'));
    process.kill(pid, 'SIGSTOP');
    const waits = expect(libvirt.domainMemoryPeek({ domain: hung, offset: 0, size: 16, address: 'physical' })).rejects.toBeInstanceOf(Error);
    await eventually(() => libvirt.domainGetXmlDesc({ domain }, { timeoutMs: 200 }).then(() => false, (error: unknown) => error instanceof CallTimeout));

    const network = { uuid };
    const calls: Readonly<Partial<Record<ProcedureName, object>>> = {
      domainGetState: { domain },
      networkSetMetadata: { network, metadata: 'x', kind: 'title' },
      networkGetMetadata: { network, kind: 'title' },
      nodeDeviceUpdate: { name: 'computer', xml: '<a/>' },
      domainGraphicsReload: { domain },
      domainGetAutostartOnce: { domain },
      domainSetAutostartOnce: { domain, autostart: false },
      domainSetThrottleGroup: { domain, group: 'g', parameters: {} },
      domainDelThrottleGroup: { domain, group: 'g' },
      domainAnnounceInterface: { domain, parameters: {} },
    };
    // The casts: keys of the object above, whose arguments are of the procedure's own kind.
    const names = Object.keys(calls) as ProcedureName[];
    const lanes = names.map(async (name) => {
      const call = libvirt[name] as Call<Procedure>;
      return [name, await call.call(libvirt, calls[name], { timeoutMs: 1_000 }).then(() => 'high', (error: unknown) => (error instanceof CallTimeout ? 'low' : 'high'))];
    });
    const table = names.map((name) => [name, procedures[name].priority]);
    expect(await Promise.all(lanes)).toEqual(table);
    process.kill(pid, 'SIGKILL');
    pid = undefined;
    await waits;
  });
});

describe.skipIf(system === undefined)('a newer libvirtd and a guest under QEMU', () => {
  const mac = '52:54:0a:00:0c:01';
  const seen: DomainEvent[] = [];
  const sawEvent = (test: (event: DomainEvent) => boolean) => eventually(() => seen.find(test), 30_000);
  let domain: Domain;

  beforeAll(async () => {
    daemon = await startLibvirtd({}, { system: system as string });
    libvirt = await reach(daemon.qemuSession);
    const events = await libvirt.domainEvents({ kinds: ['lifecycle', 'nicMacChange', 'vcpuRemoved', 'channelLifecycle'] });
    void (async () => {
      for await (const event of events) seen.push(event as DomainEvent);
    })();
    const folder = join(daemon.directory, 'run');
    const xml = guestXml({
      name: 'newer',
      uuid,
      disk: await bootDisk(folder, 'boot.qcow2', (await guestImage(guestImageFolders)).file),
      growing: true,
      devices: `<interface type='user' trustGuestRxFilters='yes'><mac address='${mac}'/><model type='virtio'/></interface>
        <graphics type='vnc' socket='${folder}/vnc'/><video><model type='vga' vram='16384'/></video>`,
    });
    domain = await libvirt.domainDefineXmlFlags({ xml, flags: ['validate'] });
    domain = await libvirt.domainCreateWithFlags({ domain });
  }, 300_000);
  afterAll(async () => {
    await libvirt.domainDestroyFlags({ domain }).catch(() => undefined);
    await closeAll();
    await daemon.stop();
  });

  it('tells of its channels', async () => {
    const channel = 'org.qemu.guest_agent.0';
    await sawEvent((event) => event.kind === 'channelLifecycle' && event.channel === channel && event.state === 'disconnected' && event.reason === 'domainStarted');
    await sawEvent((event) => event.kind === 'channelLifecycle' && event.channel === channel && event.state === 'connected' && event.reason === 'channel');
    await agentAnswers(libvirt, domain);
  });

  it('starts with its node, once', async () => {
    expect(await libvirt.domainGetAutostartOnce({ domain })).toBe(false);
    await libvirt.domainSetAutostartOnce({ domain, autostart: true });
    expect(await libvirt.domainGetAutostartOnce({ domain })).toBe(true);
    expect(await libvirt.domainGetAutostart({ domain })).toBe(false);
  });

  it('has limits for several disks', async () => {
    await libvirt.domainSetThrottleGroup({ domain, group: 'slow', parameters: { total_bytes_sec: 1_000_000, read_iops_sec: 0 }, flags: ['live'] });
    expect(await libvirt.domainGetXmlDesc({ domain })).toMatch(/<throttlegroup>\s*<total_bytes_sec>1000000<\/total_bytes_sec>\s*<group_name>slow</);
    await libvirt.domainDelThrottleGroup({ domain, group: 'slow', flags: ['live'] });
    expect(await libvirt.domainGetXmlDesc({ domain })).not.toContain('slow');
  });

  it('says where it is', async () => {
    await libvirt.domainAnnounceInterface({ domain, parameters: { initial: 50, max: 100, rounds: 3, step: 10 } });
    await libvirt.domainAnnounceInterface({ domain, device: mac, parameters: {} });
    await expect(libvirt.domainAnnounceInterface({ domain, device: '52:54:0a:00:0c:99', parameters: {} })).rejects.toMatchObject({ code: errorCodes.invalidArgument });
    await expect(libvirt.domainAnnounceInterface({ domain, parameters: { more: { other: { u32: 1 } } } })).rejects.toThrow(/'other'/);
  });

  it('answers no where there is nothing to change', async () => {
    await expect(libvirt.domainGraphicsReload({ domain, kind: 'vnc' })).rejects.toThrow(/tls is not enabled/);
    await expect(libvirt.nodeDeviceUpdate({ name: 'computer', xml: '<device><name>computer</name></device>' })).rejects.toBeInstanceOf(LibvirtError);
    // The agent in the guest is older.
    await expect(libvirt.domainGetGuestInfo({ domain, kinds: ['load'] })).rejects.toMatchObject({ code: errorCodes.agentCommandFailed });
  });

  it('takes the newer words of older calls', async () => {
    expect(await libvirt.domainGetMessages({ domain, kinds: ['tainting', 'ioErrors'] })).toContain('tainted: custom guest agent control commands issued');
    const [plain, ...more] = await Promise.all(
      [[], ['expandCpuFeatures'], ['supportedCpuFeatures'], ['disableDeprecatedFeatures']].map((flags) => libvirt.connectGetDomainCapabilities({ flags: flags as 'expandCpuFeatures'[] })),
    );
    for (const xml of more) expect(xml).toContain('<domainCapabilities>');
    expect(new Set([plain, ...more]).size).toBeGreaterThan(1);
    expect(await libvirt.connectListAllNodeDevices({ filter: ['persistent', 'ccwgroupDevice', 'ccwgroupMember'] })).toEqual([]);
    await libvirt.domainSetLifecycleAction({ domain, event: 'crash', action: 'preserveRunning', flags: ['config'] });
    expect(await libvirt.domainGetXmlDesc({ domain, flags: ['inactive'] })).toContain('<on_crash>preserve-running<');
  });

  it('changes its address, and gives a vCPU back in its own time', async () => {
    const line = await reach(daemon.qemuSession, { keepalive: false });
    const console = await line.domainOpenConsole({ domain });
    let screen = '';
    console.on('data', (data: Buffer) => (screen += data.toString('latin1')));
    const typed = async (words: string, answer: RegExp) => {
      screen = '';
      console.write(`${words}\r`);
      await eventually(() => answer.test(screen), 20_000);
    };
    await typed('', /login:/);
    await typed('root', /# /);
    await typed('ip link set eth0 down; ip link set eth0 address 52:54:0a:00:0c:77; ip link set eth0 up', /# /);
    expect(await sawEvent((event) => event.kind === 'nicMacChange')).toMatchObject({ domain: { uuid }, device: 'net0', macOld: mac, macNew: '52:54:0a:00:0c:77' });

    await libvirt.domainSetVcpu({ domain, vcpus: '1', enabled: true, flags: ['live'] });
    await typed('until [ -e /sys/devices/system/cpu/cpu1/online ]; do sleep 1; done; echo 1 > /sys/devices/system/cpu/cpu1/online; nproc', /\n2\r\n/);
    await libvirt.domainSetVcpu({ domain, vcpus: '1', enabled: false, flags: ['live', 'asyncUnplug'] });
    // The guest lets go of it first, and of the device when it is asked once more.
    await typed('until [ "$(nproc)" = 1 ]; do sleep 1; done; nproc', /\n1\r\n/);
    await libvirt.domainSetVcpusFlags({ domain, vcpus: 1, flags: ['live', 'asyncUnplug'] });
    expect(await sawEvent((event) => event.kind === 'vcpuRemoved')).toMatchObject({ domain: { uuid }, vcpu: 1 });
    console.destroy();
  });

  it('is saved in another format', async () => {
    const file = join(daemon.directory, 'run', 'saved');
    await libvirt.domainSaveParams({ domain, parameters: { file, image_format: 'sparse', 'parallel.channels': 2 } });
    expect(await libvirt.domainGetState({ domain })).toEqual({ state: 'shutoff', reason: 'saved' });
    await libvirt.domainRestoreParams({ parameters: { file, 'parallel.channels': 2 } });
    expect(await libvirt.domainGetState({ domain })).toEqual({ state: 'running', reason: 'restored' });
  });
});
