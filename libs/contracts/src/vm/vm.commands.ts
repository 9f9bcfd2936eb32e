import { z } from 'zod';
import { command, type CommandOf } from '../command.ts';
import { BootRun, BOOT_RUNS_MAX, BootResult, RunBootJobBody } from '../boot-job/boot-job.ts';
import { BackupSlot, BackupTarget, BackupWish, DrillWish } from '../backup/backup.ts';
import { RestoreBackupBody } from '../backup/backup.commands.ts';
import { BackupId, BootRunId, ImageId, NodeId, OperationId, PoolId, SnapshotId, VmId, VolumeId } from '../ids.ts';
import { PublishedImage } from '../image/image.events.ts';
import { Json, Name, text } from '../text.ts';
import { DiskLimits } from '../volume/volume.events.ts';
import { AssignedDevice, DeviceName } from './assigned.ts';
import { CloudInit, Hostname } from './cloud-init.ts';
import { Expert } from './expert.ts';
import { GuestRequest, ScreenPassword } from './guest.ts';
import { Layer, SnapshotKind } from './snapshot.ts';
import { AdoptedLayout, AttachedVolume, Autostart, BootOrder, DEFINITION_MAX, DomainState, KernelArguments, Nic, Pending, Platform, Provisioned, Reconfiguration, RequestedVm, VmSpec } from './vm.events.ts';

/** An image, network or node is named by its id or its name. */
const Reference = text(100).min(1);

const KernelWish = z.strictObject({
  image: Reference.describe('Id or name of an image of format kernel'),
  initrd: Reference.optional().describe('Id or name of an image of format initrd'),
  arguments: KernelArguments.default(''),
}).meta({ id: 'KernelWish' });

/** The body of POST /v1/vms. Memory in MiB, disk in GiB. */
export const CreateVmBody = z.strictObject({
  name: Name.describe('Unique in the installation. With count, the members are <name>-1, <name>-2, …'),
  description: text(1_000).default(''),
  image: Reference.optional().describe('Id or name of an image; without it the disk begins blank, and there must be a medium, a network or a kernel to boot from'),
  network: Reference.describe('Id or name of a network'),
  vcpus: z.int().min(1).max(256),
  memoryMib: z.int().min(64).max(4_194_304),
  diskGib: z.int().min(1).max(65_536),
  node: Reference.optional().describe('Id or name of the node; without it the scheduler chooses'),
  pool: Reference.optional().describe('Id or name of the pool of its disk; without it whichever has room'),
  accel: z.enum(['any', 'require-kvm']).default('any'),
  devices: z.enum(['virtio', 'legacy']).default('virtio'),
  osFamily: Platform.shape.osFamily.describe('What runs inside. A windows sees the local time of its node instead of UTC, and what Hyper-V would tell it where the node has KVM'),
  firmware: Platform.shape.firmware.describe('What starts it, for all its life: bios (default), uefi, or uefi-secure, which only starts what is signed'),
  tpm: Platform.shape.tpm.describe('Give it a TPM 2.0 in software'),
  tags: z.array(text(64).min(1)).max(50).default([]),
  protected: z.boolean().default(false),
  vcpusMax: z.int().min(1).max(256).optional().describe('As far as CPUs can be added while it runs. Default: as many as there are'),
  memoryMibMax: z.int().min(64).max(4_194_304).optional().describe('As far as memory can be added while it runs. Default: as much as there is'),
  boot: BootOrder.optional().describe('Default: disk; with a medium and no image cdrom, then disk'),
  media: Reference.optional().describe('Id or name of an image of format iso, put into the drive'),
  drivers: Reference.nullable().optional().describe('Id or name of an image of format iso, put into a second drive. Default: what its image names; for a windows the one that is called, or whose family is, virtio-win, if there is one. null: nothing'),
  kernel: KernelWish.optional().describe('Started with this, whatever the boot order is'),
  bootMenu: z.boolean().optional().describe('At each start its firmware waits some seconds for somebody at its screen or serial console to choose from what it starts'),
  cloudInit: CloudInit.optional(),
  expert: Expert.optional().describe('Devices for those who know what they do'),
  autostart: Autostart.optional().describe('Started again when its node comes back without it, after a power failure for example'),
  expiresAt: z.iso.datetime().optional().describe('Until when it is wanted: then it is stopped, later put into the recycle bin, later deleted'),
  clone: z.enum(['linked', 'full']).optional().describe('linked, the default: its disk stands on the image and is made at once; full: a copy that stands alone'),
  sshKeys: z.array(Reference).max(100).optional().describe('Ids or names of keys that cloud-init lets in as the image\'s default user, beside those in cloudInit'),
  bootJobs: z.array(RunBootJobBody).max(BOOT_RUNS_MAX).optional().describe('What it runs at its first boot, in this order. It needs cloud-init; jobs with secrets are given to it later, when it has a node'),
  count: z.int().min(1).max(500).default(1).describe('How many: each its own operation under one parent'),
}).meta({ id: 'CreateVm' });
export type CreateVmBody = z.infer<typeof CreateVmBody>;

/** The body of PATCH /v1/vms/:id: what is said about the machine, not what it is. What is left out stays. */
export const ChangeVmBody = z.strictObject({
  description: text(1_000).optional(),
  tags: z.array(text(64).min(1)).max(50).optional(),
  protected: z.boolean().optional().describe('A protected VM cannot be deleted'),
  autostart: Autostart.nullable().optional().describe('null: it is not started again by itself'),
  expiresAt: z.iso.datetime().nullable().optional().describe('Until when it is wanted: a later time brings one back that has expired; null: for ever'),
}).meta({ id: 'ChangeVm' });
export type ChangeVmBody = z.infer<typeof ChangeVmBody>;

/** The body of PATCH /v1/vms/:id/hardware. What is left out stays. */
export const ReconfigureVmBody = z.strictObject({
  name: Name.optional().describe('A new name, for everybody but the guest'),
  vcpus: z.int().min(1).max(256).optional().describe('More than now and at most vcpusMax: at once. Otherwise at the next start'),
  memoryMib: z.int().min(64).max(4_194_304).optional().describe('More than now by a multiple of 128, and at most memoryMibMax: at once. Otherwise at the next start'),
  diskGib: z.int().min(1).max(65_536).optional().describe('The system disk can only grow; the guest sees it at once'),
  boot: BootOrder.optional().describe('From the next start on'),
  media: Reference.nullable().optional().describe('Id or name of an image of format iso; null ejects'),
  drivers: Reference.nullable().optional().describe('The same for its second drive, which a windows has, and every VM that was given drivers before it was started'),
  kernel: KernelWish.nullable().optional().describe('From the next start on; null: started by its firmware'),
  bootMenu: z.boolean().optional().describe('From the next start on'),
  diskLimits: DiskLimits.nullable().optional().describe('Of the system disk; null takes them off'),
  expert: Expert.nullable().optional().describe('Devices for those who know what they do, all of them anew; null: what every machine has. From the next start on. With dryRun=true the answer shows what would be different in libvirt\'s XML'),
  hostname: Hostname.optional().describe('What the guest calls itself. At once where its guest agent answers; otherwise cloud-init does it at the next start'),
  cloudInit: CloudInit.optional().describe('What cloud-init is told instead of what it was: from the next start on, when it begins as on a new machine. Without a hostname the guest keeps its own'),
}).refine((body) => Object.values(body).some((value) => value !== undefined), 'must change something').meta({ id: 'ReconfigureVm' });
export type ReconfigureVmBody = z.infer<typeof ReconfigureVmBody>;

/** The body of POST /v1/vms/:id/nics. */
export const AddNicBody = z.strictObject({ network: Reference.describe('Id or name of a network in which the VM has no interface yet') }).meta({ id: 'AddNic' });

/** The body of POST /v1/vms/:id/volumes: a new disk, or one that no VM has. */
export const AddVolumeBody = z.union([
  z.strictObject({
    name: Name, sizeGib: z.int().min(1).max(65_536), image: Reference.optional().describe('Id or name of an image that it begins as; without one it is blank'),
    limits: DiskLimits.optional(),
  }),
  z.strictObject({ volume: VolumeId.describe('A volume on the node of the VM that no VM has') }),
]).meta({ id: 'AddVolume' });
export type AddVolumeBody = z.infer<typeof AddVolumeBody>;

/** The body of PATCH /v1/vms/:id/volumes/:volumeId. */
export const ChangeVolumeBody = z.strictObject({
  sizeGib: z.int().min(1).max(65_536).optional().describe('It can only grow; a running guest sees it at once'),
  limits: DiskLimits.nullable().optional().describe('null takes them off'),
}).refine((body) => Object.values(body).some((value) => value !== undefined), 'must change something').meta({ id: 'ChangeVolume' });

/** The body of POST /v1/vms/:id/rebuild. */
export const RebuildVmBody = z.strictObject({
  keepDays: z.int().min(0).max(3_650).default(7).describe('For how many days the old disk stays as a volume that no VM has; then it is deleted'),
}).meta({ id: 'RebuildVm' });
export type RebuildVmBody = z.infer<typeof RebuildVmBody>;

export const StopVmBody = z.strictObject({
  timeoutSeconds: z.int().min(0).max(3_600).default(60).describe('How long the guest is given to shut down'),
  force: z.boolean().default(false).describe('Cut the power when the time is over, instead of failing. Of a saved VM: give up what it had in memory'),
}).meta({ id: 'StopVm' });

/** The body of POST /v1/vms/:id/publish. */
export const PublishVmBody = z.strictObject({
  ...PublishedImage.shape,
  minMemoryMib: z.int().min(64).max(4_194_304).optional().describe('Default: what the VM has'),
  snapshot: SnapshotId.optional().describe('What its disk held then. Without one, what it holds now: the VM must be stopped'),
}).meta({ id: 'PublishVm' });
export type PublishVmBody = z.infer<typeof PublishVmBody>;

/** The body of POST /v1/vms/:id/snapshots. */
export const TakeSnapshotBody = z.strictObject({
  name: Name.describe('Unique among the snapshots of the VM'),
  description: text(1_000).default(''),
  kind: SnapshotKind.default('external').describe('external: a new file on each disk, running or not. internal: inside of the files of the disks, which must be qcow2; the VM must be stopped. A VM has snapshots of one kind'),
}).meta({ id: 'TakeSnapshot' });
export type TakeSnapshotBody = z.infer<typeof TakeSnapshotBody>;

/** The body of POST /v1/vms/:id/snapshots/:snapshot/clone: a new VM. */
export const CloneVmBody = z.strictObject({
  name: Name.describe('Of the new VM'),
  description: text(1_000).optional().describe('Default: that of the VM that it is made of'),
  network: Reference.optional().describe('Id or name of a network; without it the one that the VM is in'),
  pool: Reference.optional().describe('Id or name of a pool on the node of that VM; without it whichever has room'),
}).meta({ id: 'CloneVm' });
export type CloneVmBody = z.infer<typeof CloneVmBody>;

/** The body of POST /v1/nodes/:id/foreign/:uuid/adopt. */
export const AdoptVmBody = z.strictObject({
  name: Name.optional().describe('Of the VM. Default: the name of the domain'),
  description: text(1_000).default(''),
}).meta({ id: 'AdoptVm' });

const Target = { vmId: VmId, operationId: OperationId };

export const vmCommands = {
  /** From the gateway; references are still names. */
  CreateVm: command('scheduler', 'vmId', z.object({ ...Target, ...CreateVmBody.omit({ count: true, sshKeys: true, bootJobs: true }).shape, bootRuns: z.array(BootRun).max(BOOT_RUNS_MAX).optional() })),
  ChangeVm: command('scheduler', 'vmId', z.object({ ...Target, ...ChangeVmBody.shape })),
  StartVm: command('scheduler', 'vmId', z.object(Target)),
  StopVm: command('scheduler', 'vmId', z.object({ ...Target, timeoutSeconds: z.int(), force: z.boolean() })),
  RebootVm: command('scheduler', 'vmId', z.object(Target)),
  ResetVm: command('scheduler', 'vmId', z.object(Target)),
  PauseVm: command('scheduler', 'vmId', z.object(Target)),
  ResumeVm: command('scheduler', 'vmId', z.object(Target)),
  /** Its memory goes into a file in its pool, its CPUs and memory back to its node; a start goes on from there. */
  SaveVm: command('scheduler', 'vmId', z.object(Target)),
  /** From the gateway; references are still names. */
  ReconfigureVm: command('scheduler', 'vmId', z.object({
    ...Target, name: Name.optional(), vcpus: z.int().optional(), memoryMib: z.int().optional(), diskGib: z.int().optional(), boot: BootOrder.optional(), media: Reference.nullable().optional(), drivers: Reference.nullable().optional(), kernel: KernelWish.nullable().optional(), bootMenu: z.boolean().optional(), expert: Expert.nullable().optional(),
    hostname: Hostname.optional(), cloudInit: CloudInit.optional(), diskLimits: DiskLimits.nullable().optional(), addNic: Reference.optional(), removeNic: text(17).optional(),
    addVolume: z.object({ volumeId: VolumeId, name: Name, sizeGib: z.int(), image: Reference.optional(), limits: DiskLimits.optional() }).optional(),
    attachVolume: VolumeId.optional(), changeVolume: z.object({ volumeId: VolumeId, sizeGib: z.int().optional(), limits: DiskLimits.nullable().optional() }).optional(),
    detachVolume: z.object({ volumeId: VolumeId, delete: z.boolean() }).optional(), rebuild: z.object({ volumeId: VolumeId, keepDays: z.int() }).optional(),
    addBootRun: BootRun.optional(), removeBootRun: BootRunId.optional(), addDevice: AssignedDevice.optional(), removeDevice: DeviceName.optional(),
  })),
  /** Its first disk, or what a snapshot froze of it, becomes an image. */
  PublishVm: command('scheduler', 'vmId', z.object({ ...Target, imageId: ImageId, ...PublishVmBody.shape })),
  TakeSnapshot: command('scheduler', 'vmId', z.object({ ...Target, snapshotId: SnapshotId, ...TakeSnapshotBody.shape })),
  DeleteSnapshot: command('scheduler', 'vmId', z.object({ ...Target, snapshotId: SnapshotId })),
  /** Its disks become what they were at a snapshot. Only while it is stopped. */
  RevertVm: command('scheduler', 'vmId', z.object({ ...Target, snapshotId: SnapshotId })),
  /** From the gateway or a policy; the target is still a name, or the only one. */
  BackupVm: command('scheduler', 'vmId', z.object({ ...Target, backupId: BackupId, target: Reference.optional(), wants: BackupWish, scheduled: BackupSlot.nullable() })),
  /** A new VM of a backup; references are still names. */
  RestoreBackup: command('scheduler', 'vmId', z.object({ ...Target, backupId: BackupId, ...RestoreBackupBody.shape, drill: z.boolean(), proof: DrillWish.optional() })),
  /** A new VM, which is another one, of what a snapshot of this one holds; references are still names. */
  CloneVm: command('scheduler', 'vmId', z.object({ ...Target, ofVm: VmId, snapshotId: SnapshotId, ...CloneVmBody.shape })),
  /** From sagas: nothing changes. Facts: the `layers` that hold what the snapshot froze of these disks, in their order. With `layers`: refused when it is not those any more. */
  FindSnapshotDisks: command('scheduler', 'vmId', z.object({ vmId: VmId, snapshotId: SnapshotId, volumes: z.array(VolumeId).min(1).max(24), layers: z.array(Layer).max(24).optional() })),
  /** From the next time that somebody looks at its screen. null: nobody is asked for one. */
  SetScreenPassword: command('scheduler', 'vmId', z.object({ ...Target, password: ScreenPassword.nullable() })),
  AskGuest: command('scheduler', 'vmId', z.object({ ...Target, request: GuestRequest })),
  DeleteVm: command('scheduler', 'vmId', z.object({ ...Target, force: z.boolean(), deleteDisks: z.boolean().optional() })),
  /** The domain is brought back to what it should be, and into the state that is wanted. */
  RestoreVm: command('scheduler', 'vmId', z.object(Target)),
  /** From reconcilers: take back what is owed. */
  CleanUpVm: command('scheduler', 'vmId', z.object(Target)),

  /** From the gateway: a domain that somebody else made on a node. */
  AdoptVm: command('scheduler', 'vmId', z.object({ ...Target, nodeId: NodeId, uuid: z.guid(), name: Name.optional(), description: text(1_000) })),
  /** From AdoptVm's handler, with what the node found. */
  RequestAdoption: command('scheduler', 'vmId', z.object({ ...Target, spec: VmSpec, nodeId: NodeId, poolId: PoolId, layout: AdoptedLayout, state: z.enum(['running', 'paused', 'stopped']) })),
  /** From CreateVm's handler, once names have become ids and a node was seen to be possible. */
  RequestVm: command('scheduler', 'vmId', z.object({ ...Target, ...RequestedVm.shape })),
  /** From ReconfigureVm's handler. */
  RequestReconfiguration: command('scheduler', 'vmId', z.object({ ...Target, change: Reconfiguration })),
  /** From BackupVm's handler. */
  RequestBackup: command('scheduler', 'vmId', z.object({ ...Target, backupId: BackupId, target: BackupTarget, wants: BackupWish, scheduled: BackupSlot.nullable() })),
  /** From sagas. */
  AssignVm: command('scheduler', 'vmId', z.object({ ...Target, nodeId: NodeId, poolId: PoolId, decision: Json })),
  FinishVm: command('scheduler', 'vmId', z.object({
    ...Target, how: text(200), provisioned: Provisioned.nullable(), reconfigured: z.object({ nic: Nic.nullable(), volume: AttachedVolume.nullable(), pending: z.array(Pending) }).nullable(),
    /** Of a snapshot that was taken. */
    frozen: z.boolean().optional(),
    /** Of one that was adopted. */
    definition: text(DEFINITION_MAX).optional(),
    /** Interfaces beside the first that it was made with. */
    nics: z.array(Nic).max(15).optional(),
    /** Of a drill whose machine came up. */
    proven: text(300).optional(),
    observed: z.object({ nodeId: NodeId, session: z.int(), sequence: z.int(), generation: z.int(), state: DomainState, reason: text(100) }).nullable(),
  })),
  FailVm: command('scheduler', 'vmId', z.object({ ...Target, refused: text(100), because: Json, owed: z.array(text(100)), nic: Nic.optional() })),
  FinishDeleteVm: command('scheduler', 'vmId', z.object(Target)),
  /** Only ever rehearsed, since it changes nothing: facts say the domain as it should be, or would be with a change of what it is itself (`plan`, of DomainPlan). */
  PlanVm: command('scheduler', 'vmId', z.object({ vmId: VmId, change: Reconfiguration.optional() })),
  /** From reports: so much of the disks is made that it gets of a backup. */
  RecordRestoreProgress: command('scheduler', 'vmId', z.object({ vmId: VmId, nodeId: NodeId, percent: z.int().min(0).max(100) })),
  /** From the scheduler, when something is due. Milliseconds since the epoch; seconds. */
  AdvanceExpiry: command('scheduler', 'vmId', z.object({ ...Target, now: z.int(), graceSeconds: z.int(), keepSeconds: z.int() })),
  /** From reports. */
  RecordBootJob: command('scheduler', 'vmId', z.object({ vmId: VmId, nodeId: NodeId, ...BootResult.shape })),
  RecordDomainState: command('scheduler', 'vmId', z.object({ vmId: VmId, nodeId: NodeId, session: z.int(), sequence: z.int(), generation: z.int(), state: DomainState, reason: text(100), again: z.boolean().optional() })),
} as const;
export type VmCommand = CommandOf<typeof vmCommands>;
