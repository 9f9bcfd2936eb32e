import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { deadLetters } from './bus.ts';
import { atRest, simulatedViews, type NodeView } from './invariants.ts';
import { ledgerOf, readEvents } from './ledger.ts';
import { startPlatform, type Platform } from './platform.ts';
import { Refused, wish, type Accepted, type Operation, type Vm } from './rest.ts';

const NODES = 5;
/** What a node may promise in these tests, in VMs of one CPU and 128 MiB. */
const VMS_ON_A_NODE = 36;
const ROOM = NODES * VMS_ON_A_NODE;
const CREATES = 200;

interface NodeShown {
  readonly id: string;
  readonly capacity: { readonly vcpus: { readonly total: number; readonly reserved: number }; readonly memoryMib: { readonly total: number; readonly reserved: number } };
}

describe('three schedulers and three ipams', () => {
  let platform: Platform;
  let nodes: readonly NodeShown[] = [];
  let views: readonly NodeView[] = [];
  beforeAll(async () => {
    platform = await startPlatform({ replicas: { scheduler: 3, ipam: 3 }, here: { nodes: NODES, cpus: 4, memoryMib: 16_896 } });
    nodes = await platform.rest.all<NodeShown>('/v1/nodes');
    views = await simulatedViews(platform);
  });
  afterEach(() => deleteAll());
  afterAll(() => platform.stop());

  const policy = async (changes: object): Promise<void> => {
    await Promise.all(nodes.map(({ id }) => platform.rest.ok('PATCH', `/v1/nodes/${id}`, changes)));
  };

  /** Creates at once; says how many run in the end. Those without room are refused at once, or undone. */
  const createMany = async (name: string, count: number): Promise<{ readonly vms: readonly string[]; readonly refusals: readonly string[] }> => {
    const refusals: string[] = [];
    const vms: string[] = [];
    await Promise.all(Array.from({ length: count }, async (_, index) => {
      try {
        const { operation, vm } = await platform.rest.create(wish(`${name}-${String(index)}`), `${name}-${String(index)}`);
        const ended = await platform.rest.ended(operation.id, 120_000);
        if (ended.status === 'succeeded') vms.push(vm.id);
        else refusals.push(String(ended.error?.code));
      } catch (error) {
        if (!(error instanceof Refused)) throw error;
        refusals.push(error.code);
      }
    }));
    return { vms, refusals };
  };

  /** Every test begins on empty nodes. */
  const deleteAll = async (): Promise<void> => {
    const vms = await platform.rest.all<Vm>('/v1/vms?limit=1000');
    await Promise.all(vms.map(({ id }) => platform.rest.gone(id, 120_000)));
    await atRest(platform, views, 60_000);
  };

  const exactlyFull = async (what: 'vcpus' | 'memoryMib'): Promise<void> => {
    const { ledger } = await atRest(platform, views, 60_000);
    expect(ledger.wrong).toEqual([]);
    expect([...ledger.nodes.values()].map((node) => [node[what], node.limit[what]])).toEqual(nodes.map(() => [VMS_ON_A_NODE * (what === 'vcpus' ? 1 : 128), VMS_ON_A_NODE * (what === 'vcpus' ? 1 : 128)]));
    const shown = await platform.rest.all<NodeShown>('/v1/nodes');
    expect(shown.map(({ capacity }) => capacity[what].reserved)).toEqual(nodes.map(() => VMS_ON_A_NODE * (what === 'vcpus' ? 1 : 128)));
  };

  it('A7-04 200 creates at once: CPUs are promised exactly to the limit, and no address twice', async () => {
    await policy({ cpuPercent: VMS_ON_A_NODE * 25, memoryReserveMib: 512, memoryPercent: 100 });
    const { vms, refusals } = await createMany('cpu', CREATES);
    expect(new Set(refusals)).toEqual(new Set(['placement.no_host']));
    expect(vms).toHaveLength(ROOM);
    await exactlyFull('vcpus');
    const running = await platform.rest.all<Vm>('/v1/vms?status=running&limit=1000');
    expect(new Set(running.map(({ address }) => address)).size).toBe(ROOM);
    expect(new Set(running.map(({ mac }) => mac)).size).toBe(ROOM);
  });

  it('A7-05 the same for memory, beside what is kept for the host', async () => {
    // (16,896 − 7,680) MiB × 50 % = 4,608 MiB = 36 VMs.
    await policy({ cpuPercent: 10_000, memoryReserveMib: 7_680, memoryPercent: 50 });
    const { vms } = await createMany('memory', CREATES);
    expect(vms).toHaveLength(ROOM);
    await exactlyFull('memoryMib');
  });

  it('A1-08 A2-04 300 in one batch: all run, named by pattern, and the same key makes nothing new', async () => {
    await policy({ cpuPercent: 10_000, memoryReserveMib: 512, memoryPercent: 100 });
    const ask = (): Promise<{ readonly operation: Operation; readonly vms: readonly Vm[] }> => platform.rest.ok('POST', '/v1/vms', wish('batch', { count: 300 }), { key: 'batch' });
    const { operation, vms } = await ask();
    expect(vms.map(({ name }) => name)).toEqual(Array.from({ length: 300 }, (_, index) => `batch-${String(index + 1)}`));
    await Promise.all((operation.members ?? []).map(({ operationId }) => platform.rest.succeeded(operationId, 120_000)));
    const again = await ask();
    expect(again.vms.map(({ id }) => id)).toEqual(vms.map(({ id }) => id));
    const { ledger } = await atRest(platform, views, 60_000);
    const live = [...ledger.vms.values()].filter((vm) => !vm.deleted);
    expect(live).toHaveLength(300);
    expect(live.every((vm) => vm.provisioned)).toBe(true);
    // Three choose at once, each with what it saw a moment ago: nearly as even as one alone would.
    for (const { vcpus } of ledger.nodes.values()) expect(Math.abs(vcpus - 300 / NODES)).toBeLessThanOrEqual(6);
  });

  it('A1-08 one that cannot be placed does not fail the batch', async () => {
    await policy({ cpuPercent: 25, memoryReserveMib: 512, memoryPercent: 100 });
    const { operation } = await platform.rest.ok<{ operation: Operation }>('POST', '/v1/vms', wish('tight', { count: NODES + 1 }), { key: 'tight' });
    const ended = await Promise.all((operation.members ?? []).map(({ operationId }) => platform.rest.ended(operationId, 60_000)));
    const outcomes = ended.map(({ status }) => status);
    expect(outcomes.filter((status) => status === 'succeeded')).toHaveLength(NODES);
    expect(outcomes.filter((status) => status !== 'succeeded')).toHaveLength(1);
  });

  it('A1-06 50 identical creates with one Idempotency-Key make one VM and give 50 equal answers', async () => {
    await policy({ cpuPercent: 10_000 });
    const before = ledgerOf(await readEvents(platform)).vms.size;
    const answers = await Promise.all(Array.from({ length: 50 }, () => platform.rest.create(wish('once'), 'the-one-key')));
    expect(new Set(answers.map((answer: Accepted) => JSON.stringify([answer.operation.id, answer.operation.kind, answer.operation.vmId, answer.vm.id, answer.vm.name]))).size).toBe(1);
    const [first] = answers;
    await platform.rest.succeeded(first?.operation.id ?? '');
    expect(ledgerOf(await readEvents(platform)).vms.size).toBe(before + 1);
    await expect(platform.rest.create(wish('another'), 'the-one-key')).rejects.toMatchObject({ status: 409, code: 'idempotency.key_reused' });
  });

  it('leaves nothing among the dead letters', async () => {
    expect(await deadLetters(platform)).toEqual([]);
  });
});
