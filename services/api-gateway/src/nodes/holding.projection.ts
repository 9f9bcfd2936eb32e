/*
 * Who holds what: capacity of a node, an address of a subnet, space of a pool. One row for each holding,
 * summed when it is asked for; a document for each holder would be written in full with every VM, and cost
 * more the more VMs there are.
 */
import { idOfStream } from '@chronovirt/contracts/ids';
import type { NodeEvent } from '@chronovirt/contracts/node/node.events';
import type { PoolEvent } from '@chronovirt/contracts/pool/pool.events';
import type { SubnetEvent } from '@chronovirt/contracts/subnet/subnet.events';
import type { RecordedEvent } from '@chronovirt/event-log/log';
import type { Projection } from '@chronovirt/event-log/projection';

export interface Holding {
  /** Id of the node, subnet or pool. */
  readonly holder: string;
  /** null: a volume that was made for no VM. */
  readonly vmId: string | null;
  readonly vcpus: number;
  readonly memoryMib: number;
  readonly sizeGib: number;
  readonly address: string | null;
}

type Known = RecordedEvent & (NodeEvent | PoolEvent | SubnetEvent);
const nothing = { vcpus: 0, memoryMib: 0, sizeGib: 0, address: null };

const keys = (recorded: RecordedEvent): readonly string[] => {
  const event = recorded as Known;
  const holder = idOfStream(event.stream);
  switch (event.type) {
    case 'CapacityReserved':
    case 'CapacityResized':
    case 'CapacityReleased':
    case 'AddressLeased':
    case 'AddressReleased':
      return [`${holder}/${event.data.vmId}`];
    case 'SpaceReserved':
    case 'SpaceResized':
    case 'SpaceReleased':
      return [`${holder}/${event.data.volumeId}`];
    default:
      return [];
  }
};

const fold = (before: Holding | undefined, recorded: RecordedEvent): Holding | undefined => {
  const event = recorded as Known;
  const holder = idOfStream(event.stream);
  switch (event.type) {
    case 'CapacityReserved':
    case 'CapacityResized':
      return { ...nothing, holder, vmId: event.data.vmId, vcpus: event.data.vcpus, memoryMib: event.data.memoryMib };
    case 'AddressLeased':
      return { ...nothing, holder, vmId: event.data.vmId, address: event.data.address };
    case 'SpaceReserved':
    case 'SpaceResized':
      return { ...nothing, holder, vmId: event.data.vmId, sizeGib: event.data.sizeGib };
    case 'CapacityReleased':
    case 'AddressReleased':
    case 'SpaceReleased':
      return undefined;
    default:
      return before;
  }
};

export const holding: Projection<Holding> = { name: 'gateway.holding', version: 1, keys, fold };
