/*
 * The agent's verbs on a real libvirtd and a real QEMU: a guest boots from its own disk, gets its address,
 * is seen whatever happens to it, and leaves nothing behind. One guest serves all tests about running
 * ones, in the order of a life; what needs no guest stands apart.
 */
import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { chmod, mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { AgentCommand } from '@chronovirt/contracts/agent/agent.commands';
import { macOf } from '../network/network-xml.ts';
import { idFrom, uuidOf } from '@chronovirt/contracts/ids';
import type { NodeId, VmId, VolumeId } from '@chronovirt/contracts/ids';
import type { NetworkPlan } from '@chronovirt/contracts/network/network.events';
import { connect } from '@chronovirt/libvirt/connection';
import type { Libvirt } from '@chronovirt/libvirt/connection';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { guestImage } from '../../../../tools/guest-image.ts';
import { LIBVIRT_SOCKET, startLibvirt, stopLibvirt } from '../../../../tools/libvirt.ts';
import { freeSubnet, takenSubnets } from '../../../../tools/network.ts';
import { findAccel, guestRuns } from '../accel.os.ts';
import { execute } from '../domain/execute.ts';
import { domainXml } from '../domain/domain-xml.ts';
import { smallPlan } from '../domain/testing-plan.ts';
import type { SeenDomain } from '../hypervisor.ts';
import { connectLibvirt } from './libvirt-hypervisor.os.ts';
import type { LibvirtHypervisor } from './libvirt-hypervisor.os.ts';
import { poolIdOf } from '../host.os.ts';
import { openPoolFolders } from '../pool/pool-folders.os.ts';
import { machineHost } from './machine.os.ts';

const run = promisify(execFile);
const randomHex = (): string => randomBytes(16).toString('hex');
const quiet = { info: () => undefined, warn: () => undefined };
const nodeId: NodeId = `node_${randomHex()}`;
const never = new AbortController().signal;

let dir: string;
let hypervisor: LibvirtHypervisor;
let behind: Libvirt;
let network: NetworkPlan;
let imageFile: string;
const made: { vmId: VmId; volumeId: VolumeId }[] = [];

interface Vm {
  readonly vmId: VmId;
  readonly volumeId: VolumeId;
  readonly address: string;
  readonly mac: string;
  readonly uuid: string;
  readonly name: string;
  do(type: AgentCommand['type'], more?: object, signal?: AbortSignal): ReturnType<typeof execute>;
  seen(): Promise<SeenDomain>;
  console(): Promise<string>;
  /** Of its QEMU. */
  pid(): Promise<number>;
}

function vmOf(host: number, more: object = {}): Vm {
  const vmId: VmId = `vm_${randomHex()}`;
  const volumeId: VolumeId = `volume_${randomHex()}`;
  made.push({ vmId, volumeId });
  const address = network.gateway.replace(/\d+$/, String(host));
  const mac = macOf(address);
  const data = {
    nodeId, vmId, generation: 1, volumeId, imageFile, imageFormat: 'qcow2', sizeGib: 1, ...smallPlan({ volumeId, network, mac, address }), timeoutSeconds: 30, force: false, ...more,
  };
  const name = `cv-spec-${vmId.slice(-8)}`;
  return {
    vmId, volumeId, address, mac, uuid: uuidOf(vmId), name,
    do: (type, changes = {}, signal = never) => execute({ type, data: { ...data, ...changes } } as AgentCommand, hypervisor, signal),
    seen: () => hypervisor.domain(vmId),
    console: () => readFile(join(dir, 'console', `${vmId}.log`), 'utf8').catch(() => ''),
    pid: async () => Number(await readFile(`/run/libvirt/qemu/${name}.pid`, 'utf8')),
  };
}

/** Waits until the guest counts its nth boot and has come up in it: who acts on it before it is up would see it fall short by one. */
async function isUp(vm: Vm, nth: number): Promise<void> {
  await expect.poll(() => vm.console(), { timeout: 60_000, interval: 100 }).toMatch(new RegExp(`boots ${nth}\\b[^]*cv-guest up`));
}

beforeAll(async () => {
  await startLibvirt({ logFile: '/var/tmp/cv-agent-spec-libvirtd.log' });
  // Where QEMU's user can go: everything above is open to others.
  dir = await mkdtemp('/var/tmp/cv-agent-');
  await chmod(dir, 0o755);
  const image = await guestImage({ images: '/var/tmp/cv-agent-spec-images', cache: '/var/tmp/cv-agent-spec-cache' });
  imageFile = image.file;
  const cidr = freeSubnet(takenSubnets());
  const tag = randomBytes(3).toString('hex');
  network = {
    networkId: `network_${randomHex()}`, subnetId: `subnet_${randomHex()}`, name: `cvspec-${tag}`, kind: 'nat',
    cidr, gateway: cidr.replace(/0\/24$/, '1'), prefix: 24, bridge: `cvs-${tag}`,
  };
  const accel = await findAccel({ remember: join(dir, 'accel.json') });
  hypervisor = await connectLibvirt({
    nodeId, agentVersion: '0.0.0-spec', log: quiet,
    host: machineHost({ nodeId, driver: 'qemu', socket: LIBVIRT_SOCKET, imageDir: '/var/tmp/cv-agent-spec-images', poolDir: join(dir, 'pool'), pools: await openPoolFolders({ own: { poolId: poolIdOf(nodeId, 'local'), path: join(dir, 'pool') }, roots: [], file: join(dir, 'pools.json') }), runDir: join(dir, 'run'), stateDir: dir, backupDirs: {}, consoleDir: join(dir, 'console'), accel, log: quiet }),
  });
  behind = await connect({ socket: LIBVIRT_SOCKET, driver: 'qemu:///system' });
}, 300_000);

afterAll(async () => {
  for (const { vmId } of made) await hypervisor?.remove(vmId);
  await hypervisor?.close();
  if (behind !== undefined && network !== undefined) {
    const left = { uuid: uuidOf(network.networkId) };
    await behind.networkDestroy({ network: left }).catch(() => undefined);
    await behind.networkUndefine({ network: left }).catch(() => undefined);
    await behind.close();
  }
  if (dir !== undefined) await rm(dir, { recursive: true, force: true });
  await stopLibvirt();
}, 60_000);

describe('A guest', () => {
  let vm: Vm;
  const changes: string[] = [];

  it('is made, gets the address that was leased to it, and boots from a disk of its own', async () => {
    vm = vmOf(10);
    hypervisor.watch({ changed: (vmId) => changes.push(vmId), missed: () => changes.push('missed') });
    // Twice each: whoever asks again finds it so.
    for (const type of ['EnsureDisk', 'EnsureDisk', 'DefineDomain', 'DefineDomain', 'StartDomain', 'StartDomain'] as const) expect(await vm.do(type)).toBeUndefined();
    expect(await vm.seen()).toMatchObject({ state: 'running', reason: 'booted', generation: 1 });
    await expect.poll(() => vm.console(), { timeout: 60_000, interval: 250 }).toMatch(/cv-guest up/);
    await expect.poll(() => vm.console(), { timeout: 20_000, interval: 250 }).toContain(vm.address);
    expect(await vm.console()).toMatch(/disk vda 1024 MiB boots 1/);
    await run('ping', ['-c', '1', '-W', '5', vm.address]).catch(async (fault: NodeJS.ErrnoException) => {
      // A machine without ping shows its neighbour's address instead.
      if (fault.code !== 'ENOENT') throw fault;
      expect(await readFile('/proc/net/arp', 'utf8')).toContain(vm.mac);
    });
    expect(changes).toContain(vm.vmId);
  }, 120_000);

  it('is one of ours, with our ids in its metadata, and strangers are not', async () => {
    const stranger = await behind.domainDefineXmlFlags({ xml: `<domain type='qemu'><name>cvspec-stranger-${randomHex()}</name><memory unit='MiB'>64</memory><os><type>hvm</type></os></domain>` });
    try {
      const ours = await hypervisor.domains();
      expect(ours).toContainEqual({ vmId: vm.vmId, generation: 1, state: 'running', reason: 'booted' });
      expect(ours.map((one) => one.vmId)).not.toContain(idFrom('vm', stranger.uuid));
    } finally {
      await behind.domainUndefineFlags({ domain: stranger });
    }
  });

  it('has a screen on a unix socket and listens on no port', async () => {
    const pid = await vm.pid();
    expect(existsSync(join(dir, 'run', 'vnc', `${vm.vmId.slice(3)}.sock`))).toBe(true);
    const sockets = new Set((await Promise.all((await readdir(`/proc/${pid}/fd`)).map((fd) => run('readlink', [`/proc/${pid}/fd/${fd}`]).then(({ stdout }) => /^socket:\[(\d+)\]/.exec(stdout)?.[1], () => undefined)))).filter((inode) => inode !== undefined));
    const tcp = (await Promise.all(['tcp', 'tcp6'].map((file) => readFile(`/proc/net/${file}`, 'utf8')))).flatMap((table) => table.split('\n').slice(1).map((line) => line.trim().split(/\s+/)[9]));
    expect(tcp.filter((inode) => inode !== undefined && sockets.has(inode))).toEqual([]);
  });

  it('pauses and goes on', async () => {
    expect(await vm.do('SuspendDomain')).toBeUndefined();
    expect(await vm.seen()).toMatchObject({ state: 'paused', reason: 'user' });
    expect(await vm.do('SuspendDomain')).toBeUndefined();
    expect(await vm.do('RebootDomain')).toMatchObject({ refused: 'domain.not_running' });
    expect(await vm.do('ShutdownDomain', { timeoutSeconds: 1 })).toMatchObject({ refused: 'domain.still_running' });
    expect(await vm.do('ResumeDomain')).toBeUndefined();
    expect(await vm.seen()).toMatchObject({ state: 'running', reason: 'unpaused' });
  });

  it('restarts itself within the same QEMU when it is asked to', async () => {
    const pid = await vm.pid();
    expect(await vm.do('RebootDomain')).toBeUndefined();
    await isUp(vm, 2);
    expect(await vm.pid()).toBe(pid);
    expect(await vm.seen()).toMatchObject({ state: 'running' });
  }, 120_000);

  it('starts anew at the reset button, within the same QEMU', async () => {
    const pid = await vm.pid();
    expect(await vm.do('ResetDomain')).toBeUndefined();
    await isUp(vm, 3);
    expect(await vm.pid()).toBe(pid);
  }, 120_000);

  it('shuts down when its power button is pressed', async () => {
    expect(await vm.do('ShutdownDomain')).toBeUndefined();
    expect(await vm.seen()).toMatchObject({ state: 'stopped', reason: 'shutdown' });
    expect(await vm.do('ShutdownDomain')).toBeUndefined();
    expect(await vm.do('SuspendDomain')).toMatchObject({ refused: 'domain.not_running' });
  }, 120_000);

  it('is seen to die, to be started and to be undefined by somebody else, within 5 seconds', async () => {
    const domain = { uuid: vm.uuid };
    const noticed = async (): Promise<void> => { await expect.poll(() => changes, { timeout: 5_000 }).toContain(vm.vmId); };
    changes.length = 0;
    await behind.domainCreateWithFlags({ domain });
    await noticed();
    expect((await vm.seen()).state).toBe('running');
    changes.length = 0;
    process.kill(await vm.pid(), 'SIGKILL');
    await noticed();
    await expect.poll(async () => vm.seen(), { timeout: 5_000 }).toMatchObject({ state: 'crashed', reason: 'crashed' });
    await behind.domainCreateWithFlags({ domain });
    changes.length = 0;
    await behind.domainDestroyFlags({ domain });
    await noticed();
    expect(await vm.seen()).toMatchObject({ state: 'stopped', reason: 'destroyed' });
    changes.length = 0;
    await behind.domainUndefineFlags({ domain });
    await noticed();
    expect(await vm.seen()).toEqual({ vmId: vm.vmId, generation: 0, state: 'absent', reason: 'absent' });
    expect(await vm.do('StartDomain')).toMatchObject({ refused: 'domain.gone' });
  }, 60_000);

  it('leaves nothing behind when it is removed, running or not, once or twice', async () => {
    expect(await vm.do('DefineDomain')).toBeUndefined();
    expect(await vm.do('StartDomain')).toBeUndefined();
    expect(await vm.do('RemoveDisk')).toMatchObject({ refused: 'disk.in_use' });
    for (let time = 0; time < 2; time++) {
      expect(await vm.do('DestroyDomain')).toBeUndefined();
      expect(await vm.do('RemoveDomain')).toBeUndefined();
      expect(await vm.do('RemoveDisk')).toBeUndefined();
    }
    expect((await vm.seen()).state).toBe('absent');
    expect(await readdir(join(dir, 'pool'))).toEqual([]);
    expect((await readdir(join(dir, 'console'))).filter((name) => name.startsWith(vm.vmId))).toEqual([]);
  }, 60_000);
});

describe('A guest that hears nothing', () => {
  let vm: Vm;
  beforeAll(async () => {
    // An empty disk: it stays in the firmware, which does not know the power button. The devices are those of
    // old systems, to see them start.
    await run('qemu-img', ['create', '-q', '-f', 'raw', '/var/tmp/cv-agent-spec-images/empty.raw', '1M']);
    vm = vmOf(20, { imageFile: 'empty.raw', imageFormat: 'raw', devices: 'legacy' });
    for (const type of ['EnsureDisk', 'DefineDomain', 'StartDomain'] as const) expect(await vm.do(type)).toBeUndefined();
  });

  it('still runs when the time is over', async () => {
    expect(await vm.do('ShutdownDomain', { timeoutSeconds: 1 })).toMatchObject({ refused: 'domain.still_running' });
    expect((await vm.seen()).state).toBe('running');
  });

  it('is no longer waited for when the command is taken back', async () => {
    const canceller = new AbortController();
    const waiting = vm.do('ShutdownDomain', { timeoutSeconds: 300 }, canceller.signal);
    setTimeout(() => { canceller.abort(); }, 300);
    expect(await waiting).toEqual({ refused: 'command.cancelled' });
  });

  it('is cut off with force', async () => {
    expect(await vm.do('ShutdownDomain', { timeoutSeconds: 1, force: true })).toBeUndefined();
    expect(await vm.seen()).toMatchObject({ state: 'stopped', reason: 'destroyed' });
  });

  it('starts when its network was taken down, which is raised again; without a network at all it says so', async () => {
    const there = { uuid: uuidOf(network.networkId) };
    await behind.networkDestroy({ network: there });
    expect(await vm.do('StartDomain')).toBeUndefined();
    expect(await behind.networkIsActive({ network: there })).toBe(true);
    expect((await vm.seen()).state).toBe('running');
    expect(await vm.do('DestroyDomain')).toBeUndefined();
    await behind.networkDestroy({ network: there });
    await behind.networkUndefine({ network: there });
    expect(await vm.do('StartDomain')).toMatchObject({ refused: 'network.missing_on_node' });
    expect(await vm.do('DefineDomain')).toBeUndefined();
    expect(await vm.do('StartDomain')).toBeUndefined();
    expect(await vm.do('DestroyDomain')).toBeUndefined();
  });

  it('is not started without its disk, and says so', async () => {
    await rm(join(dir, 'pool', `${vm.volumeId}.qcow2`));
    expect(await vm.do('StartDomain')).toMatchObject({ refused: 'disk.missing_on_node' });
  });
});

describe('The node', () => {
  it('refuses images that are missing, hide elsewhere, refer to other files, or are larger than the disk', async () => {
    const images = '/var/tmp/cv-agent-spec-images';
    await run('qemu-img', ['create', '-q', '-f', 'qcow2', '-F', 'raw', '-b', '/etc/hostname', join(images, 'leak.qcow2')]).catch(() => undefined);
    await run('qemu-img', ['create', '-q', '-f', 'qcow2', join(images, 'large.qcow2'), '3G']);
    await run('ln', ['-sf', '/etc/hostname', join(images, 'link.raw')]);
    expect(await vmOf(30, { imageFile: 'nowhere.qcow2' }).do('EnsureDisk')).toMatchObject({ refused: 'image.missing_on_node' });
    expect(await vmOf(30, { imageFile: 'link.raw', imageFormat: 'raw' }).do('EnsureDisk')).toMatchObject({ refused: 'image.missing_on_node' });
    expect(await vmOf(30, { imageFile: '../../etc/hostname', imageFormat: 'raw' }).do('EnsureDisk')).toMatchObject({ refused: 'image.missing_on_node' });
    expect(await vmOf(30, { imageFile: 'leak.qcow2' }).do('EnsureDisk')).toMatchObject({ refused: 'image.refers_to_another_file' });
    expect(await vmOf(30, { imageFile: 'large.qcow2' }).do('EnsureDisk')).toMatchObject({ refused: 'disk.smaller_than_image', because: { imageGib: 3 } });
    expect((await readdir(join(dir, 'pool'))).filter((name) => name.endsWith('.new'))).toEqual([]);
  });

  it('gives one address to one MAC, however many ask at once', async () => {
    const vms = Array.from({ length: 8 }, (_, index) => vmOf(100 + index));
    expect(await Promise.all([hypervisor.ensureNetwork(network), hypervisor.ensureNetwork(network)])).toEqual([undefined, undefined]);
    const there = { uuid: uuidOf(network.networkId) };
    const before = await behind.networkGetXmlDesc({ network: there });
    expect(await Promise.all(vms.map((vm) => hypervisor.ensureLease(network, { ...vm, name: 'x' })))).toEqual(vms.map(() => undefined));
    // The table is there: nothing in the network is changed, which would cost half a second each.
    expect(await behind.networkGetXmlDesc({ network: there })).toBe(before);
    const [vm] = vms;
    expect(await hypervisor.ensureLease(network, { ...vmOf(200), name: 'x', address: vm!.address })).toMatchObject({ refused: 'network.address_in_use', because: { mac: vm!.mac } });
    await Promise.all(vms.map((one) => hypervisor.removeLease(network, one.mac)));
  });

  it('learns leases one by one in a network that is too large for a table, and forgets them', async () => {
    const tag = randomBytes(3).toString('hex');
    const large: NetworkPlan = { ...network, networkId: `network_${randomHex()}`, name: `cvspec-${tag}`, bridge: `cvs-${tag}`, cidr: '10.254.0.0/20', prefix: 20, gateway: '10.254.0.1' };
    const there = { uuid: uuidOf(large.networkId) };
    const lease = { vmId: vmOf(201).vmId, name: 'x', mac: '52:54:00:aa:bb:cc', address: '10.254.3.4' };
    try {
      expect(await hypervisor.ensureNetwork(large)).toBeUndefined();
      for (let time = 0; time < 2; time++) expect(await hypervisor.ensureLease(large, lease)).toBeUndefined();
      expect(await hypervisor.ensureLease(large, { ...lease, mac: '52:54:00:aa:bb:cd' })).toMatchObject({ refused: 'network.address_in_use', because: { mac: lease.mac } });
      expect(await hypervisor.ensureLease(large, { ...lease, address: '10.254.3.5' })).toBeUndefined();
      expect(await behind.networkGetXmlDesc({ network: there })).toContain(`<host mac='${lease.mac}' ip='10.254.3.5'/>`);
      for (let time = 0; time < 2; time++) expect(await hypervisor.removeLease(large, lease.mac)).toBeUndefined();
      expect(await behind.networkGetXmlDesc({ network: there })).not.toContain(lease.mac);
      expect(await behind.networkGetXmlDesc({ network: there, flags: ['inactive'] })).not.toContain(lease.mac);
    } finally {
      await behind.networkDestroy({ network: there }).catch(() => undefined);
      await behind.networkUndefine({ network: there }).catch(() => undefined);
    }
  });

  it('refuses a network whose bridge is taken', async () => {
    const refused = await hypervisor.ensureNetwork({ ...network, networkId: `network_${randomHex()}`, name: `${network.name}-2` });
    expect(refused).toMatchObject({ refused: 'network.in_conflict' });
  });

  it('writes XML that libvirtd\'s own schema allows', async () => {
    for (const type of ['qemu', 'kvm'] as const) {
      for (const [devices, platform] of [['virtio', {}], ['legacy', {}], ['virtio', { osFamily: 'windows', firmware: 'uefi-secure', tpm: true }], ['virtio', { firmware: 'uefi' }]] as const) {
        const vmId: VmId = `vm_${randomHex()}`;
        const xml = domainXml(
          { nodeId, vmId, generation: 1, ...smallPlan({ volumeId: `volume_${randomHex()}`, network, mac: '52:54:00:00:00:01', address: network.gateway }, { name: 'schema', devices, ...platform, vcpusMax: 4, memoryMibMax: 1_024, media: 'install.iso', drivers: 'drivers.iso', assigned: [{ kind: 'pci', address: '0000:01:00.0' }, { kind: 'usb', vendor: '0781', product: '5567' }, { kind: 'virtual-usb', model: 'mouse' }], bootMenu: true, kernel: { file: 'kernel', initrd: 'initrd', arguments: 'quiet' }, boot: ['cdrom', 'disk', 'network'] }) },
          { nodeId, type, hyperv: ['relaxed', 'vapic', 'spinlocks', 'vpindex', 'runtime', 'synic', 'stimer', 'frequencies'], agentVersion: '0', diskPathOf: () => '/nowhere/disk.qcow2', mediaPathOf: (file) => `/nowhere/${file}`, seedPath: '/nowhere/seed.iso', consoleLog: '/nowhere/console.log', bootReport: '/state/boot.report', screenSocket: '/nowhere/screen.sock' },
        );
        const domain = await behind.domainDefineXmlFlags({ xml, flags: ['validate'] }).catch((fault: unknown) => {
          // A host without /dev/kvm has no domains of this type at all, but the schema spoke before.
          if (type === 'kvm' && /virt.?type|kvm/i.test(String(fault)) && !/schema/i.test(String(fault))) return undefined;
          throw fault;
        });
        if (domain !== undefined) await behind.domainUndefineFlags({ domain, flags: ['nvram'] });
      }
    }
  });

  it('says what it is', async () => {
    const description = await hypervisor.describe();
    expect(description).toMatchObject({ hypervisor: 'qemu' });
    expect(description.accelBecause).not.toBe('');
    expect(description.memoryMib).toBeGreaterThan(256);
    expect(Object.keys(description.versions).sort()).toEqual(['agent', 'kernel', 'libvirt', 'qemu']);
    const [pool] = await hypervisor.pools();
    expect(pool).toMatchObject({ name: 'local' });
    expect(pool?.capacityGib).toBeGreaterThan(0);
  });
});

describe('Whether guests run on the CPU itself', () => {
  it('is found out with a guest that writes one letter', async () => {
    expect(await guestRuns('tcg')).toBe(true);
    expect(await guestRuns('tcg', '/bin/false')).toBe(false);
    expect(await guestRuns('tcg', '/nowhere/qemu')).toBe(false);
  });
});
