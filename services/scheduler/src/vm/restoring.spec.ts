import { describe, expect, it } from 'vitest';
import type { BackupId, VmId } from '@chronovirt/contracts/ids';
import type { NetworkPlan } from '@chronovirt/contracts/network/network.events';
import type { VmSpec } from '@chronovirt/contracts/vm/vm.events';
import type { BackupEntry } from '../view.projection.ts';
import { restoring } from './restoring.ts';

const hex = (n: number): string => n.toString(16).padStart(32, '0');
const backupId: BackupId = `backup_${hex(1)}`;
const ofVm: VmId = `vm_${hex(2)}`;
const net = (n: number): NetworkPlan => ({ networkId: `network_${hex(n)}`, subnetId: `subnet_${hex(n)}`, name: `lab-${String(n)}`, kind: 'nat', cidr: `10.${String(n)}.0.0/24`, gateway: `10.${String(n)}.0.1`, prefix: 24, bridge: `cvbr-${String(n)}` });
const spec: VmSpec = {
  name: 'web-1', description: 'shop', imageId: `image_${hex(6)}`, networkId: net(1).networkId, subnetId: net(1).subnetId, vcpus: 1, memoryMib: 256, diskGib: 2, accel: 'any', devices: 'virtio', nodeId: null, tags: ['a'], protected: true,
  vcpusMax: 1, memoryMibMax: 256, boot: ['disk'], media: null, cloudInit: null, diskLimits: null, poolId: `pool_${hex(1)}`, expiresAt: '2026-01-01T00:00:00.000Z', autostart: { order: 1, delaySeconds: 0 },
};
const entry: BackupEntry = {
  backupId, vmId: ofVm, target: { targetId: `target_${hex(1)}`, name: 'vault' }, scheduled: null, begunAt: '2025-12-01T00:00:00.000Z', deleting: null,
  taken: { parent: null, machine: { spec, network: net(1), nics: [net(2), net(3)], volumes: [] }, files: [{ unit: 0, volumeId: `volume_${hex(1)}`, sizeGib: 2, bytes: 1, sha256: 'a'.repeat(64) }], frozen: true, at: '2025-12-01T00:00:00.000Z' },
};
const wished = (there: readonly NetworkPlan[], more: Partial<Parameters<typeof restoring>[1]> = {}) => {
  const restored = restoring((id) => (id === backupId ? entry : undefined), {
    backupId, name: 'again', network: net(1), networks: (id) => there.find(({ networkId }) => networkId === id), imageOf: () => null, nodeId: null, proof: undefined, volumeOf: () => `volume_${hex(9)}`, ...more,
  });
  if ('refused' in restored) throw new Error(restored.refused);
  return restored;
};

describe('A VM that is made of a backup', () => {
  it('has its interfaces again, but those in networks that are gone, which are named', () => {
    expect(wished([net(1), net(2), net(3)]).restore).toMatchObject({ nics: [net(2), net(3)] });
    expect(wished([net(1), net(2), net(3)]).restore).not.toHaveProperty('without');
    expect(wished([net(1), net(3)]).restore).toMatchObject({ nics: [net(3)], without: ['lab-2'] });
    expect(wished([net(1)]).restore).not.toHaveProperty('nics');
  });
  it('has one interface in each network, also when its first is to be in that of another', () => {
    expect(wished([net(1), net(2), net(3)], { network: net(2) }).restore).toMatchObject({ nics: [net(3)] });
  });
  it('is wanted for as long as somebody says, not as long as the other was', () => {
    for (const field of ['expiresAt', 'autostart']) expect(wished([]).spec).not.toHaveProperty(field);
    expect(wished([]).spec).toMatchObject({ name: 'again', description: 'shop', protected: false, imageId: null, poolId: spec.poolId });
  });
  describe('that was adopted', () => {
    const layout = { macs: ['52:54:00:11:22:33'], drive: { target: 'hdc', file: '/mnt/theirs.iso' }, definition: `<domain type="kvm"/>`, disks: [
      { volumeId: `volume_${hex(1)}` as const, target: 'hda', file: '/var/x.qcow2', unit: 0, sizeGib: 2 }, { volumeId: `volume_${hex(5)}` as const, target: 'hdb', file: '/var/gone.qcow2', unit: 1, sizeGib: 2 },
    ] };
    const of = (machine: object) => restoring(() => ({ ...entry, taken: { ...entry.taken, machine: { spec: { ...spec, networkId: null }, network: null, volumes: [], layout, ...machine } } }) as BackupEntry, {
      backupId, name: 'again', network: null, networks: () => undefined, imageOf: () => null, nodeId: null, proof: undefined, volumeOf: (unit) => `volume_${hex(90 + unit)}`,
    });
    it('is built as that was, with disks and interfaces of its own, and nothing in its drive', () => {
      const built = { macs: [], drive: { target: 'hdc', file: null }, definition: layout.definition, disks: [{ volumeId: `volume_${hex(90)}`, target: 'hda', file: `volume_${hex(90)}.qcow2`, unit: 0, sizeGib: 2 }] };
      expect(of({ network: net(1) })).toMatchObject({ restore: { layout: built }, spec: { networkId: net(1).networkId, accel: 'require-kvm' } });
    });
    it('is in the network of an interface that it was given, or in one that somebody names', () => {
      expect(of({ nics: [net(2)] })).toMatchObject({ spec: { networkId: net(2).networkId } });
      expect(of({})).toEqual({ refused: 'backup.needs_network', because: { backupId, field: 'network' } });
    });
  });
  it('has the medium with its drivers again, as long as there is one', () => {
    const drivers = { imageId: `image_${hex(7)}`, file: 'virtio.iso' } as const;
    const of = (there: VmSpec['drivers'], found: typeof drivers | null) => restoring(() => ({ ...entry, taken: entry.taken === null ? null : { ...entry.taken, machine: { ...entry.taken.machine, spec: there === undefined ? spec : { ...spec, drivers: there } } } }), {
      backupId, name: 'again', network: net(1), networks: () => undefined, imageOf: (_format, imageId) => (imageId === drivers.imageId ? found : null), nodeId: null, proof: undefined, volumeOf: () => `volume_${hex(9)}`,
    });
    expect(of(drivers, { ...drivers, file: 'now.iso' } as never)).toMatchObject({ spec: { drivers: { file: 'now.iso' } } });
    expect(of(drivers, null)).toMatchObject({ spec: { drivers: null } });
    expect((of(undefined, drivers) as { spec: VmSpec }).spec).not.toHaveProperty('drivers');
  });
  it('is started with its kernel again, as long as all of it is there', () => {
    const [kernel, initrd] = [`image_${hex(8)}`, `image_${hex(9)}`] as const;
    const of = (...there: readonly string[]) => (restoring(() => ({ ...entry, taken: entry.taken === null ? null : { ...entry.taken, machine: { ...entry.taken.machine, spec: { ...spec, kernel: { imageId: kernel, file: 'k', initrd: { imageId: initrd, file: 'i' }, arguments: 'quiet' } } } } }), {
      backupId, name: 'again', network: net(1), networks: () => undefined, imageOf: (_format, imageId) => (there.includes(imageId) ? { imageId: imageId as typeof kernel, file: 'now' } : null), nodeId: null, proof: undefined, volumeOf: () => `volume_${hex(9)}`,
    }) as { spec: VmSpec }).spec.kernel;
    expect(of(kernel, initrd)).toEqual({ imageId: kernel, file: 'now', initrd: { imageId: initrd, file: 'now' }, arguments: 'quiet' });
    expect([of(kernel), of(initrd), of()]).toEqual([null, null, null]);
  });
  it('for a drill lies wherever there is room, and says what it is', () => {
    const { spec: drilled, restore } = wished([], { proof: { criterion: 'agent', word: null, timeoutSeconds: 60, since: '2026-01-01T00:00:00.000Z' } });
    expect(drilled).toMatchObject({ description: `Drill of ${backupId}, taken of web-1`, tags: [] });
    expect(drilled).not.toHaveProperty('poolId');
    expect(restore).toMatchObject({ drill: true, proof: { criterion: 'agent' } });
  });
});
