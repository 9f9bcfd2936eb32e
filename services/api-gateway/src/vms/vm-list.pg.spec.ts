import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ids, requested, startTestingGateway, type TestingGateway, until, wish } from '../testing-gateway.os.ts';

let gateway: TestingGateway;

const vmId = (name: string): string => `vm_${ids.digits(name)}`;
const operationId = (name: string): string => `op_${ids.digits(name)}`;

const add = (name: string, more: object = {}): Promise<number> =>
  gateway.append(`vm-${vmId(name)}`, requested({ data: { vmId: vmId(name), operationId: operationId(name), ...wish(name, more) } }));

const run = (name: string, node: string, address: string): Promise<number> =>
  gateway.append(`vm-${vmId(name)}`,
    { type: 'VmPlaced', data: { operationId: operationId(name), nodeId: ids.nodeOf(node), poolId: ids.pool, generation: 1, decision: {} } },
    { type: 'VmProvisioned', data: { operationId: operationId(name), provisioned: { poolId: ids.pool, volumeId: `volume_${ids.digits(name)}`, address, prefix: 24, mac: '52:54:0a:15:00:05' } } },
    { type: 'VmObserved', data: { nodeId: ids.nodeOf(node), session: 1, sequence: 1, generation: 1, state: 'running', reason: 'booted' } },
    { type: 'VmOperationDone', data: { operationId: operationId(name), how: 'built' } });

const node = (name: string): Promise<number> => gateway.append(`node-${ids.nodeOf(name)}`, { type: 'NodeRegistered', data: { nodeId: ids.nodeOf(name), name, machineId: name, credentialKey: `U${'A'.repeat(55)}`, sealKey: 'x'.repeat(43) } });

let position = 0;
const list = async (query: string): Promise<{ items: { name: string; status: string; statusBecause: string | null }[]; next: string | null; count?: number }> => {
  const read = await gateway.call('GET', `/v1/vms?${query}`, { headers: { 'cv-at-least': String(position) } });
  expect(read.status, read.text).toBe(200);
  return read.json as never;
};
const names = async (query: string): Promise<readonly string[]> => (await list(query)).items.map(({ name }) => name);

beforeAll(async () => {
  gateway = await startTestingGateway();
  await gateway.append(`image-${ids.image}`, { type: 'ImageRegistered', data: { imageId: ids.image, name: 'tiny', file: 'tiny.qcow2', format: 'qcow2', sha256: 'a'.repeat(64), sizeBytes: 1, minDiskGib: 1, minMemoryMib: 64 } });
  await gateway.append(`network-${ids.network}`, { type: 'NetworkCreated', data: { networkId: ids.network, subnetId: ids.subnet, name: 'default', kind: 'nat', cidr: '10.21.0.0/24', gateway: '10.21.0.1', prefix: 24, bridge: 'cvbr-0' } });
  await node('red');
  await node('blue');
  await add('web-1', { memoryMib: 256, tags: ['web', 'eu'] });
  await add('web-2', { memoryMib: 512, tags: ['web'], description: '100% of Friday_shop' });
  await add('db-1', { memoryMib: 2_048, vcpus: 4, tags: ['db'] });
  await add('idle');
  await run('web-1', 'red', '10.21.0.5');
  await run('web-2', 'red', '10.21.0.6');
  position = await run('db-1', 'blue', '10.21.0.7');
});
afterAll(async () => { await gateway?.close(); });

describe('GET /v1/vms', () => {
  it.each([
    ['status=running', ['web-1', 'web-2', 'db-1']],
    ['status[ne]=running', ['idle']],
    ['status[in]=running,requested&sort=name', ['db-1', 'idle', 'web-1', 'web-2']],
    ['name=web-1', ['web-1']],
    ['name=web*', ['web-1', 'web-2']],
    ['name[like]=*-1', ['web-1', 'db-1']],
    ['name[like]=_eb-1', []],
    ['name[gt]=idle&sort=name', ['web-1', 'web-2']],
    ['memoryMib[gt]=256', ['web-2', 'db-1']],
    ['memoryMib[lt]=512&sort=-memoryMib', ['web-1', 'idle']],
    ['vcpus[notin]=1,2', ['db-1']],
    ['tag=web', ['web-1', 'web-2']],
    ['tag=web&tag=eu', ['web-1']],
    ['tag[ne]=web', ['db-1', 'idle']],
    ['tag=e*', ['web-1']],
    ['node=red', ['web-1', 'web-2']],
    [`node=${ids.nodeOf('blue')}`, ['db-1']],
    ['node[ne]=red', ['db-1', 'idle']],
    ['image=tiny&network=default&sort=name&limit=2', ['db-1', 'idle']],
    ['image=other', []],
    ['ip=10.21.0.6', ['web-2']],
    ['ip=10.21.*', ['web-1', 'web-2', 'db-1']],
    ['q=shop', ['web-2']],
    ['q=FRIDAY+web', ['web-2']],
    ['q=100%25', ['web-2']],
    ['q=y_s', ['web-2']],
    ['q=a_s', []],
    ['q=10.21.0.7', ['db-1']],
    ['q=eu', ['web-1']],
    ['observed=running&desired=running&sort=-name', ['web-2', 'web-1', 'db-1']],
    ['createdAfter=2020-01-01T00:00:00Z&createdBefore=2099-01-01T00:00:00%2B02:00', ['web-1', 'web-2', 'db-1', 'idle']],
    ['createdAfter=2099-01-01T00:00:00Z', []],
    ['sort=-memoryMib,name', ['db-1', 'web-2', 'web-1', 'idle']],
    ['sort=status,-name', ['idle', 'web-2', 'web-1', 'db-1']],
  ])('%s', async (query, expected) => {
    expect(await names(query)).toEqual(expected);
  });

  it('counts what matches, not what the page holds', async () => {
    expect(await list('status=running&limit=1&count=true')).toMatchObject({ count: 3, items: [{ name: 'web-1' }], next: expect.any(String) });
  });

  it.each(['createdAt', '-createdAt', 'name', '-name,createdAt', 'memoryMib,-name', 'status,-vcpus', '-vcpus,-memoryMib'])('pages by %s without repeating or skipping', async (sort) => {
    const whole = await names(`sort=${sort}`);
    const paged: string[] = [];
    for (let cursor = ''; ;) {
      const page = await list(`sort=${sort}&limit=1${cursor}`);
      paged.push(...page.items.map(({ name }) => name));
      if (page.next === null) break;
      cursor = `&cursor=${page.next}`;
    }
    expect(paged).toEqual(whole);
  });

  it('refuses a cursor of another sort', async () => {
    const { next } = await list('sort=name&limit=1');
    expect((await gateway.call('GET', `/v1/vms?sort=-name&limit=1&cursor=${next ?? ''}`)).json).toMatchObject({ code: 'request.malformed', errors: [{ path: 'query.cursor' }] });
  });

  it('speaks CSV and NDJSON', async () => {
    const csv = await gateway.call('GET', '/v1/vms?name=web-*&format=csv');
    expect(csv.headers.get('content-type')).toBe('text/csv; charset=utf-8');
    expect(csv.text.split('\r\n')[0]).toMatch(/^id,name,description,status,/);
    expect(csv.text.split('\r\n')[2]).toContain('web-2,100% of Friday_shop,running');
    const lines = await gateway.call('GET', '/v1/vms?name=web-*&limit=1', { headers: { accept: 'application/x-ndjson' } });
    expect(lines.text.trim().split('\n').map((line) => (JSON.parse(line) as { name: string }).name)).toEqual(['web-1']);
    expect(lines.headers.get('link')).toMatch(/rel="next"/);
  });

  it('shows VMs of a silent node as unknown, never running, and as before when it returns', async () => {
    position = await gateway.append(`presence-${ids.nodeOf('red')}`, { type: 'NodeFellSilent', data: { nodeId: ids.nodeOf('red'), silentSince: '2026-01-31T12:00:00.000Z' } });
    expect(await names('status=running')).toEqual(['db-1']);
    const unknown = await list('status=unknown');
    expect(unknown.items).toEqual([
      expect.objectContaining({ name: 'web-1', status: 'unknown', statusBecause: 'node red silent since 2026-01-31T12:00:00.000Z' }),
      expect.objectContaining({ name: 'web-2', status: 'unknown' }),
    ]);
    expect((await gateway.call('GET', `/v1/vms/${vmId('web-1')}`)).json).toMatchObject({ status: 'unknown', observed: { state: 'running' } });
    expect((await gateway.call('GET', '/v1/nodes')).json.items).toEqual(expect.arrayContaining([expect.objectContaining({ name: 'red', status: 'silent' })]));
    const { text } = await gateway.call('GET', '/readyz');
    expect(text).toContain('silent: red');
    position = await gateway.append(`presence-${ids.nodeOf('red')}`, { type: 'NodeReturned', data: { nodeId: ids.nodeOf('red') } });
    expect(await names('status=running')).toEqual(['web-1', 'web-2', 'db-1']);
  });

  it('gives every VM that was there exactly once, while others are created and deleted', async () => {
    const there = await names('limit=1000');
    for (const sort of ['createdAt', '-name']) {
      const seen: string[] = [];
      let created = 0;
      for (let cursor = ''; ;) {
        const page = await list(`sort=${sort}&limit=1${cursor}`);
        seen.push(...page.items.map(({ name }) => name));
        // Names on both sides of where the reader is.
        if (created < 12) for (const letter of ['a', 'm', 'z']) position = await add(`${letter}-${sort.replace('-', 'x')}-${String(created++)}`);
        if (created === 12) position = await gateway.append(`vm-${vmId(`a-${sort.replace('-', 'x')}-${String(created++ - 12)}`)}`, { type: 'VmDeleted', data: { operationId: operationId('any') } });
        if (page.next === null) break;
        cursor = `&cursor=${page.next}`;
      }
      expect(seen.length).toBe(new Set(seen).size);
      expect(there.filter((name) => !seen.includes(name))).toEqual([]);
      expect(seen.length).toBeGreaterThan(there.length);
    }
  });

  it('goes on without an image that is deleted, and says so', async () => {
    const id = vmId('web-1');
    const image = async (): Promise<unknown> => (await gateway.call('GET', `/v1/vms/${id}`, { headers: { 'cv-at-least': String(position) } })).json['image'];
    const before = await names('image=tiny&sort=name');
    expect(before).toContain('web-1');
    expect(await image()).toEqual({ id: ids.image, name: 'tiny', deleted: false });
    position = await gateway.append(`image-${ids.image}`, { type: 'ImageDeleted', data: { imageId: ids.image } });
    expect(await image()).toEqual({ id: ids.image, name: null, deleted: true });
    expect(await names(`image=${ids.image}&sort=name`)).toEqual(before);
    const csv = await gateway.call('GET', '/v1/vms?name=web-1', { headers: { accept: 'text/csv' } });
    expect(csv.text).toContain(ids.image);
  });

  it('forgets a deleted VM, but not its history', async () => {
    position = await gateway.append(`vm-${vmId('idle')}`, { type: 'VmDeleted', data: { operationId: operationId('idle') } });
    expect(await names('name=idle')).toEqual([]);
    await until(async () => (await gateway.call('GET', `/v1/vms/${vmId('idle')}`)).status === 404);
    const history = await gateway.call('GET', `/v1/vms/${vmId('idle')}/history`, { headers: { 'cv-at-least': String(position) } });
    expect((history.json.items as { type: string }[]).map(({ type }) => type)).toEqual(['VmRequested', 'VmDeleted']);
  });
});
