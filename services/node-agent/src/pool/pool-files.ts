/*
 * What lies in the folders of pools, against what should lie there: a function of both.
 *
 * A volume's file is called after it, so the name says whose bytes they are, and everything that has another
 * name is nobody's. That it is still the same file is known by where it lies on the file system and when it was
 * made there: both stay when a guest writes, when it grows, when a layer is merged into it, and one of them stays
 * when the folder is mounted again; who puts another file in its place changes both. Bytes that were copied over
 * those of the same file are seen only if the result is smaller, or no qcow2 any more: nobody can tell what a
 * guest has written from what somebody else has.
 *
 * Our own verbs make, rewrite and remove files, some of them beside each other. So nothing that a verb may have
 * touched is judged, and what is found after it is what should be there from then on: a file is known once it was
 * seen.
 */
import type { Difference } from '@chronovirt/contracts/drift/drift.events';
import type { PoolId, VmId, VolumeId } from '@chronovirt/contracts/ids';
import type { Layer } from '@chronovirt/contracts/vm/snapshot';

export interface PoolFile {
  readonly name: string;
  /** What it takes of the disk. */
  readonly bytes: number;
  /** How long it is. null: it is no plain file. */
  readonly sizeBytes: number | null;
  /** By number on its file system: of a link, what it leads to. `bornMs` is milliseconds since the epoch. */
  readonly device: string;
  readonly inode: string;
  readonly bornMs: number;
  readonly changedMs: number;
  /** null: it is no qcow2. */
  readonly virtualBytes: number | null;
}

export interface PoolFolder {
  readonly poolId: PoolId;
  readonly path: string;
  /** Other nodes see it, too, and do to the files of their VMs what they are told. */
  readonly shared: boolean;
  /** undefined: the folder is not there now, so nothing can be said of what should be in it. */
  readonly files: readonly PoolFile[] | undefined;
}

/** A file of a volume as it was when it was last taken for what it should be. */
export interface KnownFile extends Pick<PoolFile, 'name' | 'device' | 'inode' | 'bornMs' | 'virtualBytes'> {
  readonly folder: string;
  readonly volumeId: VolumeId;
}

/** A file that a domain should write. */
export interface WantedFile {
  readonly vmId: VmId;
  readonly vmName: string;
  readonly volumeId: VolumeId;
  readonly layer: Layer;
  readonly sizeGib: number;
  readonly running: boolean;
}

const ofVolume = /^(volume_[0-9a-f]{32})\.(?:([0-9a-f]{8})\.)?(.*)$/;
export const volumeIn = (name: string): VolumeId | undefined => ofVolume.exec(name)?.[1] as VolumeId | undefined;
export const layerIn = (name: string): Layer => ofVolume.exec(name)?.[2] ?? null;
/** It is whole, or will be: what is written beside it is not. */
export const isWhole = (name: string): boolean => /^(?:qcow2|raw)$/.test(ofVolume.exec(name)?.[3] ?? '');

export const POOL_TOKEN = '.chronovirt-pool';
/** What is on its way to the control plane is gone after that. Milliseconds. */
const PUBLISHED_MS = 24 * 3_600_000;
/** The VM whose cloud-init or memory a file holds. */
const ofVm = /^(vm_[0-9a-f]{32})(?:.*\.seed\.iso|\.save)(?:\.new)?$/;
const ofPublishing = /^op_[0-9a-f]{32}\.publish\.qcow2(?:\.new)?$/;

/** Names of ours that are no volume's. */
export const isOurs = (name: string): boolean => name.startsWith(POOL_TOKEN) || ofVm.test(name) || ofPublishing.test(name);

export interface Looking {
  readonly folders: readonly PoolFolder[];
  readonly known: readonly KnownFile[];
  readonly wanted: readonly WantedFile[];
  /** Volumes that a verb may be changing. */
  readonly inHand: ReadonlySet<VolumeId>;
  /** undefined: nobody could be asked. */
  readonly isVolume: (volumeId: VolumeId) => boolean | undefined;
  readonly isHere: (vmId: VmId) => boolean;
  /** Files that domains use that are not ours. */
  readonly used: ReadonlySet<string>;
  /** Milliseconds since the epoch. */
  readonly now: number;
}

export interface Found {
  readonly missing: readonly { readonly volumeId: VolumeId; readonly layer: Layer; readonly path: string; readonly wanted: WantedFile | undefined; readonly virtualBytes: number | null }[];
  readonly replaced: readonly { readonly file: KnownFile; readonly wanted: WantedFile | undefined; readonly differences: readonly Difference[] }[];
  readonly strange: readonly { readonly folder: PoolFolder; readonly file: PoolFile }[];
  /** Seen for the first time since a verb of ours, or grown: this is what they are from now on. */
  readonly seen: readonly KnownFile[];
  /** Not this node's to judge any more. */
  readonly forgotten: readonly KnownFile[];
}

export const pathOf = ({ folder, name }: Pick<KnownFile, 'folder' | 'name'>): string => `${folder}/${name}`;

const keyOf = (volumeId: VolumeId, layer: Layer): string => `${volumeId} ${layer ?? ''}`;

export function lookThrough({ folders, known, wanted, inHand, isVolume, isHere, used, now }: Looking): Found {
  const missing: Found['missing'][number][] = [];
  const replaced: Found['replaced'][number][] = [];
  const strange: Found['strange'][number][] = [];
  const seen: KnownFile[] = [];
  const wantedOf = new Map(wanted.map((one) => [keyOf(one.volumeId, one.layer), one]));
  const knownAt = new Map(known.map((file) => [pathOf(file), file]));
  const there = new Set<string>();
  for (const folder of folders) {
    for (const file of folder.files ?? []) {
      const path = pathOf({ folder: folder.path, name: file.name });
      there.add(path);
      const volumeId = volumeIn(file.name);
      if (volumeId === undefined) {
        if (!used.has(path) && !isExplained(file, isHere, now)) strange.push({ folder, file });
        continue;
      }
      const key = keyOf(volumeId, layerIn(file.name));
      if (inHand.has(volumeId)) continue;
      const before = knownAt.get(path);
      const its = wantedOf.get(key);
      // What was known stays so while nobody can be asked.
      const explained = its !== undefined || (isVolume(volumeId) ?? (before === undefined ? undefined : true));
      if (explained === false) strange.push({ folder, file });
      if (explained !== true || !isWhole(file.name) || (folder.shared && its === undefined)) continue;
      const differences = before === undefined ? [] : differencesOf(before, file);
      if (before !== undefined && differences.length > 0) replaced.push({ file: before, wanted: its, differences });
      else if (before === undefined || before.inode !== file.inode || before.device !== file.device || before.virtualBytes !== file.virtualBytes) {
        seen.push({ folder: folder.path, name: file.name, volumeId, device: file.device, inode: file.inode, bornMs: file.bornMs, virtualBytes: file.virtualBytes });
      }
    }
  }
  const forgotten: KnownFile[] = [];
  for (const file of known) {
    const folder = folders.find(({ path }) => path === file.folder);
    const layer = layerIn(file.name);
    const its = wantedOf.get(keyOf(file.volumeId, layer));
    // Whose it was there is not any more: it is nobody's.
    if (folder === undefined || (its === undefined && (folder.shared || isVolume(file.volumeId) === false))) forgotten.push(file);
    else if (folder.files !== undefined && !inHand.has(file.volumeId) && !there.has(pathOf(file))) missing.push({ volumeId: file.volumeId, layer, path: pathOf(file), wanted: its, virtualBytes: file.virtualBytes });
  }
  return { missing, replaced, strange, seen, forgotten };
}

/** A file of ours that is no volume's, and of which we know what for. */
function isExplained({ name, changedMs }: PoolFile, isHere: Looking['isHere'], now: number): boolean {
  if (name.startsWith(POOL_TOKEN)) return true;
  const vmId = ofVm.exec(name)?.[1];
  if (vmId !== undefined) return isHere(vmId as VmId);
  return ofPublishing.test(name) && now - changedMs < PUBLISHED_MS;
}

function differencesOf(before: KnownFile, file: PoolFile): readonly Difference[] {
  const found: Difference[] = [];
  // After a mount the numbers may be others: only when it was made tells, and not every file system keeps that.
  if (before.device === file.device && before.inode !== file.inode && before.bornMs !== file.bornMs) found.push({ field: 'file', expected: `inode ${before.inode}`, seen: `inode ${file.inode}` });
  if (before.virtualBytes !== null && file.virtualBytes === null) found.push({ field: 'format', expected: 'qcow2', seen: 'no qcow2' });
  else if (before.virtualBytes !== null && file.virtualBytes !== null && file.virtualBytes < before.virtualBytes) found.push({ field: 'virtualBytes', expected: before.virtualBytes, seen: file.virtualBytes });
  return found;
}
