/** Sends a file that never changes, or the part of it that was asked for (RFC 9110, 14). */
import { createReadStream } from 'node:fs';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { ProblemError } from '../problem.http.ts';
import { rangeOf } from './byte-range.ts';

export interface FileToSend {
  readonly path: string;
  readonly bytes: number;
  /** Names its content: an ETag without quotes. */
  readonly tag: string;
  /** What a browser calls it; letters, digits, dots, dashes and underscores. */
  readonly name: string;
}

export const sendFile = (request: FastifyRequest, reply: FastifyReply, { path, bytes, tag, name }: FileToSend): void => {
  const { range: asked, 'if-range': only } = request.headers;
  const range = only !== undefined && only !== `"${tag}"` ? undefined : rangeOf(asked, bytes);
  if (range === 'unsatisfiable') throw new ProblemError('request.range_not_satisfiable', { detail: `It has ${String(bytes)} bytes.`, headers: { 'content-range': `bytes */${String(bytes)}` } });
  const { from, to } = range ?? { from: 0, to: bytes - 1 };
  void reply.code(range === undefined ? 200 : 206).headers({
    'accept-ranges': 'bytes', etag: `"${tag}"`, 'content-type': 'application/octet-stream', 'content-length': String(to - from + 1), 'content-disposition': `attachment; filename="${name}"`,
    ...(range === undefined ? {} : { 'content-range': `bytes ${String(from)}-${String(to)}/${String(bytes)}` }),
  });
  void reply.send(request.method === 'HEAD' || bytes === 0 ? '' : createReadStream(path, { start: from, end: to, highWaterMark: 262_144 }));
};
