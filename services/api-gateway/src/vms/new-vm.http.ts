/* A VM that is made of something else: accepted once its receiver has said yes, and shown as it is recorded. */
import type { VmId } from '@chronovirt/contracts/ids';
import type { FastifyReply } from 'fastify';
import { obeyed } from '../command.http.ts';
import type { Gateway } from '../gateway.ts';
import { type Asked, sendJson } from '../request.http.ts';
import { pendingOperation } from './requested-vm.ts';

/** Answers 202 with the operation and the new VM, or what would happen when that was asked. Throws ProblemError when it is refused. */
export const acceptedNew = async (gateway: Gateway, reply: FastifyReply, asked: Asked, { vmId, kind, type, data }: { readonly vmId: VmId; readonly kind: string; readonly type: string; readonly data: object }): Promise<void> => {
  const { operationId, commandId, actor } = asked;
  const answer = await obeyed(gateway, reply, asked, { to: 'scheduler', target: vmId, type, data: { vmId, operationId, ...data }, kind, stream: `vm-${vmId}` });
  if (answer === undefined) return;
  await gateway.reading.own(operationId);
  const [vm, operation] = await Promise.all([gateway.views.vm(vmId), gateway.operations.one(operationId)]);
  sendJson(reply.code(202).header('location', `/v1/operations/${operationId}`), `{"operation":${JSON.stringify(operation ?? pendingOperation({ id: operationId, kind, vmId, commandId, actor }))},"vm":${vm?.text ?? 'null'}}`);
};
