import { describe, expect, it } from 'vitest';
import { scenarioOf } from '@chronovirt/decider/scenario';
import { isRefusal } from '@chronovirt/decider/decider';
import { sequence } from '@chronovirt/decider/saga-property';
import type { BackupCommand } from '@chronovirt/contracts/backup/backup.commands';
import type { BackupEvent } from '@chronovirt/contracts/backup/backup.events';
import type { BackupId, OperationId } from '@chronovirt/contracts/ids';
import { type Archive, archive, CHAIN_MAX } from './archive.ts';

const given = scenarioOf(archive, (actual, expected) => { expect(actual).toEqual(expected); });
const digits = (n: number): string => n.toString(16).padStart(32, '0');
const backup = (n: number): BackupId => `backup_${digits(n)}`;
const op = (n: number): OperationId => `op_${digits(n)}`;
const vmId = `vm_${digits(1)}` as const;
const nodeId = `node_${digits(1)}` as const;
const target = { targetId: `target_${digits(1)}`, name: 'vault' } as const;
const other = { targetId: `target_${digits(2)}`, name: 'attic' } as const;
const network = { networkId: `network_${digits(1)}`, subnetId: `subnet_${digits(1)}`, name: 'lab', kind: 'nat', cidr: '10.21.0.0/24', gateway: '10.21.0.1', prefix: 24, bridge: 'cvbr-0' } as const;
const machine = {
  network, volumes: [], spec: {
    name: 'web-1', description: '', imageId: null, networkId: network.networkId, subnetId: network.subnetId, vcpus: 1, memoryMib: 256, diskGib: 2, accel: 'any', devices: 'virtio', nodeId: null, tags: [], protected: false,
    vcpusMax: 1, memoryMibMax: 256, boot: ['disk'], media: null, cloudInit: null, diskLimits: null,
  },
} satisfies Extract<BackupEvent, { type: 'BackupTaken' }>['data']['machine'];

const begin = (n: number, more: object = {}): BackupCommand => ({ type: 'BeginBackup', data: { vmId, nodeId, backupId: backup(n), operationId: op(n), target, wants: 'auto', scheduled: null, ...more } });
const begun = (n: number, parent: number | null, more: object = {}): BackupEvent => ({ type: 'BackupBegun', data: { vmId, nodeId, backupId: backup(n), operationId: op(n), target, wants: 'auto', parent: parent === null ? null : backup(parent), scheduled: null, ...more } });
const recording = (n: number, parent: number | null) => ({
  vmId, backupId: backup(n), operationId: op(n), machine, kind: parent === null ? 'full' : 'incremental', because: 'it is so', parent: parent === null ? null : backup(parent), frozen: true, manifestSha256: 'a'.repeat(64),
  files: [{ unit: 0, volumeId: `volume_${digits(1)}`, sizeGib: 2, bytes: 1, sha256: 'a'.repeat(64) }],
}) satisfies Extract<BackupEvent, { type: 'BackupTaken' }>['data'];
const taken = (n: number, parent: number | null): BackupEvent => ({ type: 'BackupTaken', data: recording(n, parent) });
const removing = (n: number, by: number, more: object = {}): BackupCommand => ({ type: 'DeleteBackup', data: { vmId, backupId: backup(n), operationId: op(by), ...more } });
const two = [begun(1, null), taken(1, null), begun(2, 1), taken(2, 1)];

describe('A backup', () => {
  it('is built on the newest of its target', () => given(...two).when(begin(3)).then(begun(3, 2)));
  it('is built on none of another target, nor on one that is going', () => {
    given(...two).when(begin(3, { target: other })).then(begun(3, null, { target: other }));
    given(begun(1, null), taken(1, null), { type: 'BackupDeleteStarted', data: { vmId, backupId: backup(1), operationId: op(9), target, nodeId } }).when(begin(3)).then(begun(3, null));
  });
  it('is full when that is asked for, and refused when it cannot be what is asked for', () => {
    given(...two).when(begin(3, { wants: 'full' })).then(begun(3, null, { wants: 'full' }));
    given().when(begin(1, { wants: 'incremental' })).thenRefused('backup.not_incremental');
  });
  it('is full when its chain is long enough', () => {
    const chain = Array.from({ length: CHAIN_MAX }, (_, index) => [begun(index + 1, index === 0 ? null : index), taken(index + 1, index === 0 ? null : index)]).flat();
    given(...chain).when(begin(99)).then(begun(99, null));
  });
  it('keeps what it builds on from the moment it is begun', () => given(begun(1, null), taken(1, null), begun(2, 1)).when(removing(1, 9)).thenRefused('backup.needed'));
  it('is not deleted while another builds on it, and that is named', () => {
    given(...two).when(removing(1, 9)).thenRefused('backup.needed', { backupId: backup(1), by: [backup(2)] });
    given(...two).when(removing(2, 9)).then({ type: 'BackupDeleteStarted', data: { vmId, backupId: backup(2), operationId: op(9), target, nodeId } });
  });
  it('that is being taken is deleted only when nobody takes it any more', () => {
    given(begun(1, null)).when(removing(1, 9)).thenRefused('backup.being_taken');
    given(begun(1, null)).when(removing(1, 9, { abandoned: true })).then({ type: 'BackupDeleteStarted', data: { vmId, backupId: backup(1), operationId: op(9), target, nodeId } });
  });
  it('is abandoned by who began it, and then was never there', () => {
    given(begun(1, null)).when({ type: 'AbandonBackup', data: { vmId, backupId: backup(1), operationId: op(1) } }).then({ type: 'BackupAbandoned', data: { vmId, backupId: backup(1), operationId: op(1) } });
    given(begun(1, null)).when({ type: 'AbandonBackup', data: { vmId, backupId: backup(1), operationId: op(2) } }).then();
    given(begun(1, null), { type: 'BackupAbandoned', data: { vmId, backupId: backup(1), operationId: op(1) } }).when({ type: 'RecordBackup', data: recording(1, null) }).thenRefused('backup.not_found');
  });
});

describe('Whatever is taken and deleted, in any order,', () => {
  it('everything that is kept has all that it builds on', () => {
    for (let seed = 1; seed <= 200; seed++) {
      const random = sequence(seed);
      const pick = (n: number): number => Math.floor(random() * n);
      let state: Archive = archive.initial;
      const decide = (command: BackupCommand): void => {
        const decision = archive.decide(command, state);
        if (!isRefusal(decision)) state = decision.reduce(archive.evolve, state);
      };
      for (let step = 1; step <= 60; step++) {
        const one = state[pick(state.length)];
        const n = one === undefined ? 0 : Number.parseInt(one.backupId.slice(-8), 16);
        switch (pick(5)) {
          case 0: decide(begin(step, { target: random() < 0.7 ? target : other })); break;
          case 1: if (one !== undefined) decide({ type: 'RecordBackup', data: { ...recording(n, null), parent: random() < 0.2 ? null : one.parent, operationId: one.operationId } }); break;
          case 2: if (one !== undefined) decide(removing(n, 1_000 + step)); break;
          case 3: decide({ type: 'FinishDeleteBackup', data: { vmId, backupId: backup(n) } }); break;
          default: if (one?.status === 'taking') decide({ type: 'AbandonBackup', data: { vmId, backupId: backup(n), operationId: one.operationId } });
        }
        const kept = state.filter(({ status }) => status !== 'deleting');
        for (const { parent, backupId } of kept) expect(parent === null || kept.some((other) => other.backupId === parent), `seed ${String(seed)}: ${backupId} lost ${String(parent)}`).toBe(true);
      }
    }
  });
});

describe('A drill of a backup', () => {
  const record: BackupCommand = { type: 'RecordDrill', data: { vmId, backupId: backup(1), operationId: op(9), passed: true, how: 'its guest agent answers', criterion: 'agent', since: '2026-01-01T00:00:00.000Z' } };
  const drilled = { type: 'BackupDrilled', data: record.data } as BackupEvent;
  const whole = [begun(1, null), { type: 'BackupTaken', data: recording(1, null) } as BackupEvent];
  it('is recorded once', () => {
    given(...whole).when(record).then(drilled);
    given(...whole, drilled).when(record).then();
  });
  it('says nothing of one that is deleted meanwhile, or gone', () => {
    given(...whole, { type: 'BackupDeleteStarted', data: { vmId, backupId: backup(1), operationId: op(8), target, nodeId } }).when(record).then();
    given().when(record).then();
  });
});

describe('How much of a backup is copied', () => {
  const progress = (percent: number, from = nodeId): BackupCommand => ({ type: 'RecordBackupProgress', data: { vmId, backupId: backup(1), nodeId: from, percent } });
  const progressed = (percent: number): BackupEvent => ({ type: 'BackupProgressed', data: { vmId, backupId: backup(1), operationId: op(1), percent } });
  it('is recorded by steps, upwards, and never as all', () => {
    given(begun(1, null)).when(progress(4)).then();
    given(begun(1, null)).when(progress(5)).then(progressed(5));
    given(begun(1, null), progressed(40)).when(progress(44)).then();
    given(begun(1, null), progressed(40)).when(progress(10)).then();
    given(begun(1, null), progressed(40)).when(progress(100)).then(progressed(99));
  });
  it('is said by its node, while it is taken', () => {
    given(begun(1, null)).when(progress(50, `node_${digits(2)}`)).then();
    given(begun(1, null), { type: 'BackupTaken', data: recording(1, null) }).when(progress(50)).then();
    given().when(progress(50)).then();
  });
});
