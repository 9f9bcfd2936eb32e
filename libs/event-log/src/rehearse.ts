/*
 * What would this command do? The very code that obeys it runs on a log that keeps to itself what is appended.
 *
 *     obey(command) ──load──▶ RehearsalLog ──load──▶ the log
 *                   ──append▶ in memory: the next load sees it, nobody else ever does
 *
 * So a handler that writes several streams (a name, a subnet, a network) is rehearsed with all its steps and
 * with what it takes back, and none of them had to learn what a rehearsal is. The command's id is the one that
 * it would have: what it names is named alike, and if it was answered before, that answer is what comes.
 *
 * What a rehearsal says holds for the moment in which it was asked. Reactions to events (sagas) are not
 * rehearsed: they begin after a commit, and there is none.
 */
import type { CommandEnvelope } from '@chronovirt/contracts/command';
import { type Answer, type Decider, isRefusal, type Rehearsal } from '@chronovirt/decider/decider';
import { eventIdOf } from './command-id.ts';
import { CommandHandler } from './handle.ts';
import type { Append, EventLog, EventMeta, Outcome, RecordedEvent } from './log.ts';

type Stored = { readonly answer: Answer; readonly requestHash: string | undefined };

export class RehearsalLog implements EventLog {
  /** What would have been appended, in order. Positions are 0: they have none. */
  readonly events: RecordedEvent[] = [];
  private readonly real: EventLog;
  private readonly answers = new Map<string, Stored>();

  constructor(real: EventLog) {
    this.real = real;
  }

  /** Always as it is now: no append will notice a stale state. */
  async load<C, E, S>(stream: string, decider: Decider<C, E, S>): Promise<{ readonly state: S; readonly version: number }> {
    const { state, version } = await this.real.load(stream, decider, 'fresh');
    const here = this.of(stream).filter((event) => event.version > version);
    return { state: here.reduce((now, event) => decider.evolve(now, event as unknown as E), state), version: version + here.length };
  }

  async append({ commandId, requestHash, answer, stream, expected, events, meta }: Append): Promise<Outcome> {
    const before = await this.answered(commandId);
    if (before !== undefined) return { kind: 'answered', ...before };
    const recorded = events.map((event, index): RecordedEvent => ({
      position: 0, stream, version: expected + 1 + index, id: eventIdOf(commandId, index), type: event.type, data: this.real.written(event), meta, recordedAt: '',
    }));
    this.events.push(...recorded);
    this.answers.set(commandId, { answer, requestHash });
    return { kind: 'appended', events: recorded };
  }

  async answer(commandId: string, answer: Answer, _meta: EventMeta, requestHash?: string): Promise<Outcome> {
    const before = await this.answered(commandId);
    if (before !== undefined) return { kind: 'answered', ...before };
    this.answers.set(commandId, { answer, requestHash });
    return { kind: 'appended', events: [] };
  }

  async answered(commandId: string): Promise<Stored | undefined> {
    return this.answers.get(commandId) ?? (await this.real.answered(commandId));
  }

  read(after: number, limit: number): Promise<readonly RecordedEvent[]> {
    return this.real.read(after, limit);
  }

  head(): Promise<number> {
    return this.real.head();
  }

  async since(stream: string, version: number): Promise<readonly RecordedEvent[]> {
    const real = await this.real.since(stream, version);
    const last = real.at(-1)?.version ?? version;
    return [...real, ...this.of(stream).filter((event) => event.version > last)];
  }

  written(event: { readonly type: string; readonly data: object }): Readonly<Record<string, unknown>> {
    return this.real.written(event);
  }

  private of(stream: string): readonly RecordedEvent[] {
    return this.events.filter((event) => event.stream === stream);
  }
}

/** Runs `work` with a handler that writes nothing, and tells what it would have written. */
export const rehearse = async (log: EventLog, work: (handler: CommandHandler) => Promise<Answer>): Promise<Answer> => {
  const kept = new RehearsalLog(log);
  const answer = await work(new CommandHandler(kept));
  if (isRefusal(answer)) return answer;
  const rehearsal: Rehearsal = { events: kept.events.map(({ stream, version, type, data }) => ({ stream, version, type, data })) };
  return { version: answer.version, ...(answer.facts === undefined ? {} : { facts: answer.facts }), rehearsal };
};

/** The command that this one rehearses, as it would be sent; undefined when it rehearses none. */
export const rehearsedBy = ({ rehearses, ...envelope }: CommandEnvelope): CommandEnvelope | undefined =>
  rehearses === undefined ? undefined : { ...envelope, id: rehearses.id };

/** Obeys a command, or tells what it was answered before; one that rehearses another is told what that would do. */
export const obeyOrRehearse = (handler: CommandHandler, envelope: CommandEnvelope, obey: (envelope: CommandEnvelope, by: CommandHandler) => Promise<Answer>): Promise<Answer> => {
  const other = rehearsedBy(envelope);
  return other === undefined ? obey(envelope, handler) : rehearse(handler.log, (by) => obey(other, by));
};
