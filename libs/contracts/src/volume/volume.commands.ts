import { z } from 'zod';
import { command, type CommandOf } from '../command.ts';
import { DriftId, ImageId, NodeId, OperationId, PoolId, SnapshotId, VmId, VolumeId } from '../ids.ts';
import { Json, Name, text } from '../text.ts';
import { FetchUrl } from '../image/image.commands.ts';
import { PublishedImage, Sha256 } from '../image/image.events.ts';
import { KeptVolume, VolumeFormat, VolumeSource, VolumeWork } from './volume.events.ts';

const Reference = text(100).min(1);

/** The body of POST /v1/volumes. */
export const CreateVolumeBody = z.strictObject({
  name: Name.describe('Unique among volumes'),
  sizeGib: z.int().min(1).max(65_536).optional().describe('A copy is as large as what it is copied from, unless it shall be larger'),
  format: VolumeFormat.default('qcow2'),
  pool: Reference.optional().describe('Id or name of the pool; without one, that of what is copied, else the one with most room'),
  node: Reference.optional().describe('Id or name of a node that sees the pool; it does the work'),
  from: z.union([
    z.strictObject({ image: Reference.describe('Id or name of an image') }),
    z.strictObject({ url: FetchUrl.describe('Of a qcow2 or raw file; kept in the log: no secrets'), sha256: Sha256, format: VolumeFormat.describe('Of that file') }),
    z.strictObject({ volume: VolumeId.describe('A volume that no VM has') }),
    z.strictObject({ drift: DriftId.describe('A file in a pool that is no volume\'s (GET /v1/drift?class=orphan-disk): not copied, it becomes the volume, as it is and where it lies') }),
    z.strictObject({ vm: VmId, snapshot: SnapshotId, volume: VolumeId.optional().describe('Which of the disks; without it the one that the VM was made with') }),
  ]).optional().describe('What it begins as, copied, unless it says otherwise; without it the volume is blank'),
}).meta({ id: 'CreateVolume' });
export type CreateVolumeBody = z.infer<typeof CreateVolumeBody>;

/** The body of POST /v1/volumes/:id/convert. */
export const ConvertVolumeBody = z.strictObject({ format: VolumeFormat }).meta({ id: 'ConvertVolume' });
/** The body of POST /v1/volumes/:id/sparsify. */
export const SparsifyVolumeBody = z.strictObject({ compress: z.boolean().default(false).describe('Also compress what is kept; qcow2 only') }).meta({ id: 'SparsifyVolume' });
/** The body of POST /v1/volumes/:id/publish. */
export const PublishVolumeBody = z.strictObject({ ...PublishedImage.shape, minMemoryMib: PublishedImage.shape.minMemoryMib.max(4_194_304).default(64) }).meta({ id: 'PublishVolume' });

const OfVm = { volumeId: VolumeId, vmId: VmId };
const InHand = { volumeId: VolumeId, operationId: OperationId };

export const volumeCommands = {
  CreateVolume: command('storage', 'volumeId', z.object({ ...OfVm, poolId: PoolId, nodeId: NodeId, imageId: ImageId.nullable(), sizeGib: z.int().min(1), name: Name.optional() })),
  /** The same for several and their space, when their VM comes with them; what is refused for one is not there for any. */
  CreateVolumes: command('storage', 'vmId', z.object({ vmId: VmId, poolId: PoolId, nodeId: NodeId, volumes: z.array(z.object({ volumeId: VolumeId, sizeGib: z.int().min(1), name: Name.optional() })).min(1).max(24) })),
  DeleteVolumes: command('storage', 'vmId', z.object({ vmId: VmId, poolId: PoolId, volumes: z.array(z.object({ volumeId: VolumeId, name: Name.optional() })).min(1).max(24) })),
  ResizeVolume: command('storage', 'volumeId', z.object({ ...OfVm, sizeGib: z.int().min(1) })),
  /** Refused when another VM has it, or when the VM's node does not see its pool. Facts: `sizeGib`, `poolId`. */
  AttachVolume: command('storage', 'volumeId', z.object({ ...OfVm, nodeId: NodeId })),
  /** Nothing when it is not attached to this VM. With `delete`, the operation that does it, it goes then. */
  DetachVolume: command('storage', 'volumeId', z.object({ ...OfVm, delete: OperationId.nullable(), kept: KeptVolume.optional() })),
  /** The same for several, when their VM goes. */
  DetachVolumes: command('storage', 'vmId', z.object({ vmId: VmId, volumes: z.array(z.object({ volumeId: VolumeId, delete: OperationId.nullable() })).max(32) })),
  /** From the gateway, names resolved: a volume for no VM. */
  RequestVolume: command('storage', 'volumeId', z.object({ ...InHand, name: Name, poolId: PoolId, nodeId: NodeId.nullable(), sizeGib: z.int().min(1).nullable(), format: VolumeFormat, source: VolumeSource })),
  /** From the gateway: something is done to one that no VM has. */
  WorkOnVolume: command('storage', 'volumeId', z.object({ ...InHand, work: VolumeWork })),
  /** From sagas: nobody else has it until it is let go of. */
  HoldVolume: command('storage', 'volumeId', z.object(InHand)),
  LetGoOfVolume: command('storage', 'volumeId', z.object(InHand)),
  FinishVolume: command('storage', 'volumeId', z.object(InHand)),
  FailVolume: command('storage', 'volumeId', z.object({ ...InHand, refused: text(100), because: Json, owed: z.array(text(100)) })),
  /** What the operation left owed is taken back; or was not, in a day. */
  SettleVolume: command('storage', 'volumeId', z.object({ ...InHand, settled: z.boolean() })),
  /** From the gateway: a volume that no VM has. */
  RemoveDetachedVolume: command('storage', 'volumeId', z.object(InHand)),
  AbandonVolumeDelete: command('storage', 'volumeId', z.object(InHand)),
  /** `name`: what it was to be called, should its making have come no further than that. */
  DeleteVolume: command('storage', 'volumeId', z.object({ volumeId: VolumeId, vmId: VmId.nullable(), name: Name.optional() })),
} as const;
export type VolumeCommand = CommandOf<typeof volumeCommands>;
