/*
 * The guest image `micro`: a Linux small enough to start in seconds under emulation, real enough to
 * prove a virtual machine. It boots from its own disk (BIOS, virtio), takes its address by DHCP, says
 * so on the serial console, answers ping and the guest agent, counts its boots on its disk, powers off
 * on the ACPI button, and has a login prompt (root, no password, on the console alone: it runs no
 * service that lets anyone in by network).
 *
 * Made of the distribution's packages: the "cloud" kernel, a static busybox, qemu-guest-agent. The file
 * is named after everything that goes into it, so a change makes another file, and VMs that run on
 * the older one keep theirs.
 */
import { createHash } from 'node:crypto';
import { chmodSync, createReadStream, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { archive, type ArchiveEntry } from './guest/archive.ts';
import { makeDisk, spare } from './guest/disk.ts';
import { cloudKernelPackage, librariesOf, unpacked, versionsOf } from './guest/distribution.ts';
import { modulesInOrder } from './guest/modules.ts';
import { writeWhole } from './secrets.ts';

export interface GuestImage {
  readonly name: 'micro';
  /** The bare name of a file in the folder of images. */
  readonly file: string;
  readonly format: 'qcow2';
  /** Of the file, hexadecimal. */
  readonly sha256: string;
  readonly sizeBytes: number;
  readonly minDiskGib: number;
  readonly minMemoryMib: number;
}

const PACKAGES = ['busybox-static', 'qemu-guest-agent', 'libglib2.0-0', 'liburing2', 'libnuma1', 'libudev1', 'libpcre2-8-0', 'libcap2', 'syslinux', 'syslinux-common', 'mtools', 'dosfstools'];
const MODULES = ['virtio_pci', 'virtio_blk', 'virtio_net', 'virtio_console', 'virtio_balloon', 'virtio_rng', 'virtio_scsi', 'sr_mod', 'isofs', 'vfat', 'nls_cp437', 'nls_ascii', 'evdev', 'button'];
const COMMAND_LINE = 'console=tty0 console=ttyS0,115200 quiet panic=10 mitigations=off no_timer_check random.trust_cpu=on';

const [SIZE_MIB, BOOT_MIB, SPARE_MIB] = [64, 32, 8];

export interface GuestImageFolders {
  /** Where the image goes: QEMU's user must be able to read it. */
  readonly images: string;
  /** Where downloaded packages are kept. */
  readonly cache: string;
}

/** The image, built when it is not there yet; `say` hears what takes time. */
export async function guestImage(folders: GuestImageFolders, say: (what: string) => void = () => {}): Promise<GuestImage> {
  mkdirSync(folders.images, { recursive: true });
  const recipe = recipeHash();
  const known = builtBefore<GuestImage>(folders.images, 'micro', recipe);
  if (known) return known;

  const kernelPackage = await cloudKernelPackage('amd64');
  const versions = await versionsOf([kernelPackage, ...PACKAGES]);
  const file = `micro-${hashOf(recipe, ...versions).slice(0, 12)}.qcow2`;
  const path = join(folders.images, file);
  if (!existsSync(path)) {
    say(`downloading what the guest image is made of (${versions[0]}, busybox, guest agent)`);
    const root = await unpacked(versions, join(folders.cache, `guest-packages-${hashOf(...versions).slice(0, 12)}`));
    say('building the guest image');
    await build(root, kernelPackage, path);
  }
  const image: GuestImage = { name: 'micro', file, format: 'qcow2', sha256: await hashOfFile(path), sizeBytes: statSync(path).size, minDiskGib: 1, minMemoryMib: 128 };
  writeWhole(join(folders.images, 'micro.json'), JSON.stringify({ recipe, image }), 0o644);
  return image;
}

/** What was built from this recipe before. Newer packages alone are no reason to build again at each start. */
export function builtBefore<I extends { readonly file: string; readonly sizeBytes: number }>(images: string, name: string, recipe: string): I | undefined {
  const index = join(images, `${name}.json`);
  if (!existsSync(index)) return undefined;
  try {
    const kept = JSON.parse(readFileSync(index, 'utf8')) as { recipe: string; image: I };
    const path = join(images, kept.image.file);
    return kept.recipe === recipe && existsSync(path) && statSync(path).size === kept.image.sizeBytes ? kept.image : undefined;
  } catch {
    return undefined; // half a file: build again
  }
}

async function build(root: string, kernelPackage: string, target: string): Promise<void> {
  const release = kernelPackage.replace(/^linux-image-/, '').replace(/-unsigned$/, '');
  const work = mkdtempSync(`${target}.`);
  try {
    const draft = join(work, 'micro.qcow2');
    await makeDisk({ tools: root, kernel: join(root, 'boot', `vmlinuz-${release}`), initialRoot: await initialRoot(root, release), commandLine: COMMAND_LINE, bootMib: BOOT_MIB, sizeMib: SIZE_MIB, second: spare(SPARE_MIB, work) }, work, draft);
    chmodSync(draft, 0o644);
    renameSync(draft, target);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

async function initialRoot(root: string, release: string): Promise<Buffer> {
  const ours = (name: string): Buffer => readFileSync(join(import.meta.dirname, 'guest', name));
  const file = (path: string, content: Buffer | string, mode = 0o644): ArchiveEntry => ({ path, kind: 'file', mode, content: Buffer.from(content) });
  const link = (path: string, to: string): ArchiveEntry => ({ path, kind: 'link', mode: 0o777, content: Buffer.from(to) });
  const modules = modulesInOrder([join(root, 'lib/modules', release), join(root, 'usr/lib/modules', release)].find(existsSync) ?? '', MODULES);
  const agent = join(root, 'usr/sbin/qemu-ga');
  const libraries = await librariesOf(agent, root);
  const busybox = [join(root, 'bin/busybox'), join(root, 'usr/bin/busybox')].find(existsSync) ?? '';
  return archive([
    ...['proc', 'sys', 'dev', 'run', 'tmp', 'root', 'data', 'var/run', 'etc/qemu'].map((path): ArchiveEntry => ({ path, kind: 'folder', mode: 0o755 })),
    file('init', ours('init'), 0o755),
    file('etc/udhcpc', ours('udhcpc'), 0o755),
    file('sbin/shutdown', ours('shutdown'), 0o755),
    file('sbin/chpasswd', ours('chpasswd'), 0o755),
    // Where the guest agent looks for it.
    link('sbin/hwclock', '/bin/busybox'),
    file('etc/acpi/PWRF/00000080', '#!/bin/sh\nexec /sbin/shutdown -h\n', 0o755),
    file('etc/passwd', 'root:x:0:0:root:/root:/bin/sh\n'),
    file('etc/shadow', 'root::20000:0:99999:7:::\n', 0o600),
    file('etc/group', 'root:x:0:\n'),
    file('etc/issue', 'Chronovirt micro guest \\n on \\l\n'),
    file('bin/busybox', readFileSync(busybox), 0o755),
    ...APPLETS.map((name) => link(`bin/${name}`, '/bin/busybox')),
    file('usr/sbin/qemu-ga', readFileSync(agent), 0o755),
    ...libraries.map((library) => file(library.path.slice(1), readFileSync(library.file), 0o755)),
    ...modules.map((module) => file(`lib/modules/${module.name}.ko`, module.content)),
    file('lib/modules/order', modules.map((module) => `/lib/modules/${module.name}.ko\n`).join('')),
  ]);
}

const APPLETS = ('[ acpid ash awk basename cat chmod chown clear cp cut date dd df dmesg du echo env expr false find free fsfreeze getty grep halt head hexdump hostname id ifconfig insmod ip kill less ln login ls lsmod md5sum ' +
  'mkdir mknod mkpasswd more mount mv nc netstat nslookup pidof ping poweroff printf ps pwd reboot rm rmdir route run-parts sed seq setsid sh sha256sum sleep sort stty su sync tail tar tee test top touch tr true udhcpc umount uname uptime vi wc wget which xargs').split(' ');

/** Everything of ours that decides what is in the image. */
function recipeHash(): string {
  const guest = join(import.meta.dirname, 'guest');
  const files = readdirSync(guest, { withFileTypes: true }).filter((entry) => entry.isFile()).map((entry) => join(guest, entry.name)).sort();
  return hashOf(...[...files, import.meta.filename].map((file) => readFileSync(file, 'utf8')));
}

export function hashOf(...texts: readonly string[]): string {
  const hash = createHash('sha256');
  for (const text of texts) hash.update(`${text.length}:${text}`);
  return hash.digest('hex');
}

export async function hashOfFile(path: string): Promise<string> {
  const hash = createHash('sha256');
  await pipeline(createReadStream(path), hash);
  return hash.digest('hex');
}
