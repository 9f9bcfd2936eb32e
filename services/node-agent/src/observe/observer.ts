/*
 * What the node tells of its domains without being asked.
 *
 * An event of the hypervisor is only a nudge: the domain is then looked at, and reported when it is not
 * as last told. So a lost event costs no more than the time to the next sweep, and an event that says
 * nothing new costs nothing.
 *
 * A report's number is taken before the domain is looked at. What changes after the look makes its own
 * event, hence a look with a higher number; so whoever believes the highest number ends with the truth.
 * (Numbered afterwards, an old look could carry the highest number for ever.) For the same reason one
 * domain has at most one report on its way.
 *
 * Whoever reads the reports may stand still between reading and writing, and then write an old one last: what
 * was told is no proof of what is believed. So each domain is told again now and then; what is no news there
 * writes nothing.
 */
import type { DomainReport, ObservedFacts } from '@chronovirt/contracts/agent/agent.commands';
import type { NodeId, VmId } from '@chronovirt/contracts/ids';
import type { Hypervisor, SeenDomain } from '../hypervisor.ts';

export interface ObserverPorts {
  readonly nodeId: NodeId;
  readonly hypervisor: Pick<Hypervisor, 'domain' | 'domains'>;
  /** Resolves once the bus has stored the report. */
  readonly report: (report: DomainReport) => Promise<void>;
  readonly now: () => Date;
  /** A sweep tells again what was told so long ago. Milliseconds. */
  readonly tellAgainMs: number;
  /** The newest generation known of a VM, 0 when unknown: an absent domain has none of its own. */
  readonly generationOf: (vmId: VmId) => number;
  /** VMs that should be looked for even where the hypervisor has no domain. */
  readonly expected: () => readonly VmId[];
  readonly failed: (vmId: VmId | undefined, fault: unknown) => void;
}

export interface Observer {
  /** Everything there is, as a hello tells it. What differs from it later is reported. */
  inventory(): Promise<readonly SeenDomain[]>;
  /** Reports carry this session from now on. */
  adopt(session: number): void;
  /** No session: nothing is reported, since the next hello tells everything. */
  pause(): void;
  /** Looks at one domain and reports it when it is not as last told. Never rejects. */
  look(vmId: VmId): Promise<void>;
  /** Looks at all; false when that could not be done. Never rejects. */
  sweep(): Promise<boolean>;
  /** A domain's state for an answer, numbered like a report. */
  facts(vmId: VmId): Promise<ObservedFacts>;
}

const same = (a: SeenDomain | undefined, b: SeenDomain): boolean =>
  a !== undefined && a.state === b.state && a.reason === b.reason && a.generation === b.generation;

export function createObserver({ nodeId, hypervisor, report, now, tellAgainMs, generationOf, expected, failed }: ObserverPorts): Observer {
  /** `at`: when; milliseconds since the epoch. */
  const told = new Map<VmId, SeenDomain & { readonly at: number }>();
  /** Reports that went out and were not confirmed: they may arrive yet, so whatever is seen next is news. */
  const unconfirmed = new Set<VmId>();
  /** What is to be told again, though it is no news. */
  const due = new Set<VmId>();
  /** Domains that are being looked at; true when something happened since the look began. */
  const looking = new Map<VmId, { again: boolean; readonly done: Promise<void> }>();
  let session = 0;
  let reporting = false;
  let sequence = 0;
  /** Raised when `told` begins anew: a report that was on its way then says nothing about what was told since. */
  let epoch = 0;

  // One word for all ways of not being there: else the same absence would look like news.
  const withGeneration = (seen: SeenDomain): SeenDomain => (seen.state === 'absent' ? { ...seen, generation: generationOf(seen.vmId), reason: 'absent' } : seen);

  const lookOnce = async (vmId: VmId): Promise<void> => {
    if (!reporting) return;
    const stamp = { session, sequence: ++sequence };
    const began = epoch;
    const seen = withGeneration(await hypervisor.domain(vmId));
    // A hello was said meanwhile: a look of its own follows its welcome.
    if (began !== epoch || !reporting) return;
    const before = told.get(vmId);
    const isNews = unconfirmed.has(vmId) || !(same(before, seen) || (before === undefined && seen.state === 'absent' && seen.generation === 0));
    if (!isNews && !due.has(vmId)) return;
    if (isNews) unconfirmed.add(vmId);
    await report({ nodeId, vmId, ...stamp, generation: seen.generation, state: seen.state, reason: seen.reason, nodeAt: now().toISOString(), ...(isNews ? {} : { again: true }) });
    if (began !== epoch) return;
    told.set(vmId, { ...seen, at: now().getTime() });
    unconfirmed.delete(vmId);
    due.delete(vmId);
  };

  const look = (vmId: VmId): Promise<void> => {
    const present = looking.get(vmId);
    if (present !== undefined) {
      present.again = true;
      return present.done;
    }
    const entry = { again: false, done: Promise.resolve() };
    const run = async (): Promise<void> => {
      try {
        do {
          entry.again = false;
          await lookOnce(vmId);
        } while (entry.again);
      } catch (fault) {
        failed(vmId, fault);
      } finally {
        looking.delete(vmId);
      }
    };
    looking.set(vmId, entry);
    entry.done = run();
    return entry.done;
  };

  const everything = async (): Promise<readonly SeenDomain[]> => {
    const there = await hypervisor.domains();
    const found = new Set(there.map((domain) => domain.vmId));
    const missing = [...new Set([...expected(), ...told.keys(), ...unconfirmed])].filter((vmId) => !found.has(vmId));
    return [...there, ...missing.map((vmId) => withGeneration({ vmId, generation: 0, state: 'absent', reason: 'absent' }))];
  };

  return {
    inventory: async () => {
      epoch++;
      const all = await everything();
      told.clear();
      due.clear();
      unconfirmed.clear();
      for (const domain of all) told.set(domain.vmId, { ...domain, at: now().getTime() });
      return all;
    },
    adopt: (next) => {
      if (next !== session) sequence = 0;
      session = next;
      reporting = true;
    },
    pause: () => { reporting = false; },
    look,
    sweep: async () => {
      try {
        const ours = new Set(expected());
        for (const domain of await everything()) {
          const known = told.get(domain.vmId);
          const isTold = same(known, domain) || (domain.state === 'absent' && known?.state === 'absent');
          if (known !== undefined && (domain.state !== 'absent' || ours.has(domain.vmId)) && now().getTime() - known.at >= tellAgainMs) due.add(domain.vmId);
          if (unconfirmed.has(domain.vmId) || due.has(domain.vmId) || !isTold) await look(domain.vmId);
        }
        return true;
      } catch (fault) {
        failed(undefined, fault);
        return false;
      }
    },
    facts: async (vmId) => {
      const stamp = { session, sequence: ++sequence };
      const { state, reason } = await hypervisor.domain(vmId);
      return { state, reason, ...stamp };
    },
  };
}
