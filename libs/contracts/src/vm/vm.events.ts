import { z } from 'zod';
import { BackupSlot, BackupTarget, BackupWish, Proof } from '../backup/backup.ts';
import { event, type EventOf } from '../event.ts';
import { BackupId, BackupPolicyId, BackupTargetId, BootRunId, ImageId, NetworkId, NodeId, OperationId, PoolId, SnapshotId, SubnetId, VmId, VolumeId } from '../ids.ts';
import { BootResult, BootRun, BOOT_RUNS_MAX } from '../boot-job/boot-job.ts';
import { ImageFile, PublishedImage } from '../image/image.events.ts';
import { NetworkPlan } from '../network/network.events.ts';
import { Json, Name, text } from '../text.ts';
import { DiskLimits, KeptVolume } from '../volume/volume.events.ts';
import { ASSIGNED_MAX, AssignedDevice, DeviceName } from './assigned.ts';
import { CloudInit, Hostname } from './cloud-init.ts';
import { Expert } from './expert.ts';
import { GuestRequest, ScreenPassword } from './guest.ts';
import { Layer, Snapshot } from './snapshot.ts';

/** What the first shape of VmRequested held. */
const VmSpec1 = z.object({
  name: Name,
  description: text(1_000),
  imageId: ImageId,
  networkId: NetworkId,
  subnetId: SubnetId,
  vcpus: z.int().min(1).max(256),
  memoryMib: z.int().min(64).max(4_194_304),
  diskGib: z.int().min(1).max(65_536),
  /** 'require-kvm' refuses nodes that emulate. */
  accel: z.enum(['any', 'require-kvm']),
  /** Devices the guest sees; 'legacy' is for systems without virtio drivers. */
  devices: z.enum(['virtio', 'legacy']),
  /** A node chosen by hand, else null. */
  nodeId: NodeId.nullable(),
  tags: z.array(text(64)).max(50),
  protected: z.boolean(),
});

/** From where a VM starts, the first that has something to start. */
export const BootDevice = z.enum(['disk', 'cdrom', 'network']);
export type BootDevice = z.infer<typeof BootDevice>;
export const BootOrder = z.array(BootDevice).min(1).max(3).refine((order) => new Set(order).size === order.length, 'must name each device once');

/** What the machine is like because of the system inside. Left out, it is a Linux that starts by BIOS. */
export const Platform = z.object({
  /** A Windows is shown the node's local time, and what makes it run well on KVM; all others UTC. */
  osFamily: z.enum(['linux', 'windows', 'other']).optional(),
  /** 'uefi-secure' starts only what is signed. */
  firmware: z.enum(['bios', 'uefi', 'uefi-secure']).optional(),
  /** A TPM 2.0 of its own, made in software by its node. */
  tpm: z.boolean().optional(),
});
export type Platform = z.infer<typeof Platform>;

/** Of something larger; only what is said. */
export const platformOf = ({ osFamily, firmware, tpm }: Platform): Platform =>
  ({ ...(osFamily === undefined ? {} : { osFamily }), ...(firmware === undefined ? {} : { firmware }), ...(tpm === undefined ? {} : { tpm }) });

/** A medium in the drive. `fetchBytes`: what its node has to fetch for it, unless it has it already. */
export const Media = z.object({ imageId: ImageId, file: ImageFile, fetchBytes: z.int().min(1).optional() });
export type Media = z.infer<typeof Media>;

/** As long as Linux takes it on x86 (COMMAND_LINE_SIZE), in characters that anything can show. It is words for the guest's kernel: nothing in it names a file of the node. */
export const KernelArguments = z.string().regex(/^[\x20-\x7e]*$/, 'must be printable ASCII').max(2_047);
/** What it is started with, instead of by its firmware from something in its boot order. */
export const Kernel = z.object({ ...Media.shape, initrd: Media.nullable(), arguments: KernelArguments });
export type Kernel = z.infer<typeof Kernel>;

/** Started again when its node has lost it: in the order of numbers, each so long after the one before it was started. */
export const Autostart = z.strictObject({ order: z.int().min(0).max(10_000).default(100).describe('The lowest is started first'), delaySeconds: z.int().min(0).max(3_600).default(0).describe('After the one before it was started') }).meta({ id: 'Autostart' });
export type Autostart = z.infer<typeof Autostart>;

/** What a user decides about a machine. Memory in MiB, disk in GiB. */
export const VmSpec = z.object({
  ...VmSpec1.shape,
  /** null: of a VM that was adopted with interfaces of its own. */
  networkId: NetworkId.nullable(),
  subnetId: SubnetId.nullable(),
  /** null: the disk begins blank. */
  imageId: ImageId.nullable(),
  /** As far as CPUs and memory can be added while it runs. */
  vcpusMax: z.int().min(1).max(256),
  memoryMibMax: z.int().min(64).max(4_194_304),
  boot: BootOrder,
  media: Media.nullable(),
  /** What lies in its second drive, of drivers that its system does not come with; null: nothing. Left out, it has no such drive, unless it is a Windows. */
  drivers: Media.nullable().optional(),
  kernel: Kernel.nullable().optional(),
  /** Its firmware waits for a person to choose from what it starts. */
  bootMenu: z.boolean().optional(),
  cloudInit: CloudInit.nullable(),
  ...Platform.shape,
  /** Its first disk is a copy of the image that stands alone; without, one that stands on the image. */
  clone: z.literal('full').optional(),
  /** It is made of another machine's disk: cloud-init makes somebody else of it. */
  newIdentity: z.literal(true).optional(),
  /** Of the disk it was made with. */
  diskLimits: DiskLimits.nullable(),
  /** A pool chosen by hand. */
  poolId: PoolId.optional(),
  /** When it is wanted no more. */
  expiresAt: z.iso.datetime().nullable().optional(),
  /** null: it stays as it was found. */
  autostart: Autostart.nullable().optional(),
  /** null: the devices that every machine has. */
  expert: Expert.nullable().optional(),
  assigned: z.array(AssignedDevice).max(ASSIGNED_MAX).optional(),
});
export type VmSpec = z.infer<typeof VmSpec>;

/** A network interface beside the first. */
export const Nic = z.object({ network: NetworkPlan, address: z.ipv4(), mac: z.string().regex(/^([0-9a-f]{2}:){5}[0-9a-f]{2}$/) });
export type Nic = z.infer<typeof Nic>;

/** What is built once and needed at every start: where the disk is, which address and MAC it has. */
export const Provisioned = z.object({
  poolId: PoolId,
  volumeId: VolumeId,
  /** null: a VM that was adopted keeps interfaces of which nobody knows the address. */
  address: z.ipv4().nullable(),
  prefix: z.int().min(0).max(32).nullable(),
  mac: z.string().regex(/^([0-9a-f]{2}:){5}[0-9a-f]{2}$/).nullable(),
});
export type Provisioned = z.infer<typeof Provisioned>;

/** A disk beside the first. `unit` is its place: the guest's vdb is 1. Size in GiB. Without a pool it is in that of the first. */
export const AttachedVolume = z.object({ volumeId: VolumeId, unit: z.int().min(1).max(23), sizeGib: z.int().min(1), limits: DiskLimits.nullable(), poolId: PoolId.optional() });
export type AttachedVolume = z.infer<typeof AttachedVolume>;

/** The XML of a domain of many devices has some 20,000 characters. */
export const DEFINITION_MAX = 65_536;

/** How a machine that somebody else made is built: it keeps its own XML, in which its disks and interfaces are found by this. */
export const AdoptedLayout = z.object({
  disks: z.array(z.object({ volumeId: VolumeId, target: z.string().regex(/^[a-z]{2,4}$/), file: text(1_000), unit: z.int().min(0).max(23), sizeGib: z.int().min(1) })).min(1).max(24),
  macs: z.array(z.string().regex(/^([0-9a-f]{2}:){5}[0-9a-f]{2}$/)).max(16),
  /** Its drive for media (null: it has none) and what lies in that, until a medium of ours does. Left out: it was adopted by an agent that did not look. */
  drive: z.object({ target: text(20).nullable(), file: text(1_000).nullable() }).optional(),
  /** What it was defined as when it was adopted, without secrets. */
  definition: text(DEFINITION_MAX).optional(),
});
export type AdoptedLayout = z.infer<typeof AdoptedLayout>;

/** What a machine can have changed, each name resolved. What is left out stays. */
export const Reconfiguration = z.object({
  name: Name.optional(),
  vcpus: z.int().min(1).max(256).optional(),
  memoryMib: z.int().min(64).max(4_194_304).optional(),
  diskGib: z.int().min(1).max(65_536).optional(),
  boot: BootOrder.optional(),
  media: Media.nullable().optional(),
  drivers: Media.nullable().optional(),
  kernel: Kernel.nullable().optional(),
  bootMenu: z.boolean().optional(),
  expert: Expert.nullable().optional(),
  /** What the guest calls itself. */
  hostname: Hostname.optional(),
  /** What the guest is told anew: it begins as a new instance at its next start. */
  cloudInit: CloudInit.optional(),
  diskLimits: DiskLimits.nullable().optional(),
  /** A new disk, blank or over an image. */
  addVolume: z.object({ volumeId: VolumeId, name: Name, unit: z.int().min(1).max(23), sizeGib: z.int().min(1), image: z.object({ imageId: ImageId, file: ImageFile, format: z.enum(['qcow2', 'raw']), fetchBytes: z.int().min(1).optional() }).nullable(), limits: DiskLimits.nullable() }).optional(),
  /** One that no VM has. */
  attachVolume: z.object({ volumeId: VolumeId, unit: z.int().min(1).max(23) }).optional(),
  changeVolume: z.object({ volumeId: VolumeId, sizeGib: z.int().min(1).optional(), limits: DiskLimits.nullable().optional() }).optional(),
  detachVolume: z.object({ volumeId: VolumeId, delete: z.boolean() }).optional(),
  /** The disk it was made with, made anew from its image as this volume; the old one becomes a volume of that name that no VM has, deleted at that time. */
  rebuild: z.object({ volumeId: VolumeId, kept: KeptVolume }).optional(),
  /** A second, third, … interface; at most one in each network. */
  addNic: NetworkPlan.optional(),
  removeNic: z.string().regex(/^([0-9a-f]{2}:){5}[0-9a-f]{2}$/).optional(),
  addDevice: AssignedDevice.optional(),
  removeDevice: DeviceName.optional(),
  /** At its next boot. */
  addBootRun: BootRun.optional(),
  /** It is not to be run after all. */
  removeBootRun: BootRunId.optional(),
  /** Nothing is wanted but that the domain is as it should be, whatever was done to it by hand; also its state. */
  restore: z.enum(['running', 'paused', 'stopped']).optional(),
});
export type Reconfiguration = z.infer<typeof Reconfiguration>;

/** What of a running machine differs from what it should be until it is stopped and started. */
export const Pending = z.enum(['vcpus', 'memoryMib', 'boot', 'hostname', 'cloudInit', 'expert', 'devices']);
export type Pending = z.infer<typeof Pending>;

/** What a node says of a domain. 'saved': it does not run, and its memory lies in a file from which a start goes on. 'absent': the node has no such domain. */
export const DomainState = z.enum(['running', 'paused', 'stopped', 'saved', 'crashed', 'absent']);
export type DomainState = z.infer<typeof DomainState>;

export const PowerAction = z.enum(['start', 'stop', 'reboot', 'reset', 'pause', 'resume', 'save']);
export type PowerAction = z.infer<typeof PowerAction>;

/** What a machine's disks begin as when they are those of a backup. */
export const Restore = z.object({
  backupId: BackupId,
  /** The VM that it is of. */
  ofVm: VmId,
  targetId: BackupTargetId,
  /** Of a full backup and all that were built on it up to the one that is meant, in that order: the files, by the place of their disk. */
  chain: z.array(z.object({ backupId: BackupId, files: z.array(z.object({ unit: z.int().min(0).max(23), bytes: z.int().min(1), sha256: z.string().regex(/^[0-9a-f]{64}$/) })).min(1).max(24) })).min(1).max(64),
  /** Disks beside the first. */
  volumes: z.array(AttachedVolume).max(23),
  /** Of a machine that was adopted: what it was defined as, with the new disks in their places. */
  layout: AdoptedLayout.optional(),
  /** Networks of interfaces beside the first, and the names of those that are gone: such interfaces are left out. */
  nics: z.array(NetworkPlan).max(15).optional(),
  without: z.array(text(100)).max(15).optional(),
  /** Only to see whether it runs: it gets no way to any network, and goes when that is known. */
  drill: z.boolean(),
  /** Of a drill: what shows that it came up, when it was asked for, and by which policy. */
  proof: Proof.extend({ since: z.iso.datetime(), policyId: BackupPolicyId.optional() }).optional(),
});
export type Restore = z.infer<typeof Restore>;

/** What the disks of a VM begin as when it is made of a snapshot of another: copies of what that froze, on the node where they lie. */
export const Copy = z.object({
  ofVm: VmId,
  snapshotId: SnapshotId,
  nodeId: NodeId,
  /** What the first disk is a copy of, then the others, in the order of `volumes`. */
  from: z.array(VolumeId).min(1).max(24),
  ...Restore.pick({ volumes: true, layout: true, nics: true, without: true }).shape,
});
export type Copy = z.infer<typeof Copy>;

/** A machine as it was asked for, every name resolved into what it meant at that moment. */
export const RequestedVm = z.object({ spec: VmSpec, imageFile: ImageFile.nullable(), imageFormat: z.enum(['qcow2', 'raw']), network: NetworkPlan,
  /** What its disks begin as, when they are those of a backup. */
  restore: Restore.optional(),
  /** What they begin as, when they are those of a snapshot. */
  copy: Copy.optional(),
  /** What it runs at its first boot. */
  bootRuns: z.array(BootRun).max(BOOT_RUNS_MAX).optional(),
  /** Of an image that its node has to fetch, unless it has it already. */
  fetchBytes: z.int().min(1).optional(),
});

const Operation = { operationId: OperationId };

export const vmEvents = {
  VmRequested: event(z.object({ ...Operation, vmId: VmId, spec: VmSpec1, imageFile: ImageFile, imageFormat: z.enum(['qcow2', 'raw']), network: NetworkPlan })).revised(
    z.object({ ...Operation, vmId: VmId, ...RequestedVm.shape }),
    (older) => ({ ...older, spec: { ...older.spec, vcpusMax: older.spec.vcpus, memoryMibMax: older.spec.memoryMib, boot: ['disk' as const], media: null, cloudInit: null, diskLimits: null } }),
  ),
  /** Only what became different; at any time, also while an operation runs. */
  VmChanged: event(z.object({ description: text(1_000).optional(), tags: z.array(text(64)).max(50).optional(), protected: z.boolean().optional(), /** null: never. */ expiresAt: z.iso.datetime().nullable().optional(), autostart: Autostart.nullable().optional() })),
  /** It expires within a week, or a day: whoever has it may want to say until when. */
  VmExpiryNoticed: event(z.object({ stage: z.enum(['week', 'day']), expiresAt: z.iso.datetime() })),
  /** Its time is over: it is stopped, and not started any more. */
  VmExpired: event(z.object({ expiresAt: z.iso.datetime(), recycleAt: z.iso.datetime() })),
  /** Nobody has said otherwise: it is in the recycle bin, and deleted then. */
  VmRecycled: event(z.object({ purgeAt: z.iso.datetime() })),
  /** A node was chosen and has set its capacity aside. Only this raises the generation. */
  VmPlaced: event(z.object({ ...Operation, nodeId: NodeId, poolId: PoolId, generation: z.int().min(1), decision: Json })),
  VmProvisioned: event(z.object({ ...Operation, provisioned: Provisioned, /** Interfaces beside the first that it was made with. */ nics: z.array(Nic).max(15).optional(), /** Of one that was adopted: what it is defined as, without secrets. */ definition: text(DEFINITION_MAX).optional() })),
  VmPowerRequested: event(z.object({
    ...Operation, action: PowerAction,
    /** Graceful stops: seconds the guest is given. */
    timeoutSeconds: z.int().min(0).max(3_600), force: z.boolean(),
  })),
  VmReconfigureRequested: event(z.object({ ...Operation, change: Reconfiguration })),
  /** It is so now, except for what is pending. `nic` has the address that was leased for the new interface, `volume` is the disk that came. */
  VmReconfigured: event(z.object({ ...Operation, change: Reconfiguration, nic: Nic.nullable(), volume: AttachedVolume.nullable(), pending: z.array(Pending) })),
  /** Whoever looks at its screen is asked for it; at any time, also while an operation runs. */
  VmScreenPasswordSet: event(z.object({ password: ScreenPassword.nullable() })),
  /** So much of its disks is made of a backup; said now and then, and only upwards. */
  VmRestoreProgressed: event(z.object({ ...Operation, percent: z.int().min(1).max(99) })),
  /** What its guest said of a script that it was to run at a boot. */
  VmBootJobEnded: event(BootResult),
  /** Something is asked of the running guest. A password in it is sealed to its node. */
  VmGuestRequested: event(z.object({ ...Operation, request: GuestRequest })),
  /** What its first disk holds, or held in a snapshot, becomes an image. */
  VmPublishRequested: event(z.object({ ...Operation, imageId: ImageId, volumeId: VolumeId, layer: Layer, sizeGib: z.int().min(1), image: PublishedImage })),
  /** `layer` is what the guest is to write from then on. null: the snapshot is an internal one. */
  VmSnapshotRequested: event(z.object({ ...Operation, snapshotId: SnapshotId, name: Name, description: text(1_000), layer: Layer })),
  VmSnapshotTaken: event(z.object({ ...Operation, snapshot: Snapshot, layer: Layer })),
  VmSnapshotDeleteRequested: event(z.object({ ...Operation, snapshotId: SnapshotId })),
  /** Its layers are merged or gone, as far as nothing else stands on them. */
  VmSnapshotDeleted: event(z.object({ ...Operation, snapshotId: SnapshotId })),
  VmRevertRequested: event(z.object({ ...Operation, snapshotId: SnapshotId, layer: Layer })),
  /** The disks are as they were then; the operation goes on until what was written since is taken away. */
  VmReverted: event(z.object({ ...Operation, snapshotId: SnapshotId, layer: Layer })),
  /** Layers that nothing needs any more are merged or gone. */
  VmLayersTidied: event(z.object(Operation)),
  /** A domain that somebody else made on a node is to become this VM, as it is and while it runs. */
  VmAdoptRequested: event(z.object({ ...Operation, vmId: VmId, spec: VmSpec, nodeId: NodeId, poolId: PoolId, generation: z.int().min(1), layout: AdoptedLayout, state: z.enum(['running', 'paused', 'stopped']) })),
  /** It did not become one: whatever there is of it is nobody's again, and was not touched. */
  VmReleased: event(z.object(Operation)),
  /** Its disks are to be copied to a target. */
  VmBackupRequested: event(z.object({ ...Operation, backupId: BackupId, target: BackupTarget, wants: BackupWish, scheduled: BackupSlot.nullable() })),
  /** The machine of a drill came up, or did not, or could not be made; it is taken away now. `verdict` false: nothing is known of the backup. */
  VmDrilled: event(z.object({ ...Operation, passed: z.boolean(), verdict: z.boolean(), how: text(300), refused: text(100).nullable(), because: Json })),
  VmOperationDone: event(z.object({ ...Operation, how: text(200) })),
  /** `nic`: an interface that was added and is owed. */
  VmOperationFailed: event(z.object({ ...Operation, refused: text(100), because: Json, owed: z.array(text(100)), nic: Nic.optional() })),
  /** A delete was accepted while another operation ran: that one is cancelled first. */
  VmDeleteRequested: event(z.object({ ...Operation, force: z.boolean(), cancels: OperationId.nullable(), /** Its other disks go with it; without, they stay. */ deleteDisks: z.boolean().optional() })),
  VmDeleteStarted: event(z.object(Operation)),
  /** What a failed operation left behind on a node that was silent is taken back now. */
  VmCleanUpStarted: event(z.object(Operation)),
  VmDeleted: event(z.object(Operation)),
  /** What a node saw, with the node's own counters; never what we want. */
  VmObserved: event(z.object({ nodeId: NodeId, session: z.int(), sequence: z.int(), generation: z.int(), state: DomainState, reason: text(100) })),
} as const;
export type VmEvent = EventOf<typeof vmEvents>;
