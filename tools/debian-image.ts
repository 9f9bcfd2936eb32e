/*
 * The guest image `debian`: a Debian as clouds have it, for tests of what a real distribution does with what
 * it is told. systemd, cloud-init with the NoCloud data source, the QEMU guest agent, OpenSSH, netplan and
 * the "cloud" kernel, all from the distribution's packages, installed by mmdebstrap into a folder that
 * becomes an ext4 file system without being mounted anywhere. It starts by BIOS from its own disk.
 *
 * Nobody can log in until cloud-init has been told a key or a password: there is no password, and no host
 * key of SSH and no machine-id either, since each machine makes its own.
 *
 * A start under emulation costs a minute, and most of that are four starts of Python. So what no cloud
 * needs is left out, and Python's files are compiled beforehand; a start still does all that is claimed:
 * growing the disk, host name, users, keys, files and commands, addresses.
 *
 * Like `micro` it is built once and named after everything that goes into it.
 */
import { execFile } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { makeDisk } from './guest/disk.ts';
import { unpacked, versionsOf } from './guest/distribution.ts';
import { builtBefore, hashOf, hashOfFile, type GuestImageFolders } from './guest-image.ts';
import { isRoot } from './identity.ts';
import { writeWhole } from './secrets.ts';

const run = promisify(execFile);

export interface DebianImage {
  readonly name: 'debian';
  /** The bare name of a file in the folder of images. */
  readonly file: string;
  readonly format: 'qcow2';
  /** Of the file, hexadecimal. */
  readonly sha256: string;
  readonly sizeBytes: number;
  readonly minDiskGib: number;
  readonly minMemoryMib: number;
}

/** What is installed in the guest, beside what every Debian has. */
const PACKAGES = [
  'systemd-sysv', 'udev', 'dbus', 'systemd-resolved', 'netplan.io', 'iproute2', 'iputils-ping', 'linux-image-cloud-amd64', 'initramfs-tools', 'zstd',
  'cloud-init', 'cloud-guest-utils', 'fdisk', 'e2fsprogs', 'qemu-guest-agent', 'openssh-server', 'sudo', 'less',
];
/** What makes a disk start; unpacked, not installed. */
const TOOLS = ['syslinux', 'syslinux-common', 'mtools', 'dosfstools'];
const COMMAND_LINE = 'root=LABEL=root ro console=tty0 console=ttyS0,115200 quiet net.ifnames=0 fsck.mode=skip mitigations=off no_timer_check random.trust_cpu=on';
const BOOT_MIB = 63;
const SIZE_MIB = 2_048;
const BUILD_MS = 15 * 60_000;

/** Before packages are installed: the first root of the kernel has the drivers of these machines and no others. */
const FIRST_ROOT: Readonly<Record<string, string>> = {
  'etc/initramfs-tools/conf.d/chronovirt': 'MODULES=list\nCOMPRESS=gzip\n',
  'usr/share/initramfs-tools/modules.d/chronovirt': 'virtio_pci\nvirtio_blk\nvirtio_scsi\nsd_mod\next4\n',
};

const CLOUD_INIT = {
  ssh_genkeytypes: ['ed25519'],
  manage_etc_hosts: true,
  cloud_init_modules: ['bootcmd', 'write-files', 'growpart', 'resizefs', 'set_hostname', 'update_hostname', 'update_etc_hosts', 'users-groups', 'ssh'],
  cloud_config_modules: ['set-passwords', 'runcmd'],
  cloud_final_modules: ['scripts-per-once', 'scripts-per-boot', 'scripts-per-instance', 'scripts-user', 'final-message'],
};

const FILES: Readonly<Record<string, string>> = {
  'etc/fstab': 'LABEL=root / ext4 defaults 0 1\n',
  'etc/machine-id': '',
  'etc/hostname': 'debian\n',
  // JSON is YAML, but not to ds-identify, a script that looks for the list of sources with a pattern and switches cloud-init off when it finds none.
  'etc/cloud/cloud.cfg.d/95_chronovirt.cfg': ['datasource_list: [ NoCloud, None ]', ...Object.entries(CLOUD_INIT).map(([key, value]) => `${key}: ${JSON.stringify(value)}`), ''].join('\n'),
  'etc/systemd/journald.conf.d/chronovirt.conf': '[Journal]\nStorage=volatile\n',
};

/** Work that a machine of a test has no use for, and that emulation makes long. */
const MASKED = [
  'apt-daily.timer', 'apt-daily-upgrade.timer', 'dpkg-db-backup.timer', 'e2scrub_all.timer', 'e2scrub_reap.service', 'fstrim.timer', 'getty@tty1.service', 'systemd-timesyncd.service',
  'systemd-networkd-wait-online.service', 'cloud-init-hotplugd.socket', 'systemd-binfmt.service', 'systemd-pstore.service', 'modprobe@drm.service', 'modprobe@fuse.service', 'modprobe@configfs.service',
];

/** The image, built when it is not there yet; `say` hears what takes time. Throws without root and mmdebstrap. */
export async function debianImage(folders: GuestImageFolders, say: (what: string) => void = () => {}): Promise<DebianImage> {
  mkdirSync(folders.images, { recursive: true });
  const recipe = hashOf(...[import.meta.filename, join(import.meta.dirname, 'guest/disk.ts')].map((file) => readFileSync(file, 'utf8')));
  const known = builtBefore<DebianImage>(folders.images, 'debian', recipe);
  if (known) return known;
  if (!isRoot()) throw new Error('only root can build the Debian image: its files belong to several users');

  const versions = await versionsOf(TOOLS);
  const tools = await unpacked(versions, join(folders.cache, `disk-tools-${hashOf(...versions).slice(0, 12)}`));
  const file = `debian-${recipe.slice(0, 12)}.qcow2`;
  const path = join(folders.images, file);
  const work = mkdtempSync(`${path}.`);
  try {
    const root = join(work, 'root');
    say('installing Debian into a folder');
    await install(root, work);
    finish(root);
    say('making a disk of it');
    const draft = join(work, 'debian.qcow2');
    await makeBootable(root, tools, work, draft);
    chmodSync(draft, 0o644);
    renameSync(draft, path);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
  const image: DebianImage = { name: 'debian', file, format: 'qcow2', sha256: await hashOfFile(path), sizeBytes: statSync(path).size, minDiskGib: SIZE_MIB / 1_024, minMemoryMib: 512 };
  writeWhole(join(folders.images, 'debian.json'), JSON.stringify({ recipe, image }), 0o644);
  return image;
}

/** The distribution's archives as apt on this machine knows them, one line each as in sources.list(5). */
async function archives(): Promise<{ readonly suite: string; readonly sources: string }> {
  const { stdout } = await run('apt-get', ['indextargets', '--format', '$(ORIGIN)|$(REPO_URI)|$(RELEASE)|$(CODENAME)|$(COMPONENT)', 'Created-By: Packages']);
  const known = stdout.split('\n').map((line) => line.split('|')).filter(([origin, , , , component]) => origin === 'Debian' && component === 'main');
  const suite = known.find(([, , release, codename]) => release === codename)?.[3];
  if (suite === undefined) throw new Error('apt knows no archive of Debian: the image is made of its packages; run apt-get update');
  const lines = known.map(([, uri = '', release = '']) => `deb ${uri} ${release} main`);
  return { suite, sources: `${[...new Set(lines)].join('\n')}\n` };
}

async function install(root: string, work: string): Promise<void> {
  const { suite, sources } = await archives();
  const list = join(work, 'sources.list');
  writeFileSync(list, sources);
  const first = join(work, 'first');
  for (const [path, content] of Object.entries(FIRST_ROOT)) write(first, path, content);
  await run('mmdebstrap', [
    '--variant=minbase', '--mode=root', '--quiet', '--skip=check/qemu', `--include=${PACKAGES.join(',')}`,
    '--aptopt=Apt::Install-Recommends "false"', '--aptopt=Acquire::Retries "3"',
    ...['man', 'locale', 'doc', 'info'].map((dir) => `--dpkgopt=path-exclude=/usr/share/${dir}/*`), '--dpkgopt=path-include=/usr/share/doc/*/copyright',
    // mmdebstrap's own word for copying, not a command of a shell.
    `--essential-hook=sync-in ${first} /`,
    suite, root, list,
  ], { timeout: BUILD_MS, maxBuffer: 16 * 1024 * 1024, env: { PATH: process.env['PATH'], LANG: 'C.UTF-8', TMPDIR: work } }).catch((cause: unknown) => {
    throw new Error(`mmdebstrap could not install Debian: ${(cause as { stderr?: string }).stderr?.trim().slice(-2_000) ?? ''}`, { cause });
  });
  await run('chroot', [root, 'python3', '-m', 'compileall', '-q', '/usr/lib/python3/dist-packages'], { timeout: BUILD_MS }).catch(() => undefined); // some files are for other versions of Python
}

function finish(root: string): void {
  for (const [path, content] of Object.entries(FILES)) write(root, path, content);
  const system = join(root, 'etc/systemd/system');
  for (const unit of MASKED) link('/dev/null', join(system, unit));
  link('/lib/systemd/system/systemd-networkd.service', join(system, 'multi-user.target.wants/systemd-networkd.service'));
  link('/lib/systemd/system/systemd-networkd.socket', join(system, 'sockets.target.wants/systemd-networkd.socket'));
  link('../run/systemd/resolve/stub-resolv.conf', join(root, 'etc/resolv.conf'));
  for (const file of readdirSync(join(root, 'etc/ssh')).filter((name) => name.startsWith('ssh_host_'))) rmSync(join(root, 'etc/ssh', file));
  for (const dir of ['var/lib/apt/lists', 'var/cache/apt']) rmSync(join(root, dir), { recursive: true, force: true });
  for (const dir of ['var/lib/apt/lists/partial', 'var/cache/apt/archives/partial']) mkdirSync(join(root, dir), { recursive: true });
}

async function makeBootable(root: string, tools: string, work: string, target: string): Promise<void> {
  const boot = readdirSync(join(root, 'boot'));
  const kernel = boot.find((name) => name.startsWith('vmlinuz-'));
  const initial = boot.find((name) => name.startsWith('initrd.img-'));
  if (kernel === undefined || initial === undefined) throw new Error(`the installed Debian has no kernel: ${boot.join(' ')}`);
  const startMib = 1 + BOOT_MIB;
  await makeDisk({
    tools, kernel: join(root, 'boot', kernel), initialRoot: readFileSync(join(root, 'boot', initial)), commandLine: COMMAND_LINE, bootMib: BOOT_MIB, sizeMib: SIZE_MIB,
    second: {
      sizeMib: SIZE_MIB - startMib, type: 0x83,
      // No checksum seed: growing it while it is mounted must not need a newer kernel's feature.
      write: async (raw) => void (await run('mke2fs', ['-q', '-t', 'ext4', '-L', 'root', '-d', root, '-O', '^metadata_csum_seed', '-F', '-E', `offset=${startMib * 1024 * 1024}`, raw, `${SIZE_MIB - startMib}M`], { timeout: BUILD_MS })),
    },
  }, work, target);
}

function write(root: string, path: string, content: string): void {
  mkdirSync(dirname(join(root, path)), { recursive: true });
  writeFileSync(join(root, path), content);
}

function link(to: string, path: string): void {
  mkdirSync(dirname(path), { recursive: true });
  rmSync(path, { force: true });
  symlinkSync(to, path);
}

if (process.argv[1] === import.meta.filename) {
  const [images = '/var/tmp/cv-agent-spec-images', cache = '/var/tmp/cv-agent-spec-cache'] = process.argv.slice(2);
  console.log(JSON.stringify(await debianImage({ images, cache }, (what) => { console.log(what); })));
}
