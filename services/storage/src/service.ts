import { commandIdOf, keyOf } from '@chronovirt/event-log/command-id';
import { openHost, type Shared } from '@chronovirt/host/host';
import type { Running } from '@chronovirt/host/run';
import type { StorageConfig } from './config.ts';
import { storage } from './storage.consumer.ts';
import { STORAGE, StorageRpc } from './storage.rpc.ts';

/** The only place where storage's parts are joined. It holds no state: any number of replicas may run. */
export const start = async (config: StorageConfig, shared?: Shared): Promise<Running> => {
  const host = await openHost('storage', config, shared);
  await host.listen([StorageRpc], [{ provide: STORAGE, useValue: storage({ handler: host.handler, commandIdOf, keyOf }) }]);
  return host;
};
