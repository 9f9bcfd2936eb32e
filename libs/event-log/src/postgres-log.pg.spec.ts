import { createHash } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import canonicalize from 'canonicalize';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import pg from 'pg';
import { newCommandId } from './command-id.ts';
import { replay } from './replay.ts';
import { sqlStateOf } from './sql.ts';
import { adding, counter, counterEvents, metaOf } from './testing-counter.ts';
import { type LogDatabase, logDatabase } from './testing-database.ts';
import { promisesOfALog } from './testing-log.ts';

let db: LogDatabase;
beforeAll(async () => { db = await logDatabase(); });
afterAll(() => db.end());

promisesOfALog('postgres', () => db.log());

describe('appending in groups', () => {
  it('keeps positions, versions and answers whole when three processes race on a few streams', async () => {
    const head = await db.log().head();
    let appended = 0;
    let refused = 0;
    const writer = async (name: number): Promise<void> => {
      const log = db.log();
      await Promise.all(Array.from({ length: 12 }, async (_, worker) => {
        for (let round = 0; round < 12; round++) {
          const stream = `counter-race_${String((worker + round) % 3)}`;
          const { version } = await log.load(stream, counter);
          const outcome = await log.append(adding(stream, version, 1 + ((worker + name) % 3)));
          if (outcome.kind === 'appended') appended += outcome.events.length;
          else refused += 1;
        }
      }));
    };
    await Promise.all([1, 2, 3].map(writer));
    const events = await db.log().read(head, 10_000);
    expect(refused).toBeGreaterThan(0);
    expect(events).toHaveLength(appended);
    expect(events.map(({ position }) => position)).toEqual(events.map((_, index) => head + 1 + index));
    for (const stream of new Set(events.map((event) => event.stream))) {
      expect(events.filter((event) => event.stream === stream).map(({ version }) => version)).toEqual(events.filter((event) => event.stream === stream).map((_, index) => index + 1));
    }
    const { rows } = await db.pool.query<{ wrong: number }>('select count(*)::int as wrong from event_log.stream s where s.version <> (select max(version) from event_log.event e where e.stream = s.stream)');
    expect(rows[0]?.wrong).toBe(0);
  });

  // T-01: whoever takes a number early and commits late must not be overtaken by a reader.
  it('shows readers 1, 2, 3 … even when a writer sleeps with its transaction open', async () => {
    const log = db.log();
    const start = await log.head();
    const writers = 6;
    const each = 8;
    const slow = async (name: number): Promise<void> => {
      const client = new pg.Client(db.url);
      await client.connect();
      try {
        for (let version = 0; version < each; version++) {
          await client.query('begin');
          await sleep(Math.random() * 8);
          const id = newCommandId();
          await client.query(
            `select * from event_log.append(array[0], array[0], array[$1::uuid], array[$2], array[$3::int], array['{}'::jsonb], array[null], array[$1::uuid], array['Added'], array[2::smallint],
              array['{"by":1,"note":""}'::jsonb], array['{"actor":"a"}'::jsonb], array[$4::bytea])`, [id, `counter-slow_${String(name)}`, version, Buffer.alloc(32)],
          );
          await sleep(Math.random() * 8);
          await client.query(version % 4 === 3 ? 'rollback' : 'commit');
          if (version % 4 === 3) {
            // What was rolled back leaves no hole: the next takes its number.
            await log.append(adding(`counter-slow_${String(name)}`, version));
          }
        }
      } finally {
        await client.end();
      }
    };
    const seen: number[] = [];
    let writing = true;
    const reader = (async () => {
      for (let last = false; !last;) {
        last = !writing;
        const events = await log.read(start + seen.length, 1_000);
        seen.push(...events.map(({ position }) => position));
      }
    })();
    await Promise.all(Array.from({ length: writers }, (_, name) => slow(name)));
    writing = false;
    await reader;
    expect(seen).toEqual(Array.from({ length: writers * each }, (_, index) => start + 1 + index));
  });

  it('refuses, within one group, whatever was decided after something refused', async () => {
    const log = db.log();
    const outcomes = await Promise.all([
      log.append(adding('counter-order', 0)), log.append(adding('counter-order', 0)), log.append(adding('counter-order', 1)), log.append(adding('counter-order_2', 0)),
      log.append(adding('counter-order', 1, 0)),
    ]);
    expect(outcomes.map(({ kind }) => kind)).toEqual(['appended', 'conflict', 'conflict', 'appended', 'conflict']);
    // The second would fit behind the first, had that one not been refused; the fourth does not depend on the third, but came after it.
    const hole = await Promise.all([log.append(adding('counter-hole', 5)), log.append(adding('counter-hole', 1)), log.append(adding('counter-hole_2', 7, 0)), log.append(adding('counter-hole_2', 0))]);
    expect(hole.map(({ kind }) => kind)).toEqual(['conflict', 'conflict', 'conflict', 'conflict']);
  });

  it('lets a whole row of appends to one stream into one group, each behind the other', async () => {
    const log = db.log();
    const query = vi.spyOn(db.pool, 'query');
    const outcomes = await Promise.all([0, 2, 2, 3].map((expected, index) => log.append(adding('counter-row', expected, [2, 0, 1, 1][index]))));
    expect(outcomes.map(({ kind }) => kind)).toEqual(['appended', 'appended', 'appended', 'appended']);
    expect(query).toHaveBeenCalledOnce();
    query.mockRestore();
  });

  it('fails only the one whose data Postgres cannot hold', async () => {
    const log = db.log();
    const settled = await Promise.allSettled([
      log.append(adding('counter-good_1', 0)), log.append(adding('counter-bad', 0, 1, { note: 'a\u0000b' })), log.append(adding('counter-good_2', 0)),
      log.answer(newCommandId(), { refused: 'x', because: { text: '\u0000' } }, metaOf(newCommandId())),
      log.append(adding('counter-worse', 0, 1, { note: '\ud800' })), log.append(adding('counter-good_3', 0, 1)),
    ]);
    expect(settled.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'fulfilled', 'rejected', 'rejected', 'fulfilled']);
    expect(settled[1]?.status === 'rejected' && sqlStateOf(settled[1].reason)).toBe('22P05');
    expect(await log.append(adding('counter-bad', 0))).toMatchObject({ kind: 'appended' });
  });

  it('refuses what no shape allows, before anything is sent', async () => {
    const log = db.log();
    await expect(log.append({ ...adding('counter-shape', 0), events: [{ type: 'Added', data: { by: 'one' } }] })).rejects.toThrow();
    await expect(log.append({ ...adding('counter-shape', 0), events: [{ type: 'Invented', data: {} }] })).rejects.toThrow('Invented');
    expect((await log.load('counter-shape', counter)).version).toBe(0);
  });

  it('is refused under an isolation that would read before the lock', async () => {
    const client = new pg.Client(db.url);
    await client.connect();
    await client.query('begin isolation level repeatable read');
    await expect(client.query(`select * from event_log.append('{}','{}','{}','{}','{}','{}','{}','{}','{}','{}','{}','{}','{}')`)).rejects.toThrow('read committed');
    await client.end();
  });

  it('keeps actor and refusal with the answer, and no event', async () => {
    const log = db.log();
    const append = adding('counter-refusing', 0, 0, { answer: { refused: 'counter.full' } });
    await log.append(append);
    const { rows } = await db.pool.query('select actor, refused, stream from event_log.answer where command_id = $1', [append.commandId]);
    expect(rows).toEqual([{ actor: 'system:test', refused: 'counter.full', stream: 'counter-refusing' }]);
  });
});

describe('the bytes of an event', () => {
  it('hash as anyone else would hash what stands in the row', async () => {
    const head = await db.log().head();
    await db.log().append(adding('counter-hashed', 0, 3, { note: 'ä€𐍈 "\\ 1.50' }));
    const { rows } = await db.pool.query('select stream, version, id, type, shape, data, meta, hash from event_log.event where position > $1', [head]);
    expect(rows).toHaveLength(3);
    for (const { hash, ...event } of rows as { hash: Buffer }[]) expect(hash.toString('hex')).toBe(createHash('sha256').update(canonicalize(event) ?? '').digest('hex'));
  });

  it('of an older shape are read in the newest', async () => {
    const head = await db.log().head();
    await db.pool.query(
      `select * from event_log.append(array[0], array[0], array[$1::uuid], array['counter-older'], array[0], array['{}'::jsonb], array[null], array[$1::uuid], array['Added'], array[1::smallint],
        array['{"by":7}'::jsonb], array['{"actor":"a"}'::jsonb], array[$2::bytea])`, [newCommandId(), Buffer.alloc(32)],
    );
    expect((await db.log().read(head, 1))[0]?.data).toEqual({ by: 7, note: '' });
    expect((await db.log().load('counter-older', counter)).state.total).toBe(7);
  });

  it('of an unknown event are not passed over', async () => {
    const log = db.log({ events: {} });
    await expect(log.read(0, 1)).rejects.toThrow('does not know');
  });
});

describe('states kept', () => {
  it('cost no question for a second, and a conflict when they are stale', async () => {
    let now = 0;
    const log = db.log({ now: () => now });
    await log.append(adding('counter-kept', 0));
    expect((await log.load('counter-kept', counter)).version).toBe(1);
    await log.append(adding('counter-kept', 1));
    await db.log().append(adding('counter-kept', 2));
    expect((await log.load('counter-kept', counter)).version).toBe(2);
    expect(await log.append(adding('counter-kept', 2))).toEqual({ kind: 'conflict' });
    expect((await log.load('counter-kept', counter)).version).toBe(3);
    // Others write here too: for a while every load asks.
    await db.log().append(adding('counter-kept', 3));
    expect((await log.load('counter-kept', counter)).version).toBe(4);
    now = 20_000;
    expect((await log.load('counter-kept', counter)).version).toBe(4);
    await db.log().append(adding('counter-kept', 4));
    expect((await log.load('counter-kept', counter)).version).toBe(4);
    now += 1_001;
    expect((await log.load('counter-kept', counter)).version).toBe(5);
  });

  it('are bounded', async () => {
    const log = db.log({ statesMax: 2 });
    const query = vi.spyOn(db.pool, 'query');
    for (const stream of ['counter-a', 'counter-b', 'counter-c', 'counter-a']) await log.load(stream, counter);
    expect(query).toHaveBeenCalledTimes(4);
    await log.load('counter-c', counter);
    expect(query).toHaveBeenCalledTimes(4);
    query.mockRestore();
  });

  it('are saved every 500 events for the same build, and dropping them changes nothing', async () => {
    const many = { ...adding('counter-long', 0), events: Array.from({ length: 600 }, () => ({ type: 'Added', data: { by: 1, note: 'n' } })) };
    await db.log().append(many);
    const state = await db.log({ build: 'one' }).load('counter-long', counter);
    const saved = async (): Promise<number> => (await db.pool.query(`select from event_log.snapshot where stream = 'counter-long' and version = 600`)).rowCount ?? 0;
    for (let round = 0; round < 200 && (await saved()) === 0; round++) await sleep(10);
    expect(await saved()).toBe(1);
    expect(await db.log({ build: 'one' }).load('counter-long', counter)).toEqual(state);
    expect(await db.log({ build: 'two' }).load('counter-long', counter)).toEqual(state);
    // The other build saves its own in the background; what is written next must stand after it.
    const savedBy = async (build: string): Promise<boolean> => (await db.pool.query(`select from event_log.snapshot where stream = 'counter-long' and build = $1`, [build])).rowCount === 1;
    for (let round = 0; round < 500 && !(await savedBy('two')); round++) await sleep(10);
    // A wrong one would be believed by its own build alone.
    await db.pool.query(`select event_log.save_snapshot('counter-long', 601, 'one', '{"total":-1,"notes":[]}')`);
    expect((await db.log({ build: 'one' }).load('counter-long', counter)).state.total).toBe(-1);
    expect(await db.log({ build: 'two' }).load('counter-long', counter)).toEqual(state);
    expect(await db.log().load('counter-long', counter)).toEqual(state);
    await db.pool.query('select event_log.forget_snapshots()');
    expect(await db.log({ build: 'one' }).load('counter-long', counter)).toEqual(state);
  });
});

describe('replay', () => {
  it('gives every event once, in order, from and to where it was asked', async () => {
    const head = await db.log().head();
    const all: number[] = [];
    for await (const events of replay({ pool: db.pool, events: counterEvents, batch: 7 })) all.push(...events.map(({ position }) => position));
    expect(all).toEqual(Array.from({ length: head }, (_, index) => index + 1));
    const some: number[] = [];
    for await (const events of replay({ pool: db.pool, events: counterEvents, after: 3, until: 9, batch: 4 })) some.push(...events.map(({ position }) => position));
    expect(some).toEqual([4, 5, 6, 7, 8, 9]);
  });

  it('gives its connection back when it is left early', async () => {
    for (let round = 0; round < 10; round++) for await (const events of replay({ pool: db.pool, events: counterEvents, batch: 5 })) if (events.length > 0) break;
    expect(db.pool.waitingCount).toBe(0);
    expect(await db.log().head()).toBeGreaterThan(0);
  });
});

describe('answers', () => {
  it('are forgotten after 30 days, not before', async () => {
    const log = db.log();
    const id = newCommandId();
    await log.answer(id, { version: 1 }, metaOf(id));
    expect(await log.forgetAnswers()).toBe(0);
    const above = new pg.Client(db.database.superuserUrl);
    await above.connect();
    await above.query('alter table event_log.answer disable trigger refuse');
    await above.query(`update event_log.answer set answered_at = now() - interval '31 days' where command_id = $1`, [id]);
    await above.query('alter table event_log.answer enable always trigger refuse');
    await above.end();
    expect(await log.forgetAnswers()).toBe(1);
    expect(await log.answered(id)).toBeUndefined();
  });
});
