/* The disk as whoever mounts it would find it; that a real cloud-init does is shown by e2e/cloud-init.spec.ts. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { writeSeed } from './seed.os.ts';
import { seedFiles } from './seed.ts';
import { nics, seed } from './testing-seed.ts';

let dir: string;
beforeEach(() => { dir = mkdtempSync(join(tmpdir(), 'cv-seed-')); });
afterEach(() => { rmSync(dir, { recursive: true }); });

const unpack = (image: string): Record<string, string> => {
  const to = join(dir, 'unpacked');
  execFileSync('xorriso', ['-osirrox', 'on', '-indev', image, '-extract', '/', to], { stdio: 'pipe' });
  const files = Object.fromEntries(readdirSync(to).map((name) => [name, readFileSync(join(to, name), 'utf8')]));
  execFileSync('chmod', ['-R', 'u+w', to]);
  rmSync(to, { recursive: true });
  return files;
};

describe('The disk for cloud-init', () => {
  it('is found by its label and holds the three files', async () => {
    const image = await writeSeed(join(dir, 'vm.seed.iso'), seed, nics);
    // ECMA-119: the primary volume descriptor is sector 16, its volume identifier bytes 40 to 71.
    const descriptor = readFileSync(image).subarray(16 * 2_048, 17 * 2_048);
    expect(descriptor.subarray(0, 6).toString('latin1')).toBe('\u0001CD001');
    expect(descriptor.subarray(40, 72).toString('latin1').trimEnd()).toBe('cidata');
    expect(unpack(image)).toEqual({ ...seedFiles(seed, nics) });
  });

  it('is replaced whole, and leaves nothing beside it', async () => {
    const path = join(dir, 'vm.seed.iso');
    await writeSeed(path, seed, nics);
    await writeSeed(path, { ...seed, instanceId: 'vm_1-2', userData: '#cloud-config\nruncmd: []\n' }, nics);
    expect(readdirSync(dir)).toEqual(['vm.seed.iso']);
    expect(unpack(path)).toMatchObject({ 'meta-data': expect.stringContaining('"vm_1-2"') as string, 'user-data': '#cloud-config\nruncmd: []\n' });
  });

  it('that cannot be written leaves nothing at all', async () => {
    await expect(writeSeed(join(dir, 'no-such-folder/vm.seed.iso'), seed, nics)).rejects.toThrow('ENOENT');
    await expect(writeSeed(join(dir, 'vm.seed.iso'), { ...seed, hostname: undefined as never, userData: Symbol('no text') as never }, nics)).rejects.toThrow();
    expect(readdirSync(dir)).toEqual([]);
  });
});
