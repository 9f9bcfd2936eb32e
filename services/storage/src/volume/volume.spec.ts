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
const attach = (vmId: `vm_${string}`, nodeId: `node_${string}` = made.nodeId) => ({ type: 'AttachVolume', data: { volumeId: made.volumeId, vmId, nodeId, seenBy: [made.nodeId] } }) as const;
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
  it('is attached to one VM at a time, on a node that sees its pool', () => {
    given(created).when(attach(other)).thenRefused('volume.attached', { volumeId: made.volumeId, vmId: made.vmId });
    given(created).when(detach()).then(detached);
    given(created, detached).when(detach()).then();
    given(created, detached).when(attach(other)).then({ type: 'VolumeAttached', data: { volumeId: made.volumeId, vmId: other } });
    given(created, detached).when(attach(other)).thenFacts({ sizeGib: 4, poolId: made.poolId });
    given(created, detached).when(attach(other, `node_${'7'.repeat(32)}`)).thenRefused('volume.elsewhere', { volumeId: made.volumeId, nodeId: made.nodeId, poolId: made.poolId });
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

describe('A volume of its own', () => {
  const { volumeId, poolId, nodeId } = made;
  const place = { volumeId, poolId, nodeId, sizeGib: 4, format: 'qcow2' } as const;
  const wish = { operationId, name: 'data', ...place, source: { kind: 'blank' } } as const;
  const requested: VolumeEvent = { type: 'VolumeRequested', data: wish };
  const ready: VolumeEvent = { type: 'VolumeReady', data: { operationId, volumeId } };
  const second = `op_${'2'.repeat(32)}` as const;
  const owed = { operationId, volumeId, refused: 'saga.step_overdue', because: {}, owed: ['disk'] };
  const failed: VolumeEvent = { type: 'VolumeFailed', data: { ...owed, owed: [] } };
  const convert = { type: 'WorkOnVolume', data: { volumeId, operationId: second, work: { kind: 'convert', format: 'raw' } } } as const;
  const converting: VolumeEvent = { type: 'VolumeWorkRequested', data: { operationId: second, ...place, work: { kind: 'convert', format: 'raw' } } };
  const busy = { volumeId, operationId: second, kind: 'convert' };

  it('is asked for once, made, and then nobody\'s', () => {
    given().when({ type: 'RequestVolume', data: wish }).then(requested);
    given(requested).when({ type: 'RequestVolume', data: wish }).then();
    given(requested).when(attach(other)).thenRefused('volume.busy', { volumeId, operationId, kind: 'create' });
    given(requested).when({ type: 'FinishVolume', data: { operationId, volumeId } }).then(ready);
    given(requested, ready).when(attach(other)).then({ type: 'VolumeAttached', data: { volumeId, vmId: other } });
  });
  it('that could not be made has failed, and is only good for being deleted', () => {
    given(requested).when({ type: 'FailVolume', data: { ...owed, owed: [] } }).then(failed);
    given(requested, failed).when(attach(other)).thenRefused('volume.failed', { volumeId });
    given(requested, failed).when(removal).then(deleting);
  });
  it('that a silent node may have made is settled, once', () => {
    const left: VolumeEvent = { type: 'VolumeFailed', data: owed };
    given(requested, left).when({ type: 'SettleVolume', data: { operationId, volumeId, settled: true } }).then({ type: 'VolumeSettled', data: { operationId, volumeId } });
    given(requested, left, { type: 'VolumeSettled', data: { operationId, volumeId } }).when({ type: 'SettleVolume', data: { operationId, volumeId, settled: true } }).then();
  });
  it('is worked on by one operation at a time, while no VM has it', () => {
    given(requested, ready).when(convert).then(converting);
    given(requested, ready, converting).when(convert).then();
    given(requested, ready, converting).when(attach(other)).thenRefused('volume.busy', busy);
    given(requested, ready, converting).when(removal).thenRefused('volume.busy', busy);
    given(requested, ready, converting).when({ type: 'HoldVolume', data: { operationId, volumeId } }).thenRefused('volume.busy', busy);
    given(created).when(convert).thenRefused('volume.attached', { volumeId, vmId: made.vmId });
    given(requested, ready, converting).when({ type: 'FinishVolume', data: { operationId: second, volumeId } }).then({ type: 'VolumeWorked', data: { operationId: second, volumeId, format: 'raw' } });
  });
  it('that such work left in an unknown state is dirty until its node has seen to it', () => {
    const dirty: VolumeEvent = { type: 'VolumeWorkFailed', data: { ...owed, operationId: second } };
    given(requested, ready, converting).when({ type: 'FailVolume', data: { ...owed, operationId: second } }).then(dirty);
    given(requested, ready, converting, dirty).when(attach(other)).thenRefused('volume.dirty', { volumeId, nodeId });
    given(requested, ready, converting, dirty, { type: 'VolumeSettled', data: { operationId: second, volumeId } }).when(convert).then(converting);
  });
  it('that was to be made of a file, and was not, goes without it; made, it goes with it', () => {
    const asked: VolumeEvent = { type: 'VolumeRequested', data: { ...wish, source: { kind: 'found', driftId: `drift_${'1'.repeat(32)}`, file: 'theirs.qcow2' } } };
    const going = { operationId, volumeId, poolId: wish.poolId, nodeId };
    given(asked, { type: 'VolumeFailed', data: owed }).when(removal).then({ type: 'VolumeDeleteStarted', data: { ...going, found: 'theirs.qcow2' } });
    given(asked, ready).when(removal).then({ type: 'VolumeDeleteStarted', data: going });
  });
  it('is held while it is copied', () => {
    const held: VolumeEvent = { type: 'VolumeHeld', data: { operationId: second, volumeId } };
    given(requested, ready).when({ type: 'HoldVolume', data: { operationId: second, volumeId } }).then(held);
    given(requested, ready, held).when(attach(other)).thenRefused('volume.busy', { volumeId, operationId: second, kind: 'copy' });
    given(requested, ready, held).when({ type: 'LetGoOfVolume', data: { operationId, volumeId } }).then();
    given(requested, ready, held).when({ type: 'LetGoOfVolume', data: { operationId: second, volumeId } }).then({ type: 'VolumeLetGo', data: { operationId: second, volumeId } });
  });
  it('is not compressed as raw', () => {
    const raw: VolumeEvent = { type: 'VolumeRequested', data: { ...wish, format: 'raw' } };
    given(raw, ready).when({ type: 'WorkOnVolume', data: { volumeId, operationId: second, work: { kind: 'sparsify', compress: true } } }).thenRefused('volume.raw_not_compressed', { volumeId, field: 'compress' });
  });
});
