/*
 * Where an installation lives.
 *
 *   CV_HOME (default: .chronovirt in the repository)
 *     admin.token      the administrator's token, made at the first start
 *     installation     eight hexadecimal digits that tell this installation's tokens from another's
 *     secrets/         passwords of Postgres, keys and creds of the bus
 *     agent/           the node agent's journal and identity
 *     store/           images of the control plane, and what is on its way to become one
 *     logs/  run/  cache/
 *
 *   open folder        what an unprivileged user must reach: postgres/ nats/ images/ disks/ pools/ backups/ run/
 *
 * Postgres, nats-server and QEMU run as users who must pass through every parent folder. So the
 * open folder is CV_HOME itself only when all its parents let others in; below a folder of mode
 * 0700, such as /root, it is /var/lib/chronovirt/<hash of CV_HOME>. And the path of a socket ends at
 * 107 bytes (unix(7)), so a long CV_HOME gets its sockets a short folder as well.
 */
import { createHash, randomBytes } from 'node:crypto';
import { chmodSync, existsSync, mkdirSync, realpathSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, isAbsolute, join, resolve } from 'node:path';
import { folderOf, isRoot, type Identity } from './identity.ts';
import { onceWritten, randomSecret } from './secrets.ts';

export const REPOSITORY = resolve(import.meta.dirname, '..');

export interface Home {
  readonly dir: string;
  readonly open: string;
  /** Sentences that start says aloud. */
  readonly remarks: readonly string[];
  /** Short hash of CV_HOME: tells this installation's things from others' on the same machine. */
  readonly hash: string;
  readonly logs: string;
  readonly secrets: string;
  readonly run: string;
  readonly cache: string;
  readonly agent: string;
  readonly images: string;
  /** The control plane's images: see services/api-gateway/src/bytes/byte-store.os.ts. */
  readonly store: string;
  readonly disks: string;
  /** Below it an operator makes pools. */
  readonly pools: string;
  /** The target of backups that is there without anybody's doing. On the same machine as what it backs up. */
  readonly backups: string;
  /** Sockets of VMs and of Postgres: short, enterable. */
  readonly sockets: string;
  readonly adminTokenFile: string;
  readonly joinTokenFile: string;
}

export interface Settings {
  readonly home: Home;
  readonly port: number;
}

/** A socket's own name below its folder: `vm_<uuid>.console.sock` and the like. */
const SOCKET_NAME_BYTES_MAX = 60;
const SOCKET_PATH_BYTES_MAX = 100;

/** What the environment says; throws one sentence for everything that is wrong. */
export function settingsFrom(environment: NodeJS.ProcessEnv): Settings {
  const wrong: string[] = [];
  const dir = environment['CV_HOME'] || join(REPOSITORY, '.chronovirt');
  if (!isAbsolute(dir)) wrong.push(`CV_HOME must be an absolute path, and is ${JSON.stringify(dir)}`);
  if (/[\0\r\n]/.test(dir)) wrong.push('CV_HOME may not hold a line break');
  const portText = environment['CV_PORT'] || '8080';
  const port = Number(portText);
  if (!/^\d{1,5}$/.test(portText) || port < 1 || port > 65_535) wrong.push(`CV_PORT must be a port from 1 to 65535, and is ${JSON.stringify(portText)}`);
  if (wrong.length > 0) throw new Error(wrong.join('; '));
  return { home: locate(resolve(dir)), port };
}

/** Says where everything lies, without making anything. */
export function locate(dir: string): Home {
  const remarks: string[] = [];
  const hash = createHash('sha256').update(dir).digest('hex').slice(0, 8);
  let open = dir;
  const shut = isRoot() ? firstShutParent(dir) : undefined;
  if (shut !== undefined) {
    open = `/var/lib/chronovirt/${hash}`;
    remarks.push(`other users may not enter ${shut}, so the data that Postgres, NATS and QEMU must reach lies in ${open}`);
  }
  let sockets = join(open, 'run');
  if (sockets.length + 1 + SOCKET_NAME_BYTES_MAX > SOCKET_PATH_BYTES_MAX) {
    sockets = isRoot() ? `/var/lib/chronovirt/${hash}/run` : join(tmpdir(), `chronovirt-${process.getuid?.() ?? 0}-${hash}`);
    remarks.push(`the path of ${open} is too long for sockets, so they lie in ${sockets}`);
  }
  return {
    dir,
    open,
    remarks,
    hash,
    logs: join(dir, 'logs'),
    secrets: join(dir, 'secrets'),
    run: join(dir, 'control'),
    cache: join(dir, 'cache'),
    store: join(dir, 'store'),
    agent: join(dir, 'agent'),
    images: join(open, 'images'),
    disks: join(open, 'disks'),
    pools: join(open, 'pools'),
    backups: join(open, 'backups'),
    sockets,
    adminTokenFile: join(dir, 'admin.token'),
    joinTokenFile: join(dir, 'secrets', 'join.token'),
  };
}

/** Makes the folders, for ourselves what is secret and for others what they must enter. */
export function makeFolders(home: Home, unprivileged: Identity): void {
  mkdirSync(home.dir, { recursive: true, mode: 0o755 });
  // A folder on the way may have been made just now under a narrow umask.
  if (isRoot() && home.open === home.dir) chmodSync(home.dir, 0o755);
  for (const dir of [home.logs, home.secrets, home.run, home.cache, home.agent, home.store]) mkdirSync(dir, { recursive: true, mode: 0o700 });
  for (const dir of [home.open, home.images, home.disks, home.pools, home.backups, home.sockets]) {
    mkdirSync(dir, { recursive: true, mode: 0o755 });
    chmodSync(dir, 0o755);
  }
  for (const name of ['postgres', 'nats']) folderOf(unprivileged, join(home.open, name), 0o755);
}

/** Eight hexadecimal digits, made once. */
export const installationOf = (home: Home): string => onceWritten(join(home.dir, 'installation'), () => randomBytes(4).toString('hex'));

export const adminTokenOf = (home: Home): string => onceWritten(home.adminTokenFile, () => `cv_${installationOf(home)}_${randomSecret()}`);

/** The first folder above (or of) `dir` that others may not enter. */
function firstShutParent(dir: string): string | undefined {
  let real = dir;
  while (!existsSync(real)) real = dirname(real);
  real = realpathSync(real);
  const onTheWay: string[] = [];
  for (let at = real; ; at = dirname(at)) {
    onTheWay.unshift(at);
    if (at === dirname(at)) break;
  }
  // CV_HOME itself is ours to open.
  return onTheWay.find((folder) => folder !== dir && (statSync(folder).mode & 0o001) === 0);
}
