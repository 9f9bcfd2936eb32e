import { describe, expect, it } from 'vitest';
import { CreateVolumeBody } from '@chronovirt/contracts/volume/volume.commands';
import type { DriftDocument } from '../drift/drift.projection.ts';
import type { PoolDocument } from '../pools/pool.projection.ts';
import { type Finding, resolveWish } from './volume-wish.ts';

const hex = (n: number): string => n.toString(16).padStart(32, '0');
const pool = (n: number, node: number, promisedGib: number): PoolDocument & { readonly promisedGib: number } => ({
  id: `pool_${hex(n)}`, name: 'local', type: 'own', path: null, nodeId: `node_${hex(node)}`, nodeIds: [`node_${hex(node)}`], desired: 'active', status: 'active', observed: [], capacityGib: 10, overcommitPercent: 200, fullPercent: 95, nearlyFull: false,
  found: null, operationId: null, failure: null, createdAt: '', position: 1, version: 1, promisedGib,
});
const pools = [pool(1, 1, 12), pool(2, 2, 3), pool(3, 3, 7)];
const [vmId, volumeId, snapshotId] = [`vm_${hex(5)}`, `volume_${hex(5)}`, `snapshot_${hex(6)}`] as const;
const image = { id: `image_${hex(4)}`, name: 'guest', file: 'guest.qcow2', format: 'qcow2', sha256: '', sizeBytes: 1, minDiskGib: 4, minMemoryMib: 64, release: null, currentSince: 1, createdAt: '', position: 1, version: 1 } as const;
const seen = (fields: object) => Object.entries(fields).map(([field, value]) => ({ field, expected: null, seen: value as string }));
const orphan = (more: object) => ({ class: 'orphan-disk', name: 'theirs.img', nodeId: `node_${hex(3)}`, differences: seen({ bytes: 4_096, pool: `pool_${hex(3)}`, format: 'raw', virtualBytes: 2 ** 30 + 512 }), ...more }) as unknown as DriftDocument;
const [whole, noDisk, other] = [`drift_${hex(1)}`, `drift_${hex(2)}`, `drift_${hex(3)}`] as const;
const orphans: Readonly<Record<string, DriftDocument>> = { [whole]: orphan({}), [noDisk]: orphan({ differences: seen({ bytes: 1, pool: `pool_${hex(3)}` }) }), [other]: orphan({ class: 'disk-replaced' }) };
const found: Finding = {
  pools: (reference) => Promise.resolve(pools.filter(({ id, name }) => reference === undefined || reference === id || reference === name)),
  node: (reference) => Promise.resolve(reference === 'rack-3' ? { id: `node_${hex(3)}` } : undefined),
  image: (reference) => Promise.resolve(reference === 'guest' ? image : undefined),
  volume: (id) => Promise.resolve(id === volumeId ? { id, poolId: `pool_${hex(1)}` } as never : undefined),
  drift: (id) => Promise.resolve(orphans[id]),
  vm: (id) => Promise.resolve(id === vmId ? { nodeId: `node_${hex(1)}`, snapshots: [{ id: snapshotId, disks: [{ volumeId, sizeGib: 6 }] }] } as never : undefined),
};
const wish = (body: object) => resolveWish(CreateVolumeBody.parse({ name: 'data', ...body }), found);

describe('A wish for a volume', () => {
  it('goes where most room is, when it names no place', async () => {
    expect(await wish({ sizeGib: 1 })).toEqual({ poolId: `pool_${hex(2)}`, nodeId: null, sizeGib: 1, format: 'qcow2', source: { kind: 'blank' } });
  });
  it('that is a file which somebody has put there stays where that lies, as what it is', async () => {
    expect(await wish({ from: { drift: whole } })).toEqual({ poolId: `pool_${hex(3)}`, nodeId: `node_${hex(3)}`, sizeGib: 2, format: 'raw', source: { kind: 'found', driftId: whole, file: 'theirs.img' } });
    for (const more of [{ sizeGib: 3 }, { pool: 'local' }, { node: 'rack-3' }]) expect(await wish({ from: { drift: whole }, ...more })).toMatchObject({ refused: 'volume.found_as_it_is', because: { field: Object.keys(more)[0] } });
    for (const drift of [noDisk, other]) expect(await wish({ from: { drift } })).toMatchObject({ refused: 'drift.no_disk' });
    expect(await wish({ from: { drift: `drift_${hex(9)}` } })).toMatchObject({ refused: 'drift.not_found' });
  });
  it('goes where it says, and must say it so that one place is meant', async () => {
    expect(await wish({ sizeGib: 1, node: 'rack-3' })).toMatchObject({ poolId: `pool_${hex(3)}`, nodeId: `node_${hex(3)}` });
    expect(await wish({ sizeGib: 1, node: 'rack-3', pool: 'local' })).toMatchObject({ poolId: `pool_${hex(3)}` });
    expect(await wish({ sizeGib: 1, pool: 'local' })).toMatchObject({ refused: 'pool.ambiguous' });
    expect(await wish({ sizeGib: 1, pool: 'nowhere' })).toMatchObject({ refused: 'pool.unknown' });
    expect(await wish({ sizeGib: 1, pool: `pool_${hex(1)}`, node: 'rack-3' })).toMatchObject({ refused: 'pool.unknown' });
    expect(await wish({ sizeGib: 1, node: 'nobody' })).toMatchObject({ refused: 'node.unknown' });
  });
  it('that copies an image is at least as large as the image needs', async () => {
    expect(await wish({ from: { image: 'guest' } })).toMatchObject({ sizeGib: 4, source: { kind: 'image', file: 'guest.qcow2', format: 'qcow2' } });
    expect(await wish({ sizeGib: 3, from: { image: 'guest' } })).toMatchObject({ refused: 'volume.smaller_than_source', because: { sourceGib: 4 } });
    expect(await wish({ from: { image: 'other' } })).toMatchObject({ refused: 'image.unknown' });
  });
  it('that copies a snapshot is made where that is, of the first disk unless another is named', async () => {
    expect(await wish({ from: { vm: vmId, snapshot: snapshotId } })).toMatchObject({ poolId: `pool_${hex(1)}`, nodeId: `node_${hex(1)}`, sizeGib: 6, source: { kind: 'snapshot', volumeId } });
    expect(await wish({ from: { vm: vmId, snapshot: snapshotId, volume: `volume_${hex(9)}` } })).toMatchObject({ refused: 'snapshot.not_found' });
  });
  it('that copies a volume is made in its pool, and its size is left to storage', async () => {
    expect(await wish({ from: { volume: volumeId } })).toMatchObject({ poolId: `pool_${hex(1)}`, sizeGib: null, source: { kind: 'volume', volumeId } });
    expect(await wish({ from: { volume: `volume_${hex(9)}` } })).toMatchObject({ refused: 'volume.unknown' });
  });
});
