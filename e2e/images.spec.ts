/* The store of images: by REST and by the tus protocol, on a real libvirt and QEMU whose node has no image of its own. */
import { execFile } from 'node:child_process';
import { appendFileSync, copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { basename, join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startPlatform, type Platform } from './platform.ts';
import { addQemuNode, GUEST_IMAGES, GUEST_NETWORK, type QemuNode } from './qemu-node.ts';
import { Refused, type Accepted, type Operation, type Rest, type Vm } from './rest.ts';
import { sha256Of, sumOf, tusOf } from './tus.ts';

const run = promisify(execFile);
const BOOTED_WITHIN_MS = 120_000;
const GIB = 2 ** 30;
const MIB = 2 ** 20;

interface Image {
  readonly uses: number;
  readonly id: string;
  readonly name: string;
  readonly file: string;
  readonly sha256: string;
  readonly sizeBytes: number;
  readonly virtualBytes: number;
  readonly minDiskGib: number;
  readonly copiedFrom?: string;
}

describe('the store of images', () => {
  let platform: Platform;
  let rest: Rest;
  let node: QemuNode;
  let tus: ReturnType<typeof tusOf>;
  let micro: string;
  let server: Server;
  /** Of the file server. */
  let away = '';
  /** Paths and ranges that it was asked for. */
  const asked: string[] = [];
  let slowly = false;
  const files = new Map<string, Buffer>();

  beforeAll(async () => {
    platform = await startPlatform({ split: false, environment: { CV_GATEWAY_IMPORT_NETWORKS: '127.0.0.1/32', CV_GATEWAY_IMAGE_KEEP_SECONDS: '3', CV_NODE_AGENT_IMAGE_KEEP_SECONDS: '3' } });
    ({ rest } = platform);
    const imageDir = join(platform.dir, 'node-images');
    mkdirSync(imageDir, { mode: 0o755 });
    node = await addQemuNode(platform, 'metal', { imageDir });
    tus = tusOf(platform.url, platform.token);
    micro = join(GUEST_IMAGES.images, node.image.file);
    server = createServer((request, response) => {
      asked.push(`${request.url ?? ''} ${request.headers.range ?? 'whole'}`);
      const file = files.get(request.url ?? '');
      if (file === undefined) return void response.writeHead(404).end();
      const from = Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? '')?.[1] ?? 0);
      response.writeHead(from === 0 ? 200 : 206, { etag: '"1"', 'content-length': file.length - from, ...(from === 0 ? {} : { 'content-range': `bytes ${String(from)}-${String(file.length - 1)}/${String(file.length)}` }) });
      if (!slowly) return void response.end(file.subarray(from));
      let at = from;
      const drip = setInterval(() => {
        if (at >= file.length) response.end();
        else response.write(file.subarray(at, (at += MIB)));
        if (at >= file.length || response.destroyed) clearInterval(drip);
      }, 100);
    }).listen(0, '127.0.0.1');
    await new Promise((resolve) => { server.once('listening', resolve); });
    away = `http://127.0.0.1:${String((server.address() as AddressInfo).port)}`;
  });
  afterAll(async () => {
    server?.close();
    await platform?.stop();
    await node?.stop();
  });

  const store = (...names: readonly string[]): string => join(platform.home.store, ...names);
  const imageCalled = async (name: string): Promise<Image | undefined> => (await rest.all<Image>('/v1/images')).find((image) => image.name === name);
  const known = async (name: string): Promise<Image> => {
    const image = await imageCalled(name);
    if (image === undefined) throw new Error(`no image ${name}`);
    return image;
  };
  const refusalOf = (asking: Promise<unknown>): Promise<Refused> => asking.then(() => { throw new Error('it was not refused'); }, (error: unknown) => {
    if (error instanceof Refused) return error;
    throw error;
  });
  const answers = (vm: Vm): Promise<unknown> => rest.until('the guest answers', () => node.inGuest(vm, '/bin/sh', '-c', 'cat /proc/uptime'), BOOTED_WITHIN_MS, 250);
  const wish = (name: string, more: object = {}): Record<string, unknown> => ({ name, image: 'micro', network: GUEST_NETWORK, vcpus: 1, memoryMib: 128, diskGib: 1, ...more });
  const diskOf = async (vm: Vm): Promise<string> => (await node.virsh('domblklist', await node.domainOf(vm))).split('\n').map((line) => line.trim().split(/\s+/)).find(([target]) => target === 'vda')?.[1] ?? '';
  const infoOf = async (file: string): Promise<{ 'backing-filename'?: string; 'virtual-size': number; 'actual-size': number }> => JSON.parse((await run('qemu-img', ['info', '-U', '--output=json', file])).stdout) as never;
  const imported = async (body: object): Promise<Operation> => {
    const { operation } = await rest.ok<Accepted>('POST', '/v1/images', body);
    return rest.ended(operation.id, 60_000);
  };

  it('A3-02 an upload of 2 GiB goes on after its connection broke, and after the gateway was killed', async () => {
    const file = join(platform.dir, 'large.raw');
    writeFileSync(file, 'it begins');
    truncateSync(file, 2 * GIB);
    const sha256 = await sha256Of(file);
    const path = await tus.begin({ name: 'large', format: 'raw', sha256 }, 2 * GIB);
    const broken = new AbortController();
    const first = tus.send(path, file, 0, 2 * GIB, broken.signal).catch(() => 'broken');
    await rest.until('half a GiB is there', async () => (await tus.offset(path)) > GIB / 2, 60_000, 20);
    broken.abort();
    expect(await first).toBe('broken');
    const there = await rest.until('the gateway has let go', async () => { const at = await tus.offset(path); await new Promise((resolve) => setTimeout(resolve, 300)); return (await tus.offset(path)) === at ? at : undefined; }, 10_000, 50);
    expect(there).toBeLessThan(2 * GIB);

    const second = tus.send(path, file, there, 2 * GIB).catch(() => 'broken');
    await rest.until('more of it is there', async () => (await tus.offset(path)) > there + GIB / 4, 60_000, 20);
    await platform.kill9('control-plane');
    expect(await second).toBe('broken');
    expect(existsSync(store('contents', sha256))).toBe(false);
    await platform.start('control-plane');
    const after = await tus.offset(path);
    expect(after).toBeGreaterThan(there);
    const { 'cv-operation': operation } = await tus.send(path, file, after, 2 * GIB);
    await rest.succeeded(String(operation), 120_000);
    expect(await known('large')).toMatchObject({ sha256, sizeBytes: 2 * GIB, virtualBytes: 2 * GIB, minDiskGib: 2, file: `${sha256}.raw` });
    expect([statSync(store('contents', sha256)).mode & 0o777, readdirSync(store('parts'))]).toEqual([0o400, []]);
    await rest.ok('DELETE', `/v1/images/${(await known('large')).id}`);
    // Nobody needs its bytes any more.
    await rest.until('its bytes are gone', () => Promise.resolve(!existsSync(store('contents', sha256))), 30_000);
  }, 300_000);

  it('A3-01 images that name other files of the host are refused, as qemu-img makes them, and leave nothing', async () => {
    const make = async (name: string, ...words: readonly string[]): Promise<string> => {
      const file = join(platform.dir, `${name}.qcow2`);
      await run('qemu-img', ['create', '-q', '-f', 'qcow2', ...words, file, '1G']);
      return file;
    };
    writeFileSync(join(platform.dir, 'secret'), Buffer.alloc(MIB, 'secret'));
    const hostile: readonly (readonly [string, string, string])[] = [
      ['backing', await make('backing', '-F', 'raw', '-b', join(platform.dir, 'secret')), 'image.has_backing_file'],
      ['data', await make('data', '-o', `data_file=${join(platform.dir, 'data.raw')}`), 'image.has_data_file'],
      // On a busy machine qemu-img may find no time that it has spent, and gives up.
      ['luks', await rest.until('qemu-img has made it', () => make('luks', '--object', 'secret,id=s,data=x', '-o', 'encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10'), 30_000, 200), 'image.encrypted'],
    ];
    const snapshots = await make('snapshots');
    await run('qemu-img', ['snapshot', '-c', 'one', snapshots]);
    const before = readdirSync(store('contents'));
    for (const [name, file, code] of [...hostile, ['snapshots', snapshots, 'image.has_snapshots'] as const]) {
      const refused = await refusalOf(tus.upload(file, { name, format: 'qcow2', sha256: await sha256Of(file) }));
      expect([name, refused.status, refused.code]).toEqual([name, 422, code]);
      expect((await refusalOf(tus.upload(file, { name, format: 'raw', sha256: await sha256Of(file) }))).code).toBe('image.not_of_format');
    }
    expect([readdirSync(store('contents')), (await rest.all<Image>('/v1/images')).map(({ name }) => name)]).toEqual([before, ['blank']]);
  });

  it('A3-07 a node that has it not fetches it once, however many VMs wait, and boots them from it', async () => {
    const { headers } = await tus.upload(micro, { name: 'micro', format: 'qcow2', sha256: node.image.sha256, minMemoryMib: 64, osFamily: 'linux' }, 5 * MIB);
    await rest.succeeded(String(headers['cv-operation']));
    expect(readdirSync(node.imageDir)).toEqual([]);
    const { operation } = await rest.ok<Accepted>('POST', '/v1/vms', wish('fetched', { count: 2 }));
    await rest.succeeded(operation.id, 60_000);
    const vms = (await rest.all<Vm>('/v1/vms')).filter(({ name }) => name.startsWith('fetched'));
    for (const vm of vms) await answers(vm);
    const file = `${node.image.sha256}.qcow2`;
    expect(readdirSync(node.imageDir)).toEqual([file]);
    await rest.until('both are counted', async () => (await known('micro')).uses === 2, 10_000);
    expect(statSync(join(node.imageDir, file)).mode & 0o777).toBe(0o444);
    expect(await sha256Of(join(node.imageDir, file))).toBe(node.image.sha256);
    expect(platform.logOf(node.part, 1_000_000).split('an image was fetched')).toHaveLength(2);
    for (const vm of vms) expect((await infoOf(await diskOf(vm)))['backing-filename']).toBe(join(node.imageDir, file));
    // What they stand on is not written by them.
    expect(await sha256Of(join(node.imageDir, file))).toBe(node.image.sha256);
    const refused = await refusalOf(rest.ok('DELETE', `/v1/images/${(await known('micro')).id}`));
    expect([refused.status, refused.code]).toEqual([409, 'image.in_use']);
    await Promise.all(vms.map(({ id }) => rest.gone(id)));
  });

  it('A3-01 a file that lies on the node already is read and compared with what was said of it, once for each file', async () => {
    const place = join(node.imageDir, 'placed.qcow2');
    copyFileSync(micro, place);
    const register = async (sha256: string): Promise<Image> => rest.ok<Image>('POST', '/v1/images', { name: 'placed', file: 'placed.qcow2', format: 'qcow2', sha256, sizeBytes: statSync(place).size, minMemoryMib: 64 });
    const made = async (name: string): Promise<Operation> => rest.ended((await rest.ok<Accepted>('POST', '/v1/vms', wish(name, { image: 'placed' }))).operation.id, 60_000);
    const wrong = await register('a'.repeat(64));
    expect((await made('never')).error).toMatchObject({ code: 'image.checksum_mismatch', because: { file: 'placed.qcow2', sha256: 'a'.repeat(64), found: node.image.sha256 } });
    await rest.gone((await rest.all<Vm>('/v1/vms')).find(({ name }) => name === 'never')?.id ?? '');
    await rest.ok('DELETE', `/v1/images/${wrong.id}`);
    const image = await register(node.image.sha256);
    expect((await made('placed')).status).toBe('succeeded');
    const note = join(node.imageDir, '.placed.qcow2.checked');
    const noted = statSync(note).mtimeMs;
    expect((await made('placed-too')).status).toBe('succeeded');
    expect(statSync(note).mtimeMs).toBe(noted);
    // What was right is known by which file it was: another in its place is read again.
    appendFileSync(place, 'more');
    expect((await made('tampered')).error?.code).toBe('image.checksum_mismatch');
    for (const { id } of (await rest.all<Vm>('/v1/vms')).filter(({ name }) => ['placed', 'placed-too', 'tampered'].includes(name))) await rest.gone(id);
    await rest.ok('DELETE', `/v1/images/${image.id}`);
    for (const file of readdirSync(node.imageDir)) if (file.includes('placed')) rmSync(join(node.imageDir, file), { force: true });
  });

  it('A3-01 from a URL: with the wrong sum nothing changes; killed in the middle it goes on where it was', async () => {
    const bytes = readFileSync(micro);
    const larger = Buffer.concat([bytes, Buffer.alloc(40 * MIB - bytes.length % MIB)]);
    files.set('/micro.qcow2', larger);
    const before = await rest.all<Image>('/v1/images');
    const wrong = await imported({ name: 'fetched', url: `${away}/micro.qcow2`, format: 'qcow2', sha256: sumOf(Buffer.from('another')) });
    expect([wrong.kind, wrong.status, wrong.error?.code]).toEqual(['import-image', 'compensated', 'image.checksum_mismatch']);
    expect(await rest.all<Image>('/v1/images')).toEqual(before);
    await rest.until('its bytes are gone', () => Promise.resolve(readdirSync(store('parts')).length === 0), 5_000);
    expect((await imported({ name: 'metadata', url: 'http://169.254.169.254/latest/meta-data', format: 'raw', sha256: 'a'.repeat(64) })).error?.code).toBe('image.url_not_allowed');

    slowly = true;
    asked.splice(0);
    const { operation } = await rest.ok<Accepted>('POST', '/v1/images', { name: 'fetched', url: `${away}/micro.qcow2`, format: 'qcow2', sha256: sumOf(larger) });
    await rest.until('some of it has come', async () => (await rest.operation(operation.id)).percent >= 20, 30_000, 50);
    await platform.kill9('control-plane');
    expect(existsSync(store('contents', sumOf(larger)))).toBe(false);
    await platform.start('control-plane');
    const ended = await rest.succeeded(operation.id, 60_000);
    expect(ended.percent).toBe(100);
    expect(asked).toEqual(['/micro.qcow2 whole', expect.stringMatching(/^\/micro\.qcow2 bytes=[1-9]\d+-$/)]);
    expect(await known('fetched')).toMatchObject({ sha256: sumOf(larger), sizeBytes: larger.length });
    slowly = false;
  }, 120_000);

  it('A3-08 a new version of a family is what its next VM boots, older ones stay while they are used, and it can be gone back to', async () => {
    const bytes = readFileSync(micro);
    const version = (n: number): Buffer => Buffer.concat([bytes, Buffer.alloc(n * MIB - (bytes.length % MIB))]);
    const published = async (n: number, sha256: string): Promise<Operation> => {
      files.set(`/os-${String(n)}.qcow2`, version(n));
      return imported({ name: `os-${String(n)}`, family: 'os', url: `${away}/os-${String(n)}.qcow2`, format: 'qcow2', sha256, minMemoryMib: 64 });
    };
    /** A VM of the family, and the sum of what its disk stands on. */
    const booted = async (name: string): Promise<readonly [Vm, string]> => {
      const vm = await rest.running(wish(name, { image: 'os' }), 60_000);
      await answers(vm);
      return [vm, basename((await infoOf(await diskOf(vm)))['backing-filename'] ?? '', '.qcow2')];
    };
    const [one, two] = [sumOf(version(1)), sumOf(version(2))];
    expect((await published(1, one)).status).toBe('succeeded');
    const [older, below] = await booted('of-one');
    expect(below).toBe(one);
    // What did not come whole changes nothing.
    expect((await published(2, sumOf(Buffer.from('another')))).error?.code).toBe('image.checksum_mismatch');
    expect((await rest.all<Image>('/v1/images?family=os')).map(({ name }) => name)).toEqual(['os-1']);
    expect((await published(2, two)).status).toBe('succeeded');
    const [newer, belowNewer] = await booted('of-two');
    expect([belowNewer, basename((await infoOf(await diskOf(older)))['backing-filename'] ?? '', '.qcow2')]).toEqual([two, one]);
    await answers(older);
    const first = await known('os-1');
    expect((await refusalOf(rest.ok('DELETE', `/v1/images/${first.id}`))).code).toBe('image.in_use');
    await rest.ok('POST', `/v1/images/${first.id}/use`);
    const [again, belowAgain] = await booted('of-one-again');
    expect(belowAgain).toBe(one);
    await Promise.all([older, newer, again].map(({ id }) => rest.gone(id)));
    for (const name of ['os-1', 'os-2']) await rest.ok('DELETE', `/v1/images/${(await known(name)).id}`);
  }, 180_000);

  it('A4-09 a volume is made of what a URL names, checked like an image, and there is no image of it', async () => {
    files.set('/data.raw', Buffer.concat([Buffer.alloc(3 * MIB, 'of the URL'), Buffer.alloc(MIB)]));
    const bytes = files.get('/data.raw') ?? Buffer.alloc(0);
    const [images, from] = [await rest.all<Image>('/v1/images'), { url: `${away}/data.raw`, sha256: sumOf(bytes), format: 'raw' }];
    const asked = (body: object): Promise<{ readonly operation: Operation; readonly volumeId: string }> => rest.ok('POST', '/v1/volumes', { name: 'of-a-url', node: 'metal', from, ...body });
    const wrong = await asked({ from: { ...from, sha256: sumOf(Buffer.from('another')) } });
    expect((await rest.ended(wrong.operation.id, 60_000)).error?.code).toBe('image.checksum_mismatch');
    await expect(rest.ok('GET', `/v1/volumes/${wrong.volumeId}`)).rejects.toMatchObject({ status: 404 });
    const { operation, volumeId } = await asked({});
    expect((await rest.succeeded(operation.id, 60_000)).kind).toBe('import-volume');
    expect(await rest.ok('GET', `/v1/volumes/${volumeId}`)).toMatchObject({ name: 'of-a-url', status: 'detached', sizeGib: 1, format: 'qcow2', imageId: null });
    const path = join(platform.dir, 'data.raw');
    writeFileSync(path, bytes);
    // Beyond what was fetched it holds zeroes, which are no difference.
    await run('qemu-img', ['compare', '-f', 'raw', '-F', 'qcow2', path, join(node.poolDir, `${volumeId}.qcow2`)]);
    await expect(asked({})).rejects.toMatchObject({ status: 409, code: 'volume.name_taken' });
    expect(await rest.all<Image>('/v1/images')).toEqual(images);
    await rest.done('DELETE', `/v1/volumes/${volumeId}`);
  });

  it('A3-07 of an image of 10 GiB a linked clone is made at once and stands on the read-only file; a full one stands alone', async () => {
    const file = join(platform.dir, 'ten.qcow2');
    copyFileSync(micro, file);
    await run('qemu-img', ['resize', '-q', file, '10G']);
    const sha256 = await sha256Of(file);
    const { headers } = await tus.upload(file, { name: 'ten', format: 'qcow2', sha256 });
    await rest.succeeded(String(headers['cv-operation']));
    expect(await known('ten')).toMatchObject({ virtualBytes: 10 * GIB, minDiskGib: 10 });
    expect((await refusalOf(rest.ok('POST', '/v1/vms', wish('small', { image: 'ten', diskGib: 9 })))).code).toBe('image.needs_more_disk');
    const first = await rest.running(wish('first', { image: 'ten', diskGib: 10 }));
    const started = performance.now();
    const linked = await rest.ok<Accepted>('POST', '/v1/vms', wish('linked', { image: 'ten', diskGib: 10 }));
    const { steps } = await rest.succeeded(linked.operation.id);
    const disk = steps.find(({ name }) => name === 'disk');
    process.stdout.write(`a linked clone of 10 GiB: its disk took ${String(Date.parse(disk?.endedAt ?? '') - Date.parse(disk?.startedAt ?? ''))} ms, all of it ${String(Math.round(performance.now() - started))} ms\n`);
    const below = join(node.imageDir, `${sha256}.qcow2`);
    expect(await infoOf(await diskOf(linked.vm))).toMatchObject({ 'backing-filename': below, 'virtual-size': 10 * GIB });
    expect(statSync(below).mode & 0o222).toBe(0);
    const full = await rest.running(wish('full', { image: 'ten', diskGib: 11, clone: 'full' }));
    expect(await infoOf(await diskOf(full))).toMatchObject({ 'virtual-size': 11 * GIB });
    expect((await infoOf(await diskOf(full)))['backing-filename']).toBeUndefined();
    await answers(full);
    await Promise.all([first, linked.vm, full].map(({ id }) => rest.gone(id)));
    await rest.ok('DELETE', `/v1/images/${(await known('ten')).id}`);
    // Neither the control plane nor the node keeps what no image is made of.
    await rest.until('the bytes are gone everywhere', () => Promise.resolve(!existsSync(below) && !existsSync(store('contents', sha256))), 30_000);
    expect(existsSync(join(node.imageDir, `${node.image.sha256}.qcow2`))).toBe(true);
  }, 180_000);

  it('A1-37 A3-04 A5-06 A5-07 what a snapshot of a running VM holds becomes an image, or a VM in one step; a VM of either is another one, with what was there then', async () => {
    const networkConfig = 'version: 2\nethernets:\n  all:\n    match: {name: "e*"}\n    dhcp4: true\n';
    const source = await rest.running(wish('source', { cloudInit: { networkConfig } }));
    await answers(source);
    const told = (of: Vm): Promise<string> => node.inGuest(of, '/bin/sh', '-c', 'mkdir -p /run/seed; for drive in /dev/sr0 /dev/sr1; do mount -t iso9660 -o ro $drive /run/seed && break; done; cat /run/seed/meta-data /run/seed/network-config; umount /run/seed');
    expect(await told(source)).toMatch(new RegExp(`"instance-id":"${source.id}","local-hostname":"source"[^]*match: {name: "e\\*"}`));
    // In the part of its disk that nobody uses.
    const write = (of: Vm, text: string): Promise<string> => node.inGuest(of, '/bin/sh', '-c', `echo ${text} | dd of=/dev/vda bs=512 seek=130000 conv=sync,notrunc,fsync 2>/dev/null`);
    const read = async (of: Vm): Promise<string> => (await node.inGuest(of, '/bin/sh', '-c', "dd if=/dev/vda bs=512 skip=130000 count=1 2>/dev/null | tr -d '\\000'")).trim();
    await write(source, 'then');
    await rest.succeeded((await rest.ok<Accepted>('POST', `/v1/vms/${source.id}/snapshots`, { name: 'point' })).operation.id);
    await write(source, 'later');
    const [point] = (await rest.ok<{ items: readonly { id: string }[] }>('GET', `/v1/vms/${source.id}/snapshots`)).items;
    const refused = await refusalOf(rest.ok('POST', `/v1/vms/${source.id}/publish`, { name: 'of-now' }));
    expect([refused.status, refused.code]).toEqual([409, 'vm.not_stopped']);
    const { operation } = await rest.ok<Accepted>('POST', `/v1/vms/${source.id}/publish`, { name: 'of-then', snapshot: point?.id, tags: ['golden'] });
    const ended = await rest.succeeded(operation.id, 120_000);
    expect([ended.kind, ended.steps.map(({ name, status }) => [name, status])]).toEqual(['publish', [['disk', 'done'], ['image', 'done']]]);
    const image = await known('of-then');
    expect(image).toMatchObject({ copiedFrom: source.id, minMemoryMib: 128, tags: ['golden'], file: `${image.sha256}.qcow2`, virtualBytes: GIB });
    // It stands alone, and nothing of the making is left.
    expect((await infoOf(store('contents', image.sha256)))['backing-filename']).toBeUndefined();
    expect(await sha256Of(store('contents', image.sha256))).toBe(image.sha256);
    expect([readdirSync(node.poolDir).filter((name) => name.includes('publish')), readdirSync(store('parts'))]).toEqual([[], []]);
    const copy = await rest.running(wish('copy', { image: 'of-then' }), 120_000);
    await answers(copy);
    expect([await read(copy), await read(source)]).toEqual(['then', 'later']);
    expect([copy.mac === source.mac, copy.address === source.address]).toEqual([false, false]);
    // In one step, without an image: the snapshot may be deleted afterwards.
    const made = await rest.ok<Accepted>('POST', `/v1/vms/${source.id}/snapshots/${point?.id ?? ''}/clone`, { name: 'clone' });
    expect(made.operation.kind).toBe('clone');
    await rest.succeeded(made.operation.id, 120_000);
    await rest.succeeded((await rest.ok<Accepted>('DELETE', `/v1/vms/${source.id}/snapshots/${point?.id ?? ''}`)).operation.id);
    const clone = await rest.vm(made.vm.id);
    await answers(clone);
    // cloud-init is told that it is another machine, and nothing of the other one's network.
    expect(await told(clone)).toMatch(new RegExp(`"instance-id":"${clone.id}","local-hostname":"clone"`));
    expect(await told(clone)).not.toContain('match:');
    expect([await read(clone), await read(source)]).toEqual(['then', 'later']);
    expect([clone.mac === source.mac, clone.address === source.address]).toEqual([false, false]);
    expect((await infoOf(join(node.poolDir, `${clone.id.replace('vm_', 'volume_')}.qcow2`)))['backing-filename']).toBeUndefined();
    await rest.gone(clone.id);
    await Promise.all([source, copy].map(({ id }) => rest.gone(id)));
  }, 300_000);
});
