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
