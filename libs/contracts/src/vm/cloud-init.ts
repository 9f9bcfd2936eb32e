/*
 * What a guest is told at its first boot, through cloud-init's NoCloud data source: a small disk with three
 * files (meta-data, user-data, network-config) that the node makes of this.
 *
 * It stands in the log like everything that was wished for, and in it for ever: no place for a password.
 */
import { z } from 'zod';
import { text } from '../text.ts';

/** RFC 1123: labels of letters, digits and dashes, 253 characters in all. */
export const Hostname = z.string().max(253).regex(/^(?!-)[a-zA-Z0-9-]{1,63}(?<!-)(\.(?!-)[a-zA-Z0-9-]{1,63}(?<!-))*$/, 'must be a host name: labels of letters, digits and dashes, parted by dots');

/** One line of an authorized_keys file, without options. */
export const SshKey = z.string().max(8_192).regex(
  /^(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(256|384|521)|sk-ssh-ed25519@openssh\.com|sk-ecdsa-sha2-nistp256@openssh\.com) [A-Za-z0-9+/]+={0,3}( [^\u0000-\u001f\u007f]*)?$/,
  'must be a public key as in an authorized_keys file, such as "ssh-ed25519 AAAA… name"',
);

/** Characters: what NoCloud's user-data may hold is not said anywhere; this is Nova's limit. */
const USER_DATA_MAX = 65_535;

export const CloudInit = z.strictObject({
  hostname: Hostname.optional().describe('Default: the VM\'s name'),
  sshKeys: z.array(SshKey).max(100).default([]).describe('Public keys that may log in as the image\'s default user'),
  userData: text(USER_DATA_MAX).refine((data) => /^(#cloud-config|#!|#include|#cloud-boothook|#upstart-job|#part-handler|## template: jinja|Content-Type: multipart)/.test(data), 'must begin with #cloud-config, #! or another header that cloud-init knows').optional()
    .describe('cloud-init user-data, kept in the log: no secrets'),
  networkConfig: text(USER_DATA_MAX).optional().describe('cloud-init network-config, version 1 or 2, instead of the static addresses that Chronovirt leases'),
}).meta({ id: 'CloudInit' });
export type CloudInit = z.infer<typeof CloudInit>;
