import { createHash } from 'node:crypto';
import canonicalize from 'canonicalize';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { canonical, hashOfEvent, NotCanonical } from './canonical.ts';

describe('the canonical form', () => {
  it('is that of RFC 8785, whatever the value', () => {
    fc.assert(fc.property(fc.jsonValue({ maxDepth: 4, stringUnit: 'binary' }), (value) => {
      expect(canonical(value)).toBe(canonicalize(value));
    }), { numRuns: 1_000 });
  });

  it('is the same however an object was put together', () => {
    fc.assert(fc.property(fc.dictionary(fc.string({ unit: 'binary' }), fc.double({ noNaN: true, noDefaultInfinity: true })), (value) => {
      const backwards = Object.fromEntries(Object.entries(value).reverse());
      expect(canonical(backwards)).toBe(canonical(value));
    }));
  });

  it('sorts by UTF-16 units and writes numbers as the standard does (RFC 8785, 3.2.3)', () => {
    expect(canonical({ '\u20ac': 'Euro Sign', '\r': 'Carriage Return', '\ufb33': 'Hebrew Letter Dalet With Dagesh', '1': 'One', '\ud83d\ude00': 'Emoji: Grinning Face', '\u0080': 'Control', '\u00f6': 'Latin Small Letter O With Diaeresis' }))
      .toBe('{"\\r":"Carriage Return","1":"One","\u0080":"Control","\u00f6":"Latin Small Letter O With Diaeresis","\u20ac":"Euro Sign","\ud83d\ude00":"Emoji: Grinning Face","\ufb33":"Hebrew Letter Dalet With Dagesh"}');
    expect(canonical([333333333.33333329, 1e30, 4.5, 2e-3, 1e-27, -0])).toBe('[333333333.3333333,1e+30,4.5,0.002,1e-27,0]');
  });

  it('leaves out what JSON leaves out', () => {
    expect(canonical({ b: undefined, a: [undefined, 1], c: new Date(0) })).toBe('{"a":[null,1],"c":"1970-01-01T00:00:00.000Z"}');
  });

  it.each<[string, unknown]>([
    ['half a character', { a: ['\ud800'] }], ['half a character in a key', { '\udc00': 1 }], ['NaN', { a: Number.NaN }], ['an infinity', [Number.POSITIVE_INFINITY]], ['a bigint', 1n],
  ])('refuses %s', (_what, value) => {
    expect(() => canonical(value)).toThrow(NotCanonical);
  });

  it('refuses what holds itself', () => {
    const ring: Record<string, unknown> = {};
    ring['ring'] = ring;
    expect(() => canonical(ring)).toThrow(NotCanonical);
  });

  it('makes the hash of an event that anyone can compute', () => {
    const event = { stream: 'vm-vm_1', version: 3, id: '0b7e3a3e-0000-8000-8000-000000000000', type: 'VmPlaced', shape: 1 };
    const data = { generation: 1, nodeId: 'node_ä' };
    const meta = { commandId: 'c', actor: 'user_1' };
    const expected = createHash('sha256').update(canonicalize({ ...event, data, meta }) ?? '').digest('hex');
    expect(hashOfEvent(event, canonical(data), canonical(meta)).toString('hex')).toBe(expected);
  });
});
