/* What is kept inside of the file of a disk, with QEMU's own programs: as often as it is asked for, and after a kill in the middle. */
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { OperationId, PoolId, SnapshotId, VolumeId } from '@chronovirt/contracts/ids';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { createDisks, type Disks } from './qemu-img.os.ts';

const run = promisify(execFile);
const first: SnapshotId = `snapshot_${'1'.repeat(32)}`;
const second: SnapshotId = `snapshot_${'2'.repeat(32)}`;
const operation: OperationId = `op_${'3'.repeat(32)}`;
const poolId: PoolId = `pool_${'4'.repeat(32)}`;
const count = `backup_${'5'.repeat(32)}`;
const never = new AbortController().signal;

interface Info {
  readonly snapshots?: readonly { readonly name: string }[];
  readonly 'format-specific': { readonly data: { readonly bitmaps?: readonly { readonly name: string }[] } };
}

describe('What is kept inside of a disk', () => {
  let folder: string;
  let disks: Disks;
  let volumeId: VolumeId;
  let number = 0;
  beforeAll(async () => { folder = await mkdtemp(join(tmpdir(), 'cv-inside-')); });
  afterAll(() => rm(folder, { recursive: true, force: true }));
  beforeEach(async () => {
    disks = createDisks({ images: { pathOf: (name: string) => name, ensure: () => Promise.resolve(undefined) } as never, poolDir: folder });
    volumeId = `volume_${String(++number).padStart(32, '0')}`;
    expect(await disks.make({ volumeId, poolId, format: 'qcow2', sizeGib: 1, source: { kind: 'blank' } } as never, never)).toBeUndefined();
  });

  const file = (): string => join(folder, `${volumeId}.qcow2`);
  const io = (command: string): Promise<{ readonly stdout: string }> => run('qemu-io', ['-f', 'qcow2', '-c', command, file()]);
  const write = (pattern: number): Promise<unknown> => io(`write -P ${String(pattern)} 0 1M`);
  const holds = async (pattern: number): Promise<boolean> => io(`read -P ${String(pattern)} 0 1M`).then(() => true, () => false);
  const info = async (): Promise<Info> => {
    const { stdout } = await run('qemu-img', ['info', '--output=json', file()]);
    return JSON.parse(stdout) as Info;
  };
  const kept = async (): Promise<readonly string[]> => ((await info()).snapshots ?? []).map(({ name }) => name);

  it('A5-05 is there once, however often it is asked for, and what is written then is gone after going back', async () => {
    await write(1);
    for (let times = 0; times < 2; times++) expect(await disks.keepInside(volumeId, first, null)).toBeUndefined();
    expect(await kept()).toEqual([first]);
    await write(2);
    for (let times = 0; times < 2; times++) expect(await disks.keepInside(volumeId, operation, first)).toBeUndefined();
    expect([await holds(1), await kept()]).toEqual([true, [first, operation]]);
    for (let times = 0; times < 2; times++) await disks.letGo(volumeId, operation, false);
    expect([await holds(1), await kept()]).toEqual([true, [first]]);
    await run('qemu-img', ['check', '-q', file()]);
  });

  it('A5-05 a return that is taken back brings what there was, also when it was broken off before it began', async () => {
    await write(1);
    await disks.keepInside(volumeId, first, null);
    await write(2);
    await disks.keepInside(volumeId, operation, first);
    for (let times = 0; times < 2; times++) await disks.letGo(volumeId, operation, true);
    expect([await holds(2), await kept()]).toEqual([true, [first]]);
    // Killed between the two: only what there is was kept so far.
    await run('qemu-img', ['snapshot', '-q', '-c', operation, file()]);
    expect(await disks.keepInside(volumeId, operation, first)).toBeUndefined();
    expect([await holds(1), await kept()]).toEqual([true, [first, operation]]);
    await disks.letGo(volumeId, operation, true);
    expect(await holds(2)).toBe(true);
  });

  it('A5-05 keeps the count of what is written, which ends when it goes back', async () => {
    await run('qemu-img', ['bitmap', '--add', '-f', 'qcow2', file(), count]);
    await disks.keepInside(volumeId, first, null);
    expect((await info())['format-specific'].data.bitmaps).toMatchObject([{ name: count }]);
    expect(await disks.keepInside(volumeId, operation, first)).toBeUndefined();
    expect((await info())['format-specific'].data.bitmaps ?? []).toEqual([]);
  });

  it('A5-05 is refused for one that holds no such snapshot, is raw, is gone, or is in use', async () => {
    expect(await disks.keepInside(volumeId, operation, second)).toMatchObject({ refused: 'snapshot.missing_on_node' });
    expect(await kept()).toEqual([]);
    await disks.keepInside(volumeId, first, null);
    const user = spawn('qemu-io', ['-f', 'qcow2', file()], { stdio: ['pipe', 'pipe', 'ignore'] });
    try {
      // Its prompt comes when it has the file open.
      await once(user.stdout, 'data');
      expect(await disks.keepInside(volumeId, second, null)).toMatchObject({ refused: 'disk.in_use' });
      await expect(disks.letGo(volumeId, first, false)).rejects.toThrow('could not take a snapshot out of');
    } finally {
      user.stdin.end();
      await once(user, 'exit');
    }
    expect(await kept()).toEqual([first]);
    const raw: VolumeId = `volume_${'9'.repeat(32)}`;
    await disks.make({ volumeId: raw, poolId, format: 'raw', sizeGib: 1, source: { kind: 'blank' } } as never, never);
    expect(await disks.keepInside(raw, first, null)).toMatchObject({ refused: 'disk.not_qcow2' });
    await disks.letGo(raw, first, false);
    await rm(file());
    expect(await disks.keepInside(volumeId, first, null)).toMatchObject({ refused: 'disk.missing_on_node' });
    await disks.letGo(volumeId, first, true);
  });
});
