import { BucketMap } from '@chronovirt/decider/bucket-map';
import { type Decider, refuse, type Refusal } from '@chronovirt/decider/decider';
import type { PoolCommand } from '@chronovirt/contracts/pool/pool.commands';
import type { PoolEvent } from '@chronovirt/contracts/pool/pool.events';
import type { NodeId } from '@chronovirt/contracts/ids';

/** A place for disks on a node, and what of it is promised. Sizes in GiB. */
export type Pool =
  | { readonly status: 'absent' }
  | {
      readonly status: 'live';
      readonly nodeId: NodeId;
      readonly capacityGib: number;
      /** Disks are thin: this much may be promised for each 100 GiB there are. */
      readonly overcommitPercent: number;
      readonly reservedGib: number;
      readonly reserved: BucketMap<string, number>;
    };

const OVERCOMMIT_PERCENT_DEFAULT = 200;

/** The nodes that see it. */
export const nodesOf = (state: Pool): readonly NodeId[] => (state.status === 'absent' ? [] : [state.nodeId]);

/** Why so much more cannot be promised. */
const lackOf = ({ capacityGib, overcommitPercent, reservedGib }: Extract<Pool, { status: 'live' }>, poolId: string, sizeGib: number): Refusal | undefined => {
  const freeGib = Math.floor((capacityGib * overcommitPercent) / 100) - reservedGib;
  return sizeGib > 0 && sizeGib > freeGib ? refuse('pool.no_space', { poolId, sizeGib, freeGib }) : undefined;
};

export const pool: Decider<PoolCommand, PoolEvent, Pool> = {
  category: 'pool',
  initial: { status: 'absent' },
  decide(command, state) {
    switch (command.type) {
      case 'RegisterPool': {
        const { poolId, nodeId, name, capacityGib } = command.data;
        if (state.status === 'absent') return [{ type: 'PoolRegistered', data: { poolId, nodeId, name, capacityGib, overcommitPercent: OVERCOMMIT_PERCENT_DEFAULT } }];
        if (state.nodeId !== nodeId) return refuse('pool.of_another_node', { poolId });
        return state.capacityGib === capacityGib ? [] : [{ type: 'PoolResized', data: { nodeId, capacityGib } }];
      }
      case 'ReserveSpace': {
        const { poolId, volumeId, vmId, sizeGib } = command.data;
        if (state.status === 'absent') return refuse('pool.not_found', { poolId });
        if (state.reserved.has(volumeId)) return [];
        return lackOf(state, poolId, sizeGib) ?? [{ type: 'SpaceReserved', data: { nodeId: state.nodeId, volumeId, vmId, sizeGib } }];
      }
      case 'ResizeSpace': {
        const { poolId, volumeId, vmId, sizeGib } = command.data;
        const heldGib = state.status === 'absent' ? undefined : state.reserved.get(volumeId);
        if (state.status === 'absent' || heldGib === undefined) return refuse('volume.not_found', { volumeId, poolId });
        if (heldGib === sizeGib) return [];
        const lack = lackOf(state, poolId, sizeGib - heldGib);
        const { nodeId } = state;
        return lack ?? [{ type: 'SpaceResized', data: { nodeId, volumeId, vmId, sizeGib, beforeGib: heldGib } }];
      }
      case 'ReleaseSpace': {
        const { volumeId, vmId } = command.data;
        const sizeGib = state.status === 'absent' ? undefined : state.reserved.get(volumeId);
        return state.status === 'absent' || sizeGib === undefined ? [] : [{ type: 'SpaceReleased', data: { nodeId: state.nodeId, volumeId, vmId, sizeGib } }];
      }
    }
  },
  evolve(state, event) {
    if (event.type === 'PoolRegistered') {
      const { nodeId, capacityGib, overcommitPercent } = event.data;
      return { status: 'live', nodeId, capacityGib, overcommitPercent, reservedGib: 0, reserved: BucketMap.empty() };
    }
    if (state.status === 'absent') return state;
    switch (event.type) {
      case 'PoolResized':
        return { ...state, capacityGib: event.data.capacityGib };
      case 'SpaceReserved':
        return { ...state, reservedGib: state.reservedGib + event.data.sizeGib, reserved: state.reserved.with(event.data.volumeId, event.data.sizeGib) };
      case 'SpaceResized':
        return { ...state, reservedGib: state.reservedGib + event.data.sizeGib - event.data.beforeGib, reserved: state.reserved.with(event.data.volumeId, event.data.sizeGib) };
      case 'SpaceReleased':
        return { ...state, reservedGib: state.reservedGib - event.data.sizeGib, reserved: state.reserved.without(event.data.volumeId) };
    }
  },
};
