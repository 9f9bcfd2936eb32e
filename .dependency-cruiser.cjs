/*
 * Who may know whom. `npm run check` asks these rules about every import, type imports too,
 * and `tools/boundaries.spec.ts` plants a violation of each and sees the command fail.
 *
 *   web ─▶ contracts ◀─ services ─▶ event-log, messaging, libvirt, observability ─▶ contracts, decider
 *
 * The core is every file of a service whose name carries no impure suffix. It can be tested
 * by calling it, because it imports nothing that touches the world. What imports cannot show
 * (the clock, chance, the environment) is ESLint's part: see eslint.config.mjs.
 *
 * A rule is silently never asked about an import that does not resolve. Hence the first two
 * rules, and the `conditionNames` at the end: without them packages that use "exports" do not
 * resolve, or resolve to what was built yesterday instead of to source.
 */
'use strict';

const { builtinModules } = require('node:module');

const SPEC = '\\.spec\\.ts$';
const IMPURE_SUFFIX = '\\.(http|graphql|rpc|consumer|projection|store|os)\\.ts$|/src/(main|service|config|metrics)\\.ts$';
const ADAPTER_LIBRARIES = '^libs/(event-log|messaging|libvirt|observability)/';

// Test code: specs, what they are written with (`testing-*.ts`), the simulated world, journeys, benchmarks.
const TEST_CODE = `${SPEC}|/testing-[^/]+\\.ts$|^(libs/simulation|e2e|bench)/|^libs/decider/src/(scenario|saga-property)\\.ts$`;
const TEST_PACKAGES = '(^|/)node_modules/(vitest|@vitest|fast-check)/';
const MAY_TEST = `${TEST_CODE}|^tools/|^vitest\\.config\\.ts$`;

const NPM = '(^|/)node_modules/';
const NODE = `^(node:)?(${builtinModules.map((name) => name.replace(/^node:/, '')).join('|')})$`;

/** @type {import('dependency-cruiser').IConfiguration} */
module.exports = {
  forbidden: [
    {
      name: 'everything-resolves',
      comment: 'Name a file or a package that exists, and put the package into the package.json of whoever imports it: no rule can be asked about an import that leads nowhere.',
      severity: 'error',
      from: {},
      to: { couldNotResolve: true },
    },
    {
      name: 'source-comes-from-source',
      comment: 'Import @chronovirt/<package>/<file>, never what the compiler wrote.',
      severity: 'error',
      from: {},
      to: { path: '^(libs|services)/[^/]+/dist/' },
    },
    {
      name: 'no-cycles',
      comment: 'Move what both need into the file that owns it; two files that need each other are one file, or three.',
      severity: 'error',
      from: {},
      to: { circular: true },
    },
    {
      name: 'contracts-know-only-zod',
      comment: 'What crosses a process is a schema. Behaviour lives with the service that owns it.',
      severity: 'error',
      from: { path: '^libs/contracts/src/', pathNot: SPEC },
      to: { pathNot: ['^libs/contracts/src/', '(^|/)node_modules/zod/'] },
    },
    {
      name: 'decider-knows-nothing',
      comment: 'libs/decider imports nothing. What it needs, such as ids and the time, is handed in.',
      severity: 'error',
      from: { path: '^libs/decider/src/', pathNot: SPEC },
      to: { pathNot: '^libs/decider/src/' },
    },
    {
      name: 'libs-do-not-know-services',
      comment: 'Libraries carry; services decide. Hand the behaviour in as a function. (The simulation, which only tests use, plays the services.)',
      severity: 'error',
      from: { path: '^libs/', pathNot: '^libs/simulation/' },
      to: { path: '^services/' },
    },
    {
      name: 'services-do-not-know-each-other',
      comment: 'Services meet through contracts: send a command, or follow events.',
      severity: 'error',
      from: { path: '^services/([^/]+)/' },
      to: { path: '^services/', pathNot: '^services/$1/' },
    },
    {
      name: 'the-core-is-pure',
      comment: 'A file without an impure suffix imports no npm package but zod, and no node: module. Move the effect into a .http, .graphql, .rpc, .consumer, .projection, .store or .os file and hand the value in.',
      severity: 'error',
      from: { path: '^services/[^/]+/src/', pathNot: [IMPURE_SUFFIX, SPEC] },
      to: { path: [NPM, NODE], pathNot: '(^|/)node_modules/zod/' },
    },
    {
      name: 'the-core-reaches-no-adapter',
      comment: 'The core does not call what touches the world; that calls the core. Types are excepted.',
      severity: 'error',
      from: { path: '^services/[^/]+/src/', pathNot: [IMPURE_SUFFIX, SPEC] },
      to: { path: [IMPURE_SUFFIX, ADAPTER_LIBRARIES], dependencyTypesNot: ['type-only'] },
    },
    {
      name: 'only-tests-import-test-code',
      comment: 'What runs in production must not need what proves it.',
      severity: 'error',
      from: { pathNot: MAY_TEST },
      to: { path: [TEST_CODE, TEST_PACKAGES] },
    },
  ],
  options: {
    doNotFollow: { path: [NPM, '(^|/)dist/'] },
    tsPreCompilationDeps: 'specify',
    tsConfig: { fileName: 'tsconfig.check.json' },
    combinedDependencies: true,
    enhancedResolveOptions: {
      exportsFields: ['exports'],
      conditionNames: ['chronovirt-source', 'types', 'node', 'import', 'default'],
      extensions: ['.ts', '.mts', '.js', '.mjs', '.cjs', '.json', '.d.ts'],
      mainFields: ['module', 'main', 'types', 'typings'],
    },
  },
};
