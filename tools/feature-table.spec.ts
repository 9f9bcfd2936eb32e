import { describe, expect, it } from 'vitest';
import { judgeFiles, judgeResults, readTable } from './feature-table.ts';
import type { TestEnd, TestResult } from './test-results.ts';

const SPEC = 'e2e/first-vm.spec.ts';
const readme = (...rows: readonly string[]): string =>
  ['# Chronovirt', '', '| id | feature | proof | test | what waits |', '|---|---|---|---|---|', ...rows, '', 'After the table.'].join('\n');
const row = (test: string, id = 'A1-01'): string => `| ${id} | a VM on KVM/QEMU | T G L | ${test} | the console |`;
const ran = (end: TestEnd, path: readonly string[] = ['a first VM', 'boots']): TestResult => ({ file: SPEC, path, end });

const GOOD = readTable(readme(row(`\`${SPEC} › a first VM > boots\``)));

describe('the table of features', () => {
  it('is read row by row', () => {
    expect(GOOD).toEqual({
      complaints: [],
      rows: [{ line: 5, id: 'A1-01', feature: 'a VM on KVM/QEMU', proof: 'T G L', tests: [{ file: SPEC, name: 'a first VM > boots' }] }],
    });
  });

  it('may name several tests in a row', () => {
    expect(readTable(readme(row(`${SPEC} › boots<br>${SPEC} › answers ping`))).rows[0]?.tests).toHaveLength(2);
  });

  it.each([
    ['is missing', '# Chronovirt', 'no table'],
    ['has no row', readme(), 'without a row'],
    ['has a row without a test', readme(row('')), 'names no test'],
    ['has a row that names a file alone', readme(row(SPEC)), 'not of the form'],
    ['has an id twice', readme(row(`${SPEC} › boots`), row(`${SPEC} › boots`)), 'twice'],
    ['has an unknown proof', readme(`| A1-01 | a VM | T Q | ${SPEC} › boots | |`), 'known codes'],
    ['has a row that is too short', readme(`| A1-01 | a VM | T | ${SPEC} › boots |`), 'fewer than 5 cells'],
    ['has an id that is none', readme(row(`${SPEC} › boots`, 'VM')), 'not the id'],
  ])('is refused when it %s', (_what, text, complaint) => {
    expect(readTable(text).complaints.join('\n')).toContain(complaint);
  });
});

describe('a row', () => {
  it('whose test passed stands', () => {
    expect(judgeFiles(GOOD, () => true)).toEqual([]);
    expect(judgeResults(GOOD, [ran('passed')])).toEqual([]);
  });

  it('may name the test alone, without its describes', () => {
    expect(judgeResults(readTable(readme(row(`${SPEC} › boots`))), [ran('passed')])).toEqual([]);
  });

  it('whose file is gone falls', () => {
    expect(judgeFiles(GOOD, () => false)).toEqual([expect.stringContaining(`A1-01 names ${SPEC}`)]);
  });

  it.each([
    ['failed', [ran('failed')], 'failed'],
    ['was skipped', [ran('skipped')], 'was skipped'],
    ['has another name by now', [ran('passed', ['a first VM', 'boots at once'])], 'does not exist'],
    ['is in another file', [{ ...ran('passed'), file: 'e2e/second-vm.spec.ts' }], 'does not exist'],
    ['did not run', [], 'did not run'],
    ['was skipped in one of two places', [ran('passed'), ran('skipped')], 'was skipped'],
  ] as const)('whose test %s falls', (_what, results, because) => {
    expect(judgeResults(GOOD, results)).toEqual([expect.stringContaining(because)]);
  });
});
