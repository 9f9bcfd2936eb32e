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

  it('turns away what is too much', async () => {
    const gather = new Gather<number, number>(async (items) => items.map((item) => ({ result: item })), limits);
    const settled = await Promise.allSettled([1, 2, 3, 4, 5, 6].map((item) => gather.add(item)));
    const last = settled[5];
    expect(last?.status === 'rejected' && last.reason).toBeInstanceOf(Overloaded);
    expect(settled.filter(({ status }) => status === 'fulfilled')).toHaveLength(5);
  });
});
