/*
 * Picks out of a built clone what some workspaces need to run, and nothing else: their compiled code and
 * that of the libraries they rest on, their migrations, and production modules as the lock says.
 *
 *   node infra/pick.ts <folder> <workspace>…        for example: node infra/pick.ts /out services/ipam
 *
 * Only for the Dockerfile: every image is made by this one line. It needs NPM_CLI, the path of npm-cli.js.
 */
import { execFileSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';

const repository = join(import.meta.dirname, '..');
const SCOPE = '@chronovirt/';

interface Manifest {
  readonly name: string;
  readonly dependencies?: Readonly<Record<string, string>>;
}

const manifestOf = (folder: string): Manifest => JSON.parse(readFileSync(join(repository, folder, 'package.json'), 'utf8')) as Manifest;

/** Every workspace of the repository, by the name of its package. */
export function workspaces(): ReadonlyMap<string, string> {
  const folders = ['libs', 'services'].flatMap((group) => readdirSync(join(repository, group)).map((name) => `${group}/${name}`));
  return new Map([...folders, 'bench', 'e2e'].filter((folder) => existsSync(join(repository, folder, 'package.json'))).map((folder) => [manifestOf(folder).name, folder]));
}

/** The workspaces, and those they rest on. */
export function restsOn(wanted: readonly string[], known = workspaces()): readonly string[] {
  const found = new Set<string>();
  const look = (folder: string): void => {
    if (found.has(folder)) return;
    found.add(folder);
    for (const name of Object.keys(manifestOf(folder).dependencies ?? {}).filter((one) => one.startsWith(SCOPE))) {
      const next = known.get(name);
      if (next === undefined) throw new Error(`${folder} rests on ${name}, which is no workspace`);
      look(next);
    }
  };
  wanted.forEach(look);
  return [...found];
}

function pick(out: string, wanted: readonly string[]): void {
  const npm = process.env['NPM_CLI'];
  if (npm === undefined) throw new Error('NPM_CLI is not set');
  const known = workspaces();
  const needed = new Set(restsOn(wanted, known));
  const copy = (path: string): void => {
    mkdirSync(dirname(join(out, path)), { recursive: true });
    cpSync(join(repository, path), join(out, path), { recursive: true, filter: (source) => !/\.(d\.ts|tsbuildinfo)$/.test(source) });
  };
  // The lock speaks of every workspace, so npm must find them all; those not needed leave afterwards.
  for (const file of ['package.json', 'package-lock.json', '.npmrc', ...[...known.values()].map((folder) => `${folder}/package.json`)]) copy(file);
  const only = wanted.flatMap((folder) => ['--workspace', folder]);
  execFileSync(process.execPath, [npm, 'ci', '--omit=dev', '--include-workspace-root', '--loglevel=error', '--no-progress', ...only], { cwd: out, stdio: 'inherit' });
  // Node comes with what compiling against it takes: 70 MB that nobody here reads.
  for (const name of readdirSync(join(out, 'node_modules')).filter((one) => one.startsWith('node-linux-'))) {
    for (const part of ['include', 'share', 'CHANGELOG.md']) rmSync(join(out, 'node_modules', name, part), { recursive: true, force: true });
  }
  for (const [name, folder] of known) {
    if (needed.has(folder)) {
      for (const part of ['dist', 'migrations']) if (existsSync(join(repository, folder, part))) copy(join(folder, part));
    } else {
      rmSync(join(out, folder), { recursive: true, force: true });
      rmSync(join(out, 'node_modules', name), { force: true });
    }
  }
}

if (import.meta.main) {
  const [out, ...wanted] = process.argv.slice(2);
  if (out === undefined || wanted.length === 0) throw new Error('into which folder, and which workspaces?');
  pick(out, wanted);
}
