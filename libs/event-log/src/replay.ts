/*
 * Reads the log from a position to its end, fast: one cursor, one snapshot, the next batch asked for while
 * this one is folded. For rebuilding, exporting and looking back; tailing is tail.ts.
 */
import type { EventTable } from '@chronovirt/contracts/event';
import type pg from 'pg';
import Cursor from 'pg-cursor';
import { decoderOf, EVENT_COLUMNS, type EventRow } from './event-row.ts';
import type { RecordedEvent } from './log.ts';
import { plainTypes } from './sql.ts';

export interface ReplayOptions {
  readonly pool: pg.Pool;
  readonly events: EventTable;
  /** Position after which to begin; default 0, the beginning. */
  readonly after?: number;
  /** Last position wanted; default: whatever is there when it begins. */
  readonly until?: number;
  /** Events at a time. Default 1,000. */
  readonly batch?: number;
}

/** Batches of events in order. Holds one connection of the pool until it is done or left. */
export async function* replay({ pool, events, after = 0, until = Number.MAX_SAFE_INTEGER, batch = 1_000 }: ReplayOptions): AsyncGenerator<readonly RecordedEvent[], void> {
  const decode = decoderOf(events);
  const client = await pool.connect();
  const broken = new AbortController();
  const noteBreak = (): void => broken.abort();
  client.on('error', noteBreak);
  const cursor = client.query(new Cursor<EventRow>(
    `select ${EVENT_COLUMNS} from event_log.event e where e.position > $1 and e.position <= $2 order by e.position`, [after, until],
    { rowMode: 'array', types: plainTypes },
  ));
  let asked = cursor.read(batch);
  asked.catch(() => undefined); // awaited below, or left behind by whoever stops early
  try {
    for (;;) {
      const rows = await asked;
      if (rows.length === 0) return;
      asked = cursor.read(batch);
      asked.catch(() => undefined);
      yield rows.map(decode);
    }
  } finally {
    await asked.catch(() => undefined);
    await cursor.close().catch(() => undefined);
    client.off('error', noteBreak);
    client.release(broken.signal.aborted);
  }
}
