/* A machine from its medium to its end: by REST, on a real libvirt and QEMU, seen through virsh and from inside the guest. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { installerMedium } from './installer.ts';
import { startPlatform, type Platform } from './platform.ts';
import { addQemuNode, GUEST_NETWORK, type QemuNode } from './qemu-node.ts';
import type { Accepted, Operation, Rest, Vm } from './rest.ts';
import { connectConsole, offered } from './websocket.ts';

const BOOTED_WITHIN_MS = 90_000;

describe('the life of a machine', () => {
  let platform: Platform;
  let rest: Rest;
  let node: QemuNode;
  let vm: Vm;
  beforeAll(async () => {
    platform = await startPlatform({ split: false });
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

  it('nothing of it is left when it is gone', async () => {
    await rest.gone(vm.id);
    expect(await node.domains()).toEqual([]);
    expect(await node.disks()).toEqual([]);
  });
});
