/* Starting, awaiting and ending the programs that we did not write. */
import { spawn, type ChildProcess } from 'node:child_process';
import { closeSync, fstatSync, openSync, readdirSync, readFileSync, readlinkSync, readSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { runAs, type Identity } from './identity.ts';

export interface Program {
  readonly command: string;
  readonly args: readonly string[];
  readonly as?: Identity;
  readonly cwd?: string;
  readonly env?: NodeJS.ProcessEnv;
  /** Standard output and error are appended here. A file, not a pipe: whoever started it may die without breaking it. */
  readonly logFile: string;
  /** In a process group of its own, so that a Ctrl-C on the terminal reaches only the supervisor, who ends things in order. */
  readonly detached?: boolean;
}

/** What to send to end a program, and how long to wait after each, in milliseconds. */
export type StopSignals = readonly (readonly [NodeJS.Signals, number])[];

export function startProgram(program: Program): ChildProcess {
  const log = openSync(program.logFile, 'a', 0o600);
  try {
    const child = spawn(program.command, program.args, {
      cwd: program.cwd ?? '/',
      env: program.env ?? { PATH: process.env['PATH'], LANG: 'C.UTF-8' },
      stdio: ['ignore', log, log],
      detached: program.detached ?? true,
      ...(program.as ? runAs(program.as) : {}),
    });
    // Without a listener a missing program would be an uncaught exception; whoever waits for it sees the end instead.
    child.on('error', () => {});
    return child;
  } finally {
    closeSync(log);
  }
}

export const hasEnded = (child: ChildProcess): boolean => child.pid === undefined || child.exitCode !== null || child.signalCode !== null;

/** Ends a child: each signal in turn, waiting that many milliseconds after it. */
export async function stopProgram(child: ChildProcess, signals: StopSignals): Promise<void> {
  for (const [signal, waitMs] of signals) {
    if (hasEnded(child)) return;
    child.kill(signal);
    if (await until(() => hasEnded(child), { withinMs: waitMs })) return;
  }
}

/** The same for a process that is no child of ours. `isStillIt` guards against a number that was given away again. */
export async function stopPid(pid: number, isStillIt: () => boolean, signals: StopSignals): Promise<boolean> {
  for (const [signal, waitMs] of signals) {
    if (!isStillIt()) return true;
    try {
      process.kill(pid, signal);
    } catch {
      return true;
    }
    if (await until(() => !isStillIt(), { withinMs: waitMs })) return true;
  }
  return !isStillIt();
}

/** Polls until `condition` holds; false when time is up. Faults of the condition count as "not yet". */
export async function until(condition: () => boolean | Promise<boolean>, { withinMs, everyMs = 10 }: { withinMs: number; everyMs?: number }): Promise<boolean> {
  const deadline = performance.now() + withinMs;
  for (;;) {
    try {
      if (await condition()) return true;
    } catch {
      // not yet
    }
    if (performance.now() >= deadline) return false;
    await sleep(everyMs);
  }
}

/** Waits until the child answers; when it ends or time is up, says so with the end of its log. */
export async function untilReady(child: ChildProcess, what: string, logFile: string, ready: () => Promise<boolean>, withinMs: number): Promise<void> {
  let failure: Error | undefined;
  child.once('error', (cause) => (failure = cause));
  const answered = await until(async () => hasEnded(child) || (await ready()), { withinMs });
  if (answered && !hasEnded(child)) return;
  const how = failure ? failure.message : hasEnded(child) ? `it ended with ${child.signalCode ?? child.exitCode}` : `no answer within ${withinMs} ms`;
  throw new Error(`could not start ${what}: ${how}${endOf(logFile)}`);
}

/** The last lines of a log, for an error message. */
export function endOf(logFile: string, bytes = 1500): string {
  try {
    const file = openSync(logFile, 'r');
    try {
      const size = fstatSync(file).size;
      const buffer = Buffer.alloc(Math.min(bytes, size));
      readSync(file, buffer, 0, buffer.length, size - buffer.length);
      return buffer.length ? `\n--- the end of ${logFile} ---\n${buffer.toString('utf8').trimEnd()}` : '';
    } finally {
      closeSync(file);
    }
  } catch {
    return '';
  }
}

/**
 * A process id with the moment its process began, as written to pid files: the kernel gives numbers away
 * again, but not the pair. (proc(5): field 22 of /proc/pid/stat, in clock ticks since boot.)
 */
export function birthOf(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    if (fields[0] === 'Z' || fields[0] === 'X') return undefined;
    return fields[19];
  } catch {
    return undefined;
  }
}

export const isAlive = (pid: number): boolean => birthOf(pid) !== undefined;

/** The program a process runs, or undefined when it is gone or hidden. */
export function programOf(pid: number): string | undefined {
  try {
    return readlinkSync(`/proc/${pid}/exe`).replace(/ \(deleted\)$/, '');
  } catch {
    return undefined;
  }
}

/** A process's command line; empty when it is gone or hidden. */
export function argumentsOf(pid: number): readonly string[] {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').slice(0, -1);
  } catch {
    return [];
  }
}

/** The ids of all processes. */
export const processes = (): readonly number[] => readdirSync('/proc').filter((name) => /^\d+$/.test(name)).map(Number);
