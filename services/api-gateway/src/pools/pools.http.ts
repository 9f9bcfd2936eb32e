import { Body, Controller, Delete, Get, HttpCode, Inject, Param, Patch, Post, Query, Req, Res } from '@nestjs/common';
import { ApiBearerAuth, ApiOperation, ApiResponse, ApiTags } from '@nestjs/swagger';
import { type NodeId, PoolId } from '@chronovirt/contracts/ids';
import { ChangePoolBody, CreatePoolBody } from '@chronovirt/contracts/pool/pool.commands';
import { refuse } from '@chronovirt/decider/decider';
import type { FastifyReply, FastifyRequest } from 'fastify';
import type { z } from 'zod';
import { obeyed, refusedWith } from '../command.http.ts';
import { GATEWAY, type Gateway } from '../gateway.ts';
import { PageQuery, pageOf } from '../page.http.ts';
import { ProblemError } from '../problem.http.ts';
import { type Asked, requestOf, sendJson, tagged } from '../request.http.ts';
import { pendingOperation } from '../vms/requested-vm.ts';
import { Write } from '../write.http.ts';
import type { PoolDocument } from './pool.projection.ts';

@ApiTags('pools')
@ApiBearerAuth()
@Controller('v1/pools')
export class PoolsHttp {
  private readonly gateway: Gateway;

  constructor(@Inject(GATEWAY) gateway: Gateway) {
    this.gateway = gateway;
  }

  @Get()
  @ApiOperation({ summary: 'Places for disks, and how much of each is promised', operationId: 'listPools' })
  @ApiResponse({ status: 200, description: 'A page', schema: { $ref: '#/components/schemas/PoolPage' } })
  async list(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Query({ schema: PageQuery }) query: z.infer<typeof PageQuery>): Promise<void> {
    await this.gateway.reading.atLeast(request, reply);
    sendJson(reply, JSON.stringify(await pageOf(this.gateway.views, 'pool', query, (pools: readonly PoolDocument[]) => this.shown(pools))));
  }

  @Get(':id')
  @ApiOperation({ summary: 'One pool: what is wanted of it, and what its nodes see', operationId: 'getPool' })
  @ApiResponse({ status: 200, description: 'The pool', schema: { $ref: '#/components/schemas/Pool' } })
  async get(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: PoolId }) id: string): Promise<void> {
    await this.gateway.reading.atLeast(request, reply, id);
    await this.send(reply, id);
  }

  @Post()
  @Write()
  @HttpCode(202)
  @ApiOperation({ summary: 'Make a pool of a folder of a node, or of one that several nodes see', operationId: 'createPool' })
  @ApiResponse({ status: 202, description: 'Accepted: the operation, and the id of the pool' })
  async create(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Body({ schema: CreatePoolBody }) { node, nodes, ...body }: CreatePoolBody): Promise<void> {
    const asked = requestOf(request, { node, nodes, ...body });
    const poolId = asked.ids.thing('pool');
    const found: NodeId[] = [];
    for (const reference of nodes ?? [node ?? '']) {
      const [known] = await this.gateway.views.page<{ readonly id: NodeId }>('node_summary', { after: '', limit: 1, where: `(id = $3 or doc ->> 'name' = $3)`, values: [reference] });
      if (known === undefined) throw await refusedWith(this.gateway, refuse('node.unknown', { node: reference, field: nodes === undefined ? 'node' : 'nodes' }), `pool-${poolId}`);
      if (!found.includes(known.id)) found.push(known.id);
    }
    await this.begin(asked, reply, poolId, 'create-pool', 'RequestPool', { ...body, nodes: found });
  }

  @Patch(':id')
  @Write()
  @ApiOperation({ summary: 'Change how much may be promised, and from when on it is full', operationId: 'changePool' })
  @ApiResponse({ status: 200, description: 'The pool', schema: { $ref: '#/components/schemas/Pool' } })
  async change(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: PoolId }) id: PoolId, @Body({ schema: ChangePoolBody }) body: z.infer<typeof ChangePoolBody>): Promise<void> {
    const asked = requestOf(request, body);
    const answer = await obeyed(this.gateway, reply, asked, { to: 'storage', target: id, type: 'ChangePool', data: { poolId: id, ...body }, kind: 'change-pool', stream: `pool-${id}` });
    if (answer === undefined) return;
    await this.send(reply, id);
  }

  @Post(':id/start')
  @Write()
  @HttpCode(202)
  @ApiOperation({ summary: 'Use a pool that was stopped; its folder must be there again', operationId: 'startPool' })
  @ApiResponse({ status: 202, description: 'Accepted: the operation' })
  start(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: PoolId }) id: PoolId): Promise<void> {
    return this.work(requestOf(request, {}), reply, id, 'start');
  }

  @Post(':id/stop')
  @Write()
  @HttpCode(202)
  @ApiOperation({ summary: 'Use it no more; refused while a VM has a disk there', operationId: 'stopPool' })
  @ApiResponse({ status: 202, description: 'Accepted: the operation' })
  stop(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: PoolId }) id: PoolId): Promise<void> {
    return this.work(requestOf(request, {}), reply, id, 'stop');
  }

  @Post(':id/refresh')
  @Write()
  @HttpCode(202)
  @ApiOperation({ summary: 'Look through it: how full it is, files that nobody knows, volumes without a file', operationId: 'refreshPool' })
  @ApiResponse({ status: 202, description: 'Accepted: the operation' })
  refresh(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: PoolId }) id: PoolId): Promise<void> {
    return this.work(requestOf(request, {}), reply, id, 'refresh');
  }

  @Delete(':id')
  @Write()
  @HttpCode(202)
  @ApiOperation({ summary: 'Forget a pool in which there is no disk; its folder goes if it is empty', operationId: 'deletePool' })
  @ApiResponse({ status: 202, description: 'Accepted: the operation' })
  delete(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: PoolId }) id: PoolId): Promise<void> {
    return this.work(requestOf(request, {}), reply, id, 'delete');
  }

  private async send(reply: FastifyReply, id: string): Promise<void> {
    const pool = await this.gateway.views.document<PoolDocument>('pool', id);
    if (pool === undefined) throw new ProblemError('pool.not_found', { because: { poolId: id } });
    tagged(reply, pool.version);
    sendJson(reply, JSON.stringify((await this.shown([pool]))[0]));
  }

  private work(asked: Asked, reply: FastifyReply, id: PoolId, work: string): Promise<void> {
    return this.begin(asked, reply, id, `${work}-pool`, 'WorkOnPool', { work });
  }

  private async begin(asked: Asked, reply: FastifyReply, id: PoolId, kind: string, type: string, more: object): Promise<void> {
    const { operationId, commandId, actor } = asked;
    const answer = await obeyed(this.gateway, reply, asked, { to: 'storage', target: id, type, data: { poolId: id, operationId, ...more }, kind, stream: `pool-${id}` });
    if (answer === undefined) return;
    await this.gateway.reading.own(operationId);
    sendJson(reply.code(202).header('location', `/v1/operations/${operationId}`), JSON.stringify({ operation: pendingOperation({ id: operationId, kind, vmId: null, commandId, actor }), poolId: id }));
  }

  private async shown(pools: readonly PoolDocument[]): Promise<readonly object[]> {
    const uses = await this.gateway.views.uses(pools.map(({ id }) => id));
    return pools.map((pool) => ({ ...pool, promisedGib: uses.get(pool.id)?.sizeGib ?? 0, volumes: uses.get(pool.id)?.holdings ?? 0 }));
  }
}
