/* What a machine is made of, changed while it exists: by REST, on a real libvirt and QEMU, seen through virsh and from inside the guest. */
import { execFile } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { createHash } from 'node:crypto';
import { copyFileSync, readFileSync, statSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startPlatform, type Platform } from './platform.ts';
import { addQemuNode, GUEST_NETWORK, type QemuNode } from './qemu-node.ts';
import { Refused, type Accepted, type Operation, type Rest, type Vm } from './rest.ts';

const run = promisify(execFile);
const BOOTED_WITHIN_MS = 90_000;

interface Machine extends Vm {
  readonly spec: { readonly vcpus: number; readonly memoryMib: number; readonly diskGib: number; readonly boot: readonly string[]; readonly media: { readonly file: string } | null };
  readonly nics: readonly { readonly network: string; readonly address: string; readonly mac: string }[];
  readonly pending: readonly string[];
}

/** A medium with one file that says its name. */
async function mediumOf(imageDir: string, name: string): Promise<object> {
  const dir = await mkdtemp(join(tmpdir(), 'cv-medium-'));
  try {
    await writeFile(join(dir, 'name.txt'), `${name}\n`);
    const file = `${name}.iso`;
    await run('xorriso', ['-as', 'mkisofs', '-quiet', '-V', name, '-r', '-o', join(dir, file), join(dir, 'name.txt')]);
    copyFileSync(join(dir, file), join(imageDir, file));
    return { name, file, format: 'iso', sha256: createHash('sha256').update(readFileSync(join(imageDir, file))).digest('hex'), sizeBytes: statSync(join(imageDir, file)).size };
  } finally {
    await rm(dir, { recursive: true });
  }
}

describe('a machine that is changed', () => {
  let platform: Platform;
  let rest: Rest;
  let node: QemuNode;
  let vm: Machine;
  beforeAll(async () => {
    platform = await startPlatform({ split: false });
    ({ rest } = platform);
    node = await addQemuNode(platform, 'metal');
    await rest.ok('POST', '/v1/networks', { name: 'second', kind: 'nat', cidr: '10.98.8.0/24' });
    for (const name of ['blue', 'green']) await rest.ok('POST', '/v1/images', await mediumOf(node.imageDir, `cv-spec-${name}`));
    vm = await rest.running({ name: 'grows', image: 'micro', network: GUEST_NETWORK, vcpus: 1, vcpusMax: 2, memoryMib: 256, memoryMibMax: 1_024, diskGib: 1 }) as Machine;
    await up();
  });
  afterAll(async () => {
    await platform.stop();
    await node.stop();
  });

  const up = (): Promise<unknown> => rest.until('the guest answers', () => node.inGuest(vm, '/bin/cat', '/proc/uptime'), BOOTED_WITHIN_MS, 250);
  const shown = async (): Promise<Machine> => await rest.vm(vm.id) as Machine;
  const changed = async (body: object, within = 60_000): Promise<Operation> => rest.succeeded((await rest.ok<Accepted>('PATCH', `/v1/vms/${vm.id}/hardware`, body)).operation.id, within);
  const acted = async (action: string, body?: object): Promise<Operation> => rest.succeeded((await rest.ok<Accepted>('POST', `/v1/vms/${vm.id}/${action}`, body)).operation.id, 90_000);
  const refusal = (body: object): Promise<Refused> => rest.ok('PATCH', `/v1/vms/${vm.id}/hardware`, body).then(() => { throw new Error('it was not refused'); }, (error: unknown) => {
    if (error instanceof Refused) return error;
    throw error;
  });
  const inGuest = (...words: readonly [string, ...string[]]): Promise<string> => node.inGuest(vm, ...words);
  const script = (text: string): Promise<string> => inGuest('/bin/sh', '-c', text);
  const memoryMib = async (): Promise<number> => Math.round(Number(/MemTotal:\s+(\d+) kB/.exec(await inGuest('/bin/cat', '/proc/meminfo'))?.[1] ?? 0) / 1_024);
  const cpus = async (): Promise<number> => (await inGuest('/bin/cat', '/proc/cpuinfo')).split('processor').length - 1;
  const heldBy = async (): Promise<{ readonly vcpus: number; readonly memoryMib: number }> => {
    const { capacity } = await rest.ok<{ capacity: { vcpus: { reserved: number }; memoryMib: { reserved: number } } }>('GET', `/v1/nodes/${node.nodeId}`);
    return { vcpus: capacity.vcpus.reserved, memoryMib: capacity.memoryMib.reserved };
  };

  it('A1-20 gets more CPUs and memory while it runs, and the guest uses them', async () => {
    const pid = await node.qemuPid(vm);
    const before = await memoryMib();
    expect(await cpus()).toBe(1);
    await changed({ vcpus: 2, memoryMib: 512 });
    expect(await shown()).toMatchObject({ status: 'running', pending: [], spec: { vcpus: 2, memoryMib: 512 } });
    expect(await cpus()).toBe(2);
    expect(await memoryMib()).toBeGreaterThan(before + 250);
    expect(await node.qemuPid(vm)).toBe(pid);
    expect(await node.virsh('vcpucount', await node.domainOf(vm), '--live', '--active')).toBe('2');
    expect(await heldBy()).toMatchObject({ vcpus: 2, memoryMib: 512 });
  });

  it('A1-20 what is less waits for a start, and is shown to wait; the next start has it', async () => {
    await changed({ vcpus: 1, memoryMib: 384 });
    expect(await shown()).toMatchObject({ status: 'running', pending: ['vcpus', 'memoryMib'], spec: { vcpus: 1, memoryMib: 384 } });
    expect(await cpus()).toBe(2);
    // What it runs with stays set aside.
    expect(await heldBy()).toMatchObject({ vcpus: 2, memoryMib: 512 });
    await acted('stop');
    await acted('start');
    await up();
    expect(await shown()).toMatchObject({ pending: [] });
    expect(await cpus()).toBe(1);
    expect(await memoryMib()).toBeLessThan(384);
    expect(await heldBy()).toMatchObject({ vcpus: 1, memoryMib: 384 });
  });

  it('A1-20 more than any node has is refused with the reason, and nothing changed', async () => {
    const { operation } = await rest.ok<Accepted>('PATCH', `/v1/vms/${vm.id}/hardware`, { memoryMib: 4_000_000 });
    const ended = await rest.ended(operation.id, 30_000);
    expect([ended.status, ended.error?.code]).toEqual(['compensated', 'node.no_memory']);
    expect(await shown()).toMatchObject({ status: 'running', pending: [], spec: { memoryMib: 384 } });
    expect(await node.virsh('dominfo', await node.domainOf(vm))).toMatch(/Used memory:\s+393216 KiB/);
  });

  it('A4-11 its disk grows while it runs, the guest sees it, and it never shrinks', async () => {
    await changed({ diskGib: 2 });
    await rest.until('the guest sees the new size', async () => (await inGuest('/bin/cat', '/sys/block/vda/size')).trim() === String(2 * 2 ** 21), 10_000);
    const [volume] = await node.disks();
    const { stdout } = await run('qemu-img', ['info', '-U', '--output=json', join(node.poolDir, `${String(volume)}.qcow2`)]);
    expect(JSON.parse(stdout)).toMatchObject({ 'virtual-size': 2 * 2 ** 30 });
    expect((await refusal({ diskGib: 1 })).code).toBe('vm.disk_cannot_shrink');
    await acted('stop');
    await changed({ diskGib: 3 });
    const after = await run('qemu-img', ['info', '--output=json', join(node.poolDir, `${String(volume)}.qcow2`)]);
    expect(JSON.parse(after.stdout)).toMatchObject({ 'virtual-size': 3 * 2 ** 30 });
    await acted('start');
    await up();
    expect((await inGuest('/bin/cat', '/sys/block/vda/size')).trim()).toBe(String(3 * 2 ** 21));
  });

  it('A1-24 a medium is put in, changed and taken out while it runs', async () => {
    const read = (): Promise<string> => script('mkdir -p /run/cd && mount -t iso9660 -o ro /dev/sr0 /run/cd && cat /run/cd/name.txt; umount /run/cd');
    await changed({ media: 'cv-spec-blue' });
    expect(await rest.until('the guest reads it', read, 20_000, 500)).toBe('cv-spec-blue\n');
    await changed({ media: 'cv-spec-green' });
    expect(await rest.until('the guest reads the other', async () => (await read()) === 'cv-spec-green\n', 20_000, 500)).toBe(true);
    expect(await shown()).toMatchObject({ spec: { media: { file: 'cv-spec-green.iso' } } });
    await changed({ media: null });
    await expect(read()).rejects.toThrow();
    expect((await refusal({ media: 'micro' })).code).toBe('image.no_medium');
    expect((await refusal({ media: 'nothing' })).code).toBe('image.unknown');
  });

  it('A1-26 a second interface is plugged in with an address of its own network, and taken out again', async () => {
    const { operation } = await rest.ok<Accepted>('POST', `/v1/vms/${vm.id}/nics`, { network: 'second' });
    await rest.succeeded(operation.id);
    const [nic] = (await shown()).nics;
    if (nic === undefined) throw new Error('no second interface is shown');
    expect(nic).toMatchObject({ network: 'second', address: expect.stringMatching(/^10\.98\.8\./) as string });
    await rest.until('the guest has it', async () => (await script('cat /sys/class/net/*/address')).includes(nic.mac), 10_000);
    await script('ip link set eth1 up && udhcpc -n -q -i eth1 -s /etc/udhcpc');
    expect(await script('ip addr show eth1')).toContain(nic.address);
    await expect(rest.ok('POST', `/v1/vms/${vm.id}/nics`, { network: 'second' })).rejects.toMatchObject({ code: 'vm.nic_in_network' });
    await expect(rest.ok('DELETE', `/v1/vms/${vm.id}/nics/${vm.mac ?? ''}`)).rejects.toMatchObject({ code: 'vm.first_nic' });

    const removed = await rest.ok<Accepted>('DELETE', `/v1/vms/${vm.id}/nics/${nic.mac}`);
    await rest.succeeded(removed.operation.id, 60_000);
    expect((await script('cat /sys/class/net/*/address'))).not.toContain(nic.mac);
    expect((await node.virsh('domiflist', await node.domainOf(vm))).toLowerCase()).not.toContain(nic.mac);
    expect((await shown()).nics).toEqual([]);
    // Its address is free: the network can go.
    const [second] = (await rest.all<{ id: string; name: string }>('/v1/networks')).filter(({ name }) => name === 'second');
    await rest.ok('DELETE', `/v1/networks/${second?.id ?? ''}`);
  });

  it('A1-21 it is renamed: everybody calls it so, it is the same machine, and the old name is free', async () => {
    const uuid = await node.virsh('domuuid', await node.domainOf(vm));
    await changed({ name: 'renamed' });
    expect(await shown()).toMatchObject({ name: 'renamed', status: 'running' });
    expect(await node.virsh('domuuid', await node.domainOf(vm))).toBe(uuid);
    expect(await node.virsh('dumpxml', '--inactive', await node.domainOf(vm))).toContain('<title>renamed</title>');
    const other = await rest.running({ name: 'grows', image: 'micro', network: GUEST_NETWORK, vcpus: 1, memoryMib: 128, diskGib: 1 });
    expect((await refusal({ name: 'grows' })).code).toBe('vm.name_taken');
    await rest.gone(other.id);
  });

  it('A1-23 the order of booting is changed for the next start', async () => {
    await changed({ boot: ['cdrom', 'disk'] });
    expect((await shown()).pending).toEqual(['boot']);
    await acted('stop');
    await acted('start');
    await up();
    expect((await shown()).pending).toEqual([]);
    expect(await node.virsh('dumpxml', await node.domainOf(vm))).toMatch(/<boot dev='cdrom'\/>\s*<boot dev='hd'\/>/);
  });

  it('nothing of it is left when it is gone', async () => {
    await rest.gone(vm.id);
    expect(await node.disks()).toEqual([]);
    expect(await node.domains()).toEqual([]);
  });
});
