/*
 * What the scheduler does with what comes in: commands, hellos, reports, answers and events. It joins the
 * pure parts (deciders, placement, sagas, policies) to ports and knows neither NATS nor Postgres nor time,
 * so the simulation runs this very code.
 *
 * The process that records a decision also reacts to it at once (starts the saga, say). Should it die in
 * between, the leader finds the VM still calling for it, reads the same event from the log and reacts again:
 * starting a saga twice is starting it once.
 */
import type { Hello, DomainReport, RestoreReport, Welcome } from '@chronovirt/contracts/agent/agent.commands';
import type { BootReport } from '@chronovirt/contracts/boot-job/boot-job.commands';
import { type BackupTarget, drillName } from '@chronovirt/contracts/backup/backup';
import type { DriftCommand, DriftReport, Finding } from '@chronovirt/contracts/drift/drift.commands';
import type { DriftItem } from '@chronovirt/contracts/drift/drift.events';
import type { CommandEnvelope, CommandMeta } from '@chronovirt/contracts/command';
import { categoryOf, idFrom, streamOf, type NodeId, type OperationId, type PoolId, type VmId, type VolumeId } from '@chronovirt/contracts/ids';
import type { NodeCommand } from '@chronovirt/contracts/node/node.commands';
import type { VmCommand } from '@chronovirt/contracts/vm/vm.commands';
import type { NetworkPlan } from '@chronovirt/contracts/network/network.events';
import { Name } from '@chronovirt/contracts/text';
import { isDiskFormat, notADisk } from '@chronovirt/contracts/image/image.events';
import { type AdoptedLayout, type Kernel, type Media, platformOf, type Reconfiguration, type VmEvent, type VmSpec } from '@chronovirt/contracts/vm/vm.events';
import { type Answer, type Facts, isRefusal, NAMED_MAX, refuse, type Refusal } from '@chronovirt/decider/decider';
import { reservation } from '@chronovirt/decider/reservation';
import { answerOf, type CommandHandler, type Handled, type Handling } from '@chronovirt/event-log/handle';
import type { RecordedEvent } from '@chronovirt/event-log/log';
import { rehearse, rehearsedBy } from '@chronovirt/event-log/rehearse';
import { sagaDecider } from '@chronovirt/decider/saga';
import { type AnySaga, SagaRunner } from '@chronovirt/event-log/saga-runner';
import { classify, fateOf, findingOf, runsIn } from './drift/classify.ts';
import { DAY_MS } from './durations.ts';
import { drift, driftPolicies, POLICIES, remedyOf } from './drift/drift.ts';
import { type SettleDrift, settleDrift } from './drift/settle-drift.saga.ts';
import { node } from './node/node.ts';
import type { Candidate, Want } from './placement/candidate.ts';
import { place } from './placement/place.ts';
import { due } from './backup/due.ts';
import { mostLeftGib, poolFor } from './placement/candidate.ts';
import { adoptVm, settleAdoption } from './provisioning/adopt-vm.saga.ts';
import { backupVm, type DropBackup, dropBackup, settleBackup } from './provisioning/backup-vm.saga.ts';
import { cleanUpVm, deleteVm } from './provisioning/delete-vm.saga.ts';
import { createVolume, settleVolume, workOnVolume } from './provisioning/create-volume.saga.ts';
import { dropVolume } from './provisioning/drop-volume.saga.ts';
import { verb } from './provisioning/node-verb.ts';
import { guestVm, settleGuest } from './provisioning/guest-vm.saga.ts';
import { powerVm, settlePower } from './provisioning/power-vm.saga.ts';
import { provisionVm } from './provisioning/provision-vm.saga.ts';
import { publishVm } from './provisioning/publish-vm.saga.ts';
import { workOnPool } from './provisioning/work-on-pool.saga.ts';
import { reconfigureVm, settleReconfiguration } from './provisioning/reconfigure-vm.saga.ts';
import { snapshotVm, tidyLayers } from './provisioning/snapshot-vm.saga.ts';
import { firstVolumeOf, isRemoval, type LeftBehind, reactionTo } from './provisioning/policies.ts';
import { bytesToFetch, type SchedulerView, type VmEntry, type VolumeCall } from './view.projection.ts';
import { hostnameOf, planOf } from './vm/domain-plan.ts';
import { expiryDefault, type ExpirySettings } from './vm/expiry.ts';
import type { FindImage } from './vm/another.ts';
import { cloning } from './vm/cloning.ts';
import { restoring } from './vm/restoring.ts';
import { machineOf, vm } from './vm/vm.ts';

export const vmName = reservation('vm-name', 'vm.name_taken');
export const machine = reservation('machine', 'node.machine_id_taken');

export const schedulerSagas = [provisionVm, adoptVm, settleAdoption, deleteVm, cleanUpVm, powerVm, settlePower, reconfigureVm, settleReconfiguration, createVolume, workOnVolume, settleVolume, dropVolume, workOnPool, backupVm, settleBackup, dropBackup, guestVm, settleGuest, publishVm, snapshotVm, tidyLayers, settleDrift] as unknown as readonly AnySaga[];

const provisioning = sagaDecider(provisionVm);

export interface SchedulerPorts {
  readonly handler: CommandHandler;
  readonly view: SchedulerView;
  /** Sends a command on the bus; its answer comes back through `Scheduler.take`. */
  readonly send: (envelope: CommandEnvelope, again: boolean) => void;
  /** Milliseconds since the epoch. */
  readonly now: () => number;
  readonly commandIdOf: (key: string) => string;
  /** SHA-256 in hex: names of reservation streams. */
  readonly keyOf: (text: string) => string;
  /** Told of what went wrong in work that nobody waits for: it is taken up again by the leader. */
  readonly failed: (what: string, error: unknown) => void;
  /** Default: a week each. */
  readonly expiry?: ExpirySettings | undefined;
  /** Default: all of the scheduler's. */
  readonly sagas?: readonly AnySaga[];
  readonly sagaEnded?: (saga: { readonly name: string; readonly outcome: string; readonly seconds: number }) => void;
}

/** How many nodes a placement asks before it gives up: each had just been full when it was asked. */
const NODES_ASKED_MAX = 16;
/** Name, or family, of the image in the second drive of a Windows, unless it is said otherwise. */
const DRIVERS = 'virtio-win';

/** A saga that nobody moved for this long is taken over. Milliseconds. */
const SAGA_ABANDONED_MS = 5_000;
/** What a policy calls for and is refused is asked for again after this. Milliseconds. */
const POLICY_AGAIN_MS = 60_000;
/** Between two clean-ups of one VM. Milliseconds. */
const CLEAN_UP_EVERY_MS = 15_000;
/** Between two tries of what a policy wants. Milliseconds. */
const POLICY_EVERY_MS = 30_000;
/** Between two times that what is due is asked for. Milliseconds. */
const TIMER_AGAIN_MS = 60_000;
/** Between two calls for a hello of one node. Milliseconds. */
const CALL_EVERY_MS = 5_000;
/** By then every node that is heard has compared everything since. Milliseconds. */
const EVERYBODY_LOOKED_MS = 45_000;
/** VMs whose building begins at the same moment. */
const BEGUN_AT_ONCE = 16;
/** Events whose reactions this process remembers to have begun. */
const REACTED_MAX = 10_000;

export class Scheduler {
  readonly sagas: SagaRunner;
  private readonly ports: SchedulerPorts;
  /** CreateVm commands that are being answered now, and what was recorded for those before them. */
  private accepting = 0;
  private readonly postponed: RecordedEvent[] = [];
  private readonly reacted = new Set<string>();
  /** Sagas of volumes, pools and backups, and commands that policies called for, that this process has begun. */
  private readonly begun = new Set<string>();
  private readonly calledAt = new Map<string, number>();
  private readonly cleanedUpAt = new Map<string, number>();
  /** By what is due, the last time it was asked for. */
  private readonly timersSent = new Map<string, string>();
  /** By node: what was started again last, and when that had ended. */
  private readonly startedAgain = new Map<string, { readonly vmId: string; endedAt: number | undefined }>();
  /** By item: since when this process knows that it is missing. */
  private readonly missingSince = new Map<string, number>();
  /** Losses that were seen to, by VM: each is tried once. */
  private readonly lossesSeen = new Map<string, number>();

  constructor(ports: SchedulerPorts) {
    this.ports = ports;
    this.sagas = new SagaRunner(ports.sagas ?? schedulerSagas, {
      handler: ports.handler,
      now: ports.now,
      commandIdOf: ports.commandIdOf,
      send: (envelope, again) => { this.sendToTarget(envelope, again); },
      ended: ({ name, state, startedAt }) => {
        if (state.status === 'ended') ports.sagaEnded?.({ name, outcome: state.outcome ?? 'unknown', seconds: (ports.now() - startedAt) / 1_000 });
      },
    });
  }

  /** Obeys a command, or tells what it was answered before; one that rehearses another is told what that would do. */
  async obey(envelope: CommandEnvelope): Promise<Answer> {
    const other = rehearsedBy(envelope);
    if (other !== undefined) return this.rehearsal(other, envelope.rehearses?.taken ?? []);
    const accepts = envelope.type === 'CreateVm';
    if (accepts) this.accepting += 1;
    const handled = await this.dispatch(envelope, this.ports.handler).finally(() => { if (accepts) this.accepting -= 1; });
    for (const event of handled.appended) this.ports.view.takeEarly(event);
    if (accepts) this.postponed.push(...handled.appended);
    else this.reactSoon(handled.appended);
    if (this.accepting === 0) void this.beginPostponed();
    return answerOf(handled);
  }

  /** To be called a few times a second: moves the sagas driven here, and begins those that had to wait. */
  async tick(): Promise<void> {
    // Where there is always someone to be answered, nobody shall wait longer than this.
    void this.beginPostponed(true);
    if (this.sagas.size > 0) await this.sagas.tick();
  }

  /** An answer to a command of ours came back. */
  take(commandId: string, answer: Answer): Promise<void> {
    return this.sagas.take(commandId, answer);
  }

  /** What a command would do now, and for a new VM where it would come. Nothing reacts to it: nothing has happened. */
  private async rehearsal(envelope: CommandEnvelope, taken: readonly Taken[]): Promise<Answer> {
    const answer = await rehearse(this.ports.handler.log, async (handler) => (await this.dispatch(envelope, handler)).answer);
    const requested = isRefusal(answer) ? undefined : answer.rehearsal?.events.find(({ type }) => type === 'VmRequested');
    if (isRefusal(answer) || answer.rehearsal === undefined || requested === undefined) return answer;
    const { spec } = requested.data as unknown as Extract<VmEvent, { type: 'VmRequested' }>['data'];
    const placed = place(without(this.ports.view.candidates(), taken), spec);
    const placement: Facts = isRefusal(placed) ? { nodeId: null, poolId: null, refused: placed.refused, because: placed.because ?? {} } : { nodeId: placed.nodeId, poolId: placed.poolId, decision: placed.decision };
    return { ...answer, rehearsal: { ...answer.rehearsal, placement } };
  }

  private dispatch(envelope: CommandEnvelope, handler: CommandHandler): Promise<Handled> {
    const command = envelope as unknown as VmCommand | NodeCommand | DriftCommand | { type: 'ClaimVmName' | 'UnclaimVmName'; data: { key: string; owner: string; label: string } };
    switch (command.type) {
      case 'CreateVm':
        return this.createVm(envelope, command.data, handler);
      case 'ReconfigureVm':
        return this.reconfigureVm(envelope, command.data, handler);
      case 'AdoptVm':
        return this.adoptVm(envelope, command.data, handler);
      case 'BackupVm':
        return this.backupVm(envelope, command.data, handler);
      case 'RestoreBackup':
        return this.restoreBackup(envelope, command.data, handler);
      case 'CloneVm':
        return this.cloneVm(envelope, command.data, handler);
      case 'PlaceVm':
        return this.placeVm(envelope, command.data, handler);
      case 'UnplaceVm':
        return this.unplaceVm(envelope, command.data, handler);
      case 'RegisterNode':
        return this.registerNode(envelope, command, handler);
      case 'ClaimVmName':
        return handler.handle(vmName, { ...handling(envelope, streamOf(vmName.category, command.data.key), { type: 'Claim' as const, owner: command.data.owner, label: command.data.label }), likelyNew: true });
      case 'UnclaimVmName':
        return handler.handle(vmName, handling(envelope, streamOf(vmName.category, command.data.key), { type: 'Unclaim', owner: command.data.owner }));
      case 'RecordDrift':
      case 'EndDriftAction':
        return handler.handle(drift, { ...handling(envelope, streamOf(drift.category, command.data.nodeId), command), store: 'events' });
      case 'ActOnDrift':
        return this.actOnDrift(envelope, command, handler);
      case 'SetDriftPolicy':
        return handler.handle(driftPolicies, handling(envelope, streamOf(driftPolicies.category, POLICIES), command));
      case 'RemoveNode':
        return this.removeNode(envelope, command, handler);
      case 'ChangeNode':
      case 'StartSession':
      case 'ReserveCapacity':
      case 'ResizeCapacity':
      case 'HoldDevice':
      case 'ReleaseDevice':
      case 'ReleaseCapacity':
        return handler.handle(node, handling(envelope, streamOf(node.category, command.data.nodeId), command));
      default:
        return handler.handle(vm, handling(envelope, streamOf(vm.category, command.data.vmId), command));
    }
  }

  /** Resolves names, sees whether it is possible at all, and only then records the wish. */
  private async createVm(envelope: CommandEnvelope, wish: Extract<VmCommand, { type: 'CreateVm' }>['data'], handler: CommandHandler): Promise<Handled> {
    const { view } = this.ports;
    // A command that was answered before is answered so again, whatever is found out here: the store of answers sees to it.
    const stop = (code: string, because: Facts): Promise<Handled> => handler.refuse(envelope, refuse(code, because));

    const image = wish.image === undefined ? null : view.entryCalled('image', wish.image);
    if (image === undefined) return stop('image.unknown', { image: wish.image ?? null, field: 'image' });
    if (image !== null && !isDiskFormat(image.format)) return handler.refuse(envelope, notADisk(image, 'image'));
    const medium = this.mediumCalled(wish.media ?? null);
    if (isRefusal(medium)) return handler.refuse(envelope, medium);
    const osFamily = wish.osFamily ?? image?.osFamily;
    const drivers = this.driversFor(wish.drivers === undefined ? image?.drivers : wish.drivers, osFamily);
    if (isRefusal(drivers)) return handler.refuse(envelope, drivers);
    const kernel = this.kernelCalled(wish.kernel ?? null);
    if (isRefusal(kernel)) return handler.refuse(envelope, kernel);
    const boot = wish.boot ?? (medium !== null && image === null ? ['cdrom', 'disk'] as const : ['disk'] as const);
    if (image === null && medium === null && kernel === null && !boot.includes('network')) return stop('vm.nothing_to_boot', { field: 'image' });
    const network = view.entryCalled('network', wish.network);
    if (network === undefined) return stop('network.unknown', { network: wish.network, field: 'network' });
    const chosen = wish.node === undefined ? null : view.nodeCalled(wish.node);
    if (chosen === undefined) return stop('node.unknown', { node: wish.node ?? null, field: 'node' });
    if (image !== null && wish.diskGib < image.minDiskGib) return stop('image.needs_more_disk', { diskGib: wish.diskGib, minDiskGib: image.minDiskGib, field: 'diskGib' });
    if (image !== null && wish.memoryMib < image.minMemoryMib) return stop('image.needs_more_memory', { memoryMib: wish.memoryMib, minMemoryMib: image.minMemoryMib, field: 'memoryMib' });
    if (wish.bootRuns !== undefined && wish.cloudInit === undefined && image?.copied !== true) return stop('boot_job.no_cloud_init', { field: 'bootJobs' });
    if ((wish.vcpusMax ?? wish.vcpus) < wish.vcpus) return stop('vm.more_than_max', { vcpus: wish.vcpus, vcpusMax: wish.vcpusMax ?? null, field: 'vcpusMax' });
    if ((wish.memoryMibMax ?? wish.memoryMib) < wish.memoryMib) return stop('vm.more_than_max', { memoryMib: wish.memoryMib, memoryMibMax: wish.memoryMibMax ?? null, field: 'memoryMibMax' });
    const holder = view.holderOfName(wish.name);
    if (holder !== undefined && holder !== wish.vmId) return stop('vm.name_taken', { name: wish.name, heldBy: holder, field: 'name' });
    const pool = wish.pool === undefined ? null : view.poolCalled(wish.pool, chosen?.nodeId);
    if (isRefusal(pool)) return handler.refuse(envelope, pool);
    const possible = place(view.candidates(true), { ...wish, nodeId: chosen === null ? null : chosen.nodeId, poolId: pool });
    if (isRefusal(possible)) return handler.refuse(envelope, possible);

    const spec: VmSpec = {
      name: wish.name, description: wish.description, imageId: (image?.imageId ?? null) as VmSpec['imageId'], networkId: network.plan.networkId, subnetId: network.plan.subnetId,
      vcpus: wish.vcpus, memoryMib: wish.memoryMib, diskGib: wish.diskGib, accel: wish.accel, devices: wish.devices, ...platformOf({ ...wish, osFamily }),
      nodeId: chosen === null ? null : chosen.nodeId, tags: wish.tags, protected: wish.protected,
      vcpusMax: wish.vcpusMax ?? wish.vcpus, memoryMibMax: wish.memoryMibMax ?? wish.memoryMib, boot: [...boot], media: medium, ...(drivers === undefined ? {} : { drivers }), ...(kernel === null ? {} : { kernel }), ...(wish.bootMenu === undefined ? {} : { bootMenu: wish.bootMenu }), diskLimits: null, ...(image?.copied === true ? { newIdentity: true as const } : {}), ...(pool === null ? {} : { poolId: pool }), ...(wish.clone === 'full' && image !== null ? { clone: 'full' as const } : {}),
      // A later name of the VM is not the guest's.
      cloudInit: wish.cloudInit === undefined && image?.copied !== true ? null : { hostname: hostnameOf(wish.name), sshKeys: [], ...wish.cloudInit },
      ...(wish.expiresAt === undefined ? {} : { expiresAt: wish.expiresAt }), ...(wish.autostart === undefined ? {} : { autostart: wish.autostart }), ...(wish.expert === undefined ? {} : { expert: wish.expert }),
    };
    const request: VmCommand = { type: 'RequestVm', data: { vmId: wish.vmId, operationId: wish.operationId, spec, imageFile: image?.file ?? null, imageFormat: image?.format === 'raw' ? 'raw' : 'qcow2', network: network.plan, ...(wish.bootRuns === undefined ? {} : { bootRuns: wish.bootRuns }), ...(image === null ? {} : bytesToFetch(image)) } };
    return handler.handle(vm, { ...handling(envelope, streamOf(vm.category, wish.vmId), request), likelyNew: true });
  }

  /** What the node found of the domain becomes what is wanted of the VM. */
  private async adoptVm(envelope: CommandEnvelope, { vmId, operationId, nodeId, uuid, name: wanted, description }: Extract<VmCommand, { type: 'AdoptVm' }>['data'], handler: CommandHandler): Promise<Handled> {
    const { view, keyOf } = this.ports;
    const stop = (code: string, because: Facts): Promise<Handled> => handler.refuse(envelope, refuse(code, because));
    const home = view.node(nodeId);
    if (home === undefined || home.removed) return stop('node.not_found', { nodeId });
    const foreign = [...view.driftsOn(nodeId)].find((item) => item.class === 'foreign' && item.foreign?.uuid === uuid)?.foreign;
    if (foreign === undefined || foreign === null) return stop('foreign.not_found', { nodeId, uuid });
    if (foreign.obstacles.length > 0) return stop('foreign.cannot_be_adopted', { nodeId, uuid, obstacles: foreign.obstacles });
    if (foreign.state === 'crashed') return stop('foreign.cannot_be_adopted', { nodeId, uuid, obstacles: ['it has crashed: start it, or stop it'] });
    const name = Name.safeParse(wanted ?? foreign.name);
    if (!name.success) return stop('foreign.needs_a_name', { name: foreign.name, field: 'name' });
    const holder = view.holderOfName(name.data);
    if (holder !== undefined && holder !== vmId) return stop('vm.name_taken', { name: name.data, heldBy: holder, field: 'name' });
    const gib = (bytes: number): number => Math.max(1, Math.ceil(bytes / 2 ** 30));
    const units = unitsOf(foreign.disks.map(({ target }) => target));
    const layout: AdoptedLayout = {
      macs: foreign.nics.map(({ mac }) => mac), ...(foreign.drive === undefined ? {} : { drive: foreign.drive }),
      // Named after this operation: should it fail, the next one finds the names free.
      disks: foreign.disks.map(({ target, file, bytes }, index) => ({ volumeId: `volume_${keyOf(`${operationId} ${target}`).slice(0, 32)}`, target, file, sizeGib: gib(bytes), unit: units[index] ?? index })),
    };
    const diskGib = layout.disks[0]?.sizeGib ?? 1;
    const pool = poolFor(home, { vcpus: 0, memoryMib: 0, diskGib, accel: 'any', nodeId });
    if (pool === undefined) return stop('pool.no_space', { nodeId, sizeGib: diskGib, freeGib: mostLeftGib(home) });
    const spec: VmSpec = {
      name: name.data, description, imageId: null, networkId: null, subnetId: null, vcpus: foreign.vcpus, vcpusMax: foreign.vcpusMax, memoryMib: foreign.memoryMib, memoryMibMax: foreign.memoryMibMax, diskGib,
      accel: 'any', devices: 'virtio', nodeId, tags: [], protected: false, boot: foreign.boot ?? ['disk'], media: null, cloudInit: null, diskLimits: null,
    };
    const state = foreign.state === 'running' || foreign.state === 'paused' ? foreign.state : 'stopped';
    return handler.handle(vm, handling(envelope, streamOf(vm.category, vmId), { type: 'RequestAdoption', data: { vmId, operationId, spec, nodeId, poolId: pool.poolId, layout, state } } satisfies VmCommand));
  }

  /** Which target is meant is said by its name, or by there being no other. */
  private async backupVm(envelope: CommandEnvelope, { target: wanted, ...wish }: Extract<VmCommand, { type: 'BackupVm' }>['data'], handler: CommandHandler): Promise<Handled> {
    const { view } = this.ports;
    const nodeId = view.vm(wish.vmId)?.nodeId ?? null;
    if (nodeId === null) return handler.refuse(envelope, view.vm(wish.vmId) === undefined ? refuse('vm.not_found', { vmId: wish.vmId }) : refuse('vm.not_provisioned', { vmId: wish.vmId, failure: null }));
    const targets = view.node(nodeId)?.description?.backupTargets ?? [];
    const [only, ...others] = wanted === undefined ? targets : targets.filter(({ targetId, name }) => targetId === wanted || name === wanted);
    if (only === undefined) return handler.refuse(envelope, refuse(wanted === undefined ? 'backup.no_target' : 'backup.target_unknown', { nodeId, ...(wanted === undefined ? {} : { target: wanted, field: 'target' }) }));
    if (others.length > 0) return handler.refuse(envelope, refuse('backup.which_target', { targets: targets.map(({ name }) => name), field: 'target' }));
    return handler.handle(vm, handling(envelope, streamOf(vm.category, wish.vmId), { type: 'RequestBackup', data: { ...wish, target: only } } satisfies VmCommand));
  }

  /** What was backed up becomes the wish for a new VM. */
  private async restoreBackup(envelope: CommandEnvelope, { vmId, operationId, backupId, name, network: wanted, node: on, proof: drill }: Extract<VmCommand, { type: 'RestoreBackup' }>['data'], handler: CommandHandler): Promise<Handled> {
    const { view } = this.ports;
    const stop = (code: string, because: Facts): Promise<Handled> => handler.refuse(envelope, refuse(code, because));
    const taken = view.backup(backupId)?.taken ?? null;
    const proof = drill === undefined ? undefined : {
      ...drill, word: drill.word ?? null, since: new Date(this.ports.now()).toISOString(),
      // An agent that held its file systems still then answers when it is up.
      criterion: drill.criterion ?? (taken?.frozen === true ? 'agent' as const : 'disk' as const),
    };
    // Of one that was adopted with interfaces of its own nobody knows one; a drill is cut off from it, whichever it is.
    const before = taken?.machine.network?.networkId ?? taken?.machine.nics?.[0]?.networkId ?? (proof === undefined ? undefined : view.anyNetwork()?.networkId);
    const network = view.entryCalled('network', wanted ?? before ?? '');
    const chosen = on === undefined ? null : view.nodeCalled(on);
    if (chosen === undefined) return stop('node.unknown', { node: on ?? null, field: 'node' });
    const restored = restoring((id) => view.backup(id), {
      backupId, name, network: network?.plan ?? null, nodeId: chosen === null ? null : chosen.nodeId, proof, ...this.findings(envelope, vmId),
    });
    if ('refused' in restored) return handler.refuse(envelope, restored);
    if (network === undefined) return stop('network.unknown', { network: wanted ?? before ?? null, field: 'network' });
    const { spec, restore, sizeGib } = restored;
    return this.requestAnother(envelope, handler, { vmId, operationId, spec, network: network.plan, restore }, { ...spec, diskGib: sizeGib, targetId: restore.targetId });
  }

  /** What a snapshot holds becomes the wish for a new VM. */
  private async cloneVm(envelope: CommandEnvelope, { vmId, operationId, ofVm, snapshotId, name, description, network: wanted, pool: poolWanted }: Extract<VmCommand, { type: 'CloneVm' }>['data'], handler: CommandHandler): Promise<Handled> {
    const { view } = this.ports;
    const stop = (code: string, because: Facts): Promise<Handled> => handler.refuse(envelope, refuse(code, because));
    const { state: source } = await handler.log.load(streamOf(vm.category, ofVm), vm);
    const network = wanted === undefined ? undefined : view.entryCalled('network', wanted);
    if (wanted !== undefined && network === undefined) return stop('network.unknown', { network: wanted, field: 'network' });
    const pool = poolWanted === undefined ? null : view.poolCalled(poolWanted, source.status === 'live' ? source.nodeId ?? undefined : undefined);
    if (isRefusal(pool)) return handler.refuse(envelope, pool);
    const clone = cloning(source, {
      ofVm, snapshotId, name, description, network: network?.plan, poolId: pool, ...this.findings(envelope, vmId),
    });
    if ('refused' in clone) return handler.refuse(envelope, clone);
    const { spec, copy, sizeGib } = clone;
    return this.requestAnother(envelope, handler, { vmId, operationId, spec, network: clone.network, copy }, { ...spec, nodeId: copy.nodeId, diskGib: sizeGib });
  }

  /** What a machine that is made after another is made with: what there is now, and its new disks by their places. */
  private findings(envelope: CommandEnvelope, vmId: VmId): { readonly networks: (networkId: string) => NetworkPlan | undefined; readonly imageOf: FindImage; readonly volumeOf: (unit: number) => VolumeId } {
    return {
      networks: (networkId) => this.networkPlan(networkId),
      imageOf: (format, imageId) => this.imageIf(format, imageId),
      volumeOf: (unit) => (unit === 0 ? firstVolumeOf(vmId) : idFrom('volume', this.ports.commandIdOf(`${envelope.id}:volume:${String(unit)}`))),
    };
  }

  /** The wish for a machine that is made after another, once its name is free and a node was seen to be possible. */
  private async requestAnother(envelope: CommandEnvelope, handler: CommandHandler, request: Omit<Extract<VmCommand, { type: 'RequestVm' }>['data'], 'imageFile' | 'imageFormat'>, want: Want): Promise<Handled> {
    const { view } = this.ports;
    const { vmId, spec: { name } } = request;
    const holder = view.holderOfName(name);
    if (holder !== undefined && holder !== vmId) return handler.refuse(envelope, refuse('vm.name_taken', { name, heldBy: holder, field: 'name' }));
    const possible = place(view.candidates(true), want);
    if (isRefusal(possible)) return handler.refuse(envelope, possible);
    const command: VmCommand = { type: 'RequestVm', data: { ...request, imageFile: null, imageFormat: 'qcow2' } };
    return handler.handle(vm, { ...handling(envelope, streamOf(vm.category, vmId), command), likelyNew: true });
  }

  /** null: there is no such image any more. */
  private imageIf(format: 'iso' | 'kernel' | 'initrd', imageId: string): Media | null {
    const found = this.imageOf(format, imageId, format);
    return isRefusal(found) ? null : found;
  }

  /** null: no medium. */
  private mediumCalled(reference: string | null, field: 'media' | 'drivers' = 'media'): Media | null | Refusal {
    return reference === null ? null : this.imageOf('iso', reference, field);
  }

  private imageOf(format: 'iso' | 'kernel' | 'initrd', reference: string, field: string): Media | Refusal {
    const found = this.ports.view.entryCalled('image', reference);
    if (found === undefined) return refuse('image.unknown', { image: reference, field });
    if (found.format !== format) return refuse(format === 'iso' && isDiskFormat(found.format) ? 'image.no_medium' : 'image.other_format', { image: found.name, format: found.format, wanted: format, field });
    return { imageId: found.imageId as Media['imageId'], file: found.file, ...bytesToFetch(found) };
  }

  private kernelCalled(wish: NonNullable<Extract<VmCommand, { type: 'ReconfigureVm' }>['data']['kernel']> | null): Kernel | null | Refusal {
    if (wish === null) return null;
    const kernel = this.imageOf('kernel', wish.image, 'kernel.image');
    if (isRefusal(kernel)) return kernel;
    const initrd = wish.initrd === undefined ? null : this.imageOf('initrd', wish.initrd, 'kernel.initrd');
    return isRefusal(initrd) ? initrd : { ...kernel, initrd, arguments: wish.arguments };
  }

  /** undefined: it has no second drive. A Windows has one, and what everybody uses in it, where there is that. */
  private driversFor(reference: string | null | undefined, osFamily: VmSpec['osFamily']): Media | null | undefined | Refusal {
    if (reference !== undefined) return this.mediumCalled(reference, 'drivers');
    if (osFamily !== 'windows') return undefined;
    const usual = this.mediumCalled(DRIVERS, 'drivers');
    return isRefusal(usual) ? null : usual;
  }

  /** Resolves names. */
  private async reconfigureVm(envelope: CommandEnvelope, { vmId, operationId, media, drivers, kernel, addNic, removeNic, addVolume, attachVolume, rebuild, ...wish }: Extract<VmCommand, { type: 'ReconfigureVm' }>['data'], handler: CommandHandler): Promise<Handled> {
    const { view } = this.ports;
    const medium = this.mediumCalled(media ?? null);
    if (isRefusal(medium)) return handler.refuse(envelope, medium);
    const driver = this.mediumCalled(drivers ?? null, 'drivers');
    if (isRefusal(driver)) return handler.refuse(envelope, driver);
    const started = this.kernelCalled(kernel ?? null);
    if (isRefusal(started)) return handler.refuse(envelope, started);
    const network = addNic === undefined ? null : view.entryCalled('network', addNic);
    if (network === undefined) return handler.refuse(envelope, refuse('network.unknown', { network: addNic ?? null, field: 'network' }));
    const holder = wish.name === undefined ? undefined : view.holderOfName(wish.name);
    if (holder !== undefined && holder !== vmId) return handler.refuse(envelope, refuse('vm.name_taken', { name: wish.name ?? '', heldBy: holder, field: 'name' }));
    const image = addVolume?.image === undefined ? null : view.entryCalled('image', addVolume.image);
    if (image === undefined) return handler.refuse(envelope, refuse('image.unknown', { image: addVolume?.image ?? null, field: 'image' }));
    if (image !== null && !isDiskFormat(image.format)) return handler.refuse(envelope, notADisk(image, 'image'));
    if (image !== null && addVolume !== undefined && addVolume.sizeGib < image.minDiskGib) return handler.refuse(envelope, refuse('image.needs_more_disk', { diskGib: addVolume.sizeGib, minDiskGib: image.minDiskGib, field: 'sizeGib' }));
    const change: Reconfiguration = {
      // Where a disk stands is the VM's own to say.
      ...(addVolume === undefined ? {} : { addVolume: { ...addVolume, unit: 1, limits: addVolume.limits ?? null, image: image === null ? null : { imageId: image.imageId as NonNullable<VmSpec['imageId']>, file: image.file, format: image.format === 'raw' ? 'raw' : 'qcow2', ...bytesToFetch(image) } } }),
      ...(attachVolume === undefined ? {} : { attachVolume: { volumeId: attachVolume, unit: 1 } }),
      ...(rebuild === undefined ? {} : { rebuild: { volumeId: rebuild.volumeId, kept: { name: keptName(view.vm(vmId)?.name ?? 'vm'), deleteAt: new Date(this.ports.now() + rebuild.keepDays * DAY_MS).toISOString() } } }),
      ...wish, ...(media === undefined ? {} : { media: medium }), ...(drivers === undefined ? {} : { drivers: driver }), ...(kernel === undefined ? {} : { kernel: started }), ...(network === null ? {} : { addNic: network.plan }), ...(removeNic === undefined ? {} : { removeNic }),
    };
    return handler.handle(vm, handling(envelope, streamOf(vm.category, vmId), { type: 'RequestReconfiguration', data: { vmId, operationId, change } } satisfies VmCommand));
  }

  /** Placement proposes a node; its decider sets the capacity aside, or another one is asked. */
  private async placeVm(envelope: CommandEnvelope, wish: Extract<NodeCommand, { type: 'PlaceVm' }>['data'], handler: CommandHandler): Promise<Handled> {
    const { view } = this.ports;
    const full = new Set<string>();
    for (;;) {
      const placed = place(view.candidates(), wish, full);
      if (isRefusal(placed)) {
        // What this process has proposed elsewhere may yet be turned down there. Only without it is a no a no.
        if (isRefusal(place(view.candidates(true), wish, full))) return handler.refuse(envelope, placed);
        await view.decided();
        continue;
      }
      const giveBack = view.promise(placed.nodeId, wish.vmId, { vcpus: wish.vcpus, memoryMib: wish.memoryMib });
      try {
        const reserve: Extract<NodeCommand, { type: 'ReserveCapacity' }> = {
          type: 'ReserveCapacity',
          data: { nodeId: placed.nodeId, vmId: wish.vmId, vcpus: wish.vcpus, memoryMib: wish.memoryMib, poolId: placed.poolId, byHand: wish.byHand, decision: placed.decision as never },
        };
        const last = full.size >= NODES_ASKED_MAX;
        const handled = await handler.handle(node, { ...handling(envelope, streamOf(node.category, placed.nodeId), reserve), store: last ? 'always' : 'events' });
        if (handler === this.ports.handler) for (const event of handled.appended) view.takeEarly(event);
        // An answer without events was not stored: it only holds for this node.
        if (!isRefusal(handled.answer) || last || handled.answer.refused === 'command.cancelled') return handled;
        full.add(placed.nodeId);
      } finally {
        giveBack();
      }
    }
  }

  /** Which node it was is told by who asks, by what the cancelled PlaceVm answered, or by what we see. */
  private async unplaceVm(envelope: CommandEnvelope, { vmId, nodeId }: Extract<NodeCommand, { type: 'UnplaceVm' }>['data'], handler: CommandHandler): Promise<Handled> {
    const { view } = this.ports;
    let from = nodeId ?? (view.vm(vmId)?.nodeId as NodeId | null | undefined) ?? null;
    for (const cancelled of envelope.cancels) {
      const answer = await handler.log.answer(cancelled, refuse('command.cancelled'), { ...envelope.meta, commandId: cancelled, causedBy: envelope.id });
      const placed = answer.kind === 'answered' && !isRefusal(answer.answer) ? answer.answer.facts?.['nodeId'] : undefined;
      if (typeof placed === 'string') from = placed as NodeId;
    }
    if (from === null) return handler.refuse(envelope, { version: 0 });
    return handler.handle(node, handling(envelope, streamOf(node.category, from), { type: 'ReleaseCapacity', data: { nodeId: from, vmId } }));
  }

  /** The machine's id is claimed first: two nodes on one machine, or a cloned one, would fight over everything. */
  private async registerNode(envelope: CommandEnvelope, command: Extract<NodeCommand, { type: 'RegisterNode' }>, handler: CommandHandler): Promise<Handled> {
    const { keyOf, commandIdOf } = this.ports;
    const { nodeId, machineId, name } = command.data;
    const claim = await handler.handle(machine, {
      ...handling(envelope, streamOf(machine.category, keyOf(machineId)), { type: 'Claim' as const, owner: nodeId, label: machineId }), id: commandIdOf(`${envelope.id}:machine`), requestHash: undefined, expected: undefined,
    });
    if (isRefusal(claim.answer)) {
      return handler.refuse(envelope, refuse('node.machine_id_taken', {
        ...claim.answer.because, node: name,
        hint: 'this machine has joined before, or was cloned from one that has: keep the agent\'s state folder, or make a new id with `rm /etc/machine-id && systemd-machine-id-setup`, or remove the old node',
      }));
    }
    return handler.handle(node, handling(envelope, streamOf(node.category, nodeId), command));
  }

  /** The node's decider knows who runs there; who is there and stopped is seen here. */
  private async removeNode(envelope: CommandEnvelope, command: Extract<NodeCommand, { type: 'RemoveNode' }>, handler: CommandHandler): Promise<Handled> {
    const { nodeId, force } = command.data;
    const here = this.ports.view.node(nodeId)?.removed === false ? this.ports.view.vmsOn(nodeId) : [];
    if (!force && here.length > 0) return handler.refuse(envelope, refuse('node.in_use', { nodeId, count: here.length, vms: here.slice(0, NAMED_MAX).map(({ vmId, name }) => ({ id: vmId, name })) }));
    return handler.handle(node, handling(envelope, streamOf(node.category, nodeId), command));
  }

  /** An agent has come: a new session, what it must know, and what its inventory says of our VMs. */
  async hello(hello: Hello): Promise<Welcome | undefined> {
    const { handler, view, commandIdOf } = this.ports;
    const meta: CommandMeta = { actor: hello.nodeId, nodeId: hello.nodeId, nodeAt: hello.nodeAt };
    const started = await handler.handle(node, {
      id: hello.helloId, stream: streamOf(node.category, hello.nodeId), cancels: [], meta,
      command: { type: 'StartSession', data: { nodeId: hello.nodeId, description: hello.description } },
    });
    for (const event of started.appended) view.takeEarly(event);
    if (isRefusal(started.answer)) return undefined;
    const session = started.answer.facts?.['session'] as number;

    const here = new Map(view.vmsOn(hello.nodeId).map((entry) => [entry.vmId, entry]));
    const vms: { vmId: VmId; generation: number; here: boolean }[] = [...here.values()].map((entry) => ({ vmId: entry.vmId as VmId, generation: entry.generation, here: true }));
    const seen = new Set<string>();
    for (const { vmId, generation, state, reason = 'inventory' } of hello.inventory) {
      seen.add(vmId);
      if (!here.has(vmId)) {
        const { state: known } = await handler.log.load(streamOf(vm.category, vmId), vm);
        if (known.status !== 'absent') vms.push({ vmId, generation: known.generation, here: known.status === 'live' && known.nodeId === hello.nodeId });
      }
      await this.record({ nodeId: hello.nodeId, vmId, generation, session, sequence: 0, state, reason, nodeAt: hello.nodeAt }, commandIdOf(`${hello.helloId}:${vmId}`));
    }
    for (const entry of here.values()) {
      if (seen.has(entry.vmId) || !entry.provisioned || entry.observed === 'absent') continue;
      await this.record({ nodeId: hello.nodeId, vmId: entry.vmId as VmId, generation: entry.generation, session, sequence: 0, state: 'absent', reason: 'not in the inventory', nodeAt: hello.nodeAt }, commandIdOf(`${hello.helloId}:${entry.vmId}`));
    }
    return { session, vms };
  }

  /** What a node saw of a domain. Older than what is known, or no news: nothing is written. */
  async report(report: DomainReport): Promise<void> {
    // A later hello told everything as it was then: what was reported before it is history.
    if (report.session < (this.ports.view.node(report.nodeId)?.session ?? 0)) return;
    await this.record(report, this.ports.commandIdOf(`report:${report.nodeId}:${String(report.session)}:${String(report.sequence)}:${report.vmId}`));
  }

  /** What guests said of what they were to run. It is asked of the VM, who knows what that was. */
  async bootReport({ nodeId, vmId, results, nodeAt }: BootReport): Promise<void> {
    for (const result of results) {
      await this.ports.handler.handle(vm, {
        id: this.ports.commandIdOf(`boot:${vmId}:${result.runId}`), stream: streamOf(vm.category, vmId), cancels: [], meta: { actor: nodeId, nodeId, vmId, nodeAt }, store: 'events',
        command: { type: 'RecordBootJob', data: { vmId, nodeId, ...result } },
      });
    }
  }

  /** How far the disks of a machine have come. What is no news writes nothing. */
  async restoreReport({ nodeId, vmId, percent }: RestoreReport): Promise<void> {
    await this.ports.handler.handle(vm, {
      id: this.ports.commandIdOf(`restore:${vmId}:${nodeId}:${String(percent)}`), stream: streamOf(vm.category, vmId), cancels: [], meta: { actor: nodeId, nodeId, vmId }, store: 'events',
      command: { type: 'RecordRestoreProgress', data: { vmId, nodeId, percent } },
    });
  }

  /** Everything that a node found. What it found before and does not name any more is settled. */
  async driftReport({ nodeId, session, sequence, findings, untold, nodeAt }: DriftReport): Promise<void> {
    const { view, commandIdOf } = this.ports;
    const node = view.node(nodeId);
    if (node === undefined || node.removed || session < node.session) return;
    const items = this.classified(nodeId, findings, await this.takenAway(findings));
    await this.ports.handler.handle(drift, {
      id: commandIdOf(`drift:${nodeId}:${String(session)}:${String(sequence)}`), stream: streamOf(drift.category, nodeId), cancels: [], meta: { actor: nodeId, nodeId, nodeAt }, store: 'events',
      command: { type: 'RecordDrift', data: { nodeId, session, sequence, items } },
    });
    for (const vmId of untold) await this.tellAgain(nodeId, vmId, session, sequence);
  }

  /** What a node has forgotten that it was told. Of what somebody has in hand it is told by that, or asks again. */
  private async tellAgain(nodeId: NodeId, vmId: VmId, session: number, report: number): Promise<void> {
    const { state } = await this.ports.handler.log.load(streamOf(vm.category, vmId), vm, 'fresh');
    if (state.status !== 'live' || state.nodeId !== nodeId || state.provisioned === null || state.operation !== null || state.waitingDelete !== null || state.owed.length > 0 || state.desired === 'deleted') return;
    const { generation, pending } = state;
    const tell = verb('TellDomain', { vmId, nodeId, generation }, { ...planOf(machineOf(state, state.snapshots)), seed: null, pending: [...pending], report });
    this.sendToTarget({
      // Plain JSON, as all data of verbs.
      ...tell, data: tell.data as never,
      id: this.ports.commandIdOf(`tell:${nodeId}:${String(session)}:${String(report)}:${vmId}`), cancels: [], meta: { actor: 'system:scheduler', nodeId, vmId },
    }, false);
  }

  /** Subjects of disks that no VM here has, as their node knows, while the log says that they are being taken away. Such findings are rare. */
  private async takenAway(findings: readonly Finding[]): Promise<ReadonlySet<string>> {
    const { view, handler } = this.ports;
    const taken = new Set<string>();
    for (const { kind, vmId, subject } of findings) {
      if (kind !== 'disk-missing' || vmId !== null) continue;
      const stream = streamOf('volume', subject.split('.', 1)[0] ?? subject);
      const events: RecordedEvent[] = [];
      for (let more = await handler.log.since(stream, 0); more.length > 0; more = await handler.log.since(stream, events.length)) events.push(...more);
      const { vmId: owner, isGoing } = fateOf(events);
      const its = owner === null ? undefined : view.vm(owner);
      if (isGoing || (owner !== null && (its === undefined || its.busy || its.owed.length > 0))) taken.add(subject);
    }
    return taken;
  }

  private classified(nodeId: NodeId, findings: readonly Finding[], takenAway: ReadonlySet<string> = new Set()): DriftItem[] {
    const { view, keyOf, now } = this.ports;
    const strays = new Map([...view.driftsOn()].flatMap((entry) => (entry.nodeId !== nodeId && entry.foreign !== null && entry.vmId !== null ? [[entry.vmId, { nodeId: entry.nodeId, runs: runsIn(entry.foreign.state) }] as const] : [])));
    return findings.flatMap((finding) => classify(finding, {
      nodeId, now: now(), vm: finding.vmId === null ? undefined : view.vm(finding.vmId), stray: finding.vmId === null ? null : strays.get(finding.vmId) ?? null,
      isTakenAway: takenAway.has(finding.subject),
      idOf: (on, subject) => `drift_${keyOf(`${on} ${subject}`).slice(0, 32)}`,
    }) ?? []);
  }

  /** The VM's part first: what it refuses was not done. Both have ids that follow from the command's, so that all of it happens once. */
  private async actOnDrift(envelope: CommandEnvelope, command: Extract<DriftCommand, { type: 'ActOnDrift' }>, handler: CommandHandler): Promise<Handled> {
    const { nodeId, driftId, action, operationId } = command.data;
    const stream = streamOf(drift.category, nodeId);
    const { state } = await handler.log.load(stream, drift);
    const item = state.items[driftId];
    if (item === undefined) return handler.refuse(envelope, refuse('drift.not_found', { driftId }));
    if (action !== 'ignore') {
      const remedy = this.remedyOf(item, action, operationId);
      if (isRefusal(remedy)) return handler.refuse(envelope, remedy);
      if ('node' in remedy) {
        const handled = await handler.handle(drift, handling(envelope, stream, command));
        // Should this process end here, the reconciler has the node do it.
        if (handler === this.ports.handler && !isRefusal(handled.answer)) await this.onNode(item, action, operationId, remedy.node, envelope.meta).catch((error: unknown) => { this.ports.failed('have a node do what is wanted', error); });
        return handled;
      }
      const done = await handler.handle(vm, {
        id: this.ports.commandIdOf(`${envelope.id}:vm`), stream: streamOf(vm.category, remedy.vm.data.vmId), cancels: [], meta: { ...envelope.meta, vmId: remedy.vm.data.vmId, operationId }, command: remedy.vm,
      });
      if (isRefusal(done.answer)) return handler.refuse(envelope, done.answer);
      if (handler === this.ports.handler) this.reactSoon(done.appended);
    }
    return handler.handle(drift, handling(envelope, stream, command));
  }

  private onNode({ driftId, nodeId }: DriftItem, action: 'adopt' | 'revert', operationId: OperationId, does: SettleDrift['does'], meta: CommandMeta): Promise<void> {
    return this.beginOnce(operationId, () => this.sagas.start(settleDrift.name, operationId, { operationId, nodeId, driftId, action: `${action}-drift`, does } satisfies SettleDrift, { actor: meta.actor, nodeId, operationId, ...(meta.traceparent === undefined ? {} : { traceparent: meta.traceparent }) }));
  }

  private remedyOf(item: DriftItem, action: 'adopt' | 'revert', operationId: OperationId): ReturnType<typeof remedyOf> {
    return remedyOf(item, action, operationId, (networkId) => this.networkPlan(networkId));
  }

  private networkPlan(networkId: string): NetworkPlan | undefined {
    return this.ports.view.entryCalled('network', networkId)?.plan;
  }

  /** What a VM's own story or another node's makes of what was found; and what the policy of its class wants. */
  private async reconcileDrift(now: number, attempt: (what: string, work: Promise<unknown>) => Promise<unknown>): Promise<void> {
    const { view, commandIdOf } = this.ports;
    const nodes = new Set([...view.driftsOn()].map(({ nodeId }) => nodeId));
    for (const nodeId of nodes) {
      const open = [...view.driftsOn(nodeId)];
      const removed = view.node(nodeId)?.removed === true;
      const items = removed ? [] : this.classified(nodeId, open.map(findingOf)).map((item) => ({ ...item, near: open.find(({ driftId }) => driftId === item.driftId)?.near ?? item.near }));
      const isNews = items.length !== open.length || items.some((item) => open.every(({ driftId, class: klass, says }) => driftId !== item.driftId || klass !== item.class || says !== item.says));
      const last = open.reduce((a, b) => (b.session > a.session || (b.session === a.session && b.sequence > a.sequence) ? b : a));
      const key = `reclassify:${nodeId}:${String(last.session)}:${String(last.sequence)}:${items.map(({ driftId, class: klass, says }) => `${driftId}${klass}${says}`).join()}:${removed ? 'removed' : ''}`;
      if (isNews) {
        await attempt('classify what differs', this.obey({
          id: commandIdOf(key), to: 'scheduler', target: nodeId, type: 'RecordDrift', cancels: [], meta: { actor: 'system:scheduler', nodeId },
          data: { nodeId, session: last.session, sequence: last.sequence, items } as never,
        }));
      }
    }
    for (const item of [...view.driftsOn()]) {
      const { acted, meta } = item;
      if (acted === null || acted.ended || meta === null || (acted.action !== 'revert' && acted.action !== 'adopt')) continue;
      const { action, operationId } = acted;
      const remedy = this.remedyOf(item, action, operationId);
      if (isRefusal(remedy) || !('node' in remedy)) continue;
      await attempt('have a node do what is wanted', this.onNode(item, action, operationId, remedy.node, meta));
    }
    const open = new Set([...view.driftsOn()].filter(({ class: klass }) => klass === 'missing').map(({ driftId }) => driftId as string));
    for (const driftId of this.missingSince.keys()) if (!open.has(driftId)) this.missingSince.delete(driftId);
    for (const { driftId, nodeId, vmId, class: klass, acted, session, sequence } of [...view.driftsOn()]) {
      const action = view.driftPolicyOf(klass);
      if (acted !== null || (action !== 'revert' && action !== 'adopt')) continue;
      if (klass === 'missing' && this.mayBeElsewhere(driftId, nodeId, now)) continue;
      if (vmId !== null && view.vm(vmId)?.busy === true) continue;
      // Asked again where the VM was in somebody's hands at that moment.
      const id = commandIdOf(`drift-policy:${driftId}:${String(session)}:${String(sequence)}:${action}:${String(Math.floor(now / POLICY_EVERY_MS))}`);
      await attempt('act on what differs', this.obey({
        id, to: 'scheduler', target: nodeId, type: 'ActOnDrift', cancels: [], meta: { actor: 'system:scheduler', nodeId },
        data: { nodeId, driftId, action, by: 'policy', operationId: idFrom('op', id) },
      }));
    }
  }

  /** Two that write one disk destroy it: what is missing here may have been moved, and nobody has told us of it yet. */
  private mayBeElsewhere(driftId: string, nodeId: string, now: number): boolean {
    const others = [...this.ports.view.candidates(true)].filter((node) => node.nodeId !== nodeId && !node.removed && node.session > 0);
    const since = this.missingSince.get(driftId) ?? now;
    this.missingSince.set(driftId, since);
    return others.some(({ silentSince }) => silentSince !== null) || (others.length > 0 && now - since < EVERYBODY_LOOKED_MS);
  }

  private async record({ nodeAt, ...data }: DomainReport, id: string): Promise<void> {
    await this.ports.handler.handle(vm, {
      id, stream: streamOf(vm.category, data.vmId), cancels: [], meta: { actor: data.nodeId, nodeId: data.nodeId, vmId: data.vmId, nodeAt }, store: 'events',
      command: { type: 'RecordDomainState', data },
    });
  }

  /**
   * Of many that ask for a VM at the same moment, all are answered before the first is built. A few at a time,
   * so that what comes meanwhile is heard.
   */
  private async beginPostponed(anyway = false): Promise<void> {
    while (this.postponed.length > 0 && (anyway || this.accepting === 0)) {
      await Promise.all(this.postponed.splice(0, BEGUN_AT_ONCE).map((event) => this.reactOrPutOff(event)));
    }
  }

  private reactOrPutOff(event: RecordedEvent): Promise<void> {
    return this.react(event).catch((error: unknown) => { this.ports.failed('react to an event', error); });
  }

  private reactSoon(events: readonly RecordedEvent[]): void {
    for (const event of events) {
      if (categoryOf(event.stream) !== vm.category) continue;
      void this.reactOrPutOff(event);
    }
  }

  /** Starts or cancels what an event calls for. Doing it twice is doing it once. */
  async react(event: RecordedEvent): Promise<void> {
    if (categoryOf(event.stream) !== vm.category || this.reacted.has(event.id)) return;
    const { handler, keyOf } = this.ports;
    const { state } = await handler.log.load(event.stream, vm);
    const left = isRemoval(event.type) && state.status === 'live' && state.provisioned === null ? await this.leftBy(state.createdBy, event) : undefined;
    const reaction = reactionTo(event as unknown as VmEvent, state, keyOf, left);
    if (reaction === undefined || this.reacted.has(event.id)) return;
    this.reacted.add(event.id);
    if (this.reacted.size > REACTED_MAX) for (const oldest of [...this.reacted].slice(0, REACTED_MAX / 2)) this.reacted.delete(oldest);
    const { actor, traceparent } = event.meta;
    const meta: CommandMeta = { actor, operationId: reaction.id, causedBy: event.meta.commandId, ...(state.status === 'live' ? { vmId: state.vmId } : {}), ...(traceparent === undefined ? {} : { traceparent }) };
    try {
      if (reaction.kind === 'start') await this.sagas.start(reaction.saga, reaction.id, reaction.input, meta);
      else await this.sagas.cancel(reaction.saga, reaction.id, reaction.because, meta);
    } catch (error) {
      this.reacted.delete(event.id);
      throw error;
    }
  }

  /**
   * What a creation that failed left behind, in its saga's own words. Whether and where it was placed is the
   * answer to its PlaceVm, which from here on cannot be given otherwise.
   */
  private async leftBy(createdBy: OperationId, { meta }: RecordedEvent): Promise<LeftBehind> {
    const { handler, commandIdOf } = this.ports;
    const stream = streamOf(`saga-${provisionVm.name}`, createdBy);
    const placing = commandIdOf(`${stream}:capacity:run`);
    const outcome = await handler.log.answer(placing, refuse('command.cancelled'), { ...meta, commandId: placing });
    const placed = outcome.kind === 'answered' && !isRefusal(outcome.answer) ? outcome.answer.facts : undefined;
    const { state } = await handler.log.load(stream, provisioning);
    const leased = state.status === 'absent' ? undefined : state.done['address']?.facts;
    return {
      nodeId: (placed?.['nodeId'] ?? null) as NodeId | null, poolId: (placed?.['poolId'] ?? null) as PoolId | null,
      mac: (leased?.['mac'] ?? null) as string | null,
      macs: ((state.status === 'absent' ? undefined : state.done['addresses']?.facts['nics']) ?? []) as LeftBehind['macs'],
    };
  }

  /** What only the leader does, each second: begins what nobody began, takes over sagas that nobody moves, and settles what is owed. */
  async reconcile(): Promise<void> {
    const { view, handler } = this.ports;
    const now = this.ports.now();
    // What fails for one must not keep the others from being looked at: it would fail again the next time.
    const attempt = (what: string, work: Promise<unknown>): Promise<unknown> => work.catch((error: unknown) => { this.ports.failed(what, error); });
    for (const { calls, calledAt } of [...view.calling()]) {
      if (now - calledAt < SAGA_ABANDONED_MS) continue;
      for (const { position, eventId } of calls) {
        if (!this.reacted.has(eventId)) await attempt('begin what nobody began', handler.log.read(position - 1, 1).then(async ([event]) => (event === undefined ? undefined : this.react(event))));
      }
    }
    for (const open of [...view.openSagas()]) {
      if (now - open.lastEventAt < SAGA_ABANDONED_MS || this.sagas.isDriving(open.saga, open.id)) continue;
      await attempt('take over a saga', this.sagas.resume(open.saga, open.id, open.meta));
    }
    for (const call of [...view.volumeCalls()]) await attempt('do what a volume calls for', this.workOnVolume(call));
    for (const { operationId, input, meta } of [...view.poolCalls()]) await attempt('do what a pool calls for', this.beginOnce(operationId, () => this.sagas.start(workOnPool.name, operationId, { ...input }, meta)));
    await this.reconcileBackups(now, attempt);
    for (const { backupId, vmId, target, deleting } of [...view.backups()]) {
      if (deleting === null) continue;
      const { operationId, nodeId, meta } = deleting;
      await attempt('delete a backup', this.beginOnce(operationId, () => this.sagas.start(dropBackup.name, operationId, { operationId, vmId, backupId, target, nodeId: this.nodeFor(target, nodeId) } satisfies DropBackup, meta)));
    }
    for (const { id, at, command } of [...view.due(now)]) {
      // Asked again now and then until the log says that it is done: whoever it is for may have been busy, or away.
      const turn = `timer:${id}:${String(at)}:${String(Math.floor((now - at) / TIMER_AGAIN_MS))}`;
      if (this.timersSent.get(id) === turn) continue;
      this.timersSent.set(id, turn);
      const commandId = this.ports.commandIdOf(turn);
      const operationId = idFrom('op', commandId);
      this.sendToTarget({ ...command, id: commandId, data: { ...command.data, operationId, ...(command.type === 'AdvanceExpiry' ? { now, ...(this.ports.expiry ?? expiryDefault) } : {}) }, cancels: [], meta: { actor: 'system:scheduler', operationId } }, false);
    }
    for (const id of this.timersSent.keys()) if (!view.hasTimer(id)) this.timersSent.delete(id);
    await this.reconcileDrift(now, attempt);
    for (const [nodeId, lost] of view.lost()) await attempt('start what a node came back without', this.startLost(nodeId, lost, now));
    for (const node of view.outdated()) this.callForHello(node.nodeId, now);
    for (const entry of [...view.owing()]) {
      const home = entry.nodeId === null ? undefined : view.node(entry.nodeId);
      if (home !== undefined && home.silentSince !== null && !home.removed) continue;
      if (now - (this.cleanedUpAt.get(entry.vmId) ?? 0) < CLEAN_UP_EVERY_MS) continue;
      this.cleanedUpAt.set(entry.vmId, now);
      const id = this.ports.commandIdOf(`clean-up:${entry.vmId}:${entry.failedOperationId ?? ''}`);
      const operationId = idFrom('op', id);
      await attempt('settle what is owed', this.obey({
        id, to: 'scheduler', target: entry.vmId, type: 'CleanUpVm', cancels: [], data: { vmId: entry.vmId, operationId },
        meta: { actor: 'system:scheduler', operationId, vmId: entry.vmId as VmId },
      }));
    }
  }

  private async workOnVolume({ saga, failed, nodeId, input, meta, ...call }: VolumeCall): Promise<void> {
    const home = this.ports.view.node(nodeId);
    // What is owed is settled when its node is heard again.
    if (failed !== null && home !== undefined && home.silentSince !== null && !home.removed) return;
    const operationId = failed === null ? call.operationId : idFrom('op', this.ports.commandIdOf(`settle:${failed.operationId}:${String(failed.tries)}`));
    await this.beginOnce(operationId, () => this.sagas.start(saga, operationId, failed === null ? input : { ...input, operationId, failedOperationId: failed.operationId }, { ...meta, operationId }));
  }

  /** What was begun already is among the open ones, or has ended and the log will say so. */
  private async beginOnce(operationId: string, begin: () => Promise<unknown>): Promise<void> {
    if (this.begun.has(operationId)) return;
    await begin();
    this.remember(operationId);
  }

  private remember(id: string): void {
    this.begun.add(id);
    if (this.begun.size > REACTED_MAX) this.begun.clear();
  }

  /** What policies call for. One that was refused (the VM was just taken in hand) is asked for again in a minute, under another id. */
  private async reconcileBackups(now: number, attempt: (what: string, work: Promise<unknown>) => Promise<unknown>): Promise<void> {
    const { view, commandIdOf } = this.ports;
    const { backups, removals, drills } = due({
      backupPolicies: () => view.backupPolicies(), drills: () => view.drills(), backups: () => view.backups(), vm: (vmId) => view.vm(vmId),
      isHeard: (nodeId) => { const home = view.node(nodeId); return home !== undefined && !home.removed && home.silentSince === null && home.session > 0; },
    }, now);
    const minute = String(Math.floor(now / POLICY_AGAIN_MS));
    for (const { policyId, vmId, slot, target, wants } of backups) {
      const id = commandIdOf(`backup:${policyId}:${vmId}:${String(slot)}:${minute}`);
      if (this.begun.has(id)) continue;
      const operationId = idFrom('op', id);
      await attempt('back up what is due', this.obey({
        id, to: 'scheduler', target: vmId, type: 'BackupVm', cancels: [], meta: { actor: 'system:scheduler', operationId, vmId },
        data: { vmId, operationId, backupId: idFrom('backup', id), ...(target === undefined ? {} : { target }), wants, scheduled: { policyId, slot: new Date(slot).toISOString() } },
      }));
      this.remember(id);
    }
    for (const { policyId, backupId, drill: { every: _, schedule: __, ...wish } } of drills) {
      const id = commandIdOf(`drill:${backupId}:${minute}`);
      if (this.begun.has(id)) continue;
      const [operationId, vmId] = [idFrom('op', id), idFrom('vm', id)];
      await attempt('drill what is due', this.obey({
        id, to: 'scheduler', target: vmId, type: 'RestoreBackup', cancels: [], meta: { actor: 'system:scheduler', operationId, vmId },
        data: { vmId, operationId, backupId, name: drillName(vmId), drill: true, proof: { ...defined(wish), policyId } },
      }));
      this.remember(id);
    }
    for (const { vmId, backupId } of removals) {
      const id = commandIdOf(`prune:${backupId}:${minute}`);
      if (this.begun.has(id)) continue;
      const operationId = idFrom('op', id);
      this.sendToTarget({ id, to: 'storage', target: vmId, type: 'DeleteBackup', cancels: [], data: { vmId, backupId, operationId }, meta: { actor: 'system:scheduler', operationId } }, false);
      this.remember(id);
    }
  }

  /** One at a time on each node, in their order, each so long after the one before as it says. Nothing runs that nobody wants to run. */
  private async startLost(nodeId: string, lost: readonly VmEntry[], now: number): Promise<void> {
    const { view, handler, commandIdOf } = this.ports;
    const node = view.node(nodeId);
    if (node === undefined || node.removed || node.silentSince !== null) return;
    const before = this.startedAgain.get(nodeId);
    if (before !== undefined) {
      if (view.vm(before.vmId)?.busy === true) return;
      before.endedAt ??= now;
    }
    // One that runs elsewhere is not lost.
    const elsewhere = new Set([...view.driftsOn()].flatMap(({ class: klass, vmId }) => (klass === 'moved' || klass === 'duplicate' ? [vmId] : [])));
    const next = lost.find(({ vmId, lostAt, busy }) => !busy && !elsewhere.has(vmId as VmId) && this.lossesSeen.get(vmId) !== lostAt);
    if (next === undefined || next.autostart === null || next.lostAt === null) return;
    if (before?.endedAt !== undefined && now < before.endedAt + next.autostart.delaySeconds * 1_000) return;
    this.lossesSeen.set(next.vmId, next.lostAt);
    const { state } = await handler.log.load(streamOf(vm.category, next.vmId), vm);
    if (state.status !== 'live' || state.desired !== 'running') return;
    const id = commandIdOf(`autostart:${next.vmId}:${String(next.lostAt)}`);
    const operationId = idFrom('op', id);
    await this.obey({ id, to: 'scheduler', target: next.vmId, type: 'StartVm', cancels: [], data: { vmId: next.vmId, operationId }, meta: { actor: 'system:scheduler', operationId, vmId: state.vmId } });
    this.startedAgain.set(nodeId, { vmId: next.vmId, endedAt: undefined });
  }

  /** Whoever took it, or another that sees the same target and is heard. */
  private nodeFor({ targetId }: BackupTarget, nodeId: NodeId): NodeId {
    const { view } = this.ports;
    const heard = (node: Candidate | undefined): boolean => node !== undefined && !node.removed && node.silentSince === null && node.description?.backupTargets?.some((target) => target.targetId === targetId) === true;
    if (heard(view.node(nodeId))) return nodeId;
    return [...view.candidates(true)].find(heard)?.nodeId ?? nodeId;
  }

  /**
   * A hello that was late began a session its agent knows nothing of, with an inventory of long ago. Any
   * command that names the session makes the agent say hello again; one that changes nothing will do.
   */
  private callForHello(nodeId: NodeId, now: number): void {
    const [entry] = this.ports.view.vmsOn(nodeId);
    if (entry === undefined || now - (this.calledAt.get(nodeId) ?? 0) < CALL_EVERY_MS) return;
    this.calledAt.set(nodeId, now);
    this.sendToTarget({
      id: this.ports.commandIdOf(`call:${nodeId}:${String(now)}`), to: 'node', target: nodeId, type: 'ObserveDomain', cancels: [],
      data: { nodeId, vmId: entry.vmId, generation: Math.max(1, entry.generation) }, meta: { actor: 'system:scheduler', nodeId },
    }, true);
  }

  /** A node's session goes with the command; a removed node answers at once, for it never will. */
  private sendToTarget(envelope: CommandEnvelope, again: boolean): void {
    if (envelope.to !== 'node') {
      this.ports.send(envelope, again);
      return;
    }
    const target = this.ports.view.node(envelope.target);
    if (target?.removed === true) {
      this.sagas.take(envelope.id, refuse('node.removed', { nodeId: envelope.target })).catch((error: unknown) => { this.ports.failed('answer for a removed node', error); });
      return;
    }
    this.ports.send({ ...envelope, session: target?.session ?? 0 }, again);
  }
}

/** The place of each disk: the first has 0, a vdb has that of the guest's vdb, the others what is free. */
const unitsOf = (targets: readonly string[]): readonly number[] => {
  const units = targets.map((target, index) => (index === 0 ? 0 : /^vd[b-x]$/.test(target) ? target.charCodeAt(2) - 'a'.charCodeAt(0) : -1));
  for (let free = 1; units.includes(-1); free++) if (!units.includes(free)) units[units.indexOf(-1)] = free;
  return units;
};

const handling = <C>(envelope: CommandEnvelope, stream: string, command: C): Handling<C> =>
  ({ id: envelope.id, stream, command, cancels: envelope.cancels, meta: envelope.meta, requestHash: envelope.requestHash, expected: envelope.expected });

/** What is said, without what is left out: a command holds no such value. */
const defined = (wish: object): Facts => Object.fromEntries(Object.entries(wish).filter(([, value]) => value !== undefined));

/** Names have 63 characters at most. */
const keptName = (vmName: string): string => `${vmName.slice(0, 63 - '-before-rebuild'.length)}-before-rebuild`;

type Taken = NonNullable<NonNullable<CommandEnvelope['rehearses']>['taken']>[number];

/** The nodes as they would be if that were set aside too. */
function* without(candidates: Iterable<Candidate>, taken: readonly Taken[]): Generator<Candidate> {
  for (const node of candidates) {
    const here = taken.filter(({ nodeId }) => nodeId === node.nodeId);
    yield here.length === 0 ? node : {
      ...node,
      vcpusReserved: here.reduce((sum, { vcpus }) => sum + vcpus, node.vcpusReserved), memoryMibReserved: here.reduce((sum, { memoryMib }) => sum + memoryMib, node.memoryMibReserved),
    };
  }
}
