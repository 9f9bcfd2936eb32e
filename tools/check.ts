/*
 * `npm run check`: what can be known without a server, in under a minute.
 *
 * Two lanes for two cores. The compiler and the linter are the long ones and each reads all
 * source, so they head a lane each; the others follow in the lane that is free.
 */
import { join } from 'node:path';
import { sourceFolders, boundariesCommand } from './boundaries.ts';
import { levelStep } from './levels.ts';
import { REPOSITORY, passSignalsOn, runStep, sayEnd, seconds } from './step.ts';
import type { Step, StepEnd } from './step.ts';

const PROMISED_MS = 60_000;
const WITHIN_MS = 180_000;

const modules = (path: string): string => join(REPOSITORY, 'node_modules', path);

const types: Step = {
  name: 'types', output: 'kept', withinMs: WITHIN_MS,
  command: [process.execPath, modules('typescript/bin/tsc'), '-p', 'tsconfig.check.json', '--pretty', 'false'],
};

const lint: Step = {
  name: 'lint', output: 'kept', withinMs: WITHIN_MS,
  command: [process.execPath, modules('eslint/bin/eslint.js'), '--max-warnings', '0', '--no-error-on-unmatched-pattern', ...sourceFolders(REPOSITORY), 'vitest.config.ts'],
};

const boundaries: Step = {
  name: 'boundaries', output: 'kept', withinMs: WITHIN_MS,
  command: boundariesCommand(REPOSITORY, 'err-long'),
};

const features: Step = {
  name: 'features', output: 'kept', withinMs: WITHIN_MS,
  command: [process.execPath, join(REPOSITORY, 'tools/feature-table.ts')],
};

/** Runs every part, says how each ended, and answers with all of them. */
export async function check(): Promise<readonly StepEnd[]> {
  const lane = async (...steps: readonly Step[]): Promise<readonly StepEnd[]> => {
    const ends: StepEnd[] = [];
    for (const step of steps) {
      const end = await runStep(step);
      sayEnd(end);
      ends.push(end);
    }
    return ends;
  };
  const [one, other] = await Promise.all([
    lane(types, levelStep('pure', 'kept')),
    lane(lint, boundaries, features),
  ]);
  return [...one, ...other];
}

if (import.meta.main) {
  passSignalsOn();
  const startedMs = performance.now();
  const failed = (await check()).filter((end) => !end.ok);
  const tookMs = performance.now() - startedMs;
  if (failed.length > 0) {
    console.log(`\nThe check failed after ${seconds(tookMs)}: ${failed.map((end) => end.name).join(', ')}. What to mend stands above each FAILED line.`);
    process.exitCode = 1;
  } else {
    console.log(`\nAll is well, in ${seconds(tookMs)}.`);
  }
  if (tookMs > PROMISED_MS) console.log(`It took longer than the ${seconds(PROMISED_MS)} that we promise ourselves: look at the slowest line.`);
}
