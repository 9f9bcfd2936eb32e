import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { EventQueue } from './events.ts';

type Numbered = { readonly kind: 'event'; readonly number: number };
const numbered = (number: number): Numbered => ({ kind: 'event', number });
const closing = () => Promise.resolve();

describe('a queue of events', () => {
  it('hands every event on in order, or a gap that counts it', async () => {
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 1, max: 5 }), fc.array(fc.constantFrom('push', 'push', 'read'), { maxLength: 100 }), async (queuedMax, steps) => {
        const queue = new EventQueue<Numbered>(queuedMax, closing);
        let pushed = 0;
        let expected = 0;
        let waiting = 0;
        const read = async () => {
          const { value } = await queue.next();
          if (value?.kind === 'gap') expected += value.lost ?? 0;
          else expect(value).toEqual(numbered(expected++));
          waiting -= 1;
        };
        const reads: Promise<void>[] = [];
        for (const step of steps) {
          if (step === 'push') queue.push(numbered(pushed++));
          else if (pushed > expected + waiting) {
            waiting += 1;
            reads.push(read());
            await Promise.all(reads.splice(0));
          }
        }
        queue.end(undefined);
        for (let next = await queue.next(); next.done !== true; next = await queue.next()) {
          if (next.value.kind === 'gap') expected += next.value.lost ?? 0;
          else expect(next.value).toEqual(numbered(expected++));
        }
        expect(expected).toBe(pushed);
      }),
    );
  });

  it('holds no more than it was told, and says what it lost in its place', async () => {
    const queue = new EventQueue<Numbered>(2, closing);
    for (let number = 0; number < 1_000; number += 1) queue.push(numbered(number));
    expect((await queue.next()).value).toEqual(numbered(0));
    queue.push(numbered(1_000));
    queue.end(undefined);
    const rest: unknown[] = [];
    for await (const event of queue) rest.push(event);
    expect(rest[0]).toEqual(numbered(1));
    expect(rest[1]).toEqual({ kind: 'gap', because: 'overflow', lost: 999 });
    expect(rest.length).toBe(2);
  });

  it('tells one gap of several reconnections that nobody read of', async () => {
    const queue = new EventQueue<Numbered>(1, closing);
    queue.push(numbered(0));
    queue.reconnected();
    queue.reconnected();
    queue.end(undefined);
    const all: unknown[] = [];
    for await (const event of queue) all.push(event);
    expect(all).toEqual([numbered(0), { kind: 'gap', because: 'reconnected', lost: undefined }]);
  });

  it('wakes a reader that waits, and fails it when the connection is lost', async () => {
    const queue = new EventQueue<Numbered>(1, closing);
    const first = queue.next();
    queue.push(numbered(0));
    expect((await first).value).toEqual(numbered(0));
    const second = queue.next();
    const third = queue.next();
    queue.end(new Error('lost'));
    await expect(second).rejects.toThrow('lost');
    expect(await third).toEqual({ done: true, value: undefined });
  });

  it('gives what waits before the error, and the error once', async () => {
    const queue = new EventQueue<Numbered>(5, closing);
    queue.push(numbered(0));
    queue.end(new Error('lost'));
    expect((await queue.next()).value).toEqual(numbered(0));
    await expect(queue.next()).rejects.toThrow('lost');
    expect((await queue.next()).done).toBe(true);
  });

  it('is closed by leaving its loop', async () => {
    let closed = 0;
    const queue = new EventQueue<Numbered>(5, () => {
      closed += 1;
      return Promise.resolve();
    });
    queue.push(numbered(0));
    queue.push(numbered(1));
    for await (const event of queue) {
      expect(event).toEqual(numbered(0));
      break;
    }
    expect(closed).toBe(1);
    expect((await queue.next()).done).toBe(true);
  });
});
