/*
 * What a rehearsal says would happen is what happens: 500 random commands of every kind that the API writes
 * with, and of those that sagas send, each asked of beforehand and obeyed right after, by the real handlers
 * and deciders on the log in memory.
 */
import { describe, expect, it } from 'vitest';
import { type CommandEnvelope, readCommand } from '@chronovirt/contracts/command';
import { idFrom, type NodeId } from '@chronovirt/contracts/ids';
import { imageCommands } from '@chronovirt/contracts/image/image.commands';
import { networkCommands } from '@chronovirt/contracts/network/network.commands';
import { nodeCommands } from '@chronovirt/contracts/node/node.commands';
import { subnetCommands } from '@chronovirt/contracts/subnet/subnet.commands';
import { vmCommands } from '@chronovirt/contracts/vm/vm.commands';
import { volumeCommands } from '@chronovirt/contracts/volume/volume.commands';
import { type Answer, isRefusal } from '@chronovirt/decider/decider';
import { commandIdOf, keyOf } from '@chronovirt/event-log/command-id';
import { CommandHandler } from '@chronovirt/event-log/handle';
import { MemoryLog } from '@chronovirt/event-log/memory-log';
import { ProjectionInMemory } from '@chronovirt/event-log/projection';
import { ipam } from '@chronovirt/ipam/ipam.consumer';
import { Scheduler } from '@chronovirt/scheduler/scheduler.consumer';
import { SchedulerView } from '@chronovirt/scheduler/view.projection';
import { imageUser, usersAmong } from '@chronovirt/storage/image/image-user.projection';
import { storage } from '@chronovirt/storage/storage.consumer';
import { Random } from './random.ts';

const commands = { ...vmCommands, ...nodeCommands, ...networkCommands, ...subnetCommands, ...imageCommands, ...volumeCommands };
const at = '2026-01-01T00:00:00Z';

interface Draft {
  readonly type: keyof typeof commands;
  readonly target: string;
  readonly stream: string;
  readonly data: Readonly<Record<string, unknown>>;
}

const platform = () => {
  const log = new MemoryLog(() => 0);
  const view = new SchedulerView();
  const users = new ProjectionInMemory(imageUser);
  log.subscribe((events) => {
    for (const event of events) {
      view.take(event);
      users.take(event);
    }
  });
  const handler = new CommandHandler(log);
  const scheduler = new Scheduler({ handler, view, commandIdOf, keyOf, now: () => 0, send: () => undefined, failed: (what, error) => { throw new Error(what, { cause: error }); } });
  const parts = storage({ handler, commandIdOf, keyOf, usersOf: (imageId) => Promise.resolve(usersAmong(users.documents.values(), imageId)) });
  const network = ipam({ handler, commandIdOf, keyOf });
  const obey = (envelope: CommandEnvelope): Promise<Answer> => {
    switch (envelope.to) {
      case 'ipam': return network(envelope);
      case 'storage': return parts.obey(envelope);
      default: return scheduler.obey(envelope);
    }
  };
  return { log, view, scheduler, parts, obey };
};

/** What sagas do comes when it likes and is nobody's answer. */
const ofSagas = ({ stream }: { readonly stream: string }): boolean => stream.startsWith('saga-');

/** A draw of everything, from few names and few things, so that commands meet. */
const drafts = (random: Random, { view, log }: Pick<ReturnType<typeof platform>, 'view' | 'log'>) => {
  const made = { vm: [] as string[], network: [] as string[], image: [] as string[], node: [] as string[], volume: [] as string[] };
  let count = 0;
  const fresh = (kind: keyof typeof made): string => {
    count += 1;
    const id = idFrom(kind, commandIdOf(`${kind} ${String(count)}`));
    made[kind].push(id);
    return id;
  };
  const one = (kind: keyof typeof made): string => {
    const there = made[kind].filter((id) => log.streams.has(`${kind}-${id}`));
    return there.length === 0 || random.chance(0.05) ? idFrom(kind, commandIdOf(`nobody's ${kind}`)) : random.pick(there);
  };
  const subnetOf = (networkId: string): string => idFrom('subnet', networkId.slice('network_'.length));
  const ofVm = (type: Draft['type'], vmId: string, more: object = {}): Draft => {
    count += 1;
    return { type, target: vmId, stream: `vm-${vmId}`, data: { vmId, operationId: idFrom('op', commandIdOf(`op ${String(count)}`)), ...more } };
  };
  const imageName = (): string => `image-${String(random.between(1, 4))}`;
  const networkName = (): string => `net-${String(random.between(1, 4))}`;
  const finish = async (): Promise<Draft> => {
    const busy = [...view.calling()];
    const vmId = busy.length === 0 ? one('vm') : random.pick(busy).vmId;
    const events = log.streams.get(`vm-${vmId}`) ?? [];
    const operationId = events.findLast(({ data, type }) => 'operationId' in data && type !== 'VmPlaced')?.data['operationId'];
    const placed = events.findLast(({ type }) => type === 'VmPlaced')?.data as { readonly nodeId: string; readonly poolId: string; readonly generation: number } | undefined;
    const deleting = events.at(-1)?.type === 'VmDeleteStarted';
    const ours = operationId === undefined ? {} : { operationId };
    if (deleting) return ofVm('FinishDeleteVm', vmId, ours);
    if (placed === undefined && made.node.length > 0) return ofVm('AssignVm', vmId, { ...ours, nodeId: random.pick(made.node), poolId: idFrom('pool', commandIdOf('pool')), decision: {} });
    if (random.chance(0.2)) return ofVm('FailVm', vmId, { ...ours, refused: 'test.failed', because: {}, owed: [] });
    const observed = placed === undefined ? null : { nodeId: placed.nodeId, session: 1, sequence: count, generation: placed.generation, state: random.pick(['running', 'stopped', 'paused', 'saved']), reason: 'test' };
    const provisioned = events.some(({ type }) => type === 'VmProvisioned') || placed === undefined ? null
      : { poolId: placed.poolId, volumeId: idFrom('volume', commandIdOf(vmId)), address: '10.0.0.2', prefix: 24, mac: '52:54:0a:00:00:02' };
    return ofVm('FinishVm', vmId, { ...ours, how: 'test', provisioned, observed, reconfigured: events.at(-1)?.type === 'VmReconfigureRequested' ? { nic: null, volume: null, pending: [] } : null });
  };
  const draws: readonly (readonly [weight: number, draw: () => Draft | Promise<Draft>])[] = [
    [6, () => ofVm('CreateVm', fresh('vm'), {
      name: `vm-${String(random.between(1, 40))}`, description: '', image: imageName(), network: networkName(), vcpus: random.between(1, 3), memoryMib: 64 * random.between(1, 8), diskGib: random.between(1, 3),
      accel: 'any', devices: 'virtio', tags: [], protected: random.chance(0.1), ...(random.chance(0.2) ? { node: random.pick(['node-1', 'node-9']) } : {}),
    })],
    [12, finish],
    [4, () => ofVm('ChangeVm', one('vm'), { description: `words ${String(random.between(1, 3))}`, ...(random.chance(0.3) ? { protected: random.chance(0.3) } : {}) })],
    [8, () => ofVm(random.pick(['StartVm', 'RebootVm', 'ResetVm', 'PauseVm', 'ResumeVm', 'SaveVm'] as const), one('vm'))],
    [3, () => ofVm('StopVm', one('vm'), { timeoutSeconds: 5, force: false })],
    [4, () => ofVm('ReconfigureVm', one('vm'), { ...(random.chance(0.5) ? { diskGib: random.between(1, 5) } : { name: `vm-${String(random.between(1, 40))}` }), ...(random.chance(0.3) ? { addNic: networkName() } : {}) })],
    [1, () => ofVm('PlanVm', one('vm'))],
    [4, () => ofVm('DeleteVm', one('vm'), { force: random.chance(0.5) })],
    [2, () => { const vmId = one('vm'); const placed = log.streams.get(`vm-${vmId}`)?.findLast(({ type }) => type === 'VmPlaced')?.data; return { type: 'RecordDomainState', target: vmId, stream: `vm-${vmId}`, data: { vmId, nodeId: placed?.['nodeId'] ?? one('node'), session: 1, sequence: count + 1_000, generation: placed?.['generation'] ?? 1, state: 'running', reason: 'test' } }; }],
    [3, () => { const networkId = fresh('network'); return { type: 'CreateNetwork', target: networkId, stream: `network-${networkId}`, data: { networkId, name: networkName(), kind: 'nat', cidr: random.pick(['10.0.0.0/24', '10.0.0.0/24', '10.1.0.0/28', '10.0.0.0/31']), reserved: random.chance(0.3) ? [random.pick(['10.0.0.9', '10.7.0.9'])] : [] } }; }],
    [1, () => { const networkId = one('network'); return { type: 'DeleteNetwork', target: networkId, stream: `subnet-${subnetOf(networkId)}`, data: { networkId } }; }],
    [3, () => { const subnetId = subnetOf(one('network')); return { type: 'ChangeReserved', target: subnetId, stream: `subnet-${subnetId}`, data: { subnetId, reserve: [`10.0.0.${String(random.between(2, 12))}`], unreserve: [`10.0.0.${String(random.between(2, 12))}`] } }; }],
    [3, () => { const subnetId = subnetOf(one('network')); return { type: random.chance(0.7) ? 'LeaseAddress' : 'ReleaseAddress', target: subnetId, stream: `subnet-${subnetId}`, data: { subnetId, vmId: one('vm') } }; }],
    [3, () => { const imageId = fresh('image'); return { type: 'RegisterImage', target: imageId, stream: `image-${imageId}`, data: { imageId, name: imageName(), file: 'x.qcow2', format: random.pick(['qcow2', 'qcow2', 'iso']), sha256: 'a'.repeat(64), sizeBytes: 1, minDiskGib: random.between(1, 2), minMemoryMib: 64 } }; }],
    [2, () => { const imageId = one('image'); return { type: 'DeleteImage', target: imageId, stream: `image-${imageId}`, data: { imageId } }; }],
    [1, () => { const nodeId = fresh('node'); return { type: 'RegisterNode', target: nodeId, stream: `node-${nodeId}`, data: { nodeId, name: `node-${String(random.between(2, 4))}`, machineId: `machine-${String(random.between(1, 9))}`, credentialKey: `U${'A'.repeat(55)}`, sealKey: 'x'.repeat(43) } }; }],
    [3, () => { const nodeId = one('node'); return { type: 'ChangeNode', target: nodeId, stream: `node-${nodeId}`, data: { nodeId, accepting: random.chance(0.8), cpuPercent: 100 * random.between(4, 8) } }; }],
    [1, () => { const nodeId = one('node'); return { type: 'RemoveNode', target: nodeId, stream: `node-${nodeId}`, data: { nodeId, reason: 'test', force: nodeId !== made.node[0] && random.chance(0.5) } }; }],
    [2, () => { const nodeId = one('node'); return { type: 'ReserveCapacity', target: nodeId, stream: `node-${nodeId}`, data: { nodeId, vmId: one('vm'), vcpus: 1, memoryMib: 64, poolId: null, byHand: false, decision: {} } }; }],
    [2, () => { const volumeId = fresh('volume'); return { type: 'CreateVolume', target: volumeId, stream: `volume-${volumeId}`, data: { volumeId, vmId: one('vm'), poolId: idFrom('pool', commandIdOf('pool')), nodeId: one('node'), imageId: one('image'), sizeGib: 1 } }; }],
  ];
  const total = draws.reduce((sum, [weight]) => sum + weight, 0);
  return {
    made,
    draw: async (): Promise<Draft> => {
      let ticket = random.fraction() * total;
      for (const [weight, draw] of draws) if ((ticket -= weight) < 0) return draw();
      throw new Error('no draw');
    },
  };
};

const plain = (value: unknown): unknown => JSON.parse(JSON.stringify(value));

describe('A rehearsal', () => {
  it.each([1, 2, 3])('says what each of 500 random commands then does, and does nothing itself (seed %i)', async (seed) => {
    const random = new Random(seed);
    const parts = platform();
    const { log, scheduler, obey } = parts;
    const { draw, made } = drafts(random, parts);
    const command = ({ type, target, data }: Pick<Draft, 'type' | 'target' | 'data'>, id: string, more: object = {}): CommandEnvelope =>
      readCommand(commands, { id, to: commands[type].to, target, type, data, meta: { actor: 'token_test' }, cancels: [], ...more });

    const nodeId: NodeId = idFrom('node', commandIdOf('the first node'));
    made.node.push(nodeId);
    await obey(command({ type: 'RegisterNode', target: nodeId, data: { nodeId, name: 'node-1', machineId: 'machine-0', credentialKey: `U${'A'.repeat(55)}`, sealKey: 'x'.repeat(43) } }, commandIdOf('join')));
    await scheduler.hello({ helloId: commandIdOf('hello'), nodeId, description: { hypervisor: 'simulated', accel: 'tcg', accelBecause: 'simulated', cpus: 8, memoryMib: 16_384, versions: {} }, inventory: [], nodeAt: at });
    await parts.parts.report({ nodeId, poolId: idFrom('pool', commandIdOf('pool')), name: 'default', capacityGib: 1_000 });

    for (const kind of ['image', 'network'] as const) {
      for (const number of [1, 2, 3, 4]) {
        const id = idFrom(kind, commandIdOf(`first ${kind} ${String(number)}`));
        made[kind].push(id);
        await obey(command(kind === 'image'
          ? { type: 'RegisterImage', target: id, data: { imageId: id, name: `image-${String(number)}`, file: 'x.qcow2', format: 'qcow2', sha256: 'a'.repeat(64), sizeBytes: 1, minDiskGib: 1, minMemoryMib: 64 } }
          : { type: 'CreateNetwork', target: id, data: { networkId: id, name: `net-${String(number)}`, kind: 'nat', cidr: '10.0.0.0/24', reserved: [] } }, commandIdOf(`first ${id}`)));
      }
    }

    const tally = { recorded: 0, refused: 0, stale: 0, repeated: 0, placed: 0 };
    const types = new Set<string>();
    const sent: CommandEnvelope[] = [];
    for (let n = 0; n < 500; n++) {
      const repeats = sent.length > 20 && random.chance(0.05);
      const draft = await draw();
      const version = log.streams.get(draft.stream)?.length ?? 0;
      const expected = random.chance(0.75) ? {} : { expected: random.chance(0.5) ? version : random.between(0, version + 1) };
      const real = repeats ? random.pick(sent) : command(draft, commandIdOf(`${String(seed)}:${String(n)}`), expected);
      sent.push(real);

      const isFree = (await log.answered(real.id)) === undefined;
      const before = log.events.filter((event) => !ofSagas(event)).length;
      const said = await obey({ ...real, id: commandIdOf(`rehearsal ${String(n)}`), rehearses: { id: real.id } });
      expect(log.events.filter((event) => !ofSagas(event)).length).toBe(before);
      expect((await log.answered(real.id)) === undefined).toBe(isFree);

      const done = await obey(real);
      const events = log.events.filter((event) => !ofSagas(event)).slice(before).map(({ stream, version: number, type, data }) => ({ stream, version: number, type, data }));
      const what = `${real.type} (${String(n)})`;
      if (isRefusal(done)) expect(plain(said), what).toEqual(plain(done));
      else {
        const { position: _, ...answer } = done;
        if (isRefusal(said)) throw new Error(`${what} was to be refused: ${JSON.stringify(said)}`);
        const { rehearsal, ...rehearsed } = said;
        expect(plain(rehearsed), what).toEqual(plain(answer));
        expect(plain(rehearsal?.events), what).toEqual(plain(events));
        if (rehearsal?.placement?.['nodeId'] === nodeId) tally.placed += 1;
      }
      if (!isFree) tally.repeated += 1;
      else if (!isRefusal(done) && events.length > 0) {
        tally.recorded += 1;
        types.add(real.type);
      } else if (isRefusal(done)) tally[done.refused === 'precondition.failed' ? 'stale' : 'refused'] += 1;
    }
    // Each way out was taken often enough to mean something.
    expect(tally.recorded).toBeGreaterThan(120);
    expect(tally.refused).toBeGreaterThan(60);
    expect(tally.stale).toBeGreaterThan(5);
    expect(tally.repeated).toBeGreaterThan(10);
    expect(tally.placed).toBeGreaterThan(5);
    expect(types.size, [...types].join(' ')).toBeGreaterThan(15);
  });
});
