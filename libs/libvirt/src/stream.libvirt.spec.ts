/*
 * Streams against a real libvirtd: volumes up and down, whole and with holes, as Node and as web
 * streams, given up by either side, and how much memory they take.
 */
import { createHash, randomBytes } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { chmod, chown, mkdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { connect } from './connection.ts';
import type { ConnectOptions, Libvirt } from './connection.ts';
import { CallAborted, Disconnected } from './errors.ts';
import type { StoragePool, StorageVolume } from './layouts.ts';
import type { LibvirtStream, Segment } from './stream.ts';
import { startLibvirtd } from './testing-libvirtd.os.ts';
import type { OwnLibvirtd } from './testing-libvirtd.os.ts';
import { memoryHeld } from './testing-heap.ts';

const mebibyte = 1_048_576;
/** What no amount of data may make grow. */
const growthBytesMax = 64 * mebibyte;

let daemon: OwnLibvirtd;
let pool: StoragePool;
let control: Libvirt;
let folder: string;
let volumes = 0;
const opened: Libvirt[] = [];

/** A connection for one stream. */
async function reach(options: ConnectOptions = {}): Promise<Libvirt> {
  const libvirt = await connect(daemon.qemuSession, { keepalive: false, ...options });
  opened.push(libvirt);
  return libvirt;
}

async function volumeOf(bytes: number): Promise<{ readonly volume: StorageVolume; readonly path: string }> {
  volumes += 1;
  const xml = `<volume><name>volume-${volumes}</name><capacity unit='bytes'>${bytes}</capacity><allocation>0</allocation><target><format type='raw'/></target></volume>`;
  const volume = await control.storageVolCreateXml({ pool, xml });
  return { volume, path: await control.storageVolGetPath({ volume }) };
}

// One block of noise, read from other places each time: much data, and no garbage of our own.
const noise = randomBytes(8 * mebibyte);
function* pieces(bytes: number): Generator<Buffer> {
  for (let at = 0; at < bytes; at += 65_536) {
    const from = (at * 31) % (noise.length - 65_536);
    yield noise.subarray(from, from + Math.min(65_536, bytes - at));
  }
}
const hashOf = async (source: Iterable<Buffer> | AsyncIterable<Buffer>): Promise<string> => {
  const hash = createHash('sha256');
  for await (const piece of source) hash.update(piece);
  return hash.digest('hex');
};
const fileHash = (path: string) => hashOf(createReadStream(path) as AsyncIterable<Buffer>);
const closed = (stream: LibvirtStream): Promise<unknown> => (stream.closed ? Promise.resolve() : new Promise((resolve) => stream.once('close', resolve)));

/** Bytes of buffers that somebody still has. */
const live = (): number => memoryHeld().arrayBuffers;

/** The most that the process grew while `work` ran. */
async function growthDuring(work: () => Promise<void>): Promise<number> {
  const before = process.memoryUsage.rss();
  let most = 0;
  const look = () => (most = Math.max(most, process.memoryUsage.rss() - before));
  const timer = setInterval(look, 5);
  try {
    await work();
    look();
  } finally {
    clearInterval(timer);
  }
  return most;
}

beforeAll(async () => {
  daemon = await startLibvirtd();
  folder = join(daemon.directory, 'pool');
  await mkdir(folder);
  await chmod(folder, 0o755);
  if (process.getuid?.() === 0) await chown(folder, 65_534, 65_534);
  control = await connect(daemon.qemuSession);
  pool = await control.storagePoolDefineXml({ xml: `<pool type='dir'><name>streams</name><target><path>${folder}</path></target></pool>` });
  await control.storagePoolCreate({ pool });
}, 60_000);

afterEach(async () => {
  await Promise.all(opened.splice(0).map((libvirt) => libvirt.close()));
});

afterAll(async () => {
  await control?.close();
  await daemon?.stop();
});

describe('a volume of 256 MiB (driver QEMU)', () => {
  const bytes = 256 * mebibyte;

  it('goes up and comes down with equal checksums and flat memory', async () => {
    const { volume, path } = await volumeOf(bytes);
    const wanted = await hashOf(pieces(bytes));
    // What streams, buffers and the compiler take once they take here, not in what is measured.
    const warm = await volumeOf(32 * mebibyte);
    const libvirt = await reach();
    await pipeline(Readable.from(pieces(32 * mebibyte)), await libvirt.storageVolUpload({ volume: warm.volume }));
    await hashOf(await libvirt.storageVolDownload({ volume: warm.volume }));

    const up = await growthDuring(async () => pipeline(Readable.from(pieces(bytes)), await libvirt.storageVolUpload({ volume })));
    expect(await fileHash(path)).toBe(wanted);
    let seen = '';
    const down = await growthDuring(async () => void (seen = await hashOf(await libvirt.storageVolDownload({ volume }))));
    expect(seen).toBe(wanted);
    expect(up).toBeLessThan(growthBytesMax);
    expect(down).toBeLessThan(growthBytesMax);

    // Of that, what is held and not merely waiting to be collected.
    const before = live();
    const held: number[] = [];
    let received = 0;
    for await (const piece of await libvirt.storageVolDownload({ volume })) {
      received += (piece as Buffer).length;
      if (received > (held.length + 1) * 16 * mebibyte) held.push(live() - before);
    }
    expect(held.length).toBe(15);
    expect(Math.max(...held)).toBeLessThan(4 * mebibyte);
  });

  it('waits in the daemon, not here, for a reader that is slow', async () => {
    const { volume } = await volumeOf(bytes);
    const libvirt = await reach();
    const download = await libvirt.storageVolDownload({ volume });
    const growth = await growthDuring(async () => {
      for (let turn = 0; turn < 20; turn += 1) {
        await delay(10);
        expect(download.readableLength).toBeLessThan(mebibyte);
        download.read();
      }
    });
    expect(growth).toBeLessThan(growthBytesMax / 2);
    // Others are not held up.
    expect(await control.connectGetType()).toBe('QEMU');
    download.destroy();
    await closed(download);
    expect(await libvirt.connectGetType()).toBe('QEMU');
  });
});

describe('a volume (driver QEMU)', () => {
  it('is read from an offset and for a length', async () => {
    const { volume } = await volumeOf(mebibyte);
    const libvirt = await reach();
    const data = Buffer.concat([...pieces(mebibyte)]);
    (await libvirt.storageVolUpload({ volume })).end(data);
    const upload = await libvirt.storageVolUpload({ volume, offset: 1_000, length: 5 });
    await pipeline(Readable.from([Buffer.from('holes')]), upload);
    data.write('holes', 1_000);
    const part = await (await libvirt.storageVolDownload({ volume, offset: 990, length: 40 })).toArray();
    expect(Buffer.concat(part as Buffer[])).toEqual(data.subarray(990, 1_030));
  });

  it('is written and read as web streams', async () => {
    const size = 9 * mebibyte + 7;
    const { volume, path } = await volumeOf(size);
    const libvirt = await reach();
    const { writable } = (await libvirt.storageVolUpload({ volume })).toWeb();
    await Readable.toWeb(Readable.from(pieces(size))).pipeTo(writable);
    const wanted = await hashOf(pieces(size));
    expect(await fileHash(path)).toBe(wanted);
    const { readable } = (await libvirt.storageVolDownload({ volume })).toWeb();
    expect(await hashOf(readable as unknown as AsyncIterable<Buffer>)).toBe(wanted);
  });

  it('cancelled as a web stream leaves the connection in order', async () => {
    const { volume } = await volumeOf(64 * mebibyte);
    const libvirt = await reach();
    const stream = await libvirt.storageVolDownload({ volume });
    const reader = stream.toWeb().readable.getReader();
    expect((await reader.read()).value?.length).toBeGreaterThan(0);
    await reader.cancel();
    await closed(stream);
    expect(await libvirt.connectGetType()).toBe('QEMU');
  });

  it('takes one large piece as well as many', async () => {
    const data = Buffer.concat([...pieces(20 * mebibyte)]);
    const { volume, path } = await volumeOf(data.length);
    const upload = await (await reach()).storageVolUpload({ volume });
    await pipeline(Readable.from([data]), upload);
    expect(await fileHash(path)).toBe(createHash('sha256').update(data).digest('hex'));
  });

  it('that is empty comes down as nothing', async () => {
    const { volume } = await volumeOf(mebibyte);
    const libvirt = await reach();
    await pipeline(Readable.from([]), await libvirt.storageVolUpload({ volume }));
    expect(await (await libvirt.storageVolDownload({ volume, offset: mebibyte })).toArray()).toEqual([]);
  });

  it('cannot be written to while it is read', async () => {
    const { volume } = await volumeOf(mebibyte);
    const download = await (await reach()).storageVolDownload({ volume });
    const failed = new Promise((resolve) => download.once('error', resolve));
    download.write('x');
    expect(await failed).toBeInstanceOf(TypeError);
  });
});

describe('a sparse stream (driver QEMU)', () => {
  const size = 256 * mebibyte;
  const first = Buffer.concat([...pieces(mebibyte)]);
  const last = Buffer.alloc(65_536, 'end');
  const expected = createHash('sha256').update(first).update(Buffer.alloc(size - first.length - last.length)).update(last).digest('hex');

  async function written() {
    const { volume, path } = await volumeOf(size);
    const libvirt = await reach();
    const upload = await libvirt.storageVolUpload({ volume, flags: ['sparse'] });
    upload.write(first);
    upload.writeHole(size - first.length - last.length);
    const done = new Promise((resolve, reject) => upload.once('finish', resolve).once('error', reject));
    upload.end(last);
    await done;
    return { libvirt, volume, path };
  }

  it('writes what is there and leaves out what is not', async () => {
    const { path } = await written();
    expect(await fileHash(path)).toBe(expected);
    // In blocks of 512 bytes: a megabyte and a little, of 64.
    expect((await stat(path)).blocks * 512).toBeLessThan(4 * mebibyte);
  });

  it('reads holes as they are', async () => {
    const { libvirt, volume } = await written();
    const segments: Segment[] = [];
    for await (const segment of (await libvirt.storageVolDownload({ volume, flags: ['sparse'] })).segments()) segments.push(segment);
    const holes = segments.flatMap((segment) => ('holeBytes' in segment ? [segment.holeBytes] : []));
    expect(holes.reduce((sum, one) => sum + one, 0)).toBe(size - first.length - last.length);
    const data = Buffer.concat(segments.filter((segment): segment is Buffer => Buffer.isBuffer(segment)));
    expect(data.equals(Buffer.concat([first, last]))).toBe(true);
    // They stand between what they stand between.
    expect(Buffer.isBuffer(segments[0]) && Buffer.isBuffer(segments.at(-1))).toBe(true);
  });

  it('reads holes as zeros', async () => {
    const { libvirt, volume } = await written();
    const growth = await growthDuring(async () => expect(await hashOf(await libvirt.storageVolDownload({ volume, flags: ['sparse'] }))).toBe(expected));
    // Zeros come faster than the collector goes: what was read is not yet given back.
    expect(growth).toBeLessThan(2 * growthBytesMax);
  });

  it('goes from one volume to another as it is', async () => {
    const { libvirt, volume } = await written();
    const copy = await volumeOf(size);
    const upload = await (await reach()).storageVolUpload({ volume: copy.volume, flags: ['sparse'] });
    for await (const segment of (await libvirt.storageVolDownload({ volume, flags: ['sparse'] })).segments()) {
      const room = Buffer.isBuffer(segment) ? upload.write(segment) : upload.writeHole(segment.holeBytes);
      if (!room) await new Promise((resolve) => upload.once('drain', resolve));
    }
    const done = new Promise((resolve, reject) => upload.once('finish', resolve).once('error', reject));
    upload.end();
    await done;
    expect(await fileHash(copy.path)).toBe(expected);
    expect((await stat(copy.path)).blocks * 512).toBeLessThan(4 * mebibyte);
  });

  it('left in the middle of its segments is given up', async () => {
    const { libvirt, volume } = await written();
    const download = await libvirt.storageVolDownload({ volume, flags: ['sparse'] });
    for await (const _segment of download.segments()) break;
    await closed(download);
    expect(await libvirt.connectGetType()).toBe('QEMU');
  });

  it.each([0, -1, 0.5, Number.NaN, 2 ** 60])('has no hole of %d bytes', async (bytes) => {
    const { volume } = await volumeOf(mebibyte);
    const upload = await (await reach()).storageVolUpload({ volume, flags: ['sparse'] });
    expect(() => upload.writeHole(bytes)).toThrow(RangeError);
    upload.destroy();
  });

  it('only has holes', async () => {
    const { volume } = await volumeOf(mebibyte);
    const upload = await (await reach()).storageVolUpload({ volume });
    expect(() => upload.writeHole(1_000)).toThrow(/flag sparse/);
    upload.destroy();
  });
});

describe('a stream that does not reach its end (driver QEMU)', () => {
  it('because the volume is full fails with the daemon’s words, and the connection goes on', async () => {
    const { volume } = await volumeOf(mebibyte);
    const libvirt = await reach();
    const upload = await libvirt.storageVolUpload({ volume, length: mebibyte });
    await expect(pipeline(Readable.from(pieces(64 * mebibyte)), upload)).rejects.toMatchObject({ name: 'LibvirtError', code: 38, call: 'storageVolUpload' });
    expect(await libvirt.connectGetType()).toBe('QEMU');
  });

  it('because its user gives up ends in the daemon too', async () => {
    const { volume } = await volumeOf(64 * mebibyte);
    const libvirt = await reach();
    for (let round = 0; round < 5; round += 1) {
      const download = await libvirt.storageVolDownload({ volume });
      for await (const _data of download) break;
      await closed(download);
    }
    const upload = await libvirt.storageVolUpload({ volume });
    upload.write(noise);
    upload.destroy();
    await closed(upload);
    expect(await libvirt.connectGetType()).toBe('QEMU');
    // The daemon has let go of the volume.
    await control.storageVolDelete({ volume });
  });

  it('because its signal says so fails with the reason', async () => {
    const { volume } = await volumeOf(64 * mebibyte);
    const libvirt = await reach();
    const controller = new AbortController();
    const download = await libvirt.storageVolDownload({ volume }, { signal: controller.signal });
    const reading = hashOf(download);
    controller.abort(new Error('enough'));
    const error: unknown = await reading.catch((caught: unknown) => caught);
    expect(error).toBeInstanceOf(CallAborted);
    expect(error).toMatchObject({ call: 'storageVolDownload', sent: true, cause: { message: 'enough' } });
    expect(await libvirt.connectGetType()).toBe('QEMU');
  });

  it('because the connection is lost fails on both sides of a copy', async () => {
    const { volume } = await volumeOf(64 * mebibyte);
    const libvirt = await reach();
    // In this order: the second answer would wait behind data that nobody reads.
    const upload = await libvirt.storageVolUpload({ volume: (await volumeOf(mebibyte)).volume });
    const download = await libvirt.storageVolDownload({ volume });
    const uploaded = new Promise((resolve) => upload.once('error', resolve));
    const segments = download.segments();
    await segments.next();
    await libvirt.close();
    expect(await uploaded).toBeInstanceOf(Disconnected);
    await expect((async () => { for await (const _one of segments); })()).rejects.toBeInstanceOf(Disconnected);
  });

  it('is waited for by nobody who closes, but calls are', async () => {
    const { volume } = await volumeOf(64 * mebibyte);
    const libvirt = await reach();
    const download = await libvirt.storageVolDownload({ volume });
    const failed = new Promise((resolve) => download.once('error', resolve));
    const asked = Array.from({ length: 20 }, () => control.connectGetHostname());
    const other = await reach();
    const calls = Array.from({ length: 50 }, () => other.connectGetCapabilities());
    await other.close({ drainMs: 10_000 });
    for (const answer of await Promise.all(calls)) expect(answer).toMatch(/^<capabilities>/);
    await expect(other.connectGetType()).rejects.toMatchObject({ name: 'Disconnected', sent: false });
    await Promise.all(asked);
    await libvirt.close({ drainMs: 10_000 });
    expect(await failed).toBeInstanceOf(Disconnected);
  });
});
