/* Snapshots of a machine: by REST, on a real libvirt and QEMU, seen in the files of the node and from inside the guest. */
import { execFile } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startPlatform, type Platform } from './platform.ts';
import { addQemuNode, GUEST_NETWORK, type QemuNode } from './qemu-node.ts';
import { Refused, type Accepted, type Operation, type Rest, type Vm } from './rest.ts';

const run = promisify(execFile);
const BOOTED_WITHIN_MS = 120_000;

interface Snapshot {
  readonly id: string;
  readonly kind: string;
  readonly name: string;
  readonly parent: string | null;
  readonly state: string;
  readonly frozen: boolean;
  readonly current: boolean;
  readonly takenAt: string;
  readonly disks: readonly { readonly volumeId: string; readonly sizeGib: number }[];
}

interface Machine extends Vm {
  readonly currentSnapshot: string | null;
  readonly volumes: readonly { readonly volumeId: string; readonly unit: number }[];
}

describe('snapshots of a machine', () => {
  let platform: Platform;
  let rest: Rest;
  let node: QemuNode;
  let vm: Machine;
  beforeAll(async () => {
    platform = await startPlatform({ split: false });
    ({ rest } = platform);
    node = await addQemuNode(platform, 'metal');
    vm = await rest.running({ name: 'remembers', image: 'micro', network: GUEST_NETWORK, vcpus: 1, memoryMib: 128, diskGib: 1 }) as Machine;
    await rest.done('POST', `/v1/vms/${vm.id}/volumes`, { name: 'data', sizeGib: 1 });
    vm = await rest.vm(vm.id) as Machine;
    await up();
  });
  afterAll(async () => {
    await platform.stop();
    await node.stop();
  });

  const script = (text: string, of: Vm = vm): Promise<string> => node.inGuest(of, '/bin/sh', '-c', text);
  const up = (): Promise<unknown> => rest.until('the guest answers', () => script('cat /proc/uptime'), BOOTED_WITHIN_MS, 250);
  const acted = async (action: string, of: Vm = vm): Promise<Operation> => rest.done('POST', `/v1/vms/${of.id}/${action}`, action === 'stop' ? { timeoutSeconds: 5, force: true } : undefined, 90_000);
  const listed = async (of: Vm = vm): Promise<readonly Snapshot[]> => (await rest.ok<{ items: readonly Snapshot[] }>('GET', `/v1/vms/${of.id}/snapshots`)).items;
  const called = async (name: string, of: Vm = vm): Promise<Snapshot> => {
    const found = (await listed(of)).find((snapshot) => snapshot.name === name);
    if (found === undefined) throw new Error(`no snapshot ${name}`);
    return found;
  };
  const taken = async (name: string, of: Vm = vm): Promise<Snapshot> => {
    await rest.done('POST', `/v1/vms/${of.id}/snapshots`, { name }, 60_000);
    return called(name, of);
  };
  const takenInside = async (name: string): Promise<Snapshot> => {
    await rest.done('POST', `/v1/vms/${vm.id}/snapshots`, { name, kind: 'internal' }, 60_000);
    return called(name);
  };
  /** Names of what a disk keeps inside, as qemu-img lists them. */
  const insideOf = async (volumeId: string): Promise<readonly string[]> => {
    const { stdout } = await run('qemu-img', ['snapshot', '-U', '-l', join(node.poolDir, `${volumeId}.qcow2`)]);
    return stdout.split('\n').slice(2).filter((line) => line !== '').map((line) => line.trim().split(/\s+/)[1] ?? '');
  };
  const deleted = async (name: string, of: Vm = vm): Promise<void> => { await rest.done('DELETE', `/v1/vms/${of.id}/snapshots/${(await called(name, of)).id}`, undefined, 90_000); };
  const reverted = async (name: string): Promise<void> => { await rest.done('POST', `/v1/vms/${vm.id}/snapshots/${(await called(name)).id}/revert`, undefined, 60_000); };
  /** 512 bytes of the second disk, by their number. */
  const write = async (block: number, text: string): Promise<void> => { await script(`echo ${text} | dd of=/dev/vdb bs=512 seek=${String(block)} count=1 conv=sync,notrunc,fsync 2>/dev/null`); };
  const read = async (block: number): Promise<string> => (await script(`dd if=/dev/vdb bs=512 skip=${String(block)} count=1 2>/dev/null | tr -d '\\000'`)).trim();
  const data = (): string => vm.volumes[0]?.volumeId ?? '';
  /** Names of the files of a disk, the one that is written first, as qemu-img says. */
  const chainOf = async (volumeId: string, target: string, of: Vm = vm): Promise<readonly string[]> => {
    const active = (await node.virsh('domblklist', await node.domainOf(of))).split('\n').map((line) => line.trim().split(/\s+/)).find(([name]) => name === target)?.[1] ?? '';
    const { stdout } = await run('qemu-img', ['info', '-U', '--backing-chain', '--output=json', active]);
    return (JSON.parse(stdout) as { filename: string }[]).map(({ filename }) => filename).filter((name) => name.includes(volumeId)).map((name) => name.slice(name.lastIndexOf('/') + 1));
  };
  const filesOf = (volumeId: string): readonly string[] => readdirSync(node.poolDir).filter((name) => name.startsWith(volumeId)).sort();
  const refusalOf = (asked: Promise<unknown>): Promise<Refused> => asked.then(() => { throw new Error('it was not refused'); }, (error: unknown) => {
    if (error instanceof Refused) return error;
    throw error;
  });

  it('A5-01 one is taken while the guest runs and writes, its file systems held still for it', async () => {
    await write(0, 'before');
    const pid = await node.qemuPid(vm);
    await script('(while true; do echo busy | dd of=/dev/vdb bs=512 seek=100 count=1 conv=sync,notrunc 2>/dev/null; done) >/dev/null 2>&1 & echo $! > /run/writer');
    const domain = await node.domainOf(vm);
    const told = await node.toldWhile(domain, () => taken('first'));
    const first = await called('first');
    // Its guest was not stopped for it, not for a moment: libvirt would tell of that.
    expect(told.filter((line) => line.includes(`event 'lifecycle' for domain '${domain}'`))).toEqual([`event 'lifecycle' for domain '${domain}': Defined Updated`]);
    await script('kill $(cat /run/writer)');
    expect(first).toMatchObject({ parent: null, state: 'running', frozen: true, current: true, disks: [{ sizeGib: 1 }, { volumeId: data(), sizeGib: 1 }] });
    expect(await node.qemuPid(vm)).toBe(pid);
    expect(await chainOf(data(), 'vdb')).toEqual([expect.stringMatching(/\.[0-9a-f]{8}\.qcow2$/), `${data()}.qcow2`]);
    expect(await read(0)).toBe('before');
    expect((await rest.vm(vm.id) as Machine).currentSnapshot).toBe(first.id);
    // libvirt keeps none of it, and starts it anew with the same files.
    expect(await node.virsh('snapshot-list', await node.domainOf(vm), '--name')).toBe('');
    expect((await node.virsh('dumpxml', '--inactive', await node.domainOf(vm))).match(/source file='[^']*\.[0-9a-f]{8}\.qcow2'/g)).toHaveLength(2);
  });

  it('A5-08 while one operation has the machine, a second is refused and names it', async () => {
    const asked = await Promise.all(['second', 'third'].map((name) => rest.ok<Accepted>('POST', `/v1/vms/${vm.id}/snapshots`, { name }).then(({ operation }) => operation.id, (error: unknown) => error)));
    const [accepted] = asked.filter((one): one is string => typeof one === 'string');
    const [refused] = asked.filter((one): one is Refused => one instanceof Refused);
    expect(refused).toMatchObject({ status: 409, code: 'vm.busy', problem: { because: { operationId: accepted, kind: 'snapshot' } } });
    await rest.succeeded(accepted ?? '');
    const [, other] = await listed();
    await deleted(other?.name ?? '');
    expect((await refusalOf(rest.ok('POST', `/v1/vms/${vm.id}/snapshots`, { name: 'first' }))).code).toBe('snapshot.name_taken');
  });

  it('A5-01 a disk that a snapshot holds stays with the machine', async () => {
    const refused = await refusalOf(rest.ok('DELETE', `/v1/vms/${vm.id}/volumes/${data()}`));
    expect([refused.status, refused.code]).toEqual([409, 'volume.in_snapshot']);
    expect((await refusalOf(rest.ok('DELETE', `/v1/vms/${vm.id}?force=true`))).code).toBe('vm.volumes_in_snapshots');
  });

  it('A5-03 what was written after it is gone after going back, and only a stopped machine goes back', async () => {
    await write(0, 'after');
    await write(1, 'marker');
    await script('echo marker > /marker; sync');
    const refused = await refusalOf(rest.ok('POST', `/v1/vms/${vm.id}/snapshots/${(await called('first')).id}/revert`));
    expect([refused.status, refused.code]).toEqual([409, 'snapshot.vm_not_stopped']);
    await acted('stop');
    await reverted('first');
    // What was written since is taken away with its file.
    expect(filesOf(data())).toHaveLength(2);
    await acted('start');
    await up();
    expect([await read(0), await read(1)]).toEqual(['before', '']);
    expect(await called('first')).toMatchObject({ current: true });
  });

  it('A5-03 is refused when the machine has other disks than then', async () => {
    await rest.done('POST', `/v1/vms/${vm.id}/volumes`, { name: 'later', sizeGib: 1 });
    await acted('stop');
    const refused = await refusalOf(rest.ok('POST', `/v1/vms/${vm.id}/snapshots/${(await called('first')).id}/revert`));
    expect([refused.status, refused.code]).toEqual([409, 'snapshot.disks_changed']);
    const later = (await rest.vm(vm.id) as Machine).volumes.find(({ volumeId }) => volumeId !== data())?.volumeId ?? '';
    await rest.done('DELETE', `/v1/vms/${vm.id}/volumes/${later}?delete=true`);
  });

  it('A5-02 three make a tree, with a branch where it went back', async () => {
    // It is stopped: one of a stopped machine is taken as well.
    const second = await taken('second');
    expect(second).toMatchObject({ state: 'stopped', frozen: false, parent: (await called('first')).id });
    await acted('start');
    await up();
    await write(2, 'of-second');
    await acted('stop');
    await reverted('first');
    await acted('start');
    await up();
    await write(3, 'of-third');
    const third = await taken('third');
    const first = await called('first');
    expect((await listed()).map(({ name, parent, current }) => [name, parent, current])).toEqual([['first', null, false], ['second', first.id, false], ['third', first.id, true]]);
    expect(third.state).toBe('running');
  });

  it('A5-04 one that two others stand on is deleted, and both still work', async () => {
    await deleted('first');
    expect((await listed()).map(({ name, parent }) => [name, parent])).toEqual([['second', null], ['third', null]]);
    expect([await read(0), await read(3)]).toEqual(['before', 'of-third']);
    await write(3, 'later');
    await acted('stop');
    await reverted('third');
    await acted('start');
    await up();
    expect([await read(0), await read(3)]).toEqual(['before', 'of-third']);
    await acted('stop');
    await reverted('second');
    await acted('start');
    await up();
    expect([await read(0), await read(3)]).toEqual(['before', '']);
  });

  it('A5-04 merged while it runs: its chain is shorter, what it holds is the same, and it ran all the time', async () => {
    const boots = node.boots(vm);
    const pid = await node.qemuPid(vm);
    await script('dd if=/dev/urandom of=/dev/vdb bs=1M seek=1 count=64 conv=notrunc,fsync 2>/dev/null');
    await taken('fourth');
    await script('dd if=/dev/urandom of=/dev/vdb bs=1M seek=20 count=64 conv=notrunc,fsync 2>/dev/null');
    await taken('fifth');
    await script('dd if=/dev/urandom of=/dev/vdb bs=1M seek=50 count=16 conv=notrunc,fsync 2>/dev/null');
    const sum = (): Promise<string> => script('sync; dd if=/dev/vdb bs=1M count=128 2>/dev/null | md5sum');
    const before = await sum();
    const chain = await chainOf(data(), 'vdb');
    // One between others, then the one below what is written.
    await deleted('fourth');
    expect(await chainOf(data(), 'vdb')).toHaveLength(chain.length - 1);
    expect(await sum()).toBe(before);
    await deleted('fifth');
    expect(await chainOf(data(), 'vdb')).toHaveLength(chain.length - 2);
    expect(await sum()).toBe(before);
    // And those of the tree: without snapshots there is the one file again.
    await deleted('third');
    await deleted('second');
    expect(await listed()).toEqual([]);
    expect(await chainOf(data(), 'vdb')).toEqual([`${data()}.qcow2`]);
    expect(filesOf(data())).toEqual([`${data()}.qcow2`]);
    expect(await sum()).toBe(before);
    expect([node.boots(vm), await node.qemuPid(vm)]).toEqual([boots, pid]);
    await acted('stop');
    await run('qemu-img', ['check', '-q', join(node.poolDir, `${data()}.qcow2`)]);
    // It is stopped: the next one is kept inside of its files.
    const inside = await takenInside('inside');
    await acted('start');
    await up();
    expect(await sum()).toBe(before);
    await write(4, 'marker');
    expect(inside).toMatchObject({ kind: 'internal', parent: null, state: 'stopped', frozen: false, current: true, disks: [{ sizeGib: 1 }, { volumeId: data(), sizeGib: 1 }] });
  });

  it('A5-05 an internal one is inside of each disk, and nothing that would harm it is done', async () => {
    const inside = await called('inside');
    for (const { volumeId } of inside.disks) expect([await insideOf(volumeId), filesOf(volumeId)]).toEqual([[inside.id], [`${volumeId}.qcow2`]]);
    expect(await node.virsh('snapshot-list', await node.domainOf(vm), '--name')).toBe('');
    const refusal = async (method: string, path: string, body?: object): Promise<string> => {
      const { status, code } = await refusalOf(rest.ok(method, `/v1/vms/${vm.id}${path}`, body));
      return `${String(status)} ${code}`;
    };
    // It runs, and holds the marker.
    expect(await read(4)).toBe('marker');
    expect(await refusal('POST', '/snapshots', { name: 'other' })).toBe('409 snapshot.other_kind');
    expect(await refusal('POST', '/snapshots', { name: 'other', kind: 'internal' })).toBe('409 snapshot.only_stopped');
    expect(await refusal('DELETE', `/snapshots/${inside.id}`)).toBe('409 snapshot.only_stopped');
    expect(await refusal('POST', `/snapshots/${inside.id}/revert`)).toBe('409 snapshot.vm_not_stopped');
    expect(await refusal('PATCH', '/hardware', { diskGib: 2 })).toBe('409 volume.in_internal_snapshot');
    expect(await refusal('PATCH', `/volumes/${data()}`, { sizeGib: 2 })).toBe('409 volume.in_internal_snapshot');
    expect(await refusal('DELETE', `/volumes/${data()}`)).toBe('409 volume.in_snapshot');
    expect(await refusal('DELETE', '?force=true')).toBe('409 vm.volumes_in_snapshots');
    expect(await refusal('POST', '/rebuild')).toBe('409 vm.has_snapshots');
    expect(await refusal('POST', '/publish', { name: 'of-inside', snapshot: inside.id })).toBe('422 snapshot.internal');
    expect((await refusalOf(rest.ok('POST', '/v1/volumes', { name: 'copy', from: { vm: vm.id, snapshot: inside.id, volume: data() } }))).code).toBe('snapshot.internal');
  });

  it('A5-05 what was written after an internal one is gone after going back to it, and it goes without a trace', async () => {
    await acted('stop');
    const second = await takenInside('inside-2');
    expect(second.parent).toBe((await called('inside')).id);
    await reverted('inside');
    // Nothing is left of what there was but what has a name.
    expect(await insideOf(data())).toEqual([(await called('inside')).id, second.id]);
    expect(await called('inside')).toMatchObject({ current: true });
    for (const name of ['inside-2', 'inside']) await deleted(name);
    for (const volumeId of [data(), second.disks[0]?.volumeId ?? '']) {
      expect(await insideOf(volumeId)).toEqual([]);
      await run('qemu-img', ['check', '-q', join(node.poolDir, `${volumeId}.qcow2`)]);
    }
    await acted('start');
    await up();
    expect([await read(0), await read(3), await read(4)]).toEqual(['before', '', '']);
  });

  it('A5-04 a merge whose agent is killed in the middle is ended by the next', async () => {
    await script('dd if=/dev/urandom of=/dev/vdb bs=1M seek=1 count=64 conv=notrunc,fsync 2>/dev/null');
    await taken('sixth');
    await script('dd if=/dev/urandom of=/dev/vdb bs=1M seek=1 count=100 conv=notrunc,fsync 2>/dev/null');
    const sum = (): Promise<string> => script('sync; dd if=/dev/vdb bs=1M count=128 2>/dev/null | md5sum');
    const before = await sum();
    const pid = await node.qemuPid(vm);
    const { operation } = await rest.ok<Accepted>('DELETE', `/v1/vms/${vm.id}/snapshots/${(await called('sixth')).id}`);
    // What is written goes into both files until the agent says that QEMU may let go of the upper one.
    await rest.until('QEMU merges', async () => (await node.virsh('dumpxml', await node.domainOf(vm))).includes('<mirror'), 10_000, 5);
    await platform.kill9(node.part);
    expect((await rest.operation(operation.id)).endedAt).toBeNull();
    await platform.start(node.part);
    await rest.succeeded(operation.id, 90_000);
    expect(await chainOf(data(), 'vdb')).toEqual([`${data()}.qcow2`]);
    expect(filesOf(data())).toEqual([`${data()}.qcow2`]);
    expect([await sum(), await node.qemuPid(vm)]).toEqual([before, pid]);
  });

  it('A5-09 one of 100 GiB, and of a guest that has no agent', async () => {
    const large = await rest.running({ name: 'large', network: GUEST_NETWORK, boot: ['disk', 'network'], vcpus: 1, memoryMib: 128, diskGib: 100 }) as Machine;
    const started = performance.now();
    const snapshot = await taken('one', large);
    process.stdout.write(`a snapshot of 100 GiB took ${Math.round(performance.now() - started).toString()} ms\n`);
    expect(snapshot).toMatchObject({ state: 'running', frozen: false, disks: [{ sizeGib: 100 }] });
    await rest.done('PATCH', `/v1/vms/${large.id}/hardware`, { diskGib: 101 });
    await deleted('one', large);
    const volumeId = snapshot.disks[0]?.volumeId ?? '';
    const { stdout } = await run('qemu-img', ['info', '-U', '--output=json', join(node.poolDir, `${volumeId}.qcow2`)]);
    expect(JSON.parse(stdout)).toMatchObject({ 'virtual-size': 101 * 2 ** 30 });
    await taken('two', large);
    await rest.gone(large.id);
    expect(filesOf(volumeId)).toEqual([]);
  });

  it('A5-04 nothing is left of a machine that goes with its disks, though a snapshot holds them', async () => {
    const { disks } = await taken('last');
    expect(disks).toHaveLength(2);
    const { operation } = await rest.ok<Accepted>('DELETE', `/v1/vms/${vm.id}?force=true&deleteDisks=true`);
    await rest.succeeded(operation.id, 60_000);
    for (const { volumeId } of disks) await rest.until('its files are gone', () => Promise.resolve(filesOf(volumeId).length === 0), 30_000);
  });
});
