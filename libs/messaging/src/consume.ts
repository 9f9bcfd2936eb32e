/*
 * Receiving from a durable, for as long as the process lives.
 *
 *   handler returns       its answer goes to Cv-Reply, then the message is acknowledged
 *   handler throws        the message comes again, after a back-off with jitter
 *   handler throws Reject, or the last delivery fails
 *                         a copy with Cv-Reason goes to DEAD, and only then it is acknowledged
 *   handler takes long    the server hears that we are at work, at a third of the ack wait
 *
 * Messages of one key (the last token of the subject: the stream, the node) are handled one
 * after another, others side by side. What is delivered and not settled is bounded by `window`
 * here and by the consumer's `ackPendingMax` over all replicas.
 *
 * A durable may vanish at any time, with its stream and the whole store. Then the reader has it
 * made again, waits with a back-off until that succeeds, and goes on; nobody is restarted. A
 * reader that is pushed to (an agent) may not make anything: it only stays subscribed, and the
 * leader makes its durable again.
 *
 * The pull is spoken here directly (NATS ADR-13: a request for a batch that expires, answered
 * by messages and by one status), because the client's own loop waits for 30 s after it could
 * not find its consumer, and because credits that follow what is *settled* bound memory, while
 * those of the client follow what is *received*. A pull cannot be taken back, and what the
 * server has given to one whose reader is gone stays away for an ack wait (seen on 2.9.10). So
 * pulls live shortly, and who stops reads on until the last one has ended. The status at a
 * pull's end is not sure to come: 2.9.10 drops a pull without a word where a message arrives
 * between its end and the server's timer for that. So each pull ends by our own clock, too; and
 * each has a subject of its own, or a status that was only late would end the one behind it.
 *
 * `term()` is never used: on a work queue of 2.9 it leaves the message in the stream. Nor is the
 * server's limit of deliveries: a message past it would stay, and nobody would be told.
 */
import { headers as newHeaders } from '@nats-io/transport-node';
import type { Msg, MsgHdrs, Subscription } from '@nats-io/transport-node';
import { SpanKind, SpanStatusCode, context, trace } from '@opentelemetry/api';
import { backOffMs, noLog } from './connect.ts';
import type { Bus, BusLog } from './connect.ts';
import type { StoreFault } from './ensure-topology.ts';
import { createMailboxes } from './mailboxes.ts';
import { printable } from './printable.ts';
import { sendAnswer } from './replies.ts';
import { headerNames, subjects } from './topology.ts';
import type { ConsumerSpec } from './topology.ts';
import { parentOf, tracer, traceparentOf } from './trace.ts';

/** Thrown by a handler when no repetition can help: malformed, unknown. The message is set aside at once. */
export class Reject extends Error {
  override readonly name = 'Reject';
}

/** Thrown by a handler that knows when it is worth trying again. Never leads to DEAD by itself. */
export class RetryAfter extends Error {
  override readonly name = 'RetryAfter';
  readonly ms: number;
  constructor(ms: number, why: string) {
    super(why);
    this.ms = ms;
  }
}

export interface Delivery {
  readonly subject: string;
  readonly data: Uint8Array;
  readonly headers: MsgHdrs | undefined;
  /** 1 at the first delivery. */
  readonly deliveryCount: number;
  /** Where in the trace this delivery is, for what the handler sends on; falls back to what the sender said. */
  readonly traceparent: string | undefined;
  /** Rejects the message when it is no JSON. */
  json(): unknown;
  /** Value of a header, or undefined. */
  header(name: string): string | undefined;
}

/** What a handler returns (unless undefined) is sent as the answer, where the message asks for one. */
export type Handle = (delivery: Delivery) => unknown;

export interface ConsumeSettings {
  /** Handlers that run at once. Default 64. */
  readonly concurrency?: number;
  /** Messages held here, running or waiting. Default 256; never more than the durable's `ackPendingMax`. */
  readonly window?: number;
  /** Messages of one key are handled one after another. Default: the last token of the subject. */
  readonly keyOf?: (message: { readonly subject: string; readonly data: Uint8Array }) => string;
  /** Waits before the second, third, … delivery; the last one repeats. */
  readonly backOffsMs?: readonly number[];
  /** The delivery whose failure sets the message aside. Default 20: some four minutes of faults. */
  readonly deliveriesMax?: number;
  /** Wait for the server to confirm each acknowledgement. Default true. Without it a lost one means another delivery. */
  readonly confirmed?: boolean;
  /** A handler that takes longer no longer holds its message: it is delivered again, perhaps elsewhere. Default 5 minutes. */
  readonly handlingMsMax?: number;
}

export interface ConsumeOptions extends ConsumeSettings {
  readonly bus: Bus;
  readonly spec: ConsumerSpec;
  readonly handle: Handle;
  readonly log?: BusLog;
  /** Makes the durable where it is missing; the answer tells one making from another. Default `ensureConsumer`; not asked where the durable is pushed. */
  readonly repair?: () => Promise<string>;
  /** For metrics: how a delivery ended, and how long its handler took. */
  readonly onSettled?: (settled: Settled) => void;
}

export interface Settled {
  readonly durable: string;
  readonly outcome: 'done' | 'again' | 'dead';
  readonly seconds: number;
  readonly deliveryCount: number;
}

export interface Consumption {
  /** For readiness, in plain words. */
  status(): { readonly ok: boolean; readonly says: string };
  /** Messages held here: running, and waiting for their turn. */
  load(): { readonly running: number; readonly waiting: number };
  /** Takes nothing new, gives back what has not begun, waits for what runs, at most `drainMs`. */
  stop(drainMs?: number): Promise<void>;
}

const BACK_OFFS_MS = [100, 300, 1_000, 3_000, 10_000, 15_000] as const;
const DRAIN_MS = 10_000;
/** One pull lives this long, and so does, at most, a reader that stops; an idle one sends one message in that time. */
const PULL_EXPIRES_MS = 500;
/** For the way to the server and back, after which a pull has ended without a word. */
const PULL_GRACE_MS = 250;
/** So many pulls one after another without a word, and the server has forgotten our durable. */
const UNANSWERED_MAX = 10;
const REMOVAL_MS = 300;
const CONFIRM_MS = 2_000;
const NANOS = 1_000_000;

const ACK = '+ACK';
const WORKING = '+WPI';
const nak = (delayMs: number): string => (delayMs > 0 ? `-NAK ${JSON.stringify({ delay: Math.round(delayMs * NANOS) })}` : '-NAK');

/** How often the server has delivered it: a token of the subject for acknowledgements (NATS ADR-15; newer servers put two tokens in front). */
export function deliveryCountOf(ackSubject: string): number {
  const tokens = ackSubject.split('.');
  return Number(tokens.length >= 11 ? tokens[6] : tokens[4]) || 1;
}

/** Sequence and time of a message in its stream: together they are its name for ever, also when the stream was made anew. */
const nameOf = (ackSubject: string): string => {
  const tokens = ackSubject.split('.');
  const at = tokens.length >= 11 ? 7 : 5;
  return `${tokens[at] ?? '0'}:${tokens[at + 2] ?? '0'}`;
};

const lastToken = ({ subject }: { readonly subject: string }): string => subject.slice(subject.lastIndexOf('.') + 1);

/** A message that was delivered and is not settled. */
interface Held {
  readonly message: Msg;
  readonly ackSubject: string;
  readonly since: number;
  begun: boolean;
}

export function consume(options: ConsumeOptions): Consumption {
  const { bus, spec, handle, log = noLog, onSettled } = options;
  const { nc } = bus;
  const backOffs = options.backOffsMs ?? BACK_OFFS_MS;
  const deliveriesMax = options.deliveriesMax ?? 20;
  const confirmed = options.confirmed ?? true;
  const handlingMsMax = options.handlingMsMax ?? 5 * 60_000;
  const window = Math.max(1, Math.min(options.window ?? 256, spec.ackPendingMax));
  const keyOf = options.keyOf ?? lastToken;
  const mailboxes = createMailboxes(options.concurrency ?? 64);
  const held = new Set<Held>();
  const acknowledging = new Set<Promise<void>>();
  // Loaded where it is used: an agent may repair nothing, and JetStream's management takes 8 MiB.
  const repairs = () => import('./ensure-topology.ts');
  let stopping = false;

  const source = spec.deliverTo === undefined
    ? pulled({ bus, spec, window, log, held: () => held.size, repair: options.repair ?? (async () => (await repairs()).ensureConsumer(nc, spec, { log })), receive })
    : pushed({ bus, spec, log, deliverTo: spec.deliverTo, receive });

  // Also for those that wait here for their turn: to the server they are all at work.
  const working = setInterval(() => {
    const now = Date.now();
    for (const one of held) {
      if (now - one.since > handlingMsMax) {
        log.error({ subject: one.message.subject, durable: spec.durable }, 'handler holds its message too long');
        release(one);
        continue;
      }
      say(one, WORKING);
    }
  }, spec.ackWaitMs / 3);

  function say(one: Held, what: string): void {
    // The connection may have ended for good; then the message is delivered again elsewhere.
    try { nc.publish(one.ackSubject, what); } catch (err) { log.debug({ err }, 'acknowledgement could not be sent'); }
  }

  function receive(message: Msg): void {
    if (!message.reply) return log.warn({ subject: message.subject }, 'message of no durable');
    const one: Held = { message, ackSubject: message.reply, since: Date.now(), begun: false };
    held.add(one);
    // It is given back once no pull is open, or it would come here again.
    if (stopping) return;
    let key: string;
    try {
      key = keyOf(message);
    } catch {
      // What has no key is malformed for its handler too, which says so better.
      key = message.subject;
    }
    mailboxes.post(key, async () => {
      // Held too long, it was given up and will come again.
      if (!held.has(one)) return;
      one.begun = true;
      let done = false;
      try {
        done = await deliver(one);
      } catch (err) {
        // Not even setting it aside worked. It stays unacknowledged and comes again.
        log.warn({ err, subject: message.subject }, 'message could not be settled');
        say(one, nak(5_000));
      }
      if (!done) return release(one);
      // The next of this key need not wait for the server to confirm.
      const acknowledged = acknowledge(one).finally(() => {
        acknowledging.delete(acknowledged);
        release(one);
      });
      acknowledging.add(acknowledged);
    });
  }

  function release(one: Held): void {
    held.delete(one);
    source.refill();
  }

  /** True when the message is to be acknowledged, false when it was settled otherwise. */
  async function deliver(one: Held): Promise<boolean> {
    const { message } = one;
    const { headers } = message;
    const header = (name: string): string | undefined => (headers?.has(name) ? headers.get(name) : undefined);
    const count = deliveryCountOf(one.ackSubject);
    const incoming = header(headerNames.trace);
    const above = parentOf(incoming);
    const span = tracer.startSpan(`process ${spec.durable}`, { kind: SpanKind.CONSUMER, attributes: { 'messaging.system': 'nats', 'messaging.destination.name': message.subject, 'cv.delivery': count } }, above);
    const delivery: Delivery = {
      subject: message.subject,
      data: message.data,
      headers,
      deliveryCount: count,
      traceparent: traceparentOf(span) ?? incoming,
      json: () => {
        try {
          return message.json<unknown>();
        } catch (cause) {
          throw new Reject('not JSON', { cause });
        }
      },
      header,
    };
    const began = performance.now();
    const settled = (outcome: Settled['outcome']): void => {
      onSettled?.({ durable: spec.durable, outcome, seconds: (performance.now() - began) / 1_000, deliveryCount: count });
    };
    try {
      let answer: unknown;
      try {
        answer = await context.with(trace.setSpan(above, span), () => handle(delivery));
      } catch (fault) {
        span.recordException(fault instanceof Error ? fault : String(fault));
        span.setStatus({ code: SpanStatusCode.ERROR });
        const last = count >= deliveriesMax && !(fault instanceof RetryAfter);
        if (fault instanceof Reject || last) {
          await setAside(one, fault instanceof Error ? fault.message : String(fault), span);
          log.error({ err: fault, subject: message.subject, deliveryCount: count }, 'message set aside');
          settled('dead');
          return true;
        }
        const waitMs = fault instanceof RetryAfter ? fault.ms : (backOffs[Math.min(count, backOffs.length) - 1] ?? 1_000);
        say(one, nak(waitMs * (0.75 + Math.random() / 2)));
        log.warn({ err: fault, subject: message.subject, deliveryCount: count, waitMs }, 'message will be delivered again');
        settled('again');
        return false;
      }
      const reply = header(headerNames.reply);
      const id = header(headerNames.id);
      // Before the acknowledgement: if we die between the two, it is answered twice and not never.
      if (answer !== undefined && reply !== undefined && id !== undefined && !sendAnswer(nc, reply, id, answer)) log.warn({ reply }, 'answer has no place to go');
      settled('done');
      return true;
    } finally {
      span.end();
    }
  }

  async function acknowledge(one: Held): Promise<void> {
    if (!confirmed) return say(one, ACK);
    try {
      await nc.request(one.ackSubject, ACK, { timeout: CONFIRM_MS });
    } catch (err) {
      // It comes again, and its answer is remembered by then.
      log.debug({ err, subject: one.message.subject }, 'acknowledgement was not confirmed');
    }
  }

  async function setAside(one: Held, why: string, span: Parameters<typeof traceparentOf>[0]): Promise<void> {
    const { message } = one;
    const copy = newHeaders();
    for (const name of message.headers?.keys() ?? []) if (!name.startsWith('Nats-')) copy.set(name, printable(message.headers?.get(name) ?? ''));
    copy.set(headerNames.reason, printable(why));
    // Its own id, so that a repetition after a crash between the two steps makes no second copy.
    copy.set(headerNames.deduplicate, `dead:${spec.stream}:${nameOf(one.ackSubject)}`);
    const here = traceparentOf(span);
    if (here !== undefined) copy.set(headerNames.trace, here);
    const reply = await nc.request(subjects.dead(message.subject), message.data, { headers: copy, timeout: CONFIRM_MS });
    const said = reply.json<{ seq?: number; error?: StoreFault }>();
    if (said.error !== undefined || !said.seq) {
      if (said.error !== undefined && spec.deliverTo === undefined) await (await repairs()).cureStore(nc, 'DEAD', said.error, { log });
      throw new Error('DEAD did not take the message', { cause: said.error });
    }
  }

  return {
    status: () => source.status(),
    load: () => ({ running: mailboxes.running, waiting: mailboxes.waiting }),
    stop: async (drainMs = DRAIN_MS) => {
      if (stopping) return mailboxes.idle();
      stopping = true;
      mailboxes.abandon();
      await source.close();
      for (const one of held) {
        if (one.begun) continue;
        held.delete(one);
        say(one, nak(0));
      }
      const ended = await within(drainMs, mailboxes.idle().then(() => Promise.all(acknowledging)));
      if (ended === 'late') log.warn({ durable: spec.durable, running: mailboxes.running }, 'handlers were still at work at the end');
      clearInterval(working);
      if (!nc.isClosed()) await within(500, nc.flush().catch(() => undefined));
    },
  };
}

/** Where messages come from. */
interface Source {
  status(): { readonly ok: boolean; readonly says: string };
  /** Something was settled: there may be room for more. */
  refill(): void;
  /** Asks for no more. Resolves when the server delivers here no more, or does not answer. */
  close(): Promise<void>;
}

interface SourceOptions {
  readonly bus: Bus;
  readonly spec: ConsumerSpec;
  readonly log: BusLog;
  readonly receive: (message: Msg) => void;
}

async function within<T>(ms: number, work: Promise<T>): Promise<T | 'late'> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<'late'>((resolve) => { timer = setTimeout(() => resolve('late'), ms); });
  return Promise.race([work, late]).finally(() => clearTimeout(timer));
}

/** The server delivers no more to it; what it delivered before is still received. */
const drain = async (subscription: Subscription): Promise<void> => {
  if (!subscription.isClosed()) await within(500, subscription.drain().catch(() => undefined));
};

function pushed({ bus, spec, log, deliverTo, receive }: SourceOptions & { readonly deliverTo: string }): Source {
  const subscription = bus.nc.subscribe(deliverTo, {
    callback: (err, message) => {
      if (err) return log.error({ err, durable: spec.durable }, 'commands cannot be received');
      // Status messages (a heartbeat, a request of flow control) have no body and a code.
      if (message.headers !== undefined && message.headers.code !== 0) {
        if (message.reply) message.respond();
        return;
      }
      receive(message);
    },
  });
  return {
    status: () => bus.status(),
    refill: () => undefined,
    close: () => drain(subscription),
  };
}

interface PullOptions extends SourceOptions {
  readonly window: number;
  readonly held: () => number;
  readonly repair: () => Promise<string>;
}

function pulled({ bus, spec, window, log, held, repair, receive }: PullOptions): Source {
  const { nc } = bus;
  const inbox = bus.newInbox();
  const next = `$JS.API.CONSUMER.MSG.NEXT.${spec.stream}.${spec.durable}`;
  /** By the subject of its status: what was asked for and has neither come nor been declined, oldest first. */
  const pulls = new Map<string, { left: number; readonly lapse: NodeJS.Timeout }>();
  let serial = 0;
  /** Pulls that were the only one and ended without a word, since the last sign of the server. */
  let unanswered = 0;
  let state: 'finding' | 'flowing' | 'closed' = 'finding';
  let why = 'looking for its durable';
  /** Which making of the durable was asked last. */
  let known: string | undefined;
  let finding: Promise<void> | undefined;
  let wake: (() => void) | undefined;
  let slowly: NodeJS.Timeout | undefined;
  /** Who stops waits for it: the last pull has ended. */
  let over: (() => void) | undefined;

  const credits = (): number => {
    let sum = 0;
    for (const { left } of pulls.values()) sum += left;
    return sum;
  };
  const end = (subject: string): void => {
    clearTimeout(pulls.get(subject)?.lapse);
    pulls.delete(subject);
    if (pulls.size === 0) over?.();
  };
  const forget = (): void => { for (const subject of pulls.keys()) end(subject); };
  /** One has come. From which pull the server took it is not said. */
  const take = (): void => {
    const [oldest] = pulls;
    if (oldest === undefined) return;
    const [subject, pull] = oldest;
    pull.left -= 1;
    if (pull.left === 0) end(subject);
  };

  /** Asked once more after what has come was read: a process that stood still finds its timers before the server's words. */
  const lapsed = (subject: string): void => {
    if (!pulls.has(subject)) return;
    end(subject);
    if (pulls.size === 0 && bus.status().ok && ++unanswered >= UNANSWERED_MAX) return lose('no sign of life');
    refill();
  };

  const refill = (): void => {
    if (state !== 'flowing' || slowly !== undefined) return;
    // What is sent while nobody hears would all be granted at once later.
    if (!bus.status().ok) return;
    const asked = credits();
    const room = unanswered > 0 ? Math.min(1 - asked, window - held()) : window - held() - asked;
    // In quarters, so that a stream of messages costs a pull for many, not one for each.
    if (room <= 0 || (asked > 0 && room < window / 4)) return;
    const subject = `${inbox}.${String(++serial)}`;
    try {
      nc.publish(next, JSON.stringify({ batch: room, expires: PULL_EXPIRES_MS * NANOS }), { reply: subject });
    } catch (err) {
      return log.debug({ err }, 'pull could not be sent');
    }
    pulls.set(subject, {
      left: room,
      lapse: setTimeout(() => { setImmediate(lapsed, subject); }, PULL_EXPIRES_MS + PULL_GRACE_MS),
    });
  };

  const lose = (reason: string, waitMs = 0): void => {
    if (state === 'closed') return;
    if (state === 'flowing') log.warn({ durable: spec.durable, reason }, 'durable lost, looking for it');
    state = 'finding';
    why = reason;
    forget();
    wake?.();
    finding ??= find(waitMs).finally(() => {
      finding = undefined;
      if (state === 'finding' && !nc.isClosed()) lose(why);
    });
  };

  const find = async (waitMs: number): Promise<void> => {
    if (waitMs > 0) await new Promise((resolve) => setTimeout(resolve, waitMs));
    for (let attempt = 0; state === 'finding'; attempt++) {
      try {
        const made = await repair();
        if (state !== 'finding') return;
        known = made;
        state = 'flowing';
        unanswered = 0;
        refill();
        log.info({ durable: spec.durable, attempts: attempt + 1 }, 'durable found');
        return;
      } catch (err) {
        if (nc.isClosed()) return;
        why = `its durable ${spec.durable} is not there: ${err instanceof Error ? err.message : 'no reason given'}`;
        log.debug({ err, durable: spec.durable }, 'durable not found yet');
        await new Promise<void>((resolve) => {
          const timer = setTimeout(resolve, backOffMs(attempt));
          // A reconnect is worth an attempt at once.
          wake = () => { clearTimeout(timer); resolve(); };
        });
        wake = undefined;
      }
    }
  };

  const onStatus = (message: Msg): void => {
    const { headers } = message;
    const code = headers?.code ?? 0;
    if (code === 503) return lose('nobody serves it');
    end(message.subject);
    if (code === 408 || code === 404) return refill();
    const sentence = headers?.description ?? '';
    // Not at once: a stream that is made anew while the server still removes the old one's folders loses its own.
    if (/consumer deleted|stream deleted/i.test(sentence)) return lose(sentence, REMOVAL_MS);
    // A change of leaders, a limit: not at once again.
    log.warn({ durable: spec.durable, code, sentence }, 'pull declined');
    slowly ??= setTimeout(() => { slowly = undefined; refill(); }, 250);
  };

  const subscription: Subscription = nc.subscribe(`${inbox}.*`, {
    callback: (err, message) => {
      if (err) return log.error({ err, durable: spec.durable }, 'messages cannot be received');
      unanswered = 0;
      if (message.subject.startsWith(inbox)) return onStatus(message);
      receive(message);
      take();
      refill();
    },
  });

  // A server that restarted has forgotten what was asked, and perhaps all the rest.
  const forgetReconnect = bus.onReconnect(() => lose('the connection was lost'));
  // Usually a pull is told that its durable is gone. Where the stream was deleted it may not be (seen on 2.9.10), and another process may make the durable first.
  const remade = nc.subscribe(subjects.remade(spec), {
    callback: () => {
      if (state !== 'flowing') return;
      repair().then((made) => {
        if (state !== 'flowing' || made === known) return;
        known = made;
        forget();
        refill();
      }).catch(() => { lose('its durable was made anew'); });
    },
  });

  lose('looking for its durable');

  return {
    status: () => {
      if (!bus.status().ok) return bus.status();
      return state === 'flowing' ? { ok: true, says: `reads ${spec.durable}` } : { ok: false, says: why };
    },
    refill,
    close: async () => {
      const open = state === 'flowing' && pulls.size > 0;
      state = 'closed';
      wake?.();
      clearTimeout(slowly);
      if (!remade.isClosed()) remade.unsubscribe();
      forgetReconnect();
      if (open && bus.status().ok) await within(4 * PULL_EXPIRES_MS, new Promise<void>((resolve) => { over = resolve; }));
      forget();
      await drain(subscription);
    },
  };
}
