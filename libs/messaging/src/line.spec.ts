import { setTimeout as pause } from 'node:timers/promises';
import { buffer } from 'node:stream/consumers';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { decodeFrame, encodeFrame, Line, WINDOW_BYTES, type Frame, type LineCut } from './line.ts';

type Fate = 'arrives' | 'lost';

/** Two ends and a bus between them that keeps the order and may lose what it is told to lose. */
function pair(fate: (message: Buffer, to: 'opener' | 'answerer') => Fate = () => 'arrives'): { readonly opener: Line; readonly answerer: Line; readonly said: Frame[] } {
  const said: Frame[] = [];
  const towards = (to: 'opener' | 'answerer') => (message: Buffer): void => {
    const frame = decodeFrame(message);
    if (frame !== undefined) said.push(frame);
    if (fate(message, to) === 'arrives') queueMicrotask(() => { (to === 'opener' ? opener : answerer).receive(message); });
  };
  const opener: Line = new Line({ role: 'opener', send: towards('answerer') });
  const answerer: Line = new Line({ role: 'answerer', send: towards('opener') });
  return { opener, answerer, said };
}

const over = (line: Line): Promise<string> => new Promise((resolve) => line.once('close', () => { resolve((line.errored as LineCut | null)?.code ?? 'ended'); }));
const bytesOf = (length: number, seed = 7): Buffer => Buffer.from(Array.from({ length }, (_, index) => (index * seed + (index >> 8)) & 0xff));

describe('a frame', () => {
  it('is read as it was written', () => {
    const frames: readonly Frame[] = [
      { kind: 'open', what: { vmId: 'vm_1' } }, { kind: 'data', at: 2 ** 40, bytes: Buffer.from([0, 1, 255]) },
      { kind: 'beat', sent: 12, consumed: 2 ** 52 }, { kind: 'end', sent: 0 }, { kind: 'cut', code: 'console.in_use', because: { by: 'x' } }, { kind: 'cut', code: 'line.lost' },
    ];
    for (const frame of frames) expect(decodeFrame(encodeFrame(frame))).toEqual(frame);
  });
  it('that is none is told so, whatever it holds', () => {
    fc.assert(fc.property(fc.uint8Array({ maxLength: 40 }), (bytes) => {
      const frame = decodeFrame(bytes);
      if (frame !== undefined && frame.kind !== 'open' && frame.kind !== 'cut') expect(encodeFrame(frame)).toEqual(Buffer.from(bytes));
    }));
    expect(decodeFrame(encodeFrame({ kind: 'cut', code: 'no code at all' }))).toBeUndefined();
    expect(decodeFrame(Buffer.alloc(17, 0xff).fill(3, 0, 1))).toBeUndefined();
  });
});

describe('a line', () => {
  it('carries bytes both ways, in order and whole, and ends when both have', async () => {
    const { opener, answerer } = pair();
    answerer.accept();
    await opener.opened;
    const there = bytesOf(3 * WINDOW_BYTES + 17);
    const back = bytesOf(WINDOW_BYTES + 3, 11);
    const ends = Promise.all([over(opener), over(answerer)]);
    const read = Promise.all([buffer(opener), buffer(answerer)]);
    opener.end(there);
    answerer.end(back);
    const [got, gotThere] = await read;
    expect(gotThere.equals(there)).toBe(true);
    expect(got.equals(back)).toBe(true);
    expect(await ends).toEqual(['ended', 'ended']);
    expect(opener.bytesSent).toBe(there.length);
    expect(answerer.bytesReceived).toBe(there.length);
  });

  it('carries whatever pieces are written, whole', async () => {
    await fc.assert(fc.asyncProperty(fc.array(fc.integer({ min: 0, max: 70_000 }), { maxLength: 8 }), async (sizes) => {
      const { opener, answerer } = pair();
      answerer.accept();
      await opener.opened;
      const read = buffer(answerer);
      const pieces = sizes.map((size, index) => bytesOf(size, index + 3));
      for (const piece of pieces) opener.write(piece);
      opener.end();
      opener.resume();
      expect((await read).equals(Buffer.concat(pieces))).toBe(true);
    }), { numRuns: 25 });
  });

  it('lets a sender be ahead of the reader by a window and no more', async () => {
    const { opener, answerer } = pair();
    answerer.accept();
    await opener.opened;
    opener.write(bytesOf(4 * WINDOW_BYTES));
    await pause(20);
    // Nobody has read there: what is ahead is a window, and what the stream itself took to have it ready.
    expect(opener.bytesSent).toBe(answerer.bytesReceived);
    expect(opener.bytesSent).toBeLessThanOrEqual(WINDOW_BYTES + 2 * 32_768);
    expect(opener.bytesSent).toBeGreaterThanOrEqual(WINDOW_BYTES);
    answerer.resume();
    await vi.waitFor(() => { expect(answerer.bytesReceived).toBe(4 * WINDOW_BYTES); });
    opener.destroy();
  });

  it('is refused with the answerer\'s reason', async () => {
    const { opener, answerer } = pair();
    answerer.cut('console.in_use', { says: 'somebody has it' });
    await expect(opener.opened).rejects.toMatchObject({ code: 'console.in_use', because: { says: 'somebody has it' } });
    expect(opener.destroyed).toBe(true);
  });

  it('that is given up is over at the other end too, with the reason', async () => {
    const { opener, answerer } = pair();
    answerer.accept();
    await opener.opened;
    const ends = over(answerer);
    opener.cut('console.idle');
    expect(await ends).toBe('console.idle');
  });

  it('is cut by whoever sends more than it may', async () => {
    const { opener, answerer } = pair();
    answerer.accept();
    await opener.opened;
    const ends = over(answerer);
    for (let at = 0; at <= WINDOW_BYTES + 65_536 && !answerer.destroyed; at += 32_768) answerer.receive(encodeFrame({ kind: 'data', at, bytes: Buffer.alloc(32_768) }));
    expect(await ends).toBe('line.broken');
  });

  it('is cut when the other end says that more was read than was sent', async () => {
    const { opener, answerer } = pair();
    answerer.accept();
    await opener.opened;
    const ends = over(opener);
    opener.receive(encodeFrame({ kind: 'beat', sent: 0, consumed: 1 }));
    expect(await ends).toBe('line.broken');
  });
});

describe('a line, as time passes', () => {
  beforeEach(() => { vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] }); });
  afterEach(() => { vi.useRealTimers(); });
  const seconds = async (count: number): Promise<void> => {
    for (let second = 0; second < count; second++) {
      await vi.advanceTimersByTimeAsync(1_000);
      await pause(0);
    }
  };
  const opened = async (fate?: Parameters<typeof pair>[0]): Promise<ReturnType<typeof pair>> => {
    const both = pair(fate);
    both.answerer.accept();
    await both.opener.opened;
    return both;
  };

  it('stays while both live, though nothing is said', async () => {
    const { opener, answerer } = await opened();
    await seconds(120);
    expect([opener.destroyed, answerer.destroyed]).toEqual([false, false]);
    opener.destroy();
  });

  it('is over within seconds at either end when the other is gone', async () => {
    for (const gone of ['opener', 'answerer'] as const) {
      let dead = false;
      const both = await opened((_message, to) => (dead && to !== gone ? 'lost' : 'arrives'));
      const left = both[gone === 'opener' ? 'answerer' : 'opener'];
      const ends = over(left);
      dead = true;
      await seconds(7);
      expect(await ends).toBe('line.silent');
      both[gone].destroy();
    }
  });

  it('is cut within a beat when the bus lost a piece, the last one too', async () => {
    for (const [lost, writes] of [[0, 3], [2, 3], [0, 1]] as const) {
      let data = 0;
      const { opener, answerer } = await opened((message) => (decodeFrame(message)?.kind === 'data' && data++ === lost ? 'lost' : 'arrives'));
      const ends = Promise.all([over(opener), over(answerer)]);
      answerer.resume();
      for (let write = 0; write < writes; write++) opener.write(bytesOf(10));
      await seconds(2);
      expect(await ends).toEqual(['line.lost', 'line.lost']);
    }
  });

  it('whose reader sleeps while something waits is cut after half a minute', async () => {
    const { opener, answerer } = await opened();
    const ends = over(opener);
    opener.write(bytesOf(4 * WINDOW_BYTES));
    await seconds(25);
    expect(opener.destroyed).toBe(false);
    await seconds(10);
    expect(await ends).toBe('line.stalled');
    expect(answerer.destroyed).toBe(true);
  });

  it('that ended at one side is read to its last byte, late too', async () => {
    const { opener, answerer } = await opened();
    answerer.end(bytesOf(100_000));
    await seconds(60);
    expect((await buffer(opener)).equals(bytesOf(100_000))).toBe(true);
    await vi.waitFor(() => { expect([opener.closed, answerer.closed]).toEqual([true, true]); });
    expect([opener.errored, answerer.errored]).toEqual([null, null]);
  });

  it('that has ended both ways is read in full, though the other end is gone and says so', async () => {
    const { opener, answerer } = await opened();
    answerer.end(bytesOf(200_000));
    answerer.resume();
    opener.end();
    await vi.waitFor(() => { expect(answerer.closed).toBe(true); });
    opener.receive(encodeFrame({ kind: 'cut', code: 'line.unknown' }));
    expect((await buffer(opener)).equals(bytesOf(200_000))).toBe(true);
  });

  it('whose end is never read does not stay for ever', async () => {
    const { opener, answerer } = await opened();
    answerer.end(bytesOf(100));
    opener.end();
    await seconds(40);
    expect([opener.destroyed, answerer.closed]).toEqual([true, true]);
  });
});
