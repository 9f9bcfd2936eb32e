/*
 * Load, decide, append; on a lost race, again. The answer to every command is stored in the same commit as
 * its events, so a command delivered twice is answered twice and obeyed once. Cancelling a command answers
 * it beforehand.
 *
 * A command may name the version of the stream that its caller has seen. It is compared with the version that
 * is decided on, and an append of 0 events checks that one too: so there is no moment between the comparison
 * and the commit. What a decider calls observations does not count (docs/decisions/0013).
 */
import type { CommandMeta } from '@chronovirt/contracts/command';
import { type Answer, type Decider, isRefusal, refuse, type Refusal } from '@chronovirt/decider/decider';
import type { EventLog, Loading, RecordedEvent } from './log.ts';
import { Mailbox } from './mailbox.ts';

/** How often a command is decided anew before it is given back to the bus. */
export const ATTEMPTS_MAX = 10;

export interface Handling<C> {
  readonly id: string;
  readonly stream: string;
  readonly command: C;
  readonly cancels: readonly string[];
  readonly meta: CommandMeta;
  readonly requestHash?: string | undefined;
  /** Version of the stream that the caller has seen. */
  readonly expected?: number | undefined;
  /**
   * 'events': a refusal, or nothing to record, is told but not stored. For questions that are asked of
   * several streams under one id (which node takes this VM?), and for reports, which wait for no answer.
   */
  readonly store?: 'always' | 'events';
  /** The stream most likely does not exist yet: the first attempt does not ask for it. */
  readonly likelyNew?: boolean;
}

export interface Handled {
  readonly answer: Answer;
  /** What this very call appended: nothing when the command was obeyed before. */
  readonly appended: readonly RecordedEvent[];
}

/** The answer for whoever asked, with the position of what was just appended. */
export const answerOf = ({ answer, appended }: Handled): Answer => {
  const last = appended.at(-1);
  return last === undefined || isRefusal(answer) ? answer : { ...answer, position: last.position };
};

/** Too many others were faster, every time. The bus delivers the command again. */
export class Contention extends Error {
  override readonly name = 'Contention';
  constructor(stream: string) {
    super(`${stream} changed under ${String(ATTEMPTS_MAX)} decisions in a row`);
  }
}

export const keyReused = refuse('idempotency.key_reused');

/** Takes care that commands of one stream run one after another in this process. */
export class CommandHandler {
  readonly log: EventLog;
  private readonly mailbox = new Mailbox();

  constructor(log: EventLog) {
    this.log = log;
  }

  handle<C, E extends { readonly type: string; readonly data: object }, S>(decider: Decider<C, E, S>, handling: Handling<C>): Promise<Handled> {
    return this.mailbox.run(handling.stream, () => handle(this.log, decider, handling));
  }

  /** Stores a refusal that no decider was asked for (an unknown image, say), unless the command was answered before. */
  async refuse(handling: Pick<Handling<unknown>, 'id' | 'meta' | 'requestHash'>, answer: Answer): Promise<Handled> {
    const outcome = await this.log.answer(handling.id, answer, { ...handling.meta, commandId: handling.id }, handling.requestHash);
    return { answer: outcome.kind === 'answered' ? told(outcome, handling.requestHash) : answer, appended: [] };
  }

  /** The answer this command was given before, if any. */
  async earlier(handling: Pick<Handling<unknown>, 'id' | 'requestHash'>): Promise<Answer | undefined> {
    const stored = await this.log.answered(handling.id);
    return stored === undefined ? undefined : told(stored, handling.requestHash);
  }
}

const told = (stored: { readonly answer: Answer; readonly requestHash: string | undefined }, requestHash: string | undefined): Answer =>
  requestHash !== undefined && stored.requestHash !== undefined && stored.requestHash !== requestHash ? keyReused : stored.answer;

const handle = async <C, E extends { readonly type: string; readonly data: object }, S>(
  log: EventLog, decider: Decider<C, E, S>, { id, stream, command, cancels, meta, requestHash, expected, store, likelyNew }: Handling<C>,
): Promise<Handled> => {
  const recorded = { ...meta, commandId: id };
  // Before the stream is read: from here on the cancelled command can add nothing, and what it did add is seen.
  for (const cancelled of cancels) await log.answer(cancelled, refuse('command.cancelled'), { ...recorded, commandId: cancelled, causedBy: id });

  let how: Loading = likelyNew === true ? 'new' : 'kept';
  for (let attempt = 1; attempt <= ATTEMPTS_MAX; attempt++) {
    const { state, version } = await log.load(stream, decider, how);
    const wish = decider.decide(command, state);
    // What is not there has not changed; everything else, a refusal too, may be otherwise than the caller believes.
    const isThere = !isRefusal(wish) || !wish.refused.endsWith('.not_found');
    const stale = expected === undefined || expected === version || !isThere ? undefined : await staleness(log, decider, stream, expected, version);
    const decision = stale ?? wish;
    const refused = isRefusal(decision);
    const events = refused ? [] : decision;
    const facts = refused ? undefined : decider.facts?.(command, events.reduce((now, event) => decider.evolve(now, event), state));
    const answer: Answer = refused ? decision : { version: version + events.length, ...(facts === undefined ? {} : { facts }) };
    if (store === 'events' && events.length === 0) {
      // No append will notice a stale state, so what is not stored is decided on a fresh one.
      if (how === 'fresh') return { answer, appended: [] };
      how = 'fresh';
      continue;
    }
    const outcome = await log.append({ commandId: id, requestHash, answer, stream, expected: version, events, meta: recorded });
    switch (outcome.kind) {
      case 'appended':
        return { answer, appended: outcome.events };
      case 'answered':
        return { answer: told(outcome, requestHash), appended: [] };
      case 'conflict':
        // What the faster one did is history now, so decide again.
        how = 'kept';
        continue;
    }
  }
  throw new Contention(stream);
};

/** How many of the events that a caller did not see are named to him. */
const NAMED_MAX = 20;
/** Pages of a stream that are looked through for something else than observations. */
const PAGES_MAX = 20;

/** Why what the caller has seen is not what is; undefined when only observations came since. */
const staleness = async <C, E extends { readonly type: string }, S>(log: EventLog, decider: Decider<C, E, S>, stream: string, expected: number, version: number): Promise<Refusal | undefined> => {
  const failed = (since: readonly RecordedEvent[]): Refusal => refuse('precondition.failed', {
    expected, version, since: since.slice(-NAMED_MAX).map((event) => ({ version: event.version, type: event.type, actor: event.meta.actor, at: event.recordedAt })),
  });
  // Nobody can have seen that.
  if (expected > version) return failed([]);
  const observations: readonly string[] = decider.observations ?? [];
  const decided: RecordedEvent[] = [];
  let seen = expected;
  for (let page = 0; page < PAGES_MAX && seen < version; page++) {
    const events = (await log.since(stream, seen)).filter((event) => event.version <= version);
    if (events.length === 0) break;
    decided.push(...events.filter(({ type }) => !observations.includes(type)));
    seen = events.at(-1)?.version ?? version;
  }
  return decided.length === 0 && seen >= version ? undefined : failed(decided);
};
