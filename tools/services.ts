/* The services of the control plane: what they are called, what they own, what they are told. */
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import type { StopSignals } from './child.ts';
import { adminTokenOf, installationOf, REPOSITORY, type Home } from './home.ts';
import type { Part } from './keeper.ts';
import type { NatsAddress } from './nats.ts';
import type { PostgresAddress, SERVICE_ROLES } from './postgres.ts';

export interface Service {
  /** Folder in services/. */
  readonly name: string;
  /** As in CV_<KEY>_POSTGRES_URL. */
  readonly key: string;
  readonly schema: string;
  readonly role: (typeof SERVICE_ROLES)[number];
}

export const SERVICES: readonly Service[] = [
  { name: 'api-gateway', key: 'GATEWAY', schema: 'gateway', role: 'cv_gateway' },
  { name: 'scheduler', key: 'SCHEDULER', schema: 'scheduler', role: 'cv_scheduler' },
  { name: 'ipam', key: 'IPAM', schema: 'ipam', role: 'cv_ipam' },
  { name: 'storage', key: 'STORAGE', schema: 'storage', role: 'cv_storage' },
  { name: 'monitor', key: 'MONITOR', schema: 'monitor', role: 'cv_monitor' },
];

export const GATEWAY = 'api-gateway';
export const AGENT = 'node-agent';

/** Which port the /livez, /readyz and /metrics of each process lie on, by the part's name. The gateway's are on its own port. */
export type HealthPorts = Readonly<Record<string, number>>;

export interface Surroundings {
  readonly home: Home;
  readonly port: number;
  readonly postgres: PostgresAddress;
  readonly nats: NatsAddress;
  readonly health: HealthPorts;
}

/** A service has seconds to finish what it began, and loses nothing when it does not. */
const STOP_SIGNALS: StopSignals = [['SIGTERM', 15_000], ['SIGKILL', 5_000]];

/*
 * An agent is one of many things on its node: with these it takes 25 MiB less. The control plane gets room
 * for the young: with 8 MiB and --optimize-for-size two thirds of its time under load went into collecting
 * garbage (21 ms of processor a created VM, 10 ms with 16 MiB), for 50 MiB less at idle.
 */
const AGENT_FLAGS = ['--max-semi-space-size=8', '--optimize-for-size'];
const SERVICE_FLAGS = ['--max-semi-space-size=16'];

export function controlPlaneParts(around: Surroundings, split: boolean): readonly Part[] {
  const part = (name: string, script: string): Part => ({
    name,
    program: { command: process.execPath, args: [...SERVICE_FLAGS, script], cwd: REPOSITORY, env: environment(around, split), logFile: join(around.home.logs, `${name}.log`) },
    stopSignals: STOP_SIGNALS,
  });
  if (split) return SERVICES.map((service) => part(service.name, join(REPOSITORY, 'services', service.name, 'dist/main.js')));
  return [part('control-plane', join(REPOSITORY, 'tools/dist/all-in-one.js'))];
}

export interface AgentSettings {
  readonly hypervisor: 'qemu' | 'test' | 'simulated';
  readonly libvirtSocket?: string;
  /** Where the daemon is ours, and so is its max_client_requests. */
  readonly libvirtInFlight?: number;
  /** Where the machine has none of its own. */
  readonly machineId?: string;
}

export function agentPart(around: Surroundings, settings: AgentSettings): Part {
  const { home } = around;
  return {
    name: AGENT,
    program: {
      command: process.execPath,
      args: [...AGENT_FLAGS, join(REPOSITORY, 'services', AGENT, 'dist/main.js')],
      cwd: REPOSITORY,
      env: {
        // Whoever has better folders for these says so. What separates several cannot stand in one.
        ...(home.open.includes(',') ? {} : { CV_NODE_AGENT_BACKUP_DIRS: `local=${home.backups}` }),
        ...(home.open.includes(':') ? {} : { CV_NODE_AGENT_POOL_ROOTS: home.pools }),
        ...ordinary(home),
        CV_NODE_AGENT_GATEWAY_URL: `http://127.0.0.1:${around.port}`,
        CV_NODE_AGENT_JOIN_TOKEN_FILE: home.joinTokenFile,
        CV_NODE_AGENT_STATE_DIR: home.agent,
        ...(settings.machineId ? { CV_NODE_AGENT_MACHINE_ID: settings.machineId } : {}),
        CV_NODE_AGENT_HYPERVISOR: settings.hypervisor,
        ...(settings.libvirtSocket ? { CV_NODE_AGENT_LIBVIRT_SOCKET: settings.libvirtSocket } : {}),
        ...(settings.libvirtInFlight ? { CV_NODE_AGENT_LIBVIRT_IN_FLIGHT: String(settings.libvirtInFlight) } : {}),
        CV_NODE_AGENT_IMAGE_DIR: home.images,
        CV_NODE_AGENT_POOL_DIR: home.disks,
        CV_NODE_AGENT_RUN_DIR: home.sockets,
        CV_NODE_AGENT_HEALTH_PORT: String(around.health[AGENT]),
      },
      logFile: join(home.logs, `${AGENT}.log`),
    },
    stopSignals: STOP_SIGNALS,
  };
}

/** What every service of the control plane is told. A service reads what is its own. */
function environment({ home, port, postgres, nats, health }: Surroundings, split: boolean): NodeJS.ProcessEnv {
  const own = SERVICES.flatMap((service): readonly (readonly [string, string])[] => [
    [`CV_${service.key}_POSTGRES_URL`, postgres.url(service.role)],
    // In one process all parts are told of at the gateway's own /readyz.
    ...(split && service.name !== GATEWAY ? [[`CV_${service.key}_HEALTH_PORT`, String(health[service.name])] as const] : []),
  ]);
  return {
    ...ordinary(home),
    CV_INSTALLATION: installationOf(home),
    CV_PORT: String(port),
    CV_NATS_URL: nats.url,
    CV_NATS_CREDS: nats.serviceCreds,
    CV_GATEWAY_NATS_KEYS: nats.keysDir,
    CV_GATEWAY_NATS_PUBLIC_URL: nats.url,
    CV_GATEWAY_IMAGE_DIR: home.store,
    CV_GATEWAY_ADMIN_TOKEN_SHA256: createHash('sha256').update(adminTokenOf(home)).digest('hex'),
    ...Object.fromEntries(own),
  };
}

/** Whoever starts may steer traces (OTEL_…) and anything else of ours (CV_…); the rest of their environment is no business of a service. */
function ordinary(home: Home): NodeJS.ProcessEnv {
  const passed = Object.entries(process.env).filter(([name]) => /^(OTEL_|CV_(?!HOME$|PORT$|TEST_))/.test(name));
  return {
    ...Object.fromEntries(passed),
    PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
    LANG: 'C.UTF-8',
    TZ: 'UTC',
    NODE_ENV: 'production',
    // Executed as code at the next start, so it lies where only we can write.
    NODE_COMPILE_CACHE: join(home.cache, 'node'),
  };
}
