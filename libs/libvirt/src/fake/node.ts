/*
 * A pretend node with libvirt's QEMU driver on it: what there is, without a word about how it is reached.
 * Nothing here runs a guest. A domain is its definitions, its state and a few numbers, of which everything
 * that a guest would do (CPU time, traffic, the progress of a job) follows by the clock, so that a node at
 * rest costs nothing but its memory.
 *
 * What libvirt's connections see of each other is here: all sessions of a node share it, and `emit` tells
 * all of them.
 */
import { domainEvents, monitorEvents, networkEvents, nodeDeviceEvents, secretEvents, storagePoolEvents } from '../events.ts';
import type { DomainEventKind, EventEntry, EventFamily } from '../events.ts';
import type { Domain, DomainRef, DomainState, Named, Secret } from '../layouts.ts';
import type { AnyCodec, Encodable } from '../xdr.ts';
import { chance, hashOf, uuidFrom, wallClock } from './clock.ts';
import type { Clock } from './clock.ts';
import { definitionOf, liveTree, parsed, printed } from './definition.ts';
import type { Definition, DiskFacts, Facts, InterfaceFacts } from './definition.ts';
import { noDomain, operationInvalid, operationTimeout } from './refusal.ts';
import type { XmlElement } from '../xml.ts';

/** How the guests of a node behave, unless one is told otherwise. */
export interface GuestBehaviour {
  /** From the start until its agent answers, milliseconds. */
  readonly bootMs: number;
  /** From the wish to shut down until it is off, milliseconds; `never` ignores it. */
  readonly shutdownMs: number | 'never';
  /** Whether an agent runs inside (the domain needs its channel too). */
  readonly agent: boolean;
  readonly hostname?: string;
}

export interface FakeNodeOptions {
  /** As clients see it. Default `fake`. */
  readonly hostname?: string;
  /** The same seed gives the same UUIDs, numbers and faults. Default 1. */
  readonly seed?: number;
  readonly cpus?: number;
  readonly memoryKib?: number;
  readonly clock?: Clock;
  readonly guest?: Partial<GuestBehaviour>;
  /** How long a block job, a backup or a migration takes, milliseconds. Default 100. */
  readonly jobMs?: number;
  /** Bytes of data that volumes may hold together; holes take nothing. Default 1 GiB. */
  readonly volumeBytesMax?: number;
  /** A disk whose file is no volume of a pool keeps its domain from starting. Default false: such files are taken to be there. */
  readonly strictFiles?: boolean;
  /** Whether a disk's file is there, for whoever keeps such files himself: a domain without its file does not start. Default: see strictFiles. */
  readonly isFile?: (path: string) => boolean;
}

export interface BlockJob {
  readonly type: 'pull' | 'copy' | 'commit' | 'activeCommit' | 'backup';
  readonly target: string;
  readonly path: string;
  readonly startedAt: number;
  readonly end: number;
  /** Bytes in a second; 0 is no limit. */
  bandwidth: number;
  ready: boolean;
  /** What becomes of the chain when it is done (or pivots). */
  readonly finish: () => void;
  cancel: () => void;
  /** Whoever waits for its end. */
  readonly whenOver: (() => void)[];
}

export interface PointOfDomain {
  readonly name: string;
  readonly parent: string | undefined;
  readonly createdAt: number;
  readonly root: XmlElement;
  /** As the domain was. */
  readonly definition: Definition;
  readonly state: 'running' | 'paused' | 'shutoff' | 'disk-snapshot';
  readonly external: boolean;
}

export interface DomainJob {
  readonly operation: 'migrationOut' | 'backup' | 'save';
  readonly startedAt: number;
  readonly total: number;
  abort: (() => void) | undefined;
  readonly xml?: string;
}

export interface Hang {
  release(error?: Error): void;
}

export class FakeDomain {
  readonly uuid: string;
  name: string;
  persistent: Definition | undefined;
  live: Definition | undefined;
  id = -1;
  state: DomainState = 'shutoff';
  reason = 'unknown';
  autostart = false;
  managedSave: 'running' | 'paused' | undefined;
  vnetFirst = 0;
  agentConnected = false;
  frozen = false;
  hung = false;
  /** Somebody has spoken to its QEMU past libvirt since it was started. */
  tainted = false;
  /** Of the guest's clock, once somebody has set it. */
  clockAheadMs = 0;
  /** Nanoseconds of CPU that were used until `runningSince`. */
  cpuNs = 0;
  runningSince = 0;
  startedAt = 0;
  behaviour: Partial<GuestBehaviour> | undefined;
  timers: (() => void)[] = [];
  waiting: Set<Hang> | undefined;
  blockJobs: Map<string, BlockJob> | undefined;
  snapshots: Map<string, PointOfDomain> | undefined;
  snapshotCurrent: string | undefined;
  checkpoints: Map<string, PointOfDomain> | undefined;
  checkpointCurrent: string | undefined;
  job: DomainJob | undefined;
  jobLast: { readonly type: 'completed' | 'cancelled' | 'failed'; readonly stats: Record<string, unknown> } | undefined;
  /** Settings by kind that only wait to be asked for: block limits, bandwidths, … */
  settings: Map<string, Record<string, unknown>> | undefined;
  consoleTaken: (() => void) | undefined;

  constructor(uuid: string, name: string) {
    this.uuid = uuid;
    this.name = name;
  }

  get active(): boolean {
    return this.id !== -1;
  }
  /** What holds now: of what runs, or of what would start. */
  get definition(): Definition {
    return (this.live ?? this.persistent) as Definition;
  }
  get facts(): Facts {
    return this.definition.facts;
  }
  get handle(): Domain {
    return { name: this.name, uuid: this.uuid, id: this.id };
  }
}

/** Something happened. `subject` is the UUID (of a device: name) that a client may have asked for alone. */
export interface Emitted {
  readonly family: EventFamily;
  readonly entry: EventEntry<AnyCodec>;
  readonly subject: string;
  readonly value: unknown;
}

type DomainEventValue<K extends DomainEventKind> = Omit<Encodable<(typeof domainEvents)[K]['message']>, 'domain'>;

/** Until QEMU's monitor is free for the next call, milliseconds. libvirt's own. */
const jobWaitMs = 30_000;

export class FakeNode {
  readonly hostname: string;
  readonly uuid: string;
  readonly seed: number;
  readonly cpus: number;
  readonly memoryKib: number;
  readonly clock: Clock;
  readonly guest: GuestBehaviour;
  readonly jobMs: number;
  readonly volumeBytesMax: number;
  readonly strictFiles: boolean;
  /** Files with the memory of domains, by path. */
  readonly saves = new Map<string, { readonly definition: Definition; readonly paused: boolean }>();
  readonly isFile: ((path: string) => boolean) | undefined;
  readonly startedAt: number;
  readonly domains = new Map<string, FakeDomain>();
  readonly domainsByName = new Map<string, FakeDomain>();
  readonly listeners = new Set<(event: Emitted) => void>();
  #idLast = 0;
  #vnetNext = 0;
  #drawn = 0;

  constructor(options: FakeNodeOptions = {}) {
    this.hostname = options.hostname ?? 'fake';
    this.seed = options.seed ?? 1;
    this.uuid = uuidFrom('node', this.seed, this.hostname);
    this.cpus = options.cpus ?? 16;
    this.memoryKib = options.memoryKib ?? 64 * 1_048_576;
    this.clock = options.clock ?? wallClock;
    this.guest = { bootMs: 1_000, shutdownMs: 100, agent: true, ...options.guest };
    this.jobMs = options.jobMs ?? 100;
    this.volumeBytesMax = options.volumeBytesMax ?? 1_073_741_824;
    this.strictFiles = options.strictFiles ?? false;
    this.isFile = options.isFile;
    this.startedAt = this.clock.now();
  }

  /** A UUID that nothing has yet; the seed decides which. */
  uuidNew(): string {
    return uuidFrom(this.seed, this.hostname, (this.#drawn += 1));
  }
  macNew(index: number): string {
    const bits = hashOf('mac', this.seed, this.hostname, (this.#drawn += 1), index);
    return `52:54:00:${[16, 8, 0].map((shift) => ((bits >>> shift) & 0xff).toString(16).padStart(2, '0')).join(':')}`;
  }
  idNew(): number {
    return (this.#idLast += 1);
  }
  vnetsNew(count: number): number {
    const first = this.#vnetNext;
    this.#vnetNext += count;
    return first;
  }
  /** As if the daemon had come up again: it counts anew. */
  forgetRuns(): void {
    this.#idLast = 0;
  }

  behaviourOf(domain: FakeDomain): GuestBehaviour {
    return domain.behaviour === undefined ? this.guest : { ...this.guest, ...domain.behaviour };
  }

  find(domain: DomainRef): FakeDomain {
    const found = this.domains.get(domain.uuid.toLowerCase());
    if (found === undefined) throw noDomain(`no domain with matching uuid '${domain.uuid}'${domain.name === undefined || domain.name === '' ? '' : ` (${domain.name})`}`);
    return found;
  }
  findActive(ref: DomainRef): FakeDomain {
    const domain = this.find(ref);
    if (!domain.active) throw operationInvalid('domain is not running');
    return domain;
  }

  emitDomain<K extends DomainEventKind>(kind: K, domain: FakeDomain, value: DomainEventValue<K>): void {
    if (this.listeners.size > 0) this.#tell('domain', domainEvents[kind], domain.uuid, { domain: domain.handle, ...value });
  }
  lifecycle(domain: FakeDomain, event: DomainEventValue<'lifecycle'>['event'], detail: string): void {
    this.emitDomain('lifecycle', domain, { event, detail });
  }
  emitNetwork(network: Named, event: 'defined' | 'undefined' | 'started' | 'stopped'): void {
    this.#tell('network', networkEvents.lifecycle, network.uuid, { network, event });
  }
  emitPool(pool: Named, event: 'defined' | 'undefined' | 'started' | 'stopped' | 'created' | 'deleted' | 'refreshed'): void {
    if (event === 'refreshed') this.#tell('storagePool', storagePoolEvents.refresh, pool.uuid, { pool });
    else this.#tell('storagePool', storagePoolEvents.lifecycle, pool.uuid, { pool, event });
  }
  emitSecret(secret: Secret, event: 'defined' | 'undefined' | 'valueChanged'): void {
    if (event === 'valueChanged') this.#tell('secret', secretEvents.valueChanged, secret.uuid, { secret });
    else this.#tell('secret', secretEvents.lifecycle, secret.uuid, { secret, event });
  }
  /** What its QEMU says by itself. */
  emitMonitor(domain: FakeDomain, event: 'STOP' | 'RESUME' | 'RESET', details: string | null): void {
    if (this.listeners.size === 0) return;
    const now = this.clock.now();
    this.#tell('monitor', monitorEvents.monitor, domain.uuid, { domain: domain.handle, event, seconds: Math.floor(now / 1_000), microseconds: Math.floor((now % 1_000) * 1_000), details });
  }
  emitNodeDevice(name: string, event: 'created' | 'deleted'): void {
    this.#tell('nodeDevice', nodeDeviceEvents.lifecycle, name, { device: { name }, event });
  }
  #tell(family: EventFamily, entry: EventEntry<AnyCodec>, subject: string, value: unknown): void {
    for (const listener of this.listeners) listener({ family, entry, subject, value });
  }

  /**
   * What every call does that needs the guest's monitor: at once, or, of a guest that hangs, when it is let go.
   * The first that waits holds the domain's job lock; the others give up after libvirt's half minute.
   */
  monitor(domain: FakeDomain): Promise<void> | undefined {
    if (!domain.hung) return undefined;
    const waiting = (domain.waiting ??= new Set());
    const first = waiting.size === 0;
    return new Promise<void>((resolve, reject) => {
      let forget = () => {};
      const hang: Hang = {
        release: (error) => {
          forget();
          waiting.delete(hang);
          if (error === undefined) resolve();
          else reject(error);
        },
      };
      waiting.add(hang);
      if (!first) forget = this.clock.after(jobWaitMs, () => hang.release(operationTimeout('cannot acquire state change lock (held by monitor=remoteDispatch)')));
    });
  }

  /** The guest's QEMU stops answering (SIGSTOP), or answers again. */
  hang(uuid: string, hung = true): void {
    const domain = this.find({ uuid });
    domain.hung = hung;
    if (!hung) for (const one of [...(domain.waiting ?? [])]) one.release();
  }

  /** Milliseconds that it has run since it was started. */
  cpuTimeNs(domain: FakeDomain): bigint {
    const running = domain.state === 'running' ? this.clock.now() - domain.runningSince : 0;
    return BigInt(Math.round((domain.cpuNs + running * 1e6 * this.loadOf(domain)) / 1e4)) * 10_000n;
  }
  /** Of its vCPUs together, for the whole of a run. */
  loadOf(domain: FakeDomain): number {
    return domain.facts.vcpus * (0.02 + 0.6 * chance('load', this.seed, domain.uuid) ** 3);
  }

  setState(domain: FakeDomain, state: DomainState, reason: string): void {
    const now = this.clock.now();
    if (domain.state === 'running') domain.cpuNs += (now - domain.runningSince) * 1e6 * this.loadOf(domain);
    domain.runningSince = now;
    domain.state = state;
    domain.reason = reason;
  }

  treeOf(domain: FakeDomain, which: 'live' | 'config'): XmlElement {
    if (which === 'config') return parsed((domain.persistent as Definition).xml, 'domain');
    return liveTree(parsed((domain.live as Definition).xml, 'domain'), domain);
  }
  /** A change to what runs, to the configuration, or to both. */
  setTree(domain: FakeDomain, which: 'live' | 'config', root: XmlElement): void {
    if (which === 'live') domain.live = definitionOf(root);
    else domain.persistent = definitionOf(root);
  }
  xmlOf(domain: FakeDomain, inactive: boolean): string {
    if (domain.active && !inactive) return printed(this.treeOf(domain, 'live'));
    const definition = (inactive ? domain.persistent : undefined) ?? domain.definition;
    if (definition !== domain.live || domain.persistent === domain.live) return definition.xml;
    // A transient domain has no other definition than what runs.
    return definition.xml.replace(/^<domain([^>]*) id="[^"]*"/, '<domain$1');
  }

  disksOf(domain: FakeDomain): readonly DiskFacts[] {
    return domain.facts.disks;
  }
  /** With the node's ends, which the definition need not name. */
  interfacesOf(domain: FakeDomain): readonly (InterfaceFacts & { readonly device: string })[] {
    return domain.facts.interfaces.map((one, index) => ({ ...one, device: one.device ?? (one.kind === 'user' ? '' : `vnet${domain.vnetFirst + index}`) }));
  }
}
