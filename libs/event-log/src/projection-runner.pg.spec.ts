import pg from 'pg';
import { beforeEach, afterEach, describe, expect, it } from 'vitest';
import type { AnyProjection } from './documents.ts';
import { EventConsumer } from './event-consumer.ts';
import { canonicalHash, canonicalHashOf } from './projection-hash.ts';
import { type Projection, ProjectionInMemory } from './projection.ts';
import { ProjectionRunner, type ProjectionRunnerOptions } from './projection-runner.ts';
import type { PostgresLog } from './postgres-log.ts';
import { Tail } from './tail.ts';
import { adding } from './testing-counter.ts';
import { eventually, type LogDatabase, logDatabase } from './testing-database.ts';

interface CounterView { readonly total: number; readonly notes: readonly string[] }

const byOf = (data: Readonly<Record<string, unknown>>): number => data['by'] as number;

/** One document for each counter; gone when someone notes 'gone'. */
const view: Projection<CounterView> = {
  name: 'ipam.counter_view', version: 1,
  keys: (event) => (event.stream.startsWith('counter-') ? [event.stream] : []),
  fold: (before, { data }) => (data['note'] === 'gone' ? undefined : { total: (before?.total ?? 0) + byOf(data), notes: [...(before?.notes ?? []), data['note'] as string].slice(-3) }),
};
/** All counters in one document, and one for each size of step. */
const sums: Projection<{ readonly sum: number }> = {
  name: 'ipam.counter_sum', version: 1,
  keys: ({ data }) => ['all', `by ${String(byOf(data))}`],
  fold: (before, { data }) => ({ sum: (before?.sum ?? 0) + byOf(data) }),
};
const doubled: Projection<CounterView> = { ...view, version: 2, fold: (before, event, key) => {
  const after = view.fold(before, event, key);
  return after && { ...after, total: after.total + byOf(event.data) };
} };

const TABLES = `
  create table ipam.counter_view (id text primary key, doc jsonb not null, position bigint not null, total int generated always as ((doc ->> 'total')::int) stored);
  create index on ipam.counter_view (total);
  create table ipam.counter_sum (id text primary key, doc jsonb not null, position bigint not null)`;

let db: LogDatabase;
let log: PostgresLog;
let tail: Tail;
let runners: ProjectionRunner[] = [];
beforeEach(async () => {
  db = await logDatabase(TABLES);
  log = db.log();
  tail = new Tail({ url: db.url, log, pollMs: 200 });
  await tail.start();
});
afterEach(async () => {
  await Promise.all(runners.map((runner) => runner.stop()));
  runners = [];
  await tail.stop();
  await db.end();
});

const runnerOf = (projections: readonly AnyProjection[] = [view, sums], options: Partial<ProjectionRunnerOptions> = {}): ProjectionRunner => {
  const runner = new ProjectionRunner({ pool: db.pool, url: db.url, tail, log, schema: 'ipam', projections, ...options });
  runners.push(runner);
  runner.start();
  return runner;
};

let seed = 1;
const random = (below: number): number => {
  seed = (seed * 48_271) % 2_147_483_647;
  return seed % below;
};
const versions = new Map<string, number>();
beforeEach(() => versions.clear());

/** Appends to some of twenty counters; now and then one is gone. */
const fill = async (commands: number): Promise<void> => {
  await Promise.all(Array.from({ length: commands }, async () => {
    const stream = `counter-${String(random(20))}`;
    const count = 1 + random(3);
    const expected = versions.get(stream) ?? 0;
    versions.set(stream, expected + count);
    const outcome = await log.append(adding(stream, expected, count, { note: random(10) === 0 ? 'gone' : `n${String(random(5))}` }));
    expect(outcome.kind).toBe('appended');
  }));
};

const inMemory = async (projection: AnyProjection): Promise<string> => {
  const memory = new ProjectionInMemory(projection);
  for (let after = 0, page = await log.read(0, 1_000); page.length > 0; after += page.length, page = await log.read(after, 1_000)) for (const event of page) memory.take(event);
  return canonicalHashOf(memory.documents);
};

const caughtUp = async (runner: ProjectionRunner): Promise<void> => {
  expect(await runner.waitFor(await log.head(), 10_000)).toBe(true);
};

describe('a runner of projections', () => {
  it('fills the tables with what the log means', async () => {
    await fill(100);
    const runner = runnerOf(undefined, { documentsMax: 5, batchMax: 17 });
    await fill(100);
    await caughtUp(runner);
    expect(await canonicalHash(db.pool, view)).toBe(await inMemory(view));
    expect(await canonicalHash(db.pool, sums)).toBe(await inMemory(sums));
    const { rows } = await db.pool.query<{ wrong: number }>(`select count(*)::int as wrong from ipam.counter_view where total <> (doc ->> 'total')::int or position > (select position from event_log.head)`);
    expect(rows[0]?.wrong).toBe(0);
  });

  it('shows every reader one position in all tables', async () => {
    const runner = runnerOf(undefined, { batchMax: 3 });
    const reader = new pg.Client(db.url);
    await reader.connect();
    let looks = 0;
    const filling = fill(150);
    for (let done = false; !done; looks++) {
      const { rows } = await reader.query<{ events: number; all: number; at: number; positions: number }>(`
        select (select coalesce(sum((data ->> 'by')::int), 0)::int from event_log.event e where e.position <= c.position) as events,
          coalesce((select (doc ->> 'sum')::int from ipam.counter_sum where id = 'all'), 0) as all, c.position::int as at,
          (select count(distinct position)::int from ipam.checkpoint) as positions
        from ipam.checkpoint c where c.name = 'ipam.counter_sum'`);
      if (rows[0] !== undefined) expect([rows[0].events, rows[0].positions]).toEqual([rows[0].all, 1]);
      await Promise.race([filling, Promise.resolve()]);
      done = await runner.waitFor(Math.max(await log.head(), 1), 0) && looks > 20;
    }
    await filling;
    await reader.end();
    expect(looks).toBeGreaterThan(20);
  });

  it('goes on where it stopped, and nothing is taken twice', async () => {
    await fill(40);
    const first = runnerOf();
    await caughtUp(first);
    await first.stop();
    await fill(40);
    const second = runnerOf();
    await caughtUp(second);
    expect(await canonicalHash(db.pool, sums)).toBe(await inMemory(sums));
  });

  it('hands over to another process when its connection is ended, in the middle of work', async () => {
    const first = runnerOf(undefined, { batchMax: 5 });
    await eventually('the first leads', () => first.running);
    const second = runnerOf(undefined, { batchMax: 5 });
    const above = new pg.Client(db.database.superuserUrl);
    await above.connect();
    for (let round = 0; round < 4; round++) {
      await fill(20);
      await above.query(`select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and application_name like '%projections%'`);
    }
    await above.end();
    await fill(20);
    await caughtUp(second);
    await caughtUp(first);
    expect([first.running, second.running].filter(Boolean)).toHaveLength(1);
    expect(await canonicalHash(db.pool, view)).toBe(await inMemory(view));
    expect(await canonicalHash(db.pool, sums)).toBe(await inMemory(sums));
  });

  it('that lost its checkpoint to another changes nothing any more', async () => {
    const runner = runnerOf();
    await fill(5);
    await caughtUp(runner);
    const position = runner.position;
    await db.pool.query('update ipam.checkpoint set epoch = epoch + 1');
    await fill(5);
    // It takes over again, with the new epoch, and only then goes on.
    await caughtUp(runner);
    expect(runner.position).toBeGreaterThan(position);
    expect(await canonicalHash(db.pool, sums)).toBe(await inMemory(sums));
  });

  it('lets one of two wait for what the other fills', async () => {
    const first = runnerOf();
    await eventually('the first leads', () => first.running);
    const second = runnerOf();
    await fill(10);
    expect(await second.waitFor(await log.head(), 5_000)).toBe(true);
    expect(second.running).toBe(false);
    expect(await second.waitFor((await log.head()) + 1, 50)).toBe(false);
  });

  it('moves its checkpoint although nothing concerns it', async () => {
    const none: Projection<object> = { ...sums, keys: () => [] };
    const runner = runnerOf([none]);
    await fill(10);
    await caughtUp(runner);
    await eventually('the checkpoint is there', async () => (await db.pool.query('select from ipam.checkpoint where position = $1', [await log.head()])).rowCount === 1, 2_000);
  });

  it('tells which event a projection could not take, and goes on when it can', async () => {
    let broken = true;
    const troubles: unknown[] = [];
    await tail.stop();
    tail = new Tail({ url: db.url, log, onTrouble: (error) => troubles.push(error) });
    await tail.start();
    const runner = runnerOf([{ ...sums, fold: (before, event, key) => { if (broken && event.position === 3) throw new Error('no'); return sums.fold(before as { sum: number } | undefined, event, key); } }]);
    await fill(5);
    await eventually('it was told', () => troubles.some((error) => error instanceof Error && error.message.includes('cannot take event 3')));
    broken = false;
    await caughtUp(runner);
    expect(await canonicalHash(db.pool, sums)).toBe(await inMemory(sums));
  });
});

describe('a rebuild', () => {
  it('comes to the same hash, beside a runner that goes on', async () => {
    const runner = runnerOf();
    await fill(200);
    await caughtUp(runner);
    const before = await canonicalHash(db.pool, view);
    const filling = fill(100);
    const rebuilt = await runner.rebuild('ipam.counter_view');
    await filling;
    await fill(10);
    await caughtUp(runner);
    expect(rebuilt.events).toBeGreaterThan(200);
    expect(await canonicalHash(db.pool, view)).toBe(await inMemory(view));
    expect(await canonicalHash(db.pool, view)).not.toBe(before);
    expect(await canonicalHash(db.pool, sums)).toBe(await inMemory(sums));
  });

  it('mends a table that was spoilt by hand, with next to no memory', async () => {
    const runner = runnerOf(undefined, { documentsMax: 3, batchMax: 5 });
    await fill(50);
    await caughtUp(runner);
    const good = await canonicalHash(db.pool, view);
    await db.pool.query(`update ipam.counter_view set doc = '{"total": 0}'`);
    expect(await canonicalHash(db.pool, view)).not.toBe(good);
    await runner.rebuild('ipam.counter_view');
    expect(await canonicalHash(db.pool, view)).toBe(good);
    await fill(5);
    await caughtUp(runner);
    expect(await canonicalHash(db.pool, view)).toBe(await inMemory(view));
  });

  it('happens by itself when the version rose, keeps generated columns and indexes, and readers go on meanwhile', async () => {
    const old = runnerOf();
    await fill(150);
    await caughtUp(old);
    await old.stop();
    const reader = new pg.Client(db.url);
    await reader.connect();
    let reading = true;
    const seen: number[] = [];
    const reads = (async () => {
      while (reading) seen.push((await reader.query<{ n: number }>({ name: 'looks', text: 'select count(*)::int as n from ipam.counter_view where total >= 0' })).rows[0]?.n ?? -1);
    })();
    const runner = runnerOf([doubled, sums]);
    await eventually('it leads', () => runner.running);
    await caughtUp(runner);
    reading = false;
    await reads;
    await reader.end();
    expect(Math.min(...seen)).toBeGreaterThan(5);
    expect(await canonicalHash(db.pool, doubled)).toBe(await inMemory(doubled));
    expect(await canonicalHash(db.pool, doubled)).not.toBe(await inMemory(view));
    const { rows } = await db.pool.query(`select name, version from ipam.checkpoint order by name`);
    expect(rows).toEqual([{ name: 'ipam.counter_sum', version: 1 }, { name: 'ipam.counter_view', version: 2 }]);
    expect((await db.pool.query(`select from pg_indexes where schemaname = 'ipam' and tablename = 'counter_view'`)).rowCount).toBe(2);
    expect((await db.pool.query(`select from pg_tables where schemaname = 'ipam' and tablename like '%next%'`)).rowCount).toBe(0);
    await fill(10);
    await caughtUp(runner);
    expect(await canonicalHash(db.pool, doubled)).toBe(await inMemory(doubled));
  });

  it('brings a projection that is new in the group to where the others are', async () => {
    const old = runnerOf([sums]);
    await fill(60);
    await caughtUp(old);
    await old.stop();
    const runner = runnerOf([view, sums]);
    await eventually('it leads', () => runner.running);
    await caughtUp(runner);
    expect(await canonicalHash(db.pool, view)).toBe(await inMemory(view));
  });

  it('leaves an older process without power over the new table', async () => {
    const old = runnerOf();
    await fill(30);
    await caughtUp(old);
    // The new version is not allowed to lead while the old one does; its rebuild is.
    const newer = new ProjectionRunner({ pool: db.pool, url: db.url, tail, log, schema: 'ipam', projections: [doubled, sums] });
    await newer.rebuild('ipam.counter_view');
    await fill(30);
    newer.start();
    runners.push(newer);
    await eventually('the newer leads', () => newer.running);
    await caughtUp(newer);
    expect(old.running).toBe(false);
    expect(await canonicalHash(db.pool, doubled)).toBe(await inMemory(doubled));
  });
});

describe('a consumer', () => {
  let consumers: EventConsumer[] = [];
  afterEach(async () => {
    await Promise.all(consumers.map((consumer) => consumer.stop()));
    consumers = [];
  });
  const consumerOf = (handle: (position: number) => void): EventConsumer => {
    const consumer = new EventConsumer({ url: db.url, tail, schema: 'ipam', name: 'ipam.policy', batchMax: 10, handler: (events) => events.forEach(({ position }) => handle(position)) });
    consumers.push(consumer);
    consumer.start();
    return consumer;
  };

  it('is given every event at least once, in order, over restarts and faults', async () => {
    const seen: number[] = [];
    let faults = 3;
    const handle = (position: number): void => {
      if (position % 7 === 0 && faults-- > 0) throw new Error('not now');
      seen.push(position);
    };
    const first = consumerOf(handle);
    await fill(30);
    await eventually('some were handled', () => seen.length > 20);
    await first.stop();
    await fill(30);
    consumerOf(handle);
    const head = await log.head();
    await eventually('all were handled', () => seen.includes(head));
    expect([...new Set(seen)]).toEqual(Array.from({ length: head }, (_, index) => index + 1));
  });

  it('has one active process of two', async () => {
    const seen: string[] = [];
    const both = ['a', 'b'].map((name) => consumerOf((position) => seen.push(`${name}${String(position)}`)));
    await fill(20);
    const head = await log.head();
    await eventually('all were handled', () => seen.length >= head);
    expect(both.filter(({ running }) => running)).toHaveLength(1);
    expect(new Set(seen.map((one) => one[0])).size).toBe(1);
    expect(seen).toHaveLength(head);
  });
});
