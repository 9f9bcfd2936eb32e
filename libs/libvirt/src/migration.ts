/*
 * Migration with the client between the two daemons ("managed direct"): what libvirt's own library does
 * inside virDomainMigrate3.
 *
 *   source: begin ──▶ destination: prepare ──▶ source: perform ──▶ destination: finish ──▶ source: confirm
 *
 * Each answer carries a cookie that the next call, on the other side, must be given. Whatever fails after
 * prepare, finish is called with `cancelled`, so that the destination lets go of what it made ready; and
 * confirm with `cancelled` when the domain has stayed, so that the source lets it go on. Peer to peer, one
 * call of the source is enough (domainMigratePerform3Params with `peer2peer`), and the daemons need to
 * reach each other: prefer it where they do.
 */
import type { CallOptions, Libvirt } from './connection.ts';
import { LibvirtError } from './errors.ts';
import type { Domain, DomainRef } from './layouts.ts';
import type { KnownIn } from './typed-parameters.ts';
import type { migrateFlags } from './procedures/migration.ts';
import type { Encodable } from './xdr.ts';
import { childOf, parseXml, textOf } from './xml.ts';

export type MigrateFlag = NonNullable<Encodable<typeof migrateFlags>>[number];
export type MigrateParameters = KnownIn<{
  readonly migrate_uri: 'string';
  readonly destination_name: 'string';
  readonly destination_xml: 'string';
  readonly persistent_xml: 'string';
  readonly bandwidth: 'size';
  readonly graphics_uri: 'string';
  readonly listen_address: 'string';
  readonly migrate_disks: 'strings';
  readonly disks_port: 'i32';
  readonly disks_uri: 'string';
}>;

export interface DirectMigration {
  readonly domain: DomainRef;
  readonly source: Libvirt;
  readonly destination: Libvirt;
  /** Of virDomainMigrateFlags, without `peer2peer` and `tunnelled`, which are other forms. */
  readonly flags: readonly MigrateFlag[];
  /** `migrate_uri` is needed where the destination cannot tell its own address. */
  readonly parameters?: MigrateParameters;
}

const forms: readonly MigrateFlag[] = ['peer2peer', 'tunnelled'];

/**
 * Migrates a domain; the answer is the domain at the destination. `options` apply to each step: performing
 * takes as long as the memory takes to move, so give it time (default: none of its own).
 *
 * When it fails, the error is that of the step that failed, and the domain is where it was. The one
 * exception is a lost connection after performing: then both sides must be asked.
 */
export async function migrateDirect({ domain, source, destination, flags, parameters = {} }: DirectMigration, options: CallOptions = { timeoutMs: 0 }): Promise<Domain> {
  const form = flags.find((flag) => forms.includes(flag));
  if (form !== undefined) throw new TypeError(`a direct migration is not ${form}`);
  // What is said of the domain's XML to the source is, from there on, part of the XML that it gave.
  const { destination_xml: _, persistent_xml: __, ...further } = parameters;
  const begun = await source.domainMigrateBegin3Params({ domain, parameters, flags }, options);
  // The later steps know the domain by nothing else.
  const name = textOf(childOf(parseXml(begun.xml), 'name'));
  const described = { destination_name: name, ...further, destination_xml: begun.xml };
  const abandon = (cookie: Uint8Array) => source.domainMigrateConfirm3Params({ domain, parameters: described, cookie, flags, cancelled: true }, options).catch(() => undefined);

  let prepared: Awaited<ReturnType<Libvirt['domainMigratePrepare3Params']>>;
  try {
    prepared = await destination.domainMigratePrepare3Params({ parameters: described, cookie: begun.cookie, flags }, options);
  } catch (error) {
    // Only where the source protects the domain against changes does it wait for a word.
    if (flags.includes('changeProtection')) await abandon(begun.cookie);
    throw error;
  }
  const moving = prepared.uri === null ? described : { ...described, migrate_uri: prepared.uri };

  let performed: { readonly cookie: Uint8Array } | undefined;
  let failure: unknown;
  if (flags.includes('offline')) performed = { cookie: prepared.cookie };
  else {
    try {
      performed = await source.domainMigratePerform3Params({ domain, parameters: moving, cookie: prepared.cookie, flags }, options);
    } catch (error) {
      failure = error;
    }
  }

  const { destination_xml: ___, ...withoutXml } = moving;
  let finished: { readonly domain: Domain; readonly cookie: Uint8Array } | undefined;
  try {
    finished = await destination.domainMigrateFinish3Params({ parameters: withoutXml, cookie: performed?.cookie ?? new Uint8Array(), flags, cancelled: performed === undefined }, options);
  } catch (error) {
    failure ??= error;
    // Without an answer nobody knows where the domain runs, and the source must not start it again.
    if (!(error instanceof LibvirtError)) throw failure;
  }
  if (performed === undefined || finished === undefined) {
    await abandon(finished?.cookie ?? new Uint8Array());
    throw failure;
  }
  await source.domainMigrateConfirm3Params({ domain, parameters: withoutXml, cookie: finished.cookie, flags, cancelled: false }, options);
  return finished.domain;
}
