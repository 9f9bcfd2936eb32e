/** What every request carries from the first hook to the last line of its handler. */
import type { FastifyReply, FastifyRequest } from 'fastify';
import { commandIdOf, newCommandId, requestHashOf } from '@chronovirt/event-log/command-id';
import { traceparentNow } from '@chronovirt/observability/tracing';
import type { OpenSpan } from '@chronovirt/observability/tracing';
import { ProblemError, malformed } from './problem.http.ts';
import { idsOf, type Request } from './submit.ts';

export interface RequestContext {
  /** Id of the token; undefined on public routes. */
  actor: string | undefined;
  span: OpenSpan | undefined;
  /** Milliseconds, by `performance.now`. */
  startedAt: number;
  /** Of a write: `dryRun=true`. */
  dryRun: boolean;
  /** Of a write: the version that If-Match names; undefined without one, or with `*`. */
  expected: number | undefined;
}

declare module 'fastify' {
  interface FastifyRequest {
    cv: RequestContext | undefined;
  }
  interface FastifyContextConfig {
    /** 'public': anybody. 'join': a join token. 'node': a node's signature, which the handler reads. Otherwise an API token. */
    cvAccess?: 'public' | 'join' | 'node';
    /** Its body may come for as long as bytes come. */
    cvStream?: boolean;
    /** It can be rehearsed, and knows what If-Match means: see `Write`. */
    cvWrite?: boolean;
  }
}

const KEY = /^[\x20-\x7e]{1,255}$/;

/** Command id and the ids that follow from it: from the caller's key where there is one, else new. */
export interface Asked extends Request {
  /** Ids of what this request makes. */
  readonly ids: ReturnType<typeof idsOf>;
  /** The same for a member of a batch. */
  idsOf(commandId: string): ReturnType<typeof idsOf>;
}

/** Id of the token that asks. */
export const actorOf = (request: FastifyRequest): string => {
  const actor = request.cv?.actor;
  if (actor === undefined) throw new ProblemError('auth.token_missing');
  return actor;
};

export const requestOf = (request: FastifyRequest, body: unknown): Asked => {
  const actor = actorOf(request);
  const key = request.headers['idempotency-key'];
  if (key !== undefined && (typeof key !== 'string' || !KEY.test(key))) {
    throw malformed([{ path: 'header.Idempotency-Key', code: 'invalid', message: 'must be 1 to 255 printable characters, once' }]);
  }
  const commandId = key === undefined ? newCommandId() : commandIdOf(`${actor}:${key}`);
  const { dryRun = false, expected } = request.cv ?? {};
  const ids = idsOf(commandId, commandIdOf);
  return {
    commandId,
    operationId: ids.operationId,
    actor,
    requestHash: key === undefined ? undefined : requestHashOf({ method: request.method, route: request.url.split('?')[0] ?? '', body: body ?? null, ...(expected === undefined ? {} : { expected }) }),
    traceparent: traceparentOfRequest(request),
    rehearsalId: dryRun ? newCommandId() : undefined, expected,
    ids,
    idsOf: (id) => idsOf(id, commandIdOf),
  };
};

const READS = ['GET', 'HEAD', 'OPTIONS'];

/**
 * Reads `dryRun` and If-Match of a write into the context, before its handler. Who asks what would happen, or
 * writes on a condition, must not be taken at half his word: a route that knows neither refuses both.
 */
export const readGuards = (request: FastifyRequest): void => {
  if (READS.includes(request.method) || request.cv === undefined) return;
  const query = request.query as Record<string, unknown>;
  const { dryRun } = query;
  const match = request.headers['if-match'];
  const knows = request.routeOptions.config.cvWrite === true;
  if (dryRun !== undefined) {
    if (dryRun !== 'true' && dryRun !== 'false') throw malformed([{ path: 'query.dryRun', code: 'invalid', message: 'must be true or false, once' }]);
    if (!knows) throw malformed([{ path: 'query.dryRun', code: 'unknown_field', message: 'this request cannot be rehearsed' }]);
    // So that no route's own schema has to name it.
    delete query['dryRun'];
    request.cv.dryRun = dryRun === 'true';
  }
  if (match !== undefined) {
    if (!knows) throw malformed([{ path: 'header.If-Match', code: 'unknown_field', message: 'this request takes no condition' }]);
    request.cv.expected = match.trim() === '*' ? undefined : versionOf(match);
  }
};

const versionOf = (tag: string): number => {
  const [, version] = /^"(\d{1,15})"$/.exec(tag.trim()) ?? [];
  if (version === undefined) throw malformed([{ path: 'header.If-Match', code: 'invalid', message: 'must be one ETag as an answer gave it, quotes and all, or *' }]);
  return Number(version);
};

/** A version as the ETag of what is sent; none of what has none yet. */
export const tagged = (reply: FastifyReply, version: number | null | undefined): void => {
  if (version !== undefined && version !== null) void reply.header('etag', `"${String(version)}"`);
};

/** Where this request is in its trace: in its span, in the caller's trace, or in a new one that nobody samples. */
export const traceparentOfRequest = (request: FastifyRequest): string => {
  if (request.cv?.span?.traceparent !== undefined) return request.cv.span.traceparent;
  const incoming = request.headers['traceparent'];
  return traceparentNow(typeof incoming === 'string' ? incoming : undefined);
};

/** Sends JSON text as it is stored. */
export const sendJson = (reply: FastifyReply, text: string): void => {
  void reply.header('content-type', 'application/json; charset=utf-8').send(text);
};
