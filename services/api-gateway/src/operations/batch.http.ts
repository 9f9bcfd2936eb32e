/* Many commands of one request: each an operation of its own, under one parent. */
import { commandIdOf } from '@chronovirt/event-log/command-id';
import { rehearse } from '@chronovirt/event-log/rehearse';
import type { NodeId, OperationId, VmId } from '@chronovirt/contracts/ids';
import { isRefusal, refuse } from '@chronovirt/decider/decider';
import type { FastifyReply } from 'fastify';
import { noAnswer, refusedWith } from '../command.http.ts';
import type { Gateway } from '../gateway.ts';
import { refused } from '../problem.http.ts';
import type { Asked } from '../request.http.ts';
import { type Accepting, envelopeOf, submit, submitBatch } from '../submit.ts';
import { type PendingOperation, pendingOperation } from '../vms/requested-vm.ts';
import { rehearsalShown, sendRehearsal } from '../write.http.ts';
import { acceptance, operation } from './operation.ts';

export interface Member {
  readonly commandId: string;
  readonly operationId: OperationId;
  readonly vmId: VmId;
  readonly command: Parameters<typeof envelopeOf>[1];
  /** What it would set aside, so that those after it are told as if it were placed. */
  readonly share?: { readonly vcpus: number; readonly memoryMib: number };
  /** Said of it in a rehearsal. */
  readonly about: object;
}

const requestOfMember = (asked: Asked, { commandId, operationId }: Member): Asked => ({
  ...asked, commandId, operationId, requestHash: undefined, expected: undefined, rehearsalId: asked.rehearsalId === undefined ? undefined : commandIdOf(`${asked.rehearsalId}:${commandId}`),
});

const batchOf = (asked: Asked, kind: string, members: readonly Member[]): Accepting => ({
  id: asked.commandId, requestHash: asked.requestHash, operationId: asked.operationId, kind, actor: asked.actor,
  commands: members.map((member) => envelopeOf({ ...requestOfMember(asked, member), rehearsalId: undefined }, member.command)),
});

/** What would be recorded at once, and then for each member what its receiver says, one after another: each as if those before it were placed. */
const rehearseMany = async (gateway: Gateway, asked: Asked, batch: Accepting, members: readonly Member[], reply: FastifyReply): Promise<void> => {
  const accepted = await rehearse(gateway.events, async (handler) => (await handler.handle(operation, acceptance(batch))).answer);
  if (isRefusal(accepted)) throw refused(accepted);
  const taken: { nodeId: NodeId; vcpus: number; memoryMib: number }[] = [];
  const shown: object[] = [];
  for (const member of members) {
    const { vmId, operationId, share } = member;
    const outcome = await submit(gateway.ports, envelopeOf(requestOfMember(asked, member), member.command, taken), undefined);
    if (outcome.kind === 'pending') throw noAnswer();
    const about = { ...member.about, vmId, operationId };
    if (outcome.kind === 'refused') {
      shown.push({ ...about, problem: refused(outcome.refusal).problem });
      continue;
    }
    const { version, rehearsal = { events: [] } } = outcome.answer;
    shown.push({ ...about, version, ...rehearsalShown(rehearsal) });
    const nodeId = rehearsal.placement?.['nodeId'];
    if (typeof nodeId === 'string' && share !== undefined) taken.push({ nodeId: nodeId as NodeId, ...share });
  }
  sendRehearsal(reply, accepted, { members: shown });
};

/** What does not exist yet cannot be as anybody has seen it; of a single thing its receiver says so. Throws a ProblemError. */
export const refuseExpected = ({ expected }: Asked): void => {
  if (expected !== undefined) throw refused(refuse('precondition.failed', { expected, version: 0, since: [] }));
};

/** The parent, which the reply's head is about; undefined when it was only asked what would happen, and that was sent. */
export const acceptMany = async (gateway: Gateway, asked: Asked, kind: string, members: readonly Member[], reply: FastifyReply): Promise<PendingOperation | undefined> => {
  const { operationId, actor, commandId } = asked;
  const batch = batchOf(asked, kind, members);
  if (asked.rehearsalId !== undefined) {
    await rehearseMany(gateway, asked, batch, members, reply);
    return undefined;
  }
  const stream = `operation-${operationId}`;
  const outcome = await submitBatch(gateway.ports, batch);
  if (outcome.kind === 'refused') throw await refusedWith(gateway, outcome.refusal, stream);
  if (outcome.kind === 'answered') await gateway.reading.wrote(reply, stream, outcome.answer, [operationId]);
  void reply.code(202).header('location', `/v1/operations/${operationId}`);
  return pendingOperation({ id: operationId, kind, vmId: null, commandId, actor, members: members.map((member) => ({ operationId: member.operationId, vmId: member.vmId })) });
};
