/*
 * What every write has in common, in one decorator: it can be repeated (Idempotency-Key), asked of beforehand
 * (dryRun), and made to depend on what the caller has seen (If-Match). A spec walks the description of the API
 * and fails for a write without it.
 */
import { applyDecorators } from '@nestjs/common';
import { ApiHeader, ApiQuery, ApiResponse } from '@nestjs/swagger';
import { RouteConfig } from '@nestjs/platform-fastify';
import { categoryOf, idOfStream } from '@chronovirt/contracts/ids';
import type { Accepted, Rehearsal } from '@chronovirt/decider/decider';
import type { FastifyReply } from 'fastify';
import { sendJson } from './request.http.ts';

/** Put above the other decorators of a write. `repeats: false`: it takes no Idempotency-Key, because its answer is shown once. */
export const Write = ({ repeats = true, access }: { readonly repeats?: boolean; readonly access?: 'join' } = {}): MethodDecorator => applyDecorators(
  RouteConfig({ cvWrite: true, ...(access === undefined ? {} : { cvAccess: access }) }),
  ...(repeats ? [ApiHeader({ name: 'Idempotency-Key', required: false, description: '1 to 255 printable characters: the same request with the same key is done once' })] : []),
  ApiHeader({ name: 'If-Match', required: false, description: 'The ETag that was read: refused with 412 when the thing has changed since; what a node merely saw does not count' }),
  ApiQuery({ name: 'dryRun', required: false, schema: { type: 'boolean', default: false }, description: 'true: answers 200 with what would be recorded, or with the same problem, and does nothing' }),
  ApiResponse({ status: 412, description: 'It is not as If-Match says', content: { 'application/problem+json': { schema: { $ref: '#/components/schemas/Problem' } } } }),
);

/** What would be recorded, as it would be shown. */
export const rehearsalShown = ({ events, placement }: Rehearsal) => ({
  events: events.map(({ stream, version, type, data }) => ({ type, category: categoryOf(stream), subject: idOfStream(stream), version, data })),
  ...(placement === undefined ? {} : { placement }),
});

export const sendRehearsal = (reply: FastifyReply, { version, rehearsal = { events: [] } }: Accepted, more: object = {}): void => {
  sendJson(reply.code(200), JSON.stringify({ dryRun: true, version, ...rehearsalShown(rehearsal), ...more }));
};
