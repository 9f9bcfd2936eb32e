import { generateKeyPairSync } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { NotSealedForUs, seal, unseal, type SealKeys } from './seal.ts';

const keys = (): SealKeys => {
  const { x, d } = generateKeyPairSync('x25519').privateKey.export({ format: 'jwk' });
  return { publicKey: String(x), privateKey: String(d) };
};
const node = keys();
const secret = 'pä:ss wörd 🔑';

describe('A sealed secret', () => {
  it('is opened by the node it was sealed for, and named for what', () => {
    expect(unseal(node, seal(node.publicKey, secret, 'password vm_1 root'), 'password vm_1 root')).toBe(secret);
    expect(unseal(node, seal(node.publicKey, '', ''), '')).toBe('');
  });

  it('shows nothing of itself, not even that it is the same again', () => {
    const [one, other] = [seal(node.publicKey, secret, 'p'), seal(node.publicKey, secret, 'p')];
    expect(one).not.toBe(other);
    expect(Buffer.from(one, 'base64url').includes(Buffer.from(secret))).toBe(false);
  });

  it('is opened by no other node and for nothing else', () => {
    const sealed = seal(node.publicKey, secret, 'password vm_1 root');
    expect(() => unseal(keys(), sealed, 'password vm_1 root')).toThrow(NotSealedForUs);
    expect(() => unseal(node, sealed, 'password vm_2 root')).toThrow(NotSealedForUs);
  });

  it('with any bit changed, or cut short, is not opened', () => {
    const bytes = Buffer.from(seal(node.publicKey, secret, 'p'), 'base64url');
    for (let at = 0; at < bytes.length; at++) {
      const changed = Buffer.from(bytes);
      // X25519 ignores the highest bit of a public key, so another one is changed.
      changed[at] = (changed[at] ?? 0) ^ 0x01;
      expect(() => unseal(node, changed.toString('base64url'), 'p')).toThrow(NotSealedForUs);
    }
    for (const length of [0, 1, 33, 48, bytes.length - 1]) expect(() => unseal(node, bytes.subarray(0, length).toString('base64url'), 'p')).toThrow(NotSealedForUs);
  });

  it('is not made for a key that is none, nor for one with which everybody agrees on the same', () => {
    expect(() => seal('short', secret, 'p')).toThrow();
    expect(() => seal(Buffer.alloc(32).toString('base64url'), secret, 'p')).toThrow();
  });
});
