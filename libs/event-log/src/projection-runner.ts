/*
 * Fills the tables of a service's projections.
 *
 * A table has (id text primary key, doc jsonb not null, position bigint not null); the service's migration
 * makes it and adds generated columns and indexes as its queries want. Readers read it by its name.
 *
 * All projections of one runner move together: the rows of all of them and their checkpoints change in one
 * statement, so whoever reads two tables in one transaction sees one position. One process runs them (an
 * advisory lock), the others wait; a runner that lost the lead unawares is refused by the checkpoint's epoch
 * (checkpoint.ts).
 *
 *     waiting ──(lock)──▶ behind: each one catches up ──▶ together ──(lock or checkpoint lost)──▶ waiting
 *
 * A projection whose version rose is rebuilt first: from position 0 into a new table made like the old one
 * (`<table>__next`), while readers go on on the old one. In one transaction the new one catches up the rest
 * and takes the name. The other way would be two names and a view; then every generated column would have
 * to be known to the view.
 *
 * Commits here do not wait for the disk: rows and checkpoint are lost together or not at all, and the log
 * has what is missing.
 */
import pg from 'pg';
import { Bell } from './bell.ts';
import {
  asCheckpointLost, type Checkpoint, CheckpointLost, lockCheckpoints, movingSql, movingValues, readCheckpoints, takeOverCheckpoints,
} from './checkpoint.ts';
import { type AnyProjection, type Change, Documents } from './documents.ts';
import { Leader } from './leader.ts';
import type { EventLog, RecordedEvent } from './log.ts';
import type { Session} from './session.ts';
import { sessionFrom } from './session.ts';
import { inTransaction, rowsOf, tableNameOf } from './sql.ts';
import type { Subscription, Tail } from './tail.ts';

export interface ProjectionRunnerOptions {
  /** For rebuilding and for reading checkpoints; of the role that owns the schema. */
  readonly pool: pg.Pool;
  /** The session that holds the lead and writes the rows; or `url`, for one of its own. */
  readonly session?: Session | undefined;
  readonly url?: string | undefined;
  readonly tail: Tail;
  readonly log: Pick<EventLog, 'read' | 'head'>;
  /** The service's schema, where `checkpoint` is. */
  readonly schema: string;
  readonly projections: readonly AnyProjection[];
  /** Names the group, when a service runs several. Default 'projections'. */
  readonly name?: string;
  /** Events a transaction. Default 500. */
  readonly batchMax?: number;
  /** Documents kept in memory, for each projection. Default 10,000. */
  readonly documentsMax?: number;
  readonly onTrouble?: ((error: unknown) => void) | undefined;
}

export interface Rebuilt {
  readonly events: number;
  readonly documents: number;
  readonly ms: number;
}

/** How long a checkpoint may stand still while events go by that concern nobody here. */
const IDLE_MOVE_MS = 200;
/** While nobody waits for them, what comes within this time is committed together. Milliseconds. */
const GATHER_MS = 5;
/** How long an older version keeps out of the way of a newer one. */
const STAND_BACK_MS = 30_000;
const BATCH_MAX = 500;
const PREPARED_MAX = 64;
/** A rebuild commits nothing that anyone waits for, so its pages are larger. */
const REBUILD_BATCHES = 4;
const REBUILD_KEPT = 20_000;

export class ProjectionRunner {
  private readonly options: ProjectionRunnerOptions;
  private readonly session: Session;
  private readonly own: boolean;
  private readonly leader: Leader;
  private documents: readonly Documents[] = [];
  private checkpoints: readonly Checkpoint[] = [];
  private subscription: Subscription | undefined;
  private applied = -1;
  private persisted = -1;
  private moving: NodeJS.Timeout | undefined;
  private work: Promise<unknown> = Promise.resolve();
  private stopped = false;
  private supersededBefore = false;
  private readonly prepared = new Set<string>();
  private readonly waiters = new Set<{ readonly position: number; readonly resolve: (reached: boolean) => void }>();
  /** Rung when somebody waits, or when the lead is lost. */
  private readonly hurry = new Bell();

  constructor(options: ProjectionRunnerOptions) {
    const names = options.projections.map(({ name }) => name);
    if (new Set(names).size !== names.length) throw new Error('two projections have one name');
    for (const name of names) if (tableNameOf(name).schema !== options.schema) throw new Error(`projection ${name} is not in the schema ${options.schema}`);
    // A rebuild holds one connection while it reads the log on another.
    if (options.pool.options.max < 2) throw new Error('a projection runner needs a pool of at least two connections');
    this.options = options;
    const { session, own } = sessionFrom(options, `${options.schema} projections`);
    this.session = session;
    this.own = own;
    this.leader = new Leader({
      session, name: `projections ${options.schema} ${options.name ?? ''}`, onTrouble: options.onTrouble,
      onLead: () => this.lead(), onLost: () => this.lose(),
    });
  }

  /** Whether this process is the one that fills the tables. */
  get running(): boolean {
    return this.subscription !== undefined;
  }

  /** Position that the tables are at, when this process fills them; else -1. */
  get position(): number {
    return this.applied;
  }

  start(): void {
    if (this.own) this.session.start();
    this.leader.start();
  }

  async stop(): Promise<void> {
    this.stopped = true;
    await this.leader.stop();
    for (const waiter of [...this.waiters]) waiter.resolve(false);
    if (this.own) await this.session.stop();
  }

  /** True as soon as the tables hold everything up to a position, whoever fills them; false when that takes longer. */
  async waitFor(position: number, timeoutMs: number): Promise<boolean> {
    const deadline = performance.now() + timeoutMs;
    for (let pollMs = 10; ; pollMs = Math.min(pollMs * 2, 50)) {
      if (this.applied >= position) return true;
      const left = deadline - performance.now();
      if (left <= 0 || this.stopped) return false;
      if (this.running) {
        if (await this.waitHere(position, left)) return true;
      } else {
        const rows = await readCheckpoints(this.options.pool, this.options.schema, this.names()).catch(() => []);
        if (rows.length === this.options.projections.length && rows.every((row) => row.position >= position)) return true;
        await this.waitHere(position, Math.min(pollMs, left));
      }
    }
  }

  /**
   * Fills a projection's table anew from the log, beside the old one, and puts it in its place. May be
   * called in any process, whoever leads; the one who leads starts over with the new table.
   */
  async rebuild(name: string): Promise<Rebuilt> {
    const projection = this.options.projections.find((one) => one.name === name);
    if (projection === undefined) throw new Error(`there is no projection called ${name}`);
    const client = await this.options.pool.connect();
    const broken = new Error(`the connection broke while ${name} was rebuilt`);
    let lost = false;
    const noteLoss = (): void => void (lost = true);
    client.on('error', noteLoss);
    try {
      await client.query('set synchronous_commit = off');
      const { rows } = await client.query<{ locked: boolean }>('select pg_try_advisory_lock(hashtextextended($1, 0)) as locked', [`rebuild ${name}`]);
      if (rows[0]?.locked !== true) throw new Error(`${name} is being rebuilt already`);
      return await this.rebuildOn(client, projection);
    } finally {
      client.off('error', noteLoss);
      // Not back into the pool: closing it gives the lock and the setting back in any case.
      client.release(lost ? broken : true);
    }
  }

  private names(): readonly string[] {
    return this.options.projections.map(({ name }) => name);
  }

  private waitHere(position: number, timeoutMs: number): Promise<boolean> {
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
      this.hurry.ring();
    });
  }

  private async lead(): Promise<void> {
    const { pool, schema, projections, tail, log, batchMax = BATCH_MAX } = this.options;
    if (projections.length === 0) return;
    const before = await readCheckpoints(pool, schema, this.names());
    const versionOf = new Map(projections.map(({ name, version }) => [name, version]));
    const newer = before.find(({ name, version }) => version > (versionOf.get(name) ?? 0));
    if (newer !== undefined && !this.supersededBefore) {
      // Most likely a newer version is taking over, process by process. If it has gone by then, it was taken back.
      this.supersededBefore = true;
      this.leader.resign(STAND_BACK_MS);
      return;
    }
    for (const { name, version } of before) if (version !== versionOf.get(name) && !this.stopped) await this.rebuild(name);

    this.checkpoints = await this.session.exclusively((client) => inTransaction(client, () => takeOverCheckpoints(client, schema, projections)));
    const other = this.checkpoints.find(({ name, version }) => version !== versionOf.get(name));
    if (other !== undefined) throw new CheckpointLost(`${other.name} was changed to version ${String(other.version)} meanwhile`);
    this.documents = projections.map((projection) => this.documentsOf(projection, this.checkpointOf(projection).position === 0));

    const together = Math.max(...this.checkpoints.map(({ position }) => position));
    for (const projection of projections) {
      let { position } = this.checkpointOf(projection);
      while (position < together && !this.stopped && this.leader.leading) {
        const events = await log.read(position, Math.min(batchMax, together - position));
        const last = events.at(-1);
        if (last === undefined) throw new Error(`the log ends at ${String(position)}, and ${projection.name} shall come to ${String(together)}`);
        await this.apply([projection], events, position);
        position = last.position;
      }
    }
    if (this.stopped || !this.leader.leading) return;
    this.supersededBefore = false;
    this.persisted = together;
    this.reached(together);
    this.subscription = tail.subscribe({ after: together, name: `${schema} projections`, batchMax }, (events) => this.take(events));
  }

  private async lose(): Promise<void> {
    const subscription = this.subscription;
    this.subscription = undefined;
    this.hurry.ring();
    await subscription?.stop();
    clearTimeout(this.moving);
    this.moving = undefined;
    // Stopping in good order: the next one need not look again at what concerned nobody.
    if (this.stopped && this.session.connected) await this.move().catch(() => undefined);
    await this.work.catch(() => undefined);
    this.applied = -1;
    this.persisted = -1;
    this.documents = [];
  }

  /** One batch of the tail's. */
  private async take(events: readonly RecordedEvent[]): Promise<void> {
    const last = events.at(-1);
    if (last === undefined || !this.leader.leading) return;
    try {
      await this.inTurn(async () => {
        const changed = await this.apply(this.options.projections, events, this.persisted);
        if (changed) this.persisted = last.position;
        else this.moving ??= setTimeout(() => void this.move().catch((error: unknown) => this.options.onTrouble?.(error)), IDLE_MOVE_MS);
      });
      this.reached(last.position);
    } catch (error) {
      if (error instanceof CheckpointLost) this.leader.resign(100);
      throw error;
    }
    const { batchMax = BATCH_MAX } = this.options;
    if (this.waiters.size > 0 || events.length >= batchMax) return;
    this.hurry.hush();
    if (this.running) await this.hurry.wait(GATHER_MS);
  }

  /** Writes down how far we have come when nothing else did. */
  private async move(): Promise<void> {
    clearTimeout(this.moving);
    this.moving = undefined;
    await this.inTurn(async () => {
      const to = this.applied;
      if (to <= this.persisted || this.persisted < 0) return;
      try {
        await this.write(this.options.projections, [], this.persisted, to);
        this.persisted = to;
      } catch (error) {
        if (error instanceof CheckpointLost) this.leader.resign(100);
        throw error;
      }
    });
  }

  private inTurn<T>(task: () => Promise<T>): Promise<T> {
    const mine = this.work.then(task, task);
    this.work = mine.catch(() => undefined);
    return mine;
  }

  /** Folds a batch into some projections and commits it. False: it concerned none of them, and nothing was written. */
  private async apply(projections: readonly AnyProjection[], events: readonly RecordedEvent[], from: number): Promise<boolean> {
    const alone = projections.length < this.options.projections.length;
    const folded: { readonly projection: AnyProjection; readonly documents: Documents; readonly changes: ReadonlyMap<string, Change> }[] = [];
    for (const projection of projections) {
      const documents = this.documents[this.options.projections.indexOf(projection)];
      if (documents === undefined) throw new CheckpointLost('the lead was lost');
      const changes = await documents.fold(events);
      if (changes.size > 0) folded.push({ projection, documents, changes });
    }
    // One that catches up alone has no timer to move its checkpoint later.
    if (folded.length === 0 && !alone) return false;
    await this.write(projections, folded, from, events.at(-1)?.position ?? from);
    for (const { documents, changes } of folded) documents.take(changes);
    return true;
  }

  private async write(moving: readonly AnyProjection[], folded: readonly { readonly projection: AnyProjection; readonly changes: ReadonlyMap<string, Change> }[], from: number, to: number): Promise<void> {
    const { schema, projections } = this.options;
    const checkpoints = moving.map((projection) => this.checkpointOf(projection));
    const { moved, guard } = movingSql(schema);
    const values: unknown[] = [...movingValues(checkpoints, from, to)];
    const parts = [moved];
    for (const { projection, changes } of folded) {
      const at = values.length;
      const number = String(projections.indexOf(projection));
      const { upserted, removed } = columnsOf(changes);
      values.push(...upserted, removed);
      const columns = [`$${String(at + 1)}::text[]`, `$${String(at + 2)}::jsonb[]`, `$${String(at + 3)}::bigint[]`].join(', ');
      parts.push(`put_${number} as (${upsertInto(tableNameOf(projection.name).sql, columns)})`);
      parts.push(`removed_${number} as (delete from ${tableNameOf(projection.name).sql} where id = any($${String(at + 4)}::text[]))`);
    }
    try {
      // Prepared by what it writes to; most batches touch the same few tables. The bound is for those that do not.
      const kind = `projections ${schema} ${folded.map(({ projection }) => String(projections.indexOf(projection))).join()}`;
      if (this.prepared.size < PREPARED_MAX) this.prepared.add(kind);
      const name = this.prepared.has(kind) ? kind : undefined;
      await this.session.exclusively((client) => rowsOf(client, name, `with ${parts.join(',\n')}\n${guard}`, values));
    } catch (error) {
      throw asCheckpointLost(error);
    }
  }

  private checkpointOf(projection: AnyProjection): Checkpoint {
    const found = this.checkpoints.find(({ name }) => name === projection.name);
    if (found === undefined) throw new CheckpointLost(`${projection.name} has no checkpoint`);
    return found;
  }

  private documentsOf(projection: AnyProjection, empty: boolean): Documents {
    const question = `select id, doc from ${tableNameOf(projection.name).sql} where id = any($1::text[])`;
    return new Documents(projection, {
      most: this.options.documentsMax ?? 10_000, empty,
      find: (ids) => this.session.exclusively((client) => rowsOf<[string, unknown]>(client, undefined, question, [ids])),
    });
  }

  private reached(position: number): void {
    this.applied = position;
    for (const waiter of [...this.waiters]) if (position >= waiter.position) waiter.resolve(true);
  }

  private async rebuildOn(client: pg.PoolClient, projection: AnyProjection): Promise<Rebuilt> {
    const { log, schema, projections, documentsMax = REBUILD_KEPT, batchMax = 500 } = this.options;
    const pageMax = batchMax * REBUILD_BATCHES;
    const startedAt = performance.now();
    const { sql: old, schema: inSchema, table } = tableNameOf(projection.name);
    const next = tableNameOf(`${inSchema}.${table}__next`);
    await client.query(`drop table if exists ${next.sql}`);
    await client.query(`create table ${next.sql} (like ${old} including all)`);

    // Changes gather here, so that a document that changes a thousand times is written once.
    const unwritten = new Map<string, Change>();
    const documents = new Documents(projection, {
      most: documentsMax, empty: true,
      find: async (ids) => {
        const written = await rowsOf<[string, unknown]>(client, undefined, `select id, doc from ${next.sql} where id = any($1::text[])`, [ids.filter((id) => !unwritten.has(id))]);
        return [...written, ...ids.flatMap((id): [string, unknown][] => (unwritten.has(id) ? [[id, unwritten.get(id)?.document]] : []))];
      },
    });
    const flush = async (): Promise<void> => {
      const all = [...unwritten];
      for (let at = 0; at < all.length; at += pageMax) {
        const { upserted, removed } = columnsOf(new Map(all.slice(at, at + pageMax)));
        await client.query(upsertInto(next.sql, '$1::text[], $2::jsonb[], $3::bigint[]'), [...upserted]);
        if (removed.length > 0) await client.query(`delete from ${next.sql} where id = any($1::text[])`, [removed]);
      }
      unwritten.clear();
    };
    let position = 0;
    let count = 0;
    const foldTo = async (until: number): Promise<void> => {
      const page = (after: number): Promise<readonly RecordedEvent[]> => (after < until ? log.read(after, Math.min(pageMax, until - after)) : Promise.resolve([]));
      // The next page is asked for while this one is folded: without gaps, it is known where it begins.
      let asked = page(position);
      for (;;) {
        const events = await asked;
        const last = events.at(-1);
        if (last === undefined) return;
        asked = page(last.position);
        asked.catch(() => undefined); // awaited in the next round
        if (unwritten.size >= REBUILD_KEPT) await flush();
        const changes = await documents.fold(events);
        documents.take(changes);
        for (const [key, change] of changes) unwritten.set(key, change);
        position = last.position;
        count += events.length;
      }
    };
    for (let head = await log.head(); position < head; head = await log.head()) {
      await foldTo(head);
      if (head - position < pageMax && (await log.head()) - position < pageMax) break;
    }
    await flush();
    await client.query(`analyze ${next.sql}`);

    await inTransaction(client, async () => {
      await client.query(`set local lock_timeout = '10s'`);
      // The table before the checkpoints, as everyone who writes takes them: else two would wait for each other.
      await client.query(`lock table ${old} in access exclusive mode`);
      const locked = await lockCheckpoints(client, schema, projections);
      await foldTo(Math.max(...locked.map((row) => row.position)));
      await flush();
      await client.query(`drop table ${old}`);
      await client.query(`alter table ${next.sql} rename to ${pg.escapeIdentifier(table)}`);
      await client.query(
        `update ${tableNameOf(`${schema}.checkpoint`).sql} set version = $2, epoch = epoch + 1, position = $3, moved_at = now() where name = $1`,
        [projection.name, projection.version, position],
      );
    });
    const [size] = await rowsOf<[number]>(client, undefined, `select count(*) from ${old}`);
    return { events: count, documents: size?.[0] ?? 0, ms: performance.now() - startedAt };
  }
}

const upsertInto = (table: string, columns: string): string =>
  `insert into ${table} (id, doc, position) select * from unnest(${columns}) on conflict (id) do update set doc = excluded.doc, position = excluded.position`;

const columnsOf = (changes: ReadonlyMap<string, Change>): { readonly upserted: readonly [string[], string[], number[]]; readonly removed: string[] } => {
  const upserted: [string[], string[], number[]] = [[], [], []];
  const removed: string[] = [];
  for (const [id, { document, position }] of changes) {
    if (document === undefined) {
      removed.push(id);
    } else {
      upserted[0].push(id);
      upserted[1].push(JSON.stringify(document));
      upserted[2].push(position);
    }
  }
  return { upserted, removed };
};
