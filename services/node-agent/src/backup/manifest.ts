/*
 * What lies beside the files of a backup, and says all that is needed to make the machine again: from the
 * folder alone, with no other part of the platform left.
 */
import { BackupKind, BackedUpMachine, BackupFile } from '@chronovirt/contracts/backup/backup.events';
import { BackupId, BackupTargetId, VmId } from '@chronovirt/contracts/ids';
import { z } from 'zod';

export const MANIFEST_FORMAT = 1;

export const Manifest = z.object({
  format: z.literal(MANIFEST_FORMAT),
  backupId: BackupId, vmId: VmId, targetId: BackupTargetId,
  kind: BackupKind, because: z.string(), parent: BackupId.nullable(), frozen: z.boolean(),
  /** The node's clock. */
  takenAt: z.iso.datetime(),
  machine: BackedUpMachine,
  /** `name` is beside the manifest; the file of an incremental one stands on that of its parent, `../<parent>/<name>`. */
  files: z.array(z.object({ name: z.string(), ...BackupFile.shape })).min(1).max(24),
});
export type Manifest = z.infer<typeof Manifest>;

/** The file of a disk in every backup. */
export const fileOfUnit = (unit: number): string => `disk-${String(unit)}.qcow2`;

/** What lies at the root of a target and makes it one. */
export const Marker = z.object({ format: z.literal(1), targetId: BackupTargetId });
