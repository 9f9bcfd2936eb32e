import type { Filter } from '../candidate.ts';

/** The node is ours, has said what it is, and is heard. */
export const present: Filter = (node) => {
  if (node.removed) return 'was removed';
  if (node.description === null) return 'has not said what it is yet';
  if (node.silentSince !== null) return `is silent since ${node.silentSince}`;
  return undefined;
};
