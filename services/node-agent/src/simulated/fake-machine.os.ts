/*
 * A machine that is only memory, below the real adapter: the agent speaks libvirt's protocol, over two
 * connections as always, to a fake daemon in this process (@chronovirt/libvirt/fake). So a fleet of
 * hundreds goes the whole way that a real node goes, and the fake can be slow, hang, break connections
 * and crash.
 *
 * The simulation, which must repeat by its seed to the last step, has simulated-hypervisor.ts instead.
 */
import { basename, dirname } from 'node:path';
import { idFrom, uuidOf } from '@chronovirt/contracts/ids';
import type { BackupTargetId, PoolId, VmId, VolumeId } from '@chronovirt/contracts/ids';
import type { DomainState } from '@chronovirt/contracts/vm/vm.events';
import { domainEvents } from '@chronovirt/libvirt/events';
import { FakeDaemon, targetOf } from '@chronovirt/libvirt/fake/daemon';
import { stop } from '@chronovirt/libvirt/fake/life';
import { storageOf } from '@chronovirt/libvirt/fake/storage';
import type { ProcedureName } from '@chronovirt/libvirt/procedures';
import type { InnerName, Layer } from '@chronovirt/contracts/vm/snapshot';
import { refuse } from '../answer.ts';
import type { DiskPlan } from '../hypervisor.ts';
import { fileNamed, publishedAs } from './simulated-hypervisor.ts';
import { createMemoryBackups } from '../backup/memory-backups.ts';
import type { LibvirtHost } from '../libvirt/host.ts';

export interface FakeMachineSettings {
  readonly name: string;
  readonly poolId: PoolId;
  readonly cpus: number;
  readonly memoryMib: number;
  readonly poolGib: number;
  /** Of every call that changes something, milliseconds. */
  readonly latencyMs: number;
}

/** Its daemon takes other clients too, for what somebody with virsh could do. */
export interface FakeMachine {
  readonly daemon: FakeDaemon;
  readonly host: LibvirtHost;
  /** Domains by their VM, ours or not. `boots`: how often its guest came up, by start, reboot or reset. */
  domains(): ReadonlyMap<VmId, { readonly state: Exclude<DomainState, 'absent'>; readonly boots: number }>;
  readonly disks: ReadonlyMap<VolumeId, DiskPlan>;
  /** The guest's QEMU dies. */
  crash(vmId: VmId): void;
}

/** What takes time on a real node. */
const SLOW: readonly ProcedureName[] = [
  'domainDefineXmlFlags', 'domainCreateWithFlags', 'domainShutdownFlags', 'domainDestroyFlags', 'domainUndefineFlags',
  'domainReboot', 'domainReset', 'domainSuspend', 'domainResume', 'networkDefineXml', 'networkCreate',
];

export function createFakeMachine({ name, poolId, cpus, memoryMib, poolGib, latencyMs }: FakeMachineSettings): FakeMachine {
  // As many calls as the client likes: it has a cap of its own. Nobody loses a connection inside a process, so nobody pings.
  // Media and seeds are taken to be there.
  const isFile = (path: string): boolean => {
    const [, volumeId, layer] = /^\/simulated\/(volume_[0-9a-f]{32})(?:\.(\w+))?\.qcow2$/.exec(path) ?? [];
    return volumeId === undefined || (layer === undefined ? disks.has(volumeId as VolumeId) : overlays.has(path));
  };
  const disks = new Map<VolumeId, DiskPlan>();
  const daemon = new FakeDaemon({ hostname: name, cpus, memoryKib: memoryMib * 1_024, guest: { bootMs: 0, shutdownMs: 0 }, clientRequestsMax: 64, keepaliveMs: 0, isFile });
  if (latencyMs > 0) daemon.addFault({ call: SLOW, effect: { kind: 'delay', ms: latencyMs } });
  /** Layers of disks, by their paths: those that were made here, and those that libvirt made for a domain that runs. */
  const overlays = storageOf(daemon.node).files;
  const pathOf = (volumeId: VolumeId, layer: Layer): string => `/simulated/${volumeId}${layer === null ? '' : `.${layer}`}.qcow2`;
  const inner = new Map<VolumeId, Set<InnerName>>();
  const boots = new Map<string, number>();
  daemon.node.listeners.add(({ family, entry, subject, value }) => {
    if (family !== 'domain') return;
    const { event, detail } = value as { readonly event?: string; readonly detail?: string };
    if (event === 'undefined') boots.delete(subject);
    else if ((event === 'started' && detail !== 'restored') || entry === domainEvents.reboot) boots.set(subject, (boots.get(subject) ?? 0) + 1);
  });
  return {
    daemon, disks,
    host: {
      driver: 'simulated', says: 'a simulated libvirt', target: targetOf(daemon),
      accel: { accel: 'tcg', accelBecause: 'a simulated node runs no guests' },
      disks: {
        pathOf,
        exists: async (volumeId, layer) => (layer === null ? disks.has(volumeId) : overlays.has(pathOf(volumeId, layer))),
        ensure: async (disk) => {
          if (!disks.has(disk.volumeId)) disks.set(disk.volumeId, disk);
          return undefined;
        },
        link: async () => undefined,
        unlink: () => Promise.resolve(),
        grow: async (volumeId, _layer, sizeGib) => {
          const disk = disks.get(volumeId);
          if (disk !== undefined) disks.set(volumeId, { ...disk, sizeGib: Math.max(disk.sizeGib, sizeGib) });
          return undefined;
        },
        stack: async (volumeId, layer, on, sizeGib) => {
          overlays.set(pathOf(volumeId, layer), { capacity: sizeGib * 2 ** 30, allocation: 200_704, backing: { path: pathOf(volumeId, on), format: 'qcow2' } });
          return undefined;
        },
        commit: () => Promise.resolve(),
        rebase: async (volumeId, layer, on) => {
          const file = overlays.get(pathOf(volumeId, layer));
          if (file !== undefined) file.backing = { path: pathOf(volumeId, on), format: 'qcow2' };
        },
        drop: async (volumeId, layer) => { overlays.delete(pathOf(volumeId, layer)); },
        keepInside: async (volumeId, as, back) => {
          if (back !== null && inner.get(volumeId)?.has(back) !== true) return refuse('snapshot.missing_on_node', { volumeId, name: back });
          inner.set(volumeId, (inner.get(volumeId) ?? new Set<InnerName>()).add(as));
          return undefined;
        },
        letGo: async (volumeId, name) => { inner.get(volumeId)?.delete(name); },
        keepCount: () => Promise.resolve(),
        formatOf: () => 'qcow2',
        restore: async ({ volumeId }) => {
          if (!disks.has(volumeId)) disks.set(volumeId, { volumeId, sizeGib: 1, imageFile: null, imageFormat: 'qcow2', full: false });
          return undefined;
        },
        locate: () => Promise.resolve(),
        copyOut: () => Promise.resolve(),
        make: async ({ volumeId, format, sizeGib }) => {
          if (!disks.has(volumeId)) disks.set(volumeId, { volumeId, imageFile: null, full: false, imageFormat: format, sizeGib });
          return undefined;
        },
        work: () => Promise.resolve(undefined),
        settle: () => Promise.resolve(undefined),
        remove: async (volumeId) => {
          for (const path of overlays.keys()) if (path.startsWith(`/simulated/${volumeId}.`)) overlays.delete(path);
          inner.delete(volumeId);
          disks.delete(volumeId);
          return undefined;
        },
      },
      poolFolders: {
        open: async () => ({ capacityGib: poolGib, usedGib: 0, volumesGib: 0, files: [] }),
        close: () => Promise.resolve(undefined),
        // No bytes are anywhere, so nobody puts others in their place.
        files: async () => [{ poolId, path: '/simulated', shared: false, files: [...new Set([...[...disks.keys()].map((volumeId) => pathOf(volumeId, null)), ...overlays.keys()])].filter((path) => dirname(path) === '/simulated').map((path) => fileNamed(basename(path))) }],
        look: async () => ({ capacityGib: poolGib, usedGib: 0, volumesGib: 0, files: [...disks.keys()].map((volumeId) => `${volumeId}.qcow2`) }),
      },
      backups: createMemoryBackups(poolId.replace('pool_', 'target_') as BackupTargetId),
      mediaPathOf: (file) => `/simulated/${file}`,
      mediaMissing: () => Promise.resolve(undefined),
      publish: ({ operationId }) => Promise.resolve(publishedAs(operationId)),
      seedPathOf: ({ instanceId }) => `/simulated/${instanceId}.iso`,
      writeSeed: ({ seed: { instanceId } }) => Promise.resolve(`/simulated/${instanceId}.iso`),
      keepSeeds: () => Promise.resolve(),
      wipeRuns: () => Promise.resolve(),
      bootReportPathOf: (vmId) => `/simulated/${vmId}.boot`,
      bootReportOf: () => Promise.resolve(''),
      screenSocketOf: (vmId) => `/simulated/${vmId}.sock`,
      consoleLogOf: (vmId) => `/simulated/${vmId}.log`,
      saves: {
        pathOf: (vmId) => `/simulated/${vmId}.save`,
        holds: (vmId) => Promise.resolve(daemon.node.saves.has(`/simulated/${vmId}.save`)),
        drop: async (vmId) => { daemon.node.saves.delete(`/simulated/${vmId}.save`); },
      },
      prepare: () => Promise.resolve(),
      forgetFiles: () => Promise.resolve(),
      usage: async () => {
        const used = [...daemon.node.domains.values()].reduce((sum, domain) => sum + (domain.active ? domain.facts.memoryKib : 0), 0);
        return { memoryUsedPercent: Math.min(100, Math.round((used * 100) / (memoryMib * 1_024))), loadPercent: 0 };
      },
      pools: async () => [{ poolId, name: 'simulated', capacityGib: poolGib }],
    },
    domains: () => new Map([...daemon.node.domains.values()].map(({ uuid, state, reason }) => [
      idFrom('vm', uuid),
      { state: state === 'shutoff' ? (reason === 'crashed' ? 'crashed' as const : 'stopped' as const) : state === 'paused' ? 'paused' as const : 'running' as const, boots: boots.get(uuid) ?? 0 },
    ])),
    crash: (vmId) => {
      const domain = daemon.node.domains.get(uuidOf(vmId));
      if (domain?.active === true) stop(daemon.node, domain, 'crashed', 'crashed');
    },
  };
}
