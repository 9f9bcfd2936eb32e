import { z } from 'zod';
import { command, type CommandOf } from '../command.ts';
import { SshKeyId } from '../ids.ts';
import { Name, text } from '../text.ts';
import { SshKey } from '../vm/cloud-init.ts';

/** The body of POST /v1/keys. */
export const RegisterSshKeyBody = z.strictObject({
  name: Name.describe('Unique in the installation'),
  publicKey: SshKey.optional().describe('Without one a pair is made (Ed25519), and its private half is shown in the answer to this request, once'),
}).meta({ id: 'RegisterSshKey' });

export const sshKeyCommands = {
  RegisterSshKey: command('gateway', 'keyId', z.object({ keyId: SshKeyId, name: Name, publicKey: SshKey, fingerprint: text(100), made: z.boolean() })),
  DeleteSshKey: command('gateway', 'keyId', z.object({ keyId: SshKeyId })),
} as const;
export type SshKeyCommand = CommandOf<typeof sshKeyCommands>;
