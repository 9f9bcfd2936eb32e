/* Keys by their names, where a VM is to be given them. */
import { hash } from 'node:crypto';
import { SshKeyId } from '@chronovirt/contracts/ids';
import { SshKey } from '@chronovirt/contracts/vm/cloud-init';
import type { Gateway } from '../gateway.ts';
import { ProblemError } from '../problem.http.ts';
import type { SshKeyDocument } from './ssh-key.projection.ts';

export const keyIdOf = (name: string): SshKeyId => `key_${hash('sha256', name, 'hex').slice(0, 32)}`;

/** Each as one line of an authorized_keys file: a name or an id stands for what is known by it, anything else for itself. */
export const linesOf = async ({ views, reading }: Pick<Gateway, 'views' | 'reading'>, references: readonly string[], field: string): Promise<readonly string[]> => Promise.all(references.map(async (reference, index) => {
  if (SshKey.safeParse(reference).success) return reference;
  const id = SshKeyId.safeParse(reference).success ? reference : keyIdOf(reference);
  // Whoever has just registered it uses it at once.
  await reading.own(id);
  const key = await views.document<SshKeyDocument>('ssh_key', id);
  if (key === undefined) throw new ProblemError('key.unknown', { because: { key: reference, field: `${field}.${String(index)}` } });
  return key.publicKey;
}));
