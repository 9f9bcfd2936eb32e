/* One document for each backup that is not deleted: what `GET /v1/backups/:id` shows. It outlives its VM. */
import { categoryOf, type BackupId } from '@chronovirt/contracts/ids';
import type { BackupEvent } from '@chronovirt/contracts/backup/backup.events';
import type { BackupTarget, DrillCriterion } from '@chronovirt/contracts/backup/backup';
import type { RecordedEvent } from '@chronovirt/event-log/log';
import type { Projection } from '@chronovirt/event-log/projection';

export interface BackupDocument {
  readonly id: string;
  readonly vmId: string;
  /** What the VM was called then. null while it is being taken. */
  readonly vmName: string | null;
  readonly status: 'taking' | 'taken' | 'deleting';
  readonly target: BackupTarget;
  readonly nodeId: string;
  readonly kind: 'full' | 'incremental' | null;
  /** Why it is of that kind. */
  readonly because: string | null;
  /** What it builds on. */
  readonly parent: BackupId | null;
  readonly frozen: boolean | null;
  /** Of its own files together. */
  readonly bytes: number;
  readonly disks: readonly { readonly unit: number; readonly volumeId: string; readonly sizeGib: number; readonly bytes: number; readonly sha256: string }[];
  /** The policy that asked for it, and the time that it was for. */
  readonly scheduled: { readonly policyId: string; readonly slot: string } | null;
  /** The last time that a machine was made of it to see whether it runs. */
  readonly drill: { readonly at: string; readonly ok: boolean; readonly criterion: DrillCriterion | null; readonly seconds: number | null; readonly because: string; readonly operationId: string } | null;
  readonly operationId: string | null;
  readonly requestedAt: string;
  readonly takenAt: string | null;
  readonly changedAt: string;
  readonly position: number;
  readonly version: number;
}

export const backupView: Projection<BackupDocument> = {
  name: 'gateway.backup',
  version: 1,
  keys: (event) => (categoryOf(event.stream) === 'archive' ? [String(event.data['backupId'])] : []),
  fold: (before, recorded) => {
    const event = recorded as RecordedEvent & BackupEvent;
    const now = { changedAt: event.recordedAt, position: event.position, version: event.version };
    if (event.type === 'BackupBegun') {
      const { backupId, vmId, target, nodeId, parent, scheduled, operationId } = event.data;
      return {
        id: backupId, vmId, vmName: null, status: 'taking', target, nodeId, kind: null, because: null, parent, frozen: null, bytes: 0, disks: [], scheduled, drill: null,
        operationId, requestedAt: event.recordedAt, takenAt: null, ...now,
      };
    }
    if (before === undefined) return undefined;
    switch (event.type) {
      case 'BackupTaken': {
        const { kind, because, parent, frozen, files, machine } = event.data;
        return { ...before, status: 'taken', vmName: machine.spec.name, kind, because, parent, frozen, disks: files, bytes: files.reduce((sum, { bytes }) => sum + bytes, 0), operationId: null, takenAt: event.recordedAt, ...now };
      }
      case 'BackupProgressed':
        return { ...before, ...now };
      case 'BackupDeleteStarted':
        return { ...before, status: 'deleting', operationId: event.data.operationId, ...now };
      case 'BackupDeleteAbandoned':
        return { ...before, status: 'taken', operationId: null, ...now };
      case 'BackupDrilled': {
        const { passed, how, operationId, criterion = null, since } = event.data;
        // The scheduler's clock and the log's may differ.
        const seconds = since === undefined ? null : Math.max(0, Math.round((Date.parse(event.recordedAt) - Date.parse(since)) / 1_000));
        return { ...before, drill: { at: event.recordedAt, ok: passed, criterion, seconds, because: how, operationId }, ...now };
      }
      case 'BackupAbandoned':
      case 'BackupDeleted':
        return undefined;
    }
  },
};
