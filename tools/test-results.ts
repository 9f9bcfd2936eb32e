/*
 * What vitest's JSON reports mean.
 *
 * vitest counts only tests that it has met. A file that could not be imported has none, and a
 * run that died wrote no report; both must count as failures, or a broken level would look
 * like an empty one.
 */
export type TestEnd = 'passed' | 'failed' | 'skipped';

export type TestResult = {
  /** Relative to the repository. */
  readonly file: string;
  /** Names of the surrounding describes, then of the test itself. */
  readonly path: readonly string[];
  readonly end: TestEnd;
};

export type Counts = { readonly passed: number; readonly failed: number; readonly skipped: number };

export type LevelResults = Counts & {
  readonly tests: readonly TestResult[];
  /** Files that failed outside of any test, each with what it said. */
  readonly brokenFiles: readonly { readonly file: string; readonly message: string }[];
};

export const NOTHING: Counts = { passed: 0, failed: 0, skipped: 0 };

export const add = (a: Counts, b: Counts): Counts =>
  ({ passed: a.passed + b.passed, failed: a.failed + b.failed, skipped: a.skipped + b.skipped });

/** The closing line of `npm test`, read by machines: its form does not change. */
export const closingLine = (counts: Counts): string =>
  `${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped`;

/** Throws a SyntaxError or TypeError when the text is no report of vitest. */
export function readReport(text: string, root: string): LevelResults {
  const report: unknown = JSON.parse(text);
  const files = list(field(report, 'testResults'));
  const tests: TestResult[] = [];
  const brokenFiles: { file: string; message: string }[] = [];
  for (const entry of files) {
    const name = textField(entry, 'name');
    const file = name.startsWith(`${root}/`) ? name.slice(root.length + 1) : name;
    const own = list(field(entry, 'assertionResults')).map((assertion): TestResult => ({
      file,
      path: [...list(field(assertion, 'ancestorTitles')).map(String), textField(assertion, 'title')].filter((part) => part !== ''),
      end: endOf(textField(assertion, 'status')),
    }));
    tests.push(...own);
    if (field(entry, 'status') === 'failed' && !own.some((test) => test.end === 'failed')) {
      brokenFiles.push({ file, message: textField(entry, 'message') });
    }
  }
  const count = (end: TestEnd): number => tests.filter((test) => test.end === end).length;
  return { tests, brokenFiles, passed: count('passed'), failed: count('failed') + brokenFiles.length, skipped: count('skipped') };
}

/**
 * What a level counts for, and why it is not well. Without a report, or when the program did
 * not end well though every test did, or when no test ran, the level itself is one failure.
 */
export function judgeLevel(results: LevelResults | undefined, ended: { readonly ok: boolean; readonly because: string }): Counts & { readonly because: string } {
  if (results === undefined) return { ...NOTHING, failed: 1, because: `no results: ${ended.because === '' ? 'no report was written' : ended.because}` };
  const counts: Counts = { passed: results.passed, failed: results.failed, skipped: results.skipped };
  if (counts.failed > 0) return { ...counts, because: `${counts.failed} failed` };
  if (counts.passed === 0) return { ...counts, failed: 1, because: 'no test ran' };
  if (!ended.ok) return { ...counts, failed: 1, because: `every test passed, but: ${ended.because}` };
  return { ...counts, because: '' };
}

function endOf(status: string): TestEnd {
  switch (status) {
    case 'passed': return 'passed';
    case 'failed': return 'failed';
    case 'pending': case 'skipped': case 'todo': case 'disabled': return 'skipped';
    default: throw new TypeError(`a test ended as "${status}", which is not known here`);
  }
}

function field(value: unknown, name: string): unknown {
  if (typeof value !== 'object' || value === null) throw new TypeError(`expected an object with "${name}"`);
  return (value as Readonly<Record<string, unknown>>)[name];
}

function textField(value: unknown, name: string): string {
  const text = field(value, name);
  if (typeof text !== 'string') throw new TypeError(`expected "${name}" to be text`);
  return text;
}

function list(value: unknown): readonly unknown[] {
  if (!Array.isArray(value)) throw new TypeError('expected a list');
  return value;
}
