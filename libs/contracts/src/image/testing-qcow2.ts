/** Headers of qcow2 images made by hand, sound ones and such as nobody who means well makes. */

export interface Made {
  readonly version?: number;
  readonly backingOffset?: bigint;
  readonly backingSize?: number;
  readonly clusterBits?: number;
  readonly size?: bigint;
  readonly crypt?: number;
  readonly l1Size?: number;
  readonly l1Offset?: bigint;
  readonly refcountOffset?: bigint;
  readonly refcountClusters?: number;
  readonly snapshots?: number;
  readonly incompatible?: bigint;
  readonly refcountOrder?: number;
  readonly headerLength?: number;
  readonly compression?: number;
  readonly extensions?: readonly (readonly [type: number, data: string])[];
  readonly bytes?: number;
}

/** What `qemu-img create` makes of 1 GiB, unless said otherwise: header, table of reference counts, one block of them, first table. */
export const qcow2 = (made: Made = {}): Buffer => {
  const file = Buffer.alloc(made.bytes ?? 0x30_000 + 16);
  const put = (at: number, bytes: 4 | 8, value: number | bigint): void => {
    if (at + bytes > file.length) return;
    if (bytes === 4) file.writeUInt32BE(Number(value), at);
    else file.writeBigUInt64BE(BigInt(value), at);
  };
  put(0, 4, 0x51_46_49_fb);
  put(4, 4, made.version ?? 3);
  put(8, 8, made.backingOffset ?? 0n);
  put(16, 4, made.backingSize ?? 0);
  put(20, 4, made.clusterBits ?? 16);
  put(24, 8, made.size ?? 2n ** 30n);
  put(32, 4, made.crypt ?? 0);
  put(36, 4, made.l1Size ?? 2);
  put(40, 8, made.l1Offset ?? 0x30_000n);
  put(48, 8, made.refcountOffset ?? 0x10_000n);
  put(56, 4, made.refcountClusters ?? 1);
  put(60, 4, made.snapshots ?? 0);
  put(72, 8, made.incompatible ?? 0n);
  put(96, 4, made.refcountOrder ?? 4);
  put(100, 4, made.headerLength ?? 112);
  if (made.compression !== undefined) file.writeUInt8(made.compression, 104);
  let at = made.headerLength ?? 112;
  for (const [type, data] of made.extensions ?? []) {
    put(at, 4, type);
    put(at + 4, 4, data.length);
    file.write(data, at + 8, 'latin1');
    at += 8 + Math.ceil(data.length / 8) * 8;
  }
  return file;
};

/** The table of reference counts and its block, so that a real qemu-img is content too. */
export const soundQcow2 = (): Buffer => {
  const file = qcow2();
  file.writeBigUInt64BE(0x20_000n, 0x10_000);
  for (let cluster = 0; cluster < 4; cluster++) file.writeUInt16BE(1, 0x20_000 + cluster * 2);
  return file;
};

export const HOSTILE: readonly (readonly [what: string, file: Buffer, code: string])[] = [
  ['a backing file', qcow2({ backingOffset: 0x200n, backingSize: 11 }), 'image.has_backing_file'],
  ['a backing file of no length', qcow2({ backingOffset: 0x200n }), 'image.has_backing_file'],
  ['an external data file, by its feature', qcow2({ incompatible: 4n }), 'image.has_data_file'],
  ['an external data file, by its name alone', qcow2({ extensions: [[0x44_41_54_41, '/etc/shadow']] }), 'image.has_data_file'],
  ['one behind a harmless extension', qcow2({ extensions: [[0x68_03_f8_57, 'x'.repeat(48)], [0x44_41_54_41, '/etc/shadow']] }), 'image.has_data_file'],
  ['encryption', qcow2({ crypt: 2 }), 'image.encrypted'],
  ['a LUKS header', qcow2({ extensions: [[0x05_37_be_77, 'x'.repeat(16)]] }), 'image.encrypted'],
  ['a feature that nobody knows', qcow2({ incompatible: 2n ** 40n }), 'image.unknown_features'],
  ['an extension that nobody knows', qcow2({ extensions: [[0x12_34_56_78, 'x']] }), 'image.unknown_features'],
  ['a compression that nobody knows', qcow2({ incompatible: 8n, compression: 9 }), 'image.unknown_features'],
  ['the mark of corruption', qcow2({ incompatible: 2n }), 'image.damaged'],
  ['snapshots inside', qcow2({ snapshots: 1 }), 'image.has_snapshots'],
  ['clusters of 4 GiB', qcow2({ clusterBits: 32 }), 'image.header_invalid'],
  ['clusters of one byte', qcow2({ clusterBits: 0 }), 'image.header_invalid'],
  ['a first table of 32 GiB', qcow2({ l1Size: 0xff_ff_ff_ff }), 'image.header_invalid'],
  ['a first table too small for its size', qcow2({ size: 2n ** 40n }), 'image.header_invalid'],
  ['a first table outside of the file', qcow2({ l1Offset: 2n ** 50n }), 'image.header_invalid'],
  ['a first table in the middle of a cluster', qcow2({ l1Offset: 0x10_008n }), 'image.header_invalid'],
  ['a table of reference counts of 256 TiB', qcow2({ refcountClusters: 0xff_ff_ff_ff }), 'image.header_invalid'],
  ['no table of reference counts', qcow2({ refcountClusters: 0 }), 'image.header_invalid'],
  ['reference counts of 2^31 bits', qcow2({ refcountOrder: 31 }), 'image.header_invalid'],
  ['a header that is longer than its cluster', qcow2({ headerLength: 0x20_000 }), 'image.header_invalid'],
  ['an extension longer than its header', qcow2({ extensions: [[0x23_85_28_75, 'x'.repeat(0x20_000)]], bytes: 0x40_000 }), 'image.header_invalid'],
  ['more extensions than anybody has', qcow2({ extensions: Array.from({ length: 100 }, () => [0x23_85_28_75, 'x'] as const) }), 'image.header_invalid'],
  ['a disk of 8 EiB', qcow2({ size: 2n ** 63n }), 'image.too_large_inside'],
  ['a disk of no size', qcow2({ size: 0n }), 'image.header_invalid'],
  ['version 4', qcow2({ version: 4 }), 'image.header_invalid'],
  ['an end in the middle of its header', qcow2({ bytes: 80 }), 'image.header_invalid'],
  ['nothing of a qcow2', Buffer.from('x'.repeat(1_000)), 'image.not_of_format'],
];
