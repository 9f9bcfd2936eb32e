/* One document for each volume that is not deleted: what `GET /v1/volumes/:id` shows. */
import { categoryOf, idOfStream } from '@chronovirt/contracts/ids';
import type { VolumeEvent } from '@chronovirt/contracts/volume/volume.events';
import type { RecordedEvent } from '@chronovirt/event-log/log';
import type { Projection } from '@chronovirt/event-log/projection';
import { inWords } from '../problem.ts';

export interface VolumeDocument {
  readonly id: string;
  /** null: the disk that its VM was made with. */
  readonly name: string | null;
  readonly system: boolean;
  /** `creating`: its bytes are being made; `dirty`: work on it was broken off, and its node has yet to see to it; `deleting`: its bytes are being taken away. */
  readonly status: 'creating' | 'attached' | 'detached' | 'failed' | 'dirty' | 'deleting';
  readonly vmId: string | null;
  readonly poolId: string;
  readonly nodeId: string;
  readonly imageId: string | null;
  readonly sizeGib: number;
  readonly format: 'qcow2' | 'raw';
  /** The operation that has it in hand. */
  readonly operationId: string | null;
  /** It is deleted then, unless a VM has it. ISO 8601. */
  readonly deleteAt: string | null;
  /** Why it is failed or dirty. */
  readonly failure: { readonly code: string; readonly message: string; readonly owed: readonly string[] } | null;
  readonly createdAt: string;
  readonly changedAt: string;
  readonly position: number;
  readonly version: number;
}

const failureOf = ({ refused, because, owed }: Extract<VolumeEvent, { type: 'VolumeFailed' }>['data']): VolumeDocument['failure'] => ({ code: refused, message: inWords(refused, because), owed });

export const volumeView: Projection<VolumeDocument> = {
  name: 'gateway.volume',
  version: 3,
  keys: (event) => (categoryOf(event.stream) === 'volume' ? [idOfStream(event.stream)] : []),
  fold: (before, recorded) => {
    const event = recorded as RecordedEvent & VolumeEvent;
    const now = { changedAt: event.recordedAt, position: event.position, version: event.version };
    if (event.type === 'VolumeCreated') {
      const { volumeId, vmId, poolId, nodeId, imageId, sizeGib, name } = event.data;
      return { id: volumeId, name: name ?? null, system: name === undefined, status: 'attached', vmId, poolId, nodeId, imageId, sizeGib, format: 'qcow2', operationId: null, deleteAt: null, failure: null, createdAt: event.recordedAt, ...now };
    }
    if (event.type === 'VolumeRequested') {
      const { volumeId, name, poolId, nodeId, sizeGib, format, source, operationId } = event.data;
      return { id: volumeId, name, system: false, status: 'creating', vmId: null, poolId, nodeId, imageId: source.kind === 'image' ? source.imageId : null, sizeGib, format, operationId, deleteAt: null, failure: null, createdAt: event.recordedAt, ...now };
    }
    if (before === undefined) return undefined;
    switch (event.type) {
      case 'VolumeReady':
        return { ...before, status: 'detached', operationId: null, ...now };
      case 'VolumeFailed':
        return { ...before, status: 'failed', operationId: null, failure: failureOf(event.data), ...now };
      case 'VolumeHeld':
      case 'VolumeWorkRequested':
        return { ...before, operationId: event.data.operationId, ...now };
      case 'VolumeLetGo':
        return { ...before, operationId: null, ...now };
      case 'VolumeWorked':
        return { ...before, format: event.data.format, operationId: null, ...now };
      case 'VolumeWorkFailed':
        return { ...before, operationId: null, ...(event.data.owed.length === 0 ? {} : { status: 'dirty', failure: failureOf(event.data) }), ...now };
      case 'VolumeSettled':
        return before.status === 'dirty' ? { ...before, status: 'detached', failure: null, ...now } : { ...before, failure: before.failure === null ? null : { ...before.failure, owed: [] }, ...now };
      case 'VolumeSettleFailed':
        return { ...before, ...now };
      case 'VolumeResized':
        return { ...before, sizeGib: event.data.sizeGib, ...now };
      case 'VolumeAttached':
        return { ...before, status: 'attached', vmId: event.data.vmId, deleteAt: null, ...now };
      case 'VolumeDetached':
        return { ...before, status: 'detached', vmId: null, ...(event.data.kept === undefined ? {} : { name: event.data.kept.name, system: false, deleteAt: event.data.kept.deleteAt }), ...now };
      case 'VolumeDeleteStarted':
        return { ...before, status: 'deleting', operationId: event.data.operationId, ...now };
      case 'VolumeDeleteAbandoned':
        return { ...before, status: 'failed', operationId: null, ...now };
      case 'VolumeDeleted':
        return undefined;
    }
  },
};
