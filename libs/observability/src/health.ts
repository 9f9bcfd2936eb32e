/*
 * Is it alive, is it ready, what does it count: for whoever watches the process.
 *
 *   /livez    200 as long as the event loop answers
 *   /readyz   200 or 503, and for each part a plain sentence: what it is, or what it waits for
 *   /metrics  Prometheus' text
 *
 * Readiness is a registry of checks, apart from the server, so that the gateway can mount the
 * same report in its own HTTP. A check that takes longer than a second counts as not ready.
 */
import { createServer } from 'node:http';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { once } from 'node:events';
import type { Metrics } from './metrics.ts';

export interface PartReport {
  readonly name: string;
  readonly ok: boolean;
  /** A sentence for a person: 'connected to nats://…', 'waiting for Postgres: connection refused'. */
  readonly says: string;
}

export interface ReadinessReport {
  readonly ready: boolean;
  readonly parts: readonly PartReport[];
}

export type Check = () => Omit<PartReport, 'name'> | Promise<Omit<PartReport, 'name'>>;

export interface Readiness {
  /** Adds a part; the answer takes it away again. Two parts cannot have one name. */
  add(name: string, check: Check): () => void;
  /** Asks all parts at once. Never rejects. */
  report(): Promise<ReadinessReport>;
}

const CHECK_MS = 1_000;

export function createReadiness(): Readiness {
  const checks = new Map<string, Check>();
  return {
    add: (name, check) => {
      if (checks.has(name)) throw new RangeError(`readiness has a part of this name: ${name}`);
      checks.set(name, check);
      return () => { if (checks.get(name) === check) checks.delete(name); };
    },
    report: async () => {
      const parts = await Promise.all([...checks].map(async ([name, check]) => ({ name, ...(await bounded(check)) })));
      return { ready: parts.every(({ ok }) => ok), parts };
    },
  };
}

async function bounded(check: Check): Promise<Omit<PartReport, 'name'>> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<Omit<PartReport, 'name'>>((resolve) => {
    timer = setTimeout(() => resolve({ ok: false, says: 'did not answer within a second' }), CHECK_MS);
  });
  try {
    return await Promise.race([(async () => check())(), late]);
  } catch (fault) {
    return { ok: false, says: fault instanceof Error ? fault.message : 'failed without saying why' };
  } finally {
    clearTimeout(timer);
  }
}

export interface HealthServerOptions {
  /** Default 127.0.0.1. */
  readonly host?: string;
  /** 0 takes a free one. */
  readonly port: number;
  readonly readiness: Readiness;
  readonly metrics: Metrics;
}

export interface HealthServer {
  readonly host: string;
  readonly port: number;
  close(): Promise<void>;
}

/** Listens until closed. Rejects when the port is taken. */
export async function startHealthServer({ host = '127.0.0.1', port, readiness, metrics }: HealthServerOptions): Promise<HealthServer> {
  const server = createServer((request, response) => {
    answer(request, response, readiness, metrics).catch(() => {
      if (!response.headersSent) response.writeHead(500);
      response.end();
    });
  });
  server.headersTimeout = 5_000;
  server.requestTimeout = 5_000;
  server.maxConnections = 64;
  server.listen(port, host);
  await once(server, 'listening');
  // Nothing but health is served here, so it alone does not keep a process alive.
  server.unref();
  const address = server.address();
  return {
    host,
    port: address !== null && typeof address === 'object' ? address.port : port,
    close: async () => {
      const closed = once(server, 'close');
      server.close();
      server.closeAllConnections();
      await closed;
    },
  };
}

async function answer(request: IncomingMessage, response: ServerResponse, readiness: Readiness, metrics: Metrics): Promise<void> {
  const path = (request.url ?? '/').split('?')[0];
  if (request.method !== 'GET' && request.method !== 'HEAD') return send(response, 405, 'application/json', '{"error":"only GET"}');
  switch (path) {
    case '/livez':
      return send(response, 200, 'application/json', '{"live":true}');
    case '/readyz': {
      const report = await readiness.report();
      return send(response, report.ready ? 200 : 503, 'application/json', JSON.stringify(report));
    }
    case '/metrics':
      return send(response, 200, metrics.contentType, await metrics.text());
    default:
      return send(response, 404, 'application/json', '{"error":"not found"}');
  }
}

function send(response: ServerResponse, status: number, type: string, body: string): void {
  response.writeHead(status, { 'content-type': type, 'cache-control': 'no-store', 'content-length': Buffer.byteLength(body) });
  response.end(body);
}
