/*
 * Asks the rules of .dependency-cruiser.cjs about all source below a folder.
 *
 * Only `src` folders are walked: `dist` holds what the compiler wrote, and a rule about it
 * would say everything twice.
 */
import { spawn } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';

const REPOSITORY = join(import.meta.dirname, '..');
const ALONE = ['tools', 'bench', 'e2e'];

/** Folders with source below `root`, relative to it. */
export function sourceFolders(root: string): readonly string[] {
  const inPackages = ['libs', 'services'].flatMap((group) =>
    existsSync(join(root, group))
      ? readdirSync(join(root, group), { withFileTypes: true })
        .filter((entry) => entry.isDirectory())
        .map((entry) => `${group}/${entry.name}/src`)
      : []);
  return [...inPackages, ...ALONE].filter((folder) => existsSync(join(root, folder))).sort();
}

/**
 * The program and its arguments, to be run in the folder that is asked about. Only with
 * `err-long` does its exit code tell of violations; with `json` it is 0 whatever was found.
 */
export function boundariesCommand(root: string, outputType: 'err-long' | 'json'): readonly [string, ...string[]] {
  return [
    process.execPath,
    join(REPOSITORY, 'node_modules/dependency-cruiser/bin/dependency-cruiser.mjs'),
    '--config', join(REPOSITORY, '.dependency-cruiser.cjs'),
    '--output-type', outputType,
    ...sourceFolders(root),
  ];
}

export type BoundariesAnswer = {
  readonly exitCode: number | null;
  readonly output: string;
  /** What the program itself had trouble with, such as a file that it could not parse. */
  readonly trouble: string;
};

/** Runs the command in `root` and waits for it; refuses to wait longer than three minutes. */
export async function askBoundaries(root: string, outputType: 'err-long' | 'json'): Promise<BoundariesAnswer> {
  const [program, ...args] = boundariesCommand(root, outputType);
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { cwd: root, stdio: ['ignore', 'pipe', 'pipe'], timeout: 180_000 });
    const output: Buffer[] = [];
    const trouble: Buffer[] = [];
    child.stdout.on('data', (chunk: Buffer) => output.push(chunk));
    child.stderr.on('data', (chunk: Buffer) => trouble.push(chunk));
    child.on('error', reject);
    child.on('close', (exitCode) => {
      resolve({ exitCode, output: Buffer.concat(output).toString('utf8'), trouble: Buffer.concat(trouble).toString('utf8') });
    });
  });
}
