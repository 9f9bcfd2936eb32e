import { type Decider, isRefusal, refuse, replay, type Facts } from './decider.ts';

/**
 * Tests of a decider as sentences: `given(history).when(command).then(events)`. History is the only
 * set-up. `equal` is the assertion of the test runner at hand (for example `(a, b) => expect(a).toEqual(b)`).
 */
export const scenarioOf =
  <C, E, S>(decider: Decider<C, E, S>, equal: (actual: unknown, expected: unknown) => void) =>
  (...history: readonly E[]) => ({
    when: (command: C) => {
      const before = replay(decider, history);
      const decision = decider.decide(command, before);
      return {
        then: (...events: readonly E[]) => { equal(decision, events); },
        thenRefused: (code: string, because?: Facts) => {
          equal(isRefusal(decision) && because === undefined ? refuse(decision.refused) : decision, refuse(code, because));
        },
        thenState: (check: (state: S) => void) => {
          equal(isRefusal(decision), false);
          check(isRefusal(decision) ? before : decision.reduce((state, event) => decider.evolve(state, event), before));
        },
        thenFacts: (facts: Facts) => {
          const after = isRefusal(decision) ? before : decision.reduce((state, event) => decider.evolve(state, event), before);
          equal(decider.facts?.(command, after), facts);
        },
      };
    },
  });
