import { z } from 'zod';
import { command, type CommandOf } from '../command.ts';
import { ConsoleId, NodeId, VmId } from '../ids.ts';
import { text } from '../text.ts';
import { ConsoleKind } from './console.events.ts';

export const OpenConsoleBody = z.strictObject({ kind: ConsoleKind }).meta({ id: 'OpenConsole' });

/** What a line to a node is opened for. `screenshot` brings one PNG and ends. */
export const LinePurpose = z.object({ vmId: VmId, kind: z.enum([...ConsoleKind.options, 'screenshot']) });
export type LinePurpose = z.infer<typeof LinePurpose>;

export const consoleCommands = {
  OpenConsole: command('gateway', 'consoleId', z.object({ consoleId: ConsoleId, vmId: VmId, nodeId: NodeId, kind: ConsoleKind, address: text(100).nullable() })),
  CloseConsole: command('gateway', 'consoleId', z.object({ consoleId: ConsoleId, vmId: VmId, because: text(100), bytesToGuest: z.int().nonnegative(), bytesFromGuest: z.int().nonnegative() })),
} as const;
export type ConsoleCommand = CommandOf<typeof consoleCommands>;
