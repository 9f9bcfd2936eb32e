import { z } from 'zod';
import { command, type CommandOf } from '../command.ts';
import { NodeId, TokenId } from '../ids.ts';
import { text } from '../text.ts';

const Sha256 = z.string().regex(/^[0-9a-f]{64}$/);

export const IssueTokenBody = z.strictObject({ name: text(100).min(1) }).meta({ id: 'IssueToken' });
export const IssueJoinTokenBody = z.strictObject({ expiresInSeconds: z.int().min(1).max(86_400).default(900) }).meta({ id: 'IssueJoinToken' });

export const tokenCommands = {
  IssueApiToken: command('gateway', 'tokenId', z.object({ tokenId: TokenId, name: text(100), sha256: Sha256 })),
  RevokeApiToken: command('gateway', 'tokenId', z.object({ tokenId: TokenId })),
  IssueJoinToken: command('gateway', 'tokenId', z.object({ tokenId: TokenId, sha256: Sha256, expiresAt: z.iso.datetime() })),
  /** `at` is the gateway's clock: a decider knows no time. The same machine may repeat it. */
  RedeemJoinToken: command('gateway', 'tokenId', z.object({ tokenId: TokenId, nodeId: NodeId, machineId: text(64), at: z.iso.datetime() })),
} as const;
export type TokenCommand = CommandOf<typeof tokenCommands>;
