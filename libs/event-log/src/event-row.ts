/* A row of event_log.event, and the event it is. */
import type { EventTable } from '@chronovirt/contracts/event';
import type { EventMeta, RecordedEvent } from './log.ts';

/** What is selected of `event_log.event e`, as EventRow. The timestamp goes as Postgres prints it: to_char would cost more than the rest. */
export const EVENT_COLUMNS = `e.position, e.stream, e.version, e.id, e.type, e.shape, e.data, e.meta, (e.recorded_at at time zone 'UTC')::text`;

export type EventRow = readonly [
  position: number, stream: string, version: number, id: string, type: string, shape: number, data: unknown, meta: EventMeta, recordedAt: string,
];

/** A row holds what this version has no name or no shape for: written by a newer one, or not by us. */
export class UnknownEvent extends Error {
  override readonly name = 'UnknownEvent';
}

/** Turns rows into events of the newest shape, each checked against its schema. Throws UnknownEvent. */
export const decoderOf = (events: EventTable) => ([position, stream, version, id, type, shape, data, meta, recordedAt]: EventRow): RecordedEvent => {
  const spec = Object.hasOwn(events, type) ? events[type] : undefined;
  if (spec === undefined) throw new UnknownEvent(`event ${String(position)} is a ${type}, which this version does not know`);
  let newest: unknown;
  try {
    newest = spec.read(data, shape);
  } catch (cause) {
    throw new UnknownEvent(`event ${String(position)}, a ${type} of shape ${String(shape)}, cannot be read`, { cause });
  }
  return { position, stream, version, id, type, data: newest as Readonly<Record<string, unknown>>, meta, recordedAt: isoOf(recordedAt) };
};

/** '2026-01-31 12:00:00.5' gives '2026-01-31T12:00:00.500000Z'. */
const isoOf = (printed: string): string => {
  const date = `${printed.slice(0, 10)}T${printed.slice(11, 19)}`;
  const fraction = printed.slice(20);
  return fraction.length === 6 ? `${date}.${fraction}Z` : `${date}.${fraction.padEnd(6, '0')}Z`;
};
