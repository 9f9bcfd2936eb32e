/*
 * The services of the simulation: the production parts, joined to the simulated log, bus and clock in the way
 * their `service.ts` joins them to Postgres, NATS and the machine's clock.
 */
import type { BackupReport, DomainReport, Heartbeat, Hello, PoolReport, RestoreReport } from '@chronovirt/contracts/agent/agent.commands';
import type { CommandEnvelope } from '@chronovirt/contracts/command';
import type { BootReport } from '@chronovirt/contracts/boot-job/boot-job.commands';
import type { DriftReport } from '@chronovirt/contracts/drift/drift.commands';
import { idFrom, streamOf, type NodeId } from '@chronovirt/contracts/ids';
import type { PresenceCommand } from '@chronovirt/contracts/presence/presence.commands';
import type { Answer } from '@chronovirt/decider/decider';
import { commandIdOf, keyOf } from '@chronovirt/event-log/command-id';
import { CommandHandler } from '@chronovirt/event-log/handle';
import { Mailbox } from '@chronovirt/event-log/mailbox';
import type { MemoryLog } from '@chronovirt/event-log/memory-log';
import { ProjectionInMemory } from '@chronovirt/event-log/projection';
import { ipam } from '@chronovirt/ipam/ipam.consumer';
import { nodePresence } from '@chronovirt/monitor/presence/node-presence.projection';
import { presence } from '@chronovirt/monitor/presence/presence';
import { Watch } from '@chronovirt/monitor/presence/watch';
import { Scheduler, schedulerSagas } from '@chronovirt/scheduler/scheduler.consumer';
import { SchedulerView } from '@chronovirt/scheduler/view.projection';
import { imageUser, usersAmong } from '@chronovirt/storage/image/image-user.projection';
import { storage } from '@chronovirt/storage/storage.consumer';
import type { Bus, Consumer } from './bus.ts';
import { type Life, Program } from './program.ts';
import type { Weather } from './weather.ts';
import type { World } from './world.ts';

export interface Surroundings {
  readonly world: World;
  readonly weather: () => Weather;
  readonly log: MemoryLog;
  readonly isLogAway: () => boolean;
  readonly bus: Bus;
  /** Without it, commands cancel nothing: what the simulation takes out to see that it is missed. */
  readonly cancelsIgnored: boolean;
  /** Undos run in the order of the steps. */
  readonly undoForward: boolean;
}

/** Milliseconds, as in the services. */
const TICK_MS = 250;
const RECONCILE_MS = 1_000;
const LOOK_EVERY_MS = 1_000;

abstract class Service extends Program {
  protected readonly around: Surroundings;
  private readonly kind: string;
  /** Position up to which this process has followed the log. */
  followed = 0;

  constructor(kind: string, number: number, around: Surroundings) {
    super(`${kind}-${String(number)}`, around.world, around.weather);
    this.kind = kind;
    this.around = around;
  }

  protected override ended(): void {
    this.around.bus.forget(this.name);
  }

  /** Commands of one target come one after another, in each replica. */
  protected listen(life: Life, obey: (envelope: CommandEnvelope) => Promise<Answer>, answered: Consumer['answered'] = () => undefined): Consumer {
    const mailbox = new Mailbox();
    const consumer: Consumer = {
      name: this.name, life, answered,
      handle: (body) => {
        const envelope = body as CommandEnvelope;
        return mailbox.run(envelope.target, () => obey(this.around.cancelsIgnored ? { ...envelope, cancels: [] } : envelope));
      },
    };
    this.around.bus.consume(this.kind, consumer);
    return consumer;
  }

  /** Every event of the log, in order, some time after it was appended. */
  protected follow(life: Life, take: (event: MemoryLog['events'][number]) => void): void {
    const { log, world } = this.around;
    let position = 0;
    let waking = false;
    const read = (): void => {
      waking = false;
      if (!life.on) return;
      for (; position < log.events.length; position++) {
        const event = log.events[position];
        if (event !== undefined) take(event);
      }
      this.followed = position;
    };
    read();
    const wake = (ms: number): void => {
      waking = true;
      world.after(ms, () => {
        if (this.around.isLogAway()) wake(1_000);
        else read();
      });
    };
    log.subscribe(() => {
      if (waking || !life.on) return;
      const { frozen, frozenMs } = this.weather();
      wake(world.random.chance(frozen) ? world.random.between(1, frozenMs) : world.random.between(1, 8));
    });
  }

  /** Calls again and again, never twice at once. */
  protected repeat(ms: number, life: Life, work: () => Promise<unknown>): void {
    let running = false;
    this.world.every(ms, () => life.on, () => {
      if (running) return;
      running = true;
      work().catch((error: unknown) => { this.world.tell(() => `${this.name}: ${String(error)}`); }).finally(() => { running = false; });
    });
  }
}

export class SchedulerService extends Service {
  view = new SchedulerView();
  leads = false;

  constructor(number: number, around: Surroundings) {
    super('scheduler', number, around);
  }

  protected begin(life: Life): void {
    const { bus, log, world, undoForward } = this.around;
    const view = new SchedulerView();
    this.view = view;
    const failed = (what: string, error: unknown): void => { world.tell(() => `${this.name} could not ${what}: ${String(error)}`); };
    const scheduler = new Scheduler({
      handler: new CommandHandler(this.logOf(life, log, this.around.isLogAway)), view, sagas: undoForward ? schedulerSagas.map((saga) => ({ ...saga, undoForward })) : schedulerSagas, commandIdOf, keyOf, failed, now: world.now,
      send: (envelope) => { if (life.on) bus.send(party, envelope); },
    });
    this.follow(life, (event) => { view.take(event); });
    const party = this.listen(life, (envelope) => scheduler.obey(envelope), (commandId, answer) => { scheduler.take(commandId, answer).catch((error: unknown) => { failed('take an answer', error); }); });
    bus.consume('hellos', { ...party, handle: async (body) => (await scheduler.hello(body as Hello)) as unknown as Answer | undefined });
    const mailbox = new Mailbox();
    bus.consume('reports.boot', { ...party, handle: (body) => mailbox.run((body as BootReport).nodeId, () => scheduler.bootReport(body as BootReport).then(() => undefined)) });
    bus.consume('reports.drift', { ...party, handle: (body) => mailbox.run((body as DriftReport).nodeId, () => scheduler.driftReport(body as DriftReport).then(() => undefined)) });
    bus.consume('reports.restore', { ...party, handle: (body) => mailbox.run((body as RestoreReport).vmId, () => scheduler.restoreReport(body as RestoreReport).then(() => undefined)) });
    bus.consume('reports.vm', { ...party, handle: (body) => mailbox.run((body as DomainReport).vmId, () => scheduler.report(body as DomainReport).then(() => undefined)) });
    bus.consume('heartbeats', {
      ...party,
      handle: (body) => {
        const { nodeId, memoryUsedPercent, loadPercent, session } = body as Heartbeat;
        view.measure(nodeId, { memoryUsedPercent, loadPercent }, session);
        return Promise.resolve(undefined);
      },
    });
    this.repeat(TICK_MS, life, () => scheduler.tick());
    this.repeat(RECONCILE_MS, life, () => (this.leads ? scheduler.reconcile() : Promise.resolve()));
  }
}

export class IpamService extends Service {
  constructor(number: number, around: Surroundings) {
    super('ipam', number, around);
  }

  protected begin(life: Life): void {
    this.listen(life, ipam({ handler: new CommandHandler(this.logOf(life, this.around.log, this.around.isLogAway)), commandIdOf, keyOf }));
  }
}

export class StorageService extends Service {
  constructor(number: number, around: Surroundings) {
    super('storage', number, around);
  }

  protected begin(life: Life): void {
    const { obey, report, progress } = storage({
      handler: new CommandHandler(this.logOf(life, this.around.log, this.around.isLogAway)), commandIdOf, keyOf,
      // Up to the log's end, as the service waits for.
      usersOf: (imageId) => {
        const users = new ProjectionInMemory(imageUser);
        for (const event of this.around.log.events) users.take(event);
        return Promise.resolve(usersAmong(users.documents.values(), imageId));
      },
    });
    const party = this.listen(life, obey);
    this.around.bus.consume('reports.backup', { ...party, handle: (body) => progress(body as BackupReport).then(() => undefined) });
    this.around.bus.consume('reports.pool', { ...party, handle: (body) => report(body as PoolReport).then(() => undefined) });
  }
}

/** Monitor's part that hears nodes, as its leader does it. */
export class MonitorService extends Service {
  constructor(number: number, around: Surroundings) {
    super('monitor', number, around);
  }

  protected begin(life: Life): void {
    const { world, bus, log } = this.around;
    const handler = new CommandHandler(this.logOf(life, log, this.around.isLogAway));
    const nodes = new ProjectionInMemory(nodePresence);
    const watch = new Watch();
    const known = new Set<string>();
    const record = (commands: readonly PresenceCommand[]): void => {
      for (const command of commands) {
        const { nodeId } = command.data;
        handler.handle(presence, { id: idFrom('op', world.random.digits()), stream: streamOf(presence.category, nodeId), command, cancels: [], meta: { actor: 'system:monitor', nodeId }, store: 'events' })
          .catch((error: unknown) => {
            watch.failed(command);
            world.tell(() => `monitor: ${String(error)}`);
          });
      }
    };
    this.follow(life, (event) => { nodes.take(event); });
    bus.consume('heartbeats', {
      name: this.name, life, answered: () => undefined,
      handle: (body) => {
        const { nodeId, nodeAt } = body as Heartbeat;
        record(watch.heard(nodeId, Date.parse(nodeAt), world.now()));
        return Promise.resolve(undefined);
      },
    });
    this.repeat(LOOK_EVERY_MS, life, () => {
      for (const node of nodes.documents.values()) {
        if (node.seen) watch.expect(node.nodeId, node.silent, world.now());
        known.add(node.nodeId);
      }
      for (const nodeId of known) {
        if (nodes.documents.has(nodeId)) continue;
        known.delete(nodeId);
        watch.forget(nodeId as NodeId);
      }
      record(watch.overdue(world.now()));
      return Promise.resolve();
    });
  }
}
