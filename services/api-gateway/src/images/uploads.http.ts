/*
 * Images come in over a bad line: by the tus protocol (tus.ts), in as many requests as it takes. An upload is a
 * part in the store of bytes, known to every gateway; nothing of it is in the log before its last byte is there.
 * Then it is imported like anything else (image-imports.os.ts), and whoever sent that byte waits for a moment to
 * hear what became of it.
 */
import { Controller, Delete, Head, Inject, Options, Param, Patch, Post, Req, Res } from '@nestjs/common';
import { RouteConfig } from '@nestjs/platform-fastify';
import { ApiExcludeController } from '@nestjs/swagger';
import { setTimeout as sleep } from 'node:timers/promises';
import { idFrom, uuidOf, UploadId } from '@chronovirt/contracts/ids';
import { isRefusal } from '@chronovirt/decider/decider';
import type { FastifyReply, FastifyRequest } from 'fastify';
import type { Readable } from 'node:stream';
import { bytesOf } from '../bytes/node-access.http.ts';
import { GATEWAY, type Gateway } from '../gateway.ts';
import type { OperationDocument } from '../operations/operation.projection.ts';
import { badFieldsOf, malformed, ProblemError, refused } from '../problem.http.ts';
import { inWords } from '../problem.ts';
import { actorOf, requestOf } from '../request.http.ts';
import type { ImageImportDocument } from './image-import.projection.ts';
import { nameTaken } from './name-taken.http.ts';
import { beginImport, operationOfUpload } from './image-imports.os.ts';
import { CHECKSUMS, imageOf, readBytes, readChecksum, readMetadata, TUS_EXTENSIONS, TUS_VERSION } from './tus.ts';

/** How long the sender of the last byte waits for what becomes of it. */
const TOLD_WITHIN_MS = 20_000;
const LOOK_EVERY_MS = 200;

const PATH = '/v1/images/uploads';

@ApiExcludeController()
@Controller('v1/images/uploads')
export class UploadsHttp {
  private readonly gateway: Gateway;

  constructor(@Inject(GATEWAY) gateway: Gateway) {
    this.gateway = gateway;
  }

  @Options()
  @RouteConfig({ cvAccess: 'public' })
  offers(@Res() reply: FastifyReply): void {
    void reply.code(204).headers({ 'tus-resumable': TUS_VERSION, 'tus-version': TUS_VERSION, 'tus-extension': TUS_EXTENSIONS, 'tus-max-size': String(bytesOf(this.gateway).bytesMax), 'tus-checksum-algorithm': CHECKSUMS.join(',') }).send();
  }

  @Post()
  async create(@Req() request: FastifyRequest, @Res() reply: FastifyReply): Promise<void> {
    spoken(request, reply);
    const store = bytesOf(this.gateway);
    const length = readBytes(request.headers['upload-length']);
    if (length === undefined || length === 0) throw malformed([{ path: 'header.Upload-Length', code: 'invalid', message: 'must be the number of bytes that will come, 1 at least' }]);
    const metadata = readMetadata(headerOf(request, 'upload-metadata'), base64);
    if (metadata === undefined) throw malformed([{ path: 'header.Upload-Metadata', code: 'invalid', message: 'must be pairs of a name and a value in base64, with commas between them' }]);
    const image = imageOf(metadata);
    if (!image.success) throw malformed(badFieldsOf('metadata', image.error.issues));
    const asked = requestOf(request, { length, metadata });
    const uploadId = asked.ids.thing('upload');
    await nameTaken(this.gateway.views, image.data.name, idFrom('image', uuidOf(uploadId)));
    const expiresAt = new Date(this.gateway.now().getTime() + this.gateway.images.uploadMs).toISOString();
    const refusal = await store.begin(uploadId, { length, expiresAt, about: { kind: 'upload', image: image.data, actor: asked.actor } });
    if (refusal !== undefined) throw refused(refusal);
    void reply.code(201).headers({ location: `${PATH}/${uploadId}`, ...expires(expiresAt) }).send();
  }

  @Head(':id')
  async look(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: UploadId }) id: UploadId): Promise<void> {
    spoken(request, reply);
    const store = bytesOf(this.gateway);
    const [note, offset] = [await store.note(id), await store.offsetOf(id)];
    if (note === undefined || offset === undefined) {
      // All of it came; whoever did not hear that would send it again.
      const { source } = await this.imported(id);
      void reply.code(200).headers({ 'upload-offset': String(source.bytes), 'upload-length': String(source.bytes) }).send();
      return;
    }
    void reply.code(200).headers({ 'upload-offset': String(offset), 'upload-length': String(note.length), ...expires(note.expiresAt) }).send();
  }

  @Patch(':id')
  @RouteConfig({ cvStream: true })
  async append(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: UploadId }) id: UploadId): Promise<void> {
    spoken(request, reply);
    const store = bytesOf(this.gateway);
    if (request.headers['content-type'] !== 'application/offset+octet-stream') throw new ProblemError('request.content_type', { detail: 'Bytes of an upload are application/offset+octet-stream.' });
    const offset = readBytes(request.headers['upload-offset']);
    if (offset === undefined) throw malformed([{ path: 'header.Upload-Offset', code: 'invalid', message: 'must be where these bytes begin' }]);
    const summed = headerOf(request, 'upload-checksum');
    const checksum = summed === undefined ? undefined : readChecksum(summed);
    if (summed !== undefined && checksum === undefined) throw malformed([{ path: 'header.Upload-Checksum', code: 'invalid', message: `must be one of ${CHECKSUMS.join(', ')}, and the sum in base64` }]);
    const note = await store.note(id);
    if (note === undefined) await this.imported(id);
    const end = note === undefined ? offset : await store.append(id, offset, request.body as Readable, { checksum }); // the parser of this content type hands the stream on
    if (isRefusal(end)) throw refused(end);
    const complete = note === undefined || end === note.length;
    if (complete) await this.become(id, reply);
    void reply.code(204).headers({ 'upload-offset': String(end), ...(note === undefined || complete ? {} : expires(note.expiresAt)) }).send();
  }

  @Delete(':id')
  async remove(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: UploadId }) id: UploadId): Promise<void> {
    spoken(request, reply);
    actorOf(request);
    const store = bytesOf(this.gateway);
    if (await store.note(id) === undefined) throw new ProblemError('upload.not_found', { because: { id } });
    if (await this.gateway.views.document('image_import', operationOfUpload(id)) !== undefined) throw new ProblemError('upload.complete', { because: { id } });
    await store.drop(id);
    void reply.code(204).send();
  }

  /** It is imported; throws the problem if that fails while we wait. */
  private async become(id: UploadId, reply: FastifyReply): Promise<void> {
    const operationId = operationOfUpload(id);
    await beginImport(this.gateway, id);
    void reply.headers({ 'cv-operation': operationId, 'cv-image': idFrom('image', uuidOf(id)) });
    const until = performance.now() + TOLD_WITHIN_MS;
    while (performance.now() < until) {
      const operation = await this.gateway.views.document<OperationDocument>('operation', operationId);
      if (operation?.status === 'succeeded') return;
      if (operation?.error !== undefined && operation.error !== null) throw new ProblemError(operation.error.code, { because: operation.error.because, detail: inWords(operation.error.code, operation.error.because) });
      await sleep(LOOK_EVERY_MS);
    }
    // It takes longer: the operation tells.
  }

  private async imported(id: UploadId): Promise<ImageImportDocument & { readonly source: { readonly kind: 'upload'; readonly bytes: number } }> {
    const known = await this.gateway.views.document<ImageImportDocument>('image_import', operationOfUpload(id));
    if (known?.source.kind !== 'upload') throw new ProblemError('upload.not_found', { because: { id } });
    return { ...known, source: known.source };
  }
}

/** Every answer names the version; a request of another one is refused. */
const spoken = (request: FastifyRequest, reply: FastifyReply): void => {
  void reply.header('tus-resumable', TUS_VERSION);
  if (request.headers['tus-resumable'] !== TUS_VERSION) throw new ProblemError('upload.other_version', { headers: { 'tus-version': TUS_VERSION } });
};

const headerOf = (request: FastifyRequest, name: string): string | undefined => {
  const value = request.headers[name];
  return typeof value === 'string' ? value : undefined;
};

/** As HTTP writes times. */
const expires = (at: string): Readonly<Record<string, string>> => ({ 'upload-expires': new Date(at).toUTCString() });

const base64 = (text: string): string | undefined => {
  const decoded = Buffer.from(text, 'base64').toString('utf8');
  return decoded.includes('\uFFFD') ? undefined : decoded;
};
