/*
 * Rules that a machine can check and that no compiler or linter knows.
 *
 * Each is a function from what lies in the repository to a list of complaints, so that
 * tidy.spec.ts can ask it about today's files and about a planted mistake alike. When the
 * same thing is mended twice by hand, it becomes a rule here.
 */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, lstatSync, readFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import ts from 'typescript';

export type Source = { readonly path: string; readonly text: string };

/** Files that are or would be committed, relative to `root`, those deleted left out. */
export function commitWorthy(root: string): readonly string[] {
  const listed = execFileSync('git', ['ls-files', '--cached', '--others', '--exclude-standard', '-z'], { cwd: root, encoding: 'utf8', maxBuffer: 64 * 1024 * 1024 });
  return [...new Set(listed.split('\0'))].filter((path) => path !== '' && existsSync(join(root, path)) && lstatSync(join(root, path)).isFile()).sort();
}

const TEXT_MAX_BYTES = 4 * 1024 * 1024;

/** The texts among `paths`; what holds a NUL or is very large is no text of ours. */
export function readTexts(root: string, paths: readonly string[]): readonly Source[] {
  return paths.flatMap((path) => {
    if (lstatSync(join(root, path)).size > TEXT_MAX_BYTES) return [];
    const bytes = readFileSync(join(root, path));
    return bytes.includes(0) ? [] : [{ path, text: bytes.toString('utf8') }];
  });
}

const EMPTY_NAMES = /(^|-)(common|shared|core|utils?|helpers?|misc)(-|$)/;

/** A name that says nothing collects everything. */
export function judgeNames(paths: readonly string[]): readonly string[] {
  const complaints = new Set<string>();
  for (const path of paths) {
    for (let folder = dirname(path); folder !== '.'; folder = dirname(folder)) {
      if (EMPTY_NAMES.test(basename(folder))) complaints.add(`${folder}/: name the folder after the noun of the domain that it holds`);
    }
    const stem = basename(path).split('.')[0] ?? '';
    if (/\.[cm]?[jt]s$/.test(path) && EMPTY_NAMES.test(stem)) complaints.add(`${path}: put each function where its subject lives`);
    if (/\/src\/(.*\/)?index\.ts$/.test(path)) complaints.add(`${path}: no barrels; import from the file that has the thing`);
  }
  return [...complaints];
}

const SUBJECT = /(^|[^A-Za-z0-9_.-])cv\.(cmd|evt|rpt|hb|dead|ans|hello)(\.|$)/;
const MAY_SPELL_SUBJECTS = /^libs\/messaging\/src\/topology\.ts$|\.spec\.ts$|\/testing-[^/]+\.ts$/;

/** Subjects are spelled in one file. Comments may name them; code may not. */
export function judgeSubjects(sources: readonly Source[]): readonly string[] {
  return sources.filter(({ path }) => /\.[cm]?[jt]s$/.test(path) && !MAY_SPELL_SUBJECTS.test(path)).flatMap(({ path, text }) => {
    if (!text.includes('cv.')) return [];
    return literals(path, text).filter(({ value }) => SUBJECT.test(value))
      .map(({ line, value }) => `${path}:${line}: "${value}" is a subject; ask libs/messaging/src/topology.ts for it`);
  });
}

function literals(path: string, text: string): readonly { readonly line: number; readonly value: string }[] {
  const file = ts.createSourceFile(path, text, ts.ScriptTarget.Latest, false);
  const found: { line: number; value: string }[] = [];
  const visit = (node: ts.Node): void => {
    if (ts.isStringLiteralLike(node) || node.kind === ts.SyntaxKind.TemplateHead) {
      found.push({ line: file.getLineAndCharacterOfPosition(node.getStart(file)).line + 1, value: (node as ts.LiteralLikeNode).text });
    }
    ts.forEachChild(node, visit);
  };
  visit(file);
  return found;
}

const ALONE = new Set(['bin', 'boot', 'dev', 'etc', 'home', 'lib', 'lib64', 'media', 'mnt', 'opt', 'proc', 'root', 'run', 'sbin', 'srv', 'sys', 'tmp', 'usr', 'var']);

/**
 * Nothing that is committed may depend on, or tell of, the machine it was written on: the
 * folder of this clone, a top folder that only this machine has, or where npm fetches from.
 *
 * @param root absolute path of the clone
 * @param npmRegistry URL that npm is told to use, if it is told
 */
export function judgeMachine(sources: readonly Source[], root: string, npmRegistry: string | undefined): readonly string[] {
  const parts = root.split('/').filter((part) => part !== '');
  const [top] = parts;
  const places = [
    ...(parts.length > 1 ? [new RegExp(`${literally(root)}(?![\\w.-])`)] : []),
    ...(parts.length > 1 && top !== undefined && !ALONE.has(top) ? [new RegExp(`(^|[^\\w./-])/${literally(top)}/[\\w.]`, 'm')] : []),
  ];
  const host = npmRegistry === undefined ? undefined : URL.parse(npmRegistry)?.host;
  const registries = [/\bregistry\.(npmjs|yarnpkg)\.\w+/, ...(host === undefined || host === '' ? [] : [new RegExp(literally(host))])];
  return sources.flatMap(({ path, text }) => [
    ...places.flatMap((place) => complain(path, text, place, 'is a path of this machine')),
    ...registries.flatMap((registry) => complain(path, text, registry, 'is where one machine fetches packages; npm is told that by its user, not by us')),
    ...(/(^|\/)package-lock\.json$/.test(path) ? complain(path, text, /"resolved": "https?:[^"]*/, 'ties the lock to one registry; make the lock with omit-lockfile-registry-resolved') : []),
    ...(/(^|\/)\.npmrc$/.test(path) ? complain(path, text, /^.*(registry|_auth).*$/m, 'belongs into the user\'s own configuration') : []),
  ]);
}

function complain(path: string, text: string, pattern: RegExp, because: string): readonly string[] {
  const match = pattern.exec(text);
  if (match === null) return [];
  const line = text.slice(0, match.index + match[0].length).split('\n').length;
  return [`${path}:${line}: "${match[0].trim()}" ${because}`];
}

const literally = (text: string): string => text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');

const EXACT = /^\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?$/;

/** A version that floats is decided by the day of the installation. */
export function judgePins(manifests: readonly Source[]): readonly string[] {
  return manifests.flatMap(({ path, text }) => {
    const manifest = JSON.parse(text) as Readonly<Record<string, Readonly<Record<string, string>> | undefined>>;
    return ['dependencies', 'devDependencies', 'optionalDependencies'].flatMap((group) =>
      Object.entries(manifest[group] ?? {})
        .filter(([, version]) => !EXACT.test(version))
        .map(([name, version]) => `${path}: ${group} has ${name} at "${version}"; pin one version`));
  });
}

/** Two copies of the tracing API mean no spans and no error, so there must be one. */
export function judgeTracingCopies(lock: string): readonly string[] {
  const { packages } = JSON.parse(lock) as { readonly packages: Readonly<Record<string, unknown>> };
  const copies = Object.keys(packages).filter((path) => path.endsWith('node_modules/@opentelemetry/api'));
  return copies.length === 1 ? [] : [`package-lock.json has ${copies.length} copies of @opentelemetry/api (${copies.join(', ')}); it must be one`];
}

export const FROZEN_FILE = 'tools/frozen.sha256';

/** What never changes once it is merged: migrations, and samples of event shapes that were written. */
export const isFrozen = (path: string): boolean =>
  /^(libs|services)\/[^/]+\/(.*\/)?migrations\/[^/]+\.sql$/.test(path) || /^libs\/contracts\/samples\/.+\.json$/.test(path);

export const digest = (bytes: Buffer | string): string => createHash('sha256').update(bytes).digest('hex');

/** Lines of `<sha256>  <path>`, as sha256sum prints and checks them. */
export function readFrozen(text: string): ReadonlyMap<string, string> {
  return new Map(text.split('\n').filter((line) => line !== '').map((line) => {
    const match = /^([0-9a-f]{64}) {2}(\S+)$/.exec(line);
    if (match === null) throw new Error(`${FROZEN_FILE}: "${line}" is not <sha256>  <path>`);
    return [match[2] ?? '', match[1] ?? ''];
  }));
}

/** @param today digests of the files that must not change, by path */
export function judgeFrozen(frozen: ReadonlyMap<string, string>, today: ReadonlyMap<string, string>): readonly string[] {
  return [
    ...[...frozen].flatMap(([path, sha256]) => {
      const now = today.get(path);
      if (now === undefined) return [`${path} is gone; databases out there have run it, so it stays`];
      return now === sha256 ? [] : [`${path} has changed since it was merged; write the next one instead`];
    }),
    ...[...today.keys()].filter((path) => !frozen.has(path))
      .map((path) => `${path} is not frozen yet; run \`node tools/freeze.ts\` in the commit that merges it`),
  ];
}

type ReadableEvent = { readonly shape: number; read(data: unknown, shape: number): unknown };

/**
 * Every shape that was ever written can still be read. The sample of shape 1 of `VmStarted`
 * lies in `VmStarted@1.json`; the newest shape needs none until it is revised.
 *
 * @param samples texts by file name
 */
export function judgeSamples(events: Readonly<Record<string, ReadableEvent>>, samples: ReadonlyMap<string, string>): readonly string[] {
  const complaints: string[] = [];
  for (const [type, event] of Object.entries(events)) {
    for (let shape = 1; shape < event.shape; shape += 1) {
      if (!samples.has(`${type}@${shape}.json`)) complaints.push(`${type} was revised, but libs/contracts/samples/${type}@${shape}.json, a sample of what it was, is missing`);
    }
  }
  for (const [name, text] of samples) {
    const [, type = '', shape = ''] = /^([A-Z]\w*)@(\d+)\.json$/.exec(name) ?? [];
    const event = events[type];
    if (event === undefined) {
      complaints.push(`libs/contracts/samples/${name} belongs to no event; events are for ever`);
      continue;
    }
    try {
      event.read(JSON.parse(text), Number(shape));
    } catch (error) {
      complaints.push(`libs/contracts/samples/${name} cannot be read any more: ${String(error)}`);
    }
  }
  return complaints;
}

/** A spec that no level collects proves nothing, and nobody notices. */
export function judgeSpecPlaces(paths: readonly string[]): readonly string[] {
  return paths.filter((path) => path.endsWith('.spec.ts') && !/^(libs|services|tools|bench|web|cli|e2e)\//.test(path))
    .map((path) => `${path}: no level of vitest.config.ts collects it`);
}

/** A TODO carries an issue number, or it is done now. */
export function judgeTodos(sources: readonly Source[]): readonly string[] {
  return sources.filter(({ path }) => /\.([cm]?[jt]s|sql|sh|ya?ml)$/.test(path)).flatMap(({ path, text }) =>
    text.split('\n').flatMap((line, at) => {
      const todo = /(?:\/\/|\/?\*|#|--)\s*(?:TODO|FIXME)\b(.*)$/.exec(line);
      return todo === null || /#\d+/.test(todo[1] ?? '') ? [] : [`${path}:${at + 1}: a TODO carries an issue number, or it is done now`];
    }));
}
