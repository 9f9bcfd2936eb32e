import { describe, expect, it } from 'vitest';
import { sequence } from '@chronovirt/decider/saga-property';
import type { BackupId } from '@chronovirt/contracts/ids';
import { slotAt } from '@chronovirt/contracts/backup-policy/slot';
import { chainLength, type Keepable, prunable } from './schedule.ts';

const at = (text: string): number => Date.parse(text);
const id = (n: number): BackupId => `backup_${n.toString(16).padStart(32, '0')}`;
const HOUR = 3_600_000;
const DAY = 24 * HOUR;

describe('A slot', () => {
  const since = at('2026-03-01T10:00:00Z');
  const shown = (ms: number | undefined): string | undefined => (ms === undefined ? undefined : new Date(ms).toISOString());
  it('comes every so many hours, counted from when the policy was made', () => {
    const slot = (now: string): string | undefined => shown(slotAt({ everyHours: 6 }, since, at(now)));
    expect(slot('2026-03-01T15:59:59Z')).toBeUndefined();
    expect(slot('2026-03-01T16:00:00Z')).toBe('2026-03-01T16:00:00.000Z');
    expect(slot('2026-03-01T21:59:59Z')).toBe('2026-03-01T16:00:00.000Z');
  });
  it('comes each day at a time, and not for a time before the policy', () => {
    const slot = (now: string): string | undefined => shown(slotAt({ dailyAt: '03:30' }, since, at(now)));
    expect(slot('2026-03-01T23:00:00Z')).toBeUndefined();
    expect(slot('2026-03-02T03:29:59Z')).toBeUndefined();
    expect(slot('2026-03-02T03:30:00Z')).toBe('2026-03-02T03:30:00.000Z');
    expect(slot('2026-03-03T03:00:00Z')).toBe('2026-03-02T03:30:00.000Z');
  });
  it('that was missed is made up for once, however many were', () => {
    const slots = new Set<number | undefined>();
    for (let now = since + 7 * DAY; now < since + 7 * DAY + 2 * HOUR; now += 60_000) slots.add(slotAt({ everyHours: 6 }, since, now));
    expect(slots.size).toBe(1);
  });
});

describe('What is kept', () => {
  const daily = (n: number, more: Partial<Keepable> = {}): Keepable => ({ backupId: id(n), parent: null, ours: true, at: at('2026-03-01T03:00:00Z') + n * DAY, ...more });
  it('is the newest few, the newest of some days and of some weeks', () => {
    const twice = [...Array.from({ length: 30 }, (_, n) => daily(n)), ...Array.from({ length: 30 }, (_, n) => daily(n, { backupId: id(100 + n), at: at('2026-03-01T15:00:00Z') + n * DAY }))];
    const gone = new Set(prunable(twice, { last: 3, daily: 4, weekly: 3 }));
    // 30 March is a Monday; the weeks before ended on the 29th and the 22nd.
    expect(twice.filter(({ backupId }) => !gone.has(backupId)).map((one) => new Date(one.at).toISOString().slice(5, 13)).sort()).toEqual(['03-22T15', '03-27T15', '03-28T15', '03-29T15', '03-30T03', '03-30T15']);
  });
  it('holds all that it builds on, and a chain goes when nothing of it is kept', () => {
    const chain = [daily(1), daily(2, { parent: id(1) }), daily(3, { parent: id(2) }), daily(4), daily(5, { parent: id(4) })];
    expect(prunable(chain, { last: 1, daily: 0, weekly: 0 })).toEqual([id(3), id(2), id(1)]);
    expect(prunable(chain, { last: 3, daily: 0, weekly: 0 })).toEqual([]);
  });
  it('is never one that somebody took by hand, nor what that builds on', () => {
    expect(prunable([daily(1), daily(2, { parent: id(1), ours: false }), daily(3)], { last: 1, daily: 0, weekly: 0 })).toEqual([]);
  });
  it('whatever there is: nothing that stays loses what it builds on, each goes after what builds on it, and the newest stays', () => {
    for (let seed = 1; seed <= 300; seed++) {
      const random = sequence(seed);
      const pick = (n: number): number => Math.floor(random() * n);
      const all: Keepable[] = [];
      for (let n = 0; n < 1 + pick(40); n++) all.push(daily(n, { parent: n === 0 || random() < 0.2 ? null : id(pick(n)), ours: random() < 0.8, at: pick(60) * DAY }));
      const going = prunable(all, { last: 1 + pick(3), daily: pick(5), weekly: pick(5) });
      const stays = all.filter(({ backupId }) => !going.includes(backupId));
      for (const { parent } of stays) expect(parent === null || stays.some(({ backupId }) => backupId === parent)).toBe(true);
      for (const one of all) if (one.parent !== null && going.includes(one.parent)) expect(going.indexOf(one.backupId)).toBeLessThan(going.indexOf(one.parent));
      const newest = all.filter(({ ours }) => ours).sort((a, b) => b.at - a.at)[0];
      if (newest !== undefined) expect(going).not.toContain(newest.backupId);
    }
  });
  it('knows how many stand on one another', () => {
    expect(chainLength([daily(1), daily(2, { parent: id(1) }), daily(3, { parent: id(2) })], id(3))).toBe(3);
  });
});
