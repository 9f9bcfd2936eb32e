import type { NodeDescription, NodePolicy } from '@chronovirt/contracts/node/node.events';

/** What may be promised of a node: real CPUs and memory (MiB, beside the reserve) times the policy's percents, rounded down. */
export const capacityOf = (description: Pick<NodeDescription, 'cpus' | 'memoryMib'>, policy: Pick<NodePolicy, 'cpuPercent' | 'memoryPercent' | 'memoryReserveMib'>): { readonly vcpus: number; readonly memoryMib: number } => ({
  vcpus: Math.floor((description.cpus * policy.cpuPercent) / 100),
  memoryMib: Math.floor((Math.max(0, description.memoryMib - policy.memoryReserveMib) * policy.memoryPercent) / 100),
});
