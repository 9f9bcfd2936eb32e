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
  const best: Scored[] = [];
  let possible = 0;
  let refused = 0;
  for (const node of nodes) {
    const because = besides.has(node.nodeId) ? 'was asked and had no room' : firstReason(node, want);
    if (because === undefined) {
      possible += 1;
      keepBest(best, { node, score: scorers.reduce((sum, { score }) => sum + score(node, want), 0) / scorers.length });
      continue;
    }
    refused += 1;
    if (refused <= NAMED_MAX) turnedDown[node.nodeId] = `${node.name}: ${because}`;
    else reasons[because] = (reasons[because] ?? 0) + 1;
  }
  const [first] = best;
  const pool = first === undefined ? undefined : poolFor(first.node, want);
  if (first === undefined || pool === undefined) return refuse('placement.no_host', refused === 0 ? { none: 'no node has joined yet' } : { ...turnedDown, ...(refused > NAMED_MAX ? { others: reasons } : {}) });
  return {
    nodeId: first.node.nodeId, poolId: pool.poolId,
    decision: {
      candidates: possible + refused,
      scores: Object.fromEntries(best.map(({ node, score }) => [node.nodeId, score])),
      turnedDown, ...(refused > NAMED_MAX ? { others: reasons } : {}),
    },
  };
};

interface Scored {
  readonly node: Candidate;
  readonly score: number;
}

const isBetter = (a: Scored, b: Scored): boolean => a.score > b.score || (a.score === b.score && a.node.nodeId < b.node.nodeId);

/** Puts it in its place among the best, of which only those stay that a decision names: sorting all of 1,000 took half of the time. */
const keepBest = (best: Scored[], one: Scored): void => {
  const last = best[best.length - 1];
  if (best.length >= NAMED_MAX && last !== undefined && !isBetter(one, last)) return;
  let at = best.length;
  for (let before = best[at - 1]; before !== undefined && isBetter(one, before); before = best[at - 1]) at -= 1;
  best.splice(at, 0, one);
  if (best.length > NAMED_MAX) best.pop();
};

const firstReason = (node: Candidate, want: Want): string | undefined => {
  for (const filter of filters) {
    const because = filter(node, want);
    if (because !== undefined) return because;
  }
  return undefined;
};
