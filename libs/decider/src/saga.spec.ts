import { describe, expect, it } from 'vitest';
import fc from 'fast-check';
import { type Answer, isRefusal, refuse, replay } from './decider.ts';
import { deadlineMsOf, nothingToUndo, orderOf, outstanding, planOf, type Saga, type SagaCommand, sagaDecider, type SagaEvent, type SagaState, type Step, underWay } from './saga.ts';
import { sequence, violationsOf } from './saga-property.ts';
import { scenarioOf } from './scenario.ts';

interface Trip { readonly guests: number; readonly breakfast: boolean }
type Order = { readonly what: string; readonly facts?: unknown };

const book = (what: string, more: Partial<Step<Trip, Order>> = {}): Step<Trip, Order> =>
  ({ deadlineMs: 1_000, run: () => ({ what: `book ${what}` }), undo: () => ({ what: `cancel ${what}` }), ...more });

/** hotel ─┬─▶ dinner ─▶ toast;  train;  breakfast after the hotel, if wanted. */
const trip: Saga<Trip, Order> = {
  name: 'trip',
  steps: {
    train: book('train'),
    hotel: book('hotel', { deadlineMs: 2_000, undoDeadlineMs: 500 }),
    breakfast: book('breakfast', { after: ['hotel'], run: ({ breakfast }) => (breakfast ? { what: 'book breakfast' } : undefined) }),
    dinner: book('dinner', { after: ['hotel'], moreMs: ({ guests }) => guests * 100, run: (_, facts) => ({ what: 'book dinner', facts: facts['hotel'] }) }),
    toast: book('toast', { after: ['train', 'dinner'], undo: nothingToUndo('it is drunk') }),
  },
  done: () => ({ what: 'done' }),
  failed: (_, why, owed) => ({ what: `failed: ${why.refused}${owed.length > 0 ? `, owed: ${owed.join(' ')}` : ''}` }),
};
const decider = sagaDecider(trip);
const input: Trip = { guests: 2, breakfast: false };
const given = scenarioOf(decider, (actual, expected) => { expect(actual).toEqual(expected); });

const told = (...commands: SagaCommand<Trip>[]): SagaState<Trip> => replay(decider, historyOf(...commands));
const historyOf = (...commands: SagaCommand<Trip>[]): readonly SagaEvent[] => {
  const history: SagaEvent[] = [];
  for (const command of commands) {
    const decision = decider.decide(command, replay(decider, history));
    if (isRefusal(decision)) throw new Error(decision.refused);
    history.push(...decision);
  }
  return history;
};
const start = (at = 0): SagaCommand<Trip> => ({ type: 'StartSaga', data: { input, at } });
const answer = (step: string, at: number, given: Answer = { version: 1 }, phase: 'run' | 'undo' | 'end' = 'run'): SagaCommand<Trip> => ({ type: 'TakeAnswers', data: { answers: [{ step, phase, answer: given }], at } });
const look = (at: number): SagaCommand<Trip> => ({ type: 'CheckDeadlines', data: { at } });
const cancel = (at: number): SagaCommand<Trip> => ({ type: 'CancelSaga', data: { because: 'rain', at } });
const sends = (state: SagaState<Trip>): readonly string[] => outstanding(trip, state).map(({ command }) => command.what);

describe('A saga', () => {
  it('sends what waits for nothing, and the rest as soon as what it needs is answered', () => {
    expect(sends(told(start()))).toEqual(['book train', 'book hotel']);
    expect(sends(told(start(), answer('hotel', 5)))).toEqual(['book train', 'book dinner']);
    expect(sends(told(start(), answer('hotel', 5), answer('dinner', 6)))).toEqual(['book train']);
    expect(sends(told(start(), answer('hotel', 5), answer('dinner', 6), answer('train', 7)))).toEqual(['book toast']);
  });

  it('hands the facts of a step to those behind it', () => {
    const [, dinner] = outstanding(trip, told(start(), answer('hotel', 5, { version: 1, facts: { room: 12 } })));
    expect(dinner?.command.facts).toEqual({ room: 12 });
  });

  it('has no step that has nothing to do, and what waits for it waits for what it would have waited for', () => {
    const walk = { ...trip, steps: { ...trip.steps, walk: book('walk', { after: ['breakfast', 'hotel'] }) } };
    const planned = (breakfast: boolean): unknown => planOf(walk, { ...input, breakfast }).map(({ name, after }) => [name, ...after]);
    expect(planned(true)).toEqual([['train'], ['hotel'], ['breakfast', 'hotel'], ['dinner', 'hotel'], ['toast', 'train', 'dinner'], ['walk', 'breakfast', 'hotel']]);
    expect(planned(false)).toEqual([['train'], ['hotel'], ['dinner', 'hotel'], ['toast', 'train', 'dinner'], ['walk', 'hotel']]);
    expect(outstanding(trip, told(start(), answer('hotel', 5))).map(({ step }) => step)).not.toContain('breakfast');
  });

  it('records its plan, with the longest path of deadlines there and the sum of those back', () => {
    const [started] = historyOf(start());
    expect(started?.data).toMatchObject({ saga: 'trip', deadlineMs: 2_000 + 1_200 + 1_000 + (1_000 + 500 + 1_000) });
    expect(deadlineMsOf(trip, { ...input, guests: 0 })).toBe(2_000 + 1_000 + 1_000 + 2_500);
  });

  it('tells its owner when all is answered, and ends when that is', () => {
    const all = [start(), answer('train', 1), answer('hotel', 2), answer('dinner', 3), answer('toast', 4)];
    expect(outstanding(trip, told(...all))).toEqual([{ step: 'end', phase: 'end', command: { what: 'done' }, cancels: [], dueAt: null, since: 4 }]);
    expect(historyOf(...all, answer('end', 9, { version: 1 }, 'end')).at(-1)).toEqual({ type: 'SagaEnded', data: { outcome: 'succeeded', owed: [], why: null, at: 9 } });
  });

  it('is started once', () => given(...historyOf(start())).when(start(9)).then());

  it('takes an answer once, and none that nobody waits for', () => {
    given(...historyOf(start(), answer('train', 1))).when(answer('train', 2)).then();
    given(...historyOf(start())).when(answer('toast', 2)).then();
    given(...historyOf(start())).when(answer('train', 2, { version: 1 }, 'undo')).then();
    given(...historyOf(start())).when(answer('end', 2, { version: 1 }, 'end')).then();
    given().when(answer('train', 2)).then();
  });
});

describe('A saga that cannot go on', () => {
  it('takes back what it did in reverse, one after another, and not what was refused', () => {
    const refused = [start(), answer('train', 1), answer('hotel', 2), answer('dinner', 3, refuse('dinner.full', { seats: 0 }))];
    expect(sends(told(...refused))).toEqual(['cancel hotel']);
    expect(sends(told(...refused, answer('hotel', 4, { version: 1 }, 'undo')))).toEqual(['cancel train']);
    const undone = [...refused, answer('hotel', 4, { version: 1 }, 'undo'), answer('train', 5, { version: 1 }, 'undo')];
    expect(sends(told(...undone))).toEqual(['failed: dinner.full']);
    expect(historyOf(...undone, answer('end', 6, { version: 1 }, 'end')).at(-1)?.data).toEqual({ outcome: 'compensated', owed: [], why: { refused: 'dinner.full', because: { seats: 0, step: 'dinner' } }, at: 6 });
  });

  it('takes back a refused step too, when it may have been done nevertheless', () => {
    const careful: Saga<Trip, Order> = { ...trip, steps: { ...trip.steps, dinner: { ...trip.steps['dinner'] as Step<Trip, Order>, undoRefused: true } } };
    const state = replay(sagaDecider(careful), historyOf(start(), answer('train', 1), answer('hotel', 2), answer('dinner', 3, refuse('dinner.full'))));
    expect(outstanding(careful, state).map(({ command }) => command.what)).toEqual(['cancel dinner']);
  });

  it('takes back what is overdue or still on its way as if it had happened', () => {
    expect(sends(told(start(), answer('hotel', 2), look(1_002)))).toEqual(['cancel dinner']);
    expect(historyOf(start(), answer('hotel', 2), look(1_002)).at(-1)).toEqual({ type: 'StepOverdue', data: { step: 'train', at: 1_002 } });
    expect(underWay(trip, told(start(), answer('hotel', 2), look(1_002))).map(({ step }) => step)).toEqual(['train', 'dinner']);
    expect(underWay(trip, told(start()))).toEqual([]);
  });

  it('counts a deadline from when the step could be sent, with what its input asks for on top', () => {
    expect(outstanding(trip, told(start(100), answer('hotel', 500))).map(({ step, dueAt }) => [step, dueAt])).toEqual([['train', 1_100], ['dinner', 500 + 1_200]]);
    given(...historyOf(start(100), answer('hotel', 500), answer('train', 600))).when(look(1_699)).then();
    given(...historyOf(start(100), answer('hotel', 500), answer('train', 600))).when(look(1_700)).then({ type: 'StepOverdue', data: { step: 'dinner', at: 1_700 } });
  });

  it('cancels with each undo its own step, and those behind it that have none', () => {
    const [undo] = outstanding(trip, told(start(), answer('train', 1), answer('hotel', 2), answer('dinner', 3), cancel(4)));
    expect(undo).toMatchObject({ step: 'dinner', phase: 'undo', cancels: ['dinner', 'toast'] });
  });

  it('takes a refused undo for one that found nothing', () => {
    const state = told(start(), answer('train', 1), cancel(2), answer('hotel', 3, refuse('hotel.no_such_booking'), 'undo'));
    expect(sends(state)).toEqual(['cancel train']);
  });

  it('does not take the answer of a step that it is taking back', () => given(...historyOf(start(), cancel(2))).when(answer('train', 3)).then());

  it('owes everything from an overdue undo on, and tries none of what is behind it', () => {
    const silent = [start(), answer('train', 1), answer('hotel', 2), answer('dinner', 3), cancel(4), look(1_004)];
    expect(historyOf(...silent).at(-1)).toEqual({ type: 'UndoOverdue', data: { step: 'dinner', at: 1_004 } });
    expect(sends(told(...silent))).toEqual(['failed: saga.cancelled, owed: dinner hotel train']);
    expect(historyOf(...silent, answer('end', 1_005, { version: 1 }, 'end')).at(-1)?.data).toMatchObject({ outcome: 'failed', owed: ['dinner', 'hotel', 'train'] });
  });

  it('gives an undo its own time, from the answer before it', () => {
    const state = told(start(), answer('train', 1), answer('hotel', 2), cancel(4), answer('dinner', 300, { version: 1 }, 'undo'));
    expect(outstanding(trip, state)).toMatchObject([{ step: 'hotel', phase: 'undo', dueAt: 800 }]);
  });

  it('keeps the first reason', () => {
    const state = told(start(), answer('train', 1, refuse('train.full')), look(5_000));
    expect(state.status === 'absent' ? null : state.why).toEqual(refuse('train.full', { step: 'train' }));
  });
});

describe('Cancelling a saga', () => {
  it('takes back what is under way', () => given(...historyOf(start())).when(cancel(3)).then({ type: 'SagaCancelled', data: { because: 'rain', at: 3 } }));
  it('does nothing to one that was never started', () => given().when(cancel(3)).then());
  it('does nothing once all steps are answered: the owner hears of success', () =>
    given(...historyOf(start(), answer('train', 1), answer('hotel', 2), answer('dinner', 3), answer('toast', 4))).when(cancel(5)).then());
  it('does nothing to one that turned back already', () => given(...historyOf(start(), cancel(3))).when(cancel(4)).then());
  it('does nothing to one that has ended', () => {
    const ended = historyOf(start(), cancel(1), answer('hotel', 2, { version: 1 }, 'undo'), answer('train', 3, { version: 1 }, 'undo'), answer('end', 4, { version: 1 }, 'end'));
    expect(ended.at(-1)?.type).toBe('SagaEnded');
    given(...ended).when(cancel(5)).then();
    given(...ended).when(look(1e9)).then();
    given(...ended).when(start(6)).then();
    expect(outstanding(trip, replay(decider, ended))).toEqual([]);
  });
});

describe('A clean-up', () => {
  const tidy: Saga<Trip, Order> = {
    ...trip, name: 'tidy', cleanUp: true,
    steps: { bed: book('bed', { settledBy: ['bed.gone'] }), room: book('room', { after: ['bed'] }), key: book('key', { after: ['room'] }) },
  };
  const own = sagaDecider(tidy);
  const after = (...commands: SagaCommand<Trip>[]): SagaState<Trip> => {
    let state: SagaState<Trip> = own.initial;
    for (const command of commands) for (const event of own.decide(command, state) as readonly SagaEvent[]) state = own.evolve(state, event);
    return state;
  };
  const says = (state: SagaState<Trip>): readonly string[] => outstanding(tidy, state).map(({ command }) => command.what);

  it('undoes nothing and owes what it did not do', () => expect(says(after(start(), answer('bed', 1), look(1_001)))).toEqual(['failed: saga.step_overdue, owed: room key']));
  it('owes a refused step and all behind it', () => expect(says(after(start(), answer('bed', 1), answer('room', 2, refuse('room.locked'))))).toEqual(['failed: room.locked, owed: room key']));
  it('takes a refusal for done that says so', () => expect(says(after(start(), answer('bed', 1, refuse('bed.gone'))))).toEqual(['book room']));
});

describe('The table of a saga', () => {
  it('is walked in an order in which each step comes after what it needs', () => expect(orderOf(trip)).toEqual(['train', 'hotel', 'breakfast', 'dinner', 'toast']));
  it('may have neither a circle nor a hole', () => {
    const circle: Saga<Trip, Order> = { ...trip, steps: { a: book('a', { after: ['b'] }), b: book('b', { after: ['a'] }) } };
    expect(() => orderOf(circle)).toThrow('wait for each other');
    expect(() => orderOf({ ...trip, steps: { a: book('a', { after: ['nowhere'] }) } })).toThrow('no step nowhere');
  });
});

describe('Everything or nothing, and nothing twice', () => {
  const worldOf = (seed: number, input: Trip, isRemote = (_: string): boolean => false) => ({ input, random: sequence(seed), factsOf: () => ({ room: 12 }), isRemote });

  it('whatever happens to a trip', () => {
    const bad: string[] = [];
    for (let seed = 1; seed <= 2_000; seed++) for (const violation of violationsOf(trip, worldOf(seed, { guests: seed % 3, breakfast: seed % 2 === 0 }, () => seed % 2 === 1))) bad.push(`${String(seed)}: ${violation}`);
    expect(bad).toEqual([]);
  });

  it('for any table', () => {
    const table = fc.array(fc.record({ after: fc.array(fc.nat(5), { maxLength: 2 }), undo: fc.boolean(), empty: fc.boolean(), undoRefused: fc.boolean() }), { minLength: 1, maxLength: 6 });
    fc.assert(fc.property(table, fc.boolean(), fc.nat(), (rows, cleanUp, seed) => {
      const steps = Object.fromEntries(rows.map(({ after, undo, empty, undoRefused }, index) => [`s${String(index)}`, {
        ...book(`s${String(index)}`), deadlineMs: 1_000, after: [...new Set(after.filter((at) => at < index))].map((at) => `s${String(at)}`), undoRefused,
        ...(empty ? { run: () => undefined } : {}),
        // What has no undo of its own must stand on something that takes it with it, or be harmless: here, the first.
        ...(undo || after.filter((at) => at < index).length === 0 ? {} : { undo: nothingToUndo('goes with what it stands on') }),
      } satisfies Step<Trip, Order>]));
      expect(violationsOf({ ...trip, steps, cleanUp }, worldOf(seed, input))).toEqual([]);
    }), { numRuns: 500 });
  });

  it('is not kept by a saga that undoes in the order of its steps: the property can fail', () => {
    const found = Array.from({ length: 2_000 }, (_, seed) => violationsOf({ ...trip, undoForward: true }, worldOf(seed, input))).find((violations) => violations.length > 0);
    expect(found?.[0]).toContain('is taken back while');
  });
});
