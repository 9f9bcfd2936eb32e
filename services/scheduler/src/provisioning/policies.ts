/*
 * Which saga an event starts, or cancels. Events say only what was decided; what a saga needs beside them
 * is read from the VM as it is now. When the VM has another operation in hand by then, the event is history
 * and starts nothing.
 */
import type { NodeId, OperationId, PoolId, VmId } from '@chronovirt/contracts/ids';
import type { NetworkPlan } from '@chronovirt/contracts/network/network.events';
import type { Reconfiguration, VmEvent } from '@chronovirt/contracts/vm/vm.events';
import type { Facts } from '@chronovirt/decider/decider';
import { tidied, without } from '../vm/snapshots.ts';
import { type BackupJob, type LayerWork, type LiveVm, machineOf, type OperationKind, sagaOf, type Vm } from '../vm/vm.ts';
import type { BackupVm, SettleBackup } from './backup-vm.saga.ts';
import type { AdoptVm, SettleAdoption } from './adopt-vm.saga.ts';
import type { RemoveVm } from './delete-vm.saga.ts';
import type { GuestVm, SettleGuest } from './guest-vm.saga.ts';
import type { OnNode } from './node-verb.ts';
import type { PowerVm, SettlePower } from './power-vm.saga.ts';
import type { ProvisionVm } from './provision-vm.saga.ts';
import type { PublishVm } from './publish-vm.saga.ts';
import { isOfNode } from '@chronovirt/contracts/vm/assigned';
import type { ReconfigureVm, SettleReconfiguration } from './reconfigure-vm.saga.ts';
import { type SnapshotVm, takeBackSteps, type TidyVm } from './snapshot-vm.saga.ts';

export type Reaction =
  | { readonly kind: 'start'; readonly saga: string; readonly id: OperationId; readonly input: Facts }
  | { readonly kind: 'cancel'; readonly saga: string; readonly id: OperationId; readonly because: string };

/** What a creation that failed knew and the VM does not: where capacity was set aside, which MAC a node may serve. */
export interface LeftBehind {
  readonly nodeId: NodeId | null;
  readonly poolId: PoolId | null;
  readonly mac: string | null;
  /** Of interfaces beside the first. */
  readonly macs: readonly { readonly subnetId: string; readonly mac: string }[];
}

export const nothingLeft: LeftBehind = { nodeId: null, poolId: null, mac: null, macs: [] };

/** Whether the reaction to an event takes away what a VM has. */
export const isRemoval = (type: string): boolean => type === 'VmDeleteStarted' || type === 'VmDrilled' || type === 'VmCleanUpStarted';

/** The disk that a VM is made with has the VM's digits: nothing has to be remembered to find it, when it was not made to the end. */
export const firstVolumeOf = (vmId: VmId) => `volume_${vmId.slice('vm_'.length)}` as const;

/** `nameKeyOf` is SHA-256 in hex. */
export const reactionTo = (event: Pick<VmEvent, 'type' | 'data'>, vm: Vm, nameKeyOf: (name: string) => string, left: LeftBehind = nothingLeft): Reaction | undefined => {
  const { type, data } = event as VmEvent;
  if (vm.status !== 'live') return undefined;
  if (type === 'VmDeleteRequested') {
    if (data.cancels === null || vm.operation?.id !== data.cancels) return undefined;
    return { kind: 'cancel', saga: sagaOf(vm.operation.kind, vm), id: data.cancels, because: `the VM is being deleted by ${data.operationId}` };
  }
  if (!('operationId' in data) || vm.operation?.id !== data.operationId) return undefined;
  const { operationId } = data;
  const { work, backup } = vm.operation;
  const begin = (kind: OperationKind, input: object): Reaction => ({ kind: 'start', saga: sagaOf(kind, vm), id: operationId, input: input as Facts });
  switch (type) {
    case 'VmRequested':
      return begin('create', provisioning(vm, operationId, nameKeyOf));
    case 'VmAdoptRequested':
      return begin('adopt', adopting(vm, operationId, nameKeyOf));
    case 'VmPowerRequested':
      return vm.nodeId === null ? undefined : begin('power', powering(vm, data));
    case 'VmReconfigureRequested':
      return vm.nodeId === null ? undefined : begin('reconfigure', reconfiguring(vm, operationId, data.change, nameKeyOf));
    case 'VmGuestRequested':
      return vm.nodeId === null ? undefined : begin('guest', { operationId, ...placeOf(vm), request: data.request } satisfies GuestVm);
    case 'VmPublishRequested':
      return vm.nodeId === null ? undefined : begin('publish', { ...data, ...placeOf(vm) } satisfies PublishVm);
    case 'VmSnapshotRequested':
      return work?.kind === 'take' ? begin('snapshot', layering(vm, operationId, work)) : undefined;
    case 'VmRevertRequested':
      return work?.kind === 'revert' ? begin('revert', layering(vm, operationId, work)) : undefined;
    case 'VmReverted':
      return work?.kind === 'tidy' ? begin('revert', tidying(vm, operationId, work, null)) : undefined;
    case 'VmSnapshotDeleteRequested':
      return work?.kind === 'delete' ? begin('delete-snapshot', tidying(vm, operationId, work, null)) : undefined;
    case 'VmBackupRequested':
      return backup === null ? undefined : begin('backup', backingUp(vm, operationId, backup));
    case 'VmDeleteStarted':
    case 'VmDrilled':
      return begin('delete', removal(vm, operationId, nameKeyOf, left));
    case 'VmCleanUpStarted':
      return begin('clean-up', settling(vm, operationId, nameKeyOf) ?? removal(vm, operationId, nameKeyOf, left));
    default:
      return undefined;
  }
};

/** What is not there is left out: the log holds no such value. */
const toFetch = ({ fetchBytes }: LiveVm): { readonly fetchBytes?: number } => (fetchBytes === undefined ? {} : { fetchBytes });

const provisioning = (vm: LiveVm, operationId: OperationId, nameKeyOf: (name: string) => string): ProvisionVm => {
  if (vm.network === null) throw new Error(`${vm.vmId} has no network`);
  return {
    operationId, vmId: vm.vmId, volumeId: firstVolumeOf(vm.vmId), spec: vm.spec, imageFile: vm.imageFile, imageFormat: vm.imageFormat, ...toFetch(vm), network: vm.network,
    restore: vm.restore, copy: vm.copy, ...(vm.bootRuns.length === 0 ? {} : { bootRuns: vm.bootRuns }), nameKey: nameKeyOf(vm.spec.name),
  };
};

const adopting = (vm: LiveVm, operationId: OperationId, nameKeyOf: (name: string) => string): AdoptVm => {
  const { layout } = vm;
  const [first] = layout?.disks ?? [];
  if (layout === null || first === undefined) throw new Error(`${vm.vmId} was not adopted`);
  return { operationId, ...placeOf(vm), poolId: poolOf(vm), layout, nameKey: nameKeyOf(vm.spec.name), machine: { vmId: vm.vmId, spec: vm.spec, volumeId: first.volumeId, first: null, layout, nics: [], volumes: vm.volumes, seedVersion: 1, layers: {} } };
};

const removal = (vm: LiveVm, operationId: OperationId, nameKeyOf: (name: string) => string, left: LeftBehind): RemoveVm => ({
  operationId, vmId: vm.vmId, volumeId: vm.provisioned?.volumeId ?? firstVolumeOf(vm.vmId), nodeId: vm.nodeId, reservedOn: vm.nodeId ?? left.nodeId, poolId: vm.poolId ?? left.poolId, generation: vm.generation,
  // With what a change has left that is owed.
  nics: [...nicOf(vm.network, vm.provisioned?.mac ?? left.mac), ...[...vm.nics, ...listOf(vm.debt?.nic)].map(({ network, mac }) => ({ network, mac })), ...unbuilt(vm).flatMap((network) => left.macs.flatMap(({ subnetId, mac }) => (subnetId === network.subnetId ? [{ network, mac }] : [])))],
  subnetIds: [...listOf(vm.network), ...vm.nics.map((nic) => nic.network), ...unbuilt(vm), ...listOf(vm.debt?.change?.addNic)].map(({ subnetId }) => subnetId),
  // One that was to come, and is owed, goes with it; the others stay.
  // Those that came with a machine that never was go with it.
  volumes: [...vm.volumes.map(({ volumeId }) => ({ volumeId, delete: vm.deletesDisks || vm.provisioned === null ? dropOf(operationId, volumeId, nameKeyOf) : null })), ...[...listOf(vm.debt?.change?.addVolume), ...listOf(vm.debt?.change?.rebuild)].map(({ volumeId }) => ({ volumeId, delete: dropOf(operationId, volumeId, nameKeyOf) })), ...listOf(vm.debt?.change?.attachVolume).map(({ volumeId }) => ({ volumeId, delete: null }))],
  backup: vm.debt === null || vm.debt.backup === null ? null : { backupId: vm.debt.backup.backupId, operationId: dropOf(operationId, vm.debt.backup.backupId, nameKeyOf) },
  drilled: drilledOf(vm),
  devices: [...(vm.spec.assigned ?? []), ...listOf(vm.debt?.change?.addDevice)].some(isOfNode),
  nameKey: nameKeyOf(vm.spec.name), otherNameKey: vm.debt?.change?.name === undefined ? null : nameKeyOf(vm.debt.change.name),
});

/** Networks of interfaces beside the first that one was to be made with, and was not. */
const unbuilt = ({ provisioned, restore, copy }: LiveVm): readonly NetworkPlan[] => (provisioned === null ? (restore ?? copy)?.nics ?? [] : []);

/** Of a drill that says something of its backup. */
const drilledOf = ({ restore, drilled }: LiveVm): NonNullable<RemoveVm['drilled']> | null => {
  if (restore?.proof === undefined || drilled?.verdict !== true) return null;
  const { passed, how, operationId } = drilled;
  return { vmId: restore.ofVm, backupId: restore.backupId, operationId, passed, how, criterion: restore.proof.criterion, since: restore.proof.since, ...(restore.proof.policyId === undefined ? {} : { policyId: restore.proof.policyId }) };
};

/** The operation that deletes a volume because of another operation. */
const dropOf = (operationId: OperationId, volumeId: string, hashOf: (text: string) => string): OperationId => `op_${hashOf(`${operationId}:${volumeId}`).slice(0, 32)}`;

const listOf = <T>(one: T | null | undefined): readonly T[] => (one === null || one === undefined ? [] : [one]);

const nicOf = (network: NetworkPlan | null, mac: string | null): RemoveVm['nics'] => (mac === null || network === null ? [] : [{ network, mac }]);

const placeOf = ({ vmId, nodeId, generation }: LiveVm): OnNode => {
  if (nodeId === null) throw new Error(`${vmId} has no node`);
  return { vmId, nodeId, generation };
};

const poolOf = ({ vmId, poolId }: LiveVm): PoolId => {
  if (poolId === null) throw new Error(`${vmId} has no pool`);
  return poolId;
};

const backingUp = (vm: LiveVm, operationId: OperationId, job: BackupJob): BackupVm => ({ operationId, ...placeOf(vm), machine: machineOf(vm, vm.snapshots), job });

type Layering = Extract<LayerWork, { kind: 'take' | 'revert' }>;

const layering = (vm: LiveVm, operationId: OperationId, work: Layering): SnapshotVm => {
  const machine = machineOf(vm, vm.snapshots);
  const now = [machine.volumeId, ...vm.volumes.map(({ volumeId }) => volumeId)].map((volumeId) => ({ volumeId, layer: machine.layers[volumeId] ?? null }));
  const then = vm.snapshots.list.find(({ snapshotId }) => snapshotId === work.snapshotId)?.disks.map(({ volumeId, layer }) => ({ volumeId, layer })) ?? [];
  const of = { operationId, ...placeOf(vm), kind: work.kind, machine, on: work.kind === 'take' ? now : then };
  if (work.layer !== null) return { ...of, layer: work.layer };
  return work.kind === 'take' ? { ...of, layer: null, as: work.snapshotId, back: null } : { ...of, layer: null, as: operationId, back: work.snapshotId };
};

/** What an operation leaves to be tidied away, or a failed one to be taken back. */
const tidying = (vm: LiveVm, operationId: OperationId, work: LayerWork, owedBy: OperationId | null): TidyVm => {
  if (work.kind === 'take' || work.kind === 'revert') {
    const steps = takeBackSteps(layering(vm, owedBy ?? operationId, work));
    return { operationId, ...placeOf(vm), machine: machineOf(vm, vm.snapshots), steps, owedBy: owedBy === null ? null : { saga: 'snapshot-vm', operationId: owedBy } };
  }
  const { steps, snapshots } = tidied(work.kind === 'delete' ? without(vm.snapshots, work.snapshotId) : vm.snapshots);
  return { operationId, ...placeOf(vm), machine: machineOf(vm, snapshots), steps, owedBy: owedBy === null ? null : { saga: 'tidy-layers', operationId: owedBy } };
};

const reconfiguring = (vm: LiveVm, operationId: OperationId, change: Reconfiguration, nameKeyOf: (name: string) => string): ReconfigureVm => {
  const { spec, nics, held } = vm;
  return {
    operationId, ...placeOf(vm), poolId: poolOf(vm), change, held, machine: machineOf(vm, vm.snapshots),
    image: vm.imageFile === null || spec.imageId === null ? null : { imageId: spec.imageId, file: vm.imageFile, format: vm.imageFormat, ...toFetch(vm) },
    removedSubnetId: nics.find((nic) => nic.mac === change.removeNic)?.network.subnetId ?? null,
    dropOperationId: dropOf(operationId, change.detachVolume?.volumeId ?? '', nameKeyOf),
    nameKeyBefore: nameKeyOf(spec.name), nameKeyAfter: nameKeyOf(change.name ?? spec.name),
  };
};

/** Of the slowest disk that memory is written to and read from. */
const SAVED_MIB_PER_SECOND = 20;

const powering = (vm: LiveVm, { operationId, action, timeoutSeconds, force }: Extract<VmEvent, { type: 'VmPowerRequested' }>['data']): PowerVm => {
  const goesOn = action === 'start' && vm.desiredBefore === 'saved';
  const { vcpus, memoryMib } = goesOn ? vm.held : vm.spec;
  return { operationId, ...placeOf(vm), action, vcpus, memoryMib, timeoutSeconds: goesOn || action === 'save' ? Math.ceil(vm.held.memoryMib / SAVED_MIB_PER_SECOND) : timeoutSeconds, force };
};

/** undefined: what is owed was left by a creation or a deletion. */
const settling = (vm: LiveVm, operationId: OperationId, nameKeyOf: (name: string) => string): SettlePower | SettleReconfiguration | SettleGuest | SettleBackup | SettleAdoption | TidyVm | undefined => {
  if (vm.debt === null) return undefined;
  if (vm.provisioned === null) return { ...adopting(vm, operationId, nameKeyOf), failedOperationId: vm.debt.operationId };
  if (vm.debt.work !== null) return tidying(vm, operationId, vm.debt.work, vm.debt.operationId);
  const { operationId: failedOperationId, action, change, nic, backup } = vm.debt;
  if (backup !== null) return { ...backingUp(vm, operationId, backup), failedOperationId };
  if (action === null && change === null) return { operationId, ...placeOf(vm), failedOperationId };
  return action === null ? { ...reconfiguring(vm, operationId, change, nameKeyOf), failedOperationId, added: nic } : { ...powering(vm, { operationId, action, timeoutSeconds: 0, force: false }), failedOperationId };
};
