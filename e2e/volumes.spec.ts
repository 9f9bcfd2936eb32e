/* Pools that an operator makes, and volumes of their own: by REST, on a real libvirt and QEMU, seen by qemu-img, in the files of the node and from inside the guest. */
import { execFile } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { chmodSync, createReadStream, existsSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { tmpdir } from 'node:os';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startPlatform, type Platform } from './platform.ts';
import { addQemuNode, GUEST_NETWORK, type QemuNode } from './qemu-node.ts';
import type { Accepted, Operation, Rest, Vm } from './rest.ts';
import { addTestNode, type TestNode } from './test-node.ts';

const run = promisify(execFile);
const BOOTED_WITHIN_MS = 120_000;
const MIB = 2 ** 20;

interface Volume {
  readonly id: string;
  readonly name: string;
  readonly status: string;
  readonly format: 'qcow2' | 'raw';
  readonly sizeGib: number;
  readonly poolId: string;
  readonly vmId: string | null;
  readonly operationId: string | null;
  readonly failure: { readonly code: string; readonly owed: readonly string[] } | null;
}

interface Pool {
  readonly id: string;
  readonly name: string;
  readonly type: string;
  readonly status: string;
  readonly desired: string;
  readonly path: string | null;
  readonly nodeIds: readonly string[];
  readonly nodeId: string;
  readonly observed: readonly { readonly nodeId: string; readonly active: boolean; readonly capacityGib: number; readonly usedGib: number }[];
  readonly capacityGib: number;
  readonly nearlyFull: boolean;
  readonly promisedGib: number;
  readonly volumes: number;
  readonly found: { readonly usedGib: number; readonly volumesGib: number; readonly unknown: { readonly count: number; readonly first: readonly string[] }; readonly missing: { readonly count: number; readonly first: readonly string[] } } | null;
}

describe('volumes of their own', () => {
  let platform: Platform;
  let rest: Rest;
  let node: QemuNode;
  let vm: Vm;
  /** A second node, which runs nothing, and where both may have pools. */
  let beta: TestNode;
  let root: string;
  /** An image of random bytes: what takes a moment to copy, and cannot be made sparse. */
  let noise: { readonly name: string; readonly path: string };
  beforeAll(async () => {
    root = mkdtempSync(join(tmpdir(), 'cv-pools-'));
    // QEMU's user passes through it.
    chmodSync(root, 0o755);
    platform = await startPlatform({ split: false, environment: { CV_NODE_AGENT_POOL_ROOTS: root } });
    ({ rest } = platform);
    node = await addQemuNode(platform, 'metal');
    beta = await addTestNode(platform, 'beta');
    const file = `cv-spec-noise-${randomBytes(4).toString('hex')}.raw`;
    noise = { name: 'noise', path: join(node.imageDir, file) };
    const chunk = randomBytes(16 * MIB);
    for (let i = 0; i < 16; i++) {
      chunk.writeUInt32LE(i);
      writeFileSync(noise.path, chunk, { flag: i === 0 ? 'w' : 'a' });
    }
    await rest.ok('POST', '/v1/images', { name: 'noise', file, format: 'raw', sha256: await sha256(noise.path), sizeBytes: statSync(noise.path).size });
    vm = await rest.running({ name: 'user', node: 'metal', image: 'micro', network: GUEST_NETWORK, vcpus: 1, memoryMib: 128, diskGib: 1 });
    await rest.until('the guest answers', () => script('cat /proc/uptime'), BOOTED_WITHIN_MS, 250);
  });
  afterAll(async () => {
    await platform.stop();
    await node.stop();
    await beta.stop();
    rmSync(noise.path, { force: true });
    rmSync(root, { recursive: true, force: true });
  });

  const script = (text: string): Promise<string> => node.inGuest(vm, '/bin/sh', '-c', text);
  const shown = (id: string): Promise<Volume> => rest.ok('GET', `/v1/volumes/${id}`);
  const poolNow = (id: string): Promise<Pool> => rest.ok('GET', `/v1/pools/${id}`);
  const poolMade = async (body: object): Promise<Pool> => {
    const { operation, poolId } = await rest.ok<{ readonly operation: Operation; readonly poolId: string }>('POST', '/v1/pools', body);
    await rest.succeeded(operation.id);
    return poolNow(poolId);
  };
  /** How an operation that cannot succeed ended. */
  const failure = async (asking: Promise<{ readonly operation: Operation }>): Promise<string> => {
    const { status, error } = await rest.ended((await asking).operation.id, 60_000);
    return `${status}: ${String(error?.code)}`;
  };
  const ownPool = async (): Promise<Pool> => {
    const found = (await rest.all<Pool>('/v1/pools')).find(({ type, nodeId }) => type === 'own' && nodeId === node.nodeId);
    if (found === undefined) throw new Error('the node has no pool');
    return found;
  };
  const asked = (body: object): Promise<{ readonly operation: Operation; readonly volumeId: string }> => rest.ok('POST', '/v1/volumes', { node: 'metal', ...body });
  const made = async (body: object, within = 60_000): Promise<Volume> => {
    const { operation, volumeId } = await asked(body);
    await rest.succeeded(operation.id, within);
    return shown(volumeId);
  };
  const fileOf = ({ id, format }: Pick<Volume, 'id' | 'format'>, dir = node.poolDir): string => join(dir, `${id}.${format}`);
  const filesOf = (id: string, dir = node.poolDir): readonly string[] => readdirSync(dir).filter((name) => name.startsWith(id)).sort();
  const info = async (path: string): Promise<{ readonly format: string; readonly 'virtual-size': number; readonly 'actual-size': number; readonly 'backing-filename'?: string }> =>
    JSON.parse((await run('qemu-img', ['info', '-U', '--output=json', path])).stdout) as never;
  /** Whether two disks hold the same, as qemu-img reads them. */
  const same = (a: Volume, b: Volume): Promise<boolean> => run('qemu-img', ['compare', '-f', a.format, '-F', b.format, fileOf(a), fileOf(b)]).then(() => true, (error: unknown) => {
    if ((error as { readonly code?: unknown }).code === 1) return false;
    throw error;
  });
  /** Of what a disk holds, whatever its file is like. */
  const content = async (volume: Volume): Promise<string> => {
    const raw = join(platform.dir, 'content.raw');
    try {
      await run('qemu-img', ['convert', '-f', volume.format, '-O', 'raw', fileOf(volume), raw]);
      return await sha256(raw);
    } finally {
      rmSync(raw, { force: true });
    }
  };
  /** 512 bytes as text, by their number. */
  const read = async (volume: Volume, block: number): Promise<string> => {
    const { stdout } = await run('qemu-io', ['-f', volume.format, '-r', '-c', `read -v ${String(block * 512)} 512`, fileOf(volume)]);
    const hex = stdout.split('\n').flatMap((line) => /^[0-9a-f]{8}:((?: +[0-9a-f]{2}){16})/.exec(line)?.[1] ?? []).join('').replaceAll(' ', '');
    return Buffer.from(hex, 'hex').toString('latin1').replaceAll('\0', '').trim();
  };
  const write = (volume: Volume, text: string): Promise<unknown> => run('qemu-io', ['-f', volume.format, '-c', text, fileOf(volume)]);
  const attach = (volume: Volume): Promise<Operation> => rest.done('POST', `/v1/vms/${vm.id}/volumes`, { volume: volume.id }, 60_000);
  const detach = (volume: Volume): Promise<Operation> => rest.done('DELETE', `/v1/vms/${vm.id}/volumes/${volume.id}`, undefined, 90_000);
  const targetOf = async (volume: Volume): Promise<string> => {
    const line = (await node.virsh('domblklist', await node.domainOf(vm))).split('\n').find((one) => one.includes(volume.id));
    return line?.trim().split(/\s+/)[0] ?? '';
  };

  let data: Volume;
  let plain: Volume;

  it('A4-09 blank ones have the size and format that were asked for, and a name of their own', async () => {
    data = await made({ name: 'data', sizeGib: 1 });
    plain = await made({ name: 'plain', sizeGib: 2, format: 'raw' });
    expect(data).toMatchObject({ name: 'data', status: 'detached', format: 'qcow2', sizeGib: 1, vmId: null, operationId: null, failure: null });
    expect(await info(fileOf(data))).toMatchObject({ format: 'qcow2', 'virtual-size': 1024 * MIB });
    expect(await info(fileOf(plain))).toMatchObject({ format: 'raw', 'virtual-size': 2048 * MIB });
    // Thin, both.
    for (const volume of [data, plain]) expect((await info(fileOf(volume)))['actual-size']).toBeLessThan(MIB);
    await expect(asked({ name: 'data', sizeGib: 1 })).rejects.toMatchObject({ status: 409, code: 'volume.name_taken' });
    await expect(asked({ name: 'elsewhere', sizeGib: 1, pool: 'nowhere' })).rejects.toMatchObject({ status: 422, code: 'pool.unknown' });
    await expect(asked({ name: 'sizeless' })).rejects.toMatchObject({ status: 422, code: 'volume.size_missing' });
    expect((await rest.all<Volume>('/v1/volumes')).map(({ name }) => name).sort()).toEqual(['data', 'plain']);
  });

  it('A4-09 one that begins as an image stands alone', async () => {
    const copy = await made({ name: 'copy-of-image', from: { image: 'noise' }, sizeGib: 1 });
    expect((await info(fileOf(copy)))['backing-filename']).toBeUndefined();
    await run('qemu-img', ['compare', '-f', 'raw', '-F', 'qcow2', noise.path, fileOf(copy)]);
    expect(await info(fileOf(copy))).toMatchObject({ 'virtual-size': 1024 * MIB });
    await expect(asked({ name: 'none', from: { image: 'nothing' } })).rejects.toMatchObject({ status: 422, code: 'image.unknown' });
    await rest.done('DELETE', `/v1/volumes/${copy.id}`);
    expect(filesOf(copy.id)).toEqual([]);
    // Its name is free again.
    await rest.done('DELETE', `/v1/volumes/${(await made({ name: 'copy-of-image', sizeGib: 1 })).id}`);
  });

  it('A4-09 A4-10 attached to a machine that runs, each is what it is, and keeps what was written', async () => {
    for (const volume of [data, plain]) {
      await attach(volume);
      const target = await targetOf(volume);
      expect(await node.virsh('dumpxml', await node.domainOf(vm))).toMatch(new RegExp(`type='${volume.format}'[^>]*/>\\s*<source file='[^']*${volume.id}`));
      await rest.until('the guest has it', async () => (await script(`cat /sys/block/${target}/size`)).trim() === String(volume.sizeGib * 2 ** 21), 5_000, 100);
      await script(`echo written-in-${volume.name} | dd of=/dev/${target} bs=512 seek=2048 count=1 conv=sync,fsync 2>/dev/null`);
      for (const work of ['wipe', 'sparsify', 'convert']) await expect(rest.ok('POST', `/v1/volumes/${volume.id}/${work}`, work === 'convert' ? { format: 'raw' } : work === 'wipe' ? undefined : {})).rejects.toMatchObject({ status: 409, code: 'volume.attached' });
      await expect(asked({ name: 'stolen', from: { volume: volume.id } }).then(({ operation }) => rest.succeeded(operation.id))).rejects.toThrow(/volume\.attached/);
      await detach(volume);
      expect(await read(volume, 2_048)).toBe(`written-in-${volume.name}`);
    }
  });

  it('A4-12 a clone holds the same, and is another', async () => {
    const clone = await made({ name: 'clone', from: { volume: data.id } });
    const asRaw = await made({ name: 'clone-as-raw', format: 'raw', sizeGib: 2, from: { volume: data.id } });
    expect([clone.format, clone.sizeGib, asRaw.format, asRaw.sizeGib]).toEqual(['qcow2', 1, 'raw', 2]);
    expect(await content(clone)).toBe(await content(data));
    expect([await same(data, clone), await same(data, asRaw)]).toEqual([true, true]);
    expect(await shown(data.id)).toMatchObject({ status: 'detached', operationId: null });
    await write(clone, 'write -P 0x5a 4M 64k');
    expect([await same(data, clone), await same(data, asRaw)]).toEqual([false, true]);
    await expect(asked({ name: 'too-small', sizeGib: 1, from: { volume: asRaw.id } })).rejects.toMatchObject({ status: 422, code: 'volume.smaller_than_source' });
    for (const volume of [clone, asRaw]) await rest.done('DELETE', `/v1/volumes/${volume.id}`);
  });

  it('A4-09 A4-12 what a snapshot holds becomes a volume, whatever was written since', async () => {
    await attach(data);
    const target = await targetOf(data);
    const put = (text: string): Promise<string> => script(`echo ${text} | dd of=/dev/${target} bs=512 count=1 conv=sync,notrunc,fsync 2>/dev/null`);
    await put('before-the-snapshot');
    await rest.done('POST', `/v1/vms/${vm.id}/snapshots`, { name: 'then' }, 60_000);
    await put('after-the-snapshot');
    const [snapshot] = (await rest.ok<{ items: readonly { readonly id: string }[] }>('GET', `/v1/vms/${vm.id}/snapshots`)).items;
    const from = await made({ name: 'from-snapshot', format: 'raw', from: { vm: vm.id, snapshot: snapshot?.id, volume: data.id } });
    expect(await read(from, 0)).toBe('before-the-snapshot');
    expect(await script(`dd if=/dev/${target} bs=512 count=1 2>/dev/null`)).toContain('after-the-snapshot');
    await rest.done('DELETE', `/v1/vms/${vm.id}/snapshots/${snapshot?.id ?? ''}`, undefined, 90_000);
    await expect(asked({ name: 'too-late', from: { vm: vm.id, snapshot: snapshot?.id, volume: data.id } })).rejects.toMatchObject({ code: 'snapshot.not_found' });
    await detach(data);
    await rest.done('DELETE', `/v1/volumes/${from.id}`);
  });

  it('A4-16 converted there and back it holds the same', async () => {
    const before = await content(data);
    await rest.done('POST', `/v1/volumes/${data.id}/convert`, { format: 'raw' }, 60_000);
    expect(filesOf(data.id)).toEqual([`${data.id}.raw`]);
    const raw = await shown(data.id);
    expect([raw.format, (await info(fileOf(raw))).format]).toEqual(['raw', 'raw']);
    await attach(raw);
    expect(await script(`dd if=/dev/${await targetOf(raw)} bs=512 count=1 2>/dev/null`)).toContain('after-the-snapshot');
    await detach(raw);
    await rest.done('POST', `/v1/volumes/${data.id}/convert`, { format: 'qcow2' }, 60_000);
    expect(filesOf(data.id)).toEqual([`${data.id}.qcow2`]);
    expect(await content(await shown(data.id))).toBe(before);
  });

  it('A4-13 made sparse it takes less, and holds the same', async () => {
    await write(data, 'write -P 0xa5 64M 96M');
    await write(data, 'write -P 0 64M 95M');
    const before = await made({ name: 'before', from: { volume: data.id } });
    expect((await info(fileOf(data)))['actual-size']).toBeGreaterThan(90 * MIB);
    await rest.done('POST', `/v1/volumes/${data.id}/sparsify`, {}, 60_000);
    const after = (await info(fileOf(data)))['actual-size'];
    expect(after).toBeLessThan(8 * MIB);
    await rest.done('POST', `/v1/volumes/${data.id}/sparsify`, { compress: true }, 60_000);
    expect((await info(fileOf(data)))['actual-size']).toBeLessThan(after);
    expect(await same(before, data)).toBe(true);
    await rest.done('DELETE', `/v1/volumes/${before.id}`);
    await expect(rest.ok('POST', `/v1/volumes/${plain.id}/sparsify`, { compress: true })).rejects.toMatchObject({ status: 422, code: 'volume.raw_not_compressed' });
  });

  it('A4-16 published it is an image that is downloaded with what the volume holds, of which others are made', async () => {
    const { operation, imageId } = await rest.ok<{ readonly operation: Operation; readonly imageId: string }>('POST', `/v1/volumes/${data.id}/publish`, { name: 'data-now' });
    await rest.succeeded(operation.id, 60_000);
    const answer = await fetch(`${platform.url}/v1/images/${imageId}/content`, { headers: { authorization: `Bearer ${platform.token}` } });
    expect(answer.status).toBe(200);
    const path = join(platform.dir, 'downloaded.qcow2');
    writeFileSync(path, Buffer.from(await answer.arrayBuffer()));
    await run('qemu-img', ['compare', '-f', 'qcow2', '-F', data.format, path, fileOf(data)]);
    expect(await rest.ok('GET', `/v1/images/${imageId}`)).toMatchObject({ name: 'data-now', format: 'qcow2', minDiskGib: data.sizeGib, sha256: await sha256(path) });
    const other = await made({ name: 'of-the-image', from: { image: imageId } });
    expect(await same(other, data)).toBe(true);
    await rest.done('DELETE', `/v1/volumes/${other.id}`);
    await expect(rest.ok('POST', `/v1/volumes/${data.id}/publish`, { name: 'data-now' })).rejects.toMatchObject({ status: 409, code: 'image.name_taken' });
    expect(filesOf(data.id)).toEqual([`${data.id}.qcow2`]);
    expect((await shown(data.id)).status).toBe('detached');
    await rest.ok('DELETE', `/v1/images/${imageId}`);
  });

  it('A4-16 wiped it holds nothing but zeroes', async () => {
    const empty = await made({ name: 'empty', sizeGib: 2 });
    for (const volume of [data, plain]) {
      expect(await same(volume, empty)).toBe(false);
      await rest.done('POST', `/v1/volumes/${volume.id}/wipe`, undefined, 60_000);
      expect(await same(volume, empty)).toBe(true);
      expect(await info(fileOf(volume))).toMatchObject({ format: volume.format, 'virtual-size': volume.sizeGib * 1024 * MIB });
      expect(filesOf(volume.id)).toEqual([`${volume.id}.${volume.format}`]);
    }
    await rest.done('DELETE', `/v1/volumes/${empty.id}`);
  });

  let fast: Pool;
  let inFast: Volume;

  it('A4-01 a folder of a node becomes a pool, below the folders that the node is configured with and nowhere else', async () => {
    const path = join(root, 'rack', 'fast');
    fast = await poolMade({ type: 'dir', name: 'fast', node: 'metal', path });
    expect(fast).toMatchObject({ status: 'active', desired: 'active', type: 'dir', path, nodeIds: [node.nodeId], observed: [{ nodeId: node.nodeId, active: true }] });
    expect(statSync(path).isDirectory()).toBe(true);
    const { stdout } = await run('df', ['--output=size', '-B1G', path]);
    expect(Math.abs(fast.capacityGib - Number(stdout.split('\n')[1]))).toBeLessThanOrEqual(1);
    for (const bad of ['/var/lib/elsewhere', `${root}x/y`]) expect(await failure(rest.ok('POST', '/v1/pools', { type: 'dir', name: 'outside', node: 'metal', path: bad }))).toBe('compensated: pool.outside_roots');
    await expect(rest.ok('POST', '/v1/pools', { type: 'dir', name: 'dots', node: 'metal', path: `${root}/../etc` })).rejects.toMatchObject({ status: 400 });
    symlinkSync('/var', join(root, 'link'));
    expect(await failure(rest.ok('POST', '/v1/pools', { type: 'dir', name: 'linked', node: 'metal', path: join(root, 'link', 'pool') }))).toBe('compensated: pool.no_folder');
    expect(existsSync('/var/pool')).toBe(false);
    expect(await failure(rest.ok('POST', '/v1/pools', { type: 'dir', name: 'again', node: 'metal', path }))).toBe('compensated: pool.path_in_use');
    await expect(rest.ok('POST', '/v1/pools', { type: 'dir', name: 'fast', node: 'metal', path: `${path}2` })).rejects.toMatchObject({ status: 409, code: 'pool.name_taken' });
    for (const pool of await rest.all<Pool>('/v1/pools')) if (pool.status === 'failed') await rest.done('DELETE', `/v1/pools/${pool.id}`);
    expect((await rest.all<Pool>('/v1/pools')).map(({ name }) => name).sort()).toEqual(['fast', 'local', 'local']);
  });

  it('A4-01 A4-12 volumes and machines are put into it, and a volume is cloned from one pool into another', async () => {
    inFast = await made({ name: 'in-fast', pool: 'fast', from: { volume: data.id } });
    expect(filesOf(inFast.id, fast.path ?? '')).toEqual([`${inFast.id}.qcow2`]);
    expect(filesOf(inFast.id)).toEqual([]);
    await attach(inFast);
    const target = await targetOf(inFast);
    expect(await node.virsh('domblklist', await node.domainOf(vm))).toContain(fileOf(inFast, fast.path ?? ''));
    await script(`echo written-in-fast | dd of=/dev/${target} bs=512 count=1 conv=sync,fsync 2>/dev/null`);
    // Layers of a snapshot lie beside it.
    await rest.done('POST', `/v1/vms/${vm.id}/snapshots`, { name: 'spread' }, 60_000);
    expect(filesOf(inFast.id, fast.path ?? '')).toHaveLength(2);
    await rest.done('DELETE', `/v1/vms/${vm.id}/snapshots/${(await rest.ok<{ items: readonly { readonly id: string }[] }>('GET', `/v1/vms/${vm.id}/snapshots`)).items[0]?.id ?? ''}`, undefined, 90_000);
    expect(filesOf(inFast.id, fast.path ?? '')).toEqual([`${inFast.id}.qcow2`]);
    await rest.done('PATCH', `/v1/vms/${vm.id}/volumes/${inFast.id}`, { sizeGib: 2 });
    expect(await rest.until('the guest sees the new size', async () => (await script(`cat /sys/block/${target}/size`)).trim() === String(2 * 2 ** 21), 10_000)).toBe(true);

    const other = await rest.running({ name: 'on-fast', image: 'micro', network: GUEST_NETWORK, vcpus: 1, memoryMib: 128, diskGib: 1, pool: 'fast' });
    expect(await node.virsh('domblklist', await node.domainOf(other))).toContain(`${fast.path ?? ''}/volume_`);
    expect(await poolNow(fast.id)).toMatchObject({ promisedGib: 3, volumes: 2 });
    await rest.gone(other.id);
    expect(readdirSync(fast.path ?? '').filter((name) => name.startsWith('volume_'))).toEqual([`${inFast.id}.qcow2`]);
    await expect(rest.create({ name: 'nowhere', image: 'micro', network: GUEST_NETWORK, vcpus: 1, memoryMib: 128, diskGib: 1, pool: 'nowhere' })).rejects.toMatchObject({ status: 422, code: 'pool.unknown' });
  });

  it('A4-07 it is neither stopped nor deleted while its disks are in use, and says which; a refresh finds what came and what is gone', async () => {
    for (const asked of [rest.ok('POST', `/v1/pools/${fast.id}/stop`), rest.ok('DELETE', `/v1/pools/${fast.id}`)]) {
      await expect(asked).rejects.toMatchObject({ status: 409, code: 'pool.in_use', problem: { because: { count: 1, volumes: [{ volumeId: inFast.id, name: 'in-fast', vmId: vm.id }] } } });
    }
    await detach(inFast);
    await expect(rest.ok('DELETE', `/v1/pools/${fast.id}`)).rejects.toMatchObject({ status: 409, code: 'pool.in_use' });
    await expect(rest.ok('POST', `/v1/pools/${(await ownPool()).id}/stop`)).rejects.toMatchObject({ status: 409, code: 'pool.of_node' });

    writeFileSync(join(fast.path ?? '', 'stranger.img'), 'x');
    renameSync(fileOf(inFast, fast.path ?? ''), join(root, 'kept.qcow2'));
    await rest.done('POST', `/v1/pools/${fast.id}/refresh`);
    expect((await poolNow(fast.id)).found).toMatchObject({ unknown: { count: 1, first: ['stranger.img'] }, missing: { count: 1, first: [inFast.id] } });
    renameSync(join(root, 'kept.qcow2'), fileOf(inFast, fast.path ?? ''));
    rmSync(join(fast.path ?? '', 'stranger.img'));
    await rest.done('POST', `/v1/pools/${fast.id}/refresh`);
    expect((await poolNow(fast.id)).found).toMatchObject({ unknown: { count: 0 }, missing: { count: 0 } });

    await rest.done('POST', `/v1/pools/${fast.id}/stop`);
    expect(await poolNow(fast.id)).toMatchObject({ status: 'stopped', desired: 'stopped' });
    expect(await failure(rest.ok<Accepted>('POST', `/v1/vms/${vm.id}/volumes`, { volume: inFast.id }))).toBe('compensated: pool.stopped');
    expect(await failure(asked({ name: 'too-late', sizeGib: 1, pool: 'fast' }))).toBe('compensated: pool.stopped');
    // Where something else is mounted, or nothing, it is not there.
    renameSync(fast.path ?? '', join(root, 'unmounted'));
    mkdirSync(fast.path ?? '');
    expect(await failure(rest.ok('POST', `/v1/pools/${fast.id}/start`))).toBe('compensated: pool.not_the_same');
    rmSync(fast.path ?? '', { recursive: true });
    renameSync(join(root, 'unmounted'), fast.path ?? '');
    await rest.done('POST', `/v1/pools/${fast.id}/start`);
    await attach(inFast);
    expect(await script(`dd if=/dev/${await targetOf(inFast)} bs=512 count=1 2>/dev/null`)).toContain('written-in-fast');
    await detach(inFast);
  });

  it('A4-08 more is promised than there is as far as its ratio goes, and nothing when it is really full', async () => {
    const before = await poolNow(fast.id);
    expect(before.promisedGib).toBe(2);
    const [seen] = before.observed;
    expect(seen?.usedGib).toBeGreaterThan(0);
    await rest.ok('PATCH', `/v1/pools/${fast.id}`, { overcommitPercent: 1 });
    expect(await failure(asked({ name: 'more', sizeGib: before.capacityGib, pool: 'fast' }))).toBe('compensated: pool.no_space');
    await rest.ok('PATCH', `/v1/pools/${fast.id}`, { overcommitPercent: 300 });
    const large = await made({ name: 'large', sizeGib: 2 * before.capacityGib, pool: 'fast' });
    expect((await info(fileOf(large, fast.path ?? '')))['actual-size']).toBeLessThan(MIB);
    expect(await poolNow(fast.id)).toMatchObject({ promisedGib: 2 + 2 * before.capacityGib, overcommitPercent: 300, nearlyFull: false });

    await rest.ok('PATCH', `/v1/pools/${fast.id}`, { fullPercent: 1 });
    expect(await poolNow(fast.id)).toMatchObject({ nearlyFull: true });
    expect(await failure(asked({ name: 'too-much', sizeGib: 1, pool: 'fast' }))).toBe('compensated: pool.nearly_full');
    const rows = (await platform.sql<{ type: string }>(`select type from event_log.event where stream = 'pool-${fast.id}'`)).map(({ type }) => type);
    expect(rows).toContain('PoolNearlyFull');
    await rest.ok('PATCH', `/v1/pools/${fast.id}`, { fullPercent: 100 });
    expect(await poolNow(fast.id)).toMatchObject({ nearlyFull: false });
    await rest.done('DELETE', `/v1/volumes/${large.id}`);
  });

  it('A4-02 a folder is shared by two nodes when the one reads what the other wrote, and both work in it', async () => {
    const path = join(root, 'both');
    const shared = await poolMade({ type: 'shared', name: 'both', nodes: ['metal', 'beta'], path });
    expect(shared).toMatchObject({ status: 'active', type: 'shared', nodeIds: [node.nodeId, beta.nodeId] });
    // Made by the one, read by the other.
    const first = await made({ name: 'first', pool: 'both', node: 'metal', sizeGib: 1 });
    await run('qemu-io', ['-f', 'qcow2', '-c', 'write -P 0x33 1M 1M', fileOf(first, path)]);
    const second = await made({ name: 'second', pool: 'both', node: 'beta', from: { volume: first.id } });
    await run('qemu-img', ['compare', fileOf(first, path), fileOf(second, path)]);
    // What the other made is attached here.
    await attach(second);
    expect(await script(`dd if=/dev/${await targetOf(second)} bs=1M skip=1 count=1 2>/dev/null | tr -d '3' | wc -c`)).toBe('0\n');
    await detach(second);
    for (const { id } of [first, second]) await rest.done('DELETE', `/v1/volumes/${id}`);

    // A folder that only one of them has is not shared, and nothing of it is left.
    await rest.done('POST', `/v1/pools/${shared.id}/stop`);
    writeFileSync(join(path, '.chronovirt-pool'), 'another');
    expect(await failure(rest.ok('POST', `/v1/pools/${shared.id}/start`))).toBe('compensated: pool.path_in_use');
    rmSync(join(path, '.chronovirt-pool'));
    await rest.done('DELETE', `/v1/pools/${shared.id}`);
    expect((await rest.call('GET', `/v1/pools/${shared.id}`)).status).toBe(404);
    await rest.done('DELETE', `/v1/volumes/${inFast.id}`);
    await rest.done('DELETE', `/v1/pools/${fast.id}`);
    expect(existsSync(fast.path ?? '')).toBe(false);
  });

  /** Begins one that takes a moment, and kills the agent while it is being written. */
  const brokenOff = async (name: string): Promise<{ readonly operation: Operation; readonly volumeId: string }> => {
    const begun = await asked({ name, from: { image: 'noise' }, sizeGib: 1 });
    await rest.until('it is being written', () => Promise.resolve(existsSync(join(node.poolDir, `${begun.volumeId}.qcow2.new`))), 30_000, 2);
    await platform.kill9(node.part);
    expect(await shown(begun.volumeId)).toMatchObject({ status: 'creating', operationId: begun.operation.id });
    return begun;
  };

  it('A4-17 one whose agent is killed while it is made is made by the next one', async () => {
    const { operation, volumeId } = await brokenOff('killed');
    expect(filesOf(volumeId)).toEqual([`${volumeId}.qcow2.new`]);
    await expect(rest.ok('DELETE', `/v1/volumes/${volumeId}`)).rejects.toMatchObject({ status: 409, code: 'volume.busy' });
    await platform.start(node.part);
    await rest.succeeded(operation.id, 60_000);
    const volume = await shown(volumeId);
    expect([volume.status, filesOf(volumeId)]).toEqual(['detached', [`${volumeId}.qcow2`]]);
    await run('qemu-img', ['compare', '-f', 'raw', '-F', 'qcow2', noise.path, fileOf(volume)]);
    await rest.done('DELETE', `/v1/volumes/${volumeId}`);
  });

  it('A4-17 one that cannot be made after all has failed, says why, and nothing of it is left', async () => {
    const { operation, volumeId } = await brokenOff('hopeless');
    rmSync(noise.path);
    await platform.start(node.part);
    const ended = await rest.ended(operation.id, 90_000);
    expect([ended.status, ended.error?.code]).toEqual(['compensated', 'image.missing_on_node']);
    expect(await shown(volumeId)).toMatchObject({ status: 'failed', operationId: null, failure: { code: 'image.missing_on_node', owed: [] } });
    expect(filesOf(volumeId)).toEqual([]);
    await expect(rest.ok<Accepted>('POST', `/v1/vms/${vm.id}/volumes`, { volume: volumeId }).then(({ operation: { id } }) => rest.succeeded(id))).rejects.toThrow(/volume\.failed/);
    expect((await ownPool()).promisedGib).toBe(1 + 1 + 2);
    // Its name is free, and it can be deleted.
    const again = await made({ name: 'hopeless', sizeGib: 1 });
    for (const id of [volumeId, again.id]) await rest.done('DELETE', `/v1/volumes/${id}`);
    expect((await rest.call('GET', `/v1/volumes/${volumeId}`)).status).toBe(404);
  });
});

async function sha256(path: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(path, { highWaterMark: 4 * MIB })) hash.update(chunk as Buffer);
  return hash.digest('hex');
}
