/*
 * `node tools/lock-file.ts`: completes package-lock.json.
 *
 * A package names its native parts for every platform as optional dependencies. npm leaves those out of
 * the lock, without a word, that the registry it was made against does not have; and then `npm ci` refuses
 * the lock ("Missing: @nx/nx-darwin-arm64@ from lock file"), on every machine. An entry with a version
 * and a platform is enough: a platform that is not this one is never fetched. No hash is invented; a machine
 * of that platform gets npm's own check against its registry.
 *
 * To be run after every `npm install`; tools/lock-file.spec.ts fails when it was forgotten.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

export interface LockEntry {
  readonly version?: string;
  readonly optional?: boolean;
  readonly os?: readonly string[];
  readonly cpu?: readonly string[];
  readonly libc?: readonly string[];
  readonly optionalDependencies?: Readonly<Record<string, string>>;
}

export interface Lock {
  packages: Record<string, LockEntry>;
}

const OPERATING_SYSTEMS = ['aix', 'android', 'darwin', 'freebsd', 'linux', 'netbsd', 'openbsd', 'openharmony', 'sunos', 'win32'];
const PROCESSORS = ['arm64', 'arm', 'x64', 'ia32', 'ppc64', 's390x', 'riscv64', 'loong64', 'mips64el', 'wasm32'];

/** Optional dependencies of what is in the lock that have no entry themselves, by the path the entry belongs to. */
export function missingEntries(lock: Lock): ReadonlyMap<string, LockEntry> {
  const missing = new Map<string, LockEntry>();
  for (const [path, entry] of Object.entries(lock.packages)) {
    for (const [name, version] of Object.entries(entry.optionalDependencies ?? {})) {
      if (isThere(lock, path, name)) continue;
      if (!/^\d+\.\d+\.\d+/.test(version)) throw new Error(`${path || 'the root'} wants ${name} ${version}, which is no exact version: complete the lock by hand`);
      missing.set(`node_modules/${name}`, { version, ...platformOf(name), optional: true });
    }
  }
  return missing;
}

/** Node looks for a package in each node_modules on the way up. */
function isThere(lock: Lock, from: string, name: string): boolean {
  for (let at = from; ; at = at.slice(0, Math.max(0, at.lastIndexOf('node_modules/') - 1))) {
    if (`${at === '' ? '' : `${at}/`}node_modules/${name}` in lock.packages) return true;
    if (at === '') return false;
  }
}

function platformOf(name: string): Pick<LockEntry, 'os' | 'cpu' | 'libc'> {
  const words = name.split('/').pop()?.split(/[-_.]/) ?? [];
  const os = OPERATING_SYSTEMS.filter((one) => words.includes(one));
  const cpu = PROCESSORS.filter((one) => words.includes(one));
  if (os.length !== 1 && cpu.length !== 1) throw new Error(`cannot tell the platform of ${name} by its name: complete the lock by hand`);
  const libc = words.includes('musl') ? ['musl'] : words.includes('gnu') ? ['glibc'] : undefined;
  return { ...(os.length === 1 ? { os } : {}), ...(cpu.length === 1 ? { cpu } : {}), ...(libc ? { libc } : {}) };
}

if (import.meta.main) {
  const file = join(import.meta.dirname, '..', 'package-lock.json');
  const lock = JSON.parse(readFileSync(file, 'utf8')) as Lock;
  const missing = missingEntries(lock);
  const root = lock.packages[''];
  const entries = Object.entries({ ...lock.packages, ...Object.fromEntries(missing) }).filter(([path]) => path !== '');
  lock.packages = { ...(root ? { '': root } : {}), ...Object.fromEntries(entries.sort(([a], [b]) => a.localeCompare(b, 'en'))) };
  if (missing.size > 0) writeFileSync(file, `${JSON.stringify(lock, null, 2)}\n`);
  console.log(missing.size === 0 ? 'package-lock.json is complete' : `added to package-lock.json: ${[...missing.keys()].join(', ')}`);
}
