/*
 * Which kernel modules to load, and in which order, told from the modules themselves: each names
 * what it depends on in its .modinfo ("depends=fat,nls_cp437"). So neither depmod nor modprobe is
 * needed, on the building machine or in the guest.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';

export interface KernelModule {
  readonly name: string;
  readonly content: Buffer;
}

/** The wanted modules and what they need, each after its dependencies. What is built into the kernel is left out. */
export function modulesInOrder(modulesDir: string, wanted: readonly string[]): readonly KernelModule[] {
  const files = new Map<string, string>();
  for (const path of readdirSync(modulesDir, { recursive: true, encoding: 'utf8' })) {
    if (path.endsWith('.ko')) files.set(nameOf(path), join(modulesDir, path));
  }
  const builtIn = new Set(readFileSync(join(modulesDir, 'modules.builtin'), 'utf8').split('\n').map(nameOf));
  const ordered = new Map<string, KernelModule>();
  const add = (name: string): void => {
    if (ordered.has(name) || builtIn.has(name)) return;
    const file = files.get(name);
    if (!file) throw new Error(`the kernel in ${modulesDir} has no module ${name}`);
    const content = readFileSync(file);
    for (const dependency of dependenciesOf(content)) add(dependency);
    ordered.set(name, { name, content });
  };
  wanted.forEach(add);
  return [...ordered.values()];
}

// One module is called by both spellings: files say virtio_blk or virtio-rng, .modinfo always has underscores.
const nameOf = (path: string): string => basename(path, '.ko').replaceAll('-', '_');

function dependenciesOf(content: Buffer): readonly string[] {
  const at = content.indexOf('\0depends=');
  if (at < 0) return [];
  const start = at + '\0depends='.length;
  return content.toString('latin1', start, content.indexOf(0, start)).split(',').filter(Boolean).map(nameOf);
}
