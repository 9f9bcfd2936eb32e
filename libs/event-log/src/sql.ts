/* What the files of this folder say to Postgres in the same way. */
import pg from 'pg';

/** The SQLSTATE of an error of Postgres, else undefined. */
export const sqlStateOf = (error: unknown): string | undefined => (error instanceof pg.DatabaseError ? error.code : undefined);

/** The statement itself cannot be obeyed: data of no valid form (22…), or a constraint (23…). Trying again does not help. */
export const isDataError = (error: unknown): boolean => /^(22|23|54)/.test(sqlStateOf(error) ?? '');

/**
 * The connection is gone or there is none: whether the statement was obeyed is unknown.
 * Class 08, 57P0x (shut down, crashed, starting up), 53300 (too many connections), and what sockets say.
 */
export const isConnectionLost = (error: unknown): boolean => {
  const state = sqlStateOf(error);
  if (state !== undefined) return state.startsWith('08') || state.startsWith('57P0') || state === '53300';
  if (!(error instanceof Error)) return false;
  const code = (error as NodeJS.ErrnoException).code;
  if (code !== undefined && /^(ECONN|EPIPE|ENOENT|ETIMEDOUT|EHOSTUNREACH|ENETUNREACH)/.test(code)) return true;
  // pg has no codes for these.
  return /connection terminated|connection error|client has encountered|timeout exceeded when trying to connect|query read timeout|client was closed/i.test(error.message);
};

export const inTransaction = async <T>(client: Pick<pg.ClientBase, 'query'>, work: () => Promise<T>): Promise<T> => {
  await client.query('begin');
  try {
    const result = await work();
    await client.query('commit');
    return result;
  } catch (error) {
    await client.query('rollback').catch(() => undefined);
    throw error;
  }
};

/** Milliseconds to wait before attempt 2, 3, 4 …: doubling up to a bound, spread by a quarter so that many do not come at once. */
export const backOffMs = (attempt: number, firstMs: number, mostMs: number): number => {
  const whole = Math.min(firstMs * 2 ** Math.min(attempt - 1, 30), mostMs);
  return whole * (0.75 + Math.random() / 4);
};

/** '<schema>.<table>' with both quoted. */
export const tableNameOf = (qualified: string): { readonly schema: string; readonly table: string; readonly sql: string } => {
  const [schema, table, rest] = qualified.split('.');
  if (schema === undefined || table === undefined || rest !== undefined || schema === '' || table === '') throw new Error(`${qualified} is not named <schema>.<table>`);
  return { schema, table, sql: `${pg.escapeIdentifier(schema)}.${pg.escapeIdentifier(table)}` };
};

/**
 * Values as Postgres sends them, cheaper than pg's own: bigint as a number (positions stay below 2^53),
 * timestamps as text, jsonb parsed.
 */
export const plainTypes: pg.CustomTypesConfig = {
  getTypeParser: ((oid: number) => {
    switch (oid) {
      case 20: case 21: case 23:
        return Number;
      case 114: case 3802:
        return JSON.parse;
      case 16:
        return (text: string) => text === 't';
      case 17:
        return (text: string) => Buffer.from(text.slice(2), 'hex');
      default:
        return (text: string) => text;
    }
  }),
};

/** Asks by a prepared statement of that name; rows as arrays, values as `plainTypes` reads them. */
export const rowsOf = async <R extends readonly unknown[]>(on: Pick<pg.Pool, 'query'> | pg.ClientBase, name: string | undefined, text: string, values: readonly unknown[] = []): Promise<readonly R[]> => {
  const query: pg.QueryArrayConfig = { text, values: [...values], rowMode: 'array', types: plainTypes, ...(name === undefined ? {} : { name }) };
  // One of the two has overloads that the other has not: the union of both cannot be called.
  const { rows } = await (on as pg.Pool).query(query);
  return rows as unknown as readonly R[];
};
