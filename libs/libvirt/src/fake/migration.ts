/*
 * Migration between fakes. A source finds its destination by the URI that it is given: by the socket in
 * it, or by the host's name. Peer to peer, the source does it all in one call; directly, the client makes
 * the five calls, and the cookies carry which migration is meant.
 *
 *   source                                destination
 *   begin
 *                                         prepare: STARTED migrated, and it stands still
 *   perform: iterations, SUSPENDED migrated
 *                                         finish: (DEFINED), RESUMED migrated
 *   confirm: STOPPED migrated, job completed
 */
import { parsed } from './definition.ts';
import type { Definition } from './definition.ts';
import { readDefinition, remove, run, stop } from './life.ts';
import { startedNetworks } from './networks.ts';
import { FakeDomain } from './node.ts';
import type { FakeNode } from './node.ts';
import { invalidArgument, noDomain, operationAborted, operationFailed, operationInvalid, internal, Refusal, systemError } from './refusal.ts';

/** What a migration sees of another daemon. */
export interface Reachable {
  readonly node: FakeNode;
  readonly down: boolean;
  /** Paths where it listens. */
  readonly sockets: readonly string[];
}

/** The daemons that reach each other. */
export class Migrations {
  readonly #daemons = new Set<Reachable>();

  add(daemon: Reachable): void {
    this.#daemons.add(daemon);
  }
  remove(daemon: Reachable): void {
    this.#daemons.delete(daemon);
  }
  /** Throws what libvirt says when there is nobody. */
  find(uri: string): Reachable {
    let url: URL;
    try {
      url = new URL(uri);
    } catch {
      throw invalidArgument(`unable to parse URI ${uri}`);
    }
    const socket = url.searchParams.get('socket');
    for (const daemon of this.#daemons) {
      if (daemon.down) continue;
      if (socket !== null ? daemon.sockets.includes(socket) : daemon.node.hostname === url.hostname) return daemon;
    }
    if (socket !== null) throw systemError(`Failed to connect socket to '${socket}': No such file or directory`, 'rpc');
    throw systemError(`unable to connect to server at '${url.hostname}:${url.port === '' ? '16509' : url.port}': No route to host`, 'rpc');
  }
}

export interface MigrateParameters {
  readonly destination_name?: string | undefined;
  readonly destination_xml?: string | undefined;
  readonly persistent_xml?: string | undefined;
}
type Flags = readonly string[];

/** What the two sides tell each other through the client. */
interface Cookie {
  readonly from: string;
  readonly uuid: string;
  readonly host: string;
  readonly xml: string;
}
const cookieOf = (cookie: Cookie): Buffer => Buffer.from(JSON.stringify(cookie));
function readCookie(bytes: Uint8Array): Cookie {
  try {
    const cookie = JSON.parse(Buffer.from(bytes).toString('utf8')) as Partial<Cookie>;
    if (typeof cookie.uuid === 'string' && typeof cookie.host === 'string' && typeof cookie.from === 'string' && typeof cookie.xml === 'string') return cookie as Cookie;
  } catch {
    // Said below.
  }
  throw internal('the migration cookie is malformed');
}

export function begin(node: FakeNode, domain: FakeDomain, parameters: MigrateParameters, flags: Flags): { readonly cookie: Buffer; readonly xml: string } {
  const offline = flags.includes('offline');
  if (!domain.active && !offline) throw operationInvalid('domain is not running');
  if (offline && domain.persistent === undefined) throw operationInvalid('offline migration cannot handle transient domains');
  if (domain.job !== undefined || (domain.blockJobs?.size ?? 0) > 0) throw operationInvalid(domain.blockJobs?.size ? 'domain has active block job' : 'another migration job is already running');
  if ((domain.snapshots?.size ?? 0) > 0 && flags.includes('undefineSource')) throw operationInvalid(`cannot migrate domain with ${domain.snapshots?.size} snapshots`);
  if (flags.includes('nonSharedDisk') && flags.includes('nonSharedInc')) throw invalidArgument('both non-shared disk and incremental migration requested');
  if (parameters.destination_xml !== undefined) {
    const wanted = readDefinition(node, parameters.destination_xml).facts;
    if (wanted.uuid !== domain.uuid) throw new Refusal(67, 'qemu', `unsupported configuration: Target domain uuid ${wanted.uuid} does not match source ${domain.uuid}`);
  }
  const xml = parameters.destination_xml ?? domain.definition.xml;
  return { cookie: cookieOf({ from: domain.name, uuid: domain.uuid, host: node.uuid, xml }), xml };
}

export function prepare(node: FakeNode, parameters: MigrateParameters, cookieIn: Uint8Array, flags: Flags): { readonly cookie: Buffer; readonly uri: string } {
  const cookie = readCookie(cookieIn);
  if (cookie.host === node.uuid) throw internal(`Attempt to migrate guest to the same host ${node.uuid}`);
  parsed(cookie.xml, 'domain');
  const definition = renamed(readDefinition(node, cookie.xml), parameters.destination_name, node);
  const { facts } = definition;
  const before = node.domains.get(facts.uuid);
  if (before?.active === true) throw operationFailed(`domain '${before.name}' is already active`, 'domainConfiguration');
  const byName = node.domainsByName.get(facts.name);
  if (byName !== undefined && byName.uuid !== facts.uuid) throw operationFailed(`domain '${facts.name}' already exists with uuid ${byName.uuid}`, 'domainConfiguration');
  if (!flags.includes('offline')) {
    const domain = before ?? new FakeDomain(facts.uuid, facts.name);
    startedNetworks(node, domain, definition);
    node.domains.set(domain.uuid, domain);
    node.domainsByName.set(domain.name, domain);
    run(node, domain, definition);
    node.setState(domain, 'paused', 'migration');
    node.lifecycle(domain, 'started', 'migrated');
  }
  return { cookie: cookieOf(cookie), uri: `tcp:${node.hostname}:49152` };
}

function renamed(definition: Definition, name: string | undefined, node: FakeNode): Definition {
  return name === undefined || name === definition.facts.name ? definition : readDefinition(node, definition.xml.replace(/<name>[^<]*<\/name>/, () => `<name>${name.replace(/[<&]/g, '')}</name>`));
}

const pageBytes = 4_096;

function jobStats(domain: FakeDomain, elapsed: number, operation: number): Record<string, unknown> {
  const total = domain.facts.memoryKibMax * 1_024;
  const processed = Math.floor(total / 8);
  return {
    operation, time_elapsed: elapsed, time_elapsed_net: elapsed, downtime: Math.min(20, elapsed), downtime_net: Math.min(15, elapsed), setup_time: 1,
    data_total: total, data_processed: processed, data_remaining: 0, memory_total: total, memory_processed: processed, memory_remaining: 0,
    memory_bps: Math.floor((processed * 1_000) / Math.max(1, elapsed)), memory_constant: Math.floor((total - processed) / pageBytes), memory_normal: Math.floor(processed / pageBytes), memory_normal_bytes: processed,
    memory_dirty_rate: 0, memory_iteration: 2, memory_postcopy_requests: 0, memory_page_size: pageBytes, disk_total: 0, disk_processed: 0, disk_remaining: 0,
  };
}

/** The memory goes over. Ends with the domain standing still at the source. */
export function perform(node: FakeNode, domain: FakeDomain, flags: Flags): Promise<void> | undefined {
  if (!domain.active) {
    if (flags.includes('offline')) return undefined;
    throw operationInvalid('domain is not running');
  }
  if (domain.job !== undefined) throw operationInvalid('another migration job is already running');
  const startedAt = node.clock.now();
  if (!flags.includes('live') && domain.state === 'running') {
    node.setState(domain, 'paused', 'migration');
    node.lifecycle(domain, 'suspended', 'paused');
  }
  return new Promise((resolve, reject) => {
    node.emitDomain('migrationIteration', domain, { iteration: 1 });
    const cancel = node.clock.after(node.jobMs, () => {
      domain.job = undefined;
      if (!domain.active) return reject(operationFailed('domain is no longer running'));
      if (domain.state === 'running') {
        node.setState(domain, 'paused', 'migration');
        node.lifecycle(domain, 'suspended', 'migrated');
      }
      node.emitDomain('migrationIteration', domain, { iteration: 2 });
      domain.jobLast = { type: 'completed', stats: jobStats(domain, node.clock.now() - startedAt, 5) };
      resolve();
    });
    domain.job = {
      operation: 'migrationOut', startedAt, total: domain.facts.memoryKibMax * 1_024,
      abort: () => {
        cancel();
        domain.job = undefined;
        domain.jobLast = { type: 'cancelled', stats: jobStats(domain, node.clock.now() - startedAt, 5) };
        if (domain.active && domain.state === 'paused' && domain.reason === 'migration') goOn(node, domain);
        reject(operationAborted('migration out job: canceled by client'));
      },
    };
  });
}

function goOn(node: FakeNode, domain: FakeDomain): void {
  node.setState(domain, 'running', 'migrationCanceled');
  node.lifecycle(domain, 'resumed', 'migrated');
}

export function finish(node: FakeNode, parameters: MigrateParameters, cookieIn: Uint8Array, flags: Flags, cancelled: boolean): { readonly domain: FakeDomain; readonly cookie: Buffer } {
  const cookie = readCookie(cookieIn);
  const offline = flags.includes('offline');
  if (parameters.destination_name === undefined) throw noDomain('missing domain name');
  let domain = node.domains.get(cookie.uuid);
  if (cancelled) {
    if (domain?.active === true && domain.reason === 'migration') stop(node, domain, 'failed', 'failed');
    throw operationFailed('migration was cancelled');
  }
  if (domain === undefined || !(domain.active || offline)) {
    if (!offline) throw noDomain(`no domain with matching name '${cookie.from}'`);
    const definition = renamed(readDefinition(node, cookie.xml), parameters.destination_name, node);
    domain ??= new FakeDomain(definition.facts.uuid, definition.facts.name);
    node.domains.set(domain.uuid, domain);
    node.domainsByName.set(domain.name, domain);
    domain.persistent = definition;
    node.lifecycle(domain, 'defined', 'added');
    return { domain, cookie: cookieOf(cookie) };
  }
  if (flags.includes('persistDest')) {
    const added = domain.persistent === undefined;
    domain.persistent = parameters.persistent_xml === undefined ? domain.live : readDefinition(node, parameters.persistent_xml);
    node.lifecycle(domain, 'defined', added ? 'added' : 'updated');
  }
  if (flags.includes('paused')) {
    node.setState(domain, 'paused', 'user');
    node.lifecycle(domain, 'suspended', 'paused');
  } else {
    node.setState(domain, 'running', 'migrated');
    node.lifecycle(domain, 'resumed', 'migrated');
  }
  domain.jobLast = { type: 'completed', stats: jobStats(domain, node.clock.now() - domain.startedAt, 4) };
  return { domain, cookie: cookieOf(cookie) };
}

export function confirm(node: FakeNode, domain: FakeDomain, flags: Flags, cancelled: boolean): void {
  if (cancelled) {
    if (domain.state === 'paused' && domain.reason === 'migration') goOn(node, domain);
    return;
  }
  const stats = domain.jobLast?.stats;
  const undefine = flags.includes('undefineSource');
  if (undefine) domain.persistent = undefined;
  if (domain.active) stop(node, domain, 'migrated', 'migrated');
  else if (undefine) remove(node, domain);
  if (stats !== undefined && !flags.includes('offline')) node.emitDomain('jobCompleted', domain, { stats });
}

/** One call for all of it. */
export async function peerToPeer(node: FakeNode, domain: FakeDomain, destination: Reachable, given: MigrateParameters, flags: Flags): Promise<void> {
  const parameters = { ...given, destination_name: given.destination_name ?? domain.name };
  const begun = begin(node, domain, parameters, flags);
  const there = () => {
    if (destination.down) throw systemError("unable to connect to server: client socket is closed", 'rpc');
    return destination.node;
  };
  const prepared = prepare(there(), parameters, begun.cookie, flags);
  try {
    await perform(node, domain, flags);
    finish(there(), parameters, prepared.cookie, flags, false);
  } catch (error) {
    if (!destination.down) {
      try {
        finish(destination.node, parameters, prepared.cookie, flags, true);
      } catch {
        // It says that it was cancelled, which is known here.
      }
    }
    confirm(node, domain, flags, true);
    throw error;
  }
  confirm(node, domain, flags, false);
}
