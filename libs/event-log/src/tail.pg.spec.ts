/* Following the log and leading, through the death of Postgres. A cluster of our own, because it is killed. */
import { mkdtempSync, rmSync, chmodSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startPostgres, type Postgres } from '../../../tools/postgres.ts';
import { Leader } from './leader.ts';
import { eventLogMigrations, migrate } from './migrate.ts';
import { PostgresLog } from './postgres-log.ts';
import { type Outgoing, Relay } from './relay.ts';
import { Session } from './session.ts';
import { Tail } from './tail.ts';
import { adding, counterEvents } from './testing-counter.ts';
import { eventually, migrationsIn } from './testing-database.ts';

let dir: string;
let postgres: Postgres;
let pool: pg.Pool;
let log: PostgresLog;
let url: string;

beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), 'cv-tail-'));
  chmodSync(dir, 0o755);
  postgres = await startPostgres({ dir });
  await migrate(postgres.url('cv_owner'), [eventLogMigrations, migrationsIn('ipam', 'cv_ipam', 'select 1')]);
  url = postgres.url('cv_ipam');
  pool = new pg.Pool({ connectionString: url, max: 4 });
  log = new PostgresLog({ pool, events: counterEvents });
});
afterAll(async () => {
  await pool.end();
  await postgres.stop();
  rmSync(dir, { recursive: true });
});

/** kill -9 of Postgres, and its start anew on the same data and port. */
const crash = async (): Promise<void> => {
  postgres.child.kill('SIGKILL');
  await sleep(100);
  postgres = await startPostgres({ dir }, { port: postgres.port });
};

const versions = new Map<string, number>();
const append = async (stream: string, count = 1): Promise<void> => {
  const expected = versions.get(stream) ?? 0;
  const outcome = await log.append(adding(stream, expected, count));
  // 'answered': it was committed when the connection broke, and the second sending found it.
  expect(['appended', 'answered']).toContain(outcome.kind);
  versions.set(stream, expected + count);
};

const upTo = (from: number, head: number): readonly number[] => Array.from({ length: head - from }, (_, index) => from + 1 + index);

describe('a tail', () => {
  it('hands on every event, in order, to those who are there and to those who come late', async () => {
    const tail = new Tail({ url, log, keptMax: 20 });
    await tail.start();
    const early: number[] = [];
    const from = await log.head();
    tail.subscribe({ after: from, name: 'early' }, (events) => void early.push(...events.map(({ position }) => position)));
    for (let round = 0; round < 60; round++) await append('counter-tail', 2);
    const late: number[] = [];
    const sizes: number[] = [];
    tail.subscribe({ after: 0, name: 'late', batchMax: 9 }, async (events) => {
      sizes.push(events.length);
      await sleep(1);
      late.push(...events.map(({ position }) => position));
    });
    const head = await log.head();
    await eventually('both have all', () => early.at(-1) === head && late.at(-1) === head);
    expect(early).toEqual(upTo(from, head));
    expect(late).toEqual(upTo(0, head));
    expect(Math.max(...sizes)).toBe(9);
    await tail.stop();
  });

  it('is woken by the commit, not by the clock', async () => {
    const tail = new Tail({ url, log, pollMs: 60_000 });
    await tail.start();
    await eventually('it looked', () => tail.head > 0);
    for (let round = 0; round < 20; round++) {
      await append('counter-woken');
      expect(await tail.waitFor(await log.head(), 5_000)).toBe(true);
    }
    await tail.stop();
  });

  it('sees everything although no notification arrives', async () => {
    const tail = new Tail({ url, log, pollMs: 50 });
    await tail.start();
    const client = new pg.Client(postgres.url('postgres'));
    await client.connect();
    // The listening connection is ended again and again: whatever was notified meanwhile is lost.
    for (let round = 0; round < 5; round++) {
      await client.query(`select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'chronovirt tail'`);
      await append('counter-unheard');
    }
    await client.end();
    expect(await tail.waitFor(await log.head(), 5_000)).toBe(true);
    await tail.stop();
  });

  it('looks by the clock as well', async () => {
    const session = new Session({ url });
    const tail = new Tail({ session, log, pollMs: 50 });
    await tail.start();
    await eventually('it is connected', () => session.connected);
    await session.query('unlisten *');
    await append('counter-clock');
    expect(await tail.waitFor(await log.head(), 5_000)).toBe(true);
    await tail.stop();
    await session.stop();
  });

  it('gives a batch again until its handler takes it, while others go on', async () => {
    const tail = new Tail({ url, log });
    await tail.start();
    const from = await log.head();
    const [stubborn, easy]: [number[], number[]] = [[], []];
    let refusals = 4;
    tail.subscribe({ after: from, name: 'stubborn' }, (events) => {
      if (refusals-- > 0) throw new Error('not yet');
      stubborn.push(...events.map(({ position }) => position));
    });
    tail.subscribe({ after: from, name: 'easy' }, (events) => void easy.push(...events.map(({ position }) => position)));
    await append('counter-again', 3);
    await eventually('the easy one has them', () => easy.length === 3);
    expect(stubborn).toEqual([]);
    await eventually('the stubborn one has them', () => stubborn.length === 3);
    expect(stubborn).toEqual(easy);
    await tail.stop();
  });
});

describe('a leader', () => {
  const candidate = (name: string, events: string[], session?: Session): Leader => {
    const leader = new Leader({ ...(session === undefined ? { url } : { session }), name: 'test lead', retryMs: 50, onLead: () => void events.push(`${name} leads`), onLost: () => void events.push(`${name} lost`) });
    leader.start();
    return leader;
  };

  it('is one of many, and when it goes the next one leads', async () => {
    const events: string[] = [];
    const [a, b] = [candidate('a', events), candidate('b', events)];
    await eventually('one leads', () => a.leading || b.leading);
    await sleep(200);
    expect(events).toHaveLength(1);
    const [first, second] = a.leading ? [a, b] : [b, a];
    await first.stop();
    await eventually('the other leads', () => second.leading);
    expect(events.map((event) => event.split(' ')[1])).toEqual(['leads', 'lost', 'leads']);
    await second.stop();
  });

  it('of two in one session is one as well', async () => {
    const session = new Session({ url });
    const events: string[] = [];
    const both = [candidate('a', events, session), candidate('b', events, session)];
    await eventually('one leads', () => both.some(({ leading }) => leading));
    await sleep(200);
    expect(both.filter(({ leading }) => leading)).toHaveLength(1);
    await Promise.all(both.map((one) => one.stop()));
    await session.stop();
  });

  it('tries again after its start failed', async () => {
    let failures = 2;
    const leader = new Leader({ url, name: 'failing lead', retryMs: 20, onLead: () => { if (failures-- > 0) throw new Error('no'); }, onLost: () => undefined });
    leader.start();
    await eventually('it leads', () => failures < 0 && leader.leading);
    await leader.stop();
  });

  it('hears of the death of a connection that says nothing', async () => {
    const { createServer, connect } = await import('node:net');
    // Between us and Postgres, something that can fall silent without closing anything.
    let silent = false;
    const between = createServer((socket) => {
      const there = connect(postgres.port, '127.0.0.1');
      socket.on('data', (data) => void (silent || there.write(data)));
      there.on('data', (data) => void (silent || socket.write(data)));
      for (const one of [socket, there]) one.on('error', () => undefined).on('close', () => { socket.destroy(); there.destroy(); });
    });
    await new Promise<void>((resolve) => between.listen(0, '127.0.0.1', resolve));
    const { port } = between.address() as { port: number };
    const session = new Session({ url: postgres.tcpUrl('cv_ipam').replace(`:${String(postgres.port)}/`, `:${String(port)}/`), heartbeatMs: 200 });
    const events: string[] = [];
    const leader = candidate('a', events, session);
    await eventually('it leads', () => leader.leading);
    silent = true;
    await eventually('it lost', () => events.includes('a lost'), 3_000);
    await leader.stop();
    await session.stop();
    between.close();
  });
});

describe('a relay', () => {
  it('publishes every event in order, knows the one before it in its category, and skips none over failures and restarts', async () => {
    const tail = new Tail({ url, log });
    await tail.start();
    const published: { readonly position: number; readonly previous: number; readonly stream: string }[] = [];
    const sizes: number[] = [];
    let flying = 0;
    let most = 0;
    let calls = 0;
    const publish = async (group: readonly Outgoing[]): Promise<void> => {
      flying += 1;
      most = Math.max(most, flying);
      sizes.push(group.length);
      await sleep(Math.random() * 3);
      flying -= 1;
      if (++calls % 7 === 0) throw new Error('the bus is away');
      for (const { event: { position, stream }, previous } of group) published.push({ position, previous, stream });
    };
    const relayOf = (): Relay => {
      const relay = new Relay({ url, tail, publish, name: 'test relay', groupMax: 16, checkpointMs: 20 });
      relay.start();
      return relay;
    };
    const first = relayOf();
    for (let round = 0; round < 20; round++) await append(`${['counter', 'other', 'third'][round % 3] ?? ''}-relay_${String(round)}`, 3);
    await eventually('some are out', () => published.length > 20);
    await first.stop();
    for (let round = 20; round < 40; round++) await append(`${['counter', 'other', 'third'][round % 3] ?? ''}-relay_${String(round)}`, 3);
    const head = await log.head();
    const second = relayOf();
    await eventually('all are out', () => second.position === head, 20_000);
    await second.stop();
    expect(most).toBe(2);
    expect(Math.max(...sizes)).toBeGreaterThan(4);
    expect(Math.max(...sizes)).toBeLessThanOrEqual(16);
    expect([...new Set(published.map(({ position }) => position))].sort((a, b) => a - b)).toEqual(upTo(0, head));
    const events = await log.read(0, 10_000);
    const categoryOf = (stream: string): string => stream.split('-')[0] ?? '';
    for (const { position, previous, stream } of published) {
      const before = events.filter((event) => event.position < position && categoryOf(event.stream) === categoryOf(stream)).at(-1)?.position ?? 0;
      expect(previous).toBe(before);
    }
    const { rows } = await pool.query(`select position::int from event_log.checkpoint where name = 'test relay'`);
    expect(rows).toEqual([{ position: head }]);
    await tail.stop();
  });

  it('has one active process of two', async () => {
    const tail = new Tail({ url, log });
    await tail.start();
    const by: string[] = [];
    const both = ['a', 'b'].map((name) => new Relay({ url, tail, name: 'shared relay', publish: async (group) => void by.push(...group.map(() => name)) }));
    both.forEach((relay) => relay.start());
    const head = await log.head();
    await eventually('all are out', () => by.length >= head);
    expect(new Set(by).size).toBe(1);
    await Promise.all(both.map((relay) => relay.stop()));
    await tail.stop();
  });
});

describe('when Postgres is killed', () => {
  it('everyone comes back by himself, and nothing that was promised is lost', async () => {
    const tail = new Tail({ url, log });
    await tail.start();
    const events: string[] = [];
    const leader = new Leader({ url, name: 'surviving lead', retryMs: 50, onLead: () => void events.push('leads'), onLost: () => void events.push('lost') });
    leader.start();
    await eventually('it leads', () => leader.leading);
    const from = await log.head();
    const seen: number[] = [];
    tail.subscribe({ after: from, name: 'survivor' }, (batch) => void seen.push(...batch.map(({ position }) => position)));

    let writing = true;
    let promised = 0;
    const writers = Array.from({ length: 4 }, async (_, name) => {
      while (writing) {
        await append(`counter-survivor_${String(name)}`);
        promised += 1;
        await sleep(1);
      }
    });
    await eventually('some were written', () => promised > 40);
    await crash();
    const before = promised;
    await eventually('more are written', () => promised > before + 40);
    await crash();
    const again = promised;
    await eventually('more are written still', () => promised > again + 40);
    writing = false;
    await Promise.all(writers);

    const head = await log.head();
    expect(head - from).toBe(promised);
    await eventually('the tail has all', () => seen.at(-1) === head);
    expect(seen).toEqual(upTo(from, head));
    await eventually('it leads again', () => leader.leading);
    expect(events.slice(0, 3)).toEqual(['leads', 'lost', 'leads']);
    await leader.stop();
    await tail.stop();
  });
});
