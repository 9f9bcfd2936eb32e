import { z } from 'zod';
import { command, type CommandOf } from '../command.ts';
import { BackupPolicyId } from '../ids.ts';
import { BackupPolicyWish } from './backup-policy.events.ts';

/** The body of POST /v1/backup-policies and PUT /v1/backup-policies/:id. */
export const BackupPolicyBody = BackupPolicyWish.meta({ id: 'SetBackupPolicy' });

export const backupPolicyCommands = {
  MakeBackupPolicy: command('storage', 'policyId', z.object({ policyId: BackupPolicyId, ...BackupPolicyWish.shape })),
  ChangeBackupPolicy: command('storage', 'policyId', z.object({ policyId: BackupPolicyId, ...BackupPolicyWish.shape })),
  DeleteBackupPolicy: command('storage', 'policyId', z.object({ policyId: BackupPolicyId })),
} as const;
export type BackupPolicyCommand = CommandOf<typeof backupPolicyCommands>;
