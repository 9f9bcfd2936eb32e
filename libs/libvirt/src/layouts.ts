/*
 * What libvirt's messages are made of: handles, typed parameters, the error. The layouts are facts of
 * the protocol (support statement "RPC protocol": a stable ABI that only grows); limits are those that
 * the daemon keeps to.
 */
import { array, bytes, charArrayText, choice, defaulted, flags, hidden, i32, i64Number, mapped, named, optional, string, struct, u32, u64, u64Number, XdrError } from './xdr.ts';
import type { Codec, Decoded } from './xdr.ts';

const hex = /^[0-9a-f]{32}$/;

/** 16 bytes on the wire; the usual text with hyphens here. */
export const uuid: Codec<string> = {
  bytesMin: 16,
  write: (writer, value) => {
    const digits = value.replaceAll('-', '').toLowerCase();
    if (!hex.test(digits)) throw new XdrError(`"${value}" is not a UUID`);
    writer.fixedBytes(Buffer.from(digits, 'hex'));
  },
  read: (reader) => {
    const digits = reader.fixedBytes(16).toString('hex');
    return `${digits.slice(0, 8)}-${digits.slice(8, 12)}-${digits.slice(12, 16)}-${digits.slice(16, 20)}-${digits.slice(20)}`;
  },
};

export const text = string();
export const textOptional = optional(text);
/** Of which domains: both listings begin their flags with these. */
export const domainStateFlags = { active: 1 << 0, inactive: 1 << 1, persistent: 1 << 2, transient: 1 << 3, running: 1 << 4, paused: 1 << 5, shutoff: 1 << 6, other: 1 << 7 } as const;
/** Most procedures have a word of flags of which none is defined yet. */
export const noFlags = hidden(flags({}), []);

/** A domain as libvirt names it. `id` is -1 while it does not run. A plain value: it holds nothing open. */
export interface Domain {
  readonly name: string;
  readonly uuid: string;
  readonly id: number;
}

/** Which domain is meant: the daemon goes by the UUID; name and id are along for its messages. */
export interface DomainRef {
  readonly uuid: string;
  readonly name?: string;
  readonly id?: number;
}

const domainFields = struct({ name: text, uuid, id: i32 });

export const domain: Codec<Domain, DomainRef> = mapped(domainFields, {
  decode: (value) => value,
  // The name must not be empty: newer daemons check it before they look the UUID up.
  encode: (value: DomainRef) => ({ name: value.name ?? value.uuid, uuid: value.uuid, id: value.id ?? -1 }),
});

/** A network, storage pool or filter. A plain value: it holds nothing open. */
export interface Named {
  readonly name: string;
  readonly uuid: string;
}

/** Which network, pool or filter is meant: the daemon goes by the UUID. */
export interface NamedRef {
  readonly uuid: string;
  readonly name?: string;
}

export type Network = Named;
export type NetworkRef = NamedRef;
export type StoragePool = Named;
export type StoragePoolRef = NamedRef;

const namedFields = struct({ name: text, uuid });
const namedObject: Codec<Named, NamedRef> = mapped(namedFields, {
  decode: (value) => value,
  encode: (value: NamedRef) => ({ name: value.name ?? value.uuid, uuid: value.uuid }),
});

export const network: Codec<Network, NetworkRef> = namedObject;
export const storagePool: Codec<StoragePool, StoragePoolRef> = namedObject;

export type Filter = Named;
export type FilterRef = NamedRef;
export const filter: Codec<Filter, FilterRef> = namedObject;

/** A storage volume; the daemon goes by the key, or by pool and name. */
export const storageVolume = struct({ pool: text, name: text, key: text });
export type StorageVolume = Decoded<typeof storageVolume>;

/** A point of a domain's life that was kept; the daemon goes by the domain and the name. */
export interface DomainPoint {
  readonly name: string;
  readonly domain: Domain;
}
export interface DomainPointRef {
  readonly name: string;
  readonly domain: DomainRef;
}
const domainPoint: Codec<DomainPoint, DomainPointRef> = struct({ name: text, domain });

export type Snapshot = DomainPoint;
export type SnapshotRef = DomainPointRef;
export const snapshot = domainPoint;
export type Checkpoint = DomainPoint;
export type CheckpointRef = DomainPointRef;
export const checkpoint = domainPoint;

/** An interface of the node; the daemon goes by the name. */
export interface NodeInterface {
  readonly name: string;
  readonly mac: string;
}
export const nodeInterface: Codec<NodeInterface, { readonly name: string; readonly mac?: string }> = mapped(struct({ name: text, mac: text }), {
  decode: (value) => value,
  encode: (value: { readonly name: string; readonly mac?: string }) => ({ name: value.name, mac: value.mac ?? '' }),
});

export const nodeDevice = struct({ name: text });
export type NodeDevice = Decoded<typeof nodeDevice>;

/** virSecretUsageType. */
export const secretUsages = { none: 0, volume: 1, ceph: 2, iscsi: 3, tls: 4, vtpm: 5 } as const;
const secretFields = struct({ uuid, usage: named(secretUsages), usageId: text });
export type Secret = Decoded<typeof secretFields>;
/** Which secret is meant: the daemon goes by the UUID. */
export interface SecretRef {
  readonly uuid: string;
  readonly usage?: keyof typeof secretUsages | 'unknown';
  readonly usageId?: string;
}
export const secret: Codec<Secret, SecretRef> = mapped(secretFields, {
  decode: (value) => value,
  encode: (value: SecretRef) => ({ uuid: value.uuid, usage: value.usage === undefined || value.usage === 'unknown' ? ('none' as const) : value.usage, usageId: value.usageId ?? '' }),
});

/** A guest's plug in a network. */
export interface NetworkPort {
  readonly network: Network;
  readonly uuid: string;
}
export const networkPort: Codec<NetworkPort, { readonly network: NetworkRef; readonly uuid: string }> = struct({ network, uuid });

/** Which filter stands before a device of the node. The daemon goes by the device. */
export interface FilterBinding {
  readonly portDevice: string;
  readonly filter: string;
}
export const filterBinding: Codec<FilterBinding, { readonly portDevice: string; readonly filter?: string }> = mapped(
  struct({ portDevice: text, filter: text }),
  {
    decode: (value) => value,
    encode: (value: { readonly portDevice: string; readonly filter?: string }) => ({ portDevice: value.portDevice, filter: value.filter ?? '' }),
  },
);

/** Numbers of CPUs, as a map of bits on the wire: 1,024 CPUs at most. */
export const cpuMapBytes = 128;
function cpusOf(map: Uint8Array): number[] {
  const cpus: number[] = [];
  for (let cpu = 0; cpu < map.length * 8; cpu += 1) if (((map[cpu >> 3] ?? 0) & (1 << (cpu & 7))) !== 0) cpus.push(cpu);
  return cpus;
}
function mapOf(cpus: readonly number[]): Buffer {
  const map = Buffer.alloc(Math.floor(cpus.reduce((most, cpu) => Math.max(most, cpu), 0) / 8) + 1);
  for (const cpu of cpus) {
    if (!Number.isInteger(cpu) || cpu < 0 || cpu >= cpuMapBytes * 8) throw new XdrError(`${cpu} is not the number of a CPU`);
    map[cpu >> 3] = (map[cpu >> 3] as number) | (1 << (cpu & 7));
  }
  return map;
}
export const cpuSet: Codec<number[], readonly number[]> = mapped(bytes(2_048), { decode: cpusOf, encode: mapOf });

/** Maps of `cpuMapBytes` each, one behind the other. */
export const cpuSets: Codec<number[][], readonly (readonly number[])[]> = mapped(bytes(8_388_608), {
  decode: (maps) => Array.from({ length: Math.floor(maps.length / cpuMapBytes) }, (_, index) => cpusOf(maps.subarray(index * cpuMapBytes, (index + 1) * cpuMapBytes))),
  encode: (sets: readonly (readonly number[])[]) => {
    const maps = Buffer.alloc(sets.length * cpuMapBytes);
    sets.forEach((cpus, index) => maps.set(mapOf(cpus), index * cpuMapBytes));
    return maps;
  },
});

/** Text whose every byte takes four on the wire (`char<>`), up to its first zero. */
export const charsText: Codec<string> = mapped(array(i32, 4_096), {
  decode: (characters) => {
    const end = characters.indexOf(0);
    return Buffer.from((end === -1 ? characters : characters.slice(0, end)).map((character) => character & 0xff)).toString('utf8');
  },
  encode: (value: string) => [...Buffer.from(value), 0],
});

/** What a reply (or stream packet) of status ERROR carries. `message` is for people; `text1` may be a pattern. */
export const remoteError = struct({
  code: i32,
  domain: i32,
  message: textOptional,
  level: i32,
  object: optional(domainFields),
  text1: textOptional,
  text2: textOptional,
  text3: textOptional,
  number1: i32,
  number2: i32,
  network: optional(namedFields),
});
export type RemoteError = Decoded<typeof remoteError>;

export const domainStates = { nostate: 0, running: 1, blocked: 2, paused: 3, shutdown: 4, shutoff: 5, crashed: 6, pmsuspended: 7 } as const;
export type DomainState = keyof typeof domainStates | 'unknown';

/** Why a domain is in its state, for each state; the numbers are positions in these lists. */
const stateReasons: Readonly<Record<DomainState, readonly string[]>> = {
  unknown: [],
  nostate: ['unknown'],
  running: ['unknown', 'booted', 'migrated', 'restored', 'fromSnapshot', 'unpaused', 'migrationCanceled', 'saveCanceled', 'wakeup', 'crashed', 'postcopy', 'postcopyFailed'],
  blocked: ['unknown'],
  paused: ['unknown', 'user', 'migration', 'save', 'dump', 'ioerror', 'watchdog', 'fromSnapshot', 'shuttingDown', 'snapshot', 'crashed', 'startingUp', 'postcopy', 'postcopyFailed', 'apiError'],
  shutdown: ['unknown', 'user'],
  shutoff: ['unknown', 'shutdown', 'destroyed', 'crashed', 'migrated', 'saved', 'failed', 'fromSnapshot', 'daemon'],
  crashed: ['unknown', 'panicked'],
  pmsuspended: ['unknown'],
};

export const domainStateName = named(domainStates);

/** The word for a reason's number; `unknown` when the daemon is newer than this list. */
export function stateReason(state: DomainState, reason: number): string {
  return stateReasons[state][reason] ?? 'unknown';
}

export const domainStateAndReason = mapped(struct({ state: domainStateName, reason: i32 }), {
  decode: ({ state, reason }): { readonly state: DomainState; readonly reason: string } => ({ state, reason: stateReason(state, reason) }),
  encode: (value: { readonly state: keyof typeof domainStates; readonly reason: string }) => ({
    state: value.state,
    reason: Math.max(0, stateReasons[value.state].indexOf(value.reason)),
  }),
});

export const domainInfo = struct({
  state: domainStateName,
  memoryKibMax: u64Number,
  memoryKib: u64Number,
  vcpus: i32,
  /** Nanoseconds since the domain started. The test driver answers with the wall clock, beyond 2^53. */
  cpuTimeNs: u64,
});

export const nodeInfo = struct({
  model: charArrayText(32),
  /** Of NUMA node 0 in some versions: not the machine's MemTotal. */
  memoryKib: u64Number,
  cpus: i32,
  mhz: i32,
  numaNodes: i32,
  sockets: i32,
  cores: i32,
  threads: i32,
});

/** Which of a domain's two configurations a change is for; none is "whatever it is now". */
export const affect = flags({ live: 1, config: 2 });

export const metadataKinds = { description: 0, title: 1, element: 2 } as const;

export const interfaceAddresses = array(
  struct({
    name: text,
    mac: textOptional,
    addresses: array(struct({ kind: named({ ipv4: 0, ipv6: 1 }), address: text, prefix: u32 }), 2_048),
  }),
  2_048,
);

export const dhcpLease = struct({
  interface: text,
  /** Seconds since 1970, 0 when it never ends. */
  expiresAt: i64Number,
  kind: named({ ipv4: 0, ipv6: 1 }),
  mac: textOptional,
  iaid: textOptional,
  address: text,
  prefix: u32,
  hostname: textOptional,
  clientId: textOptional,
});

export const storagePoolInfo = struct({
  state: named({ inactive: 0, building: 1, running: 2, degraded: 3, inaccessible: 4 }),
  capacityBytes: u64Number,
  allocationBytes: u64Number,
  availableBytes: u64Number,
});

export const storageVolumeInfo = struct({
  kind: named({ file: 0, block: 1, directory: 2, network: 3, networkDirectory: 4, ploop: 5 }),
  capacityBytes: u64Number,
  allocationBytes: u64Number,
});

/** Signals for shutdown and reboot: without any, the driver chooses. */
export const shutdownModes = flags({ acpi: 1, agent: 2, initctl: 4, signal: 8, paravirt: 16 });

/** virNetworkUpdateCommand. */
export const networkUpdateCommands = { modify: 1, delete: 2, addLast: 3, addFirst: 4 } as const;
/** virNetworkUpdateSection. */
export const networkUpdateSections = {
  bridge: 1,
  domain: 2,
  ip: 3,
  ipDhcpHost: 4,
  ipDhcpRange: 5,
  forward: 6,
  forwardInterface: 7,
  forwardPf: 8,
  portgroup: 9,
  dnsHost: 10,
  dnsTxt: 11,
  dnsSrv: 12,
} as const;

export const addressSource = choice({ lease: 0, agent: 1, arp: 2 }, 'lease', u32);

/** Seconds that the daemon waits for the guest agent. */
export const agentTimeout = defaulted(i32, -1);
