import { readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { deadLetters } from './bus.ts';
import { atRest, simulatedViews } from './invariants.ts';
import { startLoad } from './load.ts';
import { startPlatform, type Platform } from './platform.ts';

describe('the bus forgets everything', () => {
  let platform: Platform;
  beforeAll(async () => {
    platform = await startPlatform({ here: { nodes: 5, cpus: 64, memoryMib: 65_536, latencyMs: 20 } });
  });
  afterAll(() => platform.stop());

  it('A8-11 loses no operation when JetStream\'s store is deleted in full under load', async () => {
    const load = startLoad(platform, { width: 12, name: 'wiped', withinMs: 150_000 });
    await load.reached(40, 60_000);
    await platform.kill9('nats');
    for (const entry of readdirSync(platform.natsStoreDir)) rmSync(join(platform.natsStoreDir, entry), { recursive: true });
    const before = load.done.length;
    await platform.start('nats');
    const backAt = Date.now();
    await load.reached(before + 60, 90_000);
    const done = await load.stop();

    const under = done.filter(({ askedAt }) => askedAt <= backAt);
    const late = under.filter(({ endedAt }) => endedAt - backAt > 60_000);
    const succeeded = done.filter(({ outcome }) => outcome === 'succeeded').length;
    const slowest = Math.max(...under.filter(({ endedAt }) => endedAt > backAt).map(({ endedAt }) => endedAt - backAt));
    console.log(`${String(succeeded)} of ${String(done.length)} operations succeeded; of those under way the last ended ${(slowest / 1_000).toFixed(1)} s after the bus was back`);
    expect(late).toEqual([]);
    expect(succeeded / done.length).toBeGreaterThanOrEqual(0.99);

    const { ledger } = await atRest(platform, await simulatedViews(platform), 60_000);
    expect(ledger.wrong).toEqual([]);
    expect(ledger.operations.succeeded).toBe(succeeded);
    expect(await deadLetters(platform)).toEqual([]);
  });
});
