import { type HostConfig, readHostConfig } from '@chronovirt/host/config';

export type MonitorConfig = HostConfig;

export const readConfig = (environment: Readonly<Record<string, string | undefined>> = process.env): MonitorConfig => readHostConfig('monitor', environment);
