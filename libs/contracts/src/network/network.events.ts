import { z } from 'zod';
import { event, type EventOf } from '../event.ts';
import { NetworkId, SubnetId } from '../ids.ts';
import { Name } from '../text.ts';

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
});
export type NetworkPlan = z.infer<typeof NetworkPlan>;

export const networkEvents = {
  NetworkCreated: event(NetworkPlan),
  NetworkDeleted: event(z.object({ networkId: NetworkId })),
} as const;
export type NetworkEvent = EventOf<typeof networkEvents>;
