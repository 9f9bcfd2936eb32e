/*
 * Real QEMU beside the same done bare, turn by turn in the same minute: create to running through the whole
 * platform against `qemu-img create`, define and start of the same domain by our own client straight at the
 * same libvirtd.
 *
 * The bare domain is the platform's own XML under another name, UUID, MAC and disk, so what differs is only
 * who asks.
 */
import { execFile } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { chmodSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { connect } from '@chronovirt/libvirt/connection';
import { startPlatform } from '../e2e/platform.ts';
import { addQemuNode, GUEST_NETWORK } from '../e2e/qemu-node.ts';
import { createdMs, Ends, removeAll } from './control-plane.ts';
import { call } from './client.ts';
import { type Figure, percentile } from './report.ts';

const run = promisify(execFile);
const ROUNDS = 8;
const AT_ONCE = 10;
/** A burst of ten is one sample: the guests that booted first take the cores from the last. */
const BURSTS = 3;

/** The kernel takes a dead guest's memory and tap device apart for a while: each sample begins when that is over. */
const REST_MS = 500;
const rest = (): Promise<void> => new Promise((resolve) => { setTimeout(resolve, REST_MS); });

/** After its start an agent has looked at everything and given back what that took. */
const SETTLED_MS = 20_000;
/** Proportional set size: what a process would give back if it ended (proc(5), smaps_rollup). */
const pssMib = (pid: number): number => Number(/^Pss:\s+(\d+) kB/m.exec(readFileSync(`/proc/${String(pid)}/smaps_rollup`, 'utf8'))?.[1]) / 1_024;

const elapsed = async (work: () => Promise<unknown>): Promise<number> => {
  const startedAt = performance.now();
  await work();
  return performance.now() - startedAt;
};

export const guests = async (say: (line: string) => void): Promise<Figure[]> => {
  say('starting a platform with one node on real QEMU');
  const platform = await startPlatform({ split: false });
  const node = await addQemuNode(platform, 'bench-metal');
  try {
    say('the agent alone, at rest');
    await new Promise((resolve) => { setTimeout(resolve, SETTLED_MS); });
    const agentMib = pssMib(platform.pidOf(node.part));
    const wish = { image: 'micro', network: GUEST_NETWORK, vcpus: 1, memoryMib: 128, diskGib: 1 };
    // One for warming up: libvirt asks QEMU what it can do, the network is made. Its XML is the pattern.
    const first = await createdMs(platform, { ...wish, name: 'pattern' });
    const pattern = await node.virsh('dumpxml', '--inactive', await node.domainOf({ id: first.vm }));
    const libvirt = await connect({ socket: node.libvirtSocket, driver: 'qemu:///system' }, { callTimeoutMs: 60_000, inFlightMax: 16 });
    const image = join(node.imageDir, node.image.file);

    let made = 0;
    const bare = async (): Promise<{ uuid: string; diskMs: number; ms: number; disk: string }> => {
      const number = (made += 1);
      const uuid = randomUUID();
      const disk = join(node.poolDir, `bare-${uuid}.qcow2`);
      const mac = `52:54:00:be:${(number >> 8).toString(16).padStart(2, '0')}:${(number & 255).toString(16).padStart(2, '0')}`;
      const diskMs = await elapsed(async () => {
        await run('qemu-img', ['create', '-q', '-f', 'qcow2', '-F', 'qcow2', '-b', image, disk, '1G']);
        chmodSync(disk, 0o660);
      });
      const xml = pattern
        .replace(/<name>[^<]*<\/name>/, `<name>bare-${String(number)}</name>`).replace(/<uuid>[^<]*<\/uuid>/, `<uuid>${uuid}</uuid>`)
        .replace(/<metadata>[\s\S]*?<\/metadata>/, '').replace(/<mac address='[^']*'\/>/, `<mac address='${mac}'/>`)
        .replace(/volume_[0-9a-f]{32}\.qcow2/g, `bare-${uuid}.qcow2`).replace(/[0-9a-f]{32}\.sock/g, `${uuid.replaceAll('-', '')}.sock`).replace(/vm_[0-9a-f]{32}\.log/g, `bare-${uuid}.log`);
      const ms = await elapsed(async () => {
        await libvirt.domainDefineXmlFlags({ xml, flags: [] });
        await libvirt.domainCreateWithFlags({ domain: { uuid }, flags: [] });
      });
      return { uuid, diskMs, ms, disk };
    };
    const remove = async ({ uuid, disk }: { uuid: string; disk: string }): Promise<number> => {
      const ms = await elapsed(() => libvirt.domainDestroyFlags({ domain: { uuid }, flags: [] }));
      await libvirt.domainUndefineFlags({ domain: { uuid }, flags: [] });
      rmSync(disk, { force: true });
      return ms;
    };

    say(`${String(ROUNDS)} machines in turn, bare and through the platform`);
    const ours: number[] = [];
    const floor: number[] = [];
    const disks: number[] = [];
    const destroyed: number[] = [];
    const deleted: number[] = [];
    for (let round = 0; round < ROUNDS; round++) {
      const one = await bare();
      floor.push(one.ms);
      disks.push(one.diskMs);
      destroyed.push(await remove(one));
      await rest();
      const { vm, ms } = await createdMs(platform, { ...wish, name: `ours-${String(round)}` });
      ours.push(ms);
      const ends = await Ends.open(platform);
      const startedAt = performance.now();
      const { body } = await call<{ operation: { id: string } }>(platform, 'DELETE', `/v1/vms/${vm}?force=true`);
      deleted.push((await ends.of(body.operation.id)) - startedAt);
      ends.stop();
      await rest();
    }
    say(`${String(AT_ONCE)} at once, bare and through the platform, in turn`);
    const bareMs: number[] = [];
    const oursMs: number[] = [];
    for (let round = 0; round < BURSTS; round++) {
      const bares: { uuid: string; disk: string }[] = [];
      bareMs.push(await elapsed(async () => { bares.push(...(await Promise.all(Array.from({ length: AT_ONCE }, bare)))); }));
      await Promise.all(bares.map(remove));
      await rest();
      const vms: string[] = [];
      oursMs.push(await elapsed(async () => { vms.push(...(await Promise.all(Array.from({ length: AT_ONCE }, (_, n) => createdMs(platform, { ...wish, name: `many-${String(round)}-${String(n)}` })))).map(({ vm }) => vm)); }));
      await removeAll(platform, vms);
      await rest();
    }
    await libvirt.close();

    const bareP50 = percentile(floor, 0.5);
    const diskP50 = percentile(disks, 0.5);
    const destroyP50 = percentile(destroyed, 0.5);
    return [
      { work: 'node agent alone, at rest (PSS)', value: agentMib, unit: 'MiB', goal: { kind: 'at most', value: 95, scales: false } },
      { work: 'real QEMU: create → running, of bare define + start + qemu-img', value: percentile(ours, 0.5) / (bareP50 + diskP50), unit: 'x', goal: { kind: 'at most', value: 1.15, scales: false }, note: `${percentile(ours, 0.5).toFixed(0)} ms; bare ${bareP50.toFixed(0)} + ${diskP50.toFixed(0)} ms` },
      { work: 'real QEMU: 10 at once, of the bare rate', value: percentile(bareMs, 0.5) / percentile(oursMs, 0.5), unit: 'x', goal: { kind: 'at least', value: 0.9, scales: false }, note: `${((AT_ONCE * 1_000) / percentile(oursMs, 0.5)).toFixed(1)} /s; bare ${((AT_ONCE * 1_000) / percentile(bareMs, 0.5)).toFixed(1)} /s; median of ${String(BURSTS)} bursts each` },
      { work: 'real QEMU: destroy', value: destroyP50, unit: 'ms', goal: { kind: 'at most', value: 228, scales: false }, note: 'libvirtd under a subreaper' },
      { work: 'real QEMU: delete with force, everything given back', value: percentile(deleted, 0.5), unit: 'ms', note: 'destroy, undefine, disk, address, space, capacity, name' },
    ];
  } finally {
    await platform.stop();
    await node.stop();
  }
};
