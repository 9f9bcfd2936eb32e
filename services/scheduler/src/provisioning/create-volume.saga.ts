/*
 * Makes a volume of its own: blank, or a copy of an image, of another volume, or of what a snapshot froze; or of a
 * file that somebody has put there, which is not copied, and is theirs again should the volume not come to be.
 *
 *     source ─┐
 *     space ──┴─▶ disk ─▶ release
 *
 * Another volume is held for as long as it is read, so that nobody writes it. What a snapshot froze is not
 * written by anybody; but its snapshot may be deleted meanwhile, and then the layer may be written by a merge. So
 * the VM is asked before and after, and a copy that was made while something changed is thrown away.
 */
import type { Outgoing } from '@chronovirt/contracts/command';
import type { OperationId } from '@chronovirt/contracts/ids';
import type { VolumeEvent, VolumeWork } from '@chronovirt/contracts/volume/volume.events';
import { nothingToUndo, type Saga, type StepFacts } from '@chronovirt/decider/saga';
import { DAY_MS } from '../durations.ts';
import { findFrozen, layersIn } from './frozen.ts';
import { NODE_GONE, owedUndo } from './node-verb.ts';
import { forgetPublished, publishMs, registerPublished } from './published.ts';

export type CreateVolume = Extract<VolumeEvent, { type: 'VolumeRequested' }>['data'];
export type WorkOnVolume = Extract<VolumeEvent, { type: 'VolumeWorkRequested' }>['data'];

const DECIDED_MS = 30_000;
/** Giving back cannot be undone, and may be done although its answer is late. */
const BACK_MS = 1_800_000;
const NODE_MS = 60_000;
/** A copy is given a minute for each GiB: 17 MiB in a second, on a disk that others use too. */
const COPIED_GIB_MS = 60_000;

interface Owed {
  readonly operationId: OperationId;
  /** The operation whose undo is owed. */
  readonly failedOperationId: OperationId;
}

const letGo = ({ source, operationId }: CreateVolume): Outgoing | undefined =>
  (source.kind === 'volume' ? { to: 'storage', target: source.volumeId, type: 'LetGoOfVolume', data: { volumeId: source.volumeId, operationId } } : undefined);
const release = ({ poolId, volumeId }: CreateVolume): Outgoing => ({ to: 'storage', target: poolId, type: 'ReleaseSpace', data: { poolId, volumeId, vmId: null } });
const remove = ({ nodeId, volumeId, poolId, source }: CreateVolume): Outgoing => ({ to: 'node', target: nodeId, type: 'RemoveVolume', data: { nodeId, volumeId, vmId: null, poolId, ...(source.kind === 'found' ? { found: source.file } : {}) } });
const askVm = ({ source }: CreateVolume, facts: StepFacts): Outgoing | undefined =>
  (source.kind === 'snapshot' ? findFrozen(source.vmId, source.snapshotId, [source.volumeId], facts['source']) : undefined);

const beginning = ({ source }: CreateVolume, facts: StepFacts) => {
  switch (source.kind) {
    case 'blank':
      return { kind: 'blank' as const };
    case 'found':
      return { kind: 'found' as const, file: source.file };
    case 'image':
    case 'content':
      return { kind: 'image' as const, file: source.file, format: source.format };
    case 'volume':
      return { kind: 'volume' as const, volumeId: source.volumeId, layer: null };
    case 'snapshot':
      return { kind: 'volume' as const, volumeId: source.volumeId, layer: layersIn(facts['source'])[0] ?? null };
  }
};

const failed = ({ volumeId, operationId }: Pick<CreateVolume, 'volumeId' | 'operationId'>, why: { readonly refused: string; readonly because?: object }, owed: readonly string[]): Outgoing =>
  ({ to: 'storage', target: volumeId, type: 'FailVolume', data: { volumeId, operationId, refused: why.refused, because: why.because ?? {}, owed } });
const done = ({ volumeId, operationId }: Pick<CreateVolume, 'volumeId' | 'operationId'>): Outgoing => ({ to: 'storage', target: volumeId, type: 'FinishVolume', data: { volumeId, operationId } });

export const createVolume: Saga<CreateVolume, Outgoing> = {
  name: 'create-volume',
  steps: {
    source: {
      deadlineMs: DECIDED_MS,
      run: (input) => (input.source.kind === 'volume' ? { to: 'storage', target: input.source.volumeId, type: 'HoldVolume', data: { volumeId: input.source.volumeId, operationId: input.operationId } } : askVm(input, {})),
      // A question leaves nothing to take back; asked again, it keeps the first from being answered late.
      undo: (input) => letGo(input) ?? askVm(input, {}),
    },
    space: {
      deadlineMs: DECIDED_MS,
      run: ({ poolId, volumeId, sizeGib }) => ({ to: 'storage', target: poolId, type: 'ReserveSpace', data: { poolId, volumeId, vmId: null, sizeGib } }),
      undo: release,
    },
    disk: {
      after: ['source', 'space'],
      deadlineMs: NODE_MS,
      moreMs: ({ source, sizeGib }) => (source.kind === 'blank' || source.kind === 'found' ? 0 : sizeGib * COPIED_GIB_MS),
      undoDeadlineMs: NODE_MS,
      undoRefused: true,
      run: (input, facts) => {
        const { nodeId, volumeId, poolId, format, sizeGib } = input;
        return { to: 'node', target: nodeId, type: 'EnsureVolume', data: { nodeId, volumeId, poolId, format, sizeGib, source: beginning(input, facts) } };
      },
      undo: remove,
    },
    release: {
      after: ['disk'],
      deadlineMs: DECIDED_MS,
      moreMs: ({ source }) => (source.kind === 'volume' ? BACK_MS : 0),
      run: (input, facts) => letGo(input) ?? askVm(input, facts),
      undo: nothingToUndo('nothing follows it'),
    },
  },
  done,
  failed,
};

/** What is done with the bytes of a volume: one verb of its node, and the one that takes it back. What is published is registered when its bytes were brought. */
export const workOnVolume: Saga<WorkOnVolume, Outgoing> = {
  name: 'work-on-volume',
  steps: {
    disk: {
      deadlineMs: NODE_MS,
      moreMs: ({ sizeGib, work }) => (work.kind === 'publish' ? publishMs(sizeGib) : sizeGib * COPIED_GIB_MS),
      undoRefused: true,
      run: (input) => {
        const { nodeId, operationId, volumeId, work } = input;
        return work.kind === 'publish' ? { to: 'node', target: nodeId, type: 'PublishVolume', data: { nodeId, operationId, volumeId } } : onNode('WorkOnVolume', input);
      },
      // It may have to write everything back.
      undo: (input) => onNode('SettleVolume', input),
    },
    image: {
      after: ['disk'],
      deadlineMs: DECIDED_MS,
      run: ({ sizeGib, work }, facts) => (work.kind === 'publish' ? registerPublished(work.imageId, work.image, sizeGib, facts['disk']) : undefined),
      undo: ({ work }) => (work.kind === 'publish' ? forgetPublished(work.imageId) : undefined),
    },
  },
  done,
  failed,
};

const onNode = (type: 'WorkOnVolume' | 'SettleVolume', { nodeId, volumeId, poolId, format, sizeGib, work }: WorkOnVolume): Outgoing =>
  ({ to: 'node', target: nodeId, type, data: { nodeId, volumeId, poolId, format, sizeGib, work } });

export type SettleVolume = Owed & ((CreateVolume & { readonly work?: undefined }) | (WorkOnVolume & { readonly work: VolumeWork; readonly source?: undefined }));

const undo = nothingToUndo('it is itself an undo');

/** Takes back what a silent node kept from being taken back, in the same order, the node's part under its own id. */
export const settleVolume: Saga<SettleVolume, Outgoing> = {
  name: 'settle-volume',
  cleanUp: true,
  steps: {
    disk: {
      deadlineMs: DAY_MS, undo,
      settledBy: [...NODE_GONE, 'volume.removed'],
      run: (input) => (input.work === undefined
        ? { ...remove(input), ...owedUndo(createVolume.name, input.failedOperationId, 'disk') }
        : { ...onNode('SettleVolume', input), ...owedUndo(workOnVolume.name, input.failedOperationId, 'disk') }),
    },
    space: { after: ['disk'], deadlineMs: DAY_MS, undo, run: (input) => (input.work === undefined ? release(input) : undefined) },
    source: { after: ['disk'], deadlineMs: DAY_MS, undo, run: (input) => (input.work === undefined ? letGo({ ...input, operationId: input.failedOperationId }) : undefined) },
  },
  done: ({ volumeId, failedOperationId }) => ({ to: 'storage', target: volumeId, type: 'SettleVolume', data: { volumeId, operationId: failedOperationId, settled: true } }),
  failed: ({ volumeId, failedOperationId }) => ({ to: 'storage', target: volumeId, type: 'SettleVolume', data: { volumeId, operationId: failedOperationId, settled: false } }),
};
