/* What the sagas of a VM have in common: how a node is told something, and how the VM learns that it is over. */
import type { AgentCommand } from '@chronovirt/contracts/agent/agent.commands';
import type { Outgoing } from '@chronovirt/contracts/command';
import type { NodeId, OperationId, VmId } from '@chronovirt/contracts/ids';
import type { VmCommand } from '@chronovirt/contracts/vm/vm.commands';
import type { Media, Reconfiguration } from '@chronovirt/contracts/vm/vm.events';
import type { Facts, Refusal } from '@chronovirt/decider/decider';

/** Which VM, on which node, in which generation: every verb of a node names it. */
export interface OnNode {
  readonly vmId: VmId;
  readonly nodeId: NodeId;
  readonly generation: number;
}

type Verb = AgentCommand['type'];
type DataOf<T extends Verb> = Extract<AgentCommand, { type: T }>['data'];

/** A command for the agent of a node. */
export const verb = <T extends Verb>(type: T, { vmId, nodeId, generation }: OnNode, more: Omit<DataOf<T>, keyof OnNode>): Outgoing =>
  ({ to: 'node', target: nodeId, type, data: { vmId, nodeId, generation, ...more } });

/** A step's fact that the table of steps guarantees: its absence is our bug. */
export const fact = <T>(facts: Facts | undefined, name: string): T => {
  const value = facts?.[name];
  if (value === undefined) throw new Error(`a step needs the fact ${name}, which no step before it answered`);
  return value as T;
};

/** The node was removed by an operator: whatever it held is gone with it. */
export const NODE_GONE: readonly string[] = ['node.removed', 'node.not_found'];
/** The same, or this placement of the VM is no more: so is whatever it had there. */
export const PLACEMENT_GONE: readonly string[] = [...NODE_GONE, 'vm.not_here', 'vm.old_generation'];

/** What a saga calls the command of a step; the runner makes its id from this. */
export const commandName = (saga: string, operationId: OperationId, step: string, phase: 'run' | 'undo'): string => `saga-${saga}-${operationId}:${step}:${phase}`;

/** The undo that never arrived, as itself, so that it is done once however often it is tried. */
export const owedUndo = (saga: string, failedOperationId: OperationId, step: string): Required<Pick<Outgoing, 'as' | 'cancels'>> =>
  ({ as: commandName(saga, failedOperationId, step, 'undo'), cancels: [commandName(saga, failedOperationId, step, 'run')] });

interface OfVm {
  readonly vmId: VmId;
  readonly operationId: OperationId;
}
type End = Omit<Extract<VmCommand, { type: 'FinishVm' }>['data'], keyof OfVm>;

/** `seen` is the node's last word of the domain, if it said one. */
export const finishVm = ({ vmId, operationId, nodeId, generation }: OfVm & OnNode, seen: Facts | undefined, end: { readonly how: unknown } & { readonly [K in keyof End]?: unknown }): Outgoing => ({
  to: 'scheduler', target: vmId, type: 'FinishVm',
  data: { vmId, operationId, provisioned: null, reconfigured: null, observed: seen !== undefined && 'state' in seen ? { nodeId, generation, ...seen } : null, ...end },
});

/** Nothing was done, why, and what a silent node still owes. */
export const failVm = ({ vmId, operationId }: OfVm, { refused, because = {} }: Refusal, owed: readonly string[]): Outgoing =>
  ({ to: 'scheduler', target: vmId, type: 'FailVm', data: { vmId, operationId, refused, because, owed } });

/** Everything is taken away, or settled. */
export const finishRemoval = ({ vmId, operationId }: OfVm): Outgoing => ({ to: 'scheduler', target: vmId, type: 'FinishDeleteVm', data: { vmId, operationId } });

/** What a node may take for bytes that it has to fetch: slower than 4 MiB in a second is as good as not at all. Milliseconds. */
export const fetchMs = (bytes: number): number => Math.ceil(bytes / 4_194.304);
/** Of what lies in its drives, or starts it: what its node has to fetch. */
export const mediaBytes = ({ media, drivers, kernel }: Partial<Pick<Reconfiguration, 'media' | 'drivers' | 'kernel'>>): number =>
  [media, drivers, kernel, kernel?.initrd].reduce((sum: number, one: Media | null | undefined) => sum + (one?.fetchBytes ?? 0), 0);

/** What a copy of a disk may take, niced: 64 MiB in a second. Milliseconds. */
export const copyMs = (sizeGib: number): number => sizeGib * 16_000;
