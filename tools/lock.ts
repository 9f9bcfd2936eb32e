import { mkdirSync } from 'node:fs';
import { dirname } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { setTimeout as sleep } from 'node:timers/promises';

const EVERY_MS = 200;

// A database that nothing reaches is closed by the garbage collector, and its lock falls: seen with work that waits for ever.
const held = new Set<DatabaseSync>();

/**
 * Runs `work` while no other process does so under the same file. SQLite's lock is the kernel's
 * (fcntl), so it falls with its holder however that dies, and children do not inherit it.
 * `onWait` is told once when somebody else has it.
 */
export async function withLock<T>(file: string, { withinMs, onWait }: { withinMs: number; onWait: () => void }, work: () => Promise<T>): Promise<T> {
  mkdirSync(dirname(file), { recursive: true });
  const database = new DatabaseSync(file);
  held.add(database);
  try {
    const deadline = performance.now() + withinMs;
    for (let told = false; !acquired(database); told = true) {
      if (!told) onWait();
      if (performance.now() > deadline) throw new Error(`another start or stop has held ${file} for ${Math.round(withinMs / 1000)} s`);
      await sleep(EVERY_MS);
    }
    return await work();
  } finally {
    held.delete(database);
    database.close();
  }
}

function acquired(database: DatabaseSync): boolean {
  try {
    database.exec('begin exclusive');
    return true;
  } catch (error) {
    if (/locked|busy/i.test((error as Error).message)) return false;
    throw error;
  }
}
