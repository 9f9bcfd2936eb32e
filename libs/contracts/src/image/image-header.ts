/*
 * What the first bytes of an uploaded disk say, read by ourselves before any other program opens it.
 *
 * An image is somebody's upload, and the header of a qcow2 is more than sizes: it can name another file as
 * what lies below (backing file) or as where the data is (external data file), and whoever opens the image
 * then opens that file, of the host. So whatever names another file is refused, as is whatever this reader does
 * not know for certain: a feature nobody here has heard of may be the next such name. Sizes of tables are held
 * against the bounds that QEMU sets itself and against the file, so that a small upload cannot make a program
 * ask for gigabytes of memory.
 *
 * A raw image has no header, so anything would do, and that is the danger: QEMU, asked to guess, would find the
 * format that the bytes pretend to be. Here nobody ever guesses; still, bytes that begin like a known format are
 * no raw image, because somebody has named the wrong one.
 *
 * Source: QEMU, docs/interop/qcow2.txt and block/qcow2.h; ECMA-119, 8.4; Linux, Documentation/arch/x86/boot.rst.
 */
import type { ImageFormat } from './image.events.ts';

/** As deciders and nodes refuse. */
interface Refusal {
  readonly refused: string;
  readonly because: Readonly<Record<string, string | number>>;
}
const refuse = (refused: string, because: Refusal['because']): Refusal => ({ refused, because });

export interface ReadHeader {
  /** Bytes that a disk over it has at least. */
  readonly virtualBytes: number;
}

/** How much of a file's beginning is read: the descriptor of an ISO lies at 32 KiB. */
export const HEAD_BYTES = 65_536;

const MAGIC = 'QFI\xfb';
const SIZE_MAX = 65_536n * 2n ** 30n; // as large as a disk may be asked for: 64 TiB
const L1_BYTES_MAX = 32 * 2 ** 20; // QCOW_MAX_L1_SIZE
const REFCOUNT_TABLE_BYTES_MAX = 8 * 2 ** 20; // QCOW_MAX_REFTABLE_SIZE
const HEADER_2_BYTES = 72;
const HEADER_3_BYTES = 104;
const EXTENSIONS_MAX = 64;
const END_OF_EXTENSIONS = 0;

/** Header extensions that name or hold nothing foreign: feature names, persistent bitmaps, the format of a backing file that is not there. */
const HARMLESS = new Set([0x68_03_f8_57, 0x23_85_28_75, 0xe2_79_2a_ca]);
const DATA_FILE_NAME = 0x44_41_54_41;
const FULL_ENCRYPTION = 0x05_37_be_77;

/** Incompatible features (bits 64…): dirty refcounts, corrupt, external data file, compression type, extended L2 entries. */
const DIRTY = 1n;
const CORRUPT = 2n;
const DATA_FILE = 4n;
const COMPRESSION = 8n;
const EXTENDED_L2 = 16n;

/** What a raw image must not begin with: what QEMU would find when it guesses. */
const OTHER_FORMATS: readonly (readonly [name: string, at: number, magic: string])[] = [
  ['qcow2', 0, MAGIC], ['qed', 0, 'QED\0'], ['vmdk', 0, 'KDMV'], ['vmdk', 0, 'COWD'], ['vmdk', 0, '# Disk DescriptorFile'], ['vhdx', 0, 'vhdxfile'], ['vpc', 0, 'conectix'],
  ['vdi', 0x40, '\x7f\x10\xda\xbe'], ['luks', 0, 'LUKS\xba\xbe'], ['parallels', 0, 'WithoutFreeSpace'], ['parallels', 0, 'WithouFreSpacExt'], ['bochs', 0, 'Bochs Virtual HD Image'], ['cloop', 0, '#!/bin/sh\n#V2.0 Format'],
];

/** cpio (two kinds), and what Linux unpacks: gzip, bzip2, lzma, xz, lzo, lz4, zstd (its lib/decompress.c). */
const INITIAL_ROOTS: readonly string[] = ['070701', '070702', '\x1f\x8b', 'BZh', '\x5d\0\0', '\xfd7zXZ\0', '\x89LZO', '\x02\x21\x4c\x18', '\x28\xb5\x2f\xfd'];

const beginsWith = (head: Uint8Array, at: number, magic: string): boolean => head.length >= at + magic.length && [...magic].every((character, index) => head[at + index] === character.charCodeAt(0));

const invalid = (says: string): Refusal => refuse('image.header_invalid', { says });

/** What a file is that nobody says anything of: a qcow2 where it begins like one, else raw. An ISO is raw to whoever reads blocks. */
export const formatIn = (head: Uint8Array): 'qcow2' | 'raw' => (beginsWith(head, 0, MAGIC) ? 'qcow2' : 'raw');

/** Judges a file of `fileBytes` bytes that begins with `head`: all of it, or its first HEAD_BYTES. */
export const readHeader = (head: Uint8Array, fileBytes: number, format: ImageFormat): ReadHeader | Refusal => {
  switch (format) {
    case 'qcow2':
      return qcow2(head, fileBytes);
    case 'raw': {
      const other = OTHER_FORMATS.find(([, at, magic]) => beginsWith(head, at, magic));
      if (other !== undefined) return refuse('image.not_of_format', { format, looksLike: other[0] });
      return fileBytes > 0 && fileBytes % 512 === 0 ? sized(BigInt(fileBytes)) : invalid('a raw disk is a number of 512-byte sectors');
    }
    case 'iso':
      // Volume descriptors begin at sector 16 of 2048 bytes; each has its type, then CD001.
      return beginsWith(head, 0x8001, 'CD001') ? { virtualBytes: fileBytes } : refuse('image.not_of_format', { format });
    case 'kernel':
      return beginsWith(head, 0x202, 'HdrS') ? { virtualBytes: fileBytes } : refuse('image.not_of_format', { format });
    case 'initrd':
      return INITIAL_ROOTS.some((magic) => beginsWith(head, 0, magic)) ? { virtualBytes: fileBytes } : refuse('image.not_of_format', { format });
  }
};

const sized = (bytes: bigint): ReadHeader | Refusal =>
  (bytes > SIZE_MAX ? refuse('image.too_large_inside', { virtualGib: Number(bytes / 2n ** 30n), maxGib: Number(SIZE_MAX / 2n ** 30n) }) : { virtualBytes: Number(bytes) });

const qcow2 = (head: Uint8Array, fileBytes: number): ReadHeader | Refusal => {
  const view = new DataView(head.buffer, head.byteOffset, head.byteLength);
  if (head.length < HEADER_2_BYTES || !beginsWith(head, 0, MAGIC)) return refuse('image.not_of_format', { format: 'qcow2' });
  const version = view.getUint32(4);
  if (version !== 2 && version !== 3) return invalid(`version ${String(version)} is neither 2 nor 3`);
  if (version === 3 && head.length < HEADER_3_BYTES) return invalid('it ends within its header');
  if (view.getBigUint64(8) !== 0n || view.getUint32(16) !== 0) return refuse('image.has_backing_file', {});
  if (view.getUint32(32) !== 0) return refuse('image.encrypted', {});

  const features = version === 3 ? view.getBigUint64(72) : 0n;
  if ((features & DATA_FILE) !== 0n) return refuse('image.has_data_file', {});
  if ((features & (DIRTY | CORRUPT)) !== 0n) return refuse('image.damaged', {});
  if ((features & ~(DIRTY | CORRUPT | DATA_FILE | COMPRESSION | EXTENDED_L2)) !== 0n) return refuse('image.unknown_features', { features: `0x${features.toString(16)}` });

  const clusterBits = view.getUint32(20);
  if (clusterBits < 9 || clusterBits > 21) return invalid(`clusters of 2^${String(clusterBits)} bytes`);
  const cluster = 2 ** clusterBits;
  const headerBytes = version === 3 ? view.getUint32(100) : HEADER_2_BYTES;
  if (version === 3 && (headerBytes < HEADER_3_BYTES || headerBytes % 8 !== 0 || headerBytes > cluster)) return invalid(`a header of ${String(headerBytes)} bytes`);
  if (version === 3 && view.getUint32(96) > 6) return invalid('reference counts of more than 64 bits');
  const compression = headerBytes > HEADER_3_BYTES && head.length > HEADER_3_BYTES ? view.getUint8(104) : 0;
  if (compression > 1 || (compression !== 0) !== ((features & COMPRESSION) !== 0n)) return refuse('image.unknown_features', { compression });

  const size = sized(view.getBigUint64(24));
  if ('refused' in size) return size;
  if (size.virtualBytes === 0) return invalid('a disk of no size');
  if (view.getUint32(60) !== 0) return refuse('image.has_snapshots', { snapshots: view.getUint32(60) });

  const within = (offset: bigint, bytes: number): boolean => offset > 0n && offset % BigInt(cluster) === 0n && offset + BigInt(bytes) <= BigInt(fileBytes);
  const l1Entries = view.getUint32(36);
  const bytesOfEntry = cluster * (cluster / ((features & EXTENDED_L2) !== 0n ? 16 : 8));
  if (l1Entries * 8 > L1_BYTES_MAX || l1Entries < Math.ceil(size.virtualBytes / bytesOfEntry)) return invalid(`a first table of ${String(l1Entries)} entries for ${String(size.virtualBytes)} bytes`);
  if (!within(view.getBigUint64(40), l1Entries * 8)) return invalid('its first table is not within it');
  const refcountBytes = view.getUint32(56) * cluster;
  if (refcountBytes === 0 || refcountBytes > REFCOUNT_TABLE_BYTES_MAX || !within(view.getBigUint64(48), refcountBytes)) return invalid('its table of reference counts is not within it');

  return extensions(view, headerBytes, Math.min(cluster, fileBytes)) ?? size;
};

/** The refusal that one of them calls for. */
const extensions = (view: DataView, from: number, end: number): Refusal | undefined => {
  let at = from;
  for (let count = 0; count < EXTENSIONS_MAX; count++) {
    // Nothing can stand in what is too short for one.
    if (at + 8 > end) return undefined;
    if (at + 8 > view.byteLength) return invalid('its header goes on for too long');
    const type = view.getUint32(at);
    const length = view.getUint32(at + 4);
    if (type === END_OF_EXTENSIONS) return undefined;
    if (type === DATA_FILE_NAME) return refuse('image.has_data_file', {});
    if (type === FULL_ENCRYPTION) return refuse('image.encrypted', {});
    if (!HARMLESS.has(type)) return refuse('image.unknown_features', { extension: `0x${type.toString(16)}` });
    if (at + 8 + length > end) return invalid('a header extension is not within its header');
    at += 8 + Math.ceil(length / 8) * 8;
  }
  return invalid('too many header extensions');
};
