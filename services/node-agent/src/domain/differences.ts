/*
 * What of a domain is not as it was told to be, field by field: a function of what was told and of what was
 * seen. Only what we say of a domain ourselves is compared: what libvirt, QEMU or a newer version of either
 * adds of its own accord is no difference.
 */
import type { Difference } from '@chronovirt/contracts/drift/drift.events';
import type { DomainState } from '@chronovirt/contracts/vm/vm.events';
import type { DomainPlan, Told } from '../hypervisor.ts';
import { driversOf, kernelOf, type LiveDomain, mediumOf, saysBoot } from './changes.ts';
import { targetOf } from './domain-xml.ts';
import { aliasOf } from './assigned-xml.ts';
import { expertText } from './expert-xml.ts';

/** One domain, as its libvirt tells of it. */
export interface SeenFully {
  readonly state: Exclude<DomainState, 'absent'>;
  readonly reason: string;
  readonly name: string;
  /** The name it was defined with, from its metadata; undefined: an older agent did not write it there. */
  readonly nameGiven: string | undefined;
  readonly persistent: boolean;
  /** What the next start finds. */
  readonly defined: SeenMachine;
  /** What runs; undefined when nothing does. */
  readonly running: SeenMachine | undefined;
  /** Names of snapshots that libvirt knows of; it knows none of ours. */
  readonly snapshots: readonly string[];
}

export interface SeenMachine extends LiveDomain {
  readonly title: string;
  readonly description: string;
  /** Of the disks, by what libvirt calls them. */
  readonly targets: Readonly<Record<string, string>>;
  /** Devices by their kind, where we say how many there are. */
  readonly devices: Readonly<Record<string, number>>;
}

/** Kinds of devices of which there are as many as we say; of others libvirt adds its own. */
export const DEVICE_KINDS: readonly string[] = ['hostdev', 'filesystem', 'serial', 'channel', 'graphics', 'tpm', 'watchdog', 'redirdev', 'shmem', 'rng', 'smartcard', 'panic', 'vsock'];

/** What the same plan would be as XML of ours. */
export interface Expected {
  readonly diskPathOf: (disk: DomainPlan['disks'][number]) => string;
  readonly mediaPathOf: (file: string) => string;
  readonly devices: Readonly<Record<string, number>>;
}

export function differencesOf({ plan, pending, power }: Told, seen: SeenFully, expected: Expected): readonly Difference[] {
  const found: Difference[] = [];
  const compare = (field: string, wanted: Difference['expected'], there: Difference['seen'], where?: Difference['where']): void => {
    if (wanted !== there) found.push({ field, ...(where === undefined ? {} : { where }), expected: wanted, seen: there });
  };
  if (!isPoweredAsTold(power, seen)) compare('state', power, seen.state);
  compare('persistent', true, seen.persistent);
  if (seen.nameGiven !== undefined) compare('name', seen.nameGiven, seen.name);
  compare('snapshots', null, seen.snapshots.length === 0 ? null : seen.snapshots.slice(0, 10).join(', ').slice(0, 1_000));

  const machine = (there: SeenMachine, where: 'defined' | 'running'): void => {
    const waits = (field: (typeof pending)[number]): boolean => where === 'running' && pending.includes(field);
    compare('title', plan.name, there.title, where);
    if (plan.adopted === null) compare('description', '', there.description.slice(0, 1_000), where);
    if (!waits('vcpus')) compare('vcpus', plan.vcpus, there.vcpus, where);
    // What it could grow to is fixed at its start.
    if (where === 'defined') compare('vcpusMax', plan.vcpusMax, there.vcpusMax, where);
    if (!waits('memoryMib')) compare('memoryMib', plan.memoryMib, there.memoryMib, where);
    if (!waits('boot') && saysBoot(plan)) compare('boot', plan.boot.join(), there.boot.join(), where);
    if (!waits('boot') && plan.adopted === null) {
      const kernel = kernelOf(plan, expected.mediaPathOf);
      compare('bootMenu', plan.bootMenu === true, there.bootMenu, where);
      compare('kernel', kernel?.path ?? null, there.kernel?.path ?? null, where);
      compare('kernel.initrd', kernel?.initrd ?? null, there.kernel?.initrd ?? null, where);
      compare('kernel.arguments', kernel?.arguments ?? null, there.kernel?.arguments ?? null, where);
    }
    if (there.media !== null && saysBoot(plan)) compare('media', mediumOf(plan, expected.mediaPathOf) ?? null, there.media ?? null, where);
    if (there.drivers !== null) compare('drivers', driversOf(plan, expected.mediaPathOf) ?? null, there.drivers ?? null, where);
    const macs = new Set([...plan.nics.map(({ mac }) => mac), ...(plan.adopted?.macs ?? [])]);
    for (const mac of macs) if (!there.macs.includes(mac)) compare(`nics.${mac}`, 'attached', null, where);
    for (const mac of there.macs) if (!macs.has(mac)) compare(`nics.${mac}`, null, 'attached', where);
    const targets = new Map(plan.disks.map((disk) => [targetOf(disk, plan.devices), disk]));
    for (const [target, disk] of targets) {
      const path = expected.diskPathOf(disk);
      compare(`disks.${target}`, path, there.targets[target] ?? null, where);
      const present = there.disks.find((one) => one.path === path);
      if (present === undefined) continue;
      compare(`disks.${target}.iops`, disk.limits?.iops ?? null, present.limits?.iops ?? null, where);
      compare(`disks.${target}.bytesPerSecond`, disk.limits?.bytesPerSecond ?? null, present.limits?.bytesPerSecond ?? null, where);
    }
    for (const [target, path] of Object.entries(there.targets)) if (!targets.has(target)) compare(`disks.${target}`, null, path, where);
    if (plan.adopted === null && !waits('expert')) compare('expert', expertText(plan.expert), there.expert, where);
    if (plan.adopted === null && !waits('devices')) {
      const aliases = new Set((plan.assigned ?? []).map(aliasOf));
      for (const alias of aliases) if (!there.assigned.includes(alias)) compare(`devices.${alias}`, 'attached', null, where);
      for (const alias of there.assigned) if (!aliases.has(alias)) compare(`devices.${alias}`, null, 'attached', where);
    }
    for (const kind of DEVICE_KINDS) if (!waits('expert') && !(kind === 'hostdev' && waits('devices'))) compare(`devices.${kind}`, expected.devices[kind] ?? 0, there.devices[kind] ?? 0, where);
  };
  machine(seen.defined, 'defined');
  if (seen.running !== undefined) machine(seen.running, 'running');
  return found.slice(0, DIFFERENCES_MAX);
}

/** The contract's bound. */
const DIFFERENCES_MAX = 50;

/** A guest may shut itself down: that is nobody's doing but its own. And one that crashed and shall not run does not run. */
export const isOfItsGuest = (power: Told['power'], { state, reason }: Pick<SeenFully, 'state' | 'reason'>): boolean => (power !== 'stopped' && state === 'stopped' && reason === 'shutdown') || (power === 'stopped' && state === 'crashed');

/** What is saved does not run; whether it is to go on from there, nobody is told. */
export const isPoweredAsTold = (power: Told['power'], seen: Pick<SeenFully, 'state' | 'reason'>): boolean => seen.state === power || (power === 'stopped' && seen.state === 'saved') || isOfItsGuest(power, seen);
