/*
 * Limits of disks and of interfaces. They stand in the domain's XML, as in libvirt, so what runs and what will start have each
 * their own, and a domain that starts has those of its definition. Nothing is held to them: nothing moves in a fake.
 */
import { attributeOf, childOf, childrenOf, element, textOf } from '../xml.ts';
import type { XmlElement } from '../xml.ts';
import { withChild } from './definition.ts';
import type { Affect } from './devices.ts';
import type { FakeDomain, FakeNode } from './node.ts';
import { argumentUnsupported, invalidArgument } from './refusal.ts';

/** Numbers, or the name of a group of disks. */
type Given = Readonly<Record<string, unknown>>;
type Amounts = Record<string, number>;

const rates = ['total_bytes_sec', 'read_bytes_sec', 'write_bytes_sec', 'total_iops_sec', 'read_iops_sec', 'write_iops_sec'];
const diskFields = [...rates, ...rates.map((rate) => `${rate}_max`), 'size_iops_sec', 'group_name', ...rates.map((rate) => `${rate}_max_length`)];
const bandwidthFields = ['inbound.average', 'inbound.peak', 'inbound.burst', 'inbound.floor', 'outbound.average', 'outbound.peak', 'outbound.burst'];

function supported(given: Given, fields: readonly string[]): readonly (readonly [string, string])[] {
  const entries = Object.entries(given).filter(([, value]) => value !== undefined);
  for (const [name] of entries) if (!fields.includes(name)) throw argumentUnsupported(`parameter '${name}' not supported`, 'none');
  return entries.map(([name, value]) => [name, String(value)]);
}

const devicesIn = (node: FakeNode, domain: FakeDomain, which: Affect): readonly XmlElement[] => childrenOf(childOf(node.treeOf(domain, which), 'devices'));
const isDisk = (target: string) => (device: XmlElement) => device.name === 'disk' && attributeOf(device, 'dev', 'target') === target;
const isInterface = (mac: string) => (device: XmlElement) => device.name === 'interface' && attributeOf(device, 'address', 'mac')?.toLowerCase() === mac;

function found(node: FakeNode, domain: FakeDomain, which: Affect, is: (device: XmlElement) => boolean): XmlElement {
  const device = devicesIn(node, domain, which).find(is);
  if (device === undefined) throw invalidArgument('missing persistent configuration for the device');
  return device;
}

function changed(node: FakeNode, domain: FakeDomain, which: Affect, is: (device: XmlElement) => boolean, change: (device: XmlElement) => XmlElement): void {
  const root = node.treeOf(domain, which);
  const devices = childOf(root, 'devices') as XmlElement;
  node.setTree(domain, which, withChild(root, 'devices', { ...devices, children: devices.children.map((one) => (typeof one !== 'string' && is(one) ? change(one) : one)) }));
}

const diskAmounts = diskFields.filter((name) => name !== 'group_name');
export const noDiskLimits: Amounts = Object.fromEntries(diskAmounts.map((name) => [name, 0]));

/** All that a disk can be limited in; 0 is no limit. */
export function diskLimits(node: FakeNode, domain: FakeDomain, which: Affect, target: string): Amounts & { readonly group_name?: string } {
  const iotune = childOf(found(node, domain, which, isDisk(target)), 'iotune');
  const amounts = Object.fromEntries(diskAmounts.map((name) => [name, Number(textOf(childOf(iotune, name)) || 0)]));
  const group = textOf(childOf(iotune, 'group_name'));
  // An index signature of numbers cannot say that one of its names is a text.
  return (group === '' ? amounts : { ...amounts, group_name: group }) as Amounts & { readonly group_name?: string };
}

export function limitDisk(node: FakeNode, domain: FakeDomain, which: readonly Affect[], target: string, given: Given): void {
  const entries = supported(given, diskFields);
  const said = (name: string) => Number(entries.find(([one]) => one === name)?.[1] ?? 0) > 0;
  for (const rate of ['bytes_sec', 'iops_sec', 'bytes_sec_max', 'iops_sec_max']) {
    if (said(`total_${rate}`) && (said(`read_${rate}`) || said(`write_${rate}`))) throw invalidArgument(`total and read/write of ${rate} cannot be set at the same time`);
  }
  for (const one of which) found(node, domain, one, isDisk(target));
  for (const one of which) {
    changed(node, domain, one, isDisk(target), (disk) => {
      let iotune = childOf(disk, 'iotune') ?? element('iotune');
      for (const [name, value] of entries) iotune = withChild(iotune, name, value === '0' || value === '' ? undefined : element(name, {}, value));
      return withChild(disk, 'iotune', childrenOf(iotune).length === 0 ? undefined : iotune);
    });
  }
}

/** Of what goes to the guest and of what comes from it; 0 is no limit. */
export function interfaceLimits(node: FakeNode, domain: FakeDomain, which: Affect, mac: string): Amounts {
  const bandwidth = childOf(found(node, domain, which, isInterface(mac)), 'bandwidth');
  return Object.fromEntries(bandwidthFields.map((field) => [field, Number(attributeOf(bandwidth, field.split('.')[1] as string, field.split('.')[0] as string) ?? 0)]));
}

export function limitInterface(node: FakeNode, domain: FakeDomain, which: readonly Affect[], mac: string, given: Given): void {
  const entries = supported(given, bandwidthFields);
  for (const one of which) found(node, domain, one, isInterface(mac));
  for (const one of which) {
    const now = interfaceLimits(node, domain, one, mac);
    for (const direction of ['inbound', 'outbound']) {
      const own = entries.filter(([field]) => field.startsWith(`${direction}.`));
      if (own.length === 0) continue;
      // All of a direction is set at once; without an average there is none.
      for (const field of Object.keys(now)) if (field.startsWith(`${direction}.`)) now[field] = 0;
      for (const [field, value] of own) now[field] = Number(value);
    }
    const part = (direction: string) => {
      const amounts = Object.entries(now).filter(([field, amount]) => field.startsWith(`${direction}.`) && amount > 0);
      return (now[`${direction}.average`] ?? 0) > 0 || (now[`${direction}.floor`] ?? 0) > 0 ? [element(direction, Object.fromEntries(amounts.map(([field, amount]) => [field.slice(direction.length + 1), amount])))] : [];
    };
    const parts = [...part('inbound'), ...part('outbound')];
    changed(node, domain, one, isInterface(mac), (device) => withChild(device, 'bandwidth', parts.length === 0 ? undefined : element('bandwidth', {}, ...parts)));
  }
}
