/* What the environment says, read once; everything that is wrong is told at once, by name. */
import { readFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { z } from 'zod';

/** Folder of compiled code; Node's own choice when undefined. Needed before anything else is read. */
export const COMPILE_CACHE = process.env['CV_COMPILE_CACHE'];

const port = z.coerce.number().int().min(0).max(65_535);
const folder = z.string().regex(/^\//, 'must be an absolute path');
const machineId = z.string().regex(/^[0-9a-zA-Z._-]{1,64}$/, 'must be 1 to 64 letters, digits, dots, dashes or underscores');
const positive = z.coerce.number().int().min(1);

const Environment = z.object({
  CV_NODE_AGENT_GATEWAY_URL: z.url({ protocol: /^https?$/ }),
  CV_NODE_AGENT_JOIN_TOKEN_FILE: folder.optional(),
  CV_NODE_AGENT_STATE_DIR: folder,
  CV_NODE_AGENT_MACHINE_ID: machineId.optional(),
  /** A file whose text is another each time that the machine was started. */
  CV_NODE_AGENT_BOOT_ID_FILE: folder.default('/proc/sys/kernel/random/boot_id'),
  CV_NODE_AGENT_NAME: z.string().min(1).max(253).optional(),
  CV_NODE_AGENT_HYPERVISOR: z.enum(['qemu', 'test', 'simulated']).default('qemu'),
  CV_NODE_AGENT_LIBVIRT_SOCKET: folder.default('/run/libvirt/libvirt-sock'),
  /** Calls on their way to libvirtd at once that may wait for guests; below its max_client_requests, which is 5 where nobody raised it. */
  CV_NODE_AGENT_LIBVIRT_IN_FLIGHT: positive.max(1_000).default(4),
  /** A file that is the network namespace of libvirtd, where that is not the agent's own: libvirtd in a container, say. */
  CV_NODE_AGENT_NETWORK_NAMESPACE: folder.optional(),
  CV_NODE_AGENT_IMAGE_DIR: folder.optional(),
  CV_NODE_AGENT_IMAGE_KEEP_SECONDS: positive.max(2_592_000).default(3_600),
  CV_NODE_AGENT_POOL_DIR: folder.optional(),
  /** Folders, with colons between them, below which an operator may make pools. Default: none. */
  CV_NODE_AGENT_POOL_ROOTS: z.string().default('').transform((all) => all.split(':').filter((one) => one !== '')).pipe(z.array(folder).max(100)),
  CV_NODE_AGENT_RUN_DIR: folder.optional(),
  /** Folders for backups, `name=/path` with commas between: a folder that several nodes see is one target. */
  CV_NODE_AGENT_BACKUP_DIRS: z.string().regex(/^[a-zA-Z0-9][a-zA-Z0-9._-]{0,62}=\/[^,]*(,[a-zA-Z0-9][a-zA-Z0-9._-]{0,62}=\/[^,]*){0,15}$/, 'must be name=/path, several with commas between').optional(),
  CV_NODE_AGENT_NATS_URL: z.string().min(1).optional(),
  CV_NODE_AGENT_NATS_CA: folder.optional(),
  CV_NODE_AGENT_HEALTH_PORT: port.optional(),
  CV_NODE_AGENT_HEALTH_HOST: z.string().min(1).default('127.0.0.1'),
  CV_LOG_LEVEL: z.enum(['debug', 'info', 'warn', 'error']).default('info'),
  /** How many simulated nodes this process plays. */
  CV_NODE_AGENT_FLEET: positive.max(2_000).optional(),
  /** File with an API token, to issue each node of the fleet a join token of its own. */
  CV_NODE_AGENT_FLEET_TOKEN_FILE: folder.optional(),
  CV_NODE_AGENT_SIMULATED_CPUS: positive.default(64),
  CV_NODE_AGENT_SIMULATED_MEMORY_MIB: positive.default(262_144),
  CV_NODE_AGENT_SIMULATED_POOL_GIB: positive.default(4_096),
  CV_NODE_AGENT_SIMULATED_LATENCY_MS: z.coerce.number().int().min(0).default(0),
  /** Tests only, and only with CV_TEST=1: the folder of libs/observability/src/waypoints.ts. */
  CV_WAYPOINTS: folder.optional(),
  CV_TEST: z.string().optional(),
}).refine(({ CV_WAYPOINTS, CV_TEST }) => CV_WAYPOINTS === undefined || CV_TEST === '1', { path: ['CV_WAYPOINTS'], message: 'is for tests, which say CV_TEST=1' });

export interface SimulatedConfig {
  readonly cpus: number;
  readonly memoryMib: number;
  readonly poolGib: number;
  /** Of every verb. */
  readonly latencyMs: number;
}

export type HypervisorConfig =
  | { readonly kind: 'simulated'; readonly simulated: SimulatedConfig }
  | { readonly kind: 'qemu' | 'test'; readonly socket: string; readonly networkNamespace: string | undefined; readonly inFlightMax: number; readonly imageDir: string; readonly poolDir: string; readonly poolRoots: readonly string[]; readonly runDir: string; /** How long a fetched image stays that nobody needs. */ readonly imageKeepMs: number; readonly backupDirs: Readonly<Record<string, string>> };

/** One node's agent. */
export interface AgentConfig {
  readonly gatewayUrl: string;
  /** Needed at the first start only. */
  readonly joinTokenFile: string | undefined;
  readonly stateDir: string;
  /** undefined: what runs here does not outlive the process. */
  readonly bootIdFile?: string | undefined;
  readonly machineId: string;
  readonly name: string;
  readonly hypervisor: HypervisorConfig;
  /** Instead of what the gateway told: where this machine reaches the bus by another address. */
  readonly natsUrl: string | undefined;
  readonly natsCaFile: string | undefined;
  /** undefined: no health server. */
  readonly healthPort: number | undefined;
  readonly healthHost: string;
  readonly logLevel: 'debug' | 'info' | 'warn' | 'error';
  /** Tests only: where this process is held. */
  readonly waypoints?: string | undefined;
}

export interface FleetConfig extends Omit<AgentConfig, 'machineId' | 'name' | 'joinTokenFile' | 'hypervisor'> {
  readonly count: number;
  /** Of an API token that may issue join tokens. */
  readonly tokenFile: string;
  readonly simulated: SimulatedConfig;
}

export type Config = { readonly kind: 'agent'; readonly agent: AgentConfig } | { readonly kind: 'fleet'; readonly fleet: FleetConfig };

export class BadEnvironment extends Error {
  override readonly name = 'BadEnvironment';
}

/** Throws BadEnvironment. */
export function readConfig(environment: Readonly<Record<string, string | undefined>> = process.env, machineIdFile = '/etc/machine-id'): Config {
  const wrong: string[] = [];
  const read = Environment.safeParse(environment);
  if (!read.success) {
    wrong.push(...read.error.issues.map(({ path, message }) => `${path.join('.')}: ${environment[String(path[0])] === undefined ? 'is not set' : message}`));
    throw bad(wrong);
  }
  const env = read.data;
  const simulated: SimulatedConfig = {
    cpus: env.CV_NODE_AGENT_SIMULATED_CPUS, memoryMib: env.CV_NODE_AGENT_SIMULATED_MEMORY_MIB,
    poolGib: env.CV_NODE_AGENT_SIMULATED_POOL_GIB, latencyMs: env.CV_NODE_AGENT_SIMULATED_LATENCY_MS,
  };
  const common = {
    gatewayUrl: env.CV_NODE_AGENT_GATEWAY_URL.replace(/\/+$/, ''), stateDir: env.CV_NODE_AGENT_STATE_DIR,
    natsUrl: env.CV_NODE_AGENT_NATS_URL, natsCaFile: env.CV_NODE_AGENT_NATS_CA,
    healthPort: env.CV_NODE_AGENT_HEALTH_PORT, healthHost: env.CV_NODE_AGENT_HEALTH_HOST, logLevel: env.CV_LOG_LEVEL, waypoints: env.CV_WAYPOINTS,
  };

  if (env.CV_NODE_AGENT_FLEET !== undefined) {
    if (env.CV_NODE_AGENT_HYPERVISOR !== 'simulated') wrong.push('CV_NODE_AGENT_FLEET: only simulated nodes can share a process: set CV_NODE_AGENT_HYPERVISOR=simulated');
    if (env.CV_NODE_AGENT_FLEET_TOKEN_FILE === undefined) wrong.push('CV_NODE_AGENT_FLEET_TOKEN_FILE: is not set');
    if (wrong.length > 0 || env.CV_NODE_AGENT_FLEET_TOKEN_FILE === undefined) throw bad(wrong);
    return { kind: 'fleet', fleet: { ...common, count: env.CV_NODE_AGENT_FLEET, tokenFile: env.CV_NODE_AGENT_FLEET_TOKEN_FILE, simulated } };
  }

  let hypervisor: HypervisorConfig = { kind: 'simulated', simulated };
  if (env.CV_NODE_AGENT_HYPERVISOR !== 'simulated') {
    const { CV_NODE_AGENT_IMAGE_DIR: imageDir, CV_NODE_AGENT_POOL_DIR: poolDir, CV_NODE_AGENT_RUN_DIR: runDir } = env;
    for (const [name, value] of Object.entries({ CV_NODE_AGENT_IMAGE_DIR: imageDir, CV_NODE_AGENT_POOL_DIR: poolDir, CV_NODE_AGENT_RUN_DIR: runDir })) if (value === undefined) wrong.push(`${name}: is not set`);
    // <runDir>/vnc/<32 digits>.sock, in the 107 bytes that a socket's path may have.
    if (runDir !== undefined && Buffer.byteLength(runDir) > 65) wrong.push('CV_NODE_AGENT_RUN_DIR: must have at most 65 bytes, because sockets are made below it');
    hypervisor = { kind: env.CV_NODE_AGENT_HYPERVISOR, socket: env.CV_NODE_AGENT_LIBVIRT_SOCKET, networkNamespace: env.CV_NODE_AGENT_NETWORK_NAMESPACE, inFlightMax: env.CV_NODE_AGENT_LIBVIRT_IN_FLIGHT, imageDir: imageDir ?? '', poolDir: poolDir ?? '', poolRoots: env.CV_NODE_AGENT_POOL_ROOTS, runDir: runDir ?? '', imageKeepMs: env.CV_NODE_AGENT_IMAGE_KEEP_SECONDS * 1_000, backupDirs: foldersOf(env.CV_NODE_AGENT_BACKUP_DIRS ?? '') };
  }
  const id = env.CV_NODE_AGENT_MACHINE_ID ?? ofMachine(machineIdFile);
  if (id === undefined) wrong.push(`CV_NODE_AGENT_MACHINE_ID: is not set, and ${machineIdFile} holds no id: run systemd-machine-id-setup`);
  if (wrong.length > 0 || id === undefined) throw bad(wrong);
  return { kind: 'agent', agent: { ...common, ...(hypervisor.kind === 'simulated' ? {} : { bootIdFile: env.CV_NODE_AGENT_BOOT_ID_FILE }), joinTokenFile: env.CV_NODE_AGENT_JOIN_TOKEN_FILE, machineId: id, name: env.CV_NODE_AGENT_NAME ?? hostname(), hypervisor } };
}

const foldersOf = (text: string): Readonly<Record<string, string>> => Object.fromEntries(text.split(',').flatMap((one) => {
  const at = one.indexOf('=');
  return at < 0 ? [] : [[one.slice(0, at), one.slice(at + 1).replace(/\/+$/, '')]];
}));

const bad = (wrong: readonly string[]): BadEnvironment => new BadEnvironment(`node-agent cannot start:\n${wrong.map((one) => `  ${one}`).join('\n')}`);

function ofMachine(file: string): string | undefined {
  try {
    const id = readFileSync(file, 'utf8').trim();
    return machineId.safeParse(id).success ? id : undefined;
  } catch {
    return undefined;
  }
}
