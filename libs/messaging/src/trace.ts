/* Trace context over the bus: a W3C traceparent in a header, by hand, since a propagator's carrier costs more than the message. */
import { ROOT_CONTEXT, isSpanContextValid, trace } from '@opentelemetry/api';
import type { Context, Span } from '@opentelemetry/api';

const TRACEPARENT = /^00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})$/;

export const tracer = trace.getTracer('chronovirt.bus');

export function parentOf(traceparent: string | undefined): Context {
  const parts = traceparent === undefined ? null : TRACEPARENT.exec(traceparent);
  if (!parts?.[1] || !parts[2] || !parts[3]) return ROOT_CONTEXT;
  return trace.setSpanContext(ROOT_CONTEXT, { traceId: parts[1], spanId: parts[2], traceFlags: Number.parseInt(parts[3], 16) & 1, isRemote: true });
}

export function traceparentOf(span: Span): string | undefined {
  const here = span.spanContext();
  return isSpanContextValid(here) ? `00-${here.traceId}-${here.spanId}-${here.traceFlags & 1 ? '01' : '00'}` : undefined;
}
