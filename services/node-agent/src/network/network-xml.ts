/*
 * A network as libvirt is told of it: a bridge of our own, NAT to the outside, and a DHCP server that
 * knows hosts and has no range. Without a range dnsmasq serves only the MACs it was told of, so that no
 * address exists that ipam did not lease.
 *
 * A MAC says its address (`macOf`), so what the DHCP server must know is known when the network is made:
 * every address with its MAC. Adding each lease by itself was tried first: libvirt 9.0 takes down and puts
 * up the firewall rules of the whole network for each (0.5 s and more on two cores), during which guests
 * have no way out. The table of all 253 costs 50 ms once. Networks too large for a table get their leases
 * one by one.
 */
import { uuidOf } from '@chronovirt/contracts/ids';
import type { NetworkPlan } from '@chronovirt/contracts/network/network.events';
import type { Lease } from '../hypervisor.ts';
import { element } from '../xml.ts';

export const NETWORK_NAMESPACE = 'urn:chronovirt:network:1';

/** A table of 1,021 hosts takes 70 KiB of XML. */
const PREFIX_WITH_TABLE_MIN = 22;

const numberOf = (address: string): number => address.split('.').reduce((sum, part) => sum * 256 + Number(part), 0);
const textOf = (number: number): string => [24, 16, 8, 0].map((shift) => Math.floor(number / 2 ** shift) % 256).join('.');

/** ipam's rule: 52:54 and the four bytes of the address. */
export const macOf = (address: string): string => `52:54:${address.split('.').map((part) => Number(part).toString(16).padStart(2, '0')).join(':')}`;

/** Every address of the network that a guest may have, or none where they are too many. */
export function addressesOf({ cidr, prefix, gateway }: NetworkPlan): readonly string[] {
  if (prefix < PREFIX_WITH_TABLE_MIN) return [];
  const size = 2 ** (32 - prefix);
  const first = Math.floor(numberOf(cidr.slice(0, cidr.indexOf('/'))) / size) * size;
  // Without the network's own address and that of all.
  return Array.from({ length: size - 2 }, (_, index) => textOf(first + 1 + index)).filter((address) => address !== gateway);
}

export function networkXml(plan: NetworkPlan): string {
  return element('network', {},
    element('name', {}, plan.name),
    element('uuid', {}, uuidOf(plan.networkId)),
    element('metadata', {}, element('cv:network', { 'xmlns:cv': NETWORK_NAMESPACE, id: plan.networkId, subnet: plan.subnetId })),
    element('forward', { mode: 'nat' }),
    // No forward delay: there is no second bridge to make a loop with, and a guest asks for its address at once.
    element('bridge', { name: plan.bridge, stp: 'on', delay: 0 }),
    // No guest has the gateway's. A bridge that has to be made again is the same to guests that run.
    element('mac', { address: macOf(plan.gateway) }),
    element('ip', { address: plan.gateway, prefix: plan.prefix },
      element('dhcp', {}, ...addressesOf(plan).map((address) => host({ mac: macOf(address), address })),
        plan.boot === undefined ? undefined : element('bootp', { file: plan.boot.file, server: plan.boot.server })))).xml;
}

/** An entry has no name: libvirt takes one that is there already for the same host, and refuses. */
const host = ({ mac, address }: Pick<Lease, 'mac' | 'address'>): ReturnType<typeof element> => element('host', { mac, ip: address });

/** The entry of one lease, for network_update. */
export const hostXml = (lease: Pick<Lease, 'mac' | 'address'>): string => host(lease).xml;
