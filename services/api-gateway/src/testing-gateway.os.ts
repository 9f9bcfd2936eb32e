/*
 * A gateway for tests: its own database, the real log, projections and bus, and receivers that stand in for
 * the other services. They keep what the gateway relies on: one answer to an id, stored with its events.
 */
import { hash, randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { CommandEnvelope } from '@chronovirt/contracts/command';
import { allEvents } from '@chronovirt/contracts/registry';
import { type Answer, type Decider, type Decision, isRefusal } from '@chronovirt/decider/decider';
import { CommandHandler } from '@chronovirt/event-log/handle';
import { eventLogMigrations, migrate } from '@chronovirt/event-log/migrate';
import { PostgresLog } from '@chronovirt/event-log/postgres-log';
import { obeyOrRehearse } from '@chronovirt/event-log/rehearse';
import { connectBus } from '@chronovirt/messaging/connect';
import { consume } from '@chronovirt/messaging/consume';
import { serviceCreds, systemCreds } from '@chronovirt/messaging/credentials';
import { ensureStreams } from '@chronovirt/messaging/ensure-topology';
import { startTestingServer, type TestingServer } from '@chronovirt/messaging/testing-server.os';
import { commandsOf } from '@chronovirt/messaging/topology';
import pg from 'pg';
import { type TestDatabase, testDatabase } from '../../../tools/test-postgres.ts';
import type { GatewayConfig } from './config.ts';
import { type RunningGateway, start } from './service.ts';

export const installation = '0a1b2c3d';
export const adminToken = `cv_${installation}_${randomBytes(32).toString('base64url')}`;

type AnyEvent = { readonly type: string; readonly data: object };

/** What a stand-in says to a command: events for a stream, or a refusal; undefined: it stays silent. */
export type Obey = (envelope: CommandEnvelope) => { readonly stream: string; readonly decision: Decision<AnyEvent> } | undefined;

export interface TestingGateway {
  readonly url: string;
  readonly database: TestDatabase;
  readonly nats: TestingServer;
  readonly log: PostgresLog;
  /** Cuts the gateway off from Postgres, or lets it back; the test itself goes another way. */
  cutPostgres(cut: boolean): void;
  /** Positions of the log's end. */
  head(): Promise<number>;
  /** Appends events to a stream as if a service had decided them. Returns the last position. */
  append(stream: string, ...events: readonly AnyEvent[]): Promise<number>;
  /** What the stand-in for a service does; the default is silence. */
  obey: Map<string, Obey>;
  /** Commands that came, oldest first. */
  readonly received: CommandEnvelope[];
  call(method: string, path: string, options?: { readonly body?: unknown; readonly raw?: string; readonly headers?: Readonly<Record<string, string>>; readonly token?: string | null }): Promise<Called>;
  close(): Promise<void>;
}

export interface Called {
  readonly status: number;
  readonly headers: Headers;
  readonly text: string;
  // Tests look into it as they please.
  // eslint-disable-next-line @typescript-eslint/no-explicit-any
  readonly json: any;
}

/** A decider whose state is the number of its events: it decides what it is told. */
const told = (decision: Decision<AnyEvent>): Decider<object, AnyEvent, number> => ({ category: 'any', initial: 0, decide: () => decision, evolve: (count) => count + 1, observations: ['VmObserved', 'AddressLeased'] });

/** With a configuration of its own, where a test wants one. */
export const startTestingGateway = async (own: Partial<GatewayConfig> = {}): Promise<TestingGateway> => {
  const database = await testDatabase();
  await migrate(database.ownerUrl, [eventLogMigrations, { schema: 'gateway', folder: join(import.meta.dirname, '..', 'migrations'), role: 'cv_gateway' }]);
  // A bus of its own: a durable is shared by all who read it, those of other test files too.
  const nats = await startTestingServer();
  const keysDir = mkdtempSync(join(tmpdir(), 'cv-gateway-'));
  const natsUrl = nats.url;
  const natsCreds = join(keysDir, 'service.creds');
  writeFileSync(natsCreds, await serviceCreds(nats.keys), { mode: 0o600 });
  writeFileSync(join(keysDir, 'system.creds'), await systemCreds(nats.keys), { mode: 0o600 });
  writeFileSync(join(keysDir, 'installation.json'), JSON.stringify(nats.keys), { mode: 0o600 });
  const bus = await connectBus({ servers: natsUrl, credentials: { file: natsCreds }, name: 'stand-ins' });
  await ensureStreams(bus.nc);

  const line = await lineTo(database.urlOf('cv_gateway'), keysDir);
  const pool = new pg.Pool({ connectionString: database.urlOf('cv_gateway'), max: 3 });
  const log = new PostgresLog({ pool, events: allEvents });
  const handler = new CommandHandler(log);
  const obey = new Map<string, Obey>();
  const received: CommandEnvelope[] = [];
  const ears = ['scheduler', 'ipam', 'storage'].map((service) => consume({
    bus, spec: commandsOf(service),
    handle: async (delivery): Promise<Answer | undefined> => {
      const envelope = delivery.json() as CommandEnvelope;
      received.push(envelope);
      const says = obey.get(service)?.(envelope);
      if (says === undefined) return undefined;
      const { stream, decision } = says;
      return obeyOrRehearse(handler, envelope, async ({ id, meta, requestHash, expected }, by) => (isRefusal(decision) && expected === undefined
        ? (await by.refuse({ id, meta, requestHash }, decision)).answer
        : (await by.handle(told(decision), { id, stream, command: {}, cancels: [], meta, requestHash, expected })).answer));
    },
  }));

  const closeRest = async (): Promise<void> => {
    await Promise.all(ears.map((ear) => ear.stop(1_000)));
    await bus.close();
    await pool.end();
    line.close();
    await nats.stop();
    rmSync(keysDir, { recursive: true, force: true });
    await database.drop();
  };
  let gateway: RunningGateway;
  try {
    gateway = await start({
      postgresUrl: line.url, natsUrl, natsCreds, healthPort: undefined, healthHost: '127.0.0.1', logLevel: 'error',
      installation, host: '127.0.0.1', port: 0, adminTokenSha256: hash('sha256', adminToken, 'hex'), natsKeys: keysDir, natsPublicUrls: [natsUrl], consoleUrl: undefined, consoleOrigins: [], consoleIdleMs: 3_600_000, traced: false,
      images: { dir: join(keysDir, 'images'), bytesMax: 2 ** 26, totalBytesMax: 2 ** 28, uploadsMax: 8, uploadMs: 3_600_000, keepMs: 3_600_000, importNetworks: [] }, ...own,
    });
  } catch (error) {
    await closeRest();
    throw error;
  }

  return {
    url: gateway.url, database, nats, log, obey, received, cutPostgres: line.cut,
    head: () => log.head(),
    append: async (stream, ...events) => {
      const { version } = await log.load(stream, told([]));
      const id = crypto.randomUUID();
      const outcome = await log.append({ commandId: id, answer: { version: version + events.length }, stream, expected: version, events, meta: { actor: 'system:test', commandId: id } });
      if (outcome.kind !== 'appended') throw new Error(`append was answered ${outcome.kind}`);
      return outcome.events.at(-1)?.position ?? 0;
    },
    call: async (method, path, { body, raw, headers = {}, token = adminToken } = {}) => {
      const response = await fetch(`${gateway.url}${path}`, {
        method, body: raw ?? (body === undefined ? null : JSON.stringify(body)),
        headers: { ...(token === null ? {} : { authorization: `Bearer ${token}` }), ...(body === undefined && raw === undefined ? {} : { 'content-type': 'application/json' }), ...headers },
      });
      const text = await response.text();
      let json: unknown;
      try {
        json = JSON.parse(text);
      } catch {
        json = undefined;
      }
      return { status: response.status, headers: response.headers, text, json };
    },
    close: async () => {
      await gateway.close();
      await closeRest();
    },
  };
};

/** A way to Postgres that can be cut: a socket of our own, every connection handed on to the real one. */
const lineTo = async (url: string, dir: string): Promise<{ readonly url: string; cut(this: void, cut: boolean): void; close(): void }> => {
  const [, role, socketDir, port, name] = /^postgresql:\/\/(.*)@(.*):(\d+)\/(.*)$/.exec(url) ?? [];
  if (role === undefined || socketDir === undefined || port === undefined || name === undefined) throw new Error(`not the URL of a database: ${url}`);
  const target = decodeURIComponent(socketDir);
  const open = new Set<Socket>();
  let isCut = false;
  const server = createServer((near) => {
    if (isCut) {
      near.destroy();
      return;
    }
    const far = target.startsWith('/') ? connect(join(target, `.s.PGSQL.${port}`)) : connect(Number(port), target);
    for (const [one, other] of [[near, far], [far, near]] as const) {
      open.add(one);
      one.on('error', () => undefined).on('close', () => { open.delete(one); other.destroy(); });
      one.pipe(other);
    }
  });
  server.listen(join(dir, `.s.PGSQL.${port}`));
  await once(server, 'listening');
  const end = (): void => { for (const socket of open) socket.destroy(); };
  return {
    url: `postgresql://${role}@${encodeURIComponent(dir)}:${port}/${name}`,
    cut: (cut) => {
      isCut = cut;
      if (cut) end();
    },
    close: () => {
      server.close();
      end();
    },
  };
};

/** The guest that tests ask for. */
export const wish = (name: string, more: object = {}) => ({ name, image: 'tiny', network: 'default', vcpus: 1, memoryMib: 128, diskGib: 1, ...more });

const digits = (text: string): string => hash('sha256', text, 'hex').slice(0, 32);
export const ids = { image: `image_${digits('image')}`, network: `network_${digits('network')}`, subnet: `subnet_${digits('subnet')}`, pool: `pool_${digits('pool')}`, nodeOf: (name: string) => `node_${digits(name)}`, digits };

const networkPlan = { networkId: ids.network, subnetId: ids.subnet, name: 'default', kind: 'nat', cidr: '10.21.0.0/24', gateway: '10.21.0.1', prefix: 24, bridge: 'cvbr-0' };

/** The event that a scheduler records when it takes a CreateVm. */
export const requested = (envelope: Pick<CommandEnvelope, 'data'>): AnyEvent => {
  const { vmId, operationId, image: _image, network: _network, node: _node, ...wanted } = envelope.data;
  return {
    type: 'VmRequested',
    data: {
      vmId, operationId, imageFile: 'tiny.qcow2', imageFormat: 'qcow2', network: networkPlan,
      spec: {
        accel: 'any', devices: 'virtio', tags: [], protected: false, description: '', vcpusMax: 1, memoryMibMax: 128, boot: ['disk'], media: null, cloudInit: null, diskLimits: null, ...wanted, imageId: ids.image, networkId: ids.network, subnetId: ids.subnet, nodeId: null,
      },
    },
  };
};

/** A scheduler that takes every CreateVm. */
export const obliging: Obey = (envelope) => ({ stream: `vm-${envelope.target}`, decision: [requested(envelope)] });

/** Waits until a condition holds, 5 s at most. */
export const until = async <T>(ask: () => Promise<T | undefined | false>, withinMs = 5_000): Promise<T> => {
  const deadline = Date.now() + withinMs;
  for (;;) {
    const found = await ask();
    if (found !== undefined && found !== false) return found;
    if (Date.now() > deadline) throw new Error(`did not come true within ${String(withinMs)} ms`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
};
