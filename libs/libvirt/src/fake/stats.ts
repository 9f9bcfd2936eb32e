/*
 * What a domain has used. Nothing counts: each number is a rate, which follows from the seed and the
 * domain, times how long the domain has run.
 */
import { chance } from './clock.ts';
import { stateNumbers } from './words.ts';
import type { FakeDomain, FakeNode } from './node.ts';
import { fileSizeOrUsual } from './storage.ts';

export type Field = { readonly i32: number } | { readonly u32: number } | { readonly u64: bigint } | { readonly string: string };

/** Milliseconds that it has run, without the times when it stood still. */
function ranMs(node: FakeNode, domain: FakeDomain): number {
  const load = node.loadOf(domain);
  return load === 0 ? 0 : Number(node.cpuTimeNs(domain)) / 1e6 / load;
}

const big = (value: number): bigint => BigInt(Math.floor(value));

export interface DiskCounters {
  readonly readRequests: bigint;
  readonly readBytes: bigint;
  readonly readNs: bigint;
  readonly writeRequests: bigint;
  readonly writeBytes: bigint;
  readonly writeNs: bigint;
  readonly flushes: bigint;
  readonly flushNs: bigint;
}

export function diskCounters(node: FakeNode, domain: FakeDomain, target: string): DiskCounters {
  const seconds = ranMs(node, domain) / 1_000;
  const busy = chance('disk', node.seed, domain.uuid, target);
  const reads = seconds * 40 * busy ** 2;
  const writes = seconds * 15 * busy;
  return {
    readRequests: big(reads), readBytes: big(reads) * 16_384n, readNs: big(reads) * 90_000n,
    writeRequests: big(writes), writeBytes: big(writes) * 8_192n, writeNs: big(writes) * 150_000n,
    flushes: big(writes / 10), flushNs: big(writes / 10) * 900_000n,
  };
}

export interface InterfaceCounters {
  readonly rxBytes: bigint;
  readonly rxPackets: bigint;
  readonly txBytes: bigint;
  readonly txPackets: bigint;
}

export function interfaceCounters(node: FakeNode, domain: FakeDomain, mac: string): InterfaceCounters {
  const seconds = ranMs(node, domain) / 1_000;
  const busy = chance('interface', node.seed, domain.uuid, mac);
  const rx = big(seconds * 60 * busy ** 2);
  const tx = big(seconds * 45 * busy ** 2);
  return { rxPackets: rx, rxBytes: rx * 420n, txPackets: tx, txBytes: tx * 310n };
}

export interface MemoryCounters {
  readonly currentKib: number;
  readonly maxKib: number;
  readonly unusedKib: number;
  readonly availableKib: number;
  readonly usableKib: number;
  readonly rssKib: number;
}

export function memoryCounters(node: FakeNode, domain: FakeDomain): MemoryCounters {
  const { facts } = domain;
  const used = 0.15 + 0.6 * chance('memory', node.seed, domain.uuid);
  const currentKib = facts.memoryKib;
  const availableKib = Math.floor(currentKib * 0.96);
  return { currentKib, maxKib: facts.memoryKibMax, availableKib, unusedKib: Math.floor(availableKib * (1 - used)), usableKib: Math.floor(availableKib * (1 - used * 0.8)), rssKib: Math.floor(currentKib * used) + 40_960 };
}

/** What there is; of the others libvirt says nothing, unless it is made to. */
export const groups: readonly string[] = ['state', 'cpu', 'balloon', 'vcpu', 'interface', 'block'];

/** The answer of connectGetAllDomainStats for one domain. `busy`: what would wait for its QEMU is left out. */
export function statsOf(node: FakeNode, domain: FakeDomain, groups: readonly string[], options: { readonly busy: boolean }): Record<string, Field> {
  const wanted = (group: string) => groups.length === 0 || groups.includes(group);
  const { facts } = domain;
  const active = domain.active;
  const fields: Record<string, Field> = {};
  if (wanted('state')) {
    const { state, reason } = stateNumbers(domain.state, domain.reason);
    fields['state.state'] = { i32: state };
    fields['state.reason'] = { i32: reason };
  }
  const cpuNs = active ? node.cpuTimeNs(domain) : 0n;
  if (wanted('cpu') && active) {
    fields['cpu.time'] = { u64: cpuNs };
    fields['cpu.user'] = { u64: (cpuNs * 6n) / 10n };
    fields['cpu.system'] = { u64: cpuNs - (cpuNs * 6n) / 10n };
  }
  if (wanted('balloon')) {
    const memory = memoryCounters(node, domain);
    fields['balloon.current'] = { u64: BigInt(memory.currentKib) };
    fields['balloon.maximum'] = { u64: BigInt(memory.maxKib) };
    if (active && !options.busy) {
      if (domain.agentConnected) {
        fields['balloon.unused'] = { u64: BigInt(memory.unusedKib) };
        fields['balloon.available'] = { u64: BigInt(memory.availableKib) };
        fields['balloon.usable'] = { u64: BigInt(memory.usableKib) };
      }
      fields['balloon.last-update'] = { u64: domain.agentConnected ? BigInt(Math.floor(node.clock.now() / 1_000)) : 0n };
      fields['balloon.rss'] = { u64: BigInt(memory.rssKib) };
    }
  }
  if (wanted('vcpu')) {
    fields['vcpu.current'] = { u32: facts.vcpus };
    fields['vcpu.maximum'] = { u32: facts.vcpusMax };
    if (active) {
      for (let index = 0; index < facts.vcpus; index += 1) {
        fields[`vcpu.${index}.state`] = { i32: 1 };
        fields[`vcpu.${index}.time`] = { u64: cpuNs / BigInt(facts.vcpus) };
        fields[`vcpu.${index}.wait`] = { u64: 0n };
        fields[`vcpu.${index}.delay`] = { u64: cpuNs / 50n / BigInt(facts.vcpus) };
      }
    }
  }
  if (wanted('interface') && active) {
    const all = node.interfacesOf(domain);
    fields['net.count'] = { u32: all.length };
    all.forEach((one, index) => {
      // One without an end on the node is only counted.
      if (one.device === '') return;
      const counters = interfaceCounters(node, domain, one.mac);
      const of = `net.${index}`;
      fields[`${of}.name`] = { string: one.device };
      fields[`${of}.rx.bytes`] = { u64: counters.rxBytes };
      fields[`${of}.rx.pkts`] = { u64: counters.rxPackets };
      fields[`${of}.rx.errs`] = { u64: 0n };
      fields[`${of}.rx.drop`] = { u64: 0n };
      fields[`${of}.tx.bytes`] = { u64: counters.txBytes };
      fields[`${of}.tx.pkts`] = { u64: counters.txPackets };
      fields[`${of}.tx.errs`] = { u64: 0n };
      fields[`${of}.tx.drop`] = { u64: 0n };
    });
  }
  if (wanted('block')) {
    fields['block.count'] = { u32: facts.disks.length };
    facts.disks.forEach((disk, index) => {
      const of = `block.${index}`;
      fields[`${of}.name`] = { string: disk.target };
      if (disk.chain[0] !== undefined) fields[`${of}.path`] = { string: disk.chain[0] };
      if (active && !options.busy) {
        fields[`${of}.backingIndex`] = { u32: index + 1 };
        const counters = diskCounters(node, domain, disk.target);
        fields[`${of}.rd.reqs`] = { u64: counters.readRequests };
        fields[`${of}.rd.bytes`] = { u64: counters.readBytes };
        fields[`${of}.rd.times`] = { u64: counters.readNs };
        fields[`${of}.wr.reqs`] = { u64: counters.writeRequests };
        fields[`${of}.wr.bytes`] = { u64: counters.writeBytes };
        fields[`${of}.wr.times`] = { u64: counters.writeNs };
        fields[`${of}.fl.reqs`] = { u64: counters.flushes };
        fields[`${of}.fl.times`] = { u64: counters.flushNs };
      }
      if (disk.chain[0] !== undefined) {
        const size = fileSizeOrUsual(node, disk.chain[0]);
        fields[`${of}.allocation`] = { u64: BigInt(size.allocation) };
        fields[`${of}.capacity`] = { u64: BigInt(size.capacity) };
        fields[`${of}.physical`] = { u64: BigInt(size.allocation) };
      }
    });
  }
  return fields;
}


