/*
 * One of all processes leads: whoever holds the advisory lock of that name in his session. When his
 * connection breaks, Postgres gives the lock to the next who asks, and he is told that he lost it. For a
 * moment two may believe to lead, so what a leader does must be harmless when done twice.
 */
import { Bell } from './bell.ts';
import type { Session} from './session.ts';
import { sessionFrom } from './session.ts';
import { backOffMs } from './sql.ts';

export interface LeaderOptions {
  /** The session whose lock it is; or `url`, for one of its own. */
  readonly session?: Session | undefined;
  readonly url?: string | undefined;
  /** What is led, for example 'relay': unique in the database. */
  readonly name: string;
  /** Called when the lead was won. When it throws, the lead is given back and tried for again later. */
  onLead(): void | Promise<void>;
  /** Called after each lead, when it was lost or given back: whatever was started must end here. */
  onLost(): void | Promise<void>;
  /** Milliseconds between attempts while another leads. Default 1,000. */
  readonly retryMs?: number;
  readonly onTrouble?: ((error: unknown) => void) | undefined;
}

const AGAIN_MS_MAX = 10_000;

export class Leader {
  private readonly options: LeaderOptions;
  private readonly session: Session;
  private readonly own: boolean;
  private readonly bell = new Bell();
  private running: Promise<void> | undefined;
  private stopped = false;
  private leads = false;
  private resigned = false;
  private restMs = 0;
  private unsubscribe: readonly (() => void)[] = [];

  constructor(options: LeaderOptions) {
    this.options = options;
    const { session, own } = sessionFrom(options, options.name);
    this.session = session;
    this.own = own;
  }

  get leading(): boolean {
    return this.leads;
  }

  start(): void {
    if (this.running !== undefined) return;
    this.unsubscribe = [
      this.session.onUp(() => this.bell.ring()),
      this.session.onDown(() => {
        this.leads = false;
        this.bell.ring();
      }),
    ];
    this.session.start();
    this.running = this.run();
  }

  /** Gives the lead to others. Returns when `onLost` has. */
  async stop(): Promise<void> {
    this.stopped = true;
    this.bell.ring();
    await this.running;
    for (const unsubscribe of this.unsubscribe) unsubscribe();
    if (this.own) await this.session.stop();
  }

  /** Gives the lead back, and tries for it again after `restMs`. */
  resign(restMs = 0): void {
    this.resigned = true;
    this.restMs = restMs;
    this.leads = false;
    this.bell.ring();
  }

  private async run(): Promise<void> {
    const { name, retryMs = 1_000 } = this.options;
    for (let failures = 0; !this.stopped;) {
      if (!(await this.session.lock(name).catch(() => false))) {
        await this.bell.wait(backOffMs(1, retryMs, retryMs));
        continue;
      }
      this.leads = this.session.connected;
      this.resigned = false;
      this.restMs = 0;
      try {
        if (this.leads) await this.options.onLead();
        failures = 0;
      } catch (error) {
        failures += 1;
        this.resign(backOffMs(failures, 100, AGAIN_MS_MAX));
        this.options.onTrouble?.(error);
      }
      while (this.isLeading()) await this.bell.wait();
      this.leads = false;
      try {
        await this.options.onLost();
      } catch (error) {
        this.options.onTrouble?.(error);
      }
      await this.session.unlock(name);
      if (this.restMs > 0) await this.rest(this.restMs);
    }
  }

  private isLeading(): boolean {
    return this.leads && !this.stopped && !this.resigned;
  }

  private async rest(ms: number): Promise<void> {
    const until = performance.now() + ms;
    while (!this.stopped && performance.now() < until) await this.bell.wait(until - performance.now());
  }
}
