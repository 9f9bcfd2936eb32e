import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { findAccel } from './accel.os.ts';
import type { AccelOptions } from './accel.os.ts';

let dir: string;
let trials: number;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'cv-accel-'));
  trials = 0;
  writeFileSync(join(dir, 'boot'), 'boot-1\n');
  writeFileSync(join(dir, 'kvm'), '');
});
afterEach(() => { rmSync(dir, { recursive: true }); });

const machine = (flags: string, runs: boolean, more: Partial<AccelOptions> = {}): AccelOptions => {
  writeFileSync(join(dir, 'cpuinfo'), `processor\t: 0\nflags\t\t: fpu ${flags} sse\n`);
  return {
    remember: join(dir, 'accel.json'), cpuinfo: join(dir, 'cpuinfo'), bootIdFile: join(dir, 'boot'), kvmDevice: join(dir, 'kvm'),
    trial: async () => { trials++; return runs; }, ...more,
  };
};

describe('Guests run under KVM', () => {
  it('where the CPU can, and a guest was seen to run', async () => {
    expect(await findAccel(machine('vmx', true))).toMatchObject({ accel: 'kvm' });
    expect(await findAccel(machine('svm', true, { remember: join(dir, 'other') }))).toMatchObject({ accel: 'kvm' });
  });

  it('not where the device is there and the CPU cannot, however the trial would end', async () => {
    expect(await findAccel(machine('vmxoff', true))).toMatchObject({ accel: 'tcg', because: expect.stringContaining('BIOS') as string });
    expect(trials).toBe(0);
  });

  it('not where the device is missing', async () => {
    expect(await findAccel(machine('vmx', true, { kvmDevice: join(dir, 'nothing') }))).toMatchObject({ accel: 'tcg', because: expect.stringContaining('modprobe') as string });
  });

  it('not where a guest hangs', async () => {
    expect(await findAccel(machine('vmx', false))).toMatchObject({ accel: 'tcg', because: expect.stringContaining('trial guest') as string });
  });
});

describe('What was found', () => {
  it('is remembered until the machine boots again, and no longer', async () => {
    await findAccel(machine('vmx', false));
    expect(await findAccel(machine('vmx', true))).toMatchObject({ accel: 'tcg' });
    expect(trials).toBe(1);
    writeFileSync(join(dir, 'boot'), 'boot-2\n');
    expect(await findAccel(machine('vmx', true))).toMatchObject({ accel: 'kvm' });
    expect(trials).toBe(2);
  });

  it('is found anew when what was remembered is broken', async () => {
    await findAccel(machine('vmx', true));
    writeFileSync(join(dir, 'accel.json'), readFileSync(join(dir, 'accel.json'), 'utf8').slice(0, 10));
    expect(await findAccel(machine('vmx', true))).toMatchObject({ accel: 'kvm' });
    expect(trials).toBe(2);
  });
});
