import { z } from 'zod';
import { command, type CommandOf } from '../command.ts';
import { NetworkId } from '../ids.ts';
import { Name } from '../text.ts';
import { NetworkBoot, NetworkPlan } from './network.events.ts';

/** The body of POST /v1/networks. */
export const CreateNetworkBody = z.strictObject({
  name: Name,
  kind: z.enum(['nat']).default('nat'),
  cidr: z.cidrv4().describe('IPv4, prefix 8 to 30; the first address is the gateway'),
  reserved: z.array(z.ipv4()).max(1_000).default([]).describe('Addresses that are never leased, for example virtual IPs'),
  boot: NetworkBoot.optional().describe('What VMs start that start from the network'),
}).meta({ id: 'CreateNetwork' });

export const networkCommands = {
  CreateNetwork: command('ipam', 'networkId', z.object({ networkId: NetworkId, ...CreateNetworkBody.shape })),
  DeleteNetwork: command('ipam', 'networkId', z.object({ networkId: NetworkId })),
  /** From CreateNetwork's handler. */
  RecordNetwork: command('ipam', 'networkId', NetworkPlan),
} as const;
export type NetworkCommand = CommandOf<typeof networkCommands>;
