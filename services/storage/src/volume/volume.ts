/*
 * A disk's record: that it exists, how large, where, and which VM has it. Its bytes are a node's matter.
 *
 *     CreateVolume ─▶ attached ⇄ detached ─▶ deleting ─▶ deleted
 *
 * A volume belongs to one VM at a time. The one a VM was made with is attached to it all its life.
 */
import { type Decider, refuse } from '@chronovirt/decider/decider';
import type { NodeId, PoolId, VmId } from '@chronovirt/contracts/ids';
import type { VolumeCommand } from '@chronovirt/contracts/volume/volume.commands';
import type { VolumeEvent } from '@chronovirt/contracts/volume/volume.events';

export type Volume = { readonly status: 'absent' | 'deleted' } | {
  readonly status: 'live' | 'deleting';
  /** null: no VM has it. */
  readonly vmId: VmId | null;
  readonly poolId: PoolId;
  readonly nodeId: NodeId;
  readonly sizeGib: number;
};

type OfVolume = Exclude<VolumeCommand, { type: 'DetachVolumes' | 'CreateVolumes' | 'DeleteVolumes' }>;

export const volume: Decider<OfVolume, VolumeEvent, Volume> = {
  category: 'volume',
  initial: { status: 'absent' },
  decide(command, state) {
    const { volumeId } = command.data;
    switch (command.type) {
      case 'CreateVolume':
        if (state.status === 'live' || state.status === 'deleting') return state.vmId === command.data.vmId ? [] : refuse('volume.exists', { volumeId });
        return state.status === 'absent' ? [{ type: 'VolumeCreated', data: command.data }] : refuse('volume.deleted', { volumeId });
      case 'ResizeVolume': {
        const { vmId, sizeGib } = command.data;
        if (state.status !== 'live' || state.vmId !== vmId) return refuse('volume.not_found', { volumeId });
        return state.sizeGib === sizeGib ? [] : [{ type: 'VolumeResized', data: { volumeId, vmId, sizeGib } }];
      }
      case 'AttachVolume': {
        const { vmId, poolId } = command.data;
        if (state.status !== 'live') return refuse(state.status === 'deleting' ? 'volume.deleting' : 'volume.not_found', { volumeId });
        if (state.vmId === vmId) return [];
        if (state.vmId !== null) return refuse('volume.attached', { volumeId, vmId: state.vmId });
        return state.poolId === poolId ? [{ type: 'VolumeAttached', data: { volumeId, vmId } }] : refuse('volume.elsewhere', { volumeId, nodeId: state.nodeId, poolId: state.poolId });
      }
      case 'DetachVolume': {
        const { vmId, delete: operationId } = command.data;
        if (state.status !== 'live' || state.vmId !== vmId) return [];
        const { poolId, nodeId } = state;
        return [{ type: 'VolumeDetached', data: { volumeId, vmId } }, ...(operationId === null ? [] : [{ type: 'VolumeDeleteStarted', data: { operationId, volumeId, poolId, nodeId } } as const])];
      }
      case 'RemoveDetachedVolume':
        if (state.status !== 'live') return refuse(state.status === 'deleting' ? 'volume.deleting' : 'volume.not_found', { volumeId });
        if (state.vmId !== null) return refuse('volume.attached', { volumeId, vmId: state.vmId });
        return [{ type: 'VolumeDeleteStarted', data: { operationId: command.data.operationId, volumeId, poolId: state.poolId, nodeId: state.nodeId } }];
      case 'AbandonVolumeDelete':
        return state.status === 'deleting' ? [{ type: 'VolumeDeleteAbandoned', data: command.data }] : [];
      case 'DeleteVolume':
        return state.status === 'live' || state.status === 'deleting' ? [{ type: 'VolumeDeleted', data: { volumeId, vmId: state.vmId } }] : [];
    }
  },
  evolve(state, event) {
    if (event.type === 'VolumeCreated') {
      const { vmId, poolId, nodeId, sizeGib } = event.data;
      return { status: 'live', vmId, poolId, nodeId, sizeGib };
    }
    if (event.type === 'VolumeDeleted') return { status: 'deleted' };
    if (state.status !== 'live' && state.status !== 'deleting') return state;
    switch (event.type) {
      case 'VolumeResized':
        return { ...state, sizeGib: event.data.sizeGib };
      case 'VolumeAttached':
        return { ...state, vmId: event.data.vmId };
      case 'VolumeDetached':
        return { ...state, vmId: null };
      case 'VolumeDeleteStarted':
        return { ...state, status: 'deleting' };
      case 'VolumeDeleteAbandoned':
        return { ...state, status: 'live' };
    }
  },
  facts: (command, state) => (command.type === 'AttachVolume' && state.status === 'live' ? { sizeGib: state.sizeGib } : {}),
};
