import { Heartbeat } from '@chronovirt/contracts/agent/agent.commands';
import type { PresenceCommand } from '@chronovirt/contracts/presence/presence.commands';
import { streamOf, type NodeId } from '@chronovirt/contracts/ids';
import { newCommandId } from '@chronovirt/event-log/command-id';
import { openHost, type Shared } from '@chronovirt/host/host';
import { openProjections } from '@chronovirt/host/projections';
import type { Running } from '@chronovirt/host/run';
import { listenToHeartbeats } from '@chronovirt/messaging/listen';
import type { MonitorConfig } from './config.ts';
import { nodePresence } from './presence/node-presence.projection.ts';
import { presence } from './presence/presence.ts';
import { Watch } from './presence/watch.ts';

const LOOK_EVERY_MS = 1_000;

/**
 * The only place where monitor's parts are joined. Every replica hears the heartbeats; the one that leads
 * records what they mean. Whoever takes over gives each node the full time to be heard.
 */
export const start = async (config: MonitorConfig, shared?: Shared): Promise<Running> => {
  const host = await openHost('monitor', config, shared);
  const { documents } = await openProjections(host, [nodePresence], []);
  const nodes = documents(nodePresence);

  const record = (commands: readonly PresenceCommand[], failed: (command: PresenceCommand) => void): void => {
    for (const command of commands) {
      const { nodeId } = command.data;
      host.handler
        .handle(presence, { id: newCommandId(), stream: streamOf(presence.category, nodeId), command, cancels: [], meta: { actor: 'system:monitor', nodeId }, store: 'events' })
        .then(({ appended }) => { if (appended.length > 0) host.logger.info({ nodeId, what: command.type }, 'presence of a node changed'); })
        .catch((err: unknown) => {
          failed(command);
          host.logger.warn({ err, nodeId, what: command.type }, 'presence could not be recorded, it is tried again');
        });
    }
  };

  host.lead('presence', () => {
    const watch = new Watch();
    const failed = (command: PresenceCommand): void => { watch.failed(command); };
    const known = new Set<string>();
    const heartbeats = listenToHeartbeats(host.bus.nc, (nodeId, body) => {
      const heartbeat = Heartbeat.safeParse(body);
      if (!heartbeat.success || heartbeat.data.nodeId !== nodeId) return;
      record(watch.heard(heartbeat.data.nodeId, Date.parse(heartbeat.data.nodeAt), Date.now()), failed);
    }, host.logger);
    const stop = host.every(LOOK_EVERY_MS, 'looking for silent nodes', () => {
      const now = Date.now();
      for (const node of nodes.values()) {
        if (node.seen) watch.expect(node.nodeId, node.silent, now);
        known.add(node.nodeId);
      }
      for (const nodeId of known) {
        if (nodes.has(nodeId)) continue;
        known.delete(nodeId);
        watch.forget(nodeId as NodeId);
      }
      record(watch.overdue(now), failed);
    });
    return () => {
      stop();
      heartbeats.stop();
    };
  });
  return host;
};
