/*
 * A nats-server of our own, in operator mode: who may connect is said by signed JWTs
 * (libs/messaging/src/credentials.ts), so that node agents are let in and shut out at run time while
 * the server's configuration never changes. The keys are made once:
 *
 *   <keysDir>/installation.json   InstallationKeys: every seed, public key and account JWT. Who holds it
 *                                 can mint and revoke (the gateway: CV_GATEWAY_NATS_KEYS is <keysDir>)
 *   <keysDir>/service.creds       the user of our services: all of the account CV
 *   <keysDir>/system.creds        a user of the system account: sends revocations
 *
 * All are of mode 0600 and ours; the server itself reads none of them, only JWTs in its
 * configuration. JetStream's store and the resolver's folder belong to the unprivileged user.
 * The store may be deleted at any time: the log in Postgres is the truth.
 */
import type { ChildProcess } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, realpathSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { createInstallationKeys, natsServerConfig, serviceCreds, systemCreds } from '../libs/messaging/src/credentials.ts';
import type { InstallationKeys } from '../libs/messaging/src/credentials.ts';
import { argumentsOf, processes, programOf, startProgram, stopPid, stopProgram, untilReady, type Program, type StopSignals } from './child.ts';
import { folderOf, unprivileged, type Identity } from './identity.ts';
import { answers, lastOrFreePort } from './ports.ts';
import { natsProgram } from './programs.ts';
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

/** How to reach a nats-server of ours. */
export interface NatsAddress {
  readonly port: number;
  /** nats://127.0.0.1:<port> */
  readonly url: string;
  readonly keysDir: string;
  readonly serviceCreds: string;
  readonly systemCreds: string;
  /** JetStream's store: may be deleted while the server is down. */
  readonly storeDir: string;
}

/** A server whose keys and configuration are made and which may be started. */
export interface PreparedNats extends NatsAddress {
  readonly program: Program;
  readonly stopSignals: StopSignals;
  readonly isReady: () => Promise<boolean>;
}

export interface Nats extends NatsAddress {
  readonly child: ChildProcess;
  stop(): Promise<void>;
}

export const NATS_READY_WITHIN_MS = 30_000;
const STOP_SIGNALS: StopSignals = [['SIGTERM', 10_000], ['SIGKILL', 5_000]];

export async function startNats(home: NatsHome, options: NatsOptions = {}): Promise<Nats> {
  const { program, stopSignals, isReady, ...address } = await prepareNats(home, options);
  const child = startProgram(program);
  const stop = (): Promise<void> => stopProgram(child, stopSignals);
  try {
    await untilReady(child, 'nats-server', program.logFile, isReady, NATS_READY_WITHIN_MS);
  } catch (error) {
    await stop();
    throw error;
  }
  return { ...address, child, stop };
}

/** Makes keys and configuration, and ends a server that an earlier crash left behind. */
export async function prepareNats(home: NatsHome, options: NatsOptions = {}): Promise<PreparedNats> {
  const command = natsProgram();
  if (!command) throw new Error('found no nats-server: install nats-server, or name it in CV_NATS_SERVER');
  const as = options.as ?? unprivileged();
  const keysDir = home.keysDir ?? join(home.dir, 'keys');
  const logFile = home.logFile ?? join(home.dir, 'nats.log');
  const storeDir = join(home.dir, 'js');
  const resolverDir = join(home.dir, 'accounts');
  const configFile = join(home.dir, 'nats.conf');
  mkdirSync(home.dir, { recursive: true });
  mkdirSync(dirname(logFile), { recursive: true });
  folderOf(as, storeDir, 0o700);
  folderOf(as, resolverDir, 0o700);

  await stopLeftBehind(command, configFile);
  const keys = await ensureKeys(keysDir);
  const port = options.port ?? (await portFor(home.dir));
  writeWhole(configFile, natsServerConfig(keys, { host: '127.0.0.1', port, storeDir, resolverDir }), 0o644); // JWTs are signed, not secret
  return {
    port,
    url: `nats://127.0.0.1:${port}`,
    keysDir,
    serviceCreds: join(keysDir, 'service.creds'),
    systemCreds: join(keysDir, 'system.creds'),
    storeDir,
    program: { command, args: ['-c', configFile], as, cwd: home.dir, logFile },
    stopSignals: STOP_SIGNALS,
    isReady: () => answers(port, (text) => text.startsWith('INFO ')),
  };
}

async function ensureKeys(keysDir: string): Promise<InstallationKeys> {
  mkdirSync(keysDir, { recursive: true, mode: 0o700 });
  const keys = JSON.parse(await once(join(keysDir, 'installation.json'), async () => JSON.stringify(await createInstallationKeys(), null, 2))) as InstallationKeys;
  await once(join(keysDir, 'service.creds'), () => serviceCreds(keys));
  await once(join(keysDir, 'system.creds'), () => systemCreds(keys));
  return keys;
}

async function once(path: string, make: () => Promise<string>): Promise<string> {
  const text = existsSync(path) ? '' : await make();
  return onceWritten(path, () => text);
}

async function portFor(dir: string): Promise<number> {
  const file = join(dir, 'nats.conf');
  const last = existsSync(file) ? Number(/^port: (\d+)$/m.exec(readFileSync(file, 'utf8'))?.[1] ?? 0) : 0;
  return lastOrFreePort(last);
}

/** The server writes no pid file that we would trust: whoever runs it on our configuration is it. */
async function stopLeftBehind(program: string, configFile: string): Promise<void> {
  for (const pid of processes()) {
    const isStillIt = (): boolean => programOf(pid) === realpathSync(program) && argumentsOf(pid).includes(configFile);
    if (isStillIt() && !(await stopPid(pid, isStillIt, STOP_SIGNALS))) throw new Error(`a nats-server with process id ${pid} does not end`);
  }
}
