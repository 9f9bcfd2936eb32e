/*
 * A machine with its agent. The machine (domains, disks, leases) outlives the agent; the agent's journal
 * outlives the agent unless the run says that it is lost. The agent is the production one, over the simulated
 * hypervisor; here is only what its process does around it: connect, say hello, beat, receive, report.
 */
import type { DomainReport, Hello, Welcome } from '@chronovirt/contracts/agent/agent.commands';
import type { CommandEnvelope } from '@chronovirt/contracts/command';
import { idFrom, type NodeId, type PoolId, type VmId, type VolumeId } from '@chronovirt/contracts/ids';
import type { Answer } from '@chronovirt/decider/decider';
import { commandIdOf } from '@chronovirt/event-log/command-id';
import { Mailbox } from '@chronovirt/event-log/mailbox';
import { type Agent, type Broken, createAgent } from '@chronovirt/node-agent/agent';
import type { Hypervisor } from '@chronovirt/node-agent/hypervisor';
import { createMemoryJournal, type Journal } from '@chronovirt/node-agent/journal/journal';
import { createSimulatedMachine, type SimulatedMachine, type SimulatedTarget, type Verb } from '@chronovirt/node-agent/simulated/simulated-hypervisor';
import type { Bus, Consumer } from './bus.ts';
import { type Life, never, Program } from './program.ts';
import type { Weather } from './weather.ts';
import type { World } from './world.ts';

const HEARTBEAT_MS = 4_000;
const HELLO_AGAIN_MS = 2_000;
const SWEEP_MS = 60_000;
/** Less than is waited for all to be well at the end of a storm. */
const TELL_AGAIN_MS = SWEEP_MS / 2;
const COMPARE_MS = 20_000;
const BOOT_RESULTS_MS = 5_000;
/** Between a message of the server that the connection broke and the next connection. */
const RECONNECT_MS = 1_000;

export interface NodeSize {
  readonly cpus: number;
  readonly memoryMib: number;
  readonly poolGib: number;
}

const VERBS: readonly Verb[] = ['ensureDisk', 'removeDisk', 'ensureVolume', 'workOnVolume', 'settleVolume', 'openPool', 'closePool', 'lookAtPool', 'ensureNetwork', 'ensureLease', 'removeLease', 'restoreNetwork', 'define', 'restore', 'adopt', 'release', 'configure', 'layer', 'keepInside', 'tidy', 'backup', 'undoBackup', 'removeBackup', 'restoreDisks', 'start', 'shutdown', 'save', 'destroy', 'reboot', 'reset', 'suspend', 'resume', 'askGuest', 'setOfflinePassword', 'remove'];

export class NodeProgram extends Program {
  readonly nodeId: NodeId;
  readonly poolId: PoolId;
  readonly size: NodeSize;
  readonly machine: SimulatedMachine;
  journal: Journal;
  agent: Agent | undefined;
  /** How often the agent was killed: each time, one verb may have been done and not recorded. */
  kills = 0;
  powerCycles = 0;
  /** The agent stays down until it is told otherwise. */
  down = false;
  private readonly jobs = new Mailbox();
  private readonly bus: Bus;
  private readonly broken: Broken;
  private readonly isVolume: (volumeId: VolumeId) => boolean;
  private unwatch: () => void = () => undefined;

  constructor(number: number, size: NodeSize, { world, weather, bus, broken, target, isVolume }: { world: World; weather: () => Weather; bus: Bus; broken: Broken; target: SimulatedTarget; isVolume: (volumeId: VolumeId) => boolean }) {
    const nodeId: NodeId = idFrom('node', world.random.digits());
    super(nodeId, world, weather);
    this.nodeId = nodeId;
    this.poolId = idFrom('pool', world.random.digits());
    this.size = size;
    this.bus = bus;
    this.broken = broken;
    this.isVolume = isVolume;
    this.journal = createMemoryJournal();
    this.machine = createSimulatedMachine({
      ...size, poolId: this.poolId, target,
      latency: () => this.verbTime(),
      trouble: (verb) => {
        const { refused, failing } = this.weather();
        if (world.random.chance(failing)) throw new Error(`${verb} failed`);
        // What takes something away is never impossible, only late.
        return world.random.chance(refused) && !['removeDisk', 'removeLease', 'destroy', 'remove', 'tidy', 'release', 'settleVolume', 'closePool', 'undoBackup', 'removeBackup'].includes(verb) ? { refused: 'hypervisor.refused', because: { verb } } : undefined;
      },
      deaf: () => world.random.chance(this.weather().deaf),
    });
    world.tell(() => `node ${String(number)} is ${nodeId}`);
  }

  protected begin(life: Life): void {
    const { world, nodeId, bus } = this;
    let party: Consumer | undefined;
    const agent = createAgent({
      nodeId, journal: this.journal, hypervisor: this.dangerous(life), now: () => new Date(world.now()), tellAgainMs: TELL_AGAIN_MS,
      outdated: () => { connect(); },
      bootId: () => String(this.powerCycles),
      volumesKnown: async (volumeIds) => {
        if (party === undefined || !life.on) throw new Error('not connected');
        return volumeIds.filter(this.isVolume);
      },
      report: (report: DomainReport) => (party === undefined || !life.on ? Promise.reject(new Error('not connected')) : bus.publish(party, 'reports.vm', report)),
      reportBoot: (report) => (party === undefined || !life.on ? Promise.reject(new Error('not connected')) : bus.publish(party, 'reports.boot', report)),
      reportProgress: (report) => { if (party !== undefined && life.on) void bus.publish(party, 'backupId' in report ? 'reports.backup' : 'reports.restore', report).catch(() => undefined); },
      reportDrift: (report) => (party === undefined || !life.on ? Promise.reject(new Error('not connected')) : bus.publish(party, 'reports.drift', report)),
    }, this.broken);
    this.agent = agent;
    this.unwatch = this.machine.hypervisor.watch({ changed: (vmId) => {
      void agent.look(vmId);
      void agent.compare(vmId);
    }, strange: () => { void agent.lookAround(); }, missed: () => { void agent.sweep(); } });

    let hello: string | undefined;
    const connect = (): void => {
      const helloId = commandIdOf(world.random.digits());
      hello = helloId;
      agent.hello(helloId).then((said) => { say(said); }, () => { world.after(HELLO_AGAIN_MS, connect); });
    };
    const say = (said: Hello): void => {
      if (!life.on || hello !== said.helloId || party === undefined) return;
      bus.request(party, 'hellos', said, (answer) => {
        if (hello !== said.helloId || !agent.welcome(said.helloId, answer as Welcome)) return;
        hello = undefined;
        world.tell(() => `${nodeId} has session ${String(agent.session())}`);
        if (party !== undefined) void bus.publish(party, 'reports.pool', { nodeId, poolId: this.poolId, name: 'simulated', capacityGib: this.size.poolGib }).catch(() => undefined);
      });
      world.after(HELLO_AGAIN_MS, () => { say(said); });
    };
    const take = async (body: unknown): Promise<Answer> => {
      const envelope = body as CommandEnvelope;
      const answer = (await agent.take(envelope)) as Answer;
      world.tell(() => `${nodeId} answers ${envelope.type} ${JSON.stringify(envelope.data['vmId'])} (${envelope.id.slice(0, 8)}, session ${String(envelope.session)}): ${JSON.stringify(answer)}`);
      return answer;
    };
    world.every(500, () => life.on, () => {
      const cut = bus.isCut(nodeId);
      if (cut === (party === undefined)) return;
      if (cut) {
        if (party !== undefined) bus.leaveQueue(nodeId, party);
        party = undefined;
        return;
      }
      party = { name: nodeId, life, answered: () => undefined, handle: take };
      bus.consume(nodeId, party);
      world.after(world.random.between(0, RECONNECT_MS), connect);
    });
    world.every(HEARTBEAT_MS, () => life.on, () => {
      if (party !== undefined && agent.session() !== undefined) bus.broadcast(nodeId, 'heartbeats', { nodeId, session: agent.session(), nodeAt: new Date(world.now()).toISOString(), memoryUsedPercent: 0, loadPercent: 0 });
    });
    world.every(SWEEP_MS, () => life.on, () => { void agent.sweep(); });
    world.every(BOOT_RESULTS_MS, () => life.on, () => { void agent.lookForBootResults(); });
    world.every(COMPARE_MS, () => life.on, () => { void agent.sweepDrift(); });
    this.connectAgain = connect;
  }

  /** The server lost what it had: every connection begins anew. */
  connectAgain: () => void = () => undefined;

  protected override ended(): void {
    this.kills += 1;
    this.bus.forget(this.name);
    this.agent?.halt();
    this.unwatch();
    this.agent = undefined;
    if (this.world.random.chance(this.weather().journalLost)) {
      this.world.tell(() => `${this.name} has lost its journal`);
      this.journal = createMemoryJournal();
    }
  }

  private verbTime(): Promise<void> {
    const { random } = this.world;
    const { hanging, hangingMs } = this.weather();
    return this.world.sleep(random.chance(hanging) ? random.between(1_000, Math.max(1_000, hangingMs)) : random.between(1, 40));
  }

  /** The hypervisor as the agent reaches it: at each verb, before or after its effect, the agent may be killed. */
  private dangerous(life: Life): Hypervisor {
    const { hypervisor } = this.machine;
    const { random } = this.world;
    const danger = (where: string): void => {
      if (!life.on || !random.chance(this.weather().agentKilled)) return;
      this.kill(where);
      this.world.after(random.between(500, 20_000), () => { if (!this.down) this.boot(); });
    };
    const wrapped = VERBS.map((verb) => {
      const original = hypervisor[verb].bind(hypervisor) as (...args: unknown[]) => Promise<unknown>;
      return [verb, async (...args: unknown[]) => {
        danger(`before ${verb}`);
        if (!life.on) return never;
        // What an agent began goes on without it, and whoever comes next waits: libvirt has a lock for each domain.
        const outcome = await this.jobs.run(objectOf(args), () => original(...args));
        danger(`after ${verb}`);
        return life.on ? outcome : never;
      }] as const;
    });
    return { ...hypervisor, ...(Object.fromEntries(wrapped) as unknown as Pick<Hypervisor, Verb>) };
  }
}

/** The VM that a verb is about: disks and domains carry its digits; leases and networks have a lock of their own. */
const objectOf = (args: readonly unknown[]): string => {
  const about = args.find((arg) => typeof arg === 'string') ?? args.map((arg) => (arg as { vmId?: string; volumeId?: string })).map(({ vmId, volumeId }) => vmId ?? volumeId).find((id) => id !== undefined);
  return about === undefined ? 'network' : String(about).slice(-32);
};

export const isRunning = (machine: SimulatedMachine, vmId: VmId): boolean => ['running', 'paused'].includes(machine.domains.get(vmId)?.state ?? 'absent');
