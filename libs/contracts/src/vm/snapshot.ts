/*
 * A snapshot of a VM is what its disks held at one moment. Disks are made of layers, each a file over another:
 * what is frozen is never written again, and the guest writes into a new layer on top.
 */
import { z } from 'zod';
import { SnapshotId, VolumeId } from '../ids.ts';
import { Name, text } from '../text.ts';

/** The name of a layer within its disk: 8 hexadecimal digits. null: the one the disk was made with. */
export const Layer = z.string().regex(/^[0-9a-f]{8}$/).nullable();
export type Layer = z.infer<typeof Layer>;

/** `layer` is what was frozen. Size in GiB. */
export const SnapshotDisk = z.object({ volumeId: VolumeId, unit: z.int().min(0).max(23), sizeGib: z.int().min(1), layer: Layer });
export type SnapshotDisk = z.infer<typeof SnapshotDisk>;

export const Snapshot = z.object({
  snapshotId: SnapshotId,
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
 */
export const LayerStep = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('drop'), volumeId: VolumeId, layer: Layer.unwrap() }),
  z.object({ kind: z.literal('merge'), volumeId: VolumeId, layer: Layer.unwrap(), into: Layer, active: z.boolean(), above: z.array(Layer.unwrap()).max(64) }),
]);
export type LayerStep = z.infer<typeof LayerStep>;
