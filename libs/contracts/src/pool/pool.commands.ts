import { z } from 'zod';
import { command, type CommandOf } from '../command.ts';
import { NodeId, PoolId, VmId, VolumeId } from '../ids.ts';
import { text } from '../text.ts';

export const poolCommands = {
  /** From a node's report. */
  RegisterPool: command('storage', 'poolId', z.object({ poolId: PoolId, nodeId: NodeId, name: text(100), capacityGib: z.int().min(0) })),
  ReserveSpace: command('storage', 'poolId', z.object({ poolId: PoolId, volumeId: VolumeId, vmId: VmId.nullable(), sizeGib: z.int().min(1) })),
  /** What is promised to a volume becomes this much. */
  ResizeSpace: command('storage', 'poolId', z.object({ poolId: PoolId, volumeId: VolumeId, vmId: VmId, sizeGib: z.int().min(1) })),
  ReleaseSpace: command('storage', 'poolId', z.object({ poolId: PoolId, volumeId: VolumeId, vmId: VmId.nullable() })),
} as const;
export type PoolCommand = CommandOf<typeof poolCommands>;
