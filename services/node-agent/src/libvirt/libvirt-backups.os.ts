/*
 * Backups of domains.
 *
 * One that runs is copied by its own QEMU, as of one moment, while it writes on (libvirt's backup, push mode).
 * At that moment each disk begins to keep count of what is written (a persistent dirty bitmap, named after the
 * backup), so that the next backup copies only that. libvirt would remember each as a checkpoint and refuse
 * things because of it; so it is told of a bitmap when it is to use one, and to forget it afterwards, as it is
 * with snapshots (docs/decisions/0014, 0016).
 *
 * What becomes of the count (seen with libvirt 9.0 and QEMU 7.2):
 *
 *   - a stop and a start, a snapshot of one that runs, a merge while it runs, a resize: it goes on;
 *   - a snapshot of one that is stopped, and going back to one: the new layer has none. It is lost;
 *   - QEMU that dies: the file says that its count is in use, so nobody believes it. It is lost.
 *
 * libvirt itself says whether the count reaches back without a hole (`redefineValidate`); where it does not,
 * the backup is a full one and says so. One that is stopped needs no count: what differs is found by reading.
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { BackupKind, TakenBackup } from '@chronovirt/contracts/backup/backup.events';
import type { BackupId, VmId } from '@chronovirt/contracts/ids';
import type { Libvirt } from '@chronovirt/libvirt/connection';
import { readDomain } from '@chronovirt/libvirt/domain-xml';
import { errorCodes, LibvirtError } from '@chronovirt/libvirt/errors';
import type { Domain } from '@chronovirt/libvirt/layouts';
import { buildBackup, buildCheckpoint } from '@chronovirt/libvirt/snapshot-xml';
import { CANCELLED, isRefusal, refuse, type Refusal } from '../answer.ts';
import type { BackupPlace } from '../backup/backup-store.os.ts';
import type { Manifest } from '../backup/manifest.ts';
import { targetOf } from '../domain/domain-xml.ts';
import type { BackupWork, Done, DomainPlan, Hypervisor, Progress, SeenDomain } from '../hypervisor.ts';
import { createTurns } from '../turns.ts';
import { element } from '../xml.ts';
import type { LibvirtHost } from './host.ts';

export interface BackupPorts {
  readonly slow: Libvirt;
  readonly host: Pick<LibvirtHost, 'disks' | 'backups'>;
  readonly find: (vmId: VmId) => Promise<Domain | undefined>;
  readonly look: (domain: Domain) => Promise<Pick<SeenDomain, 'state' | 'reason'> | undefined>;
  readonly answersAgent: (domain: Domain) => Promise<boolean>;
}

/** Backups that one node takes at the same time; the rest wait for their turn. */
const AT_ONCE_MAX = 2;
const JOB_LOOK_MS = 200;
/** How long a job may take to notice that it was ended. */
const ABORT_MS = 60_000;
/** A guest whose file systems stand still is useless: it is let go on, whatever it takes. */
const THAWS_MAX = 10;
const THAW_EVERY_MS = 500;
/** Of all that is done for a backup, in percent. */
const COPY_SHARE = 90;
/** Of all that is done for a restore: files are read for their digests before anything is made of them. */
const DIGEST_SHARE = 30;
/** VIR_DOMAIN_JOB_OPERATION_BACKUP (libvirt-domain.h). */
const JOB_BACKUP = 9;

interface Disk {
  readonly plan: DomainPlan['disks'][number];
  readonly target: string;
}

/** How a backup is going to be taken: what it may build on, and why. */
interface Choice {
  readonly kind: BackupKind;
  readonly because: string;
  readonly parent: BackupId | null;
}

const full = (because: string): Choice => ({ kind: 'full', because, parent: null });

const powered = (seen: { readonly state: string } | undefined): boolean => seen?.state === 'running' || seen?.state === 'paused';

const taken = ({ manifest: { kind, because, parent, frozen, files }, sha256 }: { readonly manifest: Manifest; readonly sha256: string }): TakenBackup =>
  ({ kind, because, parent, frozen, files: files.map(({ unit, volumeId, sizeGib, bytes, sha256: of }) => ({ unit, volumeId, sizeGib, bytes, sha256: of })), manifestSha256: sha256 });

export function libvirtBackups({ slow, host: { disks, backups }, find, look, answersAgent }: BackupPorts): Pick<Hypervisor, 'backup' | 'undoBackup' | 'removeBackup' | 'restoreDisks'> {
  const turns = createTurns(AT_ONCE_MAX);

  const disksOf = ({ disks: all, devices }: DomainPlan): readonly Disk[] => all.map((plan) => ({ plan, target: targetOf(plan, devices) }));

  const isRunning = async (domain: Domain): Promise<boolean> => powered(await look(domain));

  /** A backup of ours that is under way, begun by an agent that was killed or for something that was taken back. */
  const endJob = async (domain: Domain, vmId: VmId): Promise<void> => {
    const deadline = performance.now() + ABORT_MS;
    for (let asked = false; ; asked = true) {
      const { type, stats } = await slow.domainGetJobStats({ domain });
      if (type === 'none' || stats.operation !== JOB_BACKUP) return;
      // Somebody else's is none of our business.
      if (!asked && !(await slow.domainBackupGetXmlDesc({ domain })).includes(`/${vmId}/backup_`)) return;
      if (performance.now() > deadline) throw new Error('a backup that was ended goes on');
      if (!asked) await slow.domainAbortJob({ domain });
      await delay(JOB_LOOK_MS);
    }
  };

  const forget = (domain: Domain, name: string): Promise<unknown> => slow.domainCheckpointDelete({ checkpoint: { name, domain }, flags: ['metadataOnly'] }).catch(ofLibvirt);

  /** As libvirt would have remembered it. */
  const checkpointXml = (name: string, targets: readonly string[], all: readonly string[]): string => element('domaincheckpoint', {},
    element('name', {}, name), element('creationTime', {}, '1'),
    element('disks', {}, ...all.map((target) => (targets.includes(target) ? element('disk', { name: target, checkpoint: 'bitmap', bitmap: name }) : element('disk', { name: target, checkpoint: 'no' }))))).xml;

  const allTargets = async (domain: Domain): Promise<readonly string[]> => readDomain(await slow.domainGetXmlDesc({ domain })).disks.map(({ target }) => target);

  /** A domain that runs keeps no count under this name. libvirt removes it of all disks or none, so each is named alone. */
  const dropCount = async (domain: Domain, name: string, of: readonly Disk[]): Promise<void> => {
    const all = await allTargets(domain);
    await forget(domain, name);
    for (const { target } of of) {
      const known = await slow.domainCheckpointCreateXml({ domain, xml: checkpointXml(name, [target], all), flags: ['redefine'] }).then(() => true, ofLibvirt);
      if (known !== true) continue;
      await slow.domainCheckpointDelete({ checkpoint: { name, domain } }).catch(async (error: unknown) => {
        ofLibvirt(error);
        await forget(domain, name);
      });
    }
  };

  /** What the backup before this one can be built on for, or why it cannot. */
  const choose = async (place: BackupPlace, { wants, parent }: BackupWork, of: readonly Disk[], counts: (name: string) => Promise<string | undefined>): Promise<Choice | Refusal> => {
    const choice = await choiceOf(place, wants === 'full' ? null : parent, of, counts, wants);
    return wants === 'incremental' && choice.kind === 'full' ? refuse('backup.not_incremental', { because: choice.because }) : choice;
  };
  const choiceOf = async (place: BackupPlace, parent: BackupId | null, of: readonly Disk[], counts: (name: string) => Promise<string | undefined>, wants: BackupWork['wants']): Promise<Choice> => {
    if (wants === 'full') return full('it was asked for');
    if (parent === null) return full('there is none at this target that it could be built on');
    const before = await backups.manifest({ ...place, backupId: parent });
    if (before === undefined) return full(`${parent}, on which it would be built, does not lie whole at the target`);
    const came = of.find(({ plan }) => !before.manifest.files.some(({ unit, volumeId }) => unit === plan.unit && volumeId === plan.volumeId));
    if (came !== undefined) return full(`the disk ${came.plan.volumeId} was not there at the last backup`);
    const lost = await counts(parent);
    return lost === undefined ? { kind: 'incremental', because: `it is built on ${parent}`, parent } : full(lost);
  };

  const thaw = async (domain: Domain): Promise<void> => {
    for (let tries = 1; ; tries++) {
      const done = await slow.domainFsthaw({ domain }).then(() => true, ofLibvirt);
      if (done === true || !(await isRunning(domain))) return;
      if (tries >= THAWS_MAX) throw new Error('the file systems of the guest stand still, and its agent does not let them go on');
      await delay(THAW_EVERY_MS);
    }
  };

  /** Begins the job, the file systems still for that moment where the guest's agent can do that. Says whether they were. */
  const beginLive = async (domain: Domain, xml: string, checkpoint: string | null, may: boolean): Promise<boolean> => {
    const answers = may && (await answersAgent(domain));
    const still = answers && (await slow.domainFsfreeze({ domain }).then(() => true, ofLibvirt)) === true;
    try {
      await slow.domainBackupBegin({ domain, xml, checkpointXml: checkpoint, flags: ['reuseExternal'] });
    } finally {
      // Also when it is not known whether it stood still.
      if (answers) await thaw(domain);
    }
    return still;
  };

  const followJob = async (domain: Domain, vmId: VmId, signal: AbortSignal, copied: Progress): Promise<Refusal | undefined> => {
    for (;;) {
      if (signal.aborted) {
        await endJob(domain, vmId);
        return CANCELLED;
      }
      if (!(await isRunning(domain))) throw new Error('the VM stopped while its backup was taken');
      const job = await slow.domainGetJobStats({ domain });
      if (job.type === 'none') break;
      const { disk_total: total = 0, disk_processed: processed = 0 } = job.stats;
      if (Number(total) > 0) copied(Math.floor((Number(processed) * 100) / Number(total)));
      await delay(JOB_LOOK_MS);
    }
    const { type, stats } = await slow.domainGetJobStats({ domain, flags: ['completed'] });
    if (type === 'completed' && stats.operation === JOB_BACKUP) return undefined;
    if (type === 'none') throw new Error('how the backup ended is not known');
    return refuse('backup.failed', { says: typeof stats.errmsg === 'string' ? stats.errmsg.slice(0, 500) : `the job is ${type}` });
  };

  const copyLive = async (domain: Domain, plan: DomainPlan, place: BackupPlace, work: BackupWork, signal: AbortSignal, copied: Progress): Promise<Refusal | undefined> => {
    const of = disksOf(plan);
    const present = readDomain(await slow.domainGetXmlDesc({ domain })).disks;
    const other = of.find((disk) => present.find(({ target }) => target === disk.target)?.path !== disks.pathOf(disk.plan.volumeId, disk.plan.layer));
    if (other !== undefined) return refuse('disk.other_layer', { volumeId: other.plan.volumeId, says: 'the domain uses another file than it should: somebody has taken a snapshot of it by hand' });
    await endJob(domain, place.vmId);
    await dropCount(domain, place.backupId, of);
    const all = present.map(({ target }) => target);
    const choice = await choose(place, work, of, (name) => slow.domainCheckpointCreateXml({ domain, xml: checkpointXml(name, of.map(({ target }) => target), all), flags: ['redefine', 'redefineValidate'] })
      .then(() => undefined, (error: unknown) => { ofLibvirt(error); return 'its disks have not kept count of what was written since the last one: it was reverted, QEMU died, or a snapshot was taken while it was stopped'; }));
    if (isRefusal(choice)) return choice;
    try {
      const sizes = await Promise.all(of.map(async ({ target, plan: { unit } }) => ({ unit, bytes: (await slow.domainGetBlockInfo({ domain, path: target })).capacityBytes })));
      const files = await backups.begin(place, sizes, choice.parent);
      const xml = buildBackup({
        mode: 'push', ...(choice.parent === null ? {} : { incremental: choice.parent }),
        disks: all.map((target) => {
          const at = of.findIndex((disk) => disk.target === target);
          return at < 0 ? { target } : { target, file: files[at] ?? '', format: 'qcow2' };
        }),
      });
      // Of disks that have no place for a count none is kept, and the next backup is full.
      const counting = of.filter(({ plan: { volumeId, layer } }) => disks.formatOf(volumeId, layer) === 'qcow2');
      const checkpoint = counting.length === 0 ? null : buildCheckpoint({ name: place.backupId, disks: all.map((target) => ({ target, noted: counting.some((disk) => disk.target === target) })) });
      // What an earlier job came to is not what this one does.
      await slow.domainGetJobStats({ domain, flags: ['completed'] }).catch(ofLibvirt);
      const frozen = await beginLive(domain, xml, checkpoint, (await look(domain))?.state === 'running');
      const failed = await followJob(domain, place.vmId, signal, copied);
      if (failed !== undefined) {
        await takeBack(domain, plan, place);
        return failed;
      }
      await backups.finish(place, { ...choice, frozen, machine: work.machine }, filesOf(of), signal);
      return undefined;
    } finally {
      if (choice.parent !== null) await forget(domain, choice.parent);
      await forget(domain, place.backupId);
    }
  };

  const filesOf = (of: readonly Disk[]) => of.map(({ plan: { unit, volumeId, sizeGib } }) => ({ unit, volumeId, sizeGib }));

  const copyStopped = async (plan: DomainPlan, place: BackupPlace, work: BackupWork, signal: AbortSignal, copied: Progress): Promise<Refusal | undefined> => {
    const of = disksOf(plan);
    // What differs is found by reading, so nobody needs to have kept count.
    const choice = await choose(place, work, of, () => Promise.resolve(undefined));
    if (isRefusal(choice)) return choice;
    await backups.begin(place, [], null);
    for (const { plan: { volumeId, layer } } of of) await disks.keepCount(volumeId, layer, { under: place.backupId, notUnder: null });
    const allGib = of.reduce((sum, { plan: { sizeGib } }) => sum + sizeGib, 0);
    let before = 0;
    for (const { plan: { volumeId, layer, unit, sizeGib } } of of) {
      if (signal.aborted) break;
      const soFar = before;
      before += sizeGib;
      await backups.copy(place, unit, { path: disks.pathOf(volumeId, layer), format: disks.formatOf(volumeId, layer) }, choice.parent, signal, (percent) => { copied(Math.floor((soFar * 100 + sizeGib * percent) / allGib)); }).catch((fault: unknown) => { if (!signal.aborted) throw fault; });
    }
    if (signal.aborted) {
      await takeBack(undefined, plan, place);
      return CANCELLED;
    }
    await backups.finish(place, { ...choice, frozen: false, machine: work.machine }, filesOf(of), signal);
    return undefined;
  };

  const takeBack = async (domain: Domain | undefined, plan: DomainPlan, place: BackupPlace): Promise<void> => {
    if (domain !== undefined) {
      await endJob(domain, place.vmId);
      await dropCount(domain, place.backupId, disksOf(plan));
    } else {
      for (const { volumeId, layer } of plan.disks) if (await disks.exists(volumeId, layer)) await disks.keepCount(volumeId, layer, { under: null, notUnder: place.backupId });
    }
    await backups.remove(place);
  };

  /** A count that the next backup does not need any more. */
  const endCount = async (running: Domain | undefined, plan: DomainPlan, name: BackupId): Promise<void> => {
    if (running !== undefined) await dropCount(running, name, disksOf(plan));
    else for (const { volumeId, layer } of plan.disks) await disks.keepCount(volumeId, layer, { under: null, notUnder: name });
  };

  return {
    backup: (plan, work, signal, progress) => turns(async () => {
      const { vmId } = plan;
      const place: BackupPlace = { targetId: work.targetId, vmId, backupId: work.backupId };
      const missing = await backups.missing(work.targetId);
      if (missing !== undefined) return missing;
      const domain = await find(vmId);
      const seen = domain === undefined ? undefined : await look(domain);
      if (domain === undefined || seen === undefined) return refuse('domain.gone', { vmId, says: 'this node has no such domain' });
      const running = powered(seen) ? domain : undefined;
      if (signal.aborted) return CANCELLED;
      await disks.locate(plan.disks.map(({ volumeId }) => volumeId));
      try {
        // An agent that was killed may have left them still.
        if (seen.state === 'running') await slow.domainFsthaw({ domain }).catch(ofLibvirt);
        // The files are read once more for their digests, which is the rest.
        const copied = saidUpwards((percent) => progress?.(Math.floor((percent * COPY_SHARE) / 100)));
        let lies = await backups.manifest(place);
        if (lies === undefined) {
          const refused = await (running === undefined ? copyStopped(plan, place, work, signal, copied) : copyLive(running, plan, place, work, signal, copied));
          if (refused !== undefined) return refused;
          lies = await backups.manifest(place);
        }
        if (lies === undefined) throw new Error('a backup that was taken does not lie at the target');
        if (running !== undefined) await forget(running, place.backupId);
        if (work.replaces !== null) await endCount(running, plan, work.replaces);
        return taken(lies);
      } catch (error) {
        // One that stopped meanwhile is backed up as such when the command comes again.
        if (running !== undefined && !(await isRunning(running))) throw error;
        if (error instanceof LibvirtError && ![errorCodes.operationTimeout, errorCodes.resourceBusy, errorCodes.systemError].includes(error.code as never)) {
          await takeBack(running, plan, place);
          return refuse('backup.failed', { says: error.reason.slice(0, 500) });
        }
        throw error;
      }
    }),
    undoBackup: async (plan, place): Done => {
      const domain = await find(place.vmId);
      await takeBack(domain !== undefined && (await isRunning(domain)) ? domain : undefined, plan, place);
      return undefined;
    },
    removeBackup: async (place) => {
      await backups.remove(place);
      return undefined;
    },
    restoreDisks: async ({ poolId, ofVm, targetId, chain, disks: wanted }, signal, progress) => {
      const there = await Promise.all(wanted.map(({ volumeId }) => disks.exists(volumeId, null)));
      if (there.every((one) => one)) return undefined;
      const of = { targetId, vmId: ofVm };
      const said = saidUpwards((percent) => progress?.(percent));
      const refused = (await backups.missing(targetId)) ?? (await backups.verify(of, chain, signal, (percent) => { said(Math.floor((percent * DIGEST_SHARE) / 100)); }));
      if (refused !== undefined) return refused;
      const allGib = wanted.reduce((sum, { sizeGib }) => sum + sizeGib, 0);
      let before = 0;
      for (const { volumeId, unit, sizeGib } of wanted) {
        const soFar = before;
        before += sizeGib;
        const why = await disks.restore({ volumeId, poolId }, await backups.readable(of, chain, unit), signal, (percent) => { said(DIGEST_SHARE + Math.floor(((100 - DIGEST_SHARE) * (soFar + (sizeGib * percent) / 100)) / allGib)); });
        if (why !== undefined) return why;
      }
      return undefined;
    },
  };
}

/** Says only what is more than was said before. */
const saidUpwards = (say: Progress): Progress => {
  let said = 0;
  return (percent) => {
    if (percent <= said) return;
    said = percent;
    say(percent);
  };
};

/** Passes libvirt's own errors over, and nobody else's. */
function ofLibvirt(error: unknown): undefined {
  if (!(error instanceof LibvirtError)) throw error;
  return undefined;
}
