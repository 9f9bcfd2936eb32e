/*
 * The log as everything else sees it. Two stores keep this promise: Postgres (postgres-log.ts), and plain
 * memory (memory-log.ts) for the simulation. What they promise:
 *
 * - An append carries 0..n events of one stream and one command's answer, in one commit. The expected
 *   version is checked for 0 events too: a refusal decided on stale state is a conflict.
 * - A command is answered once. Whoever asks again gets that answer, whatever he asks for.
 * - Positions rise in commit order without gaps, so a checkpoint is one number.
 */
import type { CommandMeta } from '@chronovirt/contracts/command';
import type { Answer, Decider } from '@chronovirt/decider/decider';

/** Who, why and under what, as it stands in the row. */
export interface EventMeta extends CommandMeta {
  readonly commandId: string;
}

export interface RecordedEvent {
  /** 1, 2, 3 … without gaps, in commit order over the whole log. */
  readonly position: number;
  readonly stream: string;
  /** 1, 2, 3 … within the stream. */
  readonly version: number;
  readonly id: string;
  readonly type: string;
  /** In the newest shape: older rows are upcast as they are read. */
  readonly data: Readonly<Record<string, unknown>>;
  readonly meta: EventMeta;
  /** The log's clock, ISO 8601 with microseconds. Never used to order anything. */
  readonly recordedAt: string;
}

export interface Append {
  readonly commandId: string;
  /** SHA-256 (hex) of the canonical request, for commands with a caller's key. */
  readonly requestHash?: string | undefined;
  readonly answer: Answer;
  readonly stream: string;
  /** Version of the stream that was decided on: 0 for a new one. */
  readonly expected: number;
  readonly events: readonly { readonly type: string; readonly data: object }[];
  readonly meta: EventMeta;
}

export type Outcome =
  | { readonly kind: 'appended'; readonly events: readonly RecordedEvent[] }
  /** The command was answered before: nothing was written. */
  | { readonly kind: 'answered'; readonly answer: Answer; readonly requestHash: string | undefined }
  /** Somebody else was faster on this stream: nothing was written. */
  | { readonly kind: 'conflict' };

/** How many events of a stream are read at once. */
export const SINCE_MAX = 500;

export type Loading = 'kept' | 'fresh' | 'new';

export interface EventLog {
  /**
   * 'kept' (the default): a store may answer from what it kept, and an append notices. 'fresh': as it is
   * now. 'new': what is not kept is taken for empty without asking, for streams that most likely do not
   * exist yet; an append notices that too.
   */
  load<C, E, S>(stream: string, decider: Decider<C, E, S>, how?: Loading): Promise<{ readonly state: S; readonly version: number }>;
  append(append: Append): Promise<Outcome>;
  /** Answers a command beforehand; `answered` brings what it was answered already. */
  answer(commandId: string, answer: Answer, meta: EventMeta, requestHash?: string): Promise<Outcome>;
  answered(commandId: string): Promise<{ readonly answer: Answer; readonly requestHash: string | undefined } | undefined>;
  /** Events behind a position, in order, at most `limit`. */
  read(after: number, limit: number): Promise<readonly RecordedEvent[]>;
  /** Position of the last event, 0 when there is none. */
  head(): Promise<number>;
  /** Events of one stream behind a version, in order, at most SINCE_MAX. */
  since(stream: string, version: number): Promise<readonly RecordedEvent[]>;
  /** An event's data as it would be stored. Throws on what may not be written: that is our bug. */
  written(event: { readonly type: string; readonly data: object }): Readonly<Record<string, unknown>>;
}
