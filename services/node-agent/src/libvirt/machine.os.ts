/* A real machine around a libvirt: its folders, its users, its figures. */
import { createHash } from 'node:crypto';
import { chmod, chown, copyFile, mkdir, open, readdir, rm, stat } from 'node:fs/promises';
import { release } from 'node:os';
import { join } from 'node:path';
import type { NodeId } from '@chronovirt/contracts/ids';
import type { Libvirt } from '@chronovirt/libvirt/connection';
import { childOf, childrenOf, parseXml, textOf } from '@chronovirt/libvirt/xml';
import type { Accel } from '../accel.os.ts';
import { bootSecretPurpose } from '@chronovirt/contracts/boot-job/boot-job';
import { isRefusal, refuse } from '../answer.ts';
import type { Refusal } from '../answer.ts';
import type { OpenedRun } from '../boot-jobs/boot-runs.ts';
import type { Unseal } from '../domain/execute.ts';
import type { DomainPlan } from '../hypervisor.ts';
import { createBackupStore } from '../backup/backup-store.os.ts';
import { writeSeed } from '../cloud-init/seed.os.ts';
import { sha256Of } from '../durable.os.ts';
import { cpusOfHost, memoryOfHost, poolOfFolder, usageOfHost } from '../host.os.ts';
import { hostNet } from '../network/host-net.os.ts';
import type { PoolFolders } from '../pool/pool-folders.os.ts';
import type { LibvirtHost } from './host.ts';
import type { GatewayBytes } from '../images/gateway-bytes.os.ts';
import { createImageFiles } from '../images/image-files.os.ts';
import { createDisks } from './qemu-img.os.ts';
import { savesIn } from './saves.os.ts';

export interface MachineSettings {
  readonly nodeId: NodeId;
  readonly driver: 'qemu' | 'test';
  readonly socket: string;
  readonly imageDir: string;
  readonly poolDir: string;
  readonly pools: PoolFolders;
  /** For the sockets of screens. Short: a socket's path has at most 107 bytes. */
  readonly runDir: string;
  /** For what serial consoles wrote. */
  readonly consoleDir: string;
  /** Folders for backups, by the names of their targets, and where it is kept which they were. */
  readonly backupDirs: Readonly<Record<string, string>>;
  readonly stateDir: string;
  /** A file that is libvirtd's network namespace, where that is not ours. */
  readonly networkNamespace?: string | undefined;
  readonly accel: Accel;
  /** From where images are fetched; without it they are what somebody put into the folder. */
  readonly gateway?: GatewayBytes;
  /** How long a fetched image stays that nobody needs. */
  readonly imageKeepMs?: number;
  /** Ends what is being fetched. */
  readonly ended?: AbortSignal;
  /** Opens secrets that were sealed to this node; without it none are taken. */
  readonly unseal?: Unseal;
  readonly log: { info(fields: object, sentence: string): void; warn(fields: object, sentence: string): void };
}

export function machineHost({ nodeId, driver, socket, imageDir, poolDir, pools, runDir, consoleDir, backupDirs, stateDir, networkNamespace, accel, gateway, imageKeepMs, ended, unseal, log }: MachineSettings): LibvirtHost {
  const uri = driver === 'test' ? 'test:///default' : 'qemu:///system';
  const screenDir = join(runDir, 'vnc');
  const screenSocketOf: LibvirtHost['screenSocketOf'] = (vmId) => join(screenDir, `${vmId.slice(3)}.sock`);
  const images = createImageFiles({ imageDir, poolDirs: () => pools.folders(), gateway, log, ended, ...(imageKeepMs === undefined ? {} : { keepMs: imageKeepMs }) });
  const disks = createDisks({ images, poolDir, pools });
  // Not where sockets are: it must outlive a start of the machine.
  const SEED = '.seed.iso';
  /** What is to be run is part of the name: a drive is told of another medium by another name. */
  const partOf = (runs: NonNullable<DomainPlan['bootRuns']>): string => `.${createHash('sha256').update(runs.map(({ runId }) => runId).join()).digest('hex').slice(0, 12)}${SEED}`;
  const seedPathOf: LibvirtHost['seedPathOf'] = ({ instanceId }, runs = []) => join(poolDir, `${instanceId}${runs.length === 0 ? SEED : partOf(runs)}`);
  const seedsOf = async (vmId: string): Promise<readonly string[]> => (await readdir(poolDir)).filter((name) => name.startsWith(vmId) && name.endsWith(SEED)).map((name) => join(poolDir, name));
  const bootReportPathOf: LibvirtHost['bootReportPathOf'] = (vmId) => join(consoleDir, `${vmId}.log.boot`);
  const saves = savesIn(poolDir, driver);
  return {
    driver,
    says: `libvirt's ${uri} at ${socket}`,
    target: { socket, driver: uri },
    accel: driver === 'test' ? { accel: 'tcg', accelBecause: 'libvirt\'s test driver runs no guests' } : { accel: accel.accel, accelBecause: accel.because },
    disks,
    poolFolders: pools,
    backups: createBackupStore({ dirs: backupDirs, stateDir, log }),
    mediaPathOf: (file) => images.pathOf(file),
    mediaMissing: (file) => images.ensure(file, undefined, 'medium'),
    sweepImages: () => images.sweep(),
    publish: async ({ operationId, volumeId, layer }, signal) => {
      if (gateway === undefined) return refuse('node.no_gateway', { says: 'this node brings no images' });
      if (!(await disks.exists(volumeId, layer))) return refuse('disk.missing_on_node', { volumeId });
      const path = join(poolDir, `${operationId}.publish.qcow2`);
      try {
        // Whole when it is there: a command that comes again goes on with bringing it.
        if (await stat(path).then(() => false, () => true)) await disks.copyOut(volumeId, layer, path, signal);
        const outcome = await gateway.bring(operationId, { path, bytes: (await stat(path)).size, sha256: await sha256Of(path), format: 'qcow2' }, signal);
        await rm(path, { force: true });
        return outcome;
      } catch (fault) {
        if (signal.aborted) await rm(path, { force: true });
        throw fault;
      }
    },
    seedPathOf,
    writeSeed: async ({ vmId, seed, nics: ofOurs, adopted, bootRuns = [] }) => {
      // Of one that was adopted with interfaces of its own, the guest keeps those.
      const nics = adopted === null || ofOurs.length > 0 ? ofOurs : null;
      const runs = openedRuns(vmId, bootRuns, unseal);
      if (isRefusal(runs)) return runs;
      // The one without is there as well: it takes the place of the other when that is over.
      const path = await writeSeed(seedPathOf(seed, []), seed, nics);
      return bootRuns.length === 0 ? path : writeSeed(seedPathOf(seed, bootRuns), seed, nics, runs);
    },
    keepSeeds: async (vmId, paths) => {
      const kept = new Set(paths.flatMap((path) => [path, `${path.slice(0, path.indexOf('.', poolDir.length))}${SEED}`]));
      await Promise.all((await seedsOf(vmId)).filter((path) => !kept.has(path)).map((path) => rm(path, { force: true })));
    },
    wipeRuns: async (vmId, runs) => {
      for (const path of await seedsOf(vmId)) if (path.endsWith(partOf(runs))) await copyFile(`${path.slice(0, -partOf(runs).length)}${SEED}`, path);
    },
    bootReportPathOf,
    bootReportOf: (vmId) => endOf(bootReportPathOf(vmId)),
    screenSocketOf,
    consoleLogOf: (vmId) => join(consoleDir, `${vmId}.log`),
    prepare: async (libvirt) => {
      await mkdir(consoleDir, { recursive: true, mode: 0o750 });
      await mkdir(poolDir, { recursive: true, mode: 0o711 });
      // QEMU's user passes through it to what is its own.
      await mkdir(runDir, { recursive: true, mode: 0o711 });
      if (driver === 'qemu') await prepareForQemu(libvirt, screenDir, log);
    },
    saves,
    /* With what virtlogd kept of the console: `<vm>.log`, `<vm>.log.0`, … */
    forgetFiles: async (vmId) => {
      const logs = (await readdir(consoleDir)).filter((name) => name.startsWith(`${vmId}.log`));
      await Promise.all(logs.map((name) => rm(join(consoleDir, name), { force: true })));
      await rm(screenSocketOf(vmId), { force: true });
      await saves.drop(vmId);
      await Promise.all((await seedsOf(vmId)).map((path) => rm(path, { force: true })));
    },
    // The test driver has a machine of its own.
    ...(driver === 'test' ? {} : { net: hostNet(networkNamespace), figures: async () => ({ cpus: cpusOfHost(), memoryMib: (await memoryOfHost()).totalMib, kernel: release() }) }),
    usage: usageOfHost,
    pools: async () => [await poolOfFolder(nodeId, 'local', poolDir), ...(await pools.made())],
  };
}

/** Runs with what was sealed in them in clear. */
function openedRuns(vmId: DomainPlan['vmId'], runs: NonNullable<DomainPlan['bootRuns']>, unseal: Unseal | undefined): readonly OpenedRun[] | Refusal {
  try {
    return runs.map(({ runId, script, timeoutSeconds, variables }) => ({
      runId, script, timeoutSeconds,
      environment: variables.map((one) => {
        if ('value' in one) return one;
        if (unseal === undefined) throw new Error('this node has no key');
        return { name: one.name, value: unseal(one.sealed, bootSecretPurpose(vmId, runId, one.name)) };
      }),
    }));
  } catch {
    return refuse('node.cannot_unseal', { vmId });
  }
}

/** More than all runs of one VM have to say. */
const REPORT_BYTES_MAX = 131_072;

async function endOf(path: string): Promise<string> {
  const file = await open(path, 'r').catch((error: unknown) => {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  });
  if (file === undefined) return '';
  try {
    const { size } = await file.stat();
    const from = Math.max(0, size - REPORT_BYTES_MAX);
    const bytes = Buffer.alloc(Math.min(size, REPORT_BYTES_MAX));
    const { bytesRead } = await file.read(bytes, 0, bytes.length, from);
    return bytes.subarray(0, bytesRead).toString('latin1');
  } finally {
    await file.close();
  }
}

/** QEMU is not root. What it must reach is given to its user. */
async function prepareForQemu(libvirt: Libvirt, screenDir: string, log: MachineSettings['log']): Promise<void> {
  await mkdir(screenDir, { recursive: true, mode: 0o750 });
  if (process.getuid?.() !== 0) return;
  const capabilities = parseXml(await libvirt.connectGetCapabilities());
  const models = childrenOf(childOf(capabilities, 'host'), 'secmodel').filter((model) => textOf(childOf(model, 'model')) === 'dac');
  const label = models.flatMap((model) => childrenOf(model, 'baselabel')).map((one) => /^\+(\d+):\+(\d+)$/.exec(textOf(one))).find((match) => match !== null);
  if (label?.[1] === undefined || label[2] === undefined) {
    log.warn({ screenDir }, 'libvirt does not say as whom QEMU runs: screens may have no socket');
    return;
  }
  const [uid, gid] = [Number(label[1]), Number(label[2])];
  await chown(screenDir, uid, gid);
  await openKvm(uid, gid, log);
}

/**
 * libvirt examines QEMU with more rights than guests get. Where only root may open /dev/kvm (a machine
 * without udev), it therefore finds KVM, then finds that guests may not use it, throws away what it
 * learned, and learns it again: a dozen times for each domain defined, a second each (seen with 9.0.0).
 * So the device gets the group and mode that udev's own rules give it. Whether guests use it is decided
 * elsewhere.
 */
async function openKvm(uid: number, gid: number, log: MachineSettings['log'], device = '/dev/kvm'): Promise<void> {
  const found = await stat(device).catch(() => undefined);
  if (found === undefined || !found.isCharacterDevice()) return;
  const open = (found.mode & 0o006) === 0o006 || (found.gid === gid && (found.mode & 0o060) === 0o060) || (found.uid === uid && (found.mode & 0o600) === 0o600);
  if (open || uid === 0) return;
  try {
    await chown(device, found.uid, gid);
    await chmod(device, 0o660);
    log.warn({ device, gid }, 'only root could open the device of KVM: given to the group of QEMU, as udev does, since libvirt is very slow otherwise');
  } catch (err) {
    log.warn({ err, device }, 'QEMU may not open the device of KVM, and libvirt will be very slow: chgrp kvm and chmod 660 help');
  }
}
