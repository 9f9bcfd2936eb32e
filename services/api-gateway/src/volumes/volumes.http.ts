import { Body, Controller, Delete, Get, HttpCode, Inject, Param, Post, Query, Req, Res } from '@nestjs/common';
import { ApiBearerAuth, ApiOperation, ApiResponse, ApiTags } from '@nestjs/swagger';
import { VmId, VolumeId } from '@chronovirt/contracts/ids';
import { ConvertVolumeBody, CreateVolumeBody, PublishVolumeBody, SparsifyVolumeBody } from '@chronovirt/contracts/volume/volume.commands';
import type { VolumeFormat, VolumeWork } from '@chronovirt/contracts/volume/volume.events';
import { isRefusal, refuse } from '@chronovirt/decider/decider';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { z } from 'zod';
import { bytesOf } from '../bytes/node-access.http.ts';
import { decided, obeyed, refusedWith } from '../command.http.ts';
import { GATEWAY, type Gateway } from '../gateway.ts';
import { PageQuery, pageOf } from '../page.http.ts';
import { ProblemError } from '../problem.http.ts';
import { imageImport } from '../images/image-import.ts';
import type { ImageDocument } from '../images/image.projection.ts';
import { nameTaken } from '../images/name-taken.http.ts';
import type { DriftDocument } from '../drift/drift.projection.ts';
import type { PoolDocument } from '../pools/pool.projection.ts';
import { type Asked, requestOf, sendJson, tagged } from '../request.http.ts';
import { pendingOperation } from '../vms/requested-vm.ts';
import { Write } from '../write.http.ts';
import type { DocumentTable } from '../views.store.ts';
import type { VmSummary } from '../vms/vm-summary.projection.ts';
import type { VolumeDocument } from './volume.projection.ts';
import { type Finding, resolveWish, type VolumeWish } from './volume-wish.ts';

const VolumesQuery = PageQuery.extend({
  system: z.enum(['true', 'false']).default('false').describe('Also the disks that VMs were made with'),
  vm: VmId.optional().describe('Those of one VM'),
}).meta({ id: 'VolumesQuery' });

/** Pools that are looked at for room where none is named. */
const POOLS_MAX = 10_000;

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
    await this.begin(requestOf(request, {}), reply, id, 'delete-volume', 'RemoveDetachedVolume', {});
  }

  @Post()
  @Write()
  @HttpCode(202)
  @ApiOperation({ summary: 'Make a volume that no VM has: blank, or a copy of an image, of another volume, of what a snapshot holds, or of a file that a URL names; or let a file that lies in a pool and is nobody\'s be one', operationId: 'createVolume' })
  @ApiResponse({ status: 202, description: 'Accepted: the operation, and the id of the volume' })
  async create(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Body({ schema: CreateVolumeBody }) body: CreateVolumeBody): Promise<void> {
    const asked = requestOf(request, body);
    const volumeId = asked.ids.thing('volume');
    const wish = await resolveWish(body, this.finding());
    if (isRefusal(wish)) throw await refusedWith(this.gateway, wish, `volume-${volumeId}`);
    if (body.from !== undefined && 'url' in body.from) await this.fetched(asked, reply, volumeId, body.name, body.from, wish);
    else await this.begin(asked, reply, volumeId, 'create-volume', 'RequestVolume', { name: body.name, ...wish });
  }

  /** Its bytes come first, and are checked like those of an image; the operation ends when the volume is there. */
  private async fetched(asked: Asked, reply: FastifyReply, volumeId: VolumeId, name: string, { url, sha256, format: of }: { readonly url: string; readonly sha256: string; readonly format: VolumeFormat }, { poolId, nodeId, sizeGib, format }: VolumeWish): Promise<void> {
    bytesOf(this.gateway);
    const { operationId, commandId, actor } = asked;
    const [taken] = await this.gateway.views.page<VolumeDocument>('volume', { after: '', limit: 1, where: `doc ->> 'name' = $3`, values: [name] });
    if (taken !== undefined && taken.id !== volumeId) throw await refusedWith(this.gateway, refuse('volume.name_taken', { name, field: 'name' }), `volume-${volumeId}`);
    const data = { operationId, imageId: asked.ids.thing('image'), source: { kind: 'url' as const, url }, image: { name, format: of, sha256, minDiskGib: 1, minMemoryMib: 64 }, volume: { volumeId, poolId, nodeId, sizeGib, format } };
    const begun = await decided(this.gateway, reply, asked, imageImport, { stream: `image-import-${operationId}`, command: { type: 'StartImageImport', data } }, [operationId]);
    if (begun !== undefined) sendJson(reply.code(202).header('location', `/v1/operations/${operationId}`), JSON.stringify({ operation: pendingOperation({ id: operationId, kind: 'import-volume', vmId: null, commandId, actor }), volumeId }));
  }

  @Post(':id/convert')
  @Write()
  @HttpCode(202)
  @ApiOperation({ summary: 'Keep a volume that no VM has as another format; what it holds stays the same', operationId: 'convertVolume' })
  @ApiResponse({ status: 202, description: 'Accepted: the operation' })
  convert(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: VolumeId }) id: VolumeId, @Body({ schema: ConvertVolumeBody }) body: z.infer<typeof ConvertVolumeBody>): Promise<void> {
    return this.work(requestOf(request, body), reply, id, { kind: 'convert', ...body });
  }

  @Post(':id/sparsify')
  @Write()
  @HttpCode(202)
  @ApiOperation({ summary: 'Give back the space of what a volume that no VM has does not hold any more', operationId: 'sparsifyVolume' })
  @ApiResponse({ status: 202, description: 'Accepted: the operation' })
  sparsify(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: VolumeId }) id: VolumeId, @Body({ schema: SparsifyVolumeBody }) body: z.infer<typeof SparsifyVolumeBody>): Promise<void> {
    return this.work(requestOf(request, body), reply, id, { kind: 'sparsify', ...body });
  }

  @Post(':id/wipe')
  @Write()
  @HttpCode(202)
  @ApiOperation({ summary: 'Overwrite a volume that no VM has with zeroes; what it held is lost', operationId: 'wipeVolume' })
  @ApiResponse({ status: 202, description: 'Accepted: the operation' })
  wipe(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: VolumeId }) id: VolumeId): Promise<void> {
    return this.work(requestOf(request, {}), reply, id, { kind: 'wipe' });
  }

  @Post(':id/publish')
  @Write()
  @HttpCode(202)
  @ApiOperation({
    summary: 'Make an image of what a volume holds that no VM has: to download it, or to make others of it', operationId: 'publishVolume',
    description: 'The image stands alone and has an id at once; its bytes are at /v1/images/{id}/content when the operation has ended.',
  })
  @ApiResponse({ status: 202, description: 'Accepted: the operation, and the id of the image' })
  async publish(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: VolumeId }) id: VolumeId, @Body({ schema: PublishVolumeBody }) image: z.infer<typeof PublishVolumeBody>): Promise<void> {
    bytesOf(this.gateway);
    const asked = requestOf(request, image);
    const imageId = asked.ids.thing('image');
    await nameTaken(this.gateway.views, image.name, imageId);
    await this.work(asked, reply, id, { kind: 'publish', imageId, image }, { imageId });
  }

  private work(asked: Asked, reply: FastifyReply, id: VolumeId, work: VolumeWork, shown: object = {}): Promise<void> {
    return this.begin(asked, reply, id, `${work.kind}-volume`, 'WorkOnVolume', { work }, shown);
  }

  private async begin(asked: Asked, reply: FastifyReply, id: VolumeId, kind: string, type: string, more: object, shown: object = {}): Promise<void> {
    const { operationId, commandId, actor } = asked;
    const answer = await obeyed(this.gateway, reply, asked, { to: 'storage', target: id, type, data: { volumeId: id, operationId, ...more }, kind, stream: `volume-${id}` });
    if (answer === undefined) return;
    await this.gateway.reading.own(operationId);
    sendJson(reply.code(202).header('location', `/v1/operations/${operationId}`), JSON.stringify({ operation: pendingOperation({ id: operationId, kind, vmId: null, commandId, actor }), volumeId: id, ...shown }));
  }

  private finding(): Finding {
    const { views } = this.gateway;
    const called = async <D>(table: DocumentTable, reference: string, limit = 1): Promise<readonly D[]> =>
      (await views.page<D>(table, { after: '', limit, where: `(id = $3 or doc ->> 'name' = $3)`, values: [reference] })).slice(0, limit);
    return {
      pools: async (reference) => {
        const pools = reference === undefined ? await views.page<PoolDocument>('pool', { after: '', limit: POOLS_MAX }) : await called<PoolDocument>('pool', reference, POOLS_MAX);
        const uses = await views.uses(pools.map(({ id }) => id));
        return pools.map((pool) => ({ ...pool, promisedGib: uses.get(pool.id)?.sizeGib ?? 0 }));
      },
      node: async (reference) => (await called<{ readonly id: string }>('node_summary', reference))[0],
      image: async (reference) => (await called<ImageDocument>('image', reference))[0],
      volume: (id) => views.document<VolumeDocument>('volume', id),
      drift: (id) => views.document<DriftDocument>('drift', id),
      vm: (id) => views.document<VmSummary>('vm_summary', id),
    };
  }
}
