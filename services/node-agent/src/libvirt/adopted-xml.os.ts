/*
 * A domain that somebody else made keeps its own XML: its machine, its firmware, its CPU, the places of its
 * devices are what its guest was installed on. Only what its plan says is put into it.
 */
import { attributeOf, buildXml, childOf, element, parseXml } from '@chronovirt/libvirt/xml';
import type { XmlElement, XmlNode } from '@chronovirt/libvirt/xml';
import type { DomainHost } from '../domain/domain-xml.ts';
import { diskXml, METADATA_NAMESPACE, nicXml, targetOf } from '../domain/domain-xml.ts';
import type { DomainPlan } from '../hypervisor.ts';
import { liveDomain, macIn } from './live-domain.os.ts';

const isElement = (node: XmlNode, name?: string): node is XmlElement => typeof node !== 'string' && (name === undefined || node.name === name);

/** One child in the place of those of its name, or at the beginning. */
const withChild = (parent: XmlElement, child: XmlElement): XmlElement => {
  const at = parent.children.findIndex((node) => isElement(node, child.name));
  const others = parent.children.filter((node) => !isElement(node, child.name));
  return { ...parent, children: at === -1 ? [child, ...others] : [...others.slice(0, at), child, ...others.slice(at)] };
};

/** What is said of a domain in its metadata: whose it is. */
export const wordsOf = (plan: DomainPlan, { nodeId, agentVersion, knownAs }: Pick<DomainHost, 'nodeId' | 'agentVersion' | 'knownAs'>): XmlElement =>
  element('cv:vm', { 'xmlns:cv': METADATA_NAMESPACE, id: plan.vmId, generation: plan.generation, node: nodeId, name: plan.name, as: knownAs ?? plan.name, agent: agentVersion });

/** `xml` is what the next start would find now. */
export function adoptedXml(xml: string, plan: DomainPlan, host: DomainHost): string {
  const now = liveDomain(xml);
  let root = parseXml(xml);
  root = withChild(root, element('title', {}, plan.name));
  root = withChild(root, withChild(childOf(root, 'metadata') ?? element('metadata'), wordsOf(plan, host)));
  if (now.memoryMib !== plan.memoryMib) root = withChild(withChild(root, element('memory', { unit: 'MiB' }, plan.memoryMib)), element('currentMemory', { unit: 'MiB' }, plan.memoryMib));
  if (now.vcpus !== plan.vcpus || now.vcpusMax !== plan.vcpusMax) {
    const before = childOf(root, 'vcpu');
    // Which of them are there is said of each by itself, too.
    root = { ...root, children: root.children.filter((node) => !isElement(node, 'vcpus')) };
    const { current: _, ...attributes } = before?.attributes ?? {};
    root = withChild(root, element('vcpu', { ...attributes, current: plan.vcpusMax > plan.vcpus ? plan.vcpus : undefined }, plan.vcpusMax));
  }
  const devices = childOf(root, 'devices');
  return devices === undefined ? buildXml(root) : buildXml(withChild(root, devicesOf(devices, plan, host)));
}

function devicesOf(devices: XmlElement, plan: DomainPlan, host: DomainHost): XmlElement {
  const kept = new Set([...(plan.adopted?.macs ?? []), ...plan.nics.map(({ mac }) => mac)]);
  const disks = new Map(plan.disks.map((disk) => [targetOf(disk, plan.devices), disk]));
  const present = new Set<string>();
  const children = devices.children.flatMap((node): XmlNode[] => {
    if (isElement(node, 'interface')) {
      const mac = macIn(node);
      if (mac !== undefined) present.add(mac);
      return mac === undefined || kept.has(mac) ? [node] : [];
    }
    if (!isElement(node, 'disk') || (node.attributes['device'] ?? 'disk') !== 'disk') return [node];
    const target = attributeOf(node, 'dev', 'target') ?? '';
    const disk = disks.get(target);
    if (disk === undefined) return [];
    present.add(target);
    const ours = parseXml(diskXml(disk, plan.devices, host.diskPathOf(disk)).xml);
    const limits = childOf(ours, 'iotune');
    const without: XmlElement = { name: node.name, attributes: node.attributes, children: node.children.filter((child) => !isElement(child, 'iotune') && !isElement(child, 'backingStore')) };
    const changed = withChild(without, element('source', { file: host.diskPathOf(disk) }));
    return [limits === undefined ? changed : withChild(changed, limits)];
  });
  const added = [
    ...[...disks].filter(([target]) => !present.has(target)).map(([, disk]) => diskXml(disk, plan.devices, host.diskPathOf(disk))),
    ...plan.nics.filter(({ mac }) => !present.has(mac)).map((nic) => nicXml(nic, plan.devices)),
  ];
  return { ...devices, children: [...children, ...added.map(({ xml }) => parseXml(xml))] };
}

