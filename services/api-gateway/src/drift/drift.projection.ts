import { categoryOf } from '@chronovirt/contracts/ids';
import type { DriftAction, DriftEvent, DriftItem } from '@chronovirt/contracts/drift/drift.events';
import type { RecordedEvent } from '@chronovirt/event-log/log';
import type { Projection } from '@chronovirt/event-log/projection';

export interface DriftDocument extends Omit<DriftItem, 'driftId'> {
  readonly id: string;
  /** When it was first seen so, by the log's clock and by the node's. */
  readonly firstSeenAt: string;
  readonly seenAt: string;
  readonly nodeAt: string | null;
  readonly acted: { readonly action: DriftAction; readonly by: 'operator' | 'policy'; readonly actor: string; readonly operationId: string; readonly at: string; /** Why its node did not do it. */ readonly refused?: string | null } | null;
  readonly position: number;
  readonly version: number;
}

/** One document for each thing that differs now: what `GET /v1/drift` shows. */
export const driftView: Projection<DriftDocument> = {
  name: 'gateway.drift',
  version: 1,
  keys: (event) => (categoryOf(event.stream) === 'drift' ? [String(event.data['driftId'])] : []),
  fold: (before, recorded) => {
    const event = recorded as RecordedEvent & DriftEvent;
    const now = { position: event.position, version: event.version };
    switch (event.type) {
      case 'DriftSeen': {
        const { driftId, session: _session, sequence: _sequence, ...item } = event.data;
        return { id: driftId, ...item, firstSeenAt: before?.firstSeenAt ?? event.recordedAt, seenAt: event.recordedAt, nodeAt: event.meta.nodeAt ?? null, acted: null, ...now };
      }
      case 'DriftActed': {
        const { action, by, operationId } = event.data;
        return before === undefined ? undefined : { ...before, acted: { action, by, operationId, actor: event.meta.actor, at: event.recordedAt }, ...now };
      }
      case 'DriftActionEnded': {
        const { operationId, refused } = event.data;
        return before?.acted?.operationId !== operationId ? before : { ...before, acted: { ...before.acted, refused }, ...now };
      }
      case 'DriftSettled':
        return undefined;
      case 'DriftPolicySet':
        return before;
    }
  },
};

export interface DriftPolicyDocument {
  readonly class: string;
  readonly action: DriftAction;
  readonly changedAt: string;
  readonly version: number;
}

export const driftPolicyView: Projection<DriftPolicyDocument> = {
  name: 'gateway.drift_policy',
  version: 1,
  keys: (event) => (event.type === 'DriftPolicySet' ? [String(event.data['class'])] : []),
  fold: (_before, { data, recordedAt, version }) => ({ class: String(data['class']), action: data['action'] as DriftAction, changedAt: recordedAt, version }),
};
