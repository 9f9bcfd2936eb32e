/* Consoles at a gateway with a real database and bus; a node's agent is played here, as far as lines go. */
import { hash } from 'node:crypto';
import { once } from 'node:events';
import { setTimeout as pause } from 'node:timers/promises';
import { LineCut } from '@chronovirt/messaging/line';
import type { Line } from '@chronovirt/messaging/line';
import { answerLines } from '@chronovirt/messaging/lines';
import type { Lines } from '@chronovirt/messaging/lines';
import { busOfAgent } from '@chronovirt/messaging/testing-server.os';
import type { TestingAgent } from '@chronovirt/messaging/testing-server.os';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { WebSocket } from 'ws';
import { ids, requested, startTestingGateway, type TestingGateway, until } from '../testing-gateway.os.ts';

const nodeId = ids.nodeOf('red');
const vmId = `vm_${ids.digits('shown')}`;
const stopped = `vm_${ids.digits('stopped')}`;

let gateway: TestingGateway;
let agent: TestingAgent;
let lines: Lines;
let sql: pg.Pool;
/** What the node does with the next line. */
let answer: (line: Line) => void | Promise<void>;
const asked: unknown[] = [];

const makeVm = async (id: string, node: string, state: string): Promise<void> => {
  const operationId = `op_${ids.digits(`op ${id}`)}`;
  await gateway.append(`vm-${id}`,
    requested({ data: { vmId: id, operationId, name: `n${id.slice(-8)}`, description: '', image: 'tiny', network: 'default', vcpus: 1, memoryMib: 128, diskGib: 1 } }),
    { type: 'VmPlaced', data: { operationId, nodeId: node, poolId: ids.pool, generation: 1, decision: {} } },
    { type: 'VmOperationDone', data: { operationId, how: 'created' } },
    { type: 'VmObserved', data: { nodeId: node, session: 1, sequence: 1, generation: 1, state, reason: 'booted' } });
};

beforeAll(async () => {
  gateway = await startTestingGateway({ consoleUrl: 'https://cloud.example/at', consoleOrigins: ['https://desk.example'], consoleIdleMs: 6_000 });
  agent = await busOfAgent(gateway.nats, nodeId);
  lines = answerLines({ nc: agent.nc, nodeId, answer: async (what, line) => {
    asked.push(what);
    await answer(line);
  } });
  sql = new pg.Pool({ connectionString: gateway.database.urlOf('cv_gateway'), max: 2 });
  await makeVm(vmId, nodeId, 'running');
  await makeVm(stopped, nodeId, 'stopped');
  await until(async () => (await gateway.call('GET', `/v1/vms/${stopped}`)).json.status === 'stopped');
});
afterAll(async () => {
  lines?.close('node.stopping');
  await agent?.close();
  await sql?.end();
  await gateway?.close();
});

interface Client {
  readonly socket: WebSocket;
  readonly came: Buffer[];
  readonly closed: Promise<string>;
}

const offer = async (kind = 'serial', id = vmId): Promise<{ url: string; token: string; expiresAt: string }> => {
  const { status, json } = await gateway.call('POST', `/v1/vms/${id}/console`, { body: { kind } });
  expect(status).toBe(201);
  return json as { url: string; token: string; expiresAt: string };
};
/** Rejects with the status of a refusal. */
const connectTo = async (token: string | undefined, { query = false, origin, protocols = ['chronovirt.console'] }: { readonly query?: boolean; readonly origin?: string; readonly protocols?: readonly string[] } = {}): Promise<Client> => {
  const url = `${gateway.url.replace('http', 'ws')}/v1/console${query ? `?token=${String(token)}` : ''}`;
  const socket = new WebSocket(url, [...protocols, ...(query || token === undefined ? [] : [`cv-token.${token}`])], origin === undefined ? {} : { origin });
  const came: Buffer[] = [];
  socket.on('message', (data: Buffer) => { came.push(data); });
  const closed = once(socket, 'close').then(([code, reason]) => `${String(code)} ${String(reason)}`);
  await new Promise<void>((resolve, reject) => {
    socket.once('open', resolve);
    socket.once('unexpected-response', (_request, response) => {
      let text = '';
      response.on('data', (piece) => { text += String(piece); }).on('end', () => { reject(new Error(`${String(response.statusCode)} ${(JSON.parse(text) as { code: string }).code}`)); });
    });
    socket.on('error', reject);
  });
  return { socket, came, closed };
};
const text = ({ came }: Client): string => Buffer.concat(came).toString();
const echo = (line: Line): void => {
  line.accept();
  line.write('hello\n');
  line.pipe(line);
};
const consoleEvents = async (): Promise<readonly { type: string; subject: string; actor: string; data: Record<string, unknown> }[]> =>
  ((await gateway.call('GET', `/v1/vms/${vmId}/history?limit=1000`)).json.items as { type: string; category: string; subject: string; actor: string; data: Record<string, unknown> }[]).filter(({ category }) => category === 'console');
/** From the log: what is shown comes a moment later. */
const lastOpened = async (): Promise<string> => (await sql.query<{ id: string }>(`select data ->> 'consoleId' as id from event_log.event where type = 'ConsoleOpened' order by position desc limit 1`)).rows[0]?.id ?? '';
const closedOf = (subject: string) => until(async () => (await consoleEvents()).find((event) => event.type === 'ConsoleClosed' && event.subject === subject), 10_000);

describe('asking for a console', () => {
  it('A2-05 gives a URL below the configured one, and a token that is nowhere', async () => {
    const { url, token, expiresAt } = await offer();
    expect(url).toBe('wss://cloud.example/at/v1/console');
    expect(token).toMatch(/^[A-Za-z0-9_-]{43}$/);
    const lifeMs = Date.parse(expiresAt) - Date.now();
    expect(lifeMs).toBeGreaterThan(0);
    expect(lifeMs).toBeLessThanOrEqual(61_000);
    const { rows } = await sql.query<{ all: string }>('select console_token::text as all from gateway.console_token');
    expect(rows.map(({ all }) => all).join()).toContain(hash('sha256', token, 'hex'));
    expect(rows.map(({ all }) => all).join()).not.toContain(token);
  });
  it('is refused where there is nothing to see', async () => {
    const refusals = await Promise.all([`vm_${'0'.repeat(32)}`, stopped].map((id) => gateway.call('POST', `/v1/vms/${id}/console`, { body: { kind: 'vnc' } })));
    expect(refusals.map(({ status, json }) => [status, json.code as string])).toEqual([[404, 'vm.not_found'], [409, 'vm.not_running']]);
    expect((await gateway.call('POST', `/v1/vms/${vmId}/console`, { body: { kind: 'telnet' } })).status).toBe(400);
    expect((await gateway.call('POST', `/v1/vms/${vmId}/console`, { body: { kind: 'vnc' }, token: null })).status).toBe(401);
    expect((await gateway.call('POST', `/v1/vms/${vmId}/console`, { body: { kind: 'vnc' }, headers: { 'idempotency-key': 'k' } })).json.code).toBe('idempotency.not_supported');
  });
});

describe('a token', () => {
  it('lets one in, once, of however many at the same moment', async () => {
    answer = echo;
    const { token } = await offer();
    const tries: readonly PromiseSettledResult<Client>[] = await Promise.allSettled(Array.from({ length: 8 }, () => connectTo(token)));
    const inside = tries.filter((one) => one.status === 'fulfilled');
    expect(inside).toHaveLength(1);
    expect(tries.flatMap((one) => (one.status === 'rejected' ? [String(one.reason)] : []))).toEqual(Array.from({ length: 7 }, () => 'Error: 401 console.token_unknown'));
    inside[0]?.value.socket.close();
  });
  it('may stand in the query; the server never answers with it', async () => {
    answer = echo;
    const client = await connectTo((await offer()).token, { query: true, protocols: ['binary'] });
    expect(client.socket.protocol).toBe('binary');
    client.socket.close();
  });
  it('that is too old, wrong, or missing lets nobody in', async () => {
    const { token } = await offer();
    await sql.query(`update gateway.console_token set expires_at = now() - interval '1 millisecond' where sha256 = $1`, [hash('sha256', token, 'hex')]);
    for (const wrong of [token, 'x'.repeat(43), 'short', undefined]) await expect(connectTo(wrong)).rejects.toThrow('401 console.token_unknown');
  });
  it('is not used up by a page that may not connect', async () => {
    answer = echo;
    const { token } = await offer();
    await expect(connectTo(token, { origin: 'https://evil.example' })).rejects.toThrow('403 console.origin_refused');
    for (const origin of ['https://desk.example']) {
      const client = await connectTo(token, { origin });
      client.socket.close();
    }
  });
  it('is worth nothing once the API token that asked for it is revoked, and what is open is closed', async () => {
    answer = echo;
    const issued = (await gateway.call('POST', '/v1/tokens', { body: { name: 'short' } })).json as { id: string; token: string };
    const ask = async (): Promise<string> => (await gateway.call('POST', `/v1/vms/${vmId}/console`, { body: { kind: 'serial' }, token: issued.token })).json.token as string;
    const [open, unused] = [await connectTo(await ask()), await ask()];
    await until(async () => text(open) === 'hello\n');
    await gateway.call('DELETE', `/v1/tokens/${issued.id}`);
    await expect(connectTo(unused)).rejects.toThrow('401 auth.token_revoked');
    expect(await open.closed).toBe('4401 auth.token_revoked');
  });
});

describe('a console', () => {
  it('carries bytes both ways, and stands in the VM\'s history with who, how much and why it ended', async () => {
    answer = echo;
    const client = await connectTo((await offer('vnc')).token);
    await until(async () => text(client) === 'hello\n');
    expect(asked.at(-1)).toEqual({ vmId, kind: 'vnc' });
    const opened = await lastOpened();
    const sent = Buffer.from(Array.from({ length: 700_000 }, (_, index) => index % 253));
    for (let at = 0; at < sent.length; at += 50_000) client.socket.send(sent.subarray(at, at + 50_000));
    client.socket.send('and text');
    await until(async () => Buffer.concat(client.came).length === 6 + sent.length + 8, 20_000);
    expect(Buffer.concat(client.came).subarray(6, 6 + sent.length).equals(sent)).toBe(true);
    client.socket.close();
    expect((await closedOf(opened)).data).toEqual({ consoleId: opened, vmId, because: 'console.left', bytesToGuest: sent.length + 8, bytesFromGuest: 6 + sent.length + 8 });
    expect((await consoleEvents()).find(({ subject }) => subject === opened)).toMatchObject({ actor: expect.stringMatching(/^token_/) as string, data: { nodeId, kind: 'vnc', address: '127.0.0.1' } });
    await until(async () => lines.count() === 0);
    expect((await sql.query('select from gateway.console_session where id = $1', [opened])).rowCount).toBe(0);
  });

  it('holds a guest back that says more than its client reads, and loses nothing of it', async () => {
    // The sockets between them hold some: on Linux up to 38 MiB, where nobody set less.
    const much = 96 * 2 ** 20;
    let said = 0;
    answer = (line) => {
      line.accept();
      const say = (): void => {
        while (said < much) {
          said += 65_536;
          if (!line.write(Buffer.alloc(65_536, said / 65_536))) return void line.once('drain', say);
        }
        line.end();
      };
      say();
    };
    const client = await connectTo((await offer()).token);
    client.socket.pause();
    // It comes to rest, far from the end: what sockets, windows and buffers hold is bounded.
    let before = -1;
    await until(async () => {
      await pause(300);
      const still = said === before;
      before = said;
      return still;
    }, 15_000);
    expect(said).toBeLessThan(much * 0.7);
    client.socket.resume();
    expect(await client.closed).toBe('1000 console.ended');
    const all = Buffer.concat(client.came);
    expect(all.length).toBe(much);
    for (let at = 0; at < much; at += 65_536) if (!all.subarray(at, at + 65_536).equals(Buffer.alloc(65_536, at / 65_536 + 1))) throw new Error(`what came is not what was said, from ${String(at)} on`);
  }, 60_000);

  it('that the node refuses is closed with the reason, and nothing is recorded', async () => {
    answer = () => { throw new LineCut({ code: 'console.in_use', because: { says: 'no' } }); };
    const before = await lastOpened();
    const client = await connectTo((await offer()).token);
    expect(await client.closed).toBe('4409 console.in_use');
    expect(await lastOpened()).toBe(before);
  });

  it('ends when the node ends it, and when the node is not heard any more', async () => {
    answer = echo;
    const client = await connectTo((await offer()).token);
    await until(async () => text(client) === 'hello\n');
    const opened = await lastOpened();
    lines.close('node.stopping');
    expect(await client.closed).toBe('4503 node.stopping');
    expect((await closedOf(opened)).data).toMatchObject({ because: 'node.stopping' });
    lines = answerLines({ nc: agent.nc, nodeId, answer: async (what, line) => {
      asked.push(what);
      await answer(line);
    } });
    await agent.nc.flush();
  });

  it('passes nothing that it cannot record', async () => {
    const written: Buffer[] = [];
    const before = await lastOpened();
    answer = (line) => {
      gateway.cutPostgres(true);
      line.accept();
      line.write('secret');
      line.on('data', (bytes: Buffer) => { written.push(bytes); });
    };
    try {
      const client = await connectTo((await offer()).token);
      client.socket.send('typed');
      expect(await client.closed).toBe('4503 gateway.unavailable');
      expect([text(client), written]).toEqual(['', []]);
    } finally {
      gateway.cutPostgres(false);
    }
    expect(await lastOpened()).toBe(before);
    await until(async () => (await gateway.call('GET', `/v1/vms/${vmId}`)).status === 200, 10_000);
  });

  it('whose gateway died is recorded as closed by another; an idle one is closed; old tokens are forgotten', async () => {
    answer = echo;
    const idle = await connectTo((await offer()).token);
    await until(async () => text(idle) === 'hello\n');
    const idleId = await lastOpened();
    const old = hash('sha256', (await offer()).token, 'hex');
    await sql.query(`update gateway.console_token set expires_at = now() - interval '1 millisecond' where sha256 = $1`, [old]);
    const consoleId = `console_${ids.digits('dead')}`;
    await gateway.append(`console-${consoleId}`, { type: 'ConsoleOpened', data: { consoleId, vmId, nodeId, kind: 'vnc', address: null } });
    await sql.query(`insert into gateway.console_session (id, vm_id, actor, bytes_to_guest, bytes_from_guest, seen_at) values ($1, $2, 'token_x', 5, 7, now() - interval '31 seconds')`, [consoleId, vmId]);

    // One that was taken for dead is over for its client too: what stands in the log is so.
    const taken = await connectTo((await offer()).token);
    await until(async () => text(taken) === 'hello\n');
    await sql.query('delete from gateway.console_session where id = $1', [await lastOpened()]);

    expect(await taken.closed).toBe('4503 gateway.gone');
    expect(await idle.closed).toBe('4408 console.idle');
    expect((await closedOf(idleId)).data).toMatchObject({ because: 'console.idle' });
    expect((await closedOf(consoleId)).data).toMatchObject({ because: 'gateway.gone', bytesToGuest: 5, bytesFromGuest: 7 });
    await until(async () => (await sql.query('select from gateway.console_session where id = any($1)', [[consoleId, idleId]])).rowCount === 0);
    expect((await sql.query('select from gateway.console_token where sha256 = $1', [old])).rowCount).toBe(0);
  }, 40_000);
});

describe('a picture', () => {
  it('comes as the node gives it', async () => {
    const picture = Buffer.concat([Buffer.from([0x89, 0x50, 0x4e, 0x47]), Buffer.alloc(600_000, 9)]);
    answer = (line) => {
      line.accept();
      line.end(picture);
    };
    const response = await fetch(`${gateway.url}/v1/vms/${vmId}/screenshot`, { headers: { authorization: `Bearer ${(await import('../testing-gateway.os.ts')).adminToken}` } });
    expect(asked.at(-1)).toEqual({ vmId, kind: 'screenshot' });
    expect([response.status, response.headers.get('content-type')]).toEqual([200, 'image/png']);
    expect(Buffer.from(await response.arrayBuffer()).equals(picture)).toBe(true);
  });
  it('is refused by the gateway, or by the node', async () => {
    answer = () => { throw new LineCut({ code: 'console.no_screen', because: { says: 'a VM on a simulated node has no screen' } }); };
    const refused = await gateway.call('GET', `/v1/vms/${vmId}/screenshot`);
    expect([refused.status, refused.json.code, refused.json.detail]).toEqual([409, 'console.no_screen', 'There is no screen: a VM on a simulated node has no screen.']);
    expect((await gateway.call('GET', `/v1/vms/${stopped}/screenshot`)).json.code).toBe('vm.not_running');
  });
});

describe('the door', () => {
  it('is for consoles alone: who wants another protocol anywhere else is answered as ever', async () => {
    const response = await gateway.call('GET', '/v1/console');
    expect([response.status, response.json.code]).toEqual([404, 'route.not_found']);
    const elsewhere = new WebSocket(`${gateway.url.replace('http', 'ws')}/v1/vms`);
    const [, answered] = await once(elsewhere, 'unexpected-response') as [unknown, { statusCode: number }];
    expect(answered.statusCode).toBe(401);
    elsewhere.on('error', () => undefined).terminate();
  });
});
