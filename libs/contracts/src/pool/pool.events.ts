import { z } from 'zod';
import { event, type EventOf } from '../event.ts';
import { NodeId, OperationId, PoolId, VmId, VolumeId } from '../ids.ts';
import { Json, Name, text } from '../text.ts';

/** `shared`: one folder that several nodes see. */
export const PoolType = z.enum(['dir', 'shared']);
export type PoolType = z.infer<typeof PoolType>;

/** An absolute path in its plainest spelling. Nodes take it only below the folders that they are configured with. */
export const PoolPath = z.string().max(1_000).regex(/^(\/[A-Za-z0-9][A-Za-z0-9._-]{0,99})+$/, 'must be an absolute path of plain names: letters, digits, dots, dashes and underscores');

/** What can be asked of a pool. */
export const PoolWork = z.enum(['create', 'start', 'stop', 'delete', 'refresh']);
export type PoolWork = z.infer<typeof PoolWork>;

/** What a node says of a pool's folder. Sizes in GiB; used is what the file system has given away, to whomever. */
export const PoolFigures = z.object({ capacityGib: z.int().min(0), usedGib: z.int().min(0) });
export type PoolFigures = z.infer<typeof PoolFigures>;

/** Nodes of a shared pool. */
export const POOL_NODES_MAX = 8;
const PoolNodes = z.array(NodeId).min(1).max(POOL_NODES_MAX);
const Percents = { overcommitPercent: z.int().min(1).max(10_000), fullPercent: z.int().min(1).max(100) };

/** Files that a pool has and nobody knows, and volumes that it should have and has not: the first of them, and how many. */
const Files = z.object({ count: z.int().min(0), first: z.array(text(255)).max(20) });

export const poolEvents = {
  /** A node reported the place for disks that it began with. Sizes in GiB. */
  PoolRegistered: event(z.object({ poolId: PoolId, nodeId: NodeId, name: text(100), capacityGib: z.int().min(0), overcommitPercent: z.int().min(1) })),
  PoolResized: event(z.object({ nodeId: NodeId, capacityGib: z.int().min(0) })),
  /** One that an operator makes. The first node makes the folder, the others must find what it left there. */
  PoolRequested: event(z.object({ operationId: OperationId, poolId: PoolId, name: Name, type: PoolType, path: PoolPath, nodes: PoolNodes, ...Percents })),
  /** `token` is what stands in the folder, so that it is known again. */
  PoolWorkRequested: event(z.object({ operationId: OperationId, poolId: PoolId, work: PoolWork, type: PoolType.nullable(), path: PoolPath.nullable(), nodes: PoolNodes, token: text(100) })),
  /** `nodes` have seen it. */
  PoolOpened: event(z.object({ operationId: OperationId, capacityGib: z.int().min(0) })),
  PoolStopped: event(z.object({ operationId: OperationId })),
  PoolDeleted: event(z.object({ operationId: OperationId })),
  /** `volumesGib` is what the files of volumes take. */
  PoolRefreshed: event(z.object({ operationId: OperationId, ...PoolFigures.shape, volumesGib: z.int().min(0), unknown: Files, missing: Files })),
  PoolWorkFailed: event(z.object({ operationId: OperationId, work: PoolWork, refused: text(100), because: Json, owed: z.array(text(100)) })),
  PoolPolicyChanged: event(z.object(Percents)),
  /** A node sees it otherwise than before: it is there or not, or has become larger, or fuller by a step. */
  PoolObserved: event(z.object({ nodeId: NodeId, active: z.boolean(), ...PoolFigures.shape })),
  /** So much of it is used that nothing new is put there. */
  PoolNearlyFull: event(z.object({ usedPercent: z.int(), fullPercent: z.int() })),
  PoolRelieved: event(z.object({ usedPercent: z.int(), fullPercent: z.int() })),
  SpaceReserved: event(z.object({ nodeId: NodeId, volumeId: VolumeId, vmId: VmId.nullable(), sizeGib: z.int().min(1) })),
  SpaceResized: event(z.object({ nodeId: NodeId, volumeId: VolumeId, vmId: VmId, sizeGib: z.int().min(1), beforeGib: z.int().min(1) })),
  SpaceReleased: event(z.object({ nodeId: NodeId, volumeId: VolumeId, vmId: VmId.nullable(), sizeGib: z.int().min(1) })),
} as const;
export type PoolEvent = EventOf<typeof poolEvents>;
