/*
 * C-05: somebody works on the node by hand, past Chronovirt. What was done is found, classified, explained
 * field by field, and brought back or taken over; domains that somebody else made become VMs while they run.
 * By REST, on a real libvirt and QEMU, seen through virsh.
 */
import { execFile } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { existsSync, linkSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { writeFile } from 'node:fs/promises';
import { promisify } from 'node:util';
import { idFrom } from '@chronovirt/contracts/ids';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { countingGuest, type CountingGuest } from './counting-guest.ts';
import { mediumOf } from './medium.ts';
import { startPlatform, type Platform } from './platform.ts';
import { addQemuNode, GUEST_IMAGES, GUEST_NETWORK, type QemuNode } from './qemu-node.ts';
import { Refused, type Accepted, type Event, type Rest, type Vm } from './rest.ts';

const run = promisify(execFile);
const BOOTED_WITHIN_MS = 120_000;
/** libvirt tells of it, at once; a machine may be busy with other things. */
const BY_EVENT_MS = 30_000;
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
  /** Where backups lie. */
  let vault: string;
  /** For no VM, by name. */
  const volumes: Record<string, string> = {};
  beforeAll(async () => {
    platform = await startPlatform({ split: false });
    ({ rest } = platform);
    // Short, and open to QEMU's user on its way to the files.
    vault = mkdtempSync('/var/tmp/cvd-');
    await run('chmod', ['711', vault]);
    node = await addQemuNode(platform, 'metal', { backupDirs: `vault=${vault}` });
    vm = await rest.running({ name: 'drifts', image: 'micro', network: GUEST_NETWORK, vcpus: 1, vcpusMax: 4, memoryMib: 128, diskGib: 1 });
    domain = await node.domainOf(vm);
    await rest.until('the guest answers', () => node.inGuest(vm, '/bin/cat', '/proc/uptime'), BOOTED_WITHIN_MS, 250);
  });
  afterAll(async () => {
    await platform.stop();
    await node.stop();
    rmSync(vault, { recursive: true, force: true });
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
    for (const name of ['to-go', 'to-change', 'to-change-too']) {
      const { operation, volumeId } = await rest.ok<{ operation: { id: string }; volumeId: string }>('POST', '/v1/volumes', { name, sizeGib: 1 });
      await rest.succeeded(operation.id);
      volumes[name] = volumeId;
    }
    // Long enough for one comparison of everything.
    await new Promise((resolve) => setTimeout(resolve, 25_000));
    expect((await events()).filter(({ type }) => type.startsWith('Drift'))).toEqual([]);
    expect(await items('?ignored=true')).toEqual([]);
  });

  it('C-05 a qcow2 is deleted, replaced, put beside: each is found with its class, size and time, and settled when it is as it was', async () => {
    const pathOf = (file: string): string => join(node.poolDir, file);
    const [gone, changed, changedToo, own] = [pathOf(`${volumes['to-go'] ?? ''}.qcow2`), pathOf(`${volumes['to-change'] ?? ''}.qcow2`), pathOf(`${volumes['to-change-too'] ?? ''}.qcow2`), (await node.virsh('domblklist', domain)).split(/\s+/).find((word) => word.endsWith('.qcow2')) ?? ''];
    const [stray, hostile] = [pathOf('somebody.qcow2'), pathOf('hostile.img')];
    for (const file of [gone, changed, own]) linkSync(file, `${platform.dir}/${file.slice(-20)}`);
    rmSync(gone);
    rmSync(own);
    for (const file of [changed, changedToo]) {
      await run('qemu-img', ['create', '-q', '-f', 'qcow2', pathOf('.other'), '1G']);
      renameSync(pathOf('.other'), file);
    }
    writeFileSync(stray, Buffer.alloc(3 * 2 ** 20, 'x'));
    await run('qemu-img', ['create', '-q', '-u', '-f', 'qcow2', '-F', 'raw', '-b', '/etc/shadow', hostile, '1G']);
    const found = (driftClass: string, subject: (item: Item) => boolean): Promise<Item> => rest.until(`${driftClass} is found`, async () => (await items(`?class=${driftClass}`)).find(subject), BY_SWEEP_MS, 200);
    expect(await found('disk-missing', ({ subject }) => subject === volumes['to-go'])).toMatchObject({ vmId: null, differences: [{ field: 'file', expected: gone, seen: null }], explanation: expect.stringMatching(/that no VM has, 1024 MiB large, is gone; .* at \d{4}-/) as string });
    expect(await found('disk-missing', ({ vmId }) => vmId === vm.id)).toMatchObject({ differences: [{ expected: own }], explanation: expect.stringContaining('back it up before it stops') as string });
    for (const name of ['to-change', 'to-change-too']) expect(await found('disk-replaced', ({ subject }) => subject === volumes[name])).toMatchObject({ vmId: null, differences: [{ field: 'file', expected: expect.stringMatching(/^inode \d+$/) as string }] });
    const orphan = await found('orphan-disk', ({ subject }) => subject === stray);
    expect(orphan).toMatchObject({ explanation: expect.stringContaining('a file of 3 MiB') as string });
    expect(differs(orphan, 'changedAt')).toEqual([null, expect.stringMatching(/^\d{4}-/)]);
    for (const [item, action] of [[orphan, 'adopt'], [orphan, 'revert']] as const) await expect(rest.ok('POST', `/v1/drift/${item.id}/${action}`)).rejects.toMatchObject({ code: `drift.cannot_${action}` });
    await rest.ok('PUT', '/v1/drift-policies/orphan-disk', { action: 'ignore' });
    expect(await items('?class=orphan-disk')).toEqual([]);
    expect(await items('?class=orphan-disk&ignored=true')).toHaveLength(2);
    await rest.ok('PUT', '/v1/drift-policies/orphan-disk', { action: 'alert' });
    for (const file of [gone, own]) renameSync(`${platform.dir}/${file.slice(-20)}`, file);
    // What lies there now is what it shall be: of one somebody says so, of all others a policy.
    const replaced = await found('disk-replaced', ({ subject }) => subject === volumes['to-change']);
    await expect(rest.ok('POST', `/v1/drift/${replaced.id}/revert`)).rejects.toMatchObject({ code: 'drift.cannot_revert' });
    await acted(replaced, 'adopt');
    await rest.until('only of the other it is said', async () => (await items('?class=disk-replaced&ignored=true')).map(({ subject }) => subject).join() === volumes['to-change-too'], BY_SWEEP_MS, 200);
    await rest.ok('PUT', '/v1/drift-policies/disk-replaced', { action: 'adopt' });
    await rest.until('the policy has adopted it', async () => (await items('?class=disk-replaced&ignored=true')).length === 0, BY_SWEEP_MS, 200);
    await rest.ok('PUT', '/v1/drift-policies/disk-replaced', { action: 'alert' });

    const adopted = (item: Item, name: string) => rest.ok<Accepted & { readonly volumeId: string }>('POST', '/v1/volumes', { name, from: { drift: item.id } });
    const refused = await adopted(await found('orphan-disk', ({ subject }) => subject === hostile), 'hostile');
    expect(await rest.ended(refused.operation.id, 60_000)).toMatchObject({ status: 'compensated', error: { code: 'image.has_backing_file' } });
    expect(readFileSync(hostile).includes('/etc/shadow')).toBe(true);
    rmSync(hostile);
    await rest.succeeded((await rest.ok<Accepted>('DELETE', `/v1/volumes/${refused.volumeId}`)).operation.id);
    const { operation, volumeId } = await adopted(orphan, 'was-somebodys');
    await rest.succeeded(operation.id, 60_000);
    expect([existsSync(stray), readFileSync(pathOf(`${volumeId}.raw`)).equals(Buffer.alloc(3 * 2 ** 20, 'x'))]).toEqual([false, true]);
    expect(await rest.ok('GET', `/v1/volumes/${volumeId}`)).toMatchObject({ name: 'was-somebodys', format: 'raw', sizeGib: 1, nodeId: node.nodeId, status: 'detached' });
    await rest.succeeded((await rest.ok<Accepted>('POST', `/v1/vms/${vm.id}/volumes`, { volume: volumeId })).operation.id);
    expect(await node.inGuest(vm, '/bin/sh', '-c', 'dd if=/dev/vdc bs=1 count=7 2>/dev/null')).toContain('xxxxxxx');
    await rest.succeeded((await rest.ok<Accepted>('DELETE', `/v1/vms/${vm.id}/volumes/${volumeId}?delete=true`)).operation.id);
    await rest.until('its file is gone', () => Promise.resolve(!existsSync(pathOf(`${volumeId}.raw`))), 60_000, 100);
    await rest.until('nothing differs any more', async () => (await items('?ignored=true')).length === 0, BY_SWEEP_MS, 200);
  });

  describe('and on its networks', () => {
    const found = (what: string, is: (item: Item) => boolean, withinMs = BY_SWEEP_MS): Promise<Item> => rest.until(what, async () => (await items('?class=network')).find(is), withinMs, 200);
    const broughtBack = async (item: Item): Promise<void> => {
      const pid = await node.qemuPid(vm);
      await acted(item, 'revert');
      await rest.until('nothing differs any more', async () => (await items('?class=network&ignored=true')).length === 0, BY_SWEEP_MS, 200);
      expect(await node.qemuPid(vm)).toBe(pid);
      await rest.until('the guest is reached', () => node.pings(vm.address ?? ''), 30_000, 200);
      // The guest asks for its address anew, and gets it.
      expect(await node.inGuest(vm, '/bin/sh', '-c', '/bin/udhcpc -i eth0 -n -q -t 10 -T 1 -s /etc/udhcpc 2>&1; true')).toContain(`lease of ${vm.address ?? ''} obtained`);
    };
    const fields = (item: Item): readonly string[] => [...new Set(item.differences.map(({ field }) => field))].sort();

    it('C-05 dnsmasq is killed, rules are flushed: found, said, brought back without a new bridge', async () => {
      await node.killDhcp(GUEST_NETWORK);
      await node.inNetwork('iptables', '-t', 'nat', '-F');
      await node.inNetwork('iptables', '-F', 'LIBVIRT_FWO');
      const item = await found('no DHCP and no rules', (one) => fields(one).includes('dhcp') && fields(one).includes('firewall'));
      expect(item).toMatchObject({ name: GUEST_NETWORK, vmId: null, explanation: expect.stringContaining('its DHCP server does not run') as string });
      expect(item.differences.filter(({ field }) => field === 'firewall').map(({ expected }) => expected)).toContain('nat: -A POSTROUTING -j LIBVIRT_PRT');
      const before = await node.inNetwork('ip', '-o', 'link', 'show', 'type', 'bridge');
      await broughtBack(item);
      expect(await node.inNetwork('iptables-save', '-t', 'nat')).toMatch(/-A POSTROUTING -j LIBVIRT_PRT[\s\S]*-j MASQUERADE/);
      expect((await node.inNetwork('ip', '-o', 'link', 'show', 'type', 'bridge')).split(':')[0]).toBe(before.split(':')[0]);
      await expect(rest.ok('POST', `/v1/drift/${item.id}/revert`)).rejects.toMatchObject({ code: 'drift.not_found' });
    });

    it('C-05 virsh net-destroy and net-undefine: found by event; by policy it is there again, and the guest that runs is on it', async () => {
      await node.inGuest(vm, '/bin/sh', '-c', 'ping 10.98.7.1 > /tmp/pings 2>&1 & echo');
      await node.virsh('net-destroy', GUEST_NETWORK);
      await node.virsh('net-undefine', GUEST_NETWORK);
      const item = await found('no network', (one) => fields(one).join() === 'network', BY_EVENT_MS);
      expect(item.explanation).toContain('the node has no such network any more');
      const pid = await node.qemuPid(vm);
      await rest.ok('PUT', '/v1/drift-policies/network', { action: 'revert' });
      await rest.until('nothing differs any more', async () => (await items('?class=network&ignored=true')).length === 0, BY_SWEEP_MS, 200);
      await rest.ok('PUT', '/v1/drift-policies/network', { action: 'alert' });
      expect(await node.virsh('net-info', GUEST_NETWORK)).toMatch(/Active:\s+yes\nPersistent:\s+yes\nAutostart:\s+yes/);
      await rest.until('the guest is reached', () => node.pings(vm.address ?? ''), 30_000, 200);
      expect(await node.qemuPid(vm)).toBe(pid);
      const replies = async (): Promise<number> => (await node.inGuest(vm, '/bin/sh', '-c', 'grep -c "bytes from" /tmp/pings; true')).split('\n').map(Number)[0] ?? 0;
      const before = await replies();
      await rest.until('what it had open goes on', async () => (await replies()) > before + 2, 60_000, 500);
    });

    it('C-05 virsh net-update and net-edit: changed by field, in what runs and in what the next start makes; brought back', async () => {
      await node.virsh('net-update', GUEST_NETWORK, 'delete', 'ip-dhcp-host', `<host mac='${vm.mac ?? ''}' ip='${vm.address ?? ''}'/>`, '--live', '--config');
      const edited = join(platform.dir, 'edited.xml');
      await writeFile(edited, (await node.virsh('net-dumpxml', '--inactive', GUEST_NETWORK)).replace(`<forward mode='nat'/>`, `<forward mode='route'/>`));
      await node.virsh('net-define', edited);
      const item = await found('two changes', (one) => fields(one).includes('forward') && fields(one).some((field) => field.startsWith('dhcp.')));
      expect(differs(item, 'forward', 'defined')).toEqual(['nat', 'route']);
      expect(differs(item, `dhcp.${vm.mac ?? ''}`, 'running')).toEqual([vm.address, null]);
      await broughtBack(item);
      expect(await node.virsh('net-dumpxml', '--inactive', GUEST_NETWORK)).toMatch(new RegExp(`<forward mode='nat'/>[\\s\\S]*${vm.mac ?? ''}`));
    });
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
    const isSnapshot = (one: Item): boolean => differs(one, 'snapshots') !== undefined;
    const item = await drifted('a snapshot', vm, BY_SWEEP_MS, isSnapshot);
    expect(differs(item, 'snapshots')).toEqual([null, 'by-hand']);
    expect(differs(item, 'disks.vda', 'running')).toBeDefined();
    // Until then it is not changed: what would be written down names a file that it does not use. Nothing was done, so nothing is to be taken back.
    const refused = await rest.ended((await rest.ok<Accepted>('PATCH', `/v1/vms/${vm.id}/hardware`, { boot: ['network', 'disk'] })).operation.id, 90_000);
    expect(refused).toMatchObject({ status: 'compensated', error: { code: 'disk.other_layer' }, owed: [] });
    await drifted('it is still there', vm, BY_EVENT_MS, isSnapshot);
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
    // A comparison would have found it: nothing does, until the next test finds something else.
    await power('stop');
    expect(await items(`?vm=${vm.id}&ignored=true`)).toEqual([]);
    expect((await events()).filter(({ type, data }) => type === 'DriftSeen' && String(data['says']).includes('shutdown'))).toEqual([]);
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

  describe('and domains that somebody else made', () => {
    beforeAll(async () => { await rest.ok('POST', '/v1/images', await mediumOf(node.imageDir, 'cv-spec-adopted')); });

    /** Each as somebody would make it with virt-install: another machine type, another place for its disk, a network of their own. */
    const made = async (name: string, { target = 'vda', bus = 'virtio', more = '', start = true, counting }: { target?: string; bus?: string; more?: string; start?: boolean; counting?: CountingGuest } = {}): Promise<{ readonly uuid: string; readonly id: string; readonly file: string; readonly serial: string }> => {
      const dir = join(platform.dir, 'foreign');
      mkdirSync(dir, { recursive: true, mode: 0o755 });
      const [uuid, file, serial] = [randomUUID(), join(dir, `${name}.qcow2`), join(dir, `${name}.log`)];
      await run('qemu-img', ['create', '-q', '-f', 'qcow2', '-F', 'qcow2', '-b', join(node.imageDir, node.image.file), file, '1G']);
      const xml = join(dir, `${name}.xml`);
      await writeFile(xml, `<domain type='qemu'><name>${name}</name><uuid>${uuid}</uuid><description>made by hand</description><memory unit='MiB'>${String(counting?.memoryMib ?? 160)}</memory><vcpu current='1'>2</vcpu>
        <os><type arch='x86_64' machine='pc'>hvm</type>${counting === undefined ? '' : `<kernel>${counting.kernel}</kernel><initrd>${counting.initialRoot}</initrd><cmdline>${counting.commandLine}</cmdline>`}<boot dev='hd'/></os><features><acpi/><tcg><tb-cache unit='MiB'>32</tb-cache></tcg></features><on_reboot>restart</on_reboot><devices>
        <disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='${file}'/><target dev='${target}' bus='${bus}'/></disk>
        <interface type='user'><mac address='52:54:00:${uuid.slice(0, 2)}:${uuid.slice(2, 4)}:${uuid.slice(4, 6)}'/><model type='virtio'/></interface>
        <serial type='file'><source path='${serial}'/></serial><channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>${more}</devices></domain>`);
      await node.virsh('define', xml);
      if (start) await node.virsh('start', name);
      return { uuid, id: idFrom('vm', uuid), file, serial };
    };
    const foreign = (uuid: string): Promise<Item> => rest.until(`${uuid} is found`, async () => (await items('?class=foreign')).find((item) => item.foreign?.uuid === uuid), BY_EVENT_MS, 200);
    const adopt = async (uuid: string, body: object = {}): Promise<Vm> => {
      const { operation, vmId } = await rest.ok<{ operation: { id: string }; vmId: string }>('POST', `/v1/nodes/${node.nodeId}/foreign/${uuid}/adopt`, body);
      await rest.succeeded(operation.id);
      return rest.vm(vmId);
    };
    /** Two of many that were adopted, and the files that all of them had. */
    const adopted: Vm[] = [];
    const files: string[] = [];
    const ticks = (serial: string): readonly number[] => (existsSync(serial) ? [...readFileSync(serial, 'utf8').matchAll(/tick (\d+)/g)].map((match) => Number(match[1])) : []);

    it('C-05 are found, and what cannot be kept is said', async () => {
      const passed = await made('passed-through', { start: false, more: `<hostdev mode='subsystem' type='pci' managed='yes'><source><address domain='0x0000' bus='0x06' slot='0x02' function='0x0'/></source></hostdev>` });
      const item = await foreign(passed.uuid);
      expect(item).toMatchObject({ class: 'foreign', name: 'passed-through', vmId: null, foreign: { obstacles: [expect.stringContaining('hostdev')] } });
      await expect(rest.ok('POST', `/v1/nodes/${node.nodeId}/foreign/${passed.uuid}/adopt`, {})).rejects.toMatchObject({ code: 'foreign.cannot_be_adopted' });
      await expect(rest.ok('POST', `/v1/nodes/${node.nodeId}/foreign/${randomUUID()}/adopt`, {})).rejects.toMatchObject({ status: 404, code: 'foreign.not_found' });
      await node.virsh('undefine', 'passed-through');
      await rest.until('it is gone', async () => (await items('?class=foreign')).length === 0, BY_SWEEP_MS, 200);
    });

    it('C-05 ten that run are adopted at once without a moment of standing still: the same QEMU, the guest counts on, libvirt tells of nothing', async () => {
      const names = ['alpha', 'beta', 'gamma', 'epsilon', 'zeta', 'eta', 'theta', 'iota', 'kappa', 'lambda'];
      mkdirSync(join(platform.dir, 'foreign'), { recursive: true, mode: 0o755 });
      const counting = countingGuest(GUEST_IMAGES.cache, join(platform.dir, 'foreign'));
      // The first has an agent and a disk it starts from; something more is done with it afterwards.
      const drive = `<controller type='scsi' model='virtio-scsi'/><disk type='file' device='cdrom'><driver name='qemu' type='raw'/><target dev='sda' bus='scsi'/><readonly/></disk>`;
      const domains = await Promise.all(names.map((name, index) => made(name, index === 0 ? { more: drive } : { counting })));
      await rest.until('the first answers', () => node.inGuest({ id: domains[0]?.id ?? '' }, '/bin/cat', '/proc/uptime'), BOOTED_WITHIN_MS, 250);
      await node.inGuest({ id: domains[0]?.id ?? '' }, '/bin/sh', '-c', '(i=0; while true; do i=$((i+1)); echo tick $i > /dev/ttyS0; sleep 0.1; done) > /dev/null 2>&1 < /dev/null & echo');
      await rest.until('all of them count', async () => domains.every(({ serial }) => ticks(serial).length > 0), BOOTED_WITHIN_MS, 250);
      for (const one of domains) expect((await foreign(one.uuid)).foreign?.obstacles).toEqual([]);
      const pids = await Promise.all(domains.map((one) => node.qemuPid(one)));
      const before = domains.map(({ serial }) => ticks(serial).length);
      // A guest that is paused does not know it, and counts on afterwards: libvirt knows.
      let vms: readonly Vm[] = [];
      const heard = await node.toldWhile(domain, async () => {
        vms = await Promise.all(domains.map(({ uuid }, index) => adopt(uuid, index === 0 ? { name: 'the-first' } : {})));
        await rest.until('they count on', async () => domains.every(({ serial }, index) => ticks(serial).length > (before[index] ?? 0) + 20), 60_000, 200);
      });
      const ofThem = heard.filter((line) => names.some((name) => line.includes(`'${name}'`)));
      expect(names.filter((name) => !ofThem.some((line) => line.includes(`'metadata-change' for domain '${name}'`)))).toEqual([]);
      expect(vms.map(({ name, status }) => [name, status])).toEqual(['the-first', ...names.slice(1)].map((name) => [name, 'running']));
      expect(await Promise.all(domains.map((one) => node.qemuPid(one)))).toEqual(pids);
      expect(ofThem.filter((line) => !line.includes('metadata-change'))).toEqual([]);
      // Not one number is missing, and none came twice: nothing began anew.
      for (const { serial } of domains) expect(ticks(serial)).toEqual(ticks(serial).map((_, index) => index + 1));
      expect(await node.virsh('metadata', 'alpha', 'urn:chronovirt:domain:1')).toContain(domains[0]?.id);
      await rest.until('none of them is foreign any more', async () => (await items('?class=foreign')).length === 0, BY_SWEEP_MS, 200);
      for (const { id } of vms.slice(2)) await rest.gone(id);

      const [first] = vms;
      if (first === undefined) throw new Error('no VM');
      const done = async (method: string, path: string, body?: object): Promise<void> => { await rest.succeeded((await rest.ok<Accepted>(method, `/v1/vms/${first.id}${path}`, body)).operation.id, 90_000); };
      await done('PATCH', '/hardware', { vcpus: 2 });
      expect(await node.virsh('vcpucount', 'alpha', '--live', '--active')).toBe('2');
      await done('POST', '/snapshots', { name: 'as-adopted' });
      const overlay = await node.virsh('domblklist', 'alpha');
      expect(overlay).toContain('volume_');
      const [snapshot] = (await rest.ok<{ items: readonly { id: string }[] }>('GET', `/v1/vms/${first.id}/snapshots`)).items;
      await done('DELETE', `/snapshots/${snapshot?.id ?? ''}`);
      expect(await node.virsh('domblklist', 'alpha')).toContain(domains[0]?.file);
      expect(await node.qemuPid(first)).toBe(pids[0]);
      // A medium in the drive that it came with, while it runs; one without a drive gets none while it runs.
      const read = (): Promise<string> => node.inGuest(first, '/bin/sh', '-c', 'mkdir -p /run/cd && mount -t iso9660 -o ro /dev/sr0 /run/cd && cat /run/cd/name.txt; umount /run/cd');
      await done('PATCH', '/hardware', { media: 'cv-spec-adopted' });
      expect(await rest.until('the guest reads it', read, 30_000, 500)).toBe('cv-spec-adopted\n');
      await done('PATCH', '/hardware', { media: null });
      await expect(read()).rejects.toThrow();
      const [, second] = vms;
      const refused = async (body: object): Promise<unknown> => (await rest.ended((await rest.ok<Accepted>('PATCH', `/v1/vms/${second?.id ?? ''}/hardware`, body)).operation.id, 60_000)).error;
      expect(await refused({ media: 'cv-spec-adopted' })).toMatchObject({ code: 'domain.no_drive' });
      expect(await refused({ boot: ['cdrom', 'disk'] })).toMatchObject({ code: 'domain.boots_kernel' });
      await expect(rest.ok('POST', `/v1/vms/${first.id}/rebuild`, {})).rejects.toMatchObject({ code: 'vm.no_image' });
      // What it starts from, its name and its words for cloud-init: at its next start, but for what its agent can do.
      await done('PATCH', '/hardware', { hostname: 'adopted' });
      expect(await node.inGuest(first, '/bin/hostname')).toBe('adopted\n');
      await done('PATCH', '/hardware', { boot: ['cdrom', 'disk'], cloudInit: { hostname: 'told', sshKeys: [], userData: '#cloud-config\n{}\n' } });
      expect(await rest.vm(first.id)).toMatchObject({ pending: ['boot', 'cloudInit'] });
      await done('POST', '/stop', { timeoutSeconds: 5, force: true });
      await done('PATCH', '/hardware', { memoryMib: 192 });
      await done('POST', '/start');
      await rest.until('its guest answers', () => node.inGuest(first, '/bin/cat', '/proc/uptime'), BOOTED_WITHIN_MS, 250);
      expect(await node.inGuest(first, '/bin/sh', '-c', 'mkdir -p /run/seed && mount -t iso9660 -o ro /dev/sr1 /run/seed && cat /run/seed/meta-data /run/seed/network-config; umount /run/seed')).toMatch(/"local-hostname":"told"[^]*"config":"disabled"/);
      const xml = await node.virsh('dumpxml', 'alpha');
      expect(xml.indexOf(`<boot dev='cdrom'/>`)).toBeLessThan(xml.indexOf(`<boot dev='hd'/>`));
      expect(await items(`?vm=${first.id}&ignored=true`)).toEqual([]);
      for (const kept of ['pc-i440fx', `<interface type='user'>`, 'made by hand', domains[0]?.file ?? '']) expect(xml).toContain(kept);
      expect(xml).toMatch(/<memory unit='KiB'>196608</);
      adopted.push(...vms.slice(0, 2));
      files.push(...domains.map(({ file }) => file));
    }, 300_000);

    it('C-05 A5-10 one that was adopted is backed up while it runs, and a machine that is built like it boots with what its disk held', async () => {
      const [first, second] = adopted;
      if (first === undefined || second === undefined) throw new Error('none was adopted');
      const inside = (of: Pick<Vm, 'id'>, script: string): Promise<string> => node.inGuest(of, '/bin/sh', '-c', script);
      const backup = async (word: string): Promise<{ readonly id: string; readonly kind: string }> => {
        await inside(first, `echo ${word} | dd of=/dev/vda bs=512 seek=2000000 count=1 conv=sync,notrunc,fsync 2>/dev/null`);
        const { operation, backupId } = await rest.ok<Accepted & { readonly backupId: string }>('POST', `/v1/vms/${first.id}/backups`, {});
        await rest.succeeded(operation.id, 90_000);
        return rest.ok('GET', `/v1/backups/${backupId}`);
      };
      const pid = await node.qemuPid(first);
      expect(await backup('a-first-word')).toMatchObject({ kind: 'full' });
      const last = await backup('the-last-word');
      expect(last).toMatchObject({ kind: 'incremental' });
      expect(await node.qemuPid(first)).toBe(pid);
      const { machine } = JSON.parse(readFileSync(join(vault, first.id, last.id, 'manifest.json'), 'utf8')) as { readonly machine: { readonly network: unknown; readonly layout: { readonly definition: string } } };
      expect(machine).toMatchObject({ network: null, layout: { definition: expect.stringContaining('<name>alpha</name>') as string } });
      // Its kernel lies on the node: a machine made of its disk alone would not start.
      await expect(rest.ok('POST', `/v1/vms/${second.id}/backups`, {})).rejects.toMatchObject({ code: 'backup.of_adopted' });
      await expect(rest.ok('POST', `/v1/backups/${last.id}/restore`, { name: 'like-the-first' })).rejects.toMatchObject({ code: 'backup.needs_network' });

      const { operation, vm: like } = await rest.ok<Accepted>('POST', `/v1/backups/${last.id}/restore`, { name: 'like-the-first', network: GUEST_NETWORK });
      await rest.succeeded(operation.id, 90_000);
      await rest.until('its guest answers', () => inside(like, 'cat /proc/uptime'), BOOTED_WITHIN_MS, 250);
      expect(await inside(like, 'dd if=/dev/vda bs=512 skip=2000000 count=1 2>/dev/null')).toContain('the-last-word');
      const built = await node.virsh('dumpxml', await node.domainOf(like));
      const { address, mac } = await rest.vm(like.id);
      for (const part of [`machine='pc-i440fx`, `<tb-cache unit='KiB'>32768`, `<description>made by hand`, `<mac address='${mac ?? ''}'/>`, `<source network='${GUEST_NETWORK}'`]) expect(built).toContain(part);
      for (const part of ['alpha', first.id, `<interface type='user'>`]) expect(built).not.toContain(part);
      // In the place of the interface that the other has.
      const places = async (of: string): Promise<unknown> => [...(await node.virsh('dumpxml', of)).matchAll(/<interface[^]*?<\/interface>/g)].map(([xml]) => /<address type='pci'[^>]*>/.exec(xml)?.[0]);
      expect(await places(await node.domainOf(like))).toEqual(await places('alpha'));
      await rest.until('it is reached', () => node.pings(address ?? ''), 60_000, 500);
      expect(await node.qemuPid(first)).toBe(pid);
      expect(await items(`?vm=${like.id}&ignored=true`)).toEqual([]);
      await rest.succeeded((await rest.ok<Accepted>('DELETE', `/v1/vms/${like.id}?force=true&deleteDisks=true`)).operation.id);
    });

    it('C-05 one by one, what is left of them goes with them; what they stood on stays', async () => {
      for (const { id } of adopted) await rest.gone(id);
      expect(files.filter((file) => existsSync(file))).toEqual([]);
      expect(existsSync(join(node.imageDir, node.image.file))).toBe(true);
      expect(await node.virsh('list', '--all', '--name')).not.toMatch(/alpha|beta/);
    });

    it('C-05 one that is stopped and has its disk elsewhere is adopted, drifts and is brought back like any other; lost, it is defined as it was', async () => {
      const { uuid } = await made('delta', { target: 'hda', bus: 'ide', start: false });
      await foreign(uuid);
      const adopted = await adopt(uuid);
      expect(adopted).toMatchObject({ name: 'delta', status: 'stopped', desired: 'stopped' });
      await node.virsh('setvcpus', 'delta', '2', '--config');
      const item = await drifted('two CPUs', adopted, BY_SWEEP_MS);
      expect(differs(item, 'vcpus', 'defined')).toEqual([1, 2]);
      await acted(item, 'revert');
      await settled(adopted);
      expect(await node.virsh('vcpucount', 'delta', '--config', '--current')).toBe('1');
      // It has no drive, and gets one where its machine has a place.
      await rest.done('PATCH', `/v1/vms/${adopted.id}/hardware`, { media: 'cv-spec-adopted' });
      expect(await node.virsh('domblklist', 'delta')).toMatch(/hdb\s+\S*cv-spec-adopted\.iso/);
      // What it was defined as is known: lost, it comes back as what its guest was installed on.
      const machine = (xml: string): readonly string[] => [...xml.matchAll(/<uuid>.*<\/uuid>|machine='[^']*'|<mac address='[^']*'\/>|<source file='[^']*'|bus='[^']*'|<target type='[^']*'|<name>.*<\/name>/g)].map(([part]) => part).sort();
      const before = await node.virsh('dumpxml', '--inactive', 'delta');
      await node.virsh('undefine', 'delta');
      await rest.until('it is there again', () => node.virsh('dominfo', 'delta'), BY_SWEEP_MS, 200);
      await settled(adopted);
      expect(machine(await node.virsh('dumpxml', '--inactive', 'delta'))).toEqual(machine(before));
      await rest.gone(adopted.id);
    });
  });

  describe('and another node', () => {
    let other: QemuNode;
    beforeAll(async () => {
      other = await addQemuNode(platform, 'other', { another: true });
      if ((await rest.vm(vm.id)).status !== 'running') await power('start');
      await rest.until('the guest answers', () => node.inGuest(vm, '/bin/cat', '/proc/uptime'), BOOTED_WITHIN_MS, 250);
      domain = await node.domainOf(vm);
      // As somebody who moves domains by hand has it: the same network on both.
      const network = /<source network='([^']+)'/.exec(await node.virsh('dumpxml', domain))?.[1] ?? '';
      const xml = join(platform.dir, 'network.xml');
      await writeFile(xml, await node.virsh('net-dumpxml', network));
      await other.virsh('net-define', xml);
      await other.virsh('net-start', network);
    });
    afterAll(() => other.stop());

    const migrated = async (from: QemuNode, to: QemuNode): Promise<void> => {
      const meeting = join(platform.dir, 'meeting');
      mkdirSync(meeting, { recursive: true });
      await run('chmod', ['0777', meeting]);
      await from.virsh('migrate', '--live', '--persistent', '--undefinesource', '--unsafe', '--migrateuri', `unix://${join(meeting, `to-${to.part}.sock`)}`, domain, `qemu+unix:///system?socket=${to.libvirtSocket}`);
    };
    const onNode = (of: QemuNode, is: (item: Item) => boolean): Promise<Item> => rest.until(`something on ${of.part}`, async () => (await items(`?node=${of.nodeId}&ignored=true`)).find(is), BY_SWEEP_MS, 200);
    const nothingOpen = (): Promise<unknown> => rest.until('nothing differs on either', async () => (await items('?ignored=true')).length === 0, BY_SWEEP_MS, 200);

    it('C-05 virsh migrate to another node: moved, from where and to where; not brought back by the policy for what is missing, settled when it is moved back', async () => {
      await nothingOpen();
      await rest.ok('PUT', '/v1/drift-policies/missing', { action: 'revert' });
      const before = (await events()).length;
      const uptime = Number((await node.inGuest(vm, '/bin/cat', '/proc/uptime')).split(' ')[0]);
      await migrated(node, other);
      const [gone, came] = await Promise.all([onNode(node, ({ class: klass }) => klass === 'moved'), onNode(other, ({ class: klass }) => klass === 'moved')]);
      for (const item of [gone, came]) expect(item).toMatchObject({ vmId: vm.id, differences: [{ field: 'nodeId', expected: node.nodeId, seen: other.nodeId }, ...item.differences.slice(1)] });
      expect(gone.explanation).toContain('its domain is on another node');
      // What may be done about it is to show it or not.
      for (const item of [gone, came]) await expect(rest.ok('POST', `/v1/drift/${item.id}/revert`)).rejects.toMatchObject({ code: 'drift.cannot_revert' });
      await expect(rest.ok('PUT', '/v1/drift-policies/moved', { action: 'revert' })).rejects.toMatchObject({ code: 'drift.no_such_policy' });
      await rest.ok('PUT', '/v1/drift-policies/moved', { action: 'ignore' });
      await rest.until('nobody is shown it', async () => (await items(`?vm=${vm.id}`)).length === 0, 30_000, 200);
      expect(await items(`?vm=${vm.id}&ignored=true`)).toHaveLength(2);
      await rest.ok('PUT', '/v1/drift-policies/moved', { action: 'alert' });
      await migrated(other, node);
      await nothingOpen();
      await rest.status(vm.id, 'running');
      // It never stood still, and nobody started another one.
      expect(Number((await node.inGuest(vm, '/bin/cat', '/proc/uptime')).split(' ')[0])).toBeGreaterThan(uptime);
      expect((await events()).slice(before).map(({ type }) => type)).not.toContain('DriftActed');
    });

    it('C-05 the same UUID on two nodes: a duplicate, said loudly when both run, and nobody stops one', async () => {
      const pid = await node.qemuPid(vm);
      const [uuid, metadata] = [await node.virsh('domuuid', domain), /<metadata>[^]*<\/metadata>/.exec(await node.virsh('dumpxml', domain))?.[0] ?? ''];
      const file = join(platform.dir, 'twin.qcow2');
      await run('qemu-img', ['create', '-q', '-f', 'qcow2', file, '64M']);
      const xml = join(platform.dir, 'twin.xml');
      await writeFile(xml, `<domain type='qemu'><name>${domain}</name><uuid>${uuid}</uuid>${metadata}<memory unit='MiB'>64</memory><vcpu>1</vcpu><os><type arch='x86_64' machine='pc'>hvm</type></os>
        <devices><disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='${file}'/><target dev='vda' bus='virtio'/></disk></devices></domain>`);
      await other.virsh('define', xml);
      const twin = await onNode(other, ({ class: klass }) => klass === 'duplicate');
      expect(twin).toMatchObject({ vmId: vm.id, explanation: expect.stringContaining('never start both') as string, differences: [{ field: 'nodeId', expected: node.nodeId, seen: other.nodeId }] });
      await other.virsh('start', domain);
      const both = await onNode(other, ({ class: klass, explanation }) => klass === 'duplicate' && explanation.includes('IT RUNS ON BOTH NODES'));
      await expect(rest.ok('PUT', '/v1/drift-policies/duplicate', { action: 'revert' })).rejects.toMatchObject({ code: 'drift.no_such_policy' });
      await expect(rest.ok('POST', `/v1/drift/${both.id}/revert`)).rejects.toMatchObject({ code: 'drift.cannot_revert' });
      expect(await other.virsh('domstate', domain)).toBe('running');
      expect(await node.qemuPid(vm)).toBe(pid);
      await other.virsh('destroy', domain);
      await other.virsh('undefine', domain);
      await nothingOpen();
      await rest.gone(vm.id);
    });
  });
});
