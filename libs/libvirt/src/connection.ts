/*
 * The entry of the package: connect, call, listen.
 */
import type { CloseReason } from './errors.ts';
import type { DomainEventKind, DomainEventOf, EventStream, NetworkEvent } from './events.ts';
import type { Procedure, ProcedureName, Procedures, StreamDirection } from './procedures.ts';
import type { LibvirtStream } from './stream.ts';
import type { Decoded, Encodable } from './xdr.ts';

/** Where the daemon listens and which of its drivers is meant. */
export interface Target {
  /** Path of the daemon's unix socket. */
  readonly socket: string;
  /** The driver: `qemu:///system`, `qemu:///session`, `test:///default`. */
  readonly driver: string;
}

export interface ReconnectOptions {
  /** First pause; doubled after each failure, with jitter. Default 200. */
  readonly delayMsMin?: number;
  /** Default 10,000. */
  readonly delayMsMax?: number;
}

export interface KeepaliveOptions {
  /** After so long without a word from the daemon it is asked. Default 5,000. */
  readonly intervalMs?: number;
  /** After so many unanswered the connection is closed. Default 5. */
  readonly missesMax?: number;
}

export type ConnectionState =
  | { readonly status: 'connected' }
  | { readonly status: 'disconnected'; readonly reason: CloseReason }
  | { readonly status: 'closed'; readonly reason: CloseReason };

export interface ConnectOptions {
  readonly readOnly?: boolean;
  /** Time limit for reaching the daemon and opening its driver. Default 10,000. */
  readonly connectTimeoutMs?: number;
  /** Time limit of a call that names none of its own. Default 30,000. 0 is none. */
  readonly callTimeoutMs?: number;
  /**
   * Calls on the way at once; further ones wait here. The daemon's `max_client_requests` (default 5)
   * must be larger, else hung calls stop it from reading this connection at all. One place is kept
   * for high-priority procedures. Calls given up on keep their place until answered. Default 4.
   */
  readonly inFlightMax?: number;
  /** Calls that may wait for a place; one more is refused. Default 10,000. */
  readonly queuedMax?: number;
  /** `false` for a connection of bulk streams, which may pause for longer than the daemon's patience. Default on. */
  readonly keepalive?: KeepaliveOptions | false;
  /** Connect again when the connection is lost, and register events again. Default: not. */
  readonly reconnect?: ReconnectOptions | boolean;
  /** Told of each change. Must not throw. */
  readonly onState?: (state: ConnectionState) => void;
  /** Gives up on connecting (not on a connection that has been made). */
  readonly signal?: AbortSignal;
}

export interface CallOptions {
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
}

type Result<P> = P extends Procedure<infer _Args, infer R, infer S extends StreamDirection | undefined>
  ? S extends StreamDirection
    ? LibvirtStream
    : Decoded<R>
  : never;
type Args<P> = P extends Procedure<infer A> ? Encodable<A> : never;

/** One procedure as a function: arguments by name; left out altogether where none is needed. */
export type Call<P> = Record<never, never> extends Args<P>
  ? (args?: Args<P>, options?: CallOptions) => Promise<Result<P>>
  : (args: Args<P>, options?: CallOptions) => Promise<Result<P>>;

/** Every procedure of the table, by its name. They throw `LibvirtError` or `CallUnanswered` (errors.ts). */
export type Calls = { readonly [Name in ProcedureName]: Call<Procedures[Name]> };

export interface EventOptions {
  /** Events that wait for their reader; what exceeds it is reported as a gap. Default 1,024. */
  readonly queuedMax?: number;
  /** Closes the stream of events. */
  readonly signal?: AbortSignal;
}

export interface Load {
  /** Calls that wait for the daemon. */
  readonly inFlight: number;
  /** Of these, calls that nobody waits for any more. */
  readonly abandoned: number;
  /** Calls that wait for a place. */
  readonly queued: number;
}

export type NetworkUpdate = {
  readonly network: { readonly uuid: string; readonly name?: string };
  readonly command: 'modify' | 'delete' | 'addLast' | 'addFirst';
  readonly section: 'bridge' | 'domain' | 'ip' | 'ipDhcpHost' | 'ipDhcpRange' | 'forward' | 'forwardInterface' | 'forwardPf' | 'portgroup' | 'dnsHost' | 'dnsTxt' | 'dnsSrv';
  /** Which of several parents; -1 (default): the first that fits. */
  readonly parentIndex?: number;
  readonly xml: string;
  readonly flags?: readonly ('live' | 'config')[];
};

export interface Libvirt extends Calls {
  readonly state: ConnectionState;
  readonly load: Load;
  /** Settles when closed for good: by close(), or by loss without `reconnect`. Never rejects. */
  readonly closed: Promise<CloseReason>;
  /** Resolves when connected (again); rejects when closed for good or the signal is aborted. */
  whenConnected(options?: { readonly signal?: AbortSignal }): Promise<void>;
  /** Resolves once registered: what happens from then on is in the stream, or reported as a gap. */
  domainEvents<const K extends DomainEventKind>(options: EventOptions & { readonly kinds: readonly K[]; readonly domain?: { readonly uuid: string } }): Promise<EventStream<DomainEventOf<K>>>;
  networkEvents(options?: EventOptions): Promise<EventStream<NetworkEvent>>;
  /** Changes part of a network, live or in its configuration. Also right with daemons that swap two of the arguments. */
  networkUpdate(update: NetworkUpdate, options?: CallOptions): Promise<void>;
  /** Says goodbye and closes; calls in flight fail with `Disconnected`. Never rejects. */
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/** `target`: a socket and a driver, or libvirt's URI of a local daemon (`qemu:///system`, `test+unix:///default?socket=/path`). */
export declare function connect(target: string | Target, options?: ConnectOptions): Promise<Libvirt>;
