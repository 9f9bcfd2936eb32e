/* What a node says where a password cannot be written; that it is written is seen on a guest (e2e/cloud-init.spec.ts). */
import { execFileSync, spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import { libguestfsKernel } from '../../../../tools/guest/libguestfs-kernel.ts';
import { guestImage } from '../../../../tools/guest-image.ts';
import { setOfflinePassword } from './offline-password.os.ts';

const images = '/var/tmp/cv-agent-spec-images';
const cache = '/var/tmp/cv-agent-spec-cache';
const dir = mkdtempSync(join(tmpdir(), 'cv-offline-'));
const path = join(dir, 'disk.qcow2');
const set = (signal = new AbortController().signal) => setOfflinePassword({ disks: [{ path, format: 'qcow2' }], user: 'root', password: 'canary-offline', accel: 'tcg' }, signal);
const drafts = (): readonly string[] => readdirSync(tmpdir()).filter((name) => name.startsWith('cv-shadow-'));

beforeAll(async () => {
  await guestImage({ images, cache });
  for (const [name, value] of Object.entries(libguestfsKernel(cache))) vi.stubEnv(name, value);
  execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', path, '64M']);
}, 120_000);
afterEach(() => { expect(drafts()).toEqual([]); });
afterAll(() => {
  vi.unstubAllEnvs();
  rmSync(dir, { recursive: true, force: true });
});

describe('A password for the disks of a guest', () => {
  it('has no place where there is no system', async () => {
    expect(await set()).toEqual({ refused: 'guest.disks_not_opened', because: { says: 'guestfish: no operating system was found on this disk' } });
  }, 120_000);

  it('is not written once it is taken back, and nobody holds the disks', async () => {
    const canceller = new AbortController();
    const writing = set(canceller.signal);
    setTimeout(() => { canceller.abort(); }, 1_500);
    expect(await writing).toEqual({ refused: 'command.cancelled' });
    await vi.waitFor(() => { execFileSync('qemu-img', ['check', '-q', path], { stdio: 'ignore' }); }, { timeout: 10_000 });
  }, 60_000);

  it('waits for whoever has the disks open', async () => {
    const other = spawn('qemu-io', ['-f', 'qcow2', '-c', 'sleep 60000', path], { stdio: 'ignore' });
    try {
      await vi.waitFor(() => { expect(() => execFileSync('qemu-img', ['info', path], { stdio: 'ignore' })).toThrow(); }, { timeout: 10_000 });
      const canceller = new AbortController();
      const writing = set(canceller.signal);
      setTimeout(() => { canceller.abort(); }, 1_500);
      expect(await writing).toEqual({ refused: 'command.cancelled' });
    } finally {
      other.kill('SIGKILL');
    }
  }, 60_000);

  it('says what is missing where there is no guestfish', async () => {
    const bin = join(dir, 'bin');
    mkdirSync(bin);
    for (const program of ['env', 'stdbuf', 'openssl', 'qemu-img']) symlinkSync(`/usr/bin/${program}`, join(bin, program));
    vi.stubEnv('PATH', bin);
    expect(await set()).toEqual({ refused: 'node.no_guestfish' });
  }, 60_000);
});
