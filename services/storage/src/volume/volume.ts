import { type Decider, refuse } from '@chronovirt/decider/decider';
import type { VolumeCommand } from '@chronovirt/contracts/volume/volume.commands';
import type { VolumeEvent } from '@chronovirt/contracts/volume/volume.events';

/** A disk's record: that it exists, for whom, where. Its bytes are a node's matter. */
export type Volume = { readonly status: 'absent' | 'deleted' } | { readonly status: 'live'; readonly vmId: string; readonly sizeGib: number };

export const volume: Decider<VolumeCommand, VolumeEvent, Volume> = {
  category: 'volume',
  initial: { status: 'absent' },
  decide(command, state) {
    switch (command.type) {
      case 'CreateVolume':
        if (state.status === 'live') return state.vmId === command.data.vmId ? [] : refuse('volume.exists', { volumeId: command.data.volumeId });
        return state.status === 'absent' ? [{ type: 'VolumeCreated', data: command.data }] : refuse('volume.deleted', { volumeId: command.data.volumeId });
      case 'ResizeVolume': {
        const { volumeId, vmId, sizeGib } = command.data;
        if (state.status !== 'live' || state.vmId !== vmId) return refuse('volume.not_found', { volumeId });
        return state.sizeGib === sizeGib ? [] : [{ type: 'VolumeResized', data: { volumeId, vmId, sizeGib } }];
      }
      case 'DeleteVolume':
        return state.status === 'live' ? [{ type: 'VolumeDeleted', data: command.data }] : [];
    }
  },
  evolve(state, event) {
    switch (event.type) {
      case 'VolumeCreated':
        return { status: 'live', vmId: event.data.vmId, sizeGib: event.data.sizeGib };
      case 'VolumeResized':
        return state.status === 'live' ? { ...state, sizeGib: event.data.sizeGib } : state;
      case 'VolumeDeleted':
        return { status: 'deleted' };
    }
  },
};
