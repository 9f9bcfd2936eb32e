/** Storage pools and volumes. */
import { noFlags, storagePool, storagePoolInfo, storageVolume, storageVolumeInfo, text, textOptional, uuid } from '../layouts.ts';
import { countOf, high, needResults, remote } from '../procedure.ts';
import { array, bool, choice, defaulted, flags, i32, nothing, only, u32, u64Number } from '../xdr.ts';

const listMax = 16_384;
const createFlags = flags({ build: 1, buildOverwrite: 2, buildNoOverwrite: 4 });
const volumeCreateFlags = flags({ preallocateMetadata: 1, reflink: 2, validate: 4 });

export const storageProcedures = {
  connectListAllStoragePools: remote(
    281,
    '0.10.2',
    {
      needResults,
      filter: flags({
        inactive: 1 << 0,
        active: 1 << 1,
        persistent: 1 << 2,
        transient: 1 << 3,
        autostart: 1 << 4,
        noAutostart: 1 << 5,
        dir: 1 << 6,
        fs: 1 << 7,
        netfs: 1 << 8,
        logical: 1 << 9,
        disk: 1 << 10,
        iscsi: 1 << 11,
        scsi: 1 << 12,
        mpath: 1 << 13,
        rbd: 1 << 14,
        sheepdog: 1 << 15,
        gluster: 1 << 16,
        zfs: 1 << 17,
        vstorage: 1 << 18,
        iscsiDirect: 1 << 19,
      }),
    },
    only('pools', { pools: array(storagePool, listMax), count: countOf('pools', u32) }),
    high,
  ),
  /** XML `<sources>` of what could be a pool of the type. */
  connectFindStoragePoolSources: remote(75, '0.4.5', { type: text, source: textOptional, flags: noFlags }, text),
  connectGetStoragePoolCapabilities: remote(403, '5.2.0', { flags: noFlags }, text),
  storagePoolLookupByName: remote(84, '0.4.1', { name: text }, storagePool, high),
  storagePoolLookupByUuid: remote(85, '0.4.1', { uuid }, storagePool, high),
  storagePoolLookupByTargetPath: remote(391, '4.1.0', { path: text }, storagePool, high),
  storagePoolLookupByVolume: remote(86, '0.4.1', { volume: storageVolume }, storagePool, high),
  storagePoolDefineXml: remote(77, '0.4.1', { xml: text, flags: flags({ validate: 1 }) }, storagePool, high),
  /** Starts a transient pool. */
  storagePoolCreateXml: remote(76, '0.4.1', { xml: text, flags: createFlags }, storagePool),
  storagePoolBuild: remote(79, '0.4.1', { pool: storagePool, flags: flags({ repair: 1, resize: 2, noOverwrite: 4, overwrite: 8 }) }, nothing),
  storagePoolCreate: remote(78, '0.4.1', { pool: storagePool, flags: createFlags }, nothing),
  storagePoolDestroy: remote(80, '0.4.1', { pool: storagePool }, nothing, high),
  storagePoolDelete: remote(81, '0.4.1', { pool: storagePool, flags: flags({ zeroed: 1 }) }, nothing),
  storagePoolUndefine: remote(82, '0.4.1', { pool: storagePool }, nothing, high),
  storagePoolRefresh: remote(83, '0.4.1', { pool: storagePool, flags: noFlags }, nothing),
  storagePoolGetInfo: remote(87, '0.4.1', { pool: storagePool }, storagePoolInfo, high),
  storagePoolGetXmlDesc: remote(88, '0.4.1', { pool: storagePool, flags: flags({ inactive: 1 }) }, text, high),
  storagePoolGetAutostart: remote(89, '0.4.1', { pool: storagePool }, bool, high),
  storagePoolSetAutostart: remote(90, '0.4.1', { pool: storagePool, autostart: bool }, nothing, high),
  storagePoolIsActive: remote(154, '0.7.3', { pool: storagePool }, bool, high),
  storagePoolIsPersistent: remote(155, '0.7.3', { pool: storagePool }, bool, high),
  storagePoolNumOfVolumes: remote(91, '0.4.1', { pool: storagePool }, i32, high),
  storagePoolListAllVolumes: remote(
    282,
    '0.10.2',
    { pool: storagePool, needResults, flags: noFlags },
    only('volumes', { volumes: array(storageVolume, listMax), count: countOf('volumes', u32) }),
    high,
  ),

  /** Write `<target><compat>1.1</compat>` for a qcow2 volume: the default of old has no persistent bitmaps. */
  storageVolCreateXml: remote(93, '0.4.1', { pool: storagePool, xml: text, flags: volumeCreateFlags }, storageVolume),
  /** A volume with another one's data. */
  storageVolCreateXmlFrom: remote(125, '0.6.4', { pool: storagePool, xml: text, from: storageVolume, flags: volumeCreateFlags }, storageVolume),
  storageVolLookupByName: remote(95, '0.4.1', { pool: storagePool, name: text }, storageVolume, high),
  storageVolLookupByKey: remote(96, '0.4.1', { key: text }, storageVolume, high),
  storageVolLookupByPath: remote(97, '0.4.1', { path: text }, storageVolume, high),
  storageVolDelete: remote(94, '0.4.1', { volume: storageVolume, flags: flags({ zeroed: 1, withSnapshots: 2 }) }, nothing),
  storageVolWipePattern: remote(
    259,
    '0.9.10',
    {
      volume: storageVolume,
      algorithm: choice({ zero: 0, nnsa: 1, dod: 2, bsi: 3, gutmann: 4, schneier: 5, pfitzner7: 6, pfitzner33: 7, random: 8, trim: 9 }, 'zero', u32),
      flags: noFlags,
    },
    nothing,
  ),
  storageVolGetInfo: remote(98, '0.4.1', { volume: storageVolume }, storageVolumeInfo, high),
  /** `physical`: what it takes on the node, in the place of `allocationBytes`. */
  storageVolGetInfoFlags: remote(378, '3.0.0', { volume: storageVolume, flags: flags({ physical: 1 }) }, storageVolumeInfo, high),
  storageVolGetXmlDesc: remote(99, '0.4.1', { volume: storageVolume, flags: noFlags }, text, high),
  storageVolGetPath: remote(100, '0.4.1', { volume: storageVolume }, text, high),
  /** `delta`: by so much, not to. */
  storageVolResize: remote(260, '0.9.10', { volume: storageVolume, capacityBytes: u64Number, flags: flags({ allocate: 1, delta: 2, shrink: 4 }) }, nothing),
  /** Writes to the volume from `offset` on; with `length`, no more than that. Give a connection of its own. */
  storageVolUpload: remote(
    208,
    '0.9.0',
    { volume: storageVolume, offset: defaulted(u64Number, 0), length: defaulted(u64Number, 0), flags: flags({ sparse: 1 }) },
    nothing,
    { stream: 'up' },
  ),
  /** Reads from the volume from `offset` on; with `length`, no more than that. Give a connection of its own. */
  storageVolDownload: remote(
    209,
    '0.9.0',
    { volume: storageVolume, offset: defaulted(u64Number, 0), length: defaulted(u64Number, 0), flags: flags({ sparse: 1 }) },
    nothing,
    { stream: 'down' },
  ),
} as const;
