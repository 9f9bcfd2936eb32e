import { describe, expect, it } from 'vitest';
import type { NetworkPlan } from '@chronovirt/contracts/network/network.events';
import type { Snapshot } from '@chronovirt/contracts/vm/snapshot';
import type { VmSpec } from '@chronovirt/contracts/vm/vm.events';
import { cloning } from './cloning.ts';
import type { LiveVm, Vm } from './vm.ts';

const hex = (n: number): string => n.toString(16).padStart(32, '0');
const net = (n: number): NetworkPlan => ({ networkId: `network_${hex(n)}`, subnetId: `subnet_${hex(n)}`, name: `lab-${String(n)}`, kind: 'nat', cidr: `10.${String(n)}.0.0/24`, gateway: `10.${String(n)}.0.1`, prefix: 24, bridge: `cvbr-${String(n)}` });
const spec: VmSpec = {
  name: 'web-1', description: 'shop', imageId: `image_${hex(6)}`, networkId: net(1).networkId, subnetId: net(1).subnetId, vcpus: 2, memoryMib: 256, diskGib: 9, accel: 'any', devices: 'virtio', nodeId: `node_${hex(7)}`, tags: ['a'], protected: true,
  vcpusMax: 2, memoryMibMax: 256, boot: ['disk'], media: null, cloudInit: { hostname: 'web-1', sshKeys: ['ssh-ed25519 AAAA'], networkConfig: 'version: 2' }, diskLimits: null, poolId: `pool_${hex(1)}`, expiresAt: '2026-01-01T00:00:00.000Z', autostart: { order: 1, delaySeconds: 0 },
};
const snapshot: Snapshot = {
  snapshotId: `snapshot_${hex(1)}`, kind: 'external', name: 'point', description: '', parent: null, state: 'running', frozen: true,
  disks: [{ volumeId: `volume_${hex(2)}`, unit: 1, sizeGib: 3, layer: 'aaaaaaaa' }, { volumeId: `volume_${hex(1)}`, unit: 0, sizeGib: 2, layer: null }],
};
const source = {
  status: 'live', vmId: `vm_${hex(1)}`, spec, network: net(1), nodeId: `node_${hex(7)}`, layout: null, nics: [2, 3].map((n) => ({ network: net(n), mac: '52:54:00:00:00:01', address: `10.${String(n)}.0.9` })),
  volumes: [{ volumeId: `volume_${hex(2)}`, unit: 1, sizeGib: 5, limits: { iops: 100 } }], snapshots: { list: [snapshot], inner: [] },
} as unknown as LiveVm;
const wished = (more: Partial<Parameters<typeof cloning>[1]> = {}, of: Vm = source, there: readonly NetworkPlan[] = [net(1), net(2)]) =>
  cloning(of, { ofVm: `vm_${hex(1)}`, snapshotId: snapshot.snapshotId, name: 'web-2', description: undefined, network: undefined, networks: (id) => there.find(({ networkId }) => networkId === id), imageOf: () => null, poolId: null, volumeOf: (unit) => `volume_${hex(90 + unit)}`, ...more });

describe('A VM that is made of a snapshot', () => {
  it('has copies of all its disks, as large as they were then, where they lie', () => {
    expect(wished()).toMatchObject({
      sizeGib: 5, spec: { diskGib: 2 },
      copy: { ofVm: source.vmId, nodeId: source.nodeId, from: [`volume_${hex(1)}`, `volume_${hex(2)}`], volumes: [{ volumeId: `volume_${hex(91)}`, unit: 1, sizeGib: 3, limits: { iops: 100 } }] },
    });
  });
  it('is another one of the same kind, and is told so', () => {
    const made = wished();
    if ('refused' in made) throw new Error(made.refused);
    expect(made.spec).toMatchObject({ name: 'web-2', description: 'shop', vcpus: 2, imageId: null, nodeId: null, protected: false, newIdentity: true, cloudInit: { hostname: 'web-2', sshKeys: ['ssh-ed25519 AAAA'] } });
    for (const field of ['expiresAt', 'autostart', 'poolId']) expect(made.spec).not.toHaveProperty(field);
    expect(made.spec.cloudInit).not.toHaveProperty('networkConfig');
    expect(wished({ poolId: `pool_${hex(4)}`, description: 'copy' })).toMatchObject({ spec: { poolId: `pool_${hex(4)}`, description: 'copy' } });
  });
  it('has interfaces in the same networks, but those that are gone, which are named', () => {
    expect(wished()).toMatchObject({ network: net(1), copy: { nics: [net(2)], without: ['lab-3'] } });
    expect(wished({ network: net(2) })).toMatchObject({ network: net(2), copy: { without: ['lab-3'] } });
    expect(wished({}, source, [])).toMatchObject({ refused: 'network.unknown' });
  });
  it('is built as one that was adopted, and needs a network where that has none', () => {
    const disk = (n: number, unit: number) => ({ volumeId: `volume_${hex(n)}` as const, target: `sd${'ab'.charAt(unit)}`, file: '/x.qcow2', unit, sizeGib: 2 });
    const adopted = { ...source, spec: { ...spec, cloudInit: null }, network: null, layout: { macs: ['52:54:00:00:00:09'], disks: [disk(1, 0), disk(2, 1), disk(3, 2)], definition: '<domain type="kvm"/>' } };
    expect(wished({}, adopted)).toMatchObject({ refused: 'snapshot.needs_network' });
    for (const definition of [undefined, '<domain><os><kernel>/boot/vmlinuz</kernel></os></domain>']) {
      const { definition: _, ...layout } = adopted.layout;
      expect(wished({ network: net(2) }, { ...adopted, layout: { ...layout, ...(definition === undefined ? {} : { definition }) } })).toMatchObject({ refused: 'snapshot.of_adopted' });
    }
    expect(wished({ network: net(2) }, adopted)).toMatchObject({
      spec: { cloudInit: null, accel: 'require-kvm' }, copy: { layout: { macs: [], definition: '<domain type="kvm"/>', disks: [{ target: 'sda', volumeId: `volume_${hex(90)}` }, { target: 'sdb', volumeId: `volume_${hex(91)}` }] } },
    });
  });
  it('is not made of what is not there', () => {
    expect(wished({}, { status: 'absent' })).toMatchObject({ refused: 'vm.not_found', because: { vmId: `vm_${hex(1)}` } });
    expect(wished({ snapshotId: `snapshot_${hex(2)}` })).toMatchObject({ refused: 'snapshot.not_found' });
    expect(wished({}, { ...source, snapshots: { ...source.snapshots, list: [{ ...snapshot, kind: 'internal' }] } })).toMatchObject({ refused: 'snapshot.internal' });
    expect(wished({}, { ...source, nodeId: null })).toMatchObject({ refused: 'vm.not_provisioned' });
  });
});
