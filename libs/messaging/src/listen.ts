/*
 * What is said on the bus and never stored: heartbeats, hellos, and events as they pass.
 *
 * An event that passes is a nudge, not a delivery: whoever needs every event reads the log from
 * its checkpoint and is woken by this. Nothing waits for an absent listener and nothing has to
 * be made again after the store was wiped. `position` and `previous` let a reader of one
 * category see that it missed something.
 */
import type { Msg, NatsConnection } from '@nats-io/transport-node';
import type { BusLog } from './connect.ts';
import { noLog } from './connect.ts';
import { headerNames, nodeOfSubject, parseEventSubject, subjects } from './topology.ts';

export interface EventNotice {
  readonly category: string;
  readonly id: string;
  readonly type: string;
  readonly position: number;
  /** Position of the event before it in its category; 0 for the first. */
  readonly previous: number;
  readonly eventId: string | undefined;
  readonly traceparent: string | undefined;
  /** Reads the body; throws when it is no JSON. */
  body(): unknown;
}

export interface Listening {
  stop(): void;
}

const header = (message: Msg, name: string): string | undefined => (message.headers?.has(name) ? message.headers.get(name) : undefined);

function listen(nc: NatsConnection, subject: string, log: BusLog, hear: (message: Msg) => void, queue?: string): Listening {
  const subscription = nc.subscribe(subject, {
    ...(queue === undefined ? {} : { queue }),
    callback: (err, message) => {
      if (err) return log.error({ err, subject }, 'cannot listen');
      try {
        hear(message);
      } catch (fault) {
        log.warn({ err: fault, subject: message.subject }, 'what was heard could not be handled');
      }
    },
  });
  return { stop: () => { if (!subscription.isClosed()) subscription.unsubscribe(); } };
}

/** Events of one category, or of all, as the relay publishes them. What carries no position is none of ours. */
export function listenToEvents(nc: NatsConnection, hear: (notice: EventNotice) => void, { category, log = noLog }: { readonly category?: string; readonly log?: BusLog } = {}): Listening {
  return listen(nc, subjects.events(category), log, (message) => {
    const parsed = parseEventSubject(message.subject);
    const position = Number(header(message, headerNames.position));
    const previous = Number(header(message, headerNames.previous));
    if (parsed === undefined || !Number.isSafeInteger(position) || !Number.isSafeInteger(previous)) return;
    hear({ ...parsed, position, previous, eventId: header(message, headerNames.id), traceparent: header(message, headerNames.trace), body: () => message.json<unknown>() });
  });
}

/** Says that a node's agent lives. */
export const sendHeartbeat = (nc: NatsConnection, nodeId: string, body: unknown): void => nc.publish(subjects.heartbeat(nodeId), JSON.stringify(body));

/** `nodeId` is who it is: the server lets an agent publish only under its own. The body is as the agent wrote it. */
export function listenToHeartbeats(nc: NatsConnection, hear: (nodeId: string, body: unknown) => void, log: BusLog = noLog): Listening {
  return listen(nc, subjects.heartbeats, log, (message) => {
    const nodeId = nodeOfSubject(message.subject);
    if (nodeId !== undefined) hear(nodeId, message.json<unknown>());
  });
}

/** An agent introduces itself and waits for its session. Rejects when nobody answers in time. */
export async function sayHello(nc: NatsConnection, nodeId: string, body: unknown, timeoutMs = 5_000): Promise<unknown> {
  const reply = await nc.request(subjects.hello(nodeId), JSON.stringify(body), { timeout: timeoutMs });
  const said = reply.json<{ hello?: unknown; error?: string }>();
  if (said.error !== undefined) throw new Error(`hello was not accepted: ${said.error}`);
  return said.hello;
}

/** Answers hellos; of several replicas one gets each. What `answer` throws is logged here and not told. */
export function answerHellos(nc: NatsConnection, answer: (nodeId: string, body: unknown) => Promise<unknown>, log: BusLog = noLog): Listening {
  return listen(nc, subjects.hellos, log, (message) => {
    const nodeId = nodeOfSubject(message.subject);
    if (nodeId === undefined) return;
    const body = message.json<unknown>();
    answer(nodeId, body).then(
      (hello) => { message.respond(JSON.stringify({ hello })); },
      (err: unknown) => {
        log.warn({ err, nodeId }, 'hello could not be answered');
        message.respond(JSON.stringify({ error: 'not now' }));
      },
    ).catch((err: unknown) => { log.debug({ err, nodeId }, 'connection ended before the hello was answered'); });
  }, 'hello');
}
