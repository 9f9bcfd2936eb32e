/*
 * Domain XML, as far as an agent asks and says. What is read keeps the whole tree in `root`; what is
 * built takes further elements under `more`, so that nothing of libvirt's format is out of reach.
 */
import { attributeOf, buildXml, bytesOf, childOf, childrenOf, element, parseXml, textOf, XmlError } from './xml.ts';
import type { XmlElement } from './xml.ts';

export interface DomainDisk {
  /** `disk`, `cdrom`, `floppy`, `lun`. */
  readonly device: string;
  /** The guest's name for it in libvirt, `vda`. */
  readonly target: string;
  readonly bus: string | undefined;
  /** File or block device on the node, where it is one. */
  readonly path: string | undefined;
  readonly format: string | undefined;
  readonly readOnly: boolean;
  /** `virtio-disk0`; only of a running domain. */
  readonly alias: string | undefined;
}

export interface DomainInterface {
  /** `network`, `bridge`, `user`, … */
  readonly kind: string;
  /** Lower case. */
  readonly mac: string | undefined;
  readonly network: string | undefined;
  readonly bridge: string | undefined;
  readonly model: string | undefined;
  /** The node's end, `vnet0`; only of a running domain. */
  readonly device: string | undefined;
  readonly alias: string | undefined;
}

export interface DomainDescription {
  readonly name: string;
  readonly uuid: string;
  /** Only of a running domain. */
  readonly id: number | undefined;
  /** `kvm`, `qemu` (emulation), `test`. */
  readonly virtualisation: string;
  readonly title: string | undefined;
  readonly memoryKibMax: number;
  readonly memoryKib: number;
  readonly vcpusMax: number;
  readonly vcpus: number;
  readonly metadata: XmlElement | undefined;
  readonly disks: readonly DomainDisk[];
  readonly interfaces: readonly DomainInterface[];
  readonly root: XmlElement;
}

const kibOf = (size: XmlElement | undefined): number => Math.floor(bytesOf(size, 'KiB') / 1_024);

/** Throws XmlError when it is not a domain. */
export function readDomain(xml: string): DomainDescription {
  const root = parseXml(xml);
  if (root.name !== 'domain') throw new XmlError(`<${root.name}> is not a domain`);
  const devices = childOf(root, 'devices');
  const memory = childOf(root, 'memory');
  const memoryNow = childOf(root, 'currentMemory');
  const vcpu = childOf(root, 'vcpu');
  const vcpusMax = Number(textOf(vcpu) || 1);
  const id = root.attributes['id'];
  const title = textOf(childOf(root, 'title'));
  return {
    name: textOf(childOf(root, 'name')),
    uuid: textOf(childOf(root, 'uuid')),
    id: id === undefined ? undefined : Number(id),
    virtualisation: root.attributes['type'] ?? '',
    title: title === '' ? undefined : title,
    memoryKibMax: kibOf(memory),
    memoryKib: memoryNow === undefined ? kibOf(memory) : kibOf(memoryNow),
    vcpusMax,
    vcpus: Number(vcpu?.attributes['current'] ?? vcpusMax),
    metadata: childOf(root, 'metadata'),
    disks: childrenOf(devices, 'disk').map((disk) => ({
      device: disk.attributes['device'] ?? 'disk',
      target: attributeOf(disk, 'dev', 'target') ?? '',
      bus: attributeOf(disk, 'bus', 'target'),
      path: attributeOf(disk, 'file', 'source') ?? attributeOf(disk, 'dev', 'source'),
      format: attributeOf(disk, 'type', 'driver'),
      readOnly: childOf(disk, 'readonly') !== undefined,
      alias: attributeOf(disk, 'name', 'alias'),
    })),
    interfaces: childrenOf(devices, 'interface').map((one) => ({
      kind: one.attributes['type'] ?? '',
      mac: attributeOf(one, 'address', 'mac')?.toLowerCase(),
      network: attributeOf(one, 'network', 'source'),
      bridge: attributeOf(one, 'bridge', 'source'),
      model: attributeOf(one, 'type', 'model'),
      device: attributeOf(one, 'dev', 'target'),
      alias: attributeOf(one, 'name', 'alias'),
    })),
    root,
  };
}

export interface DiskSpec {
  /** `disk` if left out. */
  readonly device?: 'disk' | 'cdrom' | 'floppy' | 'lun';
  /** The guest's name for it in libvirt, `vda`. */
  readonly target: string;
  readonly bus: 'virtio' | 'scsi' | 'sata' | 'ide' | 'usb' | 'fdc';
  /** None: a drive without a medium. */
  readonly source?:
    | { readonly file: string }
    | { readonly blockDevice: string }
    | { readonly pool: string; readonly volume: string }
    | { readonly protocol: 'rbd' | 'nbd' | 'iscsi' | 'nfs' | 'gluster' | 'http' | 'https'; readonly name: string; readonly hosts: readonly { readonly name: string; readonly port?: number }[] };
  /** `raw`, `qcow2`, … */
  readonly format?: string;
  /** `none`, `writeback`, `writethrough`, `directsync`, `unsafe`. */
  readonly cache?: string;
  /** Whether what the guest frees is freed on the node. */
  readonly discard?: 'unmap' | 'ignore';
  readonly serial?: string;
  readonly bootOrder?: number;
  readonly readOnly?: boolean;
  /** A name of one's own for later calls: libvirt wants `ua-…`. */
  readonly alias?: string;
  readonly more?: readonly XmlElement[];
}

/** `<disk>`, for a domain or for domainAttachDeviceFlags. */
export function diskElement(disk: DiskSpec): XmlElement {
  const { source } = disk;
  const [type, sourceElement] =
    source === undefined
      ? ['file', undefined]
      : 'file' in source
        ? ['file', element('source', { file: source.file })]
        : 'blockDevice' in source
          ? ['block', element('source', { dev: source.blockDevice })]
          : 'pool' in source
            ? ['volume', element('source', { pool: source.pool, volume: source.volume })]
            : ['network', element('source', { protocol: source.protocol, name: source.name }, ...source.hosts.map((host) => element('host', { name: host.name, port: host.port })))];
  return element(
    'disk',
    { type, device: disk.device ?? 'disk' },
    element('driver', { name: 'qemu', type: disk.format ?? 'raw', cache: disk.cache, discard: disk.discard }),
    sourceElement,
    element('target', { dev: disk.target, bus: disk.bus }),
    disk.readOnly === true ? element('readonly') : undefined,
    disk.serial === undefined ? undefined : element('serial', {}, disk.serial),
    disk.bootOrder === undefined ? undefined : element('boot', { order: disk.bootOrder }),
    disk.alias === undefined ? undefined : element('alias', { name: disk.alias }),
    ...(disk.more ?? []),
  );
}

export interface InterfaceSpec {
  readonly source: { readonly network: string } | { readonly bridge: string } | 'user';
  readonly mac?: string;
  /** `virtio` if left out. */
  readonly model?: string;
  /** Whether the plug is in. */
  readonly link?: 'up' | 'down';
  readonly mtu?: number;
  readonly filter?: string;
  readonly alias?: string;
  readonly more?: readonly XmlElement[];
}

/** `<interface>`, for a domain or for domainAttachDeviceFlags. */
export function interfaceElement(one: InterfaceSpec): XmlElement {
  const { source } = one;
  return element(
    'interface',
    { type: source === 'user' ? 'user' : 'network' in source ? 'network' : 'bridge' },
    one.mac === undefined ? undefined : element('mac', { address: one.mac }),
    source === 'user' ? undefined : element('source', source),
    element('model', { type: one.model ?? 'virtio' }),
    one.mtu === undefined ? undefined : element('mtu', { size: one.mtu }),
    one.filter === undefined ? undefined : element('filterref', { filter: one.filter }),
    one.link === undefined ? undefined : element('link', { state: one.link }),
    one.alias === undefined ? undefined : element('alias', { name: one.alias }),
    ...(one.more ?? []),
  );
}

export interface DomainSpec {
  readonly virtualisation: 'kvm' | 'qemu' | 'test';
  readonly name: string;
  readonly uuid?: string;
  readonly title?: string;
  /** Elements with namespaces of their own. */
  readonly metadata?: readonly XmlElement[];
  readonly memoryKib: number;
  /** Room for DIMMs: so much in all, in so many slots. Wants NUMA cells in `cpu`. */
  readonly memoryMax?: { readonly kib: number; readonly slots: number };
  readonly vcpus: number;
  /** Room for vCPUs that are plugged in later. */
  readonly vcpusMax?: number;
  readonly architecture?: string;
  /** `q35`, `pc`, or a versioned name. */
  readonly machine?: string;
  /** Has libvirt choose a firmware of this kind; left out: the machine's BIOS. */
  readonly firmware?: 'efi' | 'bios';
  readonly boot?: readonly ('hd' | 'cdrom' | 'network' | 'fd')[];
  /** `<cpu>`. */
  readonly cpu?: XmlElement;
  /** Names of simple ones, such as `acpi`, or whole elements. */
  readonly features?: readonly (string | XmlElement)[];
  readonly clock?: 'utc' | 'localtime';
  readonly onPoweroff?: 'destroy' | 'restart' | 'preserve';
  readonly onReboot?: 'destroy' | 'restart' | 'preserve';
  readonly onCrash?: 'destroy' | 'restart' | 'preserve' | 'coredump-destroy' | 'coredump-restart';
  readonly emulator?: string;
  readonly disks?: readonly DiskSpec[];
  readonly interfaces?: readonly InterfaceSpec[];
  /** A serial console, and where its output is kept besides. */
  readonly serial?: { readonly logFile?: string };
  /** The channel of the guest agent. */
  readonly agent?: boolean;
  readonly devices?: readonly XmlElement[];
  readonly more?: readonly XmlElement[];
}

const optionalText = (name: string, value: string | undefined): XmlElement | undefined => (value === undefined ? undefined : element(name, {}, value));

/** Domain XML. Throws XmlError for what XML cannot hold. */
export function buildDomain(spec: DomainSpec): string {
  const serial = spec.serial;
  return buildXml(
    element(
      'domain',
      { type: spec.virtualisation },
      element('name', {}, spec.name),
      optionalText('uuid', spec.uuid),
      optionalText('title', spec.title),
      spec.metadata === undefined ? undefined : element('metadata', {}, ...spec.metadata),
      spec.memoryMax === undefined ? undefined : element('maxMemory', { slots: spec.memoryMax.slots, unit: 'KiB' }, spec.memoryMax.kib),
      element('memory', { unit: 'KiB' }, spec.memoryKib),
      element('vcpu', spec.vcpusMax === undefined ? {} : { current: spec.vcpus }, spec.vcpusMax ?? spec.vcpus),
      element(
        'os',
        { firmware: spec.firmware },
        element('type', { arch: spec.architecture, machine: spec.machine }, 'hvm'),
        ...(spec.boot ?? []).map((dev) => element('boot', { dev })),
      ),
      spec.features === undefined ? undefined : element('features', {}, ...spec.features.map((feature) => (typeof feature === 'string' ? element(feature) : feature))),
      spec.cpu,
      element('clock', { offset: spec.clock ?? 'utc' }),
      optionalText('on_poweroff', spec.onPoweroff),
      optionalText('on_reboot', spec.onReboot),
      optionalText('on_crash', spec.onCrash),
      element(
        'devices',
        {},
        optionalText('emulator', spec.emulator),
        ...(spec.disks ?? []).map(diskElement),
        ...(spec.interfaces ?? []).map(interfaceElement),
        serial === undefined
          ? undefined
          : element('serial', { type: 'pty' }, serial.logFile === undefined ? undefined : element('log', { file: serial.logFile, append: 'on' }), element('target', { port: 0 })),
        spec.agent === true ? element('channel', { type: 'unix' }, element('target', { type: 'virtio', name: 'org.qemu.guest_agent.0' })) : undefined,
        ...(spec.devices ?? []),
      ),
      ...(spec.more ?? []),
    ),
  );
}
