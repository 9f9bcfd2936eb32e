/*
 * Sending. A message counts as sent when JetStream has acknowledged it.
 *
 * Only events carry a Nats-Msg-Id, so that the relay may publish a batch again after a crash.
 * Commands and reports carry none: a saga repeats a command on purpose, and JetStream would
 * swallow the second sending. Whoever receives one twice answers it twice and obeys it once.
 *
 * When the stream is gone (its store was deleted) the publisher has it made again and repeats,
 * within a bound; after that the caller hears of it, and repeats when it likes.
 */
import { headers as newHeaders } from '@nats-io/transport-node';
import type { MsgHdrs } from '@nats-io/transport-node';
import { SpanKind, SpanStatusCode, context } from '@opentelemetry/api';
import type { CommandEnvelope } from '@chronovirt/contracts/command';
import { backOffMs, noLog } from './connect.ts';
import type { Bus, BusLog } from './connect.ts';
import type { StoreFault } from './ensure-topology.ts';
import { printable } from './printable.ts';
import { headerNames, subjects } from './topology.ts';
import type { StreamName } from './topology.ts';
import { parentOf, tracer, traceparentOf } from './trace.ts';

/** The bus did not take a message within the time; it may have arrived nevertheless. */
export class NotPublished extends Error {
  override readonly name = 'NotPublished';
  constructor(subject: string, cause: unknown) {
    super(`could not publish ${subject}`, { cause });
  }
}

/** JetStream answered that it could not store the message. */
class NotStored extends Error {
  override readonly name = 'NotStored';
  readonly said: StoreFault;
  constructor(said: StoreFault) {
    super(said.description ?? 'not the acknowledgement of a stream');
    this.said = said;
  }
}

export interface Published {
  /** Sequence in the stream. */
  readonly sequence: number;
  /** EVENTS recognised the event's id: it was there already. */
  readonly duplicate: boolean;
}

export interface EventToPublish {
  readonly id: string;
  readonly category: string;
  /** Id of the thing: the part of the stream's name after the category. */
  readonly streamId: string;
  readonly type: string;
  readonly position: number | bigint;
  /** Position of the event before it in its category; 0 for the first. */
  readonly previous: number | bigint;
  /** The body: JSON text, or a value to be written as JSON. */
  readonly body: unknown;
  readonly traceparent?: string | undefined;
}

export interface ReportToPublish {
  readonly nodeId: string;
  readonly category: string;
  readonly id: string;
  readonly type: string;
  readonly body: unknown;
  readonly traceparent?: string | undefined;
}

export interface Publisher {
  /** `reply`: the subject for the answer, from `replies.subjectFor`. */
  publishCommand(envelope: CommandEnvelope, options?: { readonly reply?: string }): Promise<Published>;
  /**
   * Sends a command and asks for no acknowledgement: for senders that send again until they are answered.
   * Half the messages and a third of the processor of `publishCommand`. False: there is no connection now.
   */
  sendCommand(envelope: CommandEnvelope, options?: { readonly reply?: string }): boolean;
  publishEvent(event: EventToPublish): Promise<Published>;
  /**
   * Publishes events in their order with one acknowledgement for all: each but the first is only taken right
   * behind the one before it (Nats-Expected-Last-Msg-Id), so that the last one's answer speaks for the chain.
   * Where the chain breaks (some were there already, one was lost) each is published for itself.
   */
  publishEvents(events: readonly EventToPublish[]): Promise<void>;
  publishReport(report: ReportToPublish): Promise<Published>;
}

export interface PublisherOptions {
  readonly bus: Bus;
  /** Whether it makes streams that it misses. Agents may not, and wait. Default true. */
  readonly mayRepair?: boolean;
  /** Bound of one publication with all its repetitions, in ms. Default 5 s. */
  readonly timeoutMs?: number;
  readonly log?: BusLog;
}

const ATTEMPT_MS = 1_500;
/** NATS ADR-4 and JetStream's publish expectations: the message is refused unless the stream's last one has this id. */
const EXPECTED_LAST = 'Nats-Expected-Last-Msg-Id';

export function createPublisher({ bus, mayRepair = true, timeoutMs = 5_000, log = noLog }: PublisherOptions): Publisher {
  const { nc } = bus;
  let repairing: Promise<unknown> | undefined;
  const repair = async (fault: unknown, stream: StreamName): Promise<void> => {
    if (!mayRepair) return;
    // Loaded where it is used: an agent may repair nothing, and JetStream's management takes 8 MiB.
    const { cureStore, ensureStreams } = await import('./ensure-topology.ts');
    if (fault instanceof NotStored) await cureStore(nc, stream, fault.said, { log });
    else await ensureStreams(nc, { log });
  };
  const repairOnce = (fault: unknown, stream: StreamName): Promise<unknown> => (repairing ??= repair(fault, stream).finally(() => { repairing = undefined; }));

  const send = async (stream: StreamName, subject: string, body: string, headers: MsgHdrs): Promise<Published> => {
    const deadline = Date.now() + timeoutMs;
    for (let attempt = 0; ; attempt++) {
      // What is sent while there is no connection would be kept and sent later, long after its sender gave up.
      if (!(await bus.connected(deadline - Date.now()))) throw new NotPublished(subject, new Error(bus.status().says));
      try {
        const reply = await nc.request(subject, body, { headers, timeout: ATTEMPT_MS });
        const said = reply.json<{ seq?: number; duplicate?: boolean; error?: StoreFault }>();
        // An error comes with a sequence too: 0.
        if (said.error !== undefined || !said.seq) throw new NotStored(said.error ?? {});
        return { sequence: said.seq, duplicate: said.duplicate ?? false };
      } catch (fault) {
        if (nc.isClosed() || Date.now() >= deadline) throw new NotPublished(subject, fault);
        // Nobody listened there, or nobody answered: the stream may be gone.
        await repairOnce(fault, stream).catch(() => undefined);
        await new Promise((resolve) => setTimeout(resolve, Math.max(0, Math.min(deadline - Date.now(), backOffMs(attempt, 20, 500)))));
      }
    }
  };

  const traced = async (stream: StreamName, subject: string, kind: string, traceparent: string | undefined, headers: MsgHdrs, body: string): Promise<Published> => {
    const span = tracer.startSpan(`publish ${kind}`, { kind: SpanKind.PRODUCER, attributes: { 'messaging.system': 'nats', 'messaging.destination.name': subject } }, traceparent === undefined ? context.active() : parentOf(traceparent));
    const here = traceparentOf(span) ?? traceparent;
    if (here !== undefined) headers.set(headerNames.trace, here);
    try {
      return await send(stream, subject, body, headers);
    } catch (fault) {
      span.setStatus({ code: SpanStatusCode.ERROR });
      throw fault;
    } finally {
      span.end();
    }
  };

  const textOf = (body: unknown): string => (typeof body === 'string' ? body : JSON.stringify(body));

  const headersOf = (envelope: CommandEnvelope, reply: string | undefined): MsgHdrs => {
    const headers = newHeaders();
    headers.set(headerNames.id, printable(envelope.id));
    headers.set(headerNames.type, printable(envelope.type));
    if (reply !== undefined) headers.set(headerNames.reply, printable(reply));
    return headers;
  };

  const headersOfEvent = ({ id, type, position, previous }: EventToPublish): MsgHdrs => {
    const headers = newHeaders();
    headers.set(headerNames.deduplicate, printable(id));
    headers.set(headerNames.id, printable(id));
    headers.set(headerNames.type, printable(type));
    headers.set(headerNames.position, String(position));
    headers.set(headerNames.previous, String(previous));
    return headers;
  };

  const publishEvent = (event: EventToPublish): Promise<Published> =>
    traced('EVENTS', subjects.event(event.category, event.streamId, event.type), 'event', event.traceparent, headersOfEvent(event), textOf(event.body));

  /** True when all of them are stored. False: it is not known of which. */
  const publishChain = async (events: readonly EventToPublish[]): Promise<boolean> => {
    if (!bus.status().ok) return false;
    let before: string | undefined;
    let last: Promise<boolean> | undefined;
    events.forEach((event, index) => {
      const subject = subjects.event(event.category, event.streamId, event.type);
      const span = tracer.startSpan('publish event', { kind: SpanKind.PRODUCER, attributes: { 'messaging.system': 'nats', 'messaging.destination.name': subject } }, event.traceparent === undefined ? context.active() : parentOf(event.traceparent));
      const headers = headersOfEvent(event);
      if (before !== undefined) headers.set(EXPECTED_LAST, before);
      before = printable(event.id);
      const here = traceparentOf(span) ?? event.traceparent;
      if (here !== undefined) headers.set(headerNames.trace, here);
      const body = textOf(event.body);
      if (index < events.length - 1) nc.publish(subject, body, { headers });
      else {
        last = nc.request(subject, body, { headers, timeout: ATTEMPT_MS }).then((reply) => {
          const said = reply.json<{ seq?: number; duplicate?: boolean; error?: StoreFault }>();
          // The last one was there already: that says nothing of the others.
          return said.error === undefined && said.seq !== undefined && said.seq > 0 && said.duplicate !== true;
        }, () => false);
      }
      span.end();
    });
    return last ?? true;
  };

  return {
    publishCommand: (envelope, { reply } = {}) =>
      traced('COMMANDS', subjects.command(envelope.to, envelope.target), 'command', envelope.meta.traceparent, headersOf(envelope, reply), JSON.stringify(envelope)),
    sendCommand: (envelope, { reply } = {}) => {
      if (!bus.status().ok) return false;
      const subject = subjects.command(envelope.to, envelope.target);
      const { traceparent } = envelope.meta;
      const span = tracer.startSpan('publish command', { kind: SpanKind.PRODUCER, attributes: { 'messaging.system': 'nats', 'messaging.destination.name': subject } }, traceparent === undefined ? context.active() : parentOf(traceparent));
      const headers = headersOf(envelope, reply);
      const here = traceparentOf(span) ?? traceparent;
      if (here !== undefined) headers.set(headerNames.trace, here);
      nc.publish(subject, JSON.stringify(envelope), { headers });
      span.end();
      return true;
    },
    publishEvent,
    publishEvents: async (events) => {
      if (events.length > 1 && (await publishChain(events))) return;
      await Promise.all(events.map(publishEvent));
    },
    publishReport: ({ nodeId, category, id, type, body, traceparent }) => {
      const headers = newHeaders();
      headers.set(headerNames.type, printable(type));
      return traced('REPORTS', subjects.report(nodeId, category, id), 'report', traceparent, headers, textOf(body));
    },
  };
}
