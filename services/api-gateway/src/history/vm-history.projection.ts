/*
 * Which events concern which VM: one row for each pair, and no more, because the event itself is in the log.
 * A growing document would be written in full at every event. Rows outlive their VM: a deleted VM's history
 * stays.
 *
 * An event concerns a VM when it stands in the VM's stream, when its command was about the VM (meta), or when
 * its data names the VM: the address that was leased for it, the capacity set aside for it.
 */
import { categoryOf, idOfStream } from '@chronovirt/contracts/ids';
import type { RecordedEvent } from '@chronovirt/event-log/log';
import type { Projection } from '@chronovirt/event-log/projection';

export interface VmHistoryRow {
  readonly vmId: string;
  readonly position: number;
}

/** Ids of the VMs that an event concerns. */
export const concerned = (event: Pick<RecordedEvent, 'stream' | 'type' | 'data' | 'meta'>): readonly string[] => {
  const found = new Set<string>();
  if (categoryOf(event.stream) === 'vm') found.add(idOfStream(event.stream));
  if (event.meta.vmId !== undefined) found.add(event.meta.vmId);
  const named = event.data['vmId'];
  if (typeof named === 'string') found.add(named);
  const input = event.data['input'];
  if (event.type === 'SagaStarted' && typeof input === 'object' && input !== null && 'vmId' in input && typeof input.vmId === 'string') found.add(input.vmId);
  return [...found];
};

export const vmHistory: Projection<VmHistoryRow> = {
  name: 'gateway.vm_history',
  version: 1,
  // Positions are unique, so a row is written once and never again.
  keys: (event) => concerned(event).map((vmId) => `${vmId}/${String(event.position)}`),
  fold: (_before, event, key) => ({ vmId: key.slice(0, key.indexOf('/')), position: event.position }),
};
