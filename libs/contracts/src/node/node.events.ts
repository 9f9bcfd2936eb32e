import { z } from 'zod';
import { event, type EventOf } from '../event.ts';
import { BackupTargetId, NodeId, VmId } from '../ids.ts';
import { Json, Name, text } from '../text.ts';
import { ASSIGNABLE_MAX, AssignableDevice, DeviceName } from '../vm/assigned.ts';

/** What not every node can give a VM, as its libvirt says. */
export const NodeFeature = z.enum(['uefi', 'uefi-secure', 'tpm']);
export type NodeFeature = z.infer<typeof NodeFeature>;

/** What a node said of itself when it came. Memory in MiB. */
export const NodeDescription = z.object({
  hypervisor: z.enum(['qemu', 'test', 'simulated']),
  /** 'kvm' only where the CPU has vmx or svm and a guest kernel was seen to run. */
  accel: z.enum(['kvm', 'tcg']),
  /** Why, in words a person can act on. */
  accelBecause: text(300),
  cpus: z.int().min(1),
  memoryMib: z.int().min(1),
  versions: z.record(z.string(), text(100)),
  /** Folders for backups that it sees. One that several nodes see has the same id on each. */
  backupTargets: z.array(z.object({ targetId: BackupTargetId, name: Name })).max(16).optional(),
  features: z.array(NodeFeature).optional(),
  /** Devices of its own that it can lend to a VM. */
  assignable: z.array(AssignableDevice).max(ASSIGNABLE_MAX).optional(),
});
export type NodeDescription = z.infer<typeof NodeDescription>;

/** What an operator decides about a node. Ratios in percent: integers, so that replay is exact. */
export const NodePolicy = z.object({
  /** false: no VM is placed here automatically; by hand it still may be. */
  accepting: z.boolean(),
  /** true: nothing new comes here at all. */
  maintenance: z.boolean(),
  /** Virtual CPUs for each 100 real ones. */
  cpuPercent: z.int().min(1).max(10_000),
  /** Memory promised for each 100 MiB there are beside the reserve. */
  memoryPercent: z.int().min(1).max(1_000),
  /** Memory kept for the host, MiB. */
  memoryReserveMib: z.int().min(0),
  /** Measured use above which no VM is created here; 100 switches the threshold off. */
  memoryUsedPercentMax: z.int().min(1).max(100),
  /** Load average (1 minute) for each CPU, percent, above which no VM is created here. */
  loadPercentMax: z.int().min(1).max(100_000),
});
export type NodePolicy = z.infer<typeof NodePolicy>;

/** What holds until an operator says otherwise: eight virtual CPUs for each real one, no more memory than there is. */
export const nodePolicyDefault: NodePolicy = {
  accepting: true, maintenance: false, cpuPercent: 800, memoryPercent: 100, memoryReserveMib: 512, memoryUsedPercentMax: 100, loadPercentMax: 100_000,
};

export const nodeEvents = {
  NodeRegistered: event(z.object({
    nodeId: NodeId, name: text(253), machineId: text(64),
    /** Public key (nkey) of the node's bus credentials, and the X25519 key that secrets are sealed to. */
    credentialKey: text(100), sealKey: text(100),
  })),
  NodeDescribed: event(NodeDescription),
  /** The agent said hello: commands of earlier sessions are refused from here on. */
  NodeSessionStarted: event(z.object({ session: z.int().min(1) })),
  NodePolicyChanged: event(NodePolicy),
  CapacityReserved: event(z.object({ vmId: VmId, vcpus: z.int(), memoryMib: z.int(), decision: Json })),
  CapacityReleased: event(z.object({ vmId: VmId, vcpus: z.int(), memoryMib: z.int() })),
  /** A VM was made larger, or that was taken back. */
  CapacityResized: event(z.object({ vmId: VmId, vcpus: z.int(), memoryMib: z.int(), before: z.object({ vcpus: z.int(), memoryMib: z.int() }) })),
  /** A device of it is this VM's alone, whether that runs or not. */
  DeviceHeld: event(z.object({ vmId: VmId, device: DeviceName })),
  DeviceReleased: event(z.object({ vmId: VmId, device: DeviceName })),
  /** An operator says that this machine is gone for good: what it held may be given to others. */
  NodeRemoved: event(z.object({ reason: text(300) })),
} as const;
export type NodeEvent = EventOf<typeof nodeEvents>;
