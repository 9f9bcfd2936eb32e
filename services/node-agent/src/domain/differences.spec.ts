import type { VolumeId } from '@chronovirt/contracts/ids';
import type { NetworkPlan } from '@chronovirt/contracts/network/network.events';
import { describe, expect, it } from 'vitest';
import type { Told } from '../hypervisor.ts';
import { differencesOf, type SeenFully, type SeenMachine } from './differences.ts';
import { obstaclesOf, type ForeignShape } from './foreign.ts';
import { smallPlan } from './testing-plan.ts';

const hex = (n: number): string => n.toString(16).padStart(32, '0');
const volumeId: VolumeId = `volume_${hex(1)}`;
const mac = '52:54:0a:15:00:05';
const plan: Told['plan'] = { vmId: `vm_${hex(2)}`, nodeId: `node_${hex(3)}`, generation: 1, ...smallPlan({ volumeId, mac, address: '10.21.0.5', network: {} as NetworkPlan }) };
const told: Told = { plan, pending: [], power: 'running', unsettled: false, unsure: false };
const path = `/pool/${volumeId}.qcow2`;
const machine: SeenMachine = {
  vcpus: 1, vcpusMax: 1, memoryMib: 128, memoryMibMax: 0, boot: ['disk'], bootMenu: false, kernel: null, media: undefined, drivers: null, seed: null, expert: '', assigned: [], usb: false, macs: [mac], disks: [{ path, limits: null }],
  title: 'spec', description: '', targets: { vda: path }, devices: { serial: 1 },
};
const seen: SeenFully = { state: 'running', reason: 'booted', name: 'cv-spec', nameGiven: 'cv-spec', persistent: true, defined: machine, running: machine, snapshots: [] };
const expected = { diskPathOf: () => path, mediaPathOf: (file: string) => `/images/${file}`, devices: { serial: 1 } };
const found = (more: Partial<SeenFully>, of: Partial<Told> = {}) => differencesOf({ ...told, ...of }, { ...seen, ...more }, expected);

describe('Differences of a domain', () => {
  it('say each part of a kernel that nobody wanted, and nothing of what waits for a start', () => {
    const running = { ...machine, bootMenu: true, kernel: { path: '/etc/shadow', initrd: null, arguments: 'init=/bin/sh' } };
    expect(found({ running })).toEqual([
      { field: 'bootMenu', where: 'running', expected: false, seen: true }, { field: 'kernel', where: 'running', expected: null, seen: '/etc/shadow' }, { field: 'kernel.arguments', where: 'running', expected: null, seen: 'init=/bin/sh' },
    ]);
    expect(found({ running }, { pending: ['boot'] })).toEqual([]);
  });
  it('are none when it is as it was told to be', () => { expect(found({})).toEqual([]); });
  it.each<[string, Partial<SeenFully>, object]>([
    ['more CPUs at the next start', { defined: { ...machine, vcpus: 4 } }, { field: 'vcpus', where: 'defined', expected: 1, seen: 4 }],
    ['more memory while it runs', { running: { ...machine, memoryMib: 256 } }, { field: 'memoryMib', where: 'running', expected: 128, seen: 256 }],
    ['another state', { state: 'stopped', reason: 'destroyed', running: undefined }, { field: 'state', expected: 'running', seen: 'stopped' }],
    ['a definition that is gone', { persistent: false }, { field: 'persistent', expected: true, seen: false }],
    ['another name', { name: 'x' }, { field: 'name', expected: 'cv-spec', seen: 'x' }],
    ['a description', { defined: { ...machine, description: 'mine' } }, { field: 'description', where: 'defined', expected: '', seen: 'mine' }],
    ['a disk more', { running: { ...machine, targets: { vda: path, vdb: '/x' } } }, { field: 'disks.vdb', where: 'running', expected: null, seen: '/x' }],
    ['another file below a disk', { running: { ...machine, targets: { vda: '/x' } } }, { field: 'disks.vda', where: 'running', expected: path, seen: '/x' }],
    ['an interface less', { defined: { ...machine, macs: [] } }, { field: `nics.${mac}`, where: 'defined', expected: 'attached', seen: null }],
    ['limits', { running: { ...machine, disks: [{ path, limits: { iops: 100 } }] } }, { field: 'disks.vda.iops', where: 'running', expected: null, seen: 100 }],
    ['a menu of what to start', { running: { ...machine, bootMenu: true } }, { field: 'bootMenu', where: 'running', expected: false, seen: true }],
    ['a device of its node', { defined: { ...machine, assigned: ['ua-cv-pci-0000-01-00-0'] } }, { field: 'devices.ua-cv-pci-0000-01-00-0', where: 'defined', expected: null, seen: 'attached' }],
    ['a medium in the second drive', { running: { ...machine, drivers: '/images/x.iso' } }, { field: 'drivers', where: 'running', expected: null, seen: '/images/x.iso' }],
    ['a medium', { running: { ...machine, media: '/images/x.iso' } }, { field: 'media', where: 'running', expected: null, seen: '/images/x.iso' }],
    ['a snapshot of libvirt\'s', { snapshots: ['a'] }, { field: 'snapshots', expected: null, seen: 'a' }],
    ['a device passed through', { defined: { ...machine, devices: { serial: 1, hostdev: 1 } } }, { field: 'devices.hostdev', where: 'defined', expected: 0, seen: 1 }],
  ])('are said for %s', (_what, more, difference) => { expect(found(more)).toEqual([difference]); });
  it('are none in what waits for a start, or what a guest did itself', () => {
    expect(found({ running: { ...machine, vcpus: 2 } }, { pending: ['vcpus'] })).toEqual([]);
    expect(found({ state: 'stopped', reason: 'shutdown', running: undefined })).toEqual([]);
    expect(found({ state: 'saved', reason: 'saved', running: undefined }, { power: 'stopped' })).toEqual([]);
  });
  it('are said when a guest that was stopped runs, or one that ran is paused', () => {
    expect(found({}, { power: 'stopped' })).toEqual([{ field: 'state', expected: 'stopped', seen: 'running' }]);
    expect(found({ state: 'paused', reason: 'user' })).toEqual([{ field: 'state', expected: 'running', seen: 'paused' }]);
  });
});

describe('A domain that somebody else made', () => {
  const shape: ForeignShape = { persistent: true, memoryMib: 512, disks: [{ target: 'vda', device: 'disk', file: '/x.qcow2', format: 'qcow2', readOnly: false, shared: false }], nics: [], devices: {}, snapshots: [] };
  const [disk] = shape.disks;
  it('can be taken over when we could do with it all that we do with ours', () => { expect(obstaclesOf(shape)).toEqual([]); });
  it.each<[RegExp, Partial<ForeignShape>]>([
    [/transient/, { persistent: false }], [/passed through.*hostdev/, { devices: { hostdev: 1 } }], [/folder/, { devices: { filesystem: 1 } }], [/snapshots of it \(a\)/, { snapshots: ['a'] }],
    [/no disk/, { disks: [] }], [/not a file/, { disks: [{ ...disk!, file: undefined }] }], [/raw, not qcow2/, { disks: [{ ...disk!, format: 'raw' }] }], [/read-only/, { disks: [{ ...disk!, readOnly: true }] }],
    [/less than 64 MiB/, { memoryMib: 32 }],
  ])('is left alone: %s', (says, more) => { expect(obstaclesOf({ ...shape, ...more })).toEqual([expect.stringMatching(says)]); });
});
