/*
 * A decider answers two questions: may this happen, and what has then happened? It is a pair of pure
 * functions over a state that is nothing but a fold over history. Everything that is recorded in
 * Chronovirt was decided by one of these; everything else carries messages to them or shows what they
 * decided.
 */

/** Named values that an answer carries to whoever asked: an address, a node. Plain JSON. */
export type Facts = Readonly<Record<string, unknown>>;

/** An answer in the negative: a value, never a thrown error. */
export interface Refusal {
  /** Stable and greppable: '<aggregate>.<reason>', for example 'vm.not_stopped'. Clients rely on it. */
  readonly refused: string;
  /** What the caller needs to understand the refusal. */
  readonly because?: Facts;
}

/** What a decider answers: the facts to record, or a refusal. No events: what was asked is so already. */
export type Decision<E> = readonly E[] | Refusal;

export interface Decider<C, E, S> {
  /** Streams are named '<category>-<id>'. */
  readonly category: string;
  readonly initial: S;
  /** Never throws, never waits, knows no time: ids and times come in with the command. */
  decide(command: C, state: S): Decision<E>;
  /** Never refuses: history has happened. */
  evolve(state: S, event: E): S;
  /** What the sender is told beside "done", read from the state after the events. */
  facts?(command: C, state: S): Facts;
  /**
   * Types of events that tell what was seen or used and not what was decided about the thing: whoever read it
   * before them may still write. An observation comes at any time; a caller must not be refused for it.
   */
  readonly observations?: readonly (E extends { readonly type: infer T } ? T : never)[];
}

/** The answer to a command: stored in the commit of its events, given again to whoever asks again. */
export type Answer = Accepted | Refusal;

export interface Accepted {
  /** Version of the stream after the command's last event. */
  readonly version: number;
  readonly facts?: Facts;
  /** Where in the log its last event stands. Only in the answer that comes straight back: the stored one was written in the same commit. */
  readonly position?: number;
  /** Only where nothing was written, because that was asked for. */
  readonly rehearsal?: Rehearsal;
}

/** What a command would record, in the order in which it would, and for a new VM where it would come. */
export interface Rehearsal {
  readonly events: readonly { readonly stream: string; readonly version: number; readonly type: string; readonly data: Facts }[];
  readonly placement?: Facts;
}

/** How many of those that stand in the way a refusal names, beside their number. */
export const NAMED_MAX = 10;

export const refuse = (refused: string, because?: Facts): Refusal => (because === undefined ? { refused } : { refused, because });

export const isRefusal = (value: unknown): value is Refusal =>
  typeof value === 'object' && value !== null && 'refused' in value && typeof value.refused === 'string';

/** State is a fold over history; replaying a prefix of history is time travel. */
export const replay = <E, S>(decider: Pick<Decider<never, E, S>, 'initial' | 'evolve'>, history: readonly E[]): S =>
  history.reduce((state, event) => decider.evolve(state, event), decider.initial);
