/*
 * The agent as a whole, on a real bus: it joins at a gateway (played here), says hello to a scheduler
 * (played here), obeys, reports, and comes back after whatever happened to it.
 */
import { createServer } from 'node:http';
import type { IncomingMessage, Server } from 'node:http';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DomainReport, Heartbeat, Hello, PoolReport } from '@chronovirt/contracts/agent/agent.commands';
import type { Welcome } from '@chronovirt/contracts/agent/agent.commands';
import type { CommandEnvelope } from '@chronovirt/contracts/command';
import type { NodeId, VmId, VolumeId } from '@chronovirt/contracts/ids';
import { JoinNodeBody } from '@chronovirt/contracts/node/node.commands';
import { connectBus } from '@chronovirt/messaging/connect';
import type { Bus } from '@chronovirt/messaging/connect';
import { consume } from '@chronovirt/messaging/consume';
import { mintAgentJwt, revokeAgent, serviceCreds, systemCreds } from '@chronovirt/messaging/credentials';
import { ensureTopology } from '@chronovirt/messaging/ensure-topology';
import { answerHellos, listenToHeartbeats } from '@chronovirt/messaging/listen';
import { readSignature } from '@chronovirt/messaging/node-signature';
import { createPublisher } from '@chronovirt/messaging/publish';
import { createReplies } from '@chronovirt/messaging/replies';
import type { AnswerOf, Replies } from '@chronovirt/messaging/replies';
import { startTestingServer } from '@chronovirt/messaging/testing-server.os';
import type { TestingServer } from '@chronovirt/messaging/testing-server.os';
import { allReportsFor } from '@chronovirt/messaging/topology';
import { createReadiness } from '@chronovirt/observability/health';
import { silentLog } from '@chronovirt/observability/log';
import { createMetrics } from '@chronovirt/observability/metrics';
import { connect, credsAuthenticator } from '@nats-io/transport-node';
import { v7 as uuidV7 } from 'uuid';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { AgentConfig } from './config.ts';
import { smallPlan } from './domain/testing-plan.ts';
import { startFleet } from './fleet.os.ts';
import { startAgent } from './service.ts';

const hex = (n: number): string => n.toString(16).padStart(32, '0');
const vmId: VmId = `vm_${hex(1)}`;
const volumeId: VolumeId = `volume_${hex(2)}`;
const network = { networkId: `network_${hex(5)}`, subnetId: `subnet_${hex(6)}`, name: 'cv-default', kind: 'nat', cidr: '10.21.0.0/24', gateway: '10.21.0.1', prefix: 24, bridge: 'cv-br0' } as const;

let server: TestingServer;
let bus: Bus;
let gateway: Server;
let dir: string;
let replies: Replies;
/** What the gateway answers next instead of letting someone in. */
let problem: { readonly status: number; readonly code: string } | undefined;
let welcomes = true;
/** Whether the gateway gives new certificates, and how many it has given. */
let renews = true;
let renewals = 0;
let session = 0;
let vms: Welcome['vms'] = [];
const hellos: Hello[] = [];
const domains: DomainReport[] = [];
const pools: PoolReport[] = [];
const beats: Heartbeat[] = [];
const joined: { readonly nodeId: NodeId; readonly key: string; readonly token: string }[] = [];
const ends: (() => unknown)[] = [];

async function bodyOf(request: IncomingMessage): Promise<unknown> {
  let text = '';
  for await (const chunk of request) text += String(chunk);
  return JSON.parse(text === '' ? '{}' : text);
}

/** As the gateway does: the machine's keys in, its id and a certificate out. */
async function answerJoin(request: IncomingMessage): Promise<{ readonly status: number; readonly body: object }> {
  const token = request.headers.authorization?.replace('Bearer ', '') ?? '';
  const raw = await bodyOf(request);
  if (request.url === '/v1/node/credentials') {
    const signed = readSignature(request.headers.authorization, { method: 'GET', path: request.url });
    const known = joined.find((one) => one.nodeId === signed?.nodeId);
    if (!renews || known === undefined || signed?.by(known.key) !== true) return { status: 401, body: {} };
    renewals++;
    return { status: 200, body: { natsJwt: await mintAgentJwt({ keys: server.keys, nodeId: known.nodeId, userPublicKey: known.key, expiresInSeconds: 3_600 }), natsUrls: [server.url] } };
  }
  if (request.url === '/v1/nodes/join-tokens') return { status: 201, body: { token: `join-token-number-${joined.length}-${Math.random()}` } };
  if (problem !== undefined) return { status: problem.status, body: { type: 'about:blank', title: 'no', status: problem.status, code: problem.code, detail: 'The gateway says no.' } };
  const body = JoinNodeBody.parse(raw);
  const same = joined.find((one) => one.key === body.credentialKey);
  const nodeId: NodeId = same?.nodeId ?? `node_${hex(1_000 + joined.length)}`;
  joined.push({ nodeId, key: body.credentialKey, token });
  await ensureTopology(bus.nc, { consumers: [allReportsFor('scheduler')], nodes: [...new Set(joined.map((one) => one.nodeId))] });
  return { status: 200, body: { nodeId, natsJwt: await mintAgentJwt({ keys: server.keys, nodeId, userPublicKey: body.credentialKey }), natsUrls: [server.url] } };
}

beforeAll(async () => {
  server = await startTestingServer();
  bus = await connectBus({ servers: server.url, name: 'spec', credentials: { text: await serviceCreds(server.keys) } });
  await ensureTopology(bus.nc, { consumers: [allReportsFor('scheduler')], nodes: [] });
  replies = createReplies({ nc: bus.nc, process: 'spec' });
  listenToHeartbeats(bus.nc, (_nodeId, body) => beats.push(Heartbeat.parse(body)));
  answerHellos(bus.nc, async (_nodeId, body) => {
    const hello = Hello.parse(body);
    hellos.push(hello);
    if (!welcomes) throw new Error('not now');
    return { session: ++session, vms } satisfies Welcome;
  });
  const reports = consume({
    bus, spec: allReportsFor('scheduler'),
    handle: (delivery) => { if (delivery.subject.includes('.pool.')) pools.push(PoolReport.parse(delivery.json())); else domains.push(DomainReport.parse(delivery.json())); },
  });
  gateway = createServer((request, response) => {
    // Of files in the folders of pools: there are all of them.
    const ids = new URL(request.url ?? '/', 'http://gateway').searchParams.get('ids');
    if (ids !== null) {
      response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify({ known: ids.split(',') }));
      return;
    }
    void answerJoin(request).then(({ status, body }) => { response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body)); });
  });
  gateway.listen(0, '127.0.0.1');
  await once(gateway, 'listening');
  ends.push(() => reports.stop(), () => { replies.close(); }, () => bus.close(), () => server.stop(), () => gateway.close());
});
afterAll(async () => { for (const end of ends) await end(); });

let running: ReturnType<typeof startAgent>[] = [];
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'cv-agent-'));
  await writeFile(join(dir, 'token'), 'a-join-token-of-some-length\n');
  problem = undefined;
  welcomes = true;
  renews = true;
  vms = [];
  for (const list of [hellos, domains, pools, beats]) list.length = 0;
});
afterEach(async () => {
  await Promise.all(running.map((agent) => agent.close()));
  running = [];
  await rm(dir, { recursive: true });
});

const configOf = (more: Partial<AgentConfig> = {}): AgentConfig => ({
  gatewayUrl: `http://127.0.0.1:${(gateway.address() as AddressInfo).port}`, joinTokenFile: join(dir, 'token'), stateDir: join(dir, 'state'), machineId: 'machine-1', name: 'one',
  hypervisor: { kind: 'simulated', simulated: { cpus: 4, memoryMib: 4_096, poolGib: 100, latencyMs: 0 } },
  natsUrl: undefined, natsCaFile: undefined, healthPort: undefined, healthHost: '127.0.0.1', logLevel: 'error', ...more,
});

function begin(more: Partial<AgentConfig> = {}): { readonly agent: ReturnType<typeof startAgent>; readonly ready: () => Promise<boolean>; readonly says: () => Promise<string> } {
  const readiness = createReadiness();
  const agent = startAgent(configOf(more), { log: silentLog, metrics: createMetrics(), readiness }, () => readFile(join(dir, 'token'), 'utf8').then((text) => text.trim()));
  running.push(agent);
  return { agent, ready: async () => (await readiness.report()).ready, says: async () => (await readiness.report()).parts.map((part) => part.says).join('; ') };
}

async function send(nodeId: NodeId, type: string, more: object = {}, envelope: Partial<CommandEnvelope> = {}): Promise<AnswerOf> {
  const command: CommandEnvelope = {
    id: uuidV7(), to: 'node', target: nodeId, type, meta: { actor: 'system:spec' }, cancels: [], session,
    data: { nodeId, vmId, generation: 1, ...more }, ...envelope,
  };
  const answer = replies.expect(command.id, { timeoutMs: 10_000, to: 'node', target: nodeId });
  await createPublisher({ bus }).publishCommand(command, { reply: replies.subjectFor('node', nodeId) });
  return answer;
}

const define = smallPlan({ volumeId, network, mac: '52:54:0a:15:00:05', address: '10.21.0.5' });
const disk = { volumeId, imageFile: 'guest.qcow2', imageFormat: 'qcow2', sizeGib: 1 };
const lastJoined = (): NodeId => joined.at(-1)!.nodeId;

describe('An agent', () => {
  it('joins, says hello, reports its pool, beats, and makes a VM', async () => {
    const { agent, ready } = begin();
    await expect.poll(ready, { timeout: 10_000 }).toBe(true);
    const nodeId = lastJoined();
    expect(joined.at(-1)?.token).toBe('a-join-token-of-some-length');
    expect((await stat(join(dir, 'state', 'node.json'))).mode & 0o777).toBe(0o600);
    expect((await stat(join(dir, 'state', 'keys.json'))).mode & 0o777).toBe(0o600);
    expect(hellos.at(-1)).toMatchObject({ nodeId, inventory: [], description: { hypervisor: 'simulated', cpus: 4 } });
    await expect.poll(() => pools.at(-1)).toMatchObject({ nodeId, capacityGib: 100 });
    await expect.poll(() => beats.some((beat) => beat.nodeId === nodeId), { timeout: 6_000 }).toBe(true);
    expect(await send(nodeId, 'EnsureDisk', disk)).toEqual({ version: 0 });
    expect(await send(nodeId, 'DefineDomain', define)).toMatchObject({ facts: { state: 'stopped' } });
    expect(await send(nodeId, 'StartDomain')).toMatchObject({ facts: { state: 'running', session } });
    await expect.poll(() => domains.at(-1)).toMatchObject({ nodeId, vmId, generation: 1, session, state: 'running' });
    agent.machine()?.crash(vmId);
    await expect.poll(() => domains.at(-1)?.state, { timeout: 5_000 }).toBe('crashed');
  });

  it('is the same node at its next start, without a token, and with a new certificate where it is given one', async () => {
    const first = begin();
    await expect.poll(first.ready, { timeout: 10_000 }).toBe(true);
    await first.agent.close();
    await rm(join(dir, 'token'));
    const asked = joined.length;
    const jwtKept = async (): Promise<string> => (JSON.parse(await readFile(join(dir, 'state', 'node.json'), 'utf8')) as { natsJwt: string }).natsJwt;
    const before = await jwtKept();
    const given = renewals;
    const second = begin();
    await expect.poll(second.ready, { timeout: 10_000 }).toBe(true);
    expect(joined.length).toBe(asked);
    expect(hellos.at(-1)?.nodeId).toBe(lastJoined());
    // What it may say on the bus is what this version says it may.
    expect(renewals).toBe(given + 1);
    const renewed = await jwtKept();
    expect(renewed).not.toBe(before);
    await second.agent.close();

    renews = false;
    const third = begin();
    await expect.poll(third.ready, { timeout: 10_000 }).toBe(true);
    expect(await jwtKept()).toBe(renewed);
  });

  it('refuses a state folder that was copied from another machine', async () => {
    const first = begin();
    await expect.poll(first.ready, { timeout: 10_000 }).toBe(true);
    await first.agent.close();
    expect((await begin({ machineId: 'machine-2' }).agent.failed).message).toMatch(/belongs to the machine machine-1, and this is machine-2/);
  });

  it.each([
    ['join_token.expired', 401, /has expired.*Issue a new join token/s],
    ['join_token.redeemed', 409, /let another machine in/],
    ['node.machine_id_taken', 409, /systemd-machine-id-setup/],
  ])('says what to do about %s', async (code, status, words) => {
    problem = { code, status };
    const { agent } = begin();
    const fault = await agent.failed;
    expect(fault.message).toMatch(words);
    expect(fault.message).not.toContain('a-join-token');
  });

  it('waits for a gateway that is away, and asks with the same keys', async () => {
    problem = { status: 503, code: 'starting' };
    const { ready, says } = begin();
    await expect.poll(says).toMatch(/joining/);
    const kept = (): Promise<string> => readFile(join(dir, 'state', 'keys.json'), 'utf8').catch(() => '');
    await expect.poll(kept).not.toBe('');
    const keys = JSON.parse(await kept()) as { credentialKey: string };
    problem = undefined;
    await expect.poll(ready, { timeout: 10_000 }).toBe(true);
    expect(joined.at(-1)?.key).toBe(keys.credentialKey);
  });

  it('repeats its hello, as the same one, until it is answered, and is not ready before', async () => {
    welcomes = false;
    const { ready, says } = begin();
    await expect.poll(() => hellos.length, { timeout: 10_000 }).toBeGreaterThan(2);
    expect(new Set(hellos.map((hello) => hello.helloId)).size).toBe(1);
    expect(await ready()).toBe(false);
    expect(await says()).toMatch(/waiting for an answer to its hello/);
    expect(await send(lastJoined(), 'EnsureDisk', disk)).toMatchObject({ refused: 'node.no_session' });
    welcomes = true;
    await expect.poll(ready, { timeout: 10_000 }).toBe(true);
    expect(await send(lastJoined(), 'EnsureDisk', disk)).toEqual({ version: 0 });
  });

  it('says hello anew when the bus was away, and refuses what was meant for the session before', async () => {
    const { ready } = begin();
    await expect.poll(ready, { timeout: 10_000 }).toBe(true);
    const nodeId = lastJoined();
    const before = session;
    vms = [{ vmId, generation: 3, here: true }];
    await server.kill();
    await server.wipe();
    await server.start();
    await expect.poll(() => hellos.length, { timeout: 15_000 }).toBeGreaterThan(1);
    await expect.poll(ready, { timeout: 10_000 }).toBe(true);
    await bus.connected(5_000);
    await ensureTopology(bus.nc, { consumers: [allReportsFor('scheduler')], nodes: [nodeId] });
    expect(await send(nodeId, 'EnsureDisk', { ...disk, generation: 3 }, { session: before })).toMatchObject({ refused: 'node.old_session' });
    expect(await send(nodeId, 'EnsureDisk', { ...disk, generation: 2 })).toMatchObject({ refused: 'vm.old_generation' });
    expect(await send(nodeId, 'EnsureDisk', { ...disk, generation: 3 })).toEqual({ version: 0 });
  });

  it('ends with plain words when it is shut out', async () => {
    const { agent, ready } = begin();
    await expect.poll(ready, { timeout: 10_000 }).toBe(true);
    const system = await connect({ servers: server.url, authenticator: credsAuthenticator(new TextEncoder().encode(await systemCreds(server.keys))) });
    try {
      await revokeAgent({ system, keys: server.keys, userPublicKey: joined.at(-1)!.key });
      expect((await agent.failed).message).toMatch(/the bus refuses this node: it was removed/);
    } finally {
      await system.close();
    }
  });
});

describe('A fleet', () => {
  it('is as many nodes, each with an id, keys and a connection of its own', async () => {
    await writeFile(join(dir, 'api-token'), 'an-api-token');
    const { machineId: _machineId, name: _name, joinTokenFile: _file, hypervisor: _hypervisor, ...common } = configOf();
    const before = joined.length;
    const fleet = await startFleet({ ...common, logLevel: 'error', count: 20, tokenFile: join(dir, 'api-token'), simulated: { cpus: 8, memoryMib: 8_192, poolGib: 50, latencyMs: 0 } });
    try {
      await expect.poll(() => new Set(hellos.map((hello) => hello.nodeId)).size, { timeout: 20_000 }).toBe(20);
      const ours = joined.slice(before);
      expect(new Set(ours.map((one) => one.key)).size).toBe(20);
      expect(new Set(ours.map((one) => one.token)).size).toBe(20);
      await expect.poll(() => new Set(pools.map((pool) => pool.nodeId)).size, { timeout: 10_000 }).toBe(20);
    } finally {
      await fleet.close();
    }
  }, 60_000);
});
