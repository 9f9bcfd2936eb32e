/*
 * A node whose agent can be killed without its domains dying with it: libvirt's test driver, in a daemon of
 * the test's own. The wire, the journal, the disks (qcow2 files) and the daemon's state are real; guests are
 * not. The test's own connection keeps the driver's state alive while no agent is connected.
 */
import { chmodSync, closeSync, mkdirSync, openSync, readSync, readdirSync, statSync } from 'node:fs';
import { execFileSync } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { basename, join } from 'node:path';
import { idFrom } from '@chronovirt/contracts/ids';
import { connect } from '@chronovirt/libvirt/connection';
import { METADATA_NAMESPACE } from '@chronovirt/node-agent/domain/domain-xml';
import { startLibvirtd } from '../libs/libvirt/src/testing-libvirtd.os.ts';
import type { NodeView } from './invariants.ts';
import { IMAGE, type Platform } from './platform.ts';
import { sha256Of } from './tus.ts';

export interface TestNode extends NodeView {
  /** The agent's name among the platform's parts. */
  readonly part: string;
  readonly poolDir: string;
  /** Somebody makes a domain of their own there, and starts it. Answers its UUID. */
  makeForeign(name: string): Promise<string>;
  /** Whether it runs, and whether it carries our words. */
  seen(uuid: string): Promise<{ readonly runs: boolean; readonly ours: boolean }>;
  /** They take it away again. */
  removeForeign(uuid: string): Promise<void>;
  stop(): Promise<void>;
}

/** The platform's image is of a file that simulated nodes never look at. A node that does compares it with what was registered. */
async function registerAsIs({ rest }: Platform, file: string): Promise<void> {
  const [sha256, image] = [await sha256Of(file), (await rest.all<{ id: string; name: string; sha256: string }>('/v1/images')).find(({ name }) => name === IMAGE)];
  if (image?.sha256 === sha256) return;
  if (image !== undefined) await rest.ok('DELETE', `/v1/images/${image.id}`);
  await rest.ok('POST', '/v1/images', { name: IMAGE, file: basename(file), format: 'qcow2', sha256, sizeBytes: statSync(file).size, minDiskGib: 1, minMemoryMib: 64 });
}

export async function addTestNode(platform: Platform, name: string): Promise<TestNode> {
  const daemon = await startLibvirtd();
  try {
    const libvirt = await connect(daemon.testDriver);
    const imageDir = join(platform.dir, `${name}-images`);
    const poolDir = join(platform.dir, `${name}-pool`);
    const backupDir = join(platform.dir, `${name}-backups`);
    for (const dir of [imageDir, backupDir]) mkdirSync(dir);
    const blank = join(imageDir, 'blank.qcow2');
    execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', blank, '16M']);
    await registerAsIs(platform, blank);
    const nodeId = await platform.addAgent({ name, hypervisor: 'test', libvirtSocket: daemon.socket, imageDir, poolDir, runDir: join(daemon.directory, 'agent'), backupDirs: `vault=${backupDir}` });
    // What is saved the daemon writes itself, as somebody else.
    chmodSync(poolDir, 0o777);
    const isOurs = (domain: { readonly uuid: string; readonly name: string }): Promise<boolean> => libvirt.domainGetMetadata({ domain, kind: 'element', uri: METADATA_NAMESPACE }).then(() => true, () => false);
    const foreignDir = join(platform.dir, `${name}-foreign`);
    mkdirSync(foreignDir);
    return {
      nodeId, part: name, poolDir,
      makeForeign: async (of) => {
        const [uuid, file] = [randomUUID(), join(foreignDir, `${of}.qcow2`)];
        execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', file, '1G']);
        const domain = await libvirt.domainDefineXmlFlags({ xml: `<domain type='test'><name>${of}</name><uuid>${uuid}</uuid><memory unit='MiB'>64</memory><vcpu>1</vcpu><os><type arch='i686'>hvm</type></os><devices>
          <disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='${file}'/><target dev='vda' bus='virtio'/></disk></devices></domain>` });
        await libvirt.domainCreateWithFlags({ domain });
        return uuid;
      },
      seen: async (uuid) => {
        const domain = await libvirt.domainLookupByUuid({ uuid });
        return { runs: (await libvirt.domainGetState({ domain })).state === 'running', ours: await isOurs(domain) };
      },
      removeForeign: async (uuid) => {
        const domain = await libvirt.domainLookupByUuid({ uuid });
        await libvirt.domainDestroyFlags({ domain });
        await libvirt.domainUndefineFlags({ domain });
      },
      domains: async () => {
        const ours: { vmId: string; running: boolean }[] = [];
        for (const domain of await libvirt.connectListAllDomains()) {
          if (!domain.name.startsWith('cv-') && !(await isOurs(domain))) continue;
          const { state } = await libvirt.domainGetState({ domain });
          ours.push({ vmId: idFrom('vm', domain.uuid), running: state === 'running' });
        }
        return ours;
      },
      disks: () => Promise.resolve(readdirSync(poolDir).flatMap((file) => /^(volume_[0-9a-f]{32})\.(?:qcow2|raw)$/.exec(file)?.[1] ?? [])),
      inner: () => Promise.resolve(readdirSync(poolDir).flatMap((file) => {
        const volumeId = /^(volume_[0-9a-f]{32})\.qcow2$/.exec(file)?.[1];
        if (volumeId === undefined || !keepsInside(join(poolDir, file))) return [];
        const { snapshots = [] } = JSON.parse(execFileSync('qemu-img', ['info', '-U', '--output=json', join(poolDir, file)], { encoding: 'utf8' })) as { snapshots?: { name: string }[] };
        return snapshots.map(({ name: kept }) => ({ volumeId, name: kept }));
      })),
      layers: () => Promise.resolve(readdirSync(poolDir).flatMap((file) => /^(volume_[0-9a-f]{32})\.[^.]+\.qcow2$/.exec(file)?.[1] ?? [])),
      stop: async () => {
        await libvirt.close();
        await daemon.stop();
      },
    };
  } catch (error) {
    await daemon.stop();
    throw error;
  }
}

/** How many snapshots a qcow2 holds stands in bytes 60 to 63 of its header (QEMU, docs/interop/qcow2.txt): few do, and of many disks not each is worth a process. */
function keepsInside(path: string): boolean {
  const header = Buffer.alloc(64);
  try {
    const file = openSync(path, 'r');
    try {
      return readSync(file, header, 0, 64, 0) === 64 && header.readUInt32BE(60) > 0;
    } finally {
      closeSync(file);
    }
  } catch (error) {
    // It went meanwhile.
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
    throw error;
  }
}
