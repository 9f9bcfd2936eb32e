import { z } from 'zod';
import { event, type EventOf } from '../event.ts';
import { NodeId, TokenId } from '../ids.ts';
import { text } from '../text.ts';

const Sha256 = z.string().regex(/^[0-9a-f]{64}$/);

/** Tokens themselves never enter the log: only their SHA-256. */
export const tokenEvents = {
  ApiTokenIssued: event(z.object({ tokenId: TokenId, name: text(100), sha256: Sha256 })),
  ApiTokenRevoked: event(z.object({ tokenId: TokenId })),
  JoinTokenIssued: event(z.object({ tokenId: TokenId, sha256: Sha256, expiresAt: z.iso.datetime() })),
  /** Single use: the node that joined with it. */
  JoinTokenRedeemed: event(z.object({ tokenId: TokenId, nodeId: NodeId, machineId: text(64) })),
} as const;
export type TokenEvent = EventOf<typeof tokenEvents>;
