/* What someone types on a fresh machine, below a folder that nobody else may enter, with a real guest. */
import { spawn } from 'node:child_process';
import { chmodSync, cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { isAlive } from '../tools/child.ts';
import { guestImage } from '../tools/guest-image.ts';
import { locate, REPOSITORY } from '../tools/home.ts';
import { tell } from '../tools/keeper-client.ts';
import { freePort } from '../tools/ports.ts';
import { restOf, type Accepted, type Rest, type Vm } from './rest.ts';

// Kept between runs, because it is downloaded.
const IMAGES = '/var/tmp/cv-agent-spec-images';
const CACHE = '/var/tmp/cv-agent-spec-cache';

describe('npm start on a real hypervisor', () => {
  const shut = mkdtempSync('/var/tmp/cv-shut-');
  const home = locate(join(shut, 'home'));
  let port = 0;
  let rest: Rest;
  let vm: Vm;
  let pid = 0;

  const type = (verb: 'start' | 'stop' | 'status', ...options: readonly string[]): Promise<{ readonly code: number | null; readonly said: string }> =>
    new Promise((resolve, reject) => {
      const words = [join(REPOSITORY, 'tools', `${verb === 'start' ? 'up' : verb}.ts`), ...options];
      const child = spawn(process.execPath, words, { env: { ...process.env, CV_HOME: home.dir, CV_PORT: String(port) }, stdio: ['ignore', 'pipe', 'pipe'] });
      let said = '';
      for (const stream of [child.stdout, child.stderr]) stream.on('data', (bytes: Buffer) => (said += bytes.toString('utf8')));
      child.once('error', reject);
      child.once('exit', (code) => { resolve({ code, said }); });
    });
  const qemuPid = (): number => Number(readFileSync(`/run/libvirt/qemu/cv-survivor-${vm.id.slice(-8)}.pid`, 'utf8'));

  beforeAll(async () => {
    chmodSync(shut, 0o700);
    port = await freePort();
    const image = await guestImage({ images: IMAGES, cache: CACHE });
    mkdirSync(home.images, { recursive: true, mode: 0o755 });
    for (const file of ['micro.json', image.file]) cpSync(join(IMAGES, file), join(home.images, file));
  });
  afterAll(async () => {
    if (vm !== undefined && (await tell(home, { do: 'list' })) === undefined) await type('start', '--detach');
    if (vm !== undefined) await rest.gone(vm.id).catch(() => undefined);
    await type('stop');
    rmSync(shut, { recursive: true, force: true });
    if (home.open.startsWith('/var/lib/chronovirt/')) rmSync(home.open, { recursive: true, force: true });
  });

  it('below a folder of mode 0700 it says where the data lies, and is ready with an image, a network and a node', async () => {
    const started = await type('start', '--detach');
    expect(started.code, started.said).toBe(0);
    expect(started.said).toContain(`other users may not enter ${shut}, so the data that Postgres, NATS and QEMU must reach lies in ${home.open}`);
    expect(home.open).toMatch(/^\/var\/lib\/chronovirt\/[0-9a-f]{8}$/);
    expect(statSync(home.adminTokenFile).mode & 0o777).toBe(0o600);
    rest = restOf(`http://127.0.0.1:${String(port)}`, readFileSync(home.adminTokenFile, 'utf8').trim());
    for (const list of ['images', 'networks', 'nodes']) expect((await rest.all(`/v1/${list}`)).length, list).toBeGreaterThan(0);
  });

  it('A4-01 A5-10 has a place for pools and one for backups, without anybody having made them', async () => {
    const [node] = await rest.all<{ name: string }>('/v1/nodes');
    const path = join(home.pools, 'fast');
    const { operation } = await rest.ok<Accepted>('POST', '/v1/pools', { type: 'dir', name: 'fast', node: node?.name, path });
    await rest.succeeded(operation.id);
    expect(existsSync(path)).toBe(true);
    const [network] = await rest.all<{ name: string }>('/v1/networks');
    vm = await rest.running({ name: 'survivor', image: 'micro', network: network?.name, vcpus: 1, memoryMib: 128, diskGib: 1 }, 90_000);
    const backup = await rest.ok<Accepted & { readonly backupId: string }>('POST', `/v1/vms/${vm.id}/backups`, {});
    await rest.succeeded(backup.operation.id, 60_000);
    expect(existsSync(join(home.backups, vm.id, backup.backupId, 'manifest.json'))).toBe(true);
  });

  it('A1-32 a virtual machine outlives a stop, and the next start finds it as it was', async () => {
    pid = qemuPid();
    const stopped = await type('stop');
    expect(stopped.code, stopped.said).toBe(0);
    expect(stopped.said).toMatch(/libvirtd goes on, because \d+ virtual machines? runs?/);
    expect(isAlive(pid)).toBe(true);
    await expect(rest.call('GET', '/livez')).rejects.toThrow();

    const again = await type('start', '--detach');
    expect(again.code, again.said).toBe(0);
    expect(await rest.status(vm.id, 'running', 15_000)).toMatchObject({ id: vm.id, address: vm.address, generation: 1 });
    expect(qemuPid()).toBe(pid);
  });

  it('deleted after that, nothing of it is left', async () => {
    await rest.gone(vm.id);
    expect(isAlive(pid)).toBe(false);
    expect(existsSync(join(home.disks, `volume_${vm.id.slice(3)}.qcow2`))).toBe(false);
    const status = await type('status');
    expect([status.code, status.said]).toEqual([0, expect.stringContaining(`http://127.0.0.1:${String(port)}`)]);
  });
});
