/*
 * What the gateway promised and has not yet handed over.
 *
 * Most commands are answered by their receiver within milliseconds and never pass through here. Two kinds
 * do: those that nobody answered in time, which the caller was told are pending, and the members of a batch.
 * Recording them makes the promise survive the process: whoever leads sends each again until it is answered.
 */
import type { CommandEnvelope } from '@chronovirt/contracts/command';
import { type OperationId, streamOf } from '@chronovirt/contracts/ids';
import type { OperationEvent } from '@chronovirt/contracts/operation/operation.events';
import type { Decider } from '@chronovirt/decider/decider';
import type { Handling } from '@chronovirt/event-log/handle';
import type { Accepting } from '../submit.ts';

export interface AcceptCommands {
  readonly type: 'AcceptCommands';
  readonly data: { readonly operationId: OperationId; readonly kind: string; readonly commands: CommandEnvelope[] };
}

/** What recording an acceptance is: the same for whoever records it and for whoever only asks. */
export const acceptance = ({ id, requestHash, operationId, kind, commands, actor }: Accepting): Handling<AcceptCommands> => ({
  id, requestHash, stream: streamOf(operation.category, operationId), cancels: [], meta: { actor, operationId },
  command: { type: 'AcceptCommands', data: { operationId, kind, commands: [...commands] } },
});

export type Operation = { readonly status: 'absent' } | { readonly status: 'accepted' };

export const operation: Decider<AcceptCommands, OperationEvent, Operation> = {
  category: 'operation',
  initial: { status: 'absent' },
  // An operation's commands never change: accepted twice is accepted once.
  decide: (command, state) => (state.status === 'accepted' ? [] : [{ type: 'CommandsAccepted', data: command.data }]),
  evolve: () => ({ status: 'accepted' }),
};
