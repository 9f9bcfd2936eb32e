/*
 * Fetches a file from where a user says, into a part of the store. What he names is asked by us, so every name is
 * resolved first, and the connection goes to an address that was found to be allowed, not to the name again; a
 * redirect is looked at like the first request. What came is kept: after a break it goes on there, if the other
 * side says that it still is the same file.
 */
import { lookup } from 'node:dns/promises';
import { request as requestHttp, type IncomingMessage } from 'node:http';
import { request as requestHttps } from 'node:https';
import { isIP } from 'node:net';
import { isRefusal, refuse, type Refusal } from '@chronovirt/decider/decider';
import { type ByteStore, CutShort } from '../bytes/byte-store.os.ts';
import { mayFetchFrom } from './address-guard.ts';

const REDIRECTS_MAX = 5;
const ANSWER_MS = 30_000;
const REDIRECTED = [301, 302, 303, 307, 308];

export interface Fetching {
  readonly store: ByteStore;
  /** Of the part. */
  readonly id: string;
  readonly url: string;
  /** Networks that are not public and allowed all the same. */
  readonly allowed: readonly string[];
  readonly expiresAt: string;
  readonly signal: AbortSignal;
}

/** The other side is there and does not give it. */
const failed = (url: URL, says: string): Refusal => refuse('image.download_failed', { host: url.host, says });

/** Everything is in the part, or it never will be. Throws when it may work later. */
export const fetchInto = async ({ store, id, url: first, allowed, expiresAt, signal }: Fetching): Promise<Refusal | undefined> => {
  let url = new URL(first);
  for (let hop = 0; hop <= REDIRECTS_MAX; hop++) {
    const note = await store.note(id);
    const have = note === undefined ? 0 : ((await store.offsetOf(id)) ?? 0);
    if (note !== undefined && have === note.length) return undefined;
    const tag = typeof note?.about['etag'] === 'string' ? note.about['etag'] : undefined;
    const answer = await ask(url, allowed, have > 0 && tag !== undefined ? { range: `bytes=${String(have)}-`, 'if-range': tag } : {}, signal);
    if (isRefusal(answer)) return answer;
    const { statusCode = 0, headers } = answer;
    if (REDIRECTED.includes(statusCode) && headers.location !== undefined) {
      answer.destroy();
      if (!URL.canParse(headers.location, url.href)) return failed(url, 'it leads to what is no address');
      url = new URL(headers.location, url);
      continue;
    }
    if (statusCode >= 500 || statusCode === 429) {
      answer.destroy();
      throw new CutShort(id, new Error(`${url.host} answered ${String(statusCode)}`));
    }
    const goesOn = statusCode === 206 && headers['content-range']?.startsWith(`bytes ${String(have)}-`) === true;
    if (statusCode !== 200 && !goesOn) {
      answer.destroy();
      return failed(url, `it answered ${String(statusCode)}`);
    }
    if (goesOn) return stored(await store.append(id, have, answer));
    const length = Number(headers['content-length'] ?? NaN);
    if (headers['content-encoding'] !== undefined || !(length > 0)) {
      answer.destroy();
      return failed(url, 'it does not say how large the file is');
    }
    await store.drop(id);
    const etag = headers.etag?.startsWith('"') === true ? headers.etag : undefined;
    const refusal = await store.begin(id, { length, expiresAt, about: { kind: 'url', ...(etag === undefined ? {} : { etag }) } });
    if (refusal !== undefined) {
      answer.destroy();
      return refusal;
    }
    return stored(await store.append(id, 0, answer));
  }
  return failed(url, `more than ${String(REDIRECTS_MAX)} redirects`);
};

const stored = (outcome: number | Refusal): Refusal | undefined => (isRefusal(outcome) ? outcome : undefined);

/** An answer's head, from an address that is allowed. */
const ask = async (url: URL, allowed: readonly string[], headers: Readonly<Record<string, string>>, signal: AbortSignal): Promise<IncomingMessage | Refusal> => {
  if (url.protocol !== 'http:' && url.protocol !== 'https:') return refuse('image.url_not_allowed', { host: url.host, says: 'only http and https' });
  const name = url.hostname.replace(/^\[|\]$/g, '');
  const found = isIP(name) === 0 ? await lookup(name, { all: true }).catch((cause: unknown) => {
    if ((cause as NodeJS.ErrnoException).code === 'ENOTFOUND') return [];
    throw cause;
  }) : [{ address: name, family: isIP(name) }];
  if (found.length === 0) return failed(url, 'there is no such host');
  const [target] = found.filter(({ address }) => mayFetchFrom(address, allowed));
  if (target === undefined) return refuse('image.url_not_allowed', { host: url.host, says: 'it is not in the public Internet' });
  const request = url.protocol === 'https:' ? requestHttps : requestHttp;
  return new Promise((resolve, reject) => {
    const asked = request(url, {
      headers: { 'user-agent': 'chronovirt', accept: '*/*', 'accept-encoding': 'identity', ...headers }, signal, agent: false, timeout: ANSWER_MS,
      // The address that was judged, whatever the name means a moment later.
      lookup: (_name, options, done) => {
        if (options.all === true) done(null, [{ address: target.address, family: target.family }]);
        else done(null, target.address, target.family);
      },
    }, resolve);
    asked.on('timeout', () => { asked.destroy(new Error(`${url.host} does not answer`)); });
    asked.on('error', reject);
    asked.end();
  });
};
