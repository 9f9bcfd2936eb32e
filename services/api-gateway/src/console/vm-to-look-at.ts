/* Which node shows a VM, as far as the gateway knows; the node itself has the last word. */
import type { NodeId } from '@chronovirt/contracts/ids';
import { refuse, type Refusal } from '@chronovirt/decider/decider';
import type { VmSummary } from '../vms/vm-summary.projection.ts';

/** Takes the VM's document as it is shown, if there is one. Refuses when there is nothing to look at now. */
export const vmToLookAt = (vmId: string, shown: string | undefined): NodeId | Refusal => {
  if (shown === undefined) return refuse('vm.not_found', { vmId });
  const { status, observed, nodeId } = JSON.parse(shown) as Pick<VmSummary, 'status' | 'observed' | 'nodeId'>;
  // It was seen, and is not any more.
  if (status === 'unknown' && observed !== null) return refuse('node.silent', { nodeId });
  if (nodeId === null || (observed?.state !== 'running' && observed?.state !== 'paused')) return refuse('vm.not_running', { state: observed?.state ?? status });
  return nodeId as NodeId;
};
