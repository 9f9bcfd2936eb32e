import { categoryOf, idOfStream } from '@chronovirt/contracts/ids';
import { type NodeEvent, nodePolicyDefault } from '@chronovirt/contracts/node/node.events';
import type { PoolEvent } from '@chronovirt/contracts/pool/pool.events';
import type { PresenceEvent } from '@chronovirt/contracts/presence/presence.events';
import type { Projection } from '@chronovirt/event-log/projection';
import type { Candidate } from '../placement/candidate.ts';

/** One document for each node, with its pools: what placement looks at. */
export const nodeCapacity: Projection<Candidate> = {
  name: 'scheduler.node_capacity',
  version: 1,
  keys(event) {
    switch (categoryOf(event.stream)) {
      case 'node':
      case 'presence':
        return [idOfStream(event.stream)];
      case 'pool':
        return [nodeOfPool(event as unknown as PoolEvent & Recorded)];
      default:
        return [];
    }
  },
  fold(before, recorded, nodeId) {
    const event = recorded as unknown as (NodeEvent | PoolEvent | PresenceEvent) & Recorded;
    const document = before !== undefined && categoryOf(recorded.stream) === 'node' ? { ...before, version: recorded.version } : before;
    if (event.type === 'NodeRegistered') {
      return {
        nodeId: event.data.nodeId, version: recorded.version, name: event.data.name, description: null, policy: nodePolicyDefault, session: 0, removed: false, silentSince: null,
        vcpusReserved: 0, memoryMibReserved: 0, pools: [], measured: null,
      };
    }
    if (document === undefined || document.nodeId !== nodeId) return document;
    switch (event.type) {
      case 'NodeDescribed':
        return { ...document, description: event.data };
      case 'NodeSessionStarted':
        return { ...document, session: event.data.session };
      case 'NodePolicyChanged':
        return { ...document, policy: event.data };
      case 'CapacityReserved':
        return { ...document, vcpusReserved: document.vcpusReserved + event.data.vcpus, memoryMibReserved: document.memoryMibReserved + event.data.memoryMib };
      case 'CapacityResized': {
        const { vcpus, memoryMib, before: had } = event.data;
        return { ...document, vcpusReserved: document.vcpusReserved + vcpus - had.vcpus, memoryMibReserved: document.memoryMibReserved + memoryMib - had.memoryMib };
      }
      case 'CapacityReleased':
        return { ...document, vcpusReserved: document.vcpusReserved - event.data.vcpus, memoryMibReserved: document.memoryMibReserved - event.data.memoryMib };
      case 'NodeRemoved':
        return { ...document, removed: true };
      case 'NodeFellSilent':
        return { ...document, silentSince: event.data.silentSince };
      case 'NodeReturned':
        return { ...document, silentSince: null };
      case 'PoolRegistered': {
        const { poolId, capacityGib, overcommitPercent } = event.data;
        return { ...document, pools: [...document.pools.filter((pool) => pool.poolId !== poolId), { poolId, capacityGib, overcommitPercent, reservedGib: 0 }] };
      }
      case 'PoolResized':
        return withPool(document, event.stream, (pool) => ({ ...pool, capacityGib: event.data.capacityGib }));
      case 'SpaceReserved':
        return withPool(document, event.stream, (pool) => ({ ...pool, reservedGib: pool.reservedGib + event.data.sizeGib }));
      case 'SpaceResized':
        return withPool(document, event.stream, (pool) => ({ ...pool, reservedGib: pool.reservedGib + event.data.sizeGib - event.data.beforeGib }));
      case 'SpaceReleased':
        return withPool(document, event.stream, (pool) => ({ ...pool, reservedGib: pool.reservedGib - event.data.sizeGib }));
      default:
        return document;
    }
  },
};

type Recorded = { readonly stream: string };

const withPool = (node: Candidate, stream: string, change: (pool: Candidate['pools'][number]) => Candidate['pools'][number]): Candidate => ({
  ...node, pools: node.pools.map((pool) => (pool.poolId === idOfStream(stream) ? change(pool) : pool)),
});

const nodeOfPool = (event: PoolEvent & Recorded): string => event.data.nodeId;
