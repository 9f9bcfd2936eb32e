import { type Decider, refuse } from '@chronovirt/decider/decider';
import type { NetworkCommand } from '@chronovirt/contracts/network/network.commands';
import type { NetworkEvent, NetworkPlan } from '@chronovirt/contracts/network/network.events';

export type Network = { readonly status: 'absent' | 'deleted' } | { readonly status: 'live'; readonly plan: NetworkPlan };

/** A network as nodes realise it. Its addresses are the subnet's matter. */
export const network: Decider<Exclude<NetworkCommand, { type: 'CreateNetwork' }>, NetworkEvent, Network> = {
  category: 'network',
  initial: { status: 'absent' },
  decide(command, state) {
    switch (command.type) {
      case 'RecordNetwork':
        return state.status === 'absent' ? [{ type: 'NetworkCreated', data: command.data }] : state.status === 'live' ? [] : refuse('network.not_found', { networkId: command.data.networkId });
      case 'DeleteNetwork':
        return state.status === 'live' ? [{ type: 'NetworkDeleted', data: command.data }] : state.status === 'deleted' ? [] : refuse('network.not_found', { networkId: command.data.networkId });
    }
  },
  evolve(_state, event) {
    switch (event.type) {
      case 'NetworkCreated':
        return { status: 'live', plan: event.data };
      case 'NetworkDeleted':
        return { status: 'deleted' };
    }
  },
  facts: (_command, state) => (state.status === 'live' ? { networkId: state.plan.networkId, subnetId: state.plan.subnetId } : {}),
};
