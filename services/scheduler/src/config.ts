import { type HostConfig, readOwnConfig } from '@chronovirt/host/config';
import { z } from 'zod';
import { expiryDefault, type ExpirySettings } from './vm/expiry.ts';

export interface SchedulerConfig extends HostConfig {
  readonly expiry: ExpirySettings;
}

const Seconds = z.coerce.number().int().min(0).max(100 * 365 * 24 * 3_600);
const Own = z.object({ CV_SCHEDULER_EXPIRY_GRACE_SECONDS: Seconds.default(expiryDefault.graceSeconds), CV_SCHEDULER_RECYCLE_SECONDS: Seconds.default(expiryDefault.keepSeconds) });

export const readConfig = (environment: Readonly<Record<string, string | undefined>> = process.env): SchedulerConfig => {
  const { host, own } = readOwnConfig('scheduler', environment, Own);
  return { ...host, expiry: { graceSeconds: own.CV_SCHEDULER_EXPIRY_GRACE_SECONDS, keepSeconds: own.CV_SCHEDULER_RECYCLE_SECONDS } };
};
