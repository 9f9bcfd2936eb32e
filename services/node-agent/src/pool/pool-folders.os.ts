/*
 * The folders in which a node keeps disks: the one it began with, and those that an operator made pools of.
 *
 * Paths come from the control plane, and an agent may be root. So a pool lies below a folder that this node was
 * configured with (CV_NODE_AGENT_POOL_ROOTS), every part of its path below that is a folder and no link, and
 * nothing else that is told to an agent holds a path: disks are named by pool and volume.
 *
 * A pool's folder holds a file with a token. Whoever opens the pool later, or on another node, must find it:
 * what is not mounted just now is not taken for an empty pool, and two nodes share one only if what one of them
 * wrote the other can read.
 *
 * Which pools there are is kept in one file, written beside, synced and renamed.
 */
import { constants } from 'node:fs';
import { lstat, mkdir, open, readdir, readFile, realpath, rm, rmdir, stat } from 'node:fs/promises';
import { join, normalize, sep } from 'node:path';
import { PoolId } from '@chronovirt/contracts/ids';
import type { PoolFacts } from '@chronovirt/contracts/agent/agent.commands';
import { z } from 'zod';
import { refuse } from '../answer.ts';
import type { Refusal } from '../answer.ts';
import { writeDurably } from '../durable.os.ts';
import { figuresOf } from '../host.os.ts';
import type { Done, Pool, PoolPlan } from '../hypervisor.ts';
import { isOurs, isWhole, POOL_TOKEN as TOKEN, type PoolFile, type PoolFolder, volumeIn } from './pool-files.ts';

/** Of a token's file, and of the list of pools. */
const TOKEN_BYTES_MAX = 1_000;
/** Of volumes, whose names have some 50 bytes, and of others, whose names have up to 255: what is told has to fit into one message. */
const VOLUME_FILES_MAX = 9_000;
const OTHER_FILES_MAX = 500;

const Known = z.array(z.object({ poolId: PoolId, path: z.string(), token: z.string(), shared: z.boolean().default(false) }));
type Known = z.infer<typeof Known>;

export interface PoolFolders {
  /** undefined: this node has no such pool, or its folder is not there now. */
  folderOf(poolId: PoolId): Promise<string | undefined>;
  /** All of them, the one that the node began with first. */
  folders(): readonly string[];
  open(pool: PoolPlan): Promise<Refusal | PoolFacts>;
  close(poolId: PoolId, remove: boolean): Done;
  look(poolId: PoolId): Promise<Refusal | PoolFacts>;
  /** Everything that lies in them, but folders. */
  files(): Promise<readonly PoolFolder[]>;
  /** Those that were made, for the report. */
  made(): Promise<readonly Pool[]>;
}

export interface PoolFoldersOptions {
  readonly own: { readonly poolId: PoolId; readonly path: string };
  readonly roots: readonly string[];
  /** Where the list of pools is kept. */
  readonly file: string;
}

export async function openPoolFolders({ own, roots, file }: PoolFoldersOptions): Promise<PoolFolders> {
  let known: Known = Known.parse(JSON.parse(await readFile(file, 'utf8').catch((fault: unknown) => {
    if ((fault as NodeJS.ErrnoException).code === 'ENOENT') return '[]';
    throw fault;
  })));
  let writing: Promise<void> = Promise.resolve();
  const heads = createHeads();

  const keep = (next: (before: Known) => Known): Promise<void> => {
    writing = writing.catch(() => undefined).then(async () => {
      const after = next(known);
      await writeDurably(file, JSON.stringify(after));
      known = after;
    });
    return writing;
  };

  const tokenIn = async (path: string): Promise<string | undefined> => {
    // No link: it could be any file of this machine.
    const handle = await open(join(path, TOKEN), constants.O_RDONLY | constants.O_NOFOLLOW).catch(() => undefined);
    if (handle === undefined) return undefined;
    try {
      const { buffer, bytesRead } = await handle.read(Buffer.alloc(TOKEN_BYTES_MAX), 0, TOKEN_BYTES_MAX, 0);
      return buffer.toString('utf8', 0, bytesRead);
    } finally {
      await handle.close();
    }
  };

  const factsOf = async (path: string): Promise<PoolFacts> => {
    const names = await readdir(path);
    let volumesBytes = 0;
    const volumes: string[] = [];
    const others: string[] = [];
    for (const name of names) {
      // What is ours and no disk, or is being written.
      if (isOurs(name) || (volumeIn(name) !== undefined && name.endsWith('.new'))) continue;
      if (volumeIn(name) !== undefined && isWhole(name)) {
        volumesBytes += ((await stat(join(path, name)).catch(() => undefined))?.blocks ?? 0) * 512;
        if (volumes.length < VOLUME_FILES_MAX) volumes.push(name);
      } else if (others.length < OTHER_FILES_MAX) {
        others.push(name.slice(0, 255));
      }
    }
    return { ...(await figuresOf(path)), volumesGib: Math.round(volumesBytes / 2 ** 30), files: [...volumes, ...others] };
  };

  const folderOf = async (poolId: PoolId): Promise<string | undefined> => {
    if (poolId === own.poolId) return own.path;
    const pool = known.find((one) => one.poolId === poolId);
    return pool !== undefined && (await tokenIn(pool.path)) === pool.token ? pool.path : undefined;
  };

  return {
    folderOf,
    folders: () => [own.path, ...known.map(({ path }) => path)],
    open: async ({ poolId, path, type, token, make }) => {
      const checked = await walk(path, roots, make);
      if (checked !== undefined) return checked;
      const other = known.find((one) => one.poolId !== poolId && one.path === path);
      if (other !== undefined || path === own.path) return refuse('pool.path_in_use', { path, poolId: other?.poolId ?? own.poolId });
      const found = await tokenIn(path);
      if (found !== undefined && found !== token) return refuse('pool.path_in_use', { path, says: 'there is the token of another pool in this folder' });
      if (found === undefined) {
        if (!make) return refuse('pool.not_the_same', { path, says: 'the folder does not hold what was written into this pool: it is another one, or not mounted' });
        await writeDurably(join(path, TOKEN), token);
      }
      await keep((before) => [...before.filter((one) => one.poolId !== poolId), { poolId, path, token, shared: type === 'shared' }]);
      return factsOf(path);
    },
    close: async (poolId, remove) => {
      const pool = known.find((one) => one.poolId === poolId);
      if (pool === undefined) return undefined;
      if (remove && (await tokenIn(pool.path)) === pool.token) {
        await rm(join(pool.path, TOKEN), { force: true });
        // What others have put there stays.
        await rmdir(pool.path).catch(() => undefined);
      }
      await keep((before) => before.filter((one) => one.poolId !== poolId));
      return undefined;
    },
    look: async (poolId) => {
      const path = await folderOf(poolId);
      return path === undefined ? refuse('pool.not_on_node', { poolId }) : factsOf(path);
    },
    files: async () => {
      const looked: PoolFolder[] = [];
      for (const { poolId, path, shared } of [{ ...own, shared: false }, ...known]) {
        const there = (await folderOf(poolId)) === undefined ? undefined : await filesIn(path, heads.read).catch((fault: unknown) => {
          if ((fault as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
          throw fault;
        });
        looked.push({ poolId, path, shared, files: there });
      }
      heads.forgetOthers();
      return looked;
    },
    made: () => Promise.all(known.map(async ({ poolId, path }): Promise<Pool> => {
      const active = (await folderOf(poolId)) !== undefined;
      return { poolId, name: poolId, made: true, active, ...(active ? await figuresOf(path) : { capacityGib: 0, usedGib: 0 }) };
    })),
  };
}

const LOOKED_AT_ONCE = 32;

async function filesIn(folder: string, virtualBytesOf: (path: string, stamp: string) => Promise<number | null>): Promise<readonly PoolFile[]> {
  const names = await readdir(folder);
  const found: PoolFile[] = [];
  const look = async (name: string): Promise<void> => {
    const path = join(folder, name);
    // What went away meanwhile is not there. A volume that was adopted is a link to where it lies.
    const file = await (volumeIn(name) === undefined ? lstat : stat)(path, { bigint: true }).catch(() => undefined);
    if (file === undefined || file.isDirectory()) return;
    const [device, inode, changedMs] = [String(file.dev), String(file.ino), Number(file.mtimeMs)];
    found.push({
      name, bytes: Number(file.blocks) * 512, sizeBytes: file.isFile() ? Number(file.size) : null, device, inode, bornMs: Number(file.birthtimeMs), changedMs,
      virtualBytes: file.isFile() ? await virtualBytesOf(path, `${device} ${inode} ${String(file.mtimeNs)} ${String(file.size)}`) : null,
    });
  };
  for (let at = 0; at < names.length; at += LOOKED_AT_ONCE) await Promise.all(names.slice(at, at + LOOKED_AT_ONCE).map(look));
  return found;
}

/** How large the disk in a qcow2 is, read anew only from files that were written since (QEMU, docs/interop/qcow2.txt: size at 24). */
function createHeads(): { readonly read: (path: string, stamp: string) => Promise<number | null>; forgetOthers(): void } {
  let before = new Map<string, { readonly stamp: string; readonly virtualBytes: number | null }>();
  let now: typeof before = new Map();
  return {
    read: async (path, stamp) => {
      const known = before.get(path);
      const virtualBytes = known?.stamp === stamp ? known.virtualBytes : await sizeIn(path);
      now.set(path, { stamp, virtualBytes });
      return virtualBytes;
    },
    forgetOthers: () => {
      before = now;
      now = new Map();
    },
  };
}

const QCOW2_HEAD_BYTES = 32;

async function sizeIn(path: string): Promise<number | null> {
  const handle = await open(path, constants.O_RDONLY).catch(() => undefined);
  if (handle === undefined) return null;
  try {
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(QCOW2_HEAD_BYTES), 0, QCOW2_HEAD_BYTES, 0);
    return bytesRead === QCOW2_HEAD_BYTES && buffer.readUInt32BE(0) === 0x51_46_49_fb ? Number(buffer.readBigUInt64BE(24)) : null;
  } finally {
    await handle.close();
  }
}

/** Why this is no path for a pool here; its folders are made on the way, if they shall be. */
async function walk(path: string, roots: readonly string[], make: boolean): Promise<Refusal | undefined> {
  const root = roots.find((one) => path.startsWith(one.endsWith(sep) ? one : one + sep));
  if (root === undefined || normalize(path) !== path) return refuse('pool.outside_roots', { path, roots: [...roots], says: 'pools lie below the folders that the node is configured with: CV_NODE_AGENT_POOL_ROOTS' });
  let at = await realpath(root).catch(() => undefined);
  if (at === undefined) return refuse('pool.root_missing', { root });
  for (const part of path.slice(root.length).split(sep).filter((one) => one !== '')) {
    at = join(at, part);
    const found = await lstat(at).catch(() => undefined);
    if (found === undefined) {
      if (!make) return refuse('pool.not_the_same', { path, says: 'there is no such folder on this node' });
      // QEMU's user passes through it to what is its own.
      await mkdir(at, { mode: 0o711 });
    } else if (!found.isDirectory()) {
      return refuse('pool.no_folder', { path, says: 'a part of the path is a link, or no folder' });
    }
  }
  return undefined;
}
