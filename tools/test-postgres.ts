/*
 * A database of its own for each test file, on one shared cluster.
 *
 *   const database = await testDatabase();     // beforeAll
 *   … database.ownerUrl, database.urlOf('cv_ipam') …
 *   await database.drop();                     // afterAll
 *
 * Under vitest the cluster is the one of tools/vitest-servers.ts, named by
 * CV_TEST_POSTGRES_URL (its superuser's connection string) and CV_TEST_POSTGRES_DIR. Without
 * it (a script run by hand) the first caller of the process starts a cluster and the end of the
 * process takes it away.
 */
import { randomBytes } from 'node:crypto';
import { chmodSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createDatabase, startPostgres, withClient, type PostgresRole } from './postgres.ts';

export interface TestDatabase {
  readonly name: string;
  /** The role that runs migrations and owns the database. */
  readonly ownerUrl: string;
  /** The superuser, for tests that look from above or end other people's connections. */
  readonly superuserUrl: string;
  urlOf(role: PostgresRole): string;
  drop(): Promise<void>;
}

export async function testDatabase(): Promise<TestDatabase> {
  const cluster = await sharedCluster();
  const name = `test_${process.pid}_${randomBytes(6).toString('hex')}`;
  const urlOf = (role: PostgresRole, database = name): string => cluster.urlOf(role, database);
  const above = urlOf('postgres', 'postgres');
  await withClient(above, (client) => createDatabase(client, name));
  return {
    name,
    ownerUrl: urlOf('cv_owner'),
    superuserUrl: urlOf('postgres'),
    urlOf: (role) => urlOf(role),
    drop: () => withClient(above, async (client) => void (await client.query(`drop database if exists ${name} with (force)`))),
  };
}

interface Cluster {
  urlOf(role: PostgresRole, database: string): string;
}

let own: Promise<Cluster> | undefined;

function sharedCluster(): Promise<Cluster> {
  const url = process.env['CV_TEST_POSTGRES_URL'];
  const secretsFile = process.env['CV_TEST_POSTGRES_SECRETS'];
  if (url && secretsFile) {
    const secrets = JSON.parse(readFileSync(secretsFile, 'utf8')) as Record<PostgresRole, string>;
    const host = /@([^/]+)\//.exec(url)?.[1];
    if (!host) throw new Error(`CV_TEST_POSTGRES_URL is no connection string`);
    return Promise.resolve({ urlOf: (role, database) => `postgresql://${role}:${secrets[role]}@${host}/${database}` });
  }
  return (own ??= startOwn());
}

async function startOwn(): Promise<Cluster> {
  const dir = mkdtempSync(join(tmpdir(), 'cv-test-pg-'));
  chmodSync(dir, 0o755); // Postgres runs as another user and must pass through
  const postgres = await startPostgres({ dir });
  postgres.child.unref();
  process.once('exit', () => {
    postgres.child.kill('SIGQUIT');
    rmSync(dir, { recursive: true, force: true });
  });
  return { urlOf: (role, database) => postgres.url(role, database) };
}
