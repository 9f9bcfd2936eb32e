/*
 * What differs on a node and is no VM's to bring back: a network, or which file a volume is. The node is told, and
 * what it answers is the outcome. Nothing is to be undone: a node that did half of it is asked again, or says what
 * it finds.
 */
import type { Outgoing } from '@chronovirt/contracts/command';
import type { DriftItem } from '@chronovirt/contracts/drift/drift.events';
import type { NodeId, OperationId, VolumeId } from '@chronovirt/contracts/ids';
import type { NetworkPlan } from '@chronovirt/contracts/network/network.events';
import { nothingToUndo, type Saga } from '@chronovirt/decider/saga';

export interface SettleDrift {
  readonly operationId: OperationId;
  readonly nodeId: NodeId;
  readonly driftId: DriftItem['driftId'];
  /** What the operation is called. */
  readonly action: 'revert-drift' | 'adopt-drift';
  readonly does: { readonly kind: 'network'; readonly network: NetworkPlan } | { readonly kind: 'volume'; readonly volumeId: VolumeId };
}

const NODE_MS = 120_000;

export const settleDrift: Saga<SettleDrift, Outgoing> = {
  name: 'settle-drift',
  steps: {
    node: {
      deadlineMs: NODE_MS, undo: nothingToUndo('the node says what it finds'),
      run: ({ nodeId, does }) => ({ to: 'node', target: nodeId, ...(does.kind === 'network' ? { type: 'RestoreNetwork', data: { nodeId, network: does.network } } : { type: 'AcceptVolume', data: { nodeId, volumeId: does.volumeId } }) }),
    },
  },
  done: ({ nodeId, driftId, operationId }) => ({ to: 'scheduler', target: nodeId, type: 'EndDriftAction', data: { nodeId, driftId, operationId, refused: null, because: {} } }),
  failed: ({ nodeId, driftId, operationId }, { refused, because = {} }) => ({ to: 'scheduler', target: nodeId, type: 'EndDriftAction', data: { nodeId, driftId, operationId, refused, because } }),
};
