import { describe, expect, it } from 'vitest';
import { add, closingLine, judgeLevel, readReport } from './test-results.ts';

const file = (name: string, status: string, ...tests: readonly (readonly [string, string])[]): unknown => ({
  name: `/repo/${name}`, status, message: status === 'failed' ? 'Cannot find module' : '',
  assertionResults: tests.map(([title, end]) => ({ ancestorTitles: ['a vm'], title, status: end, fullName: `a vm ${title}` })),
});
const report = (...files: readonly unknown[]) => readReport(JSON.stringify({ testResults: files }), '/repo');
const well = { ok: true, because: '' };

describe('a report', () => {
  it('is counted test by test', () => {
    const results = report(file('a.spec.ts', 'passed', ['starts', 'passed'], ['stops', 'skipped'], ['sings', 'todo']), file('b.spec.ts', 'failed', ['dies', 'failed']));
    expect(results).toMatchObject({ passed: 1, failed: 1, skipped: 2, brokenFiles: [] });
    expect(results.tests[0]).toEqual({ file: 'a.spec.ts', path: ['a vm', 'starts'], end: 'passed' });
  });

  it('with a file that could not be imported has a failure', () => {
    expect(report(file('a.spec.ts', 'failed'))).toMatchObject({ passed: 0, failed: 1, brokenFiles: [{ file: 'a.spec.ts' }] });
  });

  it('with an unknown end is not believed', () => {
    expect(() => report(file('a.spec.ts', 'passed', ['starts', 'perhaps']))).toThrow('perhaps');
  });

  it('that is no report is not believed', () => {
    expect(() => readReport('{}', '/repo')).toThrow(TypeError);
  });
});

describe('a level', () => {
  it('with a passed test is well', () => {
    expect(judgeLevel(report(file('a.spec.ts', 'passed', ['starts', 'passed'])), well)).toEqual({ passed: 1, failed: 0, skipped: 0, because: '' });
  });

  it('without any test has failed', () => {
    expect(judgeLevel(report(), { ok: false, because: 'exit code 1' })).toMatchObject({ failed: 1, because: 'no test ran' });
    expect(judgeLevel(report(), well)).toEqual({ passed: 0, failed: 1, skipped: 0, because: 'no test ran' });
  });

  it('whose tests were all skipped has failed', () => {
    expect(judgeLevel(report(file('a.spec.ts', 'passed', ['starts', 'skipped'])), well)).toEqual({ passed: 0, failed: 1, skipped: 1, because: 'no test ran' });
  });

  it('without a report has failed', () => {
    expect(judgeLevel(undefined, { ok: false, because: 'ended by SIGKILL' })).toMatchObject({ failed: 1, because: 'no results: ended by SIGKILL' });
  });

  it('whose program did not end well has failed, though every test passed', () => {
    expect(judgeLevel(report(file('a.spec.ts', 'passed', ['starts', 'passed'])), { ok: false, because: 'exit code 1' })).toMatchObject({ passed: 1, failed: 1 });
  });
});

it('the closing line has one form', () => {
  expect(closingLine(add({ passed: 3, failed: 0, skipped: 1 }, { passed: 4, failed: 2, skipped: 0 }))).toBe('7 passed, 2 failed, 1 skipped');
});
