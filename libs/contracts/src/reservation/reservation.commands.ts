import { z } from 'zod';
import { command, type CommandOf } from '../command.ts';
import { text } from '../text.ts';

const Claim = z.object({ key: z.string().regex(/^[0-9a-f]{64}$/), owner: text(100), label: text(300) });

/** `key` is the SHA-256 of what is held, so that any text fits into a stream's name. */
export const vmNameCommands = {
  ClaimVmName: command('scheduler', 'key', Claim),
  UnclaimVmName: command('scheduler', 'key', Claim.omit({ label: true })),
} as const;
export type VmNameCommand = CommandOf<typeof vmNameCommands>;
