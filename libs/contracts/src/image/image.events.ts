import { z } from 'zod';
import { event, type EventOf } from '../event.ts';
import { ImageId, NodeId, OperationId, PoolId, UploadId, VmId, VolumeId } from '../ids.ts';
import { Json, Name, text } from '../text.ts';

export const ImageFile = z.string().regex(/^[a-zA-Z0-9][a-zA-Z0-9._-]{0,200}$/, 'must be a bare file name');

/** SHA-256 of an image's bytes, hexadecimal. */
export const Sha256 = z.string().regex(/^[0-9a-f]{64}$/);

/** qcow2 and raw are disks, iso a medium for a drive; kernel and initrd are what a machine is started with without any of them. */
export const ImageFormat = z.enum(['qcow2', 'raw', 'iso', 'kernel', 'initrd']);
export type ImageFormat = z.infer<typeof ImageFormat>;
export const isDiskFormat = (format: ImageFormat): format is 'qcow2' | 'raw' => format === 'qcow2' || format === 'raw';

/** The refusal of an image that is no disk, where one is wanted. `field`: of the request. */
export const notADisk = ({ name, format }: { readonly name: string; readonly format: ImageFormat }, field?: string): { readonly refused: string; readonly because: Readonly<Record<string, string>> } =>
  ({ refused: format === 'iso' ? 'image.is_a_medium' : 'image.other_format', because: { image: name, format, wanted: 'qcow2 or raw', ...(field === undefined ? {} : { field }) } });

/** What is said of an image, for people and for those who make VMs of it. What is left out is not known. */
export const ImageMetadata = z.object({
  description: text(1_000).optional(),
  osFamily: z.enum(['linux', 'windows', 'other']).optional().describe('What a VM of it is taken for, unless it is said there'),
  drivers: text(100).min(1).optional().describe('Id or name of an image of format iso: what a VM of it finds in its second drive, unless it is said there'),
  osVersion: text(100).optional().describe('Such as debian 12'),
  arch: z.enum(['x86_64', 'aarch64']).optional(),
  features: z.array(text(64).min(1)).max(50).optional().describe('What is in it, such as cloud-init or qemu-guest-agent'),
  tags: z.array(text(64).min(1)).max(50).optional(),
  family: Name.optional().describe('What it is a version of: a VM that names the family gets the current version, which is the newest unless another one was chosen'),
  version: text(100).min(1).optional(),
});
export type ImageMetadata = z.infer<typeof ImageMetadata>;

/** What an image is. Sizes in bytes, GiB and MiB as named. */
export const ImageDescription = z.object({
  imageId: ImageId,
  name: Name,
  /** A bare file name in every node's image folder, never a path. */
  file: ImageFile,
  format: ImageFormat,
  sha256: Sha256,
  sizeBytes: z.int().min(1),
  minDiskGib: z.int().min(1),
  minMemoryMib: z.int().min(64),
  /** What its disks begin as large as. */
  virtualBytes: z.int().min(1).optional(),
  /** It is a copy of this machine's disk, which was somebody: who is made of it gets an identity of its own. */
  copiedFrom: VmId.optional(),
  ...ImageMetadata.shape,
});

/** What is said of an image that is made of a machine. */
export const PublishedImage = z.object({ name: Name, minMemoryMib: z.int().min(64), ...ImageMetadata.shape });
export type PublishedImage = z.infer<typeof PublishedImage>;

/** The file of an image that lies in the control plane's store: its name says what must be in it, so a node can fetch and check it by that alone. */
export const storedFile = (sha256: string, format: ImageFormat): string => `${sha256}.${format}`;

/** What a file's name says of its content; undefined for a file that somebody put into the folders of the nodes. */
export const contentOf = (file: string): string | undefined => /^([0-9a-f]{64})\.(qcow2|raw|iso|kernel|initrd)$/.exec(file)?.[1];

/** Somebody fetches the bytes of an image. Told once an hour for each who does; who it was stands in meta. */
export const imageAccessEvents = {
  ImageDownloaded: event(z.object({ imageId: ImageId })),
} as const;
export type ImageAccessEvent = EventOf<typeof imageAccessEvents>;

export const imageEvents = {
  ImageRegistered: event(ImageDescription),
  /** From here on its family means this version. A version that is registered is current at once. */
  ImageMadeCurrent: event(z.object({ imageId: ImageId, family: Name })),
  ImageDeleted: event(z.object({ imageId: ImageId })),
} as const;
export type ImageEvent = EventOf<typeof imageEvents>;

/** What it shall be once its bytes are there. */
export const ImageWish = ImageDescription.omit({ imageId: true, file: true, sizeBytes: true, virtualBytes: true, copiedFrom: true });
export type ImageWish = z.infer<typeof ImageWish>;

/** Where an image's bytes come from. */
export const ImageSource = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('url'), url: z.string().max(2_000) }),
  z.object({ kind: z.literal('upload'), uploadId: UploadId, bytes: z.int().min(1) }),
]);
export type ImageSource = z.infer<typeof ImageSource>;

/** What is to be made of the bytes in place of an image. Size in GiB: as large as what comes, unless it shall be larger. */
export const ImportedVolume = z.object({ volumeId: VolumeId, poolId: PoolId, nodeId: NodeId.nullable(), sizeGib: z.int().min(1).nullable(), format: z.enum(['qcow2', 'raw']) });
export type ImportedVolume = z.infer<typeof ImportedVolume>;

/** Bytes on their way to become an image. It is registered once they are all there and are what they should be; before that there is no image. With `volume` there never is: they are copied into that. */
export const imageImportEvents = {
  ImageImportStarted: event(z.object({ operationId: OperationId, imageId: ImageId, source: ImageSource, image: ImageWish, volume: ImportedVolume.optional() })),
  /** A tenth more has come. */
  ImageImportProgressed: event(z.object({ operationId: OperationId, percent: z.int().min(0).max(100) })),
  ImageImported: event(z.object({ operationId: OperationId, sizeBytes: z.int().min(1), virtualBytes: z.int().min(1) })),
  ImageImportFailed: event(z.object({ operationId: OperationId, refused: text(100), because: Json })),
} as const;
export type ImageImportEvent = EventOf<typeof imageImportEvents>;
