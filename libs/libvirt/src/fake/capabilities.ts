/** What the node says of itself, as XML. It has KVM, as nodes of a cloud do; nothing runs in either. */
import { element } from '../xml.ts';
import { printed } from './definition.ts';
import type { FakeNode } from './node.ts';

const emulator = '/usr/bin/qemu-system-x86_64';
const machines = ['pc-i440fx-7.2', 'pc', 'pc-q35-7.2', 'q35'];

export function capabilitiesXml(node: FakeNode): string {
  const list = machines.map((name) => element('machine', { canonical: name === 'pc' ? 'pc-i440fx-7.2' : name === 'q35' ? 'pc-q35-7.2' : undefined, maxCpus: 255 }, name));
  const cpus = Array.from({ length: node.cpus }, (_, id) => element('cpu', { id, socket_id: 0, die_id: 0, core_id: id, siblings: id }));
  return printed(
    element(
      'capabilities',
      {},
      element(
        'host',
        {},
        element('uuid', {}, node.uuid),
        element('cpu', {}, element('arch', {}, 'x86_64'), element('model', {}, 'EPYC-Rome'), element('vendor', {}, 'AMD'), element('topology', { sockets: 1, dies: 1, cores: node.cpus, threads: 1 }), element('pages', { unit: 'KiB', size: 4 }), element('pages', { unit: 'KiB', size: 2048 })),
        element('power_management'),
        element('iommu', { support: 'no' }),
        element('migration_features', {}, element('live'), element('uri_transports', {}, element('uri_transport', {}, 'tcp'), element('uri_transport', {}, 'rdma'))),
        element('topology', {}, element('cells', { num: 1 }, element('cell', { id: 0 }, element('memory', { unit: 'KiB' }, node.memoryKib), element('pages', { unit: 'KiB', size: 4 }, Math.floor(node.memoryKib / 4)), element('distances', {}, element('sibling', { id: 0, value: 10 })), element('cpus', { num: node.cpus }, ...cpus)))),
        element('secmodel', {}, element('model', {}, 'none'), element('doi', {}, 0)),
      ),
      element(
        'guest',
        {},
        element('os_type', {}, 'hvm'),
        element('arch', { name: 'x86_64' }, element('wordsize', {}, 64), element('emulator', {}, emulator), ...list, element('domain', { type: 'qemu' }), element('domain', { type: 'kvm' })),
        element('features', {}, element('acpi', { default: 'on', toggle: 'yes' }), element('apic', { default: 'on', toggle: 'no' }), element('cpuselection'), element('deviceboot'), element('disksnapshot', { default: 'on', toggle: 'no' }), element('externalSnapshot')),
      ),
    ),
  );
}

const choice = (name: string, values: readonly string[]) => element('enum', { name }, ...values.map((value) => element('value', {}, value)));

export function domainCapabilitiesXml(architecture: string, machine: string, virtualisation: string): string {
  return printed(
    element(
      'domainCapabilities',
      {},
      element('path', {}, emulator),
      element('domain', {}, virtualisation),
      element('machine', {}, machine === 'pc' ? 'pc-i440fx-7.2' : machine === 'q35' ? 'pc-q35-7.2' : machine),
      element('arch', {}, architecture),
      element('vcpu', { max: 255 }),
      element('iothreads', { supported: 'yes' }),
      element('os', { supported: 'yes' }, choice('firmware', ['efi']), element('loader', { supported: 'yes' }, choice('type', ['rom', 'pflash']))),
      element('cpu', {}, element('mode', { name: 'host-passthrough', supported: virtualisation === 'kvm' ? 'yes' : 'no' }), element('mode', { name: 'maximum', supported: 'yes' }), element('mode', { name: 'host-model', supported: 'yes' }, element('model', { fallback: 'forbid' }, 'EPYC-Rome')), element('mode', { name: 'custom', supported: 'yes' }, ...['qemu64', 'kvm64', 'Nehalem', 'Haswell', 'EPYC', 'EPYC-Rome'].map((model) => element('model', { usable: 'yes' }, model)))),
      element(
        'devices',
        {},
        element('disk', { supported: 'yes' }, choice('diskDevice', ['disk', 'cdrom', 'floppy', 'lun']), choice('bus', ['ide', 'fdc', 'scsi', 'virtio', 'usb', 'sata']), choice('model', ['virtio', 'virtio-transitional', 'virtio-non-transitional'])),
        element('graphics', { supported: 'yes' }, choice('type', ['sdl', 'vnc', 'spice'])),
        element('video', { supported: 'yes' }, choice('modelType', ['vga', 'cirrus', 'virtio', 'none'])),
        element('rng', { supported: 'yes' }, choice('model', ['virtio']), choice('backendModel', ['random', 'egd', 'builtin'])),
      ),
      element('features', {}, element('gic', { supported: 'no' }), element('vmcoreinfo', { supported: 'yes' }), element('genid', { supported: 'yes' }), element('backingStoreInput', { supported: 'yes' }), element('backup', { supported: 'yes' }), element('sev', { supported: 'no' })),
    ),
  );
}
