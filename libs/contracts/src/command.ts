import { z } from 'zod';
import { CommandId, NodeId, OperationId, VmId } from './ids.ts';
import { Json, text } from './text.ts';

/** The receivers of commands: a service, or the node that the target names. */
export const Receiver = z.enum(['gateway', 'scheduler', 'ipam', 'storage', 'monitor', 'node']);
export type Receiver = z.infer<typeof Receiver>;

/** Who, why and under what: goes from the call into every event that it causes. */
export const CommandMeta = z.object({
  /** Opaque id of who asked: 'user_…', 'token_…', 'node_…' or 'system:<service>'. */
  actor: text(100),
  operationId: OperationId.optional(),
  vmId: VmId.optional(),
  /** The command that caused this one. */
  causedBy: CommandId.optional(),
  /** W3C trace context. */
  traceparent: text(100).optional(),
  /** The node's own clock, ISO 8601, where a node saw what is recorded. Never used to order anything. */
  nodeAt: z.iso.datetime().optional(),
  nodeId: NodeId.optional(),
});
export type CommandMeta = z.infer<typeof CommandMeta>;

/** What crosses the bus: everything may be sent twice, because everyone remembers the answer to an id. */
export const CommandEnvelope = z.object({
  id: CommandId,
  to: Receiver,
  /** Part of the subject: the id of the thing that is meant, or the node. No dots. */
  target: z.string().regex(/^[A-Za-z0-9_-]{1,100}$/),
  type: z.string().regex(/^[A-Z][A-Za-z]{1,60}$/),
  data: Json,
  meta: CommandMeta,
  /** Commands that are answered 'command.cancelled' before this one is obeyed. */
  cancels: z.array(CommandId).max(100),
  /** SHA-256 (hex) of the canonical request, for commands with a caller's key. */
  requestHash: z.string().regex(/^[0-9a-f]{64}$/).optional(),
  /** For nodes: the session the sender believes in. A node refuses another with 'node.old_session'. */
  session: z.int().nonnegative().optional(),
  /** Version of the target's stream that the caller has seen: 'precondition.failed' when more than observations came since. */
  expected: z.int().nonnegative().optional(),
  /** This command only asks what another one would be answered and would record now; nothing is written. */
  rehearses: z.object({
    /** The id that the other one has: what it names follows from it. */
    id: CommandId,
    /** Capacity that is to be thought away first: what earlier members of a batch would get. */
    taken: z.array(z.object({ nodeId: NodeId, vcpus: z.int().nonnegative(), memoryMib: z.int().nonnegative() })).max(500).optional(),
  }).optional(),
});
export type CommandEnvelope = z.infer<typeof CommandEnvelope>;

export const Refusal = z.object({ refused: text(100), because: Json.optional() });
export const Accepted = z.object({
  version: z.int().nonnegative(),
  facts: Json.optional(),
  /** Of its last event in the log; in a reply that comes straight from the commit. */
  position: z.int().positive().optional(),
  /** Of a command that rehearsed another: what that one would record, and where a VM would be placed. */
  rehearsal: z.object({
    events: z.array(z.object({ stream: text(300), version: z.int().positive(), type: text(100), data: Json })),
    placement: Json.optional(),
  }).optional(),
});
export const Answer = z.union([Refusal, Accepted]);

/** What comes back on the inbox that the header Cv-Reply named. */
export const Reply = z.object({ id: CommandId, answer: Answer });
export type Reply = z.infer<typeof Reply>;

/** One command of a service: its schema, and which field of its data names the target. */
export interface CommandSpec<T> {
  readonly to: Receiver;
  readonly target: keyof T & string;
  readonly schema: z.ZodType<T>;
}

export const command = <T>(to: Receiver, target: keyof T & string, schema: z.ZodType<T>): CommandSpec<T> => ({ to, target, schema });

/** The union of a table's commands. */
export type CommandOf<T> = { [K in keyof T & string]: T[K] extends CommandSpec<infer D> ? { readonly type: K; readonly data: D } : never }[keyof T & string];

/** A command on its way to someone else: what sagas and policies produce. Envelopes are made of it. */
export interface Outgoing {
  readonly to: Receiver;
  readonly target: string;
  readonly type: string;
  readonly data: Readonly<Record<string, unknown>>;
  /** Key of the command that this one is, when another saga was to send it: whoever obeyed that one answers the same. */
  readonly as?: string;
  /** Keys of commands that are answered 'command.cancelled' before this one is obeyed. */
  readonly cancels?: readonly string[];
}

/** Thrown by `readCommand`: what came cannot be a command of this receiver, however often it comes. */
export class NotACommand extends Error {
  override readonly name = 'NotACommand';
}

/** The envelope with its data in the shape its type demands; unknown fields are dropped. Throws NotACommand, naming each bad field. */
export const readCommand = (commands: Readonly<Record<string, { readonly schema: z.ZodType }>>, value: unknown): CommandEnvelope => {
  const envelope = CommandEnvelope.safeParse(value);
  if (!envelope.success) throw new NotACommand(`not an envelope: ${fieldsOf(envelope.error)}`);
  const spec = Object.hasOwn(commands, envelope.data.type) ? commands[envelope.data.type] : undefined;
  if (spec === undefined) throw new NotACommand(`no command of ours: ${envelope.data.type}`);
  const data = spec.schema.safeParse(envelope.data.data);
  if (!data.success) throw new NotACommand(`not a ${envelope.data.type}: ${fieldsOf(data.error)}`);
  return { ...envelope.data, data: data.data as CommandEnvelope['data'] };
};

const fieldsOf = (error: z.ZodError): string => error.issues.slice(0, 10).map(({ path, message }) => `${path.join('.')}: ${message}`).join('; ');
