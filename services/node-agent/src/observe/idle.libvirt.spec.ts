/*
 * A day of 200 VMs that nobody touches by hand, in seconds: libvirtd is restarted, connections break, the agent
 * is killed and upgraded, and commands of ours come in between, while everything is compared again and again.
 * The agent and its journal are the real ones, and so is the protocol; the daemon is the fake one.
 */
import { createHash } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { AgentCommand } from '@chronovirt/contracts/agent/agent.commands';
import type { CommandEnvelope } from '@chronovirt/contracts/command';
import type { DriftReport } from '@chronovirt/contracts/drift/drift.commands';
import { uuidOf, type NodeId, type PoolId, type VmId, type VolumeId } from '@chronovirt/contracts/ids';
import { connect } from '@chronovirt/libvirt/connection';
import { targetOf } from '@chronovirt/libvirt/fake/daemon';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createAgent, type Agent } from '../agent.ts';
import { smallPlan } from '../domain/testing-plan.ts';
import type { DomainPlan } from '../hypervisor.ts';
import { openJournal, type StoredJournal } from '../journal/journal.store.ts';
import { connectLibvirt, type LibvirtHypervisor } from '../libvirt/libvirt-hypervisor.os.ts';
import { createFakeMachine } from '../simulated/fake-machine.os.ts';

const VMS = 200;
/** Each stands for the comparison of everything that there is every 20 s. */
const SWEEPS = 12;
const WITHIN_MS = 30_000;

const hex = (text: string): string => createHash('sha256').update(text).digest('hex').slice(0, 32);
const nodeId: NodeId = `node_${hex('node')}`;
const poolId: PoolId = `pool_${hex('pool')}`;
const network = { networkId: `network_${hex('network')}`, subnetId: `subnet_${hex('subnet')}`, name: 'cv-idle', kind: 'nat', cidr: '10.21.0.0/16', gateway: '10.21.0.1', prefix: 16, bridge: 'cv-idle0' } as const;

interface IdleVm {
  readonly vmId: VmId;
  readonly volumeId: VolumeId;
  plan: DomainPlan;
}
const vms: readonly IdleVm[] = Array.from({ length: VMS }, (_, index) => {
  const [vmId, volumeId] = [`vm_${hex(`vm ${String(index)}`)}`, `volume_${hex(`volume ${String(index)}`)}`] as const;
  const [high, low] = [1 + (index >> 8), index & 0xff];
  const mac = `52:54:0a:15:${high.toString(16).padStart(2, '0')}:${low.toString(16).padStart(2, '0')}`;
  return { vmId, volumeId, plan: { nodeId, vmId, generation: 1, ...smallPlan({ volumeId, network, mac, address: `10.21.${String(high)}.${String(low)}` }, { name: `idle-${String(index)}`, vcpusMax: 4, memoryMibMax: 1_024 }) } };
});

describe('200 VMs that nobody touches', () => {
  const machine = createFakeMachine({ name: 'idle', poolId, cpus: 256, memoryMib: 262_144, poolGib: 1_000, latencyMs: 0 });
  const drifts: DriftReport[] = [];
  const warned: unknown[] = [];
  let dir: string;
  let hypervisor: LibvirtHypervisor;
  let journal: StoredJournal;
  let agent: Agent;
  let session = 0;
  let serial = 0;
  const id = (): string => `00000000-0000-7000-8000-${(++serial).toString(16).padStart(12, '0')}`;

  /** An agent like the one before it, on the journal that this left. */
  const begin = async (): Promise<void> => {
    journal = openJournal(join(dir, 'journal.sqlite'));
    hypervisor = await connectLibvirt({ nodeId, agentVersion: `0.${String(session)}`, host: machine.host, log: { warn: (fields) => warned.push(fields) } });
    const mine = createAgent({
      nodeId, journal, hypervisor, now: () => new Date(), report: () => Promise.resolve(), reportDrift: async (report) => void drifts.push(report), reportBoot: () => Promise.resolve(), bootId: () => 'one',
      volumesKnown: (volumeIds) => Promise.resolve(volumeIds.filter((volumeId) => vms.some((vm) => vm.volumeId === volumeId))),
    });
    agent = mine;
    hypervisor.watch({
      changed: (vmId) => {
        void mine.look(vmId);
        void mine.compare(vmId);
      },
      touched: (vmId) => void mine.compare(vmId), strange: () => void mine.lookAround(),
      missed: () => {
        void mine.sweep();
        void mine.sweepDrift();
      },
    });
    const helloId = id();
    await mine.hello(helloId);
    expect(mine.welcome(helloId, { session: ++session, vms: vms.map(({ vmId }) => ({ vmId, generation: 1, here: true })) })).toBe(true);
  };
  const killed = async (): Promise<void> => {
    agent.halt();
    await hypervisor.close();
    journal.close();
  };
  const connected = (): Promise<void> => expect.poll(() => hypervisor.status().ok, { timeout: WITHIN_MS }).toBe(true);
  const send = async (vm: IdleVm, type: AgentCommand['type'], more: object = {}): Promise<void> => {
    const data = { ...vm.plan, volumeId: vm.volumeId, poolId, imageFile: 'guest.qcow2', imageFormat: 'qcow2', sizeGib: 1, timeoutSeconds: 5, force: true, gone: [], hostname: null, insist: false, ...more };
    expect(await agent.take({ id: id(), to: 'node', target: nodeId, type, meta: { actor: 'system:spec' }, cancels: [], session, data: data as unknown as CommandEnvelope['data'] })).toMatchObject({ version: 0 });
  };
  const every = (work: (vm: IdleVm) => Promise<void>): Promise<unknown> => Promise.all(vms.map(work));
  const changed = async (vm: IdleVm, more: Partial<DomainPlan>): Promise<void> => {
    vm.plan = { ...vm.plan, ...more };
    await send(vm, 'ConfigureDomain');
  };
  const of = (round: number, count: number): readonly IdleVm[] => Array.from({ length: count }, (_, index) => vms[(round * 37 + index * 11) % VMS] as IdleVm);

  beforeAll(async () => {
    dir = await mkdtemp(join(tmpdir(), 'cv-idle-'));
    await begin();
    await every(async (vm) => { for (const type of ['EnsureDisk', 'DefineDomain', 'StartDomain'] as const) await send(vm, type); });
  }, 180_000);
  afterAll(async () => {
    await killed();
    await machine.daemon.close();
    await rm(dir, { recursive: true });
  });

  it('C-05 nothing differs in a day of restarts and of our own commands', async () => {
    for (let round = 0; round < SWEEPS; round++) {
      // Each is compared while commands of ours are under way, too.
      const swept = agent.sweepDrift();
      const some = of(round, 6);
      await Promise.all([
        ...some.slice(0, 2).map((vm) => changed(vm, { vcpus: 1 + (round % 3), name: `${vm.plan.name.split('.')[0] ?? ''}.${String(round)}` })),
        ...some.slice(2, 4).map(async (vm) => { for (const type of ['ShutdownDomain', 'StartDomain', 'SuspendDomain', 'ResumeDomain'] as const) await send(vm, type); }),
        ...some.slice(4, 5).map(async (vm) => { for (const type of ['SaveDomain', 'StartDomain', 'RebootDomain', 'ResetDomain'] as const) await send(vm, type); }),
        ...some.slice(5).map(async (vm) => { for (const type of ['DestroyDomain', 'StartDomain'] as const) await send(vm, type); }),
      ]);
      await swept;
      if (round % 4 === 1) {
        machine.daemon.crash();
        machine.daemon.restart();
        await connected();
      }
      if (round % 4 === 2) {
        machine.daemon.disconnectAll();
        await connected();
      }
      if (round % 4 === 3) {
        await killed();
        await begin();
      }
      // What could not be looked at while libvirtd was away is looked at again.
      await expect.poll(() => agent.sweepDrift(), { timeout: WITHIN_MS }).toBe(true);
    }
    expect(drifts.filter(({ findings }) => findings.length > 0).map(({ findings }) => findings.map(({ subject, differences, says }) => [subject, differences, says]))).toEqual([]);
    expect(drifts.filter(({ session: of }) => of > 1).filter(({ untold }) => untold.length > 0)).toEqual([]);
    expect(drifts.map((report) => report.session)).toContain(session);
    expect([...machine.domains().values()].map(({ state }) => state)).toEqual(vms.map(() => 'running'));
  }, 300_000);

  it('C-05 and what somebody does by hand to one of them is found at once', async () => {
    const somebody = await connect(targetOf(machine.daemon));
    const vm = of(1, 1)[0];
    await somebody.domainDestroyFlags({ domain: { uuid: uuidOf(vm?.vmId ?? vms[0]?.vmId ?? `vm_${hex('')}`) } });
    await expect.poll(() => drifts.at(-1)?.findings.map(({ subject, differences }) => [subject, differences.map(({ field }) => field)]), { timeout: WITHIN_MS }).toEqual([[vm?.vmId, ['state']]]);
    await somebody.close();
  });
});
