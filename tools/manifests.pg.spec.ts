/*
 * What compose's one-shots do, done in their order on a Postgres that knows no role yet: keys, roles and
 * database, migrations; then a service started from the file that it would read.
 */
import type { ChildProcess } from 'node:child_process';
import { chmodSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseEnv } from 'node:util';
import { readConfig } from '@chronovirt/storage/config';
import { start } from '@chronovirt/storage/service';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ensureDatabase, makeKeys, migrateAll, places, services } from '../infra/setup.ts';
import { startProgram, stopProgram, until, untilReady } from './child.ts';
import { freePort } from './ports.ts';
import { preparePostgres, withClient, type PreparedPostgres } from './postgres.ts';

let folder = '';
let postgres: PreparedPostgres;
let child: ChildProcess;
let log = '';

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'cv-setup-'));
  chmodSync(folder, 0o755); // Postgres runs as another user and must pass through
  log = join(folder, 'postgres.log');
  // Everything is logged, to see that no password is.
  postgres = await preparePostgres({ dir: join(folder, 'pg'), logFile: log }, { settings: { log_statement: 'all', log_min_duration_statement: '0', log_min_error_statement: 'error' } });
  child = startProgram(postgres.program);
  await untilReady(child, 'Postgres', log, postgres.isReady, 30_000);
  await makeKeys(join(folder, 'secrets'), places.compose);
}, 60_000);

afterAll(async () => {
  await stopProgram(child, postgres.stopSignals);
  rmSync(folder, { recursive: true, force: true });
});

/** What a reader of this folder is told; the host of compose is this machine here. */
const environmentOf = (reader: string): Readonly<Record<string, string>> =>
  Object.fromEntries(Object.entries(parseEnv(readFileSync(join(folder, 'secrets', reader, 'environment'), 'utf8')) as Record<string, string>)
    .map(([name, value]) => [name, value.replace('@postgres:5432/', `@127.0.0.1:${postgres.port}/`)]));
const passwords = (): Readonly<Record<string, string>> => JSON.parse(readFileSync(join(folder, 'secrets/setup/passwords.json'), 'utf8')) as Record<string, string>;
const ownerUrl = (): string => environmentOf('setup')['CV_SETUP_OWNER_URL'] ?? '';
const superuserUrl = (): string => postgres.url('postgres', 'postgres');

describe('setup', () => {
  it('makes roles and database, and a second time nothing', async () => {
    await ensureDatabase(superuserUrl(), passwords());
    await ensureDatabase(superuserUrl(), passwords());
    await withClient(superuserUrl(), async (client) => {
      const { rows } = await client.query(`select pg_get_userbyid(datdba) as owner, has_database_privilege('public', datname, 'connect') as open from pg_database where datname = 'chronovirt'`);
      expect(rows).toEqual([{ owner: 'cv_owner', open: false }]);
      const stored = await client.query<{ rolpassword: string; rolsuper: boolean }>(`select rolpassword, rolsuper from pg_authid where rolname like 'cv\\_%'`);
      expect(stored.rows).toHaveLength(6);
      for (const { rolpassword, rolsuper } of stored.rows) expect([rolpassword.split('$')[0], rolsuper]).toEqual(['SCRAM-SHA-256', false]);
    });
  });

  it('migrates everything once, when two do it at once, and again', async () => {
    const ran = (await Promise.all([migrateAll(ownerUrl()), migrateAll(ownerUrl())])).flat();
    expect(new Set(ran).size).toBe(ran.length);
    expect(ran).toEqual(expect.arrayContaining(['event_log/0001_event_log.sql', 'gateway/0001_gateway.sql', 'scheduler/0001_scheduler.sql']));
    expect(await migrateAll(ownerUrl())).toEqual([]);
  });

  it.each(services)('lets $name read the log, change nothing of it, and look into no other schema', async ({ name, key, role, schema }) => {
    const url = environmentOf(name)[`CV_${key}_POSTGRES_URL`] ?? '';
    await withClient(url, async (client) => {
      expect((await client.query('select current_user')).rows).toEqual([{ current_user: role }]);
      expect((await client.query('select position from event_log.head')).rows).toEqual([{ position: '0' }]);
      await expect(client.query('delete from event_log.event')).rejects.toThrow(/permission denied/);
      expect((await client.query(`select from ${schema}.checkpoint`)).rowCount).toBe(0);
      const other = services.find((one) => one.schema !== schema)?.schema ?? '';
      await expect(client.query(`select from ${other}.checkpoint`)).rejects.toThrow(/permission denied/);
    });
  });

  it('writes no password into the log of Postgres', () => {
    const text = readFileSync(log, 'utf8');
    expect(text).toContain('event_log.head'); // statements are logged, or this would show nothing
    expect(Object.entries(passwords()).filter(([, password]) => text.includes(password)).map(([role]) => role)).toEqual([]);
  });
});

it('a service starts from what setup made, and is ready', async () => {
  const port = await freePort();
  const running = await start(readConfig({
    ...environmentOf('storage'), CV_NATS_URL: process.env['CV_TEST_NATS_URL'], CV_NATS_CREDS: process.env['CV_TEST_NATS_CREDS'], CV_STORAGE_HEALTH_PORT: String(port), CV_LOG_LEVEL: 'error',
  }));
  try {
    let said: unknown;
    const asked = until(async () => {
      said = await (await fetch(`http://127.0.0.1:${port}/readyz`)).json();
      const parts = (said as { parts: readonly { name: string; ok: boolean }[] }).parts;
      // Its durable is made by the scheduler, which does not run here.
      return parts.filter(({ name }) => ['NATS', 'Postgres'].includes(name)).every(({ ok }) => ok) && parts.length >= 2;
    }, { withinMs: 15_000 });
    expect(await asked, JSON.stringify(said)).toBe(true);
  } finally {
    await running.close();
  }
});
