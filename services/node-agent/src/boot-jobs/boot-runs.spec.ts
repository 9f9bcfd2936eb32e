/* What a guest runs, run here: by the shells that guests have. That cloud-init and a real guest do is shown by e2e/cloud-init.spec.ts. */
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { BootRunId } from '@chronovirt/contracts/ids';
import { BOOT_PORT, bootRunsHook, environmentFile, type OpenedRun, resultsIn, withoutSecrets } from './boot-runs.ts';

let root: string;
beforeEach(() => { root = mkdtempSync(join(tmpdir(), 'cv-boot-')); });
afterEach(() => { rmSync(root, { recursive: true, force: true }); });

const idOf = (n: number): BootRunId => `run_${n.toString(16).padStart(32, '0')}`;
const run = (n: number, script: string, environment: OpenedRun['environment'] = [], timeoutSeconds = 60): OpenedRun => ({ runId: idOf(n), script, timeoutSeconds, environment });
/** The guest's folders and its port are below `root`. */
const inRoot = (text: string): string => text.replaceAll('/var/lib/', `${root}/var/lib/`).replaceAll('/sys/class', `${root}/sys/class`).replaceAll('port=/dev/', `port=${root}/dev/`);
const runner = (): string => join(root, 'var/lib/cloud/scripts/per-boot/chronovirt-boot-jobs');

/** One boot: cloud-init's boothook, then what it starts at the end. What the guest has said until now. */
const boot = (...runs: readonly OpenedRun[]): ReturnType<typeof resultsIn> => {
  mkdirSync(join(root, 'sys/class/virtio-ports/vport1p2'), { recursive: true });
  mkdirSync(join(root, 'dev'), { recursive: true });
  writeFileSync(join(root, 'sys/class/virtio-ports/vport1p2/name'), `${BOOT_PORT}\n`);
  // The runner is in the boothook in base64: its folders are put below `root` once it is out.
  execFileSync('sh', [], { input: inRoot(bootRunsHook(runs)) });
  writeFileSync(runner(), inRoot(readFileSync(runner(), 'utf8')));
  execFileSync(runner(), { stdio: 'pipe' });
  return said();
};
const said = (): ReturnType<typeof resultsIn> => (existsSync(join(root, 'dev/vport1p2')) ? resultsIn(readFileSync(join(root, 'dev/vport1p2'), 'latin1')) : []);

describe('What a guest is to run at its boot', () => {
  it('is run once, in order, with its variables; how it went and what it printed last is said', () => {
    const first = run(1, '#!/bin/sh\necho "$WORDS, $N"; echo trouble >&2; exit 3\n', [{ name: 'WORDS', value: 'a b' }, { name: 'N', value: '7' }]);
    const second = run(2, `#!/bin/sh\necho second >>${root}/order; seq 1 3000\n`);
    const results = boot(first, second);
    expect(results[0]).toEqual({ runId: first.runId, exitCode: 3, output: 'a b, 7\ntrouble\n' });
    expect(results[1]?.exitCode).toBe(0);
    expect(results[1]?.output.length).toBe(4_096);
    expect(results[1]?.output.endsWith('2999\n3000\n')).toBe(true);
    // Asked for again at the next boot it is said again, and not run again; nothing of it is left but what is to be said.
    expect(boot(first, second)).toEqual(results);
    expect(readFileSync(join(root, 'order'), 'utf8')).toBe('second\n');
    expect(['script', 'environment'].map((name) => existsSync(join(root, 'var/lib/chronovirt/boot-jobs', first.runId, name)))).toEqual([false, false]);
    // Whoever is not asked any more says nothing at later boots.
    expect(existsSync(runner())).toBe(false);
  });

  it('is killed when its time is over, and one that was broken off is not begun again', () => {
    expect(boot(run(1, '#!/bin/sh\ntrap "" TERM\necho began\nsleep 30\n', [], 1))).toEqual([{ runId: idOf(1), exitCode: 137, output: 'began\n' }]);
    const broken = run(2, `#!/bin/sh\necho again >>${root}/again\n`);
    mkdirSync(join(root, 'var/lib/chronovirt/boot-jobs', broken.runId), { recursive: true });
    writeFileSync(join(root, 'var/lib/chronovirt/boot-jobs', broken.runId, 'begun'), '');
    expect(boot(broken)).toContainEqual({ runId: broken.runId, exitCode: null, output: '' });
    expect(existsSync(join(root, 'again'))).toBe(false);
  });

  it('may be anything that runs, and a script that cannot be run is a failure like any other', () => {
    expect(boot(run(1, '#!/usr/bin/env perl\nprint "perl: $ENV{X}";\n', [{ name: 'X', value: 'y' }]), run(2, '#!/no/such/thing\n')).map(({ exitCode, output }) => [exitCode, output.split(':')[0]])).toEqual([[0, 'perl'], [expect.any(Number), expect.any(String)]]);
    expect(said()[1]?.exitCode).not.toBe(0);
  });

  it('gets its variables to the letter, whatever they hold, and none of it is ever a command', () => {
    const hostile = ['$(touch /tmp/cv-hostile)', '`touch /tmp/cv-hostile`', '\'; touch /tmp/cv-hostile; \'', '"$HOME"\\', 'a\nexport B=c\n', '\n', '', ' lead and trail ', '\'\'\'', '\\\'', '#cloud-config', '-n', '🙂 ü \u0001\u007f', 'EOF\n$IFS'];
    const values = [...hostile, ...fc.sample(fc.string({ unit: 'binary', maxLength: 30 }).filter((text) => text.isWellFormed() && !text.includes('\u0000')), 50)];
    writeFileSync(join(root, 'environment'), environmentFile(values.map((value, index) => ({ name: `X${String(index)}`, value }))));
    for (const shell of ['dash', 'bash']) {
      const { stdout, stderr } = spawnSync(shell, ['-c', `. ./environment; printf '%s\\0' ${values.map((_, index) => `"$X${String(index)}"`).join(' ')}`], { encoding: 'utf8', cwd: root });
      expect([stderr, stdout.split('\u0000').slice(0, -1)]).toEqual(['', values]);
    }
    const all = run(1, '#!/bin/sh\nprintf %s "$X" >"$OUT"\n', [{ name: 'X', value: hostile.join('|') }, { name: 'OUT', value: join(root, 'out') }]);
    expect(boot(all)[0]?.exitCode).toBe(0);
    expect(readFileSync(join(root, 'out'), 'utf8')).toBe(hostile.join('|'));
    expect(existsSync('/tmp/cv-hostile')).toBe(false);
  });
});

describe('What a guest says', () => {
  it('is believed line by line, the last word of each run, and nothing else is read', () => {
    const line = (n: number, code: string, output: string): string => `${idOf(n)} ${code} ${Buffer.from(output).toString('base64')}\n`;
    expect(resultsIn(`${line(1, '0', 'first')}${line(2, 'interrupted', '')}garbage ${line(3, '256', '')}${line(4, '-1', '')}run_x 0 \n${line(1, '1', 'then\u0000')}${line(5, '0', 'half a line').slice(0, -1)}`))
      .toEqual([{ runId: idOf(1), exitCode: 1, output: 'then' }, { runId: idOf(2), exitCode: null, output: '' }]);
    expect(resultsIn(`${idOf(6)} 0 ${Buffer.from([0xff, 0xc3]).toString('base64')}\n`)).toEqual([{ runId: idOf(6), exitCode: 0, output: '\ufffd\ufffd' }]);
  });

  it('whatever is in the file, is bounded and can be kept', () => {
    fc.assert(fc.property(fc.array(fc.oneof(fc.string(), fc.base64String({ maxLength: 9_000 }).map((text) => `${idOf(1)} 0 ${text}`)), { maxLength: 5 }), (lines) => {
      for (const { output } of resultsIn(lines.map((line) => `${line}\n`).join(''))) {
        expect(output.length).toBeLessThanOrEqual(4_096);
        expect(output.isWellFormed() && !output.includes('\u0000')).toBe(true);
      }
    }));
  });

  it('has no secret in it, not even the end of one that was cut off', () => {
    expect(withoutSecrets('word=hunter2 hunter22', ['hunter2', 'hunter22', ''])).toBe('word=*** ***');
    expect(withoutSecrets('nter2 and more', ['hunter2'])).toBe('*** and more');
    expect(withoutSecrets('nothing of it', ['hunter2'])).toBe('nothing of it');
  });
});
