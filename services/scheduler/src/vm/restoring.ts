/* A VM that is made of a backup: another machine of the same kind, with another name, address and identity. */
import type { BackupFile } from '@chronovirt/contracts/backup/backup.events';
import type { BackupId, NodeId, VolumeId } from '@chronovirt/contracts/ids';
import type { NetworkPlan } from '@chronovirt/contracts/network/network.events';
import type { Restore, VmSpec } from '@chronovirt/contracts/vm/vm.events';
import { refuse, type Refusal } from '@chronovirt/decider/decider';
import type { BackupEntry } from '../view.projection.ts';
import { anotherOf, type FindImage, layoutAfter, networksBeside } from './another.ts';

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

/** `volumeOf` names the new disk in a place; without a network it is that of then. */
export const restoring = (find: (id: string) => BackupEntry | undefined, wish: {
  readonly backupId: BackupId; readonly name: string; readonly network: NetworkPlan | null; readonly networks: (networkId: string) => NetworkPlan | undefined; /** null: there is no such image any more. */ readonly imageOf: FindImage; readonly nodeId: NodeId | null; readonly proof: Restore['proof']; readonly volumeOf: (unit: number) => VolumeId;
}): Restoring | Refusal => {
  const chain = chainOf(find, wish.backupId);
  if ('refused' in chain) return chain;
  const last = chain.at(-1);
  if (last === undefined) return refuse('backup.not_found', { backupId: wish.backupId });
  const { vmId: ofVm, target, taken: { machine } } = last;
  const network = wish.network ?? machine.network ?? machine.nics?.[0] ?? null;
  if (network === null) return refuse('backup.needs_network', { backupId: wish.backupId, field: 'network' });
  const volumes = machine.volumes.map(({ unit, sizeGib, limits }) => ({ unit, sizeGib, limits, volumeId: wish.volumeOf(unit) }));
  const { poolId } = machine.spec;
  const spec = anotherOf(machine.spec, { name: wish.name, network, nodeId: wish.nodeId, layout: machine.layout ?? null, imageOf: wish.imageOf });
  return {
    spec: wish.proof !== undefined ? { ...spec, description: `Drill of ${wish.backupId}, taken of ${machine.spec.name}`, tags: [] } : { ...spec, ...(poolId === undefined ? {} : { poolId }) },
    restore: {
      backupId: wish.backupId, ofVm, targetId: target.targetId, volumes, ...(machine.layout === undefined ? {} : { layout: layoutAfter(machine.layout, last.taken.files, wish.volumeOf) }), ...networksBeside(network, machine.nics ?? [], wish.networks), drill: wish.proof !== undefined, ...(wish.proof === undefined ? {} : { proof: wish.proof }),
      chain: chain.map(({ backupId, taken: { files } }) => ({ backupId, files: files.map(({ unit, bytes, sha256 }: BackupFile) => ({ unit, bytes, sha256 })) })),
    },
    sizeGib: spec.diskGib + volumes.reduce((sum, { sizeGib }) => sum + sizeGib, 0),
  };
};
