/* A domain's XML, as far as what is in it can be changed or compared. */
import type { BootDevice } from '@chronovirt/contracts/vm/vm.events';
import type { DiskLimits } from '@chronovirt/contracts/volume/volume.events';
import { readDomain } from '@chronovirt/libvirt/domain-xml';
import { attributeOf, bytesOf, childOf, childrenOf, textOf } from '@chronovirt/libvirt/xml';
import type { XmlElement } from '@chronovirt/libvirt/xml';
import { BOOT_PORT } from '../boot-jobs/boot-runs.ts';
import { DEVICE_KINDS } from '../domain/differences.ts';
import type { SeenMachine } from '../domain/differences.ts';
import { type Drive, DRIVES } from '../domain/domain-xml.ts';
import type { DomainPlan } from '../hypervisor.ts';
import { aliasesIn } from './node-device.os.ts';

export const macIn = (device: XmlElement): string | undefined => attributeOf(device, 'address', 'mac')?.toLowerCase();

/** libvirt writes what is not limited as 0, or not at all. */
const limitsIn = (iotune: XmlElement | undefined): DiskLimits | null => {
  const [bytesPerSecond, iops] = ['total_bytes_sec', 'total_iops_sec'].map((name) => Number(textOf(childOf(iotune, name)) || 0));
  return bytesPerSecond === 0 && iops === 0 ? null : { ...(iops === 0 ? {} : { iops }), ...(bytesPerSecond === 0 ? {} : { bytesPerSecond }) };
};

const bootDevices: Readonly<Record<string, BootDevice>> = { hd: 'disk', cdrom: 'cdrom', network: 'network' };

/** A machine that was defined before there was such a port gets it with its next definition: that it has none is nobody's doing. */
const isLater = (device: XmlElement): boolean => attributeOf(device, 'name', 'target') === BOOT_PORT;

/** How many devices of each kind that we say the number of. */
export const devicesIn = (devices: XmlElement | undefined): Readonly<Record<string, number>> =>
  Object.fromEntries(DEVICE_KINDS.flatMap((kind) => {
    const count = childrenOf(devices, kind).filter((device) => !isLater(device)).length;
    return count === 0 ? [] : [[kind, count]];
  }));

/** The drive from which cloud-init learns, in a domain that we did not make, is known by this serial number. */
export const SEED_SERIAL = 'cv-seed';

const isDrive = (disk: XmlElement): boolean => disk.attributes['device'] === 'cdrom';
const isSeed = (disk: XmlElement): boolean => textOf(childOf(disk, 'serial')) === SEED_SERIAL;

/** The drives of a domain that we did not make. The first is for media, unless it is said which. */
export function drivesOf(devices: XmlElement | undefined, { drive }: Adopted): { readonly media: XmlElement | undefined; readonly seed: XmlElement | undefined } {
  const drives = childrenOf(devices, 'disk').filter(isDrive);
  const others = drives.filter((one) => !isSeed(one));
  return { media: others.find((one) => attributeOf(one, 'dev', 'target') === drive?.target) ?? others[0], seed: drives.find(isSeed) };
}

/** Its drives, whoever made it. */
export const placesOf = (devices: XmlElement | undefined, adopted: Adopted | undefined): Readonly<Record<Drive, XmlElement | undefined>> => {
  if (adopted !== undefined) return { ...drivesOf(devices, adopted), drivers: undefined };
  const disks = childrenOf(devices, 'disk');
  const { media, seed, drivers } = DRIVES[disks.some((disk) => !isDrive(disk) && attributeOf(disk, 'dev', 'target') === 'sda') ? 'legacy' : 'virtio'];
  const driveAt = (wanted: string): XmlElement | undefined => disks.find((disk) => isDrive(disk) && attributeOf(disk, 'dev', 'target') === wanted);
  return { media: driveAt(media), seed: driveAt(seed), drivers: driveAt(drivers) };
};

/** What a device stands for in the order of booting. */
const bootDeviceOf = (device: XmlElement): BootDevice | undefined => (device.name === 'interface' ? 'network' : device.name !== 'disk' ? undefined : isDrive(device) ? 'cdrom' : 'disk');

/** From where it starts, said of the machine or of each device; its disk, where nothing is said. */
export function bootIn(root: XmlElement): readonly BootDevice[] {
  const ofMachine = childrenOf(childOf(root, 'os'), 'boot').flatMap((boot) => bootDevices[boot.attributes['dev'] ?? ''] ?? []);
  const devices = (childOf(root, 'devices')?.children ?? []).flatMap((node) => (typeof node === 'string' ? [] : [node]));
  const ofDevices = devices.flatMap((device) => {
    const order = Number(attributeOf(device, 'order', 'boot'));
    const kind = bootDeviceOf(device);
    return order > 0 && kind !== undefined ? [{ order, kind }] : [];
  }).sort((a, b) => a.order - b.order).map(({ kind }) => kind);
  const said = [...new Set(ofMachine.length > 0 ? ofMachine : ofDevices)];
  return said.length === 0 ? ['disk'] : said;
}

/** The path of what lies in a drive; one that is a device of the node has that of the device. */
export const mediumIn = (drive: XmlElement): string | undefined => attributeOf(drive, 'file', 'source') ?? attributeOf(drive, 'dev', 'source');

type Adopted = NonNullable<DomainPlan['adopted']>;

/** The XML of a domain, running or defined. `adopted`: one that we did not make. */
export function liveDomain(xml: string, adopted?: Adopted | null): SeenMachine {
  const { root, metadata, title, vcpus, vcpusMax, memoryKibMax, disks } = readDomain(xml);
  const devices = childOf(root, 'devices');
  const os = childOf(root, 'os');
  const [kernel, initrd] = [childOf(os, 'kernel'), childOf(os, 'initrd')];
  const { media, seed, drivers } = placesOf(devices, adopted ?? undefined);
  const ofDisks = childrenOf(devices, 'disk').filter((one) => (one.attributes['device'] ?? 'disk') === 'disk');
  return {
    vcpus, vcpusMax,
    // libvirt counts what was plugged in among <memory>.
    memoryMib: Math.floor(memoryKibMax / 1_024),
    memoryMibMax: Math.floor(bytesOf(childOf(root, 'maxMemory'), 'KiB') / 2 ** 20),
    boot: bootIn(root),
    bootMenu: attributeOf(root, 'enable', 'os', 'bootmenu') === 'yes',
    kernel: kernel === undefined ? null : { path: textOf(kernel), initrd: initrd === undefined ? null : textOf(initrd), arguments: textOf(childOf(os, 'cmdline')) },
    media: media === undefined ? null : mediumIn(media),
    drivers: drivers === undefined ? null : mediumIn(drivers),
    seed: (seed === undefined ? undefined : mediumIn(seed)) ?? null,
    expert: childOf(metadata, 'cv:vm')?.attributes['expert'] ?? '',
    assigned: aliasesIn(devices),
    usb: childrenOf(devices, 'controller').some(({ attributes }) => attributes['type'] === 'usb' && attributes['model'] !== 'none'),
    macs: childrenOf(devices, 'interface').flatMap((one) => macIn(one) ?? []),
    disks: ofDisks.map((one) => ({ path: attributeOf(one, 'file', 'source') ?? '', limits: limitsIn(childOf(one, 'iotune')) })),
    title: title ?? '',
    description: textOf(childOf(root, 'description')),
    targets: Object.fromEntries(disks.filter(({ device }) => device === 'disk').map(({ target, path }) => [target, path ?? '?'])),
    devices: devicesIn(devices),
  };
}
