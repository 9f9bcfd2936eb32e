/*
 * The entry of the package: connect, call, listen.
 *
 * A Libvirt outlives the connections it makes. Each of them is a session: a socket, the RPC on it and
 * the opening words (authentication, the driver, features). When a session is lost, calls in flight
 * fail, since nobody can say whether they happened, and calls made while there is none fail at once.
 * With `reconnect` a new session follows, in this order: open, register the events again, tell every
 * reader of events of the gap, say "connected". So whoever lists everything after a gap misses nothing.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { fromAuthConf } from './auth-conf.ts';
import { CallAborted, Disconnected, errorCodes, LibvirtError, UnsupportedError } from './errors.ts';
import type { CloseReason } from './errors.ts';
import { eventKind, eventKindOf, eventKinds, EventQueue } from './events.ts';
import type { DomainEventKind, DomainEventOf, EventFamily, EventKind, EventStream, MonitorEvent, NetworkEventKind, NetworkEventOf, NodeDeviceEvent, SecretEvent, StoragePoolEvent } from './events.ts';
import { networkUpdateCommands, networkUpdateSections } from './layouts.ts';
import type { DomainRef, NetworkRef, NodeDevice, SecretRef, StoragePoolRef } from './layouts.ts';
import { procedures, programs, sessionProcedures } from './procedures.ts';
import type { SaslAnswer } from './procedures/authentication.ts';
import type { Procedure, ProcedureName, Procedures, StreamDirection } from './procedures.ts';
import { Rpc } from './rpc.ts';
import type { StreamPort } from './rpc.ts';
import { LibvirtStream } from './stream.ts';
import { chooseMechanism, SaslError, saslMechanisms, startSasl } from './sasl.ts';
import type { Credentials, SaslMechanism } from './sasl.ts';
import { targetOf } from './target.ts';
import type { RemoteTarget, Target } from './target.ts';
import { openChannel } from './transport.ts';
import type { Channel } from './transport.ts';
import type { Decoded, Encodable, Reader } from './xdr.ts';

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
  /** Lost, and being made again. */
  | { readonly status: 'disconnected'; readonly reason: CloseReason }
  /** For good. */
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
  /** Calls of each priority that may wait for a place; one more is refused. Default 10,000. */
  readonly queuedMax?: number;
  /** `false` for a connection of bulk streams, which may pause for longer than the daemon's patience. Default on. */
  readonly keepalive?: KeepaliveOptions | false;
  /** Connect again when the connection is lost, and register events again. Default: not. */
  readonly reconnect?: ReconnectOptions | boolean;
  /**
   * Who we are, where the daemon wants SASL. A function is asked for each connection that is made;
   * `fromAuthConf()` (auth-conf.ts) looks into libvirt's own file. Default: that, if the URI has `authfile`.
   */
  readonly credentials?: Credentials | ((asked: CredentialsAsked) => Credentials | Promise<Credentials>);
  /** The mechanisms to speak; of several the strongest is taken. Default: all that there are. */
  readonly saslMechanisms?: readonly SaslMechanism[];
  /** Sends a password as it is (PLAIN) also where others can read it: over TCP, or to a server that was not verified. Default false. */
  readonly plainAllowed?: boolean;
  /** Told of each change. Must not throw. */
  readonly onState?: (state: ConnectionState) => void;
  /** Gives up on connecting (not on a connection that has been made). */
  readonly signal?: AbortSignal;
}

export interface CredentialsAsked {
  readonly mechanism: SaslMechanism;
  /** Where the daemon is, for people. */
  readonly where: string;
  readonly driver: string;
  /** Its host, as the caller named it: `localhost` for a socket. */
  readonly host: string;
  /** The URI's parameter `authfile`. */
  readonly authFile: string | undefined;
}

export interface CallOptions {
  /** 0 is none. Of a call with a stream: until the stream is open. */
  readonly timeoutMs?: number;
  /** Gives up; an open stream too. */
  readonly signal?: AbortSignal;
}

export interface CloseOptions {
  /** Calls under way may be answered for so long; new ones are refused at once. Default 0. */
  readonly drainMs?: number;
}

type Result<P> = P extends Procedure<infer _Args, infer R, infer S extends StreamDirection | undefined>
  ? S extends StreamDirection
    ? LibvirtStream & { readonly answer: Decoded<R> }
    : Decoded<R>
  : never;
type Args<P> = P extends Procedure<infer A> ? Encodable<A> : never;

/** One procedure as a function: arguments by name; left out altogether where none is needed. */
export type Call<P> = Record<never, never> extends Args<P>
  ? (args?: Args<P>, options?: CallOptions) => Promise<Result<P>>
  : (args: Args<P>, options?: CallOptions) => Promise<Result<P>>;

/** Every procedure of the table, by its name. They throw `LibvirtError` or `CallUnanswered` (errors.ts), or TypeError when an argument does not fit. */
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

export interface NetworkUpdate {
  readonly network: NetworkRef;
  readonly command: keyof typeof networkUpdateCommands;
  readonly section: keyof typeof networkUpdateSections;
  /** Which of several parents; -1 (default): the first that fits. */
  readonly parentIndex?: number;
  readonly xml: string;
  /** Without any: the network as it is now. */
  readonly flags?: readonly ('live' | 'config')[];
}

export interface Libvirt extends Calls {
  readonly state: ConnectionState;
  readonly load: Load;
  /** Settles when closed for good: by close(), or by loss without `reconnect`. Never rejects. */
  readonly closed: Promise<CloseReason>;
  /** Resolves when connected (again); rejects when closed for good or the signal is aborted. */
  whenConnected(options?: { readonly signal?: AbortSignal }): Promise<void>;
  /** Resolves once registered: what happens from then on is in the stream, or reported as a gap. `UnsupportedError` for a kind that is newer than the daemon. */
  domainEvents<const K extends DomainEventKind>(
    options: EventOptions & { readonly kinds: readonly K[]; readonly domain?: DomainRef },
  ): Promise<EventStream<DomainEventOf<K>>>;
  /** As domainEvents. Without `kinds`, `lifecycle`; `metadataChange` needs libvirt 9.8.0. */
  networkEvents<const K extends NetworkEventKind = 'lifecycle'>(
    options?: EventOptions & { readonly network?: NetworkRef; readonly kinds?: readonly K[] },
  ): Promise<EventStream<NetworkEventOf<K>>>;
  /** As domainEvents: started, stopped, refreshed, … */
  storagePoolEvents(options?: EventOptions & { readonly pool?: StoragePoolRef }): Promise<EventStream<StoragePoolEvent>>;
  /** As domainEvents: devices of the node come and go. */
  nodeDeviceEvents(options?: EventOptions & { readonly device?: NodeDevice }): Promise<EventStream<NodeDeviceEvent>>;
  /** As domainEvents. */
  secretEvents(options?: EventOptions & { readonly secret?: SecretRef }): Promise<EventStream<SecretEvent>>;
  /** What guests' QEMUs say on their monitors, as domainEvents; not part of libvirt's stable API. */
  monitorEvents(options?: EventOptions & { readonly domain?: DomainRef }): Promise<EventStream<MonitorEvent>>;
  /** Changes part of a network, live or in its configuration. Also right with daemons that swap two of the arguments. */
  networkUpdate(update: NetworkUpdate, options?: CallOptions): Promise<void>;
  /** Says goodbye and closes; calls that are still in flight fail with `Disconnected`. Never rejects. */
  close(options?: CloseOptions): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/** virDrvFeature, as far as they matter here. */
const features = { keepalive: 10, remoteCloseCallback: 15, networkUpdateOrder: 16 } as const;
const authentication = { none: 0, sasl: 1, polkit: 2 } as const;
const closeMessageProcedure = 362;
/** virConnectCloseReason: what became of the daemon's connection to its hypervisor. */
const hypervisorCloseReasons = ['it failed', 'it was closed', 'it did not answer', 'it was given up'];
/** Questions in one exchange of SASL; those that we speak need two. */
const saslStepsMax = 8;
const goodbyeMsMax = 1_000;
/** The longest that Node's timers know: 24 days. */
const timerMsMax = 0x7fff_ffff;

interface Settings {
  readonly target: Target | RemoteTarget;
  readonly credentials: ConnectOptions['credentials'];
  readonly saslMechanisms: readonly SaslMechanism[];
  readonly plainAllowed: boolean;
  readonly readOnly: boolean;
  readonly connectTimeoutMs: number;
  readonly callTimeoutMs: number;
  readonly inFlightMax: number;
  readonly queuedMax: number;
  readonly keepalive: Required<KeepaliveOptions> | undefined;
  readonly reconnect: Required<ReconnectOptions> | undefined;
  readonly onState: (state: ConnectionState) => void;
}

/**
 * Connects and opens the driver.
 *
 * `target`: a socket and a driver, a transport and a driver, or libvirt's URI (`qemu:///system`,
 * `test+unix:///default?socket=/path`, `qemu+ssh://root@node/system`). Throws `Disconnected` when the
 * daemon cannot be reached in time or one side does not trust the other, `LibvirtError` when it
 * refuses, TypeError for a URI that is not one.
 */
export async function connect(target: string | Target | RemoteTarget, options: ConnectOptions = {}): Promise<Libvirt> {
  const readOnly = options.readOnly ?? false;
  const inFlightMax = options.inFlightMax ?? 4;
  if (!Number.isInteger(inFlightMax) || inFlightMax < 1) throw new RangeError('inFlightMax is a count from 1');
  const { intervalMs = 5_000, missesMax = 5 } = options.keepalive === false ? {} : (options.keepalive ?? {});
  if (!(intervalMs >= 1 && intervalMs <= timerMsMax) || !(missesMax >= 0)) throw new RangeError('keepalive has an interval of 1 ms to 24 days, and a count of misses');
  const connectTimeoutMs = options.connectTimeoutMs ?? 10_000;
  if (!(connectTimeoutMs >= 1 && connectTimeoutMs <= timerMsMax)) throw new RangeError('connectTimeoutMs is 1 ms to 24 days');
  const reconnect = options.reconnect === true ? {} : options.reconnect === false ? undefined : options.reconnect;
  const connection = new Connection({
    target: typeof target === 'string' ? targetOf(target, { readOnly }) : target,
    credentials: options.credentials,
    saslMechanisms: options.saslMechanisms ?? saslMechanisms,
    plainAllowed: options.plainAllowed ?? false,
    readOnly,
    connectTimeoutMs: Math.ceil(connectTimeoutMs),
    callTimeoutMs: options.callTimeoutMs ?? 30_000,
    inFlightMax,
    queuedMax: options.queuedMax ?? 10_000,
    keepalive: options.keepalive === false ? undefined : { intervalMs, missesMax },
    reconnect: reconnect === undefined ? undefined : { delayMsMin: reconnect.delayMsMin ?? 200, delayMsMax: reconnect.delayMsMax ?? 10_000 },
    onState: options.onState ?? (() => {}),
  });
  await connection.open(options.signal);
  // The loop below the class has put every procedure of the table on its prototype.
  return connection as unknown as Libvirt;
}

/** One socket from its opening words to its end. */
interface Session {
  readonly rpc: Rpc;
  readonly networkUpdateOrder: boolean;
}

/** The listeners of one kind of event, and the daemon's one registration for all of them. */
interface Registration {
  readonly kind: EventKind;
  readonly listeners: Set<Listener>;
  /** Registering and deregistering happen one after the other. */
  turn: Promise<void>;
  /** The session that holds it, and the daemon's number for it there. */
  held: { readonly session: Session; readonly callbackId: number } | undefined;
}

interface Listener {
  readonly queue: EventQueue<{ readonly kind: string }>;
  /** Only of the object with this UUID (a device of the node: name). */
  readonly object: string | undefined;
}

class Connection {
  readonly #settings: Settings;
  readonly #registrations = new Map<string, Registration>();
  readonly #queues = new Set<EventQueue<{ readonly kind: string }>>();
  readonly #stop = new AbortController();
  readonly #whenConnected = new Set<{ readonly resolve: () => void; readonly reject: (error: Error) => void }>();
  #session: Session | undefined;
  #state: ConnectionState = { status: 'disconnected', reason: { kind: 'closedByCaller', message: 'not connected yet' } };
  #closing: Promise<void> | undefined;
  #settleClosed: (reason: CloseReason) => void = () => {};
  readonly closed = new Promise<CloseReason>((resolve) => (this.#settleClosed = resolve));

  constructor(settings: Settings) {
    this.#settings = settings;
  }

  get state(): ConnectionState {
    return this.#state;
  }

  get load(): Load {
    return this.#session?.rpc.load ?? { inFlight: 0, abandoned: 0, queued: 0 };
  }

  /** The first session; later ones follow from #onLost. */
  async open(signal: AbortSignal | undefined): Promise<void> {
    this.#enter(await this.#openSession(signal));
  }

  call(name: string, procedure: Procedure, args: unknown, options: CallOptions): Promise<unknown> {
    const session = this.#session;
    if (session === undefined) return Promise.reject(this.#disconnected(name));
    if (procedure.countFirst && (args as { readonly count?: number }).count === undefined) {
      return this.#callOn(session.rpc, name, procedure, args, options).then((asked) => {
        const { count } = asked as { readonly count: number };
        // The second answer says nothing of the count.
        return this.#callOn(session.rpc, name, procedure, { ...(args as object), count }, options).then((answer) => ({ ...(answer as object), count }));
      });
    }
    return this.#callOn(session.rpc, name, procedure, args, options);
  }

  async whenConnected(options: { readonly signal?: AbortSignal } = {}): Promise<void> {
    const { signal } = options;
    signal?.throwIfAborted();
    if (this.#state.status === 'connected') return;
    if (this.#state.status === 'closed') throw this.#disconnected('whenConnected');
    await new Promise<void>((resolve, reject) => {
      const onAbort = () => settle(() => reject(signal?.reason as Error));
      const settle = (then: () => void) => {
        signal?.removeEventListener('abort', onAbort);
        this.#whenConnected.delete(waiter);
        then();
      };
      const waiter = { resolve: () => settle(resolve), reject: (error: Error) => settle(() => reject(error)) };
      signal?.addEventListener('abort', onAbort, { once: true });
      this.#whenConnected.add(waiter);
    });
  }

  domainEvents(options: EventOptions & { readonly kinds: readonly DomainEventKind[]; readonly domain?: DomainRef }) {
    const kinds = [...new Set(options.kinds)].map((kind) => eventKind('domain', kind));
    return this.#listen(kinds, options.domain?.uuid, options);
  }

  networkEvents(options: EventOptions & { readonly network?: NetworkRef; readonly kinds?: readonly NetworkEventKind[] } = {}) {
    const kinds = [...new Set(options.kinds ?? ['lifecycle'])].map((kind) => eventKind('network', kind));
    return this.#listen(kinds, options.network?.uuid, options);
  }

  storagePoolEvents(options: EventOptions & { readonly pool?: StoragePoolRef } = {}) {
    return this.#listen(eventKinds('storagePool'), options.pool?.uuid, options);
  }

  nodeDeviceEvents(options: EventOptions & { readonly device?: NodeDevice } = {}) {
    return this.#listen(eventKinds('nodeDevice'), options.device?.name, options);
  }

  secretEvents(options: EventOptions & { readonly secret?: SecretRef } = {}) {
    return this.#listen(eventKinds('secret'), options.secret?.uuid, options);
  }

  monitorEvents(options: EventOptions & { readonly domain?: DomainRef } = {}) {
    return this.#listen(eventKinds('monitor'), options.domain?.uuid, options);
  }

  async networkUpdate(update: NetworkUpdate, options: CallOptions = {}): Promise<void> {
    const session = this.#session;
    if (session === undefined) throw this.#disconnected('networkUpdate');
    const command = networkUpdateCommands[update.command];
    const section = networkUpdateSections[update.section];
    await this.#callOn(
      session.rpc,
      'networkUpdate',
      sessionProcedures.networkUpdateOnWire,
      {
        network: update.network,
        // The two changed places once; a daemon that has them right says so.
        command: session.networkUpdateOrder ? command : section,
        section: session.networkUpdateOrder ? section : command,
        parentIndex: update.parentIndex ?? -1,
        xml: update.xml,
        flags: update.flags,
      },
      options,
    );
  }

  close(options: CloseOptions = {}): Promise<void> {
    return (this.#closing ??= this.#close(options));
  }

  async #close({ drainMs = 0 }: CloseOptions): Promise<void> {
    const reason: CloseReason = { kind: 'closedByCaller', message: 'the connection was closed' };
    const session = this.#session;
    if (this.#state.status === 'closed') return;
    this.#stop.abort(reason);
    // From here on a call finds no session.
    this.#session = undefined;
    if (session !== undefined && drainMs > 0) {
      const limit = new AbortController();
      await Promise.race([session.rpc.idle(), delay(drainMs, undefined, { signal: limit.signal }).catch(() => undefined)]);
      limit.abort();
    }
    if (session !== undefined) {
      await this.#callOn(session.rpc, 'connectClose', sessionProcedures.connectClose, {}, { timeoutMs: goodbyeMsMax }).catch(() => undefined);
      session.rpc.close(reason);
    }
    this.#closeForGood(reason);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #disconnected(call: string): Disconnected {
    const reason = this.#state.status === 'connected' ? { kind: 'closedByCaller' as const, message: 'not connected' } : this.#state.reason;
    return new Disconnected(call, false, reason);
  }

  #callOn<P extends Procedure>(rpc: Rpc, name: string, procedure: P, args: unknown, options: CallOptions): Promise<unknown> {
    let stream: LibvirtStream | undefined;
    const { stream: direction } = procedure;
    const sparse = (args as { readonly flags?: readonly string[] }).flags?.includes('sparse') === true;
    const sink = direction === undefined ? undefined : (port: StreamPort) => (stream = new LibvirtStream(port, direction, sparse));
    const answer = rpc.call(
      {
        program: programs[procedure.program],
        procedure: procedure.number,
        priority: procedure.priority,
        label: name,
        object: () => objectOf(args),
        encode: (writer) => procedure.args.write(writer, args),
        decode: (reader) => procedure.result.read(reader) as unknown,
        timeoutMs: options.timeoutMs ?? this.#settings.callTimeoutMs,
        signal: options.signal,
      },
      sink,
    );
    if (sink === undefined) return answer;
    return answer.then(
      (said) => {
        // It was made before the call was sent.
        const opened = stream as LibvirtStream;
        const { signal } = options;
        if (signal !== undefined) {
          const onAbort = () => void opened.destroy(new CallAborted(name, true, 'aborted', { cause: signal.reason }));
          signal.addEventListener('abort', onAbort, { once: true });
          opened.once('close', () => signal.removeEventListener('abort', onAbort));
          if (signal.aborted) onAbort();
        }
        // What the reply said besides, such as the media type of a screenshot.
        return Object.assign(opened, { answer: said });
      },
      (error: unknown) => {
        stream?.destroy();
        throw error;
      },
    );
  }

  async #openSession(signal: AbortSignal | undefined): Promise<Session> {
    const { target, connectTimeoutMs } = this.#settings;
    const limits = AbortSignal.any([AbortSignal.timeout(connectTimeoutMs), this.#stop.signal, ...(signal === undefined ? [] : [signal])]);
    const channel = await openChannel(target, { signal: limits, readOnly: this.#settings.readOnly, timeoutMs: connectTimeoutMs }).catch((cause: unknown) => {
      signal?.throwIfAborted();
      throw cause;
    });
    // Known to the callbacks below only after the opening words.
    let session: Session | undefined;
    const rpc = new Rpc(channel.socket, {
      packetsApart: channel.packetsApart,
      reads: channel.reads,
      inFlightMax: this.#settings.inFlightMax,
      queuedMax: this.#settings.queuedMax,
      onMessage: (program, procedure, reader) => this.#onMessage(rpc, program, procedure, reader),
      onClosed: (reason) => {
        if (session !== undefined && this.#session === session) this.#onLost(reason);
      },
    });
    try {
      const networkUpdateOrder = await this.#greet(rpc, channel, limits);
      session = { rpc, networkUpdateOrder };
      return session;
    } catch (cause) {
      const timedOut = limits.aborted && rpc.closeReason === undefined;
      rpc.close({ kind: 'closedByCaller', message: 'libvirtd was not opened', cause });
      signal?.throwIfAborted();
      if (timedOut) throw new Disconnected('connect', true, { kind: 'socketError', message: `libvirtd did not open ${target.driver} within ${connectTimeoutMs} ms`, cause });
      throw cause;
    }
  }

  /** The opening words. Returns whether the daemon has the arguments of networkUpdate in the right order. */
  async #greet(rpc: Rpc, channel: Channel, signal: AbortSignal): Promise<boolean> {
    const { target, readOnly, keepalive } = this.#settings;
    const options = { signal, timeoutMs: 0 };
    const say = (name: string, procedure: Procedure, args: unknown) => this.#callOn(rpc, name, procedure, args, options);
    const kinds = (await say('authList', sessionProcedures.authList, {})) as number[];
    if (!kinds.includes(authentication.none)) {
      if (kinds.includes(authentication.polkit)) await say('authPolkit', sessionProcedures.authPolkit, {});
      else if (kinds.includes(authentication.sasl)) await this.#authenticate(say, channel, signal);
      else throw this.#refusal(`libvirtd wants authentication of kinds ${kinds.join(', ')}, which this client does not speak`);
    }
    await say('connectOpen', sessionProcedures.connectOpen, { name: target.driver, flags: readOnly ? ['readOnly'] : [] });
    const has = (feature: number) => say('connectSupportsFeature', procedures.connectSupportsFeature, { feature }).then((answer) => answer === true);
    // From this question on the daemon sends pings of its own, so it is asked only where they will be answered.
    const [pings, tellsClose, networkUpdateOrder] = await Promise.all([
      keepalive === undefined ? false : has(features.keepalive),
      has(features.remoteCloseCallback),
      has(features.networkUpdateOrder),
    ]);
    if (keepalive !== undefined && pings) rpc.startKeepalive(keepalive.intervalMs, keepalive.missesMax);
    if (tellsClose) {
      await say('connectRegisterCloseCallback', sessionProcedures.connectRegisterCloseCallback, {}).catch((error: unknown) => {
        // Drivers without a connection of their own have nothing to tell.
        if (!(error instanceof LibvirtError)) throw error;
      });
    }
    return networkUpdateOrder;
  }

  #refusal(reason: string): UnsupportedError {
    return new UnsupportedError({ code: errorCodes.authFailed, domain: 7, level: 'error', reason, call: 'connect', object: undefined });
  }

  async #authenticate(say: (name: string, procedure: Procedure, args: unknown) => Promise<unknown>, channel: Channel, signal: AbortSignal): Promise<void> {
    const { plainAllowed, target } = this.#settings;
    const credentials = this.#settings.credentials ?? (target.authFile === undefined ? undefined : fromAuthConf());
    const failed = (cause: SaslError) => new Disconnected('connect', true, { kind: 'authenticationFailed', message: cause.message });
    if (credentials === undefined) throw this.#refusal('libvirtd wants SASL, and there are no credentials');
    try {
      const offered = ((await say('authSaslInit', sessionProcedures.authSaslInit, {})) as string).split(/[\s,]+/).filter((word) => word !== '');
      const mechanism = chooseMechanism({ offered, wanted: this.#settings.saslMechanisms, plainAllowed: plainAllowed || channel.confidential });
      const asked = { mechanism, where: channel.where, driver: target.driver, host: hostOf(target), authFile: target.authFile };
      const given = typeof credentials === 'function' ? await aborting(signal, Promise.resolve(credentials(asked))) : credentials;
      const exchange = startSasl(mechanism, given);
      let answer = (await say('authSaslStart', sessionProcedures.authSaslStart, { mechanism, data: exchange.first })) as SaslAnswer;
      for (let step = 0; !answer.complete; step += 1) {
        if (step >= saslStepsMax) throw new SaslError('libvirtd asks on and on');
        const said = await exchange.answer(answer.data ?? Buffer.alloc(0));
        answer = (await say('authSaslStep', sessionProcedures.authSaslStep, { data: said ?? null })) as SaslAnswer;
      }
      // The last word of the server may come with its success.
      if (!exchange.satisfied) await exchange.answer(answer.data ?? Buffer.alloc(0));
    } catch (cause) {
      throw cause instanceof SaslError ? failed(cause) : cause;
    }
  }

  #enter(session: Session): void {
    // It may have ended between its last word and now.
    const reason = session.rpc.closeReason;
    if (reason !== undefined) throw new Disconnected('connect', true, reason);
    this.#session = session;
    this.#setState({ status: 'connected' });
    for (const waiter of [...this.#whenConnected]) waiter.resolve();
  }

  #setState(state: ConnectionState): void {
    this.#state = state;
    this.#settings.onState(state);
  }

  #onLost(reason: CloseReason): void {
    this.#session = undefined;
    const { reconnect } = this.#settings;
    if (this.#stop.signal.aborted) return;
    if (reconnect === undefined) return this.#closeForGood(reason);
    this.#setState({ status: 'disconnected', reason });
    void this.#reconnect(reconnect);
  }

  async #reconnect({ delayMsMin, delayMsMax }: Required<ReconnectOptions>): Promise<void> {
    const stopped = this.#stop.signal;
    for (let failures = 0; !stopped.aborted; failures += 1) {
      const pause = Math.min(delayMsMax, delayMsMin * 2 ** Math.min(failures, 30));
      try {
        // Between half and all of it, so that the clients of one daemon do not come at once.
        await delay(pause * (0.5 + Math.random() / 2), undefined, { signal: stopped });
        const session = await this.#openSession(undefined);
        await this.#restore(session);
        this.#enter(session);
        return;
      } catch (cause) {
        if (stopped.aborted) return;
        const message = cause instanceof Error ? cause.message : String(cause);
        this.#setState({ status: 'disconnected', reason: { kind: 'socketError', message, cause } });
      }
    }
  }

  async #restore(session: Session): Promise<void> {
    try {
      for (const registration of this.#registrations.values()) {
        await this.#inTurn(registration, () => this.#settle(registration, session));
      }
    } catch (cause) {
      session.rpc.close({ kind: 'closedByCaller', message: 'events could not be registered again', cause });
      throw cause;
    }
    for (const queue of this.#queues) queue.reconnected();
  }

  #closeForGood(reason: CloseReason): void {
    if (this.#state.status === 'closed') return;
    this.#session = undefined;
    this.#setState({ status: 'closed', reason });
    const error = reason.kind === 'closedByCaller' ? undefined : this.#disconnected('events');
    for (const queue of this.#queues) queue.end(error);
    this.#queues.clear();
    this.#registrations.clear();
    for (const waiter of [...this.#whenConnected]) waiter.reject(this.#disconnected('whenConnected'));
    this.#settleClosed(reason);
  }

  #onMessage(rpc: Rpc, program: number, procedure: number, reader: Reader): void {
    if (program === programs.remote && procedure === closeMessageProcedure) {
      const how = hypervisorCloseReasons[reader.i32()] ?? 'nobody knows why';
      reader.end();
      rpc.close({ kind: 'hypervisorGone', message: `libvirtd lost its connection to the hypervisor: ${how}` });
      return;
    }
    const kind = program === programs.remote ? eventKindOf('remote', procedure) : program === programs.qemu ? eventKindOf('qemu', procedure) : undefined;
    // Of an event that nobody waits for any more nothing is read.
    const registration = kind === undefined ? undefined : this.#registrations.get(keyOf(kind));
    if (kind === undefined || registration === undefined || registration.listeners.size === 0) return;
    const bytes = reader.bytesLeft;
    const event = { kind: kind.kind, ...(kind.message.read(reader) as Readonly<Record<string, unknown>>) };
    reader.end();
    const object = subjectOf(event);
    for (const listener of registration.listeners) {
      if (listener.object === undefined || listener.object === object) listener.queue.push(event, bytes);
    }
  }

  async #listen(kinds: readonly EventKind[], object: string | undefined, options: EventOptions): Promise<EventStream<never>> {
    options.signal?.throwIfAborted();
    const session = this.#session;
    if (session === undefined) throw this.#disconnected('events');
    const registrations = kinds.map((kind) => this.#registrationOf(kind));
    const onAbort = () => void queue.close();
    const queue = new EventQueue<{ readonly kind: string }>(options.queuedMax ?? 1_024, async () => {
      options.signal?.removeEventListener('abort', onAbort);
      this.#queues.delete(queue);
      for (const registration of registrations) registration.listeners.delete(listener);
      await Promise.all(registrations.map((registration) => this.#inTurn(registration, () => this.#settle(registration, this.#session)).catch(() => undefined)));
    });
    const listener: Listener = { queue, object: uuidText.test(object ?? '') ? object?.toLowerCase() : object };
    this.#queues.add(queue);
    for (const registration of registrations) registration.listeners.add(listener);
    options.signal?.addEventListener('abort', onAbort, { once: true });
    try {
      await Promise.all(registrations.map((registration) => this.#inTurn(registration, () => this.#settle(registration, session))));
    } catch (error) {
      await queue.close();
      throw error;
    }
    // The caller's kinds decide which events come; the queue only carries them.
    return queue as unknown as EventStream<never>;
  }

  #registrationOf(kind: EventKind): Registration {
    const key = keyOf(kind);
    const known = this.#registrations.get(key);
    if (known !== undefined) return known;
    const registration: Registration = { kind, listeners: new Set(), turn: Promise.resolve(), held: undefined };
    this.#registrations.set(key, registration);
    return registration;
  }

  #inTurn(registration: Registration, work: () => Promise<void>): Promise<void> {
    const turn = registration.turn.then(work);
    registration.turn = turn.catch(() => undefined);
    return turn;
  }

  /** Makes the daemon's registration what the listeners want it to be. */
  async #settle(registration: Registration, session: Session | undefined): Promise<void> {
    if (session === undefined) return;
    const { kind, listeners } = registration;
    // A listener must not be left behind on a session that has ended: the next one may have registered already.
    if (session.rpc.closeReason !== undefined) throw new Disconnected(`${kind.family}Events`, false, session.rpc.closeReason);
    const held = registration.held?.session === session ? registration.held : undefined;
    if (listeners.size > 0 && held === undefined) {
      const procedure = registering[kind.family].register;
      const callbackId = (await this.#callOn(session.rpc, `${kind.family}Events ${kind.kind}`, procedure, { eventId: kind.id }, {}).catch((error: unknown) => {
        throw kind.since === undefined ? error : unsupportedIfUnknown(error);
      })) as number;
      registration.held = { session, callbackId };
    } else if (listeners.size === 0 && held !== undefined) {
      registration.held = undefined;
      const procedure = registering[kind.family].deregister;
      await this.#callOn(session.rpc, `${kind.family}Events ${kind.kind}`, procedure, { callbackId: held.callbackId }, {});
    }
  }
}

for (const [name, procedure] of Object.entries(procedures) as [string, Procedure][]) {
  Object.defineProperty(Connection.prototype, name, {
    value(this: Connection, args: unknown = {}, options: CallOptions = {}) {
      return this.call(name, procedure, args, options);
    },
  });
}

/** The promise, or the signal's reason if that comes first. */
function aborting<Value>(signal: AbortSignal, promise: Promise<Value>): Promise<Value> {
  return new Promise((resolve, reject) => {
    const onAbort = () => reject(signal.reason as Error);
    if (signal.aborted) onAbort();
    signal.addEventListener('abort', onAbort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort));
  });
}

const hostOf = (target: Target | RemoteTarget): string => ('transport' in target && 'host' in target.transport ? target.transport.host : 'localhost');

const keyOf = (kind: EventKind): string => `${kind.family} ${kind.kind}`;

/** How the daemon is asked for the events of each family, and no longer. */
const registering: Readonly<Record<EventFamily, { readonly register: Procedure; readonly deregister: Procedure }>> = {
  domain: { register: sessionProcedures.connectDomainEventCallbackRegisterAny, deregister: sessionProcedures.connectDomainEventCallbackDeregisterAny },
  network: { register: sessionProcedures.connectNetworkEventRegisterAny, deregister: sessionProcedures.connectNetworkEventDeregisterAny },
  storagePool: { register: sessionProcedures.connectStoragePoolEventRegisterAny, deregister: sessionProcedures.connectStoragePoolEventDeregisterAny },
  nodeDevice: { register: sessionProcedures.connectNodeDeviceEventRegisterAny, deregister: sessionProcedures.connectNodeDeviceEventDeregisterAny },
  secret: { register: sessionProcedures.connectSecretEventRegisterAny, deregister: sessionProcedures.connectSecretEventDeregisterAny },
  // Of all kinds and all domains: what a listener does not want is dropped here.
  monitor: { register: sessionProcedures.connectDomainMonitorEventRegister, deregister: sessionProcedures.connectDomainMonitorEventDeregister },
};

/** What a daemon says of an event that is newer than itself has no code of its own: it is an internal error. */
function unsupportedIfUnknown(error: unknown): unknown {
  return error instanceof LibvirtError && error.code === errorCodes.internal ? new UnsupportedError(error) : error;
}

const uuidText = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

/** What an event is about: a UUID, or the name of a device of the node. */
function subjectOf(event: Readonly<Record<string, unknown>>): string | undefined {
  const { uuid, name } = (event['domain'] ?? event['network'] ?? event['pool'] ?? event['secret'] ?? event['device'] ?? {}) as { readonly uuid?: string; readonly name?: string };
  return uuid ?? name;
}

/** What a call is about, for people. */
function objectOf(args: unknown): string | undefined {
  const { domain, network, pool, volume, snapshot, checkpoint, port, secret, filter, interface: device, name, uuid } = args as Readonly<Record<string, unknown>>;
  const handle = (snapshot ?? checkpoint ?? domain ?? network ?? volume ?? pool ?? port ?? secret ?? filter ?? device) as { readonly name?: unknown; readonly uuid?: unknown } | undefined;
  const object = handle === undefined ? (name ?? uuid) : (handle.name ?? handle.uuid);
  return typeof object === 'string' ? object : undefined;
}
