/*
 * The log in memory: the same promises as Postgres', for the simulation, where thousands of runs must fit
 * into a minute. It assigns positions at once, keeps folded states by stream, and checks shapes only where it is
 * given them: what Postgres would refuse must not pass in a simulation.
 * `faults` lets a simulation take a promise out, to see that its absence is found.
 */
import type { EventTable } from '@chronovirt/contracts/event';
import { type Answer, type Decider, isRefusal } from '@chronovirt/decider/decider';
import { eventIdOf } from './command-id.ts';
import { type Append, type EventLog, type EventMeta, type Outcome, type RecordedEvent, SINCE_MAX } from './log.ts';

interface Faults {
  readonly versionUnchecked?: boolean;
  readonly answersForgotten?: boolean;
  readonly cancelsForgotten?: boolean;
}

export class MemoryLog implements EventLog {
  readonly events: RecordedEvent[] = [];
  readonly streams = new Map<string, RecordedEvent[]>();
  private readonly answers = new Map<string, { readonly answer: Answer; readonly requestHash: string | undefined }>();
  private readonly states = new Map<string, { state: unknown; version: number }>();
  private readonly listeners = new Set<(events: readonly RecordedEvent[]) => void>();
  private readonly now: () => number;
  private readonly faults: Faults;
  private readonly shapes: EventTable | undefined;

  constructor(now: () => number, faults: Faults = {}, shapes?: EventTable) {
    this.now = now;
    this.faults = faults;
    this.shapes = shapes;
  }

  /** Called after each append, in commit order. */
  subscribe(listener: (events: readonly RecordedEvent[]) => void): void {
    this.listeners.add(listener);
  }

  load<C, E, S>(stream: string, decider: Decider<C, E, S>): Promise<{ readonly state: S; readonly version: number }> {
    const events = this.streams.get(stream) ?? [];
    const known = this.states.get(stream) ?? { state: decider.initial, version: 0 };
    let state = known.state as S;
    for (const event of events.slice(known.version)) state = decider.evolve(state, event as unknown as E);
    this.states.set(stream, { state, version: events.length });
    return Promise.resolve({ state, version: events.length });
  }

  append(append: Append): Promise<Outcome> {
    const stored = this.faults.answersForgotten === true ? undefined : this.answers.get(append.commandId);
    if (stored !== undefined) return Promise.resolve({ kind: 'answered', ...stored });
    const stream = this.streams.get(append.stream) ?? [];
    if (append.expected !== stream.length && this.faults.versionUnchecked !== true) return Promise.resolve({ kind: 'conflict' });
    for (const event of append.events) this.check(event);
    const recordedAt = new Date(this.now()).toISOString();
    const recorded = append.events.map((event, index): RecordedEvent => ({
      position: this.events.length + 1 + index, stream: append.stream, version: stream.length + 1 + index,
      id: eventIdOf(append.commandId, index), type: event.type, data: event.data as Readonly<Record<string, unknown>>, meta: append.meta, recordedAt,
    }));
    this.answers.set(append.commandId, { answer: append.answer, requestHash: append.requestHash });
    if (recorded.length > 0) {
      this.events.push(...recorded);
      stream.push(...recorded);
      this.streams.set(append.stream, stream);
      for (const listener of this.listeners) listener(recorded);
    }
    return Promise.resolve({ kind: 'appended', events: recorded });
  }

  answer(commandId: string, answer: Answer, _meta: EventMeta, requestHash?: string): Promise<Outcome> {
    const stored = this.answers.get(commandId);
    if (stored !== undefined) return Promise.resolve({ kind: 'answered', ...stored });
    if (this.faults.cancelsForgotten === true && isRefusal(answer) && answer.refused === 'command.cancelled') return Promise.resolve({ kind: 'appended', events: [] });
    this.answers.set(commandId, { answer, requestHash });
    return Promise.resolve({ kind: 'appended', events: [] });
  }

  answered(commandId: string): Promise<{ readonly answer: Answer; readonly requestHash: string | undefined } | undefined> {
    return Promise.resolve(this.answers.get(commandId));
  }

  read(after: number, limit: number): Promise<readonly RecordedEvent[]> {
    return Promise.resolve(this.events.slice(after, after + limit));
  }

  head(): Promise<number> {
    return Promise.resolve(this.events.length);
  }

  since(stream: string, version: number): Promise<readonly RecordedEvent[]> {
    return Promise.resolve((this.streams.get(stream) ?? []).slice(version, version + SINCE_MAX));
  }

  private check({ type, data }: { readonly type: string; readonly data: object }): void {
    if (this.shapes === undefined) return;
    const spec = Object.hasOwn(this.shapes, type) ? this.shapes[type] : undefined;
    if (spec === undefined) throw new Error(`${type} is no event that may be written`);
    spec.write(data);
  }

  written({ data }: { readonly data: object }): Readonly<Record<string, unknown>> {
    return data as Readonly<Record<string, unknown>>;
  }
}
