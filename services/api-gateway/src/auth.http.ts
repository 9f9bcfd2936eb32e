/*
 * Authentication, in front of everything: before a body is read, so that nobody without a token can make us
 * parse ten megabytes. A token's answer is kept in memory for a second; that bounds how long a revoked one
 * still works on another replica, and takes the database out of the path of every request.
 */
import { hash } from 'node:crypto';
import type { FastifyRequest } from 'fastify';
import { presented } from './auth.ts';
import { ProblemError } from './problem.http.ts';

export interface TokenFound {
  readonly id: string;
  readonly revokedAt: string | null;
}

export interface Authentication {
  /** The id of the token that the request carries. Throws ProblemError. */
  principalOf(request: FastifyRequest): string | Promise<string>;
  /** The SHA-256 (hex) of the join token that it carries. Throws ProblemError. */
  joinTokenOf(request: FastifyRequest): string;
  /** Forgets what is remembered, so that a revocation of ours counts at once. */
  forget(): void;
}

const KEPT_MS = 1_000;
const KEPT_MAX = 10_000;

export const sha256 = (text: string): string => hash('sha256', text, 'hex');

export const createAuthentication = (options: {
  readonly installation: string;
  readonly find: (sha256: string) => Promise<TokenFound | undefined>;
}): Authentication => {
  const kept = new Map<string, { readonly found: TokenFound; readonly until: number }>();
  const asked = new Map<string, Promise<TokenFound | undefined>>();

  const digestOf = (request: FastifyRequest): string => {
    const shown = presented(request.headers.authorization, options.installation);
    if (shown.kind === 'refused') throw new ProblemError(shown.code, { detail: shown.detail });
    return sha256(shown.token);
  };

  const judged = (found: TokenFound | undefined): string => {
    if (found === undefined) throw new ProblemError('auth.token_unknown', { detail: 'No such token was issued here.' });
    if (found.revokedAt !== null) throw new ProblemError('auth.token_revoked', { detail: `This token was revoked at ${found.revokedAt}.` });
    return found.id;
  };

  const lookUp = (digest: string): Promise<TokenFound | undefined> => {
    const under = asked.get(digest);
    if (under !== undefined) return under;
    const asking = options.find(digest).then((found) => {
      // A token that nobody knows may be issued in the next moment.
      if (found === undefined) return undefined;
      if (kept.size >= KEPT_MAX) kept.clear();
      kept.set(digest, { found, until: Date.now() + KEPT_MS });
      return found;
    }).finally(() => asked.delete(digest));
    asked.set(digest, asking);
    return asking;
  };

  return {
    principalOf: (request) => {
      const digest = digestOf(request);
      const known = kept.get(digest);
      return known !== undefined && known.until > Date.now() ? judged(known.found) : lookUp(digest).then(judged);
    },
    joinTokenOf: digestOf,
    forget: () => { kept.clear(); },
  };
};
