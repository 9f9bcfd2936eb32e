/** A small domain for tests: one disk, one interface. */
import type { DomainPlan } from '@chronovirt/contracts/agent/agent.commands';
import type { VolumeId } from '@chronovirt/contracts/ids';
import type { NetworkPlan } from '@chronovirt/contracts/network/network.events';

export const smallPlan = (of: { readonly volumeId: VolumeId; readonly network: NetworkPlan; readonly mac: string; readonly address: string }, more: Partial<DomainPlan> = {}): DomainPlan => ({
  name: 'spec', vcpus: 1, vcpusMax: 1, memoryMib: 128, memoryMibMax: 128, devices: 'virtio', boot: ['disk'], media: null, seed: null, adopted: null,
  disks: [{ volumeId: of.volumeId, unit: 0, sizeGib: 1, limits: null, layer: null, target: null }], nics: [{ network: of.network, mac: of.mac, address: of.address }], ...more,
});
