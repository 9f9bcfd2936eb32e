/*
 * The fake libvirtd: a pretend node (node.ts) behind libvirt's own protocol. Clients reach it on a unix
 * socket, as virsh does, or in this process over a pair of streams, as fleets of thousands do.
 *
 * It goes wrong on demand, or by chance that follows from the seed: calls take their time, hang until they
 * are let go, connections break, guests crash, and so does the daemon, after which its guests are still
 * there, or its node with them is gone. Events that happen while nobody is connected are lost, as they are
 * with libvirtd.
 */
import { chmod, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import type { Server } from 'node:net';
import { Duplex } from 'node:stream';
import { programs } from '../procedures.ts';
import type { ProcedureName } from '../procedures.ts';
import { encodePacket, messageStatus, messageType } from '../rpc.ts';
import type { RemoteTarget } from '../target.ts';
import type { Reader } from '../xdr.ts';
import { chance } from './clock.ts';
import { notHonoured } from './flags.ts';
import { handlers, rawArguments } from './handlers.ts';
import type { CallContext } from './handlers.ts';
import { Migrations } from './migration.ts';
import { networksOf, startNetwork, stopNetwork } from './networks.ts';
import { FakeNode } from './node.ts';
import type { Emitted, FakeDomain, FakeNodeOptions } from './node.ts';
import { destroy, start, stop } from './life.ts';
import { internal, operationInvalid, Refusal, unsupportedFlags } from './refusal.ts';
import { startPool, storageOf } from './storage.ts';
import { WireSession } from './wire.ts';
import type { Given, NamedProcedure, Served } from './wire.ts';

export interface Fault {
  /** Which calls; all, where nothing is said. */
  readonly call?: ProcedureName | readonly ProcedureName[];
  /** Only of calls about the domain with this UUID. */
  readonly domain?: string;
  /** How often it strikes, from 0 to 1; drawn from the node's seed. Default 1. */
  readonly probability?: number;
  /** Ends by itself after so many. Default: never. */
  readonly times?: number;
  /**
   * `delay`: the answer waits so many milliseconds. `hang`: it never comes, until the fault is released. `fail`: libvirt's error.
   * `disconnect`: the connection breaks in the place of the answer; with `after`, when it has been done.
   */
  readonly effect:
    | { readonly kind: 'delay'; readonly ms: number; readonly jitterMs?: number }
    | { readonly kind: 'hang' }
    | { readonly kind: 'fail'; readonly code: number; readonly message: string }
    | { readonly kind: 'disconnect'; readonly after?: boolean };
}

export interface ActiveFault {
  /** How many calls it has struck. */
  readonly struck: number;
  /** Ends it; what hangs goes on. */
  release(): void;
}

export interface FakeDaemonOptions extends FakeNodeOptions {
  /** Where other fakes are found for migration. Daemons that share one reach each other. */
  readonly migrations?: Migrations;
  /** Calls of one client that may be unanswered before it is not read any more (libvirtd's max_client_requests). Default 5. */
  readonly clientRequestsMax?: number;
  /** Connections at once. Default 5,000. */
  readonly clientsMax?: number;
  /** Milliseconds between pings, and how many may stay unanswered. Default 5,000 and 5; 0 sends none. */
  readonly keepaliveMs?: number;
  readonly keepaliveMisses?: number;
}

interface Struck extends ActiveFault {
  readonly fault: Fault;
  struck: number;
  drawn: number;
  readonly waiting: Set<() => void>;
}

export class FakeDaemon {
  node: FakeNode;
  /** How often each procedure was called, by its name; calls that a fault struck as well. */
  readonly calls = new Map<string, number>();
  readonly #options: FakeDaemonOptions;
  readonly #sessions = new Set<WireSession>();
  readonly #faults = new Set<Struck>();
  readonly #servers = new Map<string, Server>();
  readonly #migrations: Migrations;
  readonly #served: Served;
  #down = false;
  #booting = false;

  constructor(options: FakeDaemonOptions = {}) {
    this.#options = options;
    this.node = new FakeNode(options);
    this.#migrations = options.migrations ?? new Migrations();
    this.#migrations.add(this);
    this.node.listeners.add(this.#onEmitted);
    this.#served = {
      clock: this.node.clock,
      requestsMax: options.clientRequestsMax ?? 5,
      keepaliveMs: options.keepaliveMs ?? 5_000,
      keepaliveMisses: options.keepaliveMisses ?? 5,
      answer: (session, call, given) => this.#answer(session, call, given),
      closed: (session) => this.#onClosed(session),
    };
  }

  /** Connections now. */
  get clients(): number {
    return this.#sessions.size;
  }
  /** Calls that are unanswered now, of all clients. */
  get inFlight(): number {
    return [...this.#sessions].reduce((sum, session) => sum + session.inFlight, 0);
  }
  get down(): boolean {
    return this.#down;
  }
  get sockets(): readonly string[] {
    return [...this.#servers.keys()];
  }

  /** Takes one client. The other end is the caller's. */
  serve(duplex: Duplex): void {
    if (this.#down || this.#sessions.size >= (this.#options.clientsMax ?? 5_000)) {
      duplex.destroy();
      return;
    }
    this.#sessions.add(new WireSession(duplex, this.#served));
  }

  /** A connection within this process: the client's end. */
  open(): Duplex {
    const [client, server] = pair();
    this.serve(server);
    return client;
  }

  /** Listens on a unix socket that only this user can open. What is left of an earlier one is removed. */
  async listen(path: string): Promise<void> {
    await rm(path, { force: true });
    const server = createServer((socket) => this.serve(socket));
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(path, () => resolve());
    });
    await chmod(path, 0o700);
    this.#servers.set(path, server);
  }

  /** Ends all connections and listens no more. */
  async close(): Promise<void> {
    this.#down = true;
    this.#migrations.remove(this);
    this.disconnectAll();
    for (const fault of [...this.#faults]) fault.release();
    for (const domain of this.node.domains.values()) for (const cancel of domain.timers.splice(0)) cancel();
    await Promise.all([...this.#servers].map(([path, server]) => new Promise<void>((resolve) => server.close(() => resolve())).then(() => rm(path, { force: true }))));
    this.#servers.clear();
  }

  addFault(fault: Fault): ActiveFault {
    const waiting = new Set<() => void>();
    const faults = this.#faults;
    const active: Struck = {
      fault,
      struck: 0,
      drawn: 0,
      waiting,
      release: () => {
        faults.delete(active);
        for (const go of [...waiting]) go();
      },
    };
    faults.add(active);
    return active;
  }

  /** Every connection breaks. */
  disconnectAll(): void {
    for (const session of [...this.#sessions]) session.close();
  }

  /**
   * The daemon dies: connections break, and none is taken until `restart`. With `losing`, the whole node was lost: no guest runs any
   * more when it comes back. Without, guests go on, as they do without their libvirtd.
   */
  crash({ losing = 'nothing' }: { readonly losing?: 'nothing' | 'guests' | 'everything' } = {}): void {
    this.#down = true;
    this.disconnectAll();
    if (losing === 'everything') {
      this.node.listeners.clear();
      this.node = new FakeNode(this.#options);
      this.node.listeners.add(this.#onEmitted);
    } else if (losing === 'guests') {
      for (const domain of [...this.node.domains.values()]) if (domain.active) stop(this.node, domain, 'failed', 'unknown');
      for (const network of [...networksOf(this.node).values()]) if (network.live !== undefined) stopNetwork(this.node, network);
      for (const pool of storageOf(this.node).pools.values()) pool.active = false;
      this.node.forgetRuns();
      this.#booting = true;
    }
  }

  /** After `crash`. When the node itself was lost, what has autostart is started, as after a boot: networks, pools, domains. */
  restart(): void {
    this.#down = false;
    if (!this.#booting) return;
    this.#booting = false;
    const { node } = this;
    const each = <T>(all: Iterable<T>, begin: (one: T) => void) => {
      for (const one of [...all]) {
        try {
          begin(one);
        } catch (error) {
          // What cannot start stays off, and the daemon goes on with the next.
          if (!(error instanceof Refusal)) throw error;
        }
      }
    };
    each(networksOf(node).values(), (network) => network.autostart && startNetwork(node, network));
    each(storageOf(node).pools.values(), (pool) => pool.autostart && startPool(node, pool, false));
    each(node.domains.values(), (domain) => domain.autostart && start(node, domain, {}));
  }

  #onClosed(session: WireSession): void {
    this.#sessions.delete(session);
    // A daemon that dies takes no guest with it, whoever it was started for.
    if (this.#down) return;
    for (const uuid of session.autodestroy) {
      const domain = this.node.domains.get(uuid);
      if (domain?.active === true) destroy(this.node, domain);
    }
  }

  #onEmitted = (event: Emitted): void => {
    let packet: Buffer | undefined;
    const encoded = () =>
      (packet ??= encodePacket(
        { program: event.family === 'monitor' ? programs.qemu : programs.remote, procedure: event.entry.procedure, type: messageType.message, serial: 1, status: messageStatus.ok },
        (writer) => event.entry.message.write(writer, event.value),
      ));
    for (const session of this.#sessions) session.tell(event, encoded);
  };

  #answer(session: WireSession, call: NamedProcedure, given: Given): unknown {
    this.calls.set(call.name, (this.calls.get(call.name) ?? 0) + 1);
    return this.#through(this.#faults.values(), session, call, given);
  }

  /** Past the faults that are left: one that only takes time lets those after it strike too. */
  #through(faults: IterableIterator<Struck>, session: WireSession, call: NamedProcedure, given: Given): unknown {
    const about = (given.args as { readonly domain?: { readonly uuid?: string } } | undefined)?.domain?.uuid;
    for (const active of faults) {
      const { fault } = active;
      if (fault.call !== undefined && !(Array.isArray(fault.call) ? fault.call : [fault.call]).includes(call.name)) continue;
      if (fault.domain !== undefined && fault.domain !== about) continue;
      active.drawn += 1;
      if (chance('fault', this.node.seed, this.node.hostname, call.name, active.drawn) >= (fault.probability ?? 1)) continue;
      active.struck += 1;
      if (active.struck >= (fault.times ?? Number.POSITIVE_INFINITY)) this.#faults.delete(active);
      const late = fault.effect.kind === 'delay' || fault.effect.kind === 'hang';
      return this.#strike(active, session, () => (late ? this.#through(faults, session, call, given) : this.#do(session, call, given)));
    }
    return this.#do(session, call, given);
  }

  #strike({ fault: { effect }, waiting, struck }: Struck, session: WireSession, work: () => unknown): unknown {
    switch (effect.kind) {
      case 'delay': {
        const ms = effect.ms + (effect.jitterMs ?? 0) * chance('jitter', this.node.seed, this.node.hostname, struck);
        return new Promise<void>((resolve) => void this.node.clock.after(ms, resolve)).then(work);
      }
      case 'hang':
        return new Promise<void>((resolve) => {
          const go = () => {
            waiting.delete(go);
            resolve();
          };
          waiting.add(go);
        }).then(work);
      case 'fail':
        throw new Refusal(effect.code, 'qemu', effect.message);
      case 'disconnect':
        if (effect.after === true) work();
        session.close();
        return undefined;
    }
  }

  #do(session: WireSession, { name, procedure }: NamedProcedure, { args, unknownFlags, raw }: Given): unknown {
    if (session.opened === undefined && !beforeOpening.has(name)) throw internal('hypervisor connection not open', 'rpc');
    if (session.readOnly && changes(name)) throw new Refusal(29, 'none', `operation ${name} forbidden for read only access`);
    const handler = handlers[name];
    if (handler === undefined) throw new Refusal(3, 'none', `this function is not supported by the connection driver: vir${name.charAt(0).toUpperCase()}${name.slice(1)}`);
    // libvirtd looks at one bit of these, whatever the others are.
    if (unknownFlags !== 0 && name !== 'connectOpen') throw unsupportedFlags(`0x${unknownFlags.toString(16)}`, name);
    const without = notHonoured(name, args);
    if (without.length > 0) throw unsupportedFlags(without.join(', '), name);
    const context: CallContext = { node: this.node, session, migrations: this.#migrations };
    const given = name in rawArguments ? (rawArguments[name] as { read(reader: Reader): unknown }).read(raw()) : args;
    const waits = needsMonitor(name, procedure.priority, given);
    if (waits) {
      const { domain: ref } = given as { readonly domain?: { readonly uuid: string } };
      const domain: FakeDomain | undefined = ref === undefined ? undefined : this.node.domains.get(ref.uuid);
      const wait = domain === undefined ? undefined : this.node.monitor(domain);
      if (wait !== undefined) {
        return wait.then(() => {
          if (domain?.active !== true) throw operationInvalid('domain is not running');
          return handler(given, context);
        });
      }
    }
    return handler(given, context);
  }
}

const beforeOpening = new Set(['authList', 'authPolkit', 'authSaslInit', 'connectOpen', 'connectClose', 'connectSupportsFeature']);
/** Of what may be asked of a domain, this is known without its QEMU. */
const withoutMonitor = /^(domainGet(?!GuestInfo|GuestVcpus|Fsinfo|Time|BlockJobInfo|BlockInfo)|domainHas|domainIs|domainSnapshot(?!Delete)|domainCheckpointGet|domainCheckpointList|domainBackupGet|domainUndefine|domainDefine|domainCreate|domainManagedSaveRemove|domainSetAutostart|domainMigrateGet|domainMigratePrepare|domainMigrateFinish|domainOpenConsole|domainLookup|domainList|domainSetMetadata|domainDestroy|domainAbortJob|domainInterfaceAddresses|domainInterfaceStats)/;
function needsMonitor(name: string, priority: 'high' | 'low', args: unknown): boolean {
  if (priority === 'high' || !name.startsWith('domain')) return false;
  return !withoutMonitor.test(name) || (name === 'domainInterfaceAddresses' && (args as { readonly source?: string }).source === 'agent');
}

const reads = /^(auth|connect|nodeGet|domainGet|domainLookup|domainList|domainIs|domainHas|domainBlockStats|domainMemoryStats|domainInterface|domainSnapshot(List|Lookup|Get|Current|Is|Has|Num)|domainCheckpoint(List|Lookup|Get)|domainBackupGet|networkLookup|networkGet|networkIs|networkListAll|networkPortLookup|networkPortGet|storagePool(Lookup|Get|Is|List|NumOf)|storageVol(Lookup|Get)|secretLookup|secretGetXml|interface(Lookup|Get|Is)|nodeDevice(Lookup|Get|List|Num|Is)|nodeNum|nodeList|nwfilter(Lookup|Get|BindingLookup|BindingGet)|domainMigrateGet)/;
const changes = (name: string): boolean => !reads.test(name) || name === 'connectSetIdentity';

/** Two streams, each of which reads what the other writes. A writer waits until the reader has taken it. */
function pair(): [Duplex, Duplex] {
  class End extends Duplex {
    other: End | undefined;
    #taken: (() => void) | undefined;
    override _read(): void {
      const taken = this.#taken;
      this.#taken = undefined;
      taken?.();
    }
    override _write(chunk: Buffer, _encoding: string, done: (error?: Error | null) => void): void {
      const other = this.other as End;
      if (other.destroyed) return done();
      // Not now: a call is over before what it says is heard.
      setImmediate(() => {
        if (other.destroyed || other.push(chunk)) return done();
        other.#taken = done;
      });
    }
    override _writev(chunks: readonly { readonly chunk: Buffer }[], done: (error?: Error | null) => void): void {
      this._write(chunks.length === 1 ? (chunks[0] as { readonly chunk: Buffer }).chunk : Buffer.concat(chunks.map((one) => one.chunk)), 'buffer', done);
    }
    override _final(done: () => void): void {
      this.other?.push(null);
      done();
    }
    override _destroy(error: Error | null, done: (error: Error | null) => void): void {
      const other = this.other;
      setImmediate(() => {
        if (other !== undefined && !other.destroyed) other.destroy();
      });
      this.#taken?.();
      done(error);
    }
  }
  const left = new End();
  const right = new End();
  left.other = right;
  right.other = left;
  return [left, right];
}

/** Where `connect()` finds a fake of this process. */
export function targetOf(daemon: FakeDaemon, driver = 'qemu:///system'): RemoteTarget {
  return { driver, transport: { kind: 'stream', open: () => daemon.open() } };
}
