/*
 * Storage pools and their volumes. A volume's bytes are kept as chunks of those that were written and are
 * not all zero, so a volume of a terabyte with nothing in it takes nothing. All volumes of a node share a
 * limit: the fake is asked to be small, not to be a disk.
 *
 * The files of disks (images, the overlays that snapshots make) are in the same book, under their paths.
 */
import { attributeOf, childOf, element, textOf } from '../xml.ts';
import type { XmlElement } from '../xml.ts';
import { bytesOf, nameOf, parsed, printed, uuidOf, withChild } from './definition.ts';
import type { FakeNode } from './node.ts';
import { chance } from './clock.ts';
import { internal, invalidArgument, noPool, noVolume, operationFailed, operationInvalid, Refusal, systemError, volumeExists } from './refusal.ts';
import { errorCodes } from '../errors.ts';

const chunkBytes = 65_536;

/** Bytes with holes. */
export class SparseBytes {
  readonly #chunks = new Map<number, Buffer>();
  readonly #budget: { bytesLeft: number };

  constructor(budget: { bytesLeft: number }) {
    this.#budget = budget;
  }
  get bytesKept(): number {
    return this.#chunks.size * chunkBytes;
  }
  write(offset: number, data: Uint8Array): void {
    for (let done = 0; done < data.length; ) {
      const at = offset + done;
      const index = Math.floor(at / chunkBytes);
      const inside = at % chunkBytes;
      const part = data.subarray(done, done + chunkBytes - inside);
      let chunk = this.#chunks.get(index);
      if (chunk === undefined && part.some((byte) => byte !== 0)) {
        if (this.#budget.bytesLeft < chunkBytes) throw systemError('cannot write data: No space left on device', 'streams');
        this.#budget.bytesLeft -= chunkBytes;
        this.#chunks.set(index, (chunk = Buffer.alloc(chunkBytes)));
      }
      chunk?.set(part, inside);
      done += part.length;
    }
  }
  /** Zeros: whole chunks are given back. */
  clear(offset: number, length: number): void {
    const end = offset + length;
    for (const [index, chunk] of this.#chunks) {
      const from = Math.max(offset, index * chunkBytes);
      const to = Math.min(end, (index + 1) * chunkBytes);
      if (from >= to) continue;
      if (to - from === chunkBytes) this.#drop(index);
      else chunk.fill(0, from - index * chunkBytes, to - index * chunkBytes);
    }
  }
  /** Bytes from `offset` to `end`, in pieces: data, or a hole's length. */
  *segments(offset: number, end: number): Generator<Buffer | number, void, undefined> {
    let hole = 0;
    for (let at = offset; at < end; ) {
      const index = Math.floor(at / chunkBytes);
      const chunk = this.#chunks.get(index);
      if (chunk === undefined) {
        // On to the next chunk that is there: a hole may be as large as a disk.
        let next = Number.POSITIVE_INFINITY;
        if (this.#chunks.size > 0) for (const other of this.#chunks.keys()) if (other > index && other < next) next = other;
        const to = Math.min(end, next * chunkBytes);
        hole += to - at;
        at = to;
        continue;
      }
      if (hole > 0) yield hole;
      hole = 0;
      const to = Math.min(end, (index + 1) * chunkBytes);
      yield chunk.subarray(at - index * chunkBytes, to - index * chunkBytes);
      at = to;
    }
    if (hole > 0) yield hole;
  }
  #drop(index: number): void {
    if (this.#chunks.delete(index)) this.#budget.bytesLeft += chunkBytes;
  }
  dispose(): void {
    for (const index of [...this.#chunks.keys()]) this.#drop(index);
  }
}

export interface Volume {
  readonly pool: string;
  name: string;
  path: string;
  capacity: number;
  allocation: number;
  readonly format: string;
  readonly target: XmlElement | undefined;
  readonly backing: XmlElement | undefined;
  bytes: SparseBytes | undefined;
  busy: boolean;
}

export interface Pool {
  readonly name: string;
  readonly uuid: string;
  readonly type: string;
  xml: XmlElement;
  readonly path: string;
  active: boolean;
  persistent: boolean;
  autostart: boolean;
  built: boolean;
  readonly capacity: number;
  readonly volumes: Map<string, Volume>;
}

export interface StorageBook {
  readonly pools: Map<string, Pool>;
  readonly budget: { bytesLeft: number };
  /** Files that are no volumes, such as overlays of snapshots. */
  readonly files: Map<string, FakeFile>;
}

export interface FakeFile {
  /** Bytes of the guest's disk, and of the file. */
  capacity: number;
  allocation: number;
  /** What it stands on, as its own header says. */
  backing?: { readonly path: string; readonly format: string } | undefined;
}

const books = new WeakMap<FakeNode, StorageBook>();
export function storageOf(node: FakeNode): StorageBook {
  let book = books.get(node);
  if (book === undefined) books.set(node, (book = { pools: new Map(), budget: { bytesLeft: node.volumeBytesMax }, files: new Map() }));
  return book;
}

const typesWithoutPath = new Set(['rbd', 'gluster', 'sheepdog', 'iscsi-direct', 'zfs']);

export function readPool(node: FakeNode, xml: string): Pool {
  const root = parsed(xml, 'pool');
  const { type } = root.attributes;
  if (type === undefined) throw internal('unknown storage pool type (null)', 'storage');
  const name = nameOf(root);
  const uuid = uuidOf(root, () => node.uuidNew());
  const path = textOf(childOf(root, 'target', 'path'));
  if (path === '' && !typesWithoutPath.has(type)) throw new Refusal(errorCodes.xml, 'storage', 'XML error: missing storage pool target path');
  const { pools } = storageOf(node);
  for (const other of pools.values()) {
    if (other.name === name && other.uuid !== uuid) throw operationFailed(`pool '${name}' already exists with uuid ${other.uuid}`, 'storage');
    if (other.uuid === uuid && other.name !== name) throw operationFailed(`pool '${other.name}' is already defined with uuid ${uuid}`, 'storage');
    if (other.uuid !== uuid && path !== '' && other.path === path) throw operationFailed(`Storage source conflict with pool: '${other.name}'`, 'storage');
  }
  return {
    name, uuid, type, path, active: false, persistent: false, autostart: false,
    xml: element('pool', { type }, element('name', {}, name), element('uuid', {}, uuid), ...root.children.filter((one) => typeof one !== 'string' && !['name', 'uuid', 'capacity', 'allocation', 'available'].includes(one.name))),
    // A path that says so is not there yet: whoever makes a pool of it builds it first.
    built: typesWithoutPath.has(type), capacity: (200 + Math.floor(chance('pool', node.seed, uuid) * 800)) * 1_073_741_824, volumes: new Map(),
  };
}

export function definePool(node: FakeNode, pool: Pool): Pool {
  const { pools } = storageOf(node);
  const before = pools.get(pool.uuid);
  if (before !== undefined) {
    before.xml = pool.xml;
    before.persistent = true;
    node.emitPool(before, 'defined');
    return before;
  }
  pool.persistent = true;
  pools.set(pool.uuid, pool);
  node.emitPool(pool, 'defined');
  return pool;
}

export function startPool(node: FakeNode, pool: Pool, build: boolean): void {
  if (pool.active) throw operationInvalid(`storage pool '${pool.name}' is already active`, 'storage');
  if (build) buildPool(node, pool);
  if (!pool.built) throw systemError(`cannot open directory '${pool.path}': No such file or directory`, 'none');
  pool.active = true;
  node.emitPool(pool, 'started');
}

export function buildPool(node: FakeNode, pool: Pool): void {
  if (pool.active) throw operationInvalid(`storage pool '${pool.name}' is already active`, 'storage');
  pool.built = true;
  node.emitPool(pool, 'created');
}

export function findPool(node: FakeNode, ref: { readonly uuid: string; readonly name?: string }): Pool {
  const pool = storageOf(node).pools.get(ref.uuid);
  if (pool === undefined) throw noPool(`no storage pool with matching uuid '${ref.uuid}'${ref.name === undefined ? '' : ` (${ref.name})`}`);
  return pool;
}
export function poolByName(node: FakeNode, name: string): Pool {
  for (const pool of storageOf(node).pools.values()) if (pool.name === name) return pool;
  throw noPool(`no storage pool with matching name '${name}'`);
}
export function activePool(pool: Pool): Pool {
  if (!pool.active) throw operationInvalid(`storage pool '${pool.name}' is not active`, 'storage');
  return pool;
}

export const handleOf = (volume: Volume) => ({ pool: volume.pool, name: volume.name, key: volume.path });

export function volumeByName(pool: Pool, name: string): Volume {
  const volume = activePool(pool).volumes.get(name);
  if (volume === undefined) throw noVolume(`no storage vol with matching name '${name}'`);
  return volume;
}
export function volumeByPath(node: FakeNode, path: string, word = 'path'): Volume {
  for (const pool of storageOf(node).pools.values()) {
    if (!pool.active) continue;
    for (const volume of pool.volumes.values()) if (volume.path === path) return volume;
  }
  throw noVolume(`no storage vol with matching ${word} '${path}'`);
}
export const findVolume = (node: FakeNode, ref: { readonly pool: string; readonly name: string }): Volume => volumeByName(poolByName(node, ref.pool), ref.name);

export function allocatedIn(pool: Pool): number {
  let sum = 0;
  for (const volume of pool.volumes.values()) sum += volume.allocation;
  return sum;
}

export function createVolume(node: FakeNode, pool: Pool, xml: string, from?: Volume): Volume {
  activePool(pool);
  const root = parsed(xml, 'volume');
  const name = nameOf(root);
  if (pool.volumes.has(name)) throw new Refusal(errorCodes.storageVolumeExists, 'storage', volumeExists('').message.replace('storage volume exists already: ', `storage volume '${name}' exists already`));
  const capacityGiven = childOf(root, 'capacity');
  const backing = childOf(root, 'backingStore');
  if (capacityGiven === undefined && backing === undefined && from === undefined) throw new Refusal(errorCodes.xml, 'storage', 'XML error: missing capacity element');
  const capacity = Math.max(capacityGiven === undefined ? 0 : bytesOf(capacityGiven), from?.capacity ?? 0);
  const format = attributeOf(root, 'type', 'target', 'format') ?? 'raw';
  const sparse = childOf(root, 'allocation') === undefined ? undefined : bytesOf(childOf(root, 'allocation'));
  const allocation = format === 'raw' ? Math.min(capacity, sparse ?? capacity) : 200_704;
  if (allocatedIn(pool) + allocation > pool.capacity) throw systemError(`cannot allocate ${allocation} bytes in file '${pool.path}/${name}': No space left on device`, 'storage');
  const volume: Volume = {
    pool: pool.name, name, capacity, allocation, format, backing, busy: false,
    path: pool.path === '' ? `${pool.name}/${name}` : `${pool.path}/${name}`,
    target: childOf(root, 'target'),
    bytes: undefined,
  };
  if (from?.bytes !== undefined) {
    volume.bytes = new SparseBytes(storageOf(node).budget);
    let at = 0;
    for (const segment of from.bytes.segments(0, from.capacity)) {
      if (typeof segment !== 'number') volume.bytes.write(at, segment);
      at += typeof segment === 'number' ? segment : segment.length;
    }
  }
  pool.volumes.set(name, volume);
  return volume;
}

export function volumeXml(node: FakeNode, volume: Volume): string {
  const bytes = (name: string, amount: number) => element(name, { unit: 'bytes' }, amount);
  const seconds = (node.startedAt / 1_000).toFixed(9);
  const target = volume.target ?? element('target');
  const kept = target.children.filter((one) => typeof one !== 'string' && !['path', 'format', 'permissions', 'timestamps'].includes(one.name));
  return printed(
    element(
      'volume',
      { type: 'file' },
      element('name', {}, volume.name),
      element('key', {}, volume.path),
      bytes('capacity', volume.capacity),
      bytes('allocation', volume.allocation),
      bytes('physical', volume.allocation),
      element(
        'target',
        {},
        element('path', {}, volume.path),
        element('format', { type: volume.format }),
        childOf(target, 'permissions') ?? element('permissions', {}, element('mode', {}, '0600'), element('owner', {}, 0), element('group', {}, 0)),
        element('timestamps', {}, ...['atime', 'mtime', 'ctime'].map((name) => element(name, {}, seconds)), element('btime', {}, 0)),
        ...kept,
      ),
      volume.backing,
    ),
  );
}

export function poolXml(pool: Pool, inactive: boolean): string {
  const allocation = pool.active && !inactive ? allocatedIn(pool) : 0;
  const capacity = pool.active && !inactive ? pool.capacity : 0;
  const sizes = [element('capacity', { unit: 'bytes' }, capacity), element('allocation', { unit: 'bytes' }, allocation), element('available', { unit: 'bytes' }, capacity - allocation)];
  const [name, uuid, ...rest] = pool.xml.children;
  const root: XmlElement = { ...pool.xml, children: [name as XmlElement, uuid as XmlElement, ...sizes, ...(childOf(pool.xml, 'source') === undefined ? [element('source')] : []), ...rest] };
  const target = childOf(root, 'target');
  return printed(target === undefined || childOf(target, 'permissions') !== undefined ? root : withChild(root, 'target', { ...target, children: [...target.children, element('permissions', {}, element('mode', {}, '0711'), element('owner', {}, 0), element('group', {}, 0))] }));
}

export function resizeVolume(volume: Volume, size: number, options: { readonly delta: boolean; readonly shrink: boolean; readonly allocate: boolean }): void {
  const capacity = options.delta ? volume.capacity + (options.shrink ? -size : size) : size;
  if (capacity < 0) throw invalidArgument('new capacity must not be below zero', 'storage');
  if (capacity < volume.allocation) throw invalidArgument("can't shrink capacity below existing allocation", 'storage');
  if (capacity < volume.capacity && !options.shrink) throw invalidArgument("Can't shrink capacity below current capacity unless shrink flag explicitly specified", 'storage');
  volume.capacity = capacity;
  if (options.allocate) volume.allocation = capacity;
}

/** Bytes that the guest sees of the file, if it is known. */
export function fileSize(node: FakeNode, path: string): { capacity: number; allocation: number } | undefined {
  const { pools, files } = storageOf(node);
  const file = files.get(path);
  if (file !== undefined) return file;
  for (const pool of pools.values()) {
    if (!path.startsWith(pool.path)) continue;
    for (const volume of pool.volumes.values()) if (volume.path === path) return volume;
  }
  return undefined;
}
const sizeOtherwise = { capacity: 10 * 1_073_741_824, allocation: 2 * 1_073_741_824 };
/** As `fileSize`; of an unknown file what a usual image has. */
export const fileSizeOrUsual = (node: FakeNode, path: string | undefined): { capacity: number; allocation: number } => (path === undefined ? { capacity: 0, allocation: 0 } : (fileSize(node, path) ?? sizeOtherwise));
