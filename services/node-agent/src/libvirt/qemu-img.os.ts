/*
 * Disks as files: a qcow2 overlay for each volume, over an image that several share and nobody writes.
 *
 * A disk appears under its name only when it is whole: qemu-img writes beside it, then it is renamed. So a
 * disk that is there was finished, and a kill in the middle leaves a file that the next try overwrites.
 *
 * An image is somebody's upload. Its header may name other files of the host (a backing file, a data
 * file), which the guest could then read; such an image is refused, and its format is always said to QEMU,
 * never guessed by it.
 */
import { execFile } from 'node:child_process';
import { lstat, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { VolumeId } from '@chronovirt/contracts/ids';
import { refuse } from '../answer.ts';
import type { DiskPlan, Done } from '../hypervisor.ts';

const run = promisify(execFile);
const GIB = 2 ** 30;
const QEMU_IMG_MS = 60_000;
/** qemu-img processes at once. */
const AT_ONCE_MAX = 4;
/** Images whose headers were read and need not be read again. */
const KNOWN_MAX = 1_000;

export class DiskFault extends Error {
  override readonly name = 'DiskFault';
  constructor(what: string, volumeId: string, cause: unknown) { super(`could not ${what} disk ${volumeId}`, { cause }); }
}

interface Image {
  readonly virtualBytes: number;
  readonly foreignFile: string | undefined;
}

export interface Disks {
  pathOf(volumeId: VolumeId): string;
  exists(volumeId: VolumeId): Promise<boolean>;
  ensure(disk: DiskPlan): Done;
  /** At least so large; only while nobody uses it. */
  grow(volumeId: VolumeId, sizeGib: number): Done;
  remove(volumeId: VolumeId): Done;
}

export interface DisksOptions {
  readonly imageDir: string;
  readonly poolDir: string;
  /** Found in PATH by default. */
  readonly qemuImg?: string;
}

export function createDisks({ imageDir, poolDir, qemuImg = 'qemu-img' }: DisksOptions): Disks {
  const images = new Map<string, Image>();
  const turns = createTurns(AT_ONCE_MAX);

  const pathOf = (volumeId: VolumeId): string => {
    // The contract says so already; a path is made of it here.
    if (!/^volume_[0-9a-f]{32}$/.test(volumeId)) throw new RangeError('not the id of a volume');
    return join(poolDir, `${volumeId}.qcow2`);
  };
  const exists = (volumeId: VolumeId): Promise<boolean> => stat(pathOf(volumeId)).then((found) => found.isFile(), () => false);

  const imageOf = async (file: string, format: DiskPlan['imageFormat']): Promise<Image | undefined> => {
    if (!/^[a-zA-Z0-9][a-zA-Z0-9._-]{0,200}$/.test(file)) return undefined;
    const path = join(imageDir, file);
    // No link: it could lead out of the folder.
    const found = await lstat(path).catch(() => undefined);
    if (found === undefined || !found.isFile()) return undefined;
    const key = `${file}:${format}:${found.mtimeMs}:${found.size}`;
    const known = images.get(key);
    if (known !== undefined) return known;
    const { stdout } = await run(qemuImg, ['info', '--output=json', '--force-share', '-f', format, path], { timeout: QEMU_IMG_MS });
    const said = JSON.parse(stdout) as { 'virtual-size': number; 'backing-filename'?: string; 'format-specific'?: { data?: { 'data-file'?: string } } };
    const image: Image = { virtualBytes: said['virtual-size'], foreignFile: said['backing-filename'] ?? said['format-specific']?.data?.['data-file'] };
    if (images.size >= KNOWN_MAX) images.clear();
    images.set(key, image);
    return image;
  };

  const ensure = async ({ volumeId, imageFile, imageFormat, sizeGib }: DiskPlan): Done => {
    if (await exists(volumeId)) return undefined;
    const path = pathOf(volumeId);
    const unfinished = `${path}.new`;
    try {
      if (imageFile === null) {
        await run(qemuImg, ['create', '-q', '-f', 'qcow2', '-o', 'compat=1.1', unfinished, `${sizeGib}G`], { timeout: QEMU_IMG_MS });
        await rename(unfinished, path);
        return undefined;
      }
      const image = await imageOf(imageFile, imageFormat);
      if (image === undefined) return refuse('image.missing_on_node', { file: imageFile, says: `put the image file ${imageFile} into this node's image folder` });
      if (image.foreignFile !== undefined) return refuse('image.refers_to_another_file', { file: imageFile, says: 'an image must stand alone: convert it with qemu-img convert' });
      if (sizeGib * GIB < image.virtualBytes) return refuse('disk.smaller_than_image', { sizeGib, imageGib: Math.ceil(image.virtualBytes / GIB) });
      await run(qemuImg, ['create', '-q', '-f', 'qcow2', '-o', 'compat=1.1', '-F', imageFormat, '-b', join(imageDir, imageFile), unfinished, `${sizeGib}G`], { timeout: QEMU_IMG_MS });
      await rename(unfinished, path);
      return undefined;
    } catch (cause) {
      if (/No space left on device/.test(wordsOf(cause))) return refuse('pool.full', { says: `no space is left where this node keeps disks (${poolDir})` });
      throw new DiskFault('make', volumeId, cause);
    }
  };

  const grow = async (volumeId: VolumeId, sizeGib: number): Done => {
    try {
      const { stdout } = await run(qemuImg, ['info', '--output=json', '-f', 'qcow2', pathOf(volumeId)], { timeout: QEMU_IMG_MS });
      if ((JSON.parse(stdout) as { 'virtual-size': number })['virtual-size'] < sizeGib * GIB) await run(qemuImg, ['resize', '-q', '-f', 'qcow2', pathOf(volumeId), `${sizeGib}G`], { timeout: QEMU_IMG_MS });
      return undefined;
    } catch (cause) {
      if (/Failed to get .* lock/i.test(wordsOf(cause))) return refuse('disk.in_use', { volumeId, says: 'another process uses this disk' });
      throw new DiskFault('grow', volumeId, cause);
    }
  };

  return {
    pathOf,
    grow: (volumeId, sizeGib) => turns(() => grow(volumeId, sizeGib)),
    exists,
    ensure: (disk) => turns(() => ensure(disk)),
    remove: async (volumeId) => {
      try {
        await rm(`${pathOf(volumeId)}.new`, { force: true });
        await rm(pathOf(volumeId), { force: true });
        return undefined;
      } catch (cause) {
        throw new DiskFault('remove', volumeId, cause);
      }
    },
  };
}

const wordsOf = (fault: unknown): string =>
  (fault instanceof Error ? `${fault.message} ${'stderr' in fault ? String(fault.stderr) : ''}` : String(fault));

/** At most so many at once; the rest wait in order. Their number is bounded by what the bus delivers. */
function createTurns(atOnceMax: number): <T>(work: () => Promise<T>) => Promise<T> {
  let running = 0;
  const waiting: (() => void)[] = [];
  return async (work) => {
    if (running >= atOnceMax) await new Promise<void>((resolve) => waiting.push(resolve));
    else running++;
    try {
      return await work();
    } finally {
      const next = waiting.shift();
      if (next === undefined) running--;
      else next();
    }
  };
}
