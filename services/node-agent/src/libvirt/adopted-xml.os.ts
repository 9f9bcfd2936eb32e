/*
 * A domain that somebody else made keeps its own XML: its machine, its firmware, its CPU, the places of its
 * devices are what its guest was installed on. Only what its plan says is put into it.
 */
import { DEFINITION_MAX } from '@chronovirt/contracts/vm/vm.events';
import { attributeOf, buildXml, childOf, childrenOf, element, parseXml } from '@chronovirt/libvirt/xml';
import type { XmlElement, XmlNode } from '@chronovirt/libvirt/xml';
import type { DomainHost } from '../domain/domain-xml.ts';
import { mediumOf, saysBoot } from '../domain/changes.ts';
import { diskXml, METADATA_NAMESPACE, nicXml, targetOf } from '../domain/domain-xml.ts';
import type { DomainPlan } from '../hypervisor.ts';
import { drivesOf, liveDomain, macIn, mediumIn, SEED_SERIAL } from './live-domain.os.ts';

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
  const now = liveDomain(xml, plan.adopted);
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
  if (saysBoot(plan) && now.boot.join() !== plan.boot.join()) root = withBoot(root, plan.boot);
  const devices = childOf(root, 'devices');
  return devices === undefined ? buildXml(root) : buildXml(withChild(root, withDrives(devicesOf(devices, plan, host), root, plan, host)));
}

/** Where it names a kernel, that is what starts, whatever the order. */
export const namesKernel = (xml: string): boolean => childOf(childOf(parseXml(xml), 'os'), 'kernel') !== undefined;

/** The order is said of the machine: libvirt takes no other beside it. */
function withBoot(root: XmlElement, boot: DomainPlan['boot']): XmlElement {
  const os = childOf(root, 'os') ?? element('os');
  const devices = childOf(root, 'devices') ?? element('devices');
  const unordered = devices.children.map((node): XmlNode => (isElement(node) ? { ...node, children: node.children.filter((child) => !isElement(child, 'boot')) } : node));
  const ordered = boot.map((device) => element('boot', { dev: device === 'disk' ? 'hd' : device }));
  return withChild(withChild(root, { ...os, children: [...os.children.filter((node) => !isElement(node, 'boot')), ...ordered] }), { ...devices, children: unordered });
}

/** A drive with this in it, or with nothing. */
export function withMedium(drive: XmlElement, path: string | undefined): XmlElement {
  const kept = drive.children.filter((node) => !isElement(node, 'source') && !isElement(node, 'backingStore') && !isElement(node, 'driver'));
  const source = path === undefined ? [] : [element('source', { file: path })];
  return { ...drive, attributes: { ...drive.attributes, type: 'file' }, children: [element('driver', { name: 'qemu', type: 'raw' }), ...source, ...kept] };
}

/** The drives hold what they should; one that is not there is added where the machine has a place for it. */
function withDrives(devices: XmlElement, root: XmlElement, plan: DomainPlan, host: DomainHost): XmlElement {
  const wanted = mediumOf(plan, (file) => host.mediaPathOf(file));
  let now = devices;
  const put = (drive: XmlElement | undefined, path: string | undefined, serial?: string): void => {
    if (drive === undefined) now = { ...now, children: [...now.children, withMedium(newDrive(now, root, serial), path)] };
    else if (mediumIn(drive) !== path) now = { ...now, children: now.children.map((node) => (node === drive ? withMedium(drive, path) : node)) };
  };
  const of = plan.adopted ?? { macs: [] };
  const { media } = drivesOf(now, of);
  if (saysBoot(plan) && (media !== undefined || wanted !== undefined)) put(media, wanted);
  if (host.seedPath !== undefined) put(drivesOf(now, of).seed, host.seedPath, SEED_SERIAL);
  return now;
}

/** On the bus that the machine has anyway. */
function newDrive(devices: XmlElement, root: XmlElement, serial: string | undefined): XmlElement {
  const machine = attributeOf(root, 'machine', 'os', 'type') ?? '';
  const hasScsi = childrenOf(devices, 'controller').some(({ attributes }) => attributes['type'] === 'scsi');
  const bus = hasScsi ? 'scsi' : /q35/.test(machine) ? 'sata' : /^pc/.test(machine) ? 'ide' : 'scsi';
  const taken = new Set(childrenOf(devices, 'disk').map((disk) => attributeOf(disk, 'dev', 'target')));
  const free = [...'abcdefghijklmnopqrstuvwxyz'].map((letter) => `${bus === 'ide' ? 'hd' : 'sd'}${letter}`).find((name) => !taken.has(name)) ?? 'sda';
  return element('disk', { type: 'file', device: 'cdrom' }, element('target', { dev: free, bus }), ...(serial === undefined ? [] : [element('serial', {}, serial)]), element('readonly'));
}

/**
 * What is kept of a domain's XML (told with the flag `secure`), so that it can be defined anew: all but what
 * others wrote into its metadata, and screens with a password, which would come back open to anybody.
 * undefined: it hands QEMU words of its own, of which nobody knows which are secret; or it is too long.
 */
export function keptDefinition(xml: string): string | undefined {
  const root = parseXml(xml);
  if (root.children.some((node) => isElement(node) && node.name.includes(':'))) return undefined;
  const devices = childOf(root, 'devices') ?? element('devices');
  const guarded = (node: XmlNode): boolean => isElement(node, 'graphics') && Object.keys(node.attributes).some((name) => name.startsWith('passwd'));
  const said = buildXml(withChild({ ...root, children: root.children.filter((node) => !isElement(node, 'metadata')) }, { ...devices, children: devices.children.filter((node) => !guarded(node)) }));
  return said.length > DEFINITION_MAX ? undefined : said;
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
    ...plan.nics.filter(({ mac }) => !present.has(mac)).map((nic) => nicXml(nic, plan.devices, plan.isolated)),
  ];
  return { ...devices, children: [...children, ...added.map(({ xml }) => parseXml(xml))] };
}

