import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { copyFileSync, readFileSync, statSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);

/** The image of a medium with one file, name.txt, that says its name. */
export async function mediumOf(imageDir: string, name: string): Promise<object> {
  const dir = await mkdtemp(join(tmpdir(), 'cv-medium-'));
  try {
    await writeFile(join(dir, 'name.txt'), `${name}\n`);
    const file = `${name}.iso`;
    await run('xorriso', ['-as', 'mkisofs', '-quiet', '-V', name, '-r', '-o', join(dir, file), join(dir, 'name.txt')]);
    copyFileSync(join(dir, file), join(imageDir, file));
    return { name, file, format: 'iso', sha256: createHash('sha256').update(readFileSync(join(imageDir, file))).digest('hex'), sizeBytes: statSync(join(imageDir, file)).size };
  } finally {
    await rm(dir, { recursive: true });
  }
}
