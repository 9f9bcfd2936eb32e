import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { VmId } from '@chronovirt/contracts/ids';
import { readDomain } from '@chronovirt/libvirt/domain-xml';
import { readNetwork } from '@chronovirt/libvirt/network-xml';
import { childInNamespace } from '@chronovirt/libvirt/xml';
import { describe, expect, it } from 'vitest';
import type { DomainPlan } from '../hypervisor.ts';
import { hostXml, networkXml } from '../network/network-xml.ts';
import { domainName, domainXml, METADATA_NAMESPACE } from './domain-xml.ts';
import type { DomainHost } from './domain-xml.ts';
import { smallPlan } from './testing-plan.ts';

const hex = (n: number): string => n.toString(16).padStart(32, '0');
const vmId: VmId = 'vm_0192f3a4b5c67d8e9fa0b1c2d3e4f506';
const network = { networkId: `network_${hex(5)}`, subnetId: `subnet_${hex(6)}`, name: 'cv-default', kind: 'nat', cidr: '10.21.0.0/24', gateway: '10.21.0.1', prefix: 24, bridge: 'cv-br0' } as const;
const mac = '52:54:0a:15:00:05';
const plan: DomainPlan = {
  nodeId: `node_${hex(1)}`, vmId, generation: 3,
  ...smallPlan({ volumeId: `volume_${hex(3)}`, network, mac, address: '10.21.0.5' }, { name: 'web-1', vcpus: 2, vcpusMax: 2, memoryMib: 256, memoryMibMax: 256 }),
};
const host: DomainHost = {
  nodeId: plan.nodeId, type: 'qemu', hyperv: [], agentVersion: '0.1.0', diskPathOf: () => '/pool/a&b/volume.qcow2', mediaPathOf: (file) => `/images/${file}`, seedPath: undefined, consoleLog: '/state/console.log', bootReport: '/state/boot.report', screenSocket: '/run/cv/screen.sock',
};

const VALIDATE = '/usr/bin/virt-xml-validate';
/** It is a script around xmllint, of another package. Where either is missing, libvirtd validates (libvirt-hypervisor.libvirt.spec.ts). */
const canValidate = existsSync(VALIDATE) && existsSync('/usr/bin/xmllint');

/** Asks libvirt's own schema. */
function validate(xml: string, schema: 'domain' | 'network'): void {
  const dir = mkdtempSync(join(tmpdir(), 'cv-xml-'));
  try {
    writeFileSync(join(dir, 'one.xml'), xml);
    execFileSync(VALIDATE, [join(dir, 'one.xml'), schema], { stdio: 'pipe' });
  } finally {
    rmSync(dir, { recursive: true });
  }
}

describe('The XML of a domain', () => {
  it('says whose it is, and where its disk and network are', () => {
    const read = readDomain(domainXml(plan, host));
    expect(read).toMatchObject({ name: 'cv-web-1-d3e4f506', uuid: '0192f3a4-b5c6-7d8e-9fa0-b1c2d3e4f506', virtualisation: 'qemu', memoryKibMax: 262_144, vcpus: 2 });
    expect(childInNamespace(read.metadata, METADATA_NAMESPACE)?.attributes).toMatchObject({ id: vmId, generation: '3', node: plan.nodeId });
    expect(read.disks).toMatchObject([{ path: '/pool/a&b/volume.qcow2', format: 'qcow2', bus: 'virtio', target: 'vda' }, { device: 'cdrom', path: undefined, bus: 'scsi', target: 'sda' }]);
    expect(read.interfaces).toMatchObject([{ kind: 'network', network: 'cv-default', mac, model: 'virtio' }]);
  });

  it('keeps translated code in proportion to the guest\'s memory, where there is something to translate', () => {
    const cacheOf = (memoryMib: number): string | undefined => /<tb-cache unit="MiB">(\d+)</.exec(domainXml({ ...plan, memoryMib }, host))?.[1];
    expect([64, 128, 768, 65_536].map(cacheOf)).toEqual(['32', '32', '192', '256']);
    // A CPU that is plugged in needs a piece that is not in use.
    expect(domainXml({ ...plan, vcpus: 1, vcpusMax: 2 }, host)).toContain('<tb-cache unit="MiB">256</tb-cache>');
  });

  it('has room for what is added while it runs', () => {
    const read = readDomain(domainXml({ ...plan, vcpusMax: 4, memoryMibMax: 1_024 }, host));
    expect(read).toMatchObject({ vcpus: 2, vcpusMax: 4, memoryKibMax: 262_144 });
    expect(domainXml({ ...plan, vcpusMax: 4, memoryMibMax: 1_024 }, host)).toContain('<maxMemory slots="16" unit="MiB">1024</maxMemory>');
    const ports = (xml: string): number => xml.split('model="pcie-root-port"').length - 1;
    expect(ports(domainXml(plan, host))).toBe(12);
    expect(ports(domainXml({ ...plan, nics: [...plan.nics, ...plan.nics] }, host))).toBe(13);
  });

  it('starts from what it is told to, with a medium and what cloud-init learns from in drives of their own', () => {
    const xml = domainXml({ ...plan, boot: ['cdrom', 'disk'], media: 'install.iso' }, { ...host, seedPath: '/pool/seeds/one.iso' });
    expect(xml).toContain('<boot dev="cdrom"/><boot dev="hd"/>');
    expect(readDomain(xml).disks).toMatchObject([{ target: 'vda' }, { target: 'sda', device: 'cdrom', path: '/images/install.iso', readOnly: true }, { target: 'sdb', device: 'cdrom', path: '/pool/seeds/one.iso' }]);
  });

  it('starts with a kernel and arguments, which are text whatever stands in them; with a menu it waits where a person can be', () => {
    const osOf = (more: Partial<DomainPlan>, on = host): string => /<os[ >].*<\/os>/.exec(domainXml({ ...plan, ...more }, on))?.[0] ?? '';
    const words = 'quiet a="<b>" --append x,file=/etc/shadow';
    expect(osOf({ kernel: { file: 'k', initrd: 'i', arguments: words } })).toContain('<kernel>/images/k</kernel><initrd>/images/i</initrd><cmdline>quiet a=&#34;&#60;b&#62;&#34; --append x,file=/etc/shadow</cmdline><boot dev="hd"/>');
    expect(osOf({ kernel: { file: 'k', initrd: null, arguments: '' } })).toMatch(/<kernel>\/images\/k<\/kernel><boot/);
    expect(osOf({ bootMenu: true })).toContain('<boot dev="hd"/><bootmenu enable="yes" timeout="10000"/><bios useserial="yes"/>');
    expect(osOf({ bootMenu: true, firmware: 'uefi' })).toMatch(/<bootmenu enable="yes" timeout="10000"\/><\/os>/);
    expect(osOf({ bootMenu: false })).toBe(osOf({}));
    expect(osOf({ boot: ['network', 'disk'] })).toContain('<boot dev="network"/><boot dev="hd"/>');
  });

  it('has what was assigned to it, with a controller for what is on USB', () => {
    const of = (assigned: NonNullable<DomainPlan['assigned']>): string => domainXml({ ...plan, assigned }, host);
    expect(of([])).toContain('<controller type="usb" model="none"/>');
    expect(of([{ kind: 'pci', address: '0000:01:00.0' }])).toMatch(/<controller type="usb" model="none"\/>.*<hostdev mode="subsystem" type="pci" managed="yes">/);
    for (const device of [{ kind: 'usb', vendor: '0781', product: '5567' }, { kind: 'virtual-usb', model: 'keyboard' }] as const) expect(of([device])).toContain('<controller type="usb" index="0" model="qemu-xhci"/>');
  });

  it('has devices for systems without virtio drivers', () => {
    const read = readDomain(domainXml({ ...plan, devices: 'legacy' }, host));
    expect(read.disks[0]).toMatchObject({ bus: 'sata', target: 'sda' });
    expect(read.interfaces[0]).toMatchObject({ model: 'e1000' });
  });

  it('shows a Windows local time and, where there is KVM, what of Hyper-V the host has', () => {
    const windows = { ...plan, osFamily: 'windows' as const };
    const bare = domainXml(windows, { ...host, type: 'kvm', hyperv: ['spinlocks', 'relaxed', 'vendor_id'] });
    expect(bare).toContain('<clock offset="localtime">');
    expect(bare).toContain('<hyperv mode="custom"><relaxed state="on"/><spinlocks state="on" retries="8191"/></hyperv>');
    expect(bare).toContain('<timer name="hypervclock" present="yes"/>');
    // QEMU refuses to start an emulated guest with them.
    for (const other of [domainXml(windows, { ...host, hyperv: ['relaxed'] }), domainXml(plan, { ...host, type: 'kvm', hyperv: ['relaxed'] })]) expect(other).not.toMatch(/hyperv/);
    for (const osFamily of ['linux', 'other'] as const) expect(domainXml({ ...plan, osFamily }, host)).toContain('<clock offset="utc">');
  });

  it('has a second drive for a Windows, and for whoever is given drivers; a Windows reads all of them without drivers', () => {
    const drives = (more: Partial<DomainPlan>): readonly object[] => readDomain(domainXml({ ...plan, media: 'install.iso', ...more }, { ...host, seedPath: '/pool/seed.iso' })).disks.filter(({ device }) => device === 'cdrom').map(({ target, bus, path }) => [target, bus, path]);
    const first = [['sda', 'scsi', '/images/install.iso'], ['sdb', 'scsi', '/pool/seed.iso']];
    expect(drives({})).toEqual(first);
    expect(drives({ drivers: 'virtio.iso' })).toEqual([...first, ['sdc', 'scsi', '/images/virtio.iso']]);
    expect(drives({ drivers: null })).toEqual([...first, ['sdc', 'scsi', undefined]]);
    expect(drives({ osFamily: 'windows', drivers: 'virtio.iso' })).toEqual([['sda', 'sata', '/images/install.iso'], ['sdb', 'sata', '/pool/seed.iso'], ['sdc', 'sata', '/images/virtio.iso']]);
    expect(drives({ devices: 'legacy', drivers: 'virtio.iso' })).toEqual([['sdb', 'sata', '/images/install.iso'], ['sdc', 'sata', '/pool/seed.iso'], ['sdaa', 'sata', '/images/virtio.iso']]);
    const [disk] = plan.disks;
    const fourth = { ...plan, devices: 'legacy' as const, drivers: 'virtio.iso' };
    expect(domainXml(fourth, host)).toContain('<address type="drive" controller="0" bus="0" target="0" unit="5"/>');
    expect(domainXml({ ...fourth, disks: disk === undefined ? [] : [disk, { ...disk, unit: 3 }] }, host)).not.toContain('unit="5"');
  });

  it('starts by the firmware that is wanted, with a TPM where one is', () => {
    expect(domainXml({ ...plan, firmware: 'bios', tpm: false }, host)).toBe(domainXml(plan, host));
    expect(domainXml({ ...plan, firmware: 'uefi' }, host)).toMatch(/<os firmware="efi"><type[^>]*>hvm<\/type><firmware><feature enabled="no" name="secure-boot"\/><\/firmware><boot/);
    const secure = domainXml({ ...plan, firmware: 'uefi-secure', tpm: true }, host);
    expect(secure).toContain('<firmware><feature enabled="yes" name="enrolled-keys"/><feature enabled="yes" name="secure-boot"/></firmware>');
    expect(secure).toContain('<tpm model="tpm-crb"><backend type="emulator" version="2.0"/></tpm>');
  });

  it('bounds the translation cache where it emulates, and takes the host\'s CPU where it does not', () => {
    expect(domainXml(plan, host)).toContain('<tb-cache unit="MiB">64</tb-cache>');
    const accelerated = domainXml(plan, { ...host, type: 'kvm' });
    expect(accelerated).toContain('mode="host-model"');
    expect(accelerated).not.toContain('tb-cache');
  });

  it('listens on no TCP port', () => {
    const xml = domainXml(plan, host);
    expect(xml).toContain('<listen type="socket" socket="/run/cv/screen.sock"/>');
    expect(xml).not.toMatch(/ port="(?!0")|listen="|tcp|websocket/);
  });

  it('keeps a name that libvirt has already, and takes none that is no file name', () => {
    expect(readDomain(domainXml(plan, { ...host, knownAs: 'cv-older-d3e4f506' })).name).toBe('cv-older-d3e4f506');
    expect(domainName('../x', vmId)).toBe('cv-d3e4f506');
    expect(domainName('x'.repeat(63), vmId)).toHaveLength(52);
  });

  it('cannot be broken out of', () => {
    const read = readDomain(domainXml({ ...plan, name: '</title><devices/>"\u0001' }, host));
    expect(read.title).toBe('</title><devices/>"');
    expect(read.disks).toHaveLength(2);
  });

  it.runIf(canValidate)('is what libvirt\'s schema allows', () => {
    for (const type of ['qemu', 'kvm', 'test'] as const) {
      for (const devices of ['virtio', 'legacy'] as const) {
        validate(domainXml({ ...plan, devices }, { ...host, type }), 'domain');
        validate(domainXml({ ...plan, devices, drivers: 'virtio.iso', bootMenu: true, assigned: [{ kind: 'pci', address: '0000:01:00.0' }, { kind: 'usb', vendor: '0781', product: '5567' }, { kind: 'virtual-usb', model: 'mouse' }], kernel: { file: 'k', initrd: 'i', arguments: 'quiet' }, vcpusMax: 4, memoryMibMax: 1_024, boot: ['cdrom', 'disk', 'network'], media: 'install.iso' }, { ...host, type, seedPath: '/pool/seeds/seed.iso' }), 'domain');
      }
    }
  });
});

describe('The XML of a network', () => {
  it('has a DHCP server that knows every address by its MAC, and gives away nothing by itself', () => {
    const read = readNetwork(networkXml(network));
    expect(read).toMatchObject({ name: 'cv-default', forward: 'nat', bridge: 'cv-br0', addresses: [{ address: '10.21.0.1', prefix: 24, dhcpRanges: [] }] });
    const hosts = read.addresses[0]!.dhcpHosts;
    expect(hosts).toHaveLength(253);
    expect(hosts[0]).toMatchObject({ mac: '52:54:0a:15:00:02', address: '10.21.0.2' });
    expect(hosts.at(-1)).toMatchObject({ mac: '52:54:0a:15:00:fe', address: '10.21.0.254' });
    expect(hostXml({ mac, address: '10.21.0.5' })).toBe('<host mac="52:54:0a:15:00:05" ip="10.21.0.5"/>');
  });

  it('tells who starts from it what to fetch, and from where', () => {
    expect(networkXml({ ...network, boot: { file: 'pxelinux.0', server: '10.21.0.9' } })).toContain('<bootp file="pxelinux.0" server="10.21.0.9"/></dhcp>');
    expect(readNetwork(networkXml({ ...network, boot: { file: 'http://boot.example/a.ipxe' } })).addresses[0]?.bootp).toEqual({ file: 'http://boot.example/a.ipxe', server: undefined });
    expect(readNetwork(networkXml(network)).addresses[0]?.bootp).toBeUndefined();
  });

  it('has no table where addresses are too many, and none outside a small one', () => {
    expect(readNetwork(networkXml({ ...network, cidr: '10.0.0.0/16', prefix: 16, gateway: '10.0.0.1' })).addresses[0]!.dhcpHosts).toEqual([]);
    const small = readNetwork(networkXml({ ...network, cidr: '10.1.2.248/29', prefix: 29, gateway: '10.1.2.254' })).addresses[0]!.dhcpHosts;
    expect(small.map((host) => host.address)).toEqual(['10.1.2.249', '10.1.2.250', '10.1.2.251', '10.1.2.252', '10.1.2.253']);
  });

  it.runIf(canValidate)('is what libvirt\'s schema allows', () => { for (const boot of [undefined, { file: 'a.ipxe', server: '10.21.0.9' }]) validate(networkXml({ ...network, ...(boot === undefined ? {} : { boot }) }), 'network'); });
});
