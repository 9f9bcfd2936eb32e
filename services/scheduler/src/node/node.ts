/*
 * A node: a machine that runs VMs, what it can carry, and what is promised of it.
 *
 * Placement proposes, the node decides: only here is capacity set aside, one command after another, so the
 * limit holds exactly however many schedulers propose at once. Ratios are whole percents and memory whole
 * MiB, so replaying gives the same numbers everywhere.
 */
import { BucketMap } from '@chronovirt/decider/bucket-map';
import { type Decider, isRefusal, NAMED_MAX, refuse, type Refusal } from '@chronovirt/decider/decider';
import type { NodeId, VmId } from '@chronovirt/contracts/ids';
import { deviceName } from '@chronovirt/contracts/vm/assigned';
import type { NodeCommand } from '@chronovirt/contracts/node/node.commands';
import { type NodeDescription, type NodeEvent, type NodePolicy, nodePolicyDefault } from '@chronovirt/contracts/node/node.events';
import { capacityOf } from './capacity.ts';

export interface RegisteredNode {
  readonly status: 'registered' | 'removed';
  readonly nodeId: NodeId;
  readonly name: string;
  readonly machineId: string;
  readonly credentialKey: string;
  readonly description: NodeDescription | null;
  readonly policy: NodePolicy;
  readonly session: number;
  readonly vcpusReserved: number;
  readonly memoryMibReserved: number;
  readonly reserved: BucketMap<string, { readonly vcpus: number; readonly memoryMib: number }>;
  /** Its own devices, by name, with the VM that has it. */
  readonly devices: ReadonlyMap<string, VmId>;
}

export type Node = { readonly status: 'absent' } | RegisteredNode;

type OfNode = Exclude<NodeCommand, { type: 'PlaceVm' | 'UnplaceVm' }>;

const registeredOr = (node: Node, nodeId: NodeId): RegisteredNode | Refusal =>
  node.status === 'registered' ? node : refuse(node.status === 'removed' ? 'node.removed' : 'node.not_found', { nodeId });

/** Why so much more cannot be promised of it. Less of either always can. */
const lackOf = ({ nodeId, description, policy, vcpusReserved, memoryMibReserved }: RegisteredNode, { vcpus, memoryMib }: { readonly vcpus: number; readonly memoryMib: number }): Refusal | undefined => {
  if (description === null) return refuse('node.never_seen', { nodeId });
  const total = capacityOf(description, policy);
  const free = { vcpus: total.vcpus - vcpusReserved, memoryMib: total.memoryMib - memoryMibReserved };
  if (vcpus > 0 && vcpus > free.vcpus) return refuse('node.no_cpu', { nodeId, vcpus, vcpusFree: free.vcpus });
  if (memoryMib > 0 && memoryMib > free.memoryMib) return refuse('node.no_memory', { nodeId, memoryMib, memoryMibFree: free.memoryMib });
  return undefined;
};

export const node: Decider<OfNode, NodeEvent, Node> = {
  category: 'node',
  initial: { status: 'absent' },
  // What comes and goes with VMs and with the agent. What the machine is (NodeDescribed) is not among it: limits are set by it.
  observations: ['NodeSessionStarted', 'CapacityReserved', 'CapacityResized', 'CapacityReleased', 'DeviceHeld', 'DeviceReleased'],

  decide(command, state) {
    if (command.type === 'RegisterNode') {
      const { nodeId, name, machineId, credentialKey, sealKey } = command.data;
      if (state.status === 'absent') return [{ type: 'NodeRegistered', data: { nodeId, name, machineId, credentialKey, sealKey } }];
      if (state.status === 'removed') return refuse('node.removed', { nodeId });
      return state.machineId === machineId ? [] : refuse('node.exists', { nodeId });
    }
    if ((command.type === 'ReleaseCapacity' || command.type === 'ReleaseDevice') && state.status === 'removed') return [];
    const known = registeredOr(state, command.data.nodeId);
    if (isRefusal(known)) return known;
    switch (command.type) {
      case 'ChangeNode': {
        const { nodeId: _, ...changes } = command.data;
        const policy = { ...known.policy, ...Object.fromEntries(Object.entries(changes).filter(([, value]) => value !== undefined)) };
        return (Object.keys(policy) as (keyof NodePolicy)[]).every((key) => policy[key] === known.policy[key]) ? [] : [{ type: 'NodePolicyChanged', data: policy }];
      }
      case 'RemoveNode':
        if (!command.data.force && known.reserved.size > 0) return refuse('node.in_use', { nodeId: known.nodeId, count: known.reserved.size, vms: known.reserved.someKeys(NAMED_MAX) });
        return [{ type: 'NodeRemoved', data: { reason: command.data.reason } }];
      case 'StartSession': {
        const { description } = command.data;
        const same = known.description !== null && JSON.stringify(known.description) === JSON.stringify(description);
        return [...(same ? [] : [{ type: 'NodeDescribed', data: description } as const]), { type: 'NodeSessionStarted', data: { session: known.session + 1 } }];
      }
      case 'ReserveCapacity': {
        const { vmId, vcpus, memoryMib, byHand, decision } = command.data;
        if (known.reserved.has(vmId)) return [];
        if (known.policy.maintenance) return refuse('node.maintenance', { nodeId: known.nodeId });
        if (!known.policy.accepting && !byHand) return refuse('node.not_accepting', { nodeId: known.nodeId });
        const lacking = lackOf(known, { vcpus, memoryMib });
        return lacking ?? [{ type: 'CapacityReserved', data: { vmId, vcpus, memoryMib, decision } }];
      }
      case 'ResizeCapacity': {
        const { vmId, vcpus, memoryMib } = command.data;
        const held = known.reserved.get(vmId);
        if (held === undefined || (held.vcpus === vcpus && held.memoryMib === memoryMib)) return [];
        const lacking = lackOf(known, { vcpus: vcpus - held.vcpus, memoryMib: memoryMib - held.memoryMib });
        return lacking ?? [{ type: 'CapacityResized', data: { vmId, vcpus, memoryMib, before: held } }];
      }
      case 'HoldDevice': {
        const { nodeId, vmId, device } = command.data;
        const holder = known.devices.get(device);
        if (holder === vmId) return [];
        if (holder !== undefined) return refuse('device.taken', { nodeId, device, vmId: holder });
        if (known.description?.assignable?.some((one) => deviceName(one.device) === device) !== true) return refuse('device.not_on_node', { nodeId, device });
        return [{ type: 'DeviceHeld', data: { vmId, device } }];
      }
      case 'ReleaseDevice': {
        const { vmId, device } = command.data;
        return [...known.devices].flatMap(([name, holder]) => (holder === vmId && (device === null || device === name) ? [{ type: 'DeviceReleased' as const, data: { vmId, device: name } }] : []));
      }
      case 'ReleaseCapacity': {
        const held = known.reserved.get(command.data.vmId);
        return held === undefined ? [] : [{ type: 'CapacityReleased', data: { vmId: command.data.vmId, ...held } }];
      }
    }
  },

  evolve(state, event) {
    if (event.type === 'NodeRegistered') {
      const { nodeId, name, machineId, credentialKey } = event.data;
      return { status: 'registered', nodeId, name, machineId, credentialKey, description: null, policy: nodePolicyDefault, session: 0, vcpusReserved: 0, memoryMibReserved: 0, reserved: BucketMap.empty(), devices: new Map() };
    }
    if (state.status === 'absent') return state;
    switch (event.type) {
      case 'NodeDescribed':
        return { ...state, description: event.data };
      case 'NodeSessionStarted':
        return { ...state, session: event.data.session };
      case 'NodePolicyChanged':
        return { ...state, policy: event.data };
      case 'CapacityReserved': {
        const { vmId, vcpus, memoryMib } = event.data;
        return { ...state, vcpusReserved: state.vcpusReserved + vcpus, memoryMibReserved: state.memoryMibReserved + memoryMib, reserved: state.reserved.with(vmId, { vcpus, memoryMib }) };
      }
      case 'CapacityResized': {
        const { vmId, vcpus, memoryMib, before } = event.data;
        return {
          ...state, vcpusReserved: state.vcpusReserved + vcpus - before.vcpus, memoryMibReserved: state.memoryMibReserved + memoryMib - before.memoryMib,
          reserved: state.reserved.with(vmId, { vcpus, memoryMib }),
        };
      }
      case 'CapacityReleased': {
        const { vmId, vcpus, memoryMib } = event.data;
        return { ...state, vcpusReserved: state.vcpusReserved - vcpus, memoryMibReserved: state.memoryMibReserved - memoryMib, reserved: state.reserved.without(vmId) };
      }
      case 'DeviceHeld':
        return { ...state, devices: new Map([...state.devices, [event.data.device, event.data.vmId]]) };
      case 'DeviceReleased':
        return { ...state, devices: new Map([...state.devices].filter(([name]) => name !== event.data.device)) };
      case 'NodeRemoved':
        return { ...state, status: 'removed' };
    }
  },

  facts(command, state) {
    if (command.type === 'ReserveCapacity') return { nodeId: command.data.nodeId, poolId: command.data.poolId, decision: command.data.decision };
    if (command.type === 'StartSession') return { session: state.status === 'absent' ? 0 : state.session };
    return {};
  },
};
