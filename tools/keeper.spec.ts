import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { isAlive, startProgram, until } from './child.ts';
import { locate, makeFolders, type Home } from './home.ts';
import { clearUp, leftBehind, run, tell } from './keeper-client.ts';
import { shorten, type Part, type PartState } from './keeper.ts';

let home: Home;
const started: number[] = [];

beforeEach(async () => {
  home = locate(mkdtempSync(join(tmpdir(), 'cv-keeper-')));
  makeFolders(home, { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0, name: 'test' });
  await startKeeper();
});

afterEach(() => {
  for (const pid of started.splice(0)) {
    try {
      process.kill(pid, 'SIGKILL');
    } catch {
      // gone already
    }
  }
  rmSync(home.dir, { recursive: true, force: true });
});

async function startKeeper(): Promise<number> {
  const child = startProgram({ command: process.execPath, args: [join(import.meta.dirname, 'keeper.ts'), join(home.sockets, 'keeper.sock'), join(home.run, 'parts.json'), home.logs], logFile: join(home.logs, 'keeper.log') });
  if (child.pid === undefined) throw new Error('no keeper');
  started.push(child.pid);
  expect(await until(async () => (await tell(home, { do: 'list' })) !== undefined, { withinMs: 5_000 })).toBe(true);
  return child.pid;
}

const sleeper = (name: string): Part => ({ name, program: { command: '/bin/sleep', args: ['1000'], logFile: join(home.logs, `${name}.log`) }, stopSignals: [['SIGTERM', 2_000], ['SIGKILL', 1_000]] });

const stateOf = async (name: string): Promise<PartState | undefined> => {
  const state = (await tell(home, { do: 'list' }))?.parts.find((part) => part.name === name);
  if (state?.pid !== undefined) started.push(state.pid);
  return state;
};

const always = (): Promise<boolean> => Promise.resolve(true);

describe('the keeper', () => {
  it('starts a part again when it is killed, and says how it ended', async () => {
    await run(home, sleeper('a'), always, 1_000);
    const first = await stateOf('a');
    process.kill(first?.pid ?? 0, 'SIGKILL');
    expect(await until(async () => (await stateOf('a'))?.restarts === 1, { withinMs: 3_000 })).toBe(true);
    const second = await stateOf('a');
    expect(second).toMatchObject({ state: 'running', lastEnd: 'SIGKILL' });
    expect(second?.pid).not.toBe(first?.pid);
  });

  it('does not start a part twice, and does not start again what was stopped', async () => {
    await run(home, sleeper('a'), always, 1_000);
    const { pid } = (await stateOf('a')) ?? {};
    await run(home, sleeper('a'), always, 1_000);
    expect((await stateOf('a'))?.pid).toBe(pid);
    expect(await tell(home, { do: 'stop', name: 'a' })).toMatchObject({ ok: true, parts: [] });
    expect(isAlive(pid ?? 0)).toBe(false);
  });

  it('does not leave while a part runs', async () => {
    await run(home, sleeper('a'), always, 1_000);
    expect(await tell(home, { do: 'end' })).toMatchObject({ ok: false, because: 'still running: a' });
    await tell(home, { do: 'stop', name: 'a' });
    expect(await tell(home, { do: 'end' })).toMatchObject({ ok: true });
    expect(await until(async () => (await tell(home, { do: 'list' })) === undefined, { withinMs: 2_000 })).toBe(true);
  });

  it('says what failed when a part ends again and again', async () => {
    const failing: Part = { ...sleeper('bad'), program: { command: '/bin/false', args: [], logFile: join(home.logs, 'bad.log') } };
    await expect(run(home, failing, () => Promise.resolve(false), 8_000)).rejects.toThrow(/could not start bad: it ended 3 times, last with code 1/);
  });

  it('killed, leaves a record by which the next start ends its children and no stranger', async () => {
    await run(home, sleeper('a'), always, 1_000);
    const { pid } = (await stateOf('a')) ?? {};
    const keeper = (await tell(home, { do: 'list' }))?.keeper ?? 0;
    process.kill(keeper, 'SIGKILL');
    expect(await until(() => !isAlive(keeper), { withinMs: 2_000 })).toBe(true);
    expect(isAlive(pid ?? 0)).toBe(true);
    expect(leftBehind(home).map((one) => one.name)).toEqual(['a']);

    // The same number with another birth is somebody else.
    const file = join(home.run, 'parts.json');
    const record = readFileSync(file, 'utf8');
    writeFileSync(file, record.replace(/"birth":"\d+","stopSignals"/, '"birth":"1","stopSignals"'));
    expect(leftBehind(home)).toEqual([]);
    writeFileSync(file, record);

    expect(await clearUp(home)).toEqual(['a']);
    expect(isAlive(pid ?? 0)).toBe(false);
  });

  it('told to end by a signal, ends its parts first', async () => {
    await run(home, sleeper('a'), always, 1_000);
    const { pid } = (await stateOf('a')) ?? {};
    const keeper = (await tell(home, { do: 'list' }))?.keeper ?? 0;
    process.kill(keeper, 'SIGTERM');
    expect(await until(() => !isAlive(keeper), { withinMs: 4_000 })).toBe(true);
    expect(isAlive(pid ?? 0)).toBe(false);
  });
});

it('a log that grew too long is set aside, and its writer goes on at the beginning', () => {
  const log = join(home.logs, 'long.log');
  const writer = openSync(log, 'a');
  writeSync(writer, 'the first line\n');
  shorten(log);
  expect(readFileSync(log, 'utf8')).toBe('the first line\n');
  truncateSync(log, 9 * 1024 * 1024);
  shorten(log);
  writeSync(writer, 'the next line\n');
  closeSync(writer);
  expect(readFileSync(log, 'utf8')).toBe('the next line\n');
  expect(statSync(`${log}.1`).size).toBe(9 * 1024 * 1024);
});
