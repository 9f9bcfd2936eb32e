/*
 * What a node is told, and what it tells. Each verb brings about a state and may be repeated: a disk that
 * is there, a domain that is defined, one that runs, one that is gone. Every verb names the VM and the
 * generation it means; a node refuses one older than it knows ('vm.old_generation').
 */
import { z } from 'zod';
import { command, type CommandOf } from '../command.ts';
import { BootRun, BOOT_RUNS_MAX } from '../boot-job/boot-job.ts';
import { BackupWish, Proof } from '../backup/backup.ts';
import { BackedUpMachine } from '../backup/backup.events.ts';
import { BackupId, BackupTargetId, CommandId, NodeId, OperationId, PoolId, SnapshotId, VmId, VolumeId } from '../ids.ts';
import { ImageFile } from '../image/image.events.ts';
import { NetworkPlan } from '../network/network.events.ts';
import { NodeDescription } from '../node/node.events.ts';
import { Mac } from '../subnet/subnet.events.ts';
import { Name, text } from '../text.ts';
import { PoolFigures, PoolPath, PoolType } from '../pool/pool.events.ts';
import { DiskLimits, PoolFileName, VolumeFormat, VolumeWork } from '../volume/volume.events.ts';
import { ASSIGNED_MAX, AssignedDevice } from '../vm/assigned.ts';
import { CloudInit } from '../vm/cloud-init.ts';
import { Expert } from '../vm/expert.ts';
import { GuestRequest } from '../vm/guest.ts';
import { InnerName, Layer, LayerStep } from '../vm/snapshot.ts';
import { AdoptedLayout, BootOrder, DomainState, KernelArguments, Pending, Platform, Restore } from '../vm/vm.events.ts';

const Target = { nodeId: NodeId, vmId: VmId, generation: z.int().min(1) };
const OfPool = { nodeId: NodeId, poolId: PoolId };
const OfVolume = { nodeId: NodeId, volumeId: VolumeId, poolId: PoolId, format: VolumeFormat, sizeGib: z.int().min(1) };

/** What cloud-init is told. `instanceId` changes when it shall begin anew. */
export const Seed = z.object({ /** The disk was another machine's: the guest shall be somebody else. */ newIdentity: z.boolean().optional(), instanceId: z.string().regex(/^[a-zA-Z0-9_-]{1,100}$/), ...CloudInit.shape, hostname: text(253) });
export type Seed = z.infer<typeof Seed>;

/** A domain as it should be. Memory in MiB. The first disk and the first interface are those it was made with. */
export const DomainPlan = z.object({
  name: Name, vcpus: z.int(), vcpusMax: z.int(), memoryMib: z.int(), memoryMibMax: z.int(), devices: z.enum(['virtio', 'legacy']), boot: BootOrder,
  /** `layer` is the file of the disk that the guest writes. `unit` 0 is the guest's vda, 1 its vdb, whatever is attached beside. */
  disks: z.array(z.object({ volumeId: VolumeId, unit: z.int().min(0).max(23), sizeGib: z.int().min(1), limits: DiskLimits.nullable(), layer: Layer.default(null), /** libvirt's name for it, where that does not follow from `unit`. */ target: z.string().regex(/^[a-z]{2,4}$/).nullable().default(null) })).min(1).max(24),
  nics: z.array(z.object({ network: NetworkPlan, mac: Mac, address: z.ipv4() })).max(16),
  media: ImageFile.nullable(),
  /** In its second drive; null: nothing. Left out, it has none. */
  drivers: ImageFile.nullable().optional(),
  kernel: z.object({ file: ImageFile, initrd: ImageFile.nullable(), arguments: KernelArguments }).optional(),
  bootMenu: z.boolean().optional(),
  assigned: z.array(AssignedDevice).max(ASSIGNED_MAX).optional(),
  ...Platform.shape,
  expert: Expert.optional(),
  seed: Seed.nullable(),
  /** What the guest runs at its next boot, once. */
  bootRuns: z.array(BootRun).max(BOOT_RUNS_MAX).optional(),
  /** It was not made by us: its XML stays its own but for what stands here, and so do these interfaces. */
  adopted: z.object({ macs: z.array(Mac).max(16), ...AdoptedLayout.pick({ drive: true, definition: true }).shape }).nullable().default(null),
  /** Its interfaces are there, and lead nowhere. */
  isolated: z.boolean().optional(),
});
export type DomainPlan = z.infer<typeof DomainPlan>;

export const agentCommands = {
  /** A disk is there, copy-on-write over the image or blank; with `full` a copy that stands alone. An image of the store is fetched. Size in GiB. Without a pool: in the one that the node began with. */
  EnsureDisk: command('node', 'nodeId', z.object({ ...Target, volumeId: VolumeId, poolId: PoolId.optional(), imageFile: ImageFile.nullable(), imageFormat: z.enum(['qcow2', 'raw']), sizeGib: z.int().min(1), full: z.boolean().default(false) })),
  /** Networks are there, leases known to their DHCP servers, the domain is defined. */
  DefineDomain: command('node', 'nodeId', z.object({ ...Target, ...DomainPlan.shape })),
  /**
   * A domain that may be running is as the plan says, as far as that can be while it runs; `pending` says what has to wait for a start.
   * With `hostname` a guest that runs is told it by its agent. Disks grow; leases of interfaces that are `gone` are forgotten. With `restore`, which takes back what was done by hand, a domain that is gone is defined again, and at last it is in that state. With `insist`, which takes a change back, it is tried until it is so: no refusal ends it but that there is no such domain.
   */
  ConfigureDomain: command('node', 'nodeId', z.object({ ...Target, ...DomainPlan.shape, gone: z.array(z.object({ network: NetworkPlan, mac: Mac })), hostname: text(253).nullable(), insist: z.boolean(), restore: z.enum(['running', 'paused', 'stopped']).nullable().default(null) })),
  /**
   * Each disk of the plan has its layer, new and empty, on the one that is named here; what it stands on is never written again.
   * With `live` a domain that runs goes over to them, its file systems frozen for that moment when its agent answers (fact `frozen`); without, one that runs is refused.
   */
  LayerDomain: command('node', 'nodeId', z.object({ ...Target, ...DomainPlan.shape, on: z.array(z.object({ volumeId: VolumeId, layer: Layer })).min(1).max(24), live: z.boolean() })),
  /**
   * What each of these disks holds is kept inside of its file, under this name; with `back` they hold, then, what was kept under that one, and count no more what is written.
   * Refused unless the domain is stopped, its memory not kept either.
   */
  KeepInside: command('node', 'nodeId', z.object({ ...Target, volumes: z.array(VolumeId).min(1).max(24), as: InnerName, back: SnapshotId.nullable() })),
  /** These layers are gone, what of them is needed merged into the one below; the domain, if there is one, is as the plan says. Never refused: it is tried until it is so. */
  TidyLayers: command('node', 'nodeId', z.object({ ...Target, ...DomainPlan.shape, steps: z.array(LayerStep).max(1_000) })),
  /** What a layer and all below it hold is an image of the control plane's store, brought there under the operation that waits for it; facts say what it is. */
  PublishDisk: command('node', 'nodeId', z.object({ ...Target, operationId: OperationId, volumeId: VolumeId, layer: Layer })),
  /** A domain that somebody else made is one of ours from now on: it is said so in its metadata, its files are found under the volumes' names, and nothing of what runs is touched. Fact: its `definition`, without secrets. */
  AdoptDomain: command('node', 'nodeId', z.object({ ...Target, ...DomainPlan.shape, files: z.array(z.object({ volumeId: VolumeId, file: text(1_000) })).min(1).max(24) })),
  /** It is not one of ours, and runs on as it is. */
  ReleaseDomain: command('node', 'nodeId', z.object({ ...Target, volumes: z.array(VolumeId).max(24) })),
  /**
   * What the disks of the plan hold at one moment lies whole at the target, with a manifest; the domain runs on or stays stopped.
   * Facts are those of a TakenBackup. `parent`: it may hold only what has changed since, where the disks have kept count of that.
   */
  BackupDomain: command('node', 'nodeId', z.object({ ...Target, ...DomainPlan.shape, backupId: BackupId, targetId: BackupTargetId, wants: BackupWish, parent: BackupId.nullable(), /** Of this one no count is needed any more. */ replaces: BackupId.nullable(), machine: BackedUpMachine })),
  /** Nothing of this backup is at the target, nor is it being taken. */
  UndoBackup: command('node', 'nodeId', z.object({ ...Target, ...DomainPlan.shape, backupId: BackupId, targetId: BackupTargetId })),
  /** These disks are there, and hold what the last backup of the chain holds: each file is what it was when it was taken, else 'backup.damaged'. */
  RestoreDisks: command('node', 'nodeId', z.object({ ...Target, poolId: PoolId, ...Restore.pick({ ofVm: true, targetId: true, chain: true }).shape, disks: z.array(z.object({ volumeId: VolumeId, unit: z.int().min(0).max(23), sizeGib: z.int().min(1) })).min(1).max(24) })),
  /** These disks are there, and hold what these layers of others hold; they stand alone. Sizes in GiB. */
  CopyDisks: command('node', 'nodeId', z.object({ ...Target, poolId: PoolId, disks: z.array(z.object({ volumeId: VolumeId, sizeGib: z.int().min(1), from: VolumeId, layer: Layer })).min(1).max(24) })),
  StartDomain: command('node', 'nodeId', z.object(Target)),
  /** A domain that was started has come up: that is seen within the time. Facts: `criterion`, `seconds`, and in words what was seen. Else 'drill.not_seen'. */
  ProveDomain: command('node', 'nodeId', z.object({ ...Target, proof: Proof })),
  /** Power button, then after the time either cut (force) or refused 'domain.still_running'. With force saved memory is given up. */
  ShutdownDomain: command('node', 'nodeId', z.object({ ...Target, timeoutSeconds: z.int(), force: z.boolean() })),
  /** Not running, whatever it takes. */
  DestroyDomain: command('node', 'nodeId', z.object(Target)),
  /** Not running, its memory in a file beside its disks, from which StartDomain goes on. */
  SaveDomain: command('node', 'nodeId', z.object(Target)),
  RebootDomain: command('node', 'nodeId', z.object(Target)),
  ResetDomain: command('node', 'nodeId', z.object(Target)),
  SuspendDomain: command('node', 'nodeId', z.object(Target)),
  ResumeDomain: command('node', 'nodeId', z.object(Target)),
  /** The guest's own agent is asked; facts say the `method`. Doing it twice is doing it once. */
  AskGuest: command('node', 'nodeId', z.object({ ...Target, request: GuestRequest })),
  /** Nothing is changed, the answer says what there is: for whoever only wants to take another command back. */
  ObserveDomain: command('node', 'nodeId', z.object(Target)),
  /** Nothing is changed: a node that has forgotten what it was told of a domain is told it again; the state that it is in is taken for the one it should be in. `report`: the report of drift that said so; a verb on the domain since then makes it void. */
  TellDomain: command('node', 'nodeId', z.object({ ...Target, ...DomainPlan.shape, pending: z.array(Pending), report: z.int() })),
  /** Neither running nor defined, its lease forgotten. */
  RemoveDomain: command('node', 'nodeId', z.object({ ...Target, nics: z.array(z.object({ network: NetworkPlan, mac: Mac })) })),
  RemoveDisk: command('node', 'nodeId', z.object({ ...Target, volumeId: VolumeId, poolId: PoolId.optional(), /** Others that came with it, in the same pool. */ more: z.array(VolumeId).max(23).optional() })),
  /** A backup is gone from its target. `vmId`: whose it was. */
  RemoveBackup: command('node', 'nodeId', z.object({ nodeId: NodeId, vmId: VmId, backupId: BackupId, targetId: BackupTargetId })),
  /** The same for a disk that no VM has, or that `vmId` was to get: only what concerns the volume is at an end. `found`: what it was to be made of is that file again, and not gone. */
  RemoveVolume: command('node', 'nodeId', z.object({ nodeId: NodeId, volumeId: VolumeId, vmId: VmId.nullable(), poolId: PoolId.optional(), found: PoolFileName.optional() })),
  /** The folder is a pool of this node: with `make` it is made, and the token left in it; without, the token must be there. Below the folders that the node is configured with, nowhere else. Facts: `PoolFacts`. */
  OpenPool: command('node', 'nodeId', z.object({ ...OfPool, path: PoolPath, type: PoolType, token: text(100), make: z.boolean() })),
  /** It is none any more. With `remove` the token goes, and the folder if it is empty. */
  ClosePool: command('node', 'nodeId', z.object({ ...OfPool, remove: z.boolean() })),
  /** Facts: `PoolFacts`. */
  LookAtPool: command('node', 'nodeId', z.object(OfPool)),
  /** A network is as it was made: defined, up, its DHCP server and its rules there. Guests that run stay on it. */
  RestoreNetwork: command('node', 'nodeId', z.object({ nodeId: NodeId, network: NetworkPlan })),
  /** Whatever lies there as the volume's files is what should be there, from now on. */
  AcceptVolume: command('node', 'nodeId', z.object({ nodeId: NodeId, volumeId: VolumeId })),
  /** A volume that no VM has is there, whole: blank, or a copy of an image, of another volume, or of a frozen layer of one. It stands alone. `found`: a file in the pool's folder that was nobody's becomes its file, as it is. */
  EnsureVolume: command('node', 'nodeId', z.object({
    ...OfVolume,
    source: z.discriminatedUnion('kind', [
      z.object({ kind: z.literal('blank') }),
      z.object({ kind: z.literal('image'), file: ImageFile, format: VolumeFormat }),
      z.object({ kind: z.literal('volume'), volumeId: VolumeId, layer: Layer }),
      z.object({ kind: z.literal('found'), file: PoolFileName }),
    ]),
  })),
  /** Something is done to the bytes of a volume that nobody uses; `format` is what they are before it. */
  WorkOnVolume: command('node', 'nodeId', z.object({ ...OfVolume, work: VolumeWork })),
  /** What it holds is an image of the control plane's store; as PublishDisk. */
  PublishVolume: command('node', 'nodeId', z.object({ nodeId: NodeId, operationId: OperationId, volumeId: VolumeId })),
  /** Takes such work back: the volume is whole, as `format`, and nothing unfinished is beside it. What was to be wiped is. */
  SettleVolume: command('node', 'nodeId', z.object({ ...OfVolume, work: VolumeWork })),
} as const;
export type AgentCommand = CommandOf<typeof agentCommands>;

/** What a node finds in a pool: its figures, what the files of volumes take, and the names of files, without those of ours that are no disks. */
export const PoolFacts = z.object({ ...PoolFigures.shape, volumesGib: z.int().min(0), files: z.array(text(255)).max(10_000) });
export type PoolFacts = z.infer<typeof PoolFacts>;

/** Facts in the answer of every verb that leaves a domain in some state. ConfigureDomain adds `pending`, what has to wait for a start; AskGuest `method`. */
export const ObservedFacts = z.object({ state: DomainState, reason: text(100), session: z.int(), sequence: z.int() });
export type ObservedFacts = z.infer<typeof ObservedFacts>;

/** A report `cv.rpt.<node>.vm.<vmId>`: what a node saw of one domain. Sequence rises within a session. */
export const DomainReport = z.object({
  nodeId: NodeId, vmId: VmId, generation: z.int().min(0), session: z.int(), sequence: z.int(),
  state: DomainState, reason: text(100), nodeAt: z.iso.datetime(),
  /** It is as was told before: only who believes otherwise learns something. */
  again: z.boolean().optional(),
});
export type DomainReport = z.infer<typeof DomainReport>;

/** A request on `cv.hello.<node>`, core NATS: the agent has come. Answered with a Welcome. */
export const Hello = z.object({
  /** The id of the command that the scheduler makes of it: a repeated hello is one session. */
  helloId: CommandId,
  nodeId: NodeId,
  description: NodeDescription,
  /** Every domain of ours that libvirt has, and every VM the journal knows. */
  inventory: z.array(z.object({ vmId: VmId, generation: z.int().min(0), state: DomainState, /** The hypervisor's word for why. */ reason: text(100).optional() })).max(16_384),
  nodeAt: z.iso.datetime(),
});
export type Hello = z.infer<typeof Hello>;

/** What the agent must know before it takes a command. */
export const Welcome = z.object({
  session: z.int().min(1),
  /** Generation of every VM of this node; those deleted or moved away have `here: false`. */
  vms: z.array(z.object({ vmId: VmId, generation: z.int().min(0), here: z.boolean() })),
});
export type Welcome = z.infer<typeof Welcome>;

/** A report `cv.rpt.<node>.pool.<poolId>`. Sizes in GiB. */
export const PoolReport = z.object({
  nodeId: NodeId, poolId: PoolId, name: text(100), capacityGib: z.int().min(0),
  /** What the file system has given away, to whomever. */
  usedGib: z.int().min(0).optional(),
  /** false: its folder is not there. */
  active: z.boolean().default(true),
  /** An operator made it; else the node began with it. */
  made: z.boolean().default(false),
});
export type PoolReport = z.input<typeof PoolReport>;

/** A report `cv.rpt.<node>.backup.<backupId>`: how much of it is copied. It may be less than was said before, when the copy was begun again. */
export const BackupReport = z.object({ nodeId: NodeId, vmId: VmId, backupId: BackupId, percent: z.int().min(0).max(100) });
export type BackupReport = z.infer<typeof BackupReport>;

/** A report `cv.rpt.<node>.restore.<vmId>`: how much of the disks that are made of a backup is made. It may be less than was said before, too. */
export const RestoreReport = BackupReport.omit({ backupId: true });
export type RestoreReport = z.infer<typeof RestoreReport>;

/** `cv.hb.<node>`, core NATS, never stored. Percentages of what the node has. */
export const Heartbeat = z.object({ nodeId: NodeId, session: z.int(), nodeAt: z.iso.datetime(), memoryUsedPercent: z.int().min(0).max(100), loadPercent: z.int().min(0) });
export type Heartbeat = z.infer<typeof Heartbeat>;
