/** An event as it is shown: who, what, when, caused by which command, under which operation and trace, by both clocks. */
import { categoryOf, idOfStream } from '@chronovirt/contracts/ids';
import type { RecordedEvent } from '@chronovirt/event-log/log';

export interface EventView {
  readonly position: number;
  readonly type: string;
  readonly category: string;
  /** Id of the thing that it happened to. */
  readonly subject: string;
  readonly version: number;
  readonly id: string;
  readonly data: Readonly<Record<string, unknown>>;
  readonly actor: string;
  readonly commandId: string;
  readonly causedBy: string | null;
  readonly operationId: string | null;
  readonly vmId: string | null;
  readonly traceId: string | null;
  readonly nodeId: string | null;
  /** The node's clock, where a node saw what is recorded. */
  readonly nodeAt: string | null;
  /** The log's clock. */
  readonly recordedAt: string;
}

export const viewOf = ({ position, stream, version, id, type, data, meta, recordedAt }: RecordedEvent): EventView => ({
  position, type, category: categoryOf(stream), subject: idOfStream(stream), version, id, data,
  actor: meta.actor, commandId: meta.commandId, causedBy: meta.causedBy ?? null, operationId: meta.operationId ?? null, vmId: meta.vmId ?? null,
  traceId: meta.traceparent?.split('-')[1] ?? null, nodeId: meta.nodeId ?? null, nodeAt: meta.nodeAt ?? null, recordedAt,
});
