/* `npm stop` */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { settingsFrom } from './home.ts';
import { withLock } from './lock.ts';
import { say, sinceStart } from './say.ts';
import { stopEverything } from './stopping.ts';

const LOCK_WITHIN_MS = 5 * 60_000;

try {
  const { home } = settingsFrom(process.env);
  if (!existsSync(home.dir)) say(`nothing was ever started in ${home.dir}`);
  else {
    await withLock(join(home.dir, 'control.lock'), { withinMs: LOCK_WITHIN_MS, onWait: () => say('a start or another stop is at work; waiting for it') }, () => stopEverything(home, say));
    say(`done after ${sinceStart()}`);
  }
} catch (error) {
  console.error(`chronovirt: ${(error as Error).message}`);
  process.exitCode = 1;
}
