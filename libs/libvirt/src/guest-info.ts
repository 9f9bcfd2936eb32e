/*
 * The answer of domainGetGuestInfo, which is a flat list of parameters such as `fs.0.mountpoint`, as an
 * object. What was not asked for, or what the guest's agent does not know, is undefined or empty.
 */
import type { TypedParameters, TypedParameterValue } from './typed-parameters.ts';

export interface GuestUser {
  readonly name: string;
  readonly domain: string | undefined;
  /** Milliseconds since 1970. */
  readonly loginAtMs: number | undefined;
}

export interface GuestFilesystem {
  readonly name: string | undefined;
  readonly mountpoint: string;
  readonly type: string | undefined;
  readonly totalBytes: number | undefined;
  readonly usedBytes: number | undefined;
  readonly disks: readonly { readonly alias: string | undefined; readonly serial: string | undefined; readonly device: string | undefined }[];
}

export interface GuestDisk {
  readonly name: string;
  readonly partition: boolean;
  readonly alias: string | undefined;
  readonly guestAlias: string | undefined;
  readonly dependencies: readonly string[];
}

export interface GuestInterface {
  readonly name: string;
  /** Lower case. */
  readonly mac: string | undefined;
  readonly addresses: readonly { readonly kind: string; readonly address: string; readonly prefix: number | undefined }[];
}

export interface GuestInfo {
  readonly hostname: string | undefined;
  readonly os: Readonly<Record<string, string>>;
  readonly timezone: { readonly name: string | undefined; readonly offsetSeconds: number | undefined } | undefined;
  readonly users: readonly GuestUser[];
  readonly filesystems: readonly GuestFilesystem[];
  readonly disks: readonly GuestDisk[];
  readonly interfaces: readonly GuestInterface[];
  /** How many processes ran or wanted to, on average of 1, 5 and 15 minutes (libvirt 11.2.0). */
  readonly load: readonly [number, number, number] | undefined;
}

const text = (value: TypedParameterValue | undefined): string | undefined => (typeof value === 'string' ? value : undefined);
const number = (value: TypedParameterValue | undefined): number | undefined => (typeof value === 'number' || typeof value === 'bigint' ? Number(value) : undefined);

/** More of one kind than any guest has: a count is the guest's word, and is looped over. */
const countMax = 2_048;
const times = <T>(count: TypedParameterValue | undefined, of: (index: number) => T): readonly T[] =>
  Array.from({ length: Math.min(countMax, Math.max(0, Math.trunc(number(count) ?? 0))) }, (_, index) => of(index));

export function guestInfo(p: TypedParameters): GuestInfo {
  const timezone = text(p['timezone.name']);
  const offset = number(p['timezone.offset']);
  const [one, five, fifteen] = ['load.1m', 'load.5m', 'load.15m'].map((field) => number(p[field]));
  return {
    hostname: text(p['hostname']),
    os: Object.fromEntries(Object.entries(p).flatMap(([field, value]) => (field.startsWith('os.') ? [[field.slice(3), String(value)]] : []))),
    timezone: timezone === undefined && offset === undefined ? undefined : { name: timezone, offsetSeconds: offset },
    users: times(p['user.count'], (user) => ({
      name: text(p[`user.${user}.name`]) ?? '',
      domain: text(p[`user.${user}.domain`]),
      loginAtMs: number(p[`user.${user}.login-time`]),
    })),
    filesystems: times(p['fs.count'], (fs) => ({
      name: text(p[`fs.${fs}.name`]),
      mountpoint: text(p[`fs.${fs}.mountpoint`]) ?? '',
      type: text(p[`fs.${fs}.fstype`]),
      totalBytes: number(p[`fs.${fs}.total-bytes`]),
      usedBytes: number(p[`fs.${fs}.used-bytes`]),
      disks: times(p[`fs.${fs}.disk.count`], (disk) => ({
        alias: text(p[`fs.${fs}.disk.${disk}.alias`]),
        serial: text(p[`fs.${fs}.disk.${disk}.serial`]),
        device: text(p[`fs.${fs}.disk.${disk}.device`]),
      })),
    })),
    disks: times(p['disk.count'], (disk) => ({
      name: text(p[`disk.${disk}.name`]) ?? '',
      partition: p[`disk.${disk}.partition`] === true,
      alias: text(p[`disk.${disk}.alias`]),
      guestAlias: text(p[`disk.${disk}.guest_alias`]),
      dependencies: times(p[`disk.${disk}.dependency.count`], (dependency) => text(p[`disk.${disk}.dependency.${dependency}.name`]) ?? ''),
    })),
    interfaces: times(p['if.count'], (one) => ({
      name: text(p[`if.${one}.name`]) ?? '',
      mac: text(p[`if.${one}.hwaddr`])?.toLowerCase(),
      addresses: times(p[`if.${one}.addr.count`], (address) => ({
        kind: text(p[`if.${one}.addr.${address}.type`]) ?? '',
        address: text(p[`if.${one}.addr.${address}.addr`]) ?? '',
        prefix: number(p[`if.${one}.addr.${address}.prefix`]),
      })),
    })),
    load: one === undefined || five === undefined || fifteen === undefined ? undefined : [one, five, fifteen],
  };
}
