/* What stands around a libvirt: a real machine (machine.os.ts), or nothing but memory (../simulated/fake-machine.os.ts). */
import type { Seed } from '@chronovirt/contracts/agent/agent.commands';
import type { VmId } from '@chronovirt/contracts/ids';
import type { Libvirt } from '@chronovirt/libvirt/connection';
import type { RemoteTarget, Target } from '@chronovirt/libvirt/target';
import type { Refusal } from '../answer.ts';
import type { DomainPlan, Hypervisor, Usage, Pool } from '../hypervisor.ts';
import type { HostNet } from '../network/host-net.os.ts';
import type { PoolFolders } from '../pool/pool-folders.os.ts';
import type { BackupStore } from '../backup/backup-store.os.ts';
import type { Disks } from './qemu-img.os.ts';

export interface Saves {
  pathOf(vmId: VmId): string;
  /** There is one, it is whole, and none of these disks was written since: it still goes with them. */
  holds(vmId: VmId, disks: () => Promise<readonly string[]>): Promise<boolean>;
  drop(vmId: VmId): Promise<void>;
}

export interface LibvirtHost {
  /** `test`: libvirt's test driver. `simulated`: our own fake daemon, which does what QEMU's driver does, without guests. */
  readonly driver: 'qemu' | 'test' | 'simulated';
  /** For people: where its libvirt is. */
  readonly says: string;
  readonly target: Target | RemoteTarget;
  readonly accel: Pick<Awaited<ReturnType<Hypervisor['describe']>>, 'accel' | 'accelBecause'>;
  readonly disks: Disks;
  readonly backups: BackupStore;
  mediaPathOf(file: string): string;
  /** A refusal when there is no such medium, and none can be fetched. */
  mediaMissing(file: string): Promise<Refusal | undefined>;
  /** Where the disk is from which cloud-init learns: one for each instance and what it is to run at its next boot. */
  seedPathOf(seed: Pick<Seed, 'instanceId'>, runs: DomainPlan['bootRuns']): string;
  /** Makes the disk from which cloud-init learns, and says where it is. Refused when secrets are not for this node. */
  writeSeed(plan: DomainPlan & { readonly seed: Seed }): Promise<string | Refusal>;
  /** Of a VM's disks of that kind only these stay. */
  keepSeeds(vmId: VmId, paths: readonly string[]): Promise<void>;
  /** What the disk had of these runs is not in it any more; whoever has it open finds it so. */
  wipeRuns(vmId: VmId, runs: NonNullable<DomainPlan['bootRuns']>): Promise<void>;
  /** Where QEMU writes what a guest says of its runs, and the end of what it has written; empty when there is nothing. */
  bootReportPathOf(vmId: VmId): string;
  bootReportOf(vmId: VmId): Promise<string>;
  /** Unix socket of a VM's screen. */
  screenSocketOf(vmId: VmId): string;
  /** Where a VM's serial console is written. */
  consoleLogOf(vmId: VmId): string;
  /** Where the memory of a VM that does not run is kept: one file each, whole or not there. */
  readonly saves: Saves;
  /** Makes the folders and gives QEMU what it needs of them. Called before anything else, with a connection. */
  prepare(libvirt: Libvirt): Promise<void>;
  /** What a VM that is gone left: sockets, logs. */
  forgetFiles(vmId: VmId): Promise<void>;
  /** The machine's own figures, where libvirt's are not to be used. */
  readonly figures?: () => Promise<{ readonly cpus: number; readonly memoryMib: number; readonly kernel: string }>;
  publish: Hypervisor['publish'];
  readonly poolFolders: Pick<PoolFolders, 'open' | 'close' | 'look' | 'files'>;
  /** The machine's network, where libvirt's is a real one. */
  readonly net?: HostNet;
  /** Fetched images that nobody needs go. */
  readonly sweepImages?: () => Promise<readonly string[]>;
  usage(): Promise<Usage>;
  pools(): Promise<readonly Pool[]>;
}
