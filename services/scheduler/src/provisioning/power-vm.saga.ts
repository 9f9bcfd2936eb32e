/*
 * Start, stop, reboot, reset, pause, resume, save: one verb on the node, with the capacity it needs or gives back.
 * A stopped VM keeps its disk and address, not its CPUs and memory: a start may therefore be refused for
 * want of room, and leaves the VM stopped.
 *
 * What is not a start cannot be taken back: a guest that was shut down stays so. But it can be kept from
 * happening later, when somebody may have started the VM again; so its undo only looks, and cancels.
 *
 * When the node is silent even to that, the debt is that one command, and `settlePower` pays it: it sends the
 * undo that never arrived, under that undo's own id, so that two attempts to pay are one. Until then the VM
 * takes no other action: a StartDomain that is late must not meet a VM that was stopped meanwhile.
 */
import type { Outgoing } from '@chronovirt/contracts/command';
import type { OperationId } from '@chronovirt/contracts/ids';
import type { PowerAction } from '@chronovirt/contracts/vm/vm.events';
import { nothingToUndo, type Saga } from '@chronovirt/decider/saga';
import { failVm, finishRemoval, finishVm, type OnNode, owedUndo, PLACEMENT_GONE, verb } from './node-verb.ts';

export interface PowerVm extends OnNode {
  readonly operationId: OperationId;
  readonly action: PowerAction;
  readonly vcpus: number;
  readonly memoryMib: number;
  /** What the node is given beside its own time: to wait for the guest, to write its memory or read it. */
  readonly timeoutSeconds: number;
  readonly force: boolean;
}

const onNode = (vm: PowerVm): Outgoing => {
  switch (vm.action) {
    case 'start': return verb('StartDomain', vm, {});
    case 'stop': return verb('ShutdownDomain', vm, { timeoutSeconds: vm.timeoutSeconds, force: vm.force });
    case 'reboot': return verb('RebootDomain', vm, {});
    case 'reset': return verb('ResetDomain', vm, {});
    case 'pause': return verb('SuspendDomain', vm, {});
    case 'resume': return verb('ResumeDomain', vm, {});
    case 'save': return verb('SaveDomain', vm, {});
  }
};

const takeBack = (vm: PowerVm): Outgoing => (vm.action === 'start' ? verb('DestroyDomain', vm, {}) : verb('ObserveDomain', vm, {}));

export const powerVm: Saga<PowerVm, Outgoing> = {
  name: 'power-vm',
  steps: {
    capacity: {
      deadlineMs: 30_000,
      run: ({ action, nodeId, vmId, vcpus, memoryMib }) =>
        action === 'start' ? { to: 'scheduler', target: nodeId, type: 'ReserveCapacity', data: { nodeId, vmId, vcpus, memoryMib, poolId: null, byHand: true, decision: {} } } : undefined,
      undo: ({ nodeId, vmId }) => ({ to: 'scheduler', target: nodeId, type: 'ReleaseCapacity', data: { nodeId, vmId } }),
    },
    node: {
      after: ['capacity'],
      deadlineMs: 60_000,
      moreMs: ({ timeoutSeconds }) => timeoutSeconds * 1_000,
      undoDeadlineMs: 30_000,
      undoRefused: true,
      run: onNode,
      undo: takeBack,
    },
    release: {
      after: ['node'],
      deadlineMs: 30_000,
      run: ({ action, nodeId, vmId }) => (action === 'stop' || action === 'save' ? { to: 'scheduler', target: nodeId, type: 'ReleaseCapacity', data: { nodeId, vmId } } : undefined),
      undo: nothingToUndo('what is stopped stays stopped'),
    },
  },
  done: (vm, facts) => {
    const { how, ...seen } = { how: vm.action, ...facts['node'] };
    return finishVm(vm, seen, { how });
  },
  failed: failVm,
};

export interface SettlePower extends PowerVm {
  /** The operation whose undo is owed. */
  readonly failedOperationId: OperationId;
}

export const settlePower: Saga<SettlePower, Outgoing> = {
  name: 'settle-power',
  cleanUp: true,
  steps: {
    node: {
      deadlineMs: 60_000,
      run: (vm) => ({ ...takeBack(vm), ...owedUndo(powerVm.name, vm.failedOperationId, 'node') }),
      undo: nothingToUndo('it is itself an undo'),
      settledBy: PLACEMENT_GONE,
    },
    capacity: {
      after: ['node'],
      deadlineMs: 30_000,
      run: ({ action, nodeId, vmId }) => (action === 'start' ? { to: 'scheduler', target: nodeId, type: 'ReleaseCapacity', data: { nodeId, vmId } } : undefined),
      undo: nothingToUndo('it is itself an undo'),
    },
  },
  done: finishRemoval,
  failed: failVm,
};
