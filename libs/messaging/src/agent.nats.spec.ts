/* What an agent reaches, what it does not, and how it is shut out; on a real server. */
import { jetstreamManager } from '@nats-io/jetstream';
import { decode, encodeAccount, type Account } from '@nats-io/jwt';
import { connect, credsAuthenticator } from '@nats-io/transport-node';
import type { NatsConnection } from '@nats-io/transport-node';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { CommandEnvelope } from '@chronovirt/contracts/command';
import { CredentialsRefused, connectBus } from './connect.ts';
import type { Bus } from './connect.ts';
import { consume } from './consume.ts';
import { createAgentKey, mintAgentJwt, renewAccounts, revokeAgent, revokeAgents, systemCreds } from './credentials.ts';
import { ensureTopology, forgetNode } from './ensure-topology.ts';
import { answerHellos, listenToEvents, listenToHeartbeats, sayHello, sendHeartbeat } from './listen.ts';
import { createPublisher } from './publish.ts';
import { createReplies } from './replies.ts';
import { busOfAgent, busOfService, startTestingServer, until } from './testing-server.os.ts';
import type { TestingServer } from './testing-server.os.ts';
import { agentInboxPrefix, allReportsFor, commandsOfNode, subjects } from './topology.ts';

let server: TestingServer;
let service: Bus;
let system: NatsConnection;
let a: Awaited<ReturnType<typeof busOfAgent>>;
let b: Awaited<ReturnType<typeof busOfAgent>>;

beforeAll(async () => {
  server = await startTestingServer();
  service = await busOfService(server);
  system = await connect({ servers: server.url, authenticator: credsAuthenticator(new TextEncoder().encode(await systemCreds(server.keys))) });
  await ensureTopology(service.nc, { consumers: [allReportsFor('scheduler')], nodes: ['node_a', 'node_b'] });
  a = await busOfAgent(server, 'node_a');
  b = await busOfAgent(server, 'node_b');
});
afterAll(async () => {
  await Promise.all([a?.close(), b?.close(), service?.close(), system?.close()]);
  await server?.stop();
});

let serial = 0;
const order = (node: string): CommandEnvelope => ({
  id: `00000000-0000-8000-8000-${String(++serial).padStart(12, '0')}`,
  to: 'node', target: node, type: 'DefineDomain', data: {}, meta: { actor: 'test' }, cancels: [],
});

const messagesOf = async (stream: string, subject = '>'): Promise<number> => {
  const { state } = await (await jetstreamManager(service.nc)).streams.info(stream, { subjects_filter: subject });
  return Object.values(state.subjects ?? {}).reduce((sum, count) => sum + count, 0);
};

/** What the server said against it, within a moment. */
async function refusal(bus: Bus, attempt: () => void): Promise<string> {
  const complaints: string[] = [];
  const statuses = bus.nc.status();
  const watching = (async () => { for await (const status of statuses) if (status.type === 'error') complaints.push(status.error.message); })();
  attempt();
  await bus.nc.flush();
  await until('the server complains', () => complaints.length > 0, 2_000).catch(() => undefined);
  (statuses as unknown as { stop(): void }).stop();
  await watching;
  return complaints.join('; ');
}

describe('an agent', () => {
  it('receives its commands, answers them, reports, beats and says hello', async () => {
    const replies = createReplies({ nc: service.nc, process: 'saga-1' });
    const beats: string[] = [];
    const listening = [
      listenToHeartbeats(service.nc, (nodeId) => beats.push(nodeId)),
      answerHellos(service.nc, (nodeId, body) => Promise.resolve({ nodeId, session: 7, echo: body })),
    ];
    await service.nc.flush();
    const consumption = consume({ bus: a, spec: commandsOfNode('node_a'), handle: () => ({ version: 1 }) });
    const command = order('node_a');
    const answer = replies.expect(command.id, { timeoutMs: 5_000, to: 'node', target: 'node_a' });
    await createPublisher({ bus: service }).publishCommand(command, { reply: replies.subjectFor('node', 'node_a') });
    expect(await answer).toEqual({ version: 1 });
    await until('its queue is empty', async () => (await messagesOf('COMMANDS')) === 0);

    const publisher = createPublisher({ bus: a, mayRepair: false });
    const report = { nodeId: 'node_a', category: 'vm', id: 'vm_1', type: 'DomainRunning', body: { running: true } };
    const first = await publisher.publishReport(report);
    // The same again is another report: nothing is swallowed.
    expect((await publisher.publishReport(report)).sequence).toBe(first.sequence + 1);

    sendHeartbeat(a.nc, 'node_a', {});
    await until('the heartbeat', () => beats.includes('node_a'));
    expect(await sayHello(a.nc, 'node_a', { vms: 2 })).toEqual({ nodeId: 'node_a', session: 7, echo: { vms: 2 } });

    await consumption.stop();
    replies.close();
    for (const one of listening) one.stop();
  });

  it('sets aside what it cannot read', async () => {
    const consumption = consume({ bus: a, spec: commandsOfNode('node_a'), handle: (delivery) => delivery.json() });
    await service.nc.request(subjects.command('node', 'node_a'), '{', { timeout: 1_000 });
    await until('it is in DEAD', async () => (await messagesOf('DEAD', 'cv.dead.cv.cmd.node.node_a')) === 1);
    await until('its queue is empty', async () => (await messagesOf('COMMANDS')) === 0);
    await consumption.stop();
  });

  it('finds what was sent while it was away', async () => {
    await createPublisher({ bus: service }).publishCommand(order('node_b'));
    const seen: string[] = [];
    const consumption = consume({ bus: b, spec: commandsOfNode('node_b'), handle: ({ subject }) => { seen.push(subject); } });
    await until('it came', () => seen.length === 1);
    await consumption.stop();
  });

  const deliver = commandsOfNode('node_b').deliverTo ?? '';
  it.each([
    ['everything', '>'],
    ['all events', 'cv.evt.>'],
    ['all of ours', 'cv.>'],
    ['the other node\'s deliveries', deliver],
    ['the other node\'s commands', subjects.command('node', 'node_b')],
    ['all heartbeats', subjects.heartbeats],
    ['the services\' inboxes', '_INBOX.>'],
    ['the other agent\'s inbox', `${agentInboxPrefix('node_b')}.>`],
    ['answers to a service', 'cv.ans.>'],
    ['advisories', '$JS.EVENT.>'],
    ['the server', '$SYS.>'],
  ])('may not listen to %s', async (_, subject) => {
    const said = await refusal(a, () => { a.nc.subscribe(subject, { callback: () => undefined }); });
    expect(said).toMatch(/Permissions Violation for Subscription/);
  });

  it.each([
    ['an event', 'cv.evt.vm.vm_1.VmStarted'],
    ['a command to a service', 'cv.cmd.scheduler.vm_1'],
    ['a command to itself', subjects.command('node', 'node_a')],
    ['a report of the other node', 'cv.rpt.node_b.vm.vm_1'],
    ['the other node\'s heartbeat', subjects.heartbeat('node_b')],
    ['the other node\'s hello', subjects.hello('node_b')],
    ['an answer of the other node', subjects.answer('saga-1', 'node', 'node_b')],
    ['an answer of a service', subjects.answer('saga-1', 'ipam', 'subnet_1')],
    ['the other node\'s acknowledgement', '$JS.ACK.COMMANDS.node-node_b-commands.1.1.1.1.0'],
    ['a service\'s acknowledgement', '$JS.ACK.REPORTS.scheduler-reports.1.1.1.1.0'],
    ['a pull for the other node', '$JS.API.CONSUMER.MSG.NEXT.COMMANDS.node-node_b-commands'],
    ['a question about its own durable', '$JS.API.CONSUMER.INFO.COMMANDS.node-node_a-commands'],
    ['a question about a stream', '$JS.API.STREAM.INFO.EVENTS'],
    ['the deletion of a stream', '$JS.API.STREAM.DELETE.EVENTS'],
    ['a service\'s inbox', '_INBOX.abc'],
    ['a delivery to the other node', deliver],
    ['what a service set aside', subjects.dead('cv.cmd.ipam.subnet_1')],
    ['a request to the server', '$SYS.REQ.SERVER.PING'],
  ])('may not publish %s', async (_, subject) => {
    const heard: string[] = [];
    const subscription = service.nc.subscribe(subject, { callback: (_err, message) => { heard.push(message.subject); } });
    await service.nc.flush();
    const said = await refusal(a, () => a.nc.publish(subject, '{}'));
    expect(said).toMatch(/Permissions Violation for Publish/);
    await service.nc.flush();
    expect(heard).toEqual([]);
    subscription.unsubscribe();
  });

  it('cannot have the server do it: a reply subject leads nowhere outside its account', async () => {
    await createPublisher({ bus: service }).publishEvent({ id: 'e1', category: 'vm', streamId: 'vm_1', type: 'VmStarted', position: 1, previous: 0, body: {} });
    await createPublisher({ bus: service }).publishCommand(order('node_b'));
    const heard: string[] = [];
    const listening = listenToEvents(service.nc, ({ type }) => heard.push(type));
    const before = await messagesOf('REPORTS', 'cv.rpt.node_b.>');
    for (const reply of ['$JS.API.STREAM.PURGE.EVENTS', '$JS.API.STREAM.DELETE.EVENTS', '$JS.API.CONSUMER.DELETE.COMMANDS.node-node_b-commands', 'cv.evt.vm.vm_1.VmDeleted', 'cv.cmd.scheduler.vm_1', 'cv.rpt.node_b.vm.vm_1', subjects.hello('node_b')]) {
      a.nc.publish('cv.rpt.node_a.vm.vm_1', '{}', { reply });
      a.nc.publish(subjects.hello('node_a'), '{}', { reply });
    }
    await a.nc.flush();
    await until('the reports arrived', async () => (await messagesOf('REPORTS', 'cv.rpt.node_a.>')) >= 7);
    await service.nc.flush();
    expect(await messagesOf('EVENTS')).toBe(1);
    expect(await messagesOf('REPORTS', 'cv.rpt.node_b.>')).toBe(before);
    expect(await messagesOf('COMMANDS', 'cv.cmd.scheduler.*')).toBe(0);
    expect(await messagesOf('COMMANDS', 'cv.cmd.node.node_b')).toBe(1);
    expect(heard).toEqual([]);
    const said = await refusal(a, () => a.nc.publish('cv.rpt.node_a.vm.vm_1', '{}', { reply: '$JS.ACK.COMMANDS.node-node_b-commands.1.1.1.1.0' }));
    expect(said).toMatch(/Permissions Violation/);
    listening.stop();
  });

  it('cannot answer for another node, even if it could publish', async () => {
    const replies = createReplies({ nc: service.nc, process: 'saga-2' });
    const answer = replies.expect('some-id', { timeoutMs: 300, to: 'node', target: 'node_b' });
    service.nc.publish(subjects.answer('saga-2', 'node', 'node_a'), JSON.stringify({ id: 'some-id', answer: { version: 1 } }));
    await expect(answer).rejects.toThrow('no answer');
    replies.close();
  });
});

describe('an installation that was made before', () => {
  /** As it was when nothing was said on lines yet. */
  const asBefore = async (account: string): Promise<void> => {
    const { name, nats } = decode<Account>((await system.request(`$SYS.REQ.ACCOUNT.${account}.CLAIMS.LOOKUP`)).string());
    const known = <C extends { subject?: string }>(crossed: readonly C[] | undefined): C[] => (crossed ?? []).filter(({ subject }) => subject?.startsWith('cv.line.') !== true);
    const older = { ...nats, exports: known(nats.exports), imports: known(nats.imports) };
    await system.request('$SYS.REQ.CLAIMS.UPDATE', await encodeAccount(name, account, older, { signer: new TextEncoder().encode(server.keys.operatorSeed) }));
  };

  it('lets pass what is said now once it is renewed, live, and who was shut out stays so', async () => {
    const out = await busOfAgent(server, 'node_o', { giveUpWhenRefused: true });
    await revokeAgent({ system, keys: server.keys, userPublicKey: out.userPublicKey });
    await out.closed;
    for (const account of [server.keys.agentsAccount, server.keys.account]) await asBefore(account);
    const heard: string[] = [];
    const lines = service.nc.subscribe('cv.line.up.>', { callback: (_error, { data }) => void heard.push(new TextDecoder().decode(data)) });
    await service.nc.flush();
    const say = async (word: string): Promise<void> => {
      a.nc.publish(subjects.lineUp('node_a', 'l1'), word);
      await a.nc.flush();
      await service.nc.flush();
    };
    await say('before');
    await renewAccounts({ system, keys: server.keys });
    await until('a line is heard', async () => {
      await say('after');
      return heard.length > 0;
    });
    expect(new Set(heard)).toEqual(new Set(['after']));
    await expect(out.again()).rejects.toThrow(/Authorization/);
    // Nothing is left to be renewed.
    const jwtOf = async (account: string): Promise<string> => (await system.request(`$SYS.REQ.ACCOUNT.${account}.CLAIMS.LOOKUP`)).string();
    const before = await jwtOf(server.keys.agentsAccount);
    await renewAccounts({ system, keys: server.keys });
    expect(await jwtOf(server.keys.agentsAccount)).toBe(before);
    lines.unsubscribe();
  });
});

describe('an agent is shut out', () => {
  it('when it is revoked, live connection and next one, and the others go on', async () => {
    const live = await busOfAgent(server, 'node_r', { giveUpWhenRefused: true });
    await (await live.again()).close();
    await revokeAgent({ system, keys: server.keys, userPublicKey: live.userPublicKey });
    expect(await live.closed).toBeInstanceOf(CredentialsRefused);
    await expect(live.again()).rejects.toThrow(/Authorization/);
    await a.nc.flush();
    expect(a.status().ok).toBe(true);
  });

  it('also at its first connection', async () => {
    const { publicKey, seed } = createAgentKey();
    const jwt = await mintAgentJwt({ keys: server.keys, nodeId: 'node_q', userPublicKey: publicKey });
    await revokeAgent({ system, keys: server.keys, userPublicKey: publicKey });
    const refused = connectBus({ servers: server.url, name: 'q', inboxPrefix: agentInboxPrefix('node_q'), credentials: { jwt: () => jwt, seed }, giveUpWhenRefused: true });
    await expect(refused).rejects.toBeInstanceOf(CredentialsRefused);
  });

  it('for good: later revocations, the same again and a restart of the server change nothing', async () => {
    const agents = await Promise.all(['node_x', 'node_y', 'node_z'].map((node) => busOfAgent(server, node, { giveUpWhenRefused: true })));
    const [x, y, z] = agents.map(({ userPublicKey }) => userPublicKey) as [string, string, string];
    // Two gateways at once, one list.
    await Promise.all([revokeAgents({ system, keys: server.keys, userPublicKeys: [x, y] }), revokeAgent({ system, keys: server.keys, userPublicKey: z })]);
    await revokeAgents({ system, keys: server.keys, userPublicKeys: [x, y, z] });
    for (const { closed } of agents) expect(await closed).toBeInstanceOf(CredentialsRefused);
    await server.kill();
    await server.start();
    await until('the service is back', () => service.status().ok);
    for (const { again } of agents) await expect(again()).rejects.toThrow(/Authorization/);
    // The node joins again with another key.
    const joined = await busOfAgent(server, 'node_x');
    expect(joined.status().ok).toBe(true);
    await joined.close();
  });

  it('when its JWT runs out', async () => {
    // JWTs count whole seconds: one second may be over before it is used.
    const short = await busOfAgent(server, 'node_s', { expiresInSeconds: 2, giveUpWhenRefused: true });
    expect(await short.closed).toBeInstanceOf(CredentialsRefused);
  });

  it('and forgotten: its durable and its waiting commands are gone', async () => {
    await until('the bus is back', async () => { try { await ensureTopology(service.nc, { consumers: [], nodes: ['node_gone'] }); return true; } catch { return false; } });
    await createPublisher({ bus: service }).publishCommand(order('node_gone'));
    await forgetNode(service.nc, 'node_gone');
    await forgetNode(service.nc, 'node_gone');
    expect(await messagesOf('COMMANDS', 'cv.cmd.node.node_gone')).toBe(0);
  });
});
