/*
 * Every error leaves as one kind of document, RFC 9457's application/problem+json, from this one filter.
 * A refusal is an answer and not a fault: it is logged as information, and counted by its code. What nobody
 * foresaw is our bug: 500, with the chain of causes in the log and none of it in the answer.
 */
import { Catch, HttpException, type ArgumentMetadata, type ArgumentsHost, type ExceptionFilter, type PipeTransform } from '@nestjs/common';
import { Overloaded } from '@chronovirt/event-log/gather';
import { Contention } from '@chronovirt/event-log/handle';
import { isConnectionLost } from '@chronovirt/event-log/sql';
import type { Refusal } from '@chronovirt/decider/decider';
import type { Log } from '@chronovirt/observability/log';
import type { Counter } from '@chronovirt/observability/metrics';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { CutShort } from './bytes/byte-store.os.ts';
import { type BadField, type Problem, problemOf, statusOfCode } from './problem.ts';
import { LogAway } from './submit.ts';

export class ProblemError extends Error {
  override readonly name = 'ProblemError';
  readonly problem: Problem;
  readonly headers: Readonly<Record<string, string>>;

  constructor(code: string, more: { readonly detail?: string; readonly because?: unknown; readonly errors?: readonly BadField[]; readonly headers?: Readonly<Record<string, string>> } = {}) {
    const { headers = {}, ...about } = more;
    super(code);
    this.problem = problemOf(code, about);
    this.headers = headers;
  }
}

export const refused = (refusal: Refusal): ProblemError => new ProblemError(refusal.refused, refusal.because === undefined ? {} : { because: refusal.because });

export const malformed = (errors: readonly BadField[]): ProblemError =>
  new ProblemError('request.malformed', { detail: errors.length === 1 ? 'One field is not as it must be.' : `${String(errors.length)} fields are not as they must be.`, errors });

/** What zod says of a value, as bad fields. Unknown fields are named one by one. */
export const badFieldsOf = (where: string, issues: readonly { readonly message: string; readonly path?: unknown }[]): readonly BadField[] => {
  const found = issues.slice(0, 100).flatMap((issue): readonly BadField[] => {
    const steps = Array.isArray(issue.path) ? issue.path.map((step: unknown) => (typeof step === 'object' && step !== null && 'key' in step ? step.key : step)) : [];
    const path = [where, ...steps].map(String).join('.');
    const { code, keys } = issue as { readonly code?: string; readonly keys?: readonly string[] };
    if (code === 'unrecognized_keys' && keys !== undefined) return keys.slice(0, 50).map((key) => ({ path: `${path}.${key.slice(0, 100)}`, code: 'unknown_field', message: 'is not a field here' }));
    return [{ path, ...(code === undefined ? {} : { code }), message: issue.message.slice(0, 300) }];
  });
  // One line for a field that is wrong in two ways.
  return found.filter((field, index) => found.findIndex(({ path }) => path === field.path) === index);
};

/** Parses what a decorator gave a schema for, and says where it was. */
export class SchemaPipe implements PipeTransform {
  async transform(value: unknown, metadata: ArgumentMetadata): Promise<unknown> {
    const schema = metadata.schema;
    if (schema === undefined) return value;
    const result = await schema['~standard'].validate(value);
    if (result.issues === undefined) return result.value;
    const where = metadata.data === undefined ? metadata.type : `${metadata.type}.${metadata.data}`;
    throw malformed(badFieldsOf(where, result.issues));
  }
}

const ofFastify: Readonly<Record<string, string>> = {
  FST_ERR_CTP_INVALID_JSON_BODY: 'request.broken_json',
  FST_ERR_CTP_EMPTY_JSON_BODY: 'request.empty_body',
  FST_ERR_CTP_BODY_TOO_LARGE: 'request.too_large',
  FST_ERR_CTP_INVALID_MEDIA_TYPE: 'request.content_type',
  FST_ERR_CTP_EMPTY_TYPE: 'request.content_type',
  FST_ERR_CTP_INVALID_CONTENT_LENGTH: 'request.malformed',
  FST_ERR_BAD_URL: 'request.bad_uri',
  FST_ERR_MAX_PARAM_LENGTH: 'request.bad_uri',
  FST_ERR_ASYNC_CONSTRAINT: 'route.not_found',
};

const details: Readonly<Record<string, string>> = {
  'request.broken_json': 'The body is not JSON.',
  'request.empty_body': 'The content type says JSON and the body is empty.',
  'request.too_large': 'The body is larger than 1 MiB.',
  'request.content_type': 'Bodies are application/json.',
  'request.bad_uri': 'The path cannot be read.',
  'gateway.unavailable': 'The log cannot be reached, so nothing is promised. Ask again, with the same Idempotency-Key.',
  'gateway.overloaded': 'Too much is asked at once; nothing was done. Ask again.',
  'gateway.bug': 'This is a mistake of ours; the log of the gateway says more.',
};

/** Whatever was thrown, as a problem. */
export const problemErrorOf = (fault: unknown): ProblemError => {
  if (fault instanceof ProblemError) return fault;
  const { code, statusCode } = (fault ?? {}) as { readonly code?: unknown; readonly statusCode?: unknown };
  const known = typeof code === 'string' ? ofFastify[code] : undefined;
  const named = known
    ?? (fault instanceof LogAway || isConnectionLost(fault) ? 'gateway.unavailable'
      : fault instanceof Overloaded || fault instanceof Contention ? 'gateway.overloaded'
      : fault instanceof CutShort ? 'request.timeout'
      // What Fastify's parser or Nest say of a request; both name the status.
      : fault instanceof SyntaxError || statusCode === 400 ? 'request.broken_json'
        : statusCode === 413 ? 'request.too_large'
          : statusCode === 415 ? 'request.content_type'
            : fault instanceof HttpException && fault.getStatus() === 400 ? 'request.malformed'
              : 'gateway.bug');
  const detail = details[named];
  return new ProblemError(named, { ...(detail === undefined ? {} : { detail }), ...(statusOfCode(named) === 503 ? { headers: { 'retry-after': '1' } } : {}) });
};

export interface ProblemParts {
  readonly log: Log;
  readonly counter: Counter<'code' | 'status'>;
  /** Methods that a path takes, if it is a route at all. */
  readonly methodsOf: (path: string) => readonly string[];
}

@Catch()
export class ProblemFilter implements ExceptionFilter {
  private readonly parts: ProblemParts;

  constructor(parts: ProblemParts) {
    this.parts = parts;
  }

  catch(fault: unknown, host: ArgumentsHost): void {
    const request = host.switchToHttp().getRequest<FastifyRequest>();
    const reply = host.switchToHttp().getResponse<FastifyReply>();
    this.answer(fault, request, reply);
  }

  answer(given: unknown, request: FastifyRequest, reply: FastifyReply): void {
    const fault = request.is404 && given instanceof HttpException && given.getStatus() === 404 ? this.noRoute(request) : given;
    const { problem, headers } = problemErrorOf(fault);
    const { code, status } = problem;
    this.parts.counter.inc({ code, status: String(status) });
    const fields = { code, status, method: request.method, route: request.routeOptions.url ?? 'none', actor: request.cv?.actor, paths: problem.errors?.map(({ path }) => path) };
    if (code === 'gateway.bug') this.parts.log.error({ ...fields, err: fault }, 'request failed by a mistake of ours');
    else if (status >= 500) this.parts.log.warn({ ...fields, err: fault }, 'request could not be served');
    else this.parts.log.info(fields, 'request refused');
    if (reply.sent || reply.raw.headersSent) {
      reply.raw.destroy();
      return;
    }
    if (status === 401) void reply.header('www-authenticate', 'Bearer realm="chronovirt"');
    // What is left of a body that nobody will read would be taken for the next request.
    if (status === 413) void reply.header('connection', 'close');
    void reply.headers(headers).code(status).header('content-type', 'application/problem+json; charset=utf-8').send(JSON.stringify(problem));
  }

  private noRoute(request: FastifyRequest): ProblemError {
    const path = request.url.split('?')[0] ?? '/';
    const methods = this.parts.methodsOf(path);
    if (methods.length === 0) return new ProblemError('route.not_found', { detail: 'There is nothing at this path.' });
    return new ProblemError('route.method_not_allowed', { detail: `This path takes ${methods.join(', ')}.`, headers: { allow: methods.join(', ') } });
  }
}
