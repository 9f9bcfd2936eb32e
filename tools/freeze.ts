/*
 * Writes down the digests of migrations and event samples that are not written down yet.
 * What is written down already is never changed here: when a frozen file was edited, put it
 * back and write the next one.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { REPOSITORY } from './step.ts';
import { FROZEN_FILE, commitWorthy, digest, isFrozen, readFrozen } from './tidy.ts';

const file = join(REPOSITORY, FROZEN_FILE);
const frozen = new Map(existsSync(file) ? readFrozen(readFileSync(file, 'utf8')) : []);
const fresh = commitWorthy(REPOSITORY).filter((path) => isFrozen(path) && !frozen.has(path));
for (const path of fresh) frozen.set(path, digest(readFileSync(join(REPOSITORY, path))));
const lines = [...frozen].sort(([a], [b]) => (a < b ? -1 : 1)).map(([path, sha256]) => `${sha256}  ${path}\n`);
writeFileSync(file, lines.join(''));
console.log(fresh.length === 0 ? 'Nothing new to freeze.' : `Frozen: ${fresh.join(', ')}`);
