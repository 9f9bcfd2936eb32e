import { z } from 'zod';
import { event, type EventOf } from '../event.ts';
import { ImageId, NodeId, PoolId, VmId, VolumeId } from '../ids.ts';

export const volumeEvents = {
  VolumeCreated: event(z.object({ volumeId: VolumeId, vmId: VmId, poolId: PoolId, nodeId: NodeId, imageId: ImageId.nullable(), sizeGib: z.int().min(1) })),
  VolumeResized: event(z.object({ volumeId: VolumeId, vmId: VmId, sizeGib: z.int().min(1) })),
  VolumeDeleted: event(z.object({ volumeId: VolumeId, vmId: VmId })),
} as const;
export type VolumeEvent = EventOf<typeof volumeEvents>;
