/*
 * The levels of tests, in the order in which `npm test` runs them: what fails quickest first.
 * vitest.config.ts says which files belong to which.
 */
import { join } from 'node:path';
import { REPOSITORY } from './step.ts';
import type { Step } from './step.ts';

export const LEVELS = ['pure', 'pg', 'nats', 'sim', 'libvirt', 'crash', 'e2e'] as const;
export type Level = (typeof LEVELS)[number];

/** Bounds for a level that hangs; those that are promised stand in STYLE.md. */
const WITHIN_MS: Readonly<Record<Level, number>> = {
  pure: 5 * 60_000,
  pg: 6 * 60_000,
  nats: 6 * 60_000,
  sim: 8 * 60_000,
  libvirt: 12 * 60_000,
  crash: 30 * 60_000,
  e2e: 25 * 60_000,
};

const RESULTS = join(REPOSITORY, '.nx/test-results');

/** Where the level's results lie after its step has run. */
export const resultsFile = (level: Level): string => join(RESULTS, `${level}.json`);

export function levelStep(level: Level, output: Step['output'], environment: Readonly<Record<string, string>> = {}): Step {
  return {
    name: level,
    command: [
      process.execPath, '--conditions=chronovirt-source', join(REPOSITORY, 'node_modules/vitest/vitest.mjs'),
      'run', '--project', level, '--reporter=default', '--reporter=json', `--outputFile.json=${resultsFile(level)}`,
    ],
    environment,
    withinMs: WITHIN_MS[level],
    output,
  };
}
