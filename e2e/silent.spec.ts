/* A node that falls silent, keeps what it may still use, and comes back. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { atRest } from './invariants.ts';
import { ledgerOf, readEvents } from './ledger.ts';
import { startPlatform, type Platform } from './platform.ts';
import { Refused, wish, type Accepted, type Operation, type Rest, type Vm } from './rest.ts';
import { addTestNode, type TestNode } from './test-node.ts';

describe('a silent node', () => {
  let platform: Platform;
  let rest: Rest;
  let node: TestNode;
  let stays: Vm;
  let deleted: Vm;
  let deleting: Accepted;
  let silentAt = 0;
  beforeAll(async () => {
    platform = await startPlatform({ split: false });
    ({ rest } = platform);
    node = await addTestNode(platform, 'loner');
    [stays, deleted] = await Promise.all([rest.running(wish('stays')), rest.running(wish('deleted'))]);
  });
  afterAll(async () => {
    await platform.stop();
    await node.stop();
  });

  it('A1-30 its VMs are unknown at most 30 s after its last heartbeat, and say since when', async () => {
    // Stopped, not killed: it is alive and may still use what it has, and nobody hears it.
    process.kill(platform.pidOf(node.part), 'SIGSTOP');
    silentAt = performance.now();
    deleting = await rest.ok<Accepted>('DELETE', `/v1/vms/${deleted.id}?force=true`);
    expect((await rest.vm(stays.id)).status).toBe('running');
    const unknown = await rest.status(stays.id, 'unknown', 30_000);
    expect(unknown.statusBecause).toMatch(/^node loner silent since \d{4}-/);
    expect(unknown).toMatchObject({ desired: 'running', observed: { state: 'running' } });
    expect((await rest.ok<{ status: string }>('GET', `/v1/nodes/${node.nodeId}`)).status).toBe('silent');
    await expect(rest.create(wish('nowhere'))).rejects.toSatisfy((error: unknown) => error instanceof Refused && /is silent since/.test(JSON.stringify(error.problem)));
  });

  it('what it owes is listed, and nothing that it may still use is given away', async () => {
    const waiting = await rest.operation(deleting.operation.id);
    expect(waiting.endedAt).toBeNull();
    expect(JSON.stringify(waiting)).toMatch(/node loner is silent since/);
    const ended = await rest.ended(deleting.operation.id, 90_000);
    expect(ended.status).toBe('failed');
    expect([...ended.owed].sort()).toEqual(['address', 'capacity', 'disk', 'domain', 'name', 'space', 'volume']);
    expect((await rest.vm(deleted.id)).failure?.owed).toEqual(ended.owed);
    const ledger = ledgerOf(await readEvents(platform));
    const held = [ledger.addresses, ledger.space, ledger.volumes, ledger.names].map((map) => [...map.values()].filter((vmId) => vmId === deleted.id).length);
    expect(held).toEqual([1, 1, 1, 1]);
    expect([...ledger.capacity.values()].filter(({ vmId }) => vmId === deleted.id)).toHaveLength(1);
    expect(ledger.wrong).toEqual([]);
  });

  it('A1-30 back within 5 s of its return, and what it owed is settled', async () => {
    process.kill(platform.pidOf(node.part), 'SIGCONT');
    const back = performance.now();
    expect((await rest.status(stays.id, 'running', 5_000)).statusBecause).toBeNull();
    console.log(`silent for ${((back - silentAt) / 1_000).toFixed(0)} s, back after ${((performance.now() - back) / 1_000).toFixed(1)} s`);
    await rest.until('the other VM is gone', async () => (await rest.call('GET', `/v1/vms/${deleted.id}`)).status === 404, 60_000, 100);
    const { ledger } = await atRest(platform, [node], 30_000);
    expect(ledger.vms.get(deleted.id)?.deleted).toBe(true);
    expect(await node.domains()).toEqual([{ vmId: stays.id, running: true }]);
    const operations = await rest.all<Operation>(`/v1/operations?vm=${deleted.id}`);
    expect(operations.map(({ kind }) => kind)).toContain('delete');
  });
});
