/*
 * A medium that installs: its boot menu waits on the serial console and the screen, and what it starts writes a
 * system onto the first disk, as an installer of a distribution does. Kernel and system are those of the guest
 * image; the boot loader is the distribution's isolinux.
 */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { gzipSync } from 'node:zlib';
import { type GuestImage, guestImage, hashOf } from '../tools/guest-image.ts';
import { archive } from '../tools/guest/archive.ts';
import { unpacked, versionsOf } from '../tools/guest/distribution.ts';
import { GUEST_IMAGES } from './qemu-node.ts';

const run = promisify(execFile);

const INSTALL = `#!/bin/sh
export PATH=/bin:/sbin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
while read -r module; do insmod "$module" 2>/dev/null; done < /lib/modules/order
mkdir -p /run/medium
for tries in 1 2 3 4 5 6 7 8 9 10; do mount -t iso9660 -o ro /dev/sr0 /run/medium 2>/dev/null && break; sleep 1; done
echo "cv-installer writes" > /dev/console
/bin/busybox zcat /run/medium/system.gz > /dev/vda && sync && umount /run/medium && echo "cv-installer is done" > /dev/console
while :; do sleep 3600; done
`;

const MENU = `SERIAL 0 115200
UI menu.c32
TIMEOUT 0
MENU TITLE The menu of the test installer
LABEL install
  MENU LABEL Install
  LINUX /vmlinuz
  INITRD /initrd,/installer
  APPEND console=tty0 console=ttyS0,115200 quiet rdinit=/install
`;

/** The guest's first partition begins at 1 MiB and holds its kernel. */
async function kernelInto(folder: string, guest: GuestImage, tools: string): Promise<void> {
  const raw = join(folder, '.raw');
  await run('qemu-img', ['convert', '-O', 'raw', join(GUEST_IMAGES.images, guest.file), raw]);
  for (const name of ['vmlinuz', 'initrd']) await run(join(tools, 'usr/bin/mcopy'), ['-n', '-i', `${raw}@@1M`, `::${name}`, join(folder, name)], { env: { MTOOLS_SKIP_CHECK: '1' } });
}

/** Kernel and system of the guest image, in files of their own: `vmlinuz` and `initrd`. */
export async function guestKernel(folder: string): Promise<void> {
  const guest = await guestImage(GUEST_IMAGES);
  await kernelInto(folder, guest, await toolsOf(['mtools']));
  rmSync(join(folder, '.raw'));
}

const toolsOf = async (packages: readonly string[]): Promise<string> => {
  const versions = await versionsOf(packages);
  return unpacked(versions, join(GUEST_IMAGES.cache, `installer-tools-${hashOf(...versions).slice(0, 12)}`));
};

/** What POST /v1/images takes; the file lies in the nodes' folder of images. */
export async function installerMedium(): Promise<{ readonly name: string; readonly file: string; readonly format: 'iso'; readonly sha256: string; readonly sizeBytes: number }> {
  const { images } = GUEST_IMAGES;
  const guest = await guestImage(GUEST_IMAGES);
  const file = `cv-spec-installer-${hashOf(guest.file, MENU, INSTALL).slice(0, 12)}.iso`;
  const path = join(images, file);
  if (!existsSync(path)) {
    const tools = await toolsOf(['isolinux', 'syslinux-common', 'mtools']);
    const work = mkdtempSync(`${path}.`);
    try {
      const medium = join(work, 'medium');
      mkdirSync(medium);
      await kernelInto(medium, guest, tools);
      const raw = join(work, 'disk.raw');
      renameSync(join(medium, '.raw'), raw);
      writeFileSync(join(medium, 'installer'), archive([{ path: 'install', kind: 'file', mode: 0o755, content: Buffer.from(INSTALL) }]));
      writeFileSync(join(medium, 'system.gz'), gzipSync(readFileSync(raw)));
      writeFileSync(join(medium, 'isolinux.cfg'), MENU);
      copyFileSync(join(tools, 'usr/lib/ISOLINUX/isolinux.bin'), join(medium, 'isolinux.bin'));
      for (const name of ['ldlinux.c32', 'libutil.c32', 'menu.c32']) copyFileSync(join(tools, 'usr/lib/syslinux/modules/bios', name), join(medium, name));
      const draft = join(work, file);
      await run('xorriso', ['-as', 'mkisofs', '-quiet', '-V', 'CVINSTALL', '-r', '-o', draft, '-b', 'isolinux.bin', '-c', 'boot.cat', '-no-emul-boot', '-boot-load-size', '4', '-boot-info-table', medium]);
      renameSync(draft, path);
    } finally {
      rmSync(work, { recursive: true, force: true });
    }
  }
  return { name: 'installer', file, format: 'iso', sha256: createHash('sha256').update(readFileSync(path)).digest('hex'), sizeBytes: statSync(path).size };
}
