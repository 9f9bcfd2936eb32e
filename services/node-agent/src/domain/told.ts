/*
 * What this node was last told of a domain: the only thing that what is there can differ from. A verb that
 * was begun and not answered may have changed anything, so until it is answered nothing is compared.
 */
import { DomainPlan } from '@chronovirt/contracts/agent/agent.commands';
import type { AgentCommand } from '@chronovirt/contracts/agent/agent.commands';
import type { VolumeId } from '@chronovirt/contracts/ids';
import type { DomainPlan as TargetedPlan, Power, Told } from '../hypervisor.ts';
import type { KnownFile } from '../pool/pool-files.ts';

/** Whether it is known what the domain should be. After a verb that was taken back half-way, it is not. */
export const isKnown = (told: Told | undefined): told is Told => told?.unsettled === false && !told.unsure;

/** The domain that a verb speaks of as a whole; undefined for the others. */
export function planIn({ data }: AgentCommand): TargetedPlan | undefined {
  if (!('disks' in data) || !('vcpus' in data)) return undefined;
  const { nodeId, vmId, generation } = data;
  const plan = DomainPlan.parse(data);
  const { definition: _, ...adopted } = plan.adopted ?? { macs: [] };
  return { nodeId, vmId, generation, ...plan, seed: null, adopted: plan.adopted === null ? null : adopted, ...(plan.bootRuns === undefined ? {} : { bootRuns: plan.bootRuns.map((run) => ({ ...run, script: '' })) }) };
}

/** Verbs after which a domain is in the state in which it shall be. */
const POWER_VERBS: ReadonlySet<string> = new Set(['StartDomain', 'ShutdownDomain', 'DestroyDomain', 'RebootDomain', 'ResetDomain', 'SuspendDomain', 'ResumeDomain', 'SaveDomain', 'RestoreDomain']);

export const isPowerVerb = (type: AgentCommand['type']): boolean => POWER_VERBS.has(type);

/** The state in which a domain shall be after a verb that left it in `state`. `before` is undefined when nobody knows. */
export const powerAfter = (type: AgentCommand['type'], before: Power | undefined, state: string): Power =>
  (before !== undefined && !POWER_VERBS.has(type) ? before : state === 'running' || state === 'paused' ? state : 'stopped');

/** Volumes that a verb is about: while it is under way their files are nobody's to judge. */
export function volumesIn({ data }: AgentCommand): readonly VolumeId[] {
  const lists: readonly (readonly { readonly volumeId: VolumeId }[])[] = ['disks' in data ? data.disks : [], 'steps' in data ? data.steps : [], 'files' in data ? data.files : []];
  return [...lists.flatMap((list) => list.map(({ volumeId }) => volumeId)), ...('volumeId' in data ? [data.volumeId] : []), ...('more' in data ? data.more ?? [] : []), ...('volumes' in data ? data.volumes : [])];
}

/** Verbs that make files of volumes, rewrite or remove them. A guest that is only changed writes the same ones. */
const REMAKING: ReadonlySet<string> = new Set(['EnsureDisk', 'RestoreDisks', 'CopyDisks', 'RemoveDisk', 'RemoveVolume', 'EnsureVolume', 'WorkOnVolume', 'SettleVolume', 'AcceptVolume', 'AdoptDomain', 'ReleaseDomain', 'LayerDomain', 'TidyLayers'] satisfies AgentCommand['type'][]);

/** Volumes of which nobody knows what lies there, from when the verb is begun until it is answered. */
export const remadeBy = (command: AgentCommand): readonly VolumeId[] => (REMAKING.has(command.type) ? volumesIn(command) : []);

/** Whether a file is another after the verb, or gone: what it was is worth nothing. */
export function remakes(command: AgentCommand, { volumeId, name }: KnownFile): boolean {
  const isLayer = (one: { readonly volumeId: VolumeId; readonly layer?: string | null }): boolean => one.volumeId === volumeId && typeof one.layer === 'string' && name.startsWith(`${volumeId}.${one.layer}.`);
  if (command.type === 'LayerDomain') return command.data.disks.some(isLayer);
  if (command.type === 'TidyLayers') return command.data.steps.some(isLayer);
  return remadeBy(command).includes(volumeId);
}
