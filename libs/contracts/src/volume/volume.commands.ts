import { z } from 'zod';
import { command, type CommandOf } from '../command.ts';
import { ImageId, NodeId, OperationId, PoolId, VmId, VolumeId } from '../ids.ts';
import { Name } from '../text.ts';

const OfVm = { volumeId: VolumeId, vmId: VmId };

export const volumeCommands = {
  CreateVolume: command('storage', 'volumeId', z.object({ ...OfVm, poolId: PoolId, nodeId: NodeId, imageId: ImageId.nullable(), sizeGib: z.int().min(1), name: Name.optional() })),
  /** The same for several and their space, when their VM comes with them; what is refused for one is not there for any. */
  CreateVolumes: command('storage', 'vmId', z.object({ vmId: VmId, poolId: PoolId, nodeId: NodeId, volumes: z.array(z.object({ volumeId: VolumeId, sizeGib: z.int().min(1), name: Name })).min(1).max(23) })),
  DeleteVolumes: command('storage', 'vmId', z.object({ vmId: VmId, poolId: PoolId, volumes: z.array(VolumeId).min(1).max(23) })),
  ResizeVolume: command('storage', 'volumeId', z.object({ ...OfVm, sizeGib: z.int().min(1) })),
  /** Refused when another VM has it, or when it is not in the pool. */
  AttachVolume: command('storage', 'volumeId', z.object({ ...OfVm, poolId: PoolId })),
  /** Nothing when it is not attached to this VM. With `delete`, the operation that does it, it goes then. */
  DetachVolume: command('storage', 'volumeId', z.object({ ...OfVm, delete: OperationId.nullable() })),
  /** The same for several, when their VM goes. */
  DetachVolumes: command('storage', 'vmId', z.object({ vmId: VmId, volumes: z.array(z.object({ volumeId: VolumeId, delete: OperationId.nullable() })).max(32) })),
  /** From the gateway: a volume that no VM has. */
  RemoveDetachedVolume: command('storage', 'volumeId', z.object({ volumeId: VolumeId, operationId: OperationId })),
  AbandonVolumeDelete: command('storage', 'volumeId', z.object({ volumeId: VolumeId, operationId: OperationId })),
  DeleteVolume: command('storage', 'volumeId', z.object({ volumeId: VolumeId, vmId: VmId.nullable() })),
} as const;
export type VolumeCommand = CommandOf<typeof volumeCommands>;
