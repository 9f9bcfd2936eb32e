/*
 * What a domain is, as XML and as facts. The XML is kept as text, because a fleet has tens of thousands of
 * them and few are ever looked at; the facts that the machine runs on are read once.
 *
 * A definition is what the caller gave with the hypervisor's defaults filled in. What a running domain
 * shows besides (its id, aliases, the node's ends of its devices) follows from the definition and a few
 * numbers, so it is made when someone asks, and kept only once a device was plugged in or out.
 */
import { attributeOf, buildXml, childOf, childrenOf, element, parseXml, textOf, XmlError } from '../xml.ts';
import type { XmlElement, XmlNode } from '../xml.ts';
import { configUnsupported, Refusal, xmlSyntax, xmlWrong } from './refusal.ts';

export interface DiskFacts {
  readonly target: string;
  readonly device: string;
  readonly bus: string;
  /** The image that is written to, and those below it. Empty for a drive without medium. */
  readonly chain: readonly string[];
  readonly format: string;
  readonly readOnly: boolean;
  readonly alias: string | undefined;
}

export interface InterfaceFacts {
  readonly mac: string;
  readonly kind: string;
  readonly network: string | undefined;
  /** The node's end, where the XML says one. */
  readonly device: string | undefined;
  readonly alias: string | undefined;
}

export interface Facts {
  readonly name: string;
  readonly uuid: string;
  readonly virtualisation: string;
  readonly memoryKibMax: number;
  readonly memoryKib: number;
  /** Limit of hot-plugged memory, and its slots. */
  readonly memoryKibPlug: number;
  readonly memorySlots: number;
  readonly memoryPluggedKib: number;
  readonly vcpusMax: number;
  readonly vcpus: number;
  readonly disks: readonly DiskFacts[];
  readonly interfaces: readonly InterfaceFacts[];
  readonly agent: boolean;
  readonly consoles: number;
  readonly graphics: boolean;
  readonly balloon: boolean;
  readonly onPoweroff: string;
  readonly onReboot: string;
  readonly onCrash: string;
}

export interface Definition {
  readonly xml: string;
  readonly facts: Facts;
}

/** Throws what libvirt says of XML that is none, or not of the root. */
export function parsed(xml: string, root: string): XmlElement {
  let tree: XmlElement;
  try {
    tree = parseXml(xml);
  } catch (cause) {
    if (!(cause instanceof XmlError)) throw cause;
    throw xmlSyntax(`(${root}_definition):1: ${cause.message}`);
  }
  if (tree.name !== root) throw xmlWrong(`expecting root element of '${root}', not '${tree.name}'`, 'none');
  return tree;
}

const isBlank = (node: XmlNode): boolean => typeof node === 'string' && node.trim() === '';

/** Lines and two spaces for each level, as libvirt prints. */
function indented(node: XmlElement, depth: number): XmlElement {
  const children = node.children.filter((child) => !isBlank(child));
  if (children.length === 0 || children.some((child) => typeof child === 'string')) return { ...node, children };
  const spaced: XmlNode[] = [];
  for (const child of children) spaced.push(`\n${'  '.repeat(depth + 1)}`, indented(child as XmlElement, depth + 1));
  spaced.push(`\n${'  '.repeat(depth)}`);
  return { ...node, children: spaced };
}
export const printed = (root: XmlElement): string => `${buildXml(indented(root, 0))}\n`;

const kibUnits: Readonly<Record<string, number>> = { b: 1 / 1024, bytes: 1 / 1024, KB: 1000 / 1024, k: 1, KiB: 1, MB: 1_000_000 / 1024, M: 1024, MiB: 1024, GB: 1e9 / 1024, G: 1_048_576, GiB: 1_048_576, TB: 1e12 / 1024, T: 1_073_741_824, TiB: 1_073_741_824 };

/** A size with its unit. */
export function kibOf(size: XmlElement | undefined, unitOtherwise = 'KiB'): number {
  const unit = size?.attributes['unit'] ?? unitOtherwise;
  const factor = kibUnits[unit];
  const amount = Number(textOf(size));
  if (factor === undefined) throw invalidUnit(unit);
  if (textOf(size) === '' || !Number.isFinite(amount) || amount < 0) throw xmlWrong(`missing or malformed memory amount '${textOf(size)}'`);
  return Math.ceil(amount * factor);
}
const invalidUnit = (unit: string): Refusal => xmlWrong(`unknown suffix '${unit}'`);
export const bytesOf = (size: XmlElement | undefined): number => Math.round((kibUnits[size?.attributes['unit'] ?? 'bytes'] ?? 1 / 1024) * 1024 * Number(textOf(size)));

/** One child in the place of another of its name, or at the end. `undefined` takes it away. */
export function withChild(parent: XmlElement, name: string, child: XmlElement | undefined): XmlElement {
  const at = parent.children.findIndex((one) => typeof one !== 'string' && one.name === name);
  const children = [...parent.children];
  if (at === -1) {
    if (child !== undefined) children.push(child);
  } else if (child === undefined) children.splice(at, 1);
  else children[at] = child;
  return { ...parent, children };
}
export const withAttributes = (node: XmlElement, attributes: Readonly<Record<string, string>>): XmlElement => ({ ...node, attributes: { ...node.attributes, ...attributes } });

const uuidForm = /^[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$/i;
export function uuidOf(root: XmlElement, otherwise: () => string): string {
  const given = textOf(childOf(root, 'uuid'));
  if (given === '') return otherwise();
  if (!uuidForm.test(given)) throw xmlWrong(`malformed uuid element`);
  const digits = given.replaceAll('-', '').toLowerCase();
  return `${digits.slice(0, 8)}-${digits.slice(8, 12)}-${digits.slice(12, 16)}-${digits.slice(16, 20)}-${digits.slice(20)}`;
}
export function nameOf(root: XmlElement): string {
  const name = textOf(childOf(root, 'name'));
  // VIR_ERR_NO_NAME
  if (name === '') throw new Refusal(21, 'domainConfiguration', 'missing name information');
  if (name.includes('/')) throw xmlWrong(`name ${name} cannot contain '/'`);
  return name;
}

export interface Defaults {
  readonly uuid: () => string;
  readonly mac: (index: number) => string;
  readonly emulator: string;
}

const kib = (name: string, amount: number): XmlElement => element(name, { unit: 'KiB' }, amount);
const alwaysFirst = ['name', 'uuid', 'genid', 'title', 'description', 'metadata', 'maxMemory', 'memory', 'currentMemory'];

/** What the caller gave, with the defaults that QEMU's driver fills in. */
export function domainDefinition(xml: string, defaults: Defaults): Definition {
  return definitionOf(normalised(parsed(xml, 'domain'), defaults));
}

export function definitionOf(root: XmlElement): Definition {
  return { xml: printed(root), facts: factsOf(root) };
}

function normalised(given: XmlElement, defaults: Defaults): XmlElement {
  const { type } = given.attributes;
  if (type === undefined) throw xmlWrong("missing domain type attribute");
  if (type !== 'qemu' && type !== 'kvm') throw configUnsupported(`could not find capabilities for domaintype=${type}`, 'domainConfiguration');
  const name = nameOf(given);
  const uuid = uuidOf(given, defaults.uuid);
  const child = (word: string) => childOf(given, word);
  if (child('memory') === undefined && child('cpu') === undefined) throw xmlWrong('missing or malformed memory amount');
  const cells = childrenOf(childOf(given, 'cpu', 'numa'), 'cell');
  const memory = cells.length > 0 ? cells.reduce((sum, cell) => sum + kibOf(element('memory', { unit: cell.attributes['unit'] }, cell.attributes['memory'])), 0) : kibOf(child('memory'));
  // A dimm is part of the memory as it is written.
  const dimms = childrenOf(child('devices'), 'memory').reduce((sum, dimm) => sum + kibOf(childOf(dimm, 'target', 'size')), 0);
  const total = memory + (cells.length > 0 ? dimms : 0);
  if (total === 0) throw xmlWrong('memory size must be specified via <memory> or in the <numa> configuration');
  const current = child('currentMemory') === undefined ? total : Math.min(total, kibOf(child('currentMemory')));
  const os = child('os');
  const osType = childOf(os, 'type');
  // VIR_ERR_OS_TYPE
  if (os === undefined || osType === undefined) throw new Refusal(16, 'domainConfiguration', 'an os <type> must be specified');
  const vcpu = child('vcpu');
  const vcpus = textOf(vcpu) === '' ? 1 : Number(textOf(vcpu));
  if (!Number.isInteger(vcpus) || vcpus < 1) throw xmlWrong('maximum vcpus count must be an integer');
  const vcpusNow = Number(vcpu?.attributes['current'] ?? vcpus);
  if (vcpusNow > vcpus) throw xmlWrong(`maxvcpus must not be less than current vcpus (${vcpus} < ${vcpusNow})`);
  const rest = childrenOf(given).filter((one) => !alwaysFirst.includes(one.name) && !['vcpu', 'os', 'devices', 'on_poweroff', 'on_reboot', 'on_crash'].includes(one.name));
  const before = rest.filter((one) => ['memoryBacking', 'memtune', 'numatune', 'blkiotune', 'iothreads', 'cputune', 'resource', 'sysinfo'].includes(one.name));
  const word = (of: string, otherwise: string) => element(of, {}, textOf(child(of)) || otherwise);
  const maxMemory = child('maxMemory');
  return element(
    'domain',
    Object.fromEntries(Object.entries(given.attributes).filter(([key]) => key !== 'id')),
    element('name', {}, name),
    element('uuid', {}, uuid),
    child('genid'),
    child('title'),
    child('description'),
    child('metadata'),
    maxMemory === undefined ? undefined : element('maxMemory', { slots: maxMemory.attributes['slots'], unit: 'KiB' }, kibOf(maxMemory)),
    kib('memory', total),
    kib('currentMemory', current),
    element('vcpu', { ...vcpu?.attributes, placement: vcpu?.attributes['placement'] ?? 'static' }, vcpus),
    ...before,
    { ...os, children: os.children.map((one) => (typeof one !== 'string' && one.name === 'type' ? { ...one, attributes: { ...one.attributes, arch: one.attributes['arch'] ?? 'x86_64', machine: machineOf(one.attributes['machine']) } } : one)) },
    ...rest.filter((one) => !before.includes(one)),
    ...(child('clock') === undefined ? [element('clock', { offset: 'utc' })] : []),
    word('on_poweroff', 'destroy'),
    word('on_reboot', 'restart'),
    word('on_crash', 'destroy'),
    devicesOf(child('devices'), defaults),
  );
}

const machineOf = (given: string | undefined): string => ({ q35: 'pc-q35-7.2', pc: 'pc-i440fx-7.2' })[given ?? 'pc'] ?? (given as string);

function devicesOf(given: XmlElement | undefined, defaults: Defaults): XmlElement {
  const devices = childrenOf(given);
  const seen = new Set<string>();
  let interfaces = 0;
  const filled = devices.map((device) => {
    if (device.name === 'disk') {
      const disk = diskWithDefaults(device);
      const target = attributeOf(disk, 'dev', 'target') as string;
      if (seen.has(target)) throw xmlWrong(`target '${target}' duplicated for disk sources '${attributeOf(disk, 'file', 'source') ?? ''}'`);
      seen.add(target);
      return disk;
    }
    if (device.name === 'interface') return interfaceWithDefaults(device, () => defaults.mac(interfaces++));
    return device;
  });
  const has = (name: string) => devices.some((device) => device.name === name);
  // QEMU's first console is its first serial port.
  const serial = !has('serial') && devices.find((device) => device.name === 'console' && (attributeOf(device, 'type', 'target') ?? 'serial') === 'serial');
  return element(
    'devices',
    {},
    has('emulator') ? undefined : element('emulator', {}, defaults.emulator),
    ...filled.filter((device) => device.name !== 'console'),
    serial ? element('serial', { type: serial.attributes['type'] ?? 'pty' }, ...childrenOf(serial).filter((one) => one.name !== 'target'), element('target', { type: 'isa-serial', port: 0 }, element('model', { name: 'isa-serial' }))) : undefined,
    ...(has('console')
      ? filled.filter((device) => device.name === 'console')
      : has('serial')
        ? [element('console', { type: devices.find((device) => device.name === 'serial')?.attributes['type'] ?? 'pty' }, element('target', { type: 'serial', port: 0 }))]
        : []),
    has('memballoon') ? undefined : element('memballoon', { model: 'virtio' }),
  );
}

const busOf = (target: string): string => (target.startsWith('vd') ? 'virtio' : target.startsWith('sd') ? 'scsi' : target.startsWith('hd') ? 'ide' : target.startsWith('fd') ? 'fdc' : 'virtio');

export function diskWithDefaults(disk: XmlElement): XmlElement {
  const target = childOf(disk, 'target');
  if (target?.attributes['dev'] === undefined) throw xmlWrong('missing target information for device');
  const driver = childOf(disk, 'driver');
  const withDriver = driver === undefined ? { ...disk, children: [element('driver', { name: 'qemu', type: 'raw' }), ...disk.children] } : withChild(disk, 'driver', element('driver', { ...driver.attributes, name: driver.attributes['name'] ?? 'qemu', type: driver.attributes['type'] ?? 'raw' }, ...driver.children));
  const withBus = withChild(withDriver, 'target', withAttributes(target, { dev: target.attributes['dev'], bus: target.attributes['bus'] ?? busOf(target.attributes['dev']) }));
  const device = disk.attributes['device'] ?? 'disk';
  const readOnly = device === 'cdrom' && childOf(disk, 'readonly') === undefined ? { ...withBus, children: [...withBus.children, element('readonly')] } : withBus;
  return withAttributes(readOnly, { type: disk.attributes['type'] ?? 'file', device });
}

const macForm = /^([0-9a-f]{2}:){5}[0-9a-f]{2}$/i;
export function interfaceWithDefaults(one: XmlElement, mac: () => string): XmlElement {
  const given = attributeOf(one, 'address', 'mac');
  if (one.attributes['type'] === undefined) throw xmlWrong('missing interface type attribute');
  if (given !== undefined && !macForm.test(given)) throw xmlWrong(`unable to parse mac address '${given}'`);
  const rest = one.children.filter((child) => typeof child === 'string' || child.name !== 'mac');
  const model = childOf(one, 'model') === undefined ? [element('model', { type: 'rtl8139' })] : [];
  return { ...one, children: [element('mac', { address: (given ?? mac()).toLowerCase() }), ...rest, ...model] };
}

function chainOf(disk: XmlElement): string[] {
  const chain: string[] = [];
  const depthMax = 200;
  for (let at: XmlElement | undefined = disk, depth = 0; at !== undefined && depth < depthMax; at = childOf(at, 'backingStore'), depth += 1) {
    const source = childOf(at, 'source');
    const path = source?.attributes['file'] ?? source?.attributes['dev'] ?? source?.attributes['name'] ?? (source?.attributes['volume'] === undefined ? undefined : `${source.attributes['pool']}/${source.attributes['volume']}`);
    if (path !== undefined) chain.push(path);
  }
  return chain;
}

export function diskFacts(disk: XmlElement): DiskFacts {
  return {
    target: attributeOf(disk, 'dev', 'target') ?? '',
    device: disk.attributes['device'] ?? 'disk',
    bus: attributeOf(disk, 'bus', 'target') ?? 'virtio',
    chain: chainOf(disk),
    format: attributeOf(disk, 'type', 'driver') ?? 'raw',
    readOnly: childOf(disk, 'readonly') !== undefined,
    alias: attributeOf(disk, 'name', 'alias'),
  };
}

export function interfaceFacts(one: XmlElement): InterfaceFacts {
  return {
    mac: attributeOf(one, 'address', 'mac') ?? '',
    kind: one.attributes['type'] ?? '',
    network: attributeOf(one, 'network', 'source'),
    device: attributeOf(one, 'dev', 'target'),
    alias: attributeOf(one, 'name', 'alias'),
  };
}

function factsOf(root: XmlElement): Facts {
  const devices = childOf(root, 'devices');
  const memory = kibOf(childOf(root, 'memory'));
  const vcpu = childOf(root, 'vcpu');
  const maxMemory = childOf(root, 'maxMemory');
  const dimms = childrenOf(devices, 'memory');
  return {
    name: textOf(childOf(root, 'name')),
    uuid: textOf(childOf(root, 'uuid')),
    virtualisation: root.attributes['type'] ?? '',
    memoryKibMax: memory,
    memoryKib: kibOf(childOf(root, 'currentMemory')),
    memoryKibPlug: maxMemory === undefined ? 0 : kibOf(maxMemory),
    memorySlots: Number(maxMemory?.attributes['slots'] ?? 0),
    memoryPluggedKib: dimms.reduce((sum, dimm) => sum + kibOf(childOf(dimm, 'target', 'size')), 0),
    vcpusMax: Number(textOf(vcpu)),
    vcpus: Number(vcpu?.attributes['current'] ?? textOf(vcpu)),
    disks: childrenOf(devices, 'disk').map(diskFacts),
    interfaces: childrenOf(devices, 'interface').map(interfaceFacts),
    agent: childrenOf(devices, 'channel').some((channel) => attributeOf(channel, 'name', 'target') === 'org.qemu.guest_agent.0'),
    consoles: Math.max(childrenOf(devices, 'serial').length, childrenOf(devices, 'console').length),
    graphics: childrenOf(devices, 'graphics').length + childrenOf(devices, 'video').length > 0,
    balloon: childrenOf(devices, 'memballoon').some((balloon) => balloon.attributes['model'] !== 'none'),
    onPoweroff: textOf(childOf(root, 'on_poweroff')),
    onReboot: textOf(childOf(root, 'on_reboot')),
    onCrash: textOf(childOf(root, 'on_crash')),
  };
}

/** The numbers that a domain was given when it started. */
export interface Runtime {
  readonly id: number;
  /** Its interfaces are vnetN from here on. */
  readonly vnetFirst: number;
  readonly agentConnected: boolean;
  readonly blockJobs?: ReadonlyMap<string, { readonly type: string; readonly ready: boolean }> | undefined;
}

export function diskAlias(disk: DiskFacts): string {
  const letters = disk.target.replace(/^[vshf]d/, '');
  const index = [...letters].reduce((sum, letter) => sum * 26 + letter.charCodeAt(0) - 96, 0) - 1;
  return disk.bus === 'virtio' ? `virtio-disk${index}` : disk.bus === 'fdc' ? `fdc0-0-${index}` : disk.bus === 'scsi' ? `scsi0-0-0-${index}` : `${disk.bus}0-0-${index}`;
}

/** Where a job writes what the guest writes, until it is told to go over or to stop. */
function mirrorOf({ target }: DiskFacts, { blockJobs }: Runtime): XmlElement | undefined {
  const job = blockJobs?.get(target);
  if (job?.type !== 'copy' && job?.type !== 'activeCommit') return undefined;
  return element('mirror', { type: 'file', job: job.type === 'copy' ? 'copy' : 'active-commit', ready: job.ready ? 'yes' : undefined });
}

/** What a running domain shows: aliases, and the node's ends of its devices. What has them keeps them. */
export function liveTree(root: XmlElement, runtime: Runtime): XmlElement {
  const counts = new Map<string, number>();
  const next = (kind: string) => {
    const number = counts.get(kind) ?? 0;
    counts.set(kind, number + 1);
    return number;
  };
  const aliased = (device: XmlElement, alias: string) => (childOf(device, 'alias') === undefined ? { ...device, children: [...device.children, element('alias', { name: alias })] } : device);
  const shown = (device: XmlElement): XmlElement => {
    switch (device.name) {
      case 'disk': {
        const number = next('disk');
        const source = childOf(device, 'source');
        const indexed = source === undefined || source.attributes['index'] !== undefined ? device : withChild(device, 'source', withAttributes(source, { index: String(number + 1) }));
        const backed = source === undefined || childOf(indexed, 'backingStore') !== undefined ? indexed : { ...indexed, children: indexed.children.flatMap((one) => (typeof one !== 'string' && one.name === 'source' ? [one, element('backingStore')] : [one])) };
        return aliased(withChild(backed, 'mirror', mirrorOf(diskFacts(device), runtime)), diskAlias(diskFacts(device)));
      }
      case 'interface': {
        const number = next('interface');
        const target = childOf(device, 'target');
        const plugged = device.attributes['type'] === 'user' || target?.attributes['dev'] !== undefined ? device : withChild(device, 'target', element('target', { ...target?.attributes, dev: `vnet${runtime.vnetFirst + number}` }));
        return aliased(plugged, `net${number}`);
      }
      case 'serial':
      case 'console': {
        const number = next(device.name);
        if (device.attributes['type'] !== 'pty') return aliased(device, `serial${number}`);
        const path = `/dev/pts/${runtime.id * 4 + number}`;
        const withSource = childOf(device, 'source') === undefined ? { ...device, children: [element('source', { path }), ...device.children] } : device;
        return aliased(device.name === 'console' ? withAttributes(withSource, { tty: path }) : withSource, `serial${number}`);
      }
      case 'channel': {
        const number = next('channel');
        const target = childOf(device, 'target');
        const stated = target?.attributes['type'] !== 'virtio' ? device : withChild(device, 'target', withAttributes(target, { state: target.attributes['name'] === 'org.qemu.guest_agent.0' && runtime.agentConnected ? 'connected' : 'disconnected' }));
        return aliased(stated, `channel${number}`);
      }
      case 'memory':
        return aliased(device, `dimm${next('memory')}`);
      case 'memballoon':
        return aliased(device, 'balloon0');
      case 'emulator':
      case 'graphics':
        return device;
      default:
        return aliased(device, `${device.name}${next(device.name)}`);
    }
  };
  const devices = childOf(root, 'devices');
  const live = devices === undefined ? root : withChild(root, 'devices', { ...devices, children: childrenOf(devices).map(shown) });
  return withAttributes(live, { id: String(runtime.id) });
}
