/*
 * A policy has slots: times for which each of its VMs gets one backup, or one drill. Only the latest slot that has
 * passed counts, so whoever was away for a week makes up for one, not for seven.
 */
import type { BackupSchedule } from './backup-policy.events.ts';

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;

/** The latest slot that has passed since the policy was made; undefined when none has. Milliseconds since the epoch. */
export const slotAt = (schedule: BackupSchedule, sinceMs: number, nowMs: number): number | undefined => {
  if ('everyHours' in schedule) {
    const every = schedule.everyHours * HOUR_MS;
    const passed = Math.floor((nowMs - sinceMs) / every);
    return passed < 1 ? undefined : sinceMs + passed * every;
  }
  const [hours = 0, minutes = 0] = schedule.dailyAt.split(':').map(Number);
  const ofDay = hours * HOUR_MS + minutes * 60_000;
  const slot = Math.floor((nowMs - ofDay) / DAY_MS) * DAY_MS + ofDay;
  return slot <= sinceMs ? undefined : slot;
};
