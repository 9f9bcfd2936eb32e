/*
 * What must hold, said without the code that makes it hold. The referee folds the log on its own, looks at the
 * machines themselves, and knows nothing of sagas' tables, of views or of answers.
 *
 * While the run goes on: nothing is given twice, no node and no pool carries more than it may, nothing is
 * decided twice, nothing that a machine still uses is given back, nothing runs without its capacity. At the
 * end: every operation has ended, nothing is owed, everything held belongs to a VM that has it, and every
 * machine is as it was wished and as the platform believes.
 */
import { type BackupId, categoryOf, idFrom, idOfStream, streamOf, type NodeId, type VmId, type VolumeId } from '@chronovirt/contracts/ids';
import type { NodeDescription, NodePolicy } from '@chronovirt/contracts/node/node.events';
import { replay } from '@chronovirt/decider/decider';
import { canonical } from '@chronovirt/event-log/canonical';
import type { MemoryLog } from '@chronovirt/event-log/memory-log';
import type { RecordedEvent } from '@chronovirt/event-log/log';
import { deviceName, isOfNode } from '@chronovirt/contracts/vm/assigned';
import { capacityOf } from '@chronovirt/scheduler/node/capacity';
import { nodePolicyDefault } from '@chronovirt/contracts/node/node.events';
import type { BootRun } from '@chronovirt/contracts/boot-job/boot-job';
import type { Reconfiguration } from '@chronovirt/contracts/vm/vm.events';
import { planOf } from '@chronovirt/scheduler/vm/domain-plan';
import { activeLayers } from '@chronovirt/scheduler/vm/snapshots';
import { type Archive, archive } from '@chronovirt/storage/archive/archive';
import { isKnown } from '@chronovirt/node-agent/domain/told';
import type { SimulatedTarget } from '@chronovirt/node-agent/simulated/simulated-hypervisor';
import { type LiveVm, vm as vmDecider } from '@chronovirt/scheduler/vm/vm';
import { volume as volumeDecider } from '@chronovirt/storage/volume/volume';
import { isRunning, type NodeProgram } from './node.ts';
import type { World } from './world.ts';

interface Capacity {
  description: NodeDescription | null;
  policy: NodePolicy;
  readonly held: Map<string, { readonly vcpus: number; readonly memoryMib: number }>;
}

interface Space {
  nodeId: string;
  capacityGib: number;
  overcommitPercent: number;
  readonly held: Map<string, { readonly vmId: string; readonly sizeGib: number }>;
}

export interface Operation {
  readonly operationId: string;
  readonly vmId: string;
  readonly what: string;
  readonly since: number;
  /** The longest path of its saga's deadlines; 0 before that has begun. */
  deadlineMs: number;
  outcome: 'done' | 'failed' | undefined;
  endedAt: number;
}

/** Facts that may stand once in their stream, and what tells two of a kind apart. */
const once: Readonly<Record<string, (data: Readonly<Record<string, unknown>>) => unknown>> = {
  VmRequested: () => '', VmDeleted: () => '', VmPlaced: ({ operationId }) => operationId, VmProvisioned: () => '', VmPowerRequested: ({ operationId }) => operationId,
  VmReconfigureRequested: ({ operationId }) => operationId, VmReconfigured: ({ operationId }) => operationId, VmGuestRequested: ({ operationId }) => operationId,
  VmPublishRequested: ({ operationId }) => operationId, VmSnapshotRequested: ({ operationId }) => operationId, VmSnapshotTaken: ({ operationId }) => operationId, VmSnapshotDeleteRequested: ({ operationId }) => operationId, VmSnapshotDeleted: ({ operationId }) => operationId,
  VmRevertRequested: ({ operationId }) => operationId, VmReverted: ({ operationId }) => operationId, VmLayersTidied: ({ operationId }) => operationId, VmRestoreProgressed: ({ operationId, percent }) => `${String(operationId)} ${String(percent)}`, BackupProgressed: ({ operationId, percent }) => `${String(operationId)} ${String(percent)}`, VmDrilled: () => '', BackupDrilled: ({ operationId }) => operationId,
  VmBackupRequested: ({ operationId }) => operationId, BackupBegun: ({ backupId }) => backupId, BackupTaken: ({ backupId }) => backupId, BackupAbandoned: ({ backupId }) => backupId, BackupDeleteStarted: ({ operationId }) => operationId, BackupDeleted: ({ backupId }) => backupId,
  VmDeleteRequested: ({ operationId }) => operationId, VmDeleteStarted: ({ operationId }) => operationId, VmCleanUpStarted: ({ operationId }) => operationId,
  NodeRegistered: () => '', NodeRemoved: () => '', NodeSessionStarted: ({ session }) => session, VolumeCreated: () => '', VolumeRequested: () => '', VolumeReady: () => '', VolumeFailed: () => '', VolumeWorkRequested: ({ operationId }) => operationId, VolumeWorked: ({ operationId }) => operationId, VolumeDeleted: () => '',
  SagaStarted: () => '', SagaEnded: () => '', SagaCancelled: () => '', StepAnswered: ({ step }) => step, StepRefused: ({ step }) => step, UndoAnswered: ({ step }) => step, UndoOverdue: ({ step }) => step,
  NetworkCreated: () => '', SubnetCreated: () => '', ImageRegistered: () => '', PoolRegistered: () => '',
};

/** Operations after whose success the machine is as it is wished to be. */
const WISHES = ['create', 'start', 'stop', 'reboot', 'reset', 'pause', 'resume', 'save', 'delete'];

export class Referee {
  readonly violations: string[] = [];
  readonly operations = new Map<string, Operation>();
  readonly open = new Set<string>();
  readonly owing = new Set<string>();
  readonly openSagas = new Set<string>();
  /** Nodes that an operator removed: what is on them is nobody's business any more. */
  readonly removed = new Set<string>();
  /** Domains that somebody else made. */
  readonly foreign: { readonly nodeId: string; readonly vmId: VmId }[] = [];
  /** Files that somebody has put into pools. */
  readonly found: { readonly nodeId: string; readonly file: string }[] = [];
  /** By volume that is to be made of one, and whether it was. */
  private readonly madeOf = new Map<string, { readonly path: string; ready: boolean }>();
  /** Those that became VMs. */
  private readonly adopted = new Set<string>();
  /** VMs whose guests died by themselves, or were started by hand. */
  readonly broken = new Set<string>();
  /** The last operation of a VM that ended. */
  private readonly last = new Map<string, Operation>();
  private readonly seen = new Set<string>();
  /** Addresses by subnet and VM. */
  private readonly leases = new Map<string, string>();
  private readonly addresses = new Map<string, string>();
  private readonly capacity = new Map<string, Capacity>();
  private readonly space = new Map<string, Space>();
  private readonly volumes = new Map<string, string>();
  /** Devices of nodes, by node and name, with the VM that has it. */
  private readonly devices = new Map<string, string>();
  private readonly names = new Map<string, { readonly owner: string; readonly category: string }>();
  private readonly world: World;
  private readonly log: MemoryLog;
  private readonly nodes: readonly NodeProgram[];
  private readonly target: SimulatedTarget;
  /** Starts, reboots and resets that were asked of a VM. */
  private readonly bootsAsked = new Map<string, number>();

  constructor(world: World, log: MemoryLog, nodes: readonly NodeProgram[], target: SimulatedTarget) {
    this.world = world;
    this.target = target;
    this.log = log;
    this.nodes = nodes;
    log.subscribe((events) => {
      for (const event of events) this.take(event);
    });
    for (const node of nodes) {
      node.machine.hypervisor.watch({ changed: (vmId) => { this.look(node, vmId); }, missed: () => undefined });
    }
  }

  fail(sentence: string): void {
    if (this.violations.length < 20) this.violations.push(sentence);
    this.world.tell(() => `!! ${sentence}`);
  }

  /** Somebody starts it by hand, on the machine itself; nobody is that reckless while the platform has it in hand. */
  startsBehind(nodeId: string, vmId: VmId): boolean {
    const idle = [...this.open].every((operationId) => this.operations.get(operationId)?.vmId !== vmId);
    if (!idle || this.owing.has(vmId) || !this.capacityOf(nodeId).held.has(vmId)) return false;
    this.bootsAsked.set(vmId, (this.bootsAsked.get(vmId) ?? 0) + 1);
    return true;
  }

  private take(event: RecordedEvent): void {
    const { stream, type, data } = event;
    this.world.tell(() => `   ${stream} ${String(event.version)} ${type} ${brief(data)}`);
    const difference = once[type];
    if (difference !== undefined) {
      const key = `${stream} ${type} ${String(difference(data))}`;
      if (this.seen.has(key)) this.fail(`decided twice: ${key}`);
      this.seen.add(key);
    }
    const id = idOfStream(stream);
    const category = categoryOf(stream);
    if (category.startsWith('saga-')) {
      if (type === 'SagaStarted') {
        this.openSagas.add(stream);
        const operation = this.operations.get(id);
        // A revert has two, one after the other.
        if (operation !== undefined) operation.deadlineMs += data['deadlineMs'] as number;
        return;
      }
      if (!this.openSagas.has(stream)) this.fail(`${stream} goes on after its end: ${type}`);
      if (type === 'SagaEnded') this.openSagas.delete(stream);
      return;
    }
    switch (type) {
      case 'CapacityResized': {
        const { held } = this.capacityOf(id);
        const { vmId, vcpus, memoryMib } = data as { vmId: string; vcpus: number; memoryMib: number };
        if (!held.has(vmId)) this.fail(`${id} resizes what ${vmId} does not have`);
        held.set(vmId, { vcpus, memoryMib });
        this.checkCarries(id);
        return;
      }
      case 'SpaceResized': {
        const { volumeId, vmId, sizeGib } = data as { volumeId: string; vmId: string; sizeGib: number };
        if (!this.spaceOf(id).held.has(volumeId)) this.fail(`${id} resizes what ${volumeId} does not have`);
        this.spaceOf(id).held.set(volumeId, { vmId, sizeGib });
        return;
      }
      case 'NodeRegistered':
        this.capacity.set(id, { description: null, policy: nodePolicyDefault, held: new Map() });
        return;
      case 'NodeDescribed':
        this.capacityOf(id).description = data as unknown as NodeDescription;
        return;
      case 'NodeRemoved':
        this.removed.add(id);
        for (const key of [...this.devices.keys()]) if (key.startsWith(`${id} `)) this.devices.delete(key);
        return;
      case 'DeviceHeld': {
        const key = `${id} ${String(data['device'])}`;
        if (this.devices.has(key)) this.fail(`${key} is lent to ${String(data['vmId'])} and to ${String(this.devices.get(key))}`);
        this.devices.set(key, data['vmId'] as string);
        return;
      }
      case 'DeviceReleased':
        if (!this.devices.delete(`${id} ${String(data['device'])}`)) this.fail(`${id} is given back twice ${String(data['device'])}`);
        return;
      case 'CapacityReserved': {
        const { held } = this.capacityOf(id);
        const { vmId, vcpus, memoryMib } = data as { vmId: string; vcpus: number; memoryMib: number };
        if (held.has(vmId)) this.fail(`${id} reserves twice for ${vmId}`);
        for (const [other, { held: elsewhere }] of this.capacity) if (other !== id && elsewhere.has(vmId)) this.fail(`${vmId} has capacity on ${id} and on ${other}`);
        held.set(vmId, { vcpus, memoryMib });
        this.checkCarries(id);
        return;
      }
      case 'CapacityReleased': {
        const vmId = data['vmId'] as VmId;
        if (!this.capacityOf(id).held.delete(vmId)) this.fail(`${id} gives back twice what ${vmId} had`);
        const node = this.nodes.find(({ nodeId }) => nodeId === id);
        if (node !== undefined && !this.removed.has(id) && node.machine.domains.get(vmId)?.ours === true && isRunning(node.machine, vmId)) this.fail(`capacity of ${vmId} is given away while it runs on ${id}`);
        return;
      }
      case 'AddressLeased': {
        const { vmId, address } = data as { vmId: string; address: string };
        const holder = this.addresses.get(`${id} ${address}`);
        if (holder !== undefined) this.fail(`${address} is leased to ${vmId} and to ${holder}`);
        if (this.leases.has(`${id} ${vmId}`)) this.fail(`${vmId} has a second address in ${id}`);
        this.addresses.set(`${id} ${address}`, vmId);
        this.leases.set(`${id} ${vmId}`, address);
        return;
      }
      case 'AddressReleased': {
        const { vmId, address } = data as { vmId: VmId; address: string };
        if (this.addresses.get(`${id} ${address}`) !== vmId) this.fail(`${address} is given back by ${vmId}, who does not have it`);
        this.addresses.delete(`${id} ${address}`);
        this.leases.delete(`${id} ${vmId}`);
        for (const { nodeId, machine } of this.present()) {
          const uses = machine.domains.get(vmId)?.plan.nics.some(({ network }) => network.subnetId === id) === true;
          if (uses) this.fail(`${address} of ${vmId} is given away while its domain on ${nodeId} has it`);
          for (const leases of machine.leases.values()) for (const lease of leases.values()) if (lease.address === address) this.fail(`${address} is given away while ${nodeId} serves it to ${lease.vmId}`);
        }
        return;
      }
      case 'PoolRegistered':
        this.space.set(id, { nodeId: data['nodeId'] as string, capacityGib: data['capacityGib'] as number, overcommitPercent: data['overcommitPercent'] as number, held: new Map() });
        return;
      case 'PoolRequested':
        this.space.set(id, { nodeId: (data['nodes'] as readonly string[])[0] ?? '', capacityGib: 0, overcommitPercent: data['overcommitPercent'] as number, held: new Map() });
        return;
      case 'PoolWorkRequested':
        return this.begin(data['operationId'] as string, id, `${String(data['work'])}-pool`);
      case 'PoolOpened':
      case 'PoolRefreshed':
        this.spaceOf(id).capacityGib = data['capacityGib'] as number;
        return void this.end(data['operationId'] as string, id, 'done');
      case 'PoolStopped':
        return void this.end(data['operationId'] as string, id, 'done');
      case 'PoolDeleted':
        if (this.spaceOf(id).held.size > 0) this.fail(`${id} is deleted while disks are in it`);
        this.space.delete(id);
        return void this.end(data['operationId'] as string, id, 'done');
      case 'PoolWorkFailed':
        return void this.end(data['operationId'] as string, id, 'failed');
      case 'SpaceReserved': {
        const pool = this.spaceOf(id);
        const { volumeId, vmId, sizeGib } = data as { volumeId: string; vmId: string; sizeGib: number };
        if (pool.held.has(volumeId)) this.fail(`${id} reserves twice for ${volumeId}`);
        pool.held.set(volumeId, { vmId, sizeGib });
        const sum = [...pool.held.values()].reduce((all, one) => all + one.sizeGib, 0);
        if (sum > Math.floor((pool.capacityGib * pool.overcommitPercent) / 100)) this.fail(`${id} has promised ${String(sum)} GiB`);
        return;
      }
      case 'SpaceReleased': {
        if (!this.spaceOf(id).held.delete(data['volumeId'] as string)) this.fail(`${id} gives back twice what ${String(data['volumeId'])} had`);
        this.checkNoDisk(data['volumeId'] as string, 'space');
        return;
      }
      case 'VolumeCreated':
      case 'VolumeAttached': {
        const vmId = data['vmId'] as string;
        const holder = this.volumes.get(id);
        if (holder !== undefined && holder !== '') this.fail(`${id} is given to ${vmId} while ${holder} has it`);
        this.volumes.set(id, vmId);
        return;
      }
      case 'VolumeDetached': {
        const vmId = data['vmId'] as VmId;
        this.volumes.set(id, '');
        for (const { nodeId, machine } of this.present()) if (machine.domains.get(vmId)?.plan.disks.some(({ volumeId }) => volumeId === id) === true) this.fail(`${id} is taken from ${vmId}, whose domain on ${nodeId} has it`);
        return;
      }
      case 'VolumeRequested':
        this.volumes.set(id, '');
        if ((data['source'] as { kind: string }).kind === 'found') this.madeOf.set(id, { path: `${data['nodeId'] as string} ${(data['source'] as { file: string }).file}`, ready: false });
        return this.begin(data['operationId'] as string, id, 'create-volume');
      case 'VolumeWorkRequested':
        return this.begin(data['operationId'] as string, id, 'work-on-volume');
      case 'VolumeReady': {
        const one = this.madeOf.get(id);
        if (one !== undefined) one.ready = true;
        return void this.end(data['operationId'] as string, id, 'done');
      }
      case 'VolumeWorked':
        return void this.end(data['operationId'] as string, id, 'done');
      case 'VolumeFailed':
      case 'VolumeWorkFailed':
        if ((data['owed'] as readonly string[]).length > 0) this.owing.add(id);
        else if (type === 'VolumeFailed') this.checkNoVolume(id);
        return void this.end(data['operationId'] as string, id, 'failed');
      case 'VolumeSettled':
        this.owing.delete(id);
        return;
      case 'VolumeDeleteStarted': {
        this.owing.delete(id);
        const operationId = data['operationId'] as string;
        this.operations.set(operationId, { operationId, vmId: id, what: 'delete-volume', since: this.world.elapsed, deadlineMs: 0, outcome: undefined, endedAt: 0 });
        this.open.add(operationId);
        return;
      }
      case 'VolumeDeleted':
        if (!this.volumes.delete(id)) this.fail(`${id} is deleted twice`);
        this.checkNoDisk(id, 'record');
        for (const operation of this.operations.values()) {
          if (operation.what !== 'delete-volume' || operation.vmId !== id || operation.outcome !== undefined) continue;
          Object.assign(operation, { outcome: 'done', endedAt: this.world.elapsed });
          this.open.delete(operation.operationId);
        }
        return;
      case 'BackupDeleteStarted': {
        const operationId = data['operationId'] as string;
        this.operations.set(operationId, { operationId, vmId: data['backupId'] as string, what: 'delete-backup', since: this.world.elapsed, deadlineMs: 0, outcome: undefined, endedAt: 0 });
        this.open.add(operationId);
        return;
      }
      case 'BackupDeleted':
        for (const operation of this.operations.values()) {
          if (operation.what !== 'delete-backup' || operation.vmId !== data['backupId'] || operation.outcome !== undefined) continue;
          Object.assign(operation, { outcome: 'done', endedAt: this.world.elapsed });
          this.open.delete(operation.operationId);
        }
        return;
      case 'DriftSeen': {
        const vmId = data['vmId'] as string | null;
        const fields = (data['differences'] as readonly { readonly field: string }[]).map(({ field }) => field);
        const node = this.nodes.find(({ nodeId }) => nodeId === data['nodeId']);
        if (data['class'] === 'orphan-disk' && this.found.some(({ nodeId, file }) => nodeId === data['nodeId'] && file === data['name'])) return;
        if (data['class'] === 'foreign' && node?.machine.domains.get(idFrom('vm', (data['foreign'] as { readonly uuid: string }).uuid))?.made !== undefined) return;
        // Nobody works by hand here. Only a machine that broke is not in the state it was left in, and a node that lost its power lost what ran.
        const isExplained = data['class'] === 'node-restarted' ? (node?.powerCycles ?? 0) > 0 : data['class'] === 'changed' && fields.join() === 'state' && this.broken.has(vmId ?? '');
        if (!isExplained) this.fail(`drift that nobody caused: ${JSON.stringify(data)}`);
        return;
      }
      case 'Claimed':
        if (this.names.has(stream)) this.fail(`${stream} is claimed twice`);
        this.names.set(stream, { owner: data['owner'] as string, category });
        return;
      case 'Unclaimed':
        if (!this.names.delete(stream)) this.fail(`${stream} is given back twice`);
        return;
      default:
        if (category === vmDecider.category) this.takeVm(id, type, data);
    }
  }

  /** What guests are to run at their next boots. */
  private readonly bootRuns = new Set<string>();

  private takeVm(vmId: string, type: string, data: Readonly<Record<string, unknown>>): void {
    const operationId = data['operationId'] as string;
    const begin = (what: string): void => {
      if (this.operations.has(operationId)) return;
      this.begin(operationId, vmId, what);
      if (['create', 'drill', 'start', 'reboot', 'reset'].includes(what)) this.bootsAsked.set(vmId, (this.bootsAsked.get(vmId) ?? 0) + 1);
    };
    const end = (outcome: 'done' | 'failed'): void => {
      const operation = this.end(operationId, vmId, outcome);
      // Whatever else is done to a machine leaves it on or off, as it was.
      if (operation !== undefined && WISHES.includes(operation.what)) this.last.set(vmId, operation);
    };
    switch (type) {
      case 'VmRequested':
        for (const run of (data['bootRuns'] ?? []) as readonly BootRun[]) this.bootRuns.add(run.runId);
        return begin((data['restore'] as { readonly drill?: boolean } | undefined)?.drill === true ? 'drill' : 'create');
      case 'VmReconfigured': {
        const { addBootRun, removeBootRun } = data['change'] as Reconfiguration;
        if (addBootRun !== undefined) this.bootRuns.add(addBootRun.runId);
        if (removeBootRun !== undefined) this.bootRuns.delete(removeBootRun);
        return;
      }
      case 'VmBootJobEnded':
        if (!this.bootRuns.delete(data['runId'] as string)) this.fail(`${String(data['runId'])} of ${vmId} ends although it is not to be run, or has ended`);
        return;
      case 'VmAdoptRequested': return begin('adopt');
      case 'VmReleased':
        this.owing.delete(vmId);
        // A failure has ended it already; a clean-up ends so.
        return this.operations.get(operationId)?.outcome === undefined ? end('done') : undefined;
      case 'VmPowerRequested': return begin(data['action'] as string);
      case 'VmReconfigureRequested': return begin('reconfigure');
      case 'VmGuestRequested': return begin('guest');
      case 'VmPublishRequested': return begin('publish');
      case 'VmSnapshotRequested': return begin('snapshot');
      case 'VmSnapshotDeleteRequested': return begin('delete-snapshot');
      case 'VmRevertRequested': return begin('revert');
      case 'VmBackupRequested': return begin('backup');
      case 'VmDeleteRequested': return begin('delete');
      case 'VmCleanUpStarted': return begin('clean-up');
      case 'VmOperationDone':
        if (this.operations.get(operationId)?.what === 'adopt') this.adopted.add(vmId);
        this.owing.delete(vmId);
        return end('done');
      case 'VmOperationFailed':
        if ((data['owed'] as readonly string[]).length > 0) this.owing.add(vmId);
        else if (this.operations.get(operationId)?.what === 'create') this.checkNothingHeld(vmId);
        return end('failed');
      case 'VmDeleted':
        for (const [device, owner] of this.devices) if (owner === vmId) this.fail(`${vmId} is deleted, and still has ${device}`);
        this.owing.delete(vmId);
        return end('done');
    }
  }

  private begin(operationId: string, vmId: string, what: string): void {
    this.operations.set(operationId, { operationId, vmId, what, since: this.world.elapsed, deadlineMs: 0, outcome: undefined, endedAt: 0 });
    this.open.add(operationId);
  }

  private end(operationId: string, vmId: string, outcome: 'done' | 'failed'): Operation | undefined {
    const operation = this.operations.get(operationId);
    if (operation === undefined || operation.outcome !== undefined) {
      this.fail(`${operationId} of ${vmId} ends (${outcome}) although it is not under way`);
      return undefined;
    }
    operation.outcome = outcome;
    operation.endedAt = this.world.elapsed;
    this.open.delete(operationId);
    return operation;
  }

  /** One that could not be made, and says that it owes nothing. */
  private checkNoVolume(volumeId: string): void {
    for (const [poolId, { nodeId, held }] of this.space) if (held.has(volumeId) && !this.removed.has(nodeId)) this.fail(`${volumeId} failed, and still has space in ${poolId}`);
    this.checkNoDisk(volumeId, 'nothing');
  }

  /** Volumes as their streams say: what is whole lies on its node, as what it should be, and names are held by who has them. */
  private checkVolumes(): void {
    for (const stream of this.log.streams.keys()) {
      if (categoryOf(stream) !== volumeDecider.category) continue;
      const volumeId = idOfStream(stream) as VolumeId;
      const state = replay(volumeDecider, (this.log.streams.get(stream) ?? []) as never[]);
      if (state.status === 'absent' || state.status === 'deleted') continue;
      const node = this.present().find(({ nodeId }) => nodeId === state.nodeId);
      if (state.operation !== null) this.fail(`${volumeId} is still in the hand of ${JSON.stringify(state.operation)}`);
      if (state.status === 'failed') this.checkNoVolume(volumeId);
      const named = [...this.names.values()].filter(({ owner, category }) => owner === volumeId && category === 'volume-name').length;
      if (named !== (state.name === null || state.status === 'failed' ? 0 : 1)) this.fail(`${volumeId} (${state.status}) has ${String(named)} names`);
      if (state.status !== 'live' || node === undefined) continue;
      const disk = node.machine.disks.get(volumeId);
      if (disk === undefined) this.fail(`${volumeId} has no bytes on ${state.nodeId}`);
      else if (disk.imageFormat !== state.format) this.fail(`${volumeId} is ${disk.imageFormat} on ${state.nodeId} and should be ${state.format}`);
    }
    for (const { owner, category } of this.names.values()) if (category === 'volume-name' && !this.volumes.has(owner)) this.fail(`leaked: a name of ${owner}`);
  }

  /** A machine changed: what is there must be paid for. */
  private look(node: NodeProgram, vmId: VmId): void {
    const domain = node.machine.domains.get(vmId);
    if (domain === undefined || !domain.ours || this.removed.has(node.nodeId)) return;
    for (const { network, address } of domain.plan.nics) if (this.leases.get(`${network.subnetId} ${vmId}`) !== address) this.fail(`${node.nodeId} has a domain of ${vmId} with the address ${address}, which it has not`);
    if (isRunning(node.machine, vmId) && this.capacityOf(node.nodeId).held.get(vmId) === undefined) this.fail(`${vmId} runs on ${node.nodeId} without capacity there`);
    for (const other of this.present()) {
      if (other !== node && other.machine.domains.has(vmId)) this.fail(`${vmId} has a domain on ${node.nodeId} and on ${other.nodeId}`);
    }
  }

  /** A creation that failed, and says that it owes nothing. */
  private checkNothingHeld(vmId: string): void {
    const volumeId = `volume_${vmId.slice('vm_'.length)}`;
    for (const key of this.leases.keys()) if (key.endsWith(` ${vmId}`)) this.fail(`${vmId} failed, and still has an address`);
    for (const [nodeId, { held }] of this.capacity) if (held.has(vmId) && !this.removed.has(nodeId)) this.fail(`${vmId} failed, and still has capacity on ${nodeId}`);
    for (const [poolId, { nodeId, held }] of this.space) if (held.has(volumeId) && !this.removed.has(nodeId)) this.fail(`${vmId} failed, and still has space in ${poolId}`);
    for (const { owner } of this.names.values()) if (owner === vmId) this.fail(`${vmId} failed, and still has its name`);
    if (this.volumes.has(volumeId)) this.fail(`${vmId} failed, and still has a volume`);
    for (const { nodeId, machine } of this.present()) if ((machine.domains as ReadonlyMap<string, unknown>).has(vmId)) this.fail(`${vmId} failed, and still has a domain on ${nodeId}`);
    this.checkNoDisk(volumeId, 'nothing');
  }

  /** Once everything was up at `upAt`: each operation within its deadlines (and those of what it had to wait for), and a minute. */
  checkInTime(upAt: number, graceMs: number): void {
    for (const { operationId, vmId, what, since, deadlineMs, endedAt } of this.operations.values()) {
      const before = what === 'delete' ? Math.max(0, ...[...this.operations.values()].filter((other) => other.vmId === vmId && other.since < since).map((other) => other.deadlineMs)) : 0;
      const late = endedAt - Math.max(upAt, since) - deadlineMs - before - graceMs;
      if (late > 0) this.fail(`${operationId} (${what} of ${vmId}) ended ${String(late)} ms later than it may`);
    }
  }

  private checkCarries(nodeId: string): void {
    const { description, policy, held } = this.capacityOf(nodeId);
    const total = description === null ? { vcpus: 0, memoryMib: 0 } : capacityOf(description, policy);
    const sum = [...held.values()].reduce((all, one) => ({ vcpus: all.vcpus + one.vcpus, memoryMib: all.memoryMib + one.memoryMib }), { vcpus: 0, memoryMib: 0 });
    if (sum.vcpus > total.vcpus || sum.memoryMib > total.memoryMib) this.fail(`${nodeId} carries ${JSON.stringify(sum)} of ${JSON.stringify(total)}`);
  }

  private checkNoDisk(volumeId: string, what: string): void {
    for (const { nodeId, machine } of this.present()) {
      if ((machine.disks as ReadonlyMap<string, unknown>).has(volumeId)) this.fail(`${what} of ${volumeId} is given away while ${nodeId} has its disk`);
    }
  }

  private present(): readonly NodeProgram[] {
    return this.nodes.filter(({ nodeId }) => !this.removed.has(nodeId));
  }

  private capacityOf(nodeId: string): Capacity {
    const found = this.capacity.get(nodeId);
    if (found === undefined) throw new Error(`${nodeId} is not registered`);
    return found;
  }

  private spaceOf(poolId: string): Space {
    const found = this.space.get(poolId);
    if (found === undefined) throw new Error(`${poolId} is not registered`);
    return found;
  }

  /** Backups of a drill that came to a verdict. */
  drilled(): number {
    return [...this.seen].filter((key) => key.includes(' BackupDrilled ')).length;
  }

  /** The ids of the snapshots that a VM has now. */
  snapshotsOf(vmId: VmId): readonly string[] {
    const state = replay(vmDecider, (this.log.streams.get(streamOf(vmDecider.category, vmId)) ?? []) as never[]);
    return state.status === 'live' ? state.snapshots.list.map(({ snapshotId }) => snapshotId) : [];
  }

  /** The ids of the backups of a VM, whatever is being done to them. */
  backupsOf(vmId: VmId): readonly BackupId[] {
    return this.archiveOf(streamOf(archive.category, vmId)).map(({ backupId }) => backupId);
  }

  private archiveOf(stream: string): Archive {
    return replay(archive, (this.log.streams.get(stream) ?? []) as never[]);
  }

  /** What is at the target is what the log says, each with what it builds on. */
  private checkBackups(): void {
    const known = [...this.log.streams.keys()].filter((stream) => categoryOf(stream) === archive.category).flatMap((stream) => this.archiveOf(stream));
    for (const { backupId, status, parent } of known) {
      if (status !== 'taken') this.fail(`${backupId} is ${status} for ever`);
      const lies = this.target.backups.get(backupId);
      if (lies === undefined) this.fail(`${backupId} is not at the target`);
      else if (lies.parent !== parent) this.fail(`${backupId} is built on ${String(lies.parent)}, the log says on ${String(parent)}`);
      if (parent !== null && !known.some((one) => one.backupId === parent)) this.fail(`${backupId} has lost what it is built on`);
    }
    // What a machine that is lost was writing there nobody takes away.
    if (this.removed.size > 0) return;
    for (const backupId of this.target.backups.keys()) if (!known.some((one) => one.backupId === backupId)) this.fail(`leaked: ${backupId} at the target`);
  }

  /** The layers that a machine has of each disk are those that its VM says. */
  private checkLayers(vmId: VmId, state: LiveVm, { machine, nodeId }: NodeProgram): void {
    const said = (layers: Iterable<readonly [string, string | null]>): string => JSON.stringify([...layers].sort(([a], [b]) => (a < b ? -1 : 1)));
    const volumeIds = [...(state.provisioned === null ? [] : [state.provisioned.volumeId]), ...state.volumes.map(({ volumeId }) => volumeId)];
    for (const volumeId of volumeIds) {
      const wanted = said((state.snapshots.disks.find((disk) => disk.volumeId === volumeId)?.layers ?? []).map(({ layer, on }) => [layer, on] as const));
      const has = said(machine.layers.get(volumeId) ?? []);
      const kept = { wanted: state.snapshots.inner.filter((one) => one.volumeId === volumeId).map(({ name }) => name).sort().join(), has: [...(machine.inner.get(volumeId) ?? [])].sort().join() };
      if (kept.has !== kept.wanted) this.fail(`${volumeId} of ${vmId} keeps inside ${kept.has} on ${nodeId} and should keep ${kept.wanted}`);
      if (has !== wanted) this.fail(`${volumeId} of ${vmId} has the layers ${has} on ${nodeId} and should have ${wanted}`);
    }
    for (const { disks, name } of state.snapshots.list) {
      for (const { volumeId, layer } of disks) {
        if (!volumeIds.includes(volumeId)) this.fail(`the snapshot ${name} of ${vmId} holds ${volumeId}, which the VM does not have`);
        if (layer !== null && machine.layers.get(volumeId)?.has(layer) !== true) this.fail(`the snapshot ${name} of ${vmId} has lost what it froze of ${volumeId}`);
      }
    }
  }

  /** Every VM that was ever requested, as its stream says today. */
  vms(): readonly { readonly vmId: VmId; readonly state: LiveVm | { readonly status: 'deleted' } }[] {
    return [...this.log.streams.keys()].filter((stream) => categoryOf(stream) === vmDecider.category).map((stream) => {
      const state = replay(vmDecider, (this.log.streams.get(stream) ?? []) as never[]);
      if (state.status === 'absent') throw new Error(`${stream} has events and no state`);
      return { vmId: idOfStream(stream) as VmId, state };
    });
  }

  /** Once everything has come to rest. */
  checkAtRest(): void {
    for (const operationId of this.open) this.fail(`has not ended: ${JSON.stringify(this.operations.get(operationId))}`);
    for (const stream of this.openSagas) this.fail(`has not ended: ${stream}`);
    for (const vmId of this.owing) this.fail(`${vmId} is still owed something`);
    this.checkVolumes();
    const live = new Map<string, LiveVm>();
    for (const { vmId, state } of this.vms()) if (state.status === 'live') live.set(vmId, state);
    const has = (vmId: string): LiveVm | undefined => {
      const state = live.get(vmId);
      return state?.provisioned === null ? undefined : state;
    };
    const belongs = (what: string, vmId: string): void => { if (has(vmId) === undefined) this.fail(`leaked: ${what} of ${vmId} (${live.has(vmId) ? 'failed' : 'gone'})`); };

    for (const [key, address] of this.leases) belongs(`address ${address}`, key.slice(key.indexOf(' ') + 1));
    for (const [nodeId, { held }] of this.capacity) if (!this.removed.has(nodeId)) for (const vmId of held.keys()) belongs(`capacity on ${nodeId}`, vmId);
    for (const [poolId, { nodeId, held }] of this.space) if (!this.removed.has(nodeId)) for (const [volumeId, { vmId }] of held) if (!this.volumes.has(volumeId)) belongs(`space in ${poolId}`, vmId);
    for (const [volumeId, vmId] of this.volumes) if (vmId !== '') belongs(volumeId, vmId);
    for (const { owner, category } of this.names.values()) if (category === 'vm-name') belongs('name', owner);
    for (const { nodeId, machine } of this.present()) {
      for (const [vmId, { ours }] of machine.domains) {
        if (!ours) continue;
        belongs(`domain on ${nodeId}`, vmId);
        if (has(vmId) !== undefined && has(vmId)?.nodeId !== nodeId) this.fail(`${vmId} lives on ${String(has(vmId)?.nodeId)} and has a domain on ${nodeId}`);
      }
      for (const leases of machine.leases.values()) for (const { vmId } of leases.values()) belongs(`lease on ${nodeId}`, vmId);
      for (const volumeId of machine.disks.keys()) {
        const vmId = this.volumes.get(volumeId);
        if (vmId === undefined) this.fail(`leaked: disk of ${volumeId} on ${nodeId}`);
        if (vmId === '' && (machine.layers.has(volumeId) || (machine.inner.get(volumeId)?.size ?? 0) > 0)) this.fail(`${volumeId} belongs to no VM and is not whole on ${nodeId}`);
      }
    }
    this.checkBackups();
    this.checkForeign();
    this.checkFound();
    for (const [vmId, state] of live) if (state.provisioned !== null && state.nodeId !== null && !this.removed.has(state.nodeId)) this.checkVm(vmId as VmId, state, state.nodeId);
  }

  private checkVm(vmId: VmId, state: LiveVm, nodeId: NodeId): void {
    const node = this.nodes.find((one) => one.nodeId === nodeId);
    if (node === undefined || state.provisioned === null) throw new Error(`${nodeId} is no node of this world`);
    const { machine } = node;
    const domain = machine.domains.get(vmId);
    const actual = domain?.state ?? 'absent';
    if (state.desired === 'deleted') return this.fail(`${vmId} should be deleted and is not`);
    if (domain === undefined) return this.fail(`${vmId} has no domain on ${nodeId}`);
    if (!machine.disks.has(state.provisioned.volumeId)) this.fail(`${vmId} has no disk on ${nodeId}`);
    if (state.network !== null && this.leases.get(`${state.network.subnetId} ${vmId}`) !== state.provisioned.address) this.fail(`${vmId} has lost its address`);
    for (const { network, address } of state.nics) if (this.leases.get(`${network.subnetId} ${vmId}`) !== address) this.fail(`${vmId} has lost its address ${address}`);
    this.checkLayers(vmId, state, node);
    const lent = [...this.devices].flatMap(([key, owner]) => (owner === vmId ? [key] : [])).sort();
    const ought = (state.spec.assigned ?? []).filter(isOfNode).map((device) => `${nodeId} ${deviceName(device)}`).sort();
    if (lent.join() !== ought.join()) this.fail(`${vmId} should have [${ought.join()}] and has [${lent.join()}]`);
    if (!isKnown(node.journal.told(vmId))) this.fail(`${nodeId} does not know what it was told of ${vmId}: ${JSON.stringify(node.journal.told(vmId))}`);
    const wanted = planOf({ ...state, volumeId: state.provisioned.volumeId, first: state.network === null ? null : { network: state.network, mac: state.provisioned.mac ?? '', address: state.provisioned.address ?? '' }, layers: activeLayers(state.snapshots) });
    const has = domain.plan;
    for (const { volumeId } of state.volumes) {
      if (this.volumes.get(volumeId) !== vmId) this.fail(`${vmId} uses ${volumeId}, which it does not have`);
      if (!machine.disks.has(volumeId)) this.fail(`${vmId} has no disk ${volumeId} on ${nodeId}`);
    }
    for (const [volumeId, holder] of this.volumes) if (holder === vmId && volumeId !== state.provisioned.volumeId && !state.volumes.some((one) => one.volumeId === volumeId)) this.fail(`${vmId} has ${volumeId} and does not use it`);
    for (const what of ['name', 'vcpus', 'memoryMib', 'boot', 'nics', 'disks'] as const) if (canonical(has[what]) !== canonical(wanted[what])) this.fail(`${vmId} has ${what} ${canonical(has[what])} on ${nodeId} and should have ${canonical(wanted[what])}`);
    if ((machine.disks.get(state.provisioned.volumeId)?.sizeGib ?? 0) < state.spec.diskGib) this.fail(`the disk of ${vmId} is too small`);
    const held = this.capacityOf(nodeId).held.get(vmId);
    if (held !== undefined && (held.vcpus < state.held.vcpus || held.memoryMib < state.held.memoryMib)) this.fail(`${vmId} holds ${JSON.stringify(held)} and runs with ${JSON.stringify(state.held)}`);
    const names = [...this.names].filter(([, { owner, category }]) => owner === vmId && category === 'vm-name');
    if (names.length !== 1) this.fail(`${vmId} has ${String(names.length)} names`);
    if (isRunning(machine, vmId) && !this.capacityOf(nodeId).held.has(vmId)) this.fail(`${vmId} runs on ${nodeId} without capacity there`);
    if (state.observed?.state !== actual) this.fail(`${vmId} is ${actual} on ${nodeId}, the platform believes it to be ${String(state.observed?.state)}`);
    const undisturbed = node.powerCycles === 0 && actual !== 'crashed';
    const last = this.last.get(vmId);
    if (undisturbed && last?.outcome === 'done' && actual !== state.desired) this.fail(`${vmId} is ${actual}, and ${state.desired} was wished and done (${last.what})`);
    const asked = this.bootsAsked.get(vmId) ?? 0;
    // A reboot done by an agent that was killed before it could write that down is done again.
    if (domain.boots > asked + node.kills) this.fail(`${vmId} came up ${String(domain.boots)} times, ${String(asked)} were asked for`);
  }

  /** What somebody has put there lies there, unless a volume was made of it. */
  private checkFound(): void {
    for (const { nodeId, file } of this.found) {
      const node = this.present().find((one) => one.nodeId === nodeId);
      if (node === undefined) continue;
      const volumes = [...this.madeOf].filter(([, { path, ready }]) => ready && path === `${nodeId} ${file}`).map(([volumeId]) => volumeId);
      if (volumes.length > 1) this.fail(`${file} on ${nodeId} became ${volumes.join(' and ')}`);
      if (node.machine.hasFile(file) === (volumes.length === 1)) this.fail(`${file} on ${nodeId} ${volumes[0] === undefined ? 'is gone' : `lies there, and is ${volumes[0]}`}`);
    }
  }

  /** Whatever adoptions came to: what is somebody else's is as they made it, and is neither stopped nor begun anew; it may have crashed by itself. */
  private checkForeign(): void {
    for (const { nodeId, vmId } of this.foreign) {
      const node = this.present().find((one) => one.nodeId === nodeId);
      const domain = node?.machine.domains.get(vmId);
      if (node === undefined || this.adopted.has(vmId)) continue;
      if (domain === undefined) this.fail(`the domain ${vmId} on ${nodeId} is somebody else's, and is gone`);
      else if (domain.ours || domain.plan !== domain.made) this.fail(`the domain ${vmId} on ${nodeId} is nobody's VM, and carries our words`);
      else if (domain.boots > 0 || (domain.state !== 'running' && domain.state !== 'crashed' && node.powerCycles === 0)) this.fail(`the domain ${vmId} on ${nodeId} is somebody else's, and is ${domain.state} after ${String(domain.boots)} starts of ours`);
    }
  }

  /** After everything was deleted, and nothing is left to be used by anyone. */
  checkEmpty(): void {
    this.checkAtRest();
    for (const { vmId, state } of this.vms()) if (state.status === 'live') this.fail(`${vmId} could not be deleted`);
    if (this.leases.size > 0) this.fail(`${String(this.leases.size)} addresses are left`);
  }

  streamOfVm(vmId: string): string {
    return streamOf(vmDecider.category, vmId);
  }
}

const brief = (data: unknown): string => {
  const text = JSON.stringify(data);
  return text.length > 240 ? `${text.slice(0, 240)}…` : text;
};
