import { chmodSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { jetstream, jetstreamManager } from '@nats-io/jetstream';
import { connect, credsAuthenticator, type NatsConnection } from '@nats-io/transport-node';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { startNats, type Nats } from './nats.ts';

let dir: string;
let running: Nats | undefined;

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'cv-bus-'));
  chmodSync(dir, 0o755);
});

afterEach(async () => {
  await running?.stop();
  running = undefined;
  rmSync(dir, { recursive: true, force: true });
});

const enter = (nats: Nats, creds: string): Promise<NatsConnection> => connect({ servers: nats.url, authenticator: credsAuthenticator(readFileSync(creds)), reconnect: false });

describe('a nats-server of our own', () => {
  it('lets in whoever has a key, and nobody else', async () => {
    running = await startNats({ dir });
    await expect(connect({ servers: running.url, reconnect: false })).rejects.toThrow(/authorization/i);
    const service = await enter(running, running.serviceCreds);
    await expect(service.request('$SYS.REQ.SERVER.PING', '', { timeout: 300 })).rejects.toThrow();
    await service.close();
    const system = await enter(running, running.systemCreds);
    expect((await system.request('$SYS.REQ.SERVER.PING', '', { timeout: 2_000 })).string()).toContain('"name":"chronovirt"');
    await system.close();
  });

  it('keeps its keys to us', async () => {
    running = await startNats({ dir });
    for (const name of readdirSync(running.keysDir)) expect(statSync(join(running.keysDir, name)).mode & 0o077).toBe(0);
    const { operatorSeed, accountSeed } = JSON.parse(readFileSync(join(running.keysDir, 'installation.json'), 'utf8')) as Record<string, string>;
    const configuration = readFileSync(join(dir, 'nats.conf'), 'utf8');
    expect(operatorSeed).toMatch(/^SO/);
    for (const seed of [operatorSeed, accountSeed]) expect(configuration).not.toContain(seed);
  });

  it('killed and started again, has the same port, keys and messages', async () => {
    running = await startNats({ dir });
    const before = await enter(running, running.serviceCreds);
    await (await jetstreamManager(before)).streams.add({ name: 'KEPT', subjects: ['kept.>'] });
    await jetstream(before).publish('kept.one', 'a');
    await before.close();
    const { url, child } = running;
    process.kill(child.pid ?? 0, 'SIGKILL');
    running = await startNats({ dir });
    expect(running.url).toBe(url);
    const after = await enter(running, running.serviceCreds);
    expect((await (await jetstreamManager(after)).streams.info('KEPT')).state.messages).toBe(1);
    await after.close();
  });
});
