/** The node, its processors, memory, devices and interfaces, and secrets. */
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { connect } from './connection.ts';
import type { Libvirt } from './connection.ts';
import { errorCodes, isAccessDenied, LibvirtError, UnsupportedError } from './errors.ts';
import { collect, connections, failures } from './testing-connections.ts';
import { startLibvirtd } from './testing-libvirtd.os.ts';
import type { OwnLibvirtd } from './testing-libvirtd.os.ts';

let daemon: OwnLibvirtd;
/** The test driver's state lasts as long as someone is connected. */
let anchor: Libvirt;
const { reach, closeAll } = connections();

beforeAll(async () => {
  daemon = await startLibvirtd();
  anchor = await connect(daemon.testDriver);
}, 60_000);
afterEach(closeAll);
afterAll(async () => {
  await anchor?.close();
  await daemon?.stop();
});

const cpu = (model: string, architecture = 'x86_64') => `<cpu><arch>${architecture}</arch><model>${model}</model></cpu>`;

describe('the node of the test driver', () => {
  it('is described', async () => {
    const libvirt = await reach(daemon.testDriver);
    expect(await libvirt.connectIsSecure()).toBe(true);
    expect(await libvirt.connectGetSysinfo()).toMatch(/^<sysinfo type='smbios'>/);
    expect(await libvirt.connectGetMaxVcpus()).toBe(32);
    const models = await libvirt.connectGetCpuModelNames({ architecture: 'x86_64' });
    expect(models).toEqual(expect.arrayContaining(['qemu64', 'Nehalem']));
    expect(await libvirt.connectBaselineCpu({ cpus: [cpu('Nehalem'), cpu('Westmere')] })).toContain('Nehalem');
    expect(await libvirt.nodeGetSecurityModel()).toEqual({ model: 'testSecurity', doi: '' });
    expect(await libvirt.nodeGetCpuMap()).toEqual({ online: [0, 2, 4], onlineCount: 3, count: 8 });
    expect(await libvirt.nodeGetCellsFreeMemory()).toEqual([2_097_152, 4_194_304]);
    expect(await libvirt.nodeGetCellsFreeMemory({ first: 1, cells: 1 })).toEqual([4_194_304]);
    const { stats, count } = await libvirt.nodeGetCpuStats();
    expect(count).toBe(4);
    expect(Object.keys(stats).sort()).toEqual(['idle', 'iowait', 'kernel', 'user']);
    expect(stats['idle']).toBeGreaterThan(0n);
    // For whoever asks for the count alone.
    expect(await libvirt.nodeGetCpuStats({ count: 0 })).toMatchObject({ count: 4 });
    await libvirt.connectSetIdentity({ parameters: { 'user-name': 'someone', 'process-id': 1 } });
  });

  it('has devices', async () => {
    const libvirt = await reach(daemon.testDriver);
    const events = await libvirt.nodeDeviceEvents();
    expect(await libvirt.connectListAllNodeDevices({ filter: ['system'] })).toEqual([{ name: 'computer' }]);
    expect(await libvirt.nodeDeviceLookupByName({ name: 'computer' })).toEqual({ name: 'computer' });
    expect(await libvirt.nodeDeviceGetXmlDesc({ name: 'computer' })).toContain("<capability type='system'>");
    expect(await libvirt.nodeDeviceGetParent({ name: 'computer' })).toBeNull();
    expect(await libvirt.nodeDeviceGetParent({ name: 'scsi_host1' })).toBe('computer');
    expect(await libvirt.nodeDeviceListCaps({ name: 'computer' })).toEqual(['system']);
    expect(await libvirt.nodeDeviceNumOfCaps({ name: 'computer' })).toBe(1);
    expect(await libvirt.nodeNumOfDevices({ capability: 'system' })).toBe(1);
    expect(await libvirt.nodeListDevices({ capability: 'system' })).toEqual(['computer']);
    const made = await libvirt.nodeDeviceCreateXml({
      xml: `<device><parent>scsi_host1</parent><capability type='scsi_host'><capability type='fc_host'><wwnn>2000000012341234</wwnn><wwpn>2000000012341235</wwpn></capability></capability></device>`,
    });
    expect(made.name).toMatch(/^scsi_host\d+$/);
    await expect(libvirt.nodeDeviceLookupScsiHostByWwn({ wwnn: '2000000012341234', wwpn: '2000000012341235' })).rejects.toBeInstanceOf(UnsupportedError);
    await libvirt.nodeDeviceDestroy({ name: made.name });
    const seen = await collect(events, (all) => all.length === 2);
    expect(seen).toEqual(['created', 'deleted'].map((event) => ({ kind: 'lifecycle', device: made, event })));
    const refused = await failures([
      libvirt.nodeDeviceDetachFlags({ name: 'computer' }),
      libvirt.nodeDeviceReAttach({ name: 'computer' }),
      libvirt.nodeDeviceReset({ name: 'computer' }),
      libvirt.nodeDeviceDettach({ name: 'computer' }),
      libvirt.nodeDeviceIsActive({ name: 'computer' }),
    ]);
    for (const error of refused) expect(error).toBeInstanceOf(UnsupportedError);
  });

  it('has interfaces, whose changes can be taken back', async () => {
    const libvirt = await reach(daemon.testDriver);
    const eth1 = { name: 'eth1', mac: 'aa:bb:cc:dd:ee:ff' };
    expect(await libvirt.connectListAllInterfaces({ filter: ['active'] })).toEqual([eth1]);
    expect(await libvirt.interfaceLookupByName({ name: 'eth1' })).toEqual(eth1);
    expect(await libvirt.interfaceLookupByMacString({ mac: eth1.mac })).toEqual(eth1);
    expect(await libvirt.interfaceGetXmlDesc({ interface: { name: 'eth1' } })).toContain("<interface type='ethernet' name='eth1'>");
    await libvirt.interfaceChangeBegin();
    const eth9 = await libvirt.interfaceDefineXml({
      xml: `<interface type='ethernet' name='eth9'><start mode='none'/><mac address='aa:bb:cc:dd:ee:09'/><protocol family='ipv4'><dhcp/></protocol></interface>`,
    });
    expect(await libvirt.interfaceIsActive({ interface: eth9 })).toBe(false);
    expect(await libvirt.connectListDefinedInterfaces()).toEqual(['eth9']);
    expect(await libvirt.connectNumOfDefinedInterfaces()).toBe(1);
    await libvirt.interfaceCreate({ interface: eth9 });
    expect(await libvirt.connectNumOfInterfaces()).toBe(2);
    expect([...(await libvirt.connectListInterfaces())].sort()).toEqual(['eth1', 'eth9']);
    await libvirt.interfaceDestroy({ interface: eth9 });
    await libvirt.interfaceUndefine({ interface: eth9 });
    await libvirt.interfaceDestroy({ interface: eth1 });
    await libvirt.interfaceUndefine({ interface: eth1 });
    await expect(libvirt.interfaceLookupByName({ name: 'eth1' })).rejects.toMatchObject({ code: errorCodes.noInterface });
    await libvirt.interfaceChangeRollback();
    expect(await libvirt.interfaceLookupByName({ name: 'eth1' })).toEqual(eth1);
    await libvirt.interfaceChangeBegin();
    await libvirt.interfaceChangeCommit();
  });

  it('says which of its parts it lacks', async () => {
    const libvirt = await reach(daemon.testDriver);
    const refused = await failures([
      libvirt.connectCompareCpu({ xml: cpu('qemu64') }),
      libvirt.connectCompareHypervisorCpu({ xml: cpu('qemu64') }),
      libvirt.connectBaselineHypervisorCpu({ cpus: [cpu('qemu64')] }),
      libvirt.connectDomainXmlToNative({ format: 'qemu-argv', xml: '' }),
      libvirt.connectDomainXmlFromNative({ format: 'qemu-argv', config: '' }),
      libvirt.nodeAllocPages({ pageKib: [4], counts: [1] }),
      libvirt.nodeGetMemoryStats(),
      libvirt.nodeGetMemoryParameters(),
      libvirt.nodeSetMemoryParameters({ parameters: { shm_sleep_millisecs: 20 } }),
      libvirt.nodeSuspendForDuration({ seconds: 60 }),
      libvirt.nodeGetSevInfo(),
      libvirt.connectListAllSecrets(),
      libvirt.connectListAllNwfilters(),
      libvirt.connectListAllNwfilterBindings(),
      libvirt.connectListNwfilters(),
      libvirt.connectNumOfNwfilters(),
    ]);
    for (const error of refused) expect(error).toBeInstanceOf(UnsupportedError);
  });
});

describe('the node under QEMU', () => {
  it('compares processors', async () => {
    const libvirt = await reach(daemon.qemuSession);
    const hypervisor = { virtualisation: 'qemu', architecture: 'x86_64' };
    expect(await libvirt.connectCompareHypervisorCpu({ ...hypervisor, xml: cpu('qemu64') })).toMatch(/^(superset|identical|incompatible)$/);
    const wrong = cpu('qemu64').replace('</cpu>', "<feature policy='require' name='amx-tile'/></cpu>");
    expect(await libvirt.connectCompareHypervisorCpu({ ...hypervisor, xml: wrong })).toBe('incompatible');
    await expect(libvirt.connectCompareHypervisorCpu({ ...hypervisor, xml: wrong, flags: ['failIncompatible'] })).rejects.toMatchObject({ code: 91 });
    expect(await libvirt.connectCompareCpu({ xml: wrong })).toBe('incompatible');
    expect(await libvirt.connectBaselineHypervisorCpu({ ...hypervisor, cpus: [cpu('qemu64')] })).toContain('<model');
    const config = await libvirt.connectDomainXmlToNative({
      format: 'qemu-argv',
      xml: `<domain type='qemu'><name>native</name><memory unit='MiB'>32</memory><os><type arch='x86_64' machine='pc'>hvm</type></os><devices><emulator>/usr/bin/qemu-system-x86_64</emulator></devices></domain>`,
    });
    expect(config).toContain('-name guest=native');
    await expect(libvirt.connectDomainXmlFromNative({ format: 'qemu-argv', config })).rejects.toBeInstanceOf(LibvirtError);
  });

  it('counts its memory and its processors', async () => {
    const libvirt = await reach(daemon.qemuSession);
    const info = await libvirt.nodeGetInfo();
    const { stats } = await libvirt.nodeGetMemoryStats();
    expect(Object.keys(stats).sort()).toEqual(['buffers', 'cached', 'free', 'total']);
    expect(stats['total']).toBeGreaterThan(stats['free'] as number);
    const map = await libvirt.nodeGetCpuMap();
    expect(map.onlineCount).toBe(map.online.length);
    expect(map.onlineCount).toBeGreaterThanOrEqual(info.cpus);
    expect((await libvirt.nodeGetCpuStats({ cpu: map.online[0] as number })).stats['user']).toBeGreaterThan(0n);
    expect((await libvirt.nodeGetFreePages({ pageKib: [4] })).length).toBe(1);
    expect((await libvirt.nodeGetSecurityModel()).model).toMatch(/^[a-z]*$/);
    // Only root may change them.
    await expect(libvirt.nodeSetMemoryParameters({ parameters: { shm_sleep_millisecs: 20 } })).rejects.toBeInstanceOf(LibvirtError);
    await expect(libvirt.nodeGetSevInfo()).rejects.toBeInstanceOf(LibvirtError);
  });

  it('keeps secrets, and tells of them', async () => {
    const libvirt = await reach(daemon.qemuSession);
    const events = await libvirt.secretEvents();
    const secret = await libvirt.secretDefineXml({ xml: `<secret ephemeral='no' private='no'><usage type='ceph'><name>client.test</name></usage></secret>`, flags: ['validate'] });
    expect(secret).toMatchObject({ usage: 'ceph', usageId: 'client.test' });
    const value = Buffer.from([0, 1, 2, 255, 10]);
    await libvirt.secretSetValue({ secret, value });
    expect(await libvirt.secretGetValue({ secret: { uuid: secret.uuid } })).toEqual(value);
    expect(await libvirt.connectListAllSecrets({ filter: ['noEphemeral'] })).toEqual([secret]);
    expect(await libvirt.connectListAllSecrets({ filter: ['ephemeral'] })).toEqual([]);
    expect(await libvirt.connectListSecrets()).toEqual([secret.uuid]);
    expect(await libvirt.connectNumOfSecrets()).toBe(1);
    expect(await libvirt.secretLookupByUuid({ uuid: secret.uuid })).toEqual(secret);
    expect(await libvirt.secretLookupByUsage({ usage: 'ceph', usageId: 'client.test' })).toEqual(secret);
    expect(await libvirt.secretGetXmlDesc({ secret })).toContain("<usage type='ceph'>");
    const hidden = await libvirt.secretDefineXml({ xml: `<secret ephemeral='yes' private='yes'><usage type='volume'><volume>/hidden</volume></usage></secret>` });
    await libvirt.secretSetValue({ secret: hidden, value });
    await expect(libvirt.secretGetValue({ secret: hidden })).rejects.toSatisfy((error: unknown) => isAccessDenied(error) || (error as LibvirtError).code === errorCodes.invalidSecret);
    await libvirt.secretUndefine({ secret: hidden });
    await libvirt.secretUndefine({ secret });
    await expect(libvirt.secretLookupByUuid({ uuid: secret.uuid })).rejects.toMatchObject({ code: errorCodes.noSecret });
    const seen = await collect(events, (all) => all.length === 6);
    expect(seen.map((event) => (event.kind === 'lifecycle' ? `${event.event} ${event.secret.usage}` : `${event.kind} ${event.secret.usage}`))).toEqual([
      'defined ceph',
      'valueChanged ceph',
      'defined volume',
      'valueChanged volume',
      'undefined volume',
      'undefined ceph',
    ]);
  });

  it('has devices', async () => {
    const libvirt = await reach(daemon.qemuSession);
    const devices = await libvirt.connectListAllNodeDevices();
    const computer = devices.find((device) => device.name === 'computer');
    if (computer === undefined) return; // no udev in some containers
    expect(await libvirt.nodeDeviceIsActive({ name: 'computer' })).toBe(true);
    expect(await libvirt.nodeDeviceIsPersistent({ name: 'computer' })).toBe(true);
    await expect(libvirt.nodeDeviceSetAutostart({ name: 'computer', autostart: true })).rejects.toBeInstanceOf(LibvirtError);
    await expect(libvirt.nodeDeviceUndefine({ name: 'computer' })).rejects.toBeInstanceOf(LibvirtError);
    await expect(libvirt.nodeDeviceCreate({ name: 'computer' })).rejects.toBeInstanceOf(LibvirtError);
    await expect(libvirt.nodeDeviceDefineXml({ xml: '<device/>' })).rejects.toBeInstanceOf(LibvirtError);
    expect(await libvirt.nodeDeviceGetAutostart({ name: 'computer' })).toBe(true);
  });
});
