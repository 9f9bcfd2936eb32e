import type { BackupTargetId, NodeId, PoolId } from '@chronovirt/contracts/ids';
import type { NodeDescription, NodePolicy } from '@chronovirt/contracts/node/node.events';
import type { Platform } from '@chronovirt/contracts/vm/vm.events';

/** A pool as placement sees it. */
export interface PlacePool {
  readonly poolId: PoolId;
  readonly capacityGib: number;
  readonly overcommitPercent: number;
  readonly reservedGib: number;
  /** Stopped, or nearly full. */
  readonly closed?: boolean;
}

/** A node as placement sees it. Memory in MiB, disk in GiB. */
export interface Candidate {
  readonly nodeId: NodeId;
  /** Of the node's stream. */
  readonly version: number;
  readonly name: string;
  readonly description: NodeDescription | null;
  readonly policy: NodePolicy;
  readonly session: number;
  readonly removed: boolean;
  readonly silentSince: string | null;
  readonly vcpusReserved: number;
  readonly memoryMibReserved: number;
  readonly pools: readonly PlacePool[];
  /** From the last heartbeat; never in the log. */
  readonly measured: { readonly memoryUsedPercent: number; readonly loadPercent: number } | null;
}

export interface Want extends Platform {
  readonly vcpus: number;
  readonly memoryMib: number;
  readonly diskGib: number;
  readonly accel: 'any' | 'require-kvm';
  /** A node chosen by hand: all others are turned down. */
  readonly nodeId: NodeId | null;
  /** A pool chosen by hand; without one, whichever has room. */
  readonly poolId?: PoolId | null | undefined;
  /** A backup target that the node must see. */
  readonly targetId?: BackupTargetId | null | undefined;
}

/** undefined keeps the node, a sentence turns it down. */
export type Filter = (node: Candidate, want: Want) => string | undefined;

/** 0 to 100: how well the node would stand with this VM on it. */
export type Scorer = (node: Candidate, want: Want) => number;

const leftGib = ({ capacityGib, overcommitPercent, reservedGib }: PlacePool): number => Math.floor((capacityGib * overcommitPercent) / 100) - reservedGib;

/** What may be promised in the pool that has most left. GiB. */
export const mostLeftGib = ({ pools }: Candidate): number => Math.max(0, ...pools.filter(({ closed }) => closed !== true).map(leftGib));

/** The first pool with enough left of what may be promised, among those that may be meant. */
export const poolFor = (node: Candidate, want: Want): PlacePool | undefined =>
  node.pools.find((pool) => pool.closed !== true && (want.poolId ?? pool.poolId) === pool.poolId && leftGib(pool) >= want.diskGib);
