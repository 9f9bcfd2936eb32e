/* What a machine that is made after another keeps of it, and what it does not. */
import type { NodeId, VolumeId } from '@chronovirt/contracts/ids';
import type { NetworkPlan } from '@chronovirt/contracts/network/network.events';
import type { AdoptedLayout, Kernel, Media, Restore, VmSpec } from '@chronovirt/contracts/vm/vm.events';
import { isOfNode } from '@chronovirt/contracts/vm/assigned';
import { hostnameOf } from './domain-plan.ts';

/** libvirt's own words for a machine that does not run without the host's help. */
const needsKvm = (layout: AdoptedLayout | null): boolean => /^<domain\b[^>]*\btype=["']kvm["']/.test(layout?.definition ?? '');

/** null: there is no such image any more. */
export type FindImage = (format: 'iso' | 'kernel' | 'initrd', imageId: string) => Media | null;

/** One that is not all there any more is nothing: what the disks hold is there all the same. */
const kernelAgain = (then: Kernel, imageOf: FindImage): Kernel | null => {
  const kernel = imageOf('kernel', then.imageId);
  const initrd = then.initrd === null ? null : imageOf('initrd', then.initrd.imageId);
  return kernel === null || (initrd === null && then.initrd !== null) ? null : { ...kernel, initrd, arguments: then.arguments };
};

/**
 * One of the same kind, with another name and identity. Whether somebody wants it for ever, or started again, was
 * said of that machine, not of this one; what it begins as is in its disks, so it needs no image.
 */
export const anotherOf = ({ expiresAt: _, autostart: __, poolId: ___, assigned, ...spec }: VmSpec, { name, network, nodeId, layout, imageOf }: {
  readonly name: string; readonly network: NetworkPlan; readonly nodeId: NodeId | null; readonly layout: AdoptedLayout | null; readonly imageOf: FindImage;
}): VmSpec => ({
  ...spec, name, ...(needsKvm(layout) ? { accel: 'require-kvm' as const } : {}), networkId: network.networkId, subnetId: network.subnetId, nodeId, protected: false, media: null, imageId: null,
  // Devices of a node are one machine's alone.
  ...(assigned === undefined ? {} : { assigned: assigned.filter((device) => !isOfNode(device)) }),
  ...(spec.drivers === undefined ? {} : { drivers: spec.drivers === null ? null : imageOf('iso', spec.drivers.imageId) }),
  ...(spec.kernel === undefined || spec.kernel === null ? {} : { kernel: kernelAgain(spec.kernel, imageOf) }),
  cloudInit: spec.cloudInit === null ? null : { ...spec.cloudInit, hostname: hostnameOf(name) },
});

/** What keeps another from being made after one that was adopted: its guest was installed on its own machine. */
export const obstacleToAnother = ({ definition }: AdoptedLayout): string | undefined =>
  definition === undefined ? 'its definition is not kept: it hands QEMU words of its own, or is too long' : definition.includes('<kernel>') ? 'it starts a kernel that lies on its node, which no copy would hold' : undefined;

/** Built as one that was adopted: its disks are found by their places, and its interfaces are new ones. What lay in its drive lies on that node. */
export const layoutAfter = ({ disks, drive, definition }: AdoptedLayout, kept: readonly { readonly volumeId: VolumeId }[], volumeOf: (unit: number) => VolumeId): AdoptedLayout => ({
  disks: disks.filter(({ volumeId }) => kept.some((one) => one.volumeId === volumeId)).map((disk) => ({ ...disk, volumeId: volumeOf(disk.unit), file: `${volumeOf(disk.unit)}.qcow2` })), macs: [],
  ...(drive === undefined ? {} : { drive: { ...drive, file: null } }), ...(definition === undefined ? {} : { definition }),
});

/** Networks of interfaces beside the first, at most one in each, and the names of those that are gone. */
export const networksBeside = (first: NetworkPlan, others: readonly NetworkPlan[], known: (networkId: string) => NetworkPlan | undefined): Pick<Restore, 'nics' | 'without'> => {
  const wanted = others.filter(({ networkId }) => networkId !== first.networkId);
  const nics = wanted.flatMap(({ networkId }) => known(networkId) ?? []);
  const without = wanted.flatMap(({ networkId, name }) => (known(networkId) === undefined ? [name] : []));
  return { ...(nics.length === 0 ? {} : { nics }), ...(without.length === 0 ? {} : { without }) };
};
