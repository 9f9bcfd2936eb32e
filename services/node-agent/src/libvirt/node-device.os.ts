/* What libvirt says of the node's own devices, and of those that a domain was given. */
import type { AssignableDevice } from '@chronovirt/contracts/vm/assigned';
import { attributeOf, childOf, childrenOf, parseXml, textOf } from '@chronovirt/libvirt/xml';
import type { XmlElement } from '@chronovirt/libvirt/xml';
import { ALIAS } from '../domain/assigned-xml.ts';

/** Names of those that a domain has. */
export const aliasesIn = (devices: XmlElement | undefined): readonly string[] =>
  ['hostdev', 'input'].flatMap((kind) => childrenOf(devices, kind)).flatMap((device) => attributeOf(device, 'name', 'alias') ?? []).filter((alias) => alias.startsWith(ALIAS));

/** PCI's class of bridges (PCI Code and ID Assignment Specification): the node itself needs them. */
const BRIDGE = /^0x06/;
/** Hubs that Linux makes for itself. */
const ROOT_HUBS = '1d6b';

/** What libvirt says of a device of the node; undefined: it is none that could be lent. */
export function assignableIn(xml: string): AssignableDevice | undefined {
  const capability = childOf(parseXml(xml), 'capability');
  if (capability === undefined) return undefined;
  const says = [textOf(childOf(capability, 'vendor')), textOf(childOf(capability, 'product'))].filter((word) => word !== '').join(' ').slice(0, 200);
  const hex = (name: string, digits: number): string => Number(textOf(childOf(capability, name))).toString(16).padStart(digits, '0');
  const id = (name: string): string => (attributeOf(capability, 'id', name) ?? '').replace(/^0x/, '').toLowerCase();
  if (capability.attributes['type'] === 'pci') {
    // Without an IOMMU it could write anywhere in the memory of the node.
    if (childOf(capability, 'iommuGroup') === undefined || BRIDGE.test(textOf(childOf(capability, 'class')))) return undefined;
    return { device: { kind: 'pci', address: `${hex('domain', 4)}:${hex('bus', 2)}:${hex('slot', 2)}.${hex('function', 1)}` }, says };
  }
  if (capability.attributes['type'] !== 'usb_device' || !/^[0-9a-f]{4}$/.test(id('vendor')) || !/^[0-9a-f]{4}$/.test(id('product')) || id('vendor') === ROOT_HUBS) return undefined;
  return { device: { kind: 'usb', vendor: id('vendor'), product: id('product') }, says };
}
