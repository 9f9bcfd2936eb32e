/*
 * One connection to the bus, for as long as the process lives.
 *
 * It waits for a server that is not there yet and comes back after every loss, with a bounded
 * back-off. What was subscribed stays subscribed; what was lost meanwhile is for the caller to
 * think of, so `onReconnect` says when to look. An agent gives up when its credentials are
 * refused twice in a row: they were revoked, and it has to join again.
 */
import { readFile } from 'node:fs/promises';
import { readFileSync } from 'node:fs';
import { AuthorizationError, UserAuthenticationExpiredError, connect, createInbox, credsAuthenticator, jwtAuthenticator } from '@nats-io/transport-node';
import type { Authenticator, NatsConnection } from '@nats-io/transport-node';
import { serviceInboxPrefix } from './topology.ts';

export type Credentials =
  /** Path of a creds file; read again at each connect, so that a renewed one is used. */
  | { readonly file: string }
  /** Text of a creds file. */
  | { readonly text: string }
  /** An agent's: `jwt` is asked at each connect. */
  | { readonly jwt: () => string; readonly seed: string };

/** What the library says of itself; pino's loggers fit. */
export interface BusLog {
  debug(fields: object, sentence: string): void;
  info(fields: object, sentence: string): void;
  warn(fields: object, sentence: string): void;
  error(fields: object, sentence: string): void;
}

export const noLog: BusLog = { debug: () => undefined, info: () => undefined, warn: () => undefined, error: () => undefined };

export interface BusOptions {
  readonly servers: string | readonly string[];
  readonly credentials: Credentials;
  /** Shown by the server beside the connection: the service, or the node. */
  readonly name: string;
  /** Agents: `agentInboxPrefix(nodeId)`. */
  readonly inboxPrefix?: string;
  readonly log?: BusLog;
  /** PEM of the authority that signed the server's certificate, for connections by TLS. */
  readonly caFile?: string;
  /** Agents: end the connection when the credentials are refused twice in a row. Default: try for ever. */
  readonly giveUpWhenRefused?: boolean;
}

/** The server does not want these credentials any more: revoked, or run out. */
export class CredentialsRefused extends Error {
  override readonly name = 'CredentialsRefused';
  constructor(cause: Error) {
    super('the bus refused the credentials', { cause });
  }
}

export interface Bus {
  readonly nc: NatsConnection;
  /** A subject of its own, under the prefix that this connection may listen to. */
  newInbox(): string;
  /** For readiness, in plain words. */
  status(): { readonly ok: boolean; readonly says: string };
  /** Resolves when connected, or when the time is over, with whether it is. */
  connected(withinMs: number): Promise<boolean>;
  /** Called after each reconnect; the answer stops it. */
  onReconnect(callback: () => void): () => void;
  /** Resolves when the connection ended for good, with the reason if there is one: `CredentialsRefused` means to join again. */
  readonly closed: Promise<Error | undefined>;
  /** Sends what is buffered and ends. Waits at most 2 s for a server that is away. */
  close(): Promise<void>;
}

const BACK_OFF_FIRST_MS = 50;
const BACK_OFF_MAX_MS = 2_000;
const CLOSE_MS = 2_000;

/** Doubles from `first` to `max`, each with up to half taken away by chance, so that many do not knock at once. */
export function backOffMs(attempt: number, firstMs = BACK_OFF_FIRST_MS, maxMs = BACK_OFF_MAX_MS): number {
  return Math.min(maxMs, firstMs * 2 ** Math.min(attempt, 20)) * (0.5 + Math.random() / 2);
}

function authenticatorOf(credentials: Credentials): Authenticator {
  const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);
  if ('text' in credentials) return credsAuthenticator(bytes(credentials.text));
  if ('file' in credentials) {
    const { file } = credentials;
    return (nonce) => credsAuthenticator(readFileSync(file))(nonce);
  }
  return jwtAuthenticator(credentials.jwt, bytes(credentials.seed));
}

const isRefusal = (fault: unknown): fault is Error => fault instanceof AuthorizationError || fault instanceof UserAuthenticationExpiredError;

/** Waits until there is a server, for ever. Rejects with `CredentialsRefused` where `giveUpWhenRefused` says so. */
export async function connectBus(options: BusOptions): Promise<Bus> {
  const { servers, credentials, name, inboxPrefix = serviceInboxPrefix, log = noLog, caFile, giveUpWhenRefused = false } = options;
  let attempts = 0;
  const nc = await connect({
    servers: typeof servers === 'string' ? servers : [...servers],
    name,
    inboxPrefix,
    authenticator: authenticatorOf(credentials),
    waitOnFirstConnect: true,
    reconnect: true,
    maxReconnectAttempts: -1,
    reconnectDelayHandler: () => backOffMs(attempts),
    ignoreAuthErrorAbort: !giveUpWhenRefused,
    pingInterval: 20_000,
    maxPingOut: 2,
    // A stack for each request costs more than the request.
    noAsyncTraces: true,
    ...(caFile === undefined ? {} : { tls: { ca: await readFile(caFile, 'utf8') } }),
  }).catch((fault: unknown) => { throw isRefusal(fault) ? new CredentialsRefused(fault) : fault; });
  log.info({ server: nc.getServer() }, 'bus connected');

  const callbacks = new Set<() => void>();
  let refused: Error | undefined;
  let state: { readonly ok: boolean; readonly says: string } = { ok: true, says: `connected to ${nc.getServer()}` };
  void (async () => {
    for await (const status of nc.status()) {
      switch (status.type) {
        case 'disconnect':
          attempts = 0;
          state = { ok: false, says: `lost ${status.server}, connecting again` };
          log.warn({ server: status.server }, 'bus disconnected');
          break;
        case 'reconnecting':
          attempts++;
          break;
        case 'reconnect':
          state = { ok: true, says: `connected to ${status.server}` };
          log.info({ server: status.server, attempts }, 'bus connected again');
          attempts = 0;
          refused = undefined;
          for (const callback of callbacks) callback();
          break;
        case 'error':
          // Here the server reports what it refused: a subject outside the permissions, a revoked key.
          log.warn({ err: status.error }, 'bus reported an error');
          if (isRefusal(status.error)) refused = status.error;
          break;
        case 'slowConsumer':
        case 'staleConnection':
          log.warn({ status: status.type }, 'bus connection is in trouble');
          break;
        default:
      }
    }
  })().catch((err: unknown) => { log.error({ err }, 'bus status ended'); });

  const closed = nc.closed().then((reason) => {
    state = { ok: false, says: reason instanceof Error ? `closed: ${reason.message}` : 'closed' };
    if (!(reason instanceof Error)) return undefined;
    // Connecting is tried for ever, so the server's refusal is the only thing that ends it.
    return giveUpWhenRefused ? new CredentialsRefused(refused ?? reason) : reason;
  });

  const onReconnect = (callback: () => void): (() => void) => {
    callbacks.add(callback);
    return () => { callbacks.delete(callback); };
  };

  return {
    nc,
    newInbox: () => createInbox(inboxPrefix),
    status: () => state,
    onReconnect,
    connected: (withinMs) => {
      if (state.ok || nc.isClosed() || withinMs <= 0) return Promise.resolve(state.ok);
      return new Promise((resolve) => {
        const end = (): void => {
          clearTimeout(timer);
          forget();
          resolve(state.ok);
        };
        const timer = setTimeout(end, withinMs);
        const forget = onReconnect(end);
      });
    },
    closed,
    close: async () => {
      if (nc.isClosed()) return;
      let timer: NodeJS.Timeout | undefined;
      const patience = new Promise<void>((resolve) => { timer = setTimeout(resolve, CLOSE_MS); });
      if (state.ok) await Promise.race([nc.drain().catch(() => undefined), patience]);
      clearTimeout(timer);
      await nc.close();
    },
  };
}
