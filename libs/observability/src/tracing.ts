/*
 * Traces: one from the HTTP call through the bus to the node and back, by OpenTelemetry's API.
 *
 * The SDK takes 150 ms and 40 MiB, so it is loaded only where the standard variables ask for
 * it. Without it spans cost next to nothing and lead nowhere; but every request still has a
 * trace id (`traceparentNow`), because events record under which trace they came to be.
 * Between processes a trace travels as a W3C traceparent, as text: in a header on the bus and
 * in a command's `meta`, so that a command that is sent again next week keeps its trace.
 */
import { randomBytes } from 'node:crypto';
import { ROOT_CONTEXT, SpanKind, SpanStatusCode, context, isSpanContextValid, trace } from '@opentelemetry/api';
import type { Attributes, Context, Span, Tracer } from '@opentelemetry/api';

export type { Span } from '@opentelemetry/api';

export type Environment = Readonly<Record<string, string | undefined>>;

/** True where the standard variables name somewhere to send traces to. */
export const tracingIsWanted = (env: Environment): boolean =>
  env['OTEL_SDK_DISABLED'] !== 'true' &&
  Boolean(env['OTEL_EXPORTER_OTLP_ENDPOINT'] || env['OTEL_EXPORTER_OTLP_TRACES_ENDPOINT'] || (env['OTEL_TRACES_EXPORTER'] && env['OTEL_TRACES_EXPORTER'] !== 'none') || env['OTEL_CONFIG_FILE']);

export interface Tracing {
  readonly on: boolean;
  /** Sends what is left. Bounded: an absent collector does not hold up the end of a process. */
  stop(): Promise<void>;
}

const STOP_MS = 3_000;
let started: Promise<Tracing> | undefined;

/** Called first thing in main. A second call in the same process gets what the first one started. */
// eslint-disable-next-line no-restricted-syntax -- the standard variables belong to OpenTelemetry's SDK, which reads the same object
export function startTracing(service: string, env: NodeJS.ProcessEnv = process.env): Promise<Tracing> {
  if (!tracingIsWanted(env)) return Promise.resolve({ on: false, stop: () => Promise.resolve() });
  started ??= load(service, env);
  return started;
}

async function load(service: string, env: NodeJS.ProcessEnv): Promise<Tracing> {
  // The SDK reads these itself. Metrics go through prom-client, logs through standard output.
  env['OTEL_METRICS_EXPORTER'] ??= 'none';
  env['OTEL_LOGS_EXPORTER'] ??= 'none';
  const { NodeSDK } = await import('@opentelemetry/sdk-node');
  const sdk = new NodeSDK({ serviceName: env['OTEL_SERVICE_NAME'] ?? `chronovirt-${service}`, instrumentations: [] });
  sdk.start();
  return {
    on: true,
    stop: async () => {
      started = undefined;
      let timer: NodeJS.Timeout | undefined;
      const patience = new Promise<void>((resolve) => { timer = setTimeout(resolve, STOP_MS); });
      await Promise.race([sdk.shutdown().catch(() => undefined), patience]);
      clearTimeout(timer);
    },
  };
}

// A proxy: made before the SDK starts, it works afterwards.
export const tracer: Tracer = trace.getTracer('chronovirt');

const TRACEPARENT = /^00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})$/;

/** The context that a traceparent describes; one that cannot be read starts a new trace. */
export function contextFrom(traceparent: string | undefined): Context {
  const parts = traceparent === undefined ? null : TRACEPARENT.exec(traceparent);
  if (!parts?.[1] || !parts[2] || !parts[3]) return ROOT_CONTEXT;
  const spanContext = { traceId: parts[1], spanId: parts[2], traceFlags: Number.parseInt(parts[3], 16) & 1, isRemote: true };
  return isSpanContextValid(spanContext) ? trace.setSpanContext(ROOT_CONTEXT, spanContext) : ROOT_CONTEXT;
}

/** The span's place in its trace as a W3C traceparent, or undefined where no SDK runs and no trace came in. */
export function traceparentOf(span: Span | undefined = trace.getActiveSpan()): string | undefined {
  const here = span?.spanContext();
  if (here === undefined || !isSpanContextValid(here)) return undefined;
  return `00-${here.traceId}-${here.spanId}-${here.traceFlags & 1 ? '01' : '00'}`;
}

/** The active span's traceparent, else `incoming` if it is one, else a new trace that nobody samples. */
export function traceparentNow(incoming?: string): string {
  const active = traceparentOf();
  if (active !== undefined) return active;
  if (incoming !== undefined && TRACEPARENT.test(incoming)) return incoming;
  return `00-${randomBytes(16).toString('hex')}-${randomBytes(8).toString('hex')}-00`;
}

/** The trace id in a traceparent, 32 hex digits. */
export const traceIdOf = (traceparent: string): string | undefined => TRACEPARENT.exec(traceparent)?.[1];

const kinds = { server: SpanKind.SERVER, client: SpanKind.CLIENT, producer: SpanKind.PRODUCER, consumer: SpanKind.CONSUMER, internal: SpanKind.INTERNAL } as const;

export interface SpanOptions {
  readonly kind?: keyof typeof kinds;
  readonly attributes?: Attributes;
  /** A traceparent that came in; without one the active span is the parent. */
  readonly parent?: string | undefined;
}

export interface OpenSpan {
  readonly span: Span;
  /** To be active while the work runs: `context.with(open.context, …)`. */
  readonly context: Context;
  readonly traceparent: string | undefined;
  /** `fault` marks it as failed. A refusal is an answer and no fault. */
  end(fault?: unknown): void;
}

/** For work that begins in one callback and ends in another; otherwise `withSpan`. */
export function startSpan(name: string, { kind = 'internal', attributes, parent }: SpanOptions = {}): OpenSpan {
  const above = parent === undefined ? context.active() : contextFrom(parent);
  const span = tracer.startSpan(name, { kind: kinds[kind], ...(attributes === undefined ? {} : { attributes }) }, above);
  return {
    span,
    context: trace.setSpan(above, span),
    traceparent: traceparentOf(span),
    end: (fault) => {
      if (fault !== undefined) {
        span.recordException(fault instanceof Error ? fault : 'not an Error');
        span.setStatus({ code: SpanStatusCode.ERROR });
      }
      span.end();
    },
  };
}

/** Runs `work` inside a span, which ends when `work` does and is marked when it throws. */
export async function withSpan<T>(name: string, options: SpanOptions, work: (span: Span) => T | Promise<T>): Promise<T> {
  const open = startSpan(name, options);
  try {
    const result = await context.with(open.context, () => work(open.span));
    open.end();
    return result;
  } catch (fault) {
    open.end(fault ?? 'unknown');
    throw fault;
  }
}
