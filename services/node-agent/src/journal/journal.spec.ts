import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { VmId } from '@chronovirt/contracts/ids';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createMemoryJournal } from './journal.ts';
import type { Journal } from './journal.ts';
import { openJournal } from './journal.store.ts';
import type { StoredJournal } from './journal.store.ts';

const vm = (n: number): VmId => `vm_${n.toString(16).padStart(32, '0')}`;
const id = (n: number): string => `00000000-0000-7000-8000-${n.toString(16).padStart(12, '0')}`;

let dir: string;
beforeEach(() => { dir = mkdtempSync(join(tmpdir(), 'cv-journal-')); });
afterEach(() => { rmSync(dir, { recursive: true }); });

describe.each<[string, () => Journal]>([['in memory', () => createMemoryJournal()], ['on disk', () => openJournal(join(dir, 'journal.sqlite'))]])('A journal %s', (_kind, open) => {
  it('keeps the first answer to a command', () => {
    const journal = open();
    expect(journal.recall(id(1))).toBeUndefined();
    journal.record(id(1), { refused: 'domain.gone', because: { vmId: vm(1) } });
    journal.record(id(1), { version: 0 });
    expect(journal.recall(id(1))).toEqual({ refused: 'domain.gone', because: { vmId: vm(1) } });
  });

  it('never goes back to an older generation, and believes the latest word about the same one', () => {
    const journal = open();
    journal.remember({ vmId: vm(1), generation: 3, here: true });
    journal.remember({ vmId: vm(1), generation: 2, here: false });
    expect(journal.vm(vm(1))).toEqual({ vmId: vm(1), generation: 3, here: true });
    journal.adopt(7, [{ vmId: vm(1), generation: 3, here: false }, { vmId: vm(2), generation: 1, here: true }]);
    expect(journal.vms()).toEqual([{ vmId: vm(1), generation: 3, here: false }, { vmId: vm(2), generation: 1, here: true }]);
    expect(journal.session()).toBe(7);
  });
});

describe('A journal on disk', () => {
  const path = (): string => join(dir, 'journal.sqlite');
  const opened: StoredJournal[] = [];
  const open = (now?: () => number): StoredJournal => {
    const journal = openJournal(path(), now);
    opened.push(journal);
    return journal;
  };
  afterEach(() => { for (const journal of opened.splice(0)) try { journal.close(); } catch { /* closed by the test */ } });

  it('is there after it was opened again', () => {
    const first = open();
    first.record(id(1), { version: 0, facts: { state: 'running' } });
    first.remember({ vmId: vm(1), generation: 2, here: true });
    first.adopt(4, []);
    first.close();
    const second = open();
    expect(second.recall(id(1))).toEqual({ version: 0, facts: { state: 'running' } });
    expect(second.vm(vm(1))?.generation).toBe(2);
    expect(second.session()).toBe(4);
  });

  it('has a record on disk when record returns, not when it is closed', () => {
    open().record(id(1), { version: 0 });
    expect(open().recall(id(1))).toEqual({ version: 0 });
  });

  it('forgets answers after 30 days, and VMs that live elsewhere', () => {
    const days = (n: number): number => n * 24 * 60 * 60_000;
    const first = open(() => 0);
    first.record(id(1), { version: 0 });
    first.remember({ vmId: vm(1), generation: 1, here: false });
    first.remember({ vmId: vm(2), generation: 1, here: true });
    first.close();
    const second = open(() => days(29));
    expect(second.recall(id(1))).toBeDefined();
    second.close();
    const third = open(() => days(31));
    expect(third.recall(id(1))).toBeUndefined();
    third.close();
    expect(open(() => days(31)).vms().map((known) => known.vmId)).toEqual([vm(2)]);
  });
});
