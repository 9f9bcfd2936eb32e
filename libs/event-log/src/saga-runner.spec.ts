import type { CommandEnvelope, Outgoing } from '@chronovirt/contracts/command';
import { type Answer, type Facts, refuse } from '@chronovirt/decider/decider';
import { nothingToUndo, type Saga, type SagaState } from '@chronovirt/decider/saga';
import { beforeEach, describe, expect, it } from 'vitest';
import { commandIdOf } from './command-id.ts';
import { CommandHandler } from './handle.ts';
import { MemoryLog } from './memory-log.ts';
import { type AnySaga, SagaRunner } from './saga-runner.ts';

const to = (type: string, data: Facts = {}): Outgoing => ({ to: 'ipam', target: 'subnet_1', type, data });

const trip: AnySaga = {
  name: 'trip',
  steps: {
    room: { deadlineMs: 5_000, run: () => to('BookRoom'), undo: () => to('FreeRoom') },
    seat: { after: ['room'], deadlineMs: 5_000, run: (_input, facts) => to('BookSeat', { room: facts['room']?.['number'] }), undo: () => to('FreeSeat') },
    wave: { after: ['seat'], deadlineMs: 5_000, run: () => to('Wave'), undo: nothingToUndo('a greeting cannot be taken back') },
  },
  done: () => to('Done'),
  failed: (_input, why, owed) => to('Failed', { why: why.refused, owed }),
} satisfies Saga<Facts, Outgoing>;

const meta = { actor: 'user_1', operationId: 'op_1' } as const;

let now: number;
let log: MemoryLog;
let sent: CommandEnvelope[];
let ended: SagaState<Facts>[];
const runnerOf = (): SagaRunner => new SagaRunner([trip], {
  handler: new CommandHandler(log), send: (envelope) => void sent.push(envelope), now: () => now, commandIdOf, ended: ({ state }) => void ended.push(state),
});
beforeEach(() => {
  now = 1_000;
  log = new MemoryLog(() => now);
  sent = [];
  ended = [];
});

const types = (): readonly string[] => sent.map(({ type }) => type);
const answerLast = (runner: SagaRunner, answer: Answer = { version: 1 }): Promise<void> => runner.take(sent.at(-1)?.id ?? '', answer);

describe('a saga runner', () => {
  it('sends each step when it can be sent, with the facts of those before it', async () => {
    const runner = runnerOf();
    await runner.start('trip', 'op_1', {}, meta);
    expect(types()).toEqual(['BookRoom']);
    await answerLast(runner, { version: 1, facts: { number: 7 } });
    expect(sent.at(-1)).toMatchObject({ type: 'BookSeat', data: { room: 7 }, meta, cancels: [], id: commandIdOf('saga-trip-op_1:seat:run') });
    await answerLast(runner);
    await answerLast(runner);
    await answerLast(runner);
    expect(types()).toEqual(['BookRoom', 'BookSeat', 'Wave', 'Done']);
    expect(ended).toMatchObject([{ status: 'ended', outcome: 'succeeded' }]);
    expect(runner.size).toBe(0);
  });

  it('undoes in reverse what may have happened, and says so', async () => {
    const runner = runnerOf();
    await runner.start('trip', 'op_1', {}, meta);
    await answerLast(runner);
    await answerLast(runner);
    await answerLast(runner, refuse('wave.tired'));
    await answerLast(runner);
    await answerLast(runner);
    await answerLast(runner);
    expect(types()).toEqual(['BookRoom', 'BookSeat', 'Wave', 'FreeSeat', 'FreeRoom', 'Failed']);
    expect(sent[3]?.cancels).toEqual([commandIdOf('saga-trip-op_1:seat:run'), commandIdOf('saga-trip-op_1:wave:run')]);
    expect(sent[5]?.data).toEqual({ why: 'wave.tired', owed: [] });
    expect(ended).toMatchObject([{ outcome: 'compensated' }]);
  });

  it('sends again after 1, 2, 4, 8 and 8 seconds, under the same id, until the deadline', async () => {
    const patient: AnySaga = { ...trip, steps: { room: { deadlineMs: 25_000, run: () => to('BookRoom'), undo: () => to('FreeRoom') } } };
    const runner = new SagaRunner([patient], { handler: new CommandHandler(log), send: (envelope) => void sent.push(envelope), now: () => now, commandIdOf });
    await runner.start('trip', 'op_1', {}, meta);
    const times: number[] = [];
    for (let before = sent.length; now < 25_900; now += 100) {
      await runner.tick();
      if (sent.length > before) times.push(now - 1_000);
      before = sent.length;
    }
    expect(times).toEqual([1_000, 3_000, 7_000, 15_000, 23_000]);
    expect(new Set(sent.map(({ id }) => id)).size).toBe(1);
    now = 26_000;
    await runner.tick();
    expect(types().at(-1)).toBe('FreeRoom');
  });

  it('goes on in another process, under the same ids', async () => {
    const first = runnerOf();
    await first.start('trip', 'op_1', {}, meta);
    await answerLast(first);
    const lost = sent.at(-1);
    const second = runnerOf();
    await second.resume('trip', 'op_1', meta);
    expect(sent.at(-1)).toEqual(lost);
    await answerLast(second);
    await answerLast(second);
    await answerLast(second);
    expect(ended).toMatchObject([{ outcome: 'succeeded' }]);
    // The first one hears of it when it looks.
    now += 2_000;
    await first.tick();
    expect(first.size).toBe(0);
  });

  it('records an answer once that two processes take', async () => {
    const [first, second] = [runnerOf(), runnerOf()];
    await first.start('trip', 'op_1', {}, meta);
    const { id } = sent[0] ?? { id: '' };
    await second.resume('trip', 'op_1', meta);
    await Promise.all([first.take(id, { version: 1 }), second.take(id, { version: 1 })]);
    expect(log.events.filter(({ type }) => type === 'StepAnswered')).toHaveLength(1);
  });

  it('does nothing with answers it does not wait for', async () => {
    const runner = runnerOf();
    await runner.start('trip', 'op_1', {}, meta);
    const first = sent[0]?.id ?? '';
    await runner.take(commandIdOf('of someone else'), { version: 1 });
    await runner.take(first, { version: 1 });
    const events = log.events.length;
    await runner.take(first, refuse('room.taken'));
    expect(log.events).toHaveLength(events);
  });

  it('sends again soon when a node only said "not now"', async () => {
    const runner = runnerOf();
    await runner.start('trip', 'op_1', {}, meta);
    await answerLast(runner, refuse('node.no_session'));
    expect(types()).toEqual(['BookRoom']);
    now += 250;
    await runner.tick();
    expect(types()).toEqual(['BookRoom', 'BookRoom']);
    await answerLast(runner);
    expect(types().at(-1)).toBe('BookSeat');
  });

  it('starts once, whoever asks', async () => {
    const [first, second] = [runnerOf(), runnerOf()];
    await Promise.all([first.start('trip', 'op_1', {}, meta), second.start('trip', 'op_1', { other: true }, meta), first.start('trip', 'op_1', {}, meta)]);
    expect(log.events.filter(({ type }) => type === 'SagaStarted')).toHaveLength(1);
    expect(new Set(sent.map(({ id }) => id)).size).toBe(1);
  });

  it('cancels what runs, and leaves alone what is nearly over', async () => {
    const runner = runnerOf();
    await runner.start('trip', 'op_1', {}, meta);
    await answerLast(runner);
    await runner.cancel('trip', 'op_1', 'deleted', { ...meta, operationId: 'op_2' });
    expect(types().at(-1)).toBe('FreeSeat');
    await runner.start('trip', 'op_3', {}, meta);
    for (let step = 0; step < 3; step++) await answerLast(runner);
    expect(types().at(-1)).toBe('Done');
    await runner.cancel('trip', 'op_3', 'deleted', { ...meta, operationId: 'op_4' });
    await answerLast(runner);
    expect(ended.at(-1)).toMatchObject({ outcome: 'succeeded' });
  });
});

describe('a saga runner that is let down', () => {
  it('answers in the log what is under way to services before it sends an undo', async () => {
    const runner = runnerOf();
    await runner.start('trip', 'op_1', {}, meta);
    await answerLast(runner);
    await runner.cancel('trip', 'op_1', 'rain', meta);
    expect(sent.at(-1)?.type).toBe('FreeSeat');
    // However late BookSeat comes, and whether or not the undo ever arrives.
    expect(await log.answered(commandIdOf('saga-trip-op_1:seat:run'))).toMatchObject({ answer: refuse('command.cancelled') });
    expect(await log.answered(commandIdOf('saga-trip-op_1:room:run'))).toBeUndefined();
  });

  it('does not count as driven a saga of which it could send nothing', async () => {
    const runner = runnerOf();
    log.load = () => Promise.reject(new Error('the log does not answer'));
    await expect(runner.start('trip', 'op_1', {}, meta)).rejects.toThrow('does not answer');
    await expect(runner.resume('trip', 'op_2', meta)).rejects.toThrow('does not answer');
    expect([runner.size, runner.isDriving('trip', 'op_1'), runner.isDriving('trip', 'op_2')]).toEqual([0, false, false]);
  });

  it('moves the others when one cannot be moved', async () => {
    const runner = runnerOf();
    await runner.start('trip', 'op_1', {}, meta);
    await runner.start('trip', 'op_2', {}, meta);
    const load = log.load.bind(log);
    log.load = (stream, decider) => (stream === 'saga-trip-op_1' ? Promise.reject(new Error('cannot be read')) : load(stream, decider));
    now += 1_000;
    sent = [];
    await expect(runner.tick()).rejects.toThrow('1 sagas could not be moved');
    expect(sent.map(({ id }) => id)).toEqual([commandIdOf('saga-trip-op_2:room:run')]);
  });

  it('sends under its own name what another saga owed, and takes back what that one names', async () => {
    const settle: AnySaga = { name: 'settle', cleanUp: true, done: () => to('Done'), failed: () => to('Failed'), steps: {
      room: { deadlineMs: 5_000, run: () => ({ ...to('FreeRoom'), as: 'saga-trip-op_1:room:undo', cancels: ['saga-trip-op_1:room:run'] }), undo: nothingToUndo('it is an undo') },
    } };
    const runner = new SagaRunner([settle], { handler: new CommandHandler(log), send: (envelope) => void sent.push(envelope), now: () => now, commandIdOf });
    await runner.start('settle', 'op_9', {}, meta);
    expect(sent).toMatchObject([{ id: commandIdOf('saga-trip-op_1:room:undo'), cancels: [commandIdOf('saga-trip-op_1:room:run')] }]);
    await answerLast(runner);
    expect(types()).toEqual(['FreeRoom', 'Done']);
  });
});
