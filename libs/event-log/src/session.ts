/*
 * One long-lived connection to Postgres, for what lives as long as a connection does: LISTEN, advisory
 * locks, and the writes of whoever holds such a lock. When it breaks, the locks are gone, so whoever held
 * one is told at once, and the connection comes back by itself with back-off.
 *
 * It is asked for a sign of life every few seconds: a host that died says nothing, and a lock must not be
 * believed in meanwhile. TCP keepalives do the same on the other side (tcp_keepalives_idle and its kin).
 *
 * Commits on it do not wait for the disk (synchronous_commit = off). What is written here are rows and
 * checkpoints that are made from the log again when a crash takes the last moment of them, always together.
 */
import pg from 'pg';
import { backOffMs } from './sql.ts';

export interface SessionOptions {
  readonly url: string;
  /** Shown in pg_stat_activity. */
  readonly name?: string;
  /** Milliseconds between signs of life, and how long one may take. Default 3,000. */
  readonly heartbeatMs?: number;
  /** Told of each failure to connect and each break. */
  readonly onTrouble?: ((error: unknown) => void) | undefined;
}

/** There is no connection now; it is being made again. */
export class NotConnected extends Error {
  override readonly name = 'NotConnected';
}

const CONNECT_WITHIN_MS = 5_000;
const AGAIN_MS_MAX = 2_000;

export class Session {
  private readonly options: SessionOptions;
  private client: pg.Client | undefined;
  private stopped = false;
  private running: Promise<void> | undefined;
  private queue: Promise<unknown> = Promise.resolve();
  private readonly held = new Set<string>();
  private readonly ups = new Set<() => void>();
  private readonly downs = new Set<() => void>();
  private readonly channels = new Map<string, Set<(payload?: string) => void>>();
  private interrupt: (() => void) | undefined;

  constructor(options: SessionOptions) {
    this.options = options;
  }

  get connected(): boolean {
    return this.client !== undefined;
  }

  /** Begins to connect, and goes on until `stop`. May be called by each who uses it. */
  start(): void {
    this.running ??= this.run();
  }

  async stop(): Promise<void> {
    this.stopped = true;
    this.interrupt?.();
    await this.running;
  }

  /** Called whenever there is a connection, a new one with none of the old one's locks; soon, if there is one now. */
  onUp(listener: () => void): () => void {
    this.ups.add(listener);
    if (this.connected) queueMicrotask(() => void (this.ups.has(listener) && this.connected && listener()));
    return () => void this.ups.delete(listener);
  }

  /** Called when the connection broke or was closed: every lock is gone. */
  onDown(listener: () => void): () => void {
    this.downs.add(listener);
    return () => void this.downs.delete(listener);
  }

  /** Calls `listener` at every notification on the channel, and, without a payload, at every new connection, because one may have been missed. */
  async listen(channel: string, listener: (payload?: string) => void): Promise<() => void> {
    const listeners = this.channels.get(channel) ?? new Set();
    this.channels.set(channel, listeners);
    listeners.add(listener);
    if (listeners.size === 1 && this.connected) await this.query(`listen ${pg.escapeIdentifier(channel)}`).catch(() => undefined);
    return () => void listeners.delete(listener);
  }

  /** Runs `work` with the connection to itself. Throws NotConnected. */
  exclusively<T>(work: (client: pg.Client) => Promise<T>): Promise<T> {
    const mine = this.queue.then(() => {
      if (this.client === undefined) throw new NotConnected('not connected to Postgres');
      return work(this.client);
    });
    this.queue = mine.catch(() => undefined);
    return mine;
  }

  query(text: string, values: readonly unknown[] = []): Promise<pg.QueryResult<Record<string, unknown>>> {
    return this.exclusively((client) => client.query<Record<string, unknown>>(text, [...values]));
  }

  /** Takes the advisory lock of that name if it is free. It is held until `unlock` or until the connection breaks. */
  lock(name: string): Promise<boolean> {
    return this.exclusively(async (client) => {
      // Postgres would give a session the same lock twice.
      if (this.held.has(name)) return false;
      const { rows } = await client.query<{ locked: boolean }>('select pg_try_advisory_lock(hashtextextended($1, 0)) as locked', [name]);
      // It may have broken right after the answer.
      if (rows[0]?.locked !== true || this.client !== client) return false;
      this.held.add(name);
      return true;
    });
  }

  async unlock(name: string): Promise<void> {
    await this.exclusively(async (client) => {
      if (this.held.delete(name)) await client.query('select pg_advisory_unlock(hashtextextended($1, 0))', [name]);
    }).catch(() => undefined); // broken: then it is gone
  }

  private async run(): Promise<void> {
    for (let attempt = 1; !this.stopped; attempt++) {
      try {
        const client = await this.connect();
        attempt = 1;
        await this.live(client);
      } catch (error) {
        this.options.onTrouble?.(error);
      }
      if (!this.stopped) await this.pause(backOffMs(attempt, 50, AGAIN_MS_MAX));
    }
  }

  private async connect(): Promise<pg.Client> {
    const client = new pg.Client({
      connectionString: this.options.url, connectionTimeoutMillis: CONNECT_WITHIN_MS, keepAlive: true, application_name: this.options.name ?? 'chronovirt session',
    });
    client.on('error', () => undefined); // `live` hears of it by 'end'
    await client.connect();
    try {
      await client.query('set synchronous_commit = off');
      for (const channel of this.channels.keys()) await client.query(`listen ${pg.escapeIdentifier(channel)}`);
    } catch (error) {
      await client.end().catch(() => undefined);
      throw error;
    }
    return client;
  }

  /** As long as the connection lives. */
  private async live(client: pg.Client): Promise<void> {
    const heartbeatMs = this.options.heartbeatMs ?? 3_000;
    let ended = false;
    let trouble: unknown;
    const end = (error?: unknown): void => {
      ended = true;
      trouble ??= error;
      this.interrupt?.();
    };
    client.on('error', end);
    client.on('end', () => end(new NotConnected('Postgres closed the connection')));
    client.on('notification', ({ channel, payload }) => this.channels.get(channel)?.forEach((listener) => { listener(payload); }));
    this.client = client;
    for (const listener of [...this.ups, ...[...this.channels.values()].flatMap((listeners) => [...listeners])]) listener();

    for (;;) {
      if (!ended && !this.stopped) await this.pause(heartbeatMs);
      if (ended || this.stopped) break;
      const sign = this.query('select 1').then(() => true, () => false);
      const late = new Promise<false>((resolve) => {
        const timer = setTimeout(() => resolve(false), heartbeatMs);
        void sign.then(() => clearTimeout(timer));
      });
      // Long work ahead of it in the queue is a sign of life too; only silence is not.
      if (!(await Promise.race([sign, late])) && !ended && !(await this.answersBeside())) end(new NotConnected(`Postgres has not answered for ${String(heartbeatMs)} ms`));
    }
    this.client = undefined;
    this.held.clear();
    for (const listener of this.downs) listener();
    if (this.stopped && !ended) await client.end().catch(() => undefined);
    else destroy(client);
    if (trouble !== undefined && !this.stopped) this.options.onTrouble?.(trouble);
  }

  /** Whether Postgres answers on another connection, so that ours is merely busy. */
  private async answersBeside(): Promise<boolean> {
    const client = new pg.Client({ connectionString: this.options.url, connectionTimeoutMillis: this.options.heartbeatMs ?? 3_000 });
    client.on('error', () => undefined);
    try {
      await client.connect();
      await client.query('select 1');
      return true;
    } catch {
      return false;
    } finally {
      await client.end().catch(() => undefined);
    }
  }

  private pause(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const done = (): void => {
        clearTimeout(timer);
        this.interrupt = undefined;
        resolve();
      };
      const timer = setTimeout(done, ms);
      this.interrupt = done;
      if (this.stopped) done();
    });
  }
}

/** Ends a connection that may never answer: `end()` would wait for it. */
const destroy = (client: pg.Client): void => {
  (client as unknown as { readonly connection?: { readonly stream?: { destroy(): void } } }).connection?.stream?.destroy();
};

/** A session that was handed in belongs to who made it; one made from a URL is started and stopped with its user. */
export const sessionFrom = (from: { readonly session?: Session | undefined; readonly url?: string | undefined; readonly onTrouble?: ((error: unknown) => void) | undefined }, name: string): { readonly session: Session; readonly own: boolean } => {
  if (from.session !== undefined) return { session: from.session, own: false };
  if (from.url === undefined) throw new Error(`${name} needs a session, or the URL for one`);
  return { session: new Session({ url: from.url, name: `chronovirt ${name}`, onTrouble: from.onTrouble }), own: true };
};
