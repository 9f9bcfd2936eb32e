/*
 * Our libvirt client beside python3-libvirt (libvirt's own C library under Python) and virsh, in one run, on one
 * libvirtd of the bench's own: cheap calls, bulk statistics, events, volumes, memory.
 *
 * Ours runs in this process, the peers in theirs; each has the machine to itself for its turn. Turns alternate and
 * the middle one of several counts.
 */
import { execFile, fork } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { chmodSync, chownSync, closeSync, createReadStream, existsSync, mkdirSync, openSync, readFileSync, statSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { connect, type Libvirt } from '@chronovirt/libvirt/connection';
import { domainStats } from '@chronovirt/libvirt/stats';
import { startLibvirtd, type OwnLibvirtd } from '../libs/libvirt/src/testing-libvirtd.os.ts';
import { type Figure, percentile } from './report.ts';

const run = promisify(execFile);
const PYTHON = '/usr/bin/python3';
const PEER = join(import.meta.dirname, 'libvirt-peer.py');
const ROUNDS = 3;
const CALLS = 20_000;
const VOLUME_MIB = 256;
const CONNECTIONS = 200;
/** Calls in flight on one connection, for ours and as threads for the peer. */
const DEEP = 64;
/** So that 64 calls of one client are read at once: libvirtd's own default is 5. */
const LIMITS = { max_client_requests: 200, min_workers: 20, max_workers: 40, max_clients: 500 } as const;
/** Domains in one state file that the daemon reads when the driver is opened. */
const listedName = (count: number): string => `test-${String(count)}.xml`;

interface Calls {
  readonly rate: number;
  readonly p50: number;
  readonly p99: number;
  readonly cpuUs: number;
}

interface Stats {
  readonly ms: number;
  readonly cpuMs: number;
}

const cpuMs = (): number => {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1_000;
};

/** Cheap calls over one connection, so many on their way at a time. */
const callsOf = async (libvirt: Libvirt, inFlight: number, count: number): Promise<Calls> => {
  const domain = await libvirt.domainLookupByName({ name: 'test' });
  const times: number[] = [];
  let left = count;
  const worker = async (): Promise<void> => {
    while (left-- > 0) {
      const at = performance.now();
      await libvirt.domainGetInfo({ domain });
      times.push(performance.now() - at);
    }
  };
  const cpu = cpuMs();
  const startedAt = performance.now();
  await Promise.all(Array.from({ length: inFlight }, worker));
  const seconds = (performance.now() - startedAt) / 1_000;
  return { rate: count / seconds, p50: percentile(times, 0.5), p99: percentile(times, 0.99), cpuUs: ((cpuMs() - cpu) * 1_000) / count };
};

const peer = async <T>(uri: string, ...words: readonly string[]): Promise<T> => JSON.parse((await run(PYTHON, [PEER, uri, ...words], { maxBuffer: 1 << 20 })).stdout) as T;

const middle = <T>(all: readonly T[], of: (one: T) => number): T => {
  const sorted = [...all].sort((a, b) => of(a) - of(b));
  const found = sorted[Math.floor(sorted.length / 2)];
  if (found === undefined) throw new Error('nothing was measured');
  return found;
};

const pssKib = (): number => Number(/^Pss:\s+(\d+) kB/m.exec(readFileSync('/proc/self/smaps_rollup', 'utf8'))?.[1]);

/** A process of ours that holds so many connections: what each takes is its growth. */
const connectionKib = (socket: string): Promise<number> => new Promise((resolve, reject) => {
  const child = fork(fileURLToPath(import.meta.url), ['memory', socket], { execArgv: [...process.execArgv, '--expose-gc'] });
  child.once('message', (message) => { resolve(Number(message)); });
  child.once('exit', (code) => { reject(new Error(`the holder of connections ended with ${String(code)}`)); });
});

const holdConnections = async (socket: string): Promise<void> => {
  const target = { socket, driver: 'test:///default' };
  const kept = await Promise.all(Array.from({ length: 10 }, () => connect(target)));
  const settle = async (): Promise<number> => {
    for (let turn = 0; turn < 3; turn++) {
      (globalThis as { gc?: () => void }).gc?.();
      await new Promise((done) => { setTimeout(done, 200); });
    }
    return pssKib();
  };
  const before = await settle();
  for (let made = 0; made < CONNECTIONS; made += 20) kept.push(...(await Promise.all(Array.from({ length: 20 }, () => connect(target)))));
  const kib = ((await settle()) - before) / CONNECTIONS;
  process.send?.(kib);
  await Promise.all(kept.map((one) => one.close()));
  process.exit();
};

/** The test driver's state as a file: a node, and so many domains that run. */
const stateOf = (count: number): string => `<node>
${Array.from({ length: count }, (_, index) => `<domain type='test'><name>d${String(index)}</name><memory>65536</memory><vcpu>1</vcpu><os><type arch='x86_64'>hvm</type></os></domain>`).join('\n')}
</node>`;

export const libvirtClient = async (say: (line: string) => void): Promise<Figure[]> => {
  const withPython = existsSync(PYTHON) && (await run(PYTHON, ['-c', 'import libvirt']).then(() => true, () => false));
  if (!withPython) say('python3-libvirt is not there, so ours stands alone: apt-get install python3-libvirt');
  const daemon = await startLibvirtd(LIMITS);
  try {
    const figures: Figure[] = [];
    figures.push(...(await cheapCalls(daemon, withPython, say)));
    for (const count of [1_000, 10_000]) figures.push(...(await statistics(daemon, count, withPython, say)));
    figures.push(...(await eventLatency(daemon, say)));
    figures.push(...(await volumes(daemon, withPython, say)));
    say('memory of a connection');
    const kib = await connectionKib(daemon.socket);
    const theirs = withPython ? (await peer<{ kib: number }>(uriOf(daemon, 'test:///default'), 'memory', String(CONNECTIONS))).kib : undefined;
    figures.push({ work: 'memory of a connection (PSS)', value: kib / 1_024, unit: 'MiB', ...(theirs === undefined ? {} : { beside: { name: 'python3-libvirt', value: theirs / 1_024 } }) });
    return figures;
  } finally {
    await daemon.stop();
  }
};

/** As virsh and the peer name it. */
const uriOf = (daemon: OwnLibvirtd, driver: string): string => driver.replace(':///', '+unix:///') + `?socket=${daemon.socket}`;

const cheapCalls = async (daemon: OwnLibvirtd, withPython: boolean, say: (line: string) => void): Promise<Figure[]> => {
  const uri = uriOf(daemon, 'test:///default');
  const libvirt = await connect(daemon.testDriver, { inFlightMax: DEEP });
  const figures: Figure[] = [];
  try {
    await callsOf(libvirt, DEEP, CALLS);
    const best: { readonly mode: string; readonly cpuUs: number }[] = [];
    for (const [mode, inFlight, threads] of [['one at a time', 1, 1], [`${String(DEEP)} in flight`, DEEP, DEEP], ['8 threads', 0, 8]] as const) {
      say(`cheap calls, ${mode}`);
      const ours: Calls[] = [];
      const theirs: Calls[] = [];
      for (let round = 0; round < ROUNDS; round++) {
        if (inFlight > 0) ours.push(await callsOf(libvirt, inFlight, CALLS));
        if (withPython) theirs.push(await peer<Calls>(uri, 'calls', String(threads), String(CALLS)));
      }
      const them = theirs.length === 0 ? undefined : middle(theirs, ({ rate }) => rate);
      if (them !== undefined) best.push({ mode, cpuUs: Math.min(...theirs.map(({ cpuUs }) => cpuUs)) });
      if (inFlight === 0) {
        if (them !== undefined) figures.push({ work: 'python3-libvirt, 8 threads', value: them.rate, unit: '/s', note: `p50 ${them.p50.toFixed(2)} ms, p99 ${them.p99.toFixed(2)} ms; ${them.cpuUs.toFixed(0)} µs of its processor a call` });
        continue;
      }
      const us = middle(ours, ({ rate }) => rate);
      figures.push({
        work: `domainGetInfo, ${mode}`, value: us.rate, unit: '/s',
        ...(them === undefined ? {} : { goal: { kind: 'at least', value: them.rate, scales: false } as const, beside: { name: threads === 1 ? 'python3-libvirt' : `python3-libvirt, ${String(threads)} threads`, value: them.rate } }),
        note: `p50 ${us.p50.toFixed(2)} ms, p99 ${us.p99.toFixed(2)} ms; ${us.cpuUs.toFixed(0)} µs of client processor a call${them === undefined ? '' : `, its ${them.cpuUs.toFixed(0)} (p50 ${them.p50.toFixed(2)}, p99 ${them.p99.toFixed(2)} ms)`}`,
      });
      if (inFlight === DEEP) figures.push({ work: `client processor of a call, ${String(DEEP)} in flight`, value: us.cpuUs / 1_000, unit: 'ms' });
    }
    const deep = figures.find(({ work }) => work.startsWith('client processor'));
    if (deep !== undefined && best.length > 0) {
      const lowest = Math.min(...best.map(({ cpuUs }) => cpuUs)) / 1_000;
      figures[figures.indexOf(deep)] = { ...deep, goal: { kind: 'at most', value: lowest, scales: false }, beside: { name: "python3-libvirt's best", value: lowest } };
    }
    say('virsh, one process for each call');
    const virsh: number[] = [];
    for (let n = 0; n < 40; n++) {
      const at = performance.now();
      await run('virsh', ['-q', '-c', uri, 'dominfo', 'test']);
      virsh.push(performance.now() - at);
    }
    figures.push({ work: 'virsh dominfo, one process a call', value: 1_000 / percentile(virsh, 0.5), unit: '/s', note: `p50 ${percentile(virsh, 0.5).toFixed(1)} ms` });
    return figures;
  } finally {
    await libvirt.close();
  }
};

const statistics = async (daemon: OwnLibvirtd, count: number, withPython: boolean, say: (line: string) => void): Promise<Figure[]> => {
  say(`statistics of ${String(count)} domains`);
  const file = join(daemon.directory, listedName(count));
  const out = openSync(file, 'w', 0o644);
  writeSync(out, stateOf(count));
  closeSync(out);
  const driver = `test://${file}`;
  const libvirt = await connect({ socket: daemon.socket, driver });
  try {
    const all: (Stats & { readonly daemonMs: number })[] = [];
    for (let round = 0; round < ROUNDS + 1; round++) {
      const daemonBefore = await daemonCpuMs(daemon);
      const before = cpuMs();
      const at = performance.now();
      const found = (await libvirt.connectGetAllDomainStats({ domains: [] })).map(domainStats);
      const ms = performance.now() - at;
      if (found.length !== count) throw new Error(`${String(found.length)} of ${String(count)} domains were listed`);
      // The first one warms the decoder up.
      if (round > 0) all.push({ ms, cpuMs: cpuMs() - before, daemonMs: (await daemonCpuMs(daemon)) - daemonBefore });
    }
    const us = middle(all, ({ ms }) => ms);
    const uri = uriOf(daemon, 'test:///default').replace('/default', file);
    const them = withPython ? await peer<Stats>(uri, 'stats', String(ROUNDS)) : undefined;
    return [
      {
        work: `all statistics of ${String(count)} domains, as objects`, value: us.ms, unit: 'ms',
        ...(them === undefined ? {} : { beside: { name: 'python3-libvirt', value: them.ms } }), note: `client processor ${us.cpuMs.toFixed(0)} ms${them === undefined ? '' : `, its ${them.cpuMs.toFixed(0)} ms`}`,
      },
      // Below that the daemon's share is a few ticks of the kernel's clock.
      ...(count < 10_000 ? [] : [{ work: `client's processor for ${String(count)} domains, of the daemon's`, value: us.cpuMs / Math.max(us.daemonMs, 1), unit: 'x', goal: { kind: 'at most', value: 1, scales: false }, note: `daemon ${us.daemonMs.toFixed(0)} ms` } as const]),
    ];
  } finally {
    await libvirt.close();
  }
};

/** Processor time of the daemon so far (proc(5), stat: fields 14 and 15, in hundredths of a second). */
const daemonCpuMs = async (daemon: OwnLibvirtd): Promise<number> => {
  const text = readFileSync(`/proc/${String(await daemon.pid())}/stat`, 'utf8');
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) * 10;
};

const eventLatency = async (daemon: OwnLibvirtd, say: (line: string) => void): Promise<Figure[]> => {
  say('events');
  const [doing, hearing] = await Promise.all([connect(daemon.testDriver), connect(daemon.testDriver)]);
  try {
    const domain = await doing.domainLookupByName({ name: 'test' });
    const events = await hearing.domainEvents({ kinds: ['lifecycle'] });
    const times: number[] = [];
    const next = events[Symbol.asyncIterator]();
    for (let n = 0; n < 400; n++) {
      const at = performance.now();
      const heard = next.next();
      await (n % 2 === 0 ? doing.domainSuspend({ domain }) : doing.domainResume({ domain }));
      const { value } = await heard;
      if (value === undefined || value.kind !== 'lifecycle') throw new Error('another event than was caused');
      if (n >= 50) times.push(performance.now() - at);
    }
    return [{ work: 'a change on one connection → its event on another, p50', value: percentile(times, 0.5), unit: 'ms', note: `p99 ${percentile(times, 0.99).toFixed(2)} ms, the call itself within` }];
  } finally {
    await Promise.all([doing.close(), hearing.close()]);
  }
};

const volumes = async (daemon: OwnLibvirtd, withPython: boolean, say: (line: string) => void): Promise<Figure[]> => {
  say(`a volume of ${String(VOLUME_MIB)} MiB, up and down`);
  const { uid, gid } = statSync(daemon.directory);
  const folder = join(daemon.directory, 'pool');
  mkdirSync(folder);
  chownSync(folder, uid, gid);
  const source = join(daemon.directory, 'noise');
  const out = openSync(source, 'w', 0o644);
  for (let mib = 0; mib < VOLUME_MIB; mib++) writeSync(out, randomBytes(1_048_576));
  closeSync(out);
  chmodSync(source, 0o644);
  const uri = uriOf(daemon, 'qemu:///session');
  const libvirt = await connect(daemon.qemuSession, { keepalive: false });
  try {
    const pool = await libvirt.storagePoolCreateXml({ xml: `<pool type='dir'><name>bench</name><target><path>${folder}</path></target></pool>` });
    const volume = await libvirt.storageVolCreateXml({ pool, xml: `<volume><name>noise</name><capacity unit='MiB'>${String(VOLUME_MIB)}</capacity><target><format type='raw'/></target></volume>` });
    const mibPerSecond = { up: [] as number[], down: [] as number[], theirUp: [] as number[], theirDown: [] as number[], virshUp: [] as number[], virshDown: [] as number[] };
    const timed = async (into: number[], work: () => Promise<number | void>): Promise<void> => {
      const at = performance.now();
      const seconds = (await work()) ?? (performance.now() - at) / 1_000;
      into.push(VOLUME_MIB / seconds);
    };
    let cpu = 0;
    for (let round = 0; round < ROUNDS; round++) {
      const before = cpuMs();
      await timed(mibPerSecond.up, async () => {
        const stream = await libvirt.storageVolUpload({ volume });
        await pipeline(createReadStream(source, { highWaterMark: 262_120 }), stream);
      });
      await timed(mibPerSecond.down, async () => {
        let bytes = 0;
        for await (const piece of await libvirt.storageVolDownload({ volume })) bytes += (piece as Buffer).length;
        if (bytes !== VOLUME_MIB * 1_048_576) throw new Error(`${String(bytes)} bytes came down`);
      });
      cpu += cpuMs() - before;
      if (withPython) {
        await timed(mibPerSecond.theirUp, async () => (await peer<{ seconds: number }>(uri, 'upload', 'bench', 'noise', source)).seconds);
        await timed(mibPerSecond.theirDown, async () => (await peer<{ seconds: number }>(uri, 'download', 'bench', 'noise')).seconds);
      }
      await timed(mibPerSecond.virshUp, async () => { await run('virsh', ['-q', '-c', uri, 'vol-upload', 'noise', source, '--pool', 'bench']); });
      await timed(mibPerSecond.virshDown, async () => { await run('virsh', ['-q', '-c', uri, 'vol-download', 'noise', '/dev/null', '--pool', 'bench']); });
    }
    const figure = (work: string, ours: readonly number[], theirs: readonly number[], virsh: readonly number[]): Figure => ({
      work, value: percentile(ours, 0.5), unit: 'MiB/s',
      ...(theirs.length === 0 ? {} : { beside: { name: 'python3-libvirt', value: percentile(theirs, 0.5) } }), note: `virsh ${percentile(virsh, 0.5).toFixed(0)} MiB/s, its start within`,
    });
    return [
      figure('volume up', mibPerSecond.up, mibPerSecond.theirUp, mibPerSecond.virshUp),
      figure('volume down', mibPerSecond.down, mibPerSecond.theirDown, mibPerSecond.virshDown),
      { work: 'client processor for a MiB, up or down', value: cpu / ROUNDS / 2 / VOLUME_MIB, unit: 'ms' },
    ];
  } finally {
    await libvirt.close();
  }
};

if (process.argv[2] === 'memory' && process.argv[3] !== undefined) await holdConnections(process.argv[3]);
