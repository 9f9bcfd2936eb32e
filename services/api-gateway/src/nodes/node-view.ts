/** A node as it is shown: what it is, what is promised of it, and whether it is heard. */
import { type NodePolicy, nodePolicyDefault } from '@chronovirt/contracts/node/node.events';
import type { Use } from '../views.store.ts';
import type { NodeSummary } from './node-summary.projection.ts';

export interface NodeShown extends Omit<NodeSummary, 'credentialKey' | 'credentialKeys' | 'sealKey' | 'policy'> {
  readonly status: 'joining' | 'ready' | 'silent' | 'maintenance';
  readonly statusBecause: string | null;
  readonly policy: NodePolicy;
  /** What may be promised, what is, and what is left. Memory in MiB. Null until the node has said what it is. */
  readonly capacity: {
    readonly vcpus: { readonly total: number; readonly reserved: number; readonly free: number };
    readonly memoryMib: { readonly total: number; readonly reserved: number; readonly free: number };
  } | null;
  /** VMs with capacity on this node. */
  readonly vms: number;
}

const shares = (total: number, reserved: number) => ({ total, reserved, free: Math.max(0, total - reserved) });

export const nodeShown = ({ credentialKey: _credential, credentialKeys: _credentials, sealKey: _seal, ...node }: NodeSummary, use: Use | undefined): NodeShown => {
  const policy = node.policy ?? nodePolicyDefault;
  const { description } = node;
  const capacity = description === null ? null : {
    vcpus: shares(Math.floor((description.cpus * policy.cpuPercent) / 100), use?.vcpus ?? 0),
    memoryMib: shares(Math.floor((Math.max(0, description.memoryMib - policy.memoryReserveMib) * policy.memoryPercent) / 100), use?.memoryMib ?? 0),
  };
  const [status, statusBecause] = node.silentSince !== null ? ['silent', `silent since ${node.silentSince}`] as const
    : description === null ? ['joining', 'it has joined and not come yet'] as const
      : policy.maintenance ? ['maintenance', 'nothing new comes here'] as const
        : ['ready', null] as const;
  return { ...node, status, statusBecause, policy, capacity, vms: use?.holdings ?? 0 };
};
