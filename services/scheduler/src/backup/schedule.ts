/*
 * Which backups of a VM may go: a function of when they were taken. When the next is due says a policy's slot; a VM
 * that is busy then gets its backup when it is not, unless the next slot has come by then.
 */
import type { BackupKeep } from '@chronovirt/contracts/backup-policy/backup-policy.events';
import type { BackupId } from '@chronovirt/contracts/ids';
import { DAY_MS, WEEK_MS } from '../durations.ts';

/** 5 January 1970 was a Monday. */
const MONDAY_MS = 4 * DAY_MS;

export interface Keepable {
  readonly backupId: BackupId;
  readonly parent: BackupId | null;
  /** Of the policy that is asked about; others are there for what they build on. */
  readonly ours: boolean;
  /** Milliseconds since the epoch; for one that is being taken, when it was begun. */
  readonly at: number;
}

/** The newest in each of the latest so many stretches of time that have one. */
const newestOfEach = (newestFirst: readonly Keepable[], many: number, stretchOf: (at: number) => number): readonly Keepable[] => {
  const found = new Map<number, Keepable>();
  for (const one of newestFirst) {
    const stretch = stretchOf(one.at);
    if (found.has(stretch)) continue;
    if (found.size >= many) break;
    found.set(stretch, one);
  }
  return [...found.values()];
};

/** Those of one VM that nothing keeps, in an order in which each may go: what builds on another before that other. */
export const prunable = (all: readonly Keepable[], { last, daily, weekly }: BackupKeep): readonly BackupId[] => {
  const newestFirst = all.filter(({ ours }) => ours).sort((a, b) => b.at - a.at);
  const wanted = [
    ...newestFirst.slice(0, last),
    ...newestOfEach(newestFirst, daily, (at) => Math.floor(at / DAY_MS)),
    ...newestOfEach(newestFirst, weekly, (at) => Math.floor((at - MONDAY_MS) / WEEK_MS)),
    ...all.filter(({ ours }) => !ours),
  ];
  const byId = new Map(all.map((one) => [one.backupId, one]));
  const kept = new Set<BackupId>();
  for (const one of wanted) for (let at: Keepable | undefined = one; at !== undefined && !kept.has(at.backupId); at = at.parent === null ? undefined : byId.get(at.parent)) kept.add(at.backupId);
  const going = newestFirst.filter(({ backupId }) => !kept.has(backupId));
  // A parent is always older, but clocks may have been set back: so by what stands on what, not by age.
  const depth = (one: Keepable): number => { const below = one.parent === null ? undefined : byId.get(one.parent); return below === undefined ? 0 : 1 + depth(below); };
  return going.sort((a, b) => depth(b) - depth(a)).map(({ backupId }) => backupId);
};

/** How many stand on one another up to this one. */
export const chainLength = (all: readonly Pick<Keepable, 'backupId' | 'parent'>[], backupId: BackupId): number => {
  const one = all.find((other) => other.backupId === backupId);
  return one === undefined ? 0 : one.parent === null ? 1 : 1 + chainLength(all, one.parent);
};
