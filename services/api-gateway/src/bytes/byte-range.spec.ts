import { describe, expect, it } from 'vitest';
import { rangeOf } from './byte-range.ts';

describe('A range of ten bytes', () => {
  it.each([
    ['bytes=0-0', { from: 0, to: 0 }], ['bytes=2-', { from: 2, to: 9 }], ['bytes=2-100', { from: 2, to: 9 }], ['bytes=-3', { from: 7, to: 9 }], ['bytes=-30', { from: 0, to: 9 }],
    ['bytes=10-', 'unsatisfiable'], ['bytes=-0', 'unsatisfiable'],
    [undefined, undefined], ['bytes=-', undefined], ['bytes=5-2', undefined], ['bytes=0-1,3-4', undefined], ['lines=1-2', undefined], ['bytes=1e1-', undefined],
  ])('%s', (header, range) => { expect(rangeOf(header, 10)).toEqual(range); });
});
