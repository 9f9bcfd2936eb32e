import { describe, expect, it } from 'vitest';
import { Gather, Overloaded } from './gather.ts';

const limits = { groupMax: 3, callsMax: 1, waitingMax: 5 };

describe('gathering', () => {
  it('puts what waits together, up to the limit, in order', async () => {
    const groups: (readonly number[])[] = [];
    const gather = new Gather<number, number>(async (items) => { groups.push(items); return items.map((item) => ({ result: item * 10 })); }, limits);
    expect(await Promise.all([1, 2, 3, 4, 5].map((item) => gather.add(item)))).toEqual([10, 20, 30, 40, 50]);
    expect(groups).toEqual([[1, 2, 3], [4, 5]]);
  });

  it('fails only the one that failed', async () => {
    const gather = new Gather<number, number>(async (items) => items.map((item) => (item === 2 ? { error: new Error('two') } : { result: item })), limits);
    const settled = await Promise.allSettled([1, 2, 3].map((item) => gather.add(item)));
    expect(settled.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'fulfilled']);
  });

  it('fails all of a call that failed, and goes on with the next', async () => {
    let calls = 0;
    const gather = new Gather<number, number>(async (items) => { if (++calls === 1) throw new Error('gone'); return items.map((item) => ({ result: item })); }, limits);
    const settled = await Promise.allSettled([1, 2, 3, 4].map((item) => gather.add(item)));
    expect(settled.map(({ status }) => status)).toEqual(['rejected', 'rejected', 'rejected', 'fulfilled']);
  });

  it('halves many while calls are quick, and lets the halves take turns', async () => {
    const sizes: number[] = [];
    const open: (() => void)[] = [];
    const gather = new Gather<number, number>((items) => {
      sizes.push(items.length);
      return new Promise((resolve) => open.push(() => resolve(items.map((item) => ({ result: item })))));
    }, { groupMax: 100, callsMax: 2, waitingMax: 100, beside: { itemsMin: 4, callMsMax: 50 } });
    const turn = (): Promise<void> => new Promise((resolve) => setImmediate(() => setImmediate(resolve)));
    const all = Array.from({ length: 10 }, (_, item) => gather.add(item));
    await turn();
    expect(sizes).toEqual([5, 5]);
    // Three are too few to go beside another; they go when there is none, with whoever came meanwhile.
    all.push(...[10, 11, 12].map((item) => gather.add(item)));
    await turn();
    expect(sizes).toEqual([5, 5]);
    open.shift()?.();
    await turn();
    all.push(gather.add(13));
    await turn();
    expect(sizes).toEqual([5, 5, 4]);
    open.forEach((one) => one());
    expect(await Promise.all(all)).toEqual(Array.from({ length: 14 }, (_, item) => item));
  });

  it('keeps those of one key in order, although two calls are under way', async () => {
    const begun: string[] = [];
    const gather = new Gather<string, string>(async (items) => {
      begun.push(...items);
      await new Promise((resolve) => setTimeout(resolve, items.length % 3));
      return items.map((item) => ({ result: item }));
    }, { groupMax: 7, callsMax: 2, waitingMax: 1_000, beside: { itemsMin: 3, callMsMax: 1_000 } }, (item) => item[0]);
    const asked = Array.from({ length: 200 }, (_, number) => `${'abcde'[(number * 7) % 5] ?? ''}${String(number)}`);
    const done: string[] = [];
    await Promise.all(asked.map((item) => gather.add(item).then((result) => done.push(result))));
    for (const key of 'abcde') {
      const ofKey = asked.filter((item) => item.startsWith(key));
      expect(begun.filter((item) => item.startsWith(key))).toEqual(ofKey);
      expect(done.filter((item) => item.startsWith(key))).toEqual(ofKey);
    }
    expect(gather.size).toBe(0);
  });

  it('keeps many together where calls are slow', async () => {
    const sizes: number[] = [];
    const gather = new Gather<number, number>(async (items) => {
      sizes.push(items.length);
      await new Promise((resolve) => setTimeout(resolve, 25));
      return items.map((item) => ({ result: item }));
    }, { groupMax: 100, callsMax: 2, waitingMax: 100, beside: { itemsMin: 4, callMsMax: 2 } });
    await Promise.all(Array.from({ length: 10 }, (_, item) => gather.add(item)));
    await Promise.all(Array.from({ length: 10 }, (_, item) => gather.add(item)));
    expect(sizes).toEqual([5, 5, 10]);
  });

  it('turns away what is too much', async () => {
    const gather = new Gather<number, number>(async (items) => items.map((item) => ({ result: item })), limits);
    const settled = await Promise.allSettled([1, 2, 3, 4, 5, 6].map((item) => gather.add(item)));
    const last = settled[5];
    expect(last?.status === 'rejected' && last.reason).toBeInstanceOf(Overloaded);
    expect(settled.filter(({ status }) => status === 'fulfilled')).toHaveLength(5);
  });
});
