/*
 * What every service process holds: the log and its tail, a session in Postgres, the bus, answers on their
 * way back, leadership, health. `openHost` joins them for one service. When several services run in one
 * process, `shared` lends the dear ones (the log with its gathering of commits, the tail, the bus), so that
 * one machine runs everything in little memory and with few connections.
 */
import 'reflect-metadata';
import { randomBytes } from 'node:crypto';
import { Module, type DynamicModule, type Provider, type Type } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import type { CommandEnvelope } from '@chronovirt/contracts/command';
import { allEvents } from '@chronovirt/contracts/registry';
import { CommandHandler } from '@chronovirt/event-log/handle';
import { Leader } from '@chronovirt/event-log/leader';
import { categoryOf, idOfStream } from '@chronovirt/contracts/ids';
import { PostgresLog } from '@chronovirt/event-log/postgres-log';
import { Relay } from '@chronovirt/event-log/relay';
import { Session } from '@chronovirt/event-log/session';
import { Tail } from '@chronovirt/event-log/tail';
import { type Bus, connectBus } from '@chronovirt/messaging/connect';
import { createPublisher, type Publisher } from '@chronovirt/messaging/publish';
import { createReplies, type Replies } from '@chronovirt/messaging/replies';
import { JetStreamStrategy, KeepError } from '@chronovirt/messaging/strategy';
import { createReadiness, type HealthServer, type Readiness, startHealthServer } from '@chronovirt/observability/health';
import { createLog, type Log } from '@chronovirt/observability/log';
import { createMetrics, type Metrics } from '@chronovirt/observability/metrics';
import { openWaypoints } from '@chronovirt/observability/waypoints';
import pg from 'pg';
import type { HostConfig } from './config.ts';
import { HeldHandler, heldPublisher } from './waypoints.ts';

/** What services of one process have together. */
export interface Shared {
  readonly log: PostgresLog;
  readonly handler: CommandHandler;
  readonly tail: Tail;
  readonly bus: Bus;
  readonly metrics: Metrics;
  readonly readiness: Readiness;
}

export interface Host extends Shared {
  readonly service: string;
  readonly logger: Log;
  /** Of the service's own role: projections, locks. */
  readonly session: Session;
  /** Of the service's own role: reads. */
  readonly pool: pg.Pool;
  readonly publisher: Publisher;
  readonly replies: Replies;
  /**
   * Sends a command and forgets it: its answer comes to `replies.onOther`, or the command is sent again. The
   * first time nobody asks whether it arrived; when it is sent again, a stream that is gone is made anew.
   */
  send(envelope: CommandEnvelope, again: boolean): void;
  /** Runs while this process leads under that name; `begin` answers what ends it. */
  lead(name: string, begin: () => Promise<() => Promise<void> | void> | (() => Promise<void> | void)): void;
  /** Calls `work` every `ms` until the end, never twice at once; what it throws is logged. */
  every(ms: number, what: string, work: () => Promise<void> | void): () => void;
  /** Starts the service's ears on the bus. */
  listen(controllers: readonly Type[], providers: readonly Provider[]): Promise<void>;
  /** What ends with the host, in reverse order. */
  onClose(end: () => unknown): void;
  close(): Promise<void>;
}

/** Most connections a service's pool may hold; they end when idle. */
const POOL_MAX = 4;
/** A host that died says nothing: whoever waits for a connection is told after this. Milliseconds. */
const CONNECT_MS = 5_000;
/** How long handlers at work are waited for at the end. Milliseconds. */
const DRAIN_MS = 5_000;

@Module({})
class ServiceModule {}

type End = () => unknown;
type Ends = End[];

const closeAll = async (ends: Ends, logger: Log): Promise<void> => {
  for (const end of ends.splice(0).reverse()) await Promise.resolve().then(end).catch((err: unknown) => { logger.warn({ err }, 'trouble while closing'); });
};

/** What several services of one process share. Opened once, closed after them. */
export const openShared = async (name: string, config: HostConfig): Promise<Shared & { close(): Promise<void> }> => {
  const ends: Ends = [];
  const logger = createLog({ service: name, level: config.logLevel });
  const { pool, session } = openPostgres(name, config, logger, ends);
  const shared = await joinShared(name, config, { pool, session, logger, ends });
  return { ...shared, close: () => closeAll(ends, logger) };
};

const openPostgres = (name: string, config: HostConfig, logger: Log, ends: Ends): { pool: pg.Pool; session: Session } => {
  const pool = new pg.Pool({ connectionString: config.postgresUrl, max: POOL_MAX, idleTimeoutMillis: 10_000, connectionTimeoutMillis: CONNECT_MS, application_name: name });
  pool.on('error', (err) => { logger.warn({ err }, 'an idle connection broke'); });
  ends.push(() => pool.end());
  const session = new Session({ url: config.postgresUrl, name, onTrouble: (err) => { logger.warn({ err }, 'the session in Postgres broke, it is opened again'); } });
  session.start();
  ends.push(() => session.stop());
  return { pool, session };
};

export const openHost = async (service: string, config: HostConfig, shared?: Shared): Promise<Host> => {
  const ends: Ends = [];
  const logger = createLog({ service, level: config.logLevel });
  const trouble = (what: string) => (err: unknown, about?: string): void => { logger.warn({ err, what, about }, 'trouble, trying again'); };

  const { pool, session } = openPostgres(service, config, logger, ends);
  const common = shared ?? (await joinShared(service, config, { pool, session, logger, ends }));
  const processName = `${service}-${randomBytes(6).toString('hex')}`;
  const plainPublisher = createPublisher({ bus: common.bus });
  const publisher = config.waypoints === undefined ? plainPublisher : heldPublisher(plainPublisher, service, openWaypoints(config.waypoints));
  const replies = createReplies({ nc: common.bus.nc, process: processName, log: logger });
  ends.push(() => { replies.close(); });

  const host: Host = {
    ...common, service, logger, session, pool, publisher, replies,
    send(envelope, again) {
      const reply = replies.subjectFor(envelope.to, envelope.target);
      if (!again && publisher.sendCommand(envelope, { reply })) return;
      publisher.publishCommand(envelope, { reply })
        .catch((err: unknown) => { logger.debug({ err, commandId: envelope.id, to: envelope.to }, 'command not published, it is sent again'); });
    },
    lead(name, begin) {
      let end: (() => Promise<void> | void) | undefined;
      const leader = new Leader({
        session, name, onTrouble: trouble(`leading ${name}`),
        onLead: async () => {
          end = await begin();
          logger.info({ name }, 'leads');
        },
        onLost: async () => {
          await end?.();
          end = undefined;
        },
      });
      leader.start();
      ends.push(() => leader.stop());
    },
    every(ms, what, work) {
      let running = false;
      const timer = setInterval(() => {
        if (running) return;
        running = true;
        Promise.resolve().then(work).catch(trouble(what)).finally(() => { running = false; });
      }, ms);
      timer.unref();
      const stop = (): void => { clearInterval(timer); };
      ends.push(stop);
      return stop;
    },
    async listen(controllers, providers) {
      const strategy = new JetStreamStrategy({ bus: common.bus, log: logger, drainMs: DRAIN_MS });
      const module: DynamicModule = { module: ServiceModule, controllers: [...controllers], providers: [...providers] };
      const app = await NestFactory.createMicroservice(module, { strategy, logger: false });
      app.useGlobalFilters(new KeepError());
      await app.listen();
      common.readiness.add(`${service} commands`, () => strategy.statusOfConsumers());
      ends.push(() => app.close());
    },
    onClose: (end) => { ends.push(end); },
    close: () => closeAll(ends, logger),
  };
  return host;
};

const joinShared = async (service: string, config: HostConfig, { pool, session, logger, ends }: { pool: pg.Pool; session: Session; logger: Log; ends: Ends }): Promise<Shared> => {
  const log = new PostgresLog({ pool, events: allEvents, appended: (events) => { tail.offer(events); } });
  const tail: Tail = new Tail({ session, log, onTrouble: (err, subscriber) => { logger.warn({ err, subscriber }, 'following the log has trouble, trying again'); } });
  await tail.start();
  ends.push(() => tail.stop());
  const bus = await connectBus({ servers: config.natsUrl, credentials: { file: config.natsCreds }, name: service, log: logger });
  ends.push(() => bus.close());
  const publisher = createPublisher({ bus });
  const relay = new Relay({
    session, tail, onTrouble: (err) => { logger.warn({ err }, 'the relay has trouble, trying again'); },
    publish: (group) => publisher.publishEvents(group.map(({ event, previous }) => ({
      id: event.id, category: categoryOf(event.stream), streamId: idOfStream(event.stream), type: event.type, position: event.position, previous, traceparent: event.meta.traceparent,
      body: event,
    }))),
  });
  relay.start();
  ends.push(() => relay.stop());
  const metrics = createMetrics({ ofTheProcess: true });
  const readiness = createReadiness();
  readiness.add('NATS', () => bus.status());
  readiness.add('Postgres', async () => {
    const { rows } = await pool.query<{ position: string }>('select position from event_log.head');
    return { ok: true, says: `answers, the log is at position ${rows[0]?.position ?? '0'}` };
  });
  if (config.healthPort !== undefined) {
    const health: HealthServer = await startHealthServer({ host: config.healthHost, port: config.healthPort, readiness, metrics });
    ends.push(() => health.close());
  }
  const handler = config.waypoints === undefined ? new CommandHandler(log) : new HeldHandler(log, openWaypoints(config.waypoints));
  return { log, handler, tail, bus, metrics, readiness };
};
