/*
 * What of a network is not as it was made, field by field: a function of its plan and of what libvirt, the
 * kernel's list of sockets and the packet filter say.
 *
 * libvirt takes a network for active whose DHCP server was killed and whose rules were flushed. That server
 * answers names at the gateway's address, so a socket there is its sign of life, whatever its process is called.
 * The rules are those that libvirt writes with iptables; from 10.4 on it may use nftables instead, and where none
 * of its chains is found then, nothing is said of them.
 */
import type { Difference } from '@chronovirt/contracts/drift/drift.events';
import type { NetworkPlan } from '@chronovirt/contracts/network/network.events';
import type { NetworkDescription } from '@chronovirt/libvirt/network-xml';
import { addressesOf, macOf } from './network-xml.ts';

export interface SeenNetwork {
  readonly persistent: boolean;
  readonly autostart: boolean;
  /** What the next start makes. */
  readonly defined: NetworkDescription;
  /** What is up; undefined when nothing is. */
  readonly running: NetworkDescription | undefined;
  /** Text of /proc/net/udp (proc(5)); undefined: nobody can look there. */
  readonly udp: string | undefined;
  /** What iptables-save prints; undefined: it is not known what libvirt writes here. */
  readonly rules: string | undefined;
}

const DNS_PORT = 53;
const DIFFERENCES_MAX = 50;

export function networkDifferences(plan: NetworkPlan, seen: SeenNetwork | undefined): readonly Difference[] {
  if (seen === undefined) return [{ field: 'network', expected: plan.name, seen: null }];
  const found: Difference[] = [];
  const compare = (field: string, expected: Difference['expected'], there: Difference['seen'], where?: Difference['where']): void => {
    if (expected !== there) found.push({ field, ...(where === undefined ? {} : { where }), expected, seen: there });
  };
  compare('active', true, seen.running !== undefined);
  compare('persistent', true, seen.persistent);
  if (seen.persistent) compare('autostart', true, seen.autostart);
  const definition = (there: NetworkDescription, where: 'defined' | 'running'): void => {
    compare('name', plan.name, there.name, where);
    compare('forward', plan.kind, there.forward ?? null, where);
    compare('bridge', plan.bridge, there.bridge ?? null, where);
    const [own, ...more] = there.addresses.filter(({ family }) => family === 'ipv4');
    compare('gateway', plan.gateway, own?.address ?? null, where);
    compare('prefix', plan.prefix, own?.prefix ?? null, where);
    compare('addresses', 1, 1 + more.length, where);
    // Without a range only who is named gets an address.
    const [range] = own?.dhcpRanges ?? [];
    compare('dhcp.range', null, range === undefined ? null : `${range.start}-${range.end}`, where);
    compare('boot.file', plan.boot?.file ?? null, own?.bootp?.file ?? null, where);
    compare('boot.server', plan.boot?.server ?? null, own?.bootp?.server ?? null, where);
    const table = new Map(addressesOf(plan).map((address) => [macOf(address), address]));
    const hosts = new Map((own?.dhcpHosts ?? []).map(({ mac, address }) => [mac ?? '', address]));
    for (const [mac, address] of table) compare(`dhcp.${mac}`, address, hosts.get(mac) ?? null, where);
    // A network without a table has what was leased, and nobody here knows it all.
    if (table.size > 0) for (const [mac, address] of hosts) if (!table.has(mac)) compare(`dhcp.${mac}`, null, address, where);
  };
  if (seen.persistent) definition(seen.defined, 'defined');
  if (seen.running !== undefined) {
    definition(seen.running, 'running');
    if (seen.udp !== undefined) compare('dhcp', 'serves', hasUdpSocket(seen.udp, plan.gateway, DNS_PORT) ? 'serves' : 'does not run');
    if (seen.rules !== undefined) for (const rule of missingRules(plan, seen.rules)) compare('firewall', rule, null);
  }
  return found.slice(0, DIFFERENCES_MAX);
}

/** Addresses stand there as the machine keeps 32 bits, the last byte first on those that we run on. */
function hasUdpSocket(udp: string, address: string, port: number): boolean {
  const bytes = address.split('.').map((part) => Number(part).toString(16).padStart(2, '0'));
  const wanted = `${bytes.reverse().join('')}:${port.toString(16).padStart(4, '0')}`.toUpperCase();
  return udp.split('\n').some((line) => line.trim().split(/\s+/)[1] === wanted);
}

/** Chains of libvirt's own and the jumps to them, which it makes once when it starts (its viriptables.c). */
export const CHAINS = [
  { table: 'filter', from: 'INPUT', chain: 'LIBVIRT_INP' }, { table: 'filter', from: 'OUTPUT', chain: 'LIBVIRT_OUT' },
  { table: 'filter', from: 'FORWARD', chain: 'LIBVIRT_FWO' }, { table: 'filter', from: 'FORWARD', chain: 'LIBVIRT_FWI' }, { table: 'filter', from: 'FORWARD', chain: 'LIBVIRT_FWX' },
  { table: 'nat', from: 'POSTROUTING', chain: 'LIBVIRT_PRT' }, { table: 'mangle', from: 'POSTROUTING', chain: 'LIBVIRT_PRT' },
] as const;

/** Those without which guests have no address, no way out, or no answer. */
export function missingRules({ cidr, bridge }: NetworkPlan, rules: string): readonly string[] {
  const tables = new Map(rules.split(/^\*/m).map((text) => [text.slice(0, text.indexOf('\n')).trim(), text.split('\n')]));
  const jumps = CHAINS.filter(({ table }) => table !== 'mangle').map(({ table, from, chain }) => [table, `-A ${from} -j ${chain}`] as const);
  const own = [
    ['filter', `-A LIBVIRT_INP -i ${bridge} -p udp -m udp --dport 67 -j ACCEPT`], ['filter', `-A LIBVIRT_FWO -s ${cidr} -i ${bridge} -j ACCEPT`],
    ['filter', `-A LIBVIRT_FWI -d ${cidr} -o ${bridge} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT`], ['nat', `-A LIBVIRT_PRT -s ${cidr} ! -d ${cidr} -j MASQUERADE`],
  ] as const;
  return [...jumps, ...own].flatMap(([table, rule]) => (tables.get(table)?.includes(rule) === true ? [] : [`${table}: ${rule}`]));
}

/** Whether libvirt, of this version, writes its rules with iptables here; else nobody knows what they look like. */
export const usesIptables = (rules: string, libvirtVersion: number): boolean => libvirtVersion < 10_004_000 || rules.includes(':LIBVIRT_');
