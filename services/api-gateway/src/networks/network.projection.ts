/** One document for each network, and one for each subnet: a subnet's own events do not name its network. */
import { idOfStream } from '@chronovirt/contracts/ids';
import type { NetworkEvent, NetworkPlan } from '@chronovirt/contracts/network/network.events';
import type { SubnetEvent } from '@chronovirt/contracts/subnet/subnet.events';
import type { RecordedEvent } from '@chronovirt/event-log/log';
import type { Projection } from '@chronovirt/event-log/projection';

export interface NetworkDocument extends NetworkPlan {
  readonly id: string;
  readonly createdAt: string;
  readonly position: number;
}

export const networkView: Projection<NetworkDocument> = {
  name: 'gateway.network',
  version: 1,
  keys: (event) => (event.type === 'NetworkCreated' || event.type === 'NetworkDeleted' ? [idOfStream(event.stream)] : []),
  fold: (_before, recorded) => {
    const event = recorded as RecordedEvent & NetworkEvent;
    switch (event.type) {
      case 'NetworkCreated':
        return { ...event.data, id: event.data.networkId, createdAt: event.recordedAt, position: event.position };
      case 'NetworkDeleted':
        return undefined;
    }
  },
};

export interface SubnetDocument {
  readonly id: string;
  readonly networkId: string;
  readonly cidr: string;
  readonly gateway: string;
  /** Addresses that are never leased. */
  readonly reserved: readonly string[];
  readonly position: number;
  /** Of the subnet's stream, leases aside: the network's ETag. */
  readonly version: number;
}

const subnetTypes = new Set(['SubnetCreated', 'AddressesReserved', 'AddressesUnreserved', 'SubnetDeleted']);

export const subnetView: Projection<SubnetDocument> = {
  name: 'gateway.subnet',
  version: 2,
  keys: (event) => (subnetTypes.has(event.type) ? [idOfStream(event.stream)] : []),
  fold: (before, recorded) => {
    const event = recorded as RecordedEvent & SubnetEvent;
    if (event.type === 'SubnetCreated') {
      const { subnetId, networkId, cidr, gateway, reserved } = event.data;
      return { id: subnetId, networkId, cidr, gateway, reserved, position: event.position, version: event.version };
    }
    if (before === undefined) return undefined;
    switch (event.type) {
      case 'AddressesReserved':
        return { ...before, reserved: [...new Set([...before.reserved, ...event.data.addresses])], position: event.position, version: event.version };
      case 'AddressesUnreserved': {
        const free = new Set(event.data.addresses);
        return { ...before, reserved: before.reserved.filter((address) => !free.has(address)), position: event.position, version: event.version };
      }
      case 'SubnetDeleted':
        return undefined;
      case 'AddressLeased':
      case 'AddressReleased':
        return before;
    }
  },
};
