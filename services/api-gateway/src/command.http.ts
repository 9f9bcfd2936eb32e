/** How requests about things other than VMs become commands: networks, images, nodes. */
import type { Receiver } from '@chronovirt/contracts/command';
import { type Accepted, type Decider, isRefusal, type Refusal } from '@chronovirt/decider/decider';
import type { CommandHandler, Handling } from '@chronovirt/event-log/handle';
import { rehearse } from '@chronovirt/event-log/rehearse';
import type { FastifyReply } from 'fastify';
import { explained } from './explained.store.ts';
import type { Gateway } from './gateway.ts';
import { ProblemError, refused } from './problem.http.ts';
import { type Asked, sendJson } from './request.http.ts';
import { envelopeOf, type Request, submit } from './submit.ts';
import { pendingOperation } from './vms/requested-vm.ts';
import { sendRehearsal } from './write.http.ts';

/** A refusal as a problem, with the names of what is in the way and with what changed since the caller looked. */
export const refusedWith = async (gateway: Gateway, refusal: Refusal, stream: string): Promise<ProblemError> => refused(await explained(gateway, refusal, stream));

/** Nobody answered a rehearsal in time: nothing is owed, so it is asked again. */
export const noAnswer = (): ProblemError => new ProblemError('gateway.no_answer', { detail: 'Nobody has answered yet; ask again.', headers: { 'retry-after': '2' } });

/**
 * Submits and waits for the answer, and for the projections to show it. Undefined when the reply was sent:
 * 202 with the operation to follow when nobody answered in time, or what would happen when that was asked.
 */
export const obeyed = async (
  gateway: Gateway, reply: FastifyReply, asked: Asked,
  command: { readonly to: Receiver; readonly target: string; readonly type: string; readonly data: object; readonly kind: string; readonly stream: string },
): Promise<Accepted | undefined> => {
  const { kind, stream, ...rest } = command;
  const outcome = await submit(gateway.ports, envelopeOf(asked, rest), kind);
  switch (outcome.kind) {
    case 'refused':
      throw await refusedWith(gateway, outcome.refusal, stream);
    case 'answered':
      if (asked.rehearsalId !== undefined) {
        sendRehearsal(reply, outcome.answer);
        return undefined;
      }
      await gateway.reading.wrote(reply, stream, outcome.answer, [command.target]);
      await gateway.reading.own(command.target);
      return outcome.answer;
    case 'pending':
      if (asked.rehearsalId !== undefined) throw noAnswer();
      sendJson(reply.code(202).header('location', `/v1/operations/${asked.operationId}`), JSON.stringify({
        operation: pendingOperation({ id: asked.operationId, kind, vmId: null, commandId: asked.commandId, actor: asked.actor }),
      }));
      return undefined;
  }
};

/** Has one of the gateway's own deciders decide. Undefined when that was only asked for: then the reply was sent. */
export const decided = async <C, E extends { readonly type: string; readonly data: object }, S>(
  gateway: Gateway, reply: FastifyReply, asked: Request, decider: Decider<C, E, S>, about: Pick<Handling<C>, 'stream' | 'command'>, ids: readonly string[],
): Promise<Accepted | undefined> => {
  const handling: Handling<C> = {
    ...about, id: asked.commandId, cancels: [], requestHash: asked.requestHash, expected: asked.expected,
    meta: { actor: asked.actor, ...(asked.traceparent === undefined ? {} : { traceparent: asked.traceparent }) },
  };
  const work = async (handler: CommandHandler) => (await handler.handle(decider, handling)).answer;
  const dryRun = asked.rehearsalId !== undefined;
  const answer = await (dryRun ? rehearse(gateway.events, work) : work(gateway.handler));
  if (isRefusal(answer)) throw await refusedWith(gateway, answer, about.stream);
  if (dryRun) {
    sendRehearsal(reply, answer);
    return undefined;
  }
  await gateway.reading.wrote(reply, about.stream, answer, ids);
  // Whoever wrote it reads it, or uses it, at once.
  for (const id of ids) await gateway.reading.own(id);
  return answer;
};
