/*
 * Takes away everything that a VM has, in the order in which it can do no harm: first what runs, then what
 * it ran on, and only when the node has confirmed that, what another VM could be given: address, disk space,
 * capacity, name. Nothing here can be undone. What a silent node keeps from being done is owed, and a
 * reconciler starts the rest again when the node is back, or was removed.
 *
 * The machine of a drill goes the same way as soon as it has been seen to come up or not: that is recorded
 * here, so what a crash interrupts is gone on with as every deletion is.
 *
 * `deleteVm` ends with the VM gone. `cleanUpVm` does the same to what a failed operation left behind, and
 * leaves the failed VM to be looked at.
 */
import type { BackupCommand } from '@chronovirt/contracts/backup/backup.commands';
import type { Outgoing } from '@chronovirt/contracts/command';
import type { NetworkPlan } from '@chronovirt/contracts/network/network.events';
import type { BackupId, NodeId, OperationId, PoolId, SubnetId, VmId, VolumeId } from '@chronovirt/contracts/ids';
import { nothingToUndo, type Saga, type Step } from '@chronovirt/decider/saga';
import { failVm, finishRemoval, NODE_GONE, verb } from './node-verb.ts';

export interface RemoveVm {
  readonly operationId: OperationId;
  readonly vmId: VmId;
  readonly volumeId: VolumeId;
  /** null: no node was ever assigned, so no node has anything of it. */
  readonly nodeId: NodeId | null;
  /** Where capacity was set aside: a node may have been chosen and not assigned yet. */
  readonly reservedOn: NodeId | null;
  readonly poolId: PoolId | null;
  readonly generation: number;
  /** Whose leases a node may serve. */
  readonly nics: readonly { readonly network: NetworkPlan; readonly mac: string }[];
  readonly subnetIds: readonly SubnetId[];
  /** Disks beside the first: they stay, or are deleted by an operation of their own. */
  readonly volumes: readonly { readonly volumeId: VolumeId; readonly delete: OperationId | null }[];
  /** One that was begun and is owed, and the operation that takes it away. */
  readonly backup?: { readonly backupId: BackupId; readonly operationId: OperationId } | null;
  /** What is said of a backup when the machine of its drill goes. */
  readonly drilled?: Extract<BackupCommand, { type: 'RecordDrill' }>['data'] | null;
  /** It has devices of its node. */
  readonly devices?: boolean;
  readonly nameKey: string;
  /** Of a name that it was to get, and that is owed. */
  readonly otherNameKey: string | null;
}

const undo = nothingToUndo('what is deleted stays deleted');
const settledBy = NODE_GONE;

const steps: Readonly<Record<string, Step<RemoveVm, Outgoing>>> = {
  record: {
    deadlineMs: 30_000, undo,
    run: ({ drilled = null }) => (drilled === null ? undefined : { to: 'storage', target: drilled.vmId, type: 'RecordDrill', data: drilled }),
  },
  domain: {
    deadlineMs: 60_000, undo, settledBy,
    run: ({ nodeId, vmId, generation, nics }) => (nodeId === null ? undefined : verb('RemoveDomain', { nodeId, vmId, generation }, { nics: [...nics] })),
  },
  disk: {
    after: ['domain'], deadlineMs: 60_000, undo, settledBy,
    run: ({ nodeId, vmId, generation, volumeId }) => (nodeId === null ? undefined : verb('RemoveDisk', { nodeId, vmId, generation }, { volumeId })),
  },
  volumes: {
    after: ['domain'], deadlineMs: 30_000, undo,
    run: ({ vmId, volumes }) => (volumes.length === 0 ? undefined : { to: 'storage', target: vmId, type: 'DetachVolumes', data: { vmId, volumes } }),
  },
  backup: {
    after: ['domain'], deadlineMs: 30_000, undo,
    run: ({ vmId, backup = null }) => (backup === null ? undefined : { to: 'storage', target: vmId, type: 'DeleteBackup', data: { vmId, ...backup, abandoned: true } }),
  },
  address: {
    after: ['disk'], deadlineMs: 30_000, undo,
    run: ({ subnetIds, vmId }) => (subnetIds.length === 0 ? undefined : { to: 'ipam', target: vmId, type: 'ReleaseAddresses', data: { subnetIds, vmId } }),
  },
  volume: {
    after: ['disk'], deadlineMs: 30_000, undo,
    run: ({ volumeId, vmId }) => ({ to: 'storage', target: volumeId, type: 'DeleteVolume', data: { volumeId, vmId } }),
  },
  space: {
    after: ['disk'], deadlineMs: 30_000, undo,
    run: ({ poolId, volumeId, vmId }) => (poolId === null ? undefined : { to: 'storage', target: poolId, type: 'ReleaseSpace', data: { poolId, volumeId, vmId } }),
  },
  capacity: {
    after: ['disk'], deadlineMs: 30_000, undo,
    run: ({ vmId, operationId, reservedOn }) => ({ to: 'scheduler', target: vmId, type: 'UnplaceVm', data: { vmId, operationId, nodeId: reservedOn } }),
  },
  devices: {
    after: ['domain'], deadlineMs: 30_000, undo,
    run: ({ vmId, nodeId, devices = false }) => (nodeId === null || !devices ? undefined : { to: 'scheduler', target: nodeId, type: 'ReleaseDevice', data: { nodeId, vmId, device: null } }),
  },
  name: {
    after: ['disk'], deadlineMs: 30_000, undo,
    run: ({ nameKey, vmId }) => ({ to: 'scheduler', target: nameKey, type: 'UnclaimVmName', data: { key: nameKey, owner: vmId } }),
  },
  otherName: {
    after: ['disk'], deadlineMs: 30_000, undo,
    run: ({ otherNameKey, vmId }) => (otherNameKey === null ? undefined : { to: 'scheduler', target: otherNameKey, type: 'UnclaimVmName', data: { key: otherNameKey, owner: vmId } }),
  },
};

const removal = (name: string): Saga<RemoveVm, Outgoing> => ({
  name,
  steps,
  cleanUp: true,
  done: finishRemoval,
  failed: failVm,
});

export const deleteVm = removal('delete-vm');
export const cleanUpVm = removal('clean-up-vm');
