import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { domain, domainStateAndReason, uuid } from './layouts.ts';
import { typedParameters } from './typed-parameters.ts';
import { array, bytes, charArrayText, flags, hidden, i32, i64, named, only, optional, Reader, string, struct, u32, u64, u64Number, Writer, XdrError } from './xdr.ts';
import type { Codec } from './xdr.ts';

const writer = new Writer(33_554_436);

function written<In>(codec: Codec<unknown, In>, value: In): Buffer {
  writer.reset();
  codec.write(writer, value);
  return writer.take();
}

function read<Out>(codec: Codec<Out, never>, packet: Buffer): Out {
  const reader = new Reader(packet);
  const value = codec.read(reader);
  reader.end();
  return value;
}

const everything = struct({
  signed: i32,
  unsigned: u32,
  text: string(),
  maybe: optional(string()),
  wide: u64,
  wideSigned: i64,
  raw: bytes(1_000),
  list: array(struct({ id: uuid, choice: named({ a: 0, b: 7 }) }), 100),
  bits: flags({ one: 1, two: 2, top: 0x8000_0000 }),
});

const anything = fc.record({
  signed: fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 }),
  unsigned: fc.integer({ min: 0, max: 2 ** 32 - 1 }),
  text: fc.string({ unit: 'binary' }),
  maybe: fc.option(fc.string({ unit: 'grapheme' })),
  wide: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
  wideSigned: fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }),
  raw: fc.uint8Array({ maxLength: 100 }).map((value) => Buffer.from(value)),
  list: fc.array(fc.record({ id: fc.uuid(), choice: fc.constantFrom('a' as const, 'b' as const) }), { maxLength: 10 }),
  bits: fc.subarray(['one', 'two', 'top'] as const),
});

describe('a value', () => {
  it('is read as it was written, in whole words', () =>
    fc.assert(
      fc.property(anything, (value) => {
        const packet = written(everything, value);
        expect(packet.length % 4).toBe(0);
        expect(read(everything, packet)).toEqual(value);
      }),
    ));

  it('is written big-endian and padded, as RFC 4506 has it', () => {
    expect(written(struct({ a: i32, b: string() }), { a: -2, b: 'hello' }).toString('hex')).toBe('fffffffe' + '00000005' + '68656c6c6f000000');
  });

  it('of typed parameters becomes an object with bigint for the 64-bit kinds', () => {
    const codec = typedParameters(10);
    const packet = written(codec, { a: { i32: -1 }, b: { u32: 2 }, c: { i64: -3n }, d: { u64: 2n ** 64n - 1n }, e: { f64: 0.5 }, f: { bool: true }, g: { string: 'x' }, __proto__x: { i32: 1 } });
    expect({ ...read(codec, packet) }).toEqual({ a: -1, b: 2, c: -3n, d: 2n ** 64n - 1n, e: 0.5, f: true, g: 'x', __proto__x: 1 });
  });

  it('takes a handle that is only a UUID', () => {
    const id = '6695eb01-f6a4-8304-79aa-97f2502e193f';
    expect(read(domain, written(domain, { uuid: id.toUpperCase() }))).toEqual({ name: id.toUpperCase(), uuid: id, id: -1 });
  });

  it('gives text of a char array up to its zero', () => {
    const codec = charArrayText(32);
    const packet = written(codec, 'i686');
    expect(packet.length).toBe(128);
    expect(read(codec, packet)).toBe('i686');
  });

  it('beyond 2^53 is rounded where a number was promised', () => {
    expect(read(u64Number, written(u64, 2n ** 64n - 1n))).toBe(2 ** 64);
    expect(read(u64Number, written(u64, 2n ** 53n - 1n))).toBe(2 ** 53 - 1);
  });

  it('without a name in this version is unknown', () => {
    expect(read(named({ a: 1 }), written(i32, 99))).toBe('unknown');
    expect(read(domainStateAndReason, written(struct({ a: i32, b: i32 }), { a: 1, b: 99 }))).toEqual({ state: 'running', reason: 'unknown' });
  });

  it('of flags is read without the bits that have no name, and says which they were in the last word', () => {
    const codec = struct({ before: flags({ a: 1 }), last: flags({ b: 2, top: 0x8000_0000 }, 4) });
    const packet = written(struct({ before: u32, last: u32 }), { before: 0xffff_ffff, last: 0xc000_000e });
    const reader = new Reader(packet);
    expect(codec.read(reader)).toEqual({ before: ['a'], last: ['b', 'top'] });
    expect(reader.unknownFlags).toBe(0x4000_0008);
    const known = new Reader(written(codec, { before: [], last: ['top'] }));
    codec.read(known);
    expect(known.unknownFlags).toBe(0);
  });

  it('that only the wire has follows from its siblings', () => {
    const codec = only('things', { things: array(i32, 9), count: hidden(u32, (parent) => (parent['things'] as unknown[]).length) });
    expect(written(codec, [5, 6]).toString('hex')).toBe('00000002' + '00000005' + '00000006' + '00000002');
    expect(read(codec, written(codec, [5, 6]))).toEqual([5, 6]);
  });
});

describe('what does not fit', () => {
  it.each([
    ['a number with a fraction', () => written(i32, 0.5)],
    ['too large an unsigned number', () => written(u32, 2 ** 32)],
    ['a negative unsigned number', () => written(u64, -1n)],
    ['a UUID that is none', () => written(uuid, 'web-1')],
    ['a flag that is none', () => written(flags({ a: 1 }), ['b' as 'a'])],
    ['too long a string', () => written(string(4), 'hello')],
    ['too long an array', () => written(array(i32, 1), [1, 2])],
  ])('%s is refused before it is sent', (_what, write) => expect(write).toThrow(XdrError));

  const words = (...values: readonly number[]) => Buffer.concat(values.map((value) => written(u32, value)));

  it.each([
    ['a string longer than its packet', string(), words(4_000_000, 0)],
    ['a string longer than any', string(), words(0xffff_ffff)],
    ['an array whose count cannot fit', array(struct({ a: u64, b: u64 }), 1_000_000), words(500_000, 0, 0, 0, 0)],
    ['a pointer of 2', optional(u32), words(2, 0)],
    ['a typed parameter of kind 9', typedParameters(10), Buffer.concat([words(1), written(string(), 'a'), words(9, 0)])],
    ['bytes left over', u32, words(1, 2)],
    ['an empty packet', u32, Buffer.alloc(0)],
  ] as const)('%s is refused when read', (_what, codec, packet) => expect(() => read(codec as Codec<unknown, never>, packet)).toThrow(XdrError));

  it('is found out by its count alone, before the first element is read', () => {
    const packet = Buffer.concat([words(0x00ff_ffff), Buffer.alloc(64)]);
    expect(() => read(array(u64, 0x7fff_ffff), packet)).toThrow(/cannot fit/);
    expect(() => read(typedParameters(0x7fff_ffff), packet)).toThrow(/cannot fit/);
  });
});
