import { type Decider } from '@chronovirt/decider/decider';
import type { PresenceCommand } from '@chronovirt/contracts/presence/presence.commands';
import type { PresenceEvent } from '@chronovirt/contracts/presence/presence.events';

export interface Presence {
  readonly silentSince: string | null;
  readonly skewed: boolean;
}

/** Beyond this a node's clock is said to differ: certificates, logs and people are misled. Milliseconds. */
export const SKEW_MS_MAX = 500;
/** A clock agrees again below this: half, so that one at the border does not flap. */
export const SKEW_MS_AGREED = SKEW_MS_MAX / 2;

/** Whether a node is heard. Transitions only: heartbeats never enter the log. */
export const presence: Decider<PresenceCommand, PresenceEvent, Presence> = {
  category: 'presence',
  initial: { silentSince: null, skewed: false },
  decide(command, state) {
    switch (command.type) {
      case 'RecordSilence':
        return state.silentSince === null ? [{ type: 'NodeFellSilent', data: command.data }] : [];
      case 'RecordReturn':
        return state.silentSince === null ? [] : [{ type: 'NodeReturned', data: command.data }];
      case 'RecordSkew': {
        const { nodeId, skewMs } = command.data;
        if (!state.skewed && Math.abs(skewMs) > SKEW_MS_MAX) return [{ type: 'NodeClockSkewed', data: { nodeId, skewMs } }];
        if (state.skewed && Math.abs(skewMs) < SKEW_MS_AGREED) return [{ type: 'NodeClockAgreed', data: { nodeId } }];
        return [];
      }
    }
  },
  evolve(state, event) {
    switch (event.type) {
      case 'NodeFellSilent':
        return { ...state, silentSince: event.data.silentSince };
      case 'NodeReturned':
        return { ...state, silentSince: null };
      case 'NodeClockSkewed':
        return { ...state, skewed: true };
      case 'NodeClockAgreed':
        return { ...state, skewed: false };
    }
  },
};
