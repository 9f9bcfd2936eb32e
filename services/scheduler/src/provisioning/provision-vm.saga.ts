/*
 * What it takes to turn a requested VM into a running one, and how to take it back.
 *
 *     name ─────────────────────────────────────────┐
 *     address, addresses ────┬──────────────▶ domain ┤
 *     capacity ─▶ assignment ┤                       ├─▶ boot
 *              ─▶ space, volume ────────────▶ disk ──┘
 *     source ───────────────────────────────▶     └▶ unchanged
 *
 * The address does not depend on the node, so it is leased while the node is chosen. Everything that a node
 * does comes after everything that only the log decides, so a refusal costs no work on a node.
 */
import type { BootRun } from '@chronovirt/contracts/boot-job/boot-job';
import type { Outgoing } from '@chronovirt/contracts/command';
import type { NodeId, OperationId, PoolId, SubnetId, VmId, VolumeId } from '@chronovirt/contracts/ids';
import { type Copy, type Nic, platformOf, type Restore, type VmSpec } from '@chronovirt/contracts/vm/vm.events';
import type { NetworkPlan } from '@chronovirt/contracts/network/network.events';
import { nothingToUndo, type Saga, type StepFacts } from '@chronovirt/decider/saga';
import { planOf } from '../vm/domain-plan.ts';
import { DAY_MS } from '../durations.ts';
import { findFrozen, layersIn } from './frozen.ts';
import { copyMs, fact, failVm, fetchMs, finishVm, mediaBytes, type OnNode, verb } from './node-verb.ts';

export interface ProvisionVm {
  readonly operationId: OperationId;
  readonly vmId: VmId;
  readonly volumeId: VolumeId;
  readonly spec: VmSpec;
  readonly imageFile: string | null;
  readonly imageFormat: 'qcow2' | 'raw';
  /** Of the image, that the node may have to fetch. */
  readonly fetchBytes?: number;
  readonly network: NetworkPlan;
  /** What its disks begin as, when they are those of a backup. */
  readonly restore?: Restore | null;
  /** What they begin as, when they are those of a snapshot. */
  readonly copy?: Copy | null;
  /** What it runs at its first boot. */
  readonly bootRuns?: readonly BootRun[];
  /** SHA-256 of the name: what its reservation is called. */
  readonly nameKey: string;
}

const placed = (vm: ProvisionVm, facts: StepFacts): OnNode => ({ vmId: vm.vmId, nodeId: fact<NodeId>(facts['capacity'], 'nodeId'), generation: fact<number>(facts['assignment'], 'generation') });
/** What it has of another machine: of a backup of one, or of a snapshot. */
const inherited = ({ restore, copy }: ProvisionVm): Pick<Restore, 'volumes' | 'layout' | 'nics' | 'without'> => restore ?? copy ?? { volumes: [] };
/** Disks beside the first. */
const more = (vm: ProvisionVm): readonly VolumeId[] => inherited(vm).volumes.map(({ volumeId }) => volumeId);
/** Names of volumes are unique: no two machines have the same name, nor two volumes the same digits. */
const nameOf = ({ spec }: ProvisionVm, volumeId: VolumeId): string => `${spec.name.slice(0, 40)}-${volumeId.slice(-8)}`;

/** Of interfaces beside the first. */
const subnetsOf = (vm: ProvisionVm): readonly SubnetId[] => inherited(vm).nics?.map(({ subnetId }) => subnetId) ?? [];

const nicsOf = (vm: ProvisionVm, facts: StepFacts): readonly Nic[] => {
  const networks = inherited(vm).nics ?? [];
  if (networks.length === 0) return [];
  const leased = fact<readonly { readonly subnetId: SubnetId; readonly address: string; readonly mac: string }[]>(facts['addresses'], 'nics');
  return networks.flatMap((network) => leased.flatMap(({ subnetId, address, mac }) => (subnetId === network.subnetId ? [{ network, address, mac }] : [])));
};

const withoutOf = (vm: ProvisionVm): string => {
  const { without } = inherited(vm);
  return without === undefined ? '' : `, without its interfaces in networks that are gone: ${without.join(', ')}`;
};

/** What its disks are to be copies of. */
const sourcesOf = ({ copy }: ProvisionVm, facts: StepFacts): Outgoing | undefined => (copy === undefined || copy === null ? undefined : findFrozen(copy.ofVm, copy.snapshotId, copy.from, facts['source']));

const disksOf = (vm: ProvisionVm, facts: StepFacts): Outgoing => {
  const { volumeId, imageFile, imageFormat, spec, restore, copy } = vm;
  const poolId = fact<PoolId>(facts['capacity'], 'poolId');
  const disks = [{ volumeId, unit: 0, sizeGib: spec.diskGib }, ...inherited(vm).volumes];
  if (restore !== undefined && restore !== null) {
    const { ofVm, targetId, chain } = restore;
    return verb('RestoreDisks', placed(vm, facts), { ofVm, targetId, chain, poolId, disks: disks.map((disk) => ({ volumeId: disk.volumeId, unit: disk.unit, sizeGib: disk.sizeGib })) });
  }
  if (copy !== undefined && copy !== null) {
    const layers = layersIn(facts['source']);
    return verb('CopyDisks', placed(vm, facts), { poolId, disks: copy.from.flatMap((from, index) => {
      const disk = disks[index];
      return disk === undefined ? [] : [{ volumeId: disk.volumeId, sizeGib: disk.sizeGib, from, layer: layers[index] ?? null }];
    }) });
  }
  return verb('EnsureDisk', placed(vm, facts), { volumeId, poolId, imageFile, imageFormat, sizeGib: spec.diskGib, full: spec.clone === 'full' });
};

/** For the way to the node and back. */
const PROOF_MORE_SECONDS = 60;

const allGib = (vm: ProvisionVm): number => inherited(vm).volumes.reduce((sum, { sizeGib }) => sum + sizeGib, vm.spec.diskGib);

/** How long its bytes may take: those of image and media that the node may have to fetch, and those of a copy. */
const bytesMs = (vm: ProvisionVm): number => {
  const { fetchBytes = 0, spec, copy } = vm;
  return fetchMs(fetchBytes + mediaBytes(spec)) + (spec.clone === 'full' || (copy !== undefined && copy !== null) ? copyMs(allGib(vm)) : 0);
};

export const provisionVm: Saga<ProvisionVm, Outgoing> = {
  name: 'provision-vm',
  steps: {
    name: {
      deadlineMs: 30_000,
      run: (vm) => ({ to: 'scheduler', target: vm.nameKey, type: 'ClaimVmName', data: { key: vm.nameKey, owner: vm.vmId, label: vm.spec.name } }),
      undo: (vm) => ({ to: 'scheduler', target: vm.nameKey, type: 'UnclaimVmName', data: { key: vm.nameKey, owner: vm.vmId } }),
    },
    address: {
      deadlineMs: 30_000,
      run: (vm) => ({ to: 'ipam', target: vm.network.subnetId, type: 'LeaseAddress', data: { subnetId: vm.network.subnetId, vmId: vm.vmId } }),
      undo: (vm) => ({ to: 'ipam', target: vm.network.subnetId, type: 'ReleaseAddress', data: { subnetId: vm.network.subnetId, vmId: vm.vmId } }),
    },
    addresses: {
      deadlineMs: 30_000,
      undoRefused: true,
      run: (vm) => (subnetsOf(vm).length === 0 ? undefined : { to: 'ipam', target: vm.vmId, type: 'LeaseAddresses', data: { vmId: vm.vmId, subnetIds: subnetsOf(vm) } }),
      undo: (vm) => ({ to: 'ipam', target: vm.vmId, type: 'ReleaseAddresses', data: { vmId: vm.vmId, subnetIds: subnetsOf(vm) } }),
    },
    source: {
      deadlineMs: 30_000,
      run: sourcesOf,
      undo: nothingToUndo('it only asks'),
    },
    capacity: {
      deadlineMs: 30_000,
      run: (vm) => {
        const { vmId, operationId, spec, restore, copy } = vm;
        return {
          to: 'scheduler', target: vmId, type: 'PlaceVm',
          data: {
            vmId, operationId, vcpus: spec.vcpus, memoryMib: spec.memoryMib, accel: spec.accel, ...platformOf(spec), nodeId: copy?.nodeId ?? spec.nodeId, ...(spec.poolId === undefined ? {} : { poolId: spec.poolId }), byHand: spec.nodeId !== null, targetId: restore?.targetId ?? null,
            diskGib: allGib(vm),
          },
        };
      },
      undo: ({ vmId, operationId }, facts) => ({ to: 'scheduler', target: vmId, type: 'UnplaceVm', data: { vmId, operationId, nodeId: facts['capacity']?.['nodeId'] ?? null } }),
    },
    assignment: {
      after: ['capacity'],
      deadlineMs: 30_000,
      run: ({ vmId, operationId }, facts) => ({
        to: 'scheduler', target: vmId, type: 'AssignVm',
        data: { vmId, operationId, nodeId: fact(facts['capacity'], 'nodeId'), poolId: fact(facts['capacity'], 'poolId'), decision: fact(facts['capacity'], 'decision') },
      }),
      undo: nothingToUndo('the next placement has a higher generation, so this one ends by itself'),
    },
    space: {
      after: ['capacity'],
      deadlineMs: 30_000,
      run: ({ vmId, volumeId, spec }, facts) => ({ to: 'storage', target: fact<PoolId>(facts['capacity'], 'poolId'), type: 'ReserveSpace', data: { poolId: fact(facts['capacity'], 'poolId'), volumeId, vmId, sizeGib: spec.diskGib } }),
      undo: ({ vmId, volumeId }, facts) => ({ to: 'storage', target: fact<PoolId>(facts['capacity'], 'poolId'), type: 'ReleaseSpace', data: { poolId: fact(facts['capacity'], 'poolId'), volumeId, vmId } }),
    },
    volume: {
      after: ['capacity'],
      deadlineMs: 30_000,
      run: ({ vmId, volumeId, spec }, facts) => ({
        to: 'storage', target: volumeId, type: 'CreateVolume',
        data: { volumeId, vmId, poolId: fact(facts['capacity'], 'poolId'), nodeId: fact(facts['capacity'], 'nodeId'), imageId: spec.imageId, sizeGib: spec.diskGib },
      }),
      undo: ({ vmId, volumeId }) => ({ to: 'storage', target: volumeId, type: 'DeleteVolume', data: { volumeId, vmId } }),
    },
    volumes: {
      after: ['space', 'volume'],
      deadlineMs: 30_000,
      undoRefused: true,
      run: (vm, facts) => (more(vm).length === 0 ? undefined : {
        to: 'storage', target: vm.vmId, type: 'CreateVolumes',
        data: {
          vmId: vm.vmId, poolId: fact(facts['capacity'], 'poolId'), nodeId: fact(facts['capacity'], 'nodeId'),
          volumes: inherited(vm).volumes.map(({ volumeId, sizeGib }) => ({ volumeId, sizeGib, name: nameOf(vm, volumeId) })),
        },
      }),
      undo: (vm, facts) => ({ to: 'storage', target: vm.vmId, type: 'DeleteVolumes', data: { vmId: vm.vmId, poolId: fact(facts['capacity'], 'poolId'), volumes: more(vm).map((volumeId) => ({ volumeId, name: nameOf(vm, volumeId) })) } }),
    },
    disk: {
      after: ['assignment', 'space', 'volume', 'volumes', 'source'],
      deadlineMs: 60_000,
      moreMs: (vm) => (vm.restore === undefined || vm.restore === null ? bytesMs(vm) : DAY_MS),
      undoDeadlineMs: 30_000,
      undoRefused: true,
      run: disksOf,
      undo: (vm, facts) => verb('RemoveDisk', placed(vm, facts), { volumeId: vm.volumeId, poolId: fact<PoolId>(facts['capacity'], 'poolId'), more: [...more(vm)] }),
    },
    domain: {
      after: ['assignment', 'address', 'addresses', 'volume'],
      deadlineMs: 60_000,
      // The node does one thing for a VM at a time, and may be at its disk.
      moreMs: bytesMs,
      undoDeadlineMs: 30_000,
      undoRefused: true,
      run: (vm, facts) => verb('DefineDomain', placed(vm, facts), planOf({ ...vm, first: { network: vm.network, mac: fact<string>(facts['address'], 'mac'), address: fact<string>(facts['address'], 'address') }, layout: inherited(vm).layout ?? null, nics: nicsOf(vm, facts), volumes: inherited(vm).volumes, seedVersion: 1, bootRuns: vm.bootRuns ?? [], layers: {} }, vm.restore?.drill)),
      undo: (vm, facts) => verb('RemoveDomain', placed(vm, facts), { nics: [{ network: vm.network, mac: fact<string>(facts['address'], 'mac') }, ...nicsOf(vm, facts).map(({ network, mac }) => ({ network, mac }))] }),
    },
    // Its snapshot may have been deleted while it was read, and what it held be written by a merge.
    unchanged: {
      after: ['disk'],
      deadlineMs: 30_000,
      run: sourcesOf,
      undo: nothingToUndo('it only asks'),
    },
    boot: {
      after: ['name', 'disk', 'unchanged', 'domain'],
      deadlineMs: 60_000,
      run: (vm, facts) => verb('StartDomain', placed(vm, facts), {}),
      undo: nothingToUndo('removing the domain also stops it'),
    },
    proof: {
      after: ['boot'],
      deadlineMs: 0,
      moreMs: ({ restore }) => (restore?.proof === undefined ? 0 : (restore.proof.timeoutSeconds + PROOF_MORE_SECONDS) * 1_000),
      run: (vm, facts) => {
        if (vm.restore?.proof === undefined) return undefined;
        const { criterion, word, timeoutSeconds } = vm.restore.proof;
        return verb('ProveDomain', placed(vm, facts), { proof: { criterion, word, timeoutSeconds } });
      },
      undo: nothingToUndo('it only looks'),
    },
  },
  done: (vm, facts) => finishVm({ ...vm, ...placed(vm, facts) }, facts['boot'], {
    how: `created${withoutOf(vm)}`.slice(0, 200),
    ...(subnetsOf(vm).length === 0 ? {} : { nics: nicsOf(vm, facts) }),
    ...(vm.restore?.proof === undefined ? {} : { proven: `${fact<string>(facts['proof'], 'says')}, seen ${String(fact(facts['proof'], 'seconds'))} s after its start`.slice(0, 300) }),
    provisioned: { poolId: fact(facts['capacity'], 'poolId'), volumeId: vm.volumeId, address: fact(facts['address'], 'address'), prefix: vm.network.prefix, mac: fact(facts['address'], 'mac') },
  }),
  failed: failVm,
};
