/*
 * Under whom the parts run.
 *
 * Postgres refuses to be root, and nats-server has no need to be. When root starts the
 * platform, both run as a system user of our own, `chronovirt`: never as `nobody`, whose
 * files every other unprivileged daemon could read. When anyone else starts it, they run
 * as whoever that is.
 */
import { execFileSync } from 'node:child_process';
import { chownSync, mkdirSync, readFileSync } from 'node:fs';

export interface Identity {
  readonly uid: number;
  readonly gid: number;
  readonly name: string;
}

export const SYSTEM_USER = 'chronovirt';

export const isRoot = (): boolean => process.getuid?.() === 0;

/** The identity of the unprivileged parts; as root, makes the system user when it is not there yet. */
export function unprivileged(): Identity {
  if (!isRoot()) return { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0, name: 'you' };
  const known = lookUp(SYSTEM_USER);
  if (known) return known;
  try {
    execFileSync('useradd', ['--system', '--user-group', '--home-dir', '/nonexistent', '--no-create-home', '--shell', '/usr/sbin/nologin', SYSTEM_USER], { stdio: 'pipe' });
  } catch (cause) {
    const meanwhile = lookUp(SYSTEM_USER); // two starts at once: the other one was faster
    if (meanwhile) return meanwhile;
    throw new Error(`could not make the system user ${SYSTEM_USER}`, { cause });
  }
  const made = lookUp(SYSTEM_USER);
  if (!made) throw new Error(`useradd made no user ${SYSTEM_USER}`);
  return made;
}

function lookUp(name: string): Identity | undefined {
  for (const line of readFileSync('/etc/passwd', 'utf8').split('\n')) {
    const [user, , uid, gid] = line.split(':');
    if (user === name) return { uid: Number(uid), gid: Number(gid), name };
  }
  return undefined;
}

/** A folder that belongs to `identity`, with its parents. */
export function folderOf(identity: Identity, path: string, mode: number): string {
  mkdirSync(path, { recursive: true, mode });
  if (isRoot()) chownSync(path, identity.uid, identity.gid);
  return path;
}

/** What `spawn` needs to run something as `identity`. Only root may say it. */
export const runAs = (identity: Identity): { uid?: number; gid?: number } => (isRoot() ? { uid: identity.uid, gid: identity.gid } : {});
