import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { missingEntries, type Lock } from './lock-file.ts';

const lockOf = (packages: Lock['packages']): Lock => ({ packages });

describe('package-lock.json', () => {
  it.each(['package-lock.json', 'toolchain/package-lock.json'])('%s has an entry for every platform, or npm ci refuses it', (file) => {
    const lock = JSON.parse(readFileSync(join(import.meta.dirname, '..', file), 'utf8')) as Lock;
    expect([...missingEntries(lock).keys()], 'run node tools/lock-file.ts').toEqual([]);
  });

  it('gets what is missing with its platform and without a hash', () => {
    const missing = missingEntries(lockOf({
      'node_modules/nx': { optionalDependencies: { '@nx/nx-darwin-arm64': '24.0.6', '@nx/nx-linux-x64-musl': '24.0.6', '@nx/nx-linux-x64-gnu': '24.0.6' } },
      'node_modules/@nx/nx-linux-x64-gnu': { version: '24.0.6' },
    }));
    expect(Object.fromEntries(missing)).toEqual({
      'node_modules/@nx/nx-darwin-arm64': { version: '24.0.6', os: ['darwin'], cpu: ['arm64'], optional: true },
      'node_modules/@nx/nx-linux-x64-musl': { version: '24.0.6', os: ['linux'], cpu: ['x64'], libc: ['musl'], optional: true },
    });
  });

  it('finds an entry in any folder on the way up, as Node does', () => {
    const packages = { 'node_modules/a/node_modules/b': { optionalDependencies: { c: '1.0.0' } } };
    for (const path of ['node_modules/c', 'node_modules/a/node_modules/c', 'node_modules/a/node_modules/b/node_modules/c']) {
      expect(missingEntries(lockOf({ ...packages, [path]: { version: '1.0.0' } })).size).toBe(0);
    }
    expect(() => missingEntries(lockOf(packages))).toThrow(/cannot tell the platform of c/);
  });
});
