/*
 * What is asked of a running guest, and done by its guest agent: the tenant's program, so that it says it
 * did something is all there is to know. A password can also be written into the disks of one that is stopped.
 *
 * A password crosses sealed to the key of the node that runs the VM (libs/messaging/src/seal.ts) and is
 * written nowhere in clear: what stands here of it, and so in the log, only that node can open.
 */
import { z } from 'zod';
import { NodeId, type VmId } from '../ids.ts';
import { text } from '../text.ts';
import { SshKey } from './cloud-init.ts';

/** A user of the guest. */
export const GuestUser = z.string().regex(/^[A-Za-z_][A-Za-z0-9_.-]{0,31}$/, 'must be the name of a user: 1 to 32 letters, digits, dots, dashes or underscores, and begin with a letter or underscore');

/** How a password gets into a guest. */
export const PasswordMethod = z.enum(['guest-agent', 'next-boot', 'offline']);

/** The body of POST /v1/vms/:id/password. */
export const SetPasswordBody = z.strictObject({
  user: GuestUser,
  password: text(128).min(8).regex(/^[^\u0000-\u001f\u007f]*$/, 'must not hold control characters').optional().describe('Without it one is made, and shown in the answer to this request, once'),
  method: PasswordMethod.optional().describe('Default: the guest agent of a VM that runs, where one is there; else at its next boot, by cloud-init; else offline, which is into the disks of a VM that is stopped'),
}).meta({ id: 'SetPassword' });
export type SetPasswordBody = z.infer<typeof SetPasswordBody>;

/** The body of POST and DELETE /v1/vms/:id/ssh-keys. */
export const SshKeysBody = z.strictObject({
  user: GuestUser, keys: z.array(z.union([SshKey, text(100).min(1).regex(/^[^ ]+$/)])).min(1).max(100).describe('Lines as in an authorized_keys file, or ids or names of keys'),
}).meta({ id: 'SshKeys' });
export type SshKeysBody = z.infer<typeof SshKeysBody>;

/** The body of PUT /v1/vms/:id/screen-password. */
export const ScreenPasswordBody = z.strictObject({
  password: z.string().regex(/^[\x20-\x7e]{6,8}$/, 'must be 6 to 8 printable ASCII characters: RFB knows no more').optional().describe('Without it one is made, and shown in the answer to this request, once'),
}).meta({ id: 'ScreenPassword' });

/** `sealed` for the node `nodeId`. */
export const ScreenPassword = z.object({ nodeId: NodeId, sealed: text(1_000) });
export type ScreenPassword = z.infer<typeof ScreenPassword>;

export const GuestRequest = z.discriminatedUnion('kind', [
  /** `sealed` for the node `nodeId`. */
  z.object({ kind: z.literal('password'), user: GuestUser, nodeId: NodeId, sealed: text(1_000), offline: z.literal(true).optional() }),
  z.object({ kind: z.literal('add-ssh-keys'), user: GuestUser, keys: z.array(SshKey).min(1).max(100) }),
  z.object({ kind: z.literal('remove-ssh-keys'), user: GuestUser, keys: z.array(SshKey).min(1).max(100) }),
]);
export type GuestRequest = z.infer<typeof GuestRequest>;

/** How a request was carried out. */
export const GuestMethod = z.enum(['guest-agent', 'offline']);
export type GuestMethod = z.infer<typeof GuestMethod>;

/** The same for that of a screen. */
export const screenPurpose = (vmId: VmId): string => `screen ${vmId}`;

/** What a password is sealed for: it opens for no other VM and no other user. */
export const passwordPurpose = (vmId: VmId, user: string): string => `password ${vmId} ${user}`;
