import { randomInt } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { crashPoints, draw, nameOfPoint, openCrashField, SCENARIOS, tryPoint, type CrashField, type CrashPoint } from './crash.ts';
import { deadLetters } from './bus.ts';

const seed = Number(process.env['CV_SEED'] ?? randomInt(2 ** 32));
const COUNT = 24;

describe('kill -9 in the middle', () => {
  let field: CrashField;
  let all: readonly CrashPoint[] = [];
  beforeAll(async () => {
    field = await openCrashField();
    all = await crashPoints(field);
  });
  afterAll(() => field.stop());

  it('knows a point for every part before and after every effect of every scenario', () => {
    console.log(`${String(all.length)} crash points; CV_SEED=${String(seed)} draws ${String(COUNT)} of them`);
    for (const scenario of SCENARIOS) {
      for (const victim of ['api-gateway', 'scheduler', 'ipam', 'storage', 'monitor', 'alpha', 'nats', 'postgres']) {
        const phases = all.filter((point) => point.scenario === scenario && point.victim === victim).map(({ waypoint }) => waypoint);
        expect(phases.filter((name) => name.endsWith('.before')).length, `${scenario}, ${victim}, before the effect`).toBeGreaterThan(2);
        expect(phases.filter((name) => name.endsWith('.after') || name.endsWith('.done')).length, `${scenario}, ${victim}, after the effect`).toBeGreaterThan(2);
      }
    }
  });

  for (let index = 0; index < COUNT; index++) {
    it(`holds at point ${String(index + 1)} of the draw`, async () => {
      const point = draw(all, COUNT, seed)[index];
      if (point === undefined) throw new Error('there are too few points');
      const result = await tryPoint(field, point, index + 1).catch((cause: unknown) => {
        throw new Error(`${nameOfPoint(point)} (CV_SEED=${String(seed)}): ${cause instanceof Error ? cause.message : String(cause)}`, { cause });
      });
      console.log(`${nameOfPoint(point)}: ${result.outcome}, ${result.seconds.toFixed(1)} s after all were up, ${result.tookSeconds.toFixed(1)} s in all`);
    });
  }

  it('leaves nothing among the dead letters', async () => {
    expect(await deadLetters(field.platform)).toEqual([]);
  });
});
