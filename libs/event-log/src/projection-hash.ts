/* One hash for all documents of a projection: rebuilt from the log, it must come out the same. */
import { createHash } from 'node:crypto';
import type pg from 'pg';
import Cursor from 'pg-cursor';
import { canonical } from './canonical.ts';
import type { AnyProjection } from './documents.ts';
import { plainTypes, tableNameOf } from './sql.ts';

const lineOf = (id: string, document: unknown): string => `${canonical([id, document])}\n`;

/** SHA-256 (hex) over all rows of the projection's table, by id in the order of bytes. */
export const canonicalHash = async (pool: pg.Pool, projection: Pick<AnyProjection, 'name'>): Promise<string> => {
  const digest = createHash('sha256');
  const client = await pool.connect();
  try {
    const cursor = client.query(new Cursor<readonly [string, unknown]>(
      `select id, doc from ${tableNameOf(projection.name).sql} order by id collate "C"`, [], { rowMode: 'array', types: plainTypes },
    ));
    for (let rows = await cursor.read(1_000); rows.length > 0; rows = await cursor.read(1_000)) for (const [id, document] of rows) digest.update(lineOf(id, document));
    await cursor.close();
  } finally {
    client.release();
  }
  return digest.digest('hex');
};

/** The same over documents in memory. */
export const canonicalHashOf = (documents: ReadonlyMap<string, unknown>): string => {
  const digest = createHash('sha256');
  const sorted = [...documents].sort(([a], [b]) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
  for (const [id, document] of sorted) digest.update(lineOf(id, document));
  return digest.digest('hex');
};
