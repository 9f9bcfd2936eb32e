import { z } from 'zod';
import { command, type CommandOf } from '../command.ts';
import { ImageId } from '../ids.ts';
import { ImageDescription } from './image.events.ts';

/** The body of POST /v1/images. */
export const RegisterImageBody = z.strictObject({
  ...ImageDescription.omit({ imageId: true }).shape,
  minDiskGib: z.int().min(1).max(65_536).default(1),
  minMemoryMib: z.int().min(64).max(4_194_304).default(64),
}).meta({ id: 'RegisterImage' });

export const imageCommands = {
  RegisterImage: command('storage', 'imageId', ImageDescription),
  DeleteImage: command('storage', 'imageId', z.object({ imageId: ImageId })),
} as const;
export type ImageCommand = CommandOf<typeof imageCommands>;
