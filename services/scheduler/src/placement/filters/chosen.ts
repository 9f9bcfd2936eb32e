import type { Filter } from '../candidate.ts';

/** A node chosen by hand turns down all others. */
export const chosen: Filter = (node, want) => (want.nodeId === null || want.nodeId === node.nodeId ? undefined : 'another node was chosen by hand');
