import { readdirSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { served } from './fake/handlers.ts';
import { procedures } from './procedures.ts';
import type { Procedure } from './procedures.ts';

const here = (path: string) => readFileSync(new URL(path, import.meta.url), 'utf8');

/**
 * Which procedures the specs call, and where: against QEMU in blocks whose title says so, else against
 * the test driver. procedures.libvirt.spec.ts does not count: it calls all, and looks at no result.
 */
function testedAgainst(specs: readonly string[]): ReadonlyMap<string, ReadonlySet<string>> {
  const tested = new Map<string, Set<string>>();
  for (const spec of specs) {
    for (const block of here(`./${spec}`).split(/^describe(?:\.skipIf\([^)]*\))?\(/m).slice(1)) {
      const [title = ''] = block.split('\n');
      const against = /QEMU|system libvirtd/.test(title) ? 'QEMU' : 'test driver';
      // Five procedures are called by one function of ours.
      const text = block.includes('migrateDirect(') ? block + here('./migration.ts') : block;
      for (const [, name = ''] of text.matchAll(/\.(\w+)\(/g)) tested.set(name, (tested.get(name) ?? new Set()).add(against));
    }
  }
  return tested;
}

/** libvirtd 9.0.0, which the specs run against, has none of them, and says so. One spec wants a newer one. */
const newerSpec = 'newer.libvirt.spec.ts';
const newerThanSeen = ({ since }: Procedure): boolean => Number(since.split('.')[0]) > 9 || /^9\.[1-9]/.test(since);

describe('the README', () => {
  it('lists every procedure as the table has it, and what it is tested against', () => {
    const specs = readdirSync(new URL('.', import.meta.url)).filter((file) => file.endsWith('.libvirt.spec.ts') && file !== 'procedures.libvirt.spec.ts');
    const tested = testedAgainst(specs.filter((spec) => spec !== newerSpec));
    const testedNewer = testedAgainst([newerSpec]);
    const rows = Object.entries(procedures as Readonly<Record<string, Procedure>>).map(([name, procedure]) => {
      const number = procedure.program === 'qemu' ? `QEMU ${procedure.number}` : String(procedure.number);
      const newer = newerThanSeen(procedure);
      // Whatever the fake has, the contract calls on QEMU (contract.libvirt.spec.ts sees to that).
      const contracted = served.includes(name) ? ['QEMU' as const] : [];
      const seen = [...new Set([...((newer ? testedNewer : tested).get(name) ?? []), ...contracted])].sort().toReversed().join(', ');
      return `| ${number} | ${name} | ${procedure.priority} | ${procedure.since} | ${newer ? 'libvirt 12.8.0, ' : ''}${seen} |`;
    });
    const written = here('../README.md').split('\n').filter((line) => /^\| (QEMU )?\d+ \|/.test(line));
    // On a difference the right table is printed; paste it.
    expect(written).toEqual(rows);
  });

  it('counts them', () => {
    const all: readonly Procedure[] = Object.values(procedures);
    expect(here('../README.md')).toContain(`${all.length} procedures`);
    expect(here('../README.md')).toContain(`${all.filter(newerThanSeen).length} of them came after 9.0.0`);
  });
});
