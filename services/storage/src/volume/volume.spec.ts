import { describe, expect, it } from 'vitest';
import type { VolumeEvent } from '@chronovirt/contracts/volume/volume.events';
import { scenarioOf } from '@chronovirt/decider/scenario';
import { volume } from './volume.ts';

const digits = '0'.repeat(32);
const made = { volumeId: `volume_${digits}`, vmId: `vm_${digits}`, poolId: `pool_${digits}`, nodeId: `node_${digits}`, imageId: `image_${digits}`, sizeGib: 4 } as const;
const given = scenarioOf(volume, (actual, expected) => { expect(actual).toEqual(expected); });
const created: VolumeEvent = { type: 'VolumeCreated', data: made };
const deleted: VolumeEvent = { type: 'VolumeDeleted', data: { volumeId: made.volumeId, vmId: made.vmId } };
const remove = { type: 'DeleteVolume', data: { volumeId: made.volumeId, vmId: made.vmId } } as const;

describe('A volume', () => {
  it('is created once', () => {
    given().when({ type: 'CreateVolume', data: made }).then(created);
    given(created).when({ type: 'CreateVolume', data: made }).then();
  });
  it('belongs to one VM', () => given(created).when({ type: 'CreateVolume', data: { ...made, vmId: `vm_${'1'.repeat(32)}` } }).thenRefused('volume.exists', { volumeId: made.volumeId }));
  it('is deleted once', () => {
    given(created).when(remove).then(deleted);
    given(created, deleted).when(remove).then();
    given().when(remove).then();
  });
  it('does not come back', () => given(created, deleted).when({ type: 'CreateVolume', data: made }).thenRefused('volume.deleted', { volumeId: made.volumeId }));
});
