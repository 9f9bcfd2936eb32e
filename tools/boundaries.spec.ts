/*
 * A rule that was never seen to fail may be asked about nothing at all: an import that does
 * not resolve, or resolves to another path than the rule expects, passes in silence. So each
 * rule is broken here on purpose, in a copy of today's source, through the same command that
 * `npm run check` runs.
 */
import { cpSync, existsSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync, readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { askBoundaries, sourceFolders } from './boundaries.ts';

const REPOSITORY = join(import.meta.dirname, '..');

type Planted = {
  readonly what: string;
  readonly rule: string;
  readonly file: string;
  readonly source: string;
  readonly to: RegExp;
};

/** What the planted files point at, and what is allowed and must stay so. */
const SCENERY: Readonly<Record<string, string>> = {
  'services/scheduler/src/planted/planted.store.ts': `import { readFileSync } from 'node:fs';\nimport { v7 } from 'uuid';\nexport const read = () => [readFileSync, v7];\n`,
  'services/scheduler/src/planted/target.ts': `import { z } from 'zod';\nexport const target = z.string();\n`,
  'services/scheduler/src/planted/typed.ts': `import type { Carried } from '@chronovirt/event-log/planted-library';\nexport const typed = (carried: Carried): Carried => carried;\n`,
  'services/scheduler/src/planted/planted.spec.ts': `import { it } from 'vitest';\nimport { read } from './planted.store.ts';\nit('reads', () => { read(); });\n`,
  'libs/event-log/src/planted-library.ts': `import { createHash } from 'node:crypto';\nexport type Carried = { readonly hash: string };\nexport const carry = (): Carried => ({ hash: createHash('sha256').digest('hex') });\n`,
  'libs/decider/src/planted-target.ts': `export const nothing = 0;\n`,
  'services/storage/src/planted/forth.ts': `import { back } from './back.ts';\nexport const forth = (): unknown => back;\n`,
  'services/storage/dist/built.js': `export const built = 1;\n`,
};

const PLANTED: readonly Planted[] = [
  {
    what: 'an npm package in the core', rule: 'the-core-is-pure',
    file: 'services/scheduler/src/planted/npm.ts',
    source: `import { v7 } from 'uuid';\nexport const id = v7;\n`, to: /node_modules\/uuid\//,
  },
  {
    what: 'a node: module in the core', rule: 'the-core-is-pure',
    file: 'services/scheduler/src/planted/node-module.ts',
    source: `import { readFileSync } from 'node:fs';\nexport const read = readFileSync;\n`, to: /^(node:)?fs$/,
  },
  {
    what: 'a node: module in the core, by its bare name', rule: 'the-core-is-pure',
    file: 'services/scheduler/src/planted/bare-module.ts',
    source: `import { tmpdir } from 'os';\nexport const folder = tmpdir;\n`, to: /^(node:)?os$/,
  },
  {
    what: 'an import that waits in the core', rule: 'the-core-is-pure',
    file: 'services/scheduler/src/planted/lazily.ts',
    source: `export const read = async () => import('node:fs/promises');\n`, to: /^(node:)?fs\/promises$/,
  },
  {
    what: 'a sibling adapter in the core', rule: 'the-core-reaches-no-adapter',
    file: 'services/scheduler/src/planted/sibling.ts',
    source: `import { read } from './planted.store.ts';\nexport const again = read;\n`,
    to: /^services\/scheduler\/src\/planted\/planted\.store\.ts$/,
  },
  {
    what: 'an adapter library in the core', rule: 'the-core-reaches-no-adapter',
    file: 'services/scheduler/src/planted/library.ts',
    source: `import { carry } from '@chronovirt/event-log/planted-library';\nexport const carried = carry;\n`,
    to: /^libs\/event-log\/src\/planted-library\.ts$/,
  },
  {
    what: 'a service in a service', rule: 'services-do-not-know-each-other',
    file: 'services/ipam/src/planted/neighbour.ts',
    source: `import { target } from '@chronovirt/scheduler/planted/target';\nexport const neighbour = target;\n`,
    to: /^services\/scheduler\/src\/planted\/target\.ts$/,
  },
  {
    what: 'a type of a service in a service', rule: 'services-do-not-know-each-other',
    file: 'services/ipam/src/planted/neighbour-type.ts',
    source: `import type { target } from '@chronovirt/scheduler/planted/target';\nexport type Neighbour = typeof target;\n`,
    to: /^services\/scheduler\/src\/planted\/target\.ts$/,
  },
  {
    what: 'a service in a library', rule: 'libs-do-not-know-services',
    file: 'libs/messaging/src/planted.ts',
    source: `import { target } from '@chronovirt/scheduler/planted/target';\nexport const upwards = target;\n`,
    to: /^services\/scheduler\/src\/planted\/target\.ts$/,
  },
  {
    what: 'a cycle', rule: 'no-cycles',
    // Of a cycle the first file is named, in the order of the alphabet.
    file: 'services/storage/src/planted/back.ts',
    source: `import { forth } from './forth.ts';\nexport const back = (): unknown => forth;\n`,
    to: /^services\/storage\/src\/planted\/forth\.ts$/,
  },
  {
    what: 'another package than zod in contracts', rule: 'contracts-know-only-zod',
    file: 'libs/contracts/src/planted/npm.ts',
    source: `import { v7 } from 'uuid';\nexport const id = v7;\n`, to: /node_modules\/uuid\//,
  },
  {
    what: 'a node: module in contracts', rule: 'contracts-know-only-zod',
    file: 'libs/contracts/src/planted/node-module.ts',
    source: `import { createHash } from 'node:crypto';\nexport const hash = createHash;\n`, to: /^(node:)?crypto$/,
  },
  {
    what: 'another library in contracts', rule: 'contracts-know-only-zod',
    file: 'libs/contracts/src/planted/library.ts',
    source: `import { nothing } from '@chronovirt/decider/planted-target';\nexport const something = nothing;\n`,
    to: /^libs\/decider\/src\/planted-target\.ts$/,
  },
  {
    what: 'zod in the decider', rule: 'decider-knows-nothing',
    file: 'libs/decider/src/planted-zod.ts',
    source: `import { z } from 'zod';\nexport const text = z.string();\n`, to: /node_modules\/zod\//,
  },
  {
    what: 'a node: module in the decider', rule: 'decider-knows-nothing',
    file: 'libs/decider/src/planted-node.ts',
    source: `import { randomUUID } from 'node:crypto';\nexport const id = randomUUID;\n`, to: /^(node:)?crypto$/,
  },
  {
    what: 'a package that does not exist', rule: 'everything-resolves',
    file: 'services/monitor/src/planted.os.ts',
    source: `import { nowhere } from '@chronovirt/contracts/planted/nowhere';\nexport const lost = nowhere;\n`,
    to: /contracts\/planted\/nowhere/,
  },
  {
    what: 'what the compiler wrote', rule: 'source-comes-from-source',
    file: 'services/storage/src/planted/built.ts',
    source: `import { built } from '../../dist/built.js';\nexport const old = built;\n`,
    to: /^services\/storage\/dist\/built\.js$/,
  },
  {
    what: 'a spec in production code', rule: 'only-tests-import-test-code',
    file: 'services/scheduler/src/planted/production.store.ts',
    source: `import './planted.spec.ts';\nexport const production = 1;\n`,
    to: /^services\/scheduler\/src\/planted\/planted\.spec\.ts$/,
  },
  {
    what: 'a test library in production code', rule: 'only-tests-import-test-code',
    file: 'libs/event-log/src/planted-check.ts',
    source: `import { integer } from 'fast-check';\nexport const number = integer;\n`, to: /node_modules\/fast-check\//,
  },
];

type Reported = { readonly from: string; readonly to: string; readonly rule: { readonly name: string; readonly severity: string } };

/** A copy of the source inside the repository, so that npm packages are found by walking up. */
function copySource(): string {
  mkdirSync(join(REPOSITORY, '.nx'), { recursive: true });
  const copy = mkdtempSync(join(REPOSITORY, '.nx/boundaries-'));
  for (const file of ['package.json', 'tsconfig.base.json', 'tsconfig.check.json']) cpSync(join(REPOSITORY, file), join(copy, file));
  for (const folder of sourceFolders(REPOSITORY)) {
    cpSync(join(REPOSITORY, folder), join(copy, folder), {
      recursive: true,
      filter: (path) => !path.includes('/node_modules') && !/\.(?:img|qcow2)$/.test(path),
    });
  }
  mkdirSync(join(copy, 'node_modules/@chronovirt'), { recursive: true });
  for (const group of ['libs', 'services']) {
    for (const name of readdirSync(join(REPOSITORY, group))) {
      const manifest = join(REPOSITORY, group, name, 'package.json');
      if (!existsSync(manifest)) continue;
      mkdirSync(join(copy, group, name), { recursive: true });
      cpSync(manifest, join(copy, group, name, 'package.json'));
      symlinkSync(join(copy, group, name), join(copy, 'node_modules/@chronovirt', name));
    }
  }
  return copy;
}

function plant(copy: string, file: string, source: string): void {
  mkdirSync(dirname(join(copy, file)), { recursive: true });
  writeFileSync(join(copy, file), source);
}

describe('the boundaries', () => {
  it('hold in today\'s source', async () => {
    const { exitCode, output, trouble } = await askBoundaries(REPOSITORY, 'err-long');
    expect(trouble).toBe('');
    expect(output).toContain('no dependency violations found');
    expect(exitCode).toBe(0);
  }, 240_000);

  describe('when each is broken on purpose', () => {
    let copy = '';
    let violations: readonly Reported[] = [];

    beforeAll(async () => {
      copy = copySource();
      for (const [file, source] of Object.entries(SCENERY)) plant(copy, file, source);
      for (const { file, source } of PLANTED) plant(copy, file, source);
      const answer = await askBoundaries(copy, 'json');
      if (answer.output === '') throw new Error(`the command said nothing but: ${answer.trouble}`);
      const report = JSON.parse(answer.output) as { readonly summary: { readonly violations: readonly Reported[] } };
      violations = report.summary.violations;
    }, 240_000);

    afterAll(() => { rmSync(copy, { recursive: true, force: true }); });

    it.each(PLANTED)('$what is found: $rule', ({ rule, file, to }) => {
      const found = violations.filter((violation) => violation.from === file && violation.rule.name === rule && to.test(violation.to));
      expect(found, `the rule ${rule} did not see ${file}`).not.toEqual([]);
      expect(found.map((violation) => violation.rule.severity)).toEqual(found.map(() => 'error'));
    });

    it('what is allowed is left alone', () => {
      const scenery = new Set(Object.keys(SCENERY).filter((file) => !file.startsWith('services/storage/')));
      expect(violations.filter((violation) => scenery.has(violation.from))).toEqual([]);
    });
  });

  it('one violation alone makes the command fail, and says which rule and which file', async () => {
    mkdirSync(join(REPOSITORY, '.nx'), { recursive: true });
    const alone = mkdtempSync(join(REPOSITORY, '.nx/boundaries-'));
    try {
      for (const file of ['package.json', 'tsconfig.base.json', 'tsconfig.check.json']) cpSync(join(REPOSITORY, file), join(alone, file));
      plant(alone, 'services/ipam/src/subnet/subnet.ts', `import { readFileSync } from 'node:fs';\nexport const read = readFileSync;\n`);
      const { exitCode, output } = await askBoundaries(alone, 'err-long');
      expect(exitCode).not.toBe(0);
      expect(output).toContain('the-core-is-pure');
      expect(output).toContain('services/ipam/src/subnet/subnet.ts');
    } finally {
      rmSync(alone, { recursive: true, force: true });
    }
  }, 240_000);
});
