/*
 * A saga makes several things happen together, or none.
 *
 * It is a table of steps, each with what does it and what undoes it, side by side. This file turns such a
 * table into a decider whose state is the saga's own stream, so whoever holds the log can continue any
 * saga: the commands that are outstanding are computed from the state, never remembered, and their ids are
 * made from `<saga>:<step>:<run|undo>`. Sending them twice is therefore harmless, and a crash between
 * recording and sending is repaired by computing them again.
 *
 *     running ──(all steps answered)──▶ ending ──(end answered)──▶ ended: succeeded
 *        │ refused, overdue, cancelled
 *        ▼
 *     undoing ──(all undone)──▶ ending ──▶ ended: compensated
 *        │ an undo is overdue: its target is silent
 *        ▼
 *     ending ──▶ ended: failed, and what was not undone is owed
 *
 * A refused step did nothing and needs no undo, unless it says otherwise (`undoRefused`): a decider refuses in
 * the commit in which it would have acted, but a node may have acted, died before it could write that down,
 * and refuse when it is asked again. A step that is overdue, or still on its way when another
 * one fails, may have happened, so it is undone as if it had. Undos run one after another, in reverse: each
 * undo cancels its own step's command and those of later steps that have no undo, so that a StartDomain
 * that was delayed cannot follow an UndefineDomain. When an undo is overdue, the ones behind it are not
 * tried: they would give away what a silent node may still use. All of them are owed.
 *
 * A clean-up saga has nothing to go back to: what it could not do in time is owed, and a reconciler starts
 * it again.
 *
 * Which steps an input has is decided once, at the start, and recorded with what each waits for: a step that
 * has nothing to do is not there, and what waits for it waits for what it would have waited for.
 */
import { type Answer, type Decider, type Facts, isRefusal, refuse, type Refusal } from './decider.ts';

/** Facts of the steps that are answered, by step. A step not yet answered has none. */
export type StepFacts = Readonly<Record<string, Facts | undefined>>;

export interface NothingToUndo {
  readonly why: string;
}

/** Says why a step needs no undo: the reason is read by people, not by code. */
export const nothingToUndo = (why: string): NothingToUndo => ({ why });

export interface Step<I, C> {
  /** The steps that must be answered before this one is sent. */
  readonly after?: readonly string[];
  /** Milliseconds from when the step could be sent to when it is overdue. */
  readonly deadlineMs: number;
  /** Milliseconds on top, for what this input asks to wait for. */
  moreMs?(input: I): number;
  /**
   * The command that does it; undefined when this input has nothing to do here. That depends on the input alone:
   * it is asked at the start, without facts, and throws where it would need some.
   */
  run(input: I, facts: StepFacts): C | undefined;
  /** The command that takes it back; undefined when this input leaves nothing to take back. */
  readonly undo: ((input: I, facts: StepFacts) => C | undefined) | NothingToUndo;
  /** Milliseconds an undo may take; `deadlineMs` when not given. */
  readonly undoDeadlineMs?: number;
  /** true: this step may have happened although it was refused, so it is undone then too. */
  readonly undoRefused?: boolean;
  /** Refusals that mean "it is so already": in a clean-up, a node that was removed has no domain. */
  readonly settledBy?: readonly string[];
}

export interface Saga<I, C> {
  readonly name: string;
  readonly steps: Readonly<Record<string, Step<I, C>>>;
  /** true: forward only. What is not done in time is owed; nothing is undone. */
  readonly cleanUp?: boolean;
  /** true: undos run in the order of the steps. Only the simulation sets it, to see that it finds the damage. */
  readonly undoForward?: boolean;
  /** Tells the owner that all is done. Must be accepted by its receiver whenever it comes. */
  done(input: I, facts: StepFacts): C;
  /** Tells the owner that nothing is done, why, and what is still owed. Must be accepted too. */
  failed(input: I, why: Refusal, owed: readonly string[], facts: StepFacts): C;
}

export type SagaEvent =
  | { type: 'SagaStarted'; data: { saga: string; input: Facts; steps: readonly PlannedStep[]; deadlineMs: number; at: number } }
  | { type: 'StepAnswered'; data: { step: string; facts: Facts; at: number } }
  | { type: 'StepRefused'; data: { step: string; refused: string; because: Facts; at: number } }
  | { type: 'StepOverdue'; data: { step: string; at: number } }
  | { type: 'SagaCancelled'; data: { because: string; at: number } }
  | { type: 'UndoAnswered'; data: { step: string; at: number } }
  | { type: 'UndoOverdue'; data: { step: string; at: number } }
  | { type: 'SagaEnded'; data: { outcome: SagaOutcome; owed: readonly string[]; why: Refusal | null; at: number } };

export type SagaOutcome = 'succeeded' | 'compensated' | 'failed';

export interface PlannedStep {
  readonly name: string;
  readonly after: readonly string[];
  readonly deadlineMs: number;
}

export type SagaCommand<I> =
  | { type: 'StartSaga'; data: { input: I; at: number } }
  | { type: 'TakeAnswers'; data: { answers: readonly StepAnswer[]; at: number } }
  | { type: 'CheckDeadlines'; data: { at: number } }
  | { type: 'CancelSaga'; data: { because: string; at: number } };

/** An answer that came back to one of the saga's commands. */
export interface StepAnswer {
  readonly step: string;
  readonly phase: Phase;
  readonly answer: Answer;
}

/** 'end' is the phase of the last command, the one that tells the owner. */
export type Phase = 'run' | 'undo' | 'end';

type Done = { readonly facts: Facts; readonly at: number };

export type SagaState<I> =
  | { readonly status: 'absent' }
  | {
      readonly status: 'running' | 'undoing' | 'ended';
      readonly input: I;
      readonly startedAt: number;
      /** The steps that this input has, each after those it waits for. */
      readonly steps: readonly Pick<PlannedStep, 'name' | 'after'>[];
      /** Steps answered, with the time of the answer. */
      readonly done: Readonly<Record<string, Done>>;
      readonly refused: readonly string[];
      /** Why it is being undone. */
      readonly why: Refusal | null;
      readonly undone: readonly string[];
      /** When the undo that is due now became due to be sent. */
      readonly undoingSince: number;
      readonly owed: readonly string[];
      readonly outcome: SagaOutcome | null;
    };

/** A command that waits for its answer, computed from the state alone. */
export interface Outstanding<C> {
  readonly step: string;
  readonly phase: Phase;
  readonly command: C;
  /** Steps whose run command this one cancels. */
  readonly cancels: readonly string[];
  /** Milliseconds since the epoch; the end of a saga has no deadline, it is sent until it is answered. */
  readonly dueAt: number | null;
  readonly since: number;
}

const hasUndo = <I, C>(step: Step<I, C>): step is Step<I, C> & { undo: (input: I, facts: StepFacts) => C | undefined } => typeof step.undo === 'function';

const stepOf = <I, C>(saga: Saga<I, C>, name: string): Step<I, C> => {
  const step = saga.steps[name];
  if (step === undefined) throw new Error(`saga ${saga.name} has no step ${name}`);
  return step;
};

/** Steps in an order in which each comes after what it needs. Throws when the table has a cycle or a hole. */
export const orderOf = <I, C>(saga: Saga<I, C>): readonly string[] => {
  const ordered: string[] = [];
  const visit = (name: string, path: readonly string[]): void => {
    if (path.includes(name)) throw new Error(`saga ${saga.name}: steps wait for each other: ${[...path, name].join(' → ')}`);
    if (ordered.includes(name)) return;
    for (const earlier of stepOf(saga, name).after ?? []) visit(earlier, [...path, name]);
    ordered.push(name);
  };
  for (const name of Object.keys(saga.steps)) visit(name, []);
  return ordered;
};

/** What this input has to do, in an order in which each step comes after what it needs. */
export const planOf = <I, C>(saga: Saga<I, C>, input: I): readonly PlannedStep[] => {
  const names = orderOf(saga);
  const needed = names.filter((name) => isNeeded(stepOf(saga, name), input));
  const awaited = (name: string): readonly string[] => (stepOf(saga, name).after ?? []).flatMap((earlier) => (needed.includes(earlier) ? [earlier] : awaited(earlier)));
  return needed.map((name) => ({ name, after: [...new Set(awaited(name))], deadlineMs: deadlineOf(stepOf(saga, name), input) }));
};

const isNeeded = <I, C>(step: Step<I, C>, input: I): boolean => {
  try {
    return step.run(input, {}) !== undefined;
  } catch {
    // It needs facts of earlier steps, so it has something to do.
    return true;
  }
};

/** Milliseconds: the longest path of the steps' deadlines there, and of the undos' back. */
export const deadlineMsOf = <I, C>(saga: Saga<I, C>, input: I): number => longestPathMs(saga, planOf(saga, input));

const longestPathMs = <I, C>(saga: Saga<I, C>, plan: readonly PlannedStep[]): number => {
  const ends: Record<string, number> = {};
  let back = 0;
  for (const { name, after, deadlineMs } of plan) {
    const step = stepOf(saga, name);
    ends[name] = Math.max(0, ...after.map((earlier) => ends[earlier] ?? 0)) + deadlineMs;
    if (hasUndo(step)) back += step.undoDeadlineMs ?? step.deadlineMs;
  }
  return Math.max(0, ...Object.values(ends)) + back;
};

const deadlineOf = <I, C>(step: Step<I, C>, input: I): number => step.deadlineMs + (step.moreMs?.(input) ?? 0);

const factsOf = (done: Readonly<Record<string, Done>>): StepFacts => Object.fromEntries(Object.entries(done).map(([name, { facts }]) => [name, facts]));

type Begun<I> = Exclude<SagaState<I>, { status: 'absent' }>;
type Awaiting = Begun<never>['steps'][number];

/** When a step could first be sent, or undefined while it waits for others. */
const readySince = <I>(state: Begun<I>, { after }: Awaiting): number | undefined => {
  let since = state.startedAt;
  for (const earlier of after) {
    const done = state.done[earlier];
    if (done === undefined) return undefined;
    since = Math.max(since, done.at);
  }
  return since;
};

/** What this saga may have brought about and must take back, in the order of taking back. */
const toUndo = <I, C>(saga: Saga<I, C>, state: Begun<I>): readonly string[] => {
  const facts = factsOf(state.done);
  const mayHaveHappened = state.steps.filter((planned) => {
    const step = stepOf(saga, planned.name);
    return hasUndo(step) && (step.undoRefused === true || !state.refused.includes(planned.name)) && !state.undone.includes(planned.name) && readySince(state, planned) !== undefined
      && step.undo(state.input, facts) !== undefined;
  }).map(({ name }) => name);
  return saga.undoForward === true ? mayHaveHappened : mayHaveHappened.reverse();
};

/** Run commands of a saga that has turned back which may still be on their way: sent, and not answered so far. */
export const underWay = <I, C>(saga: Saga<I, C>, state: SagaState<I>): readonly { readonly step: string; readonly command: C }[] => {
  if (state.status !== 'undoing') return [];
  const facts = factsOf(state.done);
  return state.steps.flatMap((planned) => {
    const { name } = planned;
    if (state.done[name] !== undefined || state.refused.includes(name) || readySince(state, planned) === undefined) return [];
    return [{ step: name, command: commandOf(saga, name, state.input, facts) }];
  });
};

const commandOf = <I, C>(saga: Saga<I, C>, name: string, input: I, facts: StepFacts): C => {
  const command = stepOf(saga, name).run(input, facts);
  if (command === undefined) throw new Error(`saga ${saga.name}: ${name} had something to do at the start, and has nothing now`);
  return command;
};

const comesAfter = (steps: readonly Awaiting[], later: string, earlier: string): boolean =>
  (steps.find(({ name }) => name === later)?.after ?? []).some((name) => name === earlier || comesAfter(steps, name, earlier));

/** The commands that wait for an answer now. The runner sends each, and sends it again until it is answered. */
export const outstanding = <I, C>(saga: Saga<I, C>, state: SagaState<I>): readonly Outstanding<C>[] => {
  if (state.status === 'absent' || state.status === 'ended') return [];
  const facts = factsOf(state.done);
  if (state.status === 'running') {
    const waiting = state.steps.filter(({ name }) => state.done[name] === undefined);
    if (waiting.length === 0) {
      return [{ step: 'end', phase: 'end', command: saga.done(state.input, facts), cancels: [], dueAt: null, since: Math.max(state.startedAt, ...Object.values(state.done).map(({ at }) => at)) }];
    }
    return waiting.flatMap((planned) => {
      const { name } = planned;
      const since = readySince(state, planned);
      if (since === undefined) return [];
      return [{ step: name, phase: 'run' as const, command: commandOf(saga, name, state.input, facts), cancels: [], dueAt: since + deadlineOf(stepOf(saga, name), state.input), since }];
    });
  }
  const why = state.why ?? refuse('saga.failed');
  const next = state.owed.length > 0 || saga.cleanUp === true ? undefined : toUndo(saga, state)[0];
  if (next === undefined) {
    return [{ step: 'end', phase: 'end', command: saga.failed(state.input, why, state.owed, facts), cancels: [], dueAt: null, since: state.undoingSince }];
  }
  const step = stepOf(saga, next);
  const undo = hasUndo(step) ? step.undo(state.input, facts) : undefined;
  if (undo === undefined) throw new Error(`saga ${saga.name}: ${next} has no undo`);
  const withoutUndo = state.steps.flatMap(({ name }) => (comesAfter(state.steps, name, next) && !hasUndo(stepOf(saga, name)) ? [name] : []));
  return [{
    step: next, phase: 'undo', command: undo, cancels: [next, ...withoutUndo],
    dueAt: state.undoingSince + (step.undoDeadlineMs ?? step.deadlineMs), since: state.undoingSince,
  }];
};

/** The decider of a saga. Its stream is '<saga-name>-<id>' under the category 'saga-<name>'. */
export const sagaDecider = <I extends object, C>(saga: Saga<I, C>): Decider<SagaCommand<I>, SagaEvent, SagaState<I>> => {
  const evolve = (state: SagaState<I>, event: SagaEvent): SagaState<I> => {
    if (event.type === 'SagaStarted') {
      return { status: 'running', input: event.data.input as I, startedAt: event.data.at, steps: event.data.steps.filter(({ name }) => name in saga.steps), done: {}, refused: [], why: null, undone: [], undoingSince: 0, owed: [], outcome: null };
    }
    if (state.status === 'absent') return state;
    switch (event.type) {
      case 'StepAnswered':
        return { ...state, done: { ...state.done, [event.data.step]: { facts: event.data.facts, at: event.data.at } } };
      case 'StepRefused':
        return failing({ ...state, refused: [...state.refused, event.data.step] }, refuse(event.data.refused, { ...event.data.because, step: event.data.step }), event.data.at);
      case 'StepOverdue':
        return failing(state, refuse('saga.step_overdue', { step: event.data.step }), event.data.at);
      case 'SagaCancelled':
        return failing(state, refuse('saga.cancelled', { because: event.data.because }), event.data.at);
      case 'UndoAnswered':
        return { ...state, undone: [...state.undone, event.data.step], undoingSince: event.data.at };
      case 'UndoOverdue':
        return { ...state, owed: toUndo(saga, state), undoingSince: event.data.at };
      case 'SagaEnded':
        return { ...state, status: 'ended', outcome: event.data.outcome, owed: event.data.owed };
    }
  };

  const failing = (state: Begun<I>, why: Refusal, at: number): SagaState<I> => {
    const owed = saga.cleanUp === true ? state.steps.flatMap(({ name }) => (state.done[name] === undefined ? [name] : [])) : [];
    return { ...state, status: 'undoing', why: state.why ?? why, undoingSince: at, owed };
  };

  /** What one answer comes to. One that nobody waits for any more comes to nothing. */
  const take = ({ step, phase, answer }: StepAnswer, state: SagaState<I>, at: number): readonly SagaEvent[] => {
    if (state.status === 'absent' || state.status === 'ended') return [];
    if (!outstanding(saga, state).some((one) => one.step === step && one.phase === phase)) return [];
    switch (phase) {
      case 'run': {
        const settled = isRefusal(answer) && stepOf(saga, step).settledBy?.includes(answer.refused) === true;
        if (isRefusal(answer) && !settled) return [{ type: 'StepRefused', data: { step, refused: answer.refused, because: answer.because ?? {}, at } }];
        return [{ type: 'StepAnswered', data: { step, facts: isRefusal(answer) ? {} : (answer.facts ?? {}), at } }];
      }
      // An undo that is refused found nothing to take back: receivers answer so, and a fault is no answer.
      case 'undo':
        return [{ type: 'UndoAnswered', data: { step, at } }];
      case 'end': {
        const outcome: SagaOutcome = state.status === 'running' ? 'succeeded' : state.owed.length > 0 ? 'failed' : 'compensated';
        return [{ type: 'SagaEnded', data: { outcome, owed: state.owed, why: state.why, at } }];
      }
    }
  };

  const decide = (command: SagaCommand<I>, state: SagaState<I>): Decision => {
    if (command.type === 'StartSaga') {
      if (state.status !== 'absent') return [];
      const { input, at } = command.data;
      const steps = planOf(saga, input);
      return [{ type: 'SagaStarted', data: { saga: saga.name, input: input as Facts, steps, deadlineMs: longestPathMs(saga, steps), at } }];
    }
    if (state.status === 'absent' || state.status === 'ended') return [];
    const { at } = command.data;
    switch (command.type) {
      case 'TakeAnswers': {
        const events: SagaEvent[] = [];
        let now: SagaState<I> = state;
        for (const one of command.data.answers) {
          const more = take(one, now, at);
          events.push(...more);
          now = more.reduce(evolve, now);
        }
        return events;
      }
      case 'CheckDeadlines': {
        const late = outstanding(saga, state).find((one) => one.dueAt !== null && one.dueAt <= at);
        if (late === undefined) return [];
        return [late.phase === 'undo' ? { type: 'UndoOverdue', data: { step: late.step, at } } : { type: 'StepOverdue', data: { step: late.step, at } }];
      }
      case 'CancelSaga': {
        const ending = outstanding(saga, state).some((one) => one.phase === 'end');
        return state.status !== 'running' || ending ? [] : [{ type: 'SagaCancelled', data: { because: command.data.because, at } }];
      }
    }
  };
  type Decision = readonly SagaEvent[] | Refusal;

  return { category: `saga-${saga.name}`, initial: { status: 'absent' }, decide, evolve };
};
