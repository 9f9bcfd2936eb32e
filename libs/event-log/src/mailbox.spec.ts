import { describe, expect, it } from 'vitest';
import { Mailbox } from './mailbox.ts';

const gate = (): { opened: Promise<void>; open(): void } => {
  let open = (): void => undefined;
  const opened = new Promise<void>((resolve) => (open = resolve));
  return { opened, open: () => open() };
};

describe('a mailbox', () => {
  it('runs the tasks of one key one after another, in order', async () => {
    const mailbox = new Mailbox();
    const [first, second] = [gate(), gate()];
    const log: string[] = [];
    const a = mailbox.run('k', async () => { log.push('a begins'); await first.opened; log.push('a ends'); });
    const b = mailbox.run('k', async () => { log.push('b begins'); await second.opened; log.push('b ends'); });
    second.open();
    first.open();
    await Promise.all([a, b]);
    expect(log).toEqual(['a begins', 'a ends', 'b begins', 'b ends']);
  });

  it('runs the tasks of other keys side by side', async () => {
    const mailbox = new Mailbox();
    const never = gate();
    const waiting = mailbox.run('k', () => never.opened);
    expect(await mailbox.run('other', () => Promise.resolve('done'))).toBe('done');
    never.open();
    await waiting;
  });

  it('goes on after a task that failed, and keeps nothing', async () => {
    const mailbox = new Mailbox();
    const failing = mailbox.run('k', () => Promise.reject(new Error('no')));
    const following = mailbox.run('k', () => Promise.resolve('yes'));
    await expect(failing).rejects.toThrow('no');
    expect(await following).toBe('yes');
    await Promise.resolve();
    expect(mailbox.size).toBe(0);
  });
});
