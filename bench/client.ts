/* A light REST client: keep-alive connections, no retries, times in milliseconds. */
import { Agent, request } from 'node:http';

export interface Api {
  readonly url: string;
  readonly token: string;
}

export interface Told<T> {
  readonly status: number;
  readonly body: T;
  readonly ms: number;
}

const agent = new Agent({ keepAlive: true, maxSockets: 512 });

export const call = <T = Record<string, unknown>>(api: Api, method: string, path: string, body?: unknown, headers: Record<string, string> = {}): Promise<Told<T>> =>
  new Promise((resolve, reject) => {
    const startedAt = performance.now();
    const text = body === undefined ? undefined : JSON.stringify(body);
    const sent = request(new URL(path, api.url), {
      method, agent, headers: { authorization: `Bearer ${api.token}`, ...(text === undefined ? {} : { 'content-type': 'application/json', 'content-length': String(Buffer.byteLength(text)) }), ...headers },
    }, (response) => {
      const chunks: Buffer[] = [];
      response.on('data', (chunk: Buffer) => chunks.push(chunk));
      response.on('end', () => {
        const ms = performance.now() - startedAt;
        const raw = Buffer.concat(chunks).toString();
        resolve({ status: response.statusCode ?? 0, body: (raw === '' ? undefined : JSON.parse(raw)) as T, ms });
      });
      response.on('error', reject);
    });
    sent.on('error', reject);
    sent.end(text);
  });

export interface SeenEvent {
  readonly position: number;
  readonly stream: string;
  readonly type: string;
  readonly data: Readonly<Record<string, unknown>>;
  readonly recordedAt: string;
  readonly meta?: Readonly<Record<string, unknown>>;
}

/** Follows GET /v1/events from a position; `stop` ends it. */
export const follow = (api: Api, after: number, hear: (event: SeenEvent, at: number) => void): { stop(): void } => {
  const sent = request(new URL(`/v1/events?after=${String(after)}`, api.url), { headers: { authorization: `Bearer ${api.token}`, accept: 'text/event-stream' } }, (response) => {
    let rest = '';
    response.setEncoding('utf8');
    response.on('data', (chunk: string) => {
      const at = performance.now();
      rest += chunk;
      for (let end = rest.indexOf('\n\n'); end >= 0; end = rest.indexOf('\n\n')) {
        const data = rest.slice(0, end).split('\n').filter((line) => line.startsWith('data:')).map((line) => line.slice(5).trim()).join('\n');
        rest = rest.slice(end + 2);
        if (data !== '') hear(JSON.parse(data) as SeenEvent, at);
      }
    });
  });
  sent.on('error', () => undefined);
  sent.end();
  return { stop: () => { sent.destroy(); } };
};
