/* The agent on libvirt's test driver, through a daemon of its own that needs no rights: what a laptop without QEMU can run. */
import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { AgentCommand, DomainReport } from '@chronovirt/contracts/agent/agent.commands';
import type { CommandEnvelope } from '@chronovirt/contracts/command';
import { uuidOf } from '@chronovirt/contracts/ids';
import type { NodeId, VmId, VolumeId } from '@chronovirt/contracts/ids';
import { connect } from '@chronovirt/libvirt/connection';
import type { Libvirt } from '@chronovirt/libvirt/connection';
import { startLibvirtd } from '@chronovirt/libvirt/testing-libvirtd.os';
import type { OwnLibvirtd } from '@chronovirt/libvirt/testing-libvirtd.os';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createAgent } from '../agent.ts';
import type { Agent } from '../agent.ts';
import type { Answer } from '../answer.ts';
import { smallPlan } from '../domain/testing-plan.ts';
import { createMemoryJournal } from '../journal/journal.ts';
import { connectLibvirt } from './libvirt-hypervisor.os.ts';
import type { LibvirtHypervisor } from './libvirt-hypervisor.os.ts';
import { poolIdOf } from '../host.os.ts';
import { openPoolFolders } from '../pool/pool-folders.os.ts';
import { machineHost } from './machine.os.ts';

const hex = (): string => randomBytes(16).toString('hex');
const quiet = { info: () => undefined, warn: () => undefined };
const nodeId: NodeId = `node_${hex()}`;
const network = { networkId: `network_${hex()}`, subnetId: `subnet_${hex()}`, name: 'cv-spec', kind: 'nat', cidr: '10.21.0.0/24', gateway: '10.21.0.1', prefix: 24, bridge: 'cv-spec0' } as const;

let daemon: OwnLibvirtd;
let dir: string;
let hypervisor: LibvirtHypervisor;
let anchor: Libvirt;
let agent: Agent;
const reports: DomainReport[] = [];
const journal = createMemoryJournal();

const open = async (): Promise<LibvirtHypervisor> => connectLibvirt({
  nodeId, agentVersion: '0', log: quiet,
  host: machineHost({ nodeId, driver: 'test', socket: daemon.socket, imageDir: join(dir, 'images'), poolDir: join(dir, 'pool'), pools: await openPoolFolders({ own: { poolId: poolIdOf(nodeId, 'local'), path: join(dir, 'pool') }, roots: [], file: join(dir, 'pools.json') }), runDir: join(dir, 'run'), stateDir: dir, backupDirs: {}, consoleDir: join(dir, 'console'), accel: { accel: 'tcg', because: 'test' }, log: quiet }),
});

let serial = 0;
const id = (): string => `00000000-0000-7000-8000-${(++serial).toString(16).padStart(12, '0')}`;

beforeAll(async () => {
  daemon = await startLibvirtd();
  dir = await mkdtemp(join(tmpdir(), 'cv-agent-test-'));
  await mkdir(join(dir, 'images'));
  await promisify(execFile)('qemu-img', ['create', '-q', '-f', 'qcow2', join(dir, 'images', 'guest.qcow2'), '16M']);
  // The driver forgets everything when nobody is connected.
  anchor = await connect(daemon.testDriver);
  hypervisor = await open();
  agent = createAgent({ nodeId, journal, hypervisor, volumesKnown: () => Promise.resolve([]), bootId: () => '', now: () => new Date(), report: async (report) => void reports.push(report), reportDrift: () => Promise.resolve(), reportBoot: () => Promise.resolve() });
  hypervisor.watch({ changed: (vmId) => void agent.look(vmId), missed: () => void agent.sweep() });
  const helloId = id();
  await agent.hello(helloId);
  agent.welcome(helloId, { session: 1, vms: [] });
});
afterAll(async () => {
  await hypervisor?.close();
  await anchor?.close();
  await daemon?.stop();
  if (dir !== undefined) await rm(dir, { recursive: true });
});

const vmOf = (): { readonly vmId: VmId; readonly volumeId: VolumeId; do(type: AgentCommand['type']): Promise<Answer> } => {
  const vmId: VmId = `vm_${hex()}`;
  const volumeId: VolumeId = `volume_${hex()}`;
  return {
    vmId, volumeId,
    do: (type) => agent.take({
      id: id(), to: 'node', target: nodeId, type, meta: { actor: 'system:spec' }, cancels: [], session: 1,
      data: {
        nodeId, vmId, generation: 1, volumeId, imageFile: 'guest.qcow2', imageFormat: 'qcow2', sizeGib: 1, ...smallPlan({ volumeId, network, mac: '52:54:0a:15:00:05', address: '10.21.0.5' }),
        timeoutSeconds: 5, force: false,
      } as CommandEnvelope['data'],
    }),
  };
};

describe('On the test driver', () => {
  it('a VM lives a whole life', async () => {
    const vm = vmOf();
    const life: readonly (readonly [AgentCommand['type'], string | undefined])[] = [
      ['EnsureDisk', undefined], ['DefineDomain', 'stopped'], ['StartDomain', 'running'], ['SuspendDomain', 'paused'], ['ResumeDomain', 'running'], ['RebootDomain', 'running'],
      ['ResetDomain', 'running'], ['ShutdownDomain', 'stopped'], ['StartDomain', 'running'], ['DestroyDomain', 'stopped'], ['StartDomain', 'running'], ['RemoveDomain', 'absent'], ['RemoveDisk', undefined],
    ];
    for (const [type, state] of life) expect([type, await vm.do(type)]).toMatchObject([type, state === undefined ? { version: 0 } : { facts: { state } }]);
    await expect.poll(() => reports.filter((report) => report.vmId === vm.vmId).at(-1)?.state).toBe('absent');
    expect(await vm.do('StartDomain')).toMatchObject({ refused: 'vm.not_here' });
  });

  it('what somebody else does is reported', async () => {
    const vm = vmOf();
    const last = (): string | undefined => reports.filter((report) => report.vmId === vm.vmId).at(-1)?.state;
    for (const type of ['EnsureDisk', 'DefineDomain', 'StartDomain'] as const) await vm.do(type);
    await expect.poll(last, { timeout: 5_000 }).toBe('running');
    await anchor.domainDestroyFlags({ domain: { uuid: uuidOf(vm.vmId) } });
    await expect.poll(last, { timeout: 5_000 }).toBe('stopped');
    await anchor.domainUndefineFlags({ domain: { uuid: uuidOf(vm.vmId) } });
    await expect.poll(last, { timeout: 5_000 }).toBe('absent');
    expect((await agent.hello(id())).inventory.map((domain) => domain.vmId)).toContain(vm.vmId);
  });

  it('domains that are not ours are not listed', async () => {
    // The driver comes with one of its own.
    expect((await anchor.connectListAllDomains()).map((domain) => domain.name)).toContain('test');
    expect(await hypervisor.domains()).toEqual([]);
  });

  it('the agent finds libvirt again, and what changed meanwhile', async () => {
    const vm = vmOf();
    const helloId = id();
    await agent.hello(helloId);
    agent.welcome(helloId, { session: 1, vms: [] });
    for (const type of ['EnsureDisk', 'DefineDomain', 'StartDomain'] as const) await vm.do(type);
    const last = (): string | undefined => reports.filter((report) => report.vmId === vm.vmId).at(-1)?.state;
    await expect.poll(last, { timeout: 5_000 }).toBe('running');
    await daemon.kill();
    await expect.poll(() => hypervisor.status().says, { timeout: 5_000 }).toMatch(/waiting for libvirt/);
    await expect(vm.do('SuspendDomain')).rejects.toThrow('could not find');
    await daemon.start();
    // The driver has forgotten everything, and no event says so.
    await expect.poll(last, { timeout: 20_000 }).toBe('absent');
    expect(hypervisor.status().ok).toBe(true);
  }, 60_000);

  it('it says that nothing really runs', async () => {
    expect(await hypervisor.describe()).toMatchObject({ hypervisor: 'test', accel: 'tcg' });
  });
});
