/*
 * What a fleet of fake daemons costs: many pretend nodes with their domains in this process, and a client
 * for each, as simulated node agents have one.
 *
 *   node --expose-gc --conditions=chronovirt-source bench/libvirt-fleet.ts [--nodes 1000] [--domains 50] [--idle-seconds 10]
 *
 * Memory is the proportional set of this process (what it shares is counted in part), after a collection.
 * CPU is of both sides, since the clients live here too; `nodes alone` is the memory before they come.
 */
import { readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { connect } from '@chronovirt/libvirt/connection';
import type { Libvirt } from '@chronovirt/libvirt/connection';
import { targetOf } from '@chronovirt/libvirt/fake/daemon';
import { fleet } from '@chronovirt/libvirt/fake/fleet';

const { values } = parseArgs({ options: { nodes: { type: 'string', default: '1000' }, domains: { type: 'string', default: '50' }, 'idle-seconds': { type: 'string', default: '10' } } });
const nodes = Number(values.nodes);
const domains = Number(values.domains);
const idleMs = Number(values['idle-seconds']) * 1_000;
const atOnce = 16;

const collect = (globalThis as { readonly gc?: () => void }).gc ?? (() => {});
interface Memory {
  readonly pssMib: number;
  readonly rssMib: number;
  readonly heapMib: number;
}
async function memory(): Promise<Memory> {
  for (let round = 0; round < 3; round += 1) {
    collect();
    await delay(50);
  }
  const rollup = readFileSync('/proc/self/smaps_rollup', 'utf8');
  const mib = (name: string) => Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(rollup)?.[1]) / 1_024;
  return { pssMib: mib('Pss'), rssMib: mib('Rss'), heapMib: process.memoryUsage().heapUsed / 1_048_576 };
}

interface Used {
  readonly seconds: number;
  readonly cpuSeconds: number;
}
async function measured(work: () => Promise<unknown>): Promise<Used> {
  const cpu = process.cpuUsage();
  const began = performance.now();
  await work();
  const { user, system } = process.cpuUsage(cpu);
  return { seconds: (performance.now() - began) / 1_000, cpuSeconds: (user + system) / 1e6 };
}

async function inTurns<T>(items: readonly T[], work: (item: T) => Promise<unknown>): Promise<void> {
  const waiting = [...items];
  await Promise.all(Array.from({ length: atOnce }, async () => {
    for (let item = waiting.shift(); item !== undefined; item = waiting.shift()) await work(item);
  }));
}

const number = (value: number, digits = 1): string => value.toFixed(digits);
const row = (what: string, value: string) => {
  process.stdout.write(`${what.padEnd(52)} ${value}\n`);
};
const said = (now: Memory): string => `${number(now.pssMib)} MiB PSS, ${number(now.rssMib)} MiB RSS, ${number(now.heapMib)} MiB heap`;

const bare = await memory();
row('process with nothing', said(bare));
let daemons: ReturnType<typeof fleet> = [];
const making = await measured(async () => {
  daemons = fleet({ nodes, population: { domains, running: true }, guest: { bootMs: 200 } });
  // Until their agents are up.
  await delay(1_000);
});
row(`${nodes} nodes with ${domains} running domains each are made`, `${number(making.cpuSeconds)} s CPU`);
const alone = await memory();
row('nodes alone', said(alone));
row('for each domain', `${number(((alone.pssMib - bare.pssMib) * 1_024) / (nodes * domains), 2)} KiB PSS`);

const libvirts: Libvirt[] = [];
const connecting = await measured(() => inTurns(daemons, async (daemon) => libvirts.push(await connect(targetOf(daemon)))));
row('a client connects to each', `${number(connecting.seconds)} s, ${number(connecting.cpuSeconds)} s CPU`);
const connected = await memory();
row('with clients', said(connected));
row('for each connection, both ends', `${number(((connected.pssMib - alone.pssMib) * 1_024) / nodes)} KiB PSS`);

const idle = await measured(() => delay(idleMs));
row(`idle for ${number(idle.seconds, 0)} s, keepalive of both sides`, `${number((idle.cpuSeconds / idle.seconds) * 100)} % of a core`);

const listed = new Set<string>();
const listing = await measured(() => inTurns(libvirts, async (libvirt) => {
  for (const domain of await libvirt.connectListAllDomains()) listed.add(domain.uuid);
}));
row(`all domains listed (${listed.size})`, `${number(listing.seconds, 2)} s, ${number(listing.cpuSeconds, 2)} s CPU`);
let fields = 0;
const counting = await measured(() => inTurns(libvirts, async (libvirt) => {
  for (const one of await libvirt.connectGetAllDomainStats({ domains: [], groups: [], flags: ['nowait'] })) fields += Object.keys(one.parameters).length;
}));
row(`all statistics (${fields} fields)`, `${number(counting.seconds, 2)} s, ${number(counting.cpuSeconds, 2)} s CPU`);
const busy = await measured(() => inTurns(libvirts, async (libvirt) => {
  const [domain] = await libvirt.connectListAllDomains();
  if (domain === undefined) return;
  const events = await libvirt.domainEvents({ kinds: ['lifecycle'] });
  await libvirt.domainSuspend({ domain });
  await events.next();
  await libvirt.domainResume({ domain });
  await events.close();
}));
row('one domain of each is suspended and resumed, heard', `${number(busy.seconds, 2)} s, ${number(busy.cpuSeconds, 2)} s CPU`);
row('at the end', said(await memory()));
if (listed.size !== nodes * domains) throw new Error(`${listed.size} domains were listed, not ${nodes * domains}`);
await Promise.all(libvirts.map((libvirt) => libvirt.close()));
await Promise.all(daemons.map((daemon) => daemon.close()));
