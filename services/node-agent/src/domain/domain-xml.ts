/*
 * A VM as libvirt is told of it.
 *
 * The UUID is the VM's id, so a domain is found without a table of our own; the name is for people who
 * look with virsh. What we must know of a domain later (which VM, which placement) is in its metadata,
 * under a namespace of our own, so it survives us and cannot come apart from the domain.
 *
 * No device listens on a TCP port: the screen is a unix socket, the guest agent's channel too.
 */
import { uuidOf, type NodeId } from '@chronovirt/contracts/ids';
import type { DomainPlan } from '../hypervisor.ts';
import { element } from '../xml.ts';
import type { Xml } from '../xml.ts';

export const METADATA_NAMESPACE = 'urn:chronovirt:domain:1';

/** What one host is like, as far as its domains are concerned. */
export interface DomainHost {
  readonly nodeId: NodeId;
  /** `test`: libvirt's test driver, which runs nothing. */
  readonly type: 'kvm' | 'qemu' | 'test';
  /** Of the agent, for whoever wonders later why a domain looks as it does. */
  readonly agentVersion: string;
  readonly diskPath: string;
  /** Where the serial console is written, besides being open to whoever connects. */
  readonly consoleLog: string;
  /** Unix socket of the screen; at most 107 bytes, the kernel's limit. */
  readonly screenSocket: string;
  /** A name that libvirt has for this domain already: it would refuse another. */
  readonly knownAs?: string;
}

/**
 * Unique on a host, because the digits are the random end of the id; and safe, because libvirt makes
 * file names of it.
 */
export const domainName = (name: string, vmId: string): string => {
  const digits = vmId.slice(-8);
  return /^[a-zA-Z0-9][a-zA-Z0-9._-]*$/.test(name) ? `cv-${name.slice(0, 40)}-${digits}` : `cv-${digits}`;
};

/** Translated code of the guest that QEMU keeps; by default it may take a gigabyte of the host. */
const TRANSLATION_CACHE_MIB = 32;

export function domainXml(plan: DomainPlan, host: DomainHost): string {
  const virtio = plan.devices === 'virtio';
  const emulated = host.type === 'qemu';
  return element('domain', { type: host.type },
    element('name', {}, host.knownAs ?? domainName(plan.name, plan.vmId)),
    element('uuid', {}, uuidOf(plan.vmId)),
    element('title', {}, plan.name),
    element('metadata', {},
      element('cv:vm', { 'xmlns:cv': METADATA_NAMESPACE, id: plan.vmId, generation: plan.generation, node: host.nodeId, name: plan.name, agent: host.agentVersion })),
    element('memory', { unit: 'MiB' }, plan.memoryMib),
    element('vcpu', { placement: 'static' }, plan.vcpus),
    element('os', {}, element('type', host.type === 'test' ? { arch: 'i686' } : { arch: 'x86_64', machine: 'q35' }, 'hvm'), element('boot', { dev: 'hd' })),
    element('features', {}, element('acpi'), element('apic'), emulated ? element('tcg', {}, element('tb-cache', { unit: 'MiB' }, TRANSLATION_CACHE_MIB)) : undefined),
    host.type === 'test' ? undefined : cpu(host.type),
    element('clock', { offset: 'utc' },
      element('timer', { name: 'rtc', tickpolicy: 'catchup' }), element('timer', { name: 'pit', tickpolicy: 'delay' }), element('timer', { name: 'hpet', present: 'no' })),
    element('on_poweroff', {}, 'destroy'),
    element('on_reboot', {}, 'restart'),
    // What crashed stays down and is reported; whether it comes back is decided elsewhere.
    element('on_crash', {}, 'destroy'),
    element('devices', {}, ...devices(plan, host, virtio))).xml;
}

const cpu = (type: 'kvm' | 'qemu'): Xml =>
  (type === 'kvm'
    ? element('cpu', { mode: 'host-model', check: 'partial' })
    : element('cpu', { mode: 'custom', match: 'exact', check: 'none' }, element('model', { fallback: 'allow' }, 'qemu64')));

function devices(plan: DomainPlan, host: DomainHost, virtio: boolean): readonly Xml[] {
  return [
    element('disk', { type: 'file', device: 'disk' },
      element('driver', { name: 'qemu', type: 'qcow2', discard: 'unmap' }),
      element('source', { file: host.diskPath }),
      element('target', virtio ? { dev: 'vda', bus: 'virtio' } : { dev: 'sda', bus: 'sata' }),
      // What the guest sees as the disk's serial number: 20 characters at most for virtio.
      element('serial', {}, plan.volumeId.slice(-20))),
    // Nothing of ours is on USB, and an idle controller wakes the host a thousand times a second.
    element('controller', { type: 'usb', model: 'none' }),
    element('interface', { type: 'network' },
      element('mac', { address: plan.mac }),
      element('source', { network: plan.network.name }),
      element('model', { type: virtio ? 'virtio' : 'e1000' })),
    element('serial', { type: 'pty' }, element('log', { file: host.consoleLog, append: 'on' }), element('target', { port: 0 })),
    element('console', { type: 'pty' }, element('target', { type: 'serial', port: 0 })),
    element('channel', { type: 'unix' }, element('target', { type: 'virtio', name: 'org.qemu.guest_agent.0' })),
    element('graphics', { type: 'vnc', autoport: 'no' }, element('listen', { type: 'socket', socket: host.screenSocket })),
    element('video', {}, element('model', { type: 'vga' })),
    element('memballoon', { model: 'virtio' }),
    element('rng', { model: 'virtio' }, element('backend', { model: 'random' }, '/dev/urandom')),
  ];
}
