/*
 * npm run bench: every table, each figure with its ratio and its goal. Parts by name: `npm run bench -- control log`.
 *
 *     floor     what this machine can do at all: one durable insert behind a bare POST, a bare GET
 *     control   the control plane on 10 simulated nodes, as `npm start` runs it
 *     scale     the same questions at 100, 1,000, 10,000 VMs, and placement over 1,000 nodes in memory
 *     fleet     1,000 simulated nodes
 *     log       the log beside pgbench and emmett-postgresql
 *     libvirt   our client of libvirtd beside python3-libvirt and virsh
 *     guests    real QEMU beside bare define and start in the same minute
 *     steps     each step of a machine's life beside the same with virsh and qemu-img
 */
import { startPlatform } from '../e2e/platform.ts';
import { controlPlane } from './control-plane.ts';
import { fleet } from './fleet.ts';
import { measureFloor, type Floor } from './floor.ts';
import { guests } from './guests.ts';
import { gets } from './http.ts';
import { libvirtClient } from './libvirt.ts';
import { placement } from './placement.ts';
import { measureLog } from './log.ts';
import { type Figure, judge, FLOOR_MS_THERE, summary, table } from './report.ts';
import { scale } from './scale.ts';
import { steps } from './steps.ts';

const wanted = process.argv.slice(2).filter((word) => !word.startsWith('-'));
const wants = (part: string): boolean => wanted.length === 0 || wanted.includes(part);
const say = (line: string): void => { process.stdout.write(`bench: ${line}\n`); };

const figures: Figure[] = [];
let floor: Floor = { postMs: FLOOR_MS_THERE, getRate: Number.NaN };
const judged = () => figures.map((figure) => judge(figure, floor.postMs));

/** What fails ends its own part only: the figures of the others were paid for. */
const part = async (name: string, work: () => Promise<void> | void): Promise<void> => {
  try {
    await work();
  } catch (error) {
    process.exitCode = 1;
    say(`${name} failed: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`);
  }
};

if (wants('control') || wants('scale') || wants('floor')) {
  say('starting a platform of its own: Postgres, NATS, the control plane in one process, 10 simulated nodes');
  const platform = await startPlatform({ split: false, fleet: { nodes: 10, cpus: 512, memoryMib: 1_048_576, poolGib: 100_000 }, cidr: '10.64.0.0/12' });
  try {
    say('the floor');
    floor = await measureFloor(platform.postgresUrl('cv_owner'));
    figures.push(
      { work: 'floor: one durable insert behind a bare POST, p50', value: floor.postMs, unit: 'ms', note: `${FLOOR_MS_THERE.toFixed(2)} ms where the goals are taken as they stand` },
      { work: 'floor: bare node:http GET, 50 connections', value: floor.getRate, unit: '/s' },
    );
    if (wants('control')) {
      await part('http', async () => { figures.push(...(await gets(platform, floor))); });
      await part('control', async () => { figures.push(...(await controlPlane(platform, say))); });
    }
    if (wants('scale')) await part('scale', async () => { figures.push(...(await scale(platform, say))); });
  } finally {
    await platform.stop();
  }
}
if (wants('scale')) await part('placement', () => { figures.push(...placement()); });
if (wants('fleet')) await part('fleet', async () => { figures.push(...(await fleet(say))); });
if (wants('guests')) await part('guests', async () => { figures.push(...(await guests(say))); });
if (wants('steps')) await part('steps', async () => { figures.push(...(await steps(say))); });
if (wants('libvirt')) await part('libvirt', async () => { figures.push(...(await libvirtClient(say))); });
if (wants('log')) await part('log', async () => { figures.push(...(await measureLog('usual'))); });
process.stdout.write(`\n${table(judged())}\n\n${summary(judged())}\n`);
