/*
 * A nats-server of our own, in operator mode.
 *
 * Who may connect is said by signed JWTs, so that node agents are let in and shut out at run
 * time while the server's configuration never changes. The keys are made once:
 *
 *   <keysDir>/operator.nk         seed of the operator: signs accounts; needed to revoke an agent
 *   <keysDir>/account.nk          seed of the account CV, its identity
 *   <keysDir>/account-signing.nk  seed of the account's signing key: signs users (agents, services)
 *   <keysDir>/account.jwt         the account as it was first signed (revocations are added to a copy in the server)
 *   <keysDir>/operator.jwt, system-account.jwt
 *   <keysDir>/system.creds        a user of the system account: sends $SYS.REQ.CLAIMS.UPDATE
 *   <keysDir>/service.creds       the user of our services: all subjects of CV
 *
 * All are of mode 0600 and ours; the server itself reads none of them, only JWTs in its
 * configuration. JetStream's store and the resolver's folder belong to the unprivileged user.
 * The store may be deleted at any time: the log in Postgres is the truth.
 */
import type { ChildProcess } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { encodeAccount, encodeOperator, encodeUser, fmtCreds } from '@nats-io/jwt';
import { createAccount, createOperator, createUser, fromSeed } from '@nats-io/nkeys';
import { hasEnded, programOf, startProgram, stopPid, stopProgram, untilReady } from './child.ts';
import { folderOf, unprivileged, type Identity } from './identity.ts';
import { answers, freePort, isFree } from './ports.ts';
import { onceWritten, writeWhole } from './secrets.ts';

export interface NatsHome {
  /** JetStream's store (`<dir>/js`), the resolver's accounts and the configuration; enterable by the unprivileged user. */
  readonly dir: string;
  /** Default `<dir>/keys`. */
  readonly keysDir?: string;
  /** Default `<dir>/nats.log`. */
  readonly logFile?: string;
}

export interface NatsOptions {
  /** Default: the one used last, when it is still free. */
  readonly port?: number;
  readonly as?: Identity;
}

export interface Nats {
  readonly child: ChildProcess;
  readonly port: number;
  /** nats://127.0.0.1:<port> */
  readonly url: string;
  readonly keysDir: string;
  readonly serviceCreds: string;
  readonly systemCreds: string;
  /** JetStream's store: may be deleted while the server is down. */
  readonly storeDir: string;
  stop(): Promise<void>;
}

const READY_WITHIN_MS = 30_000;
const STOP_SIGNALS = [['SIGTERM', 10_000], ['SIGKILL', 5_000]] as const;
const STORE_BYTES_MAX = 32 * 1024 ** 3;
const NO_LIMIT = -1; // in a JWT a limit that is left out is 0, "nothing", not "no limit"

/** The server's program: `CV_NATS_SERVER`, else the distribution's. */
export function natsProgram(): string | undefined {
  const candidates = [process.env['CV_NATS_SERVER'], '/usr/sbin/nats-server', '/usr/local/bin/nats-server', '/usr/bin/nats-server'];
  return candidates.find((path) => path !== undefined && existsSync(path));
}

export async function startNats(home: NatsHome, options: NatsOptions = {}): Promise<Nats> {
  const program = natsProgram();
  if (!program) throw new Error('found no nats-server: install nats-server, or name it in CV_NATS_SERVER');
  const as = options.as ?? unprivileged();
  const keysDir = home.keysDir ?? join(home.dir, 'keys');
  const logFile = home.logFile ?? join(home.dir, 'nats.log');
  const storeDir = join(home.dir, 'js');
  const pidFile = join(home.dir, 'nats.pid');
  mkdirSync(home.dir, { recursive: true });
  mkdirSync(dirname(logFile), { recursive: true });
  folderOf(as, storeDir, 0o700);
  folderOf(as, join(home.dir, 'accounts'), 0o700);

  await stopLeftBehind(pidFile, program);
  const jwts = await ensureKeys(keysDir);
  const port = options.port ?? (await portFor(home.dir));
  const configFile = join(home.dir, 'nats.conf');
  writeWhole(configFile, configuration({ dir: home.dir, storeDir, port, ...jwts }), 0o644); // JWTs are public: they are signed, not secret
  const child = startProgram({ command: program, args: ['-c', configFile], as, cwd: home.dir, logFile });
  if (child.pid !== undefined) writeFileSync(pidFile, String(child.pid));

  const nats: Nats = {
    child,
    port,
    url: `nats://127.0.0.1:${port}`,
    keysDir,
    serviceCreds: join(keysDir, 'service.creds'),
    systemCreds: join(keysDir, 'system.creds'),
    storeDir,
    stop: async () => {
      await (hasEnded(child) ? stopLeftBehind(pidFile, program) : stopProgram(child, STOP_SIGNALS));
      rmSync(pidFile, { force: true });
    },
  };
  try {
    await untilReady(child, 'nats-server', logFile, () => answers(port, (text) => text.startsWith('INFO ')), READY_WITHIN_MS);
  } catch (error) {
    await nats.stop();
    throw error;
  }
  return nats;
}

interface Jwts {
  readonly operatorJwt: string;
  readonly systemAccount: string;
  readonly systemJwt: string;
  readonly account: string;
  readonly accountJwt: string;
}

/** The public half of what the server must know; makes every key that is missing. */
async function ensureKeys(keysDir: string): Promise<Jwts> {
  mkdirSync(keysDir, { recursive: true, mode: 0o700 });
  const pair = (name: string, make: () => { getSeed(): Uint8Array }): ReturnType<typeof fromSeed> =>
    fromSeed(Buffer.from(onceWritten(join(keysDir, name), () => Buffer.from(make().getSeed()).toString('utf8'))));
  const operator = pair('operator.nk', createOperator);
  const system = pair('system-account.nk', createAccount);
  const account = pair('account.nk', createAccount);
  const signing = pair('account-signing.nk', createAccount);

  const limits = { conn: NO_LIMIT, leaf: NO_LIMIT, subs: NO_LIMIT, data: NO_LIMIT, payload: NO_LIMIT, imports: NO_LIMIT, exports: NO_LIMIT, wildcards: true };
  const storage = { mem_storage: NO_LIMIT, disk_storage: NO_LIMIT, streams: NO_LIMIT, consumer: NO_LIMIT };
  const operatorJwt = await once(join(keysDir, 'operator.jwt'), () => encodeOperator('chronovirt', operator, { system_account: system.getPublicKey() }));
  const systemJwt = await once(join(keysDir, 'system-account.jwt'), () => encodeAccount('SYS', system, { limits }, { signer: operator }));
  const accountJwt = await once(join(keysDir, 'account.jwt'), () =>
    encodeAccount('CV', account, { limits: { ...limits, ...storage }, signing_keys: [signing.getPublicKey()] }, { signer: operator }));
  const user = { subs: NO_LIMIT, data: NO_LIMIT, payload: NO_LIMIT };
  await creds(join(keysDir, 'system.creds'), (key) => encodeUser('system', key, system, user));
  await creds(join(keysDir, 'service.creds'), (key) => encodeUser('service', key, account, user, { signer: signing }));
  return { operatorJwt, systemAccount: system.getPublicKey(), systemJwt, account: account.getPublicKey(), accountJwt };
}

async function once(path: string, make: () => Promise<string>): Promise<string> {
  const text = existsSync(path) ? '' : await make();
  return onceWritten(path, () => text);
}

const creds = (path: string, encode: (key: ReturnType<typeof createUser>) => Promise<string>): Promise<string> =>
  once(path, async () => {
    const key = createUser();
    return Buffer.from(fmtCreds(await encode(key), key)).toString('utf8');
  });

const configuration = (c: Jwts & { dir: string; storeDir: string; port: number }): string => `# Written by Chronovirt at each start.
server_name: chronovirt
listen: "127.0.0.1:${c.port}"
max_payload: 1MB
jetstream { store_dir: ${JSON.stringify(c.storeDir)}, max_memory_store: 67108864, max_file_store: ${STORE_BYTES_MAX} }
operator: ${c.operatorJwt}
system_account: ${c.systemAccount}
resolver { type: full, dir: ${JSON.stringify(join(c.dir, 'accounts'))}, allow_delete: true, interval: "2m" }
resolver_preload {
  ${c.systemAccount}: ${c.systemJwt}
  ${c.account}: ${c.accountJwt}
}
`;

async function portFor(dir: string): Promise<number> {
  const file = join(dir, 'nats.conf');
  const last = existsSync(file) ? Number(/^listen: "127\.0\.0\.1:(\d+)"$/m.exec(readFileSync(file, 'utf8'))?.[1] ?? 0) : 0;
  return last > 0 && (await isFree(last)) ? last : freePort();
}

async function stopLeftBehind(pidFile: string, program: string): Promise<void> {
  if (!existsSync(pidFile)) return;
  const pid = Number(readFileSync(pidFile, 'utf8'));
  const config = join(dirname(pidFile), 'nats.conf');
  const isStillIt = (): boolean => programOf(pid) === program && argumentsOf(pid).includes(config);
  if (Number.isInteger(pid) && pid > 0 && !(await stopPid(pid, isStillIt, STOP_SIGNALS))) throw new Error(`a nats-server with process id ${pid} does not end`);
}

function argumentsOf(pid: number): readonly string[] {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
  } catch {
    return [];
  }
}
