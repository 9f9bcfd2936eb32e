/*
 * May guests run on the CPU itself, or must they be emulated?
 *
 * /dev/kvm is no proof: there are machines where it opens, a virtual machine can be made, and the guest
 * then stands still for ever (nested virtualisation that is only half there), and libvirt advertises KVM on
 * all of them. So the CPU's flags are asked, and then a guest of 512 bytes is run: a boot sector that
 * writes one letter to the serial port. What does not write it within 5 s does not run.
 *
 * The trial takes half a second, so its outcome is kept until the machine boots again.
 */
import { spawn } from 'node:child_process';
import { access, constants, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export interface Accel {
  readonly accel: 'kvm' | 'tcg';
  /** For a person who wonders why. */
  readonly because: string;
}

export interface AccelOptions {
  /** File that keeps the outcome. */
  readonly remember: string;
  readonly cpuinfo?: string;
  readonly bootIdFile?: string;
  readonly kvmDevice?: string;
  readonly trial?: (accel: 'kvm' | 'tcg') => Promise<boolean>;
}

const TRIAL_MS = 5_000;
const LETTER = 'K';

export async function findAccel(options: AccelOptions): Promise<Accel> {
  const bootId = (await readFile(options.bootIdFile ?? '/proc/sys/kernel/random/boot_id', 'utf8').catch(() => '')).trim();
  const kept = await recall(options.remember, bootId);
  if (kept !== undefined) return kept;
  const found = await examine(options);
  if (bootId !== '') await writeFile(options.remember, JSON.stringify({ bootId, ...found }), { mode: 0o600 });
  return found;
}

async function recall(file: string, bootId: string): Promise<Accel | undefined> {
  try {
    const kept = JSON.parse(await readFile(file, 'utf8')) as Accel & { readonly bootId: string };
    return kept.bootId === bootId && bootId !== '' && (kept.accel === 'kvm' || kept.accel === 'tcg') ? { accel: kept.accel, because: String(kept.because) } : undefined;
  } catch {
    return undefined;
  }
}

async function examine({ cpuinfo = '/proc/cpuinfo', kvmDevice = '/dev/kvm', trial = guestRuns }: AccelOptions): Promise<Accel> {
  const flags = /^flags\s*:(.*)$/m.exec(await readFile(cpuinfo, 'utf8').catch(() => ''))?.[1]?.split(/\s+/) ?? [];
  if (!flags.includes('vmx') && !flags.includes('svm')) {
    return { accel: 'tcg', because: 'the CPU shows neither vmx nor svm: enable VT-x or AMD-V in the BIOS, or nested virtualisation where this machine is itself a virtual one; until then guests are emulated, several times slower' };
  }
  if (!(await access(kvmDevice, constants.R_OK | constants.W_OK).then(() => true, () => false))) {
    return { accel: 'tcg', because: `the CPU can virtualise, but ${kvmDevice} is not there or may not be opened: load the module with \`modprobe kvm_intel\` or \`modprobe kvm_amd\`` };
  }
  if (!(await trial('kvm'))) {
    return { accel: 'tcg', because: `the CPU can virtualise, but a trial guest under KVM did not run within ${TRIAL_MS / 1_000} s: guests are emulated; see dmesg for what KVM says` };
  }
  return { accel: 'kvm', because: 'the CPU can virtualise, and a trial guest ran under KVM' };
}

/** mov dx,0x3f8; mov al,'K'; out dx,al; hlt; jmp to the hlt. Then the mark of a boot sector. */
function bootSector(): Buffer {
  const sector = Buffer.alloc(512);
  Buffer.from([0xba, 0xf8, 0x03, 0xb0, LETTER.charCodeAt(0), 0xee, 0xf4, 0xeb, 0xfd]).copy(sector);
  sector.set([0x55, 0xaa], 510);
  return sector;
}

/** True when a guest of one boot sector writes its letter in time. */
export async function guestRuns(accel: 'kvm' | 'tcg', program = 'qemu-system-x86_64'): Promise<boolean> {
  const folder = await mkdtemp(join(tmpdir(), 'cv-trial-'));
  try {
    const disk = join(folder, 'boot');
    await writeFile(disk, bootSector());
    return await new Promise<boolean>((resolve) => {
      const qemu = spawn(program, [
        '-accel', accel, '-machine', 'pc', '-m', '16', '-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot',
        '-serial', 'stdio', '-drive', `file=${disk},format=raw,if=floppy,readonly=on`,
      ], { stdio: ['ignore', 'pipe', 'ignore'] });
      const timer = setTimeout(() => { settle(false); }, TRIAL_MS);
      const settle = (ran: boolean): void => {
        clearTimeout(timer);
        qemu.kill('SIGKILL');
        resolve(ran);
      };
      qemu.stdout.on('data', (bytes: Buffer) => { if (bytes.includes(LETTER)) settle(true); });
      qemu.once('error', () => { settle(false); });
      qemu.once('exit', () => { settle(false); });
    });
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
