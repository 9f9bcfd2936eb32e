/*
 * The log for whoever follows it from outside: pages, and a live stream.
 *
 * A stream is a subscription to the process's one tail of the log. It is handed a batch, writes it, and is
 * handed the next when the socket has taken it: a slow client holds at most one batch here and nothing else,
 * and continues from the log by itself, however far behind. So memory is bounded and nothing is left out.
 * A client that comes back names the last position that it has seen, and goes on behind it.
 */
import { categoryOf } from '@chronovirt/contracts/ids';
import { allEvents } from '@chronovirt/contracts/registry';
import { decoderOf, EVENT_COLUMNS, type EventRow } from '@chronovirt/event-log/event-row';
import type { EventLog, RecordedEvent } from '@chronovirt/event-log/log';
import { rowsOf } from '@chronovirt/event-log/sql';
import type { Tail } from '@chronovirt/event-log/tail';
import type pg from 'pg';
import { concerned } from './vm-history.projection.ts';

export interface EventFilter {
  readonly category?: string | undefined;
  readonly vm?: string | undefined;
}

export const matches = (event: RecordedEvent, filter: EventFilter): boolean =>
  (filter.category === undefined || categoryOf(event.stream) === filter.category) && (filter.vm === undefined || concerned(event).includes(filter.vm));

const SCAN_PAGE = 1_000;
/** Events looked at for one page; a page that ends here has fewer items and says where to go on. */
const SCAN_MAX = 20_000;
const BATCH_MAX = 200;
const LISTENERS_MAX = 256;

export interface EventSink {
  /** Resolves when there is room for more; rejects when whoever listened is gone. */
  write(events: readonly RecordedEvent[]): Promise<void>;
}

export class EventFeed {
  private readonly log: EventLog;
  private readonly tail: Tail;
  private readonly pool: pg.Pool;
  private readonly decode = decoderOf(allEvents);
  private readonly following = new Set<() => void>();

  constructor({ log, tail, pool }: { readonly log: EventLog; readonly tail: Tail; readonly pool: pg.Pool }) {
    this.log = log;
    this.tail = tail;
    this.pool = pool;
  }

  get count(): number {
    return this.following.size;
  }

  /** The events at these positions, in their order. */
  async at(positions: readonly number[]): Promise<readonly RecordedEvent[]> {
    if (positions.length === 0) return [];
    const rows = await rowsOf<EventRow>(this.pool, 'gateway.events_at', `select ${EVENT_COLUMNS} from event_log.event e where e.position = any($1::bigint[]) order by e.position`, [positions]);
    return rows.map(this.decode);
  }

  /** Ends every stream; clients come back and go on where they were. */
  close(): void {
    for (const end of [...this.following]) end();
  }

  /** Events behind `after` that match, at most `limit`; `next` is the position to go on behind, `head` the end of the log. */
  async page(after: number, limit: number, filter: EventFilter): Promise<{ readonly items: readonly RecordedEvent[]; readonly next: number; readonly head: number }> {
    const head = await this.log.head();
    const items: RecordedEvent[] = [];
    let position = after;
    for (let scanned = 0; scanned < SCAN_MAX && items.length < limit && position < head;) {
      const events = await this.log.read(position, Math.min(SCAN_PAGE, filter.category === undefined && filter.vm === undefined ? limit - items.length : SCAN_PAGE));
      if (events.length === 0) break;
      scanned += events.length;
      for (const event of events) {
        if (items.length >= limit) break;
        position = event.position;
        if (matches(event, filter)) items.push(event);
      }
    }
    return { items, next: position, head };
  }

  head(): Promise<number> {
    return this.log.head();
  }

  /** Follows the log until stopped; `ended` is told once, whoever ends it. Undefined when too many do already. */
  follow(after: number, filter: EventFilter, sink: EventSink, ended: () => void): { stop(): void } | undefined {
    if (this.following.size >= LISTENERS_MAX) return undefined;
    let stopped = false;
    const stop = (): void => {
      if (stopped) return;
      stopped = true;
      this.following.delete(stop);
      void subscription.stop();
      ended();
    };
    this.following.add(stop);
    const subscription = this.tail.subscribe({ after, name: 'gateway events', batchMax: BATCH_MAX }, async (events) => {
      if (stopped) return;
      const wanted = filter.category === undefined && filter.vm === undefined ? events : events.filter((event) => matches(event, filter));
      // Whoever is gone needs no more of it.
      if (wanted.length > 0) await sink.write(wanted).catch(stop);
    });
    return { stop };
  }
}
