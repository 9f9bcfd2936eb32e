/*
 * One virtual machine: what is wanted of it, what was seen of it, and which operation has it in hand.
 *
 *                 RequestVm                    FinishVm
 *     absent ────────────────▶ live (create) ──────────▶ live (idle) ◀──┐
 *                                │ FailVm                  │ StartVm …    │ FinishVm, FailVm
 *                                ▼                         ▼              │
 *                            live, failed              live (power) ──────┘
 *                                │ DeleteVm, from any of these, at any time
 *                                ▼
 *                            live (delete) ──FinishDeleteVm──▶ deleted
 *
 * One VM, one operation: another write while one runs is refused, naming it. Delete is never refused for
 * that reason. It cancels the running operation, waits for its end, and then deletes; so the machine has at
 * most one running operation and one delete that waits for it.
 *
 * Desired and observed are never one field. A node's word about a domain changes only `observed`, and only
 * when it is newer than what we know: sessions rise, sequences rise within a session, and the word of
 * another generation than today's is history.
 */
import { type Decider, isRefusal, refuse, type Refusal } from '@chronovirt/decider/decider';
import { BOOT_RUNS_MAX, type BootRun } from '@chronovirt/contracts/boot-job/boot-job';
import type { BackupSlot, BackupTarget, BackupWish } from '@chronovirt/contracts/backup/backup';
import type { BackupId, NodeId, OperationId, PoolId, SnapshotId, VmId } from '@chronovirt/contracts/ids';
import type { ChangeVmBody, VmCommand } from '@chronovirt/contracts/vm/vm.commands';
import type { AdoptedLayout, AttachedVolume, Copy, Nic, Pending, PowerAction, Provisioned, Reconfiguration, Restore, VmEvent, VmSpec } from '@chronovirt/contracts/vm/vm.events';
import type { ScreenPassword } from '@chronovirt/contracts/vm/guest';
import type { NetworkPlan } from '@chronovirt/contracts/network/network.events';
import { bootRunsAfterChange, layoutAfterChange, nicsAfterChange, specAfterChange, volumesAfterChange } from '@chronovirt/contracts/vm/reconfiguration';
import type { Layer, Snapshot } from '@chronovirt/contracts/vm/snapshot';
import { ASSIGNED_MAX, deviceName, isOfNode } from '@chronovirt/contracts/vm/assigned';
import { obstacleToAnother } from './another.ts';
import { largerOf, type Machine, planOf, type Share } from './domain-plan.ts';
import { dueAt, type Expiry } from './expiry.ts';
import { activeLayers, freshLayer, holds, noSnapshots, reverted, type Snapshots, SNAPSHOTS_MAX, taken, tidied, without } from './snapshots.ts';

type Observed = Extract<VmEvent, { type: 'VmObserved' }>['data'];
export type OperationKind = 'create' | 'adopt' | 'power' | 'reconfigure' | 'guest' | 'publish' | 'snapshot' | 'revert' | 'delete-snapshot' | 'backup' | 'delete' | 'clean-up';

/** What an operation does to the layers of the disks; without one, to what is kept inside of them. 'tidy' is what is left of a revert once it is done. */
export type LayerWork =
  | { readonly kind: 'take'; readonly snapshotId: SnapshotId; readonly name: string; readonly description: string; readonly layer: Layer }
  | { readonly kind: 'revert'; readonly snapshotId: SnapshotId; readonly layer: Layer }
  | { readonly kind: 'delete'; readonly snapshotId: SnapshotId }
  | { readonly kind: 'tidy' };
export type Desired = 'running' | 'stopped' | 'paused' | 'saved' | 'deleted';

/** What an operation copies to a target. */
export interface BackupJob {
  readonly backupId: BackupId;
  readonly target: BackupTarget;
  readonly wants: BackupWish;
  readonly scheduled: BackupSlot | null;
}

export type Debt =
  | { readonly operationId: OperationId; readonly action: PowerAction; readonly change: null; readonly nic: null; readonly work: null; readonly backup: null }
  | { readonly operationId: OperationId; readonly action: null; readonly change: Reconfiguration; readonly nic: Nic | null; readonly work: null; readonly backup: null }
  | { readonly operationId: OperationId; readonly action: null; readonly change: null; readonly nic: null; readonly work: LayerWork; readonly backup: null }
  | { readonly operationId: OperationId; readonly action: null; readonly change: null; readonly nic: null; readonly work: null; readonly backup: BackupJob }
  /** Of something that was asked of the guest. */
  | { readonly operationId: OperationId; readonly action: null; readonly change: null; readonly nic: null; readonly work: null; readonly backup: null };

interface Operation {
  readonly id: OperationId;
  readonly kind: OperationKind;
  readonly action: PowerAction | null;
  readonly change: Reconfiguration | null;
  readonly work: LayerWork | null;
  readonly backup: BackupJob | null;
}

const begun = (id: OperationId, kind: OperationKind, of: Partial<Pick<Operation, 'action' | 'change' | 'work' | 'backup'>> = {}): Operation => ({ id, kind, action: null, change: null, work: null, backup: null, ...of });

export interface LiveVm {
  readonly status: 'live';
  readonly vmId: VmId;
  /** The operation that was to make it. */
  readonly createdBy: OperationId;
  readonly spec: VmSpec;
  readonly imageFile: string | null;
  readonly imageFormat: 'qcow2' | 'raw';
  /** What its disks began as, when they are those of a backup. */
  readonly restore: Restore | null;
  /** How much of them is made, as was last said. */
  readonly restoredPercent: number;
  /** What they began as, when it was made of a snapshot. */
  readonly copy: Copy | null;
  /** Of its image, that its node had to fetch. */
  readonly fetchBytes: number | undefined;
  /** null: it was adopted, with interfaces of its own. */
  readonly network: NetworkPlan | null;
  /** How one that was adopted, or is made of a backup of such a one, is built. */
  readonly layout: AdoptedLayout | null;
  readonly createdAs: 'made' | 'adopted';
  readonly desired: Desired;
  /** What was wanted before the running operation: goes back to it when that fails. */
  readonly desiredBefore: Desired;
  readonly nodeId: NodeId | null;
  readonly poolId: PoolId | null;
  readonly generation: number;
  readonly provisioned: Provisioned | null;
  /** Interfaces beside the first. */
  readonly nics: readonly Nic[];
  /** Disks beside the first. */
  readonly volumes: readonly AttachedVolume[];
  /** How often cloud-init was told something else, from 1 on. */
  readonly seedVersion: number;
  /** What it is to run at its next boot, and nobody has said that it has. */
  readonly bootRuns: readonly BootRun[];
  /** Asked of whoever looks at its screen. */
  readonly screenPassword: ScreenPassword | null;
  readonly snapshots: Snapshots;
  /** What of a machine that runs waits for a start. */
  readonly pending: readonly Pending[];
  readonly expiry: Expiry;
  /** What its node has to set aside for it while it runs. */
  readonly held: Share;
  readonly observed: Observed | null;
  readonly operation: Operation | null;
  /** Of the machine of a drill: how that ended. It is being taken away. */
  readonly drilled: Extract<VmEvent, { type: 'VmDrilled' }>['data'] | null;
  /** A delete that waits until the running operation is over. */
  readonly waitingDelete: OperationId | null;
  /** Whoever deletes it wants its other disks gone too. */
  readonly deletesDisks: boolean;
  readonly failure: Refusal | null;
  /** Steps of a failed operation that a silent node kept from being taken back. */
  readonly owed: readonly string[];
  /** The action or change that owes it; null when it is owed by a creation or a deletion. */
  readonly debt: Debt | null;
}

export type Vm = { readonly status: 'absent' } | LiveVm | { readonly status: 'deleted'; readonly nodeId: NodeId | null; readonly generation: number };

/** It is not ours yet: what takes it back removes nothing. */
const isBeingAdopted = ({ createdAs, provisioned }: Pick<LiveVm, 'createdAs' | 'provisioned'>): boolean => createdAs === 'adopted' && provisioned === null;

/** The saga that carries out an operation of a VM; its id is the operation's. */
export const sagaOf = (kind: OperationKind, live: Pick<LiveVm, 'debt' | 'operation' | 'createdAs' | 'provisioned'>): string => {
  const { debt, operation } = live;
  switch (kind) {
    case 'create': return 'provision-vm';
    case 'adopt': return 'adopt-vm';
    case 'power': return 'power-vm';
    case 'reconfigure': return 'reconfigure-vm';
    case 'guest': return 'guest-vm';
    case 'publish': return 'publish-vm';
    case 'snapshot': return 'snapshot-vm';
    case 'revert': return operation?.work?.kind === 'tidy' ? 'tidy-layers' : 'snapshot-vm';
    case 'delete-snapshot': return 'tidy-layers';
    case 'backup': return 'backup-vm';
    case 'delete': return 'delete-vm';
    // What a creation left is taken away; a VM that is complete only has an action, a change, a request or layers settled.
    case 'clean-up': return isBeingAdopted(live) ? 'settle-adoption' : debt === null ? 'clean-up-vm' : debt.work !== null ? 'tidy-layers' : debt.action !== null ? 'settle-power' : debt.change !== null ? 'settle-reconfiguration' : debt.backup !== null ? 'settle-backup' : 'settle-guest';
  }
};

const desiredAfter: Record<PowerAction, Desired> = { start: 'running', reboot: 'running', reset: 'running', resume: 'running', stop: 'stopped', pause: 'paused', save: 'saved' };

/** The state in which an action has nothing to do. */
const alreadyThere: Partial<Record<PowerAction, string>> = { start: 'running', stop: 'stopped', pause: 'paused', resume: 'running', save: 'saved' };

/** The states from which an action makes sense. */
const possibleFrom: Record<PowerAction, readonly string[]> = {
  start: ['stopped', 'crashed', 'saved'], stop: ['running', 'paused'], reboot: ['running'], reset: ['running', 'paused'], pause: ['running'], resume: ['paused'], save: ['running', 'paused'],
};

const power = (vm: Vm, data: { vmId: VmId; operationId: OperationId }, action: PowerAction, how: { timeoutSeconds: number; force: boolean }): readonly VmEvent[] | Refusal => {
  const live = readyOr(vm, data.vmId);
  if (isRefusal(live)) return live;
  const state = live.observed?.state ?? 'absent';
  const requested: VmEvent = { type: 'VmPowerRequested', data: { operationId: data.operationId, action, ...how } };
  if (action === 'start' && (live.expiry.stage === 'expired' || live.expiry.stage === 'recycled')) return refuse('vm.expired', { vmId: data.vmId, expiresAt: live.spec.expiresAt ?? null, hint: 'say until when it is wanted: PATCH expiresAt' });
  // What happened behind our back still needs its capacity taken or given back: that is the saga's work.
  if (alreadyThere[action] === state && live.desired === desiredAfter[action]) return [requested, { type: 'VmOperationDone', data: { operationId: data.operationId, how: `already ${state}` } }];
  const bound = (live.spec.assigned ?? []).filter(isOfNode).map(deviceName);
  if (action === 'save' && bound.length > 0) return refuse('vm.pinned', { vmId: data.vmId, nodeId: live.nodeId, devices: bound });
  if (action === 'stop' && state === 'saved') return how.force ? [requested] : saved(live);
  if (alreadyThere[action] !== state && !possibleFrom[action].includes(state)) return refuse(`vm.not_${possibleFrom[action][0] ?? 'ready'}`, { vmId: data.vmId, state, action });
  return [requested];
};

const liveOr = (vm: Vm, vmId: VmId): LiveVm | Refusal => (vm.status === 'live' ? vm : refuse('vm.not_found', { vmId }));

/** Complete, with nothing under way and nothing owed. */
const readyOr = (vm: Vm, vmId: VmId): (LiveVm & { readonly provisioned: Provisioned }) | Refusal => {
  const live = liveOr(vm, vmId);
  if (isRefusal(live)) return live;
  const busy = idleOr(live);
  if (busy !== undefined) return busy;
  if (live.provisioned === null) return refuse('vm.not_provisioned', { vmId, failure: live.failure?.refused ?? null });
  if (live.owed.length > 0) return refuse('vm.clean_up_owed', { vmId, owed: live.owed, nodeId: live.nodeId });
  return { ...live, provisioned: live.provisioned };
};

const saved = ({ vmId }: LiveVm): Refusal => refuse('vm.saved', { vmId, hint: 'start it, or give up what it had in memory: stop it with force=true' });

/** The same, and no memory is kept that goes with the machine and its disks as they are. */
const changeableOr = (vm: Vm, vmId: VmId): ReturnType<typeof readyOr> => {
  const live = readyOr(vm, vmId);
  return !isRefusal(live) && live.observed?.state === 'saved' ? saved(live) : live;
};

/** The same value, whatever the order of its fields. Values of the contracts are plain JSON. */
const same = (a: unknown, b: unknown): boolean => JSON.stringify(a) === JSON.stringify(b);

const reconfigure = (vm: Vm, { vmId, operationId, change }: Extract<VmCommand, { type: 'RequestReconfiguration' }>['data']): readonly VmEvent[] | Refusal => {
  const live = changeableOr(vm, vmId);
  if (isRefusal(live)) return live;
  const { spec, nics, volumes, provisioned, network } = live;
  if (change.diskGib !== undefined && change.diskGib < spec.diskGib) return refuse('vm.disk_cannot_shrink', { vmId, diskGib: spec.diskGib, wanted: change.diskGib, field: 'diskGib' });
  const { addNic, removeNic } = change;
  // From what it starts nobody looked when it was adopted by an older agent.
  const fixed = live.layout === null ? [] : ([...(live.layout.drive === undefined ? ['boot', 'media'] as const : []), 'drivers', 'kernel', 'bootMenu', 'expert', 'addDevice'] as const).filter((field) => change[field] !== undefined);
  if (fixed[0] !== undefined) return refuse('vm.adopted', { vmId, fields: fixed, field: fixed[0] });
  if (addNic !== undefined && [...(network === null ? [] : [network]), ...nics.map((nic) => nic.network)].some(({ networkId }) => networkId === addNic.networkId)) return refuse('vm.nic_in_network', { vmId, networkId: addNic.networkId, network: addNic.name, field: 'network' });
  if (addNic !== undefined && nics.length >= NICS_MAX) return refuse('vm.too_many_nics', { vmId, max: NICS_MAX + 1 });
  if (removeNic === provisioned.mac) return refuse('vm.first_nic', { vmId, mac: removeNic });
  if (removeNic !== undefined && !nics.some(({ mac }) => mac === removeNic)) return refuse('vm.nic_not_found', { vmId, mac: removeNic });
  if (change.hostname !== undefined && spec.cloudInit === null && change.cloudInit === undefined && live.observed?.state !== 'running') return refuse('vm.no_cloud_init', { vmId, field: 'hostname' });
  const { addBootRun, removeBootRun } = change;
  // Its own machine has no port on which its guest could say what came of it.
  if (addBootRun !== undefined && live.layout !== null) return refuse('boot_job.of_adopted', { vmId });
  if (addBootRun !== undefined && spec.cloudInit === null) return refuse('boot_job.no_cloud_init', { vmId });
  if (addBootRun !== undefined && live.bootRuns.length >= BOOT_RUNS_MAX) return refuse('boot_job.too_many', { vmId, max: BOOT_RUNS_MAX });
  if (addBootRun !== undefined && addBootRun.nodeId !== null && addBootRun.nodeId !== live.nodeId) return refuse('vm.moved', { vmId, nodeId: live.nodeId });
  if (removeBootRun !== undefined && !live.bootRuns.some(({ runId }) => runId === removeBootRun)) return refuse('boot_job.not_pending', { vmId, runId: removeBootRun });
  const { addDevice, removeDevice } = change;
  const assigned = spec.assigned ?? [];
  if (addDevice !== undefined && assigned.some((device) => deviceName(device) === deviceName(addDevice))) return refuse('vm.device_attached', { vmId, device: deviceName(addDevice) });
  if (addDevice !== undefined && assigned.length >= ASSIGNED_MAX) return refuse('vm.too_many_devices', { vmId, max: ASSIGNED_MAX });
  if (removeDevice !== undefined && !assigned.some((device) => deviceName(device) === removeDevice)) return refuse('vm.device_not_found', { vmId, device: removeDevice });
  const { addVolume, attachVolume, changeVolume, detachVolume } = change;
  if ((addVolume !== undefined || attachVolume !== undefined) && volumes.length >= VOLUMES_MAX) return refuse('vm.too_many_volumes', { vmId, max: VOLUMES_MAX + 1 });
  if (attachVolume !== undefined && volumes.some(({ volumeId }) => volumeId === attachVolume.volumeId)) return refuse('volume.attached', { volumeId: attachVolume.volumeId, vmId });
  const meant = detachVolume?.volumeId ?? changeVolume?.volumeId;
  if (detachVolume !== undefined && holds(live.snapshots, detachVolume.volumeId)) return refuse('volume.in_snapshot', { vmId, volumeId: detachVolume.volumeId, snapshots: namesOf(live.snapshots, detachVolume.volumeId) });
  if (detachVolume?.volumeId === provisioned.volumeId) return refuse('vm.system_disk', { vmId, volumeId: provisioned.volumeId });
  const found = volumes.find(({ volumeId }) => volumeId === meant);
  if (meant !== undefined && found === undefined) return refuse('vm.volume_not_found', { vmId, volumeId: meant });
  const grows = [...((change.diskGib ?? 0) > spec.diskGib ? [provisioned.volumeId] : []), ...(found !== undefined && (changeVolume?.sizeGib ?? 0) > found.sizeGib ? [found.volumeId] : [])];
  // It would have another size after going back.
  const keptIn = grows.find((volumeId) => live.snapshots.inner.some((one) => one.volumeId === volumeId));
  if (keptIn !== undefined) return refuse('volume.in_internal_snapshot', { vmId, volumeId: keptIn, snapshots: namesOf(live.snapshots, keptIn) });
  if (changeVolume?.sizeGib !== undefined && found !== undefined && changeVolume.sizeGib < found.sizeGib) return refuse('vm.disk_cannot_shrink', { vmId, diskGib: found.sizeGib, wanted: changeVolume.sizeGib, field: 'sizeGib' });
  // It would let go later, when nobody expects it any more.
  if ((removeNic !== undefined || detachVolume !== undefined || removeDevice !== undefined) && live.observed?.state === 'paused') return refuse('vm.paused', { vmId, hint: 'resume it first, or stop it' });
  if (change.rebuild !== undefined) {
    const state = live.observed?.state ?? 'absent';
    if (spec.imageId === null) return refuse('vm.no_image', { vmId });
    if (live.snapshots.list.length > 0) return refuse('vm.has_snapshots', { vmId, snapshots: live.snapshots.list.map(({ name }) => name) });
    if (state !== 'stopped' && state !== 'crashed') return refuse('vm.not_stopped', { vmId, state, hint: 'stop it first: it gets another disk' });
  }
  const unit = freeUnit(volumes);
  const placed: Reconfiguration = {
    ...change, ...(addVolume === undefined ? {} : { addVolume: { ...addVolume, unit } }), ...(attachVolume === undefined ? {} : { attachVolume: { ...attachVolume, unit } }),
  };
  const asked: VmEvent = { type: 'VmReconfigureRequested', data: { operationId, change: placed } };
  const nothingNew = [addBootRun, removeBootRun, addNic, removeNic, addVolume, attachVolume, detachVolume, change.hostname, change.rebuild].every((one) => one === undefined) && same(specAfterChange(spec, change), spec) && same(layoutAfterChange(live.layout, change), live.layout) && same(volumesAfterChange(volumes, change, null), volumes);
  return nothingNew ? [asked, { type: 'VmOperationDone', data: { operationId, how: 'already so' } }] : [asked];
};

/** Only a running guest can be asked anything, and only by its own agent: nobody else may write on its disks, until it is stopped. */
const ask = (vm: Vm, { vmId, operationId, request }: Extract<VmCommand, { type: 'AskGuest' }>['data']): readonly VmEvent[] | Refusal => {
  const live = readyOr(vm, vmId);
  if (isRefusal(live)) return live;
  const state = live.observed?.state ?? 'absent';
  const offline = request.kind === 'password' && request.offline === true;
  if (offline && !isOff(live)) return refuse('vm.not_stopped', { vmId, state, hint: 'stop it first: nobody else may write on the disks of one that runs' });
  if (!offline && state !== 'running') return refuse('vm.not_running', { vmId, state, action: request.kind, hint: 'only the guest agent of a running VM can do it: start it first' });
  if (request.kind === 'password' && request.nodeId !== live.nodeId) return refuse('vm.moved', { vmId, nodeId: live.nodeId });
  return [{ type: 'VmGuestRequested', data: { operationId, request } }];
};

/** Running or not: a VM that is stopped is copied as it lies. */
const backUp = (vm: Vm, { vmId, operationId, ...job }: Extract<VmCommand, { type: 'RequestBackup' }>['data']): readonly VmEvent[] | Refusal => {
  const live = readyOr(vm, vmId);
  if (isRefusal(live)) return live;
  const obstacle = live.layout === null ? undefined : obstacleToAnother(live.layout);
  if (obstacle !== undefined) return refuse('backup.of_adopted', { vmId, says: obstacle });
  return [{ type: 'VmBackupRequested', data: { operationId, ...job } }];
};

const namesOf = ({ list }: Snapshots, volumeId: string): readonly string[] => list.filter(({ disks }) => disks.some((disk) => disk.volumeId === volumeId)).map(({ name }) => name);

/** Every disk of a machine, with the layer that is written. */
const disksOf = ({ spec, provisioned, volumes, snapshots }: LiveVm & { readonly provisioned: Provisioned }): Snapshot['disks'] => {
  const layers = activeLayers(snapshots);
  return [{ volumeId: provisioned.volumeId, unit: 0, sizeGib: spec.diskGib }, ...volumes].map(({ volumeId, unit, sizeGib }) => ({ volumeId, unit, sizeGib, layer: layers[volumeId] ?? null }));
};

const isOff = ({ observed }: LiveVm): boolean => observed?.state === 'stopped' || observed?.state === 'crashed';

/** What is kept inside of a disk comes and goes only while nobody uses it. */
const offOr = (live: LiveVm): Refusal | undefined => (isOff(live) ? undefined : refuse('snapshot.only_stopped', { vmId: live.vmId, state: live.observed?.state ?? 'absent', hint: 'stop it first; a snapshot of kind external is taken and deleted while it runs' }));

const takeSnapshot = (vm: Vm, { vmId, operationId, snapshotId, name, description, kind }: Extract<VmCommand, { type: 'TakeSnapshot' }>['data']): readonly VmEvent[] | Refusal => {
  const live = changeableOr(vm, vmId);
  if (isRefusal(live)) return live;
  const { list } = live.snapshots;
  if (list.length >= SNAPSHOTS_MAX) return refuse('snapshot.too_many', { vmId, max: SNAPSHOTS_MAX });
  const same = list.find((snapshot) => snapshot.name === name);
  if (same !== undefined) return refuse('snapshot.name_taken', { vmId, name, snapshotId: same.snapshotId, field: 'name' });
  const others = list.filter((snapshot) => snapshot.kind !== kind).map((snapshot) => snapshot.name);
  if (others.length > 0) return refuse('snapshot.other_kind', { vmId, kind, snapshots: others, field: 'kind' });
  const runs = kind === 'internal' ? offOr(live) : undefined;
  return runs ?? [{ type: 'VmSnapshotRequested', data: { operationId, snapshotId, name, description, layer: kind === 'internal' ? null : freshLayer(live.snapshots, operationId) } }];
};

/** A VM that is ready, and a snapshot that it has. */
const snapshotOr = (vm: Vm, vmId: VmId, snapshotId: SnapshotId): { readonly live: LiveVm & { readonly provisioned: Provisioned }; readonly snapshot: Snapshot } | Refusal => {
  const known = liveOr(vm, vmId);
  if (isRefusal(known)) return known;
  const snapshot = known.snapshots.list.find((one) => one.snapshotId === snapshotId);
  if (snapshot === undefined) return refuse('snapshot.not_found', { vmId, snapshotId });
  const live = changeableOr(vm, vmId);
  return isRefusal(live) ? live : { live, snapshot };
};

/** The layers that hold these disks, in their order; undefined: some are not in the snapshot. */
const frozenIn = (vm: Vm, { snapshotId, volumes }: Extract<VmCommand, { type: 'FindSnapshotDisks' }>['data']): readonly Layer[] | undefined => {
  const disks = vm.status === 'live' ? vm.snapshots.list.find((one) => one.snapshotId === snapshotId)?.disks ?? [] : [];
  const found = volumes.flatMap((volumeId) => disks.filter((disk) => disk.volumeId === volumeId));
  return found.length < volumes.length ? undefined : found.map(({ layer }) => layer);
};

/** What a snapshot froze may be written once it is being deleted, gone back to, or tidied up after; taking another one only freezes more. */
const findDisks = (vm: Vm, data: Extract<VmCommand, { type: 'FindSnapshotDisks' }>['data']): readonly VmEvent[] | Refusal => {
  const { vmId, snapshotId, volumes, layers } = data;
  const live = liveOr(vm, vmId);
  if (isRefusal(live)) return live;
  const frozen = frozenIn(vm, data);
  if (frozen === undefined) return refuse('snapshot.not_found', { vmId, snapshotId, volumes });
  if (live.snapshots.inner.some(({ name }) => name === snapshotId)) return refuse('snapshot.internal', { vmId, snapshotId });
  const { operation, debt } = live;
  if (operation !== null && (operation.work ?? null) !== null && operation.work?.kind !== 'take') return refuse('vm.busy', { operationId: operation.id, kind: operation.kind });
  if ((debt?.work ?? null) !== null) return refuse('vm.clean_up_owed', { vmId, owed: live.owed, nodeId: live.nodeId });
  return layers === undefined || same(layers, frozen) ? [] : refuse('snapshot.changed', { vmId, snapshotId, volumes });
};

/** What is read must not be written meanwhile: what a snapshot froze is not, and a disk of a stopped machine is not while this has it in hand. */
const publish = (vm: Vm, { vmId, operationId, imageId, snapshot: snapshotId, minMemoryMib, ...image }: Extract<VmCommand, { type: 'PublishVm' }>['data']): readonly VmEvent[] | Refusal => {
  const live = readyOr(vm, vmId);
  if (isRefusal(live)) return live;
  const state = live.observed?.state ?? 'absent';
  const snapshot = live.snapshots.list.find((one) => one.snapshotId === snapshotId);
  if (snapshotId !== undefined && snapshot === undefined) return refuse('snapshot.not_found', { vmId, snapshotId });
  if (snapshot?.kind === 'internal') return refuse('snapshot.internal', { vmId, snapshotId: snapshot.snapshotId });
  if (snapshot === undefined && state !== 'stopped') return refuse('vm.not_stopped', { vmId, state, hint: 'stop it first, or name a snapshot of it' });
  const disk = (snapshot?.disks ?? disksOf(live)).find(({ unit }) => unit === 0);
  if (disk === undefined) return refuse('vm.system_disk', { vmId });
  const { volumeId, layer, sizeGib } = disk;
  return [{ type: 'VmPublishRequested', data: { operationId, imageId, volumeId, layer, sizeGib, image: { minMemoryMib: minMemoryMib ?? live.spec.memoryMib, ...inheritedBy(live.spec), ...image } } }];
};

/** What every VM of its image needs to know, unless it is said otherwise. */
const inheritedBy = ({ osFamily, drivers }: VmSpec): { readonly osFamily?: VmSpec['osFamily']; readonly drivers?: string } =>
  ({ ...(osFamily === undefined ? {} : { osFamily }), ...(drivers === undefined || drivers === null ? {} : { drivers: drivers.imageId }) });

const deleteSnapshot = (vm: Vm, { vmId, operationId, snapshotId }: Extract<VmCommand, { type: 'DeleteSnapshot' }>['data']): readonly VmEvent[] | Refusal => {
  const found = snapshotOr(vm, vmId, snapshotId);
  if (isRefusal(found)) return found;
  return (found.snapshot.kind === 'internal' ? offOr(found.live) : undefined) ?? [{ type: 'VmSnapshotDeleteRequested', data: { operationId, snapshotId } }];
};

const revert = (vm: Vm, { vmId, operationId, snapshotId }: Extract<VmCommand, { type: 'RevertVm' }>['data']): readonly VmEvent[] | Refusal => {
  const found = snapshotOr(vm, vmId, snapshotId);
  if (isRefusal(found)) return found;
  const { live, snapshot } = found;
  if (!isOff(live)) return refuse('snapshot.vm_not_stopped', { vmId, state: live.observed?.state ?? 'absent', hint: 'stop it first; what its disks hold now is lost unless you take a snapshot of that, too' });
  // What was added would be left out, what is gone would be missing: neither is the machine as it was.
  const then = snapshot.disks.map(({ volumeId }) => volumeId).sort();
  const now = disksOf(live).map(({ volumeId }) => volumeId).sort();
  if (!same(then, now)) return refuse('snapshot.disks_changed', { vmId, snapshotId, added: now.filter((volumeId) => !then.includes(volumeId)), missing: then.filter((volumeId) => !now.includes(volumeId)) });
  return [{ type: 'VmRevertRequested', data: { operationId, snapshotId, layer: snapshot.kind === 'internal' ? null : freshLayer(live.snapshots, operationId) } }];
};

/** What a snapshot operation has brought about, when the node has done its part. */
const layered = (vm: LiveVm, { operationId, observed, frozen }: Extract<VmCommand, { type: 'FinishVm' }>['data']): readonly VmEvent[] => {
  const work = vm.operation?.work ?? null;
  if (work === null || vm.provisioned === null) return [];
  switch (work.kind) {
    case 'take': {
      const { snapshotId, name, description, layer } = work;
      const snapshot: Snapshot = {
        snapshotId, kind: layer === null ? 'internal' : 'external', name, description, parent: vm.snapshots.current, state: observed?.state ?? vm.observed?.state ?? 'stopped', frozen: frozen ?? false,
        disks: [...disksOf({ ...vm, provisioned: vm.provisioned })],
      };
      return [{ type: 'VmSnapshotTaken', data: { operationId, snapshot, layer } }];
    }
    case 'revert': return [{ type: 'VmReverted', data: { operationId, snapshotId: work.snapshotId, layer: work.layer } }];
    case 'delete': return [{ type: 'VmSnapshotDeleted', data: { operationId, snapshotId: work.snapshotId } }];
    case 'tidy': return [{ type: 'VmLayersTidied', data: { operationId } }];
  }
};

/** A revert goes on until what was written since is taken away; one that is to be deleted needs no tidying. */
const hasToTidy = ({ operation, snapshots, waitingDelete }: LiveVm): boolean =>
  operation?.work?.kind === 'revert' && waitingDelete === null && tidied(reverted(snapshots, operation.work.snapshotId, operation.work.layer, operation.id)).steps.length > 0;

/** What was tidied away by a clean-up that pays for a deletion or a revert; what was only undone is as before. */
const tidiedEvents = (work: LayerWork | null, operationId: OperationId): readonly VmEvent[] => {
  if (work?.kind === 'delete') return [{ type: 'VmSnapshotDeleted', data: { operationId, snapshotId: work.snapshotId } }];
  return work?.kind === 'tidy' ? [{ type: 'VmLayersTidied', data: { operationId } }] : [];
};

/** Beside the first. */
const NICS_MAX = 15;
const VOLUMES_MAX = 23;

/** The first place that no disk has: a disk keeps its place, whatever comes and goes beside it. */
const freeUnit = (volumes: readonly AttachedVolume[]): number => {
  const taken = new Set(volumes.map(({ unit }) => unit));
  let unit = 1;
  while (taken.has(unit)) unit++;
  return unit;
};

const idleOr = (vm: LiveVm): Refusal | undefined =>
  vm.operation === null && vm.waitingDelete === null ? undefined : refuse('vm.busy', { operationId: vm.operation?.id ?? vm.waitingDelete, kind: vm.operation?.kind ?? 'delete' });

const isNewer = (vm: LiveVm, seen: Omit<Observed, 'state' | 'reason'>): boolean => {
  if (seen.nodeId !== vm.nodeId || seen.generation !== vm.generation) return false;
  const known = vm.observed;
  if (known === null || known.nodeId !== seen.nodeId || known.generation !== seen.generation) return true;
  return seen.session > known.session || (seen.session === known.session && seen.sequence > known.sequence);
};

const specAfter = (spec: VmSpec, { description, tags, protected: isProtected, expiresAt, autostart }: ChangeVmBody): VmSpec =>
  ({ ...spec, ...(autostart === undefined ? {} : { autostart }), ...(expiresAt === undefined ? {} : { expiresAt }), description: description ?? spec.description, tags: tags ?? spec.tags, protected: isProtected ?? spec.protected });

const changesOf = (spec: VmSpec, { description, tags, protected: isProtected, expiresAt, autostart }: ChangeVmBody): Extract<VmEvent, { type: 'VmChanged' }>['data'] => ({
  ...(description === undefined || description === spec.description ? {} : { description }),
  ...(tags === undefined || (tags.length === spec.tags.length && tags.every((tag, index) => tag === spec.tags[index])) ? {} : { tags }),
  ...(isProtected === undefined || isProtected === spec.protected ? {} : { protected: isProtected }),
  ...(expiresAt === undefined || expiresAt === (spec.expiresAt ?? null) ? {} : { expiresAt }),
  ...(autostart === undefined || same(autostart, spec.autostart ?? null) ? {} : { autostart }),
});

const observation = (vm: LiveVm, seen: Observed, again = false): readonly VmEvent[] => {
  if (!isNewer(vm, seen)) return [];
  const known = vm.observed;
  const same = known !== null && known.state === seen.state && known.nodeId === seen.nodeId && known.generation === seen.generation;
  // What an inventory (number 0) finds unchanged is no news: a node that comes back with 200 VMs adds nothing
  // to the log. Nor is what was said with the very next number. But where numbers were given out in between,
  // something may have changed there and back, and its report still be on its way: it must find a higher
  // number here, or it would be believed. The same goes for the answer that an operation waits for. What is
  // told again, long after, found nothing in between on its way.
  const inventory = seen.sequence === 0 && vm.operation === null;
  const noNews = same && (again || inventory || (known.session === seen.session && seen.sequence === known.sequence + 1));
  return noNews ? [] : [{ type: 'VmObserved', data: seen }];
};

/** When the running operation is over and a delete waits, the delete begins in the same commit. */
const thenDelete = (vm: LiveVm): readonly VmEvent[] => (vm.waitingDelete === null ? [] : [{ type: 'VmDeleteStarted', data: { operationId: vm.waitingDelete } }]);

/** Refusals that say something of the backup itself, and not of how busy a node was. */
const saysOfBackup = (refused: string): boolean => ['backup.damaged', 'drill.not_seen', 'domain.start_failed'].includes(refused);

/** The machine of a drill is taken away, however it went; one that somebody deletes meanwhile is no drill any more. */
const drillEnded = ({ operation, restore, waitingDelete }: LiveVm, end: Omit<Extract<VmEvent, { type: 'VmDrilled' }>['data'], 'operationId'>): readonly VmEvent[] | undefined => {
  if (operation?.kind !== 'create' || restore?.proof === undefined) return undefined;
  if (waitingDelete !== null) return [{ type: 'VmOperationFailed', data: { operationId: operation.id, refused: 'saga.cancelled', because: { because: `the VM is being deleted by ${waitingDelete}` }, owed: [] } }, { type: 'VmDeleteStarted', data: { operationId: waitingDelete } }];
  return [{ type: 'VmDrilled', data: { operationId: operation.id, ...end } }];
};

/** What a refusal says, for people. */
const wordsOf = (refused: string, because: unknown): string => {
  const { says, file, backupId } = (because ?? {}) as { readonly says?: unknown; readonly file?: unknown; readonly backupId?: unknown };
  return [refused, ...[backupId, file, says].filter((one) => typeof one === 'string')].join(': ').slice(0, 300);
};

const shareOf = ({ vcpus, memoryMib }: VmSpec): Share => ({ vcpus, memoryMib });

/** Whoever failed owes; a clean-up that failed owes what it was to settle. */
const debtOf = ({ operation, debt }: LiveVm, nic: Nic | null): Debt | null => {
  if (operation === null) return debt;
  const { id: operationId, action, change, work, backup, kind } = operation;
  const nothing = { operationId, action: null, change: null, nic: null, work: null, backup: null } as const;
  if (backup !== null) return { ...nothing, backup };
  if (work !== null) return { ...nothing, work };
  if (action !== null) return { ...nothing, action };
  if (change !== null) return { ...nothing, change, nic };
  return kind === 'guest' || kind === 'publish' || kind === 'adopt' ? nothing : debt;
};

const remove = (vm: Vm, { vmId, operationId, force, deleteDisks }: Extract<VmCommand, { type: 'DeleteVm' }>['data']): readonly VmEvent[] | Refusal => {
  const live = liveOr(vm, vmId);
  if (isRefusal(live)) return live;
  if (live.spec.protected) return refuse('vm.protected', { vmId: live.vmId });
  // Nothing of it may be taken away before it is ours.
  if (isBeingAdopted(live)) return live.operation === null ? refuse('vm.clean_up_owed', { vmId: live.vmId, owed: live.owed, nodeId: live.nodeId }) : refuse('vm.busy', { operationId: live.operation.id, kind: live.operation.kind });
  if (live.operation?.kind === 'delete' || live.waitingDelete !== null) return refuse('vm.busy', { operationId: live.waitingDelete ?? live.operation?.id ?? null, kind: 'delete' });
  const running = live.observed !== null && ['running', 'paused'].includes(live.observed.state);
  if (running && live.operation?.kind !== 'create' && !force) return refuse('vm.not_stopped', { vmId: live.vmId, state: live.observed.state, hint: 'stop it first, or delete with force=true' });
  if (live.observed?.state === 'saved' && live.operation === null && !force) return refuse('vm.saved', { vmId: live.vmId, hint: 'start it, or delete it with force=true: what it had in memory is lost then' });
  // They stay when the VM goes, and have to be whole then.
  if (live.volumes.length > 0 && (live.operation?.work ?? null) !== null) return refuse('vm.busy', { operationId: live.operation?.id ?? null, kind: live.operation?.kind ?? '' });
  if (live.volumes.length > 0 && (live.debt?.work ?? null) !== null) return refuse('vm.clean_up_owed', { vmId: live.vmId, owed: live.owed, nodeId: live.nodeId });
  const held = deleteDisks === true ? [] : live.volumes.filter(({ volumeId }) => holds(live.snapshots, volumeId)).map(({ volumeId }) => volumeId);
  if (held.length > 0) return refuse('vm.volumes_in_snapshots', { vmId: live.vmId, volumes: held, hint: 'delete its snapshots first, or its disks with it' });
  const requested: VmEvent = { type: 'VmDeleteRequested', data: { operationId, force, cancels: live.operation?.id ?? null, ...(deleteDisks === true ? { deleteDisks } : {}) } };
  return live.operation === null ? [requested, { type: 'VmDeleteStarted', data: { operationId } }] : [requested];
};

/** Less than so many percent more is no news: at most twenty lines of the log for a restore. */
const PROGRESS_STEP = 5;

/** Seconds that a guest is given whose time is over. */
const EXPIRED_STOP_SECONDS = 60;

const advance = (vm: Vm, { vmId, operationId, now, graceSeconds, keepSeconds }: Extract<VmCommand, { type: 'AdvanceExpiry' }>['data']): readonly VmEvent[] | Refusal => {
  const live = liveOr(vm, vmId);
  if (isRefusal(live)) return live;
  const { expiresAt } = live.spec;
  if (expiresAt === undefined || expiresAt === null || live.desired === 'deleted') return [];
  const later = (seconds: number): string => new Date(now + seconds * 1_000).toISOString();
  const due = dueAt(expiresAt, live.expiry, now);
  switch (due) {
    case undefined:
      return [];
    case 'week':
    case 'day':
      return [{ type: 'VmExpiryNoticed', data: { stage: due, expiresAt } }];
    case 'expire': {
      const expired: VmEvent = { type: 'VmExpired', data: { expiresAt, recycleAt: later(graceSeconds) } };
      const runs = live.observed?.state === 'running' || live.observed?.state === 'paused';
      if (!runs && live.operation === null) return [expired];
      // What has it in hand ends first; this is asked again.
      const ready = readyOr(live, vmId);
      return isRefusal(ready) ? ready : [expired, { type: 'VmPowerRequested', data: { operationId, action: 'stop', timeoutSeconds: EXPIRED_STOP_SECONDS, force: true } }];
    }
    case 'recycle':
      return [{ type: 'VmRecycled', data: { purgeAt: later(keepSeconds) } }];
    case 'purge':
      return remove(live, { vmId, operationId, force: true, deleteDisks: true });
  }
};

/** Throws for one that was never built. */
export const machineOf = ({ vmId, spec, network, provisioned, nics, volumes, seedVersion, bootRuns, layout }: LiveVm, snapshots: Snapshots): Machine => {
  if (provisioned === null) throw new Error(`${vmId} was never built`);
  const { volumeId, mac, address } = provisioned;
  const first = network === null || mac === null || address === null ? null : { network, mac, address };
  return { vmId, spec, volumeId, first, layout, nics, volumes, seedVersion, bootRuns, layers: activeLayers(snapshots) };
};

/** With a change of what it is itself; what comes to it or goes has no place yet. */
const changedMachine = (machine: Machine, change: Reconfiguration): Machine => ({ ...machine, spec: specAfterChange(machine.spec, change), seedVersion: machine.seedVersion + (change.cloudInit === undefined ? 0 : 1) });

export const vm: Decider<VmCommand, VmEvent, Vm> = {
  category: 'vm',
  initial: { status: 'absent' },
  // It comes at any time, and says nothing of what anybody wants.
  observations: ['VmObserved', 'VmBootJobEnded', 'VmRestoreProgressed'],

  decide(command, state) {
    switch (command.type) {
      case 'CreateVm':
        throw new Error('CreateVm is resolved into RequestVm by its handler');
      case 'ReconfigureVm':
        throw new Error('ReconfigureVm is resolved into RequestReconfiguration by its handler');
      case 'BackupVm':
        throw new Error('BackupVm is resolved into RequestBackup by its handler');
      case 'RestoreBackup':
        throw new Error('RestoreBackup is resolved into RequestVm by its handler');
      case 'CloneVm':
        throw new Error('CloneVm is resolved into RequestVm by its handler');
      case 'RequestBackup':
        return backUp(state, command.data);
      case 'RequestReconfiguration':
        return reconfigure(state, command.data);
      case 'AskGuest':
        return ask(state, command.data);
      case 'FindSnapshotDisks':
        return findDisks(state, command.data);
      case 'RequestVm': {
        if (state.status !== 'absent') return refuse('vm.exists', { vmId: command.data.vmId });
        return [{ type: 'VmRequested', data: command.data }];
      }
      case 'ChangeVm': {
        const live = liveOr(state, command.data.vmId);
        if (isRefusal(live)) return live;
        const changes = changesOf(live.spec, command.data);
        return Object.keys(changes).length === 0 ? [] : [{ type: 'VmChanged', data: changes }];
      }
      case 'SetScreenPassword': {
        const { vmId, password } = command.data;
        const live = liveOr(state, vmId);
        if (isRefusal(live)) return live;
        if (password !== null && password.nodeId !== live.nodeId) return refuse('vm.moved', { vmId, nodeId: live.nodeId });
        return password === null && live.screenPassword === null ? [] : [{ type: 'VmScreenPasswordSet', data: { password } }];
      }
      case 'AssignVm': {
        const live = liveOr(state, command.data.vmId);
        if (isRefusal(live)) return live;
        if (live.operation?.id !== command.data.operationId) return refuse('vm.other_operation', { operationId: live.operation?.id ?? null });
        return [{ type: 'VmPlaced', data: { operationId: command.data.operationId, nodeId: command.data.nodeId, poolId: command.data.poolId, generation: live.generation + 1, decision: command.data.decision } }];
      }
      case 'FinishVm': {
        if (state.status !== 'live' || state.operation?.id !== command.data.operationId) return [];
        const { operationId, provisioned, reconfigured, observed, definition, how } = command.data;
        const { change } = state.operation;
        const drill = drillEnded(state, { passed: true, verdict: true, how: command.data.proven ?? how, refused: null, because: {} });
        return [
          ...(provisioned === null ? [] : [{ type: 'VmProvisioned', data: { operationId, provisioned, ...(command.data.nics === undefined ? {} : { nics: command.data.nics }), ...(definition === undefined ? {} : { definition }) } } as const]),
          ...(reconfigured === null || change === null ? [] : [{ type: 'VmReconfigured', data: { operationId, change, ...reconfigured } } as const]),
          ...layered(state, command.data),
          ...(observed === null ? [] : observation(state, observed)),
          ...drill ?? (hasToTidy(state) ? [] : [{ type: 'VmOperationDone', data: { operationId, how } } as const, ...thenDelete(state)]),
        ];
      }
      case 'FailVm': {
        if (state.status !== 'live' || state.operation?.id !== command.data.operationId) return [];
        const { vmId: _, ...data } = command.data;
        const { operationId, refused, because } = command.data;
        const drill = drillEnded(state, { passed: false, verdict: saysOfBackup(refused), how: wordsOf(refused, because), refused, because });
        if (drill !== undefined) return drill;
        // It was never ours: there is nothing to look at.
        const released: readonly VmEvent[] = state.operation.kind === 'adopt' && command.data.owed.length === 0 ? [{ type: 'VmReleased', data: { operationId } }] : [];
        return [{ type: 'VmOperationFailed', data }, ...released, ...thenDelete(state)];
      }
      case 'FinishDeleteVm': {
        if (state.status !== 'live' || state.operation?.id !== command.data.operationId) return [];
        const { operationId } = command.data;
        if (state.operation.kind === 'delete') return [{ type: 'VmDeleted', data: { operationId } }];
        if (isBeingAdopted(state)) return [{ type: 'VmReleased', data: { operationId } }];
        const work = state.operation.work ?? state.debt?.work ?? null;
        const how = state.operation.kind === 'delete-snapshot' ? 'deleted the snapshot' : state.operation.kind === 'revert' ? 'reverted' : 'cleaned up';
        return [...tidiedEvents(work, operationId), { type: 'VmOperationDone', data: { operationId, how } }, ...thenDelete(state)];
      }
      case 'StartVm':
        return power(state, command.data, 'start', { timeoutSeconds: 0, force: false });
      case 'StopVm':
        return power(state, command.data, 'stop', { timeoutSeconds: command.data.timeoutSeconds, force: command.data.force });
      case 'RebootVm':
        return power(state, command.data, 'reboot', { timeoutSeconds: 0, force: false });
      case 'ResetVm':
        return power(state, command.data, 'reset', { timeoutSeconds: 0, force: false });
      case 'PauseVm':
        return power(state, command.data, 'pause', { timeoutSeconds: 0, force: false });
      case 'ResumeVm':
        return power(state, command.data, 'resume', { timeoutSeconds: 0, force: false });
      case 'AdoptVm':
        throw new Error('AdoptVm is resolved into RequestAdoption by its handler');
      case 'RequestAdoption': {
        if (state.status === 'live') return refuse('vm.exists', { vmId: command.data.vmId });
        return [{ type: 'VmAdoptRequested', data: { ...command.data, generation: (state.status === 'deleted' ? state.generation : 0) + 1 } }];
      }
      case 'SaveVm':
        return power(state, command.data, 'save', { timeoutSeconds: 0, force: false });
      case 'RestoreVm': {
        const live = readyOr(state, command.data.vmId);
        if (isRefusal(live)) return live;
        if (live.desired === 'deleted') return refuse('vm.not_found', { vmId: live.vmId });
        return [{ type: 'VmReconfigureRequested', data: { operationId: command.data.operationId, change: { restore: live.desired === 'saved' ? 'stopped' : live.desired } } }];
      }
      case 'PublishVm':
        return publish(state, command.data);
      case 'TakeSnapshot':
        return takeSnapshot(state, command.data);
      case 'DeleteSnapshot':
        return deleteSnapshot(state, command.data);
      case 'RevertVm':
        return revert(state, command.data);
      case 'DeleteVm':
        return remove(state, command.data);
      case 'CleanUpVm': {
        const live = liveOr(state, command.data.vmId);
        if (isRefusal(live)) return live;
        const busy = idleOr(live);
        if (busy !== undefined) return busy;
        if (live.owed.length === 0) return refuse('vm.nothing_owed', { vmId: live.vmId });
        // A delete that a silent node kept from ending is continued as a delete.
        return live.desired === 'deleted'
          ? [{ type: 'VmDeleteRequested', data: { operationId: command.data.operationId, force: true, cancels: null } }, { type: 'VmDeleteStarted', data: { operationId: command.data.operationId } }]
          : [{ type: 'VmCleanUpStarted', data: { operationId: command.data.operationId } }];
      }
      case 'PlanVm': {
        const live = liveOr(state, command.data.vmId);
        if (isRefusal(live)) return live;
        return live.provisioned === null ? refuse('vm.not_provisioned', { vmId: live.vmId, failure: live.failure?.refused ?? null }) : [];
      }
      case 'AdvanceExpiry':
        return advance(state, command.data);
      case 'RecordRestoreProgress': {
        if (state.status !== 'live' || state.nodeId !== command.data.nodeId || state.operation?.kind !== 'create' || state.restore === null) return [];
        // What was begun again says less; whoever looks sees how far it came at the furthest.
        const percent = Math.min(99, command.data.percent);
        return percent < state.restoredPercent + PROGRESS_STEP ? [] : [{ type: 'VmRestoreProgressed', data: { operationId: state.operation.id, percent } }];
      }
      case 'RecordBootJob': {
        if (state.status !== 'live' || state.nodeId !== command.data.nodeId) return [];
        const { runId, exitCode, output } = command.data;
        // What a guest says of what nobody asked of it, or says again, is nothing.
        return state.bootRuns.some((run) => run.runId === runId) ? [{ type: 'VmBootJobEnded', data: { runId, exitCode, output } }] : [];
      }
      case 'RecordDomainState': {
        if (state.status !== 'live') return [];
        const { nodeId, session, sequence, generation, state: domain, reason, again } = command.data;
        return observation(state, { nodeId, session, sequence, generation, state: domain, reason }, again);
      }
    }
  },

  evolve(state, event) {
    if (event.type === 'VmRequested') {
      const { vmId, spec, imageFile, imageFormat, network, operationId, restore = null, copy = null, bootRuns = [], fetchBytes } = event.data;
      return {
        status: 'live', vmId, createdBy: operationId, spec, imageFile, imageFormat, fetchBytes, network, layout: (restore ?? copy)?.layout ?? null, createdAs: 'made', restore, restoredPercent: 0, copy, desired: 'running', desiredBefore: 'stopped', nodeId: null, poolId: null, generation: 0, provisioned: null,
        nics: [], volumes: (restore ?? copy)?.volumes ?? [], snapshots: noSnapshots, pending: [], expiry: { stage: 'ahead' }, seedVersion: 1, screenPassword: null, bootRuns, held: shareOf(spec), observed: null, operation: begun(operationId, 'create'), waitingDelete: null, deletesDisks: false, drilled: null, failure: null, owed: [], debt: null,
      };
    }
    if (event.type === 'VmAdoptRequested') {
      const { vmId, operationId, spec, nodeId, poolId, generation, layout, state: desired } = event.data;
      return {
        status: 'live', vmId, createdBy: operationId, spec, imageFile: null, imageFormat: 'qcow2', fetchBytes: undefined, network: null, layout, createdAs: 'adopted', restore: null, restoredPercent: 0, copy: null, desired, desiredBefore: desired, nodeId, poolId, generation, provisioned: null,
        nics: [], volumes: layout.disks.slice(1).map(({ volumeId, unit, sizeGib }) => ({ volumeId, unit, sizeGib, limits: null })), snapshots: noSnapshots, pending: [], expiry: { stage: 'ahead' }, seedVersion: 1, screenPassword: null, bootRuns: [], held: shareOf(spec), observed: null,
        operation: begun(operationId, 'adopt'), waitingDelete: null, deletesDisks: false, drilled: null, failure: null, owed: [], debt: null,
      };
    }
    if (state.status !== 'live') return state;
    switch (event.type) {
      case 'VmReleased':
        return { status: 'deleted', nodeId: state.nodeId, generation: state.generation };
      case 'VmChanged':
        return { ...state, spec: specAfter(state.spec, event.data), expiry: event.data.expiresAt === undefined ? state.expiry : { stage: 'ahead' } };
      case 'VmExpiryNoticed':
        return { ...state, expiry: { stage: event.data.stage } };
      case 'VmExpired':
        return { ...state, expiry: { stage: 'expired', recycleAt: event.data.recycleAt } };
      case 'VmRecycled':
        return { ...state, expiry: { stage: 'recycled', purgeAt: event.data.purgeAt } };
      case 'VmPlaced':
        return { ...state, nodeId: event.data.nodeId, poolId: event.data.poolId, generation: event.data.generation, observed: null };
      case 'VmProvisioned':
        return { ...state, provisioned: event.data.provisioned, nics: event.data.nics ?? state.nics, layout: state.layout === null || event.data.definition === undefined ? state.layout : { ...state.layout, definition: event.data.definition } };
      case 'VmPowerRequested': {
        const { operationId, action } = event.data;
        return { ...state, desired: desiredAfter[action], desiredBefore: state.desired, operation: begun(operationId, 'power', { action }) };
      }
      case 'VmReconfigureRequested':
        return { ...state, desiredBefore: state.desired, operation: begun(event.data.operationId, 'reconfigure', { change: event.data.change }) };
      case 'VmGuestRequested':
        return { ...state, desiredBefore: state.desired, operation: begun(event.data.operationId, 'guest') };
      case 'VmReconfigured': {
        const spec = specAfterChange(state.spec, event.data.change);
        const { change, nic, volume } = event.data;
        const provisioned = change.rebuild === undefined || state.provisioned === null ? state.provisioned : { ...state.provisioned, volumeId: change.rebuild.volumeId };
        return { ...state, spec, provisioned, pending: event.data.pending, layout: layoutAfterChange(state.layout, change), nics: nicsAfterChange(state.nics, change, nic), volumes: volumesAfterChange(state.volumes, change, volume), bootRuns: bootRunsAfterChange(state.bootRuns, change, change.addBootRun), held: largerOf(state.held, spec), seedVersion: state.seedVersion + (change.cloudInit === undefined ? 0 : 1) };
      }
      case 'VmPublishRequested':
        return { ...state, desiredBefore: state.desired, operation: begun(event.data.operationId, 'publish') };
      case 'VmBackupRequested': {
        const { operationId, ...backup } = event.data;
        return { ...state, desiredBefore: state.desired, operation: begun(operationId, 'backup', { backup }) };
      }
      case 'VmSnapshotRequested': {
        const { operationId, ...work } = event.data;
        return { ...state, desiredBefore: state.desired, operation: begun(operationId, 'snapshot', { work: { kind: 'take', ...work } }) };
      }
      case 'VmSnapshotTaken':
        return { ...state, snapshots: taken(state.snapshots, event.data.snapshot, event.data.layer) };
      case 'VmSnapshotDeleteRequested': {
        const { operationId, snapshotId } = event.data;
        return { ...state, desiredBefore: state.desired, operation: begun(operationId, 'delete-snapshot', { work: { kind: 'delete', snapshotId } }) };
      }
      case 'VmSnapshotDeleted':
        return { ...state, snapshots: tidied(without(state.snapshots, event.data.snapshotId)).snapshots };
      case 'VmRevertRequested': {
        const { operationId, ...work } = event.data;
        return { ...state, desiredBefore: state.desired, operation: begun(operationId, 'revert', { work: { kind: 'revert', ...work } }) };
      }
      case 'VmReverted':
        return {
          ...state, snapshots: reverted(state.snapshots, event.data.snapshotId, event.data.layer, event.data.operationId),
          operation: state.operation === null ? null : { ...state.operation, work: { kind: 'tidy' } },
        };
      case 'VmLayersTidied':
        return { ...state, snapshots: tidied(state.snapshots).snapshots };
      case 'VmOperationDone':
        // What was cleaned away stays a failure to be looked at: only the debt is gone.
        return {
          ...state, operation: null, failure: state.operation?.kind === 'clean-up' ? state.failure : null, owed: [], debt: null,
          // What waited for a start is so now; one that goes on from where it was saved is as it was.
          ...(state.operation?.action === 'start' && state.desiredBefore !== 'saved' ? { held: shareOf(state.spec), pending: [] } : {}),
        };
      case 'VmOperationFailed': {
        const { refused, because, owed } = event.data;
        const gaveUp = state.operation?.kind === 'delete';
        const neverWas = state.provisioned === null;
        return {
          ...state, operation: null, owed: owed.length > 0 ? owed : state.owed,
          debt: owed.length === 0 ? state.debt : debtOf(state, event.data.nic ?? null),
          failure: gaveUp || neverWas || owed.length > 0 ? refuse(refused, because) : state.failure,
          desired: gaveUp ? 'deleted' : neverWas ? 'stopped' : state.waitingDelete === null ? state.desiredBefore : 'deleted',
        };
      }
      case 'VmDeleteRequested':
        return { ...state, desired: 'deleted', waitingDelete: event.data.operationId, deletesDisks: state.deletesDisks || event.data.deleteDisks === true };
      case 'VmDeleteStarted':
        return { ...state, operation: begun(event.data.operationId, 'delete'), waitingDelete: null };
      case 'VmDrilled':
        return { ...state, drilled: event.data, desired: 'deleted', deletesDisks: true, operation: begun(event.data.operationId, 'delete') };
      case 'VmCleanUpStarted':
        return { ...state, operation: begun(event.data.operationId, 'clean-up') };
      case 'VmDeleted':
        return { status: 'deleted', nodeId: state.nodeId, generation: state.generation };
      case 'VmScreenPasswordSet':
        return { ...state, screenPassword: event.data.password };
      case 'VmRestoreProgressed':
        return { ...state, restoredPercent: event.data.percent };
      case 'VmBootJobEnded':
        return { ...state, bootRuns: state.bootRuns.filter(({ runId }) => runId !== event.data.runId) };
      case 'VmObserved':
        return { ...state, observed: event.data };
    }
  },

  facts(command, state) {
    switch (command.type) {
      case 'AssignVm':
        return state.status === 'live' ? { generation: state.generation } : {};
      case 'PlanVm':
        return state.status === 'live' ? { generation: state.generation, plan: planOf(changedMachine(machineOf(state, state.snapshots), command.data.change ?? {})) } : {};
      case 'FindSnapshotDisks':
        return { layers: frozenIn(state, command.data) ?? [] };
      default:
        return {};
    }
  },
};
