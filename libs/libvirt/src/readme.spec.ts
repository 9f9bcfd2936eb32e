import { readdirSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { procedures } from './procedures.ts';
import type { Procedure } from './procedures.ts';

const here = (path: string) => readFileSync(new URL(path, import.meta.url), 'utf8');

/**
 * Which procedures the specs call, and where: against QEMU in blocks whose title says so, else against
 * the test driver. procedures.libvirt.spec.ts does not count: it calls all, and looks at no result.
 */
function testedAgainst(): ReadonlyMap<string, ReadonlySet<string>> {
  const tested = new Map<string, Set<string>>();
  const specs = readdirSync(new URL('.', import.meta.url)).filter((file) => file.endsWith('.libvirt.spec.ts') && file !== 'procedures.libvirt.spec.ts');
  for (const spec of specs) {
    for (const block of here(`./${spec}`).split(/^describe\(/m).slice(1)) {
      const [title = ''] = block.split('\n');
      const against = /QEMU|system libvirtd/.test(title) ? 'QEMU' : 'test driver';
      // Five procedures are called by one function of ours.
      const text = block.includes('migrateDirect(') ? block + here('./migration.ts') : block;
      for (const [, name = ''] of text.matchAll(/\.(\w+)\(/g)) tested.set(name, (tested.get(name) ?? new Set()).add(against));
    }
  }
  return tested;
}

describe('the README', () => {
  it('lists every procedure as the table has it, and what it is tested against', () => {
    const tested = testedAgainst();
    const rows = Object.entries(procedures as Readonly<Record<string, Procedure>>).map(([name, procedure]) => {
      const number = procedure.program === 'qemu' ? `QEMU ${procedure.number}` : String(procedure.number);
      return `| ${number} | ${name} | ${procedure.priority} | ${procedure.since} | ${[...(tested.get(name) ?? [])].sort().toReversed().join(', ')} |`;
    });
    const written = here('../README.md').split('\n').filter((line) => /^\| (QEMU )?\d+ \|/.test(line));
    // On a difference the right table is printed; paste it.
    expect(written).toEqual(rows);
  });

  it('counts them', () => {
    expect(here('../README.md')).toContain(`${Object.keys(procedures).length} procedures`);
  });
});
