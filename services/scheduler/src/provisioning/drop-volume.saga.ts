/*
 * Deletes a volume that no VM has: its bytes, then the space that was promised to it, then its record. It
 * only goes forward. A node that is silent is waited for, a day long; one that was removed took the bytes
 * with it.
 */
import type { Outgoing } from '@chronovirt/contracts/command';
import type { NodeId, OperationId, PoolId, VolumeId } from '@chronovirt/contracts/ids';
import { nothingToUndo, type Saga } from '@chronovirt/decider/saga';
import { DAY_MS } from '../durations.ts';
import { NODE_GONE } from './node-verb.ts';

export interface DropVolume {
  readonly operationId: OperationId;
  readonly volumeId: VolumeId;
  readonly poolId: PoolId;
  readonly nodeId: NodeId;
  /** The file that it was to be made of, and was not: that stays. */
  readonly found?: string;
}

const undo = nothingToUndo('what is deleted stays deleted');

export const dropVolume: Saga<DropVolume, Outgoing> = {
  name: 'drop-volume',
  cleanUp: true,
  steps: {
    disk: {
      deadlineMs: DAY_MS, undo, settledBy: NODE_GONE,
      run: ({ nodeId, volumeId, poolId, found }) => ({ to: 'node', target: nodeId, type: 'RemoveVolume', data: { nodeId, volumeId, vmId: null, poolId, ...(found === undefined ? {} : { found }) } }),
    },
    space: { after: ['disk'], deadlineMs: DAY_MS, undo, run: ({ poolId, volumeId }) => ({ to: 'storage', target: poolId, type: 'ReleaseSpace', data: { poolId, volumeId, vmId: null } }) },
  },
  done: ({ volumeId }) => ({ to: 'storage', target: volumeId, type: 'DeleteVolume', data: { volumeId, vmId: null } }),
  failed: ({ volumeId, operationId }) => ({ to: 'storage', target: volumeId, type: 'AbandonVolumeDelete', data: { volumeId, operationId } }),
};
