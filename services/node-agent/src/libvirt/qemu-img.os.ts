/*
 * Disks as files: a qcow2 overlay for each volume, over an image that several share and nobody writes.
 *
 * A disk appears under its name only when it is whole: qemu-img writes beside it, then it is renamed. So a
 * disk that is there was finished, and a kill in the middle leaves a file that the next try overwrites.
 *
 * What a snapshot froze is a layer: a file of its own that others stand on. It is named by 8 digits behind the
 * volume's id; the one the disk was made with has none.
 *
 * An image is somebody's upload. Its header may name other files of the host (a backing file, a data
 * file), which the guest could then read; such an image is refused, and its format is always said to QEMU,
 * never guessed by it.
 */
import { execFile } from 'node:child_process';
import { lstat, readdir, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { VolumeId } from '@chronovirt/contracts/ids';
import type { Layer } from '@chronovirt/contracts/vm/snapshot';
import { refuse } from '../answer.ts';
import type { DiskPlan, Done } from '../hypervisor.ts';

const run = promisify(execFile);
const GIB = 2 ** 30;
const QEMU_IMG_MS = 60_000;
/** Terabytes at the speed of a slow disk. */
const MERGE_MS = 12 * 60 * 60_000;
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
  pathOf(volumeId: VolumeId, layer: Layer): string;
  exists(volumeId: VolumeId, layer: Layer): Promise<boolean>;
  ensure(disk: DiskPlan): Done;
  /** At least so large; only while nobody uses it. */
  grow(volumeId: VolumeId, layer: Layer, sizeGib: number): Done;
  /** A new, empty layer on another, in the place of one that nobody used. */
  stack(volumeId: VolumeId, layer: string, on: Layer, sizeGib: number): Done;
  /** What a layer holds is written into the one it stands on. Only while nobody uses either. */
  commit(volumeId: VolumeId, layer: string, into: Layer): Promise<void>;
  /** A layer stands on another that holds the same. */
  rebase(volumeId: VolumeId, layer: string, on: Layer): Promise<void>;
  drop(volumeId: VolumeId, layer: string): Promise<void>;
  /** A disk that nobody uses keeps count, under this name, of what is written from here on; and no longer under another. */
  keepCount(volumeId: VolumeId, layer: Layer, names: { readonly under: string | null; readonly notUnder: string | null }): Promise<void>;
  /** A disk that holds what can be read there, unless it is there already. */
  restore(volumeId: VolumeId, from: string, signal: AbortSignal): Done;
  /** With all its layers. */
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

  const pathOf = (volumeId: VolumeId, layer: Layer): string => {
    // The contract says so already; a path is made of it here.
    if (!/^volume_[0-9a-f]{32}$/.test(volumeId)) throw new RangeError('not the id of a volume');
    if (layer !== null && !/^[0-9a-f]{8}$/.test(layer)) throw new RangeError('not the name of a layer');
    return join(poolDir, layer === null ? `${volumeId}.qcow2` : `${volumeId}.${layer}.qcow2`);
  };
  const exists = (volumeId: VolumeId, layer: Layer): Promise<boolean> => stat(pathOf(volumeId, layer)).then((found) => found.isFile(), () => false);

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
    if (await exists(volumeId, null)) return undefined;
    const path = pathOf(volumeId, null);
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

  const grow = async (volumeId: VolumeId, layer: Layer, sizeGib: number): Done => {
    const path = pathOf(volumeId, layer);
    try {
      const { stdout } = await run(qemuImg, ['info', '--output=json', '-f', 'qcow2', path], { timeout: QEMU_IMG_MS });
      if ((JSON.parse(stdout) as { 'virtual-size': number })['virtual-size'] < sizeGib * GIB) await run(qemuImg, ['resize', '-q', '-f', 'qcow2', path, `${sizeGib}G`], { timeout: QEMU_IMG_MS });
      return undefined;
    } catch (cause) {
      if (/Failed to get .* lock/i.test(wordsOf(cause))) return refuse('disk.in_use', { volumeId, says: 'another process uses this disk' });
      throw new DiskFault('grow', volumeId, cause);
    }
  };

  const stack = async (volumeId: VolumeId, layer: string, on: Layer, sizeGib: number): Done => {
    const path = pathOf(volumeId, layer);
    const unfinished = `${path}.new`;
    try {
      await run(qemuImg, ['create', '-q', '-f', 'qcow2', '-o', 'compat=1.1', '-F', 'qcow2', '-b', pathOf(volumeId, on), unfinished, `${sizeGib}G`], { timeout: QEMU_IMG_MS });
      await rename(unfinished, path);
      return undefined;
    } catch (cause) {
      if (/No space left on device/.test(wordsOf(cause))) return refuse('pool.full', { says: `no space is left where this node keeps disks (${poolDir})` });
      throw new DiskFault('put a layer on', volumeId, cause);
    }
  };

  const commit = async (volumeId: VolumeId, layer: string, into: Layer): Promise<void> => {
    try {
      await run(qemuImg, ['commit', '-q', '-f', 'qcow2', '-b', pathOf(volumeId, into), pathOf(volumeId, layer)], { timeout: MERGE_MS });
    } catch (cause) {
      throw new DiskFault('merge a layer of', volumeId, cause);
    }
  };

  const rebase = async (volumeId: VolumeId, layer: string, on: Layer): Promise<void> => {
    const path = pathOf(volumeId, layer);
    try {
      const { stdout } = await run(qemuImg, ['info', '--output=json', '--force-share', '-f', 'qcow2', path], { timeout: QEMU_IMG_MS });
      // A running QEMU has said so itself already.
      if ((JSON.parse(stdout) as { 'backing-filename'?: string })['backing-filename'] === pathOf(volumeId, on)) return;
      await run(qemuImg, ['rebase', '-q', '-u', '-f', 'qcow2', '-F', 'qcow2', '-b', pathOf(volumeId, on), path], { timeout: QEMU_IMG_MS });
    } catch (cause) {
      throw new DiskFault('set what stands below a layer of', volumeId, cause);
    }
  };

  const keepCount = async (volumeId: VolumeId, layer: Layer, { under, notUnder }: { readonly under: string | null; readonly notUnder: string | null }): Promise<void> => {
    const path = pathOf(volumeId, layer);
    try {
      const { stdout } = await run(qemuImg, ['info', '--output=json', '-f', 'qcow2', path], { timeout: QEMU_IMG_MS });
      const said = JSON.parse(stdout) as { 'format-specific'?: { data?: { bitmaps?: readonly { readonly name: string }[] } } };
      const there = new Set((said['format-specific']?.data?.bitmaps ?? []).map(({ name }) => name));
      for (const name of [under, notUnder]) if (name !== null && there.has(name)) await run(qemuImg, ['bitmap', '--remove', '-f', 'qcow2', path, name], { timeout: QEMU_IMG_MS });
      if (under !== null) await run(qemuImg, ['bitmap', '--add', '-f', 'qcow2', path, under], { timeout: QEMU_IMG_MS });
    } catch (cause) {
      throw new DiskFault('keep count of what is written on', volumeId, cause);
    }
  };

  const restore = async (volumeId: VolumeId, from: string, signal: AbortSignal): Done => {
    if (await exists(volumeId, null)) return undefined;
    const path = pathOf(volumeId, null);
    const unfinished = `${path}.new`;
    try {
      await run(qemuImg, ['convert', '-q', '-O', 'qcow2', '-o', 'compat=1.1', from, unfinished], { timeout: MERGE_MS, signal });
      await rename(unfinished, path);
      return undefined;
    } catch (cause) {
      if (/No space left on device/.test(wordsOf(cause))) return refuse('pool.full', { says: `no space is left where this node keeps disks (${poolDir})` });
      throw new DiskFault('restore', volumeId, cause);
    }
  };

  return {
    pathOf,
    keepCount: (volumeId, layer, names) => turns(() => keepCount(volumeId, layer, names)),
    restore: (volumeId, from, signal) => turns(() => restore(volumeId, from, signal)),
    grow: (volumeId, layer, sizeGib) => turns(() => grow(volumeId, layer, sizeGib)),
    stack: (volumeId, layer, on, sizeGib) => turns(() => stack(volumeId, layer, on, sizeGib)),
    commit: (volumeId, layer, into) => turns(() => commit(volumeId, layer, into)),
    rebase: (volumeId, layer, on) => turns(() => rebase(volumeId, layer, on)),
    drop: async (volumeId, layer) => {
      try {
        await rm(pathOf(volumeId, layer), { force: true });
      } catch (cause) {
        throw new DiskFault('remove a layer of', volumeId, cause);
      }
    },
    exists,
    ensure: (disk) => turns(() => ensure(disk)),
    remove: async (volumeId) => {
      try {
        const whole = pathOf(volumeId, null);
        // What others stand on goes last, and what is unfinished before it: a disk that is there is a whole one.
        const layers = (await readdir(poolDir)).filter((name) => name.startsWith(`${volumeId}.`) && join(poolDir, name) !== whole);
        for (const name of layers) await rm(join(poolDir, name), { force: true });
        await rm(whole, { force: true });
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
export function createTurns(atOnceMax: number): <T>(work: () => Promise<T>) => Promise<T> {
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
