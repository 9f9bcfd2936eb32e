/* Lines over a real bus, with the credentials that a service and an agent have. */
import { buffer } from 'node:stream/consumers';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Bus } from './connect.ts';
import { LineCut } from './line.ts';
import type { Line } from './line.ts';
import { answerLines, openLine } from './lines.ts';
import type { Lines } from './lines.ts';
import { busOfAgent, busOfService, startTestingServer, until } from './testing-server.os.ts';
import type { TestingServer } from './testing-server.os.ts';
import { subjects } from './topology.ts';

let server: TestingServer;
let service: Bus;
let agent: Bus;
let lines: Lines;
let answered: Line | undefined;

const cutOf = (line: Line): Promise<string> => new Promise((resolve) => {
  const say = (): void => { resolve(line.errored instanceof LineCut ? line.errored.code : 'ended'); };
  if (line.closed) say();
  else line.once('close', say);
});

beforeAll(async () => {
  server = await startTestingServer();
  service = await busOfService(server);
  agent = await busOfAgent(server, 'node_a');
  lines = answerLines({
    nc: agent.nc, nodeId: 'node_a', linesMax: 3,
    answer: async (what, line) => {
      answered = line;
      const { does } = what as { readonly does: string };
      if (does === 'refuse') throw new LineCut({ code: 'console.in_use', because: { says: 'no' } });
      if (does === 'fail') throw new Error('a secret path');
      line.accept();
      if (does === 'echo') line.pipe(line);
      if (does === 'say') line.end(Buffer.alloc(1_000_000, 7));
    },
  });
  await agent.nc.flush();
});
afterAll(async () => {
  await Promise.all([service.close(), agent.close()]);
  await server.stop();
});
const open = (does: string, nodeId = 'node_a', withinMs = 5_000): Promise<Line> => openLine({ nc: service.nc, nodeId, what: { does }, withinMs });

describe('lines over the bus', () => {
  it('carry megabytes both ways, whole', async () => {
    const line = await open('echo');
    const sent = Buffer.from(Array.from({ length: 3_000_000 }, (_, index) => index % 251));
    const read = buffer(line);
    line.end(sent);
    expect((await read).equals(sent)).toBe(true);
    await until('both ends are over', () => line.closed && lines.count() === 0);
  });

  it('bring what only one side says', async () => {
    const line = await open('say');
    expect((await buffer(line)).equals(Buffer.alloc(1_000_000, 7))).toBe(true);
  });

  it('are refused with the node\'s reason, and its faults are not told', async () => {
    await expect(open('refuse')).rejects.toMatchObject({ code: 'console.in_use', because: { says: 'no' } });
    const fault = await open('fail').catch((error: unknown) => error);
    expect(fault).toMatchObject({ code: 'node.fault', because: undefined });
    await until('none is left', () => lines.count() === 0);
  });

  it('to a node that nobody is say so in time', async () => {
    await expect(open('echo', 'node_b', 200)).rejects.toMatchObject({ code: 'node.no_answer' });
  });

  it('have a bound', async () => {
    const three = await Promise.all([open('hold'), open('hold'), open('hold')]);
    await expect(open('hold')).rejects.toMatchObject({ code: 'node.too_many_lines' });
    for (const line of three) line.destroy();
    await until('they are forgotten', () => lines.count() === 0);
  });

  it('of an agent that started again are cut', async () => {
    const line = await open('hold');
    const ends = cutOf(line);
    lines.close('node.stopping');
    expect(await ends).toBe('node.stopping');
    // As after a kill -9: the new process knows nothing of the line.
    const again = answerLines({ nc: agent.nc, nodeId: 'node_a', answer: async (_what, one) => { one.accept(); answered = one; } });
    await agent.nc.flush();
    const other = await open('hold');
    const over = cutOf(other);
    answered?.removeAllListeners('close');
    again.close('node.stopping');
    expect(await over).toBe('node.stopping');
    const third = answerLines({ nc: agent.nc, nodeId: 'node_a', answer: async (_what, one) => { one.accept(); } });
    await agent.nc.flush();
    const heard = new Promise<string>((resolve) => { service.nc.subscribe(subjects.lineUp('node_a', 'f'.repeat(32)), { max: 1, callback: (_err, message) => { resolve(message.string().slice(1)); } }); });
    service.nc.publish(subjects.lineDown('node_a', 'f'.repeat(32)), Buffer.concat([Buffer.of(3), Buffer.alloc(16)]));
    expect(JSON.parse(await heard)).toEqual({ code: 'line.unknown' });
    third.close('node.stopping');
  });

  it('of another node cannot be heard or spoken by an agent', async () => {
    const other = await busOfAgent(server, 'node_b');
    try {
      const heard: string[] = [];
      const spied: unknown[] = [];
      other.nc.subscribe(subjects.linesDown('node_a'), { callback: (err, message) => { if (err === null) heard.push(message.subject); else spied.push(err); } });
      service.nc.subscribe(subjects.lineUp('node_a', 'x'), { callback: (_err, message) => { heard.push(message.subject); } });
      await Promise.all([other.nc.flush(), service.nc.flush()]);
      service.nc.publish(subjects.lineDown('node_a', 'x'), 'for node_a alone');
      other.nc.publish(subjects.lineUp('node_a', 'x'), 'as if node_a had said it');
      await until('it is refused', () => spied.length > 0);
      await Promise.all([service.nc.flush(), other.nc.flush(), agent.nc.flush()]);
      expect(heard).toEqual([]);
    } finally {
      await other.close();
    }
  });
});
