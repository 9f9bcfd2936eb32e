/* The files of seed.ts as a small ISO 9660 disk, which is how NoCloud looks for them: by the label cidata. */
import { execFile } from 'node:child_process';
import { chmod, mkdtemp, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { DomainPlan, Seed } from '@chronovirt/contracts/agent/agent.commands';
import type { OpenedRun } from '../boot-jobs/boot-runs.ts';
import { seedFiles } from './seed.ts';

const XORRISO_MS = 30_000;

/** Writes it whole, or not at all. Returns its path. */
export async function writeSeed(path: string, seed: Seed, nics: DomainPlan['nics'] | null, runs: readonly OpenedRun[] = []): Promise<string> {
  const dir = await mkdtemp(`${path}.`);
  try {
    const files: readonly (readonly [string, string])[] = Object.entries({ ...seedFiles(seed, nics, runs) });
    for (const [name, content] of files) await writeFile(join(dir, name), content, { mode: 0o600 });
    const image = join(dir, 'seed.iso');
    await promisify(execFile)('xorriso', ['-as', 'mkisofs', '-quiet', '-V', 'cidata', '-J', '-r', '-o', image, ...files.map(([name]) => join(dir, name))], { timeout: XORRISO_MS });
    // libvirt gives it to QEMU's user; nobody else is to read what a guest is told.
    await chmod(image, 0o600);
    await rename(image, path);
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
  return path;
}
