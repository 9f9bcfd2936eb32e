import { createServer } from 'node:http';
import type { IncomingMessage } from 'node:http';
import { once } from 'node:events';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { contextFrom, startTracing, traceIdOf, traceparentNow, traceparentOf, tracingIsWanted, withSpan } from './tracing.ts';
import { ROOT_CONTEXT } from '@opentelemetry/api';

const INCOMING = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01';

describe('without an SDK', () => {
  it('is not wanted unless a standard variable asks', () => {
    expect(tracingIsWanted({})).toBe(false);
    expect(tracingIsWanted({ OTEL_TRACES_EXPORTER: 'none' })).toBe(false);
    expect(tracingIsWanted({ OTEL_EXPORTER_OTLP_ENDPOINT: 'http://127.0.0.1:4318' })).toBe(true);
    expect(tracingIsWanted({ OTEL_TRACES_EXPORTER: 'console' })).toBe(true);
    expect(tracingIsWanted({ OTEL_EXPORTER_OTLP_ENDPOINT: 'http://x', OTEL_SDK_DISABLED: 'true' })).toBe(false);
  });

  it('every request still has a trace of its own, or the one it came with', () => {
    expect(traceIdOf(traceparentNow(INCOMING))).toBe('0af7651916cd43dd8448eb211c80319c');
    const made = traceparentNow('nonsense');
    expect(traceIdOf(made)).toMatch(/^[0-9a-f]{32}$/);
    expect(traceparentNow()).not.toBe(made);
  });

  it('starts anew from what cannot be read', () => {
    expect(contextFrom('00-00000000000000000000000000000000-b7ad6b7169203331-01')).toBe(ROOT_CONTEXT);
    expect(contextFrom('junk')).toBe(ROOT_CONTEXT);
  });
});

describe('with an SDK', () => {
  const bodies: string[] = [];
  const collector = createServer((request: IncomingMessage, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => { bodies.push(Buffer.concat(chunks).toString()); response.end('{}'); });
  });
  const env: NodeJS.ProcessEnv = process.env;
  beforeAll(async () => {
    collector.listen(0, '127.0.0.1');
    await once(collector, 'listening');
    const address = collector.address();
    if (address === null || typeof address === 'string') throw new Error('no port');
    env['OTEL_EXPORTER_OTLP_ENDPOINT'] = `http://127.0.0.1:${address.port}`;
    env['OTEL_EXPORTER_OTLP_PROTOCOL'] = 'http/json';
  });
  afterAll(() => {
    delete env['OTEL_EXPORTER_OTLP_ENDPOINT'];
    delete env['OTEL_EXPORTER_OTLP_PROTOCOL'];
    collector.close();
  });

  it('exports spans in a chain under the trace that came in, and marks the one that failed', async () => {
    const tracing = await startTracing('test', env);
    expect(tracing.on).toBe(true);
    let inner: string | undefined;
    await withSpan('outer', { kind: 'server', parent: INCOMING }, async () => {
      inner = traceparentOf();
      await withSpan('inner', { kind: 'producer' }, () => Promise.reject(new Error('no'))).catch(() => undefined);
    });
    await tracing.stop();
    expect(traceIdOf(inner ?? '')).toBe('0af7651916cd43dd8448eb211c80319c');
    interface Span { name: string; traceId: string; spanId: string; parentSpanId?: string; status: { code?: number } }
    const spans = bodies.flatMap((body) => (JSON.parse(body) as { resourceSpans: { scopeSpans: { spans: Span[] }[] }[] }).resourceSpans.flatMap((r) => r.scopeSpans.flatMap((s) => s.spans)));
    const outer = spans.find(({ name }) => name === 'outer');
    const nested = spans.find(({ name }) => name === 'inner');
    expect(outer).toMatchObject({ traceId: '0af7651916cd43dd8448eb211c80319c', parentSpanId: 'b7ad6b7169203331' });
    expect(nested).toMatchObject({ traceId: '0af7651916cd43dd8448eb211c80319c', parentSpanId: outer?.spanId, status: { code: 2 } });
    expect(outer?.status.code ?? 0).not.toBe(2);
  }, 20_000);
});
