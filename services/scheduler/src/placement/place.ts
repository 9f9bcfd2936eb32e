/*
 * Placement proposes; the node decides.
 *
 * `place` is a pure function of what is wanted and of what the nodes looked like a moment ago. Its answer
 * may be stale, so the node's own decider checks again. Filters turn nodes down, each with a sentence a
 * person can act on; scorers rank the rest; the id breaks ties, so that the same question always has the
 * same answer.
 */
import { type Facts, refuse, type Refusal } from '@chronovirt/decider/decider';
import type { NodeId, PoolId } from '@chronovirt/contracts/ids';
import { type Candidate, poolFor, type Want } from './candidate.ts';
import { filters, scorers } from './rules.ts';

export interface Placed {
  readonly nodeId: NodeId;
  readonly poolId: PoolId;
  /** Recorded with the VM: every candidate, the filter that turned it down, the scores. */
  readonly decision: Facts;
}

/** Beyond these the decision names the best and counts the reasons, so that an event stays small with 1,000 nodes. */
const NAMED_MAX = 32;

export const place = (nodes: Iterable<Candidate>, want: Want, besides: ReadonlySet<string> = new Set()): Placed | Refusal => {
  const turnedDown: Record<string, string> = {};
  const reasons: Record<string, number> = {};
  const scored: { readonly node: Candidate; readonly score: number }[] = [];
  let refused = 0;
  for (const node of nodes) {
    const because = besides.has(node.nodeId) ? 'was asked and had no room' : firstReason(node, want);
    if (because === undefined) {
      scored.push({ node, score: scorers.reduce((sum, { score }) => sum + score(node, want), 0) / scorers.length });
      continue;
    }
    refused += 1;
    if (refused <= NAMED_MAX) turnedDown[node.nodeId] = `${node.name}: ${because}`;
    else reasons[because] = (reasons[because] ?? 0) + 1;
  }
  scored.sort((a, b) => b.score - a.score || (a.node.nodeId < b.node.nodeId ? -1 : 1));
  const best = scored[0];
  const pool = best === undefined ? undefined : poolFor(best.node, want);
  if (best === undefined || pool === undefined) return refuse('placement.no_host', refused === 0 ? { none: 'no node has joined yet' } : { ...turnedDown, ...(refused > NAMED_MAX ? { others: reasons } : {}) });
  return {
    nodeId: best.node.nodeId, poolId: pool.poolId,
    decision: {
      candidates: scored.length + refused,
      scores: Object.fromEntries(scored.slice(0, NAMED_MAX).map(({ node, score }) => [node.nodeId, score])),
      turnedDown, ...(refused > NAMED_MAX ? { others: reasons } : {}),
    },
  };
};

const firstReason = (node: Candidate, want: Want): string | undefined => {
  for (const filter of filters) {
    const because = filter(node, want);
    if (because !== undefined) return because;
  }
  return undefined;
};
