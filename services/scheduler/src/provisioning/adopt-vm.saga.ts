/*
 * Makes a VM of a domain that somebody else made, while it runs. Everything that only the log decides comes
 * first; the node's part is last, and changes nothing but what is said about the domain.
 *
 *     name, capacity ─▶ volumes ─▶ domain
 *
 * The way back never removes anything: the domain is nobody's again, and runs on. What a silent node keeps
 * from being taken back, `settleAdoption` takes back under the undo's own id.
 */
import type { Outgoing } from '@chronovirt/contracts/command';
import type { OperationId, PoolId } from '@chronovirt/contracts/ids';
import type { AdoptedLayout } from '@chronovirt/contracts/vm/vm.events';
import { nothingToUndo, type Saga } from '@chronovirt/decider/saga';
import { type Machine, planOf } from '../vm/domain-plan.ts';
import { failVm, finishRemoval, finishVm, type OnNode, owedUndo, PLACEMENT_GONE, verb } from './node-verb.ts';

export interface AdoptVm extends OnNode {
  readonly operationId: OperationId;
  readonly machine: Machine;
  readonly poolId: PoolId;
  readonly layout: AdoptedLayout;
  /** SHA-256 of the name. */
  readonly nameKey: string;
}

const DECIDED_MS = 30_000;

const unclaim = ({ vmId, nameKey }: AdoptVm): Outgoing => ({ to: 'scheduler', target: nameKey, type: 'UnclaimVmName', data: { key: nameKey, owner: vmId } });
const unplace = ({ vmId, nodeId, operationId }: AdoptVm): Outgoing => ({ to: 'scheduler', target: vmId, type: 'UnplaceVm', data: { vmId, operationId, nodeId } });
/** The first is the one that the VM was made with: it has no name. */
const volumesOf = ({ layout, machine: { spec } }: AdoptVm) => layout.disks.map(({ volumeId, sizeGib, target }, index) => ({ volumeId, sizeGib, ...(index === 0 ? {} : { name: `${spec.name.slice(0, 50)}-${target}` }) }));
const forget = (vm: AdoptVm): Outgoing => ({ to: 'storage', target: vm.vmId, type: 'DeleteVolumes', data: { vmId: vm.vmId, poolId: vm.poolId, volumes: volumesOf(vm).map(({ sizeGib: _, ...volume }) => volume) } });
const release = (vm: AdoptVm): Outgoing => verb('ReleaseDomain', vm, { volumes: vm.layout.disks.map(({ volumeId }) => volumeId) });

export const adoptVm: Saga<AdoptVm, Outgoing> = {
  name: 'adopt-vm',
  steps: {
    name: {
      deadlineMs: DECIDED_MS,
      run: ({ vmId, nameKey, machine: { spec } }) => ({ to: 'scheduler', target: nameKey, type: 'ClaimVmName', data: { key: nameKey, owner: vmId, label: spec.name } }),
      undo: unclaim,
    },
    capacity: {
      deadlineMs: DECIDED_MS,
      run: ({ vmId, nodeId, poolId, machine: { spec } }) => ({ to: 'scheduler', target: nodeId, type: 'ReserveCapacity', data: { nodeId, vmId, vcpus: spec.vcpus, memoryMib: spec.memoryMib, poolId, byHand: true, decision: { adopted: nodeId } } }),
      undo: unplace,
    },
    volumes: {
      after: ['name', 'capacity'],
      deadlineMs: DECIDED_MS,
      // Each of several may have been taken before one was refused.
      undoRefused: true,
      run: (vm) => ({ to: 'storage', target: vm.vmId, type: 'CreateVolumes', data: { vmId: vm.vmId, poolId: vm.poolId, nodeId: vm.nodeId, volumes: volumesOf(vm) } }),
      undo: forget,
    },
    domain: {
      after: ['volumes'],
      deadlineMs: 60_000,
      undoDeadlineMs: 30_000,
      undoRefused: true,
      run: (vm) => verb('AdoptDomain', vm, { ...planOf(vm.machine), files: vm.layout.disks.map(({ volumeId, file }) => ({ volumeId, file })) }),
      undo: release,
    },
  },
  done: (vm, facts) => {
    const [first] = vm.layout.disks;
    if (first === undefined) throw new Error(`${vm.vmId} was adopted without a disk`);
    const { definition, ...seen } = { ...facts['domain'] };
    return finishVm(vm, seen, {
      ...(definition === undefined ? {} : { definition }), how: 'adopted', provisioned: { poolId: vm.poolId, volumeId: first.volumeId, address: null, prefix: null, mac: null } });
  },
  failed: failVm,
};

export interface SettleAdoption extends AdoptVm {
  /** The operation whose undo is owed. */
  readonly failedOperationId: OperationId;
}

const undo = nothingToUndo('it is itself an undo');

export const settleAdoption: Saga<SettleAdoption, Outgoing> = {
  name: 'settle-adoption',
  cleanUp: true,
  steps: {
    domain: { deadlineMs: 60_000, undo, settledBy: PLACEMENT_GONE, run: (vm) => ({ ...release(vm), ...owedUndo(adoptVm.name, vm.failedOperationId, 'domain') }) },
    // What was to make them may still come.
    volumes: { after: ['domain'], deadlineMs: DECIDED_MS, undo, run: (vm) => ({ ...forget(vm), ...owedUndo(adoptVm.name, vm.failedOperationId, 'volumes') }) },
    capacity: { after: ['domain'], deadlineMs: DECIDED_MS, undo, run: unplace },
    name: { after: ['domain'], deadlineMs: DECIDED_MS, undo, run: unclaim },
  },
  done: finishRemoval,
  failed: failVm,
};
