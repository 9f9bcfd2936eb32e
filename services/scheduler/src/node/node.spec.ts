import { describe, expect, it } from 'vitest';
import fc from 'fast-check';
import type { NodeId, VmId } from '@chronovirt/contracts/ids';
import type { NodeCommand } from '@chronovirt/contracts/node/node.commands';
import { type NodeDescription, type NodeEvent, nodePolicyDefault as policyDefault } from '@chronovirt/contracts/node/node.events';
import { isRefusal, replay } from '@chronovirt/decider/decider';
import { scenarioOf } from '@chronovirt/decider/scenario';
import { capacityOf } from './capacity.ts';
import { node } from './node.ts';

const hex = (n: number): string => n.toString(16).padStart(32, '0');
const nodeId: NodeId = `node_${hex(1)}`;
const vm = (n: number): VmId => `vm_${hex(n)}`;
const description: NodeDescription = { hypervisor: 'simulated', accel: 'tcg', accelBecause: 'simulated', cpus: 2, memoryMib: 2_560, versions: {} };
const given = scenarioOf(node, (actual, expected) => { expect(actual).toEqual(expected); });
const joined = { nodeId, name: 'rack-1', machineId: 'abc', credentialKey: 'U', sealKey: 'S' };
const registered: NodeEvent = { type: 'NodeRegistered', data: joined };
const described: NodeEvent = { type: 'NodeDescribed', data: description };
const session = (n: number): NodeEvent => ({ type: 'NodeSessionStarted', data: { session: n } });
const reserved = (n: number, vcpus: number, memoryMib: number): NodeEvent => ({ type: 'CapacityReserved', data: { vmId: vm(n), vcpus, memoryMib, decision: {} } });
const removed: NodeEvent = { type: 'NodeRemoved', data: { reason: 'burnt' } };
const reserve = (n: number, vcpus: number, memoryMib: number, byHand = false) => ({ type: 'ReserveCapacity', data: { nodeId, vmId: vm(n), vcpus, memoryMib, poolId: null, byHand, decision: {} } }) as const;
const release = (n: number) => ({ type: 'ReleaseCapacity', data: { nodeId, vmId: vm(n) } }) as const;
const remove = (force = false) => ({ type: 'RemoveNode', data: { nodeId, reason: 'burnt', force } }) as const;
const hello = { type: 'StartSession', data: { nodeId, description } } as const;
const ready = [registered, described, session(1)];

describe('A node', () => {
  it('joins once, with one machine', () => {
    given().when({ type: 'RegisterNode', data: joined }).then(registered);
    given(registered).when({ type: 'RegisterNode', data: joined }).then();
    given(registered).when({ type: 'RegisterNode', data: { ...joined, machineId: 'other' } }).thenRefused('node.exists', { nodeId });
    given(registered, removed).when({ type: 'RegisterNode', data: joined }).thenRefused('node.removed', { nodeId });
  });
  it('lends a device to one VM, which keeps it until it gives it back', () => {
    const device = 'pci-0000:01:00.0';
    const lends: NodeEvent = { type: 'NodeDescribed', data: { ...description, assignable: [{ device: { kind: 'pci', address: '0000:01:00.0' }, says: 'a card' }] } };
    const hold = (n: number, wanted = device) => ({ type: 'HoldDevice', data: { nodeId, vmId: vm(n), device: wanted } }) as const;
    const give = (n: number, back: string | null) => ({ type: 'ReleaseDevice', data: { nodeId, vmId: vm(n), device: back } }) as const;
    const held: NodeEvent = { type: 'DeviceHeld', data: { vmId: vm(1), device } };
    const back: NodeEvent = { type: 'DeviceReleased', data: { vmId: vm(1), device } };
    given(registered, lends).when(hold(1)).then(held);
    given(registered, lends, held).when(hold(1)).then();
    given(registered, lends, held).when(hold(2)).thenRefused('device.taken', { nodeId, device, vmId: vm(1) });
    given(registered, lends).when(hold(1, 'usb-1234:abcd')).thenRefused('device.not_on_node', { nodeId, device: 'usb-1234:abcd' });
    for (const which of [device, null]) given(registered, lends, held).when(give(1, which)).then(back);
    for (const other of [give(2, null), give(2, device), give(1, 'usb-1234:abcd')]) given(registered, lends, held).when(other).then();
    given(registered, lends, held, back).when(hold(2)).then({ type: 'DeviceHeld', data: { vmId: vm(2), device } });
    // One that is gone for good has nothing to give back, and nobody is to wait for it.
    given(registered, lends, held, removed).when(give(1, null)).then();
    given(registered, lends, held, removed).when(hold(1)).thenRefused('node.removed', { nodeId });
  });
  it('starts a session with every hello, and describes itself when that is news', () => {
    given(registered).when(hello).then(described, session(1));
    given(...ready).when(hello).then(session(2));
    given(...ready).when(hello).thenFacts({ session: 2 });
    given(...ready).when({ type: 'StartSession', data: { nodeId, description: { ...description, cpus: 4 } } }).then({ type: 'NodeDescribed', data: { ...description, cpus: 4 } }, session(2));
  });
  it('is not heard when nobody knows it, or when it was removed', () => {
    given().when(hello).thenRefused('node.not_found', { nodeId });
    given(...ready, removed).when(hello).thenRefused('node.removed', { nodeId });
  });
  it('promises CPUs and memory by percents, beside the reserve, rounded down', () => {
    expect(capacityOf(description, policyDefault)).toEqual({ vcpus: 16, memoryMib: 2_048 });
    expect(capacityOf({ cpus: 3, memoryMib: 1_001 }, { cpuPercent: 150, memoryPercent: 50, memoryReserveMib: 0 })).toEqual({ vcpus: 4, memoryMib: 500 });
    expect(capacityOf({ cpus: 1, memoryMib: 100 }, policyDefault)).toEqual({ vcpus: 8, memoryMib: 0 });
  });
  it('sets aside what it has, to the last MiB', () => {
    given(...ready, reserved(1, 1, 1_024)).when(reserve(2, 15, 1_024)).then(reserved(2, 15, 1_024));
    given(...ready, reserved(1, 1, 1_024)).when(reserve(2, 1, 1_025)).thenRefused('node.no_memory', { nodeId, memoryMib: 1_025, memoryMibFree: 1_024 });
    given(...ready, reserved(1, 1, 1_024)).when(reserve(2, 16, 1)).thenRefused('node.no_cpu', { nodeId, vcpus: 16, vcpusFree: 15 });
  });
  it('sets aside once for one VM, and gives back exactly that, once', () => {
    given(...ready, reserved(1, 1, 512)).when(reserve(1, 1, 512)).then();
    given(...ready, reserved(1, 1, 512)).when(release(1)).then({ type: 'CapacityReleased', data: { vmId: vm(1), vcpus: 1, memoryMib: 512 } });
    given(...ready).when(release(1)).then();
    given(...ready, reserved(1, 1, 512), removed).when(release(1)).then();
  });
  it('has said what it is before it carries anything', () => given(registered).when(reserve(1, 1, 1)).thenRefused('node.never_seen', { nodeId }));
  it('in maintenance takes nothing, not accepting only what is placed by hand', () => {
    const policy = (change: Partial<typeof policyDefault>): NodeEvent => ({ type: 'NodePolicyChanged', data: { ...policyDefault, ...change } });
    given(...ready, policy({ maintenance: true })).when(reserve(1, 1, 1, true)).thenRefused('node.maintenance', { nodeId });
    given(...ready, policy({ accepting: false })).when(reserve(1, 1, 1)).thenRefused('node.not_accepting', { nodeId });
    given(...ready, policy({ accepting: false })).when(reserve(1, 1, 1, true)).then(reserved(1, 1, 1));
  });
  it('changes what is asked for and nothing else, and nothing when it is so already', () => {
    given(...ready).when({ type: 'ChangeNode', data: { nodeId, accepting: false } }).then({ type: 'NodePolicyChanged', data: { ...policyDefault, accepting: false } });
    given(...ready).when({ type: 'ChangeNode', data: { nodeId, accepting: true } }).then();
  });
  it('is removed once', () => {
    given(...ready).when(remove()).then(removed);
    given(...ready, removed).when(remove()).thenRefused('node.removed', { nodeId });
  });
  it('is not removed while VMs have capacity there, unless that is wanted', () => {
    given(...ready, reserved(1, 1, 64)).when(remove()).thenRefused('node.in_use', { nodeId, count: 1, vms: [vm(1)] });
    given(...ready, reserved(1, 1, 64)).when(remove(true)).then(removed);
  });

  it('never carries more than it may, whatever comes in whatever order', () => {
    const act = fc.record({ vm: fc.nat(10), vcpus: fc.integer({ min: 1, max: 6 }), memoryMib: fc.integer({ min: 64, max: 900 }), release: fc.boolean(), byHand: fc.boolean() });
    fc.assert(fc.property(fc.array(act, { maxLength: 60 }), (acts) => {
      let history: readonly NodeEvent[] = ready;
      const held = new Map<string, { vcpus: number; memoryMib: number }>();
      for (const { vm: n, vcpus, memoryMib, release: back, byHand } of acts) {
        const command: Exclude<NodeCommand, { type: 'PlaceVm' | 'UnplaceVm' }> = back ? release(n) : reserve(n, vcpus, memoryMib, byHand);
        const decision = node.decide(command, replay(node, history));
        if (isRefusal(decision)) continue;
        for (const event of decision) {
          if (event.type === 'CapacityReserved') held.set(event.data.vmId, event.data);
          if (event.type === 'CapacityReleased') held.delete(event.data.vmId);
        }
        history = [...history, ...decision];
        const sum = [...held.values()].reduce((all, one) => ({ vcpus: all.vcpus + one.vcpus, memoryMib: all.memoryMib + one.memoryMib }), { vcpus: 0, memoryMib: 0 });
        expect(sum.vcpus).toBeLessThanOrEqual(16);
        expect(sum.memoryMib).toBeLessThanOrEqual(2_048);
        expect(replay(node, history)).toMatchObject({ vcpusReserved: sum.vcpus, memoryMibReserved: sum.memoryMib });
      }
    }), { numRuns: 150 });
  });
});
