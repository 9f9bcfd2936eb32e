import { describe, expect, it } from 'vitest';
import { createMetrics } from './metrics.ts';

describe('metrics', () => {
  it('are the same when asked for twice', async () => {
    const metrics = createMetrics();
    metrics.counter('cv_commands_total', 'Commands answered.', ['service']).inc({ service: 'ipam' });
    metrics.counter('cv_commands_total', 'Commands answered.', ['service']).inc({ service: 'ipam' });
    expect(await metrics.text()).toContain('cv_commands_total{service="ipam"} 2');
  });

  it('end in their unit', () => {
    const metrics = createMetrics();
    expect(() => metrics.gauge('cv_lag', 'x')).toThrow(RangeError);
    expect(() => metrics.gauge('lag_seconds', 'x')).toThrow(RangeError);
    expect(() => metrics.counter('cv_commands', 'x')).toThrow(RangeError);
    expect(() => metrics.histogram('cv_size_bytes', 'x')).toThrow(RangeError);
    expect(() => metrics.histogram('cv_size_bytes', 'x', [], [1, 10])).not.toThrow();
  });

  it('do not change their kind', () => {
    const metrics = createMetrics();
    metrics.gauge('cv_waiting_commands', 'x');
    expect(() => metrics.histogram('cv_waiting_commands', 'x', [], [1])).toThrow(TypeError);
  });

  it('ask a gauge at each scrape', async () => {
    const metrics = createMetrics();
    let lag = 3;
    metrics.gauge('cv_lag_events', 'x', [], (gauge) => gauge.set(lag));
    expect(await metrics.text()).toContain('cv_lag_events 3');
    lag = 4;
    expect(await metrics.text()).toContain('cv_lag_events 4');
  });
});
