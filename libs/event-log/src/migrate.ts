/*
 * Runs numbered SQL files, each once, in its own transaction, and remembers its checksum: a file that was
 * edited after it ran is refused, because two databases that claim the same migrations would differ.
 *
 * Safe to run twice and by several processes at once: the first takes an advisory lock of the database,
 * the others wait and then find nothing to do.
 *
 * `event_log` comes first. The schema of a service belongs to the service's own role, its migrations run as
 * that role, and its checkpoints stand among its tables, made here, because the projection runner is the
 * same everywhere.
 */
import { createHash } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import pg from 'pg';
import { inTransaction, sqlStateOf } from './sql.ts';

export interface MigrationFolder {
  /** The schema that the files fill; made when it is missing. */
  readonly schema: string;
  /** Folder with files named '0001_what.sql', numbered without gaps. */
  readonly folder: string;
  /** Who owns the schema and runs its files: the service's role. Without it the migrating owner. */
  readonly role?: string | undefined;
}

/** The log's own migrations. */
export const eventLogMigrations: MigrationFolder = { schema: 'event_log', folder: join(import.meta.dirname, '..', 'migrations') };

/** A migration could not be run, and why, in words for whoever starts the platform. */
export class MigrationFault extends Error {
  override readonly name = 'MigrationFault';
}

export interface Migrated {
  readonly schema: string;
  readonly file: string;
  readonly ms: number;
}

interface Migration {
  readonly number: number;
  readonly file: string;
  readonly sql: string;
  readonly checksum: string;
}

const WAITS_FOR_OTHERS = '5min';
const ATTEMPTS_MAX = 10;

/** Brings a database to what the folders say, in their order. Returns what was run now. Throws MigrationFault. */
export const migrate = async (ownerUrl: string, folders: readonly MigrationFolder[]): Promise<readonly Migrated[]> => {
  const wanted = await Promise.all(folders.map(async (folder) => ({ ...folder, migrations: await migrationsOf(folder) })));
  const client = new pg.Client({ connectionString: ownerUrl, application_name: 'chronovirt migrate' });
  client.on('error', () => undefined); // the query under way says it
  try {
    await client.connect();
  } catch (cause) {
    throw new MigrationFault('could not reach Postgres to migrate it', { cause });
  }
  try {
    await client.query(`set lock_timeout = '${WAITS_FOR_OTHERS}'`);
    try {
      await client.query(`select pg_advisory_lock(hashtextextended('chronovirt migrate', 0))`);
    } catch (cause) {
      throw new MigrationFault(`another process has been migrating this database for ${WAITS_FOR_OTHERS}`, { cause });
    }
    await again(() => inTransaction(client, () => client.query(BOOKS)));
    const ran: Migrated[] = [];
    for (const folder of wanted) ran.push(...(await migrateSchema(client, folder, folder.migrations)));
    return ran;
  } finally {
    await client.end().catch(() => undefined);
  }
};

const BOOKS = `
  create schema if not exists migration;
  create table if not exists migration.applied (
    schema text not null,
    number integer not null,
    file text not null,
    checksum text not null,
    applied_at timestamptz not null default now(),
    primary key (schema, number)
  );
  comment on table migration.applied is 'Which migrations ran, and the SHA-256 of each file as it was then.'`;

const checkpoints = (schema: string): string => `
  create table if not exists ${schema}.checkpoint (
    name text primary key,
    version integer not null,
    epoch bigint not null default 0,
    position bigint not null,
    moved_at timestamptz not null default now()
  );
  comment on table ${schema}.checkpoint is 'How far each projection and policy of this service has come; moves in the transaction of its rows.';
  comment on column ${schema}.checkpoint.version is 'of the projection that filled the table';
  comment on column ${schema}.checkpoint.epoch is 'rises with each one who takes over: whoever comes with an older one is refused'`;

const migrateSchema = async (client: pg.Client, { schema, role }: MigrationFolder, migrations: readonly Migration[]): Promise<readonly Migrated[]> => {
  const name = pg.escapeIdentifier(schema);
  if (role !== undefined) {
    const known = await client.query('select from pg_roles where rolname = $1', [role]);
    if (known.rowCount === 0) throw new MigrationFault(`schema ${schema} shall belong to the role ${role}, and Postgres has no such role`);
  }
  const actAs = role === undefined ? undefined : `set local role ${pg.escapeIdentifier(role)}`;

  if (schema !== 'event_log') {
    const owner = role === undefined ? '' : ` authorization ${pg.escapeIdentifier(role)}`;
    await again(() => inTransaction(client, async () => {
      const there = await client.query('select from pg_namespace where nspname = $1', [schema]);
      if (there.rowCount === 0) await client.query(`create schema ${name}${owner}`);
      if (role !== undefined && (await client.query(`select from pg_namespace where nspname = 'event_log'`)).rowCount === 1) await client.query('select event_log.admit($1)', [role]);
      if (actAs !== undefined) await client.query(actAs);
      await client.query(checkpoints(name));
    }));
  }

  const applied = await client.query<{ number: number; file: string; checksum: string }>('select number, file, checksum from migration.applied where schema = $1 order by number', [schema]);
  for (const { number, file, checksum } of applied.rows) {
    const now = migrations.find((migration) => migration.number === number);
    if (now === undefined) throw new MigrationFault(`${schema}: the database has had migration ${file}, which this version does not know. A newer version migrated it: start that one`);
    if (now.checksum !== checksum) throw new MigrationFault(`${schema}: ${now.file} was changed after it ran. Put it back as it was, and write what is new into the next number`);
  }
  const ran: Migrated[] = [];
  for (const migration of migrations.slice(applied.rows.length)) {
    const startedAt = performance.now();
    try {
      await again(() => inTransaction(client, async () => {
        if (actAs !== undefined) await client.query(actAs);
        await client.query(migration.sql);
        await client.query('reset role');
        await client.query('insert into migration.applied (schema, number, file, checksum) values ($1, $2, $3, $4)', [schema, migration.number, migration.file, migration.checksum]);
      }));
    } catch (cause) {
      throw new MigrationFault(`${schema}: ${migration.file} failed and left nothing behind${placeOf(cause, migration.sql)}`, { cause });
    }
    ran.push({ schema, file: migration.file, ms: performance.now() - startedAt });
  }
  return ran;
};

const migrationsOf = async ({ schema, folder }: MigrationFolder): Promise<readonly Migration[]> => {
  let files: readonly string[];
  try {
    files = (await readdir(folder)).filter((file) => file.endsWith('.sql')).sort();
  } catch (cause) {
    throw new MigrationFault(`${schema}: cannot read the folder of migrations ${folder}`, { cause });
  }
  return Promise.all(files.map(async (file, index) => {
    const digits = /^(\d{4})_[a-z0-9_]+\.sql$/.exec(file)?.[1];
    if (digits === undefined) throw new MigrationFault(`${schema}: ${file} must be named like 0001_what_it_does.sql`);
    if (Number(digits) !== index + 1) throw new MigrationFault(`${schema}: ${file} stands where number ${String(index + 1).padStart(4, '0')} belongs`);
    const sql = await readFile(join(folder, file), 'utf8');
    return { number: index + 1, file, sql, checksum: createHash('sha256').update(sql).digest('hex') };
  }));
};

/*
 * Roles are shared by all databases of a cluster, and the lock is not: two databases that are migrated at
 * once may both make the role of the log, or grant it. One of them then fails, and succeeds when it looks
 * again.
 */
const again = async <T>(work: () => Promise<T>): Promise<T> => {
  for (let attempt = 1; ; attempt++) {
    try {
      return await work();
    } catch (error) {
      const raced = sqlStateOf(error) === '42710' || sqlStateOf(error) === '23505' || (sqlStateOf(error) === 'XX000' && error instanceof Error && error.message.includes('concurrently'));
      if (!raced || attempt === ATTEMPTS_MAX) throw error;
    }
  }
};

/** ' (line 12: …)' where Postgres said where it stopped. */
const placeOf = (error: unknown, sql: string): string => {
  const position = error instanceof pg.DatabaseError ? Number(error.position ?? 0) : 0;
  if (position === 0) return '';
  const line = sql.slice(0, position - 1).split('\n').length;
  return ` (line ${String(line)}: ${sql.split('\n')[line - 1]?.trim() ?? ''})`;
};
