/* Words that a VM and its backups have in common. */
import { z } from 'zod';
import { BackupPolicyId, BackupTargetId, type VmId } from '../ids.ts';
import { Name, text } from '../text.ts';

/** A folder for backups; nodes that see the same one tell the same id. */
export const BackupTarget = z.object({ targetId: BackupTargetId, name: Name });
export type BackupTarget = z.infer<typeof BackupTarget>;

/** `auto`: incremental where that can be, else full. */
export const BackupWish = z.enum(['auto', 'full', 'incremental']);
export type BackupWish = z.infer<typeof BackupWish>;

/** Why a schedule asked for it: the policy, and the time that it was for. */
export const BackupSlot = z.object({ policyId: BackupPolicyId, slot: z.iso.datetime() });
export type BackupSlot = z.infer<typeof BackupSlot>;

/**
 * What shows that a machine came up, and what that proves:
 * - agent: the guest's agent answers. The system inside is up as far as its services.
 * - console: a word stands on its serial console. Whatever writes that word ran.
 * - disk: it has read some MiB of its first disk, and runs on ten seconds later. Firmware and boot loader found what they need; nothing is said of the system.
 */
export const DrillCriterion = z.enum(['agent', 'console', 'disk']);
export type DrillCriterion = z.infer<typeof DrillCriterion>;

/** How long after its start it has to be seen. */
export const Proof = z.object({ criterion: DrillCriterion, word: text(100).min(1).nullable(), timeoutSeconds: z.int().min(10).max(3_600) });
export type Proof = z.infer<typeof Proof>;

const wish = {
  criterion: DrillCriterion.optional().describe('agent: the guest agent answers. console: the word stands on the serial console. disk: it has read some MiB of its first disk and runs on, which says nothing of the system inside. Default: agent where it held the file systems still for the backup, else disk'),
  word: text(100).min(1).optional().describe('For criterion console: what its serial console shows when it has come up'),
  timeoutSeconds: z.int().min(10).max(3_600).default(300).describe('How long after its start that has to be seen'),
};
const wordGoesWithConsole = ({ criterion, word }: { readonly criterion?: DrillCriterion | undefined; readonly word?: string | undefined }): boolean => (criterion === 'console') === (word !== undefined);
const WORD = 'needs a word with the criterion console, and none with others';

/** Times in the form that policies have for them; hours are counted from when the policy was made or changed. */
export const scheduleUpTo = (hoursMax: number) => z.union([
  z.strictObject({ everyHours: z.int().min(1).max(hoursMax).describe('Counted from when the policy was made or changed') }),
  z.strictObject({ dailyAt: z.string().regex(/^([01][0-9]|2[0-3]):[0-5][0-9]$/, 'must be a time such as 03:30').describe('UTC') }),
]);
/** A year. */
const DRILL_HOURS_MAX = 8_784;

/** What a policy wants of drills. */
export const PolicyDrill = z.strictObject({
  every: z.int().min(1).max(100).optional().describe('After so many backups of a VM the newest is drilled'),
  schedule: scheduleUpTo(DRILL_HOURS_MAX).optional().describe('At these times the newest is drilled, whether it was before or not; every 168 hours is each week'),
  ...wish,
}).refine(wordGoesWithConsole, WORD).refine(({ every, schedule }) => (every === undefined) !== (schedule === undefined), 'needs either every or a schedule');
export type PolicyDrill = z.infer<typeof PolicyDrill>;

/** The body of POST /v1/backups/:id/drill. */
export const DrillBackupBody = z.strictObject({
  ...wish,
  network: text(100).min(1).optional().describe('Id or name of the network whose addresses it gets, though it is cut off from it; without it the one that the VM was in'),
  node: text(100).min(1).optional().describe('Id or name of a node that sees the target; without it the scheduler chooses'),
}).refine(wordGoesWithConsole, WORD).meta({ id: 'DrillBackup' });
export type DrillBackupBody = z.infer<typeof DrillBackupBody>;

/** For the handler, which knows what a default is here; `policyId`: who wants it. */
export const DrillWish = z.object({ ...wish, policyId: BackupPolicyId.optional() });
export type DrillWish = z.infer<typeof DrillWish>;

/** What the machine of a drill is called. */
export const drillName = (vmId: VmId): string => `drill-${vmId.slice(-8)}`;
