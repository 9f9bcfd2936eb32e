import { describe, expect, it } from 'vitest';
import type { RecordedEvent } from '@chronovirt/event-log/log';
import { backupPolicyView, shownPolicy, type BackupPolicyDocument } from './backup-policy.projection.ts';

const hex = (n: number): string => n.toString(16).padStart(32, '0');
const vmId = `vm_${hex(1)}`;
const policyId = `policy_${hex(2)}`;
const backupId = `backup_${hex(3)}`;
const MADE = '2026-03-01T00:00:00.000Z';

const event = (stream: string, type: string, data: object, recordedAt = MADE): RecordedEvent => ({ stream, type, data, recordedAt, position: 1, version: 7 }) as unknown as RecordedEvent;
const set = (): RecordedEvent =>
  event(`backup-policy-${policyId}`, 'BackupPolicySet', { policyId, name: 'nightly', vms: [vmId], schedule: { dailyAt: '03:00' }, keep: { last: 1, daily: 0, weekly: 0 }, fullEvery: 7, drill: { schedule: { dailyAt: '05:00' }, timeoutSeconds: 60 } });
const asked = (n: number, since: string, of: string | null = policyId): RecordedEvent =>
  event(`vm-vm_${hex(9)}`, 'VmRequested', { operationId: `op_${hex(n)}`, restore: { ofVm: vmId, backupId, proof: { since, ...(of === null ? {} : { policyId: of }) } } });
const said = (n: number, passed: boolean): RecordedEvent => event(`archive-${vmId}`, 'BackupDrilled', { vmId, backupId, operationId: `op_${hex(n)}`, passed, how: 'as it was', policyId });
const at = (events: readonly RecordedEvent[], now: string): object | undefined => {
  const found = events.filter((one) => backupPolicyView.keys(one).includes(policyId)).reduce<BackupPolicyDocument | undefined>((before, one) => backupPolicyView.fold(before, one, policyId), undefined);
  return found === undefined ? undefined : shownPolicy(found, new Date(now)).drills[0];
};

describe('Drills of a policy', () => {
  it('are due from their time until there is a result, and show the last', () => {
    expect(at([set()], '2026-03-01T04:59:00Z')).toEqual({ vmId, dueSince: null, last: null });
    expect(at([set()], '2026-03-01T06:00:00Z')).toEqual({ vmId, dueSince: '2026-03-01T05:00:00.000Z', last: null });
    const begun = [set(), asked(1, '2026-03-01T05:00:10.000Z')];
    expect(at(begun, '2026-03-01T06:00:00Z')).toMatchObject({ dueSince: '2026-03-01T05:00:00.000Z', last: { backupId, operationId: `op_${hex(1)}`, ok: null } });
    expect(at([...begun, said(1, false)], '2026-03-01T06:00:00Z')).toMatchObject({ dueSince: null, last: { ok: false, because: 'as it was' } });
    expect(at([...begun, said(1, false)], '2026-03-02T05:00:00Z')).toMatchObject({ dueSince: '2026-03-02T05:00:00.000Z' });
    // One that came to nothing is due on, whatever was known before.
    expect(at([...begun, said(1, true), asked(2, '2026-03-02T05:00:05.000Z')], '2026-03-02T07:00:00Z')).toMatchObject({ dueSince: '2026-03-02T05:00:00.000Z', last: { operationId: `op_${hex(2)}`, ok: null } });
  });
  it('that somebody had by hand are not its own, and one without drills shows none', () => {
    expect(at([set(), asked(1, '2026-03-01T05:00:10.000Z', null)], '2026-03-01T06:00:00Z')).toMatchObject({ last: null });
    expect(at([event(`backup-policy-${policyId}`, 'BackupPolicySet', { ...set().data, drill: undefined })], '2026-03-01T06:00:00Z')).toBeUndefined();
  });
});
