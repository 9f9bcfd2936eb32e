/** How requests about things other than VMs become commands: networks, images, nodes. */
import type { Receiver } from '@chronovirt/contracts/command';
import type { Accepted } from '@chronovirt/decider/decider';
import type { FastifyReply } from 'fastify';
import type { Gateway } from './gateway.ts';
import { refused } from './problem.http.ts';
import { type Asked, sendJson } from './request.http.ts';
import { envelopeOf, submit } from './submit.ts';
import { pendingOperation } from './vms/requested-vm.ts';

/**
 * Submits and waits for the answer, and for the projections to show it. Undefined when nobody answered in
 * time: then 202 was sent, with the operation to follow.
 */
export const obeyed = async (
  gateway: Gateway, reply: FastifyReply, asked: Asked,
  command: { readonly to: Receiver; readonly target: string; readonly type: string; readonly data: object; readonly kind: string; readonly stream: string },
): Promise<Accepted | undefined> => {
  const { kind, stream, ...rest } = command;
  const outcome = await submit(gateway.ports, envelopeOf(asked, rest), kind);
  switch (outcome.kind) {
    case 'refused':
      throw refused(outcome.refusal);
    case 'answered':
      await gateway.reading.wrote(reply, stream, outcome.answer, [command.target]);
      await gateway.reading.own(command.target);
      return outcome.answer;
    case 'pending':
      sendJson(reply.code(202).header('location', `/v1/operations/${asked.operationId}`), JSON.stringify({
        operation: pendingOperation({ id: asked.operationId, kind, vmId: null, commandId: asked.commandId, actor: asked.actor }),
      }));
      return undefined;
  }
};
