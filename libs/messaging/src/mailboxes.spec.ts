import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { createMailboxes } from './mailboxes.ts';

describe('mailboxes', () => {
  it('keep each key in order and one at a time, within the bound, whatever comes in', async () => {
    await fc.assert(fc.asyncProperty(
      fc.integer({ min: 1, max: 5 }),
      fc.array(fc.record({ key: fc.constantFrom('a', 'b', 'c', 'd'), steps: fc.integer({ min: 0, max: 4 }) }), { maxLength: 60 }),
      async (concurrency, works) => {
        const mailboxes = createMailboxes(concurrency);
        const done: string[] = [];
        const at = new Map<string, number>();
        let running = 0;
        works.forEach(({ key, steps }, n) => mailboxes.post(key, async () => {
          expect(++running).toBeLessThanOrEqual(concurrency);
          expect(at.get(key) ?? 0).toBe(0);
          at.set(key, 1);
          for (let step = 0; step < steps; step++) await Promise.resolve();
          at.set(key, 0);
          running--;
          done.push(`${key}${n}`);
        }));
        await mailboxes.idle();
        expect(done).toHaveLength(works.length);
        for (const key of ['a', 'b', 'c', 'd']) {
          expect(done.filter((each) => each.startsWith(key))).toEqual(works.flatMap((work, n) => (work.key === key ? [`${key}${n}`] : [])));
        }
        expect(mailboxes.waiting + mailboxes.running).toBe(0);
      },
    ));
  });

  it('are fair: one busy key does not hold up the others', async () => {
    const mailboxes = createMailboxes(1);
    const order: string[] = [];
    const work = (name: string) => () => { order.push(name); return Promise.resolve(); };
    mailboxes.post('block', () => new Promise((resolve) => setTimeout(resolve, 5)));
    for (let n = 0; n < 3; n++) mailboxes.post('busy', work(`busy${n}`));
    mailboxes.post('other', work('other'));
    await mailboxes.idle();
    expect(order.indexOf('other')).toBe(1);
  });

  it('abandon what has not begun, and finish what has', async () => {
    const mailboxes = createMailboxes(1);
    const order: string[] = [];
    mailboxes.post('a', async () => { await new Promise((resolve) => setTimeout(resolve, 5)); order.push('a'); });
    mailboxes.post('a', () => { order.push('never'); return Promise.resolve(); });
    mailboxes.post('b', () => { order.push('never'); return Promise.resolve(); });
    expect(mailboxes.abandon()).toBe(2);
    await mailboxes.idle();
    expect(order).toEqual(['a']);
    mailboxes.post('b', () => { order.push('b'); return Promise.resolve(); });
    await mailboxes.idle();
    expect(order).toEqual(['a', 'b']);
  });
});
