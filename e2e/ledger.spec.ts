import { describe, expect, it } from 'vitest';
import { ledgerOf, type LoggedEvent } from './ledger.ts';

type Line = readonly [stream: string, type: string, data: object];

const log = (...events: readonly Line[]): readonly LoggedEvent[] =>
  events.map(([stream, type, data], index) => ({ position: index + 1, stream, type, data: data as Record<string, unknown> }));

const described: Line = ['node-n1', 'NodeDescribed', { cpus: 2, memoryMib: 1_512 }];
const leased = (vmId: string, address: string): Line => ['subnet-s1', 'AddressLeased', { vmId, address, mac: `52:54:${address}` }] as const;

describe('the account that crash tests keep', () => {
  it('finds nothing wrong with a life from request to end', () => {
    const { wrong, addresses, vms } = ledgerOf(log(
      ['vm-v1', 'VmRequested', { operationId: 'o1', spec: { name: 'one' } }], leased('v1', '10.0.0.2'), described,
      ['node-n1', 'CapacityReserved', { vmId: 'v1', vcpus: 1, memoryMib: 128 }], ['vm-v1', 'VmPlaced', { operationId: 'o1', nodeId: 'n1', generation: 1 }],
      ['vm-v1', 'VmProvisioned', { operationId: 'o1' }], ['vm-v1', 'VmOperationDone', { operationId: 'o1' }],
      ['vm-v1', 'VmDeleteStarted', { operationId: 'o2' }], ['subnet-s1', 'AddressReleased', { vmId: 'v1', address: '10.0.0.2' }],
      ['node-n1', 'CapacityReleased', { vmId: 'v1', vcpus: 1, memoryMib: 128 }], ['vm-v1', 'VmDeleted', { operationId: 'o2' }],
    ));
    expect(wrong).toEqual([]);
    expect(addresses.size).toBe(0);
    expect(vms.get('v1')).toMatchObject({ deleted: true, owed: [] });
  });

  it.each([
    ['an address that two hold', [leased('v1', '10.0.0.2'), leased('v2', '10.0.0.2')], /while v1 holds it/],
    ['two addresses for one VM', [leased('v1', '10.0.0.2'), leased('v1', '10.0.0.3')], /beside 10\.0\.0\.2/],
    ['an address taken from nobody', [['subnet-s1', 'AddressReleased', { vmId: 'v1', address: '10.0.0.2' }]], /from nobody/],
    ['more memory than a node has', [described, ['node-n1', 'CapacityReserved', { vmId: 'v1', vcpus: 1, memoryMib: 1_001 }]], /promises 1 CPUs and 1001 MiB/],
    ['capacity twice', [described, ['node-n1', 'CapacityReserved', { vmId: 'v1', vcpus: 1, memoryMib: 1 }], ['node-n1', 'CapacityReserved', { vmId: 'v1', vcpus: 1, memoryMib: 1 }]], /has capacity on n1 already/],
    ['a step that was answered twice', [['saga-x-o1', 'StepAnswered', { step: 'boot' }], ['saga-x-o1', 'StepAnswered', { step: 'boot' }]], /decided twice/],
    ['an operation with two ends', [['vm-v1', 'VmOperationDone', { operationId: 'o1' }], ['vm-v1', 'VmOperationFailed', { operationId: 'o1', owed: [] }]], /the end of o1 was decided twice/],
    ['two placements of one operation', [['vm-v1', 'VmPlaced', { operationId: 'o1', nodeId: 'n1', generation: 1 }], ['vm-v1', 'VmPlaced', { operationId: 'o1', nodeId: 'n1', generation: 2 }]], /decided twice/],
    ['a name that two hold', [['vm-name-k', 'Claimed', { owner: 'v1' }], ['vm-name-k', 'Claimed', { owner: 'v2' }]], /while v1 holds it/],
    ['a volume of another VM that is let go', [['volume-d1', 'VolumeCreated', { volumeId: 'd1', vmId: 'v1' }], ['volume-d1', 'VolumeDetached', { volumeId: 'd1', vmId: 'v2' }]], /takes d1 from v2, and v1 holds it/],
    ['a volume that is attached while a VM has it', [['volume-d1', 'VolumeCreated', { volumeId: 'd1', vmId: 'v1' }], ['volume-d1', 'VolumeAttached', { volumeId: 'd1', vmId: 'v2' }]], /takes d1 from nobody, and v1 holds it/],
    ['a snapshot that is deleted twice', [['vm-v1', 'VmSnapshotDeleted', { snapshotId: 's1' }]], /has no snapshot s1/],
  ] satisfies readonly (readonly [string, readonly Line[], RegExp])[])('sees %s', (_what, events, complaint) => {
    expect(ledgerOf(log(...events)).wrong.join('\n')).toMatch(complaint);
  });

  it('sees a hole in the positions', () => {
    expect(ledgerOf([{ position: 2, stream: 'vm-v1', type: 'VmDeleted', data: { operationId: 'o1' } }]).wrong.join()).toMatch(/after position 0 comes 2/);
  });
});
