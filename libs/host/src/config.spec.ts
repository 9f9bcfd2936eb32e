import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import { BadEnvironment, readHostConfig, readOwnConfig } from './config.ts';

const enough = { CV_IPAM_POSTGRES_URL: 'postgresql://cv_ipam:x@127.0.0.1:5432/chronovirt', CV_NATS_URL: 'nats://127.0.0.1:4222', CV_NATS_CREDS: '/service.creds' };

describe('what a service is told', () => {
  it('has a default wherever a laptop can have one', () => {
    expect(readHostConfig('ipam', enough)).toMatchObject({ postgresUrl: enough.CV_IPAM_POSTGRES_URL, healthPort: undefined, healthHost: '127.0.0.1', logLevel: 'info' });
    expect(readHostConfig('ipam', enough).waypoints).toBeUndefined();
  });

  it('is complained of all at once, by name', () => {
    expect(() => readHostConfig('ipam', { CV_LOG_LEVEL: 'loud' })).toThrow(/CV_IPAM_POSTGRES_URL[^]*CV_NATS_URL: is not set[^]*CV_NATS_CREDS: is not set[^]*CV_LOG_LEVEL/);
    expect(() => readHostConfig('ipam', {})).toThrow(BadEnvironment);
  });

  it('has what one service is told beside, complained of in the same breath', () => {
    const own = z.object({ CV_IPAM_DAYS: z.coerce.number().default(7) });
    expect(readOwnConfig('ipam', enough, own)).toMatchObject({ host: { postgresUrl: enough.CV_IPAM_POSTGRES_URL }, own: { CV_IPAM_DAYS: 7 } });
    expect(() => readOwnConfig('ipam', { CV_IPAM_DAYS: 'many' }, own)).toThrow(/^ipam cannot start:\n[^]*CV_NATS_CREDS: is not set\n[^]*CV_IPAM_DAYS: /);
    expect(() => readOwnConfig('ipam', { ...enough, CV_IPAM_DAYS: 'many' }, own)).toThrow(BadEnvironment);
  });

  it('lets nobody be held at a waypoint but in a test', () => {
    expect(() => readHostConfig('ipam', { ...enough, CV_WAYPOINTS: '/tmp/waypoints' })).toThrow(/CV_WAYPOINTS: is for tests/);
    expect(readHostConfig('ipam', { ...enough, CV_WAYPOINTS: '/tmp/waypoints', CV_TEST: '1' }).waypoints).toBe('/tmp/waypoints');
  });
});
