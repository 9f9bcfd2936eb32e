/* What a node says where a password cannot be written; that it is written is seen on a guest (e2e/cloud-init.spec.ts). */
import { execFileSync, spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import { libguestfsKernel } from '../../../../tools/guest/libguestfs-kernel.ts';
import { setOfflinePassword } from './offline-password.os.ts';

const cache = '/var/tmp/cv-agent-spec-cache';
const dir = mkdtempSync(join(tmpdir(), 'cv-offline-'));
const path = join(dir, 'disk.qcow2');
const set = (signal = new AbortController().signal, password = 'canary-offline') => setOfflinePassword({ disks: [{ path, format: 'qcow2' }], user: 'root', password, accel: 'tcg' }, signal);
const NO_SYSTEM = { refused: 'guest.disks_not_opened', because: { says: 'guestfish: no operating system was found on this disk' } };
const drafts = (): readonly string[] => readdirSync(tmpdir()).filter((name) => name.startsWith('cv-shadow-'));

beforeAll(async () => {
  for (const [name, value] of Object.entries(await libguestfsKernel(cache))) vi.stubEnv(name, value);
  execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', path, '64M']);
}, 120_000);
afterEach(() => { expect(drafts()).toEqual([]); });
afterAll(() => {
  vi.unstubAllEnvs();
  rmSync(dir, { recursive: true, force: true });
});

describe('A password for the disks of a guest', () => {
  it('leaves the disks alone once it is taken back', async () => {
    const canceller = new AbortController();
    const writing = set(canceller.signal);
    setTimeout(() => { canceller.abort(); }, 1_500);
    expect(await writing).toEqual({ refused: 'command.cancelled' });
    execFileSync('qemu-img', ['check', '-q', path]);
  }, 60_000);

  it('waits for whoever has the disks open, and has no place where there is no system', async () => {
    const other = spawn('qemu-io', ['-f', 'qcow2', '-c', 'sleep 60000', path], { stdio: 'ignore' });
    try {
      await vi.waitFor(() => { expect(() => execFileSync('qemu-img', ['info', path], { stdio: 'ignore' })).toThrow(); }, { timeout: 10_000 });
      const writing = set();
      setTimeout(() => { other.kill('SIGKILL'); }, 3_000);
      expect(await writing).toMatchObject(NO_SYSTEM);
    } finally {
      other.kill('SIGKILL');
    }
  }, 120_000);

  it('is refused when it is longer than what is read of it', async () => {
    expect(await set(undefined, 'ß'.repeat(129))).toEqual({ refused: 'guest.password_too_long', because: { bytesMax: 256 } });
  });

  it('says what is missing where there is no guestfish', async () => {
    const bin = join(dir, 'bin');
    mkdirSync(bin);
    for (const program of ['env', 'stdbuf', 'openssl', 'qemu-img']) symlinkSync(`/usr/bin/${program}`, join(bin, program));
    vi.stubEnv('PATH', bin);
    expect(await set()).toEqual({ refused: 'node.no_guestfish' });
  }, 60_000);
});
