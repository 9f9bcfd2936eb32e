/*
 * Answers on their way back: the shortcut that saves a round trip through the log.
 *
 * A process has one subscription for all the answers to all it sent. A command names in
 * Cv-Reply the subject where its answer goes; that subject ends with who gives it, and an
 * answer that comes by another subject is not believed, so that a node cannot answer for
 * another. An answer may be lost with its connection: the log has it, and whoever waits
 * looks there when its patience ends.
 */
import type { NatsConnection } from '@nats-io/transport-node';
import type { Answer } from '@chronovirt/contracts/command';
import type { z } from 'zod';
import type { BusLog } from './connect.ts';
import { noLog } from './connect.ts';
import { isAnswerSubject, subjects } from './topology.ts';

export type AnswerOf = z.infer<typeof Answer>;

/** No answer came in time. It may be in the log. */
export class NoAnswer extends Error {
  override readonly name = 'NoAnswer';
  constructor(id: string) {
    super(`no answer to command ${id}`);
  }
}

export interface Expectation {
  readonly timeoutMs: number;
  /** Whom the command was sent to: `envelope.to` and `envelope.target`. */
  readonly to: string;
  readonly target: string;
}

export interface Replies {
  /** For the header Cv-Reply of a command. */
  subjectFor(to: string, target: string): string;
  /** Call it before the command is published. Rejects with `NoAnswer`. */
  expect(id: string, expectation: Expectation): Promise<AnswerOf>;
  /** Answers that nobody expects: to commands that were sent without waiting. One listener for each process. */
  onOther(listener: (id: string, answer: AnswerOf, from: { readonly to: string; readonly target?: string }) => void): void;
  close(): void;
}

const EXPECTATIONS_MAX = 100_000;

interface Waiting {
  readonly subject: string;
  readonly resolve: (answer: AnswerOf) => void;
  readonly reject: (fault: Error) => void;
  readonly timer: NodeJS.Timeout;
}

/** `process` names this process on the bus and must be its own, for example `gateway-<random>`. */
export function createReplies({ nc, process, log = noLog }: { readonly nc: NatsConnection; readonly process: string; readonly log?: BusLog }): Replies {
  // One id may be waited for by several callers: the same request with the same key, twice at once.
  const waiting = new Map<string, Waiting[]>();
  let count = 0;
  let other: Parameters<Replies['onOther']>[0] | undefined;
  let closed = false;

  const settle = (id: string, one: Waiting): void => {
    clearTimeout(one.timer);
    const rest = (waiting.get(id) ?? []).filter((each) => each !== one);
    if (rest.length === 0) waiting.delete(id);
    else waiting.set(id, rest);
    count--;
  };

  const subscription = nc.subscribe(subjects.answersTo(process), {
    callback: (err, message) => {
      if (err) return log.error({ err }, 'answers cannot be received');
      let id: string;
      let answer: AnswerOf;
      try {
        ({ id, answer } = message.json<{ id: string; answer: AnswerOf }>());
        if (typeof id !== 'string' || typeof answer !== 'object' || answer === null || !('version' in answer || 'refused' in answer)) throw new TypeError('not an answer');
      } catch {
        return log.warn({ subject: message.subject }, 'answer cannot be read');
      }
      const expected = waiting.get(id);
      if (expected === undefined) {
        const [, , , to, target] = message.subject.split('.');
        if (to !== undefined) other?.(id, answer, target === undefined ? { to } : { to, target });
        return;
      }
      for (const one of expected) {
        if (one.subject !== message.subject) {
          log.warn({ subject: message.subject, commandId: id }, 'answer came from someone else');
          continue;
        }
        settle(id, one);
        one.resolve(answer);
      }
    },
  });

  return {
    subjectFor: (to, target) => subjects.answer(process, to, target),
    expect: (id, { timeoutMs, to, target }) => {
      if (closed) return Promise.reject(new NoAnswer(id));
      if (count >= EXPECTATIONS_MAX) return Promise.reject(new RangeError('too many answers are waited for'));
      const answer = new Promise<AnswerOf>((resolve, reject) => {
        const one: Waiting = {
          subject: subjects.answer(process, to, target),
          resolve,
          reject,
          timer: setTimeout(() => { settle(id, one); reject(new NoAnswer(id)); }, timeoutMs),
        };
        waiting.set(id, [...(waiting.get(id) ?? []), one]);
        count++;
      });
      // Whoever could not publish the command no longer waits; that must not end the process.
      answer.catch(() => undefined);
      return answer;
    },
    onOther: (listener) => { other = listener; },
    close: () => {
      closed = true;
      subscription.unsubscribe();
      for (const [id, all] of [...waiting]) {
        for (const one of all) {
          settle(id, one);
          one.reject(new NoAnswer(id));
        }
      }
    },
  };
}

/** Sends an answer to where the command wanted it. A subject that is none of ours is refused: it came in a header. */
export function sendAnswer(nc: NatsConnection, subject: string, id: string, answer: unknown): boolean {
  if (!isAnswerSubject(subject)) return false;
  nc.publish(subject, JSON.stringify({ id, answer }));
  return true;
}
