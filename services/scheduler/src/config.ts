import { type HostConfig, readHostConfig, BadEnvironment } from '@chronovirt/host/config';
import { z } from 'zod';

export interface SchedulerConfig extends HostConfig {
  /** How long a VM that has expired stays as it is, and how long in the recycle bin then, until it is deleted. Seconds. */
  readonly expiry: { readonly graceSeconds: number; readonly keepSeconds: number };
}

const WEEK_SECONDS = 7 * 24 * 3_600;
const Seconds = z.coerce.number().int().min(0).max(100 * 365 * 24 * 3_600).default(WEEK_SECONDS);
const Own = z.object({ CV_SCHEDULER_EXPIRY_GRACE_SECONDS: Seconds, CV_SCHEDULER_RECYCLE_SECONDS: Seconds });

export const readConfig = (environment: Readonly<Record<string, string | undefined>> = process.env): SchedulerConfig => {
  const host = readHostConfig('scheduler', environment);
  const own = Own.safeParse(environment);
  if (!own.success) throw new BadEnvironment(`scheduler cannot start:\n${own.error.issues.map(({ path, message }) => `  ${path.join('.')}: ${message}`).join('\n')}`);
  return { ...host, expiry: { graceSeconds: own.data.CV_SCHEDULER_EXPIRY_GRACE_SECONDS, keepSeconds: own.data.CV_SCHEDULER_RECYCLE_SECONDS } };
};
