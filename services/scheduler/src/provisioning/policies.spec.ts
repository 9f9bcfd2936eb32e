import { describe, expect, it } from 'vitest';
import type { NodeId, OperationId, VmId } from '@chronovirt/contracts/ids';
import type { VmEvent, VmSpec } from '@chronovirt/contracts/vm/vm.events';
import { replay } from '@chronovirt/decider/decider';
import { vm } from '../vm/vm.ts';
import { firstVolumeOf, reactionTo } from './policies.ts';

const hex = (n: number): string => n.toString(16).padStart(32, '0');
const vmId: VmId = `vm_${hex(1)}`;
const nodeId: NodeId = `node_${hex(2)}`;
const poolId = `pool_${hex(3)}` as const;
const op = (n: number): OperationId => `op_${hex(100 + n)}`;
const network = { networkId: `network_${hex(4)}`, subnetId: `subnet_${hex(5)}`, name: 'cv-default', kind: 'nat', cidr: '10.21.0.0/24', gateway: '10.21.0.1', prefix: 24, bridge: 'cvbr-0' } as const;
const spec: VmSpec = {
  name: 'web-1', description: '', imageId: `image_${hex(6)}`, networkId: network.networkId, subnetId: network.subnetId, vcpus: 1, memoryMib: 256, diskGib: 2,
  accel: 'any', devices: 'virtio', nodeId: null, tags: [], protected: false, vcpusMax: 4, memoryMibMax: 1_024, boot: ['disk'], media: null, cloudInit: null, diskLimits: null,
};
const requested: VmEvent = { type: 'VmRequested', data: { vmId, operationId: op(1), spec, imageFile: 'guest.qcow2', imageFormat: 'qcow2', network } };
const placed: VmEvent = { type: 'VmPlaced', data: { operationId: op(1), nodeId, poolId, generation: 1, decision: {} } };
const built: VmEvent = { type: 'VmProvisioned', data: { operationId: op(1), provisioned: { poolId, volumeId: firstVolumeOf(vmId), address: '10.21.0.2', prefix: 24, mac: '52:54:0a:15:00:02' } } };
const done = (n: number): VmEvent => ({ type: 'VmOperationDone', data: { operationId: op(n), how: 'done' } });
const failed = (n: number, owed: string[] = []): VmEvent => ({ type: 'VmOperationFailed', data: { operationId: op(n), refused: 'saga.step_overdue', because: {}, owed } });
const start: VmEvent = { type: 'VmPowerRequested', data: { operationId: op(2), action: 'start', timeoutSeconds: 0, force: false } };
const cleanUp: VmEvent = { type: 'VmCleanUpStarted', data: { operationId: op(3) } };
const deleteStarted: VmEvent = { type: 'VmDeleteStarted', data: { operationId: op(3) } };
const left = { nodeId, poolId, mac: '52:54:0a:15:00:02', macs: [{ subnetId: `subnet_${hex(7)}`, mac: '52:54:0a:16:00:02' }] };

/** The reaction to the last event of a history. */
const after = (...history: readonly VmEvent[]) => {
  const last = history.at(-1);
  if (last === undefined) throw new Error('no history');
  return reactionTo(last, replay(vm, history), (name) => `key of ${name}`, left);
};

describe('What an event of a VM calls for', () => {
  it('is its saga, under the operation\'s id', () => {
    expect(after(requested)).toMatchObject({ kind: 'start', saga: 'provision-vm', id: op(1), input: { vmId, volumeId: firstVolumeOf(vmId), nameKey: 'key of web-1' } });
    expect(after(requested, placed, built, done(1), start)).toMatchObject({ kind: 'start', saga: 'power-vm', id: op(2), input: { action: 'start', nodeId, generation: 1 } });
    expect(after(requested, placed, built, done(1), deleteStarted)).toMatchObject({ kind: 'start', saga: 'delete-vm', id: op(3), input: { nodeId, reservedOn: nodeId, poolId, nics: [{ mac: '52:54:0a:15:00:02' }] } });
  });
  it('is made of what the log can hold', () => {
    for (const reaction of [after(requested), after(requested, placed, built, done(1), start), after(requested, placed, built, done(1), deleteStarted)]) expect(reaction).toStrictEqual(JSON.parse(JSON.stringify(reaction)));
  });
  it('is nothing once the operation is over: the event is history', () => {
    expect(reactionTo(requested, replay(vm, [requested, placed, built, done(1)]), String)).toBeUndefined();
    expect(reactionTo(start, replay(vm, [requested, placed, built, done(1), start, failed(2)]), String)).toBeUndefined();
    expect(reactionTo(requested, { status: 'deleted', nodeId, generation: 1 }, String)).toBeUndefined();
  });
  it('is to cancel what runs, when a delete waits for it', () => {
    const asked: VmEvent = { type: 'VmDeleteRequested', data: { operationId: op(3), force: true, cancels: op(1) } };
    expect(after(requested, asked)).toMatchObject({ kind: 'cancel', saga: 'provision-vm', id: op(1) });
    expect(reactionTo(asked, replay(vm, [requested, asked, failed(1), deleteStarted]), String)).toBeUndefined();
  });
  it('is to give back the addresses of interfaces that came with a backup, also when they were never built', () => {
    const second = { ...network, networkId: `network_${hex(7)}`, subnetId: `subnet_${hex(7)}`, name: 'cv-second' } as const;
    const restored: VmEvent = { type: 'VmRequested', data: { ...(requested.data), restore: { backupId: `backup_${hex(1)}`, ofVm: vmId, targetId: `target_${hex(1)}`, chain: [], volumes: [], nics: [second], drill: false } } };
    expect(after(restored, placed, failed(1, ['domain']), cleanUp)).toMatchObject({ input: { nics: [{ mac: left.mac }, { network: second, mac: '52:54:0a:16:00:02' }], subnetIds: [network.subnetId, second.subnetId] } });
  });
  it('is to take away what a creation left, with what only the creation knew', () => {
    expect(after(requested, failed(1, ['capacity', 'address']), cleanUp)).toMatchObject({ saga: 'clean-up-vm', id: op(3), input: { nodeId: null, reservedOn: nodeId, poolId, nics: [{ mac: left.mac }] } });
    expect(after(requested, placed, failed(1, ['domain']), cleanUp)).toMatchObject({ saga: 'clean-up-vm', input: { nodeId, reservedOn: nodeId, generation: 1, nics: [{ mac: left.mac }] } });
  });
  it('is to make the machine different, and to settle that where it is owed', () => {
    const asked: VmEvent = { type: 'VmReconfigureRequested', data: { operationId: op(2), change: { name: 'web-2', vcpus: 2 } } };
    const input = { operationId: op(2), nodeId, poolId, generation: 1, change: { name: 'web-2', vcpus: 2 }, nameKeyBefore: 'key of web-1', nameKeyAfter: 'key of web-2', machine: { first: { mac: '52:54:0a:15:00:02' }, nics: [] } };
    expect(after(requested, placed, built, done(1), asked)).toMatchObject({ kind: 'start', saga: 'reconfigure-vm', id: op(2), input });
    expect(after(requested, placed, built, done(1), asked, failed(2, ['domain']), cleanUp)).toMatchObject({ saga: 'settle-reconfiguration', input: { ...input, operationId: op(3), failedOperationId: op(2) } });
  });
  it('is to ask the guest, and to settle that where it is owed', () => {
    const request = { kind: 'add-ssh-keys', user: 'root', keys: ['ssh-ed25519 AAAA'] } as const;
    const asked: VmEvent = { type: 'VmGuestRequested', data: { operationId: op(2), request: { ...request, keys: [...request.keys] } } };
    expect(after(requested, placed, built, done(1), asked)).toEqual({ kind: 'start', saga: 'guest-vm', id: op(2), input: { operationId: op(2), vmId, nodeId, generation: 1, request } });
    expect(after(requested, placed, built, done(1), asked, failed(2, ['guest']), cleanUp)).toEqual({ kind: 'start', saga: 'settle-guest', id: op(3), input: { operationId: op(3), vmId, nodeId, generation: 1, failedOperationId: op(2) } });
  });
  it('is only to settle the action, where a complete VM owes one', () => {
    expect(after(requested, placed, built, done(1), start, failed(2, ['node', 'capacity']), cleanUp)).toMatchObject({ saga: 'settle-power', id: op(3), input: { action: 'start', failedOperationId: op(2), operationId: op(3), nodeId } });
  });
});
