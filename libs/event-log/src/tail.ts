/*
 * Follows the log for everyone in this process.
 *
 * A notification says how far the log has come: it may be lost with its connection, so the log is looked at
 * every second anyway, and what is read is whatever stands behind the last position. Because positions have
 * no gaps and rise in commit order, that is everything, in order. What this process appended itself it need
 * not read: when it stands right behind the last position, it is taken as it is.
 *
 * The events read last are kept for all subscribers; who is further behind reads his own pages until he has
 * caught up. Each goes at his own pace and is never given a batch before he is done with the one before.
 */
import { Bell } from './bell.ts';
import type { EventLog, RecordedEvent } from './log.ts';
import type { Session} from './session.ts';
import { sessionFrom } from './session.ts';
import { backOffMs } from './sql.ts';

export interface TailOptions {
  /** The session that listens; or `url`, for one of its own. */
  readonly session?: Session | undefined;
  readonly url?: string | undefined;
  readonly log: Pick<EventLog, 'read' | 'head'>;
  /** Milliseconds between looks when nobody notifies. Default 1,000. */
  readonly pollMs?: number;
  /** Events kept for subscribers. Default 4,000. */
  readonly keptMax?: number;
  /** Told of failures to read, and of handlers that threw. */
  readonly onTrouble?: ((error: unknown, subscriber?: string) => void) | undefined;
}

export interface SubscribeOptions {
  /** Position after which to begin. */
  readonly after: number;
  /** For messages about trouble. */
  readonly name: string;
  /** Events at a time. Default 500. */
  readonly batchMax?: number;
}

export type EventsHandler = (events: readonly RecordedEvent[]) => void | Promise<void>;

const PAGE = 1_000;
const AGAIN_MS_MAX = 5_000;

export class Tail {
  private readonly options: TailOptions;
  private readonly session: Session;
  private readonly own: boolean;
  private readonly bell = new Bell();
  private readonly subscriptions = new Set<Subscription>();
  private readonly waiters = new Set<{ readonly position: number; readonly resolve: (reached: boolean) => void }>();
  private kept: RecordedEvent[] = [];
  private position = -1;
  private stopped = false;
  private running: Promise<void> | undefined;
  private unlisten: (() => void) | undefined;

  constructor(options: TailOptions) {
    this.options = options;
    const { session, own } = sessionFrom(options, 'tail');
    this.session = session;
    this.own = own;
  }

  /** Position of the last event seen; 0 before the first look. */
  get head(): number {
    return Math.max(this.position, 0);
  }

  async start(): Promise<void> {
    if (this.running !== undefined) return;
    this.session.start();
    this.unlisten = await this.session.listen('event_log', (payload) => {
      if (!(Number(payload) <= this.position)) this.bell.ring();
    });
    this.running = this.run();
  }

  /** Ends all subscriptions, each after the batch that it is at. */
  async stop(): Promise<void> {
    this.stopped = true;
    this.bell.ring();
    this.unlisten?.();
    await Promise.all([...this.subscriptions].map((subscription) => subscription.stop()));
    for (const { resolve } of this.waiters) resolve(false);
    await this.running;
    if (this.own) await this.session.stop();
  }

  /**
   * Hands every event after a position to the handler, in order, in batches. When the handler throws, it is
   * given the same batch again, with back-off, until it does not.
   */
  subscribe(options: SubscribeOptions, handler: EventsHandler): Subscription {
    const subscription: Subscription = new Subscription(options, handler, {
      head: () => this.head,
      take: (after, limit) => this.take(after, limit),
      onTrouble: (error) => this.options.onTrouble?.(error, options.name),
      ended: () => this.subscriptions.delete(subscription),
    });
    this.subscriptions.add(subscription);
    subscription.start();
    return subscription;
  }

  /** True as soon as the event of that position was seen here; false when that takes longer. */
  waitFor(position: number, timeoutMs: number): Promise<boolean> {
    if (this.position >= position) return Promise.resolve(true);
    if (this.stopped) return Promise.resolve(false);
    return new Promise((resolve) => {
      const waiter = {
        position,
        resolve: (reached: boolean) => {
          clearTimeout(timer);
          this.waiters.delete(waiter);
          resolve(reached);
        },
      };
      const timer = setTimeout(() => waiter.resolve(false), timeoutMs);
      this.waiters.add(waiter);
    });
  }

  /** Events that this process has just committed, of one append. They are read like all others when some that stand before them were not seen yet. */
  offer(events: readonly RecordedEvent[]): void {
    const first = events[0];
    if (first !== undefined && this.position >= 0 && first.position <= this.position + 1) this.seen(events);
  }

  /** Looks now, without waiting for a notification. */
  look(): void {
    this.bell.ring();
  }

  private async run(): Promise<void> {
    const { log, pollMs = 1_000 } = this.options;
    for (let failures = 0; !this.stopped;) {
      try {
        if (this.position < 0) this.reached(await log.head());
        const events = await log.read(this.position, PAGE);
        failures = 0;
        this.seen(events);
        if (events.length === PAGE) continue;
      } catch (error) {
        failures += 1;
        if (failures === 1) this.options.onTrouble?.(error);
      }
      await this.bell.wait(failures === 0 ? pollMs : backOffMs(failures, 50, AGAIN_MS_MAX));
    }
  }

  private seen(events: readonly RecordedEvent[]): void {
    // While some were read, others may have been offered.
    const fresh = events.filter(({ position }) => position > this.position);
    const last = fresh.at(-1);
    if (last === undefined) return;
    this.kept.push(...fresh);
    const keptMax = this.options.keptMax ?? 4_000;
    // Half at a time: taking one off the front for each that comes would move all of them each time.
    if (this.kept.length > keptMax * 1.5) this.kept = this.kept.slice(-keptMax);
    this.reached(last.position);
  }

  private reached(position: number): void {
    this.position = position;
    for (const subscription of this.subscriptions) subscription.wake();
    for (const waiter of [...this.waiters]) if (position >= waiter.position) waiter.resolve(true);
  }

  private take(after: number, limit: number): readonly RecordedEvent[] | Promise<readonly RecordedEvent[]> {
    const first = this.kept[0]?.position;
    if (first === undefined || after + 1 < first) return this.options.log.read(after, limit);
    // Without gaps, the place in the list follows from the position.
    return this.kept.slice(after + 1 - first, after + 1 - first + limit);
  }
}

interface Source {
  head(): number;
  take(after: number, limit: number): readonly RecordedEvent[] | Promise<readonly RecordedEvent[]>;
  onTrouble(error: unknown): void;
  ended(): void;
}

export class Subscription {
  private readonly options: SubscribeOptions;
  private readonly handler: EventsHandler;
  private readonly source: Source;
  private readonly bell = new Bell();
  private readonly stopping = new AbortController();
  private done: number;
  private running: Promise<void> = Promise.resolve();

  constructor(options: SubscribeOptions, handler: EventsHandler, source: Source) {
    this.options = options;
    this.handler = handler;
    this.source = source;
    this.done = options.after;
  }

  /** Position of the last event that was handled. */
  get position(): number {
    return this.done;
  }

  start(): void {
    this.running = this.run();
  }

  wake(): void {
    this.bell.ring();
  }

  /** No batch begins after this; returns when the one under way is done. Not to be awaited by the handler itself. */
  async stop(): Promise<void> {
    this.stopping.abort();
    this.bell.ring();
    await this.running;
  }

  private async run(): Promise<void> {
    const { batchMax = 500 } = this.options;
    for (let failures = 0; !this.stopping.signal.aborted;) {
      if (this.done >= this.source.head()) {
        await this.bell.wait();
        continue;
      }
      try {
        const events = await this.source.take(this.done, batchMax);
        const last = events.at(-1);
        if (this.stopping.signal.aborted) break;
        if (last === undefined) await this.bell.wait(1_000);
        else {
          await this.handler(events);
          this.done = last.position;
        }
        failures = 0;
      } catch (error) {
        failures += 1;
        this.source.onTrouble(error);
        await this.rest(backOffMs(failures, 50, AGAIN_MS_MAX));
      }
    }
    this.source.ended();
  }

  private async rest(ms: number): Promise<void> {
    const until = performance.now() + ms;
    while (!this.stopping.signal.aborted && performance.now() < until) await this.bell.wait(until - performance.now());
  }
}
