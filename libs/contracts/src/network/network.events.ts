import { z } from 'zod';
import { event, type EventOf } from '../event.ts';
import { NetworkId, SubnetId } from '../ids.ts';
import { Name } from '../text.ts';

/** What the DHCP server tells who starts from the network. Its characters are those of paths and URLs: it becomes a line of that server's configuration. */
export const NetworkBoot = z.strictObject({
  file: z.string().regex(/^[A-Za-z0-9/][A-Za-z0-9._~:/?&=%+-]*$/, 'must be a path or a URL').max(127).describe('Fetched by TFTP from the server; a URL (http, tftp) where the firmware is iPXE, as with firmware bios'),
  server: z.ipv4().optional().describe('Of TFTP; not needed where file is a URL'),
}).refine(({ file, server }) => server !== undefined || /^(http|tftp):\/\//.test(file), { path: ['server'], message: 'must be given, unless file is a URL of http or tftp' }).meta({ id: 'NetworkBoot' });
export type NetworkBoot = z.infer<typeof NetworkBoot>;

/** What a node needs to know to realise a network. */
export const NetworkPlan = z.object({
  networkId: NetworkId,
  subnetId: SubnetId,
  name: Name,
  kind: z.enum(['nat']),
  /** For example 10.21.0.0/24. */
  cidr: z.cidrv4(),
  gateway: z.ipv4(),
  prefix: z.int().min(8).max(30),
  /** Name of the bridge on every node: at most 15 characters, the kernel's limit. */
  bridge: z.string().regex(/^[a-z0-9-]{1,15}$/),
  boot: NetworkBoot.optional(),
});
export type NetworkPlan = z.infer<typeof NetworkPlan>;

export const networkEvents = {
  NetworkCreated: event(NetworkPlan),
  NetworkDeleted: event(z.object({ networkId: NetworkId })),
} as const;
export type NetworkEvent = EventOf<typeof networkEvents>;
