/*
 * A libvirtd of one's own, for tests. There are two.
 *
 * `startLibvirtd` runs as an ordinary user (root becomes `nobody`), in a folder that holds its sockets, state and
 * configuration, so that any number can run beside the machine's own, with the drivers test:///default
 * and qemu:///session. `tini -s` is its parent and adopts what the daemon leaves behind: a guest that
 * ended must be reaped by someone, or libvirt takes it for alive.
 *
 * `startSystemLibvirtd` needs root and gives qemu:///system with networks: bridges, DHCP, leases. It
 * gets namespaces of its own for mounts, network and processes, so it sees nothing of the machine's
 * libvirtd and nothing of it (a bridge, a rule of the packet filter, a guest) outlives its end.
 */
import { execFile, spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { chmod, chown, mkdir, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { createConnection } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import type { Target } from './target.ts';

const nobody = 65_534;
const startMsMax = 30_000;
const stopMsMax = 10_000;

export interface OwnLibvirtd {
  readonly socket: string;
  /** A folder that the daemon and its guests can read. Gone after stop(). */
  readonly directory: string;
  readonly testDriver: Target;
  readonly qemuSession: Target;
  /** The daemon's process id. */
  pid(): Promise<number>;
  /** Ends the daemon without goodbye; guests live on. */
  kill(): Promise<void>;
  /** After kill(). */
  start(): Promise<void>;
  /** Ends the daemon and removes its folder. */
  stop(): Promise<void>;
}

async function find(program: string): Promise<string> {
  for (const directory of ['/usr/sbin', '/usr/bin', '/sbin', '/bin', '/usr/local/sbin', '/usr/local/bin']) {
    const path = join(directory, program);
    if (await stat(path).then((found) => found.isFile(), () => false)) return path;
  }
  throw new Error(`${program} is not installed, and these tests need a real libvirtd: install libvirt-daemon-system, qemu-system-x86 and tini`);
}

/** Lines of libvirtd.conf. */
export type LibvirtdSettings = Readonly<Record<string, string | number | readonly string[]>>;

const lineOf = ([name, value]: readonly [string, string | number | readonly string[]]): string => `${name} = ${JSON.stringify(value)}\n`;

export interface LibvirtdOptions {
  /** Listens where `settings` says so: listen_tcp, listen_tls, listen_addr, … */
  readonly listening?: boolean;
  readonly environment?: Readonly<Record<string, string>>;
  /**
   * The folder of another system (unpacked packages) whose libvirtd is to run, with that system's QEMU. It shares this
   * one's temporary files, and needs root.
   */
  readonly system?: string;
}

// Arguments: the system's folder, user and group, and the words to run in it.
const otherSystemScript = `
set -e
system=$1 user=$2
shift 2
for folder in bin sbin lib lib64; do [ -e "$system/$folder" ] || ln -s "usr/$folder" "$system/$folder"; done
[ -e "$system/var/lock" ] || ln -s /run/lock "$system/var/lock"
for folder in /dev /proc /sys /tmp /var/tmp /run/lock; do mkdir -p "$system$folder"; mount --rbind "$folder" "$system$folder"; done
for file in /etc/passwd /etc/group; do touch "$system$file"; mount --bind "$file" "$system$file"; done
exec chroot --userspec="$user" "$system" "$@"
`;
/** The words with which a program runs in another system, as the user that its daemon has. */
export const inSystem = (system: string, words: readonly string[]): readonly string[] => ['/usr/bin/unshare', '--mount', '/bin/sh', '-c', otherSystemScript, 'sh', system, `${nobody}:${nobody}`, ...words];

export async function startLibvirtd(settings: LibvirtdSettings = {}, options: LibvirtdOptions = {}): Promise<OwnLibvirtd> {
  const [tini, libvirtd] = await Promise.all([find('tini'), find('libvirtd')]);
  const root = process.getuid?.() === 0;
  // Short, because the path of a unix socket has at most 107 bytes.
  const directory = await mkdtemp(join(tmpdir(), 'cvlv-'));
  const folders = { HOME: directory, XDG_RUNTIME_DIR: join(directory, 'run'), XDG_CONFIG_HOME: join(directory, 'conf'), XDG_CACHE_HOME: join(directory, 'cache') };
  const configuration = join(directory, 'conf', 'libvirt');
  await mkdir(folders.XDG_RUNTIME_DIR);
  await mkdir(folders.XDG_CACHE_HOME);
  await mkdir(configuration, { recursive: true });
  const lines = Object.entries({ host_uuid: randomUUID(), ...settings }).map(lineOf);
  await writeFile(join(configuration, 'libvirtd.conf'), lines.join(''));
  if (root) for (const path of [directory, folders.XDG_RUNTIME_DIR, folders.XDG_CACHE_HOME, join(directory, 'conf'), configuration]) await chown(path, nobody, nobody);

  const socket = join(folders.XDG_RUNTIME_DIR, 'libvirt', 'libvirt-sock');
  let running: { readonly process: ChildProcess; readonly ended: Promise<unknown>; readonly log: () => string } | undefined;

  const start = async () => {
    const listening = options.listening === true ? ['--listen'] : [];
    const words = options.system === undefined ? [libvirtd, ...listening] : inSystem(options.system, ['/usr/sbin/libvirtd', ...listening]);
    const child = spawn(tini, ['-s', '--', ...words], {
      cwd: '/',
      env: { ...folders, PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C.UTF-8', ...options.environment },
      stdio: ['ignore', 'ignore', 'pipe'],
      ...(root && options.system === undefined ? { uid: nobody, gid: nobody } : {}),
    });
    let log = '';
    child.stderr.setEncoding('utf8').on('data', (text: string) => (log = (log + text).slice(-4_000)));
    const ended = new Promise((resolve) => child.once('exit', resolve));
    running = { process: child, ended, log: () => log };
    const deadline = Date.now() + startMsMax;
    while (!(await answers(socket))) {
      if (child.exitCode !== null) throw new Error(`libvirtd ended at once: ${log}`);
      if (Date.now() > deadline) throw new Error(`libvirtd does not listen at ${socket} after ${startMsMax} ms: ${log}`);
      await delay(20);
    }
  };

  const pid = async () => Number(await childOf(running?.process.pid));

  const kill = async () => {
    const ending = running;
    if (ending === undefined) return;
    process.kill(await pid(), 'SIGKILL');
    await ending.ended;
    running = undefined;
  };

  const stop = async () => {
    const ending = running;
    running = undefined;
    if (ending !== undefined) {
      ending.process.kill('SIGTERM');
      await Promise.race([ending.ended, delay(stopMsMax, undefined, { ref: false })]);
      if (ending.process.exitCode === null) ending.process.kill('SIGKILL');
    }
    // The daemon starts its log daemon by itself and leaves it behind.
    const logger = Number(await readFile(join(folders.XDG_RUNTIME_DIR, 'libvirt', 'virtlogd.pid'), 'utf8').catch(() => ''));
    if (logger > 0 && (await readFile(`/proc/${logger}/comm`, 'utf8').catch(() => '')).startsWith('virtlogd')) process.kill(logger, 'SIGTERM');
    await rm(directory, { recursive: true, force: true, maxRetries: 5 });
  };

  try {
    await start();
  } catch (cause) {
    await stop();
    throw cause;
  }
  return {
    socket,
    directory,
    testDriver: { socket, driver: 'test:///default' },
    qemuSession: { socket, driver: 'qemu:///session' },
    pid,
    kill,
    start,
    stop,
  };
}

export interface OwnSystemLibvirtd {
  readonly socket: string;
  /** A folder that guests can read. Gone after stop(). */
  readonly directory: string;
  readonly qemuSystem: Target;
  /** The first process of its namespaces, for nsenter. */
  firstPid(): Promise<number>;
  /** The machine loses its power and gets it back: what was written stays, nothing runs. */
  powerCycle(): Promise<void>;
  /** Ends the daemon, its guests and its networks. */
  stop(): Promise<void>;
}

// Arguments: libvirtd's configuration, a user for polkit or nothing, and the folder of what stays when it is started anew. Nothing else of a caller is in these words.
const systemScript = `
set -e
for folder in /run /var/cache/libvirt /var/log/libvirt; do mount -t tmpfs tmpfs "$folder"; done
mkdir -p "$3/etc" "$3/lib/qemu"
mount --bind "$3/etc" /etc/libvirt
mount --bind "$3/lib" /var/lib/libvirt
mkdir -p /run/lock
printf 'cgroup_controllers = [ ]\nsecurity_driver = "none"\n' > /etc/libvirt/qemu.conf
ip link set lo up
virtlogd -d
if [ -n "$2" ]; then
  mount -t tmpfs -o mode=755 tmpfs /etc/polkit-1/rules.d
  echo "polkit.addRule(function (action, subject) { return action.id == 'org.libvirt.unix.manage' && subject.user == '$2' ? 'yes' : 'no'; });" > /etc/polkit-1/rules.d/10-test.rules
  mkdir /run/dbus
  dbus-daemon --system --fork
  /usr/lib/polkit-1/polkitd --no-debug &
fi
exec libvirtd -f "$1"
`;

export interface SystemLibvirtdOptions {
  /** A user whom polkit lets in, without a question; it refuses all others but root. Needs dbus-daemon and polkitd. */
  readonly polkitUser?: string;
}


export async function startSystemLibvirtd(settings: LibvirtdSettings = {}, options: SystemLibvirtdOptions = {}): Promise<OwnSystemLibvirtd> {
  if (process.getuid?.() !== 0) throw new Error('a system libvirtd of its own needs root, for namespaces');
  const [tini, unshare] = await Promise.all([find('tini'), find('unshare'), find('libvirtd'), find('virtlogd'), find('dnsmasq')]);
  const directory = await mkdtemp(join(tmpdir(), 'cvlv-'));
  await chmod(directory, 0o711);
  const configuration = join(directory, 'libvirtd.conf');
  const lines = { unix_sock_dir: directory, unix_sock_rw_perms: '0700', auth_unix_rw: 'none', host_uuid: randomUUID(), ...settings };
  await writeFile(configuration, Object.entries(lines).map(lineOf).join(''));
  const socket = join(directory, 'libvirt-sock');
  let running: { readonly child: ChildProcess; readonly ended: Promise<unknown> } | undefined;
  const powerOff = async () => {
    // The first process of the namespace dies with it, and the rest with that.
    running?.child.kill('SIGKILL');
    await Promise.race([running?.ended, delay(stopMsMax, undefined, { ref: false })]);
  };
  const stop = async () => {
    await powerOff();
    await rm(directory, { recursive: true, force: true, maxRetries: 5 });
  };
  const powerOn = async () => {
    const child = spawn(unshare, ['--mount', '--net', '--pid', '--fork', '--kill-child', '--mount-proc', tini, '--', '/bin/sh', '-c', systemScript, 'sh', configuration, options.polkitUser ?? '', join(directory, 'kept')], {
      cwd: '/',
      env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C.UTF-8' },
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    let log = '';
    child.stderr.setEncoding('utf8').on('data', (text: string) => (log = (log + text).slice(-4_000)));
    running = { child, ended: new Promise((resolve) => child.once('exit', resolve)) };
    const deadline = Date.now() + startMsMax;
    while (!(await answers(socket))) {
      if (child.exitCode !== null || Date.now() > deadline) {
        await stop();
        throw new Error(`the system libvirtd does not listen: ${log}`);
      }
      await delay(20);
    }
  };
  await powerOn();
  const powerCycle = async () => {
    await powerOff();
    // The namespace dies a moment after its first process: until then it still answers.
    const deadline = Date.now() + stopMsMax;
    while ((await answers(socket)) && Date.now() < deadline) await delay(20);
    await powerOn();
  };
  const firstPid = async () => Number((await promisify(execFile)('ps', ['--ppid', String(running?.child.pid), '-o', 'pid='])).stdout);
  return { socket, directory, qemuSystem: { socket, driver: 'qemu:///system' }, firstPid, powerCycle, stop };
}

/** tini has the daemon as its first child. */
async function childOf(parent: number | undefined): Promise<string> {
  if (parent === undefined) throw new Error('libvirtd is not running');
  const { stdout } = await promisify(execFile)('ps', ['--ppid', String(parent), '-o', 'pid=,comm=']);
  const line = stdout.split('\n').find((one) => one.trim().endsWith('libvirtd'));
  if (line === undefined) throw new Error('libvirtd is not running');
  return line.trim().split(' ')[0] as string;
}

function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = createConnection({ path });
    const settle = (answer: boolean) => {
      socket.destroy();
      resolve(answer);
    };
    socket.once('connect', () => settle(true));
    socket.once('error', () => settle(false));
  });
}
