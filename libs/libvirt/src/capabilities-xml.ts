/** What a node and its hypervisor say that they can do. `root` is the whole tree, for what is not here. */
import { attributeOf, bytesOf, childOf, childrenOf, parseXml, textOf, XmlError } from './xml.ts';
import type { XmlElement } from './xml.ts';

export interface NumaCell {
  readonly id: number;
  readonly memoryKib: number;
  readonly cpus: readonly number[];
}

export interface Capabilities {
  readonly host: {
    readonly uuid: string | undefined;
    readonly architecture: string;
    readonly cpuModel: string | undefined;
    readonly cpuVendor: string | undefined;
    readonly cells: readonly NumaCell[];
    readonly migrationTransports: readonly string[];
  };
  readonly guests: readonly {
    /** `hvm`. */
    readonly type: string;
    readonly architecture: string;
    readonly emulator: string | undefined;
    readonly machines: readonly string[];
    /** `kvm`, `qemu`, … A node may list `kvm` where no guest can run under it. */
    readonly virtualisations: readonly string[];
  }[];
  readonly root: XmlElement;
}

/** Throws XmlError when it is something else. */
export function readCapabilities(xml: string): Capabilities {
  const root = parseXml(xml);
  if (root.name !== 'capabilities') throw new XmlError(`<${root.name}> is not capabilities`);
  const host = childOf(root, 'host');
  const uuid = childOf(host, 'uuid');
  const model = childOf(host, 'cpu', 'model');
  const vendor = childOf(host, 'cpu', 'vendor');
  return {
    host: {
      uuid: uuid === undefined ? undefined : textOf(uuid),
      architecture: textOf(childOf(host, 'cpu', 'arch')),
      cpuModel: model === undefined ? undefined : textOf(model),
      cpuVendor: vendor === undefined ? undefined : textOf(vendor),
      cells: childrenOf(childOf(host, 'topology', 'cells'), 'cell').map((cell) => ({
        id: Number(cell.attributes['id']),
        memoryKib: childOf(cell, 'memory') === undefined ? 0 : Math.floor(bytesOf(childOf(cell, 'memory'), 'KiB') / 1_024),
        cpus: childrenOf(childOf(cell, 'cpus'), 'cpu').map((cpu) => Number(cpu.attributes['id'])),
      })),
      migrationTransports: childrenOf(childOf(host, 'migration_features', 'uri_transports'), 'uri_transport').map(textOf),
    },
    guests: childrenOf(root, 'guest').map((guest) => {
      const architecture = childOf(guest, 'arch');
      const emulator = childOf(architecture, 'emulator');
      return {
        type: textOf(childOf(guest, 'os_type')),
        architecture: architecture?.attributes['name'] ?? '',
        emulator: emulator === undefined ? undefined : textOf(emulator),
        machines: childrenOf(architecture, 'machine').map(textOf),
        virtualisations: childrenOf(architecture, 'domain').map((domain) => domain.attributes['type'] ?? ''),
      };
    }),
    root,
  };
}

export interface DomainCapabilities {
  readonly emulator: string;
  /** `kvm`, `qemu`. */
  readonly virtualisation: string;
  readonly machine: string;
  readonly architecture: string;
  readonly vcpusMax: number | undefined;
  /** Kinds of firmware that `firmware=` of `<os>` takes. */
  readonly firmware: readonly string[];
  /** Whether one of them starts only what is signed. */
  readonly secureBoot: boolean;
  /** What of Hyper-V a guest can be shown. */
  readonly hyperv: readonly string[];
  readonly cpuModes: readonly { readonly name: string; readonly supported: boolean }[];
  /** Of `custom`, those that can run. */
  readonly cpuModels: readonly string[];
  /** By kind of device and attribute: `disk` → `bus` → `virtio`, … */
  readonly devices: Readonly<Record<string, Readonly<Record<string, readonly string[]>>>>;
  readonly root: XmlElement;
}

const valuesOf = (list: XmlElement | undefined): readonly string[] => childrenOf(list, 'value').map(textOf);

const enumOf = (of: XmlElement | undefined, name: string): readonly string[] => valuesOf(childrenOf(of, 'enum').find((list) => list.attributes['name'] === name));

/** Throws XmlError when it is something else. */
export function readDomainCapabilities(xml: string): DomainCapabilities {
  const root = parseXml(xml);
  if (root.name !== 'domainCapabilities') throw new XmlError(`<${root.name}> is not capabilities of domains`);
  const modes = childrenOf(childOf(root, 'cpu'), 'mode');
  const vcpusMax = attributeOf(root, 'max', 'vcpu');
  return {
    emulator: textOf(childOf(root, 'path')),
    virtualisation: textOf(childOf(root, 'domain')),
    machine: textOf(childOf(root, 'machine')),
    architecture: textOf(childOf(root, 'arch')),
    vcpusMax: vcpusMax === undefined ? undefined : Number(vcpusMax),
    firmware: enumOf(childOf(root, 'os'), 'firmware'),
    secureBoot: enumOf(childOf(childOf(root, 'os'), 'loader'), 'secure').includes('yes'),
    hyperv: enumOf(childOf(childOf(root, 'features'), 'hyperv'), 'features'),
    cpuModes: modes.map((mode) => ({ name: mode.attributes['name'] ?? '', supported: mode.attributes['supported'] === 'yes' })),
    cpuModels: childrenOf(modes.find((mode) => mode.attributes['name'] === 'custom'), 'model').filter((model) => model.attributes['usable'] !== 'no').map(textOf),
    devices: Object.fromEntries(
      childrenOf(childOf(root, 'devices'))
        .filter((device) => device.attributes['supported'] === 'yes')
        .map((device) => [device.name, Object.fromEntries(childrenOf(device, 'enum').map((list) => [list.attributes['name'] ?? '', valuesOf(list)]))]),
    ),
    root,
  };
}
