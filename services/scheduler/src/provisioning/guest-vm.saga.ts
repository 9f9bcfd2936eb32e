/*
 * Something is asked of a running guest: a password, keys. One verb of its node, which asks the guest's agent, or
 * writes into the disks of one that is stopped.
 *
 * It cannot be taken back: a password that was set stays so. But it can be kept from happening later, when
 * somebody may have set another; so the undo only looks, and cancels. A silent node is owed that look, and
 * `settleGuest` pays it under the undo's own id, as power-vm.saga.ts does.
 */
import type { Outgoing } from '@chronovirt/contracts/command';
import type { OperationId } from '@chronovirt/contracts/ids';
import type { GuestRequest } from '@chronovirt/contracts/vm/guest';
import { nothingToUndo, type Saga } from '@chronovirt/decider/saga';
import { failVm, finishRemoval, finishVm, type OnNode, owedUndo, PLACEMENT_GONE, verb } from './node-verb.ts';

export interface GuestVm extends OnNode {
  readonly operationId: OperationId;
  /** A password in it is sealed to the node. */
  readonly request: GuestRequest;
}

/** The node waits seconds for the guest's agent. */
const NODE_MS = 60_000;
/** And minutes for a look into disks, where it has nothing but emulation. */
const OFFLINE_MS = 15 * 60_000;

const look = (vm: OnNode): Outgoing => verb('ObserveDomain', vm, {});

export const guestVm: Saga<GuestVm, Outgoing> = {
  name: 'guest-vm',
  steps: {
    guest: {
      deadlineMs: NODE_MS,
      moreMs: ({ request }) => (request.kind === 'password' && request.offline === true ? OFFLINE_MS : 0),
      undoDeadlineMs: 30_000,
      run: (vm) => verb('AskGuest', vm, { request: vm.request }),
      undo: look,
    },
  },
  done: (vm, facts) => {
    const { method: how = 'guest-agent', ...seen } = { ...facts['guest'] };
    return finishVm(vm, seen, { how });
  },
  failed: failVm,
};

export interface SettleGuest extends OnNode {
  readonly operationId: OperationId;
  /** The operation whose undo is owed. */
  readonly failedOperationId: OperationId;
}

export const settleGuest: Saga<SettleGuest, Outgoing> = {
  name: 'settle-guest',
  cleanUp: true,
  steps: {
    guest: {
      deadlineMs: NODE_MS,
      run: (vm) => ({ ...look(vm), ...owedUndo(guestVm.name, vm.failedOperationId, 'guest') }),
      undo: nothingToUndo('it is itself an undo'),
      settledBy: PLACEMENT_GONE,
    },
  },
  done: finishRemoval,
  failed: failVm,
};
