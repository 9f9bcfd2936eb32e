/*
 * The agent's core: which commands it obeys, and in what order. It touches nothing itself, so that the
 * simulation runs this very code with a faulty network and crashes.
 *
 *   envelope ─▶ answered before? ─▶ cancels ─▶ queue of the VM ─▶ session ─▶ generation ─▶ verb ─▶ journal ─▶ answer
 *
 * Everything may come twice, late, and in any order. Four things keep that harmless:
 *
 * - The journal. A command that was answered is answered again, never obeyed again. A fault is no
 *   answer: it is thrown, and the bus delivers the command once more.
 * - Cancelling. Whoever takes a command back names it in its own command; it is then answered
 *   'command.cancelled' before it was seen. One that is under way is told to stop waiting, and its
 *   canceller stands behind it in the same queue.
 * - Sessions. At each connect the agent says hello and hears which VMs are here. It takes no command
 *   before, and none that was meant for an earlier session. These two refusals are not journaled: the
 *   sender sends the same command again, for the session that is.
 * - Generations. Each placement of a VM has a number. An older one is refused. A VM that is placed
 *   elsewhere or deleted ('vm.not_here') may still be cleaned away, by a command of any generation: what
 *   lies here belongs to no living placement. A newer generation makes it a VM of this node again. What
 *   takes a VM's domain or disk away ends its placement: whatever of it comes later is too late.
 *
 * One VM's commands run one at a time: recall and record are not a lock.
 */
import { agentCommands } from '@chronovirt/contracts/agent/agent.commands';
import type { AgentCommand, BackupReport, DomainReport, Hello, RestoreReport, Welcome } from '@chronovirt/contracts/agent/agent.commands';
import { type BootResult, bootSecretPurpose } from '@chronovirt/contracts/boot-job/boot-job';
import type { BootReport } from '@chronovirt/contracts/boot-job/boot-job.commands';
import type { CommandEnvelope } from '@chronovirt/contracts/command';
import type { NetworkId, NodeId, PoolId, VmId, VolumeId } from '@chronovirt/contracts/ids';
import { accept, CANCELLED, isRefusal, refuse } from './answer.ts';
import type { Accepted, Answer, Refusal } from './answer.ts';
import { withoutSecrets } from './boot-jobs/boot-runs.ts';
import { concernsDisk, endsPlacement, execute, isOfNoDomain, isOfPool, isOfVolume, isRemoval } from './domain/execute.ts';
import type { Unseal } from './domain/execute.ts';
import { isKnown, isPowerVerb, planIn, powerAfter, remadeBy, remakes, volumesIn } from './domain/told.ts';
import type { DriftReport } from '@chronovirt/contracts/drift/drift.commands';
import type { DomainPlan, Hypervisor } from './hypervisor.ts';
import type { Journal } from './journal/journal.ts';
import { createDriftWatch } from './observe/drift.ts';
import { createObserver } from './observe/observer.ts';

export interface AgentPorts {
  readonly nodeId: NodeId;
  readonly journal: Journal;
  readonly hypervisor: Hypervisor;
  /** Resolves once the bus has stored the report. */
  readonly report: (report: DomainReport) => Promise<void>;
  /** The same for what differs from what was told. */
  readonly reportDrift: (report: DriftReport) => Promise<void>;
  /** The same for what a guest said of what it was to run at its boot. */
  readonly reportBoot: (report: BootReport) => Promise<void>;
  /** How far a backup, or what is made of one, has come: nobody waits for it to arrive. */
  readonly reportProgress?: (report: BackupReport | RestoreReport) => void;
  /** Which of these volumes there are, as the control plane knows. */
  readonly volumesKnown: (volumeIds: readonly VolumeId[]) => Promise<readonly VolumeId[]>;
  /** Another each time that the machine was started. */
  readonly bootId: () => string;
  readonly now: () => Date;
  /** How a domain is is told again after so long. Milliseconds; default 5 minutes. */
  readonly tellAgainMs?: number;
  /** Opens secrets that were sealed to this node; without it none are taken. */
  readonly unseal?: Unseal;
  /** A command speaks of a newer session than ours: a hello of ours that we had given up was heard. Say hello again. */
  readonly outdated?: () => void;
  /** Told of what went wrong where nobody waits for an answer. */
  readonly failed?: (vmId: VmId | undefined, fault: unknown) => void;
}

/** What the simulation takes out, to see that it finds the damage. Never set in production. */
export interface Broken {
  readonly journalForgotten?: boolean;
  readonly sessionIgnored?: boolean;
  readonly generationIgnored?: boolean;
  readonly cancelsIgnored?: boolean;
}

export interface Agent {
  /** The answer, recorded. Rejects on a fault: then there is none, and the command must come again. */
  take(envelope: CommandEnvelope): Promise<Answer>;
  /** What to say when the bus is there (again). No command is taken until its welcome; repeat it until then. */
  hello(helloId: string): Promise<Hello>;
  /** The answer to a hello; false when it answers an earlier one. Reports what changed since that hello. */
  welcome(helloId: string, welcome: Welcome): boolean;
  /** The session, or undefined between a hello and its welcome. */
  session(): number | undefined;
  /** Something happened to this domain. Never rejects. */
  look(vmId: VmId): Promise<void>;
  /** It may not be what it was told to be. Never rejects. */
  compare(vmId: VmId): Promise<void>;
  /** Looks at domains that are not ours, at networks and at files. Never rejects. */
  lookAround(): Promise<void>;
  /** Compares everything with what this node was told; false when that could not be done. Never rejects. */
  sweepDrift(): Promise<boolean>;
  /** Looks for what guests said of what they were to run at their boot. Never rejects. */
  lookForBootResults(): Promise<void>;
  /** Compares all domains with what was told; false when that could not be done. Never rejects. */
  sweep(): Promise<boolean>;
  /** From here on nothing is recorded, answered or reported, as if the process had been killed. */
  halt(): void;
}

/** Commands of one VM that may wait. More come from a sender gone wrong; they are faults, delivered again later. */
const WAITING_MAX = 64;

const TELL_AGAIN_MS = 5 * 60_000;

export class QueueFull extends Error {
  override readonly name = 'QueueFull';
  constructor(vmId: string) { super(`more than ${WAITING_MAX} commands wait for ${vmId}`); }
}

export class Halted extends Error {
  override readonly name = 'Halted';
  constructor() { super('the agent has ended'); }
}

export function createAgent(ports: AgentPorts, broken: Broken = {}): Agent {
  const { nodeId, journal, hypervisor, now, unseal } = ports;
  /** Set by a welcome, cleared by a hello. */
  let session: number | undefined;
  let helloPending: string | undefined;
  let halted = false;
  const running = new Map<string, AbortController>();
  /** Commands that wait or are under way, for one session each: a copy gets the answer of the first. */
  const taken = new Map<string, Promise<Answer>>();
  const queues = new Map<Queued, { tail: Promise<unknown>; waiting: number }>();

  const observer = createObserver({
    nodeId,
    hypervisor,
    report: (report) => (halted ? Promise.reject(new Halted()) : ports.report(report)),
    now,
    tellAgainMs: ports.tellAgainMs ?? TELL_AGAIN_MS,
    generationOf: (vmId) => journal.vm(vmId)?.generation ?? 0,
    expected: () => journal.vms().flatMap(({ vmId, here }) => (here && isVm(vmId) ? [vmId] : [])),
    failed: (vmId, fault) => { if (!halted) ports.failed?.(vmId, fault); },
  });

  const whileAlive = async <T>(work: Promise<T>): Promise<T> => {
    const done = await work;
    if (halted) throw new Halted();
    return done;
  };

  /** Volumes that verbs are about, how many each; and who wants to know which those were since it asked. */
  const held = new Map<VolumeId, number>();
  const onlookers = new Set<Set<VolumeId>>();
  const hold = (volumeIds: readonly VolumeId[]): (() => void) => {
    for (const volumeId of volumeIds) {
      held.set(volumeId, (held.get(volumeId) ?? 0) + 1);
      for (const onlooker of onlookers) onlooker.add(volumeId);
    }
    return () => {
      for (const volumeId of volumeIds) {
        const others = (held.get(volumeId) ?? 1) - 1;
        if (others > 0) held.set(volumeId, others);
        else held.delete(volumeId);
      }
    };
  };

  const drift = createDriftWatch({
    nodeId, journal, now, bootId: ports.bootId,
    hypervisor: { compare: (told) => hypervisor.compare(told), strangers: (besides) => hypervisor.strangers(besides), files: () => whileAlive(hypervisor.files()), compareNetworks: (plans) => hypervisor.compareNetworks(plans) },
    isBusy: (vmId) => queues.has(vmId),
    volumesKnown: (volumeIds) => whileAlive(ports.volumesKnown(volumeIds)),
    inHand: async (work) => {
      const volumes = new Set(held.keys());
      onlookers.add(volumes);
      try {
        return await work(volumes);
      } finally {
        onlookers.delete(volumes);
      }
    },
    whenIdle: (vmId, work) => (queues.has(vmId) ? undefined : enqueue(vmId, () => (halted ? Promise.reject(new Halted()) : work()))),
    report: (report) => (halted ? Promise.reject(new Halted()) : ports.reportDrift(report)),
    failed: (vmId, fault) => { if (!halted) ports.failed?.(vmId, fault); },
  });

  const recall = (commandId: string): Answer | undefined => {
    const answer = journal.recall(commandId);
    return broken.journalForgotten === true && answer !== undefined && !isCancelled(answer) ? undefined : answer;
  };

  const cancel = (commandId: string): void => {
    const underWay = running.get(commandId);
    // Under way: its answer is still to come, and says what it did. Whoever cancels it waits behind it.
    if (underWay !== undefined) underWay.abort();
    else journal.record(commandId, CANCELLED);
  };

  /** One at a time for each VM, in the order of arrival. */
  const enqueue = async <T>(vmId: Queued, work: () => Promise<T>): Promise<T> => {
    const queue = queues.get(vmId) ?? { tail: Promise.resolve(), waiting: 0 };
    if (queue.waiting >= WAITING_MAX) throw new QueueFull(vmId);
    queues.set(vmId, queue);
    queue.waiting++;
    const mine = queue.tail.then(work);
    queue.tail = mine.catch(() => undefined);
    try {
      return await mine;
    } finally {
      queue.waiting--;
      if (queue.waiting === 0) queues.delete(vmId);
    }
  };

  const sessionRefusal = (envelope: CommandEnvelope): Refusal | undefined => {
    if (broken.sessionIgnored === true) return undefined;
    if (session === undefined) return refuse('node.no_session', { node: nodeId });
    if (envelope.session !== undefined && envelope.session > session) ports.outdated?.();
    if (envelope.session !== session) return refuse('node.old_session', { session, meant: envelope.session ?? null });
    return undefined;
  };

  const generationRefusal = (command: AgentCommand): Refusal | undefined => {
    // A volume that is gone is gone, and one that no VM has has no placement.
    if ((command.type === 'EnsureDisk' || (isOfVolume(command) && command.type !== 'RemoveVolume')) && journal.vm(command.data.volumeId)?.here === false) return refuse('volume.removed', { volumeId: command.data.volumeId });
    if (isOfNoDomain(command)) return undefined;
    const { type, data: { vmId, generation } } = command;
    if (broken.generationIgnored === true) return undefined;
    const known = journal.vm(vmId);
    if (known !== undefined && !known.here && generation <= known.generation) {
      return isRemoval(type) ? undefined : refuse('vm.not_here', { generation: known.generation, meant: generation });
    }
    if (known !== undefined && generation < known.generation) return refuse('vm.old_generation', { generation: known.generation, meant: generation });
    // Before the verb, so that a crash in its middle does not let an older placement in again.
    if (known === undefined || generation > known.generation) journal.remember({ vmId, generation, here: true });
    return undefined;
  };

  const hear = async (command: Extract<AgentCommand, { type: 'TellDomain' }>): Promise<Answer> => {
    const { vmId, pending, report } = command.data;
    const plan = planIn(command);
    const facts = await observer.facts(vmId);
    // Who stopped it, we or somebody else, nobody knows any more.
    if (plan !== undefined && !halted && !isKnown(journal.told(vmId)) && drift.isAsked(vmId, report)) journal.tell({ plan, power: powerAfter(command.type, undefined, facts.state), boot: ports.bootId(), pending, unsettled: false, unsure: false });
    return accept(facts);
  };

  const obey = async (id: string, command: AgentCommand): Promise<Answer> => {
    if (command.type === 'TellDomain') return hear(command);
    const underWay = new AbortController();
    running.set(id, underWay);
    const letGo = hold(volumesIn(command));
    const unknow = (): void => { for (const file of journal.files()) if (remakes(command, file)) journal.unknow(file); };
    unknow();
    // Until it is answered, whoever answers it, these may come and go: what this process began goes on without it.
    const remade = remadeBy(command);
    for (const volumeId of remade) journal.unsettle(volumeId);
    const plan = planIn(command);
    const about = objectOf(command);
    const before = isVm(about) ? journal.told(about) : undefined;
    if (isVm(about)) drift.takeBack(about);
    const boot = ports.bootId();
    // Whatever is there from here on may be half of what was and half of what shall be.
    if (endsPlacement(command.type) && isVm(about)) journal.forget(about);
    else if (plan !== undefined && before?.unsettled !== true) journal.tell({ ...(before ?? { plan, pending: [], power: 'stopped', unsure: true }), unsettled: true });
    else if (before?.unsure === false && isPowerVerb(command.type)) journal.tell({ ...before, unsure: true });
    try {
      const outcome = await execute(command, hypervisor, underWay.signal, unseal, (report) => { if (!halted) ports.reportProgress?.({ nodeId, ...report }); }).catch((fault: unknown) => {
        // Taken back meanwhile: it must not come again behind the one that took it back.
        if (underWay.signal.aborted) return CANCELLED;
        throw fault;
      });
      if (halted) throw new Halted();
      for (const volumeId of remade) journal.settle(volumeId);
      if (isRefusal(outcome)) {
        // What was refused did nothing, except to a domain that runs: that is taken back by a command of its own.
        if (command.type !== 'ConfigureDomain' && !isCancelled(outcome) && !endsPlacement(command.type)) {
          if (before !== undefined) journal.tell(before);
          else if (plan !== undefined) journal.forget(plan.vmId);
        }
        return outcome;
      }
      if (command.type === 'RemoveVolume' && !halted) journal.remember({ vmId: command.data.volumeId, generation: 1, here: false });
      if (isOfNoDomain(command)) return accept(outcome === undefined ? undefined : factsOf(outcome));
      if (endsPlacement(command.type)) journal.remember({ vmId: command.data.vmId, generation: command.data.generation, here: false });
      if (concernsDisk(command.type)) return accept();
      const { vmId } = command.data;
      const facts = { ...(await observer.facts(vmId)), ...factsOf(outcome) };
      // A domain that was released is still there, and is somebody else's.
      const now = endsPlacement(command.type) ? undefined : plan ?? before?.plan;
      if (now !== undefined && !halted && facts.state !== 'absent') {
        const power = command.type === 'ConfigureDomain' && command.data.restore !== null ? command.data.restore : powerAfter(command.type, before?.unsure === true ? undefined : before?.power, facts.state);
        // A verb that leaves it on or off as it was says nothing about what the machine was started again without.
        const isItsPower = before === undefined || before.unsure || isPowerVerb(command.type) || (command.type === 'ConfigureDomain' && command.data.restore !== null);
        journal.tell({ plan: now, power, boot: isItsPower ? boot : before.boot ?? boot, unsure: false, pending: outcome !== undefined && 'pending' in outcome ? outcome.pending : command.type === 'StartDomain' && facts.reason !== RESTORED ? [] : before?.pending ?? [], unsettled: plan === undefined && before?.unsettled === true });
      } else if (plan !== undefined && before === undefined && !halted) journal.forget(vmId);
      return accept(facts);
    } finally {
      if (!halted) unknow();
      letGo();
      running.delete(id);
    }
  };

  /** What was reported and heard of VMs that have not been told otherwise since. */
  const heardOf = new Map<VmId, string>();

  /** Each is told until it was heard; then nothing of them is left on this node. Told again after a start of the agent, which does no harm. */
  const bootResultsOf = async ({ vmId, bootRuns = [] }: DomainPlan): Promise<void> => {
    const secretsOf = (run: (typeof bootRuns)[number]): readonly string[] => run.variables.flatMap((one) => ('sealed' in one && unseal !== undefined ? [unseal(one.sealed, bootSecretPurpose(vmId, run.runId, one.name))] : []));
    const said = await hypervisor.bootResults(vmId);
    const results = bootRuns.flatMap((run): readonly BootResult[] => {
      const result = said.find(({ runId }) => runId === run.runId);
      return result === undefined ? [] : [{ ...result, output: withoutSecrets(result.output, secretsOf(run)) }];
    });
    const key = results.map(({ runId }) => runId).join();
    if (results.length === 0 || heardOf.get(vmId) === key) return;
    await ports.reportBoot({ nodeId, vmId, results, nodeAt: now().toISOString() });
    if (results.length === bootRuns.length) await hypervisor.wipeRuns(vmId, bootRuns);
    heardOf.set(vmId, key);
  };

  const lookForBootResults = async (): Promise<void> => {
    const waiting = journal.tolds().map(({ plan }) => plan).filter(({ vmId, bootRuns = [] }) => bootRuns.length > 0 && journal.vm(vmId)?.here === true);
    for (const vmId of heardOf.keys()) if (!waiting.some((plan) => plan.vmId === vmId)) heardOf.delete(vmId);
    for (const plan of waiting) await bootResultsOf(plan).catch((fault: unknown) => { if (!halted) ports.failed?.(plan.vmId, fault); });
  };

  const settle = (commandId: string, answer: Answer): Answer => {
    if (halted) throw new Halted();
    journal.record(commandId, answer);
    return answer;
  };

  return {
    take: async (envelope) => {
      if (halted) throw new Halted();
      const command = read(envelope, nodeId);
      if ('refused' in command) return command;
      const earlier = recall(envelope.id);
      if (earlier !== undefined) return earlier;
      // At once, not in the queue: what waits there must learn of it, and what waits for a guest must stop.
      if (broken.cancelsIgnored !== true) envelope.cancels.forEach(cancel);
      // While a verb hangs, its sender sends again and again: the copies must not fill the queue.
      const copy = `${envelope.id} ${String(envelope.session)}`;
      const first = taken.get(copy);
      if (first !== undefined) return first;
      const answer = enqueue(objectOf(command), async () => {
        if (halted) throw new Halted();
        const meanwhile = recall(envelope.id);
        if (meanwhile !== undefined) return meanwhile;
        const stale = sessionRefusal(envelope);
        if (stale !== undefined) return stale;
        const outdated = generationRefusal(command);
        if (outdated !== undefined) return settle(envelope.id, outdated);
        return settle(envelope.id, await obey(envelope.id, command));
      }).finally(() => { taken.delete(copy); });
      const isOfFound = command.type === 'EnsureVolume' && command.data.source.kind === 'found';
      if (isOfFound || ['AdoptDomain', 'ReleaseDomain', 'RestoreNetwork', 'AcceptVolume'].includes(command.type)) void answer.then(() => drift.lookAround(), () => undefined);
      // It may have brought back what was known to differ, or have been in the way of a look.
      const about = objectOf(command);
      // And what is taken back was not told while that was under way.
      const isToldAnew = command.type === 'TellDomain' || (command.type === 'ConfigureDomain' && command.data.insist);
      if (isVm(about)) void answer.then(() => (drift.knows(about) || isToldAnew ? drift.look(about) : undefined), () => undefined);
      taken.set(copy, answer);
      return answer;
    },

    hello: async (helloId) => {
      session = undefined;
      helloPending = helloId;
      observer.pause();
      drift.pause();
      const description = await hypervisor.describe();
      const inventory = await observer.inventory();
      return {
        helloId,
        nodeId,
        description,
        inventory: inventory.slice(0, INVENTORY_MAX).map(({ vmId, generation, state, reason }) => ({ vmId, generation, state, reason })),
        nodeAt: now().toISOString(),
      };
    },

    welcome: (helloId, welcome) => {
      if (halted || helloId !== helloPending) return false;
      helloPending = undefined;
      journal.adopt(welcome.session, welcome.vms);
      session = welcome.session;
      observer.adopt(welcome.session);
      drift.adopt(welcome.session);
      // What happened between the look and the welcome was reported to nobody.
      void observer.sweep();
      void drift.sweep();
      return true;
    },

    session: () => session,
    // One that carries our words and was not told to be here is somebody's copy, or has been moved here.
    compare: (vmId) => (halted ? Promise.resolve() : journal.vm(vmId)?.here === true ? drift.look(vmId) : drift.lookAround()),
    lookAround: () => (halted ? Promise.resolve() : drift.lookAround()),
    lookForBootResults: () => (halted || session === undefined ? Promise.resolve() : lookForBootResults()),
    sweepDrift: () => (halted || session === undefined ? Promise.resolve(true) : drift.sweep()),
    look: (vmId) => (halted ? Promise.resolve() : observer.look(vmId)),
    // Without a session nobody is told, and the welcome sweeps.
    sweep: () => (halted || session === undefined ? Promise.resolve(true) : observer.sweep()),
    halt: () => {
      halted = true;
      for (const underWay of running.values()) underWay.abort();
    },
  };
}

type Queued = VmId | VolumeId | PoolId | NetworkId;

/** Whose queue a command stands in. */
const objectOf = (command: AgentCommand): Queued => {
  if (command.type === 'RestoreNetwork') return command.data.network.networkId;
  if (isOfPool(command)) return command.data.poolId;
  if (command.type === 'RemoveVolume') return command.data.vmId ?? command.data.volumeId;
  return isOfVolume(command) ? command.data.volumeId : command.data.vmId;
};

const isVm = (id: Queued): id is VmId => id.startsWith('vm_');
/** What an answer says beside the state of the domain. */
const factsOf = (outcome: Exclude<Awaited<ReturnType<typeof execute>>, Refusal>): Accepted['facts'] & object =>
  (outcome === undefined ? {} : 'method' in outcome ? { method: outcome.method } : 'pending' in outcome ? { pending: [...outcome.pending] } : { ...outcome });

/** One that goes on from where it was saved is as it was then. */
const RESTORED = 'restored';

/** The contract's bound on a hello. */
const INVENTORY_MAX = 16_384;

const isCancelled = (answer: Answer): boolean => 'refused' in answer && answer.refused === CANCELLED.refused;

function read(envelope: CommandEnvelope, nodeId: NodeId): AgentCommand | Refusal {
  if (!isVerb(envelope.type)) return refuse('node.unknown_command', { type: envelope.type });
  const parsed = agentCommands[envelope.type].schema.safeParse(envelope.data);
  if (!parsed.success) return refuse('node.bad_command', { type: envelope.type, issues: parsed.error.issues.slice(0, 10).map((issue) => `${issue.path.join('.')}: ${issue.message}`) });
  if (parsed.data.nodeId !== nodeId) return refuse('node.another_node', { node: nodeId, meant: parsed.data.nodeId });
  // The table gave type and schema together; the compiler does not follow an index.
  return { type: envelope.type, data: parsed.data } as AgentCommand;
}

const isVerb = (type: string): type is AgentCommand['type'] => Object.hasOwn(agentCommands, type);
