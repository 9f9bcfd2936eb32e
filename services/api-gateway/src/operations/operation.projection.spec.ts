import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { filmOf, folded, type Said } from '../testing-events.os.ts';
import { aggregated } from './batch.ts';
import { acceptedCommand } from './accepted-command.projection.ts';
import { operationView, type OperationDocument } from './operation.projection.ts';

const op = (number: number) => `op_${String(number).repeat(32)}`;
const vmId = `vm_${'1'.repeat(32)}`;
const vm = (type: string, data: object): Said => ({ stream: `vm-${vmId}`, type, data });
const saga = (type: string, data: object, id = op(1), name = 'saga-provision-vm'): Said => ({ stream: `${name}-${id}`, type, data });

const requested = vm('VmRequested', { operationId: op(1), vmId });
const plan = [
  { name: 'placement', after: [], deadlineMs: 5_000 }, { name: 'address', after: ['placement'], deadlineMs: 5_000 },
  { name: 'volume', after: ['placement'], deadlineMs: 60_000 }, { name: 'domain', after: ['address', 'volume'], deadlineMs: 30_000 },
];
const started = saga('SagaStarted', { saga: 'provision-vm', input: { vmId }, steps: plan, deadlineMs: 95_000, at: Date.parse('2026-01-31T12:00:02Z') });
const answered = (step: string): Said => saga('StepAnswered', { step, facts: {}, at: 0 });
const after = (...said: readonly Said[]): OperationDocument | undefined => folded(operationView, ...said).get(op(1));
const stepsOf = (operation: OperationDocument | undefined) => Object.fromEntries((operation?.steps ?? []).map(({ name, status }) => [name, status]));

describe('an operation', () => {
  it('shows its steps, what it waits for and when it must be over', () => {
    const shown = after(requested, started, answered('placement'));
    expect(shown).toMatchObject({ kind: 'create', vmId, status: 'running', requestedAt: '2026-01-31T12:00:01.000000Z', startedAt: '2026-01-31T12:00:02.000000Z', deadlineAt: '2026-01-31T12:01:37.000Z', waitsFor: 'the steps address and volume', percent: 24 });
    expect(stepsOf(shown)).toEqual({ placement: 'done', address: 'running', volume: 'running', domain: 'waiting' });
  });

  it('succeeds in the commit in which the VM does', () => {
    const shown = after(requested, started, ...plan.map(({ name }) => answered(name)), vm('VmOperationDone', { operationId: op(1), how: 'built' }));
    expect(shown).toMatchObject({ status: 'succeeded', percent: 100, waitsFor: null, endedAt: '2026-01-31T12:00:07.000000Z', error: null });
    expect(after(requested, vm('VmOperationDone', { operationId: op(1), how: 'already' }))).toMatchObject({ status: 'succeeded', percent: 100 });
  });

  it('says what failed, what is taken back, and ends compensated', () => {
    const undoing = [requested, started, answered('placement'), answered('address'), saga('StepRefused', { step: 'volume', refused: 'pool.no_space', because: { free: 1 }, at: 0 })];
    expect(after(...undoing)).toMatchObject({ status: 'running', error: { code: 'pool.no_space', because: { free: 1, step: 'volume' } }, waitsFor: 'taking back what was done: address and placement' });
    const ended = after(...undoing, saga('UndoAnswered', { step: 'address', at: 0 }), saga('UndoAnswered', { step: 'placement', at: 0 }), vm('VmOperationFailed', { operationId: op(1), refused: 'pool.no_space', because: {}, owed: [] }));
    expect(ended).toMatchObject({ status: 'compensated', owed: [], percent: 49 });
    expect(stepsOf(ended)).toEqual({ placement: 'undone', address: 'undone', volume: 'refused', domain: 'not needed' });
  });

  it('lists what a silent node kept from being taken back', () => {
    const ended = after(requested, started, answered('placement'), saga('StepOverdue', { step: 'volume', at: 0 }), saga('UndoOverdue', { step: 'volume', at: 0 }),
      vm('VmOperationFailed', { operationId: op(1), refused: 'saga.step_overdue', because: { step: 'volume' }, owed: ['volume', 'placement'] }), saga('SagaEnded', { outcome: 'failed', owed: ['volume', 'placement'], why: { refused: 'saga.step_overdue' }, at: 0 }));
    expect(ended).toMatchObject({ status: 'failed', owed: ['volume', 'placement'], error: { code: 'saga.step_overdue', message: 'The step volume was not answered in time.' } });
    expect(stepsOf(ended)).toMatchObject({ placement: 'owed', volume: 'owed' });
  });

  it('that deletes waits for the one it cancels', () => {
    const asked = vm('VmDeleteRequested', { operationId: op(2), force: false, cancels: op(1) });
    expect(folded(operationView, requested, asked).get(op(2))).toMatchObject({ kind: 'delete', status: 'pending', waitsFor: `the end of operation ${op(1)}, which is cancelled` });
    expect(folded(operationView, requested, asked, vm('VmDeleteStarted', { operationId: op(2) }), saga('SagaStarted', { saga: 'delete-vm', input: { vmId }, steps: [], deadlineMs: 1, at: 0 }, op(2), 'saga-delete-vm'), vm('VmDeleted', { operationId: op(2) })).get(op(2))).toMatchObject({ kind: 'delete', status: 'succeeded' });
  });

  it('of a drill ends with its machine, as the drill has ended', () => {
    const asked = vm('VmRequested', { operationId: op(1), vmId, restore: { drill: true } });
    const building = saga('SagaEnded', { outcome: 'compensated', owed: [], why: { refused: 'backup.damaged' }, at: 0 }, op(1), 'saga-provision-vm');
    const removing = [saga('SagaStarted', { saga: 'delete-vm', input: { vmId }, steps: [], deadlineMs: 1, at: 0 }, op(1), 'saga-delete-vm'), vm('VmDeleted', { operationId: op(1) }), saga('SagaEnded', { outcome: 'succeeded', owed: [], why: null, at: 0 }, op(1), 'saga-delete-vm')] as const;
    const damaged = vm('VmDrilled', { operationId: op(1), passed: false, verdict: true, how: 'backup.damaged', refused: 'backup.damaged', because: {} });
    expect(after(asked, started, damaged, building)).toMatchObject({ kind: 'drill', status: 'running', endedAt: null });
    expect(after(asked, started, damaged, building, ...removing)).toMatchObject({ status: 'compensated', error: { code: 'backup.damaged' } });
    const passed = vm('VmDrilled', { operationId: op(1), passed: true, verdict: true, how: 'its guest agent answers', refused: null, because: {} });
    expect(after(asked, started, passed, ...removing)).toMatchObject({ status: 'succeeded', how: 'its guest agent answers', error: null });
  });

  it('of a backup rises with what is copied, within the step that copies, and never falls', () => {
    const asked = vm('VmBackupRequested', { operationId: op(1), backupId: 'backup_1' });
    const begun = saga('SagaStarted', { saga: 'backup-vm', input: { vmId }, steps: [{ name: 'begin', after: [], deadlineMs: 1 }, { name: 'node', after: ['begin'], deadlineMs: 1 }, { name: 'record', after: ['node'], deadlineMs: 1 }], deadlineMs: 1, at: 0 }, op(1), 'saga-backup-vm');
    const progressed = (percent: number): Said => ({ stream: `archive-${vmId}`, type: 'BackupProgressed', data: { vmId, backupId: 'backup_1', operationId: op(1), percent } });
    const percents = [[], [progressed(50)], [progressed(50), progressed(20)], [progressed(50), progressed(90)]].map((said) => after(asked, begun, answered('begin'), ...said)?.percent);
    expect(percents).toEqual([33, 49, 49, 62]);
    const made = vm('VmRequested', { vmId, operationId: op(1), restore: { drill: false } });
    const restored = [[], [vm('VmRestoreProgressed', { operationId: op(1), percent: 50 })]].map((said) => after(made, begun, answered('begin'), ...said)?.percent);
    expect(restored).toEqual([33, 49]);
  });

  it('says how it was done, where there is something to say', () => {
    const asked = vm('VmGuestRequested', { operationId: op(1), request: { kind: 'password', user: 'root', sealed: 'AQ' } });
    expect(after(asked)).toMatchObject({ kind: 'password', status: 'pending', how: null });
    expect(after(asked, vm('VmOperationDone', { operationId: op(1), how: 'guest-agent' }))).toMatchObject({ status: 'succeeded', how: 'guest-agent' });
    expect(folded(operationView, saga('SagaStarted', { saga: 'guest-vm', input: { vmId, request: { kind: 'add-ssh-keys' } }, steps: [], deadlineMs: 1, at: 0 }, op(1), 'saga-guest-vm')).get(op(1))).toMatchObject({ kind: 'add-ssh-keys', vmId });
  });

  it('has the kind of its action, whichever side tells of it first', () => {
    expect(folded(operationView, vm('VmPowerRequested', { operationId: op(1), action: 'reboot', timeoutSeconds: 0, force: false })).get(op(1))?.kind).toBe('reboot');
    expect(folded(operationView, saga('SagaStarted', { saga: 'power-vm', input: { vmId, action: 'pause' }, steps: [], deadlineMs: 1, at: 0 }, op(1), 'saga-power-vm')).get(op(1))).toMatchObject({ kind: 'pause', vmId });
  });

  it('only goes forward, whatever comes in whatever order', () => {
    const anything = fc.constantFrom<Said>(
      requested, started, ...plan.map(({ name }) => answered(name)), ...plan.map(({ name }) => saga('UndoAnswered', { step: name, at: 0 })), saga('StepRefused', { step: 'domain', refused: 'x.y', because: {}, at: 0 }),
      saga('StepOverdue', { step: 'volume', at: 0 }), saga('SagaCancelled', { because: 'x', at: 0 }), vm('VmOperationDone', { operationId: op(1), how: 'x' }), vm('VmOperationFailed', { operationId: op(1), refused: 'x.y', because: {}, owed: ['domain'] }),
    );
    fc.assert(fc.property(fc.array(anything, { maxLength: 25 }), (said) => {
      const film = filmOf(operationView, op(1), ...said);
      film.forEach((now, index) => {
        const before = film[index - 1];
        expect(now?.percent ?? 0).toBeGreaterThanOrEqual(before?.percent ?? 0);
        expect((now?.percent ?? 0) === 100).toBe(now?.status === 'succeeded');
        if (before !== undefined && before.endedAt !== null) expect([now?.status, now?.endedAt, now?.waitsFor]).toEqual([before.status, before.endedAt, null]);
      });
    }), { numRuns: 300 });
  });
});

describe('a batch', () => {
  const member = (number: number) => ({ id: `00000000-0000-8000-8000-00000000000${String(number)}`, to: 'scheduler', target: vmId, type: 'CreateVm', data: {}, cancels: [], meta: { actor: 'token_1', operationId: op(number), vmId } });
  const accepted: Said = { stream: `operation-${op(9)}`, type: 'CommandsAccepted', data: { operationId: op(9), kind: 'create-vms', commands: [member(1), member(2), member(3)] } };

  it('shows its members from the start, each under it', () => {
    const documents = folded(operationView, accepted);
    expect(documents.get(op(9))).toMatchObject({ kind: 'create-vms', members: [{ operationId: op(1) }, { operationId: op(2) }, { operationId: op(3) }] });
    expect(documents.get(op(2))).toMatchObject({ kind: 'create', parent: op(9), status: 'pending', commandId: member(2).id, vmId });
    expect([...folded(acceptedCommand, accepted).keys()]).toEqual([member(1).id, member(2).id, member(3).id]);
  });

  it('ends when all have ended; one that failed does not stop the others', () => {
    const documents = folded(operationView, accepted);
    const [parent, one] = [documents.get(op(9)) as OperationDocument, documents.get(op(1)) as OperationDocument];
    const at = (status: OperationDocument['status'], percent: number): OperationDocument => ({ ...one, status, percent, endedAt: status === 'running' ? null : '2026-01-31T12:00:00Z', error: status === 'failed' ? { code: 'x', message: 'x', because: {} } : null });
    expect(aggregated(parent, [undefined, one, one])).toMatchObject({ status: 'pending', percent: 0, counts: { pending: 3 }, waitsFor: '3 of 3 members' });
    expect(aggregated(parent, [at('failed', 30), at('running', 50), undefined])).toMatchObject({ status: 'running', percent: 50, endedAt: null, error: { code: 'x' } });
    expect(aggregated(parent, [at('failed', 30), at('succeeded', 100), at('succeeded', 100)])).toMatchObject({ status: 'failed', percent: 100, counts: { failed: 1, succeeded: 2 }, endedAt: '2026-01-31T12:00:00Z' });
    expect(aggregated(parent, [at('compensated', 30), at('compensated', 0)])).toMatchObject({ status: 'compensated' });
    expect(aggregated(parent, [at('succeeded', 100)])).toMatchObject({ status: 'succeeded', waitsFor: null });
  });

  it('of one, which nobody answered, is that operation itself', () => {
    const alone: Said = { stream: `operation-${op(1)}`, type: 'CommandsAccepted', data: { operationId: op(1), kind: 'stop', commands: [member(1)] } };
    expect(after(alone)).toMatchObject({ kind: 'stop', members: null, parent: null, commandId: member(1).id, vmId, status: 'pending' });
    expect(after(alone, requested, started)).toMatchObject({ status: 'running' });
  });
});
