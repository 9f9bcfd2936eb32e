/*
 * Bytes between this node and the control plane, over HTTP, because they are too many for the bus. The node
 * always calls, and signs what it asks with the key of its bus credentials (libs/messaging/src/node-signature.ts).
 * Whatever breaks off is gone on with: the file here, or the part there, says where.
 */
import { createReadStream } from 'node:fs';
import { open } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { type NodeId, type OperationId, VolumeId } from '@chronovirt/contracts/ids';
import { signRequest } from '@chronovirt/messaging/node-signature';
import { z } from 'zod';
import { isRefusal, refuse, type Refusal } from '../answer.ts';

export interface GatewayBytesOptions {
  /** http(s)://host:port, and a path before /v1 where a proxy wants one. */
  readonly gatewayUrl: string;
  readonly nodeId: NodeId;
  /** nkey of the bus. */
  readonly credentialSeed: string;
  readonly log: { info(fields: object, sentence: string): void };
}

export interface GatewayBytes {
  /** A content's bytes are in this file, those that were there before included. Its sum is for the caller to compare. */
  fetch(sha256: string, file: string, signal: AbortSignal): Promise<Refusal | undefined>;
  /** Which of these volumes there are. */
  volumesKnown(volumeIds: readonly VolumeId[]): Promise<readonly VolumeId[]>;
  /** The sums that were said of images of this file. */
  sumsOf(file: string): Promise<readonly string[]>;
  /** Whether an image is made of it. */
  isNeeded(sha256: string): Promise<boolean>;
  /** A file's bytes are a content of the control plane, checked there. `operationId`: what waits for them. */
  bring(operationId: OperationId, file: { readonly path: string; readonly bytes: number; readonly sha256: string; readonly format: 'qcow2' | 'raw' }, signal: AbortSignal): Promise<Refusal | Taken>;
}

const Taken = z.object({ sha256: z.string(), sizeBytes: z.int(), virtualBytes: z.int() });
export type Taken = z.infer<typeof Taken>;

/** The gateway is not there, or the line broke: it may work later. */
export class GatewayAway extends Error {
  override readonly name = 'GatewayAway';
  constructor(what: string, cause: unknown) { super(`the gateway could not be asked to ${what}`, { cause }); }
}

/** Tries in a row that bring nothing before it is a fault, and the command comes again. */
const TRIES_MAX = 5;
const TRY_AGAIN_MS = 1_000;
const ANSWER_MS = 30_000;
/** A sender or receiver that stands still for so long is gone. */
const STILL_MS = 60_000;
/** Ids in one request: some 40 bytes of its address each. */
const ASKED_AT_ONCE = 100;
const UNEXPECTED_MAX = 15;
/** The control plane reads all of it to check it, and is asked again while it does. */
const CHECK_MS = 240_000;
const CHECKS_MAX = 120;

export function gatewayBytes({ gatewayUrl, nodeId, credentialSeed, log }: GatewayBytesOptions): GatewayBytes {
  const ask = (method: string, path: string, { headers = {}, ...more }: Omit<RequestInit, 'method' | 'headers'> & { readonly headers?: Readonly<Record<string, string>>; readonly duplex?: 'half' } = {}): Promise<Response> =>
    fetch(gatewayUrl + path, { ...more, method, redirect: 'error', headers: { ...headers, authorization: signRequest({ method, path, nodeId }, credentialSeed, Math.floor(Date.now() / 1_000)) } });

  /** Until it says something final: what is thrown is tried again, as long as something comes of it. */
  const insisting = async <T>(what: string, signal: AbortSignal, once: () => Promise<T | undefined>, cameOn: () => Promise<number>): Promise<T> => {
    let before = await cameOn();
    for (let tries = 1; ; tries++) {
      try {
        const outcome = await once();
        if (outcome !== undefined) return outcome;
      } catch (fault) {
        signal.throwIfAborted();
        if (tries >= TRIES_MAX) throw new GatewayAway(what, fault);
        log.info({ err: fault, what, tries }, 'bytes stopped passing, going on with them');
      }
      const now = await cameOn().catch(() => before);
      if (now > before) tries = 0;
      before = now;
      await delay(TRY_AGAIN_MS, undefined, { signal });
    }
  };

  const sizeOf = async (file: string): Promise<number> => {
    const handle = await open(file, 'a');
    return handle.stat().then(({ size }) => size).finally(() => handle.close());
  };

  const fetchOnce = async (sha256: string, file: string, signal: AbortSignal): Promise<Refusal | 'whole'> => {
    const have = await sizeOf(file);
    const still = stillness(signal);
    try {
      const answer = await ask('GET', `/v1/node/contents/${sha256}`, { signal: still.signal, ...(have === 0 ? {} : { headers: { range: `bytes=${String(have)}-` } }) });
      if (answer.status === 416) return 'whole';
      if (!answer.ok) return await refusalOf(answer);
      const handle = await open(file, have > 0 && answer.status === 206 ? 'a' : 'w');
      try {
        for await (const chunk of bytesIn(answer)) {
          still.moved();
          await handle.writeFile(chunk);
        }
        await handle.sync();
      } finally {
        await handle.close();
      }
      return 'whole';
    } finally {
      still.end();
    }
  };

  const Part = z.object({ offset: z.int(), length: z.int().nullable() });
  const partOf = async (operationId: OperationId): Promise<Refusal | z.infer<typeof Part>> => {
    const answer = await ask('GET', `/v1/node/parts/${operationId}`, { signal: AbortSignal.timeout(ANSWER_MS) });
    return answer.ok ? Part.parse(await answer.json()) : refusalOf(answer);
  };

  return {
    fetch: async (sha256, file, signal) => {
      const outcome = await insisting('fetch an image', signal, () => fetchOnce(sha256, file, signal), () => sizeOf(file));
      return isRefusal(outcome) ? outcome : undefined;
    },

    sumsOf: async (file) => {
      const answer = await ask('GET', `/v1/node/images/${file}`, { signal: AbortSignal.timeout(ANSWER_MS) }).catch((cause: unknown) => { throw new GatewayAway('say which images there are', cause); });
      if (!answer.ok) throw new GatewayAway('say which images there are', new Error(`it answered ${String(answer.status)}`));
      return z.object({ sums: z.array(z.string()) }).parse(await answer.json()).sums;
    },

    isNeeded: async (sha256) => {
      const answer = await ask('GET', `/v1/node/contents/${sha256}/needed`, { signal: AbortSignal.timeout(ANSWER_MS) });
      if (!answer.ok) throw new GatewayAway('say which images there are', new Error(`it answered ${String(answer.status)}`));
      return z.object({ needed: z.boolean() }).parse(await answer.json()).needed;
    },

    volumesKnown: async (volumeIds) => {
      const known: VolumeId[] = [];
      for (let at = 0; at < volumeIds.length; at += ASKED_AT_ONCE) {
        const answer = await ask('GET', `/v1/node/volumes?ids=${volumeIds.slice(at, at + ASKED_AT_ONCE).join()}`, { signal: AbortSignal.timeout(ANSWER_MS) });
        if (!answer.ok) throw new GatewayAway('say which volumes there are', new Error(`it answered ${String(answer.status)}`));
        known.push(...z.object({ known: z.array(VolumeId) }).parse(await answer.json()).known);
      }
      return known;
    },

    bring: async (operationId, { path, bytes, sha256, format }, signal) => {
      let last = 0;
      let unexpected = 0;
      const sendOnce = async (): Promise<Refusal | 'sent' | undefined> => {
        const part = await partOf(operationId);
        // The gateway may hear of the operation a moment after us; of one that is over it never will.
        if (isRefusal(part)) return part.refused === 'upload.not_expected' && ++unexpected < UNEXPECTED_MAX ? undefined : part;
        last = part.length === bytes ? part.offset : 0;
        if (part.length === bytes && part.offset === bytes) return 'sent';
        const still = stillness(signal);
        const source = createReadStream(path, { start: last, highWaterMark: 262_144 }).on('data', () => { still.moved(); });
        try {
          const answer = await ask('PUT', `/v1/node/parts/${operationId}?offset=${String(last)}&length=${String(bytes)}`, {
            headers: { 'content-type': 'application/offset+octet-stream' }, body: source as unknown as ReadableStream, duplex: 'half', signal: still.signal, // fetch sends whatever can be iterated
          });
          if (answer.ok) return 'sent';
          const refused = await refusalOf(answer);
          // It has less than it said a moment ago, or another length: it is asked again.
          return refused.refused === 'upload.other_offset' ? undefined : refused;
        } finally {
          still.end();
          source.destroy();
        }
      };
      const sent = await insisting('take the bytes of an image', signal, sendOnce, () => Promise.resolve(last));
      if (isRefusal(sent)) return sent;
      for (let checks = 1; ; checks++) {
        try {
          const answer = await ask('POST', `/v1/node/parts/${operationId}/taken?sha256=${sha256}&format=${format}`, { signal: AbortSignal.any([signal, AbortSignal.timeout(CHECK_MS)]) });
          return answer.ok ? Taken.parse(await answer.json()) : await refusalOf(answer);
        } catch (fault) {
          signal.throwIfAborted();
          if (checks >= CHECKS_MAX) throw new GatewayAway('check the bytes of an image', fault);
          await delay(TRY_AGAIN_MS, undefined, { signal });
        }
      }
    },
  };
}

/** What the gateway refused, in its words. Throws when it is the gateway's trouble and may pass. */
async function refusalOf(answer: Response): Promise<Refusal> {
  const problem = z.object({ code: z.string(), detail: z.string().optional(), because: z.record(z.string(), z.unknown()).optional() }).safeParse(await answer.json().catch(() => undefined)).data;
  // An operation that was just begun is known a moment later; so is a new node.
  const passes = answer.status >= 500 && answer.status !== 507;
  if (problem === undefined || passes) throw new Error(`it answered ${String(answer.status)} ${problem?.code ?? ''}`);
  return refuse(problem.code, { ...(problem.because ?? {}), ...(problem.detail === undefined ? {} : { says: problem.detail }) });
}

async function* bytesIn(answer: Response): AsyncGenerator<Uint8Array> {
  if (answer.body === null) return;
  for await (const chunk of answer.body as unknown as AsyncIterable<Uint8Array>) yield chunk; // as undici makes it
}

/** A signal that also comes when nothing has moved for a minute. */
function stillness(outer: AbortSignal): { readonly signal: AbortSignal; moved(): void; end(): void } {
  const still = new AbortController();
  const timer = setTimeout(() => { still.abort(new Error(`no byte passed for ${String(STILL_MS / 1_000)} s`)); }, STILL_MS);
  return { signal: AbortSignal.any([outer, still.signal]), moved: () => { timer.refresh(); }, end: () => { clearTimeout(timer); } };
}
