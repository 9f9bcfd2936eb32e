import { type HostConfig, readHostConfig } from '@chronovirt/host/config';

export type SchedulerConfig = HostConfig;

export const readConfig = (environment: Readonly<Record<string, string | undefined>> = process.env): SchedulerConfig => readHostConfig('scheduler', environment);
