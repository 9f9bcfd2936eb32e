/* Talking to the keeper, starting one, and clearing up after one that died. */
import { existsSync, readFileSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { birthOf, startProgram, stopPid, until, untilReady } from './child.ts';
import { REPOSITORY, type Home } from './home.ts';
import type { Answer, KeptProcess, Order, Part } from './keeper.ts';

const socketOf = (home: Home): string => join(home.sockets, 'keeper.sock');
const recordOf = (home: Home): string => join(home.run, 'parts.json');
const READY_WITHIN_MS = 10_000;
const ANSWER_WITHIN_MS = 90_000; // ending Postgres may take its 40 s

/** Gives one order; undefined when there is no keeper. */
export function tell(home: Home, order: Order): Promise<Answer | undefined> {
  const path = socketOf(home);
  if (!existsSync(path)) return Promise.resolve(undefined);
  return new Promise((resolve, reject) => {
    const socket = connect(path);
    let text = '';
    socket.setEncoding('utf8');
    socket.setTimeout(ANSWER_WITHIN_MS, () => socket.destroy(new Error('the keeper does not answer')));
    socket.once('error', (error: NodeJS.ErrnoException) => (error.code === 'ECONNREFUSED' || error.code === 'ENOENT' ? resolve(undefined) : reject(error)));
    socket.once('connect', () => socket.write(`${JSON.stringify(order)}\n`));
    socket.on('data', (more: string) => (text += more));
    socket.once('end', () => (text === '' ? resolve(undefined) : resolve(JSON.parse(text) as Answer)));
  });
}

/** The keeper that runs, or a new one. Only under the installation's lock. */
export async function ensureKeeper(home: Home): Promise<void> {
  if (await tell(home, { do: 'list' })) return;
  await clearUp(home);
  const logFile = join(home.logs, 'keeper.log');
  const child = startProgram({
    command: process.execPath,
    args: [...SMALL, join(REPOSITORY, 'tools/dist/keeper.js'), socketOf(home), recordOf(home), home.logs],
    logFile,
    env: { PATH: process.env['PATH'], LANG: 'C.UTF-8' },
  });
  child.unref();
  await untilReady(child, 'the keeper', logFile, async () => (await tell(home, { do: 'list' })) !== undefined, READY_WITHIN_MS);
}

/** For a process that does next to nothing: a young generation of 1 MiB, and code kept small. */
const SMALL = ['--max-semi-space-size=1', '--max-old-space-size=32', '--optimize-for-size', '--v8-pool-size=1'];

/** What a dead keeper left running. */
export function leftBehind(home: Home): readonly KeptProcess[] {
  if (!existsSync(recordOf(home))) return [];
  try {
    const { processes } = JSON.parse(readFileSync(recordOf(home), 'utf8')) as { processes: readonly KeptProcess[] };
    return processes.filter(isStillThere);
  } catch {
    return [];
  }
}

const isStillThere = (one: KeptProcess): boolean => one.birth !== undefined && birthOf(one.pid) === one.birth;

/** Ends what a dead keeper left running, the last started first. */
export async function clearUp(home: Home): Promise<readonly string[]> {
  const left = leftBehind(home);
  for (const one of [...left].reverse()) {
    if (!(await stopPid(one.pid, () => isStillThere(one), one.stopSignals))) throw new Error(`${one.name} (process ${one.pid}) was left by an earlier start and does not end`);
  }
  rmSync(recordOf(home), { force: true });
  return left.map((one) => one.name);
}

/** Has the keeper run a part and waits until it is ready; throws with the end of its log. */
export async function run(home: Home, part: Part, isReady: () => Promise<boolean>, withinMs: number): Promise<void> {
  const answer = await tell(home, { do: 'start', part });
  if (!answer?.ok) throw new Error(`the keeper did not start ${part.name}: ${answer?.because ?? 'there is none'}`);
  let ends = 0;
  let lastEnd = '';
  const ready = await until(
    async () => {
      if (await isReady().catch(() => false)) return true;
      const state = (await tell(home, { do: 'list' }))?.parts.find((one) => one.name === part.name);
      ends = state?.restarts ?? 0;
      lastEnd = state?.lastEnd ?? lastEnd;
      return ends >= ENDS_MAX;
    },
    { withinMs, everyMs: 25 },
  );
  if (ready && ends < ENDS_MAX) return;
  const how = ends > 0 || lastEnd ? `it ended ${Math.max(ends, 1)} times, last with ${lastEnd}` : `it is not ready after ${Math.round(withinMs / 1000)} s`;
  throw new PartFailed(part, how);
}

const ENDS_MAX = 3;

export class PartFailed extends Error {
  readonly logFile: string;
  constructor(part: Part, how: string) {
    super(`could not start ${part.name}: ${how}`);
    this.name = 'PartFailed';
    this.logFile = part.program.logFile;
  }
}
