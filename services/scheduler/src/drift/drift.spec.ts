import { describe, expect, it } from 'vitest';
import type { Finding } from '@chronovirt/contracts/drift/drift.commands';
import type { DriftEvent, DriftItem } from '@chronovirt/contracts/drift/drift.events';
import type { NodeId, OperationId, VmId } from '@chronovirt/contracts/ids';
import { scenarioOf } from '@chronovirt/decider/scenario';
import type { VmEntry } from '../view.projection.ts';
import { classify, fateOf, findingOf, type Known } from './classify.ts';
import { drift, driftPolicies, remedyOf } from './drift.ts';

const hex = (n: number): string => n.toString(16).padStart(32, '0');
const nodeId: NodeId = `node_${hex(1)}`;
const other: NodeId = `node_${hex(2)}`;
const vmId: VmId = `vm_${hex(3)}`;
const operationId: OperationId = `op_${hex(4)}`;
const driftId: DriftItem['driftId'] = `drift_${hex(5)}`;
const item: DriftItem = { driftId, nodeId, subject: vmId, class: 'changed', vmId, name: 'web', differences: [{ field: 'vcpus', where: 'defined', expected: 2, seen: 4 }], foreign: null, says: 'vcpus changed', near: null };
const given = scenarioOf(drift, (actual, expected) => { expect(actual).toEqual(expected); });
const record = (sequence: number, ...items: DriftItem[]) => ({ type: 'RecordDrift', data: { nodeId, session: 1, sequence, items } }) as const;
const seen = (sequence: number, of: DriftItem = item): Extract<DriftEvent, { type: 'DriftSeen' }> => ({ type: 'DriftSeen', data: { ...of, session: 1, sequence } });
const gone = (sequence: number): Extract<DriftEvent, { type: 'DriftSettled' }> => ({ type: 'DriftSettled', data: { driftId, nodeId, class: 'changed', subject: vmId, vmId, session: 1, sequence } });
const act = (action: 'ignore' | 'revert') => ({ type: 'ActOnDrift', data: { nodeId, driftId, operationId, action, by: 'operator' } }) as const;
const acted = (action: 'ignore' | 'revert'): Extract<DriftEvent, { type: 'DriftActed' }> => ({ type: 'DriftActed', data: { driftId, nodeId, action, by: 'operator', operationId, vmId } });

describe('What differs on a node', () => {
  it('is seen once, however often it is said', () => {
    given().when(record(1, item)).then(seen(1));
    given(seen(1)).when(record(2, { ...item, near: { seconds: 3 } })).then();
  });
  it('is seen again when it has become different, and is settled when it is not said any more', () => {
    const more = { ...item, differences: [{ field: 'vcpus', where: 'defined' as const, expected: 2, seen: 8 }] };
    given(seen(1)).when(record(2, more)).then(seen(2, more));
    given(seen(1)).when(record(2)).then(gone(2));
  });
  it('an older word changes nothing', () => {
    given(seen(3)).when(record(2)).then();
    given(seen(3), gone(4)).when(record(3, item)).then();
  });
  it('somebody may act on it while it is there; what becomes different wants to be looked at again', () => {
    given().when(act('ignore')).thenRefused('drift.not_found', { driftId });
    given(seen(1)).when(act('revert')).then(acted('revert'));
    given(seen(1), acted('ignore')).when(act('ignore')).then();
    given(seen(1), acted('ignore')).when(record(2, { ...item, says: 'more' })).thenState(({ items }) => { expect(items[driftId]?.acted).toBeNull(); });
  });
  it('has a policy for each class that allows one', () => {
    const policies = scenarioOf(driftPolicies, (actual, expected) => { expect(actual).toEqual(expected); });
    policies().when({ type: 'SetDriftPolicy', data: { class: 'changed', action: 'revert' } }).then({ type: 'DriftPolicySet', data: { class: 'changed', action: 'revert' } });
    policies().when({ type: 'SetDriftPolicy', data: { class: 'changed', action: 'alert' } }).then();
    policies().when({ type: 'SetDriftPolicy', data: { class: 'foreign', action: 'adopt' } }).thenRefused('drift.no_such_policy', { class: 'foreign', action: 'adopt', possible: ['alert', 'ignore'] });
  });
});

describe('What is done about it', () => {
  const changed = (...differences: DriftItem['differences']): DriftItem => ({ ...item, differences });
  it('reverting brings the domain back', () => { expect(remedyOf(item, 'revert', operationId)).toEqual({ vm: { type: 'RestoreVm', data: { vmId, operationId } } }); });
  it('adopting makes it what is wanted, where a VM can be asked for that', () => {
    expect(remedyOf(item, 'adopt', operationId)).toMatchObject({ vm: { type: 'RequestReconfiguration', data: { change: { vcpus: 4 } } } });
    expect(remedyOf(changed({ field: 'state', expected: 'running', seen: 'stopped' }), 'adopt', operationId)).toMatchObject({ vm: { type: 'StopVm' } });
    expect(remedyOf(changed({ field: 'description', expected: '', seen: 'x' }), 'adopt', operationId)).toMatchObject({ refused: 'drift.cannot_adopt' });
  });
  it.each(['moved', 'duplicate', 'foreign', 'orphan-disk', 'disk-missing'] as const)('%s is refused with a reason', (klass) => {
    for (const action of ['adopt', 'revert'] as const) expect(remedyOf({ ...item, class: klass }, action, operationId)).toMatchObject({ refused: `drift.cannot_${action}`, because: { hint: expect.any(String) as string } });
  });
});

describe('What a node has to do', () => {
  const network = { networkId: `network_${hex(6)}`, subnetId: `subnet_${hex(7)}`, name: 'lab', kind: 'nat', cidr: '10.9.0.0/24', gateway: '10.9.0.1', prefix: 24, bridge: 'cvb-lab' } as const;
  it('is to bring a network back, or to take a file as it is', () => {
    const ofNetwork: DriftItem = { ...item, class: 'network', vmId: null, subject: network.networkId };
    expect(remedyOf(ofNetwork, 'revert', operationId, () => network)).toEqual({ node: { kind: 'network', network } });
    expect(remedyOf(ofNetwork, 'revert', operationId)).toMatchObject({ refused: 'drift.cannot_revert' });
    expect(remedyOf(ofNetwork, 'adopt', operationId, () => network)).toMatchObject({ refused: 'drift.cannot_adopt' });
    const volumeId = `volume_${hex(8)}`;
    expect(remedyOf({ ...item, class: 'disk-replaced', subject: `${volumeId}.aaaaaaaa` }, 'adopt', operationId)).toEqual({ node: { kind: 'volume', volumeId } });
    expect(remedyOf({ ...item, class: 'disk-replaced' }, 'revert', operationId)).toMatchObject({ refused: 'drift.cannot_revert' });
  });
  it('is told once how it ended, whatever has become of it', () => {
    const end = { type: 'EndDriftAction', data: { nodeId, driftId, operationId, refused: null, because: {} } } as const;
    const ended = { type: 'DriftActionEnded', data: end.data } as const;
    given(seen(1), acted('revert')).when(end).then(ended);
    given(seen(1), acted('revert'), ended).when(end).then();
    given(seen(1), acted('revert')).when(act('revert')).then();
    given(seen(1), acted('revert'), gone(2)).when(end).then(ended);
  });
});

describe('The class of a finding', () => {
  const vm: VmEntry = { vmId, name: 'web', nodeId, generation: 1, provisioned: true, busy: false, calls: [], calledAt: 0, owed: [], failedOperationId: null, autostart: null, lostAt: null, observed: 'running' };
  const known: Known = { nodeId, vm, stray: null, now: 1_000_000, idOf: () => driftId };
  const finding = (kind: Finding['kind']): Finding => ({ kind, subject: vmId, vmId, name: 'web', differences: [], foreign: null, says: '' });
  const foreign = { uuid: '', name: 'x', state: 'running', vcpus: 1, vcpusMax: 1, memoryMib: 64, memoryMibMax: 64, persistent: true, disks: [], nics: [], obstacles: [] };
  it('of a domain that is gone is missing, or moved when another node found it', () => {
    expect(classify(finding('missing'), known)?.class).toBe('missing');
    expect(classify(finding('missing'), { ...known, stray: { nodeId: other, runs: true } })).toMatchObject({ class: 'moved', differences: [{ field: 'nodeId', expected: nodeId, seen: other }] });
  });
  it('of one that stopped here is moved when it runs elsewhere, and is what it was when that is over', () => {
    const stopped = { ...finding('domain'), differences: [{ field: 'state', expected: 'running', seen: 'stopped' }], says: 'it is stopped' };
    const made = classify(stopped, { ...known, stray: { nodeId: other, runs: true } });
    expect(made).toMatchObject({ class: 'moved', differences: [{ field: 'nodeId', seen: other }, { field: 'state' }] });
    expect(made && findingOf(made)).toEqual(stopped);
    expect(classify(stopped, { ...known, stray: { nodeId: other, runs: false } })?.class).toBe('changed');
    expect(classify({ ...stopped, differences: [{ field: 'vcpus', expected: 1, seen: 2 }] }, { ...known, stray: { nodeId: other, runs: true } })?.class).toBe('changed');
  });
  it('of two domains is a duplicate, and says so loudly when both run; one that runs where the other does not has moved', () => {
    const twin = (observed: VmEntry['observed'], state: string) => classify({ ...finding('stray'), foreign: { ...foreign, state } }, { ...known, nodeId: other, vm: { ...vm, observed } });
    expect(twin('running', 'running')).toMatchObject({ class: 'duplicate', says: expect.stringContaining('BOTH') as string });
    expect(twin('running', 'stopped')).toMatchObject({ class: 'duplicate', says: expect.stringContaining('never start both') as string });
    expect(twin('stopped', 'stopped')?.class).toBe('duplicate');
    expect(twin('stopped', 'running')).toMatchObject({ class: 'moved', differences: [{ field: 'nodeId', expected: nodeId, seen: other }] });
    expect(twin('absent', 'running')?.class).toBe('moved');
  });
  it('nobody is asked to stop one of two by itself', () => {
    const policies = scenarioOf(driftPolicies, (actual, expected) => { expect(actual).toEqual(expected); });
    for (const klass of ['duplicate', 'moved'] as const) policies().when({ type: 'SetDriftPolicy', data: { class: klass, action: 'revert' } }).thenRefused('drift.no_such_policy', { class: klass, action: 'revert', possible: ['alert', 'ignore'] });
  });
  it('of a domain of another node is moved when that has it no more, else a duplicate', () => {
    expect(classify(finding('stray'), { ...known, nodeId: other, vm: { ...vm, observed: 'absent' } })?.class).toBe('moved');
    expect(classify(finding('stray'), { ...known, nodeId: other })?.class).toBe('duplicate');
    expect(classify(finding('stray'), { ...known, vm: undefined })?.class).toBe('foreign');
  });
  it('is none while somebody is at it', () => {
    expect(classify(finding('stray'), { ...known, nodeId: other, vm: { ...vm, busy: true } })).toBeUndefined();
    expect(classify(finding('stray'), { ...known, nodeId: other, vm: { ...vm, owed: ['domain'] } })).toBeUndefined();
    expect(classify(finding('domain'), { ...known, vm: undefined })).toBeUndefined();
  });
  it('is none of a disk that is being taken away, by whoever began it', () => {
    const volumeId = `volume_${hex(8)}`;
    const gone = { ...finding('disk-missing'), subject: volumeId, vmId: null };
    expect(classify(gone, { ...known, vm: undefined })?.class).toBe('disk-missing');
    expect(classify(gone, { ...known, vm: undefined, isTakenAway: true })).toBeUndefined();
    const of = (...events: readonly [string, object?][]) => fateOf(events.map(([type, data]) => ({ type, data: { volumeId, ...data } })));
    expect(of()).toEqual({ vmId: null, isGoing: false });
    expect(of(['VolumeCreated', { vmId }])).toEqual({ vmId, isGoing: false });
    expect(of(['VolumeCreated', { vmId }], ['VolumeDetached', { vmId }])).toEqual({ vmId: null, isGoing: false });
    expect(of(['VolumeRequested'], ['VolumeReady'], ['VolumeAttached', { vmId }])).toEqual({ vmId, isGoing: false });
    expect(of(['VolumeRequested'], ['VolumeFailed'])).toEqual({ vmId: null, isGoing: true });
    expect(of(['VolumeRequested'], ['VolumeReady'], ['VolumeDeleteStarted'])).toEqual({ vmId: null, isGoing: true });
    expect(of(['VolumeRequested'], ['VolumeReady'], ['VolumeDeleteStarted'], ['VolumeDeleteAbandoned'])).toEqual({ vmId: null, isGoing: false });
    expect(of(['VolumeCreated', { vmId }], ['VolumeDeleted', { vmId }]).isGoing).toBe(true);
  });
  it('says whether an operation of ours stood near', () => {
    expect(classify(finding('domain'), { ...known, vm: { ...vm, calledAt: 990_000 } })?.near).toEqual({ seconds: 10 });
    expect(classify(finding('domain'), known)?.near).toBeNull();
  });
  it('can be told again from what was made of it', () => {
    for (const kind of ['domain', 'missing', 'orphan-disk', 'network'] as const) {
      const made = classify(finding(kind), known);
      expect(made && findingOf(made).kind).toBe(kind);
    }
    const stray = classify({ ...finding('stray'), foreign }, { ...known, nodeId: other });
    expect(stray && findingOf(stray).kind).toBe('stray');
  });
});
