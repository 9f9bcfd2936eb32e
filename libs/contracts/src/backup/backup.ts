/* Words that a VM and its backups have in common. */
import { z } from 'zod';
import { BackupPolicyId, BackupTargetId } from '../ids.ts';
import { Name } from '../text.ts';

/** A folder for backups; nodes that see the same one tell the same id. */
export const BackupTarget = z.object({ targetId: BackupTargetId, name: Name });
export type BackupTarget = z.infer<typeof BackupTarget>;

/** `auto`: incremental where that can be, else full. */
export const BackupWish = z.enum(['auto', 'full', 'incremental']);
export type BackupWish = z.infer<typeof BackupWish>;

/** Why a schedule asked for it: the policy, and the time that it was for. */
export const BackupSlot = z.object({ policyId: BackupPolicyId, slot: z.iso.datetime() });
export type BackupSlot = z.infer<typeof BackupSlot>;
