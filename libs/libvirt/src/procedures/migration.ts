/*
 * Migration of domains.
 *
 * Peer to peer, one call is enough: domainMigratePerform3Params at the source, with `peer2peer` among its
 * flags and the destination's URI as the source's daemon reaches it. Directly, the client is between the
 * two daemons and makes five calls (begin and perform and confirm at the source, prepare and finish at
 * the destination), and carries the cookies from each to the next: migration.ts of this package does it.
 * The protocols before libvirt 1.1.0, and the tunnel whose data a client would carry, are left out.
 */
import * as parameters from '../parameter-fields.ts';
import { domain, noFlags, text, textOptional } from '../layouts.ts';
import { remote } from '../procedure.ts';
import { bool, bytes, defaulted, flags, nothing, struct, u64Number } from '../xdr.ts';

export const migrateFlags = flags({
  live: 1 << 0,
  peer2peer: 1 << 1,
  tunnelled: 1 << 2,
  persistDest: 1 << 3,
  undefineSource: 1 << 4,
  paused: 1 << 5,
  nonSharedDisk: 1 << 6,
  nonSharedInc: 1 << 7,
  changeProtection: 1 << 8,
  unsafe: 1 << 9,
  offline: 1 << 10,
  compressed: 1 << 11,
  abortOnError: 1 << 12,
  autoConverge: 1 << 13,
  rdmaPinAll: 1 << 14,
  postcopy: 1 << 15,
  tls: 1 << 16,
  parallel: 1 << 17,
  nonSharedSynchronousWrites: 1 << 18,
  postcopyResume: 1 << 19,
  zerocopy: 1 << 20,
});

const cookieBytesMax = 4_194_304;
const cookie = bytes(cookieBytesMax);
const cookieIn = defaulted(cookie, new Uint8Array());
const migrateParameters = defaulted(parameters.migrateParameters, {});

export const migrationProcedures = {
  domainMigrateBegin3Params: remote(302, '1.1.0', { domain, parameters: migrateParameters, flags: migrateFlags }, struct({ cookie, xml: text })),
  domainMigratePrepare3Params: remote(303, '1.1.0', { parameters: migrateParameters, cookie: cookieIn, flags: migrateFlags }, struct({ cookie, uri: textOptional })),
  domainMigratePerform3Params: remote(
    305,
    '1.1.0',
    { domain, destination: textOptional, parameters: migrateParameters, cookie: cookieIn, flags: migrateFlags },
    struct({ cookie }),
  ),
  domainMigrateFinish3Params: remote(306, '1.1.0', { parameters: migrateParameters, cookie: cookieIn, flags: migrateFlags, cancelled: defaulted(bool, false) }, struct({ domain, cookie })),
  domainMigrateConfirm3Params: remote(307, '1.1.0', { domain, parameters: migrateParameters, cookie: cookieIn, flags: migrateFlags, cancelled: defaulted(bool, false) }, nothing),

  /** MiB for each second. */
  domainMigrateGetMaxSpeed: remote(242, '0.9.5', { domain, flags: flags({ postcopy: 1 }) }, u64Number),
  domainMigrateSetMaxSpeed: remote(207, '0.9.0', { domain, mibPerSecond: u64Number, flags: flags({ postcopy: 1 }) }, nothing),
  /** Milliseconds for which the guest may stand still. */
  domainMigrateGetMaxDowntime: remote(387, '3.7.0', { domain, flags: noFlags }, u64Number),
  domainMigrateSetMaxDowntime: remote(166, '0.8.0', { domain, downtimeMs: u64Number, flags: noFlags }, nothing),
  /** Bytes. */
  domainMigrateGetCompressionCache: remote(299, '1.0.3', { domain, flags: noFlags }, u64Number),
  domainMigrateSetCompressionCache: remote(300, '1.0.3', { domain, cacheBytes: u64Number, flags: noFlags }, nothing),
  domainMigrateStartPostCopy: remote(364, '1.3.3', { domain, flags: noFlags }, nothing),
} as const;
