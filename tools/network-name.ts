/*
 * Under which name the VMs' network can be made in this machine's libvirt.
 *
 * The name is `cv-default`, unless libvirt has a network of that name which is not of this
 * installation. One that an earlier installation left behind (its folder was deleted, say) is removed when
 * it is ours by its metadata, no domain refers to it and nobody is connected to libvirtd, whose network it
 * might be. Else somebody lives there, and this installation's network gets a name of its own.
 */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { until } from './child.ts';
import { connections } from './libvirt.ts';

const OURS = 'urn:chronovirt:network:';
const DOMAINS_MAX = 1_000;
const CONNECTIONS_GONE_WITHIN_MS = 500;

export interface NetworkName {
  readonly name: string;
  /** What was done about a network of the same name, for people. */
  readonly remark?: string;
}

/** What is asked of the machine, so that the choice can be tried without one. */
export interface Machine {
  /** Runs virsh; rejects when it fails. */
  readonly virsh: (...args: readonly string[]) => Promise<string>;
  /** Clients of libvirtd now. */
  readonly connections: () => number;
}

const thisMachine: Machine = { virsh: runVirsh, connections };

export async function networkNameFor(wanted: string, installation: string, machine: Machine = thisMachine): Promise<NetworkName> {
  const { virsh } = machine;
  const there = await virsh('net-dumpxml', wanted).catch(() => undefined);
  if (there === undefined) return { name: wanted };
  const own = `${wanted}-${installation}`;
  const other = (because: string): NetworkName => ({ name: own, remark: `libvirt has a network ${wanted} already (${because}), so this installation's is called ${own}` });
  if (!there.includes(OURS)) return other('not of Chronovirt');
  if (await isReferredTo(wanted, machine)) return other('virtual machines of another installation are on it');
  if (!(await until(() => machine.connections() === 0, { withinMs: CONNECTIONS_GONE_WITHIN_MS }))) return other('another installation may be running');
  await virsh('net-destroy', wanted).catch(() => undefined); // it may be inactive
  await virsh('net-undefine', wanted);
  return { name: wanted, remark: `removed the network ${wanted} that an earlier installation left behind` };
}

async function isReferredTo(network: string, { virsh }: Machine): Promise<boolean> {
  const domains = (await virsh('list', '--all', '--uuid')).split('\n').map((line) => line.trim()).filter(Boolean);
  if (domains.length > DOMAINS_MAX) return true; // a machine so full is no place to remove anything from
  for (const uuid of domains) {
    const definition = await virsh('dumpxml', uuid).catch(() => '');
    if (definition.includes(`network='${network}'`)) return true;
  }
  return false;
}

async function runVirsh(...args: readonly string[]): Promise<string> {
  const { stdout } = await promisify(execFile)('virsh', ['-q', '-c', 'qemu:///system', ...args], { timeout: 15_000, env: { PATH: process.env['PATH'], LANG: 'C.UTF-8' } });
  return stdout;
}
