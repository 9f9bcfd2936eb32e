/** Tokens by id, with the SHA-256 that whoever calls is found by. Revoked ones stay, so that they can be told from unknown ones. */
import { categoryOf, idOfStream } from '@chronovirt/contracts/ids';
import type { RecordedEvent } from '@chronovirt/event-log/log';
import type { Projection } from '@chronovirt/event-log/projection';
import type { ApiTokenEvent, JoinTokenEvent } from './token.ts';

export interface ApiTokenDocument {
  readonly id: string;
  readonly name: string;
  readonly sha256: string;
  readonly issuedBy: string;
  readonly issuedAt: string;
  readonly revokedAt: string | null;
  readonly position: number;
  /** Of the token's stream: its ETag. */
  readonly version: number;
}

export const apiTokenView: Projection<ApiTokenDocument> = {
  name: 'gateway.api_token',
  version: 2,
  keys: (event) => (categoryOf(event.stream) === 'token' ? [idOfStream(event.stream)] : []),
  fold: (before, recorded, key) => {
    const event = recorded as RecordedEvent & ApiTokenEvent;
    switch (event.type) {
      case 'ApiTokenIssued':
        return { id: key, name: event.data.name, sha256: event.data.sha256, issuedBy: event.meta.actor, issuedAt: event.recordedAt, revokedAt: null, position: event.position, version: event.version };
      case 'ApiTokenRevoked':
        return before === undefined ? undefined : { ...before, revokedAt: event.recordedAt, position: event.position, version: event.version };
    }
  },
};

export interface JoinTokenDocument {
  readonly id: string;
  readonly sha256: string;
  readonly issuedBy: string;
  readonly issuedAt: string;
  readonly expiresAt: string;
  readonly redeemed: { readonly at: string; readonly nodeId: string; readonly machineId: string } | null;
  readonly position: number;
}

export const joinTokenView: Projection<JoinTokenDocument> = {
  name: 'gateway.join_token',
  version: 1,
  keys: (event) => (categoryOf(event.stream) === 'join-token' ? [idOfStream(event.stream)] : []),
  fold: (before, recorded, key) => {
    const event = recorded as RecordedEvent & JoinTokenEvent;
    switch (event.type) {
      case 'JoinTokenIssued':
        return { id: key, sha256: event.data.sha256, issuedBy: event.meta.actor, issuedAt: event.recordedAt, expiresAt: event.data.expiresAt, redeemed: null, position: event.position };
      case 'JoinTokenRedeemed':
        return before === undefined ? undefined : { ...before, redeemed: { at: event.recordedAt, nodeId: event.data.nodeId, machineId: event.data.machineId }, position: event.position };
    }
  },
};
