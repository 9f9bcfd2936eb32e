/*
 * Makes the bus be as `topology.ts` says, as often as it is asked.
 *
 * Streams and durables are a cache of what the log knows: an operator may delete JetStream's
 * whole store, and whoever notices first makes everything anew. So each function here is "make
 * sure that", may run in several processes at once, and finds nothing to do most of the time.
 * `keepTopology` is for the leader: it looks every five seconds, with two small requests.
 *
 * What exists with other settings is changed. What the server refuses to change (a stream's
 * retention) is said and left alone: that takes a person.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { AckPolicy, DeliverPolicy, DiscardPolicy, JetStreamApiError, RetentionPolicy, StorageType, jetstreamManager } from '@nats-io/jetstream';
import type { ConsumerConfig, JetStreamManager, StreamConfig } from '@nats-io/jetstream';
import { nanos } from '@nats-io/transport-node';
import type { NatsConnection } from '@nats-io/transport-node';
import { backOffMs, noLog } from './connect.ts';
import type { BusLog } from './connect.ts';
import { commandsOfNode, streams, subjects } from './topology.ts';
import type { ConsumerSpec, StreamName, StreamSpec } from './topology.ts';

/** Error codes of JetStream's API (server/errors.json of nats-server). */
const CONSUMER_NOT_FOUND = 10014;
const STREAM_NOT_FOUND = 10059;
const INSUFFICIENT_STORAGE = 10047;
const STORE_FAILED = 10077;
const STREAM_EXISTS_WITH_OTHER_SETTINGS = 10058;
const SUBJECTS_OVERLAP = 10065;

const BYTES_MIN = 16 * 2 ** 20;
const SHARE_MIN = 1 / 256;
const LOOK_MS = 50;
const LOOKS_MAX = 40;
/** A request that was sent before JetStream was up is never answered, so patience does not help. */
const REQUEST_MS = 1_000;

/** What survives the loss of one server and still has a majority. */
const COPIES_IN_A_CLUSTER = 3;

export interface EnsureOptions {
  /** Copies of each stream. Default: 3 where the server is one of a cluster, else 1. */
  readonly replicas?: number;
  readonly log?: BusLog;
}

const codeOf = (fault: unknown): number | undefined => (fault instanceof JetStreamApiError ? fault.code : undefined);

/** True where the server said that the stream or the consumer does not exist. */
export const isNotFound = (fault: unknown): boolean => {
  const code = codeOf(fault);
  return code === CONSUMER_NOT_FOUND || code === STREAM_NOT_FOUND;
};

const managers = new WeakMap<NatsConnection, Promise<JetStreamManager>>();

function managerOf(nc: NatsConnection): Promise<JetStreamManager> {
  const present = managers.get(nc);
  if (present !== undefined) return present;
  const made = jetstreamManager(nc, { checkAPI: false, timeout: REQUEST_MS });
  managers.set(nc, made);
  return made;
}

function streamConfig(spec: StreamSpec, replicas: number): Partial<StreamConfig> & { name: string } {
  return {
    name: spec.name,
    subjects: [...spec.subjects],
    retention: spec.retention === 'workqueue' ? RetentionPolicy.Workqueue : RetentionPolicy.Limits,
    storage: StorageType.File,
    discard: spec.whenFull === 'new' ? DiscardPolicy.New : DiscardPolicy.Old,
    max_age: nanos(spec.ageMaxMs),
    max_bytes: spec.bytesMax,
    duplicate_window: nanos(spec.duplicatesMs),
    num_replicas: replicas,
  };
}

/** True when the stream was there; false when it has to be made. */
async function changeStream(jsm: JetStreamManager, spec: StreamSpec, { replicas = 1, log = noLog }: EnsureOptions): Promise<boolean> {
  const wanted = streamConfig(spec, replicas);
  let present: StreamConfig;
  try {
    present = (await jsm.streams.info(spec.name)).config;
  } catch (fault) {
    if (codeOf(fault) === STREAM_NOT_FOUND) return false;
    throw fault;
  }
  // A stream that is smaller than wanted was made so because the server had no room for more.
  const differing = (Object.keys(wanted) as (keyof StreamConfig)[]).filter((key) =>
    key === 'max_bytes' ? present.max_bytes > spec.bytesMax || present.max_bytes <= 0 : JSON.stringify(present[key]) !== JSON.stringify(wanted[key]),
  );
  if (differing.length === 0) return true;
  try {
    await jsm.streams.update(spec.name, { ...present, ...wanted, max_bytes: Math.min(spec.bytesMax, present.max_bytes > 0 ? present.max_bytes : spec.bytesMax) });
    log.info({ stream: spec.name, differing }, 'stream changed to the topology');
  } catch (err) {
    log.error({ err, stream: spec.name, differing }, 'stream differs from the topology and cannot be changed');
  }
  return true;
}

/** Whether the stream is there, or comes while it is looked for. */
async function isThere(jsm: JetStreamManager, name: StreamName): Promise<boolean> {
  for (let looks = 0; looks < LOOKS_MAX; looks++) {
    try {
      await jsm.streams.info(name);
      return true;
    } catch (fault) {
      if (codeOf(fault) !== STREAM_NOT_FOUND) throw fault;
      await delay(LOOK_MS);
    }
  }
  return false;
}

/**
 * All four streams. The server sets their sizes aside when they are made; where it has less room
 * they are all made smaller by the same factor, so that the first one does not leave the last
 * one nothing.
 */
export async function ensureStreams(nc: NatsConnection, options: EnsureOptions = {}): Promise<void> {
  const { replicas = nc.info?.cluster === undefined ? 1 : COPIES_IN_A_CLUSTER, log = noLog } = options;
  const jsm = await managerOf(nc);
  const made: StreamSpec[] = [];
  let share = 1;
  const config = (spec: StreamSpec): Partial<StreamConfig> & { name: string } => ({ ...streamConfig(spec, replicas), max_bytes: Math.max(BYTES_MIN, Math.floor(spec.bytesMax * share)) });
  for (const spec of streams) {
    if (await changeStream(jsm, spec, options)) continue;
    for (;;) {
      try {
        await jsm.streams.add(config(spec));
        break;
      } catch (fault) {
        // Another process made it meanwhile, perhaps smaller.
        if (codeOf(fault) === STREAM_EXISTS_WITH_OTHER_SETTINGS) break;
        // Or makes it at this moment: for an instant the server takes that for another stream with its subjects (2.9.10, 3 of 600).
        if (codeOf(fault) === SUBJECTS_OVERLAP && (await isThere(jsm, spec.name))) break;
        if (codeOf(fault) !== INSUFFICIENT_STORAGE || share < SHARE_MIN) throw fault;
        share /= 2;
        for (const earlier of made) await jsm.streams.update(earlier.name, config(earlier));
      }
    }
    made.push(spec);
  }
  if (made.length > 0) log.info({ streams: made.map(({ name }) => name), share }, 'streams made');
}

/** What JetStream answers to a publication that it could not store. */
export interface StoreFault {
  readonly err_code?: number;
  readonly description?: string;
}

/**
 * Cures streams whose files were deleted under the running server. It does not notice: they look
 * well, and every publication fails with "no such file or directory" (seen on 2.9.10). A purge
 * makes the folders anew and loses what is left in memory, which nobody can read any more.
 *
 * The stream is not deleted: readers would make it again at once, while the server still removes
 * the old folders, and with them the new (seen: it takes messages and delivers none).
 */
export async function cureStore(nc: NatsConnection, stream: StreamName, fault: StoreFault, options: EnsureOptions = {}): Promise<boolean> {
  const { log = noLog } = options;
  const isLost = ({ err_code, description }: StoreFault): boolean => err_code === STORE_FAILED && /no such file or directory/i.test(description ?? '');
  const cure = async (name: StreamName): Promise<void> => {
    const jsm = await managerOf(nc);
    log.error({ stream: name }, 'files of a stream were deleted under the server, making them anew');
    await jsm.streams.purge(name);
    const { config } = await jsm.streams.info(name);
    // Writes down what the stream is, so that it is found at the server's next start.
    await jsm.streams.update(name, config).catch((err: unknown) => { log.debug({ err, stream: name }, 'stream could not be written down'); });
  };
  if (!isLost(fault)) return false;
  await cure(stream);
  // Reports are published by agents alone, and they cannot cure anything.
  const reply = await nc.request(subjects.report('probe', 'probe', 'probe'), '{}', { timeout: REQUEST_MS });
  const said = reply.json<{ error?: StoreFault }>();
  if (said.error !== undefined && isLost(said.error)) await cure('REPORTS');
  return true;
}

function consumerConfig(spec: ConsumerSpec): Partial<ConsumerConfig> {
  return {
    durable_name: spec.durable,
    ack_policy: AckPolicy.Explicit,
    deliver_policy: DeliverPolicy.All,
    filter_subject: spec.filter,
    ack_wait: nanos(spec.ackWaitMs),
    max_ack_pending: spec.ackPendingMax,
    // For ever: a message past a limit would stay in the stream and nobody would be told. `consume.ts` counts and sets aside.
    max_deliver: -1,
    ...(spec.deliverTo === undefined ? {} : { deliver_subject: spec.deliverTo }),
  };
}

async function addConsumer(jsm: JetStreamManager, spec: ConsumerSpec): Promise<string> {
  return (await jsm.consumers.add(spec.stream, consumerConfig(spec))).created;
}

/**
 * Makes sure of one durable, and of its stream. The answer is when the durable was made, as the
 * server writes it: another answer, another durable. Rejects when the bus does not answer.
 */
export async function ensureConsumer(nc: NatsConnection, spec: ConsumerSpec, options: EnsureOptions = {}): Promise<string> {
  const jsm = await managerOf(nc);
  let present: ConsumerConfig;
  let created: string;
  try {
    ({ config: present, created } = await jsm.consumers.info(spec.stream, spec.durable));
  } catch (fault) {
    if (!isNotFound(fault)) throw fault;
    if (codeOf(fault) === STREAM_NOT_FOUND) await ensureStreams(nc, options);
    created = await addConsumer(jsm, spec);
    options.log?.info({ stream: spec.stream, durable: spec.durable }, 'consumer made');
    return created;
  }
  const wanted = consumerConfig(spec);
  const differing = (Object.keys(wanted) as (keyof ConsumerConfig)[]).filter((key) => JSON.stringify(present[key]) !== JSON.stringify(wanted[key]));
  if (differing.length === 0) return created;
  try {
    created = await addConsumer(jsm, spec);
  } catch {
    // Some settings cannot be changed. Nothing is lost by making it anew: what is unacknowledged stays in the stream.
    await jsm.consumers.delete(spec.stream, spec.durable);
    created = await addConsumer(jsm, spec);
  }
  options.log?.info({ stream: spec.stream, durable: spec.durable, differing }, 'consumer changed to the topology');
  return created;
}

/** Names of all durables of a stream, in pages of 1,024; rejects with `isNotFound` where there is no stream. */
async function durablesOf(nc: NatsConnection, stream: StreamName): Promise<ReadonlySet<string>> {
  const names = new Set<string>();
  for (let total = 1; names.size < total; ) {
    const reply = await nc.request(`$JS.API.CONSUMER.NAMES.${stream}`, JSON.stringify({ offset: names.size }), { timeout: REQUEST_MS });
    const page = reply.json<{ total?: number; consumers?: string[] | null; error?: { err_code: number; code: number; description: string } }>();
    if (page.error) throw new JetStreamApiError({ err_code: page.error.err_code, code: page.error.code, description: page.error.description });
    for (const name of page.consumers ?? []) names.add(name);
    total = page.consumers?.length ? (page.total ?? 0) : 0;
  }
  return names;
}

export interface Topology {
  /** Durables of the services. */
  readonly consumers: readonly ConsumerSpec[];
  /** Nodes that have joined and were not removed. */
  readonly nodes: readonly string[];
}

const AT_ONCE = 32;

/** Makes sure of all streams and durables. With nothing amiss it costs one request for each stream that has durables. */
export async function ensureTopology(nc: NatsConnection, { consumers, nodes }: Topology, options: EnsureOptions = {}): Promise<void> {
  const wanted = [...consumers, ...nodes.map(commandsOfNode)];
  const missing: ConsumerSpec[] = [];
  for (const stream of new Set<StreamName>(['COMMANDS', ...wanted.map(({ stream }) => stream)])) {
    let present: ReadonlySet<string>;
    try {
      present = await durablesOf(nc, stream);
    } catch (fault) {
      if (!isNotFound(fault)) throw fault;
      await ensureStreams(nc, options);
      present = new Set();
    }
    missing.push(...wanted.filter((spec) => spec.stream === stream && !present.has(spec.durable)));
  }
  for (let first = 0; first < missing.length; first += AT_ONCE) {
    await Promise.all(missing.slice(first, first + AT_ONCE).map((spec) => ensureConsumer(nc, spec, options)));
  }
  if (missing.length > 0) options.log?.info({ consumers: missing.length }, 'topology repaired');
}

interface ConsumerState {
  readonly name: string;
  readonly config: { readonly filter_subject?: string };
  readonly delivered: { readonly stream_seq: number };
  readonly ack_floor: { readonly stream_seq: number };
  readonly num_pending: number;
  readonly num_ack_pending: number;
}

async function consumersOf(nc: NatsConnection, stream: StreamName): Promise<readonly ConsumerState[]> {
  const all: ConsumerState[] = [];
  for (let total = 1; all.length < total; ) {
    const reply = await nc.request(`$JS.API.CONSUMER.LIST.${stream}`, JSON.stringify({ offset: all.length }), { timeout: REQUEST_MS });
    const page = reply.json<{ total?: number; consumers?: ConsumerState[] | null }>();
    all.push(...(page.consumers ?? []));
    total = page.consumers?.length ? (page.total ?? 0) : 0;
  }
  return all;
}

/**
 * Brings the queue of commands and its durables together again after a server died: what it
 * wrote last of the one and of the other need not agree (seen after kill -9 on 2.9.10).
 *
 * - Messages that were acknowledged are back, and nobody delivers them: purged, up to the point
 *   below which their durable has everything acknowledged.
 * - A durable is ahead of its stream and would pass over all that comes next: made anew.
 */
export async function reconcileCommands(nc: NatsConnection, { consumers, nodes }: Topology, { log = noLog }: EnsureOptions = {}): Promise<void> {
  const jsm = await managerOf(nc);
  const { state: before } = await jsm.streams.info('COMMANDS', { subjects_filter: '>' });
  const wanted = new Map([...consumers, ...nodes.map(commandsOfNode)].map((spec) => [spec.durable, spec]));
  const present = await consumersOf(nc, 'COMMANDS');
  const { state: after } = await jsm.streams.info('COMMANDS');
  for (const { name, config, delivered, ack_floor, num_pending, num_ack_pending } of present) {
    const spec = wanted.get(name);
    if (spec === undefined) continue;
    if (delivered.stream_seq > after.last_seq) {
      await jsm.consumers.delete('COMMANDS', name);
      await addConsumer(jsm, spec);
      log.warn({ durable: name, delivered: delivered.stream_seq, last: after.last_seq }, 'consumer was ahead of its stream, made anew');
      continue;
    }
    const filter = config.filter_subject ?? '';
    const prefix = filter.endsWith('.*') ? filter.slice(0, -1) : undefined;
    const count = Object.entries(before.subjects ?? {}).reduce((sum, [subject, messages]) => sum + ((prefix === undefined ? subject === filter : subject.startsWith(prefix)) ? messages : 0), 0);
    if (count <= num_pending + num_ack_pending || ack_floor.stream_seq === 0) continue;
    const { purged } = await jsm.streams.purge('COMMANDS', { filter, seq: ack_floor.stream_seq + 1 });
    if (purged > 0) log.info({ durable: name, purged }, 'acknowledged commands that were back were purged');
  }
}

/** Takes a removed node's durable and its waiting commands away. */
export async function forgetNode(nc: NatsConnection, nodeId: string): Promise<void> {
  const jsm = await managerOf(nc);
  const { stream, durable, filter } = commandsOfNode(nodeId);
  for (const step of [() => jsm.consumers.delete(stream, durable), () => jsm.streams.purge(stream, { filter })]) {
    try {
      await step();
    } catch (fault) {
      if (!isNotFound(fault)) throw fault;
    }
  }
}

export interface KeepTopology extends EnsureOptions {
  readonly nc: NatsConnection;
  /** Asked at each look. */
  readonly topology: () => Topology | Promise<Topology>;
  /** Default 5 s. */
  readonly everyMs?: number;
}

export interface TopologyKeeper {
  /** Looks now: after a "not found", after a node joined. Resolves when the look that follows has succeeded or failed. */
  nudge(): Promise<void>;
  stop(): Promise<void>;
}

/** Looks, not ms: with the usual five seconds, once a minute. */
const RECONCILE_EVERY = 12;

/** The leader's reconciler. The first look is a full one, with the settings of every stream. */
export function keepTopology({ nc, topology, everyMs = 5_000, ...options }: KeepTopology): TopologyKeeper {
  const log = options.log ?? noLog;
  let stopped = false;
  let full = true;
  let looks = 0;
  let failures = 0;
  let running: Promise<void> | undefined;
  let again = false;
  let timer: NodeJS.Timeout | undefined;

  const look = async (): Promise<void> => {
    try {
      const wanted = await topology();
      if (full) await ensureStreams(nc, options);
      await ensureTopology(nc, wanted, options);
      if (full) for (const spec of wanted.consumers) await ensureConsumer(nc, spec, options);
      if (full || looks % RECONCILE_EVERY === 0) await reconcileCommands(nc, wanted, options);
      looks++;
      full = false;
      failures = 0;
    } catch (err) {
      failures++;
      full = true;
      if (!stopped) log.warn({ err, failures }, 'topology could not be ensured');
    }
  };
  const run = (): Promise<void> => {
    if (stopped) return Promise.resolve();
    if (running !== undefined) {
      again = true;
      return running;
    }
    clearTimeout(timer);
    running = (async () => {
      do {
        again = false;
        await look();
      } while (again && !stopped);
    })().finally(() => {
      running = undefined;
      // Sooner after a failure: a bus that comes back is useless until its streams are there.
      if (!stopped) timer = setTimeout(() => void run(), failures === 0 ? everyMs : Math.min(everyMs, backOffMs(failures, 100)));
    });
    return running;
  };

  void run();
  return {
    nudge: run,
    stop: async () => {
      stopped = true;
      clearTimeout(timer);
      await running;
    },
  };
}
