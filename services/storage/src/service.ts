import { commandIdOf, keyOf } from '@chronovirt/event-log/command-id';
import { ProjectionRunner } from '@chronovirt/event-log/projection-runner';
import { openHost, type Shared } from '@chronovirt/host/host';
import type { Running } from '@chronovirt/host/run';
import type { StorageConfig } from './config.ts';
import { imageUser } from './image/image-user.projection.ts';
import { usersIn } from './image/image-users.store.ts';
import { storage } from './storage.consumer.ts';
import { STORAGE, StorageRpc } from './storage.rpc.ts';

/** How long a deletion waits for the table to show all that has happened. Milliseconds. */
const CAUGHT_UP_WITHIN_MS = 1_000;

/** The only place where storage's parts are joined. It holds nothing that the log does not: any number of replicas may run. */
export const start = async (config: StorageConfig, shared?: Shared): Promise<Running> => {
  const host = await openHost('storage', config, shared);
  const runner = new ProjectionRunner({
    pool: host.pool, session: host.session, tail: host.tail, log: host.log, schema: 'storage', projections: [imageUser],
    onTrouble: (err) => { host.logger.warn({ err }, 'a projection has trouble, trying again'); },
  });
  runner.start();
  host.onClose(() => runner.stop());
  const parts = storage({
    handler: host.handler, commandIdOf, keyOf,
    usersOf: async (imageId) => {
      // A fault, not an answer: the command comes again.
      if (!(await runner.waitFor(await host.log.head(), CAUGHT_UP_WITHIN_MS))) throw new Error('who uses an image is not known up to now');
      return usersIn(host.pool, imageId);
    },
  });
  await host.listen([StorageRpc], [{ provide: STORAGE, useValue: parts }]);
  return host;
};
