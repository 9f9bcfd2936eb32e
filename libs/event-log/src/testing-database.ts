/* A database with the log in it, and logs on it, for tests on a real Postgres. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { testDatabase, type TestDatabase } from '../../../tools/test-postgres.ts';
import { eventLogMigrations, migrate, type MigrationFolder } from './migrate.ts';
import { PostgresLog, type PostgresLogOptions } from './postgres-log.ts';
import { counterEvents } from './testing-counter.ts';

export interface LogDatabase {
  readonly database: TestDatabase;
  /** Of cv_ipam, as every connection here unless said otherwise. */
  readonly url: string;
  readonly pool: pg.Pool;
  log(options?: Partial<PostgresLogOptions>): PostgresLog;
  end(): Promise<void>;
}

/** Folders of migrations written on the spot: schema, role and the SQL of each number. */
export const migrationsIn = (schema: string, role: string | undefined, ...sqls: readonly string[]): MigrationFolder & { remove(): void } => {
  const folder = mkdtempSync(join(tmpdir(), 'cv-migrations-'));
  sqls.forEach((sql, index) => writeFileSync(join(folder, `${String(index + 1).padStart(4, '0')}_test.sql`), sql));
  return { schema, role, folder, remove: () => rmSync(folder, { recursive: true }) };
};

/** `sql` is the first migration of a schema `ipam` that cv_ipam owns. */
export const logDatabase = async (sql = 'select 1'): Promise<LogDatabase> => {
  const database = await testDatabase();
  const ipam = migrationsIn('ipam', 'cv_ipam', sql);
  await migrate(database.ownerUrl, [eventLogMigrations, ipam]);
  ipam.remove();
  const url = database.urlOf('cv_ipam');
  const pool = new pg.Pool({ connectionString: url, max: 4 });
  return {
    database, url, pool,
    log: (options = {}) => new PostgresLog({ pool, events: counterEvents, ...options }),
    end: async () => {
      await pool.end();
      await database.drop();
    },
  };
};

/** Waits until it holds, at most `withinMs`; then fails and says what it waited for. */
export const eventually = async (what: string, holds: () => boolean | Promise<boolean>, withinMs = 10_000): Promise<void> => {
  const deadline = performance.now() + withinMs;
  while (!(await holds())) {
    if (performance.now() > deadline) throw new Error(`waited ${String(withinMs)} ms in vain until ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
};
