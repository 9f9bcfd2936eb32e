/*
 * Reads of real sockets: what is kept stays as it was, whatever is read afterwards, and by whom.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { createConnection, createServer } from 'node:net';
import type { Server, Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { SocketReads } from './transport-reads.ts';

let folder: string;
let server: Server;
const accepted: Socket[] = [];
const made: Socket[] = [];

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'cvrd-'));
  server = createServer((socket) => accepted.push(socket));
  await new Promise<void>((resolve) => server.listen(join(folder, 'sock'), resolve));
});

afterEach(async () => {
  for (const socket of [...accepted.splice(0), ...made.splice(0)]) socket.destroy();
  await new Promise((resolve) => server.close(resolve));
  await rm(folder, { recursive: true, force: true });
});

async function connected(): Promise<{ readonly reads: SocketReads; readonly near: Socket; readonly far: Socket }> {
  const reads = new SocketReads();
  const count = accepted.length;
  const near = createConnection({ path: join(folder, 'sock'), onread: reads.onread });
  made.push(near);
  await vi.waitFor(() => expect(accepted.length).toBe(count + 1), { interval: 1 });
  return { reads, near, far: accepted[count] as Socket };
}

/** Bytes of which each says where it is. */
const pattern = (bytes: number, seed: number): Buffer => Buffer.from(Uint32Array.from({ length: bytes / 4 }, (_, index) => Math.imul(index + 1, 2_654_435_761) + seed).buffer);

describe('what is read from a socket', () => {
  it('comes whole and in order, also over many reads', async () => {
    const { reads, far } = await connected();
    const data = pattern(4_000_000, 1);
    const seen: Buffer[] = [];
    let bytes = 0;
    reads.onChunk = (chunk) => {
      seen.push(Buffer.from(chunk));
      bytes += chunk.length;
    };
    far.write(data);
    await vi.waitFor(() => expect(bytes).toBe(data.length), { interval: 1 });
    expect(Buffer.concat(seen).equals(data)).toBe(true);
  });

  it('and kept is not written over, by this connection or another', async () => {
    const all = [await connected(), await connected(), await connected()];
    const data = all.map((_, index) => pattern(4_000_000, index));
    const kept = all.map(({ reads }) => {
      const pieces: Buffer[] = [];
      let count = 0;
      reads.onChunk = (chunk) => {
        count += 1;
        // Some of it small, some of it large, and now and then nothing of it.
        if (count % 7 === 0) return void pieces.push(Buffer.from(chunk));
        for (let at = 0; at < chunk.length; ) {
          const end = at + (count % 2 === 0 ? 50_000 : 500);
          pieces.push(reads.kept(chunk.subarray(at, end)));
          at = end;
        }
        if (count % 11 === 0) reads.rest();
      };
      return pieces;
    });
    for (const [index, { far }] of all.entries()) far.write(data[index] as Buffer);
    const bytesOf = (pieces: readonly Buffer[]) => pieces.reduce((sum, piece) => sum + piece.length, 0);
    await vi.waitFor(() => expect(kept.map(bytesOf)).toEqual(data.map((one) => one.length)), { interval: 1, timeout: 5_000 });
    for (const [index, pieces] of kept.entries()) expect(Buffer.concat(pieces).equals(data[index] as Buffer)).toBe(true);
    // Small ones do not hold a large buffer; large ones are no copies.
    const sizes = kept.flat().map((piece) => ({ bytes: piece.length, held: piece.buffer.byteLength }));
    expect(Math.max(...sizes.filter(({ bytes }) => bytes <= 500).map(({ held }) => held))).toBeLessThanOrEqual(Buffer.poolSize);
    expect(sizes.some(({ bytes, held }) => bytes === 50_000 && held > 4 * bytes)).toBe(true);
  });
});
