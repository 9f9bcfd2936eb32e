/* What a user does, by REST, on simulated nodes whose machines the test can look into. */
import { randomBytes } from 'node:crypto';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { uuidOf, type VmId } from '@chronovirt/contracts/ids';
import { connect } from '@chronovirt/libvirt/connection';
import { errorCodes } from '@chronovirt/libvirt/errors';
import { targetOf } from '@chronovirt/libvirt/fake/daemon';
import { connectBus } from '@chronovirt/messaging/connect';
import { sendHeartbeat } from '@chronovirt/messaging/listen';
import type { FakeMachine } from '@chronovirt/node-agent/simulated/fake-machine.os';
import { atRest, simulatedViews, type NodeView } from './invariants.ts';
import { startPlatform, type Platform } from './platform.ts';
import { Refused, wish, type Accepted, type Event, type Operation, type Rest, type Vm } from './rest.ts';

interface NodeShown {
  readonly id: string;
  readonly name: string;
  readonly vms: number;
}

const POLICY = { accepting: true, maintenance: false, cpuPercent: 800, memoryPercent: 100, memoryReserveMib: 512, memoryUsedPercentMax: 100 };

describe('virtual machines on simulated nodes', () => {
  let platform: Platform;
  let rest: Rest;
  let views: readonly NodeView[] = [];
  let nodes: readonly NodeShown[] = [];
  beforeAll(async () => {
    platform = await startPlatform({ split: false, here: { nodes: 3, cpus: 4, memoryMib: 4_608, latencyMs: 15 } });
    ({ rest } = platform);
    views = await simulatedViews(platform);
    nodes = [...await rest.all<NodeShown>('/v1/nodes')].sort((a, b) => (a.name < b.name ? -1 : 1));
  });
  /** Every test begins with empty nodes, and none may leave anything behind. */
  afterEach(async () => {
    await Promise.all((await rest.all<Vm>('/v1/vms?limit=1000')).map(({ id }) => rest.gone(id)));
    await Promise.all(nodes.map(({ id }) => rest.ok('PATCH', `/v1/nodes/${id}`, POLICY)));
    const { ledger } = await atRest(platform, views, 30_000);
    expect(ledger.wrong).toEqual([]);
    expect([ledger.addresses.size, ledger.space.size, ledger.volumes.size, ledger.capacity.size, ledger.names.size]).toEqual([0, 0, 0, 0, 0]);
  });
  afterAll(() => platform.stop());

  const node = (index: number): NodeShown => {
    const found = nodes[index];
    if (found === undefined) throw new Error(`there is no node ${String(index)}`);
    return found;
  };
  const machineOf = (vm: Vm): FakeMachine => {
    const machine = platform.here?.machine(nodes.findIndex(({ id }) => id === vm.nodeId));
    if (machine === undefined) throw new Error(`${vm.id} is on no machine of ours`);
    return machine;
  };
  const act = (id: string, action: string, body?: object): Promise<Accepted> => rest.ok<Accepted>('POST', `/v1/vms/${id}/${action}`, body);
  const acted = async (id: string, action: string, body?: object): Promise<Operation> => rest.succeeded((await act(id, action, body)).operation.id);
  const refusal = (promise: Promise<unknown>): Promise<Refused> => promise.then(() => { throw new Error('it was not refused'); }, (error: unknown) => {
    if (error instanceof Refused) return error;
    throw error;
  });
  const history = (id: string): Promise<readonly Event[]> => rest.ok<{ items: readonly Event[] }>('GET', `/v1/vms/${id}/history?limit=1000`).then(({ items }) => items);

  it('A1-06 says every bad field at once, and takes nothing that cannot be', async () => {
    const bad = await refusal(rest.create({ name: '', image: 'blank', network: 'lab', vcpus: 0, memoryMib: 'much', diskGib: 1, colour: 'red' }));
    expect(bad.status).toBe(400);
    expect((bad.problem.errors ?? []).map(({ path }) => path).join(' ')).toMatch(/name.*vcpus.*memoryMib|memoryMib.*name/);
    expect((await refusal(rest.create(wish('a', { image: 'nothing' })))).code).toBe('image.unknown');
    expect((await refusal(rest.create(wish('a', { network: 'nothing' })))).code).toBe('network.unknown');
    expect((await refusal(rest.create(wish('a', { memoryMib: 100_000 })))).code).toBe('placement.no_host');
  });

  it('A1-09 a creation shows named steps, and percent that only rises', async () => {
    const { operation, vm } = await rest.create(wish('steps'));
    expect(['requested', 'provisioning']).toContain(vm.status);
    const seen: number[] = [];
    const names = new Set<string>();
    await rest.until('it has ended', async () => {
      const now = await rest.operation(operation.id);
      seen.push(now.percent);
      for (const { name } of now.steps) names.add(name);
      return now.endedAt !== null;
    }, 30_000, 5);
    expect([...names].sort()).toEqual(['address', 'assignment', 'boot', 'capacity', 'disk', 'domain', 'name', 'space', 'volume']);
    expect(seen).toEqual([...seen].sort((a, b) => a - b));
    expect(seen.at(-1)).toBe(100);
    const ended = await rest.operation(operation.id);
    expect(ended.status).toBe('succeeded');
    expect(Date.parse(ended.deadlineAt ?? '')).toBeGreaterThan(Date.parse(ended.startedAt ?? ''));
  });

  it('A1-10 a stopped VM starts again, and is refused where there is no room for it any more', async () => {
    const vm = await rest.running(wish('first', { memoryMib: 4_096, node: node(0).name }));
    await acted(vm.id, 'stop');
    expect((await rest.status(vm.id, 'stopped')).desired).toBe('stopped');
    await acted(vm.id, 'start');
    expect((await rest.vm(vm.id)).status).toBe('running');
    expect(machineOf(vm).domains().get(vm.id as VmId)?.boots).toBe(2);

    await acted(vm.id, 'stop');
    await rest.running(wish('second', { memoryMib: 2_048, node: node(0).name }));
    const { operation } = await act(vm.id, 'start');
    const ended = await rest.ended(operation.id, 30_000);
    expect(ended.status).toBe('compensated');
    expect(ended.error?.code).toBe('node.no_memory');
    expect(await rest.vm(vm.id)).toMatchObject({ status: 'stopped', desired: 'stopped' });
  });

  it('A1-12 A1-13 reboot, reset, pause and resume are done and recorded', async () => {
    const vm = await rest.running(wish('power'));
    await acted(vm.id, 'reboot');
    await acted(vm.id, 'reset');
    expect(machineOf(vm).domains().get(vm.id as VmId)?.boots).toBe(3);
    await acted(vm.id, 'pause');
    expect(await rest.vm(vm.id)).toMatchObject({ status: 'paused', desired: 'paused', observed: { state: 'paused' } });
    expect((await refusal(act(vm.id, 'reboot'))).status).toBe(409);
    await acted(vm.id, 'resume');
    expect((await rest.vm(vm.id)).status).toBe('running');
    expect((await history(vm.id)).filter(({ type }) => type === 'VmPowerRequested').map(({ data }) => data['action'])).toEqual(['reboot', 'reset', 'pause', 'resume']);
  });

  it('one VM has one operation: another write is refused and names it, but delete never is', async () => {
    const { operation, vm } = await rest.create(wish('busy'));
    const busy = await refusal(act(vm.id, 'stop'));
    expect([busy.status, busy.code, JSON.stringify(busy.problem)]).toEqual([409, 'vm.busy', expect.stringContaining(operation.id)]);
    const deleted = await rest.ok<Accepted>('DELETE', `/v1/vms/${vm.id}?force=true`);
    await rest.succeeded(deleted.operation.id);
    expect((await rest.ended(operation.id, 1_000)).status).toBe('compensated');
  });

  it('A1-15 a running VM is deleted with force only; then the list forgets it and its history stays', async () => {
    const vm = await rest.running(wish('kept', { tags: ['blue'] }));
    expect(await refusal(rest.ok('DELETE', `/v1/vms/${vm.id}`))).toMatchObject({ status: 409, code: 'vm.not_stopped' });
    expect((await refusal(rest.ok('DELETE', `/v1/vms/${vm.id}?force=maybe`))).status).toBe(400);
    await rest.gone(vm.id);
    expect(await refusal(rest.vm(vm.id))).toMatchObject({ status: 404 });
    const events = await history(vm.id);
    expect(events.map(({ type }) => type)).toEqual(expect.arrayContaining(['VmRequested', 'VmPlaced', 'VmProvisioned', 'VmDeleteRequested', 'VmDeleted']));
    for (const event of events) expect(event).toMatchObject({ actor: expect.stringMatching(/./), commandId: expect.stringMatching(/^[0-9a-f-]{36}$/), recordedAt: expect.stringMatching(/^2/) });
    const caused = events.filter(({ type }) => ['VmRequested', 'VmPlaced', 'VmProvisioned', 'VmDeleted'].includes(type));
    for (const event of caused) expect(event.operationId).toMatch(/^op_/);
    // One trace goes from the call to the last event of its operation.
    const created = events.filter(({ operationId }) => operationId === events[0]?.operationId);
    expect(new Set(created.map(({ traceId }) => traceId)).size).toBe(1);
    expect(created[0]?.traceId).toMatch(/^[0-9a-f]{32}$/);
  });

  it('A1-16 a VM whose creation failed shows why, holds nothing, and can be deleted', async () => {
    // More memory is promised than the machine has, and its QEMU says so as QEMU does.
    await rest.ok('PATCH', `/v1/nodes/${node(0).id}`, { memoryPercent: 300 });
    const full = platform.here?.machine(0)?.daemon.addFault({
      call: 'domainCreateWithFlags',
      effect: { kind: 'fail', code: errorCodes.internal, message: `internal error: process exited while connecting to monitor: cannot set up guest memory 'pc.ram': Cannot allocate memory` },
    });
    const { operation, vm } = await rest.create(wish('failing', { memoryMib: 6_000, node: node(0).name }));
    const ended = await rest.ended(operation.id, 30_000);
    full?.release();
    expect([ended.status, ended.error?.code]).toEqual(['compensated', 'node.out_of_memory']);
    expect(full?.struck).toBeGreaterThan(0);
    expect(await rest.vm(vm.id)).toMatchObject({ status: 'failed', failure: { code: 'node.out_of_memory', owed: [] }, statusBecause: expect.stringMatching(/memory/) });
    const { ledger } = await atRest(platform, views, 10_000);
    expect([ledger.addresses.size, ledger.space.size, ledger.volumes.size, ledger.capacity.size, ledger.names.size]).toEqual([0, 0, 0, 0, 0]);
    await rest.gone(vm.id);
  });

  it('A1-18 lists are filtered, searched, sorted and paged while VMs are being created', async () => {
    const creating = Promise.all(['cherry', 'apple', 'banana', 'date', 'elder'].map((name, index) => rest.running(wish(name, { vcpus: 1 + (index % 2), tags: [index % 2 === 0 ? 'even' : 'odd'], node: node(index % 3).name }))));
    const pages: string[] = [];
    let cursor: string | null = null;
    for (let page = 0; page < 100; page++) {
      const answer: { items: Vm[]; next: string | null } = await rest.ok('GET', `/v1/vms?sort=name&limit=1${cursor === null ? '' : `&cursor=${encodeURIComponent(cursor)}`}`);
      pages.push(...answer.items.map(({ name }) => name));
      cursor = answer.next;
      if (cursor === null) break;
    }
    expect(pages).toEqual([...new Set(pages)].sort());
    await creating;
    const named = async (query: string): Promise<readonly string[]> => (await rest.ok<{ items: readonly Vm[] }>('GET', `/v1/vms?${query}`)).items.map(({ name }) => name);
    expect(await named('sort=-name')).toEqual(['elder', 'date', 'cherry', 'banana', 'apple']);
    expect(await named('vcpus[gt]=1&sort=name')).toEqual(['apple', 'date']);
    expect(await named('tag=even&sort=name')).toEqual(['banana', 'cherry', 'elder']);
    expect(await named(`node=${node(0).name}&sort=name`)).toEqual(['cherry', 'date']);
    expect(await named('name[like]=*an*')).toEqual(['banana']);
    expect(await named('q=erry')).toEqual(['cherry']);
    expect(await named('status=stopped')).toEqual([]);
    expect((await rest.ok<{ count: number }>('GET', '/v1/vms?count=true&limit=1')).count).toBe(5);
    const csv = await rest.call<string>('GET', '/v1/vms?format=csv&sort=name');
    expect(csv.headers.get('content-type')).toMatch(/text\/csv/);
    expect(csv.body.trim().split('\n')).toHaveLength(6);
  });

  it('A1-31 what happens behind our back shows within 5 s, as observed, beside what is wanted', async () => {
    const vm = await rest.running(wish('unaware'));
    machineOf(vm).crash(vm.id as VmId);
    await rest.until('the crash shows', async () => (await rest.vm(vm.id)).observed?.state === 'crashed', 5_000);
    expect(await rest.vm(vm.id)).toMatchObject({ status: 'stopped', desired: 'running' });
    const virsh = await connect(targetOf(machineOf(vm).daemon));
    const domain = await virsh.domainLookupByUuid({ uuid: uuidOf(vm.id) });
    await virsh.domainCreate({ domain });
    await rest.until('the start shows', async () => (await rest.vm(vm.id)).status === 'running', 5_000);
    await virsh.domainDestroy({ domain });
    await virsh.domainUndefine({ domain });
    await virsh.close();
    await rest.until('the loss shows', async () => (await rest.vm(vm.id)).observed?.state === 'absent', 5_000);
    expect(await rest.vm(vm.id)).toMatchObject({ status: 'stopped', desired: 'running', statusBecause: expect.stringMatching(/no such domain/) });
  });

  it('A4-14 a volume outlives its VM, and is deleted by an operation that ends when its bytes are gone', async () => {
    const vm = await rest.running(wish('owner'));
    await rest.done('POST', `/v1/vms/${vm.id}/volumes`, { name: 'data', sizeGib: 1, image: 'blank' });
    const [volume] = await rest.all<{ id: string; status: string }>('/v1/volumes');
    if (volume === undefined) throw new Error('no volume is shown');
    await rest.gone(vm.id);
    expect(await rest.ok('GET', `/v1/volumes/${volume.id}`)).toMatchObject({ status: 'detached', vmId: null });
    const machine = machineOf(vm);
    expect([...machine.disks.keys()]).toEqual([volume.id]);
    const { operation } = await rest.ok<Accepted>('DELETE', `/v1/volumes/${volume.id}`);
    const ended = await rest.succeeded(operation.id);
    expect(ended).toMatchObject({ kind: 'delete-volume', steps: [{ name: 'disk', status: 'done' }, { name: 'space', status: 'done' }] });
    expect([...machine.disks.keys()]).toEqual([]);
    await expect(rest.ok('DELETE', `/v1/volumes/${volume.id}`)).rejects.toMatchObject({ status: 404, code: 'volume.not_found' });
  });

  it('A1-15 a VM is deleted with its disks where that is asked for', async () => {
    const vm = await rest.running(wish('all of it'.replaceAll(' ', '-')));
    await rest.done('POST', `/v1/vms/${vm.id}/volumes`, { name: 'data', sizeGib: 1 });
    const machine = machineOf(vm);
    expect(machine.disks.size).toBe(2);
    await rest.done('DELETE', `/v1/vms/${vm.id}?force=true&deleteDisks=true`);
    await rest.until('its volume is gone too', async () => (await rest.all('/v1/volumes?system=true')).length === 0, 10_000);
    expect(machine.disks.size).toBe(0);
  });

  it('A6-16 reserved addresses are never leased, and a full range is said to be full', async () => {
    await rest.ok('POST', '/v1/networks', { name: 'narrow', kind: 'nat', cidr: '10.77.0.0/29', reserved: ['10.77.0.2', '10.77.0.4'] });
    const vms = await Promise.all(['r1', 'r2', 'r3'].map((name) => rest.running(wish(name, { network: 'narrow' }))));
    expect(vms.map(({ address }) => address).sort()).toEqual(['10.77.0.3', '10.77.0.5', '10.77.0.6']);
    const { operation } = await rest.create(wish('r4', { network: 'narrow' }));
    const ended = await rest.ended(operation.id, 30_000);
    expect([ended.status, ended.error?.code]).toEqual(['compensated', 'subnet.exhausted']);
  });

  it('A7-01 a node chosen by hand is honoured, or refused with the reason', async () => {
    for (const { name, id } of nodes) expect((await rest.running(wish(`on-${name}`, { node: name }))).nodeId).toBe(id);
    expect((await rest.running(wish('by-id', { node: node(2).id }))).nodeId).toBe(node(2).id);
    expect(await refusal(rest.create(wish('x', { node: 'nowhere' })))).toMatchObject({ code: 'node.unknown' });
    await rest.running(wish('fills', { node: node(0).name, memoryMib: 3_900 }));
    const full = await refusal(rest.create(wish('x', { node: node(0).name, memoryMib: 512 })));
    expect([full.code, JSON.stringify(full.problem)]).toEqual(['placement.no_host', expect.stringMatching(/sim-0001: wants 512 MiB of memory/)]);
  });

  it('A7-02 a placement is recorded with every candidate, what turned it down, and the scores', async () => {
    await rest.ok('PATCH', `/v1/nodes/${node(1).id}`, { maintenance: true });
    const vm = await rest.running(wish('placed'));
    const placed = (await history(vm.id)).find(({ type }) => type === 'VmPlaced');
    const decision = placed?.data['decision'] as { readonly candidates: number; readonly scores: Record<string, number>; readonly turnedDown: Record<string, string> };
    expect(decision.candidates).toBe(3);
    expect(Object.keys(decision.scores).sort()).toEqual([node(0).id, node(2).id].sort());
    expect(decision.turnedDown).toEqual({ [node(1).id]: expect.stringMatching(/maintenance/) });
    expect(decision.scores[vm.nodeId ?? '']).toBe(Math.max(...Object.values(decision.scores)));
  });

  it('A1-08 a batch is placed as one after another would be, the emptiest node first', async () => {
    await rest.running(wish('weight', { node: node(0).name, vcpus: 8, memoryMib: 1_024 }));
    const { operation } = await rest.ok<{ operation: Operation }>('POST', '/v1/vms', wish('row', { count: 10 }));
    await Promise.all((operation.members ?? []).map(({ operationId }) => rest.succeeded(operationId)));
    const vms = (await rest.all<Vm>('/v1/vms?limit=100')).filter(({ name }) => name.startsWith('row-'));
    const on = nodes.map(({ id }) => vms.filter(({ nodeId }) => nodeId === id).length);
    // Eight CPUs and 1,024 MiB weigh more than five of the small ones, so node 0 gets none.
    expect(on).toEqual([0, 5, 5]);
  });

  it('A7-03 a node that does not accept gets nothing by itself, but by hand; in maintenance nothing at all', async () => {
    await Promise.all([0, 1].map((index) => rest.ok('PATCH', `/v1/nodes/${node(index).id}`, { accepting: false })));
    const automatic = await Promise.all(['a', 'b', 'c'].map((name) => rest.running(wish(name))));
    expect(new Set(automatic.map(({ nodeId }) => nodeId))).toEqual(new Set([node(2).id]));
    expect((await rest.running(wish('by-hand', { node: node(0).name }))).nodeId).toBe(node(0).id);
    await rest.ok('PATCH', `/v1/nodes/${node(2).id}`, { maintenance: true });
    expect(JSON.stringify((await refusal(rest.create(wish('d')))).problem)).toMatch(/is in maintenance/);
    expect((await refusal(rest.create(wish('d', { node: node(2).name })))).code).toBe('placement.no_host');
  });

  it('A7-06 a node above its threshold of measured memory gets nothing, and says so', async () => {
    await rest.running(wish('heavy', { node: node(0).name, memoryMib: 2_048 }));
    await rest.ok('PATCH', `/v1/nodes/${node(0).id}`, { memoryUsedPercentMax: 20 });
    // The next heartbeat carries what is used now.
    const refused = await rest.until('it is refused', async () => {
      const outcome = await rest.create(wish(`probe-${randomBytes(3).toString('hex')}`, { node: node(0).name })).then(() => undefined, (error: unknown) => error as Refused);
      return outcome?.code === 'placement.no_host' ? outcome : undefined;
    }, 15_000, 500);
    expect(JSON.stringify(refused.problem)).toMatch(/sim-0001: uses \d+ % of its memory, the threshold is 20 %/);
    // Others are unaffected.
    expect((await rest.running(wish('elsewhere'))).nodeId).not.toBe(node(0).id);
  });

  it('A8-02 a cloned machine-id may not join, and the answer says what to do', async () => {
    const { token } = await rest.ok<{ token: string }>('POST', '/v1/nodes/join-tokens', {});
    const letters = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567';
    const credentialKey = `U${[...randomBytes(55)].map((byte) => letters[byte % 32]).join('')}`;
    const joining = rest.ok('POST', '/v1/nodes/join', { name: 'clone', machineId: 'sim-0001', credentialKey, sealKey: randomBytes(32).toString('base64url') }, { token });
    const refused = await refusal(joining);
    expect([refused.status, refused.code, JSON.stringify(refused.problem)]).toEqual([409, 'node.machine_id_taken', expect.stringMatching(/systemd-machine-id-setup/)]);
    expect(await rest.all('/v1/nodes')).toHaveLength(3);
  });

  it('A8-10 events carry the node\'s clock and the log\'s, and a node whose clock is off is recorded', async () => {
    const vm = await rest.running(wish('clocks'));
    machineOf(vm).crash(vm.id as VmId);
    const seen = await rest.until('the report is recorded', async () => (await history(vm.id)).find(({ type, data }) => type === 'VmObserved' && data['state'] === 'crashed'), 5_000);
    expect(Math.abs(Date.parse(seen.nodeAt ?? '') - Date.parse(seen.recordedAt))).toBeLessThan(5_000);
    expect(seen.nodeId).toBe(vm.nodeId);

    const bus = await connectBus({ servers: platform.natsUrl, credentials: { file: platform.natsCreds }, name: 'test' });
    try {
      const late = new Date(Date.now() - 2_000).toISOString();
      sendHeartbeat(bus.nc, node(0).id, { nodeId: node(0).id as `node_${string}`, session: 1, nodeAt: late, memoryUsedPercent: 0, loadPercent: 0 });
      const skewed = await rest.until('the skew is recorded', async () => (await rest.ok<{ items: readonly Event[] }>('GET', '/v1/events?category=presence&limit=1000')).items.find(({ type }) => type === 'NodeClockSkewed'), 5_000);
      expect(Number(skewed.data['skewMs'])).toBeLessThan(-1_500);
    } finally {
      await bus.close();
    }
  });

  it('A11-12 /readyz says in plain words what is missing, and that it is back', async () => {
    interface Readiness { readonly ready: boolean; readonly parts: readonly { readonly name: string; readonly ok: boolean; readonly says: string }[] }
    const readiness = async (): Promise<{ readonly status: number } & Readiness> => {
      const answer = await rest.call<Readiness>('GET', '/readyz', undefined, { token: null });
      return { status: answer.status, ...answer.body };
    };
    expect(await readiness()).toMatchObject({ status: 200, ready: true, parts: expect.arrayContaining([expect.objectContaining({ name: 'nodes', says: '3 of 3 nodes are heard' })]) });
    for (const [part, name] of [['nats', 'NATS'], ['postgres', 'Postgres']] as const) {
      await platform.kill9(part);
      const without = await rest.until(`${name} is missed`, async () => {
        const now = await readiness();
        return now.ready ? undefined : now;
      }, 10_000);
      expect(without.status).toBe(503);
      expect(without.parts.find((one) => one.name === name)).toMatchObject({ ok: false, says: expect.stringMatching(/\w+ \w+/) });
      await platform.start(part);
      await rest.until(`${name} is back`, async () => (await readiness()).ready, 20_000);
    }
    await rest.running(wish('afterwards'));
  });

  it('the log is read in pages and live, and a broken stream goes on where it was', async () => {
    const follow = async (after: number | undefined, lastEventId: string | undefined, until: (events: readonly Event[]) => boolean): Promise<readonly Event[]> => {
      const ended = new AbortController();
      const response = await fetch(`${platform.url}/v1/events${after === undefined ? '' : `?after=${String(after)}`}`, {
        headers: { authorization: `Bearer ${platform.token}`, accept: 'text/event-stream', ...(lastEventId === undefined ? {} : { 'last-event-id': lastEventId }) },
        signal: AbortSignal.any([ended.signal, AbortSignal.timeout(20_000)]),
      });
      const events: Event[] = [];
      let rest_ = '';
      for await (const chunk of response.body as unknown as AsyncIterable<Uint8Array>) {
        const frames = (rest_ + Buffer.from(chunk).toString('utf8')).split('\n\n');
        rest_ = frames.pop() ?? '';
        for (const frame of frames) {
          const data = frame.split('\n').find((line) => line.startsWith('data: '));
          if (data !== undefined) events.push(JSON.parse(data.slice(6)) as Event);
        }
        if (until(events)) break;
      }
      ended.abort();
      return events;
    };
    const { head } = await rest.ok<{ head: number }>('GET', '/v1/events?limit=1');
    const live = follow(head, undefined, (events) => events.some(({ type }) => type === 'VmOperationDone'));
    await rest.running(wish('followed'));
    const events = await live;
    expect(events.map(({ position }) => position)).toEqual(events.map((_, index) => head + 1 + index));
    const again = await follow(undefined, String(head + 2), (some) => some.length >= 3);
    expect(again.slice(0, 3)).toEqual(events.slice(2, 5));
    const page = await rest.ok<{ items: readonly Event[] }>('GET', `/v1/events?after=${String(head)}&limit=${String(events.length)}`);
    expect(page.items).toEqual(events);
  });

  it('A1-15 a protected VM is not deleted, stopped or not, until its protection is taken off', async () => {
    const vm = await rest.running(wish('guarded', { protected: true }));
    expect(await refusal(rest.ok('DELETE', `/v1/vms/${vm.id}?force=true`))).toMatchObject({ status: 409, code: 'vm.protected' });
    await acted(vm.id, 'stop');
    expect(await refusal(rest.ok('DELETE', `/v1/vms/${vm.id}`))).toMatchObject({ code: 'vm.protected' });
    expect((await rest.vm(vm.id)).desired).toBe('stopped');
    expect(await refusal(rest.ok('PATCH', `/v1/vms/${vm.id}`, { protected: 'no', vcpus: 2 }))).toMatchObject({ status: 400, code: 'request.malformed' });
    expect(await rest.ok('PATCH', `/v1/vms/${vm.id}`, { protected: false, tags: ['old'] })).toMatchObject({ id: vm.id, status: 'stopped', spec: { protected: false, tags: ['old'] } });
    const { items } = await rest.ok<{ items: readonly Event[] }>('GET', `/v1/vms/${vm.id}/history`);
    expect(items.at(-1)).toMatchObject({ type: 'VmChanged', data: { protected: false, tags: ['old'] } });
    await rest.done('DELETE', `/v1/vms/${vm.id}`);
    expect(await refusal(rest.ok('GET', `/v1/vms/${vm.id}`))).toMatchObject({ status: 404 });
  });
});
