import { categoryOf, idOfStream, type NodeId } from '@chronovirt/contracts/ids';
import type { NodeEvent } from '@chronovirt/contracts/node/node.events';
import type { PresenceEvent } from '@chronovirt/contracts/presence/presence.events';
import type { Projection } from '@chronovirt/event-log/projection';

export interface NodePresence {
  readonly nodeId: NodeId;
  readonly silent: boolean;
  /** The agent has said hello at least once: only then it is missed. */
  readonly seen: boolean;
}

/** Which nodes should be heard, and which are recorded as silent. */
export const nodePresence: Projection<NodePresence> = {
  name: 'monitor.node_presence',
  version: 1,
  keys: (event) => (['node', 'presence'].includes(categoryOf(event.stream)) ? [idOfStream(event.stream)] : []),
  fold(document, recorded) {
    const event = recorded as unknown as NodeEvent | PresenceEvent;
    if (event.type === 'NodeRegistered') return { nodeId: event.data.nodeId, silent: false, seen: false };
    if (document === undefined) return undefined;
    switch (event.type) {
      case 'NodeSessionStarted':
        return { ...document, seen: true };
      case 'NodeRemoved':
        return undefined;
      case 'NodeFellSilent':
        return { ...document, silent: true };
      case 'NodeReturned':
        return { ...document, silent: false };
      default:
        return document;
    }
  },
};
