/*
 * kill -9 of everything, everywhere.
 *
 * A crash point is a moment of a scenario (create, the undo of a create, delete) and a part that is killed
 * at that moment. Moments are waypoints (libs/observability/src/waypoints.ts): whoever reaches one stands
 * still, the part is killed by its id, the one who stood goes on, the part is started again. The list is
 * generated: each scenario runs once with a trace, and what was passed is what there is.
 *
 *   <receiver>.<command>.before   before its effect: nothing is recorded, nothing changed on the node
 *   <receiver>.<command>.after    after the commit, or the journal; nobody has been told
 *   agent.<verb>.done             the node has changed and its journal does not know
 *   saga-….TakeAnswer.<step>.…    the scheduler has an answer and not recorded it, or not gone on from it
 *   send.<service>.<command>.…    around the sending of a command
 *
 * At the first three every part is killed; at the others the process that stands there.
 */
import { mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { atRest } from './invariants.ts';
import { arm, isHeld, release, startPlatform, type Part, type Platform } from './platform.ts';
import { wish, type Accepted, type Operation } from './rest.ts';
import { addTestNode, type TestNode } from './test-node.ts';

export const SCENARIOS = ['create', 'undo', 'delete'] as const;
export type Scenario = (typeof SCENARIOS)[number];

export interface CrashPoint {
  readonly scenario: Scenario;
  readonly waypoint: string;
  /** Who is killed. */
  readonly victim: Part;
}

export interface CrashResult extends CrashPoint {
  /** How the operation ended. */
  readonly outcome: Operation['status'];
  /** From when every part was up again to the operation's end; 0 when it ended before. */
  readonly seconds: number;
  /** The whole point, from the first request to everything at rest and given back. */
  readonly tookSeconds: number;
}

export interface CrashField {
  readonly platform: Platform;
  readonly node: TestNode;
  stop(): Promise<void>;
}

const AGENT = 'alpha';
export const VICTIMS: readonly Part[] = ['api-gateway', 'scheduler', 'ipam', 'storage', 'monitor', AGENT, 'nats', 'postgres'];

/** A platform on which many points are tried, one after another. */
export async function openCrashField(): Promise<CrashField> {
  const platform = await startPlatform({ waypoints: true });
  try {
    const node = await addTestNode(platform, AGENT);
    return {
      platform, node,
      stop: async () => {
        await platform.stop();
        await node.stop();
      },
    };
  } catch (error) {
    await platform.stop();
    throw error;
  }
}

/** What happens anyway, whatever is asked for. */
const BACKGROUND = /^(vm\.RecordDomainState|node\.(StartSession|RegisterNode|ChangeNode)|pool\.RegisterPool|presence\.|machine|join-token|token|operation)\b/;
const AT_RECEIVER = /^(vm|vm-name|node|subnet|pool|volume|agent)\./;
const HELD_AT_MOST_MS = 15_000;
const ENDS_WITHIN_MS = 180_000;
/** On top of an operation's deadline, once every part is up again. */
const GRACE_MS = 60_000;
const AT_REST_WITHIN_MS = 90_000;

/** Runs every scenario once and says which points there are, in an order that never changes. */
export async function crashPoints(field: CrashField): Promise<readonly CrashPoint[]> {
  const folder = join(field.platform.waypoints ?? '', 'trace');
  const passed = new Map<Scenario, readonly string[]>();
  for (const scenario of SCENARIOS) {
    let names: readonly string[] = [];
    await play(field, scenario, `trace-${scenario}`, {
      begins: () => { mkdirSync(folder); },
      meanwhile: () => Promise.resolve(),
      ended: () => {
        names = [...new Set(readdirSync(folder).flatMap((file) => readFileSync(join(folder, file), 'utf8').split('\n').filter((line) => line !== '')))].sort();
        rmSync(folder, { recursive: true, force: true, maxRetries: 5, retryDelay: 20 });
      },
    });
    passed.set(scenario, names.filter((name) => !BACKGROUND.test(name)));
  }
  return SCENARIOS.flatMap((scenario) => (passed.get(scenario) ?? []).flatMap((waypoint) => victimsAt(waypoint).map((victim): CrashPoint => ({ scenario, waypoint, victim }))));
}

const victimsAt = (waypoint: string): readonly Part[] => {
  if (AT_RECEIVER.test(waypoint)) return VICTIMS;
  return waypoint.startsWith('send.gateway.') ? ['api-gateway'] : ['scheduler'];
};

interface Played {
  readonly operation: Operation;
  readonly endedAtMs: number;
}

interface Around {
  /** What is looked at begins now: the request comes next, or, for an undo, the refusal that causes it. */
  readonly begins: () => void;
  /** Runs beside it. */
  readonly meanwhile: () => Promise<void>;
  /** The operation has ended; what follows only gives back what was made. */
  readonly ended: () => void;
}

/** Plays a scenario to its end and gives everything back. */
async function play({ platform, node }: CrashField, scenario: Scenario, name: string, { begins, meanwhile, ended }: Around): Promise<Played> {
  const { rest } = platform;
  const ask = (method: string, path: string, body: unknown, what: string): Promise<Accepted> => rest.insist<Accepted>(method, path, body, `${name}-${what}`, 60_000);
  const theEnd = async (operation: Operation): Promise<Played> => {
    const played = { operation: await rest.ended(operation.id, ENDS_WITHIN_MS), endedAtMs: performance.now() };
    // The VM's own end is shown before the saga has recorded its own.
    await rest.until('the saga has ended', async () => {
      const [row] = await platform.sql<{ open: string }>(`select count(*) filter (where type = 'SagaStarted') - count(*) filter (where type = 'SagaEnded') as open from event_log.event where stream like 'saga-%'`);
      return Number(row?.open) === 0;
    }, ENDS_WITHIN_MS);
    ended();
    return played;
  };
  const giveBack = async (vmId: string): Promise<void> => {
    const { operation } = await ask('DELETE', `/v1/vms/${vmId}?force=true`, undefined, 'give-back');
    await rest.succeeded(operation.id, ENDS_WITHIN_MS);
  };

  switch (scenario) {
    case 'create': {
      begins();
      const [{ operation, vm }] = await Promise.all([ask('POST', '/v1/vms', wish(name), 'create'), meanwhile()]);
      const played = await theEnd(operation);
      await atRest(platform, [node], AT_REST_WITHIN_MS);
      await giveBack(vm.id);
      return played;
    }
    case 'delete': {
      const vm = await rest.running(wish(name));
      begins();
      const [{ operation }] = await Promise.all([ask('DELETE', `/v1/vms/${vm.id}?force=true`, undefined, 'delete'), meanwhile()]);
      return theEnd(operation);
    }
    case 'undo': {
      // The disk vanishes before the boot, which is therefore refused: everything is taken back.
      const spoil = 'agent.StartDomain.before';
      arm(platform, spoil);
      const asked = ask('POST', '/v1/vms', wish(name), 'create');
      if (!(await isHeld(platform, spoil, HELD_AT_MOST_MS))) throw new Error('the boot was never reached');
      for (const file of readdirSync(node.poolDir).filter((entry) => entry.endsWith('.qcow2'))) rmSync(join(node.poolDir, file));
      begins();
      release(platform, spoil);
      const [{ operation, vm }] = await Promise.all([asked, meanwhile()]);
      const played = await theEnd(operation);
      // Before the VM is deleted: that would also take away what the undo forgot.
      await atRest(platform, [node], AT_REST_WITHIN_MS);
      await giveBack(vm.id);
      return played;
    }
  }
}

/** Tries one point. Throws when anything does not hold. */
export async function tryPoint(field: CrashField, point: CrashPoint, number: number): Promise<CrashResult> {
  const { platform, node } = field;
  const beganAt = performance.now();
  let upAgainAt = 0;
  let played: Played;
  try {
    played = await play(field, point.scenario, `crash-${String(number)}`, {
      begins: () => { arm(platform, point.waypoint); },
      meanwhile: async () => {
        if (!(await isHeld(platform, point.waypoint, HELD_AT_MOST_MS))) throw new Error('nobody came by');
        await platform.kill9(point.victim);
        release(platform, point.waypoint);
        await platform.start(point.victim);
        await platform.ready(60_000);
        upAgainAt = performance.now();
      },
      ended: () => undefined,
    });
  } finally {
    // What a failed point leaves armed or held must not stop the next one.
    for (const state of ['armed', 'held']) for (const name of readdirSync(join(platform.waypoints ?? '', state))) rmSync(join(platform.waypoints ?? '', state, name), { force: true });
  }
  const { operation, endedAtMs } = played;
  const wanted: readonly string[] = point.scenario === 'delete' ? ['succeeded'] : point.scenario === 'create' ? ['succeeded', 'compensated'] : ['compensated'];
  if (!wanted.includes(operation.status)) throw new Error(`the ${operation.kind} ended ${operation.status}: ${JSON.stringify(operation.error)}, owed ${operation.owed.join(', ')}`);
  const deadlineMs = operation.deadlineAt === null || operation.startedAt === null ? 0 : Date.parse(operation.deadlineAt) - Date.parse(operation.startedAt);
  if (endedAtMs - upAgainAt > deadlineMs + GRACE_MS) throw new Error(`it took ${String(Math.round((endedAtMs - upAgainAt) / 1_000))} s from when every part was up again; its deadline is ${String(deadlineMs / 1_000)} s`);
  await atRest(platform, [node], AT_REST_WITHIN_MS);
  return {
    ...point, outcome: operation.status,
    seconds: Math.max(0, endedAtMs - upAgainAt) / 1_000, tookSeconds: (performance.now() - beganAt) / 1_000,
  };
}

/** The point, as a person writes it: `create subnet.LeaseAddress.after, ipam`. */
export const nameOfPoint = ({ scenario, waypoint, victim }: CrashPoint): string => `${scenario} ${waypoint}, ${victim}`;

/** `count` of them, each with the same chance; the same seed always draws the same. */
export function draw(points: readonly CrashPoint[], count: number, seed: number): readonly CrashPoint[] {
  let state = seed >>> 0;
  // mulberry32: a public-domain generator of 32 bits, enough to shuffle a list.
  const random = (): number => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  const left = [...points];
  return Array.from({ length: Math.min(count, points.length) }, () => left.splice(Math.floor(random() * left.length), 1)).flat();
}

