/*
 * A machine that is wanted until a time, T:
 *
 *     ahead ─T-7d─▶ week ─T-1d─▶ day ─T─▶ expired ─grace─▶ recycled ─▶ deleted
 *       ▲            told         told     stopped,          in the recycle bin,
 *       └──────────────────────────────────not started───────another T brings it back
 *
 * Whoever was away at T finds it passed. What follows T is counted from when that was seen to, not from T: a
 * platform that was down for a month stops what has expired, and deletes none of it on the same day.
 */
import { DAY_MS, WEEK_MS } from '../durations.ts';

export type Expiry =
  | { readonly stage: 'ahead' | 'week' | 'day' }
  | { readonly stage: 'expired'; readonly recycleAt: string }
  | { readonly stage: 'recycled'; readonly purgeAt: string };

/** How long a VM that has expired stays as it is, and how long in the recycle bin then, until it is deleted. Seconds. */
export interface ExpirySettings {
  readonly graceSeconds: number;
  readonly keepSeconds: number;
}

export const expiryDefault: ExpirySettings = { graceSeconds: WEEK_MS / 1_000, keepSeconds: WEEK_MS / 1_000 };

/** When something is due next, in milliseconds since the epoch. */
export const nextAt = (expiresAt: string, expiry: Expiry): number => {
  switch (expiry.stage) {
    case 'ahead': return Date.parse(expiresAt) - WEEK_MS;
    case 'week': return Date.parse(expiresAt) - DAY_MS;
    case 'day': return Date.parse(expiresAt);
    case 'expired': return Date.parse(expiry.recycleAt);
    case 'recycled': return Date.parse(expiry.purgeAt);
  }
};

/** What is to be done now, if anything: only the last of what was missed. */
export const dueAt = (expiresAt: string, expiry: Expiry, now: number): 'week' | 'day' | 'expire' | 'recycle' | 'purge' | undefined => {
  if (expiry.stage === 'recycled') return now >= Date.parse(expiry.purgeAt) ? 'purge' : undefined;
  if (expiry.stage === 'expired') return now >= Date.parse(expiry.recycleAt) ? 'recycle' : undefined;
  const left = Date.parse(expiresAt) - now;
  if (left <= 0) return 'expire';
  if (left <= DAY_MS) return expiry.stage === 'day' ? undefined : 'day';
  return left <= WEEK_MS && expiry.stage === 'ahead' ? 'week' : undefined;
};
