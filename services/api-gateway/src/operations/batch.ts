/* A batch is what its members are: it has ended when all of them have, and failed members do not make the others fail. */
import type { OperationDocument, OperationStatus } from './operation.projection.ts';

export interface BatchCounts {
  readonly pending: number;
  readonly running: number;
  readonly succeeded: number;
  readonly failed: number;
  readonly compensated: number;
}

/** The parent as it is shown; members that no projection knows yet are pending. */
export const aggregated = (parent: OperationDocument, members: readonly (OperationDocument | undefined)[]): OperationDocument & { readonly counts: BatchCounts } => {
  const counts = { pending: 0, running: 0, succeeded: 0, failed: 0, compensated: 0 };
  for (const member of members) counts[member?.status ?? 'pending'] += 1;
  const ended = counts.pending + counts.running === 0;
  const endedAt = ended ? members.reduce((latest, member) => ((member?.endedAt ?? '') > latest ? (member?.endedAt ?? '') : latest), '') : null;
  const deadlines = members.map((member) => member?.deadlineAt ?? '').filter((at) => at !== '').sort();
  const starts = members.map((member) => member?.startedAt ?? '').filter((at) => at !== '').sort();
  const firstFailure = members.find((member) => member !== undefined && member.error !== null)?.error ?? null;
  const status: OperationStatus = !ended
    ? (counts.pending === members.length ? 'pending' : 'running')
    : counts.succeeded === members.length ? 'succeeded' : counts.failed === 0 && counts.succeeded === 0 ? 'compensated' : 'failed';
  // An ended member has gone as far as it will, whichever way it ended, so the whole only rises.
  const percent = members.length === 0 ? 0 : Math.floor(members.reduce((sum, member) => sum + (member === undefined ? 0 : member.endedAt !== null ? 100 : member.percent), 0) / members.length);
  return {
    ...parent,
    status,
    percent: ended ? 100 : Math.min(99, percent),
    startedAt: starts[0] ?? null,
    deadlineAt: deadlines[deadlines.length - 1] ?? null,
    endedAt: endedAt === '' ? null : endedAt,
    error: firstFailure,
    owed: [...new Set(members.flatMap((member) => member?.owed ?? []))],
    waitsFor: ended ? null : `${String(counts.pending + counts.running)} of ${String(members.length)} members`,
    counts,
  };
};
