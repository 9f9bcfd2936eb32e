/*
 * Metrics answer a question that someone asks at night. A name is `cv_<noun>_<unit>`, so that
 * whoever reads a graph need not guess; a process has one registry, and asking twice for the
 * same metric gives the same one, because several services may live in one process.
 */
import { Counter, Gauge, Histogram, Registry, collectDefaultMetrics } from 'prom-client';

export type { Counter, Gauge, Histogram } from 'prom-client';

/** Seconds: from half a millisecond (one hop on the bus) to the longest deadline of a step. */
export const secondsBuckets: readonly number[] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60];

export interface Metrics {
  readonly registry: Registry;
  /** Only rises; the name ends in `_total`. */
  counter<L extends string = never>(name: string, help: string, labels?: readonly L[]): Counter<L>;
  /** Rises and falls; `collect` is asked at each scrape. */
  gauge<L extends string = never>(name: string, help: string, labels?: readonly L[], collect?: (gauge: Gauge<L>) => void | Promise<void>): Gauge<L>;
  /** How values spread; without `buckets` the unit must be seconds. */
  histogram<L extends string = never>(name: string, help: string, labels?: readonly L[], buckets?: readonly number[]): Histogram<L>;
  /** The text that Prometheus reads. */
  text(): Promise<string>;
  readonly contentType: string;
}

const NAME = /^cv_[a-z0-9]+(_[a-z0-9]+)*$/;
const UNITS = ['seconds', 'bytes', 'mib', 'total', 'ratio', 'events', 'commands', 'messages', 'operations', 'nodes', 'vms', 'addresses', 'connections', 'info', 'count', 'position'];

function checked(name: string): string {
  if (!NAME.test(name) || !UNITS.some((unit) => name.endsWith(`_${unit}`))) {
    throw new RangeError(`a metric is named cv_<noun>_<unit>, unit one of ${UNITS.join(', ')}: ${name}`);
  }
  return name;
}

export interface MetricsOptions {
  /** Memory, event loop, collections of garbage. They cost a little at each scrape and nothing between. Default false. */
  readonly ofTheProcess?: boolean;
}

export function createMetrics({ ofTheProcess = false }: MetricsOptions = {}): Metrics {
  const registry = new Registry();
  if (ofTheProcess) collectDefaultMetrics({ register: registry });

  const once = <M>(name: string, kind: new (...args: never[]) => M, make: () => M): M => {
    const present: unknown = registry.getSingleMetric(checked(name));
    if (present === undefined) return make();
    if (!(present instanceof kind)) throw new TypeError(`${name} exists as another kind of metric`);
    return present;
  };

  return {
    registry,
    counter: <L extends string>(name: string, help: string, labels: readonly L[] = []): Counter<L> => {
      if (!name.endsWith('_total')) throw new RangeError(`a counter's name ends in _total: ${name}`);
      return once(name, Counter<L>, () => new Counter<L>({ name, help, labelNames: [...labels], registers: [registry] }));
    },
    gauge: <L extends string>(name: string, help: string, labels: readonly L[] = [], collect?: (gauge: Gauge<L>) => void | Promise<void>): Gauge<L> =>
      once(name, Gauge<L>, () => new Gauge<L>({
        name, help, labelNames: [...labels], registers: [registry],
        ...(collect === undefined ? {} : { collect(this: Gauge<L>) { return collect(this); } }),
      })),
    histogram: <L extends string>(name: string, help: string, labels: readonly L[] = [], buckets: readonly number[] = secondsBuckets): Histogram<L> => {
      if (buckets === secondsBuckets && !name.endsWith('_seconds')) throw new RangeError(`buckets are in seconds, the name is not: ${name}`);
      return once(name, Histogram<L>, () => new Histogram<L>({ name, help, labelNames: [...labels], buckets: [...buckets], registers: [registry] }));
    },
    text: () => registry.metrics(),
    contentType: registry.contentType,
  };
}
