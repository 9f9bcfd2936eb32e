/* Where the programs lie that we run and did not write. Says only what is there. */
import { existsSync, readdirSync } from 'node:fs';
import { delimiter, join } from 'node:path';

// Programs of administrators are in no ordinary user's PATH, and a start by cron has next to none.
const SYSTEM_PATH = ['/usr/local/sbin', '/usr/local/bin', '/usr/sbin', '/usr/bin', '/sbin', '/bin'];

/** The full path of a program, or undefined. */
export const programPath = (name: string): string | undefined =>
  [...SYSTEM_PATH, ...(process.env['PATH'] ?? '').split(delimiter)].filter((dir) => dir !== '').map((dir) => join(dir, name)).find((path) => existsSync(path));

export const hasProgram = (name: string): boolean => programPath(name) !== undefined;

/** The folder of `postgres` and `initdb`: `CV_POSTGRES_BIN`, else the newest of the distribution's. */
export function postgresBin(): string | undefined {
  const configured = process.env['CV_POSTGRES_BIN'];
  if (configured) return existsSync(join(configured, 'postgres')) ? configured : undefined;
  const root = '/usr/lib/postgresql';
  if (!existsSync(root)) return undefined;
  const versions = readdirSync(root)
    .filter((name) => /^\d+$/.test(name) && Number(name) >= 15 && existsSync(join(root, name, 'bin', 'initdb')))
    .sort((a, b) => Number(b) - Number(a));
  return versions[0] ? join(root, versions[0], 'bin') : undefined;
}

/** The server's program: `CV_NATS_SERVER`, else the distribution's. */
export function natsProgram(): string | undefined {
  const candidates = [process.env['CV_NATS_SERVER'], '/usr/sbin/nats-server', '/usr/local/bin/nats-server', '/usr/bin/nats-server'];
  return candidates.find((path) => path !== undefined && existsSync(path));
}
