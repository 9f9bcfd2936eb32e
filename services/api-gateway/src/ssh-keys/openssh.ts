/*
 * Ed25519 keys as OpenSSH writes them. Its own format for private keys (PROTOCOL.key in its sources), because
 * versions before 9.6 read no other of this kind.
 */

/** Bytes with their count before them (RFC 4251, 5). */
const counted = (bytes: Uint8Array | string): Buffer => {
  const content = Buffer.from(bytes as Uint8Array);
  const count = Buffer.alloc(4);
  count.writeUInt32BE(content.length);
  return Buffer.concat([count, content]);
};

const KIND = 'ssh-ed25519';
/** The cipher `none` counts in blocks of so many bytes. */
const BLOCK_BYTES = 8;

const blobOf = (publicKey: Uint8Array): Buffer => Buffer.concat([counted(KIND), counted(publicKey)]);

/** One line of an authorized_keys file. `publicKey` has 32 bytes. */
export const publicLine = (publicKey: Uint8Array, comment: string): string => `${KIND} ${blobOf(publicKey).toString('base64')} ${comment}`;

/** A private key file without a passphrase. `seed` has 32 bytes; `check` is any number, by which a wrong passphrase would be noticed. */
export const privateFile = ({ publicKey, seed, comment, check }: { readonly publicKey: Uint8Array; readonly seed: Uint8Array; readonly comment: string; readonly check: number }): string => {
  const checks = Buffer.alloc(8);
  checks.writeUInt32BE(check, 0);
  checks.writeUInt32BE(check, 4);
  const secret = Buffer.concat([checks, counted(KIND), counted(publicKey), counted(Buffer.concat([seed, publicKey])), counted(comment)]);
  const padding = Buffer.from(Array.from({ length: (BLOCK_BYTES - (secret.length % BLOCK_BYTES)) % BLOCK_BYTES }, (_, index) => index + 1));
  const one = Buffer.alloc(4);
  one.writeUInt32BE(1);
  const file = Buffer.concat([Buffer.from('openssh-key-v1\0'), counted('none'), counted('none'), counted(''), one, counted(blobOf(publicKey)), counted(Buffer.concat([secret, padding]))]);
  return `-----BEGIN OPENSSH PRIVATE KEY-----\n${(file.toString('base64').match(/.{1,70}/g) ?? []).join('\n')}\n-----END OPENSSH PRIVATE KEY-----\n`;
};

/** What is hashed for the fingerprint of a line of an authorized_keys file. */
export const blobOfLine = (line: string): Buffer => Buffer.from(line.split(' ')[1] ?? '', 'base64');
