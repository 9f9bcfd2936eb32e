import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type pg from 'pg';
import { allEvents } from '@chronovirt/contracts/registry';
import { PostgresLog } from '@chronovirt/event-log/postgres-log';
import { ProjectionInMemory, type Projection } from '@chronovirt/event-log/projection';
import { canonicalHash, canonicalHashOf } from '@chronovirt/event-log/projection-hash';
import { ProjectionRunner } from '@chronovirt/event-log/projection-runner';
import { Session } from '@chronovirt/event-log/session';
import { Tail } from '@chronovirt/event-log/tail';
import { deadLetters } from './bus.ts';
import { atRest, simulatedViews } from './invariants.ts';
import { startLoad } from './load.ts';
import { startPlatform, type Part, type Platform } from './platform.ts';
import type { PostgresRole } from '../tools/postgres.ts';

type Outage = readonly (readonly [deed: 'kill' | 'start', part: Part])[];

const OUTAGES: Readonly<Record<string, Outage>> = {
  'Postgres': [['kill', 'postgres'], ['start', 'postgres']],
  'NATS': [['kill', 'nats'], ['start', 'nats']],
  'both, Postgres first to come back': [['kill', 'nats'], ['kill', 'postgres'], ['start', 'postgres'], ['start', 'nats']],
  'both, NATS first to come back': [['kill', 'postgres'], ['kill', 'nats'], ['start', 'nats'], ['start', 'postgres']],
  'all of it, services before what they need': [
    ['kill', 'postgres'], ['kill', 'nats'], ['kill', 'control-plane'], ['start', 'control-plane'], ['start', 'nats'], ['start', 'postgres'],
  ],
};

describe('servers that come and go under load', () => {
  let platform: Platform;
  beforeAll(async () => {
    platform = await startPlatform({ split: false, here: { nodes: 4, cpus: 64, memoryMib: 65_536, latencyMs: 10 } });
  });
  afterAll(() => platform.stop());

  it.each(Object.entries(OUTAGES))('A8-12 no operation is lost or done twice when restarting %s', async (name, outage) => {
    const load = startLoad(platform, { width: 8, name: `outage-${String(Object.keys(OUTAGES).indexOf(name))}`, withinMs: 120_000 });
    await load.reached(12, 60_000);
    for (const [deed, part] of outage) {
      if (deed === 'kill') await platform.kill9(part);
      // Whoever needs another that is away must wait for it, not die of it.
      else await platform.start(part, part === 'postgres' || part === 'nats');
    }
    await platform.ready(60_000);
    const upAgainAt = Date.now();
    await load.reached(load.done.length + 12, 60_000);
    const done = await load.stop();
    expect(done.filter(({ outcome }) => outcome !== 'succeeded')).toEqual([]);
    expect(done.filter(({ askedAt, endedAt }) => askedAt < upAgainAt && endedAt - upAgainAt > 60_000)).toEqual([]);
    const { ledger } = await atRest(platform, await simulatedViews(platform), 60_000);
    expect(ledger.wrong).toEqual([]);
  });

  it('every projection dropped and rebuilt from the log under load has the same canonical hash', async () => {
    const [{ gatewayProjections }, { schedulerProjections }, { nodePresence }] = await Promise.all([
      import('@chronovirt/api-gateway/service'), import('@chronovirt/scheduler/view.projection'), import('@chronovirt/monitor/presence/node-presence.projection'),
    ]);
    const services: readonly (readonly [PostgresRole, string, readonly Projection<unknown>[]])[] = [
      ['cv_gateway', 'gateway', gatewayProjections], ['cv_scheduler', 'scheduler', schedulerProjections], ['cv_monitor', 'monitor', [nodePresence]],
    ];
    const { default: postgres } = await import('pg');
    const load = startLoad(platform, { width: 4, name: 'rebuild', withinMs: 60_000 });
    await load.reached(8, 60_000);

    const opened: { readonly pool: pg.Pool; readonly log: PostgresLog; readonly projections: readonly Projection<unknown>[] }[] = [];
    for (const [role, schema, projections] of services) {
      const pool = new postgres.Pool({ connectionString: platform.postgresUrl(role), max: 4 });
      pool.on('error', () => undefined);
      const log = new PostgresLog({ pool, events: allEvents });
      const session = new Session({ url: platform.postgresUrl(role), name: 'rebuild', onTrouble: () => undefined });
      session.start();
      const tail = new Tail({ session, log, onTrouble: () => undefined });
      const runner = new ProjectionRunner({ pool, session, tail, log, schema, projections, onTrouble: () => undefined });
      for (const { name } of projections) {
        const rebuilt = await runner.rebuild(name);
        expect(rebuilt.events).toBeGreaterThan(0);
      }
      await session.stop();
      opened.push({ pool, log, projections });
    }
    await load.reached(load.done.length + 8, 60_000);
    const done = await load.stop();
    expect(done.filter(({ outcome }) => outcome !== 'succeeded')).toEqual([]);
    const { ledger } = await atRest(platform, await simulatedViews(platform), 60_000);

    for (const { pool, log, projections } of opened) {
      const inMemory = projections.map((projection) => new ProjectionInMemory(projection));
      for (let after = 0; after < ledger.head;) {
        const events = await log.read(after, 1_000);
        for (const event of events) for (const one of inMemory) one.take(event);
        after = events.at(-1)?.position ?? ledger.head;
      }
      for (const [index, projection] of projections.entries()) {
        await expect.poll(() => canonicalHash(pool, projection), { timeout: 10_000, message: projection.name }).toBe(canonicalHashOf(inMemory[index]?.documents ?? new Map()));
      }
      await pool.end();
    }
  });

  it('leaves nothing among the dead letters', async () => {
    expect(await deadLetters(platform)).toEqual([]);
  });
});
