/*
 * What a difference that one node found is, seen with what is known of the others: a function of the finding
 * and of where the VM should be. A node knows only itself: that a domain is gone from one and has appeared on
 * another is one thing, and that both have it is another.
 */
import type { Finding } from '@chronovirt/contracts/drift/drift.commands';
import type { DriftItem } from '@chronovirt/contracts/drift/drift.events';
import type { NodeId } from '@chronovirt/contracts/ids';
import type { VmEntry } from '../view.projection.ts';

export interface Known {
  readonly nodeId: NodeId;
  /** The VM that is meant; undefined: there is none, or it was deleted. */
  readonly vm: VmEntry | undefined;
  /** Another node that found the VM's domain and was not told to have it. */
  readonly strayOn: string | null;
  /** Milliseconds since the epoch. */
  readonly now: number;
  readonly idOf: (nodeId: NodeId, subject: string) => DriftItem['driftId'];
}

/** An operation that ended this long ago, or later, may be the reason. */
const NEAR_MS = 5 * 60_000;

/** undefined: it is of no concern, or somebody is at it. */
export function classify({ kind, subject, vmId, name, differences, foreign, says }: Finding, known: Known): DriftItem | undefined {
  const { nodeId, vm, strayOn, now, idOf } = known;
  const near = vm === undefined || now - vm.calledAt > NEAR_MS ? null : { seconds: Math.max(0, Math.round((now - vm.calledAt) / 1_000)) };
  const item = { driftId: idOf(nodeId, subject), nodeId, subject, vmId, name, differences, foreign, says, near };
  switch (kind) {
    case 'domain':
      return vm?.nodeId === nodeId ? { ...item, class: 'changed' } : undefined;
    case 'missing':
      if (vm?.nodeId !== nodeId) return undefined;
      return strayOn === null ? { ...item, class: 'missing' } : { ...item, class: 'moved', differences: [{ field: 'nodeId', expected: nodeId, seen: strayOn }], says: 'its domain is on another node' };
    case 'stray':
      if (vm === undefined) return { ...item, vmId: null, class: 'foreign' };
      // It is being taken away, or will be as soon as that can be; or it is on its way.
      if (vm.busy || vm.owed.length > 0 || vm.nodeId === null) return undefined;
      if (vm.nodeId === nodeId) return undefined;
      return vm.observed === 'absent'
        ? { ...item, class: 'moved', differences: [{ field: 'nodeId', expected: vm.nodeId, seen: nodeId }], says: 'the domain of a VM of another node, which does not have it any more' }
        : { ...item, class: 'duplicate', differences: [{ field: 'nodeId', expected: vm.nodeId, seen: nodeId }], says: 'a second domain with the id of a VM that another node has: never start both' };
    case 'disk-missing':
    case 'disk-replaced':
      return vmId === null || vm?.nodeId === nodeId ? { ...item, class: kind } : undefined;
    case 'foreign':
    case 'orphan-disk':
    case 'network':
      return { ...item, class: kind };
  }
}

/** What the node had found, from what was made of it. */
export const findingOf = ({ class: klass, subject, vmId, name, differences, foreign, says }: DriftItem): Finding => ({
  subject, vmId: vmId ?? null, name, differences, foreign, says,
  kind: klass === 'changed' ? 'domain' : klass === 'missing' || (klass === 'moved' && foreign === null) ? 'missing' : klass === 'moved' || klass === 'duplicate' ? 'stray' : klass,
});
