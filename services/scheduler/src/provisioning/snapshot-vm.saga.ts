/*
 * Takes a snapshot, and goes back to one: both put a new layer on each disk, on what is written now or on what
 * was frozen then. That is one verb, and can be taken back: what a guest has written meanwhile is merged into
 * what it wrote before, and a layer that nobody wrote goes.
 *
 * An internal snapshot is the same, with another verb: what the disks hold is kept inside of them, under the
 * snapshot's name, or, going back to one, under the operation's.
 *
 * Deleting a snapshot cannot be taken back, nor can what a revert leaves behind: layers are merged and files
 * go. `tidyLayers` only goes forward, and waits a day for a node that is silent; what it cannot do in that
 * time is owed. It also pays what the first saga owes, with the undo that never arrived, under that undo's
 * own id.
 */
import type { Outgoing } from '@chronovirt/contracts/command';
import type { OperationId, SnapshotId } from '@chronovirt/contracts/ids';
import type { InnerName, LayerStep, SnapshotDisk } from '@chronovirt/contracts/vm/snapshot';
import { nothingToUndo, type Saga } from '@chronovirt/decider/saga';
import { type ActiveLayers, type Machine, planOf } from '../vm/domain-plan.ts';
import { DAY_MS } from '../durations.ts';
import { commandName, failVm, finishRemoval, finishVm, type OnNode, owedUndo, PLACEMENT_GONE, verb } from './node-verb.ts';

interface OfDisks extends OnNode {
  readonly operationId: OperationId;
  readonly kind: 'take' | 'revert';
  /** As it is now. */
  readonly machine: Machine;
  /** What the new layer stands on, in each disk. */
  readonly on: readonly Pick<SnapshotDisk, 'volumeId' | 'layer'>[];
}
interface Outside extends OfDisks {
  readonly layer: string;
}
interface Inside extends OfDisks {
  readonly layer: null;
  /** What what there is is kept as, and what they hold then. */
  readonly as: InnerName;
  readonly back: SnapshotId | null;
}
export type SnapshotVm = Outside | Inside;

const layered = ({ machine, on, layer }: Outside): Machine =>
  ({ ...machine, layers: { ...machine.layers, ...(Object.fromEntries(on.map(({ volumeId }) => [volumeId, layer])) as ActiveLayers) } });

/** Of a snapshot, the layer is merged back into the one it stands on. Of a revert, nobody has written it. */
export const takeBackSteps = (vm: SnapshotVm): readonly LayerStep[] => (vm.layer === null ? vm.on.map(({ volumeId }): LayerStep => ({ kind: vm.kind === 'revert' ? 'return' : 'forget', volumeId, inner: vm.as })) : outside(vm));

const outside = ({ kind, on, layer }: Outside): readonly LayerStep[] =>
  on.map(({ volumeId, layer: into }): LayerStep => (kind === 'revert' ? { kind: 'drop', volumeId, layer } : { kind: 'merge', volumeId, layer, into, active: true, above: [] }));

export const snapshotVm: Saga<SnapshotVm, Outgoing> = {
  name: 'snapshot-vm',
  steps: {
    node: {
      deadlineMs: 60_000,
      undoDeadlineMs: 60_000,
      undoRefused: true,
      run: (vm) => (vm.layer === null ? verb('KeepInside', vm, { volumes: vm.on.map(({ volumeId }) => volumeId), as: vm.as, back: vm.back }) : verb('LayerDomain', vm, { ...planOf(layered(vm)), on: vm.on.map(({ volumeId, layer }) => ({ volumeId, layer })), live: vm.kind === 'take' })),
      undo: (vm) => verb('TidyLayers', vm, { ...planOf(vm.machine), steps: [...takeBackSteps(vm)] }),
    },
  },
  done: (vm, facts) => {
    const { frozen = false, ...seen } = { ...facts['node'] };
    return finishVm(vm, seen, { how: vm.kind === 'take' ? 'took a snapshot' : 'reverted', frozen });
  },
  failed: failVm,
};

export interface TidyVm extends OnNode {
  readonly operationId: OperationId;
  /** As it is then. */
  readonly machine: Machine;
  readonly steps: readonly LayerStep[];
  /** The saga and operation whose command this is, when an earlier one owes it. */
  readonly owedBy: { readonly saga: 'snapshot-vm' | 'tidy-layers'; readonly operationId: OperationId } | null;
}

/** The very command that never arrived, so that it is done once however often it is tried; an undo also takes its own step back. */
const under = ({ owedBy }: TidyVm): Partial<Pick<Outgoing, 'as' | 'cancels'>> => {
  if (owedBy === null) return {};
  return owedBy.saga === 'snapshot-vm' ? owedUndo(owedBy.saga, owedBy.operationId, 'node') : { as: commandName(owedBy.saga, owedBy.operationId, 'node', 'run') };
};

export const tidyLayers: Saga<TidyVm, Outgoing> = {
  name: 'tidy-layers',
  cleanUp: true,
  steps: {
    node: {
      deadlineMs: DAY_MS,
      undo: nothingToUndo('what is merged stays merged'),
      settledBy: PLACEMENT_GONE,
      run: (vm) => (vm.steps.length === 0 ? undefined : { ...verb('TidyLayers', vm, { ...planOf(vm.machine), steps: [...vm.steps] }), ...under(vm) }),
    },
  },
  done: finishRemoval,
  failed: failVm,
};
