/* What a machine is made of, changed while it exists: by REST, on a real libvirt and QEMU, seen through virsh and from inside the guest. */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { copyFileSync, readFileSync, statSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { guestKernel } from './installer.ts';
import { mediumOf } from './medium.ts';
import { startPlatform, type Platform } from './platform.ts';
import { addQemuNode, GUEST_NETWORK, type QemuNode } from './qemu-node.ts';
import { connectConsole, offered } from './websocket.ts';
import { Refused, type Accepted, type Operation, type Rest, type Vm } from './rest.ts';

const run = promisify(execFile);
const BOOTED_WITHIN_MS = 90_000;

interface Machine extends Vm {
  readonly spec: { readonly vcpus: number; readonly memoryMib: number; readonly diskGib: number; readonly boot: readonly string[]; readonly media: { readonly file: string } | null };
  readonly volumes: readonly { readonly volumeId: string; readonly unit: number; readonly sizeGib: number; readonly limits: object | null }[];
  readonly nics: readonly { readonly network: string; readonly address: string; readonly mac: string }[];
  readonly pending: readonly string[];
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
    vm = await rest.running({ name: 'grows', image: 'micro', drivers: 'cv-spec-green', network: GUEST_NETWORK, vcpus: 1, vcpusMax: 2, memoryMib: 256, memoryMibMax: 1_024, diskGib: 1 }) as Machine;
    await up();
  });
  afterAll(async () => {
    await platform.stop();
    await node.stop();
  });

  const up = (): Promise<unknown> => rest.until('the guest answers', () => node.inGuest(vm, '/bin/cat', '/proc/uptime'), BOOTED_WITHIN_MS, 250);
  const shown = async (): Promise<Machine> => await rest.vm(vm.id) as Machine;
  const changed = async (body: object, within = 60_000): Promise<Operation> => rest.done('PATCH', `/v1/vms/${vm.id}/hardware`, body, within);
  const acted = async (action: string, body?: object): Promise<Operation> => rest.done('POST', `/v1/vms/${vm.id}/${action}`, body, 90_000);
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
    // Stopped, it has at once whatever it is given, more or less.
    for (const [vcpus, memoryMib] of [[3, 640], [1, 384]] as const) {
      await changed({ vcpus, memoryMib });
      expect(await shown()).toMatchObject({ status: 'stopped', pending: [], spec: { vcpus, memoryMib } });
      expect(await node.virsh('vcpucount', await node.domainOf(vm), '--config', '--active')).toBe(String(vcpus));
      expect(await node.virsh('dumpxml', '--inactive', await node.domainOf(vm))).toContain(`<currentMemory unit='KiB'>${String(memoryMib * 1_024)}<`);
    }
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

  it('A1-04 A1-24 media are put into two drives, changed and taken out while it runs', async () => {
    const read = (): Promise<string> => script('mkdir -p /run/cd && mount -t iso9660 -o ro /dev/sr0 /run/cd && cat /run/cd/name.txt; umount /run/cd');
    await changed({ media: 'cv-spec-blue' });
    expect(await rest.until('the guest reads it', read, 20_000, 500)).toBe('cv-spec-blue\n');
    await changed({ media: 'cv-spec-green' });
    expect(await rest.until('the guest reads the other', async () => (await read()) === 'cv-spec-green\n', 20_000, 500)).toBe(true);
    expect(await shown()).toMatchObject({ spec: { media: { file: 'cv-spec-green.iso' } } });
    await changed({ media: null });
    await expect(read()).rejects.toThrow();
    // The second drive is another.
    const second = (): Promise<string> => script('mkdir -p /run/cd && mount -t iso9660 -o ro /dev/sr1 /run/cd && cat /run/cd/name.txt; umount /run/cd');
    expect(await rest.until('the guest reads the second drive', second, 30_000, 500)).toBe('cv-spec-green\n');
    await changed({ drivers: 'cv-spec-blue' });
    expect(await rest.until('the guest reads the other', async () => (await second()) === 'cv-spec-blue\n', 30_000, 500)).toBe(true);
    await changed({ drivers: null });
    await expect(second()).rejects.toThrow();
    expect(await node.virsh('domblklist', await node.domainOf(vm))).toMatch(/sda +-\n +sdc +-/);
    for (const drive of ['media', 'drivers']) expect((await refusal({ [drive]: 'micro' })).code).toBe('image.no_medium');
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

  it('A4-10 a blank disk is attached while it runs, keeps its name in the guest, and is detached and attached again with what was written', async () => {
    const added = await rest.ok<Accepted>('POST', `/v1/vms/${vm.id}/volumes`, { name: 'data', sizeGib: 1 });
    await rest.succeeded(added.operation.id);
    const [attached] = (await shown()).volumes;
    if (attached === undefined) throw new Error('no volume is shown');
    expect(attached).toMatchObject({ unit: 1, sizeGib: 1, limits: null });
    const { stdout } = await run('qemu-img', ['info', '-U', '--output=json', join(node.poolDir, `${attached.volumeId}.qcow2`)]);
    expect(JSON.parse(stdout)).toMatchObject({ format: 'qcow2', 'virtual-size': 2 ** 30 });
    expect((JSON.parse(stdout) as { 'backing-filename'?: string })['backing-filename']).toBeUndefined();
    await rest.until('the guest has it', async () => (await script('cat /sys/block/vdb/size')).trim() === String(2 ** 21), 3_000, 100);
    expect((await script('cat /sys/block/vdb/serial')).trim()).toBe(attached.volumeId.slice(-20));
    await script('echo kept-by-the-volume | dd of=/dev/vdb bs=512 count=1 conv=sync,fsync 2>/dev/null');
    await expect(rest.ok('POST', `/v1/vms/${vm.id}/volumes`, { volume: attached.volumeId })).rejects.toMatchObject({ code: 'volume.attached' });
    await expect(rest.ok('DELETE', `/v1/volumes/${attached.volumeId}`)).rejects.toMatchObject({ status: 409, code: 'volume.attached' });

    const second = await rest.ok<Accepted>('POST', `/v1/vms/${vm.id}/volumes`, { name: 'more', sizeGib: 1 });
    await rest.succeeded(second.operation.id);
    const removed = await rest.ok<Accepted>('DELETE', `/v1/vms/${vm.id}/volumes/${attached.volumeId}`);
    await rest.succeeded(removed.operation.id, 60_000);
    expect(await script('ls /sys/block')).not.toContain('vdb');
    expect(await script('ls /sys/block')).toContain('vdc');
    expect(await rest.ok('GET', `/v1/volumes/${attached.volumeId}`)).toMatchObject({ status: 'detached', vmId: null, name: 'data' });

    await rest.done('POST', `/v1/vms/${vm.id}/volumes`, { volume: attached.volumeId });
    expect(await rest.until('the guest has it again', () => script('dd if=/dev/vdb bs=512 count=1 2>/dev/null'), 3_000, 100)).toContain('kept-by-the-volume');
    expect((await rest.all<{ name: string | null }>('/v1/volumes')).map(({ name }) => name).sort()).toEqual(['data', 'more']);
    expect((await rest.all<{ system: boolean }>('/v1/volumes?system=true')).filter(({ system }) => system)).toHaveLength(1);
  });

  it('A4-10 the disk that the machine was made with, and one that is not its own, are not detached', async () => {
    const [system] = (await rest.all<{ id: string; system: boolean }>(`/v1/volumes?system=true&vm=${vm.id}`)).filter((volume) => volume.system);
    await expect(rest.ok('DELETE', `/v1/vms/${vm.id}/volumes/${system?.id ?? ''}`)).rejects.toMatchObject({ code: 'vm.system_disk' });
    await expect(rest.ok('DELETE', `/v1/vms/${vm.id}/volumes/volume_${'0'.repeat(32)}`)).rejects.toMatchObject({ status: 404, code: 'vm.volume_not_found' });
  });

  it('A4-10 a disk that the guest holds on to is not taken from it: it is said so, and nothing is changed', async () => {
    // Without anything to boot it stays in the firmware, which lets go of nothing.
    const stubborn = await rest.running({ name: 'stubborn', media: 'cv-spec-blue', network: GUEST_NETWORK, vcpus: 1, memoryMib: 128, diskGib: 1 }) as Machine;
    await rest.done('POST', `/v1/vms/${stubborn.id}/volumes`, { name: 'held', sizeGib: 1 });
    const [volume] = (await rest.vm(stubborn.id) as Machine).volumes;
    const { operation } = await rest.ok<Accepted>('DELETE', `/v1/vms/${stubborn.id}/volumes/${volume?.volumeId ?? ''}`);
    const ended = await rest.ended(operation.id, 120_000);
    expect([ended.status, ended.error?.code]).toEqual(['compensated', 'disk.not_released']);
    expect((await rest.vm(stubborn.id) as Machine).volumes).toEqual([volume]);
    expect(await rest.ok('GET', `/v1/volumes/${volume?.volumeId ?? ''}`)).toMatchObject({ status: 'attached', vmId: stubborn.id });
    expect(await node.virsh('domblklist', await node.domainOf(stubborn))).toContain(volume?.volumeId);
    // One that is paused could not answer at all, and would let go later, when nobody expects it any more.
    await rest.done('POST', `/v1/vms/${stubborn.id}/pause`);
    await expect(rest.ok('DELETE', `/v1/vms/${stubborn.id}/volumes/${volume?.volumeId ?? ''}`)).rejects.toMatchObject({ status: 409, code: 'vm.paused' });
    // Stopped, it has nothing to say.
    await rest.done('POST', `/v1/vms/${stubborn.id}/stop`, { timeoutSeconds: 0, force: true });
    await rest.done('DELETE', `/v1/vms/${stubborn.id}/volumes/${volume?.volumeId ?? ''}?delete=true`);
    await rest.gone(stubborn.id);
  });

  it('A4-15 it is limited to what it may read and write, and the limit holds', async () => {
    const volume = (await shown()).volumes.find(({ unit }) => unit === 2);
    await rest.done('PATCH', `/v1/vms/${vm.id}/volumes/${volume?.volumeId ?? ''}`, { limits: { bytesPerSecond: 1_048_576 } });
    expect(await node.virsh('blkdeviotune', await node.domainOf(vm), 'vdc')).toMatch(/total_bytes_sec\s*: 1048576/);
    // A slow machine only makes it slower: what is claimed is that no more comes through. The last request need not wait for itself, so they are small, and none can be merged with the next.
    const secondsFor = async (requests: number): Promise<number> => {
      const [began, ended] = (await script(`cat /proc/uptime; i=0; while [ $i -lt ${String(requests)} ]; do dd if=/dev/zero of=/dev/vdc bs=65536 count=1 seek=$((2*i)) conv=notrunc,fsync 2>/dev/null; i=$((i+1)); done; cat /proc/uptime`)).trim().split('\n').map(Number.parseFloat);
      return (ended ?? 0) - (began ?? 0);
    };
    expect(6 / await secondsFor(96)).toBeLessThan(1.1);
    await rest.done('PATCH', `/v1/vms/${vm.id}/volumes/${volume?.volumeId ?? ''}`, { limits: { iops: 40 } });
    expect(await node.virsh('blkdeviotune', await node.domainOf(vm), 'vdc')).toMatch(/total_iops_sec\s*: 40/);
    expect(160 / await secondsFor(160)).toBeLessThan(44);
    await rest.done('PATCH', `/v1/vms/${vm.id}/volumes/${volume?.volumeId ?? ''}`, { limits: null });
    expect(await node.virsh('blkdeviotune', await node.domainOf(vm), 'vdc')).toMatch(/total_bytes_sec\s*: 0/);
  });

  it('A4-11 a disk beside the first grows while it runs', async () => {
    const volume = (await shown()).volumes.find(({ unit }) => unit === 1);
    await rest.done('PATCH', `/v1/vms/${vm.id}/volumes/${volume?.volumeId ?? ''}`, { sizeGib: 2 });
    await rest.until('the guest sees it', async () => (await script('cat /sys/block/vdb/size')).trim() === String(2 * 2 ** 21), 5_000);
    await expect(rest.ok('PATCH', `/v1/vms/${vm.id}/volumes/${volume?.volumeId ?? ''}`, { sizeGib: 1 })).rejects.toMatchObject({ code: 'vm.disk_cannot_shrink' });
  });

  it('A4-14 detached and deleted, its file is gone; its places are found again after a start', async () => {
    const volume = (await shown()).volumes.find(({ unit }) => unit === 1);
    await rest.done('DELETE', `/v1/vms/${vm.id}/volumes/${volume?.volumeId ?? ''}?delete=true`, undefined, 60_000);
    await rest.until('its file is gone', async () => !(await node.disks()).includes(volume?.volumeId ?? ''), 20_000);
    await rest.until('its record too', async () => (await rest.call('GET', `/v1/volumes/${volume?.volumeId ?? ''}`)).status === 404, 20_000);
    await acted('stop');
    await acted('start');
    await up();
    const left = (await shown()).volumes;
    expect(left).toMatchObject([{ unit: 2 }]);
    // The guest counts its disks anew at each start; their serial numbers stay.
    expect((await script('for disk in /sys/block/vd*; do cat $disk/serial; echo; done')).trim().split('\n').slice(1)).toEqual(left.map(({ volumeId }) => volumeId.slice(-20)));
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

  it('A1-27 A1-25 devices for experts: what is not allowed is refused by its name, what would be different is shown, and the next start has it; a device on USB comes and goes while it runs', async () => {
    const wrong = await refusal({ expert: { watchdog: { action: 'explode' }, commandline: ['-device', 'ivshmem'], cpu: { model: 'x\' mode=', features: [{ name: 'vmx', policy: 'require', path: '/' }] }, video: { model: 'vga', heads: 2 } } });
    expect(wrong.problem.errors?.map(({ path }) => path).sort()).toEqual(['body.expert.commandline', 'body.expert.cpu.features.0.path', 'body.expert.cpu.model', 'body.expert.video.heads', 'body.expert.watchdog.action']);
    const kvm = await rest.ended((await rest.ok<Accepted>('PATCH', `/v1/vms/${vm.id}/hardware`, { expert: { cpu: { model: 'host-passthrough' } } })).operation.id, 60_000);
    if (kvm.status === 'succeeded') await changed({ expert: null });
    else expect([kvm.status, kvm.error?.code]).toEqual(['compensated', 'domain.needs_kvm']);

    const expert = {
      cpu: { model: 'Nehalem', features: [{ name: 'aes', policy: 'disable' }] }, video: { model: 'virtio', heads: 2 }, sound: 'ich9', watchdog: { action: 'pause' }, panic: true,
      rng: { bytesPerSecond: 65_536 }, balloon: { freePageReporting: true }, usb: true,
    };
    const said = await rest.ok<{ xml: string }>('PATCH', `/v1/vms/${vm.id}/hardware?dryRun=true`, { expert });
    for (const line of ['+    <watchdog model="i6300esb" action="pause"/>', '+    <panic model="isa"/>', '-      <model type="vga"/>', '+      <model type="virtio" heads="2"/>', '-    <controller type="usb" model="none"/>']) expect(said.xml.split('\n')).toContain(line);
    expect(said.xml).not.toContain('<disk');
    expect(await shown()).toMatchObject({ pending: [] });

    await changed({ expert });
    expect((await shown()).pending).toEqual(['expert']);
    const domain = await node.domainOf(vm);
    expect(await node.virsh('dumpxml', domain)).not.toContain('<watchdog');
    await acted('stop');
    await acted('start');
    await up();
    expect((await shown()).pending).toEqual([]);
    const xml = await node.virsh('dumpxml', domain);
    for (const there of [/<watchdog model='i6300esb' action='pause'>/, /<panic model='isa'\/?>/, /<model type='virtio' heads='2' primary='yes'/, /<sound model='ich9'>/, /<rate bytes='65536' period='1000'\/>/, /<memballoon model='virtio' freePageReporting='on'>/, /<input type='tablet' bus='usb'>/]) expect(xml).toMatch(there);
    // What QEMU has, and what the guest sees.
    const devices = await node.virsh('qemu-monitor-command', '--hmp', domain, 'info qtree');
    for (const device of ['i6300esb', 'virtio-vga', 'qemu-xhci', 'usb-tablet', 'ich9-intel-hda', 'pvpanic']) expect(devices).toContain(`dev: ${device}`);
    expect(await inGuest('/bin/cat', '/proc/cpuinfo')).toMatch(/model name\s+: .*Nehalem/);
    expect(await script('cat /sys/bus/pci/devices/*/device')).toContain('0x25ab');
    expect(await rest.all(`/v1/drift?vm=${vm.id}`).catch(() => rest.all('/v1/drift'))).toEqual([]);

    // A1-25: there is a USB controller now, so what is on USB comes and goes while it runs.
    const onUsb = (): Promise<string> => node.virsh('qemu-monitor-command', '--hmp', domain, 'info usb');
    const give = (device: object): Promise<Operation> => rest.done('POST', `/v1/vms/${vm.id}/devices`, device, 60_000);
    await give({ kind: 'virtual-usb', model: 'keyboard' });
    expect(await onUsb()).toContain('QEMU USB Keyboard');
    expect(await shown()).toMatchObject({ pending: [], spec: { assigned: [{ kind: 'virtual-usb', model: 'keyboard' }] } });
    expect(await node.virsh('dumpxml', '--inactive', domain)).toMatch(/<input type='keyboard' bus='usb'>\s*<alias name='ua-cv-virtual-usb-keyboard'\/>/);
    expect(await rest.all('/v1/drift')).toEqual([]);
    await expect(give({ kind: 'virtual-usb', model: 'keyboard' })).rejects.toMatchObject({ status: 409, code: 'vm.device_attached' });
    const lent = await rest.ended((await rest.ok<Accepted>('POST', `/v1/vms/${vm.id}/devices`, { kind: 'pci', address: 'ffff:ff:1f.7' })).operation.id, 60_000);
    expect([lent.status, lent.error?.code]).toEqual(['compensated', 'device.not_on_node']);
    await rest.done('DELETE', `/v1/vms/${vm.id}/devices/virtual-usb-keyboard`, undefined, 60_000);
    expect(await onUsb()).not.toContain('QEMU USB Keyboard');
    await expect(rest.ok('DELETE', `/v1/vms/${vm.id}/devices/virtual-usb-keyboard`)).rejects.toMatchObject({ status: 404, code: 'vm.device_not_found' });

    await changed({ expert: null });
    expect((await shown()).pending).toEqual(['expert']);
    await acted('stop');
    await acted('start');
    await up();
    expect(await node.virsh('qemu-monitor-command', '--hmp', domain, 'info qtree')).not.toContain('i6300esb');
  });

  it('A1-04 a machine for a Windows starts by signed UEFI, with a TPM of its own and local time', async () => {
    const wanted = { image: undefined, media: 'cv-spec-blue', network: GUEST_NETWORK, vcpus: 1, memoryMib: 256, diskGib: 1 };
    await rest.ok('POST', '/v1/images', { ...await mediumOf(node.imageDir, 'cv-spec-drivers'), family: 'virtio-win' });
    const windows = await rest.running({ ...wanted, name: 'windows', osFamily: 'windows', firmware: 'uefi-secure', tpm: true }) as Machine;
    const domain = await node.domainOf(windows);
    const xml = await node.virsh('dumpxml', domain);
    expect(xml).toMatch(/<loader readonly='yes' secure='yes' type='pflash'>/);
    expect(xml).toContain("<clock offset='localtime'>");
    // It finds the drivers in a second drive, and reads both without one.
    const drives = JSON.parse(await node.virsh('qemu-monitor-command', domain, '{"execute":"query-block"}')) as { readonly return: readonly { readonly qdev?: string; readonly inserted?: { readonly file: string } }[] };
    expect(drives.return.flatMap(({ qdev = '', inserted }) => (qdev.startsWith('sata') ? [`${qdev} ${inserted?.file.split('/').at(-1) ?? '-'}`] : []))).toEqual(['sata0-0-0 cv-spec-blue.iso', 'sata0-0-2 cv-spec-drivers.iso']);
    // QEMU itself is asked, and the firmware speaks on the serial console.
    expect(JSON.parse(await node.virsh('qemu-monitor-command', domain, '{"execute":"query-tpm"}'))).toMatchObject({ return: [{ model: 'tpm-crb' }] });
    await rest.until('the firmware has looked for something to start', () => Promise.resolve(node.console(windows).includes('BdsDxe')), BOOTED_WITHIN_MS);
    const variables = /<nvram[^>]*>([^<]+)</.exec(xml)?.[1] ?? '';
    const there = (file: string): Promise<boolean> => node.inMounts('test', '-e', file).then(() => true, () => false);
    expect(await there(variables)).toBe(true);
    await rest.gone(windows.id);
    expect(await there(variables)).toBe(false);

    const linux = await rest.running({ ...wanted, name: 'by-uefi', firmware: 'uefi' });
    const plain = await node.virsh('dumpxml', await node.domainOf(linux));
    expect(plain).toContain("<clock offset='utc'>");
    expect(plain).toMatch(/<loader readonly='yes' type='pflash'>/);
    expect(plain).not.toContain('<tpm');
    await rest.gone(linux.id);
  });

  it('A1-07 A1-23 it starts from the network, with a kernel and arguments, and from what is chosen in its boot menu; in another order it starts from its disk', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'cv-tftp-'));
    try {
      await guestKernel(folder);
      await writeFile(join(folder, 'boot.ipxe'), '#!ipxe\necho cv-netboot ${net0/ip}\nsanboot --no-describe --drive 0x80\n');
      node.serveTftp(folder, '10.98.9.1');
      const served = (): number => readFileSync(join(folder, 'log'), 'utf8').split(`boot.ipxe to ${booted.address ?? ''}`).length - 1;
      await rest.ok('POST', '/v1/networks', { name: 'boots', kind: 'nat', cidr: '10.98.9.0/24', boot: { file: 'boot.ipxe', server: '10.98.9.1' } });
      const booted = await rest.running({ name: 'booted', image: 'micro', network: 'boots', vcpus: 1, memoryMib: 128, diskGib: 1, boot: ['network', 'disk'] }) as Machine;
      const domain = await node.domainOf(booted);
      const commandLine = (): Promise<string> => node.inGuest(booted, '/bin/cat', '/proc/cmdline');
      const words = (await rest.until('what the network says starts its disk', commandLine, BOOTED_WITHIN_MS, 250)).replace(/BOOT_IMAGE=\S+|initrd=\S+/g, '').trim();
      const before = served();
      expect(before).toBeGreaterThan(0);

      for (const [name, file] of [['cv-spec-kernel', 'vmlinuz'], ['cv-spec-initrd', 'initrd']] as const) {
        copyFileSync(join(folder, file), join(node.imageDir, name));
        await rest.ok('POST', '/v1/images', { name, file: name, format: name.slice('cv-spec-'.length), sha256: createHash('sha256').update(readFileSync(join(folder, file))).digest('hex'), sizeBytes: statSync(join(folder, file)).size });
      }
      const change = (body: object): Promise<Operation> => rest.done('PATCH', `/v1/vms/${booted.id}/hardware`, body, 60_000);
      const again = async (): Promise<void> => {
        expect((await rest.vm(booted.id) as Machine).pending).toEqual(['boot']);
        await rest.done('POST', `/v1/vms/${booted.id}/stop`, undefined, 90_000);
        await rest.done('POST', `/v1/vms/${booted.id}/start`, undefined, 90_000);
        expect((await rest.vm(booted.id) as Machine).pending).toEqual([]);
      };
      // Whatever stands in them, they are the guest's.
      const said = `${words} cv-kernel="a <b> & 'c'",file=/etc/shadow -append x`;
      await expect(change({ kernel: { image: 'micro' } })).rejects.toMatchObject({ code: 'image.other_format' });
      await expect(change({ kernel: { image: 'cv-spec-initrd' } })).rejects.toMatchObject({ code: 'image.other_format' });
      await expect(change({ kernel: { image: 'cv-spec-kernel', arguments: 'a\n-drive file=/etc/shadow' } })).rejects.toMatchObject({ status: 400 });
      await change({ kernel: { image: 'cv-spec-kernel', initrd: 'cv-spec-initrd', arguments: said } });
      await again();
      expect((await rest.until('it came with its kernel', commandLine, BOOTED_WITHIN_MS, 250)).trim()).toBe(said);
      const [kernel] = (await rest.all<{ id: string; name: string }>('/v1/images')).filter(({ name }) => name === 'cv-spec-kernel');
      await expect(rest.ok('DELETE', `/v1/images/${kernel?.id ?? ''}`)).rejects.toMatchObject({ code: 'image.in_use' });
      expect(await rest.all('/v1/drift')).toEqual([]);

      await change({ kernel: null, bootMenu: true });
      await again();
      const terminal = await connectConsole(await offered(rest, booted, 'serial'));
      // It asks for ten seconds: whoever came too late resets it.
      for (let tries = 0, asked = false; !asked; tries++) {
        await terminal.says(/[^]*/);
        await rest.done('POST', `/v1/vms/${booted.id}/reset`, undefined, 60_000);
        await terminal.says(/Press ESC for boot menu/i, BOOTED_WITHIN_MS);
        terminal.send('\x1b');
        asked = await terminal.says(/Select boot device/i, 10_000).then(() => true, (late: unknown) => { if (tries === 5) throw late; return false; });
      }
      // The network is the first in the order, and the disk is chosen.
      const fetched = served();
      terminal.send(/(\d)\. Virtio disk/.exec(await terminal.says(/\d\. Virtio disk/, BOOTED_WITHIN_MS))?.[1] ?? '');
      await rest.until('its disk starts', commandLine, BOOTED_WITHIN_MS, 250);
      terminal.close();
      expect(served()).toBe(fetched);
      expect(await node.virsh('dumpxml', domain)).not.toContain('<kernel>');
      await change({ boot: ['disk', 'network'], bootMenu: false });
      await again();
      await rest.until('its disk starts before the network', commandLine, BOOTED_WITHIN_MS, 250);
      expect(served()).toBe(fetched);
      await rest.gone(booted.id);
    } finally {
      await rm(folder, { recursive: true });
    }
  });

  it('nothing of it is left when it is gone', async () => {
    await rest.gone(vm.id);
    expect(await node.domains()).toEqual([]);
    // Its second disk is kept, until it is deleted too.
    const [kept, ...others] = await rest.all<{ id: string; name: string; status: string }>('/v1/volumes?system=true');
    expect([kept?.name, kept?.status, others]).toEqual(['more', 'detached', []]);
    expect(await node.disks()).toEqual([kept?.id]);
    await rest.done('DELETE', `/v1/volumes/${kept?.id ?? ''}`, undefined, 30_000);
    expect(await node.disks()).toEqual([]);
  });
});
