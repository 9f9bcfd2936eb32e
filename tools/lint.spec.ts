/*
 * Each ban of eslint.config.mjs, broken on purpose in a file of the kind that it protects,
 * and seen to be allowed where it should be. Types are not asked here: the bans are about
 * syntax, and without a program behind it each question takes milliseconds.
 */
import { join } from 'node:path';
import { ESLint } from 'eslint';
import tseslint from 'typescript-eslint';
import { beforeAll, describe, expect, it } from 'vitest';

const REPOSITORY = join(import.meta.dirname, '..');
const CORE = 'services/scheduler/src/vm/vm.ts';
const ADAPTER = 'services/scheduler/src/vm/vm.store.ts';

let eslint: ESLint;

beforeAll(() => {
  eslint = new ESLint({ cwd: REPOSITORY, overrideConfig: [tseslint.configs.disableTypeChecked] });
});

async function lint(file: string, source: string): Promise<readonly string[]> {
  const [result] = await eslint.lintText(source, { filePath: join(REPOSITORY, file) });
  if (result === undefined) throw new Error(`${file} was not linted at all`);
  return result.messages.map((message) => message.message);
}

describe('banned in the core', () => {
  it.each([
    ['the clock', 'export const now = (): number => Date.now();', 'The time comes in with the command'],
    ['today', 'export const now = (): Date => new Date();', 'The time comes in with the command'],
    ['today as text', 'export const now = (): string => Date();', 'The time comes in with the command'],
    ['the fine clock', 'export const now = (): number => performance.now();', 'The time comes in with the command'],
    ['chance', 'export const dice = (): number => Math.random();', 'Ids and chance come in with the command'],
    ['random ids', 'export const id = (): string => crypto.randomUUID();', 'Ids and chance come in with the command'],
    ['the process', 'export const pid = process.pid;', 'The core knows no process'],
    ['the environment', 'export const home = process.env["HOME"];', 'Read the environment in config.ts'],
    ['a timer', 'export const later = (f: () => void): unknown => setTimeout(f, 1);', 'The core has no timers'],
    ['a repeating timer', 'export const often = (f: () => void): unknown => setInterval(f, 1);', 'The core has no timers'],
    ['the network', 'export const get = (): unknown => fetch("http://localhost");', 'The core talks to nobody'],
    ['talking', 'export const say = (): void => { console.log("x"); };', 'The core returns what it has to say'],
    ['the way around', 'export const now = (): number => globalThis.Date.now();', 'hand in what is needed'],
  ])('%s', async (_what, source, instead) => {
    expect((await lint(CORE, source)).join('\n')).toContain(instead);
    expect((await lint('libs/contracts/src/vm/vm.ts', source)).join('\n')).toContain(instead);
  });

  it('a date that was handed in is welcome', async () => {
    expect(await lint(CORE, 'export const day = (at: string): number => new Date(at).getTime();')).toEqual([]);
  });

  it('an executor may wait for the port that it was handed', async () => {
    const source = 'export const run = async (start: () => Promise<number>): Promise<number> => { const n = await start(); return n; };';
    expect(await lint('services/node-agent/src/domain/execute.ts', source)).toEqual([]);
  });

  it('an adapter may ask the clock', async () => {
    expect(await lint(ADAPTER, 'export const now = (): number => Date.now();')).toEqual([]);
  });

  it('a spec may ask the clock', async () => {
    expect(await lint('services/scheduler/src/vm/vm.spec.ts', 'export const now = (): number => Date.now();')).toEqual([]);
  });
});

describe('banned everywhere', () => {
  it.each([
    ['a barrel', "export * from './vm.ts';", 'a barrel hides where a thing lives'],
    ['a named barrel', "export * as vm from './vm.ts';", 'a barrel hides where a thing lives'],
    ['an enum', 'export enum Status { Running, Stopped }', 'Write a union of strings'],
    ['a shell', "import { exec } from 'node:child_process';\nexport const run = exec;", 'a shell must never read'],
    ['a shell by option', "import { spawn } from 'node:child_process';\nexport const run = (): unknown => spawn('ls', { shell: true });", 'a shell must never read'],
    ['listening to everyone', "export const host = '0.0.0.0';", 'never on all of them'],
  ])('%s', async (_what, source, instead) => {
    for (const file of [CORE, ADAPTER, 'services/scheduler/src/config.ts', 'libs/messaging/src/publish.ts', 'tools/planted.ts']) {
      expect((await lint(file, source)).join('\n'), file).toContain(instead);
    }
  });
});

describe('the environment', () => {
  it.each([
    ['as a property', 'export const url = process.env["CV_NATS_URL"];'],
    ['as a computed property', 'export const url = process["env"]["CV_NATS_URL"];'],
    ['taken apart', 'const { env } = process;\nexport const url = env;'],
    ['by import', "import { env } from 'node:process';\nexport const url = env;"],
  ])('is not read by an adapter, %s', async (_how, source) => {
    for (const file of [ADAPTER, 'services/scheduler/src/service.ts', 'libs/messaging/src/publish.ts']) {
      expect((await lint(file, source)).join('\n'), file).toContain('Read the environment in config.ts');
    }
  });

  it('is read by config.ts and by tools', async () => {
    const source = 'export const url = process.env["CV_NATS_URL"];';
    for (const file of ['services/scheduler/src/config.ts', 'tools/up.ts', 'e2e/journey.spec.ts']) {
      expect(await lint(file, source), file).toEqual([]);
    }
  });
});
