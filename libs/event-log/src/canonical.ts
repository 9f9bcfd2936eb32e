/*
 * The bytes of an event, and their hash.
 *
 * RFC 8785 (JSON Canonicalization Scheme): keys sorted by UTF-16 units, numbers and strings as ECMAScript
 * writes them, no space. The same value has the same bytes on every machine, so the hash of an event can be
 * computed before it is appended and checked by a program that never heard of us. The npm package
 * `canonicalize` gives the same output and is the oracle of the tests; this takes a third of its time, and
 * an append waits for it.
 */
import { hash } from 'node:crypto';

const DEPTH_MAX = 200;

/** The value holds something that has no canonical form: half a character, NaN, an infinity, a bigint. */
export class NotCanonical extends Error {
  override readonly name = 'NotCanonical';
}

const ofString = (value: string): string => {
  if (!value.isWellFormed()) throw new NotCanonical('a string holds half a character (a lone surrogate)');
  return JSON.stringify(value);
};

/** Undefined where JSON.stringify would leave the member out. */
const write = (value: unknown, depth: number): string | undefined => {
  switch (typeof value) {
    case 'string':
      return ofString(value);
    case 'number':
      if (!Number.isFinite(value)) throw new NotCanonical('a number is not finite');
      return String(value);
    case 'boolean':
      return value ? 'true' : 'false';
    case 'undefined':
    case 'function':
    case 'symbol':
      return undefined;
    case 'bigint':
      throw new NotCanonical('a bigint has no canonical form');
    case 'object':
      if (value === null) return 'null';
      if (depth > DEPTH_MAX) throw new NotCanonical(`nested deeper than ${DEPTH_MAX}, or within itself`);
      if ('toJSON' in value && typeof value.toJSON === 'function') return write((value.toJSON as () => unknown)(), depth + 1);
      return Array.isArray(value) ? ofArray(value, depth) : ofObject(value as Readonly<Record<string, unknown>>, depth);
  }
};

const ofArray = (values: readonly unknown[], depth: number): string => {
  let written = '';
  for (let index = 0; index < values.length; index++) written += (index === 0 ? '' : ',') + (write(values[index], depth + 1) ?? 'null');
  return `[${written}]`;
};

const ofObject = (value: Readonly<Record<string, unknown>>, depth: number): string => {
  let written = '';
  // The default order of sort() is by UTF-16 units, which is what RFC 8785 asks for.
  for (const key of Object.keys(value).sort()) {
    const member = write(value[key], depth + 1);
    if (member !== undefined) written += `${written === '' ? '' : ','}${ofString(key)}:${member}`;
  }
  return `{${written}}`;
};

/** The RFC 8785 form. Members that are undefined are left out. Throws NotCanonical. */
export const canonical = (value: unknown): string => write(value, 0) ?? 'null';

export interface HashedEvent {
  readonly stream: string;
  readonly version: number;
  readonly id: string;
  readonly type: string;
  readonly shape: number;
}

/** SHA-256 of the RFC 8785 form of {data, id, meta, shape, stream, type, version}; data and meta in canonical form already. */
export const hashOfEvent = ({ stream, version, id, type, shape }: HashedEvent, data: string, meta: string): Buffer =>
  hash('sha256', `{"data":${data},"id":${ofString(id)},"meta":${meta},"shape":${shape},"stream":${ofString(stream)},"type":${ofString(type)},"version":${version}}`, 'buffer');
