/* One document for each policy: what `GET /v1/backup-policies/:id` shows. */
import { categoryOf, idOfStream } from '@chronovirt/contracts/ids';
import type { BackupPolicyEvent, BackupPolicyWish } from '@chronovirt/contracts/backup-policy/backup-policy.events';
import type { RecordedEvent } from '@chronovirt/event-log/log';
import type { Projection } from '@chronovirt/event-log/projection';

export interface BackupPolicyDocument extends BackupPolicyWish {
  readonly id: string;
  readonly createdAt: string;
  /** Since when it is so. */
  readonly changedAt: string;
  readonly position: number;
  readonly version: number;
}

export const backupPolicyView: Projection<BackupPolicyDocument> = {
  name: 'gateway.backup_policy',
  version: 1,
  keys: (event) => (categoryOf(event.stream) === 'backup-policy' ? [idOfStream(event.stream)] : []),
  fold: (before, recorded) => {
    const event = recorded as RecordedEvent & BackupPolicyEvent;
    if (event.type === 'BackupPolicyDeleted') return undefined;
    const { policyId, ...wish } = event.data;
    return { id: policyId, ...wish, createdAt: before?.createdAt ?? event.recordedAt, changedAt: event.recordedAt, position: event.position, version: event.version };
  },
};
