/* Every relative link in a document leads somewhere; whoever moves a file moves the tour. */
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { anchorOf, judgeLinks, linksIn } from './docs-links.ts';
import { REPOSITORY } from './step.ts';
import { commitWorthy } from './tidy.ts';

const documents = commitWorthy(REPOSITORY).filter((file) => file.endsWith('.md'));
const read = (file: string): string => readFileSync(join(REPOSITORY, file), 'utf8');

it('all links of all documents lead somewhere', () => {
  expect(documents).toEqual(expect.arrayContaining(['README.md', 'docs/architecture.md', 'docs/follow-one-vm.md']));
  const links = documents.flatMap((file) => linksIn(file, read(file)));
  expect(links.length).toBeGreaterThan(50);
  expect(judgeLinks(links, REPOSITORY)).toEqual([]);
});

it('the tour has twelve stops, each with a file', () => {
  const stops = read('docs/follow-one-vm.md').split('\n').filter((line) => /^\| \d+ \|/.test(line));
  expect(stops.map((line) => Number(/^\| (\d+) \|/.exec(line)?.[1]))).toEqual(Array.from({ length: 12 }, (_, index) => index + 1));
  for (const stop of stops) expect(linksIn('docs/follow-one-vm.md', stop).length, stop).toBeGreaterThan(0);
});

it('a how-to has five steps at most', () => {
  for (const name of readdirSync(join(REPOSITORY, 'docs/how-to')).filter((file) => file !== 'README.md')) {
    const steps = read(`docs/how-to/${name}`).split('\n').filter((line) => /^\d+\. /.test(line));
    expect(steps.length, name).toBeGreaterThan(1);
    expect(steps.length, name).toBeLessThanOrEqual(5);
  }
});

it('every service and library has a page', () => {
  for (const group of ['services', 'libs']) {
    for (const name of readdirSync(join(REPOSITORY, group))) {
      // A library whose exported names say it all needs none.
      if (group === 'libs' && ['messaging', 'observability'].includes(name)) continue;
      expect(documents).toContain(`${group}/${name}/README.md`);
    }
  }
});

describe('a link', () => {
  it('that leads nowhere is found', () => {
    const links = linksIn('docs/x.md', 'see [here](../README.md), [there](missing.md), [out](../../etc/passwd) and [this](architecture.md#no-such-heading)');
    expect(judgeLinks(links, REPOSITORY)).toEqual([
      'docs/x.md:1: missing.md leads to docs/missing.md, which does not exist',
      'docs/x.md:1: ../../etc/passwd leads out of the repository',
      'docs/x.md:1: docs/architecture.md has no heading for #no-such-heading',
    ]);
  });

  it('in code is none, and one around code is', () => {
    expect(linksIn('a.md', '```\n[a](b)\n```\n`[c](d)` [`e`](f) [g](https://example.org)').map(({ target }) => target)).toEqual(['f']);
  });

  it('to a heading is named as GitHub does', () => {
    expect(anchorOf('Sessions and generations')).toBe('sessions-and-generations');
    expect(anchorOf('What `npm start` does, twice')).toBe('what-npm-start-does-twice');
  });
});
