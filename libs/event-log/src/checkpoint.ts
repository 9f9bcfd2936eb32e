/*
 * Checkpoints of one service, in its own schema: one row for each projection and policy.
 *
 * Whoever takes over raises the row's epoch. A statement that moves a checkpoint names the epoch and the
 * position that it believes in, in the same transaction as its rows; if either is another, nothing of it
 * happens. So a runner that lost the lead without noticing changes nothing.
 */
import pg from 'pg';
import { rowsOf, sqlStateOf } from './sql.ts';

export interface Checkpoint {
  readonly name: string;
  readonly version: number;
  readonly epoch: number;
  readonly position: number;
}

/** Another one moved the checkpoint or took over. What was tried did not happen. */
export class CheckpointLost extends Error {
  override readonly name = 'CheckpointLost';
}

const table = (schema: string): string => `${pg.escapeIdentifier(schema)}.checkpoint`;

type Row = readonly [name: string, version: number, epoch: number, position: number];
const ofRow = ([name, version, epoch, position]: Row): Checkpoint => ({ name, version, epoch, position });

/** Reads without locking; those without a row are left out. */
export const readCheckpoints = async (on: Pick<pg.Pool, 'query'> | pg.ClientBase, schema: string, names: readonly string[]): Promise<readonly Checkpoint[]> =>
  (await rowsOf<Row>(on, undefined, `select name, version, epoch, position from ${table(schema)} where name = any($1::text[]) order by name`, [names])).map(ofRow);

/** Makes missing rows (position 0) and locks all of them until the transaction ends. */
export const lockCheckpoints = async (client: pg.ClientBase, schema: string, wanted: readonly { readonly name: string; readonly version: number }[]): Promise<readonly Checkpoint[]> => {
  const names = wanted.map(({ name }) => name);
  await client.query(
    `insert into ${table(schema)} (name, version, position) select w.name, w.version, 0 from unnest($1::text[], $2::int[]) w(name, version) order by w.name on conflict (name) do nothing`,
    [names, wanted.map(({ version }) => version)],
  );
  return (await rowsOf<Row>(client, undefined, `select name, version, epoch, position from ${table(schema)} where name = any($1::text[]) order by name for update`, [names])).map(ofRow);
};

/** Takes over: from here on, those who held these checkpoints before are refused. In a transaction of the caller's. */
export const takeOverCheckpoints = async (client: pg.ClientBase, schema: string, wanted: readonly { readonly name: string; readonly version: number }[]): Promise<readonly Checkpoint[]> => {
  const rows = await lockCheckpoints(client, schema, wanted);
  await client.query(`update ${table(schema)} set epoch = epoch + 1 where name = any($1::text[])`, [rows.map(({ name }) => name)]);
  return rows.map((row) => ({ ...row, epoch: row.epoch + 1 }));
};

/**
 * The first four parameters and two fragments of a statement that moves checkpoints together with rows:
 * $1 names, $2 epochs, $3 the position they are at, $4 the position they go to. `guard` fails the whole
 * statement unless all of them moved.
 */
export const movingSql = (schema: string): { readonly moved: string; readonly guard: string } => ({
  moved: `moved as (
    update ${table(schema)} c set position = $4, moved_at = now()
    from unnest($1::text[], $2::bigint[]) w(name, epoch) where c.name = w.name and c.epoch = w.epoch and c.position = $3 returning 1)`,
  // A division by zero is the shortest way to let a statement fail as a whole.
  guard: 'select 1 / (case when (select count(*) from moved) = cardinality($1) then 1 else 0 end)',
});

export const movingValues = (checkpoints: readonly Checkpoint[], from: number, to: number): readonly unknown[] => [
  checkpoints.map(({ name }) => name), checkpoints.map(({ epoch }) => epoch), from, to,
];

/** Turns the guard's failure into CheckpointLost. */
export const asCheckpointLost = (error: unknown): unknown => (sqlStateOf(error) === '22012' ? new CheckpointLost('another process moved the checkpoint', { cause: error }) : error);
