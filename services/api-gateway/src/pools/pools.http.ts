import { Controller, Get, Inject, Query, Req, Res } from '@nestjs/common';
import { ApiBearerAuth, ApiOperation, ApiResponse, ApiTags } from '@nestjs/swagger';
import type { FastifyReply, FastifyRequest } from 'fastify';
import type { z } from 'zod';
import { GATEWAY, type Gateway } from '../gateway.ts';
import { PageQuery, pageOf } from '../page.http.ts';
import { sendJson } from '../request.http.ts';
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
    sendJson(reply, JSON.stringify(await pageOf(this.gateway.views, 'pool', query, async (pools: readonly PoolDocument[]) => {
      const uses = await this.gateway.views.uses(pools.map(({ id }) => id));
      return pools.map((pool) => ({ ...pool, promisedGib: uses.get(pool.id)?.sizeGib ?? 0, volumes: uses.get(pool.id)?.holdings ?? 0 }));
    })));
  }
}
