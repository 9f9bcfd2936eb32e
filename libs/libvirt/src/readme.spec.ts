import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { procedures } from './procedures.ts';
import type { Procedure } from './procedures.ts';

const here = (path: string) => readFileSync(new URL(path, import.meta.url), 'utf8');

/** Where the test of a procedure is: what the blocks of connection.libvirt.spec.ts run against. */
function testedAgainst(): ReadonlyMap<string, ReadonlySet<string>> {
  const tested = new Map<string, Set<string>>();
  for (const block of here('./connection.libvirt.spec.ts').split(/^describe\(/m).slice(1)) {
    const against = /^'(a guest under QEMU|a system libvirtd)/.test(block) ? 'QEMU' : 'test driver';
    for (const [, name = ''] of block.matchAll(/\.(\w+)\(/g)) tested.set(name, (tested.get(name) ?? new Set()).add(against));
  }
  return tested;
}

describe('the README', () => {
  it('lists every procedure as the table has it, and what it is tested against', () => {
    const tested = testedAgainst();
    const rows = Object.entries(procedures as Readonly<Record<string, Procedure>>).map(([name, procedure]) => {
      const number = procedure.program === 'qemu' ? `QEMU ${procedure.number}` : String(procedure.number);
      return `| ${number} | ${name} | ${procedure.priority} | ${procedure.since ?? ''} | ${[...(tested.get(name) ?? [])].sort().toReversed().join(', ')} |`;
    });
    const written = here('../README.md').split('\n').filter((line) => /^\| (QEMU )?\d+ \|/.test(line));
    // On a difference the right table is printed; paste it.
    expect(written).toEqual(rows);
  });
});
