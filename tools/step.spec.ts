import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { runStep, seconds } from './step.ts';
import type { Step } from './step.ts';

const step = (script: string, withinMs = 10_000): Step =>
  ({ name: 'planted', command: [process.execPath, '-e', script], withinMs, output: 'kept' });

describe('a step', () => {
  it('that ends well says nothing of why', async () => {
    expect(await runStep(step('console.log("out"); console.error("err")'))).toMatchObject({ ok: true, because: '', output: expect.stringMatching(/out[^]*err|err[^]*out/) });
  });

  it('gets its environment, and no input', async () => {
    const end = await runStep({ ...step('process.stdin.on("end", () => console.log("seed", process.env.CV_SEED)).resume()'), environment: { CV_SEED: '7' } });
    expect(end).toMatchObject({ ok: true, output: 'seed 7\n' });
  });

  it('that fails is not ok', async () => {
    expect(await runStep(step('process.exit(3)'))).toMatchObject({ ok: false, because: 'exit code 3' });
  });

  it('that is killed is not ok', async () => {
    expect(await runStep(step('process.kill(process.pid, "SIGKILL")'))).toMatchObject({ ok: false, because: 'ended by SIGKILL' });
  });

  it('whose program is missing is not ok', async () => {
    expect(await runStep({ ...step(''), command: ['/nowhere/program'] })).toMatchObject({ ok: false, because: expect.stringContaining('could not be run') });
  });

  it('that hangs is ended with all it started', async () => {
    const script = 'const c = require("node:child_process").spawn(process.execPath, ["-e", "setInterval(() => {}, 1000)"]); console.log(c.pid); setInterval(() => {}, 1000)';
    const end = await runStep(step(script, 500));
    expect(end).toMatchObject({ ok: false, because: 'not done within 0.5 s' });
    const grandchild = Number(end.output);
    expect(grandchild).toBeGreaterThan(1);
    await expect.poll(() => isAlive(grandchild), { timeout: 2_000 }).toBe(false);
  });
});

it('times are said as people say them', () => {
  expect([seconds(440), seconds(12_340), seconds(185_000)]).toEqual(['0.4 s', '12.3 s', '3 min 5 s']);
});

/** Whether it runs; a zombie that its new parent has not collected yet does not. */
function isAlive(pid: number): boolean {
  try {
    return !/^State:\s+[ZX]/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT' || (error as NodeJS.ErrnoException).code === 'ESRCH') return false;
    throw error;
  }
}
