import { z } from 'zod';
import { command, type CommandOf } from '../command.ts';
import { NetworkId, SubnetId, VmId } from '../ids.ts';

/** The body of PATCH /v1/networks/:id: addresses to keep from being leased, or to give free again. */
export const ChangeReservedBody = z.strictObject({
  reserve: z.array(z.ipv4()).max(1_000).default([]),
  unreserve: z.array(z.ipv4()).max(1_000).default([]),
}).meta({ id: 'ChangeReserved' });

export const subnetCommands = {
  CreateSubnet: command('ipam', 'subnetId', z.object({ subnetId: SubnetId, networkId: NetworkId, cidr: z.cidrv4(), reserved: z.array(z.ipv4()) })),
  LeaseAddress: command('ipam', 'subnetId', z.object({ subnetId: SubnetId, vmId: VmId })),
  ReleaseAddress: command('ipam', 'subnetId', z.object({ subnetId: SubnetId, vmId: VmId })),
  /** One in each of these. Facts: `nics`, of each its subnetId, address and mac. */
  LeaseAddresses: command('ipam', 'vmId', z.object({ vmId: VmId, subnetIds: z.array(SubnetId).min(1).max(15) })),
  /** Whatever a VM has in these. */
  ReleaseAddresses: command('ipam', 'vmId', z.object({ vmId: VmId, subnetIds: z.array(SubnetId).min(1).max(16) })),
  ChangeReserved: command('ipam', 'subnetId', z.object({ subnetId: SubnetId, ...ChangeReservedBody.shape })),
  DeleteSubnet: command('ipam', 'subnetId', z.object({ subnetId: SubnetId })),
} as const;
export type SubnetCommand = CommandOf<typeof subnetCommands>;
