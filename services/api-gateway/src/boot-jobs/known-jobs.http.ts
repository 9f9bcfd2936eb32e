/* Boot jobs by their names, and the nodes that secrets are sealed to. */
import { BootJobId, type BootRunId, idFrom, type NodeId } from '@chronovirt/contracts/ids';
import { commandIdOf } from '@chronovirt/event-log/command-id';
import { seal } from '@chronovirt/messaging/seal';
import type { Gateway } from '../gateway.ts';
import type { NodeSummary } from '../nodes/node-summary.projection.ts';
import { ProblemError } from '../problem.http.ts';
import type { BootJobDocument } from './boot-job.projection.ts';
import type { SealingNode } from './boot-run.ts';
import { bootJobIdOf, builtInJobs } from './built-in.os.ts';

/** Of the runs that one command brings, the one in this place. */
export const runIdOf = (commandId: string, index: number): BootRunId => idFrom('run', commandIdOf(`${commandId}:run:${String(index)}`));

export const jobKnownAs = async ({ views, reading }: Pick<Gateway, 'views' | 'reading'>, reference: string, field: string): Promise<BootJobDocument> => {
  const id = BootJobId.safeParse(reference).success ? reference : bootJobIdOf(reference);
  const builtIn = builtInJobs.find((job) => job.id === id);
  if (builtIn !== undefined) return builtIn;
  // Whoever has just made it uses it at once.
  await reading.own(id);
  const job = await views.document<BootJobDocument>('boot_job', id);
  if (job === undefined) throw new ProblemError('boot_job.unknown', { because: { job: reference, field } });
  return job;
};

export const sealingNode = async ({ views }: Pick<Gateway, 'views'>, nodeId: string | null): Promise<SealingNode | undefined> => {
  const node = nodeId === null ? undefined : await views.document<NodeSummary>('node_summary', nodeId);
  return node === undefined ? undefined : { id: node.id as NodeId, seal: (secret, purpose) => sealedFor(node, secret, purpose) };
};

/** Throws when the node has told no key that is one. */
const sealedFor = ({ id, sealKey }: NodeSummary, secret: string, purpose: string): string => {
  try {
    return seal(sealKey, secret, purpose);
  } catch {
    // Its cause would say nothing more, and the secret was near it.
    throw new ProblemError('node.no_seal_key', { because: { nodeId: id } });
  }
};
