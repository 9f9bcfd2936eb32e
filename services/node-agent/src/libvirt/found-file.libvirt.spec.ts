/* C-05, A3-06: a file that somebody has put into a pool becomes a volume, or stays theirs: with the qemu-img that nodes have. */
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, linkSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { HOSTILE } from '@chronovirt/contracts/image/testing-qcow2';
import type { PoolId, VolumeId } from '@chronovirt/contracts/ids';
import { createDisks, type Disks } from './qemu-img.os.ts';

const run = promisify(execFile);
const volumeId: VolumeId = `volume_${'1'.repeat(32)}`;
const poolId: PoolId = `pool_${'1'.repeat(32)}`;

describe('A file that somebody has put into a pool', () => {
  let poolDir: string;
  let disks: Disks;
  beforeEach(() => {
    poolDir = mkdtempSync(join(tmpdir(), 'cv-found-'));
    disks = createDisks({ images: { pathOf: (file) => file, ensure: () => Promise.resolve(undefined), sweep: () => Promise.resolve([]) }, poolDir });
  });
  afterEach(() => { rmSync(poolDir, { recursive: true, force: true }); });

  const pathOf = (name: string): string => join(poolDir, name);
  const made = async (name: string, format: 'qcow2' | 'raw' = 'qcow2', size = '100M'): Promise<Buffer> => {
    await run('qemu-img', ['create', '-q', '-f', format, pathOf(name), size]);
    return readFileSync(pathOf(name));
  };
  const take = (file: string, format: 'qcow2' | 'raw' = 'qcow2', sizeGib = 1) => disks.make({ volumeId, poolId, format, sizeGib, source: { kind: 'found', file } }, new AbortController().signal);
  const names = (): readonly string[] => readdirSync(poolDir).sort();

  it('becomes the volume as it is, once, and is theirs again when the volume is not to be', async () => {
    for (const format of ['qcow2', 'raw'] as const) {
      const bytes = await made('theirs', format);
      for (const _ of ['once', 'again']) expect(await take('theirs', format)).toBeUndefined();
      expect(names()).toEqual([`${volumeId}.${format}`]);
      expect(readFileSync(pathOf(`${volumeId}.${format}`)).equals(bytes)).toBe(true);
      expect(disks.formatOf(volumeId, null)).toBe(format);
      for (const _ of ['once', 'again']) expect(await disks.remove(volumeId, poolId, 'theirs')).toBeUndefined();
      expect(names()).toEqual(['theirs']);
      rmSync(pathOf('theirs'));
    }
  });

  it('is not thrown away when another has its name by then', async () => {
    await made('theirs');
    await take('theirs');
    writeFileSync(pathOf('theirs'), 'another');
    await disks.remove(volumeId, poolId, 'theirs');
    expect(names()).toEqual(['theirs', `${volumeId}.qcow2`]);
    expect(readFileSync(pathOf('theirs'), 'utf8')).toBe('another');
  });

  it('is refused and left alone when its header leads elsewhere or is not sound', async () => {
    expect(HOSTILE.length).toBeGreaterThan(5);
    for (const [what, bytes, refused] of HOSTILE) {
      writeFileSync(pathOf('theirs'), bytes);
      expect(await take('theirs'), what).toMatchObject({ refused: refused === 'image.not_of_format' ? 'volume.file_changed' : refused });
      expect(names()).toEqual(['theirs']);
    }
  });

  it('is refused when it is another than was found: gone, grown, of another format, a link, or one with another name', async () => {
    expect(await take('theirs')).toMatchObject({ refused: 'volume.file_gone' });
    await made('theirs', 'qcow2', '2G');
    expect(await take('theirs')).toMatchObject({ refused: 'volume.file_changed' });
    expect(await take('theirs', 'raw', 8)).toMatchObject({ refused: 'volume.file_changed' });
    linkSync(pathOf('theirs'), pathOf('another'));
    expect(await take('theirs', 'qcow2', 2)).toMatchObject({ refused: 'volume.file_elsewhere' });
    symlinkSync('/etc/hostname', pathOf('link'));
    expect(await take('link', 'raw')).toMatchObject({ refused: 'volume.file_gone' });
    expect(existsSync(pathOf(`${volumeId}.qcow2`))).toBe(false);
  });

  it('is refused while anybody has it open, be it to write it or to read what stands on it', async () => {
    await made('theirs');
    await run('qemu-img', ['create', '-q', '-f', 'qcow2', '-F', 'qcow2', '-b', pathOf('theirs'), pathOf('on-it')]);
    for (const open of ['theirs', 'on-it']) {
      const user = spawn('qemu-io', ['-f', 'qcow2', pathOf(open)], { stdio: ['pipe', 'pipe', 'inherit'] });
      // It says so when it has opened it.
      await once(user.stdout, 'data');
      expect(await take('theirs')).toMatchObject({ refused: 'disk.in_use' });
      user.stdin.end('quit\n');
      await once(user, 'exit');
    }
    expect(await take('theirs')).toBeUndefined();
  });
});
