/* One agent, from what it is told to what it runs. */
import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { NodeId } from '@chronovirt/contracts/ids';
import { backOffMs, connectBus, CredentialsRefused } from '@chronovirt/messaging/connect';
import { unseal } from '@chronovirt/messaging/seal';
import { agentInboxPrefix } from '@chronovirt/messaging/topology';
import { createReadiness, startHealthServer } from '@chronovirt/observability/health';
import type { Readiness } from '@chronovirt/observability/health';
import { createLog } from '@chronovirt/observability/log';
import type { Log } from '@chronovirt/observability/log';
import { createMetrics } from '@chronovirt/observability/metrics';
import type { Metrics } from '@chronovirt/observability/metrics';
import { startTracing } from '@chronovirt/observability/tracing';
import { openWaypoints } from '@chronovirt/observability/waypoints';
import { linkAgent } from './bus-link.os.ts';
import type { Link } from './bus-link.os.ts';
import { answerConsoles } from './console/answer-consoles.os.ts';
import type { Consoles, Inspector } from './console/answer-consoles.os.ts';
import type { AgentConfig } from './config.ts';
import type { Unseal } from './domain/execute.ts';
import { poolIdOf } from './host.os.ts';
import type { Hypervisor } from './hypervisor.ts';
import { gatewayBytes, type GatewayBytes } from './images/gateway-bytes.os.ts';
import { joinOrRecall, tokenFromFile } from './join.os.ts';
import type { Membership } from './join.os.ts';
import { createMemoryJournal } from './journal/journal.ts';
import type { Journal } from './journal/journal.ts';
import type { LibvirtHost } from './libvirt/host.ts';
import type { FakeMachine } from './simulated/fake-machine.os.ts';

/** A service that was started. */
export interface Running {
  close(): Promise<void>;
  /** Resolves when it cannot go on, with why; never when it was closed. */
  readonly failed: Promise<Error>;
}

/** What several agents of one process have together. */
export interface Shared {
  readonly log: Log;
  readonly metrics: Metrics;
  readonly readiness: Readiness;
}

/** At least so often. */
const SWEEP_IMAGES_MS = 600_000;
export const AGENT_VERSION = '0.1.0';
/** Calls at once to a fake daemon, which answers most of them before the next is sent. */
const SIMULATED_IN_FLIGHT = 32;

/** Starts the agent. It returns at once: the gateway, libvirt and the bus are waited for, and readiness says which. */
export async function start(config: AgentConfig): Promise<Running> {
  const tracing = await startTracing('node-agent');
  const log = createLog({ service: 'node-agent', level: config.logLevel });
  const shared: Shared = { log, metrics: createMetrics({ ofTheProcess: true }), readiness: createReadiness() };
  const health = config.healthPort === undefined ? undefined : await startHealthServer({ host: config.healthHost, port: config.healthPort, readiness: shared.readiness, metrics: shared.metrics });
  const running = startAgent(config, shared, () => tokenFromFile(config.joinTokenFile));
  return {
    failed: running.failed,
    close: async () => {
      await running.close();
      await health?.close();
      await tracing.stop();
    },
  };
}

/** One agent among those of the process. `part` names it in readiness. */
export function startAgent(config: AgentConfig, shared: Shared, joinToken: () => Promise<string>, part = ''): Running & { readonly machine: () => FakeMachine | undefined } {
  const { readiness, metrics } = shared;
  const log = part === '' ? shared.log : shared.log.child({ part });
  const ended = new AbortController();
  const ends: (() => unknown)[] = [];
  let says = 'starting';
  let link: Link | undefined;
  let machine: FakeMachine | undefined;
  let closing: Promise<void> | undefined;
  const name = (what: string): string => (part === '' ? what : `${part} ${what}`);

  ends.push(readiness.add(name('node'), () => link?.status() ?? { ok: false, says }));
  const seconds = metrics.histogram('cv_agent_command_seconds', 'From a command\'s arrival to its answer', ['type', 'outcome']);

  const open = async (): Promise<void> => {
    says = `joining at ${config.gatewayUrl}`;
    const membership = await joinOrRecall({ ...config, joinToken, log, signal: ended.signal });
    const { nodeId } = membership;
    const openSealed: Unseal = (sealed, purpose) => unseal({ publicKey: membership.sealKey, privateKey: membership.sealPrivateKey }, sealed, purpose);
    const gateway = gatewayBytes({ gatewayUrl: config.gatewayUrl, nodeId, credentialSeed: membership.credentialSeed, log });
    says = 'waiting for the hypervisor';
    const [hypervisor, journal, consoles] = await openHypervisor(config, nodeId, { gateway, unseal: openSealed, log, signal: ended.signal, onWait: (why) => { says = `waiting for libvirt: ${why}`; }, opened: (made) => { machine = made; } });
    ends.push(() => hypervisor.close());
    if (hypervisor.status !== undefined) ends.push(readiness.add(name('hypervisor'), hypervisor.status));
    ends.push(() => journal.close?.());
    says = 'connecting to the bus';
    const bus = await connectToBus(config, membership, log, ended.signal);
    ends.push(() => bus.close());
    const bootId = config.bootIdFile === undefined ? '' : (await readFile(config.bootIdFile, 'utf8')).trim();
    link = linkAgent({
      bootId: () => bootId,
      nodeId, bus, hypervisor, journal, log, volumesKnown: (volumeIds) => gateway.volumesKnown(volumeIds),
      unseal: openSealed,
      waypoints: config.waypoints === undefined ? undefined : openWaypoints(config.waypoints),
      onAnswer: ({ type, answer, seconds: took }) => { seconds.observe({ type, outcome: answer === undefined ? 'fault' : 'refused' in answer ? 'refused' : 'done' }, took); },
    });
    const opened = link;
    ends.push(() => opened.close());
    const lines = answerConsoles({ nodeId, bus, consoles, inspector: hypervisor, log, unseal: openSealed });
    ends.push(() => { lines.close('node.stopping'); });
    void bus.closed.then((reason) => { if (closing === undefined && reason !== undefined) fail(refusedByBus(reason, config)); });
  };

  const { promise: failed, resolve: fail } = Promise.withResolvers<Error>();
  const opening = open().catch((fault: unknown) => {
    if (ended.signal.aborted) return;
    says = fault instanceof Error ? fault.message : String(fault);
    fail(fault instanceof CredentialsRefused ? refusedByBus(fault, config) : fault instanceof Error ? fault : new Error(String(fault)));
  });

  return {
    failed,
    machine: () => machine,
    close: () => (closing ??= (async () => {
      ended.abort();
      await opening;
      for (const end of ends.splice(0).reverse()) await Promise.resolve().then(end).catch((err: unknown) => { log.warn({ err }, 'trouble while closing'); });
    })()),
  };
}

const refusedByBus = (reason: Error, { stateDir }: AgentConfig): Error =>
  (reason instanceof CredentialsRefused
    ? new Error(`the bus refuses this node: it was removed, or its credentials were revoked. To join again, move ${join(stateDir, 'node.json')} and keys.json away, issue a join token, and start the agent.`, { cause: reason })
    : reason);

async function connectToBus(config: AgentConfig, { nodeId, natsJwt, natsUrls, credentialSeed }: Membership, log: Log, signal: AbortSignal): ReturnType<typeof connectBus> {
  const connecting = connectBus({
    servers: config.natsUrl ?? natsUrls,
    credentials: { jwt: () => natsJwt, seed: credentialSeed },
    name: nodeId,
    inboxPrefix: agentInboxPrefix(nodeId),
    giveUpWhenRefused: true,
    log,
    ...(config.natsCaFile === undefined ? {} : { caFile: config.natsCaFile }),
  });
  // It waits for its first server for ever; whoever closes the agent meanwhile does not.
  const aborted = new Promise<never>((_resolve, reject) => { signal.addEventListener('abort', () => { reject(signal.reason as Error); }, { once: true }); });
  signal.throwIfAborted();
  return Promise.race([connecting, aborted]).catch((fault: unknown) => {
    void connecting.then((bus) => bus.close(), () => undefined);
    throw fault;
  });
}

interface Opening {
  readonly gateway: GatewayBytes;
  readonly unseal: Unseal;
  readonly log: Log;
  readonly signal: AbortSignal;
  readonly onWait: (why: string) => void;
  readonly opened: (machine: FakeMachine) => void;
}

type Opened = Hypervisor & Inspector & { close(): Promise<void>; readonly status?: () => { readonly ok: boolean; readonly says: string } };

async function openHypervisor(config: AgentConfig, nodeId: NodeId, { gateway, unseal: openSealed, log, signal, onWait, opened }: Opening): Promise<readonly [Opened, Journal & { close?(): void }, Consoles]> {
  const { hypervisor } = config;
  const { libvirtConsoles } = await import('./libvirt/libvirt-consoles.os.ts');
  if (hypervisor.kind === 'simulated') {
    const { createFakeMachine } = await import('./simulated/fake-machine.os.ts');
    const machine = createFakeMachine({ name: config.name, poolId: poolIdOf(nodeId, 'simulated'), ...hypervisor.simulated });
    opened(machine);
    const connected = await openLibvirt(machine.host, SIMULATED_IN_FLIGHT, { nodeId, log, signal, onWait });
    // Its domains end with the process, so what was answered about them is worth nothing afterwards.
    return [{ ...connected, close: () => connected.close().then(() => machine.daemon.close()) }, createMemoryJournal(), libvirtConsoles(machine.host)];
  }
  const [{ openPoolFolders }, { openJournal }, { machineHost }, { findAccel }] = await Promise.all([import('./pool/pool-folders.os.ts'), import('./journal/journal.store.ts'), import('./libvirt/machine.os.ts'), import('./accel.os.ts')]);
  await mkdir(config.stateDir, { recursive: true, mode: 0o700 });
  const { kind: driver, inFlightMax, poolRoots, ...machine } = hypervisor;
  const pools = await openPoolFolders({ own: { poolId: poolIdOf(nodeId, 'local'), path: machine.poolDir }, roots: poolRoots, file: join(config.stateDir, 'pools.json') });
  const accel = driver === 'test' ? { accel: 'tcg' as const, because: '' } : await findAccel({ remember: join(config.stateDir, 'accel.json') });
  const host = machineHost({ ...machine, pools, nodeId, driver, stateDir: config.stateDir, consoleDir: join(config.stateDir, 'console'), accel, gateway, ended: signal, log, unseal: openSealed });
  sweepImages(host, machine.imageKeepMs, { log, signal });
  log.info(host.accel, 'how guests run here');
  return [await openLibvirt(host, inFlightMax, { nodeId, log, signal, onWait }), openJournal(join(config.stateDir, 'journal.sqlite')), libvirtConsoles(host)];
}

/** Now and then, until the agent ends. */
function sweepImages({ sweepImages: sweep }: LibvirtHost, keepMs: number, { log, signal }: Pick<Opening, 'log' | 'signal'>): void {
  if (sweep === undefined) return;
  const timer = setInterval(() => {
    sweep().then((gone) => { if (gone.length > 0) log.info({ gone: gone.slice(0, 10), count: gone.length }, 'images that nobody needs were taken away'); }, (err: unknown) => { log.info({ err }, 'images were not looked through, trying again'); });
  }, Math.min(SWEEP_IMAGES_MS, keepMs));
  timer.unref();
  signal.addEventListener('abort', () => { clearInterval(timer); }, { once: true });
}

/** libvirtd may start after the agent; it is waited for. */
async function openLibvirt(host: LibvirtHost, inFlightMax: number, { nodeId, log, signal, onWait }: Omit<Opening, 'opened' | 'gateway' | 'unseal'> & { readonly nodeId: NodeId }): Promise<Opened> {
  const { connectLibvirt } = await import('./libvirt/libvirt-hypervisor.os.ts');
  for (let attempt = 0; ; attempt++) {
    try {
      return await connectLibvirt({ nodeId, host, inFlightMax, agentVersion: AGENT_VERSION, log });
    } catch (fault) {
      onWait(fault instanceof Error ? fault.message : String(fault));
      log[attempt === 2 ? 'warn' : 'debug']({ err: fault, libvirt: host.says }, 'libvirt cannot be reached, trying again');
      await delay(backOffMs(attempt, 200, 5_000), undefined, { signal });
    }
  }
}
