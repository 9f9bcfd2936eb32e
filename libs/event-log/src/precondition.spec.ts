import { describe, expect, it } from 'vitest';
import { type Decider, refuse } from '@chronovirt/decider/decider';
import { commandIdOf } from './command-id.ts';
import { CommandHandler, type Handling } from './handle.ts';
import { type EventLog, SINCE_MAX } from './log.ts';
import { MemoryLog } from './memory-log.ts';
import { rehearse } from './rehearse.ts';

type Command = 'make' | 'turn' | 'look' | 'break';
type Event = { readonly type: 'Made' | 'Turned' | 'Seen'; readonly data: Record<string, never> };

/** It can be made, turned, and looked at, which changes nothing about it. */
const thing: Decider<Command, Event, 'absent' | 'there'> = {
  category: 'thing',
  initial: 'absent',
  decide(command, state) {
    if (command === 'make') return [{ type: 'Made', data: {} }];
    if (state === 'absent') return refuse('thing.not_found');
    return command === 'break' ? refuse('thing.unbreakable') : [{ type: command === 'turn' ? 'Turned' : 'Seen', data: {} }];
  },
  evolve: () => 'there',
  observations: ['Seen'],
};

const stream = 'thing-1';
const setUp = () => {
  const log = new MemoryLog(() => 0);
  let count = 0;
  const say = (command: Command, expected?: number, key?: string): Handling<Command> => {
    count += 1;
    return { id: commandIdOf(key ?? String(count)), stream, command, cancels: [], meta: { actor: 'somebody' }, expected };
  };
  const sayOn = async (on: EventLog, command: Command, expected?: number, key?: string) => (await new CommandHandler(on).handle(thing, say(command, expected, key))).answer;
  return { log, say, sayOn, told: (command: Command, expected?: number, key?: string) => sayOn(log, command, expected, key) };
};

describe('A command that names what its caller has seen', () => {
  it('is obeyed when that is what is', async () => {
    const { told } = setUp();
    await told('make');
    expect(await told('turn', 1)).toEqual({ version: 2 });
    expect(await told('turn', 2)).toEqual({ version: 3 });
  });

  it('is refused when more came since, is told what, and writes nothing', async () => {
    const { told, log } = setUp();
    await told('make');
    await told('turn');
    const refused = await told('turn', 1);
    expect(refused).toEqual({ refused: 'precondition.failed', because: { expected: 1, version: 2, since: [{ version: 2, type: 'Turned', actor: 'somebody', at: expect.any(String) }] } });
    expect(log.events).toHaveLength(2);
  });

  it('is not refused for what was merely observed, however often', async () => {
    const { told } = setUp();
    await told('make');
    for (let n = 0; n < SINCE_MAX + 5; n++) await told('look');
    expect(await told('turn', 1)).toEqual({ version: SINCE_MAX + 7 });
    // One that is no observation, among them.
    for (let n = 0; n < 3; n++) await told('look');
    expect(await told('turn', 1)).toMatchObject({ refused: 'precondition.failed', because: { since: [{ type: 'Turned', version: SINCE_MAX + 7 }] } });
  });

  it('is refused when nobody can have seen that', async () => {
    const { told } = setUp();
    await told('make');
    expect(await told('turn', 9)).toMatchObject({ refused: 'precondition.failed', because: { expected: 9, version: 1, since: [] } });
  });

  it('learns rather that there is nothing than that it changed, and rather that it changed than that it cannot be', async () => {
    const { told } = setUp();
    expect(await told('turn', 3)).toEqual({ refused: 'thing.not_found' });
    expect(await told('make', 3)).toMatchObject({ refused: 'precondition.failed' });
    await told('make');
    await told('turn');
    expect(await told('break', 1)).toMatchObject({ refused: 'precondition.failed' });
    expect(await told('break', 2)).toEqual({ refused: 'thing.unbreakable' });
  });

  it('is answered as before when it comes again, whatever it changed itself', async () => {
    const { told } = setUp();
    await told('make');
    expect(await told('turn', 1, 'once')).toEqual({ version: 2 });
    expect(await told('turn', 1, 'once')).toEqual({ version: 2 });
  });

  it('is refused when somebody writes between the comparison and the commit', async () => {
    const { log, told, sayOn } = setUp();
    await told('make');
    let raced = false;
    const racing: EventLog = Object.assign(Object.create(log) as EventLog, {
      append: async (append: Parameters<EventLog['append']>[0]) => {
        if (!raced) {
          raced = true;
          await told('turn');
        }
        return log.append(append);
      },
    });
    expect(await sayOn(racing, 'turn', 1)).toMatchObject({ refused: 'precondition.failed', because: { version: 2 } });
    expect(log.events.map(({ type }) => type)).toEqual(['Made', 'Turned']);
  });
});

describe('A rehearsal', () => {
  it('sees what it did itself and nobody else sees it', async () => {
    const { log, say, told } = setUp();
    await told('make');
    const said = await rehearse(log, async (handler) => {
      await handler.handle(thing, say('turn'));
      return (await handler.handle(thing, say('turn', 2))).answer;
    });
    expect(said).toEqual({ version: 3, rehearsal: { events: [{ stream, version: 2, type: 'Turned', data: {} }, { stream, version: 3, type: 'Turned', data: {} }] } });
    expect(log.events).toHaveLength(1);
  });

  it('does not use the command up, and of one that was obeyed says what it was answered', async () => {
    const { log, say, told } = setUp();
    await told('make');
    const asked = say('turn', 1, 'key');
    const ask = () => rehearse(log, async (handler) => (await handler.handle(thing, asked)).answer);
    const first = await ask();
    expect(await ask()).toEqual(first);
    expect(await told('turn', 1, 'key')).toEqual({ version: 2 });
    expect(await ask()).toEqual({ version: 2, rehearsal: { events: [] } });
  });

  it('cancels nothing', async () => {
    const { log, say, told } = setUp();
    await told('make');
    const cancelled = commandIdOf('later');
    await rehearse(log, async (handler) => (await handler.handle(thing, { ...say('turn'), cancels: [cancelled] })).answer);
    expect(await told('turn', undefined, 'later')).toEqual({ version: 2 });
  });
});
