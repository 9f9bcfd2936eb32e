/*
 * What the builders build is what libvirt's own schemas allow (virt-xml-validate), what real daemons take,
 * and what the readers read back; what real daemons write survives being read, changed and written.
 */
import { execFile } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { readCapabilities, readDomainCapabilities } from './capabilities-xml.ts';
import type { Libvirt } from './connection.ts';
import { buildDomain, diskElement, interfaceElement, readDomain } from './domain-xml.ts';
import { buildNetwork, dhcpHostElement, readNetwork } from './network-xml.ts';
import { buildBackup, buildCheckpoint, buildSnapshot, readCheckpoint, readSnapshot } from './snapshot-xml.ts';
import { buildPool, buildVolume, readPool, readVolume } from './storage-xml.ts';
import { connections } from './testing-connections.ts';
import { startLibvirtd } from './testing-libvirtd.os.ts';
import type { OwnLibvirtd } from './testing-libvirtd.os.ts';
import { buildXml, element, parseXml, textOf, withAttribute, withChild, XmlError } from './xml.ts';

const run = promisify(execFile);
const { reach, closeAll } = connections();
let daemon: OwnLibvirtd;
let test: Libvirt;
let folder: string;

beforeAll(async () => {
  daemon = await startLibvirtd();
  test = await reach(daemon.testDriver);
  folder = await mkdtemp(join(tmpdir(), 'cvxml-'));
}, 60_000);
afterAll(async () => {
  await closeAll();
  await daemon?.stop();
  if (folder !== undefined) await rm(folder, { recursive: true, force: true });
});

type Schema = 'domain' | 'network' | 'storagepool' | 'storagevol' | 'domainsnapshot' | 'domaincheckpoint' | 'domainbackup' | 'domaincaps';

/** Fails with the words of libvirt's validator. */
async function valid(xml: string, schema: Schema): Promise<void> {
  const file = join(folder, `${schema}.xml`);
  await writeFile(file, xml);
  // domaincaps is not among the names that virt-xml-validate knows; it is but a front of this.
  if (schema === 'domaincaps') await run('xmllint', ['--noout', '--relaxng', '/usr/share/libvirt/schemas/domaincaps.rng', file]);
  else await run('virt-xml-validate', [file, schema]);
}

describe('what is built, as libvirt’s schemas and the test driver see it', () => {
  it('is refused by the validator when it is wrong', async () => {
    await expect(valid('<domain type="qemu"><nmae>x</nmae></domain>', 'domain')).rejects.toThrow();
  });

  it('is a domain', async () => {
    const xml = buildDomain({
      virtualisation: 'qemu',
      name: 'built & checked',
      uuid: '7f0c0de0-0000-4000-8000-0000000000b1',
      title: 'a <title>',
      metadata: [element('cv:vm', { 'xmlns:cv': 'urn:chronovirt', id: 'vm_1' })],
      memoryKib: 262_144,
      memoryMax: { kib: 1_048_576, slots: 2 },
      vcpus: 1,
      vcpusMax: 2,
      architecture: 'x86_64',
      machine: 'q35',
      boot: ['hd', 'network'],
      features: ['acpi', 'apic', element('tcg', {}, element('tb-cache', { unit: 'MiB' }, 32))],
      cpu: element('cpu', { mode: 'custom', match: 'exact', check: 'none' }, element('model', { fallback: 'allow' }, 'qemu64'), element('numa', {}, element('cell', { id: 0, cpus: '0-1', memory: 262_144, unit: 'KiB' }))),
      clock: 'utc',
      onPoweroff: 'destroy',
      onReboot: 'restart',
      onCrash: 'coredump-restart',
      emulator: '/usr/bin/qemu-system-x86_64',
      disks: [
        { target: 'vda', bus: 'virtio', source: { file: '/images/a b.qcow2' }, format: 'qcow2', cache: 'none', discard: 'unmap', serial: 'disk-1' },
        { target: 'vdb', bus: 'virtio', source: { blockDevice: '/dev/vg/lv' }, alias: 'ua-data' },
        { target: 'vdc', bus: 'virtio', source: { pool: 'files', volume: 'v' }, format: 'raw' },
        { target: 'vdd', bus: 'virtio', source: { protocol: 'rbd', name: 'pool/image', hosts: [{ name: 'mon1', port: 6_789 }, { name: 'mon2' }] } },
        { target: 'sda', bus: 'sata', device: 'cdrom', readOnly: true },
      ],
      interfaces: [
        { source: { network: 'default' }, mac: '52:54:0a:00:00:01', mtu: 1_450, filter: 'clean-traffic', alias: 'ua-nic' },
        { source: { bridge: 'br0' }, model: 'e1000', link: 'down' },
        { source: 'user' },
      ],
      serial: { logFile: '/log/console' },
      agent: true,
      devices: [element('memballoon', { model: 'virtio' })],
    });
    await valid(xml, 'domain');
    const read = readDomain(xml);
    expect(read).toMatchObject({ name: 'built & checked', title: 'a <title>', memoryKibMax: 262_144, vcpus: 1, vcpusMax: 2, virtualisation: 'qemu' });
    expect(read.disks.map((disk) => [disk.target, disk.path, disk.format, disk.readOnly])).toEqual([
      ['vda', '/images/a b.qcow2', 'qcow2', false],
      ['vdb', '/dev/vg/lv', 'raw', false],
      ['vdc', undefined, 'raw', false],
      ['vdd', undefined, 'raw', false],
      ['sda', undefined, 'raw', true],
    ]);
    expect(read.interfaces.map((one) => [one.kind, one.network, one.bridge, one.model])).toEqual([
      ['network', 'default', undefined, 'virtio'],
      ['bridge', undefined, 'br0', 'e1000'],
      ['user', undefined, undefined, 'virtio'],
    ]);
    // QEMU's driver takes it, and gives back all that was said.
    const qemu = await reach(daemon.qemuSession);
    const domain = await qemu.domainDefineXmlFlags({ xml, flags: ['validate'] });
    const defined = readDomain(await qemu.domainGetXmlDesc({ domain }));
    expect({ ...defined, root: undefined, metadata: undefined, interfaces: defined.interfaces.slice(0, 1) }).toMatchObject({ name: read.name, title: read.title, interfaces: [{ mac: '52:54:0a:00:00:01' }] });
    expect(defined.disks.map((disk) => disk.path)).toEqual(read.disks.map((disk) => disk.path));
    await qemu.domainUndefineFlags({ domain });
    await valid(buildXml(diskElement({ target: 'vdb', bus: 'virtio', source: { file: '/x' } })), 'domain').then(
      () => expect.unreachable(),
      (error: unknown) => expect(error).toBeDefined(),
    );
    expect(buildXml(interfaceElement({ source: 'user', link: 'down' }))).toBe('<interface type="user"><model type="virtio"/><link state="down"/></interface>');
  });

  it('is a network', async () => {
    const xml = buildNetwork({
      name: 'built',
      uuid: '7f0c0de0-0000-4000-8000-0000000000b2',
      forward: 'nat',
      bridge: 'virbr90',
      mtu: 1_450,
      domain: { name: 'built.test', localOnly: true },
      addresses: [
        {
          address: '10.90.0.1',
          prefix: 24,
          dhcp: { ranges: [{ start: '10.90.0.10', end: '10.90.0.99' }], hosts: [{ mac: '52:54:0a:5a:00:02', address: '10.90.0.2', name: 'web' }] },
        },
        { family: 'ipv6', address: 'fd00:90::1', prefix: 64 },
      ],
      more: [element('dns', {}, element('host', { ip: '10.90.0.1' }, element('hostname', {}, 'gateway')))],
    });
    await valid(xml, 'network');
    const network = await test.networkDefineXmlFlags({ xml, flags: ['validate'] }).catch(() => test.networkDefineXml({ xml }));
    const read = readNetwork(await test.networkGetXmlDesc({ network }));
    expect(read).toMatchObject({
      name: 'built',
      bridge: 'virbr90',
      forward: 'nat',
      addresses: [
        { family: 'ipv4', address: '10.90.0.1', prefix: 24, dhcpRanges: [{ start: '10.90.0.10', end: '10.90.0.99' }], dhcpHosts: [{ mac: '52:54:0a:5a:00:02', address: '10.90.0.2', name: 'web' }] },
        { family: 'ipv6', address: 'fd00:90::1', prefix: 64 },
      ],
    });
    await test.networkUpdate({ network, command: 'addLast', section: 'ipDhcpHost', xml: buildXml(dhcpHostElement({ mac: '52:54:0a:5a:00:03', address: '10.90.0.3' })), flags: ['config'] });
    expect(readNetwork(await test.networkGetXmlDesc({ network })).addresses[0]?.dhcpHosts.length).toBe(2);
    await test.networkUndefine({ network });
  });

  it('is a pool and a volume', async () => {
    const dir = buildPool({ type: 'dir', name: 'built', path: '/built', permissions: { mode: '0711', owner: 0, group: 0 } });
    const rbd = buildPool({
      type: 'rbd',
      name: 'ceph',
      uuid: '7f0c0de0-0000-4000-8000-0000000000b3',
      source: { hosts: [{ name: 'mon1', port: 6_789 }], name: 'vms', auth: { type: 'ceph', username: 'admin', secretUuid: '7f0c0de0-0000-4000-8000-0000000000b4' } },
    });
    const nfs = buildPool({ type: 'netfs', name: 'nfs', source: { hosts: [{ name: 'server' }], directory: '/export', format: 'nfs' }, path: '/mnt/nfs' });
    const lvm = buildPool({ type: 'logical', name: 'vg', source: { devices: ['/dev/sdz'], name: 'vg', format: 'lvm2' }, path: '/dev/vg' });
    for (const xml of [dir, rbd, nfs, lvm]) await valid(xml, 'storagepool');
    expect(readPool(nfs)).toMatchObject({ type: 'netfs', name: 'nfs', path: '/mnt/nfs', source: { hosts: [{ name: 'server', port: undefined }], directory: '/export', format: 'nfs' } });
    expect(readPool(lvm).source).toMatchObject({ devices: ['/dev/sdz'], name: 'vg' });
    const pool = await test.storagePoolCreateXml({ xml: dir });
    expect(readPool(await test.storagePoolGetXmlDesc({ pool }))).toMatchObject({ type: 'dir', name: 'built', path: '/built', capacityBytes: expect.any(Number) as number });
    const volumeXml = buildVolume({ name: 'v.qcow2', capacityBytes: 2 ** 33, format: 'qcow2', backing: { path: '/images/base.qcow2', format: 'qcow2' } });
    await valid(volumeXml, 'storagevol');
    await valid(buildVolume({ name: 'v.raw', capacityBytes: 5, allocationBytes: 0 }), 'storagevol');
    expect(readVolume(volumeXml)).toMatchObject({ name: 'v.qcow2', capacityBytes: 2 ** 33, format: 'qcow2', compat: '1.1', backing: { path: '/images/base.qcow2', format: 'qcow2' } });
    const volume = await test.storageVolCreateXml({ pool, xml: volumeXml });
    const written = await test.storageVolGetXmlDesc({ volume });
    await valid(written, 'storagevol');
    expect(readVolume(written)).toMatchObject({ name: 'v.qcow2', capacityBytes: 2 ** 33, path: '/built/v.qcow2' });
    await test.storagePoolDestroy({ pool });
  });

  it('is a snapshot, a checkpoint and a backup', async () => {
    const outside = buildSnapshot({
      name: 's',
      description: 'before & after',
      memory: 'no',
      disks: [
        { target: 'vda', kept: { file: '/overlay.qcow2' } },
        { target: 'vdb', kept: 'no' },
      ],
    });
    await valid(outside, 'domainsnapshot');
    await valid(buildSnapshot({ name: 'm', memory: { file: '/memory' } }), 'domainsnapshot');
    expect(readSnapshot(outside)).toMatchObject({
      name: 's',
      description: 'before & after',
      memory: 'no',
      disks: [
        { target: 'vda', kept: 'external', path: '/overlay.qcow2' },
        { target: 'vdb', kept: 'no', path: undefined },
      ],
    });
    const domain = await test.domainLookupByName({ name: 'test' });
    const first = await test.domainSnapshotCreateXml({ domain, xml: buildSnapshot({ name: 'first' }) });
    const second = await test.domainSnapshotCreateXml({ domain, xml: buildSnapshot({ name: 'second', description: 'd' }) });
    const read = readSnapshot(await test.domainSnapshotGetXmlDesc({ snapshot: second }));
    expect(read).toMatchObject({ name: 'second', description: 'd', parent: 'first', state: 'running' });
    expect(read.createdAt).toBeGreaterThan(1_600_000_000);
    await test.domainSnapshotDelete({ snapshot: first, flags: ['children'] });

    const checkpoint = buildCheckpoint({
      name: 'c',
      description: 'd',
      disks: [
        { target: 'vda', noted: true },
        { target: 'vdb', noted: false },
      ],
    });
    await valid(checkpoint, 'domaincheckpoint');
    expect(readCheckpoint(checkpoint)).toMatchObject({ name: 'c', disks: [{ target: 'vda', bitmap: 'c' }, { target: 'vdb', bitmap: undefined }] });
    await valid(buildBackup({ mode: 'push', incremental: 'c', disks: [{ target: 'vda', file: '/b.qcow2', format: 'qcow2' }, { target: 'vdb' }] }), 'domainbackup');
    await valid(buildBackup({ mode: { socket: '/nbd' }, disks: [{ target: 'vda', file: '/scratch' }] }), 'domainbackup');
  });
});

describe('what daemons with QEMU write', () => {
  it('says what a node can do', async () => {
    const libvirt = await reach(daemon.qemuSession);
    const xml = await libvirt.connectGetCapabilities();
    // Not validated: what libvirt 9.0.0 itself writes of some processors is not what its schema allows.
    const capabilities = readCapabilities(xml);
    expect(capabilities.host.architecture).toBe('x86_64');
    expect(capabilities.host.cells.flatMap((cell) => cell.cpus).length).toBeGreaterThan(0);
    expect(capabilities.host.migrationTransports).toContain('tcp');
    const guest = capabilities.guests.find((one) => one.architecture === 'x86_64');
    expect(guest?.virtualisations).toContain('qemu');
    expect(guest?.machines).toEqual(expect.arrayContaining(['pc', 'q35']));

    const written = await libvirt.connectGetDomainCapabilities({ virtualisation: 'qemu', architecture: 'x86_64', machine: 'q35' });
    await valid(written, 'domaincaps');
    const can = readDomainCapabilities(written);
    expect(can).toMatchObject({ emulator: '/usr/bin/qemu-system-x86_64', virtualisation: 'qemu', architecture: 'x86_64' });
    expect(can.vcpusMax).toBeGreaterThan(16);
    // Which there are depends on what is installed.
    expect(can.firmware.filter((kind) => kind !== 'efi' && kind !== 'bios')).toEqual([]);
    expect(can.cpuModels).toContain('qemu64');
    expect(can.cpuModes.find((mode) => mode.name === 'custom')?.supported).toBe(true);
    expect(can.devices['disk']?.['bus']).toContain('virtio');
    expect(() => readCapabilities(written)).toThrow(XmlError);
    expect(() => readDomainCapabilities(xml)).toThrow(XmlError);
  });

  it('keeps what is not known when a part of it is changed', async () => {
    const libvirt = await reach(daemon.qemuSession);
    const domain = await libvirt.domainDefineXmlFlags({
      xml: buildDomain({ virtualisation: 'qemu', name: 'kept', memoryKib: 65_536, vcpus: 1, machine: 'pc', emulator: '/usr/bin/qemu-system-x86_64' }),
    });
    try {
      const written = await libvirt.domainGetXmlDesc({ domain, flags: ['inactive'] });
      const root = parseXml(written);
      expect(parseXml(buildXml(root))).toEqual(root);
      const changed = withChild(
        withChild(root, 'memory', () => element('memory', { unit: 'MiB' }, 96)),
        'vcpu',
        (vcpu) => vcpu && withAttribute(vcpu, 'current', '1'),
      );
      const more = withChild(changed, 'currentMemory', () => undefined);
      await valid(buildXml(more), 'domain');
      await libvirt.domainDefineXmlFlags({ xml: buildXml(more), flags: ['validate'] });
      const again = parseXml(await libvirt.domainGetXmlDesc({ domain, flags: ['inactive'] }));
      expect(readDomain(buildXml(again)).memoryKib).toBe(98_304);
      // Controllers, addresses and all else that libvirt had filled in are as they were.
      const devices = (tree: typeof root) => tree.children.find((child) => typeof child !== 'string' && child.name === 'devices');
      expect(devices(again)).toEqual(devices(root));
      expect(textOf(withChild(element('a'), 'b', () => element('b', {}, 'c')))).toBe('c');
    } finally {
      await libvirt.domainUndefineFlags({ domain });
    }
  });
});
