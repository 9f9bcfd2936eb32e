/*
 * Which saga an event starts, or cancels. Events say only what was decided; what a saga needs beside them
 * is read from the VM as it is now. When the VM has another operation in hand by then, the event is history
 * and starts nothing.
 */
import type { NodeId, OperationId, PoolId, VmId } from '@chronovirt/contracts/ids';
import type { NetworkPlan } from '@chronovirt/contracts/network/network.events';
import type { Reconfiguration, VmEvent } from '@chronovirt/contracts/vm/vm.events';
import type { Facts } from '@chronovirt/decider/decider';
import { type LiveVm, sagaOf, type Vm } from '../vm/vm.ts';
import type { RemoveVm } from './delete-vm.saga.ts';
import type { GuestVm, SettleGuest } from './guest-vm.saga.ts';
import type { PowerVm, SettlePower } from './power-vm.saga.ts';
import type { ProvisionVm } from './provision-vm.saga.ts';
import type { ReconfigureVm, SettleReconfiguration } from './reconfigure-vm.saga.ts';

export type Reaction =
  | { readonly kind: 'start'; readonly saga: string; readonly id: OperationId; readonly input: Facts }
  | { readonly kind: 'cancel'; readonly saga: string; readonly id: OperationId; readonly because: string };

/** What a creation that failed knew and the VM does not: where capacity was set aside, which MAC a node may serve. */
export interface LeftBehind {
  readonly nodeId: NodeId | null;
  readonly poolId: PoolId | null;
  readonly mac: string | null;
}

export const nothingLeft: LeftBehind = { nodeId: null, poolId: null, mac: null };

/** Whether the reaction to an event takes away what a VM has. */
export const isRemoval = (type: string): boolean => type === 'VmDeleteStarted' || type === 'VmCleanUpStarted';

/** A VM's first disk has the VM's digits: nothing has to be remembered to find it. */
export const firstVolumeOf = (vmId: VmId) => `volume_${vmId.slice('vm_'.length)}` as const;

/** `nameKeyOf` is SHA-256 in hex. */
export const reactionTo = (event: Pick<VmEvent, 'type' | 'data'>, vm: Vm, nameKeyOf: (name: string) => string, left: LeftBehind = nothingLeft): Reaction | undefined => {
  const { type, data } = event as VmEvent;
  if (vm.status !== 'live') return undefined;
  switch (type) {
    case 'VmRequested':
      return inHand(vm, data.operationId) ? { kind: 'start', saga: sagaOf('create', vm), id: data.operationId, input: provisioning(vm, data.operationId, nameKeyOf) as unknown as Facts } : undefined;
    case 'VmPowerRequested':
      return inHand(vm, data.operationId) && vm.nodeId !== null
        ? { kind: 'start', saga: sagaOf('power', vm), id: data.operationId, input: powering(vm, data) as unknown as Facts }
        : undefined;
    case 'VmReconfigureRequested':
      return inHand(vm, data.operationId) && vm.nodeId !== null
        ? { kind: 'start', saga: sagaOf('reconfigure', vm), id: data.operationId, input: reconfiguring(vm, data.operationId, data.change, nameKeyOf) as unknown as Facts }
        : undefined;
    case 'VmGuestRequested':
      return inHand(vm, data.operationId) && vm.nodeId !== null
        ? { kind: 'start', saga: sagaOf('guest', vm), id: data.operationId, input: { ...guestOf(vm, data.operationId), request: data.request } satisfies GuestVm as unknown as Facts }
        : undefined;
    case 'VmDeleteRequested': {
      if (data.cancels === null || vm.operation?.id !== data.cancels) return undefined;
      return { kind: 'cancel', saga: sagaOf(vm.operation.kind, vm), id: data.cancels, because: `the VM is being deleted by ${data.operationId}` };
    }
    case 'VmDeleteStarted':
      return inHand(vm, data.operationId) ? { kind: 'start', saga: sagaOf('delete', vm), id: data.operationId, input: removal(vm, data.operationId, nameKeyOf, left) as unknown as Facts } : undefined;
    case 'VmCleanUpStarted':
      return inHand(vm, data.operationId) ? { kind: 'start', saga: sagaOf('clean-up', vm), id: data.operationId, input: (settling(vm, data.operationId, nameKeyOf) ?? removal(vm, data.operationId, nameKeyOf, left)) as unknown as Facts } : undefined;
    default:
      return undefined;
  }
};

const inHand = (vm: LiveVm, operationId: string): boolean => vm.operation?.id === operationId;

const provisioning = (vm: LiveVm, operationId: OperationId, nameKeyOf: (name: string) => string): ProvisionVm => ({
  operationId, vmId: vm.vmId, volumeId: firstVolumeOf(vm.vmId), spec: vm.spec, imageFile: vm.imageFile, imageFormat: vm.imageFormat, network: vm.network, nameKey: nameKeyOf(vm.spec.name),
});


const removal = (vm: LiveVm, operationId: OperationId, nameKeyOf: (name: string) => string, left: LeftBehind): RemoveVm => ({
  operationId, vmId: vm.vmId, volumeId: firstVolumeOf(vm.vmId), nodeId: vm.nodeId, reservedOn: vm.nodeId ?? left.nodeId, poolId: vm.poolId ?? left.poolId, generation: vm.generation,
  // With what a change has left that is owed.
  nics: [...nicOf(vm.network, vm.provisioned?.mac ?? left.mac), ...[...vm.nics, ...listOf(vm.debt?.nic)].map(({ network, mac }) => ({ network, mac }))],
  subnetIds: [vm.network, ...vm.nics.map((nic) => nic.network), ...listOf(vm.debt?.change?.addNic)].map(({ subnetId }) => subnetId),
  // One that was to come, and is owed, goes with it; the others stay.
  volumes: [...vm.volumes.map(({ volumeId }) => ({ volumeId, delete: vm.deletesDisks ? dropOf(operationId, volumeId, nameKeyOf) : null })), ...listOf(vm.debt?.change?.addVolume).map(({ volumeId }) => ({ volumeId, delete: dropOf(operationId, volumeId, nameKeyOf) })), ...listOf(vm.debt?.change?.attachVolume).map(({ volumeId }) => ({ volumeId, delete: null }))],
  nameKey: nameKeyOf(vm.spec.name), otherNameKey: vm.debt?.change?.name === undefined ? null : nameKeyOf(vm.debt.change.name),
});

/** The operation that deletes a volume because of another operation. */
const dropOf = (operationId: OperationId, volumeId: string, hashOf: (text: string) => string): OperationId => `op_${hashOf(`${operationId}:${volumeId}`).slice(0, 32)}`;

const listOf = <T>(one: T | null | undefined): readonly T[] => (one === null || one === undefined ? [] : [one]);

const nicOf = (network: NetworkPlan, mac: string | null): RemoveVm['nics'] => (mac === null ? [] : [{ network, mac }]);

const reconfiguring = (vm: LiveVm, operationId: OperationId, change: Reconfiguration, nameKeyOf: (name: string) => string): ReconfigureVm => {
  const { vmId, nodeId, poolId, generation, spec, network, provisioned, nics, volumes, held, seedVersion } = vm;
  if (nodeId === null || poolId === null || provisioned === null) throw new Error(`${vmId} has no node`);
  const { volumeId, mac, address } = provisioned;
  return {
    operationId, vmId, nodeId, poolId, generation, change, held, machine: { vmId, spec, volumeId, network, mac, address, nics, volumes, seedVersion },
    removedSubnetId: nics.find((nic) => nic.mac === change.removeNic)?.network.subnetId ?? null,
    dropOperationId: dropOf(operationId, change.detachVolume?.volumeId ?? '', nameKeyOf),
    nameKeyBefore: nameKeyOf(spec.name), nameKeyAfter: nameKeyOf(change.name ?? spec.name),
  };
};

const powering = (vm: LiveVm, { operationId, action, timeoutSeconds, force }: Extract<VmEvent, { type: 'VmPowerRequested' }>['data']): PowerVm => {
  if (vm.nodeId === null) throw new Error(`${vm.vmId} has no node`);
  return { operationId, vmId: vm.vmId, nodeId: vm.nodeId, generation: vm.generation, action, vcpus: vm.spec.vcpus, memoryMib: vm.spec.memoryMib, timeoutSeconds, force };
};

const guestOf = (vm: LiveVm, operationId: OperationId): Omit<GuestVm, 'request'> => {
  if (vm.nodeId === null) throw new Error(`${vm.vmId} has no node`);
  return { operationId, vmId: vm.vmId, nodeId: vm.nodeId, generation: vm.generation };
};

/** undefined: what is owed was left by a creation or a deletion. */
const settling = (vm: LiveVm, operationId: OperationId, nameKeyOf: (name: string) => string): SettlePower | SettleReconfiguration | SettleGuest | undefined => {
  if (vm.debt === null) return undefined;
  const { operationId: failedOperationId, action, change, nic } = vm.debt;
  if (action === null && change === null) return { ...guestOf(vm, operationId), failedOperationId };
  return action === null ? { ...reconfiguring(vm, operationId, change, nameKeyOf), failedOperationId, added: nic } : { ...powering(vm, { operationId, action, timeoutSeconds: 0, force: false }), failedOperationId };
};
