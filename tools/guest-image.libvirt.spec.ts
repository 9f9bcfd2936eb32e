/*
 * The image boots from its own disk under a bare QEMU: no libvirt, no network of the host. What it says on
 * the serial console and through the guest agent is what tests of the platform rely on.
 */
import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { until } from './child.ts';
import { guestImage, type GuestImage } from './guest-image.ts';

const dir = mkdtempSync(join(tmpdir(), 'cv-guest-'));
const cache = join(tmpdir(), 'cv-guest-cache');
const overlay = join(dir, 'disk.qcow2');
let image: GuestImage;
let guest: ChildProcess | undefined;

beforeAll(async () => {
  image = await guestImage({ images: join(dir, 'images'), cache });
  execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', '-F', 'qcow2', '-b', join(dir, 'images', image.file), overlay, '2G']);
}, 120_000);
afterEach(() => guest?.kill('SIGKILL'));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

function boot(machine: string, name: string): { console: () => string; monitor: string; agent: string } {
  const [serial, monitor, agent] = [join(dir, `${name}.log`), join(dir, `${name}.mon`), join(dir, `${name}.ga`)];
  guest = spawn('qemu-system-x86_64', [
    '-accel', 'tcg,tb-size=32', '-cpu', 'qemu64', '-m', String(image.minMemoryMib), '-machine', machine, '-display', 'none', '-nodefaults', '-vga', 'none',
    '-drive', `file=${overlay},if=virtio,format=qcow2`, '-netdev', 'user,id=n,restrict=on', '-device', 'virtio-net-pci,netdev=n', '-device', 'virtio-serial',
    '-chardev', `socket,path=${agent},server=on,wait=off,id=ga`, '-device', 'virtserialport,chardev=ga,name=org.qemu.guest_agent.0',
    '-serial', `file:${serial}`, '-monitor', `unix:${monitor},server=on,wait=off`,
  ], { stdio: 'inherit' });
  return { console: () => (existsSync(serial) ? readFileSync(serial, 'utf8') : ''), monitor, agent };
}

const ask = (path: string, text: string, answered: RegExp): Promise<string> =>
  new Promise((resolve, reject) => {
    const socket = connect(path);
    let heard = '';
    socket.setTimeout(10_000, () => socket.destroy(new Error(`no answer; heard ${heard}`)));
    socket.once('error', reject);
    socket.on('data', (bytes) => {
      heard += bytes.toString('utf8');
      if (!answered.test(heard)) return;
      socket.destroy();
      resolve(heard);
    });
    socket.write(text);
  });

describe('the guest image', () => {
  it('is known again without being built again', async () => {
    const file = join(dir, 'images', image.file);
    const { mtimeMs, ino } = statSync(file);
    expect(await guestImage({ images: join(dir, 'images'), cache })).toEqual(image);
    expect(statSync(file)).toMatchObject({ mtimeMs, ino });
  });

  it.each([['q35', 1], ['pc', 2]])('boots from its own disk on %s, keeps what it wrote there, has an address, an agent and a power button', async (machine, boots) => {
    const { console, monitor, agent } = boot(machine, machine);
    expect(await until(() => /cv-guest address/.test(console()), { withinMs: 60_000, everyMs: 100 }), console()).toBe(true);
    expect(console()).toContain(`cv-guest disk vda 2048 MiB boots ${boots}`);
    expect(console()).toMatch(/cv-guest address 10\.0\.2\.15 name micro/);
    expect(await until(() => /micro login:/.test(console()), { withinMs: 10_000, everyMs: 100 })).toBe(true);
    expect(await ask(agent, '{"execute":"guest-get-host-name"}\n', /"return"/)).toContain('"micro"');
    await ask(monitor, 'system_powerdown\n', /system_powerdown/);
    expect(await until(() => guest?.exitCode === 0, { withinMs: 20_000, everyMs: 50 })).toBe(true);
  });
});
