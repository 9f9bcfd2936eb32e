import { Controller, Delete, Get, HttpCode, Inject, Param, Query, Req, Res } from '@nestjs/common';
import { ApiBearerAuth, ApiOperation, ApiResponse, ApiTags } from '@nestjs/swagger';
import { VmId, VolumeId } from '@chronovirt/contracts/ids';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { z } from 'zod';
import { obeyed } from '../command.http.ts';
import { GATEWAY, type Gateway } from '../gateway.ts';
import { PageQuery, pageOf } from '../page.http.ts';
import { ProblemError } from '../problem.http.ts';
import { requestOf, sendJson, tagged } from '../request.http.ts';
import { pendingOperation } from '../vms/requested-vm.ts';
import { Write } from '../write.http.ts';
import type { VolumeDocument } from './volume.projection.ts';

const VolumesQuery = PageQuery.extend({
  system: z.enum(['true', 'false']).default('false').describe('Also the disks that VMs were made with'),
  vm: VmId.optional().describe('Those of one VM'),
}).meta({ id: 'VolumesQuery' });

@ApiTags('volumes')
@ApiBearerAuth()
@Controller('v1/volumes')
export class VolumesHttp {
  private readonly gateway: Gateway;

  constructor(@Inject(GATEWAY) gateway: Gateway) {
    this.gateway = gateway;
  }

  @Get()
  @ApiOperation({ summary: 'Volumes; those that VMs were made with only with system=true', operationId: 'listVolumes' })
  @ApiResponse({ status: 200, description: 'A page', schema: { $ref: '#/components/schemas/VolumePage' } })
  async list(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Query({ schema: VolumesQuery }) { system, vm, ...query }: z.infer<typeof VolumesQuery>): Promise<void> {
    await this.gateway.reading.atLeast(request, reply);
    // The schema allows nothing but an id there.
    const where = [...(system === 'true' ? [] : ['not system']), ...(vm === undefined ? [] : [`vm_id = '${vm}'`])].join(' and ');
    sendJson(reply, JSON.stringify(await pageOf(this.gateway.views, 'volume', query, (volumes: readonly VolumeDocument[]) => volumes, where === '' ? undefined : where)));
  }

  @Get(':id')
  @ApiOperation({ summary: 'One volume', operationId: 'getVolume' })
  @ApiResponse({ status: 200, description: 'The volume', schema: { $ref: '#/components/schemas/Volume' } })
  async get(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: VolumeId }) id: string): Promise<void> {
    await this.gateway.reading.atLeast(request, reply, id);
    const volume = await this.gateway.views.document<VolumeDocument>('volume', id);
    if (volume === undefined) throw new ProblemError('volume.not_found', { because: { volumeId: id } });
    tagged(reply, volume.version);
    sendJson(reply, JSON.stringify(volume));
  }

  @Delete(':id')
  @Write()
  @HttpCode(202)
  @ApiOperation({ summary: 'Delete a volume that no VM has', operationId: 'deleteVolume' })
  @ApiResponse({ status: 202, description: 'Accepted: the operation' })
  async delete(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: VolumeId }) id: VolumeId): Promise<void> {
    const asked = requestOf(request, {});
    const { operationId, commandId, actor } = asked;
    const answer = await obeyed(this.gateway, reply, asked, { to: 'storage', target: id, type: 'RemoveDetachedVolume', data: { volumeId: id, operationId }, kind: 'delete-volume', stream: `volume-${id}` });
    if (answer === undefined) return;
    await this.gateway.reading.own(operationId);
    sendJson(reply.code(202).header('location', `/v1/operations/${operationId}`), JSON.stringify({ operation: pendingOperation({ id: operationId, kind: 'delete-volume', vmId: null, commandId, actor }) }));
  }
}
