/*
 * The agent on the bus: it takes commands, reports, beats, and says hello whenever it may have been away.
 *
 * A hello is repeated until it is answered, with one id, so that a lost answer does not make a second
 * session. Commands may be delivered at any time; without a session the agent refuses them, and their
 * sender sends them again.
 */
import { randomBytes } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { Welcome } from '@chronovirt/contracts/agent/agent.commands';
import type { Heartbeat, Hello, PoolReport } from '@chronovirt/contracts/agent/agent.commands';
import { CommandEnvelope } from '@chronovirt/contracts/command';
import type { NodeId } from '@chronovirt/contracts/ids';
import { backOffMs } from '@chronovirt/messaging/connect';
import type { Bus, BusLog } from '@chronovirt/messaging/connect';
import { consume, Reject } from '@chronovirt/messaging/consume';
import type { Consumption } from '@chronovirt/messaging/consume';
import { sayHello, sendHeartbeat } from '@chronovirt/messaging/listen';
import { createPublisher } from '@chronovirt/messaging/publish';
import { commandsOfNode } from '@chronovirt/messaging/topology';
import { withSpan } from '@chronovirt/observability/tracing';
import type { Waypoints } from '@chronovirt/observability/waypoints';
import { v7 as uuidV7 } from 'uuid';
import type { Agent, AgentPorts } from './agent.ts';
import { createAgent } from './agent.ts';
import type { Answer } from './answer.ts';
import type { Unseal } from './domain/execute.ts';
import type { Hypervisor } from './hypervisor.ts';
import type { Journal } from './journal/journal.ts';
import { heldHypervisor, heldTake } from './waypoints.os.ts';
import type { Take } from './waypoints.os.ts';

export interface LinkOptions {
  readonly nodeId: NodeId;
  readonly bus: Bus;
  readonly hypervisor: Hypervisor;
  readonly journal: Journal;
  readonly log: BusLog;
  readonly unseal: Unseal;
  readonly volumesKnown: AgentPorts['volumesKnown'];
  readonly bootId: AgentPorts['bootId'];
  /** Tests only. */
  readonly waypoints?: Waypoints | undefined;
  readonly onAnswer?: (command: { readonly type: string; readonly answer: Answer | undefined; readonly seconds: number }) => void;
}

export interface Link {
  readonly agent: Agent;
  /** For readiness, in plain words. */
  status(): { readonly ok: boolean; readonly says: string };
  /** Takes no more commands, and waits a moment for those under way. */
  close(): Promise<void>;
}

const HEARTBEAT_MS = 4_000;
const SWEEP_MS = 60_000;
/** Everything is compared with what was told this often: some of what is done by hand makes no event. */
const COMPARE_MS = 20_000;
/** Guests are asked for the results of what they ran this often. */
const BOOT_RESULTS_MS = 2_000;
const SWEEPS_MAX = 6;
const HELLO_MS = 2_000;
const HELLO_BACK_OFF_FIRST_MS = 100;
const HELLO_BACK_OFF_MAX_MS = 5_000;
const DRAIN_MS = 3_000;
/** The longest wait for a guest is an hour; what takes longer is delivered again and found under way. */
const HANDLING_MS_MAX = 3_700_000;

export function linkAgent({ nodeId, bus, hypervisor: plain, journal, log, unseal, volumesKnown, bootId, waypoints, onAnswer }: LinkOptions): Link {
  const hypervisor = waypoints === undefined ? plain : heldHypervisor(plain, waypoints);
  const publisher = createPublisher({ bus, mayRepair: false });
  const ports: AgentPorts = {
    nodeId, journal, hypervisor, unseal, volumesKnown, bootId,
    now: () => new Date(),
    outdated: () => { greet(); },
    report: async (report) => void (await publisher.publishReport({ nodeId, category: 'vm', id: report.vmId, type: 'DomainReport', body: report })),
    reportDrift: async (report) => void (await publisher.publishReport({ nodeId, category: 'drift', id: nodeId, type: 'DriftReport', body: report })),
    reportBoot: async (report) => void (await publisher.publishReport({ nodeId, category: 'boot', id: report.vmId, type: 'BootReport', body: report })),
    reportProgress: (report) => {
      const about = 'backupId' in report ? { category: 'backup', id: report.backupId, type: 'BackupReport' } as const : { category: 'restore', id: report.vmId, type: 'RestoreReport' } as const;
      publisher.publishReport({ nodeId, ...about, body: report }).catch((fault: unknown) => { log.debug({ err: fault }, 'how far a copy is was not reported'); });
    },
    failed: (vmId, fault) => { log.warn({ err: fault, vmId }, 'a domain was not reported, the next sweep tries again'); },
  };
  const agent = createAgent(ports);
  const take: Take = (envelope) => agent.take(envelope);
  const obey = waypoints === undefined ? take : heldTake(take, waypoints);
  const ended = new AbortController();
  let greeting = new AbortController();
  let greetingSays = 'has not said hello yet';

  const unwatch = hypervisor.watch({
    changed: (vmId) => {
      if (agent.session() === undefined) return;
      void agent.look(vmId);
      void agent.compare(vmId);
    },
    touched: (vmId) => void agent.compare(vmId),
    strange: () => void agent.lookAround(),
    missed: () => void sweepSoon(),
  });

  /** Again after a moment where it failed: what was missed must not wait for the next sweep. */
  const sweepSoon = async (): Promise<void> => {
    for (let attempt = 0; attempt < SWEEPS_MAX && !ended.signal.aborted && !((await agent.sweep()) && (await agent.sweepDrift())); attempt++) {
      await delay(backOffMs(attempt, 500, 10_000), undefined, { signal: ended.signal }).catch(() => undefined);
    }
  };

  const reportPools = async (): Promise<void> => {
    for (const pool of await hypervisor.pools()) {
      const { poolId } = pool;
      const body: PoolReport = { nodeId, ...pool };
      await publisher.publishReport({ nodeId, category: 'pool', id: poolId, type: 'PoolReport', body });
    }
  };

  const greetOnce = async (signal: AbortSignal): Promise<void> => {
    const helloId = uuidV7();
    let hello: Hello | undefined;
    for (let attempt = 0; ; attempt++) {
      try {
        hello ??= await agent.hello(helloId);
        const welcome = Welcome.parse(await sayHello(bus.nc, nodeId, hello, HELLO_MS));
        if (signal.aborted) return;
        const before = journal.session();
        if (!agent.welcome(helloId, welcome)) return;
        greetingSays = `in session ${welcome.session}`;
        log.info({ session: welcome.session, vms: welcome.vms.length }, 'welcome heard, commands are taken');
        if (welcome.session < before) log.warn({ session: welcome.session, before }, 'the session went back: was the control plane restored from a backup?');
        break;
      } catch (fault) {
        if (signal.aborted) return;
        greetingSays = `waiting for an answer to its hello: ${fault instanceof Error ? fault.message : String(fault)}`;
        const waitMs = backOffMs(attempt, HELLO_BACK_OFF_FIRST_MS, HELLO_BACK_OFF_MAX_MS);
        log[attempt === 3 ? 'warn' : 'debug']({ err: fault, attempt }, 'hello was not answered, saying it again');
        await delay(waitMs, undefined, { signal }).catch(() => undefined);
        if (signal.aborted) return;
      }
    }
    for (let attempt = 0; !signal.aborted; attempt++) {
      try {
        await reportPools();
        return;
      } catch (fault) {
        log.warn({ err: fault }, 'pools were not reported, trying again');
        await delay(backOffMs(attempt, 1_000, 30_000), undefined, { signal }).catch(() => undefined);
      }
    }
  };

  /** Ends the greeting that is under way: it spoke of a time before. */
  const greet = (): void => {
    greeting.abort();
    greeting = new AbortController();
    void greetOnce(AbortSignal.any([greeting.signal, ended.signal]));
  };

  const handle = async (data: unknown): Promise<Answer> => {
    const parsed = CommandEnvelope.safeParse(data);
    if (!parsed.success) throw new Reject(`not a command: ${parsed.error.issues.map((issue) => `${issue.path.join('.')}: ${issue.message}`).slice(0, 5).join('; ')}`);
    const envelope = parsed.data;
    const began = performance.now();
    const settled = (answer: Answer | undefined): void => onAnswer?.({ type: envelope.type, answer, seconds: (performance.now() - began) / 1_000 });
    try {
      const answer = await withSpan(`obey ${envelope.type}`, { kind: 'internal', attributes: { 'cv.command': envelope.id, 'cv.node': nodeId } }, () => obey(envelope));
      log.info({ commandId: envelope.id, type: envelope.type, vmId: envelope.data['vmId'], refused: 'refused' in answer ? answer.refused : undefined, traceparent: envelope.meta.traceparent }, 'command answered');
      settled(answer);
      return answer;
    } catch (fault) {
      settled(undefined);
      throw fault;
    }
  };

  // Each message is a key of its own: the agent itself keeps the order of each VM, and a command that
  // cancels another must not wait behind it.
  const consumption: Consumption = consume({
    bus, log,
    spec: commandsOfNode(nodeId),
    handle: (delivery) => handle(delivery.json()),
    keyOf: () => randomBytes(8).toString('hex'),
    concurrency: commandsOfNode(nodeId).ackPendingMax,
    // A lost acknowledgement means another delivery, and the journal answers that.
    confirmed: false,
    handlingMsMax: HANDLING_MS_MAX,
  });

  const beat = async (): Promise<void> => {
    const { memoryUsedPercent, loadPercent } = await hypervisor.usage();
    const heartbeat: Heartbeat = { nodeId, session: agent.session() ?? 0, nodeAt: new Date().toISOString(), memoryUsedPercent, loadPercent };
    // What cannot go out now is worth nothing later.
    if (bus.status().ok) sendHeartbeat(bus.nc, nodeId, heartbeat);
  };
  const heartbeats = setInterval(() => void beat().catch((fault: unknown) => { log.warn({ err: fault }, 'no heartbeat'); }), HEARTBEAT_MS);
  const sweeps = setInterval(() => {
    void agent.sweep();
    // How full they are changes while nobody says hello.
    if (bus.status().ok && agent.session() !== undefined) reportPools().catch((fault: unknown) => { log.warn({ err: fault }, 'pools were not reported, the next sweep tries again'); });
  }, SWEEP_MS);
  let comparing: Promise<unknown> | undefined;
  // A slow one is not joined by the next.
  const comparisons = setInterval(() => { comparing ??= agent.sweepDrift().finally(() => { comparing = undefined; }); }, COMPARE_MS);
  let lookingForResults: Promise<unknown> | undefined;
  const bootResults = setInterval(() => { lookingForResults ??= agent.lookForBootResults().finally(() => { lookingForResults = undefined; }); }, BOOT_RESULTS_MS);
  const stopGreeting = bus.onReconnect(greet);
  greet();
  void beat().catch(() => undefined);

  return {
    agent,
    status: () => {
      const onBus = bus.status();
      if (!onBus.ok) return onBus;
      const receiving = consumption.status();
      return receiving.ok ? { ok: agent.session() !== undefined, says: greetingSays } : receiving;
    },
    close: async () => {
      ended.abort();
      stopGreeting();
      unwatch();
      clearInterval(heartbeats);
      clearInterval(sweeps);
      clearInterval(comparisons);
      clearInterval(bootResults);
      await consumption.stop(DRAIN_MS);
      agent.halt();
    },
  };
}
