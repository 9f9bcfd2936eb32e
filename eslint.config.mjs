/*
 * What imports cannot show.
 *
 * .dependency-cruiser.cjs keeps the core from importing the world; the clock, chance and the
 * environment need no import, so they are fenced here. Every ban says what to do instead.
 * `tools/lint.spec.ts` breaks each on purpose.
 *
 * Rules about layout are left out: where a line breaks is its writer's judgement. Rules that
 * know types are in, since most of what they find (a promise nobody waits for, a `switch` that
 * forgot a case) is what wakes people at night.
 */
import { defineConfig, globalIgnores } from 'eslint/config';
import tseslint from 'typescript-eslint';

const SPECS = ['**/*.spec.ts'];
const OUTSIDE_PRODUCTION = ['tools/**', 'bench/**', 'e2e/**', 'libs/simulation/**', '**/testing-*.ts', '*.config.ts', ...SPECS];
const IMPURE = [
  '**/*.http.ts', '**/*.graphql.ts', '**/*.rpc.ts', '**/*.consumer.ts', '**/*.projection.ts', '**/*.store.ts', '**/*.os.ts',
  'services/*/src/{main,service,config,metrics}.ts',
];

const EVERYWHERE = [
  { selector: 'ExportAllDeclaration', message: 'Name what you export, and let others import it from the file that has it: a barrel hides where a thing lives.' },
  { selector: 'TSEnumDeclaration', message: "Write a union of strings instead, type Status = 'running' | 'stopped': it is what travels and what is stored." },
  { selector: 'ImportDeclaration[source.value=/^node:child_process$|^child_process$/] ImportSpecifier[imported.name=/^exec(Sync)?$/]', message: 'Use spawn or execFile with a list of arguments: a shell must never read what someone sent us.' },
  { selector: "Property[key.name='shell'][value.value=true]", message: 'Pass the program and a list of arguments: a shell must never read what someone sent us.' },
  { selector: "Literal[value='0.0.0.0']", message: 'Listen on the address that the configuration names (127.0.0.1 by default), never on all of them.' },
];

const ENVIRONMENT = [
  { selector: "MemberExpression[object.name='process'][property.name='env'], MemberExpression[object.name='process'][property.value='env']", message: 'Read the environment in config.ts, through the schema, and hand the value in.' },
  { selector: "VariableDeclarator[init.name='process'] Property[key.name='env']", message: 'Read the environment in config.ts, through the schema, and hand the value in.' },
  { selector: "ImportDeclaration[source.value=/^(node:)?process$/] ImportSpecifier[imported.name='env']", message: 'Read the environment in config.ts, through the schema, and hand the value in.' },
];

const TIME = 'The time comes in with the command (meta.at), so that the same question always has the same answer.';
const CHANCE = 'Ids and chance come in with the command, so that the same question always has the same answer.';
const WAITING = 'The core has no timers. Say what shall happen and by when, or let a function that waits be handed in.';

const CORE = [
  { selector: "CallExpression[callee.object.name='Date'][callee.property.name='now']", message: TIME },
  { selector: "NewExpression[callee.name='Date'][arguments.length=0]", message: TIME },
  { selector: "CallExpression[callee.name='Date']", message: TIME },
  { selector: "CallExpression[callee.object.name='Math'][callee.property.name='random']", message: CHANCE },
];

const CORE_GLOBALS = [
  { name: 'process', message: 'The core knows no process. Read the environment in config.ts and hand the value in.' },
  { name: 'performance', message: TIME },
  { name: 'crypto', message: CHANCE },
  { name: 'setTimeout', message: WAITING },
  { name: 'setInterval', message: WAITING },
  { name: 'setImmediate', message: WAITING },
  { name: 'queueMicrotask', message: WAITING },
  { name: 'fetch', message: 'The core talks to nobody. Move the call into an .http or .os file and hand the answer in.' },
  { name: 'console', message: 'The core returns what it has to say. Log where something crosses a boundary.' },
  { name: 'globalThis', message: 'Reach for nothing around you: hand in what is needed.' },
  { name: 'Temporal', message: TIME },
];

export default defineConfig([
  globalIgnores(['**/dist/**', '**/node_modules/**', '.nx/**', '.chronovirt/**', 'coverage/**', '**/*.d.ts', 'toolchain/**', 'docs/**', 'infra/**', '**/*.mjs', '**/*.cjs', '**/*.js']),
  { linterOptions: { reportUnusedDisableDirectives: 'error' } },
  {
    files: ['**/*.ts'],
    extends: [tseslint.configs.recommendedTypeChecked],
    languageOptions: {
      parserOptions: { project: './tsconfig.check.json', tsconfigRootDir: import.meta.dirname },
    },
    rules: {
      'no-restricted-syntax': ['error', ...EVERYWHERE, ...ENVIRONMENT],
      'no-console': 'error',
      'no-warning-comments': ['error', { terms: ['fixme', 'xxx', 'hack'], location: 'start' }],
      eqeqeq: ['error', 'always'],
      'no-eval': 'error',
      'no-param-reassign': 'error',
      'prefer-const': 'error',
      '@typescript-eslint/consistent-type-imports': ['error', { fixStyle: 'separate-type-imports' }],
      '@typescript-eslint/switch-exhaustiveness-check': ['error', { considerDefaultExhaustiveForUnions: true, requireDefaultForNonUnion: false }],
      '@typescript-eslint/no-floating-promises': ['error', {
        // node:test style runners and vitest return promises that nobody has to hold.
        allowForKnownSafeCalls: [{ from: 'package', package: 'vitest', name: ['it', 'test', 'describe'] }],
      }],
      '@typescript-eslint/no-non-null-assertion': 'error',
      '@typescript-eslint/no-explicit-any': 'error',
      '@typescript-eslint/only-throw-error': 'error',
      '@typescript-eslint/return-await': ['error', 'in-try-catch'],
      '@typescript-eslint/no-unused-vars': ['error', { argsIgnorePattern: '^_', varsIgnorePattern: '^_', caughtErrors: 'none', ignoreRestSiblings: true }],
      '@typescript-eslint/restrict-template-expressions': ['error', { allowNumber: true, allowBoolean: true }],
      // An async function without await is how a port with a quick implementation looks.
      '@typescript-eslint/require-await': 'off',
      '@typescript-eslint/no-unsafe-enum-comparison': 'off',
    },
  },
  {
    files: ['**/config.ts', ...OUTSIDE_PRODUCTION],
    rules: { 'no-restricted-syntax': ['error', ...EVERYWHERE] },
  },
  {
    // Programs that people run talk to people.
    files: ['tools/**', 'bench/**', 'e2e/**', '**/main.ts'],
    rules: { 'no-console': 'off' },
  },
  {
    files: SPECS,
    rules: {
      // A spec that asserts too much about a shape fails, which is its purpose.
      '@typescript-eslint/no-non-null-assertion': 'off',
      '@typescript-eslint/no-unsafe-assignment': 'off',
      '@typescript-eslint/no-unsafe-member-access': 'off',
      '@typescript-eslint/no-unsafe-argument': 'off',
      '@typescript-eslint/unbound-method': 'off',
    },
  },
  {
    files: ['services/*/src/**/*.ts', 'libs/contracts/src/**/*.ts', 'libs/decider/src/**/*.ts'],
    ignores: [...IMPURE, ...SPECS],
    rules: {
      'no-restricted-syntax': ['error', ...EVERYWHERE, ...ENVIRONMENT, ...CORE],
      'no-restricted-globals': ['error', ...CORE_GLOBALS],
    },
  },
]);
