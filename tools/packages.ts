/*
 * What the platform needs of the distribution, and getting it.
 *
 * Only what is missing is installed, and nothing of the distribution's own is started or touched:
 * while apt works, a policy-rc.d answers 101 ("do not start services", Debian policy 9.3.3), and
 * postgresql-common is told not to make its cluster "main". Both files are taken away afterwards when
 * we wrote them, and left alone when they were there.
 *
 * A part counts as present when its program is there, whoever brought it: a machine may have it
 * from elsewhere.
 */
import { existsSync, linkSync, mkdirSync, readdirSync, rmSync, statSync, unlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { hasEnded, startProgram, until } from './child.ts';
import { isRoot } from './identity.ts';
import { hasProgram, natsProgram, postgresBin } from './programs.ts';

/** 'tests': peers, certificates and schemas that only tests and benches need. */
export type Part = 'database' | 'bus' | 'hypervisor' | 'guest image' | 'tests';

interface Need {
  readonly part: Part;
  readonly package: string;
  readonly isThere: () => boolean;
}

const NEEDS: readonly Need[] = [
  { part: 'database', package: 'postgresql', isThere: () => postgresBin() !== undefined },
  { part: 'bus', package: 'nats-server', isThere: () => natsProgram() !== undefined },
  { part: 'hypervisor', package: 'libvirt-daemon-system', isThere: () => hasProgram('libvirtd') && hasProgram('virtlogd') && hasQemuDriver() },
  { part: 'hypervisor', package: 'libvirt-clients', isThere: () => hasProgram('virsh') },
  { part: 'hypervisor', package: 'qemu-system-x86', isThere: () => hasProgram('qemu-system-x86_64') },
  { part: 'hypervisor', package: 'qemu-utils', isThere: () => hasProgram('qemu-img') },
  { part: 'hypervisor', package: 'dnsmasq-base', isThere: () => hasProgram('dnsmasq') },
  { part: 'hypervisor', package: 'iptables', isThere: () => hasProgram('iptables') },
  { part: 'hypervisor', package: 'iproute2', isThere: () => hasProgram('ip') },
  { part: 'hypervisor', package: 'xorriso', isThere: () => hasProgram('xorriso') },
  { part: 'hypervisor', package: 'ovmf', isThere: () => existsSync('/usr/share/OVMF/OVMF_CODE_4M.fd') || existsSync('/usr/share/edk2') },
  { part: 'hypervisor', package: 'swtpm', isThere: () => hasProgram('swtpm') },
  { part: 'hypervisor', package: 'swtpm-tools', isThere: () => hasProgram('swtpm_setup') },
  { part: 'hypervisor', package: 'tini', isThere: () => hasProgram('tini') },
  { part: 'guest image', package: 'qemu-utils', isThere: () => hasProgram('qemu-img') },
  // A node can do without: it says so when a password is to be set in the disks of a VM.
  { part: 'tests', package: 'guestfish', isThere: () => hasProgram('guestfish') },
  { part: 'tests', package: 'mmdebstrap', isThere: () => hasProgram('mmdebstrap') },
  { part: 'tests', package: 'e2fsprogs', isThere: () => hasProgram('mke2fs') },
  { part: 'tests', package: 'libxml2-utils', isThere: () => hasProgram('xmllint') },
  { part: 'tests', package: 'openssl', isThere: () => hasProgram('openssl') },
  { part: 'tests', package: 'openssh-server', isThere: () => hasProgram('sshd') },
  { part: 'tests', package: 'openssh-client', isThere: () => hasProgram('ssh') && hasProgram('ssh-keygen') },
  { part: 'tests', package: 'netcat-openbsd', isThere: () => hasProgram('nc') },
  { part: 'tests', package: 'sasl2-bin', isThere: () => hasProgram('saslpasswd2') },
  { part: 'tests', package: 'libsasl2-modules', isThere: () => libraryFolders().some((folder) => existsSync(join(folder, 'sasl2/libscram.so'))) },
  { part: 'tests', package: 'dbus-daemon', isThere: () => hasProgram('dbus-daemon') },
  { part: 'tests', package: 'polkitd', isThere: () => ['/usr/libexec/polkitd', '/usr/lib/polkit-1/polkitd'].some((path) => existsSync(path)) },
  { part: 'tests', package: 'chromium-headless-shell', isThere: () => hasProgram('chromium-headless-shell') || hasProgram('chromium') },
  { part: 'tests', package: 'python3-libvirt', isThere: () => existsSync('/usr/lib/python3/dist-packages/libvirt.py') },
];

const libraryFolders = (): readonly string[] => {
  const roots = ['/usr/lib', '/usr/lib64'].filter((root) => existsSync(root));
  return roots.flatMap((root) => [root, ...readdirSync(root).filter((name) => name.endsWith('-linux-gnu')).map((name) => join(root, name))]);
};

const hasQemuDriver = (): boolean => libraryFolders().some((folder) => existsSync(join(folder, 'libvirt/connection-driver/libvirt_driver_qemu.so')));

export interface Missing {
  readonly packages: readonly string[];
  readonly parts: readonly Part[];
}

/** What the platform itself lacks; `forTests` also what only tests need. */
export function missingPackages({ forTests = false }: { readonly forTests?: boolean } = {}): Missing {
  const missing = NEEDS.filter((need) => (forTests || need.part !== 'tests') && !need.isThere());
  return { packages: [...new Set(missing.map((need) => need.package))], parts: [...new Set(missing.map((need) => need.part))] };
}

/** What to type, for whoever may not install or has no apt. */
export const installCommand = (packages: readonly string[]): string => `apt-get install -y --no-install-recommends ${packages.join(' ')}`;

export type Installing =
  | { readonly outcome: 'nothing was missing' }
  | { readonly outcome: 'installed'; readonly packages: readonly string[] }
  /** `because` is a sentence for people. */
  | { readonly outcome: 'still missing'; readonly missing: Missing; readonly because: string };

/** Installs what is missing, when we may. `say` hears each step; apt's own words go to `logFile`. */
export async function installMissing(logFile: string, say: (what: string) => void, options: { readonly forTests?: boolean } = {}): Promise<Installing> {
  const missing = missingPackages(options);
  if (missing.packages.length === 0) return { outcome: 'nothing was missing' };
  if (!hasProgram('apt-get')) return { outcome: 'still missing', missing, because: 'this machine has no apt-get' };
  if (!isRoot()) return { outcome: 'still missing', missing, because: 'only root may install packages' };

  const untouched = [
    temporary('/usr/sbin/policy-rc.d', '#!/bin/sh\n# Written by Chronovirt while it installs packages: start no service.\nexit 101\n', 0o755),
    temporary('/etc/postgresql-common/createcluster.conf', '# Written by Chronovirt while it installs packages.\ncreate_main_cluster = false\n', 0o644),
  ];
  try {
    say(`installing from the distribution: ${missing.packages.join(' ')}`);
    if (!(await apt(logFile, 'install', '-y', '--no-install-recommends', ...missing.packages))) {
      // Lists that are old name versions that are gone; lists that are not there name nothing.
      say('reading the package lists anew');
      await apt(logFile, 'update', '-q');
      await apt(logFile, 'install', '-y', '--no-install-recommends', ...missing.packages);
    }
  } finally {
    for (const takeAway of untouched) takeAway();
  }
  const left = missingPackages(options);
  if (left.packages.length > 0) return { outcome: 'still missing', missing: left, because: `apt-get could not install everything (its words are in ${logFile})` };
  return { outcome: 'installed', packages: missing.packages };
}

/** Writes a file unless there is one; the answer takes ours away again. Safe when two do it at once. */
function temporary(path: string, content: string, mode: number): () => void {
  if (existsSync(path)) return () => {};
  const madeFolder = mkdirSync(dirname(path), { recursive: true });
  const draft = `${path}.chronovirt-${process.pid}`;
  writeFileSync(draft, content, { mode });
  let inode: number | undefined;
  try {
    linkSync(draft, path);
    inode = statSync(path).ino;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  } finally {
    unlinkSync(draft);
  }
  return () => {
    // Not if somebody has put another in its place meanwhile.
    if (inode !== undefined && existsSync(path) && statSync(path).ino === inode) rmSync(path);
    if (madeFolder !== undefined && existsSync(madeFolder) && readdirSync(madeFolder).length === 0) rmSync(madeFolder, { recursive: true });
  };
}

const APT_WITHIN_MS = 20 * 60_000;

/** Runs apt-get without questions, waiting for others who hold its lock. */
async function apt(logFile: string, ...args: readonly string[]): Promise<boolean> {
  const options = ['-o', 'DPkg::Lock::Timeout=600', '-o', 'Acquire::Retries=3'];
  const environment = { ...process.env, DEBIAN_FRONTEND: 'noninteractive', NEEDRESTART_SUSPEND: '1', UCF_FORCE_CONFFOLD: '1', LANG: 'C.UTF-8' };
  mkdirSync(dirname(logFile), { recursive: true });
  const child = startProgram({ command: 'apt-get', args: [...options, ...args], env: environment, logFile, detached: false });
  if (!(await until(() => hasEnded(child), { withinMs: APT_WITHIN_MS, everyMs: 50 }))) child.kill('SIGTERM');
  return child.exitCode === 0;
}
