/*
 * A hypervisor that is only memory: for hundreds of nodes on a laptop, and for the simulation.
 *
 * The machine and what the agent holds of it are apart, as in the world: `SimulatedMachine` outlives the
 * agent that is killed, and it has the switches of someone who acts behind our back. It follows the rules
 * that the libvirt one follows: a domain needs its disk to start, an address belongs to one lease, memory
 * can run out.
 */
import type { PoolFacts } from '@chronovirt/contracts/agent/agent.commands';
import type { TakenBackup } from '@chronovirt/contracts/backup/backup.events';
import { type BackupId, type BackupTargetId, type BootRunId, idFrom, uuidOf, type PoolId, type VmId, type VolumeId } from '@chronovirt/contracts/ids';
import type { InnerName, InnerStep, Layer, LayerStep } from '@chronovirt/contracts/vm/snapshot';
import type { DomainState, Pending } from '@chronovirt/contracts/vm/vm.events';
import { refuse } from '../answer.ts';
import { isPoweredAsTold } from '../domain/differences.ts';
import type { PoolFile } from '../pool/pool-files.ts';
import type { Refusal } from '../answer.ts';
import type { DiskPlan, Done, DomainPlan, Hypervisor, Lease, Published, SeenDomain, Watcher } from '../hypervisor.ts';

export type Verb = Exclude<keyof Hypervisor, 'bootResults' | 'wipeRuns' | 'compare' | 'strangers' | 'files' | 'compareNetworks' | 'describe' | 'usage' | 'pools' | 'domains' | 'domain' | 'watch'>;

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
  /** A place for backups, which several machines may have together. */
  readonly target?: SimulatedTarget;
}

export interface SimulatedTarget {
  readonly targetId: BackupTargetId;
  readonly backups: Map<BackupId, { readonly vmId: VmId; readonly parent: BackupId | null; readonly volumes: readonly VolumeId[] }>;
}

/** How far a copy has come, as it is said. */
const SAID_PERCENT = [20, 50, 50, 90];

/** No bytes are anywhere; but two are not the same. */
export const publishedAs = (operationId: string): Published => ({ sha256: operationId.slice('op_'.length).repeat(2), sizeBytes: 1, virtualBytes: 2 ** 30 });

/** A file that is only its name; `inode` says which. */
export const fileNamed = (name: string, inode = 0): PoolFile => ({ name, bytes: 0, sizeBytes: null, device: '0', inode: String(inode), bornMs: inode, changedMs: 0, virtualBytes: null });

/** The files of these disks and of the layers on them. */
const filesOf = (disks: Iterable<VolumeId>, layers: ReadonlyMap<VolumeId, ReadonlyMap<string, unknown>>, inodeOf: (volumeId: VolumeId) => number | undefined = () => undefined): readonly PoolFile[] =>
  [...disks].flatMap((volumeId) => [null, ...(layers.get(volumeId)?.keys() ?? [])].map((layer) => fileNamed(`${volumeId}${layer === null ? '' : `.${layer}`}.qcow2`, inodeOf(volumeId))));

interface SimulatedDomain {
  readonly plan: DomainPlan;
  readonly state: Exclude<DomainState, 'absent'>;
  readonly reason: string;
  /** How often its guest came up: by start, reboot or reset. */
  readonly boots: number;
  /** What somebody else made it as; undefined: it was made by us. */
  readonly made?: DomainPlan;
  /** false: it is somebody else's. */
  readonly ours: boolean;
}

/** What an operator with virsh could do. */
export interface SimulatedMachine {
  readonly hypervisor: Hypervisor;
  readonly domains: ReadonlyMap<VmId, SimulatedDomain>;
  readonly disks: ReadonlyMap<VolumeId, DiskPlan>;
  /** What each layer of a disk stands on, beside the one it was made with. */
  readonly layers: ReadonlyMap<VolumeId, ReadonlyMap<string, Layer>>;
  /** What is kept inside of a disk. */
  readonly inner: ReadonlyMap<VolumeId, ReadonlySet<InnerName>>;
  /** By network id, then by MAC. */
  readonly leases: ReadonlyMap<string, ReadonlyMap<string, Lease>>;
  crash(vmId: VmId): void;
  /** Somebody makes a domain of their own, with one disk, and starts it. It has the UUID that this VM would have. */
  makeForeign(vmId: VmId, name: string): void;
  startBehind(vmId: VmId): void;
  undefineBehind(vmId: VmId): void;
  /** A file comes to lie in the folder of the pool, in the place of one that is there. */
  putFile(name: string): void;
  removeFile(name: string): void;
  /** Whether a file that was put there lies there now. */
  hasFile(name: string): boolean;
  /** virsh net-undefine, with all that it knew. */
  undefineNetwork(networkId: string): void;
  /** The power of the whole machine fails and comes back: definitions and disks stay, nothing runs. */
  powerCycle(): void;
}

const FOREIGN_TARGET = 'vda';
const foreignFile = (vmId: VmId): string => `/foreign/${vmId}.qcow2`;

export function createSimulatedMachine(settings: SimulatedSettings): SimulatedMachine {
  const domains = new Map<VmId, SimulatedDomain>();
  const disks = new Map<VolumeId, DiskPlan>();
  /** What guests have run at their boots. */
  const ran = new Map<VmId, Set<BootRunId>>();
  const layers = new Map<VolumeId, Map<string, Layer>>();
  const inner = new Map<VolumeId, Set<InnerName>>();
  const leases = new Map<string, Map<string, Lease>>();
  const pools = new Set<PoolId>([settings.poolId]);
  const factsOf = (poolId: PoolId): PoolFacts => ({ capacityGib: settings.poolGib, usedGib: 0, volumesGib: 0, files: [...disks.values()].filter((disk) => (disk.poolId ?? settings.poolId) === poolId).map(({ volumeId }) => `${volumeId}.qcow2`) });
  const watchers = new Set<Watcher>();
  /** What was done to files by hand; null: it was removed. */
  const byHand = new Map<string, number | null>();
  /** Which file a disk is: another once a verb has made it anew. */
  const inodes = new Map<VolumeId, number>();
  let inodeLast = 0;
  const made = (volumeId: VolumeId): void => { inodes.set(volumeId, ++inodeLast); };
  const isLying = (name: string): boolean => (byHand.get(name) ?? null) !== null;
  const filesNow = (): readonly PoolFile[] => {
    const ours = filesOf(disks.keys(), layers, (volumeId) => inodes.get(volumeId));
    return [...ours.filter(({ name }) => !byHand.has(name)), ...[...byHand].flatMap(([name, inode]) => (inode === null ? [] : [fileNamed(name, inode)]))];
  };

  const announce = (vmId: VmId): void => watchers.forEach((watcher) => { if (domains.get(vmId)?.ours === false) watcher.strange?.(); else watcher.changed(vmId); });
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

  const isThere = ({ volumeId, layer }: Pick<DomainPlan['disks'][number], 'volumeId' | 'layer'>): boolean => disks.has(volumeId) && (layer === null || layers.get(volumeId)?.has(layer) === true);

  /** QEMU writes nothing into the file of a disk that another QEMU has open. */
  const letGo = (vmId: VmId, { volumeId, inner: name }: InnerStep): void => {
    if (inner.get(volumeId)?.has(name) === true && powered(vmId)) throw new Error(`${volumeId} is in use, and ${name} is to go from inside of it`);
    inner.get(volumeId)?.delete(name);
  };

  /** One step of tidying up. What it would tear from below others is a mistake of whoever asks for it. */
  const tidyOne = (vmId: VmId, { volumeId, ...step }: Exclude<LayerStep, InnerStep>): void => {
    const of = layers.get(volumeId);
    const on = of?.get(step.layer);
    if (of === undefined || on === undefined) return;
    const above = [...of].filter(([, below]) => below === step.layer).map(([layer]) => layer);
    const domain = domains.get(vmId);
    const used = domain?.plan.disks.some((disk) => disk.volumeId === volumeId && disk.layer === step.layer) === true;
    if (step.kind === 'drop') {
      if (above.length > 0) throw new Error(`${above.join()} of ${volumeId} stand on ${step.layer}, which is to go`);
      if (used && domain !== undefined && holdsMemory(domain)) throw new Error(`${step.layer} of ${volumeId} is in use and is to go`);
    } else {
      if (on !== step.into) throw new Error(`${step.layer} of ${volumeId} is to go into what it does not stand on`);
      const beside = [...of].filter(([layer, below]) => below === step.into && layer !== step.layer);
      if (beside.length > 0) throw new Error(`${step.into ?? 'the first layer'} of ${volumeId} is to be written, and others stand on it`);
      for (const layer of above) of.set(layer, step.into);
      if (used && domain !== undefined) domains.set(vmId, { ...domain, plan: { ...domain.plan, disks: domain.plan.disks.map((disk) => (disk.volumeId === volumeId ? { ...disk, layer: step.into } : disk)) } });
    }
    of.delete(step.layer);
    if (of.size === 0) layers.delete(volumeId);
  };

  const booted = (vmId: VmId): void => { for (const { runId } of domains.get(vmId)?.plan.bootRuns ?? []) ran.set(vmId, (ran.get(vmId) ?? new Set()).add(runId)); };

  const startNow = (vmId: VmId): Refusal | undefined => {
    const domain = domains.get(vmId);
    if (domain === undefined) return gone(vmId);
    if (domain.state === 'running') return undefined;
    if (domain.state === 'paused') return change(vmId, { state: 'running', reason: 'unpaused' });
    const restored = domain.state === 'saved';
    const missing = domain.plan.disks.find((disk) => !isThere(disk));
    if (missing !== undefined) return refuse('disk.missing_on_node', { volumeId: missing.volumeId });
    if (memoryUsedMib() + domain.plan.memoryMib > settings.memoryMib) return refuse('node.out_of_memory', { wantsMib: domain.plan.memoryMib, freeMib: settings.memoryMib - memoryUsedMib() });
    if (!restored) booted(vmId);
    return change(vmId, restored ? { state: 'running', reason: 'restored' } : { state: 'running', reason: 'booted', boots: domain.boots + 1 });
  };

  const whileOff = (vmId: VmId, effect: () => Refusal | undefined): Refusal | undefined => {
    const domain = domains.get(vmId);
    if (domain === undefined) return gone(vmId);
    return domain.state === 'stopped' || domain.state === 'crashed' ? effect() : refuse('domain.still_running', { vmId, state: domain.state });
  };
  const whileRunning = (vmId: VmId, effect: (domain: SimulatedDomain) => undefined): Refusal | undefined => {
    const domain = domains.get(vmId);
    if (domain === undefined) return gone(vmId);
    return domain.state === 'running' ? effect(domain) : refuse('domain.not_running', { state: domain.state });
  };

  const hypervisor: Hypervisor = {
    describe: async () => ({
      hypervisor: 'simulated', accel: 'tcg', accelBecause: 'a simulated node runs no guests', cpus: settings.cpus, memoryMib: settings.memoryMib, versions: {}, assignable: [{ device: { kind: 'pci', address: '0000:01:00.0' }, says: 'simulated' }],
      ...(settings.target === undefined ? {} : { backupTargets: [{ targetId: settings.target.targetId, name: 'simulated' }] }),
    }),
    usage: async () => ({ memoryUsedPercent: Math.min(100, Math.round((memoryUsedMib() * 100) / settings.memoryMib)), loadPercent: 0 }),
    pools: async () => [{ poolId: settings.poolId, name: 'simulated', capacityGib: settings.poolGib }],
    domains: async () => [...domains].filter(([, { ours }]) => ours).map(([vmId]) => seen(vmId)),
    domain: async (vmId) => seen(vmId),
    compare: async ({ plan, power, pending }) => {
      const domain = domains.get(plan.vmId);
      if (domain === undefined) return undefined;
      const { state, reason } = domain;
      const shown = (one: DomainPlan): string => JSON.stringify([one.name, one.vcpus, one.memoryMib, one.boot, one.media, one.drivers, one.kernel, one.bootMenu, one.assigned, one.disks.map(({ volumeId, unit, layer }) => [volumeId, unit, layer]), one.nics.map(({ mac }) => mac)]);
      const differences = [
        ...(isPoweredAsTold(power, domain) ? [] : [{ field: 'state', expected: power, seen: state }]),
        ...(shown(domain.plan) === shown(plan) ? [] : [{ field: `plan, ${String(pending.length)} pending`, expected: shown(plan).slice(0, 1_000), seen: shown(domain.plan).slice(0, 1_000) }]),
      ];
      return { state, reason, differences };
    },
    strangers: async (besides) => [...domains].filter(([vmId, { ours }]) => !ours || !besides.has(vmId)).map(([vmId, { plan, state, ours }]) => ({
      vmId: ours ? vmId : null, generation: plan.generation,
      domain: { uuid: uuidOf(vmId), name: plan.name, state, vcpus: plan.vcpus, vcpusMax: plan.vcpusMax, memoryMib: plan.memoryMib, memoryMibMax: plan.memoryMibMax, persistent: true, nics: [], obstacles: [], boot: plan.boot, drive: { target: null, file: null },
        disks: ours ? [] : plan.disks.map(({ sizeGib }) => ({ target: FOREIGN_TARGET, file: foreignFile(vmId), format: 'qcow2', bytes: sizeGib * 2 ** 30 })),
      },
    })),
    compareNetworks: async (plans) => new Map(plans.map(({ networkId, name }) => [networkId, leases.has(networkId) ? [] : [{ field: 'network', expected: name, seen: null }]])),
    files: async () => [{ poolId: settings.poolId, path: '/simulated', shared: false, files: filesNow() }],
    watch: (watcher) => {
      watchers.add(watcher);
      return () => void watchers.delete(watcher);
    },

    ensureDisk: (disk) => verb('ensureDisk', undefined, () => {
      if (disks.has(disk.volumeId)) return undefined;
      if (disk.imageFile !== null && settings.imageMissing?.(disk.imageFile) === true) return refuse('image.missing_on_node', { file: disk.imageFile });
      disks.set(disk.volumeId, disk);
      made(disk.volumeId);
      return undefined;
    }),
    removeDisk: (vmId, volumeId, _poolId, found) => verb('removeDisk', vmId ?? undefined, () => {
      if (found !== undefined && disks.has(volumeId)) byHand.set(found, ++inodeLast);
      const domain = vmId === null ? undefined : domains.get(vmId);
      if (domain !== undefined && holdsMemory(domain) && domain.plan.disks.some((disk) => disk.volumeId === volumeId)) return refuse('disk.in_use', { volumeId, vmId });
      disks.delete(volumeId);
      layers.delete(volumeId);
      inner.delete(volumeId);
      return undefined;
    }),

    openPool: async ({ poolId }) => (await verb('openPool', undefined, () => {
      pools.add(poolId);
      return undefined;
    })) ?? factsOf(poolId),
    closePool: (poolId) => verb('closePool', undefined, () => {
      pools.delete(poolId);
      return undefined;
    }),
    lookAtPool: async (poolId) => (await verb('lookAtPool', undefined, () => (pools.has(poolId) ? undefined : refuse('pool.not_on_node', { poolId })))) ?? factsOf(poolId),
    ensureVolume: ({ volumeId, poolId, format, sizeGib, source }) => verb('ensureVolume', undefined, () => {
      if (source.kind === 'volume' && !isThere(source)) return refuse('disk.missing_on_node', { volumeId: source.volumeId });
      if (disks.has(volumeId)) return undefined;
      if (source.kind === 'found') {
        if (!isLying(source.file)) return refuse('volume.file_gone', { file: source.file });
        byHand.set(source.file, null);
      }
      disks.set(volumeId, { volumeId, poolId, imageFile: null, full: false, imageFormat: format, sizeGib });
      made(volumeId);
      return undefined;
    }),
    workOnVolume: ({ volumeId, work }) => verb('workOnVolume', undefined, () => {
      const disk = disks.get(volumeId);
      if (disk === undefined) return refuse('disk.missing_on_node', { volumeId });
      const user = [...domains].find(([, { plan }]) => plan.disks.some((one) => one.volumeId === volumeId));
      if (user !== undefined) throw new Error(`${volumeId} is worked on while ${user[0]} has it`);
      if (work.kind === 'convert') disks.set(volumeId, { ...disk, imageFormat: work.format });
      made(volumeId);
      return undefined;
    }),
    settleVolume: ({ volumeId, format }) => verb('settleVolume', undefined, () => {
      const disk = disks.get(volumeId);
      if (disk === undefined) return undefined;
      disks.set(volumeId, { ...disk, imageFormat: format });
      made(volumeId);
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

    restoreNetwork: ({ networkId }) => verb('restoreNetwork', undefined, () => {
      if (!leases.has(networkId)) leases.set(networkId, new Map());
      return undefined;
    }),

    define: (plan) => verb('define', plan.vmId, () => {
      const present = domains.get(plan.vmId);
      domains.set(plan.vmId, present === undefined ? { plan, state: 'stopped', reason: 'unknown', boots: 0, ours: true } : { ...present, plan });
      announce(plan.vmId);
      return undefined;
    }),
    adopt: async (plan, files) => (await verb('adopt', plan.vmId, () => {
      const present = domains.get(plan.vmId);
      if (present === undefined) return gone(plan.vmId);
      if (files.some(({ file }) => file !== foreignFile(plan.vmId))) return refuse('foreign.changed', { vmId: plan.vmId });
      for (const { volumeId, sizeGib } of plan.disks) disks.set(volumeId, { volumeId, sizeGib, imageFile: null, imageFormat: 'qcow2', full: false });
      return change(plan.vmId, { plan, ours: true });
    })) ?? { definition: '<domain/>' },
    release: (vmId, volumes) => verb('release', vmId, () => {
      const made = domains.get(vmId)?.made;
      if (made === undefined && domains.has(vmId)) throw new Error(`${vmId} is released, and was made by us`);
      for (const volumeId of volumes) disks.delete(volumeId);
      return made === undefined ? undefined : change(vmId, { plan: made, ours: false });
    }),
    restore: (plan) => verb('restore', plan.vmId, () => {
      if (domains.has(plan.vmId)) return undefined;
      domains.set(plan.vmId, { plan, state: 'stopped', reason: 'unknown', boots: 0, ours: true });
      return change(plan.vmId, {});
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
    layer: async (plan, on, live) => {
      let frozen = false;
      const refused = await verb('layer', plan.vmId, () => {
        const present = domains.get(plan.vmId);
        if (present === undefined) return gone(plan.vmId);
        if (holdsMemory(present) && !live) return refuse('domain.still_running', { vmId: plan.vmId });
        const missing = on.find((below) => !isThere(below));
        if (missing !== undefined) return refuse('disk.missing_on_node', { volumeId: missing.volumeId });
        for (const { volumeId, layer: below } of on) {
          const name = plan.disks.find((disk) => disk.volumeId === volumeId)?.layer;
          if (name === undefined || name === null) throw new Error(`${volumeId} is to have no new layer`);
          layers.set(volumeId, (layers.get(volumeId) ?? new Map<string, Layer>()).set(name, below));
        }
        frozen = present.state === 'running';
        return change(plan.vmId, { plan });
      });
      return refused ?? { frozen };
    },
    keepInside: (vmId, volumes, as, back) => verb('keepInside', vmId, () => whileOff(vmId, () => {
      for (const volumeId of volumes) {
        if (!disks.has(volumeId)) return refuse('disk.missing_on_node', { volumeId });
        if (layers.has(volumeId)) throw new Error(`${volumeId} has layers, and something is to be kept inside of the lowest`);
        if (back !== null && inner.get(volumeId)?.has(back) !== true) return refuse('snapshot.missing_on_node', { volumeId, name: back });
        inner.set(volumeId, (inner.get(volumeId) ?? new Set<InnerName>()).add(as));
      }
      return undefined;
    })),
    tidy: (plan, steps, signal) => verb('tidy', plan.vmId, () => {
      if (signal.aborted) return refuse('command.cancelled');
      const present = domains.get(plan.vmId);
      for (const step of steps) {
        // As a node does it: first the domain lets go, then the file goes.
        if (step.kind === 'drop' && present !== undefined && !holdsMemory(present)) change(plan.vmId, { plan });
        if (step.kind === 'forget' || step.kind === 'return') letGo(plan.vmId, step);
        else tidyOne(plan.vmId, step);
      }
      return present === undefined ? undefined : change(plan.vmId, { plan });
    }),
    publish: async ({ operationId, volumeId, layer }) => (await verb('publish', undefined, () => (isThere({ volumeId, layer }) ? undefined : refuse('disk.missing_on_node', { volumeId })))) ?? publishedAs(operationId),
    backup: async (plan, { backupId, targetId, wants, parent }, signal, progress) => {
      const { target } = settings;
      let made: TakenBackup | undefined;
      const refused = await verb('backup', plan.vmId, () => {
        if (signal.aborted) return refuse('command.cancelled');
        if (target?.targetId !== targetId) return refuse('backup.target_missing', { targetId });
        if (!domains.has(plan.vmId)) return gone(plan.vmId);
        const missing = plan.disks.find((disk) => !isThere(disk));
        if (missing !== undefined) return refuse('disk.missing_on_node', { volumeId: missing.volumeId });
        const volumes = plan.disks.map(({ volumeId }) => volumeId);
        const known = parent === null ? undefined : target.backups.get(parent);
        const on = wants !== 'full' && known !== undefined && volumes.every((volumeId) => known.volumes.includes(volumeId)) ? parent : null;
        if (wants === 'incremental' && on === null) return refuse('backup.not_incremental', { because: 'there is nothing to build on' });
        target.backups.set(backupId, { vmId: plan.vmId, parent: on, volumes });
        for (const percent of SAID_PERCENT) progress?.(percent);
        made = {
          kind: on === null ? 'full' : 'incremental', because: 'simulated', parent: on, frozen: domains.get(plan.vmId)?.state === 'running', manifestSha256: '0'.repeat(64),
          files: plan.disks.map(({ volumeId, unit, sizeGib }) => ({ volumeId, unit, sizeGib, bytes: 1, sha256: '0'.repeat(64) })),
        };
        return undefined;
      });
      return refused ?? made ?? gone(plan.vmId);
    },
    undoBackup: (plan, { backupId }) => verb('undoBackup', plan.vmId, () => { settings.target?.backups.delete(backupId); return undefined; }),
    removeBackup: ({ vmId, backupId }) => verb('removeBackup', vmId, () => { settings.target?.backups.delete(backupId); return undefined; }),
    restoreDisks: ({ vmId, chain, disks: wanted }, _, progress) => verb('restoreDisks', vmId, () => {
      const lost = chain.find(({ backupId }) => settings.target?.backups.has(backupId) !== true);
      if (lost !== undefined && !wanted.every(({ volumeId }) => disks.has(volumeId))) return refuse('backup.damaged', { backupId: lost.backupId, file: 'disk-0.qcow2' });
      for (const { volumeId, sizeGib } of wanted) if (!disks.has(volumeId)) disks.set(volumeId, { volumeId, sizeGib, imageFile: null, imageFormat: 'qcow2', full: false });
      for (const percent of SAID_PERCENT) progress?.(percent);
      return undefined;
    }),
    prove: async (vmId, { criterion }) => (await verb('prove', vmId, () => (settings.deaf?.(vmId) === true ? refuse('drill.not_seen', { criterion, seconds: 1, says: 'it hears nothing' }) : whileRunning(vmId, () => undefined)))) ?? { criterion, seconds: 1, says: 'simulated' },
    start: (vmId) => verb('start', vmId, () => startNow(vmId)),
    shutdown: (vmId, { force, signal }) => verb('shutdown', vmId, () => {
      if (!domains.has(vmId)) return gone(vmId);
      if (signal.aborted) return refuse('command.cancelled');
      if (force && domains.get(vmId)?.state === 'saved') return change(vmId, { state: 'stopped', reason: 'destroyed' });
      if (settings.deaf?.(vmId) !== true) return stop(vmId, 'shutdown');
      return force || !powered(vmId) ? stop(vmId, 'destroyed') : refuse('domain.still_running', { vmId });
    }),
    destroy: (vmId) => verb('destroy', vmId, () => stop(vmId, 'destroyed')),
    save: (vmId) => verb('save', vmId, () => {
      const domain = domains.get(vmId);
      if (domain === undefined) return gone(vmId);
      if (domain.state === 'saved') return undefined;
      return holdsMemory(domain) ? change(vmId, { state: 'saved', reason: 'saved' }) : refuse('domain.not_running', { state: domain.state });
    }),
    reboot: (vmId) => verb('reboot', vmId, () => whileRunning(vmId, ({ boots }) => { booted(vmId); return change(vmId, { boots: boots + 1 }); })),
    reset: (vmId) => verb('reset', vmId, () => whileRunning(vmId, ({ boots }) => { booted(vmId); return change(vmId, { boots: boots + 1 }); })),
    suspend: (vmId) => verb('suspend', vmId, () => (domains.get(vmId)?.state === 'paused' ? undefined : whileRunning(vmId, () => change(vmId, { state: 'paused', reason: 'user' })))),
    resume: (vmId) => verb('resume', vmId, () =>
      (domains.get(vmId)?.state === 'paused' ? change(vmId, { state: 'running', reason: 'unpaused' }) : whileRunning(vmId, () => undefined))),
    askGuest: async (vmId) => (await verb('askGuest', vmId, () => whileRunning(vmId, () => undefined))) ?? { method: 'guest-agent' },
    setOfflinePassword: (vmId) => verb('setOfflinePassword', vmId, () => whileOff(vmId, () => undefined)),
    bootResults: async (vmId) => [...ran.get(vmId) ?? []].map((runId) => ({ runId, exitCode: 0, output: '' })),
    wipeRuns: () => Promise.resolve(),
    remove: (vmId) => verb('remove', vmId, () => {
      ran.delete(vmId);
      if (domains.delete(vmId)) announce(vmId);
      return undefined;
    }),
  };

  return {
    hypervisor, domains, disks, layers, inner, leases,
    makeForeign: (vmId, name) => {
      const made: DomainPlan = {
        vmId, nodeId: 'node_00000000000000000000000000000000', generation: 1, name, vcpus: 1, vcpusMax: 1, memoryMib: 256, memoryMibMax: 256, devices: 'virtio', boot: ['disk'], media: null, seed: null, nics: [], adopted: null,
        disks: [{ volumeId: idFrom('volume', vmId.slice(3)), unit: 0, sizeGib: 1, limits: null, layer: null, target: FOREIGN_TARGET }],
      };
      domains.set(vmId, { plan: made, made, ours: false, state: 'running', reason: 'booted', boots: 0 });
      announce(vmId);
    },
    crash: (vmId) => { if (domains.has(vmId)) change(vmId, { state: 'crashed', reason: 'crashed' }); },
    startBehind: (vmId) => void startNow(vmId),
    putFile: (name) => void byHand.set(name, ++inodeLast),
    undefineNetwork: (networkId) => void leases.delete(networkId),
    hasFile: isLying,
    removeFile: (name) => void byHand.set(name, null),
    undefineBehind: (vmId) => { if (domains.delete(vmId)) announce(vmId); },
    powerCycle: () => {
      for (const [vmId, domain] of domains) if (holdsMemory(domain)) domains.set(vmId, { ...domain, state: 'stopped', reason: 'unknown' });
      watchers.forEach((watcher) => { watcher.missed(); });
    },
  };
}
