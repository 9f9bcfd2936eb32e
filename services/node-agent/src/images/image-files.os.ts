/*
 * The image folder of a node.
 *
 *     <name>                        an image that an operator put there; never touched
 *     .<name>.checked               its sum, and which file it was when that was seen to be what was said
 *     <sha256>.<format>             one that was fetched: whole, checked, read-only. Disks stand on it
 *     .<sha256>.<format>.fetching   one that comes in, as far as it came
 *
 * An image of the control plane's store has its sum for a name, so the name alone says what to fetch and what
 * must have come. It is fetched once, however many VMs wait for it. One that no image needs any more, and no
 * disk here, goes after a while. One that an operator put there is read once, and again when it is another file; a medium,
 * which nothing stands on and which may be in a drive, only once.
 */
import { chmod, lstat, mkdir, open, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { contentOf } from '@chronovirt/contracts/image/image.events';
import { CANCELLED, refuse } from '../answer.ts';
import { putInPlace, sha256Of } from '../durable.os.ts';
import type { Done } from '../hypervisor.ts';
import { GatewayAway, type GatewayBytes } from './gateway-bytes.os.ts';

export interface ImageFiles {
  pathOf(file: string): string;
  /** It lies there whole, fetched where that can be. Refused when there is no such image, or it is not the one that was registered; the signal ends the waiting, not the fetching. */
  ensure(file: string, signal?: AbortSignal, as?: 'disk' | 'medium'): Done;
  /** Takes away what was fetched and nobody needs. Answers what went. */
  sweep(): Promise<readonly string[]>;
}

export interface ImageFilesOptions {
  readonly imageDir: string;
  /** Where disks lie that may stand on images. */
  readonly poolDirs: () => readonly string[];
  /** Without it, images are what somebody put there. */
  readonly gateway?: GatewayBytes | undefined;
  readonly log: { info(fields: object, sentence: string): void };
  /** How long a fetched image stays without a use. */
  readonly keepMs?: number;
  /** Ends what is under way. */
  readonly ended?: AbortSignal | undefined;
}

export class ImageFault extends Error {
  override readonly name = 'ImageFault';
  constructor(what: string, file: string, cause?: unknown) { super(`could not ${what} image ${file}`, { cause }); }
}

const KEEP_MS = 3_600_000;
/** The header of a qcow2 and the name of what it stands on: a path has at most 1,023 bytes there. */
const HEAD_BYTES = 65_536;
const BACKING_NAME_BYTES_MAX = 1_023;

export function createImageFiles({ imageDir, poolDirs, gateway, log, keepMs = KEEP_MS, ended = new AbortController().signal }: ImageFilesOptions): ImageFiles {
  /** What is being fetched or checked. */
  const underWays = new Map<string, Promise<Awaited<Done>>>();
  /** What was asked for lately stays, whatever else is known: a disk of it may be about to be made. */
  const usedAt = new Map<string, number>();
  const pathOf = (file: string): string => join(imageDir, file);
  // No link: it could lead out of the folder.
  const isThere = async (file: string): Promise<boolean> => (await lstat(pathOf(file)).catch(() => undefined))?.isFile() === true;

  const fetchIt = async (file: string, sha256: string): Done => {
    if (gateway === undefined) return refuse('image.missing_on_node', { file, says: 'this node fetches no images' });
    await mkdir(imageDir, { recursive: true, mode: 0o755 });
    const unfinished = join(imageDir, `.${file}.fetching`);
    try {
      const began = performance.now();
      const refused = await gateway.fetch(sha256, unfinished, ended);
      if (refused !== undefined) return refused.refused === 'image.content_not_found' ? refuse('image.missing_on_node', { file, says: 'the control plane has no such image any more' }) : refused;
      const found = await sha256Of(unfinished);
      if (found !== sha256) {
        await rm(unfinished, { force: true });
        throw new Error(`what came has the SHA-256 ${found}`);
      }
      // For everybody to read and nobody to write.
      await chmod(unfinished, 0o444);
      await putInPlace(unfinished, pathOf(file));
      log.info({ file, seconds: Math.round((performance.now() - began) / 1_000) }, 'an image was fetched');
      return undefined;
    } catch (cause) {
      if ((cause as NodeJS.ErrnoException).code === 'ENOSPC') return refuse('node.image_dir_full', { file, says: `no space is left where this node keeps images (${imageDir})` });
      throw new ImageFault('fetch', file, cause);
    }
  };

  const checked = new Map<string, string>();
  /** Reads all of it the first time. Faults where nobody can say what its sum should be. */
  const check = async (file: string, from: GatewayBytes, as: 'disk' | 'medium'): Done => {
    const { dev, ino, size, mtimeMs, ctimeMs } = await lstat(pathOf(file));
    const which = [dev, ino, size, mtimeMs, ctimeMs].join(' ');
    const note = join(imageDir, `.${file}.checked`);
    const [sum, ...rest] = (checked.get(file) ?? await readFile(note, 'utf8').catch(() => '')).split(' ');
    if (sum !== '' && as === 'medium') return undefined;
    const known = sum !== '' && rest.join(' ') === which ? sum : undefined;
    let said: readonly string[];
    try {
      said = await from.sumsOf(file);
    } catch (fault) {
      if (known !== undefined && fault instanceof GatewayAway) return undefined;
      throw fault;
    }
    if (said.length === 0 && known === undefined) throw new ImageFault('check', file, new Error('the control plane knows no image of this file, or not yet'));
    const found = known ?? await sha256Of(pathOf(file), ended);
    if (said.length > 0 && !said.includes(found)) return refuse('image.checksum_mismatch', { file, sha256: said[0] ?? null, found, says: `what lies in this node's image folder as ${file} is not what was registered` });
    if (known !== undefined) return undefined;
    checked.set(file, `${found} ${which}`);
    // For the next agent, so that it need not read all of it again.
    await writeFile(note, `${found} ${which}`, { mode: 0o644 }).catch((err: unknown) => { log.info({ file, err }, 'that an image was checked could not be written down'); });
    return undefined;
  };

  return {
    pathOf,
    ensure: async (file, signal, as = 'disk') => {
      if (!/^[a-zA-Z0-9][a-zA-Z0-9._-]{0,200}$/.test(file)) return refuse('image.missing_on_node', { file });
      usedAt.set(file, Date.now());
      const sha256 = contentOf(file);
      const there = await isThere(file);
      // Its name is its sum, and was true when it was put there; or nobody can be asked.
      if (there && (sha256 !== undefined || gateway === undefined)) return undefined;
      if (!there && sha256 === undefined) return refuse('image.missing_on_node', { file, says: `put the image file ${file} into this node's image folder` });
      const begin = (): Done => (sha256 === undefined ? check(file, gateway as GatewayBytes, as) : fetchIt(file, sha256));
      const underWay = underWays.get(file) ?? begin().finally(() => { underWays.delete(file); });
      underWays.set(file, underWay);
      if (signal === undefined) return underWay;
      const { promise: left, resolve: leave } = Promise.withResolvers<Awaited<Done>>();
      const onAbort = (): void => { leave(CANCELLED); };
      signal.addEventListener('abort', onAbort, { once: true });
      if (signal.aborted) onAbort();
      return Promise.race([underWay, left]).finally(() => { signal.removeEventListener('abort', onAbort); });
    },

    sweep: async () => {
      if (gateway === undefined) return [];
      const gone: string[] = [];
      const below = new Set((await Promise.all(poolDirs().map(backingFiles))).flatMap((files) => [...files]));
      for (const name of await readdir(imageDir).catch((): string[] => [])) {
        const noted = /^\.(.*)\.checked$/.exec(name)?.[1];
        if (noted !== undefined && !await isThere(noted)) await rm(join(imageDir, name), { force: true });
        const file = /^\.(.*)\.fetching$/.exec(name)?.[1] ?? name;
        const sha256 = contentOf(file);
        const found = sha256 === undefined ? undefined : await lstat(join(imageDir, name)).catch(() => undefined);
        if (sha256 === undefined || found === undefined || underWays.has(file)) continue;
        const lately = Math.max(usedAt.get(file) ?? 0, found.mtimeMs, found.ctimeMs);
        if (Date.now() - lately < keepMs || below.has(pathOf(file)) || await gateway.isNeeded(sha256)) continue;
        await rm(join(imageDir, name), { force: true });
        usedAt.delete(file);
        gone.push(name);
      }
      return gone;
    },
  };
}

/** What the disks in a folder stand on, by path, as their headers say (QEMU, docs/interop/qcow2.txt: offset at 8, length at 16). */
async function backingFiles(poolDir: string): Promise<ReadonlySet<string>> {
  const found = new Set<string>();
  for (const name of await readdir(poolDir).catch((): string[] => [])) {
    if (!/\.qcow2(\.new)?$/.test(name)) continue;
    const handle = await open(join(poolDir, name), 'r').catch(() => undefined);
    if (handle === undefined) continue;
    try {
      const { buffer, bytesRead } = await handle.read(Buffer.alloc(HEAD_BYTES), 0, HEAD_BYTES, 0);
      if (bytesRead < 20 || buffer.readUInt32BE(0) !== 0x51_46_49_fb) continue;
      const [at, length] = [Number(buffer.readBigUInt64BE(8)), buffer.readUInt32BE(16)];
      if (at > 0 && length <= BACKING_NAME_BYTES_MAX && at + length <= bytesRead) found.add(buffer.toString('utf8', at, at + length));
    } finally {
      await handle.close();
    }
  }
  return found;
}
