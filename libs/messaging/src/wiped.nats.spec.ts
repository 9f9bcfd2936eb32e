/*
 * The whole store of JetStream deleted under load: services, agents and publishers go on, and
 * nobody is restarted. What was in flight is lost with the store; whoever wants it sends it
 * again, as a saga does, and it is obeyed once because its answer is remembered.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Bus } from './connect.ts';
import { consume } from './consume.ts';
import type { Consumption } from './consume.ts';
import { keepTopology } from './ensure-topology.ts';
import type { TopologyKeeper } from './ensure-topology.ts';
import { createPublisher } from './publish.ts';
import { createReplies } from './replies.ts';
import { busOfAgent, busOfService, startTestingServer, until } from './testing-server.os.ts';
import type { TestingServer } from './testing-server.os.ts';
import { commandsOf, commandsOfNode } from './topology.ts';
import { jetstreamManager } from '@nats-io/jetstream';

let server: TestingServer;
const buses: Bus[] = [];
const consumptions: Consumption[] = [];
let keeper: TopologyKeeper | undefined;

beforeAll(async () => { server = await startTestingServer(); });
afterAll(async () => {
  await keeper?.stop();
  await Promise.all(consumptions.map((one) => one.stop(500)));
  await Promise.all(buses.map((bus) => bus.close()));
  await server?.stop();
});

const TARGETS = ['ipam', 'scheduler', 'node'] as const;

describe('the store is deleted under load', () => {
  it.each([
    ['while the server runs, which then dies', async () => { await server.wipe(); await server.kill(); await server.start(); }],
    ['while the server runs and goes on', async () => { await server.wipe(); }],
    ['while the server is down', async () => { await server.kill(); await server.wipe(); await server.start(); }],
    ['not at all: the server only dies', async () => { await server.kill(); await server.start(); }],
    ['and the server stays away for a while', async () => { await server.kill(); await server.wipe(); await new Promise((resolve) => setTimeout(resolve, 2_500)); await server.start(); }],
  ])('%s', async (_, disaster) => {
    await Promise.all(consumptions.splice(0).map((one) => one.stop(500)));
    await keeper?.stop();
    await Promise.all(buses.splice(0).map((bus) => bus.close()));

    const [sender, ipam, scheduler, leader] = await Promise.all(['sender', 'ipam', 'scheduler', 'leader'].map((name) => busOfService(server, name))) as [Bus, Bus, Bus, Bus];
    const agent = await busOfAgent(server, 'node_1');
    buses.push(sender, ipam, scheduler, leader, agent);
    keeper = keepTopology({ nc: leader.nc, topology: () => ({ consumers: [commandsOf('ipam'), commandsOf('scheduler')], nodes: ['node_1'] }), everyMs: 1_000 });

    const answers = new Map<string, number>();
    let effects = 0;
    const handle = (id: string | undefined): unknown => {
      if (id === undefined) throw new Error('no id');
      const earlier = answers.get(id);
      if (earlier !== undefined) return { version: earlier };
      answers.set(id, ++effects);
      return { version: effects };
    };
    consumptions.push(
      consume({ bus: ipam, spec: commandsOf('ipam'), handle: (delivery) => handle(delivery.header('Cv-Id')) }),
      consume({ bus: scheduler, spec: commandsOf('scheduler'), handle: (delivery) => handle(delivery.header('Cv-Id')) }),
      consume({ bus: agent, spec: commandsOfNode('node_1'), handle: (delivery) => handle(delivery.header('Cv-Id')) }),
    );
    const replies = createReplies({ nc: sender.nc, process: 'sender' });
    const publisher = createPublisher({ bus: sender });
    await until('all read', async () => consumptions.every((one) => one.status().ok) && (await jetstreamManager(leader.nc)).consumers.info('COMMANDS', 'node-node_1-commands').then(() => true, () => false));

    // As a saga does: again after a while, until it is answered.
    const obey = async (n: number): Promise<void> => {
      const to = TARGETS[n % 3]!;
      const target = to === 'node' ? 'node_1' : `t${n % 17}`;
      const id = `00000000-0000-8000-8000-${String(n).padStart(12, '0')}`;
      for (let attempt = 0; attempt < 60; attempt++) {
        const answer = replies.expect(id, { timeoutMs: 1_000, to, target });
        await publisher.publishCommand({ id, to, target, type: 'DoIt', data: {}, meta: { actor: 'test' }, cancels: [] }, { reply: replies.subjectFor(to, target) }).catch(() => undefined);
        if (await answer.then(() => true, () => false)) return;
      }
      throw new Error(`command ${n} was never answered`);
    };
    let sent = 0;
    let done = 0;
    const underLoad = async (goesOn: () => boolean): Promise<void> => {
      await Promise.all(Array.from({ length: 50 }, async () => {
        while (goesOn()) {
          await obey(sent++);
          done++;
        }
      }));
    };
    let ending = false;
    const load = underLoad(() => !ending);
    await until('the load is under way', () => done > 300);
    await disaster();
    const doneAtDisaster = done;
    await until('work goes on', () => done > doneAtDisaster + 300, 20_000);
    ending = true;
    await load;
    // A server whose files are gone notices when it opens the next one: after the queue was empty.
    const more = sent + 300;
    await underLoad(() => sent < more);

    expect(done).toBe(sent);
    expect(effects).toBe(sent);
    expect(consumptions.map((one) => one.status().ok)).toEqual([true, true, true]);
    const jsm = await jetstreamManager(leader.nc);
    expect((await jsm.streams.info('DEAD')).state.messages).toBe(0);
    // What was acknowledged and not written down before the server died comes again once, or is purged by the leader.
    await until('the queue is empty', async () => (await jsm.streams.info('COMMANDS')).state.messages === 0, 40_000);
    replies.close();
  }, 90_000);
});
