import { describe, expect, it } from 'vitest';
import type { BootRun } from '@chronovirt/contracts/boot-job/boot-job';
import type { NodeId, OperationId, VmId } from '@chronovirt/contracts/ids';
import type { ChangeVmBody, VmCommand } from '@chronovirt/contracts/vm/vm.commands';
import type { NetworkPlan } from '@chronovirt/contracts/network/network.events';
import type { AttachedVolume, DomainState, Nic, PowerAction, Reconfiguration, VmEvent, VmSpec } from '@chronovirt/contracts/vm/vm.events';
import { replay } from '@chronovirt/decider/decider';
import { scenarioOf } from '@chronovirt/decider/scenario';
import { sagaOf, vm } from './vm.ts';

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
const wish: Extract<VmEvent, { type: 'VmRequested' }>['data'] = { vmId, operationId: op(1), spec, imageFile: 'guest.qcow2', imageFormat: 'qcow2', network };
const provisioned = { poolId, volumeId: `volume_${hex(1)}`, address: '10.21.0.2', prefix: 24, mac: '52:54:0a:15:00:02' } as const;

const given = scenarioOf(vm, (actual, expected) => { expect(actual).toEqual(expected); });
const requested: VmEvent = { type: 'VmRequested', data: wish };
const placed: VmEvent = { type: 'VmPlaced', data: { operationId: op(1), nodeId, poolId, generation: 1, decision: {} } };
const built: VmEvent = { type: 'VmProvisioned', data: { operationId: op(1), provisioned } };
const observed = (state: DomainState, session = 1, sequence = 1): VmEvent => ({ type: 'VmObserved', data: { nodeId, session, sequence, generation: 1, state, reason: 'seen' } });
const done = (n: number, how = 'created'): VmEvent => ({ type: 'VmOperationDone', data: { operationId: op(n), how } });
const failed = (n: number, owed: string[] = []): VmEvent => ({ type: 'VmOperationFailed', data: { operationId: op(n), refused: 'saga.step_overdue', because: {}, owed } });
const powerRequested = (n: number, action: PowerAction, timeoutSeconds = 0, force = false): VmEvent => ({ type: 'VmPowerRequested', data: { operationId: op(n), action, timeoutSeconds, force } });
const running = [requested, placed, built, observed('running'), done(1)];
const stopped = [...running, powerRequested(2, 'stop'), observed('stopped', 1, 2), done(2, 'stop')];
const remove = (n: number, force = false): VmCommand => ({ type: 'DeleteVm', data: { vmId, operationId: op(n), force } });
const change = (data: ChangeVmBody): VmCommand => ({ type: 'ChangeVm', data: { vmId, operationId: op(9), ...data } });
const report = (state: DomainState, session: number, sequence: number, generation = 1, from: NodeId = nodeId): VmCommand => ({ type: 'RecordDomainState', data: { vmId, nodeId: from, session, sequence, generation, state, reason: 'seen' } });

describe('A VM', () => {
  it('is requested once', () => {
    given().when({ type: 'RequestVm', data: wish }).then(requested);
    given(requested).when({ type: 'RequestVm', data: wish }).thenRefused('vm.exists', { vmId });
  });
  it('gets a generation with each placement, from nothing else', () => {
    given(requested).when({ type: 'AssignVm', data: { vmId, operationId: op(1), nodeId, poolId, decision: {} } }).then(placed);
    given(requested).when({ type: 'AssignVm', data: { vmId, operationId: op(1), nodeId, poolId, decision: {} } }).thenFacts({ generation: 1 });
    given(requested, placed).when({ type: 'AssignVm', data: { vmId, operationId: op(1), nodeId, poolId, decision: {} } }).thenFacts({ generation: 2 });
    expect(replay(vm, stopped)).toMatchObject({ generation: 1 });
  });
  it('is placed by the operation that has it in hand', () =>
    given(requested, placed, failed(1)).when({ type: 'AssignVm', data: { vmId, operationId: op(1), nodeId, poolId, decision: {} } }).thenRefused('vm.other_operation', { operationId: null }));
  it('is built, seen and done in one commit', () =>
    given(requested, placed).when({ type: 'FinishVm', data: { vmId, operationId: op(1), how: 'created', provisioned, reconfigured: null, observed: { nodeId, session: 1, sequence: 1, generation: 1, state: 'running', reason: 'seen' } } })
      .then(built, observed('running'), done(1)));
  it('hears the end of an operation once', () => {
    given(...running).when({ type: 'FinishVm', data: { vmId, operationId: op(1), how: 'created', provisioned, reconfigured: null, observed: null } }).then();
    given(...running).when({ type: 'FailVm', data: { vmId, operationId: op(1), refused: 'x.y', because: {}, owed: [] } }).then();
    given(...running).when({ type: 'FinishDeleteVm', data: { vmId, operationId: op(1) } }).then();
  });
  it('that could not be made is there to be looked at, with the reason', () => {
    expect(replay(vm, [requested, placed, failed(1)])).toMatchObject({ status: 'live', operation: null, desired: 'stopped', failure: { refused: 'saga.step_overdue' }, provisioned: null });
    given(requested, failed(1)).when({ type: 'StartVm', data: { vmId, operationId: op(2) } }).thenRefused('vm.not_provisioned', { vmId, failure: 'saga.step_overdue' });
  });
  it('is unknown before and after its life', () => {
    given().when({ type: 'StartVm', data: { vmId, operationId: op(2) } }).thenRefused('vm.not_found', { vmId });
    given(...stopped, { type: 'VmDeleteRequested', data: { operationId: op(3), force: false, cancels: null } }, { type: 'VmDeleteStarted', data: { operationId: op(3) } }, { type: 'VmDeleted', data: { operationId: op(3) } })
      .when(remove(4)).thenRefused('vm.not_found', { vmId });
  });
});

describe('What is said about a VM', () => {
  it('changes at any time, and only what became different is recorded', () => {
    given(requested).when(change({ description: 'shop', tags: ['a'] })).then({ type: 'VmChanged', data: { description: 'shop', tags: ['a'] } });
    given(requested, { type: 'VmChanged', data: { description: 'shop', tags: ['a'] } }).when(change({ description: 'shop', tags: ['a'], protected: true })).then({ type: 'VmChanged', data: { protected: true } });
    given(requested).when(change({ protected: false, description: spec.description, tags: [...spec.tags] })).then();
    given().when(change({ protected: true })).thenRefused('vm.not_found', { vmId });
  });
});

describe('An action on a VM', () => {
  it('says what is wanted, and leaves what was seen', () => {
    given(...running).when({ type: 'StopVm', data: { vmId, operationId: op(2), timeoutSeconds: 30, force: true } }).then(powerRequested(2, 'stop', 30, true));
    expect(replay(vm, [...running, powerRequested(2, 'stop')])).toMatchObject({ desired: 'stopped', observed: { state: 'running' } });
  });
  it.for([
    ['StartVm', 'running', 'paused', 'vm.not_stopped'], ['RebootVm', 'stopped', 'paused', 'vm.not_running'], ['PauseVm', 'paused', 'stopped', 'vm.not_running'], ['ResumeVm', 'running', 'stopped', 'vm.not_paused'],
  ] as const)('%s is refused where it makes no sense', ([type, , from, code]) => {
    given(...running, observed(from, 1, 2)).when({ type, data: { vmId, operationId: op(2) } }).thenRefused(code);
  });
  it('that is so already is done at once', () =>
    given(...running).when({ type: 'StartVm', data: { vmId, operationId: op(2) } }).then(powerRequested(2, 'start'), done(2, 'already running')));
  it('that was anticipated behind our back still takes or gives its capacity', () =>
    given(...running, observed('stopped', 1, 2)).when({ type: 'StopVm', data: { vmId, operationId: op(2), timeoutSeconds: 0, force: false } }).then(powerRequested(2, 'stop')));
  it('starts what has crashed', () => given(...running, observed('crashed', 1, 2)).when({ type: 'StartVm', data: { vmId, operationId: op(2) } }).then(powerRequested(2, 'start')));
  it('is refused while another has it in hand, naming that one', () => {
    given(requested).when({ type: 'StartVm', data: { vmId, operationId: op(2) } }).thenRefused('vm.busy', { operationId: op(1), kind: 'create' });
    given(...running, powerRequested(2, 'stop')).when({ type: 'PauseVm', data: { vmId, operationId: op(3) } }).thenRefused('vm.busy', { operationId: op(2), kind: 'power' });
  });
  it('that failed leaves what was wanted before', () => { expect(replay(vm, [...stopped, powerRequested(3, 'start'), failed(3)])).toMatchObject({ desired: 'stopped', operation: null, failure: null }); });
  it('that left something owed is remembered, and no other is begun before that is settled', () => {
    const owing = [...stopped, powerRequested(3, 'start'), failed(3, ['node', 'capacity'])];
    expect(replay(vm, owing)).toMatchObject({ owed: ['node', 'capacity'], debt: { operationId: op(3), action: 'start' } });
    given(...owing).when({ type: 'StartVm', data: { vmId, operationId: op(4) } }).thenRefused('vm.clean_up_owed', { vmId, owed: ['node', 'capacity'], nodeId });
    given(...owing).when({ type: 'CleanUpVm', data: { vmId, operationId: op(4) } }).then({ type: 'VmCleanUpStarted', data: { operationId: op(4) } });
    // A clean-up that failed keeps the first debt.
    const again = replay(vm, [...owing, { type: 'VmCleanUpStarted', data: { operationId: op(4) } }, failed(4, ['node', 'capacity'])]);
    expect(again).toMatchObject({ debt: { operationId: op(3), action: 'start' } });
    const settled = replay(vm, [...owing, { type: 'VmCleanUpStarted', data: { operationId: op(4) } }, done(4, 'cleaned up')]);
    expect(settled).toMatchObject({ owed: [], debt: null, desired: 'stopped' });
  });
  it('is settled on its own; only what a creation left is taken away', () => {
    expect(sagaOf('clean-up', { debt: { operationId: op(3), action: 'start', change: null, nic: null, work: null, backup: null }, operation: null, createdAs: 'made', provisioned: null })).toBe('settle-power');
    expect(sagaOf('clean-up', { debt: null, operation: null, createdAs: 'made', provisioned: null })).toBe('clean-up-vm');
  });
});

describe('A VM that becomes an image', () => {
  const imageId = `image_${'7'.repeat(32)}` as const;
  const publish = (more = {}) => ({ type: 'PublishVm' as const, data: { vmId, operationId: op(2), imageId, name: 'golden', ...more } });
  const asked: VmEvent = { type: 'VmPublishRequested', data: { operationId: op(2), imageId, volumeId: provisioned.volumeId, layer: null, sizeGib: spec.diskGib, image: { minMemoryMib: spec.memoryMib, name: 'golden' } } };
  it('is stopped, and has nothing else in hand meanwhile', () => {
    given(...stopped).when(publish()).then(asked);
    given(...running).when(publish()).thenRefused('vm.not_stopped', { vmId, state: 'running', hint: 'stop it first, or name a snapshot of it' });
    given(...stopped, asked).when({ type: 'StartVm', data: { vmId, operationId: op(3) } }).thenRefused('vm.busy', { operationId: op(2), kind: 'publish' });
  });
  it('has the snapshot that is named', () => given(...running).when(publish({ snapshot: `snapshot_${'8'.repeat(32)}` })).thenRefused('snapshot.not_found', { vmId, snapshotId: `snapshot_${'8'.repeat(32)}` }));
});

describe('A VM that is made different', () => {
  const change = (wish: Reconfiguration, n = 3): VmCommand => ({ type: 'RequestReconfiguration', data: { vmId, operationId: op(n), change: wish } });
  const asked = (wish: Reconfiguration, n = 3): VmEvent => ({ type: 'VmReconfigureRequested', data: { operationId: op(n), change: wish } });
  const second: NetworkPlan = { ...wish.network, networkId: `network_${'2'.repeat(32)}`, subnetId: `subnet_${'2'.repeat(32)}`, name: 'second' };
  const nic: Nic = { network: second, mac: '52:54:0a:16:00:02', address: '10.22.0.2' };
  const changed = (wish: Reconfiguration, given: Nic | null = null, n = 3): VmEvent => ({ type: 'VmReconfigured', data: { operationId: op(n), change: wish, nic: given, volume: null, pending: [] } });
  const finish = (reconfigured: Extract<VmCommand, { type: 'FinishVm' }>['data']['reconfigured']): VmCommand => ({ type: 'FinishVm', data: { vmId, operationId: op(3), how: 'reconfigured', provisioned: null, reconfigured, observed: null } });

  it('is so when its operation is done', () => {
    given(...running).when(change({ vcpus: 2 })).then(asked({ vcpus: 2 }));
    given(...running, asked({ vcpus: 2 })).when(finish({ nic: null, volume: null, pending: ['vcpus'] })).then({ type: 'VmReconfigured', data: { operationId: op(3), change: { vcpus: 2 }, nic: null, volume: null, pending: ['vcpus'] } }, done(3, 'reconfigured'));
    expect(replay(vm, [...running, asked({ vcpus: 2, name: 'other' }), changed({ vcpus: 2, name: 'other' }), done(3)])).toMatchObject({ spec: { vcpus: 2, name: 'other', memoryMib: spec.memoryMib }, operation: null });
  });
  it('stays as it was when it fails', () => expect(replay(vm, [...running, asked({ vcpus: 2 }), failed(3)])).toMatchObject({ spec: { vcpus: spec.vcpus }, failure: null, desired: 'running' }));
  it('has one operation at a time', () => given(...running, asked({ vcpus: 2 })).when(change({ vcpus: 3 }, 4)).thenRefused('vm.busy', { operationId: op(3), kind: 'reconfigure' }));
  it('says at once when it is so already', () => given(...running).when(change({ vcpus: spec.vcpus, boot: ['disk'] })).then(asked({ vcpus: spec.vcpus, boot: ['disk'] }), done(3, 'already so')));
  it('has a disk that never shrinks', () => given(...running).when(change({ diskGib: spec.diskGib - 1 })).thenRefused('vm.disk_cannot_shrink', { vmId, diskGib: spec.diskGib, wanted: spec.diskGib - 1, field: 'diskGib' }));
  it('is given a device once, gives back what it has, and is not put to rest with one of its node', () => {
    const card = { kind: 'pci', address: '0000:01:00.0' } as const;
    const [tablet, name] = [{ kind: 'virtual-usb', model: 'tablet' } as const, 'pci-0000:01:00.0'];
    given(...running).when(change({ addDevice: card })).then(asked({ addDevice: card }));
    given(...running).when(change({ removeDevice: name })).thenRefused('vm.device_not_found', { vmId, device: name });
    const bound = [...running, asked({ addDevice: card }), changed({ addDevice: card }), done(3)];
    expect(replay(vm, bound)).toMatchObject({ spec: { assigned: [card] } });
    given(...bound).when(change({ addDevice: card }, 4)).thenRefused('vm.device_attached', { vmId, device: name });
    given(...bound).when({ type: 'SaveVm', data: { vmId, operationId: op(4) } }).thenRefused('vm.pinned', { vmId, nodeId, devices: [name] });
    expect(replay(vm, [...bound, asked({ removeDevice: name }, 4), changed({ removeDevice: name }, null, 4), done(4)])).toMatchObject({ spec: { assigned: [] } });
    const full = Array.from({ length: 16 }, (_, n) => ({ kind: 'usb', vendor: '1234', product: n.toString(16).padStart(4, '0') }) as const);
    given({ ...requested, data: { ...wish, spec: { ...spec, assigned: full } } }, ...running.slice(1)).when(change({ addDevice: tablet })).thenRefused('vm.too_many_devices', { vmId, max: 16 });
    given({ ...requested, data: { ...wish, spec: { ...spec, assigned: [tablet] } } }, ...running.slice(1)).when({ type: 'SaveVm', data: { vmId, operationId: op(3) } }).then(powerRequested(3, 'save'));
  });
  it('has one interface in each network, and keeps its first', () => {
    given(...running).when(change({ addNic: wish.network })).thenRefused('vm.nic_in_network', { vmId, networkId: wish.network.networkId, network: wish.network.name, field: 'network' });
    given(...running).when(change({ removeNic: provisioned.mac })).thenRefused('vm.first_nic', { vmId, mac: provisioned.mac });
    given(...running).when(change({ removeNic: nic.mac })).thenRefused('vm.nic_not_found', { vmId, mac: nic.mac });
    const two = [...running, asked({ addNic: second }), changed({ addNic: second }, nic), done(3)];
    expect(replay(vm, two)).toMatchObject({ nics: [nic] });
    given(...two).when(change({ addNic: second }, 4)).thenRefused('vm.nic_in_network', { vmId, networkId: second.networkId, network: 'second', field: 'network' });
    expect(replay(vm, [...two, asked({ removeNic: nic.mac }, 4), changed({ removeNic: nic.mac }, null, 4), done(4)])).toMatchObject({ nics: [] });
  });
  const digits = (n: string): `volume_${string}` => `volume_${n.repeat(32)}`;
  const disk = (n: string) => ({ addVolume: { volumeId: digits(n), name: `data-${n}`, unit: 1, sizeGib: 3, image: null, limits: null } });
  const attachedAs = (n: string, unit: number): AttachedVolume => ({ volumeId: digits(n), unit, sizeGib: 3, limits: null });
  const with1: readonly VmEvent[] = [...running, asked(disk('1')), { type: 'VmReconfigured', data: { operationId: op(3), change: disk('1'), nic: null, volume: attachedAs('1', 1), pending: [] } }, done(3)];
  it('gives a disk the first place that is free, and the disk keeps it', () => {
    given(...with1).when(change(disk('2'), 4)).then(asked({ addVolume: { ...disk('2').addVolume, unit: 2 } }, 4));
    given(...with1).when(change({ attachVolume: { volumeId: digits('1'), unit: 1 } }, 4)).thenRefused('volume.attached', { volumeId: digits('1'), vmId });
    const without1: readonly VmEvent[] = [...with1, asked({ detachVolume: { volumeId: digits('1'), delete: false } }, 4), { type: 'VmReconfigured', data: { operationId: op(4), change: { detachVolume: { volumeId: digits('1'), delete: false } }, nic: null, volume: null, pending: [] } }, done(4)];
    expect(replay(vm, without1)).toMatchObject({ volumes: [] });
    given(...without1).when(change({ detachVolume: { volumeId: digits('1'), delete: false } }, 5)).thenRefused('vm.volume_not_found', { vmId, volumeId: digits('1') });
  });
  it('keeps the disk it was made with, and lets go of nothing while it is paused', () => {
    given(...with1).when(change({ detachVolume: { volumeId: provisioned.volumeId, delete: true } }, 4)).thenRefused('vm.system_disk', { vmId, volumeId: provisioned.volumeId });
    given(...with1, observed('paused', 2)).when(change({ detachVolume: { volumeId: digits('1'), delete: false } }, 4)).thenRefused('vm.paused', { vmId, hint: 'resume it first, or stop it' });
  });
  it('has disks that grow and are limited', () => {
    given(...with1).when(change({ changeVolume: { volumeId: digits('1'), sizeGib: 2 } }, 4)).thenRefused('vm.disk_cannot_shrink', { vmId, diskGib: 3, wanted: 2, field: 'sizeGib' });
    const wish = { changeVolume: { volumeId: digits('1'), sizeGib: 5, limits: { iops: 10 } } };
    expect(replay(vm, [...with1, asked(wish, 4), { type: 'VmReconfigured', data: { operationId: op(4), change: wish, nic: null, volume: null, pending: [] } }, done(4)])).toMatchObject({ volumes: [{ unit: 1, sizeGib: 5, limits: { iops: 10 } }] });
  });
  it('holds what it runs with until it is started anew', () => {
    const smaller = [...running, asked({ memoryMib: 128 }), changed({ memoryMib: 128 }), done(3)];
    expect(replay(vm, smaller)).toMatchObject({ spec: { memoryMib: 128 }, held: { memoryMib: spec.memoryMib } });
    expect(replay(vm, [...smaller, powerRequested(4, 'stop'), done(4), powerRequested(5, 'start'), done(5)])).toMatchObject({ held: { memoryMib: 128 } });
  });
  it('is told its host name where somebody can tell it', () => {
    const anew = { cloudInit: { sshKeys: [] } };
    given(...running).when(change({ hostname: 'web-2' })).then(asked({ hostname: 'web-2' }));
    given(...stopped).when(change({ hostname: 'web-2' })).thenRefused('vm.no_cloud_init', { vmId, field: 'hostname' });
    given(...stopped).when(change({ hostname: 'web-2', ...anew })).then(asked({ hostname: 'web-2', ...anew }));
    expect(replay(vm, [...running, asked(anew), changed(anew), done(3)])).toMatchObject({ spec: anew, seedVersion: 2 });
    expect(replay(vm, [...running, asked({ hostname: 'a' }), changed({ hostname: 'a' }), done(3)])).toMatchObject({ seedVersion: 1 });
  });
  it('owes a change that a silent node kept from being taken back, and settles that', () => {
    const owing = [...running, asked({ vcpus: 2 }), failed(3, ['domain'])];
    expect(replay(vm, owing)).toMatchObject({ debt: { operationId: op(3), action: null, change: { vcpus: 2 } } });
    expect(sagaOf('clean-up', { debt: { operationId: op(3), action: null, change: { vcpus: 2 }, nic: null, work: null, backup: null }, operation: null, createdAs: 'made', provisioned: null })).toBe('settle-reconfiguration');
    given(...owing).when(change({ vcpus: 3 }, 4)).thenRefused('vm.clean_up_owed', { vmId, owed: ['domain'], nodeId });
  });
});

describe('What is asked of a guest', () => {
  const request = { kind: 'password', user: 'root', nodeId, sealed: 'AQ' } as const;
  const ask = (n = 3, from: NodeId = nodeId): VmCommand => ({ type: 'AskGuest', data: { vmId, operationId: op(n), request: { ...request, nodeId: from } } });
  const asked = (n = 3): VmEvent => ({ type: 'VmGuestRequested', data: { operationId: op(n), request } });

  it('is asked of one that runs, with a reason for the others', () => {
    given(...running).when(ask()).then(asked());
    given(...stopped).when(ask()).thenRefused('vm.not_running', { vmId, state: 'stopped', action: 'password', hint: 'only the guest agent of a running VM can do it: start it first' });
  });
  it('is a password for the disks of one that is stopped, and of no other', () => {
    const offline: VmCommand = { type: 'AskGuest', data: { vmId, operationId: op(3), request: { ...request, offline: true } } };
    given(...stopped).when(offline).then({ type: 'VmGuestRequested', data: { operationId: op(3), request: { ...request, offline: true } } });
    given(...running).when(offline).thenRefused('vm.not_stopped', { vmId, state: 'running', hint: 'stop it first: nobody else may write on the disks of one that runs' });
  });
  it('is one operation among others', () => {
    given(...running, asked()).when(ask(4)).thenRefused('vm.busy', { operationId: op(3), kind: 'guest' });
    given(...running, asked()).when({ type: 'FinishVm', data: { vmId, operationId: op(3), how: 'guest-agent', provisioned: null, reconfigured: null, observed: null } }).then(done(3, 'guest-agent'));
  });
  it('changes nothing of what is wanted, whether it is done or not', () => {
    for (const end of [done(3), failed(3)]) expect(replay(vm, [...running, asked(), end])).toMatchObject({ desired: 'running', operation: null, failure: null, owed: [], debt: null });
  });
  it('is not asked on another node than the secret was sealed for', () => given(...running).when(ask(3, `node_${hex(9)}`)).thenRefused('vm.moved', { vmId, nodeId }));
  it('is settled where a silent node owes it, and never by taking the VM away', () => {
    const owing = [...running, asked(), failed(3, ['guest'])];
    const state = replay(vm, owing);
    expect(state).toMatchObject({ debt: { operationId: op(3), action: null, change: null } });
    if (state.status !== 'live') throw new Error('it is gone');
    expect(sagaOf('clean-up', state)).toBe('settle-guest');
    // Still owed when settling it fails.
    expect(replay(vm, [...owing, { type: 'VmCleanUpStarted', data: { operationId: op(4) } }, failed(4, ['guest'])])).toMatchObject({ debt: { operationId: op(3), action: null, change: null } });
  });
});

describe('A VM that is saved', () => {
  const saved = [...running, powerRequested(2, 'save'), observed('saved', 1, 2), done(2, 'save')];
  const hint = 'start it, or give up what it had in memory: stop it with force=true';
  it('is wanted so, goes on when it is started, and is saved once', () => {
    expect(replay(vm, saved)).toMatchObject({ desired: 'saved', observed: { state: 'saved' }, operation: null });
    given(...saved).when({ type: 'StartVm', data: { vmId, operationId: op(3) } }).then(powerRequested(3, 'start'));
    given(...saved).when({ type: 'SaveVm', data: { vmId, operationId: op(3) } }).then(powerRequested(3, 'save'), done(3, 'already saved'));
    given(...stopped).when({ type: 'SaveVm', data: { vmId, operationId: op(3) } }).thenRefused('vm.not_running', { vmId, state: 'stopped', action: 'save' });
  });
  it('is not made different under what it has in memory', () => {
    given(...saved).when({ type: 'RequestReconfiguration', data: { vmId, operationId: op(3), change: { vcpus: 2 } } }).thenRefused('vm.saved', { vmId, hint });
    given(...saved).when({ type: 'TakeSnapshot', data: { vmId, operationId: op(3), snapshotId: `snapshot_${hex(9)}`, name: 'x', description: '', kind: 'external' } }).thenRefused('vm.saved', { vmId, hint });
  });
  it('gives that up with force alone', () => {
    given(...saved).when({ type: 'StopVm', data: { vmId, operationId: op(3), timeoutSeconds: 5, force: false } }).thenRefused('vm.saved', { vmId, hint });
    given(...saved).when({ type: 'StopVm', data: { vmId, operationId: op(3), timeoutSeconds: 5, force: true } }).then(powerRequested(3, 'stop', 5, true));
    given(...saved).when(remove(3)).thenRefused('vm.saved', { vmId, hint: 'start it, or delete it with force=true: what it had in memory is lost then' });
    given(...saved).when(remove(3, true)).then({ type: 'VmDeleteRequested', data: { operationId: op(3), force: true, cancels: null } }, { type: 'VmDeleteStarted', data: { operationId: op(3) } });
  });
  it('goes on with what it had, which may be more than is wanted now', () => {
    const less: VmEvent[] = [{ type: 'VmReconfigureRequested', data: { operationId: op(4), change: { memoryMib: 128 } } }, { type: 'VmReconfigured', data: { operationId: op(4), change: { memoryMib: 128 }, nic: null, volume: null, pending: ['memoryMib'] } }, done(4)];
    const history = [...running, ...less, powerRequested(2, 'save'), observed('saved', 1, 2), done(2, 'save'), powerRequested(3, 'start'), observed('running', 1, 3), done(3, 'start')];
    expect(replay(vm, history)).toMatchObject({ held: { memoryMib: 256 }, spec: { memoryMib: 128 } });
  });
});

describe('Deleting a VM', () => {
  const asked = (n: number, cancels: OperationId | null = null, force = false): VmEvent => ({ type: 'VmDeleteRequested', data: { operationId: op(n), force, cancels } });
  const begun = (n: number): VmEvent => ({ type: 'VmDeleteStarted', data: { operationId: op(n) } });
  it('begins at once when nothing has it in hand', () => given(...stopped).when(remove(3)).then(asked(3), begun(3)));
  it('that runs needs force', () => {
    given(...running).when(remove(2)).thenRefused('vm.not_stopped', { vmId, state: 'running', hint: 'stop it first, or delete with force=true' });
    given(...running).when(remove(2, true)).then(asked(2, null, true), begun(2));
  });
  it('cancels what runs and waits for its end', () => {
    given(requested, placed).when(remove(2)).then(asked(2, op(1)));
    given(requested, placed, asked(2, op(1))).when({ type: 'FailVm', data: { vmId, operationId: op(1), refused: 'saga.step_overdue', because: {}, owed: [] } }).then(failed(1), begun(2));
    given(requested, placed, asked(2, op(1))).when({ type: 'FinishVm', data: { vmId, operationId: op(1), how: 'created', provisioned: null, reconfigured: null, observed: null } }).then(done(1), begun(2));
    given(...running, powerRequested(3, 'stop'), asked(2, op(3), true)).when({ type: 'FailVm', data: { vmId, operationId: op(3), refused: 'saga.step_overdue', because: {}, owed: [] } }).then(failed(3), begun(2));
  });
  it('is asked for once', () => {
    given(requested, asked(2, op(1))).when(remove(3)).thenRefused('vm.busy', { operationId: op(2), kind: 'delete' });
    given(...stopped, asked(3), begun(3)).when(remove(4)).thenRefused('vm.busy', { operationId: op(3), kind: 'delete' });
    given(requested, asked(2, op(1))).when({ type: 'StartVm', data: { vmId, operationId: op(3) } }).thenRefused('vm.busy', { operationId: op(1), kind: 'create' });
  });
  it('is refused for one that is protected, until it is no longer', () => {
    const protectedOne: readonly VmEvent[] = [{ type: 'VmRequested', data: { ...wish, spec: { ...spec, protected: true } } }, placed, built, observed('stopped'), done(1)];
    given(...protectedOne).when(remove(2)).thenRefused('vm.protected', { vmId });
    given(...protectedOne).when(change({ protected: false })).then({ type: 'VmChanged', data: { protected: false } });
    given(...protectedOne, { type: 'VmChanged', data: { protected: false } }).when(remove(2)).then(asked(2), begun(2));
  });
  it('ends its life', () => {
    given(...stopped, asked(3), begun(3)).when({ type: 'FinishDeleteVm', data: { vmId, operationId: op(3) } }).then({ type: 'VmDeleted', data: { operationId: op(3) } });
    expect(replay(vm, [...stopped, asked(3), begun(3), { type: 'VmDeleted', data: { operationId: op(3) } }])).toEqual({ status: 'deleted', nodeId, generation: 1 });
  });
  it('that a silent node kept from ending stays wanted, and goes on as a deletion', () => {
    const owing = [...stopped, asked(3), begun(3), failed(3, ['domain', 'disk'])];
    expect(replay(vm, owing)).toMatchObject({ desired: 'deleted', owed: ['domain', 'disk'], debt: null });
    given(...owing).when({ type: 'CleanUpVm', data: { vmId, operationId: op(4) } }).then(asked(4, null, true), begun(4));
  });
  it('is possible of one that owes', () => given(requested, failed(1, ['domain'])).when(remove(2)).then(asked(2), begun(2)));
});

describe('Settling what a VM owes', () => {
  it('is nothing when it owes nothing', () => given(...running).when({ type: 'CleanUpVm', data: { vmId, operationId: op(2) } }).thenRefused('vm.nothing_owed', { vmId }));
  it('waits for what has it in hand', () => given(requested).when({ type: 'CleanUpVm', data: { vmId, operationId: op(2) } }).thenRefused('vm.busy', { operationId: op(1), kind: 'create' }));
  it('pays the debt and leaves the failure', () => {
    const paid = replay(vm, [requested, placed, failed(1, ['domain']), { type: 'VmCleanUpStarted', data: { operationId: op(2) } }, done(2, 'cleaned up')]);
    expect(paid).toMatchObject({ owed: [], failure: { refused: 'saga.step_overdue' }, operation: null });
  });
});

describe('What a node says of a VM', () => {
  it('is recorded when it is another state', () => given(...running).when(report('crashed', 1, 5)).then(observed('crashed', 1, 5)));
  it('is history when its number is lower, or its session', () => {
    given(...running, observed('stopped', 2, 5)).when(report('running', 2, 4)).then();
    given(...running, observed('stopped', 2, 5)).when(report('running', 1, 900)).then();
    given(...running, observed('stopped', 2, 5)).when(report('running', 3, 0)).then(observed('running', 3, 0));
  });
  it('is history when it is of another placement, or of another node', () => {
    given(...running).when(report('absent', 1, 9, 0)).then();
    given(...running).when(report('absent', 1, 9, 2)).then();
    given(...running).when(report('absent', 1, 9, 1, `node_${hex(9)}`)).then();
  });
  it('is no news when an inventory finds it unchanged, or the very next number does', () => {
    given(...running).when(report('running', 2, 0)).then();
    given(...running).when(report('running', 1, 2)).then();
  });
  it('moves the number on when another change may still be on its way', () => {
    given(...running).when(report('running', 1, 3)).then(observed('running', 1, 3));
    given(...running).when(report('running', 2, 4)).then(observed('running', 2, 4));
    given(...running, observed('running', 1, 3)).when(report('crashed', 1, 2)).then();
  });
  it('told again, long after, is news only to who believes otherwise', () => {
    const again = (state: 'running' | 'crashed', session: number, sequence: number): VmCommand => { const one = report(state, session, sequence); return { ...one, data: { ...one.data, again: true } } as VmCommand; };
    for (const sequence of [3, 40]) given(...running).when(again('running', 1, sequence)).then();
    given(...running).when(again('crashed', 1, 40)).then(observed('crashed', 1, 40));
    given(...running).when(again('crashed', 1, 1)).then();
  });
  it('moves the number on while an operation waits for an answer, which may be older than an inventory', () => {
    const starting: readonly VmEvent[] = [...running, observed('crashed', 1, 7), { type: 'VmPowerRequested', data: { operationId: op(3), action: 'start', timeoutSeconds: 0, force: false } }];
    given(...starting).when(report('crashed', 2, 0)).then(observed('crashed', 2, 0));
    const late = { nodeId, generation: 1, state: 'running', reason: 'booted', session: 1, sequence: 22 } as const;
    given(...starting, observed('crashed', 2, 0)).when({ type: 'FinishVm', data: { vmId, operationId: op(3), how: 'start', observed: late, provisioned: null, reconfigured: null } }).then({ type: 'VmOperationDone', data: { operationId: op(3), how: 'start' } });
  });
  it('says nothing of one that is deleted or was never there', () => {
    given().when(report('running', 1, 1)).then();
    given(...stopped, { type: 'VmDeleteRequested', data: { operationId: op(3), force: false, cancels: null } }, { type: 'VmDeleteStarted', data: { operationId: op(3) } }, { type: 'VmDeleted', data: { operationId: op(3) } }).when(report('running', 9, 9)).then();
  });
});

describe('Snapshots of a VM', () => {
  const id = (n: number) => `snapshot_${hex(n)}` as const;
  const opWith = (n: number): OperationId => op(n);
  const take = (n: number, name = `s${String(n)}`, kind: 'external' | 'internal' = 'external'): VmCommand => ({ type: 'TakeSnapshot', data: { vmId, operationId: opWith(n), snapshotId: id(n), name, description: '', kind } });
  const layer = (n: number): string => op(n).slice(-8);
  const asked = (n: number): VmEvent => ({ type: 'VmSnapshotRequested', data: { operationId: op(n), snapshotId: id(n), name: `s${String(n)}`, description: '', layer: layer(n) } });
  const finish = (n: number, frozen = false): VmCommand => ({ type: 'FinishVm', data: { vmId, operationId: op(n), how: 'done', provisioned: null, reconfigured: null, frozen, observed: null } });
  const snapshot = (n: number, parent: number | null, frozenLayer: string | null) => ({
    snapshotId: id(n), kind: 'external' as const, name: `s${String(n)}`, description: '', parent: parent === null ? null : id(parent), state: 'running' as const, frozen: false,
    disks: [{ volumeId: provisioned.volumeId, unit: 0, sizeGib: spec.diskGib, layer: frozenLayer }],
  });
  const took = (n: number, parent: number | null, frozenLayer: string | null): readonly VmEvent[] => [asked(n), { type: 'VmSnapshotTaken', data: { operationId: op(n), snapshot: snapshot(n, parent, frozenLayer), layer: layer(n) } }, done(n, 'done')];
  const two = [...running, ...took(3, null, null), ...took(4, 3, layer(3))];
  const twoStopped = [...two, observed('stopped', 1, 3)];
  const removeOne = (n: number, which: number): VmCommand => ({ type: 'DeleteSnapshot', data: { vmId, operationId: op(n), snapshotId: id(which) } });
  const revertTo = (n: number, which: number): VmCommand => ({ type: 'RevertVm', data: { vmId, operationId: op(n), snapshotId: id(which) } });
  const reverting: VmEvent = { type: 'VmRevertRequested', data: { operationId: op(5), snapshotId: id(3), layer: layer(5) } };
  const reverted: VmEvent = { type: 'VmReverted', data: { operationId: op(5), snapshotId: id(3), layer: layer(5) } };

  it('are taken one at a time, each on the one before', () => {
    given(...running).when(take(3)).then(asked(3));
    given(...running, asked(3)).when(finish(3)).then(...took(3, null, null).slice(1));
    given(...running, asked(3)).when(take(4)).thenRefused('vm.busy', { operationId: op(3), kind: 'snapshot' });
    given(...running, ...took(3, null, null), asked(4)).when(finish(4)).then(...took(4, 3, layer(3)).slice(1));
  });
  it('have names of their own', () => given(...two).when(take(5, 's3')).thenRefused('snapshot.name_taken', { vmId, name: 's3', snapshotId: id(3), field: 'name' }));
  it('are deleted when the node has merged what they froze', () => {
    given(...two).when(removeOne(5, 3)).then({ type: 'VmSnapshotDeleteRequested', data: { operationId: op(5), snapshotId: id(3) } });
    const deleting: VmEvent = { type: 'VmSnapshotDeleteRequested', data: { operationId: op(5), snapshotId: id(3) } };
    given(...two, deleting).when({ type: 'FinishDeleteVm', data: { vmId, operationId: op(5) } }).then({ type: 'VmSnapshotDeleted', data: { operationId: op(5), snapshotId: id(3) } }, done(5, 'deleted the snapshot'));
    given(...two).when(removeOne(5, 9)).thenRefused('snapshot.not_found', { vmId, snapshotId: id(9) });
    const owing = [...two, deleting, failed(5, ['node'])];
    expect(replay(vm, owing)).toMatchObject({ debt: { operationId: op(5), work: { kind: 'delete' } } });
    // A clean-up that pays for it brings it about.
    given(...owing, { type: 'VmCleanUpStarted', data: { operationId: op(6) } }).when({ type: 'FinishDeleteVm', data: { vmId, operationId: op(6) } })
      .then({ type: 'VmSnapshotDeleted', data: { operationId: op(6), snapshotId: id(3) } }, done(6, 'cleaned up'));
  });
  it('are gone back to only by a VM that is stopped, and the operation goes on until what was written since is away', () => {
    given(...two).when(revertTo(5, 3)).thenRefused('snapshot.vm_not_stopped', { vmId, state: 'running', hint: 'stop it first; what its disks hold now is lost unless you take a snapshot of that, too' });
    given(...twoStopped).when(revertTo(5, 3)).then(reverting);
    given(...twoStopped, reverting).when(finish(5)).then(reverted);
    expect(replay(vm, [...twoStopped, reverting, reverted])).toMatchObject({ operation: { id: op(5), work: { kind: 'tidy' } }, snapshots: { current: id(3) } });
    given(...twoStopped, reverting, reverted).when({ type: 'FinishDeleteVm', data: { vmId, operationId: op(5) } }).then({ type: 'VmLayersTidied', data: { operationId: op(5) } }, done(5, 'reverted'));
  });
  it('are kept inside of the files when they are internal, and only of a VM that is stopped', () => {
    const stopped = [...running, observed('stopped', 1, 3)];
    const inner: VmEvent = { type: 'VmSnapshotRequested', data: { operationId: op(3), snapshotId: id(3), name: 's3', description: '', layer: null } };
    const takenInside: VmEvent = { type: 'VmSnapshotTaken', data: { operationId: op(3), snapshot: { ...snapshot(3, null, null), kind: 'internal', state: 'stopped' }, layer: null } };
    const one = [...stopped, inner, takenInside, done(3, 'done')];
    const hint = 'stop it first; a snapshot of kind external is taken and deleted while it runs';
    given(...running).when(take(3, 's3', 'internal')).thenRefused('snapshot.only_stopped', { vmId, state: 'running', hint });
    given(...running, observed('paused', 1, 3)).when(take(3, 's3', 'internal')).thenRefused('snapshot.only_stopped', { vmId, state: 'paused', hint });
    given(...stopped).when(take(3, 's3', 'internal')).then(inner);
    given(...stopped, inner).when(finish(3)).then(takenInside, done(3, 'done'));
    // One kind at a time, both ways.
    given(...one).when(take(4)).thenRefused('snapshot.other_kind', { vmId, kind: 'external', snapshots: ['s3'], field: 'kind' });
    given(...twoStopped).when(take(5, 's5', 'internal')).thenRefused('snapshot.other_kind', { vmId, kind: 'internal', snapshots: ['s3', 's4'], field: 'kind' });
    const back: VmEvent = { type: 'VmRevertRequested', data: { operationId: op(5), snapshotId: id(3), layer: null } };
    given(...one).when(revertTo(5, 3)).then(back);
    given(...one, back).when(finish(5)).then({ type: 'VmReverted', data: { operationId: op(5), snapshotId: id(3), layer: null } });
    given(...one).when(removeOne(5, 3)).then({ type: 'VmSnapshotDeleteRequested', data: { operationId: op(5), snapshotId: id(3) } });
    const runs = [...one, observed('running', 1, 4)];
    given(...runs).when(removeOne(5, 3)).thenRefused('snapshot.only_stopped', { vmId, state: 'running', hint });
    given(...runs).when(revertTo(5, 3)).thenRefused('snapshot.vm_not_stopped', { vmId, state: 'running', hint: 'stop it first; what its disks hold now is lost unless you take a snapshot of that, too' });
    // Its disks keep their size, and what it holds is not read beside what they hold now.
    given(...one).when({ type: 'RequestReconfiguration', data: { vmId, operationId: op(5), change: { diskGib: spec.diskGib + 1 } } }).thenRefused('volume.in_internal_snapshot', { vmId, volumeId: provisioned.volumeId, snapshots: ['s3'] });
    given(...one).when({ type: 'PublishVm', data: { vmId, operationId: op(5), imageId: `image_${hex(5)}`, name: 'golden', snapshot: id(3) } }).thenRefused('snapshot.internal', { vmId, snapshotId: id(3) });
    given(...one).when({ type: 'FindSnapshotDisks', data: { vmId, snapshotId: id(3), volumes: [provisioned.volumeId] } }).thenRefused('snapshot.internal', { vmId, snapshotId: id(3) });
  });
  it('are not gone back to by a VM with other disks', () => {
    const volume = { volumeId: `volume_${hex(77)}`, unit: 1, sizeGib: 1, limits: null } as const;
    const added = { addVolume: { volumeId: volume.volumeId, name: 'data', unit: 1, sizeGib: 1, image: null, limits: null } } as const;
    const withMore: readonly VmEvent[] = [
      ...twoStopped, { type: 'VmReconfigureRequested', data: { operationId: op(5), change: added } },
      { type: 'VmReconfigured', data: { operationId: op(5), change: added, nic: null, volume, pending: [] } }, done(5, 'reconfigured'),
    ];
    given(...withMore).when(revertTo(6, 3)).thenRefused('snapshot.disks_changed', { vmId, snapshotId: id(3), added: [volume.volumeId], missing: [] });
    // Held by none, it may be taken away; the machine may be deleted, too.
    given(...withMore).when(remove(6, true)).then({ type: 'VmDeleteRequested', data: { operationId: op(6), force: true, cancels: null } }, { type: 'VmDeleteStarted', data: { operationId: op(6) } });
  });
});

describe('A VM that was adopted', () => {
  const layout = { macs: ['52:54:00:11:22:33'], disks: [{ volumeId: `volume_${hex(7)}` as const, target: 'hda', file: '/var/x.qcow2', unit: 0, sizeGib: 2 }, { volumeId: `volume_${hex(8)}` as const, target: 'vdb', file: '/var/y.qcow2', unit: 1, sizeGib: 3 }] };
  const wanted = { vmId, operationId: op(1), spec: { ...spec, networkId: null, subnetId: null, imageId: null }, nodeId, poolId, layout, state: 'running' as const };
  const asked = (generation = 1): VmEvent => ({ type: 'VmAdoptRequested', data: { ...wanted, generation } });
  const released = (n: number): VmEvent => ({ type: 'VmReleased', data: { operationId: op(n) } });
  const its: VmEvent = { type: 'VmProvisioned', data: { operationId: op(1), provisioned: { poolId, volumeId: `volume_${hex(7)}`, address: null, prefix: null, mac: null } } };
  const adopted = [asked(), its, observed('running'), done(1, 'adopted')];
  const reconfigure = (change: Reconfiguration): VmCommand => ({ type: 'RequestReconfiguration', data: { vmId, operationId: op(2), change } });

  it('is where it was found from the first moment, with all its disks', () => {
    given().when({ type: 'RequestAdoption', data: wanted }).then(asked());
    expect(replay(vm, adopted)).toMatchObject({ status: 'live', desired: 'running', nodeId, generation: 1, network: null, nics: [], operation: null, volumes: [{ volumeId: `volume_${hex(8)}`, unit: 1, sizeGib: 3, limits: null }] });
    given(asked()).when({ type: 'RequestAdoption', data: wanted }).thenRefused('vm.exists', { vmId });
  });
  it('and could not be is nobody\'s again, and may be adopted anew', () => {
    given(asked()).when({ type: 'FailVm', data: { vmId, operationId: op(1), refused: 'foreign.changed', because: {}, owed: [] } }).then({ type: 'VmOperationFailed', data: { operationId: op(1), refused: 'foreign.changed', because: {}, owed: [] } }, released(1));
    given(asked(), failed(1), released(1)).when({ type: 'RequestAdoption', data: wanted }).then(asked(2));
  });
  it('is not deleted before it is ours, not even when its node owes the way back', () => {
    given(asked()).when(remove(2, true)).thenRefused('vm.busy', { operationId: op(1), kind: 'adopt' });
    const owing = [asked(), failed(1, ['domain'])];
    given(...owing).when(remove(2, true)).thenRefused('vm.clean_up_owed', { vmId, owed: ['domain'], nodeId });
    const cleaning: VmEvent = { type: 'VmCleanUpStarted', data: { operationId: op(2) } };
    const state = replay(vm, [...owing, cleaning]);
    expect(state.status === 'live' && sagaOf('clean-up', state)).toBe('settle-adoption');
    given(...owing, cleaning).when({ type: 'FinishDeleteVm', data: { vmId, operationId: op(2) } }).then(released(2));
  });
  it('is backed up when all that its machine is made of is known', () => {
    const job = { backupId: `backup_${hex(7)}` as const, target: { targetId: `target_${hex(9)}` as const, name: 'nas' }, wants: 'auto' as const, scheduled: null };
    const backUp: VmCommand = { type: 'RequestBackup', data: { vmId, operationId: op(2), ...job } };
    const defined = (definition: string): readonly VmEvent[] => [asked(), { ...its, data: { ...its.data, definition } }, observed('running'), done(1, 'adopted')];
    given(...defined('<domain><os/></domain>')).when(backUp).then({ type: 'VmBackupRequested', data: { operationId: op(2), ...job } });
    for (const known of [defined('<domain><os><kernel>/x</kernel></os></domain>'), adopted]) given(...known).when(backUp).thenRefused('backup.of_adopted', { vmId, says: expect.any(String) as string });
  });
  it('keeps its own layout', () => {
    given(...adopted).when(reconfigure({ boot: ['cdrom', 'disk'] })).thenRefused('vm.adopted', { vmId, fields: ['boot'], field: 'boot' });
    given(...adopted).when(reconfigure({ vcpus: 2 })).then({ type: 'VmReconfigureRequested', data: { operationId: op(2), change: { vcpus: 2 } } });
    given(...adopted).when({ type: 'RestoreVm', data: { vmId, operationId: op(2) } }).then({ type: 'VmReconfigureRequested', data: { operationId: op(2), change: { restore: 'running' } } });
  });
});

describe('A machine that is made of a backup', () => {
  const asked: VmEvent = { type: 'VmRequested', data: { ...wish, imageFile: null, restore: { backupId: `backup_${hex(7)}`, ofVm: `vm_${hex(8)}`, targetId: `target_${hex(9)}`, chain: [], volumes: [], drill: false } } };
  const says = (percent: number, from = nodeId): VmCommand => ({ type: 'RecordRestoreProgress', data: { vmId, nodeId: from, percent } });
  const said = (percent: number): VmEvent => ({ type: 'VmRestoreProgressed', data: { operationId: op(1), percent } });
  it('says how far its disks have come, only upwards and in steps, by its own node and while it is made', () => {
    given(asked, placed).when(says(4)).then();
    given(asked, placed).when(says(5)).then(said(5));
    given(asked, placed, said(30)).when(says(34)).then();
    given(asked, placed, said(30)).when(says(10)).then();
    given(asked, placed, said(30)).when(says(100)).then(said(99));
    given(asked, placed).when(says(50, `node_${hex(66)}`)).then();
    given(asked).when(says(50)).then();
    given(...running).when(says(50)).then();
  });
});

describe('The machine of a drill', () => {
  const proof = { criterion: 'agent', word: null, timeoutSeconds: 60, since: '2026-01-01T00:00:00.000Z' } as const;
  const asked: VmEvent = { type: 'VmRequested', data: { ...wish, imageFile: null, restore: { backupId: `backup_${hex(7)}`, ofVm: `vm_${hex(8)}`, targetId: `target_${hex(9)}`, chain: [], volumes: [], drill: true, proof } } };
  const says = 'its guest agent answers, seen 4 s after its start';
  const drilled = (of: Partial<Extract<VmEvent, { type: 'VmDrilled' }>['data']> = {}): VmEvent => ({ type: 'VmDrilled', data: { operationId: op(1), passed: true, verdict: true, how: says, refused: null, because: {}, ...of } });
  const finish: VmCommand = { type: 'FinishVm', data: { vmId, operationId: op(1), how: 'created', proven: says, provisioned, reconfigured: null, observed: null } };
  const fail = (refused: string, because: Readonly<Record<string, string>> = {}): VmCommand => ({ type: 'FailVm', data: { vmId, operationId: op(1), refused, because, owed: [] } });
  it('that came up is taken away by the same operation, with its disks', () => {
    given(asked, placed).when(finish).then(built, drilled());
    expect(replay(vm, [asked, placed, built, drilled()])).toMatchObject({ desired: 'deleted', deletesDisks: true, operation: { id: op(1), kind: 'delete' } });
    given(asked, placed, built, drilled()).when({ type: 'FinishDeleteVm', data: { vmId, operationId: op(1) } }).then({ type: 'VmDeleted', data: { operationId: op(1) } });
  });
  it('that did not come up, or of a damaged backup, is taken away and says so of the backup', () => {
    given(asked, placed).when(fail('drill.not_seen', { says: 'it has read 2 KiB of its first disk' })).then(drilled({ passed: false, how: 'drill.not_seen: it has read 2 KiB of its first disk', refused: 'drill.not_seen', because: { says: 'it has read 2 KiB of its first disk' } }));
    given(asked, placed).when(fail('backup.damaged', { backupId: 'b', file: 'disk-0.qcow2' })).then(drilled({ passed: false, how: 'backup.damaged: b: disk-0.qcow2', refused: 'backup.damaged', because: { backupId: 'b', file: 'disk-0.qcow2' } }));
  });
  it('that could not be made says nothing of the backup', () => {
    for (const refused of ['node.no_capacity', 'saga.step_overdue', 'backup.target_missing', 'domain.gone']) given(asked).when(fail(refused)).then(drilled({ passed: false, verdict: false, how: refused, refused }));
  });
  it('that somebody deletes meanwhile is deleted by that, and is no drill any more', () => {
    const deleting: VmEvent = { type: 'VmDeleteRequested', data: { operationId: op(3), force: true, cancels: op(1) } };
    const begun: VmEvent = { type: 'VmDeleteStarted', data: { operationId: op(3) } };
    const ended: VmEvent = { type: 'VmOperationFailed', data: { operationId: op(1), refused: 'saga.cancelled', because: { because: `the VM is being deleted by ${op(3)}` }, owed: [] } };
    given(asked, placed).when(remove(3)).then({ ...deleting, data: { operationId: op(3), force: false, cancels: op(1) } });
    given(asked, placed, deleting).when(fail('saga.cancelled')).then(ended, begun);
    given(asked, placed, deleting).when(finish).then(built, ended, begun);
    given(asked, placed, built, drilled()).when(remove(3, true)).thenRefused('vm.busy', { operationId: op(1), kind: 'delete' });
  });
  it('of which a silent node keeps something is gone on with as a deletion', () => {
    const owing = [asked, placed, built, drilled(), failed(1, ['domain', 'disk'])];
    given(...owing).when({ type: 'CleanUpVm', data: { vmId, operationId: op(5) } }).then({ type: 'VmDeleteRequested', data: { operationId: op(5), force: true, cancels: null } }, { type: 'VmDeleteStarted', data: { operationId: op(5) } });
    expect(replay(vm, owing)).toMatchObject({ drilled: { verdict: true }, owed: ['domain', 'disk'] });
  });
});

describe('What a VM is to run at its next boot', () => {
  const told: VmEvent = { type: 'VmRequested', data: { ...wish, spec: { ...spec, cloudInit: { sshKeys: [] } } } };
  const withCloudInit = [told, placed, built, observed('running'), done(1)];
  const run = (n: number, on: NodeId | null = null): BootRun => ({ runId: `run_${hex(n)}`, jobId: `job_${hex(1)}`, name: 'greet', revision: 3, system: false, script: '#!/bin/sh', timeoutSeconds: 60, nodeId: on, variables: on === null ? [{ name: 'A', value: 'b' }] : [{ name: 'A', sealed: 'x' }] });
  const asks = (change: Reconfiguration, n = 3): VmCommand => ({ type: 'RequestReconfiguration', data: { vmId, operationId: op(n), change } });
  const changed = (change: Reconfiguration, n = 3): readonly VmEvent[] => [
    { type: 'VmReconfigureRequested', data: { operationId: op(n), change } }, { type: 'VmReconfigured', data: { operationId: op(n), change, nic: null, volume: null, pending: [] } }, done(n),
  ];
  const ended = (n: number, exitCode: number | null = 0): VmEvent => ({ type: 'VmBootJobEnded', data: { runId: `run_${hex(n)}`, exitCode, output: '' } });
  const says = (n: number, exitCode: number | null = 0, from = nodeId): VmCommand => ({ type: 'RecordBootJob', data: { vmId, nodeId: from, runId: `run_${hex(n)}`, exitCode, output: '' } });

  it('is given to one that has cloud-init, sealed to its node, and to none that has too much of it', () => {
    given(...running).when(asks({ addBootRun: run(1) })).thenRefused('boot_job.no_cloud_init', { vmId });
    given(...withCloudInit).when(asks({ addBootRun: run(1) })).then({ type: 'VmReconfigureRequested', data: { operationId: op(3), change: { addBootRun: run(1) } } });
    given(...withCloudInit).when(asks({ addBootRun: run(1, `node_${hex(77)}`) })).thenRefused('vm.moved', { vmId, nodeId });
    const full = Array.from({ length: 8 }, (_, index) => changed({ addBootRun: run(index) }, 10 + index)).flat();
    given(...withCloudInit, ...full).when(asks({ addBootRun: run(9) })).thenRefused('boot_job.too_many', { vmId, max: 8 });
  });
  it('is there until its guest has said how it went, which is recorded once, and only of what was asked', () => {
    const both = [...withCloudInit, ...changed({ addBootRun: run(1) }), ...changed({ addBootRun: run(2) }, 4)];
    expect(replay(vm, both)).toMatchObject({ bootRuns: [run(1), run(2)] });
    given(...both).when(says(1, 7)).then(ended(1, 7));
    given(...both, ended(1)).when(says(1)).then();
    given(...both).when(says(3)).then();
    given(...both).when(says(1, 0, `node_${hex(77)}`)).then();
    expect(replay(vm, [...both, ended(1, null)])).toMatchObject({ bootRuns: [run(2)], operation: null });
  });
  it('may be there from the beginning, and is taken back while nobody has run it', () => {
    const made = [{ ...told, data: { ...told.data, bootRuns: [run(1)] } } as VmEvent, placed, built, observed('running'), done(1)];
    given(...made).when(asks({ removeBootRun: run(1).runId })).then({ type: 'VmReconfigureRequested', data: { operationId: op(3), change: { removeBootRun: run(1).runId } } });
    expect(replay(vm, [...made, ...changed({ removeBootRun: run(1).runId })])).toMatchObject({ bootRuns: [] });
    given(...made, ended(1)).when(asks({ removeBootRun: run(1).runId })).thenRefused('boot_job.not_pending', { vmId, runId: run(1).runId });
  });
});

describe('The password of a screen', () => {
  const sealed = { nodeId, sealed: 'x' };
  const set = (password: typeof sealed | null): VmCommand => ({ type: 'SetScreenPassword', data: { vmId, operationId: op(9), password } });
  it('is set and taken off at any time, and is sealed to the node that has the VM', () => {
    given(...running, powerRequested(2, 'stop')).when(set(sealed)).then({ type: 'VmScreenPasswordSet', data: { password: sealed } });
    given(...running).when(set({ ...sealed, nodeId: `node_${hex(77)}` })).thenRefused('vm.moved', { vmId, nodeId });
    given(...running, { type: 'VmScreenPasswordSet', data: { password: sealed } }).when(set(null)).then({ type: 'VmScreenPasswordSet', data: { password: null } });
    given(...running).when(set(null)).then();
  });
});
