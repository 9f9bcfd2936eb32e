import { z } from 'zod';
import { command, type CommandOf } from '../command.ts';
import { BackupTargetId, NodeId, OperationId, PoolId, VmId } from '../ids.ts';
import { Json, text } from '../text.ts';
import { DeviceName } from '../vm/assigned.ts';
import { Platform } from '../vm/vm.events.ts';
import { NodeDescription, NodePolicy } from './node.events.ts';

/** The body of PATCH /v1/nodes/:id: only what changes. */
export const ChangeNodeBody = z.strictObject({ ...NodePolicy.partial().shape }).meta({ id: 'ChangeNode' });

/** The body of POST /v1/nodes/join, sent by an agent with a join token. */
export const JoinNodeBody = z.strictObject({
  name: text(253).min(1),
  machineId: z.string().regex(/^[0-9a-zA-Z._-]{1,64}$/),
  /** nkey of the agent's bus credentials: the public half, beginning with U. */
  credentialKey: z.string().regex(/^U[A-Z2-7]{55}$/),
  /** X25519 public key, base64url without padding. */
  sealKey: z.string().regex(/^[A-Za-z0-9_-]{43}$/),
}).meta({ id: 'JoinNode' });

export const nodeCommands = {
  RegisterNode: command('scheduler', 'nodeId', z.object({ nodeId: NodeId, ...JoinNodeBody.shape })),
  ChangeNode: command('scheduler', 'nodeId', z.object({ nodeId: NodeId, ...ChangeNodeBody.shape })),
  RemoveNode: command('scheduler', 'nodeId', z.object({
    nodeId: NodeId, reason: text(300),
    /** Although there are VMs on it: what it held may be given to others. */
    force: z.boolean().default(false),
  })),
  /** From the agent's hello. `helloId` makes a repeated hello the same session. */
  StartSession: command('scheduler', 'nodeId', z.object({ nodeId: NodeId, description: NodeDescription })),
  /** From the saga: the handler runs the placement and asks the chosen node's decider. */
  PlaceVm: command('scheduler', 'vmId', z.object({
    vmId: VmId, operationId: OperationId, vcpus: z.int(), memoryMib: z.int(), diskGib: z.int(),
    accel: z.enum(['any', 'require-kvm']), ...Platform.shape, nodeId: NodeId.nullable(), poolId: PoolId.optional(), byHand: z.boolean(), targetId: BackupTargetId.nullable().optional(),
  })),
  /** Undo of PlaceVm when the node is not known: what the cancelled PlaceVm answered tells it. */
  UnplaceVm: command('scheduler', 'vmId', z.object({ vmId: VmId, operationId: OperationId, nodeId: NodeId.nullable() })),
  ReserveCapacity: command('scheduler', 'nodeId', z.object({ nodeId: NodeId, vmId: VmId, vcpus: z.int(), memoryMib: z.int(), poolId: PoolId.nullable(), byHand: z.boolean(), decision: Json })),
  /** What is set aside for a VM becomes this much; nothing, when nothing is set aside. */
  ResizeCapacity: command('scheduler', 'nodeId', z.object({ nodeId: NodeId, vmId: VmId, vcpus: z.int(), memoryMib: z.int() })),
  HoldDevice: command('scheduler', 'nodeId', z.object({ nodeId: NodeId, vmId: VmId, device: DeviceName })),
  /** null: all that the VM has. */
  ReleaseDevice: command('scheduler', 'nodeId', z.object({ nodeId: NodeId, vmId: VmId, device: DeviceName.nullable() })),
  ReleaseCapacity: command('scheduler', 'nodeId', z.object({ nodeId: NodeId, vmId: VmId })),
} as const;
export type NodeCommand = CommandOf<typeof nodeCommands>;
