/*
 * What of this node is not as it was told to be, and what is here that nobody told it of.
 *
 * A report always names everything that differs now. So a lost report costs nothing, the one with the highest
 * number is the truth, and whoever reads it sees what is settled by what it does not name. It goes out when it
 * says something new, and once in each session.
 *
 * A VM is compared in its own queue and only while that is empty: what a verb of ours is changing at this
 * moment is no drift. Whatever is passed over so is looked at in the next sweep.
 */
import { Finding, FINDINGS_MAX, type DriftReport } from '@chronovirt/contracts/drift/drift.commands';
import type { Difference } from '@chronovirt/contracts/drift/drift.events';
import type { NetworkId, NodeId, VmId, VolumeId } from '@chronovirt/contracts/ids';
import type { NetworkPlan } from '@chronovirt/contracts/network/network.events';
import { isOfItsGuest } from '../domain/differences.ts';
import { isKnown } from '../domain/told.ts';
import type { Compared, Hypervisor, Stranger, Told } from '../hypervisor.ts';
import type { Journal } from '../journal/journal.ts';
import { type Found, layerIn, lookThrough, pathOf, volumeIn, type WantedFile } from '../pool/pool-files.ts';

export interface DriftPorts {
  readonly nodeId: NodeId;
  readonly hypervisor: Pick<Hypervisor, 'compare' | 'strangers' | 'files' | 'compareNetworks'>;
  readonly journal: Journal;
  /** Which of these there are, as the control plane knows. */
  readonly volumesKnown: (volumeIds: readonly VolumeId[]) => Promise<readonly VolumeId[]>;
  /** The work is told which volumes a verb was about since it began. */
  readonly inHand: <T>(work: (volumes: ReadonlySet<VolumeId>) => Promise<T>) => Promise<T>;
  /** Runs it in the VM's queue; undefined when something waits or runs there. */
  readonly whenIdle: <T>(vmId: VmId, work: () => Promise<T>) => Promise<T> | undefined;
  readonly isBusy: (vmId: VmId) => boolean;
  /** Resolves once the bus has stored the report. */
  readonly report: (report: DriftReport) => Promise<void>;
  /** Another each time that the machine was started. */
  readonly bootId: () => string;
  readonly now: () => Date;
  readonly failed: (vmId: VmId | undefined, fault: unknown) => void;
}

export interface DriftWatch {
  /** Reports carry this session from now on. */
  adopt(session: number): void;
  pause(): void;
  /** It may not be what it was. Never rejects. */
  look(vmId: VmId): Promise<void>;
  /** Whether something is known to differ about it, or happened while nobody could look. */
  knows(vmId: VmId): boolean;
  /** Whether it was this report that last asked what this node was told of it, and nothing was done to it since. */
  isAsked(vmId: VmId, report: number): boolean;
  /** Something is done to it: whatever is told of how it was before that is void. */
  takeBack(vmId: VmId): void;
  /** A domain that is not ours came, went or changed; or a network, or files. Never rejects. */
  lookAround(): Promise<void>;
  /** Compares everything; false when that could not be done. Never rejects. */
  sweep(): Promise<boolean>;
}

/** What the control plane said of a volume is believed for so long. Milliseconds. */
const KNOWN_MS = 10 * 60_000;
/** A file that nobody knows is said to be so after that: less than a comparison of everything takes to come again. Milliseconds. */
const SUSPECTED_MS = 15_000;

export function createDriftWatch({ nodeId, hypervisor, journal, volumesKnown, inHand, whenIdle, isBusy, report, bootId, now, failed }: DriftPorts): DriftWatch {
  /** By subject: what differs of VMs of ours, and what else there is. */
  const ours = new Map<VmId, Finding>();
  let others: readonly Finding[] = [];
  let files: readonly Finding[] = [];
  let networks: readonly Finding[] = [];
  /** What the machine was started again without, by VM: its name and the state that it should be in. */
  const lost = new Map<VmId, Difference>();
  /** What is said of that; it stays the same while they are started again, one after another. */
  let restarted: Finding | undefined;
  /** By path: what nobody knows, since when (milliseconds since the epoch), and what is said of it. */
  let suspects: ReadonlyMap<string, { readonly since: number; readonly finding: Finding | null }> = new Map();
  /** Volumes that there were, and when that was heard. Milliseconds since the epoch. */
  const heardOf = new Map<VolumeId, number>();
  let session = 0;
  let reporting = false;
  let sequence = 0;
  /** What was said last and is known to have been heard; undefined: nothing in this session. */
  let said: string | undefined;
  let telling: { again: boolean } | undefined;

  /** VMs of which it is not known what was told, by the last report that said so. */
  const asked = new Map<VmId, number>();

  const isHere = (vmId: VmId): boolean => journal.vm(vmId)?.here === true;

  /** With `again`, also to say nothing new where something was asked for that has not come. */
  const tellOnce = async (again: boolean): Promise<void> => {
    if (!reporting) return;
    const untold = journal.vms().flatMap(({ vmId, here }) => (here && isVm(vmId) && !isBusy(vmId) && !isKnown(journal.told(vmId)) ? [vmId] : [])).slice(0, FINDINGS_MAX);
    if (lost.size === 0) restarted = undefined;
    else if (restarted === undefined || [...lost.values()].some(({ field }) => restarted?.differences.every((known) => known.field !== field))) restarted = restartedFinding([...lost.values()]);
    // Somebody's files may be many: they come last.
    const place = ({ kind, subject }: Finding): string => `${kind === 'orphan-disk' ? '2' : '1'}${subject}`;
    const findings = [...ours.values(), ...others, ...networks, ...files, ...(restarted === undefined ? [] : [restarted])].sort((a, b) => (place(a) < place(b) ? -1 : place(a) > place(b) ? 1 : 0));
    const text = JSON.stringify(findings);
    if (text === said && !(again && untold.length > 0)) return;
    const began = session;
    // Somebody else's domain may be like nothing we have a word for: that must not keep the rest from being told.
    const sayable = findings.filter((finding) => {
      const read = Finding.safeParse(finding);
      if (!read.success) failed(undefined, new Error(`what differs about ${finding.subject.slice(0, 100)} cannot be told: ${read.error.issues[0]?.path.join('.') ?? ''} ${read.error.issues[0]?.message ?? ''}`));
      return read.success;
    }).slice(0, FINDINGS_MAX);
    sequence += 1;
    asked.clear();
    for (const vmId of untold) asked.set(vmId, sequence);
    await report({ nodeId, session, sequence, findings: sayable, more: findings.length - sayable.length, untold, nodeAt: now().toISOString() });
    if (began === session) said = text;
  };

  const tell = async (again = false): Promise<void> => {
    if (telling !== undefined) {
      telling.again = true;
      return;
    }
    const turn = { again: false };
    telling = turn;
    try {
      do {
        turn.again = false;
        await tellOnce(again);
      } while (turn.again);
    } finally {
      telling = undefined;
    }
  };

  /** A machine that was started again has lost what ran on it; libvirt knows no end of such a domain. */
  const isLost = (told: Told, { state, reason }: Compared): boolean => told.power !== 'stopped' && state === 'stopped' && reason === 'unknown' && told.boot !== undefined && told.boot !== bootId();

  const compare = async (vmId: VmId): Promise<void> => {
    const told = journal.told(vmId);
    if (!isKnown(told) || !isHere(vmId)) {
      ours.delete(vmId);
      // What is being started is not lost any more, as far as anybody knows.
      lost.delete(vmId);
      return;
    }
    const seen = await hypervisor.compare(told);
    if (seen !== undefined && isOfItsGuest(told.power, seen)) journal.tell({ ...told, power: 'stopped' });
    const wentWithTheMachine = seen !== undefined && isLost(told, seen);
    if (wentWithTheMachine) lost.set(vmId, { field: told.plan.name, expected: told.power, seen: 'stopped' });
    else lost.delete(vmId);
    // It runs, or rests, as it was told to: what happens to it from here on is this run's.
    if (seen !== undefined && !wentWithTheMachine && told.boot !== bootId() && !seen.differences.some(({ field }) => field === 'state')) journal.tell({ ...told, boot: bootId() });
    const finding = findingOf(vmId, told.plan.name, wentWithTheMachine ? { ...seen, differences: seen.differences.filter(({ field }) => field !== 'state') } : seen);
    if (finding === undefined) ours.delete(vmId);
    else ours.set(vmId, finding);
  };

  /** Comparisons that are under way; true when something happened since one began. */
  const comparing = new Map<VmId, { again: boolean; readonly done: Promise<void> }>();
  /** VMs that a verb was at when something happened to them: they are looked at when it has ended. */
  const passedOver = new Set<VmId>();

  const lookAt = (vmId: VmId): Promise<void> => {
    const underWay = comparing.get(vmId);
    if (underWay !== undefined) {
      underWay.again = true;
      return underWay.done;
    }
    const { promise: done, resolve, reject } = Promise.withResolvers<void>();
    const turn = { again: false, done };
    comparing.set(vmId, turn);
    const work = async (): Promise<void> => {
      do {
        turn.again = false;
        const looked = whenIdle(vmId, () => compare(vmId));
        if (looked === undefined) passedOver.add(vmId);
        else passedOver.delete(vmId);
        await looked;
      } while (turn.again);
    };
    work().finally(() => { comparing.delete(vmId); }).then(resolve, reject);
    return done;
  };

  const strangersAround = async (): Promise<void> => {
    const here = new Set(journal.vms().flatMap((known) => (known.here && isVm(known.vmId) ? [known.vmId] : [])));
    const strangers = await hypervisor.strangers(here);
    others = strangers.map(strangerOf);
  };

  /** Those that domains here were told to be on: one that nobody is on is nobody's loss, and comes back with the next VM. */
  const lookAtNetworks = async (): Promise<void> => {
    const plans = new Map(journal.tolds().flatMap(({ plan, unsettled }) => (unsettled || !isHere(plan.vmId) ? [] : plan.nics.map(({ network }) => [network.networkId, network] as const))));
    const found = plans.size === 0 ? new Map<NetworkId, readonly Difference[]>() : await hypervisor.compareNetworks([...plans.values()]);
    networks = [...plans.values()].flatMap((plan) => networkFinding(plan, found.get(plan.networkId) ?? []) ?? []);
  };

  /** Of volumes that no domain here was told to have, the control plane knows whether there are such. */
  const askFor = async (volumeIds: readonly VolumeId[]): Promise<(volumeId: VolumeId) => boolean | undefined> => {
    const at = now().getTime();
    const unheard = volumeIds.filter((volumeId) => at - (heardOf.get(volumeId) ?? -Infinity) > KNOWN_MS);
    try {
      for (const volumeId of unheard.length === 0 ? [] : await volumesKnown(unheard)) heardOf.set(volumeId, at);
    } catch (fault) {
      failed(undefined, fault);
      return (volumeId) => (unheard.includes(volumeId) ? undefined : true);
    }
    for (const [volumeId, heardAt] of heardOf) if (at - heardAt > KNOWN_MS) heardOf.delete(volumeId);
    return (volumeId) => heardOf.has(volumeId);
  };

  const lookAtFiles = (): Promise<void> => inHand(async (touched) => {
    const folders = await hypervisor.files();
    const told = journal.tolds();
    const wanted = told.flatMap(({ plan: { vmId, name, disks }, unsettled, power }): WantedFile[] =>
      (unsettled || !isHere(vmId) ? [] : disks.map(({ volumeId, layer, sizeGib }) => ({ vmId, vmName: name, volumeId, layer, sizeGib, running: power === 'running' }))));
    const ofDomains = new Set(told.flatMap(({ plan }) => plan.disks.map(({ volumeId }) => volumeId)));
    const present = [...folders.flatMap(({ files: there }) => (there ?? []).flatMap(({ name }) => volumeIn(name) ?? [])), ...journal.files().map(({ volumeId }) => volumeId)];
    const isVolume = await askFor([...new Set(present)].filter((volumeId) => !ofDomains.has(volumeId)));
    const unsettled = told.filter((one) => one.unsettled).flatMap(({ plan }) => plan.disks.map(({ volumeId }) => volumeId));
    const before = suspects;
    const suspected = new Set([...before.keys()].flatMap((path) => volumeIn(path.slice(path.lastIndexOf('/') + 1)) ?? []));
    const found = lookThrough({
      folders, known: journal.files(), wanted, inHand: new Set([...touched, ...unsettled, ...journal.unsettled()]), isHere, now: now().getTime(),
      isVolume: (volumeId) => ofDomains.has(volumeId) || (isVolume(volumeId) ?? (suspected.has(volumeId) ? false : undefined)),
      used: new Set(others.flatMap(({ foreign }) => foreign?.disks.map(({ file }) => file) ?? [])),
    });
    for (const file of found.seen) journal.know(file);
    for (const file of found.forgotten) journal.unknow(file);
    suspects = new Map(found.strange.map((one) => {
      const path = pathOf({ folder: one.folder.path, name: one.file.name });
      const at = now().getTime();
      const known = before.get(path) ?? { since: at, finding: null };
      // What has just come may be about to be known; and how it grows is no news.
      return [path, known.finding === null && at - known.since >= SUSPECTED_MS ? { ...known, finding: strangeFile(path, one) } : known];
    }));
    files = [...found.missing.map(missingFile), ...found.replaced.map(replacedFile), ...[...suspects.values()].flatMap(({ finding }) => finding ?? [])];
  });

  /** Everything but domains of ours. Files come last: what other domains use explains some. */
  const around = async (): Promise<void> => {
    await strangersAround();
    await lookAtNetworks();
    await lookAtFiles();
  };

  return {
    adopt: (next) => {
      if (next !== session) sequence = 0;
      session = next;
      said = undefined;
      reporting = true;
    },
    pause: () => { reporting = false; },
    isAsked: (vmId, report) => asked.get(vmId) === report,
    takeBack: (vmId) => { asked.delete(vmId); },
    knows: (vmId) => ours.has(vmId) || lost.has(vmId) || passedOver.has(vmId),
    look: async (vmId) => {
      try {
        // Before the first sweep there is nothing to add to.
        if (!reporting || said === undefined) return;
        await lookAt(vmId);
        await tell();
      } catch (fault) {
        failed(vmId, fault);
      }
    },
    lookAround: async () => {
      try {
        if (!reporting || said === undefined) return;
        await around();
        await tell();
      } catch (fault) {
        failed(undefined, fault);
      }
    },
    sweep: async () => {
      if (!reporting) return true;
      try {
        const told = journal.tolds().map(({ plan }) => plan.vmId);
        for (const vmId of [...ours.keys(), ...lost.keys()]) {
          if (told.includes(vmId)) continue;
          ours.delete(vmId);
          lost.delete(vmId);
        }
        for (const vmId of told) await lookAt(vmId);
        await around();
        await tell(true);
        return true;
      } catch (fault) {
        failed(undefined, fault);
        return false;
      }
    },
  };
}

const isVm = (id: string): id is VmId => id.startsWith('vm_');

function findingOf(vmId: VmId, name: string, seen: Compared | undefined): Finding | undefined {
  const about = { subject: vmId, vmId, name, foreign: null };
  if (seen === undefined) return { ...about, kind: 'missing', differences: [{ field: 'domain', expected: name, seen: null }], says: 'the node has no such domain any more' };
  if (seen.differences.length === 0) return undefined;
  // Where it runs, another node says.
  if (seen.state === 'stopped' && seen.reason === 'migrated') return { ...about, kind: 'missing', differences: [{ field: 'domain', expected: name, seen: 'its definition' }], says: 'it was migrated to another node by hand; only its definition is left here' };
  const fields = [...new Set(seen.differences.map(({ field }) => field))];
  const stopped = fields.includes('state') ? `: it is ${seen.state} (${seen.reason})` : '';
  return { ...about, kind: 'domain', differences: [...seen.differences], says: `${fields.slice(0, 5).join(', ')}${fields.length > 5 ? ', …' : ''} changed${stopped}`.slice(0, 500) };
}

const strangerOf = ({ vmId, generation, domain }: Stranger): Finding => ({
  kind: vmId === null ? 'foreign' : 'stray', subject: `domain ${domain.uuid}`, vmId, name: domain.name, differences: [], foreign: domain,
  says: vmId === null ? 'a domain that Chronovirt did not make' : `a domain that carries the words of Chronovirt (generation ${String(generation)}), and that this node was not told to have`,
});

const VMS_NAMED_MAX = 50;

const restartedFinding = (lost: readonly Difference[]): Finding => ({
  kind: 'node-restarted', subject: 'restart', vmId: null, name: null, foreign: null,
  differences: [...lost].sort((a, b) => (a.field < b.field ? -1 : 1)).slice(0, VMS_NAMED_MAX),
  says: `the node was started again, and what ran on it did not outlive that (VMs: ${String(lost.length)}); those that are marked so are started again`,
});

function networkFinding({ networkId, name }: NetworkPlan, differences: readonly Difference[]): Finding | undefined {
  const [first] = differences;
  if (first === undefined) return undefined;
  const fields = [...new Set(differences.map(({ field }) => field))];
  const says = first.field === 'network' ? 'the node has no such network any more'
    : fields.includes('active') ? 'the network is not up: its guests reach nobody'
    : fields.includes('dhcp') ? 'its DHCP server does not run: guests that start get no address'
    : fields.includes('firewall') ? 'rules of the packet filter are gone: its guests reach nobody outside, or everybody reaches them'
    : `${fields.slice(0, 5).join(', ')}${fields.length > 5 ? ', …' : ''} changed`;
  return { kind: 'network', subject: networkId, vmId: null, name, differences: [...differences], foreign: null, says };
}

const SUBJECT_CHARACTERS_MAX = 300;
const MIB = 2 ** 20;
const shown = (path: string): string => (path.length <= SUBJECT_CHARACTERS_MAX ? path : `…${path.slice(1 - SUBJECT_CHARACTERS_MAX)}`);
const ofDomain = (wanted: WantedFile | undefined): string => (wanted === undefined ? 'that no VM has' : `of ${wanted.vmName}`);
const diskOf = (volumeId: VolumeId, layer: string | null, wanted: WantedFile | undefined) => ({ subject: layer === null ? volumeId : `${volumeId}.${layer}`, vmId: wanted?.vmId ?? null, name: wanted?.vmName ?? null, foreign: null });

const missingFile = ({ volumeId, layer, path, wanted, virtualBytes }: Found['missing'][number]): Finding => ({
  ...diskOf(volumeId, layer, wanted), kind: 'disk-missing', differences: [{ field: 'file', expected: shown(path), seen: null }],
  says: `the file of a disk ${ofDomain(wanted)}${virtualBytes === null ? '' : `, ${String(Math.ceil(virtualBytes / MIB))} MiB large,`} is gone${wanted?.running === true ? '; while its guest runs it still writes what has no name any more: back it up before it stops' : ''}`,
});

const replacedFile = ({ file: { volumeId, name }, wanted, differences }: Found['replaced'][number]): Finding => ({
  ...diskOf(volumeId, layerIn(name), wanted), kind: 'disk-replaced', differences: [...differences],
  says: `another file lies in the place of a disk ${ofDomain(wanted)}${wanted?.running === true ? '; its guest still writes the one before, which has no name any more' : ''}`,
});

/** What may be the disk of a volume: that its header is sound is seen when it becomes one. */
const diskIn = ({ sizeBytes, virtualBytes }: Found['strange'][number]['file']): readonly Difference[] => {
  if (virtualBytes !== null) return [{ field: 'format', expected: null, seen: 'qcow2' }, { field: 'virtualBytes', expected: null, seen: virtualBytes }];
  return sizeBytes === null || sizeBytes === 0 || sizeBytes % SECTOR_BYTES !== 0 ? [] : [{ field: 'format', expected: null, seen: 'raw' }, { field: 'virtualBytes', expected: null, seen: sizeBytes }];
};
const SECTOR_BYTES = 512;

const strangeFile = (path: string, { folder: { poolId }, file }: Found['strange'][number]): Finding => ({
  kind: 'orphan-disk', subject: shown(path), vmId: null, name: file.name.slice(0, SUBJECT_CHARACTERS_MAX), foreign: null,
  differences: [{ field: 'bytes', expected: null, seen: file.bytes }, { field: 'changedAt', expected: null, seen: new Date(file.changedMs).toISOString() }, { field: 'pool', expected: null, seen: poolId }, ...diskIn(file)],
  says: `a file of ${String(Math.ceil(file.bytes / MIB))} MiB in the folder of a pool that is no volume's${volumeIn(file.name) === undefined ? '' : ': there is no volume of that name'}`,
});
