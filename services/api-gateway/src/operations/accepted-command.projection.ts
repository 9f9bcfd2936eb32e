/*
 * The commands that the gateway owes their receivers, by id. Whether one is answered is not in here: that is
 * known to `event_log.answer`, and asked at each sending (operations.store.ts).
 */
import type { CommandEnvelope } from '@chronovirt/contracts/command';
import type { OperationEvent } from '@chronovirt/contracts/operation/operation.events';
import type { RecordedEvent } from '@chronovirt/event-log/log';
import type { Projection } from '@chronovirt/event-log/projection';

export interface AcceptedCommand {
  readonly id: string;
  readonly operationId: string;
  readonly envelope: CommandEnvelope;
  readonly acceptedAt: string;
  readonly position: number;
}

export const acceptedCommand: Projection<AcceptedCommand> = {
  name: 'gateway.accepted_command',
  version: 1,
  keys: (event) => (event.type === 'CommandsAccepted' ? (event as RecordedEvent & OperationEvent).data.commands.map(({ id }) => id) : []),
  fold: (before, event, key) => {
    const { data } = event as RecordedEvent & OperationEvent;
    const envelope = data.commands.find(({ id }) => id === key);
    return envelope === undefined ? before : { id: key, operationId: envelope.meta.operationId ?? data.operationId, envelope, acceptedAt: event.recordedAt, position: event.position };
  },
};
