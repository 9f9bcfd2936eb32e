/*
 * The backups of one VM, from the moment that one is begun until it is deleted; they outlive the VM.
 *
 *     BeginBackup ─▶ taking ─▶ taken ⇄ deleting ─▶ gone
 *                      └─ AbandonBackup ─▶ gone
 *
 * An incremental one needs its parent, and that its own, down to a full one. So which may go is decided here,
 * where all of them are known: one that another builds on stays, and one that is being taken holds its parent
 * from the first moment.
 */
import { type Decider, refuse } from '@chronovirt/decider/decider';
import type { BackupTarget } from '@chronovirt/contracts/backup/backup';
import type { BackupCommand } from '@chronovirt/contracts/backup/backup.commands';
import type { BackupEvent } from '@chronovirt/contracts/backup/backup.events';
import type { BackupId, NodeId, OperationId } from '@chronovirt/contracts/ids';

interface Kept {
  readonly backupId: BackupId;
  readonly status: 'taking' | 'taken' | 'deleting';
  /** The one that took it, or deletes it. */
  readonly operationId: OperationId;
  readonly target: BackupTarget;
  readonly nodeId: NodeId;
  readonly parent: BackupId | null;
  readonly drills: readonly OperationId[];
  /** Of one that is being taken: how much was last said to be copied. */
  readonly percent: number;
}

/** Oldest first. */
export type Archive = readonly Kept[];

/** Of a full one and those on it: more make a restore slow, and one damaged file takes all behind it along. */
export const CHAIN_MAX = 32;
/** Of one VM, however they came to be. */
export const BACKUPS_MAX = 1_000;
const DRILLS_REMEMBERED = 10;
/** Less than so many percent more is no news: at most twenty lines of the log for a backup. */
const PROGRESS_STEP = 5;

/** How many there are down to the full one. */
const depthOf = (all: Archive, backupId: BackupId): number => {
  const { parent } = all.find((one) => one.backupId === backupId) ?? { parent: null };
  return parent === null ? 1 : 1 + depthOf(all, parent);
};

/** The newest at a target: since that one the disks have kept count. */
const newestAt = (all: Archive, targetId: string): Kept | undefined => all.filter(({ status, target }) => status === 'taken' && target.targetId === targetId).at(-1);

/** The newest at a target, unless its chain is long enough. */
const parentFor = (all: Archive, targetId: string): BackupId | null => {
  const newest = newestAt(all, targetId);
  return newest === undefined || depthOf(all, newest.backupId) >= CHAIN_MAX ? null : newest.backupId;
};

export const archive: Decider<BackupCommand, BackupEvent, Archive> = {
  category: 'archive',
  initial: [],
  // How far a copy is changes nothing for whoever has looked at the backup.
  observations: ['BackupProgressed'],
  decide(command, all) {
    const { vmId, backupId } = command.data;
    const known = all.find((one) => one.backupId === backupId);
    switch (command.type) {
      case 'BeginBackup': {
        const { operationId, nodeId, target, wants, scheduled } = command.data;
        if (known !== undefined) return known.operationId === operationId ? [] : refuse('backup.exists', { backupId });
        if (all.length >= BACKUPS_MAX) return refuse('backup.too_many', { vmId, max: BACKUPS_MAX });
        const parent = wants === 'full' ? null : parentFor(all, target.targetId);
        if (wants === 'incremental' && parent === null) return refuse('backup.not_incremental', { because: 'there is none at this target that it could be built on', field: 'kind' });
        return [{ type: 'BackupBegun', data: { vmId, backupId, operationId, nodeId, target, wants, parent, scheduled } }];
      }
      case 'RecordBackupProgress': {
        const { nodeId } = command.data;
        // A copy that was begun again says less; whoever looks sees how far it came at the furthest.
        const percent = Math.min(99, command.data.percent);
        const isNews = known?.status === 'taking' && known.nodeId === nodeId && percent >= known.percent + PROGRESS_STEP;
        return isNews ? [{ type: 'BackupProgressed', data: { vmId, backupId, operationId: known.operationId, percent } }] : [];
      }
      case 'RecordBackup':
        if (known === undefined || known.operationId !== command.data.operationId) return refuse('backup.not_found', { backupId });
        return known.status === 'taking' ? [{ type: 'BackupTaken', data: command.data }] : [];
      case 'AbandonBackup':
        return known === undefined || known.operationId !== command.data.operationId || known.status === 'deleting' ? [] : [{ type: 'BackupAbandoned', data: command.data }];
      case 'DeleteBackup': {
        const { operationId, abandoned } = command.data;
        if (known === undefined) return abandoned === true ? [] : refuse('backup.not_found', { backupId });
        if (known.status === 'deleting') return known.operationId === operationId || abandoned === true ? [] : refuse('backup.deleting', { backupId, operationId: known.operationId });
        if (known.status === 'taking' && abandoned !== true) return refuse('backup.being_taken', { backupId, operationId: known.operationId });
        const by = all.filter(({ parent, status }) => parent === backupId && status !== 'deleting').map((one) => one.backupId);
        return by.length > 0 ? refuse('backup.needed', { backupId, by }) : [{ type: 'BackupDeleteStarted', data: { vmId, backupId, operationId, target: known.target, nodeId: known.nodeId } }];
      }
      case 'FinishDeleteBackup':
        return known?.status === 'deleting' ? [{ type: 'BackupDeleted', data: command.data }] : [];
      case 'AbandonDeleteBackup':
        return known?.status === 'deleting' && known.operationId === command.data.operationId ? [{ type: 'BackupDeleteAbandoned', data: command.data }] : [];
      case 'RecordDrill':
        // Of one that was deleted meanwhile nothing is known: its files went while they were read.
        return known?.status !== 'taken' || known.drills.includes(command.data.operationId) ? [] : [{ type: 'BackupDrilled', data: command.data }];
    }
  },
  evolve(all, event) {
    const { backupId } = event.data;
    const changed = (changes: Partial<Kept>): Archive => all.map((one) => (one.backupId === backupId ? { ...one, ...changes } : one));
    switch (event.type) {
      case 'BackupBegun': {
        const { operationId, nodeId, target, parent } = event.data;
        return [...all, { backupId, status: 'taking', operationId, nodeId, target, parent, drills: [], percent: 0 }];
      }
      case 'BackupProgressed':
        return changed({ percent: event.data.percent });
      case 'BackupTaken':
        return changed({ status: 'taken', parent: event.data.parent });
      case 'BackupDeleteStarted':
        return changed({ status: 'deleting', operationId: event.data.operationId });
      case 'BackupDeleteAbandoned':
        return changed({ status: 'taken' });
      case 'BackupAbandoned':
      case 'BackupDeleted':
        return all.filter((one) => one.backupId !== backupId);
      case 'BackupDrilled':
        return changed({ drills: [...(all.find((one) => one.backupId === backupId)?.drills ?? []), event.data.operationId].slice(-DRILLS_REMEMBERED) });
    }
  },
  facts(command, all) {
    if (command.type !== 'BeginBackup') return {};
    const begun = all.find(({ backupId }) => backupId === command.data.backupId);
    return { parent: begun?.parent ?? null, replaces: newestAt(all, command.data.target.targetId)?.backupId ?? null };
  },
};
