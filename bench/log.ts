/*
 * The log against pgbench, which inserts rows of the same size into the same Postgres in the same run, and
 * against @event-driven-io/emmett-postgresql.
 *
 *     node --conditions=chronovirt-source bench/log.ts [--quick | --full] [appending] [reading] [relaying]
 *
 * --quick takes less than half a minute; --full appends to 1 M streams and rebuilds from 1 M events.
 */
import { execFile, fork } from 'node:child_process';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { categoryOf, idOfStream } from '@chronovirt/contracts/ids';
import { eventLogMigrations, migrate } from '@chronovirt/event-log/migrate';
import { PostgresLog } from '@chronovirt/event-log/postgres-log';
import { canonicalHash } from '@chronovirt/event-log/projection-hash';
import { ProjectionRunner } from '@chronovirt/event-log/projection-runner';
import { Relay } from '@chronovirt/event-log/relay';
import { replay } from '@chronovirt/event-log/replay';
import { Tail } from '@chronovirt/event-log/tail';
import { connectBus } from '@chronovirt/messaging/connect';
import { consume } from '@chronovirt/messaging/consume';
import { ensureConsumer, ensureStreams } from '@chronovirt/messaging/ensure-topology';
import { createPublisher } from '@chronovirt/messaging/publish';
import { type ConsumerSpec, headerNames, subjects } from '@chronovirt/messaging/topology';
import { getPostgreSQLEventStore } from '@event-driven-io/emmett-postgresql';
import pg from 'pg';
import { startNats } from '../tools/nats.ts';
import { startPostgres, withClient, type Postgres } from '../tools/postgres.ts';
import { postgresBin } from '../tools/programs.ts';
import { appendFor, measured, measuredEvents, measuredView } from './log-measured.ts';
import { type Figure, judge, percentile, summary, table } from './report.ts';

type Effort = 'quick' | 'usual' | 'full';

interface Ground {
  readonly postgres: Postgres;
  readonly dir: string;
  readonly pool: pg.Pool;
  readonly log: PostgresLog;
  readonly effort: Effort;
  /** Milliseconds each rate is measured for. */
  readonly ms: number;
}

const run = promisify(execFile);
const ROLE = 'cv_monitor';

/** Rows a second that pgbench inserts: about 1 kB of jsonb, a stream and a version that are unique together. */
const pgbench = async ({ postgres, dir, ms }: Ground, clients: number): Promise<number> => {
  const url = postgres.url('cv_owner');
  await withClient(url, (client) => client.query(`
    drop table if exists public.bench_row;
    create table public.bench_row (position bigint generated always as identity primary key, stream text not null, version int not null, type text not null, data jsonb not null, unique (stream, version))`).then(() => undefined));
  const script = join(dir, 'insert.sql');
  writeFileSync(script, `\\set stream random(1, 2000)\ninsert into public.bench_row (stream, version, type, data) values ('measured-' || :stream, (random() * 2000000000)::int, 'Measured', :body::jsonb);\n`);
  const [event] = measured('measured-x', 0).events;
  const body = JSON.stringify({ ...event?.data, meta: measured('measured-x', 0).meta });
  const { hostname, port, username, password, pathname } = new URL(postgres.tcpUrl('cv_owner'));
  const { stdout } = await run(join(postgresBin() ?? '', 'pgbench'), [
    '-n', '-M', 'prepared', '-c', String(clients), '-j', '2', '-T', String(Math.ceil(ms / 1_000)), '-D', `body=${body}`, '-f', script, '-h', postgres.socketDir, '-p', port, '-U', username, pathname.slice(1),
  ], { env: { PATH: '/usr/bin:/bin', PGPASSWORD: decodeURIComponent(password), PGHOSTADDR: '', HOSTNAME: hostname } });
  const rate = /tps = ([\d.]+)/.exec(stdout)?.[1];
  if (rate === undefined) throw new Error(`pgbench said: ${stdout}`);
  return Number(rate);
};

/** Appends a second of the peer, in a process of its own: its pool outlives its `close`. */
const emmett = async ({ postgres, ms }: Ground, concurrent: number): Promise<number> => {
  await withClient(postgres.url('postgres', 'postgres'), async (client) => {
    await client.query('drop database if exists bench_emmett with (force)');
    await client.query('create database bench_emmett owner cv_owner');
  });
  return forked('emmett', postgres.url('cv_owner', 'bench_emmett'), String(concurrent), String(ms));
};

const appendByEmmett = async (url: string, concurrent: number, ms: number): Promise<number> => {
  const store = getPostgreSQLEventStore(url);
  await store.schema.migrate();
  const startedAt = performance.now();
  let appended = 0;
  await Promise.all(Array.from({ length: concurrent }, async (_, worker) => {
    for (let round = 0; performance.now() - startedAt < ms; round++) {
      const [event] = measured('measured-x', round % 100).events;
      await store.appendToStream(`measured-${String(worker)}_${String(Math.floor(round / 100))}`, [{ type: 'Measured', data: { ...event?.data } }], { expectedStreamVersion: BigInt(round % 100) });
      appended += 1;
    }
  }));
  return appended / ((performance.now() - startedAt) / 1_000);
};

/** Runs one of this file's parts in a process of its own and takes the rate that it sends. */
const forked = (...words: readonly string[]): Promise<number> => new Promise((resolve, reject) => {
  const child = fork(fileURLToPath(import.meta.url), words);
  child.once('message', (rate) => {
    resolve(Number(rate));
    child.kill();
  });
  child.once('exit', (code) => { reject(new Error(`a process of its own ended with ${String(code)}`)); });
});

const appends = async (ground: Ground): Promise<readonly Figure[]> => {
  const { log, ms } = ground;
  const bare = await pgbench(ground, 24);
  const beside = { name: 'pgbench', value: bare };
  const figures: Figure[] = [{ work: 'pgbench, one row of the same size a transaction, 24 clients', value: bare, unit: '/s' }];
  const ratio = (work: string, rate: number, goal?: number, note?: string): void => void figures.push(
    { work, value: rate / bare, unit: 'x', ...(goal === undefined ? {} : { goal: { kind: 'at least', value: goal, scales: false } as const }), note: `${rate.toFixed(0)} /s${note === undefined ? '' : `, ${note}`}` });
  const timed = (timesMs: readonly number[]): string => `p50 ${percentile(timesMs, 0.5).toFixed(1)} ms, p99 ${percentile(timesMs, 0.99).toFixed(1)} ms`;

  await appendFor(log, 'warm', 24, 500);
  const alone = await appendFor(log, 'alone', 1, ms);
  figures.push({ work: 'append, one at a time', value: alone.commands / alone.seconds, unit: '/s', goal: { kind: 'at least', value: 1_500, scales: true }, note: timed(alone.timesMs) });
  const many = await appendFor(log, 'many', 24, ms);
  ratio('append, 24 at once, of pgbench', many.commands / many.seconds, undefined, timed(many.timesMs));
  const several = await appendFor(log, 'several', 24, ms, 2);
  ratio('append, 24 at once, two events a command, events of pgbench\'s rows', several.events / several.seconds, 0.9, timed(several.timesMs));
  const more = await appendFor(log, 'more', 64, ms);
  ratio('append, 64 at once, of pgbench', more.commands / more.seconds, undefined, timed(more.timesMs));
  ratio('append, 3 processes with 24 each, of pgbench', await fromProcesses(ground, 3, 24));
  if (ground.effort === 'full') {
    await fillStreams(ground, 1_000_000);
    const full = await appendFor(log, 'full', 24, ms);
    ratio('append, 24 at once, beside 1 M streams and answers, of pgbench', full.commands / full.seconds, 0.6, timed(full.timesMs));
  }
  const peer = await emmett(ground, 24);
  figures.push({
    work: 'append, 24 at once, of emmett-postgresql', value: many.commands / many.seconds / peer, unit: 'x', goal: { kind: 'at least', value: 3, scales: false }, note: `emmett ${peer.toFixed(0)} /s`,
  });
  return figures.map((figure) => (figure.unit === '/s' && figure.work.startsWith('append') ? { ...figure, beside } : figure));
};

/** Rows for streams and answers that nobody asks for, past the triggers: only the size of the indexes matters. */
const fillStreams = ({ postgres }: Ground, count: number): Promise<void> =>
  withClient(postgres.url('postgres'), async (client) => {
    await client.query('alter table event_log.stream disable trigger all; alter table event_log.answer disable trigger all');
    await client.query(`insert into event_log.stream select 'measured-idle_' || n, 1 from generate_series(1, $1::int) n`, [count]);
    await client.query(`insert into event_log.answer select gen_random_uuid(), '{"version":1}', null, 'system:bench', null, 'measured-idle_' || n, now() from generate_series(1, $1::int) n`, [count]);
    await client.query('alter table event_log.stream enable always trigger refuse, enable always trigger only_append');
    await client.query('alter table event_log.answer enable always trigger refuse, enable always trigger only_append, enable always trigger only_forget');
    await client.query('checkpoint');
  });

const fromProcesses = async ({ postgres, ms }: Ground, processes: number, concurrent: number): Promise<number> => {
  const rates = await Promise.all(Array.from({ length: processes }, (_, number) => forked('append', postgres.url(ROLE), `process${String(number)}`, String(concurrent), String(ms))));
  return rates.reduce((sum, rate) => sum + rate, 0);
};

const reads = async (ground: Ground): Promise<readonly Figure[]> => {
  const { log, pool, postgres, effort } = ground;
  const wanted = effort === 'quick' ? 50_000 : effort === 'full' ? 1_000_000 : 200_000;
  for (let at = await log.head(), stream = 0; at < wanted; at = await log.head()) {
    await Promise.all(Array.from({ length: 200 }, () => log.append(measured(`measured-more_${String(stream++)}`, 0, 20))));
  }
  const head = await log.head();
  const bytes = await pool.query<{ bytes: number }>('select (sum(octet_length(data::text) + octet_length(meta::text)) / count(*))::int as bytes from (select data, meta from event_log.event limit 1000) e');
  const figures: Figure[] = [];

  let folded = 0;
  let cpu = process.cpuUsage();
  let startedAt = performance.now();
  for await (const events of replay({ pool, events: measuredEvents })) for (const event of events) folded += Number(event.data['vcpus']);
  const replayS = (performance.now() - startedAt) / 1_000;
  const { user, system } = process.cpuUsage(cpu);
  if (folded !== head * 2) throw new Error('the replay did not see every event once');
  figures.push({
    work: `replay of ${String(head)} events of ${String(bytes.rows[0]?.bytes ?? 0)} bytes, with upcasting and checks, per core`, value: head / ((user + system) / 1e6), unit: '/s', goal: { kind: 'at least', value: 150_000, scales: false },
    note: `${(head / replayS / 1_000).toFixed(0)} k per second by the clock, Postgres on the other core`,
  });

  const tail = new Tail({ url: postgres.url(ROLE), log });
  const runner = new ProjectionRunner({ pool, url: postgres.url(ROLE), tail, log, schema: 'monitor', projections: [measuredView] });
  await tail.start();
  startedAt = performance.now();
  runner.start();
  if (!(await runner.waitFor(head, 300_000))) throw new Error('the projection did not catch up');
  const liveS = (performance.now() - startedAt) / 1_000;
  figures.push({ work: 'projection catching up, 500 a transaction', value: head / liveS, unit: '/s' });
  const before = await canonicalHash(pool, measuredView);
  cpu = process.cpuUsage();
  const rebuilt = await runner.rebuild(measuredView.name);
  if ((await canonicalHash(pool, measuredView)) !== before) throw new Error('the rebuilt projection has another hash');
  figures.push({
    work: 'projection rebuilt from 1 M events, same hash', value: (rebuilt.ms / rebuilt.events) * 1_000, unit: 's', goal: { kind: 'at most', value: 30, scales: false },
    note: `${String(rebuilt.events)} events into ${String(rebuilt.documents)} rows: ${(rebuilt.events / (rebuilt.ms / 1_000)).toFixed(0)} /s`,
  });
  await runner.stop();
  await tail.stop();
  return figures;
};

const relays = async ({ log, postgres, dir, effort }: Ground): Promise<readonly Figure[]> => {
  const nats = await startNats({ dir: join(dir, 'nats') });
  const bus = await connectBus({ servers: nats.url, credentials: { file: nats.serviceCreds }, name: 'bench' });
  const tail = new Tail({ url: postgres.url(ROLE), log, pollMs: 1_000 });
  const figures: Figure[] = [];
  try {
    await ensureStreams(bus.nc);
    const publisher = createPublisher({ bus });
    const head = await log.head();
    const wanted = Math.min(head, effort === 'quick' ? 20_000 : 60_000);
    // A relay that has come as far as this, so that what is measured has an end.
    await withClient(postgres.url(ROLE), (client) => client.query(`select event_log.move_checkpoint('relay', 0, $1, '{}')`, [head - wanted]).then(() => undefined));
    const relay = new Relay({
      url: postgres.url(ROLE), tail,
      publish: (group) => publisher.publishEvents(group.map(({ event, previous }) => ({
        id: event.id, category: categoryOf(event.stream), streamId: idOfStream(event.stream), type: event.type, position: event.position, previous, body: event, traceparent: event.meta.traceparent,
      }))),
    });
    await tail.start();
    const startedAt = performance.now();
    relay.start();
    while (relay.position < head) await new Promise((resolve) => setTimeout(resolve, 5));
    figures.push({ work: 'relay to JetStream', value: wanted / ((performance.now() - startedAt) / 1_000), unit: '/s', goal: { kind: 'at least', value: 15_000, scales: false }, note: `${String(wanted)} events` });

    const spec: ConsumerSpec = { stream: 'EVENTS', durable: 'bench', filter: subjects.events('late'), ackWaitMs: 10_000, ackPendingMax: 1_000 };
    await ensureConsumer(bus.nc, spec);
    const sentAt = new Map<string, number>();
    const times: number[] = [];
    const consumption = consume({ bus, spec, handle: (delivery) => {
      const sent = sentAt.get(delivery.header(headerNames.id) ?? '');
      if (sent !== undefined) times.push(performance.now() - sent);
    } });
    const rounds = effort === 'quick' ? 200 : 800;
    for (let round = 0; round < rounds; round++) {
      const at = performance.now();
      void log.append(measured(`late-${String(round)}`, 0)).then((outcome) => {
        if (outcome.kind === 'appended') sentAt.set(outcome.events[0]?.id ?? '', at);
      });
      await new Promise((resolve) => setTimeout(resolve, Math.max(0, 10 - (performance.now() - at))));
    }
    for (let waited = 0; times.length < rounds * 0.99 && waited < 200; waited++) await new Promise((resolve) => setTimeout(resolve, 10));
    const settled = times.slice(20);
    figures.push(
      { work: 'append → relay → JetStream → consumer at 100/s, p50', value: percentile(settled, 0.5), unit: 'ms', goal: { kind: 'at most', value: 3, scales: true }, note: `${String(times.length)} of ${String(rounds)} seen` },
      { work: 'append → relay → JetStream → consumer at 100/s, p99', value: percentile(settled, 0.99), unit: 'ms', goal: { kind: 'at most', value: 8, scales: true } },
    );
    await consumption.stop();
    await relay.stop();
  } finally {
    await tail.stop();
    await bus.close();
    await nats.stop();
  }
  return figures;
};

/** All figures of the log, on a Postgres of its own that is gone afterwards. */
export const measureLog = async (effort: Effort, say: (what: string) => void = () => undefined, parts: readonly string[] = []): Promise<readonly Figure[]> => {
  const dir = mkdtempSync(join(tmpdir(), 'cv-bench-log-'));
  chmodSync(dir, 0o755);
  const postgres = await startPostgres({ dir: join(dir, 'pg') });
  const pool = new pg.Pool({ connectionString: postgres.url(ROLE), max: 4 });
  try {
    const migrations = mkdtempSync(join(dir, 'migrations-'));
    writeFileSync(join(migrations, '0001_bench.sql'), 'create table monitor.measured_view (id text primary key, doc jsonb not null, position bigint not null)');
    await migrate(postgres.url('cv_owner'), [eventLogMigrations, { schema: 'monitor', folder: migrations, role: ROLE }]);
    const ground: Ground = { postgres, dir, pool, log: new PostgresLog({ pool, events: measuredEvents }), effort, ms: effort === 'quick' ? 1_500 : 5_000 };
    const figures: Figure[] = [];
    for (const [name, measure] of [['appending', appends], ['reading', reads], ['relaying', relays]] as const) {
      if (parts.length > 0 && !parts.includes(name)) continue;
      say(name);
      figures.push(...(await measure(ground)));
    }
    return figures;
  } finally {
    await pool.end();
    await postgres.stop();
    rmSync(dir, { recursive: true, force: true });
  }
};

const [, file, first, ...rest] = process.argv;
if (file === fileURLToPath(import.meta.url)) {
  if (first === 'append') {
    const [url, prefix, concurrent, ms] = rest;
    const pool = new pg.Pool({ connectionString: url, max: 2 });
    const { commands, seconds } = await appendFor(new PostgresLog({ pool, events: measuredEvents }), prefix ?? '', Number(concurrent), Number(ms));
    process.send?.(commands / seconds);
  } else if (first === 'emmett') {
    const [url, concurrent, ms] = rest;
    process.send?.(await appendByEmmett(url ?? '', Number(concurrent), Number(ms)));
  } else {
    const effort = first === '--quick' ? 'quick' : first === '--full' ? 'full' : 'usual';
    const startedAt = performance.now();
    const figures = (await measureLog(effort, (what) => { console.log(`${what} …`); }, [first ?? '', ...rest].filter((word) => /^[a-z]/.test(word)))).map((figure) => judge(figure, 0));
    console.log(`${table(figures)}\n${summary(figures)}, in ${((performance.now() - startedAt) / 1_000).toFixed(0)} s`);
  }
}
