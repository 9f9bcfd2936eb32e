/*
 * A pool is made, started, stopped, deleted or looked at, on each node that sees it, one after another.
 *
 * The first node of a new one makes the folder and leaves a token in it; the others must find that token. So a
 * pool is shared only if what one node wrote was read by all others. Starting one looks for the token again: a
 * folder that is not mounted is not taken for an empty pool.
 */
import type { Outgoing } from '@chronovirt/contracts/command';
import { POOL_NODES_MAX, type PoolEvent } from '@chronovirt/contracts/pool/pool.events';
import type { Saga, Step, StepFacts } from '@chronovirt/decider/saga';

export type WorkOnPool = Extract<PoolEvent, { type: 'PoolWorkRequested' }>['data'];

const NODE_MS = 60_000;

const onNode = (type: string, { poolId, path, type: kind, token, nodes }: WorkOnPool, index: number, more: object = {}): Outgoing | undefined => {
  const nodeId = nodes[index];
  return nodeId === undefined ? undefined : { to: 'node', target: nodeId, type, data: { nodeId, poolId, ...(type === 'OpenPool' ? { path, type: kind, token } : {}), ...more } };
};

const run = (pool: WorkOnPool, index: number): Outgoing | undefined => {
  switch (pool.work) {
    case 'create':
      return onNode('OpenPool', pool, index, { make: index === 0 });
    case 'start':
      return onNode('OpenPool', pool, index, { make: false });
    case 'stop':
      return onNode('ClosePool', pool, index, { remove: false });
    case 'delete':
      return onNode('ClosePool', pool, index, { remove: true });
    case 'refresh':
      return onNode('LookAtPool', pool, index);
  }
};

const undo = (pool: WorkOnPool, index: number): Outgoing | undefined => {
  switch (pool.work) {
    case 'create':
      return onNode('ClosePool', pool, index, { remove: true });
    case 'start':
      return onNode('ClosePool', pool, index, { remove: false });
    case 'stop':
    case 'delete':
      // The token may be gone, and the first can make it again.
      return onNode('OpenPool', pool, index, { make: index === 0 });
    case 'refresh':
      // Looking leaves nothing; looking again keeps the first from being answered late.
      return onNode('LookAtPool', pool, index);
  }
};

const stepOf = (index: number): string => `node-${String(index + 1)}`;

const steps = Object.fromEntries(Array.from({ length: POOL_NODES_MAX }, (_, index): [string, Step<WorkOnPool, Outgoing>] => [stepOf(index), {
  ...(index === 0 ? {} : { after: [stepOf(index - 1)] }),
  deadlineMs: NODE_MS,
  undoRefused: true,
  run: (pool) => run(pool, index),
  undo: (pool) => undo(pool, index),
}]));

/** What the first node said. */
const seenBy = (facts: StepFacts): object | null => {
  const first = facts[stepOf(0)];
  return first !== undefined && 'files' in first ? first : null;
};

export const workOnPool: Saga<WorkOnPool, Outgoing> = {
  name: 'work-on-pool',
  steps,
  done: ({ poolId, operationId }, facts) => ({ to: 'storage', target: poolId, type: 'FinishPool', data: { poolId, operationId, seen: seenBy(facts) } }),
  failed: ({ poolId, operationId }, { refused, because = {} }, owed) => ({ to: 'storage', target: poolId, type: 'FailPool', data: { poolId, operationId, refused, because, owed } }),
};
