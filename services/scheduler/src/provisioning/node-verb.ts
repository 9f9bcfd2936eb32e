import type { Outgoing } from '@chronovirt/contracts/command';
import type { NodeId, VmId } from '@chronovirt/contracts/ids';
import type { AgentCommand } from '@chronovirt/contracts/agent/agent.commands';
import type { Facts } from '@chronovirt/decider/decider';

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
