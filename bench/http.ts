/* The HTTP layer with authentication, validation and metrics, beside bare node:http in the same run. */
import autocannon from 'autocannon';
import type { Api } from './client.ts';
import type { Floor } from './floor.ts';
import type { Figure } from './report.ts';

const rate = (url: string, headers: Record<string, string>): Promise<number> =>
  new Promise((resolve, reject) => {
    autocannon({ url, connections: 50, duration: 3, headers }, (error: unknown, result) => {
      if (error !== null && error !== undefined) reject(error instanceof Error ? error : new Error('the load generator failed'));
      else resolve(result.requests.average);
    });
  });

export const gets = async (api: Api, floor: Floor): Promise<Figure[]> => {
  const url = new URL('/v1/tokens/self', api.url).href;
  const headers = { authorization: `Bearer ${api.token}` };
  await rate(url, headers);
  const ours = await rate(url, headers);
  return [{
    work: 'HTTP: Nest on Fastify with authentication, of bare node:http', value: ours / floor.getRate, unit: 'x', goal: { kind: 'at least', value: 0.6, scales: false },
    beside: { name: 'bare', value: 1 }, note: `${ours.toFixed(0)} of ${floor.getRate.toFixed(0)} /s`,
  }];
};
