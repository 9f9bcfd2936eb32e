/* What a VM is given to run: the job as it is now, and its variables as whoever asks has them. */
import { type BootJobWish, type BootRun, bootSecretPurpose, type BootValue, fitsType } from '@chronovirt/contracts/boot-job/boot-job';
import type { BootJobId, BootRunId, NodeId, VmId } from '@chronovirt/contracts/ids';
import type { BadField } from '../problem.ts';

export interface Job extends BootJobWish {
  readonly id: string;
  readonly revision: number;
  readonly system: boolean;
}

/** Of the node that a VM is on. `seal` throws when the node has told no key. */
export interface SealingNode {
  readonly id: NodeId;
  seal(secret: string, purpose: string): string;
}

/** Every variable that is wrong, by its path; its value is in no sentence. */
export function badVariables({ variables }: Pick<Job, 'variables'>, given: Readonly<Record<string, BootValue>>, node: SealingNode | undefined, path: string): readonly BadField[] {
  const known = new Map(variables.map((variable) => [variable.name, variable]));
  const unknown = Object.keys(given).filter((name) => !known.has(name)).map((name): BadField => ({ path: `${path}.${name}`, code: 'unknown_field', message: `is none of the job's variables, which are ${[...known.keys()].join(', ') || 'none'}` }));
  return [...unknown, ...variables.flatMap(({ name, type, required, secret }): readonly BadField[] => {
    const value = given[name];
    if (value === undefined) return required ? [{ path: `${path}.${name}`, code: 'required', message: 'must be given' }] : [];
    if (!fitsType(type, value)) return [{ path: `${path}.${name}`, code: 'invalid_type', message: type === 'string' ? 'must be a text' : type === 'integer' ? 'must be a whole number' : 'must be true or false' }];
    return secret && node === undefined ? [{ path: `${path}.${name}`, code: 'not_yet', message: 'is secret, and sealed to the node of the VM, which has none yet: give it the job when it has' }] : [];
  })];
}

/** Only with variables that are not bad. */
export function bootRunOf({ id, name, revision, system, script, timeoutSeconds, variables }: Job, given: Readonly<Record<string, BootValue>>, vmId: VmId, runId: BootRunId, node: SealingNode | undefined): BootRun {
  const set = variables.flatMap((variable): BootRun['variables'] => {
    const value = given[variable.name] ?? variable.default;
    if (value === undefined) return [];
    if (!variable.secret) return [{ name: variable.name, value: String(value) }];
    if (node === undefined) throw new Error('a secret needs a node');
    return [{ name: variable.name, sealed: node.seal(String(value), bootSecretPurpose(vmId, runId, variable.name)) }];
  });
  return { runId, jobId: id as BootJobId, name, revision, system, script, timeoutSeconds, nodeId: set.some((one) => 'sealed' in one) && node !== undefined ? node.id : null, variables: set };
}

/** By what two requests are told apart: secrets stand in it by their names alone. */
export const sameRun = ({ variables }: Pick<Job, 'variables'>, job: string, given: Readonly<Record<string, BootValue>>): object => {
  const secret = new Set(variables.filter((variable) => variable.secret).map(({ name }) => name));
  return { job, variables: Object.fromEntries(Object.entries(given).map(([name, value]) => [name, secret.has(name) ? null : value])) };
};
