/* One document for each pool that is not deleted: what `GET /v1/pools/:id` shows, with what is wanted and what nodes see apart. */
import { categoryOf, idOfStream } from '@chronovirt/contracts/ids';
import type { PoolEvent } from '@chronovirt/contracts/pool/pool.events';
import type { RecordedEvent } from '@chronovirt/event-log/log';
import type { Projection } from '@chronovirt/event-log/projection';
import { inWords } from '../problem.ts';

/** Sizes in GiB. */
export interface PoolDocument {
  readonly id: string;
  readonly name: string;
  /** `own`: the one that a node began with. */
  readonly type: 'own' | 'dir' | 'shared';
  readonly path: string | null;
  /** Those that see it, the one that made it first. */
  readonly nodeIds: readonly string[];
  readonly nodeId: string;
  readonly desired: 'active' | 'stopped';
  readonly status: 'creating' | 'active' | 'stopped' | 'failed';
  /** As each node saw it when that last was news. */
  readonly observed: readonly { readonly nodeId: string; readonly active: boolean; readonly capacityGib: number; readonly usedGib: number; readonly at: string }[];
  readonly capacityGib: number;
  readonly overcommitPercent: number;
  readonly fullPercent: number;
  readonly nearlyFull: boolean;
  /** What was found when somebody last had it looked through. */
  readonly found: { readonly at: string; readonly usedGib: number; readonly volumesGib: number; readonly unknown: Files; readonly missing: Files } | null;
  readonly operationId: string | null;
  readonly failure: { readonly code: string; readonly message: string; readonly owed: readonly string[] } | null;
  readonly createdAt: string;
  readonly position: number;
  readonly version: number;
}

interface Files {
  readonly count: number;
  readonly first: readonly string[];
}

export const poolView: Projection<PoolDocument> = {
  name: 'gateway.pool',
  version: 2,
  keys: (event) => (categoryOf(event.stream) === 'pool' ? [idOfStream(event.stream)] : []),
  fold: (before, recorded, key) => {
    const event = recorded as RecordedEvent & PoolEvent;
    const now = { position: event.position, version: event.version };
    const nothing = { observed: [], nearlyFull: false, found: null, operationId: null, failure: null, createdAt: event.recordedAt, ...now };
    if (event.type === 'PoolRegistered') {
      const { nodeId, name, capacityGib, overcommitPercent } = event.data;
      return { id: key, name, type: 'own', path: null, nodeIds: [nodeId], nodeId, desired: 'active', status: 'active', capacityGib, overcommitPercent, fullPercent: 95, ...nothing };
    }
    if (event.type === 'PoolRequested') {
      const { nodes, name, type, path, overcommitPercent, fullPercent, operationId } = event.data;
      return { id: key, name, type, path, nodeIds: nodes, nodeId: nodes[0] ?? '', desired: 'active', status: 'creating', capacityGib: 0, overcommitPercent, fullPercent, ...nothing, operationId };
    }
    if (before === undefined) return undefined;
    switch (event.type) {
      case 'PoolWorkRequested': {
        const { operationId, work } = event.data;
        return { ...before, operationId, desired: work === 'stop' ? 'stopped' : work === 'start' ? 'active' : before.desired, ...now };
      }
      case 'PoolOpened':
        return { ...before, status: 'active', capacityGib: event.data.capacityGib, operationId: null, failure: null, ...now };
      case 'PoolStopped':
        return { ...before, status: 'stopped', operationId: null, failure: null, ...now };
      case 'PoolDeleted':
        return undefined;
      case 'PoolRefreshed': {
        const { capacityGib, usedGib, volumesGib, unknown, missing } = event.data;
        return { ...before, capacityGib, found: { at: event.recordedAt, usedGib, volumesGib, unknown, missing }, operationId: null, ...now };
      }
      case 'PoolWorkFailed': {
        const { refused, because, owed } = event.data;
        return {
          ...before, status: before.status === 'creating' ? 'failed' : before.status, desired: before.status === 'stopped' ? 'stopped' : 'active', operationId: null,
          failure: { code: refused, message: inWords(refused, because), owed }, ...now,
        };
      }
      case 'PoolPolicyChanged':
        return { ...before, ...event.data, ...now };
      case 'PoolObserved': {
        const seen = { ...event.data, at: event.recordedAt };
        return { ...before, capacityGib: before.type !== 'own' && seen.active ? seen.capacityGib : before.capacityGib, observed: [...before.observed.filter(({ nodeId }) => nodeId !== seen.nodeId), seen], ...now };
      }
      case 'PoolNearlyFull':
        return { ...before, nearlyFull: true, ...now };
      case 'PoolRelieved':
        return { ...before, nearlyFull: false, ...now };
      case 'PoolResized':
        return { ...before, capacityGib: event.data.capacityGib, ...now };
      case 'SpaceReserved':
      case 'SpaceResized':
      case 'SpaceReleased':
        return { ...before, ...now };
    }
  },
};
