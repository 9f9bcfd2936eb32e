import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { guestInfo } from './guest-info.ts';
import { charsText, cpuSet, cpuSets } from './layouts.ts';
import { blockIoTune, jobStats, migrateParameters } from './parameter-fields.ts';
import { typedParameterGroups, typedParameters } from './typed-parameters.ts';
import type { Codec } from './xdr.ts';
import { Reader, Writer, XdrError } from './xdr.ts';

function written<In>(codec: Codec<unknown, In>, value: In): Buffer {
  const writer = new Writer(1_048_576);
  codec.write(writer, value);
  return writer.take();
}

function through<Out, In>(codec: Codec<Out, In>, value: In): Out {
  const reader = new Reader(written(codec, value));
  const read = codec.read(reader);
  reader.end();
  return read;
}

const plain = <T extends object>(value: T): object => ({ ...value });

describe('typed parameters', () => {
  it('of known fields go out by their type and come back as they were', () =>
    fc.assert(
      fc.property(fc.record({ total_bytes_sec: fc.maxSafeNat(), size_iops_sec: fc.maxSafeNat(), group_name: fc.string() }, { requiredKeys: [] }), (value) => {
        expect(plain(through(blockIoTune, value))).toEqual(value);
      }),
    ));

  it('keep fields that are not known', () => {
    const read = through(blockIoTune, { read_iops_sec: 5, more: { later: { u64: 2n ** 60n }, flag: { bool: true }, ratio: { f64: 0.5 } } });
    expect(plain(read)).toEqual({ read_iops_sec: 5, later: 2n ** 60n, flag: true, ratio: 0.5 });
    expect(() => written(blockIoTune, { later: 5 } as never)).toThrow(XdrError);
  });

  it('come several times where a field may', () => {
    expect(plain(through(migrateParameters, { migrate_disks: ['vda', 'vdb'], bandwidth: 5 }))).toEqual({ migrate_disks: ['vda', 'vdb'], bandwidth: 5 });
  });

  it('are numbers where their field is one, however wide the daemon sends them', () => {
    const read = jobStats.read(new Reader(written(typedParameters(9), { data_total: { i32: 7 }, operation: { u64: 5n }, success: { i32: 1 } })));
    expect(plain(read)).toEqual({ data_total: 7, operation: 5, success: true });
  });

  it('make groups where a field comes again', () => {
    const groups = [{ cpu_time: { u64: 1n }, vcpu_time: { u64: 2n } }, { cpu_time: { u64: 3n } }, { cpu_time: { u64: 4n }, vcpu_time: { u64: 5n } }];
    expect(through(typedParameterGroups(9), groups).map(plain)).toEqual([{ cpu_time: 1n, vcpu_time: 2n }, { cpu_time: 3n }, { cpu_time: 4n, vcpu_time: 5n }]);
  });

  it('beyond the limit are refused, both ways', () => {
    const two = { a: { i32: 1 }, b: { i32: 2 } };
    expect(() => written(typedParameters(1), two)).toThrow(XdrError);
    expect(() => typedParameters(1).read(new Reader(written(typedParameters(2), two)))).toThrow(XdrError);
    const many = new Writer(64);
    many.u32(60_000);
    expect(() => typedParameters(65_536).read(new Reader(many.take()))).toThrow(XdrError);
  });
});

describe('sets of CPUs', () => {
  const cpus = fc.uniqueArray(fc.nat(1_023), { maxLength: 20 }).map((all) => all.sort((a, b) => a - b));
  it('come back as they were', () =>
    fc.assert(
      fc.property(cpus, fc.array(cpus, { maxLength: 4 }), (one, several) => {
        expect(through(cpuSet, one)).toEqual(one);
        expect(through(cpuSets, several)).toEqual(several);
      }),
    ));
  it.each([[[-1]], [[1_024]], [[0.5]]])('%j is none', (wrong) => expect(() => written(cpuSet, wrong)).toThrow(XdrError));
});

it('text of four bytes each comes back as it was', () =>
  fc.assert(
    fc.property(fc.string({ maxLength: 50 }).filter((text) => !text.includes('\0')), (text) => {
      expect(through(charsText, text)).toBe(text);
    }),
  ));

describe('what a guest tells of itself', () => {
  it('becomes an object', () => {
    expect(
      guestInfo({
        hostname: 'micro',
        'os.id': 'debian',
        'os.version-id': '12',
        'timezone.name': 'UTC',
        'timezone.offset': 0,
        'user.count': 1,
        'user.0.name': 'root',
        'user.0.login-time': 1_700_000_000_000n,
        'fs.count': 1,
        'fs.0.mountpoint': '/',
        'fs.0.fstype': 'ext4',
        'fs.0.total-bytes': 1_000n,
        'fs.0.used-bytes': 10n,
        'fs.0.disk.count': 1,
        'fs.0.disk.0.alias': 'vda',
        'disk.count': 1,
        'disk.0.name': '/dev/vda1',
        'disk.0.partition': true,
        'disk.0.dependency.count': 1,
        'disk.0.dependency.0.name': '/dev/vda',
        'if.count': 1,
        'if.0.name': 'eth0',
        'if.0.hwaddr': '52:54:0A:00:00:01',
        'if.0.addr.count': 1,
        'if.0.addr.0.type': 'ipv4',
        'if.0.addr.0.addr': '10.0.2.15',
        'if.0.addr.0.prefix': 24,
      }),
    ).toEqual({
      hostname: 'micro',
      os: { id: 'debian', 'version-id': '12' },
      timezone: { name: 'UTC', offsetSeconds: 0 },
      users: [{ name: 'root', domain: undefined, loginAtMs: 1_700_000_000_000 }],
      filesystems: [{ name: undefined, mountpoint: '/', type: 'ext4', totalBytes: 1_000, usedBytes: 10, disks: [{ alias: 'vda', serial: undefined, device: undefined }] }],
      disks: [{ name: '/dev/vda1', partition: true, alias: undefined, guestAlias: undefined, dependencies: ['/dev/vda'] }],
      interfaces: [{ name: 'eth0', mac: '52:54:0a:00:00:01', addresses: [{ kind: 'ipv4', address: '10.0.2.15', prefix: 24 }] }],
    });
  });

  it('may be nothing, or more than there can be', () => {
    expect(guestInfo({})).toEqual({ hostname: undefined, os: {}, timezone: undefined, users: [], filesystems: [], disks: [], interfaces: [] });
    expect(guestInfo({ 'if.count': 4_000_000_000 }).interfaces.length).toBe(2_048);
    expect(guestInfo({ 'if.count': -1 }).interfaces).toEqual([]);
  });
});
