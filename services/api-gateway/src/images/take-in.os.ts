/*
 * A part becomes an image's content, or is refused: its sum, then its header as we read it ourselves, and only
 * then QEMU's own program, where there is one, with the format said, little memory and little time.
 */
import { execFile } from 'node:child_process';
import { stat } from 'node:fs/promises';
import { promisify } from 'node:util';
import { type ImageFormat, isDiskFormat } from '@chronovirt/contracts/image/image.events';
import { HEAD_BYTES, readHeader } from '@chronovirt/contracts/image/image-header';
import { isRefusal, refuse, type Refusal } from '@chronovirt/decider/decider';
import { z } from 'zod';
import type { ByteStore } from '../bytes/byte-store.os.ts';

export interface TakenIn {
  readonly sha256: string;
  readonly sizeBytes: number;
  readonly virtualBytes: number;
}

const run = promisify(execFile);
/** As OpenStack's Glance limits it: a second of the processor is plenty for a header. */
const QEMU_IMG_MS = 60_000;
const QEMU_IMG_CPU_SECONDS = 30;
const QEMU_IMG_MEMORY_BYTES = 2 ** 30;

const Info = z.object({ format: z.string(), 'virtual-size': z.number(), 'backing-filename': z.string().optional(), 'format-specific': z.object({ data: z.object({ 'data-file': z.string().optional() }).optional() }).optional() });

export const takeIn = async (store: ByteStore, id: string, { sha256, format }: { readonly sha256: string; readonly format: ImageFormat }, signal?: AbortSignal): Promise<TakenIn | Refusal> => {
  const [note, there] = [await store.note(id), await store.offsetOf(id)];
  if (note === undefined || there === undefined) {
    // It was taken in before, and whoever did it died, or the answer was lost.
    const done = await store.content(sha256);
    if (done === undefined) return refuse('upload.not_found', { id });
    const read = readHeader(await store.headOf(done.path, HEAD_BYTES), done.bytes, format);
    return isRefusal(read) ? read : { sha256, sizeBytes: done.bytes, virtualBytes: read.virtualBytes };
  }
  if (there !== note.length) return refuse('upload.not_complete', { offset: there, length: note.length });
  const path = store.partPath(id);
  const found = await store.sha256Of(id, signal);
  if (found !== sha256) return refuse('image.checksum_mismatch', { sha256, found });
  const read = readHeader(await store.headOf(path, HEAD_BYTES), there, format);
  if (isRefusal(read)) return read;
  const refused = await asked(path, format, read.virtualBytes);
  if (refused !== undefined) return refused;
  const sizeBytes = (await stat(path)).size;
  await store.keep(id, sha256);
  return { sha256, sizeBytes, virtualBytes: read.virtualBytes };
};

/** What qemu-img has against it; nothing where there is no qemu-img. */
const asked = async (path: string, format: ImageFormat, virtualBytes: number): Promise<Refusal | undefined> => {
  const words = ['qemu-img', 'info', '--output=json', '-f', format === 'qcow2' ? 'qcow2' : 'raw', path];
  let said: string;
  try {
    said = (await run('prlimit', [`--as=${String(QEMU_IMG_MEMORY_BYTES)}`, `--cpu=${String(QEMU_IMG_CPU_SECONDS)}`, '--', ...words], { timeout: QEMU_IMG_MS, maxBuffer: 2 ** 20 })).stdout;
  } catch (fault) {
    const { code, stderr } = fault as { readonly code?: unknown; readonly stderr?: unknown };
    // No prlimit, or no program that it could run (127, as env(1) says it).
    if (code === 'ENOENT' || code === 127) return undefined;
    return refuse('image.header_invalid', { says: 'qemu-img cannot read it', qemuImg: String(stderr).replaceAll(path, 'it').slice(0, 300) });
  }
  const info = Info.parse(JSON.parse(said));
  if (info['backing-filename'] !== undefined) return refuse('image.has_backing_file', {});
  if (format === 'qcow2' && info['format-specific']?.data?.['data-file'] !== undefined) return refuse('image.has_data_file', {});
  return info['virtual-size'] === virtualBytes || !isDiskFormat(format) ? undefined : refuse('image.header_invalid', { says: `qemu-img finds ${String(info['virtual-size'])} bytes in it, and its header says ${String(virtualBytes)}` });
};
