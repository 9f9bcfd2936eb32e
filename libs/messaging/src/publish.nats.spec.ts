import { jetstreamManager } from '@nats-io/jetstream';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { CommandEnvelope } from '@chronovirt/contracts/command';
import type { Bus } from './connect.ts';
import { consume } from './consume.ts';
import { ensureConsumer, ensureStreams, ensureTopology, keepTopology } from './ensure-topology.ts';
import { listenToEvents } from './listen.ts';
import type { EventNotice } from './listen.ts';
import { NotPublished, createPublisher } from './publish.ts';
import { NoAnswer, createReplies, sendAnswer } from './replies.ts';
import { busOfService, startTestingServer, until } from './testing-server.os.ts';
import type { TestingServer } from './testing-server.os.ts';
import { commandsOf, commandsOfNode, streams } from './topology.ts';

let server: TestingServer;
let bus: Bus;
beforeAll(async () => {
  server = await startTestingServer();
  bus = await busOfService(server);
});
afterAll(async () => {
  await bus?.close();
  await server?.stop();
});

const messages = async (stream: string): Promise<number> => (await (await jetstreamManager(bus.nc)).streams.info(stream)).state.messages;

const event = (id: string, position: number) => ({ id, category: 'vm', streamId: 'vm_1', type: 'VmStarted', position, previous: position - 1, body: { n: position } });
const command: CommandEnvelope = {
  id: '00000000-0000-8000-8000-000000000001', to: 'ipam', target: 'subnet_1', type: 'LeaseAddress', data: {}, meta: { actor: 'test' }, cancels: [],
};

describe('publishing', () => {
  it('makes the streams that it misses', async () => {
    const { sequence } = await createPublisher({ bus }).publishEvent(event('first', 1));
    expect(sequence).toBe(1);
    const jsm = await jetstreamManager(bus.nc);
    for (const { name } of streams) expect((await jsm.streams.info(name)).config.name).toBe(name);
  });

  it('keeps an event once however often it is sent, and says so', async () => {
    const publisher = createPublisher({ bus });
    const before = await messages('EVENTS');
    expect(await publisher.publishEvent(event('twice', 2))).toMatchObject({ duplicate: false });
    expect(await publisher.publishEvent(event('twice', 2))).toMatchObject({ duplicate: true });
    expect(await messages('EVENTS')).toBe(before + 1);
  });

  it('stores a group of events in its order, with the positions of each', async () => {
    const publisher = createPublisher({ bus });
    const jsm = await jetstreamManager(bus.nc);
    const before = await messages('EVENTS');
    await publisher.publishEvents(['g1', 'g2', 'g3'].map((id, index) => event(id, 20 + index)));
    const { state } = await jsm.streams.info('EVENTS');
    expect(state.messages).toBe(before + 3);
    const stored = await Promise.all([2, 1, 0].map((back) => jsm.streams.getMessage('EVENTS', { seq: state.last_seq - back })));
    expect(stored.map((message) => [message?.header.get('Nats-Msg-Id'), message?.header.get('Cv-Position')])).toEqual([['g1', '20'], ['g2', '21'], ['g3', '22']]);
  });

  it('stores what was missing of a group of which some, or the last alone, was there, and nothing twice', async () => {
    const publisher = createPublisher({ bus });
    const before = await messages('EVENTS');
    await publisher.publishEvent(event('h2', 31));
    await publisher.publishEvent(event('h4', 33));
    await publisher.publishEvents(['h1', 'h2', 'h3', 'h4'].map((id, index) => event(id, 30 + index)));
    expect(await messages('EVENTS')).toBe(before + 4);
    await publisher.publishEvents(['h1', 'h2', 'h3', 'h4', 'h5'].map((id, index) => event(id, 30 + index)));
    expect(await messages('EVENTS')).toBe(before + 5);
  });

  it('does not take a group for stored in whose middle one was lost', async () => {
    // The bus swallows the second message of the group, as a connection that breaks between two may.
    let swallowed = 0;
    const nc = new Proxy(bus.nc, {
      get: (target, name) => {
        if (name === 'publish') return (subject: string, body: string, options: { readonly headers: { get(key: string): string } }) => {
          if (options.headers.get('Nats-Msg-Id') === 'i2' && swallowed++ === 0) return;
          target.publish(subject, body, options as never);
        };
        const value: unknown = Reflect.get(target, name);
        return typeof value === 'function' ? (value as (...args: unknown[]) => unknown).bind(target) : value;
      },
    });
    const before = await messages('EVENTS');
    await createPublisher({ bus: { ...bus, nc } }).publishEvents(['i1', 'i2', 'i3'].map((id, index) => event(id, 40 + index)));
    expect(swallowed).toBe(1);
    expect(await messages('EVENTS')).toBe(before + 3);
  });

  it('sends a command twice when it is told twice', async () => {
    const publisher = createPublisher({ bus });
    const before = await messages('COMMANDS');
    await publisher.publishCommand(command);
    expect(await publisher.publishCommand(command)).toMatchObject({ duplicate: false });
    expect(await messages('COMMANDS')).toBe(before + 2);
  });

  it('wakes whoever listens, with position and the one before', async () => {
    const heard: EventNotice[] = [];
    const listening = listenToEvents(bus.nc, (notice) => heard.push(notice), { category: 'vm' });
    bus.nc.publish('cv.evt.vm.vm_1.VmStarted', 'from somebody else, without a position');
    await createPublisher({ bus }).publishEvent(event('heard', 9));
    await until('it is heard', () => heard.length > 0);
    expect(heard).toHaveLength(1);
    expect(heard[0]).toMatchObject({ category: 'vm', id: 'vm_1', type: 'VmStarted', position: 9, previous: 8, eventId: 'heard' });
    expect(heard[0]?.body()).toEqual({ n: 9 });
    listening.stop();
  });

  it('gives up when the bus is away, and goes on when it is back', async () => {
    const publisher = createPublisher({ bus, timeoutMs: 1_000 });
    await server.kill();
    await expect(publisher.publishCommand(command)).rejects.toBeInstanceOf(NotPublished);
    await server.start();
    await until('it is back', () => publisher.publishCommand(command).then(() => true, () => false), 15_000);
  });
});

describe('the topology', () => {
  it('repairs what was changed and what is missing', async () => {
    const jsm = await jetstreamManager(bus.nc);
    await ensureTopology(bus.nc, { consumers: [commandsOf('ipam')], nodes: ['node_1'] });
    await ensureConsumer(bus.nc, { ...commandsOf('ipam'), ackPendingMax: 3 });
    expect((await jsm.consumers.info('COMMANDS', 'ipam-commands')).config.max_ack_pending).toBe(3);
    const { config } = await jsm.streams.info('REPORTS');
    await jsm.streams.update('REPORTS', { ...config, max_age: 600e9 });
    await jsm.consumers.delete('COMMANDS', commandsOfNode('node_1').durable);
    const keeper = keepTopology({ nc: bus.nc, topology: () => ({ consumers: [commandsOf('ipam')], nodes: ['node_1'] }), everyMs: 60_000 });
    await keeper.nudge();
    await until('all is as it should be', async () =>
      (await jsm.consumers.info('COMMANDS', 'ipam-commands')).config.max_ack_pending === commandsOf('ipam').ackPendingMax &&
      (await jsm.streams.info('REPORTS')).config.max_age === 86_400e9 &&
      (await jsm.consumers.info('COMMANDS', commandsOfNode('node_1').durable)).config.deliver_subject === 'cv.deliver.node_1');
    await keeper.stop();
  });

  it('makes a durable anew that is ahead of its stream, which would pass over what comes', async () => {
    await ensureStreams(bus.nc);
    const keeperOf = (): ReturnType<typeof keepTopology> => keepTopology({ nc: bus.nc, topology: () => ({ consumers: [commandsOf('ahead')], nodes: [] }), everyMs: 60_000 });
    const first = keeperOf();
    await first.nudge();
    await first.stop();
    const publisher = createPublisher({ bus });
    const seen: string[] = [];
    const reader = consume({ bus, spec: commandsOf('ahead'), handle: ({ subject }) => { seen.push(subject); } });
    const order = { ...command, to: 'ahead' as CommandEnvelope['to'] };
    for (let n = 0; n < 20; n++) await publisher.publishCommand({ ...order, target: `a${n}` });
    await until('all came', () => seen.length === 20);
    await new Promise((resolve) => setTimeout(resolve, 300));
    await server.kill();
    const account = join(server.storeDir, 'jetstream', server.keys.account, 'streams', 'COMMANDS', 'msgs');
    await rm(account, { recursive: true });
    await server.start();
    await until('connected again', () => bus.status().ok);
    const second = keeperOf();
    await until('the leader looked', async () => { await second.nudge(); return (await jetstreamManager(bus.nc)).consumers.info('COMMANDS', 'ahead-commands').then(({ delivered }) => delivered.stream_seq === 0, () => false); });
    await publisher.publishCommand({ ...order, target: 'b' });
    await until('the new one came', () => seen.includes('cv.cmd.ahead.b'));
    await second.stop();
    await reader.stop();
  });

  it('may be ensured by many at once', async () => {
    const jsm = await jetstreamManager(bus.nc);
    for (const { name } of streams) await jsm.streams.delete(name);
    const others = await Promise.all(['a', 'b', 'c'].map((name) => busOfService(server, name)));
    const nodes = Array.from({ length: 60 }, (_, n) => `node_${n}`);
    await Promise.all(others.map(({ nc }) => ensureTopology(nc, { consumers: [commandsOf('ipam')], nodes })));
    expect((await jsm.streams.info('COMMANDS')).state.consumer_count).toBe(61);
    await Promise.all(others.map((other) => other.close()));
  });

  it('asks little when nothing is amiss', async () => {
    const before = bus.nc.stats().outMsgs;
    await ensureTopology(bus.nc, { consumers: [commandsOf('ipam')], nodes: Array.from({ length: 60 }, (_, n) => `node_${n}`) });
    expect(bus.nc.stats().outMsgs - before).toBe(1);
  });

  it('makes smaller streams where the server has little room, and is content with them', async () => {
    const small = await startTestingServer({ storeBytesMax: 640 * 2 ** 20 });
    const there = await busOfService(small);
    await ensureStreams(there.nc);
    const jsm = await jetstreamManager(there.nc);
    const sizes = await Promise.all(streams.map(async ({ name }) => (await jsm.streams.info(name)).config.max_bytes / 2 ** 20));
    expect(sizes).toEqual([256, 64, 64, 64]);
    await ensureStreams(there.nc);
    expect((await jsm.streams.info('EVENTS')).config.max_bytes).toBe(256 * 2 ** 20);
    await there.close();
    await small.stop();
  });
});

describe('replies', () => {
  it('go to everyone who waits for the id, and to nobody twice', async () => {
    const replies = createReplies({ nc: bus.nc, process: 'p1' });
    const others: string[] = [];
    replies.onOther((id, _answer, from) => others.push(`${id} ${from.to} ${from.target ?? ''}`));
    const both = [1, 2].map(() => replies.expect('c1', { timeoutMs: 2_000, to: 'ipam', target: 'x' }));
    await bus.nc.flush();
    expect(sendAnswer(bus.nc, replies.subjectFor('ipam', 'x'), 'c1', { version: 4 })).toBe(true);
    expect(await Promise.all(both)).toEqual([{ version: 4 }, { version: 4 }]);
    sendAnswer(bus.nc, replies.subjectFor('node', 'node_1'), 'c1', { refused: 'late' });
    await until('the late one went elsewhere', () => others.length === 1);
    expect(others).toEqual(['c1 node node_1']);
    replies.close();
  });

  it('end with NoAnswer, at the time said and when the process ends', async () => {
    const replies = createReplies({ nc: bus.nc, process: 'p2' });
    await expect(replies.expect('c2', { timeoutMs: 20, to: 'ipam', target: 'x' })).rejects.toBeInstanceOf(NoAnswer);
    const open = replies.expect('c3', { timeoutMs: 60_000, to: 'ipam', target: 'x' });
    replies.close();
    await expect(open).rejects.toBeInstanceOf(NoAnswer);
  });

  it('go only to subjects for answers, since the subject came in a header', () => {
    for (const subject of ['$JS.API.STREAM.DELETE.EVENTS', 'cv.cmd.ipam.x', 'cv.ans.p.>', 'cv.ans.p.*', '_INBOX.x', 'cv.ans.p.a.b.c']) {
      expect(sendAnswer(bus.nc, subject, 'c', { version: 1 })).toBe(false);
    }
  });
});
