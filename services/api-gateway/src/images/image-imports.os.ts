/*
 * Carries out what is on its way into the store of images. One gateway leads; should it die, the next goes on
 * with what is open: a download where it broke off, an upload that is complete with its sums.
 *
 *     part is whole ─▶ sum, header ─▶ content ─▶ RegisterImage ─▶ ImageImported
 *                          └─ refused: the part goes, nothing else was changed
 *
 * What is to be a volume is copied into that in place of being registered: whole ─▶ content ─▶ RequestVolume ─▶ it is there.
 *
 * Each step may be done again: the content has its sum for a name, the command one id.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { idFrom, type OperationId, streamOf, type UploadId, uuidOf } from '@chronovirt/contracts/ids';
import type { ImageImportCommand } from '@chronovirt/contracts/image/image.commands';
import { type ImageWish, type ImportedVolume, isDiskFormat, notADisk, storedFile } from '@chronovirt/contracts/image/image.events';
import { isRefusal, refuse, type Refusal } from '@chronovirt/decider/decider';
import { commandIdOf } from '@chronovirt/event-log/command-id';
import type { Gateway } from '../gateway.ts';
import { envelopeOf, submit } from '../submit.ts';
import { fetchInto } from './download.os.ts';
import { imageImport } from './image-import.ts';
import type { ImageImportDocument } from './image-import.projection.ts';
import type { VolumeDocument } from '../volumes/volume.projection.ts';
import { takeIn, type TakenIn } from './take-in.os.ts';

/** Carried out at once. */
const AT_ONCE = 2;
/** A download that breaks off is gone on with after a moment, so often, and within this time. */
const TRIES_MAX = 20;
const TRY_AGAIN_MS = 2_000;
const DOWNLOAD_MS = 12 * 3_600_000;
const PROGRESS_EVERY_MS = 1_000;
/** A volume that was asked for is shown by then, or somebody has deleted it meanwhile. */
const SHOWN_MS = 60_000;

/** The operation of an upload has its digits. */
export const operationOfUpload = (uploadId: UploadId): OperationId => idFrom('op', uuidOf(uploadId));

const decide = async (gateway: Gateway, actor: string, command: ImageImportCommand, key: string): Promise<void> => {
  const { operationId } = command.data;
  await gateway.handler.handle(imageImport, {
    id: commandIdOf(`image-import:${operationId}:${key}`), stream: streamOf(imageImport.category, operationId), cancels: [], meta: { actor, operationId }, command,
  });
};

/** An upload whose last byte is there is imported from here on; once, however often this is called. */
export const beginImport = async (gateway: Gateway, uploadId: UploadId): Promise<void> => {
  const note = await gateway.bytes?.note(uploadId);
  if (note === undefined) return;
  const { image, actor } = note.about as { readonly image: ImageWish; readonly actor: string }; // written by uploads.http.ts
  const operationId = operationOfUpload(uploadId);
  await decide(gateway, actor, { type: 'StartImageImport', data: { operationId, imageId: idFrom('image', uuidOf(uploadId)), source: { kind: 'upload', uploadId, bytes: note.length }, image } }, 'start');
};

export class ImageImports {
  private readonly gateway: Gateway;
  private readonly underWay = new Map<string, Promise<void>>();
  private readonly ended = new AbortController();

  constructor(gateway: Gateway) {
    this.gateway = gateway;
  }

  /** Begins what is open, as much as may be under way. To be called often, by whoever leads. */
  async tick(): Promise<void> {
    const { bytes, views, log } = this.gateway;
    if (bytes === undefined) return;
    for (const id of await bytes.whole('upload')) await beginImport(this.gateway, id as UploadId);
    if (this.underWay.size >= AT_ONCE) return;
    for (const open of await views.openImports(AT_ONCE)) {
      if (this.underWay.has(open.id) || this.underWay.size >= AT_ONCE) continue;
      this.underWay.set(open.id, this.carryOut(open)
        .catch((err: unknown) => { if (!this.ended.signal.aborted) log.warn({ err, operationId: open.id }, 'an import was put off, trying again'); })
        .finally(() => { this.underWay.delete(open.id); }));
    }
  }

  async stop(): Promise<void> {
    this.ended.abort();
    await Promise.all(this.underWay.values());
  }

  private async carryOut(open: ImageImportDocument): Promise<void> {
    const { bytes: store } = this.gateway;
    if (store === undefined) return;
    const operationId = open.id as OperationId;
    const part = open.source.kind === 'upload' ? open.source.uploadId : operationId;
    const brought = open.source.kind === 'url' ? await this.fetched(open, open.source.url) : undefined;
    const taken = brought ?? await takeIn(store, part, open.image, this.ended.signal);
    const registered = isRefusal(taken) ? taken : open.volume === null ? await this.registered(open, taken) : await this.copied(open, open.volume, taken);
    if (isRefusal(registered)) await this.say(open, { type: 'FailImageImport', data: { operationId, refused: registered.refused, because: { ...registered.because } as never } }, 'end'); // a refusal holds plain JSON
    else if (!isRefusal(taken)) await this.say(open, { type: 'FinishImageImport', data: { operationId, sizeBytes: taken.sizeBytes, virtualBytes: taken.virtualBytes } }, 'end');
    await store.drop(part);
  }

  private say(open: ImageImportDocument, command: ImageImportCommand, key: string): Promise<void> {
    return decide(this.gateway, open.actor, command, key);
  }

  /** Over a line that may break. */
  private async fetched(open: ImageImportDocument, url: string): Promise<Refusal | undefined> {
    const { bytes: store, images, log } = this.gateway;
    if (store === undefined || await store.content(open.image.sha256) !== undefined) return undefined;
    const operationId = open.id as OperationId;
    const late = AbortSignal.timeout(DOWNLOAD_MS);
    let told = 0;
    const tell = async (): Promise<void> => {
      const length = (await store.note(operationId))?.length ?? 0;
      const tenths = length === 0 ? 0 : Math.floor((10 * ((await store.offsetOf(operationId)) ?? 0)) / length) * 10;
      if (tenths <= told || tenths > 90) return;
      told = tenths;
      await this.say(open, { type: 'ReportImageImport', data: { operationId, percent: tenths } }, `percent ${String(tenths)}`);
    };
    const telling = setInterval(() => void tell().catch((err: unknown) => { log.debug({ err }, 'how far an import has come was not told'); }), PROGRESS_EVERY_MS);
    try {
      for (let tries = 1; ; tries++) {
        try {
          const expiresAt = new Date(this.gateway.now().getTime() + DOWNLOAD_MS).toISOString();
          return await fetchInto({ store, id: operationId, url, allowed: images.importNetworks, expiresAt, signal: AbortSignal.any([this.ended.signal, late]) });
        } catch (err) {
          this.ended.signal.throwIfAborted();
          if (tries >= TRIES_MAX || late.aborted) return refuse('image.download_failed', { host: new URL(url).host, says: late.aborted ? 'it took too long' : 'the connection broke again and again' });
          log.info({ err, operationId, tries }, 'a download broke off, going on with it');
          await sleep(TRY_AGAIN_MS, undefined, { signal: this.ended.signal });
        }
      }
    } finally {
      clearInterval(telling);
    }
  }

  /** Into the volume; it has an operation of its own, which ends by itself, and this one ends with it. */
  private async copied({ id, image, actor }: ImageImportDocument, { volumeId, poolId, nodeId, sizeGib, format }: ImportedVolume, { sha256, virtualBytes }: TakenIn): Promise<Refusal | undefined> {
    const sourceGib = Math.ceil(virtualBytes / 2 ** 30);
    if (!isDiskFormat(image.format)) return notADisk(image);
    if (sizeGib !== null && sizeGib < sourceGib) return refuse('volume.smaller_than_source', { sizeGib, sourceGib });
    const commandId = commandIdOf(`image-import:${id}:volume`);
    const operationId = idFrom('op', commandId);
    const refused = await this.asked({ commandId, operationId, actor }, {
      to: 'storage', target: volumeId, type: 'RequestVolume',
      data: { volumeId, operationId, name: image.name, poolId, nodeId, sizeGib: sizeGib ?? sourceGib, format, source: { kind: 'content', file: storedFile(sha256, image.format), format: image.format } },
    });
    if (refused !== undefined) return refused;
    for (let absentMs = 0; ; ) {
      const volume = await this.gateway.views.document<VolumeDocument>('volume', volumeId);
      if (volume?.status === 'failed') return refuse(volume.failure?.code ?? 'volume.failed', { volumeId });
      if (volume !== undefined && volume.status !== 'creating') return undefined;
      absentMs = volume === undefined ? absentMs + PROGRESS_EVERY_MS : 0;
      if (absentMs >= SHOWN_MS) return refuse('volume.not_found', { volumeId });
      await sleep(PROGRESS_EVERY_MS, undefined, { signal: this.ended.signal });
    }
  }

  /** From here on it is an image. */
  private async registered({ id, imageId, image, actor }: ImageImportDocument, { sha256, sizeBytes, virtualBytes }: TakenIn): Promise<Refusal | undefined> {
    const commandId = commandIdOf(`image-import:${id}:register`);
    const minDiskGib = isDiskFormat(image.format) ? Math.max(image.minDiskGib, Math.ceil(virtualBytes / 2 ** 30)) : image.minDiskGib;
    return this.asked({ commandId, operationId: id as OperationId, actor }, {
      to: 'storage', target: imageId, type: 'RegisterImage', data: { ...image, imageId, file: storedFile(sha256, image.format), sizeBytes, virtualBytes, minDiskGib },
    });
  }

  /** Of storage; undefined when it is done. Throws when it may answer later. */
  private async asked(about: { readonly commandId: string; readonly operationId: OperationId; readonly actor: string }, command: Parameters<typeof envelopeOf>[1]): Promise<Refusal | undefined> {
    const outcome = await submit(this.gateway.ports, envelopeOf({ ...about, requestHash: undefined, traceparent: undefined }, command), undefined);
    if (outcome.kind === 'pending') throw new Error('storage did not answer');
    return outcome.kind === 'refused' ? outcome.refusal : undefined;
  }
}
