import { idOfStream } from '@chronovirt/contracts/ids';
import type { PoolEvent } from '@chronovirt/contracts/pool/pool.events';
import type { RecordedEvent } from '@chronovirt/event-log/log';
import type { Projection } from '@chronovirt/event-log/projection';

/** Sizes in GiB. */
export interface PoolDocument {
  readonly id: string;
  readonly name: string;
  readonly nodeId: string;
  readonly capacityGib: number;
  readonly overcommitPercent: number;
  readonly createdAt: string;
  readonly position: number;
}

export const poolView: Projection<PoolDocument> = {
  name: 'gateway.pool',
  version: 1,
  keys: (event) => (event.type === 'PoolRegistered' || event.type === 'PoolResized' ? [idOfStream(event.stream)] : []),
  fold: (before, recorded, key) => {
    const event = recorded as RecordedEvent & PoolEvent;
    switch (event.type) {
      case 'PoolRegistered': {
        const { nodeId, name, capacityGib, overcommitPercent } = event.data;
        return { id: key, name, nodeId, capacityGib, overcommitPercent, createdAt: before?.createdAt ?? event.recordedAt, position: event.position };
      }
      case 'PoolResized':
        return before === undefined ? undefined : { ...before, capacityGib: event.data.capacityGib, position: event.position };
      case 'SpaceReserved':
      case 'SpaceResized':
      case 'SpaceReleased':
        return before;
    }
  },
};
