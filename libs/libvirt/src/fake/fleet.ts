/*
 * Many pretend nodes, each with its guests, in one process. The domains of a fleet are made from one
 * definition that is read once; only what must differ (name, UUID, MAC) is put in, so that fifty thousand
 * of them are made in seconds and share what they have in common.
 */
import type { Clock } from './clock.ts';
import { uuidFrom } from './clock.ts';
import { FakeDaemon } from './daemon.ts';
import type { FakeDaemonOptions } from './daemon.ts';
import type { Definition } from './definition.ts';
import { define, readDefinition, start } from './life.ts';
import { Migrations } from './migration.ts';
import { defineNetwork, networksOf, startNetwork } from './networks.ts';
import type { FakeNode } from './node.ts';

export interface Population {
  readonly domains: number;
  /** Whether they run. */
  readonly running?: boolean;
  readonly memoryMib?: number;
  readonly vcpus?: number;
  /** Domains are called `<prefix>0`, `<prefix>1`, … Default `vm-`. */
  readonly prefix?: string;
}

const digits = (number: number): string => [16, 8, 0].map((shift) => ((number >>> shift) & 0xff).toString(16).padStart(2, '0')).join(':');

/** A node's network and its domains, each with a disk, an interface, a console, a screen and an agent. */
export function populate(node: FakeNode, { domains, running = false, memoryMib = 2_048, vcpus = 2, prefix = 'vm-' }: Population): void {
  if (![...networksOf(node).values()].some((network) => network.name === 'default')) {
    const network = defineNetwork(node, `<network><name>default</name><forward mode='nat'/><ip address='192.168.122.1' prefix='20'><dhcp><range start='192.168.112.2' end='192.168.127.254'/></dhcp></ip></network>`);
    network.autostart = true;
    startNetwork(node, network);
  }
  if (domains === 0) return;
  const marks = { name: '%name%', uuid: '00000000-0000-4000-8000-00000000f1ee', mac: '52:54:00:ff:ff:fe' } as const;
  const pattern = readDefinition(
    node,
    `<domain type='kvm'><name>${marks.name}</name><uuid>${marks.uuid}</uuid><memory unit='MiB'>${memoryMib}</memory><vcpu>${vcpus}</vcpu>
      <os><type arch='x86_64' machine='q35'>hvm</type><boot dev='hd'/></os><features><acpi/><apic/></features><cpu mode='host-model'/><devices>
      <disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='/var/lib/libvirt/images/${marks.name}.qcow2'/><target dev='vda' bus='virtio'/></disk>
      <interface type='network'><mac address='${marks.mac}'/><source network='default'/><model type='virtio'/></interface>
      <console type='pty'/><channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
      <graphics type='vnc'><listen type='socket'/></graphics><video><model type='virtio'/></video></devices></domain>`,
  );
  const [before, ...parts] = pattern.xml.split(new RegExp(`(${Object.values(marks).join('|')})`));
  const [disk] = pattern.facts.disks;
  const [nic] = pattern.facts.interfaces;
  for (let index = 0; index < domains; index += 1) {
    const name = `${prefix}${index}`;
    const uuid = uuidFrom('fleet', node.seed, node.hostname, prefix, index);
    const mac = `52:54:00:${digits(index + 1)}`;
    const put: Readonly<Record<string, string>> = { [marks.name]: name, [marks.uuid]: uuid, [marks.mac]: mac };
    const definition: Definition = {
      // Through a buffer, so that the text is one piece and not a chain of them.
      xml: Buffer.from((before ?? '') + parts.map((part) => put[part] ?? part).join('')).toString('latin1'),
      facts: { ...pattern.facts, name, uuid, disks: disk === undefined ? [] : [{ ...disk, chain: [`/var/lib/libvirt/images/${name}.qcow2`] }], interfaces: nic === undefined ? [] : [{ ...nic, mac }] },
    };
    const domain = define(node, definition);
    if (running) start(node, domain, {});
  }
}

export interface FleetOptions extends Omit<FakeDaemonOptions, 'hostname' | 'migrations'> {
  readonly nodes: number;
  readonly population?: Population;
  readonly clock?: Clock;
}

/** Daemons called `node-0`, `node-1`, …, which migrate to each other. */
export function fleet({ nodes, population, ...options }: FleetOptions): readonly FakeDaemon[] {
  const migrations = new Migrations();
  return Array.from({ length: nodes }, (_, index) => {
    const daemon = new FakeDaemon({ ...options, hostname: `node-${index}`, migrations });
    if (population !== undefined) populate(daemon.node, population);
    return daemon;
  });
}
