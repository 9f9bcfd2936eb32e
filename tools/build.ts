/* Compiling, when a source is newer than what was compiled last. */
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { REPOSITORY } from './home.ts';

const STAMP = join(REPOSITORY, '.nx', 'built');
const PROJECTS = ['libs', 'services'];
const BUILD_WITHIN_MS = 5 * 60_000;

/** Whether anything that goes into `dist` changed since the last build: by number, size and date of the sources. */
export const isBuilt = (): boolean => existsSync(STAMP) && readFileSync(STAMP, 'utf8') === fingerprint();

export async function build(): Promise<void> {
  const before = fingerprint();
  const tsc = join(REPOSITORY, 'node_modules/typescript/bin/tsc');
  await run(process.execPath, [tsc, '-b', 'tsconfig.json', 'tools/tsconfig.json', '--pretty', 'false']);
  mkdirSync(join(REPOSITORY, '.nx'), { recursive: true });
  writeFileSync(STAMP, before); // what was there when it began: an edit during the build is built at the next start
}

export function fingerprint(): string {
  let newest = 0;
  let count = 0;
  const look = (path: string): void => {
    const { mtimeMs } = statSync(path);
    newest = Math.max(newest, mtimeMs);
    count++;
  };
  for (const name of ['package-lock.json', 'tsconfig.json', 'tsconfig.base.json', 'tools/tsconfig.json']) look(join(REPOSITORY, name));
  const sources = PROJECTS.flatMap((folder) => readdirSync(join(REPOSITORY, folder)).map((name) => join(REPOSITORY, folder, name)));
  for (const project of sources) {
    if (!existsSync(join(project, 'tsconfig.json'))) continue;
    look(join(project, 'tsconfig.json'));
    const built = existsSync(join(project, 'dist'));
    if (!built) count = -1_000_000; // somebody cleaned up
    for (const entry of readdirSync(join(project, 'src'), { recursive: true, encoding: 'utf8' })) {
      if (entry.endsWith('.ts') && !entry.endsWith('.spec.ts')) look(join(project, 'src', entry));
    }
  }
  for (const name of readdirSync(join(REPOSITORY, 'tools'))) if (name.endsWith('.ts') && !name.endsWith('.spec.ts')) look(join(REPOSITORY, 'tools', name));
  if (!existsSync(join(REPOSITORY, 'tools/dist/keeper.js'))) count = -1_000_000;
  return `${count} sources, newest ${newest}`;
}

function run(command: string, args: readonly string[]): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { cwd: REPOSITORY, stdio: ['ignore', 'pipe', 'pipe'], timeout: BUILD_WITHIN_MS });
    let output = '';
    child.stdout.on('data', (chunk: Buffer) => (output += chunk.toString('utf8')));
    child.stderr.on('data', (chunk: Buffer) => (output += chunk.toString('utf8')));
    child.once('error', reject);
    child.once('exit', (code) => (code === 0 ? resolve() : reject(new Error(`the build failed:\n${output.trim()}`))));
  });
}
