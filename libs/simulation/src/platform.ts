/*
 * The whole platform under a storm, from a seed: k replicas of every service over one log, nodes with their
 * agents, users who create, start, stop and delete. First all is calm, so that nodes can join. Then the storm:
 * whatever this run's weather holds. Then everything is up again, and from that moment on the platform has to
 * come to rest by itself: every operation ended, nothing owed, nothing leaked.
 */
import { drillName } from '@chronovirt/contracts/backup/backup';
import type { CommandEnvelope } from '@chronovirt/contracts/command';
import { idFrom, uuidOf, streamOf, type VmId, type VolumeId } from '@chronovirt/contracts/ids';
import { allEvents } from '@chronovirt/contracts/registry';
import { type Answer, isRefusal } from '@chronovirt/decider/decider';
import { canonical } from '@chronovirt/event-log/canonical';
import { commandIdOf } from '@chronovirt/event-log/command-id';
import { MemoryLog } from '@chronovirt/event-log/memory-log';
import type { Broken as BrokenAgent } from '@chronovirt/node-agent/agent';
import type { SimulatedTarget } from '@chronovirt/node-agent/simulated/simulated-hypervisor';
import { SchedulerView } from '@chronovirt/scheduler/view.projection';
import { volume as volumeDecider } from '@chronovirt/storage/volume/volume';
import { Bus, type Party } from './bus.ts';
import { NodeProgram } from './node.ts';
import { Referee } from './referee.ts';
import { IpamService, MonitorService, SchedulerService, StorageService } from './services.ts';
import { calm, type Weather, weatherOf } from './weather.ts';
import { World } from './world.ts';

/** What is taken out of the platform, to see that its absence is found. */
export interface Broken {
  readonly agent?: BrokenAgent;
  readonly cancelsIgnored?: boolean;
  readonly undoForward?: boolean;
  readonly versionUnchecked?: boolean;
  readonly answersForgotten?: boolean;
}

export interface Settings {
  readonly broken?: Broken;
  /** Default: drawn from the seed. */
  readonly weather?: Partial<Weather>;
  readonly nodes?: number;
  readonly vms?: number;
  /** Keeps what happened, for people. */
  readonly told?: boolean;
}

export interface Outcome {
  readonly seed: number;
  readonly violations: readonly string[];
  readonly weather: Weather;
  readonly story: readonly string[];
  readonly events: number;
  readonly operations: { readonly done: number; readonly failed: number };
  /** Milliseconds from when all was up again until the last operation had ended. */
  readonly settledAfterMs: number;
  /** SHA-256-free fingerprint of the log: the same seed gives the same. */
  /** Backups of which a drill has said whether a machine of them comes up. */
  readonly drilled: number;
  readonly fingerprint: string;
}

/** Everything is up again: from now on this long for every operation to end, beside its own deadlines. Milliseconds. */
const SETTLE_MS = 60_000;
/** The longest that a message of the storm may still be on its way, and the longest operation's deadlines. */
const PATIENCE_MS = 1_500_000;

/** How often somebody asks for a domain to be adopted. */
const ADOPTIONS_MAX = 6;
/** How often a deletion that has to wait is asked for again. */
const DELETES_TRIED_MAX = 400;

const USER = 'user_0190';

export const simulate = async (seed: number, settings: Settings = {}): Promise<Outcome> => {
  const world = new World(seed, { told: settings.told === true });
  const { random } = world;
  const drawn = weatherOf(random);
  const storm: Weather = { ...(settings.weather === undefined ? drawn : calm), ...settings.weather };
  let weather = calm;
  let logAway = false;
  const broken = settings.broken ?? {};
  const log = new MemoryLog(world.now, { versionUnchecked: broken.versionUnchecked === true, answersForgotten: broken.answersForgotten === true, cancelsForgotten: broken.cancelsIgnored === true }, allEvents);
  const bus = new Bus(world, () => weather);
  const around = { world, weather: () => weather, log, isLogAway: () => logAway, bus, cancelsIgnored: broken.cancelsIgnored === true, undoForward: broken.undoForward === true };

  const schedulers = [new SchedulerService(1, around), new SchedulerService(2, around)];
  const services = [...schedulers, new IpamService(1, around), new IpamService(2, around), new StorageService(1, around), new StorageService(2, around), new MonitorService(1, around)];
  const size = storm.narrow.capacity ? { cpus: 1, memoryMib: 512 + 6 * 256, poolGib: 200 } : { cpus: 8, memoryMib: 16_384, poolGib: storm.narrow.space ? 16 : 200 };
  // One that every node sees.
  const target: SimulatedTarget = { targetId: idFrom('target', random.digits()), backups: new Map() };
  const isVolume = (volumeId: VolumeId): boolean => {
    const events = log.streams.get(streamOf(volumeDecider.category, volumeId)) ?? [];
    return events.length > 0 && events.at(-1)?.type !== 'VolumeDeleted';
  };
  const nodes = Array.from({ length: settings.nodes ?? random.between(3, 4) }, (_, number) => new NodeProgram(number + 1, size, { ...around, broken: broken.agent ?? {}, target, isVolume }));
  const referee = new Referee(world, log, nodes, target);
  const failed = (): boolean => referee.violations.length > 0;

  // Whoever leads is alive; when two lead for a while, that is harmless.
  world.every(1_000, () => true, () => {
    const alive = schedulers.filter(({ on }) => on);
    const leading = alive.filter(({ leads }) => leads);
    for (const one of schedulers) if (!one.on) one.leads = false;
    if (leading.length < weather.leaders) for (const one of alive.slice(0, weather.leaders)) one.leads = true;
    if (leading.length > weather.leaders) for (const one of leading.slice(weather.leaders)) one.leads = false;
  });

  // -- users ---------------------------------------------------------------------------------------------

  const asked = new Set<string>();
  const told = new Map<string, (answer: Answer) => void>();
  const user: Party = { name: 'gateway', life: { on: true }, answered: (commandId, answer) => told.get(commandId)?.(answer) };
  /** Sends again until there is an answer, in the way of the gateway: straight back, or read from the log. */
  const order = (to: CommandEnvelope['to'], target: string, type: string, data: CommandEnvelope['data'], meta: Partial<CommandEnvelope['meta']> = {}): Promise<Answer> => {
    const id = commandIdOf(`${String(seed)}:${random.digits()}`);
    asked.add(id);
    const envelope: CommandEnvelope = { id, to, target, type, data, meta: { actor: USER, ...meta }, cancels: [] };
    return new Promise((resolve) => {
      const take = (answer: Answer): void => {
        if (!told.delete(id)) return;
        asked.delete(id);
        world.tell(() => `user: ${type} ${target} is answered ${JSON.stringify(answer)}`);
        resolve(answer);
      };
      told.set(id, take);
      const attempt = (waitMs: number): void => {
        bus.send(user, envelope);
        world.after(waitMs, () => {
          if (!told.has(id)) return;
          void log.answered(id).then((stored) => {
            if (stored === undefined) attempt(Math.min(8_000, waitMs * 2));
            else take(stored.answer);
          });
        });
      };
      attempt(1_000);
    });
  };

  const onVm = (vmId: VmId, type: string, more: CommandEnvelope['data'] = {}): Promise<Answer> => {
    const operationId = idFrom('op', random.digits());
    return order('scheduler', vmId, type, { vmId, operationId, ...more }, { operationId, vmId });
  };
  const names = Array.from({ length: settings.vms ?? random.between(20, 22) }, (_, number) => `vm-${String(number)}`);
  const bootRun = () => ({ runId: idFrom('run', random.digits()), jobId: idFrom('job', '0'.repeat(32)), name: 'job', revision: 1, system: false, script: '#!/bin/sh', timeoutSeconds: 1, nodeId: null, variables: [] });
  const create = (name: string, vmId: VmId): Promise<Answer> => onVm(vmId, 'CreateVm', {
    name, description: '', image: 'guest', network: 'cv-default', vcpus: random.between(1, 2), memoryMib: 256, diskGib: random.between(1, 4), accel: 'any', devices: 'virtio', tags: [], protected: false,
    ...(random.chance(0.1) ? { node: random.pick(nodes).nodeId } : {}), ...(random.chance(0.5) ? { cloudInit: { sshKeys: [] }, ...(random.chance(0.3) ? { bootRuns: [bootRun()] } : {}) } : {}), ...(random.chance(0.3) ? { autostart: { order: random.between(1, 3), delaySeconds: random.between(0, 10) } } : {}),
  });
  /** Larger, smaller, called otherwise (or as another is), with an interface more or a disk that grows. */
  const different = (name: string, volumes: Set<string>): CommandEnvelope['data'] => {
    const [known] = random.chance(0.5) ? volumes : [];
    if (known !== undefined) {
      return random.pick([{ detachVolume: { volumeId: known, delete: random.chance(0.5) } }, { attachVolume: known }, { changeVolume: { volumeId: known, sizeGib: random.between(1, 4) } }]);
    }
    if (random.chance(0.3)) {
      const volumeId = idFrom('volume', random.digits());
      volumes.add(volumeId);
      return { addVolume: { volumeId, name: `data-${String(random.between(1, 60))}`, sizeGib: random.between(1, 3), ...(random.chance(0.5) ? { image: 'guest' } : {}) } };
    }
    return random.chance(0.2) ? { rebuild: { volumeId: idFrom('volume', random.digits()), keepDays: 0 } } : otherwise(name);
  };
  const otherwise = (name: string): CommandEnvelope['data'] => ({
    ...(random.chance(0.5) ? { vcpus: random.between(1, 3), memoryMib: 128 * random.between(1, 4) } : {}),
    ...(random.chance(0.3) ? { name: random.chance(0.3) ? random.pick(names) : `${name}-${String(random.between(1, 3))}` } : {}),
    ...(random.chance(0.3) ? { addNic: 'cv-second' } : {}),
    ...(random.chance(0.3) ? { diskGib: random.between(2, 6) } : {}),
    ...(random.chance(0.4) ? { addBootRun: bootRun() } : {}),
    ...(random.chance(0.3) ? random.pick([{ addDevice: { kind: 'pci', address: '0000:01:00.0' } }, { addDevice: { kind: 'virtual-usb', model: 'tablet' } }, { removeDevice: 'pci-0000:01:00.0' }, { removeDevice: 'virtual-usb-tablet' }] as const) : {}),
    boot: [random.pick(['disk', 'cdrom'])],
  });
  /** Disks that stay when their machine goes are whole only without snapshots: so those are deleted first, one after another. */
  const deletion = async (vmId: VmId): Promise<Answer> => {
    for (let tries = 0; ; tries++) {
      const answer = await onVm(vmId, 'DeleteVm', { force: true, ...(random.chance(0.3) ? { deleteDisks: true } : {}) });
      if (!isRefusal(answer) || tries >= DELETES_TRIED_MAX || !['vm.volumes_in_snapshots', 'vm.busy', 'vm.clean_up_owed'].includes(answer.refused)) return answer;
      const snapshotId = referee.snapshotsOf(vmId)[0];
      if (answer.refused === 'vm.volumes_in_snapshots' && snapshotId !== undefined) await onVm(vmId, 'DeleteSnapshot', { snapshotId });
      await world.sleep(random.between(1_000, 5_000));
    }
  };
  /** Takes, deletes, goes back to and makes machines of snapshots; of those that are meant, some never came to be. */
  const snapshotAct = async (vmId: VmId): Promise<Answer> => {
    const known = referee.snapshotsOf(vmId);
    const act = known.length === 0 ? 'TakeSnapshot' : random.pick(['TakeSnapshot', 'DeleteSnapshot', 'DeleteSnapshot', 'RevertVm', 'RevertVm', 'CloneVm']);
    const kind = random.pick(['external', 'internal']);
    if ((act === 'RevertVm' || kind === 'internal') && random.chance(0.8)) {
      await onVm(vmId, 'StopVm', { timeoutSeconds: 0, force: true });
      await world.sleep(random.between(500, 5_000));
    }
    const digits = random.digits();
    if (act === 'CloneVm') return onVm(idFrom('vm', digits), act, { ofVm: vmId, snapshotId: random.pick(known), name: `clone-${digits.slice(0, 6)}` });
    return onVm(vmId, act, act === 'TakeSnapshot' ? { snapshotId: idFrom('snapshot', digits), name: `s-${digits.slice(0, 6)}`, description: '', kind } : { snapshotId: random.pick(known) });
  };

  /** Backs a machine up, deletes a backup (which another may need), or makes another machine of one. */
  const backupAct = async (vmId: VmId, network?: string): Promise<unknown> => {
    const known = referee.backupsOf(vmId);
    const act = known.length === 0 ? 'BackupVm' : random.pick(['BackupVm', 'BackupVm', 'DeleteBackup', 'RestoreBackup', 'drill', 'drill']);
    const digits = random.digits();
    const backupId = act === 'BackupVm' ? idFrom('backup', digits) : random.pick(known);
    if (act === 'BackupVm') return onVm(vmId, act, { backupId, wants: random.pick(['auto', 'auto', 'full']), scheduled: null });
    const operationId = idFrom('op', digits);
    if (act === 'DeleteBackup') return order('storage', vmId, act, { vmId, backupId, operationId }, { operationId });
    const drilled = idFrom('vm', digits);
    if (act === 'drill') {
      // Somebody may delete its machine before it is known whether it came up.
      if (random.chance(0.15)) world.after(random.between(0, 10_000), () => { void onVm(drilled, 'DeleteVm', { force: true }); });
      return onVm(drilled, 'RestoreBackup', { backupId, name: drillName(drilled), ...(network === undefined ? {} : { network }), drill: true, proof: { timeoutSeconds: 30 } });
    }
    return onVm(drilled, act, { backupId, name: `of-${digits.slice(0, 6)}`, ...(network === undefined ? {} : { network }), drill: false });
  };

  /** Volumes for no VM: made, copied, worked on, deleted. */
  const volumeAct = (volumes: Set<string>): Promise<Answer> => {
    const operationId = idFrom('op', random.digits());
    const known = volumes.size > 0 && random.chance(0.8) ? random.pick([...volumes]) : undefined;
    const act = known === undefined ? 'RequestVolume' : random.pick(['RequestVolume', 'WorkOnVolume', 'WorkOnVolume', 'WorkOnVolume', 'WorkOnVolume', 'RemoveDetachedVolume']);
    if (act !== 'RequestVolume' && known !== undefined) {
      const work = random.pick([{ kind: 'convert', format: random.pick(['qcow2', 'raw']) }, { kind: 'sparsify', compress: false }, { kind: 'wipe' }, { kind: 'publish', imageId: idFrom('image', random.digits()), image: { name: `v-${random.digits().slice(0, 6)}`, minMemoryMib: 64 } }]);
      return order('storage', known, act, { volumeId: known, operationId, ...(act === 'WorkOnVolume' ? { work } : {}) }, { operationId });
    }
    const volumeId = idFrom('volume', random.digits());
    volumes.add(volumeId);
    if (random.chance(0.15)) {
      const [node, file] = [random.pick(nodes), `found-${String(random.between(1, 3))}.qcow2`];
      const driftId = `drift_${random.digits()}`;
      // Somebody has put it there; another volume may have been made of it meanwhile.
      if (!referee.found.some((one) => one.nodeId === node.nodeId && one.file === file)) {
        node.machine.putFile(file);
        referee.found.push({ nodeId: node.nodeId, file });
      }
      return order('storage', volumeId, 'RequestVolume', { volumeId, operationId, name: `data-${String(random.between(1, 60))}`, poolId: node.poolId, nodeId: node.nodeId, sizeGib: 1, format: 'qcow2', source: { kind: 'found', driftId, file } }, { operationId });
    }
    const source = known !== undefined && random.chance(0.7) ? { kind: 'volume', volumeId: known } : random.pick([{ kind: 'blank' }, { kind: 'image', imageId: image.imageId, file: image.file, format: 'qcow2' }]);
    return order('storage', volumeId, 'RequestVolume', { volumeId, operationId, name: `data-${String(random.between(1, 60))}`, poolId: pools.length > 0 && random.chance(0.4) ? random.pick(pools) : random.pick(nodes).poolId, nodeId: null, sizeGib: source.kind === 'volume' ? null : random.between(1, 3), format: random.pick(['qcow2', 'raw']), source }, { operationId });
  };

  /** Pools that an operator makes, of one node or of two; stopped, started, looked through, deleted. */
  const pools: string[] = [];
  const poolAct = (): Promise<Answer> => {
    const operationId = idFrom('op', random.digits());
    if (pools.length > 0 && random.chance(0.7)) {
      const poolId = random.pick(pools);
      return order('storage', poolId, 'WorkOnPool', { poolId, operationId, work: random.pick(['start', 'stop', 'stop', 'refresh', 'delete']) }, { operationId });
    }
    const poolId = idFrom('pool', random.digits());
    pools.push(poolId);
    const [first, second] = [random.pick(nodes).nodeId, random.pick(nodes).nodeId];
    const shared = first !== second && random.chance(0.5);
    return order('storage', poolId, 'RequestPool', { poolId, operationId, name: `pool-${String(random.between(1, 6))}`, type: shared ? 'shared' : 'dir', path: '/pools/one', nodes: shared ? [first, second] : [first], overcommitPercent: 200, fullPercent: 95 }, { operationId });
  };

  /** Somebody makes a domain on a node by hand, and somebody wants it as a VM, again and again until it is one. */
  const adopted = async (number: number): Promise<void> => {
    await world.sleep(random.between(0, stormMs * 0.5));
    const [node, vmId] = [random.pick(nodes), idFrom('vm', random.digits())];
    node.machine.makeForeign(vmId, `by-hand-${String(number)}`);
    referee.foreign.push({ nodeId: node.nodeId, vmId });
    for (let tries = 0; tries < ADOPTIONS_MAX && weather !== calm && node.machine.domains.get(vmId)?.ours === false; tries++) {
      await world.sleep(random.between(1_000, 15_000));
      await onVm(vmId, 'AdoptVm', { nodeId: node.nodeId, uuid: uuidOf(vmId), description: '', ...(random.chance(0.1) ? { name: random.pick(names) } : {}) });
    }
    for (let acts = random.between(0, 3); acts > 0; acts--) {
      await world.sleep(random.between(500, 15_000));
      if (weather === calm) return;
      const act = random.pick(['StartVm', 'StopVm', 'RebootVm', 'ReconfigureVm', 'snapshot', 'backup', 'backup', 'delete']);
      if (act === 'delete') await deletion(vmId);
      else if (act === 'snapshot') await snapshotAct(vmId);
      // It has a network of its own, of which nobody here knows.
      else if (act === 'backup') await backupAct(vmId, random.chance(0.8) ? 'cv-default' : undefined);
      else await onVm(vmId, act, act === 'StopVm' ? { timeoutSeconds: 0, force: random.chance(0.5) } : act === 'ReconfigureVm' ? otherwise(`by-hand-${String(number)}`) : {});
    }
  };

  /** One user's dealings with one machine, while the storm lasts. */
  const live = async (name: string): Promise<void> => {
    const vmId = idFrom('vm', random.digits());
    await world.sleep(random.between(0, stormMs * 0.6));
    await create(name, vmId);
    const volumes = new Set<string>();
    for (let acts = random.between(0, 5); acts > 0; acts--) {
      await world.sleep(random.chance(0.2) ? random.between(0, 500) : random.between(1_000, 30_000));
      if (weather === calm) return;
      const act = random.pick(['StartVm', 'StopVm', 'StopVm', 'RebootVm', 'ResetVm', 'PauseVm', 'ResumeVm', 'SaveVm', 'ReconfigureVm', 'ReconfigureVm', 'AskGuest', 'publish', 'snapshot', 'snapshot', 'snapshot', 'backup', 'backup', 'volume', 'volume', 'pool']);
      if (act === 'pool') {
        await poolAct();
        continue;
      }
      if (act === 'backup') {
        for (let times = random.between(1, 3); times > 0; times--) {
          await backupAct(vmId);
          await world.sleep(random.between(500, 8_000));
        }
        continue;
      }
      if (act === 'volume') {
        for (let times = random.between(2, 6); times > 0; times--) {
          await volumeAct(volumes);
          await world.sleep(random.between(500, 8_000));
        }
        continue;
      }
      if (act === 'publish') {
        const digits = random.digits();
        await onVm(vmId, 'PublishVm', { imageId: idFrom('image', digits), name: `p-${digits.slice(0, 6)}` });
        continue;
      }
      if (act === 'snapshot') {
        for (let times = random.between(1, 4); times > 0; times--) {
          await snapshotAct(vmId);
          await world.sleep(random.between(500, 8_000));
        }
        continue;
      }
      await onVm(vmId, act, act === 'StopVm' ? { timeoutSeconds: random.between(0, 10), force: random.chance(0.7) } : act === 'ReconfigureVm' ? different(name, volumes) : act === 'AskGuest' ? { request: { kind: 'add-ssh-keys', user: 'root', keys: ['ssh-ed25519 AAAA'] } } : {});
    }
    if (random.chance(0.5)) return;
    await world.sleep(random.between(0, 20_000));
    await deletion(vmId);
  };

  // -- calm: everything comes up ---------------------------------------------------------------------------

  let stormMs = 0;
  for (const service of services) service.boot();
  const networkId = idFrom('network', random.digits());
  const cidr = storm.narrow.addresses ? '10.21.0.0/28' : '10.21.0.0/24';
  const joined = nodes.map(({ nodeId }, number) => order('scheduler', nodeId, 'RegisterNode', { nodeId, name: `node-${String(number + 1)}`, machineId: `machine-${String(number + 1)}`, credentialKey: `U${'A'.repeat(55)}`, sealKey: 'A'.repeat(43) }));
  const image = { imageId: idFrom('image', random.digits()), name: 'guest', file: 'guest.qcow2', format: 'qcow2', sha256: random.digits() + random.digits(), sizeBytes: 1_000_000, minDiskGib: 1, minMemoryMib: 64 };
  const secondId = idFrom('network', random.digits());
  const begun = [...joined, order('ipam', secondId, 'CreateNetwork', { networkId: secondId, name: 'cv-second', kind: 'nat', cidr: '10.22.0.0/28', reserved: [] }), order('ipam', networkId, 'CreateNetwork', { networkId, name: 'cv-default', kind: 'nat', cidr, reserved: [] }), order('storage', image.imageId, 'RegisterImage', image)];
  void Promise.all(joined).then(() => { for (const node of nodes) node.boot(); });
  const ready = (): boolean => asked.size === 0 && nodes.every(({ agent, poolId }) => agent?.session() !== undefined && log.streams.has(`pool-${poolId}`));
  if (!(await world.run(ready, 60_000))) referee.fail('the platform did not come up');
  else for (const answer of await Promise.all(begun)) if (isRefusal(answer)) referee.fail(`the platform did not come up: ${JSON.stringify(answer)}`);

  // -- storm -------------------------------------------------------------------------------------------------

  world.tell(() => `storm: ${JSON.stringify(storm)}`);
  weather = storm;
  stormMs = random.between(30_000, 180_000);
  const stormEnds = world.elapsed + stormMs;
  const sometime = (run: () => void): void => { world.after(random.between(0, stormMs), () => { if (weather !== calm) run(); }); };

  const lost = nodes.slice(0, storm.lostNodes);
  for (const node of lost) {
    sometime(() => {
      node.down = true;
      if (random.chance(0.5)) node.kill('the machine is lost');
      else bus.cutOff(node.nodeId, false);
    });
  }
  const darken = (node: NodeProgram): void => {
    const ms = random.between(2_000, 150_000);
    if (random.chance(0.6)) {
      bus.cutOff(node.nodeId, random.chance(0.5));
      world.after(ms, () => { if (!node.down) bus.mend(node.nodeId); });
      return;
    }
    node.kill('its machine goes dark');
    const powerLost = random.chance(0.5);
    world.after(ms, () => {
      if (powerLost) {
        node.powerCycles += 1;
        node.machine.powerCycle();
      }
      if (!node.down) node.boot();
    });
  };
  for (let i = 0; i < storm.darkNodes; i++) sometime(() => { darken(random.pick(nodes)); });
  for (let i = 0; i < storm.brokenLinks; i++) {
    sometime(() => {
      const { name } = random.chance(0.5) ? random.pick(schedulers) : random.pick(services);
      bus.cutOff(name, random.chance(0.6));
      // Half of them are longer than a step and its undo together may take.
      world.after(random.chance(0.5) ? random.between(500, 60_000) : random.between(90_000, 180_000), () => { bus.mend(name); });
    });
  }
  const reconnectAll = (): void => { for (const node of nodes) if (node.on) world.after(random.between(0, 1_000), () => { if (node.on) node.connectAgain(); }); };
  for (let i = 0; i < storm.wipes; i++) sometime(() => { bus.wipe(); reconnectAll(); });
  for (let i = 0; i < storm.outages; i++) {
    sometime(() => {
      bus.leave();
      world.after(random.between(500, 45_000), () => { bus.comeBack(); });
    });
  }
  for (let i = 0; i < storm.logOutages; i++) {
    sometime(() => {
      world.tell(() => 'the log is away');
      logAway = true;
      world.after(random.between(500, 60_000), () => {
        world.tell(() => 'the log is back');
        logAway = false;
      });
    });
  }
  for (let i = 0; i < storm.longAbsences; i++) {
    sometime(() => {
      const kind = random.pick(['ipam', 'storage', 'scheduler', 'monitor']);
      for (const service of services) {
        if (!service.name.startsWith(kind)) continue;
        service.kill('long absence');
        world.after(random.between(5_000, 100_000), () => { service.boot(); });
      }
    });
  }
  for (let i = 0; i < storm.crashes; i++) {
    sometime(() => {
      const { machine, nodeId } = random.pick(nodes);
      const running = [...machine.domains].filter(([, { state, ours }]) => state === 'running' && ours);
      if (running.length === 0) return;
      const [vmId] = random.pick(running);
      referee.broken.add(vmId);
      machine.crash(vmId);
      if (random.chance(0.5)) return;
      world.after(random.between(1, 3_000), () => {
        if (machine.domains.get(vmId)?.state === 'crashed' && referee.startsBehind(nodeId, vmId)) machine.startBehind(vmId);
      });
    });
  }
  const lives = [...names.map((name) => live(random.chance(0.05) ? 'vm-0' : name)), ...[1, 2].map(adopted)];
  await world.run(failed, stormEnds);

  // -- everything is up again --------------------------------------------------------------------------------

  weather = calm;
  world.tell(() => 'everything is up again');
  const upAt = world.elapsed;
  const returns = lost.filter(() => random.chance(0.5));
  const removals: Promise<unknown>[] = [];
  for (const node of lost) {
    if (returns.includes(node)) node.down = false;
    else removals.push(order('scheduler', node.nodeId, 'RemoveNode', { nodeId: node.nodeId, reason: 'its machine is lost', force: true }));
  }
  logAway = false;
  bus.comeBack();
  for (const program of [...services, ...nodes]) {
    bus.mend(program.name);
    if (!(program instanceof NodeProgram) || !program.down) program.boot();
  }
  // A removed node that was only cut off finds out that nobody knows it any more.
  for (const node of lost) if (node.down && node.on) bus.mend(node.nodeId);

  let livesEnded = 0;
  for (const one of lives) void one.then(() => { livesEnded += 1; });
  const atRest = (): boolean => failed() || (livesEnded === lives.length && asked.size === 0 && referee.open.size === 0 && referee.openSagas.size === 0 && referee.owing.size === 0 && bus.empty && schedulers.every(({ followed }) => followed === log.events.length));
  const rest = async (): Promise<void> => {
    if (!(await world.run(atRest, world.elapsed + PATIENCE_MS))) {
      referee.fail(`no rest after ${String(PATIENCE_MS / 1_000)} s: ${String(livesEnded)} of ${String(lives.length)} users, ${String(asked.size)} commands without answer, ${String(referee.open.size)} operations, ${String(referee.openSagas.size)} sagas, ${String(referee.owing.size)} owing, bus ${bus.empty ? 'empty' : `not empty: ${bus.describe()}`}`);
    }
    // Agents look around once more, and what they see is told.
    for (const { agent } of nodes) {
      void agent?.sweep();
      void agent?.sweepDrift();
    }
    await world.run(() => false, world.elapsed + 3_000);
    await world.run(atRest, world.elapsed + 60_000);
  };
  if (!failed()) await rest();
  if (!failed()) {
    referee.checkAtRest();
    referee.checkInTime(upAt, SETTLE_MS);
    if (bus.dead.length > 0) referee.fail(`${String(bus.dead.length)} messages were set aside`);
    checkViews(referee, log, schedulers);
  }
  const settledAfterMs = Math.max(0, ...[...referee.operations.values()].map(({ endedAt }) => endedAt - upAt));

  // -- sometimes: everything is deleted ----------------------------------------------------------------------

  if (!failed() && random.chance(0.15)) {
    const deletions: Promise<Answer>[] = [];
    for (const { vmId, state } of referee.vms()) if (state.status === 'live') deletions.push(deletion(vmId));
    let deleted = 0;
    for (const one of deletions) void one.then(() => { deleted += 1; });
    await world.run(() => failed() || deleted === deletions.length, world.elapsed + PATIENCE_MS);
    await rest();
    if (!failed()) referee.checkEmpty();
  }

  const operations = [...referee.operations.values()];
  return {
    seed, violations: referee.violations, weather: storm, story: world.story ?? [], events: log.events.length, settledAfterMs,
    operations: { done: operations.filter(({ outcome }) => outcome === 'done').length, failed: operations.filter(({ outcome }) => outcome === 'failed').length },
    drilled: referee.drilled(),
    fingerprint: `${String(log.events.length)}:${log.events.at(-1)?.id ?? ''}:${String(world.elapsed)}`,
  };
};

/** What every replica holds in memory is what the log says, folded anew. */
const checkViews = (referee: Referee, log: MemoryLog, schedulers: readonly SchedulerService[]): void => {
  const anew = new SchedulerView();
  for (const event of log.events) anew.take(event);
  const expected = contentOf(anew);
  for (const { name, view } of schedulers) {
    const held = contentOf(view);
    for (const document of held) if (!expected.includes(document)) referee.fail(`${name} holds what the log does not say: ${document}`);
    for (const document of expected) if (!held.includes(document)) referee.fail(`${name} does not hold what the log says: ${document}`);
  }
};

/** RFC 8785, so that the order in which things came to be known makes no difference. */
const contentOf = (view: SchedulerView): readonly string[] => {
  const nodes = [...view.candidates()].map((candidate) => ({ ...candidate, measured: null }));
  return [...nodes, ...nodes.flatMap(({ nodeId }) => view.vmsOn(nodeId)), ...view.openSagas(), ...view.owing()].map((document) => canonical(document)).sort();
};
