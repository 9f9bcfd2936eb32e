/* A machine from its medium to its end: by REST, on a real libvirt and QEMU, seen through virsh and from inside the guest. */
import { existsSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { installerMedium } from './installer.ts';
import { startPlatform, type Platform } from './platform.ts';
import { addQemuNode, GUEST_NETWORK, type QemuNode } from './qemu-node.ts';
import type { Accepted, Event, Operation, Refused, Rest, Vm } from './rest.ts';
import { connectConsole, offered } from './websocket.ts';

interface Shown extends Vm {
  readonly volumes: readonly { readonly volumeId: string }[];
  readonly snapshots: readonly { readonly id: string }[];
  readonly usage: {
    readonly guestAgent: boolean; readonly cpuSeconds: number; readonly memory: { readonly residentMib: number };
    readonly disks: readonly { readonly volumeId: string; readonly writtenBytes: number }[]; readonly nics: readonly { readonly mac: string; readonly receivedBytes: number }[];
  } | null;
}

const BOOTED_WITHIN_MS = 90_000;

describe('the life of a machine', () => {
  let platform: Platform;
  let rest: Rest;
  let node: QemuNode;
  let vm: Vm;
  beforeAll(async () => {
    platform = await startPlatform({ split: false, environment: { CV_SCHEDULER_EXPIRY_GRACE_SECONDS: '5', CV_SCHEDULER_RECYCLE_SECONDS: '5' } });
    ({ rest } = platform);
    node = await addQemuNode(platform, 'metal');
    await rest.ok('POST', '/v1/images', await installerMedium());
  });
  afterAll(async () => {
    await platform.stop();
    await node.stop();
  });

  const inGuest = (path: string, ...words: readonly string[]): Promise<string> => node.inGuest(vm, path, ...words);
  const up = (): Promise<unknown> => rest.until('the guest answers', () => inGuest('/bin/cat', '/proc/uptime'), BOOTED_WITHIN_MS, 250);
  const act = async (action: string, body?: object): Promise<Operation> => rest.succeeded((await rest.ok<Accepted>('POST', `/v1/vms/${vm.id}/${action}`, body)).operation.id, 90_000);
  const change = async (body: object): Promise<Operation> => rest.succeeded((await rest.ok<Accepted>('PATCH', `/v1/vms/${vm.id}/hardware`, body)).operation.id, 60_000);

  it('A1-07 without an image it starts from a medium, whose menu waits on its console; what is chosen there installs, and the medium is taken out', async () => {
    vm = await rest.running({ name: 'installed', media: 'installer', network: GUEST_NETWORK, vcpus: 1, memoryMib: 256, diskGib: 1 });
    const screen = await rest.call('GET', `/v1/vms/${vm.id}/screenshot`);
    expect([screen.status, screen.headers.get('content-type')]).toEqual([200, 'image/png']);
    const terminal = await connectConsole(await offered(rest, vm, 'serial'));
    await terminal.says(/The menu of the test installer/, BOOTED_WITHIN_MS);
    await terminal.says(/Install/);
    terminal.send('\r');
    await terminal.says(/cv-installer is done/, BOOTED_WITHIN_MS);
    terminal.close();
    expect(await node.virsh('domblklist', await node.domainOf(vm))).toMatch(/sda\s+\S+\.iso/);
    await change({ media: null });
    expect(await node.virsh('domblklist', await node.domainOf(vm))).toMatch(/sda\s+-/);
    await act('reset');
    await up();
    expect(node.console(vm)).toMatch(/cv-guest disk vda 1024 MiB boots 1\b/);
  });

  it('A1-19 one request tells what it has and what it has used, another its XML as it is beside what it should be', async () => {
    await rest.succeeded((await rest.ok<Accepted>('POST', `/v1/vms/${vm.id}/volumes`, { name: 'data', sizeGib: 1 })).operation.id);
    await rest.succeeded((await rest.ok<Accepted>('POST', `/v1/vms/${vm.id}/snapshots`, { name: 'installed' })).operation.id);
    await inGuest('/bin/sh', '-c', 'dd if=/dev/zero of=/dev/vdb bs=65536 count=16 conv=fsync 2>/dev/null');
    const shown = await rest.ok<Shown>('GET', `/v1/vms/${vm.id}?include=usage`);
    expect(shown).toMatchObject({ status: 'running', address: vm.address, mac: vm.mac, spec: { diskGib: 1 }, nics: [], volumes: [{ unit: 1, sizeGib: 1 }], snapshots: [{ name: 'installed' }] });
    const [data] = shown.volumes;
    const domain = await node.domainOf(vm);
    const seconds = Number(/cpu\.time=(\d+)/.exec(await node.virsh('domstats', '--cpu-total', domain))?.[1]) / 1e9;
    expect(shown.usage?.guestAgent).toBe(true);
    expect(shown.usage?.cpuSeconds).toBeGreaterThan(0.5);
    expect(shown.usage?.cpuSeconds).toBeLessThanOrEqual(seconds);
    expect(shown.usage?.memory.residentMib).toBeGreaterThan(64);
    expect(shown.usage?.disks.find(({ volumeId }) => volumeId === data?.volumeId)?.writtenBytes).toBe(2 ** 20);
    expect(shown.usage?.nics).toMatchObject([{ mac: vm.mac }]);
    expect(shown.usage?.nics[0]?.receivedBytes).toBeGreaterThan(0);

    const { live, expected, defined } = await rest.ok<{ readonly live: string | null; readonly defined: string; readonly expected: string }>('GET', `/v1/vms/${vm.id}/xml`);
    expect(live?.trim()).toBe(await node.virsh('dumpxml', domain));
    expect(defined.trim()).toBe(await node.virsh('dumpxml', '--inactive', domain));
    for (const text of [live, defined, expected]) expect(text).toMatch(new RegExp(`<memory unit=.(KiB.>262144|MiB.>256)<[^]*${String(data?.volumeId)}[^]*${String(vm.mac)}`));
    // What somebody changed by hand stands on one side alone.
    await node.virsh('detach-disk', domain, 'vdb', '--live');
    const after = await rest.ok<{ readonly live: string; readonly expected: string }>('GET', `/v1/vms/${vm.id}/xml`);
    expect([after.live.includes(`${String(data?.volumeId)}`), after.expected]).toEqual([false, expected]);
    await act('stop');
    expect(await rest.ok('GET', `/v1/vms/${vm.id}/xml`)).toMatchObject({ live: null, expected });
    expect(await rest.ok('GET', `/v1/vms/${vm.id}?include=usage`)).toMatchObject({ usage: null });
    const [snapshot] = shown.snapshots;
    await rest.succeeded((await rest.ok<Accepted>('DELETE', `/v1/vms/${vm.id}/snapshots/${snapshot?.id ?? ''}`)).operation.id);
    await act('start');
    await up();
    await rest.succeeded((await rest.ok<Accepted>('DELETE', `/v1/vms/${vm.id}/volumes/${data?.volumeId ?? ''}?delete=true`)).operation.id);
  });

  it('A1-14 it is put to rest with what it has in memory, gives its room back, and goes on where it was', async () => {
    const script = (line: string): Promise<string> => inGuest('/bin/sh', '-c', line);
    const bootId = (): Promise<string> => inGuest('/bin/cat', '/proc/sys/kernel/random/boot_id');
    const reserved = async (): Promise<unknown> => (await rest.ok<{ capacity: { memoryMib: { reserved: number }; vcpus: { reserved: number } } }>('GET', `/v1/nodes/${node.nodeId}`)).capacity;
    const refusal = (method: string, path: string, body?: object): Promise<string> => rest.ok(method, `/v1/vms/${vm.id}${path}`, body).then(() => 'not refused', (error: Refused) => `${String(error.status)} ${error.code}`);
    const [before, boots] = [await bootId(), node.boots(vm)];
    await script('(i=0; while :; do i=$((i+1)); echo $i > /tmp/counted; sleep 0.2; done) > /dev/null 2>&1 &');
    await rest.until('it counts', async () => Number(await script('cat /tmp/counted')) > 3, 10_000);
    expect(await reserved()).toMatchObject({ memoryMib: { reserved: 256 }, vcpus: { reserved: 1 } });
    await act('save');
    expect(await rest.vm(vm.id)).toMatchObject({ status: 'saved', desired: 'saved', observed: { state: 'saved' } });
    expect((await rest.all<Vm>('/v1/vms?status=saved')).map(({ id }) => id)).toEqual([vm.id]);
    expect(await reserved()).toMatchObject({ memoryMib: { reserved: 0 }, vcpus: { reserved: 0 } });
    expect(await node.virsh('domstate', await node.domainOf(vm))).toBe('shut off');
    const kept = join(node.poolDir, `${vm.id}.save`);
    // The memory that the guest uses, not all that it could.
    expect(statSync(kept).size).toBeGreaterThan(32 * 2 ** 20);
    expect(await refusal('PATCH', '/hardware', { vcpus: 2 })).toBe('409 vm.saved');
    expect(await refusal('POST', '/snapshots', { name: 'resting' })).toBe('409 vm.saved');
    expect(await refusal('DELETE', '')).toBe('409 vm.saved');
    expect(await refusal('POST', '/stop', {})).toBe('409 vm.saved');
    expect(await refusal('POST', '/pause')).toBe('409 vm.not_running');
    // The agent that comes next finds it so, and libvirt has forgotten why it does not run.
    await platform.kill9(node.part);
    await platform.start(node.part);
    expect(await rest.status(vm.id, 'saved')).toMatchObject({ observed: { state: 'saved' } });
    await act('start');
    const counted = Number(await script('cat /tmp/counted'));
    expect(counted).toBeGreaterThan(3);
    expect([await bootId(), node.boots(vm), existsSync(kept)]).toEqual([before, boots, false]);
    await rest.until('it counts on', async () => Number(await script('cat /tmp/counted')) > counted, 10_000);
    expect(await rest.vm(vm.id)).toMatchObject({ status: 'running', desired: 'running' });
    expect(await reserved()).toMatchObject({ memoryMib: { reserved: 256 } });

    await act('save');
    await act('stop', { force: true, timeoutSeconds: 0 });
    expect([(await rest.vm(vm.id)).status, existsSync(kept)]).toEqual(['stopped', false]);
    await act('start');
    await up();
    expect([await bootId() === before, node.boots(vm)]).toEqual([false, boots + 1]);
  });

  it('A1-14 what somebody started by hand meanwhile does not go on from what was saved before', async () => {
    await act('save');
    await node.virsh('start', await node.domainOf(vm));
    await rest.status(vm.id, 'running');
    await up();
    const boots = node.boots(vm);
    await act('stop', { force: true, timeoutSeconds: 30 });
    expect((await rest.vm(vm.id)).status).toBe('stopped');
    await act('start');
    await up();
    expect(node.boots(vm)).toBe(boots + 1);
  });

  it('A1-22 its system disk is made anew from its image; everything else stays, and the old one is kept for a time', async () => {
    const refusal = (): Promise<string> => rest.ok('POST', `/v1/vms/${vm.id}/rebuild`).then(() => 'not refused', (error: Refused) => `${String(error.status)} ${error.code}`);
    expect(await refusal()).toBe('422 vm.no_image');
    await rest.gone(vm.id);
    vm = await rest.running({ name: 'made', image: 'micro', network: GUEST_NETWORK, vcpus: 1, memoryMib: 128, diskGib: 1 });
    await up();
    await rest.succeeded((await rest.ok<Accepted>('POST', `/v1/vms/${vm.id}/volumes`, { name: 'data', sizeGib: 1 })).operation.id);
    const script = (line: string): Promise<string> => inGuest('/bin/sh', '-c', line);
    await script('echo mine > /data/mine; sync; echo kept | dd of=/dev/vdb bs=512 count=1 conv=sync,fsync 2>/dev/null');
    expect(await refusal()).toBe('409 vm.not_stopped');
    const { operation } = await rest.ok<Accepted>('POST', `/v1/vms/${vm.id}/snapshots`, { name: 'old' });
    await rest.succeeded(operation.id);
    await act('stop');
    expect(await refusal()).toBe('409 vm.has_snapshots');
    const [snapshot] = (await rest.vm(vm.id) as Shown).snapshots;
    await rest.succeeded((await rest.ok<Accepted>('DELETE', `/v1/vms/${vm.id}/snapshots/${snapshot?.id ?? ''}`)).operation.id);

    const system = async (): Promise<string> => (await rest.all<{ id: string; system: boolean }>(`/v1/volumes?system=true&vm=${vm.id}`)).filter((volume) => volume.system).map(({ id }) => id).join();
    const [old, before] = [await system(), await rest.vm(vm.id) as Shown];
    const began = Date.now();
    await act('rebuild');
    const anew = await system();
    expect(anew).not.toBe(old);
    expect(await node.virsh('domblklist', await node.domainOf(vm))).toMatch(new RegExp(`vda\\s+\\S+/${anew}.qcow2`));
    await act('start');
    await up();
    expect([await script('cat /data/boots'), await script('ls /data'), await script('dd if=/dev/vdb bs=512 count=1 2>/dev/null | head -n 1')]).toEqual(['1\n', 'boots\n', 'kept\n']);
    expect(await rest.vm(vm.id)).toMatchObject({ address: before.address, mac: before.mac, name: 'made', spec: { vcpus: 1, memoryMib: 128, diskGib: 1 }, volumes: before.volumes });
    const kept = await rest.ok<{ deleteAt: string }>('GET', `/v1/volumes/${old}`);
    expect(kept).toMatchObject({ status: 'detached', vmId: null, name: 'made-before-rebuild', system: false });
    expect(Math.abs(Date.parse(kept.deleteAt) - began - 7 * 86_400_000)).toBeLessThan(600_000);
    // What it held is there for whoever looks.
    await rest.succeeded((await rest.ok<Accepted>('POST', `/v1/vms/${vm.id}/volumes`, { volume: old })).operation.id);
    expect(await rest.ok('GET', `/v1/volumes/${old}`)).toMatchObject({ deleteAt: null });
    expect(await rest.until('the guest reads it', () => script('mkdir -p /run/old && mount -t vfat -o ro /dev/vdc2 /run/old && cat /run/old/mine && umount /run/old'), 20_000, 500)).toBe('mine\n');

    await act('stop');
    await act('rebuild', { keepDays: 0 });
    await rest.until('the disk that nobody wanted to keep is gone', async () => !(await node.disks()).includes(anew), 20_000, 200);
    expect(await node.disks()).toContain(old);
    await act('start');
    await up();
  });

  it('A1-29 while a long operation has it in hand, everything else is refused, naming it, how far it is, and by when it ends; deleting goes first', async () => {
    // In its boot menu it hears no power button.
    const deaf = await rest.running({ name: 'deaf', media: 'installer', network: GUEST_NETWORK, vcpus: 1, memoryMib: 128, diskGib: 1 });
    const { operation } = await rest.ok<Accepted>('POST', `/v1/vms/${deaf.id}/stop`, { timeoutSeconds: 600 });
    for (const [method, path, body] of [['POST', 'reboot'], ['POST', 'save'], ['POST', 'rebuild'], ['PATCH', 'hardware', { vcpus: 2 }], ['POST', 'snapshots', { name: 'x' }], ['POST', 'ssh-keys', { user: 'root', keys: ['ssh-ed25519 AAAA'] }]] as const) {
      const refused = await rest.call<{ code: string; detail: string; because: { kind: string; operationId: string; endsBy: string; percent: number } }>(method, `/v1/vms/${deaf.id}/${path}`, body);
      expect([refused.status, refused.body.code, refused.body.because.kind, refused.body.because.operationId], path).toEqual([409, 'vm.busy', 'stop', operation.id]);
      expect(refused.body.because.percent, path).toBe((await rest.operation(operation.id)).percent);
      expect(refused.body.because.endsBy, path).toBe((await rest.operation(operation.id)).deadlineAt);
      expect(refused.body.detail).toContain(`stop ${operation.id}, which ends by ${refused.body.because.endsBy}`);
    }
    expect(await node.virsh('domstate', await node.domainOf(deaf))).toBe('running');
    // Whoever does not want to wait takes it away: that cancels what runs.
    const gone = await rest.ok<Accepted>('DELETE', `/v1/vms/${deaf.id}?force=true`);
    await rest.succeeded(gone.operation.id, 90_000);
    expect((await rest.operation(operation.id)).status).toBe('compensated');
  });

  it('A1-28 when its time is over it is stopped, though nobody was there at that time; another time brings it back; in the end it is deleted', async () => {
    const expiry = async (): Promise<unknown> => (await rest.ok<{ expiry: { stage: string } | null }>('GET', `/v1/vms/${vm.id}`)).expiry?.stage;
    const until = (seconds: number): Promise<unknown> => rest.ok('PATCH', `/v1/vms/${vm.id}`, { expiresAt: new Date(Date.now() + seconds * 1_000).toISOString() });
    await expect(until(-5)).rejects.toMatchObject({ status: 400, problem: { errors: [{ path: 'body.expiresAt' }] } });
    await until(5 * 86_400);
    await rest.until('it is told of the week', async () => (await expiry()) === 'week', 10_000);
    await until(20);
    await rest.until('it is told of the day', async () => (await expiry()) === 'day', 10_000);
    await platform.kill9('control-plane');
    await new Promise((resolve) => setTimeout(resolve, 21_000));
    expect(await node.virsh('domstate', await node.domainOf(vm))).toBe('running');
    await platform.start('control-plane');
    await rest.until('it does not run any more', async () => (await node.virsh('domstate', await node.domainOf(vm))) === 'shut off', 90_000, 250);
    await rest.until('it is in the recycle bin', async () => (await expiry()) === 'recycled', 30_000);
    await rest.until('and nothing has it in hand', async () => (await rest.ok<Vm>('GET', `/v1/vms/${vm.id}`)).operationId === null, 30_000);
    await expect(rest.ok('POST', `/v1/vms/${vm.id}/start`)).rejects.toMatchObject({ status: 409, code: 'vm.expired' });
    await rest.ok('PATCH', `/v1/vms/${vm.id}`, { expiresAt: null });
    expect(await expiry()).toBeUndefined();
    await act('start');
    await up();
    expect((await rest.ok<{ items: readonly Event[] }>('GET', `/v1/vms/${vm.id}/history?limit=1000`)).items.map(({ type }) => type).filter((type) => /Expir|Recycled/.test(type))).toEqual(['VmExpiryNoticed', 'VmExpiryNoticed', 'VmExpired', 'VmRecycled']);

    await until(1);
    await rest.until('it is deleted', async () => (await rest.call('GET', `/v1/vms/${vm.id}`)).status === 404, 120_000, 250);
  });

  it('A1-17 after a power failure of its node what is to be started again is, in order and with its delay; the rest stays down', async () => {
    const small = (name: string, more: object): Promise<Vm> => rest.running({ name, image: 'micro', network: GUEST_NETWORK, vcpus: 1, memoryMib: 128, diskGib: 1, ...more });
    const [second, first, other, byHand] = [await small('second', { autostart: { order: 20, delaySeconds: 4 } }), await small('first', {}), await small('other', {}), await small('by-hand', { autostart: { order: 1 } })] as const;
    await rest.ok('PATCH', `/v1/vms/${first.id}`, { autostart: { order: 10 } });
    await rest.succeeded((await rest.ok<Accepted>('POST', `/v1/vms/${byHand.id}/stop`, { force: true, timeoutSeconds: 0 })).operation.id);
    const before = (await rest.ok<{ items: readonly Event[] }>('GET', `/v1/vms/${second.id}/history?limit=1000`)).items.at(-1)?.position ?? 0;
    await node.powerCycle();
    for (const one of [first, second]) await rest.until(`${one.name} runs again`, async () => (await node.virsh('domstate', await node.domainOf(one))) === 'running', 60_000, 100);
    for (const one of [other, byHand]) {
      expect(await node.virsh('domstate', await node.domainOf(one))).toBe('shut off');
      expect(await rest.vm(one.id)).toMatchObject({ status: 'stopped', observed: { state: 'stopped' } });
    }
    expect([(await rest.vm(other.id)).desired, (await rest.vm(byHand.id)).desired]).toEqual(['running', 'stopped']);
    // One thing has happened to the node, not one to each of its machines.
    const drifts = async (): Promise<readonly { readonly class: string; readonly differences: readonly { readonly field: string; readonly expected: unknown; readonly seen: unknown }[]; readonly explanation: string }[]> => (await rest.ok<{ items: [] }>('GET', '/v1/drift?ignored=true')).items;
    await rest.until('it is said', async () => (await drifts()).length > 0, 60_000, 200);
    expect(await drifts()).toMatchObject([{ class: 'node-restarted', differences: ['first', 'other', 'second'].map((field) => ({ field, expected: 'running', seen: 'stopped' })), explanation: expect.stringContaining('the node was started again') as string }]);
    const startOf = async ({ id }: Vm): Promise<Event> => {
      const starts = (await rest.ok<{ items: readonly Event[] }>('GET', `/v1/vms/${id}/history?limit=1000`)).items.filter(({ type, position, actor }) => type === 'VmPowerRequested' && position > before && actor === 'system:scheduler');
      expect(starts).toHaveLength(1);
      return starts[0] as Event;
    };
    const [one, two] = [await startOf(first), await startOf(second)];
    expect(two.position).toBeGreaterThan(one.position);
    // By the log's own clock.
    expect(Date.parse(two.recordedAt) - Date.parse(one.recordedAt)).toBeGreaterThanOrEqual(4_000);
    expect((await rest.ok<{ items: readonly Event[] }>('GET', `/v1/vms/${other.id}/history?limit=1000`)).items.filter(({ type }) => type.startsWith('Drift'))).toEqual([]);
    for (const each of [second, first, other, byHand]) await rest.gone(each.id);
    await rest.until('nothing differs any more', async () => (await drifts()).length === 0, 60_000, 200);
  });

  it('nothing of it is left when it is gone', async () => {
    expect(await node.domains()).toEqual([]);
    await rest.until('its disks are gone too', async () => (await node.disks()).length === 0, 20_000, 100);
  });
});
