/*
 * The procedures of libvirtd, as one table.
 *
 * An entry says everything about a procedure: its number, the layout of its arguments in wire order,
 * of its result, whether it runs in the daemon's high-priority lane, and the release that brought it.
 * Types, encoder and decoder of a call follow from it (`Calls` in connection.ts), and so does the
 * README's table. A further procedure is one further entry.
 *
 * Names are libvirt's own, in camel case: domainGetState is REMOTE_PROC_DOMAIN_GET_STATE, which
 * virDomainGetState calls; libvirt's reference of that function describes it.
 *
 * A procedure marked `low` may wait for a guest's monitor. The daemon has few workers for these and
 * more for those marked `high`, and rpc.ts keeps a place for the latter.
 */
import * as layout from './layouts.ts';
import { array, bool, choice, flags, hidden, i32, nothing, only, optional, struct, u32, u64Number } from './xdr.ts';
import type { AnyCodec, Codec, Fields, StructIn, StructOut } from './xdr.ts';
import { text, textOptional, noFlags, domain, network, storagePool, storageVolume, uuid } from './layouts.ts';

export const programs = { remote: 0x2000_8086, qemu: 0x2000_8087, keepalive: 0x6b65_6570 } as const;
export type Program = keyof typeof programs;
export type Priority = 'high' | 'low';
/** Who sends on the stream that a procedure opens. */
export type StreamDirection = 'up' | 'down' | 'both';

export interface Procedure<Args extends AnyCodec = AnyCodec, Result extends AnyCodec = AnyCodec, Stream extends StreamDirection | undefined = StreamDirection | undefined> {
  readonly program: 'remote' | 'qemu';
  readonly number: number;
  readonly args: Args;
  readonly result: Result;
  readonly priority: Priority;
  readonly stream: Stream;
  /** libvirt's release, where known. */
  readonly since: string | undefined;
}

interface More<Stream extends StreamDirection | undefined> {
  readonly priority?: Priority;
  readonly since?: string;
  readonly stream?: Stream;
}

function inProgram(program: 'remote' | 'qemu') {
  return <const F extends Fields, Result extends AnyCodec, const Stream extends StreamDirection | undefined = undefined>(
    number: number,
    args: F,
    result: Result,
    more: More<Stream> = {},
  ): Procedure<Codec<StructOut<F>, StructIn<F>>, Result, Stream> => ({
    program,
    number,
    args: struct(args),
    result,
    priority: more.priority ?? 'low',
    // Left out means undefined, which is then what Stream was inferred to be.
    stream: more.stream as Stream,
    since: more.since,
  });
}

const remote = inProgram('remote');
const qemu = inProgram('qemu');

/** libvirt's own limit for a bulk listing of domains, networks and pools. */
const listMax = 16_384;
/** Asks for the objects rather than for their count. */
const needResults = hidden(i32, 1);
const countOf = (member: string) => hidden(i32, (parent) => (parent[member] as readonly unknown[]).length);

const domainFilter = flags({
  active: 1 << 0,
  inactive: 1 << 1,
  persistent: 1 << 2,
  transient: 1 << 3,
  running: 1 << 4,
  paused: 1 << 5,
  shutoff: 1 << 6,
  other: 1 << 7,
  managedSave: 1 << 8,
  noManagedSave: 1 << 9,
  autostart: 1 << 10,
  noAutostart: 1 << 11,
  hasSnapshot: 1 << 12,
  noSnapshot: 1 << 13,
  hasCheckpoint: 1 << 14,
  noCheckpoint: 1 << 15,
});

/** What a connection says for itself. Not for callers: connection.ts does it in the right order. */
export const sessionProcedures = {
  connectOpen: remote(1, { name: textOptional, flags: flags({ readOnly: 1 }) }, nothing, { priority: 'high' }),
  connectClose: remote(2, {}, nothing, { priority: 'high' }),
  authList: remote(66, {}, array(i32, 20), { priority: 'high' }),
  authPolkit: remote(70, {}, only('complete', { complete: bool }), { priority: 'high' }),
  connectDomainEventCallbackRegisterAny: remote(316, { eventId: i32, domain: optional(domain) }, i32, { priority: 'high', since: '1.2.1' }),
  connectDomainEventCallbackDeregisterAny: remote(317, { callbackId: i32 }, nothing, { priority: 'high', since: '1.2.1' }),
  connectNetworkEventRegisterAny: remote(313, { eventId: i32, network: optional(network) }, i32, { priority: 'high', since: '1.2.1' }),
  connectNetworkEventDeregisterAny: remote(314, { callbackId: i32 }, nothing, { priority: 'high', since: '1.2.1' }),
  connectRegisterCloseCallback: remote(360, {}, nothing, { priority: 'high', since: '1.3.2' }),
  networkUpdateOnWire: remote(
    291,
    { network, command: u32, section: u32, parentIndex: i32, xml: text, flags: layout.affect },
    nothing,
    { priority: 'high', since: '0.10.2' },
  ),
} as const;

export const procedures = {
  // --- Connection and node -------------------------------------------------------------------

  /** The driver's name: `QEMU`, `Test`. */
  connectGetType: remote(3, {}, text, { priority: 'high' }),
  /** The hypervisor's version, major * 1,000,000 + minor * 1,000 + release. */
  connectGetVersion: remote(4, {}, u64Number, { priority: 'high' }),
  /** libvirt's own version, counted in the same way. */
  connectGetLibVersion: remote(157, {}, u64Number, { priority: 'high', since: '0.7.3' }),
  connectGetHostname: remote(59, {}, text, { priority: 'high' }),
  connectGetUri: remote(110, {}, text, { priority: 'high' }),
  /** Whether the driver has a feature, by its internal number. */
  connectSupportsFeature: remote(60, { feature: i32 }, bool, { priority: 'high' }),
  /** XML `<capabilities>`. It lists KVM even where no guest can run under it. */
  connectGetCapabilities: remote(7, {}, text),
  /** XML `<domainCapabilities>` for one emulator, architecture, machine and kind of virtualisation. */
  connectGetDomainCapabilities: remote(
    342,
    { emulator: textOptional, architecture: textOptional, machine: textOptional, virtualisation: textOptional, flags: noFlags },
    text,
    { since: '1.2.7' },
  ),
  nodeGetInfo: remote(6, {}, layout.nodeInfo, { priority: 'high' }),
  /** Bytes. */
  nodeGetFreeMemory: remote(102, {}, u64Number, { priority: 'high' }),

  // --- Domains: find and describe ------------------------------------------------------------

  /** At most 16,384; with more the daemon answers an error. */
  connectListAllDomains: remote(
    273,
    { needResults, filter: domainFilter },
    only('domains', { domains: array(domain, listMax), count: countOf('domains') }),
    { priority: 'high', since: '0.9.13' },
  ),
  /**
   * Statistics of many domains in one call. Without `domains`, of all. `nowait` skips what would wait
   * for a guest that is busy or hung: use it always in a loop. See `domainStats` in stats.ts.
   */
  connectGetAllDomainStats: remote(
    344,
    {
      domains: array(domain, 4_096),
      groups: flags({ state: 1, cpu: 2, balloon: 4, vcpu: 8, interface: 16, block: 32, perf: 64, iothread: 128, memory: 256, dirtyrate: 512, vm: 1024 }),
      flags: flags({
        active: 1 << 0,
        inactive: 1 << 1,
        persistent: 1 << 2,
        transient: 1 << 3,
        running: 1 << 4,
        paused: 1 << 5,
        shutoff: 1 << 6,
        other: 1 << 7,
        nowait: 1 << 29,
        backing: 1 << 30,
        enforceGroups: 0x8000_0000,
      }),
    },
    array(struct({ domain, parameters: layout.typedParameters(65_536) }), listMax),
    { since: '1.2.8' },
  ),
  domainLookupByName: remote(23, { name: text }, domain, { priority: 'high' }),
  domainLookupByUuid: remote(24, { uuid }, domain, { priority: 'high' }),
  domainLookupById: remote(22, { id: i32 }, domain, { priority: 'high' }),
  domainGetState: remote(212, { domain, flags: noFlags }, layout.domainStateAndReason, { priority: 'high', since: '0.9.2' }),
  domainGetInfo: remote(16, { domain }, layout.domainInfo),
  domainGetXmlDesc: remote(14, { domain, flags: flags({ secure: 1, inactive: 2, updateCpu: 4, migratable: 8 }) }, text),
  domainIsActive: remote(150, { domain }, bool, { priority: 'high', since: '0.7.3' }),
  domainIsPersistent: remote(151, { domain }, bool, { priority: 'high', since: '0.7.3' }),
  domainGetAutostart: remote(15, { domain }, bool, { priority: 'high' }),
  domainSetAutostart: remote(29, { domain, autostart: bool }, nothing, { priority: 'high' }),
  /** `uri` names the element when `kind` is `element`. Error 80 (isNoMetadata) when there is none. */
  domainGetMetadata: remote(265, { domain, kind: choice(layout.metadataKinds, 'element'), uri: textOptional, flags: layout.affect }, text, { since: '0.9.10' }),
  /** Without `metadata`, removes it. `key` is the prefix under which an element is put. */
  domainSetMetadata: remote(
    264,
    { domain, kind: choice(layout.metadataKinds, 'element'), metadata: textOptional, key: textOptional, uri: textOptional, flags: layout.affect },
    nothing,
    { since: '0.9.10' },
  ),
  /** Addresses as the DHCP server (`lease`), the guest agent or the ARP table knows them. */
  domainInterfaceAddresses: remote(353, { domain, source: layout.addressSource, flags: noFlags }, layout.interfaceAddresses, { since: '1.2.14' }),

  // --- Domains: life -------------------------------------------------------------------------

  domainDefineXmlFlags: remote(350, { xml: text, flags: flags({ validate: 1 }) }, domain, { priority: 'high', since: '1.2.12' }),
  /** The events RESUMED and STARTED arrive before this call's reply. Of the result only `id` is the daemon's; name and UUID are those it was given. */
  domainCreateWithFlags: remote(
    196,
    { domain, flags: flags({ paused: 1, autodestroy: 2, bypassCache: 4, forceBoot: 8, validate: 16, resetNvram: 32 }) },
    domain,
    { since: '0.8.2' },
  ),
  /** Starts a transient domain: it is gone when it stops. */
  domainCreateXml: remote(10, { xml: text, flags: flags({ paused: 1, autodestroy: 2, bypassCache: 4, forceBoot: 8, validate: 16, resetNvram: 32 }) }, domain),
  /** Asks the guest; it may take its time or ignore it. */
  domainShutdownFlags: remote(258, { domain, modes: layout.shutdownModes }, nothing, { since: '0.9.10' }),
  domainReboot: remote(27, { domain, modes: layout.shutdownModes }, nothing),
  domainReset: remote(245, { domain, flags: noFlags }, nothing, { since: '0.9.7' }),
  domainSuspend: remote(34, { domain }, nothing),
  domainResume: remote(28, { domain }, nothing),
  /** `graceful` gives up rather than use SIGKILL. */
  domainDestroyFlags: remote(234, { domain, flags: flags({ graceful: 1, removeLogs: 2 }) }, nothing, { priority: 'high', since: '0.9.4' }),
  domainUndefineFlags: remote(
    231,
    { domain, flags: flags({ managedSave: 1, snapshotsMetadata: 2, nvram: 4, keepNvram: 8, checkpointsMetadata: 16, tpm: 32, keepTpm: 64 }) },
    nothing,
    { priority: 'high', since: '0.9.4' },
  ),

  // --- Domains: console ----------------------------------------------------------------------

  /** The console `device` (an alias such as `serial0`), else the first. `force` takes it from another client. */
  domainOpenConsole: remote(201, { domain, device: textOptional, flags: flags({ force: 1, safe: 2 }) }, nothing, { since: '0.8.6', stream: 'both' }),

  // --- Networks ------------------------------------------------------------------------------

  connectListAllNetworks: remote(
    283,
    { needResults, filter: flags({ inactive: 1, active: 2, persistent: 4, transient: 8, autostart: 16, noAutostart: 32 }) },
    only('networks', { networks: array(network, listMax), count: countOf('networks') }),
    { priority: 'high', since: '0.10.2' },
  ),
  networkLookupByName: remote(46, { name: text }, network, { priority: 'high' }),
  networkLookupByUuid: remote(47, { uuid }, network, { priority: 'high' }),
  /** With flags by `networkDefineXmlFlags`, since 7.7.0. */
  networkDefineXml: remote(41, { xml: text }, network, { priority: 'high' }),
  networkDefineXmlFlags: remote(432, { xml: text, flags: flags({ validate: 1 }) }, network, { priority: 'high', since: '7.7.0' }),
  networkCreate: remote(39, { network }, nothing),
  networkDestroy: remote(42, { network }, nothing, { priority: 'high' }),
  networkUndefine: remote(49, { network }, nothing, { priority: 'high' }),
  networkGetXmlDesc: remote(43, { network, flags: flags({ inactive: 1 }) }, text, { priority: 'high' }),
  networkGetBridgeName: remote(45, { network }, text, { priority: 'high' }),
  networkGetAutostart: remote(44, { network }, bool, { priority: 'high' }),
  networkSetAutostart: remote(48, { network, autostart: bool }, nothing, { priority: 'high' }),
  networkIsActive: remote(152, { network }, bool, { priority: 'high', since: '0.7.3' }),
  networkIsPersistent: remote(153, { network }, bool, { priority: 'high', since: '0.7.3' }),
  networkGetDhcpLeases: remote(
    341,
    { network, mac: textOptional, needResults, flags: noFlags },
    only('leases', { leases: array(layout.dhcpLease, 65_536), count: countOf('leases') }),
    { since: '1.2.6' },
  ),

  // --- Storage -------------------------------------------------------------------------------

  connectListAllStoragePools: remote(
    281,
    { needResults, filter: flags({ inactive: 1, active: 2, persistent: 4, transient: 8, autostart: 16, noAutostart: 32 }) },
    only('pools', { pools: array(storagePool, listMax), count: countOf('pools') }),
    { priority: 'high', since: '0.10.2' },
  ),
  storagePoolLookupByName: remote(84, { name: text }, storagePool, { priority: 'high' }),
  storagePoolLookupByUuid: remote(85, { uuid }, storagePool, { priority: 'high' }),
  storagePoolDefineXml: remote(77, { xml: text, flags: flags({ validate: 1 }) }, storagePool, { priority: 'high' }),
  storagePoolBuild: remote(79, { pool: storagePool, flags: flags({ repair: 1, resize: 2, noOverwrite: 4, overwrite: 8 }) }, nothing),
  storagePoolCreate: remote(78, { pool: storagePool, flags: flags({ build: 1, buildOverwrite: 2, buildNoOverwrite: 4 }) }, nothing),
  storagePoolDestroy: remote(80, { pool: storagePool }, nothing, { priority: 'high' }),
  storagePoolDelete: remote(81, { pool: storagePool, flags: flags({ zeroed: 1 }) }, nothing),
  storagePoolUndefine: remote(82, { pool: storagePool }, nothing, { priority: 'high' }),
  storagePoolRefresh: remote(83, { pool: storagePool, flags: noFlags }, nothing),
  storagePoolGetInfo: remote(87, { pool: storagePool }, layout.storagePoolInfo, { priority: 'high' }),
  storagePoolGetXmlDesc: remote(88, { pool: storagePool, flags: flags({ inactive: 1 }) }, text, { priority: 'high' }),
  storagePoolListAllVolumes: remote(
    282,
    { pool: storagePool, needResults, flags: noFlags },
    only('volumes', { volumes: array(storageVolume, listMax), count: countOf('volumes') }),
    { priority: 'high', since: '0.10.2' },
  ),
  /** Write `<target><compat>1.1</compat>` for a qcow2 volume: the default of old has no persistent bitmaps. */
  storageVolCreateXml: remote(93, { pool: storagePool, xml: text, flags: flags({ preallocateMetadata: 1, reflink: 2, validate: 4 }) }, storageVolume),
  storageVolLookupByName: remote(95, { pool: storagePool, name: text }, storageVolume, { priority: 'high' }),
  storageVolLookupByPath: remote(97, { path: text }, storageVolume, { priority: 'high' }),
  storageVolDelete: remote(94, { volume: storageVolume, flags: flags({ zeroed: 1, withSnapshots: 2 }) }, nothing),
  storageVolGetInfo: remote(98, { volume: storageVolume }, layout.storageVolumeInfo, { priority: 'high' }),
  storageVolGetXmlDesc: remote(99, { volume: storageVolume, flags: noFlags }, text, { priority: 'high' }),
  storageVolGetPath: remote(100, { volume: storageVolume }, text, { priority: 'high' }),

  // --- Program QEMU: not part of the stable API, see libvirt's documentation -------------------

  /** A QMP command as JSON, or text for `hmp`. Changing commands behind libvirt's back is not supported by it. */
  domainMonitorCommand: qemu(1, { domain, command: text, flags: flags({ hmp: 1 }) }, text, { since: '0.8.3' }),
  /**
   * A command of the guest agent as JSON; its answer as JSON. `timeout`: seconds; -1 the daemon's own
   * default (5 s), -2 for ever, 0 not at all.
   */
  domainAgentCommand: qemu(3, { domain, command: text, timeout: layout.agentTimeout, flags: noFlags }, textOptional, { since: '0.10.0' }),
} as const;

export type Procedures = typeof procedures;
export type ProcedureName = keyof Procedures;
