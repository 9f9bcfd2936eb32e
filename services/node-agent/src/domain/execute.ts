/*
 * One verb, from the command to the state it asks for. A verb of several steps pushes an undo after
 * each; when a later step is refused or fails, they run backwards, so that what was refused did nothing.
 */
import type { AgentCommand } from '@chronovirt/contracts/agent/agent.commands';
import { isRefusal } from '../answer.ts';
import type { Refusal } from '../answer.ts';
import type { Done, Hypervisor } from '../hypervisor.ts';

/** Verbs that take something away: obeyed for VMs that live elsewhere, too. */
export const isRemoval = (type: AgentCommand['type']): boolean => type === 'RemoveDomain' || type === 'RemoveDisk' || type === 'DestroyDomain';

/** Verbs after which the VM is no longer one of this node, whatever was sent before them. */
export const endsPlacement = (type: AgentCommand['type']): boolean => type === 'RemoveDomain' || type === 'RemoveDisk';

/** Verbs about a disk alone: their answer says nothing of a domain. */
export const concernsDisk = (type: AgentCommand['type']): boolean => type === 'EnsureDisk' || type === 'RemoveDisk';

/** Nothing when the state is as asked, else why it cannot be. Throws when nobody knows. */
export async function execute({ type, data }: AgentCommand, hypervisor: Hypervisor, signal: AbortSignal): Done {
  switch (type) {
    case 'EnsureDisk': return hypervisor.ensureDisk(data);
    case 'DefineDomain': return defineDomain(data, hypervisor);
    case 'StartDomain': return hypervisor.start(data.vmId);
    case 'ShutdownDomain': return hypervisor.shutdown(data.vmId, { timeoutMs: data.timeoutSeconds * 1_000, force: data.force, signal });
    case 'DestroyDomain': return hypervisor.destroy(data.vmId);
    case 'RebootDomain': return hypervisor.reboot(data.vmId, signal);
    case 'ResetDomain': return hypervisor.reset(data.vmId);
    case 'SuspendDomain': return hypervisor.suspend(data.vmId);
    case 'ResumeDomain': return hypervisor.resume(data.vmId);
    case 'ObserveDomain': return undefined;
    case 'RemoveDomain': {
      // The lease goes last: while the domain might run, its address is in use.
      const refused = await hypervisor.remove(data.vmId);
      if (refused !== undefined || data.network === null || data.mac === null) return refused;
      return hypervisor.removeLease(data.network, data.mac);
    }
    case 'RemoveDisk': return hypervisor.removeDisk(data.vmId, data.volumeId);
  }
}

type DefineDomain = Extract<AgentCommand, { readonly type: 'DefineDomain' }>['data'];

async function defineDomain(plan: DefineDomain, hypervisor: Hypervisor): Done {
  return allOrNothing([
    // A network stays when the domain fails: others may have begun to use it, and it holds nothing.
    { run: () => hypervisor.ensureNetwork(plan.network) },
    {
      run: () => hypervisor.ensureLease(plan.network, { vmId: plan.vmId, name: plan.name, mac: plan.mac, address: plan.address }),
      undo: () => hypervisor.removeLease(plan.network, plan.mac),
    },
    { run: () => hypervisor.define(plan) },
  ]);
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
