/** What the agent inside a guest does. Error `agentUnresponsive` (isAgentUnresponsive) when there is none. */
import { agentTimeout, domain, noFlags, text, textOptional } from '../layouts.ts';
import { countOf, remote } from '../procedure.ts';
import { typedParameters } from '../typed-parameters.ts';
import { array, defaulted, flags, i32, i64Number, nothing, only, struct, u32, u64Number } from '../xdr.ts';

export const guestProcedures = {
  domainSetUserPassword: remote(357, '1.2.16', { domain, user: textOptional, password: textOptional, flags: flags({ encrypted: 1 }) }, nothing),
  /** Fields such as `os.id`, `fs.0.mountpoint`, `if.count`; of all kinds where none is named. See `guestInfo` in guest-info.ts. */
  domainGetGuestInfo: remote(
    418,
    '5.7.0',
    { domain, kinds: flags({ users: 1, os: 2, timezone: 4, hostname: 8, filesystem: 16, disks: 32, interfaces: 64, load: 128, devices: 256 }), flags: noFlags },
    typedParameters(2_048),
  ),
  domainGetFsinfo: remote(
    349,
    '1.2.11',
    { domain, flags: noFlags },
    only('filesystems', {
      filesystems: array(struct({ mountpoint: text, name: text, type: text, devices: array(text, 256) }), 256),
      count: countOf('filesystems', u32),
    }),
  ),
  /** How many filesystems were frozen; all of them where none is named. */
  domainFsfreeze: remote(335, '1.2.5', { domain, mountpoints: defaulted(array(text, 256), []), flags: noFlags }, i32),
  domainFsthaw: remote(336, '1.2.5', { domain, mountpoints: defaulted(array(text, 256), []), flags: noFlags }, i32),
  /** Frees what is unused, in pieces of at least so many bytes. */
  domainFstrim: remote(294, '1.0.1', { domain, mountpoint: textOptional, minimumBytes: defaulted(u64Number, 0), flags: noFlags }, nothing),
  /** The guest's clock: seconds and nanoseconds since 1970. */
  domainGetTime: remote(337, '1.2.5', { domain, flags: noFlags }, struct({ seconds: i64Number, nanoseconds: u32 })),
  /** `sync` takes the time from the emulated clock instead. */
  domainSetTime: remote(338, '1.2.5', { domain, seconds: defaulted(i64Number, 0), nanoseconds: defaulted(u32, 0), flags: flags({ sync: 1 }) }, nothing),
  domainAuthorizedSshKeysGet: remote(424, '6.10.0', { domain, user: text, flags: noFlags }, array(text, 2_048)),
  /** Replaces all keys, unless `append` or `remove`. */
  domainAuthorizedSshKeysSet: remote(425, '6.10.0', { domain, user: text, keys: array(text, 2_048), flags: flags({ append: 1, remove: 2 }) }, nothing),
  /** Seconds for which later calls wait for the agent: -2 for ever, -1 the daemon's default, 0 not at all. */
  domainAgentSetResponseTimeout: remote(420, '5.10.0', { domain, timeout: agentTimeout, flags: noFlags }, i32),
} as const;
