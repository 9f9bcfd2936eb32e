/*
 * libguestfs starts a small virtual machine with the kernel of the machine that it runs on. Where there is none,
 * as in a container, it is given the one that guests of tests have (supermin(1), SUPERMIN_KERNEL).
 */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { cloudKernelPackage, unpacked, versionsOf } from './distribution.ts';

const versionIn = (boot: string): string | undefined => (existsSync(boot) ? readdirSync(boot).find((name) => name.startsWith('vmlinuz-'))?.slice('vmlinuz-'.length) : undefined);

/** Environment for whoever runs libguestfs. `cache`: where packages are kept between runs. */
export async function libguestfsKernel(cache: string): Promise<Readonly<Record<string, string>>> {
  const own = versionIn('/boot');
  if (own !== undefined && existsSync(join('/lib/modules', own))) return {};
  const [kernel = ''] = await versionsOf([await cloudKernelPackage('amd64')]);
  const root = await unpacked([kernel], join(cache, kernel.replaceAll(/[^a-z0-9.-]/g, '-')));
  const version = versionIn(join(root, 'boot'));
  if (version === undefined) throw new Error(`there is no kernel in ${kernel}`);
  execFileSync('depmod', ['-b', root, version]);
  // supermin copies the folder itself as it lies here, whatever it is told of its contents.
  mkdirSync('/lib/modules', { recursive: true });
  return { SUPERMIN_KERNEL: join(root, 'boot', `vmlinuz-${version}`), SUPERMIN_KERNEL_VERSION: version, SUPERMIN_MODULES: join(root, 'lib/modules', version) };
}
