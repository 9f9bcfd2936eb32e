/*
 * A caller who has written something and reads it sees what he wrote.
 *
 * Projections follow the log by a few milliseconds. So a read may name the position that it must have seen
 * (`Cv-At-Least`; every answer to a write carries its `Cv-Position`), and reads of a single thing wait for
 * the last write that went through this process, without being asked. Both wait a second at most: what is
 * shown then is older than wanted, and `Cv-Position` says how old.
 */
import type { Accepted } from '@chronovirt/decider/decider';
import type { ProjectionRunner } from '@chronovirt/event-log/projection-runner';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { malformed } from './problem.http.ts';
import type { Views } from './views.store.ts';

const WAIT_MS = 1_000;
const WRITTEN_MAX = 20_000;

export class Reading {
  private readonly runner: Pick<ProjectionRunner, 'waitFor' | 'position'>;
  private readonly views: Pick<Views, 'positionOf'>;
  /** Positions of the last writes, by the id of the thing; the oldest are forgotten. */
  private readonly written = new Map<string, number>();

  constructor(runner: Pick<ProjectionRunner, 'waitFor' | 'position'>, views: Pick<Views, 'positionOf'>) {
    this.runner = runner;
    this.views = views;
  }

  /** Before a read: waits for what the caller demands and, of a single thing, for its last write. */
  async atLeast(request: FastifyRequest, reply: FastifyReply, id?: string): Promise<void> {
    const header = request.headers['cv-at-least'];
    const demanded = header === undefined ? 0 : positionOf(header);
    const position = Math.max(demanded, id === undefined ? 0 : (this.written.get(id) ?? 0));
    if (position > 0 && position > this.runner.position) await this.runner.waitFor(position, WAIT_MS);
    // Where another process fills the tables nobody here knows how far they are; then nothing is claimed.
    if (this.runner.position > 0) void reply.header('cv-position', String(this.runner.position));
  }

  /** Waits for the last write of one thing. */
  async own(id: string): Promise<void> {
    const position = this.written.get(id);
    if (position !== undefined) await this.runner.waitFor(position, WAIT_MS);
  }

  /** After a write: tells the caller its position, and remembers it for reads of these ids. */
  async wrote(reply: FastifyReply | undefined, stream: string, answer: Accepted, ids: readonly string[]): Promise<void> {
    if (answer.version === 0) return;
    const position = answer.position ?? (await this.views.positionOf(stream, answer.version));
    if (position === undefined) return;
    void reply?.header('cv-position', String(position));
    for (const id of ids) {
      this.written.delete(id);
      this.written.set(id, position);
    }
    for (const oldest of this.written.keys()) {
      if (this.written.size <= WRITTEN_MAX) return;
      this.written.delete(oldest);
    }
  }
}

const positionOf = (header: string | readonly string[]): number => {
  const position = typeof header === 'string' && /^\d{1,15}$/.test(header) ? Number(header) : undefined;
  if (position === undefined) throw malformed([{ path: 'header.Cv-At-Least', code: 'invalid', message: 'must be a position: a whole number' }]);
  return position;
};
