/*
 * What the agent must still know after it was killed: which command it answered how, and the newest
 * generation of every VM. Losing it costs one hello, since the welcome names every generation again;
 * until then no command is taken.
 *
 * Its functions answer at once. That is on purpose: between looking something up and recording it
 * nothing else can happen, so there is no lock.
 */
import type { VmId, VolumeId } from '@chronovirt/contracts/ids';
import type { Answer } from '../answer.ts';
import type { Told } from '../hypervisor.ts';
import { type KnownFile, pathOf } from '../pool/pool-files.ts';

export interface KnownVm {
  /** A volume, too, may be known to be gone. */
  readonly vmId: VmId | VolumeId;
  /** The newest placement that this node has heard of. */
  readonly generation: number;
  /** False: that placement is another node's, or the VM is deleted. */
  readonly here: boolean;
}

export interface Journal {
  recall(commandId: string): Answer | undefined;
  /** The first answer to a command stays; a later one is ignored. On disk when this returns. */
  record(commandId: string, answer: Answer): void;
  vm(vmId: VmId | VolumeId): KnownVm | undefined;
  vms(): readonly KnownVm[];
  /** On disk when this returns. A generation never goes back. */
  remember(vm: KnownVm): void;
  /** What this node was last told of a domain. */
  told(vmId: VmId): Told | undefined;
  tolds(): readonly Told[];
  /** Kept when the process dies; on disk as soon as the next answer is. */
  tell(told: Told): void;
  forget(vmId: VmId): void;
  /** Files of volumes as they should be. Kept as what domains were told is. */
  files(): readonly KnownFile[];
  know(file: KnownFile): void;
  unknow(file: KnownFile): void;
  /** Volumes that a verb was begun to make or take away, and has not been answered. */
  unsettled(): readonly VolumeId[];
  unsettle(volumeId: VolumeId): void;
  settle(volumeId: VolumeId): void;
  /** What a welcome said, in one piece. */
  adopt(session: number, vms: readonly KnownVm[]): void;
  /** The last session; 0 before the first. */
  session(): number;
}

/** What is known after hearing `heard`: the newer generation counts; of the same one, what was heard last. */
export const newest = (known: KnownVm | undefined, heard: KnownVm): KnownVm => (known !== undefined && known.generation > heard.generation ? known : heard);

/** For simulated nodes, whose domains live no longer than the process either; and for the simulation, which keeps it across crashes. */
export function createMemoryJournal(answersMax = 100_000): Journal {
  const answers = new Map<string, Answer>();
  const vms = new Map<VmId | VolumeId, KnownVm>();
  const tolds = new Map<VmId, Told>();
  const files = new Map<string, KnownFile>();
  const unsettled = new Set<VolumeId>();
  let lastSession = 0;
  const remember = (vm: KnownVm): void => void vms.set(vm.vmId, newest(vms.get(vm.vmId), vm));
  return {
    recall: (commandId) => answers.get(commandId),
    record: (commandId, answer) => {
      if (answers.has(commandId)) return;
      answers.set(commandId, answer);
      if (answers.size > answersMax) for (const oldest of answers.keys()) { answers.delete(oldest); break; }
    },
    vm: (vmId) => vms.get(vmId),
    told: (vmId) => tolds.get(vmId),
    tolds: () => [...tolds.values()],
    tell: (told) => void tolds.set(told.plan.vmId, told),
    forget: (vmId) => void tolds.delete(vmId),
    files: () => [...files.values()],
    know: (file) => void files.set(pathOf(file), file),
    unknow: (file) => void files.delete(pathOf(file)),
    unsettled: () => [...unsettled],
    unsettle: (volumeId) => void unsettled.add(volumeId),
    settle: (volumeId) => void unsettled.delete(volumeId),
    vms: () => [...vms.values()],
    remember,
    adopt: (session, heard) => {
      lastSession = session;
      heard.forEach(remember);
    },
    session: () => lastSession,
  };
}
