import { categoryOf, idOfStream } from '@chronovirt/contracts/ids';
import { type NodeEvent, nodePolicyDefault } from '@chronovirt/contracts/node/node.events';
import type { PresenceEvent } from '@chronovirt/contracts/presence/presence.events';
import type { Projection } from '@chronovirt/event-log/projection';
import type { Candidate } from '../placement/candidate.ts';

/** What placement looks at, beside pools. */
export type NodeCapacity = Omit<Candidate, 'pools'>;

/** One document for each node. */
export const nodeCapacity: Projection<NodeCapacity> = {
  name: 'scheduler.node_capacity',
  version: 2,
  keys(event) {
    switch (categoryOf(event.stream)) {
      case 'node':
      case 'presence':
        return [idOfStream(event.stream)];
      default:
        return [];
    }
  },
  fold(before, recorded, nodeId) {
    const event = recorded as unknown as NodeEvent | PresenceEvent;
    const document = before !== undefined && categoryOf(recorded.stream) === 'node' ? { ...before, version: recorded.version } : before;
    if (event.type === 'NodeRegistered') {
      return {
        nodeId: event.data.nodeId, version: recorded.version, name: event.data.name, description: null, policy: nodePolicyDefault, session: 0, removed: false, silentSince: null,
        vcpusReserved: 0, memoryMibReserved: 0, measured: null,
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
      default:
        return document;
    }
  },
};
