import { describe, expect, it } from 'vitest';
import fc from 'fast-check';
import type { NodeId, PoolId } from '@chronovirt/contracts/ids';
import { isRefusal } from '@chronovirt/decider/decider';
import { nodePolicyDefault as policyDefault } from '@chronovirt/contracts/node/node.events';
import { type Candidate, poolFor, type Want } from './candidate.ts';
import { free } from './filters/free.ts';
import { place } from './place.ts';
import { filters } from './rules.ts';
import { spread } from './scorers/spread.ts';

const hex = (n: number): string => n.toString(16).padStart(32, '0');
const nodeOf = (n: number): NodeId => `node_${hex(n)}`;
const poolOf = (n: number): PoolId => `pool_${hex(n)}`;
const candidate = (n: number, changes: Partial<Candidate> = {}): Candidate => ({
  nodeId: nodeOf(n), version: 1, name: `rack-${String(n)}`, policy: policyDefault, session: 1, removed: false, silentSince: null, vcpusReserved: 0, memoryMibReserved: 0, measured: null,
  description: { hypervisor: 'simulated', accel: 'tcg', accelBecause: 'the CPU has neither vmx nor svm', cpus: 2, memoryMib: 2_560, versions: {} },
  pools: [{ poolId: poolOf(n), capacityGib: 10, overcommitPercent: 200, reservedGib: 0 }], ...changes,
});
const withUefi: Partial<Candidate> = { description: { hypervisor: 'qemu', accel: 'tcg', accelBecause: 'the CPU has neither vmx nor svm', cpus: 2, memoryMib: 2_560, versions: {}, features: ['uefi', 'uefi-secure'] } };
const want: Want = { vcpus: 1, memoryMib: 1_024, diskGib: 4, accel: 'any', nodeId: null };
const chosen = (...nodes: readonly Candidate[]): string => {
  const placed = place(nodes, want);
  return isRefusal(placed) ? placed.refused : placed.nodeId;
};

describe('Placement', () => {
  it('takes the node that is left with most of its scarcest', () => {
    expect(chosen(candidate(1, { memoryMibReserved: 512 }), candidate(2))).toBe(nodeOf(2));
    expect(chosen(candidate(1, { memoryMibReserved: 256 }), candidate(2, { vcpusReserved: 14 }))).toBe(nodeOf(1));
  });
  it('breaks ties by id, whatever the order', () => {
    expect(chosen(candidate(3), candidate(1), candidate(2))).toBe(nodeOf(1));
    expect(chosen(candidate(1), candidate(2), candidate(3))).toBe(nodeOf(1));
  });
  it('prefers the less busy of equals', () => {
    expect(chosen(candidate(1, { measured: { memoryUsedPercent: 10, loadPercent: 90 } }), candidate(2, { measured: { memoryUsedPercent: 10, loadPercent: 5 } }))).toBe(nodeOf(2));
  });
  it('names the pool with enough left', () => {
    const two = candidate(1, { pools: [{ poolId: poolOf(7), capacityGib: 10, overcommitPercent: 200, reservedGib: 17 }, { poolId: poolOf(8), capacityGib: 10, overcommitPercent: 200, reservedGib: 16 }] });
    expect(place([two], want)).toMatchObject({ nodeId: nodeOf(1), poolId: poolOf(8) });
  });
  it('says when no node has joined yet', () => { expect(place([], want)).toEqual({ refused: 'placement.no_host', because: { none: 'no node has joined yet' } }); });

  it.for([
    ['has no memory left', { memoryMibReserved: 1_536 }, {}, 'wants 1024 MiB of memory, 512 MiB are free'],
    ['has no CPUs left', { vcpusReserved: 16 }, {}, 'wants 1 vCPUs, 0 are free'],
    ['is overbooked since its limit was lowered', { vcpusReserved: 99 }, {}, 'wants 1 vCPUs, 0 are free'],
    ['has no disk left', { pools: [{ poolId: poolOf(1), capacityGib: 10, overcommitPercent: 200, reservedGib: 17 }] }, {}, 'wants 4 GiB of disk, no pool has as much free'],
    ['is silent', { silentSince: '2026-01-01T00:00:00.000Z' }, {}, 'is silent since 2026-01-01T00:00:00.000Z'],
    ['has never been seen', { description: null }, {}, 'has not said what it is yet'],
    ['was removed', { removed: true }, {}, 'was removed'],
    ['is in maintenance', { policy: { ...policyDefault, maintenance: true } }, {}, 'is in maintenance'],
    ['does not accept', { policy: { ...policyDefault, accepting: false } }, {}, 'does not accept automatic placements'],
    ['emulates', {}, { accel: 'require-kvm' }, 'has no KVM: enable VT-x/AMD-V in BIOS (node rack-1); the CPU has neither vmx nor svm'],
    ['has no UEFI', {}, { firmware: 'uefi' }, 'has no uefi: install the package ovmf there, and start its agent again'],
    ['has UEFI and no TPM', withUefi, { firmware: 'uefi-secure', tpm: true }, 'has no tpm: install the packages swtpm and swtpm-tools there, and start its agent again'],
    ['is loaded beyond the threshold', { policy: { ...policyDefault, loadPercentMax: 80 }, measured: { memoryUsedPercent: 1, loadPercent: 81 } }, {}, 'has a load of 81 %, the threshold is 80 %'],
    ['uses memory beyond the threshold', { policy: { ...policyDefault, memoryUsedPercentMax: 70 }, measured: { memoryUsedPercent: 71, loadPercent: 0 } }, {}, 'uses 71 % of its memory, the threshold is 70 %'],
    ['is not the one chosen by hand', {}, { nodeId: nodeOf(9) }, 'another node was chosen by hand'],
  ] as const)('turns down a node that %s, in words', ([, changes, wanted, because]) => {
    expect(place([candidate(1, changes)], { ...want, ...wanted })).toEqual({ refused: 'placement.no_host', because: { [nodeOf(1)]: `rack-1: ${because}` } });
  });
  it('takes one that does not accept when it is chosen by hand', () => {
    expect(place([candidate(1, { policy: { ...policyDefault, accepting: false } })], { ...want, nodeId: nodeOf(1) })).toMatchObject({ nodeId: nodeOf(1) });
  });
  it('does not ask again one that had no room', () => {
    expect(place([candidate(1), candidate(2)], want, new Set([nodeOf(1)]))).toMatchObject({ nodeId: nodeOf(2), decision: { turnedDown: { [nodeOf(1)]: 'rack-1: was asked and had no room' } } });
  });
  it('names the best 32, as sorting all of them would, in whatever order they come', () => {
    fc.assert(fc.property(fc.array(fc.nat(6), { minLength: 40, maxLength: 120 }), (reserved) => {
      const nodes = reserved.map((used, n) => candidate((n * 37) % 1_000, { memoryMibReserved: used * 100 }));
      const scoreOf = (node: Candidate): number => {
        const alone = place([node], want);
        return isRefusal(alone) ? Number.NaN : (alone.decision['scores'] as Record<string, number>)[node.nodeId] ?? Number.NaN;
      };
      const sorted = [...nodes].sort((a, b) => scoreOf(b) - scoreOf(a) || (a.nodeId < b.nodeId ? -1 : 1)).slice(0, 32).map(({ nodeId }) => nodeId);
      const placed = place(nodes, want);
      expect(isRefusal(placed) ? [] : Object.keys(placed.decision['scores'] as object)).toEqual(sorted);
    }), { numRuns: 50 });
  });
  it('names 32 nodes and counts the reasons of the others, so that its word stays small', () => {
    const many = Array.from({ length: 1_000 }, (_, n) => candidate(n + 1, { memoryMibReserved: 2_048 }));
    const refused = place(many, want);
    if (!isRefusal(refused)) throw new Error('somebody had room');
    expect(Object.keys(refused.because ?? {})).toHaveLength(33);
    expect(refused.because?.['others']).toEqual({ 'wants 1024 MiB of memory, 0 MiB are free': 968 });
  });

  const world = fc.record({
    nodes: fc.array(fc.record({ cpus: fc.integer({ min: 1, max: 4 }), memoryMib: fc.integer({ min: 600, max: 4_000 }), poolGib: fc.integer({ min: 1, max: 20 }) }), { minLength: 1, maxLength: 6 }),
    wants: fc.array(fc.record({ vcpus: fc.integer({ min: 1, max: 8 }), memoryMib: fc.integer({ min: 64, max: 1_500 }), diskGib: fc.integer({ min: 1, max: 8 }) }), { maxLength: 30 }),
  });

  it('one after another is a greedy: each on the best of those that keep within their limits, and refused only when none does', () => {
    fc.assert(fc.property(world, ({ nodes, wants }) => {
      let now: readonly Candidate[] = nodes.map(({ cpus, memoryMib, poolGib }, n) => {
        const plain = candidate(n + 1);
        return { ...plain, description: plain.description === null ? null : { ...plain.description, cpus, memoryMib }, pools: [{ poolId: poolOf(n + 1), capacityGib: poolGib, overcommitPercent: 100, reservedGib: 0 }] };
      });
      for (const one of wants) {
        const wanted: Want = { ...want, ...one };
        const open = now.filter((node) => filters.every((filter) => filter(node, wanted) === undefined));
        const best = [...open].sort((a, b) => spread(b, wanted) - spread(a, wanted) || (a.nodeId < b.nodeId ? -1 : 1))[0];
        const placed = place(now, wanted);
        if (isRefusal(placed)) {
          expect(open).toEqual([]);
          continue;
        }
        expect(placed.nodeId).toBe(best?.nodeId);
        now = now.map((node) => (node.nodeId !== placed.nodeId ? node : {
          ...node, vcpusReserved: node.vcpusReserved + wanted.vcpus, memoryMibReserved: node.memoryMibReserved + wanted.memoryMib,
          pools: node.pools.map((pool) => (pool.poolId === placed.poolId ? { ...pool, reservedGib: pool.reservedGib + wanted.diskGib } : pool)),
        }));
        // Nothing is promised that is not there: the least that could still be asked for fits, or there is none.
        for (const node of now) {
          const left = free(node, { ...wanted, vcpus: 0, memoryMib: 0, diskGib: 0 });
          expect(left).toBeUndefined();
          expect(poolFor(node, { ...wanted, diskGib: 0 })).toBeDefined();
        }
      }
    }), { numRuns: 200 });
  });
});
