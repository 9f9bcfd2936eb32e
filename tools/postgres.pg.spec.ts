import { chmodSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Client } from 'pg';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { startProgram, until } from './child.ts';
import { preparePostgres, startPostgres, withClient, type Postgres } from './postgres.ts';

let dir: string;
let running: Postgres | undefined;

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'cv-pg-'));
  chmodSync(dir, 0o755);
});

afterEach(async () => {
  await running?.stop();
  running = undefined;
  rmSync(dir, { recursive: true, force: true });
});

const oneOf = async (url: string, query: string): Promise<unknown> => withClient(url, async (client) => Object.values((await client.query<Record<string, unknown>>(query)).rows[0] ?? {})[0]);

describe('a Postgres of our own', () => {
  it('keeps what was committed when it is killed, and is found on the same port', async () => {
    running = await startPostgres({ dir });
    await withClient(running.url('cv_owner'), async (client) => {
      await client.query('create table kept (n int)');
      await client.query('insert into kept select generate_series(1, 1000)');
    });
    const { port, child } = running;
    process.kill(child.pid ?? 0, 'SIGKILL');
    running = await startPostgres({ dir });
    expect(running.port).toBe(port);
    expect(await oneOf(running.url('cv_owner'), 'select count(*)::int from kept')).toBe(1000);
  });

  it('lets nobody in without the password, on the socket or by TCP', async () => {
    running = await startPostgres({ dir });
    for (const url of [running.url('cv_gateway'), running.tcpUrl('cv_gateway')]) {
      await expect(withClient(url.replace(/:[^:@]+@/, ':wrong@'), () => Promise.resolve())).rejects.toThrow(/password authentication failed/);
      expect(await oneOf(url, 'select current_user')).toBe('cv_gateway');
    }
    expect(await oneOf(running.url('postgres'), "select setting from pg_settings where name = 'listen_addresses'")).toBe('127.0.0.1');
    const secrets = join(dir, 'postgres.secrets.json');
    expect(statSync(secrets).mode & 0o777).toBe(0o600);
    const passwords = Object.values(JSON.parse(readFileSync(secrets, 'utf8')) as Record<string, string>);
    const log = readFileSync(join(dir, 'postgres.log'), 'utf8');
    for (const password of passwords) expect(log).not.toContain(password);
  });

  it('gives a service its own place and nothing of the others', async () => {
    running = await startPostgres({ dir });
    await expect(oneOf(running.url('cv_ipam'), 'create table mine (n int)')).rejects.toThrow(/permission denied/);
    await expect(oneOf(running.url('cv_ipam'), 'set role cv_gateway')).rejects.toThrow(/permission denied/);
    expect(await oneOf(running.url('cv_owner'), "select pg_has_role('cv_owner', 'cv_ipam', 'member')")).toBe(true);
  });

  it('ends a Postgres whose starter died, and starts over it', async () => {
    const prepared = await preparePostgres({ dir });
    const orphan = startProgram(prepared.program);
    expect(await until(() => prepared.isReady(), { withinMs: 10_000 })).toBe(true);
    running = await startPostgres({ dir });
    expect(running.child.pid).not.toBe(orphan.pid);
    expect(await until(() => orphan.exitCode !== null || orphan.signalCode !== null, { withinMs: 1_000 })).toBe(true);
    const client = new Client({ connectionString: running.url('cv_owner') });
    await client.connect();
    await client.end();
  });
});
