/*
 * C-05: somebody works on the node by hand, past Chronovirt. What was done is found, classified, explained
 * field by field, and brought back or taken over.
 * By REST, on a real libvirt and QEMU, seen through virsh.
 */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startPlatform, type Platform } from './platform.ts';
import { addQemuNode, GUEST_NETWORK, type QemuNode } from './qemu-node.ts';
import { Refused, type Accepted, type Event, type Rest, type Vm } from './rest.ts';

const run = promisify(execFile);
const BOOTED_WITHIN_MS = 120_000;
/** libvirt tells of it. */
const BY_EVENT_MS = 10_000;
/** It does not: the next comparison finds it. */
const BY_SWEEP_MS = 60_000;

interface Item {
  readonly id: string;
  readonly class: string;
  readonly subject: string;
  readonly vmId: string | null;
  readonly name: string | null;
  readonly differences: readonly { readonly field: string; readonly where?: string; readonly expected: unknown; readonly seen: unknown }[];
  readonly explanation: string;
  readonly near: { readonly seconds: number } | null;
  readonly foreign: { readonly uuid: string; readonly name: string; readonly obstacles: readonly string[] } | null;
}

describe('a node that somebody works on by hand', () => {
  let platform: Platform;
  let rest: Rest;
  let node: QemuNode;
  let vm: Vm;
  let domain: string;
  beforeAll(async () => {
    platform = await startPlatform({ split: false });
    ({ rest } = platform);
    node = await addQemuNode(platform, 'metal');
    vm = await rest.running({ name: 'drifts', image: 'micro', network: GUEST_NETWORK, vcpus: 1, vcpusMax: 4, memoryMib: 128, diskGib: 1 });
    domain = await node.domainOf(vm);
    await rest.until('the guest answers', () => node.inGuest(vm, '/bin/cat', '/proc/uptime'), BOOTED_WITHIN_MS, 250);
  });
  afterAll(async () => {
    await platform.stop();
    await node.stop();
  });

  const items = (query = ''): Promise<readonly Item[]> => rest.all<Item>(`/v1/drift${query}`);
  /** The item of a VM, once it says all of this. */
  const drifted = (what: string, of: Pick<Vm, 'id'>, withinMs: number, is: (item: Item) => boolean = () => true): Promise<Item> =>
    rest.until(what, async () => (await items(`?vm=${of.id}`)).find(is), withinMs, 200);
  const differs = (item: Item, field: string, where?: string): unknown => item.differences.filter((one) => one.field === field && (where === undefined || one.where === where)).map(({ expected, seen }) => [expected, seen])[0];
  const settled = (of: Pick<Vm, 'id'>, withinMs = BY_SWEEP_MS): Promise<unknown> => rest.until('nothing differs any more', async () => (await items(`?vm=${of.id}&ignored=true`)).length === 0, withinMs, 200);
  const acted = async (item: Item, action: 'revert' | 'adopt'): Promise<void> => { await rest.succeeded((await rest.ok<Accepted>('POST', `/v1/drift/${item.id}/${action}`)).operation.id, 90_000); };
  const events = async (): Promise<readonly Event[]> => (await rest.ok<{ items: readonly Event[] }>('GET', `/v1/vms/${vm.id}/history?limit=1000`)).items;
  const power = async (action: string): Promise<void> => { await rest.succeeded((await rest.ok<Accepted>('POST', `/v1/vms/${vm.id}/${action}`, action === 'stop' ? { timeoutSeconds: 5, force: true } : undefined)).operation.id, 90_000); };

  it('C-05 nothing differs after our own commands, whatever they do', async () => {
    expect(await items('?ignored=true')).toEqual([]);
    await rest.succeeded((await rest.ok<Accepted>('PATCH', `/v1/vms/${vm.id}/hardware`, { vcpus: 2, name: 'drifter' })).operation.id);
    await rest.succeeded((await rest.ok<Accepted>('POST', `/v1/vms/${vm.id}/pause`)).operation.id);
    await rest.succeeded((await rest.ok<Accepted>('POST', `/v1/vms/${vm.id}/resume`)).operation.id);
    await rest.succeeded((await rest.ok<Accepted>('POST', `/v1/vms/${vm.id}/volumes`, { name: 'data', sizeGib: 1 })).operation.id);
    // Long enough for two comparisons of everything.
    await new Promise((resolve) => setTimeout(resolve, 45_000));
    expect((await events()).filter(({ type }) => type.startsWith('Drift'))).toEqual([]);
    expect(await items('?ignored=true')).toEqual([]);
  });

  it('C-05 virsh setvcpus: changed, by field; adopted it is what is wanted', async () => {
    await node.virsh('setvcpus', domain, '3', '--live', '--config');
    const item = await drifted('three CPUs', vm, BY_SWEEP_MS, (one) => one.differences.some(({ where }) => where === 'running') && one.differences.some(({ where }) => where === 'defined'));
    expect(item).toMatchObject({ class: 'changed', subject: vm.id });
    expect(differs(item, 'vcpus', 'running')).toEqual([2, 3]);
    expect(differs(item, 'vcpus', 'defined')).toEqual([2, 3]);
    expect(item.explanation).toMatch(/vcpus changed; out of band on node node_\w+ at \d{4}-/);
    await acted(item, 'adopt');
    expect(await rest.vm(vm.id)).toMatchObject({ spec: { vcpus: 3 } });
    await settled(vm);
    expect((await events()).map(({ type }) => type)).toEqual(expect.arrayContaining(['DriftSeen', 'DriftActed', 'VmReconfigured', 'DriftSettled']));
  });

  it('C-05 virsh desc: changed; reverted it is gone from the domain that runs and from its definition', async () => {
    await node.virsh('desc', domain, '--live', '--config', '--new-desc', 'mine now');
    const item = await drifted('a description', vm, BY_EVENT_MS, (one) => differs(one, 'description', 'running') !== undefined);
    expect(differs(item, 'description', 'running')).toEqual(['', 'mine now']);
    await acted(item, 'revert');
    await settled(vm);
    expect(await node.virsh('desc', domain)).not.toContain('mine');
    expect(await node.virsh('desc', domain, '--config')).not.toContain('mine');
  });

  it('C-05 virsh attach-disk: changed; reverted it is detached from the guest', async () => {
    const file = `${node.imageDir}/../cv-drift-${String(process.pid)}.qcow2`;
    await run('qemu-img', ['create', '-q', '-f', 'qcow2', file, '64M']);
    await run('chmod', ['0666', file]);
    try {
      await node.virsh('attach-disk', domain, file, 'vdc', '--driver', 'qemu', '--subdriver', 'qcow2', '--live', '--config');
      const item = await drifted('a third disk', vm, BY_EVENT_MS, (one) => differs(one, 'disks.vdc', 'running') !== undefined);
      expect(item.class).toBe('changed');
      await acted(item, 'revert');
      await settled(vm);
      expect(await node.virsh('domblklist', domain)).not.toContain('vdc');
      expect(await node.virsh('domblklist', domain, '--inactive')).not.toContain('vdc');
    } finally {
      await run('rm', ['-f', file]);
    }
  });

  it('C-05 virsh detach-interface: changed; reverted the guest has it again', async () => {
    const mac = vm.mac ?? '';
    await node.virsh('detach-interface', domain, 'network', '--mac', mac, '--live', '--config');
    const item = await drifted('no interface', vm, BY_EVENT_MS, (one) => differs(one, `nics.${mac}`, 'running') !== undefined);
    expect(differs(item, `nics.${mac}`, 'defined')).toEqual(['attached', null]);
    await acted(item, 'revert');
    await settled(vm);
    expect(await node.virsh('domiflist', domain)).toContain(mac);
  });

  it('C-05 virsh snapshot: changed; reverted the guest writes its own file again, with what it wrote meanwhile', async () => {
    await node.virsh('snapshot-create-as', domain, 'by-hand', '--disk-only', '--atomic', '--diskspec', 'vdb,snapshot=no');
    const item = await drifted('a snapshot', vm, BY_SWEEP_MS, (one) => differs(one, 'snapshots') !== undefined);
    expect(differs(item, 'snapshots')).toEqual([null, 'by-hand']);
    expect(differs(item, 'disks.vda', 'running')).toBeDefined();
    await node.inGuest(vm, '/bin/sh', '-c', 'echo written-over-it | dd of=/dev/vda bs=512 seek=2000000 count=1 conv=sync,notrunc,fsync 2>/dev/null');
    await acted(item, 'revert');
    await settled(vm);
    expect(await node.virsh('snapshot-list', domain, '--name')).toBe('');
    expect(await node.virsh('domblklist', domain)).not.toContain('by-hand');
    expect(await node.inGuest(vm, '/bin/sh', '-c', 'dd if=/dev/vda bs=512 skip=2000000 count=1 2>/dev/null')).toContain('written-over-it');
  });

  it('C-05 virsh undefine of one that runs: changed, for it would be gone when it stops; reverted it stays', async () => {
    await node.virsh('undefine', domain);
    const item = await drifted('it is transient', vm, BY_EVENT_MS, (one) => differs(one, 'persistent') !== undefined);
    expect(differs(item, 'persistent')).toEqual([true, false]);
    const pid = await node.qemuPid(vm);
    await acted(item, 'revert');
    await settled(vm);
    expect(await node.virsh('dominfo', domain)).toMatch(/Persistent:\s+yes/);
    expect(await node.qemuPid(vm)).toBe(pid);
  });

  it('C-05 virsh destroy: changed, with the reason; ignored it is not shown; reverted it runs', async () => {
    await node.virsh('destroy', domain);
    const item = await drifted('it is stopped', vm, BY_EVENT_MS, (one) => differs(one, 'state') !== undefined);
    expect(differs(item, 'state')).toEqual(['running', 'stopped']);
    expect(item.explanation).toContain('destroyed');
    await rest.ok('POST', `/v1/drift/${item.id}/ignore`);
    expect(await items(`?vm=${vm.id}`)).toEqual([]);
    expect(await items(`?vm=${vm.id}&ignored=true`)).toHaveLength(1);
    await acted(item, 'revert');
    await settled(vm);
    expect(await node.virsh('domstate', domain)).toBe('running');
  });

  it('C-05 a guest that shuts itself down is no drift', async () => {
    await rest.until('the guest answers', () => node.inGuest(vm, '/bin/cat', '/proc/uptime'), BOOTED_WITHIN_MS, 250);
    await node.virsh('qemu-agent-command', domain, '{"execute":"guest-shutdown"}').catch(() => undefined);
    await rest.until('it is off', async () => (await node.virsh('domstate', domain)) === 'shut off', 60_000, 200);
    await new Promise((resolve) => setTimeout(resolve, 25_000));
    expect(await items(`?vm=${vm.id}&ignored=true`)).toEqual([]);
    await power('stop');
  });

  it('C-05 virsh domrename: changed; reverted it has its name', async () => {
    await node.virsh('domrename', domain, 'another-name');
    const item = await drifted('another name', vm, BY_EVENT_MS, (one) => differs(one, 'name') !== undefined);
    expect(differs(item, 'name')).toEqual([domain, 'another-name']);
    await acted(item, 'revert');
    await settled(vm);
    expect(await node.virsh('list', '--all', '--name')).toContain(domain);
  });

  it('C-05 virsh undefine of one that is stopped: missing; by policy it is defined again without anybody', async () => {
    await expect(rest.ok('PUT', '/v1/drift-policies/orphan-disk', { action: 'revert' })).rejects.toMatchObject({ code: 'drift.no_such_policy' });
    await node.virsh('undefine', domain);
    const item = await drifted('it is missing', vm, BY_EVENT_MS);
    expect(item).toMatchObject({ class: 'missing', near: expect.anything() as unknown });
    await expect(rest.ok('POST', `/v1/drift/${item.id}/adopt`)).rejects.toSatisfy((error: unknown) => error instanceof Refused && error.code === 'drift.cannot_adopt');
    await rest.ok('PUT', '/v1/drift-policies/missing', { action: 'revert' });
    await settled(vm);
    domain = await node.domainOf(vm);
    expect(await node.virsh('dominfo', domain)).toMatch(/Persistent:\s+yes/);
    await power('start');
    await rest.until('the guest answers', () => node.inGuest(vm, '/bin/cat', '/proc/uptime'), BOOTED_WITHIN_MS, 250);
    expect((await events()).filter(({ type }) => type === 'DriftActed').at(-1)?.data).toMatchObject({ by: 'policy', action: 'revert' });
  });

  it('C-05 an agent that is killed and comes back sees no drift', async () => {
    const before = (await events()).filter(({ type }) => type.startsWith('Drift')).length;
    await platform.kill9(node.part);
    await platform.start(node.part);
    await new Promise((resolve) => setTimeout(resolve, 25_000));
    expect((await events()).filter(({ type }) => type.startsWith('Drift'))).toHaveLength(before);
  });
});
