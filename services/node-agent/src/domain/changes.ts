/*
 * What has to be done to a domain that runs so that it becomes what is wanted, and what cannot be done to
 * one that runs. The answer is computed from what there is, never remembered, so a change that was begun
 * and not ended is simply continued.
 */
import type { AssignedDevice } from '@chronovirt/contracts/vm/assigned';
import type { BootDevice, Pending } from '@chronovirt/contracts/vm/vm.events';
import type { DiskLimits } from '@chronovirt/contracts/volume/volume.events';
import type { DomainPlan } from '../hypervisor.ts';
import { aliasOf, isUsb } from './assigned-xml.ts';
import { expertText } from './expert-xml.ts';

/** A domain as it runs now. Memory in MiB, with what was plugged in. */
export interface LiveDomain {
  readonly vcpus: number;
  readonly vcpusMax: number;
  readonly memoryMib: number;
  readonly memoryMibMax: number;
  readonly boot: readonly BootDevice[];
  /** Its firmware waits for somebody to choose. */
  readonly bootMenu: boolean;
  /** What it is started with in place of that, by path. */
  readonly kernel: LiveKernel | null;
  /** Path of the medium in the drive; undefined: it is empty. null: there is no drive. */
  readonly media: string | undefined | null;
  /** The same of the second drive. */
  readonly drivers: string | undefined | null;
  /** Path of the disk from which cloud-init learns; null: there is none. */
  readonly seed: string | null;
  /** What of devices it was made with beside the usual, as `expertText` says it. */
  readonly expert: string;
  /** Devices that were assigned to it, by alias; and whether it can be given one by USB. */
  readonly assigned: readonly string[];
  readonly usb: boolean;
  readonly macs: readonly string[];
  /** By path, beside the drives for media. */
  readonly disks: readonly { readonly path: string; readonly limits: DiskLimits | null }[];
}

export interface LiveKernel {
  readonly path: string;
  readonly initrd: string | null;
  readonly arguments: string;
}

export type Change =
  | { readonly kind: 'vcpus'; readonly vcpus: number }
  | { readonly kind: 'memory'; readonly mib: number }
  | { readonly kind: 'media' | 'drivers'; readonly path: string | undefined }
  | { readonly kind: 'seed'; readonly path: string }
  | { readonly kind: 'add device'; readonly device: AssignedDevice }
  | { readonly kind: 'remove device'; readonly alias: string }
  | { readonly kind: 'add nic'; readonly nic: DomainPlan['nics'][number] }
  | { readonly kind: 'remove nic'; readonly mac: string }
  | { readonly kind: 'add disk'; readonly disk: Disk }
  | { readonly kind: 'remove disk'; readonly path: string }
  | { readonly kind: 'limits'; readonly disk: Disk };

type Disk = DomainPlan['disks'][number];

const sameLimits = (a: DiskLimits | null, b: DiskLimits | null): boolean => a?.iops === b?.iops && a?.bytesPerSecond === b?.bytesPerSecond;

/** Linux uses memory that is plugged in by sections of so much (x86-64). */
const MEMORY_SECTION_MIB = 128;

/** Whether the plan says from what the domain starts, and what lies in its drive: of one that was adopted by an older agent it does not. */
export const saysBoot = ({ adopted }: DomainPlan): boolean => adopted === null || adopted.drive !== undefined;

/** What lies in the drive: a medium of ours, or what was there when the domain was adopted. */
export const mediumOf = ({ media, adopted }: DomainPlan, mediaPathOf: (file: string) => string): string | undefined => (media === null ? adopted?.drive?.file ?? undefined : mediaPathOf(media));

/** What lies in the second drive. */
export const driversOf = ({ drivers = null }: DomainPlan, mediaPathOf: (file: string) => string): string | undefined => (drivers === null ? undefined : mediaPathOf(drivers));

/** What it is started with, by path. */
export const kernelOf = ({ kernel }: DomainPlan, mediaPathOf: (file: string) => string): LiveKernel | null =>
  (kernel === undefined ? null : { path: mediaPathOf(kernel.file), initrd: kernel.initrd === null ? null : mediaPathOf(kernel.initrd), arguments: kernel.arguments });
const sameKernel = (a: LiveKernel | null, b: LiveKernel | null): boolean => a?.path === b?.path && a?.initrd === b?.initrd && a?.arguments === b?.arguments;

/** `<instance>.….iso`: instances have no dots. */
const instanceIn = (path: string): string => path.slice(path.lastIndexOf('/') + 1).split('.')[0] ?? '';

/** `seedPath`: of what cloud-init is to be told; undefined: nothing. */
export function changesOf(live: LiveDomain, plan: DomainPlan, { mediaPathOf, diskPathOf, seedPath }: { readonly mediaPathOf: (file: string) => string; readonly diskPathOf: (disk: Disk) => string; readonly seedPath: string | undefined }): { readonly changes: readonly Change[]; readonly pending: readonly Pending[] } {
  const changes: Change[] = [];
  const pending: Pending[] = [];

  if (plan.vcpus > live.vcpus && plan.vcpus <= live.vcpusMax) changes.push({ kind: 'vcpus', vcpus: plan.vcpus });
  // A guest cannot be made to let go of a CPU: libvirt and QEMU disagree afterwards about what there is.
  else if (plan.vcpus !== live.vcpus) pending.push('vcpus');

  const more = plan.memoryMib - live.memoryMib;
  if (more > 0 && more % MEMORY_SECTION_MIB === 0 && plan.memoryMib <= live.memoryMibMax) changes.push({ kind: 'memory', mib: more });
  else if (more !== 0) pending.push('memoryMib');

  if (saysBoot(plan) && plan.boot.join() !== live.boot.join()) pending.push('boot');
  else if (plan.adopted === null && (live.bootMenu !== (plan.bootMenu === true) || !sameKernel(live.kernel, kernelOf(plan, mediaPathOf)))) pending.push('boot');

  if (plan.adopted === null && live.expert !== expertText(plan.expert)) pending.push('expert');

  // Another instance begins with a start. What the same one is to run is there for its next boot, whoever boots it.
  if (seedPath !== undefined && (live.seed === null || instanceIn(live.seed) !== instanceIn(seedPath))) pending.push('cloudInit');
  else if (seedPath !== undefined && live.seed !== seedPath) changes.push({ kind: 'seed', path: seedPath });

  const wanted = mediumOf(plan, mediaPathOf);
  if (saysBoot(plan) && live.media !== null && live.media !== wanted) changes.push({ kind: 'media', path: wanted });
  const drivers = driversOf(plan, mediaPathOf);
  if (live.drivers !== null && live.drivers !== drivers) changes.push({ kind: 'drivers', path: drivers });

  if (plan.adopted === null) {
    const { assigned = [] } = plan;
    const aliases = new Set(assigned.map(aliasOf));
    for (const alias of live.assigned) if (!aliases.has(alias)) changes.push({ kind: 'remove device', alias });
    const missing = assigned.filter((device) => !live.assigned.includes(aliasOf(device)));
    for (const device of missing) if (live.usb || !isUsb(device)) changes.push({ kind: 'add device', device });
    // There is no plugging in of a controller.
    if (missing.some((device) => isUsb(device) && !live.usb)) pending.push('devices');
  }

  const macs = new Set([...plan.nics.map(({ mac }) => mac), ...(plan.adopted?.macs ?? [])]);
  // First what goes: what comes may need its place.
  for (const mac of live.macs) if (!macs.has(mac)) changes.push({ kind: 'remove nic', mac });
  for (const nic of plan.nics) if (!live.macs.includes(nic.mac)) changes.push({ kind: 'add nic', nic });

  const paths = new Set(plan.disks.map((disk) => diskPathOf(disk)));
  for (const { path } of live.disks) if (!paths.has(path)) changes.push({ kind: 'remove disk', path });
  for (const disk of plan.disks) {
    const present = live.disks.find(({ path }) => path === diskPathOf(disk));
    if (present === undefined) changes.push({ kind: 'add disk', disk });
    else if (!sameLimits(present.limits, disk.limits)) changes.push({ kind: 'limits', disk });
  }
  return { changes, pending };
}
