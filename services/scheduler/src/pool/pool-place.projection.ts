import { categoryOf, idOfStream, type NodeId, type OperationId, type PoolId } from '@chronovirt/contracts/ids';
import type { CommandMeta } from '@chronovirt/contracts/command';
import type { PoolEvent } from '@chronovirt/contracts/pool/pool.events';
import type { Projection } from '@chronovirt/event-log/projection';
import type { WorkOnPool } from '../provisioning/work-on-pool.saga.ts';

/** A pool for placement, and what its operator wants done with it. */
export interface PoolPlace {
  readonly poolId: PoolId;
  readonly name: string;
  readonly nodes: readonly NodeId[];
  /** The one a node began with, else one that an operator made. */
  readonly made: boolean;
  readonly active: boolean;
  readonly nearlyFull: boolean;
  readonly capacityGib: number;
  readonly overcommitPercent: number;
  readonly reservedGib: number;
  readonly call: { readonly operationId: OperationId; readonly input: WorkOnPool; readonly meta: CommandMeta } | null;
}

/** One document for each pool. */
export const poolPlace: Projection<PoolPlace> = {
  name: 'scheduler.pool_place',
  version: 1,
  keys: (event) => (categoryOf(event.stream) === 'pool' ? [idOfStream(event.stream)] : []),
  fold(document, recorded) {
    const event = recorded as unknown as PoolEvent;
    const nothing = { nearlyFull: false, reservedGib: 0, call: null };
    if (event.type === 'PoolRegistered') {
      const { poolId, nodeId, name, capacityGib, overcommitPercent } = event.data;
      return { ...nothing, poolId, name, nodes: [nodeId], made: false, active: true, capacityGib, overcommitPercent };
    }
    if (event.type === 'PoolRequested') {
      const { poolId, name, nodes, overcommitPercent } = event.data;
      return { ...nothing, poolId, name, nodes, made: true, active: false, capacityGib: 0, overcommitPercent };
    }
    if (document === undefined) return undefined;
    switch (event.type) {
      case 'PoolWorkRequested': {
        const { commandId: _, ...meta } = recorded.meta;
        const { operationId, work } = event.data;
        // What is about to go gets nothing more.
        return { ...document, active: document.active && work !== 'stop' && work !== 'delete', call: { operationId, input: event.data, meta: { ...meta, operationId } } };
      }
      case 'PoolOpened':
        return { ...document, active: true, capacityGib: event.data.capacityGib, call: null };
      case 'PoolStopped':
        return { ...document, active: false, call: null };
      case 'PoolDeleted':
        return undefined;
      case 'PoolRefreshed':
        return { ...document, capacityGib: event.data.capacityGib, call: null };
      case 'PoolWorkFailed':
        return { ...document, active: document.active || (document.call?.input.work === 'stop' && event.data.owed.length === 0), call: null };
      case 'PoolPolicyChanged':
        return { ...document, overcommitPercent: event.data.overcommitPercent };
      case 'PoolObserved':
        return document.made && event.data.active ? { ...document, capacityGib: event.data.capacityGib } : document;
      case 'PoolNearlyFull':
        return { ...document, nearlyFull: true };
      case 'PoolRelieved':
        return { ...document, nearlyFull: false };
      case 'PoolResized':
        return { ...document, capacityGib: event.data.capacityGib };
      case 'SpaceReserved':
        return { ...document, reservedGib: document.reservedGib + event.data.sizeGib };
      case 'SpaceResized':
        return { ...document, reservedGib: document.reservedGib + event.data.sizeGib - event.data.beforeGib };
      case 'SpaceReleased':
        return { ...document, reservedGib: document.reservedGib - event.data.sizeGib };
    }
  },
};
