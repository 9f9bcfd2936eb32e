import { describe, expect, it } from 'vitest';
import type { Outgoing } from '@chronovirt/contracts/command';
import type { NetworkPlan } from '@chronovirt/contracts/network/network.events';
import type { AttachedVolume, PowerAction } from '@chronovirt/contracts/vm/vm.events';
import type { Facts } from '@chronovirt/decider/decider';
import { deadlineMsOf, type Saga } from '@chronovirt/decider/saga';
import { sequence, violationsOf } from '@chronovirt/decider/saga-property';
import { type BackupVm, backupVm, type DropBackup, dropBackup, settleBackup } from './backup-vm.saga.ts';
import { createVolume, type CreateVolume, settleVolume, workOnVolume, type WorkOnVolume } from './create-volume.saga.ts';
import { type AdoptVm, adoptVm, settleAdoption } from './adopt-vm.saga.ts';
import { cleanUpVm, deleteVm, type RemoveVm } from './delete-vm.saga.ts';
import { settleDrift } from '../drift/settle-drift.saga.ts';
import { dropVolume } from './drop-volume.saga.ts';
import { type PublishVm, publishVm } from './publish-vm.saga.ts';
import { type GuestVm, guestVm, settleGuest } from './guest-vm.saga.ts';
import { type PowerVm, powerVm, settlePower, type SettlePower } from './power-vm.saga.ts';
import { type ProvisionVm, provisionVm } from './provision-vm.saga.ts';
import { type ReconfigureVm, reconfigureVm, settleReconfiguration } from './reconfigure-vm.saga.ts';
import { type SnapshotVm, snapshotVm, tidyLayers, type TidyVm } from './snapshot-vm.saga.ts';
import { workOnPool, type WorkOnPool } from './work-on-pool.saga.ts';
import type { Machine } from '../vm/domain-plan.ts';

const digits = '0'.repeat(32);
const network = { networkId: `network_${digits}`, subnetId: `subnet_${digits}`, name: 'cv-default', kind: 'nat', cidr: '10.21.0.0/24', gateway: '10.21.0.1', prefix: 24, bridge: 'cvbr-0' } as const;
const ids = { operationId: `op_${digits}`, vmId: `vm_${digits}`, volumeId: `volume_${digits}`, nameKey: 'ab' } as const;
const provision: ProvisionVm = {
  ...ids, network, imageFile: 'guest.qcow2', imageFormat: 'qcow2',
  spec: {
    name: 'web-1', description: '', imageId: `image_${digits}`, networkId: network.networkId, subnetId: network.subnetId, vcpus: 1, memoryMib: 256, diskGib: 2,
    accel: 'any', devices: 'virtio', nodeId: null, tags: [], protected: false, vcpusMax: 4, memoryMibMax: 1_024, boot: ['disk'], media: null, cloudInit: null, diskLimits: null,
  },
};
const removals: readonly RemoveVm[] = [
  { ...ids, subnetIds: [network.subnetId], nodeId: `node_${digits}`, reservedOn: `node_${digits}`, poolId: `pool_${digits}`, generation: 1, nics: [{ network, mac: '52:54:0a:15:00:02' }], otherNameKey: 'cd', volumes: [{ volumeId: `volume_${'5'.repeat(32)}`, delete: null }] },
  // Chosen, not assigned yet; and never placed at all.
  { ...ids, subnetIds: [network.subnetId], nodeId: null, reservedOn: `node_${digits}`, poolId: `pool_${digits}`, generation: 0, nics: [], otherNameKey: null, volumes: [] },
  { ...ids, subnetIds: [network.subnetId], nodeId: null, reservedOn: null, poolId: null, generation: 0, nics: [], otherNameKey: null, volumes: [] },
  // The machine of a drill.
  { ...ids, subnetIds: [network.subnetId], nodeId: `node_${digits}`, reservedOn: `node_${digits}`, poolId: `pool_${digits}`, generation: 1, nics: [{ network, mac: '52:54:0a:15:00:02' }], otherNameKey: null, volumes: [{ volumeId: `volume_${'5'.repeat(32)}`, delete: `op_${'9'.repeat(32)}` }],
    drilled: { vmId: `vm_${'8'.repeat(32)}`, backupId: `backup_${digits}`, operationId: ids.operationId, passed: true, how: 'its guest agent answers', criterion: 'agent', since: '2026-01-01T00:00:00.000Z' } },
];
const actions: readonly PowerAction[] = ['start', 'stop', 'reboot', 'reset', 'pause', 'resume', 'save'];
const powers: readonly PowerVm[] = actions.map((action) => ({ ...ids, nodeId: `node_${digits}`, generation: 1, action, vcpus: 1, memoryMib: 256, timeoutSeconds: 10, force: true }));
const settlings: readonly SettlePower[] = powers.map((power) => ({ ...power, failedOperationId: `op_${'1'.repeat(32)}` }));

const machine: Machine = { vmId: ids.vmId, spec: provision.spec, volumeId: ids.volumeId, first: { network, mac: '52:54:0a:15:00:02', address: '10.21.0.2' }, layout: null, nics: [], volumes: [], seedVersion: 1, layers: {} };
const other: NetworkPlan = { ...network, networkId: `network_${'2'.repeat(32)}`, subnetId: `subnet_${'2'.repeat(32)}`, name: 'second' };
const nic = { network: other, mac: '52:54:0a:16:00:02', address: '10.22.0.2' };
const reconfiguration: ReconfigureVm = {
  operationId: ids.operationId, vmId: ids.vmId, nodeId: `node_${digits}`, poolId: `pool_${digits}`, generation: 1, machine, held: { vcpus: 1, memoryMib: 256 }, change: {}, image: { imageId: `image_${digits}`, file: 'guest.qcow2', format: 'qcow2' }, removedSubnetId: null, dropOperationId: `op_${'9'.repeat(32)}`,
  nameKeyBefore: 'ab', nameKeyAfter: 'ab',
};
const second: AttachedVolume = { volumeId: `volume_${'5'.repeat(32)}`, unit: 1, sizeGib: 3, limits: null };
const rebuild = { volumeId: `volume_${'6'.repeat(32)}`, kept: { name: 'web-1-before', deleteAt: '2026-01-08T00:00:00.000Z' } } as const;
const reconfigurations: readonly ReconfigureVm[] = [
  { ...reconfiguration, change: { name: 'web-2', vcpus: 2, memoryMib: 512, diskGib: 4, boot: ['cdrom', 'disk'], media: null, addNic: other }, nameKeyAfter: 'cd' },
  { ...reconfiguration, change: { vcpus: 1, memoryMib: 128 }, held: { vcpus: 2, memoryMib: 256 } },
  { ...reconfiguration, change: { addVolume: { volumeId: second.volumeId, name: 'data', unit: 1, sizeGib: 3, image: null, limits: null } } },
  { ...reconfiguration, change: { attachVolume: { volumeId: second.volumeId, unit: 1 } } },
  { ...reconfiguration, machine: { ...machine, volumes: [second] }, change: { changeVolume: { volumeId: second.volumeId, sizeGib: 5, limits: { iops: 100 } } } },
  { ...reconfiguration, machine: { ...machine, volumes: [second] }, change: { detachVolume: { volumeId: second.volumeId, delete: true } } },
  { ...reconfiguration, change: { rebuild } },
  { ...reconfiguration, machine: { ...machine, nics: [nic] }, change: { removeNic: nic.mac }, removedSubnetId: other.subnetId },
  { ...reconfiguration, change: { addDevice: { kind: 'pci', address: '0000:01:00.0' } } },
  { ...reconfiguration, change: { addDevice: { kind: 'virtual-usb', model: 'tablet' } } },
  { ...reconfiguration, machine: { ...machine, spec: { ...machine.spec, assigned: [{ kind: 'usb', vendor: '1234', product: 'abcd' }] } }, change: { removeDevice: 'usb-1234:abcd' } },
];

const password = { kind: 'password', user: 'root', nodeId: `node_${digits}`, sealed: 'AQ' } as const;
const asking: GuestVm = { operationId: ids.operationId, vmId: ids.vmId, nodeId: `node_${digits}`, generation: 1, request: password };
const askingOwed = { ...asking, failedOperationId: `op_${'1'.repeat(32)}` as const };
const on = [{ volumeId: ids.volumeId, layer: null }, { volumeId: second.volumeId, layer: 'aaaaaaaa' }];
const layered: Machine = { ...machine, volumes: [second], layers: { [second.volumeId]: 'aaaaaaaa' } };
const taking: SnapshotVm = { operationId: ids.operationId, vmId: ids.vmId, nodeId: `node_${digits}`, generation: 1, kind: 'take', machine: layered, on, layer: 'bbbbbbbb' };
const reverting: SnapshotVm = { ...taking, kind: 'revert' };
const takingInside: SnapshotVm = { ...taking, on: on.map(({ volumeId }) => ({ volumeId, layer: null })), layer: null, as: `snapshot_${digits}`, back: null };
const revertingInside: SnapshotVm = { ...takingInside, kind: 'revert', as: ids.operationId, back: `snapshot_${digits}` };
const failedOperationId = `op_${'1'.repeat(32)}` as const;
const tidying: TidyVm = {
  operationId: ids.operationId, vmId: ids.vmId, nodeId: `node_${digits}`, generation: 1, machine: layered, owedBy: null,
  steps: [{ kind: 'merge', volumeId: ids.volumeId, layer: 'bbbbbbbb', into: null, active: true, above: [] }],
};
const tidyings: readonly TidyVm[] = [tidying, { ...tidying, steps: [] }, { ...tidying, owedBy: { saga: 'snapshot-vm', operationId: failedOperationId } }, { ...tidying, owedBy: { saga: 'tidy-layers', operationId: failedOperationId } }];

const layout = { macs: ['52:54:00:11:22:33'], disks: [{ volumeId: ids.volumeId, target: 'vda', file: '/var/lib/x.qcow2', unit: 0, sizeGib: 2 }, { volumeId: second.volumeId, target: 'hdb', file: '/var/lib/y.qcow2', unit: 1, sizeGib: 3 }] };
const adoption: AdoptVm = { operationId: ids.operationId, vmId: ids.vmId, nodeId: `node_${digits}`, poolId: `pool_${digits}`, generation: 1, nameKey: 'ab', layout, machine: { ...machine, first: null, layout, volumes: [second] } };
const backingUp: BackupVm = {
  operationId: ids.operationId, vmId: ids.vmId, nodeId: `node_${digits}`, generation: 1, machine: layered,
  job: { backupId: `backup_${digits}`, target: { targetId: `target_${digits}`, name: 'nas' }, wants: 'auto', scheduled: null },
};
const dropping: DropBackup = { operationId: ids.operationId, vmId: ids.vmId, backupId: `backup_${digits}`, target: backingUp.job.target, nodeId: `node_${digits}` };
const restored: ProvisionVm = {
  ...provision, imageFile: null,
  restore: {
    backupId: `backup_${digits}`, ofVm: ids.vmId, targetId: `target_${digits}`, volumes: [second], nics: [other], drill: false,
    chain: [{ backupId: `backup_${digits}`, files: [{ unit: 0, bytes: 1, sha256: 'a'.repeat(64) }, { unit: 1, bytes: 1, sha256: 'a'.repeat(64) }] }],
  },
};

const cloned: ProvisionVm = { ...provision, imageFile: null, copy: { ofVm: `vm_${'8'.repeat(32)}`, snapshotId: `snapshot_${digits}`, nodeId: `node_${digits}`, from: [`volume_${'3'.repeat(32)}`, `volume_${'4'.repeat(32)}`], volumes: [second], nics: [other] } };
const drilled: ProvisionVm = { ...restored, restore: restored.restore === undefined || restored.restore === null ? null : { ...restored.restore, drill: true, proof: { criterion: 'agent', word: null, timeoutSeconds: 60, since: '2026-01-01T00:00:00.000Z' } } };

const place = { operationId: ids.operationId, volumeId: ids.volumeId, poolId: `pool_${digits}`, nodeId: `node_${digits}`, sizeGib: 2, format: 'qcow2' } as const;
const creations: readonly CreateVolume[] = [
  { ...place, name: 'data', source: { kind: 'blank' } },
  { ...place, name: 'data', source: { kind: 'image', imageId: `image_${digits}`, file: 'guest.qcow2', format: 'qcow2' } },
  { ...place, name: 'data', source: { kind: 'volume', volumeId: second.volumeId } },
  { ...place, name: 'data', source: { kind: 'snapshot', vmId: ids.vmId, snapshotId: `snapshot_${digits}`, volumeId: second.volumeId } },
  { ...place, name: 'data', source: { kind: 'found', driftId: `drift_${digits}`, file: 'theirs.qcow2' } },
];
const publishing: PublishVm = { operationId: ids.operationId, vmId: ids.vmId, nodeId: `node_${digits}`, generation: 1, volumeId: ids.volumeId, layer: null, sizeGib: 1, imageId: `image_${digits}`, image: { name: 'of-it', minMemoryMib: 256 } };
const works: readonly WorkOnVolume[] = [{ ...place, work: { kind: 'convert', format: 'raw' } }, { ...place, work: { kind: 'sparsify', compress: false } }, { ...place, work: { kind: 'wipe' } }, { ...place, work: { kind: 'publish', imageId: `image_${digits}`, image: { name: 'golden', minMemoryMib: 64 } } }];

const poolWorks: readonly WorkOnPool[] = (['create', 'start', 'stop', 'delete', 'refresh'] as const).map((work, index) => ({
  operationId: ids.operationId, poolId: `pool_${digits}`, work, type: 'shared', path: '/pools/one', token: 'token', nodes: index % 2 === 0 ? [`node_${digits}`, `node_${'1'.repeat(32)}`] : [`node_${digits}`],
}));

const factsOf = (step: string): Facts => ({
  begin: { parent: null, replaces: null }, ...(step === 'node' ? { node: { state: 'running', reason: 'booted', session: 1, sequence: 1, kind: 'full', because: 'it was asked for', parent: null, frozen: true, files: [], manifestSha256: 'a'.repeat(64) } } : {}),
  capacity: { nodeId: `node_${digits}`, poolId: `pool_${digits}`, decision: {} }, assignment: { generation: 1 }, address: { address: '10.21.0.2', mac: '52:54:0a:15:00:02' }, addresses: { nics: [{ subnetId: other.subnetId, address: '10.22.0.2', mac: '52:54:0a:16:00:02' }] }, volume: { sizeGib: 3, poolId: `pool_${digits}` }, source: { layers: [null, 'aaaaaaaa'] },
}[step] ?? { state: 'running', reason: 'booted', session: 1, sequence: 1, ...(step === 'proof' ? { criterion: 'agent', seconds: 4, says: 'its guest agent answers' } : {}), ...(step === 'disk' ? { sha256: 'a'.repeat(64), sizeBytes: 1, virtualBytes: 1 } : {}) });

const WORLDS = 2_000;

const property = <I extends object>(saga: Saga<I, Outgoing>, inputs: readonly I[], stopAtFirst = false): readonly string[] => {
  const bad: string[] = [];
  for (let seed = 1; seed <= WORLDS && !(stopAtFirst && bad.length > 0); seed++) {
    const input = inputs[seed % inputs.length];
    if (input === undefined) throw new Error('no input');
    const violations = violationsOf(saga, { input, random: sequence(seed), factsOf, isRemote: (step) => ['disk', 'domain', 'boot', 'proof', 'node', 'guest'].includes(step) || step.startsWith('node-') });
    bad.push(...violations.map((violation) => `${saga.name}, world ${String(seed)}: ${violation}`));
  }
  return bad;
};

describe('Whatever fails, is refused, repeated, reordered or never answered, it is everything or nothing, and nothing twice:', { timeout: 60_000 }, () => {
  it('making a VM', () => { expect(property(provisionVm, [provision])).toEqual([]); });
  it('adopting one', () => { expect(property(adoptVm, [adoption])).toEqual([]); });
  it('settling what an adoption owes', () => { expect(property(settleAdoption, [{ ...adoption, failedOperationId }])).toEqual([]); });
  it('deleting one', () => { expect(property(deleteVm, [...removals, ...removals.map((removal) => ({ ...removal, devices: true }))])).toEqual([]); });
  it('clearing away what a creation left', () => { expect(property(cleanUpVm, removals)).toEqual([]); });
  it('having a node bring back what differs', () => {
    const settling = { operationId: ids.operationId, nodeId: `node_${digits}`, driftId: `drift_${digits}`, action: 'revert-drift' } as const;
    expect(property(settleDrift, [{ ...settling, does: { kind: 'network', network } }, { ...settling, does: { kind: 'volume', volumeId: ids.volumeId } }])).toEqual([]);
  });
  it('deleting a volume', () => { expect(property(dropVolume, [{ operationId: ids.operationId, volumeId: ids.volumeId, poolId: `pool_${digits}`, nodeId: `node_${digits}` }])).toEqual([]); });
  it('making a volume', () => { expect(property(createVolume, creations)).toEqual([]); });
  it('making, starting, stopping, deleting and looking at a pool', () => { expect(property(workOnPool, poolWorks)).toEqual([]); });
  it('working on one', () => { expect(property(workOnVolume, works)).toEqual([]); });
  it('settling what making one, or working on it, owes', () => { expect(property(settleVolume, [...creations, ...works].map((input) => ({ ...input, failedOperationId })))).toEqual([]); });
  it('starting, stopping and the other actions', () => { expect(property(powerVm, powers)).toEqual([]); });
  it('settling what an action owes', () => { expect(property(settlePower, settlings)).toEqual([]); });
  it('making one different', () => { expect(property(reconfigureVm, reconfigurations)).toEqual([]); });
  it('settling what a change owes', () => { expect(property(settleReconfiguration, reconfigurations.map((change) => ({ ...change, failedOperationId: `op_${'1'.repeat(32)}` as const, added: null })))).toEqual([]); });
  it('making an image of it', () => { expect(property(publishVm, [publishing])).toEqual([]); });
  it('asking a guest', () => { expect(property(guestVm, [asking, { ...asking, request: { ...password, offline: true } }])).toEqual([]); });
  it('settling what was asked of one', () => { expect(property(settleGuest, [askingOwed])).toEqual([]); });
  it('taking a snapshot, and going back to one', () => { expect(property(snapshotVm, [taking, reverting, takingInside, revertingInside])).toEqual([]); });
  it('making a VM of a backup', () => { expect(property(provisionVm, [restored])).toEqual([]); });
  it('making a VM of a snapshot', () => { expect(property(provisionVm, [cloned])).toEqual([]); });
  it('making one only to see whether it comes up', () => { expect(property(provisionVm, [drilled])).toEqual([]); });
  it('backing one up', () => { expect(property(backupVm, [backingUp])).toEqual([]); });
  it('settling what a backup owes', () => { expect(property(settleBackup, [{ ...backingUp, failedOperationId }])).toEqual([]); });
  it('deleting a backup', () => { expect(property(dropBackup, [dropping])).toEqual([]); });
  it('tidying layers away', () => { expect(property(tidyLayers, tidyings)).toEqual([]); });
  it('and a creation that is undone from its beginning is found', () => { expect(property({ ...provisionVm, undoForward: true }, [provision], true)).not.toEqual([]); });
});

describe('Making a VM', () => {
  it('leases the address while the node is chosen, and asks a node only for what the log has decided', () => {
    expect(provisionVm.steps['address']?.after).toBeUndefined();
    for (const step of ['disk', 'domain'] as const) expect(provisionVm.steps[step]?.after).toContain('assignment');
  });
  it('of a snapshot copies every disk where it lies, and asks afterwards whether the snapshot was still so', () => {
    const facts = { capacity: factsOf('capacity'), assignment: factsOf('assignment'), source: factsOf('source') };
    expect(provisionVm.steps['capacity']?.run(cloned, {})).toMatchObject({ type: 'PlaceVm', data: { nodeId: `node_${digits}`, byHand: false, diskGib: 5 } });
    expect(provisionVm.steps['disk']?.run(cloned, facts)).toMatchObject({ type: 'CopyDisks', data: { disks: [{ volumeId: ids.volumeId, sizeGib: 2, from: `volume_${'3'.repeat(32)}`, layer: null }, { volumeId: second.volumeId, sizeGib: 3, from: `volume_${'4'.repeat(32)}`, layer: 'aaaaaaaa' }] } });
    expect(provisionVm.steps['unchanged']?.run(cloned, facts)).toMatchObject({ type: 'FindSnapshotDisks', data: { layers: [null, 'aaaaaaaa'] } });
    expect(provisionVm.steps['boot']?.after).toContain('unchanged');
  });
  it('may take six and a half minutes at the longest, there and back', () => { expect(deadlineMsOf(provisionVm, provision)).toBe(30_000 + 30_000 + 60_000 + 60_000 + 7 * 30_000); });
});

describe('Taking a VM away', () => {
  it('gives back what others could be given only when the node has confirmed', () => {
    for (const step of ['address', 'volume', 'space', 'capacity', 'name']) expect(deleteVm.steps[step]?.after).toEqual(['disk']);
    expect(deleteVm.steps['disk']?.after).toEqual(['domain']);
  });
  it('asks no node when none was assigned, and gives capacity back where it was set aside', () => {
    const [, chosen] = removals;
    if (chosen === undefined) throw new Error('no input');
    expect(deleteVm.steps['domain']?.run(chosen, {})).toBeUndefined();
    expect(deleteVm.steps['disk']?.run(chosen, {})).toBeUndefined();
    expect(deleteVm.steps['capacity']?.run(chosen, {})).toMatchObject({ type: 'UnplaceVm', data: { nodeId: `node_${digits}` } });
    expect(deleteVm.steps['space']?.run(chosen, {})).toMatchObject({ type: 'ReleaseSpace' });
  });
});

describe('Making a VM different', () => {
  const [everything, smaller, adding, attaching, changing, detaching, rebuilding, without] = reconfigurations;
  const facts = { address: { mac: nic.mac, address: nic.address } };
  if (everything === undefined || smaller === undefined || without === undefined || adding === undefined || attaching === undefined || changing === undefined || detaching === undefined || rebuilding === undefined) throw new Error('no input');

  it('tells the node the whole domain as it should be, and to take it back as it was', () => {
    const after = reconfigureVm.steps['domain']?.run(everything, facts);
    expect(after).toMatchObject({ type: 'ConfigureDomain', data: { name: 'web-2', vcpus: 2, memoryMib: 512, boot: ['cdrom', 'disk'], disks: [{ sizeGib: 4 }], nics: [{ mac: machine.first?.mac }, nic] } });
    const undo = reconfigureVm.steps['domain']?.undo;
    expect(typeof undo === 'function' ? undo(everything, facts) : undefined).toMatchObject({ data: { name: 'web-1', vcpus: 1, memoryMib: 256, boot: ['disk'], disks: [{ sizeGib: 2 }], nics: [{ mac: machine.first?.mac }] } });
  });
  it('sets more capacity aside, and never gives any back while it may run', () => {
    expect(reconfigureVm.steps['capacity']?.run(everything, {})).toMatchObject({ type: 'ResizeCapacity', data: { vcpus: 2, memoryMib: 512 } });
    expect(reconfigureVm.steps['capacity']?.run(smaller, {})).toBeUndefined();
    expect(reconfigureVm.steps['capacity']?.run({ ...smaller, change: { memoryMib: 512 } }, {})).toMatchObject({ data: { vcpus: 2, memoryMib: 512 } });
  });
  it('has the guest told its name, and the old one when it is taken back', () => {
    const named = { ...smaller, machine: { ...machine, spec: { ...machine.spec, cloudInit: { hostname: 'web-1', sshKeys: [] } } }, change: { hostname: 'web-2', cloudInit: { sshKeys: [] } } };
    expect(reconfigureVm.steps['domain']?.run(named, {})).toMatchObject({ data: { hostname: 'web-2', seed: { hostname: 'web-2', instanceId: `${ids.vmId}-2` } } });
    const undo = reconfigureVm.steps['domain']?.undo;
    expect(typeof undo === 'function' ? undo(named, {}) : undefined).toMatchObject({ data: { hostname: 'web-1', seed: { hostname: 'web-1', instanceId: ids.vmId }, insist: true } });
    expect(reconfigureVm.steps['domain']?.run(smaller, {})).toMatchObject({ data: { hostname: null } });
  });
  it('holds a device of its node before the machine has it, and gives it back when that has let go of it', () => {
    const [lent, made, back] = reconfigurations.slice(-3);
    if (lent === undefined || made === undefined || back === undefined) throw new Error('no devices');
    const held = { nodeId: `node_${digits}`, vmId: ids.vmId, device: 'pci-0000:01:00.0' };
    expect(reconfigureVm.steps['device']?.run(lent, {})).toMatchObject({ type: 'HoldDevice', data: held });
    const undoLent = reconfigureVm.steps['device']?.undo;
    expect(typeof undoLent === 'function' ? undoLent(lent, {}) : undefined).toMatchObject({ type: 'ReleaseDevice', data: held });
    expect(reconfigureVm.steps['domain']?.run(lent, {})).toMatchObject({ data: { assigned: [{ kind: 'pci', address: '0000:01:00.0' }] } });
    expect([reconfigureVm.steps['device']?.run(made, {}), reconfigureVm.steps['back']?.run(made, {}), reconfigureVm.steps['device']?.run(back, {})]).toEqual([undefined, undefined, undefined]);
    expect(reconfigureVm.steps['back']?.run(back, {})).toMatchObject({ type: 'ReleaseDevice', data: { ...held, device: 'usb-1234:abcd' } });
    // One that is no node's holds up nothing else that is given back.
    const both: ReconfigureVm = { ...back, machine: { ...back.machine, spec: { ...back.machine.spec, assigned: [{ kind: 'virtual-usb', model: 'tablet' }] } }, change: { removeDevice: 'virtual-usb-tablet', name: 'web-2' }, nameKeyAfter: 'after' };
    expect(reconfigureVm.steps['back']?.run(both, {})).toMatchObject({ type: 'UnclaimVmName', data: { key: back.nameKeyBefore, owner: ids.vmId } });
    for (const removal of removals) expect(deleteVm.steps['devices']?.run(removal, {})).toBeUndefined();
    expect(deleteVm.steps['devices']?.run({ ...(removals[0] as RemoveVm), nodeId: `node_${digits}`, devices: true }, {})).toMatchObject({ type: 'ReleaseDevice', data: { ...held, device: null } });
  });
  it('gives back a name or an address last', () => {
    expect(reconfigureVm.steps['back']?.after).toEqual(['domain']);
    expect(reconfigureVm.steps['back']?.run(everything, facts)).toMatchObject({ type: 'UnclaimVmName', data: { key: 'ab' } });
    expect(reconfigureVm.steps['back']?.run(without, {})).toMatchObject({ type: 'ReleaseAddress', data: { subnetId: other.subnetId } });
    expect(reconfigureVm.steps['back']?.run(smaller, {})).toBeUndefined();
  });
  it('makes the record of a new disk, then its space, then its bytes, and only then gives it to the machine', () => {
    expect(reconfigureVm.steps['volume']?.run(adding, {})).toMatchObject({ type: 'CreateVolume', data: { volumeId: second.volumeId, name: 'data', sizeGib: 3 } });
    expect(reconfigureVm.steps['space']).toMatchObject({ after: ['volume'] });
    expect(reconfigureVm.steps['disk']?.run(adding, {})).toMatchObject({ type: 'EnsureDisk', data: { volumeId: second.volumeId, imageFile: null } });
    expect(reconfigureVm.steps['domain']?.run(adding, {})).toMatchObject({ data: { disks: [{ unit: 0 }, second] } });
  });
  it('attaches, changes and detaches one', () => {
    expect(reconfigureVm.steps['volume']?.run(attaching, {})).toMatchObject({ type: 'AttachVolume', data: { volumeId: second.volumeId } });
    expect(reconfigureVm.steps['domain']?.run(attaching, { volume: { sizeGib: 7, poolId: `pool_${digits}` } })).toMatchObject({ data: { disks: [{ unit: 0 }, { ...second, sizeGib: 7 }] } });
    expect(reconfigureVm.steps['volume']?.run(changing, {})).toMatchObject({ type: 'ResizeVolume', data: { sizeGib: 5 } });
    expect(reconfigureVm.steps['domain']?.run(changing, {})).toMatchObject({ data: { disks: [{ unit: 0 }, { ...second, sizeGib: 5, limits: { iops: 100 } }] } });
    expect(reconfigureVm.steps['domain']?.run(detaching, {})).toMatchObject({ data: { disks: [{ unit: 0 }] } });
    expect(reconfigureVm.steps['back']?.run(detaching, {})).toMatchObject({ type: 'DetachVolume', data: { volumeId: second.volumeId, delete: detaching.dropOperationId } });
  });
  it('makes its first disk anew from its image, and lets go of the old one when the domain has', () => {
    expect(reconfigureVm.steps['volume']?.run(rebuilding, {})).toEqual({ to: 'storage', target: rebuild.volumeId, type: 'CreateVolume', data: { volumeId: rebuild.volumeId, vmId: ids.vmId, poolId: `pool_${digits}`, nodeId: `node_${digits}`, imageId: `image_${digits}`, sizeGib: 2 } });
    expect(reconfigureVm.steps['disk']?.run(rebuilding, {})).toMatchObject({ type: 'EnsureDisk', data: { volumeId: rebuild.volumeId, imageFile: 'guest.qcow2' } });
    expect(reconfigureVm.steps['domain']?.run(rebuilding, {})).toMatchObject({ data: { disks: [{ volumeId: rebuild.volumeId, unit: 0, sizeGib: 2, layer: null }] } });
    expect(reconfigureVm.steps['back']?.run(rebuilding, {})).toMatchObject({ type: 'DetachVolume', data: { volumeId: ids.volumeId, delete: null, kept: rebuild.kept } });
    const undo = reconfigureVm.steps['domain']?.undo;
    expect(typeof undo === 'function' ? undo(rebuilding, {}) : undefined).toMatchObject({ data: { disks: [{ volumeId: ids.volumeId }] } });
  });
  it('tells which address was leased, and what waits for a start', () => {
    expect(reconfigureVm.done(everything, { ...facts, domain: { state: 'running', reason: 'booted', session: 1, sequence: 4, pending: ['boot'] } }))
      .toMatchObject({ type: 'FinishVm', data: { reconfigured: { nic, pending: ['boot'] }, observed: { state: 'running', sequence: 4 } } });
  });
  it('owes what a silent node kept from being undone, under that undo\'s own id', () => {
    const failed = `saga-reconfigure-vm-op_${'1'.repeat(32)}`;
    expect(settleReconfiguration.steps['domain']?.run({ ...everything, failedOperationId: `op_${'1'.repeat(32)}`, added: nic }, {})).toMatchObject({ type: 'ConfigureDomain', as: `${failed}:domain:undo`, cancels: [`${failed}:domain:run`], data: { vcpus: 1, gone: [nic], insist: true } });
  });
});

describe('Making a volume', () => {
  const [blank, , copy, frozen] = creations;
  if (blank === undefined || copy === undefined || frozen === undefined) throw new Error('no input');
  it('holds what it copies until that is done', () => {
    expect(createVolume.steps['source']?.run(copy, {})).toMatchObject({ type: 'HoldVolume', data: { volumeId: second.volumeId } });
    expect(createVolume.steps['disk']).toMatchObject({ after: ['source', 'space'] });
    expect(createVolume.steps['release']?.run(copy, {})).toMatchObject({ type: 'LetGoOfVolume', data: { volumeId: second.volumeId } });
    expect([createVolume.steps['source']?.run(blank, {}), createVolume.steps['release']?.run(blank, {})]).toEqual([undefined, undefined]);
  });
  it('copies what a snapshot froze, and asks afterwards whether that was still so', () => {
    const facts = { source: { layers: ['aaaaaaaa'] } };
    expect(createVolume.steps['disk']?.run(frozen, facts)).toMatchObject({ data: { source: { kind: 'volume', volumeId: second.volumeId, layer: 'aaaaaaaa' } } });
    expect(createVolume.steps['release']?.run(frozen, facts)).toMatchObject({ type: 'FindSnapshotDisks', data: { layers: ['aaaaaaaa'] } });
  });
  it('that failed is settled by the very undo that never arrived, and lets go of what it held under its own name', () => {
    expect(settleVolume.steps['disk']?.run({ ...copy, operationId: `op_${'7'.repeat(32)}`, failedOperationId }, {})).toMatchObject({ type: 'RemoveVolume', as: `saga-create-volume-${failedOperationId}:disk:undo`, cancels: [`saga-create-volume-${failedOperationId}:disk:run`] });
    expect(settleVolume.steps['source']?.run({ ...copy, operationId: `op_${'7'.repeat(32)}`, failedOperationId }, {})).toMatchObject({ type: 'LetGoOfVolume', data: { operationId: failedOperationId } });
  });
});

describe('Asking a guest', () => {
  it('is one verb of its node, and tells how it was done', () => {
    expect(guestVm.steps['guest']?.run(asking, {})).toEqual({ to: 'node', target: asking.nodeId, type: 'AskGuest', data: { vmId: asking.vmId, nodeId: asking.nodeId, generation: 1, request: asking.request } });
    expect(guestVm.done(asking, { guest: { state: 'running', reason: 'booted', session: 1, sequence: 4, method: 'guest-agent' } })).toMatchObject({ type: 'FinishVm', data: { how: 'guest-agent', observed: { state: 'running', sequence: 4 } } });
  });
  it('that failed is kept from happening later, by the very undo that never arrived', () => {
    const failed = `saga-guest-vm-op_${'1'.repeat(32)}`;
    expect(settleGuest.steps['guest']?.run(askingOwed, {})).toMatchObject({ type: 'ObserveDomain', as: `${failed}:guest:undo`, cancels: [`${failed}:guest:run`] });
  });
});

describe('What an action owes', () => {
  it('is paid with the very undo that never arrived, which takes the action itself back', () => {
    const [start, stop] = settlings;
    if (start === undefined || stop === undefined) throw new Error('no input');
    const failed = `saga-power-vm-op_${'1'.repeat(32)}`;
    expect(settlePower.steps['node']?.run(start, {})).toMatchObject({ type: 'DestroyDomain', as: `${failed}:node:undo`, cancels: [`${failed}:node:run`] });
    expect(settlePower.steps['node']?.run(stop, {})).toMatchObject({ type: 'ObserveDomain', as: `${failed}:node:undo`, cancels: [`${failed}:node:run`] });
    expect(settlePower.steps['capacity']?.run(stop, {})).toBeUndefined();
  });
});

describe('Taking a snapshot', () => {
  const undoOf = (vm: SnapshotVm): Outgoing | undefined => {
    const undo = snapshotVm.steps['node']?.undo;
    return typeof undo === 'function' ? undo(vm, {}) : undefined;
  };
  it('puts a new layer on each disk while it runs, and is taken back by merging what was written meanwhile', () => {
    expect(snapshotVm.steps['node']?.run(taking, {})).toMatchObject({ type: 'LayerDomain', data: { live: true, on, disks: [{ layer: 'bbbbbbbb' }, { layer: 'bbbbbbbb' }] } });
    expect(undoOf(taking)).toMatchObject({
      type: 'TidyLayers',
      data: { disks: [{ layer: null }, { layer: 'aaaaaaaa' }], steps: [{ kind: 'merge', layer: 'bbbbbbbb', into: null, active: true, above: [] }, { kind: 'merge', layer: 'bbbbbbbb', into: 'aaaaaaaa', active: true, above: [] }] },
    });
  });
  it('tells whether the guest was still for it', () => {
    expect(snapshotVm.done(taking, { node: { frozen: true, state: 'running', reason: 'booted', session: 1, sequence: 2 } })).toMatchObject({ type: 'FinishVm', data: { frozen: true, observed: { state: 'running' } } });
  });
  it('going back to one needs a VM that is stopped, and is taken back by dropping what nobody wrote', () => {
    expect(snapshotVm.steps['node']?.run(reverting, {})).toMatchObject({ type: 'LayerDomain', data: { live: false } });
    expect(undoOf(reverting)).toMatchObject({ data: { steps: [{ kind: 'drop', layer: 'bbbbbbbb' }, { kind: 'drop', layer: 'bbbbbbbb' }] } });
  });
});

describe('Keeping a snapshot inside of the disks', () => {
  const undoOf = (vm: SnapshotVm): Outgoing | undefined => {
    const undo = snapshotVm.steps['node']?.undo;
    return typeof undo === 'function' ? undo(vm, {}) : undefined;
  };
  it('names it after itself, and is taken back by letting it go', () => {
    expect(snapshotVm.steps['node']?.run(takingInside, {})).toMatchObject({ type: 'KeepInside', data: { volumes: [ids.volumeId, second.volumeId], as: `snapshot_${digits}`, back: null } });
    expect(undoOf(takingInside)).toMatchObject({ type: 'TidyLayers', data: { steps: [ids.volumeId, second.volumeId].map((volumeId) => ({ kind: 'forget', volumeId, inner: `snapshot_${digits}` })) } });
  });
  it('going back keeps what there was under the operation, and is taken back by returning to that', () => {
    expect(snapshotVm.steps['node']?.run(revertingInside, {})).toMatchObject({ type: 'KeepInside', data: { as: ids.operationId, back: `snapshot_${digits}` } });
    expect(undoOf(revertingInside)).toMatchObject({ data: { steps: [ids.volumeId, second.volumeId].map((volumeId) => ({ kind: 'return', volumeId, inner: ids.operationId })) } });
  });
});

describe('Tidying layers away', () => {
  const [, nothing, undoing, again] = tidyings;
  if (nothing === undefined || undoing === undefined || again === undefined) throw new Error('no input');
  it('asks no node for nothing', () => { expect(tidyLayers.steps['node']?.run(nothing, {})).toBeUndefined(); });
  it('that is owed is the very command that never arrived; an undo takes its own step back', () => {
    const owed = (saga: string) => `saga-${saga}-${failedOperationId}:node`;
    expect(tidyLayers.steps['node']?.run(undoing, {})).toMatchObject({ as: `${owed('snapshot-vm')}:undo`, cancels: [`${owed('snapshot-vm')}:run`] });
    expect(tidyLayers.steps['node']?.run(again, {})).toMatchObject({ as: `${owed('tidy-layers')}:run` });
    expect(tidyLayers.steps['node']?.run(tidying, {})).not.toHaveProperty('as');
  });
});
