/* A VM that is made of what a snapshot of another holds. */
import type { PoolId, SnapshotId, VmId, VolumeId } from '@chronovirt/contracts/ids';
import type { NetworkPlan } from '@chronovirt/contracts/network/network.events';
import type { Copy, VmSpec } from '@chronovirt/contracts/vm/vm.events';
import { refuse, type Refusal } from '@chronovirt/decider/decider';
import { anotherOf, type FindImage, layoutAfter, networksBeside, obstacleToAnother } from './another.ts';
import { hostnameOf } from './domain-plan.ts';
import type { Vm } from './vm.ts';

export interface Cloning {
  readonly spec: VmSpec;
  readonly copy: Copy;
  readonly network: NetworkPlan;
  /** In GiB, of all disks together. */
  readonly sizeGib: number;
}

/** `network` undefined: that of the other VM. `volumeOf` names the new disk in a place. */
export const cloning = (source: Vm, wish: {
  readonly ofVm: VmId; readonly snapshotId: SnapshotId; readonly name: string; readonly description: string | undefined; readonly network: NetworkPlan | undefined; readonly networks: (networkId: string) => NetworkPlan | undefined;
  readonly imageOf: FindImage; readonly poolId: PoolId | null; readonly volumeOf: (unit: number) => VolumeId;
}): Cloning | Refusal => {
  if (source.status !== 'live') return refuse('vm.not_found', { vmId: wish.ofVm });
  const { vmId, nodeId, layout, network: own, snapshots, volumes: attached } = source;
  const snapshot = snapshots.list.find((one) => one.snapshotId === wish.snapshotId);
  if (snapshot === undefined) return refuse('snapshot.not_found', { vmId, snapshotId: wish.snapshotId });
  if (snapshot.kind === 'internal') return refuse('snapshot.internal', { vmId, snapshotId: wish.snapshotId });
  const obstacle = layout === null ? undefined : obstacleToAnother(layout);
  if (obstacle !== undefined) return refuse('snapshot.of_adopted', { vmId, says: obstacle });
  if (nodeId === null) return refuse('vm.not_provisioned', { vmId, failure: null });
  const network = wish.network ?? (own === null ? undefined : wish.networks(own.networkId));
  if (network === undefined) return own === null ? refuse('snapshot.needs_network', { vmId, field: 'network' }) : refuse('network.unknown', { network: own.networkId, field: 'network' });
  const [first, ...others] = [...snapshot.disks].sort((a, b) => a.unit - b.unit);
  if (first?.unit !== 0) return refuse('vm.system_disk', { vmId });
  const volumes = others.map(({ unit, sizeGib, volumeId }) => ({ unit, sizeGib, limits: attached.find((volume) => volume.volumeId === volumeId)?.limits ?? null, volumeId: wish.volumeOf(unit) }));
  const spec = anotherOf(source.spec, { name: wish.name, network, nodeId: null, layout, imageOf: wish.imageOf });
  // What was said of the address was said of the other's; and nobody knows whether one that was adopted has cloud-init.
  const { networkConfig: _, ...cloudInit } = spec.cloudInit ?? { hostname: hostnameOf(wish.name), sshKeys: [] };
  return {
    network,
    spec: { ...spec, ...(wish.description === undefined ? {} : { description: wish.description }), ...(wish.poolId === null ? {} : { poolId: wish.poolId }), diskGib: first.sizeGib, newIdentity: true, cloudInit: layout !== null && spec.cloudInit === null ? null : cloudInit },
    copy: { ofVm: vmId, snapshotId: wish.snapshotId, nodeId, from: [first.volumeId, ...others.map(({ volumeId }) => volumeId)], volumes, ...(layout === null ? {} : { layout: layoutAfter(layout, snapshot.disks, wish.volumeOf) }), ...networksBeside(network, source.nics.map((nic) => nic.network), wish.networks) },
    sizeGib: [first, ...others].reduce((sum, { sizeGib }) => sum + sizeGib, 0),
  };
};
