/*
 * Another machine of the same kind as one that was adopted, from what that was defined as.
 *
 * The definition was written by somebody else, on a node that may be another: files, sockets and devices that
 * it names are not this machine's to have, and a node that was broken into must not reach others by it. So
 * only what is known to stay inside the machine is taken over, by name; whatever leads out of it (disks,
 * interfaces, screen, console, drives) is one of ours in the place of the other's, so the guest finds its
 * devices where they were.
 */
import { uuidOf } from '@chronovirt/contracts/ids';
import { attributeOf, buildXml, childOf, childrenOf, element, parseXml, withAttribute } from '@chronovirt/libvirt/xml';
import type { XmlElement, XmlNode } from '@chronovirt/libvirt/xml';
import { domainName, nicXml, targetOf } from '../domain/domain-xml.ts';
import type { DomainHost } from '../domain/domain-xml.ts';
import type { DomainPlan } from '../hypervisor.ts';

const isElement = (node: XmlNode): node is XmlElement => typeof node !== 'string';
const only = (parent: XmlElement, ...names: readonly string[]): readonly XmlElement[] => childrenOf(parent).filter(({ name }) => names.includes(name));

/** What is said of the machine as a whole and leads nowhere. */
const KEPT = ['description', 'maxMemory', 'memory', 'currentMemory', 'vcpu', 'vcpus', 'iothreads', 'iothreadids', 'features', 'cpu', 'clock', 'on_poweroff', 'on_reboot', 'on_crash', 'pm'];
/** Devices that are all inside. */
const INSIDE = ['controller', 'hub', 'watchdog', 'memballoon', 'panic', 'iommu'];
const INPUTS = ['mouse', 'keyboard', 'tablet'];
const DISK_PARTS = ['driver', 'target', 'address', 'serial', 'wwn', 'boot', 'iotune', 'blockio', 'readonly', 'vendor', 'product'];
/** Of a disk's driver: how it is read, and by which of the machine's own threads. */
const DRIVER_WORDS = ['name', 'type', 'cache', 'io', 'discard', 'detect_zeroes', 'iothread', 'queues'];

/** libvirt finds the firmware's files on the node where it is defined; what the other's firmware remembered stays with the other. */
function osOf(os: XmlElement | undefined): XmlElement {
  const loader = childOf(os, 'loader');
  const efi = os?.attributes['firmware'] === 'efi' || loader?.attributes['type'] === 'pflash';
  const secure = loader?.attributes['secure'] === 'yes' || childrenOf(childOf(os, 'firmware'), 'feature').some(({ attributes }) => attributes['name'] === 'secure-boot' && attributes['enabled'] === 'yes');
  const feature = (name: string): XmlElement => element('feature', { enabled: 'yes', name });
  const firmware = element('firmware', {}, ...(secure ? [feature('enrolled-keys'), feature('secure-boot')] : [element('feature', { enabled: 'no', name: 'secure-boot' })]));
  return element('os', efi ? { firmware: 'efi' } : {}, ...only(os ?? element('os'), 'type'), ...(efi ? [firmware] : []), ...(os === undefined ? [] : only(os, 'boot', 'bootmenu', 'bios')));
}

const diskOf = (disk: XmlElement): XmlElement => {
  const driver = childOf(disk, 'driver');
  const attributes = Object.fromEntries(Object.entries(driver?.attributes ?? {}).filter(([name]) => DRIVER_WORDS.includes(name)));
  return element('disk', { type: 'file', device: disk.attributes['device'] ?? 'disk' }, ...only(disk, ...DISK_PARTS).map((part) => (part.name === 'driver' ? element('driver', attributes) : part)));
};

/** In the place, and of the model, of the one that the other had there. */
const nicIn = (nic: DomainPlan['nics'][number], plan: DomainPlan, before: XmlElement): XmlElement => {
  const ours = parseXml(nicXml(nic, plan.devices, plan.isolated).xml);
  const kept = only(before, 'model', 'address', 'boot');
  return { ...ours, children: [...ours.children.filter((part) => !isElement(part) || part.name !== 'model' || !kept.some(({ name }) => name === 'model')), ...kept] };
};

/** `definition`: what `keptDefinition` gave. Disks get their files from `adoptedXml`, which what is given here is for. */
export function copiedXml(definition: string, plan: DomainPlan, host: DomainHost): string {
  const root = parseXml(definition);
  const disks = new Set(plan.disks.map((disk) => targetOf(disk, plan.devices)));
  let [nics, serials] = [0, 0];
  const devices = childrenOf(childOf(root, 'devices')).flatMap((device): readonly XmlElement[] => {
    const type = device.attributes['type'] ?? '';
    if (INSIDE.includes(device.name)) return [device];
    switch (device.name) {
      case 'disk': {
        const kind = device.attributes['device'] ?? 'disk';
        return kind === 'cdrom' || kind === 'floppy' || (kind === 'disk' && disks.has(attributeOf(device, 'dev', 'target') ?? '')) ? [diskOf(device)] : [];
      }
      case 'interface': {
        const nic = plan.nics[nics++];
        return nic === undefined ? [] : [nicIn(nic, plan, device)];
      }
      // Where its system writes, whoever reads; the first is the one that is kept.
      case 'serial':
      case 'console':
      case 'parallel':
        return [element(device.name, { type: 'pty' }, ...(device.name === 'serial' && serials++ === 0 ? [element('log', { file: host.consoleLog, append: 'on' })] : []), ...only(device, 'target', 'address'))];
      case 'channel':
        return type === 'unix' || type === 'pty' ? [element('channel', { type }, ...only(device, 'target', 'address'))] : [];
      // Neither of them shows or plays anything by itself on the node.
      case 'video':
        return [element('video', {}, ...only(device, 'model').map(({ attributes }) => element('model', attributes)), ...only(device, 'address'))];
      case 'sound':
        return [element('sound', device.attributes, ...only(device, 'codec', 'address'))];
      case 'input':
        return INPUTS.includes(type) ? [device] : [];
      case 'rng':
        return [element('rng', { model: device.attributes['model'] }, element('backend', { model: 'random' }, '/dev/urandom'), ...only(device, 'rate', 'address'))];
      case 'tpm':
        return [element('tpm', { model: device.attributes['model'] }, element('backend', { type: 'emulator', version: '2.0' }))];
      case 'memory':
        return device.attributes['model'] === 'dimm' ? [element('memory', { model: 'dimm' }, ...only(device, 'target', 'address'))] : [];
      default:
        return [];
    }
  });
  const screen = element('graphics', { type: 'vnc', autoport: 'no' }, element('listen', { type: 'socket', socket: host.screenSocket }));
  // Without the accelerator that it asks for it would be refused here; which has one, placement sees to.
  const type = ['kvm', 'qemu', 'test'].find((one) => one === root.attributes['type']) ?? host.type;
  return buildXml(element('domain', { type }, element('name', {}, domainName(plan.name, plan.vmId)), element('uuid', {}, uuidOf(plan.vmId)),
    ...KEPT.flatMap((name) => childrenOf(root, name)).map((part) => (part.name === 'vcpu' ? withAttribute(part, 'cpuset', undefined) : part)), osOf(childOf(root, 'os')), element('devices', {}, ...devices, screen)));
}
