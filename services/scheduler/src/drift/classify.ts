/*
 * What a difference that one node found is, seen with what is known of the others: a function of the finding
 * and of where the VM should be. A node knows only itself: that a domain is gone from one and has appeared on
 * another is one thing, and that both have it is another.
 */
import type { Finding } from '@chronovirt/contracts/drift/drift.commands';
import type { Difference, DriftItem } from '@chronovirt/contracts/drift/drift.events';
import type { NodeId, VmId } from '@chronovirt/contracts/ids';
import type { VolumeEvent } from '@chronovirt/contracts/volume/volume.events';
import type { VmEntry } from '../view.projection.ts';

export interface Known {
  readonly nodeId: NodeId;
  /** The VM that is meant; undefined: there is none, or it was deleted. */
  readonly vm: VmEntry | undefined;
  /** Another node that found the VM's domain and was not told to have it, and whether it runs there. */
  readonly stray: { readonly nodeId: string; readonly runs: boolean } | null;
  /** Of a disk: by the log it is being taken away, or was. */
  readonly isTakenAway?: boolean;
  /** Milliseconds since the epoch. */
  readonly now: number;
  readonly idOf: (nodeId: NodeId, subject: string) => DriftItem['driftId'];
}

/** An operation that ended this long ago, or later, may be the reason. */
const NEAR_MS = 5 * 60_000;

/** undefined: it is of no concern, or somebody is at it. */
export function classify({ kind, subject, vmId, name, differences, foreign, says }: Finding, known: Known): DriftItem | undefined {
  const { nodeId, vm, stray, isTakenAway = false, now, idOf } = known;
  const near = vm === undefined || now - vm.calledAt > NEAR_MS ? null : { seconds: Math.max(0, Math.round((now - vm.calledAt) / 1_000)) };
  const item = { driftId: idOf(nodeId, subject), nodeId, subject, vmId, name, differences, foreign, says, near };
  switch (kind) {
    case 'domain':
      if (vm?.nodeId !== nodeId) return undefined;
      // What is left here is its definition.
      return stray?.runs === true && differences.some(isStopped) ? movedTo(item, stray.nodeId) : { ...item, class: 'changed' };
    case 'missing':
      if (vm?.nodeId !== nodeId) return undefined;
      return stray === null ? { ...item, class: 'missing' } : movedTo(item, stray.nodeId);
    case 'stray':
      if (vm === undefined) return { ...item, vmId: null, class: 'foreign' };
      // It is being taken away, or will be as soon as that can be; or it is on its way.
      if (vm.busy || vm.owed.length > 0 || vm.nodeId === null) return undefined;
      if (vm.nodeId === nodeId) return undefined;
      return strayItem({ ...item, differences: [{ field: 'nodeId', expected: vm.nodeId, seen: nodeId }] }, runsIn(vm.observed), vm.observed === 'absent', runsIn(foreign?.state));
    case 'disk-missing':
    case 'disk-replaced':
      // What an agent began goes on without it; the next one may have lost the journal that says so.
      if (isTakenAway) return undefined;
      return vmId === null || vm?.nodeId === nodeId ? { ...item, class: kind } : undefined;
    case 'foreign':
    case 'orphan-disk':
    case 'network':
    case 'node-restarted':
      return { ...item, class: kind };
  }
}

/** The VM that has a volume, null when none has; and whether its bytes are on their way out. By all events of its stream. */
export function fateOf(events: readonly { readonly type: string; readonly data: object }[]): { readonly vmId: VmId | null; readonly isGoing: boolean } {
  return (events as readonly VolumeEvent[]).reduce<ReturnType<typeof fateOf>>((fate, { type, data }) => {
    switch (type) {
      case 'VolumeCreated':
      case 'VolumeAttached':
        return { ...fate, vmId: data.vmId };
      case 'VolumeDetached':
        return { ...fate, vmId: null };
      case 'VolumeFailed':
      case 'VolumeDeleteStarted':
      case 'VolumeDeleted':
        return { ...fate, isGoing: true };
      case 'VolumeDeleteAbandoned':
        return { ...fate, isGoing: false };
      default:
        return fate;
    }
  }, { vmId: null, isGoing: false });
}

export const runsIn = (state: string | null | undefined): boolean => state === 'running' || state === 'paused';
const isStopped = ({ field, seen }: Difference): boolean => field === 'state' && !runsIn(typeof seen === 'string' ? seen : null);

type Unclassified = Omit<DriftItem, 'class'>;

const ELSEWHERE = 'its domain is on another node; ';

/** What the node itself had found stays behind it: it is that again when the other domain is gone. */
const movedTo = (item: Unclassified, to: string): DriftItem =>
  ({ ...item, class: 'moved', differences: [{ field: 'nodeId', expected: item.nodeId, seen: to }, ...item.differences].slice(0, 50), says: `${ELSEWHERE}${item.says}`.slice(0, 500) });

/** Of two domains that one VM has: which of them there should be, and how bad it is. */
const strayItem = (item: Unclassified, runsAtHome: boolean, isGoneAtHome: boolean, runsHere: boolean): DriftItem => {
  if (isGoneAtHome) return { ...item, class: 'moved', says: 'the domain of a VM of another node, which does not have it any more' };
  if (runsHere && !runsAtHome) return { ...item, class: 'moved', says: 'the domain of a VM of another node runs here; there is only its definition left there: do not start it there' };
  return { ...item, class: 'duplicate', says: runsHere ? 'IT RUNS ON BOTH NODES: a domain with the id of a VM that runs on another node runs here too; if they have one disk, it is being destroyed: stop one of them now' : 'a second domain with the id of a VM that another node has: never start both' };
};

/** What the node had found, from what was made of it. */
export const findingOf = ({ class: klass, subject, vmId, name, differences, foreign, says }: DriftItem): Finding => {
  const of = { subject, vmId: vmId ?? null, name, foreign };
  if (klass === 'moved' && foreign === null) {
    const own = differences.filter(({ field }) => field !== 'nodeId');
    return { ...of, kind: own.some(({ field }) => field === 'state') ? 'domain' : 'missing', differences: own, says: says.replace(ELSEWHERE, '') };
  }
  return { ...of, kind: klass === 'changed' ? 'domain' : klass === 'moved' || klass === 'duplicate' ? 'stray' : klass, differences, says };
};
