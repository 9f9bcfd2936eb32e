/*
 * The procedures of libvirtd, as one table in several files, by topic.
 *
 * An entry (see procedure.ts) says all that there is to know about a procedure. Names are libvirt's own,
 * in camel case: domainGetState is REMOTE_PROC_DOMAIN_GET_STATE, which virDomainGetState calls; libvirt's
 * reference of that function describes it. Numbers and layouts are facts of the protocol, which libvirt
 * promises to keep; each was seen to be understood by libvirtd 9.0.0, or where that lacks it by 12.8.0
 * (procedures.libvirt.spec.ts).
 *
 * Left out: what passes file descriptors (domain_create_with_files and its kind, domain_open_graphics,
 * domain_fd_associate, the monitor command with files), since Node cannot; the migration protocols
 * before 1.1.0 and tunnels whose data the client would carry; events without a callback id.
 */
import { affect, domain, network, nodeDevice, secret, storagePool, text, textOptional } from './layouts.ts';
import { saslProcedures } from './procedures/authentication.ts';
import { blockProcedures } from './procedures/block.ts';
import { connectionProcedures } from './procedures/connection.ts';
import { domainDeviceProcedures } from './procedures/domain-devices.ts';
import { domainStatsProcedures } from './procedures/domain-stats.ts';
import { domainProcedures } from './procedures/domain.ts';
import { guestProcedures } from './procedures/guest.ts';
import { migrationProcedures } from './procedures/migration.ts';
import { networkProcedures } from './procedures/network.ts';
import { nodeDeviceProcedures } from './procedures/node-device.ts';
import { qemuProcedures } from './procedures/qemu.ts';
import { snapshotProcedures } from './procedures/snapshot.ts';
import { storageProcedures } from './procedures/storage.ts';
import { supersededProcedures } from './procedures/superseded.ts';
import { high, qemu, remote } from './procedure.ts';
import { array, bool, flags, i32, nothing, only, optional, u32 } from './xdr.ts';

export { programs } from './procedure.ts';
export type { Priority, Procedure, Program, StreamDirection } from './procedure.ts';

/** What a connection says for itself. Not for callers: connection.ts does it in the right order. */
export const sessionProcedures = {
  connectOpen: remote(1, '0.0.3', { name: textOptional, flags: flags({ readOnly: 1 }) }, nothing, high),
  connectClose: remote(2, '0.0.3', {}, nothing, high),
  authList: remote(66, '0.4.1', {}, array(i32, 20), high),
  ...saslProcedures,
  authPolkit: remote(70, '0.4.1', {}, only('complete', { complete: bool }), high),
  connectDomainEventCallbackRegisterAny: remote(316, '1.2.1', { eventId: i32, domain: optional(domain) }, i32, high),
  connectDomainEventCallbackDeregisterAny: remote(317, '1.2.1', { callbackId: i32 }, nothing, high),
  connectNetworkEventRegisterAny: remote(313, '1.2.1', { eventId: i32, network: optional(network) }, i32, high),
  connectNetworkEventDeregisterAny: remote(314, '1.2.1', { callbackId: i32 }, nothing, high),
  connectStoragePoolEventRegisterAny: remote(368, '2.0.0', { eventId: i32, pool: optional(storagePool) }, i32, high),
  connectStoragePoolEventDeregisterAny: remote(369, '2.0.0', { callbackId: i32 }, nothing, high),
  connectNodeDeviceEventRegisterAny: remote(374, '2.2.0', { eventId: i32, device: optional(nodeDevice) }, i32, high),
  connectNodeDeviceEventDeregisterAny: remote(375, '2.2.0', { callbackId: i32 }, nothing, high),
  connectSecretEventRegisterAny: remote(380, '3.0.0', { eventId: i32, secret: optional(secret) }, i32, high),
  connectSecretEventDeregisterAny: remote(381, '3.0.0', { callbackId: i32 }, nothing, high),
  connectDomainMonitorEventRegister: qemu(4, '1.2.3', { domain: optional(domain), event: textOptional, flags: flags({ regex: 1, ignoreCase: 2 }) }, i32),
  connectDomainMonitorEventDeregister: qemu(5, '1.2.3', { callbackId: i32 }, nothing),
  connectRegisterCloseCallback: remote(360, '1.3.2', {}, nothing, high),
  connectUnregisterCloseCallback: remote(361, '1.3.2', {}, nothing, high),
  networkUpdateOnWire: remote(291, '0.10.2', { network, command: u32, section: u32, parentIndex: i32, xml: text, flags: affect }, nothing, high),
} as const;

export const procedures = {
  ...connectionProcedures,
  ...domainProcedures,
  ...domainDeviceProcedures,
  ...domainStatsProcedures,
  ...guestProcedures,
  ...blockProcedures,
  ...snapshotProcedures,
  ...migrationProcedures,
  ...storageProcedures,
  ...networkProcedures,
  ...nodeDeviceProcedures,
  ...qemuProcedures,
  ...supersededProcedures,
} as const;

export type Procedures = typeof procedures;
export type ProcedureName = keyof Procedures;
