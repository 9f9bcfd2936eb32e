/*
 * A real guest for specs, of a small Linux image, under emulation, on a session daemon. Its disk
 * is an overlay in the daemon's own folder, which the daemon's user owns; nothing outlives the folder.
 */
import { execFile } from 'node:child_process';
import { chown } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { Libvirt } from './connection.ts';
import type { Domain } from './layouts.ts';
import { eventually } from './testing-connections.ts';

const run = promisify(execFile);
const nobody = 65_534;
/** Where the image is kept from one run to the next, and what it is made of. */
export const guestImageFolders = { images: '/var/tmp/cv-libvirt-spec-images', cache: '/var/tmp/cv-agent-spec-cache' } as const;

/** A file that the session daemon (ordinary user) may write. */
async function ownedByDaemon(path: string): Promise<string> {
  if (process.getuid?.() === 0) await chown(path, nobody, nobody);
  return path;
}

/** An overlay over an image (a file of `guestImageFolders.images`), qcow2 in the version that bitmaps need. */
export async function bootDisk(folder: string, name: string, image: string): Promise<string> {
  const path = join(folder, name);
  await run('qemu-img', ['create', '-q', '-f', 'qcow2', '-o', 'compat=1.1', '-b', join(guestImageFolders.images, image), '-F', 'qcow2', path]);
  return ownedByDaemon(path);
}

export async function emptyDisk(folder: string, name: string, mib: number, format: 'qcow2' | 'raw' = 'qcow2'): Promise<string> {
  const path = join(folder, name);
  await run('qemu-img', ['create', '-q', '-f', format, path, `${mib}M`]);
  return ownedByDaemon(path);
}

export interface GuestParts {
  readonly name: string;
  readonly uuid: string;
  readonly disk: string;
  /** More devices, as XML. */
  readonly devices?: string;
  /** Room for a second vCPU and for DIMMs. */
  readonly growing?: boolean;
}

export function guestXml({ name, uuid, disk, devices = '', growing = false }: GuestParts): string {
  const memory = growing
    ? `<maxMemory slots='2' unit='MiB'>1024</maxMemory><memory unit='MiB'>256</memory><vcpu current='1'>2</vcpu>`
    : `<memory unit='MiB'>128</memory><vcpu>1</vcpu>`;
  const numa = growing ? `<numa><cell id='0' cpus='0-1' memory='256' unit='MiB'/></numa>` : '';
  return `<domain type='qemu'><name>${name}</name><uuid>${uuid}</uuid>${memory}
    <os><type arch='x86_64' machine='pc'>hvm</type><boot dev='hd'/></os>
    <features><acpi/><tcg><tb-cache unit='MiB'>32</tb-cache></tcg></features>
    <cpu mode='custom' match='exact' check='none'><model fallback='allow'>qemu64</model>${numa}</cpu>
    <on_reboot>restart</on_reboot>
    <pm><suspend-to-mem enabled='yes'/></pm>
    <devices><emulator>/usr/bin/qemu-system-x86_64</emulator><controller type='usb' model='none'/>
      <disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='${disk}'/><target dev='vda' bus='virtio'/></disk>
      <serial type='pty'><target port='0'/></serial>
      <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
      ${devices}<memballoon model='virtio'/></devices></domain>`;
}

/** Waits for the agent of a guest that boots. */
export async function agentAnswers(libvirt: Libvirt, domain: Domain): Promise<void> {
  await eventually(() => libvirt.domainAgentCommand({ domain, command: '{"execute":"guest-ping"}', timeout: 1 }).then(() => true, () => false), 60_000);
}
