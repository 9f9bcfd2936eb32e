/* Backups of a machine: by REST, on a real libvirt and QEMU, seen in the files of the target and from inside the guests. */
import { execFile } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startPlatform, type Platform } from './platform.ts';
import { addQemuNode, GUEST_NETWORK, type QemuNode } from './qemu-node.ts';
import { Refused, type Accepted, type Operation, type Rest, type Vm } from './rest.ts';

const run = promisify(execFile);
const BOOTED_WITHIN_MS = 120_000;

interface Backup {
  readonly id: string;
  readonly vmId: string;
  readonly vmName: string;
  readonly status: string;
  readonly kind: 'full' | 'incremental';
  readonly because: string;
  readonly parent: string | null;
  readonly frozen: boolean;
  readonly bytes: number;
  readonly drill: { readonly at: string; readonly ok: boolean; readonly criterion: string; readonly seconds: number; readonly because: string; readonly operationId: string } | null;
  readonly disks: readonly { readonly unit: number; readonly volumeId: string; readonly bytes: number; readonly sha256: string }[];
}

interface Machine extends Vm {
  readonly nics: readonly { readonly network: string; readonly address: string; readonly mac: string }[];
  readonly volumes: readonly { readonly volumeId: string; readonly unit: number }[];
}

type Begun = Accepted & { readonly backupId: string };

describe('backups of a machine', () => {
  let platform: Platform;
  let rest: Rest;
  let node: QemuNode;
  let vm: Machine;
  let target: string;
  /** One that is backed up by itself. */
  let clock: Vm;
  let policy: string;
  const made: Backup[] = [];
  beforeAll(async () => {
    // Short, and open to QEMU's user on its way to the files.
    target = mkdtempSync('/var/tmp/cvb-');
    await run('chmod', ['711', target]);
    platform = await startPlatform({ split: false });
    ({ rest } = platform);
    node = await addQemuNode(platform, 'metal', { backupDirs: `vault=${target}` });
    vm = await rest.running({ name: 'precious', image: 'micro', network: GUEST_NETWORK, vcpus: 1, memoryMib: 128, diskGib: 1, cloudInit: {} }) as Machine;
    await rest.succeeded((await rest.ok<Accepted>('POST', `/v1/vms/${vm.id}/volumes`, { name: 'data', sizeGib: 1 })).operation.id);
    vm = await rest.vm(vm.id) as Machine;
    await up(vm);
  });
  afterAll(async () => {
    await platform?.stop();
    await node?.stop();
    rmSync(target, { recursive: true, force: true });
  });

  const script = (text: string, of: Pick<Vm, 'id'> = vm): Promise<string> => node.inGuest(of, '/bin/sh', '-c', text);
  const up = (of: Pick<Vm, 'id'>): Promise<unknown> => rest.until('the guest answers', () => script('cat /proc/uptime', of), BOOTED_WITHIN_MS, 250);
  const acted = async (action: string, of: Vm = vm): Promise<Operation> => rest.succeeded((await rest.ok<Accepted>('POST', `/v1/vms/${of.id}/${action}`, action === 'stop' ? { timeoutSeconds: 5, force: true } : undefined)).operation.id, 90_000);
  const begin = (body: object = {}, of: Vm = vm): Promise<Begun> => rest.ok<Begun>('POST', `/v1/vms/${of.id}/backups`, body);
  const shown = (id: string): Promise<Backup> => rest.ok('GET', `/v1/backups/${id}`);
  const taken = async (body: object = {}, of: Vm = vm): Promise<Backup> => {
    const { operation, backupId } = await begin(body, of);
    await rest.succeeded(operation.id, 120_000);
    const backup = await shown(backupId);
    made.push(backup);
    return backup;
  };
  const dirOf = ({ id, vmId }: Pick<Backup, 'id' | 'vmId'>): string => join(target, vmId, id);
  /** Of the machine that is backed up by hand. */
  const inTarget = (): readonly string[] => readdirSync(target).filter((name) => name === vm.id).flatMap((of) => readdirSync(join(target, of))).sort();
  /** 512 bytes of the second disk, by their number. */
  const write = async (block: number, text: string): Promise<void> => { await script(`echo ${text} | dd of=/dev/vdb bs=512 seek=${String(block)} count=1 conv=sync,notrunc,fsync 2>/dev/null`); };
  const read = async (block: number, of: Pick<Vm, 'id'> = vm): Promise<string> => (await script(`dd if=/dev/vdb bs=512 skip=${String(block)} count=1 2>/dev/null | tr -d '\\000'`, of)).trim();
  /** Asks for it, and waits for its end, of whatever kind. */
  const drilled = async (of: Pick<Backup, 'id'>, body: object = {}): Promise<{ readonly operation: Operation; readonly machine: string; readonly backup: Backup }> => {
    const { operation, vm: machine } = await rest.ok<Accepted>('POST', `/v1/backups/${of.id}/drill`, body);
    const ended = await rest.ended(operation.id, 240_000);
    return { operation: ended, machine: machine.id, backup: await shown(of.id) };
  };
  /** The node has nothing of a machine any more, nor has the platform. */
  const expectGone = async (machine: string): Promise<void> => {
    expect(await refusalOf(rest.vm(machine))).toMatchObject({ status: 404, code: 'vm.not_found' });
    expect(await node.virsh('list', '--all', '--name')).not.toContain(machine.slice(-8));
    expect(readdirSync(node.poolDir).filter((name) => name.includes(machine.slice('vm_'.length)))).toEqual([]);
    // What was beside the first disk goes by an operation of its own: then each file is of a volume that somebody has.
    await rest.until('its disks are gone', async () => {
      const volumes = await rest.all<{ readonly id: string; readonly name: string }>('/v1/volumes');
      // The disk that a VM was made with has its digits.
      const known = new Set([...volumes.map(({ id }) => id), ...(await rest.all<Vm>('/v1/vms')).map(({ id }) => id.replace('vm_', 'volume_'))]);
      return (await node.disks()).every((volumeId) => known.has(volumeId)) && !volumes.some(({ name }) => name.startsWith(`drill-${machine.slice(-8)}`));
    }, 60_000, 250);
  };
  const refusalOf = (asked: Promise<unknown>): Promise<Refused> => asked.then(() => { throw new Error('it was not refused'); }, (error: unknown) => {
    if (error instanceof Refused) return error;
    throw error;
  });
  /** The file that a disk is written to now. */
  const fileOf = async (disk: string): Promise<string> => (await node.virsh('domblklist', await node.domainOf(vm))).split('\n').map((line) => line.trim().split(/\s+/)).find(([name]) => name === disk)?.[1] ?? '';
  /** The second disk of the machine holds what its file in a backup holds with all that this stands on, as qemu-img reads them, which knows nothing of us. */
  const expectSame = async (backup: Backup): Promise<void> => {
    if ((await rest.vm(vm.id)).status === 'running') await script('sync; dd if=/dev/zero of=/dev/vdb bs=512 seek=1000000 count=1 conv=notrunc,fsync 2>/dev/null');
    await run('qemu-img', ['compare', '-q', '-U', '-f', 'qcow2', '-F', 'qcow2', await fileOf('vdb'), join(dirOf(backup), 'disk-1.qcow2')]);
  };

  /** A policy whose time comes within a minute. */
  const soon = (vmId: string, drills: 'after each' | 'at its time' = 'after each'): object => {
    const at = new Date(Date.now() + (new Date().getUTCSeconds() > 50 ? 70_000 : 60_000)).toISOString().slice(11, 16);
    return { name: 'often', vms: [vmId], target: 'vault', schedule: { dailyAt: at }, keep: { last: 1 }, fullEvery: 1, drill: { ...(drills === 'after each' ? { every: 1 } : { schedule: { dailyAt: at } }), criterion: 'disk', timeoutSeconds: 10 } };
  };
  const ofClock = async (): Promise<readonly Backup[]> => (await rest.ok<{ items: Backup[] }>('GET', `/v1/backups?vm=${clock.id}`)).items.filter(({ status }) => status === 'taken');

  it('A5-10 a policy says when', async () => {
    clock = await rest.running({ name: 'clock', network: GUEST_NETWORK, boot: ['disk', 'network'], vcpus: 1, memoryMib: 128, diskGib: 1 });
    policy = (await rest.ok<{ id: string }>('POST', '/v1/backup-policies', soon(clock.id, 'at its time'))).id;
    expect((await rest.ok<{ items: { id: string; keep: object }[] }>('GET', '/v1/backup-policies')).items).toMatchObject([{ id: policy, keep: { last: 1, daily: 0, weekly: 0 }, drills: [{ vmId: clock.id, dueSince: null, last: null }] }]);
    expect(await refusalOf(rest.ok('POST', '/v1/backup-policies', { ...soon(clock.id), drill: { every: 1, schedule: { everyHours: 168 } } }))).toMatchObject({ status: 400 });
  });

  it('A5-10 a full one is taken while the guest runs and writes, its file systems held still for that moment', async () => {
    await write(0, 'first');
    await script('dd if=/dev/urandom of=/dev/vdb bs=1M seek=8 count=32 conv=notrunc,fsync 2>/dev/null');
    const pid = await node.qemuPid(vm);
    const backup = await taken();
    expect(backup).toMatchObject({ status: 'taken', kind: 'full', parent: null, frozen: true, vmName: 'precious', because: 'there is none at this target that it could be built on' });
    expect(backup.disks.map(({ unit }) => unit)).toEqual([0, 1]);
    expect(await node.qemuPid(vm)).toBe(pid);
    expect(readdirSync(dirOf(backup)).sort()).toEqual(['disk-0.qcow2', 'disk-1.qcow2', 'manifest.json']);
    const manifest = JSON.parse(readFileSync(join(dirOf(backup), 'manifest.json'), 'utf8')) as { files: { name: string; sha256: string }[]; machine: { spec: { name: string } } };
    expect(manifest.machine.spec.name).toBe('precious');
    for (const { name, sha256 } of manifest.files) expect((await run('sha256sum', [join(dirOf(backup), name)])).stdout.split(' ')[0]).toBe(sha256);
    await expectSame(backup);
    await run('qemu-img', ['check', '-q', join(dirOf(backup), 'disk-0.qcow2')]);
    // libvirt keeps none of it, so nothing else of it is refused.
    expect(await node.virsh('checkpoint-list', await node.domainOf(vm), '--name')).toBe('');
  });

  it('A5-10 two more hold what has changed, and the chain holds what the disk held', async () => {
    for (const turn of ['second', 'third']) {
      await write(0, turn);
      // What is thrown away has changed as well.
      await script(`dd if=/dev/zero of=/dev/vdb bs=1M seek=${turn === 'second' ? '8' : '12'} count=2 conv=notrunc,fsync 2>/dev/null`);
        const backup = await taken();
      expect(backup).toMatchObject({ kind: 'incremental', parent: made.at(-2)?.id });
      expect(backup.bytes).toBeLessThan((made[0]?.bytes ?? 0) / 2);
      await expectSame(backup);
    }
    expect((await rest.ok<{ items: Backup[] }>('GET', `/v1/backups?vm=${vm.id}`)).items.map(({ id }) => id).sort()).toEqual(made.map(({ id }) => id).sort());
  });

  it('A5-10 a snapshot and its deletion while it runs do not end the chain, one of a stopped machine is built on by reading, going back to an internal one ends it', async () => {
    const { operation } = await rest.ok<Accepted>('POST', `/v1/vms/${vm.id}/snapshots`, { name: 'between' });
    await rest.succeeded(operation.id);
    await write(1, 'on-the-layer');
    const onLayer = await taken();
    expect(onLayer).toMatchObject({ kind: 'incremental', parent: made.at(-2)?.id });
    const [snapshot] = (await rest.ok<{ items: { id: string }[] }>('GET', `/v1/vms/${vm.id}/snapshots`)).items;
    await rest.succeeded((await rest.ok<Accepted>('DELETE', `/v1/vms/${vm.id}/snapshots/${snapshot?.id ?? ''}`)).operation.id);
    await write(2, 'merged');
    const merged = await taken();
    expect(merged).toMatchObject({ kind: 'incremental', parent: onLayer.id });
    await expectSame(merged);

    await acted('stop');
    const stopped = await taken();
    expect(stopped).toMatchObject({ kind: 'incremental', parent: merged.id, frozen: false });
    await expectSame(stopped);
    expect(stopped.disks[1]?.bytes).toBeLessThan(1_000_000);
    expect((await rest.vm(vm.id)).status).toBe('stopped');
    await rest.done('POST', `/v1/vms/${vm.id}/snapshots`, { name: 'inside', kind: 'internal' }, 60_000);
    const inside = `/v1/vms/${vm.id}/snapshots/${(await rest.ok<{ items: { id: string }[] }>('GET', `/v1/vms/${vm.id}/snapshots`)).items[0]?.id ?? ''}`;
    await acted('start');
    await up(vm);
    await write(3, 'after-the-start');
    const started = await taken();
    expect(started).toMatchObject({ kind: 'incremental', parent: stopped.id });
    await expectSame(started);
    // With an internal snapshot the count went on; going back to it ends it, whatever is found by reading.
    await acted('stop');
    const back = (): Promise<unknown> => rest.done('POST', `${inside}/revert`, undefined, 60_000);
    await back();
    const reverted = await taken();
    expect(reverted).toMatchObject({ kind: 'incremental', parent: started.id });
    await expectSame(reverted);
    await back();
    await rest.done('DELETE', inside, undefined, 60_000);
    await acted('start');
    await up(vm);
    expect(await read(3)).toBe('');
    const full = await taken();
    expect(full).toMatchObject({ kind: 'full', parent: null });
    expect(full.because).toContain('have not kept count');
    await expectSame(full);
  });

  it('A5-10 when QEMU has died nobody has kept count: the next one is full, and says why', async () => {
    process.kill(Number((await run('pgrep', ['-f', `guest=${await node.domainOf(vm)},`])).stdout.trim().split('\n')[0]), 'SIGKILL');
    await rest.until('the machine is seen to have stopped', async () => (await rest.vm(vm.id)).status === 'stopped', 30_000);
    await acted('start');
    await up(vm);
    const refused = await rest.ended((await begin({ kind: 'incremental' })).operation.id, 60_000);
    expect(refused).toMatchObject({ status: 'compensated', error: { code: 'backup.not_incremental' } });
    const full = await taken();
    expect(full).toMatchObject({ kind: 'full', parent: null });
    expect(full.because).toContain('have not kept count');
    await expectSame(full);
    expect(inTarget()).toEqual(made.map(({ id }) => id).sort());
  });

  it('A5-10 one that others build on is not deleted, and says which; the last one is', async () => {
    const [first, second] = made;
    const refused = await refusalOf(rest.ok('DELETE', `/v1/backups/${first?.id ?? ''}`));
    expect([refused.status, refused.code]).toEqual([409, 'backup.needed']);
    expect(refused.problem).toMatchObject({ because: { by: [second?.id] } });
    const full = await taken({ kind: 'full' });
    expect(full.because).toBe('it was asked for');
    await rest.succeeded((await rest.ok<Accepted>('DELETE', `/v1/backups/${full.id}`)).operation.id);
    made.pop();
    expect(existsSync(dirOf(full))).toBe(false);
    expect(await refusalOf(shown(full.id))).toMatchObject({ status: 404, code: 'backup.not_found' });
    expect((await taken()).because).toContain('have not kept count');
  });

  it('A5-10 an agent that is killed in the middle begins again, and leaves nothing half done', async () => {
    await script('dd if=/dev/urandom of=/dev/vdb bs=1M seek=64 count=64 conv=notrunc,fsync 2>/dev/null');
    const domain = await node.domainOf(vm);
    const { operation, backupId } = await begin({ kind: 'full' });
    await rest.until('it is being written', () => Promise.resolve(inTarget().includes(`${backupId}.unfinished`)), 20_000, 2);
    await platform.kill9(node.part);
    expect((await rest.operation(operation.id)).endedAt).toBeNull();
    await platform.start(node.part);
    await rest.succeeded(operation.id, 120_000);
    const backup = await shown(backupId);
    made.push(backup);
    expect(inTarget()).toEqual(made.map(({ id }) => id).sort());
    await expectSame(backup);
    expect(await node.virsh('checkpoint-list', domain, '--name')).toBe('');
    await write(0, 'after-the-kill');
    expect(await taken()).toMatchObject({ kind: 'incremental', parent: backup.id });
  });

  it('A5-10 another machine of a backup boots, with a name and an address of its own, and holds what was held then', async () => {
    const third = made[2];
    const { operation, vm: asked } = await rest.ok<Accepted>('POST', `/v1/backups/${third?.id ?? ''}/restore`, { name: 'again' });
    expect(operation.kind).toBe('restore');
    await rest.succeeded(operation.id, 120_000);
    const again = await rest.vm(asked.id) as Machine;
    expect(again.status).toBe('running');
    expect(again.address).not.toBe(vm.address);
    await up(again);
    expect(await node.pings(again.address ?? '')).toBe(true);
    expect(await read(0, again)).toBe('third');
    expect(again.volumes).toHaveLength(1);
    expect(again.volumes[0]?.volumeId).not.toBe(vm.volumes[0]?.volumeId);
    expect((await rest.ok<{ items: { vmId: string }[] }>('GET', `/v1/volumes?vm=${again.id}`)).items).toHaveLength(1);
    const { operation: deletion } = await rest.ok<Accepted>('DELETE', `/v1/vms/${again.id}?force=true&deleteDisks=true`);
    await rest.succeeded(deletion.id);
  });

  it('A5-10 a restore drill makes a machine without a way to any network, sees it come up, and leaves nothing of it', async () => {
    const third = made[2] as Backup;
    expect((await shown(third.id)).drill).toBeNull();
    const { operation, vm: machine } = await rest.ok<Accepted>('POST', `/v1/backups/${third.id}/drill`, {});
    expect(operation).toMatchObject({ kind: 'drill' });
    // While it is there: its interface is, and its cable is not.
    const domain = await rest.until('its domain runs', async () => (await node.virsh('list', '--name')).split('\n').find((name) => name.endsWith(machine.id.slice(-8))), 60_000, 100);
    const [, , , , mac = ''] = (await node.virsh('domiflist', domain)).trim().split(/\s+/);
    expect(await node.virsh('domif-getlink', domain, mac)).toContain('down');
    const ended = await rest.ended(operation.id, 240_000);
    expect(ended).toMatchObject({ status: 'succeeded', error: null, how: expect.stringMatching(/^its guest agent answers, seen \d+ s after its start$/) as string });
    await expectGone(machine.id);
    const { drill } = await shown(third.id);
    expect(drill).toMatchObject({ ok: true, criterion: 'agent', because: ended.how, operationId: operation.id });
    expect(drill?.seconds).toBeGreaterThan(0);
    expect((await rest.ok<{ items: Backup[] }>('GET', `/v1/backups?vm=${vm.id}`)).items.find(({ id }) => id === third.id)?.drill).toEqual(drill);
    expect(await read(0)).toBe('after-the-kill');
  });

  it('A5-10 a drill goes by what a guest shows without an agent, too', async () => {
    const third = made[2] as Backup;
    const seen = await drilled(third, { criterion: 'console', word: 'login:' });
    expect([seen.operation.status, seen.backup.drill]).toMatchObject(['succeeded', { ok: true, criterion: 'console' }]);
    await expectGone(seen.machine);
    expect(await refusalOf(rest.ok('POST', `/v1/backups/${third.id}/drill`, { criterion: 'console' }))).toMatchObject({ status: 400 });
  });

  it('A5-10 when its time comes it is taken, once; and what is not kept goes', async () => {
    const [first] = await rest.until('it is backed up', async () => { const all = await ofClock(); return all.length > 0 && all; }, 90_000, 500);
    expect(first).toMatchObject({ kind: 'full', scheduled: { policyId: policy } });
    // Its disk is blank: firmware looks at it, and that is no machine that came up.
    const { drill } = await rest.until('it is drilled', async () => { const one = (await ofClock()).find(({ id }) => id === first?.id); return one?.drill !== undefined && one.drill !== null && one; }, 120_000, 500);
    expect(drill).toMatchObject({ ok: false, criterion: 'disk', because: expect.stringMatching(/^drill\.not_seen: it has read \d+ KiB of its first disk$/) as string });
    // Known before its machine is taken away.
    expect(await rest.ended(drill?.operationId ?? '', 60_000)).toMatchObject({ kind: 'drill', status: 'compensated', error: { code: 'drill.not_seen' } });
    // Once at its time, and the policy says how it went.
    const { drills } = await rest.until('the policy knows it', async () => { const now = await rest.ok<{ drills: readonly { readonly dueSince: string | null; readonly last: object | null }[] }>('GET', `/v1/backup-policies/${policy}`); return now.drills[0]?.dueSince === null && now; }, 30_000, 250);
    expect(drills).toEqual([{ vmId: clock.id, dueSince: null, last: expect.objectContaining({ backupId: first?.id, operationId: drill?.operationId, ok: false, because: drill?.because }) as object }]);
    await rest.ok('PUT', `/v1/backup-policies/${policy}`, soon(clock.id));
    const second = await rest.until('another came, and the first went', async () => { const all = await ofClock(); return all.length === 1 && all[0]?.id !== first?.id && all[0]; }, 150_000, 500);
    await rest.until('its files went, too', () => Promise.resolve(readdirSync(join(target, clock.id)).join() === second.id), 30_000, 250);
    await rest.ok('DELETE', `/v1/backup-policies/${policy}`);
    await rest.gone(clock.id);
  });

  it('A5-10 how far the disks have come that are made of one is said while they are made, and only upwards', async () => {
    const said = await platform.sql<{ stream: string; operation: string; percents: number[] }>(`select stream, min(data->>'operationId') as operation, array_agg((data->>'percent')::int order by position) as percents from event_log.event where type = 'VmRestoreProgressed' group by stream`);
    const [restored] = await platform.sql<{ stream: string }>(`select stream from event_log.event where type = 'VmRequested' and data->'restore'->>'drill' = 'false' order by position limit 1`);
    const own = said.find(({ stream }) => stream === restored?.stream);
    expect(own?.percents.length).toBeGreaterThan(0);
    for (const { percents } of said) expect(percents).toEqual([...new Set(percents)].sort((a, b) => a - b));
    expect(await rest.operation(own?.operation ?? '')).toMatchObject({ kind: 'restore', status: 'succeeded', percent: 100 });
  });

  it('A5-10 a damaged file is refused by name, and nothing is made of it', async () => {
    const [first, second] = made;
    const file = join(dirOf(second as Backup), 'disk-1.qcow2');
    const whole = readFileSync(file);
    const damaged = Buffer.from(whole);
    const at = damaged.length - 70_000;
    damaged[at] = (damaged[at] ?? 0) ^ 1;
    writeFileSync(file, damaged);
    const { operation } = await rest.ok<Accepted>('POST', `/v1/backups/${made[2]?.id ?? ''}/restore`, { name: 'damaged' });
    const ended = await rest.ended(operation.id, 60_000);
    expect(ended).toMatchObject({ status: 'compensated', error: { code: 'backup.damaged', because: { backupId: second?.id, file: 'disk-1.qcow2' } } });
    // A drill finds it, and says so of the backup that cannot be restored.
    const fails = await drilled(made[2] as Backup);
    expect([fails.operation.status, fails.operation.error]).toMatchObject(['compensated', { code: 'backup.damaged' }]);
    expect(fails.backup.drill).toMatchObject({ ok: false, because: `backup.damaged: ${second?.id ?? ''}: disk-1.qcow2: the file does not hold what it held` });
    await expectGone(fails.machine);
    writeFileSync(file, whole);
    expect(first?.id).not.toBe(second?.id);
  });

  it('A5-10 how far a copy has come is shown while it is taken, and only rises', async () => {
    await acted('stop');
    await rest.ok('POST', '/v1/networks', { name: 'second', kind: 'nat', cidr: '10.98.8.0/24' });
    await rest.succeeded((await rest.ok<Accepted>('POST', `/v1/vms/${vm.id}/nics`, { network: 'second' })).operation.id);
    const { operation } = await begin({ kind: 'full' });
    const percents: number[] = [];
    await rest.until('it is taken', async () => { const now = await rest.operation(operation.id); percents.push(now.percent); return now.endedAt !== null; }, 120_000, 20);
    expect(await rest.operation(operation.id)).toMatchObject({ status: 'succeeded', percent: 100 });
    expect(percents).toEqual([...percents].sort((a, b) => a - b));
    made.push(await shown((await rest.ok<{ items: Backup[] }>('GET', `/v1/backups?vm=${vm.id}`)).items.find(({ id }) => made.every((one) => one.id !== id))?.id ?? ''));
    // Said by the node while it copied, of this one or of those before: a small copy is over before it is asked.
    const said = await platform.sql<{ backup: string; percents: number[] }>(`select data->>'backupId' as backup, array_agg((data->>'percent')::int order by position) as percents from event_log.event where type = 'BackupProgressed' group by 1`);
    expect(said.length).toBeGreaterThan(0);
    for (const { percents: of } of said) expect(of).toEqual([...new Set(of)].sort((a, b) => a - b));
    await acted('start');
    await up(vm);
  });

  it('A5-10 they stay when their machine goes, and another is made of them', async () => {
    await rest.succeeded((await rest.ok<Accepted>('DELETE', `/v1/vms/${vm.id}?force=true&deleteDisks=true`)).operation.id);
    const last = made.at(-1) as Backup;
    expect(await shown(last.id)).toMatchObject({ status: 'taken', vmName: 'precious' });
    const { operation, vm: asked } = await rest.ok<Accepted>('POST', `/v1/backups/${last.id}/restore`, { name: 'precious' });
    await rest.succeeded(operation.id, 120_000);
    await up(asked);
    expect(await read(0, asked)).toBe('after-the-kill');
    // Its second interface is there again, with an address of its own.
    const [nic] = (await rest.vm(asked.id) as Machine).nics;
    expect(nic).toMatchObject({ network: 'second', address: expect.stringMatching(/^10\.98\.8\./) as string });
    expect(await node.virsh('domiflist', await node.domainOf(asked))).toContain(nic?.mac);
  });
});
