import { z } from 'zod';
import { event, type EventOf } from '../event.ts';
import { ImageId, NodeId, OperationId, PoolId, VmId, VolumeId } from '../ids.ts';
import { Name } from '../text.ts';

/** What a guest may do with a disk in a second, reads and writes together; what is left out is not limited. */
export const DiskLimits = z.strictObject({
  iops: z.int().min(1).max(10_000_000).optional().describe('Reads and writes in a second'),
  bytesPerSecond: z.int().min(65_536).max(1_000_000_000_000).optional().describe('Bytes read and written in a second'),
}).meta({ id: 'DiskLimits' });
export type DiskLimits = z.infer<typeof DiskLimits>;

/** For how long a volume is kept that nobody asked for by name. */
export const KeptVolume = z.object({ name: Name, deleteAt: z.iso.datetime() });
export type KeptVolume = z.infer<typeof KeptVolume>;

export const volumeEvents = {
  /** Made for a VM, and attached to it. Without a name: the disk that a VM was made with. */
  VolumeCreated: event(z.object({ volumeId: VolumeId, vmId: VmId, poolId: PoolId, nodeId: NodeId, imageId: ImageId.nullable(), sizeGib: z.int().min(1), name: Name.optional() })),
  VolumeResized: event(z.object({ volumeId: VolumeId, vmId: VmId, sizeGib: z.int().min(1) })),
  VolumeAttached: event(z.object({ volumeId: VolumeId, vmId: VmId })),
  /** `kept`: it is deleted at that time, unless a VM has it by then. */
  VolumeDetached: event(z.object({ volumeId: VolumeId, vmId: VmId, kept: KeptVolume.optional() })),
  /** Nobody uses it and nobody may any more: its bytes go, then its space, then it is deleted. */
  VolumeDeleteStarted: event(z.object({ operationId: OperationId, volumeId: VolumeId, poolId: PoolId, nodeId: NodeId })),
  /** Its node did not answer for a day. It can be asked for again. */
  VolumeDeleteAbandoned: event(z.object({ operationId: OperationId, volumeId: VolumeId })),
  VolumeDeleted: event(z.object({ volumeId: VolumeId, vmId: VmId.nullable() })),
} as const;
export type VolumeEvent = EventOf<typeof volumeEvents>;
