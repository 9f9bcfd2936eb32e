import type { Filter } from '../candidate.ts';

/** Maintenance closes a node; not accepting closes it only to what is placed automatically. */
export const open: Filter = (node, want) => {
  if (node.policy.maintenance) return 'is in maintenance';
  if (!node.policy.accepting && want.nodeId === null) return 'does not accept automatic placements';
  return undefined;
};
