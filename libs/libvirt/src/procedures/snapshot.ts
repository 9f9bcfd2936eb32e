/** Snapshots, checkpoints and backups of domains. */
import { checkpoint, domain, noFlags, snapshot, text, textOptional } from '../layouts.ts';
import { countOf, high, needResults, remote } from '../procedure.ts';
import { array, bool, flags, nothing, only } from '../xdr.ts';

/** libvirt's own limit for a listing. */
const listMax = 16_384;
const snapshotFilter = flags({
  /** Of a domain: those without a parent. */
  roots: 1,
  /** Of a snapshot: also children of children. It is the same bit. */
  descendants: 1,
  metadata: 2,
  leaves: 4,
  noLeaves: 8,
  noMetadata: 16,
  inactive: 32,
  active: 64,
  diskOnly: 128,
  internal: 256,
  external: 512,
  topological: 1_024,
});
const checkpointFilter = flags({ roots: 1, descendants: 1, topological: 2, leaves: 4, noLeaves: 8 });
const deleteFlags = flags({ children: 1, metadataOnly: 2, childrenOnly: 4 });
const snapshots = only('snapshots', { snapshots: array(snapshot, listMax), count: countOf('snapshots') });
const checkpoints = only('checkpoints', { checkpoints: array(checkpoint, listMax), count: countOf('checkpoints') });

export const snapshotProcedures = {
  domainSnapshotCreateXml: remote(
    185,
    '0.8.0',
    {
      domain,
      xml: text,
      flags: flags({ redefine: 1, current: 2, noMetadata: 4, halt: 8, diskOnly: 16, reuseExternal: 32, quiesce: 64, atomic: 128, live: 256, validate: 512 }),
    },
    snapshot,
  ),
  domainListAllSnapshots: remote(274, '0.9.13', { domain, needResults, filter: snapshotFilter }, snapshots, high),
  domainSnapshotListAllChildren: remote(275, '0.9.13', { snapshot, needResults, filter: snapshotFilter }, snapshots, high),
  domainSnapshotLookupByName: remote(189, '0.8.0', { domain, name: text, flags: noFlags }, snapshot, high),
  domainSnapshotGetXmlDesc: remote(186, '0.8.0', { snapshot, flags: flags({ secure: 1 }) }, text, high),
  domainHasCurrentSnapshot: remote(190, '0.8.0', { domain, flags: noFlags }, bool),
  domainSnapshotCurrent: remote(191, '0.8.0', { domain, flags: noFlags }, snapshot),
  domainSnapshotIsCurrent: remote(271, '0.9.13', { snapshot, flags: noFlags }, bool),
  domainSnapshotHasMetadata: remote(272, '0.9.13', { snapshot, flags: noFlags }, bool),
  domainSnapshotGetParent: remote(244, '0.9.7', { snapshot, flags: noFlags }, snapshot, high),
  domainRevertToSnapshot: remote(192, '0.8.0', { snapshot, flags: flags({ running: 1, paused: 2, force: 4, resetNvram: 8 }) }, nothing),
  domainSnapshotDelete: remote(193, '0.8.0', { snapshot, flags: deleteFlags }, nothing),

  domainCheckpointCreateXml: remote(411, '5.6.0', { domain, xml: text, flags: flags({ redefine: 1, quiesce: 2, redefineValidate: 4 }) }, checkpoint),
  domainListAllCheckpoints: remote(413, '5.6.0', { domain, needResults, filter: checkpointFilter }, checkpoints, high),
  domainCheckpointListAllChildren: remote(414, '5.6.0', { checkpoint, needResults, filter: checkpointFilter }, checkpoints, high),
  domainCheckpointLookupByName: remote(415, '5.6.0', { domain, name: text, flags: noFlags }, checkpoint, high),
  /** `size` adds how much has been written since. */
  domainCheckpointGetXmlDesc: remote(412, '5.6.0', { checkpoint, flags: flags({ secure: 1, noDomain: 2, size: 4 }) }, text),
  domainCheckpointGetParent: remote(416, '5.6.0', { checkpoint, flags: noFlags }, checkpoint, high),
  domainCheckpointDelete: remote(417, '5.6.0', { checkpoint, flags: deleteFlags }, nothing),

  /** Begins a job, which domainGetJobStats follows and the event jobCompleted ends; in mode `pull`, domainAbortJob does. */
  domainBackupBegin: remote(421, '6.0.0', { domain, xml: text, checkpointXml: textOptional, flags: flags({ reuseExternal: 1, preserveShutdownDomain: 2 }) }, nothing),
  domainBackupGetXmlDesc: remote(422, '6.0.0', { domain, flags: noFlags }, text, high),
} as const;
