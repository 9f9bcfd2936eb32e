import { describe, expect, it } from 'vitest';
import { networkShown } from '../networks/network-view.ts';
import { networkView, subnetView } from '../networks/network.projection.ts';
import { holding } from '../nodes/holding.projection.ts';
import { nodeSummary, type NodeSummary } from '../nodes/node-summary.projection.ts';
import { nodeShown } from '../nodes/node-view.ts';
import { poolView } from '../pools/pool.projection.ts';
import { folded, type Said } from '../testing-events.os.ts';
import { apiTokenView, joinTokenView } from '../tokens/token.projection.ts';
import { csvHeader, csvRow } from '../vms/vm-csv.ts';
import type { VmSummary } from '../vms/vm-summary.projection.ts';
import { vmHistory } from './vm-history.projection.ts';

const said = (stream: string, type: string, data: object, meta = {}): Said => ({ stream, type, data, meta });
const registered = said('node-n1', 'NodeRegistered', { nodeId: 'n1', name: 'red', machineId: 'm', credentialKey: 'U1', sealKey: 's' });

describe('a node', () => {
  const node = (...more: readonly Said[]): NodeSummary => folded(nodeSummary, registered, ...more).get('n1') as NodeSummary;
  const described = said('node-n1', 'NodeDescribed', { hypervisor: 'test', accel: 'tcg', accelBecause: 'x', cpus: 2, memoryMib: 2_512, versions: {} });

  it('is joining, ready, silent, back, in maintenance, removed', () => {
    expect(nodeShown(node(), undefined)).toMatchObject({ status: 'joining', capacity: null });
    expect(nodeShown(node(described), { holder: 'n1', holdings: 2, vcpus: 3, memoryMib: 500, sizeGib: 0 })).toMatchObject({ status: 'ready', vms: 2, capacity: { vcpus: { total: 16, reserved: 3, free: 13 }, memoryMib: { total: 2_000, reserved: 500, free: 1_500 } } });
    const silent = said('presence-n1', 'NodeFellSilent', { nodeId: 'n1', silentSince: '2026-01-31T12:00:00Z' });
    expect(nodeShown(node(described, silent), undefined)).toMatchObject({ status: 'silent', statusBecause: 'silent since 2026-01-31T12:00:00Z' });
    expect(nodeShown(node(described, silent, said('presence-n1', 'NodeReturned', { nodeId: 'n1' })), undefined).status).toBe('ready');
    expect(nodeShown(node(described, said('node-n1', 'NodePolicyChanged', { accepting: true, maintenance: true, cpuPercent: 100, memoryPercent: 100, memoryReserveMib: 0, memoryUsedPercentMax: 100, loadPercentMax: 100 })), undefined)).toMatchObject({ status: 'maintenance', capacity: { vcpus: { total: 2 } } });
    expect(node(said('node-n1', 'NodeRemoved', { reason: 'scrapped' })).removed).toMatchObject({ reason: 'scrapped' });
  });
  it('remembers every key it had, and shows none', () => {
    const again = node(said('node-n1', 'NodeRegistered', { nodeId: 'n1', name: 'red', machineId: 'm', credentialKey: 'U2', sealKey: 's' }));
    expect(again.credentialKeys).toEqual(['U1', 'U2']);
    expect(JSON.stringify(nodeShown(again, undefined))).not.toContain('U2');
  });
  it('is not written anew when capacity is taken', () => { expect(nodeSummary.keys({ stream: 'node-n1', type: 'CapacityReserved' } as never)).toEqual([]); });
});

describe('a holding', () => {
  it('is there from taking to giving back', () => {
    const taken = [said('node-n1', 'CapacityReserved', { vmId: 'v1', vcpus: 2, memoryMib: 512, decision: {} }), said('subnet-s1', 'AddressLeased', { vmId: 'v1', address: '10.0.0.5', mac: 'm' }), said('pool-p1', 'SpaceReserved', { volumeId: 'd1', vmId: 'v1', sizeGib: 4 })];
    expect([...folded(holding, ...taken)]).toEqual([
      ['n1/v1', { holder: 'n1', vmId: 'v1', vcpus: 2, memoryMib: 512, sizeGib: 0, address: null }],
      ['s1/v1', { holder: 's1', vmId: 'v1', vcpus: 0, memoryMib: 0, sizeGib: 0, address: '10.0.0.5' }],
      ['p1/d1', { holder: 'p1', vmId: 'v1', vcpus: 0, memoryMib: 0, sizeGib: 4, address: null }],
    ]);
    expect(folded(holding, ...taken, said('node-n1', 'CapacityReleased', { vmId: 'v1' }), said('subnet-s1', 'AddressReleased', { vmId: 'v1', address: '10.0.0.5' }), said('pool-p1', 'SpaceReleased', { volumeId: 'd1', vmId: 'v1' })).size).toBe(0);
  });
});

describe('a network', () => {
  const network = folded(networkView, said('network-w1', 'NetworkCreated', { networkId: 'w1', subnetId: 's1', name: 'default', kind: 'nat', cidr: '10.0.0.0/29', gateway: '10.0.0.1', prefix: 29, bridge: 'b' })).get('w1');
  const subnet = folded(subnetView, said('subnet-s1', 'SubnetCreated', { subnetId: 's1', networkId: 'w1', cidr: '10.0.0.0/29', gateway: '10.0.0.1', reserved: ['10.0.0.2'] }),
    said('subnet-s1', 'AddressesReserved', { addresses: ['10.0.0.2', '10.0.0.3'] }), said('subnet-s1', 'AddressesUnreserved', { addresses: ['10.0.0.2'] })).get('s1');
  it('shows how much of it is used', () => {
    expect(network && networkShown(network, subnet, 2)).toMatchObject({ id: 'w1', reserved: ['10.0.0.3'], addresses: { usable: 5, leased: 2, reserved: 1, free: 2 } });
  });
});

describe('others', () => {
  it('a pool follows its size', () => {
    expect(folded(poolView, said('pool-p1', 'PoolRegistered', { poolId: 'p1', nodeId: 'n1', name: 'disks', capacityGib: 10, overcommitPercent: 200 }), said('pool-p1', 'PoolResized', { capacityGib: 20 })).get('p1')).toMatchObject({ capacityGib: 20, overcommitPercent: 200 });
  });
  it('a revoked token can still be told from an unknown one', () => {
    expect(folded(apiTokenView, said('token-t1', 'ApiTokenIssued', { tokenId: 't1', name: 'ci', sha256: 'x' }), said('token-t1', 'ApiTokenRevoked', { tokenId: 't1' })).get('t1')).toMatchObject({ sha256: 'x', revokedAt: '2026-01-31T12:00:02.000000Z' });
  });
  it('a join token says who joined with it', () => {
    expect(folded(joinTokenView, said('join-token-t1', 'JoinTokenIssued', { tokenId: 't1', sha256: 'x', expiresAt: 'e' }), said('join-token-t1', 'JoinTokenRedeemed', { tokenId: 't1', nodeId: 'n1', machineId: 'm' })).get('t1')).toMatchObject({ redeemed: { nodeId: 'n1' } });
  });
  it('a VM\'s history holds what names it, and outlives it', () => {
    const rows = folded(vmHistory, said('vm-v1', 'VmRequested', { vmId: 'v1' }), said('saga-provision-vm-op_1', 'SagaStarted', { input: { vmId: 'v1' } }), said('saga-provision-vm-op_1', 'StepAnswered', {}, { vmId: 'v1' }),
      said('subnet-s1', 'AddressLeased', { vmId: 'v1' }), said('subnet-s1', 'AddressLeased', { vmId: 'v2' }), said('vm-v1', 'VmDeleted', {}));
    expect([...rows.values()].filter(({ vmId }) => vmId === 'v1').map(({ position }) => position)).toEqual([1, 2, 3, 4, 6]);
  });
  it('a cell of CSV is text, whatever a spreadsheet would make of it', () => {
    const row = csvRow({ id: 'v1', name: 'web', description: '=1+1, "two"', spec: { tags: [] }, observed: null, failure: null } as unknown as VmSummary);
    expect(row.split(csvHeader.split(',')[3] ?? '')[0]).toContain(`"'=1+1, ""two"""`);
  });
});
