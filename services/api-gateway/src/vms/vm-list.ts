/*
 * What a list of VMs may be asked: `?status=running&memoryMib[gt]=512&sort=-createdAt,name&limit=50`.
 *
 * The question is parsed here into plain data, and vms.store.ts turns it into SQL. A cursor holds the values
 * of the sort fields of the last row and its id; the next page begins behind that row. So pages neither
 * repeat nor skip a VM while others are created or deleted. It is opaque to callers and bound to the sort
 * that made it.
 */
import { z } from 'zod';
import type { BadField } from '../problem.ts';

export const operators = ['eq', 'ne', 'gt', 'lt', 'in', 'notin', 'like'] as const;
export type Operator = (typeof operators)[number];

type Kind = 'text' | 'state' | 'number' | 'time' | 'reference' | 'address' | 'tag';

const operatorsOf: Readonly<Record<Kind, readonly Operator[]>> = {
  text: ['eq', 'ne', 'gt', 'lt', 'in', 'notin', 'like'],
  address: ['eq', 'ne', 'in', 'notin', 'like'],
  tag: ['eq', 'ne', 'in', 'notin', 'like'],
  state: ['eq', 'ne', 'in', 'notin'],
  reference: ['eq', 'ne', 'in', 'notin'],
  number: ['eq', 'ne', 'gt', 'lt', 'in', 'notin'],
  time: ['eq', 'ne', 'gt', 'lt'],
};

/** Every field that can be filtered by, and what it is. References take an id or a name. */
export const filterFields = {
  id: 'text', name: 'text', status: 'state', desired: 'state', observed: 'state', tag: 'tag', node: 'reference', image: 'reference', network: 'reference',
  ip: 'address', bootRuns: 'state', vcpus: 'number', memoryMib: 'number', diskGib: 'number', createdAt: 'time',
} as const satisfies Record<string, Kind>;
export type FilterField = keyof typeof filterFields;

export const sortFields = ['name', 'createdAt', 'memoryMib', 'vcpus', 'status'] as const;
export type SortField = (typeof sortFields)[number];

export interface Filter {
  readonly field: FilterField;
  readonly operator: Operator;
  readonly values: readonly (string | number)[];
}

export interface Sort {
  readonly field: SortField;
  readonly descending: boolean;
}

export type ListFormat = 'json' | 'csv' | 'ndjson';

export interface VmListQuery {
  readonly filters: readonly Filter[];
  /** Each word must stand somewhere in name, description, tags or address. Lower case. */
  readonly words: readonly string[];
  readonly sort: readonly Sort[];
  readonly limit: number;
  readonly after: Cursor | undefined;
  readonly count: boolean;
  readonly format: ListFormat | undefined;
}

export interface Cursor {
  readonly values: readonly (string | number)[];
  readonly id: string;
}

export const LIMIT_MAX = 1_000;
export const LIMIT_DEFAULT = 100;
const WORDS_MAX = 10;
const VALUES_MAX = 100;

const states: Readonly<Record<'status' | 'desired' | 'observed' | 'bootRuns', readonly string[]>> = {
  status: ['requested', 'provisioning', 'running', 'stopped', 'paused', 'saved', 'deleting', 'failed', 'unknown'],
  desired: ['running', 'stopped', 'paused', 'saved', 'deleted'],
  observed: ['running', 'paused', 'stopped', 'saved', 'crashed', 'absent'],
  bootRuns: ['pending', 'none'],
};

/** Shorthands: another field and operator. */
const shorthands: Readonly<Record<string, { readonly field: FilterField; readonly operator: Operator }>> = {
  createdAfter: { field: 'createdAt', operator: 'gt' },
  createdBefore: { field: 'createdAt', operator: 'lt' },
};

const notFilters = new Set(['q', 'sort', 'limit', 'cursor', 'count', 'format']);

export type RawQuery = Readonly<Record<string, string | readonly string[] | undefined>>;

export interface Codec {
  encode(text: string): string;
  decode(text: string): string;
}

export const parseVmList = (raw: RawQuery, codec: Codec): { readonly query: VmListQuery } | { readonly errors: readonly BadField[] } => {
  const errors: BadField[] = [];
  const bad = (key: string, code: string, message: string): void => { errors.push({ path: `query.${key}`, code, message }); };
  const single = (key: string): string | undefined => {
    const value = raw[key];
    if (Array.isArray(value)) bad(key, 'repeated', 'may be given once');
    return typeof value === 'string' ? value : undefined;
  };

  const filters: Filter[] = [];
  for (const [key, given] of Object.entries(raw)) {
    if (notFilters.has(key) || given === undefined) continue;
    const parts = /^([a-zA-Z]+)(?:\[([a-z]+)\])?$/.exec(key);
    const short = shorthands[key];
    const field = (short?.field ?? parts?.[1] ?? '') as FilterField;
    const kind = Object.hasOwn(filterFields, field) ? filterFields[field] : undefined;
    if (kind === undefined) {
      bad(key, 'unknown', `is not a filter; there are ${Object.keys(filterFields).join(', ')}, createdAfter, createdBefore, q, and sort, limit, cursor, count, format`);
      continue;
    }
    for (const text of typeof given === 'string' ? [given] : given) {
      const named = short?.operator ?? parts?.[2];
      const operator = named ?? ((kind === 'text' || kind === 'address' || kind === 'tag') && text.includes('*') ? 'like' : 'eq');
      if (!(operatorsOf[kind] as readonly string[]).includes(operator)) {
        bad(key, 'unknown_operator', `takes ${operatorsOf[kind].join(', ')}`);
        continue;
      }
      const texts = operator === 'in' || operator === 'notin' ? text.split(',') : [text];
      if (texts.length > VALUES_MAX) bad(key, 'too_many', `takes at most ${String(VALUES_MAX)} values`);
      const values = texts.slice(0, VALUES_MAX).flatMap((value) => {
        const parsed = valueOf(field, kind, value);
        if (typeof parsed === 'object') bad(key, 'invalid', parsed.message);
        return typeof parsed === 'object' ? [] : [parsed];
      });
      filters.push({ field, operator: operator as Operator, values });
    }
  }

  const words = (single('q') ?? '').toLowerCase().split(/\s+/).filter((found) => found !== '');
  if (words.length > WORDS_MAX) bad('q', 'too_many', `takes at most ${String(WORDS_MAX)} words`);
  if (words.some((found) => found.length > 100)) bad('q', 'too_long', 'takes words of at most 100 characters');

  const sort: Sort[] = [];
  for (const named of (single('sort') ?? 'createdAt').split(',')) {
    const field = named.replace(/^-/, '') as SortField;
    if (!sortFields.includes(field)) bad('sort', 'unknown', `takes ${sortFields.join(', ')}, each with a minus before it for falling order`);
    else if (sort.some((one) => one.field === field)) bad('sort', 'repeated', `names ${field} twice`);
    else sort.push({ field, descending: named.startsWith('-') });
  }

  const limit = limitOf(single('limit'));
  if (limit === undefined) bad('limit', 'out_of_range', `must be a whole number from 1 to ${String(LIMIT_MAX)}`);
  const count = single('count') ?? 'false';
  if (count !== 'true' && count !== 'false') bad('count', 'invalid', 'must be true or false');
  const format = single('format');
  if (format !== undefined && !['json', 'csv', 'ndjson'].includes(format)) bad('format', 'invalid', 'must be json, csv or ndjson');

  const cursor = single('cursor');
  const after = cursor === undefined ? undefined : cursorOf(cursor, sort, codec);
  if (cursor !== undefined && after === undefined) bad('cursor', 'invalid', 'is not a cursor of a list with this sort: begin without one');

  if (errors.length > 0) return { errors };
  return { query: { filters, words, sort, limit: limit ?? LIMIT_DEFAULT, after, count: count === 'true', format: format as ListFormat | undefined } };
};

export const limitOf = (text: string | undefined): number | undefined => {
  if (text === undefined) return LIMIT_DEFAULT;
  const limit = /^\d{1,4}$/.test(text) ? Number(text) : 0;
  return limit >= 1 && limit <= LIMIT_MAX ? limit : undefined;
};

const valueOf = (field: FilterField, kind: Kind, text: string): string | number | { readonly message: string } => {
  if (text.length > 1_000 || text.includes('\u0000') || !text.isWellFormed()) return { message: 'is too long or holds characters that no name has' };
  switch (kind) {
    case 'number':
      return /^\d{1,9}$/.test(text) ? Number(text) : { message: 'must be a whole number' };
    case 'state': {
      const allowed = states[field as keyof typeof states];
      return allowed.includes(text) ? text : { message: `must be one of ${allowed.join(', ')}` };
    }
    case 'time': {
      const at = z.iso.datetime({ offset: true }).safeParse(text);
      return at.success ? new Date(text).toISOString() : { message: 'must be a time such as 2026-01-31T12:00:00Z' };
    }
    case 'text':
    case 'reference':
    case 'address':
    case 'tag':
      return text === '' ? { message: 'must not be empty' } : text;
  }
};

const CursorShape = z.strictObject({ s: z.string().max(200), v: z.array(z.union([z.string().max(100), z.number()])).max(sortFields.length), id: z.string().max(100) });

const signature = (sort: readonly Sort[]): string => sort.map(({ field, descending }) => (descending ? `-${field}` : field)).join(',');

export const encodeCursor = (cursor: Cursor, sort: readonly Sort[], codec: Codec): string => codec.encode(JSON.stringify({ s: signature(sort), v: cursor.values, id: cursor.id }));

const cursorOf = (text: string, sort: readonly Sort[], codec: Codec): Cursor | undefined => {
  if (text.length > 1_000) return undefined;
  try {
    const { s, v, id } = CursorShape.parse(JSON.parse(codec.decode(text)));
    const fits = s === signature(sort) && v.length === sort.length && sort.every(({ field }, index) => typeof v[index] === (field === 'memoryMib' || field === 'vcpus' ? 'number' : 'string'));
    return fits ? { values: v, id } : undefined;
  } catch {
    return undefined;
  }
};
