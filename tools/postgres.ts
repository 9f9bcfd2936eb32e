/*
 * A Postgres of our own, from the distribution's programs.
 *
 * The distribution's clusters are neither used nor touched: ours has its own folder, port,
 * socket and superuser. `postgres` itself is the child, not pg_ctl, so that the end of the
 * child is the end of Postgres. Every connection needs a password (SCRAM), on the socket as
 * on 127.0.0.1; the passwords are made here, kept in one file of mode 0600, and reach
 * Postgres only as SCRAM verifiers, so that no statement in its log can hold one.
 *
 *   <dir>/data          the cluster, owned by the unprivileged user
 *   <secretsFile>       {"postgres": …, "cv_owner": …, "cv_gateway": …}, readable by us alone
 *
 * Roles: `cv_owner` owns the database and runs migrations; each service has its own.
 */
import { execFile, type ChildProcess } from 'node:child_process';
import { createHash, createHmac, pbkdf2Sync, randomBytes } from 'node:crypto';
import { chownSync, existsSync, mkdirSync, readdirSync, readFileSync, readlinkSync, realpathSync, rmSync, unlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { Client } from 'pg';
import { hasEnded, programOf, startProgram, stopPid, stopProgram, untilReady, type Program, type StopSignals } from './child.ts';
import { folderOf, isRoot, runAs, unprivileged, type Identity } from './identity.ts';
import { lastOrFreePort } from './ports.ts';
import { postgresBin } from './programs.ts';
import { onceWritten, randomSecret } from './secrets.ts';

export const SERVICE_ROLES = ['cv_gateway', 'cv_scheduler', 'cv_ipam', 'cv_storage', 'cv_monitor'] as const;
export type PostgresRole = 'postgres' | 'cv_owner' | (typeof SERVICE_ROLES)[number];

export interface PostgresHome {
  /** The cluster is made in `<dir>/data`; every parent must be enterable by the unprivileged user. */
  readonly dir: string;
  /** Where the socket lies; default `<dir>/run`. Paths of sockets end at 107 bytes. */
  readonly socketDir?: string;
  /** Default `<dir>/postgres.secrets.json`. */
  readonly secretsFile?: string;
  /** Default `<dir>/postgres.log`. */
  readonly logFile?: string;
}

export interface PostgresOptions {
  /** Default: the one used last, when it is still free. */
  readonly port?: number;
  /** Default `chronovirt`. */
  readonly database?: string;
  readonly as?: Identity;
  /** More lines of configuration, for tests that need them. */
  readonly settings?: Readonly<Record<string, string>>;
}

/** How to reach a Postgres of ours. */
export interface PostgresAddress {
  readonly port: number;
  readonly socketDir: string;
  /** A connection string over the unix socket. */
  url(role: PostgresRole, database?: string): string;
  /** The same over 127.0.0.1, for programs that know no sockets. */
  tcpUrl(role: PostgresRole, database?: string): string;
}

/** A cluster that is made and may be started. */
export interface PreparedPostgres extends PostgresAddress {
  readonly program: Program;
  readonly stopSignals: StopSignals;
  /** Whether it takes connections. */
  readonly isReady: () => Promise<boolean>;
  /** Makes roles and database where they are missing. Once it is ready. */
  readonly settle: () => Promise<void>;
}

export interface Postgres extends PostgresAddress {
  readonly child: ChildProcess;
  /** Fast shutdown: clients are sent away, everything is on disk. Ends what an earlier crash left behind as well. */
  stop(): Promise<void>;
}

export const POSTGRES_READY_WITHIN_MS = 60_000; // a start after kill -9 replays the write-ahead log first
const STOP_SIGNALS: StopSignals = [['SIGINT', 30_000], ['SIGQUIT', 5_000], ['SIGKILL', 5_000]];

/** Makes the cluster where there is none, starts it, and makes roles and database where they are missing. */
export async function startPostgres(home: PostgresHome, options: PostgresOptions = {}): Promise<Postgres> {
  const prepared = await preparePostgres(home, options);
  const { program, stopSignals, isReady, settle, ...address } = prepared;
  const child = startProgram(program);
  const stop = (): Promise<void> => (hasEnded(child) ? stopLeftBehind(join(home.dir, 'data')) : stopProgram(child, stopSignals));
  try {
    await untilReady(child, 'Postgres', program.logFile, isReady, POSTGRES_READY_WITHIN_MS);
    await settle();
  } catch (error) {
    await stop();
    throw error;
  }
  return { ...address, child, stop };
}

/** Makes the cluster where there is none, and ends a Postgres that an earlier crash left on it. */
export async function preparePostgres(home: PostgresHome, options: PostgresOptions = {}): Promise<PreparedPostgres> {
  const bin = postgresBin();
  if (!bin) throw new Error('found no Postgres: install postgresql-15, or name its bin folder in CV_POSTGRES_BIN');
  const as = options.as ?? unprivileged();
  const data = join(home.dir, 'data');
  const socketDir = home.socketDir ?? join(home.dir, 'run');
  const logFile = home.logFile ?? join(home.dir, 'postgres.log');
  const secrets = secretsOf(home);
  mkdirSync(home.dir, { recursive: true });
  mkdirSync(dirname(logFile), { recursive: true });

  folderOf(as, data, 0o700);
  folderOf(as, socketDir, 0o755);
  if (!existsSync(join(data, 'PG_VERSION'))) await initialise(bin, data, as, secrets.postgres);
  else checkVersion(bin, data);
  await stopLeftBehind(data);

  const port = options.port ?? (await portFor(data));
  if (join(socketDir, `.s.PGSQL.${port}`).length > 100) throw new Error(`the path of the Postgres socket is too long: ${socketDir}`);
  writeFileSync(join(data, 'chronovirt.port'), String(port));
  const settings = { ...defaultSettings, ...options.settings, port: String(port), unix_socket_directories: socketDir };
  const name = options.database ?? 'chronovirt';
  const url = (role: PostgresRole, database = name): string => `postgresql://${role}:${secrets[role]}@${encodeURIComponent(socketDir)}:${port}/${database}`;
  const above = url('postgres', 'postgres');
  return {
    port,
    socketDir,
    url,
    tcpUrl: (role, database = name) => `postgresql://${role}:${secrets[role]}@127.0.0.1:${port}/${database}`,
    program: {
      command: join(bin, 'postgres'),
      args: ['-D', data, ...Object.entries(settings).flatMap(([key, value]) => ['-c', `${key}=${value}`])],
      as,
      cwd: data,
      logFile,
      env: { LANG: 'C.UTF-8', PATH: '/usr/bin:/bin', TZ: 'UTC' },
    },
    stopSignals: STOP_SIGNALS,
    isReady: () => canConnect(above),
    settle: async () => {
      await ensureRoles(above, secrets);
      await ensureDatabase(above, name);
    },
  };
}

/*
 * Small, because it shares a laptop with everything else; durable, because the log lives here. A dead
 * client must not keep an advisory lock, and with it the lead, for the two hours of TCP's defaults.
 */
const defaultSettings: Readonly<Record<string, string>> = {
  listen_addresses: '127.0.0.1',
  unix_socket_permissions: '0700',
  max_connections: '64',
  superuser_reserved_connections: '3',
  shared_buffers: '48MB',
  work_mem: '4MB',
  maintenance_work_mem: '32MB',
  autovacuum_max_workers: '2',
  max_worker_processes: '2',
  max_parallel_workers: '0',
  max_parallel_workers_per_gather: '0',
  jit: 'off',
  huge_pages: 'off',
  fsync: 'on',
  synchronous_commit: 'on',
  full_page_writes: 'on',
  max_wal_size: '512MB',
  min_wal_size: '64MB',
  checkpoint_timeout: '10min',
  wal_compression: 'on',
  max_wal_senders: '2',
  tcp_keepalives_idle: '5',
  tcp_keepalives_interval: '2',
  tcp_keepalives_count: '3',
  client_connection_check_interval: '5s',
  password_encryption: 'scram-sha-256',
  log_line_prefix: '%m [%p] %q%u@%d ',
  log_timezone: 'UTC',
  timezone: 'UTC',
  log_checkpoints: 'off',
  // Contention is answered by trying again; a statement in the log may carry a user's data.
  log_min_error_statement: 'panic',
};

type Secrets = Readonly<Record<PostgresRole, string>>;

function secretsOf(home: PostgresHome): Secrets {
  const file = home.secretsFile ?? join(home.dir, 'postgres.secrets.json');
  const roles: readonly PostgresRole[] = ['postgres', 'cv_owner', ...SERVICE_ROLES];
  const text = onceWritten(file, () => JSON.stringify(Object.fromEntries(roles.map((role) => [role, randomSecret()])), null, 2));
  const secrets = JSON.parse(text) as Record<string, string>;
  const missing = roles.filter((role) => !secrets[role]);
  if (missing.length > 0) throw new Error(`${file} has no password for ${missing.join(', ')}`);
  return secrets as Secrets;
}

async function initialise(bin: string, data: string, as: Identity, password: string): Promise<void> {
  // In a file of the user's own, because initdb reads it as that user; in a folder anyone can enter.
  const passwordFile = join(tmpdir(), `cv-initdb-${process.pid}-${randomBytes(6).toString('hex')}`);
  writeFileSync(passwordFile, password, { mode: 0o600, flag: 'wx' });
  try {
    if (isRoot()) chownSync(passwordFile, as.uid, as.gid);
    const args = ['-D', data, '-U', 'postgres', '--auth=scram-sha-256', `--pwfile=${passwordFile}`, '--encoding=UTF8', '--locale=C.UTF-8', '--data-checksums', '--no-instructions'];
    await promisify(execFile)(join(bin, 'initdb'), args, { cwd: '/', env: { LANG: 'C.UTF-8', PATH: '/usr/bin:/bin' }, ...runAs(as) });
  } catch (cause) {
    // A half-made cluster has a PG_VERSION and would be taken for a whole one at the next start.
    for (const entry of readdirSync(data)) rmSync(join(data, entry), { recursive: true });
    throw new Error(`could not make a Postgres cluster in ${data}: ${(cause as { stderr?: string }).stderr?.trim() ?? ''}`, { cause });
  } finally {
    unlinkSync(passwordFile);
  }
}

function checkVersion(bin: string, data: string): void {
  const made = readFileSync(join(data, 'PG_VERSION'), 'utf8').trim();
  const have = /postgresql\/(\d+)\/bin$/.exec(bin)?.[1];
  if (have && have !== made) {
    throw new Error(`${data} was made by Postgres ${made}, and ${have} cannot read it: install postgresql-${made}, or name its bin folder in CV_POSTGRES_BIN`);
  }
}

/** Ends a Postgres on this folder whose starter died, so that the folder has one master again. */
async function stopLeftBehind(data: string): Promise<void> {
  const pidFile = join(data, 'postmaster.pid');
  if (!existsSync(pidFile)) return;
  const [pidLine, dirLine] = readFileSync(pidFile, 'utf8').split('\n');
  const pid = Number(pidLine);
  const isStillIt = (): boolean => programOf(pid)?.endsWith('/postgres') === true && cwdOf(pid) === realpathSync(data);
  if (!Number.isInteger(pid) || pid <= 0 || dirLine !== data) return;
  if (!(await stopPid(pid, isStillIt, STOP_SIGNALS))) throw new Error(`a Postgres with process id ${pid} still holds ${data} and does not end`);
}

function cwdOf(pid: number): string | undefined {
  try {
    return readlinkSync(`/proc/${pid}/cwd`);
  } catch {
    return undefined;
  }
}

async function portFor(data: string): Promise<number> {
  const file = join(data, 'chronovirt.port');
  const last = existsSync(file) ? Number(readFileSync(file, 'utf8')) : 0;
  return lastOrFreePort(last);
}

async function canConnect(url: string): Promise<boolean> {
  await withClient(url, async () => {});
  return true;
}

/** Runs `work` on a connection of its own. */
export async function withClient<T>(url: string, work: (client: Client) => Promise<T>): Promise<T> {
  const client = new Client({ connectionString: url, connectionTimeoutMillis: 5_000 });
  client.on('error', () => {}); // the failing query says it
  try {
    await client.connect();
    return await work(client);
  } finally {
    await client.end().catch(() => {});
  }
}

/** Makes the roles that are missing. `cv_owner` may pass to and act for each service role, so that migrations can grant. */
const ensureRoles = (url: string, secrets: Secrets): Promise<void> =>
  withClient(url, async (client) => {
    const known = new Set((await client.query<{ rolname: string }>('select rolname from pg_roles')).rows.map((row) => row.rolname));
    for (const role of ['cv_owner', ...SERVICE_ROLES] as const) {
      if (known.has(role)) continue;
      const may = role === 'cv_owner' ? 'createrole' : 'nocreaterole';
      await client.query(`create role ${role} login nosuperuser nocreatedb ${may} password '${scramVerifier(secrets[role])}'`);
      if (role !== 'cv_owner') await client.query(`grant ${role} to cv_owner with admin option`);
    }
  });

const ensureDatabase = (url: string, name: string): Promise<void> =>
  withClient(url, async (client) => {
    const { rowCount } = await client.query('select 1 from pg_database where datname = $1', [name]);
    if (rowCount === 0) await createDatabase(client, name);
  });

/** A database of `cv_owner` that nobody else may enter except the services' roles. */
export async function createDatabase(client: Client, name: string): Promise<void> {
  const quoted = client.escapeIdentifier(name);
  await client.query(`create database ${quoted} owner cv_owner`);
  await client.query(`revoke all on database ${quoted} from public`);
  await client.query(`grant connect, temporary on database ${quoted} to ${SERVICE_ROLES.join(', ')}`);
}

/** What Postgres keeps of a password: RFC 5803's form of SCRAM-SHA-256. */
function scramVerifier(password: string): string {
  const salt = randomBytes(16);
  const rounds = 4096;
  const salted = pbkdf2Sync(password, salt, rounds, 32, 'sha256');
  const mac = (text: string): Buffer => createHmac('sha256', salted).update(text).digest();
  const storedKey = createHash('sha256').update(mac('Client Key')).digest('base64');
  return `SCRAM-SHA-256$${rounds}:${salt.toString('base64')}$${storedKey}:${mac('Server Key').toString('base64')}`;
}
