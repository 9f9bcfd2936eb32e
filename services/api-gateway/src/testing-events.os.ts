/** Histories for specs of projections: events recorded one after another, and what they fold into. */
import type { EventMeta, RecordedEvent } from '@chronovirt/event-log/log';
import { type Projection, ProjectionInMemory } from '@chronovirt/event-log/projection';

export interface Said {
  readonly stream: string;
  readonly type: string;
  readonly data: object;
  readonly meta?: Partial<EventMeta>;
}

/** Recorded at 12:00:01, 12:00:02 … */
export const recorded = (...said: readonly Said[]): readonly RecordedEvent[] =>
  said.map(({ stream, type, data, meta }, index) => ({
    position: index + 1, stream, version: index + 1, id: `event ${String(index + 1)}`, type, data: data as Readonly<Record<string, unknown>>,
    meta: { actor: 'token_1', commandId: `command ${String(index + 1)}`, ...meta }, recordedAt: `2026-01-31T12:00:${String(index + 1).padStart(2, '0')}.000000Z`,
  }));

/** The documents after all of them. */
export const folded = <D>(projection: Projection<D>, ...said: readonly Said[]): ReadonlyMap<string, D> => {
  const memory = new ProjectionInMemory(projection);
  for (const event of recorded(...said)) memory.take(event);
  return memory.documents;
};

/** What one document was after each event; undefined where there was none. */
export const filmOf = <D>(projection: Projection<D>, id: string, ...said: readonly Said[]): readonly (D | undefined)[] => {
  const memory = new ProjectionInMemory(projection);
  return recorded(...said).map((event) => {
    memory.take(event);
    return memory.documents.get(id);
  });
};
