/*
 * Start, stop, reboot, reset, pause, resume: one verb on the node, with the capacity it needs or gives back.
 * A stopped VM keeps its disk and address, not its CPUs and memory: a start may therefore be refused for
 * want of room, and leaves the VM stopped.
 */
import type { Outgoing } from '@chronovirt/contracts/command';
import type { NodeId, OperationId, VmId } from '@chronovirt/contracts/ids';
import type { PowerAction } from '@chronovirt/contracts/vm/vm.events';
import { nothingToUndo, type Saga } from '@chronovirt/decider/saga';
import { verb } from './node-verb.ts';

export interface PowerVm {
  readonly operationId: OperationId;
  readonly vmId: VmId;
  readonly nodeId: NodeId;
  readonly generation: number;
  readonly action: PowerAction;
  readonly vcpus: number;
  readonly memoryMib: number;
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
  }
};

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
      undo: (vm) => (vm.action === 'start' ? verb('DestroyDomain', vm, {}) : undefined),
    },
    release: {
      after: ['node'],
      deadlineMs: 30_000,
      run: ({ action, nodeId, vmId }) => (action === 'stop' ? { to: 'scheduler', target: nodeId, type: 'ReleaseCapacity', data: { nodeId, vmId } } : undefined),
      undo: nothingToUndo('what is stopped stays stopped'),
    },
  },
  done: (vm, facts) => {
    const { how, ...seen } = { how: vm.action, ...facts['node'] };
    return {
      to: 'scheduler', target: vm.vmId, type: 'FinishVm',
      data: { vmId: vm.vmId, operationId: vm.operationId, how, provisioned: null, observed: 'state' in seen ? { nodeId: vm.nodeId, generation: vm.generation, ...seen } : null },
    };
  },
  failed: ({ vmId, operationId }, why, owed) => ({ to: 'scheduler', target: vmId, type: 'FailVm', data: { vmId, operationId, refused: why.refused, because: why.because ?? {}, owed } }),
};
