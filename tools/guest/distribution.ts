/*
 * The distribution's packages, downloaded and unpacked into a folder of ours, not installed: what
 * the guest is made of is no business of the machine that builds it.
 */
import { execFile } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);
const environment = { PATH: process.env['PATH'], LANG: 'C.UTF-8' };

/** The exact name and version of each package, `name=version`, as the package lists have them. */
export async function versionsOf(names: readonly string[]): Promise<readonly string[]> {
  const { stdout } = await run('apt-cache', ['policy', ...names], { env: environment }).catch((cause: unknown) => {
    throw new Error('apt-cache does not work here, and the guest image is made of Debian packages', { cause });
  });
  const found = new Map<string, string>();
  let current = '';
  for (const line of stdout.split('\n')) {
    if (/^\S+:$/.test(line)) current = line.slice(0, -1);
    const candidate = /^ {2}Candidate: (.+)$/.exec(line)?.[1];
    if (candidate && candidate !== '(none)') found.set(current, candidate);
  }
  const missing = names.filter((name) => !found.has(name));
  if (missing.length > 0) throw new Error(`the package lists do not know ${missing.join(', ')}: run apt-get update`);
  return names.map((name) => `${name}=${found.get(name)}`);
}

/** The package with the kernel behind Debian's newest "cloud" kernel: what the meta package depends on. */
export async function cloudKernelPackage(architecture: 'amd64'): Promise<string> {
  const { stdout } = await run('apt-cache', ['depends', `linux-image-cloud-${architecture}`], { env: environment }).catch(() => ({ stdout: '' }));
  const name = new RegExp(`Depends: (linux-image-[0-9.-]+(?:-[0-9]+)?-?cloud-${architecture})`).exec(stdout)?.[1] ?? /Depends: (linux-image-\S+)/.exec(stdout)?.[1];
  if (!name) throw new Error(`the package lists do not know linux-image-cloud-${architecture}: run apt-get update`);
  return name;
}

/** Downloads and unpacks `name=version` packages into `root`; the work is done once. */
export async function unpacked(packages: readonly string[], root: string): Promise<string> {
  if (existsSync(root)) return root;
  mkdirSync(join(root, '..'), { recursive: true });
  const draft = mkdtempSync(`${root}.`);
  try {
    // As whoever we are: the sandbox user of apt cannot write into our folders, and apt warns about it.
    await run('apt-get', ['download', '-q', '-o', 'APT::Sandbox::User=', ...packages], { cwd: draft, env: environment });
    for (const file of readdirSync(draft).filter((name) => name.endsWith('.deb'))) {
      await run('dpkg-deb', ['-x', join(draft, file), draft], { env: environment });
      rmSync(join(draft, file));
    }
    renameSync(draft, root);
  } catch (cause) {
    if (existsSync(root)) return root; // another build was faster
    throw new Error(`could not download the packages of the guest image: ${(cause as { stderr?: string }).stderr?.trim() ?? ''}`, { cause });
  } finally {
    rmSync(draft, { recursive: true, force: true });
  }
  return root;
}

/** A program's shared libraries, by the path at which the program looks for them, and where they lie here. */
export async function librariesOf(program: string, root: string): Promise<readonly { readonly path: string; readonly file: string }[]> {
  const dirs = ['usr/lib/x86_64-linux-gnu', 'lib/x86_64-linux-gnu'].map((dir) => join(root, dir));
  const { stdout } = await run('ldd', [program], { env: { ...environment, LD_LIBRARY_PATH: dirs.join(':') } });
  const lacking = [...stdout.matchAll(/^\s*(\S+) => not found$/gm)].map((match) => match[1]);
  if (lacking.length > 0) throw new Error(`${program} needs ${lacking.join(', ')}, which is neither here nor among the packages of the guest image`);
  return [...stdout.matchAll(/^\s*(?:\S+ => )?(\/\S+) \(0x/gm)].map((match) => {
    const file = match[1] ?? '';
    const path = file.startsWith('/lib64/') ? file : `/lib/x86_64-linux-gnu/${file.slice(file.lastIndexOf('/') + 1)}`;
    return { path, file };
  });
}
