import { z } from 'zod';
import { event, type EventOf } from '../event.ts';
import { NodeId } from '../ids.ts';

/** Transitions only: heartbeats themselves never enter the log. Times are the monitor's clock. */
export const presenceEvents = {
  NodeFellSilent: event(z.object({ nodeId: NodeId, silentSince: z.iso.datetime() })),
  NodeReturned: event(z.object({ nodeId: NodeId })),
  /** The node's clock differs from ours by more than 500 ms. Positive: the node is ahead. */
  NodeClockSkewed: event(z.object({ nodeId: NodeId, skewMs: z.int() })),
  NodeClockAgreed: event(z.object({ nodeId: NodeId })),
} as const;
export type PresenceEvent = EventOf<typeof presenceEvents>;
