import { z } from 'zod';
import { event, type EventOf } from '../event.ts';
import { NodeId, PoolId, VmId, VolumeId } from '../ids.ts';
import { text } from '../text.ts';

export const poolEvents = {
  /** A node reported a place for disks. Sizes in GiB. */
  PoolRegistered: event(z.object({ poolId: PoolId, nodeId: NodeId, name: text(100), capacityGib: z.int().min(0), overcommitPercent: z.int().min(1) })),
  PoolResized: event(z.object({ nodeId: NodeId, capacityGib: z.int().min(0) })),
  SpaceReserved: event(z.object({ nodeId: NodeId, volumeId: VolumeId, vmId: VmId.nullable(), sizeGib: z.int().min(1) })),
  SpaceResized: event(z.object({ nodeId: NodeId, volumeId: VolumeId, vmId: VmId, sizeGib: z.int().min(1), beforeGib: z.int().min(1) })),
  SpaceReleased: event(z.object({ nodeId: NodeId, volumeId: VolumeId, vmId: VmId.nullable(), sizeGib: z.int().min(1) })),
} as const;
export type PoolEvent = EventOf<typeof poolEvents>;
