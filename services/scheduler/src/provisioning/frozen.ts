/* What a snapshot froze of disks, for whoever copies it: asked before they are read, and again when they were. */
import type { Outgoing } from '@chronovirt/contracts/command';
import type { SnapshotId, VmId, VolumeId } from '@chronovirt/contracts/ids';
import type { Layer } from '@chronovirt/contracts/vm/snapshot';
import type { Facts } from '@chronovirt/decider/decider';
import { fact } from './node-verb.ts';

/** `found`: what the same question was answered before; then it is refused unless that is still so. */
export const findFrozen = (vmId: VmId, snapshotId: SnapshotId, volumes: readonly VolumeId[], found: Facts | undefined): Outgoing =>
  ({ to: 'scheduler', target: vmId, type: 'FindSnapshotDisks', data: { vmId, snapshotId, volumes: [...volumes], ...(found === undefined ? {} : { layers: [...layersIn(found)] }) } });

/** The layers that hold these disks, in their order. */
export const layersIn = (found: Facts | undefined): readonly Layer[] => fact(found, 'layers');
