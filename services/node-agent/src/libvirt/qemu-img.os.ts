/*
 * Disks as files: a qcow2 overlay for each disk that a VM was made with, over an image that several share and
 * nobody writes; volumes of their own stand alone, as qcow2 or raw.
 *
 * A disk appears under its name only when it is whole: qemu-img writes beside it, then it is renamed. So a
 * disk that is there was finished, and a kill in the middle leaves a file that the next try overwrites.
 *
 * A volume lies in one pool, as one format, and its file is called after both: `<pool>/<volume>.<format>`. Only
 * who makes it has to be told the pool; everybody else looks where it lies (`locate`), and asks `pathOf`.
 *
 * What a snapshot froze is a layer: a file of its own that others stand on. It is named by 8 digits behind the
 * volume's id; the one the disk was made with has none. An internal snapshot is inside of that one.
 *
 * An image is somebody's upload. Its header may name other files of the host (a backing file, a data
 * file), which the guest could then read; such an image is refused, and its format is always said to QEMU,
 * never guessed by it.
 */
import { execFile } from 'node:child_process';
import { constants, lstatSync, readlinkSync } from 'node:fs';
import { lstat, open, readdir, rename, rm, stat, symlink } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { promisify } from 'node:util';
import type { PoolId, VolumeId } from '@chronovirt/contracts/ids';
import { formatIn, HEAD_BYTES, readHeader } from '@chronovirt/contracts/image/image-header';
import type { InnerName, Layer } from '@chronovirt/contracts/vm/snapshot';
import type { VolumeFormat } from '@chronovirt/contracts/volume/volume.events';
import { isRefusal, refuse } from '../answer.ts';
import type { Refusal } from '../answer.ts';
import { putInPlace } from '../durable.os.ts';
import type { DiskPlan, Done, Progress, VolumePlan, VolumeWorkPlan } from '../hypervisor.ts';
import type { PoolFolders } from '../pool/pool-folders.os.ts';
import type { ImageFiles } from '../images/image-files.os.ts';
import { createTurns } from '../turns.ts';
import { runWatched } from '../watched.os.ts';

const run = promisify(execFile);
const GIB = 2 ** 30;
const QEMU_IMG_MS = 60_000;
/** Terabytes at the speed of a slow disk. */
const MERGE_MS = 12 * 60 * 60_000;
/** qemu-img processes at once; and of those that write whole disks, which take their time. */
const AT_ONCE_MAX = 4;
const COPIES_AT_ONCE_MAX = 2;
const FORMATS: readonly VolumeFormat[] = ['qcow2', 'raw'];
const ZEROES_BYTES = 4 * 2 ** 20;
/** Of a list of the parts of a file that hold data, some 100 bytes each. */
const MAP_BYTES_MAX = 512 * 2 ** 20;
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

/** As far as it is read here (QEMU, docs/tools/qemu-img.rst, `info --output=json`). Sizes in bytes. */
interface Info {
  readonly 'virtual-size': number;
  readonly 'backing-filename'?: string;
  readonly snapshots?: readonly { readonly name: string }[];
  readonly 'format-specific'?: { readonly data?: { readonly 'data-file'?: string; readonly bitmaps?: readonly { readonly name: string }[] } };
}

export interface Disks {
  /** Where a volume was last seen to lie; where it would be made without a pool, if it never was. */
  pathOf(volumeId: VolumeId, layer: Layer): string;
  formatOf(volumeId: VolumeId, layer: Layer): VolumeFormat;
  /** Looks where they lie now. */
  locate(volumeIds: readonly VolumeId[]): Promise<void>;
  exists(volumeId: VolumeId, layer: Layer): Promise<boolean>;
  /** A file that lies wherever it lies is found under the volume's name. */
  link(volumeId: VolumeId, file: string): Done;
  /** It is not; the file stays. */
  unlink(volumeId: VolumeId): Promise<void>;
  /** The signal ends its waiting for an image, and a copy that is being made. */
  ensure(disk: DiskPlan, signal?: AbortSignal): Done;
  /** At least so large; only while nobody uses it. */
  grow(volumeId: VolumeId, layer: Layer, sizeGib: number): Done;
  /** A new, empty layer on another, in the place of one that nobody used. */
  stack(volumeId: VolumeId, layer: string, on: Layer, sizeGib: number): Done;
  /** What a layer holds is written into the one it stands on. Only while nobody uses either. */
  commit(volumeId: VolumeId, layer: string, into: Layer): Promise<void>;
  /** A layer stands on another that holds the same. */
  rebase(volumeId: VolumeId, layer: string, on: Layer): Promise<void>;
  drop(volumeId: VolumeId, layer: string): Promise<void>;
  /** What a disk holds that nobody uses is kept inside of it, under this name; with `back` it holds, then, what was kept under that one, and no count of what is written goes on. */
  keepInside(volumeId: VolumeId, as: InnerName, back: InnerName | null): Done;
  /** Nothing is kept inside of a disk under this name; with `back` it holds that again. Throws while somebody uses the disk. */
  letGo(volumeId: VolumeId, name: InnerName, back: boolean): Promise<void>;
  /** A disk that nobody uses keeps count, under this name, of what is written from here on; and no longer under another. */
  keepCount(volumeId: VolumeId, layer: Layer, names: { readonly under: string | null; readonly notUnder: string | null }): Promise<void>;
  /** A disk that holds what can be read there, unless it is there already. */
  restore(volume: Pick<VolumePlan, 'volumeId' | 'poolId'>, from: string, signal: AbortSignal, progress?: Progress): Done;
  /** With all its layers. Without a pool: wherever it lies. */
  /** With `found`, the file that it was made of is that again, and not gone. */
  remove(volumeId: VolumeId, poolId?: PoolId, found?: string): Done;
  /** What a layer and those below it hold, as a qcow2 that stands alone; only while nobody writes it. */
  copyOut(volumeId: VolumeId, layer: Layer, to: string, signal: AbortSignal): Promise<void>;
  /** A volume that stands alone. */
  make(volume: VolumePlan, signal: AbortSignal): Done;
  work(volume: VolumeWorkPlan, signal: AbortSignal): Done;
  settle(volume: VolumeWorkPlan, signal: AbortSignal): Done;
}

export interface DisksOptions {
  readonly images: ImageFiles;
  readonly poolDir: string;
  /** Default: `poolDir` alone, whatever pool is meant. */
  readonly pools?: Pick<PoolFolders, 'folderOf' | 'folders'>;
  /** Found in PATH by default. */
  readonly qemuImg?: string;
}

export function createDisks({ images: files, poolDir, pools = { folderOf: () => Promise.resolve(poolDir), folders: () => [poolDir] }, qemuImg = 'qemu-img' }: DisksOptions): Disks {
  const images = new Map<string, Image>();
  const turns = createTurns(AT_ONCE_MAX);
  const copies = createTurns(COPIES_AT_ONCE_MAX);
  /** Volumes that lie elsewhere, or as something else, than those that VMs are made with. */
  const homes = new Map<VolumeId, { readonly folder: string; readonly format: VolumeFormat }>();

  const nameOf = (volumeId: VolumeId, layer: Layer, format: VolumeFormat): string => {
    // The contract says so already; a path is made of it here.
    if (!/^volume_[0-9a-f]{32}$/.test(volumeId)) throw new RangeError('not the id of a volume');
    if (layer !== null && !/^[0-9a-f]{8}$/.test(layer)) throw new RangeError('not the name of a layer');
    return layer === null ? `${volumeId}.${format}` : `${volumeId}.${layer}.qcow2`;
  };
  const homeOf = (volumeId: VolumeId): { readonly folder: string; readonly format: VolumeFormat } => homes.get(volumeId) ?? { folder: poolDir, format: 'qcow2' };
  const pathOf = (volumeId: VolumeId, layer: Layer): string => {
    const path = join(homeOf(volumeId).folder, nameOf(volumeId, layer, homeOf(volumeId).format));
    return layer === null ? linkedFrom(path) ?? path : path;
  };
  const formatOf = (volumeId: VolumeId, layer: Layer): VolumeFormat => (layer === null ? homeOf(volumeId).format : 'qcow2');

  const locateOne = async (volumeId: VolumeId): Promise<void> => {
    if (await isFile(pathOf(volumeId, null))) return;
    for (const folder of pools.folders()) {
      for (const format of FORMATS) {
        if (!(await isFile(join(folder, nameOf(volumeId, null, format))))) continue;
        homes.set(volumeId, { folder, format });
        return;
      }
    }
    homes.delete(volumeId);
  };
  const locate = async (volumeIds: readonly VolumeId[]): Promise<void> => { for (const volumeId of volumeIds) await locateOne(volumeId); };
  const exists = async (volumeId: VolumeId, layer: Layer): Promise<boolean> => {
    await locateOne(volumeId);
    return isFile(pathOf(volumeId, layer));
  };

  /** Without `--force-share` it is refused while somebody writes it. */
  const infoOf = async (path: string, format: VolumeFormat, ...share: readonly '--force-share'[]): Promise<Info> =>
    JSON.parse((await run(qemuImg, ['info', '--output=json', ...share, '-f', format, path], { timeout: QEMU_IMG_MS })).stdout) as Info;

  const imageOf = async (file: string, format: DiskPlan['imageFormat']): Promise<Image | undefined> => {
    const path = files.pathOf(file);
    const found = await lstat(path).catch(() => undefined);
    if (found === undefined || !found.isFile()) return undefined;
    const key = `${file}:${format}:${found.mtimeMs}:${found.size}`;
    const known = images.get(key);
    if (known !== undefined) return known;
    const said = await infoOf(path, format, '--force-share');
    const image: Image = { virtualBytes: said['virtual-size'], foreignFile: said['backing-filename'] ?? said['format-specific']?.data?.['data-file'] };
    if (images.size >= KNOWN_MAX) images.clear();
    images.set(key, image);
    return image;
  };

  /** An image that is there and refers to no other file. */
  const imageAlone = async (file: string, format: DiskPlan['imageFormat']): Promise<Image | Refusal> => {
    const image = await imageOf(file, format);
    if (image === undefined) return refuse('image.missing_on_node', { file, says: `put the image file ${file} into this node's image folder` });
    return image.foreignFile === undefined ? image : refuse('image.refers_to_another_file', { file, says: 'an image must stand alone: convert it with qemu-img convert' });
  };

  const ensure = async ({ volumeId, poolId, imageFile, imageFormat, sizeGib, full }: DiskPlan, signal = new AbortController().signal): Done => {
    if (await exists(volumeId, null)) return undefined;
    const folder = poolId === undefined ? poolDir : await pools.folderOf(poolId);
    if (folder === undefined) return refuse('pool.not_on_node', { poolId: poolId ?? null });
    const path = join(folder, nameOf(volumeId, null, 'qcow2'));
    if (folder !== poolDir) homes.set(volumeId, { folder, format: 'qcow2' });
    const unfinished = `${path}.new`;
    try {
      if (imageFile === null) {
        await run(qemuImg, ['create', '-q', '-f', 'qcow2', '-o', 'compat=1.1', unfinished, `${sizeGib}G`], { timeout: QEMU_IMG_MS });
        await rename(unfinished, path);
        return undefined;
      }
      const image = await imageAlone(imageFile, imageFormat);
      if (isRefusal(image)) return image;
      if (sizeGib * GIB < image.virtualBytes) return refuse('disk.smaller_than_image', { sizeGib, imageGib: Math.ceil(image.virtualBytes / GIB) });
      if (full) {
        await rewrite({ path: files.pathOf(imageFile), format: imageFormat }, { path, format: 'qcow2' }, signal, { sizeGib });
        return undefined;
      }
      await run(qemuImg, ['create', '-q', '-f', 'qcow2', '-o', 'compat=1.1', '-F', imageFormat, '-b', files.pathOf(imageFile), unfinished, `${sizeGib}G`], { timeout: QEMU_IMG_MS });
      await rename(unfinished, path);
      return undefined;
    } catch (cause) {
      return refusalFor(cause, volumeId) ?? fault('make', volumeId, cause);
    }
  };

  /** Throws while somebody writes it. Bytes. */
  const sizeOf = async (path: string, format: VolumeFormat): Promise<number> =>
    (await infoOf(path, format))['virtual-size'];

  const growFile = async (path: string, format: VolumeFormat, sizeGib: number): Promise<void> => {
    if ((await sizeOf(path, format)) < sizeGib * GIB) await run(qemuImg, ['resize', '-q', '-f', format, path, `${sizeGib}G`], { timeout: QEMU_IMG_MS });
  };

  const grow = async (volumeId: VolumeId, layer: Layer, sizeGib: number): Done => {
    await locateOne(volumeId);
    try {
      // One that was adopted need not be of whole GiB.
      if (Math.ceil((await sizeOf(pathOf(volumeId, layer), formatOf(volumeId, layer))) / GIB) < sizeGib) await growFile(pathOf(volumeId, layer), formatOf(volumeId, layer), sizeGib);
      return undefined;
    } catch (cause) {
      return refusalFor(cause, volumeId) ?? fault('grow', volumeId, cause);
    }
  };

  const stack = async (volumeId: VolumeId, layer: string, on: Layer, sizeGib: number): Done => {
    await locateOne(volumeId);
    const path = pathOf(volumeId, layer);
    const unfinished = `${path}.new`;
    try {
      await run(qemuImg, ['create', '-q', '-f', 'qcow2', '-o', 'compat=1.1', '-F', formatOf(volumeId, on), '-b', pathOf(volumeId, on), unfinished, `${sizeGib}G`], { timeout: QEMU_IMG_MS });
      await rename(unfinished, path);
      return undefined;
    } catch (cause) {
      return refusalFor(cause, volumeId) ?? fault('put a layer on', volumeId, cause);
    }
  };

  const commit = async (volumeId: VolumeId, layer: string, into: Layer): Promise<void> => {
    await locateOne(volumeId);
    try {
      await run(qemuImg, ['commit', '-q', '-f', 'qcow2', '-b', pathOf(volumeId, into), pathOf(volumeId, layer)], { timeout: MERGE_MS });
    } catch (cause) {
      throw new DiskFault('merge a layer of', volumeId, cause);
    }
  };

  const rebase = async (volumeId: VolumeId, layer: string, on: Layer): Promise<void> => {
    await locateOne(volumeId);
    const path = pathOf(volumeId, layer);
    try {
      // A running QEMU has said so itself already.
      if ((await infoOf(path, 'qcow2', '--force-share'))['backing-filename'] === pathOf(volumeId, on)) return;
      await run(qemuImg, ['rebase', '-q', '-u', '-f', 'qcow2', '-F', formatOf(volumeId, on), '-b', pathOf(volumeId, on), path], { timeout: QEMU_IMG_MS });
    } catch (cause) {
      throw new DiskFault('set what stands below a layer of', volumeId, cause);
    }
  };

  const keepCount: Disks['keepCount'] = async (volumeId, layer, { under, notUnder }) => {
    await locateOne(volumeId);
    // Only qcow2 has a place for it.
    if (formatOf(volumeId, layer) === 'raw') return;
    const path = pathOf(volumeId, layer);
    try {
      const there = new Set(((await infoOf(path, 'qcow2'))['format-specific']?.data?.bitmaps ?? []).map(({ name }) => name));
      for (const name of [under, notUnder]) if (name !== null && there.has(name)) await run(qemuImg, ['bitmap', '--remove', '-f', 'qcow2', path, name], { timeout: QEMU_IMG_MS });
      if (under !== null) await run(qemuImg, ['bitmap', '--add', '-f', 'qcow2', path, under], { timeout: QEMU_IMG_MS });
    } catch (cause) {
      throw new DiskFault('keep count of what is written on', volumeId, cause);
    }
  };

  /** QEMU goes back to nothing while there is a count, which would not say what comes of that. */
  const goBack = async (path: string, name: InnerName, { 'format-specific': of }: Info): Promise<void> => {
    for (const bitmap of of?.data?.bitmaps ?? []) await run(qemuImg, ['bitmap', '--remove', '-f', 'qcow2', path, bitmap.name], { timeout: QEMU_IMG_MS });
    await run(qemuImg, ['snapshot', '-q', '-a', name, path], { timeout: MERGE_MS });
  };

  const isKept = ({ snapshots = [] }: Info, wanted: InnerName): boolean => snapshots.some(({ name }) => name === wanted);

  const keepInside: Disks['keepInside'] = async (volumeId, as, back) => {
    if (!(await exists(volumeId, null))) return refuse('disk.missing_on_node', { volumeId, says: 'the disk of this VM is not where this node keeps disks' });
    if (formatOf(volumeId, null) !== 'qcow2') return refuse('disk.not_qcow2', { volumeId, says: 'the disk is raw, which has no place for a snapshot inside: convert it, or take one of kind external' });
    const path = pathOf(volumeId, null);
    try {
      const info = await infoOf(path, 'qcow2');
      if (back !== null && !isKept(info, back)) return refuse('snapshot.missing_on_node', { volumeId, name: back, says: 'the file of the disk holds no such snapshot any more' });
      // A second one of the same name could never be told from the first.
      if (!isKept(info, as)) await run(qemuImg, ['snapshot', '-q', '-c', as, path], { timeout: MERGE_MS });
      if (back !== null) await goBack(path, back, info);
      return undefined;
    } catch (cause) {
      return refusalFor(cause, volumeId) ?? fault('keep a snapshot inside of', volumeId, cause);
    }
  };

  const letGo: Disks['letGo'] = async (volumeId, name, back) => {
    if (!(await exists(volumeId, null)) || formatOf(volumeId, null) !== 'qcow2') return;
    const path = pathOf(volumeId, null);
    try {
      const info = await infoOf(path, 'qcow2');
      if (!isKept(info, name)) return;
      if (back) await goBack(path, name, info);
      await run(qemuImg, ['snapshot', '-q', '-d', name, path], { timeout: MERGE_MS });
    } catch (cause) {
      throw new DiskFault('take a snapshot out of', volumeId, cause);
    }
  };

  const restore: Disks['restore'] = async ({ volumeId, poolId }, from, signal, progress) => {
    if (await exists(volumeId, null)) return undefined;
    const folder = await pools.folderOf(poolId);
    if (folder === undefined) return refuse('pool.not_on_node', { poolId });
    const path = join(folder, nameOf(volumeId, null, 'qcow2'));
    const unfinished = `${path}.new`;
    try {
      await rm(unfinished, { force: true });
      await runWatched(qemuImg, ['convert', '-p', '-O', 'qcow2', '-o', 'compat=1.1', from, unfinished], { timeoutMs: MERGE_MS, signal }, progress);
      await putInPlace(unfinished, path);
      homes.set(volumeId, { folder, format: 'qcow2' });
      return undefined;
    } catch (cause) {
      return refusalFor(cause, volumeId) ?? fault('restore', volumeId, cause);
    }
  };

  /** What is in a file becomes another file, whole: written beside it, on the disk, renamed. */
  const rewrite = async (from: { readonly path: string; readonly format: VolumeFormat }, to: { readonly path: string; readonly format: VolumeFormat }, signal: AbortSignal, { compress = false, sizeGib = 0 } = {}): Promise<void> => {
    const unfinished = `${to.path}.new`;
    await rm(unfinished, { force: true });
    try {
      // What reads and writes so much stands back behind the guests.
      await run('nice', ['-n', '10', qemuImg, 'convert', '-q', '-f', from.format, '-O', to.format, ...(to.format === 'qcow2' ? ['-o', 'compat=1.1'] : []), ...(compress ? ['-c'] : []), from.path, unfinished], { timeout: MERGE_MS, signal });
      if (sizeGib > 0) await growFile(unfinished, to.format, sizeGib);
      await putInPlace(unfinished, to.path);
    } catch (cause) {
      await rm(unfinished, { force: true });
      throw cause;
    }
  };

  const blank = async (path: string, format: VolumeFormat, sizeGib: number): Promise<void> => {
    const unfinished = `${path}.new`;
    await rm(unfinished, { force: true });
    await run(qemuImg, ['create', '-q', '-f', format, ...(format === 'qcow2' ? ['-o', 'compat=1.1'] : []), unfinished, `${sizeGib}G`], { timeout: QEMU_IMG_MS });
    await putInPlace(unfinished, path);
  };

  const make = async ({ volumeId, poolId, format, sizeGib, source }: VolumePlan, signal: AbortSignal): Done => {
    const folder = await pools.folderOf(poolId);
    if (folder === undefined) return refuse('pool.not_on_node', { poolId });
    const path = join(folder, nameOf(volumeId, null, format));
    if (!(await isFile(path))) {
      try {
        if (source.kind === 'found') {
          const refused = await take(join(folder, source.file), path, { format, sizeGib });
          if (refused !== undefined) return refused;
        } else if (source.kind === 'blank') {
          await blank(path, format, sizeGib);
        } else {
          const from = await originOf(source, signal);
          if ('refused' in from) return from;
          if ((await sizeOf(from.path, from.format)) > sizeGib * GIB) return refuse('disk.smaller_than_source', { sizeGib });
          await rewrite(from, { path, format }, signal, { sizeGib });
        }
      } catch (cause) {
        return refusalFor(cause, volumeId) ?? fault('make', volumeId, cause);
      }
    }
    homes.set(volumeId, { folder, format });
    return undefined;
  };

  /**
   * A file becomes another's, as it is. Whoever put it there may have meant harm, or may use it still: its header is read
   * by ourselves before anything else opens it, and QEMU says no while anybody reads or writes it.
   */
  const take = async (from: string, to: string, { format, sizeGib }: Pick<VolumePlan, 'format' | 'sizeGib'>): Done => {
    const found = await lstat(from).catch(() => undefined);
    if (found?.isFile() !== true) return refuse('volume.file_gone', { file: basename(from) });
    if (found.nlink > 1) return refuse('volume.file_elsewhere', { file: basename(from), names: found.nlink });
    const head = await headOf(from);
    const read = formatIn(head) === format ? readHeader(head, found.size, format) : refuse('volume.file_changed', { file: basename(from), says: `it is no ${format} any more` });
    if ('refused' in read) return read;
    if (read.virtualBytes > sizeGib * GIB) return refuse('volume.file_changed', { file: basename(from), says: 'it has grown' });
    // To the size that it has: nothing is changed, and nobody else may have it open.
    await run(qemuImg, ['resize', '-q', '-f', format, from, String(read.virtualBytes)], { timeout: QEMU_IMG_MS });
    await putInPlace(from, to);
    return undefined;
  };

  const originOf = async (source: Exclude<VolumePlan['source'], { kind: 'blank' | 'found' }>, signal: AbortSignal): Promise<Refusal | { readonly path: string; readonly format: VolumeFormat }> => {
    if (source.kind === 'image') {
      const missing = await files.ensure(source.file, signal);
      if (missing !== undefined) return missing;
      const image = await imageAlone(source.file, source.format);
      return isRefusal(image) ? image : { path: files.pathOf(source.file), format: source.format };
    }
    if (!(await exists(source.volumeId, source.layer))) return refuse('disk.missing_on_node', { volumeId: source.volumeId, says: 'what is to be copied is not where this node keeps disks' });
    return { path: pathOf(source.volumeId, source.layer), format: formatOf(source.volumeId, source.layer) };
  };

  const work = async ({ volumeId, poolId, format, sizeGib, work: wanted }: VolumeWorkPlan, signal: AbortSignal): Done => {
    const folder = await pools.folderOf(poolId);
    if (folder === undefined) return refuse('pool.not_on_node', { poolId });
    const fileOf = (as: VolumeFormat) => ({ path: join(folder, nameOf(volumeId, null, as)), format: as });
    const own = fileOf(format);
    const to = fileOf(wanted.kind === 'convert' ? wanted.format : format);
    // Converted before: what is there is whole, and the other only has to go.
    const converted = own.path !== to.path && (await isFile(to.path));
    if (!converted && !(await isFile(own.path))) return refuse('disk.missing_on_node', { volumeId, says: 'the volume is not where this node keeps disks' });
    try {
      if (wanted.kind === 'wipe') {
        // Says no while somebody uses it.
        await sizeOf(own.path, format);
        await zero(own.path, signal);
        await blank(own.path, format, sizeGib);
      } else if (!converted && !(wanted.kind === 'convert' && own.path === to.path)) {
        await rewrite(own, to, signal, { compress: wanted.kind === 'sparsify' && wanted.compress });
      }
      if (own.path !== to.path) await rm(own.path, { force: true });
      homes.set(volumeId, { folder, format: to.format });
      return undefined;
    } catch (cause) {
      return refusalFor(cause, volumeId) ?? fault('work on', volumeId, cause);
    }
  };

  const settle = async ({ volumeId, poolId, format, sizeGib, work: wanted }: VolumeWorkPlan, signal: AbortSignal): Done => {
    const folder = await pools.folderOf(poolId);
    if (folder === undefined) throw new DiskFault('settle', volumeId, new Error('its pool is not there'));
    const fileOf = (as: VolumeFormat) => ({ path: join(folder, nameOf(volumeId, null, as)), format: as });
    const own = fileOf(format);
    try {
      for (const as of FORMATS) await rm(`${fileOf(as).path}.new`, { force: true });
      if (wanted.kind === 'wipe') {
        await blank(own.path, format, sizeGib);
      } else {
        for (const other of FORMATS.filter((as) => as !== format).map(fileOf)) {
          if (!(await isFile(other.path))) continue;
          if (!(await isFile(own.path))) await rewrite(other, own, signal);
          await rm(other.path, { force: true });
        }
      }
      homes.set(volumeId, { folder, format });
      return (await isFile(own.path)) ? undefined : refuse('disk.missing_on_node', { volumeId, says: 'the volume is not where this node keeps disks' });
    } catch (cause) {
      return fault('settle', volumeId, cause);
    }
  };

  /** What a file has on the disk is overwritten, so that it cannot be read there either once the file is gone. */
  const zero = async (path: string, signal: AbortSignal): Promise<void> => {
    const { stdout } = await run(qemuImg, ['map', '--output=json', '-f', 'raw', path], { timeout: QEMU_IMG_MS, maxBuffer: MAP_BYTES_MAX });
    const zeroes = Buffer.alloc(ZEROES_BYTES);
    const file = await open(path, 'r+');
    try {
      for (const { start, length, data } of JSON.parse(stdout) as readonly { start: number; length: number; data: boolean }[]) {
        if (!data) continue;
        for (let done = 0; done < length; done += ZEROES_BYTES) {
          signal.throwIfAborted();
          await file.write(zeroes, 0, Math.min(ZEROES_BYTES, length - done), start + done);
        }
      }
      await file.sync();
    } finally {
      await file.close();
    }
  };

  return {
    pathOf, formatOf, locate,
    keepCount: (volumeId, layer, names) => turns(() => keepCount(volumeId, layer, names)),
    keepInside: (volumeId, as, back) => turns(() => keepInside(volumeId, as, back)),
    letGo: (volumeId, name, back) => turns(() => letGo(volumeId, name, back)),
    restore: (volume, from, signal, progress) => copies(() => restore(volume, from, signal, progress)),
    make: (volume, signal) => copies(() => make(volume, signal)),
    work: (volume, signal) => copies(() => work(volume, signal)),
    settle: (volume, signal) => copies(() => settle(volume, signal)),
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
    copyOut: (volumeId, layer, to, signal) => copies(async () => {
      await locateOne(volumeId);
      try {
        await rewrite({ path: pathOf(volumeId, layer), format: formatOf(volumeId, layer) }, { path: to, format: 'qcow2' }, signal);
      } catch (cause) {
        throw new DiskFault('copy', volumeId, cause);
      }
    }),
    link: async (volumeId, file) => {
      const path = join(poolDir, nameOf(volumeId, null, 'qcow2'));
      if (linkedFrom(path) === file) return undefined;
      if (!(await isFile(file))) return refuse('disk.missing_on_node', { volumeId, says: 'the file of the disk is not there' });
      try {
        await symlink(file, path);
        return undefined;
      } catch (cause) {
        return fault('link', volumeId, cause);
      }
    },
    unlink: async (volumeId) => {
      const path = join(poolDir, nameOf(volumeId, null, 'qcow2'));
      if (linkedFrom(path) !== undefined) await rm(path, { force: true });
    },
    ensure: async (disk, signal) => {
      // Outside of the queue: others need not wait for what comes over the network.
      const missing = disk.imageFile === null || await exists(disk.volumeId, null) ? undefined : await files.ensure(disk.imageFile, signal);
      return missing ?? (disk.full ? copies : turns)(() => ensure(disk, signal));
    },
    remove: async (volumeId, poolId, found) => {
      const only = poolId === undefined ? undefined : await pools.folderOf(poolId);
      // What is not there now may still hold it: it comes again.
      if (poolId !== undefined && only === undefined) throw new DiskFault('remove', volumeId, new Error('its pool is not there'));
      try {
        const wholes = FORMATS.map((format) => nameOf(volumeId, null, format));
        if (found !== undefined && only !== undefined) {
          // Where something else has its name by now it stays what it is: nobody's.
          for (const name of wholes) if ((await isFile(join(only, name))) && !(await isThere(join(only, found)))) await putInPlace(join(only, name), join(only, found));
          homes.delete(volumeId);
          return undefined;
        }
        for (const folder of only === undefined ? pools.folders() : [only]) {
          // What others stand on goes last, and what is unfinished before it: a disk that is there is a whole one.
          const layers = (await readdir(folder)).filter((name) => name.startsWith(`${volumeId}.`) && !wholes.includes(name));
          for (const path of [...layers, ...wholes].map((name) => join(folder, name))) {
            const elsewhere = linkedFrom(path);
            if (elsewhere !== undefined) await rm(elsewhere, { force: true });
            await rm(path, { force: true });
          }
        }
        homes.delete(volumeId);
        return undefined;
      } catch (cause) {
        return fault('remove', volumeId, cause);
      }
    },
  };
}

/** Where a file of a domain that was adopted lies: the volume's name is a link to it. */
const linkedFrom = (path: string): string | undefined => (lstatSync(path, { throwIfNoEntry: false })?.isSymbolicLink() === true ? readlinkSync(path) : undefined);

const isThere = (path: string): Promise<boolean> => lstat(path).then(() => true, () => false);

async function headOf(path: string): Promise<Uint8Array> {
  const file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW);
  try {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(HEAD_BYTES), 0, HEAD_BYTES, 0);
    return buffer.subarray(0, bytesRead);
  } finally {
    await file.close();
  }
}

const isFile = (path: string): Promise<boolean> => stat(path).then((found) => found.isFile(), () => false);

/** Whether qemu-img failed because another process has the disk open. */
export const isLocked = (cause: unknown): boolean => /Failed to get .* lock/i.test(wordsOf(cause));

const refusalFor = (cause: unknown, volumeId: VolumeId): Refusal | undefined => {
  if (/No space left on device/.test(wordsOf(cause))) return refuse('pool.full', { volumeId, says: 'no space is left where this node keeps the disk' });
  return isLocked(cause) ? refuse('disk.in_use', { volumeId, says: 'another process uses this disk' }) : undefined;
};

const fault = (what: string, volumeId: VolumeId, cause: unknown): never => { throw new DiskFault(what, volumeId, cause); };

const wordsOf = (fault: unknown): string =>
  (fault instanceof Error ? `${fault.message} ${'stderr' in fault ? String(fault.stderr) : ''}` : String(fault));
