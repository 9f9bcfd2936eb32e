/*
 * A subnet: which addresses there are, who has them, which are never given.
 *
 * The MAC is the address: 52:54 and its four bytes. 0x52 has the bit of a locally administered, individual
 * address (IEEE 802 clause 8.4), so it collides with no vendor's; within a network addresses are unique, so
 * MACs are too; and an address that is given back gives its MAC back with it: neither can leak alone.
 *
 * An address freed is leased again last, so that stale ARP entries and firewall rules meet nobody new while
 * there is another choice.
 */
import { BucketMap } from '@chronovirt/decider/bucket-map';
import { type Decider, isRefusal, NAMED_MAX, refuse, type Refusal } from '@chronovirt/decider/decider';
import type { SubnetCommand } from '@chronovirt/contracts/subnet/subnet.commands';
import type { SubnetEvent } from '@chronovirt/contracts/subnet/subnet.events';
import { macOf, numberOf, rangeOf, textOf } from './address.ts';

export interface LiveSubnet {
  readonly status: 'live';
  readonly subnetId: string;
  readonly networkId: string;
  readonly cidr: string;
  readonly gateway: string;
  /** Addresses as numbers: first and last that may be leased. */
  readonly first: number;
  readonly last: number;
  readonly reserved: ReadonlySet<number>;
  readonly byVm: BucketMap<string, number>;
  readonly taken: BucketMap<number, true>;
  /** Where the search for the next address begins: behind the last one leased, so that a freed one comes last. */
  readonly next: number;
}

export type Subnet = { readonly status: 'absent' | 'deleted' } | LiveSubnet;

const liveOr = (subnet: Subnet, subnetId: string): LiveSubnet | Refusal => (subnet.status === 'live' ? subnet : refuse('subnet.not_found', { subnetId }));

const nextFree = (subnet: LiveSubnet): number | undefined => {
  const size = subnet.last - subnet.first + 1;
  for (let tried = 0; tried < size; tried++) {
    const candidate = subnet.first + ((subnet.next - subnet.first + tried) % size);
    if (!subnet.taken.has(candidate) && !subnet.reserved.has(candidate)) return candidate;
  }
  return undefined;
};

type OfSubnet = Exclude<SubnetCommand, { type: 'LeaseAddresses' | 'ReleaseAddresses' }>;

export const subnet: Decider<OfSubnet, SubnetEvent, Subnet> = {
  category: 'subnet',
  initial: { status: 'absent' },
  // Who has an address comes and goes; which are given at all is decided.
  observations: ['AddressLeased', 'AddressReleased'],

  decide(command, state) {
    if (command.type === 'CreateSubnet') {
      const { subnetId, networkId, cidr, reserved } = command.data;
      if (state.status !== 'absent') return state.status === 'live' && state.cidr === cidr ? [] : refuse('subnet.exists', { subnetId });
      const range = rangeOf(cidr);
      if (isRefusal(range)) return range;
      const outside = reserved.filter((address) => numberOf(address) < range.first || numberOf(address) > range.last);
      if (outside.length > 0) return refuse('subnet.address_outside', { addresses: outside, cidr });
      return [{ type: 'SubnetCreated', data: { subnetId, networkId, cidr: range.cidr, gateway: textOf(range.gateway), reserved } }];
    }
    if (command.type === 'ReleaseAddress') {
      const address = state.status === 'live' ? state.byVm.get(command.data.vmId) : undefined;
      return address === undefined ? [] : [{ type: 'AddressReleased', data: { vmId: command.data.vmId, address: textOf(address) } }];
    }
    if (command.type === 'DeleteSubnet' && state.status === 'deleted') return [];
    const live = liveOr(state, command.data.subnetId);
    if (isRefusal(live)) return live;
    switch (command.type) {
      case 'LeaseAddress': {
        if (live.byVm.has(command.data.vmId)) return [];
        const free = nextFree(live);
        if (free === undefined) return refuse('subnet.exhausted', { subnetId: live.subnetId, cidr: live.cidr, leased: live.taken.size, reserved: live.reserved.size });
        return [{ type: 'AddressLeased', data: { vmId: command.data.vmId, address: textOf(free), mac: macOf(free) } }];
      }
      case 'ChangeReserved': {
        const reserve = command.data.reserve.filter((address) => !live.reserved.has(numberOf(address)));
        const unreserve = command.data.unreserve.filter((address) => live.reserved.has(numberOf(address)));
        const outside = reserve.filter((address) => numberOf(address) < live.first || numberOf(address) > live.last);
        if (outside.length > 0) return refuse('subnet.address_outside', { addresses: outside, cidr: live.cidr });
        const inUse = reserve.filter((address) => live.taken.has(numberOf(address)));
        if (inUse.length > 0) return refuse('subnet.address_in_use', { addresses: inUse });
        return [
          ...(reserve.length === 0 ? [] : [{ type: 'AddressesReserved', data: { addresses: reserve } } as const]),
          ...(unreserve.length === 0 ? [] : [{ type: 'AddressesUnreserved', data: { addresses: unreserve } } as const]),
        ];
      }
      case 'DeleteSubnet':
        return live.byVm.size > 0 ? refuse('subnet.in_use', { subnetId: live.subnetId, networkId: live.networkId, count: live.byVm.size, vms: live.byVm.someKeys(NAMED_MAX) }) : [{ type: 'SubnetDeleted', data: { subnetId: command.data.subnetId } }];
    }
  },

  evolve(state, event) {
    if (event.type === 'SubnetCreated') {
      const range = rangeOf(event.data.cidr);
      if (isRefusal(range)) throw new Error(`the log holds a subnet with the range ${event.data.cidr}`);
      const { subnetId, networkId, cidr, gateway } = event.data;
      return { status: 'live', subnetId, networkId, cidr, gateway, first: range.first, last: range.last, reserved: new Set(event.data.reserved.map(numberOf)), byVm: BucketMap.empty(), taken: BucketMap.empty(), next: range.first };
    }
    if (state.status !== 'live') return state;
    switch (event.type) {
      case 'AddressLeased': {
        const address = numberOf(event.data.address);
        return { ...state, byVm: state.byVm.with(event.data.vmId, address), taken: state.taken.with(address, true), next: address + 1 > state.last ? state.first : address + 1 };
      }
      case 'AddressReleased':
        return { ...state, byVm: state.byVm.without(event.data.vmId), taken: state.taken.without(numberOf(event.data.address)) };
      case 'AddressesReserved':
        return { ...state, reserved: new Set([...state.reserved, ...event.data.addresses.map(numberOf)]) };
      case 'AddressesUnreserved': {
        const gone = new Set(event.data.addresses.map(numberOf));
        return { ...state, reserved: new Set([...state.reserved].filter((address) => !gone.has(address))) };
      }
      case 'SubnetDeleted':
        return { status: 'deleted' };
    }
  },

  facts(command, state) {
    if (command.type !== 'LeaseAddress' || state.status !== 'live') return {};
    const address = state.byVm.get(command.data.vmId);
    return address === undefined ? {} : { address: textOf(address), mac: macOf(address) };
  },
};
