/** What a network's XML says, as far as an agent asks. `root` is the whole tree, for what is not here. */
import { attributeOf, buildXml, childOf, childrenOf, element, parseXml, textOf, XmlError } from './xml.ts';
import type { XmlElement } from './xml.ts';

export interface DhcpHost {
  /** Lower case. */
  readonly mac: string | undefined;
  readonly address: string;
  readonly name: string | undefined;
}

export interface NetworkAddress {
  readonly family: 'ipv4' | 'ipv6';
  /** The host's own address on the bridge. */
  readonly address: string;
  readonly prefix: number | undefined;
  /** As written; `prefix` says the same where that was written. */
  readonly netmask: string | undefined;
  readonly dhcpRanges: readonly { readonly start: string; readonly end: string }[];
  readonly dhcpHosts: readonly DhcpHost[];
  /** What is told to who starts from the network. */
  readonly bootp: { readonly file: string; readonly server: string | undefined } | undefined;
}

export interface NetworkDescription {
  readonly name: string;
  readonly uuid: string;
  readonly bridge: string | undefined;
  /** `nat`, `route`, `bridge`, …; undefined for an isolated network. */
  readonly forward: string | undefined;
  readonly addresses: readonly NetworkAddress[];
  readonly metadata: XmlElement | undefined;
  readonly root: XmlElement;
}

/** Throws XmlError when it is not a network. */
export function readNetwork(xml: string): NetworkDescription {
  const root = parseXml(xml);
  if (root.name !== 'network') throw new XmlError(`<${root.name}> is not a network`);
  const forward = childOf(root, 'forward');
  return {
    name: textOf(childOf(root, 'name')),
    uuid: textOf(childOf(root, 'uuid')),
    bridge: attributeOf(root, 'name', 'bridge'),
    forward: forward === undefined ? undefined : (forward.attributes['mode'] ?? 'nat'),
    addresses: childrenOf(root, 'ip').map((ip) => {
      const dhcp = childOf(ip, 'dhcp');
      const prefix = ip.attributes['prefix'];
      const bootp = childOf(dhcp, 'bootp');
      return {
        family: ip.attributes['family'] === 'ipv6' ? 'ipv6' : 'ipv4',
        address: ip.attributes['address'] ?? '',
        prefix: prefix === undefined ? undefined : Number(prefix),
        netmask: ip.attributes['netmask'],
        dhcpRanges: childrenOf(dhcp, 'range').map((range) => ({ start: range.attributes['start'] ?? '', end: range.attributes['end'] ?? '' })),
        dhcpHosts: childrenOf(dhcp, 'host').map((host) => ({
          mac: host.attributes['mac']?.toLowerCase(),
          address: host.attributes['ip'] ?? '',
          name: host.attributes['name'],
        })),
        bootp: bootp === undefined ? undefined : { file: bootp.attributes['file'] ?? '', server: bootp.attributes['server'] },
      };
    }),
    metadata: childOf(root, 'metadata'),
    root,
  };
}

export interface NetworkSpec {
  readonly name: string;
  readonly uuid?: string;
  readonly metadata?: readonly XmlElement[];
  /** Left out: isolated. */
  readonly forward?: 'nat' | 'route' | 'open' | 'bridge';
  readonly bridge?: string;
  readonly mtu?: number;
  /** The DNS domain, and whether names that are not known are asked of others. */
  readonly domain?: { readonly name: string; readonly localOnly?: boolean };
  readonly addresses?: readonly {
    readonly family?: 'ipv4' | 'ipv6';
    readonly address: string;
    readonly prefix: number;
    readonly dhcp?: {
      readonly ranges?: readonly { readonly start: string; readonly end: string }[];
      readonly hosts?: readonly DhcpHostSpec[];
    };
  }[];
  readonly more?: readonly XmlElement[];
}

export interface DhcpHostSpec {
  readonly mac?: string;
  readonly address: string;
  readonly name?: string;
}

/** `<host>` of a DHCP server, also for networkUpdate. */
export const dhcpHostElement = (host: DhcpHostSpec): XmlElement => element('host', { mac: host.mac, name: host.name, ip: host.address });

/** Network XML. Throws XmlError for what XML cannot hold. */
export function buildNetwork(spec: NetworkSpec): string {
  return buildXml(
    element(
      'network',
      {},
      element('name', {}, spec.name),
      spec.uuid === undefined ? undefined : element('uuid', {}, spec.uuid),
      spec.metadata === undefined ? undefined : element('metadata', {}, ...spec.metadata),
      spec.forward === undefined ? undefined : element('forward', { mode: spec.forward }),
      spec.bridge === undefined ? undefined : element('bridge', { name: spec.bridge }),
      spec.mtu === undefined ? undefined : element('mtu', { size: spec.mtu }),
      spec.domain === undefined ? undefined : element('domain', { name: spec.domain.name, localOnly: spec.domain.localOnly === undefined ? undefined : spec.domain.localOnly ? 'yes' : 'no' }),
      ...(spec.addresses ?? []).map((ip) =>
        element(
          'ip',
          { family: ip.family, address: ip.address, prefix: ip.prefix },
          ip.dhcp === undefined
            ? undefined
            : element('dhcp', {}, ...(ip.dhcp.ranges ?? []).map((range) => element('range', { start: range.start, end: range.end })), ...(ip.dhcp.hosts ?? []).map(dhcpHostElement)),
        ),
      ),
      ...(spec.more ?? []),
    ),
  );
}
