/*
 * `npm run crash`: every crash point, on real processes, with a table at the end.
 *
 * A point is a moment of a scenario and a part that is killed at that moment (e2e/crash.ts). A failing
 * point does not stop the rest; what comes after it gets a fresh platform, so that one leak is told once.
 * Ctrl-C ends early and prints what there is.
 *
 *   npm run crash                      all of them
 *   npm run crash -- postgres undo     those whose name holds every word
 *   npm run crash -- --draw 24         a draw; CV_SEED repeats it
 */
import { randomInt } from 'node:crypto';
import type { CrashField, CrashPoint, CrashResult } from '../e2e/crash.ts';
import { build, isBuilt } from './build.ts';

type Line = { readonly point: CrashPoint } & ({ readonly result: CrashResult } | { readonly failed: string });

const words = process.argv.slice(2);
const drawAt = words.indexOf('--draw');
const drawCount = drawAt === -1 ? undefined : Number(words.splice(drawAt, 2)[1]);
if (drawCount !== undefined && !(Number.isInteger(drawCount) && drawCount > 0)) throw new Error('--draw wants a number of points');
const seed = Number(process.env['CV_SEED'] ?? randomInt(2 ** 32));

if (!isBuilt()) await build();
const { crashPoints, draw, nameOfPoint, openCrashField, SCENARIOS, tryPoint } = await import('../e2e/crash.ts');
const { deadLetters } = await import('../e2e/bus.ts');

let interrupted = false;
process.once('SIGINT', () => { interrupted = true; });
const startedMs = performance.now();
const lines: Line[] = [];
let letters = 0;

let field: CrashField | undefined = await openCrashField();
try {
  // Where a word is a scenario's name, the others need not be played.
  const named = SCENARIOS.filter((scenario) => words.includes(scenario));
  const all = (await crashPoints(field, named.length === 0 ? SCENARIOS : named)).filter((point) => words.every((word) => nameOfPoint(point).includes(word)));
  const points = drawCount === undefined ? all : draw(all, drawCount, seed);
  console.log(`${String(points.length)} of ${String(all.length)} crash points${drawCount === undefined ? '' : `, drawn with CV_SEED=${String(seed)}`}`);
  for (const [index, point] of points.entries()) {
    if (interrupted) break;
    const about = `${String(index + 1).padStart(4)} ${nameOfPoint(point)}`;
    try {
      field ??= await openCrashField();
      const result = await tryPoint(field, point, index + 1);
      lines.push({ point, result });
      console.log(`${about}: ${result.outcome}, ${result.seconds.toFixed(1)} s after all were up, ${result.tookSeconds.toFixed(1)} s in all`);
    } catch (error) {
      const failed = error instanceof Error ? error.message : String(error);
      lines.push({ point, failed });
      console.log(`${about}: FAILED: ${failed}`);
      await field?.stop().catch(() => undefined);
      field = undefined;
    }
  }
  if (field !== undefined) letters = (await deadLetters(field.platform)).length;
} finally {
  await field?.stop();
}

console.log(`\n${table(lines)}`);
const failures = lines.filter((line) => 'failed' in line);
for (const line of failures) if ('failed' in line) console.log(`\nFAILED ${nameOfPoint(line.point)}\n${line.failed}`);
console.log(`\n${String(lines.length - failures.length)} of ${String(lines.length)} points hold, ${String(letters)} dead letters, in ${((performance.now() - startedMs) / 60_000).toFixed(1)} minutes${interrupted ? ', interrupted' : ''}.`);
process.exitCode = failures.length + letters > 0 || interrupted ? 1 : 0;

/** One row for each scenario and part that was killed: how many points, how they ended, how long it took. */
function table(all: readonly Line[]): string {
  const rows = new Map<string, Line[]>();
  for (const line of all) {
    const key = `${line.point.scenario} | ${line.point.victim}`;
    rows.set(key, [...(rows.get(key) ?? []), line]);
  }
  const body = [...rows].map(([key, some]) => {
    const held = some.flatMap((line) => ('result' in line ? [line.result] : []));
    const seconds = held.map((result) => result.seconds).sort((a, b) => a - b);
    const ended = (outcome: string): number => held.filter((result) => result.outcome === outcome).length;
    const at = (share: number): string => (seconds[Math.min(seconds.length - 1, Math.floor(seconds.length * share))] ?? Number.NaN).toFixed(1);
    return `| ${key} | ${String(some.length)} | ${String(ended('succeeded'))} | ${String(ended('compensated'))} | ${String(some.length - held.length)} | ${at(0.5)} s | ${at(1)} s |`;
  });
  return ['| scenario | killed | points | succeeded | compensated | broken | median to the end, once all are up | longest |', '|---|---|---|---|---|---|---|---|', ...body].join('\n');
}
