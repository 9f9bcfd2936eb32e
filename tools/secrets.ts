import { randomBytes } from 'node:crypto';
import { closeSync, existsSync, fsyncSync, linkSync, mkdirSync, openSync, readFileSync, renameSync, unlinkSync, writeSync } from 'node:fs';
import { dirname } from 'node:path';

/** 43 characters of base64url: 256 bits. */
export const randomSecret = (): string => randomBytes(32).toString('base64url');

/** Writes a whole file or none of it, readable by its owner alone unless `mode` says otherwise. */
export function writeWhole(path: string, content: string | Uint8Array, mode = 0o600): void {
  mkdirSync(dirname(path), { recursive: true });
  const draft = writeDraft(path, content, mode);
  renameSync(draft, path);
}

/** The content of a file that is made once: whoever comes first writes it, everyone reads the same. */
export function onceWritten(path: string, make: () => string): string {
  if (!existsSync(path)) {
    mkdirSync(dirname(path), { recursive: true });
    const draft = writeDraft(path, make(), 0o600);
    try {
      linkSync(draft, path); // refuses when the file is there: the loser of a race reads the winner's
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    } finally {
      unlinkSync(draft);
    }
  }
  return readFileSync(path, 'utf8').trim();
}

function writeDraft(path: string, content: string | Uint8Array, mode: number): string {
  const draft = `${path}.${process.pid}.${randomBytes(4).toString('hex')}`;
  const file = openSync(draft, 'wx', mode);
  try {
    const bytes = typeof content === 'string' ? Buffer.from(content) : content;
    for (let at = 0; at < bytes.length; ) at += writeSync(file, bytes, at);
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
  return draft;
}
