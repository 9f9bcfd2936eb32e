import { z } from 'zod';
import { event, type EventOf } from '../event.ts';
import { NetworkId, SubnetId, VmId } from '../ids.ts';

export const Mac = z.string().regex(/^([0-9a-f]{2}:){5}[0-9a-f]{2}$/);

export const subnetEvents = {
  SubnetCreated: event(z.object({ subnetId: SubnetId, networkId: NetworkId, cidr: z.cidrv4(), gateway: z.ipv4(), reserved: z.array(z.ipv4()) })),
  AddressLeased: event(z.object({ vmId: VmId, address: z.ipv4(), mac: Mac })),
  AddressReleased: event(z.object({ vmId: VmId, address: z.ipv4() })),
  AddressesReserved: event(z.object({ addresses: z.array(z.ipv4()) })),
  AddressesUnreserved: event(z.object({ addresses: z.array(z.ipv4()) })),
  SubnetDeleted: event(z.object({ subnetId: SubnetId })),
} as const;
export type SubnetEvent = EventOf<typeof subnetEvents>;
