/*
 * The archive from which a Linux kernel fills its first root: "newc" cpio
 * (Documentation/driver-api/early-userspace/buffer-format.rst of the kernel). Everything belongs to
 * root and has no date, so that equal content makes an equal archive.
 */
export interface ArchiveEntry {
  /** Without a leading slash. */
  readonly path: string;
  readonly kind: 'file' | 'folder' | 'link';
  /** Permissions, such as 0o755. */
  readonly mode: number;
  /** A file's bytes, or what a link points to. */
  readonly content?: Buffer;
}

const TYPE_BITS = { file: 0o100000, folder: 0o040000, link: 0o120000 } as const;

export function archive(entries: readonly ArchiveEntry[]): Buffer {
  const folders = new Set(entries.filter((entry) => entry.kind === 'folder').map((entry) => entry.path));
  const missing = new Set<string>();
  for (const { path } of entries) {
    const parts = path.split('/');
    for (let depth = 1; depth < parts.length; depth++) {
      const parent = parts.slice(0, depth).join('/');
      if (!folders.has(parent)) missing.add(parent);
    }
  }
  const parents = [...missing].map((path): ArchiveEntry => ({ path, kind: 'folder', mode: 0o755 }));
  // By path, so that a folder comes before what is in it.
  const ordered = [...parents, ...entries].sort((a, b) => (a.path < b.path ? -1 : 1));
  const blocks = ordered.flatMap((entry, index) => blocksOf(entry, index + 1));
  return Buffer.concat([...blocks, ...blocksOf({ path: 'TRAILER!!!', kind: 'file', mode: 0 }, 0)]);
}

function blocksOf(entry: ArchiveEntry, inode: number): readonly Buffer[] {
  const content = entry.content ?? Buffer.alloc(0);
  const name = Buffer.from(`${entry.path}\0`);
  const isTrailer = inode === 0;
  const fields = [inode, isTrailer ? 0 : TYPE_BITS[entry.kind] | entry.mode, 0, 0, entry.kind === 'folder' ? 2 : 1, 0, content.length, 0, 0, 0, 0, name.length, 0];
  const header = Buffer.from(`070701${fields.map((field) => field.toString(16).padStart(8, '0')).join('')}`);
  return [padded(Buffer.concat([header, name])), padded(content)];
}

const padded = (bytes: Buffer): Buffer => (bytes.length % 4 === 0 ? bytes : Buffer.concat([bytes, Buffer.alloc(4 - (bytes.length % 4))]));
