/* A domain's XML, as far as what is in it can be changed or compared. */
import type { BootDevice } from '@chronovirt/contracts/vm/vm.events';
import type { DiskLimits } from '@chronovirt/contracts/volume/volume.events';
import { readDomain } from '@chronovirt/libvirt/domain-xml';
import { attributeOf, bytesOf, childOf, childrenOf, textOf } from '@chronovirt/libvirt/xml';
import type { XmlElement } from '@chronovirt/libvirt/xml';
import { BOOT_PORT } from '../boot-jobs/boot-runs.ts';
import { DEVICE_KINDS } from '../domain/differences.ts';
import type { SeenMachine } from '../domain/differences.ts';

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

/** The XML of a domain, running or defined. */
export function liveDomain(xml: string): SeenMachine {
  const { root, metadata, title, vcpus, vcpusMax, memoryKibMax, disks } = readDomain(xml);
  const [media, seed] = disks.some((disk) => disk.target === 'sda' && disk.device === 'disk') ? ['sdb', 'sdc'] : ['sda', 'sdb'];
  const driveAt = (wanted: string | undefined) => disks.find(({ device, target }) => device === 'cdrom' && target === wanted);
  const drive = driveAt(media);
  const devices = childOf(root, 'devices');
  const ofDisks = childrenOf(devices, 'disk').filter((one) => (one.attributes['device'] ?? 'disk') === 'disk');
  return {
    vcpus, vcpusMax,
    // libvirt counts what was plugged in among <memory>.
    memoryMib: Math.floor(memoryKibMax / 1_024),
    memoryMibMax: Math.floor(bytesOf(childOf(root, 'maxMemory'), 'KiB') / 2 ** 20),
    boot: childrenOf(childOf(root, 'os'), 'boot').flatMap((boot) => bootDevices[boot.attributes['dev'] ?? ''] ?? []),
    media: drive === undefined ? null : drive.path,
    seed: driveAt(seed)?.path ?? null,
    expert: childOf(metadata, 'cv:vm')?.attributes['expert'] ?? '',
    macs: childrenOf(devices, 'interface').flatMap((one) => macIn(one) ?? []),
    disks: ofDisks.map((one) => ({ path: attributeOf(one, 'file', 'source') ?? '', limits: limitsIn(childOf(one, 'iotune')) })),
    title: title ?? '',
    description: textOf(childOf(root, 'description')),
    targets: Object.fromEntries(disks.filter(({ device }) => device === 'disk').map(({ target, path }) => [target, path ?? '?'])),
    devices: devicesIn(devices),
  };
}
