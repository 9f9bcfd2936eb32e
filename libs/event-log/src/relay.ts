/*
 * Publishes the log, position by position.
 *
 * The log is its own outbox: whoever leads reads behind the relay's checkpoint and publishes, group by group;
 * what comes while two groups are on their way makes the next one. The checkpoint follows the last position
 * before which everything was confirmed. After a failure, a restart or another's lead it goes on from there;
 * what is then published twice carries the same id, and nothing is ever skipped.
 *
 * Each event goes with the position of the one before it in its category, so that a reader of one category
 * sees a hole. Those positions are kept with the checkpoint: they belong to it.
 */
import { categoryOf } from '@chronovirt/contracts/ids';
import { Bell } from './bell.ts';
import { CheckpointLost } from './checkpoint.ts';
import { Leader } from './leader.ts';
import type { RecordedEvent } from './log.ts';
import type { Session} from './session.ts';
import { sessionFrom } from './session.ts';
import { backOffMs, rowsOf } from './sql.ts';
import type { Tail } from './tail.ts';

export interface RelayOptions {
  /** The session that holds the lead and moves the checkpoint; or `url`, for one of its own. */
  readonly session?: Session | undefined;
  readonly url?: string | undefined;
  readonly tail: Tail;
  /** Resolves when all of a group are confirmed, rejects within a bounded time when one is not. */
  publish(group: readonly Outgoing[]): Promise<void>;
  /** Of the checkpoint in event_log.checkpoint. Default 'relay'. */
  readonly name?: string;
  /** Events of one group. Default 64. */
  readonly groupMax?: number;
  /** Milliseconds the checkpoint may stay behind. Default 250. */
  readonly checkpointMs?: number;
  readonly onTrouble?: ((error: unknown) => void) | undefined;
}

export interface Outgoing {
  readonly event: RecordedEvent;
  /** Position of the event before it in its category, 0 when it is the first. */
  readonly previous: number;
}

type Previous = Readonly<Record<string, number>>;

interface Sent {
  readonly group: readonly Outgoing[];
  confirmed: boolean;
}

/** Groups on their way at once: one is being stored while the other is written. */
const GROUPS_MAX = 2;
const AGAIN_MS_MAX = 5_000;

export class Relay {
  private readonly options: RelayOptions;
  private readonly session: Session;
  private readonly own: boolean;
  private readonly leader: Leader;
  private round: Promise<void> | undefined;
  /** Everything up to here is confirmed. */
  private low = -1;
  private previous: Record<string, number> = {};
  private saved = 0;
  /** Rung when something may be over. */
  private readonly over = new Bell();

  constructor(options: RelayOptions) {
    this.options = options;
    const { session, own } = sessionFrom(options, options.name ?? 'relay');
    this.session = session;
    this.own = own;
    this.leader = new Leader({ session, name: options.name ?? 'relay', onTrouble: options.onTrouble, onLead: () => this.lead(), onLost: () => this.lose() });
  }

  get running(): boolean {
    return this.round !== undefined;
  }

  /** Position up to which everything is confirmed, when this process relays; else -1. */
  get position(): number {
    return this.low;
  }

  start(): void {
    if (this.own) this.session.start();
    this.leader.start();
  }

  async stop(): Promise<void> {
    await this.leader.stop();
    if (this.own) await this.session.stop();
  }

  private async lead(): Promise<void> {
    const [row] = await this.session.exclusively((client) =>
      rowsOf<[number, { readonly previous?: Previous }]>(client, undefined, 'select position, state from event_log.checkpoint where name = $1', [this.options.name ?? 'relay']));
    this.low = this.saved = row?.[0] ?? 0;
    this.previous = { ...row?.[1].previous };
    this.round = this.publishing();
  }

  private async lose(): Promise<void> {
    this.over.ring();
    await this.round;
    this.round = undefined;
    if (this.session.connected && this.low > this.saved) await this.save().catch(() => undefined);
    this.low = -1;
  }

  /** Round after round, each from the last confirmed position, until the lead is lost. */
  private async publishing(): Promise<void> {
    const { checkpointMs = 250, onTrouble } = this.options;
    let saving: Promise<void> | undefined;
    const timer = setInterval(() => {
      if (saving !== undefined || this.low <= this.saved) return;
      saving = this.save().catch((error: unknown) => {
        if (error instanceof CheckpointLost) this.leader.resign(100);
        onTrouble?.(error);
      }).finally(() => (saving = undefined));
    }, checkpointMs);
    for (let failures = 0; this.leader.leading;) {
      const from = this.low;
      const error = await this.publishFrom();
      if (error === undefined) break;
      onTrouble?.(error);
      failures = this.low > from ? 1 : failures + 1;
      this.over.hush();
      if (this.leader.leading) await this.over.wait(backOffMs(failures, 50, AGAIN_MS_MAX));
    }
    clearInterval(timer);
    await saving;
  }

  /** Publishes everything behind `low`, and goes on with what comes. Returns why it stopped; undefined: the lead is lost. */
  private async publishFrom(): Promise<unknown> {
    const { tail, groupMax = 64, name = 'relay' } = this.options;
    const sent: Sent[] = [];
    const before: Record<string, number> = { ...this.previous };
    const room = new Bell();
    let inFlight = 0;
    let failure: { readonly error: unknown } | undefined;
    const stopped = (): boolean => failure !== undefined || !this.leader.leading;

    const confirm = (one: Sent): void => {
      one.confirmed = true;
      while (sent[0]?.confirmed === true) {
        for (const { event } of sent.shift()?.group ?? []) {
          this.low = event.position;
          this.previous[categoryOf(event.stream)] = event.position;
        }
      }
    };

    const subscription = tail.subscribe({ after: this.low, name, batchMax: groupMax }, async (events) => {
      while (inFlight >= GROUPS_MAX && !stopped()) await room.wait(1_000);
      // This batch is read again in the next round.
      if (stopped()) return;
      const one: Sent = {
        group: events.map((event) => {
          const category = categoryOf(event.stream);
          const previous = before[category] ?? 0;
          before[category] = event.position;
          return { event, previous };
        }),
        confirmed: false,
      };
      sent.push(one);
      inFlight += 1;
      this.options.publish(one.group).then(() => { confirm(one); }, (error: unknown) => {
        failure ??= { error };
      }).finally(() => {
        inFlight -= 1;
        room.ring();
        if (failure !== undefined) this.over.ring();
      });
    });
    while (!stopped()) await this.over.wait(1_000);
    await subscription.stop();
    // Confirmed late is confirmed: the next round begins behind it.
    while (inFlight > 0) await room.wait(1_000);
    return failure?.error;
  }

  private async save(): Promise<void> {
    const { low, saved } = this;
    const state = JSON.stringify({ previous: this.previous });
    const [row] = await this.session.exclusively((client) =>
      rowsOf<[boolean]>(client, 'event_log.move_checkpoint', 'select event_log.move_checkpoint($1, $2, $3, $4)', [this.options.name ?? 'relay', saved, low, state]));
    if (row?.[0] !== true) throw new CheckpointLost('another process moved the checkpoint of the relay');
    this.saved = low;
  }
}
