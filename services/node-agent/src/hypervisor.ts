/*
 * What the agent needs of a hypervisor, and nothing of how it does it: libvirt and the simulated one
 * stand behind this. Every verb brings about a state and may be repeated; what is so already is done.
 *
 * A verb answers nothing (it is so), or a refusal (it cannot be so, and asking again will not help).
 * It throws a fault when the world failed: then nobody knows, and the command is delivered again.
 */
import type { AgentCommand, PoolFacts } from '@chronovirt/contracts/agent/agent.commands';
import type { Proof } from '@chronovirt/contracts/backup/backup';
import type { TakenBackup } from '@chronovirt/contracts/backup/backup.events';
import type { BootResult } from '@chronovirt/contracts/boot-job/boot-job';
import type { Difference, ForeignDomain } from '@chronovirt/contracts/drift/drift.events';
import type { NetworkId, PoolId, VmId, VolumeId } from '@chronovirt/contracts/ids';
import type { NetworkPlan } from '@chronovirt/contracts/network/network.events';
import type { NodeDescription } from '@chronovirt/contracts/node/node.events';
import type { InnerName, LayerStep } from '@chronovirt/contracts/vm/snapshot';
import type { DomainState, Pending } from '@chronovirt/contracts/vm/vm.events';
import type { Refusal } from './answer.ts';
import type { Asked, GuestAction } from './guest/guest-agent.ts';
import type { PoolFolder } from './pool/pool-files.ts';

type DataOf<T extends AgentCommand['type']> = Extract<AgentCommand, { readonly type: T }>['data'];

/** The disk of EnsureDisk. Size in GiB. */
export type DiskPlan = Pick<DataOf<'EnsureDisk'>, 'volumeId' | 'poolId' | 'imageFile' | 'imageFormat' | 'sizeGib' | 'full'>;
/** The volume of EnsureVolume, and the work of WorkOnVolume and SettleVolume. Size in GiB. */
export type VolumePlan = Omit<DataOf<'EnsureVolume'>, 'nodeId'>;
export type VolumeWorkPlan = Omit<DataOf<'WorkOnVolume'>, 'nodeId'>;
export type PublishPlan = Pick<DataOf<'PublishDisk'>, 'operationId' | 'volumeId' | 'layer'>;
/** What the control plane has of it. */
export interface Published {
  readonly sha256: string;
  readonly sizeBytes: number;
  readonly virtualBytes: number;
}
/** The domain of DefineDomain and ConfigureDomain. */
export type DomainPlan = DataOf<'DefineDomain'>;

export interface Lease {
  readonly vmId: VmId;
  readonly name: string;
  readonly mac: string;
  readonly address: string;
}

/** A domain of ours as it is now. `absent` (generation 0) when there is none. */
export interface SeenDomain {
  readonly vmId: VmId;
  /** From the domain's own metadata. */
  readonly generation: number;
  readonly state: DomainState;
  /** The hypervisor's word for why: 'booted', 'destroyed', … */
  readonly reason: string;
}

export interface Pool {
  readonly poolId: PoolId;
  readonly name: string;
  readonly capacityGib: number;
  readonly usedGib?: number;
  /** false: its folder is not there. */
  readonly active?: boolean;
  /** An operator made it. */
  readonly made?: boolean;
}

/** The pool of OpenPool. */
export type PoolPlan = Omit<DataOf<'OpenPool'>, 'nodeId'>;

/** Percentages of what the node has; load is the one-minute average for each CPU. */
export interface Usage {
  readonly memoryUsedPercent: number;
  readonly loadPercent: number;
}

export interface Shutdown {
  readonly timeoutMs: number;
  /** Cut the power when the time is over, instead of refusing 'domain.still_running'. */
  readonly force: boolean;
  /** Ends the waiting with 'command.cancelled': whoever cancelled it wants the queue of this VM. */
  readonly signal: AbortSignal;
}

export interface Watcher {
  /** Something happened to this domain: look at it. */
  readonly changed: (vmId: VmId) => void;
  /** It may not be what it was, although it is in the same state. */
  readonly touched?: (vmId: VmId) => void;
  /** Something happened to a domain that is not ours, or to a network. */
  readonly strange?: () => void;
  /** Something may have happened to any: look at all. */
  readonly missed: () => void;
}

export type Power = 'running' | 'paused' | 'stopped';

/** What the node was last told of a domain (domain/told.ts). */
export interface Told {
  /** Without what cloud-init is told and what an adopted one was defined as: nobody compares that, and it is large. */
  readonly plan: DomainPlan;
  /** What of a domain that runs waits for a start. */
  readonly pending: readonly Pending[];
  readonly power: Power;
  /** A verb that makes it another domain was begun and not answered. */
  readonly unsettled: boolean;
  /** The same for one that starts or stops it. */
  readonly unsure: boolean;
  /** The run of the machine in which it was told so; undefined: an older agent did not know. */
  readonly boot?: string;
}

export interface Compared {
  readonly state: Exclude<DomainState, 'absent'>;
  readonly reason: string;
  readonly differences: readonly Difference[];
}

/** A domain that was not told to be here. With a `vmId` when it carries our words. */
export interface Stranger {
  readonly vmId: VmId | null;
  readonly generation: number;
  readonly domain: ForeignDomain;
}

export type Done = Promise<Refusal | undefined>;

/** What of a domain that runs is not yet as it should be. */
export interface Configured {
  readonly pending: readonly Pending[];
}

/** How a domain went over to new layers. */
export interface Layered {
  /** Its guest was known to hold its file systems still for that moment. */
  readonly frozen: boolean;
}

export interface Adopted {
  /** What it is defined as, without secrets; left out where more would be missing than those. */
  readonly definition?: string;
}

export type AdoptedFile = DataOf<'AdoptDomain'>['files'][number];

/** What a new layer stands on. */
export type LayerBase = DataOf<'LayerDomain'>['on'][number];

/** Of BackupDomain. */
export type BackupWork = Pick<DataOf<'BackupDomain'>, 'backupId' | 'targetId' | 'wants' | 'parent' | 'replaces' | 'machine'>;
/** Of RestoreDisks. */
export type RestorePlan = Pick<DataOf<'RestoreDisks'>, 'vmId' | 'poolId' | 'ofVm' | 'targetId' | 'chain' | 'disks'>;
/** Told now and then how much of something is done, in percent. */
export type Progress = (percent: number) => void;

/** What was seen of a machine that came up, and how long after somebody began to look. */
export interface Proven {
  readonly criterion: Proof['criterion'];
  readonly seconds: number;
  readonly says: string;
}
export type BackupRef = Omit<DataOf<'RemoveBackup'>, 'nodeId'>;

export interface Hypervisor {
  describe(): Promise<NodeDescription>;
  usage(): Promise<Usage>;
  pools(): Promise<readonly Pool[]>;

  /** Every domain of ours; others are none of our business. */
  domains(): Promise<readonly SeenDomain[]>;
  domain(vmId: VmId): Promise<SeenDomain>;
  /** What of a domain is not as it was told to be; undefined when there is none. */
  compare(told: Told): Promise<Compared | undefined>;
  /** Every domain but these. */
  strangers(besides: ReadonlySet<VmId>): Promise<readonly Stranger[]>;
  /** What of each network is not as it was made. */
  compareNetworks(plans: readonly NetworkPlan[]): Promise<ReadonlyMap<NetworkId, readonly Difference[]>>;
  /** Everything that lies in the folders of pools. */
  files(): Promise<readonly PoolFolder[]>;
  /** Tells of changes until the returned function is called. */
  watch(watcher: Watcher): () => void;

  /** A folder is a pool of this node. */
  openPool(pool: PoolPlan): Promise<Refusal | PoolFacts>;
  /** It is none any more; with `remove` nothing of ours is left there but disks. */
  closePool(poolId: PoolId, remove: boolean): Done;
  lookAtPool(poolId: PoolId): Promise<Refusal | PoolFacts>;
  /** The signal ends the waiting for its image. */
  ensureDisk(disk: DiskPlan, signal?: AbortSignal): Done;
  /** Refused while the VM runs with it. null: no VM has it. Without a pool it is looked for in all. */
  removeDisk(vmId: VmId | null, volumeId: VolumeId, poolId: PoolId | undefined, found?: string): Done;
  /** A volume that stands alone; what it is copied from is not written meanwhile. */
  ensureVolume(volume: VolumePlan, signal: AbortSignal): Done;
  workOnVolume(volume: VolumeWorkPlan, signal: AbortSignal): Done;
  /** Whole, as it was before that work, or wiped if that was begun. */
  settleVolume(volume: VolumeWorkPlan, signal: AbortSignal): Done;

  /** Defined and started; it is never taken down while the agent knows of a use. */
  ensureNetwork(plan: NetworkPlan): Done;
  /** The DHCP server of the network gives this address to this MAC, and to no other. */
  ensureLease(plan: NetworkPlan, lease: Lease): Done;
  removeLease(plan: NetworkPlan, mac: string): Done;
  /** What was done to it by hand is taken back; guests that run stay on it. */
  restoreNetwork(plan: NetworkPlan): Done;

  define(plan: DomainPlan): Done;
  /** What was done to a domain by hand and `configure` does not take back is taken back; it is defined again when it was gone. */
  restore(plan: DomainPlan, signal: AbortSignal): Done;
  /** A domain that somebody else made is one of ours from now on; what runs is not touched. */
  adopt(plan: DomainPlan, files: readonly AdoptedFile[]): Promise<Refusal | Adopted>;
  /** It is not any more, and runs on. */
  release(vmId: VmId, volumes: readonly VolumeId[]): Done;
  /**
   * A domain that exists, running or not, is as the plan says, as far as that can be while it runs. One that was given
   * another file by hand is refused; to `back`, which takes a change back, it is as it was if nothing else differs.
   */
  configure(plan: DomainPlan, back: boolean): Promise<Refusal | Configured>;
  /** Each disk of the plan has its layer, new, on what is named. A domain that runs is refused unless `live`. */
  layer(plan: DomainPlan, on: readonly LayerBase[], live: boolean): Promise<Refusal | Layered>;
  /** What these disks of a domain that is stopped hold is kept inside of them; with `back` they hold, then, what was kept under that name. */
  keepInside(vmId: VmId, volumes: readonly VolumeId[], as: InnerName, back: InnerName | null): Done;
  /** Layers, and what is kept inside of disks, are merged or gone; the domain, if there is one, is as the plan says. Refused only when it is cancelled. */
  tidy(plan: DomainPlan, steps: readonly LayerStep[], signal: AbortSignal): Done;
  /** What a layer and all below it hold is brought to the control plane, as a file that stands alone. */
  publish(plan: PublishPlan, signal: AbortSignal): Promise<Refusal | Published>;
  /** What the disks of a domain hold at one moment lies whole at a target; it runs on, or stays stopped. */
  backup(plan: DomainPlan, work: BackupWork, signal: AbortSignal, progress?: Progress): Promise<Refusal | TakenBackup>;
  /** Neither at its target nor being taken. Never refused. */
  undoBackup(plan: DomainPlan, backup: BackupRef): Done;
  removeBackup(backup: BackupRef): Done;
  /** Disks that hold what a backup holds, once its files were seen to be what they were. */
  restoreDisks(plan: RestorePlan, signal: AbortSignal, progress?: Progress): Done;
  /** A domain that was started has come up, by this criterion. */
  prove(vmId: VmId, proof: Proof, signal: AbortSignal): Promise<Refusal | Proven>;
  start(vmId: VmId): Done;
  /** With force, what was saved is given up. */
  shutdown(vmId: VmId, how: Shutdown): Done;
  /** Not running, its memory kept; `start` goes on from there. */
  save(vmId: VmId): Done;
  /** Not running; absent is fine. */
  destroy(vmId: VmId): Done;
  /** The guest restarts itself; the virtual machine's process stays. */
  reboot(vmId: VmId, signal: AbortSignal): Done;
  /** The reset button. */
  reset(vmId: VmId): Done;
  suspend(vmId: VmId): Done;
  resume(vmId: VmId): Done;
  /** What a guest says of what it was to run at its boot; empty when it has said nothing. */
  bootResults(vmId: VmId): Promise<readonly BootResult[]>;
  /** Nothing of these runs, nor of their secrets, is left for a guest to read. */
  wipeRuns(vmId: VmId, runs: NonNullable<DomainPlan['bootRuns']>): Promise<void>;
  /** Asks the guest's own agent, for seconds only. */
  askGuest(vmId: VmId, action: GuestAction): Promise<Refusal | Asked>;
  /** Written into the disks of one that does not run. Never logged, stored or sent on. */
  setOfflinePassword(vmId: VmId, user: string, password: string, signal: AbortSignal): Done;
  /** Neither running nor defined; absent is fine. */
  remove(vmId: VmId): Done;
}
