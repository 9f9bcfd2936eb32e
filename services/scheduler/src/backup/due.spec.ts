import { describe, expect, it } from 'vitest';
import type { BackupId, VmId } from '@chronovirt/contracts/ids';
import type { BackupEntry, PolicyEntry, VmEntry } from '../view.projection.ts';
import { due, type Seen } from './due.ts';

const digits = (n: number): string => n.toString(16).padStart(32, '0');
const vm = (n: number): VmId => `vm_${digits(n)}`;
const id = (n: number): BackupId => `backup_${digits(n)}`;
const policyId = `policy_${digits(1)}` as const;
const target = { targetId: `target_${digits(1)}`, name: 'vault' } as const;
const SINCE = Date.parse('2026-03-01T00:00:00Z');
const HOUR = 3_600_000;

const policy = (vms: readonly VmId[], more: Partial<PolicyEntry> = {}): PolicyEntry => ({
  policy: { policyId, name: 'nightly', vms: [...vms], schedule: { everyHours: 6 }, keep: { last: 1, daily: 0, weekly: 0 }, fullEvery: 2 }, since: new Date(SINCE).toISOString(), slots: {}, undrilled: {}, drilledAt: {}, ...more,
});
const entry = (vmId: VmId, more: Partial<VmEntry> = {}): VmEntry => ({
  vmId, name: vmId, nodeId: `node_${digits(1)}`, generation: 1, provisioned: true, busy: false, calls: [], calledAt: 0, owed: [], failedOperationId: null, observed: 'running', autostart: null, lostAt: null, ...more,
});
const backup = (n: number, more: Partial<BackupEntry> = {}, parent: BackupId | null = null): BackupEntry => ({
  backupId: id(n), vmId: vm(1), target, scheduled: { policyId, slot: new Date(SINCE + n * HOUR).toISOString() }, begunAt: new Date(SINCE + n * HOUR).toISOString(), deleting: null,
  taken: { parent, machine: {} as never, files: [], frozen: true, at: new Date(SINCE + n * HOUR).toISOString() }, ...more,
});
const seen = (policies: readonly PolicyEntry[], backups: readonly BackupEntry[] = [], vms: readonly VmEntry[] = [entry(vm(1)), entry(vm(2)), entry(vm(3))], heard = true): Seen =>
  ({ backupPolicies: () => policies, drills: () => vms.filter(({ drill }) => drill === true), backups: () => backups, vm: (vmId) => vms.find((one) => one.vmId === vmId), isHeard: () => heard });

describe('What is due', () => {
  it('is one backup for the latest slot, whenever somebody looks', () => {
    expect(due(seen([policy([vm(1)])]), SINCE + 5 * HOUR).backups).toEqual([]);
    const week = SINCE + 7 * 24 * HOUR + 1;
    const [first] = due(seen([policy([vm(1)])]), week).backups;
    expect(first).toMatchObject({ vmId: vm(1), slot: SINCE + 7 * 24 * HOUR, wants: 'auto' });
    expect(due(seen([policy([vm(1)], { slots: { [vm(1)]: new Date(first?.slot ?? 0).toISOString() } })]), week + 5 * HOUR).backups).toEqual([]);
  });
  it('waits for a VM that is busy, owes something, is not built, or whose node is not heard', () => {
    for (const more of [{ busy: true }, { owed: ['node'] }, { provisioned: false }, { nodeId: null }]) expect(due(seen([policy([vm(1)])], [], [entry(vm(1), more)]), SINCE + 6 * HOUR).backups).toEqual([]);
    expect(due(seen([policy([vm(1)])], [], undefined, false), SINCE + 6 * HOUR).backups).toEqual([]);
  });
  it('is at most two on one node at a time, with those that are being taken', () => {
    const all = policy([vm(1), vm(2), vm(3)]);
    expect(due(seen([all]), SINCE + 6 * HOUR).backups.map(({ vmId }) => vmId)).toEqual([vm(1), vm(2)]);
    const taking = backup(9, { vmId: vm(4), taken: null });
    expect(due(seen([all], [taking], [entry(vm(1)), entry(vm(2)), entry(vm(3)), entry(vm(4), { busy: true })]), SINCE + 6 * HOUR).backups.map(({ vmId }) => vmId)).toEqual([vm(1)]);
  });
  it('is a full one when so many stand on one another', () => {
    expect(due(seen([policy([vm(1)])], [backup(1)]), SINCE + 6 * HOUR).backups[0]?.wants).toBe('auto');
    expect(due(seen([policy([vm(1)])], [backup(1), backup(2, {}, id(1))]), SINCE + 6 * HOUR).backups[0]?.wants).toBe('full');
  });
  it('is the drill of the newest, after so many of its VM, two at a time', () => {
    const drill = { every: 2, timeoutSeconds: 60 };
    const drilling = (many: number, vms: readonly VmId[] = [vm(1)]): PolicyEntry => {
      const one = policy(vms, { undrilled: Object.fromEntries(vms.map((vmId) => [vmId, many])) });
      return { ...one, policy: { ...one.policy, drill } };
    };
    const two = [backup(1), backup(2, {}, id(1))];
    expect(due(seen([drilling(1)], two), SINCE).drills).toEqual([]);
    expect(due(seen([drilling(2)], two), SINCE).drills).toEqual([{ policyId, backupId: id(2), drill }]);
    // One that is being taken, or taken by hand, is none of them.
    expect(due(seen([drilling(2)], [...two, backup(3, { taken: null })]), SINCE).drills).toEqual([]);
    expect(due(seen([drilling(2)], [...two, backup(3, { scheduled: null })]), SINCE).drills).toMatchObject([{ backupId: id(2) }]);
    const three = [1, 2, 3].map((n) => backup(n, { vmId: vm(n) }));
    expect(due(seen([drilling(2, [vm(1), vm(2), vm(3)])], three), SINCE).drills.map(({ backupId }) => backupId)).toEqual([id(1), id(2)]);
    expect(due(seen([drilling(2, [vm(1), vm(2), vm(3)])], three, [entry(vm(9), { drill: true })]), SINCE).drills.map(({ backupId }) => backupId)).toEqual([id(1)]);
  });
  it('is the drill of the newest when its time has come, once, whatever was drilled before', () => {
    const drill = { schedule: { everyHours: 24 * 7 }, timeoutSeconds: 60 };
    const drilling = (drilledAt: Readonly<Record<string, string>> = {}): PolicyEntry => {
      const one = policy([vm(1)], { drilledAt, undrilled: { [vm(1)]: 50 } });
      return { ...one, policy: { ...one.policy, drill } };
    };
    const two = [backup(1), backup(2, {}, id(1))];
    const week = SINCE + 7 * 24 * HOUR;
    expect(due(seen([drilling()], two), week - 1).drills).toEqual([]);
    expect(due(seen([drilling()], two), week).drills).toEqual([{ policyId, backupId: id(2), drill }]);
    // Nothing to drill: it waits for the first backup, not for the next week.
    expect(due(seen([drilling()]), week).drills).toEqual([]);
    // Who was away for two weeks makes up for one.
    const done = drilling({ [vm(1)]: new Date(2 * week - SINCE + HOUR).toISOString() });
    expect(due(seen([done], two), 2 * week - SINCE + 2 * HOUR).drills).toEqual([]);
    expect(due(seen([done], two), 3 * week - 2 * SINCE).drills).toMatchObject([{ backupId: id(2) }]);
  });
  it('is the removal of what nobody keeps, and of nothing while one is being taken', () => {
    const all = [backup(1), backup(2, {}, id(1)), backup(3)];
    expect(due(seen([policy([vm(1)])], all), SINCE).removals).toEqual([{ vmId: vm(1), backupId: id(2) }, { vmId: vm(1), backupId: id(1) }]);
    expect(due(seen([policy([vm(1)])], [...all, backup(4, { taken: null })]), SINCE).removals).toEqual([]);
    expect(due(seen([policy([vm(1)])], [backup(1, { scheduled: null }), backup(3)]), SINCE).removals).toEqual([]);
  });
});
