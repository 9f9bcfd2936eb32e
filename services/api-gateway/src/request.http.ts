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
}

declare module 'fastify' {
  interface FastifyRequest {
    cv: RequestContext | undefined;
  }
  interface FastifyContextConfig {
    /** 'public': anybody. 'join': a join token. Otherwise an API token. */
    cvAccess?: 'public' | 'join';
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
  const ids = idsOf(commandId, commandIdOf);
  return {
    commandId,
    operationId: ids.operationId,
    actor,
    requestHash: key === undefined ? undefined : requestHashOf({ method: request.method, route: request.url.split('?')[0] ?? '', body: body ?? null }),
    traceparent: traceparentOfRequest(request),
    ids,
    idsOf: (id) => idsOf(id, commandIdOf),
  };
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
