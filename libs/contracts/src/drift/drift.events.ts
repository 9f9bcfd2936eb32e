/*
 * Drift: a node is not as it was told to be, by nobody's command. One item for each thing of a node; its id
 * is made of both, so that what is seen twice is the same item. It is seen, it may become different, and at
 * last it is settled: whatever was done about it, only a node that saw it gone says so.
 */
import { z } from 'zod';
import { event, type EventOf } from '../event.ts';
import { DriftId, NodeId, OperationId, VmId } from '../ids.ts';
import { Json, text } from '../text.ts';
import { BootDevice } from '../vm/vm.events.ts';

/** What was told and what is there. null: nothing. `where` is the domain that runs, or what the next start finds. */
export const Difference = z.object({
  field: text(200), where: z.enum(['running', 'defined']).optional(),
  expected: z.union([z.boolean(), z.number(), text(1_000)]).nullable(), seen: z.union([z.boolean(), z.number(), text(1_000)]).nullable(),
});
export type Difference = z.infer<typeof Difference>;

/** A domain that is not one of ours, as far as whoever would adopt it must know. Memory in MiB, disks in bytes. */
export const ForeignDomain = z.object({
  // libvirt takes any 16 bytes for one.
  uuid: z.guid(), name: text(300), state: text(30), vcpus: z.int(), vcpusMax: z.int(), memoryMib: z.int(), memoryMibMax: z.int(), persistent: z.boolean(),
  disks: z.array(z.object({ target: text(20), file: text(1_000), format: text(20), bytes: z.int().nonnegative() })).max(24),
  nics: z.array(z.object({ mac: text(17), kind: text(30), source: text(100).nullable() })).max(16),
  /** From where it starts, and the drive in which it finds media. Older agents did not look. */
  boot: z.array(BootDevice).max(3).optional(), drive: z.object({ target: text(20).nullable(), file: text(1_000).nullable() }).optional(),
  /** Why it cannot be adopted as it is; empty when it can be. */
  obstacles: z.array(text(300)).max(20),
});
export type ForeignDomain = z.infer<typeof ForeignDomain>;

export const DriftClass = z.enum(['changed', 'missing', 'moved', 'duplicate', 'foreign', 'orphan-disk', 'disk-missing', 'disk-replaced', 'network', 'node-restarted']);
export type DriftClass = z.infer<typeof DriftClass>;

export const DriftAction = z.enum(['adopt', 'revert', 'alert', 'ignore']);
export type DriftAction = z.infer<typeof DriftAction>;

export const DriftItem = z.object({
  driftId: DriftId, nodeId: NodeId,
  /** The thing, by a name that it keeps: a VM, the UUID of a domain, a file, a network. */
  subject: text(300), class: DriftClass, vmId: VmId.nullable(), name: text(300).nullable(),
  differences: z.array(Difference).max(50), foreign: ForeignDomain.nullable(),
  /** In plain words. */
  says: text(500),
  /** The last operation on the VM, when there was one within five minutes: seconds between it and this. null: no command of ours. */
  near: z.object({ seconds: z.int().nonnegative() }).nullable(),
});
export type DriftItem = z.infer<typeof DriftItem>;

export const driftEvents = {
  /** Something new, or known and different from before. */
  DriftSeen: event(z.object({ ...DriftItem.shape, session: z.int(), sequence: z.int() })),
  /** It is not so any more. */
  DriftSettled: event(z.object({ driftId: DriftId, nodeId: NodeId, class: DriftClass, subject: text(300), vmId: VmId.nullable(), session: z.int(), sequence: z.int() })),
  /** What was done about it, by an operator or by the policy of its class. */
  DriftActed: event(z.object({ driftId: DriftId, nodeId: NodeId, action: DriftAction, by: z.enum(['operator', 'policy']), operationId: OperationId, vmId: VmId.nullable() })),
  /** What a node had to do about it is done, or was refused. */
  DriftActionEnded: event(z.object({ driftId: DriftId, nodeId: NodeId, operationId: OperationId, refused: text(100).nullable(), because: Json })),
  DriftPolicySet: event(z.object({ class: DriftClass, action: DriftAction })),
} as const;
export type DriftEvent = EventOf<typeof driftEvents>;
