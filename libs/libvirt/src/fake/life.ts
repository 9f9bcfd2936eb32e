/*
 * A domain's life, with the events in the order in which QEMU's driver sends them.
 *
 *   absent ─define─▶ shut off ─start─▶ running ⇄ paused
 *                       ▲                 │ shutdown (the guest decides), destroy, crash, save
 *                       └─────────────────┘        (a transient domain is gone then)
 */
import { findChains } from './block.ts';
import type { Definition } from './definition.ts';
import { domainDefinition } from './definition.ts';
import { startedNetworks } from './networks.ts';
import { FakeDomain } from './node.ts';
import type { FakeNode } from './node.ts';
import { operationFailed, operationInvalid, systemError } from './refusal.ts';
import { fileSize } from './storage.ts';

export function readDefinition(node: FakeNode, xml: string): Definition {
  return domainDefinition(xml, { uuid: () => node.uuidNew(), mac: (index) => node.macNew(index), emulator: '/usr/bin/qemu-system-x86_64' });
}

/** One name, one UUID. The domain that the definition is for, if it is known. */
function known(node: FakeNode, { facts }: Definition): FakeDomain | undefined {
  const byUuid = node.domains.get(facts.uuid);
  const byName = node.domainsByName.get(facts.name);
  if (byUuid !== undefined && byUuid.name !== facts.name) throw operationFailed(`domain '${byUuid.name}' is already defined with uuid ${facts.uuid}`, 'domainConfiguration');
  if (byName !== undefined && byName.uuid !== facts.uuid) throw operationFailed(`domain '${facts.name}' already exists with uuid ${byName.uuid}`, 'domainConfiguration');
  return byUuid;
}

function added(node: FakeNode, { facts }: Definition): FakeDomain {
  const domain = new FakeDomain(facts.uuid, facts.name);
  node.domains.set(domain.uuid, domain);
  node.domainsByName.set(domain.name, domain);
  return domain;
}

export function remove(node: FakeNode, domain: FakeDomain): void {
  node.domains.delete(domain.uuid);
  node.domainsByName.delete(domain.name);
}

export function define(node: FakeNode, definition: Definition): FakeDomain {
  const before = known(node, definition);
  const domain = before ?? added(node, definition);
  domain.persistent = definition;
  node.lifecycle(domain, 'defined', before === undefined ? 'added' : 'updated');
  return domain;
}

export interface StartOptions {
  readonly paused?: boolean;
  readonly because?: 'booted' | 'restored' | 'fromSnapshot';
}

export function createTransient(node: FakeNode, definition: Definition, options: StartOptions): FakeDomain {
  const before = known(node, definition);
  if (before?.active === true) throw operationFailed(`domain is already active as '${before.name}'`, 'domainConfiguration');
  const domain = before ?? added(node, definition);
  try {
    begin(node, domain, definition, options);
  } catch (error) {
    if (before === undefined) remove(node, domain);
    throw error;
  }
  return domain;
}

export function start(node: FakeNode, domain: FakeDomain, options: StartOptions): void {
  if (domain.active) throw operationInvalid('domain is already running');
  const saved = domain.managedSave;
  const restored = saved === undefined ? options : { because: 'restored' as const, paused: options.paused ?? saved === 'paused' };
  begin(node, domain, domain.persistent as Definition, restored);
  domain.managedSave = undefined;
}

function begin(node: FakeNode, domain: FakeDomain, definition: Definition, { paused = false, because = 'booted' }: StartOptions): void {
  for (const disk of definition.facts.disks) {
    const path = disk.chain[0];
    const missing = path !== undefined && (node.isFile === undefined ? node.strictFiles && fileSize(node, path) === undefined : !node.isFile(path));
    if (missing) throw systemError(`Cannot access storage file '${path}': No such file or directory`, 'storage');
  }
  startedNetworks(node, domain, definition);
  run(node, domain, definition);
  findChains(node, domain);
  if (paused) {
    node.setState(domain, 'paused', 'user');
    node.lifecycle(domain, 'started', because);
    node.lifecycle(domain, 'suspended', because === 'booted' ? 'paused' : because);
    return;
  }
  node.setState(domain, 'running', because);
  if (because === 'booted') {
    node.lifecycle(domain, 'resumed', 'unpaused');
    node.lifecycle(domain, 'started', 'booted');
  } else {
    // What was saved comes up standing still, and goes on then.
    node.lifecycle(domain, 'started', because);
    node.lifecycle(domain, 'resumed', 'fromSnapshot');
  }
}

/** It has a process now; what it does is the caller's to say. */
export function run(node: FakeNode, domain: FakeDomain, definition: Definition): void {
  domain.live = definition;
  domain.id = node.idNew();
  domain.vnetFirst = node.vnetsNew(definition.facts.interfaces.filter((one) => one.kind !== 'user').length);
  domain.cpuNs = 0;
  domain.startedAt = node.clock.now();
  domain.agentConnected = false;
  if (definition.facts.agent) {
    node.emitDomain('agentLifecycle', domain, { state: 'disconnected', reason: 'domainStarted' });
    boots(node, domain);
  }
}

/** The guest comes up, and its agent with it. */
function boots(node: FakeNode, domain: FakeDomain): void {
  const { agent, bootMs } = node.behaviourOf(domain);
  if (!agent || !domain.facts.agent) return;
  domain.timers.push(
    node.clock.after(bootMs, () => {
      if (!domain.active || domain.agentConnected) return;
      domain.agentConnected = true;
      node.emitDomain('agentLifecycle', domain, { state: 'connected', reason: 'channel' });
    }),
  );
}

export type StopDetail = 'shutdown' | 'destroyed' | 'crashed' | 'migrated' | 'saved' | 'failed' | 'fromSnapshot';

/** Its process is gone. */
export function stop(node: FakeNode, domain: FakeDomain, detail: StopDetail, reason: string): void {
  for (const cancel of domain.timers.splice(0)) cancel();
  for (const job of domain.blockJobs?.values() ?? []) {
    job.cancel();
    for (const over of job.whenOver) over();
  }
  domain.blockJobs = undefined;
  domain.job?.abort?.();
  domain.job = undefined;
  node.setState(domain, 'shutoff', reason);
  domain.id = -1;
  domain.live = undefined;
  domain.agentConnected = false;
  domain.frozen = false;
  domain.hung = false;
  domain.tainted = false;
  domain.clockAheadMs = 0;
  domain.consoleTaken?.();
  node.lifecycle(domain, 'stopped', detail);
  if (domain.persistent === undefined) remove(node, domain);
  for (const one of [...(domain.waiting ?? [])]) one.release(operationFailed('domain is no longer running'));
}

export function destroy(node: FakeNode, domain: FakeDomain): void {
  // QEMU is asked to end first, and says so; one that hangs says nothing.
  if (!domain.hung) node.lifecycle(domain, 'shutdown', 'host');
  stop(node, domain, 'destroyed', 'destroyed');
}

/** The guest is asked. */
export function askShutdown(node: FakeNode, domain: FakeDomain): void {
  const { shutdownMs } = node.behaviourOf(domain);
  // A guest that stands still hears nothing until it goes on; one that ignores it, nothing ever.
  if (shutdownMs === 'never') return;
  domain.timers.push(node.clock.after(shutdownMs, () => powerOff(node, domain)));
}

/** The guest turns itself off. */
export function powerOff(node: FakeNode, domain: FakeDomain): void {
  if (domain.state !== 'running' || domain.hung) return;
  if (domain.facts.onPoweroff === 'restart') return reset(node, domain);
  node.lifecycle(domain, 'shutdown', 'guest');
  stop(node, domain, 'shutdown', 'shutdown');
}

export function reset(node: FakeNode, domain: FakeDomain): void {
  for (const cancel of domain.timers.splice(0)) cancel();
  if (domain.agentConnected) {
    domain.agentConnected = false;
    node.emitDomain('agentLifecycle', domain, { state: 'disconnected', reason: 'channel' });
  }
  domain.frozen = false;
  node.emitMonitor(domain, 'RESET', '{"guest":false,"reason":"host-qmp-system-reset"}');
  node.emitDomain('reboot', domain, {});
  boots(node, domain);
}

export function askReboot(node: FakeNode, domain: FakeDomain): void {
  const { shutdownMs } = node.behaviourOf(domain);
  if (shutdownMs === 'never') return;
  domain.timers.push(node.clock.after(shutdownMs, () => domain.state === 'running' && reset(node, domain)));
}

export function suspend(node: FakeNode, domain: FakeDomain): void {
  if (domain.state === 'paused') return;
  node.setState(domain, 'paused', 'user');
  node.emitMonitor(domain, 'STOP', null);
  node.lifecycle(domain, 'suspended', 'paused');
}

export function resume(node: FakeNode, domain: FakeDomain): void {
  if (domain.state === 'running') throw operationInvalid('domain is already running');
  node.setState(domain, 'running', 'unpaused');
  node.emitMonitor(domain, 'RESUME', null);
  node.lifecycle(domain, 'resumed', 'unpaused');
}

/** `panic`: the guest's kernel has given up, and told. `process`: its QEMU has died. */
export function crash(node: FakeNode, domain: FakeDomain, how: 'panic' | 'process'): void {
  if (!domain.active) throw operationInvalid('domain is not running');
  if (how === 'process') return stop(node, domain, 'failed', 'crashed');
  node.setState(domain, 'crashed', 'panicked');
  node.lifecycle(domain, 'crashed', 'panicked');
  if (domain.facts.onCrash === 'preserve') return;
  stop(node, domain, 'crashed', 'crashed');
  if (domain.facts.onCrash === 'restart' && domain.persistent !== undefined) start(node, domain, {});
}

/** Into a file: its definition too, so that it comes back even where it is not known any more. */
export function saveTo(node: FakeNode, domain: FakeDomain, path: string, then: 'running' | 'paused' | undefined): void {
  node.saves.set(path, { definition: domain.live as Definition, paused: (then ?? (domain.state === 'paused' ? 'paused' : 'running')) === 'paused' });
  rest(node, domain);
}

export function restoreFrom(node: FakeNode, path: string, then: 'running' | 'paused' | undefined): void {
  const saved = node.saves.get(path);
  if (saved === undefined) throw systemError(`Failed to open file '${path}': No such file or directory`);
  createTransient(node, saved.definition, { because: 'restored', paused: then === undefined ? saved.paused : then === 'paused' });
}

export function save(node: FakeNode, domain: FakeDomain, then: 'running' | 'paused' | undefined): void {
  if (domain.persistent === undefined) throw operationInvalid('cannot do managed save for transient domain');
  const state = then ?? (domain.state === 'paused' ? 'paused' : 'running');
  domain.managedSave = state;
  rest(node, domain);
}

function rest(node: FakeNode, domain: FakeDomain): void {
  if (domain.state === 'running') {
    node.setState(domain, 'paused', 'save');
    node.lifecycle(domain, 'suspended', 'paused');
  }
  stop(node, domain, 'saved', 'saved');
}
