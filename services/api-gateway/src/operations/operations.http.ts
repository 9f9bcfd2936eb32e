import { Controller, Get, Inject, Param, Query, Req, Res } from '@nestjs/common';
import { ApiBearerAuth, ApiOperation, ApiResponse, ApiTags } from '@nestjs/swagger';
import { OperationId, VmId } from '@chronovirt/contracts/ids';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { z } from 'zod';
import { GATEWAY, type Gateway } from '../gateway.ts';
import { malformed, ProblemError } from '../problem.http.ts';
import { sendJson } from '../request.http.ts';
import { base64url } from '../views.store.ts';

const ListQuery = z.strictObject({
  status: z.enum(['pending', 'running', 'succeeded', 'failed', 'compensated']).optional(),
  kind: z.string().max(60).optional(),
  vm: VmId.optional(),
  parent: OperationId.optional(),
  limit: z.coerce.number().int().min(1).max(1_000).default(100),
  cursor: z.string().max(500).optional(),
}).meta({ id: 'OperationsQuery' });

const Cursor = z.tuple([z.string().max(40), z.string().max(60)]);

@ApiTags('operations')
@ApiBearerAuth()
@Controller('v1/operations')
export class OperationsHttp {
  private readonly gateway: Gateway;

  constructor(@Inject(GATEWAY) gateway: Gateway) {
    this.gateway = gateway;
  }

  @Get()
  @ApiOperation({ summary: 'Operations, newest first', operationId: 'listOperations' })
  @ApiResponse({ status: 200, description: 'A page', schema: { $ref: '#/components/schemas/OperationPage' } })
  async list(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Query({ schema: ListQuery }) query: z.infer<typeof ListQuery>): Promise<void> {
    await this.gateway.reading.atLeast(request, reply);
    const { limit } = query;
    const filters = {
      ...(query.kind === undefined ? {} : { kind: query.kind }),
      ...(query.vm === undefined ? {} : { vm_id: query.vm }), ...(query.parent === undefined ? {} : { parent: query.parent }),
    };
    const found = await this.gateway.operations.page({ before: cursorOf(query.cursor), limit, filters, status: query.status });
    const items = found.slice(0, limit);
    const last = found.length > limit ? items[items.length - 1] : undefined;
    sendJson(reply, JSON.stringify({ items, next: last === undefined ? null : base64url.encode(JSON.stringify([last.requestedAt, last.id])) }));
  }

  @Get(':id')
  @ApiOperation({ summary: 'One operation: steps, progress, deadline, what it waits for, what is owed', operationId: 'getOperation' })
  @ApiResponse({ status: 200, description: 'The operation', schema: { $ref: '#/components/schemas/Operation' } })
  async get(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: OperationId }) id: string): Promise<void> {
    await this.gateway.reading.atLeast(request, reply, id);
    const operation = await this.gateway.operations.one(id);
    if (operation === undefined) throw new ProblemError('operation.not_found', { detail: 'There is no such operation.', because: { operationId: id } });
    sendJson(reply, JSON.stringify(operation));
  }
}

const cursorOf = (text: string | undefined): readonly [string, string] | undefined => {
  if (text === undefined) return undefined;
  try {
    return Cursor.parse(JSON.parse(base64url.decode(text)));
  } catch {
    throw malformed([{ path: 'query.cursor', code: 'invalid', message: 'is not a cursor of this list: begin without one' }]);
  }
};
