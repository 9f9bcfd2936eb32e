/*
 * nats-server reads what infra/ tells it: three servers started from the ConfigMap's own text, each on an
 * address of its own as in three pods, with the accounts that setup makes; and the one of docker-compose.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connectBus, type Bus } from '@chronovirt/messaging/connect';
import { ensureStreams } from '@chronovirt/messaging/ensure-topology';
import { createPublisher } from '@chronovirt/messaging/publish';
import { jetstreamManager } from '@nats-io/jetstream';
import { connect } from '@nats-io/transport-node';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { makeKeys, places } from '../infra/setup.ts';
import { stopProgram, until } from './child.ts';
import { at, kubernetesObjects } from './manifests.ts';
import { freePort } from './ports.ts';
import { natsProgram } from './programs.ts';
import { REPOSITORY } from './step.ts';

let folder = '';
const children: ChildProcess[] = [];
const buses: Bus[] = [];

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'cv-nats-manifests-'));
  await makeKeys(join(folder, 'secrets'), places.kubernetes);
});

afterAll(async () => {
  for (const bus of buses) await bus.close();
  await Promise.all(children.map((child) => stopProgram(child, [['SIGKILL', 5_000]])));
  rmSync(folder, { recursive: true, force: true });
});

interface Server {
  readonly name: string;
  readonly host: string;
  readonly child: ChildProcess;
}

/** Puts a configuration and its accounts where a container would have them, but below a folder of the test. */
function start(name: string, host: string, configuration: string): Server {
  const own = join(folder, name);
  mkdirSync(join(own, 'etc/accounts'), { recursive: true });
  mkdirSync(join(own, 'data'), { recursive: true });
  const here = (text: string): string => text.replaceAll('"/data/', `"${own}/data/`).replaceAll('"/tmp/', `"${own}/`);
  writeFileSync(join(own, 'etc/accounts/accounts.conf'), here(readFileSync(join(folder, 'secrets/nats/accounts.conf'), 'utf8')));
  writeFileSync(join(own, 'etc/nats.conf'), here(configuration));
  const child = spawn(natsProgram() ?? 'nats-server', ['--config', join(own, 'etc/nats.conf'), '--log', join(own, 'log')], { stdio: 'ignore', env: { POD_NAME: name, POD_IP: host } });
  children.push(child);
  return { name, host, child };
}

const logOf = ({ name }: Server): string => readFileSync(join(folder, name, 'log'), 'utf8');
const isHealthy = async (host: string, port: number): Promise<boolean> => (await fetch(`http://${host}:${port}/healthz`)).ok;
const bus = async (servers: readonly string[]): Promise<Bus> => {
  const connected = await connectBus({ servers: [...servers], credentials: { file: join(folder, 'secrets/storage/service.creds') }, name: 'test' });
  buses.push(connected);
  return connected;
};

describe('three servers on Kubernetes', () => {
  it('are one group, keep three copies, and go on when one of them dies', async () => {
    const config = at(kubernetesObjects(join(REPOSITORY, 'infra/k8s')).find(({ object }) => object.kind === 'ConfigMap')?.object, 'data', 'nats.conf') as string;
    const [client, routes, monitor] = [await freePort(), await freePort(), await freePort()];
    const hosts = ['127.0.0.2', '127.0.0.3', '127.0.0.4'];
    // Names and ports of a cluster become those of this machine; nothing else is changed.
    let text = config.replace('port: 4222', `port: ${client}`).replace('port: 6222', `port: ${routes}`).replace('http_port: 8222', `http_port: ${monitor}`);
    hosts.forEach((host, index) => { text = text.replace(`chronovirt-nats-${index}.chronovirt-nats-peers:6222`, `${host}:${routes}`); });
    expect(text).not.toMatch(/chronovirt-nats-|6222/);
    const servers = hosts.map((host, index) => start(`chronovirt-nats-${index}`, host, text));
    for (const server of servers) expect(await until(() => isHealthy(server.host, monitor), { withinMs: 20_000, everyMs: 100 }), logOf(server)).toBe(true);

    const { nc } = await bus(hosts.map((host) => `nats://${host}:${client}`));
    expect(await until(async () => { await ensureStreams(nc); return true; }, { withinMs: 15_000, everyMs: 200 })).toBe(true);
    const jsm = await jetstreamManager(nc);
    const info = await jsm.streams.info('EVENTS');
    expect(info.config.num_replicas).toBe(3);
    expect([info.cluster?.leader, ...(info.cluster?.replicas ?? []).map(({ name }) => name)].sort()).toEqual(servers.map(({ name }) => name));

    const leader = servers.find(({ name }) => name === info.cluster?.leader);
    leader?.child.kill('SIGKILL');
    const publisher = createPublisher({ bus: await bus(hosts.filter((host) => host !== leader?.host).map((host) => `nats://${host}:${client}`)) });
    const event = { id: '0192f0aa-0000-7000-8000-000000000001', category: 'vm', streamId: 'vm_1', type: 'VmStarted', position: 1, previous: 0, traceparent: undefined, body: {} };
    expect(await until(async () => { await publisher.publishEvent(event); return true; }, { withinMs: 20_000, everyMs: 200 })).toBe(true);
  }, 60_000);
});

describe('one server under docker-compose', () => {
  it('starts from its configuration and lets in whom setup gave creds, and nobody else', async () => {
    const [client, monitor] = [await freePort(), await freePort()];
    const text = readFileSync(join(REPOSITORY, 'infra/nats/nats.conf'), 'utf8').replace('host: nats', 'host: localhost').replace('port: 4222', `port: ${client}`).replace(':8222"', `:${monitor}"`);
    const server = start('chronovirt', '127.0.0.1', text);
    expect(await until(() => isHealthy('127.0.0.1', monitor), { withinMs: 15_000, everyMs: 50 }), logOf(server)).toBe(true);
    const { nc } = await bus([`nats://127.0.0.1:${client}`]);
    await ensureStreams(nc);

    await expect(connect({ servers: `nats://127.0.0.1:${client}`, reconnect: false, maxReconnectAttempts: 0 })).rejects.toThrow(/authorization/i);
    server.child.kill('SIGTERM');
    await once(server.child, 'exit');
  }, 30_000);
});
