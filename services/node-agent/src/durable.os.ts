/* Files that survive a loss of power: what is in them is on the disk before they have their names, and then the names are. */
import { createHash } from 'node:crypto';
import { constants, createReadStream } from 'node:fs';
import { open, rename } from 'node:fs/promises';
import { dirname } from 'node:path';

/** A file, or the names in a folder. */
export async function syncPath(path: string): Promise<void> {
  const handle = await open(path, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** What was written beside it takes its place. */
export async function putInPlace(unfinished: string, path: string): Promise<void> {
  await syncPath(unfinished);
  await rename(unfinished, path);
  await syncPath(dirname(path));
}

/** Whole or not at all. Follows no link where it writes. */
export async function writeDurably(path: string, text: string, mode = 0o600): Promise<void> {
  const unfinished = `${path}.new`;
  const handle = await open(unfinished, constants.O_WRONLY | constants.O_CREAT | constants.O_TRUNC | constants.O_NOFOLLOW, mode);
  try {
    await handle.writeFile(text);
  } finally {
    await handle.close();
  }
  await putInPlace(unfinished, path);
}

/** SHA-256 of a file, in hex. Says how many bytes more it has read. */
export async function sha256Of(path: string, signal?: AbortSignal, read?: (bytes: number) => void): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(path, { highWaterMark: 1_048_576, signal }) as AsyncIterable<Buffer>) {
    hash.update(chunk);
    read?.(chunk.length);
  }
  return hash.digest('hex');
}
