import type { Counter, Gauge, Histogram, Metrics } from '@chronovirt/observability/metrics';

export interface GatewayMetrics {
  /** Seconds from the first byte of a request to the last of its answer, by route pattern. */
  readonly requestSeconds: Histogram<'method' | 'route' | 'status'>;
  readonly inFlight: Gauge;
  readonly problems: Counter<'code' | 'status'>;
}

export const gatewayMetrics = (metrics: Metrics): GatewayMetrics => ({
  requestSeconds: metrics.histogram('cv_http_request_duration_seconds', 'Requests answered, by method, route pattern and status', ['method', 'route', 'status']),
  inFlight: metrics.gauge('cv_http_in_flight_count', 'Requests being answered now, live streams included'),
  problems: metrics.counter('cv_http_problems_total', 'Requests that were refused, by code and status', ['code', 'status']),
});
