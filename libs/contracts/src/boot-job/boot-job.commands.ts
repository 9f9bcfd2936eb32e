import { z } from 'zod';
import { command, type CommandOf } from '../command.ts';
import { BootJobId, NodeId, VmId } from '../ids.ts';
import { BootJobWish, BootResult } from './boot-job.ts';

export const bootJobCommands = {
  MakeBootJob: command('gateway', 'jobId', z.object({ jobId: BootJobId, ...BootJobWish.shape })),
  ChangeBootJob: command('gateway', 'jobId', z.object({ jobId: BootJobId, ...BootJobWish.shape })),
  DeleteBootJob: command('gateway', 'jobId', z.object({ jobId: BootJobId })),
} as const;
export type BootJobCommand = CommandOf<typeof bootJobCommands>;

/** A report `cv.rpt.<node>.boot.<vmId>`: what a guest said of its runs. It may come twice. */
export const BootReport = z.object({ nodeId: NodeId, vmId: VmId, results: z.array(BootResult).min(1).max(16), nodeAt: z.iso.datetime() });
export type BootReport = z.infer<typeof BootReport>;
