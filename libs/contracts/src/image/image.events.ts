import { z } from 'zod';
import { event, type EventOf } from '../event.ts';
import { ImageId, OperationId, UploadId } from '../ids.ts';
import { Json, Name, text } from '../text.ts';

export const ImageFile = z.string().regex(/^[a-zA-Z0-9][a-zA-Z0-9._-]{0,200}$/, 'must be a bare file name');

/** SHA-256 of an image's bytes, hexadecimal. */
export const Sha256 = z.string().regex(/^[0-9a-f]{64}$/);

export const ImageFormat = z.enum(['qcow2', 'raw', 'iso']);

/** What is said of an image, for people and for those who make VMs of it. What is left out is not known. */
export const ImageMetadata = z.object({
  description: text(1_000).optional(),
  osFamily: z.enum(['linux', 'windows', 'other']).optional().describe('What a VM of it is taken for, unless it is said there'),
  osVersion: text(100).optional().describe('Such as debian 12'),
  arch: z.enum(['x86_64', 'aarch64']).optional(),
  features: z.array(text(64).min(1)).max(50).optional().describe('What is in it, such as cloud-init or qemu-guest-agent'),
  tags: z.array(text(64).min(1)).max(50).optional(),
});
export type ImageMetadata = z.infer<typeof ImageMetadata>;

/** What an image is. Sizes in bytes, GiB and MiB as named. */
export const ImageDescription = z.object({
  imageId: ImageId,
  name: Name,
  /** A bare file name in every node's image folder, never a path. */
  file: ImageFile,
  /** `iso`: a medium for a drive, not a disk. */
  format: ImageFormat,
  sha256: Sha256,
  sizeBytes: z.int().min(1),
  minDiskGib: z.int().min(1),
  minMemoryMib: z.int().min(64),
  /** What its disks begin as large as. */
  virtualBytes: z.int().min(1).optional(),
  ...ImageMetadata.shape,
});

/** The file of an image that lies in the control plane's store: its name says what must be in it, so a node can fetch and check it by that alone. */
export const storedFile = (sha256: string, format: z.infer<typeof ImageFormat>): string => `${sha256}.${format}`;

/** What a file's name says of its content; undefined for a file that somebody put into the folders of the nodes. */
export const contentOf = (file: string): string | undefined => /^([0-9a-f]{64})\.(qcow2|raw|iso)$/.exec(file)?.[1];

export const imageEvents = {
  ImageRegistered: event(ImageDescription),
  ImageDeleted: event(z.object({ imageId: ImageId })),
} as const;
export type ImageEvent = EventOf<typeof imageEvents>;

/** What it shall be once its bytes are there. */
export const ImageWish = ImageDescription.omit({ imageId: true, file: true, sizeBytes: true, virtualBytes: true });
export type ImageWish = z.infer<typeof ImageWish>;

/** Where an image's bytes come from. */
export const ImageSource = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('url'), url: z.string().max(2_000) }),
  z.object({ kind: z.literal('upload'), uploadId: UploadId, bytes: z.int().min(1) }),
]);
export type ImageSource = z.infer<typeof ImageSource>;

/** Bytes on their way to become an image. It is registered once they are all there and are what they should be; before that there is no image. */
export const imageImportEvents = {
  ImageImportStarted: event(z.object({ operationId: OperationId, imageId: ImageId, source: ImageSource, image: ImageWish })),
  /** A tenth more has come. */
  ImageImportProgressed: event(z.object({ operationId: OperationId, percent: z.int().min(0).max(100) })),
  ImageImported: event(z.object({ operationId: OperationId, sizeBytes: z.int().min(1), virtualBytes: z.int().min(1) })),
  ImageImportFailed: event(z.object({ operationId: OperationId, refused: text(100), because: Json })),
} as const;
export type ImageImportEvent = EventOf<typeof imageImportEvents>;
