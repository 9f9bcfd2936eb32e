/* What `GET /v1/boot-jobs` and `GET /v1/boot-runs` show. Scripts and values are not repeated with each run: the log has them. */
import type { BootJobEvent } from '@chronovirt/contracts/boot-job/boot-job.events';
import type { BootJobWish, BootRun } from '@chronovirt/contracts/boot-job/boot-job';
import { categoryOf, idOfStream } from '@chronovirt/contracts/ids';
import type { VmEvent } from '@chronovirt/contracts/vm/vm.events';
import type { RecordedEvent } from '@chronovirt/event-log/log';
import type { Projection } from '@chronovirt/event-log/projection';

export interface BootJobDocument extends BootJobWish {
  readonly id: string;
  readonly revision: number;
  /** It came with the platform. */
  readonly builtIn: boolean;
  /** The platform uses it itself; not listed unless asked for. */
  readonly system: boolean;
  readonly createdAt: string | null;
  readonly changedAt: string | null;
  readonly position: number;
  /** Of the job's stream: its ETag. */
  readonly version: number;
}

export const bootJobView: Projection<BootJobDocument> = {
  name: 'gateway.boot_job',
  version: 1,
  keys: (event) => (categoryOf(event.stream) === 'boot-job' ? [idOfStream(event.stream)] : []),
  fold: (before, recorded, key) => {
    const event = recorded as RecordedEvent & BootJobEvent;
    switch (event.type) {
      case 'BootJobDefined': {
        const { jobId: _, ...wish } = event.data;
        return { id: key, ...wish, builtIn: false, system: false, createdAt: before?.createdAt ?? event.recordedAt, changedAt: event.recordedAt, position: event.position, version: event.version };
      }
      case 'BootJobDeleted':
        return undefined;
    }
  },
};

export interface BootRunDocument {
  readonly id: string;
  readonly vmId: string;
  readonly job: { readonly id: string; readonly name: string; readonly revision: number; readonly system: boolean };
  /** interrupted: the guest went down in its middle, and does not begin it again. */
  readonly status: 'pending' | 'succeeded' | 'failed' | 'interrupted';
  readonly exitCode: number | null;
  /** The end of what it printed, without secrets. */
  readonly output: string | null;
  readonly requestedBy: string;
  readonly requestedAt: string;
  readonly endedAt: string | null;
  readonly position: number;
}

type Concerning = Extract<VmEvent, { type: 'VmRequested' | 'VmReconfigured' | 'VmBootJobEnded' }>;
const concerning = ({ stream, type, data }: RecordedEvent): Concerning | undefined =>
  (categoryOf(stream) === 'vm' && ['VmRequested', 'VmReconfigured', 'VmBootJobEnded'].includes(type) ? ({ type, data } as unknown as Concerning) : undefined);

const addedBy = (event: Concerning): readonly BootRun[] => {
  switch (event.type) {
    case 'VmRequested': return event.data.bootRuns ?? [];
    case 'VmReconfigured': return event.data.change.addBootRun === undefined ? [] : [event.data.change.addBootRun];
    case 'VmBootJobEnded': return [];
  }
};

export const bootRunView: Projection<BootRunDocument> = {
  name: 'gateway.boot_run',
  version: 1,
  keys: (recorded) => {
    const event = concerning(recorded);
    if (event === undefined) return [];
    if (event.type === 'VmBootJobEnded') return [event.data.runId];
    const removed = event.type === 'VmReconfigured' && event.data.change.removeBootRun !== undefined ? [event.data.change.removeBootRun] : [];
    return [...addedBy(event).map(({ runId }) => runId), ...removed];
  },
  fold: (document, recorded, key) => {
    const event = concerning(recorded);
    if (event === undefined) return document;
    if (event.type === 'VmBootJobEnded') {
      const { exitCode, output } = event.data;
      return document === undefined ? undefined : { ...document, status: exitCode === null ? 'interrupted' : exitCode === 0 ? 'succeeded' : 'failed', exitCode, output, endedAt: recorded.recordedAt, position: recorded.position };
    }
    const run = addedBy(event).find(({ runId }) => runId === key);
    if (run === undefined) return undefined;
    const { jobId, name, revision, system } = run;
    return { id: key, vmId: idOfStream(recorded.stream), job: { id: jobId, name, revision, system }, status: 'pending', exitCode: null, output: null, requestedBy: recorded.meta.actor, requestedAt: recorded.recordedAt, endedAt: null, position: recorded.position };
  },
};
