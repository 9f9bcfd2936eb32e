/* A program of QEMU's that says how far it has come. */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import type { Progress } from './hypervisor.ts';

const run = promisify(execFile);
/** It says some two hundred lines of a dozen bytes. */
const SAID_BYTES_MAX = 1_048_576;

/** With -p it says `(12.34/100%)` again and again. Throws what execFile throws. */
export const runWatched = async (program: string, words: readonly string[], { timeoutMs, signal }: { readonly timeoutMs: number; readonly signal: AbortSignal }, progress?: Progress): Promise<void> => {
  const running = run(program, [...words], { timeout: timeoutMs, signal, maxBuffer: SAID_BYTES_MAX });
  running.child.stdout?.on('data', (said: Buffer | string) => {
    const last = [...String(said).matchAll(/\((\d+)\.\d+\/100%\)/g)].at(-1)?.[1];
    if (last !== undefined) progress?.(Number(last));
  });
  await running;
};
