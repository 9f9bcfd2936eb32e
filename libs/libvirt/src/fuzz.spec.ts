/*
 * What a peer may send, seeded. 50,000 packets here; with the environment's CV_FUZZ_PACKETS=1000000 as
 * many as that, and with CV_FUZZ_SEED others.
 */
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { decoders, drawFrom, fuzz, mutated } from './testing-fuzz.ts';
import { PacketSplitter } from './rpc.ts';
import { known } from './typed-parameters.ts';
import { Reader, Writer, XdrError } from './xdr.ts';
import { heldBytes } from './testing-heap.ts';

const packets = Number(process.env['CV_FUZZ_PACKETS'] ?? 50_000);
const seed = Number(process.env['CV_FUZZ_SEED'] ?? 20_261_121);


/** Names that decoders look for, so that what is behind them is reached: fields of typed parameters. */
const fieldNames = [...readFileSync(new URL('./parameter-fields.ts', import.meta.url), 'utf8').matchAll(/^ +'?([\w.]+)'?: '(?:\w+)',?/gm)].map(([, name]) => name as string);
const texts = ['', 'a', 'web-1', '<domain/>', '__proto__', 'constructor', '\u{1F5A5}', 'x'.repeat(300), 'cpu.time', 'net.0.name', 'block.1.rd.bytes', ...fieldNames];

describe('a peer that sends anything', () => {
  it(
    `is understood or refused, ${packets} times`,
    async () => {
      expect(fieldNames.length).toBeGreaterThan(100);
      const warm = Math.floor(packets / 5);
      let before = 0;
      const result = await fuzz({ seed, packets, texts, onRound: (round) => { if (round === warm) before = heldBytes(); } });
      const grown = heldBytes() - before;
      expect(result.read + result.refused).toBe(packets);
      expect(result.unfed).toEqual([]);
      // Both happen, often: else the packets would be too tame, or too wild.
      expect(result.read).toBeGreaterThan(packets / 4);
      expect(result.refused).toBeGreaterThan(packets / 10);
      expect(result.ended).toBeGreaterThan(packets / 200);
      expect(result.survived).toBeGreaterThan(packets / 200);
      expect(grown).toBeLessThan(16 * 1_048_576);
    },
    600_000,
  );

  it('says no number where a counter is expected, and is refused', () => {
    const codec = known({ bytes: 'u64' }, 16);
    for (const value of [Number.NaN, Number.POSITIVE_INFINITY]) {
      const writer = new Writer(1_000);
      codec.write(writer, { more: { bytes: { f64: value } } });
      expect(() => codec.read(new Reader(writer.take()))).toThrow(XdrError);
    }
  });

  it('feeds every decoder', () => expect(decoders().length).toBeGreaterThan(500));

  it('cannot confuse the splitter with lengths', () => {
    const draw = drawFrom(seed);
    let refused = 0;
    for (let round = 0; round < 5_000; round += 1) {
      const splitter = new PacketSplitter();
      const bytes = mutated(Buffer.from(Array.from({ length: 200 }, (_, index) => (index % 28 === 3 ? 28 : 0))), draw, 0);
      let given = 0;
      try {
        for (let at = 0; at < bytes.length; ) {
          const end = at + 1 + draw(40);
          splitter.push(bytes.subarray(at, end), (packet) => {
            given += packet.length;
            return true;
          });
          at = end;
        }
      } catch (error) {
        if (!(error instanceof XdrError)) throw error;
        refused += 1;
      }
      expect(given).toBeLessThanOrEqual(bytes.length);
    }
    expect(refused).toBeGreaterThan(100);
  });
});
