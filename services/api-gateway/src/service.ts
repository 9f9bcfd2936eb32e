import { setTimeout as sleep } from 'node:timers/promises';
import { idFrom } from '@chronovirt/contracts/ids';
import { type Answer, isRefusal } from '@chronovirt/decider/decider';
import { commandIdOf } from '@chronovirt/event-log/command-id';
import type { Projection } from '@chronovirt/event-log/projection';
import { ProjectionRunner } from '@chronovirt/event-log/projection-runner';
import { type Host, openHost, type Shared } from '@chronovirt/host/host';
import type { Running } from '@chronovirt/host/run';
import { openLine } from '@chronovirt/messaging/lines';
import { createAuthentication } from './auth.http.ts';
import { backupPolicyView } from './backups/backup-policy.projection.ts';
import { backupView } from './backups/backup.projection.ts';
import { bootJobView, bootRunView } from './boot-jobs/boot-job.projection.ts';
import { ByteStore } from './bytes/byte-store.os.ts';
import type { GatewayConfig } from './config.ts';
import { ConsoleRelay } from './console/console-relay.http.ts';
import { askingNodes } from './console/ask-node.http.ts';
import { ConsoleStore } from './console/console.store.ts';
import { publicUrlOf } from './console/console-url.ts';
import { createGateway } from './gateway.http.ts';
import type { Gateway } from './gateway.ts';
import { driftPolicyView, driftView } from './drift/drift.projection.ts';
import { EventFeed } from './history/event-feed.store.ts';
import { vmHistory } from './history/vm-history.projection.ts';
import { imageView } from './images/image.projection.ts';
import { imageImportView } from './images/image-import.projection.ts';
import { ImageImports } from './images/image-imports.os.ts';
import { networkView, subnetView } from './networks/network.projection.ts';
import { holding } from './nodes/holding.projection.ts';
import { openNodeCredentials } from './nodes/node-credentials.os.ts';
import { nodeSummary, type NodeSummary } from './nodes/node-summary.projection.ts';
import { acceptedCommand } from './operations/accepted-command.projection.ts';
import { acceptance, operation } from './operations/operation.ts';
import { operationView } from './operations/operation.projection.ts';
import { Operations } from './operations/operations.store.ts';
import { OwedCommands } from './operations/owed-commands.store.ts';
import { poolView } from './pools/pool.projection.ts';
import { volumeView } from './volumes/volume.projection.ts';
import { Reading } from './reading.store.ts';
import { PENDING_AFTER_MS, type SubmitPorts } from './submit.ts';
import { apiToken } from './tokens/token.ts';
import { sshKeyView } from './ssh-keys/ssh-key.projection.ts';
import { apiTokenView, joinTokenView } from './tokens/token.projection.ts';
import { Views } from './views.store.ts';
import { vmSummary } from './vms/vm-summary.projection.ts';

/** Everything the gateway shows, in the order of its tables. */
export const gatewayProjections = [
  vmSummary, operationView, acceptedCommand, nodeSummary, holding, networkView, subnetView, imageView, poolView, volumeView, backupView, backupPolicyView, apiTokenView, joinTokenView, sshKeyView, bootJobView, bootRunView, vmHistory, imageImportView, driftView, driftPolicyView,
] as unknown as readonly Projection<unknown>[];

const IMPORTS_EVERY_MS = 250;
const SWEEP_EVERY_MS = 600_000;
const OWED_EVERY_MS = 1_000;
const REVOKE_EVERY_MS = 60_000;
const CONSOLES_EVERY_MS = 10_000;
/** A log that answers later than this is away, as far as a waiting caller is concerned. */
const LOG_WITHIN_MS = 1_500;
/** How long a start waits for the projections; it goes on without them, and /readyz says so. */
const CAUGHT_UP_WITHIN_MS = 10_000;
/** How far projections may be behind before the gateway says that it is not ready. */
const LAG_READY_EVENTS = 5_000;

export interface RunningGateway extends Running {
  /** http://<host>:<port> */
  readonly url: string;
}

/** The only place where the gateway's parts are joined. It holds nothing that the log does not: any number of replicas may run. */
export const start = async (config: GatewayConfig, shared?: Shared): Promise<RunningGateway> => {
  const host = await openHost('gateway', config, shared);
  try {
    return await join(host, config);
  } catch (error) {
    await host.close();
    throw error;
  }
};

const join = async (host: Host, config: GatewayConfig): Promise<RunningGateway> => {
  const runner = new ProjectionRunner({
    pool: host.pool, session: host.session, tail: host.tail, log: host.log, schema: 'gateway', projections: gatewayProjections,
    onTrouble: (err) => { host.logger.warn({ err }, 'a projection has trouble, trying again'); },
  });
  runner.start();
  host.onClose(() => runner.stop());

  const views = new Views(host.pool);
  const feed = new EventFeed({ log: host.log, tail: host.tail, pool: host.pool });
  const credentials = config.natsKeys === undefined ? undefined : await openNodeCredentials(config.natsKeys, config.natsUrl, host.logger);
  const consoles = new ConsoleStore(host.pool);
  const lineTo: Gateway['openLine'] = (nodeId, what) => openLine({ nc: host.bus.nc, nodeId, what });
  const gateway: Gateway = {
    bytes: await storeOf(config), images: config.images,
    consoles, consoleUrl: (asked) => publicUrlOf(config.consoleUrl, asked), openLine: lineTo, askNode: askingNodes(lineTo),
    installation: config.installation, natsUrls: config.natsPublicUrls, ports: portsOf(host), views, feed, credentials,
    reading: new Reading(runner, views), operations: new Operations(views), events: host.log, handler: host.handler,
    authentication: createAuthentication({ installation: config.installation, find: (sha256) => views.token(sha256) }),
    readiness: host.readiness, metrics: host.metrics, log: host.logger, now: () => new Date(),
  };
  watch(host, runner, views, feed);

  const owed = new OwedCommands({ views, publish: (envelope) => gateway.ports.publish(envelope), log: host.logger, now: () => Date.now() });
  host.lead('gateway owed commands', () => host.every(OWED_EVERY_MS, 'sending what is owed', async () => { await owed.send(); }));
  if (credentials !== undefined) {
    host.lead('gateway accounts', () => host.every(REVOKE_EVERY_MS, 'renewing accounts and revoking removed nodes', async () => {
      await credentials.renew();
      const removed = await views.page<NodeSummary>('node_summary', { after: '', limit: 10_000, where: 'removed' });
      await credentials.revoke(removed.flatMap(({ credentialKeys }) => credentialKeys));
    }));
  }

  const { bytes } = gateway;
  if (bytes !== undefined) {
    host.lead('gateway images', () => {
      const imports = new ImageImports(gateway);
      const stops = [
        host.every(IMPORTS_EVERY_MS, 'importing images', () => imports.tick()),
        host.every(Math.min(SWEEP_EVERY_MS, config.images.keepMs), 'sweeping the store of images', async () => {
          const gone = await bytes.sweep({ now: Date.now(), ageMs: config.images.keepMs, isNeeded: (sha256) => views.hasImageOf(sha256) });
          if (gone.length > 0) host.logger.info({ count: gone.length, first: gone.slice(0, 5) }, 'what no image needs was taken from the store');
        }),
      ];
      return async () => {
        for (const stop of stops) stop();
        await imports.stop();
      };
    });
  }

  const app = await createGateway(gateway, { traced: config.traced });
  host.onClose(async () => {
    feed.close();
    await app.close();
  });
  const relay = new ConsoleRelay({ gateway, store: consoles, origins: config.consoleOrigins, idleMs: config.consoleIdleMs });
  // Before the rest: what is open is recorded as closed.
  host.onClose(() => relay.close());
  relay.attach(app.getHttpServer());
  host.lead('gateway consoles', () => host.every(CONSOLES_EVERY_MS, 'closing consoles that lost their gateway', () => relay.sweep()));
  host.metrics.gauge('cv_gateway_consoles_count', 'Consoles that are relayed now', [], (gauge) => { gauge.set(relay.count); });
  if (config.adminTokenSha256 !== undefined) {
    await ensureAdminToken(gateway, config.adminTokenSha256);
    // Whoever started us calls at once, with this token.
    await runner.waitFor(await host.log.head(), CAUGHT_UP_WITHIN_MS);
  }
  await app.listen(config.port, config.host);
  const url = (await app.getUrl()).replace('[::1]', '127.0.0.1');
  host.logger.info({ url }, 'gateway listens');
  return { url, close: () => host.close() };
};

const storeOf = async ({ images: { dir, bytesMax, totalBytesMax, uploadsMax } }: GatewayConfig): Promise<ByteStore | undefined> => {
  if (dir === undefined) return undefined;
  const store = new ByteStore({ dir, bytesMax, totalBytesMax, partsMax: uploadsMax });
  await store.prepare();
  return store;
};

const bounded = <T>(work: Promise<T>): Promise<T> => {
  const late = new AbortController();
  return Promise.race([
    work.finally(() => { late.abort(); }),
    sleep(LOG_WITHIN_MS, undefined, { signal: late.signal }).then(() => { throw new Error('the log did not answer in time'); }),
  ]);
};

const portsOf = (host: Host): SubmitPorts => ({
  expect: (envelope, timeoutMs) => host.replies.expect(envelope.id, { timeoutMs, to: envelope.to, target: envelope.target }).then((answer) => answer as Answer, () => undefined),
  publish: (envelope) => host.publisher.publishCommand(envelope, { reply: host.replies.subjectFor(envelope.to, envelope.target) }).then(() => true, (err: unknown) => {
    host.logger.debug({ err, commandId: envelope.id, to: envelope.to }, 'command not published, it is sent again');
    return false;
  }),
  stored: (commandId) => bounded(host.log.answered(commandId)),
  accept: async (accepting) => (await bounded(host.handler.handle(operation, acceptance(accepting)))).answer,
  wait: (ms) => sleep(Math.min(ms, PENDING_AFTER_MS), undefined),
  uuidFrom: commandIdOf,
});

/** The hash names the command, so every start of every replica issues the same token once; one that was revoked stays so. */
const ensureAdminToken = async (gateway: Gateway, sha256: string): Promise<void> => {
  const tokenId = idFrom('token', commandIdOf(`admin-token:${sha256}`));
  const { answer } = await gateway.handler.handle(apiToken, {
    id: commandIdOf(`issue-admin-token:${sha256}`), stream: `token-${tokenId}`, cancels: [], meta: { actor: 'system:gateway' },
    command: { type: 'IssueApiToken', data: { tokenId, name: 'admin', sha256 } },
  });
  // 30 days later the answer is forgotten and the decider says that it exists.
  if (isRefusal(answer) && answer.refused !== 'token.exists') throw new Error(`the admin token could not be issued: ${answer.refused}`);
};

/** What /readyz says beside what the host knows, and what a person asks at night. */
const watch = (host: Host, runner: ProjectionRunner, views: Views, feed: EventFeed): void => {
  const lagOf = async (): Promise<number> => {
    const head = await host.log.head();
    const { rows } = await host.pool.query<{ position: string }>('select min(position) as position from gateway.checkpoint');
    return Math.max(0, head - (runner.position >= 0 ? runner.position : Number(rows[0]?.position ?? 0)));
  };
  host.readiness.add('projections', async () => {
    const lag = await lagOf();
    return { ok: lag < LAG_READY_EVENTS, says: lag === 0 ? 'show everything that has happened' : `are ${String(lag)} events behind the log` };
  });
  host.readiness.add('nodes', async () => {
    const nodes = await views.page<NodeSummary>('node_summary', { after: '', limit: 10_000, where: 'not removed' });
    const silent = nodes.filter(({ silentSince }) => silentSince !== null);
    const joining = nodes.filter(({ description }) => description === null);
    if (nodes.length === 0) return { ok: true, says: 'no node has joined yet: VMs have nowhere to run' };
    const names = (some: readonly NodeSummary[]): string => some.slice(0, 5).map(({ name }) => name).join(', ') + (some.length > 5 ? ', …' : '');
    const words = [`${String(nodes.length - silent.length - joining.length)} of ${String(nodes.length)} nodes are heard`];
    if (silent.length > 0) words.push(`silent: ${names(silent)}`);
    if (joining.length > 0) words.push(`joined and not come yet: ${names(joining)}`);
    // A node that is away is no reason to send callers to another gateway.
    return { ok: true, says: words.join('; ') };
  });
  host.metrics.gauge('cv_gateway_projection_lag_events', 'Events in the log that the gateway does not show yet', [], async (gauge) => { gauge.set(await lagOf()); });
  host.metrics.gauge('cv_http_event_streams_count', 'Clients that follow the log live', [], (gauge) => { gauge.set(feed.count); });
};
