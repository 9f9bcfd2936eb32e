import { Heartbeat, Hello } from '@chronovirt/contracts/agent/agent.commands';
import type { Answer } from '@chronovirt/decider/decider';
import { commandIdOf, keyOf } from '@chronovirt/event-log/command-id';
import { openHost, type Shared } from '@chronovirt/host/host';
import { openProjections } from '@chronovirt/host/projections';
import type { Running } from '@chronovirt/host/run';
import { keepTopology } from '@chronovirt/messaging/ensure-topology';
import { answerHellos, listenToHeartbeats } from '@chronovirt/messaging/listen';
import { serviceConsumers } from '@chronovirt/messaging/topology';
import type { SchedulerConfig } from './config.ts';
import { Scheduler } from './scheduler.consumer.ts';
import { SCHEDULER, SchedulerRpc } from './scheduler.rpc.ts';
import { schedulerProjections, SchedulerView } from './view.projection.ts';

/** How often unanswered commands and deadlines of the sagas driven here are looked at. */
const TICK_MS = 250;
const RECONCILE_MS = 1_000;
const FORGET_EVERY_MS = 3_600_000;

/** The only place where the scheduler's parts are joined. It holds nothing that the log does not: any number of replicas may run. */
export const start = async (config: SchedulerConfig, shared?: Shared): Promise<Running> => {
  const host = await openHost('scheduler', config, shared);
  const view = new SchedulerView();
  const sagaSeconds = host.metrics.histogram('cv_saga_duration_seconds', 'From the start of a saga to its end, by saga and outcome', ['saga', 'outcome']);
  const scheduler = new Scheduler({
    handler: host.handler, view, commandIdOf, keyOf,
    now: () => Date.now(),
    expiry: config.expiry,
    send: (envelope, again) => { host.send(envelope, again); },
    failed: (what, err) => { host.logger.warn({ err, what }, 'work was put off, the leader takes it up'); },
    sagaEnded: ({ name, outcome, seconds }) => { sagaSeconds.observe({ saga: name, outcome }, seconds); },
  });

  await openProjections(host, schedulerProjections, [{
    restore: (documents) => { view.restore(documents); },
    take: (event) => { view.take(event); },
  }]);

  host.replies.onOther((id, answer) => {
    scheduler.take(id, answer as Answer).catch((err: unknown) => { host.logger.warn({ err, commandId: id }, 'an answer was not taken, it comes again'); });
  });
  host.every(TICK_MS, 'moving sagas', () => scheduler.tick());
  host.metrics.gauge('cv_sagas_open_count', 'Sagas that have not ended', [], (gauge) => { gauge.set([...view.openSagas()].length); });

  const heartbeats = listenToHeartbeats(host.bus.nc, (nodeId, body) => {
    const heartbeat = Heartbeat.safeParse(body);
    if (heartbeat.success) view.measure(nodeId, { memoryUsedPercent: heartbeat.data.memoryUsedPercent, loadPercent: heartbeat.data.loadPercent }, heartbeat.data.session);
  }, host.logger);
  host.onClose(() => { heartbeats.stop(); });

  const hellos = answerHellos(host.bus.nc, async (nodeId, body) => {
    const hello = Hello.parse(body);
    if (hello.nodeId !== nodeId) throw new Error('a node introduced itself as another');
    const welcome = await scheduler.hello(hello);
    if (welcome === undefined) throw new Error('this node is not known, or was removed');
    host.logger.info({ nodeId, session: welcome.session, vms: welcome.vms.length }, 'a node said hello');
    return welcome;
  }, host.logger);
  host.onClose(() => { hellos.stop(); });

  host.lead('topology', () => {
    const keeper = keepTopology({ nc: host.bus.nc, log: host.logger, topology: () => ({ consumers: serviceConsumers, nodes: view.nodeIds() }) });
    const subscription = host.tail.subscribe({ after: host.tail.head, name: 'topology' }, (events) => {
      if (events.some(({ type }) => type === 'NodeRegistered')) void keeper.nudge();
    });
    return async () => {
      await subscription.stop();
      await keeper.stop();
    };
  });
  // An answer is kept for the life of a key: 30 days.
  host.lead('answers', () => host.every(FORGET_EVERY_MS, 'forgetting old answers', async () => { await host.log.forgetAnswers(); }));
  host.lead('scheduler-reconcile', () => host.every(RECONCILE_MS, 'reconciling', () => scheduler.reconcile()));

  await host.listen([SchedulerRpc], [{ provide: SCHEDULER, useValue: scheduler }]);
  return host;
};
