import { describe, expect, it } from 'vitest';
import type { VolumeEvent } from '@chronovirt/contracts/volume/volume.events';
import { scenarioOf } from '@chronovirt/decider/scenario';
import { volume } from './volume.ts';

const digits = '0'.repeat(32);
const made = { volumeId: `volume_${digits}`, vmId: `vm_${digits}`, poolId: `pool_${digits}`, nodeId: `node_${digits}`, imageId: `image_${digits}`, sizeGib: 4 } as const;
const given = scenarioOf(volume, (actual, expected) => { expect(actual).toEqual(expected); });
const created: VolumeEvent = { type: 'VolumeCreated', data: made };
const deleted: VolumeEvent = { type: 'VolumeDeleted', data: { volumeId: made.volumeId, vmId: made.vmId } };
const operationId = `op_${digits}` as const;
const detached: VolumeEvent = { type: 'VolumeDetached', data: { volumeId: made.volumeId, vmId: made.vmId } };
const deleting: VolumeEvent = { type: 'VolumeDeleteStarted', data: { operationId, volumeId: made.volumeId, poolId: made.poolId, nodeId: made.nodeId } };
const other = `vm_${'1'.repeat(32)}` as const;
const attach = (vmId: `vm_${string}`, poolId: `pool_${string}` = made.poolId) => ({ type: 'AttachVolume', data: { volumeId: made.volumeId, vmId, poolId } }) as const;
const detach = (drop: typeof operationId | null = null) => ({ type: 'DetachVolume', data: { volumeId: made.volumeId, vmId: made.vmId, delete: drop } }) as const;
const removal = { type: 'RemoveDetachedVolume', data: { volumeId: made.volumeId, operationId } } as const;
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
  it('is attached to one VM at a time, in the pool where it is', () => {
    given(created).when(attach(other)).thenRefused('volume.attached', { volumeId: made.volumeId, vmId: made.vmId });
    given(created).when(detach()).then(detached);
    given(created, detached).when(detach()).then();
    given(created, detached).when(attach(other)).then({ type: 'VolumeAttached', data: { volumeId: made.volumeId, vmId: other } });
    given(created, detached).when(attach(other)).thenFacts({ sizeGib: 4 });
    given(created, detached).when(attach(other, `pool_${'7'.repeat(32)}`)).thenRefused('volume.elsewhere', { volumeId: made.volumeId, nodeId: made.nodeId, poolId: made.poolId });
  });
  it('is deleted when no VM has it, or with the VM that lets go of it', () => {
    given(created).when(removal).thenRefused('volume.attached', { volumeId: made.volumeId, vmId: made.vmId });
    given(created, detached).when(removal).then(deleting);
    given(created).when(detach(operationId)).then(detached, deleting);
    given(created, detached, deleting).when(attach(other)).thenRefused('volume.deleting', { volumeId: made.volumeId });
    given(created, detached, deleting).when(removal).thenRefused('volume.deleting', { volumeId: made.volumeId });
    given(created, detached, deleting).when({ type: 'DeleteVolume', data: { volumeId: made.volumeId, vmId: null } }).then({ type: 'VolumeDeleted', data: { volumeId: made.volumeId, vmId: null } });
    given(created, detached, deleting).when({ type: 'AbandonVolumeDelete', data: { volumeId: made.volumeId, operationId } }).then({ type: 'VolumeDeleteAbandoned', data: { volumeId: made.volumeId, operationId } });
  });
  it('grows for the VM that has it', () => {
    const grow = (vmId: `vm_${string}`) => ({ type: 'ResizeVolume', data: { volumeId: made.volumeId, vmId, sizeGib: 9 } }) as const;
    given(created).when(grow(made.vmId)).then({ type: 'VolumeResized', data: { volumeId: made.volumeId, vmId: made.vmId, sizeGib: 9 } });
    given(created).when(grow(other)).thenRefused('volume.not_found', { volumeId: made.volumeId });
  });
});
