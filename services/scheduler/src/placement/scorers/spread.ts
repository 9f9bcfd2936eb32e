import { capacityOf } from '../../node/capacity.ts';
import type { Scorer } from '../candidate.ts';

/**
 * The share of memory and CPU that would be left, whichever is scarcer, 0 to 100 in hundredths; less what
 * is measured to be busy. The fullest resource decides, as in a sequential greedy by load.
 */
export const spread: Scorer = (node, want) => {
  if (node.description === null) return 0;
  const total = capacityOf(node.description, node.policy);
  const memory = (total.memoryMib - node.memoryMibReserved - want.memoryMib) / Math.max(1, total.memoryMib);
  const cpu = (total.vcpus - node.vcpusReserved - want.vcpus) / Math.max(1, total.vcpus);
  const busy = node.measured === null ? 0 : Math.min(100, node.measured.loadPercent) / 100;
  return Math.max(0, Math.round(10_000 * (Math.min(memory, cpu) * 0.75 + (1 - busy) * 0.25)) / 100);
};
