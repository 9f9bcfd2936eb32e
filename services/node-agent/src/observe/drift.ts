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
import type { NodeId, VmId } from '@chronovirt/contracts/ids';
import { isOfItsGuest } from '../domain/differences.ts';
import { isKnown } from '../domain/told.ts';
import type { Compared, Hypervisor, Stranger } from '../hypervisor.ts';
import type { Journal } from '../journal/journal.ts';

export interface DriftPorts {
  readonly nodeId: NodeId;
  readonly hypervisor: Pick<Hypervisor, 'compare' | 'strangers'>;
  readonly journal: Journal;
  /** Runs it in the VM's queue; undefined when something waits or runs there. */
  readonly whenIdle: <T>(vmId: VmId, work: () => Promise<T>) => Promise<T> | undefined;
  readonly isBusy: (vmId: VmId) => boolean;
  /** Resolves once the bus has stored the report. */
  readonly report: (report: DriftReport) => Promise<void>;
  readonly now: () => Date;
  readonly failed: (vmId: VmId | undefined, fault: unknown) => void;
}

export interface DriftWatch {
  /** Reports carry this session from now on. */
  adopt(session: number): void;
  pause(): void;
  /** It may not be what it was. Never rejects. */
  look(vmId: VmId): Promise<void>;
  /** Whether something is known to differ about it. */
  knows(vmId: VmId): boolean;
  /** Whether it was this report that last asked what this node was told of it, and nothing was done to it since. */
  isAsked(vmId: VmId, report: number): boolean;
  /** Something is done to it: whatever is told of how it was before that is void. */
  takeBack(vmId: VmId): void;
  /** A domain that is not ours came, went or changed. Never rejects. */
  lookAround(): Promise<void>;
  /** Compares everything; false when that could not be done. Never rejects. */
  sweep(): Promise<boolean>;
}

export function createDriftWatch({ nodeId, hypervisor, journal, whenIdle, isBusy, report, now, failed }: DriftPorts): DriftWatch {
  /** By subject: what differs of VMs of ours, and what else there is. */
  const ours = new Map<VmId, Finding>();
  let others: readonly Finding[] = [];
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
    const findings = [...ours.values(), ...others].sort((a, b) => (a.subject < b.subject ? -1 : a.subject > b.subject ? 1 : 0));
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

  const compare = async (vmId: VmId): Promise<void> => {
    const told = journal.told(vmId);
    if (!isKnown(told) || !isHere(vmId)) {
      ours.delete(vmId);
      return;
    }
    const seen = await hypervisor.compare(told);
    if (seen !== undefined && isOfItsGuest(told.power, seen)) journal.tell({ ...told, power: 'stopped' });
    const finding = findingOf(vmId, told.plan.name, seen);
    if (finding === undefined) ours.delete(vmId);
    else ours.set(vmId, finding);
  };

  const lookAt = async (vmId: VmId): Promise<void> => {
    await whenIdle(vmId, () => compare(vmId));
  };

  const around = async (): Promise<void> => {
    const here = new Set(journal.vms().flatMap((known) => (known.here && isVm(known.vmId) ? [known.vmId] : [])));
    const strangers = await hypervisor.strangers(here);
    others = strangers.map(strangerOf);
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
    knows: (vmId) => ours.has(vmId),
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
        for (const vmId of ours.keys()) if (!told.includes(vmId)) ours.delete(vmId);
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
