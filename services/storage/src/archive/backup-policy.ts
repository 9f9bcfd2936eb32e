import { type Decider, refuse } from '@chronovirt/decider/decider';
import type { BackupPolicyCommand } from '@chronovirt/contracts/backup-policy/backup-policy.commands';
import type { BackupPolicyEvent } from '@chronovirt/contracts/backup-policy/backup-policy.events';

type Wish = Omit<Extract<BackupPolicyEvent, { type: 'BackupPolicySet' }>['data'], 'policyId'>;
export type BackupPolicy = { readonly status: 'absent' | 'deleted' } | { readonly status: 'live'; readonly wish: Wish };

/** Values of the contracts are plain JSON, their fields in the order of the schema. */
const same = (a: Wish, b: Wish): boolean => JSON.stringify(a) === JSON.stringify(b);

/** A schedule and what is kept. What is due when follows from it and from the time (services/scheduler/src/backup/schedule.ts). */
export const backupPolicy: Decider<BackupPolicyCommand, BackupPolicyEvent, BackupPolicy> = {
  category: 'backup-policy',
  initial: { status: 'absent' },
  decide(command, state) {
    const { policyId } = command.data;
    switch (command.type) {
      case 'MakeBackupPolicy':
        return state.status === 'absent' ? [{ type: 'BackupPolicySet', data: command.data }] : refuse('backup_policy.exists', { policyId });
      case 'ChangeBackupPolicy': {
        if (state.status !== 'live') return refuse('backup_policy.not_found', { policyId });
        const { policyId: _, ...wish } = command.data;
        return same(wish, state.wish) ? [] : [{ type: 'BackupPolicySet', data: command.data }];
      }
      case 'DeleteBackupPolicy':
        return state.status === 'live' ? [{ type: 'BackupPolicyDeleted', data: command.data }] : refuse('backup_policy.not_found', { policyId });
    }
  },
  evolve(_, event) {
    if (event.type === 'BackupPolicyDeleted') return { status: 'deleted' };
    const { policyId: _id, ...wish } = event.data;
    return { status: 'live', wish };
  },
};
