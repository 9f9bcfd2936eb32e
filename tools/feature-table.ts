/*
 * The README claims only what was seen.
 *
 * Its table of features has the columns `| id | feature | proof | test | what waits |`. Each
 * row names at least one test as `path › name`; the name is the test's own, or that of its
 * describes and its own joined by ` > ` as vitest prints them. Several tests stand in one
 * cell parted by `<br>`.
 *
 * Alone this checks the table's form and that the files exist. With the results of a full
 * `npm test` (`--results`) it checks that each named test ran and passed: a skipped test, a
 * renamed one, or one whose level did not run takes the claim down with it.
 */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { LEVELS, resultsFile } from './levels.ts';
import { REPOSITORY } from './step.ts';
import { readReport } from './test-results.ts';
import type { TestResult } from './test-results.ts';

const COLUMNS = ['id', 'feature', 'proof', 'test', 'what waits'] as const;
const PROOFS = ['T', 'M', 'G', 'N', 'C', 'X', 'L', 'S', 'W', 'I', 'K8'];
const ID = /^[A-Z]\d{0,2}-\d{2}$/;

export type NamedTest = { readonly file: string; readonly name: string };

export type Row = {
  readonly line: number;
  readonly id: string;
  readonly feature: string;
  readonly proof: string;
  readonly tests: readonly NamedTest[];
};

export type Table = { readonly rows: readonly Row[]; readonly complaints: readonly string[] };

/** Reads the table out of the README's text, with all that is wrong in its form. */
export function readTable(readme: string): Table {
  const lines = readme.split('\n');
  const head = lines.findIndex((line) => cells(line).join('|').toLowerCase() === COLUMNS.join('|'));
  if (head === -1) return { rows: [], complaints: [`README.md has no table with the columns | ${COLUMNS.join(' | ')} |`] };
  const rows: Row[] = [];
  const complaints: string[] = [];
  for (let at = head + 2; at < lines.length && (lines[at] ?? '').trim().startsWith('|'); at += 1) {
    const where = `README.md:${at + 1}`;
    const [id = '', feature = '', proof = '', test = '', waits] = cells(lines[at] ?? '');
    if (waits === undefined) complaints.push(`${where}: the row has fewer than ${COLUMNS.length} cells`);
    if (!ID.test(id)) complaints.push(`${where}: "${id}" is not the id of a feature, such as A1-01`);
    if (rows.some((row) => row.id === id)) complaints.push(`${where}: ${id} stands in the table twice`);
    if (feature === '') complaints.push(`${where}: ${id} does not say what the feature is`);
    const unknown = proof.split(/[\s,]+/).filter((code) => !PROOFS.includes(code));
    if (unknown.length > 0) complaints.push(`${where}: ${id} has the proof "${proof}"; known codes are ${PROOFS.join(' ')}`);
    const tests: NamedTest[] = [];
    for (const named of test.split(/<br\s*\/?>/).map((text) => text.trim().replaceAll('`', '')).filter((text) => text !== '')) {
      const [file, ...name] = named.split('›').map((part) => part.trim());
      if (file === undefined || name.length === 0 || name.join('') === '') complaints.push(`${where}: ${id} names "${named}", which is not of the form path › test name`);
      else tests.push({ file, name: name.join(' › ') });
    }
    if (tests.length === 0) complaints.push(`${where}: ${id} names no test`);
    rows.push({ line: at + 1, id, feature, proof, tests });
  }
  if (rows.length === 0) complaints.push('README.md has a table of features without a row');
  return { rows, complaints };
}

/** What is wrong with the files that the table names. */
export function judgeFiles(table: Table, exists: (file: string) => boolean): readonly string[] {
  return table.rows.flatMap((row) => row.tests
    .filter((test) => !test.file.endsWith('.spec.ts') || !exists(test.file))
    .map((test) => `README.md:${row.line}: ${row.id} names ${test.file}, which is no spec of ours`));
}

/** What is wrong with the tests that the table names, given how all tests ended. */
export function judgeResults(table: Table, results: readonly TestResult[]): readonly string[] {
  return table.rows.flatMap((row) => row.tests.flatMap((test) => {
    const said = `README.md:${row.line}: ${row.id} claims what "${test.file} › ${test.name}" shows, but that test`;
    const named = results.filter((result) => result.file === test.file && goesBy(test.name, result.path));
    if (named.length === 0) return [`${said} did not run or does not exist`];
    const ends = new Set(named.map((result) => result.end));
    if (ends.has('failed')) return [`${said} failed`];
    if (ends.has('skipped')) return [`${said} was skipped`];
    return [];
  }));
}

function goesBy(name: string, path: readonly string[]): boolean {
  const loose = (text: string): string => text.replace(/\s+/g, ' ').trim();
  return [path.at(-1) ?? '', path.join(' > '), path.join(' › '), path.join(' ')].some((form) => loose(form) === loose(name));
}

/** Cells of a row; `\|` within a cell is a bar, as in GitHub's Markdown. */
function cells(line: string): readonly string[] {
  const trimmed = line.trim();
  if (!trimmed.startsWith('|') || !trimmed.endsWith('|')) return [];
  return trimmed.slice(1, -1).split(/(?<!\\)\|/).map((cell) => cell.replaceAll('\\|', '|').trim());
}

if (import.meta.main) {
  const readme = join(REPOSITORY, 'README.md');
  const table = readTable(existsSync(readme) ? readFileSync(readme, 'utf8') : '');
  const complaints = [...table.complaints, ...judgeFiles(table, (file) => existsSync(join(REPOSITORY, file)))];
  if (process.argv.includes('--results')) {
    const results = LEVELS.flatMap((level) => {
      const file = resultsFile(level);
      return existsSync(file) ? readReport(readFileSync(file, 'utf8'), REPOSITORY).tests : [];
    });
    complaints.push(...judgeResults(table, results));
  }
  if (complaints.length > 0) {
    console.log(complaints.join('\n'));
    console.log('\nA row claims only what a test that ran has shown. Mend the test, name the right one, or take the row out.');
    process.exitCode = 1;
  } else {
    console.log(`${table.rows.length} features, each with a test${process.argv.includes('--results') ? ' that passed' : ''}.`);
  }
}
