/* A VM that is made of a backup: another machine of the same kind, with another name, address and identity. */
import type { BackupFile } from '@chronovirt/contracts/backup/backup.events';
import type { BackupId, NodeId, VolumeId } from '@chronovirt/contracts/ids';
import type { NetworkPlan } from '@chronovirt/contracts/network/network.events';
import type { AdoptedLayout, Kernel, Media, Restore, VmSpec } from '@chronovirt/contracts/vm/vm.events';
import { refuse, type Refusal } from '@chronovirt/decider/decider';
import type { BackupEntry } from '../view.projection.ts';
import { hostnameOf } from './domain-plan.ts';

type Taken = BackupEntry & { readonly taken: NonNullable<BackupEntry['taken']> };

/** Its files and those that it is built on, the full one first; or why it cannot be read. */
const chainOf = (find: (id: string) => BackupEntry | undefined, backupId: BackupId): readonly Taken[] | Refusal => {
  const entry = find(backupId);
  if (entry === undefined) return refuse('backup.not_found', { backupId });
  if (entry.taken === null) return refuse('backup.being_taken', { backupId });
  if (entry.deleting !== null) return refuse('backup.deleting', { backupId, operationId: entry.deleting.operationId });
  const { taken } = entry;
  if (taken.parent === null) return [{ ...entry, taken }];
  const below = chainOf(find, taken.parent);
  return 'refused' in below ? below : [...below, { ...entry, taken }];
};

export interface Restoring {
  readonly spec: VmSpec;
  readonly restore: Restore;
  /** In GiB, of all disks together. */
  readonly sizeGib: number;
}

/** One that is not all there any more is nothing: what the disks hold is restored all the same. */
const kernelAgain = (then: Kernel, imageOf: (format: 'kernel' | 'initrd', imageId: string) => Media | null): Kernel | null => {
  const kernel = imageOf('kernel', then.imageId);
  const initrd = then.initrd === null ? null : imageOf('initrd', then.initrd.imageId);
  return kernel === null || (initrd === null && then.initrd !== null) ? null : { ...kernel, initrd, arguments: then.arguments };
};

/** It is built as the other was: its disks are found by their places, and its interfaces are new ones. What lay in its drive lies on that node. */
const layoutOf = ({ disks, drive, definition }: AdoptedLayout, files: readonly BackupFile[], volumeOf: (unit: number) => VolumeId): AdoptedLayout => ({
  disks: disks.filter(({ volumeId }) => files.some((file) => file.volumeId === volumeId)).map((disk) => ({ ...disk, volumeId: volumeOf(disk.unit), file: `${volumeOf(disk.unit)}.qcow2` })), macs: [],
  ...(drive === undefined ? {} : { drive: { ...drive, file: null } }), ...(definition === undefined ? {} : { definition }),
});

/** libvirt's own words for a machine that does not run without the host's help. */
const needsKvm = (layout: AdoptedLayout | undefined): boolean => /^<domain\b[^>]*\btype=["']kvm["']/.test(layout?.definition ?? '');

/** `volumeOf` names the new disk in a place; without a network it is that of then. */
export const restoring = (find: (id: string) => BackupEntry | undefined, wish: {
  readonly backupId: BackupId; readonly name: string; readonly network: NetworkPlan | null; readonly networks: (networkId: string) => NetworkPlan | undefined; /** null: there is no such image any more. */ readonly imageOf: (format: 'iso' | 'kernel' | 'initrd', imageId: string) => Media | null; readonly nodeId: NodeId | null; readonly proof: Restore['proof']; readonly volumeOf: (unit: number) => VolumeId;
}): Restoring | Refusal => {
  const chain = chainOf(find, wish.backupId);
  if ('refused' in chain) return chain;
  const last = chain.at(-1);
  if (last === undefined) return refuse('backup.not_found', { backupId: wish.backupId });
  const { vmId: ofVm, target, taken: { machine } } = last;
  const network = wish.network ?? machine.network ?? machine.nics?.[0] ?? null;
  if (network === null) return refuse('backup.needs_network', { backupId: wish.backupId, field: 'network' });
  const volumes = machine.volumes.map(({ unit, sizeGib, limits }) => ({ unit, sizeGib, limits, volumeId: wish.volumeOf(unit) }));
  // A VM has at most one interface in a network.
  const others = (machine.nics ?? []).filter(({ networkId }) => networkId !== network.networkId);
  const nics = others.flatMap(({ networkId }) => wish.networks(networkId) ?? []);
  const without = others.flatMap(({ networkId, name }) => (wish.networks(networkId) === undefined ? [name] : []));
  // Whether somebody wants it for ever, or started again, was said of that machine, not of this one.
  const { expiresAt: _, autostart: __, poolId, ...spec } = machine.spec;
  return {
    spec: {
      ...spec, ...(wish.proof !== undefined ? { description: `Drill of ${wish.backupId}, taken of ${spec.name}`, tags: [] } : poolId === undefined ? {} : { poolId }), name: wish.name, ...(needsKvm(machine.layout) ? { accel: 'require-kvm' as const } : {}), networkId: network.networkId, subnetId: network.subnetId, nodeId: wish.nodeId, protected: false, media: null, ...(spec.drivers === undefined ? {} : { drivers: spec.drivers === null ? null : wish.imageOf('iso', spec.drivers.imageId) }),
      ...(spec.kernel === undefined || spec.kernel === null ? {} : { kernel: kernelAgain(spec.kernel, wish.imageOf) }),
      // What it began as is in the files: it needs that image no more.
      imageId: null,
      cloudInit: spec.cloudInit === null ? null : { ...spec.cloudInit, hostname: hostnameOf(wish.name) },
    },
    restore: {
      backupId: wish.backupId, ofVm, targetId: target.targetId, volumes, ...(machine.layout === undefined ? {} : { layout: layoutOf(machine.layout, last.taken.files, wish.volumeOf) }), ...(nics.length === 0 ? {} : { nics }), ...(without.length === 0 ? {} : { without }), drill: wish.proof !== undefined, ...(wish.proof === undefined ? {} : { proof: wish.proof }),
      chain: chain.map(({ backupId, taken: { files } }) => ({ backupId, files: files.map(({ unit, bytes, sha256 }: BackupFile) => ({ unit, bytes, sha256 })) })),
    },
    sizeGib: spec.diskGib + volumes.reduce((sum, { sizeGib }) => sum + sizeGib, 0),
  };
};
