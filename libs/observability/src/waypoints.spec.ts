import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { openWaypoints } from './waypoints.ts';

describe('a waypoint', () => {
  let folder = '';
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'cv-waypoints-'));
    for (const name of ['armed', 'held']) mkdirSync(join(folder, name));
  });
  afterEach(() => { rmSync(folder, { recursive: true }); });

  it('lets everyone pass that nobody waits for', async () => {
    await openWaypoints(folder).reach('subnet.LeaseAddress.before');
    expect(readdirSync(join(folder, 'held'))).toEqual([]);
  });

  it('holds the first that comes by, until it is let go, and nobody after', async () => {
    writeFileSync(join(folder, 'armed', 'vm.FinishVm.after'), '');
    const waypoints = openWaypoints(folder);
    let passed = false;
    const first = waypoints.reach('vm.FinishVm.after').then(() => { passed = true; });
    await waypoints.reach('vm.FinishVm.after');
    await sleep(20);
    expect(passed).toBe(false);
    expect(existsSync(join(folder, 'held', 'vm.FinishVm.after'))).toBe(true);
    rmSync(join(folder, 'held', 'vm.FinishVm.after'));
    await first;
    expect(passed).toBe(true);
  });

  it('writes down who passed, when asked to', async () => {
    mkdirSync(join(folder, 'trace'));
    const waypoints = openWaypoints(folder);
    await waypoints.reach('one');
    await waypoints.reach('two');
    expect(readFileSync(join(folder, 'trace', String(process.pid)), 'utf8')).toBe('one\ntwo\n');
  });

  it('refuses a name that could be a path', async () => {
    await expect(openWaypoints(folder).reach('../held')).rejects.toThrow(RangeError);
  });
});
