import { describe, expect, it } from 'vitest';
import type { PoolId, VmId, VolumeId } from '@chronovirt/contracts/ids';
import { type KnownFile, lookThrough, type Looking, type PoolFile, type PoolFolder } from './pool-files.ts';

const hex = (n: number): string => n.toString(16).padStart(32, '0');
const [volumeId, other]: readonly VolumeId[] = [`volume_${hex(1)}`, `volume_${hex(2)}`];
if (volumeId === undefined || other === undefined) throw new Error('two volumes');
const vmId: VmId = `vm_${hex(3)}`;
const poolId: PoolId = `pool_${hex(4)}`;
const DAY_MS = 24 * 3_600_000;

const fileOf = (name: string, more: Partial<PoolFile> = {}): PoolFile => ({ name, bytes: 1, sizeBytes: 1, device: '1', inode: '7', bornMs: 10, changedMs: DAY_MS, virtualBytes: 2 ** 30, ...more });
const folderOf = (files: PoolFolder['files'], more: Partial<PoolFolder> = {}): PoolFolder => ({ poolId, path: '/pool', shared: false, files, ...more });
const knownOf = (of: VolumeId, more: Partial<KnownFile> = {}): KnownFile => ({ folder: '/pool', name: `${of}.qcow2`, volumeId: of, device: '1', inode: '7', bornMs: 10, virtualBytes: 2 ** 30, ...more });
const wanted = { vmId, vmName: 'web', volumeId, layer: null, sizeGib: 1, running: true };
const look = (files: PoolFolder['files'], more: Partial<Looking> = {}) => lookThrough({ folders: [folderOf(files)], known: [], wanted: [], inHand: new Set(), isVolume: () => true, isHere: () => false, used: new Set(), now: DAY_MS, ...more });

describe('What lies in a pool', () => {
  it('is known once it was seen, and no news while it grows or was mounted again', () => {
    expect(look([fileOf(`${volumeId}.qcow2`)]).seen).toMatchObject([{ volumeId, inode: '7' }]);
    const known = [knownOf(volumeId)];
    expect(look([fileOf(`${volumeId}.qcow2`, { changedMs: 99, bytes: 2 ** 31 })], { known })).toMatchObject({ seen: [], replaced: [], missing: [], strange: [] });
    expect(look([fileOf(`${volumeId}.qcow2`, { virtualBytes: 2 ** 31 })], { known })).toMatchObject({ replaced: [], seen: [{ virtualBytes: 2 ** 31 }] });
    // Another number on another mount; or of a file system that numbers anew, where the birth stays.
    expect(look([fileOf(`${volumeId}.qcow2`, { device: '2', inode: '8', bornMs: 99 })], { known }).replaced).toEqual([]);
    expect(look([fileOf(`${volumeId}.qcow2`, { inode: '8' })], { known }).replaced).toEqual([]);
  });

  it('is another file when both its number and its birth are others, or when it holds less', () => {
    const known = [knownOf(volumeId)];
    expect(look([fileOf(`${volumeId}.qcow2`, { inode: '8', bornMs: 99 })], { known, wanted: [wanted] }).replaced).toMatchObject([{ wanted: { vmId }, differences: [{ field: 'file' }] }]);
    expect(look([fileOf(`${volumeId}.qcow2`, { virtualBytes: 512 })], { known }).replaced).toMatchObject([{ differences: [{ field: 'virtualBytes', seen: 512 }] }]);
    expect(look([fileOf(`${volumeId}.qcow2`, { virtualBytes: null })], { known }).replaced).toMatchObject([{ differences: [{ field: 'format' }] }]);
  });

  it('is missing when it was known, unless a verb has it in hand or its folder is not there', () => {
    const known = [knownOf(volumeId), knownOf(volumeId, { name: `${volumeId}.aaaaaaaa.qcow2` })];
    expect(look([], { known, wanted: [wanted] }).missing).toMatchObject([{ layer: null, wanted: { vmName: 'web' } }, { layer: 'aaaaaaaa', wanted: undefined }]);
    expect(look([], { known, inHand: new Set([volumeId]) }).missing).toEqual([]);
    expect(look(undefined, { known }).missing).toEqual([]);
    expect(look([], { known, folders: [] })).toMatchObject({ missing: [], forgotten: known });
    expect(look([], { known, isVolume: () => false })).toMatchObject({ missing: [], forgotten: known });
  });

  it('in a folder that others see is judged only by the node whose VM has it', () => {
    const folders = [folderOf([fileOf(`${other}.qcow2`)], { shared: true })];
    expect(look(undefined, { folders, known: [knownOf(volumeId)] })).toMatchObject({ missing: [], seen: [], forgotten: [{ volumeId }] });
    expect(look(undefined, { folders, known: [knownOf(volumeId)], wanted: [wanted] }).missing).toHaveLength(1);
  });

  it('is strange when it is no volume\'s and nothing else of ours', () => {
    const names = (found: ReturnType<typeof look>): readonly string[] => found.strange.map(({ file: { name } }) => name);
    expect(names(look(['.chronovirt-pool', `${volumeId}.qcow2`, `${volumeId}.by-hand`, `${volumeId}.raw.new`, `op_${hex(5)}.publish.qcow2`, `${vmId}.save`, 'x.iso'].map((name) => fileOf(name)), { isHere: (id) => id === vmId }))).toEqual(['x.iso']);
    expect(names(look([`${volumeId}.qcow2`, `${vmId}-1.seed.iso`].map((name) => fileOf(name)), { isVolume: () => false }))).toEqual([`${volumeId}.qcow2`, `${vmId}-1.seed.iso`]);
    expect(names(look([fileOf(`op_${hex(5)}.publish.qcow2`)], { now: 2 * DAY_MS }))).toHaveLength(1);
    expect(names(look([fileOf('foreign.qcow2')], { used: new Set(['/pool/foreign.qcow2']) }))).toEqual([]);
  });

  it('says nothing of a file that nobody could be asked about, but that it was known', () => {
    const files = [`${volumeId}.qcow2`, `${other}.qcow2`].map((name) => fileOf(name));
    expect(look(files, { known: [knownOf(volumeId)], isVolume: () => undefined })).toMatchObject({ strange: [], seen: [], missing: [], replaced: [] });
    expect(look(files, { wanted: [wanted], isVolume: () => undefined })).toMatchObject({ seen: [{ volumeId }] });
  });
});
