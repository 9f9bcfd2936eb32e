/*
 * Each step of a machine's life through the whole platform, beside the same step with `virsh` and `qemu-img`
 * on a domain of the same kind in the same libvirtd, turn by turn in the same minutes.
 *
 * The bare way is what an administrator would type: it records nothing, gives no address, checks nothing and
 * takes nothing back. What the platform adds to that is the figure.
 */
import { execFile } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { chmodSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { startPlatform } from '../e2e/platform.ts';
import { addQemuNode, GUEST_NETWORK } from '../e2e/qemu-node.ts';
import { call } from './client.ts';
import { Ends } from './control-plane.ts';
import { type Figure, percentile } from './report.ts';

const run = promisify(execFile);
const ROUNDS = 6;
/** The guest and the kernel have things to do after a step: the next one begins when that is over. */
const REST_MS = 400;
const BOOTED_WITHIN_MS = 90_000;

interface Step {
  readonly work: string;
  readonly ours: () => Promise<unknown>;
  readonly bare: () => Promise<unknown>;
}

export const steps = async (say: (line: string) => void): Promise<Figure[]> => {
  say('starting a platform with one node on real QEMU, and two guests: one of ours, one bare');
  const platform = await startPlatform({ split: false });
  const node = await addQemuNode(platform, 'bench-steps');
  try {
    const { rest } = platform;
    await rest.ok('POST', '/v1/networks', { name: 'second', kind: 'nat', cidr: '10.98.8.0/24' });
    const vm = await rest.running({ name: 'ours', image: 'micro', network: GUEST_NETWORK, vcpus: 1, memoryMib: 128, diskGib: 1 });
    const domain = await node.domainOf(vm);
    // Once, so that the second network is there for both; the bare one takes an address of its own accord.
    const plugged = await rest.done('POST', `/v1/vms/${vm.id}/nics`, { network: 'second' });
    const bridge = /network='([^']*second[^']*)'|source network="([^"]*)"/.exec(await node.virsh('dumpxml', domain))?.[1] ?? '';
    if (plugged.status !== 'succeeded' || bridge === '') throw new Error('the second network was not made');
    const nics = async () => ((await rest.vm(vm.id)) as unknown as { nics: readonly { mac: string; network: string }[] }).nics;
    await rest.done('DELETE', `/v1/vms/${vm.id}/nics/${(await nics()).at(-1)?.mac ?? ''}`, undefined, BOOTED_WITHIN_MS);

    const uuid = randomUUID();
    const diskOf = (name: string): string => join(node.poolDir, `bare-${name}.qcow2`);
    const makeDisk = async (name: string, ...more: readonly string[]): Promise<string> => {
      await run('qemu-img', ['create', '-q', '-f', 'qcow2', ...more, diskOf(name), '1G']);
      chmodSync(diskOf(name), 0o666);
      return diskOf(name);
    };
    await makeDisk('system', '-F', 'qcow2', '-b', join(node.imageDir, node.image.file));
    const xml = (await node.virsh('dumpxml', '--inactive', domain))
      .replace(/<name>[^<]*<\/name>/, '<name>bare</name>').replace(/<uuid>[^<]*<\/uuid>/, `<uuid>${uuid}</uuid>`).replace(/<metadata>[\s\S]*?<\/metadata>/, '')
      .replace(/<mac address='[^']*'\/>/, "<mac address='52:54:00:be:00:01'/>").replace(/volume_[0-9a-f]{32}\.qcow2/g, 'bare-system.qcow2')
      .replace(/[0-9a-f]{32}\.sock/g, `${uuid.replaceAll('-', '')}.sock`).replace(/vm_[0-9a-f]{32}\.log/g, 'bare.log');
    const file = join(platform.dir, 'bare.xml');
    writeFileSync(file, xml);
    await node.virsh('define', file);
    await node.virsh('start', 'bare');
    const answers = (name: string) => () => node.virsh('qemu-agent-command', '--timeout', '5', name, '{"execute":"guest-ping"}');
    for (const name of [domain, 'bare']) await rest.until(`${name} answers`, answers(name), BOOTED_WITHIN_MS, 500);

    const ends = await Ends.open(platform);
    const asked = (method: string, path: string, body?: unknown) => async (): Promise<void> => {
      const { status, body: told } = await call<{ operation: { id: string } }>(platform, method, `/v1/vms/${vm.id}${path}`, body);
      if (status !== 202) throw new Error(`${method} ${path} was answered ${String(status)}: ${JSON.stringify(told)}`);
      await ends.of(told.operation.id);
    };
    const virsh = (...words: readonly string[]) => (): Promise<unknown> => node.virsh(...words);
    const shown = async () => (await rest.vm(vm.id)) as unknown as { volumes: readonly { volumeId: string }[]; spec: { diskGib: number } };
    const bareMac = '52:54:00:be:00:02';
    let round = 0;
    /** Prepared before the clock starts. */
    const plan = async (): Promise<readonly Step[]> => {
      round += 1;
      const layer = `layer${String(round)}`;
      const extra = `extra${String(round)}`;
      const { spec } = await shown();
      return [
        { work: 'pause', ours: asked('POST', '/pause'), bare: virsh('suspend', 'bare') },
        { work: 'resume', ours: asked('POST', '/resume'), bare: virsh('resume', 'bare') },
        {
          work: 'new disk, attached', ours: asked('POST', '/volumes', { name: extra, sizeGib: 1 }),
          bare: async () => { await node.virsh('attach-disk', 'bare', await makeDisk(extra), 'vdb', '--subdriver', 'qcow2', '--live', '--config'); },
        },
        {
          work: 'disk detached and deleted', ours: async () => asked('DELETE', `/volumes/${(await shown()).volumes[0]?.volumeId ?? ''}?delete=true`)(),
          bare: async () => {
            await node.virsh('detach-disk', 'bare', 'vdb', '--live', '--config');
            rmSync(diskOf(extra));
          },
        },
        { work: 'interface attached', ours: asked('POST', '/nics', { network: 'second' }), bare: virsh('attach-interface', 'bare', 'network', bridge, '--model', 'virtio', '--mac', bareMac, '--live', '--config') },
        {
          work: 'interface detached', ours: async () => asked('DELETE', `/nics/${(await nics()).at(-1)?.mac ?? ''}`)(),
          bare: virsh('detach-interface', 'bare', 'network', '--mac', bareMac, '--live', '--config'),
        },
        { work: 'disk grown', ours: asked('PATCH', '/hardware', { diskGib: spec.diskGib + 1 }), bare: virsh('blockresize', 'bare', 'vda', `${String(round + 1)}G`) },
        {
          work: 'snapshot, frozen', ours: asked('POST', '/snapshots', { name: layer }),
          bare: virsh('snapshot-create-as', 'bare', layer, '--disk-only', '--atomic', '--quiesce', '--diskspec', `vda,file=${diskOf(layer)}`),
        },
        {
          work: 'snapshot deleted, merged', ours: async () => {
            const { body } = await call<{ items: readonly { id: string }[] }>(platform, 'GET', `/v1/vms/${vm.id}/snapshots`);
            await asked('DELETE', `/snapshots/${body.items[0]?.id ?? ''}`)();
          },
          bare: async () => {
            await node.virsh('blockcommit', 'bare', 'vda', '--active', '--shallow', '--pivot', '--wait');
            await node.virsh('snapshot-delete', 'bare', layer, '--metadata');
            rmSync(diskOf(layer));
          },
        },
        { work: 'power cut', ours: asked('POST', '/stop', { timeoutSeconds: 0, force: true }), bare: virsh('destroy', 'bare') },
        { work: 'start', ours: asked('POST', '/start'), bare: virsh('start', 'bare') },
      ];
    };

    const seen = new Map<string, { readonly ours: number[]; readonly bare: number[] }>();
    const timed = async (work: () => Promise<unknown>): Promise<number> => {
      const startedAt = performance.now();
      await work();
      return performance.now() - startedAt;
    };
    for (let number = 1; number <= ROUNDS; number++) {
      say(`round ${String(number)} of ${String(ROUNDS)}`);
      for (const step of await plan()) {
        const times = seen.get(step.work) ?? { ours: [], bare: [] };
        seen.set(step.work, times);
        // Whoever is first finds the machine as the other one left it: they take turns.
        const both = [async () => { times.ours.push(await timed(step.ours)); }, async () => { times.bare.push(await timed(step.bare)); }];
        for (const one of number % 2 === 0 ? both : both.reverse()) {
          await one();
          await new Promise((resolve) => { setTimeout(resolve, REST_MS); });
        }
      }
      for (const name of [domain, 'bare']) await rest.until(`${name} answers again`, answers(name), BOOTED_WITHIN_MS, 500);
    }
    ends.stop();
    await node.virsh('destroy', 'bare');
    await node.virsh('undefine', 'bare');
    return [...seen].map(([work, { ours, bare }]): Figure => ({
      work: `${work}, p50`, value: percentile(ours, 0.5), unit: 'ms', beside: { name: 'virsh', value: percentile(bare, 0.5) },
    }));
  } finally {
    await platform.stop();
    await node.stop();
  }
};
