/*
 * Which faults a run has, and how often. Each is drawn on its own to be absent, mild or heavy: runs in which
 * everything goes wrong at once hide what a single fault in an otherwise calm world brings to light.
 */
import type { Random } from './random.ts';

export interface Weather {
  /** Of a message's copies: never arrives, arrives twice, arrives long after others. */
  readonly dropped: number;
  readonly repeated: number;
  readonly late: number;
  /** Milliseconds: the longest an ordinary message takes, and a late one. */
  readonly ordinaryMs: number;
  readonly lateMs: number;
  /** At each step (read, append, send) of a service: it is killed there. */
  readonly serviceKilled: number;
  /** At each step of a service: it stands still for up to this long, with whatever it has just read. */
  readonly frozen: number;
  readonly frozenMs: number;
  /** Of calls to the log: fail, having done nothing or all of it. */
  readonly logFailing: number;
  /** The log is away, over the whole run. */
  readonly logOutages: number;
  /** At each verb of an agent, before or after its effect: it is killed there. */
  readonly agentKilled: number;
  /** When an agent is killed: its journal is lost with it. */
  readonly journalLost: number;
  /** Of verbs: refused by the hypervisor, failing without an answer, hanging. */
  readonly refused: number;
  readonly failing: number;
  readonly hanging: number;
  readonly hangingMs: number;
  /** Of guests: do not hear the power button. */
  readonly deaf: number;
  /** Domains that die by themselves, over the whole run. */
  readonly crashes: number;
  /** Nodes that go dark for a while, nodes that never come back, links of services that break, over the whole run. */
  readonly darkNodes: number;
  readonly lostNodes: number;
  readonly brokenLinks: number;
  /** The bus forgets everything; the bus is away. */
  readonly wipes: number;
  readonly outages: number;
  /** Services that are away for long: longer than a step may take. */
  readonly longAbsences: number;
  readonly leaders: 1 | 2;
  /** Room for nearly nothing: capacity, disk space, addresses. */
  readonly narrow: { readonly capacity: boolean; readonly space: boolean; readonly addresses: boolean };
}

export const calm: Weather = {
  dropped: 0, repeated: 0, late: 0, ordinaryMs: 3, lateMs: 0, serviceKilled: 0, frozen: 0, frozenMs: 0, logFailing: 0, logOutages: 0, agentKilled: 0, journalLost: 0,
  refused: 0, failing: 0, hanging: 0, hangingMs: 0, deaf: 0, crashes: 0, darkNodes: 0, lostNodes: 0, brokenLinks: 0, wipes: 0, outages: 0, longAbsences: 0, leaders: 1,
  narrow: { capacity: false, space: false, addresses: false },
};

export const weatherOf = (random: Random): Weather => {
  const of = (mild: number, heavy: number): number => (random.chance(0.5) ? 0 : random.chance(0.7) ? mild : heavy);
  return {
    dropped: of(0.01, 0.15), repeated: of(0.05, 0.3), late: of(0.01, 0.05), ordinaryMs: random.pick([3, 20, 200]), lateMs: random.pick([2_000, 40_000, 150_000]),
    serviceKilled: of(0.001, 0.01), frozen: of(0.001, 0.01), frozenMs: random.pick([500, 10_000, 60_000]),
    logFailing: of(0.002, 0.02), logOutages: of(1, 2),
    agentKilled: of(0.02, 0.1), journalLost: random.pick([0, 0.3, 1]),
    refused: of(0.02, 0.1), failing: of(0.03, 0.2), hanging: of(0.01, 0.05), hangingMs: random.pick([1_000, 30_000, 120_000]), deaf: of(0.1, 0.5), crashes: of(3, 12),
    darkNodes: of(1, 3), lostNodes: random.chance(0.25) ? 1 : 0, brokenLinks: of(1, 4), wipes: of(1, 3), outages: of(1, 2), longAbsences: of(1, 2),
    leaders: random.chance(0.3) ? 2 : 1,
    narrow: { capacity: random.chance(0.3), space: random.chance(0.2), addresses: random.chance(0.2) },
  };
};
