/*
 * A disk's record: that it exists, how large, where, as what, and who has it. Its bytes are a node's matter.
 *
 *     CreateVolume ──────────────▶ attached ⇄ detached ─▶ deleting ─▶ deleted
 *     RequestVolume ─▶ creating ─────────────────▲  │          ▲
 *                          └─▶ failed ───────────│──│──────────┘
 *                                        working ┘◀─┘ ─▶ dirty ─▶ detached
 *
 * A volume belongs to one VM at a time. The one a VM was made with is attached to it all its life. What is done
 * to one that no VM has is an operation that has it in hand (it is made, copied, worked on), one at a time. An
 * operation that a silent node kept from being taken back leaves it owing: nobody gets it until that is settled.
 */
import { type Decider, refuse, type Refusal } from '@chronovirt/decider/decider';
import type { NodeId, OperationId, PoolId, VmId } from '@chronovirt/contracts/ids';
import type { VolumeCommand } from '@chronovirt/contracts/volume/volume.commands';
import type { VolumeEvent, VolumeFormat, VolumeWork } from '@chronovirt/contracts/volume/volume.events';

export interface LiveVolume {
  readonly status: 'creating' | 'live' | 'failed' | 'deleting';
  /** null: the disk that a VM was made with. */
  readonly name: string | null;
  /** null: no VM has it. */
  readonly vmId: VmId | null;
  readonly poolId: PoolId;
  readonly nodeId: NodeId;
  readonly sizeGib: number;
  readonly format: VolumeFormat;
  readonly operation: { readonly id: OperationId; readonly kind: 'create' | 'copy' | VolumeWork['kind']; readonly format: VolumeFormat } | null;
  /** The operation that left something owed. */
  readonly owing: OperationId | null;
  /** The file that it is to be made of, until it is. */
  readonly found: string | null;
}

export type Volume = { readonly status: 'absent' } | { readonly status: 'deleted'; readonly name: string | null } | LiveVolume;

/** What a decider cannot know: which nodes see the volume's pool, and for a request what was resolved. */
type OfVolume =
  | Exclude<VolumeCommand, { type: 'DetachVolumes' | 'CreateVolumes' | 'DeleteVolumes' | 'RequestVolume' | 'AttachVolume' }>
  | { readonly type: 'AttachVolume'; readonly data: Extract<VolumeCommand, { type: 'AttachVolume' }>['data'] & { readonly seenBy: readonly NodeId[] } }
  | { readonly type: 'RequestVolume'; readonly data: Extract<VolumeEvent, { type: 'VolumeRequested' }>['data'] };

/** Why nobody else may have it now. */
const takenBy = (volumeId: string, state: LiveVolume): Refusal | undefined => {
  if (state.status === 'deleting') return refuse('volume.deleting', { volumeId });
  if (state.operation !== null) return refuse('volume.busy', { volumeId, operationId: state.operation.id, kind: state.operation.kind });
  if (state.vmId !== null) return refuse('volume.attached', { volumeId, vmId: state.vmId });
  return undefined;
};

const notUsable = (volumeId: string, state: Volume): Refusal | undefined => {
  if (state.status === 'absent' || state.status === 'deleted') return refuse('volume.not_found', { volumeId });
  const taken = takenBy(volumeId, state);
  if (taken !== undefined) return taken;
  if (state.status === 'failed') return refuse('volume.failed', { volumeId });
  return state.owing === null ? undefined : refuse('volume.dirty', { volumeId, nodeId: state.nodeId });
};

const isLive = (state: Volume): state is LiveVolume => state.status !== 'absent' && state.status !== 'deleted';

export const volume: Decider<OfVolume, VolumeEvent, Volume> = {
  category: 'volume',
  initial: { status: 'absent' },
  decide(command, state) {
    const { volumeId } = command.data;
    switch (command.type) {
      case 'CreateVolume':
        if (isLive(state)) return state.vmId === command.data.vmId ? [] : refuse('volume.exists', { volumeId });
        return state.status === 'absent' ? [{ type: 'VolumeCreated', data: command.data }] : refuse('volume.deleted', { volumeId });
      case 'RequestVolume':
        if (isLive(state)) return state.operation?.id === command.data.operationId ? [] : refuse('volume.exists', { volumeId });
        return state.status === 'absent' ? [{ type: 'VolumeRequested', data: command.data }] : refuse('volume.deleted', { volumeId });
      case 'WorkOnVolume': {
        const { operationId, work } = command.data;
        if (isLive(state) && state.operation?.id === operationId) return [];
        const refused = notUsable(volumeId, state);
        if (refused !== undefined) return refused;
        const { poolId, nodeId, sizeGib, format } = state as LiveVolume;
        if (work.kind === 'sparsify' && work.compress && format === 'raw') return refuse('volume.raw_not_compressed', { volumeId, field: 'compress' });
        return [{ type: 'VolumeWorkRequested', data: { operationId, volumeId, poolId, nodeId, sizeGib, format, work } }];
      }
      case 'HoldVolume': {
        const { operationId } = command.data;
        if (isLive(state) && state.operation?.id === operationId) return [];
        return notUsable(volumeId, state) ?? [{ type: 'VolumeHeld', data: { operationId, volumeId } }];
      }
      case 'LetGoOfVolume':
        return isLive(state) && state.operation?.id === command.data.operationId ? [{ type: 'VolumeLetGo', data: command.data }] : [];
      case 'FinishVolume': {
        const { operationId } = command.data;
        if (!isLive(state) || state.operation?.id !== operationId) return [];
        return state.status === 'creating' ? [{ type: 'VolumeReady', data: { operationId, volumeId } }] : [{ type: 'VolumeWorked', data: { operationId, volumeId, format: state.operation.format } }];
      }
      case 'FailVolume': {
        if (!isLive(state) || state.operation?.id !== command.data.operationId) return [];
        return [{ type: state.status === 'creating' ? 'VolumeFailed' : 'VolumeWorkFailed', data: command.data }];
      }
      case 'SettleVolume': {
        const { operationId, settled } = command.data;
        if (!isLive(state) || state.owing !== operationId) return [];
        return [{ type: settled ? 'VolumeSettled' : 'VolumeSettleFailed', data: { operationId, volumeId } }];
      }
      case 'ResizeVolume': {
        const { vmId, sizeGib } = command.data;
        if (state.status !== 'live' || state.vmId !== vmId) return refuse('volume.not_found', { volumeId });
        return state.sizeGib === sizeGib ? [] : [{ type: 'VolumeResized', data: { volumeId, vmId, sizeGib } }];
      }
      case 'AttachVolume': {
        const { vmId, nodeId, seenBy } = command.data;
        if (state.status === 'live' && state.vmId === vmId) return [];
        const refused = notUsable(volumeId, state);
        if (refused !== undefined) return refused;
        const { poolId } = state as LiveVolume;
        return seenBy.includes(nodeId) ? [{ type: 'VolumeAttached', data: { volumeId, vmId } }] : refuse('volume.elsewhere', { volumeId, nodeId: (state as LiveVolume).nodeId, poolId });
      }
      case 'DetachVolume': {
        const { vmId, delete: operationId, kept } = command.data;
        if (state.status !== 'live' || state.vmId !== vmId) return [];
        const { poolId, nodeId } = state;
        return [{ type: 'VolumeDetached', data: { volumeId, vmId, ...(kept === undefined ? {} : { kept }) } }, ...(operationId === null ? [] : [{ type: 'VolumeDeleteStarted', data: { operationId, volumeId, poolId, nodeId } } as const])];
      }
      case 'RemoveDetachedVolume': {
        if (!isLive(state)) return refuse('volume.not_found', { volumeId });
        const taken = takenBy(volumeId, state);
        // One that failed, or owes something, is cleaned away by this as well.
        return taken ?? [{ type: 'VolumeDeleteStarted', data: { operationId: command.data.operationId, volumeId, poolId: state.poolId, nodeId: state.nodeId, ...(state.found === null ? {} : { found: state.found }) } }];
      }
      case 'AbandonVolumeDelete':
        return state.status === 'deleting' ? [{ type: 'VolumeDeleteAbandoned', data: command.data }] : [];
      case 'DeleteVolume':
        return isLive(state) ? [{ type: 'VolumeDeleted', data: { volumeId, vmId: state.vmId } }] : [];
    }
  },
  evolve(state, event) {
    if (event.type === 'VolumeCreated') {
      const { vmId, poolId, nodeId, sizeGib, name = null } = event.data;
      return { status: 'live', name, vmId, poolId, nodeId, sizeGib, format: 'qcow2', operation: null, owing: null, found: null };
    }
    if (event.type === 'VolumeRequested') {
      const { name, poolId, nodeId, sizeGib, format, operationId, source } = event.data;
      return { status: 'creating', name, vmId: null, poolId, nodeId, sizeGib, format, operation: { id: operationId, kind: 'create', format }, owing: null, found: source.kind === 'found' ? source.file : null };
    }
    if (!isLive(state)) return state;
    switch (event.type) {
      case 'VolumeReady':
        return { ...state, status: 'live', operation: null, found: null };
      case 'VolumeFailed':
        return { ...state, status: 'failed', operation: null, owing: event.data.owed.length > 0 ? event.data.operationId : null };
      case 'VolumeHeld':
        return { ...state, operation: { id: event.data.operationId, kind: 'copy', format: state.format } };
      case 'VolumeLetGo':
        return { ...state, operation: null };
      case 'VolumeWorkRequested': {
        const { operationId, work } = event.data;
        return { ...state, operation: { id: operationId, kind: work.kind, format: work.kind === 'convert' ? work.format : state.format } };
      }
      case 'VolumeWorked':
        return { ...state, format: event.data.format, operation: null };
      case 'VolumeWorkFailed':
        return { ...state, operation: null, owing: event.data.owed.length > 0 ? event.data.operationId : null };
      case 'VolumeSettled':
        return { ...state, owing: null };
      case 'VolumeSettleFailed':
        return state;
      case 'VolumeResized':
        return { ...state, sizeGib: event.data.sizeGib };
      case 'VolumeAttached':
        return { ...state, vmId: event.data.vmId };
      case 'VolumeDetached':
        return { ...state, vmId: null };
      case 'VolumeDeleteStarted':
        return { ...state, status: 'deleting', owing: null };
      case 'VolumeDeleteAbandoned':
        return { ...state, status: 'failed' };
      case 'VolumeDeleted':
        return { status: 'deleted', name: state.name };
    }
  },
  facts: (command, state) => ((command.type === 'AttachVolume' || command.type === 'HoldVolume') && isLive(state) ? { sizeGib: state.sizeGib, poolId: state.poolId } : {}),
};
