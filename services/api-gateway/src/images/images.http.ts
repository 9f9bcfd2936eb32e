import { Body, Controller, Delete, Get, HttpCode, Inject, Param, Post, Query, Req, Res } from '@nestjs/common';
import { ApiBearerAuth, ApiOperation, ApiResponse, ApiTags } from '@nestjs/swagger';
import { ImageId } from '@chronovirt/contracts/ids';
import { RegisterImageBody } from '@chronovirt/contracts/image/image.commands';
import type { FastifyReply, FastifyRequest } from 'fastify';
import type { z } from 'zod';
import { bytesOf } from '../bytes/node-access.http.ts';
import { decided, obeyed } from '../command.http.ts';
import { GATEWAY, type Gateway } from '../gateway.ts';
import { PageQuery, pageOf } from '../page.http.ts';
import { ProblemError } from '../problem.http.ts';
import { type Asked, requestOf, sendJson, tagged } from '../request.http.ts';
import { pendingOperation } from '../vms/requested-vm.ts';
import { Write } from '../write.http.ts';
import { imageImport } from './image-import.ts';
import type { ImageDocument } from './image.projection.ts';
import { nameTaken } from './name-taken.http.ts';

@ApiTags('images')
@ApiBearerAuth()
@Controller('v1/images')
export class ImagesHttp {
  private readonly gateway: Gateway;

  constructor(@Inject(GATEWAY) gateway: Gateway) {
    this.gateway = gateway;
  }

  @Post()
  @Write()
  @HttpCode(201)
  @ApiOperation({ summary: 'Fetch an image from a URL into the store, or register one whose file lies in every node\'s image folder', operationId: 'registerImage',
    description: 'To upload one, speak tus 1.0 (https://tus.io) at /v1/images/uploads, with what it shall be in Upload-Metadata: the fields of this body, each in base64.' })
  @ApiResponse({ status: 202, description: 'With url: accepted, the operation', schema: { $ref: '#/components/schemas/AcceptedImage' } })
  @ApiResponse({ status: 201, description: 'The image', schema: { $ref: '#/components/schemas/Image' } })
  async register(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Body({ schema: RegisterImageBody }) body: z.infer<typeof RegisterImageBody>): Promise<void> {
    const asked = requestOf(request, body);
    const imageId = asked.ids.thing('image');
    if (body.url !== undefined) {
      await this.import(asked, imageId, body.url, body, reply);
      return;
    }
    const { url: _url, ...registered } = body;
    const answer = await obeyed(this.gateway, reply, asked, { to: 'storage', target: imageId, type: 'RegisterImage', data: { imageId, ...registered }, kind: 'register-image', stream: `image-${imageId}` });
    if (answer === undefined) return;
    const image = await this.gateway.views.document<ImageDocument>('image', imageId);
    tagged(reply, image?.version);
    sendJson(reply.code(201).header('location', `/v1/images/${imageId}`), JSON.stringify(image ?? { id: imageId, ...registered, createdAt: null, position: null, version: null }));
  }

  /** It goes on in the background: the operation tells how far it has come. */
  private async import(asked: Asked, imageId: ImageId, url: string, { url: _url, file: _file, sizeBytes: _size, ...image }: z.infer<typeof RegisterImageBody>, reply: FastifyReply): Promise<void> {
    bytesOf(this.gateway);
    const { operationId } = asked;
    await nameTaken(this.gateway.views, image.name, imageId);
    const begun = await decided(this.gateway, reply, asked, imageImport, { stream: `image-import-${operationId}`, command: { type: 'StartImageImport', data: { operationId, imageId, source: { kind: 'url', url }, image } } }, [operationId]);
    if (begun === undefined) return;
    sendJson(reply.code(202).header('location', `/v1/operations/${operationId}`), JSON.stringify({
      operation: pendingOperation({ id: operationId, kind: 'import-image', vmId: null, commandId: asked.commandId, actor: asked.actor }), image: { id: imageId, ...image, createdAt: null, position: null, version: null },
    }));
  }

  @Get()
  @ApiOperation({ summary: 'Images', operationId: 'listImages' })
  @ApiResponse({ status: 200, description: 'A page', schema: { $ref: '#/components/schemas/ImagePage' } })
  async list(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Query({ schema: PageQuery }) query: z.infer<typeof PageQuery>): Promise<void> {
    await this.gateway.reading.atLeast(request, reply);
    sendJson(reply, JSON.stringify(await pageOf(this.gateway.views, 'image', query, (images: readonly ImageDocument[]) => images)));
  }

  @Get(':id')
  @ApiOperation({ summary: 'One image', operationId: 'getImage' })
  @ApiResponse({ status: 200, description: 'The image', schema: { $ref: '#/components/schemas/Image' } })
  async get(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: ImageId }) id: string): Promise<void> {
    await this.gateway.reading.atLeast(request, reply, id);
    const image = await this.gateway.views.document<ImageDocument>('image', id);
    if (image === undefined) throw new ProblemError('image.not_found', { detail: 'There is no such image.', because: { imageId: id } });
    tagged(reply, image.version);
    sendJson(reply, JSON.stringify(image));
  }

  @Delete(':id')
  @Write()
  @HttpCode(204)
  @ApiOperation({ summary: 'Forget an image; refused while VMs need it, naming them', operationId: 'deleteImage' })
  async delete(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: ImageId }) id: ImageId): Promise<void> {
    const asked = requestOf(request, {});
    const answer = await obeyed(this.gateway, reply, asked, { to: 'storage', target: id, type: 'DeleteImage', data: { imageId: id }, kind: 'delete-image', stream: `image-${id}` });
    if (answer !== undefined) void reply.code(204).send();
  }
}
