import { z } from 'zod';
import { command, type CommandOf } from '../command.ts';
import { DriftId, NodeId, OperationId, VmId } from '../ids.ts';
import { Json, text } from '../text.ts';
import { Difference, DriftAction, DriftClass, DriftItem, ForeignDomain } from './drift.events.ts';

/**
 * What a node found, before anybody compared it with other nodes. `domain`: one of ours that differs; `missing`: one of ours
 * that is not there; `stray`: it carries our words and was not told to be here; `foreign`: it is not ours; `node-restarted`: the machine was, and domains that ran do not.
 */
export const Finding = z.object({
  kind: z.enum(['domain', 'missing', 'stray', 'foreign', 'orphan-disk', 'disk-missing', 'disk-replaced', 'network', 'node-restarted']),
  subject: text(300), vmId: VmId.nullable(), name: text(300).nullable(), differences: z.array(Difference).max(50), foreign: ForeignDomain.nullable(), says: text(500),
});
export type Finding = z.infer<typeof Finding>;

export const FINDINGS_MAX = 500;

/** A report `cv.rpt.<node>.drift.<node>`: everything that differs on a node now. Sequence rises within a session. */
export const DriftReport = z.object({ nodeId: NodeId, session: z.int(), sequence: z.int(), findings: z.array(Finding).max(FINDINGS_MAX), /** How many more there are. */ more: z.int().nonnegative(), /** VMs of which the node does not know any more what it was told: nothing is compared of them. */ untold: z.array(VmId).max(FINDINGS_MAX).default([]), nodeAt: z.iso.datetime() });
export type DriftReport = z.infer<typeof DriftReport>;

/** The body of PUT /v1/drift-policies/:class. */
export const SetDriftPolicyBody = z.strictObject({ action: DriftAction.describe('alert shows it and waits for an operator; ignore shows it only when asked; revert and adopt act at once') }).meta({ id: 'SetDriftPolicy' });

export const driftCommands = {
  /** From reports, classified. */
  RecordDrift: command('scheduler', 'nodeId', z.object({ nodeId: NodeId, session: z.int(), sequence: z.int(), items: z.array(DriftItem).max(FINDINGS_MAX) })),
  /** Something is done about an item: from the gateway, or from the policy of its class. */
  ActOnDrift: command('scheduler', 'nodeId', z.object({ nodeId: NodeId, driftId: DriftId, operationId: OperationId, action: z.enum(['adopt', 'revert', 'ignore']), by: z.enum(['operator', 'policy']) })),
  /** From the saga that had a node do it. `refused` is null when it did. */
  EndDriftAction: command('scheduler', 'nodeId', z.object({ nodeId: NodeId, driftId: DriftId, operationId: OperationId, refused: text(100).nullable(), because: Json })),
  SetDriftPolicy: command('scheduler', 'class', z.object({ class: DriftClass, action: DriftAction })),
} as const;
export type DriftCommand = CommandOf<typeof driftCommands>;
