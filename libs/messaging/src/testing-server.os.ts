/* A nats-server for one test file: its own folder, its own port, gone at the end. Tests only. */
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { connect as connectTcp, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { connect, jwtAuthenticator } from '@nats-io/transport-node';
import type { NatsConnection } from '@nats-io/transport-node';
import { connectBus } from './connect.ts';
import type { Bus } from './connect.ts';
import { createAgentKey, createInstallationKeys, mintAgentJwt, natsServerConfig, serviceCreds } from './credentials.ts';
import type { InstallationKeys } from './credentials.ts';
import { agentInboxPrefix } from './topology.ts';

export interface TestingServer {
  readonly url: string;
  readonly port: number;
  readonly keys: InstallationKeys;
  readonly storeDir: string;
  readonly pid: () => number | undefined;
  /** Starts it again on the same port, with what is left of its store. */
  start(): Promise<void>;
  /** kill -9, as a crash does. */
  kill(): Promise<void>;
  /** Deletes the whole JetStream store; the server may be running or not. */
  wipe(): Promise<void>;
  /** Stops it and removes its folder. */
  stop(): Promise<void>;
}

const START_MS = 10_000;

/** Path of nats-server, or undefined where it is not installed. */
export function findNatsServer(): string | undefined {
  const folders = [...(process.env['PATH'] ?? '').split(delimiter), '/usr/sbin', '/usr/bin', '/usr/local/bin'];
  return folders.map((folder) => join(folder, 'nats-server')).find((path) => existsSync(path));
}

export async function freePort(): Promise<number> {
  const server = createServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  server.close();
  await once(server, 'close');
  if (address === null || typeof address === 'string') throw new Error('no port');
  return address.port;
}

const answers = (port: number): Promise<boolean> =>
  new Promise((resolve) => {
    const socket = connectTcp(port, '127.0.0.1');
    socket.once('data', () => { socket.destroy(); resolve(true); });
    socket.once('error', () => resolve(false));
  });

export async function startTestingServer({ storeBytesMax = 8 * 2 ** 30 }: { readonly storeBytesMax?: number } = {}): Promise<TestingServer> {
  const binary = findNatsServer();
  if (binary === undefined) throw new Error('nats-server is not installed');
  const dir = await mkdtemp(join(tmpdir(), 'cv-nats-'));
  const storeDir = join(dir, 'js');
  const config = join(dir, 'nats.conf');
  const keys = await createInstallationKeys();
  const port = await freePort();
  await writeFile(config, natsServerConfig(keys, { host: '127.0.0.1', port, storeDir, resolverDir: join(dir, 'accounts'), storeBytesMax }), { mode: 0o600 });

  let child: ChildProcess | undefined;
  // A test that fails half-way leaves no server behind.
  const last = (): void => { child?.kill('SIGKILL'); };
  process.once('exit', last);
  const start = async (): Promise<void> => {
    const started = spawn(binary, ['-c', config, '-l', join(dir, 'log')], { stdio: 'ignore' });
    child = started;
    for (const deadline = Date.now() + START_MS; !(await answers(port)); ) {
      if (started.exitCode !== null) throw new Error(`nats-server ended with ${started.exitCode}; see ${join(dir, 'log')}`);
      if (Date.now() > deadline) throw new Error('nats-server does not answer');
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  };
  const end = async (signal: NodeJS.Signals): Promise<void> => {
    const ending = child;
    child = undefined;
    if (ending === undefined || ending.exitCode !== null) return;
    const exited = once(ending, 'exit');
    ending.kill(signal);
    await exited;
  };
  const wipe = (): Promise<void> => rm(storeDir, { recursive: true, force: true, maxRetries: 5 });

  await start();
  return {
    url: `nats://127.0.0.1:${port}`,
    port,
    keys,
    storeDir,
    pid: () => child?.pid,
    start,
    kill: () => end('SIGKILL'),
    wipe,
    stop: async () => {
      process.off('exit', last);
      await end('SIGKILL');
      await rm(dir, { recursive: true, force: true, maxRetries: 5 });
    },
  };
}

/** A connection as a service has it. */
export const busOfService = async (server: TestingServer, name = 'test'): Promise<Bus> =>
  connectBus({ servers: server.url, name, credentials: { text: await serviceCreds(server.keys) } });

export interface TestingAgent extends Bus {
  readonly userPublicKey: string;
  /** Another connection with the same credentials, tried once. */
  again(): Promise<NatsConnection>;
}

/** A connection as the agent of `nodeId` has it, with a key of its own. */
export async function busOfAgent(server: TestingServer, nodeId: string, settings: { readonly expiresInSeconds?: number; readonly giveUpWhenRefused?: boolean } = {}): Promise<TestingAgent> {
  const { publicKey, seed } = createAgentKey();
  const { expiresInSeconds, giveUpWhenRefused = false } = settings;
  const jwt = await mintAgentJwt({ keys: server.keys, nodeId, userPublicKey: publicKey, ...(expiresInSeconds === undefined ? {} : { expiresInSeconds }) });
  const inboxPrefix = agentInboxPrefix(nodeId);
  const bus = await connectBus({ servers: server.url, name: `agent-${nodeId}`, inboxPrefix, credentials: { jwt: () => jwt, seed }, giveUpWhenRefused });
  return {
    ...bus,
    userPublicKey: publicKey,
    again: () => connect({ servers: server.url, authenticator: jwtAuthenticator(jwt, new TextEncoder().encode(seed)), inboxPrefix, reconnect: false }),
  };
}

/** Waits until `holds` is true or answers something; rejects with `what` after `withinMs`. */
export async function until<T>(what: string, holds: () => T | Promise<T>, withinMs = 10_000): Promise<NonNullable<T>> {
  for (const deadline = Date.now() + withinMs; ; ) {
    const answer = await holds();
    if (answer) return answer;
    if (Date.now() > deadline) throw new Error(`not within ${withinMs} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
