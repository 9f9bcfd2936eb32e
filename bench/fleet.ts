/* 1,000 simulated nodes: whether the ceilings hold that Kubernetes sets itself (API p99 ≤ 1 s, start p99 ≤ 5 s). */
import { startPlatform } from '../e2e/platform.ts';
import { call } from './client.ts';
import { burst, prepare } from './control-plane.ts';
import { type Figure, percentile } from './report.ts';

const NODES = 1_000;
const BURSTS = 10;
const AT_ONCE = 100;

export const fleet = async (say: (line: string) => void): Promise<Figure[]> => {
  say(`${String(NODES)} simulated nodes in one process`);
  const startedAt = performance.now();
  const platform = await startPlatform({ split: false, fleet: { nodes: NODES, cpus: 64, memoryMib: 262_144, poolGib: 10_000 }, cidr: '10.64.0.0/12' });
  try {
    say(`they have joined after ${((performance.now() - startedAt) / 1_000).toFixed(0)} s`);
    await prepare(platform);
    // The first ones warm the compiler up.
    await burst(platform, 50);
    const accepted: number[] = [];
    const ended: number[] = [];
    const reads: number[] = [];
    for (let round = 0; round < BURSTS; round++) {
      const made = await burst(platform, AT_ONCE);
      accepted.push(...made.acceptedMs);
      ended.push(...made.endedMs);
      for (let n = 0; n < 20; n++) reads.push((await call(platform, 'GET', '/v1/vms?limit=100')).ms);
    }
    return [
      { work: `${String(NODES)} nodes: API p99 while VMs are created`, value: percentile([...accepted, ...reads], 0.99), unit: 'ms', goal: { kind: 'at most', value: 1_000, scales: false } },
      { work: `${String(NODES)} nodes: create → running p99, ${String(AT_ONCE)} at once`, value: percentile(ended, 0.99), unit: 'ms', goal: { kind: 'at most', value: 5_000, scales: false }, note: `${String(BURSTS * AT_ONCE)} VMs` },
    ];
  } finally {
    await platform.stop();
  }
};
