import type { AgentCommand, DomainReport } from '@chronovirt/contracts/agent/agent.commands';
import type { CommandEnvelope } from '@chronovirt/contracts/command';
import type { NodeId, PoolId, VmId, VolumeId } from '@chronovirt/contracts/ids';
import type { BootResult } from '@chronovirt/contracts/boot-job/boot-job';
import type { BootReport } from '@chronovirt/contracts/boot-job/boot-job.commands';
import type { DriftReport } from '@chronovirt/contracts/drift/drift.commands';
import { describe, expect, it } from 'vitest';
import { createAgent } from './agent.ts';
import type { Agent, Broken } from './agent.ts';
import { smallPlan } from './domain/testing-plan.ts';
import { createMemoryJournal } from './journal/journal.ts';
import type { Journal } from './journal/journal.ts';
import { createSimulatedMachine } from './simulated/simulated-hypervisor.ts';
import type { SimulatedMachine, SimulatedSettings } from './simulated/simulated-hypervisor.ts';

const hex = (n: number): string => n.toString(16).padStart(32, '0');
const nodeId: NodeId = `node_${hex(1)}`;
const vmId: VmId = `vm_${hex(2)}`;
const volumeId: VolumeId = `volume_${hex(3)}`;
const poolId: PoolId = `pool_${hex(4)}`;
const network = { networkId: `network_${hex(5)}`, subnetId: `subnet_${hex(6)}`, name: 'cv-default', kind: 'nat', cidr: '10.21.0.0/24', gateway: '10.21.0.1', prefix: 24, bridge: 'cv-br0' } as const;
const mac = '52:54:0a:15:00:05';

interface World {
  readonly machine: SimulatedMachine;
  readonly journal: Journal;
  readonly reports: DomainReport[];
  readonly drifts: DriftReport[];
  readonly boots: BootReport[];
  /** Fails while nobody hears. */
  readonly reportBoot: { now: () => Promise<void> };
  readonly agent: Agent;
  /** Sends one command; `again` keeps its id. */
  send(type: AgentCommand['type'], more?: Partial<CommandEnvelope> & { readonly generation?: number; readonly data?: object }): ReturnType<Agent['take']>;
  nextId(): string;
}

let counter = 0;
let clock = 0;
const nextId = (): string => `00000000-0000-7000-8000-${(++counter).toString(16).padStart(12, '0')}`;

const data: { readonly [T in AgentCommand['type']]?: object } = {
  EnsureDisk: { volumeId, imageFile: 'guest.qcow2', imageFormat: 'qcow2', sizeGib: 2 },
  DefineDomain: smallPlan({ volumeId, network, mac, address: '10.21.0.5' }),
  ConfigureDomain: { ...smallPlan({ volumeId, network, mac, address: '10.21.0.5' }), gone: [], hostname: null, insist: false },
  AdoptDomain: { ...smallPlan({ volumeId, network, mac, address: '10.21.0.5' }), nics: [], files: [{ volumeId, file: `/foreign/${vmId}.qcow2` }] },
  ShutdownDomain: { timeoutSeconds: 1, force: false },
  AskGuest: { request: { kind: 'add-ssh-keys', user: 'root', keys: ['ssh-ed25519 AAAA'] } },
  RemoveDomain: { nics: [{ network, mac }] },
  RemoveDisk: { volumeId },
};

const machineOf = (more: Partial<SimulatedSettings> = {}): SimulatedMachine => createSimulatedMachine({ poolId, cpus: 4, memoryMib: 256, poolGib: 10, ...more });

interface Surroundings {
  readonly machine?: SimulatedMachine;
  readonly journal?: Journal;
  readonly broken?: Broken;
  /** The bus says that it has a report. */
  readonly confirm?: () => Promise<void>;
  readonly outdated?: () => void;
  readonly unseal?: (sealed: string, purpose: string) => string;
  readonly bootId?: () => string;
  readonly volumesKnown?: (volumeIds: readonly VolumeId[]) => Promise<readonly VolumeId[]>;
}

function worldOf({ machine = machineOf(), journal = createMemoryJournal(), broken = {}, confirm = () => Promise.resolve(), outdated = () => undefined, unseal, bootId = () => 'first', volumesKnown = (volumeIds) => Promise.resolve(volumeIds) }: Surroundings = {}): World {
  const reports: DomainReport[] = [];
  const drifts: DriftReport[] = [];
  const boots: BootReport[] = [];
  const reportBoot = { now: () => Promise.resolve() };
  const report = (one: DomainReport): Promise<void> => {
    reports.push(one);
    return confirm();
  };
  const agent = createAgent({ nodeId, journal, hypervisor: machine.hypervisor, volumesKnown, bootId, report, reportDrift: async (drift) => void drifts.push(drift), reportBoot: async (boot) => { await reportBoot.now(); boots.push(boot); }, outdated, now: () => new Date(clock), ...(unseal === undefined ? {} : { unseal }) }, broken);
  machine.hypervisor.watch({ changed: (changed) => void agent.look(changed), missed: () => void agent.sweep() });
  return {
    machine, journal, reports, drifts, boots, reportBoot, agent, nextId,
    send: (type, { generation = 1, data: more, ...envelope } = {}) => agent.take({
      id: nextId(), to: 'node', target: nodeId, type, meta: { actor: 'system:scheduler' }, cancels: [], session: 1,
      ...envelope,
      data: { nodeId, vmId, generation, ...data[type], ...more },
    }),
  };
}

async function welcomed(world: World, session = 1, vms: Parameters<Agent['welcome']>[1]['vms'] = []): Promise<World> {
  const id = nextId();
  await world.agent.hello(id);
  expect(world.agent.welcome(id, { session, vms })).toBe(true);
  return world;
}

const created = async (world: World): Promise<World> => {
  for (const type of ['EnsureDisk', 'DefineDomain', 'StartDomain'] as const) expect(await world.send(type)).toMatchObject({ version: 0 });
  return world;
};

describe('A node agent', () => {
  it('makes a disk, a lease and a domain, starts it and says what it sees', async () => {
    const world = await welcomed(worldOf());
    await world.send('EnsureDisk');
    expect(await world.send('DefineDomain')).toMatchObject({ facts: { state: 'stopped', session: 1 } });
    expect(await world.send('StartDomain')).toMatchObject({ facts: { state: 'running', reason: 'booted' } });
    expect(world.machine.leases.get(network.networkId)?.get(mac)?.address).toBe('10.21.0.5');
    await expect.poll(() => world.reports.at(-1)).toMatchObject({ vmId, state: 'running', session: 1, generation: 1 });
  });

  it('obeys a repeated command once and answers it twice', async () => {
    const world = await created(await welcomed(worldOf()));
    const id = nextId();
    const first = await world.send('RebootDomain', { id });
    expect(await world.send('RebootDomain', { id })).toEqual(first);
    expect(world.machine.domains.get(vmId)?.boots).toBe(2);
  });

  it('obeys a command once that comes twice at the same time', async () => {
    const world = await created(await welcomed(worldOf()));
    const id = nextId();
    await Promise.all([world.send('RebootDomain', { id }), world.send('RebootDomain', { id })]);
    expect(world.machine.domains.get(vmId)?.boots).toBe(2);
  });

  it('makes a domain different while it runs, says what has to wait, and insists where a change is taken back', async () => {
    let troubled = false;
    const world = await created(await welcomed(worldOf({ machine: machineOf({ trouble: (verb) => (troubled && verb === 'configure' ? { refused: 'nic.not_released' } : undefined) }) })));
    expect(await world.send('ConfigureDomain', { data: { vcpus: 2, vcpusMax: 2 } })).toMatchObject({ facts: { state: 'running', pending: [] } });
    expect(await world.send('ConfigureDomain', { data: { memoryMib: 64 } })).toMatchObject({ facts: { pending: ['vcpus', 'memoryMib'] } });
    troubled = true;
    expect(await world.send('ConfigureDomain')).toMatchObject({ refused: 'nic.not_released' });
    const id = nextId();
    await expect(world.send('ConfigureDomain', { id, data: { insist: true } })).rejects.toThrow(/could not be taken back: nic.not_released/);
    troubled = false;
    expect(await world.send('ConfigureDomain', { id, data: { insist: true } })).toMatchObject({ facts: { state: 'running' } });
  });

  it('remembers refusals too', async () => {
    const machine = machineOf();
    const world = await welcomed(worldOf({ machine }));
    const id = nextId();
    expect(await world.send('StartDomain', { id })).toMatchObject({ refused: 'domain.gone' });
    await created(world);
    await world.send('DestroyDomain');
    expect(await world.send('StartDomain', { id })).toMatchObject({ refused: 'domain.gone' });
    expect(machine.domains.get(vmId)?.state).toBe('stopped');
  });

  it('recalls its answers after it was killed', async () => {
    const world = await created(await welcomed(worldOf()));
    const id = nextId();
    await world.send('RebootDomain', { id });
    world.agent.halt();
    const next = await welcomed(worldOf({ machine: world.machine, journal: world.journal }), 2);
    await next.send('RebootDomain', { id, session: 1 });
    expect(world.machine.domains.get(vmId)?.boots).toBe(2);
  });

  it('does not answer a fault, and obeys when the command comes again', async () => {
    let failing = true;
    const machine = machineOf({ trouble: (verb) => { if (verb === 'ensureDisk' && failing) throw new Error('disk full of sand'); return undefined; } });
    const world = await welcomed(worldOf({ machine }));
    const id = nextId();
    await expect(world.send('EnsureDisk', { id })).rejects.toThrow('sand');
    failing = false;
    expect(await world.send('EnsureDisk', { id })).toEqual({ version: 0 });
  });

  it('never obeys a command that was taken back before it came', async () => {
    const world = await welcomed(worldOf());
    const start = nextId();
    await world.send('EnsureDisk');
    await world.send('DefineDomain');
    await world.send('RemoveDomain', { cancels: [start] });
    await world.send('DefineDomain', { generation: 2 });
    expect(await world.send('StartDomain', { id: start, generation: 2 })).toEqual({ refused: 'command.cancelled' });
    expect(world.machine.domains.get(vmId)?.state).toBe('stopped');
  });

  it('takes back a command that waits in the queue', async () => {
    const gate = Promise.withResolvers<undefined>();
    const world = await welcomed(worldOf({ machine: machineOf({ latency: (verb) => (verb === 'ensureDisk' ? gate.promise : Promise.resolve()) }) }));
    const define = nextId();
    const disk = world.send('EnsureDisk');
    const waiting = world.send('DefineDomain', { id: define });
    const undo = world.send('RemoveDomain', { cancels: [define] });
    gate.resolve(undefined);
    expect(await waiting).toEqual({ refused: 'command.cancelled' });
    await Promise.all([disk, undo]);
    expect(world.machine.domains.size).toBe(0);
  });

  it('stops waiting for a guest when the command is taken back', async () => {
    // A guest that does not hear: the hypervisor waits, until the signal.
    const machine = machineOf();
    const waits: SimulatedMachine = {
      ...machine,
      hypervisor: { ...machine.hypervisor, shutdown: (_vmId, { signal }) => new Promise((resolve) => { signal.addEventListener('abort', () => { resolve({ refused: 'command.cancelled' }); }); }) },
    };
    const world = await created(await welcomed(worldOf({ machine: waits })));
    const shutdown = nextId();
    const waiting = world.send('ShutdownDomain', { id: shutdown });
    await Promise.resolve();
    const destroy = world.send('DestroyDomain', { cancels: [shutdown] });
    expect(await waiting).toEqual({ refused: 'command.cancelled' });
    expect(await destroy).toMatchObject({ facts: { state: 'stopped' } });
  });

  it('takes no command before its welcome, nor one of another session, and remembers neither refusal', async () => {
    const world = worldOf();
    const id = nextId();
    expect(await world.send('EnsureDisk', { id })).toMatchObject({ refused: 'node.no_session' });
    await welcomed(world, 2);
    expect(await world.send('EnsureDisk', { id, session: 1 })).toMatchObject({ refused: 'node.old_session', because: { session: 2 } });
    expect(await world.send('EnsureDisk', { id, session: 2 })).toEqual({ version: 0 });
  });

  it('refuses commands between a hello and its welcome, and a welcome to an older hello', async () => {
    const world = await welcomed(worldOf());
    const [older, newer] = [nextId(), nextId()];
    await world.agent.hello(older);
    await world.agent.hello(newer);
    expect(world.agent.welcome(older, { session: 2, vms: [] })).toBe(false);
    expect(await world.send('EnsureDisk')).toMatchObject({ refused: 'node.no_session' });
    expect(world.agent.welcome(newer, { session: 3, vms: [] })).toBe(true);
  });

  it('refuses an older generation, also after it was killed in the middle of a newer one', async () => {
    const machine = machineOf({ trouble: (verb) => { if (verb === 'start') throw new Error('killed'); return undefined; } });
    const world = await welcomed(worldOf({ machine }));
    await expect(world.send('StartDomain', { generation: 3 })).rejects.toThrow('killed');
    const next = await welcomed(worldOf({ machine, journal: world.journal }));
    expect(await next.send('EnsureDisk', { generation: 2 })).toMatchObject({ refused: 'vm.old_generation', because: { generation: 3 } });
  });

  it('learns generations from the welcome when its journal is lost', async () => {
    const world = await welcomed(worldOf(), 1, [{ vmId, generation: 4, here: true }]);
    expect(await world.send('StartDomain', { generation: 3 })).toMatchObject({ refused: 'vm.old_generation' });
  });

  it('starts nothing that lives elsewhere, cleans up what is left of it, and takes it when it is placed here anew', async () => {
    const world = await created(await welcomed(worldOf()));
    await world.send('DestroyDomain');
    await welcomed(world, 2, [{ vmId, generation: 2, here: false }]);
    expect(await world.send('StartDomain', { session: 2 })).toMatchObject({ refused: 'vm.not_here' });
    expect(await world.send('StartDomain', { session: 2, generation: 2 })).toMatchObject({ refused: 'vm.not_here' });
    // The clean-up that was owed since generation 1.
    expect(await world.send('RemoveDomain', { session: 2 })).toMatchObject({ facts: { state: 'absent' } });
    expect(world.machine.leases.get(network.networkId)?.size).toBe(0);
    expect(await world.send('DefineDomain', { session: 2, generation: 3 })).toMatchObject({ facts: { state: 'stopped' } });
    // From now on an older clean-up would take away a living VM.
    expect(await world.send('RemoveDomain', { session: 2, generation: 2 })).toMatchObject({ refused: 'vm.old_generation' });
    expect(world.machine.domains.size).toBe(1);
  });

  it('runs the commands of one VM one at a time, in their order, and those of others meanwhile', async () => {
    const order: string[] = [];
    const gates = new Map<string, () => void>();
    const machine = machineOf({
      latency: (verb, of) => new Promise((resolve) => {
        order.push(`${verb} ${of?.slice(-1) ?? '-'}`);
        gates.set(`${verb} ${of?.slice(-1) ?? '-'}`, resolve);
      }),
    });
    const world = await welcomed(worldOf({ machine }));
    const first = world.send('StartDomain');
    const second = world.send('DestroyDomain');
    const other = world.send('DestroyDomain', { data: { vmId: `vm_${hex(9)}` } });
    await expect.poll(() => order).toEqual(['start 2', 'destroy 9']);
    gates.get('start 2')?.();
    await first;
    await expect.poll(() => order).toEqual(['start 2', 'destroy 9', 'destroy 2']);
    gates.get('destroy 9')?.();
    gates.get('destroy 2')?.();
    await Promise.all([second, other]);
  });

  it('refuses a command of another node, an unknown one and a malformed one', async () => {
    const world = await welcomed(worldOf());
    expect(await world.send('StartDomain', { data: { nodeId: `node_${hex(7)}` } })).toMatchObject({ refused: 'node.another_node' });
    expect(await world.send('DefineDomain', { data: { memoryMib: 'much' } })).toMatchObject({ refused: 'node.bad_command' });
    expect(await world.send('toString' as never)).toMatchObject({ refused: 'node.unknown_command' });
  });

  it('answers a command that failed while it was taken back, and never obeys it again', async () => {
    const gate = Promise.withResolvers<undefined>();
    let failing = true;
    const machine = machineOf({
      latency: (verb) => (verb === 'define' ? gate.promise : Promise.resolve()),
      trouble: (verb) => { if (verb === 'define' && failing) throw new Error('libvirtd went away'); return undefined; },
    });
    const world = await welcomed(worldOf({ machine }));
    const define = nextId();
    const underWay = world.send('DefineDomain', { id: define });
    await expect.poll(() => machine.leases.size).toBe(1);
    const undo = world.send('RemoveDomain', { cancels: [define] });
    gate.resolve(undefined);
    expect(await underWay).toEqual({ refused: 'command.cancelled' });
    await undo;
    failing = false;
    expect(await world.send('DefineDomain', { id: define })).toEqual({ refused: 'command.cancelled' });
    expect(machine.domains.size).toBe(0);
  });

  it('obeys nothing of a placement that was taken away, whatever came too late and was never cancelled', async () => {
    const world = await created(await welcomed(worldOf()));
    await world.send('RemoveDomain');
    await world.send('RemoveDisk');
    for (const type of ['EnsureDisk', 'DefineDomain', 'StartDomain'] as const) expect(await world.send(type)).toMatchObject({ refused: 'vm.not_here' });
    expect([world.machine.domains.size, world.machine.disks.size]).toEqual([0, 0]);
  });

  it('gives copies of a command that hangs one place in the queue', async () => {
    const gate = Promise.withResolvers<undefined>();
    const world = await created(await welcomed(worldOf({ machine: machineOf({ latency: (verb) => (verb === 'reboot' ? gate.promise : Promise.resolve()) }) })));
    const id = nextId();
    const copies = Array.from({ length: 200 }, () => world.send('RebootDomain', { id }));
    const other = world.send('DestroyDomain');
    gate.resolve(undefined);
    expect(new Set((await Promise.all(copies)).map((answer) => JSON.stringify(answer))).size).toBe(1);
    expect(await other).toMatchObject({ facts: { state: 'stopped' } });
  });

  it('is told to say hello again by a command of a newer session than its own', async () => {
    let outdated = 0;
    const world = await welcomed(worldOf({ outdated: () => { outdated++; } }), 2);
    await world.send('ObserveDomain', { session: 1 });
    expect(outdated).toBe(0);
    expect(await world.send('ObserveDomain', { session: 3 })).toMatchObject({ refused: 'node.old_session' });
    expect(outdated).toBe(1);
  });

  it('takes a command back with one that changes nothing', async () => {
    const world = await created(await welcomed(worldOf()));
    const stop = nextId();
    expect(await world.send('ObserveDomain', { cancels: [stop] })).toMatchObject({ facts: { state: 'running' } });
    expect(await world.send('ShutdownDomain', { id: stop })).toEqual({ refused: 'command.cancelled' });
    expect(world.machine.domains.get(vmId)?.state).toBe('running');
  });

  it('gives the lease back when the domain cannot be defined', async () => {
    const machine = machineOf({ trouble: (verb) => (verb === 'define' ? { refused: 'domain.not_possible' } : undefined) });
    const world = await welcomed(worldOf({ machine }));
    expect(await world.send('DefineDomain')).toEqual({ refused: 'domain.not_possible' });
    expect(machine.leases.get(network.networkId)?.size).toBe(0);
  });
});

describe('What a node agent asks a guest', () => {
  const password = { request: { kind: 'password', user: 'root', nodeId, sealed: 'AQ' } };
  const asking = (unseal?: Surroundings['unseal']) => {
    const asked: unknown[] = [];
    const machine = machineOf();
    const hypervisor = { ...machine.hypervisor, askGuest: (...[id, action]: Parameters<typeof machine.hypervisor.askGuest>) => { asked.push(action); return machine.hypervisor.askGuest(id, action); } };
    return { asked, world: () => welcomed(worldOf({ machine: { ...machine, hypervisor }, ...(unseal === undefined ? {} : { unseal }) })).then(created) };
  };

  it('is told with how it was done', async () => {
    const { asked, world } = asking();
    expect(await (await world()).send('AskGuest')).toMatchObject({ version: 0, facts: { state: 'running', method: 'guest-agent' } });
    expect(asked).toEqual([{ kind: 'add-ssh-keys', user: 'root', keys: ['ssh-ed25519 AAAA'] }]);
  });

  it('is a password that it alone can open, and for this VM and user', async () => {
    const purposes: string[] = [];
    const { asked, world } = asking((sealed, purpose) => { purposes.push(`${sealed} ${purpose}`); return 'opened'; });
    expect(JSON.stringify(await (await world()).send('AskGuest', { data: password }))).not.toContain('opened');
    expect(purposes).toEqual([`AQ password ${vmId} root`]);
    expect(asked).toEqual([{ kind: 'password', user: 'root', password: 'opened' }]);
  });

  it('is its name, when that changes; without an agent cloud-init has to do it, or nobody', async () => {
    const { asked, world } = asking();
    const running = await world();
    const seed = { instanceId: vmId, hostname: 'web-2', sshKeys: [] };
    expect(await running.send('ConfigureDomain', { data: { hostname: 'web-2' } })).toMatchObject({ facts: { pending: [] } });
    expect(asked).toEqual([{ kind: 'hostname', hostname: 'web-2' }]);
    const machine = machineOf();
    const deaf = { ...machine.hypervisor, askGuest: (id: VmId) => machine.hypervisor.domain(id).then(({ state }) => ({ refused: state === 'running' ? 'guest.no_agent' : 'domain.not_running' })) };
    const silent = await created(await welcomed(worldOf({ machine: { ...machine, hypervisor: deaf } })));
    expect(await silent.send('ConfigureDomain', { data: { hostname: 'web-2', seed } })).toMatchObject({ facts: { pending: ['hostname'] } });
    expect(await silent.send('ConfigureDomain', { data: { hostname: 'web-2' } })).toEqual({ refused: 'guest.no_agent' });
    // Taking it back must come to an end.
    expect(await silent.send('ConfigureDomain', { data: { hostname: 'web-1', insist: true } })).toMatchObject({ facts: { pending: ['hostname'] } });
    await silent.send('DestroyDomain');
    expect(await silent.send('ConfigureDomain', { data: { hostname: 'web-2', seed } })).toMatchObject({ facts: { pending: [] } });
  });

  it('is nothing when it cannot be opened, or nobody runs', async () => {
    const closed = asking(() => { throw new Error('canary'); });
    expect(await (await closed.world()).send('AskGuest', { data: password })).toEqual({ refused: 'node.cannot_unseal', because: { vmId } });
    expect(await (await asking().world()).send('AskGuest', { data: password })).toEqual({ refused: 'node.no_seal_key', because: { vmId } });
    expect(closed.asked).toEqual([]);
    const stopped = await asking().world();
    await stopped.send('DestroyDomain');
    expect(await stopped.send('AskGuest')).toMatchObject({ refused: 'domain.not_running' });
  });

  it('goes into its disks instead when it is told so, and only while it is stopped', async () => {
    const machine = machineOf();
    const written: unknown[] = [];
    const hypervisor: typeof machine.hypervisor = { ...machine.hypervisor, setOfflinePassword: (id, user, secret, signal) => { written.push([user, secret, signal.aborted]); return machine.hypervisor.setOfflinePassword(id, user, secret, signal); } };
    const world = await created(await welcomed(worldOf({ machine: { ...machine, hypervisor }, unseal: () => 'opened' })));
    const offline = { request: { ...password.request, offline: true } };
    expect(await world.send('AskGuest', { data: offline })).toMatchObject({ refused: 'domain.still_running' });
    await world.send('DestroyDomain');
    expect(await world.send('AskGuest', { data: offline })).toMatchObject({ facts: { state: 'stopped', method: 'offline' } });
    expect(written).toEqual([['root', 'opened', false], ['root', 'opened', false]]);
  });
});

describe('What a node agent tells', () => {
  it('what was done behind its back, once each', async () => {
    const world = await created(await welcomed(worldOf()));
    await expect.poll(() => world.reports.at(-1)?.state).toBe('running');
    world.reports.length = 0;
    world.machine.crash(vmId);
    await expect.poll(() => world.reports.map((report) => report.state)).toEqual(['crashed']);
    world.machine.undefineBehind(vmId);
    await expect.poll(() => world.reports.map((report) => report.state)).toEqual(['crashed', 'absent']);
    await world.agent.sweep();
    await world.agent.sweep();
    expect(world.reports).toHaveLength(2);
    expect(world.reports[1]).toMatchObject({ generation: 1, session: 1 });
  });

  it('numbers that rise within a session', async () => {
    const world = await created(await welcomed(worldOf()));
    await world.send('SuspendDomain');
    await world.send('ResumeDomain');
    await expect.poll(() => world.reports.at(-1)?.reason).toBe('unpaused');
    const numbers = world.reports.map((report) => report.sequence);
    expect(numbers).toEqual([...new Set(numbers)].sort((a, b) => a - b));
  });

  it('again what it saw, when nobody said that the report before had come', async () => {
    let lost = false;
    const world = await created(await welcomed(worldOf({ confirm: () => (lost ? Promise.reject(new Error('timeout')) : Promise.resolve()) })));
    await expect.poll(() => world.reports.at(-1)?.state).toBe('running');
    lost = true;
    world.machine.crash(vmId);
    await expect.poll(() => world.reports.at(-1)?.state).toBe('crashed');
    await Promise.resolve();
    lost = false;
    world.machine.startBehind(vmId);
    // The same as what was told last and confirmed; but in between something was said that may arrive yet.
    await expect.poll(() => world.reports.map(({ state }) => state).slice(-2)).toEqual(['crashed', 'running']);
  });

  it('after a power failure, everything that changed, though no event came', async () => {
    const world = await created(await welcomed(worldOf()));
    await expect.poll(() => world.reports.at(-1)?.state).toBe('running');
    world.machine.powerCycle();
    await expect.poll(() => world.reports.at(-1)?.state).toBe('stopped');
  });

  it('in its hello, all domains and the VMs that it should have', async () => {
    const world = await created(await welcomed(worldOf(), 1, [{ vmId: `vm_${hex(8)}`, generation: 5, here: true }]));
    const hello = await world.agent.hello(nextId());
    expect(hello.inventory).toEqual([{ vmId, generation: 1, state: 'running', reason: 'booted' }, { vmId: `vm_${hex(8)}`, generation: 5, state: 'absent', reason: 'absent' }]);
  });

  it('what changed between the look for the hello and the welcome', async () => {
    const world = await created(await welcomed(worldOf()));
    const id = nextId();
    await world.agent.hello(id);
    world.reports.length = 0;
    world.machine.crash(vmId);
    await Promise.resolve();
    expect(world.reports).toEqual([]);
    world.agent.welcome(id, { session: 2, vms: [] });
    await expect.poll(() => world.reports).toMatchObject([{ state: 'crashed', session: 2 }]);
  });

  it('again how each of its domains is, after five minutes: whoever wrote an older report down last believes otherwise', async () => {
    const began = clock;
    const other: VmId = `vm_${hex(8)}`;
    const world = await created(await welcomed(worldOf(), 1, [{ vmId: other, generation: 5, here: true }]));
    await expect.poll(() => world.reports.at(-1)?.state).toBe('running');
    world.reports.length = 0;
    try {
      clock = began + 299_000;
      await world.agent.sweep();
      expect(world.reports).toEqual([]);
      clock = began + 300_000;
      await world.agent.sweep();
      expect(world.reports).toMatchObject([{ vmId, state: 'running', generation: 1, again: true }, { vmId: other, state: 'absent', generation: 5, again: true }]);
      await world.agent.sweep();
      expect(world.reports).toHaveLength(2);
      // What is gone, and was to go, is told once.
      await world.send('DestroyDomain');
      await world.send('RemoveDomain');
      await expect.poll(() => world.reports.at(-1)).toMatchObject({ vmId, state: 'absent' });
      world.reports.length = 0;
      clock = began + 600_000;
      await world.agent.sweep();
      expect(world.reports.map((report) => report.vmId)).toEqual([other]);
    } finally {
      clock = began;
    }
  });

  it('nothing after it has ended', async () => {
    const world = await created(await welcomed(worldOf()));
    world.agent.halt();
    world.reports.length = 0;
    world.machine.crash(vmId);
    await world.agent.sweep();
    expect(world.reports).toEqual([]);
    await expect(world.send('StartDomain')).rejects.toThrow('ended');
  });
});

describe('Each protection is needed: without it', () => {
  it('the journal, a late repeat is obeyed again', async () => {
    const world = await created(await welcomed(worldOf({ broken: { journalForgotten: true } })));
    const id = nextId();
    await world.send('RebootDomain', { id });
    await world.send('RebootDomain', { id });
    expect(world.machine.domains.get(vmId)?.boots).toBe(3);
  });

  it('the session, a command of an earlier one is obeyed', async () => {
    const world = await welcomed(worldOf({ broken: { sessionIgnored: true } }), 2);
    expect(await world.send('EnsureDisk', { session: 1 })).toEqual({ version: 0 });
  });

  it('the generation, an older placement starts', async () => {
    const world = await created(await welcomed(worldOf({ broken: { generationIgnored: true } })));
    await welcomed(world, 1, [{ vmId, generation: 2, here: false }]);
    expect(await world.send('StartDomain')).toMatchObject({ facts: { state: 'running' } });
  });

  it('the cancelling, a command that was taken back is obeyed', async () => {
    const world = await created(await welcomed(worldOf({ broken: { cancelsIgnored: true } })));
    const id = nextId();
    await world.send('DestroyDomain', { cancels: [id] });
    expect(await world.send('StartDomain', { id })).toMatchObject({ facts: { state: 'running' } });
  });
});

describe('The layers of a disk', () => {
  const layered = (layer: string | null): object => {
    const plan = smallPlan({ volumeId, network, mac, address: '10.21.0.5' });
    return { ...plan, disks: plan.disks.map((disk) => ({ ...disk, layer })) };
  };
  const taking = { ...layered('aaaaaaaa'), on: [{ volumeId, layer: null }], live: true };
  const merging = { ...layered(null), steps: [{ kind: 'merge', volumeId, layer: 'aaaaaaaa', into: null, active: true, above: [] }] };
  const made = async (): Promise<World> => created(await welcomed(worldOf()));

  it('are put on it while it runs, the answer says whether the guest was still, and are merged back', async () => {
    const { send, machine } = await made();
    expect(await send('LayerDomain', { data: taking })).toMatchObject({ facts: { frozen: true, state: 'running' } });
    expect(machine.layers.get(volumeId)).toEqual(new Map([['aaaaaaaa', null]]));
    expect(await send('TidyLayers', { data: merging })).toMatchObject({ facts: { state: 'running' } });
    // Once more is no more.
    expect(await send('TidyLayers', { data: merging })).toMatchObject({ facts: { state: 'running' } });
    expect([machine.layers.has(volumeId), machine.domains.get(vmId)?.plan.disks[0]?.layer, machine.domains.get(vmId)?.boots]).toEqual([false, null, 1]);
  });
  it('a domain that runs does not go back to one', async () => {
    const { send, machine } = await made();
    expect(await send('LayerDomain', { data: { ...taking, live: false } })).toMatchObject({ refused: 'domain.still_running' });
    expect(machine.layers.size).toBe(0);
  });
  it('what is kept inside of it instead comes and goes only while it is stopped, however often that is asked', async () => {
    const { send, machine } = await made();
    const [as, now] = [`snapshot_${'5'.repeat(32)}`, `op_${'6'.repeat(32)}`] as const;
    const keep = (data: object): Promise<unknown> => send('KeepInside', { data: { volumes: [volumeId], as, back: null, ...data } });
    expect(await keep({})).toMatchObject({ refused: 'domain.still_running' });
    await send('ShutdownDomain', { data: { timeoutSeconds: 1, force: true } });
    for (let times = 0; times < 2; times++) expect(await keep({})).toMatchObject({ facts: { state: 'stopped' } });
    expect(await keep({ as: now, back: `snapshot_${'7'.repeat(32)}` })).toMatchObject({ refused: 'snapshot.missing_on_node' });
    expect(await keep({ as: now, back: as })).toMatchObject({ facts: { state: 'stopped' } });
    expect(machine.inner.get(volumeId)).toEqual(new Set([as, now]));
    for (let times = 0; times < 2; times++) await send('TidyLayers', { data: { ...layered(null), steps: [{ kind: 'forget', volumeId, inner: now }] } });
    expect(machine.inner.get(volumeId)).toEqual(new Set([as]));
    for (const type of ['RemoveDomain', 'RemoveDisk'] as const) await send(type);
    expect(machine.inner.has(volumeId)).toBe(false);
  });
  it('go with the disk', async () => {
    const { send, machine } = await made();
    await send('LayerDomain', { data: taking });
    for (const type of ['RemoveDomain', 'RemoveDisk'] as const) await send(type);
    expect([machine.layers.size, machine.disks.size]).toEqual([0, 0]);
  });
});

describe('What differs from what was told', () => {
  const swept = async (world: World): Promise<readonly (readonly [string, string])[] | undefined> => {
    expect(await world.agent.sweepDrift()).toBe(true);
    return world.drifts.at(-1)?.findings.map(({ kind, differences }) => [kind, differences.map(({ field }) => field).join()] as const);
  };

  it('is nothing after commands, and is said once in a session', async () => {
    const world = await created(await welcomed(worldOf()));
    expect(await swept(world)).toEqual([]);
    await world.send('ConfigureDomain', { data: { vcpus: 2, vcpusMax: 2 } });
    await world.send('ShutdownDomain');
    expect(await swept(world)).toEqual([]);
    expect(world.drifts).toHaveLength(1);
  });

  it('is what somebody did by hand, until a command of ours brings it back', async () => {
    const world = await created(await welcomed(worldOf()));
    world.machine.crash(vmId);
    expect(await swept(world)).toEqual([['domain', 'state']]);
    world.machine.undefineBehind(vmId);
    expect(await swept(world)).toEqual([['missing', 'domain']]);
    expect(await world.send('ConfigureDomain', { data: { restore: 'running' } })).toMatchObject({ facts: { state: 'running' } });
    await expect.poll(() => world.drifts.at(-1)?.findings).toEqual([]);
  });

  it('is a domain that this node was not told to have', async () => {
    const world = await created(await welcomed(worldOf()));
    const elsewhere = await welcomed(worldOf({ machine: world.machine }), 1, [{ vmId, generation: 2, here: false }]);
    expect(await swept(elsewhere)).toEqual([['stray', '']]);
  });

  it('is no more than that somebody else has a domain, once it was adopted and released again', async () => {
    const world = await welcomed(worldOf());
    world.machine.makeForeign(vmId, 'by-hand');
    expect(await world.send('AdoptDomain')).toMatchObject({ facts: { state: 'running' } });
    expect(await world.send('ReleaseDomain', { data: { volumes: [volumeId] } })).toMatchObject({ version: 0 });
    // Whoever gives it up does so after the answer.
    await welcomed(world, 2, [{ vmId, generation: 1, here: true }]);
    expect(await swept(world)).toEqual([['foreign', '']]);
  });

  it('may be a domain with any bytes for a UUID; one that no words fit keeps nobody else from being told', async () => {
    const world = await created(await welcomed(worldOf()));
    const foreign = { uuid: '6695eb01-f6a4-8304-79aa-97f2502e193f', name: 'test', state: 'running', vcpus: 2, vcpusMax: 2, memoryMib: 8_192, memoryMibMax: 8_192, persistent: true, disks: [], nics: [], obstacles: [] };
    const odd = { ...foreign, uuid: 'ffffffff-ffff-ffff-ffff-fffffffffff0', name: 'x'.repeat(400) };
    world.machine.hypervisor.strangers = () => Promise.resolve([foreign, odd].map((one) => ({ vmId: null, generation: 0, domain: one })));
    expect(await swept(world)).toEqual([['foreign', '']]);
    expect(world.drifts.at(-1)).toMatchObject({ findings: [{ foreign: { uuid: foreign.uuid } }], more: 1 });
  });

  it('is not missed when it happens while the same machine is being compared', async () => {
    const world = await created(await welcomed(worldOf()));
    expect(await swept(world)).toEqual([]);
    const { hypervisor } = world.machine;
    const compare = hypervisor.compare.bind(hypervisor);
    let during: Promise<void> | undefined;
    hypervisor.compare = async (told) => {
      const seen = await compare(told);
      if (during === undefined) {
        world.machine.crash(vmId);
        during = world.agent.compare(vmId);
      }
      return seen;
    };
    await swept(world);
    await during;
    expect(world.drifts.at(-1)?.findings).toMatchObject([{ kind: 'domain' }]);
  });

  const hand = `volume_${hex(8)}` as const;
  it('is a disk that is gone, or has another file in its place, until a verb of ours makes it anew', async () => {
    const world = await created(await welcomed(worldOf()));
    await world.send('EnsureVolume', { data: { volumeId: hand, poolId, format: 'qcow2', sizeGib: 1, source: { kind: 'blank' } } });
    expect(await swept(world)).toEqual([]);
    world.machine.putFile(`${volumeId}.qcow2`);
    world.machine.removeFile(`${hand}.qcow2`);
    expect(await swept(world)).toEqual([['disk-replaced', 'file'], ['disk-missing', 'file']]);
    expect(world.drifts.at(-1)?.findings).toMatchObject([{ subject: volumeId, vmId, says: expect.stringContaining('its guest still writes the one before') as string }, { subject: hand, vmId: null }]);
    await world.send('RemoveVolume', { data: { volumeId: hand, vmId: null, poolId } });
    world.machine.removeFile(`${volumeId}.qcow2`);
    expect(await swept(world)).toEqual([['disk-missing', 'file']]);
  });

  it('is no disk that our verbs make anew, put a layer on, or take away; not even while they do it, or when they are killed', async () => {
    let failing = false;
    const journal = createMemoryJournal();
    const machine = machineOf({ trouble: () => { if (failing) throw new Error('the agent dies'); return undefined; } });
    const world = await created(await welcomed(worldOf({ machine, journal })));
    const volume = { volumeId: hand, poolId, format: 'qcow2', sizeGib: 1 };
    await world.send('EnsureVolume', { data: { ...volume, source: { kind: 'blank' } } });
    expect(await swept(world)).toEqual([]);
    await world.send('WorkOnVolume', { data: { ...volume, work: { kind: 'sparsify', compress: false } } });
    await world.send('LayerDomain', { data: { ...smallPlan({ volumeId, network, mac, address: '10.21.0.5' }), disks: [{ volumeId, unit: 0, sizeGib: 2, limits: null, layer: 'aaaaaaaa' }], seed: null, on: [{ volumeId, layer: null }], live: true } as never });
    expect(await swept(world)).toEqual([]);
    expect(journal.files().map(({ name }) => name).sort()).toEqual([`${volumeId}.aaaaaaaa.qcow2`, `${volumeId}.qcow2`, `${hand}.qcow2`].sort());
    failing = true;
    await expect(world.send('RemoveVolume', { data: { volumeId: hand, vmId: null, poolId } })).rejects.toThrow();
    // What an agent began goes on without it, and another one finds the file, and then finds it gone.
    world.agent.halt();
    failing = false;
    const again = await welcomed(worldOf({ machine, journal }), 2, [{ vmId, generation: 1, here: true }]);
    expect(await swept(again)).toEqual([]);
    machine.removeFile(`${hand}.qcow2`);
    expect(await swept(again)).toEqual([]);
    await again.send('RemoveVolume', { session: 2, data: { volumeId: hand, vmId: null, poolId } });
    expect(await swept(again)).toEqual([]);
    expect(journal.unsettled()).toEqual([]);
  });

  it('is one thing when the machine was started again, until each VM runs or was told not to', async () => {
    const another: VmId = `vm_${hex(10)}`;
    let boot = 'first';
    const machine = machineOf();
    const world = await created(await welcomed(worldOf({ machine, bootId: () => boot })));
    const its = { vmId: another, volumeId: hand };
    await world.send('EnsureDisk', { data: its });
    await world.send('DefineDomain', { data: { ...smallPlan({ volumeId: hand, network, mac: '52:54:0a:15:00:06', address: '10.21.0.6' }), name: 'web-2', vmId: another } as never });
    await world.send('StartDomain', { data: its });
    expect(await swept(world)).toEqual([]);
    boot = 'second';
    machine.powerCycle();
    expect(await swept(world)).toEqual([['node-restarted', 'spec,web-2']]);
    expect(world.drifts.at(-1)?.findings[0]?.says).toContain('VMs: 2');
    await world.send('ObserveDomain');
    await world.send('StartDomain');
    await world.send('ObserveDomain', { data: { vmId: another } });
    expect(await swept(world)).toEqual([['node-restarted', 'spec,web-2']]);
    // What happens in this run is what it is.
    machine.crash(vmId);
    expect(await swept(world)).toEqual([['node-restarted', 'spec,web-2'], ['domain', 'state']]);
    await world.send('StartDomain');
    await world.send('ShutdownDomain', { data: { vmId: another } });
    expect(await swept(world)).toEqual([]);
  });

  it('is a network that is gone, until a verb of ours brings it back', async () => {
    const world = await created(await welcomed(worldOf()));
    world.machine.undefineNetwork(network.networkId);
    expect(await swept(world)).toEqual([['network', 'network']]);
    await world.send('RestoreNetwork', { data: { network } });
    expect(await swept(world)).toEqual([]);
  });

  it('is a file that nobody knows, once it was there twice; of a volume the control plane is asked', async () => {
    let away = false;
    const there = new Set<string>();
    const world = await created(await welcomed(worldOf({ volumesKnown: (ids) => (away ? Promise.reject(new Error('the gateway is away')) : Promise.resolve(ids.filter((id) => there.has(id)))) })));
    world.machine.putFile('notes.txt');
    world.machine.putFile(`${hand}.qcow2`);
    world.machine.putFile(`${vmId}.save`);
    world.machine.putFile(`vm_${hex(9)}-1.seed.iso`);
    expect(await swept(world)).toEqual([]);
    clock += 20_000;
    expect(await swept(world)).toHaveLength(3);
    expect(world.drifts.at(-1)?.findings.map(({ subject }) => subject)).toEqual(['/simulated/notes.txt', `/simulated/vm_${hex(9)}-1.seed.iso`, `/simulated/${hand}.qcow2`]);
    away = true;
    expect(await swept(world)).toHaveLength(3);
    away = false;
    there.add(hand);
    expect(await swept(world)).toHaveLength(2);
    world.machine.removeFile('notes.txt');
    expect(await swept(world)).toHaveLength(1);
  });

  it('outlives the agent: it is still known what was told', async () => {
    const journal = createMemoryJournal();
    const world = await created(await welcomed(worldOf({ journal })));
    world.agent.halt();
    world.machine.crash(vmId);
    const again = await welcomed(worldOf({ machine: world.machine, journal }), 2, [{ vmId, generation: 1, here: true }]);
    expect(await swept(again)).toEqual([['domain', 'state']]);
  });

  describe('when the journal is lost', () => {
    const told = { ...smallPlan({ volumeId, network, mac, address: '10.21.0.5' }), pending: [] };
    /** The same machine, an agent that remembers nothing. */
    const forgetful = async (): Promise<World> => {
      const world = await created(await welcomed(worldOf()));
      world.agent.halt();
      return welcomed(worldOf({ machine: world.machine }), 2, [{ vmId, generation: 1, here: true }]);
    };
    const asked = async (world: World): Promise<number> => {
      expect(await swept(world)).toEqual([]);
      expect(world.drifts.at(-1)?.untold).toEqual([vmId]);
      return world.drifts.at(-1)?.sequence ?? 0;
    };
    const tell = (world: World, report: number): ReturnType<World['send']> => world.send('TellDomain', { session: 2, data: { ...told, report } as never });

    it('is asked for until it is told again, and found from then on', async () => {
      const world = await forgetful();
      await asked(world);
      world.machine.undefineBehind(vmId);
      expect(await tell(world, await asked(world))).toMatchObject({ facts: { state: 'absent' } });
      await expect.poll(() => world.drifts.at(-1)).toMatchObject({ findings: [{ kind: 'missing' }], untold: [] });
      expect(await swept(world)).toEqual([['missing', 'domain']]);
    });

    it('is not what was true before a verb that came in between', async () => {
      const world = await forgetful();
      const report = await asked(world);
      await world.send('ShutdownDomain', { session: 2 });
      await tell(world, report);
      expect(await swept(world)).toEqual([]);
      expect(world.drifts.at(-1)?.untold).toEqual([vmId]);
    });

    it('is not told over what is known', async () => {
      const world = await forgetful();
      const report = await asked(world);
      await world.send('ConfigureDomain', { session: 2, data: { vcpus: 2, vcpusMax: 2 } });
      await tell(world, report);
      expect(await swept(world)).toEqual([]);
      expect(world.journal.told(vmId)?.plan.vcpus).toBe(2);
    });
  });

  it('is not asked of a domain whose verb was begun and never ended', async () => {
    const journal = createMemoryJournal();
    let failing = false;
    const machine = machineOf({ trouble: () => { if (failing) throw new Error('the agent dies'); return undefined; } });
    const world = await created(await welcomed(worldOf({ machine, journal })));
    failing = true;
    const id = nextId();
    await expect(world.send('DestroyDomain', { id })).rejects.toThrow();
    machine.crash(vmId);
    expect(await swept(world)).toEqual([]);
    failing = false;
    await world.send('DestroyDomain', { id });
    expect(await swept(world)).toEqual([]);
  });
});

describe('What a guest was to run at its boot', () => {
  const runId = (n: number) => `run_${n.toString(16).padStart(32, '0')}` as const;
  const runOf = (n: number, variables: { name: string; sealed: string }[] = []) => ({ runId: runId(n), jobId: `job_${'0'.repeat(32)}`, name: 'greet', revision: 1, system: false, script: '#!/bin/sh', timeoutSeconds: 60, nodeId: null, variables });
  const world = async (): Promise<{ readonly world: World; readonly results: BootResult[]; readonly wiped: string[][] }> => {
    const made = worldOf({ unseal: (sealed, purpose) => { if (!purpose.startsWith('boot job ')) throw new Error(purpose); return `opened-${sealed}`; } });
    const results: BootResult[] = [];
    const wiped: string[][] = [];
    Object.assign(made.machine.hypervisor, { bootResults: () => Promise.resolve(results), wipeRuns: (_: string, runs: { runId: string }[]) => { wiped.push(runs.map((run) => run.runId)); return Promise.resolve(); } });
    await created(await welcomed(made));
    return { world: made, results, wiped };
  };
  const give = (to: World, ...bootRuns: ReturnType<typeof runOf>[]) => to.send('ConfigureDomain', { data: { bootRuns } });

  it('is told once, without secrets, and only of what was asked; when all is told nothing of it is left', async () => {
    const { world: made, results, wiped } = await world();
    await give(made, runOf(1, [{ name: 'A', sealed: 'word' }]), runOf(2));
    await made.agent.lookForBootResults();
    expect(made.boots).toEqual([]);
    results.push({ runId: runId(1), exitCode: 0, output: 'it is opened-word.' }, { runId: runId(3), exitCode: 0, output: 'nobody asked' });
    await made.agent.lookForBootResults();
    await made.agent.lookForBootResults();
    expect(made.boots.map(({ results: told }) => told)).toEqual([[{ runId: runId(1), exitCode: 0, output: 'it is ***.' }]]);
    expect(wiped).toEqual([]);
    results.push({ runId: runId(2), exitCode: null, output: '' });
    await made.agent.lookForBootResults();
    await made.agent.lookForBootResults();
    expect([made.boots.length, wiped]).toEqual([2, [[runId(1), runId(2)]]]);
    // The script is nothing that is compared, and is not kept.
    expect(made.journal.told(vmId)?.plan.bootRuns?.map(({ script }) => script)).toEqual(['', '']);
  });

  it('is told again until it was heard', async () => {
    const { world: made, results, wiped } = await world();
    await give(made, runOf(1));
    results.push({ runId: runId(1), exitCode: 0, output: '' });
    let heard = false;
    const { reportBoot } = made;
    reportBoot.now = () => (heard ? Promise.resolve() : Promise.reject(new Error('not connected')));
    await made.agent.lookForBootResults();
    expect(wiped).toEqual([]);
    heard = true;
    await made.agent.lookForBootResults();
    expect(wiped).toEqual([[runId(1)]]);
  });
});
