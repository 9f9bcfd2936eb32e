import { z } from 'zod';
import { command, type CommandOf } from '../command.ts';
import { NodeId, OperationId, PoolId, VmId, VolumeId } from '../ids.ts';
import { Json, Name, text } from '../text.ts';
import { POOL_NODES_MAX, PoolFigures, PoolPath, PoolType, PoolWork } from './pool.events.ts';

const Reference = text(100).min(1);
const Percents = {
  overcommitPercent: z.int().min(1).max(10_000).describe('Disks are thin: so much may be promised for each 100 GiB there are'),
  fullPercent: z.int().min(1).max(100).describe('From so much used on, nothing new is put there'),
};

/** The body of POST /v1/pools. */
export const CreatePoolBody = z.strictObject({
  name: Name.describe('Unique among pools that were made'),
  type: PoolType,
  path: PoolPath.describe('Below a folder that the node is configured with (CV_NODE_AGENT_POOL_ROOTS)'),
  node: Reference.optional().describe('Id or name; of a dir'),
  nodes: z.array(Reference).min(2).max(POOL_NODES_MAX).optional().describe('Ids or names; of a shared one. The first makes the folder, the others must find it'),
  overcommitPercent: Percents.overcommitPercent.default(200), fullPercent: Percents.fullPercent.default(95),
}).refine(({ type, node, nodes }) => (type === 'dir' ? node !== undefined && nodes === undefined : nodes !== undefined && node === undefined), { path: ['nodes'], message: 'a dir needs a node, a shared pool several nodes' }).meta({ id: 'CreatePool' });
export type CreatePoolBody = z.infer<typeof CreatePoolBody>;

/** The body of PATCH /v1/pools/:id. */
export const ChangePoolBody = z.strictObject({ overcommitPercent: Percents.overcommitPercent.optional(), fullPercent: Percents.fullPercent.optional() })
  .refine((body) => Object.values(body).some((value) => value !== undefined), 'must change something').meta({ id: 'ChangePool' });

const InHand = { poolId: PoolId, operationId: OperationId };

export const poolCommands = {
  /** From a node's report. */
  RegisterPool: command('storage', 'poolId', z.object({ poolId: PoolId, nodeId: NodeId, name: text(100), capacityGib: z.int().min(0) })),
  /** The same, of any pool. */
  RecordPool: command('storage', 'poolId', z.object({ poolId: PoolId, nodeId: NodeId, active: z.boolean(), ...PoolFigures.shape })),
  /** From the gateway, nodes resolved. */
  RequestPool: command('storage', 'poolId', z.object({ ...InHand, name: Name, type: PoolType, path: PoolPath, nodes: z.array(NodeId).min(1).max(POOL_NODES_MAX), overcommitPercent: z.int().min(1), fullPercent: z.int().min(1) })),
  ChangePool: command('storage', 'poolId', z.object({ poolId: PoolId, overcommitPercent: z.int().min(1).optional(), fullPercent: z.int().min(1).optional() })),
  /** From the gateway. Stopping and deleting are refused while disks are in use. */
  WorkOnPool: command('storage', 'poolId', z.object({ ...InHand, work: PoolWork.exclude(['create']) })),
  /** From sagas. `seen` is what the node said that looked. */
  FinishPool: command('storage', 'poolId', z.object({ ...InHand, seen: z.object({ ...PoolFigures.shape, volumesGib: z.int().min(0), files: z.array(text(255)).max(10_000) }).nullable() })),
  FailPool: command('storage', 'poolId', z.object({ ...InHand, refused: text(100), because: Json, owed: z.array(text(100)) })),
  ReserveSpace: command('storage', 'poolId', z.object({ poolId: PoolId, volumeId: VolumeId, vmId: VmId.nullable(), sizeGib: z.int().min(1) })),
  /** What is promised to a volume becomes this much. */
  ResizeSpace: command('storage', 'poolId', z.object({ poolId: PoolId, volumeId: VolumeId, vmId: VmId, sizeGib: z.int().min(1) })),
  ReleaseSpace: command('storage', 'poolId', z.object({ poolId: PoolId, volumeId: VolumeId, vmId: VmId.nullable() })),
} as const;
export type PoolCommand = CommandOf<typeof poolCommands>;
