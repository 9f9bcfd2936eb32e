import { spawn, type ChildProcess } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, expect, it } from 'vitest';
import { withLock } from './lock.ts';

const dir = mkdtempSync(join(tmpdir(), 'cv-lock-'));
let holder: ChildProcess | undefined;
afterEach(() => {
  holder?.kill('SIGKILL');
  rmSync(dir, { recursive: true, force: true });
});

it('a lock is held by one process, and falls when that process is killed', async () => {
  const file = join(dir, 'lock');
  const script = `import { withLock } from ${JSON.stringify(join(import.meta.dirname, 'lock.ts'))};
    await withLock(${JSON.stringify(file)}, { withinMs: 1000, onWait: () => {} }, () => new Promise(() => { console.log('held'); setInterval(() => {}, 1000); }));`;
  const child = (holder = spawn(process.execPath, ['--input-type=module', '-e', script], { stdio: ['ignore', 'pipe', 'inherit'] }));
  await new Promise((resolve) => child.stdout.once('data', resolve));

  let waits = 0;
  await expect(withLock(file, { withinMs: 300, onWait: () => waits++ }, () => Promise.resolve('mine'))).rejects.toThrow(/another start or stop has held/);
  expect(waits).toBe(1);

  const waiting = withLock(file, { withinMs: 5_000, onWait: () => {} }, () => Promise.resolve('mine'));
  child.kill('SIGKILL');
  await expect(waiting).resolves.toBe('mine');
});
