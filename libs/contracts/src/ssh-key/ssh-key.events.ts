import { z } from 'zod';
import { event, type EventOf } from '../event.ts';
import { SshKeyId } from '../ids.ts';
import { Name, text } from '../text.ts';
import { SshKey } from '../vm/cloud-init.ts';

/** Private keys never enter the log. */
export const sshKeyEvents = {
  /** `made`: the pair was made here, and its private half shown once to whoever asked for it. */
  SshKeyRegistered: event(z.object({ keyId: SshKeyId, name: Name, publicKey: SshKey, fingerprint: text(100), made: z.boolean() })),
  SshKeyDeleted: event(z.object({ keyId: SshKeyId })),
} as const;
export type SshKeyEvent = EventOf<typeof sshKeyEvents>;
