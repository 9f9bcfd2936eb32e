import { describe, expect, it } from 'vitest';
import fc from 'fast-check';
import type { VmId, VolumeId } from '@chronovirt/contracts/ids';
import type { PoolEvent } from '@chronovirt/contracts/pool/pool.events';
import { isRefusal, replay } from '@chronovirt/decider/decider';
import { scenarioOf } from '@chronovirt/decider/scenario';
import { isLive, type OfPool, pool } from './pool.ts';

const hex = (n: number): string => n.toString(16).padStart(32, '0');
const poolId = `pool_${hex(1)}` as const;
const nodeId = `node_${hex(2)}` as const;
const vmId: VmId = `vm_${hex(3)}`;
const volume = (n: number): VolumeId => `volume_${hex(n)}`;
const given = scenarioOf(pool, (actual, expected) => { expect(actual).toEqual(expected); });
const registered: PoolEvent = { type: 'PoolRegistered', data: { poolId, nodeId, name: 'disks', capacityGib: 10, overcommitPercent: 200 } };
const reserved = (n: number, sizeGib: number): PoolEvent => ({ type: 'SpaceReserved', data: { nodeId, volumeId: volume(n), vmId, sizeGib } });
const reserve = (n: number, sizeGib: number): OfPool => ({ type: 'ReserveSpace', data: { poolId, volumeId: volume(n), vmId, sizeGib } });
const release = (n: number): OfPool => ({ type: 'ReleaseSpace', data: { poolId, volumeId: volume(n), vmId } });
const report = (capacityGib: number, of: `node_${string}` = nodeId): OfPool => ({ type: 'RegisterPool', data: { poolId, nodeId: of, name: 'disks', capacityGib } });

describe('A pool', () => {
  it('is known from its first report', () => given().when(report(10)).then(registered));
  it('is no news when nothing changed', () => given(registered).when(report(10)).then());
  it('grows and shrinks', () => given(registered).when(report(12)).then({ type: 'PoolResized', data: { nodeId, capacityGib: 12 } }));
  it('belongs to one node', () => given(registered).when(report(10, `node_${hex(9)}`)).thenRefused('pool.of_another_node', { poolId }));
  it('promises twice what it has, and no more', () => {
    given(registered, reserved(1, 15)).when(reserve(2, 5)).then(reserved(2, 5));
    given(registered, reserved(1, 15)).when(reserve(2, 6)).thenRefused('pool.no_space', { poolId, sizeGib: 6, freeGib: 5 });
  });
  it('reserves for a volume once', () => given(registered, reserved(1, 15)).when(reserve(1, 15)).then());
  it('gives back exactly what was reserved, once', () => {
    given(registered, reserved(1, 15)).when(release(1)).then({ type: 'SpaceReleased', data: { nodeId, volumeId: volume(1), vmId, sizeGib: 15 } });
    given(registered).when(release(1)).then();
    given().when(release(1)).then();
  });
  it('is not there before its node said so', () => given().when(reserve(1, 1)).thenRefused('pool.not_found', { poolId }));
  it('promises nothing new when it shrank below its promises', () => given(registered, reserved(1, 15), { type: 'PoolResized', data: { nodeId, capacityGib: 5 } }).when(reserve(2, 1)).thenRefused('pool.no_space', { poolId, sizeGib: 1, freeGib: -5 }));

  it('never promises more than it may, whatever is reserved and released', () => {
    fc.assert(fc.property(fc.array(fc.record({ volume: fc.nat(8), sizeGib: fc.integer({ min: 1, max: 9 }), release: fc.boolean() }), { maxLength: 60 }), (acts) => {
      let history: readonly PoolEvent[] = [registered];
      const held = new Map<string, number>();
      for (const { volume: n, sizeGib, release: back } of acts) {
        const decision = pool.decide(back ? release(n) : reserve(n, sizeGib), replay(pool, history));
        if (isRefusal(decision)) continue;
        for (const event of decision) {
          if (event.type === 'SpaceReserved') held.set(event.data.volumeId, event.data.sizeGib);
          if (event.type === 'SpaceReleased') held.delete(event.data.volumeId);
        }
        history = [...history, ...decision];
        const sum = [...held.values()].reduce((all, one) => all + one, 0);
        expect(sum).toBeLessThanOrEqual(20);
        const state = replay(pool, history);
        expect(isLive(state) ? state.reservedGib : 0).toBe(sum);
      }
    }), { numRuns: 150 });
  });
});

describe('A pool that an operator made', () => {
  const [operationId, second] = [`op_${hex(4)}`, `op_${hex(5)}`] as const;
  const other = `node_${hex(7)}` as const;
  const wish = { poolId, operationId, name: 'both', type: 'shared', path: '/pools/both', nodes: [nodeId, other], overcommitPercent: 100, fullPercent: 90 } as const;
  const requested: readonly PoolEvent[] = [{ type: 'PoolRequested', data: { ...wish, nodes: [...wish.nodes] } }, { type: 'PoolWorkRequested', data: { operationId, poolId, work: 'create', type: 'shared', path: wish.path, nodes: [nodeId, other], token: operationId } }];
  const opened: PoolEvent = { type: 'PoolOpened', data: { operationId, capacityGib: 100 } };
  const work = (what: 'stop' | 'start' | 'delete' | 'refresh', id: `op_${string}` = second): OfPool => ({ type: 'WorkOnPool', data: { poolId, operationId: id, work: what } });
  const working = (what: 'stop' | 'start' | 'delete' | 'refresh'): PoolEvent => ({ type: 'PoolWorkRequested', data: { operationId: second, poolId, work: what, type: 'shared', path: wish.path, nodes: [nodeId, other], token: operationId } });
  const seen = (usedGib: number, active = true): OfPool => ({ type: 'RecordPool', data: { poolId, nodeId, active, capacityGib: 100, usedGib } });
  const observed = (usedGib: number, active = true): PoolEvent => ({ type: 'PoolObserved', data: { nodeId, active, capacityGib: 100, usedGib } });
  const full: PoolEvent = { type: 'PoolNearlyFull', data: { usedPercent: 90, fullPercent: 90 } };
  const finish = (missing: readonly string[] = [], files: string[] = []): OfPool => ({ type: 'FinishPool', data: { poolId, operationId: second, seen: { capacityGib: 100, usedGib: 10, volumesGib: 1, files }, missing } });

  it('is asked for, then there, and takes nothing in between', () => {
    given().when({ type: 'RequestPool', data: { ...wish, nodes: [...wish.nodes] } }).then(...requested);
    given(...requested).when(reserve(1, 5)).thenRefused('pool.stopped', { poolId, status: 'creating' });
    given(...requested, opened).when(reserve(1, 5)).then(reserved(1, 5));
  });
  it('is worked on by one operation at a time', () => {
    given(...requested, opened).when(work('stop')).then(working('stop'));
    given(...requested, opened, working('stop')).when(work('stop')).then();
    given(...requested, opened, working('stop')).when(work('start', `op_${hex(8)}`)).thenRefused('pool.busy', { poolId, operationId: second, work: 'stop' });
    given(...requested, opened, working('stop')).when(reserve(1, 5)).thenRefused('pool.busy', { poolId, operationId: second, work: 'stop' });
    given(registered).when(work('stop')).thenRefused('pool.of_node', { poolId, nodeId });
  });
  it('is deleted only when nothing is promised in it', () => given(...requested, opened, reserved(1, 5)).when(work('delete')).thenRefused('pool.in_use', { poolId, count: 1 }));
  it('that could not be made is only good for being deleted', () => {
    const failed: PoolEvent = { type: 'PoolWorkFailed', data: { operationId, work: 'create', refused: 'pool.outside_roots', because: {}, owed: [] } };
    given(...requested, failed).when(work('start')).thenRefused('pool.failed', { poolId });
    given(...requested, failed).when(work('delete')).then(working('delete'));
  });
  it('tells of files that nobody knows and of volumes that have none', () => given(...requested, opened, reserved(1, 5), working('refresh'))
    .when(finish([volume(1)], ['stranger.img', `${volume(2)}.raw`, `${volume(1)}.0a1b2c3d.qcow2`]))
    .then({ type: 'PoolRefreshed', data: { operationId: second, capacityGib: 100, usedGib: 10, volumesGib: 1, unknown: { count: 2, first: ['stranger.img', `${volume(2)}.raw`] }, missing: { count: 1, first: [volume(1)] } } }, observed(10)));
  it('is seen otherwise only when that is news', () => {
    given(...requested, opened).when(seen(10)).then(observed(10));
    given(...requested, opened, observed(10)).when(seen(14)).then();
    given(...requested, opened, observed(10)).when(seen(15)).then(observed(15));
    given(...requested, opened, observed(10)).when(seen(10, false)).then(observed(10, false));
  });
  it('that is really nearly full takes nothing more, until it is emptier by a step', () => {
    given(...requested, opened, observed(86)).when(seen(90)).then(observed(90), full);
    given(...requested, opened, observed(90), full).when(reserve(1, 1)).thenRefused('pool.nearly_full', { poolId, usedPercent: 90, fullPercent: 90 });
    given(...requested, opened, observed(90), full).when(seen(87)).then();
    given(...requested, opened, observed(90), full).when(seen(84)).then(observed(84), { type: 'PoolRelieved', data: { usedPercent: 84, fullPercent: 90 } });
    given(...requested, opened, observed(86)).when({ type: 'ChangePool', data: { poolId, fullPercent: 80 } }).then({ type: 'PoolPolicyChanged', data: { overcommitPercent: 100, fullPercent: 80 } }, { type: 'PoolNearlyFull', data: { usedPercent: 86, fullPercent: 80 } });
  });
});
