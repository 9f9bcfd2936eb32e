/* A picture of a screen as QEMU gives it (PPM, the binary kind "P6") as a PNG, which browsers show. Source: netpbm's ppm(5); PNG, RFC 2083. */
import { promisify } from 'node:util';
import { deflate } from 'node:zlib';
import { png, PNG_SIGNATURE } from '@chronovirt/libvirt/png';

/** Of a side, in pixels; a larger screen is no screen. */
const SIDE_MAX = 16_384;
/** Each line begins with how it was filtered: not at all. Screens are mostly plain, and a node has better things to do. */
const UNFILTERED = 0;
const QUICK = 3;

export const isPng = (picture: Buffer): boolean => picture.subarray(0, PNG_SIGNATURE.length).equals(PNG_SIGNATURE);

/** Throws a RangeError for what is no such picture. */
export async function pngOf(ppm: Buffer): Promise<Buffer> {
  // "P6", width, height, largest value: apart by white space, comments in between, one white space behind.
  const header = /^P6(?:\s+(?:#[^\n]*\n\s*)*)(\d{1,5})(?:\s+(?:#[^\n]*\n\s*)*)(\d{1,5})(?:\s+(?:#[^\n]*\n\s*)*)255\s/.exec(ppm.subarray(0, 512).toString('latin1'));
  const [width, height] = [Number(header?.[1]), Number(header?.[2])];
  if (header === null || !(width >= 1 && width <= SIDE_MAX && height >= 1 && height <= SIDE_MAX)) throw new RangeError('not a PPM of 8 bits a colour');
  const pixels = ppm.subarray(header[0].length);
  const row = width * 3;
  if (pixels.length < row * height) throw new RangeError(`a PPM of ${String(width)} × ${String(height)} pixels has ${String(row * height)} bytes of them, and this one ${String(pixels.length)}`);
  const lines = Buffer.alloc((row + 1) * height, UNFILTERED);
  for (let y = 0; y < height; y++) pixels.copy(lines, y * (row + 1) + 1, y * row, (y + 1) * row);
  return png(width, height, await promisify<Buffer, { level: number }, Buffer>(deflate)(lines, { level: QUICK }));
}
