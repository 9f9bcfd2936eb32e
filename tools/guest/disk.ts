/*
 * A disk that starts by itself under a BIOS, made from files alone: no mount, no loop device, no root.
 *
 *   0        the MBR: syslinux' boot code and a table of two partitions
 *   1 MiB    partition 1, active, FAT16: syslinux, kernel, first root
 *   then     partition 2: the guest's own
 *
 * The rest of a larger disk is left alone: the image is a base, each VM has its own overlay.
 */
import { execFile } from 'node:child_process';
import { closeSync, openSync, readFileSync, writeFileSync, writeSync, ftruncateSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);
const MIB = 1024 * 1024;
const SECTOR = 512;
const BOOT = { startMib: 1, type: 0x06, active: true } as const;

export interface DiskParts {
  /** Where the unpacked packages lie: syslinux, mtools, dosfstools. */
  readonly tools: string;
  readonly kernel: string;
  readonly initialRoot: Buffer;
  readonly commandLine: string;
  /** Of the first partition; that of the second follows. */
  readonly bootMib: number;
  readonly sizeMib: number;
  readonly second: SecondPartition;
}

export interface SecondPartition {
  readonly sizeMib: number;
  /** As in the table of partitions: 0x01 FAT12, 0x83 Linux. */
  readonly type: number;
  /** Writes the partition into the raw disk, from `startMib` on. */
  readonly write: (raw: string, startMib: number, make: (command: string, ...args: readonly string[]) => Promise<void>) => Promise<void>;
}

/** An empty FAT12 file system, for what the guest writes. */
export const spare = (sizeMib: number, work: string): SecondPartition => ({
  sizeMib, type: 0x01,
  write: async (raw, startMib, make) => {
    await make('mkfs.fat', '-F', '12', '-i', '43560002', '-n', 'CVDATA', '-h', String((startMib * MIB) / SECTOR), '-C', 'spare.fat', String(sizeMib * 1024));
    copyInto(raw, join(work, 'spare.fat'), startMib);
  },
});

interface Partition {
  readonly startMib: number;
  readonly sizeMib: number;
  readonly type: number;
  readonly active: boolean;
}

/** Writes the qcow2 image `target`; `work` is a scratch folder. */
export async function makeDisk(parts: DiskParts, work: string, target: string): Promise<void> {
  const tools = { PATH: ['usr/bin', 'sbin', 'usr/sbin'].map((dir) => join(parts.tools, dir)).concat(process.env['PATH'] ?? '').join(':'), MTOOLS_SKIP_CHECK: '1', SOURCE_DATE_EPOCH: '0', LANG: 'C.UTF-8', TMPDIR: work };
  const make = async (command: string, ...args: readonly string[]): Promise<void> => void (await run(command, args, { env: tools, cwd: work }));

  const boot: Partition = { ...BOOT, sizeMib: parts.bootMib };
  const second: Partition = { startMib: BOOT.startMib + parts.bootMib, sizeMib: parts.second.sizeMib, type: parts.second.type, active: false };

  writeFileSync(join(work, 'initrd'), parts.initialRoot);
  writeFileSync(join(work, 'syslinux.cfg'), `SERIAL 0 115200\nDEFAULT guest\nPROMPT 0\nTIMEOUT 0\nLABEL guest\n  LINUX /vmlinuz\n  INITRD /initrd\n  APPEND ${parts.commandLine}\n`);
  await make('mkfs.fat', '-F', '16', '-i', '43560001', '-n', 'CVBOOT', '-h', String((BOOT.startMib * MIB) / SECTOR), '-C', 'boot.fat', String(boot.sizeMib * 1024));
  await make('mcopy', '-i', 'boot.fat', parts.kernel, '::vmlinuz');
  await make('mcopy', '-i', 'boot.fat', 'initrd', '::initrd');
  await make('mcopy', '-i', 'boot.fat', 'syslinux.cfg', '::syslinux.cfg');
  await make('mcopy', '-i', 'boot.fat', join(parts.tools, 'usr/lib/syslinux/modules/bios/ldlinux.c32'), '::ldlinux.c32');
  await make('syslinux', '-i', 'boot.fat');

  const disk = join(work, 'disk.raw');
  const raw = openSync(disk, 'w');
  try {
    ftruncateSync(raw, parts.sizeMib * MIB);
    writeSync(raw, bootRecord(readFileSync(join(parts.tools, 'usr/lib/syslinux/mbr/mbr.bin')), [boot, second]), 0, SECTOR, 0);
  } finally {
    closeSync(raw);
  }
  copyInto(disk, join(work, 'boot.fat'), boot.startMib);
  await parts.second.write(disk, second.startMib, make);
  rmSync(target, { force: true });
  await run('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', '-o', 'compat=1.1,lazy_refcounts=off', disk, target]);
}

function copyInto(raw: string, file: string, startMib: number): void {
  const disk = openSync(raw, 'r+');
  try {
    const bytes = readFileSync(file);
    writeSync(disk, bytes, 0, bytes.length, startMib * MIB);
  } finally {
    closeSync(disk);
  }
}

/** The first sector: code, the table of partitions at byte 446, the signature at 510. */
function bootRecord(code: Buffer, partitions: readonly Partition[]): Buffer {
  const sector = Buffer.alloc(SECTOR);
  code.copy(sector, 0, 0, Math.min(code.length, 440));
  sector.writeUInt32LE(0x43564d31, 440); // the disk's signature
  partitions.forEach((part, index) => {
    const at = 446 + index * 16;
    sector.writeUInt8(part.active ? 0x80 : 0, at);
    sector.set([0xfe, 0xff, 0xff], at + 1); // cylinder, head and sector say "look at the block numbers"
    sector.writeUInt8(part.type, at + 4);
    sector.set([0xfe, 0xff, 0xff], at + 5);
    sector.writeUInt32LE((part.startMib * MIB) / SECTOR, at + 8);
    sector.writeUInt32LE((part.sizeMib * MIB) / SECTOR, at + 12);
  });
  sector.writeUInt16LE(0xaa55, 510);
  return sector;
}
