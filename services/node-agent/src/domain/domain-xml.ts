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
import { BOOT_PORT } from '../boot-jobs/boot-runs.ts';
import type { DomainPlan } from '../hypervisor.ts';
import { assignedXml, isUsb } from './assigned-xml.ts';
import { driversOf, kernelOf } from './changes.ts';
import { expertCpu, expertDevices, expertText } from './expert-xml.ts';
import { element } from '../xml.ts';
import type { Xml } from '../xml.ts';

export const METADATA_NAMESPACE = 'urn:chronovirt:domain:1';

/** What one host is like, as far as its domains are concerned. */
export interface DomainHost {
  readonly nodeId: NodeId;
  /** `test`: libvirt's test driver, which runs nothing. */
  readonly type: 'kvm' | 'qemu' | 'test';
  /** What of Hyper-V libvirt can show a guest here. */
  readonly hyperv: readonly string[];
  /** Of the agent, for whoever wonders later why a domain looks as it does. */
  readonly agentVersion: string;
  diskPathOf(disk: Pick<DomainPlan['disks'][number], 'volumeId' | 'layer'>): string;
  /** A medium's file. */
  mediaPathOf(file: string): string;
  /** What cloud-init is told; undefined: nothing. */
  readonly seedPath: string | undefined;
  /** Where the serial console is written, besides being open to whoever connects. */
  readonly consoleLog: string;
  /** Where QEMU writes what the guest says of what it was to run at its boot. */
  readonly bootReport: string;
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

/**
 * Translated code of the guest that QEMU keeps, in MiB; by default it may take a gigabyte of the host. What
 * does not fit is translated again and again: a Debian of 768 MiB starts in 34 s with 192 and in 74 s with 32.
 * A guest with little memory has little code to run.
 *
 * A CPU that is plugged in takes a piece of the cache, and QEMU 7.2 aborts when all of them are in use
 * (tcg_region_initial_alloc, seen after a guest's start had filled 64 MiB to the last piece). So where CPUs can
 * be added it is as large as it gets, which no start of a small guest fills.
 */
const translationCacheMib = ({ memoryMib, vcpus, vcpusMax }: DomainPlan): number => (vcpusMax > vcpus ? CACHE_MIB_MAX : Math.min(CACHE_MIB_MAX, Math.max(32, Math.floor(memoryMib / 4))));
const CACHE_MIB_MAX = 256;

export function domainXml(plan: DomainPlan, host: DomainHost): string {
  const emulated = host.type === 'qemu';
  const windows = plan.osFamily === 'windows';
  const enlightenments = windows && host.type === 'kvm' ? ENLIGHTENMENTS.filter((name) => host.hyperv.includes(name)) : [];
  return element('domain', { type: host.type },
    element('name', {}, host.knownAs ?? domainName(plan.name, plan.vmId)),
    element('uuid', {}, uuidOf(plan.vmId)),
    element('title', {}, plan.name),
    element('metadata', {},
      element('cv:vm', { 'xmlns:cv': METADATA_NAMESPACE, id: plan.vmId, generation: plan.generation, node: host.nodeId, name: plan.name, as: host.knownAs ?? domainName(plan.name, plan.vmId), agent: host.agentVersion, expert: plan.expert === undefined ? undefined : expertText(plan.expert) })),
    growsMemory(plan, host) ? element('maxMemory', { slots: MEMORY_SLOTS, unit: 'MiB' }, plan.memoryMibMax) : undefined,
    element('memory', { unit: 'MiB' }, plan.memoryMib),
    element('vcpu', { placement: 'static', current: plan.vcpusMax > plan.vcpus ? plan.vcpus : undefined }, plan.vcpusMax),
    element('os', plan.firmware === undefined || plan.firmware === 'bios' ? {} : { firmware: 'efi' },
      element('type', host.type === 'test' ? { arch: 'i686' } : { arch: 'x86_64', machine: 'q35' }, 'hvm'), ...firmware(plan), ...kernel(plan, host), ...plan.boot.map((device) => element('boot', { dev: device === 'disk' ? 'hd' : device })), ...bootMenu(plan, host)),
    element('features', {}, element('acpi'), element('apic'),
      enlightenments.length === 0 ? undefined : element('hyperv', { mode: 'custom' }, ...enlightenments.map((name) => element(name, { state: 'on', retries: name === 'spinlocks' ? SPINLOCK_RETRIES : undefined }))),
      emulated ? element('tcg', {}, element('tb-cache', { unit: 'MiB' }, translationCacheMib(plan))) : undefined),
    host.type === 'test' ? undefined : cpu(host.type, plan, host),
    element('clock', { offset: windows ? 'localtime' : 'utc' },
      element('timer', { name: 'rtc', tickpolicy: 'catchup' }), element('timer', { name: 'pit', tickpolicy: 'delay' }), element('timer', { name: 'hpet', present: 'no' }),
      enlightenments.length === 0 ? undefined : element('timer', { name: 'hypervclock', present: 'yes' })),
    element('on_poweroff', {}, 'destroy'),
    element('on_reboot', {}, 'restart'),
    // What crashed stays down and is reported; whether it comes back is decided elsewhere.
    element('on_crash', {}, 'destroy'),
    element('devices', {}, ...devices(plan, host))).xml;
}

/** What makes a Windows spend less on being a guest (QEMU's documentation, "Hyper-V Enlightenments"). Those behind need those before them. */
const ENLIGHTENMENTS = ['relaxed', 'vapic', 'spinlocks', 'vpindex', 'runtime', 'synic', 'stimer', 'frequencies'];
/** How often it tries to take a lock before it gives the CPU away (the same source). */
const SPINLOCK_RETRIES = 8_191;

/** Signed by those whose keys come with the firmware, or by anybody. libvirt finds the file, and keeps the variables. */
const firmware = ({ firmware: wanted = 'bios' }: DomainPlan): readonly Xml[] => {
  if (wanted === 'bios') return [];
  const feature = (name: string, enabled: 'yes' | 'no'): Xml => element('feature', { enabled, name });
  return [element('firmware', {}, ...(wanted === 'uefi-secure' ? [feature('enrolled-keys', 'yes'), feature('secure-boot', 'yes')] : [feature('secure-boot', 'no')]))];
};

const kernel = (plan: DomainPlan, host: DomainHost): readonly Xml[] => {
  const found = kernelOf(plan, (file) => host.mediaPathOf(file));
  if (found === null) return [];
  return [element('kernel', {}, found.path), ...(found.initrd === null ? [] : [element('initrd', {}, found.initrd)]), ...(found.arguments === '' ? [] : [element('cmdline', {}, found.arguments)])];
};

/** Long enough for a person to open the console. libvirt allows 65535. */
const BOOT_MENU_MS = 10_000;

/** A BIOS shows itself on the serial console too, and takes keys from there; UEFI always does. */
const bootMenu = ({ bootMenu: wanted, firmware: by = 'bios' }: DomainPlan, { type }: DomainHost): readonly Xml[] =>
  (wanted === true ? [element('bootmenu', { enable: 'yes', timeout: BOOT_MENU_MS }), ...(by === 'bios' && type !== 'test' ? [element('bios', { useserial: 'yes' })] : [])] : []);

/** DIMMs that can be plugged in one after another. */
const MEMORY_SLOTS = 16;

const growsMemory = (plan: DomainPlan, { type }: Pick<DomainHost, 'type'>): boolean => type !== 'test' && plan.memoryMibMax > plan.memoryMib;

function cpu(type: 'kvm' | 'qemu', plan: DomainPlan, host: DomainHost): Xml {
  // Memory is plugged into a NUMA node, so there has to be one.
  const numa = growsMemory(plan, host) ? element('numa', {}, element('cell', { id: 0, cpus: plan.vcpusMax === 1 ? '0' : `0-${plan.vcpusMax - 1}`, memory: plan.memoryMib, unit: 'MiB' })) : undefined;
  if (plan.expert?.cpu !== undefined) return expertCpu(plan.expert.cpu, numa);
  return type === 'kvm'
    ? element('cpu', { mode: 'host-model', check: 'partial' }, numa)
    : element('cpu', { mode: 'custom', match: 'exact', check: 'none' }, element('model', { fallback: 'allow' }, 'qemu64'), numa);
}

/**
 * Each PCI device of a q35 machine needs a port of its own, and ports cannot be added while it runs. So
 * many are free for what is plugged in later.
 */
const PORTS_FREE = 6;
/** Disks and interfaces besides: scsi, serial, memory balloon, random numbers, and the video that needs none. */
const PORTS_OF_OTHERS = 4;

type Disk = DomainPlan['disks'][number];
type DomainNic = DomainPlan['nics'][number];

/** libvirt's name for a disk, which the guest's drivers follow: vda, vdb, … Old systems have the drives for media at sdb and sdc. */
export const targetOf = ({ unit, target = null }: Pick<Disk, 'unit'> & Partial<Pick<Disk, 'target'>>, devices: DomainPlan['devices']): string => {
  if (target !== null) return target;
  const letter = String.fromCharCode('a'.charCodeAt(0) + (devices === 'legacy' && unit > 0 ? unit + 2 : unit));
  return `${devices === 'virtio' ? 'vd' : 'sd'}${letter}`;
};

export const diskXml = (disk: Disk, devices: DomainPlan['devices'], path: string): Xml =>
  element('disk', { type: 'file', device: 'disk' },
    element('driver', { name: 'qemu', type: path.endsWith('.raw') ? 'raw' : 'qcow2', discard: 'unmap' }),
    element('source', { file: path }),
    element('target', { dev: targetOf(disk, devices), bus: devices === 'virtio' ? 'virtio' : 'sata' }),
    // What the guest sees as the disk's serial number: 20 characters at most for virtio.
    element('serial', {}, disk.volumeId.slice(-20)),
    disk.limits === null ? undefined : element('iotune', {},
      disk.limits.bytesPerSecond === undefined ? undefined : element('total_bytes_sec', {}, disk.limits.bytesPerSecond),
      disk.limits.iops === undefined ? undefined : element('total_iops_sec', {}, disk.limits.iops)));

/** The drive for media, that of what cloud-init is told, and the second for media. */
export type Drive = 'media' | 'seed' | 'drivers';
/** libvirt's names for them. Old systems have more disks behind the first two. */
export const DRIVES: Readonly<Record<DomainPlan['devices'], Readonly<Record<Drive, string>>>> = {
  virtio: { media: 'sda', seed: 'sdb', drivers: 'sdc' },
  legacy: { media: 'sdb', seed: 'sdc', drivers: 'sdaa' },
};
/** A q35 machine has six places for SATA; the last is taken by the disk in place 3 of an old system. What has none of them stands behind all others, on a controller of its own. */
const LAST_PLACE = { type: 'drive', controller: 0, bus: 0, target: 0, unit: 5 };

/** A drive, with or without a medium in it. A Windows learns of virtio from what lies in there, so it reads them by SATA. */
const driveXml = (which: Drive, { devices, osFamily, disks }: DomainPlan, path: string | undefined): Xml => {
  const behindDisks = devices === 'legacy' && which === 'drivers' && !disks.some(({ unit }) => unit === 3);
  return element('disk', { type: 'file', device: 'cdrom' },
    element('driver', { name: 'qemu', type: 'raw' }),
    path === undefined ? undefined : element('source', { file: path }),
    element('target', { dev: DRIVES[devices][which], bus: devices === 'virtio' && osFamily !== 'windows' ? 'scsi' : 'sata' }),
    element('readonly'),
    behindDisks ? element('address', LAST_PLACE) : undefined);
};

export const nicXml = ({ network, mac }: DomainNic, devices: DomainPlan['devices'], isolated = false): Xml =>
  element('interface', { type: 'network' },
    element('mac', { address: mac }),
    element('source', { network: network.name }),
    element('model', { type: devices === 'virtio' ? 'virtio' : 'e1000' }),
    isolated ? element('link', { state: 'down' }) : undefined);

/** A piece of memory to plug in. Sizes that are no multiple of 128 MiB cannot be used by Linux. */
export const dimmXml = (mib: number): Xml => element('memory', { model: 'dimm' }, element('target', {}, element('size', { unit: 'MiB' }, mib), element('node', {}, 0)));

function devices(plan: DomainPlan, host: DomainHost): readonly Xml[] {
  const { assigned = [] } = plan;
  const ports = host.type === 'test' ? 0 : plan.disks.length + plan.nics.length + assigned.length + PORTS_OF_OTHERS + PORTS_FREE;
  return [
    ...plan.disks.map((disk) => diskXml(disk, plan.devices, host.diskPathOf(disk))),
    driveXml('media', plan, plan.media === null ? undefined : host.mediaPathOf(plan.media)),
    ...(host.seedPath === undefined ? [] : [driveXml('seed', plan, host.seedPath)]),
    ...(plan.drivers === undefined ? [] : [driveXml('drivers', plan, driversOf(plan, (file) => host.mediaPathOf(file)))]),
    ...(plan.devices === 'virtio' ? [element('controller', { type: 'scsi', index: 0, model: 'virtio-scsi' })] : []),
    // Nothing of ours is on USB, and an idle controller of the old kinds wakes the host a thousand times a second.
    element('controller', plan.expert?.usb === true || assigned.some(isUsb) ? { type: 'usb', index: 0, model: 'qemu-xhci' } : { type: 'usb', model: 'none' }),
    ...(ports === 0 ? [] : [element('controller', { type: 'pci', index: 0, model: 'pcie-root' })]),
    ...Array.from({ length: ports }, (_, index) => element('controller', { type: 'pci', index: index + 1, model: 'pcie-root-port' })),
    ...plan.nics.map((nic) => nicXml(nic, plan.devices, plan.isolated)),
    element('serial', { type: 'pty' }, element('log', { file: host.consoleLog, append: 'on' }), element('target', { port: 0 })),
    element('console', { type: 'pty' }, element('target', { type: 'serial', port: 0 })),
    element('channel', { type: 'unix' }, element('target', { type: 'virtio', name: 'org.qemu.guest_agent.0' })),
    // virtlogd keeps it from growing without end, as it does with the console.
    element('channel', { type: 'file' }, element('source', { path: host.bootReport, append: 'on' }), element('target', { type: 'virtio', name: BOOT_PORT })),
    element('graphics', { type: 'vnc', autoport: 'no' }, element('listen', { type: 'socket', socket: host.screenSocket })),
    ...(plan.tpm === true ? [element('tpm', { model: 'tpm-crb' }, element('backend', { type: 'emulator', version: '2.0' }))] : []),
    ...assigned.map(assignedXml),
    ...expertDevices(plan.expert ?? {}),
  ];
}
