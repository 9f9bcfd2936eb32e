/*
 * When VMs are backed up by themselves, and which of those backups are kept. Times are UTC.
 */
import { z } from 'zod';
import { PolicyDrill, scheduleUpTo } from '../backup/backup.ts';
import { event, type EventOf } from '../event.ts';
import { BackupPolicyId, VmId } from '../ids.ts';
import { Name, text } from '../text.ts';

/** In hours. */
const WEEK = 168;
export const BackupSchedule = scheduleUpTo(WEEK);
export type BackupSchedule = z.infer<typeof BackupSchedule>;

/** What is none of these goes, as soon as nothing that is kept builds on it. */
export const BackupKeep = z.strictObject({
  last: z.int().min(1).max(100).describe('The newest so many'),
  daily: z.int().min(0).max(366).default(0).describe('The newest of each of so many days'),
  weekly: z.int().min(0).max(520).default(0).describe('The newest of each of so many weeks, which begin on Monday'),
});
export type BackupKeep = z.infer<typeof BackupKeep>;

export const BackupPolicyWish = z.strictObject({
  name: Name,
  vms: z.array(VmId).min(1).max(500).refine((vms) => new Set(vms).size === vms.length, 'must name each VM once'),
  target: text(100).min(1).optional().describe('Id or name of a backup target; without it the only one that the VM\'s node sees'),
  schedule: BackupSchedule,
  keep: BackupKeep,
  fullEvery: z.int().min(1).max(32).default(7).describe('After so many that build on one another comes a full one'),
  drill: PolicyDrill.optional().describe('Machines are made of its backups to see whether they come up'),
});
export type BackupPolicyWish = z.infer<typeof BackupPolicyWish>;

export const backupPolicyEvents = {
  /** It is so from here on; a time that has passed before is not made up for. */
  BackupPolicySet: event(z.object({ policyId: BackupPolicyId, ...BackupPolicyWish.shape })),
  /** What it has asked for stays. */
  BackupPolicyDeleted: event(z.object({ policyId: BackupPolicyId })),
} as const;
export type BackupPolicyEvent = EventOf<typeof backupPolicyEvents>;
