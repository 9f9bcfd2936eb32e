import { z } from 'zod';
import { command, type CommandOf } from '../command.ts';
import { NodeId } from '../ids.ts';

export const presenceCommands = {
  RecordSilence: command('monitor', 'nodeId', z.object({ nodeId: NodeId, silentSince: z.iso.datetime() })),
  RecordReturn: command('monitor', 'nodeId', z.object({ nodeId: NodeId })),
  RecordSkew: command('monitor', 'nodeId', z.object({ nodeId: NodeId, skewMs: z.int() })),
} as const;
export type PresenceCommand = CommandOf<typeof presenceCommands>;
