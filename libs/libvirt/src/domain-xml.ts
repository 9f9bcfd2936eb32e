/** What a domain's XML says, as far as an agent asks. `root` is the whole tree, for what is not here. */
import { attributeOf, childOf, childrenOf, parseXml, textOf, XmlError } from './xml.ts';
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

const kibIn: Readonly<Record<string, number>> = {
  b: 1 / 1024,
  bytes: 1 / 1024,
  KB: 1000 / 1024,
  k: 1,
  KiB: 1,
  MB: 1_000_000 / 1024,
  M: 1024,
  MiB: 1024,
  GB: 1_000_000_000 / 1024,
  G: 1_048_576,
  GiB: 1_048_576,
  TB: 1_000_000_000_000 / 1024,
  T: 1_073_741_824,
  TiB: 1_073_741_824,
};

function kibOf(size: XmlElement | undefined): number {
  const unit = size?.attributes['unit'] ?? 'KiB';
  const factor = kibIn[unit];
  const amount = Number(textOf(size));
  if (factor === undefined || !Number.isFinite(amount)) throw new XmlError(`a size of ${textOf(size)} ${unit}`);
  return Math.floor(amount * factor);
}

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
