/* The first half of a start: what must be installed and compiled before anything of ours can run. */
import { join } from 'node:path';
import { build, isBuilt } from './build.ts';
import { makeFolders, type Settings } from './home.ts';
import { isRoot, unprivileged, type Identity } from './identity.ts';
import { installCommand, installMissing, missingPackages, type Part } from './packages.ts';
import { say, timed } from './say.ts';

export interface Prepared {
  readonly identity: Identity;
  /** Parts of the machine that are missing and stay so. */
  readonly without: ReadonlySet<Part>;
}

export async function prepare({ home }: Settings, signal: AbortSignal): Promise<Prepared> {
  for (const remark of home.remarks) say(remark);
  const identity = unprivileged();
  makeFolders(home, identity);
  const [without] = await Promise.all([install(join(home.logs, 'packages.log')), isBuilt() ? undefined : timed('compiled', build)]);
  signal.throwIfAborted();
  return { identity, without };
}

async function install(logFile: string): Promise<ReadonlySet<Part>> {
  if (missingPackages().packages.length === 0) return new Set();
  const done = await timed('looked after the distribution’s packages', () => installMissing(logFile, say));
  if (done.outcome !== 'still missing') return new Set();
  const { missing, because } = done;
  const without = new Set(missing.parts);
  say(`${because}, and ${missing.parts.join(' and ')} ${missing.parts.length > 1 ? 'are' : 'is'} missing`);
  say(`to have ${missing.parts.length > 1 ? 'them' : 'it'}, type as root: ${installCommand(missing.packages)}`);
  if (without.has('database') || without.has('bus')) throw new Error('without Postgres and NATS nothing works');
  say('what still works: the whole control plane, with a simulated node in place of this machine');
  return without;
}

/** Why this machine cannot run real virtual machines for us, or undefined when it can. */
export function whyNoHypervisor(without: ReadonlySet<Part>): string | undefined {
  if (without.has('hypervisor')) return 'libvirt or QEMU is missing';
  if (!isRoot()) return 'only root may start libvirtd and its networks (start as root for real virtual machines)';
  return undefined;
}
