/*
 * kill -9 of everything, everywhere.
 *
 * A crash point is a moment of a scenario (create, the undo of a create, a snapshot, …) and a part that is killed
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
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { sequence } from '@chronovirt/decider/saga-property';
import { atRest } from './invariants.ts';
import { arm, isHeld, release, startPlatform, type Part, type Platform } from './platform.ts';
import { wish, type Accepted, type Operation, type Vm } from './rest.ts';
import { addTestNode, type TestNode } from './test-node.ts';

const AGENT = 'alpha';
const SECOND_NETWORK = 'second';
/** No node has its file. */
const LOST_IMAGE = 'lost';

interface Stage {
  readonly platform: Platform;
  readonly node: TestNode;
  /** A folder below which the node may have pools. */
  readonly root: string;
  /** What this VM, and everything about it, is called. */
  readonly name: string;
  /** A write, sent again with one key while nobody answers. */
  readonly ask: (method: string, path: string, body: unknown, what: string) => Promise<Accepted>;
}

interface Scene {
  /** Brings about what must be there first; what it answers begins what is looked at. */
  readonly set: (stage: Stage) => Promise<() => Promise<Accepted>>;
  readonly ends: readonly Operation['status'][];
  /** What must hold of it besides, once it has ended; it may give back what only it knows of. */
  readonly afterwards?: (stage: Pick<Stage, 'node' | 'name'>, operation: Operation) => Promise<void>;
  /** Nothing is left to be given back. */
  readonly takesAway?: boolean;
}

/** What can be taken back may be, when its step was overdue. */
const EITHER: Scene['ends'] = ['succeeded', 'compensated'];

const stopped = async ({ platform: { rest }, name }: Stage): Promise<Vm> => {
  const vm = await rest.running(wish(name));
  await rest.done('POST', `/v1/vms/${vm.id}/stop`, { timeoutSeconds: 0, force: true });
  return rest.vm(vm.id);
};
/** Asks something of a VM that is stopped. */
const ofStopped = (what: string, method: string, path: string, body?: object): Scene['set'] => async (stage) => {
  const { id } = await stopped(stage);
  return () => stage.ask(method, `/v1/vms/${id}${path}`, body, what);
};
const volumeOf = async ({ platform: { rest }, name }: Stage): Promise<string> => {
  const { operation, volumeId } = await rest.ok<Accepted & { readonly volumeId: string }>('POST', '/v1/volumes', { name, sizeGib: 1 });
  await rest.succeeded(operation.id);
  return volumeId;
};
const snapshotted = async (stage: Stage, kind: 'external' | 'internal' = 'external'): Promise<string> => {
  const { platform: { rest } } = stage;
  const { id } = await stopped(stage);
  for (const name of ['first', 'second']) await rest.done('POST', `/v1/vms/${id}/snapshots`, { name, kind });
  const { items } = await rest.ok<{ items: readonly { readonly id: string; readonly name: string }[] }>('GET', `/v1/vms/${id}/snapshots`);
  return `/v1/vms/${id}/snapshots/${items.find(({ name }) => name === 'first')?.id ?? ''}`;
};

const poolOf = (stage: Stage): object => ({ type: 'dir', name: stage.name, node: AGENT, path: join(stage.root, stage.name) });

/** Domains that somebody made by hand, by the name of their scene. */
const foreign = new Map<string, string>();

const SCENES = {
  create: { ends: EITHER, set: ({ name, ask }) => Promise.resolve(() => ask('POST', '/v1/vms', wish(name), 'create')) },
  undo: {
    ends: ['compensated'],
    // The disk vanishes before the boot, which is therefore refused: everything is taken back.
    set: async ({ platform, node, name, ask }) => {
      const spoil = 'agent.StartDomain.before';
      arm(platform, spoil);
      const asked = ask('POST', '/v1/vms', wish(name), 'create');
      if (!(await isHeld(platform, spoil, HELD_AT_MOST_MS))) throw new Error('the boot was never reached');
      for (const file of readdirSync(node.poolDir).filter((entry) => entry.endsWith('.qcow2'))) rmSync(join(node.poolDir, file));
      return () => {
        release(platform, spoil);
        return asked;
      };
    },
  },
  delete: {
    ends: ['succeeded'], takesAway: true,
    set: async ({ platform: { rest }, name, ask }) => {
      const { id } = await rest.running(wish(name));
      return () => ask('DELETE', `/v1/vms/${id}?force=true`, undefined, 'delete');
    },
  },
  saved: {
    ends: EITHER,
    set: async ({ platform: { rest }, name, ask }) => {
      const { id } = await rest.running(wish(name));
      return () => ask('POST', `/v1/vms/${id}/save`, undefined, 'save');
    },
  },
  'went-on': {
    ends: EITHER,
    set: async ({ platform: { rest }, name, ask }) => {
      const { id } = await rest.running(wish(name));
      await rest.done('POST', `/v1/vms/${id}/save`);
      return () => ask('POST', `/v1/vms/${id}/start`, undefined, 'go-on');
    },
  },
  start: { ends: EITHER, set: ofStopped('start', 'POST', '/start') },
  rename: { ends: EITHER, set: (stage) => ofStopped('rename', 'PATCH', '/hardware', { name: `${stage.name}-renamed` })(stage) },
  'disk-added': { ends: EITHER, set: ofStopped('disk', 'POST', '/volumes', { name: 'data', sizeGib: 1 }) },
  'disk-refused': {
    // The node has no such file: space and record are given back.
    ends: ['compensated'], set: ofStopped('disk', 'POST', '/volumes', { name: 'data', sizeGib: 1, image: LOST_IMAGE }),
  },
  'disk-deleted': {
    ends: EITHER,
    set: async (stage) => {
      const { platform: { rest }, ask } = stage;
      const { id } = await stopped(stage);
      await rest.done('POST', `/v1/vms/${id}/volumes`, { name: 'data', sizeGib: 1 });
      const [volume] = ((await rest.vm(id)) as Vm & { volumes: readonly { volumeId: string }[] }).volumes;
      return () => ask('DELETE', `/v1/vms/${id}/volumes/${volume?.volumeId ?? ''}?delete=true`, undefined, 'delete-disk');
    },
  },
  adopted: {
    ends: EITHER,
    set: async ({ platform: { rest }, node, name, ask }) => {
      const uuid = await node.makeForeign(name);
      foreign.set(name, uuid);
      await rest.until('it is found', async () => (await rest.all<{ readonly foreign: { readonly uuid: string } | null }>('/v1/drift?class=foreign')).some((item) => item.foreign?.uuid === uuid), FOUND_WITHIN_MS, 100);
      return () => ask('POST', `/v1/nodes/${node.nodeId}/foreign/${uuid}/adopt`, {}, 'adopt');
    },
    // Whatever became of it, it runs; it is either ours or not at all.
    afterwards: async ({ node, name }, { status }) => {
      const uuid = foreign.get(name) ?? '';
      const seen = await node.seen(uuid);
      if (!seen.runs || seen.ours !== (status === 'succeeded')) throw new Error(`the adoption ended ${status}, and the domain ${seen.runs ? 'runs' : 'does not run'} and ${seen.ours ? 'carries our words' : 'is nobody\'s'}`);
      foreign.delete(name);
      if (!seen.ours) await node.removeForeign(uuid);
    },
  },
  'volume-made': { ends: EITHER, set: ({ name, ask }) => Promise.resolve(() => ask('POST', '/v1/volumes', { name, sizeGib: 1 }, 'volume')) },
  'volume-cloned': {
    ends: EITHER,
    set: async (stage) => {
      const source = await volumeOf(stage);
      return () => stage.ask('POST', '/v1/volumes', { name: `${stage.name}-clone`, from: { volume: source } }, 'clone');
    },
  },
  'volume-converted': {
    ends: EITHER,
    set: async (stage) => {
      const source = await volumeOf(stage);
      return () => stage.ask('POST', `/v1/volumes/${source}/convert`, { format: 'raw' }, 'convert');
    },
  },
  'volume-published': {
    ends: EITHER,
    set: async (stage) => {
      const source = await volumeOf(stage);
      return () => stage.ask('POST', `/v1/volumes/${source}/publish`, { name: stage.name }, 'publish');
    },
  },
  published: { ends: EITHER, set: (stage) => ofStopped('publish', 'POST', '/publish', { name: stage.name })(stage) },
  rebuilt: { ends: EITHER, set: ofStopped('rebuild', 'POST', '/rebuild', {}) },
  'pool-made': { ends: EITHER, set: (stage) => Promise.resolve(() => stage.ask('POST', '/v1/pools', poolOf(stage), 'pool')) },
  'pool-deleted': {
    ends: EITHER,
    set: async (stage) => {
      const { operation, poolId } = await stage.platform.rest.ok<Accepted & { readonly poolId: string }>('POST', '/v1/pools', poolOf(stage));
      await stage.platform.rest.succeeded(operation.id);
      return () => stage.ask('DELETE', `/v1/pools/${poolId}`, undefined, 'delete-pool');
    },
  },
  'interface-added': { ends: EITHER, set: ofStopped('nic', 'POST', '/nics', { network: SECOND_NETWORK }) },
  backup: { ends: EITHER, set: ofStopped('backup', 'POST', '/backups', {}) },
  drill: {
    // However it ends, its machine is gone.
    ends: EITHER, takesAway: true,
    set: async (stage) => {
      const { platform: { rest }, ask, name } = stage;
      const { id } = await stopped(stage);
      const { operation, backupId } = await rest.ok<Accepted & { readonly backupId: string }>('POST', `/v1/vms/${id}/backups`, {});
      await rest.succeeded(operation.id);
      // A backup outlives what it was taken of.
      await rest.gone(id);
      return () => ask('POST', `/v1/backups/${backupId}/drill`, { timeoutSeconds: 10 }, `drill-${name}`);
    },
  },
  snapshot: { ends: EITHER, set: ofStopped('snapshot', 'POST', '/snapshots', { name: 'first' }) },
  revert: {
    ends: EITHER,
    set: async (stage) => {
      const first = await snapshotted(stage);
      return () => stage.ask('POST', `${first}/revert`, undefined, 'revert');
    },
  },
  'snapshot-inside': { ends: EITHER, set: ofStopped('snapshot', 'POST', '/snapshots', { name: 'first', kind: 'internal' }) },
  'revert-inside': {
    ends: EITHER,
    set: async (stage) => {
      const first = await snapshotted(stage, 'internal');
      return () => stage.ask('POST', `${first}/revert`, undefined, 'revert');
    },
  },
  'snapshot-deleted': {
    ends: ['succeeded'],
    set: async (stage) => {
      const first = await snapshotted(stage);
      return () => stage.ask('DELETE', first, undefined, 'delete-snapshot');
    },
  },
} as const satisfies Readonly<Record<string, Scene>>;

export type Scenario = keyof typeof SCENES;
export const SCENARIOS = Object.keys(SCENES) as readonly Scenario[];
const sceneOf = (scenario: Scenario): Scene => SCENES[scenario];

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
  readonly root: string;
  stop(): Promise<void>;
}

export const VICTIMS: readonly Part[] = ['api-gateway', 'scheduler', 'ipam', 'storage', 'monitor', AGENT, 'nats', 'postgres'];

/** A platform on which many points are tried, one after another. */
export async function openCrashField(): Promise<CrashField> {
  const root = mkdtempSync(join(tmpdir(), 'cv-crash-'));
  const platform = await startPlatform({ waypoints: true, environment: { CV_NODE_AGENT_POOL_ROOTS: root } });
  try {
    const node = await addTestNode(platform, AGENT);
    await platform.rest.ok('POST', '/v1/networks', { name: SECOND_NETWORK, kind: 'nat', cidr: '10.77.2.0/24' });
    await platform.rest.ok('POST', '/v1/images', { name: LOST_IMAGE, file: 'lost.qcow2', format: 'qcow2', sha256: '0'.repeat(64), sizeBytes: 1 });
    // To libvirt's test driver every disk has a tebibyte.
    for (const pool of await platform.rest.all<{ readonly id: string }>('/v1/pools')) await platform.rest.ok('PATCH', `/v1/pools/${pool.id}`, { overcommitPercent: 10_000 });
    return {
      platform, node, root,
      stop: async () => {
        await platform.stop();
        await node.stop();
        rmSync(root, { recursive: true, force: true });
      },
    };
  } catch (error) {
    await platform.stop();
    throw error;
  }
}

/** What happens anyway, whatever is asked for, and what a quick copy has no time to say. */
const BACKGROUND = /^(vm\.RecordDomainState|agent\.TellDomain|drift\.|archive\.RecordBackupProgress|node\.(StartSession|RegisterNode|ChangeNode)|pool\.RegisterPool|presence\.|machine|join-token|token|operation)\b/;
const AT_RECEIVER = /^(vm|vm-name|node|subnet|pool|volume|archive|agent)\./;
const HELD_AT_MOST_MS = 15_000;
/** The next comparison of everything sees it. */
const FOUND_WITHIN_MS = 60_000;
const ENDS_WITHIN_MS = 180_000;
/** On top of an operation's deadline, once every part is up again. */
const GRACE_MS = 60_000;
const AT_REST_WITHIN_MS = 90_000;

/** Runs every scenario once and says which points there are, in an order that never changes. */
export async function crashPoints(field: CrashField, scenarios: readonly Scenario[] = SCENARIOS): Promise<readonly CrashPoint[]> {
  const folder = join(field.platform.waypoints ?? '', 'trace');
  const passed = new Map<Scenario, readonly string[]>();
  for (const scenario of scenarios) {
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
  return scenarios.flatMap((scenario) => (passed.get(scenario) ?? []).flatMap((waypoint) => victimsAt(waypoint).map((victim): CrashPoint => ({ scenario, waypoint, victim }))));
}

const victimsAt = (waypoint: string): readonly Part[] => {
  if (AT_RECEIVER.test(waypoint)) return VICTIMS;
  return waypoint.startsWith('send.gateway.') ? ['api-gateway'] : ['scheduler'];
};

/** What a scenario may leave behind that outlives its operation. */
interface Left {
  readonly id: string;
  readonly name: string | null;
  readonly status: string;
  readonly type?: string;
}

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
async function play(field: CrashField, scenario: Scenario, name: string, { begins, meanwhile, ended }: Around): Promise<Played> {
  const { platform, node } = field;
  const { rest } = platform;
  const ask: Stage['ask'] = (method, path, body, what) => rest.insist<Accepted>(method, path, body, `${name}-${what}`, 60_000);
  const act = await sceneOf(scenario).set({ ...field, name, ask });
  begins();
  const [{ operation }] = await Promise.all([act(), meanwhile()]);
  const played = { operation: await rest.ended(operation.id, ENDS_WITHIN_MS), endedAtMs: performance.now() };
  await sagasEnded(platform);
  // Before the VM is deleted: that would also take away what was forgotten.
  await atRest(platform, [node], AT_REST_WITHIN_MS);
  ended();
  await sceneOf(scenario).afterwards?.({ node, name }, played.operation);
  // An adoption that was taken back leaves no VM.
  const isGone = operation.vmId !== null && (await platform.rest.call('GET', `/v1/vms/${operation.vmId}`)).status === 404;
  const giveBack = async (path: string): Promise<void> => {
    const { operation: last } = await ask('DELETE', path, undefined, `give-back-${path}`);
    await rest.succeeded(last.id, ENDS_WITHIN_MS);
  };
  if (operation.vmId !== null && sceneOf(scenario).takesAway !== true && !isGone) await giveBack(`/v1/vms/${operation.vmId}?force=true&deleteDisks=true`);
  for (const [what, isOurs] of [['volumes', ({ status }) => status === 'detached' || status === 'failed'], ['pools', ({ type, status }) => type === 'dir' && status !== 'deleting']] as const satisfies readonly (readonly [string, (one: Left) => boolean])[]) {
    for (const one of await rest.all<Left>(`/v1/${what}`)) if (isOurs(one)) await giveBack(`/v1/${what}/${one.id}`);
  }
  for (const image of await rest.all<Left>('/v1/images')) if (image.name === name) await rest.insist('DELETE', `/v1/images/${image.id}`, undefined, `give-back-${image.id}`, 60_000);
  // What is deleted by an operation of its own begins after that which let go of it.
  await atRest(platform, [node], AT_REST_WITHIN_MS);
  return played;
}

/** The VM's own end is shown before the saga has recorded its own. */
async function sagasEnded(platform: Platform): Promise<void> {
  await platform.rest.until('every saga has ended', async () => {
    const [row] = await platform.sql<{ open: string }>(`select count(*) filter (where type = 'SagaStarted') - count(*) filter (where type = 'SagaEnded') as open from event_log.event where stream like 'saga-%'`);
    return Number(row?.open) === 0;
  }, ENDS_WITHIN_MS);
}

/** Tries one point. Throws when anything does not hold. */
export async function tryPoint(field: CrashField, point: CrashPoint, number: number): Promise<CrashResult> {
  const { platform } = field;
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
  if (!sceneOf(point.scenario).ends.includes(operation.status)) throw new Error(`the ${operation.kind} ended ${operation.status}: ${JSON.stringify(operation.error)}, owed ${operation.owed.join(', ')}`);
  const deadlineMs = operation.deadlineAt === null || operation.startedAt === null ? 0 : Date.parse(operation.deadlineAt) - Date.parse(operation.startedAt);
  if (endedAtMs - upAgainAt > deadlineMs + GRACE_MS) throw new Error(`it took ${String(Math.round((endedAtMs - upAgainAt) / 1_000))} s from when every part was up again; its deadline is ${String(deadlineMs / 1_000)} s`);
  return {
    ...point, outcome: operation.status,
    seconds: Math.max(0, endedAtMs - upAgainAt) / 1_000, tookSeconds: (performance.now() - beganAt) / 1_000,
  };
}

/** The point, as a person writes it: `create subnet.LeaseAddress.after, ipam`. */
export const nameOfPoint = ({ scenario, waypoint, victim }: CrashPoint): string => `${scenario} ${waypoint}, ${victim}`;

/** `count` of them, each with the same chance; the same seed always draws the same. */
export function draw(points: readonly CrashPoint[], count: number, seed: number): readonly CrashPoint[] {
  const random = sequence(seed);
  const left = [...points];
  return Array.from({ length: Math.min(count, points.length) }, () => left.splice(Math.floor(random() * left.length), 1)).flat();
}

