import type { Filter } from '../candidate.ts';

/** Measured use is below the operator's thresholds. A node not measured yet is given the benefit of the doubt. */
export const unstrained: Filter = (node) => {
  if (node.measured === null) return undefined;
  const { memoryUsedPercent, loadPercent } = node.measured;
  if (node.policy.memoryUsedPercentMax < 100 && memoryUsedPercent > node.policy.memoryUsedPercentMax) return `uses ${String(memoryUsedPercent)} % of its memory, the threshold is ${String(node.policy.memoryUsedPercentMax)} %`;
  if (loadPercent > node.policy.loadPercentMax) return `has a load of ${String(loadPercent)} %, the threshold is ${String(node.policy.loadPercentMax)} %`;
  return undefined;
};
