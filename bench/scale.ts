/* Whether the cost of a command depends on how many VMs there are: creates one at a time with more and more of them. */
import { type Api, call } from './client.ts';
import { burst, oneAtATime, prepare, reads } from './control-plane.ts';
import type { Figure } from './report.ts';

const SIZES = [100, 1_000, 10_000, 50_000];

export const scale = async (api: Api, say: (line: string) => void): Promise<Figure[]> => {
  await prepare(api);
  const figures: Figure[] = [];
  let vms = 0;
  let first = 0;
  const { body } = await call<{ items: readonly { id: string }[] }>(api, 'GET', '/v1/nodes');
  for (const { id } of body.items) await call(api, 'PATCH', `/v1/nodes/${id}`, { cpuPercent: 10_000, memoryPercent: 1_000 });
  for (const size of SIZES) {
    say(`growing to ${String(size)} VMs`);
    const startedAt = performance.now();
    const before = vms;
    while (vms < size) vms += (await burst(api, Math.min(200, size - vms))).vms.length;
    if (vms - before >= 1_000) figures.push({ work: `create × 200 at once, from ${String(before)} to ${String(vms)} VMs`, value: (vms - before) / ((performance.now() - startedAt) / 1_000), unit: '/s' });
    const { figures: measured, vms: more } = await oneAtATime(api, 60);
    vms += more.length;
    const p50 = measured.find(({ work }) => work.includes('running') && work.endsWith('p50'))?.value ?? Number.NaN;
    if (first === 0) first = p50;
    figures.push({
      work: `create → running with ${String(size)} VMs, p50, of that with ${String(SIZES[0])}`, value: p50 / first, unit: 'x',
      ...(size === SIZES[0] ? {} : { goal: { kind: 'at most' as const, value: 1.25, scales: false } }), note: `${p50.toFixed(1)} ms`,
    });
    if (size >= 10_000) figures.push(...(await reads(api, size)));
  }
  return figures;
};
