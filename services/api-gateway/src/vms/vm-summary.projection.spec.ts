import { describe, expect, it } from 'vitest';
import { filmOf, folded, type Said } from '../testing-events.os.ts';
import { vmSummary, whileSilent, type VmSummary } from './vm-summary.projection.ts';

const id = `vm_${'1'.repeat(32)}`;
const node = `node_${'2'.repeat(32)}`;
const op = (number: number) => `op_${String(number).repeat(32)}`;
const vm = (type: string, data: object): Said => ({ stream: `vm-${id}`, type, data });

const requested = vm('VmRequested', {
  operationId: op(1), vmId: id, imageFile: 'tiny', imageFormat: 'qcow2', network: { name: 'default' },
  spec: { name: 'web', description: 'shop', imageId: 'image_1', networkId: 'network_1', subnetId: 'subnet_1', vcpus: 1, memoryMib: 128, diskGib: 1, accel: 'any', devices: 'virtio', nodeId: null, tags: [], protected: false },
});
const placed = vm('VmPlaced', { operationId: op(1), nodeId: node, generation: 1, decision: {} });
const provisioned = vm('VmProvisioned', { operationId: op(1), provisioned: { poolId: 'pool_1', volumeId: 'volume_1', address: '10.0.0.5', prefix: 24, mac: '52:54:0a:00:00:05' } });
const observed = (state: string): Said => vm('VmObserved', { nodeId: node, session: 1, sequence: 1, generation: 1, state, reason: 'because' });
const done = (number: number): Said => vm('VmOperationDone', { operationId: op(number), how: 'done' });
const power = (number: number, action: string): Said => vm('VmPowerRequested', { operationId: op(number), action, timeoutSeconds: 0, force: false });
const failed = (number: number, refused = 'domain.still_running', owed: readonly string[] = []): Said => vm('VmOperationFailed', { operationId: op(number), refused, because: {}, owed });
const deleteAsked = (number: number, cancels: string | null = null): Said => vm('VmDeleteRequested', { operationId: op(number), force: false, cancels });
const deleteStarted = (number: number): Said => vm('VmDeleteStarted', { operationId: op(number) });
const built = [requested, placed, provisioned, observed('running'), done(1)];

const after = (...said: readonly Said[]): VmSummary | undefined => folded(vmSummary, ...said).get(id);
const statuses = (...said: readonly Said[]) => filmOf(vmSummary, id, ...said).map((shown) => shown?.status);

describe('a VM', () => {
  it('is requested, provisioning, then what its node says', () => {
    expect(statuses(...built)).toEqual(['requested', 'provisioning', 'provisioning', 'provisioning', 'running']);
    expect(after(...built)).toMatchObject({ name: 'web', desired: 'running', nodeId: node, generation: 1, address: '10.0.0.5', mac: '52:54:0a:00:00:05', operationId: null, createdAt: '2026-01-31T12:00:01.000000Z', changedAt: '2026-01-31T12:00:05.000000Z', position: 5 });
  });

  it('shows what waits for a start, until it has started', () => {
    const changed = (number: number, change: object, ...pending: readonly string[]): readonly Said[] => [vm('VmReconfigureRequested', { operationId: op(number), change }), vm('VmReconfigured', { operationId: op(number), change, nic: null, volume: null, pending }), done(number)];
    const untold = [...built, ...changed(2, { hostname: 'web-2' }, 'hostname')];
    expect(after(...untold)?.pending).toEqual(['hostname']);
    // The node knows of the boot order by itself; that the guest has not been told its name only this knows.
    expect(after(...untold, ...changed(3, { boot: ['cdrom'] }, 'boot'))?.pending).toEqual(['boot', 'hostname']);
    expect(after(...untold, ...changed(3, { hostname: 'web-3' }))?.pending).toEqual([]);
    expect(after(...untold, ...changed(3, { cloudInit: { sshKeys: [] } }, 'cloudInit'))?.pending).toEqual(['cloudInit']);
    expect(after(...untold, observed('stopped'))?.pending).toEqual([]);
  });

  it('is bound to its node by a device of it, with the reason, until it lets go', () => {
    const changed = (number: number, change: object): readonly Said[] => [vm('VmReconfigureRequested', { operationId: op(number), change }), vm('VmReconfigured', { operationId: op(number), change, nic: null, volume: null, pending: [] }), done(number)];
    const device = { kind: 'pci', address: '0000:3b:00.0' };
    const bound = [...built, ...changed(2, { addDevice: device })];
    expect(after(...bound)?.pinned?.because).toBe('it has devices of its node: pci-0000:3b:00.0');
    expect(after(...bound, ...changed(3, { removeDevice: 'pci-0000:3b:00.0' }))?.pinned).toBeUndefined();
    expect(after(...built)?.pinned).toBeUndefined();
  });

  it('is in hand while something is asked of its guest', () => {
    expect(after(...built, vm('VmGuestRequested', { operationId: op(2), request: { kind: 'password', user: 'root' } }))).toMatchObject({ status: 'running', desired: 'running', operationId: op(2), operation: { kind: 'password' } });
  });

  it.each([['running', 'running', null], ['paused', 'paused', null], ['stopped', 'stopped', null], ['crashed', 'stopped', 'the guest crashed'], ['absent', 'stopped', 'its node has no such domain any more']])(
    'that is %s on its node is shown as %s, beside what is wanted', (state, status, because) => {
      expect(after(...built, observed(state))).toMatchObject({ status, statusBecause: because, desired: 'running', observed: { state } });
    });

  it.each([['start', 'running'], ['stop', 'stopped'], ['pause', 'paused'], ['reboot', 'running'], ['reset', 'running'], ['resume', 'running']])('asked to %s is wanted %s, and its status stays what was seen', (action, desired) => {
    expect(after(...built, power(2, action))).toMatchObject({ desired, status: 'running', operationId: op(2), operation: { kind: action } });
  });

  it('shows what is said about it now', () => {
    expect(after(requested, vm('VmChanged', { tags: ['a'], protected: true }))).toMatchObject({ description: 'shop', status: 'requested', spec: { tags: ['a'], protected: true, vcpus: 1 } });
    expect(after(requested, vm('VmChanged', { tags: ['a'] }), vm('VmChanged', { description: '', protected: false }))).toMatchObject({ description: '', spec: { tags: ['a'], protected: false } });
  });

  it('whose operation failed is wanted as before, and has not failed itself', () => {
    expect(after(...built, power(2, 'stop'), failed(2))).toMatchObject({ desired: 'running', status: 'running', failure: null, operationId: null });
  });

  it('that could not be built has failed, and says why', () => {
    expect(after(requested, failed(1, 'placement.no_host'))).toMatchObject({ status: 'failed', statusBecause: 'No node can take it: there is none.', desired: 'stopped', failure: { code: 'placement.no_host', owed: [] } });
  });

  it('that owes clean-up has failed until it is cleaned up', () => {
    const owing = [requested, placed, failed(1, 'saga.step_overdue', ['domain', 'address'])];
    expect(after(...owing)).toMatchObject({ status: 'failed', failure: { owed: ['domain', 'address'] } });
    expect(statuses(...owing, vm('VmCleanUpStarted', { operationId: op(2) }), done(2)).slice(-2)).toEqual(['failed', 'failed']);
  });

  it('is deleting from the wish to the end, cancelled operations included, and then gone', () => {
    expect(statuses(requested, deleteAsked(2, op(1)), failed(1, 'saga.cancelled'), deleteStarted(2), vm('VmDeleted', { operationId: op(2) }))).toEqual(['requested', 'deleting', 'deleting', 'deleting', undefined]);
    expect(after(requested, deleteAsked(2, op(1)))).toMatchObject({ desired: 'deleted', operationId: op(1), waitingDelete: op(2) });
  });

  it('whose deletion failed has failed, is still to be deleted, and can be deleted again', () => {
    const stuck = [...built, deleteAsked(2), deleteStarted(2), failed(2, 'saga.step_overdue', ['domain'])];
    expect(after(...stuck)).toMatchObject({ status: 'failed', desired: 'deleted', failure: { owed: ['domain'] } });
    expect(after(...stuck, deleteAsked(3), deleteStarted(3))).toMatchObject({ status: 'deleting' });
  });

  it('placed anew is known to nobody until its new node speaks', () => {
    expect(after(...built, vm('VmPlaced', { operationId: op(2), nodeId: node, generation: 2, decision: {} }))).toMatchObject({ status: 'unknown', observed: null, generation: 2 });
  });

  it('takes no notice of what is no VM, nor of what comes before its request', () => {
    expect(folded(vmSummary, { stream: `vm-name-${'a'.repeat(64)}`, type: 'Claimed', data: {} }, observed('running')).size).toBe(0);
  });

  it('on a silent node is unknown, unless something else is the matter', () => {
    const silent = { name: 'red', silentSince: '2026-01-31T12:00:00Z' };
    expect(whileSilent(after(...built) as VmSummary, silent)).toMatchObject({ status: 'unknown', statusBecause: 'node red silent since 2026-01-31T12:00:00Z' });
    expect(whileSilent(after(requested, placed) as VmSummary, silent)).toMatchObject({ status: 'provisioning' });
    expect(whileSilent(after(requested, failed(1)) as VmSummary, silent)).toMatchObject({ status: 'failed' });
  });
});
