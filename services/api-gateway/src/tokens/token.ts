/*
 * Tokens: who may call (API tokens), and which machine may join (join tokens).
 *
 *     absent ──Issue──▶ issued ──Revoke──▶ revoked            an API token
 *     absent ──Issue──▶ issued ──Redeem──▶ redeemed by one    a join token, until it expires
 *
 * Only the SHA-256 of a token is ever known here. A join token is single-use, and the same machine may use
 * it again: an agent whose answer was lost asks once more and becomes the same node.
 */
import { type Decider, refuse } from '@chronovirt/decider/decider';
import type { TokenCommand } from '@chronovirt/contracts/token/token.commands';
import type { TokenEvent } from '@chronovirt/contracts/token/token.events';

export type ApiTokenCommand = Extract<TokenCommand, { type: 'IssueApiToken' | 'RevokeApiToken' }>;
export type JoinTokenCommand = Extract<TokenCommand, { type: 'IssueJoinToken' | 'RedeemJoinToken' }>;
export type ApiTokenEvent = Extract<TokenEvent, { type: 'ApiTokenIssued' | 'ApiTokenRevoked' }>;
export type JoinTokenEvent = Extract<TokenEvent, { type: 'JoinTokenIssued' | 'JoinTokenRedeemed' }>;

export type ApiToken = { readonly status: 'absent' | 'issued' | 'revoked' };

export const apiToken: Decider<ApiTokenCommand, ApiTokenEvent, ApiToken> = {
  category: 'token',
  initial: { status: 'absent' },
  decide(command, state) {
    switch (command.type) {
      case 'IssueApiToken':
        return state.status === 'absent' ? [{ type: 'ApiTokenIssued', data: command.data }] : refuse('token.exists', { tokenId: command.data.tokenId });
      case 'RevokeApiToken':
        if (state.status === 'absent') return refuse('token.not_found', { tokenId: command.data.tokenId });
        return state.status === 'revoked' ? [] : [{ type: 'ApiTokenRevoked', data: command.data }];
    }
  },
  evolve(_state, event) {
    switch (event.type) {
      case 'ApiTokenIssued':
        return { status: 'issued' };
      case 'ApiTokenRevoked':
        return { status: 'revoked' };
    }
  },
};

export type JoinToken =
  | { readonly status: 'absent' }
  | { readonly status: 'issued'; readonly expiresAt: string }
  | { readonly status: 'redeemed'; readonly nodeId: string; readonly machineId: string };

export const joinToken: Decider<JoinTokenCommand, JoinTokenEvent, JoinToken> = {
  category: 'join-token',
  initial: { status: 'absent' },
  decide(command, state) {
    switch (command.type) {
      case 'IssueJoinToken':
        return state.status === 'absent' ? [{ type: 'JoinTokenIssued', data: command.data }] : refuse('join_token.exists', { tokenId: command.data.tokenId });
      case 'RedeemJoinToken': {
        const { tokenId, nodeId, machineId, at } = command.data;
        if (state.status === 'absent') return refuse('join_token.not_found', { tokenId });
        if (state.status === 'redeemed') {
          return state.machineId === machineId && state.nodeId === nodeId ? [] : refuse('join_token.redeemed', { tokenId, hint: 'a join token lets one machine in; issue another' });
        }
        if (Date.parse(at) >= Date.parse(state.expiresAt)) return refuse('join_token.expired', { tokenId, expiresAt: state.expiresAt });
        return [{ type: 'JoinTokenRedeemed', data: { tokenId, nodeId, machineId } }];
      }
    }
  },
  evolve(state, event) {
    switch (event.type) {
      case 'JoinTokenIssued':
        return { status: 'issued', expiresAt: event.data.expiresAt };
      case 'JoinTokenRedeemed':
        return { status: 'redeemed', nodeId: event.data.nodeId, machineId: event.data.machineId };
    }
    return state;
  },
  facts(_command, state) {
    return state.status === 'redeemed' ? { nodeId: state.nodeId } : {};
  },
};
