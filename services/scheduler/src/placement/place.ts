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
import type { NodeDescription, NodePolicy } from '@chronovirt/contracts/node/node.events';
import { filters, scorers } from './rules.ts';

/** A node as placement sees it. Memory in MiB, disk in GiB. */
export interface Candidate {
  readonly nodeId: NodeId;
  readonly name: string;
  readonly description: NodeDescription | null;
  readonly policy: NodePolicy;
  readonly session: number;
  readonly removed: boolean;
  readonly silentSince: string | null;
  readonly vcpusReserved: number;
  readonly memoryMibReserved: number;
  readonly pools: readonly { readonly poolId: PoolId; readonly capacityGib: number; readonly overcommitPercent: number; readonly reservedGib: number }[];
  /** From the last heartbeat; never in the log. */
  readonly measured: { readonly memoryUsedPercent: number; readonly loadPercent: number } | null;
}

export interface Want {
  readonly vcpus: number;
  readonly memoryMib: number;
  readonly diskGib: number;
  readonly accel: 'any' | 'require-kvm';
  /** A node chosen by hand: all others are turned down. */
  readonly nodeId: NodeId | null;
}

/** undefined keeps the node, a sentence turns it down. */
export type Filter = (node: Candidate, want: Want) => string | undefined;

/** 0 to 100: how well the node would stand with this VM on it. */
export type Scorer = (node: Candidate, want: Want) => number;

export interface Placed {
  readonly nodeId: NodeId;
  readonly poolId: PoolId;
  /** Recorded with the VM: every candidate, the filter that turned it down, the scores. */
  readonly decision: Facts;
}

/** Beyond these the decision names the best and counts the reasons, so that an event stays small with 1,000 nodes. */
const NAMED_MAX = 32;

export const poolFor = (node: Candidate, want: Want): Candidate['pools'][number] | undefined =>
  node.pools.find((pool) => Math.floor((pool.capacityGib * pool.overcommitPercent) / 100) - pool.reservedGib >= want.diskGib);

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
