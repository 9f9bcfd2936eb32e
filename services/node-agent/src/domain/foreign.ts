/*
 * What keeps a domain that somebody else made from becoming one of ours, in words for whoever made it. A VM
 * of ours is started, stopped, changed, layered and deleted with its disks; what we could not do one of these
 * with is not taken.
 */
import type { ForeignDomain } from '@chronovirt/contracts/drift/drift.events';

export interface ForeignShape {
  readonly persistent: boolean;
  readonly memoryMib: number;
  readonly disks: readonly { readonly target: string; readonly device: string; readonly file: string | undefined; readonly format: string | undefined; readonly readOnly: boolean; readonly shared: boolean }[];
  readonly nics: ForeignDomain['nics'];
  /** Devices by kind. */
  readonly devices: Readonly<Record<string, number>>;
  readonly snapshots: readonly string[];
}

const DISKS_MAX = 24;
const NICS_MAX = 16;
const MEMORY_MIB_MIN = 64;

export function obstaclesOf({ persistent, memoryMib, disks, nics, devices, snapshots }: ForeignShape): readonly string[] {
  const says: string[] = [];
  const own = disks.filter(({ device }) => device === 'disk');
  if (!persistent) says.push('it is transient: it would be gone when it stops; define it first (virsh dumpxml, virsh define)');
  if ((devices['hostdev'] ?? 0) > 0) says.push('a device of the node is passed through to it (hostdev): detach it first');
  if ((devices['filesystem'] ?? 0) > 0) says.push('a folder of the node is passed through to it (filesystem): detach it first');
  if ((devices['shmem'] ?? 0) > 0) says.push('it shares memory with others (shmem): detach it first');
  if (snapshots.length > 0) says.push(`libvirt keeps snapshots of it (${snapshots.slice(0, 3).join(', ')}): delete them first`);
  if (memoryMib < MEMORY_MIB_MIN) says.push(`it has less than ${String(MEMORY_MIB_MIN)} MiB of memory`);
  if (own.length === 0) says.push('it has no disk');
  if (own.length > DISKS_MAX) says.push(`it has more than ${String(DISKS_MAX)} disks`);
  if (nics.length > NICS_MAX) says.push(`it has more than ${String(NICS_MAX)} interfaces`);
  for (const { target, file, format, readOnly, shared } of own) {
    if (file === undefined) says.push(`its disk ${target} is not a file on the node`);
    else if (format !== 'qcow2') says.push(`its disk ${target} is ${format ?? 'of an unknown format'}, not qcow2: convert it first`);
    if (readOnly || shared) says.push(`its disk ${target} is ${readOnly ? 'read-only' : 'shared with others'}`);
  }
  return says.slice(0, 20).map((line) => line.slice(0, 300));
}
