import { z } from 'zod';
import { event, type EventOf } from '../event.ts';
import { ImageId } from '../ids.ts';
import { Name } from '../text.ts';

export const ImageFile = z.string().regex(/^[a-zA-Z0-9][a-zA-Z0-9._-]{0,200}$/, 'must be a bare file name');

/** What an image is. Sizes in bytes, GiB and MiB as named. */
export const ImageDescription = z.object({
  imageId: ImageId,
  name: Name,
  /** A bare file name in every node's image folder, never a path. */
  file: ImageFile,
  /** `iso`: a medium for a drive, not a disk. */
  format: z.enum(['qcow2', 'raw', 'iso']),
  sha256: z.string().regex(/^[0-9a-f]{64}$/),
  sizeBytes: z.int().min(1),
  minDiskGib: z.int().min(1),
  minMemoryMib: z.int().min(64),
});

export const imageEvents = {
  ImageRegistered: event(ImageDescription),
  ImageDeleted: event(z.object({ imageId: ImageId })),
} as const;
export type ImageEvent = EventOf<typeof imageEvents>;
