import { z } from 'zod';
import { CommandEnvelope } from '../command.ts';
import { event, type EventOf } from '../event.ts';
import { OperationId } from '../ids.ts';
import { text } from '../text.ts';

/** Commands that the gateway owes their receivers: it sends them until each is answered. */
export const operationEvents = {
  CommandsAccepted: event(z.object({ operationId: OperationId, kind: text(60), commands: z.array(CommandEnvelope).min(1).max(500) })),
} as const;
export type OperationEvent = EventOf<typeof operationEvents>;
