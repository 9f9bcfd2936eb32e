import { connect, jwtAuthenticator } from '@nats-io/transport-node';
import { createAgentKey } from '@chronovirt/messaging/credentials';
import { signRequest } from '@chronovirt/messaging/node-signature';
import { agentInboxPrefix } from '@chronovirt/messaging/topology';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { NodeAnswer } from '../answers.ts';
import { type Obey, startTestingGateway, type TestingGateway, until } from '../testing-gateway.os.ts';

let gateway: TestingGateway;

/** Registers, changes and removes nodes; a machine joins once. */
const nodes = (): Obey => {
  const machines = new Map<string, string>();
  return (envelope) => {
    const stream = `node-${envelope.target}`;
    const data = envelope.data as { nodeId: string; machineId: string; reason: string; maintenance?: boolean };
    switch (envelope.type) {
      case 'RegisterNode': {
        const holder = machines.get(data.machineId) ?? data.nodeId;
        machines.set(data.machineId, holder);
        return { stream, decision: holder === data.nodeId ? [{ type: 'NodeRegistered', data }] : { refused: 'node.machine_id_taken', because: { heldBy: holder } } };
      }
      case 'ChangeNode':
        return { stream, decision: [{ type: 'NodePolicyChanged', data: { accepting: true, maintenance: data.maintenance ?? false, cpuPercent: 800, memoryPercent: 100, memoryReserveMib: 512, memoryUsedPercentMax: 100, loadPercentMax: 1_000 } }] };
      case 'RemoveNode':
        return { stream, decision: [{ type: 'NodeRemoved', data: { reason: data.reason } }] };
      default:
        return undefined;
    }
  };
};

beforeAll(async () => {
  gateway = await startTestingGateway();
  gateway.obey.set('scheduler', nodes());
});
afterAll(async () => { await gateway?.close(); });

const issue = async (expiresInSeconds = 60): Promise<string> => {
  const issued = await gateway.call('POST', '/v1/nodes/join-tokens', { body: { expiresInSeconds } });
  expect(issued.status).toBe(201);
  return issued.json.token as string;
};

const agent = (name: string) => {
  const key = createAgentKey();
  return { key, body: { name, machineId: `machine-${name}`, credentialKey: key.publicKey, sealKey: 'x'.repeat(43) } };
};

describe('a node', () => {
  it('joins with a token, the same however often it asks, and its credentials work until it is removed', async () => {
    const token = await issue();
    const { key, body } = agent('one');
    const [first, again] = [await gateway.call('POST', '/v1/nodes/join', { token, body }), await gateway.call('POST', '/v1/nodes/join', { token, body })];
    expect(first.status).toBe(201);
    expect(again.json.nodeId).toBe(first.json.nodeId);
    const nodeId = first.json.nodeId as string;
    expect(first.json.natsUrls).toEqual([gateway.nats.url]);

    const open = () => connect({ servers: gateway.nats.url, authenticator: jwtAuthenticator(first.json.natsJwt as string, new TextEncoder().encode(key.seed)), inboxPrefix: agentInboxPrefix(nodeId), reconnect: false });
    const bus = await open();

    const shown = await gateway.call('GET', `/v1/nodes/${nodeId}`);
    expect(shown.json).toMatchObject({ name: 'one', status: 'joining', capacity: null, vms: 0 });
    NodeAnswer.parse(shown.json);
    expect(shown.text).not.toContain(body.credentialKey);

    await gateway.append(`node-${nodeId}`, { type: 'NodeDescribed', data: { hypervisor: 'simulated', accel: 'tcg', accelBecause: 'simulated', cpus: 2, memoryMib: 4_096, versions: {} } }, { type: 'NodeSessionStarted', data: { session: 1 } },
      { type: 'CapacityReserved', data: { vmId: `vm_${'1'.repeat(32)}`, vcpus: 2, memoryMib: 1_024, decision: {} } });
    const ready = await until(async () => { const read = await gateway.call('GET', `/v1/nodes/${nodeId}`); return read.json.vms === 1 && read.json.status === 'ready' ? read : undefined; });
    expect(ready.json).toMatchObject({ status: 'ready', session: 1, capacity: { vcpus: { total: 16, reserved: 2, free: 14 }, memoryMib: { total: 3_584, reserved: 1_024, free: 2_560 } } });

    const changed = await gateway.call('PATCH', `/v1/nodes/${nodeId}`, { body: { maintenance: true } });
    expect(changed.json).toMatchObject({ status: 'maintenance', policy: { maintenance: true } });
    expect((await gateway.call('PATCH', `/v1/nodes/${nodeId}`, { body: { maintenance: 'yes', rack: 7 } })).json.errors).toMatchObject([{ path: 'body.maintenance' }, { path: 'body.rack' }]);

    const signed = () => ({ authorization: signRequest({ method: 'GET', path: '/v1/node/credentials', nodeId }, key.seed, Math.floor(Date.now() / 1_000)) });
    const renewed = await gateway.call('GET', '/v1/node/credentials', { token: null, headers: signed() });
    expect(renewed.json.natsUrls).toEqual([gateway.nats.url]);
    const anew = await connect({ servers: gateway.nats.url, authenticator: jwtAuthenticator(renewed.json.natsJwt as string, new TextEncoder().encode(key.seed)), inboxPrefix: agentInboxPrefix(nodeId), reconnect: false });
    await anew.close();

    const closed = bus.closed();
    expect((await gateway.call('DELETE', `/v1/nodes/${nodeId}`)).status).toBe(204);
    expect(String(await closed)).toMatch(/revoked/i);
    await expect(open()).rejects.toThrow(/auth/i);
    expect((await gateway.call('GET', '/v1/node/credentials', { token: null, headers: signed() })).json.code).toBe('auth.signature_unknown');
    expect((await gateway.call('GET', `/v1/nodes/${nodeId}`)).status).toBe(404);
    expect((await gateway.call('POST', '/v1/nodes/join', { token, body })).json.code).toBe('node.removed');
  });

  it('cannot join with a token that another machine used, that is over, or that nobody issued', async () => {
    const token = await issue();
    expect((await gateway.call('POST', '/v1/nodes/join', { token, body: agent('two').body })).status).toBe(201);
    expect((await gateway.call('POST', '/v1/nodes/join', { token, body: agent('three').body })).json).toMatchObject({ status: 409, code: 'join_token.redeemed' });
    const short = await issue(1);
    await new Promise((resolve) => setTimeout(resolve, 1_100));
    expect((await gateway.call('POST', '/v1/nodes/join', { token: short, body: agent('four').body })).json).toMatchObject({ status: 401, code: 'join_token.expired' });
    // An API token lets nobody join, and a join token calls nothing else.
    expect((await gateway.call('POST', '/v1/nodes/join', { body: agent('five').body })).json).toMatchObject({ status: 401, code: 'auth.token_unknown' });
    expect((await gateway.call('GET', '/v1/vms', { token })).json).toMatchObject({ status: 401, code: 'auth.token_unknown' });
  });

  it('cannot be a machine that has joined before, and is told what to do', async () => {
    expect((await gateway.call('POST', '/v1/nodes/join', { token: await issue(), body: agent('twin').body })).status).toBe(201);
    expect((await gateway.call('POST', '/v1/nodes/join', { token: await issue(), body: agent('twin').body })).json).toMatchObject({ status: 409, code: 'node.machine_id_taken', detail: expect.stringContaining('CV_NODE_AGENT_MACHINE_ID') });
  });

  it('gets credentials for the recorded key alone', async () => {
    const token = await issue();
    const { body } = agent('rekeyed');
    await gateway.call('POST', '/v1/nodes/join', { token, body });
    gateway.obey.set('scheduler', (envelope) => ({ stream: `node-${envelope.target}`, decision: [] }));
    const other = await gateway.call('POST', '/v1/nodes/join', { token, body: { ...body, credentialKey: createAgentKey().publicKey } });
    expect(other.json).toMatchObject({ status: 409, code: 'node.other_key' });
    expect(other.json.natsJwt).toBeUndefined();
  });

  it('is shown as it was while it lends a device', async () => {
    gateway.obey.set('scheduler', nodes());
    const joined = await gateway.call('POST', '/v1/nodes/join', { token: await issue(), body: agent('lender').body });
    const nodeId = joined.json.nodeId as string;
    const lent = { vmId: `vm_${'5'.repeat(32)}`, device: 'pci-0000:03:00.0' };
    await gateway.append(`node-${nodeId}`, { type: 'DeviceHeld', data: lent }, { type: 'DeviceReleased', data: lent }, { type: 'NodePolicyChanged', data: { accepting: true, maintenance: true, cpuPercent: 800, memoryPercent: 100, memoryReserveMib: 512, memoryUsedPercentMax: 100, loadPercentMax: 1_000 } });
    await until(async () => (await gateway.call('GET', `/v1/nodes/${nodeId}`)).json?.policy?.maintenance === true);
  });
});
