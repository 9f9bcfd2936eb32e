/** Storage pools and volumes, on the test driver and on real files. */
import { createHash, randomFillSync } from 'node:crypto';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { connect } from './connection.ts';
import type { Libvirt } from './connection.ts';
import { errorCodes, isNoStoragePool, isNoStorageVolume, LibvirtError, UnsupportedError } from './errors.ts';
import type { StoragePool } from './layouts.ts';
import { collect, connections, failures } from './testing-connections.ts';
import { startLibvirtd } from './testing-libvirtd.os.ts';
import type { OwnLibvirtd } from './testing-libvirtd.os.ts';

let daemon: OwnLibvirtd;
let anchor: Libvirt;
const { reach, closeAll } = connections();
const MiB = 1_048_576;

beforeAll(async () => {
  daemon = await startLibvirtd();
  anchor = await connect(daemon.testDriver);
}, 60_000);
afterEach(closeAll);
afterAll(async () => {
  await anchor?.close();
  await daemon?.stop();
});

describe('pools and volumes of the test driver', () => {
  it('live and are found', async () => {
    const libvirt = await reach(daemon.testDriver);
    const events = await libvirt.storagePoolEvents();
    expect(await libvirt.connectNumOfStoragePools()).toBe(1);
    expect(await libvirt.connectListStoragePools()).toEqual(['default-pool']);
    const pool = await libvirt.storagePoolDefineXml({ xml: `<pool type='dir'><name>p2</name><target><path>/p2</path></target></pool>` });
    expect(await libvirt.connectNumOfDefinedStoragePools()).toBe(1);
    expect(await libvirt.connectListDefinedStoragePools()).toEqual(['p2']);
    await libvirt.storagePoolSetAutostart({ pool, autostart: true });
    expect(await libvirt.storagePoolGetAutostart({ pool })).toBe(true);
    expect(await libvirt.storagePoolIsActive({ pool })).toBe(false);
    await libvirt.storagePoolBuild({ pool });
    await libvirt.storagePoolCreate({ pool });
    expect(await libvirt.storagePoolIsActive({ pool })).toBe(true);
    expect(await libvirt.storagePoolIsPersistent({ pool })).toBe(true);
    await expect(libvirt.storagePoolLookupByTargetPath({ path: '/p2' })).rejects.toBeInstanceOf(UnsupportedError);
    const first = await libvirt.storageVolCreateXml({ pool, xml: `<volume><name>a</name><capacity unit='MiB'>4</capacity></volume>` });
    const clone = await libvirt.storageVolCreateXmlFrom({ pool, xml: `<volume><name>b</name><capacity unit='MiB'>4</capacity></volume>`, from: first });
    expect(await libvirt.storagePoolNumOfVolumes({ pool })).toBe(2);
    expect([...(await libvirt.storagePoolListVolumes({ pool }))].sort()).toEqual(['a', 'b']);
    expect(await libvirt.storageVolLookupByKey({ key: clone.key })).toEqual(clone);
    expect(await libvirt.storagePoolLookupByVolume({ volume: clone })).toEqual(pool);
    expect(await libvirt.storageVolGetInfo({ volume: first })).toEqual({ kind: 'file', capacityBytes: 4 * MiB, allocationBytes: expect.any(Number) as number });
    await libvirt.storagePoolRefresh({ pool });
    await libvirt.storagePoolDestroy({ pool });
    await libvirt.storagePoolUndefine({ pool });
    await expect(libvirt.storagePoolLookupByName({ name: 'p2' })).rejects.toSatisfy(isNoStoragePool);
    const transient = await libvirt.storagePoolCreateXml({ xml: `<pool type='dir'><name>p3</name><target><path>/p3</path></target></pool>` });
    expect(await libvirt.storagePoolIsPersistent({ pool: transient })).toBe(false);
    await libvirt.storagePoolDestroy({ pool: transient });
    expect(await libvirt.connectFindStoragePoolSources({ type: 'logical' })).toMatch(/^<sources>/);
    const seen = await collect(events, (all) => all.filter((event) => event.kind === 'lifecycle' && event.event === 'stopped').length === 2);
    expect(seen.map((event) => `${event.pool.name} ${event.kind === 'lifecycle' ? event.event : event.kind}`)).toEqual([
      'p2 defined',
      'p2 created',
      'p2 started',
      'p2 refresh',
      'p2 stopped',
      'p2 undefined',
      'p3 started',
      'p3 stopped',
    ]);
  });

  it('lack what moves data', async () => {
    const libvirt = await reach(daemon.testDriver);
    const pool = await libvirt.storagePoolLookupByName({ name: 'default-pool' });
    const volume = await libvirt.storageVolCreateXml({ pool, xml: `<volume><name>v</name><capacity unit='MiB'>4</capacity></volume>` });
    const refused = await failures([
      libvirt.storageVolUpload({ volume }),
      libvirt.storageVolDownload({ volume }),
      libvirt.storageVolResize({ volume, capacityBytes: MiB }),
      libvirt.storageVolWipe({ volume }),
      libvirt.storageVolWipePattern({ volume }),
      libvirt.connectGetStoragePoolCapabilities(),
    ]);
    for (const error of refused) expect(error).toBeInstanceOf(UnsupportedError);
  });
});

describe('files as volumes, of the daemon that has QEMU', () => {
  let pool: StoragePool;
  let libvirt: Libvirt;

  beforeAll(async () => {
    const keeper = await connect(daemon.qemuSession);
    const path = join(daemon.directory, 'run', 'pool');
    pool = await keeper.storagePoolDefineXml({ xml: `<pool type='dir'><name>files</name><target><path>${path}</path></target></pool>`, flags: ['validate'] });
    await keeper.storagePoolBuild({ pool });
    await keeper.storagePoolCreate({ pool });
    await keeper.close();
    await mkdir(path, { recursive: true });
  });

  it('take and give 256 MiB, byte for byte, in steady memory', async () => {
    libvirt = await reach(daemon.qemuSession, { keepalive: false });
    const size = 256 * MiB;
    const volume = await libvirt.storageVolCreateXml({ pool, xml: `<volume><name>big.raw</name><capacity>${size}</capacity><target><format type='raw'/></target></volume>` });
    const sent = createHash('sha256');
    const chunk = Buffer.alloc(MiB);
    let most = 0;
    const note = () => (most = Math.max(most, process.memoryUsage().arrayBuffers));
    const before = process.memoryUsage().arrayBuffers;
    async function* random() {
      for (let index = 0; index < 256; index += 1) {
        randomFillSync(chunk);
        sent.update(chunk);
        note();
        yield Buffer.from(chunk);
        await Promise.resolve();
      }
    }
    await pipeline(Readable.from(random(), { objectMode: false }), await libvirt.storageVolUpload({ volume, length: size }));
    const received = createHash('sha256');
    let bytes = 0;
    for await (const data of await libvirt.storageVolDownload({ volume })) {
      bytes += (data as Buffer).length;
      received.update(data as Buffer);
      note();
    }
    expect(bytes).toBe(size);
    expect(received.digest('hex')).toBe(sent.digest('hex'));
    // Neither of them was ever held whole.
    expect(most - before).toBeLessThan(size / 2);
    await libvirt.storageVolDelete({ volume });
  });

  it('are written and read in part', async () => {
    libvirt = await reach(daemon.qemuSession, { keepalive: false });
    const volume = await libvirt.storageVolCreateXml({ pool, xml: `<volume><name>part.raw</name><capacity>65536</capacity></volume>` });
    const upload = await libvirt.storageVolUpload({ volume, offset: 4_096, length: 5 });
    await pipeline(Readable.from([Buffer.from('hello')]), upload);
    const download = await libvirt.storageVolDownload({ volume, offset: 4_094, length: 9 });
    expect(Buffer.concat((await download.toArray()) as Buffer[])).toEqual(Buffer.from('\0\0hello\0\0', 'latin1'));
    await libvirt.storageVolWipe({ volume });
    await libvirt.storageVolWipePattern({ volume, algorithm: 'zero' });
    const wiped = await libvirt.storageVolDownload({ volume, offset: 4_096, length: 5 });
    expect(Buffer.concat((await wiped.toArray()) as Buffer[])).toEqual(Buffer.alloc(5));
    await libvirt.storageVolDelete({ volume });
  });

  it('grow, are cloned, described and found', async () => {
    libvirt = await reach(daemon.qemuSession);
    const volume = await libvirt.storageVolCreateXml({
      pool,
      xml: `<volume><name>a.qcow2</name><capacity unit='MiB'>16</capacity><target><format type='qcow2'/><compat>1.1</compat></target></volume>`,
    });
    await libvirt.storageVolResize({ volume, capacityBytes: 32 * MiB });
    expect((await libvirt.storageVolGetInfo({ volume })).capacityBytes).toBe(32 * MiB);
    await libvirt.storageVolResize({ volume, capacityBytes: 16 * MiB, flags: ['delta'] });
    const info = await libvirt.storageVolGetInfoFlags({ volume, flags: ['physical'] });
    expect(info).toMatchObject({ kind: 'file', capacityBytes: 48 * MiB });
    expect(info.allocationBytes).toBeLessThan(MiB);
    const clone = await libvirt.storageVolCreateXmlFrom({ pool, xml: `<volume><name>b.qcow2</name><capacity>0</capacity><target><format type='qcow2'/><compat>1.1</compat></target></volume>`, from: volume });
    expect((await libvirt.storageVolGetInfo({ volume: clone })).capacityBytes).toBe(48 * MiB);
    const path = await libvirt.storageVolGetPath({ volume: clone });
    expect(await libvirt.storageVolLookupByPath({ path })).toEqual(clone);
    expect(await libvirt.storageVolLookupByKey({ key: path })).toEqual(clone);
    expect(await libvirt.storageVolLookupByName({ pool, name: 'b.qcow2' })).toEqual(clone);
    expect(await libvirt.storageVolGetXmlDesc({ volume: clone })).toContain('<compat>1.1</compat>');
    await expect(libvirt.storageVolCreateXml({ pool, xml: `<volume><name>b.qcow2</name><capacity>1</capacity></volume>` })).rejects.toMatchObject({ code: errorCodes.storageVolumeExists });
    await libvirt.storageVolDelete({ volume: clone });
    await libvirt.storageVolDelete({ volume });
    await expect(libvirt.storageVolGetInfo({ volume })).rejects.toSatisfy(isNoStorageVolume);
    expect(await libvirt.storagePoolListAllVolumes({ pool })).toEqual([]);
    expect(await libvirt.storagePoolLookupByTargetPath({ path: join(daemon.directory, 'run', 'pool') })).toEqual(pool);
    expect((await libvirt.storagePoolGetInfo({ pool })).availableBytes).toBeGreaterThan(0);
    expect(await libvirt.connectGetStoragePoolCapabilities()).toMatch(/<storagepoolCapabilities>/);
    expect(await libvirt.connectListAllStoragePools({ filter: ['dir', 'active'] })).toEqual([pool]);
    expect(await libvirt.connectListAllStoragePools({ filter: ['rbd'] })).toEqual([]);
    await expect(libvirt.connectFindStoragePoolSources({ type: 'netfs', source: '<source/>' })).rejects.toBeInstanceOf(LibvirtError);
  });
});
