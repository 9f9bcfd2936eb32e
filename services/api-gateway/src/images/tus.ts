/*
 * The headers of tus 1.0, the protocol of resumable uploads (https://tus.io/protocols/resumable-upload): core,
 * creation, termination, expiration and checksum. What the upload shall become stands in Upload-Metadata, each
 * field of an image under its own name: `name Zm9v,format cWNvdzI=,sha256 …`; of a list, its members with commas
 * between them.
 */
import { NewImage } from '@chronovirt/contracts/image/image.commands';
import type { z } from 'zod';

export const TUS_VERSION = '1.0.0';
export const TUS_EXTENSIONS = 'creation,termination,expiration,checksum';
export const CHECKSUMS = ['sha1', 'sha256'] as const;

const METADATA_CHARACTERS_MAX = 8_192;
const NUMBERS = ['minDiskGib', 'minMemoryMib'];
const LISTS = ['tags', 'features'];
/** What clients say of a file by themselves. */
const IGNORED = ['filename', 'filetype', 'relativePath', 'type'];

export type Metadata = Readonly<Record<string, string>>;

/** Fields by name; undefined when it is not as the protocol says. `decode` turns base64 into text, or undefined. */
export const readMetadata = (header: string | undefined, decode: (base64: string) => string | undefined): Metadata | undefined => {
  if (header === undefined || header === '') return {};
  if (header.length > METADATA_CHARACTERS_MAX) return undefined;
  const fields = new Map<string, string>();
  for (const pair of header.split(',')) {
    const [, key, value = ''] = /^\s*([!-+\--~]+)(?: ([A-Za-z0-9+/]*={0,2}))?\s*$/.exec(pair) ?? [];
    const text = decode(value);
    if (key === undefined || text === undefined || fields.has(key)) return undefined;
    fields.set(key, text);
  }
  return Object.fromEntries(fields);
};

/** The image that the fields describe. */
export const imageOf = (metadata: Metadata): z.ZodSafeParseResult<z.infer<typeof NewImage>> => NewImage.safeParse(Object.fromEntries(Object.entries(metadata)
  .filter(([key]) => !IGNORED.includes(key))
  .map(([key, value]) => [key, NUMBERS.includes(key) && /^\d{1,9}$/.test(value) ? Number(value) : LISTS.includes(key) ? value.split(',').map((one) => one.trim()).filter((one) => one !== '') : value])));

/** Of Upload-Checksum; undefined: it is not as the protocol says, or of an algorithm that is not offered. */
export const readChecksum = (header: string): { readonly algorithm: (typeof CHECKSUMS)[number]; readonly digest: string } | undefined => {
  const [, name, digest] = /^(\S+) ([A-Za-z0-9+/]+={0,2})$/.exec(header.trim()) ?? [];
  const algorithm = CHECKSUMS.find((one) => one === name);
  return algorithm === undefined || digest === undefined ? undefined : { algorithm, digest };
};

/** A count of bytes in a header. */
export const readBytes = (header: string | readonly string[] | undefined): number | undefined => (typeof header === 'string' && /^\d{1,15}$/.test(header) ? Number(header) : undefined);
