import { scenarioOf } from '@chronovirt/decider/scenario';
import { describe, expect, it } from 'vitest';
import { apiToken, joinToken } from './token.ts';

const equal = (actual: unknown, expected: unknown): void => { expect(actual).toEqual(expected); };
const tokenId = `token_${'1'.repeat(32)}` as const;
const nodeId = `node_${'2'.repeat(32)}` as const;
const sha256 = 'a'.repeat(64);

describe('an API token', () => {
  const given = scenarioOf(apiToken, equal);
  const issued = { type: 'ApiTokenIssued', data: { tokenId, name: 'ci', sha256 } } as const;
  const revoked = { type: 'ApiTokenRevoked', data: { tokenId } } as const;

  it('is issued once', () => {
    given().when({ type: 'IssueApiToken', data: issued.data }).then(issued);
    given(issued).when({ type: 'IssueApiToken', data: issued.data }).thenRefused('token.exists', { tokenId });
  });
  it('is revoked, and stays so', () => {
    given(issued).when({ type: 'RevokeApiToken', data: { tokenId } }).then(revoked);
    given(issued, revoked).when({ type: 'RevokeApiToken', data: { tokenId } }).then();
    given(issued, revoked).when({ type: 'IssueApiToken', data: issued.data }).thenRefused('token.exists');
  });
  it('that nobody issued cannot be revoked', () => { given().when({ type: 'RevokeApiToken', data: { tokenId } }).thenRefused('token.not_found'); });
});

describe('a join token', () => {
  const given = scenarioOf(joinToken, equal);
  const issued = { type: 'JoinTokenIssued', data: { tokenId, sha256, expiresAt: '2026-01-31T12:00:00.000Z' } } as const;
  const redeemed = { type: 'JoinTokenRedeemed', data: { tokenId, nodeId, machineId: 'm1' } } as const;
  const redeem = (machineId: string, at: string) => ({ type: 'RedeemJoinToken', data: { tokenId, nodeId, machineId, at } }) as const;

  it('lets one machine in while it lasts', () => {
    given(issued).when(redeem('m1', '2026-01-31T11:59:59.999Z')).then(redeemed);
    given(issued).when(redeem('m1', '2026-01-31T12:00:00.000Z')).thenRefused('join_token.expired');
    given().when(redeem('m1', '2026-01-31T11:00:00.000Z')).thenRefused('join_token.not_found');
  });
  it('lets the same machine in again, even when its time is over', () => {
    given(issued, redeemed).when(redeem('m1', '2026-02-28T00:00:00.000Z')).then();
    given(issued, redeemed).when(redeem('m1', '2026-02-28T00:00:00.000Z')).thenFacts({ nodeId });
  });
  it('lets no second machine in', () => { given(issued, redeemed).when(redeem('m2', '2026-01-31T11:00:00.000Z')).thenRefused('join_token.redeemed'); });
});
