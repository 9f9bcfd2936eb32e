/*
 * The keeper: the parent of every part, and nothing else.
 *
 * `npm start` may take the memory it likes, because it ends; what stays for weeks must be small. So
 * the keeper knows no Postgres and no service. It is told on a unix socket (tools/keeper-client.ts)
 * what to run, starts it again when it ends by itself, keeps the logs within bounds, and writes down
 * which processes are its children, so that whoever comes after a dead keeper can end them.
 *
 *   start  {part}   run it, and again whenever it ends
 *   stop   {name}   end it, and answer when it is gone
 *   list            what runs, since when, how often it was started again
 *   end             when no part is left: the keeper goes too
 *
 * A part that ends is started again after 0.25, 0.5, 1, … at most 30 seconds; one that stayed for a
 * minute begins anew. It never gives up: a Postgres whose disk was full for an hour is to come back.
 */
import type { ChildProcess } from 'node:child_process';
import { chmodSync, copyFileSync, readdirSync, renameSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { birthOf, hasEnded, startProgram, stopProgram, type Program, type StopSignals } from './child.ts';

export interface Part {
  readonly name: string;
  readonly program: Program;
  readonly stopSignals: StopSignals;
}

export interface PartState {
  readonly name: string;
  readonly state: 'running' | 'waiting to be started again';
  readonly pid?: number;
  /** Milliseconds since 1970. */
  readonly since: number;
  readonly restarts: number;
  /** How it ended last, when it did. */
  readonly lastEnd?: string;
  readonly logFile: string;
}

export type Order =
  | { readonly do: 'start'; readonly part: Part }
  | { readonly do: 'stop'; readonly name: string }
  | { readonly do: 'list' }
  | { readonly do: 'end' };

export interface Answer {
  readonly ok: boolean;
  /** When it is not ok, why. */
  readonly because?: string;
  readonly keeper: number;
  readonly parts: readonly PartState[];
}

/** What lies in the record of a keeper's children. */
export interface KeptProcess {
  readonly name: string;
  readonly pid: number;
  /** See birthOf. */
  readonly birth: string | undefined;
  readonly stopSignals: StopSignals;
}

const FIRST_WAIT_MS = 250;
const LONGEST_WAIT_MS = 30_000;
const STAYED_MS = 60_000;
const LOG_BYTES_MAX = 8 * 1024 * 1024;
const LOGS_EVERY_MS = 30_000;
const ORDER_BYTES_MAX = 1024 * 1024;

interface Kept {
  readonly part: Part;
  child: ChildProcess;
  since: number;
  restarts: number;
  failures: number;
  lastEnd?: string;
  timer?: NodeJS.Timeout;
  leaving: boolean;
}

export function keep({ socketPath, recordFile, logsDir }: { socketPath: string; recordFile: string; logsDir: string }): void {
  const kept = new Map<string, Kept>();

  const record = (): void => {
    const processes: KeptProcess[] = [...kept.values()].flatMap(({ part, child }) =>
      child.pid === undefined || hasEnded(child) ? [] : [{ name: part.name, pid: child.pid, birth: birthOf(child.pid), stopSignals: part.stopSignals }]);
    writeFileSync(`${recordFile}.new`, JSON.stringify({ keeper: { pid: process.pid, birth: birthOf(process.pid) }, processes }), { mode: 0o600 });
    renameSync(`${recordFile}.new`, recordFile);
  };

  const watch = (one: Kept): void => {
    const ended = (how: string): void => {
      if (one.leaving) return;
      one.lastEnd = how;
      one.failures = Date.now() - one.since > STAYED_MS ? 0 : one.failures + 1;
      const waitMs = Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** Math.min(Math.max(one.failures - 1, 0), 10));
      console.log(`${new Date().toISOString()} ${one.part.name} ended (${how}); started again in ${waitMs} ms`);
      one.timer = setTimeout(() => {
        one.restarts++;
        one.since = Date.now();
        one.child = startProgram(one.part.program);
        watch(one);
        record();
      }, waitMs);
      record();
    };
    one.child.once('exit', (code, signal) => ended(signal ?? `code ${code}`));
    if (one.child.pid === undefined) ended('it could not be run');
  };

  const start = (part: Part): void => {
    if (kept.has(part.name)) return; // it runs, or will again
    const one: Kept = { part, child: startProgram(part.program), since: Date.now(), restarts: 0, failures: 0, leaving: false };
    kept.set(part.name, one);
    watch(one);
    record();
  };

  const stop = async (name: string): Promise<void> => {
    const one = kept.get(name);
    if (!one) return;
    one.leaving = true;
    clearTimeout(one.timer);
    await stopProgram(one.child, one.part.stopSignals);
    kept.delete(name);
    record();
  };

  const states = (): readonly PartState[] =>
    [...kept.values()].map(({ part, child, since, restarts, lastEnd }) => ({
      name: part.name,
      state: hasEnded(child) ? 'waiting to be started again' : 'running',
      ...(child.pid === undefined ? {} : { pid: child.pid }),
      since,
      restarts,
      ...(lastEnd === undefined ? {} : { lastEnd }),
      logFile: part.program.logFile,
    }));

  const obey = async (order: Order): Promise<Answer> => {
    let because: string | undefined;
    if (order.do === 'start') start(order.part);
    if (order.do === 'stop') await stop(order.name);
    if (order.do === 'end' && kept.size > 0) because = `still running: ${[...kept.keys()].join(', ')}`;
    return { ok: because === undefined, ...(because === undefined ? {} : { because }), keeper: process.pid, parts: states() };
  };

  const server = createServer((socket) => void serve(socket));
  const serve = (socket: Socket): void => {
    let text = '';
    socket.setEncoding('utf8');
    socket.on('error', () => socket.destroy());
    socket.on('data', (more: string) => {
      text += more;
      if (text.length > ORDER_BYTES_MAX) socket.destroy();
      if (!text.endsWith('\n')) return;
      const order = JSON.parse(text) as Order;
      text = '';
      void obey(order).then((answer) => {
        socket.end(`${JSON.stringify(answer)}\n`, () => {
          if (order.do === 'end' && answer.ok) leave();
        });
      });
    });
  };
  const leave = (): void => {
    server.close();
    rmSync(recordFile, { force: true });
    rmSync(socketPath, { force: true });
    process.exit(0);
  };

  // Whoever asked for the socket holds the lock of the installation, so a socket that is there is a dead keeper's.
  rmSync(socketPath, { force: true });
  const umask = process.umask(0o177);
  server.listen(socketPath, () => {
    process.umask(umask);
    chmodSync(socketPath, 0o600);
    record();
  });

  setInterval(() => {
    // All of them: libvirtd, which is no child of ours, writes there too.
    for (const name of readdirSync(logsDir)) if (name.endsWith('.log')) shorten(join(logsDir, name));
  }, LOGS_EVERY_MS);

  // Told to end by a signal (a shutdown of the machine), it ends its parts in the reverse order of their start.
  let ending = false;
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    process.on(signal, () => {
      if (ending) return;
      ending = true;
      void (async () => {
        for (const name of [...kept.keys()].reverse()) await stop(name);
        leave();
      })();
    });
  }
  process.on('SIGHUP', () => {}); // the terminal may close
}

/** Keeps the newest part of a log and one before it. The writer appends (O_APPEND), so it goes on at the new end. */
export function shorten(logFile: string): void {
  try {
    if (statSync(logFile).size <= LOG_BYTES_MAX) return;
    copyFileSync(logFile, `${logFile}.1`);
    truncateSync(logFile, 0);
  } catch {
    // Not there yet, or the disk is full: then the log waits.
  }
}

if (import.meta.main) {
  const [socketPath, recordFile, logsDir] = process.argv.slice(2);
  if (!socketPath || !recordFile || !logsDir) throw new Error('usage: keeper <socket> <record> <folder of logs>');
  keep({ socketPath, recordFile, logsDir });
}
