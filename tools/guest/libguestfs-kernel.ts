/*
 * libguestfs starts a small virtual machine with the kernel of the machine that it runs on. Where there is none,
 * as in a container, it is given the one that the guest image was made with (supermin(1), SUPERMIN_KERNEL).
 */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';

const versionIn = (boot: string): string | undefined => (existsSync(boot) ? readdirSync(boot).find((name) => name.startsWith('vmlinuz-'))?.slice('vmlinuz-'.length) : undefined);

/** Environment for whoever runs libguestfs. `cache`: the folder of the packages of a guest image that is built. */
export function libguestfsKernel(cache: string): Readonly<Record<string, string>> {
  const own = versionIn('/boot');
  if (own !== undefined && existsSync(join('/lib/modules', own))) return {};
  for (const folder of readdirSync(cache)) {
    const root = join(cache, folder);
    const version = versionIn(join(root, 'boot'));
    const modules = join(root, 'lib/modules', version ?? '');
    if (version === undefined || !existsSync(modules)) continue;
    if (!existsSync(join(modules, 'modules.dep'))) execFileSync('depmod', ['-b', root, version]);
    // supermin copies the folder itself as it lies here, whatever it is told of its contents.
    mkdirSync('/lib/modules', { recursive: true });
    return { SUPERMIN_KERNEL: join(root, 'boot', `vmlinuz-${version}`), SUPERMIN_KERNEL_VERSION: version, SUPERMIN_MODULES: modules };
  }
  throw new Error(`there is no kernel for libguestfs, neither in /boot nor in ${cache}`);
}
