/*
 * The answer of connectGetAllDomainStats, which is a flat list of parameters such as `net.0.rx.bytes`,
 * as an object. What the daemon left out (a group not asked for, a guest that was busy under `nowait`,
 * a driver without it) is undefined. Counters of bytes and nanoseconds are bigint: they may exceed
 * 2^53; sizes in KiB and counts are numbers.
 */
import type { Domain, DomainState } from './layouts.ts';
import { domainStates, stateReason } from './layouts.ts';
import type { TypedParameters, TypedParameterValue } from './typed-parameters.ts';

export interface VcpuStats {
  /** `offline`, `running`, `blocked` as numbers 0, 1, 2. */
  readonly state: number | undefined;
  readonly timeNs: bigint | undefined;
  /** Nanoseconds it waited for a core. */
  readonly waitNs: bigint | undefined;
}

export interface InterfaceStats {
  /** The node's end, `vnet0`. */
  readonly name: string;
  readonly rxBytes: bigint | undefined;
  readonly rxPackets: bigint | undefined;
  readonly rxErrors: bigint | undefined;
  readonly rxDropped: bigint | undefined;
  readonly txBytes: bigint | undefined;
  readonly txPackets: bigint | undefined;
  readonly txErrors: bigint | undefined;
  readonly txDropped: bigint | undefined;
}

export interface BlockStats {
  /** The target, `vda`. */
  readonly name: string;
  readonly path: string | undefined;
  readonly readRequests: bigint | undefined;
  readonly readBytes: bigint | undefined;
  readonly readTimeNs: bigint | undefined;
  readonly writeRequests: bigint | undefined;
  readonly writeBytes: bigint | undefined;
  readonly writeTimeNs: bigint | undefined;
  readonly flushRequests: bigint | undefined;
  readonly flushTimeNs: bigint | undefined;
  /** Highest byte in use; of a file on the node. */
  readonly allocationBytes: bigint | undefined;
  /** The guest's size. */
  readonly capacityBytes: bigint | undefined;
  /** What the file takes on the node. */
  readonly physicalBytes: bigint | undefined;
}

export interface DomainStats {
  readonly domain: Domain;
  readonly state: DomainState | undefined;
  readonly reason: string | undefined;
  readonly cpuTimeNs: bigint | undefined;
  readonly cpuUserNs: bigint | undefined;
  readonly cpuSystemNs: bigint | undefined;
  readonly balloonKib: number | undefined;
  readonly balloonKibMax: number | undefined;
  /** By the guest's balloon driver: not used for anything, and free to be used at once. */
  readonly memoryKibUnused: number | undefined;
  readonly memoryKibUsable: number | undefined;
  readonly memoryKibAvailable: number | undefined;
  readonly memoryKibResident: number | undefined;
  readonly vcpus: number | undefined;
  readonly vcpusMax: number | undefined;
  readonly vcpuStats: readonly VcpuStats[];
  readonly interfaces: readonly InterfaceStats[];
  readonly blocks: readonly BlockStats[];
}

const big = (value: TypedParameterValue | undefined): bigint | undefined =>
  typeof value === 'bigint' ? value : typeof value === 'number' ? BigInt(Math.trunc(value)) : undefined;
const count = (value: TypedParameterValue | undefined): number | undefined =>
  typeof value === 'bigint' || typeof value === 'number' ? Number(value) : undefined;
const words = (value: TypedParameterValue | undefined): string | undefined => (typeof value === 'string' ? value : undefined);

/** More of one kind than any guest has: a count is the daemon's word, and is looped over. */
const devicesMax = 4_096;
const times = <T>(length: TypedParameterValue | undefined, of: (index: number) => T): T[] =>
  Array.from({ length: Math.min(devicesMax, Math.max(0, count(length) ?? 0)) }, (_, index) => of(index));

/** One element of the answer. */
export function domainStats({ domain, parameters: p }: { readonly domain: Domain; readonly parameters: TypedParameters }): DomainStats {
  const stateNumber = count(p['state.state']);
  const state = stateNumber === undefined ? undefined : (stateNames.get(stateNumber) ?? 'unknown');
  const reason = count(p['state.reason']);
  return {
    domain,
    state,
    reason: state === undefined || reason === undefined ? undefined : stateReason(state, reason),
    cpuTimeNs: big(p['cpu.time']),
    cpuUserNs: big(p['cpu.user']),
    cpuSystemNs: big(p['cpu.system']),
    balloonKib: count(p['balloon.current']),
    balloonKibMax: count(p['balloon.maximum']),
    memoryKibUnused: count(p['balloon.unused']),
    memoryKibUsable: count(p['balloon.usable']),
    memoryKibAvailable: count(p['balloon.available']),
    memoryKibResident: count(p['balloon.rss']),
    vcpus: count(p['vcpu.current']),
    vcpusMax: count(p['vcpu.maximum']),
    vcpuStats: times(p['vcpu.maximum'], (index) => ({
      state: count(p[`vcpu.${index}.state`]),
      timeNs: big(p[`vcpu.${index}.time`]),
      waitNs: big(p[`vcpu.${index}.wait`]),
    })),
    interfaces: times(p['net.count'], (index) => ({
      name: words(p[`net.${index}.name`]) ?? '',
      rxBytes: big(p[`net.${index}.rx.bytes`]),
      rxPackets: big(p[`net.${index}.rx.pkts`]),
      rxErrors: big(p[`net.${index}.rx.errs`]),
      rxDropped: big(p[`net.${index}.rx.drop`]),
      txBytes: big(p[`net.${index}.tx.bytes`]),
      txPackets: big(p[`net.${index}.tx.pkts`]),
      txErrors: big(p[`net.${index}.tx.errs`]),
      txDropped: big(p[`net.${index}.tx.drop`]),
    })),
    blocks: times(p['block.count'], (index) => ({
      name: words(p[`block.${index}.name`]) ?? '',
      path: words(p[`block.${index}.path`]),
      readRequests: big(p[`block.${index}.rd.reqs`]),
      readBytes: big(p[`block.${index}.rd.bytes`]),
      readTimeNs: big(p[`block.${index}.rd.times`]),
      writeRequests: big(p[`block.${index}.wr.reqs`]),
      writeBytes: big(p[`block.${index}.wr.bytes`]),
      writeTimeNs: big(p[`block.${index}.wr.times`]),
      flushRequests: big(p[`block.${index}.fl.reqs`]),
      flushTimeNs: big(p[`block.${index}.fl.times`]),
      allocationBytes: big(p[`block.${index}.allocation`]),
      capacityBytes: big(p[`block.${index}.capacity`]),
      physicalBytes: big(p[`block.${index}.physical`]),
    })),
  };
}

const stateNames = new Map<number, DomainState>(
  Object.entries(domainStates).map(([name, number]) => [number, name as keyof typeof domainStates]),
);
