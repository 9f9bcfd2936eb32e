/*
 * Forms that a later procedure replaced. Every daemon still has them; they matter for daemons older than
 * the replacement, and for a fake that old clients drive. Counting and listing names cannot tell apart
 * what came and went between the two calls: prefer connectListAll… .
 */
import * as parameters from '../parameter-fields.ts';
import { charsText, cpuSet, domain, noFlags, snapshot, storagePool, storageVolume, text, textOptional } from '../layouts.ts';
import { high, remote, room } from '../procedure.ts';
import { array, bool, flags, i32, nothing, struct, u32, u64Number } from '../xdr.ts';

const namesMax = 16_384;
const names = array(text, namesMax);
const namesRoom = room(namesMax);
const snapshotFilter = flags({ roots: 1, descendants: 1, metadata: 2, leaves: 4, noLeaves: 8, noMetadata: 16, inactive: 32, active: 64, diskOnly: 128, internal: 256, external: 512, topological: 1_024 });
const snapshotNames = array(text, 1_024);
const snapshotNamesRoom = room(1_024);

export const supersededProcedures = {
  domainCreate: remote(9, '0.1.1', { domain }, nothing),
  domainDefineXml: remote(11, '0.1.1', { xml: text }, domain, high),
  domainUndefine: remote(35, '0.1.1', { domain }, nothing, high),
  domainDestroy: remote(12, '0.0.3', { domain }, nothing, high),
  domainShutdown: remote(33, '0.0.3', { domain }, nothing),
  domainAttachDevice: remote(8, '0.1.9', { domain, xml: text }, nothing),
  domainDetachDevice: remote(13, '0.1.9', { domain, xml: text }, nothing),
  domainSetMemory: remote(31, '0.1.1', { domain, memoryKib: u64Number }, nothing),
  domainSetVcpus: remote(32, '0.1.4', { domain, vcpus: u32 }, nothing),
  domainPinVcpu: remote(26, '0.1.4', { domain, vcpu: u32, cpus: cpuSet }, nothing),
  domainGetSchedulerParameters: remote(57, '0.2.3', { domain, room: room(16) }, parameters.schedulerParameters),
  domainSetSchedulerParameters: remote(58, '0.2.3', { domain, parameters: parameters.schedulerParameters }, nothing),
  domainCoreDump: remote(53, '0.1.9', { domain, to: text, flags: flags({ crash: 1, live: 2, bypassCache: 4, reset: 8, memoryOnly: 16 }) }, nothing),
  domainSave: remote(55, '0.0.3', { domain, to: text }, nothing),
  domainRestore: remote(54, '0.0.3', { from: text }, nothing),
  domainGetSecurityLabel: remote(121, '0.6.1', { domain }, struct({ label: charsText, enforcing: bool }), high),
  connectListDomains: remote(37, '0.0.3', { room: namesRoom }, array(i32, namesMax), high),
  connectNumOfDefinedDomains: remote(25, '0.1.5', {}, i32, high),
  connectListDefinedDomains: remote(21, '0.1.1', { room: namesRoom }, names, high),
  domainSnapshotNum: remote(187, '0.8.0', { domain, filter: snapshotFilter }, i32, high),
  domainSnapshotListNames: remote(188, '0.8.0', { domain, room: snapshotNamesRoom, filter: snapshotFilter }, snapshotNames, high),
  domainSnapshotNumChildren: remote(246, '0.9.7', { snapshot, filter: snapshotFilter }, i32, high),
  domainSnapshotListChildrenNames: remote(247, '0.9.7', { snapshot, room: snapshotNamesRoom, filter: snapshotFilter }, snapshotNames, high),
  connectNumOfNetworks: remote(52, '0.2.0', {}, i32, high),
  connectListNetworks: remote(38, '0.2.0', { room: namesRoom }, names, high),
  connectNumOfDefinedNetworks: remote(50, '0.2.0', {}, i32, high),
  connectListDefinedNetworks: remote(36, '0.2.0', { room: namesRoom }, names, high),
  connectNumOfStoragePools: remote(71, '0.4.1', {}, i32, high),
  connectListStoragePools: remote(72, '0.4.1', { room: room(4_096) }, array(text, namesMax), high),
  connectNumOfDefinedStoragePools: remote(73, '0.4.1', {}, i32, high),
  connectListDefinedStoragePools: remote(74, '0.4.1', { room: room(4_096) }, array(text, namesMax), high),
  storagePoolListVolumes: remote(92, '0.4.1', { pool: storagePool, room: namesRoom }, names, high),
  storageVolWipe: remote(165, '0.8.0', { volume: storageVolume, flags: noFlags }, nothing),
  connectNumOfInterfaces: remote(126, '0.6.4', {}, i32, high),
  connectListInterfaces: remote(127, '0.6.4', { room: namesRoom }, names, high),
  connectNumOfDefinedInterfaces: remote(137, '0.7.0', {}, i32, high),
  connectListDefinedInterfaces: remote(138, '0.7.0', { room: namesRoom }, names, high),
  connectNumOfSecrets: remote(139, '0.7.1', {}, i32, high),
  /** UUIDs. */
  connectListSecrets: remote(140, '0.7.1', { room: namesRoom }, names, high),
  connectNumOfNwfilters: remote(178, '0.8.0', {}, i32, high),
  connectListNwfilters: remote(179, '0.8.0', { room: room(1_024) }, array(text, namesMax), high),
  nodeNumOfDevices: remote(111, '0.5.0', { capability: textOptional, flags: noFlags }, i32, high),
  nodeListDevices: remote(112, '0.5.0', { capability: textOptional, room: namesRoom, flags: noFlags }, names, high),
  nodeDeviceDettach: remote(118, '0.6.1', { name: text }, nothing),
} as const;

