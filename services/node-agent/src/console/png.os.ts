/* A picture of a screen as QEMU gives it (PPM, the binary kind "P6") as a PNG, which browsers show. Source: netpbm's ppm(5); PNG, RFC 2083. */
import { crc32, deflate } from 'node:zlib';
import { promisify } from 'node:util';

const SIGNATURE = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);
/** Of a side, in pixels; a larger screen is no screen. */
const SIDE_MAX = 16_384;
/** Bits of each of red, green and blue; colour type 2: no palette, no transparency. */
const DEPTH = 8;
const TRUE_COLOUR = 2;
/** Each line begins with how it was filtered: not at all. Screens are mostly plain, and a node has better things to do. */
const UNFILTERED = 0;
const QUICK = 3;

export const isPng = (picture: Buffer): boolean => picture.subarray(0, SIGNATURE.length).equals(SIGNATURE);

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
  const head = Buffer.alloc(13);
  head.writeUInt32BE(width, 0);
  head.writeUInt32BE(height, 4);
  head.set([DEPTH, TRUE_COLOUR, 0, 0, 0], 8);
  return Buffer.concat([SIGNATURE, chunk('IHDR', head), chunk('IDAT', await promisify<Buffer, { level: number }, Buffer>(deflate)(lines, { level: QUICK })), chunk('IEND', Buffer.alloc(0))]);
}

function chunk(type: string, data: Buffer): Buffer {
  const made = Buffer.alloc(12 + data.length);
  made.writeUInt32BE(data.length, 0);
  made.write(type, 4, 'latin1');
  data.copy(made, 8);
  made.writeUInt32BE(crc32(made.subarray(4, 8 + data.length)), 8 + data.length);
  return made;
}
