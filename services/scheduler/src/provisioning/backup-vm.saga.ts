/*
 * Copies what the disks of a VM hold to a target, while it runs on or stays stopped.
 *
 *     begin ─▶ node ─▶ record
 *
 * Storage first sets the record up, so that nothing deletes the backup that this one will build on; the node
 * copies, which may take a day; and storage records what came of it. Whatever fails, the node takes away what it
 * has begun and storage forgets it. A silent node owes that, and `settleBackup` pays it.
 */
import type { BackupTarget } from '@chronovirt/contracts/backup/backup';
import type { Outgoing } from '@chronovirt/contracts/command';
import type { NodeId, OperationId, VmId } from '@chronovirt/contracts/ids';
import { nothingToUndo, type Saga } from '@chronovirt/decider/saga';
import { type Machine, planOf } from '../vm/domain-plan.ts';
import type { BackupJob } from '../vm/vm.ts';
import { DAY_MS } from '../durations.ts';
import { fact, failVm, finishRemoval, finishVm, NODE_GONE, type OnNode, owedUndo, PLACEMENT_GONE, verb } from './node-verb.ts';

export interface BackupVm extends OnNode {
  readonly operationId: OperationId;
  readonly machine: Machine;
  readonly job: BackupJob;
}

const abandon = ({ vmId, operationId, job: { backupId } }: BackupVm): Outgoing => ({ to: 'storage', target: vmId, type: 'AbandonBackup', data: { vmId, operationId, backupId } });

const takeBack = (vm: BackupVm): Outgoing => verb('UndoBackup', vm, { ...planOf(vm.machine), backupId: vm.job.backupId, targetId: vm.job.target.targetId });

/** What of the machine is kept with its disks. */
const keptOf = ({ machine: { spec, first, nics, volumes, layout } }: BackupVm) =>
  ({ spec, network: first?.network ?? null, ...(nics.length === 0 ? {} : { nics: nics.map(({ network }) => network) }), volumes: [...volumes], ...(layout === null ? {} : { layout }) });

export const backupVm: Saga<BackupVm, Outgoing> = {
  name: 'backup-vm',
  steps: {
    begin: {
      deadlineMs: 30_000,
      run: ({ vmId, nodeId, operationId, job: { backupId, target, wants, scheduled } }) => ({ to: 'storage', target: vmId, type: 'BeginBackup', data: { vmId, nodeId, operationId, backupId, target, wants, scheduled } }),
      undo: abandon,
    },
    node: {
      after: ['begin'],
      deadlineMs: DAY_MS,
      undoDeadlineMs: 120_000,
      undoRefused: true,
      run: (vm, facts) => verb('BackupDomain', vm, { ...planOf(vm.machine), backupId: vm.job.backupId, targetId: vm.job.target.targetId, wants: vm.job.wants, parent: fact(facts['begin'], 'parent'), replaces: fact(facts['begin'], 'replaces'), machine: keptOf(vm) }),
      undo: takeBack,
    },
    record: {
      after: ['node'],
      deadlineMs: 60_000,
      run: (vm, facts) => {
        const { kind, because, parent, frozen, files, manifestSha256 } = facts['node'] ?? {};
        const { vmId, operationId, job: { backupId } } = vm;
        return { to: 'storage', target: vmId, type: 'RecordBackup', data: { vmId, operationId, backupId, machine: keptOf(vm), kind, because, parent, frozen, files, manifestSha256 } };
      },
      undo: nothingToUndo('the record is abandoned as a whole'),
    },
  },
  done: (vm, facts) => finishVm(vm, facts['node'], { how: `backed up, ${String(fact(facts['node'], 'kind'))}: ${String(fact(facts['node'], 'because'))}`.slice(0, 200) }),
  failed: failVm,
};

export interface SettleBackup extends BackupVm {
  /** The operation whose undo is owed. */
  readonly failedOperationId: OperationId;
}

/** Under the failed one's own name: it is its record that is abandoned. */
const ofFailed = (vm: SettleBackup): BackupVm => ({ ...vm, operationId: vm.failedOperationId });

export const settleBackup: Saga<SettleBackup, Outgoing> = {
  name: 'settle-backup',
  cleanUp: true,
  steps: {
    node: {
      deadlineMs: 120_000,
      run: (vm) => ({ ...takeBack(vm), ...owedUndo(backupVm.name, vm.failedOperationId, 'node') }),
      undo: nothingToUndo('it is itself an undo'),
      settledBy: PLACEMENT_GONE,
    },
    begin: {
      after: ['node'],
      deadlineMs: 30_000,
      run: (vm) => ({ ...abandon(ofFailed(vm)), ...owedUndo(backupVm.name, vm.failedOperationId, 'begin') }),
      undo: nothingToUndo('it is itself an undo'),
    },
  },
  done: finishRemoval,
  failed: failVm,
};

/** Deletes a backup from its target, by whichever node sees that. It only goes forward, and waits a day for a node. */
export interface DropBackup {
  readonly operationId: OperationId;
  /** Whose it was. */
  readonly vmId: VmId;
  readonly backupId: BackupJob['backupId'];
  readonly target: BackupTarget;
  readonly nodeId: NodeId;
}

export const dropBackup: Saga<DropBackup, Outgoing> = {
  name: 'drop-backup',
  cleanUp: true,
  steps: {
    node: {
      deadlineMs: DAY_MS,
      undo: nothingToUndo('what is deleted stays deleted'),
      // With the node, a target that nobody else sees is gone.
      settledBy: NODE_GONE,
      run: ({ nodeId, vmId, backupId, target }) => ({ to: 'node', target: nodeId, type: 'RemoveBackup', data: { nodeId, vmId, backupId, targetId: target.targetId } }),
    },
  },
  done: ({ vmId, backupId }) => ({ to: 'storage', target: vmId, type: 'FinishDeleteBackup', data: { vmId, backupId } }),
  failed: ({ vmId, backupId, operationId }) => ({ to: 'storage', target: vmId, type: 'AbandonDeleteBackup', data: { vmId, backupId, operationId } }),
};
