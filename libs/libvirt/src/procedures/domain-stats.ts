/** Domains: statistics and jobs. */
import * as parameters from '../parameter-fields.ts';
import { domain, domainStateFlags, noFlags, text } from '../layouts.ts';
import { countOf, high, onlyStrings, remote, room } from '../procedure.ts';
import { typedParameterGroups, typedParameters } from '../typed-parameters.ts';
import { array, defaulted, flags, hidden, i32, i64, mapped, named, nothing, only, struct, u32, u64Number } from '../xdr.ts';

const jobTypes = named({ none: 0, bounded: 1, unbounded: 2, completed: 3, failed: 4, cancelled: 5 });

/** virDomainMemoryStatTags: positions in this list are the numbers. */
const memoryStatTags = [
  'swapInKib',
  'swapOutKib',
  'majorFaults',
  'minorFaults',
  'unusedKib',
  'availableKib',
  'balloonKib',
  'rssKib',
  'usableKib',
  'lastUpdateSeconds',
  'diskCachesKib',
  'hugetlbPageAllocations',
  'hugetlbPageFailures',
] as const;
export type MemoryStats = { readonly [K in (typeof memoryStatTags)[number]]?: number };

const memoryStats = mapped(array(struct({ tag: i32, value: u64Number }), 1_024), {
  decode: (stats): MemoryStats => Object.fromEntries(stats.flatMap(({ tag, value }) => (memoryStatTags[tag] === undefined ? [] : [[memoryStatTags[tag], value]]))),
  encode: (stats: MemoryStats) => memoryStatTags.flatMap((name, tag) => (stats[name] === undefined ? [] : [{ tag, value: stats[name] }])),
});

export const domainStatsProcedures = {
  /**
   * Statistics of many domains in one call. Without `domains`, of all. `nowait` skips what would wait
   * for a guest that is busy or hung: use it always in a loop. See `domainStats` in stats.ts.
   */
  connectGetAllDomainStats: remote(
    344,
    '1.2.8',
    {
      domains: defaulted(array(domain, 4_096), []),
      groups: flags({ state: 1, cpu: 2, balloon: 4, vcpu: 8, interface: 16, block: 32, perf: 64, iothread: 128, memory: 256, dirtyrate: 512, vm: 1024 }),
      flags: flags({
        ...domainStateFlags,
        nowait: 1 << 29,
        backing: 1 << 30,
        enforceGroups: 0x8000_0000,
      }),
    },
    array(struct({ domain, parameters: typedParameters(65_536) }), 16_384),
  ),
  /**
   * Nanoseconds of CPU time. From `firstCpu` on, of `cpus` CPUs of the node, each `{ cpu_time, vcpu_time }`;
   * with -1, the default, one object for all: `{ cpu_time, user_time, system_time }`. `cpus: 0` with
   * `firstCpu: 0` asks only how many CPUs there are (`count`).
   */
  domainGetCpuStats: remote(
    262,
    '0.9.10',
    {
      domain,
      room: hidden(u32, (given) => (given['cpus'] === 0 ? 0 : 16)),
      firstCpu: defaulted(i32, -1),
      cpus: defaulted(u32, 1),
      flags: onlyStrings,
    },
    struct({ cpus: typedParameterGroups(2_048), count: i32 }),
  ),
  domainMemoryStats: remote(159, '0.7.5', { domain, room: room(1_024, u32), flags: noFlags }, memoryStats),
  /** Of a disk by target or path; all disks for an empty `path`. */
  domainBlockStatsFlags: remote(
    243,
    '0.9.5',
    { domain, path: text, room: room(16), flags: onlyStrings },
    only('stats', { stats: parameters.blockStats, count: countOf('stats') }),
  ),
  /** Counters; -1 where the driver has none. */
  domainBlockStats: remote(64, '0.3.2', { domain, path: text }, struct({ readRequests: i64, readBytes: i64, writeRequests: i64, writeBytes: i64, errors: i64 })),
  domainGetBlockInfo: remote(194, '0.8.1', { domain, path: text, flags: noFlags }, struct({ allocationBytes: u64Number, capacityBytes: u64Number, physicalBytes: u64Number })),
  /** Counters; -1 where the driver has none. */
  domainInterfaceStats: remote(
    65,
    '0.3.2',
    { domain, device: text },
    struct({ rxBytes: i64, rxPackets: i64, rxErrors: i64, rxDropped: i64, txBytes: i64, txPackets: i64, txErrors: i64, txDropped: i64 }),
    high,
  ),
  /** Only of disks that have had an error. */
  domainGetDiskErrors: remote(
    263,
    '0.9.10',
    { domain, room: room(256, u32), flags: noFlags },
    only('errors', { errors: array(struct({ disk: text, error: named({ none: 0, unspecified: 1, noSpace: 2 }) }), 256), count: countOf('errors') }),
  ),
  /** Times in milliseconds, amounts in bytes. */
  domainGetJobInfo: remote(
    163,
    '0.7.7',
    { domain },
    struct({
      type: jobTypes,
      timeElapsedMs: u64Number,
      timeRemainingMs: u64Number,
      dataTotal: u64Number,
      dataProcessed: u64Number,
      dataRemaining: u64Number,
      memoryTotal: u64Number,
      memoryProcessed: u64Number,
      memoryRemaining: u64Number,
      fileTotal: u64Number,
      fileProcessed: u64Number,
      fileRemaining: u64Number,
    }),
  ),
  /** `completed`: of the last job that ended; asking forgets it, unless `keepCompleted`. */
  domainGetJobStats: remote(298, '1.0.3', { domain, flags: flags({ completed: 1, keepCompleted: 2 }) }, struct({ type: jobTypes, stats: parameters.jobStats })),
  domainAbortJob: remote(164, '0.7.7', { domain }, nothing),
  /** `postcopy` interrupts a migration that is past the point of return: the domain is paused on both sides. */
  domainAbortJobFlags: remote(442, '8.5.0', { domain, flags: flags({ postcopy: 1 }) }, nothing),
  /** Measures for so many seconds; the result is in the statistics group `dirtyrate`. */
  domainStartDirtyRateCalc: remote(427, '7.2.0', { domain, seconds: i32, flags: flags({ dirtyBitmap: 1, dirtyRing: 2 }) }, nothing),
} as const;
