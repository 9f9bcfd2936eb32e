/* A wish for a volume, with every name in it found: what storage is asked for. */
import { isDiskFormat, notADisk, storedFile } from '@chronovirt/contracts/image/image.events';
import type { NodeId, PoolId, VolumeId } from '@chronovirt/contracts/ids';
import type { CreateVolumeBody } from '@chronovirt/contracts/volume/volume.commands';
import type { VolumeFormat, VolumeSource } from '@chronovirt/contracts/volume/volume.events';
import { refuse, type Refusal } from '@chronovirt/decider/decider';
import type { ImageDocument } from '../images/image.projection.ts';
import type { PoolDocument } from '../pools/pool.projection.ts';
import type { DriftDocument } from '../drift/drift.projection.ts';
import type { VmSummary } from '../vms/vm-summary.projection.ts';
import type { VolumeDocument } from './volume.projection.ts';

export interface Finding {
  /** By id or name, at most a few. */
  pools(reference: string | undefined): Promise<readonly (PoolDocument & { readonly promisedGib: number })[]>;
  node(reference: string): Promise<{ readonly id: string } | undefined>;
  image(reference: string): Promise<ImageDocument | undefined>;
  volume(id: string): Promise<VolumeDocument | undefined>;
  drift(id: string): Promise<DriftDocument | undefined>;
  vm(id: string): Promise<Pick<VmSummary, 'nodeId' | 'snapshots'> | undefined>;
}

export interface VolumeWish {
  readonly poolId: PoolId;
  readonly nodeId: NodeId | null;
  readonly sizeGib: number | null;
  readonly format: VolumeFormat;
  readonly source: VolumeSource;
}

/** What a copy brings with it, where the wish does not say. */
interface Origin {
  readonly source: VolumeSource;
  readonly poolId?: string;
  readonly nodeId?: string | null;
  readonly sizeGib?: number;
  /** It cannot be smaller. */
  readonly leastGib?: number;
  readonly format?: VolumeFormat;
}

const originOf = async (from: CreateVolumeBody['from'], found: Finding): Promise<Origin | Refusal> => {
  if (from === undefined) return { source: { kind: 'blank' } };
  if ('image' in from) {
    const image = await found.image(from.image);
    if (image === undefined) return refuse('image.unknown', { image: from.image, field: 'from' });
    if (!isDiskFormat(image.format)) return notADisk(image, 'from');
    return { source: { kind: 'image', imageId: image.id as `image_${string}`, file: image.file, format: image.format }, sizeGib: image.minDiskGib, leastGib: image.minDiskGib };
  }
  // How large it is shows when it is there.
  if ('url' in from) return { source: { kind: 'content', file: storedFile(from.sha256, from.format), format: from.format } };
  if ('drift' in from) return foundIn(from.drift, await found.drift(from.drift));
  if ('snapshot' in from) {
    const vm = await found.vm(from.vm);
    if (vm === undefined) return refuse('vm.not_found', { vmId: from.vm, field: 'from' });
    const volumeId: VolumeId = from.volume ?? `volume_${from.vm.slice('vm_'.length)}`;
    const snapshot = vm.snapshots.find(({ id }) => id === from.snapshot);
    if (snapshot?.kind === 'internal') return refuse('snapshot.internal', { vmId: from.vm, snapshotId: from.snapshot, field: 'from' });
    const disk = snapshot?.disks.find((one) => one.volumeId === volumeId);
    if (disk === undefined) return refuse('snapshot.not_found', { vmId: from.vm, snapshotId: from.snapshot, volumeId, field: 'from' });
    const poolId = (await found.volume(volumeId))?.poolId;
    const source = { kind: 'snapshot' as const, vmId: from.vm, snapshotId: from.snapshot, volumeId };
    return { source, nodeId: vm.nodeId, sizeGib: disk.sizeGib, leastGib: disk.sizeGib, ...(poolId === undefined ? {} : { poolId }) };
  }
  const volume = await found.volume(from.volume);
  if (volume === undefined) return refuse('volume.unknown', { volumeId: from.volume, field: 'from' });
  // Its size is storage's to say.
  return { source: { kind: 'volume', volumeId: from.volume }, poolId: volume.poolId };
};

/** A file that a node found. What it is the node has read; whether that is sound it sees when it takes it. */
const foundIn = (driftId: Extract<VolumeSource, { kind: 'found' }>['driftId'], item: DriftDocument | undefined): Origin | Refusal => {
  if (item === undefined) return refuse('drift.not_found', { driftId, field: 'from' });
  const seen = (field: string): unknown => item.differences.find((one) => one.field === field)?.seen;
  const [poolId, format, virtualBytes] = [seen('pool'), seen('format'), seen('virtualBytes')];
  if (item.class !== 'orphan-disk' || item.name === null || typeof poolId !== 'string' || (format !== 'qcow2' && format !== 'raw') || typeof virtualBytes !== 'number') return refuse('drift.no_disk', { driftId, class: item.class, field: 'from' });
  return { source: { kind: 'found', driftId, file: item.name }, poolId, nodeId: item.nodeId, format, sizeGib: Math.max(1, Math.ceil(virtualBytes / 2 ** 30)) };
};

const freeGib = ({ capacityGib, overcommitPercent, promisedGib }: PoolDocument & { readonly promisedGib: number }): number => Math.floor((capacityGib * overcommitPercent) / 100) - promisedGib;

export const resolveWish = async (body: CreateVolumeBody, found: Finding): Promise<VolumeWish | Refusal> => {
  const node = body.node === undefined ? null : await found.node(body.node);
  if (node === undefined) return refuse('node.unknown', { node: body.node ?? null, field: 'node' });
  const origin = await originOf(body.from, found);
  if ('refused' in origin) return origin;
  const [moved] = origin.source.kind === 'found' ? (['sizeGib', 'pool', 'node'] as const).filter((field) => body[field] !== undefined) : [];
  if (moved !== undefined) return refuse('volume.found_as_it_is', { field: moved });
  const nodeId = node?.id ?? origin.nodeId ?? null;
  const reference = body.pool ?? origin.poolId;
  const pools = (await found.pools(reference)).filter((pool) => (nodeId === null || pool.nodeIds.includes(nodeId)) && (reference !== undefined || (pool.status === 'active' && !pool.nearlyFull)));
  if (reference !== undefined && pools.length > 1) return refuse('pool.ambiguous', { pool: reference, field: 'pool' });
  const [pool] = [...pools].sort((a, b) => freeGib(b) - freeGib(a) || (a.id < b.id ? -1 : 1));
  if (pool === undefined) return refuse('pool.unknown', { pool: reference ?? '', field: 'pool' });
  const sizeGib = body.sizeGib ?? origin.sizeGib ?? null;
  if (sizeGib !== null && origin.leastGib !== undefined && sizeGib < origin.leastGib) return refuse('volume.smaller_than_source', { sizeGib, sourceGib: origin.leastGib, field: 'sizeGib' });
  return { poolId: pool.id as PoolId, nodeId: nodeId as NodeId | null, sizeGib, format: origin.format ?? body.format, source: origin.source };
};
