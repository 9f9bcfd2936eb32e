import { afterEach, describe, expect, it } from 'vitest';
import { createReadiness, startHealthServer } from './health.ts';
import type { HealthServer } from './health.ts';
import { createMetrics } from './metrics.ts';

const open: HealthServer[] = [];
afterEach(async () => { await Promise.all(open.splice(0).map((server) => server.close())); });

const started = async (readiness = createReadiness(), metrics = createMetrics()): Promise<string> => {
  const server = await startHealthServer({ port: 0, readiness, metrics });
  open.push(server);
  return `http://127.0.0.1:${server.port}`;
};

describe('health', () => {
  it('is ready when every part is, and says what each waits for', async () => {
    const readiness = createReadiness();
    let up = false;
    readiness.add('postgres', () => ({ ok: true, says: 'answers' }));
    readiness.add('bus', () => Promise.resolve({ ok: up, says: up ? 'connected' : 'connecting' }));
    readiness.add('broken', () => { if (!up) throw new Error('no such table'); return { ok: true, says: 'fine' }; });
    const url = await started(readiness);
    const before = await fetch(`${url}/readyz`);
    expect(before.status).toBe(503);
    expect(await before.json()).toEqual({
      ready: false,
      parts: [{ name: 'postgres', ok: true, says: 'answers' }, { name: 'bus', ok: false, says: 'connecting' }, { name: 'broken', ok: false, says: 'no such table' }],
    });
    up = true;
    const after = await fetch(`${url}/readyz`);
    expect(after.status).toBe(200);
    expect(await after.json()).toMatchObject({ ready: true });
  });

  it('does not wait for a part that never answers', async () => {
    const readiness = createReadiness();
    readiness.add('stuck', () => new Promise(() => undefined));
    const report = await readiness.report();
    expect(report).toEqual({ ready: false, parts: [{ name: 'stuck', ok: false, says: 'did not answer within a second' }] });
  });

  it('is alive, counts, and serves nothing else', async () => {
    const metrics = createMetrics();
    metrics.counter('cv_things_total', 'Things.').inc(7);
    const url = await started(createReadiness(), metrics);
    expect((await fetch(`${url}/livez`)).status).toBe(200);
    expect(await (await fetch(`${url}/metrics`)).text()).toContain('cv_things_total 7');
    expect((await fetch(`${url}/etc/passwd`)).status).toBe(404);
    expect((await fetch(`${url}/livez`, { method: 'POST' })).status).toBe(405);
  });

  it('takes a part away', async () => {
    const readiness = createReadiness();
    const remove = readiness.add('a', () => ({ ok: false, says: 'no' }));
    expect(() => readiness.add('a', () => ({ ok: true, says: '' }))).toThrow(RangeError);
    remove();
    expect(await readiness.report()).toEqual({ ready: true, parts: [] });
  });
});
