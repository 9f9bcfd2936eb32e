/* Guards of every write, on the real services: what is told beforehand comes true, nothing is written on a stale word, and what is in the way is named. */
import { randomInt } from 'node:crypto';
import { sequence } from '@chronovirt/decider/saga-property';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { readEvents } from './ledger.ts';
import { startPlatform, type Platform } from './platform.ts';
import { wish, type Accepted, type Event, type Rest, type Vm } from './rest.ts';

const WRITES = Number(process.env['CV_WRITES'] ?? 120);

interface Rehearsal {
  readonly dryRun: true;
  readonly version: number;
  readonly events: readonly Pick<Event, 'type' | 'category' | 'subject' | 'data'>[];
  readonly placement?: { readonly nodeId: string | null; readonly refused?: string; readonly decision?: { readonly scores?: object } };
  readonly members?: readonly { readonly name: string; readonly vmId: string; readonly placement?: { readonly nodeId: string | null; readonly refused?: string } }[];
}

interface Refusal {
  readonly status: number;
  readonly code: string;
  readonly detail: string;
  readonly because: { readonly count?: number; readonly vms?: readonly { readonly id: string; readonly name: string }[]; readonly version?: number; readonly changed?: object };
}

describe('guards', () => {
  let platform: Platform;
  let rest: Rest;
  beforeAll(async () => {
    // Memory for four of the smallest on each node, beside what is kept for the host.
    platform = await startPlatform({ fleet: { nodes: 2, cpus: 2, memoryMib: 1_024 } });
    ({ rest } = platform);
  });
  afterAll(() => platform.stop());

  /** Events of everything but sagas, which go on by themselves. */
  const settled = async (): Promise<number> => (await readEvents(platform)).filter(({ stream }) => !stream.startsWith('saga-')).length;
  /** The same that stand in the log behind a position. */
  const recorded = async (after: number): Promise<readonly Event[]> =>
    (await rest.ok<{ items: readonly Event[] }>('GET', `/v1/events?after=${String(after)}&limit=100`)).items.filter(({ category }) => !category.startsWith('saga-'));
  const shown = ({ type, category, subject, data }: Pick<Event, 'type' | 'category' | 'subject' | 'data'>): object => ({ type, category, subject, data });
  const refusal = async (method: string, path: string, body?: unknown, headers?: Readonly<Record<string, string>>): Promise<Refusal> => (await rest.call<Refusal>(method, path, body, headers === undefined ? {} : { headers })).body;
  const idOf = async (list: string, name: string): Promise<string> => (await rest.all<{ id: string; name: string }>(list)).find((one) => one.name === name)?.id ?? '';

  it('C-08 a dry run of a write tells the events that then stand in the log, and writes none', async () => {
    const vm = await rest.running(wish('subject'));
    const network = { name: 'dry', kind: 'nat', cidr: '10.97.0.0/28', reserved: ['10.97.0.5'] };
    const image = { name: 'dry', file: 'dry.qcow2', format: 'qcow2', sha256: 'd'.repeat(64), sizeBytes: 1 };
    const node = (await rest.all<{ id: string }>('/v1/nodes'))[0]?.id ?? '';
    const steps: readonly (readonly [method: string, path: () => Promise<string> | string, body?: unknown])[] = [
      ['POST', () => '/v1/networks', network],
      ['PATCH', async () => `/v1/networks/${await idOf('/v1/networks', 'dry')}`, { reserve: ['10.97.0.6'] }],
      ['DELETE', async () => `/v1/networks/${await idOf('/v1/networks', 'dry')}`],
      ['POST', () => '/v1/images', image],
      ['DELETE', async () => `/v1/images/${await idOf('/v1/images', 'dry')}`],
      ['PATCH', () => `/v1/nodes/${node}`, { cpuPercent: 700 }],
      ['PATCH', () => `/v1/vms/${vm.id}`, { tags: ['dry'] }],
      ['POST', () => `/v1/vms/${vm.id}/reset`],
    ];
    for (const [method, path, body] of steps) {
      const [at, key] = [await path(), `dry ${method} ${await path()}`];
      const [position, before] = [(await readEvents(platform)).length, await settled()];
      const { status, body: said } = await rest.call<Rehearsal>(method, `${at}?dryRun=true`, body, { key });
      expect(status, JSON.stringify(said)).toBe(200);
      expect(await settled(), at).toBe(before);
      await rest.ok(method, at, body, { key });
      const after = await recorded(position);
      expect(said.events.map(shown), at).toEqual(after.slice(0, said.events.length).map(shown));
      expect(said.events.length).toBeGreaterThan(0);
    }
    await rest.until('the reset is over', async () => (await rest.vm(vm.id)).operationId === null, 30_000);
    await rest.gone(vm.id);
  });

  it('C-08 whatever is drawn to be asked next, a dry run tells its events, or its refusal', async () => {
    const seed = Number(process.env['CV_SEED'] ?? randomInt(2 ** 32));
    const random = sequence(seed);
    const below = (max: number): number => Math.floor(random() * max);
    const pick = <T>(all: readonly T[]): T | undefined => all[below(all.length)];
    // Where there is none yet it is asked for nothing.
    const one = async (list: string): Promise<string> => {
      const there = await rest.all<{ id: string; name?: string }>(list).catch(() => []);
      // What every VM here is made with stays.
      return pick(there.filter(({ name }) => name !== 'blank' && name !== 'lab'))?.id ?? 'nothing';
    };
    const vm = async (): Promise<string> => `/v1/vms/${await one('/v1/vms')}`;
    const node = (await rest.all<{ id: string }>('/v1/nodes'))[0]?.id ?? '';
    type Ask = readonly [method: string, path: string, body?: unknown];
    const kinds: readonly (() => Ask | Promise<Ask>)[] = [
      () => ['POST', '/v1/networks', { name: `net-${String(below(4))}`, kind: 'nat', cidr: `10.96.${String(below(4))}.0/28` }],
      async () => ['PATCH', `/v1/networks/${await one('/v1/networks')}`, { reserve: [`10.96.0.${String(2 + below(12))}`] }],
      async () => ['DELETE', `/v1/networks/${await one('/v1/networks')}`],
      () => ['POST', '/v1/images', { name: `image-${String(below(4))}`, file: 'x.qcow2', format: 'qcow2', sha256: String(below(10)).repeat(64), sizeBytes: 1 }],
      async () => ['DELETE', `/v1/images/${await one('/v1/images')}`],
      () => ['PATCH', `/v1/nodes/${node}`, { cpuPercent: 500 + 100 * below(3) }],
      async () => ['PATCH', await vm(), { tags: [`tag-${String(below(3))}`], description: String(below(3)) }],
      async () => ['PATCH', `${await vm()}/hardware`, { vcpus: 1 + below(3) }],
      async () => ['PATCH', `${await vm()}/hardware`, { memoryMib: 128 * (1 + below(3)) }],
      async () => ['POST', `${await vm()}/${pick(['start', 'pause', 'resume', 'reset', 'reboot', 'save']) ?? ''}`],
      async () => ['POST', `${await vm()}/stop`, { timeoutSeconds: 1, force: true }],
      async () => ['POST', `${await vm()}/snapshots`, { name: `point-${String(below(3))}` }],
      async () => { const of = await vm(); return ['POST', `${of}/snapshots/${await one(`${of}/snapshots`)}/revert`]; },
      async () => { const of = await vm(); return ['DELETE', `${of}/snapshots/${await one(`${of}/snapshots`)}`]; },
      async () => ['POST', `${await vm()}/volumes`, { name: `more-${String(below(4))}`, sizeGib: 1 }],
      async () => { const of = await vm(); return ['DELETE', `${of}/volumes/${(await rest.call<{ volumes?: readonly { volumeId: string }[] }>('GET', of)).body.volumes?.[0]?.volumeId ?? 'nothing'}`]; },
      async () => ['POST', `${await vm()}/nics`, { network: await one('/v1/networks') }],
      () => ['POST', '/v1/volumes', { name: `alone-${String(below(4))}`, sizeGib: 1 }],
      async () => ['DELETE', `/v1/volumes/${await one('/v1/volumes')}`],
      () => ['PUT', `/v1/drift-policies/${pick(['missing', 'changed']) ?? ''}`, { action: pick(['alert', 'revert', 'ignore']) }],
      () => ['POST', '/v1/boot-jobs', { name: `job-${String(below(4))}`, script: '#!/bin/sh\n' }],
      async () => ['DELETE', `/v1/boot-jobs/${await one('/v1/boot-jobs')}`],
      () => ['POST', '/v1/vms', wish(`new-${String(below(3))}`)],
      async () => ['DELETE', await vm()],
    ];
    const said = { told: 0, refused: 0 };
    for (let n = 0; n < WRITES; n++) {
      const [method, path, body] = await (pick(kinds) as (typeof kinds)[number])();
      const key = `drawn ${String(n)}`;
      const about = `${method} ${path} ${JSON.stringify(body)}, ${String(n)} of CV_SEED=${String(seed)}`;
      const position = (await readEvents(platform)).length;
      const rehearsed = await rest.call<Rehearsal & Refusal>(method, `${path}?dryRun=true`, body, { key });
      const done = await rest.call<(Accepted & Refusal) | undefined>(method, path, body, { key });
      expect([rehearsed.body.code, rehearsed.body.because], about).toEqual([done.body?.code, done.body?.because]);
      said[rehearsed.status < 300 ? 'told' : 'refused']++;
      if (rehearsed.status >= 300) continue;
      // What else happens meanwhile is of other commands.
      const after = await recorded(position);
      const commands = new Set(after.filter(({ type, subject }) => rehearsed.body.events.some((told) => told.type === type && told.subject === subject)).map(({ commandId }) => commandId));
      const own = after.filter(({ commandId }) => commands.has(commandId));
      expect(rehearsed.body.events.map(shown), about).toEqual(own.map(shown));
      if (done.status === 202) {
        const { id = '' } = done.body?.operation ?? {};
        await rest.ended(id, 60_000).catch(async (cause: unknown) => { throw new Error(`${about}: ${JSON.stringify(await rest.operation(id))}`, { cause }); });
      }
    }
    expect(Math.min(said.told, said.refused)).toBeGreaterThan(WRITES / 10);
    for (const { id } of await rest.all<Vm>('/v1/vms')) await rest.done('DELETE', `/v1/vms/${id}?force=true&deleteDisks=true`);
  }, 600_000);

  it('C-08 a dry run says where a VM would come, and of a batch how far it would fit', async () => {
    const key = 'placed';
    const { body: said } = await rest.call<Rehearsal>('POST', '/v1/vms?dryRun=true', wish('placed'), { key });
    expect(said.events).toMatchObject([{ type: 'VmRequested', category: 'vm' }]);
    expect(said.placement?.decision).toBeDefined();
    const { vm, operation } = await rest.create(wish('placed'), key);
    await rest.succeeded(operation.id);
    expect(await rest.vm(vm.id)).toMatchObject({ id: said.events[0]?.subject, nodeId: said.placement?.nodeId });
    await rest.gone(vm.id);

    const position = (await readEvents(platform)).length;
    const { body: batch } = await rest.call<Rehearsal>('POST', '/v1/vms?dryRun=true', wish('many', { count: 10 }));
    const nodes = batch.members?.map(({ placement }) => placement?.nodeId ?? placement?.refused);
    expect(nodes?.filter((node) => node?.startsWith('node_'))).toHaveLength(8);
    expect(new Set(nodes)).toHaveLength(3);
    expect(nodes?.slice(8)).toEqual(['placement.no_host', 'placement.no_host']);
    // What nodes report of those that were drawn before may still come.
    expect((await recorded(position)).filter(({ type }) => type === 'VmRequested')).toEqual([]);
    expect(await rest.all('/v1/vms?name=many-1')).toEqual([]);
  });

  it('C-08 a stale If-Match is told what changed, and a running VM that is only watched stays as it was read', async () => {
    const vm = await rest.running(wish('matched'));
    const { headers } = await rest.call('GET', `/v1/vms/${vm.id}`);
    const tag = headers.get('etag') ?? '';
    expect(tag).toMatch(/^"\d+"$/);
    expect((await rest.call('PATCH', `/v1/vms/${vm.id}`, { description: 'first' }, { headers: { 'if-match': tag } })).status).toBe(200);
    const stale = await refusal('DELETE', `/v1/vms/${vm.id}?force=true`, undefined, { 'if-match': tag });
    expect(stale).toMatchObject({ status: 412, code: 'precondition.failed', because: { changed: { description: { was: '', is: 'first' } } } });
    expect(stale.because.version).toBe(Number(tag.slice(1, -1)) + 1);
    expect((await rest.vm(vm.id)).desired).toBe('running');
    await rest.gone(vm.id);
  });

  it('A3-06 whatever VMs need stays, and they are named: an image, a network, a node, also of a stopped one', async () => {
    const vm = await rest.running(wish('in-the-way'));
    await rest.done('POST', `/v1/vms/${vm.id}/stop`, { timeoutSeconds: 1, force: true });
    const { nodeId } = await rest.vm(vm.id) as Vm & { nodeId: string };
    const [image, network] = [await idOf('/v1/images', 'blank'), await idOf('/v1/networks', 'lab')];
    const named = { because: { count: 1, vms: [{ id: vm.id, name: 'in-the-way' }] }, status: 409 };
    for (const [path, code] of [[`/v1/images/${image}`, 'image.in_use'], [`/v1/networks/${network}`, 'subnet.in_use'], [`/v1/nodes/${nodeId}`, 'node.in_use']] as const) {
      const [said, done] = [await refusal('DELETE', `${path}?dryRun=true`), await refusal('DELETE', path)];
      expect(done, path).toMatchObject({ ...named, code });
      expect(done.detail).toContain('in-the-way');
      expect(said).toEqual(done);
    }
    const { body: forced } = await rest.call<Rehearsal>('DELETE', `/v1/nodes/${nodeId}?force=true&dryRun=true`);
    expect(forced.events).toMatchObject([{ type: 'NodeRemoved' }]);
    expect((await rest.call('GET', `/v1/nodes/${nodeId}`)).status).toBe(200);

    await rest.gone(vm.id);
    expect((await rest.call('DELETE', `/v1/images/${image}`)).status).toBe(204);
    expect((await rest.call('DELETE', `/v1/networks/${network}`)).status).toBe(204);
    expect((await rest.call('DELETE', `/v1/nodes/${nodeId}`)).status).toBe(204);
  });
});
