/*
 * Makes a machine different while it exists, running or not: CPUs, memory, disk size, name, boot order,
 * medium, interfaces, disks, its first disk anew. Whatever is new is taken first; then the node is given the whole domain as it should
 * be, and makes what it has the same; then what is not needed any more is given back.
 *
 *     name, capacity, address, device, volume ─▶ space ─▶ disk ─▶ domain ─▶ back
 *
 * The way back is the same command with the domain as it was. Disks only grow, so a disk that has grown
 * stays so, and costs nothing: it is thin.
 *
 * Capacity is only ever added here. What a running machine shall have less of waits for its next start, and
 * a start takes what is needed then.
 *
 * A reconfiguration gives back at most one thing (a name, an address, a device or a volume), as its last step: what was given
 * back may belong to somebody else a moment later, so nothing may follow that could fail.
 */
import type { Outgoing } from '@chronovirt/contracts/command';
import type { OperationId, PoolId, VolumeId } from '@chronovirt/contracts/ids';
import { type AssignedDevice, deviceName, isOfNode } from '@chronovirt/contracts/vm/assigned';
import { bootRunsAfterChange, layoutAfterChange, nicsAfterChange, specAfterChange, volumesAfterChange } from '@chronovirt/contracts/vm/reconfiguration';
import type { AttachedVolume, Nic, Reconfiguration } from '@chronovirt/contracts/vm/vm.events';
import { nothingToUndo, type Saga, type StepFacts } from '@chronovirt/decider/saga';
import { largerOf, type Machine, planOf, type Share } from '../vm/domain-plan.ts';
import { fact, failVm, fetchMs, finishRemoval, finishVm, mediaBytes, NODE_GONE, type OnNode, owedUndo, PLACEMENT_GONE, verb } from './node-verb.ts';

type DiskImage = NonNullable<Reconfiguration['addVolume']>['image'];

export interface ReconfigureVm extends OnNode {
  readonly operationId: OperationId;
  readonly machine: Machine;
  readonly change: Reconfiguration;
  /** That the machine was made from. */
  readonly image: DiskImage;
  /** What is set aside for it while it runs: more than the wish where less waits for a start. */
  readonly held: Share;
  readonly poolId: PoolId;
  /** The operation that deletes the volume that goes. */
  readonly dropOperationId: OperationId;
  /** Network of the interface that goes. */
  readonly removedSubnetId: string | null;
  /** SHA-256 of the names. */
  readonly nameKeyBefore: string;
  readonly nameKeyAfter: string;
}

const addedNic = ({ change }: ReconfigureVm, facts: StepFacts): Nic | null =>
  (change.addNic === undefined ? null : { network: change.addNic, mac: fact(facts['address'], 'mac'), address: fact(facts['address'], 'address') });

const addedVolume = ({ change: { addVolume, attachVolume } }: ReconfigureVm, facts: StepFacts): AttachedVolume | null => {
  if (addVolume !== undefined) return { volumeId: addVolume.volumeId, unit: addVolume.unit, sizeGib: addVolume.sizeGib, limits: addVolume.limits };
  return attachVolume === undefined ? null : { ...attachVolume, sizeGib: fact(facts['volume'], 'sizeGib'), limits: null, poolId: fact(facts['volume'], 'poolId') };
};

/** One that has no bytes yet: a second, or the first anew. Without a name it is the one that the machine is made with. */
const newDisk = ({ machine, change: { addVolume, rebuild }, image }: ReconfigureVm): { readonly volumeId: VolumeId; readonly sizeGib: number; readonly image: DiskImage; readonly name?: string } | undefined =>
  (addVolume ?? (rebuild === undefined ? undefined : { volumeId: rebuild.volumeId, sizeGib: machine.spec.diskGib, image }));

const after = (vm: ReconfigureVm, facts: StepFacts): Machine => ({
  ...vm.machine, volumeId: vm.change.rebuild?.volumeId ?? vm.machine.volumeId, spec: specAfterChange(vm.machine.spec, vm.change), nics: nicsAfterChange(vm.machine.nics, vm.change, addedNic(vm, facts)), layout: layoutAfterChange(vm.machine.layout, vm.change),
  volumes: volumesAfterChange(vm.machine.volumes, vm.change, addedVolume(vm, facts)), bootRuns: bootRunsAfterChange(vm.machine.bootRuns ?? [], vm.change, vm.change.addBootRun), seedVersion: vm.machine.seedVersion + (vm.change.cloudInit === undefined ? 0 : 1),
});

const renamed = ({ nameKeyBefore, nameKeyAfter }: ReconfigureVm): boolean => nameKeyBefore !== nameKeyAfter;
const unclaim = ({ vmId }: ReconfigureVm, key: string): Outgoing => ({ to: 'scheduler', target: key, type: 'UnclaimVmName', data: { key, owner: vmId } });
const release = ({ vmId }: ReconfigureVm, subnetId: string): Outgoing => ({ to: 'ipam', target: subnetId, type: 'ReleaseAddress', data: { subnetId, vmId } });

const releaseDevice = ({ vmId, nodeId }: ReconfigureVm, device: AssignedDevice): Outgoing => ({ to: 'scheduler', target: nodeId, type: 'ReleaseDevice', data: { nodeId, vmId, device: deviceName(device) } });
/** That of its node which comes. */
const heldDevice = (vm: ReconfigureVm, type: 'HoldDevice' | 'ReleaseDevice'): Outgoing | undefined => {
  const { vmId, nodeId, change: { addDevice } } = vm;
  if (addDevice === undefined || !isOfNode(addDevice)) return undefined;
  return type === 'HoldDevice' ? { to: 'scheduler', target: nodeId, type, data: { nodeId, vmId, device: deviceName(addDevice) } } : releaseDevice(vm, addDevice);
};

const resizeCapacity = ({ vmId, nodeId }: ReconfigureVm, { vcpus, memoryMib }: Share): Outgoing =>
  ({ to: 'scheduler', target: nodeId, type: 'ResizeCapacity', data: { nodeId, vmId, vcpus, memoryMib } });
const grows = ({ change, held }: ReconfigureVm): boolean => (change.vcpus ?? 0) > held.vcpus || (change.memoryMib ?? 0) > held.memoryMib;
/** A disk that grows; null: none does. */
const growth = ({ poolId, machine: { spec, volumeId, volumes }, change: { diskGib, changeVolume } }: ReconfigureVm) => {
  if (diskGib !== undefined) return { volumeId, poolId, fromGib: spec.diskGib, toGib: diskGib };
  const present = volumes.find((volume) => volume.volumeId === changeVolume?.volumeId);
  return changeVolume?.sizeGib === undefined || present === undefined ? null : { volumeId: present.volumeId, poolId: present.poolId ?? poolId, fromGib: present.sizeGib, toGib: changeVolume.sizeGib };
};
type Growth = NonNullable<ReturnType<typeof growth>>;
const resizeSpace = ({ vmId }: ReconfigureVm, { volumeId, poolId }: Growth, sizeGib: number): Outgoing => ({ to: 'storage', target: poolId, type: 'ResizeSpace', data: { poolId, volumeId, vmId, sizeGib } });
const resizeVolume = ({ vmId }: ReconfigureVm, { volumeId }: Growth, sizeGib: number): Outgoing => ({ to: 'storage', target: volumeId, type: 'ResizeVolume', data: { volumeId, vmId, sizeGib } });
const detach = ({ vmId }: ReconfigureVm, volumeId: VolumeId, operationId: OperationId | null): Outgoing => ({ to: 'storage', target: volumeId, type: 'DetachVolume', data: { volumeId, vmId, delete: operationId } });

const runVolume = (vm: ReconfigureVm): Outgoing | undefined => {
  const { vmId, nodeId, poolId, change: { attachVolume } } = vm;
  const disk = newDisk(vm);
  if (disk !== undefined) {
    const { volumeId, sizeGib, image, name } = disk;
    return { to: 'storage', target: volumeId, type: 'CreateVolume', data: { volumeId, vmId, poolId, nodeId, imageId: image?.imageId ?? null, sizeGib, ...(name === undefined ? {} : { name }) } };
  }
  if (attachVolume !== undefined) return { to: 'storage', target: attachVolume.volumeId, type: 'AttachVolume', data: { volumeId: attachVolume.volumeId, vmId, nodeId } };
  const grows = growth(vm);
  return grows === null ? undefined : resizeVolume(vm, grows, grows.toGib);
};
const undoVolume = (vm: ReconfigureVm): Outgoing | undefined => {
  const { vmId, change: { attachVolume } } = vm;
  const disk = newDisk(vm);
  if (disk !== undefined) return { to: 'storage', target: disk.volumeId, type: 'DeleteVolume', data: { volumeId: disk.volumeId, vmId, ...(disk.name === undefined ? {} : { name: disk.name }) } };
  if (attachVolume !== undefined) return detach(vm, attachVolume.volumeId, null);
  const grows = growth(vm);
  return grows === null ? undefined : resizeVolume(vm, grows, grows.fromGib);
};
const runSpace = (vm: ReconfigureVm): Outgoing | undefined => {
  const { vmId, poolId } = vm;
  const disk = newDisk(vm);
  if (disk !== undefined) return { to: 'storage', target: poolId, type: 'ReserveSpace', data: { poolId, volumeId: disk.volumeId, vmId, sizeGib: disk.sizeGib } };
  const grows = growth(vm);
  return grows === null ? undefined : resizeSpace(vm, grows, grows.toGib);
};
const undoSpace = (vm: ReconfigureVm): Outgoing | undefined => {
  const { vmId, poolId } = vm;
  const disk = newDisk(vm);
  if (disk !== undefined) return { to: 'storage', target: poolId, type: 'ReleaseSpace', data: { poolId, volumeId: disk.volumeId, vmId } };
  const grows = growth(vm);
  return grows === null ? undefined : resizeSpace(vm, grows, grows.fromGib);
};
const ensureDisk = (vm: ReconfigureVm): Outgoing | undefined => {
  const disk = newDisk(vm);
  return disk === undefined ? undefined : verb('EnsureDisk', vm, { volumeId: disk.volumeId, poolId: vm.poolId, imageFile: disk.image?.file ?? null, imageFormat: disk.image?.format ?? 'qcow2', sizeGib: disk.sizeGib, full: false });
};
/** How long the bytes may take that the node may have to fetch. */
const bytesMs = (vm: ReconfigureVm): number => fetchMs((newDisk(vm)?.image?.fetchBytes ?? 0) + mediaBytes(vm.change));
const removeDisk = (vm: ReconfigureVm): Outgoing | undefined => {
  const disk = newDisk(vm);
  return disk === undefined ? undefined : { to: 'node', target: vm.nodeId, type: 'RemoveVolume', data: { nodeId: vm.nodeId, vmId: vm.vmId, volumeId: disk.volumeId, poolId: vm.poolId } };
};

const takeBack = (vm: ReconfigureVm, added: Nic | null): Outgoing => verb('ConfigureDomain', vm, { ...planOf(vm.machine), gone: added === null ? [] : [added], hostname: vm.change.hostname === undefined ? null : hostnameBefore(vm.machine), insist: true, restore: null });
/** The interface that a silent node may have, so that it can be taken back later. */
const failedWith = (failed: Outgoing, nic: Nic | null): Outgoing => (nic === null ? failed : { ...failed, data: { ...failed.data, nic } });
const hostnameBefore = (machine: Machine): string | null => planOf(machine).seed?.hostname ?? null;

const DECIDED_MS = 30_000;
/** Giving back cannot be undone, and may be done although its answer is late: it is waited for, however long a service is away. */
const BACK_MS = 1_800_000;

export const reconfigureVm: Saga<ReconfigureVm, Outgoing> = {
  name: 'reconfigure-vm',
  steps: {
    name: {
      deadlineMs: DECIDED_MS,
      run: (vm) => (renamed(vm) ? { to: 'scheduler', target: vm.nameKeyAfter, type: 'ClaimVmName', data: { key: vm.nameKeyAfter, owner: vm.vmId, label: vm.change.name ?? '' } } : undefined),
      undo: (vm) => unclaim(vm, vm.nameKeyAfter),
    },
    capacity: {
      deadlineMs: DECIDED_MS,
      run: (vm) => (grows(vm) ? resizeCapacity(vm, largerOf(vm.held, specAfterChange(vm.machine.spec, vm.change))) : undefined),
      undo: (vm) => resizeCapacity(vm, vm.held),
    },
    address: {
      deadlineMs: DECIDED_MS,
      run: ({ change: { addNic }, vmId }) => (addNic === undefined ? undefined : { to: 'ipam', target: addNic.subnetId, type: 'LeaseAddress', data: { subnetId: addNic.subnetId, vmId } }),
      undo: (vm) => (vm.change.addNic === undefined ? undefined : release(vm, vm.change.addNic.subnetId)),
    },
    device: { deadlineMs: DECIDED_MS, run: (vm) => heldDevice(vm, 'HoldDevice'), undo: (vm) => heldDevice(vm, 'ReleaseDevice') },
    volume: { deadlineMs: DECIDED_MS, run: runVolume, undo: undoVolume },
    space: { after: ['volume'], deadlineMs: DECIDED_MS, run: runSpace, undo: undoSpace },
    disk: { after: ['space', 'name', 'capacity', 'address', 'device'], deadlineMs: 90_000, moreMs: bytesMs, undoDeadlineMs: 60_000, undoRefused: true, run: ensureDisk, undo: removeDisk },
    domain: {
      after: ['disk'],
      deadlineMs: 90_000,
      moreMs: bytesMs,
      undoDeadlineMs: 60_000,
      undoRefused: true,
      run: (vm, facts) => verb('ConfigureDomain', vm, { ...planOf(after(vm, facts)), gone: vm.machine.nics.filter(({ mac }) => mac === vm.change.removeNic), hostname: vm.change.hostname ?? null, insist: false, restore: vm.change.restore ?? null }),
      undo: (vm, facts) => takeBack(vm, addedNic(vm, facts)),
    },
    back: {
      after: ['domain'],
      deadlineMs: BACK_MS,
      run: (vm) => {
        const { detachVolume, rebuild } = vm.change;
        if (rebuild !== undefined) return { to: 'storage', target: vm.machine.volumeId, type: 'DetachVolume', data: { volumeId: vm.machine.volumeId, vmId: vm.vmId, delete: null, kept: rebuild.kept } };
        const gone = vm.machine.spec.assigned?.find((device) => deviceName(device) === vm.change.removeDevice);
        if (gone !== undefined && isOfNode(gone)) return releaseDevice(vm, gone);
        if (detachVolume !== undefined) return detach(vm, detachVolume.volumeId, detachVolume.delete ? vm.dropOperationId : null);
        return renamed(vm) ? unclaim(vm, vm.nameKeyBefore) : vm.removedSubnetId === null ? undefined : release(vm, vm.removedSubnetId);
      },
      undo: nothingToUndo('nothing follows it'),
    },
  },
  done: (vm, facts) => {
    const { pending = [], ...seen } = { ...facts['domain'] };
    return finishVm(vm, seen, { how: vm.change.addBootRun === undefined ? 'reconfigured' : 'at the next boot', reconfigured: { nic: addedNic(vm, facts), volume: addedVolume(vm, facts), pending } });
  },
  failed: (vm, why, owed, facts) => failedWith(failVm(vm, why, owed), owed.includes('domain') && facts['address'] !== undefined ? addedNic(vm, facts) : null),
};

export interface SettleReconfiguration extends ReconfigureVm {
  /** The operation whose undo is owed. */
  readonly failedOperationId: OperationId;
  /** What it had added. */
  readonly added: Nic | null;
}

const undo = nothingToUndo('it is itself an undo');

/** Takes back what a silent node kept from being taken back, in the same order, the node's part under its own id. */
export const settleReconfiguration: Saga<SettleReconfiguration, Outgoing> = {
  name: 'settle-reconfiguration',
  cleanUp: true,
  steps: {
    domain: {
      deadlineMs: 90_000, undo,
      settledBy: PLACEMENT_GONE,
      run: (vm) => ({ ...takeBack(vm, vm.added), ...owedUndo(reconfigureVm.name, vm.failedOperationId, 'domain') }),
    },
    disk: { after: ['domain'], deadlineMs: 90_000, undo, settledBy: NODE_GONE, run: removeDisk },
    space: { after: ['disk'], deadlineMs: DECIDED_MS, undo, run: undoSpace },
    volume: { after: ['space'], deadlineMs: DECIDED_MS, undo, run: undoVolume },
    address: { after: ['domain'], deadlineMs: DECIDED_MS, undo, run: (vm) => (vm.change.addNic === undefined ? undefined : release(vm, vm.change.addNic.subnetId)) },
    device: { after: ['domain'], deadlineMs: DECIDED_MS, undo, run: (vm) => heldDevice(vm, 'ReleaseDevice') },
    capacity: { after: ['domain'], deadlineMs: DECIDED_MS, undo, run: (vm) => (grows(vm) ? resizeCapacity(vm, vm.held) : undefined) },
    name: { after: ['domain'], deadlineMs: DECIDED_MS, undo, run: (vm) => (renamed(vm) ? unclaim(vm, vm.nameKeyAfter) : undefined) },
  },
  done: finishRemoval,
  failed: (vm, why, owed) => failedWith(failVm(vm, why, owed), vm.added),
};
