/* Placement alone: a pure function over 1,000 nodes in memory, on one core. */
import { place } from '@chronovirt/scheduler/placement/place';
import type { Candidate } from '@chronovirt/scheduler/placement/candidate';
import type { Figure } from './report.ts';

const nodes = (count: number): Candidate[] =>
  Array.from({ length: count }, (_, n): Candidate => ({
    nodeId: `node_${n.toString(16).padStart(32, '0')}`, version: 1, name: `n${String(n)}`,
    description: { hypervisor: 'simulated', accel: 'kvm', accelBecause: '', cpus: 64, memoryMib: 262_144, versions: {} },
    policy: { accepting: true, maintenance: false, cpuPercent: 800, memoryPercent: 100, memoryReserveMib: 512, memoryUsedPercentMax: 100, loadPercentMax: 100_000 },
    session: 1, removed: false, silentSince: null, vcpusReserved: (n * 7) % 100, memoryMibReserved: ((n * 13) % 50) * 1_024,
    pools: [{ poolId: `pool_${n.toString(16).padStart(32, '0')}`, capacityGib: 10_000, overcommitPercent: 200, reservedGib: 10 }], measured: null,
  }));

export const placement = (): Figure[] => {
  const all = nodes(1_000);
  const want = { vcpus: 2, memoryMib: 2_048, diskGib: 10, accel: 'any' as const, nodeId: null };
  for (let n = 0; n < 500; n++) place(all, want);
  const startedAt = performance.now();
  const count = 3_000;
  for (let n = 0; n < count; n++) place(all, want);
  return [{ work: 'place in memory over 1,000 nodes, one core', value: (count * 1_000) / (performance.now() - startedAt), unit: '/s', goal: { kind: 'at least', value: 5_000, scales: false } }];
};
