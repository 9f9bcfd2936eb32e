/* docs/reference says what the code says, and says all of it. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { allEvents } from '@chronovirt/contracts/registry';
import { streams } from '@chronovirt/messaging/topology';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { differing, printReference } from './reference.ts';

let printed: ReadonlyMap<string, string> = new Map();
const page = (name: string): string => printed.get(name) ?? '';
const folder = mkdtempSync(join(tmpdir(), 'cv-reference-'));
beforeAll(async () => {
  printed = await printReference();
}, 60_000);
afterAll(() => { rmSync(folder, { recursive: true, force: true }); });

it('docs/reference is what the code says; if not: npm run build && node tools/reference.ts', () => {
  expect(differing(printed)).toEqual([]);
});

it('a page that was edited by hand, is missing, or belongs to nothing is found', () => {
  for (const [name, text] of printed) writeFileSync(join(folder, name), text);
  expect(differing(printed, folder)).toEqual([]);
  writeFileSync(join(folder, 'metrics.md'), `${readFileSync(join(folder, 'metrics.md'), 'utf8')}\nmore`);
  writeFileSync(join(folder, 'other.md'), 'x');
  rmSync(join(folder, 'events.md'));
  expect([...differing(printed, folder)].sort()).toEqual(['events.md', 'metrics.md', 'other.md']);
});

describe('the pages', () => {
  it('name every event and every stream', () => {
    expect(Object.keys(allEvents).filter((type) => !page('events.md').includes(`### ${type}\n`) && !page('events.md').includes(`### ${type} (`))).toEqual([]);
    expect(streams.filter(({ name }) => !page('messaging.md').includes(`| \`${name}\` |`))).toEqual([]);
  });

  it('show fields with their types', () => {
    expect(page('events.md')).toContain('| `nodeId` | `node_…` |');
    expect(page('commands.md')).toMatch(/### CreateVm\n[^#]*To `scheduler`, about `vmId`\.[^#]*\| `vcpus` \| `integer` \|/);
    expect(page('metrics.md')).toContain('| `cv_saga_duration_seconds` | histogram |');
  });

  it('describe the API', () => {
    const api = JSON.parse(page('openapi.json')) as { readonly openapi: string; readonly paths: Readonly<Record<string, object>> };
    expect(api.openapi).toMatch(/^3\.1/);
    expect(Object.keys(api.paths)).toEqual(expect.arrayContaining(['/v1/vms', '/v1/vms/{id}', '/v1/operations/{id}', '/v1/events', '/v1/nodes', '/v1/images', '/v1/networks', '/v1/tokens']));
  });
});
