import { jetstreamManager } from '@nats-io/jetstream';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { CommandEnvelope } from '@chronovirt/contracts/command';
import type { Bus } from './connect.ts';
import { Reject, RetryAfter, consume } from './consume.ts';
import type { Consumption, ConsumeOptions, Delivery } from './consume.ts';
import { ensureConsumer, ensureStreams } from './ensure-topology.ts';
import { createPublisher } from './publish.ts';
import type { Publisher } from './publish.ts';
import { createReplies } from './replies.ts';
import type { Replies } from './replies.ts';
import { busOfService, startTestingServer, until } from './testing-server.os.ts';
import type { TestingServer } from './testing-server.os.ts';
import { commandsOf } from './topology.ts';

let server: TestingServer;
let bus: Bus;
let publisher: Publisher;
let replies: Replies;
const consumptions: Consumption[] = [];

beforeAll(async () => {
  server = await startTestingServer();
  bus = await busOfService(server);
  await ensureStreams(bus.nc);
  publisher = createPublisher({ bus });
  replies = createReplies({ nc: bus.nc, process: 'test-1' });
});
afterEach(async () => { await Promise.all(consumptions.splice(0).map((one) => one.stop(1_000))); });
afterAll(async () => {
  await bus?.close();
  await server?.stop();
});

let serial = 0;
const envelope = (to: string, target: string, data: unknown = {}): CommandEnvelope => ({
  id: `00000000-0000-8000-8000-${String(++serial).padStart(12, '0')}`,
  to: to as CommandEnvelope['to'], target, type: 'DoIt', data: data as CommandEnvelope['data'], meta: { actor: 'test' }, cancels: [],
});

const start = (service: string, handle: ConsumeOptions['handle'], more: Partial<ConsumeOptions> = {}): Consumption => {
  const one = consume({ bus, spec: commandsOf(service), handle, backOffsMs: [20, 40, 80], ...more });
  consumptions.push(one);
  return one;
};

const waiting = async (stream: string, subject: string): Promise<number> => {
  const jsm = await jetstreamManager(bus.nc);
  const { state } = await jsm.streams.info(stream, { subjects_filter: subject });
  return Object.values(state.subjects ?? {}).reduce((sum, count) => sum + count, 0);
};

const dead = async (service: string): Promise<readonly { readonly reason: string; readonly body: string }[]> => {
  const jsm = await jetstreamManager(bus.nc);
  const { state } = await jsm.streams.info('DEAD', { subjects_filter: `cv.dead.cv.cmd.${service}.*` });
  const all = [];
  for (const subject of Object.keys(state.subjects ?? {})) {
    const message = await jsm.streams.getMessage('DEAD', { last_by_subj: subject });
    if (message) all.push({ reason: message.header.get('Cv-Reason'), body: message.string() });
  }
  return all;
};

describe('a reader of commands', () => {
  it('answers where the command said, and leaves the queue empty', async () => {
    start('ipam', (delivery) => ({ version: 3, facts: delivery.json() }));
    const command = envelope('ipam', 'subnet_1', { size: 1 });
    const answer = replies.expect(command.id, { timeoutMs: 5_000, to: 'ipam', target: 'subnet_1' });
    await publisher.publishCommand(command, { reply: replies.subjectFor('ipam', 'subnet_1') });
    expect(await answer).toMatchObject({ version: 3, facts: { id: command.id, data: { size: 1 } } });
    await until('the queue is empty', async () => (await waiting('COMMANDS', 'cv.cmd.ipam.*')) === 0);
  });

  it('gets a failing command again after a back-off until it succeeds', async () => {
    const times: number[] = [];
    const counts: number[] = [];
    start('scheduler', (delivery) => {
      times.push(performance.now());
      counts.push(delivery.deliveryCount);
      if (delivery.deliveryCount < 3) throw new Error('not yet');
      return { version: 1 };
    }, { backOffsMs: [200, 400] });
    const command = envelope('scheduler', 'vm_1');
    const answer = replies.expect(command.id, { timeoutMs: 5_000, to: 'scheduler', target: 'vm_1' });
    await publisher.publishCommand(command, { reply: replies.subjectFor('scheduler', 'vm_1') });
    expect(await answer).toEqual({ version: 1 });
    expect(counts).toEqual([1, 2, 3]);
    expect(times[1]! - times[0]!).toBeGreaterThan(140);
    expect(times[2]! - times[1]!).toBeGreaterThan(290);
    expect(await dead('scheduler')).toEqual([]);
  });

  it('sets aside what always fails, whole and with the reason, and never before the last delivery', async () => {
    let deliveries = 0;
    start('storage', () => { deliveries++; throw new Error('no such pool\nat all'); }, { deliveriesMax: 4 });
    const command = envelope('storage', 'pool_1', { keep: 'me' });
    await publisher.publishCommand(command);
    await until('it is in DEAD', async () => (await waiting('DEAD', 'cv.dead.cv.cmd.storage.*')) === 1);
    await until('the queue is empty', async () => (await waiting('COMMANDS', 'cv.cmd.storage.*')) === 0);
    expect(deliveries).toBe(4);
    const [one] = await dead('storage');
    expect(one?.reason).toBe('no such pool at all');
    expect(JSON.parse(one?.body ?? '')).toEqual(command);
  });

  it('sets aside what is malformed after one delivery, and goes on', async () => {
    let deliveries = 0;
    start('monitor', (delivery) => { deliveries++; return { version: (delivery.json() as { meta: object }).meta ? 1 : 0 }; });
    await bus.nc.request('cv.cmd.monitor.alert_1', 'not { json', { timeout: 1_000 });
    const command = envelope('monitor', 'alert_2');
    const answer = replies.expect(command.id, { timeoutMs: 5_000, to: 'monitor', target: 'alert_2' });
    await publisher.publishCommand(command, { reply: replies.subjectFor('monitor', 'alert_2') });
    await answer;
    await until('it is in DEAD', async () => (await dead('monitor')).length === 1);
    expect(await dead('monitor')).toEqual([{ reason: 'not JSON', body: 'not { json' }]);
    expect(deliveries).toBe(2);
  });

  it('obeys Reject at once and RetryAfter for ever', async () => {
    const seen = new Map<string, number>();
    start('reject', (delivery) => {
      seen.set(delivery.subject, delivery.deliveryCount);
      if (delivery.subject.endsWith('bad')) throw new Reject('unknown command');
      if (delivery.deliveryCount < 6) throw new RetryAfter(20, 'busy');
      return undefined;
    }, { deliveriesMax: 2 });
    await publisher.publishCommand(envelope('reject', 'bad'));
    await publisher.publishCommand(envelope('reject', 'busy'));
    await until('both are settled', async () => (await waiting('COMMANDS', 'cv.cmd.reject.*')) === 0);
    expect(Object.fromEntries(seen)).toEqual({ 'cv.cmd.reject.bad': 1, 'cv.cmd.reject.busy': 6 });
    expect((await dead('reject')).map(({ reason }) => reason)).toEqual(['unknown command']);
  });

  it('handles one key in order and others beside it, within its bound', async () => {
    const order: string[] = [];
    let running = 0;
    let most = 0;
    const runningByKey = new Map<string, number>();
    start('mailbox', async (delivery) => {
      const key = delivery.subject;
      expect(runningByKey.get(key) ?? 0).toBe(0);
      runningByKey.set(key, 1);
      most = Math.max(most, ++running);
      await new Promise((resolve) => setTimeout(resolve, 3));
      order.push(`${key.at(-1)}${String((delivery.json() as { data: { n: number } }).data.n)}`);
      running--;
      runningByKey.set(key, 0);
    }, { concurrency: 4, window: 300 });
    const sent = [];
    for (let n = 0; n < 20; n++) for (const key of ['a', 'b', 'c', 'd', 'e', 'f']) sent.push(publisher.publishCommand(envelope('mailbox', key, { n })));
    await Promise.all(sent);
    await until('all are done', () => order.length === 120);
    for (const key of ['a', 'b', 'c', 'd', 'e', 'f']) {
      expect(order.filter((each) => each.startsWith(key))).toEqual(Array.from({ length: 20 }, (_, n) => `${key}${n}`));
    }
    expect(most).toBe(4);
  });

  it('keeps a slow command while it works on it, and holds no more than its window', async () => {
    const spec = { ...commandsOf('slow'), ackWaitMs: 600, ackPendingMax: 8 };
    let deliveries = 0;
    let most = 0;
    const one: Consumption = consume({
      bus, spec, window: 4, concurrency: 1,
      handle: async (delivery: Delivery) => {
        deliveries++;
        expect(delivery.deliveryCount).toBe(1);
        const { running, waiting: behind } = one.load();
        most = Math.max(most, running + behind);
        await new Promise((resolve) => setTimeout(resolve, 500));
      },
    });
    consumptions.push(one);
    for (let n = 0; n < 6; n++) await publisher.publishCommand(envelope('slow', `t${n}`));
    // Three ack waits and more: without signs of work, those behind would be delivered twice.
    await until('all are done', async () => (await waiting('COMMANDS', 'cv.cmd.slow.*')) === 0);
    expect(deliveries).toBe(6);
    expect(most).toBeLessThanOrEqual(4);
  });

  it('gives back at its end what has not begun, and finishes what has', async () => {
    const began: string[] = [];
    const finished: string[] = [];
    const handle = async (delivery: Delivery): Promise<void> => {
      began.push(delivery.subject);
      await new Promise((resolve) => setTimeout(resolve, 300));
      finished.push(delivery.subject);
    };
    // What is given back comes at once; all else would come only after this.
    const spec = { ...commandsOf('drain'), ackWaitMs: 120_000 };
    const first = start('drain', handle, { spec, concurrency: 2 });
    for (let n = 0; n < 6; n++) await publisher.publishCommand(envelope('drain', `t${n}`));
    await until('two are at work', () => began.length === 2);
    await first.stop(5_000);
    expect(finished).toHaveLength(2);
    start('drain', handle, { spec, concurrency: 6 });
    await until('the rest', () => finished.length === 6);
    expect(new Set(finished).size).toBe(6);
  });

  it('shares a durable with its replicas: each command is handled once', async () => {
    const other = await busOfService(server, 'replica');
    const seen: string[] = [];
    const by = [0, 0];
    start('shared', (delivery) => { seen.push(delivery.subject); by[0]!++; }, { window: 8 });
    consumptions.push(consume({ bus: other, spec: commandsOf('shared'), window: 8, handle: (delivery) => { seen.push(delivery.subject); by[1]!++; } }));
    await Promise.all(Array.from({ length: 200 }, (_, n) => publisher.publishCommand(envelope('shared', `t${n}`))));
    await until('all are done', async () => (await waiting('COMMANDS', 'cv.cmd.shared.*')) === 0);
    expect(seen).toHaveLength(200);
    expect(new Set(seen).size).toBe(200);
    expect(Math.min(...by)).toBeGreaterThan(0);
    await Promise.all(consumptions.splice(0).map((one) => one.stop(1_000)));
    await other.close();
  });

  it('goes on when its durable, and when the whole stream, is deleted under it', async () => {
    const seen: number[] = [];
    const one = start('deleted', (delivery) => { seen.push((delivery.json() as { data: number }).data); });
    await publisher.publishCommand(envelope('deleted', 'a', 1));
    await until('the first', () => seen.length === 1);
    const jsm = await jetstreamManager(bus.nc);
    await jsm.consumers.delete('COMMANDS', 'deleted-commands');
    await publisher.publishCommand(envelope('deleted', 'a', 2));
    await until('the second', () => seen.length === 2);
    await jsm.streams.delete('COMMANDS');
    // Sent again until it is answered, as all senders do: what is stored while the server removes the old stream's folders goes with them.
    for (let sent = 0; sent < 10 && !seen.includes(3); sent++) {
      await publisher.publishCommand(envelope('deleted', 'a', 3));
      await until('the third', () => seen.includes(3), 2_000).catch(() => undefined);
    }
    expect(seen.slice(0, 3)).toEqual([1, 2, 3]);
    expect(one.status()).toEqual({ ok: true, says: 'reads deleted-commands' });
  });

  it('asks again where the server drops a pull without a word, and looks for its durable only when none is answered', async () => {
    // 2.9.10 drops a pull so when a message comes in the very millisecond in which it ends. Here it does not arrive.
    let lost = (_nth: number): boolean => false;
    const asked: number[] = [];
    const publish: typeof bus.nc.publish = (subject, payload, more) => {
      if (!subject.startsWith('$JS.API.CONSUMER.MSG.NEXT.')) return bus.nc.publish(subject, payload, more);
      asked.push((JSON.parse(payload as string) as { batch: number }).batch);
      if (!lost(asked.length)) bus.nc.publish(subject, payload, more);
    };
    const nc = new Proxy(bus.nc, {
      get: (target, name) => {
        if (name === 'publish') return publish;
        const member: unknown = Reflect.get(target, name);
        return typeof member === 'function' ? member.bind(target) as unknown : member;
      },
    });
    const spec = commandsOf('scheduler');
    // One that is made tells of it, and is looked for once more.
    await ensureConsumer(bus.nc, spec);
    const handled: Delivery[] = [];
    let found = 0;
    lost = (nth) => nth === 1;
    const reader = start('scheduler', (delivery) => { handled.push(delivery); }, {
      bus: { ...bus, nc }, spec, window: 8,
      repair: async () => { found++; return ensureConsumer(bus.nc, spec); },
    });
    await publisher.publishCommand(envelope('scheduler', 'vm_1'));
    await until('the second pull brings it', () => handled.length === 1);
    expect(reader.status().ok).toBe(true);
    expect(found).toBe(1);
    // Who heard nothing asks for one; and nothing of the first is left, so that from then on it is asked for as many as there is room for.
    await until('two more', () => asked.length >= 4);
    expect(asked.slice(0, 2)).toEqual([8, 1]);
    expect(asked.at(-1)).toBe(8);

    lost = () => true;
    await until('that it looks for its durable', () => found === 2, 20_000);
    lost = () => false;
    await publisher.publishCommand(envelope('scheduler', 'vm_2'));
    await until('it reads on', () => handled.length === 2);
  });

  it('goes on when its connection is cut, and is not behind for long', async () => {
    const own = await busOfService(server, 'cut');
    const seen: number[] = [];
    const one = consume({ bus: own, spec: commandsOf('cut'), handle: (delivery) => { seen.push((delivery.json() as { data: number }).data); } });
    await publisher.publishCommand(envelope('cut', 'a', 0));
    await until('the first', () => seen.length === 1);
    for (let n = 1; n <= 5; n++) {
      const back = new Promise<void>((resolve) => { const forget = own.onReconnect(() => { forget(); resolve(); }); });
      await own.nc.reconnect();
      await back;
      // What is delivered to the old connection at this moment comes again only after the ack wait.
      await own.nc.flush();
      await publisher.publishCommand(envelope('cut', 'a', n));
      await until('the next', () => seen.length === n + 1, 2_000);
    }
    await one.stop();
    await own.close();
  });
});
