/*
 * Something is asked of a running guest: a password, keys. One verb of its node, which asks the guest's agent.
 *
 * It cannot be taken back: a password that was set stays so. But it can be kept from happening later, when
 * somebody may have set another; so the undo only looks, and cancels. A silent node is owed that look, and
 * `settleGuest` pays it under the undo's own id, as power-vm.saga.ts does.
 */
import type { Outgoing } from '@chronovirt/contracts/command';
import type { OperationId } from '@chronovirt/contracts/ids';
import type { GuestRequest } from '@chronovirt/contracts/vm/guest';
import type { Refusal } from '@chronovirt/decider/decider';
import { nothingToUndo, type Saga } from '@chronovirt/decider/saga';
import { type OnNode, verb } from './node-verb.ts';

export interface GuestVm extends OnNode {
  readonly operationId: OperationId;
  /** A password in it is sealed to the node. */
  readonly request: GuestRequest;
}

/** The node waits seconds for the guest's agent. */
const NODE_MS = 60_000;

const look = (vm: OnNode): Outgoing => verb('ObserveDomain', vm, {});

const failed = ({ vmId, operationId }: Pick<GuestVm, 'vmId' | 'operationId'>, why: Refusal, owed: readonly string[]): Outgoing =>
  ({ to: 'scheduler', target: vmId, type: 'FailVm', data: { vmId, operationId, refused: why.refused, because: why.because ?? {}, owed } });

export const guestVm: Saga<GuestVm, Outgoing> = {
  name: 'guest-vm',
  steps: {
    guest: {
      deadlineMs: NODE_MS,
      undoDeadlineMs: 30_000,
      run: (vm) => verb('AskGuest', vm, { request: vm.request }),
      undo: look,
    },
  },
  done: (vm, facts) => {
    const { method = 'guest-agent', ...seen } = { ...facts['guest'] };
    return {
      to: 'scheduler', target: vm.vmId, type: 'FinishVm',
      data: { vmId: vm.vmId, operationId: vm.operationId, how: method, provisioned: null, reconfigured: null, observed: 'state' in seen ? { nodeId: vm.nodeId, generation: vm.generation, ...seen } : null },
    };
  },
  failed,
};

export interface SettleGuest extends OnNode {
  readonly operationId: OperationId;
  /** The operation whose undo is owed. */
  readonly failedOperationId: OperationId;
}

const keyOf = ({ failedOperationId }: SettleGuest, command: string): string => `saga-${guestVm.name}-${failedOperationId}:${command}`;

export const settleGuest: Saga<SettleGuest, Outgoing> = {
  name: 'settle-guest',
  cleanUp: true,
  steps: {
    guest: {
      deadlineMs: NODE_MS,
      run: (vm) => ({ ...look(vm), as: keyOf(vm, 'guest:undo'), cancels: [keyOf(vm, 'guest:run')] }),
      undo: nothingToUndo('it is itself an undo'),
      settledBy: ['node.removed', 'node.not_found', 'vm.not_here', 'vm.old_generation'],
    },
  },
  done: ({ vmId, operationId }) => ({ to: 'scheduler', target: vmId, type: 'FinishDeleteVm', data: { vmId, operationId } }),
  failed,
};
