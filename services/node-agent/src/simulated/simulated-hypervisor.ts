/*
 * A hypervisor that is only memory: for hundreds of nodes on a laptop, and for the simulation.
 *
 * The machine and what the agent holds of it are apart, as in the world: `SimulatedMachine` outlives the
 * agent that is killed, and it has the switches of someone who acts behind our back. It follows the rules
 * that the libvirt one follows: a domain needs its disk to start, an address belongs to one lease, memory
 * can run out.
 */
import type { PoolId, VmId, VolumeId } from '@chronovirt/contracts/ids';
import type { DomainState, Pending } from '@chronovirt/contracts/vm/vm.events';
import { refuse } from '../answer.ts';
import type { Refusal } from '../answer.ts';
import type { DiskPlan, Done, DomainPlan, Hypervisor, Lease, SeenDomain, Watcher } from '../hypervisor.ts';

export type Verb = Exclude<keyof Hypervisor, 'describe' | 'usage' | 'pools' | 'domains' | 'domain' | 'watch'>;

export interface SimulatedSettings {
  readonly poolId: PoolId;
  readonly cpus: number;
  readonly memoryMib: number;
  readonly poolGib: number;
  /** Waits as long as a verb would take, before its effect. Default: not at all. */
  readonly latency?: (verb: Verb, vmId: VmId | undefined) => Promise<void>;
  /** Refuses a verb, or throws a fault, before its effect. */
  readonly trouble?: (verb: Verb, vmId: VmId | undefined) => Refusal | undefined;
  /** Guests that do not hear the power button. */
  readonly deaf?: (vmId: VmId) => boolean;
  /** Image files that are missing. Default: every image is there. */
  readonly imageMissing?: (file: string) => boolean;
}

interface SimulatedDomain {
  readonly plan: DomainPlan;
  readonly state: Exclude<DomainState, 'absent'>;
  readonly reason: string;
  /** How often its guest came up: by start, reboot or reset. */
  readonly boots: number;
}

/** What an operator with virsh could do. */
export interface SimulatedMachine {
  readonly hypervisor: Hypervisor;
  readonly domains: ReadonlyMap<VmId, SimulatedDomain>;
  readonly disks: ReadonlyMap<VolumeId, DiskPlan>;
  /** By network id, then by MAC. */
  readonly leases: ReadonlyMap<string, ReadonlyMap<string, Lease>>;
  crash(vmId: VmId): void;
  startBehind(vmId: VmId): void;
  undefineBehind(vmId: VmId): void;
  /** The power of the whole machine fails and comes back: definitions and disks stay, nothing runs. */
  powerCycle(): void;
}

export function createSimulatedMachine(settings: SimulatedSettings): SimulatedMachine {
  const domains = new Map<VmId, SimulatedDomain>();
  const disks = new Map<VolumeId, DiskPlan>();
  const leases = new Map<string, Map<string, Lease>>();
  const watchers = new Set<Watcher>();

  const announce = (vmId: VmId): void => watchers.forEach((watcher) => { watcher.changed(vmId); });
  const change = (vmId: VmId, changes: Partial<SimulatedDomain>): undefined => {
    const domain = domains.get(vmId);
    if (domain !== undefined) domains.set(vmId, { ...domain, ...changes });
    announce(vmId);
    return undefined;
  };
  const gone = (vmId: VmId): Refusal => refuse('domain.gone', { vmId });
  const seen = (vmId: VmId): SeenDomain => {
    const domain = domains.get(vmId);
    return domain === undefined
      ? { vmId, generation: 0, state: 'absent', reason: 'absent' }
      : { vmId, generation: domain.plan.generation, state: domain.state, reason: domain.reason };
  };
  const holdsMemory = (domain: SimulatedDomain): boolean => domain.state === 'running' || domain.state === 'paused';
  const powered = (vmId: VmId): boolean => {
    const domain = domains.get(vmId);
    return domain !== undefined && holdsMemory(domain);
  };
  const memoryUsedMib = (): number => [...domains.values()].filter(holdsMemory).reduce((sum, domain) => sum + domain.plan.memoryMib, 0);

  /** The verb's time passes, trouble may come, and only then anything happens. */
  const verb = async (name: Verb, vmId: VmId | undefined, effect: () => Refusal | undefined): Done => {
    if (settings.latency !== undefined) await settings.latency(name, vmId);
    return settings.trouble?.(name, vmId) ?? effect();
  };

  const stop = (vmId: VmId, reason: string): undefined => (powered(vmId) ? change(vmId, { state: 'stopped', reason }) : undefined);

  const startNow = (vmId: VmId): Refusal | undefined => {
    const domain = domains.get(vmId);
    if (domain === undefined) return gone(vmId);
    if (domain.state === 'running') return undefined;
    if (domain.state === 'paused') return change(vmId, { state: 'running', reason: 'unpaused' });
    const missing = domain.plan.disks.find(({ volumeId }) => !disks.has(volumeId));
    if (missing !== undefined) return refuse('disk.missing_on_node', { volumeId: missing.volumeId });
    if (memoryUsedMib() + domain.plan.memoryMib > settings.memoryMib) return refuse('node.out_of_memory', { wantsMib: domain.plan.memoryMib, freeMib: settings.memoryMib - memoryUsedMib() });
    return change(vmId, { state: 'running', reason: 'booted', boots: domain.boots + 1 });
  };

  const whileRunning = (vmId: VmId, effect: (domain: SimulatedDomain) => undefined): Refusal | undefined => {
    const domain = domains.get(vmId);
    if (domain === undefined) return gone(vmId);
    return domain.state === 'running' ? effect(domain) : refuse('domain.not_running', { state: domain.state });
  };

  const hypervisor: Hypervisor = {
    describe: async () => ({
      hypervisor: 'simulated', accel: 'tcg', accelBecause: 'a simulated node runs no guests', cpus: settings.cpus, memoryMib: settings.memoryMib, versions: {},
    }),
    usage: async () => ({ memoryUsedPercent: Math.min(100, Math.round((memoryUsedMib() * 100) / settings.memoryMib)), loadPercent: 0 }),
    pools: async () => [{ poolId: settings.poolId, name: 'simulated', capacityGib: settings.poolGib }],
    domains: async () => [...domains.keys()].map(seen),
    domain: async (vmId) => seen(vmId),
    watch: (watcher) => {
      watchers.add(watcher);
      return () => void watchers.delete(watcher);
    },

    ensureDisk: (disk) => verb('ensureDisk', undefined, () => {
      if (disks.has(disk.volumeId)) return undefined;
      if (disk.imageFile !== null && settings.imageMissing?.(disk.imageFile) === true) return refuse('image.missing_on_node', { file: disk.imageFile });
      disks.set(disk.volumeId, disk);
      return undefined;
    }),
    removeDisk: (vmId, volumeId) => verb('removeDisk', vmId ?? undefined, () => {
      const domain = vmId === null ? undefined : domains.get(vmId);
      if (domain !== undefined && holdsMemory(domain) && domain.plan.disks.some((disk) => disk.volumeId === volumeId)) return refuse('disk.in_use', { volumeId, vmId });
      disks.delete(volumeId);
      return undefined;
    }),

    ensureNetwork: (plan) => verb('ensureNetwork', undefined, () => {
      if (!leases.has(plan.networkId)) leases.set(plan.networkId, new Map());
      return undefined;
    }),
    ensureLease: (plan, lease) => verb('ensureLease', lease.vmId, () => {
      const ofNetwork = leases.get(plan.networkId) ?? new Map<string, Lease>();
      for (const other of ofNetwork.values()) {
        if (other.address === lease.address && other.mac !== lease.mac) return refuse('network.address_in_use', { address: lease.address, mac: other.mac });
      }
      leases.set(plan.networkId, ofNetwork.set(lease.mac, lease));
      return undefined;
    }),
    removeLease: (plan, mac) => verb('removeLease', undefined, () => {
      leases.get(plan.networkId)?.delete(mac);
      return undefined;
    }),

    define: (plan) => verb('define', plan.vmId, () => {
      const present = domains.get(plan.vmId);
      domains.set(plan.vmId, present === undefined ? { plan, state: 'stopped', reason: 'unknown', boots: 0 } : { ...present, plan });
      announce(plan.vmId);
      return undefined;
    }),
    configure: async (plan) => {
      let pending: readonly Pending[] = [];
      const refused = await verb('configure', plan.vmId, () => {
        const present = domains.get(plan.vmId);
        if (present === undefined) return gone(plan.vmId);
        for (const { volumeId, sizeGib } of plan.disks) {
          const disk = disks.get(volumeId);
          if (disk === undefined) return refuse('disk.missing_on_node', { volumeId });
          disks.set(volumeId, { ...disk, sizeGib: Math.max(disk.sizeGib, sizeGib) });
        }
        // What is smaller than it was waits for a start; the rest is so at once.
        pending = holdsMemory(present) ? [...(plan.vcpus < present.plan.vcpus ? ['vcpus' as const] : []), ...(plan.memoryMib < present.plan.memoryMib ? ['memoryMib' as const] : [])] : [];
        return change(plan.vmId, { plan });
      });
      return refused ?? { pending };
    },
    start: (vmId) => verb('start', vmId, () => startNow(vmId)),
    shutdown: (vmId, { force, signal }) => verb('shutdown', vmId, () => {
      if (!domains.has(vmId)) return gone(vmId);
      if (signal.aborted) return refuse('command.cancelled');
      if (settings.deaf?.(vmId) !== true) return stop(vmId, 'shutdown');
      return force || !powered(vmId) ? stop(vmId, 'destroyed') : refuse('domain.still_running', { vmId });
    }),
    destroy: (vmId) => verb('destroy', vmId, () => stop(vmId, 'destroyed')),
    reboot: (vmId) => verb('reboot', vmId, () => whileRunning(vmId, ({ boots }) => change(vmId, { boots: boots + 1 }))),
    reset: (vmId) => verb('reset', vmId, () => whileRunning(vmId, ({ boots }) => change(vmId, { boots: boots + 1 }))),
    suspend: (vmId) => verb('suspend', vmId, () => (domains.get(vmId)?.state === 'paused' ? undefined : whileRunning(vmId, () => change(vmId, { state: 'paused', reason: 'user' })))),
    resume: (vmId) => verb('resume', vmId, () =>
      (domains.get(vmId)?.state === 'paused' ? change(vmId, { state: 'running', reason: 'unpaused' }) : whileRunning(vmId, () => undefined))),
    askGuest: async (vmId) => (await verb('askGuest', vmId, () => whileRunning(vmId, () => undefined))) ?? { method: 'guest-agent' },
    remove: (vmId) => verb('remove', vmId, () => {
      if (domains.delete(vmId)) announce(vmId);
      return undefined;
    }),
  };

  return {
    hypervisor, domains, disks, leases,
    crash: (vmId) => { if (domains.has(vmId)) change(vmId, { state: 'crashed', reason: 'crashed' }); },
    startBehind: (vmId) => void startNow(vmId),
    undefineBehind: (vmId) => { if (domains.delete(vmId)) announce(vmId); },
    powerCycle: () => {
      for (const [vmId, domain] of domains) if (holdsMemory(domain)) domains.set(vmId, { ...domain, state: 'stopped', reason: 'unknown' });
      watchers.forEach((watcher) => { watcher.missed(); });
    },
  };
}
