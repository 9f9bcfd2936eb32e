import { z } from 'zod';
import { event, type EventOf } from '../event.ts';
import { text } from '../text.ts';

/** One stream for each thing that may be held once: a VM's name, a machine's id. The owner is an id. */
export const reservationEvents = {
  Claimed: event(z.object({ owner: text(100), label: text(300) })),
  Unclaimed: event(z.object({ owner: text(100) })),
} as const;
export type ReservationEvent = EventOf<typeof reservationEvents>;
