/*
 * Backups as files:
 *
 *     <folder>/chronovirt-target.json              which target this is, whoever looks at it from wherever
 *     <folder>/<vm>/<backup>/manifest.json         what it takes to make the machine again
 *     <folder>/<vm>/<backup>/disk-0.qcow2          stands on ../<parent>/disk-0.qcow2, or on nothing
 *
 * A backup has its name only when it is whole: it is written under another, everything of it is brought to
 * the disk, and then it is renamed. One that is to go loses its name first. So whatever is killed in the
 * middle leaves a folder that is no backup, and that the next try takes away.
 *
 * A folder that was a target once and has no marker now is not mounted: nothing is written into what lies
 * below. And what is read at a target was written by somebody who could have been anybody: which file
 * stands on which is told to qemu-img, never read by it from the files.
 */
import { execFile } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { access, chmod, chown, constants, link, lstat, mkdir, readFile, rename, rm, rmdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { idFrom, type BackupId, type BackupTargetId, type VmId } from '@chronovirt/contracts/ids';
import type { BackupTarget } from '@chronovirt/contracts/backup/backup';
import type { BackupFile } from '@chronovirt/contracts/backup/backup.events';
import { refuse, type Refusal } from '../answer.ts';
import { sha256Of, syncPath, writeDurably } from '../durable.os.ts';
import type { Progress } from '../hypervisor.ts';
import { runWatched } from '../watched.os.ts';
import { fileOfUnit, Manifest, Marker } from './manifest.ts';

const run = promisify(execFile);
const QEMU_IMG_MS = 60_000;
/** Terabytes at the speed of a slow disk. */
const COPY_MS = 20 * 60 * 60_000;
const MARKER = 'chronovirt-target.json';
const MANIFEST = 'manifest.json';
const MANIFEST_BYTES_MAX = 4_194_304;
const UNFINISHED = '.unfinished';
const GONE = '.gone';

export class BackupFault extends Error {
  override readonly name = 'BackupFault';
  constructor(what: string, backupId: string, cause: unknown) { super(`could not ${what} backup ${backupId}`, { cause }); }
}

/** A backup, wherever it lies. */
export interface BackupPlace {
  readonly targetId: BackupTargetId;
  readonly vmId: VmId;
  readonly backupId: BackupId;
}

export interface BackupStore {
  /** Those that are there now. */
  targets(): Promise<readonly BackupTarget[]>;
  /** Why nothing can be read or written there. */
  missing(targetId: BackupTargetId): Promise<Refusal | undefined>;
  /** undefined: there is none, or not a whole one. */
  manifest(place: BackupPlace): Promise<{ readonly manifest: Manifest; readonly sha256: string } | undefined>;
  /** Begins anew, in the place of whatever an earlier try left: empty files for these disks, and their paths. */
  begin(place: BackupPlace, disks: readonly { readonly unit: number; readonly bytes: number }[], parent: BackupId | null): Promise<readonly string[]>;
  /** Fills the file of a disk that nobody uses, from its layer: all of it, or what differs from the parent. */
  copy(place: BackupPlace, unit: number, from: { readonly path: string; readonly format: 'qcow2' | 'raw' }, parent: BackupId | null, signal: AbortSignal, progress?: Progress): Promise<void>;
  /** It is whole from here on. */
  finish(place: BackupPlace, manifest: Omit<Manifest, 'files' | 'format' | 'takenAt' | keyof BackupPlace>, files: readonly Omit<BackupFile, 'bytes' | 'sha256'>[], signal: AbortSignal): Promise<void>;
  /** With whatever was begun of it. */
  remove(place: BackupPlace): Promise<void>;
  /** A refusal that names the first file which is not what it was. */
  verify(of: Omit<BackupPlace, 'backupId'>, chain: Chain, signal: AbortSignal, progress?: Progress): Promise<Refusal | undefined>;
  /** Where the disk of the last one of a chain can be read whole, as qemu-img is told it. */
  readable(of: Omit<BackupPlace, 'backupId'>, chain: Chain, unit: number): Promise<string>;
}

/** Oldest first. */
export type Chain = readonly { readonly backupId: BackupId; readonly files: readonly Pick<BackupFile, 'unit' | 'bytes' | 'sha256'>[] }[];

export interface BackupStoreOptions {
  /** Folders by the names of their targets. */
  readonly dirs: Readonly<Record<string, string>>;
  /** What they were when they were last seen is kept here. */
  readonly stateDir: string;
  readonly log: { warn(fields: object, sentence: string): void };
  readonly qemuImg?: string;
}

/** Markers and manifests are read by other nodes, and by people. */
const READABLE = 0o644;

export function createBackupStore({ dirs, stateDir, log, qemuImg = 'qemu-img' }: BackupStoreOptions): BackupStore {
  const rememberedFile = join(stateDir, 'backup-targets.json');

  const remembered = async (): Promise<Record<string, string>> => JSON.parse(await readFile(rememberedFile, 'utf8').catch(() => '{}')) as Record<string, string>;

  const markerIn = async (dir: string): Promise<BackupTargetId | undefined> => {
    const text = await readFile(join(dir, MARKER), 'utf8').catch((fault: NodeJS.ErrnoException) => {
      if (fault.code === 'ENOENT') return undefined;
      throw fault;
    });
    return text === undefined ? undefined : Marker.parse(JSON.parse(text)).targetId;
  };

  /** Of two nodes that come first at the same moment, one writes it and both read that. */
  const mark = async (dir: string): Promise<BackupTargetId> => {
    const targetId = idFrom('target', randomBytes(16).toString('hex'));
    const mine = join(dir, `.${targetId}.new`);
    await writeDurably(mine, `${JSON.stringify({ format: 1, targetId })}\n`, READABLE);
    await link(mine, join(dir, MARKER)).catch((fault: NodeJS.ErrnoException) => {
      if (fault.code !== 'EEXIST') throw fault;
    });
    await rm(mine, { force: true });
    await syncPath(dir);
    const marked = await markerIn(dir);
    if (marked === undefined) throw new Error(`${dir} has no marker although it was written`);
    return marked;
  };

  const targetIn = async (name: string, dir: string): Promise<BackupTargetId | undefined> => {
    try {
      await access(dir, constants.R_OK | constants.W_OK | constants.X_OK);
      const known = (await remembered())[name];
      const found = await markerIn(dir);
      if (found === undefined && known !== undefined) throw new Error('it was a target and has no marker now: is it mounted?');
      if (found !== undefined) {
        if (found !== known) await writeDurably(rememberedFile, JSON.stringify({ ...(await remembered()), [name]: found }), READABLE);
        return found;
      }
      const made = await mark(dir);
      await writeDurably(rememberedFile, JSON.stringify({ ...(await remembered()), [name]: made }), READABLE);
      return made;
    } catch (err) {
      log.warn({ err, target: name }, 'a folder for backups cannot be used');
      return undefined;
    }
  };

  const targets = async (): Promise<readonly BackupTarget[]> => {
    const found: BackupTarget[] = [];
    for (const [name, dir] of Object.entries(dirs)) {
      const targetId = await targetIn(name, dir);
      if (targetId !== undefined) found.push({ targetId, name });
    }
    return found;
  };

  const dirOf = async (targetId: BackupTargetId): Promise<string> => {
    const target = (await targets()).find((one) => one.targetId === targetId);
    const dir = target === undefined ? undefined : dirs[target.name];
    if (dir === undefined) throw new Error(`the backup target ${targetId} is not to be seen from this node`);
    return dir;
  };

  /** Looks at every target: what asks for several backups of a VM asks once. */
  const pathsOf = async ({ targetId, vmId }: Omit<BackupPlace, 'backupId'>): Promise<(backupId: BackupId) => string> => {
    // The contracts say so already; a path is made of them here.
    if (!/^vm_[0-9a-f]{32}$/.test(vmId)) throw new RangeError('not the id of a VM');
    const dir = await dirOf(targetId);
    return (backupId) => {
      if (!/^backup_[0-9a-f]{32}$/.test(backupId)) throw new RangeError('not the id of a backup');
      return join(dir, vmId, backupId);
    };
  };
  const pathOf = async (place: BackupPlace): Promise<string> => (await pathsOf(place))(place.backupId);

  const manifest: BackupStore['manifest'] = async (place) => {
    const file = join(await pathOf(place), MANIFEST);
    const found = await lstat(file).catch(() => undefined);
    if (found === undefined || !found.isFile() || found.size > MANIFEST_BYTES_MAX) return undefined;
    const text = await readFile(file);
    const parsed = Manifest.safeParse(safely(text.toString('utf8')));
    return parsed.success && parsed.data.backupId === place.backupId && parsed.data.vmId === place.vmId ? { manifest: parsed.data, sha256: createHash('sha256').update(text).digest('hex') } : undefined;
  };

  const begin: BackupStore['begin'] = async (place, disks, parent) => {
    const path = `${await pathOf(place)}${UNFINISHED}`;
    try {
      await rm(path, { recursive: true, force: true });
      // QEMU's user passes through to the files that are given to it.
      await mkdir(join(path, '..'), { recursive: true, mode: 0o711 });
      await mkdir(path, { mode: 0o711 });
      const paths: string[] = [];
      for (const { unit, bytes } of disks) {
        const name = fileOfUnit(unit);
        const below = parent === null ? [] : ['-F', 'qcow2', '-b', join('..', parent, name)];
        await run(qemuImg, ['create', '-q', '-f', 'qcow2', '-o', 'compat=1.1', ...below, join(path, name), String(bytes)], { timeout: QEMU_IMG_MS });
        paths.push(join(path, name));
      }
      return paths;
    } catch (cause) {
      throw new BackupFault('begin', place.backupId, cause);
    }
  };

  const copy: BackupStore['copy'] = async (place, unit, from, parent, signal, progress) => {
    const to = join(`${await pathOf(place)}${UNFINISHED}`, fileOfUnit(unit));
    try {
      if (parent === null) {
        await runWatched(qemuImg, ['convert', '-p', '-f', from.format, '-O', 'qcow2', '-o', 'compat=1.1', from.path, to], { timeoutMs: COPY_MS, signal }, progress);
        return;
      }
      // An empty layer on what there is, brought to stand on the parent: it takes in exactly what differs.
      await rm(to, { force: true });
      await run(qemuImg, ['create', '-q', '-f', 'qcow2', '-o', 'compat=1.1', '-F', from.format, '-b', from.path, to], { timeout: QEMU_IMG_MS });
      await runWatched(qemuImg, ['rebase', '-p', '-f', 'qcow2', '-F', 'qcow2', '-b', join('..', parent, fileOfUnit(unit)), to], { timeoutMs: COPY_MS, signal }, progress);
    } catch (cause) {
      throw new BackupFault('write', place.backupId, cause);
    }
  };

  const finish: BackupStore['finish'] = async (place, more, files, signal) => {
    const path = await pathOf(place);
    const unfinished = `${path}${UNFINISHED}`;
    try {
      const listed: Manifest['files'] = [];
      for (const file of files) {
        const name = fileOfUnit(file.unit);
        const at = join(unfinished, name);
        // QEMU is done with it: it is nobody's but ours.
        if (process.getuid?.() === 0) await chown(at, 0, 0);
        await chmod(at, 0o600);
        await syncPath(at);
        listed.push({ name, ...file, bytes: (await stat(at)).size, sha256: await sha256Of(at, signal) });
      }
      const { targetId, vmId, backupId } = place;
      const text = JSON.stringify({ format: 1, backupId, vmId, targetId, takenAt: new Date().toISOString(), ...more, files: listed } satisfies Manifest, null, 2);
      await writeDurably(join(unfinished, MANIFEST), `${text}\n`, READABLE);
      await syncPath(unfinished);
      signal.throwIfAborted();
      await rename(unfinished, path);
      await syncPath(join(path, '..'));
      await syncPath(join(path, '..', '..'));
    } catch (cause) {
      throw new BackupFault('finish', place.backupId, cause);
    }
  };

  const remove: BackupStore['remove'] = async (place) => {
    const path = await pathOf(place);
    try {
      await rename(path, `${path}${GONE}`).catch(async (fault: NodeJS.ErrnoException) => {
        if (fault.code === 'ENOENT') return;
        // Half gone from before.
        await rm(`${path}${GONE}`, { recursive: true, force: true });
        await rename(path, `${path}${GONE}`);
      });
      for (const rest of [`${path}${GONE}`, `${path}${UNFINISHED}`]) await rm(rest, { recursive: true, force: true });
      // The last one takes the VM's folder with it.
      await rmdir(join(path, '..')).catch(() => undefined);
    } catch (cause) {
      throw new BackupFault('remove', place.backupId, cause);
    }
  };

  const verify: BackupStore['verify'] = async (of, chain, signal, progress) => {
    const at = await pathsOf(of);
    const bytesAll = chain.flatMap(({ files }) => files).reduce((sum, { bytes }) => sum + bytes, 0);
    let bytesRead = 0;
    const read = (bytes: number): void => {
      bytesRead += bytes;
      progress?.(Math.floor((bytesRead * 100) / bytesAll));
    };
    for (const { backupId, files } of chain) {
      const path = at(backupId);
      for (const { unit, bytes, sha256 } of files) {
        const file = join(path, fileOfUnit(unit));
        const found = await lstat(file).catch(() => undefined);
        const damaged = (says: string): Refusal => refuse('backup.damaged', { backupId, file: fileOfUnit(unit), says });
        if (found === undefined || !found.isFile()) return damaged('the file is not there');
        if (found.size !== bytes) return damaged(`the file has ${String(found.size)} bytes and had ${String(bytes)}`);
        if ((await sha256Of(file, signal, read)) !== sha256) return damaged('the file does not hold what it held');
      }
    }
    return undefined;
  };

  const readable: BackupStore['readable'] = async (of, chain, unit) => {
    const at = await pathsOf(of);
    let below: object | null = null;
    for (const { backupId } of chain) {
      const filename = join(at(backupId), fileOfUnit(unit));
      below = { driver: 'qcow2', file: { driver: 'file', filename }, backing: below };
    }
    return `json:${JSON.stringify(below)}`;
  };

  return {
    targets, manifest, begin, copy, finish, remove, verify, readable,
    missing: async (targetId) => ((await targets()).some((one) => one.targetId === targetId) ? undefined : refuse('backup.target_missing', { targetId, says: 'this node does not see the backup target now' })),
  };
}

const safely = (text: string): unknown => {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
};
