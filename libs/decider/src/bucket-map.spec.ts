import { describe, expect, it } from 'vitest';
import fc from 'fast-check';
import { BucketMap } from './bucket-map.ts';

const key = fc.oneof(fc.string({ maxLength: 3 }), fc.nat(2_000));
const change = fc.record({ key, value: fc.option(fc.nat(), { nil: undefined }) });

describe('A map in buckets', () => {
  it('holds what a Map holds, and leaves every older map as it was', () => {
    fc.assert(fc.property(fc.array(change, { maxLength: 60 }), (changes) => {
      const real = new Map<string | number, number>();
      let map = BucketMap.empty<string | number, number>();
      const older: [BucketMap<string | number, number>, [string | number, number][]][] = [];
      for (const { key, value } of changes) {
        older.push([map, [...real]]);
        if (value === undefined) {
          real.delete(key);
          map = map.without(key);
        } else {
          real.set(key, value);
          map = map.with(key, value);
        }
      }
      older.push([map, [...real]]);
      for (const [then, entries] of older) {
        expect(then.size).toBe(entries.length);
        expect(new Map(then.entries())).toEqual(new Map(entries));
        for (const { key } of changes) {
          const expected = entries.find(([one]) => one === key);
          expect(then.get(key)).toBe(expected?.[1]);
          expect(then.has(key)).toBe(expected !== undefined);
        }
      }
    }), { numRuns: 100 });
  });
});
