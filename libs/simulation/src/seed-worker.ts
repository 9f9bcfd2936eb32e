/* A thread that runs seeds, one batch after another, and says what came of each. */
import { parentPort } from 'node:worker_threads';
import { type Settings, simulate } from './platform.ts';

export interface Batch {
  readonly seeds: readonly number[];
  readonly settings: Settings;
}

parentPort?.on('message', ({ seeds, settings }: Batch) => {
  void (async () => {
    const outcomes = [];
    for (const seed of seeds) outcomes.push(await simulate(seed, settings));
    parentPort?.postMessage(outcomes);
  })();
});
