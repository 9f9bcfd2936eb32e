import fc from 'fast-check';
import pg from 'pg';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { testDatabase, type TestDatabase } from '../../../tools/test-postgres.ts';
import { byteaArray, int2Array, int4Array, jsonbArray, textArray, uuidArray } from './binary-arrays.ts';

let database: TestDatabase;
let client: pg.Client;
beforeAll(async () => {
  database = await testDatabase();
  client = new pg.Client(database.ownerUrl);
  await client.connect();
});
afterAll(async () => {
  await client.end();
  await database.drop();
});

const maybe = <T>(values: fc.Arbitrary<T>): fc.Arbitrary<(T | null)[]> => fc.array(fc.option(values));
const text = fc.string({ unit: 'binary' }).filter((value) => !value.includes('\u0000'));

it('what goes out in binary form comes back as it was', async () => {
  await fc.assert(fc.asyncProperty(
    maybe(fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 })), maybe(fc.integer({ min: -32_768, max: 32_767 })), maybe(text), maybe(fc.uuid()),
    maybe(fc.dictionary(text, fc.oneof(text, fc.integer(), fc.boolean()))), maybe(fc.uint8Array()),
    async (ints, shorts, texts, uuids, documents, bytes) => {
      const buffers = bytes.map((one) => (one === null ? null : Buffer.from(one)));
      const { rows } = await client.query({
        text: 'select $1::int[], $2::smallint[], $3::text[], $4::uuid[]::text[], $5::jsonb[], $6::bytea[]', rowMode: 'array',
        values: [int4Array(ints), int2Array(shorts), textArray(texts), uuidArray(uuids), jsonbArray(documents.map((one) => (one === null ? null : JSON.stringify(one)))), byteaArray(buffers)],
      });
      expect(rows[0]).toEqual([ints, shorts, texts, uuids, documents, buffers]);
    },
  ), { numRuns: 100 });
});

it.each(['0b7e3a3e-0000-8000-8000-00000000000', 'zb7e3a3e-0000-8000-8000-000000000000', '0b7e3a3e00008000800000000000000000'])('%s is refused, it is no UUID', (value) => {
  expect(() => uuidArray([value])).toThrow('no UUID');
});
