import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { canonicalHash } from '@chronovirt/event-log/projection-hash';
import { ProjectionRunner } from '@chronovirt/event-log/projection-runner';
import { Session } from '@chronovirt/event-log/session';
import { Tail } from '@chronovirt/event-log/tail';
import pg from 'pg';
import { OperationAnswer, VmAnswer } from '../answers.ts';
import { gatewayProjections } from '../service.ts';
import { ids, obliging, startTestingGateway, type TestingGateway, until, wish } from '../testing-gateway.os.ts';

let gateway: TestingGateway;
beforeAll(async () => { gateway = await startTestingGateway(); });
afterAll(async () => { await gateway?.close(); });
beforeEach(() => { gateway.obey.set('scheduler', obliging); });

describe('POST /v1/vms', () => {
  it('answers 202 with the operation and the VM, and both can be read at once', async () => {
    const created = await gateway.call('POST', '/v1/vms', { body: wish('first', { tags: ['web'] }) });
    expect(created.status).toBe(202);
    expect(created.json.vm).toMatchObject({ name: 'first', status: 'requested', desired: 'running', observed: null });
    expect(created.json.operation).toMatchObject({ kind: 'create', status: 'pending', vmId: created.json.vm.id });
    expect(Number(created.headers.get('cv-position'))).toBeGreaterThan(0);
    VmAnswer.parse(created.json.vm);
    OperationAnswer.parse(created.json.operation);

    const vm = await gateway.call('GET', `/v1/vms/${created.json.vm.id}`);
    expect(vm.status).toBe(200);
    expect(vm.json).toMatchObject({ id: created.json.vm.id, status: 'requested', spec: { imageId: ids.image, tags: ['web'] }, operationId: created.json.operation.id });
    VmAnswer.parse(vm.json);
    const operation = await gateway.call('GET', `/v1/operations/${created.json.operation.id}`);
    expect(operation.json).toMatchObject({ kind: 'create', vmId: created.json.vm.id, actor: expect.stringMatching(/^token_/) });
    OperationAnswer.parse(operation.json);
  });

  it('makes one VM of 50 identical requests with one key, and gives 50 equal answers', async () => {
    const before = gateway.received.length;
    const all = await Promise.all(Array.from({ length: 50 }, () => gateway.call('POST', '/v1/vms', { body: wish('same'), headers: { 'idempotency-key': 'order 7' } })));
    expect(new Set(all.map(({ status }) => status))).toEqual(new Set([202]));
    expect(new Set(all.map(({ text }) => text)).size).toBe(1);
    expect(new Set(all.map(({ headers }) => headers.get('cv-position'))).size).toBe(1);
    expect(new Set(gateway.received.slice(before).map(({ id }) => id)).size).toBe(1);
    const listed = await gateway.call('GET', '/v1/vms?name=same&count=true', { headers: { 'cv-at-least': all[0]?.headers.get('cv-position') ?? '' } });
    expect(listed.json.count).toBe(1);
  });

  it('refuses another request with the same key', async () => {
    await gateway.call('POST', '/v1/vms', { body: wish('once'), headers: { 'idempotency-key': 'k' } });
    const other = await gateway.call('POST', '/v1/vms', { body: wish('twice'), headers: { 'idempotency-key': 'k' } });
    expect(other).toMatchObject({ status: 409, json: { code: 'idempotency.key_reused' } });
    expect(await gateway.call('POST', '/v1/vms', { body: wish('many', { count: 2 }), headers: { 'idempotency-key': 'k' } })).toMatchObject({ status: 409, json: { code: 'idempotency.key_reused' } });
  });

  it('turns a refusal into a problem that names the field, writes no event, and stores the answer with its actor', async () => {
    gateway.obey.set('scheduler', (envelope) => ({ stream: `vm-${envelope.target}`, decision: { refused: 'image.unknown', because: { image: 'nope', field: 'image' } } }));
    const head = await gateway.head();
    const answer = await gateway.call('POST', '/v1/vms', { body: wish('bad', { image: 'nope' }) });
    expect(answer).toMatchObject({ status: 422, json: { code: 'image.unknown', status: 422, errors: [{ path: 'body.image', code: 'image.unknown' }] } });
    expect(answer.headers.get('content-type')).toContain('application/problem+json');
    expect(await gateway.head()).toBe(head);
    const command = gateway.received.find(({ data }) => data['name'] === 'bad');
    expect(await gateway.log.answered(command?.id ?? '')).toMatchObject({ answer: { refused: 'image.unknown' } });
    expect(command?.meta.actor).toMatch(/^token_/);
  });

  it('accepts what nobody answers as pending, shows it, and hands it over when somebody comes', async () => {
    gateway.obey.set('scheduler', () => undefined);
    const startedAt = Date.now();
    const created = await gateway.call('POST', '/v1/vms', { body: wish('patient') });
    expect(created.status).toBe(202);
    expect(Date.now() - startedAt).toBeGreaterThanOrEqual(1_900);
    const { vm, operation } = created.json as { vm: { id: string }; operation: { id: string } };
    expect((await until(async () => { const read = await gateway.call('GET', `/v1/vms/${vm.id}`); return read.status === 200 ? read : undefined; })).json).toMatchObject({ status: 'requested', name: 'patient' });
    expect((await gateway.call('GET', `/v1/operations/${operation.id}`)).json).toMatchObject({ status: 'pending' });
    gateway.obey.set('scheduler', obliging);
    await until(async () => (await gateway.call('GET', `/v1/vms/${vm.id}`)).json.position !== null, 8_000);
  });

  it('shows the refusal of what was accepted as pending', async () => {
    gateway.obey.set('scheduler', () => undefined);
    const created = await gateway.call('POST', '/v1/vms', { body: wish('doomed') });
    gateway.obey.set('scheduler', (envelope) => ({ stream: `vm-${envelope.target}`, decision: { refused: 'placement.no_host', because: { none: 'no node has joined yet' } } }));
    const failed = await until(async () => { const read = await gateway.call('GET', `/v1/operations/${created.json.operation.id}`); return read.json?.status === 'failed' ? read : undefined; }, 8_000);
    expect(failed.json).toMatchObject({ error: { code: 'placement.no_host' } });
    expect((await gateway.call('GET', `/v1/vms/${created.json.vm.id}`)).status).toBe(404);
  });

  it('makes count VMs under one parent, and repeats nothing with the same key', async () => {
    const body = wish('batch', { count: 20 });
    const [one, again] = await Promise.all([1, 2].map(() => gateway.call('POST', '/v1/vms', { body, headers: { 'idempotency-key': 'twenty' } })));
    expect(one?.status).toBe(202);
    expect(one?.text).toBe(again?.text);
    expect(one?.json.vms).toHaveLength(20);
    const parent = one?.json.operation.id as string;
    await until(async () => (await gateway.call('GET', '/v1/vms?name=batch-*&count=true')).json.count === 20);
    const shown = await gateway.call('GET', `/v1/operations/${parent}`);
    expect(shown.json).toMatchObject({ kind: 'create-vms', status: 'pending', counts: { pending: 20 } });
    expect(shown.json.members).toHaveLength(20);
    OperationAnswer.parse(shown.json);
    for (const { operationId } of shown.json.members as { operationId: string }[]) {
      const vm = (await gateway.call('GET', `/v1/operations/${operationId}`)).json.vmId as string;
      await gateway.append(`vm-${vm}`, { type: 'VmOperationDone', data: { operationId, how: 'built' } });
    }
    const done = await until(async () => { const read = await gateway.call('GET', `/v1/operations/${parent}`); return read.json.status === 'succeeded' ? read : undefined; });
    expect(done.json).toMatchObject({ percent: 100, counts: { succeeded: 20 } });
  });
});

describe('operations by status', () => {
  const idsOf = async (status: string, more = ''): Promise<string[]> => {
    const found: string[] = [];
    for (let cursor = ''; ;) {
      const { json } = await gateway.call('GET', `/v1/operations?status=${status}&limit=3${more}${cursor}`);
      for (const operation of json.items as { id: string; status: string }[]) {
        expect(operation.status).toBe(status);
        found.push(operation.id);
      }
      if (json.next === null) return found;
      cursor = `&cursor=${encodeURIComponent(json.next as string)}`;
    }
  };

  it('go by what is shown: a batch by its members, an accepted command by its answer', async () => {
    const batch = (await gateway.call('POST', '/v1/vms', { body: wish('by-status', { count: 4 }) })).json.operation as { id: string; members: { operationId: string; vmId: string }[] };
    await until(async () => (await gateway.call('GET', '/v1/vms?name=by-status-*&count=true')).json.count === 4);
    await until(async () => (await idsOf('pending')).includes(batch.id));
    for (const { operationId, vmId } of batch.members) await gateway.append(`vm-${vmId}`, { type: 'VmOperationDone', data: { operationId, how: 'built' } });
    await until(async () => (await gateway.call('GET', `/v1/operations/${batch.id}`)).json.status === 'succeeded');

    gateway.obey.set('scheduler', () => undefined);
    const doomed = (await gateway.call('POST', '/v1/vms', { body: wish('by-answer') })).json.operation.id as string;
    await until(async () => (await idsOf('pending')).includes(doomed));
    gateway.obey.set('scheduler', (envelope) => ({ stream: `vm-${envelope.target}`, decision: { refused: 'placement.no_host', because: {} } }));
    await until(async () => (await gateway.call('GET', `/v1/operations/${doomed}`)).json?.status === 'failed', 8_000);

    const [pending, succeeded, failed] = [await idsOf('pending'), await idsOf('succeeded'), await idsOf('failed')];
    expect(succeeded).toEqual(expect.arrayContaining([batch.id, ...batch.members.map(({ operationId }) => operationId)]));
    expect(failed).toContain(doomed);
    for (const id of [batch.id, doomed]) expect(pending).not.toContain(id);
    for (const list of [pending, succeeded, failed]) expect(new Set(list).size).toBe(list.length);
    const all = await gateway.call('GET', '/v1/operations?limit=1000');
    expect(succeeded.length).toBe((all.json.items as { status: string }[]).filter(({ status }) => status === 'succeeded').length);
  });
});

describe('while Postgres is away', () => {
  it('nothing is promised: 503 with the time to come back, and the same key works once it is there', async () => {
    const body = wish('cut-off');
    const key = { 'idempotency-key': 'cut off' };
    await gateway.call('GET', '/v1/vms');
    gateway.obey.set('scheduler', () => undefined);
    gateway.cutPostgres(true);
    try {
      const [created, read] = await Promise.all([gateway.call('POST', '/v1/vms', { body, headers: key }), gateway.call('GET', '/v1/vms?limit=1')]);
      expect(created).toMatchObject({ status: 503, json: { code: 'gateway.unavailable' } });
      expect(created.headers.get('retry-after')).toBe('1');
      expect(read).toMatchObject({ status: 503, json: { code: 'gateway.unavailable' } });
      expect((await gateway.call('GET', '/readyz')).status).toBe(503);
      expect((await gateway.call('GET', '/livez')).status).toBe(200);
    } finally {
      gateway.cutPostgres(false);
    }
    gateway.obey.set('scheduler', obliging);
    const created = await until(async () => { const again = await gateway.call('POST', '/v1/vms', { body, headers: key }); return again.status === 202 ? again : undefined; }, 15_000);
    expect(created.json.vm.name).toBe('cut-off');
    await until(async () => (await gateway.call('GET', '/v1/vms?name=cut-off&count=true')).json.count === 1, 15_000);
  });
});

describe('every projection', () => {
  it('dropped and made again from the log is the same, to the byte', async () => {
    const url = gateway.database.urlOf('cv_gateway');
    const pool = new pg.Pool({ connectionString: url, max: 3 });
    const session = new Session({ url });
    const tail = new Tail({ session, log: gateway.log });
    const rebuilder = new ProjectionRunner({ pool, session, tail, log: gateway.log, schema: 'gateway', projections: gatewayProjections });
    const caughtUp = (): Promise<number> => until(async () => { const head = await gateway.head(); return (await gateway.call('GET', '/v1/vms?limit=1')).headers.get('cv-position') === String(head) ? head : undefined; }, 15_000);
    try {
      for (const projection of gatewayProjections) {
        // What was under way when Postgres was cut off may come to its end only now, between the two looks.
        await until(async () => {
          const head = await caughtUp();
          const before = await canonicalHash(pool, projection);
          await rebuilder.rebuild(projection.name);
          const after = await canonicalHash(pool, projection);
          if ((await gateway.head()) !== head) return false;
          expect(`${projection.name} ${after}`).toBe(`${projection.name} ${before}`);
          return true;
        }, 20_000);
      }
    } finally {
      await pool.end();
    }
    // And whoever filled them goes on with the new ones.
    const { json } = await gateway.call('POST', '/v1/vms', { body: wish('after-rebuild') });
    await until(async () => (await gateway.call('GET', `/v1/vms/${String(json.vm.id)}`)).json.position !== null);
  });
});
