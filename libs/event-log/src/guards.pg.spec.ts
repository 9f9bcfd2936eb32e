/* History is added to, never changed: by grant for services, by trigger for everyone else. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import pg from 'pg';
import { sqlStateOf } from './sql.ts';
import { adding } from './testing-counter.ts';
import { type LogDatabase, logDatabase } from './testing-database.ts';

let db: LogDatabase;
beforeAll(async () => {
  db = await logDatabase();
  await db.log().append(adding('counter-guarded', 0));
});
afterAll(() => db.end());

const ask = async (url: string, ...statements: readonly string[]): Promise<unknown> => {
  const client = new pg.Client(url);
  await client.connect();
  try {
    for (const statement of statements) await client.query(statement);
    return undefined;
  } catch (error) {
    return sqlStateOf(error) ?? error;
  } finally {
    await client.end();
  }
};

const EVENT = `insert into event_log.event select position + 1, stream, version + 1, id, type, shape, data, meta, hash, recorded_at from event_log.event where position = 1`;
const attempts: readonly (readonly [what: string, sql: string])[] = [
  ['insert an event', EVENT],
  ['change an event', `update event_log.event set data = '{}'`],
  ['delete an event', 'delete from event_log.event'],
  ['empty the log', 'truncate event_log.event'],
  ['write an answer', `insert into event_log.answer select gen_random_uuid(), answer, null, actor, null, null, now() from event_log.answer limit 1`],
  ['change an answer', `update event_log.answer set answer = '{}'`],
  ['delete an answer', 'delete from event_log.answer'],
  ['forget all answers', 'truncate event_log.answer'],
  ['turn a stream back', 'update event_log.stream set version = 0'],
  ['make a stream', `insert into event_log.stream values ('counter-made', 3)`],
  ['delete a stream', 'delete from event_log.stream'],
  ['move the head', 'update event_log.head set position = 0'],
  ['take the head away', 'delete from event_log.head'],
];

describe.each(attempts)('nobody may %s', (_what, sql) => {
  it('as a service', async () => expect(await ask(db.url, sql)).toBe('42501'));
  it('as the owner of the database', async () => expect(await ask(db.database.ownerUrl, sql)).toBe('42501'));
  it('as the owner of the log', async () => expect(await ask(db.database.ownerUrl, 'set role cv_log', sql)).toBe('42501'));
  it('as the superuser, triggers switched to replication or not', async () => {
    expect(await ask(db.database.superuserUrl, sql)).toBe('42501');
    expect(await ask(db.database.superuserUrl, 'set session_replication_role = replica', sql)).toBe('42501');
  });
});

describe('a service', () => {
  it('may not write snapshots and checkpoints past their functions', async () => {
    expect(await ask(db.url, `insert into event_log.snapshot values ('s', 'cv_ipam', 1, 'b', '{}', now())`)).toBe('42501');
    expect(await ask(db.url, `insert into event_log.checkpoint values ('relay', 1, '{}', now())`)).toBe('42501');
  });

  it('may not read or write the schema of another', async () => {
    expect(await ask(db.database.urlOf('cv_storage'), 'select * from ipam.checkpoint')).toBe('42501');
  });

  it('may not enter the log when it was not admitted', async () => {
    expect(await ask(db.database.urlOf('cv_storage'), 'select * from event_log.event')).toBe('42501');
    expect(await ask(db.database.urlOf('cv_storage'), 'select event_log.forget_snapshots()')).toBe('42501');
  });

  it('does not lend its search path to the functions of the log', async () => {
    const trap = [
      'grant usage on schema ipam to public', `create or replace function ipam.clock_timestamp() returns timestamptz language sql as $$ select 'epoch'::timestamptz $$`,
      'set search_path = ipam, pg_catalog',
      `select event_log.append('{0}', '{0}', array[gen_random_uuid()], array['counter-trap'], '{0}', array['{}'::jsonb], '{null}', array[gen_random_uuid()], '{Added}', '{2}', array['{"by":1,"note":""}'::jsonb], array['{"actor":"a"}'::jsonb], array[decode(repeat('00', 32), 'hex')])`,
    ];
    expect(await ask(db.url, ...trap)).toBeUndefined();
    const { rows } = await db.pool.query<{ now: boolean }>(`select recorded_at > now() - interval '1 minute' as now from event_log.event where stream = 'counter-trap'`);
    expect(rows).toEqual([{ now: true }]);
  });
});

it('the owner of the log cannot log in', async () => {
  const { rows } = await db.pool.query(`select rolcanlogin, rolsuper, rolcreaterole, rolbypassrls from pg_roles where rolname = 'cv_log'`);
  expect(rows).toEqual([{ rolcanlogin: false, rolsuper: false, rolcreaterole: false, rolbypassrls: false }]);
  const tables = await db.pool.query(`select distinct tableowner from pg_tables where schemaname = 'event_log'`);
  expect(tables.rows).toEqual([{ tableowner: 'cv_log' }]);
});

it('nothing that was tried left a trace', async () => {
  const { rows } = await db.pool.query(`select count(*)::int as events, max(version) as version from event_log.event where stream = 'counter-guarded'`);
  expect(rows).toEqual([{ events: 1, version: 1 }]);
});
