import type { CommandEnvelope } from '@chronovirt/contracts/command';
import type { Answer } from '@chronovirt/decider/decider';
import { describe, expect, it } from 'vitest';
import { type Accepting, envelopeOf, idsOf, LogAway, submit, submitBatch, type SubmitPorts } from './submit.ts';

const commandId = '00000000-0000-8000-8000-000000000001';
const operationId = `op_${'1'.repeat(32)}` as const;
const envelope = envelopeOf({ commandId, operationId, actor: 'token_1', requestHash: 'a'.repeat(64), traceparent: undefined }, { to: 'scheduler', target: 'vm_1', type: 'StartVm', data: {} });
const accepted: Answer = { version: 3 };

/** Ports with a clock of their own: `at` says what is known from which millisecond on. */
const world = (at: { readonly reply?: number; readonly stored?: number; readonly answer?: Answer; readonly requestHash?: string; readonly logAwayUntil?: number; readonly busAway?: boolean }) => {
  const answer = at.answer ?? accepted;
  let now = 0;
  const waiting: { readonly until: number; readonly wake: () => void }[] = [];
  const until = (time: number): Promise<void> => new Promise((wake) => { waiting.push({ until: time, wake }); });
  const published: { readonly at: number; readonly id: string }[] = [];
  const owed: Accepting[] = [];
  const ports: SubmitPorts = {
    expect: (_envelope, withinMs) => (at.reply === undefined || at.reply > withinMs ? until(withinMs).then(() => undefined) : until(at.reply).then(() => answer)),
    publish: (sent) => { published.push({ at: now, id: sent.id }); return Promise.resolve(at.busAway !== true); },
    stored: () => now < (at.logAwayUntil ?? 0) ? Promise.reject(new Error('away')) : Promise.resolve(at.stored !== undefined && now >= at.stored ? { answer, requestHash: at.requestHash } : undefined),
    accept: (accepting) => { if (now < (at.logAwayUntil ?? 0)) return Promise.reject(new Error('away')); owed.push(accepting); return Promise.resolve(accepted); },
    wait: (ms) => until(now + ms).then(() => undefined),
    uuidFrom: (key) => `uuid of ${key}`,
  };
  /** Lets time pass, waiter by waiter, until the work is done. */
  const pass = async <T>(work: Promise<T>): Promise<T> => {
    let done = false;
    const ending = work.finally(() => { done = true; });
    ending.catch(() => undefined);
    for (let turn = 0; turn < 200; turn++) {
      for (let micro = 0; micro < 20; micro++) await Promise.resolve();
      if (done) break;
      waiting.sort((a, b) => a.until - b.until);
      const next = waiting.shift();
      if (next === undefined) break;
      now = Math.max(now, next.until);
      next.wake();
    }
    return ending;
  };
  return { ports, published, owed, pass, now: () => now };
};

describe('submitting', () => {
  it('takes the answer that comes straight back, having sent once', async () => {
    const { ports, published, owed, pass, now } = world({ reply: 4 });
    expect(await pass(submit(ports, envelope, 'start'))).toEqual({ kind: 'answered', answer: accepted });
    expect([published.length, owed.length, now()]).toEqual([1, 0, 4]);
  });

  it('looks into the log when the answer was lost on its way', async () => {
    const { ports, published, pass, now } = world({ stored: 100 });
    expect(await pass(submit(ports, envelope, 'start'))).toMatchObject({ kind: 'answered' });
    expect([published.length, now()]).toEqual([1, 300]);
  });

  it('sends again at 500 ms and 1 s, then records that it is owed', async () => {
    const { ports, published, owed, pass, now } = world({});
    expect(await pass(submit(ports, envelope, 'start'))).toEqual({ kind: 'pending' });
    expect(published.map(({ at }) => at)).toEqual([0, 500, 1_000]);
    expect(now()).toBe(2_000);
    expect(owed).toEqual([expect.objectContaining({ id: `uuid of ${commandId}:accept`, operationId, kind: 'start', commands: [envelope], requestHash: envelope.requestHash })]);
  });

  it('records nothing for a caller who will ask again himself', async () => {
    const { ports, owed, pass } = world({});
    expect(await pass(submit(ports, envelope, undefined))).toEqual({ kind: 'pending' });
    expect(owed).toEqual([]);
  });

  it('promises nothing while the log is away', async () => {
    const { ports, owed, pass } = world({ logAwayUntil: 10_000, busAway: true });
    await expect(pass(submit(ports, envelope, 'start'))).rejects.toThrow(LogAway);
    expect(owed).toEqual([]);
  });

  it('does not mind a log that comes back in between', async () => {
    const { ports, pass, now } = world({ logAwayUntil: 400, stored: 100 });
    expect(await pass(submit(ports, envelope, 'start'))).toMatchObject({ kind: 'answered' });
    expect(now()).toBe(500);
  });

  it('gives a refusal back as it was said', async () => {
    const refusal = { refused: 'vm.busy', because: { operationId: 'op_2' } };
    expect(await (async () => { const { ports, pass } = world({ reply: 1, answer: refusal }); return pass(submit(ports, envelope, 'start')); })()).toEqual({ kind: 'refused', refusal });
  });

  it('refuses a key whose stored answer belongs to another request', async () => {
    const { ports, pass } = world({ stored: 0, requestHash: 'b'.repeat(64) });
    expect(await pass(submit(ports, envelope, 'start'))).toEqual({ kind: 'refused', refusal: { refused: 'idempotency.key_reused' } });
  });
});

describe('a batch', () => {
  const batch: Accepting = { id: commandId, requestHash: undefined, operationId, kind: 'create-vms', actor: 'token_1', commands: [1, 2, 3].map((number) => ({ ...envelope, id: `member ${String(number)}` })) };

  it('is recorded before any of it is sent', async () => {
    const { ports, published, owed, pass } = world({});
    const order: string[] = [];
    const watched: SubmitPorts = { ...ports, accept: (accepting) => { order.push('recorded'); return ports.accept(accepting); }, publish: (sent: CommandEnvelope) => { order.push(sent.id); return ports.publish(sent); } };
    expect(await pass(submitBatch(watched, batch))).toMatchObject({ kind: 'answered' });
    expect(order).toEqual(['recorded', 'member 1', 'member 2', 'member 3']);
    expect([published.length, owed.length]).toEqual([3, 1]);
  });

  it('sends nothing when its key was used for something else', async () => {
    const { ports, published, pass } = world({});
    const refusal = { refused: 'idempotency.key_reused' };
    expect(await pass(submitBatch({ ...ports, accept: () => Promise.resolve(refusal) }, batch))).toEqual({ kind: 'refused', refusal });
    expect(published).toEqual([]);
  });
});

it('the same command names the same things', () => {
  const uuidFrom = (key: string): string => (key.endsWith(':vm') ? 'AAAAAAAA-0000-8000-8000-000000000000' : 'bbbbbbbb-0000-8000-8000-000000000000');
  const ids = idsOf(commandId, uuidFrom);
  expect([ids.operationId, ids.thing('vm'), ids.thing('image')]).toEqual(['op_00000000000080008000000000000001', 'vm_aaaaaaaa000080008000000000000000', 'image_bbbbbbbb000080008000000000000000']);
});
