/*
 * A whole platform for a test: its own folder, Postgres, bus, services as real processes, and nodes.
 *
 * Every part is a process that the test may kill with `kill9` and bring back with `start`, by name. Names
 * are those of the services; replicas are `scheduler`, `scheduler-2`, …. Nodes are simulated ones in a
 * process of their own (`fleet`), simulated ones in the test's own process, where their machines can be
 * looked into (`here`), or real agents on a libvirtd that the test gives.
 *
 * Nothing is shared with another platform: ports are free ones, sockets lie in the folder. At the end every
 * process is ended by its id; a test that dies takes its platform along.
 */
import type { ChildProcess } from 'node:child_process';
import { createHash } from 'node:crypto';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Fleet } from '@chronovirt/node-agent/fleet.os';
import pg from 'pg';
import { build, isBuilt } from '../tools/build.ts';
import { endOf, hasEnded, startProgram, stopProgram, until, type Program, type StopSignals } from '../tools/child.ts';
import { adminTokenOf, installationOf, locate, makeFolders, REPOSITORY, type Home } from '../tools/home.ts';
import { unprivileged } from '../tools/identity.ts';
import { prepareNats } from '../tools/nats.ts';
import { freePort } from '../tools/ports.ts';
import { preparePostgres, type PostgresRole, type PreparedPostgres } from '../tools/postgres.ts';
import { agentPart, controlPlaneParts, GATEWAY, SERVICES } from '../tools/services.ts';
import { writeWhole } from '../tools/secrets.ts';
import { restOf, type Rest } from './rest.ts';

export type ServiceName = 'api-gateway' | 'scheduler' | 'ipam' | 'storage' | 'monitor';
/** A process of the platform: a service, a replica of it (`ipam-2`), a server, `control-plane`, `fleet`, or an agent by its name. */
export type Part = string;

export interface SimulatedNodes {
  readonly nodes: number;
  readonly cpus?: number;
  readonly memoryMib?: number;
  readonly poolGib?: number;
  /** Of every verb. */
  readonly latencyMs?: number;
}

export interface PlatformOptions {
  /** false: the whole control plane in one process, as `npm start` runs it. Default true. */
  readonly split?: boolean;
  /** How many of each; 1 by default. Only when split. */
  readonly replicas?: Partial<Record<ServiceName, number>>;
  /** Simulated nodes in a process of their own. */
  readonly fleet?: SimulatedNodes;
  /** Simulated nodes in this process: `platform.here` shows their machines. */
  readonly here?: SimulatedNodes;
  /** Processes stand still where the test says so. */
  readonly waypoints?: boolean;
  /** The network `lab` that VMs are given. */
  readonly cidr?: string;
  readonly environment?: Readonly<Record<string, string>>;
}

export interface AgentOptions {
  readonly name: string;
  readonly hypervisor: 'qemu' | 'test' | 'simulated';
  readonly libvirtSocket?: string;
  readonly libvirtInFlight?: number;
  /** A file that is the network namespace of that libvirtd. */
  readonly networkNamespace?: string;
  /** A file with what is another each time that the node was started. */
  readonly bootIdFile?: string;
  readonly imageDir?: string;
  readonly poolDir?: string;
  readonly runDir?: string;
  /** Targets of backups, as in CV_NODE_AGENT_BACKUP_DIRS. */
  readonly backupDirs?: string;
  readonly machineId?: string;
}

export interface Platform {
  readonly dir: string;
  readonly home: Home;
  readonly url: string;
  readonly token: string;
  readonly rest: Rest;
  /** Where processes are held; undefined without `waypoints`. */
  readonly waypoints: string | undefined;
  readonly natsStoreDir: string;
  readonly here: Fleet | undefined;
  /** Parts that were started, ended ones too. */
  parts(): readonly Part[];
  isRunning(part: Part): boolean;
  pidOf(part: Part): number;
  /** SIGKILL; returns when the process is gone. */
  kill9(part: Part): Promise<void>;
  /** SIGTERM, as an operator would. */
  terminate(part: Part): Promise<void>;
  /** Starts a part that ended. Returns when it takes work, or at once with `wait: false`. */
  start(part: Part, wait?: boolean): Promise<void>;
  /** Resolves when every part that was not killed on purpose takes work. */
  ready(withinMs?: number): Promise<void>;
  /** An agent of its own process; it is joined and heard when this returns its node's id. */
  addAgent(options: AgentOptions): Promise<string>;
  /** Rows of a query, asked as a role (default: cv_gateway, which may read the log). */
  sql<T extends object>(query: string, values?: readonly unknown[], role?: PostgresRole): Promise<readonly T[]>;
  postgresUrl(role: PostgresRole): string;
  natsUrl: string;
  natsCreds: string;
  /** The end of a part's log, for the message of a failing test. */
  logOf(part: Part, bytes?: number): string;
  stop(): Promise<void>;
}

/** What every platform begins with. Not `default`: libvirt often has a network of that name. */
export const IMAGE = 'blank';
export const NETWORK = 'lab';

interface Process {
  readonly program: Program;
  readonly stopSignals: StopSignals;
  readonly isReady: () => Promise<boolean>;
  child: ChildProcess;
}

const READY_WITHIN_MS = 30_000;
/** Each node of a fleet, on top: it registers, gets its keys, and says hello. */
const JOINED_WITHIN_MS = 200;
const LAST_WORDS: StopSignals = [['SIGKILL', 5_000]];

export async function startPlatform(options: PlatformOptions = {}): Promise<Platform> {
  const split = options.split ?? true;
  if (!isBuilt()) await build();
  // Short, because sockets lie below it, and enterable, because Postgres and NATS run as another user.
  const dir = mkdtempSync(join(tmpdir(), 'cve-'));
  chmodSync(dir, 0o755);
  const home = locate(dir);
  makeFolders(home, unprivileged());
  const waypoints = options.waypoints === true ? makeWaypoints(dir) : undefined;
  const processes = new Map<Part, Process>();
  const pools = new Map<PostgresRole, pg.Pool>();
  let here: Fleet | undefined;
  let hereClosed = false;

  const killAll = (): void => {
    for (const { child } of processes.values()) if (!hasEnded(child)) child.kill('SIGKILL');
  };
  process.once('exit', killAll);

  const spawned = (part: Part): Process => {
    const found = processes.get(part);
    if (found === undefined) throw new Error(`there is no part called ${part}; there are ${[...processes.keys()].join(', ')}`);
    return found;
  };
  const logOf = (part: Part, bytes = 3_000): string => endOf(spawned(part).program.logFile, bytes);

  const waitFor = async (part: Part, withinMs = READY_WITHIN_MS): Promise<void> => {
    const one = spawned(part);
    const ended = (): boolean => hasEnded(one.child);
    if (await until(async () => ended() || (await one.isReady()), { withinMs, everyMs: 10 }) && !ended()) return;
    throw new Error(`${part} ${ended() ? `ended with ${String(one.child.signalCode ?? one.child.exitCode)}` : `was not ready after ${String(withinMs)} ms`}${logOf(part)}`);
  };

  const launch = async (part: Part, program: Program, stopSignals: StopSignals, isReady: () => Promise<boolean>, withinMs: number | undefined = READY_WITHIN_MS): Promise<void> => {
    processes.set(part, { program, stopSignals, isReady, child: startProgram(program) });
    if (withinMs !== undefined) await waitFor(part, withinMs);
  };

  const stop = async (): Promise<void> => {
    process.removeListener('exit', killAll);
    if (here !== undefined && !hereClosed) await here.close();
    hereClosed = true;
    await Promise.all([...pools.values()].map((pool) => pool.end()));
    // Nothing of it is needed again: services go at once, servers after them.
    for (const last of [false, true]) {
      await Promise.all([...processes].filter(([part]) => (part === 'postgres' || part === 'nats') === last).map(([, { child }]) => stopProgram(child, LAST_WORDS)));
    }
    if (process.env['CV_E2E_KEEP'] === undefined) rmSync(dir, { recursive: true, force: true, maxRetries: 20, retryDelay: 50 });
  };

  try {
    const [postgres, nats, port] = await Promise.all([
      preparePostgres({ dir: join(dir, 'postgres'), socketDir: join(home.sockets, 'pg') }, { settings: { fsync: 'off', full_page_writes: 'off' } }),
      prepareNats({ dir: join(dir, 'nats'), keysDir: join(home.secrets, 'nats') }),
      freePort(),
    ]);
    await Promise.all([
      launch('postgres', postgres.program, postgres.stopSignals, postgres.isReady).then(() => postgres.settle()).then(() => migrateAll(postgres, dir)),
      launch('nats', nats.program, nats.stopSignals, nats.isReady),
    ]);
    const url = `http://127.0.0.1:${String(port)}`;
    const token = adminTokenOf(home);
    const environment = {
      ...(waypoints === undefined ? {} : { CV_WAYPOINTS: waypoints, CV_TEST: '1' }),
      ...options.environment,
    };
    installationOf(home);

    const health: Record<string, number> = {};
    for (const { name } of SERVICES) health[name] = await freePort();
    const around = { home, port, postgres, nats, health };
    const plain = controlPlaneParts(around, split);
    const launching: Promise<void>[] = [];
    for (const { name, program, stopSignals } of plain) {
      const count = split ? (options.replicas?.[name as ServiceName] ?? 1) : 1;
      const service = SERVICES.find((one) => one.name === name);
      for (let replica = 1; replica <= count; replica++) {
        const part = replica === 1 ? name : `${name}-${String(replica)}`;
        const own: Record<string, string> = {};
        // The gateway, and a control plane in one process, tell of themselves where the API is.
        let answersAt = service === undefined || name === GATEWAY ? port : (health[name] ?? 0);
        if (replica > 1 && service !== undefined) {
          answersAt = await freePort();
          own[name === GATEWAY ? 'CV_PORT' : `CV_${service.key}_HEALTH_PORT`] = String(answersAt);
        }
        launching.push(launch(part, { ...program, env: { ...program.env, ...environment, ...own }, logFile: join(home.logs, `${part}.log`) }, stopSignals, isReadyAt(answersAt)));
      }
    }
    await Promise.all(launching);
    const rest = restOf(url, token);

    const sql = async <T extends object>(query: string, values: readonly unknown[] = [], role: PostgresRole = 'cv_gateway'): Promise<readonly T[]> => {
      let pool = pools.get(role);
      if (pool === undefined) {
        pool = new pg.Pool({ connectionString: postgres.url(role), max: 3 });
        pool.on('error', () => undefined);
        pools.set(role, pool);
      }
      return (await pool.query<T>(query, [...values])).rows;
    };

    await Promise.all([
      rest.ok('POST', '/v1/images', { name: IMAGE, file: 'blank.qcow2', format: 'qcow2', sha256: '0'.repeat(64), sizeBytes: 1_048_576, minDiskGib: 1, minMemoryMib: 64 }),
      rest.ok('POST', '/v1/networks', { name: NETWORK, kind: 'nat', cidr: options.cidr ?? '10.99.0.0/16' }),
    ]);

    const nodesReady = async (count: number): Promise<void> => {
      await rest.until(`${String(count)} nodes are ready`, async () => {
        const nodes = await rest.all<{ status: string }>('/v1/nodes');
        return nodes.filter(({ status }) => status === 'ready').length >= count;
      }, 60_000);
      // A node is ready before its pool is registered, and placement needs both.
      await rest.until('every node has a pool', async () => {
        const [row] = await sql<{ pools: string }>(`select count(*) as pools from event_log.event where type = 'PoolRegistered'`);
        return Number(row?.pools) >= count;
      }, 30_000);
    };
    let nodesExpected = 0;
    const simulated = ({ cpus, memoryMib, poolGib, latencyMs }: SimulatedNodes) => ({
      ...(cpus === undefined ? {} : { CV_NODE_AGENT_SIMULATED_CPUS: String(cpus) }),
      ...(memoryMib === undefined ? {} : { CV_NODE_AGENT_SIMULATED_MEMORY_MIB: String(memoryMib) }),
      ...(poolGib === undefined ? {} : { CV_NODE_AGENT_SIMULATED_POOL_GIB: String(poolGib) }),
      ...(latencyMs === undefined ? {} : { CV_NODE_AGENT_SIMULATED_LATENCY_MS: String(latencyMs) }),
    });

    if (options.fleet !== undefined) {
      const healthPort = await freePort();
      const { program, stopSignals } = agentPart({ ...around, health: { ...health, 'node-agent': healthPort } }, { hypervisor: 'simulated' });
      await launch('fleet', {
        ...program, logFile: join(home.logs, 'fleet.log'),
        env: {
          ...program.env, ...environment, ...simulated(options.fleet), CV_NODE_AGENT_STATE_DIR: join(dir, 'fleet'),
          CV_NODE_AGENT_FLEET: String(options.fleet.nodes), CV_NODE_AGENT_FLEET_TOKEN_FILE: home.adminTokenFile,
        },
      }, stopSignals, isReadyAt(healthPort), READY_WITHIN_MS + options.fleet.nodes * JOINED_WITHIN_MS);
      nodesExpected += options.fleet.nodes;
    }
    if (options.here !== undefined) {
      const [{ startFleet }, { readConfig }] = await Promise.all([import('@chronovirt/node-agent/fleet.os'), import('@chronovirt/node-agent/config')]);
      const config = readConfig({
        CV_NODE_AGENT_GATEWAY_URL: url, CV_NODE_AGENT_STATE_DIR: join(dir, 'here'), CV_NODE_AGENT_HYPERVISOR: 'simulated', CV_LOG_LEVEL: 'error',
        CV_NODE_AGENT_FLEET: String(options.here.nodes), CV_NODE_AGENT_FLEET_TOKEN_FILE: home.adminTokenFile, ...simulated(options.here),
      });
      if (config.kind !== 'fleet') throw new Error('a fleet was asked for');
      here = await startFleet(config.fleet);
      nodesExpected += options.here.nodes;
    }
    if (nodesExpected > 0) await nodesReady(nodesExpected);

    const platform: Platform = {
      dir, home, url, token, rest, waypoints, natsStoreDir: nats.storeDir, here, sql, logOf, stop,
      natsUrl: nats.url, natsCreds: nats.serviceCreds,
      postgresUrl: (role) => postgres.url(role),
      parts: () => [...processes.keys()],
      isRunning: (part) => !hasEnded(spawned(part).child),
      pidOf: (part) => {
        const { child } = spawned(part);
        if (child.pid === undefined) throw new Error(`${part} was never started`);
        return child.pid;
      },
      kill9: (part) => stopProgram(spawned(part).child, LAST_WORDS),
      terminate: (part) => stopProgram(spawned(part).child, spawned(part).stopSignals),
      start: async (part, wait = true) => {
        const one = spawned(part);
        if (!hasEnded(one.child)) throw new Error(`${part} still runs`);
        // The backends of a Postgres that was killed hold its memory for a moment; until then it does not start.
        await until(async () => {
          one.child = startProgram(one.program);
          if (part !== 'postgres') return true;
          return until(() => hasEnded(one.child) || one.isReady(), { withinMs: READY_WITHIN_MS }).then(() => !hasEnded(one.child));
        }, { withinMs: READY_WITHIN_MS, everyMs: 50 });
        if (wait) await waitFor(part);
      },
      ready: async (withinMs = READY_WITHIN_MS) => {
        await Promise.all([...processes].filter(([, { child }]) => !hasEnded(child)).map(([part]) => waitFor(part, withinMs)));
      },
      addAgent: async ({ name, hypervisor, libvirtSocket, libvirtInFlight, networkNamespace, bootIdFile, imageDir, poolDir, runDir, backupDirs, machineId }) => {
        const stateDir = join(dir, name);
        mkdirSync(stateDir, { recursive: true, mode: 0o700 });
        const joinTokenFile = join(home.secrets, `${name}.join`);
        if (!existsSync(join(stateDir, 'node.json'))) writeWhole(joinTokenFile, (await rest.ok<{ token: string }>('POST', '/v1/nodes/join-tokens', {})).token);
        const healthPort = await freePort();
        const { program, stopSignals } = agentPart({ ...around, home: { ...home, agent: stateDir, joinTokenFile }, health: { ...health, 'node-agent': healthPort } }, { hypervisor, ...(libvirtSocket === undefined ? {} : { libvirtSocket }), ...(libvirtInFlight === undefined ? {} : { libvirtInFlight }) });
        await launch(name, {
          ...program, logFile: join(home.logs, `${name}.log`),
          env: {
            ...program.env, ...environment, CV_NODE_AGENT_NAME: name, CV_NODE_AGENT_MACHINE_ID: machineId ?? `machine-${name}`,
            ...(networkNamespace === undefined ? {} : { CV_NODE_AGENT_NETWORK_NAMESPACE: networkNamespace }), ...(bootIdFile === undefined ? {} : { CV_NODE_AGENT_BOOT_ID_FILE: bootIdFile }), ...(imageDir === undefined ? {} : { CV_NODE_AGENT_IMAGE_DIR: imageDir }), ...(poolDir === undefined ? {} : { CV_NODE_AGENT_POOL_DIR: poolDir }), ...(runDir === undefined ? {} : { CV_NODE_AGENT_RUN_DIR: runDir }), ...(backupDirs === undefined ? {} : { CV_NODE_AGENT_BACKUP_DIRS: backupDirs }),
          },
        }, stopSignals, isReadyAt(healthPort));
        nodesExpected++;
        await nodesReady(nodesExpected);
        return (JSON.parse(readFileSync(join(stateDir, 'node.json'), 'utf8')) as { nodeId: string }).nodeId;
      },
    };
    return platform;
  } catch (error) {
    await stop().catch(() => undefined);
    throw error;
  }
}

const makeWaypoints = (dir: string): string => {
  const folder = join(dir, 'waypoints');
  for (const name of ['armed', 'held']) mkdirSync(join(folder, name), { recursive: true });
  return folder;
};

/** Arms a waypoint: the first process that comes by stands still. */
export const arm = (platform: Platform, name: string): void => {
  writeFileSync(join(waypointsOf(platform), 'armed', name), '');
};

/** Resolves when somebody stands at it; false when nobody came. */
export const isHeld = (platform: Platform, name: string, withinMs: number): Promise<boolean> =>
  until(() => existsSync(join(waypointsOf(platform), 'held', name)), { withinMs, everyMs: 2 });

/** Lets go whoever stands there, and disarms it. */
export const release = (platform: Platform, name: string): void => {
  for (const state of ['armed', 'held']) rmSync(join(waypointsOf(platform), state, name), { force: true });
};

const waypointsOf = ({ waypoints }: Platform): string => {
  if (waypoints === undefined) throw new Error('this platform has no waypoints');
  return waypoints;
};

const isReadyAt = (port: number) => async (): Promise<boolean> => {
  const response = await fetch(`http://127.0.0.1:${String(port)}/readyz`, { signal: AbortSignal.timeout(2_000) });
  await response.arrayBuffer();
  return response.ok;
};

async function migrateAll(postgres: PreparedPostgres, dir: string): Promise<void> {
  const { migrate, eventLogMigrations } = await import('@chronovirt/event-log/migrate');
  // A service without tables of its own still gets its schema, its checkpoints and its place at the log.
  const none = join(dir, 'no-migrations');
  mkdirSync(none);
  const folderOf = (name: string): string => [join(REPOSITORY, 'services', name, 'migrations')].find((folder) => existsSync(folder)) ?? none;
  await migrate(postgres.url('cv_owner'), [eventLogMigrations, ...SERVICES.map(({ name, schema, role }) => ({ schema, role, folder: folderOf(name) }))]);
}

export const sha256 = (text: string): string => createHash('sha256').update(text).digest('hex');
/** Waits a time. Only for "nothing happens": whatever happens is waited for by its condition. */
export const pause = (ms: number): Promise<void> => sleep(ms);
