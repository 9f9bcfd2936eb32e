/*
 * The hypervisor that is libvirt: qemu:///system, or the test driver of a daemon.
 *
 * Two connections. A guest whose QEMU hangs also hangs every call that asks its monitor, for as long as it
 * likes, and the daemon stops reading a connection with too many of those. So what may touch a monitor goes
 * by `slow`, with few calls under way; events and what is answered from the daemon's memory go by `fast`,
 * and stay quick.
 *
 * libvirt's errors are answers too, but not ours: a caller is told a code of our own and plain words, with
 * libvirt's beside it. What nobody can know (no answer, a lock held too long, the host in trouble) is
 * thrown, and the command comes again.
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { DomainUsage } from '@chronovirt/contracts/console/console.commands';
import { idFrom, uuidOf, type NodeId, type VmId, type VolumeId } from '@chronovirt/contracts/ids';
import type { NetworkPlan } from '@chronovirt/contracts/network/network.events';
import type { NodeFeature } from '@chronovirt/contracts/node/node.events';
import type { InnerStep, Layer, LayerStep } from '@chronovirt/contracts/vm/snapshot';
import { connect } from '@chronovirt/libvirt/connection';
import type { Libvirt } from '@chronovirt/libvirt/connection';
import { readDomainCapabilities } from '@chronovirt/libvirt/capabilities-xml';
import { readDomain } from '@chronovirt/libvirt/domain-xml';
import { errorCodes, isAgentUnresponsive, isBusy, isNoDomain, isNoMetadata, isNoNetwork, isOperationInvalid, LibvirtError } from '@chronovirt/libvirt/errors';
import type { Domain, DomainState as LibvirtState } from '@chronovirt/libvirt/layouts';
import { readNetwork } from '@chronovirt/libvirt/network-xml';
import type { DhcpHost } from '@chronovirt/libvirt/network-xml';
import { domainStats } from '@chronovirt/libvirt/stats';
import type { DomainStats } from '@chronovirt/libvirt/stats';
import { attributeOf, buildXml, childOf, childrenOf, parseXml } from '@chronovirt/libvirt/xml';
import type { XmlElement } from '@chronovirt/libvirt/xml';
import { CANCELLED, isRefusal, refuse } from '../answer.ts';
import type { Refusal } from '../answer.ts';
import type { Inspector } from '../console/answer-consoles.os.ts';
import type { SeenMachine } from '../domain/differences.ts';
import { ASSIGNABLE_MAX, type AssignableDevice, deviceName } from '@chronovirt/contracts/vm/assigned';
import { changesOf, mediumOf, saysBoot } from '../domain/changes.ts';
import type { Change } from '../domain/changes.ts';
import { ALIAS, assignedXml, elementOf } from '../domain/assigned-xml.ts';
import { dimmXml, diskXml, domainXml, METADATA_NAMESPACE, nicXml, targetOf } from '../domain/domain-xml.ts';
import type { DomainHost } from '../domain/domain-xml.ts';
import { needsKvm } from '../domain/expert-xml.ts';
import { resultsIn } from '../boot-jobs/boot-runs.ts';
import { askGuest } from '../guest/guest-agent.ts';
import type { AskAgent } from '../guest/guest-agent.ts';
import { createTurns } from '../turns.ts';
import { setOfflinePassword, type OfflineDisk } from '../guest/offline-password.os.ts';
import type { Done, DomainPlan, Hypervisor, LayerBase, SeenDomain, Shutdown, Watcher } from '../hypervisor.ts';
import { hostXml, macOf, networkXml } from '../network/network-xml.ts';
import { element } from '../xml.ts';
import type { LibvirtHost } from './host.ts';
import { copiedXml } from './copied-xml.os.ts';
import { adoptedXml, keptDefinition, namesKernel, withMedium, wordsOf } from './adopted-xml.os.ts';
import { createInspector, nameGivenIn } from './inspect.os.ts';
import type { Identity } from './inspect.os.ts';
import { createNetworks, findNetwork } from './libvirt-networks.os.ts';
import { libvirtBackups } from './libvirt-backups.os.ts';
import { bootIn, liveDomain, macIn, placesOf } from './live-domain.os.ts';
import { assignableIn } from './node-device.os.ts';
import { libvirtProof } from './prove.os.ts';

export interface LibvirtSettings {
  readonly nodeId: NodeId;
  readonly host: LibvirtHost;
  /** Calls at once that may wait for guests: below the daemon's max_client_requests. Default 4, below its default of 5. */
  readonly inFlightMax?: number;
  readonly agentVersion: string;
  readonly log: { warn(fields: object, sentence: string): void };
}

export interface LibvirtHypervisor extends Hypervisor, Inspector {
  /** For readiness, in plain words. */
  status(): { readonly ok: boolean; readonly says: string };
  close(): Promise<void>;
}

export class HypervisorFault extends Error {
  override readonly name = 'HypervisorFault';
  constructor(what: string, object: string, cause: unknown) { super(`could not ${what} ${object}`, { cause }); }
}

const START_MS = 120_000;
/** Memory of a terabyte written to a slow disk, or read from it. */
const SAVE_MS = 12 * 60 * 60_000;
/** An ignored power button is pressed again: a guest that was still booting did not hear it. */
const PRESS_EVERY_MS = 5_000;
/** The guest agent's answer is waited for no longer. Seconds. */
const GUEST_AGENT_SECONDS = 3;
/** Virtual machines of libguestfs at once: each takes memory and a CPU that nobody has set aside. */
const OFFLINE_AT_ONCE_MAX = 1;
/** Where its answer is what is wanted: setting a password takes an emulated guest a second. Seconds. */
const GUEST_ASKED_SECONDS = 15;
const REBOOT_MS = 45_000;
const SOCKET_PATH_BYTES_MAX = 107;
/** A guest is given three seconds to see what was plugged in. */
const TRIES_MAX = 15;
/** Of 128 MiB each: a terabyte at once. */
const MEMORY_BLOCKS_MAX = 8_192;
/** A machine has some hundred; each is asked about. */
const NODE_DEVICES_MAX = 1_024;
/** How long a guest may take to let go of a device. */
const UNPLUG_MS = 30_000;
/** How often a merge that ended too early is begun again at once. */
const MERGES_BEGUN_MAX = 3;
/** Between two looks whether something has happened: soon at first, since most things happen soon, and then ever less often. */
const LOOK_FIRST_MS = 5;
const LOOK_MS = 200;

/** Of guest-get-memory-blocks, as the guest's own program says it. */
interface MemoryBlock {
  readonly 'phys-index'?: unknown;
  readonly online?: unknown;
}

type Seen = Pick<SeenDomain, 'state' | 'reason'>;

/** libvirt's words for a state in ours. */
export function stateOf(state: LibvirtState, reason: string): Seen {
  switch (state) {
    case 'paused':
    case 'pmsuspended':
      // libvirt starts a guest paused, and on the way down or through a reboot it is so for a moment.
      if (reason === 'startingUp') return { state: 'stopped', reason: 'starting' };
      if (reason === 'shuttingDown') return { state: 'running', reason };
      return { state: reason === 'crashed' ? 'crashed' : 'paused', reason };
    case 'crashed':
      return { state: 'crashed', reason };
    case 'shutoff':
      return { state: reason === 'crashed' ? 'crashed' : 'stopped', reason };
    case 'running':
    case 'blocked':
    case 'shutdown':
    case 'nostate':
    case 'unknown':
      return { state: 'running', reason };
  }
}

export async function connectLibvirt(settings: LibvirtSettings): Promise<LibvirtHypervisor> {
  const { nodeId, host, inFlightMax = 4, agentVersion, log } = settings;
  const { driver, target, disks } = host;
  const diskPathOf = ({ volumeId, layer }: Pick<DomainPlan['disks'][number], 'volumeId' | 'layer'>): string => disks.pathOf(volumeId, layer);
  const fast = await connect(target, { reconnect: true });
  let slow: Libvirt;
  try {
    slow = await connect(target, { reconnect: true, callTimeoutMs: START_MS, inFlightMax });
  } catch (fault) {
    await fast.close();
    throw fault;
  }
  const watchers = new Set<Watcher>();
  /** Who is who, by UUID; undefined for a domain that is not ours. */
  const identities = new Map<string, Identity | undefined>();
  /** Waits for the next event of a domain. */
  const waits = new Map<string, Set<(event: string) => void>>();
  const turns = new Map<string, Promise<unknown>>();

  await host.prepare(slow);
  const events = await fast.domainEvents({ kinds: ['lifecycle', 'reboot', 'deviceAdded', 'deviceRemoved', 'metadataChange'] });

  const networkEvents = await fast.networkEvents();

  /** What not every node has; asked anew at each hello, since packages come and go. */
  let can: { readonly features: readonly NodeFeature[]; readonly hyperv: readonly string[] } = { features: [], hyperv: [] };
  const probe = async (): Promise<void> => {
    if (driver !== 'qemu') return;
    const said = readDomainCapabilities(await slow.connectGetDomainCapabilities({ virtualisation: host.accel.accel === 'kvm' ? 'kvm' : 'qemu', architecture: 'x86_64', machine: 'q35' }));
    const uefi = said.firmware.includes('efi');
    const tpm = said.devices['tpm']?.['backendModel']?.includes('emulator') === true;
    can = { features: [...(uefi ? ['uefi' as const] : []), ...(uefi && said.secureBoot ? ['uefi-secure' as const] : []), ...(tpm ? ['tpm' as const] : [])], hyperv: said.hyperv };
  };

  /** Of the node's own devices. One that went away meanwhile is none. */
  const lendable = async (): Promise<readonly AssignableDevice[]> => {
    if (driver !== 'qemu') return [];
    const found: AssignableDevice[] = [];
    for (const device of (await slow.connectListAllNodeDevices({ filter: ['pci', 'usb'] })).slice(0, NODE_DEVICES_MAX)) {
      const xml = await slow.nodeDeviceGetXmlDesc(device).catch((error: unknown) => { if (error instanceof LibvirtError) return undefined; throw error; });
      const one = xml === undefined ? undefined : assignableIn(xml);
      if (one !== undefined && !found.some(({ device: other }) => deviceName(other) === deviceName(one.device))) found.push(one);
    }
    return found.slice(0, ASSIGNABLE_MAX);
  };

  const identify = async (domain: Domain): Promise<Identity | undefined> => {
    if (identities.has(domain.uuid)) return identities.get(domain.uuid);
    const identity = await readIdentity(fast, domain);
    identities.set(domain.uuid, identity);
    return identity;
  };

  const find = async (vmId: VmId): Promise<Domain | undefined> => {
    try {
      return await fast.domainLookupByUuid({ uuid: uuidOf(vmId) });
    } catch (error) {
      if (isNoDomain(error)) return undefined;
      throw new HypervisorFault('find', vmId, error);
    }
  };

  /** The files that a domain writes. */
  const diskFiles = async (domain: Domain): Promise<readonly string[]> => readDomain(await fast.domainGetXmlDesc({ domain })).disks.flatMap(({ path }) => (path !== undefined && fileOfVolume.test(path) ? [path] : []));

  /** One that does not run may have its memory kept; whether it has, libvirt does not know. */
  const orSaved = async (domain: Domain, seen: Seen): Promise<Seen> =>
    (seen.state === 'stopped' && seen.reason !== 'starting' && (await host.saves.holds(idFrom('vm', domain.uuid), () => diskFiles(domain))) ? { state: 'saved', reason: 'saved' } : seen);

  const look = async (domain: Domain): Promise<Seen | undefined> => {
    try {
      const { state, reason } = await fast.domainGetState({ domain });
      return await orSaved(domain, stateOf(state, reason));
    } catch (error) {
      if (isNoDomain(error)) return undefined;
      throw new HypervisorFault('look at', domain.name, error);
    }
  };

  const absent = (vmId: VmId): SeenDomain => ({ vmId, generation: 0, state: 'absent', reason: 'absent' });
  const gone = (vmId: VmId): Refusal => refuse('domain.gone', { vmId, says: 'this node has no such domain' });

  /** Runs `work` on a domain that exists, with its state. */
  const offline = createTurns(OFFLINE_AT_ONCE_MAX);
  const withDomain = async (vmId: VmId, what: string, work: (domain: Domain, seen: Seen) => Done): Done => {
    const domain = await find(vmId);
    const seen = domain === undefined ? undefined : await look(domain);
    if (domain === undefined || seen === undefined) return gone(vmId);
    try {
      return await work(domain, seen);
    } catch (error) {
      return refusalFor(error, what, vmId);
    }
  };

  /** What is done to disks by others than QEMU, or by another QEMU. */
  const whileOff = (vmId: VmId, what: string, work: (domain: Domain) => Done): Done =>
    withDomain(vmId, what, async (domain, { state }) => (state === 'stopped' || state === 'crashed' ? work(domain) : refuse('domain.still_running', { vmId, state, says: `the VM is ${state}: stop it first` })));

  const whileRunning = (vmId: VmId, what: string, work: (domain: Domain) => Promise<unknown>): Done =>
    withDomain(vmId, what, async (domain, seen) => {
      if (seen.state !== 'running') return refuse('domain.not_running', { vmId, state: seen.state });
      try {
        await work(domain);
      } catch (error) {
        if (isOperationInvalid(error)) return refuse('domain.not_running', { vmId });
        throw error;
      }
      return undefined;
    });

  /** One at a time for each key: reading a network and changing it are two calls. */
  const inTurn = <T>(key: string, work: () => Promise<T>): Promise<T> => {
    const mine = (turns.get(key) ?? Promise.resolve()).then(work);
    const tail = mine.catch(() => undefined).finally(() => { if (turns.get(key) === tail) turns.delete(key); });
    turns.set(key, tail);
    return mine;
  };

  /** The next event of a domain, or undefined after the time, or when nobody wants to wait any more. */
  const nextEvent = (uuid: string, ms: number, signal: AbortSignal): Promise<string | undefined> =>
    new Promise((resolve) => {
      const of = waits.get(uuid) ?? new Set();
      waits.set(uuid, of);
      const settle = (event: string | undefined): void => {
        clearTimeout(timer);
        signal.removeEventListener('abort', onAbort);
        of.delete(settle);
        if (of.size === 0) waits.delete(uuid);
        resolve(event);
      };
      const onAbort = (): void => { settle(undefined); };
      const timer = setTimeout(onAbort, ms);
      signal.addEventListener('abort', onAbort);
      of.add(settle);
      if (signal.aborted) onAbort();
    });

  const follow = async (): Promise<void> => {
    for await (const event of events) {
      if (event.kind === 'gap') {
        identities.clear();
        for (const of of [...waits.values()]) for (const settle of [...of]) settle('gap');
        // Looking at everything takes both connections, and the other one may still be away.
        slow.whenConnected().then(() => { watchers.forEach((watcher) => { watcher.missed(); }); }, () => undefined);
        continue;
      }
      const { domain } = event;
      if (event.kind !== 'lifecycle' && event.kind !== 'reboot') {
        // It runs as before, but it may not be what it was.
        if (event.kind === 'metadataChange') identities.delete(domain.uuid);
        const ours = await identify(domain).catch(() => undefined);
        watchers.forEach((watcher) => { if (ours === undefined) watcher.strange?.(); else watcher.touched?.(ours.vmId); });
        continue;
      }
      const what = event.kind === 'reboot' ? 'reboot' : event.event;
      if (what === 'defined') identities.delete(domain.uuid);
      const known = identities.has(domain.uuid);
      const ours = identities.get(domain.uuid) !== undefined;
      if (what === 'undefined') identities.delete(domain.uuid);
      for (const settle of [...(waits.get(domain.uuid) ?? [])]) settle(what);
      if (known && !ours) {
        watchers.forEach((watcher) => { watcher.strange?.(); });
        continue;
      }
      const vmId = idFrom('vm', domain.uuid);
      // Not known yet: it may be anybody's, so it is asked. One that is gone cannot be asked any more.
      if (!known && what !== 'undefined' && (await identify(domain).catch(() => undefined)) === undefined) {
        watchers.forEach((watcher) => { watcher.strange?.(); });
        continue;
      }
      watchers.forEach((watcher) => { watcher.changed(vmId); });
    }
  };
  const followNetworks = async (): Promise<void> => {
    for await (const _ of networkEvents) watchers.forEach((watcher) => { watcher.strange?.(); });
  };
  const following = Promise.all([follow(), followNetworks()]).catch((fault: unknown) => {
    if (fast.state.status !== 'closed') log.warn({ err: fault }, 'events of libvirt ended');
  });

  const destroy = async (domain: Domain): Promise<void> => {
    try {
      await slow.domainDestroyFlags({ domain });
    } catch (error) {
      // It stopped by itself meanwhile.
      if (!isOperationInvalid(error) && !isNoDomain(error)) throw error;
    }
  };

  const remove = async (domain: Domain): Promise<void> => {
    const seen = await look(domain);
    if (seen !== undefined && seen.state !== 'stopped' && seen.state !== 'saved') await destroy(domain);
    try {
      await slow.domainUndefineFlags({ domain, flags: ['managedSave', 'snapshotsMetadata', 'nvram', 'checkpointsMetadata'] });
    } catch (error) {
      if (isNoDomain(error)) return;
      // A driver without some of these.
      if (!(error instanceof LibvirtError) || error.code !== errorCodes.invalidArgument) throw error;
      await slow.domainUndefineFlags({ domain });
    }
  };

  const powered = (seen: Seen): boolean => seen.state === 'running' || seen.state === 'paused';

  /**
   * Presses the power button, which costs the monitor nothing. From the second time on the guest agent is
   * asked too, should there be one: it is the tenant's program, so its answer is awaited for seconds only
   * and believed in nothing.
   */
  const press = async (domain: Domain, times: number, mode: 'shutdown' | 'reboot'): Promise<void> => {
    const button: { readonly domain: Domain; readonly modes: readonly 'acpi'[] } = { domain, modes: driver === 'test' ? [] : ['acpi'] };
    try {
      await (mode === 'shutdown' ? slow.domainShutdownFlags(button) : slow.domainReboot(button));
    } catch (error) {
      if (!isOperationInvalid(error) && !isNoDomain(error)) throw error;
    }
    if (times === 0 || driver === 'test') return;
    const command = JSON.stringify({ execute: 'guest-shutdown', arguments: { mode: mode === 'shutdown' ? 'powerdown' : 'reboot' } });
    void slow.domainAgentCommand({ domain, command, timeout: GUEST_AGENT_SECONDS }).catch(() => undefined);
  };

  const shutdown = (vmId: VmId, { timeoutMs, force, signal }: Shutdown): Done =>
    withDomain(vmId, 'shut down', async (domain, before) => {
      if (!powered(before)) {
        if (force) await host.saves.drop(vmId);
        return undefined;
      }
      const deadline = performance.now() + timeoutMs;
      // A paused guest hears no button.
      const hears = before.state === 'running';
      for (let times = 0; hears; times++) {
        if (signal.aborted) return refuse('command.cancelled');
        await press(domain, times, 'shutdown');
        const nextPress = Math.min(deadline, performance.now() + PRESS_EVERY_MS);
        do {
          const seen = await look(domain);
          if (seen === undefined || !powered(seen)) return undefined;
          const left = nextPress - performance.now();
          if (left > 0) await nextEvent(domain.uuid, left, signal);
          if (signal.aborted) return refuse('command.cancelled');
        } while (performance.now() < nextPress);
        if (performance.now() >= deadline) break;
      }
      const seen = await look(domain);
      if (seen === undefined || !powered(seen)) return undefined;
      if (!force) {
        return refuse('domain.still_running', {
          vmId, timeoutSeconds: Math.round(timeoutMs / 1_000),
          says: hears ? 'the guest did not shut down in time; stop it with force to cut its power' : 'the guest is paused and hears no power button; resume it first, or stop it with force',
        });
      }
      await destroy(domain);
      return undefined;
    });

  const reboot = (vmId: VmId, signal: AbortSignal): Done =>
    whileRunningOr(vmId, async (domain) => {
      // The test driver tells nothing of a reboot.
      if (driver === 'test') {
        await slow.domainReboot({ domain });
        return undefined;
      }
      const deadline = performance.now() + REBOOT_MS;
      for (let times = 0; performance.now() < deadline; times++) {
        const nextPress = performance.now() + PRESS_EVERY_MS;
        // Listening comes first: a quick guest is through before the call is answered.
        let event = nextEvent(domain.uuid, PRESS_EVERY_MS, signal);
        await press(domain, times, 'reboot');
        for (;;) {
          const what = await event;
          if (what === 'reboot') return undefined;
          if (signal.aborted) return refuse('command.cancelled');
          const seen = await look(domain);
          if (seen === undefined || !powered(seen)) return refuse('domain.not_running', { vmId, says: 'the guest stopped instead of restarting' });
          const left = nextPress - performance.now();
          if (left <= 0) break;
          event = nextEvent(domain.uuid, left, signal);
        }
      }
      return refuse('domain.reboot_ignored', { vmId, says: `the guest did not restart within ${REBOOT_MS / 1_000} s; reset it instead` });
    });

  const whileRunningOr = (vmId: VmId, work: (domain: Domain) => Done): Done =>
    withDomain(vmId, 'reboot', async (domain, seen) => (seen.state === 'running' ? work(domain) : refuse('domain.not_running', { vmId, state: seen.state })));

  /** Networks of a domain that are defined but not up, after the host booted for example. Says how many were raised. */
  const raiseNetworks = async (names: readonly string[]): Promise<Refusal | number> => {
    let raised = 0;
    for (const name of names) {
      try {
        const network = await fast.networkLookupByName({ name });
        if (await fast.networkIsActive({ network })) continue;
        raised += 1;
        await inTurn(network.uuid, () => slow.networkCreate({ network }));
      } catch (error) {
        if (isNoNetwork(error)) return refuse('network.missing_on_node', { network: name, says: 'this node has lost the network of this VM: define the VM again' });
        if (!isOperationInvalid(error)) throw error;
      }
    }
    return raised;
  };

  /** What keeps a domain from starting, where we can say it better than libvirt; else how much of it was mended. */
  const mend = async (domain: Domain): Promise<Refusal | number> => {
    const { disks: defined, interfaces } = readDomain(await slow.domainGetXmlDesc({ domain }));
    for (const { path } of defined) {
      const volumeId = path === undefined ? undefined : fileOfVolume.exec(path)?.[1];
      if (path !== undefined && volumeId !== undefined && !(await disks.exists(volumeId as VolumeId, layerIn(path)))) return refuse('disk.missing_on_node', { volumeId, says: 'the disk of this VM is not where this node keeps disks' });
    }
    return raiseNetworks(interfaces.flatMap((one) => one.network ?? []));
  };

  /** Also one that was paused. The test driver knows no such word. */
  const goesOnRunning: readonly 'running'[] = driver === 'test' ? [] : ['running'];

  const start = (vmId: VmId): Done =>
    withDomain(vmId, 'start', async (domain, seen) => {
      if (seen.state === 'running') return undefined;
      if (seen.state === 'paused') {
        await slow.domainResume({ domain });
        return undefined;
      }
      const create = (): Promise<unknown> => (seen.state === 'saved'
        ? slow.domainRestoreFlags({ from: host.saves.pathOf(vmId), xml: null, flags: goesOnRunning }, { timeoutMs: SAVE_MS })
        : slow.domainCreateWithFlags({ domain }, { timeoutMs: START_MS }));
      // The test driver starts without looking. With QEMU, looking first would cost every start what only a broken one needs.
      const before = driver === 'test' ? await mend(domain) : 0;
      if (isRefusal(before)) return before;
      try {
        await create();
      } catch (error) {
        // Somebody else was faster.
        if ((await look(domain))?.state === 'running') return undefined;
        const mended = await mend(domain);
        if (isRefusal(mended)) return mended;
        if (mended === 0) throw error;
        await create();
      }
      // It runs with it, or without it for good.
      await host.saves.drop(vmId);
      return undefined;
    });

  const save = (vmId: VmId): Done =>
    withDomain(vmId, 'save', async (domain, seen) => {
      if (seen.state === 'saved') return undefined;
      if (!powered(seen)) return refuse('domain.not_running', { vmId, state: seen.state });
      try {
        await slow.domainSaveFlags({ domain, to: host.saves.pathOf(vmId), xml: null, flags: goesOnRunning }, { timeoutMs: SAVE_MS });
      } catch (error) {
        if (isOperationInvalid(error)) return refuse('domain.not_running', { vmId });
        throw error;
      }
      return undefined;
    });

  /** The XML of a domain as it should be, with what it needs beside disks and networks made; or why that cannot be. */
  const hostOf = (vmId: VmId, seedPath: string | undefined, present: Domain | undefined): DomainHost => ({
    nodeId, agentVersion, screenSocket: host.screenSocketOf(vmId), hyperv: can.hyperv,
    type: driver === 'test' ? 'test' : host.accel.accel === 'kvm' ? 'kvm' : 'qemu',
    diskPathOf,
    mediaPathOf: (file) => host.mediaPathOf(file),
    seedPath,
    consoleLog: host.consoleLogOf(vmId),
    bootReport: host.bootReportPathOf(vmId),
    ...(present === undefined ? {} : { knownAs: present.name }),
  });

  const describe = async (plan: DomainPlan, present: Domain | undefined): Promise<{ readonly xml: string; readonly seedPath: string | undefined } | Refusal> => {
    const { vmId } = plan;
    const screenSocket = host.screenSocketOf(vmId);
    if (Buffer.byteLength(screenSocket) > SOCKET_PATH_BYTES_MAX) return refuse('node.run_dir_too_long', { bytes: Buffer.byteLength(screenSocket), says: 'CV_NODE_AGENT_RUN_DIR must be shorter: a socket has at most 107 bytes of path' });
    await disks.locate(plan.disks.map(({ volumeId }) => volumeId));
    for (const file of [plan.media, plan.drivers ?? null, plan.kernel?.file ?? null, plan.kernel?.initrd ?? null]) {
      const missing = file === null ? undefined : await host.mediaMissing(file);
      if (missing !== undefined) return missing;
    }
    if (plan.expert !== undefined && needsKvm(plan.expert) && host.accel.accel !== 'kvm') return refuse('domain.needs_kvm', { vmId, model: plan.expert.cpu?.model ?? '', says: host.accel.accelBecause.slice(0, 300) });
    const seedPath = plan.seed === null ? undefined : await host.writeSeed({ ...plan, seed: plan.seed });
    if (isRefusal(seedPath)) return seedPath;
    if (plan.adopted === null) return { xml: domainXml(plan, hostOf(vmId, seedPath, present)), seedPath };
    const own = present === undefined ? ownDefinition(plan, plan.adopted.definition, hostOf(vmId, seedPath, undefined)) : await slow.domainGetXmlDesc({ domain: present, flags: ['inactive', 'secure'] });
    if (own === undefined) return refuse('domain.definition_lost', { vmId, says: 'the domain was adopted, and its own definition is gone: define it again as it was' });
    if (namesKernel(own) && saysBoot(plan) && bootIn(parseXml(own)).join() !== plan.boot.join()) return refuse('domain.boots_kernel', { vmId, says: 'its definition names a kernel, which starts whatever the boot order is' });
    return { xml: adoptedXml(own, plan, { ...hostOf(vmId, seedPath, present), knownAs: readDomain(own).name }), seedPath };
  };

  /** What was kept of another's is for a machine like it. */
  const ownDefinition = (plan: DomainPlan, kept: string | undefined, of: DomainHost): string | undefined =>
    kept === undefined || readDomain(kept).uuid === uuidOf(plan.vmId) ? kept : copiedXml(kept, plan, of);

  const defineAs = async (xml: string, { vmId, generation }: DomainPlan): Promise<void> => {
    const { uuid } = await fast.domainDefineXmlFlags({ xml });
    // Also without waiting for the event: the answer's facts ask for it at once.
    identities.set(uuid, { vmId, generation });
  };

  /** Only what is said about the domain changes; should it have become another meanwhile, nothing does. */
  const adopt: Hypervisor['adopt'] = async (plan, files) => {
    const domain = await find(plan.vmId);
    const seen = domain === undefined ? undefined : await look(domain);
    if (domain === undefined || seen === undefined) return gone(plan.vmId);
    const changed = (says: string): Refusal => refuse('foreign.changed', { vmId: plan.vmId, says });
    try {
      const present = await identify(domain);
      if (present !== undefined && present.generation > plan.generation) return changed('it carries the words of a later placement');
      if (!(await fast.domainIsPersistent({ domain }))) return changed('it is transient');
      const { targets, macs } = liveDomain(await slow.domainGetXmlDesc({ domain, flags: ['inactive'] }));
      const wanted = new Map(plan.disks.map((disk) => [targetOf(disk, plan.devices), files.find(({ volumeId }) => volumeId === disk.volumeId)?.file]));
      if (Object.keys(targets).length !== wanted.size || [...wanted].some(([target, file]) => targets[target] !== file)) return changed('it has other disks');
      if ([...macs].sort().join() !== [...(plan.adopted?.macs ?? [])].sort().join()) return changed('it has other interfaces');
      for (const { volumeId, file } of files) {
        const refused = await disks.link(volumeId, file);
        if (refused !== undefined) return refused;
      }
      await say(domain, powered(seen), [
        { kind: 'element', key: 'cv', uri: METADATA_NAMESPACE, metadata: buildXml(withoutNamespace(wordsOf(plan, hostOf(plan.vmId, undefined, domain)))) },
        { kind: 'title', metadata: plan.name },
      ]);
      identities.set(domain.uuid, { vmId: plan.vmId, generation: plan.generation });
      const definition = keptDefinition(await slow.domainGetXmlDesc({ domain, flags: ['inactive', 'secure'] }));
      return definition === undefined ? {} : { definition };
    } catch (error) {
      return refusalFor(error, 'adopt', plan.vmId);
    }
  };

  const say = async (domain: Domain, running: boolean, words: readonly { readonly kind: 'element' | 'title'; readonly metadata?: string; readonly key?: string; readonly uri?: string }[]): Promise<void> => {
    for (const one of words) await slow.domainSetMetadata({ domain, ...one, flags: running ? ['live', 'config'] : ['config'] });
  };

  const release: Hypervisor['release'] = async (vmId, volumes) => {
    const domain = await find(vmId);
    try {
      const seen = domain === undefined ? undefined : await look(domain);
      if (domain !== undefined && seen !== undefined && (await readIdentity(fast, domain)) !== undefined) {
        await say(domain, powered(seen), [{ kind: 'element', key: 'cv', uri: METADATA_NAMESPACE }]);
        identities.delete(domain.uuid);
      }
      for (const volumeId of volumes) await disks.unlink(volumeId);
      return undefined;
    } catch (error) {
      throw new HypervisorFault('release', vmId, error);
    }
  };

  const define = async (plan: DomainPlan): Done => {
    const described = await describe(plan, await find(plan.vmId));
    if (isRefusal(described)) return described;
    try {
      await defineAs(described.xml, plan);
      if (described.seedPath !== undefined) await host.keepSeeds(plan.vmId, [described.seedPath]);
      return undefined;
    } catch (error) {
      return refusalFor(error, 'define', plan.vmId);
    }
  };

  /** A guest that is asked to let go of a device may take its time, or never do it. */
  const unplug = async (domain: Domain, kind: 'interface' | 'disk' | 'hostdev' | 'input', isIt: (device: XmlElement) => boolean, refused: Refusal): Promise<Refusal | undefined> => {
    const device = async (): Promise<XmlElement | undefined> => childrenOf(childOf(readDomain(await slow.domainGetXmlDesc({ domain })).root, 'devices'), kind).find(isIt);
    const deadline = performance.now() + UNPLUG_MS;
    const pause = looking();
    for (let asked = -Infinity; ;) {
      const there = await device();
      if (there === undefined) return undefined;
      if (performance.now() > deadline) return refused;
      if (performance.now() - asked > PRESS_EVERY_MS) {
        asked = performance.now();
        // Being asked again while it still thinks about it is an error of libvirt's, and none of ours.
        await slow.domainDetachDeviceFlags({ domain, xml: buildXml(there), flags: ['live'] }).catch((error: unknown) => { if (!(error instanceof LibvirtError)) throw error; });
      }
      await pause();
    }
  };

  /** The guest learns of a new CPU a moment after libvirt does; until then its agent knows none to switch on. */
  const useNewCpus = async (domain: Domain, vcpus: number): Promise<void> => {
    for (let tries = 0; tries < TRIES_MAX; tries++) {
      const outcome = await slow.domainSetVcpusFlags({ domain, vcpus, flags: ['guest'] }).then(() => 'done', (error: unknown) => error);
      if (outcome === 'done' || !(outcome instanceof LibvirtError) || outcome.code === errorCodes.agentUnresponsive) return;
      await delay(LOOK_MS);
    }
  };

  /**
   * Most guests use what was plugged in by themselves; the others do when their agent is asked. Without an
   * agent nothing is lost: whoever is inside can do it.
   */
  const useNewMemory = async (domain: Domain): Promise<void> => {
    const ask = async (command: object): Promise<unknown> => (JSON.parse((await slow.domainAgentCommand({ domain, command: JSON.stringify(command), timeout: GUEST_AGENT_SECONDS })) ?? '{}') as { readonly return?: unknown }).return;
    const idleBlocks = async (): Promise<readonly MemoryBlock[]> => {
      const blocks = await ask({ execute: 'guest-get-memory-blocks' });
      return (Array.isArray(blocks) ? (blocks as readonly MemoryBlock[]) : []).filter((block) => block.online === false && typeof block['phys-index'] === 'number');
    };
    let idle = await idleBlocks();
    for (let tries = 0; idle.length === 0 && tries < TRIES_MAX; tries++) {
      await delay(LOOK_MS);
      idle = await idleBlocks();
    }
    if (idle.length > 0) await ask({ execute: 'guest-set-memory-blocks', arguments: { 'mem-blks': idle.slice(0, MEMORY_BLOCKS_MAX).map((block) => ({ 'phys-index': block['phys-index'], online: true })) } });
  };

  const change = async (domain: Domain, one: Change, { devices, adopted }: DomainPlan): Promise<Refusal | undefined> => {
    switch (one.kind) {
      case 'vcpus':
        await slow.domainSetVcpusFlags({ domain, vcpus: one.vcpus, flags: ['live'] });
        await useNewCpus(domain, one.vcpus);
        return undefined;
      case 'memory':
        await slow.domainAttachDeviceFlags({ domain, xml: dimmXml(one.mib).xml, flags: ['live'] });
        await useNewMemory(domain).catch(() => undefined);
        return undefined;
      case 'media':
      case 'drivers':
      case 'seed': {
        // It runs on the bus that it was started with.
        const own = placesOf(childOf(readDomain(await slow.domainGetXmlDesc({ domain })).root, 'devices'), adopted ?? undefined)[one.kind];
        if (own !== undefined) await slow.domainUpdateDeviceFlags({ domain, xml: buildXml(withMedium(own, one.path)), flags: ['live', 'force'] });
        return undefined;
      }
      case 'add device':
        await slow.domainAttachDeviceFlags({ domain, xml: assignedXml(one.device).xml, flags: ['live'] });
        return undefined;
      case 'remove device':
        return unplug(domain, elementOf(one.alias), (device) => attributeOf(device, 'name', 'alias') === one.alias, refuse('device.not_released', { device: one.alias.slice(ALIAS.length), says: 'the guest did not let go of the device; stop the VM, or try again' }));
      case 'add nic':
        await slow.domainAttachDeviceFlags({ domain, xml: nicXml(one.nic, devices).xml, flags: ['live'] });
        return undefined;
      case 'remove nic':
        return unplug(domain, 'interface', (device) => macIn(device) === one.mac, refuse('nic.not_released', { mac: one.mac, says: 'the guest did not let go of the interface; stop the VM, or try again' }));
      case 'add disk':
        await slow.domainAttachDeviceFlags({ domain, xml: diskXml(one.disk, devices, diskPathOf(one.disk)).xml, flags: ['live'] });
        return undefined;
      case 'remove disk':
        return unplug(domain, 'disk', (device) => attributeOf(device, 'file', 'source') === one.path, refuse('disk.not_released', { says: 'the guest did not let go of the disk; unmount it in the guest, or stop the VM' }));
      case 'limits':
        await slow.domainSetBlockIoTune({ domain, disk: targetOf(one.disk, devices), parameters: { total_bytes_sec: one.disk.limits?.bytesPerSecond ?? 0, total_iops_sec: one.disk.limits?.iops ?? 0 }, flags: ['live'] });
        return undefined;
    }
  };

  /** Disks that are smaller than they should be. One that runs tells its guest. */
  const grow = async (domain: Domain, running: boolean, plan: DomainPlan): Promise<Refusal | undefined> => {
    const attached = new Set(running ? readDomain(await slow.domainGetXmlDesc({ domain })).disks.map(({ path }) => path ?? '') : []);
    for (const disk of plan.disks) {
      const bytes = disk.sizeGib * 2 ** 30;
      const target = targetOf(disk, plan.devices);
      if (!running || !attached.has(diskPathOf(disk))) {
        const refused = await disks.grow(disk.volumeId, disk.layer, disk.sizeGib);
        if (refused !== undefined) return refused;
      } else if (Math.ceil((await slow.domainGetBlockInfo({ domain, path: target })).capacityBytes / 2 ** 30) < disk.sizeGib) {
        // One that was adopted need not be of whole GiB.
        await slow.domainBlockResize({ domain, disk: target, size: bytes, flags: ['bytes'] });
      }
    }
    return undefined;
  };

  /** libvirt's errors hold the guest's own words, so none of them leaves here. */
  const agentOf = (domain: Domain): AskAgent => async (command) => {
    let said: string | null;
    try {
      said = await slow.domainAgentCommand({ domain, command: JSON.stringify(command), timeout: GUEST_ASKED_SECONDS });
    } catch (error) {
      if (!(error instanceof LibvirtError) || isBusy(error)) throw new HypervisorFault('ask the guest agent of', domain.name, error);
      const { code } = error;
      if (code === errorCodes.agentCommandTimeout) return refuse('guest.no_answer');
      // Without a channel for it libvirt says that the argument is not supported.
      if (isAgentUnresponsive(error) || code === errorCodes.argumentUnsupported) return refuse('guest.no_agent');
      if (isOperationInvalid(error) || isNoDomain(error)) return refuse('domain.not_running');
      return refuse('guest.refused');
    }
    try {
      return { returned: (JSON.parse(said ?? '{}') as { readonly return?: unknown }).return };
    } catch {
      return refuse('guest.refused');
    }
  };

  /** Taking the file that a guest writes away from under it would take its disk. */
  const isOn = (disk: DomainPlan['disks'][number], { devices, disks: all }: DomainPlan, { targets }: SeenMachine): 'it' | 'nothing' | 'another file' => {
    const there = targets[targetOf(disk, devices)];
    if (there === undefined) return 'nothing';
    return there === diskPathOf(disk) ? 'it' : all.some((other) => there === diskPathOf(other)) ? 'nothing' : 'another file';
  };

  /** What was done to a domain behind our back and no configuration takes back: it is gone, was renamed, has snapshots. */
  const restore: Hypervisor['restore'] = async (plan, signal) => {
    const domain = await find(plan.vmId);
    if (domain === undefined) return define(plan);
    try {
      const seen = await look(domain);
      const running = seen !== undefined && powered(seen);
      const defined = await slow.domainGetXmlDesc({ domain, flags: ['inactive'] });
      const given = nameGivenIn(readDomain(defined).metadata);
      if (!running && given !== undefined && given !== domain.name) await slow.domainRename({ domain, name: given });
      const live = running ? liveDomain(await slow.domainGetXmlDesc({ domain })) : liveDomain(defined);
      for (const disk of plan.disks) {
        const own = live.targets[targetOf(disk, plan.devices)];
        if (own === undefined || isOn(disk, plan, live) !== 'another file') continue;
        // A snapshot that was taken by hand put a file over ours: what was written since belongs to the disk.
        const chain = running ? chainOf(diskIn(await slow.domainGetXmlDesc({ domain }), targetOf(disk, plan.devices))) : [];
        if (!chain.includes(diskPathOf(disk))) return refuse('drift.other_file', { volumeId: disk.volumeId, file: own, says: running ? 'the domain writes another file, which does not stand on its disk' : 'the domain was given another file while it was stopped: start it, if what it holds is wanted' });
        const refused = await mergeLive(domain, targetOf(disk, plan.devices), own, diskPathOf(disk), signal);
        if (refused !== undefined) return refused;
      }
      for (const snapshot of await fast.domainListAllSnapshots({ domain, filter: ['external'] })) await slow.domainSnapshotDelete({ snapshot, flags: ['metadataOnly'] });
      for (const snapshot of await fast.domainListAllSnapshots({ domain, filter: ['internal'] })) await slow.domainSnapshotDelete({ snapshot }, { timeoutMs: START_MS });
      if (running && live.description !== '') await slow.domainSetMetadata({ domain, kind: 'description', flags: ['live'] });
      return undefined;
    } catch (error) {
      return refusalFor(error, 'restore', plan.vmId);
    }
  };

  const configure: Hypervisor['configure'] = async (plan, back) => {
    const domain = await find(plan.vmId);
    const seen = domain === undefined ? undefined : await look(domain);
    if (domain === undefined || seen === undefined) return gone(plan.vmId);
    const described = await describe(plan, domain);
    if (isRefusal(described)) return described;
    const { xml, seedPath } = described;
    try {
      const running = powered(seen);
      const grown = await grow(domain, running, plan);
      if (grown !== undefined) return grown;
      // What runs comes first: what it refuses shall not be so at the next start either.
      const live = running ? liveDomain(await slow.domainGetXmlDesc({ domain }), plan.adopted) : undefined;
      if (live?.media === null && saysBoot(plan) && mediumOf(plan, (file) => host.mediaPathOf(file)) !== undefined) return refuse('domain.no_drive', { vmId: plan.vmId, says: 'it runs, and has no drive for media: stop it first, and it gets one' });
      if (live?.drivers === null && typeof plan.drivers === 'string') return refuse('domain.no_drive', { vmId: plan.vmId, says: 'it runs, and has no second drive: stop it first, and it gets one' });
      const { changes, pending } = live === undefined ? { changes: [], pending: [] } : changesOf(live, plan, { mediaPathOf: (file) => host.mediaPathOf(file), diskPathOf, seedPath });
      const elsewhere = live === undefined ? [] : plan.disks.filter((disk) => isOn(disk, plan, live) === 'another file');
      const [other] = elsewhere;
      if (other !== undefined) {
        const others = new Set(elsewhere.map((disk) => live?.targets[targetOf(disk, plan.devices)]));
        const isOfOther = (one: Change): boolean => (one.kind === 'add disk' && elsewhere.includes(one.disk)) || (one.kind === 'remove disk' && others.has(one.path));
        if (back && live?.title === plan.name && changes.every(isOfOther)) {
          // What it would be at its next start was not changed, either.
          const next = changesOf(liveDomain(await slow.domainGetXmlDesc({ domain, flags: ['inactive'] }), plan.adopted), plan, { mediaPathOf: (file) => host.mediaPathOf(file), diskPathOf, seedPath });
          if (next.pending.length === 0 && next.changes.every(isOfOther)) return { pending };
        }
        return refuse('disk.other_layer', { volumeId: other.volumeId, says: 'the domain uses another file than it should: somebody has taken a snapshot of it by hand' });
      }
      for (const one of changes) {
        const refused = await change(domain, one, plan);
        if (refused !== undefined) return refused;
      }
      if (live !== undefined && live.title !== plan.name) await slow.domainSetMetadata({ domain, kind: 'title', metadata: plan.name, flags: ['live'] });
      await defineAs(xml, plan);
      if (seedPath !== undefined) await host.keepSeeds(plan.vmId, [seedPath, ...(pending.includes('cloudInit') && typeof live?.seed === 'string' ? [live.seed] : [])]);
      return { pending };
    } catch (error) {
      return refusalFor(error, 'configure', plan.vmId);
    }
  };

  const answersAgent = (domain: Domain): Promise<boolean> =>
    slow.domainAgentCommand({ domain, command: '{"execute":"guest-ping"}', timeout: GUEST_AGENT_SECONDS }).then(() => true, () => false);

  /** A domain that runs goes over to new layers, all in the same moment. Says whether its file systems were still. */
  const layerLive = async (domain: Domain, seen: Seen, plan: DomainPlan, on: readonly LayerBase[]): Promise<Refusal | boolean> => {
    const present = readDomain(await slow.domainGetXmlDesc({ domain })).disks;
    const over: { readonly target: string; readonly path: string }[] = [];
    for (const disk of plan.disks) {
      const below = on.find(({ volumeId }) => volumeId === disk.volumeId);
      const target = targetOf(disk, plan.devices);
      const now = present.find((one) => one.target === target)?.path;
      if (below === undefined || now === diskPathOf(disk)) continue;
      if (disk.layer === null || now !== diskPathOf(below)) return refuse('disk.other_layer', { volumeId: disk.volumeId, says: 'the domain uses another file than it should: somebody has taken a snapshot of it by hand' });
      // Of an attempt that was broken off: nobody uses it.
      await disks.drop(disk.volumeId, disk.layer);
      over.push({ target, path: diskPathOf(disk) });
    }
    // It went over before, and who saw whether it was still has not lived to say so.
    if (over.length === 0) return false;
    const xml = layersXml(over, present.map(({ target }) => target));
    const flags = ['diskOnly', 'atomic', 'noMetadata'] as const;
    if (seen.state === 'running' && (await answersAgent(domain))) {
      const frozen = await slow.domainSnapshotCreateXml({ domain, xml, flags: [...flags, 'quiesce'] }).then(() => true, (error: unknown) => {
        // An agent that answers need not be able to freeze.
        if (error instanceof LibvirtError) return false;
        throw error;
      });
      if (frozen) return true;
    }
    await slow.domainSnapshotCreateXml({ domain, xml, flags: [...flags] });
    return false;
  };

  const layer: Hypervisor['layer'] = async (plan, on, live) => {
    const domain = await find(plan.vmId);
    const seen = domain === undefined ? undefined : await look(domain);
    if (domain === undefined || seen === undefined) return gone(plan.vmId);
    const xml = await describe(plan, domain);
    if (isRefusal(xml)) return xml;
    try {
      let frozen: Refusal | boolean = false;
      if (powered(seen)) {
        if (!live) return refuse('domain.still_running', { vmId: plan.vmId, says: 'the VM runs: stop it first' });
        frozen = await layerLive(domain, seen, plan, on);
        if (isRefusal(frozen)) return frozen;
      } else {
        const defined = new Set(readDomain(await slow.domainGetXmlDesc({ domain })).disks.map(({ path }) => path));
        for (const disk of plan.disks) {
          const below = on.find(({ volumeId }) => volumeId === disk.volumeId);
          if (below === undefined || disk.layer === null || defined.has(diskPathOf(disk))) continue;
          const refused = await disks.stack(disk.volumeId, disk.layer, below.layer, disk.sizeGib);
          if (refused !== undefined) return refused;
        }
      }
      await defineAs(xml.xml, plan);
      return { frozen };
    } catch (error) {
      return refusalFor(error, 'take a snapshot of', plan.vmId, 'domain.snapshot_failed');
    }
  };

  const keepInside: Hypervisor['keepInside'] = (vmId, volumes, as, back) =>
    whileOff(vmId, 'keep a snapshot inside of the disks of', async () => {
      for (const volumeId of volumes) {
        const refused = await disks.keepInside(volumeId, as, back);
        if (refused !== undefined) return refused;
      }
      return undefined;
    });

  /** A layer of a disk in use goes into the one below it, while the guest writes on. */
  const mergeLive = async (domain: Domain, target: string, own: string, into: string, signal: AbortSignal): Promise<Refusal | undefined> => {
    const pause = looking();
    for (let begun = 0; ;) {
      if (signal.aborted) return CANCELLED;
      // In this order: a job that has ended has changed the chain by then.
      const job = await slow.domainGetBlockJobInfo({ domain, disk: target });
      const disk = diskIn(await slow.domainGetXmlDesc({ domain }), target);
      const chain = chainOf(disk);
      // Its job may have ended before we looked, or before we were.
      if (!chain.includes(own)) return undefined;
      if (childOf(disk, 'mirror')?.attributes['ready'] === 'yes') {
        await slow.domainBlockJobAbort({ domain, disk: target, flags: ['pivot'] });
      } else if (job === null) {
        if (begun >= MERGES_BEGUN_MAX) throw new Error(`the merge of ${own} ended ${begun} times without being done`);
        begun += 1;
        await slow.domainBlockCommit({ domain, disk: target, base: into, top: own, flags: chain[0] === own ? ['active'] : [] });
      }
      await pause();
    }
  };

  /** The domain with the layers that it has now, or this one other. */
  const defineWith = async (domain: Domain, plan: DomainPlan, other?: LayerBase): Promise<void> => {
    const now = await slow.domainGetXmlDesc({ domain });
    const layers = plan.disks.map((disk) => {
      if (other === undefined) return disk;
      const path = chainOf(diskIn(now, targetOf(disk, plan.devices)))[0];
      return { ...disk, layer: disk.volumeId === other.volumeId ? other.layer : path === undefined ? disk.layer : layerIn(path) };
    });
    const xml = await describe({ ...plan, disks: layers }, domain);
    if (isRefusal(xml)) throw new Error(`cannot be defined: ${xml.refused}`);
    await defineAs(xml.xml, plan);
  };

  const tidyOne = async (domain: Domain | undefined, plan: DomainPlan, step: Exclude<LayerStep, InnerStep>, signal: AbortSignal): Promise<Refusal | undefined> => {
    const { volumeId, layer: name } = step;
    const own = disks.pathOf(volumeId, name);
    const disk = plan.disks.find((one) => one.volumeId === volumeId);
    const seen = domain === undefined ? undefined : await look(domain);
    const running = seen !== undefined && powered(seen);
    const target = disk === undefined ? '' : targetOf(disk, plan.devices);
    const chain = domain === undefined || seen === undefined ? [] : chainOf(diskIn(await slow.domainGetXmlDesc({ domain }), target));
    const [active] = chain;
    if (step.kind === 'drop') {
      if (running && chain.includes(own)) throw new Error('a layer that is to go is in use');
      if (active === own && domain !== undefined) await defineWith(domain, plan);
      await disks.drop(volumeId, name);
      return undefined;
    }
    const into = disks.pathOf(volumeId, step.into);
    if (running && domain !== undefined && chain.includes(own)) {
      const refused = await mergeLive(domain, target, own, into, signal);
      if (refused !== undefined) return refused;
    } else if (!(running && chain.includes(into)) && (!step.active || active === undefined || active === own)) {
      // Otherwise it is merged, the guest may write the one below, and what is left is to say so.
      await disks.commit(volumeId, name, step.into);
    }
    for (const one of step.above) await disks.rebase(volumeId, one, step.into);
    if (step.active && domain !== undefined && seen !== undefined) await defineWith(domain, plan, { volumeId, layer: step.into });
    await disks.drop(volumeId, name);
    return undefined;
  };

  const tidy: Hypervisor['tidy'] = async (plan, steps, signal) => {
    const domain = await find(plan.vmId);
    try {
      for (const step of steps) {
        if (step.kind === 'forget' || step.kind === 'return') {
          await disks.letGo(step.volumeId, step.inner, step.kind === 'return');
          continue;
        }
        // Its file goes last: without it the step is done.
        if (!(await disks.exists(step.volumeId, step.layer))) continue;
        const refused = await tidyOne(domain, plan, step, signal);
        if (refused !== undefined) return refused;
      }
      if (domain !== undefined && (await look(domain)) !== undefined) await defineWith(domain, plan);
      return undefined;
    } catch (error) {
      throw new HypervisorFault('tidy the layers of', plan.vmId, error);
    }
  };

  const networkOf = async (plan: NetworkPlan): Promise<{ readonly uuid: string; readonly name: string } | undefined> => {
    try {
      return await findNetwork(fast, plan);
    } catch (error) {
      throw new HypervisorFault('find network', plan.name, error);
    }
  };

  const hostsIn = (xml: string): readonly DhcpHost[] => readNetwork(xml).addresses.flatMap((address) => address.dhcpHosts);

  const ensureNetwork = (plan: NetworkPlan): Done =>
    inTurn(uuidOf(plan.networkId), async () => {
      try {
        const network = (await networkOf(plan)) ?? (await fast.networkDefineXml({ xml: networkXml(plan) }));
        if (!(await fast.networkIsActive({ network }))) {
          // Guests that come back after the host booted find their network.
          await fast.networkSetAutostart({ network, autostart: true });
          await slow.networkCreate({ network }, { timeoutMs: START_MS });
        }
        return undefined;
      } catch (error) {
        return refusalFor(error, 'start', `network ${plan.name}`, 'network.not_possible');
      }
    });

  return {
    describe: async () => {
      const [libvirt, hypervisor, info, own, backupTargets, assignable] = await Promise.all([fast.connectGetLibVersion(), fast.connectGetVersion(), fast.nodeGetInfo(), host.figures?.(), host.backups.targets(), lendable(), probe()]);
      const version = (number: number): string => `${Math.floor(number / 1_000_000)}.${Math.floor(number / 1_000) % 1_000}.${number % 1_000}`;
      return {
        hypervisor: driver,
        accel: host.accel.accel,
        accelBecause: host.accel.accelBecause.slice(0, 300),
        // libvirt's own figure is that of NUMA node 0.
        cpus: own?.cpus ?? info.cpus,
        memoryMib: own?.memoryMib ?? Math.floor(info.memoryKib / 1_024),
        versions: { agent: agentVersion, libvirt: version(libvirt), [driver]: version(hypervisor), ...(own === undefined ? {} : { kernel: own.kernel.slice(0, 100) }) },
        ...(backupTargets.length === 0 ? {} : { backupTargets: [...backupTargets] }),
        features: [...can.features],
        ...(assignable.length === 0 ? {} : { assignable: [...assignable] }),
      };
    },
    usage: () => host.usage(),
    pools: () => host.pools(),

    domains: async () => {
      const all = await fast.connectListAllDomains();
      const stats = await slow.connectGetAllDomainStats({ domains: [], groups: ['state'], flags: ['nowait'] });
      const states = new Map(stats.map((one) => [one.domain.uuid, domainStats(one)]));
      const uuids = new Set(all.map((domain) => domain.uuid));
      for (const uuid of identities.keys()) if (!uuids.has(uuid)) identities.delete(uuid);
      const seen = await Promise.all(all.map(async (domain): Promise<SeenDomain | undefined> => {
        const identity = await identify(domain);
        if (identity === undefined) return undefined;
        const { state, reason } = states.get(domain.uuid) ?? {};
        const now = state === undefined || reason === undefined ? await look(domain) : await orSaved(domain, stateOf(state, reason));
        return now === undefined ? undefined : { ...identity, ...now };
      }));
      return seen.filter((domain) => domain !== undefined);
    },
    domain: async (vmId) => {
      const domain = await find(vmId);
      const seen = domain === undefined ? undefined : await look(domain);
      if (domain === undefined || seen === undefined) return absent(vmId);
      return { vmId, generation: (await identify(domain))?.generation ?? 0, ...seen };
    },
    watch: (watcher) => {
      watchers.add(watcher);
      return () => void watchers.delete(watcher);
    },

    ...createInspector({ fast, slow, find, look, identify, locate: (volumeIds) => disks.locate(volumeIds), diskPathOf, mediaPathOf: (file) => host.mediaPathOf(file), xmlOf: (plan) => domainXml(plan, hostOf(plan.vmId, undefined, undefined)) }),

    files: () => host.poolFolders.files(),
    publish: (plan, signal) => host.publish(plan, signal),
    ensureDisk: (disk, signal) => disks.ensure(disk, signal),
    removeDisk: async (vmId, volumeId, poolId, found) => {
      const domain = vmId === null ? undefined : await find(vmId);
      const seen = domain === undefined ? undefined : await look(domain);
      const uses = domain !== undefined && seen !== undefined && powered(seen) && readDomain(await slow.domainGetXmlDesc({ domain })).disks.some(({ path }) => path !== undefined && (fileOfVolume.exec(path)?.[1] === volumeId || path === disks.pathOf(volumeId, null)));
      return uses ? refuse('disk.in_use', { vmId, volumeId, says: 'the VM still runs' }) : disks.remove(volumeId, poolId, found);
    },
    openPool: (pool) => host.poolFolders.open(pool),
    closePool: (poolId, remove) => host.poolFolders.close(poolId, remove),
    lookAtPool: (poolId) => host.poolFolders.look(poolId),
    ensureVolume: (volume, signal) => disks.make(volume, signal),
    workOnVolume: (volume, signal) => disks.work(volume, signal),
    settleVolume: (volume, signal) => disks.settle(volume, signal),

    ...createNetworks({ fast, slow, net: host.net, inTurn, refusalFor: (error, what, object) => refusalFor(error, what, object, 'network.not_possible') }),
    ensureNetwork,
    ensureLease: (plan, { mac, address }) =>
      inTurn(uuidOf(plan.networkId), async () => {
        const network = await networkOf(plan);
        if (network === undefined) return refuse('network.missing_on_node', { network: plan.name });
        try {
          const xml = await fast.networkGetXmlDesc({ network });
          // As libvirt writes it. The usual case, for which a table of hundreds need not be read.
          if (xml.includes(`<host mac='${mac}' ip='${address}'/>`)) return undefined;
          const hosts = hostsIn(xml);
          const other = hosts.find((host) => host.address === address && host.mac !== mac);
          if (other !== undefined) return refuse('network.address_in_use', { address, mac: other.mac ?? null });
          const present = hosts.find((host) => host.mac === mac);
          if (present?.address === address) return undefined;
          const command = present === undefined ? 'addLast' : 'modify';
          await slow.networkUpdate({ network, command, section: 'ipDhcpHost', xml: hostXml({ mac, address }), flags: ['live', 'config'] });
          return undefined;
        } catch (error) {
          return refusalFor(error, 'give an address on', `network ${plan.name}`, 'network.not_possible');
        }
      }),
    removeLease: (plan, mac) =>
      inTurn(uuidOf(plan.networkId), async () => {
        const network = await networkOf(plan);
        if (network === undefined) return undefined;
        try {
          const host = hostsIn(await fast.networkGetXmlDesc({ network })).find((one) => one.mac === mac);
          // A line of the network's table says which MAC an address would have, not that anybody has it.
          if (host === undefined || host.mac === macOf(host.address)) return undefined;
          const active = await fast.networkIsActive({ network });
          await slow.networkUpdate({ network, command: 'delete', section: 'ipDhcpHost', xml: hostXml({ mac, address: host.address }), flags: active ? ['live', 'config'] : ['config'] });
          return undefined;
        } catch (error) {
          throw new HypervisorFault('take an address from', `network ${plan.name}`, error);
        }
      }),

    save,
    define,
    adopt,
    release,
    restore,
    configure,
    layer,
    keepInside,
    tidy,
    ...libvirtProof({ slow, host, find, look, answersAgent }),
    ...libvirtBackups({ slow, host, find, look, answersAgent }),
    start,
    shutdown,
    destroy: async (vmId) => {
      const domain = await find(vmId);
      try {
        if (domain !== undefined) await destroy(domain);
        return undefined;
      } catch (error) {
        throw new HypervisorFault('destroy', vmId, error);
      }
    },
    reboot,
    reset: (vmId) => whileRunning(vmId, 'reset', (domain) => slow.domainReset({ domain })),
    suspend: (vmId) =>
      withDomain(vmId, 'pause', async (domain, seen) => {
        if (seen.state === 'paused') return undefined;
        if (seen.state !== 'running') return refuse('domain.not_running', { vmId, state: seen.state });
        await slow.domainSuspend({ domain });
        return undefined;
      }),
    resume: (vmId) =>
      withDomain(vmId, 'resume', async (domain, seen) => {
        if (seen.state === 'running') return undefined;
        if (seen.state !== 'paused') return refuse('domain.not_running', { vmId, state: seen.state });
        await slow.domainResume({ domain });
        return undefined;
      }),
    bootResults: async (vmId) => resultsIn(await host.bootReportOf(vmId)),
    wipeRuns: (vmId, runs) => host.wipeRuns(vmId, runs),
    askGuest: async (vmId, action) => {
      const domain = await find(vmId);
      const seen = domain === undefined ? undefined : await look(domain);
      if (domain === undefined || seen === undefined) return gone(vmId);
      if (seen.state !== 'running') return refuse('domain.not_running', { vmId, state: seen.state });
      const outcome = await askGuest(action, agentOf(domain), delay);
      return isRefusal(outcome) ? refuse(outcome.refused, { ...outcome.because, vmId, asked: action.kind }) : outcome;
    },
    setOfflinePassword: (vmId, user, password, signal) =>
      whileOff(vmId, 'set a password in the disks of', async (domain) => {
        const files = filesOfDisks(await slow.domainGetXmlDesc({ domain }));
        return offline(() => setOfflinePassword({ disks: files, user, password, accel: host.accel.accel }, signal));
      }),
    remove: async (vmId) => {
      const domain = await find(vmId);
      try {
        if (domain !== undefined) await remove(domain);
        await host.forgetFiles(vmId);
        return undefined;
      } catch (error) {
        throw new HypervisorFault('remove', vmId, error);
      }
    },

    // Without the flag `secure` libvirt leaves passwords out.
    inspect: async (plan) => {
      const domain = await find(plan.vmId);
      const seen = domain === undefined ? undefined : await look(domain);
      await disks.locate(plan.disks.map(({ volumeId }) => volumeId));
      const told = async (flags: readonly 'inactive'[]): Promise<string | null> => (domain === undefined || seen === undefined ? null : slow.domainGetXmlDesc({ domain, flags: [...flags] }));
      try {
        return {
          live: seen !== undefined && powered(seen) ? await told([]) : null, defined: await told(['inactive']),
          expected: domainXml(plan, hostOf(plan.vmId, plan.seed === null ? undefined : host.seedPathOf(plan.seed, plan.bootRuns), domain)),
        };
      } catch (error) {
        throw new HypervisorFault('describe', plan.vmId, error);
      }
    },
    measure: async (vmId) => {
      const domain = await find(vmId);
      const seen = domain === undefined ? undefined : await look(domain);
      if (domain === undefined || seen === undefined) return gone(vmId);
      if (!powered(seen)) return refuse('vm.not_running', { vmId, state: seen.state });
      try {
        const [stats] = await slow.connectGetAllDomainStats({ domains: [domain], groups: ['cpu', 'balloon', 'interface', 'block'], flags: ['nowait'] });
        if (stats === undefined) return gone(vmId);
        return usageOf(domainStats(stats), await slow.domainGetXmlDesc({ domain }));
      } catch (error) {
        throw new HypervisorFault('measure', vmId, error);
      }
    },

    status: () => {
      for (const { state } of [fast, slow]) if (state.status !== 'connected') return { ok: false, says: `waiting for ${host.says}: ${state.reason.message}` };
      return { ok: true, says: `connected to ${host.says}` };
    },
    close: async () => {
      await Promise.all([events, networkEvents].map((stream) => stream.close().catch(() => undefined)));
      await Promise.all([fast.close(), slow.close()]);
      await following;
    },
  };
}

/** The pauses between looks, each twice as long as the one before. */
const looking = (): (() => Promise<unknown>) => {
  let ms = LOOK_FIRST_MS;
  return () => {
    const now = ms;
    ms = Math.min(LOOK_MS, ms * 2);
    return delay(now);
  };
};

/** The file of a layer of a volume. */
const fileOfVolume = /(volume_[0-9a-f]{32})(?:\.([0-9a-f]{8}))?\.(?:qcow2|raw)$/;
const layerIn = (path: string): Layer => fileOfVolume.exec(path)?.[2] ?? null;

/** As libvirt wants an element of ours: it puts it under the namespace itself. */
const withoutNamespace = ({ name, attributes: { 'xmlns:cv': _, ...attributes }, children }: XmlElement): XmlElement => ({ name: name.replace('cv:', ''), attributes, children });

/** The files that a guest writes its disks to. */
const filesOfDisks = (xml: string): readonly OfflineDisk[] => childrenOf(childOf(readDomain(xml).root, 'devices'), 'disk').flatMap((disk) => {
  const path = attributeOf(disk, 'file', 'source');
  const { device = 'disk' } = disk.attributes;
  return device !== 'disk' || path === undefined || childOf(disk, 'readonly') !== undefined ? [] : [{ path, format: attributeOf(disk, 'type', 'driver') ?? 'raw' }];
});

const diskIn = (xml: string, target: string): XmlElement | undefined => childrenOf(childOf(readDomain(xml).root, 'devices'), 'disk').find((disk) => attributeOf(disk, 'dev', 'target') === target);

/** The files of a disk, the one that is written first. Of a domain that does not run, libvirt tells only that. */
function chainOf(disk: XmlElement | undefined): readonly string[] {
  const files: string[] = [];
  for (let at = disk; at !== undefined; at = childOf(at, 'backingStore')) {
    const file = attributeOf(at, 'file', 'source');
    if (file === undefined) break;
    files.push(file);
  }
  return files;
}

/** Every disk is named, since libvirt would take a snapshot of those that are not. */
const layersXml = (over: readonly { readonly target: string; readonly path: string }[], targets: readonly string[]): string =>
  element('domainsnapshot', {}, element('disks', {}, ...targets.map((target) => {
    const to = over.find((one) => one.target === target);
    return to === undefined
      ? element('disk', { name: target, snapshot: 'no' })
      : element('disk', { name: target, snapshot: 'external', type: 'file' }, element('driver', { type: 'qcow2' }), element('source', { file: to.path }));
  }))).xml;

const mibOf = (kib: number | undefined): number | null => (kib === undefined ? null : Math.floor(kib / 1_024));

/** Interfaces are counted under the node's end of them; the domain's XML says whose that is. */
function usageOf({ cpuTimeNs, memoryKibResident, memoryKibAvailable, memoryKibUsable, interfaces, blocks }: DomainStats, xml: string): DomainUsage {
  const devices = childOf(readDomain(xml).root, 'devices');
  const macs = new Map(childrenOf(devices, 'interface').map((one) => [attributeOf(one, 'dev', 'target'), macIn(one)]));
  return {
    guestAgent: childrenOf(devices, 'channel').some((one) => attributeOf(one, 'name', 'target') === 'org.qemu.guest_agent.0' && attributeOf(one, 'state', 'target') === 'connected'),
    cpuSeconds: cpuTimeNs === undefined ? null : Number(cpuTimeNs) / 1e9,
    memory: { residentMib: mibOf(memoryKibResident), availableMib: mibOf(memoryKibAvailable), usableMib: mibOf(memoryKibUsable) },
    disks: blocks.flatMap(({ path, readBytes = 0n, writeBytes = 0n, physicalBytes = 0n }) => {
      const volumeId = path === undefined ? undefined : fileOfVolume.exec(path)?.[1];
      return volumeId === undefined ? [] : [{ volumeId, readBytes: Number(readBytes), writtenBytes: Number(writeBytes), fileBytes: Number(physicalBytes) }];
    }),
    nics: interfaces.flatMap(({ name, rxBytes = 0n, txBytes = 0n }) => {
      const mac = macs.get(name);
      return mac === undefined ? [] : [{ mac, receivedBytes: Number(rxBytes), sentBytes: Number(txBytes) }];
    }),
  };
}

/** What our metadata says; undefined for a domain that is not ours. */
async function readIdentity(libvirt: Libvirt, domain: Domain): Promise<Identity | undefined> {
  let xml: string;
  try {
    xml = await libvirt.domainGetMetadata({ domain, kind: 'element', uri: METADATA_NAMESPACE });
  } catch (error) {
    if (isNoMetadata(error) || isNoDomain(error)) return undefined;
    throw new HypervisorFault('identify', domain.name, error);
  }
  const { id, generation } = parseXml(xml).attributes;
  const vmId = idFrom('vm', domain.uuid);
  // A copy that somebody made of one of our domains carries our metadata under another UUID. It is not ours.
  if (id !== vmId || generation === undefined || !/^\d{1,9}$/.test(generation)) return undefined;
  return { vmId, generation: Number(generation) };
}

/** libvirt's no, in our words; throws what is no answer. */
function refusalFor(error: unknown, what: string, object: string, otherwise = `domain.${what.replaceAll(' ', '_')}_failed`): Refusal {
  if (!(error instanceof LibvirtError) || error.code === errorCodes.operationTimeout || error.code === errorCodes.resourceBusy) throw new HypervisorFault(what, object, error);
  const { code } = error;
  const libvirt = error.reason.slice(0, 500);
  if (code === errorCodes.noDomain) return refuse('domain.gone', { says: 'this node has no such domain' });
  if (/cannot allocate memory|cannot set up guest memory|out of memory/i.test(libvirt)) return refuse('node.out_of_memory', { says: 'this node has too little free memory for the VM', libvirt });
  if (/failed to get .*lock/i.test(libvirt)) return refuse('disk.in_use', { says: 'another process uses the disk of this VM', libvirt });
  if (/network '.*' already exists with uuid/.test(libvirt)) return refuse('network.name_taken', { says: 'libvirt on this node has another network of this name: give ours another, or undefine that one', libvirt });
  if (/already exists with uuid/.test(libvirt)) return refuse('domain.name_taken', { says: 'libvirt has another domain of this name', libvirt });
  if (/bridge name .* already in use|is already in use by interface/i.test(libvirt)) return refuse('network.in_conflict', { says: 'this node already uses the bridge or the addresses of this network', libvirt });
  // The host's trouble, which may pass: a daemon that is being started again, a file system that is full.
  if (code === errorCodes.systemError || code === errorCodes.noMemory) throw new HypervisorFault(what, object, error);
  return refuse(otherwise, { says: `libvirt could not ${what} ${object}`, libvirt });
}
