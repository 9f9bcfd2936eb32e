/*
 * One verb, from the command to the state it asks for. A verb of several steps pushes an undo after
 * each; when a later step is refused or fails, they run backwards, so that what was refused did nothing.
 */
import type { AgentCommand, BackupReport, PoolFacts, RestoreReport } from '@chronovirt/contracts/agent/agent.commands';
import type { TakenBackup } from '@chronovirt/contracts/backup/backup.events';
import { passwordPurpose } from '@chronovirt/contracts/vm/guest';
import { isRefusal, refuse } from '../answer.ts';
import type { Refusal } from '../answer.ts';
import type { Asked } from '../guest/guest-agent.ts';
import type { Adopted, Configured, Done, DomainPlan, Hypervisor, Layered, Proven, Published } from '../hypervisor.ts';

/** Verbs that take something away: obeyed for VMs that live elsewhere, too. */
export const isRemoval = (type: AgentCommand['type']): boolean => type === 'RemoveDomain' || type === 'RemoveDisk' || type === 'DestroyDomain' || type === 'UndoBackup' || type === 'ReleaseDomain';

/** Verbs after which the VM is no longer one of this node, whatever was sent before them. */
export const endsPlacement = (type: AgentCommand['type']): boolean => type === 'RemoveDomain' || type === 'RemoveDisk' || type === 'ReleaseDomain';

/** Verbs about a disk alone: their answer says nothing of a domain. */
export const concernsDisk = (type: AgentCommand['type']): boolean => ['EnsureDisk', 'RestoreDisks', 'CopyDisks', 'RemoveDisk'].includes(type);

/** Verbs about a pool, which is no VM's. */
const ofPool = ['OpenPool', 'ClosePool', 'LookAtPool'] as const;
export type PoolCommand = Extract<AgentCommand, { readonly type: (typeof ofPool)[number] }>;
export const isOfPool = (command: AgentCommand): command is PoolCommand => (ofPool as readonly string[]).includes(command.type);

/** Verbs about a volume, whoever has it: they have no placement. */
const ofVolume = ['AcceptVolume', 'RemoveVolume', 'EnsureVolume', 'WorkOnVolume', 'PublishVolume', 'SettleVolume'] as const;
export type VolumeCommand = Extract<AgentCommand, { readonly type: (typeof ofVolume)[number] }>;
export const isOfVolume = (command: AgentCommand): command is VolumeCommand => (ofVolume as readonly string[]).includes(command.type);

/** Verbs that name no VM: a pool's, a volume's, a stored backup's and a network's. */
export type DomainlessCommand = PoolCommand | VolumeCommand | Extract<AgentCommand, { readonly type: 'RemoveBackup' | 'RestoreNetwork' }>;
export const isOfNoDomain = (command: AgentCommand): command is DomainlessCommand => isOfPool(command) || isOfVolume(command) || command.type === 'RemoveBackup' || command.type === 'RestoreNetwork';

/** Opens what was sealed to this node for that purpose. Throws when it was not. */
export type Unseal = (sealed: string, purpose: string) => string;

/** What there is to say when the state is as asked, else why it cannot be. Throws when nobody knows. */
export async function execute({ type, data }: AgentCommand, hypervisor: Hypervisor, signal: AbortSignal, unseal?: Unseal, progress?: (report: Omit<BackupReport, 'nodeId'> | Omit<RestoreReport, 'nodeId'>) => void): Promise<Refusal | Adopted | Configured | Layered | Asked | Published | TakenBackup | Proven | PoolFacts | undefined> {
  switch (type) {
    case 'EnsureDisk': return hypervisor.ensureDisk(data, signal);
    case 'DefineDomain': return defineDomain(data, hypervisor);
    case 'ConfigureDomain': return (data.insist ? insisting : configureDomain)(data, hypervisor, signal);
    case 'LayerDomain': return hypervisor.layer(data, data.on, data.live);
    case 'KeepInside': return hypervisor.keepInside(data.vmId, data.volumes, data.as, data.back);
    case 'TidyLayers': return hypervisor.tidy(data, data.steps, signal);
    case 'PublishDisk': return hypervisor.publish(data, signal);
    case 'AdoptDomain': return hypervisor.adopt(data, data.files);
    case 'ReleaseDomain': return hypervisor.release(data.vmId, data.volumes);
    case 'BackupDomain': return hypervisor.backup(data, data, signal, (percent) => progress?.({ vmId: data.vmId, backupId: data.backupId, percent }));
    case 'UndoBackup': return hypervisor.undoBackup(data, data);
    case 'RestoreDisks': return hypervisor.restoreDisks(data, signal, (percent) => progress?.({ vmId: data.vmId, percent }));
    case 'CopyDisks': {
      for (const { from, layer, ...disk } of data.disks) {
        const refused = await hypervisor.ensureVolume({ ...disk, poolId: data.poolId, format: 'qcow2', source: { kind: 'volume', volumeId: from, layer } }, signal);
        if (refused !== undefined) return refused;
      }
      return undefined;
    }
    case 'RemoveBackup': return hypervisor.removeBackup(data);
    case 'ProveDomain': return hypervisor.prove(data.vmId, data.proof, signal);
    case 'StartDomain': return hypervisor.start(data.vmId);
    case 'ShutdownDomain': return hypervisor.shutdown(data.vmId, { timeoutMs: data.timeoutSeconds * 1_000, force: data.force, signal });
    case 'DestroyDomain': return hypervisor.destroy(data.vmId);
    case 'SaveDomain': return hypervisor.save(data.vmId);
    case 'RebootDomain': return hypervisor.reboot(data.vmId, signal);
    case 'ResetDomain': return hypervisor.reset(data.vmId);
    case 'SuspendDomain': return hypervisor.suspend(data.vmId);
    case 'ResumeDomain': return hypervisor.resume(data.vmId);
    case 'AskGuest': return askGuest(data, hypervisor, unseal, signal);
    case 'ObserveDomain':
    case 'TellDomain': return undefined;
    case 'RemoveDomain': {
      // Leases go last: while the domain might run, its addresses are in use.
      let refused = await hypervisor.remove(data.vmId);
      for (const { network, mac } of data.nics) refused ??= await hypervisor.removeLease(network, mac);
      return refused;
    }
    case 'RemoveDisk': {
      for (const volumeId of data.more ?? []) {
        const refused = await hypervisor.removeDisk(data.vmId, volumeId, data.poolId);
        if (refused !== undefined) return refused;
      }
      return hypervisor.removeDisk(data.vmId, data.volumeId, data.poolId);
    }
    case 'RestoreNetwork': return hypervisor.restoreNetwork(data.network);
    // What there is to say is in the journal.
    case 'AcceptVolume': return undefined;
    case 'RemoveVolume': return hypervisor.removeDisk(data.vmId, data.volumeId, data.poolId, data.found);
    case 'OpenPool': return hypervisor.openPool(data);
    case 'ClosePool': return hypervisor.closePool(data.poolId, data.remove);
    case 'LookAtPool': return hypervisor.lookAtPool(data.poolId);
    case 'EnsureVolume': return hypervisor.ensureVolume(data, signal);
    case 'WorkOnVolume': return hypervisor.workOnVolume(data, signal);
    case 'PublishVolume': return hypervisor.publish({ ...data, layer: null }, signal);
    case 'SettleVolume': return hypervisor.settleVolume(data, signal);
  }
}

/** A network stays when the domain fails: others may have begun to use it, and it holds nothing. */
const interfacesOf = ({ vmId, name, nics }: DomainPlan, hypervisor: Hypervisor): readonly Step[] => nics.flatMap(({ network, mac, address }) => [
  { run: () => hypervisor.ensureNetwork(network) },
  { run: () => hypervisor.ensureLease(network, { vmId, name, mac, address }), undo: () => hypervisor.removeLease(network, mac) },
]);

const defineDomain = (plan: DomainPlan, hypervisor: Hypervisor): Done => allOrNothing([...interfacesOf(plan, hypervisor), { run: () => hypervisor.define(plan) }]);

export class NotTakenBack extends Error {
  override readonly name = 'NotTakenBack';
  constructor(vmId: string, { refused, because }: Refusal) { super(`the change of ${vmId} could not be taken back: ${refused} ${JSON.stringify(because ?? {})}`); }
}

/** What is given up while a guest still uses it could be given to another: so a refusal is no end of an undo. */
async function insisting(plan: ConfigureDomain, hypervisor: Hypervisor, signal: AbortSignal): Promise<Refusal | Configured> {
  const outcome = await configureDomain(plan, hypervisor, signal);
  if (isRefusal(outcome) && outcome.refused !== 'domain.gone') throw new NotTakenBack(plan.vmId, outcome);
  return outcome;
}

type ConfigureDomain = Extract<AgentCommand, { readonly type: 'ConfigureDomain' }>['data'];

async function configureDomain(plan: ConfigureDomain, hypervisor: Hypervisor, signal: AbortSignal): Promise<Refusal | Configured> {
  // Of a domain that exists most leases are in use: none is taken back here.
  for (const { run } of interfacesOf(plan, hypervisor)) {
    const refused = await run();
    if (refused !== undefined) return refused;
  }
  const restored = plan.restore === null ? undefined : await hypervisor.restore(plan, signal);
  if (restored !== undefined) return restored;
  const configured = await hypervisor.configure(plan, plan.insist);
  if (isRefusal(configured)) return configured;
  const outcome = plan.hostname === null ? configured : await nameGuest(plan, plan.hostname, configured, hypervisor);
  if (isRefusal(outcome)) return outcome;
  for (const { network, mac } of plan.gone) {
    const refused = await hypervisor.removeLease(network, mac);
    if (refused !== undefined) return refused;
  }
  const powered = plan.restore === null ? undefined : await power(plan.vmId, plan.restore, hypervisor, signal);
  return powered ?? outcome;
}

/** Seconds that a guest is given that somebody started and that shall not run. */
const RESTORED_STOP_MS = 30_000;

/** A domain that exists is in this state. */
async function power(vmId: DomainPlan['vmId'], state: NonNullable<ConfigureDomain['restore']>, hypervisor: Hypervisor, signal: AbortSignal): Done {
  switch (state) {
    case 'running': return hypervisor.start(vmId);
    case 'paused': return (await hypervisor.domain(vmId)).state === 'paused' ? undefined : (await hypervisor.start(vmId)) ?? hypervisor.suspend(vmId);
    case 'stopped': return hypervisor.shutdown(vmId, { timeoutMs: RESTORED_STOP_MS, force: true, signal });
  }
}

/**
 * A guest that runs is told its name by its agent. Where that cannot be, cloud-init does it at the next start;
 * where nobody would ever do it, it is refused. A guest that does not run needs no telling.
 */
async function nameGuest({ vmId, seed, insist }: ConfigureDomain, hostname: string, configured: Configured, hypervisor: Hypervisor): Promise<Refusal | Configured> {
  const told = await hypervisor.askGuest(vmId, { kind: 'hostname', hostname });
  if (!isRefusal(told)) return configured;
  if (seed === null && !insist) return told;
  return told.refused === 'domain.not_running' ? configured : { pending: [...configured.pending, 'hostname'] };
}

async function askGuest({ vmId, request }: Extract<AgentCommand, { readonly type: 'AskGuest' }>['data'], hypervisor: Hypervisor, unseal: Unseal | undefined, signal: AbortSignal): Promise<Refusal | Asked> {
  if (request.kind !== 'password') return hypervisor.askGuest(vmId, request);
  const { user, sealed, offline } = request;
  let password: string;
  try {
    if (unseal === undefined) return refuse('node.no_seal_key', { vmId });
    password = unseal(sealed, passwordPurpose(vmId, user));
  } catch {
    // It was sealed for another key: the same text will never open.
    return refuse('node.cannot_unseal', { vmId });
  }
  if (offline === true) return (await hypervisor.setOfflinePassword(vmId, user, password, signal)) ?? { method: 'offline' };
  return hypervisor.askGuest(vmId, { kind: 'password', user, password });
}

interface Step {
  readonly run: () => Done;
  readonly undo?: () => Done;
}

/** Runs steps in order; when one is refused or fails, undoes those before it, last first. */
export async function allOrNothing(steps: readonly Step[]): Done {
  const undos: (() => Done)[] = [];
  const takeBack = async (): Promise<void> => {
    for (const undo of undos.reverse()) await undo();
  };
  for (const { run, undo } of steps) {
    let outcome: Refusal | undefined;
    try {
      outcome = await run();
    } catch (fault) {
      // The command comes again and finds what is left; so a failing undo must not hide the first fault.
      await takeBack().catch(() => undefined);
      throw fault;
    }
    if (isRefusal(outcome)) {
      await takeBack();
      return outcome;
    }
    if (undo !== undefined) undos.push(undo);
  }
  return undefined;
}
