/*
 * A network as libvirt is told of it: a bridge of our own, NAT to the outside, and a DHCP server that
 * knows hosts and has no range. Without a range dnsmasq serves only the MACs it was told of, so that no
 * address exists that ipam did not lease.
 */
import { uuidOf } from '@chronovirt/contracts/ids';
import type { NetworkPlan } from '@chronovirt/contracts/network/network.events';
import type { Lease } from '../hypervisor.ts';
import { element } from '../xml.ts';

export const NETWORK_NAMESPACE = 'urn:chronovirt:network:1';

export function networkXml(plan: NetworkPlan): string {
  return element('network', {},
    element('name', {}, plan.name),
    element('uuid', {}, uuidOf(plan.networkId)),
    element('metadata', {}, element('cv:network', { 'xmlns:cv': NETWORK_NAMESPACE, id: plan.networkId, subnet: plan.subnetId })),
    element('forward', { mode: 'nat' }),
    // No forward delay: there is no second bridge to make a loop with, and a guest asks for its address at once.
    element('bridge', { name: plan.bridge, stp: 'on', delay: 0 }),
    element('ip', { address: plan.gateway, prefix: plan.prefix }, element('dhcp', {}))).xml;
}

/**
 * The entry of one lease, for network_update. Without a name: libvirt takes a name that is there already
 * for the same host, and refuses.
 */
export const hostXml = ({ mac, address }: Pick<Lease, 'mac' | 'address'>): string => element('host', { mac, ip: address }).xml;
