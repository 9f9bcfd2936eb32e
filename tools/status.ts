/* `npm run status`: each part, in plain words. Ends with 0 when all is ready, 3 when nothing runs, 1 otherwise. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { processorMs, descendants, proportionalSet } from './memory.ts';
import { settingsFrom } from './home.ts';
import { leftBehind, tell } from './keeper-client.ts';
import type { PartState } from './keeper.ts';
import { findLibvirt, runningGuests } from './libvirt.ts';
import { portInUse } from './running.ts';
import { AGENT } from './services.ts';

interface Report {
  readonly ready: boolean;
  readonly parts?: readonly { readonly name: string; readonly ok: boolean; readonly says: string }[];
}

interface Row {
  readonly name: string;
  readonly pid: string;
  readonly memory: number | undefined;
  readonly processor: number | undefined;
  readonly says: string;
}

const MIB = 1024 * 1024;

async function main(): Promise<number> {
  const { home, port: asked } = settingsFrom(process.env);
  const port = portInUse(home) ?? asked;
  const answer = await tell(home, { do: 'list' });
  if (!answer) {
    const left = leftBehind(home);
    console.log(left.length === 0 ? `Nothing runs (${home.dir}).` : `The keeper is gone; these were left running: ${left.map((one) => `${one.name} (${one.pid})`).join(', ')}. npm start continues, npm stop ends them.`);
    await sayOfLibvirt();
    return left.length === 0 ? 3 : 1;
  }
  const health = existsSync(join(home.run, 'health-ports.json')) ? (JSON.parse(readFileSync(join(home.run, 'health-ports.json'), 'utf8')) as Record<string, number>) : {};
  const rows: Row[] = [rowOf('keeper', answer.keeper, [answer.keeper], 'starts the others again when they end')];
  let ready = ['postgres', 'nats', AGENT].every((name) => answer.parts.some((part) => part.name === name));
  for (const part of answer.parts) {
    const said = await saysOf(part, health, port);
    ready &&= said.ok;
    rows.push(row(part.name, part.pid, sentence(part, said.says)));
  }
  const libvirt = await findLibvirt();
  if (libvirt?.owner === 'chronovirt' && libvirt.pid !== undefined) rows.push(libvirtRow(libvirt.pid));
  print(rows);
  await sayOfLibvirt();
  console.log(ready ? `Ready on http://127.0.0.1:${port}; token in ${home.adminTokenFile}.` : `Not ready. Logs: ${home.logs}`);
  return ready ? 0 : 1;
}

async function sayOfLibvirt(): Promise<void> {
  const libvirt = await findLibvirt();
  const guests = runningGuests();
  console.log(`${libvirt ? `libvirtd answers (${libvirt.owner === 'the machine' ? 'the machine’s own' : 'started by Chronovirt'})` : 'No libvirtd answers'}; ${guests === 1 ? '1 virtual machine runs' : `${guests} virtual machines run`} on this machine.`);
}

/** With its children: Postgres is many processes. */
function row(name: string, pid: number | undefined, says: string): Row {
  if (pid === undefined) return { name, pid: '-', memory: undefined, processor: undefined, says };
  return rowOf(name, pid, descendants(pid), says);
}

function rowOf(name: string, pid: number, pids: readonly number[], says: string): Row {
  const sum = (values: readonly (number | undefined)[]): number => values.reduce<number>((total, value) => total + (value ?? 0), 0);
  return { name, pid: String(pid), memory: sum(pids.map(proportionalSet)), processor: sum(pids.map(processorMs)), says: pids.length > 1 ? `${says} (${pids.length} processes)` : says };
}

/** Under tini are QEMU's processes too, which are guests and not part of the platform. */
function libvirtRow(tini: number): Row {
  const own = descendants(tini).filter((pid) => !/qemu-system/.test(commandOf(pid)));
  return rowOf('libvirt', tini, own, 'answers');
}

const commandOf = (pid: number): string => {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8');
  } catch {
    return '';
  }
};

function sentence(part: PartState, says: string): string {
  const restarts = part.restarts > 0 ? `; started again ${part.restarts} times, ended last with ${part.lastEnd ?? 'nothing said'}` : '';
  return `${part.state === 'running' ? says : part.state}${restarts}`;
}

async function saysOf(part: PartState, health: Readonly<Record<string, number>>, port: number): Promise<{ ok: boolean; says: string }> {
  if (part.state !== 'running') return { ok: false, says: part.state };
  if (part.name === 'postgres' || part.name === 'nats') return { ok: true, says: 'runs' };
  const report = await reportOf(health[part.name] ?? port);
  if (!report) return { ok: false, says: 'does not answer' };
  const waiting = report.parts?.filter((one) => !one.ok).map((one) => `${one.name}: ${one.says}`) ?? [];
  return { ok: report.ready, says: report.ready ? 'ready' : `not ready: ${waiting.join('; ')}` };
}

async function reportOf(port: number): Promise<Report | undefined> {
  try {
    const response = await fetch(`http://127.0.0.1:${port}/readyz`, { signal: AbortSignal.timeout(3_000) });
    return { ready: response.ok, ...((await response.json()) as Omit<Report, 'ready'>) };
  } catch {
    return undefined;
  }
}

function print(rows: readonly Row[]): void {
  const total = rows.reduce((sum, one) => sum + (one.memory ?? 0), 0);
  const lines = [
    ['part', 'process', 'memory', 'processor', ''],
    ...rows.map((one) => [one.name, one.pid, one.memory === undefined ? '-' : `${(one.memory / MIB).toFixed(1)} MiB`, one.processor === undefined ? '-' : `${(one.processor / 1000).toFixed(1)} s`, one.says]),
    ['all', '', `${(total / MIB).toFixed(1)} MiB`, '', 'memory is PSS: pages in common are shared out'],
  ];
  const widths = [0, 1, 2, 3].map((column) => Math.max(...lines.map((line) => line[column]?.length ?? 0)));
  for (const line of lines) console.log(line.map((cell, column) => (column === 2 || column === 3 ? cell.padStart(widths[column] ?? 0) : cell.padEnd(widths[column] ?? 0))).join('  ').trimEnd());
}

main().then(
  (code) => (process.exitCode = code),
  (error: unknown) => {
    console.error(`chronovirt: ${(error as Error).message}`);
    process.exitCode = 1;
  },
);
