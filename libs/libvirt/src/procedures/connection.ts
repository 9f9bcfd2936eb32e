/** The connection itself, the node it leads to, its processors and its memory. */
import * as parameters from '../parameter-fields.ts';
import { cpuSet, charsText, noFlags, nodeInfo, text, textOptional } from '../layouts.ts';
import { countOf, high, needResults, onlyStrings, remote, room } from '../procedure.ts';
import { array, bool, choice, defaulted, flags, hidden, i32, mapped, named, nothing, only, struct, u32, u64, u64Number } from '../xdr.ts';

const compareFlags = flags({ failIncompatible: 1, validateXml: 2 });
const baselineFlags = flags({ expandFeatures: 1, migratable: 2, ignoreHost: 4 });
const comparison = named({ incompatible: 0, identical: 1, superset: 2 });
const hypervisor = { emulator: textOptional, architecture: textOptional, machine: textOptional, virtualisation: textOptional };

/** Fields with 64-bit values, as an object: an older form of typed parameters. */
const counters = mapped(array(struct({ field: text, value: u64 }), 16), {
  decode: (fields): Readonly<Record<string, bigint>> => Object.assign(Object.create(null) as Record<string, bigint>, Object.fromEntries(fields.map(({ field, value }) => [field, value]))),
  encode: (value: Readonly<Record<string, bigint>>) => Object.entries(value).map(([field, one]) => ({ field, value: one })),
});
const sizes = mapped(counters, {
  decode: (fields): Readonly<Record<string, number>> => Object.assign(Object.create(null) as Record<string, number>, Object.fromEntries(Object.entries(fields).map(([field, value]) => [field, Number(value)]))),
  encode: (value: Readonly<Record<string, number>>) => Object.fromEntries(Object.entries(value).map(([field, one]) => [field, BigInt(one)])),
});

export const connectionProcedures = {
  /** The driver's name: `QEMU`, `TEST`. */
  connectGetType: remote(3, '0.0.3', {}, text, high),
  /** The hypervisor's version, major * 1,000,000 + minor * 1,000 + release. */
  connectGetVersion: remote(4, '0.0.3', {}, u64Number, high),
  /** libvirt's own version, counted in the same way. */
  connectGetLibVersion: remote(157, '0.7.3', {}, u64Number, high),
  connectGetHostname: remote(59, '0.3.0', {}, text, high),
  connectGetUri: remote(110, '0.3.0', {}, text, high),
  connectIsSecure: remote(149, '0.7.3', {}, bool, high),
  /** Whether the driver has a feature, by its internal number. */
  connectSupportsFeature: remote(60, '0.3.2', { feature: i32 }, bool, high),
  /** SMBIOS tables as XML `<sysinfo>`. */
  connectGetSysinfo: remote(203, '0.8.8', { flags: noFlags }, text, high),
  /** For proxies: on whose behalf the connection speaks. Only a daemon's own proxy may say so. */
  connectSetIdentity: remote(419, '5.8.0', { parameters: parameters.identityParameters, flags: noFlags }, nothing),
  /** The most vCPUs that a domain of the kind can have. */
  connectGetMaxVcpus: remote(5, '0.2.1', { virtualisation: textOptional }, i32, high),
  /** XML `<capabilities>`. It lists KVM even where no guest can run under it. */
  connectGetCapabilities: remote(7, '0.2.1', {}, text),
  /** XML `<domainCapabilities>` for one emulator, architecture, machine and kind of virtualisation. */
  connectGetDomainCapabilities: remote(342, '1.2.7', { ...hypervisor, flags: flags({ disableDeprecatedFeatures: 1, expandCpuFeatures: 2, supportedCpuFeatures: 4 }) }, text),
  /** Names of the CPU models that libvirt knows for an architecture. */
  connectGetCpuModelNames: remote(312, '1.1.3', { architecture: text, needResults, flags: noFlags }, only('models', { models: array(text, 8_192), count: countOf('models') })),
  /** The CPU described by XML `<cpu>` against the node's. `failIncompatible` makes the daemon's error say why. */
  connectCompareCpu: remote(158, '0.7.5', { xml: text, flags: compareFlags }, comparison),
  /** The CPU described by XML `<cpu>` against what the hypervisor can give a guest. */
  connectCompareHypervisorCpu: remote(393, '4.4.0', { ...hypervisor, xml: text, flags: compareFlags }, comparison),
  /** XML `<cpu>` of what several nodes have in common. */
  connectBaselineCpu: remote(162, '0.7.7', { cpus: array(text, 256), flags: baselineFlags }, text),
  connectBaselineHypervisorCpu: remote(394, '4.4.0', { ...hypervisor, cpus: array(text, 256), flags: baselineFlags }, text),
  /** A hypervisor's own configuration (`qemu-argv`) as domain XML. */
  connectDomainXmlFromNative: remote(135, '0.6.4', { format: text, config: text, flags: noFlags }, text),
  connectDomainXmlToNative: remote(136, '0.6.4', { format: text, xml: text, flags: noFlags }, text),

  nodeGetInfo: remote(6, '0.1.0', {}, nodeInfo, high),
  /** Bytes. */
  nodeGetFreeMemory: remote(102, '0.3.3', {}, u64Number, high),
  /** Bytes, of each NUMA cell from `first` on. */
  nodeGetCellsFreeMemory: remote(101, '0.3.3', { first: defaulted(i32, 0), cells: defaulted(i32, 1_024) }, array(u64Number, 1_024), high),
  /**
   * Free pages of each size (KiB) in each of `cellCount` NUMA cells from `first` on, one cell after the other.
   */
  nodeGetFreePages: remote(
    340,
    '1.2.6',
    { pageKib: array(u32, 1_024), first: defaulted(i32, 0), cellCount: defaulted(u32, 1), flags: noFlags },
    array(u64Number, 1_024),
    high,
  ),
  /** Adds huge pages (`set`: so many and no more). The result is how many kinds were changed. */
  nodeAllocPages: remote(
    347,
    '1.2.9',
    { pageKib: array(u32, 1_024), counts: array(u64Number, 1_024), first: defaulted(i32, 0), cellCount: defaulted(u32, 1), flags: flags({ set: 1 }) },
    i32,
  ),
  /** Nanoseconds since the node started (`kernel`, `user`, `idle`, `iowait`), of one CPU, or of all: -1, the default. */
  nodeGetCpuStats: remote(227, '0.9.3', { cpu: defaulted(i32, -1), count: defaulted(i32, 0), flags: noFlags }, struct({ stats: counters, count: i32 }), { ...high, countFirst: true }),
  /** KiB (`total`, `free`, and of the whole node `buffers`, `cached`), of one NUMA cell, or of all: -1, the default. */
  nodeGetMemoryStats: remote(228, '0.9.3', { count: defaulted(i32, 0), cell: defaulted(i32, -1), flags: noFlags }, struct({ stats: sizes, count: i32 }), { ...high, countFirst: true }),
  /** The numbers of the CPUs that are online, and how many there are at all. */
  nodeGetCpuMap: remote(
    293,
    '1.0.0',
    { needMap: hidden(i32, 1), needOnline: hidden(i32, 1), flags: noFlags },
    struct({ online: cpuSet, onlineCount: u32, count: i32 }),
  ),
  nodeGetMemoryParameters: remote(289, '0.10.2', { room: room(64), flags: onlyStrings }, only('parameters', { parameters: parameters.nodeMemoryParameters, count: countOf('parameters') })),
  nodeSetMemoryParameters: remote(288, '0.10.2', { parameters: parameters.nodeMemoryParameters, flags: noFlags }, nothing),
  /** `none` has empty texts. */
  nodeGetSecurityModel: remote(122, '0.6.1', {}, struct({ model: charsText, doi: charsText }), high),
  /** Puts the node itself to sleep for so many seconds (60 at least). */
  nodeSuspendForDuration: remote(250, '0.9.8', { target: choice({ memory: 0, disk: 1, hybrid: 2 }, 'memory', u32), seconds: u64Number, flags: noFlags }, nothing),
  nodeGetSevInfo: remote(395, '4.5.0', { room: room(64), flags: noFlags }, only('parameters', { parameters: parameters.sevInfo, count: countOf('parameters') })),
} as const;

