/*
 * What must hold once everything has come to rest: nothing leaked, nothing missing, nothing twice.
 *
 * Three witnesses are compared: the log (by an account of its own, ledger.ts), what REST shows, and what
 * really is on the nodes. A VM that lives holds exactly one name, an address for each interface, a volume and
 * space for each disk, and has exactly one domain; layers lie beside its disks only while it has snapshots, and nothing is kept inside of them but those; a VM that is deleted or whose creation failed holds nothing, and has none.
 */
import { ledgerOf, NOBODY, readEvents, type Ledger, type VmAccount } from './ledger.ts';
import type { Platform } from './platform.ts';
import type { Operation, Vm } from './rest.ts';

/** What really is on one node. */
export interface NodeView {
  readonly nodeId: string;
  /** Every domain of ours. */
  domains(): Promise<readonly { readonly vmId: string; readonly running: boolean }[]>;
  /** Ids of the volumes whose disks are there. */
  disks(): Promise<readonly string[]>;
  /** Of the layers on them: to which volume each belongs. */
  layers?(): Promise<readonly string[]>;
  /** What is kept inside of their files, as qemu-img says. */
  inner?(): Promise<readonly { readonly volumeId: string; readonly name: string }[]>;
}

export interface AtRest {
  readonly ledger: Ledger;
  readonly ms: number;
}

/** Sentences; none when all is well. */
export async function broken(platform: Platform, nodes: readonly NodeView[]): Promise<readonly string[]> {
  const ledger = ledgerOf(await readEvents(platform));
  const complaints = [...ledger.wrong];
  const shown = new Map((await platform.rest.all<Vm>('/v1/vms?limit=1000')).map((vm) => [vm.id, vm]));
  const lives = (id: string): boolean => ledger.vms.get(id)?.deleted === false && ledger.vms.get(id)?.provisioned === true;

  const disksOf = ({ volumes }: VmAccount): number => 1 + volumes.size;
  const holders: readonly (readonly [string, ReadonlyMap<string, string>, (vm: VmAccount) => number])[] = [
    ['address', ledger.addresses, ({ nics, adopted }) => (adopted ? 0 : 1) + nics.size], ['space', ledger.space, disksOf], ['volume', ledger.volumes, disksOf], ['name', ledger.names, () => 1],
  ];
  for (const [what, map, due] of holders) {
    const held = new Map<string, number>();
    for (const [key, vmId] of map) {
      held.set(vmId, (held.get(vmId) ?? 0) + 1);
      if (vmId !== NOBODY && !lives(vmId) && !mayHold(ledger, vmId)) complaints.push(`leaked ${what}: ${key} is held by ${describe(ledger, vmId)}`);
    }
    for (const vm of ledger.vms.values()) {
      const count = held.get(vm.id) ?? 0;
      if (lives(vm.id) && vm.operation === undefined && count !== due(vm)) complaints.push(`${describe(ledger, vm.id)} has ${String(count)} of ${what}, and should have ${String(due(vm))}`);
    }
  }
  for (const [key, { vmId }] of ledger.capacity) if (!lives(vmId) && !mayHold(ledger, vmId)) complaints.push(`leaked capacity: ${key} is held by ${describe(ledger, vmId)}`);
  const withCapacity = new Map<string, number>();
  for (const { vmId } of ledger.capacity.values()) withCapacity.set(vmId, (withCapacity.get(vmId) ?? 0) + 1);
  for (const vm of ledger.vms.values()) {
    const count = withCapacity.get(vm.id) ?? 0;
    if (count > 1) complaints.push(`${describe(ledger, vm.id)} has capacity on ${String(count)} nodes`);
    if (lives(vm.id) && vm.observed === 'running' && count !== 1) complaints.push(`${describe(ledger, vm.id)} runs without capacity`);
  }

  const domains = new Map<string, { readonly nodeId: string; readonly running: boolean }[]>();
  const disks = new Map<string, number>();
  for (const node of nodes) {
    for (const { vmId, running } of await node.domains()) domains.set(vmId, [...(domains.get(vmId) ?? []), { nodeId: node.nodeId, running }]);
    for (const volume of await node.disks()) disks.set(volume, (disks.get(volume) ?? 0) + 1);
  }
  if (nodes.length > 0) {
    for (const node of nodes) {
      for (const volume of (await node.layers?.()) ?? []) {
        const owner = ledger.vms.get(ledger.volumes.get(volume) ?? '');
        if (owner === undefined || (owner.snapshots.size === 0 && owner.operation === undefined && owner.owed.length === 0)) complaints.push(`leaked layer: ${volume} has one, and ${owner === undefined ? 'nobody has it' : `${describe(ledger, owner.id)} has no snapshot`}`);
      }
      for (const { volumeId, name } of (await node.inner?.()) ?? []) {
        const owner = ledger.vms.get(ledger.volumes.get(volumeId) ?? '');
        if (owner === undefined || (!owner.snapshots.has(name) && owner.operation === undefined && owner.owed.length === 0)) complaints.push(`leaked snapshot: ${volumeId} keeps ${name} inside, and ${owner === undefined ? 'nobody has it' : `${describe(ledger, owner.id)} has no such snapshot`}`);
      }
    }
    for (const [vmId, where] of domains) {
      if (where.length > 1) complaints.push(`${describe(ledger, vmId)} has ${String(where.length)} domains`);
      if (!lives(vmId)) complaints.push(`leaked domain: ${describe(ledger, vmId)} has one on ${where.map(({ nodeId }) => nodeId).join(', ')}`);
    }
    for (const volume of disks.keys()) if (!ledger.volumes.has(volume)) complaints.push(`leaked disk: ${volume} is on a node and in no pool`);
    const seen = new Set(nodes.map(({ nodeId }) => nodeId));
    for (const vm of ledger.vms.values()) {
      if (!lives(vm.id) || vm.operation !== undefined || vm.nodeId === undefined || !seen.has(vm.nodeId)) continue;
      const [domain] = domains.get(vm.id) ?? [];
      if (domain === undefined && vm.observed !== 'absent') complaints.push(`${describe(ledger, vm.id)} has no domain`);
      if (domain !== undefined && domain.nodeId !== vm.nodeId) complaints.push(`${describe(ledger, vm.id)} is on ${domain.nodeId} and should be on ${vm.nodeId}`);
      if (domain !== undefined && (vm.observed === 'running') !== domain.running) complaints.push(`${describe(ledger, vm.id)} was observed ${String(vm.observed)} and ${domain.running ? 'runs' : 'does not run'}`);
    }
  }

  for (const vm of ledger.vms.values()) {
    const listed = shown.get(vm.id);
    if (vm.deleted && listed !== undefined) complaints.push(`${vm.id} is deleted and still listed as ${listed.status}`);
    if (!vm.deleted && listed === undefined) complaints.push(`${vm.id} lives and is not listed`);
    if (vm.operation !== undefined) complaints.push(`${vm.id} has ${vm.operation} in hand`);
    if (vm.owed.length > 0) complaints.push(`${vm.id} owes ${vm.owed.join(', ')}`);
  }
  for (const volume of ledger.deleting) complaints.push(`${volume} is still being deleted`);
  for (const saga of ledger.open) complaints.push(`${saga} has not ended`);
  for (const status of ['running', 'pending']) {
    // A batch's own status is worked out when it is read.
    for (const operation of await platform.rest.all<Operation>(`/v1/operations?status=${status}&limit=1000`)) {
      if (operation.endedAt === null) complaints.push(`operation ${operation.id} (${operation.kind}) is still ${operation.status}`);
    }
  }
  return complaints;
}

/** While a node is silent, what it owes stays with the VM: that is no leak, and `owes` is complained of by itself. */
const mayHold = (ledger: Ledger, vmId: string): boolean => {
  const vm = ledger.vms.get(vmId);
  return vm !== undefined && !vm.deleted && (vm.operation !== undefined || vm.owed.length > 0);
};

const describe = (ledger: Ledger, vmId: string): string => {
  const vm = ledger.vms.get(vmId);
  if (vm === undefined) return `${vmId}, of which the log knows nothing`;
  return `${vmId} (${vm.name}, ${vm.deleted ? 'deleted' : vm.provisioned ? `observed ${String(vm.observed)}` : 'never provisioned'})`;
};

/** Waits until everything is at rest and all holds; throws with what does not. */
export async function atRest(platform: Platform, nodes: readonly NodeView[], withinMs: number): Promise<AtRest> {
  const startedAt = performance.now();
  let last: readonly string[] = ['nothing could be asked'];
  for (;;) {
    try {
      last = await broken(platform, nodes);
      if (last.length === 0) return { ledger: ledgerOf(await readEvents(platform)), ms: performance.now() - startedAt };
    } catch (error) {
      last = [`the platform does not answer: ${error instanceof Error ? error.message : String(error)}`];
    }
    if (performance.now() - startedAt > withinMs) throw new Error(`after ${String(withinMs)} ms:\n  ${last.slice(0, 30).join('\n  ')}${last.length > 30 ? `\n  and ${String(last.length - 30)} more` : ''}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** The simulated nodes of this process. */
export async function simulatedViews(platform: Platform): Promise<readonly NodeView[]> {
  const { here } = platform;
  if (here === undefined) throw new Error('this platform has no simulated nodes in this process');
  const nodes = await platform.rest.all<{ id: string; name: string }>('/v1/nodes?limit=1000');
  return nodes.flatMap(({ id, name }) => {
    const index = Number(/^sim-(\d+)$/.exec(name)?.[1] ?? 0) - 1;
    if (index < 0) return [];
    const machine = () => {
      const found = here.machine(index);
      if (found === undefined) throw new Error(`${name} has no machine yet`);
      return found;
    };
    return [{
      nodeId: id,
      domains: () => Promise.resolve([...machine().domains()].map(([vmId, { state }]) => ({ vmId, running: state === 'running' }))),
      disks: () => Promise.resolve([...machine().disks.keys()]),
    }];
  });
}
