/* The second half of a start: everything runs, knows each other, and is ready. */
import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { apiOf, type Api } from './api.ts';
import { until } from './child.ts';
import { guestImage, type GuestImage } from './guest-image.ts';
import { adminTokenOf, installationOf, REPOSITORY, type Home, type Settings } from './home.ts';
import { clearUp, ensureKeeper, run, tell } from './keeper-client.ts';
import { findLibvirt, LIBVIRT_IN_FLIGHT, startLibvirt, type Libvirt } from './libvirt.ts';
import { NATS_READY_WITHIN_MS, prepareNats, type NatsAddress, type NatsHome } from './nats.ts';
import { freeSubnet, takenSubnets } from './network.ts';
import { networkNameFor } from './network-name.ts';
import { isFree, lastOrFreePort } from './ports.ts';
import { POSTGRES_READY_WITHIN_MS, preparePostgres, type PostgresAddress, type PostgresHome } from './postgres.ts';
import type { Prepared } from './preparing.ts';
import { whyNoHypervisor } from './preparing.ts';
import { isReady, rememberPort } from './running.ts';
import { say, timed } from './say.ts';
import { onceWritten, writeWhole } from './secrets.ts';
import { AGENT, agentPart, controlPlaneParts, GATEWAY, SERVICES, type AgentSettings, type HealthPorts, type Surroundings } from './services.ts';

export interface BringUp extends Prepared {
  readonly split: boolean;
  readonly simulated: boolean;
}

const SERVICE_READY_WITHIN_MS = 60_000;
const NODE_READY_WITHIN_MS = 60_000;
const NETWORK = 'cv-default';

export async function bringUp(settings: Settings, options: BringUp, signal: AbortSignal): Promise<void> {
  const { home, port } = settings;
  const left = (await tell(home, { do: 'list' })) === undefined ? await clearUp(home) : [];
  if (left.length > 0) say(`ended what an earlier start left behind: ${left.join(', ')}`);
  if ((await tell(home, { do: 'list' })) === undefined && !(await isFree(port))) throw new Error(`port ${port} of 127.0.0.1 is taken by another program: set CV_PORT to a free one`);
  await ensureKeeper(home);
  rememberPort(home, port);
  const hypervisor = await chooseHypervisor(options);

  const [postgres, nats, libvirt, image] = await Promise.all([
    timed('Postgres runs', () => bringUpPostgres(home, options)),
    timed('NATS runs', () => bringUpNats(home, options)),
    hypervisor === 'simulated' ? undefined : timed('libvirt runs', () => bringUpLibvirt(home)),
    bringUpImage(home, hypervisor),
  ]);
  signal.throwIfAborted();
  await timed('the database is up to date', () => migrateAll(home, postgres));

  const health = await healthPorts(home, port, options.split ? [...SERVICES.map((service) => service.name), AGENT] : [GATEWAY, AGENT]);
  const around: Surroundings = { home, port, postgres, nats, health };
  await timed(options.split ? 'every service runs' : 'the control plane runs', () =>
    Promise.all(controlPlaneParts(around, options.split).map((part) => run(home, part, () => isReady(health[part.name] ?? port), SERVICE_READY_WITHIN_MS))));
  signal.throwIfAborted();

  const api = apiOf(`http://127.0.0.1:${port}`, adminTokenOf(home));
  await ensureJoinToken(home, api);
  await register(home, api, image, hypervisor); // before the agent, whose own connection to libvirtd would look like somebody else's
  const agent: AgentSettings = { hypervisor, ...(libvirt ? { libvirtSocket: libvirt.socket, ...(libvirt.owner === 'chronovirt' ? { libvirtInFlight: LIBVIRT_IN_FLIGHT } : {}) } : {}), ...ownMachineId(home) };
  await timed(hypervisor === 'simulated' ? 'a simulated node runs' : 'the node agent runs', async () => {
    await run(home, agentPart(around, agent), () => isReady(health[AGENT] ?? 0), NODE_READY_WITHIN_MS);
    await untilNodeIsReady(home, api);
  });
  rmSync(home.joinTokenFile, { force: true });
}

async function chooseHypervisor({ simulated, without }: BringUp): Promise<AgentSettings['hypervisor']> {
  if (simulated) return 'simulated';
  const because = (await findLibvirt()) && process.getuid?.() === 0 ? undefined : whyNoHypervisor(without);
  if (because === undefined) return 'qemu';
  say(`the node is simulated: ${because}`);
  return 'simulated';
}

export const postgresHomeOf = (home: Home): PostgresHome => ({
  dir: join(home.open, 'postgres'), socketDir: home.sockets === join(home.open, 'run') ? join(home.open, 'postgres', 'run') : join(home.sockets, 'pg'),
  secretsFile: join(home.secrets, 'postgres.json'), logFile: join(home.logs, 'postgres.log'),
});

export const natsHomeOf = (home: Home): NatsHome => ({ dir: join(home.open, 'nats'), keysDir: join(home.secrets, 'nats'), logFile: join(home.logs, 'nats.log') });

async function bringUpPostgres(home: Home, { identity }: BringUp): Promise<PostgresAddress> {
  const prepared = await preparePostgres(postgresHomeOf(home), { as: identity });
  await run(home, { name: 'postgres', program: prepared.program, stopSignals: prepared.stopSignals }, prepared.isReady, POSTGRES_READY_WITHIN_MS);
  await prepared.settle();
  return prepared;
}

async function bringUpNats(home: Home, { identity }: BringUp): Promise<NatsAddress> {
  const prepared = await prepareNats(natsHomeOf(home), { as: identity });
  await run(home, { name: 'nats', program: prepared.program, stopSignals: prepared.stopSignals }, prepared.isReady, NATS_READY_WITHIN_MS);
  return prepared;
}

async function bringUpLibvirt(home: Home): Promise<Libvirt> {
  const libvirt = await startLibvirt({ logFile: join(home.logs, 'libvirtd.log') });
  if (libvirt.owner === 'the machine') say(`using the libvirtd that answers on ${libvirt.socket}`);
  return libvirt;
}

/** What a simulated node says it boots: there is no file behind it. */
const SIMULATED_IMAGE: GuestImage = { name: 'micro', file: 'simulated.qcow2', format: 'qcow2', sha256: '0'.repeat(64), sizeBytes: 1024 * 1024, minDiskGib: 1, minMemoryMib: 128 };

async function bringUpImage(home: Home, hypervisor: AgentSettings['hypervisor']): Promise<GuestImage> {
  if (hypervisor === 'simulated') return SIMULATED_IMAGE;
  return guestImage({ images: home.images, cache: home.cache }, say);
}

const existing = (folder: string): string | undefined => (existsSync(folder) ? folder : undefined);

async function migrateAll(home: Home, postgres: PostgresAddress): Promise<void> {
  const { migrate, eventLogMigrations } = await import('@chronovirt/event-log/migrate');
  // A service without tables of its own still gets its schema, its checkpoints and its place at the log.
  const none = join(home.run, 'no-migrations');
  mkdirSync(none, { recursive: true });
  const ran = await migrate(postgres.url('cv_owner'), [
    eventLogMigrations,
    ...SERVICES.map(({ name, schema, role }) => ({ schema, role, folder: existing(join(REPOSITORY, 'services', name, 'migrations')) ?? none })),
  ]);
  if (ran.length > 0) say(`${ran.length} migrations: ${ran.map(({ schema, file }) => `${schema}/${file}`).join(', ')}`);
}

/** Ports for /livez, /readyz and /metrics of each part: the same at each start as long as they are free. */
async function healthPorts(home: Home, gatewayPort: number, names: readonly string[]): Promise<HealthPorts> {
  const file = join(home.run, 'health-ports.json');
  const known = existsSync(file) ? (JSON.parse(readFileSync(file, 'utf8')) as Record<string, number>) : {};
  const running = new Set((await tell(home, { do: 'list' }))?.parts.map((part) => part.name));
  const ports: Record<string, number> = {};
  for (const name of names) {
    const last = known[name];
    if (name === GATEWAY) ports[name] = gatewayPort;
    else ports[name] = last !== undefined && running.has(name) ? last : await lastOrFreePort(last);
  }
  writeWhole(file, JSON.stringify(ports));
  return ports;
}

/** An agent that has joined keeps its identity; one that has not needs a token, which is good for one joining. */
async function ensureJoinToken(home: Home, api: Api): Promise<void> {
  if (existsSync(join(home.agent, 'node.json'))) return;
  const { token } = await api.post<{ token: string }>('/v1/nodes/join-tokens', {});
  writeWhole(home.joinTokenFile, token);
}

/** A machine without an id (a container, a minimal system) gets one of ours. */
const ownMachineId = (home: Home): { machineId?: string } => {
  const known = existsSync('/etc/machine-id') && /^[0-9a-f]{32}$/.test(readFileSync('/etc/machine-id', 'utf8').trim());
  return known ? {} : { machineId: onceWritten(join(home.dir, 'machine-id'), () => randomBytes(16).toString('hex')) };
};

interface Named {
  readonly id: string;
  readonly name: string;
}

/** The image and the network that a first VM needs, unless they are known. */
async function register(home: Home, api: Api, image: GuestImage, hypervisor: AgentSettings['hypervisor']): Promise<void> {
  const images = await api.get<{ items: readonly (Named & { file: string })[] }>('/v1/images');
  if (!images.items.some((one) => one.file === image.file)) {
    // A changed recipe is another image; VMs made of the older one keep it.
    const name = images.items.some((one) => one.name === image.name) ? image.file.replace(/\.qcow2$/, '') : image.name;
    await api.post('/v1/images', { ...image, name }, `start-image-${image.file}`);
    say(`registered the image ${name}`);
  }
  const networks = await api.get<{ items: readonly Named[] }>('/v1/networks');
  const installation = installationOf(home);
  if (networks.items.some((one) => one.name === NETWORK || one.name === `${NETWORK}-${installation}`)) return;
  const { name, remark } = hypervisor === 'simulated' ? { name: NETWORK } : await networkNameFor(NETWORK, installation);
  if (remark) say(remark);
  const cidr = freeSubnet(takenSubnets());
  await api.post('/v1/networks', { name, kind: 'nat', cidr }, `start-network-${name}`);
  say(`registered the network ${name} (NAT, ${cidr})`);
}

async function untilNodeIsReady(home: Home, api: Api): Promise<void> {
  const { nodeId } = JSON.parse(readFileSync(join(home.agent, 'node.json'), 'utf8')) as { nodeId: string };
  let last = 'the API does not know it';
  const ready = await until(
    async () => {
      const node = (await api.get<{ items: readonly { id: string; status: string }[] }>('/v1/nodes')).items.find((one) => one.id === nodeId);
      if (node) last = `it is ${node.status}`;
      return node?.status === 'ready';
    },
    { withinMs: NODE_READY_WITHIN_MS, everyMs: 50 },
  );
  if (!ready) throw new Error(`the node ${nodeId} is not ready after ${NODE_READY_WITHIN_MS / 1000} s: ${last}`);
}
