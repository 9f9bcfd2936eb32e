/*
 * Devices that come and go while a domain runs, and the numbers of its vCPUs and its memory. A change is
 * for what runs, for the configuration, or for both; without a word it is for what the domain is now.
 */
import { attributeOf, childOf, childrenOf, element, textOf } from '../xml.ts';
import type { XmlElement } from '../xml.ts';
import { diskAlias, diskFacts, diskWithDefaults, interfaceWithDefaults, kibOf, withAttributes, withChild } from './definition.ts';
import { lease, networkByName } from './networks.ts';
import type { FakeDomain, FakeNode } from './node.ts';
import { configUnsupported, internal, invalidArgument, noDevice, operationFailed, operationInvalid, operationUnsupported, xmlSyntax, xmlWrong } from './refusal.ts';
import { parseXml, XmlError } from '../xml.ts';

export type Affect = 'live' | 'config';

/** What a change is for. Throws when the domain is not like that. */
export function affected(domain: FakeDomain, flags: readonly string[]): readonly Affect[] {
  const live = flags.includes('live') || (!flags.includes('config') && domain.active);
  const config = flags.includes('config') || (!flags.includes('live') && !domain.active);
  if (live && !domain.active) throw operationInvalid('domain is not running', 'domainConfiguration');
  if (config && domain.persistent === undefined) throw operationInvalid('transient domains do not have any persistent config', 'domainConfiguration');
  return [...(live ? (['live'] as const) : []), ...(config ? (['config'] as const) : [])];
}

const plugged = ['disk', 'interface', 'memory', 'channel', 'serial', 'console', 'hostdev', 'rng', 'controller', 'input', 'watchdog', 'filesystem', 'redirdev', 'vsock', 'shmem', 'lease'];

function deviceOf(xml: string): XmlElement {
  let device: XmlElement;
  try {
    device = parseXml(xml);
  } catch (cause) {
    if (cause instanceof XmlError) throw xmlSyntax(`(device_definition):1: ${cause.message}`);
    throw cause;
  }
  if (!plugged.includes(device.name)) throw xmlWrong(`unknown device type '${device.name}'`, 'none');
  return device;
}

const devicesIn = (root: XmlElement): readonly XmlElement[] => childrenOf(childOf(root, 'devices'));
const withDevices = (root: XmlElement, devices: readonly XmlElement[]): XmlElement => withChild(root, 'devices', { ...(childOf(root, 'devices') as XmlElement), children: devices });

const macOf = (device: XmlElement): string | undefined => attributeOf(device, 'address', 'mac')?.toLowerCase();
const aliasOf = (device: XmlElement): string | undefined => attributeOf(device, 'name', 'alias');

/** Which device is meant. */
function matching(devices: readonly XmlElement[], wanted: XmlElement): XmlElement | undefined {
  // Only what runs has aliases, besides those that a user gave; a client may send those of what runs for both.
  const alias = devices.some((device) => aliasOf(device) !== undefined) ? aliasOf(wanted) : undefined;
  return devices.find((device) => {
    if (device.name !== wanted.name) return false;
    if (alias !== undefined) return aliasOf(device) === alias;
    switch (device.name) {
      case 'disk':
        return attributeOf(device, 'dev', 'target') === attributeOf(wanted, 'dev', 'target');
      case 'interface':
        return macOf(wanted) === undefined ? devices.filter((one) => one.name === 'interface').length === 1 : macOf(device) === macOf(wanted);
      case 'memory':
        return kibOf(childOf(device, 'target', 'size')) === kibOf(childOf(wanted, 'target', 'size'));
      default:
        return attributeOf(device, 'name', 'target') === attributeOf(wanted, 'name', 'target') && device.attributes['type'] === wanted.attributes['type'];
    }
  });
}

function missing(device: XmlElement): Error {
  if (device.name === 'disk') return noDevice(`disk ${attributeOf(device, 'dev', 'target')} not found`);
  if (device.name === 'interface') return noDevice(`no device matching MAC address ${macOf(device) ?? '(none)'} found`, 'domainConfiguration');
  return noDevice(`matching ${device.name} device was not found`, 'domainConfiguration');
}

const nextNumber = (devices: readonly XmlElement[], prefix: string): number => {
  for (let number = 0; ; number += 1) if (!devices.some((device) => aliasOf(device) === `${prefix}${number}`)) return number;
};

export function attach(node: FakeNode, domain: FakeDomain, xml: string, flags: readonly string[]): void {
  const which = affected(domain, flags);
  const given = deviceOf(xml);
  // The same device goes to both, with the same address.
  const device = given.name === 'disk' ? diskWithDefaults(given) : given.name === 'interface' ? interfaceWithDefaults(given, () => node.macNew(0)) : given;
  const roots = which.map((one) => ({ which: one, root: node.treeOf(domain, one) }));
  for (const { root, which: one } of roots) check(domain, one, devicesIn(root), device);
  for (const { root, which: one } of roots) {
    const devices = devicesIn(root);
    if (one === 'config') {
      node.setTree(domain, 'config', grown(withDevices(root, inPlace(devices, device)), device, 1));
      continue;
    }
    // A name that a user gave is kept.
    const own = aliasOf(device);
    const alias = own?.startsWith('ua-') === true ? own : device.name === 'disk' ? diskAlias(diskFacts(device)) : `${prefixOf(device)}${nextNumber(devices, prefixOf(device))}`;
    let plug: XmlElement = { ...device, children: [...childrenOf(device).filter((child) => child.name !== 'alias'), element('alias', { name: alias })] };
    if (device.name === 'interface') {
      const network = attributeOf(device, 'network', 'source');
      if (device.attributes['type'] === 'network' && network !== undefined) {
        const on = networkByName(node, network);
        if (on.live === undefined) throw operationInvalid(`network '${network}' is not active`, 'network');
        lease(node, on, macOf(device) as string, domain.name);
      }
      if (device.attributes['type'] !== 'user' && attributeOf(device, 'dev', 'target') === undefined) plug = withChild(plug, 'target', element('target', { dev: `vnet${node.vnetsNew(1)}` }));
    }
    node.setTree(domain, 'live', grown(withDevices(root, inPlace(devices, plug)), device, 1));
    node.emitDomain('deviceAdded', domain, { device: device.name === 'memory' ? `mem${alias}` : alias });
  }
}

const prefixOf = (device: XmlElement): string => ({ interface: 'net', memory: 'dimm' })[device.name] ?? device.name;

/** Behind the last of its kind. */
function inPlace(devices: readonly XmlElement[], device: XmlElement): XmlElement[] {
  const last = devices.findLastIndex((one) => one.name === device.name);
  const at = last === -1 ? devices.length : last + 1;
  return [...devices.slice(0, at), device, ...devices.slice(at)];
}

function check(domain: FakeDomain, which: Affect, devices: readonly XmlElement[], device: XmlElement): void {
  if (device.name === 'disk') {
    const target = attributeOf(device, 'dev', 'target');
    if (devices.some((one) => one.name === 'disk' && attributeOf(one, 'dev', 'target') === target)) throw which === 'live' ? xmlWrong(`target '${target}' duplicated for disk sources`) : operationInvalid(`target ${target} already exists`);
  }
  if (device.name === 'interface') {
    const mac = macOf(device);
    if (devices.some((one) => one.name === 'interface' && macOf(one) === mac)) throw operationFailed(`unable to attach interface: MAC address ${mac} is already in use`);
  }
  if (device.name === 'memory') {
    const facts = which === 'live' ? domain.facts : (domain.persistent as NonNullable<typeof domain.persistent>).facts;
    const size = kibOf(childOf(device, 'target', 'size'));
    if (facts.memoryKibPlug === 0) throw configUnsupported("cannot use/hotplug a memory device when domain 'maxMemory' is not defined", 'domainConfiguration');
    if (devices.filter((one) => one.name === 'memory').length >= facts.memorySlots) throw configUnsupported(`memory device count '${facts.memorySlots + 1}' exceeds slots count '${facts.memorySlots}'`, 'domainConfiguration');
    if (facts.memoryKibMax + size > facts.memoryKibPlug) throw configUnsupported("attaching memory device would exceed domain's maxMemory config", 'domainConfiguration');
  }
}

/** A dimm counts as memory of the domain. */
function grown(root: XmlElement, device: XmlElement, sign: 1 | -1): XmlElement {
  if (device.name !== 'memory') return root;
  const size = kibOf(childOf(device, 'target', 'size')) * sign;
  const by = (name: string, at: XmlElement) => withChild(at, name, element(name, { unit: 'KiB' }, kibOf(childOf(at, name)) + size));
  return by('currentMemory', by('memory', root));
}

export function detach(node: FakeNode, domain: FakeDomain, wanted: { readonly xml: string } | { readonly alias: string }, flags: readonly string[]): void {
  const which = affected(domain, flags);
  const found = which.map((one) => {
    const root = node.treeOf(domain, one);
    const devices = devicesIn(root);
    if ('alias' in wanted) {
      const device = devices.find((other) => aliasOf(other) === wanted.alias);
      if (device === undefined) throw internal(`no device found with alias ${wanted.alias}`, 'domainConfiguration');
      return { which: one, root, devices, device };
    }
    const given = deviceOf(wanted.xml);
    const device = matching(devices, given);
    if (device === undefined) throw missing(given);
    return { which: one, root, devices, device };
  });
  for (const { which: one, device } of found) {
    const kind = device.attributes['device'] ?? 'disk';
    const bus = attributeOf(device, 'bus', 'target') ?? '';
    if (one === 'live' && device.name === 'disk' && ['cdrom', 'floppy'].includes(kind) && !(kind === 'cdrom' && ['usb', 'scsi'].includes(bus))) throw operationUnsupported(`disk device type '${kind}' cannot be detached`);
  }
  for (const { which: one, root, devices, device } of found) {
    if (one === 'live' && device.name === 'disk' && domain.blockJobs?.has(attributeOf(device, 'dev', 'target') ?? '') === true) throw configUnsupported(`disk '${attributeOf(device, 'dev', 'target')}' already in active block job`);
    node.setTree(domain, one, grown(withDevices(root, devices.filter((other) => other !== device)), device, -1));
    if (one === 'live') node.emitDomain('deviceRemoved', domain, { device: aliasOf(device) ?? '' });
  }
}

/** Another medium in a drive, another network for an interface: what may change stays the same device. */
export function update(node: FakeNode, domain: FakeDomain, xml: string, flags: readonly string[]): void {
  const which = affected(domain, flags);
  const given = deviceOf(xml);
  const changes = which.map((one) => {
    const root = node.treeOf(domain, one);
    const devices = devicesIn(root);
    const before = matching(devices, given);
    if (before === undefined) throw missing(given);
    if (given.name !== 'disk' && given.name !== 'interface') throw one === 'live' ? configUnsupported(`live update of device '${given.name}' is not supported`) : operationUnsupported(`persistent update of device '${given.name}' is not supported`);
    if (given.name === 'disk' && one === 'live' && (before.attributes['device'] ?? 'disk') === 'disk' && attributeOf(before, 'file', 'source') !== attributeOf(given, 'file', 'source')) {
      throw configUnsupported('disk source can be changed only in removable drives');
    }
    const [modelBefore, modelAfter] = [before, given].map((device) => attributeOf(device, 'type', 'model') ?? 'rtl8139');
    if (given.name === 'interface' && one === 'live' && modelBefore !== modelAfter) throw operationUnsupported(`cannot modify network device model from ${modelBefore} to ${modelAfter}`);
    const after = given.name === 'disk' ? diskWithDefaults(given) : interfaceWithDefaults(given, () => macOf(before) ?? '');
    const kept = one === 'live' ? childrenOf(before).filter((child) => child.name === 'alias' || (child.name === 'target' && given.name === 'interface')) : [];
    const names = new Set(kept.map((child) => child.name));
    const device = withAttributes({ ...after, children: [...childrenOf(after).filter((child) => !names.has(child.name)), ...kept] }, {});
    return { one, root: withDevices(root, devices.map((other) => (other === before ? device : other))) };
  });
  for (const { one, root } of changes) node.setTree(domain, one, root);
}

export function setVcpus(node: FakeNode, domain: FakeDomain, vcpus: number, flags: readonly string[]): void {
  const which = affected(domain, flags);
  if (flags.includes('maximum') && which.includes('live')) throw invalidArgument('cannot adjust maximum on running domain');
  if (vcpus === 0) throw invalidArgument("argument 'nvcpus' must not be zero", 'domain');
  for (const one of which) {
    const facts = one === 'live' ? domain.facts : (domain.persistent as NonNullable<typeof domain.persistent>).facts;
    if (!flags.includes('maximum') && vcpus > facts.vcpusMax) {
      throw invalidArgument(`requested vcpus is greater than max allowable vcpus for the ${one === 'live' ? 'live' : 'persistent'} domain: ${vcpus} > ${facts.vcpusMax}`);
    }
  }
  for (const one of which) {
    const root = node.treeOf(domain, one);
    const vcpu = childOf(root, 'vcpu') as XmlElement;
    const max = flags.includes('maximum') ? vcpus : Number(textOf(vcpu));
    const now = flags.includes('maximum') ? Math.min(vcpus, Number(vcpu.attributes['current'] ?? max)) : vcpus;
    const rest = Object.fromEntries(Object.entries(vcpu.attributes).filter(([key]) => key !== 'current'));
    const running = one === 'live' && domain.state === 'running';
    // The load is that of the vCPUs: what was used so far stays used.
    if (running) node.setState(domain, 'running', domain.reason);
    node.setTree(domain, one, withChild(root, 'vcpu', element('vcpu', { ...rest, current: now === max ? undefined : now }, max)));
  }
}

/** How often the guest's balloon driver reports, in seconds. */
export function setMemoryStatsPeriod(node: FakeNode, domain: FakeDomain, seconds: number, flags: readonly string[]): void {
  if (seconds < 0) throw invalidArgument('period in virDomainSetMemoryStatsPeriod must be zero or greater', 'domainConfiguration');
  for (const one of affected(domain, flags)) {
    const root = node.treeOf(domain, one);
    const devices = devicesIn(root);
    const balloon = devices.find((device) => device.name === 'memballoon' && device.attributes['model'] !== 'none');
    if (balloon === undefined) throw operationInvalid('No memory balloon device configured, can not set the collection period');
    const now = withChild(balloon, 'stats', seconds === 0 ? undefined : element('stats', { period: seconds }));
    node.setTree(domain, one, withDevices(root, devices.map((device) => (device === balloon ? now : device))));
  }
}

export function setMemory(node: FakeNode, domain: FakeDomain, memoryKib: number, flags: readonly string[]): void {
  const which = affected(domain, flags);
  if (memoryKib === 0) throw invalidArgument("argument 'memory' must not be zero", 'domain');
  if (flags.includes('maximum')) {
    if (which.includes('live')) throw operationInvalid('cannot resize the maximum memory on an active domain');
    const root = node.treeOf(domain, 'config');
    const now = Math.min(memoryKib, kibOf(childOf(root, 'currentMemory')));
    return node.setTree(domain, 'config', withChild(withChild(root, 'memory', element('memory', { unit: 'KiB' }, memoryKib)), 'currentMemory', element('currentMemory', { unit: 'KiB' }, now)));
  }
  for (const one of which) {
    const { facts } = one === 'live' ? domain.definition : (domain.persistent as NonNullable<typeof domain.persistent>);
    if (memoryKib > facts.memoryKibMax) throw invalidArgument('cannot set memory higher than max memory');
    if (one === 'live' && !facts.balloon) throw operationInvalid('Unable to change memory of active domain without the balloon device and guest OS balloon driver');
  }
  for (const one of which) {
    node.setTree(domain, one, withChild(node.treeOf(domain, one), 'currentMemory', element('currentMemory', { unit: 'KiB' }, memoryKib)));
    if (one === 'live') node.emitDomain('balloonChange', domain, { memoryKib });
  }
}
