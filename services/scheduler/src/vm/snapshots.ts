/*
 * What a machine's disks are made of, once it has snapshots.
 *
 *     null ◀── a1 ◀── b2 (active)        S1 froze null, S2 froze a1
 *       ▲
 *       └───── c3                        what was written after a revert to S1, frozen by S3
 *
 * Each disk is a tree of layers, and the guest writes one of them. A snapshot names the layer that it froze
 * in each disk. A layer that no snapshot names and nobody writes is only there for those that stand on it:
 * with none it goes, with one that one is merged into it, with several it stays. So a disk without snapshots
 * is again the one file it was made with, whatever happened in between: all layers stand on it, and merging
 * keeps the lower one.
 *
 * Internal snapshots are kept inside of the files, and make no layers. So a machine has snapshots of one kind:
 * a layer that is merged or dropped would take with it what is kept inside of it. Going back to one first keeps
 * what there is under the operation's name, so that it can be taken back; what nothing is called after goes.
 *
 * The same function says what a node has to do and what the machine is afterwards.
 */
import type { OperationId, SnapshotId, VolumeId } from '@chronovirt/contracts/ids';
import type { InnerName, InnerStep, Layer, LayerStep, Snapshot } from '@chronovirt/contracts/vm/snapshot';
import type { ActiveLayers } from './domain-plan.ts';

/** A disk that has more than the layer it was made with. */
export interface DiskLayers {
  readonly volumeId: VolumeId;
  readonly active: Layer;
  /** All but the one it was made with, each with what it stands on. */
  readonly layers: readonly { readonly layer: string; readonly on: Layer }[];
}

export interface Snapshots {
  readonly list: readonly Snapshot[];
  /** The snapshot that the disks are on now. */
  readonly current: SnapshotId | null;
  readonly disks: readonly DiskLayers[];
  /** What is kept inside of the files of disks. */
  readonly inner: readonly { readonly volumeId: VolumeId; readonly name: InnerName }[];
}

export const noSnapshots: Snapshots = { list: [], current: null, disks: [], inner: [] };

/** Of one VM. libvirt's own chains may be 200 deep; each layer costs a running guest an open file. */
export const SNAPSHOTS_MAX = 32;

const layersOf = ({ disks }: Snapshots, volumeId: VolumeId): DiskLayers => disks.find((disk) => disk.volumeId === volumeId) ?? { volumeId, active: null, layers: [] };

/** Disks in their first state are not listed. */
const withLayers = (disks: readonly DiskLayers[]): readonly DiskLayers[] => disks.filter(({ layers }) => layers.length > 0);

export const activeLayers = ({ disks }: Snapshots): ActiveLayers => Object.fromEntries(disks.map(({ volumeId, active }) => [volumeId, active]));

/** Whether one of them has a part of this volume. */
export const holds = ({ list, disks }: Snapshots, volumeId: VolumeId): boolean =>
  list.some((snapshot) => snapshot.disks.some((disk) => disk.volumeId === volumeId)) || disks.some((disk) => disk.volumeId === volumeId);

/** A name for new layers, made of the operation's digits, that no disk has. */
export const freshLayer = ({ disks }: Snapshots, operationId: OperationId): string => {
  const digits = operationId.slice('op_'.length);
  const taken = new Set(disks.flatMap(({ layers }) => layers.map(({ layer }) => layer)));
  for (let at = digits.length - 8; at >= 0; at--) {
    const layer = digits.slice(at, at + 8);
    if (!taken.has(layer)) return layer;
  }
  throw new Error(`every part of ${operationId} is the name of a layer`);
};

/** The guest writes a new layer, on the ones that are named. */
const stacked = (snapshots: Snapshots, on: Snapshot['disks'], layer: string, current: SnapshotId): Snapshots => ({
  ...snapshots, current,
  disks: [
    ...snapshots.disks.filter(({ volumeId }) => !on.some((disk) => disk.volumeId === volumeId)),
    ...on.map((disk): DiskLayers => {
      const { volumeId, layers } = layersOf(snapshots, disk.volumeId);
      return { volumeId, active: layer, layers: [...layers, { layer, on: disk.layer }] };
    }),
  ],
});

/** What these disks hold is kept inside of them. */
const kept = (snapshots: Snapshots, disks: Snapshot['disks'], name: InnerName, current: SnapshotId): Snapshots =>
  ({ ...snapshots, current, inner: [...snapshots.inner, ...disks.map(({ volumeId }) => ({ volumeId, name }))] });

/** What is active is frozen, as `snapshot` says, and a new layer is active. Without one it is kept inside. */
export const taken = (snapshots: Snapshots, snapshot: Snapshot, layer: Layer): Snapshots => {
  const { snapshotId, disks } = snapshot;
  return { ...(layer === null ? kept(snapshots, disks, snapshotId, snapshotId) : stacked(snapshots, disks, layer, snapshotId)), list: [...snapshots.list, snapshot] };
};

/** A new layer is active on what a snapshot froze; what was active is there until it is tidied away: without a layer, under the operation's name. */
export const reverted = (snapshots: Snapshots, snapshotId: SnapshotId, layer: Layer, operationId: OperationId): Snapshots => {
  const snapshot = snapshots.list.find((one) => one.snapshotId === snapshotId);
  if (snapshot === undefined) return snapshots;
  return layer === null ? kept(snapshots, snapshot.disks, operationId, snapshotId) : stacked(snapshots, snapshot.disks, layer, snapshotId);
};

/** Those that were taken on it are now on what it was on. Its layers are there until they are tidied away. */
export const without = (snapshots: Snapshots, snapshotId: SnapshotId): Snapshots => {
  const parent = snapshots.list.find((one) => one.snapshotId === snapshotId)?.parent ?? null;
  const instead = (id: SnapshotId | null): SnapshotId | null => (id === snapshotId ? parent : id);
  return {
    ...snapshots, current: instead(snapshots.current),
    list: snapshots.list.filter((one) => one.snapshotId !== snapshotId).map((one) => ({ ...one, parent: instead(one.parent) })),
  };
};

export interface Tidied {
  readonly steps: readonly LayerStep[];
  readonly snapshots: Snapshots;
}

/** What has to be done to layers that nobody needs, one after another, and what there is then. */
export const tidied = (snapshots: Snapshots): Tidied => {
  const steps: LayerStep[] = [];
  let now = snapshots;
  for (const { volumeId } of snapshots.disks) {
    // Each step leaves a layer less.
    for (let next = nextStep(now, volumeId); next !== undefined; next = nextStep(now, volumeId)) {
      steps.push(next);
      now = after(now, next);
    }
  }
  const named = (name: InnerName): boolean => now.list.some(({ snapshotId }) => snapshotId === name);
  for (const { volumeId, name } of now.inner) if (!named(name)) steps.push({ kind: 'forget', volumeId, inner: name });
  return { steps, snapshots: { ...now, disks: withLayers(now.disks), inner: now.inner.filter(({ name }) => named(name)) } };
};

const nextStep = (snapshots: Snapshots, volumeId: VolumeId): Exclude<LayerStep, InnerStep> | undefined => {
  const { active, layers } = layersOf(snapshots, volumeId);
  const frozen = new Set(snapshots.list.flatMap(({ disks }) => disks.filter((disk) => disk.volumeId === volumeId).map(({ layer }) => layer)));
  const above = (layer: Layer): readonly string[] => layers.filter(({ on }) => on === layer).map((one) => one.layer);
  for (const layer of [...layers.map((one): Layer => one.layer).reverse(), null]) {
    if (layer === active || frozen.has(layer)) continue;
    const [only, ...others] = above(layer);
    if (only === undefined && layer !== null) return { kind: 'drop', volumeId, layer };
    if (only !== undefined && others.length === 0) return { kind: 'merge', volumeId, layer: only, into: layer, active: only === active, above: [...above(only)] };
  }
  return undefined;
};

/** The layer that was merged has the name of the one below from now on. */
const after = (snapshots: Snapshots, step: Exclude<LayerStep, InnerStep>): Snapshots => {
  const { volumeId, layer } = step;
  const called = (name: Layer): Layer => (step.kind === 'merge' && name === layer ? step.into : name);
  const ours = <T extends { readonly volumeId: VolumeId }>(change: (one: T) => T) => (one: T): T => (one.volumeId === volumeId ? change(one) : one);
  return {
    ...snapshots,
    list: snapshots.list.map((snapshot) => ({ ...snapshot, disks: snapshot.disks.map(ours((disk) => ({ ...disk, layer: called(disk.layer) }))) })),
    disks: snapshots.disks.map(ours((disk) => ({
      ...disk, active: called(disk.active), layers: disk.layers.filter((one) => one.layer !== layer).map((one) => ({ ...one, on: called(one.on) })),
    }))),
  };
};
