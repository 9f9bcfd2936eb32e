/** Networks with their DHCP leases, and secrets. A lease begins when a domain with an interface on the network starts. */
import { networkUpdateCommands, networkUpdateSections, secretUsages } from '../layouts.ts';
import type { Secret } from '../layouts.ts';
import { attributeOf, childOf, childrenOf, element, textOf } from '../xml.ts';
import type { XmlElement } from '../xml.ts';
import { nameOf, parsed, printed, uuidOf, withChild } from './definition.ts';
import type { Definition } from './definition.ts';
import type { FakeDomain, FakeNode } from './node.ts';
import { invalidArgument, noNetwork, noSecret, operationFailed, operationInvalid, operationUnsupported } from './refusal.ts';

export interface FakeNetwork {
  readonly name: string;
  readonly uuid: string;
  config: XmlElement | undefined;
  live: XmlElement | undefined;
  autostart: boolean;
  /** By MAC. */
  readonly leases: Map<string, { readonly address: string; readonly hostname: string | undefined; readonly since: number; readonly prefix: number }>;
}

const networkBooks = new WeakMap<FakeNode, Map<string, FakeNetwork>>();
export function networksOf(node: FakeNode): Map<string, FakeNetwork> {
  let book = networkBooks.get(node);
  if (book === undefined) networkBooks.set(node, (book = new Map<string, FakeNetwork>()));
  return book;
}

export function findNetwork(node: FakeNode, ref: { readonly uuid: string; readonly name?: string }): FakeNetwork {
  const network = networksOf(node).get(ref.uuid);
  if (network === undefined) throw noNetwork(`no network with matching uuid '${ref.uuid}'${ref.name === undefined ? '' : ` (${ref.name})`}`);
  return network;
}
export function networkByName(node: FakeNode, name: string): FakeNetwork {
  for (const network of networksOf(node).values()) if (network.name === name) return network;
  throw noNetwork(`no network with matching name '${name}'`);
}

function readNetwork(node: FakeNode, xml: string): { readonly name: string; readonly uuid: string; readonly root: XmlElement } {
  const given = parsed(xml, 'network');
  const name = nameOf(given);
  const uuid = uuidOf(given, () => node.uuidNew());
  for (const other of networksOf(node).values()) {
    if (other.name === name && other.uuid !== uuid) throw operationFailed(`network '${name}' already exists with uuid ${other.uuid}`, 'network');
    if (other.uuid === uuid && other.name !== name) throw operationFailed(`network '${other.name}' is already defined with uuid ${uuid}`, 'network');
  }
  const forward = childOf(given, 'forward');
  const mode = forward === undefined ? undefined : (forward.attributes['mode'] ?? 'nat');
  const own = mode === undefined || ['nat', 'route', 'open'].includes(mode);
  const taken = new Set([...networksOf(node).values()].map((other) => attributeOf(other.live ?? other.config, 'name', 'bridge')));
  let free = 0;
  while (taken.has(`virbr${free}`)) free += 1;
  const bridge = childOf(given, 'bridge');
  const rest = childrenOf(given).filter((one) => !['name', 'uuid', 'forward', 'bridge', 'mac'].includes(one.name));
  return {
    name,
    uuid,
    root: element(
      'network',
      given.attributes,
      element('name', {}, name),
      element('uuid', {}, uuid),
      ...rest.filter((one) => one.name === 'metadata'),
      forward === undefined ? undefined : { ...forward, attributes: { ...forward.attributes, mode: mode as string } },
      own ? element('bridge', { name: `virbr${free}`, stp: 'on', delay: '0', ...bridge?.attributes }) : bridge,
      own ? (childOf(given, 'mac') ?? element('mac', { address: node.macNew(0) })) : undefined,
      ...rest.filter((one) => one.name !== 'metadata'),
    ),
  };
}

export function defineNetwork(node: FakeNode, xml: string): FakeNetwork {
  const { name, uuid, root } = readNetwork(node, xml);
  const network = networksOf(node).get(uuid) ?? { name, uuid, config: undefined, live: undefined, autostart: false, leases: new Map() };
  network.config = root;
  networksOf(node).set(uuid, network);
  node.emitNetwork(network, 'defined');
  return network;
}

export function createNetwork(node: FakeNode, xml: string): FakeNetwork {
  const { name, uuid, root } = readNetwork(node, xml);
  const before = networksOf(node).get(uuid);
  if (before?.live !== undefined) throw operationFailed(`network is already active as '${name}'`, 'network');
  const network = before ?? { name, uuid, config: undefined, live: undefined, autostart: false, leases: new Map() };
  networksOf(node).set(uuid, network);
  network.live = root;
  node.emitNetwork(network, 'started');
  return network;
}

export function startNetwork(node: FakeNode, network: FakeNetwork): void {
  if (network.live !== undefined) throw operationInvalid('network is already active', 'network');
  const bridge = attributeOf(network.config, 'name', 'bridge');
  for (const other of networksOf(node).values()) {
    if (other !== network && other.live !== undefined && bridge !== undefined && attributeOf(other.live, 'name', 'bridge') === bridge) throw operationFailed(`bridge name '${bridge}' already in use.`, 'network');
  }
  network.live = network.config;
  node.emitNetwork(network, 'started');
}

export function stopNetwork(node: FakeNode, network: FakeNetwork): void {
  if (network.live === undefined) throw operationInvalid(`network '${network.name}' is not active`, 'network');
  network.live = undefined;
  network.leases.clear();
  node.emitNetwork(network, 'stopped');
  if (network.config === undefined) networksOf(node).delete(network.uuid);
}

export function undefineNetwork(node: FakeNode, network: FakeNetwork): void {
  if (network.config === undefined) throw operationInvalid("can't undefine transient network", 'network');
  network.config = undefined;
  network.autostart = false;
  node.emitNetwork(network, 'undefined');
  if (network.live === undefined) networksOf(node).delete(network.uuid);
}

export const networkXml = (network: FakeNetwork, inactive: boolean): string => printed(((inactive ? network.config : undefined) ?? network.live ?? network.config) as XmlElement);

const ipv4 = (text: string): number => text.split('.').reduce((sum, part) => sum * 256 + Number(part), 0);
const dotted = (value: number): string => [24, 16, 8, 0].map((shift) => Math.floor(value / 2 ** shift) % 256).join('.');

/** Every network that an interface of the domain is on must run; each of them gives an address. */
export function startedNetworks(node: FakeNode, domain: FakeDomain, definition: Definition): void {
  const wanted = definition.facts.interfaces.filter((one) => one.kind === 'network' && one.network !== undefined);
  for (const { network: name } of wanted) if (networkByName(node, name as string).live === undefined) throw operationInvalid(`network '${name}' is not active`, 'network');
  for (const { network, mac } of wanted) lease(node, networkByName(node, network as string), mac, domain.name);
}

export function lease(node: FakeNode, network: FakeNetwork, mac: string, hostname: string): void {
  if (network.leases.has(mac)) return;
  const ip = childrenOf(network.live, 'ip').find((one) => (one.attributes['family'] ?? 'ipv4') === 'ipv4' && childOf(one, 'dhcp') !== undefined);
  if (ip === undefined) return;
  const dhcp = childOf(ip, 'dhcp');
  const host = childrenOf(dhcp, 'host').find((one) => one.attributes['mac']?.toLowerCase() === mac);
  const prefix = ip.attributes['prefix'] === undefined ? ipv4(ip.attributes['netmask'] ?? '255.255.255.0').toString(2).replaceAll('0', '').length : Number(ip.attributes['prefix']);
  const taken = new Set([...network.leases.values()].map((one) => one.address));
  for (const reserved of childrenOf(dhcp, 'host')) if (reserved !== host) taken.add(reserved.attributes['ip'] ?? '');
  let address = host?.attributes['ip'];
  for (const range of address === undefined ? childrenOf(dhcp, 'range') : []) {
    const last = ipv4(range.attributes['end'] ?? '');
    for (let at = ipv4(range.attributes['start'] ?? ''); at <= last && address === undefined; at += 1) if (!taken.has(dotted(at))) address = dotted(at);
    if (address !== undefined) break;
  }
  // A range that is used up gives nothing, as of any DHCP server.
  if (address !== undefined) network.leases.set(mac, { address, prefix, hostname: host?.attributes['name'] ?? hostname, since: node.clock.now() });
}

export function leaseOf(node: FakeNode, network: string | undefined, mac: string) {
  if (network === undefined) return undefined;
  for (const one of networksOf(node).values()) if (one.name === network) return one.leases.get(mac);
  return undefined;
}

/** Only what changes while guests run: hosts and ranges of DHCP, and names in DNS. */
export function updateNetwork(network: FakeNetwork, update: { readonly command: number; readonly section: number; readonly parentIndex: number; readonly xml: string; readonly flags: readonly ('live' | 'config')[] }): void {
  const given = update.flags;
  const which = given.length > 0 ? given : network.live === undefined ? (['config'] as const) : (['live'] as const);
  const sections = { [networkUpdateSections.ipDhcpHost]: ['ip', 'dhcp', 'host'], [networkUpdateSections.ipDhcpRange]: ['ip', 'dhcp', 'range'], [networkUpdateSections.dnsHost]: ['dns', '', 'host'] } as const;
  const section = sections[update.section as keyof typeof sections];
  if (section === undefined) throw operationUnsupported("can't update this section of network", 'network');
  const [parentName, listName, name] = section;
  const child = parsed(update.xml, name);
  if (which.includes('live') && network.live === undefined) throw operationInvalid('network is not active', 'network');
  if (which.includes('config') && network.config === undefined) throw operationInvalid('cannot change persistent config of a transient network', 'network');
  const same = (one: XmlElement) =>
    name === 'range'
      ? one.attributes['start'] === child.attributes['start'] && one.attributes['end'] === child.attributes['end']
      : child.attributes['mac'] === undefined
        ? one.attributes['ip'] === child.attributes['ip']
        : one.attributes['mac']?.toLowerCase() === child.attributes['mac'].toLowerCase();
  const changed = (root: XmlElement): XmlElement => {
    const parents = childrenOf(root, parentName);
    const parent = (update.parentIndex >= 0 ? parents[update.parentIndex] : parents.find((one) => listName === '' || childOf(one, listName) !== undefined)) ?? parents[0] ?? (parentName === 'dns' ? element('dns') : undefined);
    if (parent === undefined) throw operationInvalid(`couldn't find matching ${parentName} element`, 'network');
    const list = listName === '' ? parent : (childOf(parent, listName) ?? element(listName));
    const items = childrenOf(list);
    const at = items.findIndex((one) => one.name === name && same(one));
    const changedItems = [...items];
    switch (update.command) {
      case networkUpdateCommands.modify:
        if (at === -1) throw operationInvalid(`couldn't locate an existing dhcp host entry with "mac='${child.attributes['mac']}'" in network '${network.name}'`, 'network');
        changedItems[at] = child;
        break;
      case networkUpdateCommands.delete:
        if (at === -1) throw operationInvalid(`couldn't locate a matching ${listName} ${name} entry in network '${network.name}'`, 'network');
        changedItems.splice(at, 1);
        break;
      case networkUpdateCommands.addFirst:
      case networkUpdateCommands.addLast: {
        if (at !== -1) throw operationInvalid(`there is an existing ${listName} ${name} entry in network '${network.name}' that matches "${update.xml.trim()}"`, 'network');
        const firstHost = changedItems.findIndex((one) => one.name === name);
        changedItems.splice(update.command === networkUpdateCommands.addFirst && firstHost !== -1 ? firstHost : changedItems.length, 0, child);
        break;
      }
      default:
        throw invalidArgument(`unrecognized network update command code ${update.command}`, 'network');
    }
    const listNow = { ...list, children: changedItems };
    const parentNow = listName === '' ? listNow : withChild(parent, listName, listNow);
    return parents.length === 0 ? { ...root, children: [...root.children, parentNow] } : { ...root, children: root.children.map((one) => (one === parent ? parentNow : one)) };
  };
  // Both or none.
  const live = which.includes('live') ? changed(network.live as XmlElement) : network.live;
  const config = which.includes('config') ? changed(network.config as XmlElement) : network.config;
  network.live = live;
  network.config = config;
}

export interface FakeSecret {
  readonly handle: Secret & { readonly usage: keyof typeof secretUsages };
  root: XmlElement;
  value: Buffer | undefined;
}

const secretBooks = new WeakMap<FakeNode, Map<string, FakeSecret>>();
export function secretsOf(node: FakeNode): Map<string, FakeSecret> {
  let book = secretBooks.get(node);
  if (book === undefined) secretBooks.set(node, (book = new Map<string, FakeSecret>()));
  return book;
}
export function findSecret(node: FakeNode, ref: { readonly uuid: string }): FakeSecret {
  const secret = secretsOf(node).get(ref.uuid);
  if (secret === undefined) throw noSecret(`no secret with matching uuid '${ref.uuid}'`);
  return secret;
}

const usageElements: Readonly<Record<string, string>> = { volume: 'volume', ceph: 'name', iscsi: 'target', tls: 'name', vtpm: 'name' };

export function defineSecret(node: FakeNode, xml: string): FakeSecret {
  const root = parsed(xml, 'secret');
  const usageElement = childOf(root, 'usage');
  const usage = (usageElement?.attributes['type'] ?? 'none') as keyof typeof secretUsages;
  if (!(usage in secretUsages)) throw invalidArgument(`unknown secret usage type ${usage}`, 'secret');
  const usageId = usage === 'none' ? '' : textOf(childOf(usageElement, usageElements[usage] as string));
  const uuid = uuidOf(root, () => node.uuidNew());
  for (const other of secretsOf(node).values()) {
    if (usage !== 'none' && other.handle.uuid !== uuid && other.handle.usage === usage && other.handle.usageId === usageId) throw internal(`a secret with UUID ${other.handle.uuid} already defined for use with ${usageId}`);
  }
  const kept = childrenOf(root).filter((one) => one.name !== 'uuid');
  const secret: FakeSecret = {
    handle: { uuid, usage, usageId },
    root: element('secret', { ephemeral: root.attributes['ephemeral'] ?? 'no', private: root.attributes['private'] ?? 'no' }, element('uuid', {}, uuid), ...kept),
    value: secretsOf(node).get(uuid)?.value,
  };
  secretsOf(node).set(uuid, secret);
  node.emitSecret(secret.handle, 'defined');
  return secret;
}
const internal = (why: string) => operationFailed(why, 'secret');
