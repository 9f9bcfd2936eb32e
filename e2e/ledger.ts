/*
 * What the log says is held, by whom: an account of its own.
 *
 * It is folded here from the events once more, in the plainest way, and not with the services' deciders:
 * a decider that gave the same address twice would also believe that it had not. On the way it notes
 * whatever was decided twice, given away while somebody held it, or taken back from nobody.
 */
import type { Platform } from './platform.ts';

export interface LoggedEvent {
  readonly position: number;
  readonly stream: string;
  readonly type: string;
  readonly data: Readonly<Record<string, unknown>>;
}

export interface VmAccount {
  readonly id: string;
  name: string;
  /** With interfaces of its own. */
  adopted: boolean;
  provisioned: boolean;
  deleted: boolean;
  /** The operation in hand. */
  operation: string | undefined;
  owed: readonly string[];
  observed: string | undefined;
  nodeId: string | undefined;
  generation: number;
  /** Disks beside the first. */
  readonly volumes: Set<string>;
  /** Interfaces beside the first, by MAC. */
  readonly nics: Set<string>;
  readonly snapshots: Set<string>;
}

/** Who holds a volume that no VM has. */
export const NOBODY = 'nobody';

export interface NodeAccount {
  readonly id: string;
  vcpus: number;
  memoryMib: number;
  limit: { vcpus: number; memoryMib: number };
  description: { cpus: number; memoryMib: number } | undefined;
  policy: { cpuPercent: number; memoryPercent: number; memoryReserveMib: number };
  removed: boolean;
}

export interface Ledger {
  readonly head: number;
  readonly vms: ReadonlyMap<string, VmAccount>;
  readonly nodes: ReadonlyMap<string, NodeAccount>;
  /** `<subnet> <address>` to VM. */
  readonly addresses: ReadonlyMap<string, string>;
  /** Volume to VM: space set aside in a pool. */
  readonly space: ReadonlyMap<string, string>;
  /** Volume to VM. */
  readonly volumes: ReadonlyMap<string, string>;
  /** Volumes that are being deleted, by an operation of their own. */
  readonly deleting: ReadonlySet<string>;
  /** `<node> <vm>`. */
  readonly capacity: ReadonlyMap<string, { readonly vmId: string; readonly vcpus: number; readonly memoryMib: number }>;
  /** Stream of the name to VM. */
  readonly names: ReadonlyMap<string, string>;
  /** Sagas that have not ended. */
  readonly open: ReadonlySet<string>;
  readonly operations: { readonly started: number; readonly succeeded: number; readonly compensated: number; readonly failed: number };
  /** Sentences: what should never have been recorded. */
  readonly wrong: readonly string[];
}

export const readEvents = (platform: Platform): Promise<readonly LoggedEvent[]> =>
  platform.sql<{ position: string; stream: string; type: string; data: Record<string, unknown> }>('select position, stream, type, data from event_log.event order by position')
    .then((rows) => rows.map((row) => ({ ...row, position: Number(row.position) })));

export function ledgerOf(events: readonly LoggedEvent[]): Ledger {
  const vms = new Map<string, VmAccount>();
  const nodes = new Map<string, NodeAccount>();
  const addresses = new Map<string, string>();
  const macs = new Map<string, string>();
  const addressOf = new Map<string, string>();
  const space = new Map<string, string>();
  const volumes = new Map<string, string>();
  const deleting = new Set<string>();
  const capacity = new Map<string, { vmId: string; vcpus: number; memoryMib: number }>();
  const names = new Map<string, string>();
  const open = new Set<string>();
  const once = new Set<string>();
  const operations = { started: 0, succeeded: 0, compensated: 0, failed: 0 };
  const wrong: string[] = [];
  let head = 0;

  for (const { position, stream, type, data } of events) {
    const at = `at ${String(position)}`;
    if (position !== head + 1) wrong.push(`after position ${String(head)} comes ${String(position)}`);
    head = position;
    const category = stream.slice(0, stream.lastIndexOf('-'));
    const text = (key: string): string => String(data[key]);
    const number = (key: string): number => Number(data[key]);
    const neverAgain = (what: string): void => {
      if (once.has(what)) wrong.push(`${at}: ${what} was decided twice`);
      once.add(what);
    };
    const give = (map: Map<string, string>, key: string, to: string): void => {
      const holder = map.get(key);
      if (holder !== undefined) wrong.push(`${at}: ${type} gives ${key} to ${to} while ${holder} holds it`);
      map.set(key, to);
    };
    const takeBack = (map: Map<string, unknown>, key: string): void => {
      if (!map.delete(key)) wrong.push(`${at}: ${type} takes ${key} from nobody`);
    };
    const vm = (): VmAccount => {
      const id = stream.slice(stream.lastIndexOf('-') + 1);
      const known = vms.get(id);
      if (known !== undefined) return known;
      const made: VmAccount = { id, name: '', adopted: false, provisioned: false, deleted: false, operation: undefined, owed: [], observed: undefined, nodeId: undefined, generation: 0, volumes: new Set(), nics: new Set(), snapshots: new Set() };
      vms.set(id, made);
      return made;
    };
    const node = (): NodeAccount => {
      const id = stream.slice(stream.lastIndexOf('-') + 1);
      const known = nodes.get(id);
      if (known !== undefined) return known;
      const made: NodeAccount = { id, vcpus: 0, memoryMib: 0, limit: { vcpus: 0, memoryMib: 0 }, description: undefined, policy: { cpuPercent: 800, memoryPercent: 100, memoryReserveMib: 512 }, removed: false };
      nodes.set(id, made);
      return made;
    };
    const limit = (of: NodeAccount): void => {
      if (of.description === undefined) return;
      of.limit = {
        vcpus: Math.floor((of.description.cpus * of.policy.cpuPercent) / 100),
        memoryMib: Math.floor((Math.max(0, of.description.memoryMib - of.policy.memoryReserveMib) * of.policy.memoryPercent) / 100),
      };
    };

    switch (type) {
      case 'VmRequested': {
        const one = vm();
        neverAgain(`VmRequested of ${one.id}`);
        one.name = String((data['spec'] as { name: string }).name);
        one.operation = text('operationId');
        break;
      }
      case 'VmAdoptRequested': {
        neverAgain(`VmAdoptRequested by ${text('operationId')}`);
        const { disks } = data['layout'] as { readonly disks: readonly { readonly volumeId: string }[] };
        // One that was nobody's again may be adopted anew.
        vms.delete(stream.slice(stream.lastIndexOf('-') + 1));
        Object.assign(vm(), { name: String((data['spec'] as { name: string }).name), operation: text('operationId'), nodeId: text('nodeId'), generation: number('generation'), adopted: true, volumes: new Set(disks.slice(1).map(({ volumeId }) => volumeId)) });
        break;
      }
      case 'VmReleased':
        Object.assign(vm(), { operation: undefined, deleted: true, owed: [] });
        break;
      case 'VmPlaced': {
        neverAgain(`the placement of ${text('operationId')}`);
        const one = vm();
        if (number('generation') !== one.generation + 1) wrong.push(`${at}: ${one.id} goes from generation ${String(one.generation)} to ${text('generation')}`);
        Object.assign(one, { nodeId: text('nodeId'), generation: number('generation') });
        break;
      }
      case 'VmProvisioned': {
        neverAgain(`VmProvisioned by ${text('operationId')}`);
        vm().provisioned = true;
        for (const { mac } of (data['nics'] ?? []) as readonly { readonly mac: string }[]) vm().nics.add(mac);
        break;
      }
      case 'VmPowerRequested':
      case 'VmReconfigureRequested':
      case 'VmGuestRequested':
      case 'VmSnapshotRequested':
      case 'VmRevertRequested':
      case 'VmSnapshotDeleteRequested':
      case 'VmDeleteStarted':
      case 'VmCleanUpStarted':
        neverAgain(`${type} of ${text('operationId')}`);
        vm().operation = text('operationId');
        break;
      case 'VmReconfigured': {
        neverAgain(`${type} by ${text('operationId')}`);
        const { volume, nic, change } = data as { volume: { volumeId: string } | null; nic: { mac: string } | null; change: { detachVolume?: { volumeId: string }; removeNic?: string } };
        const { volumes: disks, nics } = vm();
        if (volume !== null) disks.add(volume.volumeId);
        if (nic !== null) nics.add(nic.mac);
        if (change.detachVolume !== undefined && !disks.delete(change.detachVolume.volumeId)) wrong.push(`${at}: ${vm().id} lets go of ${change.detachVolume.volumeId}, which it does not have`);
        if (change.removeNic !== undefined && !nics.delete(change.removeNic)) wrong.push(`${at}: ${vm().id} lets go of ${change.removeNic}, which it does not have`);
        break;
      }
      case 'VmSnapshotTaken':
        vm().snapshots.add((data['snapshot'] as { snapshotId: string }).snapshotId);
        break;
      case 'VmSnapshotDeleted':
        if (!vm().snapshots.delete(text('snapshotId'))) wrong.push(`${at}: ${vm().id} has no snapshot ${text('snapshotId')} to be deleted`);
        break;
      case 'VmOperationDone':
        neverAgain(`the end of ${text('operationId')}`);
        Object.assign(vm(), { operation: undefined, owed: [] });
        break;
      case 'VmOperationFailed': {
        neverAgain(`the end of ${text('operationId')}`);
        const one = vm();
        const owed = data['owed'] as readonly string[];
        Object.assign(one, { operation: undefined, owed: owed.length > 0 ? owed : one.owed });
        break;
      }
      case 'VmDeleted':
        neverAgain(`the end of ${text('operationId')}`);
        Object.assign(vm(), { operation: undefined, deleted: true, owed: [] });
        break;
      case 'VmObserved':
        vm().observed = text('state');
        break;
      case 'AddressLeased': {
        const key = `${stream} ${text('address')}`;
        const before = addressOf.get(`${stream} ${text('vmId')}`);
        if (before !== undefined) wrong.push(`${at}: ${text('vmId')} is given ${text('address')} beside ${before}`);
        give(addresses, key, text('vmId'));
        give(macs, `${stream} ${text('mac')}`, text('vmId'));
        addressOf.set(`${stream} ${text('vmId')}`, text('address'));
        break;
      }
      case 'AddressReleased': {
        takeBack(addresses, `${stream} ${text('address')}`);
        for (const [mac, holder] of macs) if (holder === text('vmId') && mac.startsWith(`${stream} `)) macs.delete(mac);
        addressOf.delete(`${stream} ${text('vmId')}`);
        break;
      }
      case 'SpaceResized':
        if (!space.has(text('volumeId'))) wrong.push(`${at}: ${text('volumeId')} is resized, and has no space`);
        break;
      case 'SpaceReserved':
        give(space, text('volumeId'), data['vmId'] === null ? NOBODY : text('vmId'));
        break;
      case 'SpaceReleased':
        takeBack(space, text('volumeId'));
        break;
      case 'VolumeCreated':
        give(volumes, text('volumeId'), text('vmId'));
        break;
      case 'VolumeRequested':
        give(volumes, text('volumeId'), NOBODY);
        break;
      case 'VolumeAttached':
      case 'VolumeDetached': {
        const [from, to] = type === 'VolumeAttached' ? [NOBODY, text('vmId')] : [text('vmId'), NOBODY];
        if (volumes.get(text('volumeId')) !== from) wrong.push(`${at}: ${type} takes ${text('volumeId')} from ${from}, and ${String(volumes.get(text('volumeId')))} holds it`);
        volumes.set(text('volumeId'), to);
        space.set(text('volumeId'), to);
        break;
      }
      case 'VolumeDeleteStarted':
        neverAgain(`${type} of ${text('operationId')}`);
        deleting.add(text('volumeId'));
        break;
      case 'VolumeDeleteAbandoned':
        deleting.delete(text('volumeId'));
        break;
      case 'VolumeDeleted':
        deleting.delete(text('volumeId'));
        takeBack(volumes, text('volumeId'));
        break;
      case 'NodeDescribed':
        Object.assign(node(), { description: { cpus: number('cpus'), memoryMib: number('memoryMib') } });
        limit(node());
        break;
      case 'NodePolicyChanged':
        Object.assign(node(), { policy: { cpuPercent: number('cpuPercent'), memoryPercent: number('memoryPercent'), memoryReserveMib: number('memoryReserveMib') } });
        limit(node());
        break;
      case 'NodeRemoved':
        node().removed = true;
        for (const key of [...capacity.keys()]) if (key.startsWith(`${node().id} `)) capacity.delete(key);
        break;
      case 'CapacityReserved': {
        const of = node();
        const key = `${of.id} ${text('vmId')}`;
        if (capacity.has(key)) wrong.push(`${at}: ${text('vmId')} has capacity on ${of.id} already`);
        capacity.set(key, { vmId: text('vmId'), vcpus: number('vcpus'), memoryMib: number('memoryMib') });
        of.vcpus += number('vcpus');
        of.memoryMib += number('memoryMib');
        if (of.vcpus > of.limit.vcpus || of.memoryMib > of.limit.memoryMib) {
          wrong.push(`${at}: ${of.id} promises ${String(of.vcpus)} CPUs and ${String(of.memoryMib)} MiB of ${String(of.limit.vcpus)} and ${String(of.limit.memoryMib)}`);
        }
        break;
      }
      case 'CapacityResized': {
        const of = node();
        const key = `${of.id} ${text('vmId')}`;
        const before = capacity.get(key);
        if (before === undefined) {
          wrong.push(`${at}: ${text('vmId')} is resized, and has no capacity on ${of.id}`);
          break;
        }
        capacity.set(key, { vmId: text('vmId'), vcpus: number('vcpus'), memoryMib: number('memoryMib') });
        of.vcpus += number('vcpus') - before.vcpus;
        of.memoryMib += number('memoryMib') - before.memoryMib;
        break;
      }
      case 'CapacityReleased': {
        const of = node();
        takeBack(capacity, `${of.id} ${text('vmId')}`);
        of.vcpus -= number('vcpus');
        of.memoryMib -= number('memoryMib');
        break;
      }
      case 'Claimed':
        if (category === 'vm-name') give(names, stream, text('owner'));
        break;
      case 'Unclaimed':
        if (category === 'vm-name') takeBack(names, stream);
        break;
      case 'SagaStarted':
        neverAgain(`the start of ${stream}`);
        operations.started++;
        open.add(stream);
        break;
      case 'StepAnswered':
      case 'StepRefused':
        neverAgain(`the answer to step ${text('step')} of ${stream}`);
        break;
      case 'UndoAnswered':
        neverAgain(`the undo of step ${text('step')} of ${stream}`);
        break;
      case 'SagaEnded':
        neverAgain(`the end of ${stream}`);
        operations[text('outcome') as 'succeeded' | 'compensated' | 'failed']++;
        open.delete(stream);
        break;
    }
  }
  return { head, vms, nodes, addresses, space, volumes, deleting, capacity, names, open, operations, wrong };
}
