/*
 * A password that is written into the disks of a guest that does not run, for one that has neither an agent nor
 * cloud-init to be told.
 *
 * A file system that a tenant made is never opened by the kernel of this machine: libguestfs starts a small virtual
 * machine for it (guestfs-security(1)). It also finds out where among disks, partitions and volumes the system lies.
 *
 * guestfish reads its commands line by line as they are written, so that it ends with us. The new file takes the
 * place of the old one whole: whoever is killed in between has changed no password.
 */
import { execFile, spawn } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import { CANCELLED, refuse } from '../answer.ts';
import type { Refusal } from '../answer.ts';
import { isLocked } from '../libvirt/qemu-img.os.ts';
import { withPassword } from './shadow.ts';

const run = promisify(execFile);
/** A start of libguestfs takes seconds, and half a minute where nothing but emulation is there. */
const LIMIT_MS = 10 * 60_000;
const SHADOW = '/etc/shadow';
const DRAFT = '/etc/shadow.chronovirt';
/** What `openssl passwd` reads of a line; what is behind it would be left out without a word. */
const PASSWORD_BYTES_MAX = 256;
/** Of the file in the guest, which the tenant may have made as long as he liked. */
const SHADOW_BYTES_MAX = 4 * 2 ** 20;
const SAID_CHARS_MAX = 200;
/** A guestfish of an agent that was killed ends as soon as it has started: then its input is at its end. */
const LOCKED_MS = 60_000;
const LOOK_MS = 1_000;
const DONE = 'chronovirt: done';

export interface OfflineDisk {
  readonly path: string;
  readonly format: string;
}

/** SHA-512 of crypt(5): every libc that has shadow passwords knows it. The password goes by standard input, where no list of processes shows it. */
async function hashed(password: string): Promise<string> {
  const running = run('openssl', ['passwd', '-6', '-stdin'], { timeout: 10_000 });
  running.child.stdin?.end(`${password}\n`);
  return (await running).stdout.trim();
}

/** guestfish ended before it had done what it was told. `said`: what it complained of; `code`: as an exit status. */
class Ended extends Error {
  readonly said: string;
  readonly code: number | null;
  constructor(said: string, code: number | null) {
    super(said);
    this.said = said;
    this.code = code;
  }
}

/** Whether nobody else has them open. libguestfs would only say that it could not start. */
async function areFree(disks: readonly OfflineDisk[], signal: AbortSignal): Promise<boolean> {
  for (const deadline = Date.now() + LOCKED_MS; ;) {
    const locked = await Promise.all(disks.map(({ path, format }) => run('qemu-img', ['info', '-f', format, path], { timeout: 30_000, signal }).then(() => false, (error: unknown) => {
      if (isLocked(error)) return true;
      throw error;
    })));
    if (!locked.includes(true)) return true;
    if (Date.now() > deadline) return false;
    await delay(LOOK_MS, undefined, { signal });
  }
}

interface Guestfish {
  /** What it prints for a line of commands. Throws `Ended`. */
  readonly tell: (line: string) => Promise<readonly string[]>;
  /** Resolves when it has ended. */
  readonly end: () => Promise<void>;
}

function startGuestfish(disks: readonly OfflineDisk[], accel: 'kvm' | 'tcg', signal: AbortSignal): Guestfish {
  const child = spawn('env', [
    'LC_ALL=C.UTF-8', 'LIBGUESTFS_BACKEND=direct',
    // Left to itself it takes a /dev/kvm that is there for one that works.
    ...(accel === 'tcg' ? ['LIBGUESTFS_BACKEND_SETTINGS=force_tcg'] : []),
    // Its answers come by lines, and not from a buffer when it ends.
    'stdbuf', '-oL', 'guestfish', '--rw', ...disks.flatMap(({ path, format }) => [`--format=${format}`, '-a', path]), '-i',
  ], { stdio: 'pipe', signal, timeout: LIMIT_MS });
  let heard: string[] = [];
  let complaint = '';
  let over: { readonly code: number | null } | undefined;
  let settle: (() => void) | undefined;
  createInterface({ input: child.stdout }).on('line', (line) => {
    if (line !== DONE) return heard.push(line);
    settle?.();
    return undefined;
  });
  // The first thing; advice to whoever writes programs follows.
  createInterface({ input: child.stderr }).on('line', (line) => { complaint ||= line.trim().slice(0, SAID_CHARS_MAX); });
  // It may have ended before it was told anything; then the next thing fails, and that is enough.
  child.stdin.on('error', () => undefined);
  child.on('error', () => undefined);
  const closed = new Promise<void>((resolve) => {
    child.on('close', (code) => {
      over = { code };
      settle?.();
      resolve();
    });
  });
  return {
    tell: async (line) => {
      heard = [];
      const answered = new Promise<void>((resolve) => { settle = resolve; });
      child.stdin.write(`${line}\necho "${DONE}"\n`);
      if (over === undefined) await answered;
      if (over !== undefined) throw new Ended(complaint, over.code);
      return heard;
    },
    end: () => {
      child.stdin.end();
      return closed;
    },
  };
}

export interface OfflinePassword {
  readonly disks: readonly OfflineDisk[];
  readonly user: string;
  readonly password: string;
  /** What guests of this machine run with. */
  readonly accel: 'kvm' | 'tcg';
}

/** Throws where it cannot be told what was wrong. */
export async function setOfflinePassword({ disks, user, password, accel }: OfflinePassword, signal: AbortSignal): Promise<Refusal | undefined> {
  if (Buffer.byteLength(password) > PASSWORD_BYTES_MAX) return refuse('guest.password_too_long', { bytesMax: PASSWORD_BYTES_MAX });
  const hash = await hashed(password);
  const dir = await mkdtemp(join(tmpdir(), 'cv-shadow-'));
  let fish: Guestfish | undefined;
  let killed = false;
  // From here on it may be in its place, whatever happens.
  let moving = false;
  try {
    if (!(await areFree(disks, signal))) return refuse('disk.in_use', { says: 'another process uses the disks of this VM' });
    fish = startGuestfish(disks, accel, signal);
    const [there] = await fish.tell(`is-file ${SHADOW}`);
    if (there !== 'true') return refuse('guest.no_passwords');
    const [bytes] = await fish.tell(`filesize ${SHADOW}`);
    if (!(Number(bytes) <= SHADOW_BYTES_MAX)) return refuse('guest.no_passwords');
    const file = join(dir, 'shadow');
    await fish.tell(`download ${SHADOW} ${file}`);
    const changed = withPassword(await readFile(file, 'latin1'), user, hash, Date.now());
    if (changed === undefined) return refuse('guest.no_such_user', { user });
    await writeFile(file, changed, { encoding: 'latin1', mode: 0o600 });
    // Nobody but root may read it, also if it is all that gets there.
    await fish.tell(`rm-f ${DRAFT}`);
    await fish.tell(`touch ${DRAFT}`);
    await fish.tell(`chmod 0600 ${DRAFT}`);
    await fish.tell(`upload ${file} ${DRAFT}`);
    await fish.tell(`copy-attributes ${SHADOW} ${DRAFT} all:true`);
    // Its bytes before its name: not every file system sees to that by itself.
    await fish.tell('sync');
    moving = true;
    await fish.tell(`mv ${DRAFT} ${SHADOW}`);
    await fish.tell('umount-all');
    return undefined;
  } catch (error) {
    killed = error instanceof Ended && error.code === null;
    // It is done again by whoever hears of a fault: that harms nothing.
    if (moving) throw error;
    if (signal.aborted) return CANCELLED;
    if (!(error instanceof Ended) || killed) throw error;
    // As stdbuf(1) has it.
    if (error.code === 127) return refuse('node.no_guestfish');
    return refuse('guest.disks_not_opened', { says: error.said });
  } finally {
    await fish?.end();
    // The virtual machine of one that was killed ends a moment after it.
    if (killed) await areFree(disks, AbortSignal.timeout(LOCKED_MS)).catch(() => undefined);
    await rm(dir, { recursive: true, force: true });
  }
}
