import type { NetworkPlan } from '@chronovirt/contracts/network/network.events';
import type { VolumeId } from '@chronovirt/contracts/ids';
import { describe, expect, it } from 'vitest';
import type { DomainHost } from '../domain/domain-xml.ts';
import { smallPlan } from '../domain/testing-plan.ts';
import type { DomainPlan } from '../hypervisor.ts';
import { adoptedXml } from './adopted-xml.os.ts';
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
});
