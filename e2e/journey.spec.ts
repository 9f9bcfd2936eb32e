/* A life of virtual machines on a real libvirt and QEMU, by REST, seen through virsh and from inside the guest. */
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { atRest } from './invariants.ts';
import { pause, startPlatform, type Platform } from './platform.ts';
import { addQemuNode, GUEST_NETWORK, type QemuNode } from './qemu-node.ts';
import { Refused, type Accepted, type Event, type Operation, type Rest, type Vm } from './rest.ts';

const run = promisify(execFile);
const BOOTED_WITHIN_MS = 90_000;
/** What the issue promises of changes made behind our back. */
const SEEN_WITHIN_MS = 5_000;

const guest = (name: string, more: object = {}): Readonly<Record<string, unknown>> => ({ name, image: 'micro', network: GUEST_NETWORK, vcpus: 1, memoryMib: 128, diskGib: 1, ...more });

describe('a virtual machine on a real hypervisor', () => {
  let platform: Platform;
  let rest: Rest;
  let node: QemuNode;
  let vm: Vm;
  beforeAll(async () => {
    platform = await startPlatform({ split: false });
    ({ rest } = platform);
    node = await addQemuNode(platform, 'metal');
  });
  afterAll(async () => {
    await platform.stop();
    await node.stop();
  });

  const acted = async (action: string, body?: object): Promise<Operation> => rest.done('POST', `/v1/vms/${vm.id}/${action}`, body, 90_000);
  const seconds = async (): Promise<number> => Number((await node.inGuest(vm, '/bin/cat', '/proc/uptime')).split(' ')[0]);
  const guestAnswers = (): Promise<number> => rest.until('the guest answers', () => seconds(), BOOTED_WITHIN_MS, 250);
  const booted = (times: number): Promise<unknown> => rest.until(`the guest has booted ${String(times)} times`, async () => node.boots(vm) === times, BOOTED_WITHIN_MS, 100);
  const history = async (): Promise<readonly Event[]> => (await rest.ok<{ items: readonly Event[] }>('GET', `/v1/vms/${vm.id}/history?limit=1000`)).items;

  it('A1-01 is created by one request, is one domain that carries our ids, and its console prints a login prompt', async () => {
    const { operation, vm: asked } = await rest.create(guest('web-1', { description: 'the first' }), 'web-1');
    expect(asked.status).toBe('requested');
    await rest.succeeded(operation.id);
    vm = await rest.vm(asked.id);
    expect(vm).toMatchObject({ status: 'running', desired: 'running', observed: { state: 'running', nodeId: node.nodeId, generation: 1 }, nodeId: node.nodeId });
    expect(await node.domains()).toEqual([{ vmId: vm.id, running: true }]);
    const xml = await node.virsh('dumpxml', await node.domainOf(vm));
    expect(xml).toMatch(new RegExp(`<cv:vm xmlns:cv="urn:chronovirt:domain:1" id="${vm.id}" generation="1" node="${node.nodeId}" name="web-1"`));
    await rest.until('a login prompt', async () => node.console(vm).includes('login:'), BOOTED_WITHIN_MS, 100);
  });

  it('A6-14 the guest has the address that ipam leased, and answers ping', async () => {
    await rest.until('the guest says its address', async () => node.console(vm).includes(vm.address ?? 'none'), BOOTED_WITHIN_MS, 100);
    expect(vm.mac).toMatch(/^52:54:0a:62:07:/);
    expect((await node.virsh('domiflist', await node.domainOf(vm))).toLowerCase()).toContain(vm.mac);
    await rest.until('it answers ping', () => node.pings(vm.address ?? ''), 20_000);
  });

  it('boots from a disk of its own, over the image that nobody writes', async () => {
    await booted(1);
    expect(node.console(vm)).toMatch(/disk vda 1024 MiB boots 1/);
    const [volume] = await node.disks();
    const { stdout } = await run('qemu-img', ['info', '-U', '--output=json', join(node.poolDir, `${String(volume)}.qcow2`)]);
    expect(JSON.parse(stdout)).toMatchObject({ format: 'qcow2', 'virtual-size': 2 ** 30, 'full-backing-filename': join(node.imageDir, node.image.file) });
  });

  it('A1-05 its devices are virtio, with balloon and entropy', async () => {
    const xml = await node.virsh('dumpxml', await node.domainOf(vm));
    expect(xml).toMatch(/<target dev='vda' bus='virtio'\/>/);
    expect(xml).toMatch(/<interface type='network'>[\s\S]*<model type='virtio'\/>/);
    expect(xml).toMatch(/<memballoon model='virtio'>/);
    expect(xml).toMatch(/<rng model='virtio'>/);
    expect(await node.inGuest(vm, '/bin/ls', '/sys/bus/virtio/drivers')).toMatch(/virtio_balloon[\s\S]*virtio_blk[\s\S]*virtio_net/);
  });

  it('A2-04 its screen is a unix socket: no TCP port of the node is its', async () => {
    const xml = await node.virsh('dumpxml', await node.domainOf(vm));
    expect(xml).toMatch(/<graphics type='vnc' socket='[^']+\.sock'>/);
    // The network's own DNS is all that listens.
    expect(node.tcpPorts().filter((port) => port !== 53)).toEqual([]);
  });

  it('A1-02 the node says whether it has KVM and why, and a VM that requires it is refused with what to do', async () => {
    const { description } = await rest.ok<{ description: { accel: string; accelBecause: string } }>('GET', `/v1/nodes/${node.nodeId}`);
    expect(description.accelBecause).toMatch(/\w+ \w+/);
    const asked = rest.create(guest('needs-kvm', { accel: 'require-kvm' }));
    if (description.accel === 'kvm') {
      const { vm: accelerated } = await asked;
      await rest.gone(accelerated.id);
      return;
    }
    await expect(asked).rejects.toSatisfy((error: unknown) => error instanceof Refused && /enable VT-x\/AMD-V in BIOS \(node metal\)/.test(JSON.stringify(error.problem)));
  });

  it('A6-02 NAT: the guest reaches what lies outside, and is not reached from there', async () => {
    const outside = await node.connectOutside();
    await rest.until('the guest answers', () => seconds(), BOOTED_WITHIN_MS, 250);
    expect(await node.inGuest(vm, '/bin/ping', '-c', '1', '-W', '5', '198.51.100.2')).toMatch(/1 packets received/);
    expect(await outside.pings('198.51.100.1')).toBe(true);
    expect(await outside.pings(vm.address ?? '')).toBe(false);
  });

  it('A1-13 paused, the time in the guest stands still; resumed, it goes on', async () => {
    const before = await guestAnswers();
    const pausedAt = performance.now();
    await acted('pause');
    expect(await rest.vm(vm.id)).toMatchObject({ status: 'paused', desired: 'paused', observed: { state: 'paused' } });
    expect(await node.virsh('domstate', await node.domainOf(vm))).toBe('paused');
    await pause(4_000);
    await acted('resume');
    const elapsed = (performance.now() - pausedAt) / 1_000;
    const after = await guestAnswers();
    expect(after).toBeGreaterThan(before);
    expect(after - before).toBeLessThan(elapsed - 2);
    expect((await rest.vm(vm.id)).status).toBe('running');
  });

  it('A1-12 a reboot and a reset begin the guest anew in the same QEMU, and both are recorded', async () => {
    const pid = await node.qemuPid(vm);
    const before = await guestAnswers();
    await acted('reboot');
    await booted(2);
    expect(await guestAnswers()).toBeLessThan(before + 60);
    await acted('reset');
    await booted(3);
    await guestAnswers();
    expect(await node.qemuPid(vm)).toBe(pid);
    expect((await history()).filter(({ type }) => type === 'VmPowerRequested').map(({ data }) => data['action'])).toEqual(['pause', 'resume', 'reboot', 'reset']);
  });

  it('A1-11 a stop asks the guest first; one that does not hear is refused, and cut off with force', async () => {
    await acted('stop', { timeoutSeconds: 60 });
    expect(await rest.vm(vm.id)).toMatchObject({ status: 'stopped', desired: 'stopped', observed: { state: 'stopped', reason: 'shutdown' } });
    await acted('start');
    await booted(4);

    // A paused guest hears no power button.
    await acted('pause');
    const { operation } = await rest.ok<Accepted>('POST', `/v1/vms/${vm.id}/stop`, { timeoutSeconds: 1 });
    const ended = await rest.ended(operation.id, 30_000);
    expect(ended.error?.code).toBe('domain.still_running');
    expect((await rest.vm(vm.id)).status).toBe('paused');
    await acted('stop', { timeoutSeconds: 1, force: true });
    expect(await rest.vm(vm.id)).toMatchObject({ status: 'stopped', observed: { state: 'stopped', reason: 'destroyed' } });
  });

  it('A1-10 a stopped VM boots again, from the same disk and with the same address', async () => {
    const { address, mac } = await rest.vm(vm.id);
    await acted('start');
    await booted(5);
    expect(await rest.vm(vm.id)).toMatchObject({ status: 'running', address, mac });
    await rest.until('it answers ping', () => node.pings(address ?? ''), 30_000);
  });

  it('A1-32 it outlives the whole control plane: no restart, no second domain, the state is right again', async () => {
    const pid = await node.qemuPid(vm);
    const boots = node.boots(vm);
    for (const part of ['control-plane', node.part, 'nats', 'postgres']) await platform.kill9(part);
    for (let second = 0; second < 8; second++) {
      expect(await node.pings(vm.address ?? '')).toBe(true);
      await pause(1_000);
    }
    for (const part of ['postgres', 'nats', 'control-plane', node.part]) await platform.start(part);
    await rest.until('it is known to run', async () => {
      const now = await rest.vm(vm.id);
      const [shown] = await rest.all<{ status: string }>('/v1/nodes');
      return now.status === 'running' && shown?.status === 'ready';
    }, 30_000);
    expect(await node.qemuPid(vm)).toBe(pid);
    expect(node.boots(vm)).toBe(boots);
    expect(await node.domains()).toEqual([{ vmId: vm.id, running: true }]);
  });

  it('A1-31 virsh destroy, start and undefine show within 5 s, as observed, beside what is wanted', async () => {
    const domain = await node.domainOf(vm);
    const seen = async (state: string, status: string): Promise<void> => {
      await rest.until(`${state} is observed`, async () => (await rest.vm(vm.id)).observed?.state === state, SEEN_WITHIN_MS);
      expect(await rest.vm(vm.id)).toMatchObject({ status, desired: 'running' });
    };
    await node.virsh('destroy', domain);
    await seen('stopped', 'stopped');
    await node.virsh('start', domain);
    await seen('running', 'running');
    await node.virsh('destroy', domain);
    await node.virsh('undefine', domain);
    await seen('absent', 'stopped');
    const reports = (await history()).filter(({ type, actor }) => type === 'VmObserved' && actor === node.nodeId);
    expect(reports.length).toBeGreaterThanOrEqual(3);
    for (const { nodeAt, recordedAt } of reports) expect(Math.abs(Date.parse(nodeAt ?? '') - Date.parse(recordedAt))).toBeLessThan(30_000);
  });

  it('A1-15 deleted, everything comes back: domain, disk, address, console; its history stays', async () => {
    await rest.gone(vm.id);
    expect((await rest.call('GET', `/v1/vms/${vm.id}`)).status).toBe(404);
    expect(await node.virsh('list', '--all', '--name')).toBe('');
    expect(await node.disks()).toEqual([]);
    expect(existsSync(join(platform.dir, node.part, 'console', `${vm.id}.log`))).toBe(false);
    expect((await history()).at(-1)?.type).toMatch(/VmDeleted|SagaEnded|Unclaimed|CapacityReleased|SpaceReleased|VolumeDeleted|AddressReleased/);
    const { ledger } = await atRest(platform, [node], 20_000);
    expect([ledger.addresses.size, ledger.space.size, ledger.volumes.size, ledger.capacity.size, ledger.names.size]).toEqual([0, 0, 0, 0, 0]);
  });

  it('A1-08 count: 10 makes ten', async () => {
    const { operation, vms } = await rest.ok<{ operation: Operation; vms: readonly Vm[] }>('POST', '/v1/vms', guest('ten', { count: 10 }));
    expect(vms).toHaveLength(10);
    await Promise.all((operation.members ?? []).map(({ operationId }) => rest.succeeded(operationId, 120_000)));
    const domains = await node.domains();
    expect(domains.filter(({ running }) => running)).toHaveLength(10);
    expect(new Set(domains.map(({ vmId }) => vmId))).toEqual(new Set(vms.map(({ id }) => id)));
    await Promise.all(vms.map(({ id }) => rest.gone(id, 120_000)));
    await atRest(platform, [node], 30_000);
  });
});
