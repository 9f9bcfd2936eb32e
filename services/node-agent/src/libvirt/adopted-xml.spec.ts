import type { NetworkPlan } from '@chronovirt/contracts/network/network.events';
import type { VolumeId } from '@chronovirt/contracts/ids';
import { describe, expect, it } from 'vitest';
import type { DomainHost } from '../domain/domain-xml.ts';
import { smallPlan } from '../domain/testing-plan.ts';
import type { DomainPlan } from '../hypervisor.ts';
import { adoptedXml, keptDefinition } from './adopted-xml.os.ts';
import { copiedXml } from './copied-xml.os.ts';
import { liveDomain } from './live-domain.os.ts';

const hex = (n: number): string => n.toString(16).padStart(32, '0');
const volumeId: VolumeId = `volume_${hex(1)}`;
const [kept, ours] = ['52:54:00:11:22:33', '52:54:0a:15:00:05'] as const;
const network = { name: 'cv-default' } as NetworkPlan;
const host: DomainHost = { hyperv: [], nodeId: `node_${hex(2)}`, type: 'qemu', agentVersion: 'spec', diskPathOf: ({ volumeId: id, layer }) => `/pool/${id}${layer === null ? '' : `.${layer}`}.qcow2`, mediaPathOf: (file) => file, seedPath: undefined, consoleLog: '', bootReport: '/state/boot.report', screenSocket: '', knownAs: 'by-hand' };
const xml = `<domain type='qemu'><name>by-hand</name><uuid>x</uuid><description>mine</description><metadata><x:y xmlns:x='urn:x'/></metadata><memory unit='KiB'>262144</memory><currentMemory unit='KiB'>262144</currentMemory>
<vcpu placement='static' current='1'>2</vcpu><vcpus><vcpu id='0' enabled='yes'/></vcpus><os><type arch='x86_64' machine='pc-i440fx-7.2'>hvm</type><loader>/uefi</loader></os><devices><emulator>/q</emulator>
<disk type='file' device='disk'><driver name='qemu' type='qcow2' cache='none'/><source file='/var/x.qcow2'/><target dev='hda' bus='ide'/><address type='drive' unit='0'/></disk>
<disk type='file' device='cdrom'><target dev='hdc' bus='ide'/><readonly/></disk>
<interface type='bridge'><mac address='${kept}'/><source bridge='br0'/><model type='e1000'/></interface></devices></domain>`;
const plan = (more: Partial<DomainPlan> = {}): DomainPlan => {
  const small = smallPlan({ volumeId, network, mac: ours, address: '10.21.0.5' }, { name: 'web', vcpusMax: 2, memoryMib: 256, memoryMibMax: 256, adopted: { macs: [kept] }, nics: [] });
  return { vmId: `vm_${hex(3)}`, nodeId: `node_${hex(2)}`, generation: 4, ...small, disks: small.disks.map((disk) => ({ ...disk, target: 'hda' })), ...more };
};

describe('The XML of a domain that was adopted', () => {
  it('stays its own, but for whose it is', () => {
    const said = adoptedXml(xml, plan(), host);
    for (const part of ['machine="pc-i440fx-7.2"', '<loader>/uefi</loader>', 'cache="none"', 'bus="ide"', `bridge="br0"`, 'mine', 'x:y', '<vcpus>', '<title>web</title>', `id="vm_${hex(3)}" generation="4"`, 'as="by-hand"']) expect(said).toContain(part);
    expect(liveDomain(said)).toMatchObject({ vcpus: 1, vcpusMax: 2, memoryMib: 256, macs: [kept], targets: { hda: `/pool/${volumeId}.qcow2` } });
  });
  it('says the same when it is said again', () => {
    const once = adoptedXml(xml, plan(), host);
    expect(adoptedXml(once, plan(), host)).toBe(once);
  });
  it('has what its plan says: memory, CPUs, layers, limits, disks and interfaces that came, and none that went', () => {
    const [first] = plan().disks;
    if (first === undefined) throw new Error('no disk');
    const second = { volumeId: `volume_${hex(9)}` as const, unit: 1, sizeGib: 1, limits: null, layer: null, target: null };
    const more = adoptedXml(xml, plan({ memoryMib: 512, vcpus: 2, disks: [{ ...first, layer: 'aaaaaaaa', limits: { iops: 100 } }, second], nics: [{ network, mac: ours, address: '10.21.0.5' }] }), host);
    expect(liveDomain(more)).toMatchObject({ vcpus: 2, vcpusMax: 2, memoryMib: 512, macs: [kept, ours], targets: { hda: `/pool/${volumeId}.aaaaaaaa.qcow2`, vdb: `/pool/volume_${hex(9)}.qcow2` } });
    expect(liveDomain(more).disks[0]?.limits).toEqual({ iops: 100 });
    expect(more).not.toContain('<vcpus>');
    expect(liveDomain(adoptedXml(more, plan(), host))).toMatchObject({ vcpus: 1, memoryMib: 256, macs: [kept], targets: { hda: `/pool/${volumeId}.qcow2` }, disks: [{ limits: null }] });
  });

  describe('that says from what it starts', () => {
    const said = (more: Partial<DomainPlan>, drive: NonNullable<DomainPlan['adopted']>['drive'] = { target: 'hdc', file: null }): string => adoptedXml(xml, plan({ adopted: { macs: [kept], drive }, ...more }), host);
    it('keeps its order until another is wanted; then no device has a say of its own', () => {
      const ordered = xml.replace("<address type='drive' unit='0'/>", "<boot order='1'/>").replace("<target dev='hdc' bus='ide'/>", "<target dev='hdc' bus='ide'/><boot order='2'/>");
      const of = (boot: DomainPlan['boot']): string => adoptedXml(ordered, plan({ boot, adopted: { macs: [kept], drive: { target: 'hdc', file: null } } }), host);
      expect(of(['disk', 'cdrom'])).toContain('<boot order="1"/>');
      expect(liveDomain(of(['disk', 'cdrom'])).boot).toEqual(['disk', 'cdrom']);
      expect(of(['cdrom', 'disk'])).not.toContain('order=');
      expect(liveDomain(of(['cdrom', 'disk'])).boot).toEqual(['cdrom', 'disk']);
    });
    it('has a medium of ours in the drive that it has, in its place, and what was there before when that is wanted', () => {
      const there = { target: 'hdc', file: '/mnt/theirs.iso' };
      expect(liveDomain(said({ media: 'ours.iso' }, there), plan({ adopted: { macs: [], drive: there } }).adopted).media).toBe('ours.iso');
      expect(said({ media: 'ours.iso' }, there)).toContain('dev="hdc" bus="ide"');
      expect(liveDomain(said({}, there), { macs: [], drive: there }).media).toBe('/mnt/theirs.iso');
      expect(liveDomain(adoptedXml(said({ media: 'ours.iso' }), plan({ adopted: { macs: [kept], drive: { target: 'hdc', file: null } } }), host), { macs: [], drive: there }).media).toBeUndefined();
    });
    it('is given a drive where it has none, and one of its own for cloud-init, each once', () => {
      const none = { macs: [kept], drive: { target: null, file: null } };
      const bare = xml.replace(/<disk type='file' device='cdrom'>.*<\/disk>\n/, '');
      const seeded = { ...host, seedPath: '/pool/seed.iso' };
      const once = adoptedXml(bare, plan({ media: 'ours.iso', adopted: none }), seeded);
      expect(liveDomain(once, none)).toMatchObject({ media: 'ours.iso', seed: '/pool/seed.iso', targets: { hda: `/pool/${volumeId}.qcow2` } });
      expect(once.match(/device="cdrom"/g)).toHaveLength(2);
      expect(adoptedXml(once, plan({ media: 'ours.iso', adopted: none }), seeded)).toBe(once);
      expect(liveDomain(adoptedXml(once, plan({ adopted: none }), { ...host, seedPath: '/pool/seed-2.iso' }), none)).toMatchObject({ media: undefined, seed: '/pool/seed-2.iso' });
    });
    it('is left alone where an older agent did not look', () => {
      const older = adoptedXml(xml, plan({ boot: ['cdrom'], media: 'ours.iso' }), host);
      expect(older).not.toContain('<boot');
      expect(older).not.toContain('ours.iso');
    });
  });

  describe('as it is kept', () => {
    const guarded = xml.replace('</devices>', "<graphics type='vnc' port='-1' passwd='hunter2'/><graphics type='spice' port='-1'/></devices>");
    it('has no secrets and nothing that others said of it, and makes the same machine', () => {
      const definition = keptDefinition(guarded) ?? '';
      for (const gone of ['hunter2', 'vnc', 'x:y']) expect(definition).not.toContain(gone);
      for (const there of ['spice', 'pc-i440fx-7.2', 'br0', 'hda']) expect(definition).toContain(there);
      expect(liveDomain(adoptedXml(definition, plan(), host))).toEqual(liveDomain(adoptedXml(xml.replace('</devices>', "<graphics type='spice' port='-1'/></devices>"), plan(), host)));
    });
    it('is not kept where QEMU is handed words of which nobody knows what they are, or where it is too long', () => {
      expect(keptDefinition(xml.replace('</domain>', "<qemu:commandline xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'><qemu:arg value='-x'/></qemu:commandline></domain>"))).toBeUndefined();
      expect(keptDefinition(xml.replace('mine', 'x'.repeat(70_000)))).toBeUndefined();
    });
  });

  describe('that another machine is made of', () => {
    const devices = `<interface type='bridge'><mac address='52:54:00:11:22:44'/><source bridge='br1'/><model type='e1000e'/><address type='pci' slot='0x09'/></interface>
      <disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='/etc/shadow'/><target dev='vdz' bus='virtio'/></disk>
      <serial type='file'><source path='/root/.bashrc'/><target port='0'/></serial><console type='file'><source path='/root/.bashrc'/><target type='serial' port='0'/></console>
      <channel type='unix'><source mode='bind' path='/run/other.sock'/><target type='virtio' name='org.qemu.guest_agent.0'/></channel><channel type='spicevmc'><target type='virtio' name='com.redhat.spice.0'/></channel>
      <graphics type='spice' port='5900' listen='192.0.2.1'/><audio id='1' type='spice'/><sound model='ich9'><audio id='1'/></sound><video><model type='qxl'><acceleration accel3d='yes'/></model></video>
      <hostdev mode='subsystem' type='pci'/><filesystem type='mount'><source dir='/'/></filesystem><rng model='virtio'><backend model='egd' type='tcp'/></rng><tpm model='tpm-tis'><backend type='passthrough'><device path='/dev/tpm0'/></backend></tpm>
      <input type='tablet' bus='usb'/><input type='evdev'><source dev='/dev/input/event1'/></input><redirdev bus='usb' type='spicevmc'/><vsock><cid address='3'/></vsock>`;
    const theirs = xml.replace('</devices>', `${devices}</devices>`).replace('<uuid>x</uuid>', '<uuid>11111111-2222-3333-4444-555555555555</uuid>').replace("placement='static'", "placement='static' cpuset='0-1'")
      .replace('</os>', '<kernel>/boot/vmlinuz</kernel></os><genid>y</genid><seclabel type="none"/><numatune><memory mode="strict" nodeset="1"/></numatune>').replace("<boot order='1'/>", '');
    const copied = (more: Partial<DomainPlan> = {}): string => {
      const wanted = plan({ adopted: { macs: [], drive: { target: 'hdc', file: null } }, nics: [{ network, mac: ours, address: '10.21.0.5' }], ...more });
      return adoptedXml(copiedXml(keptDefinition(theirs) ?? '', wanted, host), wanted, { ...host, knownAs: 'cv-web' });
    };
    it('has its own name, disks, interfaces, screen and console, each where the other has them', () => {
      const said = copied();
      for (const there of ['<name>cv-web-', `<uuid>${hex(3).replace(/(.{8})(.{4})(.{4})(.{4})(.{12})/, '$1-$2-$3-$4-$5')}</uuid>`, 'machine="pc-i440fx-7.2"', 'cache="none"', `<model type="e1000"/>`, 'network="cv-default"', '<serial type="pty">', 'org.qemu.guest_agent.0', '/dev/urandom', 'type="tablet"', '<model type="qxl"/>']) expect(said).toContain(there);
      expect(liveDomain(said, { macs: [], drive: { target: 'hdc', file: null } })).toMatchObject({ vcpusMax: 2, memoryMib: 256, macs: [ours], targets: { hda: `/pool/${volumeId}.qcow2` } });
      expect(adoptedXml(said, plan({ adopted: { macs: [], drive: { target: 'hdc', file: null } }, nics: [{ network, mac: ours, address: '10.21.0.5' }] }), { ...host, knownAs: 'cv-web' })).toBe(said);
    });
    it('has nothing that leads out of it, whatever a definition names', () => {
      const said = copied();
      for (const gone of ['by-hand', '11111111', kept, 'br0', 'br1', '/etc', '/root', '/run', '/boot', '/uefi', 'spice', '5900', '192.0.2.1', 'hostdev', 'filesystem', 'egd', 'passthrough', 'evdev', 'redirdev', 'vsock', 'seclabel', 'numatune', 'cpuset', 'accel3d', 'genid', '<emulator']) expect(said).not.toContain(gone);
    });
    it('is unplugged for a drill, also an interface for which the other had no place', () => {
      const second = { network: { name: 'cv-second' } as NetworkPlan, mac: '52:54:0a:16:00:05', address: '10.22.0.5' };
      const third = { network: { name: 'cv-third' } as NetworkPlan, mac: '52:54:0a:17:00:05', address: '10.23.0.5' };
      const said = copied({ isolated: true, nics: [{ network, mac: ours, address: '10.21.0.5' }, second, third] });
      expect(said.match(/<link state="down"\/>/g)).toHaveLength(3);
      expect(said).toMatch(/cv-second[^]*e1000e[^]*slot="0x09"/);
    });
    it('finds its firmware where it is defined', () => {
      const efi = (os: string): string => copiedXml(theirs.replace(/<os>.*<\/os>/, os), plan(), host);
      expect(efi(`<os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type><loader readonly='yes' secure='yes' type='pflash'>/evil</loader><nvram>/var/x</nvram></os>`)).toMatch(/<os firmware="efi">.*<feature enabled="yes" name="secure-boot"\/>/);
      expect(efi(`<os firmware='efi'><type>hvm</type></os>`)).toMatch(/<os firmware="efi">.*<feature enabled="no" name="secure-boot"\/>/);
      expect(efi(`<os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type><loader readonly='yes' secure='yes' type='pflash'>/evil</loader><nvram>/var/x</nvram></os>`)).not.toMatch(/evil|nvram/);
    });
  });
});
