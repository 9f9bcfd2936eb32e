/* A small aggregate to try the log with: a counter that may not pass ten, and never changes by nothing. */
import { event, type EventTable } from '@chronovirt/contracts/event';
import { type Decider, refuse } from '@chronovirt/decider/decider';
import { z } from 'zod';
import { newCommandId } from './command-id.ts';
import type { Append, EventMeta } from './log.ts';

export type CounterCommand = { readonly type: 'Add'; readonly data: { readonly by: number } };
export type CounterEvent = { readonly type: 'Added'; readonly data: { readonly by: number; readonly note: string } };

export const counterEvents: EventTable = {
  Added: event(z.object({ by: z.int() }))
    // 2: a note came in; whoever added before had none.
    .revised(z.object({ by: z.int(), note: z.string() }), (older) => ({ ...older, note: '' })),
};

export const counter: Decider<CounterCommand, CounterEvent, { readonly total: number; readonly notes: readonly string[] }> = {
  category: 'counter',
  initial: { total: 0, notes: [] },
  decide(command, state) {
    if (command.data.by === 0) return [];
    if (state.total + command.data.by > 10) return refuse('counter.full', { total: state.total });
    return [{ type: 'Added', data: { by: command.data.by, note: '' } }];
  },
  evolve: (state, { data }) => ({ total: state.total + data.by, notes: data.note === '' ? state.notes : [...state.notes, data.note] }),
  facts: (_command, state) => ({ total: state.total }),
};

export const metaOf = (commandId: string): EventMeta => ({ commandId, actor: 'system:test' });

/** An append of `count` events; the answer is made up unless given. */
export const adding = (stream: string, expected: number, count = 1, given: Partial<Append> & { readonly note?: string } = {}): Append => {
  const { note = '', ...rest } = given;
  const commandId = rest.commandId ?? newCommandId();
  return {
    commandId, answer: { version: expected + count }, stream, expected, meta: metaOf(commandId),
    events: Array.from({ length: count }, (_, index) => ({ type: 'Added', data: { by: index + 1, note } })), ...rest,
  };
};
