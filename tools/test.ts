/*
 * `npm test`: everything, from a fresh clone, without a question.
 *
 * Installs what is missing, builds, checks, and runs each level in turn; then asks whether
 * every claim of the README was seen today. What fails does not stop the rest: who reads the
 * end of a long run wants to know all of it, and much needs neither libvirt nor a build.
 *
 * The last line is `N passed, N failed, N skipped`. The numbers are those of the tests, taken
 * from vitest's own reports; a step without tests (types, lint, a level that ran none) that
 * fails adds one to `failed`, so that the line never says less than the exit code.
 *
 * `npm test -- pg nats` runs these levels alone, without the check and the claims.
 */
import { randomInt } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { check } from './check.ts';
import { LEVELS, levelStep, resultsFile } from './levels.ts';
import type { Level } from './levels.ts';
import { installCommand, installMissing } from './packages.ts';
import { REPOSITORY, passSignalsOn, runStep, sayEnd, seconds } from './step.ts';
import type { Step, StepEnd } from './step.ts';
import { NOTHING, add, closingLine, judgeLevel, readReport } from './test-results.ts';
import type { Counts, LevelResults } from './test-results.ts';

const FAILURES_SHOWN_MAX = 100;

type Line = Counts & { readonly name: string; readonly tookMs: number; readonly because: string };

const build: Step = {
  name: 'build', output: 'kept', withinMs: 5 * 60_000,
  command: [process.execPath, join(REPOSITORY, 'node_modules/typescript/bin/tsc'), '-b', '--pretty', 'false'],
};

const claims: Step = {
  name: 'claims', output: 'kept', withinMs: 60_000,
  command: [process.execPath, join(REPOSITORY, 'tools/feature-table.ts'), '--results'],
};

/** Gets what is missing of the distribution's packages, where we may. */
async function install(): Promise<StepEnd> {
  const startedMs = performance.now();
  const end = (because: string): StepEnd =>
    ({ name: 'packages', ok: because === '', tookMs: performance.now() - startedMs, output: '', because });
  try {
    const installing = await installMissing(join(REPOSITORY, '.nx/packages.log'), (what) => { console.log(what); }, { forTests: true });
    if (installing.outcome !== 'still missing') return end('');
    console.log(`Without ${installing.missing.parts.join(', ')} some levels will fail. As root, type: ${installCommand(installing.missing.packages)}`);
    return end(installing.because);
  } catch (error) {
    return end(String(error));
  }
}

/** CV_SEED repeats a run; without it each run draws anew. Throws on a CV_SEED that is no seed. */
function seedOfRun(): number {
  const given = process.env['CV_SEED'];
  if (given === undefined || given === '') return randomInt(2 ** 32);
  const seed = Number(given);
  if (!Number.isInteger(seed) || seed < 0 || seed >= 2 ** 32) throw new Error(`CV_SEED is "${given}"; a seed is a whole number from 0 to 4294967295`);
  return seed;
}

function levelsAsked(words: readonly string[]): readonly Level[] | undefined {
  const unknown = words.filter((word) => !LEVELS.some((level) => level === word));
  if (unknown.length > 0) throw new Error(`there is no level called ${unknown.join(', ')}; there are ${LEVELS.join(', ')}`);
  return words.length === 0 ? undefined : LEVELS.filter((level) => words.includes(level));
}

function resultsOf(level: Level): LevelResults | undefined {
  const file = resultsFile(level);
  if (!existsSync(file)) return undefined;
  try {
    return readReport(readFileSync(file, 'utf8'), REPOSITORY);
  } catch (error) {
    console.log(`The report of ${level} cannot be read: ${String(error)}`);
    return undefined;
  }
}

const lineOfStep = (end: StepEnd): Line =>
  ({ ...NOTHING, failed: end.ok ? 0 : 1, name: end.name, tookMs: end.tookMs, because: end.because });

const lineOfLevel = (level: Level, end: StepEnd): Line =>
  ({ ...judgeLevel(resultsOf(level), end), name: level, tookMs: end.tookMs });

const headline = (text: string): void => { console.log(`\n──── ${text} ${'─'.repeat(Math.max(0, 70 - text.length))}\n`); };

function sayFailures(levels: readonly Level[]): void {
  const failures = levels.flatMap((level) => {
    const results = resultsOf(level);
    if (results === undefined) return [];
    return [
      ...results.brokenFiles.map(({ file, message }) => `${level}  ${file}: ${message.split('\n')[0] ?? ''}`),
      ...results.tests.filter((test) => test.end === 'failed').map((test) => `${level}  ${test.file} › ${test.path.join(' > ')}`),
    ];
  });
  if (failures.length === 0) return;
  console.log('\nFailed:');
  for (const failure of failures.slice(0, FAILURES_SHOWN_MAX)) console.log(`  ${failure}`);
  if (failures.length > FAILURES_SHOWN_MAX) console.log(`  … and ${failures.length - FAILURES_SHOWN_MAX} more`);
}

function close(lines: readonly Line[], levels: readonly Level[], seed: number, startedMs: number): void {
  sayFailures(levels);
  headline('summary');
  for (const line of lines) {
    const counts = line.passed + line.skipped + line.failed === 0 ? '' : closingLine(line);
    console.log(`${line.failed === 0 ? 'ok    ' : 'FAILED'}  ${line.name.padEnd(12)} ${seconds(line.tookMs).padStart(12)}   ${counts}${line.because === '' ? '' : `   (${line.because})`}`);
  }
  const total = lines.reduce<Counts>(add, NOTHING);
  console.log(`\nIn ${seconds(performance.now() - startedMs)}, seed ${seed} (CV_SEED=${seed} repeats it).`);
  console.log(closingLine(total));
  process.exitCode = total.failed === 0 ? 0 : 1;
}

async function main(): Promise<void> {
  const startedMs = performance.now();
  const asked = levelsAsked(process.argv.slice(2));
  const levels = asked ?? LEVELS;
  const seed = seedOfRun();
  console.log(`Seed ${seed}. CV_SEED=${seed} npm test repeats what is drawn by chance.`);
  // Nothing of an earlier run may be taken for a result of this one.
  for (const level of LEVELS) rmSync(resultsFile(level), { force: true });
  mkdirSync(dirname(resultsFile('pure')), { recursive: true });

  const lines: Line[] = [];
  headline('set-up');
  for (const run of [install, () => runStep(build)]) {
    const end = await run();
    sayEnd(end);
    lines.push(lineOfStep(end));
  }

  const environment = { CV_SEED: String(seed) };
  if (asked === undefined) {
    headline('check');
    for (const end of await check()) lines.push(end.name === 'pure' ? lineOfLevel('pure', end) : lineOfStep(end));
  }
  for (const level of asked ?? LEVELS.filter((name) => name !== 'pure')) {
    headline(`${level}${level === 'sim' || level === 'crash' ? ` (seed ${seed})` : ''}`);
    const end = await runStep(levelStep(level, 'live', environment));
    sayEnd(end);
    lines.push(lineOfLevel(level, end));
  }
  if (asked === undefined) {
    headline('claims of the README');
    const end = await runStep(claims);
    sayEnd(end);
    lines.push(lineOfStep(end));
  }
  close(lines, levels, seed, startedMs);
}

passSignalsOn();
try {
  await main();
} catch (error) {
  console.log(error instanceof Error ? error.message : error);
  console.log(closingLine({ ...NOTHING, failed: 1 }));
  process.exitCode = 1;
}
