/*
 * One real guest under emulation, in the order of a life: it boots, is talked to, plugged into, measured,
 * limited, saved and stopped. What belongs to its disks' history is in snapshot.libvirt.spec.ts.
 */
import { rm, stat } from 'node:fs/promises';
import { createConnection } from 'node:net';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Libvirt } from './connection.ts';
import { readDomain } from './domain-xml.ts';
import { errorCodes, isAgentUnresponsive, isNoDevice, isOperationInvalid, LibvirtError } from './errors.ts';
import type { DomainEvent, EventStream } from './events.ts';
import type { Domain } from './layouts.ts';
import { guestInfo } from './guest-info.ts';
import { connections, eventually } from './testing-connections.ts';
import { agentAnswers, bootDisk, emptyDisk, guestXml, guestImageFolders } from './testing-guest.os.ts';
import { startLibvirtd } from './testing-libvirtd.os.ts';
import type { OwnLibvirtd } from './testing-libvirtd.os.ts';
import { guestImage } from '../../../tools/guest-image.ts';

const uuid = '7f0c0de0-0000-4000-8000-000000000001';
const mac = '52:54:0a:00:01:01';
const { reach, closeAll } = connections();

let daemon: OwnLibvirtd;
let libvirt: Libvirt;
let domain: Domain;
let events: EventStream<DomainEvent>;
const seen: DomainEvent[] = [];
let folder: string;

beforeAll(async () => {
  daemon = await startLibvirtd();
  folder = join(daemon.directory, 'run');
  libvirt = await reach(daemon.qemuSession);
  events = await libvirt.domainEvents({
    kinds: ['lifecycle', 'reboot', 'deviceAdded', 'deviceRemoved', 'agentLifecycle', 'balloonChange', 'tunable', 'metadataChange', 'graphics', 'rtcChange', 'blockThreshold', 'jobCompleted', 'pmSuspend', 'pmWakeup'],
  });
  void (async () => {
    for await (const event of events) seen.push(event as DomainEvent);
  })();
  const xml = guestXml({
    name: 'guest',
    uuid,
    disk: await bootDisk(folder, 'boot.qcow2', (await guestImage(guestImageFolders)).file),
    growing: true,
    devices: `<channel type='unix'><target type='virtio' name='cv.test.0'/></channel>
      <controller type='virtio-serial' index='0'/>
      <interface type='user'><mac address='${mac}'/><model type='virtio'/></interface>
      <graphics type='vnc' socket='${folder}/vnc'/><video><model type='vga' vram='16384'/></video>`,
  });
  domain = await libvirt.domainDefineXmlFlags({ xml, flags: ['validate'] });
  domain = await libvirt.domainCreateWithFlags({ domain });
}, 300_000);

afterAll(async () => {
  await libvirt?.domainDestroyFlags({ domain }).catch(() => undefined);
  await closeAll();
  await daemon?.stop();
});

const sawEvent = (test: (event: DomainEvent) => boolean) => eventually(() => seen.find(test), 30_000);

describe('a guest under QEMU', () => {
  it('boots, and is read and typed to on its console', async () => {
    const line = await reach(daemon.qemuSession, { keepalive: false });
    const console = await line.domainOpenConsole({ domain });
    let screen = '';
    console.on('data', (data: Buffer) => (screen += data.toString('latin1')));
    await eventually(() => screen.includes('cv-guest up'), 90_000);
    await eventually(() => {
      console.write('\r');
      return screen.includes('login:');
    }, 20_000);
    console.write('root\r');
    await eventually(() => screen.includes('#'), 20_000);
    console.write('expr 41 + 1 > /run/answer; cat /run/answer\r');
    await eventually(() => /\r\n42\r\n/.test(screen), 20_000);
    console.destroy();
    await agentAnswers(libvirt, domain);
    expect(await sawEvent((event) => event.kind === 'agentLifecycle' && event.state === 'connected')).toMatchObject({ reason: 'channel' });
  });

  it('shows its screen', async () => {
    const screen = await libvirt.domainScreenshot({ domain });
    const picture = Buffer.concat((await screen.toArray()) as Buffer[]);
    expect(screen.answer).toMatch(/^image\/(png|x-portable-pixmap)$/);
    expect(picture.subarray(0, 4).toString('latin1')).toMatch(/^(\x89PNG|P6\n)/);
    expect(picture.length).toBeGreaterThan(500);
    // Who looks at it by VNC is told of.
    const viewer = createConnection({ path: join(folder, 'vnc') });
    viewer.on('error', () => undefined);
    try {
      expect(await sawEvent((event) => event.kind === 'graphics' && event.phase === 'connect')).toMatchObject({ local: { family: 'unix' }, authentication: expect.any(String) as string });
    } finally {
      viewer.destroy();
    }
  });

  it('has a channel for others than the agent', async () => {
    const line = await reach(daemon.qemuSession, { keepalive: false });
    const channel = await line.domainOpenChannel({ domain, name: 'cv.test.0' });
    // Nobody reads it inside: what counts is that it opens and takes words.
    await new Promise((resolve) => channel.write('hello\n', resolve));
    expect(channel.errored).toBeNull();
    channel.destroy();
    await expect(line.domainOpenChannel({ domain, name: 'no.such.0' })).rejects.toBeInstanceOf(LibvirtError);
  });

  it('answers through its agent', async () => {
    expect(JSON.parse((await libvirt.domainAgentCommand({ domain, command: '{"execute":"guest-get-host-name"}' })) ?? '')).toEqual({ return: { 'host-name': 'micro' } });
    await expect(libvirt.domainAgentCommand({ domain, command: '{"execute":"no-such"}' })).rejects.toBeInstanceOf(LibvirtError);
    expect(await libvirt.domainGetHostname({ domain, flags: ['agent'] })).toBe('micro');
    expect(await libvirt.domainAgentSetResponseTimeout({ domain, timeout: 10 })).toBe(0);
    const info = await libvirt.domainGetGuestInfo({ domain, kinds: ['hostname', 'filesystem', 'interfaces'] });
    const told = guestInfo(info);
    expect(told.hostname).toBe('micro');
    expect(told.interfaces.map((one) => one.mac)).toContain(mac);
    expect(told.filesystems).toMatchObject([{ mountpoint: '/data', type: 'vfat', disks: [{ alias: 'vda' }] }]);
    expect(told.filesystems[0]?.totalBytes).toBeGreaterThan(1_000_000);
    const filesystems = await libvirt.domainGetFsinfo({ domain });
    expect(filesystems).toMatchObject([{ mountpoint: '/data', type: 'vfat', devices: ['vda'] }]);
    // VFAT cannot be frozen, so the agent's count is of none.
    expect(await libvirt.domainFsfreeze({ domain })).toBe(0);
    expect(await libvirt.domainFsthaw({ domain })).toBe(0);
    await libvirt.domainFstrim({ domain });
    const addresses = await eventually(async () => {
      const found = (await libvirt.domainInterfaceAddresses({ domain, source: 'agent' })).find((one) => one.mac === mac);
      return found !== undefined && found.addresses.some((address) => address.kind === 'ipv4') ? found : undefined;
    }, 30_000);
    expect(addresses.addresses.find((address) => address.kind === 'ipv4')?.address).toMatch(/^10\.0\.2\./);
    expect((await libvirt.domainGetTime({ domain })).seconds).toBeGreaterThan(1_600_000_000);
    const vcpus = await libvirt.domainGetGuestVcpus({ domain });
    expect(vcpus).toMatchObject({ vcpus: '0', online: '0' });
    await libvirt.domainAuthorizedSshKeysSet({ domain, user: 'root', keys: ['ssh-ed25519 AAAAC3NzaC1lZDI1NTE5 test'] });
    expect(await libvirt.domainAuthorizedSshKeysGet({ domain, user: 'root' })).toEqual(['ssh-ed25519 AAAAC3NzaC1lZDI1NTE5 test']);
  });

  it('is given another time, and its clock is as well', async () => {
    await libvirt.domainSetTime({ domain, seconds: 1_900_000_000, nanoseconds: 5 });
    expect(await sawEvent((event) => event.kind === 'rtcChange' && event.offsetSeconds > 1_000_000)).toBeDefined();
    const { seconds } = await libvirt.domainGetTime({ domain });
    expect(seconds).toBeGreaterThanOrEqual(1_900_000_000);
    expect(seconds).toBeLessThan(1_900_000_100);
    // From the emulated clock, which the guest has just set.
    await libvirt.domainSetTime({ domain, flags: ['sync'] });
    expect((await libvirt.domainGetTime({ domain })).seconds).toBeGreaterThanOrEqual(1_900_000_000);
  });

  it('lets in on its console who knows the password that it was given', async () => {
    const line = await reach(daemon.qemuSession, { keepalive: false });
    const console = await line.domainOpenConsole({ domain });
    let screen = '';
    console.on('data', (data: Buffer) => (screen += data.toString('latin1')));
    const prompted = async (words: string, prompt: RegExp) => {
      screen = '';
      console.write(`${words}\r`);
      await eventually(() => prompt.test(screen), 20_000);
    };
    await libvirt.domainSetUserPassword({ domain, user: 'root', password: 'ope:n $esame' });
    // The shell of the first test is still there.
    await prompted('exit', /login:/);
    await prompted('root', /Password:/);
    await prompted('wrong', /incorrect/);
    await prompted('', /login:/);
    await prompted('root', /Password:/);
    await prompted('ope:n $esame', /# /);
    // Encrypted, it is taken as it is.
    await libvirt.domainSetUserPassword({ domain, user: 'root', password: '$6$salt$hash', flags: ['encrypted'] });
    await prompted('cat /etc/shadow', /root:\$6\$salt\$hash:/);
    console.destroy();
    const error: unknown = await libvirt.domainSetUserPassword({ domain, user: 'stranger', password: 'hunter2' }).catch((caught: unknown) => caught);
    expect(error).toBeInstanceOf(LibvirtError);
    expect(isAgentUnresponsive(error)).toBe(false);
    expect(String(error)).not.toMatch(/hunter2/);
  });

  it('sleeps, and is woken', async () => {
    await libvirt.domainPmSuspendForDuration({ domain, target: 'memory' });
    await sawEvent((event) => event.kind === 'pmSuspend');
    await sawEvent((event) => event.kind === 'lifecycle' && event.event === 'pmsuspended' && event.detail === 'memory');
    expect(await libvirt.domainGetState({ domain })).toMatchObject({ state: 'pmsuspended' });
    await expect(libvirt.domainGetTime({ domain })).rejects.toBeInstanceOf(LibvirtError);
    await libvirt.domainPmWakeup({ domain });
    await sawEvent((event) => event.kind === 'pmWakeup');
    await sawEvent((event) => event.kind === 'lifecycle' && event.event === 'started' && event.detail === 'wakeup');
    expect(await libvirt.domainGetState({ domain })).toEqual({ state: 'running', reason: 'wakeup' });
    await agentAnswers(libvirt, domain);
    // It has no swap to sleep on.
    await expect(libvirt.domainPmSuspendForDuration({ domain, target: 'hybrid' })).rejects.toThrow(/guest-suspend-hybrid/);
    await expect(libvirt.domainPmWakeup({ domain })).rejects.toBeInstanceOf(LibvirtError);
  });

  it('reboots through its agent', async () => {
    await libvirt.domainReboot({ domain, modes: ['agent'] });
    await sawEvent((event) => event.kind === 'reboot');
    await sawEvent((event) => event.kind === 'agentLifecycle' && event.state === 'disconnected');
    await agentAnswers(libvirt, domain);
  });

  it('is measured', async () => {
    await libvirt.domainSetMemoryStatsPeriod({ domain, seconds: 1, flags: ['live'] });
    const memory = await eventually(async () => {
      const stats = await libvirt.domainMemoryStats({ domain });
      return stats.availableKib === undefined ? undefined : stats;
    });
    expect(memory.rssKib).toBeGreaterThan(10_000);
    expect(memory.availableKib).toBeGreaterThan(memory.unusedKib as number);
    const disk = await libvirt.domainBlockStatsFlags({ domain, path: 'vda' });
    expect(disk.rd_bytes).toBeGreaterThan(1_000_000n);
    expect(disk.rd_operations).toBe((await libvirt.domainBlockStats({ domain, path: 'vda' })).readRequests);
    expect((await libvirt.domainBlockStatsFlags({ domain, path: '' })).rd_bytes).toBeGreaterThanOrEqual(disk.rd_bytes as bigint);
    await expect(libvirt.domainBlockStatsFlags({ domain, path: 'vdz' })).rejects.toBeInstanceOf(LibvirtError);
    expect(await libvirt.domainGetDiskErrors({ domain })).toEqual([]);
    expect(await libvirt.domainGetJobInfo({ domain })).toMatchObject({ type: 'none', dataTotal: 0 });
    expect(await libvirt.domainGetControlInfo({ domain })).toMatchObject({ state: 'ok' });
    expect(await libvirt.domainGetSecurityLabelList({ domain })).toEqual(expect.any(Array));
    expect((await libvirt.domainGetMessages({ domain })).every((message) => message !== '')).toBe(true);
    await libvirt.domainStartDirtyRateCalc({ domain, seconds: 1 });
    const rate = await eventually(async () => {
      const [stats] = await libvirt.connectGetAllDomainStats({ domains: [domain], groups: ['dirtyrate'] });
      return stats?.parameters['dirtyrate.calc_status'] === 2 ? stats.parameters : undefined;
    });
    expect(rate['dirtyrate.megabytes_per_second']).toBeTypeOf('bigint');
    await libvirt.domainSetBlockThreshold({ domain, device: 'vda', thresholdBytes: 4_096 });
    expect((await libvirt.domainMemoryPeek({ domain, offset: 0, size: 64, address: 'physical' })).length).toBe(64);
  });

  it('has its memory dumped, is saved and comes back', async () => {
    const core = join(folder, 'core');
    await libvirt.domainCoreDumpWithFormat({ domain, to: core, flags: ['live', 'memoryOnly'] });
    expect((await stat(core)).size).toBeGreaterThan(200 * 1_048_576);
    await rm(core);

    const file = join(folder, 'saved');
    await libvirt.domainSaveParams({ domain, parameters: { file }, flags: ['paused'] });
    expect(await libvirt.domainGetState({ domain })).toEqual({ state: 'shutoff', reason: 'saved' });
    expect(readDomain(await libvirt.domainSaveImageGetXmlDesc({ file })).uuid).toBe(uuid);
    await libvirt.domainRestoreParams({ parameters: { file } });
    expect(await libvirt.domainGetState({ domain })).toMatchObject({ state: 'paused' });
    await libvirt.domainResume({ domain });
    await agentAnswers(libvirt, domain);

    await libvirt.domainManagedSave({ domain });
    expect(await libvirt.domainHasManagedSaveImage({ domain })).toBe(true);
    const xml = await libvirt.domainManagedSaveGetXmlDesc({ domain });
    await libvirt.domainManagedSaveDefineXml({ domain, xml, flags: ['running'] });
    domain = await libvirt.domainCreateWithFlags({ domain });
    expect(await libvirt.domainGetState({ domain })).toEqual({ state: 'running', reason: 'restored' });
    await agentAnswers(libvirt, domain);
  });

  it('gets a disk, and gives it back', async () => {
    const path = await emptyDisk(folder, 'extra.raw', 16, 'raw');
    const xml = `<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='${path}'/><target dev='vdb' bus='virtio'/><alias name='ua-extra'/></disk>`;
    await libvirt.domainAttachDeviceFlags({ domain, xml, flags: ['live'] });
    expect(await sawEvent((event) => event.kind === 'deviceAdded' && event.device === 'ua-extra')).toBeDefined();
    expect(readDomain(await libvirt.domainGetXmlDesc({ domain })).disks.map((disk) => disk.target)).toEqual(['vda', 'vdb']);
    expect(await libvirt.domainIsUpdated({ domain })).toBe(false);
    expect(await libvirt.domainGetBlockInfo({ domain, path: 'vdb' })).toMatchObject({ capacityBytes: 16 * 1_048_576 });
    await libvirt.domainBlockResize({ domain, disk: 'vdb', size: 32 * 1_048_576, flags: ['bytes'] });
    expect(await libvirt.domainGetBlockInfo({ domain, path: 'vdb' })).toMatchObject({ capacityBytes: 32 * 1_048_576 });
    expect(await libvirt.domainBlockPeek({ domain, disk: path, offset: 0, size: 4 })).toEqual(Buffer.alloc(4));
    await libvirt.domainDetachDeviceAlias({ domain, alias: 'ua-extra', flags: ['live'] });
    expect(await sawEvent((event) => event.kind === 'deviceRemoved' && event.device === 'ua-extra')).toBeDefined();
    expect(readDomain(await libvirt.domainGetXmlDesc({ domain })).disks.map((disk) => disk.target)).toEqual(['vda']);
    await libvirt.domainAttachDevice({ domain, xml });
    await libvirt.domainDetachDevice({ domain, xml });
    await eventually(async () => readDomain(await libvirt.domainGetXmlDesc({ domain })).disks.length === 1, 30_000);
    await expect(libvirt.domainDetachDeviceFlags({ domain, xml, flags: ['live'] })).rejects.toSatisfy(isNoDevice);
  });

  it('gets a network interface, pulls its plug, and gives it back', async () => {
    const nic = (link: string) => `<interface type='user'><mac address='52:54:0a:00:01:02'/><model type='virtio'/><link state='${link}'/><alias name='ua-nic'/></interface>`;
    await libvirt.domainAttachDeviceFlags({ domain, xml: nic('up'), flags: ['live'] });
    const interfaces = async () => JSON.parse((await libvirt.domainAgentCommand({ domain, command: '{"execute":"guest-network-get-interfaces"}' })) ?? '') as { return: { 'hardware-address'?: string }[] };
    await eventually(async () => (await interfaces()).return.some((one) => one['hardware-address'] === '52:54:0a:00:01:02'), 30_000);
    await libvirt.domainUpdateDeviceFlags({ domain, xml: nic('down'), flags: ['live'] });
    expect(await libvirt.domainGetXmlDesc({ domain })).toContain("<link state='down'/>");
    await libvirt.domainDetachDeviceFlags({ domain, xml: nic('down'), flags: ['live'] });
    expect(await sawEvent((event) => event.kind === 'deviceRemoved' && event.device === 'ua-nic')).toBeDefined();
    await eventually(async () => !(await interfaces()).return.some((one) => one['hardware-address'] === '52:54:0a:00:01:02'), 30_000);
  });

  it('gets a vCPU and memory', async () => {
    expect(await libvirt.domainGetVcpusFlags({ domain, flags: ['live'] })).toBe(1);
    await libvirt.domainSetVcpusFlags({ domain, vcpus: 2, flags: ['live'] });
    expect(await libvirt.domainGetVcpusFlags({ domain, flags: ['live'] })).toBe(2);
    expect((await libvirt.domainGetVcpus({ domain })).map((vcpu) => vcpu.vcpu)).toEqual([0, 1]);
    await eventually(async () => (await libvirt.domainGetGuestVcpus({ domain })).vcpus === '0-1', 20_000);
    await expect(libvirt.domainSetVcpu({ domain, vcpus: '1', enabled: true, flags: ['live'] })).rejects.toThrow(/already in requested state/);
    await eventually(async () => {
      await libvirt.domainSetGuestVcpus({ domain, vcpus: '1', enabled: true });
      return (await libvirt.domainGetGuestVcpus({ domain })).online === '0-1';
    }, 20_000);
    await libvirt.domainSetGuestVcpus({ domain, vcpus: '1', enabled: false });
    expect(await libvirt.domainGetGuestVcpus({ domain })).toMatchObject({ vcpus: '0-1', online: '0' });
    expect(await libvirt.domainGetVcpusFlags({ domain, flags: ['live', 'guest'] })).toBe(1);

    await libvirt.domainAttachDeviceFlags({ domain, xml: `<memory model='dimm'><target><size unit='MiB'>128</size><node>0</node></target></memory>`, flags: ['live'] });
    expect(readDomain(await libvirt.domainGetXmlDesc({ domain })).memoryKibMax).toBe(384 * 1_024);
    await libvirt.domainSetMemoryFlags({ domain, memoryKib: 200 * 1_024, flags: ['live'] });
    await sawEvent((event) => event.kind === 'balloonChange' && event.memoryKib < 384 * 1_024);
    await expect(libvirt.domainSetMemoryFlags({ domain, memoryKib: 8 * 1_048_576, flags: ['live'] })).rejects.toBeInstanceOf(LibvirtError);
  });

  it('is limited', async () => {
    await libvirt.domainSetBlockIoTune({ domain, disk: 'vda', parameters: { read_bytes_sec: 50_000_000, write_iops_sec: 5_000, group_name: 'boot' }, flags: ['live'] });
    expect(await libvirt.domainGetBlockIoTune({ domain, disk: 'vda', flags: ['live'] })).toMatchObject({ read_bytes_sec: 50_000_000, write_iops_sec: 5_000, total_bytes_sec: 0, group_name: 'boot' });
    expect(await sawEvent((event) => event.kind === 'tunable')).toMatchObject({ parameters: { 'blkdeviotune.disk': 'vda', 'blkdeviotune.read_bytes_sec': 50_000_000n } });
    await libvirt.domainAddIothread({ domain, iothread: 3, flags: ['live'] });
    expect((await libvirt.domainGetIothreadInfo({ domain, flags: ['live'] })).map((thread) => thread.iothread)).toEqual([3]);
    await libvirt.domainPinIothread({ domain, iothread: 3, cpus: [0], flags: ['live'] });
    expect(await libvirt.domainGetIothreadInfo({ domain, flags: ['live'] })).toEqual([{ iothread: 3, cpus: [0] }]);
    await libvirt.domainSetIothreadParams({ domain, iothread: 3, parameters: { poll_max_ns: 40_000, poll_grow: 2 }, flags: ['live'] });
    await libvirt.domainDelIothread({ domain, iothread: 3, flags: ['live'] });
    await libvirt.domainPinVcpuFlags({ domain, vcpu: 0, cpus: [0], flags: ['live'] });
    expect((await libvirt.domainGetVcpuPinInfo({ domain, flags: ['live'] }))[0]).toEqual([0]);
    await libvirt.domainPinEmulator({ domain, cpus: [0], flags: ['live'] });
    expect(await libvirt.domainGetEmulatorPinInfo({ domain, flags: ['live'] })).toEqual([0]);
    // Without root there are no control groups: what is left is the configuration.
    await libvirt.domainSetMemoryParameters({ domain, parameters: { hard_limit: 2_000_000 }, flags: ['config'] }).catch((error: unknown) => expect(error).toBeInstanceOf(LibvirtError));
    await expect(libvirt.domainSetSchedulerParametersFlags({ domain, parameters: { cpu_shares: 512 }, flags: ['live'] })).rejects.toBeInstanceOf(LibvirtError);
    await libvirt.domainSetLifecycleAction({ domain, event: 'crash', action: 'preserve', flags: ['live', 'config'] });
    expect(await libvirt.domainGetXmlDesc({ domain })).toContain('<on_crash>preserve</on_crash>');
  });

  it('is told of on its monitor', async () => {
    const monitor = await libvirt.monitorEvents({ domain });
    await libvirt.domainSuspend({ domain });
    await libvirt.domainResume({ domain });
    const names: string[] = [];
    for await (const event of monitor) {
      if (event.kind === 'gap') throw new Error('a gap');
      expect(event.domain.uuid).toBe(uuid);
      expect(event.seconds).toBeGreaterThan(1_600_000_000);
      names.push(event.event);
      if (event.event === 'RESUME') break;
    }
    expect(names).toEqual(expect.arrayContaining(['STOP', 'RESUME']));
    await libvirt.domainSendKey({ domain, keys: [28] });
    await libvirt.domainInjectNmi({ domain });
    expect(JSON.parse(await libvirt.domainMonitorCommand({ domain, command: '{"execute":"query-status"}' }))).toMatchObject({ return: { status: 'running' } });
    await expect(libvirt.domainAttach({ pid: 1 })).rejects.toBeInstanceOf(LibvirtError);
    await expect(libvirt.domainSendProcessSignal({ domain, pid: 1, signal: 15 })).rejects.toBeInstanceOf(LibvirtError);
    await expect(libvirt.domainGetLaunchSecurityInfo({ domain })).resolves.toEqual({});
    await expect(libvirt.domainSetLaunchSecurityState({ domain, parameters: { 'sev-secret': 'AA==', 'sev-secret-header': 'AA==' } })).rejects.toBeInstanceOf(LibvirtError);
  });

  it('begins again without what was plugged in, and shuts down through its agent', async () => {
    await libvirt.domainDestroyFlags({ domain });
    domain = await libvirt.domainCreateWithFlags({ domain });
    expect(await libvirt.domainGetVcpusFlags({ domain, flags: ['live'] })).toBe(1);
    await agentAnswers(libvirt, domain);
    await libvirt.domainShutdownFlags({ domain, modes: ['agent'] });
    expect(await sawEvent((event) => event.kind === 'lifecycle' && event.event === 'stopped' && event.detail === 'shutdown')).toBeDefined();
    expect(await libvirt.domainGetState({ domain })).toEqual({ state: 'shutoff', reason: 'shutdown' });
    await expect(libvirt.domainGetGuestInfo({ domain })).rejects.toSatisfy(isOperationInvalid);
    await expect(libvirt.domainGetHostname({ domain, flags: ['lease'] })).rejects.toMatchObject({ code: errorCodes.operationInvalid });
    await libvirt.domainUndefineFlags({ domain });
  });
});
