/* Waypoints (libs/observability/src/waypoints.ts) around what an agent obeys. */
import type { CommandEnvelope } from '@chronovirt/contracts/command';
import type { Waypoints } from '@chronovirt/observability/waypoints';
import type { Answer } from './answer.ts';
import type { Hypervisor } from './hypervisor.ts';

export type Take = (envelope: CommandEnvelope) => Promise<Answer>;

/** `agent.<type>.before` a command is looked at, and `.after` its answer is in the journal and before it is sent. */
export const heldTake = (take: Take, waypoints: Waypoints): Take => async (envelope) => {
  await waypoints.reach(`agent.${envelope.type}.before`);
  const answer = await take(envelope);
  await waypoints.reach(`agent.${envelope.type}.after`);
  return answer;
};

const EFFECTS = [
  'ensureDisk', 'removeDisk', 'ensureVolume', 'workOnVolume', 'settleVolume', 'publish', 'openPool', 'closePool', 'define', 'configure', 'layer', 'keepInside', 'tidy', 'adopt', 'release', 'start', 'save', 'shutdown', 'destroy', 'remove',
  'backup', 'undoBackup', 'removeBackup', 'restoreDisks', 'prove',
] as const;

/** `agent.<verb>.done` once the node has changed and before the journal knows. */
export const heldHypervisor = <H extends Hypervisor>(hypervisor: H, waypoints: Waypoints): H => {
  const held = { ...hypervisor };
  for (const verb of EFFECTS) {
    const work = hypervisor[verb].bind(hypervisor) as (...args: readonly unknown[]) => Promise<unknown>;
    Object.assign(held, {
      [verb]: async (...args: readonly unknown[]) => {
        const done = await work(...args);
        await waypoints.reach(`agent.${verb}.done`);
        return done;
      },
    });
  }
  return held;
};
