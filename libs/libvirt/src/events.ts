/*
 * Events, and how they wait for their reader.
 *
 * One registration for each kind is held on a connection, however many listen, and messages are
 * handed out by their procedure number: a message can come before the reply that tells its callback
 * id, and its serial says nothing (it is 1). Choosing one domain happens here, not in the daemon.
 *
 * A reader that falls behind must not cost memory without bound, nor lose events in silence. Its
 * queue has a size; what does not fit is counted, and a `gap` stands where it would have been. A
 * reconnection leaves a gap as well. After a gap the reader lists everything and compares.
 */
import * as layout from './layouts.ts';
import { domain, network, nodeDevice, secret, storagePool, text, textOptional } from './layouts.ts';
import { jobStats } from './parameter-fields.ts';
import { typedParameters } from './typed-parameters.ts';
import { array, flags, hidden, i32, i64Number, mapped, named, struct, u32, u64, u64Number } from './xdr.ts';
import type { AnyCodec, Decoded } from './xdr.ts';

/** Callers get the id of their listener never to see: handing out goes by procedure. */
const callbackId = hidden(i32, 0);
/** Reserved words of the protocol. */
const reserved = hidden(i32, 0);

export interface EventEntry<C> {
  /** What the registration asks for. */
  readonly id: number;
  /** The number of the message. */
  readonly procedure: number;
  readonly message: C;
  /** libvirt's release that brought it, where that is after 9.0.0: older daemons refuse the registration. */
  readonly since: string | undefined;
}

const event = <C extends AnyCodec>(id: number, procedure: number, message: C, since?: string): EventEntry<C> => ({ id, procedure, message, since });

const lifecycleDetails = {
  defined: ['added', 'updated', 'renamed', 'fromSnapshot'],
  undefined: ['removed', 'renamed'],
  started: ['booted', 'migrated', 'restored', 'fromSnapshot', 'wakeup', 'recreated'],
  suspended: ['paused', 'migrated', 'ioerror', 'watchdog', 'restored', 'fromSnapshot', 'apiError', 'postcopy', 'postcopyFailed', 'guestShutdown'],
  resumed: ['unpaused', 'migrated', 'fromSnapshot', 'postcopy', 'postcopyFailed'],
  stopped: ['shutdown', 'destroyed', 'crashed', 'migrated', 'saved', 'failed', 'fromSnapshot', 'recreated'],
  shutdown: ['finished', 'guest', 'host'],
  pmsuspended: ['memory', 'disk'],
  crashed: ['panicked', 'crashloaded'],
} as const;

export type DomainLifecycle = keyof typeof lifecycleDetails | 'unknown';
const lifecycleNumbers = { defined: 0, undefined: 1, started: 2, suspended: 3, resumed: 4, stopped: 5, shutdown: 6, pmsuspended: 7, crashed: 8 } as const;

const domainLifecycle = mapped(struct({ callbackId, domain, event: named(lifecycleNumbers), detail: i32 }), {
  decode: (value): { readonly domain: layout.Domain; readonly event: DomainLifecycle; readonly detail: string } => ({
    domain: value.domain,
    event: value.event,
    detail: (value.event === 'unknown' ? undefined : lifecycleDetails[value.event][value.detail]) ?? 'unknown',
  }),
  encode: (value: { readonly domain: layout.DomainRef; readonly event: keyof typeof lifecycleDetails; readonly detail: string }) => ({
    domain: value.domain,
    event: value.event,
    detail: Math.max(0, (lifecycleDetails[value.event] as readonly string[]).indexOf(value.detail)),
  }),
});

const ioErrorAction = named({ none: 0, pause: 1, report: 2 });
const blockJob = named({ unknown: 0, pull: 1, copy: 2, commit: 3, activeCommit: 4, backup: 5 });
const blockJobStatus = named({ completed: 0, failed: 1, canceled: 2, ready: 3 });

const graphicsAddress = struct({ family: named({ ipv4: 0, ipv6: 1, unix: 2 }), node: text, service: text });

/** virDomainEventID and the message of each. */
export const domainEvents = {
  lifecycle: event(0, 318, domainLifecycle),
  reboot: event(1, 319, struct({ callbackId, domain })),
  rtcChange: event(2, 320, struct({ callbackId, domain, offsetSeconds: i64Number })),
  watchdog: event(
    3,
    321,
    struct({ callbackId, domain, action: named({ none: 0, pause: 1, reset: 2, poweroff: 3, shutdown: 4, debug: 5, injectNmi: 6 }) }),
  ),
  ioError: event(4, 322, struct({ callbackId, domain, source: text, device: text, action: ioErrorAction })),
  graphics: event(
    5,
    323,
    struct({
      callbackId,
      domain,
      phase: named({ connect: 0, initialize: 1, disconnect: 2 }),
      local: graphicsAddress,
      remote: graphicsAddress,
      authentication: text,
      subject: array(struct({ type: text, name: text }), 20),
    }),
  ),
  ioErrorReason: event(6, 324, struct({ callbackId, domain, source: text, device: text, action: ioErrorAction, reason: text })),
  controlError: event(7, 325, struct({ callbackId, domain })),
  /** Block jobs by the path of the image; `blockJob` is better. */
  blockJobOfPath: event(8, 326, struct({ callbackId, domain, path: text, job: blockJob, status: blockJobStatus })),
  diskChange: event(
    9,
    327,
    struct({ callbackId, domain, sourceOld: textOptional, sourceNew: textOptional, device: text, reason: named({ missingOnStart: 0, dropMissingOnStart: 1 }) }),
  ),
  trayChange: event(10, 328, struct({ callbackId, domain, device: text, reason: named({ open: 0, close: 1 }) })),
  pmWakeup: event(11, 329, struct({ callbackId, reserved, domain })),
  pmSuspend: event(12, 330, struct({ callbackId, reserved, domain })),
  balloonChange: event(13, 331, struct({ callbackId, domain, memoryKib: u64Number })),
  pmSuspendDisk: event(14, 332, struct({ callbackId, reserved, domain })),
  deviceRemoved: event(15, 333, struct({ callbackId, domain, device: text })),
  /** Block jobs by target name (BLOCK_JOB_2). */
  blockJob: event(16, 339, struct({ callbackId, domain, target: text, job: blockJob, status: blockJobStatus })),
  tunable: event(17, 346, struct({ callbackId, domain, parameters: typedParameters(2_048) })),
  agentLifecycle: event(
    18,
    348,
    struct({ callbackId, domain, state: named({ connected: 1, disconnected: 2 }), reason: named({ unknown: 0, domainStarted: 1, channel: 2 }) }),
  ),
  deviceAdded: event(19, 354, struct({ callbackId, domain, device: text })),
  migrationIteration: event(20, 359, struct({ callbackId, domain, iteration: i32 })),
  jobCompleted: event(21, 363, struct({ callbackId, domain, stats: jobStats })),
  deviceRemovalFailed: event(22, 367, struct({ callbackId, domain, device: text })),
  metadataChange: event(23, 379, struct({ callbackId, domain, metadata: named(layout.metadataKinds), uri: textOptional })),
  blockThreshold: event(24, 385, struct({ callbackId, domain, device: text, path: textOptional, thresholdBytes: u64, excessBytes: u64 })),
  memoryFailure: event(
    25,
    423,
    struct({
      callbackId,
      domain,
      recipient: named({ hypervisor: 0, guest: 1 }),
      action: named({ ignore: 0, inject: 1, fatal: 2, reset: 3 }),
      flags: flags({ actionRequired: 1, recursive: 2 }),
    }),
  ),
  memoryDeviceSizeChange: event(26, 438, struct({ callbackId, domain, device: text, sizeKib: u64Number })),
  /** The guest gave its interface (an alias) another MAC address. */
  nicMacChange: event(27, 453, struct({ callbackId, domain, device: text, macOld: text, macNew: text }), '11.2.0'),
  vcpuRemoved: event(28, 454, struct({ callbackId, domain, vcpu: u32 }), '12.4.0'),
  /** As agentLifecycle, of every virtio channel, by its name. */
  channelLifecycle: event(
    29,
    455,
    struct({ callbackId, domain, channel: text, state: named({ connected: 1, disconnected: 2 }), reason: named({ unknown: 0, domainStarted: 1, channel: 2 }) }),
    '12.4.0',
  ),
} as const;

export const networkEvents = {
  lifecycle: event(
    0,
    315,
    struct({ callbackId, network, event: named({ defined: 0, undefined: 1, started: 2, stopped: 3 }), detail: reserved }),
  ),
  metadataChange: event(1, 446, struct({ callbackId, network, metadata: named(layout.metadataKinds), uri: textOptional }), '9.8.0'),
} as const;

export const storagePoolEvents = {
  lifecycle: event(
    0,
    370,
    struct({
      callbackId,
      pool: storagePool,
      event: named({ defined: 0, undefined: 1, started: 2, stopped: 3, created: 4, deleted: 5 }),
      detail: reserved,
    }),
  ),
  /** What the daemon knows of the volumes has changed. */
  refresh: event(1, 373, struct({ callbackId, pool: storagePool })),
} as const;

export const nodeDeviceEvents = {
  lifecycle: event(
    0,
    376,
    struct({ callbackId, device: nodeDevice, event: named({ created: 0, deleted: 1, defined: 2, undefined: 3 }), detail: reserved }),
  ),
  update: event(1, 377, struct({ callbackId, device: nodeDevice })),
} as const;

export const secretEvents = {
  lifecycle: event(0, 382, struct({ callbackId, secret, event: named({ defined: 0, undefined: 1 }), detail: reserved })),
  valueChanged: event(1, 383, struct({ callbackId, secret })),
} as const;

/** Of the program QEMU: what a guest's QEMU says on its monitor, of all kinds. */
export const monitorEvents = {
  /** `details` is JSON. The time is QEMU's: seconds since 1970, and microseconds. */
  monitor: event(0, 6, struct({ callbackId, domain, event: text, seconds: i64Number, microseconds: u32, details: textOptional })),
} as const;

type EventsOf<T extends Readonly<Record<string, EventEntry<AnyCodec>>>> = {
  readonly [K in keyof T]: { readonly kind: K } & Decoded<T[K]['message']>;
};

export type DomainEventKind = keyof typeof domainEvents;
export type DomainEventOf<K extends DomainEventKind> = EventsOf<typeof domainEvents>[K];
export type DomainEvent = DomainEventOf<DomainEventKind>;
export type NetworkEventKind = keyof typeof networkEvents;
export type NetworkEventOf<K extends NetworkEventKind> = EventsOf<typeof networkEvents>[K];
export type NetworkEvent = NetworkEventOf<NetworkEventKind>;
export type StoragePoolEvent = EventsOf<typeof storagePoolEvents>[keyof typeof storagePoolEvents];
export type NodeDeviceEvent = EventsOf<typeof nodeDeviceEvents>[keyof typeof nodeDeviceEvents];
export type SecretEvent = EventsOf<typeof secretEvents>[keyof typeof secretEvents];
export type MonitorEvent = EventsOf<typeof monitorEvents>[keyof typeof monitorEvents];

/** Events are missing here. */
export interface Gap {
  readonly kind: 'gap';
  /** `overflow`: the reader was too slow. `reconnected`: the connection was lost and is there again. */
  readonly because: 'overflow' | 'reconnected';
  /** How many, where that is known. */
  readonly lost: number | undefined;
}

/** Ends when closed by its reader or by close() of the connection; throws `Disconnected` when the connection is lost for good. */
export interface EventStream<E> extends AsyncIterableIterator<E | Gap, undefined> {
  /** Stops listening. What waits is dropped. Also what leaving a `for await` does. */
  close(): Promise<void>;
}

/** An event is some hundred bytes. A peer may make them of megabytes, and then fewer wait. */
const queuedBytesMax = 16_777_216;

interface Waiter<E> {
  readonly resolve: (result: IteratorResult<E | Gap, undefined>) => void;
  readonly reject: (error: Error) => void;
}

/** Between the connection, which pushes, and one reader. */
export class EventQueue<E> implements EventStream<E> {
  readonly #queuedMax: number;
  readonly #onClose: () => Promise<void>;
  #queued: { readonly value: E | Gap; readonly bytes: number }[] = [];
  #queuedBytes = 0;
  /** The gap at the end of the queue, while events are still being lost. */
  #overflow: { kind: 'gap'; because: 'overflow'; lost: number } | undefined;
  #waiters: Waiter<E>[] = [];
  #ended: { readonly error: Error | undefined } | undefined;

  constructor(queuedMax: number, onClose: () => Promise<void>) {
    this.#queuedMax = queuedMax;
    this.#onClose = onClose;
  }

  /** `bytes`: how large it was on the wire. */
  push(event: E, bytes = 0): void {
    if (this.#ended !== undefined) return;
    const waiter = this.#waiters.shift();
    if (waiter !== undefined) return waiter.resolve({ done: false, value: event });
    if (this.#queued.length < this.#queuedMax && this.#queuedBytes + bytes <= queuedBytesMax) {
      this.#overflow = undefined;
      this.#queued.push({ value: event, bytes });
      this.#queuedBytes += bytes;
      return;
    }
    if (this.#overflow === undefined) {
      this.#overflow = { kind: 'gap', because: 'overflow', lost: 0 };
      this.#queued.push({ value: this.#overflow, bytes: 0 });
    }
    this.#overflow.lost += 1;
  }

  /** A gap always finds room; one that still waits at the end says it already. */
  reconnected(): void {
    if (this.#ended !== undefined) return;
    const gap: Gap = { kind: 'gap', because: 'reconnected', lost: undefined };
    const waiter = this.#waiters.shift();
    if (waiter !== undefined) return waiter.resolve({ done: false, value: gap });
    const last = this.#queued.at(-1)?.value;
    if (last !== undefined && isGap(last) && last.because === 'reconnected') return;
    this.#overflow = undefined;
    this.#queued.push({ value: gap, bytes: 0 });
  }

  /** What waits can still be read; then comes the error, once, or the end. */
  end(error: Error | undefined): void {
    if (this.#ended !== undefined) return;
    const [first, ...others] = this.#waiters;
    this.#waiters = [];
    this.#ended = { error: first === undefined ? error : undefined };
    if (first !== undefined && error !== undefined) first.reject(error);
    else first?.resolve({ done: true, value: undefined });
    for (const other of others) other.resolve({ done: true, value: undefined });
  }

  next(): Promise<IteratorResult<E | Gap, undefined>> {
    const first = this.#queued.shift();
    if (first !== undefined) {
      const { value } = first;
      this.#queuedBytes -= first.bytes;
      if (value === this.#overflow) this.#overflow = undefined;
      return Promise.resolve({ done: false, value });
    }
    if (this.#ended !== undefined) {
      const { error } = this.#ended;
      this.#ended = { error: undefined };
      return error === undefined ? Promise.resolve({ done: true, value: undefined }) : Promise.reject(error);
    }
    return new Promise((resolve, reject) => this.#waiters.push({ resolve, reject }));
  }

  async return(): Promise<IteratorResult<E | Gap, undefined>> {
    await this.close();
    return { done: true, value: undefined };
  }

  async close(): Promise<void> {
    const first = this.#ended === undefined;
    this.#queued = [];
    this.#queuedBytes = 0;
    this.end(undefined);
    if (first) await this.#onClose();
  }

  [Symbol.asyncIterator](): this {
    return this;
  }
}

function isGap(value: unknown): value is Gap {
  return (value as { kind?: unknown }).kind === 'gap';
}

const familyTables = {
  domain: domainEvents,
  network: networkEvents,
  storagePool: storagePoolEvents,
  nodeDevice: nodeDeviceEvents,
  secret: secretEvents,
  monitor: monitorEvents,
} as const;
export type EventFamily = keyof typeof familyTables;
const families = Object.keys(familyTables) as EventFamily[];

export interface EventKind {
  readonly family: EventFamily;
  readonly kind: string;
  readonly id: number;
  readonly message: AnyCodec;
  readonly since: string | undefined;
}

const kindByProcedure = { remote: new Map<number, EventKind>(), qemu: new Map<number, EventKind>() };
for (const family of families) {
  const table: Readonly<Record<string, EventEntry<AnyCodec>>> = familyTables[family];
  const byProcedure = kindByProcedure[family === 'monitor' ? 'qemu' : 'remote'];
  for (const [kind, { procedure, ...entry }] of Object.entries(table)) byProcedure.set(procedure, { family, kind, ...entry });
}

/** What a message of the program tells, if it is one of these events. */
export const eventKindOf = (program: 'remote' | 'qemu', procedure: number): EventKind | undefined => kindByProcedure[program].get(procedure);

export function eventKind(family: EventFamily, kind: string): EventKind {
  const table: Readonly<Record<string, EventEntry<AnyCodec>>> = familyTables[family];
  const entry = table[kind];
  if (entry === undefined) throw new TypeError(`${kind} is no event of a ${family}: ${Object.keys(table).join(', ')}`);
  return { family, kind, id: entry.id, message: entry.message, since: entry.since };
}

/** All kinds of a family. */
export const eventKinds = (family: EventFamily): readonly EventKind[] => Object.keys(familyTables[family]).map((kind) => eventKind(family, kind));
