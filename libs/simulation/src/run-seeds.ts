/*
 * Many runs on all cores. Threads run the sources as they are (Node strips the types), so that a run costs
 * what it costs, without a test runner's own way of loading modules.
 */
import { availableParallelism } from 'node:os';
import { Worker } from 'node:worker_threads';
import { type Outcome, type Settings, simulate } from './platform.ts';
import type { Batch } from './seed-worker.ts';

const BATCH = 20;

/** Runs every seed, or stops soon after the first that is found to fail. Outcomes come in no order. */
export const runSeeds = async (seeds: readonly number[], { settings = {}, stopAtFirst = false, threads = availableParallelism() }: { settings?: Settings; stopAtFirst?: boolean; threads?: number } = {}): Promise<readonly Outcome[]> => {
  const outcomes: Outcome[] = [];
  let next = 0;
  const thread = async (): Promise<void> => {
    const worker = new Worker(new URL('./seed-worker.ts', import.meta.url), { execArgv: ['--conditions=chronovirt-source', '--no-warnings'], resourceLimits: { maxYoungGenerationSizeMb: 64 } });
    const ended = new Promise<never>((_, reject) => { worker.once('error', reject); });
    try {
      while (next < seeds.length && !(stopAtFirst && outcomes.some(({ violations }) => violations.length > 0))) {
        const batch: Batch = { seeds: seeds.slice(next, next + BATCH), settings };
        next += BATCH;
        worker.postMessage(batch);
        outcomes.push(...(await Promise.race([ended, new Promise<readonly Outcome[]>((resolve) => { worker.once('message', resolve); })])));
      }
    } finally {
      await worker.terminate();
    }
  };
  await Promise.all(Array.from({ length: Math.max(1, Math.min(threads, Math.ceil(seeds.length / BATCH))) }, thread));
  return outcomes;
};

/** What a person needs to see of a run that failed: the seed, what did not hold, the weather, every fault in its order. */
export const report = async (seed: number, settings: Settings = {}): Promise<string> => {
  const { violations, weather, story } = await simulate(seed, { ...settings, told: true });
  const faults = story.filter((line) => /\bis killed|cut off|reached again|the bus|the log|stands still|has lost|starts$|everything is up|!! /.test(line));
  return [
    `seed ${String(seed)} (again, with all that happened: CV_STORM=${String(seed)} npx vitest run --project sim)`,
    ...violations.map((violation) => `  ${violation}`),
    `weather: ${JSON.stringify(weather)}`,
    ...faults.slice(0, 300),
  ].join('\n');
};
