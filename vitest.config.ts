/*
 * One project for each level of test, told apart by the file's name.
 *
 * A level says what a test needs: nothing (`*.spec.ts`), a real Postgres, a real bus, a real
 * libvirt, virtual time, or the whole stack. `npm run check` runs the first; `npm test` runs
 * all, one after another, so that a slow level never takes the two cores away from a quick
 * one that measures time.
 *
 * Source is run, never `dist`: the export condition `chronovirt-source` says so, and it must
 * be told twice, to Vite for what it transforms (`resolve`) and for what runs on Node (`ssr`).
 * Decorators are the legacy ones that Nest needs. This is said here too, since the compiler
 * inside Vite asks the tsconfig that includes a file, and specs are in none that is built.
 */
import { defineConfig } from 'vitest/config';
import type { TestProjectConfiguration } from 'vitest/config';

const CONDITIONS = ['chronovirt-source', 'node', 'import', 'module', 'default'];
const PACKAGES = '{libs,services,tools,bench,web,cli}';
const ANYWHERE = '{libs,services,tools,bench,web,cli,e2e}';
const OTHER_LEVELS = '**/*.{pg,nats,libvirt,sim,crash}.spec.ts';
const IGNORED = ['**/node_modules/**', '**/dist/**', '**/.nx/**', '**/.chronovirt/**'];

type Level = {
  readonly name: string;
  readonly include: readonly string[];
  readonly exclude?: readonly string[];
  /** Whether `tools/vitest-servers.ts` starts Postgres and nats-server for it. */
  readonly servers: boolean;
  readonly testTimeoutMs: number;
  readonly hookTimeoutMs: number;
  /** Files at once. Two cores: a level that owns the machine takes one. */
  readonly workersMax: number;
};

const suffixed = (level: string): readonly string[] => [`${ANYWHERE}/**/*.${level}.spec.ts`];

const LEVELS: readonly Level[] = [
  {
    name: 'pure',
    include: [`${PACKAGES}/**/*.spec.ts`],
    exclude: [OTHER_LEVELS],
    servers: false, testTimeoutMs: 10_000, hookTimeoutMs: 10_000, workersMax: 2,
  },
  { name: 'pg', include: suffixed('pg'), servers: true, testTimeoutMs: 30_000, hookTimeoutMs: 60_000, workersMax: 2 },
  { name: 'nats', include: suffixed('nats'), servers: true, testTimeoutMs: 30_000, hookTimeoutMs: 60_000, workersMax: 2 },
  { name: 'libvirt', include: suffixed('libvirt'), servers: true, testTimeoutMs: 120_000, hookTimeoutMs: 120_000, workersMax: 2 },
  { name: 'sim', include: suffixed('sim'), servers: false, testTimeoutMs: 300_000, hookTimeoutMs: 60_000, workersMax: 2 },
  { name: 'crash', include: suffixed('crash'), servers: true, testTimeoutMs: 600_000, hookTimeoutMs: 180_000, workersMax: 1 },
  {
    name: 'e2e',
    include: ['e2e/**/*.spec.ts'],
    exclude: [OTHER_LEVELS],
    // Each file has a platform and a node of its own, and waits for guests most of the time.
    servers: true, testTimeoutMs: 300_000, hookTimeoutMs: 300_000, workersMax: 3,
  },
];

function project(level: Level, position: number): TestProjectConfiguration {
  return {
    resolve: { conditions: CONDITIONS },
    // These are handed to Node as they stand, for `require` too: an 'import' among them would give ES modules to CommonJS packages.
    ssr: { resolve: { conditions: ['chronovirt-source', 'node'], externalConditions: ['chronovirt-source', 'node'] } },
    oxc: { decorator: { legacy: true, emitDecoratorMetadata: false }, assumptions: { setPublicClassFields: true } },
    test: {
      name: level.name,
      include: [...level.include],
      exclude: [...IGNORED, ...(level.exclude ?? [])],
      environment: 'node',
      pool: 'forks',
      execArgv: ['--conditions=chronovirt-source'],
      maxWorkers: level.workersMax,
      testTimeout: level.testTimeoutMs,
      hookTimeout: level.hookTimeoutMs,
      // A test that passes at the second try is a bug with a name, in docs/flakes.md.
      retry: 0,
      // Levels of different width run one after another, in this order.
      sequence: { groupOrder: position },
      ...(level.servers ? { globalSetup: ['tools/vitest-servers.ts'] } : {}),
    },
  };
}

export default defineConfig({
  test: {
    projects: LEVELS.map(project),
    // A level that found no file is a failure, which tools/test.ts also says in words.
    passWithNoTests: false,
    teardownTimeout: 60_000,
    allowOnly: process.env['CI'] === undefined,
  },
});
