/** Domains: what the test driver can do of their description, devices, limits, statistics and guest agent. */
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { connect } from './connection.ts';
import type { Libvirt } from './connection.ts';
import { readDomain } from './domain-xml.ts';
import { isNoDomain, isOperationInvalid, LibvirtError, UnsupportedError } from './errors.ts';
import type { Domain } from './layouts.ts';
import { connections, failures } from './testing-connections.ts';
import { startLibvirtd } from './testing-libvirtd.os.ts';
import type { OwnLibvirtd } from './testing-libvirtd.os.ts';

let daemon: OwnLibvirtd;
let anchor: Libvirt;
let libvirt: Libvirt;
let domain: Domain;
const { reach, closeAll } = connections();
const unlimited = 2 ** 53 - 1;

const guest = (name: string) => `<domain type='test'><name>${name}</name><memory unit='MiB'>64</memory><vcpu current='1'>4</vcpu><iothreads>2</iothreads>
  <os><type>hvm</type></os><devices>
    <disk type='file' device='disk'><source file='/${name}.img'/><target dev='vda' bus='virtio'/></disk>
    <interface type='network'><mac address='52:54:0a:00:00:09'/><source network='default'/><target dev='nic9'/></interface>
    <memballoon model='virtio'/></devices></domain>`;

beforeAll(async () => {
  daemon = await startLibvirtd();
  anchor = await connect(daemon.testDriver);
  domain = await anchor.domainCreateXml({ xml: guest('one') });
}, 60_000);
afterEach(closeAll);
afterAll(async () => {
  await anchor?.close();
  await daemon?.stop();
});

describe('a domain of the test driver', () => {
  it('is described', async () => {
    libvirt = await reach(daemon.testDriver);
    expect(await libvirt.connectNumOfDomains()).toBe(2);
    expect([...(await libvirt.connectListDomains())].sort()).toEqual([1, domain.id]);
    expect(await libvirt.domainIsUpdated({ domain })).toBe(false);
    expect(await libvirt.domainGetOsType({ domain })).toBe('linux');
    expect(await libvirt.domainGetHostname({ domain })).toBe('onehost');
    expect(await libvirt.domainGetControlInfo({ domain })).toEqual({ state: 'ok', details: 'none', stateTimeMs: 0 });
    expect(await libvirt.domainGetMessages({ domain })).toEqual([]);
    expect(await libvirt.domainGetSecurityLabel({ domain })).toEqual({ label: 'libvirt-test', enforcing: true });
    expect(await libvirt.domainGetSecurityLabelList({ domain })).toEqual([]);
  });

  it('is renamed while it is off', async () => {
    libvirt = await reach(daemon.testDriver);
    const before = await libvirt.domainDefineXml({ xml: guest('before') });
    expect(await libvirt.connectListDefinedDomains()).toEqual(['before']);
    expect(await libvirt.connectNumOfDefinedDomains()).toBe(1);
    await libvirt.domainRename({ domain: before, name: 'after' });
    const after = await libvirt.domainLookupByName({ name: 'after' });
    expect(after.uuid).toBe(before.uuid);
    await libvirt.domainCreate({ domain: after });
    await expect(libvirt.domainRename({ domain: after, name: 'never' })).rejects.toSatisfy(isOperationInvalid);
    await libvirt.domainShutdown({ domain: after });
    await libvirt.domainCreate({ domain: after });
    await libvirt.domainDestroy({ domain: after });
    await libvirt.domainUndefine({ domain: after });
    await expect(libvirt.domainLookupByName({ name: 'after' })).rejects.toSatisfy(isNoDomain);
  });

  it('is saved and restored, and its memory is dumped', async () => {
    libvirt = await reach(daemon.testDriver);
    const saved = await libvirt.domainDefineXmlFlags({ xml: guest('saved') });
    await libvirt.domainCreateWithFlags({ domain: saved });
    await libvirt.domainManagedSave({ domain: saved, flags: ['running'] });
    expect(await libvirt.domainHasManagedSaveImage({ domain: saved })).toBe(true);
    expect(await libvirt.domainGetState({ domain: saved })).toEqual({ state: 'shutoff', reason: 'saved' });
    await libvirt.domainManagedSaveRemove({ domain: saved });
    expect(await libvirt.domainHasManagedSaveImage({ domain: saved })).toBe(false);
    await libvirt.domainCreateWithFlags({ domain: saved });

    const file = `${daemon.directory}/run/saved.image`;
    await libvirt.domainSaveFlags({ domain: saved, to: file });
    expect(readDomain(await libvirt.domainSaveImageGetXmlDesc({ file }))).toMatchObject({ name: 'saved', memoryKib: 65_536 });
    await libvirt.domainSaveImageDefineXml({ file, xml: (await libvirt.domainSaveImageGetXmlDesc({ file })).replace('<memory', '<title>kept</title><memory') });
    expect(readDomain(await libvirt.domainSaveImageGetXmlDesc({ file })).title).toBe('kept');
    await libvirt.domainRestoreFlags({ from: file });
    expect(await libvirt.domainGetState({ domain: saved })).toMatchObject({ state: 'running' });
    await libvirt.domainSave({ domain: saved, to: file });
    await libvirt.domainRestore({ from: file });
    await expect(libvirt.domainSaveParams({ domain: saved, parameters: { file } })).rejects.toBeInstanceOf(UnsupportedError);
    await expect(libvirt.domainRestoreParams({ parameters: { file } })).rejects.toBeInstanceOf(UnsupportedError);
    expect(await libvirt.domainGetState({ domain: saved })).toMatchObject({ state: 'running' });
    const core = `${daemon.directory}/run/core`;
    await libvirt.domainCoreDump({ domain: saved, to: core });
    await libvirt.domainCoreDumpWithFormat({ domain: saved, to: core, flags: ['crash'] });
    expect(await libvirt.domainGetState({ domain: saved })).toEqual({ state: 'shutoff', reason: 'crashed' });
    await libvirt.domainUndefineFlags({ domain: saved });
  });

  it('has vCPUs, where they may run, and threads for its disks', async () => {
    libvirt = await reach(daemon.testDriver);
    expect(await libvirt.domainGetVcpusFlags({ domain, flags: ['maximum'] })).toBe(4);
    expect(await libvirt.domainGetMaxVcpus({ domain })).toBe(4);
    expect(await libvirt.domainGetVcpusFlags({ domain })).toBe(1);
    await libvirt.domainSetVcpusFlags({ domain, vcpus: 3, flags: ['live'] });
    await libvirt.domainSetVcpus({ domain, vcpus: 2 });
    expect(await libvirt.domainGetVcpusFlags({ domain, flags: ['live'] })).toBe(2);
    await libvirt.domainPinVcpuFlags({ domain, vcpu: 0, cpus: [1, 3, 9] });
    await libvirt.domainPinVcpu({ domain, vcpu: 1, cpus: [15] });
    const all = Array.from({ length: 16 }, (_, cpu) => cpu);
    expect(await libvirt.domainGetVcpuPinInfo({ domain })).toEqual([[1, 3, 9], [15], all, all]);
    const vcpus = await libvirt.domainGetVcpus({ domain });
    expect(vcpus).toMatchObject([
      { vcpu: 0, state: 'running', cpus: [1, 3, 9] },
      { vcpu: 1, state: 'running', cpus: [15] },
    ]);
    expect(vcpus[0]?.timeNs).toBeGreaterThan(0n);
    await libvirt.domainPinEmulator({ domain, cpus: [2, 4] });
    expect(await libvirt.domainGetEmulatorPinInfo({ domain })).toEqual([2, 4]);
    expect((await libvirt.domainGetIothreadInfo({ domain })).map((thread) => thread.iothread)).toEqual([1, 2]);
    await libvirt.domainAddIothread({ domain, iothread: 7 });
    await libvirt.domainPinIothread({ domain, iothread: 7, cpus: [5] });
    expect(await libvirt.domainGetIothreadInfo({ domain })).toContainEqual({ iothread: 7, cpus: [5] });
    await libvirt.domainSetIothreadParams({ domain, iothread: 7, parameters: { poll_max_ns: 1_000 } }).catch((error: unknown) => {
      // The test driver knows the call, and takes nothing by it.
      expect(error).toBeInstanceOf(LibvirtError);
    });
    await libvirt.domainDelIothread({ domain, iothread: 7 });
    await expect(libvirt.domainPinVcpu({ domain, vcpu: 0, cpus: [-1] })).rejects.toBeInstanceOf(TypeError);
  });

  it('has limits', async () => {
    libvirt = await reach(daemon.testDriver);
    expect(await libvirt.domainGetMaxMemory({ domain })).toBe(65_536);
    await expect(libvirt.domainSetMaxMemory({ domain, memoryKib: 131_072 })).rejects.toSatisfy(isOperationInvalid);
    await libvirt.domainSetMemoryFlags({ domain, memoryKib: 49_152, flags: ['live'] });
    expect((await libvirt.domainGetInfo({ domain })).memoryKib).toBe(49_152);
    await libvirt.domainSetMemory({ domain, memoryKib: 32_768 });
    expect((await libvirt.domainGetInfo({ domain })).memoryKib).toBe(32_768);
    await libvirt.domainSetMemoryStatsPeriod({ domain, seconds: 2 });
    expect(await libvirt.domainGetMemoryParameters({ domain })).toEqual({ hard_limit: unlimited, soft_limit: unlimited, swap_hard_limit: unlimited });
    await libvirt.domainSetMemoryParameters({ domain, parameters: { hard_limit: 200_000, soft_limit: 100_000 } });
    expect(await libvirt.domainGetMemoryParameters({ domain, flags: ['live'] })).toMatchObject({ hard_limit: 200_000, soft_limit: 100_000 });
    expect(await libvirt.domainGetBlkioParameters({ domain })).toMatchObject({ weight: 0, device_weight: '' });
    await libvirt.domainSetBlkioParameters({ domain, parameters: { weight: 500, device_weight: '/dev/sda,300' } });
    expect(await libvirt.domainGetBlkioParameters({ domain })).toMatchObject({ weight: 500, device_weight: '/dev/sda,300' });
    expect(await libvirt.domainGetNumaParameters({ domain })).toEqual({ numa_mode: 0, numa_nodeset: '' });
    await libvirt.domainSetNumaParameters({ domain, parameters: { numa_nodeset: '0', numa_mode: 0 } }).catch((error: unknown) => expect(error).toBeInstanceOf(LibvirtError));
    expect(await libvirt.domainGetSchedulerType({ domain })).toEqual({ type: 'fair', parameters: 1 });
    expect(await libvirt.domainGetSchedulerParameters({ domain })).toEqual({ weight: 50 });
    await libvirt.domainSetSchedulerParameters({ domain, parameters: { weight: 60 } });
    await libvirt.domainSetSchedulerParametersFlags({ domain, parameters: { weight: 60 } });
    // It does not know the flag that libvirt itself adds.
    await expect(libvirt.domainGetSchedulerParametersFlags({ domain })).rejects.toMatchObject({ code: 8 });

    const tune = { total_bytes_sec: 1_048_576, total_bytes_sec_max: 2_097_152, total_bytes_sec_max_length: 3, total_iops_sec: 400, total_iops_sec_max: 401, group_name: 'slow' };
    await libvirt.domainSetBlockIoTune({ domain, disk: 'vda', parameters: tune });
    expect(await libvirt.domainGetBlockIoTune({ domain, disk: 'vda' })).toMatchObject({ ...tune, read_bytes_sec: 0 });
    await libvirt.domainSetInterfaceParameters({ domain, device: 'nic9', parameters: { 'inbound.average': 100, 'outbound.average': 200, 'outbound.peak': 300 } });
    expect(await libvirt.domainGetInterfaceParameters({ domain, device: 'nic9' })).toMatchObject({ 'inbound.average': 100, 'outbound.average': 200, 'outbound.peak': 300 });
    await libvirt.domainSetPerfEvents({ domain, parameters: { cpu_cycles: true } });
    expect(await libvirt.domainGetPerfEvents({ domain })).toMatchObject({ cpu_cycles: true, cmt: false });
    // A field that is not known needs its type, and then goes out as it is.
    await expect(libvirt.domainSetPerfEvents({ domain, parameters: { more: { no_such: { bool: true } } } })).rejects.toMatchObject({ code: 74, reason: expect.stringContaining('no_such') as string });
    await expect(libvirt.domainSetPerfEvents({ domain, parameters: { no_such: true } as never })).rejects.toBeInstanceOf(TypeError);
  });

  it('has statistics', async () => {
    libvirt = await reach(daemon.testDriver);
    const { cpus, count } = await libvirt.domainGetCpuStats({ domain });
    expect([count, cpus.length, Object.keys(cpus[0] ?? {})]).toEqual([3, 1, ['cpu_time', 'user_time', 'system_time']]);
    // Of the machine that the daemon is on.
    const there = (await libvirt.domainGetCpuStats({ domain, firstCpu: 0, cpus: 0 })).count;
    expect(there).toBeGreaterThan(0);
    const each = await libvirt.domainGetCpuStats({ domain, firstCpu: 0, cpus: there });
    expect(each.cpus.length).toBe(there);
    for (const one of each.cpus) expect(Object.keys(one)).toEqual(['cpu_time', 'vcpu_time']);
    expect(each.cpus.at(-1)?.['cpu_time']).toBeGreaterThan(0n);
    expect(await libvirt.domainMemoryStats({ domain })).toMatchObject({ balloonKib: 32_768, diskCachesKib: 4_096, hugetlbPageFailures: 0, lastUpdateSeconds: 627_319_920 });
    expect((await libvirt.domainBlockStats({ domain, path: 'vda' })).readBytes).toBeGreaterThan(0n);
    expect(await libvirt.domainGetBlockInfo({ domain, path: 'vda' })).toEqual({ allocationBytes: 1_099_511_627_776, capacityBytes: 1_099_506_450_432, physicalBytes: 1_099_511_627_776 });
    const nic = await libvirt.domainInterfaceStats({ domain, device: 'nic9' });
    expect(nic.rxBytes).toBeGreaterThan(nic.txBytes);
    expect(await libvirt.domainGetDiskErrors({ domain })).toEqual([{ disk: 'vda', error: 'unspecified' }]);
  });

  it('has a guest that answers', async () => {
    libvirt = await reach(daemon.testDriver);
    await libvirt.domainSetUserPassword({ domain, user: 'root', password: 'secret' });
    expect(await libvirt.domainGetFsinfo({ domain })).toEqual([
      { mountpoint: '/', name: 'vda1', type: 'ext4', devices: ['vda'] },
      { mountpoint: '/boot', name: 'vda2', type: 'ext4', devices: ['vda'] },
    ]);
    expect(await libvirt.domainFsfreeze({ domain })).toBe(2);
    expect(await libvirt.domainFsthaw({ domain, mountpoints: ['/'] })).toBe(1);
    expect(await libvirt.domainFsthaw({ domain })).toBe(1);
    await libvirt.domainFstrim({ domain });
    await libvirt.domainFstrim({ domain, mountpoint: '/', minimumBytes: 4_096 });
    expect(await libvirt.domainGetTime({ domain })).toEqual({ seconds: 627_319_920, nanoseconds: 0 });
    await libvirt.domainSetTime({ domain, seconds: 1 });
    await libvirt.domainInjectNmi({ domain });
    await libvirt.domainSendKey({ domain, keys: [29, 56, 111], holdMs: 50 });
    await libvirt.domainSendProcessSignal({ domain, pid: 1, signal: 15 });
    await libvirt.domainSetLifecycleAction({ domain, event: 'crash', action: 'preserve', flags: ['live'] });
    expect(await libvirt.domainMemoryPeek({ domain, offset: 16, size: 5, address: 'physical' })).toHaveLength(5);
    const screen = await libvirt.domainScreenshot({ domain });
    expect(screen.answer).toBe('image/png');
    const png = Buffer.concat(await screen.toArray() as Buffer[]);
    expect(png.subarray(1, 4).toString()).toBe('PNG');
  });

  it('lacks the rest, and says so', async () => {
    libvirt = await reach(daemon.testDriver);
    const device = "<disk type='file'><source file='/h.img'/><target dev='vdb'/></disk>";
    const refused = await failures([
      libvirt.domainAttachDevice({ domain, xml: device }),
      libvirt.domainAttachDeviceFlags({ domain, xml: device }),
      libvirt.domainDetachDevice({ domain, xml: device }),
      libvirt.domainDetachDeviceFlags({ domain, xml: device }),
      libvirt.domainUpdateDeviceFlags({ domain, xml: device }),
      libvirt.domainDetachDeviceAlias({ domain, alias: 'net0' }),
      libvirt.domainSetVcpu({ domain, vcpus: '1', enabled: true }),
      libvirt.domainGetGuestVcpus({ domain }),
      libvirt.domainSetGuestVcpus({ domain, vcpus: '1', enabled: false }),
      libvirt.domainBlockStatsFlags({ domain, path: 'vda' }),
      libvirt.domainGetJobInfo({ domain }),
      libvirt.domainGetJobStats({ domain }),
      libvirt.domainAbortJob({ domain }),
      libvirt.domainAbortJobFlags({ domain }),
      libvirt.domainStartDirtyRateCalc({ domain, seconds: 1 }),
      libvirt.domainGetGuestInfo({ domain }),
      libvirt.domainAuthorizedSshKeysGet({ domain, user: 'root' }),
      libvirt.domainAuthorizedSshKeysSet({ domain, user: 'root', keys: [] }),
      libvirt.domainAgentSetResponseTimeout({ domain, timeout: 1 }),
      libvirt.domainSetLaunchSecurityState({ domain, parameters: { 'sev-secret': 'x', 'sev-secret-header': 'y' } }),
      libvirt.domainBlockCommit({ domain, disk: 'vda' }),
      libvirt.domainBlockPull({ domain, disk: 'vda' }),
      libvirt.domainBlockRebase({ domain, disk: 'vda' }),
      libvirt.domainBlockCopy({ domain, disk: 'vda', xml: device }),
      libvirt.domainBlockJobAbort({ domain, disk: 'vda' }),
      libvirt.domainGetBlockJobInfo({ domain, disk: 'vda' }),
      libvirt.domainBlockJobSetSpeed({ domain, disk: 'vda', bandwidth: 1 }),
      libvirt.domainBlockResize({ domain, disk: 'vda', size: 1 }),
      libvirt.domainBlockPeek({ domain, disk: 'vda', offset: 0, size: 1 }),
      libvirt.domainSetBlockThreshold({ domain, device: 'vda', thresholdBytes: 1 }),
      libvirt.domainPmSuspendForDuration({ domain }),
      libvirt.domainPmWakeup({ domain }),
      libvirt.domainManagedSaveGetXmlDesc({ domain }),
      libvirt.domainManagedSaveDefineXml({ domain, xml: guest('one') }),
      libvirt.domainOpenChannel({ domain }),
      libvirt.domainMigrateGetMaxSpeed({ domain }),
      libvirt.domainMigrateGetMaxDowntime({ domain }),
      libvirt.domainMigrateSetMaxDowntime({ domain, downtimeMs: 1 }),
      libvirt.domainMigrateSetMaxSpeed({ domain, mibPerSecond: 1 }),
      libvirt.domainMigrateGetCompressionCache({ domain }),
      libvirt.domainMigrateSetCompressionCache({ domain, cacheBytes: 65_536 }),
      libvirt.domainMigrateStartPostCopy({ domain }),
    ]);
    expect(refused.map((error, index) => (error instanceof UnsupportedError ? undefined : `${index} ${String(error)}`)).filter((one) => one !== undefined)).toEqual([]);
    await expect(libvirt.domainGetLaunchSecurityInfo({ domain })).rejects.toBeInstanceOf(LibvirtError);
  });
});
