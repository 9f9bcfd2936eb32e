/*
 * The rules of tidy.ts, asked about today's repository, and each about a planted mistake:
 * a rule that was never seen to complain may be looking at nothing.
 */
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { allEvents } from '@chronovirt/contracts/registry';
import { describe, expect, it } from 'vitest';
import { REPOSITORY } from './step.ts';
import {
  FROZEN_FILE, commitWorthy, digest, isFrozen, judgeFrozen, judgeMachine, judgeNames, judgePins, judgeSamples,
  judgeSpecPlaces, judgeSubjects, judgeTodos, judgeTracingCopies, readFrozen, readTexts,
} from './tidy.ts';

const paths = commitWorthy(REPOSITORY);
const sources = readTexts(REPOSITORY, paths);
const registry = process.env['npm_config_registry'];
const samplesFolder = join(REPOSITORY, 'libs/contracts/samples');

const source = (path: string, text: string) => ({ path, text });

it('the repository is read at all', () => {
  expect(paths).toContain('package.json');
  expect(paths).toContain('libs/messaging/src/topology.ts');
  expect(sources.length).toBeGreaterThan(50);
});

describe('names', () => {
  it('say something', () => {
    expect(judgeNames(paths)).toEqual([]);
  });

  it.each(['libs/common/src/a.ts', 'services/ipam/src/utils/a.ts', 'services/ipam/src/subnet/subnet-helpers.ts', 'libs/event-log/src/utils.ts', 'services/ipam/src/shared/x.sql', 'libs/decider/src/index.ts', 'libs/event-log/src/core/a.ts'])('%s says nothing', (path) => {
    expect(judgeNames([path])).toHaveLength(1);
  });

  it('a word within a word is no offence', () => {
    expect(judgeNames(['services/scheduler/src/placement/score.ts', 'libs/libvirt/src/coredump.ts'])).toEqual([]);
  });
});

describe('subjects', () => {
  it('are spelled in topology.ts alone', () => {
    expect(judgeSubjects(sources)).toEqual([]);
  });

  it.each([
    ['a literal', "publish('cv.cmd.ipam.subnet_7');"],
    ['a template', 'publish(`cv.evt.vm.${id}.VmStarted`);'],
    ['a filter', 'subscribe("cv.rpt.>");'],
    ['a heartbeat', "subscribe('cv.hb.*');"],
    ['a part', "const PREFIX = 'cv.cmd';"],
  ])('%s elsewhere is found', (_what, text) => {
    expect(judgeSubjects([source('services/ipam/src/service.ts', text)])).toHaveLength(1);
  });

  it('a comment may name one, and so may a spec and topology.ts', () => {
    expect(judgeSubjects([
      source('services/ipam/src/service.ts', "// reads `cv.cmd.ipam.*`\nexport const a = 'cv.command';"),
      source('services/ipam/src/service.spec.ts', "expect(subject).toBe('cv.cmd.ipam.subnet_7');"),
      source('libs/messaging/src/topology.ts', "const subject = 'cv.cmd.ipam.subnet_7';"),
    ])).toEqual([]);
  });
});

describe('what is committed', () => {
  it('tells nothing of the machine it was written on', () => {
    expect(judgeMachine(sources, REPOSITORY, registry)).toEqual([]);
  });

  it.each([
    ['the clone', 'a.ts', "const home = '/builds/clone/tools';", 'path of this machine'],
    ['its neighbour', 'a.md', 'see /builds/notes/x.md', 'path of this machine'],
    ['the registry that npm was told', 'a.md', 'from packages.example.org:4873', 'fetches packages'],
    ['the registry that npm asks by itself', 'a.md', `from registry.${'npmjs'}.org`, 'fetches packages'],
    ['a lock with addresses', 'package-lock.json', '"resolved": "https://example.org/a.tgz"', 'one registry'],
    ['an .npmrc with a registry', '.npmrc', 'registry=https://example.org', 'own configuration'],
  ])('%s is found', (_what, path, text, because) => {
    expect(judgeMachine([source(path, text)], '/builds/clone', 'https://packages.example.org:4873/npm/').join('\n')).toContain(because);
  });

  it('what merely looks alike is left alone', () => {
    expect(judgeMachine([source('a.ts', "import '../builds/x.ts'; const a = '/var/lib/chronovirt'; const b = './builds/a';")], '/builds/clone', undefined)).toEqual([]);
    expect(judgeMachine([source('a.ts', "const a = '/tmp/other';")], '/tmp/clone', undefined)).toEqual([]);
  });
});

describe('dependencies', () => {
  it('are pinned', () => {
    expect(judgePins(sources.filter(({ path }) => /(^|\/)package\.json$/.test(path)))).toEqual([]);
  });

  it.each(['^1.2.3', '~1.2.3', '*', 'latest', '>=1', '1.x', 'git+ssh://x', ''])('at "%s" are found', (version) => {
    expect(judgePins([source('package.json', JSON.stringify({ devDependencies: { zod: version } }))])).toHaveLength(1);
  });

  it('have one copy of the tracing API', () => {
    expect(judgeTracingCopies(readFileSync(join(REPOSITORY, 'package-lock.json'), 'utf8'))).toEqual([]);
  });

  it('with two copies of it, or none, are found', () => {
    const lock = (...keys: readonly string[]) => JSON.stringify({ packages: Object.fromEntries(keys.map((key) => [key, {}])) });
    expect(judgeTracingCopies(lock('node_modules/@opentelemetry/api', 'services/ipam/node_modules/@opentelemetry/api'))).toHaveLength(1);
    expect(judgeTracingCopies(lock('node_modules/zod'))).toHaveLength(1);
  });
});

describe('migrations and samples', () => {
  it('are unchanged since they were merged', () => {
    const file = join(REPOSITORY, FROZEN_FILE);
    const frozen = readFrozen(existsSync(file) ? readFileSync(file, 'utf8') : '');
    const today = new Map(paths.filter(isFrozen).map((path) => [path, digest(readFileSync(join(REPOSITORY, path)))]));
    expect(judgeFrozen(frozen, today)).toEqual([]);
  });

  it.each([
    ['changed', 'services/ipam/migrations/0001_ipam.sql', 'other', 'has changed'],
    ['gone', undefined, '', 'is gone'],
    ['new', 'services/ipam/migrations/0002_ipam.sql', 'x', 'is not frozen'],
  ])('one that is %s is found', (_what, path, text, because) => {
    const frozen = readFrozen(`${digest('merged')}  services/ipam/migrations/0001_ipam.sql\n`);
    expect(judgeFrozen(frozen, path === undefined ? new Map() : new Map([[path, digest(text)]])).join('\n')).toContain(because);
  });

  it('are known by their place', () => {
    expect(['libs/event-log/migrations/0001_log.sql', 'services/ipam/migrations/0001_ipam.sql', 'libs/contracts/samples/VmStarted@1.json'].filter(isFrozen)).toHaveLength(3);
    expect(['libs/event-log/src/a.sql', 'docs/migrations/a.md'].filter(isFrozen)).toEqual([]);
  });

  it('show every shape that was ever written', () => {
    const samples = existsSync(samplesFolder)
      ? new Map(readdirSync(samplesFolder).map((name) => [name, readFileSync(join(samplesFolder, name), 'utf8')]))
      : new Map<string, string>();
    expect(judgeSamples(allEvents, samples)).toEqual([]);
    expect(Object.keys(allEvents).length).toBeGreaterThan(20);
  });

  it('that are missing, stray or no longer readable are found', () => {
    const revised = { VmStarted: { shape: 2, read: (data: unknown) => { if (typeof data !== 'object') throw new Error('not an object'); return data; } } };
    expect(judgeSamples(revised, new Map()).join()).toContain('VmStarted@1.json');
    expect(judgeSamples(revised, new Map([['VmStarted@1.json', '{}']]))).toEqual([]);
    expect(judgeSamples(revised, new Map([['VmStarted@1.json', '"text"']])).join()).toContain('cannot be read');
    expect(judgeSamples(revised, new Map([['VmStarted@1.json', '{}'], ['VmSang@1.json', '{}']])).join()).toContain('belongs to no event');
  });
});

it('every spec is collected by a level', () => {
  expect(judgeSpecPlaces(paths)).toEqual([]);
  expect(judgeSpecPlaces(['infra/k8s/manifests.spec.ts'])).toHaveLength(1);
});

it('a TODO carries an issue number', () => {
  expect(judgeTodos(sources)).toEqual([]);
  expect(judgeTodos([source('a.ts', `// ${'TODO'} mend this`), source('b.ts', `// ${'TODO'} #12: mend this`)])).toHaveLength(1);
});
