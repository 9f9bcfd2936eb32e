import { execFileSync } from 'node:child_process';
import { generateKeyPairSync } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { scenarioOf } from '@chronovirt/decider/scenario';
import { describe, expect, it } from 'vitest';
import { privateFile, publicLine } from './openssh.ts';
import { sshKey } from './ssh-key.ts';

const given = scenarioOf(sshKey, (actual, expected) => { expect(actual).toEqual(expected); });
const keyId = `key_${'1'.repeat(32)}` as const;
const data = { keyId, name: 'mine', publicKey: 'ssh-ed25519 AAAA mine', fingerprint: 'SHA256:x', made: false };

describe('An SSH key', () => {
  it('is registered once under its name; the same again is no news, another is refused', () => {
    given().when({ type: 'RegisterSshKey', data }).then({ type: 'SshKeyRegistered', data });
    given({ type: 'SshKeyRegistered', data }).when({ type: 'RegisterSshKey', data }).then();
    given({ type: 'SshKeyRegistered', data }).when({ type: 'RegisterSshKey', data: { ...data, publicKey: 'ssh-ed25519 BBBB mine' } }).thenRefused('key.name_taken', { keyId, name: 'mine', field: 'name' });
  });
  it('is deleted, and its name is free', () => {
    given({ type: 'SshKeyRegistered', data }).when({ type: 'DeleteSshKey', data: { keyId } }).then({ type: 'SshKeyDeleted', data: { keyId } });
    given().when({ type: 'DeleteSshKey', data: { keyId } }).thenRefused('key.not_found', { keyId });
    given({ type: 'SshKeyRegistered', data }, { type: 'SshKeyDeleted', data: { keyId } }).when({ type: 'RegisterSshKey', data }).then({ type: 'SshKeyRegistered', data });
  });
});

describe('A pair that is made', () => {
  it.each(['a', 'ab', 'abc', 'abcd', 'abcde', 'abcdef', 'abcdefg', 'abcdefgh'])('is one to OpenSSH, whatever its comment (%s)', (comment) => {
    const { d = '', x = '' } = generateKeyPairSync('ed25519').privateKey.export({ format: 'jwk' });
    const [publicKey, seed] = [x, d].map((part) => Buffer.from(part, 'base64url')) as [Buffer, Buffer];
    const dir = mkdtempSync(join(tmpdir(), 'cv-key-'));
    try {
      writeFileSync(join(dir, 'key'), privateFile({ publicKey, seed, comment, check: 7 }), { mode: 0o600 });
      expect(execFileSync('ssh-keygen', ['-y', '-f', join(dir, 'key')], { encoding: 'utf8' }).trim()).toBe(publicLine(publicKey, comment));
    } finally {
      rmSync(dir, { recursive: true });
    }
  });
});
