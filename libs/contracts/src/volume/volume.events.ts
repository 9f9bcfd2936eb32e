import { z } from 'zod';
import { event, type EventOf } from '../event.ts';
import { DriftId, ImageId, NodeId, OperationId, PoolId, SnapshotId, VmId, VolumeId } from '../ids.ts';
import { ImageFile, PublishedImage } from '../image/image.events.ts';
import { Json, Name, text } from '../text.ts';

/** What a guest may do with a disk in a second, reads and writes together; what is left out is not limited. */
export const DiskLimits = z.strictObject({
  iops: z.int().min(1).max(10_000_000).optional().describe('Reads and writes in a second'),
  bytesPerSecond: z.int().min(65_536).max(1_000_000_000_000).optional().describe('Bytes read and written in a second'),
}).meta({ id: 'DiskLimits' });
export type DiskLimits = z.infer<typeof DiskLimits>;

/** For how long a volume is kept that nobody asked for by name. */
export const KeptVolume = z.object({ name: Name, deleteAt: z.iso.datetime() });
export type KeptVolume = z.infer<typeof KeptVolume>;

/** As what a volume's bytes lie in its pool. */
export const VolumeFormat = z.enum(['qcow2', 'raw']);
export type VolumeFormat = z.infer<typeof VolumeFormat>;

/** The name of a file in the folder of a pool. */
export const PoolFileName = z.string().regex(/^(?!\.{1,2}$)[^/\0]{1,255}$/, 'must be the name of a file');

/** What a volume begins as. All but `blank` and `found` are copied: the volume stands alone. */
export const VolumeSource = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('blank') }),
  z.object({ kind: z.literal('image'), imageId: ImageId, file: ImageFile, format: VolumeFormat }),
  /** Bytes that were fetched into the store for it. */
  z.object({ kind: z.literal('content'), file: ImageFile, format: VolumeFormat }),
  z.object({ kind: z.literal('volume'), volumeId: VolumeId }),
  /** A file in the pool that was nobody's: it becomes the volume's, and that again should it not come to that. */
  z.object({ kind: z.literal('found'), driftId: DriftId, file: PoolFileName }),
  z.object({ kind: z.literal('snapshot'), vmId: VmId, snapshotId: SnapshotId, volumeId: VolumeId }),
]);
export type VolumeSource = z.infer<typeof VolumeSource>;

/** What is done with the bytes of a volume that no VM has. What it holds stays the same, except that `wipe` leaves zeroes; `publish` makes an image of it. */
export const VolumeWork = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('convert'), format: VolumeFormat }),
  z.object({ kind: z.literal('sparsify'), compress: z.boolean() }),
  z.object({ kind: z.literal('wipe') }),
  z.object({ kind: z.literal('publish'), imageId: ImageId, image: PublishedImage }),
]);
export type VolumeWork = z.infer<typeof VolumeWork>;

const Place = { volumeId: VolumeId, poolId: PoolId, nodeId: NodeId, sizeGib: z.int().min(1), format: VolumeFormat };
const Failure = { operationId: OperationId, volumeId: VolumeId, refused: text(100), because: Json, owed: z.array(text(100)) };

export const volumeEvents = {
  /** Made for a VM, and attached to it. Without a name: the disk that a VM was made with. */
  VolumeCreated: event(z.object({ volumeId: VolumeId, vmId: VmId, poolId: PoolId, nodeId: NodeId, imageId: ImageId.nullable(), sizeGib: z.int().min(1), name: Name.optional() })),
  /** One of its own, for no VM. Its bytes are still to be made, by the node that is named. */
  VolumeRequested: event(z.object({ operationId: OperationId, name: Name, ...Place, source: VolumeSource })),
  VolumeReady: event(z.object({ operationId: OperationId, volumeId: VolumeId })),
  /** It was not made, and never will be. What is owed a silent node still has to take back. */
  VolumeFailed: event(z.object(Failure)),
  /** It is being copied: until that has ended nobody else has it. */
  VolumeHeld: event(z.object({ operationId: OperationId, volumeId: VolumeId })),
  VolumeLetGo: event(z.object({ operationId: OperationId, volumeId: VolumeId })),
  VolumeWorkRequested: event(z.object({ operationId: OperationId, ...Place, work: VolumeWork })),
  VolumeWorked: event(z.object({ operationId: OperationId, volumeId: VolumeId, format: VolumeFormat })),
  /** It is as it was; with something owed it is dirty until its node has seen to it. */
  VolumeWorkFailed: event(z.object(Failure)),
  /** What was owed is taken back. */
  VolumeSettled: event(z.object({ operationId: OperationId, volumeId: VolumeId })),
  /** Its node did not answer for a day; it is tried again. */
  VolumeSettleFailed: event(z.object({ operationId: OperationId, volumeId: VolumeId })),
  VolumeResized: event(z.object({ volumeId: VolumeId, vmId: VmId, sizeGib: z.int().min(1) })),
  VolumeAttached: event(z.object({ volumeId: VolumeId, vmId: VmId })),
  /** `kept`: it is deleted at that time, unless a VM has it by then. */
  VolumeDetached: event(z.object({ volumeId: VolumeId, vmId: VmId, kept: KeptVolume.optional() })),
  /** Nobody uses it and nobody may any more: its bytes go, then its space, then it is deleted. */
  VolumeDeleteStarted: event(z.object({ operationId: OperationId, volumeId: VolumeId, poolId: PoolId, nodeId: NodeId, /** It was to be made of this file, and was not: should the file be the volume's, it becomes that again. */ found: PoolFileName.optional() })),
  /** Its node did not answer for a day. It can be asked for again. */
  VolumeDeleteAbandoned: event(z.object({ operationId: OperationId, volumeId: VolumeId })),
  VolumeDeleted: event(z.object({ volumeId: VolumeId, vmId: VmId.nullable() })),
} as const;
export type VolumeEvent = EventOf<typeof volumeEvents>;
