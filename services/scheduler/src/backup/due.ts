/*
 * What the policies of backups call for now: VMs to be backed up, and backups that nobody keeps any more. A
 * pure function of what the scheduler sees and of the time; asking for it again asks for the same.
 */
import type { PolicyDrill } from '@chronovirt/contracts/backup/backup';
import { slotAt } from '@chronovirt/contracts/backup-policy/slot';
import type { BackupId, BackupPolicyId, VmId } from '@chronovirt/contracts/ids';
import type { BackupEntry, PolicyEntry, VmEntry } from '../view.projection.ts';
import { chainLength, type Keepable, prunable } from './schedule.ts';

export interface Seen {
  backupPolicies(): Iterable<PolicyEntry>;
  backups(): Iterable<BackupEntry>;
  vm(vmId: string): VmEntry | undefined;
  /** Machines of drills that are not gone yet. */
  drills(): Iterable<VmEntry>;
  /** Whether the node can be asked for anything. */
  isHeard(nodeId: string): boolean;
}

export interface DueBackup {
  readonly policyId: BackupPolicyId;
  readonly vmId: VmId;
  /** Milliseconds since the epoch. */
  readonly slot: number;
  readonly target: string | undefined;
  readonly wants: 'auto' | 'full';
}

export interface DueRemoval {
  readonly vmId: VmId;
  readonly backupId: BackupId;
}

export interface DueDrill {
  readonly policyId: BackupPolicyId;
  readonly backupId: BackupId;
  readonly drill: PolicyDrill;
}

/** Drills that policies have under way at the same time, in the whole installation. */
const DRILLS_MAX = 2;

/** Backups that policies have one node take at the same time. */
const ON_NODE_MAX = 2;

const keepableOf = ({ backupId, taken, begunAt, scheduled }: BackupEntry, policyId: BackupPolicyId): Keepable =>
  ({ backupId, parent: taken?.parent ?? null, ours: taken !== null && scheduled?.policyId === policyId, at: Date.parse(taken?.at ?? begunAt) });

export const due = (seen: Seen, nowMs: number): { readonly backups: readonly DueBackup[]; readonly removals: readonly DueRemoval[]; readonly drills: readonly DueDrill[] } => {
  const policies = [...seen.backupPolicies()];
  // Asked each second: without a policy the backups need not be looked through.
  if (policies.length === 0) return { backups: [], removals: [], drills: [] };
  const byVm = Map.groupBy(seen.backups(), ({ vmId }) => vmId);
  const onNode = new Map<string, number>();
  for (const { vmId, taken } of seen.backups()) {
    const nodeId = seen.vm(vmId)?.nodeId;
    if (taken === null && nodeId !== undefined && nodeId !== null) onNode.set(nodeId, (onNode.get(nodeId) ?? 0) + 1);
  }
  const backups: DueBackup[] = [];
  const removals: DueRemoval[] = [];
  const drills: DueDrill[] = [];
  const drillsFree = policies.some(({ policy }) => policy.drill !== undefined) ? DRILLS_MAX - [...seen.drills()].length : 0;
  for (const { policy, since, slots, undrilled, drilledAt } of policies) {
    const { policyId, target, keep, fullEvery, drill } = policy;
    const slot = slotAt(policy.schedule, Date.parse(since), nowMs);
    const drillSlot = drill?.schedule === undefined ? undefined : slotAt(drill.schedule, Date.parse(since), nowMs);
    const wantsDrill = (vmId: VmId): boolean => (drill?.every === undefined ? drillSlot !== undefined && Date.parse(drilledAt[vmId] ?? '1970-01-01T00:00:00Z') < drillSlot : (undrilled[vmId] ?? 0) >= drill.every);
    for (const vmId of policy.vms) {
      const present = (byVm.get(vmId) ?? []).filter(({ deleting }) => deleting === null);
      const all = present.map((one) => keepableOf(one, policyId));
      // One that is being taken builds on something that is not known here yet: nothing goes meanwhile.
      if (present.every(({ taken }) => taken !== null)) for (const backupId of prunable(all, keep)) removals.push({ vmId, backupId });
      const latest = present.filter(({ taken, scheduled }) => taken !== null && scheduled?.policyId === policyId).sort((a, b) => Date.parse(b.taken?.at ?? '') - Date.parse(a.taken?.at ?? ''))[0];
      if (drill !== undefined && latest !== undefined && drills.length < drillsFree && wantsDrill(vmId) && present.every(({ taken }) => taken !== null)) drills.push({ policyId, backupId: latest.backupId, drill });
      const entry = seen.vm(vmId);
      if (slot === undefined || Date.parse(slots[vmId] ?? '1970-01-01T00:00:00Z') >= slot) continue;
      if (entry === undefined || entry.busy || entry.owed.length > 0 || !entry.provisioned || entry.nodeId === null || !seen.isHeard(entry.nodeId)) continue;
      const there = onNode.get(entry.nodeId) ?? 0;
      if (there >= ON_NODE_MAX) continue;
      onNode.set(entry.nodeId, there + 1);
      const newest = all.filter(({ ours }) => ours).sort((a, b) => b.at - a.at)[0];
      backups.push({ policyId, vmId, slot, target, wants: newest !== undefined && chainLength(all, newest.backupId) >= fullEvery ? 'full' : 'auto' });
    }
  }
  return { backups, removals, drills };
};
