/*
 * A secret on its way to one node: whoever carries it (bus, log, backups of both) sees only what that node
 * can open.
 *
 *     version 1 │ sender's public key, 32 bytes │ ciphertext │ tag, 16 bytes          all of it base64url
 *
 * Each text gets a key pair of its own (X25519, RFC 7748); what it and the node's key agree on becomes, by
 * HKDF-SHA256 over both public keys, a key for AES-256-GCM and its nonce, used this once. The sender's half
 * is forgotten, so not even the sender can open it again. What the text is for is authenticated with it:
 * sealed for one VM it opens for no other.
 *
 * It says nothing of who sealed it. That is the bus' business, which lets only services command nodes.
 */
import { createCipheriv, createDecipheriv, createPrivateKey, createPublicKey, diffieHellman, generateKeyPairSync, hkdfSync, type KeyObject } from 'node:crypto';

const VERSION = 1;
const KEY_BYTES = 32;
const TAG_BYTES = 16;
const NONCE_BYTES = 12;

/** Both halves as base64url of their 32 bytes, as a node keeps them. */
export interface SealKeys {
  readonly publicKey: string;
  readonly privateKey: string;
}

/** What came was sealed for somebody else, or for something else, or is damaged: which of them cannot be told. */
export class NotSealedForUs extends Error {
  override readonly name = 'NotSealedForUs';
  constructor(cause?: unknown) { super('what came was not sealed for this node and this purpose', { cause }); }
}

/** Throws when it is no key. */
const publicKeyOf = (x: string): KeyObject => createPublicKey({ key: { kty: 'OKP', crv: 'X25519', x }, format: 'jwk' });

const bytesOf = (key: KeyObject): Buffer => Buffer.from(String(key.export({ format: 'jwk' }).x), 'base64url');

function keyAndNonce(shared: Buffer, sender: Buffer, receiver: Buffer): { readonly key: Buffer; readonly nonce: Buffer } {
  const made = Buffer.from(hkdfSync('sha256', shared, Buffer.concat([sender, receiver]), 'chronovirt seal 1', KEY_BYTES + NONCE_BYTES));
  return { key: made.subarray(0, KEY_BYTES), nonce: made.subarray(KEY_BYTES) };
}

/** `publicKey` is the node's, base64url; `purpose` has to be named again to open it. Throws when the key is none. */
export function seal(publicKey: string, secret: string, purpose: string): string {
  const receiver = publicKeyOf(publicKey);
  const own = generateKeyPairSync('x25519');
  const sender = bytesOf(own.publicKey);
  const { key, nonce } = keyAndNonce(diffieHellman({ privateKey: own.privateKey, publicKey: receiver }), sender, bytesOf(receiver));
  const cipher = createCipheriv('aes-256-gcm', key, nonce, { authTagLength: TAG_BYTES });
  cipher.setAAD(Buffer.from(purpose, 'utf8'));
  return Buffer.concat([Buffer.from([VERSION]), sender, cipher.update(secret, 'utf8'), cipher.final(), cipher.getAuthTag()]).toString('base64url');
}

/** The secret. Throws NotSealedForUs. */
export function unseal({ publicKey, privateKey }: SealKeys, sealed: string, purpose: string): string {
  const bytes = Buffer.from(sealed, 'base64url');
  if (bytes[0] !== VERSION || bytes.length < 1 + KEY_BYTES + TAG_BYTES) throw new NotSealedForUs();
  const sender = bytes.subarray(1, 1 + KEY_BYTES);
  try {
    const own = createPrivateKey({ key: { kty: 'OKP', crv: 'X25519', x: publicKey, d: privateKey }, format: 'jwk' });
    const { key, nonce } = keyAndNonce(diffieHellman({ privateKey: own, publicKey: publicKeyOf(sender.toString('base64url')) }), sender, Buffer.from(publicKey, 'base64url'));
    const decipher = createDecipheriv('aes-256-gcm', key, nonce, { authTagLength: TAG_BYTES });
    decipher.setAAD(Buffer.from(purpose, 'utf8'));
    decipher.setAuthTag(bytes.subarray(-TAG_BYTES));
    return Buffer.concat([decipher.update(bytes.subarray(1 + KEY_BYTES, -TAG_BYTES)), decipher.final()]).toString('utf8');
  } catch (cause) {
    throw new NotSealedForUs(cause);
  }
}
