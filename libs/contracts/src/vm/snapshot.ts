/*
 * A snapshot of a VM is what its disks held at one moment. Disks are made of layers, each a file over another:
 * what is frozen is never written again, and the guest writes into a new layer on top.
 *
 * That is an external snapshot. An internal one is kept inside of the files themselves, under its own name, and
 * no layer comes or goes. Only qcow2 can do that, and only while nobody uses the disks.
 */
import { z } from 'zod';
import { OperationId, SnapshotId, VolumeId } from '../ids.ts';
import { Name, text } from '../text.ts';

/** The name of a layer within its disk: 8 hexadecimal digits. null: the one the disk was made with. */
export const Layer = z.string().regex(/^[0-9a-f]{8}$/).nullable();
export type Layer = z.infer<typeof Layer>;

export const SnapshotKind = z.enum(['external', 'internal']);
export type SnapshotKind = z.infer<typeof SnapshotKind>;

/** What a disk keeps inside of its file is called after the snapshot, or after the operation that goes back to one. */
export const InnerName = z.union([SnapshotId, OperationId]);
export type InnerName = z.infer<typeof InnerName>;

/** `layer` is what was frozen, or for an internal snapshot where it is kept. Size in GiB. */
export const SnapshotDisk = z.object({ volumeId: VolumeId, unit: z.int().min(0).max(23), sizeGib: z.int().min(1), layer: Layer });
export type SnapshotDisk = z.infer<typeof SnapshotDisk>;

export const Snapshot = z.object({
  snapshotId: SnapshotId,
  kind: SnapshotKind.default('external'),
  name: Name,
  description: text(1_000),
  /** The snapshot that the disks were on when this one was taken. */
  parent: SnapshotId.nullable(),
  /** What the VM did when it was taken. */
  state: z.enum(['running', 'paused', 'stopped', 'saved', 'crashed', 'absent']),
  /** Whether its file systems were known to be still: the guest agent froze them for that moment. */
  frozen: z.boolean(),
  disks: z.array(SnapshotDisk).min(1).max(24),
});
export type Snapshot = z.infer<typeof Snapshot>;

/**
 * What becomes of a layer that nobody needs under its own name. `drop`: nothing stands on it, its file goes.
 * `merge`: what it holds is written into the layer below, which from then on is both; those `above` stand on
 * that one then. `active`: it is the layer that the guest writes.
 *
 * And of what is kept inside of a file, which no disk in use lets go: `forget`: it goes. `return`: the disk holds
 * that again, and then it goes. One that is not there is done with.
 */
export const LayerStep = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('drop'), volumeId: VolumeId, layer: Layer.unwrap() }),
  z.object({ kind: z.literal('merge'), volumeId: VolumeId, layer: Layer.unwrap(), into: Layer, active: z.boolean(), above: z.array(Layer.unwrap()).max(64) }),
  z.object({ kind: z.literal('forget'), volumeId: VolumeId, inner: InnerName }),
  z.object({ kind: z.literal('return'), volumeId: VolumeId, inner: InnerName }),
]);
export type LayerStep = z.infer<typeof LayerStep>;
export type InnerStep = Extract<LayerStep, { kind: 'forget' | 'return' }>;
