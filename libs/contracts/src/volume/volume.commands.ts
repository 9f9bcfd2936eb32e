import { z } from 'zod';
import { command, type CommandOf } from '../command.ts';
import { ImageId, NodeId, PoolId, VmId, VolumeId } from '../ids.ts';

export const volumeCommands = {
  CreateVolume: command('storage', 'volumeId', z.object({ volumeId: VolumeId, vmId: VmId, poolId: PoolId, nodeId: NodeId, imageId: ImageId.nullable(), sizeGib: z.int().min(1) })),
  ResizeVolume: command('storage', 'volumeId', z.object({ volumeId: VolumeId, vmId: VmId, sizeGib: z.int().min(1) })),
  DeleteVolume: command('storage', 'volumeId', z.object({ volumeId: VolumeId, vmId: VmId })),
} as const;
export type VolumeCommand = CommandOf<typeof volumeCommands>;
