/*
 * Bytes between nodes and the control plane, too many for the bus: a node fetches the images that its VMs need,
 * and brings what becomes one. It always calls; nothing listens on a node. It signs what it asks, and whatever
 * matters of that stands in the path.
 *
 *     GET  /v1/node/contents/<sha256>                         the bytes, or a part of them (Range)
 *     GET  /v1/node/contents/<sha256>/needed                  whether an image is made of them: {needed}
 *     GET  /v1/node/images/<file>                             the sums that were said of images of this file: {sums}
 *     GET  /v1/node/volumes?ids=<volume>,…                    which of these there are: {known}
 *     GET  /v1/node/parts/<operation>                         how far it has come: {offset, length}
 *     PUT  /v1/node/parts/<operation>?offset=…&length=…       goes on from there; from 0 it begins anew
 *     POST /v1/node/parts/<operation>/taken?sha256=…&format=…  that was all: checked, and kept as a content
 *
 * A node may only bring what an operation on one of its own VMs or volumes waits for.
 */
import { Controller, Get, HttpCode, Inject, Param, Post, Put, Query, Req, Res } from '@nestjs/common';
import { RouteConfig } from '@nestjs/platform-fastify';
import { ApiExcludeController } from '@nestjs/swagger';
import { type NodeId, OperationId, VolumeId } from '@chronovirt/contracts/ids';
import { ImageFile, ImageFormat, Sha256 } from '@chronovirt/contracts/image/image.events';
import { isRefusal } from '@chronovirt/decider/decider';
import type { FastifyReply, FastifyRequest } from 'fastify';
import type { Readable } from 'node:stream';
import { z } from 'zod';
import { GATEWAY, type Gateway } from '../gateway.ts';
import { takeIn, type TakenIn } from '../images/take-in.os.ts';
import type { OperationDocument } from '../operations/operation.projection.ts';
import { ProblemError, refused } from '../problem.http.ts';
import { sendJson } from '../request.http.ts';
import type { VmSummary } from '../vms/vm-summary.projection.ts';
import type { VolumeDocument } from '../volumes/volume.projection.ts';
import { bytesOf, nodeOf } from './node-access.http.ts';
import { sendFile } from './send-file.http.ts';

const PartQuery = z.strictObject({ offset: z.coerce.number().int().min(0), length: z.coerce.number().int().min(1) });
const VolumesQuery = z.strictObject({ ids: z.string().max(5_000).transform((all) => all.split(',')).pipe(z.array(VolumeId).max(100)) });
const TakenQuery = z.strictObject({ sha256: Sha256, format: ImageFormat });

/** Operations whose node brings bytes. */
const BRINGING = ['publish', 'publish-volume'];
/** A node that was away goes on where it was. */
const PART_MS = 24 * 3_600_000;

@ApiExcludeController()
@Controller('v1/node')
export class NodeBytesHttp {
  private readonly gateway: Gateway;
  /** What is being checked now: a node that lost patience and asks again waits for the same answer. */
  private readonly taking = new Map<string, ReturnType<typeof takeIn>>();

  constructor(@Inject(GATEWAY) gateway: Gateway) {
    this.gateway = gateway;
  }

  @Get('contents/:sha256')
  @RouteConfig({ cvAccess: 'node' })
  async content(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('sha256', { schema: Sha256 }) sha256: string): Promise<void> {
    await nodeOf(this.gateway, request);
    const found = await bytesOf(this.gateway).content(sha256);
    if (found === undefined) throw new ProblemError('image.content_not_found', { because: { sha256 } });
    sendFile(request, reply, { ...found, tag: sha256, name: sha256 });
  }

  @Get('contents/:sha256/needed')
  @RouteConfig({ cvAccess: 'node' })
  async needed(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('sha256', { schema: Sha256 }) sha256: string): Promise<void> {
    await nodeOf(this.gateway, request);
    sendJson(reply, JSON.stringify({ needed: await this.gateway.views.hasImageOf(sha256) }));
  }

  @Get('images/:file')
  @RouteConfig({ cvAccess: 'node' })
  async sums(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('file', { schema: ImageFile }) file: string): Promise<void> {
    await nodeOf(this.gateway, request);
    sendJson(reply, JSON.stringify({ sums: await this.gateway.views.sumsOfImageFile(file) }));
  }

  @Get('volumes')
  @RouteConfig({ cvAccess: 'node' })
  async volumes(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Query({ schema: VolumesQuery }) { ids }: z.infer<typeof VolumesQuery>): Promise<void> {
    await nodeOf(this.gateway, request);
    const known = await this.gateway.views.documents<{ readonly id: string }>('volume', ids);
    sendJson(reply, JSON.stringify({ known: known.map(({ id }) => id) }));
  }

  @Get('parts/:id')
  @RouteConfig({ cvAccess: 'node' })
  async part(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: OperationId }) id: OperationId): Promise<void> {
    await this.mayBring(await nodeOf(this.gateway, request), id);
    const store = bytesOf(this.gateway);
    sendJson(reply, JSON.stringify({ offset: (await store.offsetOf(id)) ?? 0, length: (await store.note(id))?.length ?? null }));
  }

  @Put('parts/:id')
  @RouteConfig({ cvAccess: 'node', cvStream: true })
  async bring(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: OperationId }) id: OperationId, @Query({ schema: PartQuery }) { offset, length }: z.infer<typeof PartQuery>): Promise<void> {
    const nodeId = await nodeOf(this.gateway, request);
    await this.mayBring(nodeId, id);
    const store = bytesOf(this.gateway);
    if (offset === 0) await store.drop(id);
    const refusal = await store.begin(id, { length, expiresAt: new Date(this.gateway.now().getTime() + PART_MS).toISOString(), about: { nodeId } });
    if (refusal !== undefined) throw refused(refusal);
    const end = await store.append(id, offset, request.body as Readable); // the parser of this content type hands the stream on
    if (isRefusal(end)) throw refused(end);
    sendJson(reply, JSON.stringify({ offset: end }));
  }

  @Post('parts/:id/taken')
  @HttpCode(200)
  @RouteConfig({ cvAccess: 'node' })
  async taken(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: OperationId }) id: OperationId, @Query({ schema: TakenQuery }) { sha256, format }: z.infer<typeof TakenQuery>): Promise<void> {
    await this.mayBring(await nodeOf(this.gateway, request), id);
    const store = bytesOf(this.gateway);
    const under = this.taking.get(id) ?? takeIn(store, id, { sha256, format }).finally(() => { this.taking.delete(id); });
    this.taking.set(id, under);
    const taken = await under;
    if (isRefusal(taken)) throw refused(taken);
    sendJson(reply, JSON.stringify(taken satisfies TakenIn));
  }

  private async mayBring(nodeId: NodeId, operationId: OperationId): Promise<void> {
    const operation = await this.gateway.views.document<OperationDocument>('operation', operationId);
    const waits = operation !== undefined && operation.endedAt === null && BRINGING.includes(operation.kind);
    if (!waits || (await this.nodeIn(operation)) !== nodeId) throw new ProblemError('upload.not_expected', { because: { operationId, nodeId } });
  }

  private async nodeIn({ id, vmId }: OperationDocument): Promise<string | null> {
    const { views } = this.gateway;
    if (vmId !== null) return (JSON.parse((await views.vm(vmId))?.text ?? '{"nodeId":null}') as Pick<VmSummary, 'nodeId'>).nodeId;
    const [volume] = await views.page<VolumeDocument>('volume', { after: '', limit: 1, where: `doc ->> 'operationId' = $3`, values: [id] });
    return volume?.nodeId ?? null;
  }
}
