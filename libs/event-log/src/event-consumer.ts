/*
 * Hands every event to a handler at least once, in order: for policies, which answer events with commands.
 * One process does it for all (an advisory lock); the checkpoint moves after the handler is done, so events
 * come again after a crash, and what the handler sends must be harmless when sent twice: ids of commands
 * made from the event's id are.
 */
import { type Checkpoint, CheckpointLost, movingSql, movingValues, asCheckpointLost, takeOverCheckpoints } from './checkpoint.ts';
import { Leader } from './leader.ts';
import type { Session} from './session.ts';
import { sessionFrom } from './session.ts';
import { inTransaction, rowsOf } from './sql.ts';
import type { EventsHandler, Subscription, Tail } from './tail.ts';

export interface EventConsumerOptions {
  /** The session that holds the lead and moves the checkpoint; or `url`, for one of its own. */
  readonly session?: Session | undefined;
  readonly url?: string | undefined;
  readonly tail: Tail;
  /** The service's schema, where `checkpoint` is. */
  readonly schema: string;
  /** Names the checkpoint: '<schema>.<purpose>'. */
  readonly name: string;
  /** Given the same batch again, with back-off, when it throws. */
  readonly handler: EventsHandler;
  /** Events at a time. Default 500. */
  readonly batchMax?: number;
  readonly onTrouble?: ((error: unknown) => void) | undefined;
}

/** How long the checkpoint may stay behind: what is handled again after a crash. */
const MOVE_MS = 200;

export class EventConsumer {
  private readonly options: EventConsumerOptions;
  private readonly session: Session;
  private readonly own: boolean;
  private readonly leader: Leader;
  private subscription: Subscription | undefined;
  private checkpoint: Checkpoint | undefined;
  private handled = -1;
  private moving: NodeJS.Timeout | undefined;
  private work: Promise<unknown> = Promise.resolve();

  constructor(options: EventConsumerOptions) {
    this.options = options;
    const { session, own } = sessionFrom(options, options.name);
    this.session = session;
    this.own = own;
    this.leader = new Leader({ session, name: `consumer ${options.name}`, onTrouble: options.onTrouble, onLead: () => this.lead(), onLost: () => this.lose() });
  }

  /** Whether this process is the one that handles. */
  get running(): boolean {
    return this.subscription !== undefined;
  }

  /** Position of the last event handled, when this process handles them; else -1. */
  get position(): number {
    return this.handled;
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
    const { schema, name, tail, batchMax = 500 } = this.options;
    const [checkpoint] = await this.session.exclusively((client) => inTransaction(client, () => takeOverCheckpoints(client, schema, [{ name, version: 1 }])));
    if (checkpoint === undefined) throw new CheckpointLost(`${name} has no checkpoint`);
    this.checkpoint = checkpoint;
    this.handled = checkpoint.position;
    this.subscription = tail.subscribe({ after: checkpoint.position, name, batchMax }, async (events) => {
      if (!this.leader.leading) throw new CheckpointLost('the lead was lost');
      await this.options.handler(events);
      this.handled = events.at(-1)?.position ?? this.handled;
      this.moving ??= setTimeout(() => void this.move().catch((error: unknown) => this.options.onTrouble?.(error)), MOVE_MS);
    });
  }

  private async lose(): Promise<void> {
    const subscription = this.subscription;
    this.subscription = undefined;
    await subscription?.stop();
    // After a good end nothing is handled again; after a bad one the checkpoint says how much is.
    if (this.session.connected) await this.move().catch(() => undefined);
    clearTimeout(this.moving);
    this.moving = undefined;
    this.checkpoint = undefined;
    this.handled = -1;
  }

  private move(): Promise<void> {
    clearTimeout(this.moving);
    this.moving = undefined;
    const mine = this.work.then(async () => {
      const { checkpoint, handled } = this;
      if (checkpoint === undefined || handled <= checkpoint.position) return;
      const { moved, guard } = movingSql(this.options.schema);
      try {
        await this.session.exclusively((client) => rowsOf(client, undefined, `with ${moved}\n${guard}`, movingValues([checkpoint], checkpoint.position, handled)));
        this.checkpoint = { ...checkpoint, position: handled };
      } catch (error) {
        const lost = asCheckpointLost(error);
        if (lost instanceof CheckpointLost) this.leader.resign(100);
        throw lost;
      }
    });
    this.work = mine.catch(() => undefined);
    return mine;
  }
}
