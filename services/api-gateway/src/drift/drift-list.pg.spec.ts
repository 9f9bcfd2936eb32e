import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ids, startTestingGateway, type TestingGateway } from '../testing-gateway.os.ts';

let gateway: TestingGateway;
let position = 0;
const [shared, own] = [ids.pool, `pool_${ids.digits('own')}`];

/** A file that a node found in a pool. */
const found = async (node: string, name: string, poolId: string): Promise<void> => {
  const nodeId = ids.nodeOf(node);
  position = await gateway.append(`drift-${nodeId}`, { type: 'DriftSeen', data: {
    driftId: `drift_${ids.digits(`${node} ${name} ${poolId}`)}`, nodeId, class: 'orphan-disk', subject: `/pools/${name}`, vmId: null, name, foreign: null, near: null, says: 'a file', session: 1, sequence: 1,
    differences: [{ field: 'bytes', expected: null, seen: 1 }, { field: 'pool', expected: null, seen: poolId }],
  } });
};
const listed = async (query: string): Promise<readonly string[]> => {
  const read = await gateway.call('GET', `/v1/drift?${query}`, { headers: { 'cv-at-least': String(position) } });
  expect(read.status, read.text).toBe(200);
  return (read.json as { items: readonly { name: string; nodeId: string }[] }).items.map(({ name, nodeId }) => `${name} ${nodeId}`).sort();
};

beforeAll(async () => { gateway = await startTestingGateway(); });
afterAll(async () => { await gateway?.close(); });

describe('GET /v1/drift', () => {
  it('shows a file in a pool that several nodes see once, and of each node all that it found', async () => {
    for (const node of ['red', 'blue', 'green']) await found(node, 'stray.img', shared);
    await found('red', 'stray.img', own);
    await found('red', 'other.img', shared);
    const [first] = ['red', 'blue', 'green'].map((node) => ids.nodeOf(node)).sort();
    expect(await listed('')).toEqual([`other.img ${ids.nodeOf('red')}`, `stray.img ${first ?? ''}`, `stray.img ${ids.nodeOf('red')}`].sort());
    for (const node of ['blue', 'green']) expect(await listed(`node=${ids.nodeOf(node)}`)).toEqual([`stray.img ${ids.nodeOf(node)}`]);
    expect(await listed(`node=${ids.nodeOf('red')}`)).toHaveLength(3);
  });
});
