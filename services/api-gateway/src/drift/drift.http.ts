import { Body, Controller, Get, HttpCode, Inject, Param, Post, Put, Query, Req, Res } from '@nestjs/common';
import { ApiBearerAuth, ApiOperation, ApiResponse, ApiTags } from '@nestjs/swagger';
import { SetDriftPolicyBody } from '@chronovirt/contracts/drift/drift.commands';
import { DriftClass } from '@chronovirt/contracts/drift/drift.events';
import { DriftId, NodeId, VmId } from '@chronovirt/contracts/ids';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { z } from 'zod';
import { obeyed } from '../command.http.ts';
import { GATEWAY, type Gateway } from '../gateway.ts';
import { PageQuery, pageOf } from '../page.http.ts';
import { ProblemError } from '../problem.http.ts';
import { requestOf, sendJson, tagged } from '../request.http.ts';
import { pendingOperation } from '../vms/requested-vm.ts';
import { Write } from '../write.http.ts';
import type { DriftDocument, DriftPolicyDocument } from './drift.projection.ts';

const DriftQuery = PageQuery.extend({
  node: NodeId.optional().describe('Of one node; without, a file in a pool that several nodes see is shown once'),
  vm: VmId.optional().describe('Of one VM'),
  class: DriftClass.optional(),
  ignored: z.enum(['true', 'false']).default('false').describe('Also what somebody or the policy of its class ignores'),
}).meta({ id: 'DriftQuery' });

const poolOf = (of: string): string => `jsonb_path_query_first(${of}.doc, '$.differences[*] ? (@.field == "pool").seen')`;
/** Of a pool that several nodes see each of them finds every file: one is enough to be shown. */
const FOUND_ONCE = `not exists (select from gateway.drift o where drift.class = 'orphan-disk' and o.class = drift.class and o.doc ->> 'name' = drift.doc ->> 'name' and ${poolOf('o')} = ${poolOf('drift')} and o.node_id < drift.node_id)`;

@ApiTags('drift')
@ApiBearerAuth()
@Controller('v1')
export class DriftHttp {
  private readonly gateway: Gateway;

  constructor(@Inject(GATEWAY) gateway: Gateway) {
    this.gateway = gateway;
  }

  @Get('drift')
  @ApiOperation({ summary: 'What differs now from what the nodes were told: what, where, since when, and whether a command of ours stood near', operationId: 'listDrift' })
  @ApiResponse({ status: 200, description: 'A page', schema: { $ref: '#/components/schemas/DriftPage' } })
  async list(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Query({ schema: DriftQuery }) { node, vm, class: driftClass, ignored, ...query }: z.infer<typeof DriftQuery>): Promise<void> {
    await this.gateway.reading.atLeast(request, reply);
    // The schema allows nothing but ids and names of classes there.
    const where = [
      node === undefined ? FOUND_ONCE : `node_id = '${node}'`, ...(vm === undefined ? [] : [`vm_id = '${vm}'`]), ...(driftClass === undefined ? [] : [`class = '${driftClass}'`]),
      ...(ignored === 'true' ? [] : [`doc -> 'acted' ->> 'action' is distinct from 'ignore' and not exists (select from gateway.drift_policy p where p.id = class and p.doc ->> 'action' = 'ignore')`]),
    ].join(' and ');
    sendJson(reply, JSON.stringify(await pageOf(this.gateway.views, 'drift', query, (items: readonly DriftDocument[]) => items.map(shown), where)));
  }

  @Get('drift/:id')
  @ApiOperation({ summary: 'One of them', operationId: 'getDrift' })
  @ApiResponse({ status: 200, description: 'The item', schema: { $ref: '#/components/schemas/Drift' } })
  async get(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: DriftId }) id: string): Promise<void> {
    await this.gateway.reading.atLeast(request, reply, id);
    const item = await this.one(id);
    tagged(reply, item.version);
    sendJson(reply, JSON.stringify(shown(item)));
  }

  @Post('drift/:id/:action')
  @Write()
  @HttpCode(202)
  @ApiOperation({ summary: 'revert: bring back what the node was told; adopt: what was done by hand becomes what is wanted; ignore: say no more of it until it is different', operationId: 'actOnDrift' })
  @ApiResponse({ status: 202, description: 'Accepted: the operation; 200 with the item for ignore' })
  async act(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: DriftId }) driftId: DriftId, @Param('action', { schema: z.enum(['revert', 'adopt', 'ignore']) }) action: 'revert' | 'adopt' | 'ignore'): Promise<void> {
    const asked = requestOf(request, {});
    const { nodeId, vmId } = await this.one(driftId);
    const { operationId, commandId, actor } = asked;
    const answer = await obeyed(this.gateway, reply, asked, { to: 'scheduler', target: nodeId, type: 'ActOnDrift', data: { nodeId, driftId, operationId, action, by: 'operator' }, kind: `${action}-drift`, stream: `drift-${nodeId}` });
    if (answer === undefined) return;
    if (action === 'ignore') {
      sendJson(reply.code(200), JSON.stringify(shown(await this.one(driftId))));
      return;
    }
    await this.gateway.reading.own(operationId);
    sendJson(reply.code(202).header('location', `/v1/operations/${operationId}`), JSON.stringify({ operation: pendingOperation({ id: operationId, kind: `${action}-drift`, vmId, commandId, actor }) }));
  }

  @Get('drift-policies')
  @ApiOperation({ summary: 'What is done about each class of drift', operationId: 'listDriftPolicies' })
  @ApiResponse({ status: 200, description: 'All classes', schema: { $ref: '#/components/schemas/DriftPolicies' } })
  async policies(@Req() request: FastifyRequest, @Res() reply: FastifyReply): Promise<void> {
    await this.gateway.reading.atLeast(request, reply);
    sendJson(reply, JSON.stringify({ items: await this.everyPolicy(), next: null }));
  }

  @Put('drift-policies/:class')
  @Write()
  @ApiOperation({ summary: 'Say what is done about a class of drift; a class that nobody spoke of is shown (alert)', operationId: 'setDriftPolicy' })
  @ApiResponse({ status: 200, description: 'All classes', schema: { $ref: '#/components/schemas/DriftPolicies' } })
  async setPolicy(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('class', { schema: DriftClass }) driftClass: DriftClass, @Body({ schema: SetDriftPolicyBody }) body: z.infer<typeof SetDriftPolicyBody>): Promise<void> {
    const asked = requestOf(request, body);
    const answer = await obeyed(this.gateway, reply, asked, { to: 'scheduler', target: driftClass, type: 'SetDriftPolicy', data: { class: driftClass, action: body.action }, kind: 'set-drift-policy', stream: 'drift-policy-all' });
    if (answer === undefined) return;
    tagged(reply, answer.version);
    sendJson(reply, JSON.stringify({ items: await this.everyPolicy(), next: null }));
  }

  private async everyPolicy(): Promise<readonly Pick<DriftPolicyDocument, 'class' | 'action'>[]> {
    const set = await this.gateway.views.documents<DriftPolicyDocument>('drift_policy', DriftClass.options);
    return DriftClass.options.map((driftClass) => set.find((policy) => policy.class === driftClass) ?? { class: driftClass, action: 'alert' });
  }

  private async one(id: string): Promise<DriftDocument> {
    const item = await this.gateway.views.document<DriftDocument>('drift', id);
    if (item === undefined) throw new ProblemError('drift.not_found', { because: { driftId: id } });
    return item;
  }
}

/** When it was, and whether it can have been us, in words. */
const shown = (item: DriftDocument): DriftDocument & { readonly explanation: string } => ({
  ...item,
  explanation: `${item.says}; ${item.class === 'foreign' ? 'seen' : 'out of band'} on node ${item.nodeId} at ${item.nodeAt ?? item.seenAt}, ${item.near === null ? 'no command of ours within 5 minutes' : `an operation of ours began ${String(item.near.seconds)} s before`}`,
});
