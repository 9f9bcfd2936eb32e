/* A password on its way through the gateway: shown once, to whoever asked, and to nobody else. */
import { generateKeyPairSync } from 'node:crypto';
import { passwordPurpose } from '@chronovirt/contracts/vm/guest';
import type { VmId } from '@chronovirt/contracts/ids';
import { unseal } from '@chronovirt/messaging/seal';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ids, obliging, requested, startTestingGateway, type TestingGateway, until } from '../testing-gateway.os.ts';

let gateway: TestingGateway;
const { x, d } = generateKeyPairSync('x25519').privateKey.export({ format: 'jwk' });
const keys = { publicKey: String(x), privateKey: String(d) };
const nodeId = ids.nodeOf('sealed');
const vmOn = async (name: string, node: string): Promise<VmId> => {
  const vmId: VmId = `vm_${ids.digits(name)}`;
  const operationId = `op_${ids.digits(name)}`;
  await gateway.append(`vm-${vmId}`, requested({ data: { vmId, operationId, name, vcpus: 1, memoryMib: 128, diskGib: 1 } }), { type: 'VmPlaced', data: { operationId, nodeId: node, poolId: ids.pool, generation: 1, decision: {} } });
  await until(async () => (await gateway.call('GET', `/v1/vms/${vmId}`)).json?.nodeId === node);
  return vmId;
};
let vmId: VmId;

beforeAll(async () => {
  gateway = await startTestingGateway();
  for (const [name, sealKey] of [['sealed', keys.publicKey], ['bare', 'x'.repeat(42)]] as const) {
    await gateway.append(`node-${ids.nodeOf(name)}`, { type: 'NodeRegistered', data: { nodeId: ids.nodeOf(name), name, machineId: name, credentialKey: `U${'A'.repeat(55)}`, sealKey } });
  }
  vmId = await vmOn('guest', nodeId);
  gateway.obey.set('scheduler', (envelope) => (envelope.type === 'AskGuest'
    ? { stream: `vm-${envelope.target}`, decision: [{ type: 'VmGuestRequested', data: { operationId: envelope.data['operationId'], request: envelope.data['request'] } }] }
    : obliging(envelope)));
});
afterAll(async () => { await gateway?.close(); });

const path = (id = vmId): string => `/v1/vms/${id}/password`;
/** What the node would find in the last command. */
const opened = (): string => {
  const { request } = (gateway.received.at(-1)?.data ?? {}) as { request: { nodeId: string; user: string; sealed: string } };
  expect(request.nodeId).toBe(nodeId);
  return unseal(keys, request.sealed, passwordPurpose(vmId, request.user));
};
/** Everything that was written. */
const written = async (): Promise<string> => JSON.stringify([gateway.received, (await gateway.call('GET', '/v1/events?limit=1000')).text, (await gateway.call('GET', '/v1/operations')).text, (await gateway.call('GET', `/v1/vms/${vmId}`)).text]);

describe('A password', () => {
  it('that is given reaches the node alone, and is not repeated in the answer', async () => {
    const answer = await gateway.call('POST', path(), { body: { user: 'root', password: 'canary-given-1' } });
    expect([answer.status, answer.json.operation.kind, answer.json.password]).toEqual([202, 'password', undefined]);
    expect(opened()).toBe('canary-given-1');
    expect(answer.text + (await written())).not.toContain('canary-given-1');
  });

  it('that is made is shown in the answer, once', async () => {
    const answer = await gateway.call('POST', path(), { body: { user: 'debian' } });
    const password = answer.json.password as string;
    expect(password).toHaveLength(20);
    expect(opened()).toBe(password);
    expect(await written()).not.toContain(password);
  });

  it('goes into the disks of a VM that is stopped and was never told anything by cloud-init', async () => {
    const stopped = await vmOn('stopped', nodeId);
    const operationId = `op_${ids.digits('stopped')}`;
    await gateway.append(`vm-${stopped}`, { type: 'VmOperationDone', data: { operationId, how: 'built' } }, { type: 'VmObserved', data: { nodeId, session: 1, sequence: 1, generation: 1, state: 'stopped', reason: 'shutdown' } });
    await until(async () => (await gateway.call('GET', `/v1/vms/${stopped}`)).json?.observed?.state === 'stopped');
    expect((await gateway.call('POST', path(stopped), { body: { user: 'root' } })).json).toMatchObject({ method: 'offline' });
    expect(gateway.received.at(-1)).toMatchObject({ type: 'AskGuest', data: { request: { kind: 'password', user: 'root', offline: true } } });
    // Told how, it does as it is told.
    expect((await gateway.call('POST', path(stopped), { body: { user: 'root', method: 'guest-agent' } })).json).toMatchObject({ method: 'guest-agent' });
  });

  it('with a key is set once, and what the request is told apart by does not hold it', async () => {
    const ask = (body: object) => gateway.call('POST', path(), { body, headers: { 'idempotency-key': 'reset 1' } });
    const [first, second] = [await ask({ user: 'root', password: 'canary-key-1' }), await ask({ user: 'root', password: 'canary-key-1' })];
    expect(second.json.operation.id).toBe(first.json.operation.id);
    const hashes = gateway.received.filter(({ id }) => id === first.json.operation.commandId).map(({ requestHash }) => requestHash);
    const other = await gateway.call('POST', path(), { body: { user: 'root', password: 'canary-key-2' }, headers: { 'idempotency-key': 'reset 2' } });
    // The same for another password: nobody can try passwords against it.
    expect([...hashes, gateway.received.find(({ id }) => id === other.json.operation.commandId)?.requestHash]).toEqual(hashes.concat(hashes[0]));
    expect(await ask({ user: 'other', password: 'canary-key-1' })).toMatchObject({ status: 409, json: { code: 'idempotency.key_reused' } });
    expect(await ask({ user: 'root' })).toMatchObject({ status: 400, json: { errors: [{ path: 'body.password' }] } });
  });

  it('that is bad is refused without being repeated', async () => {
    for (const body of [{ user: 'root', password: 'short-1' }, { user: 'root', password: 'canary-bad\n1' }, { user: 'ro:ot', password: 'canary-bad-2' }, { user: 'root', password: 'canary-bad-3', note: 1 }]) {
      const answer = await gateway.call('POST', path(), { body });
      expect(answer).toMatchObject({ status: 400, json: { code: 'request.malformed' } });
      expect(answer.text).not.toMatch(/canary|short-1/);
    }
  });

  it('needs a VM on a node that has told a key', async () => {
    expect(await gateway.call('POST', path(`vm_${ids.digits('nobody')}`), { body: { user: 'root' } })).toMatchObject({ status: 404, json: { code: 'vm.not_found' } });
    expect(await gateway.call('POST', path(await vmOn('bare', ids.nodeOf('bare'))), { body: { user: 'root' } })).toMatchObject({ status: 409, json: { code: 'node.no_seal_key' } });
  });
});

describe('SSH keys', () => {
  it('are named one by one where they are none', async () => {
    expect(await gateway.call('DELETE', `/v1/vms/${vmId}/ssh-keys`, { body: { user: '0', keys: ['ssh-ed25519 AAAA', 'no key'] } })).toMatchObject({ status: 400, json: { errors: [{ path: 'body.user' }, { path: 'body.keys.1' }] } });
  });
});
