/* One document for each policy: what `GET /v1/backup-policies/:id` shows. */
import { slotAt } from '@chronovirt/contracts/backup-policy/slot';
import type { BackupEvent } from '@chronovirt/contracts/backup/backup.events';
import { categoryOf, idOfStream, type VmId } from '@chronovirt/contracts/ids';
import type { BackupPolicyEvent, BackupPolicyWish } from '@chronovirt/contracts/backup-policy/backup-policy.events';
import type { Restore, VmEvent } from '@chronovirt/contracts/vm/vm.events';
import type { RecordedEvent } from '@chronovirt/event-log/log';
import type { Projection } from '@chronovirt/event-log/projection';

/** A drill that the policy had begun. `ok` is null while it runs, and for ever when it came to no result. */
interface PolicyDrilled {
  readonly backupId: string;
  readonly operationId: string;
  readonly begunAt: string;
  readonly ok: boolean | null;
  readonly because: string | null;
}

export interface BackupPolicyDocument extends BackupPolicyWish {
  readonly id: string;
  /** By VM: the last, and when the last that came to a result was begun. */
  readonly drilled: Readonly<Record<string, { readonly last: PolicyDrilled; readonly knownAt: string | null }>>;
  readonly createdAt: string;
  /** Since when it is so. */
  readonly changedAt: string;
  readonly position: number;
  readonly version: number;
}

export interface ShownPolicy extends Omit<BackupPolicyDocument, 'drilled'> {
  /** `dueSince`: a time for a drill has passed, and there is no result since. */
  readonly drills: readonly { readonly vmId: VmId; readonly dueSince: string | null; readonly last: PolicyDrilled | null }[];
}

export const shownPolicy = ({ drilled, ...policy }: BackupPolicyDocument, now: Date): ShownPolicy => {
  const { drill, vms, changedAt } = policy;
  const slot = drill?.schedule === undefined ? undefined : slotAt(drill.schedule, Date.parse(changedAt), now.getTime());
  return {
    ...policy,
    drills: drill === undefined ? [] : vms.map((vmId) => {
      const { last = null, knownAt = null } = drilled[vmId] ?? {};
      return { vmId, dueSince: slot === undefined || (knownAt !== null && Date.parse(knownAt) >= slot) ? null : new Date(slot).toISOString(), last };
    }),
  };
};

type Known = BackupPolicyEvent | Extract<VmEvent, { type: 'VmRequested' }> | Extract<BackupEvent, { type: 'BackupDrilled' }>;

const proofOf = ({ type, data }: Pick<RecordedEvent, 'type' | 'data'>): Restore['proof'] => (type === 'VmRequested' ? (data['restore'] as Restore | null | undefined)?.proof : undefined);

export const backupPolicyView: Projection<BackupPolicyDocument> = {
  name: 'gateway.backup_policy',
  version: 2,
  keys(event) {
    if (categoryOf(event.stream) === 'backup-policy') return [idOfStream(event.stream)];
    const policyId = event.type === 'BackupDrilled' ? event.data['policyId'] : proofOf(event)?.policyId;
    return typeof policyId === 'string' ? [policyId] : [];
  },
  fold: (before, recorded) => {
    const event = recorded as RecordedEvent & Known;
    switch (event.type) {
      case 'BackupPolicyDeleted':
        return undefined;
      case 'BackupPolicySet': {
        const { policyId, ...wish } = event.data;
        const drilled = Object.fromEntries(Object.entries(before?.drilled ?? {}).filter(([vmId]) => wish.vms.includes(vmId as VmId)));
        return { id: policyId, ...wish, drilled, createdAt: before?.createdAt ?? event.recordedAt, changedAt: event.recordedAt, position: event.position, version: event.version };
      }
      case 'VmRequested': {
        const { restore, operationId } = event.data;
        if (before === undefined || restore?.proof === undefined) return before;
        const last: PolicyDrilled = { backupId: restore.backupId, operationId, begunAt: restore.proof.since, ok: null, because: null };
        return { ...before, drilled: { ...before.drilled, [restore.ofVm]: { last, knownAt: before.drilled[restore.ofVm]?.knownAt ?? null } } };
      }
      case 'BackupDrilled': {
        const { vmId, operationId, passed, how } = event.data;
        const last = before?.drilled[vmId]?.last;
        // Another was begun meanwhile: it will say more.
        return before === undefined || last?.operationId !== operationId ? before : { ...before, drilled: { ...before.drilled, [vmId]: { last: { ...last, ok: passed, because: how }, knownAt: last.begunAt } } };
      }
    }
  },
};
