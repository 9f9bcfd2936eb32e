/*
 * One document for each operation: what `GET /v1/operations/:id` shows.
 *
 * An operation is told from two sides. The thing it is about says when it was asked for and how it ended
 * (VmRequested … VmOperationDone); the saga that carries it out, whose id is the operation's, says which
 * steps there are and how far they came. The end is taken from the thing, because that is the commit in
 * which the VM's own status changes: whoever sees the operation succeeded sees the VM running. The saga's
 * own end comes a moment later and says nothing new, except for what is owed.
 *
 * What is not in here: an accepted command that its receiver refused leaves no event, so the refusal is read
 * from the stored answers when the operation is read (operations.store.ts).
 *
 * Percent only rises. Undoing does not lower it: it says how far the work came.
 */
import { categoryOf, idOfStream } from '@chronovirt/contracts/ids';
import type { PoolEvent } from '@chronovirt/contracts/pool/pool.events';
import type { BackupEvent } from '@chronovirt/contracts/backup/backup.events';
import type { ImageImportEvent } from '@chronovirt/contracts/image/image.events';
import type { OperationEvent } from '@chronovirt/contracts/operation/operation.events';
import type { VmEvent } from '@chronovirt/contracts/vm/vm.events';
import type { VolumeEvent } from '@chronovirt/contracts/volume/volume.events';
import type { SagaEvent } from '@chronovirt/decider/saga';
import type { RecordedEvent } from '@chronovirt/event-log/log';
import type { Projection } from '@chronovirt/event-log/projection';
import { inWords } from '../problem.ts';

export type OperationStatus = 'pending' | 'running' | 'succeeded' | 'failed' | 'compensated';
export type StepStatus = 'waiting' | 'running' | 'done' | 'refused' | 'overdue' | 'not needed' | 'undone' | 'owed';

export interface OperationStep {
  readonly name: string;
  readonly after: readonly string[];
  readonly deadlineMs: number;
  readonly status: StepStatus;
  readonly startedAt: string | null;
  readonly endedAt: string | null;
}

export interface OperationDocument {
  readonly id: string;
  readonly kind: string;
  readonly vmId: string | null;
  readonly status: OperationStatus;
  readonly percent: number;
  readonly steps: readonly OperationStep[];
  readonly waitsFor: string | null;
  readonly requestedAt: string;
  readonly startedAt: string | null;
  readonly deadlineAt: string | null;
  readonly endedAt: string | null;
  /** How it was done, where there is something to say: by whom, or that nothing was to be done. */
  readonly how: string | null;
  readonly error: { readonly code: string; readonly message: string; readonly because: unknown } | null;
  /** Steps whose effect a silent node kept from being taken back. */
  readonly owed: readonly string[];
  readonly actor: string;
  readonly commandId: string;
  readonly traceparent: string | null;
  /** The batch that this one belongs to. */
  readonly parent: string | null;
  /** The members of a batch, in order. */
  readonly members: readonly { readonly operationId: string; readonly vmId: string | null }[] | null;
  readonly changedAt: string;
  readonly position: number;
}

type Known = RecordedEvent & (VmEvent | ImageImportEvent | OperationEvent | SagaEvent | Extract<VolumeEvent, { type: keyof typeof volumeOperations }> | Extract<PoolEvent, { type: (typeof poolOperations)[number] }> | Extract<BackupEvent, { type: 'BackupDeleteStarted' | 'BackupProgressed' }>);

const kindOfSaga: Readonly<Record<string, string>> = { 'saga-provision-vm': 'create', 'saga-delete-vm': 'delete', 'saga-clean-up-vm': 'clean-up', 'saga-settle-power': 'clean-up', 'saga-reconfigure-vm': 'reconfigure', 'saga-settle-reconfiguration': 'clean-up', 'saga-settle-guest': 'clean-up', 'saga-adopt-vm': 'adopt', 'saga-settle-adoption': 'clean-up', 'saga-drop-volume': 'delete-volume', 'saga-settle-volume': 'clean-up', 'saga-tidy-layers': 'clean-up', 'saga-backup-vm': 'backup', 'saga-settle-backup': 'clean-up', 'saga-drop-backup': 'delete-backup' };

const kindOfRequest = { VmPublishRequested: 'publish', VmBackupRequested: 'backup', VmSnapshotRequested: 'snapshot', VmSnapshotDeleteRequested: 'delete-snapshot', VmRevertRequested: 'revert' } as const;

/** How a volume's operations begin and end. */
const volumeOperations = { VolumeRequested: 'begins', VolumeWorkRequested: 'begins', VolumeDeleteStarted: 'begins', VolumeReady: 'ends', VolumeWorked: 'ends', VolumeFailed: 'fails', VolumeWorkFailed: 'fails' } as const;

const poolOperations = ['PoolWorkRequested', 'PoolOpened', 'PoolStopped', 'PoolDeleted', 'PoolRefreshed', 'PoolWorkFailed'] as const;

const begun = (event: RecordedEvent, id: string, kind: string, vmId: string | null): OperationDocument => ({
  id, kind, vmId, status: 'pending', percent: 0, steps: [], waitsFor: null, requestedAt: event.recordedAt, startedAt: null, deadlineAt: null, endedAt: null,
  how: null, error: null, owed: [], actor: event.meta.actor, commandId: event.meta.commandId, traceparent: event.meta.traceparent ?? null, parent: null, members: null,
  changedAt: event.recordedAt, position: event.position,
});

const hasEnded = (operation: OperationDocument): boolean => operation.endedAt !== null;

const list = (names: readonly string[]): string => (names.length <= 1 ? (names[0] ?? '') : `${names.slice(0, -1).join(', ')} and ${names[names.length - 1] ?? ''}`);

/** Steps that can be sent now are running; percent and the words follow from the steps. */
const settle = (operation: OperationDocument, event: RecordedEvent): OperationDocument => {
  const done = new Set(operation.steps.filter(({ status }) => status === 'done').map(({ name }) => name));
  const sends = operation.status === 'running' && operation.error === null;
  const steps = operation.steps.map((step): OperationStep =>
    sends && step.status === 'waiting' && step.after.every((name) => done.has(name)) ? { ...step, status: 'running', startedAt: event.recordedAt } : step);
  const share = steps.length === 0 ? 0 : Math.floor((99 * done.size) / steps.length);
  const percent = operation.status === 'succeeded' ? 100 : Math.max(operation.percent, share);
  const now = { ...operation, steps, percent, changedAt: event.recordedAt, position: event.position };
  return { ...now, waitsFor: hasEnded(now) ? null : waits(now) };
};

const waits = (operation: OperationDocument): string | null => {
  if (operation.status === 'pending') return operation.waitsFor;
  const named = (status: StepStatus): readonly string[] => operation.steps.filter((step) => step.status === status).map(({ name }) => name);
  if (operation.error !== null) {
    const left = named('done').concat(named('running'), named('overdue'));
    return left.length === 0 ? 'its end being recorded' : `taking back what was done: ${list([...left].reverse())}`;
  }
  const running = named('running');
  return running.length === 0 ? 'its end being recorded' : `the step${running.length > 1 ? 's' : ''} ${list(running)}`;
};

const markStep = (operation: OperationDocument, name: string, status: StepStatus, event: RecordedEvent): OperationDocument => ({
  ...operation,
  steps: operation.steps.map((step) => (step.name === name ? { ...step, status, startedAt: step.startedAt ?? event.recordedAt, endedAt: event.recordedAt } : step)),
});

const failing = (operation: OperationDocument, code: string, because: unknown): OperationDocument => ({
  ...operation,
  error: operation.error ?? { code, message: inWords(code, because), because },
  steps: operation.steps.map((step) => (step.status === 'waiting' ? { ...step, status: 'not needed' } : step)),
});

const ended = (operation: OperationDocument, status: OperationStatus, event: RecordedEvent): OperationDocument => ({
  ...operation, status, endedAt: operation.endedAt ?? event.recordedAt,
});

const withOwed = (operation: OperationDocument, owed: readonly string[]): OperationDocument => ({
  ...operation,
  owed,
  steps: operation.steps.map((step) => (owed.includes(step.name) ? { ...step, status: 'owed' } : step)),
});

const fold = (before: OperationDocument | undefined, recorded: RecordedEvent, key: string): OperationDocument | undefined => {
  const event = recorded as Known; // the log has checked the shape against the table of the type
  const id = idOfStream(event.stream);
  switch (event.type) {
    case 'CommandsAccepted': {
      if (before !== undefined) return before;
      const { operationId, kind, commands } = event.data;
      const isBatch = commands.length > 1 || commands[0]?.meta.operationId !== operationId;
      if (key === operationId) {
        const members = isBatch ? commands.map(({ meta }) => ({ operationId: meta.operationId ?? '', vmId: meta.vmId ?? null })) : null;
        const accepted = begun(event, key, kind, isBatch ? null : (commands[0]?.meta.vmId ?? null));
        return { ...accepted, members, commandId: isBatch ? event.meta.commandId : (commands[0]?.id ?? event.meta.commandId), waitsFor: isBatch ? 'its members' : 'its receiver to answer' };
      }
      const mine = commands.find(({ meta }) => meta.operationId === key);
      return mine === undefined ? undefined : { ...begun(event, key, 'create', mine.meta.vmId ?? null), commandId: mine.id, parent: operationId, waitsFor: 'its receiver to answer' };
    }
    case 'VmRequested':
      return settle({ ...(before ?? begun(event, key, event.data.copy !== undefined ? 'clone' : event.data.restore === undefined ? 'create' : event.data.restore.drill ? 'drill' : 'restore', id)), waitsFor: 'the saga that builds it' }, event);
    case 'VmAdoptRequested':
      return settle({ ...(before ?? begun(event, key, 'adopt', id)), waitsFor: 'the saga that adopts it' }, event);
    case 'VmReleased':
      // Of an adoption that failed it was said before; what was owed for one is settled.
      return before === undefined || hasEnded(before) ? before : settle(ended(before, 'succeeded', event), event);
    case 'VmPowerRequested':
      return settle({ ...(before ?? begun(event, key, event.data.action, id)), waitsFor: 'the saga that carries it out' }, event);
    case 'VmReconfigureRequested':
      return settle({ ...(before ?? begun(event, key, event.data.change.restore === undefined ? 'reconfigure' : 'revert-drift', id)), waitsFor: 'the saga that carries it out' }, event);
    case 'VmGuestRequested':
      return settle({ ...(before ?? begun(event, key, event.data.request.kind, id)), waitsFor: 'the saga that carries it out' }, event);
    case 'VmPublishRequested':
    case 'VmBackupRequested':
    case 'VmSnapshotRequested':
    case 'VmSnapshotDeleteRequested':
    case 'VmRevertRequested':
      return settle({ ...(before ?? begun(event, key, kindOfRequest[event.type], id)), waitsFor: 'the saga that carries it out' }, event);
    case 'VmDeleteRequested':
      return settle({ ...(before ?? begun(event, key, 'delete', id)), waitsFor: event.data.cancels === null ? 'the saga that deletes it' : `the end of operation ${event.data.cancels}, which is cancelled` }, event);
    case 'VmDeleteStarted':
      return before === undefined ? undefined : settle({ ...before, waitsFor: before.status === 'pending' ? 'the saga that deletes it' : before.waitsFor }, event);
    case 'VmCleanUpStarted':
      return settle({ ...(before ?? begun(event, key, 'clean-up', id)), waitsFor: 'the saga that cleans up' }, event);
    case 'VmDrilled': {
      if (before === undefined || hasEnded(before)) return before;
      const { refused, because, how } = event.data;
      return settle({ ...(refused === null ? before : failing(before, refused, because)), how, waitsFor: 'its machine being taken away' }, event);
    }
    case 'VmOperationDone':
    case 'VmDeleted':
      if (before === undefined || hasEnded(before)) return before;
      // A drill ends with its machine, and how it went was said before.
      if (event.type === 'VmDeleted' && before.kind === 'drill') return settle(ended(before, before.error === null ? 'succeeded' : 'compensated', event), event);
      return settle({ ...ended(before, 'succeeded', event), how: event.type === 'VmDeleted' ? null : event.data.how }, event);
    case 'VolumeRequested':
      return settle({ ...(before ?? begun(event, key, 'create-volume', null)), waitsFor: 'the saga that makes it' }, event);
    case 'VolumeWorkRequested':
      return settle({ ...(before ?? begun(event, key, `${event.data.work.kind}-volume`, null)), waitsFor: 'the saga that carries it out' }, event);
    case 'PoolWorkRequested':
      return settle({ ...(before ?? begun(event, key, `${event.data.work}-pool`, null)), waitsFor: 'the saga that carries it out' }, event);
    case 'PoolOpened':
    case 'PoolStopped':
    case 'PoolDeleted':
    case 'PoolRefreshed':
    case 'VolumeReady':
    case 'VolumeWorked':
      return before === undefined || hasEnded(before) ? before : settle(ended(before, 'succeeded', event), event);
    case 'PoolWorkFailed':
    case 'VolumeFailed':
    case 'VolumeWorkFailed':
    case 'VmOperationFailed': {
      if (before === undefined || hasEnded(before)) return before;
      const { refused, because, owed } = event.data;
      return settle(ended(withOwed(failing(before, refused, because), owed), owed.length > 0 ? 'failed' : 'compensated', event), event);
    }
    case 'VmRestoreProgressed':
    case 'BackupProgressed': {
      if (before === undefined || hasEnded(before)) return before;
      const done = before.steps.filter(({ status }) => status === 'done').length;
      // Of the step that copies: what comes after it has its own share.
      const percent = before.steps.length === 0 ? 0 : Math.floor((99 * (done + event.data.percent / 100)) / before.steps.length);
      return settle({ ...before, percent: Math.max(before.percent, percent) }, event);
    }
    case 'BackupDeleteStarted':
      return settle({ ...(before ?? begun(event, key, 'delete-backup', null)), waitsFor: 'the saga that deletes it' }, event);
    case 'VolumeDeleteStarted':
      return settle({ ...(before ?? begun(event, key, 'delete-volume', null)), waitsFor: 'the saga that deletes it' }, event);
    case 'ImageImportStarted':
      return { ...(before ?? begun(event, key, event.data.volume === undefined ? 'import-image' : 'import-volume', null)), status: 'running', startedAt: event.recordedAt, waitsFor: event.data.source.kind === 'url' ? 'its bytes' : 'its check', changedAt: event.recordedAt, position: event.position };
    case 'ImageImportProgressed':
      return before === undefined ? undefined : { ...before, percent: Math.max(before.percent, event.data.percent), changedAt: event.recordedAt, position: event.position };
    case 'ImageImported':
      return before === undefined ? undefined : settle(ended(before, 'succeeded', event), event);
    case 'ImageImportFailed':
      return before === undefined ? undefined : settle(ended(failing(before, event.data.refused, event.data.because), 'compensated', event), event);
    case 'SagaStarted': {
      const vmId = event.data.input['vmId'];
      const { action = (event.data.input['request'] as { readonly kind?: unknown } | undefined)?.kind } = event.data.input;
      const kind = kindOfSaga[categoryOf(event.stream)] ?? (typeof action === 'string' ? action : event.data.saga);
      const operation = before ?? begun(event, key, kind, typeof vmId === 'string' ? vmId : null);
      const steps = event.data.steps.map((step): OperationStep => ({ ...step, status: 'waiting', startedAt: null, endedAt: null }));
      return settle({
        ...operation, steps, status: hasEnded(operation) ? operation.status : 'running', startedAt: event.recordedAt,
        deadlineAt: new Date(event.data.at + event.data.deadlineMs).toISOString(),
      }, event);
    }
    case 'StepAnswered':
      return before === undefined ? undefined : settle(markStep(before, event.data.step, 'done', event), event);
    case 'StepRefused':
      return before === undefined ? undefined : settle(failing(markStep(before, event.data.step, 'refused', event), event.data.refused, { ...event.data.because, step: event.data.step }), event);
    case 'StepOverdue':
      return before === undefined ? undefined : settle(failing(markStep(before, event.data.step, 'overdue', event), 'saga.step_overdue', { step: event.data.step }), event);
    case 'SagaCancelled':
      return before === undefined ? undefined : settle(failing(before, 'saga.cancelled', { because: event.data.because }), event);
    case 'UndoAnswered':
      return before === undefined ? undefined : settle(markStep(before, event.data.step, 'undone', event), event);
    case 'UndoOverdue':
      return before === undefined ? undefined : settle(markStep(before, event.data.step, 'owed', event), event);
    case 'SagaEnded': {
      if (before === undefined) return undefined;
      const { outcome, owed, why } = event.data;
      // What comes after it is part of the operation: the VM says when that is over.
      if ((outcome === 'succeeded' && categoryOf(event.stream) === 'saga-snapshot-vm') || before.kind === 'drill') return settle(before, event);
      const told = outcome === 'succeeded' ? before : failing(before, why?.refused ?? 'saga.failed', why?.because ?? {});
      return settle(ended(withOwed(told, owed), outcome, event), event);
    }
    case 'VmChanged':
    case 'VmExpiryNoticed':
    case 'VmExpired':
    case 'VmRecycled':
    case 'VmPlaced':
    case 'VmProvisioned':
    case 'VmReconfigured':
    case 'VmSnapshotTaken':
    case 'VmSnapshotDeleted':
    case 'VmReverted':
    case 'VmLayersTidied':
    case 'VmObserved':
    case 'VmBootJobEnded':
    case 'VmScreenPasswordSet':
      return before;
  }
};

/** What an operation brought about: its end is another event. */
const isFact = (type: string): boolean => ['VmPlaced', 'VmProvisioned', 'VmReconfigured', 'VmSnapshotTaken', 'VmSnapshotDeleted', 'VmReverted', 'VmLayersTidied'].includes(type);

const keys = (recorded: RecordedEvent): readonly string[] => {
  const event = recorded as Known;
  const category = categoryOf(event.stream);
  if (category.startsWith('saga-')) return [idOfStream(event.stream)];
  if (category === 'vm') return 'operationId' in event.data && !isFact(event.type) ? [event.data.operationId as string] : [];
  if (event.type === 'BackupDeleteStarted' || event.type === 'BackupProgressed') return [event.data.operationId];
  if (event.type in volumeOperations || (poolOperations as readonly string[]).includes(event.type)) return 'operationId' in event.data ? [event.data.operationId as string] : [];
  if (category === 'image-import') return [(event as ImageImportEvent).data.operationId];
  if (event.type !== 'CommandsAccepted') return [];
  return [...new Set([event.data.operationId, ...event.data.commands.flatMap(({ meta }) => (meta.operationId === undefined ? [] : [meta.operationId]))])];
};

export const operationView: Projection<OperationDocument> = { name: 'gateway.operation', version: 3, keys, fold };
