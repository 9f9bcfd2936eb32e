/*
 * Where the control plane keeps bytes that are too many for a log: images, and what is on its way to become one.
 *
 *     <dir>/parts/<id>.part      comes in, as far as it came; its length is where to go on
 *     <dir>/parts/<id>.json      how long it will be, until when it may take, and what it is for
 *     <dir>/contents/<sha256>    whole, checked, read-only, never changed
 *
 * Several gateways share the folder and keep nothing in memory that another would need: whichever is asked
 * next goes on. Two that write the same part at once write at the places that they were told, so the worst
 * they can do is a wrong sum, and the sum is what everything is held against before it gets its name. A
 * content appears under its name by one rename, after it is on disk: what is there is whole.
 *
 * What is in the way of more is counted when something begins: the contents, and the lengths that parts were
 * announced with.
 */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { chmod, mkdir, open, readdir, readFile, rename, rm, stat, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { refuse, type Refusal } from '@chronovirt/decider/decider';

export interface PartNote {
  /** Bytes it will have. */
  readonly length: number;
  /** ISO 8601. */
  readonly expiresAt: string;
  /** Plain JSON: what whoever began it wants to know later. */
  readonly about: Readonly<Record<string, unknown>>;
}

export interface ByteStoreOptions {
  readonly dir: string;
  /** Of everything together, in bytes. */
  readonly totalBytesMax: number;
  /** Of one thing, in bytes. */
  readonly bytesMax: number;
  /** Things on their way at once. */
  readonly partsMax: number;
}

export interface Content {
  readonly path: string;
  readonly bytes: number;
  /** Milliseconds since the epoch: when it was taken in, or last made use of. */
  readonly at: number;
}

/** Of a chunk; `digest` in base64. */
export interface Checksum {
  readonly algorithm: 'sha1' | 'sha256';
  readonly digest: string;
}

/** A sender that says nothing for so long is gone. */
const IDLE_MS = 60_000;
const DIGEST_CHUNK_BYTES = 1_048_576;

/** What came is kept; whoever sent it goes away, or said nothing for a minute. */
export class CutShort extends Error {
  override readonly name = 'CutShort';
  constructor(id: string, cause?: unknown) { super(`the bytes of ${id} stopped coming`, { cause }); }
}

const isAbsent = (fault: unknown): boolean => (fault as NodeJS.ErrnoException | undefined)?.code === 'ENOENT';
const orAbsent = <T>(work: Promise<T>): Promise<T | undefined> => work.catch((fault: unknown) => { if (isAbsent(fault)) return undefined; throw fault; });

export class ByteStore {
  readonly bytesMax: number;
  private readonly options: ByteStoreOptions;
  private readonly parts: string;
  private readonly contents: string;
  /** Who writes a part in this process. */
  private readonly writers = new Map<string, { readonly stop: AbortController; readonly done: Promise<void> }>();

  constructor(options: ByteStoreOptions) {
    this.options = options;
    this.bytesMax = options.bytesMax;
    this.parts = join(options.dir, 'parts');
    this.contents = join(options.dir, 'contents');
  }

  async prepare(): Promise<void> {
    for (const dir of [this.parts, this.contents]) await mkdir(dir, { recursive: true, mode: 0o700 });
  }

  partPath(id: string): string {
    if (!/^[a-z]{1,20}_[0-9a-f]{32}$/.test(id)) throw new RangeError('not the id of a part');
    return join(this.parts, `${id}.part`);
  }

  private notePath(id: string): string {
    return this.partPath(id).replace(/part$/, 'json');
  }

  private contentPath(sha256: string): string {
    if (!/^[0-9a-f]{64}$/.test(sha256)) throw new RangeError('not a SHA-256');
    return join(this.contents, sha256);
  }

  /** Begins a part. One that has begun with this id goes on as it is. */
  async begin(id: string, note: PartNote): Promise<Refusal | undefined> {
    if (await this.note(id) !== undefined) return undefined;
    if (note.length > this.options.bytesMax) return refuse('upload.too_large', { bytes: note.length, bytesMax: this.options.bytesMax });
    const { bytes, parts } = await this.use();
    if (parts >= this.options.partsMax) return refuse('upload.too_many', { parts, max: this.options.partsMax });
    if (bytes + note.length > this.options.totalBytesMax) return refuse('image.store_full', { usedBytes: bytes, bytes: note.length, bytesMax: this.options.totalBytesMax });
    await writeFile(this.partPath(id), '', { flag: 'a', mode: 0o600 });
    // Last and whole: a part without a note has not begun.
    await writeFile(`${this.notePath(id)}.new`, JSON.stringify(note), { mode: 0o600 });
    await rename(`${this.notePath(id)}.new`, this.notePath(id));
    return undefined;
  }

  async note(id: string): Promise<PartNote | undefined> {
    const text = await orAbsent(readFile(this.notePath(id), 'utf8'));
    return text === undefined ? undefined : (JSON.parse(text) as PartNote); // written by `begin`
  }

  /** Parts of a kind of which everything has come. */
  async whole(kind: string): Promise<readonly string[]> {
    const ids = (await readdir(this.parts)).filter((name) => name.startsWith(`${kind}_`) && name.endsWith('.json')).map((name) => name.slice(0, -'.json'.length));
    const found: string[] = [];
    for (const id of ids) if ((await this.note(id))?.length === (await this.offsetOf(id))) found.push(id);
    return found;
  }

  /** How much of a part has come; undefined when there is no such part. */
  async offsetOf(id: string): Promise<number | undefined> {
    return await this.note(id) === undefined ? undefined : (await orAbsent(stat(this.partPath(id))))?.size;
  }

  /**
   * Adds bytes at `offset`, which must be where it ends; or from 0 on, anew, with `anew`. Whoever wrote it before in this process lets go
   * first: his connection is a dead one. Answers the new end. Throws CutShort, with what came kept.
   */
  async append(id: string, offset: number, source: Readable, { checksum, anew = false }: { readonly checksum?: Checksum | undefined; readonly anew?: boolean } = {}): Promise<number | Refusal> {
    for (let other = this.writers.get(id); other !== undefined; other = this.writers.get(id)) {
      other.stop.abort();
      await other.done;
    }
    const stop = new AbortController();
    const { promise: done, resolve: end } = Promise.withResolvers<undefined>();
    this.writers.set(id, { stop, done });
    try {
      return await this.write(id, offset, source, { checksum, anew, signal: stop.signal });
    } finally {
      this.writers.delete(id);
      end(undefined);
    }
  }

  private async write(id: string, offset: number, source: Readable, { checksum, anew, signal }: { readonly checksum: Checksum | undefined; readonly anew: boolean; readonly signal: AbortSignal }): Promise<number | Refusal> {
    const [note, size] = [await this.note(id), await this.offsetOf(id)];
    if (note === undefined || size === undefined) return refuse('upload.not_found', { id });
    if (anew ? offset !== 0 : offset !== size) return refuse('upload.other_offset', { offset: size, given: offset });
    const hash = checksum === undefined ? undefined : createHash(checksum.algorithm);
    const handle = await open(this.partPath(id), 'r+');
    let end = offset;
    const stop = (): void => { source.destroy(new CutShort(id)); };
    let idle = setTimeout(stop, IDLE_MS);
    signal.addEventListener('abort', stop, { once: true });
    try {
      if (anew) await handle.truncate(0);
      for await (const chunk of source as AsyncIterable<Buffer>) {
        clearTimeout(idle);
        if (end + chunk.length > note.length) return refuse('upload.too_long', { length: note.length });
        let written = 0;
        while (written < chunk.length) written += (await handle.write(chunk, written, chunk.length - written, end + written)).bytesWritten;
        end += chunk.length;
        hash?.update(chunk);
        idle = setTimeout(stop, IDLE_MS);
      }
      if (hash !== undefined && hash.digest('base64') !== checksum?.digest) {
        await handle.truncate(offset);
        return refuse('upload.chunk_damaged', { offset });
      }
      if (end === note.length) await handle.sync();
      return end;
    } catch (fault) {
      if ((fault as NodeJS.ErrnoException).code === 'ENOSPC') return refuse('image.store_full', { says: 'no space is left where the control plane keeps images' });
      if (fault instanceof CutShort) throw fault;
      // A part without its sum is not to be gone on with.
      if (hash !== undefined) await handle.truncate(offset);
      throw new CutShort(id, fault);
    } finally {
      clearTimeout(idle);
      signal.removeEventListener('abort', stop);
      await handle.close();
    }
  }

  /** SHA-256, in hex, of what has come. */
  async sha256Of(id: string, signal?: AbortSignal): Promise<string> {
    const hash = createHash('sha256');
    for await (const chunk of createReadStream(this.partPath(id), { highWaterMark: DIGEST_CHUNK_BYTES, signal }) as AsyncIterable<Buffer>) hash.update(chunk);
    return hash.digest('hex');
  }

  /** The first bytes of a part or a content, by its path. */
  async headOf(path: string, bytes: number): Promise<Buffer> {
    const handle = await open(path, 'r');
    try {
      const { buffer, bytesRead } = await handle.read(Buffer.alloc(bytes), 0, bytes, 0);
      return buffer.subarray(0, bytesRead);
    } finally {
      await handle.close();
    }
  }

  /** A part that was found to be this becomes a content. Doing it twice is doing it once. */
  async keep(id: string, sha256: string): Promise<void> {
    const handle = await orAbsent(open(this.partPath(id), 'r'));
    if (handle !== undefined) {
      await handle.sync().finally(() => handle.close());
      await chmod(this.partPath(id), 0o400);
      await rename(this.partPath(id), this.contentPath(sha256));
      await syncFolder(this.contents);
    }
    // Who names it next finds it young, however old it is.
    await this.touch(sha256);
    await this.drop(id);
  }

  /** Put off what the sweep would do. */
  async touch(sha256: string): Promise<void> {
    const now = new Date();
    await orAbsent(utimes(this.contentPath(sha256), now, now));
  }

  async drop(id: string): Promise<void> {
    this.writers.get(id)?.stop.abort();
    await rm(this.notePath(id), { force: true });
    await rm(this.partPath(id), { force: true });
  }

  async content(sha256: string): Promise<Content | undefined> {
    const path = this.contentPath(sha256);
    const found = await orAbsent(stat(path));
    return found === undefined ? undefined : { path, bytes: found.size, at: found.mtimeMs };
  }

  /** What is there and what was announced. */
  async use(): Promise<{ readonly bytes: number; readonly parts: number; readonly contents: number }> {
    const [contents, notes] = [await readdir(this.contents), (await readdir(this.parts)).filter((name) => name.endsWith('.json'))];
    let bytes = 0;
    for (const name of contents) bytes += (await orAbsent(stat(join(this.contents, name))))?.size ?? 0;
    for (const name of notes) bytes += (await this.note(name.slice(0, -'.json'.length)))?.length ?? 0;
    return { bytes, parts: notes.length, contents: contents.length };
  }

  /** Takes away parts whose time is over, and contents that nobody needs and that are older than `ageMs`. Answers what went. */
  async sweep({ now, ageMs, isNeeded }: { readonly now: number; readonly ageMs: number; readonly isNeeded: (sha256: string) => Promise<boolean> }): Promise<readonly string[]> {
    const gone: string[] = [];
    for (const name of await readdir(this.parts)) {
      const [id = ''] = name.split('.');
      const path = join(this.parts, name);
      const note = await this.note(id);
      // What has no note was left when somebody died between two steps.
      const over = note === undefined ? now - ((await orAbsent(stat(path)))?.mtimeMs ?? now) > ageMs : Date.parse(note.expiresAt) < now;
      if (!over || this.writers.has(id)) continue;
      await rm(path, { force: true });
      gone.push(name);
    }
    for (const sha256 of await readdir(this.contents)) {
      const found = await this.content(sha256);
      if (found === undefined || now - found.at <= ageMs || await isNeeded(sha256)) continue;
      await rm(found.path, { force: true });
      gone.push(sha256);
    }
    return gone;
  }
}

const syncFolder = async (dir: string): Promise<void> => {
  const handle = await open(dir, 'r');
  await handle.sync().finally(() => handle.close());
};
