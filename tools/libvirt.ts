/*
 * A libvirtd on this machine.
 *
 * One that answers on the usual socket is used as it is: it belongs to the machine. Else we start
 * virtlogd and libvirtd with our own configuration, in a process group that outlives us: VMs go on
 * when Chronovirt stops. Their parent is `tini -s`, a subreaper: QEMU makes itself a daemon, so its
 * parent becomes the nearest reaper above, and where that is a PID 1 that reaps late or never,
 * libvirt waits seconds for a zombie at each destroy (measured: 0.22 s with tini, 1.9 s and 80 s
 * without). Below it a few lines of shell (tools/libvirtd.sh) start libvirtd again when it dies.
 *
 * At stop it is ended when no domain runs and nobody else is connected; else it stays.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, realpathSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { birthOf, endOf, programOf, startProgram, stopPid, until } from './child.ts';
import { isRoot } from './identity.ts';
import { programPath } from './programs.ts';
import { writeWhole } from './secrets.ts';

export const LIBVIRT_SOCKET = '/run/libvirt/libvirt-sock';
/** Calls of an agent at once: as many guests start side by side. Well below max_client_requests of our configuration. */
export const LIBVIRT_IN_FLIGHT = 32;
const VIRTLOGD_SOCKET = '/run/libvirt/virtlogd-sock';

/** Of this machine and this boot, not of one installation: several may share the libvirtd that one of them started. */
const OURS = '/run/chronovirt';
const STARTED_FILE = join(OURS, 'libvirtd.json');
const READY_WITHIN_MS = 30_000;

export interface Libvirt {
  readonly socket: string;
  /** Who started it. */
  readonly owner: 'the machine' | 'chronovirt';
  /** tini's process id, when it is ours. */
  readonly pid?: number;
}

export const libvirtAnswers = (socket = LIBVIRT_SOCKET): Promise<boolean> =>
  new Promise((resolve) => {
    if (!existsSync(socket)) return resolve(false);
    const connection = connect(socket);
    const end = (yes: boolean): void => {
      connection.destroy();
      resolve(yes);
    };
    connection.setTimeout(2_000, () => end(false));
    connection.once('connect', () => end(true));
    connection.once('error', () => end(false));
  });

/** What is there now, without starting anything. */
export async function findLibvirt(): Promise<Libvirt | undefined> {
  if (!(await libvirtAnswers())) return undefined;
  const pid = ownPid();
  return pid === undefined ? { socket: LIBVIRT_SOCKET, owner: 'the machine' } : { socket: LIBVIRT_SOCKET, owner: 'chronovirt', pid };
}

export async function startLibvirt({ logFile }: { logFile: string }): Promise<Libvirt> {
  const there = await findLibvirt();
  if (there) return there;
  if (!isRoot()) throw new Error('only root can start libvirtd');
  const programs = { tini: required('tini'), virtlogd: required('virtlogd'), libvirtd: required('libvirtd') };

  const pidOfOurs = ownPid();
  if (pidOfOurs !== undefined && (await until(() => libvirtAnswers(), { withinMs: READY_WITHIN_MS }))) {
    return { socket: LIBVIRT_SOCKET, owner: 'chronovirt', pid: pidOfOurs }; // it was being started again
  }
  mkdirSync(OURS, { recursive: true, mode: 0o755 });
  writeWhole(join(OURS, 'libvirtd.conf'), DAEMON_CONFIGURATION);
  const arguments_ = ['-s', '--', '/bin/sh', join(import.meta.dirname, 'libvirtd.sh'), (await libvirtAnswers(VIRTLOGD_SOCKET)) ? '' : programs.virtlogd, programs.libvirtd, join(OURS, 'libvirtd.conf')];
  const child = startProgram({
    command: programs.tini,
    args: arguments_,
    logFile,
    env: { PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin', LANG: 'C.UTF-8' },
  });
  child.unref();
  if (child.pid === undefined) throw new Error('could not start tini');
  writeWhole(STARTED_FILE, JSON.stringify({ pid: child.pid, birth: birthOf(child.pid) }), 0o644);
  if (!(await until(() => libvirtAnswers(), { withinMs: READY_WITHIN_MS }))) {
    await stopPid(child.pid, () => ownPid() === child.pid, STOP_SIGNALS);
    throw new Error(`libvirtd does not answer on ${LIBVIRT_SOCKET}${endOf(logFile)}`);
  }
  return { socket: LIBVIRT_SOCKET, owner: 'chronovirt', pid: child.pid };
}

const STOP_SIGNALS = [['SIGTERM', 10_000], ['SIGKILL', 2_000]] as const;

/** Why it still runs, or that it is gone. */
export type StoppedLibvirt = 'was not ours' | 'virtual machines run' | 'others are connected' | 'stopped';

export async function stopLibvirt(): Promise<StoppedLibvirt> {
  const pid = ownPid();
  if (pid === undefined) return 'was not ours';
  if (runningGuests() > 0) return 'virtual machines run';
  if (connections() > 0) return 'others are connected';
  await stopPid(pid, () => ownPid() === pid, STOP_SIGNALS);
  rmSync(STARTED_FILE, { force: true });
  return 'stopped';
}

function ownPid(): number | undefined {
  try {
    const { pid, birth } = JSON.parse(readFileSync(STARTED_FILE, 'utf8')) as { pid: number; birth: string };
    return birthOf(pid) === birth && programOf(pid) === realProgram('tini') ? pid : undefined;
  } catch {
    return undefined;
  }
}

const realProgram = (name: string): string | undefined => {
  const path = programPath(name);
  return path && realpathSync(path);
};

function required(name: string): string {
  const path = programPath(name);
  if (!path) throw new Error(`${name} is not installed`);
  return path;
}

/** Guests of QEMU that libvirt started and that live, whoever wanted them. */
export function runningGuests(): number {
  const dir = '/run/libvirt/qemu';
  if (!existsSync(dir)) return 0;
  const pids = readdirSync(dir).filter((name) => name.endsWith('.pid')).map((name) => Number(readFileSync(join(dir, name), 'utf8')));
  return pids.filter((pid) => pid > 0 && programOf(pid)?.includes('qemu') === true).length;
}

/** Clients on the socket now, as the kernel lists them (proc(5), /proc/net/unix: state 03 is "connected"). */
export function connections(): number {
  const lines = readFileSync('/proc/net/unix', 'utf8').split('\n').map((line) => line.trim().split(/\s+/));
  return lines.filter(([, , , , , state, , path]) => state === '03' && path?.replace(/^\/var\/run\//, '/run/') === LIBVIRT_SOCKET).length;
}

/*
 * Only root may connect. An agent of a full node has many calls under way at once, and a slow one
 * must not hold up the others: libvirtd reads no further from a connection with max_client_requests
 * unanswered (5 by default) and runs as many calls at once as it has workers (5 to 20 by default).
 * Which security driver QEMU gets is libvirtd's own finding: AppArmor or SELinux where active.
 */
export const LIBVIRT_LIMITS = { max_clients: 200, max_client_requests: 200, min_workers: 40, max_workers: 80 } as const;

const DAEMON_CONFIGURATION = `# Written by Chronovirt.
listen_tls = 0
listen_tcp = 0
auth_unix_ro = "none"
auth_unix_rw = "none"
unix_sock_ro_perms = "0700"
unix_sock_rw_perms = "0700"
${Object.entries(LIBVIRT_LIMITS).map(([name, value]) => `${name} = ${value}\n`).join('')}log_level = 3
log_outputs = "3:stderr"
`;
