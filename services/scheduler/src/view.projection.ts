/*
 * What a scheduler keeps in memory to decide quickly: nodes with their capacity, images and networks by
 * name, where every VM is, and the sagas that are open. All of it is folded from the log by the same
 * projections that fill the tables, so a process starts from the tables and goes on from there.
 *
 * A process also takes its own events of nodes at once, before the log brings them round: else two
 * placements in the same millisecond would see the same room. The stream's version keeps an event from
 * being folded twice. What is proposed and not yet decided is set aside as promised.
 */
import { type BackupId, categoryOf, idOfStream, type NodeId, type OperationId, type PoolId, type VmId, type VolumeId } from '@chronovirt/contracts/ids';
import type { BackupSlot, BackupTarget } from '@chronovirt/contracts/backup/backup';
import type { BackupPolicyEvent } from '@chronovirt/contracts/backup-policy/backup-policy.events';
import type { BackedUpMachine, BackupEvent, BackupFile } from '@chronovirt/contracts/backup/backup.events';
import { contentOf, type ImageEvent, type ImageFormat, type ImageMetadata } from '@chronovirt/contracts/image/image.events';
import type { NetworkEvent, NetworkPlan } from '@chronovirt/contracts/network/network.events';
import type { Autostart, Restore, VmEvent } from '@chronovirt/contracts/vm/vm.events';
import type { VolumeEvent } from '@chronovirt/contracts/volume/volume.events';
import type { CommandMeta } from '@chronovirt/contracts/command';
import { type Facts, refuse, type Refusal } from '@chronovirt/decider/decider';
import type { RecordedEvent } from '@chronovirt/event-log/log';
import { type Projection, ProjectionInMemory } from '@chronovirt/event-log/projection';
import type { DriftAction } from '@chronovirt/contracts/drift/drift.events';
import { driftPolicy, openDrift, type OpenDriftEntry } from './drift/open-drift.projection.ts';
import { type NodeCapacity, nodeCapacity } from './node/node-capacity.projection.ts';
import type { Candidate, PlacePool } from './placement/candidate.ts';
import { type PoolPlace, poolPlace } from './pool/pool-place.projection.ts';
import { type Expiry, nextAt } from './vm/expiry.ts';
import { vm as vmDecider } from './vm/vm.ts';

/** What a VM takes of a node. */
interface Share {
  readonly vcpus: number;
  readonly memoryMib: number;
}

const sumOf = (shares: ReadonlyMap<string, Share> | undefined): Share | undefined =>
  shares === undefined ? undefined : [...shares.values()].reduce((sum, { vcpus, memoryMib }) => ({ vcpus: sum.vcpus + vcpus, memoryMib: sum.memoryMib + memoryMib }), { vcpus: 0, memoryMib: 0 });

export type CatalogEntry =
  | { readonly kind: 'image'; readonly imageId: string; readonly name: string; readonly file: string; readonly format: ImageFormat; readonly minDiskGib: number; readonly minMemoryMib: number; readonly sizeBytes: number; readonly osFamily?: ImageMetadata['osFamily'] | undefined; readonly drivers?: string | undefined; /** Of a machine's disk. */ readonly copied?: boolean; readonly family?: string | undefined; /** Position in the log: of a family's versions the one with the highest is current. */ readonly currentSince?: number }
  | { readonly kind: 'network'; readonly networkId: string; readonly name: string; readonly plan: NetworkPlan };

/** Of what lies there already the node reads all of it once, to check it, and that is so many times as fast. */
const READ_OF_FETCHED = 16;
/** What a node has to fetch of an image, unless it has it already, or what takes it as long. Bytes. */
export const bytesToFetch = ({ file, sizeBytes }: Pick<Extract<CatalogEntry, { kind: 'image' }>, 'file' | 'sizeBytes'>): { readonly fetchBytes?: number } => ({ fetchBytes: contentOf(file) === undefined ? Math.ceil(sizeBytes / READ_OF_FETCHED) : sizeBytes });

/** Images and networks that a VM may be asked for with. */
export const catalog: Projection<CatalogEntry> = {
  name: 'scheduler.catalog',
  version: 4,
  keys: (event) => (['image', 'network'].includes(categoryOf(event.stream)) ? [idOfStream(event.stream)] : []),
  fold(document, recorded) {
    const event = recorded as unknown as ImageEvent | NetworkEvent;
    switch (event.type) {
      case 'ImageRegistered': {
        const { imageId, name, file, format, minDiskGib, minMemoryMib, sizeBytes, osFamily, drivers, copiedFrom, family } = event.data;
        return { kind: 'image', imageId, name, file, format, minDiskGib, minMemoryMib, sizeBytes, osFamily, drivers, copied: copiedFrom !== undefined, family, currentSince: recorded.position };
      }
      case 'ImageMadeCurrent':
        return document?.kind === 'image' ? { ...document, currentSince: recorded.position } : document;
      case 'NetworkCreated':
        return { kind: 'network', networkId: event.data.networkId, name: event.data.name, plan: event.data };
      case 'ImageDeleted':
      case 'NetworkDeleted':
        return undefined;
      default:
        return document;
    }
  },
};

export interface VmEntry {
  readonly vmId: string;
  readonly name: string;
  readonly nodeId: string | null;
  readonly generation: number;
  readonly provisioned: boolean;
  readonly busy: boolean;
  /** Events that call for a reaction (a saga to start, one to cancel) until the operation is over. */
  readonly calls: readonly { readonly position: number; readonly eventId: string }[];
  /** The log's clock at the last of them: milliseconds since the epoch. */
  readonly calledAt: number;
  readonly owed: readonly string[];
  /** The operation that left something owed: what a clean-up is named after. */
  readonly failedOperationId: string | null;
  readonly observed: string | null;
  readonly autostart: Autostart | null;
  /** The event that says that its node came back without it; null: it did not. */
  readonly lostAt: number | null;
  /** It is the machine of a drill. */
  readonly drill?: true;
}

/** What a hypervisor says of a domain that does not run and of which it knows no end: it was begun anew itself, after a power failure for example. */
const LOST = 'unknown';

/** Where every VM that is not deleted is, and what is owed to it. */
export const vmIndex: Projection<VmEntry> = {
  name: 'scheduler.vm_index',
  version: 4,
  keys: (event) => (categoryOf(event.stream) === vmDecider.category ? [idOfStream(event.stream)] : []),
  fold(document, recorded) {
    const event = recorded as unknown as VmEvent;
    const call = { position: recorded.position, eventId: recorded.id };
    const calledAt = Date.parse(recorded.recordedAt);
    if (event.type === 'VmRequested') {
      return { vmId: event.data.vmId, name: event.data.spec.name, nodeId: null, generation: 0, provisioned: false, busy: true, calls: [call], calledAt, owed: [], failedOperationId: null, observed: null, autostart: event.data.spec.autostart ?? null, lostAt: null, ...(event.data.restore?.drill === true ? { drill: true as const } : {}) };
    }
    if (event.type === 'VmAdoptRequested') {
      const { vmId, spec, nodeId, generation } = event.data;
      return { vmId, name: spec.name, nodeId, generation, provisioned: false, busy: true, calls: [call], calledAt, owed: [], failedOperationId: null, observed: null, autostart: null, lostAt: null };
    }
    if (document === undefined) return undefined;
    switch (event.type) {
      case 'VmReleased':
        return undefined;
      case 'VmReconfigured':
        return { ...document, name: event.data.change.name ?? document.name };
      case 'VmPlaced':
        return { ...document, nodeId: event.data.nodeId, generation: event.data.generation, observed: null };
      case 'VmProvisioned':
        return { ...document, provisioned: true };
      case 'VmPowerRequested':
      case 'VmReconfigureRequested':
      case 'VmGuestRequested':
      case 'VmPublishRequested':
      case 'VmBackupRequested':
      case 'VmSnapshotRequested':
      case 'VmSnapshotDeleteRequested':
      case 'VmRevertRequested':
      case 'VmReverted':
      case 'VmDrilled':
      case 'VmDeleteStarted':
      case 'VmCleanUpStarted':
        return { ...document, busy: true, calls: [call], calledAt };
      case 'VmDeleteRequested':
        // The running operation is to be cancelled; it may not have been begun either.
        return { ...document, busy: true, calls: [...document.calls, call], calledAt };
      case 'VmOperationDone':
        return { ...document, busy: false, calls: [], owed: [], failedOperationId: null };
      case 'VmOperationFailed':
        return { ...document, busy: false, calls: [], owed: event.data.owed.length > 0 ? event.data.owed : document.owed, failedOperationId: event.data.operationId };
      case 'VmDeleted':
        return undefined;
      case 'VmObserved':
        return { ...document, observed: event.data.state, lostAt: event.data.state === 'stopped' && event.data.reason === LOST ? recorded.position : null };
      case 'VmChanged':
        return event.data.autostart === undefined ? document : { ...document, autostart: event.data.autostart };
      default:
        return document;
    }
  },
};

export interface OpenSaga {
  readonly saga: string;
  readonly id: string;
  readonly meta: CommandMeta;
  /** The log's clock at the saga's last event: milliseconds since the epoch. */
  readonly lastEventAt: number;
}

/** Sagas that have not ended: what a leader takes over when nobody moves them. */
export const openSaga: Projection<OpenSaga> = {
  name: 'scheduler.open_saga',
  version: 1,
  keys: (event) => (event.stream.startsWith('saga-') ? [event.stream] : []),
  fold(document, event, stream) {
    if (event.type === 'SagaEnded') return undefined;
    const { commandId: _, ...meta } = event.meta;
    return { saga: categoryOf(stream).slice('saga-'.length), id: idOfStream(stream), meta: document?.meta ?? meta, lastEventAt: Date.parse(event.recordedAt) };
  },
};

/** What is to be done to a volume that no VM has, and the saga that does it. */
export interface VolumeCall {
  readonly volumeId: VolumeId;
  readonly nodeId: NodeId;
  readonly saga: string;
  /** Of `settle-volume` and its like there is none yet: it has the name of what failed, and how often it was tried. */
  readonly operationId: OperationId;
  readonly failed: { readonly operationId: OperationId; readonly tries: number } | null;
  readonly input: Facts;
  readonly meta: CommandMeta;
}

export const volumeWork: Projection<VolumeCall> = {
  name: 'scheduler.volume_work',
  version: 1,
  keys: (event) => (categoryOf(event.stream) === 'volume' ? [idOfStream(event.stream)] : []),
  fold(document, recorded) {
    const event = recorded as unknown as VolumeEvent;
    const { commandId: _, ...meta } = recorded.meta;
    const calls = (saga: string, data: { readonly operationId: OperationId; readonly volumeId: VolumeId; readonly nodeId: NodeId }): VolumeCall =>
      ({ volumeId: data.volumeId, nodeId: data.nodeId, saga, operationId: data.operationId, failed: null, input: { ...data }, meta: { ...meta, operationId: data.operationId } });
    switch (event.type) {
      case 'VolumeRequested':
        return calls('create-volume', event.data);
      case 'VolumeWorkRequested':
        return calls('work-on-volume', event.data);
      case 'VolumeDeleteStarted':
        return calls('drop-volume', event.data);
      case 'VolumeFailed':
      case 'VolumeWorkFailed':
        return document === undefined || event.data.owed.length === 0 ? undefined : { ...document, saga: 'settle-volume', failed: { operationId: document.operationId, tries: 0 } };
      case 'VolumeSettleFailed':
        return document === undefined || document.failed === null ? document : { ...document, failed: { ...document.failed, tries: document.failed.tries + 1 } };
      case 'VolumeReady':
      case 'VolumeWorked':
      case 'VolumeSettled':
      case 'VolumeDeleteAbandoned':
      case 'VolumeDeleted':
        return undefined;
      default:
        return document;
    }
  },
};

/** A backup that is not deleted: what a restore is made of, and what is to be taken away. */
export interface BackupEntry {
  readonly backupId: BackupId;
  readonly vmId: VmId;
  readonly target: BackupTarget;
  /** null: it is being taken. */
  readonly taken: { readonly parent: BackupId | null; readonly machine: BackedUpMachine; readonly files: readonly BackupFile[]; /** Its guest's agent held the file systems still. */ readonly frozen: boolean; readonly at: string } | null;
  readonly scheduled: BackupSlot | null;
  /** The log's clock when it was begun. */
  readonly begunAt: string;
  readonly deleting: { readonly operationId: OperationId; readonly nodeId: NodeId; readonly meta: CommandMeta } | null;
}

export const backup: Projection<BackupEntry> = {
  name: 'scheduler.backup',
  version: 2,
  keys: (event) => (categoryOf(event.stream) === 'archive' ? [String(event.data['backupId'])] : []),
  fold(document, recorded) {
    const event = recorded as unknown as BackupEvent;
    if (event.type === 'BackupBegun') {
      const { backupId, vmId, target, scheduled } = event.data;
      return { backupId, vmId, target, taken: null, scheduled, begunAt: recorded.recordedAt, deleting: null };
    }
    if (document === undefined) return undefined;
    switch (event.type) {
      case 'BackupTaken': {
        const { parent, machine, files, frozen } = event.data;
        return { ...document, taken: { parent, machine, files, frozen, at: recorded.recordedAt } };
      }
      case 'BackupDeleteStarted': {
        const { commandId: _, ...meta } = recorded.meta;
        const { operationId, nodeId } = event.data;
        return { ...document, deleting: { operationId, nodeId, meta: { ...meta, operationId } } };
      }
      case 'BackupDeleteAbandoned':
        return { ...document, deleting: null };
      case 'BackupAbandoned':
      case 'BackupDeleted':
        return undefined;
      case 'BackupProgressed':
      case 'BackupDrilled':
        return document;
    }
  },
};

/** A schedule, since when it holds, and for which time each of its VMs was last backed up. */
export interface PolicyEntry {
  readonly policy: Extract<BackupPolicyEvent, { type: 'BackupPolicySet' }>['data'];
  readonly since: string;
  readonly slots: Readonly<Record<string, string>>;
  /** How many backups of each were asked for since one was drilled. */
  readonly undrilled: Readonly<Record<string, number>>;
  /** When the last drill of each was asked for. */
  readonly drilledAt: Readonly<Record<string, string>>;
}

export const backupPolicy: Projection<PolicyEntry> = {
  name: 'scheduler.backup_policy',
  version: 3,
  keys(event) {
    if (categoryOf(event.stream) === 'backup-policy') return [idOfStream(event.stream)];
    const policyId = event.type === 'VmBackupRequested' ? ((event.data['scheduled'] ?? {}) as { readonly policyId?: string }).policyId : drilledFor(event)?.policyId;
    return policyId === undefined ? [] : [policyId];
  },
  fold(document, recorded) {
    const event = recorded as unknown as BackupPolicyEvent | Extract<VmEvent, { type: 'VmBackupRequested' | 'VmRequested' }>;
    switch (event.type) {
      case 'BackupPolicySet': {
        const { vms } = event.data;
        const ofThese = <T>(all: Readonly<Record<string, T>> = {}): Readonly<Record<string, T>> => Object.fromEntries(Object.entries(all).filter(([vmId]) => vms.includes(vmId as VmId)));
        return { policy: event.data, since: recorded.recordedAt, slots: ofThese(document?.slots), undrilled: ofThese(document?.undrilled), drilledAt: ofThese(document?.drilledAt) };
      }
      case 'BackupPolicyDeleted':
        return undefined;
      case 'VmBackupRequested': {
        const slot = event.data.scheduled?.slot;
        const vmId = idOfStream(recorded.stream);
        return document === undefined || slot === undefined ? document : { ...document, slots: { ...document.slots, [vmId]: slot }, undrilled: { ...document.undrilled, [vmId]: (document.undrilled[vmId] ?? 0) + 1 } };
      }
      case 'VmRequested':
        return document === undefined || event.data.restore?.proof === undefined ? document
          : { ...document, undrilled: { ...document.undrilled, [event.data.restore.ofVm]: 0 }, drilledAt: { ...document.drilledAt, [event.data.restore.ofVm]: event.data.restore.proof.since } };
    }
  },
};

/** What a drill was asked for by. */
const drilledFor = ({ type, data }: Pick<RecordedEvent, 'type' | 'data'>): NonNullable<Restore['proof']> | undefined => (type === 'VmRequested' ? (data['restore'] as Restore | undefined)?.proof : undefined);

/** What is to be commanded at a time, unless the log says something else before. */
export interface Timer {
  readonly id: string;
  /** Milliseconds since the epoch, by the clocks of the platform. */
  readonly at: number;
  readonly command: { readonly to: 'storage' | 'scheduler'; readonly target: string; readonly type: string; readonly data: Facts };
}

/** Of the many events of VMs, those that say until when one is wanted. */
const concernsExpiry = ({ type, data }: RecordedEvent): boolean =>
  ['VmExpiryNoticed', 'VmExpired', 'VmRecycled', 'VmDeleteRequested', 'VmDeleted'].includes(type) || (type === 'VmChanged' && 'expiresAt' in data) || (type === 'VmRequested' && 'expiresAt' in (data['spec'] as object));

/** Times are in the log: whoever was away then finds them due. */
export const timer: Projection<Timer> = {
  name: 'scheduler.timer',
  version: 2,
  keys: (event) => (categoryOf(event.stream) === 'volume' || concernsExpiry(event) ? [idOfStream(event.stream)] : []),
  fold(document, recorded, id) {
    const event = recorded as unknown as VolumeEvent | VmEvent;
    const expiring = (expiresAt: string | null | undefined, expiry: Expiry): Timer | undefined =>
      (typeof expiresAt !== 'string' ? undefined : { id, at: nextAt(expiresAt, expiry), command: { to: 'scheduler', target: id, type: 'AdvanceExpiry', data: { vmId: id } } });
    switch (event.type) {
      case 'VmRequested':
        return expiring(event.data.spec.expiresAt, { stage: 'ahead' });
      case 'VmChanged':
        return expiring(event.data.expiresAt, { stage: 'ahead' });
      case 'VmExpiryNoticed':
        return expiring(event.data.expiresAt, { stage: event.data.stage });
      case 'VmExpired':
        return expiring(event.data.expiresAt, { stage: 'expired', recycleAt: event.data.recycleAt });
      case 'VmRecycled':
        return document === undefined ? undefined : { ...document, at: Date.parse(event.data.purgeAt) };
      case 'VmDeleteRequested':
      case 'VmDeleted':
        return undefined;
      case 'VolumeDetached':
        return event.data.kept === undefined ? undefined : { id, at: Date.parse(event.data.kept.deleteAt), command: { to: 'storage', target: id, type: 'RemoveDetachedVolume', data: { volumeId: id } } };
      case 'VolumeAttached':
      case 'VolumeDeleteStarted':
      case 'VolumeDeleted':
        return undefined;
      default:
        return document;
    }
  },
};

export const schedulerProjections = [nodeCapacity, poolPlace, catalog, vmIndex, openSaga, volumeWork, openDrift, driftPolicy, timer, backup, backupPolicy] as const;

/** The current version of a family of images. */
const currentOf = (entries: readonly CatalogEntry[], family: string): CatalogEntry | undefined => entries
  .flatMap((entry) => (entry.kind === 'image' && entry.family === family ? [entry] : []))
  .reduce<Extract<CatalogEntry, { kind: 'image' }> | undefined>((best, one) => (best === undefined || (one.currentSince ?? 0) > (best.currentSince ?? 0) ? one : best), undefined);

export class SchedulerView {
  private readonly capacity = new ProjectionInMemory(nodeCapacity);
  private readonly pools = new ProjectionInMemory(poolPlace);
  /** Nodes with their pools, joined when either changes: placement asks for all of them all the time. */
  private readonly poolsOn = new Map<string, Set<string>>();
  private readonly joined = new Map<string, Candidate>();
  private readonly catalog = new ProjectionInMemory(catalog);
  private readonly index = new ProjectionInMemory(vmIndex);
  private readonly sagas = new ProjectionInMemory(openSaga);
  private readonly volumes = new ProjectionInMemory(volumeWork);
  private readonly drifts = new ProjectionInMemory(openDrift);
  private readonly driftPolicies = new ProjectionInMemory(driftPolicy);
  private readonly archive = new ProjectionInMemory(backup);
  private readonly policies = new ProjectionInMemory(backupPolicy);
  private readonly timers = new ProjectionInMemory(timer);
  /** By node, then by VM: proposed by this process and not decided yet. */
  private readonly promised = new Map<string, Map<string, Share>>();
  private readonly awaiting: (() => void)[] = [];
  private readonly measured = new Map<string, Candidate['measured']>();
  private readonly beats = new Map<string, number>();
  private readonly byName = new Map<string, string>();
  private readonly onNode = new Map<string, Set<string>>();

  /** The documents of the tables, by projection, as they were at one position. */
  restore(documents: Readonly<Record<string, ReadonlyMap<string, unknown>>>): void {
    for (const part of [this.capacity, this.pools, this.catalog, this.index, this.sagas, this.volumes, this.drifts, this.driftPolicies, this.timers, this.archive, this.policies]) {
      for (const [key, document] of documents[part.projection.name] ?? []) part.documents.set(key, document as never);
    }
    for (const entry of this.index.documents.values()) this.placeEntry(undefined, entry);
    for (const [poolId, pool] of this.pools.documents) this.placePool(poolId, undefined, pool);
    for (const nodeId of this.capacity.documents.keys()) this.join(nodeId);
  }

  take(event: RecordedEvent): void {
    const category = categoryOf(event.stream);
    if (category === 'node' && event.version <= this.versionOf(event.stream)) return;
    this.capacity.take(event);
    if (category === 'node' || category === 'presence') this.join(idOfStream(event.stream));
    if (category === 'pool') this.takePool(event);
    // From here on it counts as use. The log may bring it before the answer comes, and it must not count twice.
    if (event.type === 'CapacityReserved') this.forgetPromise(idOfStream(event.stream), String(event.data['vmId']));
    this.catalog.take(event);
    this.sagas.take(event);
    if (category === 'volume') this.volumes.take(event);
    if (category === 'archive') this.archive.take(event);
    if (category === 'backup-policy' || event.type === 'VmBackupRequested' || event.type === 'VmRequested') this.policies.take(event);
    if (category === 'drift') this.drifts.take(event);
    if (category === 'drift-policy') this.driftPolicies.take(event);
    this.timers.take(event);
    if (category === vmDecider.category) {
      const before = this.index.documents.get(idOfStream(event.stream));
      this.index.take(event);
      this.placeEntry(before, this.index.documents.get(idOfStream(event.stream)));
    }
  }

  private takePool(event: RecordedEvent): void {
    const poolId = idOfStream(event.stream);
    const before = this.pools.documents.get(poolId);
    this.pools.take(event);
    const after = this.pools.documents.get(poolId);
    if (before === after) return;
    this.placePool(poolId, before, after);
    for (const nodeId of new Set([...(before?.nodes ?? []), ...(after?.nodes ?? [])])) this.join(nodeId);
  }

  private placePool(poolId: string, before: PoolPlace | undefined, after: PoolPlace | undefined): void {
    if (before?.nodes === after?.nodes) return;
    for (const nodeId of before?.nodes ?? []) this.poolsOn.get(nodeId)?.delete(poolId);
    for (const nodeId of after?.nodes ?? []) this.poolsOn.set(nodeId, (this.poolsOn.get(nodeId) ?? new Set<string>()).add(poolId));
  }

  private join(nodeId: string): void {
    const node: NodeCapacity | undefined = this.capacity.documents.get(nodeId);
    if (node === undefined) return;
    this.joined.set(nodeId, { ...node, pools: this.poolsOf(nodeId) });
  }

  /** The one that the node began with first, then by id. */
  private poolsOf(nodeId: string): readonly PlacePool[] {
    return [...(this.poolsOn.get(nodeId) ?? [])].flatMap((poolId) => this.pools.documents.get(poolId) ?? []).sort((a, b) => Number(a.made) - Number(b.made) || (a.poolId < b.poolId ? -1 : 1))
      .map(({ poolId, capacityGib, overcommitPercent, reservedGib, active, nearlyFull }) => ({ poolId, capacityGib, overcommitPercent, reservedGib, ...(active && !nearlyFull ? {} : { closed: true }) }));
  }

  /** A pool by id or name; of several of one name that of the node. */
  poolCalled(reference: string, nodeId: string | undefined): PoolId | Refusal {
    const found = [...this.pools.documents.values()].filter(({ poolId, name, nodes }) => poolId === reference || (name === reference && (nodeId === undefined || (nodes as readonly string[]).includes(nodeId))));
    const [first] = found;
    if (first === undefined) return refuse('pool.unknown', { pool: reference, field: 'pool' });
    return found.length > 1 ? refuse('pool.ambiguous', { pool: reference, field: 'pool' }) : first.poolId;
  }

  *poolCalls(): Generator<NonNullable<PoolPlace['call']>> {
    for (const { call } of this.pools.documents.values()) if (call !== null) yield call;
  }

  /** An event of this very process: taken now if it is the stream's next, else the log brings it. */
  takeEarly(event: RecordedEvent): void {
    if (categoryOf(event.stream) === 'node' && event.version === this.versionOf(event.stream) + 1) this.take(event);
  }

  private versionOf(nodeStream: string): number {
    return this.capacity.documents.get(idOfStream(nodeStream))?.version ?? 0;
  }

  private placeEntry(before: VmEntry | undefined, after: VmEntry | undefined): void {
    if (before?.nodeId !== after?.nodeId && before !== undefined && before.nodeId !== null) this.onNode.get(before.nodeId)?.delete(before.vmId);
    if (after !== undefined && after.nodeId !== null) {
      const here = this.onNode.get(after.nodeId) ?? new Set();
      this.onNode.set(after.nodeId, here.add(after.vmId));
    }
    if (before !== undefined && this.byName.get(before.name) === before.vmId && after === undefined) this.byName.delete(before.name);
    if (before !== undefined && after !== undefined && before.name !== after.name && this.byName.get(before.name) === before.vmId) this.byName.delete(before.name);
    if (after !== undefined && before?.name !== after.name && !this.byName.has(after.name)) this.byName.set(after.name, after.vmId);
  }

  /** With `besidesPromised` as if nothing were proposed and undecided. */
  *candidates(besidesPromised = false): Generator<Candidate> {
    for (const document of this.joined.values()) {
      if (document.removed) continue;
      const promised = besidesPromised ? undefined : sumOf(this.promised.get(document.nodeId));
      const measured = this.measured.get(document.nodeId) ?? null;
      yield promised === undefined && measured === null
        ? document
        : { ...document, measured, vcpusReserved: document.vcpusReserved + (promised?.vcpus ?? 0), memoryMibReserved: document.memoryMibReserved + (promised?.memoryMib ?? 0) };
    }
  }

  /** Sets capacity aside in this process until the answer is known; the function gives it back. */
  promise(nodeId: string, vmId: string, share: Share): () => void {
    const onNode = this.promised.get(nodeId) ?? new Map<string, Share>();
    this.promised.set(nodeId, onNode.set(vmId, share));
    return () => {
      if (onNode.get(vmId) === share) this.forgetPromise(nodeId, vmId);
      for (const wake of this.awaiting.splice(0)) wake();
    };
  }

  private forgetPromise(nodeId: string, vmId: string): void {
    const onNode = this.promised.get(nodeId);
    if (onNode?.delete(vmId) === true && onNode.size === 0) this.promised.delete(nodeId);
  }

  /** Resolves when something that was promised is decided; at once when nothing is promised. */
  decided(): Promise<void> {
    return this.promised.size === 0 ? Promise.resolve() : new Promise((resolve) => { this.awaiting.push(resolve); });
  }

  /** What a heartbeat says; `session` is the one the agent believes in, 0 while it has none. */
  measure(nodeId: string, measured: Candidate['measured'], session: number): void {
    this.measured.set(nodeId, measured);
    this.beats.set(nodeId, session);
  }

  /** Nodes whose agent believes in an older session than the log: an earlier hello of theirs was heard after a later one. */
  *outdated(): Generator<Candidate> {
    for (const node of this.joined.values()) {
      const session = this.beats.get(node.nodeId) ?? 0;
      if (session !== 0 && session < node.session && !node.removed) yield node;
    }
  }

  node(nodeId: string): Candidate | undefined {
    return this.joined.get(nodeId);
  }

  /** Nodes that have joined and were not removed. */
  nodeIds(): readonly string[] {
    return [...this.capacity.documents.values()].filter((node) => !node.removed).map((node) => node.nodeId);
  }

  /** By id or name. */
  nodeCalled(reference: string): Candidate | undefined {
    return this.node(reference) ?? [...this.joined.values()].find((node) => node.name === reference && !node.removed);
  }

  entryCalled<K extends CatalogEntry['kind']>(kind: K, reference: string): Extract<CatalogEntry, { kind: K }> | undefined {
    const byId = this.catalog.documents.get(reference);
    if (byId?.kind === kind) return byId as Extract<CatalogEntry, { kind: K }>;
    const entries = [...this.catalog.documents.values()].filter((entry) => entry.kind === kind);
    const found = entries.find((entry) => entry.name === reference) ?? currentOf(entries, reference);
    return found as Extract<CatalogEntry, { kind: K }> | undefined;
  }

  /** Whichever; none, where there are none. */
  anyNetwork(): NetworkPlan | undefined {
    for (const entry of this.catalog.documents.values()) if (entry.kind === 'network') return entry.plan;
    return undefined;
  }

  vm(vmId: string): VmEntry | undefined {
    return this.index.documents.get(vmId);
  }

  holderOfName(name: string): string | undefined {
    return this.byName.get(name);
  }

  vmsOn(nodeId: string): readonly VmEntry[] {
    return [...(this.onNode.get(nodeId) ?? [])].flatMap((vmId) => this.index.documents.get(vmId) ?? []);
  }

  /** Machines of drills that are not gone yet. */
  *drills(): Generator<VmEntry> {
    for (const entry of this.index.documents.values()) if (entry.drill === true) yield entry;
  }

  *owing(): Generator<VmEntry> {
    for (const entry of this.index.documents.values()) if (entry.owed.length > 0 && !entry.busy) yield entry;
  }

  /** VMs that their node came back without, and that are to be started again: by node, in their order. */
  lost(): ReadonlyMap<string, readonly VmEntry[]> {
    const entries = [...this.index.documents.values()].filter(({ autostart, lostAt }) => autostart !== null && lostAt !== null);
    entries.sort((a, b) => (a.autostart?.order ?? 0) - (b.autostart?.order ?? 0) || (a.name < b.name ? -1 : 1));
    return Map.groupBy(entries, ({ nodeId }) => nodeId ?? '');
  }

  /** VMs whose operation may wait for somebody to begin it. */
  *calling(): Generator<VmEntry> {
    for (const entry of this.index.documents.values()) if (entry.calls.length > 0) yield entry;
  }

  /** What differs now, on one node or on all. */
  *driftsOn(nodeId?: string): Generator<OpenDriftEntry> {
    for (const entry of this.drifts.documents.values()) if (nodeId === undefined || entry.nodeId === nodeId) yield entry;
  }

  driftPolicyOf(driftClass: string): DriftAction {
    return this.driftPolicies.documents.get(driftClass)?.action ?? 'alert';
  }

  *volumeCalls(): Generator<VolumeCall> {
    yield* this.volumes.documents.values();
  }

  backup(backupId: string): BackupEntry | undefined {
    return this.archive.documents.get(backupId);
  }

  *backupPolicies(): Generator<PolicyEntry> {
    yield* this.policies.documents.values();
  }

  *backups(): Generator<BackupEntry> {
    yield* this.archive.documents.values();
  }

  *due(now: number): Generator<Timer> {
    for (const one of this.timers.documents.values()) if (one.at <= now) yield one;
  }

  hasTimer(id: string): boolean {
    return this.timers.documents.has(id);
  }

  *openSagas(): Generator<OpenSaga> {
    yield* this.sagas.documents.values();
  }
}
