import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import pg from 'pg';
import { testDatabase, type TestDatabase } from '../../../tools/test-postgres.ts';
import { eventLogMigrations, migrate, MigrationFault } from './migrate.ts';
import { migrationsIn } from './testing-database.ts';

let database: TestDatabase;
beforeAll(async () => { database = await testDatabase(); });
afterAll(() => database.drop());

const ask = async (sql: string): Promise<unknown[]> => {
  const client = new pg.Client(database.ownerUrl);
  await client.connect();
  const { rows } = await client.query(sql);
  await client.end();
  return rows as unknown[];
};

describe('migrations', () => {
  it('run once, however many processes start at the same moment', async () => {
    const ipam = migrationsIn('ipam', 'cv_ipam', 'create table ipam.thing (id int); insert into ipam.thing values (1)', 'insert into ipam.thing values (2)');
    const ran = await Promise.all(Array.from({ length: 6 }, () => migrate(database.ownerUrl, [eventLogMigrations, ipam])));
    expect(ran.map(({ length }) => length).sort()).toEqual([0, 0, 0, 0, 0, 3]);
    expect(await ask('select id from ipam.thing order by id')).toEqual([{ id: 1 }, { id: 2 }]);
    expect(await migrate(database.ownerUrl, [eventLogMigrations, ipam])).toEqual([]);
    expect(await ask(`select tableowner from pg_tables where schemaname = 'ipam' order by tablename`)).toEqual([{ tableowner: 'cv_ipam' }, { tableowner: 'cv_ipam' }]);
  });

  it('of several databases of one cluster run side by side', async () => {
    const others = await Promise.all(Array.from({ length: 4 }, () => testDatabase()));
    await Promise.all(others.map((other) => migrate(other.ownerUrl, [eventLogMigrations])));
    await Promise.all(others.map((other) => other.drop()));
  });

  it('refuse a file that was edited after it ran, by name', async () => {
    const edited = migrationsIn('edited', undefined, 'select 1');
    await migrate(database.ownerUrl, [edited]);
    writeFileSync(join(edited.folder, '0001_test.sql'), 'select 2');
    await expect(migrate(database.ownerUrl, [edited])).rejects.toThrow(/edited: 0001_test\.sql was changed after it ran/);
  });

  it('refuse a database that a newer version migrated', async () => {
    const newer = migrationsIn('newer', undefined, 'select 1', 'select 2');
    await migrate(database.ownerUrl, [newer]);
    await expect(migrate(database.ownerUrl, [{ ...newer, folder: migrationsIn('newer', undefined, 'select 1').folder }])).rejects.toThrow(/newer version/);
  });

  it('that fail leave nothing behind and say where', async () => {
    const broken = migrationsIn('broken', undefined, 'create table broken.half (id int);\n\ninsert into broken.nowhere values (1)');
    const failure: unknown = await migrate(database.ownerUrl, [broken]).catch((error: unknown) => error);
    expect(failure).toBeInstanceOf(MigrationFault);
    expect(failure).toMatchObject({ message: expect.stringMatching(/0001_test\.sql failed and left nothing behind \(line 3: insert into broken\.nowhere/) });
    expect(await ask(`select from pg_tables where schemaname = 'broken' and tablename = 'half'`)).toEqual([]);
    writeFileSync(join(broken.folder, '0001_test.sql'), 'create table broken.half (id int)');
    expect(await migrate(database.ownerUrl, [broken])).toHaveLength(1);
  });

  it('refuse numbers with holes, odd names and unknown roles, in words', async () => {
    const hole = migrationsIn('hole', undefined, 'select 1');
    writeFileSync(join(hole.folder, '0003_later.sql'), 'select 1');
    await expect(migrate(database.ownerUrl, [hole])).rejects.toThrow('0003_later.sql stands where number 0002 belongs');
    const odd = migrationsIn('odd', undefined);
    writeFileSync(join(odd.folder, 'first.sql'), 'select 1');
    await expect(migrate(database.ownerUrl, [odd])).rejects.toThrow('first.sql must be named like');
    await expect(migrate(database.ownerUrl, [migrationsIn('roleless', 'cv_nobody', 'select 1')])).rejects.toThrow('cv_nobody');
    await expect(migrate('postgresql://cv_owner@127.0.0.1:1/none', [])).rejects.toThrow('could not reach Postgres');
  });
});
