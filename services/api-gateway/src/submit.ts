/*
 * How a request becomes a command, and the command an answer.
 *
 * The receiver answers twice: straight back to us, after its commit, and into the log, in its commit. The
 * first is quick and may be lost; the second never is. So we wait for the first, and after 300 ms look for
 * the second as well. A command that neither side knows is sent again at 500 ms and at 1 s; everybody
 * remembers the answer to an id, so that does no harm. After 2 s we record that we owe the command to its
 * receiver and tell the caller that it is pending: from then on whoever leads sends it until it is answered
 * (operations/operations.store.ts), and no crash of ours loses it.
 *
 *      0        300        500        1 000        2 000 ms
 *      send     look       send       send         record, answer 202 pending
 *                          look       look
 *
 * When neither the bus nor the log can be reached nothing is promised: 503, and the same request with the
 * same key may be sent again at any time.
 */
import type { CommandEnvelope, Receiver } from '@chronovirt/contracts/command';
import type { OperationId, VmId } from '@chronovirt/contracts/ids';
import { idFrom } from '@chronovirt/contracts/ids';
import { type Accepted, type Answer, isRefusal, refuse, type Refusal } from '@chronovirt/decider/decider';

export interface SubmitPorts {
  /** The answer that comes straight back, or undefined when none came within the time. Never rejects. */
  expect(envelope: CommandEnvelope, withinMs: number): Promise<Answer | undefined>;
  /** False when the bus did not take it. Never rejects. */
  publish(envelope: CommandEnvelope): Promise<boolean>;
  /** What the log says it was answered. Rejects when the log is away. */
  stored(commandId: string): Promise<{ readonly answer: Answer; readonly requestHash: string | undefined } | undefined>;
  /** Records that these commands are owed, once for each `id`. Rejects when the log is away. */
  accept(accepting: Accepting): Promise<Answer>;
  wait(ms: number): Promise<undefined>;
  /** A UUID of version 8 from a key: the same key always gives the same. */
  uuidFrom(key: string): string;
}

export interface Accepting {
  readonly id: string;
  readonly requestHash: string | undefined;
  readonly operationId: OperationId;
  readonly kind: string;
  readonly commands: readonly CommandEnvelope[];
  readonly actor: string;
}

export type Submitted =
  | { readonly kind: 'answered'; readonly answer: Accepted }
  | { readonly kind: 'refused'; readonly refusal: Refusal }
  /** Nobody answered yet; the command is recorded and will be sent until somebody does. */
  | { readonly kind: 'pending' };

/** The log cannot be reached, so nothing can be promised. */
export class LogAway extends Error {
  override readonly name = 'LogAway';
  constructor(cause: unknown) {
    super('the log cannot be reached', { cause });
  }
}

/** Milliseconds to wait, and whether the command is sent again after that. Together 2 s. */
const schedule = [
  { waitMs: 300, again: false },
  { waitMs: 200, again: true },
  { waitMs: 500, again: true },
  { waitMs: 1_000, again: false },
] as const;

export const PENDING_AFTER_MS = schedule.reduce((sum, { waitMs }) => sum + waitMs, 0);

const judged = (answer: Answer): Submitted => (isRefusal(answer) ? { kind: 'refused', refusal: answer } : { kind: 'answered', answer });

/** Sends a command and waits for its answer, 2 s at most. With `kind` an unanswered one is recorded as owed; without, its caller has to ask again. Throws LogAway. */
export const submit = async (ports: SubmitPorts, envelope: CommandEnvelope, kind: string | undefined): Promise<Submitted> => {
  const reply = ports.expect(envelope, PENDING_AFTER_MS);
  void ports.publish(envelope);
  for (const { waitMs, again } of schedule) {
    const answer = await Promise.race([reply, ports.wait(waitMs)]);
    if (answer !== undefined) return judged(answer);
    // A log that is away for a moment may be back before the end.
    const stored = await ports.stored(envelope.id).catch(() => undefined);
    if (stored !== undefined) {
      const isOther = envelope.requestHash !== undefined && stored.requestHash !== undefined && stored.requestHash !== envelope.requestHash;
      return judged(isOther ? refuse('idempotency.key_reused') : stored.answer);
    }
    if (again) void ports.publish(envelope);
  }
  // A rehearsal is nothing that anybody owes.
  if (kind === undefined || envelope.rehearses !== undefined) return { kind: 'pending' };
  const { operationId, actor } = envelope.meta;
  if (operationId === undefined) throw new Error(`${envelope.type} has no operation to wait under`);
  await accept(ports, { id: ports.uuidFrom(`${envelope.id}:accept`), requestHash: envelope.requestHash, operationId, kind, commands: [envelope], actor });
  return { kind: 'pending' };
};

/** Records a batch under its parent, then sends all of it without waiting. Refused when the key was used for something else. */
export const submitBatch = async (ports: SubmitPorts, batch: Accepting): Promise<Submitted> => {
  const answer = await accept(ports, batch);
  if (isRefusal(answer)) return { kind: 'refused', refusal: answer };
  for (const envelope of batch.commands) void ports.publish(envelope);
  return { kind: 'answered', answer };
};

const accept = (ports: SubmitPorts, accepting: Accepting): Promise<Answer> =>
  ports.accept(accepting).catch((cause: unknown) => { throw new LogAway(cause); });

/** Who asks for what, with the ids that follow from it. */
export interface Request {
  readonly commandId: string;
  readonly operationId: OperationId;
  readonly actor: string;
  readonly requestHash: string | undefined;
  readonly traceparent: string | undefined;
  /** Version of the thing that the caller has seen (If-Match). */
  readonly expected?: number | undefined;
  /** The caller only asks what would happen: the id of the asking, another each time. */
  readonly rehearsalId?: string | undefined;
}

type Taken = NonNullable<NonNullable<CommandEnvelope['rehearses']>['taken']>;

/** A rehearsal has an id of its own, else whoever waits for the answer of the command itself would take its answer for that one. */
const idOf = ({ commandId, rehearsalId }: Request, taken: Taken | undefined): Pick<CommandEnvelope, 'id' | 'rehearses'> =>
  (rehearsalId !== undefined ? { id: rehearsalId, rehearses: { id: commandId, ...(taken === undefined ? {} : { taken }) } } : { id: commandId });

export const envelopeOf = (request: Request, command: { readonly to: Receiver; readonly target: string; readonly type: string; readonly data: object; readonly vmId?: VmId }, taken?: Taken): CommandEnvelope => ({
  ...idOf(request, taken),
  to: command.to,
  target: command.target,
  type: command.type,
  data: command.data as CommandEnvelope['data'], // parsed by the body's schema, so it is plain JSON
  meta: {
    actor: request.actor,
    operationId: request.operationId,
    ...(command.vmId === undefined ? {} : { vmId: command.vmId }),
    ...(request.traceparent === undefined ? {} : { traceparent: request.traceparent }),
  },
  cancels: [],
  ...(request.requestHash === undefined ? {} : { requestHash: request.requestHash }),
  ...(request.expected === undefined ? {} : { expected: request.expected }),
});

/** Ids from a command's id, so that the same request names the same things. */
export const idsOf = (commandId: string, uuidFrom: (key: string) => string) => ({
  operationId: idFrom('op', commandId),
  thing: <K extends string>(kind: K) => idFrom(kind, uuidFrom(`${commandId}:${kind}`)),
  member: (index: number) => uuidFrom(`${commandId}:${String(index)}`),
});
