/*
 * A step is a program that either ends well or does not, within a bound of time.
 *
 * `npm run check` and `npm test` are lists of steps. A step's program gets its own process
 * group, so that when it outlives its bound, or when someone presses Ctrl-C, all it started
 * goes with it.
 */
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { join } from 'node:path';

export const REPOSITORY = join(import.meta.dirname, '..');

export type Step = {
  readonly name: string;
  /** Program and arguments. */
  readonly command: readonly [string, ...string[]];
  readonly environment?: Readonly<Record<string, string>>;
  readonly withinMs: number;
  /** Shown while it runs, or kept until it fails. */
  readonly output: 'live' | 'kept';
};

export type StepEnd = {
  readonly name: string;
  readonly ok: boolean;
  readonly tookMs: number;
  /** What it said, unless it was shown already. */
  readonly output: string;
  /** Why it is not ok, in words. */
  readonly because: string;
};

const GRACE_MS = 20_000;
const OUTPUT_MAX_BYTES = 4 * 1024 * 1024;

const running = new Set<ChildProcess>();
let stopping = false;

/** Runs the step and answers how it ended. Never throws for what the program does. */
export async function runStep(step: Step): Promise<StepEnd> {
  const startedMs = performance.now();
  if (stopping) return { name: step.name, ok: false, tookMs: 0, output: '', because: 'not begun' };
  const [program, ...args] = step.command;
  return new Promise((resolve) => {
    const child = spawn(program, args, {
      cwd: REPOSITORY,
      env: { ...process.env, ...step.environment },
      stdio: ['ignore', step.output === 'live' ? 'inherit' : 'pipe', step.output === 'live' ? 'inherit' : 'pipe'],
      detached: true,
    });
    running.add(child);
    const chunks: Buffer[] = [];
    let keptBytes = 0;
    const keep = (chunk: Buffer): void => {
      keptBytes += chunk.length;
      if (keptBytes <= OUTPUT_MAX_BYTES) chunks.push(chunk);
    };
    child.stdout?.on('data', keep);
    child.stderr?.on('data', keep);

    let late = false;
    let killer: NodeJS.Timeout | undefined;
    const bound = setTimeout(() => {
      late = true;
      // First the program alone, so that it can stop what it started in order.
      child.kill('SIGTERM');
      killer = setTimeout(() => { signalGroup(child, 'SIGKILL'); }, GRACE_MS);
    }, step.withinMs);

    let ended = false;
    const end = (ok: boolean, because: string): void => {
      if (ended) return;
      ended = true;
      clearTimeout(bound);
      clearTimeout(killer);
      running.delete(child);
      resolve({ name: step.name, ok, because, tookMs: performance.now() - startedMs, output: Buffer.concat(chunks).toString('utf8') });
    };
    child.on('error', (error) => { end(false, `${program} could not be run: ${error.message}`); });
    // 'close' waits for the pipes, which a left-over grandchild may hold open: 'exit' decides,
    // and what was said until a moment later is kept.
    child.on('exit', (code, signal) => {
      setTimeout(() => {
        if (late) signalGroup(child, 'SIGKILL');
        if (late) end(false, `not done within ${seconds(step.withinMs)}`);
        else if (signal !== null) end(false, `ended by ${signal}`);
        else end(code === 0, code === 0 ? '' : `exit code ${code}`);
      }, step.output === 'live' ? 0 : 50);
    });
  });
}

/** Passes Ctrl-C and a polite kill on to what is running, waits for its end a while, and leaves. */
export function passSignalsOn(): void {
  for (const [signal, exitCode] of [['SIGINT', 130], ['SIGTERM', 143], ['SIGHUP', 129]] as const) {
    process.once(signal, () => {
      stopping = true;
      for (const child of running) signalGroup(child, 'SIGTERM');
      const untilMs = performance.now() + GRACE_MS;
      setInterval(() => {
        if (running.size > 0 && performance.now() < untilMs) return;
        for (const child of running) signalGroup(child, 'SIGKILL');
        process.exit(exitCode);
      }, 20);
    });
  }
}

function signalGroup(child: ChildProcess, signal: NodeJS.Signals): void {
  if (child.pid === undefined) return;
  try {
    process.kill(-child.pid, signal);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error; // gone already
  }
}

/** "0.4 s", "12.3 s", "3 min 5 s" */
export function seconds(ms: number): string {
  if (ms < 120_000) return `${(ms / 1000).toFixed(1)} s`;
  const whole = Math.round(ms / 1000);
  return `${Math.floor(whole / 60)} min ${whole % 60} s`;
}

export function sayEnd(end: StepEnd): void {
  if (!end.ok && end.output !== '') console.log(`\n${end.output.trimEnd()}\n`);
  console.log(`${end.ok ? 'ok    ' : 'FAILED'}  ${end.name.padEnd(12)} ${seconds(end.tookMs).padStart(8)}${end.because === '' ? '' : `   ${end.because}`}`);
}
