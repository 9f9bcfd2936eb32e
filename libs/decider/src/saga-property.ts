/*
 * The one property of every saga: whatever fails, is refused, repeated, reordered or never answered, it
 * acquires everything or nothing, and decides nothing twice.
 *
 * A world is made of the saga's own decider, receivers that remember their answers, and a bag of messages
 * from which anything is taken, in any order, once, twice or never. The saga is driven as the runner drives
 * it: what is outstanding is computed and sent, what comes back is taken. At the end the bag is emptied, since
 * what is late must do no harm either. A violation is a sentence; no violation is the empty list.
 */
import { type Answer, type Facts, isRefusal, refuse } from './decider.ts';
import { outstanding, type Saga, sagaDecider, type SagaEvent, type SagaState, underWay } from './saga.ts';

export interface SagaWorld<I> {
  readonly input: I;
  /** 0 to below 1. */
  readonly random: () => number;
  /** What a step answers, so that later steps find the facts they need. */
  readonly factsOf: (step: string) => Facts;
  /** Steps whose receiver does not ask the log: cancelling reaches it only with the undo. */
  readonly isRemote: (step: string) => boolean;
}

interface Message {
  readonly id: string;
  readonly step: string;
  readonly phase: 'run' | 'undo' | 'end';
  readonly cancels: readonly string[];
  readonly answer?: Answer;
}

const ACTIONS = 120;

export const violationsOf = <I extends object, C>(saga: Saga<I, C>, { input, random, factsOf, isRemote }: SagaWorld<I>): readonly string[] => {
  const violations: string[] = [];
  const decider = sagaDecider(saga);
  const names = Object.keys(saga.steps);
  const chance = (probability: number): boolean => random() < probability;
  let state: SagaState<I> = decider.initial;
  let now = 1_000;
  const history: SagaEvent[] = [];
  const answers = new Map<string, Answer>();
  /** Steps that are done and not taken back; how often each was. */
  const held = new Set<string>();
  const times = new Map<string, number>();
  let ends = 0;
  let bag: Message[] = [];
  // What this world is like: seldom all at once.
  const refusing = chance(0.5) ? 0.15 : 0;
  const losing = chance(0.5) ? 0.3 : 0;
  const repeating = chance(0.5) ? 0.3 : 0;
  const hurried = chance(0.5) ? 0.25 : 0.02;
  const silent = chance(0.3) ? names[Math.floor(random() * names.length)] : undefined;
  const cancelling = chance(0.3) ? 0.03 : 0;

  const obey = (command: Parameters<typeof decider.decide>[0]): void => {
    const decision = decider.decide(command, state);
    if (isRefusal(decision)) return void violations.push(`refuses ${command.type}: ${decision.refused}`);
    for (const event of decision) {
      history.push(event);
      state = decider.evolve(state, event);
    }
    if (state.status === 'undoing') for (const { step } of underWay(saga, state)) if (!isRemote(step) && !answers.has(`${step}:run`)) answers.set(`${step}:run`, refuse('command.cancelled'));
  };

  const receive = ({ id, step, phase, cancels }: Message): Answer => {
    const earlier = answers.get(id);
    if (earlier !== undefined) return earlier;
    for (const cancelled of cancels) if (!answers.has(cancelled)) answers.set(cancelled, refuse('command.cancelled'));
    const answer = decide(step, phase);
    answers.set(id, answer);
    return answer;
  };

  const decide = (step: string, phase: Message['phase']): Answer => {
    switch (phase) {
      case 'end':
        ends += 1;
        return { version: 1 };
      case 'run':
        // A clean-up's steps are asked again another day; nothing of them is impossible.
        if (saga.cleanUp !== true && chance(refusing)) return refuse('test.refused');
        for (const earlier of saga.steps[step]?.after ?? []) if (!held.has(earlier) && !isEmpty(earlier)) violations.push(`${step} is done before ${earlier}`);
        held.add(step);
        times.set(step, (times.get(step) ?? 0) + 1);
        return { version: 1, facts: factsOf(step) };
      case 'undo':
        for (const later of held) if (later !== step && follows(later, step) && typeof saga.steps[later]?.undo === 'function') violations.push(`${step} is taken back while ${later} stands on it`);
        // Whatever stands on it and has no undo of its own goes with it.
        for (const later of [...held]) if (later === step || (follows(later, step) && typeof saga.steps[later]?.undo !== 'function')) held.delete(later);
        return { version: 2 };
    }
  };

  const follows = (later: string, earlier: string): boolean => (saga.steps[later]?.after ?? []).some((name) => name === earlier || follows(name, earlier));
  const facts = (): Record<string, Facts | undefined> => (state.status === 'absent' ? {} : Object.fromEntries(Object.entries(state.done).map(([name, done]) => [name, done.facts])));
  /** A step that has nothing to do for this input. */
  const isEmpty = (step: string): boolean => {
    try {
      return saga.steps[step]?.run(input, facts()) === undefined;
    } catch {
      // It needs facts of steps that were not answered: it would have had something to do.
      return false;
    }
  };

  const send = (): void => {
    for (const { step, phase, cancels } of outstanding(saga, state)) {
      const message: Message = { id: `${step}:${phase}`, step, phase, cancels: cancels.map((name) => `${name}:run`) };
      if (bag.filter(({ id, answer }) => id === message.id && answer === undefined).length < 3) bag.push(message);
    }
  };

  const deliver = (keep: boolean): void => {
    const index = Math.floor(random() * bag.length);
    const message = bag[index];
    if (message === undefined) return;
    if (!keep) bag = bag.filter((_, at) => at !== index);
    if (message.answer !== undefined) {
      // Answers that came at the same moment are taken together, in any order.
      const beside = chance(0.3) ? bag.filter((other) => other !== message && chance(0.5)) : [];
      const answers = [message, ...beside].flatMap(({ step, phase, answer }) => (answer === undefined ? [] : [{ step, phase, answer }]));
      obey({ type: 'TakeAnswers', data: { answers, at: now } });
      return;
    }
    const answer = receive(message);
    if (!chance(losing)) bag.push({ ...message, answer });
  };

  obey({ type: 'StartSaga', data: { input, at: now } });
  for (let action = 0; action < ACTIONS; action++) {
    now += chance(hurried) ? 40_000 : 50;
    send();
    const unheard = silent !== undefined && bag.every(({ step, phase }) => step === silent && phase !== 'end');
    if (bag.length > 0 && !unheard) {
      if (chance(losing)) bag.splice(Math.floor(random() * bag.length), 1);
      else deliver(chance(repeating));
      if (silent !== undefined) bag = bag.filter(({ step, phase }) => step !== silent || phase === 'end' || chance(0.2));
    }
    if (chance(cancelling)) obey({ type: 'CancelSaga', data: { because: 'test', at: now } });
    if (chance(0.3)) obey({ type: 'CheckDeadlines', data: { at: now } });
    if (chance(0.2)) obey({ type: 'StartSaga', data: { input, at: now } });
  }
  // Everybody answers again, and nothing more is lost; what is overdue by now stays overdue.
  for (let action = 0; action < 400 && state.status !== 'ended'; action++) {
    now += 10;
    send();
    if (bag.length > 0) deliver(false);
    obey({ type: 'CheckDeadlines', data: { at: now } });
  }
  // And what is late comes at last.
  for (let action = 0; action < 400 && bag.length > 0; action++) deliver(false);

  const ended = history.filter((event) => event.type === 'SagaEnded');
  const final = state;
  if (final.status !== 'ended' || ended.length !== 1) return [...violations, `has not ended once, but ${String(ended.length)} times: ${final.status}`];
  if (ends !== 1) violations.push(`its owner was told ${String(ends)} times`);
  for (const [step, count] of times) if (count > 1) violations.push(`${step} was done ${String(count)} times`);
  const seen = new Set<string>();
  for (const event of history) {
    const key = `${event.type} ${'step' in event.data ? event.data.step : ''}`;
    if (seen.has(key)) violations.push(`decided twice: ${key}`);
    seen.add(key);
  }
  const missing = names.filter((name) => !held.has(name) && !isEmpty(name));
  switch (final.outcome) {
    case 'succeeded':
      if (missing.length > 0) violations.push(`succeeded without ${missing.join(', ')}`);
      break;
    case 'compensated':
      for (const step of held) if (typeof saga.steps[step]?.undo === 'function') violations.push(`compensated, and still has ${step}`);
      break;
    case 'failed': {
      if (final.owed.length === 0) violations.push('failed and owes nothing');
      // A clean-up owes what it did not do; any other owes what it may have done.
      if (saga.cleanUp === true) for (const step of missing) if (!final.owed.includes(step)) violations.push(`failed, has not done ${step}, and does not owe it`);
      if (saga.cleanUp !== true) for (const step of held) if (typeof saga.steps[step]?.undo === 'function' && !final.owed.includes(step)) violations.push(`failed, still has ${step}, and does not owe it`);
      break;
    }
    case null:
      violations.push('ended without an outcome');
  }
  return violations;
};

/** Numbers from 0 to below 1, the same for the same seed (mulberry32), so that a world that fails can be run again. */
export const sequence = (seed: number): (() => number) => {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let word = Math.imul(state ^ (state >>> 15), 1 | state);
    word = (word + Math.imul(word ^ (word >>> 7), 61 | word)) ^ word;
    return ((word ^ (word >>> 14)) >>> 0) / 4_294_967_296;
  };
};
