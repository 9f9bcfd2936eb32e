import { describe, expect, it } from 'vitest';
import { type Codec, encodeCursor, parseVmList, type RawQuery } from './vm-list.ts';

const plain: Codec = { encode: (text) => text, decode: (text) => text };
const queryOf = (raw: RawQuery) => {
  const parsed = parseVmList(raw, plain);
  if ('errors' in parsed) throw new Error(JSON.stringify(parsed.errors));
  return parsed.query;
};
const errorsOf = (raw: RawQuery) => {
  const parsed = parseVmList(raw, plain);
  return 'errors' in parsed ? parsed.errors.map(({ path, code }) => `${path} ${code ?? ''}`) : [];
};

describe('a list question', () => {
  it('without anything is the first hundred, oldest first', () => {
    expect(queryOf({})).toEqual({ filters: [], words: [], sort: [{ field: 'createdAt', descending: false }], limit: 100, after: undefined, count: false, format: undefined });
  });
  it('takes operators in brackets', () => {
    expect(queryOf({ 'memoryMib[gt]': '512', 'status[in]': 'running,stopped', name: 'web-*' }).filters).toEqual([
      { field: 'memoryMib', operator: 'gt', values: [512] }, { field: 'status', operator: 'in', values: ['running', 'stopped'] }, { field: 'name', operator: 'like', values: ['web-*'] },
    ]);
  });
  it('takes a field more than once', () => { expect(queryOf({ tag: ['a', 'b'] }).filters).toHaveLength(2); });
  it('takes times with any offset, as UTC', () => { expect(queryOf({ createdAfter: '2026-01-31T12:00:00+02:00' }).filters).toEqual([{ field: 'createdAt', operator: 'gt', values: ['2026-01-31T10:00:00.000Z'] }]); });
  it('splits words', () => { expect(queryOf({ q: '  Web  SHOP ' }).words).toEqual(['web', 'shop']); });

  it.each<[RawQuery, string[]]>([
    [{ colour: 'red' }, ['query.colour unknown']],
    [{ constructor: 'x', toString: 'y' }, ['query.constructor unknown', 'query.toString unknown']],
    [{ 'status[like]': 'r*' }, ['query.status[like] unknown_operator']],
    [{ 'status[gt]': 'running' }, ['query.status[gt] unknown_operator']],
    [{ status: 'gone' }, ['query.status invalid']],
    [{ memoryMib: '1.5', vcpus: '-1' }, ['query.memoryMib invalid', 'query.vcpus invalid']],
    [{ createdAfter: 'yesterday' }, ['query.createdAfter invalid']],
    [{ sort: 'size,name,-name' }, ['query.sort unknown', 'query.sort repeated']],
    [{ limit: '0' }, ['query.limit out_of_range']],
    [{ limit: '1001' }, ['query.limit out_of_range']],
    [{ limit: '1e2' }, ['query.limit out_of_range']],
    [{ limit: ['1', '2'] }, ['query.limit repeated']],
    [{ count: 'yes' }, ['query.count invalid']],
    [{ format: 'xml' }, ['query.format invalid']],
    [{ name: 'a\u0000b' }, ['query.name invalid']],
    [{ 'name[in]': Array.from({ length: 101 }, () => 'a').join(',') }, ['query.name[in] too_many']],
    [{ q: 'a b c d e f g h i j k' }, ['query.q too_many']],
  ])('%j is refused', (raw, expected) => { expect(errorsOf(raw)).toEqual(expected); });
});

describe('a cursor', () => {
  const sort = [{ field: 'memoryMib', descending: true }, { field: 'name', descending: false }] as const;
  const cursor = encodeCursor({ values: [512, 'a'], id: 'vm_1' }, sort, plain);
  it('goes on behind its row', () => { expect(queryOf({ sort: '-memoryMib,name', cursor }).after).toEqual({ values: [512, 'a'], id: 'vm_1' }); });
  it.each(['memoryMib,name', '-memoryMib', 'name'])('means nothing in a list sorted by %s', (other) => { expect(errorsOf({ sort: other, cursor })).toEqual(['query.cursor invalid']); });
  it.each(['', '{}', 'null', cursor.replace('512', '"x"'), cursor.slice(1)])('%s is none', (text) => { expect(errorsOf({ sort: '-memoryMib,name', cursor: text })).toEqual(['query.cursor invalid']); });
});
