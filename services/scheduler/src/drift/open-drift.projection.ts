import type { CommandMeta } from '@chronovirt/contracts/command';
import { categoryOf } from '@chronovirt/contracts/ids';
import type { DriftEvent, DriftAction } from '@chronovirt/contracts/drift/drift.events';
import type { Projection } from '@chronovirt/event-log/projection';
import type { OpenDrift } from './drift.ts';

export interface OpenDriftEntry extends OpenDrift {
  readonly session: number;
  readonly sequence: number;
  /** Of what was done about it last. */
  readonly meta: CommandMeta | null;
}

/** What differs now on every node, for whoever reclassifies it or acts by policy. */
export const openDrift: Projection<OpenDriftEntry> = {
  name: 'scheduler.open_drift',
  version: 2,
  keys: (event) => (categoryOf(event.stream) === 'drift' ? [String(event.data['driftId'])] : []),
  fold(document, recorded) {
    const event = recorded as unknown as DriftEvent;
    switch (event.type) {
      case 'DriftSeen':
        return { ...event.data, acted: null, meta: null };
      case 'DriftActed':
        return document === undefined ? undefined : { ...document, meta: recorded.meta, acted: { action: event.data.action, by: event.data.by, operationId: event.data.operationId, ended: false } };
      case 'DriftActionEnded':
        return document?.acted?.operationId !== event.data.operationId ? document : { ...document, acted: { ...document.acted, ended: true } };
      case 'DriftSettled':
        return undefined;
      case 'DriftPolicySet':
        return document;
    }
  },
};

/** By class. */
export const driftPolicy: Projection<{ readonly action: DriftAction }> = {
  name: 'scheduler.drift_policy',
  version: 1,
  keys: (event) => (event.type === 'DriftPolicySet' ? [String(event.data['class'])] : []),
  fold: (_document, { data }) => ({ action: data['action'] as DriftAction }),
};
