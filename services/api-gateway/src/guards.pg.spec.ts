/* What every write has in common: it can be asked of beforehand, and be made to depend on what the caller has seen. */
import { createAgentKey } from '@chronovirt/messaging/credentials';
import pg from 'pg';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { ProblemAnswer, RehearsalAnswer } from './answers.ts';
import { type Called, ids, obliging, requested, startTestingGateway, type TestingGateway, until, wish } from './testing-gateway.os.ts';

let gateway: TestingGateway;
let owner: pg.Client;
beforeAll(async () => {
  gateway = await startTestingGateway();
  owner = new pg.Client({ connectionString: gateway.database.ownerUrl });
  await owner.connect();
});
afterAll(async () => {
  await owner?.end();
  await gateway?.close();
});

/** Takes CreateVm, ChangeVm and DeleteVm. */
beforeEach(() => {
  gateway.obey.set('scheduler', (envelope) => {
    const { vmId: _vm, operationId, ...changes } = envelope.data;
    switch (envelope.type) {
      case 'CreateVm': return obliging(envelope);
      case 'ChangeVm': return { stream: `vm-${envelope.target}`, decision: [{ type: 'VmChanged', data: changes }] };
      case 'DeleteVm': return { stream: `vm-${envelope.target}`, decision: { refused: 'vm.protected', because: { vmId: envelope.target } } };
      case 'RegisterNode': return { stream: `node-${envelope.target}`, decision: [{ type: 'NodeRegistered', data: envelope.data }] };
      default: return { stream: `vm-${envelope.target}`, decision: [{ type: 'VmPowerRequested', data: { operationId, action: 'start', timeoutSeconds: 0, force: false } }] };
    }
  });
});

const answersCount = async (): Promise<number> => Number((await owner.query<{ n: string }>('select count(*) as n from event_log.answer')).rows[0]?.n);

interface Operation {
  readonly parameters?: readonly { readonly name: string; readonly in: string }[];
  readonly responses: Readonly<Record<string, unknown>>;
}

const writes = async (): Promise<readonly { readonly method: string; readonly path: string; readonly operation: Operation }[]> => {
  const { json } = await gateway.call('GET', '/v1/openapi.json', { token: null });
  return Object.entries(json.paths as Record<string, Record<string, Operation>>).flatMap(([path, item]) =>
    Object.entries(item).filter(([method]) => ['post', 'put', 'patch', 'delete'].includes(method)).map(([method, operation]) => ({ method: method.toUpperCase(), path, operation })));
};

const created = async (name: string): Promise<string> => (await gateway.call('POST', '/v1/vms', { body: wish(name) })).json.vm.id as string;
const observed = { type: 'VmObserved', data: { nodeId: ids.nodeOf('n'), session: 1, sequence: 1, generation: 1, state: 'running', reason: 'test' } };

describe('Every write', () => {
  it('says in the description of the API that it takes dryRun and If-Match', async () => {
    const all = await writes();
    expect(all.length).toBeGreaterThan(20);
    const without = (where: string, name: string) => all.filter(({ operation }) => operation.parameters?.some((parameter) => parameter.in === where && parameter.name === name) !== true).map(({ method, path }) => `${method} ${path}`);
    expect(without('query', 'dryRun')).toEqual([]);
    expect(without('header', 'If-Match')).toEqual([]);
    expect(all.filter(({ operation }) => !JSON.stringify(operation.responses['200'] ?? {}).includes('#/components/schemas/Rehearsal')).map(({ path }) => path)).toEqual([]);
  });

  it('looks at both before it does anything', async () => {
    const head = await gateway.head();
    const token = (await gateway.call('POST', '/v1/nodes/join-tokens', { body: {} })).json.token as string;
    for (const { method, path } of await writes()) {
      const url = path.replace('{id}', `vm_${ids.digits('x')}`).replace('{mac}', '52:54:00:00:00:01');
      const options = path === '/v1/nodes/join' ? { token } : {};
      for (const wrong of ['maybe', '', 'true&dryRun=true']) {
        expect(await gateway.call(method, `${url}?dryRun=${wrong}`, options), `${method} ${path}`).toMatchObject({ status: 400, json: { code: 'request.malformed', errors: [{ path: 'query.dryRun' }] } });
      }
      for (const tag of ['W/"1"', '1', '"1", "2"', '"a"']) {
        expect(await gateway.call(method, url, { ...options, headers: { 'if-match': tag } }), `${method} ${path} ${tag}`).toMatchObject({ status: 400, json: { errors: [{ path: 'header.If-Match' }] } });
      }
    }
    expect(await gateway.head()).toBe(head + 1);
  });
});

describe('dryRun', () => {
  it('tells the events that the same request then records, writes nothing, and does not use the key up', async () => {
    const [head, answers] = [await gateway.head(), await answersCount()];
    const headers = { 'idempotency-key': 'dry then wet' };
    const said = await gateway.call('POST', '/v1/vms?dryRun=true', { body: wish('predicted'), headers });
    expect(said.status).toBe(200);
    RehearsalAnswer.parse(said.json);
    expect([await gateway.head(), await answersCount()]).toEqual([head, answers]);
    expect(said.headers.get('cv-position')).toBeNull();

    const done = await gateway.call('POST', '/v1/vms?dryRun=false', { body: wish('predicted'), headers });
    expect(done.status).toBe(202);
    const [event] = await gateway.log.read(head, 1);
    expect(said.json).toEqual({ dryRun: true, version: 1, events: [{ type: event?.type, category: 'vm', subject: done.json.vm.id, version: 1, data: event?.data }] });
    // What was done is known: again it would do nothing.
    expect((await gateway.call('POST', '/v1/vms?dryRun=true', { body: wish('predicted'), headers })).json).toEqual({ dryRun: true, version: 1, events: [] });
    expect(await gateway.call('POST', '/v1/vms?dryRun=true', { body: wish('other'), headers })).toMatchObject({ status: 409, json: { code: 'idempotency.key_reused' } });
  });

  it('may be followed by another request with the same key', async () => {
    const headers = { 'idempotency-key': 'free still' };
    await gateway.call('POST', '/v1/vms?dryRun=true', { body: wish('a-thought'), headers });
    expect((await gateway.call('POST', '/v1/vms', { body: wish('another-thought'), headers })).status).toBe(202);
  });

  it('refuses what would be refused, with the same problem', async () => {
    const id = await created('kept');
    const [said, done] = [await gateway.call('DELETE', `/v1/vms/${id}?dryRun=true&force=true`), await gateway.call('DELETE', `/v1/vms/${id}?force=true`)];
    expect(said).toMatchObject({ status: 409, json: { code: 'vm.protected' } });
    expect(said.text).toBe(done.text);
  });

  it('tells of a batch what each member would be', async () => {
    const [head, answers] = [await gateway.head(), await answersCount()];
    gateway.obey.set('scheduler', (envelope) => ({ stream: `vm-${envelope.target}`, decision: envelope.data['name'] === 'batch-2' ? { refused: 'vm.name_taken', because: { name: 'batch-2' } } : [requested(envelope)] }));
    const headers = { 'idempotency-key': 'batch' };
    const said = await gateway.call('POST', '/v1/vms?dryRun=true', { body: wish('batch', { count: 3 }), headers });
    expect(said.status, said.text).toBe(200);
    RehearsalAnswer.parse(said.json);
    expect(said.json.events).toMatchObject([{ type: 'CommandsAccepted' }]);
    expect(said.json.members).toMatchObject([
      { name: 'batch-1', events: [{ type: 'VmRequested' }] }, { name: 'batch-2', problem: { code: 'vm.name_taken', status: 409 } }, { name: 'batch-3', events: [{ type: 'VmRequested' }] },
    ]);
    expect([await gateway.head(), await answersCount()]).toEqual([head, answers]);
    const done = await gateway.call('POST', '/v1/vms', { body: wish('batch', { count: 3 }), headers });
    expect((done.json.vms as { id: string }[]).map(({ id }) => id)).toEqual((said.json.members as { vmId: string }[]).map(({ vmId }) => vmId));
    // The batch and its members, the refused one too.
    await until(async () => (await answersCount()) === answers + 4);
  });

  it('promises nothing when nobody answers', async () => {
    gateway.obey.clear();
    const [head, answers] = [await gateway.head(), await answersCount()];
    expect(await gateway.call('POST', '/v1/vms?dryRun=true', { body: wish('unheard') })).toMatchObject({ status: 503, json: { code: 'gateway.no_answer' } });
    expect([await gateway.head(), await answersCount()]).toEqual([head, answers]);
  });

  it('issues, revokes and redeems no token', async () => {
    const head = await gateway.head();
    const said = await gateway.call('POST', '/v1/tokens?dryRun=true', { body: { name: 'maybe' } });
    expect(said.json).toMatchObject({ dryRun: true, events: [{ type: 'ApiTokenIssued', data: { name: 'maybe' } }] });
    expect(said.json.token).toBeUndefined();
    expect((await gateway.call('POST', '/v1/nodes/join-tokens?dryRun=true', { body: {} })).json).toMatchObject({ dryRun: true, events: [{ type: 'JoinTokenIssued' }] });
    expect(await gateway.head()).toBe(head);

    const issued = await gateway.call('POST', '/v1/tokens', { body: { name: 'real' } });
    expect((await gateway.call('DELETE', `/v1/tokens/${issued.json.id}?dryRun=true`)).json).toMatchObject({ dryRun: true, events: [{ type: 'ApiTokenRevoked' }] });
    expect((await gateway.call('GET', '/v1/tokens/self', { token: issued.json.token as string })).status).toBe(200);

    const join = (await gateway.call('POST', '/v1/nodes/join-tokens', { body: {} })).json.token as string;
    const before = await gateway.head();
    const body = { name: 'n', machineId: 'machine-n', credentialKey: createAgentKey().publicKey, sealKey: 'x'.repeat(43) };
    const joining = await gateway.call('POST', '/v1/nodes/join?dryRun=true', { token: join, body });
    expect(joining.json).toMatchObject({ dryRun: true, events: [{ type: 'JoinTokenRedeemed' }, { type: 'NodeRegistered' }] });
    expect(joining.json.natsJwt).toBeUndefined();
    expect(await gateway.head()).toBe(before);
  });
});

describe('If-Match', () => {
  const change = (id: string, description: string, match?: string): Promise<Called> => gateway.call('PATCH', `/v1/vms/${id}`, { body: { description }, ...(match === undefined ? {} : { headers: { 'if-match': match } }) });

  it('lets a write through when the thing is as it was read, and gives the next ETag', async () => {
    const id = await created('tagged');
    const read = await gateway.call('GET', `/v1/vms/${id}`);
    expect(read.headers.get('etag')).toBe('"1"');
    expect(read.json.version).toBe(1);
    const first = await change(id, 'one', '"1"');
    expect(first.status).toBe(200);
    expect(first.headers.get('etag')).toBe('"2"');
    expect((await change(id, 'two', first.headers.get('etag') ?? '')).status).toBe(200);
    expect((await change(id, 'three', '*')).status).toBe(200);
  });

  it('refuses a stale one with the version that is and with the fields that differ, and writes nothing', async () => {
    const id = await created('contested');
    await change(id, 'by somebody else');
    const head = await gateway.head();
    const stale = await change(id, 'mine', '"1"');
    expect(stale.status).toBe(412);
    ProblemAnswer.parse(stale.json);
    expect(stale.json).toMatchObject({ code: 'precondition.failed', because: { expected: 1, version: 2, changed: { description: { was: '', is: 'by somebody else' } }, since: [{ version: 2, type: 'VmChanged', actor: expect.stringMatching(/^token_/) }] } });
    expect(Object.keys(stale.json.because.changed)).toEqual(['description']);
    expect(stale.json.detail).toContain('description');
    expect(await gateway.head()).toBe(head);
    expect((await gateway.call('PATCH', `/v1/vms/${id}?dryRun=true`, { body: { description: 'mine' }, headers: { 'if-match': '"1"' } })).json).toMatchObject({ code: 'precondition.failed', because: { version: 2 } });
  });

  it('never holds for what does not exist yet', async () => {
    const headers = { 'if-match': '"1"' };
    const head = await gateway.head();
    for (const [path, body] of [['/v1/vms', wish('unseen')], ['/v1/vms', wish('unseen', { count: 2 })], ['/v1/tokens', { name: 'unseen' }], ['/v1/nodes/join-tokens', {}]] as const) {
      expect(await gateway.call('POST', path, { body, headers })).toMatchObject({ status: 412, json: { because: { expected: 1, version: 0 } } });
    }
    expect(await gateway.head()).toBe(head);
  });

  it('does not mind what a node merely saw', async () => {
    const id = await created('watched');
    await gateway.append(`vm-${id}`, observed);
    await until(async () => (await gateway.call('GET', `/v1/vms/${id}`)).headers.get('etag') === '"2"');
    expect((await change(id, 'seen', '"1"')).status).toBe(200);
    expect((await change(id, 'again', '"2"')).status).toBe(412);
  });

  it('belongs to the request that a key stands for', async () => {
    const id = await created('keyed');
    const headers = { 'idempotency-key': 'patch', 'if-match': '"1"' };
    const once = await gateway.call('PATCH', `/v1/vms/${id}`, { body: { description: 'x' }, headers });
    // Its own change does not make it stale.
    const again = await gateway.call('PATCH', `/v1/vms/${id}`, { body: { description: 'x' }, headers });
    expect([once.status, again.status]).toEqual([200, 200]);
    expect(await gateway.call('PATCH', `/v1/vms/${id}`, { body: { description: 'x' }, headers: { ...headers, 'if-match': '"2"' } })).toMatchObject({ status: 409, json: { code: 'idempotency.key_reused' } });
  });

  it('holds for networks by what of them is decided, and for images, nodes and tokens', async () => {
    const { network, subnet, image } = ids;
    await gateway.append(`network-${network}`, { type: 'NetworkCreated', data: { networkId: network, subnetId: subnet, name: 'default', kind: 'nat', cidr: '10.21.0.0/24', gateway: '10.21.0.1', prefix: 24, bridge: 'cvbr-0' } });
    await gateway.append(`subnet-${subnet}`, { type: 'SubnetCreated', data: { subnetId: subnet, networkId: network, cidr: '10.21.0.0/24', gateway: '10.21.0.1', reserved: [] } });
    await gateway.append(`image-${image}`, { type: 'ImageRegistered', data: { imageId: image, name: 'tiny', file: 'tiny.qcow2', format: 'qcow2', sha256: 'a'.repeat(64), sizeBytes: 1, minDiskGib: 1, minMemoryMib: 64 } });
    const node = ids.nodeOf('tagged');
    const last = await gateway.append(`node-${node}`, { type: 'NodeRegistered', data: { nodeId: node, name: 'tagged', machineId: 'm', credentialKey: createAgentKey().publicKey, sealKey: 'x'.repeat(43) } });
    const tagOf = async (path: string): Promise<string | null> => {
      const read = await gateway.call('GET', path, { headers: { 'cv-at-least': String(last) } });
      expect(`"${String(read.json.version)}"`).toBe(read.headers.get('etag'));
      return read.headers.get('etag');
    };
    expect([await tagOf(`/v1/networks/${network}`), await tagOf(`/v1/images/${image}`), await tagOf(`/v1/nodes/${node}`)]).toEqual(['"1"', '"1"', '"1"']);

    gateway.obey.set('ipam', ({ target, data }) => ({ stream: `subnet-${target}`, decision: [{ type: 'AddressesReserved', data: { addresses: data['reserve'] } }] }));
    const reserve = (address: string, match: string) => gateway.call('PATCH', `/v1/networks/${network}`, { body: { reserve: [address] }, headers: { 'if-match': match } });
    await gateway.append(`subnet-${subnet}`, { type: 'AddressLeased', data: { vmId: `vm_${ids.digits('v')}`, address: '10.21.0.2', mac: '52:54:0a:15:00:02' } });
    const reserved = await reserve('10.21.0.9', '"1"');
    expect(reserved).toMatchObject({ status: 200, json: { reserved: ['10.21.0.9'], version: 3 } });
    expect(await reserve('10.21.0.10', '"1"')).toMatchObject({ status: 412, json: { because: { version: 3, changed: { reserved: { was: [], is: ['10.21.0.9'] } } } } });

    const issued = await gateway.call('POST', '/v1/tokens', { body: { name: 'tagged' } });
    expect(await tagOf(`/v1/tokens/${issued.json.id}`)).toBe('"1"');
    expect((await gateway.call('GET', `/v1/tokens/${issued.json.id}`)).text).not.toContain('sha256');
    expect(await gateway.call('DELETE', `/v1/tokens/${issued.json.id}`, { headers: { 'if-match': '"7"' } })).toMatchObject({ status: 412, json: { because: { version: 1 } } });
    expect((await gateway.call('DELETE', `/v1/tokens/${issued.json.id}`, { headers: { 'if-match': '"1"' } })).status).toBe(204);
  });
});

describe('A refusal because of VMs', () => {
  it('names them', async () => {
    const id = await created('in-the-way');
    // Names are those of the projection, which comes after the log.
    await until(async () => (await gateway.call('GET', `/v1/vms/${id}`)).json['version'] !== null);
    gateway.obey.set('ipam', ({ target }) => ({ stream: `network-${target}`, decision: { refused: 'subnet.in_use', because: { networkId: target, count: 12, vms: [id] } } }));
    expect(await gateway.call('DELETE', `/v1/networks/${ids.network}`)).toMatchObject({
      status: 409, json: { code: 'subnet.in_use', because: { count: 12, vms: [{ id, name: 'in-the-way' }] }, detail: 'The network is used by in-the-way and 11 more: delete them or take their interfaces away first.' },
    });
  });
});
