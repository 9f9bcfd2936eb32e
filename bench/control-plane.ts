/*
 * The control plane on simulated nodes: accept, create to running, many at once, delete, reads, the way of
 * an event to a subscriber. Everything goes through REST, as a client would.
 *
 * A create is over when the event that ends its operation is seen on the event stream, so what is measured
 * is what a user waits for.
 */
import { randomUUID } from 'node:crypto';
import autocannon from 'autocannon';
import { type Api, call, follow } from './client.ts';
import { type Figure, percentile } from './report.ts';

interface Listed {
  readonly items: readonly { readonly id: string; readonly name: string }[];
  readonly next: string | null;
}

interface Created {
  readonly operation: { readonly id: string };
  readonly vm: { readonly id: string };
}

const ENDED = ['VmOperationDone', 'VmOperationFailed', 'VmDeleted'];

/** Notes when each operation ended, from one subscription. */
export class Ends {
  private readonly at = new Map<string, number>();
  private readonly failed = new Map<string, string>();
  private readonly waiting = new Map<string, () => void>();
  private readonly subscription: { stop(): void };

  constructor(api: Api, after: number) {
    this.subscription = follow(api, after, ({ type, data }, at) => {
      if (!ENDED.includes(type)) return;
      const id = String(data['operationId']);
      this.at.set(id, at);
      if (type === 'VmOperationFailed') this.failed.set(id, String(data['refused']));
      this.waiting.get(id)?.();
      this.waiting.delete(id);
    });
  }

  static async open(api: Api): Promise<Ends> {
    return new Ends(api, await headOf(api));
  }

  /** When the operation was seen to end, by performance.now(). Rejects after a minute, or when it failed. */
  async of(operationId: string): Promise<number> {
    if (!this.at.has(operationId)) {
      await new Promise<void>((resolve, reject) => {
        const timer = setTimeout(() => { reject(new Error(`${operationId} did not end within a minute`)); }, 60_000);
        this.waiting.set(operationId, () => { clearTimeout(timer); resolve(); });
      });
    }
    const failed = this.failed.get(operationId);
    if (failed !== undefined) throw new Error(`${operationId} failed: ${failed}`);
    return this.at.get(operationId) ?? Number.NaN;
  }

  stop(): void {
    this.subscription.stop();
  }
}

const create = (api: Api, name: string, more: Record<string, unknown> = {}) =>
  call<Created>(api, 'POST', '/v1/vms', { name, image: 'bench', network: 'bench', vcpus: 1, memoryMib: 64, diskGib: 1, ...more });

const headOf = async (api: Api): Promise<number> => {
  const { body } = await call<{ head?: number }>(api, 'GET', '/v1/events?after=0&limit=1');
  return body.head ?? 0;
};

/** An image and a network of the bench's own; nodes must be there. */
export const prepare = async (api: Api): Promise<void> => {
  await call(api, 'POST', '/v1/images', { name: 'bench', file: 'bench.qcow2', format: 'qcow2', sha256: 'b'.repeat(64), sizeBytes: 1, minDiskGib: 1, minMemoryMib: 64 });
  await call(api, 'POST', '/v1/networks', { name: 'bench', kind: 'nat', cidr: '10.128.0.0/14' });
};

const accepted = <T>(told: { readonly status: number; readonly body: T }): T => {
  if (told.status !== 202) throw new Error(`not accepted: ${String(told.status)} ${JSON.stringify(told.body).slice(0, 300)}`);
  return told.body;
};

/** One VM, from the request to the event that says it runs. Milliseconds. */
export const createdMs = async (api: Api, body: object): Promise<{ vm: string; ms: number }> => {
  const ends = await Ends.open(api);
  const startedAt = performance.now();
  const { operation, vm } = accepted(await call<Created>(api, 'POST', '/v1/vms', body));
  const ms = (await ends.of(operation.id)) - startedAt;
  ends.stop();
  return { vm: vm.id, ms };
};

/** One create after another. */
export const oneAtATime = async (api: Api, count: number): Promise<{ figures: Figure[]; vms: string[] }> => {
  const ends = new Ends(api, await headOf(api));
  const accept: number[] = [];
  const running: number[] = [];
  const vms: string[] = [];
  for (let n = 0; n < count + 20; n++) {
    const startedAt = performance.now();
    const told = await create(api, `one-${randomUUID()}`);
    const { operation, vm } = accepted(told);
    const endedAt = await ends.of(operation.id);
    vms.push(vm.id);
    // The first ones warm the compiler up.
    if (n < 20) continue;
    accept.push(told.ms);
    running.push(endedAt - startedAt);
  }
  ends.stop();
  return {
    vms,
    figures: [
      { work: 'create: accepted, p50', value: percentile(accept, 0.5), unit: 'ms', goal: { kind: 'at most', value: 5, scales: true } },
      { work: 'create: accepted, p95', value: percentile(accept, 0.95), unit: 'ms', goal: { kind: 'at most', value: 12, scales: true } },
      { work: 'create → running, one at a time, p50', value: percentile(running, 0.5), unit: 'ms', goal: { kind: 'at most', value: 30, scales: true }, note: 'Nova 405 ms' },
      { work: 'create → running, one at a time, p95', value: percentile(running, 0.95), unit: 'ms', goal: { kind: 'at most', value: 60, scales: true }, note: 'Nova 585 ms' },
    ],
  };
};

export interface Burst {
  readonly rate: number;
  readonly endedMs: readonly number[];
  readonly acceptedMs: readonly number[];
  readonly vms: readonly string[];
}

/** Many creates at the same moment. */
export const burst = async (api: Api, count: number, more: Record<string, unknown> = {}): Promise<Burst> => {
  const ends = new Ends(api, await headOf(api));
  const startedAt = performance.now();
  const all = await Promise.all(Array.from({ length: count }, async () => {
    const told = await create(api, `burst-${randomUUID()}`, more);
    const { operation, vm } = accepted(told);
    return { vm: vm.id, acceptedMs: told.ms, endedMs: (await ends.of(operation.id)) - startedAt };
  }));
  ends.stop();
  return { rate: (count * 1_000) / Math.max(...all.map(({ endedMs }) => endedMs)), endedMs: all.map(({ endedMs }) => endedMs), acceptedMs: all.map(({ acceptedMs }) => acceptedMs), vms: all.map(({ vm }) => vm) };
};

/** Deletes at the same moment; VMs a second. */
export const removeAll = async (api: Api, vms: readonly string[]): Promise<number> => {
  const ends = new Ends(api, await headOf(api));
  const startedAt = performance.now();
  const at = await Promise.all(vms.map(async (vm) => ends.of(accepted(await call<{ operation: { id: string } }>(api, 'DELETE', `/v1/vms/${vm}?force=true`)).operation.id)));
  ends.stop();
  return (vms.length * 1_000) / (Math.max(...at) - startedAt);
};

const rateOf = (api: Api, path: string, connections: number, seconds: number): Promise<{ rate: number; p50: number; p99: number }> =>
  new Promise((resolve, reject) => {
    autocannon({ url: new URL(path, api.url).href, connections, duration: seconds, headers: { authorization: `Bearer ${api.token}` } }, (error: unknown, result) => {
      if (error !== null && error !== undefined) reject(error instanceof Error ? error : new Error('the load generator failed'));
      else resolve({ rate: result.requests.average, p50: result.latency.p50, p99: result.latency.p99 });
    });
  });

const timesOf = async (count: number, work: () => Promise<{ ms: number }>): Promise<number[]> => {
  const times: number[] = [];
  for (let n = 0; n < count + 10; n++) {
    const { ms } = await work();
    if (n >= 10) times.push(ms);
  }
  return times;
};

/** Reads, with as many VMs as there are now. */
export const reads = async (api: Api, vms: number): Promise<Figure[]> => {
  const { body } = await call<Listed>(api, 'GET', '/v1/vms?limit=1');
  const id = body.items[0]?.id ?? '';
  const one = await timesOf(200, () => call(api, 'GET', `/v1/vms/${id}`));
  const get = await rateOf(api, `/v1/vms/${id}`, 32, 4);
  const figures: Figure[] = [
    { work: `get one of ${String(vms)}, p50`, value: percentile(one, 0.5), unit: 'ms', goal: { kind: 'at most', value: 2, scales: true }, note: 'Nova 45 ms' },
    { work: `get one of ${String(vms)}, 32 connections`, value: get.rate, unit: '/s', goal: { kind: 'at least', value: 3_000, scales: true }, note: 'Nova 30 /s' },
  ];
  for (const [limit, goal] of [[100, 6], [1_000, 40]] as const) {
    if (limit > vms) continue;
    const times = await timesOf(30, () => call(api, 'GET', `/v1/vms?limit=${String(limit)}`));
    figures.push({ work: `list ${String(limit)} of ${String(vms)}, full records`, value: percentile(times, 0.5), unit: 'ms', goal: { kind: 'at most', value: goal, scales: true } });
  }
  return figures;
};

/** From the log's own clock at the append to the subscriber, both on this machine. */
export const eventToSubscriber = async (api: Api, seconds: number): Promise<Figure[]> => {
  const lag: number[] = [];
  const subscription = follow(api, await headOf(api), ({ recordedAt }, at) => { lag.push(performance.timeOrigin + at - Date.parse(recordedAt)); });
  const networks: string[] = [];
  const until = performance.now() + seconds * 1_000;
  while (performance.now() < until) {
    const { body } = await call<{ id?: string; token?: string }>(api, 'POST', '/v1/tokens', { name: `bench ${String(networks.length)}` });
    networks.push(body.id ?? '');
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  subscription.stop();
  return [
    { work: 'event in the log → seen by a subscriber (SSE), p50', value: percentile(lag, 0.5), unit: 'ms', goal: { kind: 'at most', value: 6, scales: true } },
    { work: 'event in the log → seen by a subscriber (SSE), p99', value: percentile(lag, 0.99), unit: 'ms', goal: { kind: 'at most', value: 25, scales: true } },
  ];
};

/** The whole table for 10 nodes. */
export const controlPlane = async (api: Api, say: (line: string) => void): Promise<Figure[]> => {
  await prepare(api);
  const figures: Figure[] = [];
  say('one create at a time');
  const single = await oneAtATime(api, 100);
  figures.push(...single.figures);
  await removeAll(api, single.vms);
  say('20 at once');
  const twenties = [await burst(api, 20), await burst(api, 20), await burst(api, 20)];
  const twenty = twenties.sort((a, b) => a.rate - b.rate)[1] ?? twenties[0];
  if (twenty === undefined) throw new Error('no burst was made');
  figures.push(
    { work: 'create × 20 at once', value: twenty.rate, unit: '/s', goal: { kind: 'at least', value: 80, scales: true }, note: 'Nova 2.5 /s' },
    { work: 'create × 20 at once, p95', value: percentile(twenty.endedMs, 0.95), unit: 'ms', goal: { kind: 'at most', value: 300, scales: true } },
  );
  const removal = await removeAll(api, twenty.vms);
  figures.push({ work: 'delete × 20 at once', value: removal, unit: '/s', goal: { kind: 'at least', value: 100, scales: true }, note: 'Nova 4.7 /s' });
  for (const other of twenties) if (other !== twenty) await removeAll(api, other.vms);
  say('200 at once over all nodes');
  const many = await burst(api, 200);
  figures.push(
    { work: 'create × 200 at once', value: many.rate, unit: '/s', goal: { kind: 'at least', value: 100, scales: true }, note: 'Nova 1.9 /s, LXD 83 /s' },
    { work: 'create × 200 at once, p95', value: percentile(many.endedMs, 0.95), unit: 'ms', goal: { kind: 'at most', value: 2_000, scales: true } },
    { work: 'create × 200 at once, accepted p95', value: percentile(many.acceptedMs, 0.95), unit: 'ms', goal: { kind: 'at most', value: 300, scales: true } },
  );
  await removeAll(api, many.vms);
  say('100 on an empty node, then 100 on the same one with 200 on it, on three nodes');
  const { body: nodes } = await call<Listed>(api, 'GET', '/v1/nodes');
  const made: string[] = [];
  const rates: { readonly empty: number; readonly loaded: number }[] = [];
  for (const { id: node } of nodes.items.slice(0, 3)) {
    await call(api, 'PATCH', `/v1/nodes/${node}`, { cpuPercent: 10_000, memoryPercent: 1_000 });
    const [empty, filling, loaded] = [await burst(api, 100, { node }), await burst(api, 100, { node }), await burst(api, 100, { node })];
    rates.push({ empty: empty.rate, loaded: loaded.rate });
    made.push(...empty.vms, ...filling.vms, ...loaded.vms);
  }
  const [empty, loaded] = [percentile(rates.map((rate) => rate.empty), 0.5), percentile(rates.map((rate) => rate.loaded), 0.5)];
  figures.push({ work: 'rate on a node that carries 200, of that on an empty one', value: loaded / empty, unit: 'x', goal: { kind: 'at least', value: 0.95, scales: false }, note: `medians of three: ${empty.toFixed(0)} and ${loaded.toFixed(0)} /s; Nova falls 8 times` });
  say('reads with 1,000 VMs');
  made.push(...(await burst(api, 100)).vms);
  figures.push(...(await reads(api, 1_000)));
  figures.push(...(await eventToSubscriber(api, 5)));
  say('deleting all of them');
  for (let at = 0; at < made.length; at += 200) await removeAll(api, made.slice(at, at + 200));
  return figures;
};
