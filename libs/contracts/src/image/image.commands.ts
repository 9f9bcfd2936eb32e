import { z } from 'zod';
import { command, type CommandOf } from '../command.ts';
import { ImageId, OperationId } from '../ids.ts';
import { Json, text } from '../text.ts';
import { ImageDescription, ImageSource, ImageWish, ImportedVolume } from './image.events.ts';

const { imageId: _id, file, sizeBytes, virtualBytes: _virtual, copiedFrom: _from, ...Description } = ImageDescription.shape;

/** What is said of an image that comes into the store, whichever way. */
export const NewImage = z.strictObject({
  ...Description,
  minDiskGib: z.int().min(1).max(65_536).default(1).describe('More where what is in it is larger'),
  minMemoryMib: z.int().min(64).max(4_194_304).default(64),
});

/** From where bytes are fetched into the store. */
export const FetchUrl = z.url({ protocol: /^https?$/ }).max(2_000).regex(/^[a-z]+:\/\/[^/?#@]*([/?#]|$)/i, 'must hold no user and no password: it is kept in the log');

/** The body of POST /v1/images. */
export const RegisterImageBody = z.strictObject({
  url: FetchUrl.optional()
    .describe('From where it is fetched into the store of images; kept in the log: no secrets'),
  file: file.optional().describe('Instead of url: a file that lies in every node\'s image folder already'),
  ...NewImage.shape,
  sizeBytes: sizeBytes.optional().describe('Of that file'),
})
  .refine((body) => (body.url === undefined) !== (body.file === undefined), { path: ['url'], message: 'must be given, or a file; and not both' })
  .refine((body) => (body.file === undefined) === (body.sizeBytes === undefined), { path: ['sizeBytes'], message: 'must be given with a file, and only then' })
  .meta({ id: 'RegisterImage' });

export const imageCommands = {
  RegisterImage: command('storage', 'imageId', ImageDescription),
  /** Its family means this version. */
  UseImage: command('storage', 'imageId', z.object({ imageId: ImageId })),
  DeleteImage: command('storage', 'imageId', z.object({ imageId: ImageId })),
} as const;
export type ImageCommand = CommandOf<typeof imageCommands>;

const Import = { operationId: OperationId };

/** Decided by the gateway, where the bytes are. */
export const imageImportCommands = {
  StartImageImport: command('gateway', 'operationId', z.object({ ...Import, imageId: ImageId, source: ImageSource, image: ImageWish, volume: ImportedVolume.optional() })),
  ReportImageImport: command('gateway', 'operationId', z.object({ ...Import, percent: z.int().min(0).max(100) })),
  FinishImageImport: command('gateway', 'operationId', z.object({ ...Import, sizeBytes: z.int().min(1), virtualBytes: z.int().min(1) })),
  FailImageImport: command('gateway', 'operationId', z.object({ ...Import, refused: text(100), because: Json })),
} as const;
export type ImageImportCommand = CommandOf<typeof imageImportCommands>;
