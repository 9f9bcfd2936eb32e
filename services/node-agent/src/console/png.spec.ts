import { inflateSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { isPng, pngOf } from './png.os.ts';

const ppm = (header: string, ...pixels: readonly number[]): Buffer => Buffer.concat([Buffer.from(header, 'latin1'), Buffer.from(pixels)]);

/** Type and data of each chunk, in order. */
function chunksOf(png: Buffer): readonly (readonly [string, Buffer])[] {
  const found: (readonly [string, Buffer])[] = [];
  for (let at = 8; at < png.length; at += 12 + png.readUInt32BE(at)) found.push([png.toString('latin1', at + 4, at + 8), png.subarray(at + 8, at + 8 + png.readUInt32BE(at))]);
  return found;
}

describe('a picture', () => {
  it('keeps its size and every pixel', async () => {
    const png = await pngOf(ppm('P6\n2 2\n255\n', 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12));
    expect(isPng(png)).toBe(true);
    const [header, data, end] = chunksOf(png);
    expect(header?.[1].readUInt32BE(0)).toBe(2);
    expect([...(header?.[1].subarray(4) ?? [])]).toEqual([0, 0, 0, 2, 8, 2, 0, 0, 0]);
    expect([...inflateSync(data?.[1] ?? '')]).toEqual([0, 1, 2, 3, 4, 5, 6, 0, 7, 8, 9, 10, 11, 12]);
    expect(end?.[0]).toBe('IEND');
    // As every PNG ends: the checksum of an empty IEND.
    expect(png.subarray(-4).toString('hex')).toBe('ae426082');
  });
  it('may carry comments, and first pixels that look like white space', async () => {
    const png = await pngOf(ppm('P6 # made by a machine\n1 # wide\n1\n255\n', 10, 32, 9));
    expect([...inflateSync(chunksOf(png)[1]?.[1] ?? '')]).toEqual([0, 10, 32, 9]);
  });
  it('that is none, or not whole, is refused', async () => {
    for (const wrong of [ppm('P5\n1 1\n255\n', 1), ppm('P6\n0 1\n255\n'), ppm('P6\n2 2\n255\n', 1, 2, 3), ppm('P6\n99999 99999\n255\n'), ppm('P6\n1 1\n65535\n', 1, 2, 3, 4, 5, 6), Buffer.alloc(0)]) {
      await expect(pngOf(wrong)).rejects.toThrow(RangeError);
    }
  });
});
