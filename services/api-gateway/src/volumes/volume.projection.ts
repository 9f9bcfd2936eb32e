/* One document for each volume that is not deleted: what `GET /v1/volumes/:id` shows. */
import { categoryOf, idOfStream } from '@chronovirt/contracts/ids';
import type { VolumeEvent } from '@chronovirt/contracts/volume/volume.events';
import type { RecordedEvent } from '@chronovirt/event-log/log';
import type { Projection } from '@chronovirt/event-log/projection';

export interface VolumeDocument {
  readonly id: string;
  /** null: the disk that its VM was made with. */
  readonly name: string | null;
  readonly system: boolean;
  /** `deleting`: its bytes are being taken away. */
  readonly status: 'attached' | 'detached' | 'deleting';
  readonly vmId: string | null;
  readonly poolId: string;
  readonly nodeId: string;
  readonly imageId: string | null;
  readonly sizeGib: number;
  readonly operationId: string | null;
  /** It is deleted then, unless a VM has it. ISO 8601. */
  readonly deleteAt: string | null;
  readonly createdAt: string;
  readonly changedAt: string;
  readonly position: number;
  readonly version: number;
}

export const volumeView: Projection<VolumeDocument> = {
  name: 'gateway.volume',
  version: 2,
  keys: (event) => (categoryOf(event.stream) === 'volume' ? [idOfStream(event.stream)] : []),
  fold: (before, recorded) => {
    const event = recorded as RecordedEvent & VolumeEvent;
    const now = { changedAt: event.recordedAt, position: event.position, version: event.version };
    if (event.type === 'VolumeCreated') {
      const { volumeId, vmId, poolId, nodeId, imageId, sizeGib, name } = event.data;
      return { id: volumeId, name: name ?? null, system: name === undefined, status: 'attached', vmId, poolId, nodeId, imageId, sizeGib, operationId: null, deleteAt: null, createdAt: event.recordedAt, ...now };
    }
    if (before === undefined) return undefined;
    switch (event.type) {
      case 'VolumeResized':
        return { ...before, sizeGib: event.data.sizeGib, ...now };
      case 'VolumeAttached':
        return { ...before, status: 'attached', vmId: event.data.vmId, deleteAt: null, ...now };
      case 'VolumeDetached':
        return { ...before, status: 'detached', vmId: null, ...(event.data.kept === undefined ? {} : { name: event.data.kept.name, system: false, deleteAt: event.data.kept.deleteAt }), ...now };
      case 'VolumeDeleteStarted':
        return { ...before, status: 'deleting', operationId: event.data.operationId, ...now };
      case 'VolumeDeleteAbandoned':
        return { ...before, status: 'detached', operationId: null, ...now };
      case 'VolumeDeleted':
        return undefined;
    }
  },
};
