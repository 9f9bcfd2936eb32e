import { capacityOf } from '../../node/capacity.ts';
import { type Filter, poolFor } from '../candidate.ts';

/** Enough is left of what may be promised: virtual CPUs, memory, disk. */
export const free: Filter = (node, want) => {
  if (node.description === null) return 'has not said what it is yet';
  const total = capacityOf(node.description, node.policy);
  const vcpus = total.vcpus - node.vcpusReserved;
  if (want.vcpus > vcpus) return `wants ${String(want.vcpus)} vCPUs, ${String(Math.max(0, vcpus))} are free`;
  const memoryMib = total.memoryMib - node.memoryMibReserved;
  if (want.memoryMib > memoryMib) return `wants ${String(want.memoryMib)} MiB of memory, ${String(Math.max(0, memoryMib))} MiB are free`;
  if (want.poolId !== undefined && want.poolId !== null && !node.pools.some(({ poolId }) => poolId === want.poolId)) return 'does not see the pool that was chosen';
  if (poolFor(node, want) === undefined) return `wants ${String(want.diskGib)} GiB of disk, no pool has as much free`;
  return undefined;
};
