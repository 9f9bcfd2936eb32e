/** Disks of domains: jobs on their chains of images, sizes, looking inside. */
import * as parameters from '../parameter-fields.ts';
import { domain, noFlags, text, textOptional } from '../layouts.ts';
import { remote } from '../procedure.ts';
import { bool, bytes, choice, defaulted, flags, mapped, named, nothing, struct, u32, u64Number } from '../xdr.ts';

const blockJobTypes = { unknown: 0, pull: 1, copy: 2, commit: 3, activeCommit: 4, backup: 5 } as const;
const bandwidth = defaulted(u64Number, 0);

export interface BlockJobInfo {
  readonly type: keyof typeof blockJobTypes;
  /** MiB for each second (`bandwidthBytes`: bytes); 0 is no limit. */
  readonly bandwidth: number;
  readonly current: number;
  /** When `current` has reached it, the job may still have to be ended: the event blockJob says `ready`. */
  readonly end: number;
}

/** `disk` is a target (`vda`) or the path of its image. `bandwidth` is MiB for each second, or bytes with `bandwidthBytes`. */
export const blockProcedures = {
  /** Merges images of the chain into `base`. With `active`, from the one that is written to: end it with domainBlockJobAbort and `pivot`. */
  domainBlockCommit: remote(
    290,
    '0.10.2',
    { domain, disk: text, base: textOptional, top: textOptional, bandwidth, flags: flags({ shallow: 1, delete: 2, active: 4, relative: 8, bandwidthBytes: 16 }) },
    nothing,
  ),
  /** Pulls all data into the image that is written to, and drops its chain. */
  domainBlockPull: remote(240, '0.9.4', { domain, disk: text, bandwidth, flags: flags({ bandwidthBytes: 64 }) }, nothing),
  /** Pulls data down to `base`. */
  domainBlockRebase: remote(
    266,
    '0.9.10',
    { domain, disk: text, base: textOptional, bandwidth, flags: flags({ shallow: 1, reuseExternal: 2, copyRaw: 4, copy: 8, relative: 16, copyDevice: 32, bandwidthBytes: 64 }) },
    nothing,
  ),
  /** Mirrors to the disk that `xml` (`<disk>`) describes: end it with domainBlockJobAbort, with `pivot` to go over to the copy. */
  domainBlockCopy: remote(
    345,
    '1.2.8',
    {
      domain,
      disk: text,
      xml: text,
      parameters: defaulted(parameters.blockCopyParameters, {}),
      flags: flags({ shallow: 1, reuseExternal: 2, transientJob: 4, synchronousWrites: 8, targetZeroed: 16 }),
    },
    nothing,
  ),
  domainBlockJobAbort: remote(237, '0.9.4', { domain, disk: text, flags: flags({ async: 1, pivot: 2 }) }, nothing),
  /** `null` when there is none. */
  domainGetBlockJobInfo: remote(
    238,
    '0.9.4',
    { domain, disk: text, flags: flags({ bandwidthBytes: 1 }) },
    mapped(struct({ found: bool, type: named(blockJobTypes), bandwidth: u64Number, current: u64Number, end: u64Number }), {
      decode: ({ found, ...info }): BlockJobInfo | null => (found ? info : null),
      encode: (info: BlockJobInfo | null) => ({ found: info !== null, ...(info ?? { type: 'unknown' as const, bandwidth: 0, current: 0, end: 0 }) }),
    }),
  ),
  domainBlockJobSetSpeed: remote(239, '0.9.4', { domain, disk: text, bandwidth: u64Number, flags: flags({ bandwidthBytes: 1 }) }, nothing),
  /** KiB, or bytes with `bytes`. `capacity` since 10.0.0, `extend` since 12.3.0. */
  domainBlockResize: remote(251, '0.9.8', { domain, disk: text, size: u64Number, flags: flags({ bytes: 1, capacity: 2, extend: 4 }) }, nothing),
  /** At most 4 MiB at a time, as the guest sees it. */
  domainBlockPeek: remote(103, '0.4.2', { domain, disk: text, offset: u64Number, size: u32, flags: noFlags }, bytes(4_194_304)),
  domainMemoryPeek: remote(104, '0.4.2', { domain, offset: u64Number, size: u32, address: choice({ virtual: 1, physical: 2 }, 'virtual', u32) }, bytes(4_194_304)),
  /** The event blockThreshold comes once when the guest writes beyond it. `device`: `vda`, or `vda[1]` of the chain. */
  domainSetBlockThreshold: remote(386, '3.1.0', { domain, device: text, thresholdBytes: u64Number, flags: noFlags }, nothing),
} as const;
