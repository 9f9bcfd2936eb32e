/*
 * The journal on disk: SQLite, since it is in Node, survives kill -9 and power failure (WAL with
 * synchronous FULL: one fsync for each record), and answers at once, which `Journal` wants.
 *
 * It is bounded: answers live 30 days, as long as the key of a command; of more than the limit the oldest
 * go first. VMs that no welcome names any more and nobody spoke of for as long go too.
 */
import { DatabaseSync } from 'node:sqlite';
import type { VmId, VolumeId } from '@chronovirt/contracts/ids';
import type { Answer } from '../answer.ts';
import type { Told } from '../hypervisor.ts';
import { type KnownFile, pathOf } from '../pool/pool-files.ts';
import { newest } from './journal.ts';
import type { Journal, KnownVm } from './journal.ts';

const KEPT_MS = 30 * 24 * 60 * 60_000;
const ANSWERS_MAX = 200_000;
/** Between two clean-ups: so many records. */
const CLEAN_EVERY = 1_000;

const SCHEMA = `
  CREATE TABLE IF NOT EXISTS answer (
    command_id TEXT PRIMARY KEY,
    answer     TEXT NOT NULL,
    at         INTEGER NOT NULL -- milliseconds since the epoch
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX IF NOT EXISTS answer_at ON answer (at);
  CREATE TABLE IF NOT EXISTS vm (
    vm_id      TEXT PRIMARY KEY,
    generation INTEGER NOT NULL,
    here       INTEGER NOT NULL,
    at         INTEGER NOT NULL
  ) STRICT, WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS told (vm_id TEXT PRIMARY KEY, told TEXT NOT NULL) STRICT, WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS file (path TEXT PRIMARY KEY, file TEXT NOT NULL) STRICT, WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS unsettled (volume_id TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS session (only INTEGER PRIMARY KEY CHECK (only = 1), number INTEGER NOT NULL) STRICT;
`;

export interface StoredJournal extends Journal {
  close(): void;
}

/** Opens or makes the file. Throws when it cannot be read or another version wrote it. */
export function openJournal(path: string, now: () => number = Date.now): StoredJournal {
  const db = new DatabaseSync(path);
  // An agent that still ends holds it for a moment.
  db.exec('PRAGMA busy_timeout = 5000; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA cache_size = -1024; PRAGMA journal_size_limit = 4194304;');
  const { user_version: version } = db.prepare('PRAGMA user_version').get() as { user_version: number };
  if (version > 1) throw new Error(`the journal ${path} was written by a newer agent (shape ${String(version)}, this one reads 1)`);
  db.exec(`BEGIN IMMEDIATE; ${SCHEMA} PRAGMA user_version = 1; COMMIT;`);

  // What a domain was told is written before each answer, into the same file: whatever brings the answer to the disk
  // brings it along, and a process that is killed loses nothing of it.
  const hasty = new DatabaseSync(path);
  hasty.exec('PRAGMA busy_timeout = 5000; PRAGMA synchronous = OFF; PRAGMA cache_size = -256;');

  const statements = {
    recall: db.prepare('SELECT answer FROM answer WHERE command_id = ?'),
    record: db.prepare('INSERT INTO answer (command_id, answer, at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING'),
    vms: db.prepare('SELECT vm_id, generation, here FROM vm'),
    remember: db.prepare('INSERT INTO vm (vm_id, generation, here, at) VALUES (?1, ?2, ?3, ?4) ON CONFLICT (vm_id) DO UPDATE SET generation = ?2, here = ?3, at = ?4'),
    session: db.prepare('SELECT number FROM session'),
    setSession: db.prepare('INSERT INTO session (only, number) VALUES (1, ?1) ON CONFLICT (only) DO UPDATE SET number = ?1'),
    forgetAnswers: db.prepare('DELETE FROM answer WHERE at < ?'),
    forgetMost: db.prepare('DELETE FROM answer WHERE command_id IN (SELECT command_id FROM answer ORDER BY at LIMIT max(0, (SELECT count(*) FROM answer) - ?))'),
    tolds: hasty.prepare('SELECT told FROM told'),
    tell: hasty.prepare('INSERT INTO told (vm_id, told) VALUES (?1, ?2) ON CONFLICT (vm_id) DO UPDATE SET told = ?2'),
    forget: hasty.prepare('DELETE FROM told WHERE vm_id = ?'),
    files: hasty.prepare('SELECT file FROM file'),
    know: hasty.prepare('INSERT INTO file (path, file) VALUES (?1, ?2) ON CONFLICT (path) DO UPDATE SET file = ?2'),
    unknow: hasty.prepare('DELETE FROM file WHERE path = ?'),
    unsettled: hasty.prepare('SELECT volume_id FROM unsettled'),
    unsettle: hasty.prepare('INSERT INTO unsettled (volume_id) VALUES (?) ON CONFLICT DO NOTHING'),
    settle: hasty.prepare('DELETE FROM unsettled WHERE volume_id = ?'),
    forgetVms: db.prepare('DELETE FROM vm WHERE here = 0 AND at < ?'),
  };

  // Read once: what is known of VMs is asked for each command.
  const vms = new Map<VmId | VolumeId, KnownVm>();
  for (const row of statements.vms.all() as { vm_id: VmId; generation: number; here: number }[]) {
    vms.set(row.vm_id, { vmId: row.vm_id, generation: row.generation, here: row.here === 1 });
  }

  const tolds = new Map<VmId, Told>();
  for (const { told: text } of statements.tolds.all() as { told: string }[]) {
    // We wrote it ourselves.
    const told = JSON.parse(text) as Told;
    tolds.set(told.plan.vmId, told);
  }

  const files = new Map<string, KnownFile>();
  for (const { file: text } of statements.files.all() as { file: string }[]) {
    const file = JSON.parse(text) as KnownFile; // as above
    files.set(pathOf(file), file);
  }

  const unsettled = new Set((statements.unsettled.all() as { volume_id: VolumeId }[]).map((row) => row.volume_id));

  const clean = (): void => {
    const oldest = now() - KEPT_MS;
    db.exec('BEGIN IMMEDIATE');
    try {
      statements.forgetAnswers.run(oldest);
      statements.forgetMost.run(ANSWERS_MAX);
      statements.forgetVms.run(oldest);
      db.exec('COMMIT');
    } catch (fault) {
      db.exec('ROLLBACK');
      throw fault;
    }
  };
  clean();
  let untilClean = CLEAN_EVERY;

  const write = (heard: KnownVm): void => {
    const vm = newest(vms.get(heard.vmId), heard);
    statements.remember.run(vm.vmId, vm.generation, vm.here ? 1 : 0, now());
    vms.set(vm.vmId, vm);
  };

  return {
    recall: (commandId) => {
      const row = statements.recall.get(commandId) as { answer: string } | undefined;
      // We wrote it ourselves.
      return row === undefined ? undefined : (JSON.parse(row.answer) as Answer);
    },
    record: (commandId, answer) => {
      statements.record.run(commandId, JSON.stringify(answer), now());
      if (--untilClean > 0) return;
      untilClean = CLEAN_EVERY;
      clean();
    },
    vm: (vmId) => vms.get(vmId),
    vms: () => [...vms.values()],
    told: (vmId) => tolds.get(vmId),
    tolds: () => [...tolds.values()],
    tell: (told) => {
      statements.tell.run(told.plan.vmId, JSON.stringify(told));
      tolds.set(told.plan.vmId, told);
    },
    forget: (vmId) => {
      if (tolds.delete(vmId)) statements.forget.run(vmId);
    },
    files: () => [...files.values()],
    know: (file) => {
      statements.know.run(pathOf(file), JSON.stringify(file));
      files.set(pathOf(file), file);
    },
    unknow: (file) => {
      if (files.delete(pathOf(file))) statements.unknow.run(pathOf(file));
    },
    unsettled: () => [...unsettled],
    unsettle: (volumeId) => {
      statements.unsettle.run(volumeId);
      unsettled.add(volumeId);
    },
    settle: (volumeId) => {
      if (unsettled.delete(volumeId)) statements.settle.run(volumeId);
    },
    remember: write,
    adopt: (session, heard) => {
      db.exec('BEGIN IMMEDIATE');
      try {
        statements.setSession.run(session);
        heard.forEach(write);
        db.exec('COMMIT');
      } catch (fault) {
        db.exec('ROLLBACK');
        throw fault;
      }
    },
    session: () => (statements.session.get() as { number: number } | undefined)?.number ?? 0,
    close: () => {
      hasty.close();
      db.close();
    },
  };
}
