import { commandIdOf, keyOf } from '@chronovirt/event-log/command-id';
import { openHost, type Shared } from '@chronovirt/host/host';
import type { Running } from '@chronovirt/host/run';
import type { IpamConfig } from './config.ts';
import { ipam } from './ipam.consumer.ts';
import { IPAM, IpamRpc } from './ipam.rpc.ts';

/** The only place where ipam's parts are joined. It holds no state: any number of replicas may run. */
export const start = async (config: IpamConfig, shared?: Shared): Promise<Running> => {
  const host = await openHost('ipam', config, shared);
  await host.listen([IpamRpc], [{ provide: IPAM, useValue: ipam({ handler: host.handler, commandIdOf, keyOf }) }]);
  return host;
};
