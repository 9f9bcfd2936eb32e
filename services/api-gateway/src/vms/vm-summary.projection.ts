/*
 * One document for each VM that is not deleted: what `GET /v1/vms/:id` sends, text as stored.
 *
 * It folds the same events as the decider that owns the VM (services/scheduler/src/vm/vm.ts) into words for
 * people. Desired and observed are never one field; `status` is computed from both. One status is not in
 * here: `unknown` because a node is silent. Silence is a fact about the node, so it is joined when the VM is
 * read, instead of being written 200 times when a node with 200 VMs falls silent.
 */
import type { BootRun } from '@chronovirt/contracts/boot-job/boot-job';
import { deviceName, isOfNode } from '@chronovirt/contracts/vm/assigned';
import { categoryOf, idOfStream, type SnapshotId } from '@chronovirt/contracts/ids';
import { bootRunsAfterChange, specAfterChange, volumesAfterChange } from '@chronovirt/contracts/vm/reconfiguration';
import type { ScreenPassword } from '@chronovirt/contracts/vm/guest';
import type { SnapshotKind } from '@chronovirt/contracts/vm/snapshot';
import type { AttachedVolume, Pending, PowerAction, Reconfiguration, VmEvent, VmSpec } from '@chronovirt/contracts/vm/vm.events';
import type { RecordedEvent } from '@chronovirt/event-log/log';
import type { Projection } from '@chronovirt/event-log/projection';
import { inWords } from '../problem.ts';

export type VmStatus = 'requested' | 'provisioning' | 'running' | 'stopped' | 'paused' | 'saved' | 'deleting' | 'failed' | 'unknown';
export type Desired = 'running' | 'stopped' | 'paused' | 'saved' | 'deleted';

export interface VmSummary {
  readonly id: string;
  readonly name: string;
  readonly description: string;
  readonly status: VmStatus;
  /** Why the status is what it is, where it needs a word; else null. */
  readonly statusBecause: string | null;
  readonly desired: Desired;
  readonly observed: {
    readonly state: string;
    readonly reason: string;
    readonly nodeId: string;
    readonly generation: number;
    /** The node's own clock, where it said so. */
    readonly nodeAt: string | null;
    /** The log's clock. */
    readonly at: string;
  } | null;
  readonly spec: Omit<VmSpec, 'name' | 'description'>;
  /** null: it was adopted, with interfaces of its own. */
  readonly networkName: string | null;
  readonly nodeId: string | null;
  readonly generation: number;
  /** Interfaces beside the first, whose address and MAC stand above. */
  /** Disks beside the first. */
  readonly volumes: readonly AttachedVolume[];
  readonly nics: readonly { readonly networkId: string; readonly network: string; readonly address: string; readonly mac: string }[];
  /** What its disks held at some moments, the oldest first. */
  readonly snapshots: readonly ShownSnapshot[];
  /** The snapshot that the disks are on now: the parent of the next. */
  readonly currentSnapshot: SnapshotId | null;
  /** What it is to run at its next boot, and has not said that it has. */
  readonly bootRuns: readonly { readonly runId: string; readonly jobId: string; readonly name: string; readonly revision: number; readonly system: boolean }[];
  /** What whoever looks at its screen is asked for, as only its node can open it. */
  readonly screenPassword: ScreenPassword | null;
  /** What of a running VM will only be so after it was stopped and started. */
  readonly pending: readonly Pending[];
  readonly address: string | null;
  readonly mac: string | null;
  /** The operation that has the VM in hand, or the delete that waits for it to end. */
  readonly operationId: string | null;
  readonly operation: { readonly id: string; readonly kind: string; readonly desiredBefore: Desired } | null;
  readonly waitingDelete: string | null;
  /** It stays on its node, and why. */
  readonly pinned?: { readonly because: string } | undefined;
  /** How far a VM has come whose time is over, or soon is, and when that goes on. */
  readonly expiry: { readonly stage: 'week' | 'day' | 'expired' | 'recycled'; readonly next: string } | null;
  readonly failure: { readonly code: string; readonly message: string; readonly because: unknown; readonly owed: readonly string[] } | null;
  readonly createdAt: string;
  readonly changedAt: string;
  readonly position: number;
  /** Of the VM's stream: its ETag. */
  readonly version: number;
}

export interface ShownSnapshot {
  readonly id: SnapshotId;
  readonly kind: SnapshotKind;
  readonly name: string;
  readonly description: string;
  /** null: it was taken of disks that were on none. */
  readonly parent: SnapshotId | null;
  /** What the VM did at the time. */
  readonly state: string;
  /** Whether the guest's file systems were held still for it. */
  readonly frozen: boolean;
  readonly takenAt: string;
  /** Sizes are what the guest saw, in GiB. */
  readonly disks: readonly { readonly volumeId: string; readonly sizeGib: number }[];
}

const withoutSnapshot = (vm: Pick<VmSummary, 'snapshots' | 'currentSnapshot'>, id: SnapshotId): Pick<VmSummary, 'snapshots' | 'currentSnapshot'> => {
  const parent = vm.snapshots.find((one) => one.id === id)?.parent ?? null;
  return {
    snapshots: vm.snapshots.filter((one) => one.id !== id).map((one) => (one.parent === id ? { ...one, parent } : one)),
    currentSnapshot: vm.currentSnapshot === id ? parent : vm.currentSnapshot,
  };
};

const desiredAfter: Readonly<Record<PowerAction, Desired>> = { start: 'running', reboot: 'running', reset: 'running', resume: 'running', stop: 'stopped', pause: 'paused', save: 'saved' };

/** What a domain's state is called; a crashed or missing domain does not run, and `observed` says which. */
const statusOfState: Readonly<Record<string, VmStatus>> = { running: 'running', paused: 'paused', stopped: 'stopped', saved: 'saved', crashed: 'stopped', absent: 'stopped' };

const statusOf = (vm: Omit<VmSummary, 'status' | 'statusBecause'>): Pick<VmSummary, 'status' | 'statusBecause'> => {
  if (vm.waitingDelete !== null || vm.operation?.kind === 'delete') return { status: 'deleting', statusBecause: null };
  if (vm.operation?.kind === 'adopt') return { status: 'provisioning', statusBecause: 'it is being adopted' };
  if (vm.operation?.kind === 'create') return { status: vm.nodeId === null ? 'requested' : 'provisioning', statusBecause: null };
  if (vm.failure !== null) return { status: 'failed', statusBecause: vm.failure.message };
  if (vm.observed === null) return { status: 'unknown', statusBecause: 'its node has not said yet what it sees' };
  const status = statusOfState[vm.observed.state] ?? 'unknown';
  const gone = vm.observed.state === 'absent' ? 'its node has no such domain any more' : vm.observed.state === 'crashed' ? 'the guest crashed' : null;
  return { status, statusBecause: gone };
};

type Facts = Omit<VmSummary, 'status' | 'statusBecause' | 'operationId'>;
const settle = (vm: Facts, event: RecordedEvent): VmSummary => {
  const now = { ...vm, operationId: vm.operation?.id ?? vm.waitingDelete, changedAt: event.recordedAt, position: event.position, version: event.version };
  const bound = (vm.spec.assigned ?? []).filter(isOfNode).map(deviceName);
  return { ...now, ...statusOf(now), ...(bound.length === 0 ? { pinned: undefined } : { pinned: { because: `it has devices of its node: ${bound.join(', ')}` } }) };
};

const shownRun = ({ runId, jobId, name, revision, system }: BootRun) => ({ runId, jobId, name, revision, system });

/** A host name that the guest has not been told: a change of something else does not tell it either. */
const stillUntold = ({ pending }: VmSummary, { hostname, cloudInit }: Reconfiguration): readonly Pending[] =>
  (hostname === undefined && cloudInit === undefined ? pending.filter((one) => one === 'hostname') : []);

const fold = (vm: VmSummary | undefined, recorded: RecordedEvent): VmSummary | undefined => {
  const event = recorded as RecordedEvent & VmEvent; // the log has checked the shape against the table of the type
  if (event.type === 'VmRequested') {
    const { vmId, operationId, spec: { name, description, ...spec }, network, restore, copy, bootRuns = [] } = event.data;
    return settle({
      id: vmId, name, description, desired: 'running', observed: null, spec, networkName: network.name, nodeId: null, generation: 0, volumes: (restore ?? copy)?.volumes ?? [], nics: [], snapshots: [], currentSnapshot: null, screenPassword: null, bootRuns: bootRuns.map(shownRun), pending: [], address: null, mac: null,
      operation: { id: operationId, kind: 'create', desiredBefore: 'stopped' }, waitingDelete: null, expiry: null, failure: null,
      createdAt: event.recordedAt, changedAt: event.recordedAt, position: event.position, version: event.version,
    }, event);
  }
  if (event.type === 'VmAdoptRequested') {
    const { vmId, operationId, spec: { name, description, ...spec }, nodeId, generation, layout, state } = event.data;
    return settle({
      id: vmId, name, description, desired: state, observed: null, spec, networkName: null, nodeId, generation, volumes: layout.disks.slice(1).map(({ volumeId, unit, sizeGib }) => ({ volumeId, unit, sizeGib, limits: null })),
      nics: [], snapshots: [], currentSnapshot: null, expiry: null, screenPassword: null, bootRuns: [], pending: [], address: null, mac: null, operation: { id: operationId, kind: 'adopt', desiredBefore: state }, waitingDelete: null, failure: null,
      createdAt: event.recordedAt, changedAt: event.recordedAt, position: event.position, version: event.version,
    }, event);
  }
  if (vm === undefined) return undefined;
  switch (event.type) {
    case 'VmChanged': {
      const { description = vm.description, tags = vm.spec.tags, protected: isProtected = vm.spec.protected, expiresAt, autostart } = event.data;
      return settle({ ...vm, description, spec: { ...vm.spec, tags, protected: isProtected, ...(expiresAt === undefined ? {} : { expiresAt }), ...(autostart === undefined ? {} : { autostart }) }, expiry: expiresAt === undefined ? vm.expiry : null }, event);
    }
    case 'VmExpiryNoticed':
      return settle({ ...vm, expiry: { stage: event.data.stage, next: event.data.expiresAt } }, event);
    case 'VmExpired':
      return settle({ ...vm, expiry: { stage: 'expired', next: event.data.recycleAt } }, event);
    case 'VmRecycled':
      return settle({ ...vm, expiry: { stage: 'recycled', next: event.data.purgeAt } }, event);
    case 'VmPlaced':
      return settle({ ...vm, nodeId: event.data.nodeId, generation: event.data.generation, observed: null }, event);
    case 'VmProvisioned':
      return settle({
        ...vm, address: event.data.provisioned.address, mac: event.data.provisioned.mac,
        nics: [...vm.nics, ...(event.data.nics ?? []).map(({ network, address, mac }) => ({ networkId: network.networkId, network: network.name, address, mac }))],
      }, event);
    case 'VmPowerRequested': {
      const { operationId, action } = event.data;
      return settle({ ...vm, desired: desiredAfter[action], operation: { id: operationId, kind: action, desiredBefore: vm.desired } }, event);
    }
    case 'VmOperationDone':
      // What was cleaned away stays a failure to be looked at: only the debt is gone.
      return settle({ ...vm, operation: null, failure: vm.operation?.kind === 'clean-up' && vm.failure !== null ? { ...vm.failure, owed: [] } : null }, event);
    case 'VmOperationFailed': {
      const { refused, because, owed } = event.data;
      const kind = vm.operation?.kind;
      const neverWas = vm.mac === null && kind === 'create';
      const stillOwed = owed.length > 0 ? owed : (vm.failure?.owed ?? []);
      const failed = kind === 'delete' || neverWas || owed.length > 0;
      return settle({
        ...vm,
        operation: null,
        failure: failed ? { code: refused, message: inWords(refused, because), because, owed: stillOwed } : vm.failure,
        desired: kind === 'delete' || vm.waitingDelete !== null ? 'deleted' : neverWas ? 'stopped' : (vm.operation?.desiredBefore ?? vm.desired),
      }, event);
    }
    case 'VmReconfigureRequested':
      return settle({ ...vm, operation: { id: event.data.operationId, kind: 'reconfigure', desiredBefore: vm.desired } }, event);
    case 'VmGuestRequested':
      return settle({ ...vm, operation: { id: event.data.operationId, kind: event.data.request.kind, desiredBefore: vm.desired } }, event);
    case 'VmPublishRequested':
      return settle({ ...vm, operation: { id: event.data.operationId, kind: 'publish', desiredBefore: vm.desired } }, event);
    case 'VmBackupRequested':
      return settle({ ...vm, operation: { id: event.data.operationId, kind: 'backup', desiredBefore: vm.desired } }, event);
    case 'VmSnapshotRequested':
      return settle({ ...vm, operation: { id: event.data.operationId, kind: 'snapshot', desiredBefore: vm.desired } }, event);
    case 'VmSnapshotTaken': {
      const { snapshotId, kind, name, description, parent, state, frozen, disks } = event.data.snapshot;
      const shown: ShownSnapshot = { id: snapshotId, kind, name, description, parent, state, frozen, takenAt: event.recordedAt, disks: disks.map(({ volumeId, sizeGib }) => ({ volumeId, sizeGib })) };
      return settle({ ...vm, snapshots: [...vm.snapshots, shown], currentSnapshot: snapshotId }, event);
    }
    case 'VmSnapshotDeleteRequested':
      return settle({ ...vm, operation: { id: event.data.operationId, kind: 'delete-snapshot', desiredBefore: vm.desired } }, event);
    case 'VmSnapshotDeleted':
      return settle({ ...vm, ...withoutSnapshot(vm, event.data.snapshotId) }, event);
    case 'VmRevertRequested':
      return settle({ ...vm, operation: { id: event.data.operationId, kind: 'revert', desiredBefore: vm.desired } }, event);
    case 'VmReverted':
      return settle({ ...vm, currentSnapshot: event.data.snapshotId }, event);
    case 'VmLayersTidied':
      return settle(vm, event);
    case 'VmReconfigured': {
      const { change, nic, volume, pending } = event.data;
      const added = nic === null ? [] : [{ networkId: nic.network.networkId, network: nic.network.name, address: nic.address, mac: nic.mac }];
      return settle({ ...vm, name: change.name ?? vm.name, spec: specAfterChange(vm.spec, change), nics: [...vm.nics.filter(({ mac }) => mac !== change.removeNic), ...added], volumes: volumesAfterChange(vm.volumes, change, volume), bootRuns: bootRunsAfterChange(vm.bootRuns, change, change.addBootRun === undefined ? undefined : shownRun(change.addBootRun)), pending: [...pending, ...stillUntold(vm, change)] }, event);
    }
    case 'VmDeleteRequested':
      return settle({ ...vm, desired: 'deleted', waitingDelete: event.data.operationId }, event);
    case 'VmDeleteStarted':
    case 'VmDrilled':
      return settle({ ...vm, operation: { id: event.data.operationId, kind: 'delete', desiredBefore: 'deleted' }, waitingDelete: null }, event);
    case 'VmCleanUpStarted':
      return settle({ ...vm, operation: { id: event.data.operationId, kind: 'clean-up', desiredBefore: vm.desired } }, event);
    case 'VmDeleted':
    case 'VmReleased':
      return undefined;
    case 'VmScreenPasswordSet':
      return settle({ ...vm, screenPassword: event.data.password }, event);
    case 'VmRestoreProgressed':
      return settle(vm, event);
    case 'VmBootJobEnded':
      return settle({ ...vm, bootRuns: vm.bootRuns.filter(({ runId }) => runId !== event.data.runId) }, event);
    case 'VmObserved': {
      const { state, reason, nodeId, generation } = event.data;
      const pending = state === 'running' || state === 'paused' || state === 'saved' ? vm.pending : [];
      return settle({ ...vm, pending, observed: { state, reason, nodeId, generation, nodeAt: event.meta.nodeAt ?? null, at: event.recordedAt } }, event);
    }
  }
};

export const vmSummary: Projection<VmSummary> = {
  name: 'gateway.vm_summary',
  version: 6,
  keys: (event) => (categoryOf(event.stream) === 'vm' ? [idOfStream(event.stream)] : []),
  fold,
};

/** Statuses that only a node can vouch for: while it is silent nobody knows them. */
export const vouchedFor: readonly VmStatus[] = ['running', 'stopped', 'paused', 'saved'];

/** The VM as it is shown while its node is silent. */
export const whileSilent = (vm: VmSummary, node: { readonly name: string; readonly silentSince: string }): VmSummary =>
  vouchedFor.includes(vm.status) ? { ...vm, status: 'unknown', statusBecause: `node ${node.name} silent since ${node.silentSince}` } : vm;
