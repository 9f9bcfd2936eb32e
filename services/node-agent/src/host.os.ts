/* What the machine says of itself. */
import { readFile, statfs } from 'node:fs/promises';
import { availableParallelism, loadavg } from 'node:os';
import { createHash } from 'node:crypto';
import { idFrom, type NodeId, type PoolId } from '@chronovirt/contracts/ids';
import type { PoolFigures } from '@chronovirt/contracts/pool/pool.events';
import type { Pool, Usage } from './hypervisor.ts';

const KIB_PER_MIB = 1_024;

/** MiB of memory, all and still to be had, from /proc/meminfo. */
export async function memoryOfHost(): Promise<{ readonly totalMib: number; readonly availableMib: number }> {
  const text = await readFile('/proc/meminfo', 'utf8');
  const kib = (name: string): number => Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(text)?.[1] ?? 0);
  return { totalMib: Math.floor(kib('MemTotal') / KIB_PER_MIB), availableMib: Math.floor(kib('MemAvailable') / KIB_PER_MIB) };
}

export const cpusOfHost = (): number => availableParallelism();

export async function usageOfHost(): Promise<Usage> {
  const { totalMib, availableMib } = await memoryOfHost();
  const [oneMinute = 0] = loadavg();
  return {
    memoryUsedPercent: totalMib === 0 ? 0 : Math.min(100, Math.max(0, Math.round(((totalMib - availableMib) * 100) / totalMib))),
    loadPercent: Math.round((oneMinute * 100) / cpusOfHost()),
  };
}

/** The id of a node's pool: the same whenever it is asked, a UUID of version 8 from the node and the pool's name. */
export function poolIdOf(nodeId: NodeId, name: string): PoolId {
  const bytes = createHash('sha256').update(`${nodeId}:${name}`).digest().subarray(0, 16);
  bytes[6] = ((bytes[6] ?? 0) & 0x0f) | 0x80;
  bytes[8] = ((bytes[8] ?? 0) & 0x3f) | 0x80;
  return idFrom('pool', bytes.toString('hex'));
}

/** Of the file system below a folder. What only root may use counts as used. */
export async function figuresOf(folder: string): Promise<PoolFigures> {
  const { blocks, bavail, bsize } = await statfs(folder);
  const gib = (count: number): number => Math.floor((count * bsize) / 2 ** 30);
  return { capacityGib: gib(blocks), usedGib: gib(blocks - bavail) };
}

/** The file system below a folder, as a pool of disks. */
export async function poolOfFolder(nodeId: NodeId, name: string, folder: string): Promise<Pool> {
  return { poolId: poolIdOf(nodeId, name), name, ...(await figuresOf(folder)) };
}
