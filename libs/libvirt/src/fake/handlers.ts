/*
 * What the fake answers to each call, by the names of the table, from which the types of arguments and
 * answers come. A call that is not here is answered "not supported", as a driver of libvirt's does.
 */
import type { Procedure, Procedures, sessionProcedures, StreamDirection } from '../procedures.ts';
import { attributeOf, childInNamespace, childOf, childrenOf, element, parseXml, textOf, XmlError } from '../xml.ts';
import type { XmlElement } from '../xml.ts';
import { cpuMapBytes, domain as domainLayout, text } from '../layouts.ts';
import { array, bytes, i32, struct, u32, u64 } from '../xdr.ts';
import type { AnyCodec, Decoded, Encodable } from '../xdr.ts';
import * as block from './block.ts';
import { consoleStream, downloadStream, screenshotStream, uploadStream } from './streams.ts';
import { parsed, printed, withChild } from './definition.ts';
import * as devices from './devices.ts';
import * as guest from './guest.ts';
import * as life from './life.ts';
import * as limits from './limits.ts';
import * as migration from './migration.ts';
import * as networks from './networks.ts';
import type { Migrations } from './migration.ts';
import type { FakeDomain, FakeNode } from './node.ts';
import * as points from './points.ts';
import { capabilitiesXml, domainCapabilitiesXml } from './capabilities.ts';
import { argumentUnsupported, configUnsupported, internal, invalidArgument, noBackup, noDomain, noMetadata, noSecret, noSnapshot, noCheckpoint, notSupported, operationFailed, operationInvalid, operationUnsupported, Refusal, systemError, xmlWrong } from './refusal.ts';
import * as stats from './stats.ts';
import * as storage from './storage.ts';
import { hasEvent, WireAnswer } from './wire.ts';
import type { OpenStream, Registration, WireSession } from './wire.ts';

export interface CallContext {
  readonly node: FakeNode;
  readonly session: WireSession;
  readonly migrations: Migrations;
}

type All = Procedures & typeof sessionProcedures;
type Answer<P> = P extends Procedure<infer _A, infer R, infer S extends StreamDirection | undefined> ? (S extends StreamDirection ? OpenStream : Encodable<R> | Promise<Encodable<R>>) : never;
type Given<P> = P extends Procedure<infer A> ? Decoded<A> : never;
type HandlersOf = { readonly [N in keyof All]?: (args: Given<All[N]>, context: CallContext) => Answer<All[N]> };

/** Arguments of which the server must see more than the client's own types show. */
const vcpusArguments = struct({ domain: domainLayout, vcpusMax: i32, mapBytes: i32 });
const blockStatsArguments = struct({ domain: domainLayout, path: text, count: i32, flags: u32 });
export const rawArguments: Readonly<Record<string, AnyCodec>> = { domainBlockStatsFlags: blockStatsArguments, domainGetVcpus: vcpusArguments };
const blockStatsFields = 8;
const vcpusAnswer = struct({ info: array(struct({ vcpu: u32, state: i32, timeNs: u64, cpu: i32 }), 16_384), maps: bytes(8_388_608) });
const vcpuRunning = 1;

const libvirtVersion = 9_000_000;
const qemuVersion = 7_002_022;
/** virDrvFeature that QEMU's driver answers yes to; no file descriptors can come this way (8). */
const features = new Set([3, 4, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16]);
const keepaliveFeature = 10;

const stateFilter = (domain: FakeDomain, filter: readonly string[]): boolean => {
  const has = (word: string) => filter.includes(word);
  const pick = (yes: string, no: string, is: boolean) => has(yes) === has(no) || has(yes) === is;
  const state = domain.state === 'running' ? 'running' : domain.state === 'paused' ? 'paused' : domain.state === 'shutoff' ? 'shutoff' : 'other';
  const states = ['running', 'paused', 'shutoff', 'other'].filter(has);
  return (
    pick('active', 'inactive', domain.active) &&
    pick('persistent', 'transient', domain.persistent !== undefined) &&
    (states.length === 0 || states.includes(state)) &&
    pick('managedSave', 'noManagedSave', domain.managedSave !== undefined) &&
    pick('autostart', 'noAutostart', domain.autostart) &&
    pick('hasSnapshot', 'noSnapshot', (domain.snapshots?.size ?? 0) > 0) &&
    pick('hasCheckpoint', 'noCheckpoint', (domain.checkpoints?.size ?? 0) > 0)
  );
};

function undefine(node: FakeNode, domain: FakeDomain, flags: readonly string[]): void {
  if (domain.persistent === undefined) throw operationInvalid('cannot undefine transient domain');
  if (!domain.active) {
    const snapshots = domain.snapshots?.size ?? 0;
    const checkpoints = domain.checkpoints?.size ?? 0;
    if (snapshots > 0 && !flags.includes('snapshotsMetadata')) throw operationInvalid(`cannot delete inactive domain with ${snapshots} snapshots`);
    if (checkpoints > 0 && !flags.includes('checkpointsMetadata')) throw operationInvalid(`cannot delete inactive domain with ${checkpoints} checkpoints`);
  }
  if (domain.managedSave !== undefined && !flags.includes('managedSave')) throw operationInvalid('Refusing to undefine while domain managed save image exists');
  domain.managedSave = undefined;
  domain.persistent = undefined;
  domain.autostart = false;
  if (!domain.active) life.remove(node, domain);
  node.lifecycle(domain, 'undefined', 'removed');
}

function vcpusOf(domain: FakeDomain, flags: readonly string[]): number {
  const [which] = devices.affected(domain, flags);
  const facts = which === 'config' ? (domain.persistent as NonNullable<typeof domain.persistent>).facts : domain.facts;
  return flags.includes('maximum') ? facts.vcpusMax : facts.vcpus;
}

function metadata(domain: FakeDomain, node: FakeNode, args: { readonly kind: string; readonly uri: string | null; readonly flags: readonly string[] }): string {
  const [which] = devices.affected(domain, args.flags);
  const definition = which === 'config' ? (domain.persistent as NonNullable<typeof domain.persistent>) : domain.definition;
  const root = parsed(definition.xml, 'domain');
  if (args.kind !== 'element') {
    const found = childOf(root, args.kind);
    if (found === undefined) throw noMetadata('Requested metadata element is not present', 'domainConfiguration');
    return textOf(found);
  }
  if (args.uri === null) throw invalidArgument('uri must not be NULL', 'domain');
  const found = childInNamespace(childOf(root, 'metadata'), args.uri);
  if (found === undefined) throw noMetadata('Requested metadata element is not present', 'domainConfiguration');
  return printed(withoutPrefix(found, prefixOf(found))).trimEnd();
}
const prefixOf = (node: XmlElement): string => (node.name.includes(':') ? node.name.slice(0, node.name.indexOf(':')) : '');
/** As the caller gave it: without the namespace under which it was put. */
function withoutPrefix(node: XmlElement, prefix: string): XmlElement {
  const bare = (name: string) => (prefix !== '' && name.startsWith(`${prefix}:`) ? name.slice(prefix.length + 1) : name);
  const attributes = Object.fromEntries(Object.entries(node.attributes).filter(([key]) => key !== (prefix === '' ? 'xmlns' : `xmlns:${prefix}`)));
  return { name: bare(node.name), attributes, children: node.children.map((child) => (typeof child === 'string' ? child : withoutPrefix(child, prefix))) };
}

function withoutPasswords(root: XmlElement): XmlElement {
  const all = childOf(root, 'devices');
  if (all === undefined) return root;
  const bare = (one: XmlElement) => ({ ...one, attributes: Object.fromEntries(Object.entries(one.attributes).filter(([key]) => key !== 'passwd')) });
  return withChild(root, 'devices', { ...all, children: all.children.map((one) => (typeof one !== 'string' && one.name === 'graphics' ? bare(one) : one)) });
}

function setMetadata(node: FakeNode, domain: FakeDomain, args: { readonly kind: string; readonly metadata: string | null; readonly key: string | null; readonly uri: string | null; readonly flags: readonly string[] }): void {
  const which = devices.affected(domain, args.flags);
  let put: XmlElement | undefined;
  if (args.kind === 'element') {
    if (args.uri === null) throw invalidArgument('uri must not be NULL', 'domain');
    if (args.metadata !== null) {
      if (args.key === null) throw invalidArgument('key must not be NULL', 'domain');
      try {
        const given = parseXml(args.metadata);
        put = { ...given, name: `${args.key}:${given.name}`, attributes: { [`xmlns:${args.key}`]: args.uri, ...given.attributes } };
      } catch (error) {
        if (error instanceof XmlError) throw new Refusal(35, 'domainConfiguration', `(metadata_xml):1: ${error.message}`);
        throw error;
      }
    }
  }
  for (const one of which) {
    const root = one === 'live' ? parsed(domain.definition.xml, 'domain') : node.treeOf(domain, 'config');
    if (args.kind !== 'element') {
      node.setTree(domain, one, placed(root, args.kind, args.metadata === null || args.metadata === '' ? undefined : element(args.kind, {}, args.metadata)));
      continue;
    }
    const before = childOf(root, 'metadata');
    const found = childInNamespace(before, args.uri as string);
    if (found === undefined && put === undefined) throw noMetadata('Requested metadata element is not present', 'domainConfiguration');
    const others = childrenOf(before).filter((child) => child !== found);
    const all = put === undefined ? others : [...others, put];
    node.setTree(domain, one, placed(root, 'metadata', all.length === 0 ? undefined : element('metadata', {}, ...all)));
  }
  if (which.length > 0) node.emitDomain('metadataChange', domain, { metadata: args.kind as 'element', uri: args.kind === 'element' ? args.uri : null });
}
/** Behind the UUID, where libvirt has them. */
function placed(root: XmlElement, name: string, child: XmlElement | undefined): XmlElement {
  if (child === undefined || childOf(root, name) !== undefined) return withChild(root, name, child);
  const order = ['name', 'uuid', 'genid', 'title', 'description', 'metadata'];
  const at = root.children.findLastIndex((one) => typeof one !== 'string' && order.indexOf(one.name) !== -1 && order.indexOf(one.name) < order.indexOf(name)) + 1;
  return { ...root, children: [...root.children.slice(0, at), child, ...root.children.slice(at)] };
}

const settingsOf = (domain: FakeDomain, kind: string): Record<string, unknown> => {
  const all = (domain.settings ??= new Map<string, Record<string, unknown>>());
  let one = all.get(kind);
  if (one === undefined) all.set(kind, (one = {}));
  return one;
};
const merged = (domain: FakeDomain, kind: string, given: Readonly<Record<string, unknown>>): void => void Object.assign(settingsOf(domain, kind), Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined)));

function interfaceOf(node: FakeNode, domain: FakeDomain, device: string) {
  const found = node.interfacesOf(domain).find((one) => one.mac === device.toLowerCase() || (one.device !== '' && one.device === device));
  if (found === undefined) throw invalidArgument(`'${device}' is not a known interface`, 'domainConfiguration');
  return found;
}

function addressesOf(node: FakeNode, domain: FakeDomain, source: string) {
  if (source === 'agent') {
    guest.agentOf(domain);
    return guest.guestInterfaces(node, domain);
  }
  return node.interfacesOf(domain).flatMap((one) => {
    const lease = networks.leaseOf(node, one.network, one.mac);
    return lease === undefined ? [] : [{ name: one.device, mac: one.mac, addresses: [{ kind: 'ipv4' as const, address: lease.address, prefix: lease.prefix }] }];
  });
}

/** Pages, levels, times of a job that is under way. */
function jobProgress(node: FakeNode, domain: FakeDomain) {
  const { job } = domain;
  if (job === undefined) return undefined;
  const elapsed = node.clock.now() - job.startedAt;
  const processed = Math.floor(job.total * Math.min(0.99, elapsed / Math.max(1, node.jobMs)));
  return { elapsed, total: job.total, processed, remaining: job.total - processed, backup: job.operation === 'backup' };
}

const registrationOf = (context: CallContext, family: Registration['family'], kindId: number, subject: string | undefined): number => {
  if (!hasEvent(family, kindId)) throw internal(`unsupported event ID ${kindId}`, 'rpc');
  return context.session.register({ family, kindId, subject });
};
const deregister = (context: CallContext, callbackId: number): void => {
  if (!context.session.registrations.delete(callbackId)) throw internal(`domain event callback ${callbackId} not registered`, 'rpc');
};

const macOfNode = (node: FakeNode): string => `52:54:00:${node.hostname.length.toString(16).padStart(2, '0')}:00:01`;
const nodeDevices = (node: FakeNode): readonly string[] => ['computer', 'net_lo_00_00_00_00_00_00', `net_eth0_${macOfNode(node).replaceAll(':', '_')}`, 'pci_0000_00_00_0'];
const kindOfDevice = (name: string) => (name === 'computer' ? ('system' as const) : name.startsWith('net_') ? ('net' as const) : ('pci' as const));
function nodeDevice(node: FakeNode, name: string): string {
  if (!nodeDevices(node).includes(name)) throw new Refusal(53, 'nodeDevice', `Node device not found: no node device with matching name '${name}'`);
  return name;
}

const typed: HandlersOf = {
  authList: () => [0],
  connectOpen: ({ name, flags }, { session }) => {
    if (session.opened !== undefined) throw internal('connection already open', 'rpc');
    if (!/^(qemu:\/\/\/(system|session)|test:\/\/\/default)?$/.test(name ?? '')) throw new Refusal(5, 'none', `no connection driver available for ${name}`);
    session.opened = name === null || name === '' ? 'qemu:///system' : name;
    session.readOnly = flags.includes('readOnly');
  },
  connectClose: ({}, { session }) => {
    session.opened = undefined;
    session.registrations.clear();
  },
  connectSupportsFeature: ({ feature }, { session }) => {
    if (feature === keepaliveFeature) session.startKeepalive();
    return features.has(feature);
  },
  connectRegisterCloseCallback: () => {},
  connectUnregisterCloseCallback: () => {},
  connectDomainEventCallbackRegisterAny: ({ eventId, domain }, context) => registrationOf(context, 'domain', eventId, domain?.uuid),
  connectDomainEventCallbackDeregisterAny: ({ callbackId }, context) => deregister(context, callbackId),
  connectNetworkEventRegisterAny: ({ eventId, network }, context) => registrationOf(context, 'network', eventId, network?.uuid),
  connectNetworkEventDeregisterAny: ({ callbackId }, context) => deregister(context, callbackId),
  connectStoragePoolEventRegisterAny: ({ eventId, pool }, context) => registrationOf(context, 'storagePool', eventId, pool?.uuid),
  connectStoragePoolEventDeregisterAny: ({ callbackId }, context) => deregister(context, callbackId),
  connectNodeDeviceEventRegisterAny: ({ eventId, device }, context) => registrationOf(context, 'nodeDevice', eventId, device?.name),
  connectNodeDeviceEventDeregisterAny: ({ callbackId }, context) => deregister(context, callbackId),
  connectSecretEventRegisterAny: ({ eventId, secret }, context) => registrationOf(context, 'secret', eventId, secret?.uuid),
  connectSecretEventDeregisterAny: ({ callbackId }, context) => deregister(context, callbackId),
  connectDomainMonitorEventRegister: ({ domain, event }, context) => {
    if (event !== null) throw notSupported('the fake tells of all monitor events or of none', 'qemu');
    return registrationOf(context, 'monitor', 0, domain?.uuid);
  },
  connectDomainMonitorEventDeregister: ({ callbackId }, context) => deregister(context, callbackId),

  connectGetType: () => 'QEMU',
  connectGetVersion: () => qemuVersion,
  connectGetLibVersion: () => libvirtVersion,
  connectGetHostname: (_args, { node }) => node.hostname,
  connectGetUri: (_args, { session }) => session.opened ?? '',
  connectIsSecure: () => true,
  connectGetMaxVcpus: ({ virtualisation }) => (virtualisation === 'kvm' ? 1_024 : 255),
  connectGetCapabilities: (_args, { node }) => capabilitiesXml(node),
  connectGetDomainCapabilities: ({ architecture, machine, virtualisation }) => domainCapabilitiesXml(architecture ?? 'x86_64', machine ?? 'pc', virtualisation ?? 'kvm'),
  connectGetCpuModelNames: ({ architecture }) => {
    if (architecture !== 'x86_64' && architecture !== 'i686') throw invalidArgument(`cannot find architecture ${architecture}`);
    return ['qemu64', 'kvm64', 'Nehalem', 'Haswell', 'Skylake-Server', 'Cascadelake-Server', 'EPYC', 'EPYC-Rome'];
  },

  nodeGetInfo: (_args, { node }) => ({ model: 'x86_64', memoryKib: node.memoryKib, cpus: node.cpus, mhz: 2_600, numaNodes: 1, sockets: 1, cores: node.cpus, threads: 1 }),
  nodeGetFreeMemory: (_args, { node }) => freeKib(node) * 1_024,
  nodeGetCellsFreeMemory: (_args, { node }) => [freeKib(node) * 1_024],
  nodeGetCpuStats: ({ cpu, count }, { node }) => {
    if (cpu >= node.cpus) throw invalidArgument(`Invalid cpuNum in virHostCPUGetStatsLinux`, 'none');
    if (count === 0) return { stats: {}, count: 4 };
    const cpus = cpu < 0 ? node.cpus : 1;
    const uptimeNs = BigInt(Math.floor(node.clock.now() - node.startedAt)) * 1_000_000n * BigInt(cpus);
    let used = 0n;
    for (const domain of node.domains.values()) if (domain.active) used += node.cpuTimeNs(domain);
    const busy = cpu < 0 ? used : used / BigInt(node.cpus);
    return { stats: { kernel: busy / 5n, user: busy - busy / 5n, idle: uptimeNs > busy ? uptimeNs - busy : 0n, iowait: 0n }, count: 4 };
  },
  nodeGetMemoryStats: ({ count, cell }, { node }) => {
    if (cell > 0) throw invalidArgument(`cellNum in virHostMemGetStatsLinux must be less than or equal to 0`, 'none');
    const all = { total: node.memoryKib, free: freeKib(node) };
    const stats = cell < 0 ? { ...all, buffers: 65_536, cached: 1_048_576 } : all;
    return { stats: count === 0 ? {} : stats, count: Object.keys(stats).length };
  },
  nodeGetCpuMap: (_args, { node }) => ({ online: Array.from({ length: node.cpus }, (_, index) => index), onlineCount: node.cpus, count: node.cpus }),
  nodeGetSecurityModel: () => ({ model: '', doi: '' }),

  connectListAllDomains: ({ filter }, { node }) => {
    const found: FakeDomain[] = [];
    for (const domain of node.domains.values()) if (stateFilter(domain, filter)) found.push(domain);
    return found.map((domain) => domain.handle);
  },
  connectNumOfDomains: (_args, { node }) => [...node.domains.values()].filter((domain) => domain.active).length,
  connectListDomains: (_args, { node }) => [...node.domains.values()].filter((domain) => domain.active).map((domain) => domain.id),
  connectNumOfDefinedDomains: (_args, { node }) => [...node.domains.values()].filter((domain) => !domain.active).length,
  connectListDefinedDomains: (_args, { node }) => [...node.domains.values()].filter((domain) => !domain.active).map((domain) => domain.name),
  domainLookupByName: ({ name }, { node }) => {
    const domain = node.domainsByName.get(name);
    if (domain === undefined) throw noDomain(`no domain with matching name '${name}'`);
    return domain.handle;
  },
  domainLookupByUuid: ({ uuid }, { node }) => node.find({ uuid }).handle,
  domainLookupById: ({ id }, { node }) => {
    for (const domain of node.domains.values()) if (domain.active && domain.id === id) return domain.handle;
    throw noDomain(`no domain with matching id ${id}`);
  },
  domainGetState: ({ domain }, { node }) => {
    const { state, reason } = node.find(domain);
    return { state: state === 'unknown' ? 'nostate' : state, reason };
  },
  domainGetInfo: ({ domain: ref }, { node }) => {
    const domain = node.find(ref);
    const { facts } = domain;
    return { state: domain.state === 'unknown' ? 'nostate' : domain.state, memoryKibMax: facts.memoryKibMax, memoryKib: facts.memoryKib, vcpus: facts.vcpus, cpuTimeNs: domain.active ? node.cpuTimeNs(domain) : 0n };
  },
  domainGetXmlDesc: ({ domain, flags }, { node }) => {
    const xml = node.xmlOf(node.find(domain), flags.includes('inactive'));
    return flags.includes('secure') || !xml.includes(' passwd=') ? xml : printed(withoutPasswords(parsed(xml, 'domain')));
  },
  domainIsActive: ({ domain }, { node }) => node.find(domain).active,
  domainIsPersistent: ({ domain }, { node }) => node.find(domain).persistent !== undefined,
  // QEMU's driver never says yes, whatever was changed.
  domainIsUpdated: ({ domain }, { node }) => {
    node.find(domain);
    return false;
  },
  domainGetOsType: ({ domain }, { node }) => textOf(childOf(parsed(node.find(domain).definition.xml, 'domain'), 'os', 'type')),
  domainGetHostname: ({ domain: ref, flags }, { node }) => {
    if (flags.includes('agent') && flags.includes('lease')) throw invalidArgument("Flags 'VIR_DOMAIN_GET_HOSTNAME_LEASE' and 'VIR_DOMAIN_GET_HOSTNAME_AGENT' are mutually exclusive");
    const domain = node.findActive(ref);
    if (!flags.includes('lease')) {
      guest.agentOf(domain);
      return guest.hostnameOf(node, domain);
    }
    for (const one of domain.facts.interfaces) {
      const lease = networks.leaseOf(node, one.network, one.mac);
      if (lease?.hostname !== undefined) return lease.hostname;
    }
    throw new Refusal(108, 'qemu', `no hostname found: no hostname found for domain ${domain.name}`);
  },
  domainGetControlInfo: ({ domain: ref }, { node }) => {
    const domain = node.findActive(ref);
    const busy = domain.hung && (domain.waiting?.size ?? 0) > 0;
    return { state: busy ? 'occupied' : domain.job === undefined ? 'ok' : 'job', details: 'none', stateTimeMs: 0 };
  },
  domainGetAutostart: ({ domain }, { node }) => node.find(domain).autostart,
  domainSetAutostart: ({ domain: ref, autostart }, { node }) => {
    const domain = node.find(ref);
    if (domain.persistent === undefined) throw operationInvalid('cannot set autostart for transient domain');
    domain.autostart = autostart;
  },
  domainGetMetadata: ({ domain, ...args }, { node }) => metadata(node.find(domain), node, args),
  domainSetMetadata: ({ domain, ...args }, { node }) => setMetadata(node, node.find(domain), args),
  domainGetMessages: ({ domain, kinds }, { node }) => (node.find(domain).tainted && (kinds.length === 0 || kinds.includes('tainting')) ? ['tainted: custom monitor control commands issued'] : []),
  domainInterfaceAddresses: ({ domain, source }, { node }) => addressesOf(node, node.findActive(domain), source),
  domainGetSecurityLabelList: ({ domain }, { node }) => (node.find(domain).active ? [{ label: '', enforcing: false }] : []),

  domainDefineXmlFlags: ({ xml }, { node }) => life.define(node, life.readDefinition(node, xml)).handle,
  domainDefineXml: ({ xml }, { node }) => life.define(node, life.readDefinition(node, xml)).handle,
  domainCreateWithFlags: ({ domain: ref, flags }, { node, session }) => {
    const domain = node.find(ref);
    if (flags.includes('forceBoot') && !domain.active) domain.managedSave = undefined;
    life.start(node, domain, flags.includes('paused') ? { paused: true } : {});
    if (flags.includes('autodestroy')) session.autodestroy.add(domain.uuid);
    return domain.handle;
  },
  domainCreate: ({ domain }, { node }) => life.start(node, node.find(domain), {}),
  domainCreateXml: ({ xml, flags }, { node, session }) => {
    const domain = life.createTransient(node, life.readDefinition(node, xml), { paused: flags.includes('paused') });
    if (flags.includes('autodestroy')) session.autodestroy.add(domain.uuid);
    return domain.handle;
  },
  domainUndefineFlags: ({ domain, flags }, { node }) => undefine(node, node.find(domain), flags),
  domainUndefine: ({ domain }, { node }) => undefine(node, node.find(domain), []),
  domainRename: ({ domain: ref, name }, { node }) => {
    const domain = node.find(ref);
    if (domain.active) throw operationInvalid('cannot rename active domain');
    if (domain.persistent === undefined) throw operationInvalid('cannot rename a transient domain');
    if (domain.managedSave !== undefined) throw operationInvalid('domain with a managed saved state can\'t be renamed');
    if (name === null || name === '' || name.includes('/')) throw xmlWrong(`name ${name} cannot contain '/'`);
    if (node.domainsByName.has(name)) throw operationInvalid(`domain with name '${name}' already exists`);
    node.lifecycle(domain, 'undefined', 'renamed');
    node.domainsByName.delete(domain.name);
    domain.name = name;
    node.domainsByName.set(name, domain);
    node.setTree(domain, 'config', withChild(node.treeOf(domain, 'config'), 'name', element('name', {}, name)));
    node.lifecycle(domain, 'defined', 'renamed');
    return 0;
  },
  domainShutdownFlags: ({ domain: ref, modes }, { node }) => shutdown(node, node.findActive(ref), modes),
  domainShutdown: ({ domain }, { node }) => shutdown(node, node.findActive(domain), []),
  domainReboot: ({ domain: ref, modes }, { node }) => {
    const domain = node.findActive(ref);
    if (modes.includes('agent') && !modes.includes('acpi')) guest.agentOf(domain);
    life.askReboot(node, domain);
  },
  domainReset: ({ domain }, { node }) => life.reset(node, node.findActive(domain)),
  domainSuspend: ({ domain }, { node }) => life.suspend(node, node.findActive(domain)),
  domainResume: ({ domain }, { node }) => life.resume(node, node.findActive(domain)),
  domainDestroyFlags: ({ domain }, { node }) => life.destroy(node, node.findActive(domain)),
  domainDestroy: ({ domain }, { node }) => life.destroy(node, node.findActive(domain)),
  domainInjectNmi: ({ domain }, { node }) => void node.findActive(domain),
  domainSendKey: ({ domain }, { node }) => void node.findActive(domain),
  domainManagedSave: ({ domain, flags }, { node }) => life.save(node, node.findActive(domain), flags.includes('paused') ? 'paused' : flags.includes('running') ? 'running' : undefined),
  domainSaveFlags: ({ domain, to, flags }, { node }) => life.saveTo(node, node.findActive(domain), to, flags.includes('paused') ? 'paused' : flags.includes('running') ? 'running' : undefined),
  domainRestoreFlags: ({ from, flags }, { node }) => life.restoreFrom(node, from, flags.includes('paused') ? 'paused' : flags.includes('running') ? 'running' : undefined),
  domainHasManagedSaveImage: ({ domain }, { node }) => node.find(domain).managedSave !== undefined,
  domainManagedSaveRemove: ({ domain: ref }, { node }) => {
    const domain = node.find(ref);
    if (domain.managedSave === undefined) throw systemError(`Failed to remove managed save file '/var/lib/libvirt/qemu/save/${domain.name}.save': No such file or directory`);
    domain.managedSave = undefined;
  },
  domainOpenConsole: ({ domain, device, flags }, { node }) => consoleStream(node, node.findActive(domain), device, flags),
  domainScreenshot: ({ domain, screen }, { node }) => screenshotStream(node, node.findActive(domain), screen),

  domainAttachDeviceFlags: ({ domain, xml, flags }, { node }) => devices.attach(node, node.find(domain), xml, flags),
  domainAttachDevice: ({ domain, xml }, { node }) => devices.attach(node, node.findActive(domain), xml, ['live']),
  domainDetachDeviceFlags: ({ domain, xml, flags }, { node }) => devices.detach(node, node.find(domain), { xml }, flags),
  domainDetachDevice: ({ domain, xml }, { node }) => devices.detach(node, node.findActive(domain), { xml }, ['live']),
  domainDetachDeviceAlias: ({ domain, alias, flags }, { node }) => devices.detach(node, node.find(domain), { alias }, flags),
  domainUpdateDeviceFlags: ({ domain, xml, flags }, { node }) => devices.update(node, node.find(domain), xml, flags),
  domainSetVcpusFlags: ({ domain, vcpus, flags }, { node }) => devices.setVcpus(node, node.find(domain), vcpus, flags),
  domainSetVcpus: ({ domain, vcpus }, { node }) => devices.setVcpus(node, node.findActive(domain), vcpus, ['live']),
  domainGetVcpusFlags: ({ domain, flags }, { node }) => vcpusOf(node.find(domain), flags),
  domainGetMaxVcpus: ({ domain }, { node }) => node.find(domain).facts.vcpusMax,
  domainGetVcpus: (given, { node }) => {
    const { domain: ref, vcpusMax, mapBytes } = given as unknown as Decoded<typeof vcpusArguments>;
    const domain = node.findActive(ref);
    const count = Math.min(vcpusMax, domain.facts.vcpus);
    const timeNs = node.cpuTimeNs(domain) / BigInt(domain.facts.vcpus);
    // Each may be on every CPU. The client says how long a map is, which the table's own layout takes for given.
    const map = Buffer.alloc(Math.max(0, Math.min(mapBytes, cpuMapBytes)));
    for (let cpu = 0; cpu < node.cpus && cpu < map.length * 8; cpu += 1) map[cpu >> 3] = (map[cpu >> 3] as number) | (1 << (cpu & 7));
    const answer = new WireAnswer((writer) =>
      vcpusAnswer.write(writer, {
        info: Array.from({ length: count }, (_, vcpu) => ({ vcpu, state: vcpuRunning, timeNs, cpu: vcpu % node.cpus })),
        maps: Buffer.concat(Array.from({ length: count }, () => map)),
      }),
    );
    return answer as unknown as Encodable<Procedures['domainGetVcpus']['result']>;
  },
  domainGetMaxMemory: ({ domain }, { node }) => node.find(domain).facts.memoryKibMax,
  domainSetMaxMemory: ({ domain, memoryKib }, { node }) => devices.setMemory(node, node.find(domain), memoryKib, ['maximum']),
  domainSetMemoryFlags: ({ domain, memoryKib, flags }, { node }) => devices.setMemory(node, node.find(domain), memoryKib, flags),
  domainSetMemory: ({ domain, memoryKib }, { node }) => devices.setMemory(node, node.findActive(domain), memoryKib, ['live']),
  domainSetMemoryStatsPeriod: ({ domain, seconds, flags }, { node }) => devices.setMemoryStatsPeriod(node, node.find(domain), seconds, flags),
  domainGetBlockIoTune: ({ domain: ref, disk, flags }, { node }) => {
    const domain = node.find(ref);
    const [which = 'live'] = devices.affected(domain, flags);
    // Without a disk it is asked what there is to ask for.
    return disk === null ? limits.noDiskLimits : limits.diskLimits(node, domain, which, block.diskOf(domain, disk).target);
  },
  domainSetBlockIoTune: ({ domain: ref, disk, parameters, flags }, { node }) => {
    const domain = node.find(ref);
    limits.limitDisk(node, domain, devices.affected(domain, flags), block.diskOf(domain, disk).target, parameters);
  },
  domainGetInterfaceParameters: ({ domain: ref, device, flags }, { node }) => {
    const domain = node.find(ref);
    const [which = 'live'] = devices.affected(domain, flags);
    return limits.interfaceLimits(node, domain, which, interfaceOf(node, domain, device).mac);
  },
  domainSetInterfaceParameters: ({ domain: ref, device, parameters, flags }, { node }) => {
    const domain = node.find(ref);
    const which = devices.affected(domain, flags);
    const { kind, mac } = interfaceOf(node, domain, device);
    if (kind === 'user') throw configUnsupported(`setting bandwidth on interfaces of type '${kind}' is not implemented yet`);
    limits.limitInterface(node, domain, which, mac, parameters);
  },

  connectGetAllDomainStats: ({ domains: refs, groups, flags }, { node }) => {
    const missing = groups.filter((group) => !stats.groups.includes(group));
    if (flags.includes('enforceGroups') && missing.length > 0) throw argumentUnsupported(`Stats types ${missing.join(', ')} are not supported by this daemon`);
    const wanted = refs.length > 0 ? refs.map((ref) => node.find(ref)) : [...node.domains.values()];
    const found = wanted.filter((domain) => stateFilter(domain, flags));
    const nowait = flags.includes('nowait');
    const answer = () => found.filter((domain) => node.domains.has(domain.uuid)).map((domain) => ({ domain: domain.handle, parameters: stats.statsOf(node, domain, groups, { busy: domain.hung }) }));
    if (nowait) return answer();
    const waits = found.map((domain) => node.monitor(domain)).filter((wait) => wait !== undefined);
    return waits.length === 0 ? answer() : Promise.all(waits).then(answer);
  },
  domainMemoryStats: ({ domain: ref }, { node }) => {
    const domain = node.findActive(ref);
    const memory = stats.memoryCounters(node, domain);
    const inside = domain.agentConnected ? { unusedKib: memory.unusedKib, availableKib: memory.availableKib, usableKib: memory.usableKib } : {};
    return { balloonKib: memory.currentKib, rssKib: memory.rssKib, lastUpdateSeconds: domain.agentConnected ? Math.floor(node.clock.now() / 1_000) : 0, ...inside };
  },
  domainBlockStats: ({ domain: ref, path }, { node }) => {
    const domain = node.findActive(ref);
    const all = diskCountersOf(node, domain, path);
    return { readRequests: all.readRequests, readBytes: all.readBytes, writeRequests: all.writeRequests, writeBytes: all.writeBytes, errors: -1n };
  },
  domainBlockStatsFlags: (given, { node }) => {
    const { domain: ref, path, count } = given as unknown as Decoded<typeof blockStatsArguments>;
    const all = diskCountersOf(node, node.findActive(ref), path);
    if (count === 0) {
      // Nobody who has no room is given anything but the number. The layout has no word for that.
      const none = new WireAnswer((writer) => {
        writer.u32(0);
        writer.i32(blockStatsFields);
      });
      return none as unknown as Encodable<Procedures['domainBlockStatsFlags']['result']>;
    }
    return { rd_bytes: all.readBytes, rd_operations: all.readRequests, rd_total_times: all.readNs, wr_bytes: all.writeBytes, wr_operations: all.writeRequests, wr_total_times: all.writeNs, flush_operations: all.flushes, flush_total_times: all.flushNs };
  },
  domainGetBlockInfo: ({ domain: ref, path }, { node }) => {
    const disk = block.diskOf(node.find(ref), path);
    const size = storage.fileSizeOrUsual(node, disk.chain[0]);
    return { allocationBytes: size.allocation, capacityBytes: size.capacity, physicalBytes: size.allocation };
  },
  domainInterfaceStats: ({ domain: ref, device }, { node }) => {
    const domain = node.findActive(ref);
    const one = interfaceOf(node, domain, device);
    if (one.device === '') throw internal('Interface name not provided', 'none');
    const all = stats.interfaceCounters(node, domain, one.mac);
    return { rxBytes: all.rxBytes, rxPackets: all.rxPackets, rxErrors: 0n, rxDropped: 0n, txBytes: all.txBytes, txPackets: all.txPackets, txErrors: 0n, txDropped: 0n };
  },
  domainGetDiskErrors: ({ domain }, { node }) => {
    node.findActive(domain);
    return [];
  },
  domainGetJobInfo: ({ domain: ref }, { node }) => {
    const domain = node.find(ref);
    const none = { timeElapsedMs: 0, timeRemainingMs: 0, dataTotal: 0, dataProcessed: 0, dataRemaining: 0, memoryTotal: 0, memoryProcessed: 0, memoryRemaining: 0, fileTotal: 0, fileProcessed: 0, fileRemaining: 0 };
    const progress = jobProgress(node, domain);
    if (progress === undefined) return { type: 'none', ...none };
    const part = progress.backup
      ? { fileTotal: progress.total, fileProcessed: progress.processed, fileRemaining: progress.remaining }
      : { memoryTotal: progress.total, memoryProcessed: progress.processed, memoryRemaining: progress.remaining };
    return { type: 'unbounded', ...none, ...part, timeElapsedMs: progress.elapsed, dataTotal: progress.total, dataProcessed: progress.processed, dataRemaining: progress.remaining };
  },
  domainGetJobStats: ({ domain: ref, flags }, { node }) => {
    const domain = node.find(ref);
    if (flags.includes('completed')) {
      const last = domain.jobLast;
      if (last === undefined) return { type: 'none', stats: {} };
      if (!flags.includes('keepCompleted')) domain.jobLast = undefined;
      return { type: last.type, stats: last.stats };
    }
    const progress = jobProgress(node, domain);
    if (progress === undefined) return { type: 'none', stats: {} };
    const of = progress.backup ? 'disk' : 'memory';
    return {
      type: 'unbounded',
      stats: { operation: progress.backup ? 9 : 5, time_elapsed: progress.elapsed, [`${of}_total`]: progress.total, [`${of}_processed`]: progress.processed, [`${of}_remaining`]: progress.remaining, ...(progress.backup ? {} : { data_total: progress.total, data_processed: progress.processed, data_remaining: progress.remaining }) },
    };
  },
  domainAbortJob: ({ domain }, { node }) => abortJob(node.findActive(domain)),
  domainAbortJobFlags: ({ domain, flags }, { node }) => {
    const found = node.findActive(domain);
    if (flags.includes('postcopy')) throw operationInvalid('current job is not outgoing migration in post-copy mode');
    abortJob(found);
  },

  domainBlockCommit: ({ domain, ...args }, { node }) => block.blockCommit(node, node.findActive(domain), args),
  domainBlockPull: ({ domain, disk, bandwidth, flags }, { node }) => block.blockPull(node, node.findActive(domain), { disk, bandwidth: block.bandwidthBytes(bandwidth, flags) }),
  domainBlockRebase: ({ domain, disk, base, bandwidth: given, flags }, { node }) => {
    const found = node.findActive(domain);
    const bandwidth = block.bandwidthBytes(given, flags);
    if (!flags.includes('copy')) return block.blockPull(node, found, { disk, base, bandwidth });
    const xml = element('disk', { type: 'file' }, element('source', { file: base ?? '' }), element('driver', { type: flags.includes('copyRaw') ? 'raw' : undefined }));
    return block.blockCopy(node, found, { disk, xml, bandwidth, flags });
  },
  domainBlockCopy: ({ domain, disk, xml, parameters, flags }, { node }) => block.blockCopy(node, node.findActive(domain), { disk, xml: parsed(xml, 'disk'), bandwidth: parameters.bandwidth ?? 0, flags }),
  domainBlockJobAbort: ({ domain, disk, flags }, { node }) => block.abortBlockJob(node, node.findActive(domain), disk, flags.includes('pivot')),
  domainGetBlockJobInfo: ({ domain: ref, disk, flags }, { node }) => {
    const domain = node.findActive(ref);
    const job = domain.blockJobs?.get(block.diskOf(domain, disk).target);
    return job === undefined ? null : { type: job.type, bandwidth: flags.includes('bandwidthBytes') ? job.bandwidth : Math.ceil(job.bandwidth / 1_048_576), ...block.progressOf(node, job) };
  },
  domainBlockJobSetSpeed: ({ domain: ref, disk, bandwidth, flags }, { node }) => {
    const domain = node.findActive(ref);
    const { target } = block.diskOf(domain, disk);
    const job = domain.blockJobs?.get(target);
    if (job === undefined) throw invalidArgument(`disk ${target} does not have an active block job`);
    job.bandwidth = block.bandwidthBytes(bandwidth, flags);
  },
  domainBlockResize: ({ domain, disk, size, flags }, { node }) => block.resizeDisk(node, node.findActive(domain), disk, flags.includes('bytes') ? size : size * 1_024),

  domainSnapshotCreateXml: ({ domain: ref, xml, flags }, { node }) => {
    const domain = node.find(ref);
    return { name: points.createSnapshot(node, domain, xml, flags).name, domain: domain.handle };
  },
  domainListAllSnapshots: ({ domain: ref, filter }, { node }) => {
    const domain = node.find(ref);
    return points.filtered(domain.snapshots, [...(domain.snapshots?.values() ?? [])], filter, true).map(({ name }) => ({ name, domain: domain.handle }));
  },
  domainSnapshotListAllChildren: ({ snapshot, filter }, { node }) => {
    const domain = node.find(snapshot.domain);
    const point = points.snapshotOf(domain, snapshot.name);
    return points.filtered(domain.snapshots, points.childrenOfPoint(domain.snapshots, point.name, filter.includes('descendants')), filter, false).map(({ name }) => ({ name, domain: domain.handle }));
  },
  domainSnapshotNum: ({ domain: ref, filter }, { node }) => {
    const domain = node.find(ref);
    return points.filtered(domain.snapshots, [...(domain.snapshots?.values() ?? [])], filter, true).length;
  },
  domainSnapshotListNames: ({ domain: ref, filter }, { node }) => {
    const domain = node.find(ref);
    return points.filtered(domain.snapshots, [...(domain.snapshots?.values() ?? [])], filter, true).map(({ name }) => name);
  },
  domainSnapshotLookupByName: ({ domain: ref, name }, { node }) => {
    const domain = node.find(ref);
    return { name: points.snapshotOf(domain, name).name, domain: domain.handle };
  },
  domainSnapshotGetXmlDesc: ({ snapshot }, { node }) => points.pointXml(points.snapshotOf(node.find(snapshot.domain), snapshot.name), true),
  domainHasCurrentSnapshot: ({ domain }, { node }) => node.find(domain).snapshotCurrent !== undefined,
  domainSnapshotCurrent: ({ domain: ref }, { node }) => {
    const domain = node.find(ref);
    if (domain.snapshotCurrent === undefined) throw noSnapshot('the domain does not have a current snapshot');
    return { name: domain.snapshotCurrent, domain: domain.handle };
  },
  domainSnapshotIsCurrent: ({ snapshot }, { node }) => {
    const domain = node.find(snapshot.domain);
    return points.snapshotOf(domain, snapshot.name).name === domain.snapshotCurrent;
  },
  domainSnapshotHasMetadata: ({ snapshot }, { node }) => points.snapshotOf(node.find(snapshot.domain), snapshot.name) !== undefined,
  domainSnapshotGetParent: ({ snapshot }, { node }) => {
    const domain = node.find(snapshot.domain);
    const { parent } = points.snapshotOf(domain, snapshot.name);
    if (parent === undefined) throw noSnapshot(`snapshot '${snapshot.name}' does not have a parent`);
    return { name: parent, domain: domain.handle };
  },
  domainRevertToSnapshot: ({ snapshot, flags }, { node }) => {
    const domain = node.find(snapshot.domain);
    points.revert(node, domain, points.snapshotOf(domain, snapshot.name), flags);
  },
  domainSnapshotDelete: ({ snapshot, flags }, { node }) => {
    const domain = node.find(snapshot.domain);
    points.deleteSnapshot(node, domain, points.snapshotOf(domain, snapshot.name), flags);
  },
  domainCheckpointCreateXml: ({ domain: ref, xml, flags }, { node }) => {
    const domain = node.find(ref);
    return { name: points.createCheckpoint(node, domain, xml, flags).name, domain: domain.handle };
  },
  domainListAllCheckpoints: ({ domain: ref, filter }, { node }) => {
    const domain = node.find(ref);
    return points.filtered(domain.checkpoints, [...(domain.checkpoints?.values() ?? [])], filter, true).map(({ name }) => ({ name, domain: domain.handle }));
  },
  domainCheckpointListAllChildren: ({ checkpoint, filter }, { node }) => {
    const domain = node.find(checkpoint.domain);
    const point = points.checkpointOf(domain, checkpoint.name);
    return points.filtered(domain.checkpoints, points.childrenOfPoint(domain.checkpoints, point.name, filter.includes('descendants')), filter, false).map(({ name }) => ({ name, domain: domain.handle }));
  },
  domainCheckpointLookupByName: ({ domain: ref, name }, { node }) => {
    const domain = node.find(ref);
    return { name: points.checkpointOf(domain, name).name, domain: domain.handle };
  },
  domainCheckpointGetXmlDesc: ({ checkpoint, flags }, { node }) => points.pointXml(points.checkpointOf(node.find(checkpoint.domain), checkpoint.name), !flags.includes('noDomain')),
  domainCheckpointGetParent: ({ checkpoint }, { node }) => {
    const domain = node.find(checkpoint.domain);
    const { parent } = points.checkpointOf(domain, checkpoint.name);
    if (parent === undefined) throw noCheckpoint(`checkpoint '${checkpoint.name}' does not have a parent`);
    return { name: parent, domain: domain.handle };
  },
  domainCheckpointDelete: ({ checkpoint, flags }, { node }) => {
    const domain = node.find(checkpoint.domain);
    points.deleteCheckpoint(domain, points.checkpointOf(domain, checkpoint.name), flags);
  },
  domainBackupBegin: ({ domain: ref, xml, checkpointXml }, { node }) => {
    const domain = node.findActive(ref);
    const request = parsed(xml, 'domainbackup');
    if (domain.job !== undefined) throw operationInvalid('another backup job is already running');
    const before = domain.checkpointCurrent;
    const checkpoint = checkpointXml === null ? undefined : points.createCheckpoint(node, domain, checkpointXml, []);
    try {
      block.beginBackup(node, domain, request, printed(request));
    } catch (error) {
      if (checkpoint !== undefined) {
        domain.checkpoints?.delete(checkpoint.name);
        domain.checkpointCurrent = before;
      }
      throw error;
    }
  },
  domainBackupGetXmlDesc: ({ domain }, { node }) => {
    const { job } = node.find(domain);
    if (job?.xml === undefined) throw noBackup('no domain backup job present');
    return job.xml;
  },

  domainSetUserPassword: ({ domain, user }, { node }) => void guest.agentCommand(node, node.findActive(domain), JSON.stringify({ execute: 'guest-set-user-password', arguments: { username: user ?? '' } })),
  domainGetGuestInfo: ({ domain, kinds }, { node }) => guest.guestInfo(node, node.findActive(domain), kinds),
  domainGetFsinfo: ({ domain: ref }, { node }) => {
    const domain = node.findActive(ref);
    guest.agentOf(domain);
    return guest.guestFilesystems(node, domain).map((one) => ({ mountpoint: one.mountpoint, name: one.name, type: one.type, devices: [one.target] }));
  },
  domainFsfreeze: ({ domain, mountpoints }, { node }) => guest.freeze(node, node.findActive(domain), mountpoints),
  domainFsthaw: ({ domain }, { node }) => guest.thaw(node, node.findActive(domain)),
  domainFstrim: ({ domain, mountpoint }, { node }) => {
    if (mountpoint !== null) throw argumentUnsupported('Specifying mount point is not supported for now');
    guest.agentOf(node.findActive(domain));
  },
  domainGetTime: ({ domain: ref }, { node }) => {
    const domain = node.findActive(ref);
    guest.agentOf(domain);
    const now = guest.guestTime(node, domain);
    return { seconds: Math.floor(now / 1_000), nanoseconds: (Math.floor(now) % 1_000) * 1_000_000 };
  },
  domainSetTime: ({ domain: ref, seconds, nanoseconds, flags }, { node }) => {
    const domain = node.find(ref);
    if (!domain.active) throw operationUnsupported("cannot set time: qemu doesn't support rtc-reset-reinjection command");
    guest.agentOf(domain);
    // The emulated clock is always right.
    if (!flags.includes('sync')) guest.setGuestTime(node, domain, seconds * 1_000 + nanoseconds / 1e6);
  },
  domainAgentSetResponseTimeout: ({ domain, timeout }, { node }) => {
    if (timeout < -2) throw invalidArgument(`guest agent timeout '${timeout}' is less than the minimum '-2'`);
    node.find(domain);
    return 0;
  },
  domainAgentCommand: ({ domain, command }, { node }) => guest.agentCommand(node, node.findActive(domain), command),
  domainMonitorCommand: ({ domain: ref, command, flags }, { node }) => {
    const domain = node.findActive(ref);
    if (flags.includes('hmp')) throw notSupported('the fake has no human monitor', 'qemu');
    domain.tainted = true;
    let asked: { readonly execute?: unknown };
    try {
      asked = JSON.parse(command) as typeof asked;
    } catch {
      throw internal(`cannot parse json ${command}: parse error`);
    }
    if (asked.execute === 'query-status') return JSON.stringify({ return: { status: domain.state === 'running' ? 'running' : 'paused', singlestep: false, running: domain.state === 'running' } });
    if (asked.execute === 'query-version') return JSON.stringify({ return: { qemu: { micro: 22, minor: 2, major: 7 }, package: '' } });
    return JSON.stringify({ error: { class: 'CommandNotFound', desc: `The command ${String(asked.execute)} has not been found` } });
  },

  domainMigrateBegin3Params: ({ domain, parameters, flags }, { node }) => migration.begin(node, node.find(domain), parameters, flags),
  domainMigratePrepare3Params: ({ parameters, cookie, flags }, { node }) => migration.prepare(node, parameters, cookie, flags),
  domainMigratePerform3Params: ({ domain: ref, destination, parameters, cookie, flags }, { node, migrations }) => {
    const domain = node.find(ref);
    if (!flags.includes('peer2peer')) {
      const wait = migration.perform(node, domain, flags);
      return wait === undefined ? { cookie } : wait.then(() => ({ cookie }));
    }
    if (destination === null) throw invalidArgument('dconnuri must not be NULL', 'domain');
    return migration.peerToPeer(node, domain, migrations.find(destination), parameters, flags).then(() => ({ cookie: Buffer.alloc(0) }));
  },
  domainMigrateFinish3Params: ({ parameters, cookie, flags, cancelled }, { node }) => {
    const { domain, cookie: after } = migration.finish(node, parameters, cookie, flags, cancelled);
    return { domain: domain.handle, cookie: after };
  },
  domainMigrateConfirm3Params: ({ domain, flags, cancelled }, { node }) => migration.confirm(node, node.find(domain), flags, cancelled),
  domainMigrateGetMaxSpeed: ({ domain }, { node }) => (settingsOf(node.find(domain), 'migration')['speed'] as number | undefined) ?? 8_796_093_022_207,
  domainMigrateSetMaxSpeed: ({ domain, mibPerSecond }, { node }) => merged(node.find(domain), 'migration', { speed: mibPerSecond }),
  domainMigrateGetMaxDowntime: ({ domain }, { node }) => (settingsOf(node.findActive(domain), 'migration')['downtime'] as number | undefined) ?? 300,
  domainMigrateSetMaxDowntime: ({ domain, downtimeMs }, { node }) => merged(node.findActive(domain), 'migration', { downtime: downtimeMs }),

  connectListAllStoragePools: ({ filter }, { node }) => {
    const has = (word: string) => (filter as readonly string[]).includes(word);
    const pick = (yes: string, no: string, is: boolean) => has(yes) === has(no) || has(yes) === is;
    const types = ['dir', 'fs', 'netfs', 'logical', 'disk', 'iscsi', 'scsi', 'mpath', 'rbd', 'sheepdog', 'gluster', 'zfs', 'vstorage'].filter(has);
    return [...storage.storageOf(node).pools.values()]
      .filter((pool) => pick('active', 'inactive', pool.active) && pick('persistent', 'transient', pool.persistent) && pick('autostart', 'noAutostart', pool.autostart) && (types.length === 0 || types.includes(pool.type)))
      .map(({ name, uuid }) => ({ name, uuid }));
  },
  connectNumOfStoragePools: (_args, { node }) => [...storage.storageOf(node).pools.values()].filter((pool) => pool.active).length,
  connectListStoragePools: (_args, { node }) => [...storage.storageOf(node).pools.values()].filter((pool) => pool.active).map((pool) => pool.name),
  connectNumOfDefinedStoragePools: (_args, { node }) => [...storage.storageOf(node).pools.values()].filter((pool) => !pool.active).length,
  connectListDefinedStoragePools: (_args, { node }) => [...storage.storageOf(node).pools.values()].filter((pool) => !pool.active).map((pool) => pool.name),
  storagePoolLookupByName: ({ name }, { node }) => handle(storage.poolByName(node, name)),
  storagePoolLookupByUuid: ({ uuid }, { node }) => handle(storage.findPool(node, { uuid })),
  storagePoolLookupByTargetPath: ({ path }, { node }) => {
    for (const pool of storage.storageOf(node).pools.values()) if (pool.active && pool.path === path) return handle(pool);
    throw new Refusal(49, 'storage', `Storage pool not found: no storage pool with matching target path '${path}'`);
  },
  storagePoolLookupByVolume: ({ volume }, { node }) => handle(storage.poolByName(node, volume.pool)),
  storagePoolDefineXml: ({ xml }, { node }) => handle(storage.definePool(node, storage.readPool(node, xml))),
  storagePoolCreateXml: ({ xml, flags }, { node }) => {
    const pool = storage.readPool(node, xml);
    const before = storage.storageOf(node).pools.get(pool.uuid);
    if (before?.active === true) throw operationFailed(`pool is already active as '${before.name}'`, 'storage');
    const used = before ?? pool;
    storage.startPool(node, used, flags.length > 0);
    storage.storageOf(node).pools.set(used.uuid, used);
    return handle(used);
  },
  storagePoolBuild: ({ pool }, { node }) => storage.buildPool(node, storage.findPool(node, pool)),
  storagePoolCreate: ({ pool, flags }, { node }) => storage.startPool(node, storage.findPool(node, pool), flags.length > 0),
  storagePoolDestroy: ({ pool: ref }, { node }) => {
    const pool = storage.activePool(storage.findPool(node, ref));
    pool.active = false;
    node.emitPool(pool, 'stopped');
    if (!pool.persistent) storage.storageOf(node).pools.delete(pool.uuid);
  },
  storagePoolDelete: ({ pool: ref }, { node }) => {
    const pool = storage.findPool(node, ref);
    if (pool.active) throw operationInvalid(`storage pool '${pool.name}' is still active`, 'storage');
    if (pool.volumes.size > 0) throw new Refusal(38, 'none', `failed to remove pool '${pool.path}': Directory not empty`);
    pool.built = false;
    node.emitPool(pool, 'deleted');
  },
  storagePoolUndefine: ({ pool: ref }, { node }) => {
    const pool = storage.findPool(node, ref);
    if (pool.active) throw operationInvalid(`storage pool '${pool.name}' is still active`, 'storage');
    storage.storageOf(node).pools.delete(pool.uuid);
    for (const volume of pool.volumes.values()) volume.bytes?.dispose();
    node.emitPool(pool, 'undefined');
  },
  storagePoolRefresh: ({ pool: ref }, { node }) => node.emitPool(storage.activePool(storage.findPool(node, ref)), 'refreshed'),
  storagePoolGetInfo: ({ pool: ref }, { node }) => {
    const pool = storage.findPool(node, ref);
    if (!pool.active) return { state: 'inactive', capacityBytes: 0, allocationBytes: 0, availableBytes: 0 };
    const allocationBytes = storage.allocatedIn(pool);
    return { state: 'running', capacityBytes: pool.capacity, allocationBytes, availableBytes: pool.capacity - allocationBytes };
  },
  storagePoolGetXmlDesc: ({ pool, flags }, { node }) => storage.poolXml(storage.findPool(node, pool), flags.includes('inactive')),
  storagePoolGetAutostart: ({ pool }, { node }) => storage.findPool(node, pool).autostart,
  storagePoolSetAutostart: ({ pool: ref, autostart }, { node }) => {
    const pool = storage.findPool(node, ref);
    if (!pool.persistent) throw internal('pool has no config file', 'storage');
    pool.autostart = autostart;
  },
  storagePoolIsActive: ({ pool }, { node }) => storage.findPool(node, pool).active,
  storagePoolIsPersistent: ({ pool }, { node }) => storage.findPool(node, pool).persistent,
  storagePoolNumOfVolumes: ({ pool }, { node }) => storage.activePool(storage.findPool(node, pool)).volumes.size,
  storagePoolListVolumes: ({ pool }, { node }) => [...storage.activePool(storage.findPool(node, pool)).volumes.keys()],
  storagePoolListAllVolumes: ({ pool }, { node }) => [...storage.activePool(storage.findPool(node, pool)).volumes.values()].map(storage.handleOf),
  storageVolCreateXml: ({ pool, xml }, { node }) => storage.handleOf(storage.createVolume(node, storage.findPool(node, pool), xml)),
  storageVolCreateXmlFrom: ({ pool, xml, from }, { node }) => storage.handleOf(storage.createVolume(node, storage.findPool(node, pool), xml, storage.findVolume(node, from))),
  storageVolLookupByName: ({ pool, name }, { node }) => storage.handleOf(storage.volumeByName(storage.findPool(node, pool), name)),
  storageVolLookupByKey: ({ key }, { node }) => storage.handleOf(storage.volumeByPath(node, key, 'key')),
  storageVolLookupByPath: ({ path }, { node }) => storage.handleOf(storage.volumeByPath(node, path)),
  storageVolDelete: ({ volume: ref }, { node }) => {
    const volume = storage.findVolume(node, ref);
    if (volume.busy) throw operationInvalid(`volume '${volume.name}' is still in use.`, 'storage');
    volume.bytes?.dispose();
    storage.poolByName(node, ref.pool).volumes.delete(volume.name);
  },
  storageVolWipePattern: ({ volume }, { node }) => wipe(storage.findVolume(node, volume)),
  storageVolWipe: ({ volume }, { node }) => wipe(storage.findVolume(node, volume)),
  storageVolGetInfo: ({ volume: ref }, { node }) => {
    const volume = storage.findVolume(node, ref);
    return { kind: 'file', capacityBytes: volume.capacity, allocationBytes: volume.allocation };
  },
  storageVolGetInfoFlags: ({ volume: ref }, { node }) => {
    const volume = storage.findVolume(node, ref);
    return { kind: 'file', capacityBytes: volume.capacity, allocationBytes: volume.allocation };
  },
  storageVolGetXmlDesc: ({ volume }, { node }) => storage.volumeXml(node, storage.findVolume(node, volume)),
  storageVolGetPath: ({ volume }, { node }) => storage.findVolume(node, volume).path,
  storageVolResize: ({ volume, capacityBytes, flags }, { node }) => storage.resizeVolume(storage.findVolume(node, volume), capacityBytes, { delta: flags.includes('delta'), shrink: flags.includes('shrink'), allocate: flags.includes('allocate') }),
  storageVolUpload: ({ volume, offset, length, flags }, { node }) => uploadStream(node, storage.findVolume(node, volume), { offset, length, sparse: flags.includes('sparse') }),
  storageVolDownload: ({ volume, offset, length, flags }, { node }) => downloadStream(storage.findVolume(node, volume), { offset, length, sparse: flags.includes('sparse') }),

  connectListAllNetworks: ({ filter }, { node }) => {
    const has = (word: string) => (filter as readonly string[]).includes(word);
    const pick = (yes: string, no: string, is: boolean) => has(yes) === has(no) || has(yes) === is;
    return [...networks.networksOf(node).values()]
      .filter((network) => pick('active', 'inactive', network.live !== undefined) && pick('persistent', 'transient', network.config !== undefined) && pick('autostart', 'noAutostart', network.autostart))
      .map(handle);
  },
  connectNumOfNetworks: (_args, { node }) => [...networks.networksOf(node).values()].filter((one) => one.live !== undefined).length,
  connectListNetworks: (_args, { node }) => [...networks.networksOf(node).values()].filter((one) => one.live !== undefined).map((one) => one.name),
  connectNumOfDefinedNetworks: (_args, { node }) => [...networks.networksOf(node).values()].filter((one) => one.live === undefined).length,
  connectListDefinedNetworks: (_args, { node }) => [...networks.networksOf(node).values()].filter((one) => one.live === undefined).map((one) => one.name),
  networkLookupByName: ({ name }, { node }) => handle(networks.networkByName(node, name)),
  networkLookupByUuid: ({ uuid }, { node }) => handle(networks.findNetwork(node, { uuid })),
  networkDefineXml: ({ xml }, { node }) => handle(networks.defineNetwork(node, xml)),
  networkDefineXmlFlags: ({ xml }, { node }) => handle(networks.defineNetwork(node, xml)),
  networkCreateXml: ({ xml }, { node }) => handle(networks.createNetwork(node, xml)),
  networkCreateXmlFlags: ({ xml }, { node }) => handle(networks.createNetwork(node, xml)),
  networkCreate: ({ network }, { node }) => networks.startNetwork(node, networks.findNetwork(node, network)),
  networkDestroy: ({ network }, { node }) => networks.stopNetwork(node, networks.findNetwork(node, network)),
  networkUndefine: ({ network }, { node }) => networks.undefineNetwork(node, networks.findNetwork(node, network)),
  networkGetXmlDesc: ({ network, flags }, { node }) => networks.networkXml(networks.findNetwork(node, network), flags.includes('inactive')),
  networkGetBridgeName: ({ network: ref }, { node }) => {
    const network = networks.findNetwork(node, ref);
    const bridge = attributeOf(network.live ?? network.config, 'name', 'bridge');
    if (bridge === undefined) throw internal(`network '${network.name}' does not have a bridge name.`, 'network');
    return bridge;
  },
  networkGetAutostart: ({ network }, { node }) => networks.findNetwork(node, network).autostart,
  networkSetAutostart: ({ network: ref, autostart }, { node }) => {
    const network = networks.findNetwork(node, ref);
    if (network.config === undefined) throw operationInvalid('cannot set autostart for transient network', 'network');
    network.autostart = autostart;
  },
  networkIsActive: ({ network }, { node }) => networks.findNetwork(node, network).live !== undefined,
  networkIsPersistent: ({ network }, { node }) => networks.findNetwork(node, network).config !== undefined,
  networkUpdateOnWire: ({ network, ...update }, { node }) => networks.updateNetwork(networks.findNetwork(node, network), update),
  networkGetDhcpLeases: ({ network: ref, mac }, { node }) => {
    const network = networks.findNetwork(node, ref);
    const bridge = attributeOf(network.live ?? network.config, 'name', 'bridge') ?? '';
    return [...network.leases]
      .filter(([own]) => mac === null || own === mac.toLowerCase())
      .map(([own, lease]) => ({ interface: bridge, expiresAt: Math.floor(lease.since / 1_000) + 3_600, kind: 'ipv4' as const, mac: own, iaid: null, address: lease.address, prefix: lease.prefix, hostname: lease.hostname ?? null, clientId: `01:${own}` }));
  },
  networkListAllPorts: ({ network }, { node }) => {
    networks.findNetwork(node, network);
    return [];
  },
  // As udev's driver does it: the loopback is an interface, and is neither counted nor among the names.
  connectListAllInterfaces: ({ filter }, { node }) => (filter.length === 0 || filter.includes('active') ? [{ name: 'eth0', mac: macOfNode(node) }, { name: 'lo', mac: '00:00:00:00:00:00' }] : []),
  connectNumOfInterfaces: () => 1,
  connectListInterfaces: () => ['eth0'],
  connectNumOfDefinedInterfaces: () => 0,
  connectListDefinedInterfaces: () => [],
  connectListAllNwfilters: () => [],
  connectListAllNwfilterBindings: () => [],
  connectNumOfNwfilters: () => 0,
  connectListNwfilters: () => [],

  connectListAllNodeDevices: ({ filter }, { node }) => {
    const kinds = filter.filter((word) => word !== 'active' && word !== 'inactive');
    if (filter.includes('inactive') && !filter.includes('active')) return [];
    return nodeDevices(node).filter((name) => kinds.length === 0 || kinds.includes(kindOfDevice(name))).map((name) => ({ name }));
  },
  nodeNumOfDevices: ({ capability }, { node }) => nodeDevices(node).filter((name) => capability === null || kindOfDevice(name) === capability).length,
  nodeListDevices: ({ capability }, { node }) => nodeDevices(node).filter((name) => capability === null || kindOfDevice(name) === capability),
  nodeDeviceLookupByName: ({ name }, { node }) => ({ name: nodeDevice(node, name) }),
  nodeDeviceGetParent: ({ name }, { node }) => (nodeDevice(node, name) === 'computer' ? null : 'computer'),
  nodeDeviceIsActive: ({ name }, { node }) => nodeDevice(node, name) !== '',
  nodeDeviceGetXmlDesc: ({ name }, { node }) => {
    nodeDevice(node, name);
    const kind = kindOfDevice(name);
    return printed(element('device', {}, element('name', {}, name), name === 'computer' ? undefined : element('parent', {}, 'computer'), element('capability', { type: kind }, ...(kind === 'net' ? [element('interface', {}, name.split('_')[1] ?? '')] : []))));
  },

  connectListAllSecrets: ({ filter }, { node }) => {
    const has = (word: string) => (filter as readonly string[]).includes(word);
    const pick = (yes: string, no: string, is: boolean) => has(yes) === has(no) || has(yes) === is;
    return [...networks.secretsOf(node).values()]
      .filter((secret) => pick('ephemeral', 'noEphemeral', secret.root.attributes['ephemeral'] === 'yes') && pick('private', 'noPrivate', secret.root.attributes['private'] === 'yes'))
      .map((secret) => secret.handle);
  },
  connectNumOfSecrets: (_args, { node }) => networks.secretsOf(node).size,
  connectListSecrets: (_args, { node }) => [...networks.secretsOf(node).keys()],
  secretLookupByUuid: ({ uuid }, { node }) => networks.findSecret(node, { uuid }).handle,
  secretLookupByUsage: ({ usage, usageId }, { node }) => {
    for (const secret of networks.secretsOf(node).values()) if (secret.handle.usage === usage && secret.handle.usageId === usageId) return secret.handle;
    throw noSecret(`no secret with matching usage '${usageId}'`);
  },
  secretDefineXml: ({ xml }, { node }) => networks.defineSecret(node, xml).handle,
  secretSetValue: ({ secret: ref, value }, { node }) => {
    const secret = networks.findSecret(node, ref);
    secret.value = value;
    node.emitSecret(secret.handle, 'valueChanged');
  },
  secretGetValue: ({ secret: ref }, { node }) => {
    const secret = networks.findSecret(node, ref);
    if (secret.root.attributes['private'] === 'yes') throw new Refusal(65, 'secret', 'Invalid secret: secret is private');
    if (secret.value === undefined) throw noSecret(`secret '${ref.uuid}' does not have a value`);
    return secret.value;
  },
  secretGetXmlDesc: ({ secret }, { node }) => printed(networks.findSecret(node, secret).root),
  secretUndefine: ({ secret: ref }, { node }) => {
    const secret = networks.findSecret(node, ref);
    networks.secretsOf(node).delete(ref.uuid);
    node.emitSecret(secret.handle, 'undefined');
  },
};

const handle = ({ name, uuid }: { readonly name: string; readonly uuid: string }) => ({ name, uuid });

function freeKib(node: FakeNode): number {
  let used = 1_048_576;
  for (const domain of node.domains.values()) if (domain.active) used += stats.memoryCounters(node, domain).rssKib;
  return Math.max(0, node.memoryKib - used);
}

function shutdown(node: FakeNode, domain: FakeDomain, modes: readonly string[]): void {
  if (modes.includes('agent') && !modes.includes('acpi')) guest.agentOf(domain);
  life.askShutdown(node, domain);
}

function wipe(volume: storage.Volume): void {
  volume.bytes?.clear(0, volume.capacity);
}

function abortJob(domain: FakeDomain): void {
  if (domain.job === undefined) throw operationInvalid('no job is active on the domain');
  domain.job.abort?.();
}

function diskCountersOf(node: FakeNode, domain: FakeDomain, path: string): stats.DiskCounters {
  if (path !== '') return stats.diskCounters(node, domain, block.diskOf(domain, path).target);
  const sum = { readRequests: 0n, readBytes: 0n, readNs: 0n, writeRequests: 0n, writeBytes: 0n, writeNs: 0n, flushes: 0n, flushNs: 0n };
  for (const disk of domain.facts.disks) for (const [key, value] of Object.entries(stats.diskCounters(node, domain, disk.target)) as [keyof typeof sum, bigint][]) sum[key] += value;
  return sum;
}

/** By name. That arguments and answers fit their procedure is seen above. */
export const handlers = typed as Readonly<Record<string, (args: unknown, context: CallContext) => unknown>>;
/** The procedures that the fake has. */
export const served: readonly string[] = Object.keys(typed);
