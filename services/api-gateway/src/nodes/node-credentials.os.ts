/*
 * Credentials of node agents on the bus: minted when one joins, revoked when a node is removed.
 *
 * Minting takes the agents' signing key alone. Revoking takes the operator's key and a user of the system
 * account; where these are kept elsewhere, revoking says so and somebody else has to do it. Removed nodes are
 * revoked again at each start and every minute by whoever leads, because a bus that was away, or one whose
 * accounts were put back, knows nothing of it; a key that is revoked already costs nothing.
 */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { connectBus, type Bus } from '@chronovirt/messaging/connect';
import { type InstallationKeys, mintAgentJwt, renewAccounts, revokeAgents } from '@chronovirt/messaging/credentials';
import type { Log } from '@chronovirt/observability/log';

export interface NodeCredentials {
  /** A JWT for the agent's own key. */
  mint(nodeId: string, userPublicKey: string): Promise<string>;
  /** Closes the agents' connections and refuses the next ones. Rejects when the bus is away. */
  revoke(userPublicKeys: readonly string[]): Promise<void>;
  /** What this version has to say passes between agents and services, also in an older installation. Rejects when the bus is away. */
  renew(): Promise<void>;
}

/** `keysDir` holds installation.json and, where revoking is to work, system.creds. */
export const openNodeCredentials = async (keysDir: string, natsUrl: string, log: Log): Promise<NodeCredentials> => {
  const keys = JSON.parse(await readFile(join(keysDir, 'installation.json'), 'utf8')) as InstallationKeys;
  const asSystem = async (work: (system: Bus['nc']) => Promise<void>): Promise<void> => {
    const system = await connectBus({ servers: natsUrl, credentials: { file: join(keysDir, 'system.creds') }, name: 'gateway accounts', log });
    try {
      await work(system.nc);
    } finally {
      await system.close();
    }
  };
  return {
    mint: (nodeId, userPublicKey) => mintAgentJwt({ keys, nodeId, userPublicKey }),
    revoke: (userPublicKeys) => (userPublicKeys.length === 0 ? Promise.resolve() : asSystem((system) => revokeAgents({ system, keys, userPublicKeys }))),
    renew: () => asSystem((system) => renewAccounts({ system, keys })),
  };
};
