/*
 * What a VM's disks held at one moment, kept outside of its node: at a target, which is a folder that one
 * or several nodes see. A full backup stands alone; an incremental one holds what has changed since its
 * parent, so the two, and what the parent builds on, make a chain.
 *
 * All backups of one VM are one stream: what may be deleted is decided there. It outlives the VM.
 */
import { z } from 'zod';
import { event, type EventOf } from '../event.ts';
import { BackupId, BackupPolicyId, NodeId, OperationId, VmId, VolumeId } from '../ids.ts';
import { NetworkPlan } from '../network/network.events.ts';
import { text } from '../text.ts';
import { AdoptedLayout, AttachedVolume, VmSpec } from '../vm/vm.events.ts';
import { BackupSlot, BackupTarget, BackupWish, DrillCriterion } from './backup.ts';

export const BackupKind = z.enum(['full', 'incremental']);
export type BackupKind = z.infer<typeof BackupKind>;

const sha256 = z.string().regex(/^[0-9a-f]{64}$/);

/** One disk's file. `bytes` is how long the file is; sizeGib is what the guest sees. */
export const BackupFile = z.object({ unit: z.int().min(0).max(23), volumeId: VolumeId, sizeGib: z.int().min(1), bytes: z.int().min(1), sha256 });
export type BackupFile = z.infer<typeof BackupFile>;

/** What it takes to make the machine again, beside its disks. */
export const BackedUpMachine = z.object({
  spec: VmSpec,
  /** null: it was adopted, with interfaces of its own. */
  network: NetworkPlan.nullable(),
  /** Those of interfaces beside the first, in their order. */
  nics: z.array(NetworkPlan).max(15).optional(),
  volumes: z.array(AttachedVolume).max(23),
  /** Of one that was adopted, or made of such a one: what it is defined as, without secrets. */
  layout: AdoptedLayout.optional(),
});
export type BackedUpMachine = z.infer<typeof BackedUpMachine>;

/** What a node says of a backup that lies at its target. */
export const TakenBackup = z.object({
  kind: BackupKind,
  /** Why it is of this kind, for people. */
  because: text(300),
  parent: BackupId.nullable(),
  /** Whether the guest's file systems were known to be still: its agent froze them for that moment. */
  frozen: z.boolean(),
  files: z.array(BackupFile).min(1).max(24),
  /** Of the manifest, which names the files with theirs. */
  manifestSha256: sha256,
});
export type TakenBackup = z.infer<typeof TakenBackup>;

const OfBackup = { vmId: VmId, backupId: BackupId };

export const backupEvents = {
  /** It is being taken. Its parent, if it gets one, is kept from here on. */
  BackupBegun: event(z.object({ ...OfBackup, operationId: OperationId, nodeId: NodeId, target: BackupTarget, wants: BackupWish, parent: BackupId.nullable(), scheduled: BackupSlot.nullable() })),
  /** So much of it is copied; said now and then, and only upwards. */
  BackupProgressed: event(z.object({ ...OfBackup, operationId: OperationId, percent: z.int().min(1).max(99) })),
  BackupTaken: event(z.object({ ...OfBackup, operationId: OperationId, machine: BackedUpMachine, ...TakenBackup.shape })),
  /** It never came to be, and nothing of it is at the target. */
  BackupAbandoned: event(z.object({ ...OfBackup, operationId: OperationId })),
  BackupDeleteStarted: event(z.object({ ...OfBackup, operationId: OperationId, target: BackupTarget, nodeId: NodeId })),
  /** No node that sees the target answered for a day. It can be asked for again. */
  BackupDeleteAbandoned: event(z.object({ ...OfBackup, operationId: OperationId })),
  BackupDeleted: event(z.object(OfBackup)),
  /** A machine was made of it, without a way to any network, and removed again. */
  BackupDrilled: event(z.object({ ...OfBackup, operationId: OperationId, passed: z.boolean(), how: text(300), criterion: DrillCriterion.optional(), /** When it was begun. */ since: z.iso.datetime().optional(), /** Which wanted it. */ policyId: BackupPolicyId.optional() })),
} as const;
export type BackupEvent = EventOf<typeof backupEvents>;
