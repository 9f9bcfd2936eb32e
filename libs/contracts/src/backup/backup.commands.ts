import { z } from 'zod';
import { command, type CommandOf } from '../command.ts';
import { BackupId, BackupPolicyId, NodeId, OperationId, VmId } from '../ids.ts';
import { Name, text } from '../text.ts';
import { BackupSlot, BackupTarget, BackupWish, DrillCriterion } from './backup.ts';
import { BackedUpMachine, TakenBackup } from './backup.events.ts';

const Reference = text(100).min(1);

/** The body of POST /v1/vms/:id/backups. */
export const TakeBackupBody = z.strictObject({
  target: Reference.optional().describe('Id or name of a backup target that the VM\'s node sees; without it the only one'),
  kind: BackupWish.default('auto').describe('auto: incremental where a backup is there that it can build on, else full; the backup says why'),
}).meta({ id: 'TakeBackup' });
export type TakeBackupBody = z.infer<typeof TakeBackupBody>;

/** The body of POST /v1/backups/:id/restore: a new VM. */
export const RestoreBackupBody = z.strictObject({
  name: Name.describe('Of the new VM'),
  network: Reference.optional().describe('Id or name of a network; without it the one that the VM was in. One that was adopted with interfaces of its own was in none'),
  node: Reference.optional().describe('Id or name of a node that sees the target; without it the scheduler chooses'),
}).meta({ id: 'RestoreBackup' });
export type RestoreBackupBody = z.infer<typeof RestoreBackupBody>;

const OfBackup = { vmId: VmId, backupId: BackupId };
const ByOperation = { ...OfBackup, operationId: OperationId };

/** All of one VM's backups decide together, so the target of each command is the VM that they are of. */
export const backupCommands = {
  /** From the saga that takes one. Facts say the `parent` that it may build on. */
  BeginBackup: command('storage', 'vmId', z.object({ ...ByOperation, nodeId: NodeId, target: BackupTarget, wants: BackupWish, scheduled: BackupSlot.nullable() })),
  /** From reports. */
  RecordBackupProgress: command('storage', 'vmId', z.object({ ...OfBackup, nodeId: NodeId, percent: z.int().min(0).max(100) })),
  RecordBackup: command('storage', 'vmId', z.object({ ...ByOperation, machine: BackedUpMachine, ...TakenBackup.shape })),
  AbandonBackup: command('storage', 'vmId', z.object(ByOperation)),
  /** Refused while another builds on it, naming that. `abandoned`: nobody takes it any more, and something of it may be at the target. */
  DeleteBackup: command('storage', 'vmId', z.object({ ...ByOperation, abandoned: z.boolean().optional() })),
  /** From the saga that deletes one. */
  FinishDeleteBackup: command('storage', 'vmId', z.object(OfBackup)),
  AbandonDeleteBackup: command('storage', 'vmId', z.object(ByOperation)),
  /** From the saga that takes the machine of a drill away. */
  RecordDrill: command('storage', 'vmId', z.object({ ...ByOperation, passed: z.boolean(), how: text(300), criterion: DrillCriterion, since: z.iso.datetime(), /** Which wanted it. */ policyId: BackupPolicyId.optional() })),
} as const;
export type BackupCommand = CommandOf<typeof backupCommands>;
