/** One document for each node that ever joined. What its VMs use is not in here: see holding.projection.ts. */
import { categoryOf, idOfStream } from '@chronovirt/contracts/ids';
import type { NodeEvent, NodeDescription, NodePolicy } from '@chronovirt/contracts/node/node.events';
import type { PresenceEvent } from '@chronovirt/contracts/presence/presence.events';
import type { RecordedEvent } from '@chronovirt/event-log/log';
import type { Projection } from '@chronovirt/event-log/projection';
import type { z } from 'zod';

export interface NodeSummary {
  readonly id: string;
  readonly name: string;
  readonly machineId: string;
  /** What the agent said of itself; null until it came for the first time. */
  readonly description: z.infer<typeof NodeDescription> | null;
  readonly policy: NodePolicy | null;
  /** The newest session; 0 before the first. */
  readonly session: number;
  readonly sessionStartedAt: string | null;
  readonly silentSince: string | null;
  /** Milliseconds that the node's clock is ahead; null while it agrees. */
  readonly clockSkewMs: number | null;
  readonly removed: { readonly at: string; readonly reason: string } | null;
  /** Public halves. */
  readonly credentialKey: string;
  /** Every key the node ever had: all are revoked when it is removed. */
  readonly credentialKeys: readonly string[];
  readonly sealKey: string;
  readonly createdAt: string;
  readonly changedAt: string;
  readonly position: number;
  /** Of the node's stream, at its last event that is shown here: the node's ETag. */
  readonly version: number;
}

const fold = (node: NodeSummary | undefined, recorded: RecordedEvent, key: string): NodeSummary | undefined => {
  const event = recorded as RecordedEvent & (NodeEvent | PresenceEvent); // the log has checked the shape against the table of the type
  const version = categoryOf(event.stream) === 'node' ? event.version : (node?.version ?? 0);
  const seen = { changedAt: event.recordedAt, position: event.position, version };
  if (event.type === 'NodeRegistered') {
    const { name, machineId, credentialKey, sealKey } = event.data;
    const before = node ?? { id: key, description: null, policy: null, session: 0, sessionStartedAt: null, silentSince: null, clockSkewMs: null, createdAt: event.recordedAt, credentialKeys: [] };
    return { ...before, name, machineId, credentialKey, sealKey, credentialKeys: [...new Set([...before.credentialKeys, credentialKey])], removed: null, ...seen };
  }
  if (node === undefined) return undefined;
  switch (event.type) {
    case 'NodeDescribed':
      return { ...node, description: event.data, ...seen };
    case 'NodeSessionStarted':
      return { ...node, session: event.data.session, sessionStartedAt: event.recordedAt, ...seen };
    case 'NodePolicyChanged':
      return { ...node, policy: event.data, ...seen };
    case 'NodeRemoved':
      return { ...node, removed: { at: event.recordedAt, reason: event.data.reason }, ...seen };
    case 'NodeFellSilent':
      return { ...node, silentSince: event.data.silentSince, ...seen };
    case 'NodeReturned':
      return { ...node, silentSince: null, ...seen };
    case 'NodeClockSkewed':
      return { ...node, clockSkewMs: event.data.skewMs, ...seen };
    case 'NodeClockAgreed':
      return { ...node, clockSkewMs: null, ...seen };
    case 'CapacityReserved':
    case 'CapacityResized':
    case 'CapacityReleased':
    case 'DeviceHeld':
    case 'DeviceReleased':
      return node;
  }
};

/** Capacity is told by another projection, so that taking some does not write a node's whole document; which device a VM has, by that VM. */
const elsewhere = new Set(['CapacityReserved', 'CapacityResized', 'CapacityReleased', 'DeviceHeld', 'DeviceReleased']);

export const nodeSummary: Projection<NodeSummary> = {
  name: 'gateway.node_summary',
  version: 2,
  keys: (event) => (['node', 'presence'].includes(categoryOf(event.stream)) && !elsewhere.has(event.type) ? [idOfStream(event.stream)] : []),
  fold,
};
