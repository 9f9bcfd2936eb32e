/* What every log promises, asked of each store alike. */
import { refuse } from '@chronovirt/decider/decider';
import { beforeEach, describe, expect, it } from 'vitest';
import { commandIdOf, newCommandId } from './command-id.ts';
import { CommandHandler, keyReused } from './handle.ts';
import type { EventLog } from './log.ts';
import { adding, counter, metaOf } from './testing-counter.ts';

/** `make` gives a log that may hold other streams; two calls give two processes on the same log where the store has processes. */
export const promisesOfALog = (name: string, make: () => EventLog): void => {
  describe(`the log in ${name}`, () => {
    let log: EventLog;
    let stream: string;
    let streams = 0;
    beforeEach(() => {
      log = make();
      stream = `counter-${name}_${String(++streams)}`;
    });

    it('gives positions without gaps and versions from 1', async () => {
      const head = await log.head();
      const first = await log.append(adding(stream, 0, 2));
      const second = await log.append(adding(stream, 2, 1));
      if (first.kind !== 'appended' || second.kind !== 'appended') throw new Error('was refused');
      expect([...first.events, ...second.events].map(({ position, version }) => [position, version])).toEqual([[head + 1, 1], [head + 2, 2], [head + 3, 3]]);
      expect(await log.head()).toBe(head + 3);
    });

    it('reads back what it appended, word for word', async () => {
      const head = await log.head();
      const meta = { ...metaOf(newCommandId()), operationId: undefined, traceparent: '00-ä€𐍈-"\\' };
      const outcome = await log.append(adding(stream, 0, 2, { note: 'ä€𐍈 "\\\n\u2028', meta }));
      const read = await log.read(head, 10);
      expect(outcome).toEqual({ kind: 'appended', events: read });
      expect(read[0]?.data).toEqual({ by: 1, note: 'ä€𐍈 "\\\n\u2028' });
    });

    it('refuses a stale version, for events and for none', async () => {
      await log.append(adding(stream, 0));
      const head = await log.head();
      expect(await log.append(adding(stream, 0))).toEqual({ kind: 'conflict' });
      expect(await log.append(adding(stream, 2))).toEqual({ kind: 'conflict' });
      const refusal = adding(stream, 0, 0, { answer: refuse('counter.full') });
      expect(await log.append(refusal)).toEqual({ kind: 'conflict' });
      expect(await log.answered(refusal.commandId)).toBeUndefined();
      expect(await log.append({ ...refusal, expected: 1 })).toEqual({ kind: 'appended', events: [] });
      expect(await log.head()).toBe(head);
    });

    it('answers a command once, and gives that answer again', async () => {
      const append = adding(stream, 0, 1, { answer: { version: 1, facts: { total: 1 } }, requestHash: 'a'.repeat(64) });
      await log.append(append);
      const head = await log.head();
      const answered = { answer: append.answer, requestHash: 'a'.repeat(64) };
      expect(await log.append(append)).toEqual({ kind: 'answered', ...answered });
      expect(await log.append({ ...append, stream: `${stream}other`, answer: { version: 9 } })).toEqual({ kind: 'answered', ...answered });
      expect(await log.answered(append.commandId)).toEqual(answered);
      expect(await log.head()).toBe(head);
    });

    it('settles equal commands that come at once: one is obeyed, the others get its answer', async () => {
      const append = adding(stream, 0);
      const outcomes = await Promise.all([append, append, append].map((one) => log.append(one)));
      expect(outcomes.map(({ kind }) => kind).sort()).toEqual(['answered', 'answered', 'appended']);
    });

    it('lets one of two win that decided on the same version, whatever stands between them', async () => {
      const outcomes = await Promise.all([log.append(adding(stream, 0, 2)), log.append(adding(`${stream}x`, 0)), log.append(adding(stream, 0)), log.append(adding(stream, 2))]);
      expect(outcomes.map(({ kind }) => kind)).toEqual(['appended', 'appended', 'conflict', expect.stringMatching(/conflict|appended/)]);
    });

    it('answers a command beforehand', async () => {
      const commandId = newCommandId();
      expect(await log.answer(commandId, refuse('command.cancelled'), metaOf(commandId))).toEqual({ kind: 'appended', events: [] });
      expect(await log.append(adding(stream, 0, 1, { commandId }))).toMatchObject({ kind: 'answered', answer: refuse('command.cancelled') });
      expect(await log.answer(commandId, { version: 3 }, metaOf(commandId))).toMatchObject({ kind: 'answered', answer: refuse('command.cancelled') });
      expect((await log.load(stream, counter)).version).toBe(0);
    });

    it('folds a stream of any length', async () => {
      for (let version = 0; version < 1_200; version += 400) await log.append({ ...adding(stream, version, 400), events: Array.from({ length: 400 }, () => ({ type: 'Added', data: { by: 1, note: '' } })) });
      expect(await make().load(stream, counter)).toEqual({ state: { total: 1_200, notes: [] }, version: 1_200 });
    });

    describe('behind the command handler', () => {
      const add = (by: number, given: { id?: string; cancels?: readonly string[]; requestHash?: string } = {}) =>
        ({ id: given.id ?? newCommandId(), stream, command: { type: 'Add' as const, data: { by } }, cancels: given.cancels ?? [], meta: { actor: 'system:test' }, requestHash: given.requestHash });

      it('decides, records and answers with facts', async () => {
        const handler = new CommandHandler(log);
        expect((await handler.handle(counter, add(4))).answer).toEqual({ version: 1, facts: { total: 4 } });
        expect((await handler.handle(counter, add(7))).answer).toEqual(refuse('counter.full', { total: 4 }));
        expect((await handler.handle(counter, add(0))).answer).toEqual({ version: 1, facts: { total: 4 } });
      });

      it('remembers a refusal, even when it could be obeyed now', async () => {
        const handler = new CommandHandler(log);
        const id = newCommandId();
        expect((await handler.handle(counter, add(11, { id }))).answer).toMatchObject({ refused: 'counter.full' });
        expect((await handler.handle(counter, add(1, { id }))).answer).toMatchObject({ refused: 'counter.full' });
        expect((await log.load(stream, counter)).version).toBe(0);
      });

      it('loses nothing when two processes race for a stream', async () => {
        const handlers = [new CommandHandler(make()), new CommandHandler(make())];
        const answers = await Promise.all(Array.from({ length: 16 }, (_, index) => (handlers[index % 2] ?? new CommandHandler(log)).handle(counter, add(1))));
        const obeyed = answers.filter(({ answer }) => 'version' in answer);
        expect(obeyed).toHaveLength(10);
        expect(new Set(obeyed.map(({ answer }) => 'version' in answer && answer.version)).size).toBe(10);
        expect((await make().load(stream, counter)).state.total).toBe(10);
      });

      it('cancels before it reads: what the cancelled command did before is seen, and it does nothing after', async () => {
        const handler = new CommandHandler(log);
        const [early, late] = [newCommandId(), newCommandId()];
        await handler.handle(counter, add(3, { id: early }));
        const cancelling = await handler.handle(counter, add(1, { cancels: [early, late] }));
        expect(cancelling.answer).toEqual({ version: 2, facts: { total: 4 } });
        expect((await handler.handle(counter, add(5, { id: late }))).answer).toEqual(refuse('command.cancelled'));
        expect((await handler.earlier({ id: early }))).toEqual({ version: 1, facts: { total: 3 } });
      });

      it('tells without storing where it was asked to, and then on what stands in the log now', async () => {
        const [handler, other] = [new CommandHandler(log), new CommandHandler(make())];
        const question = { ...add(5), store: 'events' as const };
        await handler.handle(counter, add(1));
        // The other process makes it impossible; what the first one kept would still allow it.
        await other.handle(counter, add(9));
        expect((await handler.handle(counter, question)).answer).toEqual(refuse('counter.full', { total: 10 }));
        expect(await log.answered(question.id)).toBeUndefined();
        expect((await handler.handle(counter, { ...question, command: { type: 'Add', data: { by: 0 } } })).appended).toEqual([]);
        expect(await log.answered(question.id)).toBeUndefined();
        const obeyed = await handler.handle(counter, { ...question, stream: `${stream}more` });
        expect(obeyed.appended).toHaveLength(1);
        expect(await log.answered(question.id)).toMatchObject({ answer: { version: 1 } });
      });

      it('refuses a key that is used for another request', async () => {
        const handler = new CommandHandler(log);
        const id = commandIdOf(`user_1:${stream}`);
        await handler.handle(counter, add(1, { id, requestHash: 'a'.repeat(64) }));
        expect((await handler.handle(counter, add(2, { id, requestHash: 'b'.repeat(64) }))).answer).toEqual(keyReused);
        expect((await handler.handle(counter, add(1, { id, requestHash: 'a'.repeat(64) }))).answer).toMatchObject({ version: 1 });
      });

      it('stores a refusal that no decider was asked for', async () => {
        const handler = new CommandHandler(log);
        const id = newCommandId();
        expect((await handler.refuse({ id, meta: { actor: 'user_1' } }, refuse('image.unknown'))).answer).toEqual(refuse('image.unknown'));
        expect(await handler.earlier({ id })).toEqual(refuse('image.unknown'));
        expect((await handler.handle(counter, add(1, { id }))).answer).toEqual(refuse('image.unknown'));
      });
    });
  });
};
